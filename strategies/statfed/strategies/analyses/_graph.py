"""Distributions over many columns as a tree of cliques: margins by message passing, and records drawn along the tree.

A model is a log-linear one: its density is the product of a factor on each clique, and the cliques form a junction tree
of a chordal graph over the columns (Lauritzen and Spiegelhalter 1988). Of pairs without a cycle the cliques are the
pairs. All functions are of public facts: noisy counts and what comes of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Clique = tuple[int, ...]
"""Columns by place, increasing."""
LEAST = 1.0
"""Noise, in records, that stands for less: no more can be seen, and the loss stays within reach."""
_CLOSE = 1e-6
"""Share of the loss by which a step has to lower it, or it is the last."""
_HALVED = 40
_NEVER = -1e6
"""Logarithm of a factor where no record can be: its exponential is 0, and that of sums with it."""


@dataclass(frozen=True)
class Junction:
    """A junction tree over columns with these sizes. cliques: each after its parent. parents: place of the parent, -1
    of the first one. Where columns hang together by nothing, cliques are joined by an empty separator."""

    sizes: tuple[int, ...]
    cliques: tuple[Clique, ...]
    parents: tuple[int, ...]

    @cached_property
    def separators(self) -> tuple[Clique, ...]:
        """What each clique shares with its parent; of the first nothing."""
        return tuple(
            () if up < 0 else tuple(sorted({*clique} & {*self.cliques[up]}))
            for clique, up in zip(self.cliques, self.parents, strict=True)
        )

    @property
    def cells(self) -> int:
        """Cells of all cliques."""
        return sum(int(np.prod(self.shape(clique))) for clique in self.cliques)

    def shape(self, columns: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.sizes[column] for column in columns)

    def holding(self, columns: Sequence[int]) -> int | None:
        """The smallest clique that has these columns; None where there is none."""
        found = [i for i, clique in enumerate(self.cliques) if {*columns} <= {*clique}]
        return min(found, key=lambda i: int(np.prod(self.shape(self.cliques[i]))), default=None)

    def margins(self, factors: Sequence[Floats]) -> list[Floats]:
        """Probabilities of the cells of each clique, from the logarithms of its factors."""
        return self.calibrated(factors)[1]

    def calibrated(self, factors: Sequence[Floats]) -> tuple[float, list[Floats]]:
        """The logarithm of the sum over all cells of the product of the factors, and the cliques' margins, from the
        logarithms of the factors: two passes over the tree."""
        belief = [np.array(factor, np.float64) for factor in factors]
        up: list[Floats] = [np.zeros(())] * len(belief)
        for i in range(len(belief) - 1, 0, -1):
            over = self.separators[i]
            up[i] = _summed(belief[i], self.cliques[i], over)
            parent = self.parents[i]
            belief[parent] = belief[parent] + _spread(up[i], over, self.cliques[parent])
        whole = float(_summed(belief[0], self.cliques[0], ()))
        belief[0] = belief[0] - whole
        for i in range(1, len(belief)):
            over = self.separators[i]
            down = _summed(belief[self.parents[i]], self.cliques[self.parents[i]], over) - up[i]
            belief[i] = belief[i] + _spread(down, over, self.cliques[i])
        return whole, [np.exp(each) for each in belief]

    def drawn(self, margins: Sequence[Floats], count: int, rng: np.random.Generator) -> Ints:
        """Records from the cliques' margins, (count, columns): each clique's new columns given its separator.

        Draws are spread evenly within the records of each cell of the separator, so that a margin is off by less than
        independent draws would be; one record by itself has the model's distribution.
        """
        found = np.zeros((count, len(self.sizes)), np.int64)
        for clique, over, margin in zip(self.cliques, self.separators, margins, strict=True):
            new = tuple(column for column in clique if column not in over)
            if not new:
                continue
            order = [clique.index(column) for column in (*over, *new)]
            table = np.maximum(np.transpose(margin, order), 0.0).reshape(int(np.prod(self.shape(over))), -1)
            whole = table.sum(axis=1, keepdims=True)
            table = np.where(whole > 0, table / np.where(whole > 0, whole, 1.0), 1.0 / table.shape[1])
            at = np.ravel_multi_index(tuple(found[:, over].T), self.shape(over)) if over else np.zeros(count, np.int64)
            cells = _cells(table, np.asarray(at, np.int64), rng)
            for column, place in zip(new, np.unravel_index(cells, self.shape(new)), strict=True):
                found[:, column] = place
        return found


def _summed(logs: Floats, columns: Clique, over: Clique) -> Floats:
    """log sum exp over the columns that are not in `over`."""
    away = tuple(i for i, column in enumerate(columns) if column not in over)
    if not away:
        return logs
    most = logs.max(axis=away, keepdims=True)
    found: Floats = np.log(np.exp(logs - most).sum(axis=away)) + most.squeeze(axis=away)
    return found


def _spread(values: NDArray[Any], over: Clique, columns: Clique) -> NDArray[Any]:
    """An array over some columns with an axis of length 1 for each of the others."""
    return values.reshape([values.shape[over.index(c)] if c in over else 1 for c in columns])


def _cells(table: Floats, rows: Ints, rng: np.random.Generator) -> Ints:
    """A cell for each record from its row of `table`, which adds up to 1."""
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows[order], kind="stable")]
    ordered = rows[order]
    first = np.searchsorted(ordered, ordered, side="left")
    size = np.searchsorted(ordered, ordered, side="right") - first
    even = (np.arange(len(rows)) - first + rng.random(len(rows))) / size
    ends = np.cumsum(table, axis=1)
    last = table.shape[1] - 1 - np.argmax(table[:, ::-1] > 0, axis=1)  # beyond it rounding alone would draw
    ends[np.arange(table.shape[1]) >= last[:, None]] = 1.0
    flat = (ends + np.arange(len(table))[:, None]).ravel()
    cells = np.searchsorted(flat, ordered + np.minimum(even, np.nextafter(1.0, 0.0)), side="right")
    found = np.empty(len(rows), np.int64)
    found[order] = np.clip(cells - ordered * table.shape[1], 0, last[ordered])
    return found


def forbidding(tree: Junction, zeros: Mapping[tuple[int, ...], NDArray[np.bool_]]) -> list[Floats]:
    """Logarithms of factors of the uniform distribution without some cells, by columns, increasing; those of columns
    that no clique holds together are left out."""
    found = [np.zeros(tree.shape(clique)) for clique in tree.cliques]
    for columns, never in zeros.items():
        at = tree.holding(columns)
        if at is not None:
            found[at] = np.where(_spread(never, columns, tree.cliques[at]), _NEVER, found[at])
    return found


def junction(sizes: Sequence[int], sets: Sequence[Sequence[int]]) -> Junction:
    """A junction tree that has each of the sets in a clique: columns are taken out one by one, the one first whose
    neighbours make the smallest clique (a chordal graph that need not be the smallest there is)."""
    near: dict[int, set[int]] = {column: set() for column in range(len(sizes))}
    for one in sets:
        for a, b in combinations(one, 2):
            near[a].add(b)
            near[b].add(a)
    cliques: list[set[int]] = []
    while near:
        cells = {c: float(np.prod([sizes[o] for o in (c, *others)], dtype=np.float64)) for c, others in near.items()}
        column = min(near, key=lambda c: (len(near[c]), cells[c], c))
        others = near.pop(column)
        clique = {column, *others}
        if not any(clique <= other for other in cliques):
            cliques.append(clique)
        for other in others:
            near[other] = (near[other] | others) - {other, column}
    return _joined(tuple(sizes), [tuple(sorted(clique)) for clique in cliques])


def _joined(sizes: tuple[int, ...], cliques: list[Clique]) -> Junction:
    """Cliques with the most columns in common next to each other: Prim's algorithm."""
    left, order, parents = list(range(1, len(cliques))), [0], [-1]
    while left:
        shared = {(i, j): len({*cliques[i]} & {*cliques[j]}) for i in left for j in order}
        child, up = max(shared, key=lambda pair: (shared[pair], -pair[0], -pair[1]))
        left.remove(child)
        parents.append(order.index(up))
        order.append(child)
    return Junction(sizes, tuple(cliques[i] for i in order), tuple(parents))


