"""Both sides of sums over links of columns that the linkage unit does not see. See `_fuzzy_sums` for why it holds."""

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.core.linkage import Units
from statfed.core.randomness import Stream
from statfed.strategies.linkages._fuzzy_options import Options
from statfed.strategies.linkages._fuzzy_sums import MOST_WEIGHT, SEED, Drawn, Floats, Plan, Words, matrix, product


class Owner:
    """The holder that has the columns. order: number of each cell, which it draws.

    Raises Refused on values that are not in their bounds.
    """

    def __init__(self, plan: Plan, units: Units, options: Options) -> None:
        self.plan = plan
        self.order = Stream(os.urandom(16)).permutation(plan.cells)
        cells = np.zeros(units.count, np.int64)
        for name, levels in options.by.items():
            cells = cells * len(levels) + units.columns[name].astype(np.int64)
        self._cells = self.order[cells]
        self._values = {name: units.columns[name] for name in plan.values}
        for name, value in plan.values.items():
            own = self._values[name]
            if ((own < value.low) | (own > value.high)).any() or (value.whole and (own != np.rint(own)).any()):
                raise Refused(f"{name}: got a value outside its codebook; want every one within bounds")
        self._rows: Words | None = None
        self._parts: Iterator[slice] = plan.parts()
        self._later: Iterator[slice] = plan.parts()

    def __repr__(self) -> str:
        return "Owner(<private>)"

    def dealt(self, content: bytes) -> None:
        """Take what the dealer gives."""
        if len(content) != 16 + 16 * self.plan.width:
            raise Refused(f"deal: got another length; want a seed and {2 * self.plan.width} words")
        self._drawn = Drawn(content[:16], self.plan.width)
        self._share = np.frombuffer(content, np.uint64, offset=16).reshape(2, -1).copy()

    def masked(self, order: NDArray[np.int64]) -> bytes:
        """The next rows of the matrix less what was dealt. order: place of each record, then of what pads."""
        if self._rows is None:
            cells = np.full(self.plan.size, -1, np.int64)
            values = {name: np.zeros(self.plan.size) for name in self._values}
            places = order[: len(self._cells)]
            cells[places] = self._cells
            for name, own in self._values.items():
                values[name][places] = own
            self._rows = matrix(self.plan, cells, values, Stream(os.urandom(16)))
        part = next(self._parts)
        return (self._rows[part] - self._drawn.rows(part.stop - part.start)).tobytes()

    def weigh(self, content: bytes) -> None:
        """Add what the linkage unit's next rows of weights, less what was dealt, come to."""
        part = next(self._later)
        if self._rows is None or len(content) != 16 * (part.stop - part.start):
            raise Refused("weights: got another length; want two words a record")
        self._share += product(np.frombuffer(content, np.uint64).reshape(-1, 2), self._rows[part])

    def shares(self) -> tuple[Words, Words]:
        """Its shares: of counts, (2, cells), and of values and squares, (2, 2 x values, cells)."""
        share = self._share.reshape(2, -1, self.plan.cells)
        return share[:, 0].copy(), share[:, 1:].copy()


class Weigher:
    """The linkage unit's side."""

    def __init__(self, plan: Plan, dealt: bytes) -> None:
        if len(dealt) != SEED:
            raise Refused(f"deal: got another length; want {SEED} bytes")
        self.plan = plan
        self._drawn = Drawn(dealt[:16], 2)
        self._again = Drawn(dealt[:16], 2)
        self._share = Drawn(dealt[16:], plan.width).rows(2)
        self._parts, self._later = plan.parts(), plan.parts()
        self._weights: Words | None = None

    def __repr__(self) -> str:
        return "Weigher(<private>)"

    def take(self, content: bytes) -> None:
        """Add what the owner's next masked rows come to."""
        part = next(self._parts)
        count = part.stop - part.start
        if len(content) != 8 * count * self.plan.width:
            raise Refused(f"masked: got another length; want {count:,} rows")
        self._share += product(self._drawn.rows(count), np.frombuffer(content, np.uint64).reshape(count, -1))

    def weigh(self, weights: Words) -> None:
        """Take the weights of all records, (n, 2). Raises Refused where a sum could wrap."""
        if weights.sum() >= MOST_WEIGHT:
            raise Refused("estimate: got more pairs than values are added up over; want smaller blocks")
        self._weights = weights

    def weights(self) -> Words:
        """The next rows of weights less what was dealt."""
        part = next(self._later)
        if self._weights is None:
            raise Refused("weights: got no links to weigh by")
        return self._weights[part] - self._again.rows(part.stop - part.start)

    def opened(self, theirs: bytes) -> tuple[Floats, Words]:
        """Counts, (2, cells), with the owner's shares; its own shares of values and squares, (2, 2 x values, cells)."""
        if len(theirs) != 16 * self.plan.cells:
            raise Refused("counts: got another length; want two words a cell")
        share = self._share.reshape(2, -1, self.plan.cells)
        counts = share[:, 0] + np.frombuffer(theirs, np.uint64).reshape(2, -1)
        if (counts[1] >= MOST_WEIGHT).any() or (counts[0] > counts[1]).any():
            raise Refused("counts: got shares that do not add up to numbers of links and pairs")
        return counts.astype(np.float64), share[:, 1:].copy()
