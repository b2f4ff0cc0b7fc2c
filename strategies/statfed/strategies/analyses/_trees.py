"""Classification trees on public cells: how one is split by counts, and where records end in it. Exact: whole numbers.

A node is split by the cells of one column into two, such that the log-likelihood of the target's cells grows most
(deviance, or entropy; Breiman et al. 1984, section 4.3; Ripley 1996, chapter 7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from statfed.strategies.analyses._classes import Axis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
SAME = 1e-9
"""Gains that are relatively closer are one: the first of them is taken."""


@dataclass(frozen=True, eq=False)
class Split:
    """node: which is split; by: place of the column among those before; left: (cells,) those that go left."""

    node: int
    by: int
    left: Bools


@dataclass
class Tree:
    """Splits in the order in which they were made: the k-th one, from 0, makes the nodes 2 k + 1 (left) and 2 k + 2."""

    splits: list[Split] = field(default_factory=list)

    @property
    def nodes(self) -> int:
        """Nodes, leaves included; the root is 0."""
        return 2 * len(self.splits) + 1

    def walker(self) -> "Walker":
        """The tree as it is now, for many records."""
        return Walker(tuple(self.splits))


@dataclass(frozen=True)
class Walker:
    """Where records end."""

    splits: tuple[Split, ...]

    @cached_property
    def _tables(self) -> tuple[Ints, Ints, Bools]:
        """By node: the column that splits it (-1: a leaf), its left child, the cells that go left."""
        nodes = 2 * len(self.splits) + 1
        by, child = np.full(nodes, -1), np.zeros(nodes, np.int64)
        left = np.zeros((nodes, max((len(split.left) for split in self.splits), default=1)), np.bool_)
        for k, split in enumerate(self.splits):
            by[split.node], child[split.node] = split.by, 2 * k + 1
            left[split.node, : len(split.left)] = split.left
        return by, child, left

    def leaves(self, codes: Ints) -> Ints:
        """The leaf of each record, (n,). codes: (n, columns before), cells."""
        by, child, left = self._tables
        found = np.zeros(len(codes), np.int64)
        going = np.arange(len(codes))
        while len(going):
            column = by[found[going]]
            going, column = going[column >= 0], column[column >= 0]
            node = found[going]
            found[going] = child[node] + ~left[node, codes[going, column]]
        return found


def deviance(counts: Ints) -> Floats:
    """-2 times the log-likelihood of counts at their own shares, over the last axis."""
    found: Floats = 2 * (xlogy(counts.sum(-1), counts.sum(-1)) - xlogy(counts, counts).sum(-1))
    return found


def ways(axis: Axis, counts: Ints, score: Ints) -> Bools:
    """Ways to split the cells of a column in two, (ways, cells): true goes left. In a fixed order.

    counts: (cells, target cells), records of the node; score: (target cells,). Of a number or date: below and above
    each edge, records that miss it with those above, with those below, or alone. Of levels: by the mean of the target's
    score, those with less and those with more (optimal for two cells of the target, Breiman et al. 1984, theorem 4.5);
    then each alone. Levels without a record in the node go where more records go, left where they are as many.
    """
    size = axis.cells
    if not axis.levels:
        return _thresholds(size - axis.missing, axis.missing)
    records = counts.sum(1)
    there = np.flatnonzero(records)
    means = (counts[there] @ score) / records[there]
    along = there[np.argsort(means, kind="stable")]
    made = np.zeros((2 * len(there) - 1, size), np.bool_)
    made[: -len(there), along] = np.tri(len(there) - 1, len(there), dtype=np.bool_)
    made[np.arange(len(there)) + len(there) - 1, there] = True
    heavier = 2 * (made @ records) >= records.sum()
    made[:, records == 0] = heavier[:, None]
    return made


@cache
def _thresholds(classes: int, missing: bool) -> Bools:
    below = np.tri(classes - 1, classes, dtype=np.bool_)
    if not missing:
        return below
    sides = [np.column_stack([below, np.full(classes - 1, side)]) for side in (False, True)]
    return np.vstack([*sides, np.arange(classes + 1)[None] == classes])


def best_split(
    axes: Sequence[Axis], counts: Sequence[Ints], smallest: int, ordered: bool
) -> tuple[int, Bools, Ints, Ints] | None:
    """The split that lowers deviance most: its column, the cells that go left, the target's counts left and right.

    axes, counts: of the columns before, (cells, target cells) each, of the records of one node. smallest: records on
    either side at least. ordered: do the target's cells have an order? Their places are its score then, else 1 is that
    of the most frequent cell. None where no split is left or none lowers the deviance. Of gains that are the same, the
    first.
    """
    if not axes:
        return None
    total = counts[0].sum(0)
    there = np.flatnonzero(total)
    score = there if ordered else (np.arange(len(there)) == np.argmax(total[there])).astype(np.int64)
    whole = float(deviance(total))
    best, found = 0.0, None
    for by, (axis, full) in enumerate(zip(axes, counts, strict=True)):
        table = full[:, there]
        if np.count_nonzero(table.sum(1)) < 2:
            continue
        made = ways(axis, table, score)
        left = made.astype(np.int64) @ table
        right = total[there] - left
        records = left.sum(1)
        fits = (records >= smallest) & (total.sum() - records >= smallest)
        made, left, right = made[fits], left[fits], right[fits]
        if not len(made):
            continue
        gains = whole - deviance(left) - deviance(right)
        most = float(gains.max())
        if most > best + SAME * max(best, 1.0):
            place = int(np.flatnonzero(gains >= most - SAME * max(most, 1.0))[0])
            best, found = float(gains[place]), (by, made[place])
    if found is None:
        return None
    by, goes = found
    left = counts[by][goes].sum(0)
    return by, goes, left, total - left


def joint_counts(leaf: Ints, nodes: Sequence[int], codes: Ints, sizes: Sequence[int], target: Ints, cells: int) -> Ints:
    """Records of nodes by the cells of each column before and of the target, (nodes, sum of sizes, cells), int64.

    leaf: (n,) of the records; codes: (n, columns before); sizes: cells of those; target: (n,), cells of the target.
    Without columns before there is one cell, of all records.
    """
    slots = np.full(int(max([*nodes, *leaf[:1], leaf.max(initial=0)])) + 1, -1)
    slots[list(nodes)] = np.arange(len(nodes))
    slot = slots[leaf]
    here = slot >= 0
    slot, target, codes = slot[here], target[here], codes[here]
    blocks = []
    for column, size in [*enumerate(sizes)] or [(-1, 1)]:
        place = slot * size + (codes[:, column] if column >= 0 else 0)
        found = np.bincount(place * cells + target, minlength=len(nodes) * size * cells)
        blocks.append(found.reshape(len(nodes), size, cells))
    return np.concatenate(blocks, axis=1).astype(np.int64)


def blocks_of(table: Ints, sizes: Sequence[int]) -> list[Ints]:
    """Counts of one node, (sum of sizes, cells), by column."""
    return np.split(table, np.cumsum(sizes)[:-1]) if sizes else []


def trees_of(splits: Ints, sizes: Mapping[int, int]) -> dict[int, Tree]:
    """Trees from rows of (tree, node, by, left ...), by tree. sizes: cells of each column, by place."""
    found: dict[int, Tree] = {tree: Tree() for tree in sizes}
    for row, (tree, node, by) in zip(splits, splits[:, :3].tolist(), strict=True):
        found[tree].splits.append(Split(node, by, row[3 : 3 + sizes[by]] != 0))
    return found