@dataclass(frozen=True, eq=False)
class Measured:
    """Noisy counts of a margin. columns: by place, in any order. values: of the shape of their groups. noise: standard
    deviation of each, of that shape. groups: by column the group of each of its cells, for columns that are counted
    more coarsely than the model is."""

    columns: tuple[int, ...]
    values: Floats
    noise: Floats
    groups: Mapping[int, Ints]

    def of(self, margin: Floats, columns: Clique) -> Floats:
        """What a margin over `columns`, which has all of the own ones, says of these cells."""
        found: Floats = margin.sum(axis=tuple(i for i, column in enumerate(columns) if column not in self.columns))
        kept = [column for column in columns if column in self.columns]
        found = np.transpose(found, [kept.index(column) for column in self.columns])
        for axis, column in enumerate(self.columns):
            if column in self.groups:
                found = np.moveaxis(_grouped(np.moveaxis(found, axis, 0), self.groups[column]), 0, axis)
        return found

    def back(self, values: Floats, columns: Clique) -> Floats:
        """The transpose of `of`: the value of each cell's group, to be broadcast over `columns`."""
        for axis, column in enumerate(self.columns):
            if column in self.groups:
                values = np.take(values, self.groups[column], axis=axis)
        kept = [column for column in columns if column in self.columns]
        values = np.transpose(values, [self.columns.index(column) for column in kept])
        return _spread(values, tuple(kept), columns)


