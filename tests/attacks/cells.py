"""What a reader works out of published tables of counts: everything that was published, as equations of one finest
table, and the smallest and largest number that each cell of it, or sum of cells, can then be (integer programming)."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

Floats = NDArray[np.float64]


class Finest:
    """The finest table of some categories, of which everything published is a sum.

    levels: codes by category; most: no cell is larger.
    """

    def __init__(self, levels: Mapping[str, Sequence[str]], most: float) -> None:
        self.levels = dict(levels)
        self.places = list(product(*self.levels.values()))
        self.most = most
        self._rows: list[Floats] = []
        self._low: list[float] = []
        self._high: list[float] = []

    def at(self, row: Mapping[str, object], groups: Mapping[str, Mapping[str, str]] | None = None) -> Floats:
        """1 for every finest cell that a published row sums. A category that it does not name, or null, is a margin;
        groups: codes of groups by category and code."""
        names = list(self.levels)
        found = np.ones(len(self.places))
        for i, place in enumerate(self.places):
            for name, code in zip(names, place, strict=True):
                wanted = row.get(name)
                over = (groups or {}).get(name, {})
                codes, up = {code}, code
                while up in over and over[up] not in codes:
                    up = over[up]
                    codes.add(up)
                if wanted is not None and str(wanted) not in codes:
                    found[i] = 0.0
        return found

    def learn(self, cells: Floats, low: float, high: float) -> None:
        """The sum of these cells lies between low and high."""
        self._rows.append(cells)
        self._low.append(low)
        self._high.append(high)

    def read(
        self,
        rows: Iterable[Mapping[str, object]],
        groups: Mapping[str, Mapping[str, str]] | None = None,
        wide: float = 0.0,
        column: str = "count",
    ) -> None:
        """Published rows. wide: half of the rounding base, less a half, where they are rounded."""
        for row in rows:
            value = row.get(column)
            if isinstance(value, int | float):
                self.learn(self.at(row, groups), float(value) - wide, float(value) + wide)

    def interval(self, cells: Floats) -> tuple[float, float]:
        """The smallest and the largest number that the sum of these cells can be; (0, inf) where nothing fits."""
        if not self._rows:
            return 0.0, np.inf
        constraints = LinearConstraint(np.array(self._rows), np.array(self._low), np.array(self._high))
        ends = []
        for sign in (1.0, -1.0):
            found = milp(
                sign * cells,
                constraints=constraints,
                integrality=np.ones(len(cells), np.int64),
                bounds=Bounds(0.0, self.most),
                options={"time_limit": 5.0, "mip_rel_gap": 0.0},
            )
            if found.status != 0:
                return 0.0, np.inf
            ends.append(sign * round(found.fun, 6))
        return ends[0], ends[1]

    def known(self, rows: Iterable[Mapping[str, object]], groups: Mapping[str, Mapping[str, str]] | None = None) -> int:
        """How many of these rows can only be one number."""
        ends = [self.interval(self.at(row, groups)) for row in rows]
        return sum(high - low < 0.5 for low, high in ends)
