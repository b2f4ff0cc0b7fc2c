"""The population that every method can be asked about and the examples of its options, where tests look for them."""

from statfed.lab.laws.universe import CODEBOOK as CODEBOOK
from statfed.lab.laws.universe import EXAMPLES as EXAMPLES
from statfed.lab.laws.universe import REGIONS as REGIONS
from statfed.lab.laws.universe import SEXES as SEXES
from statfed.lab.laws.universe import examples_of as examples_of
from statfed.lab.laws.universe import people as people