def _grouped(values: Floats, groups: Ints) -> Floats:
    found = np.zeros((int(groups.max()) + 1, *values.shape[1:]))
    np.add.at(found, groups, values)
    return found


def fitted(
    tree: Junction, measured: Sequence[Measured], total: float, rounds: int, factors: Sequence[Floats] | None = None
) -> tuple[list[Floats], list[Floats]]:
    """Logarithms of factors, and margins, of the model that is nearest to the counts: least sum of squares over the
    variances of their noise, by entropic mirror descent with a step that is halved where it does not lower the loss
    enough (Beck and Teboulle 2003; McKenna, Sheldon and Miklau 2019). What lies in no clique is left out.

    factors: to begin with; none: of the uniform distribution, towards which few rounds lean.
    """
    placed = [(one, at) for one in measured if (at := tree.holding(one.columns)) is not None]
    shares = [(one, at, one.values / total, np.maximum(one.noise, LEAST) / total) for one, at in placed]
    own = [np.zeros(tree.shape(clique)) for clique in tree.cliques] if factors is None else [*factors]

    def judged(margins: Sequence[Floats]) -> tuple[float, list[Floats]]:
        loss, slope = 0.0, [np.zeros(tree.shape(clique)) for clique in tree.cliques]
        for one, at, values, noise in shares:
            off = (one.of(margins[at], tree.cliques[at]) - values) / noise
            loss += 0.5 * float((off**2).sum())
            slope[at] += one.back(off / noise, tree.cliques[at])
        return loss, slope

    margins = tree.margins(own)
    loss, slope = judged(margins)
    step = 1.0 / max(1.0, max((float(np.abs(each).max()) for each in slope), default=1.0))
    for _ in range(rounds):
        for _ in range(_HALVED):
            moved = [factor - step * each for factor, each in zip(own, slope, strict=True)]
            there = tree.margins(moved)
            gain = sum(float((s * (m - t)).sum()) for s, m, t in zip(slope, margins, there, strict=True))
            less, next_slope = judged(there)
            if loss - less >= 0.5 * gain:
                break
            step *= 0.5
        else:
            break
        close = loss - less <= _CLOSE * loss
        own, margins, loss, slope = moved, there, less, next_slope
        step *= 1.5
        if close:
            break
    return own, margins
