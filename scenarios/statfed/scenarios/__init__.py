"""Reference scenarios, one a module, found by discovery; and the data sets that they can use."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from statfed.scenarios._data import Dataset

__all__ = ["datasets"]


def datasets() -> "dict[str, Dataset]":
    """Every data set that can be fetched, by name."""
    from statfed.scenarios import _data

    return _data.datasets()
