"""Classification trees on public cells: how one is split by counts, and where records end in it. Exact: whole numbers.

A node is split by the cells of one column into two, such that the log-likelihood of the target's cells grows most
(deviance, or entropy; Breiman et al. 1984, section 4.3; Ripley 1996, chapter 7).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlogy

from statfed.strategies.analyses._classes import Axis

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SAME = 1e-9
"""Gains that are relatively closer are one: the first of them is taken."""


@dataclass(frozen=True)
class Split:
    """node: which is split; by: place of the column among those before; left: (cells,) 1 for the cells that go left."""

    node: int
    by: int
    left: tuple[int, ...]


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
    def _tables(self) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """By node: the column that splits it (-1: a leaf), its left child, the cells that go left."""
        nodes = 2 * len(self.splits) + 1
        by, child = np.full(nodes, -1), np.zeros(nodes, np.int64)
        left = np.zeros((nodes, max((len(split.left) for split in self.splits), default=1)), np.bool_)
        for k, split in enumerate(self.splits):
            by[split.node], child[split.node] = split.by, 2 * k + 1
            left[split.node, : len(split.left)] = np.array(split.left, np.bool_)
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


def ways(axis: Axis, counts: Ints, ordered: bool) -> NDArray[np.bool_]:
    """Ways to split the cells of a column in two, (ways, cells): true goes left. In a fixed order.

    counts: (cells, target cells), records of the node; ordered: do the target's cells have an order? Of a number or
    date: below and above each edge, records that miss it with those below, above, or alone. Of levels: by the mean of
    the target's cell, or without an order by the share of its most frequent cell, those with less and those with more
    (optimal for two cells of the target, Breiman et al. 1984, theorem 4.5); then each alone. Levels without a record
    in the node go where more records go, left where they are as many.
    """
    size = axis.cells
    if not axis.levels:
        classes = size - axis.missing
        below = np.tri(classes - 1, classes, dtype=np.bool_)
        if not axis.missing:
            return below
        found = [np.column_stack([below, np.full(classes - 1, side)]) for side in (False, True)]
        alone = np.arange(size) == size - 1
        return np.vstack([*found, alone[None]])
    records = counts.sum(1)
    there = np.flatnonzero(records)
    score = np.arange(counts.shape[1]) if ordered else (np.arange(counts.shape[1]) == np.argmax(counts.sum(0)))
    means = (counts[there] @ score.astype(np.int64)) / records[there]
    along = there[np.argsort(means, kind="stable")]
    made = np.zeros((max(len(there) - 1, 0) + len(there), size), np.bool_)
    for k in range(1, len(along)):
        made[k - 1, along[:k]] = True
    for k, cell in enumerate(there):
        made[len(along) - 1 + k, cell] = True
    empty = records == 0
    heavier = 2 * (made @ records) >= records.sum()
    made[:, empty] = heavier[:, None]
    return made


def best_split(
    axes: Sequence[Axis], counts: Sequence[Ints], smallest: int, ordered: bool
) -> tuple[int, NDArray[np.bool_], Ints, Ints] | None:
    """The split that lowers deviance most: its column, the cells that go left, the target's counts left and right.

    axes, counts: of the columns before, (cells, target cells) each, of the records of one node. smallest: records on
    either side at least. None where no split is left or none lowers the deviance. Of gains that are the same, the
    first.
    """
    best, found = 0.0, None
    for by, (axis, table) in enumerate(zip(axes, counts, strict=True)):
        total = table.sum(0)
        made = ways(axis, table, ordered)
        left = made.astype(np.int64) @ table
        right = total - left
        gains = deviance(total) - deviance(left) - deviance(right)
        gains = np.where((left.sum(1) >= smallest) & (right.sum(1) >= smallest), gains, -np.inf)
        if not len(gains) or gains.max() <= best + SAME * max(best, 1.0):
            continue
        place = int(np.flatnonzero(gains >= gains.max() - SAME * max(float(gains.max()), 1.0))[0])
        best, found = float(gains[place]), (by, made[place], left[place], right[place])
    return found


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
    for row in splits:
        tree, node, by = (int(value) for value in row[:3])
        found[tree].splits.append(Split(node, by, tuple(int(value) for value in row[3 : 3 + sizes[by]])))
    return found
