"""What a protection is: how a sum over holders is formed, what it needs, and what each role learns by it.

One module of `statfed.strategies.protections` is one protection, with both halves side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from statfed.core.analysis import Arrays, Part
from statfed.core.query import Query
from statfed.core.study import Terms


@dataclass(frozen=True)
class Update:
    """What one holder contributes to a round.

    vector: (parameters,), the model's parameters in order; weight: public weight of it in the average.
    """

    vector: NDArray[np.float32]
    weight: int


@dataclass(frozen=True)
class Requirements:
    """What a study must offer for the protection to apply."""

    minimum_holders: int = 1
    reveals_updates: bool = False  # strategies that look at each holder's update need this


@dataclass(frozen=True)
class Disclosure:
    """One row of *who learns what*."""

    role: str
    learns: str
    protected_by: str


class Protection(Protocol):
    """The module contract."""

    TITLE: str
    TRUST: tuple[str, ...]
    REQUIRES: Requirements

    def protect(self, update: Update) -> Update:
        """Holder's half: what leaves the holder."""
        ...

    def combine(self, updates: Mapping[str, Update]) -> Sequence[Update]:
        """Coordinator's half: what a strategy may see of what arrived, holder by holder or as one total."""
        ...

    def protect_sum(self, contribution: Arrays, parts: Mapping[str, Part]) -> Arrays:
        """Holder's half of one sum of a query."""
        ...

    def combine_sums(self, arrived: Mapping[str, Arrays], parts: Mapping[str, Part]) -> dict[str, NDArray[Any]]:
        """Coordinator's half: the total over holders."""
        ...

    def learns(self, terms: Terms | Query) -> Sequence[Disclosure]:
        """What each role learns by this protection alone."""
        ...
