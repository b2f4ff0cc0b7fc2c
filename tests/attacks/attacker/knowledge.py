"""All that an attacker has learned of a sensitive column, as linear equations, and what they leave open.

It knows every quasi-identifier of everybody: the worst case. The sensitive values y of the n records are its unknowns,
within the public bounds. Nearly every exact figure is linear in them, a'y = b with a vector a that the attacker works
out from the quasi-identifiers: a total over a filter, a cell, the normal equations X'y of a regression, the score
equations X'(y - mu) = 0 of a logit, the cross products of a covariance, and for a coordinator the sums of w x y of any
ask. Then

- how far the target's unit vector lies in the span of all a says without any data whether a further question is worth
  asking: `reach` is the share of its squared length there; at 1 the value is known exactly;
- two linear programs give the interval of values that fit everything (HiGHS).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

Floats = NDArray[np.float64]
TOLERANCE = 1e-7


@dataclass
class Knowledge:
    """Equations about the sensitive values of n records. low, high: public bounds; wanted: (n,), c of the c'y that the
    attacker is after."""

    low: Floats
    high: Floats
    wanted: Floats
    rows: list[Floats] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    slack: list[float] = field(default_factory=list)
    _basis: Floats | None = None

    def learn(self, a: Floats, b: float, rounding: float = 0.0) -> None:
        """a'y = b, give or take `rounding`."""
        size = float(np.abs(a).max(initial=0.0))
        if size <= 0 or not np.isfinite(b) or not np.isfinite(a).all():
            return
        self.rows.append(a / size)
        self.values.append(b / size)
        reach = float(np.abs(a) @ np.maximum(np.abs(self.low), np.abs(self.high))) / size
        self.slack.append(rounding / size + TOLERANCE * max(reach, abs(b) / size) * 0.1)
        self._basis = None

    def reach(self, more: Floats | None = None) -> float:
        """Share of the squared length of what is wanted that lies in the span of the equations and `more`, (k, n)."""
        basis = self._span()
        residual = self.wanted - basis @ (basis.T @ self.wanted)
        total = float(self.wanted @ self.wanted)
        if more is None or not len(more):
            return 1.0 - float(residual @ residual) / total
        left = more.T - basis @ (basis.T @ more.T)
        size = np.linalg.norm(left, axis=0)
        keep = size > 1e-9 * np.maximum(np.linalg.norm(more, axis=1), 1e-300)
        if not keep.any():
            return 1.0 - float(residual @ residual) / total
        q, _ = np.linalg.qr(left[:, keep] / size[keep])
        after = residual - q @ (q.T @ residual)
        return 1.0 - float(after @ after) / total

    def _span(self) -> Floats:
        if self._basis is None:
            if not self.rows:
                self._basis = np.zeros((len(self.wanted), 0))
            else:
                scaled = np.array([row / np.linalg.norm(row) for row in self.rows])
                u, s, _ = np.linalg.svd(scaled.T, full_matrices=False)
                self._basis = u[:, s > 1e-9 * s.max()]
        return self._basis

    def interval(self) -> tuple[float, float]:
        """The smallest and largest c'y that fit everything learned; the public bounds where the programs fail."""
        lowest = float(np.where(self.wanted > 0, self.wanted * self.low, self.wanted * self.high).sum())
        highest = float(np.where(self.wanted > 0, self.wanted * self.high, self.wanted * self.low).sum())
        if not self.rows:
            return lowest, highest
        scale = float(np.max(self.high - self.low))
        a = np.array(self.rows)
        shift = np.array(self.values) - a @ self.low  # y = low + scale z
        slack = np.array(self.slack)
        both = np.vstack([a, -a])
        limits = np.concatenate([shift + slack, -shift + slack]) / scale
        ends = []
        for sign in (1.0, -1.0):
            bounds = np.column_stack([np.zeros(len(self.low)), (self.high - self.low) / scale])
            found = linprog(  # type: ignore[call-overload]  # bounds as an array of pairs, as documented
                sign * self.wanted,
                A_ub=both,
                b_ub=limits,
                bounds=bounds,
                method="highs",
            )
            if found.status != 0:
                return lowest, highest
            ends.append(sign * found.fun * scale + float(self.wanted @ self.low))
        return ends[0], ends[1]
