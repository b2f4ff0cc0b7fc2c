"""Contracts shared by every room: study, statement, privacy events, randomness, wire. No Flower, no PyTorch."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("statfed")
except PackageNotFoundError:  # a source tree on the path without an install
    VERSION = "0+unknown"
