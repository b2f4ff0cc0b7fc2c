"""Brackets of quantiles, narrowed by counts between public edges: what `quantile` does without privacy.

Arrays have shape (columns, *levels of by, targets): a target is one quantile of one group. Every bracket keeps
F(low) < p <= F(high), except that the first `low` of a column that is not of whole numbers is itself a possible value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.method import Arrays
from statfed.core.table import Table
from statfed.strategies.analyses import _bins
from statfed.strategies.analyses._moments import Floats


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
    """Current brackets. goal: see `goals`; tolerance: (columns,), NaN for whole numbers; moved: which of the lower and
    upper ends an ask was about, the others being those the brackets began with. least: fewest records in a bracket that
    is narrowed; then the estimate is interpolated. upto: records up to the lower and the upper ends, where known."""

    low: Floats
    high: Floats
    goal: Floats
    tolerance: Floats
    moved: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    least: int = 0
    upto: tuple[Floats, Floats] | None = None

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
        narrow = (self.high - self.low <= self._wide) | (middle <= self.low) | (middle >= self.high)
        if self.least and self.upto is not None:
            narrow |= self.upto[1] - self.upto[0] < self.least
        return ~self.known | narrow

    @property
    def estimate(self) -> Floats:
        """Exact for whole numbers, else the middle of the bracket; NaN where there is none. With `least` a value of the
        bracket, as if its records were spread evenly."""
        if self.least and self.upto is not None:
            inside = np.maximum(self.upto[1] - self.upto[0], 1.0)
            share = np.clip((self.goal - self.upto[0]) / inside, 0.0, 1.0)
            value = self.low + share * (self.high - self.low)
            return np.where(self.known, np.where(self._whole, np.ceil(value), value), np.nan)
        return np.where(self.known, np.where(self._whole, self.high, (self.low + self.high) / 2), np.nan)

    @property
    def bracket(self) -> tuple[Floats, Floats]:
        """Where the quantile lies for certain."""
        low = np.where(self._whole & ~self._spread, self.high, self.low)
        return np.where(self.known, low, np.nan), np.where(self.known, self.high, np.nan)

    @property
    def _spread(self) -> NDArray[np.bool_]:
        """Did the bracket end with more than one whole number in it?"""
        return self.high - self.low > 1.5 if self.least else np.zeros(self.low.shape, np.bool_)

    def edges(self, inner: int, *, careful: bool) -> Floats:
        """`inner` edges inside each bracket, not decreasing; those of finished targets repeat the upper end.

        careful: in a bracket with an end that was not asked about, all edges are the middle; one edge where all are so.
        """
        inside = (self.moved[0] & self.moved[1] & ~self.done) | (not careful)
        steps = np.arange(1, inner + 1) / (inner + 1) if inside.any() else np.array([0.5])
        steps = np.where(inside[..., None], steps, 0.5)
        low, high = self.low[..., None], self.high[..., None]
        edges = low + (high - low) * steps
        edges = np.where(self._whole[..., None], np.floor(edges), edges)
        return np.where(self.done[..., None], high, np.clip(edges, low, high))

    def joined(self, limits: "State", quantiles: int) -> "State":
        """Brackets of the first `quantiles` targets from here, of all others from `limits`."""
        here = np.arange(self.low.shape[-1]) < quantiles
        ends = {name: np.where(here, getattr(self, name), getattr(limits, name)) for name in ("low", "high", "goal")}
        return replace(self, **ends)

    def narrowed(self, edges: Floats, below: NDArray[np.int64] | Floats) -> "State":
        """Brackets after `below`, the total up to each of these edges."""
        reached = below >= self.goal[..., None]
        ends = np.concatenate([self.low[..., None], edges, self.high[..., None]], axis=-1)
        first = np.where(reached.any(axis=-1), reached.argmax(axis=-1), edges.shape[-1])[..., None]
        low, high = (np.take_along_axis(ends, first + k, axis=-1)[..., 0] for k in (0, 1))
        low, high = np.where(self.done, self.low, low), np.where(self.done, self.high, high)
        moved = self.moved[0] | (low != self.low), self.moved[1] | (high != self.high)
        if self.upto is None:
            return replace(self, low=low, high=high, moved=moved)
        counts = np.concatenate([self.upto[0][..., None], below, self.upto[1][..., None]], axis=-1)
        at = (np.take_along_axis(counts, first + k, axis=-1)[..., 0] for k in (0, 1))
        lower, upper = (np.where(self.done, was, now) for was, now in zip(self.upto, at, strict=True))
        return replace(self, low=low, high=high, moved=moved, upto=(lower, upper))


def start(bounds: Sequence[tuple[float, float]], tolerance: Floats, shape: tuple[int, ...]) -> State:
    """Brackets that hold every value within the bounds; goals are not known yet, and 0.

    shape: (columns, *levels, targets).
    """
    ends = np.array([(b[0] - np.isnan(t), b[1]) for b, t in zip(bounds, tolerance, strict=True)])
    low, high = (ends[:, k].reshape(-1, *[1] * (len(shape) - 1)) * np.ones(shape) for k in (0, 1))
    return State(low, high, np.zeros(shape), tolerance, (np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)))


def counts(table: Table, name: str, weight: str | None, by: Sequence[str], edges: Floats, *, between: bool) -> Arrays:
    """`count` of records and, with a weight, their `total`, up to and beyond each edge: (*edges.shape, 2).

    edges: (*levels, targets, inner), not decreasing along the last axis. between: up to the first edge, from edge to
    edge (upper end included) and beyond the last instead: (*levels, targets, inner + 1). All in one pass over the
    records.
    """
    union = np.unique(edges)
    places = np.searchsorted(union, edges)
    levels = list(np.ndindex(edges.shape[:-2]))
    sent = {}
    for key, grid in _bins.counts(table, name, union, "right", weight, by).items():
        below = np.cumsum(grid, axis=0)
        upto = np.stack([below[(places[at], *at)] for at in levels]).reshape(edges.shape)
        whole = np.broadcast_to(below[-1][..., None, None], edges.shape)
        if between:
            ends = np.concatenate([np.zeros_like(upto[..., :1]), upto, whole[..., :1]], axis=-1)
            sent[key] = np.diff(ends, axis=-1)
        else:
            sent[key] = np.stack([upto, whole - upto], axis=-1)
    return sent


def upto(cells: NDArray[Any], *, between: bool) -> NDArray[Any]:
    """The total up to each edge, of the shape of the edges, from a total of `counts`."""
    below: NDArray[Any] = np.cumsum(cells, axis=-1)[..., :-1] if between else cells[..., 0]
    return below


def whole(cells: NDArray[Any], *, between: bool) -> NDArray[Any]:
    """The total of all records, of shape (columns, *levels), from a total of `counts`."""
    sizes: NDArray[Any] = (cells if between else cells[..., 0, :]).sum(axis=-1)[..., 0]
    return sizes
