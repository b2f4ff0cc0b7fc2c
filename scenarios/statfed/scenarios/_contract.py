"""What a reference scenario is: a module with `ABOUT`, `STUDY`, `CODEBOOK`, `codebook` and `population`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from statfed.core.progress import Progress
from statfed.core.records import Records, WindowCodebook
from statfed.core.study import Study


@dataclass(frozen=True)
class About:
    """The public description of a scenario."""

    title: str
    purpose: str
    parties: str
    data: str
    partitioning: Literal["horizontal", "vertical", "linkage"]
    protections: tuple[str, ...]  # ids of statfed.strategies.protections
    source: str


@dataclass(frozen=True)
class Population:
    """The simulated world: who holds what, and the held-out persons that results are measured on."""

    holders: Mapping[str, Records]
    test: Records
    synthetic: bool
    origin: str  # one line for every output: which data, which version or seed
    warnings: tuple[str, ...] = ()


class Scenario(Protocol):
    """The module contract. `STUDY` is the default study as a mapping; options of `[data]` are validated here.

    `CODEBOOK` is that of the default study, `codebook(study)` that of the data which the study asks for. Both
    functions raise UsageError naming the key when `study.data` is not valid.
    """

    ABOUT: About
    STUDY: Mapping[str, Any]
    CODEBOOK: WindowCodebook

    def codebook(self, study: Study) -> WindowCodebook: ...

    def population(self, study: Study, progress: Progress) -> Population: ...
