"""Brackets of quantiles, narrowed by counts between public edges: what `quantile` does without privacy.

Arrays have shape (columns, *levels of by, targets): a target is one quantile of one group. Every bracket keeps
F(low) < p <= F(high), except that the first `low` of a column that is not of whole numbers is itself a possible value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.analysis import Arrays
from statfed.core.errors import UsageError
from statfed.core.table import Table
from statfed.strategies.analyses import _bins
from statfed.strategies.analyses._moments import Floats, by_level


def with_limits(probabilities: Sequence[float], count: NDArray[np.int64], level: float, limits: bool) -> Floats:
    """Probabilities, then lower and upper limits of F at each (Woodruff 1952); NaN where not wanted or outside (0, 1).

    count: (columns, *levels). Result: (columns, *levels, 3 * probabilities).
    """
    from scipy import stats

    p = np.array(probabilities) * np.ones((*count.shape, 1))
    n = np.where(count > 0, count, np.nan)[..., None]
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt(p * (1 - p) / n) if limits else np.nan
    low, high = p - half, p + half
    return np.concatenate([p, np.where(low > 0, low, np.nan), np.where(high < 1, high, np.nan)], axis=-1)


def goals(probabilities: Floats, size: NDArray[np.int64] | Floats, *, whole: bool) -> Floats:
    """The least size(x) = size F(x) that satisfies F(x) >= p; NaN where there is nothing to find.

    whole: sizes are counts, the goal is the rank k of the smallest k with k/n >= p. Otherwise it is the share p of the
    total weight, less rounding.
    """
    full = np.where(size > 0, size, np.nan)[..., None]
    if not whole:
        return probabilities * full * (1 - 1e-12)
    rank = np.ceil(probabilities * full)
    rank = np.where((rank - 1) / full >= probabilities, rank - 1, rank)
    return np.where(rank / full < probabilities, rank + 1, rank)


@dataclass(frozen=True)
class State:
    """Current brackets. tolerance: (columns,), NaN for whole numbers. goal: see `goals`."""

    low: Floats
    high: Floats
    goal: Floats
    tolerance: Floats

    @property
    def known(self) -> NDArray[np.bool_]:
        """Is there a quantile to find?"""
        return ~np.isnan(self.goal)

    @property
    def _wide(self) -> Floats:
        shape = (-1, *[1] * (self.low.ndim - 1))
        return np.broadcast_to(np.where(np.isnan(self.tolerance), 1.0, self.tolerance).reshape(shape), self.low.shape)

    @property
    def _whole(self) -> NDArray[np.bool_]:
        return np.broadcast_to(np.isnan(self.tolerance).reshape(-1, *[1] * (self.low.ndim - 1)), self.low.shape)

    @property
    def done(self) -> NDArray[np.bool_]:
        """Narrow enough, or no number left between the ends."""
        middle = self.low + (self.high - self.low) / 2
        return ~self.known | (self.high - self.low <= self._wide) | (middle <= self.low) | (middle >= self.high)

    @property
    def estimate(self) -> Floats:
        """Exact for whole numbers, else the middle of the bracket; NaN where there is none."""
        return np.where(self.known, np.where(self._whole, self.high, (self.low + self.high) / 2), np.nan)

    @property
    def bracket(self) -> tuple[Floats, Floats]:
        """Where the quantile lies for certain."""
        low = np.where(self._whole, self.high, self.low)
        return np.where(self.known, low, np.nan), np.where(self.known, self.high, np.nan)

    def edges(self, inner: int) -> Floats:
        """`inner` edges inside each bracket, not decreasing; those of finished targets repeat the upper end."""
        steps = np.arange(1, inner + 1) / (inner + 1)
        low, high = self.low[..., None], self.high[..., None]
        inside = low + (high - low) * steps
        inside = np.where(self._whole[..., None], np.floor(inside), inside)
        return np.where(self.done[..., None], high, np.clip(inside, low, high))

    def narrowed(self, edges: Floats, cells: NDArray[np.int64] | Floats) -> "State":
        """Brackets after the total of `cells` for these edges."""
        if np.any(cells < 0):
            raise UsageError("weight: got negative totals; want weights that are not negative")
        below = np.cumsum(cells[..., :-1], axis=-1)
        reached = below >= self.goal[..., None]
        ends = np.concatenate([self.low[..., None], edges, self.high[..., None]], axis=-1)
        first = np.where(reached.any(axis=-1), reached.argmax(axis=-1), edges.shape[-1])[..., None]
        low, high = (np.take_along_axis(ends, first + k, axis=-1)[..., 0] for k in (0, 1))
        stay = self.done
        return replace(self, low=np.where(stay, self.low, low), high=np.where(stay, self.high, high))


def start(bounds: Sequence[tuple[float, float]], tolerance: Floats, goal: Floats) -> State:
    """Brackets that hold every value within the bounds."""
    shape = (-1, *[1] * (goal.ndim - 1))
    low = np.array([b[0] - np.isnan(t) for b, t in zip(bounds, tolerance, strict=True)]).reshape(shape)
    high = np.array([b[1] for b in bounds]).reshape(shape)
    return State(low * np.ones(goal.shape), high * np.ones(goal.shape), goal, tolerance)


def cells(table: Table, name: str, weight: str | None, by: Sequence[str], edges: Floats) -> Arrays:
    """Records, and their weight, up to the first edge, between edges (upper end included) and beyond the last.

    edges: (*levels, targets, inner). Result: `count` and, with a weight, `total`, of shape (*levels, targets,
    inner + 1); targets share one pass over the records.
    """
    groups = edges.shape[:-2]
    union = {at: np.unique(edges[at]) for at in np.ndindex(groups)}
    bins = max(len(u) for u in union.values()) + 1
    complete = table.complete((name, weight) if weight else (name,))
    x = complete.number(name)
    index = by_level(complete, by, lambda at: _bins.place(x, union[at], "right"))
    placed, extra = _bins.binned(complete, index, bins)
    asked = {"count": placed[extra].count()}
    if weight:
        asked["total"] = placed.number(weight).sum()
    sent = {}
    for key, grid in placed.grid((extra, *by), **asked).items():
        array = np.zeros((*edges.shape[:-1], edges.shape[-1] + 1), np.float64 if key == "total" else np.int64)
        for at, edge in union.items():
            begins = np.concatenate(
                [np.zeros((*edges[at].shape[:-1], 1), np.int64), np.searchsorted(edge, edges[at]) + 1], -1
            )
            array[at] = _between(grid[(slice(None), *at)], begins)
        sent[key] = array
    return sent


def _between(bins: NDArray[Any], begins: NDArray[np.int64]) -> NDArray[Any]:
    """Sums of bins[begin:next begin] along the last axis, the last to the end."""
    whole = np.concatenate([np.zeros(1, bins.dtype), np.cumsum(bins)])
    ends = np.concatenate([begins[..., 1:], np.full((*begins.shape[:-1], 1), len(bins))], -1)
    sums: NDArray[Any] = whole[ends] - whole[begins]
    return sums
