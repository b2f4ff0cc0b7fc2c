"""`cart`: one tree for each column in turn, given those before it: what sequential synthetic data rest on.

Trees are grown by protected sums: for each node of a level, of all trees together, the records in each cell of every
column before and each cell of the column itself (`_trees`). Cells follow from the codebook alone (`_classes`), missing
values are one. So a tree is a function of sums of whole numbers: it is the same, to the last split, whoever holds the
records. A leaf is the counts of its column's cells. Sources: Reiter 2005; Nowok, Raab and Dibben 2016 (synthpop).

The sums are exact, and linked: no rule on single tables can judge them together. So the parts say of nothing what they
are: no holder whose rules are on answers, and no release that has rules is made. There is no private form.

A level asks for at most `MOST_ENTRIES` numbers at a time; a holder learns the trees as they grow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Part, Question, Total, once
from statfed.core.result import Result, Row
from statfed.core.section import Section
from statfed.core.synthetic.coded import described
from statfed.core.table import Table
from statfed.strategies.analyses._classes import Axis, axis_of
from statfed.strategies.analyses._trees import Split, Tree, best_split, blocks_of, joint_counts, trees_of

TITLE = "A tree for each column given those before it, for sequential synthetic data"
GROUP = "Distributions"
PUSHES_DOWN = "all but the count of cells; embedded DuckDB streams"
LINKED = True
MOST_ENTRIES = 4_000_000
"""Numbers of one sum."""
MOST_COLUMNS, MOST_SPLITS = 100, 200_000
_KEPT = 200_000_000  # cells of records that a holder keeps from one ask to the next
Ints = NDArray[np.int64]


class Options(Section):
    """Options of cart."""

    columns: tuple[str, ...] = Field(
        default=(), max_length=MOST_COLUMNS, description="columns in their order, each given those before; none: all"
    )
    classes: int = Field(default=64, ge=2, le=1000, description="most classes that a number or date is counted in")
    smallest: int = Field(default=10, ge=1, le=1_000_000, description="fewest records of a leaf")
    depth: int = Field(default=15, ge=0, le=60, description="most splits between the root and a leaf")


@once
def axes_of(question: Question[Options]) -> tuple[Axis, ...]:
    """The cells of every column, in their order. Raises UsageError where they are none, or too many."""
    options, codebook = question.options, question.codebook
    names = options.columns or described(codebook)
    if not names or len(names) > MOST_COLUMNS or len(set(names)) < len(names):
        raise UsageError(f"columns: got {len(names)}; want 1 to {MOST_COLUMNS}, each once")
    found = tuple(axis_of(codebook, name, options.classes) for name in names)
    before = 1
    for axis in found:
        if before * axis.cells > MOST_ENTRIES:
            raise UsageError(
                f"{axis.name}: got {axis.cells} cells after {before} of columns before; want at most {MOST_ENTRIES:,} "
                "pairs of them (fewer classes, or columns with fewer levels)"
            )
        before += axis.cells
    return found


def _sizes(question: Question[Options]) -> list[int]:
    return [axis.cells for axis in axes_of(question)]


def columns(question: Question[Options]) -> tuple[str, ...]:
    return tuple(axis.name for axis in axes_of(question))


@dataclass(frozen=True)
class _Asked:
    """One ask, read: trees as they are, and for each tree in it the nodes that are asked about."""

    trees: Mapping[int, Tree]
    nodes: Mapping[int, tuple[int, ...]]


def _read(question: Question[Options], ask: Ask) -> _Asked:
    """Raises UsageError on an ask that is none, or is not about leaves of well-formed trees."""
    if ask.name != "cells":
        raise UsageError(f"cart: unknown ask: got {ask.name!r}; want cells")
    sizes = _sizes(question)
    splits, nodes = (np.asarray(ask.arrays.get(name, np.zeros(0))) for name in ("splits", "nodes"))
    if splits.shape[1:] != (3 + max(sizes),) or nodes.shape[1:] != (2,) or len(splits) > MOST_SPLITS + 1:
        raise UsageError(f"cart: got splits and nodes of shapes {splits.shape}, {nodes.shape}; want lists of both")
    if splits.dtype != np.int64 or nodes.dtype != np.int64 or not len(nodes):
        raise UsageError("cart: got splits or nodes that are no whole numbers; want some")
    leaves = {tree: {0} for tree in range(len(sizes))}
    made = dict.fromkeys(leaves, 0)
    odd = ((splits[1:, 3:] != 0) & (splits[1:, 3:] != 1)).any()
    for tree, node, by in splits[1:, :3].tolist():  # the first row stands for none
        if odd or node not in leaves.get(tree, ()) or not 0 <= by < tree:
            raise UsageError("cart: got a split that is none; want one of a leaf, by a column before")
        leaves[tree].remove(node)
        leaves[tree] |= {2 * made[tree] + 1, 2 * made[tree] + 2}
        made[tree] += 1
    asked: dict[int, list[int]] = {}
    for tree, node in nodes.tolist():
        if node not in leaves.get(tree, ()):
            raise UsageError("cart: got a node that is no leaf; want each once")
        leaves[tree].remove(node)
        asked.setdefault(tree, []).append(node)
    found = _Asked(trees_of(splits[1:], dict(enumerate(sizes))), {tree: tuple(asked[tree]) for tree in sorted(asked)})
    if sum(_entries(sizes, tree) * len(of) for tree, of in found.nodes.items()) > MOST_ENTRIES:
        raise UsageError(f"cart: got nodes of more than {MOST_ENTRIES:,} numbers; want fewer at a time")
    return found


def _entries(sizes: Sequence[int], tree: int) -> int:
    """Numbers that one node of a tree is asked for."""
    return max(sum(sizes[:tree]), 1) * sizes[tree]


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    sizes = _sizes(question)
    return {
        f"tree_{tree}": Part(
            (len(nodes), max(sum(sizes[:tree]), 1), sizes[tree]), 1.0, integer=True, single=tree < 2, what=None
        )
        for tree, nodes in _read(question, ask).nodes.items()
    }


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    asked, sizes = _read(question, ask), _sizes(question)
    walkers = {tree: asked.trees[tree].walker() for tree in asked.nodes}
    total = {
        tree: np.zeros((len(nodes), max(sum(sizes[:tree]), 1), sizes[tree]), np.int64)
        for tree, nodes in asked.nodes.items()
    }
    for codes in _codes(table, axes_of(question)):
        for tree, nodes in asked.nodes.items():
            leaf = walkers[tree].leaves(codes[:, :tree])
            total[tree] += joint_counts(leaf, nodes, codes[:, :tree], sizes[:tree], codes[:, tree], sizes[tree])
    return {f"tree_{tree}": array for tree, array in total.items()}


def _codes(table: Table, axes: Sequence[Axis]) -> Iterator[Ints]:
    """Cells of the records, (rows, columns) at a time; of those alone that have a cell in every column."""
    kept = table.kept if table.kept is not None else {}
    if "codes" in kept:
        yield from kept["codes"]
        return
    held: list[Ints] = []
    size = 0
    for block in table.batches({f"a{i}": axis.expr(table) for i, axis in enumerate(axes)}):
        codes = block[~np.isnan(block).any(axis=1)].astype(np.int64)
        size += codes.size
        if size <= _KEPT:
            held.append(codes)
        yield codes
    if size <= _KEPT:
        kept["codes"] = held


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells()


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:
    """Trees only grow, and a node is asked about once."""
    asked = _read(question, ask)
    earlier = before[-1].arrays["splits"]
    if len(ask.arrays["splits"]) < len(earlier) or not np.array_equal(ask.arrays["splits"][: len(earlier)], earlier):
        return "got trees that are not those of before, grown; want them"
    done = {tuple(pair) for one in before for pair in one.arrays["nodes"].tolist()}
    again = done & {(tree, node) for tree, nodes in asked.nodes.items() for node in nodes}
    return f"got {len(again)} nodes a second time; want each once" if again else ""


@dataclass
class _Growing:
    """A node that may be split, and how many splits are above it."""

    tree: int
    node: int
    depth: int


@dataclass
class _Forest:
    """Trees as they grow. leaves: by tree and node, the counts of the target's cells."""

    axes: Sequence[Axis]
    options: Options
    trees: list[Tree]
    leaves: list[dict[int, Ints]]
    rows: list[list[int]] = field(default_factory=list)

    def ask(self, nodes: Sequence[_Growing]) -> Ask:
        width = 3 + max(axis.cells for axis in self.axes)
        splits = np.array([[-1] * width, *(row + [0] * (width - len(row)) for row in self.rows)], np.int64)
        return Ask("cells", {"splits": splits, "nodes": np.array([[one.tree, one.node] for one in nodes], np.int64)})

    def grow(self, one: _Growing, table: Ints) -> list[_Growing]:
        """Split a node, or leave it. table: its counts. Returns the nodes to go on with."""
        before, axis = self.axes[: one.tree], self.axes[one.tree]
        sizes = [each.cells for each in before]
        blocks = blocks_of(table, sizes)
        total = blocks[0].sum(0) if blocks else table[0]
        if one.depth == 0:
            self.leaves[one.tree][0] = total
        if not self._worth(total, one.depth):
            return []
        found = best_split(before, blocks, self.options.smallest, not axis.levels)
        if found is None:
            return []
        if len(self.rows) >= MOST_SPLITS:
            raise UsageError(
                f"cart: got more than {MOST_SPLITS:,} splits; want a larger smallest leaf, or fewer columns"
            )
        by, left, *sides = found
        tree = self.trees[one.tree]
        tree.splits.append(Split(one.node, by, left))
        self.rows.append([one.tree, one.node, by, *left.astype(np.int64).tolist()])
        del self.leaves[one.tree][one.node]
        made = [_Growing(one.tree, tree.nodes - 2 + side, one.depth + 1) for side in (0, 1)]
        for child, counts in zip(made, sides, strict=True):
            self.leaves[one.tree][child.node] = counts
        return [child for child, counts in zip(made, sides, strict=True) if self._worth(counts, child.depth)]

    def _worth(self, counts: Ints, depth: int) -> bool:
        """May a node of these counts be split?"""
        enough = int(counts.sum()) >= 2 * self.options.smallest
        return depth < self.options.depth and enough and int(np.count_nonzero(counts)) > 1


