"""The population that every analysis can be asked about and the examples of its options, where tests look for them."""

from statfed.scenarios._plugins.universe import CODEBOOK as CODEBOOK
from statfed.scenarios._plugins.universe import EXAMPLES as EXAMPLES
from statfed.scenarios._plugins.universe import REGIONS as REGIONS
from statfed.scenarios._plugins.universe import SEXES as SEXES
from statfed.scenarios._plugins.universe import people as people
