"""What a reference scenario is: one module of this package with `ABOUT`, `STUDY` and `population`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from statfed.core.progress import Progress
from statfed.core.study import Study


@dataclass(frozen=True)
class About:
    """The public description of a scenario."""

    title: str
    purpose: str
    parties: str
    data: str
    partitioning: Literal["horizontal", "vertical", "linkage"]
    protections: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Records:
    """Labelled records of one party. Private at a holder.

    windows: (records, channels, samples) float32; labels: (records,) int64, index into the schema's classes;
    persons: (records,) int64, the person whose record it is.
    """

    windows: NDArray[np.float32]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Records({len(self)} records, private)"


@dataclass(frozen=True)
class Population:
    """The simulated world: who holds what, and the held-out persons that results are measured on."""

    holders: Mapping[str, Records]
    test: Records
    synthetic: bool
    origin: str  # one line for every output: which data, which version or seed
    warnings: tuple[str, ...] = ()


class Scenario(Protocol):
    """The module contract. `STUDY` is the default study as a mapping; options of `[data]` are validated here."""

    ABOUT: About
    STUDY: Mapping[str, Any]

    def population(self, study: Study, progress: Progress) -> Population: ...