def coordinate(question: Question[Options]) -> Coordination:
    axes, options = axes_of(question), question.options
    forest = _Forest(axes, options, [Tree() for _ in axes], [{} for _ in axes])
    level = [_Growing(tree, 0, 0) for tree in range(len(axes))]
    while level:
        following: list[_Growing] = []
        for some in _portions(level, [axis.cells for axis in axes]):
            total = yield forest.ask(some)
            for one, table in zip(some, _tables(some, total), strict=True):
                following += forest.grow(one, table)
        level = sorted(following, key=lambda one: (one.tree, one.node))
    return _result(forest)


def _portions(level: Sequence[_Growing], sizes: Sequence[int]) -> Iterator[list[_Growing]]:
    """Nodes of a level, as many at a time as fit into one sum, by tree."""
    some: list[_Growing] = []
    held = 0
    for one in level:
        entries = _entries(sizes, one.tree)
        if some and held + entries > MOST_ENTRIES:
            yield some
            some, held = [], 0
        some.append(one)
        held += entries
    yield some


def _tables(some: Sequence[_Growing], total: Total) -> Iterator[Ints]:
    """The counts of each node, as they were asked for."""
    place: dict[int, int] = {}
    for one in some:
        at = place[one.tree] = place.get(one.tree, -1) + 1
        yield total[f"tree_{one.tree}"][at]


def _result(forest: _Forest) -> Result:
    names = [axis.name for axis in forest.axes]
    splits: list[Row] = [
        {"column": names[tree], "node": split.node, "by": names[split.by], "left": " ".join(map(str, _places(split)))}
        for tree, grown in enumerate(forest.trees)
        for split in grown.splits
    ]
    leaves: list[Row] = [
        {"column": names[tree], "node": node, "cell": int(cell), "count": int(counts[cell])}
        for tree, found in enumerate(forest.leaves)
        for node, counts in sorted(found.items())
        for cell in np.flatnonzero(counts)
    ]
    return Result(
        "cart",
        f"{len(names)} trees, {sum(map(len, forest.leaves))} leaves",
        {"splits": splits, "leaves": leaves},
        facts={"records": int(next(iter(forest.leaves[0].values())).sum())},
        keys={"splits": ("column", "node"), "leaves": ("column", "node", "cell")},
        notes=("left: cells that go left, from 0; the k-th split of a column makes its nodes 2 k + 1 and 2 k + 2",),
    )


def _places(split: Split) -> list[int]:
    return [int(cell) for cell in np.flatnonzero(split.left)]
