"""The in-memory driver of protections, where tests look for it."""

from statfed.scenarios._plugins.network import Change as Change
from statfed.scenarios._plugins.network import Network as Network
from statfed.scenarios._plugins.network import agreement as agreement
from statfed.scenarios._plugins.network import identities as identities
