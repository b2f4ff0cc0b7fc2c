"""The in-memory driver of protections, where tests look for it."""

from statfed.lab.laws.network import Change as Change
from statfed.lab.laws.network import Network as Network
from statfed.lab.laws.network import agreement as agreement
from statfed.lab.laws.network import identities as identities
