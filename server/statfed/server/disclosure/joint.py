"""One table beside everything that was published before: the joint linear system of all of it.

Its unknowns are the cells of the cross-classifications that the figures are sums of, over the coarsest classes of each
column that still tell all figures apart. One cross-classification of all columns would be too large, and is not needed.
Columns that occur in one figure together are joined in a graph, the graph is triangulated, and there is one table for
each of its cliques, with the condition that two neighbours in the tree of cliques agree on the columns they share.
Tables of cliques that agree in this way are the margins of at least one table of all columns (Vorob'ev 1962; Lauritzen
1996, section 4.4; of whole numbers, if they are whole: Dobra and Fienberg 2000). So the feasible intervals are those of
an attacker who has everything.

A deviation from any table that agrees with what is published is a deviation from the true one: intervals do not depend
on which is taken. One is found by a linear program; where there is none, figures contradict each other, and nothing is
released. A system of more than MOST cells is not built, and nothing is released either: both are said in words that do
not depend on the data beyond that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import highspy
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, hstack, vstack

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused
from statfed.server.disclosure.audit import linear_program, solver
from statfed.server.disclosure.boxes import HOLDERS, Box, membership
from statfed.server.disclosure.sums import Flags, Floats, Sums

MOST = 30_000
TOO_LARGE = "release: too much was released of this data set to check this beside it; nothing is released"
CONTRADICTION = (
    "release: earlier releases of this data set do not agree with this one, as if the data had changed; nothing is "
    "released: changed data are another data set, with a workspace of their own"
)


@dataclass(frozen=True)
class Figure:
    """What was published of a box. count, total: the figures, None where they were not shown; `total` of the value that
    is asked about. told: was a figure of that value shown, its total or another? hidden, hidden_total: was a figure of
    it suppressed? wide, wide_total: how wide its interval was when it was suppressed, None for unbounded."""

    box: Box
    count: float | None = None
    total: float | None = None
    told: bool = False
    hidden: bool = False
    hidden_total: bool = False
    wide: float | None = None
    wide_total: float | None = None


@dataclass(frozen=True)
class Joint:
    """A table's sums, and after them rows of earlier figures, of differences and of unknown cells, (n,) in all.

    sums: with all equations. table: how many rows the table has. figures: of the rows after them. differences: numbers
    of records of the rows after those, each between two boxes; all others are unknown cells and margins of them.
    """

    sums: Sums
    table: int
    figures: tuple[Figure, ...]
    differences: tuple[float, ...]

    def padded(self, table: Floats, figures: float | Floats, differences: float | Floats, cells: float) -> Floats:
        """An array of all rows from its four parts."""
        parts = (self.table, len(self.figures), len(self.differences))
        given = (table, figures, differences)
        found = [np.broadcast_to(np.asarray(one, float), (size,)) for one, size in zip(given, parts, strict=True)]
        return np.concatenate([*found, np.full(len(self.sums) - sum(parts), float(cells))])


def joint(
    sums: Sums, boxes: Sequence[Box], counts: Floats, figures: Sequence[Figure], codebook: Codebook, fewest: int
) -> tuple[Joint, Floats]:
    """The system of a table beside earlier figures, and a table of counts that agrees with all, (n,).

    boxes: of the table's rows; counts: theirs, private. figures: of other boxes than these. fewest: differences of
    fewer records than this, and more than none, get a row of their own. Raises Refused, see the module.
    """
    every = [*boxes, *(figure.box for figure in figures)]
    for missing in (False, True):
        masks = _masks(every, codebook, missing)
        system, differences = _system(sums, masks, counts, figures, fewest)
        known = np.concatenate([counts, [np.nan if f.count is None else f.count for f in figures], differences])
        values = agreeing(system, known, 0.0)
        if values is not None:
            return Joint(system, len(sums), tuple(figures), tuple(differences)), values
    raise Refused(CONTRADICTION)


def agreeing(sums: Sums, known: Floats, least: float, slack: float = 0.0) -> Floats | None:
    """Values of all rows, (n,), at least `least`, that satisfy all equations; None if there are none.

    known: of the first rows, nan where it is not known. slack: by how much equations may be missed, in units of the
    median of the known values: sums that were rounded on their way need some.
    """
    n, given = len(sums), np.full(len(sums), np.nan)
    given[: len(known)] = known
    free = np.isnan(given)
    highs = solver()
    scale = max(1.0, float(np.nanmedian(np.abs(given))) if (~free).any() else 1.0)
    low, high = np.where(free, least, given) / scale, np.where(free, np.inf, given) / scale
    linear_program(highs, csc_array(sums.matrix), np.zeros(n), low, high)
    for row in range(sums.matrix.shape[0] if slack else 0):
        highs.changeRowBounds(row, -slack, slack)
    highs.setOptionValue("time_limit", 60.0)
    highs.run()
    if highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    found = np.array(highs.getSolution().col_value) * scale
    return np.asarray(np.where(free, np.maximum(found, least), given))


def _masks(boxes: Sequence[Box], codebook: Codebook, missing: bool) -> dict[str, Flags]:
    """Membership of every box in the classes of each column that tells any two of them apart."""
    names = sorted({name for box in boxes for name in box})
    found = {}
    for name in names:
        column = codebook.columns.get(name)
        rest = missing if column is not None else name != HOLDERS
        mask = membership(boxes, name, column.levels if column is not None else (), rest)
        if not mask.all():
            found[name] = mask
    return found


def _system(
    sums: Sums, masks: Mapping[str, Flags], counts: Floats, figures: Sequence[Figure], fewest: int
) -> tuple[Sums, list[float]]:
    boxes = len(counts) + len(figures)
    tree = _tree(masks, boxes)
    start, at = 0, []
    for clique, _ in tree:
        at.append(start)
        start += int(np.prod([masks[name].shape[1] for name in clique], dtype=float))
        if start > MOST:
            raise Refused(TOO_LARGE)
    inside = _inside(tree, at, start, masks, boxes)
    agree = _agreements(tree, at, start, masks)
    margins = _margins(tree, at, start, masks)
    m = margins.shape[0]
    if start + m > MOST:
        raise Refused(TOO_LARGE)
    pairs, differences = _differences(masks, counts, figures, fewest)
    d = len(pairs)
    n = boxes + d + start + m
    rows = [
        _widened(sums.matrix, n),
        csr_array(hstack([_minus(boxes), csr_array((boxes, d)), inside, csr_array((boxes, m))])),
        csr_array(hstack([csr_array((m, boxes + d)), margins, _minus(m)])),
    ]
    if d:
        places = np.arange(d)
        signs = np.concatenate([np.ones(d), -np.ones(d), -np.ones(d)])
        columns = np.concatenate([[p[0] for p in pairs], [p[1] for p in pairs], boxes + places])
        rows.append(csr_array((signs, (np.tile(places, 3), columns)), shape=(d, n)))
    if agree.shape[0]:
        wide = csr_array((agree.shape[0], boxes + d)), agree, csr_array((agree.shape[0], m))
        rows.append(csr_array(hstack(wide)))
    matrix = csr_array(vstack(rows))
    more = n - len(sums)
    extended = replace(
        sums,
        keys=(*sums.keys, *((f" {i}",) for i in range(more))),
        leaves=np.concatenate([sums.leaves, np.ones(more, np.int64)]),
        matrix=matrix,
    )
    return extended, differences


def _minus(size: int) -> csr_array:
    places = np.arange(size)
    return csr_array((-np.ones(size), (places, places)), shape=(size, size))


def _widened(matrix: csr_array, n: int) -> csr_array:
    return csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], n))


def _tree(masks: Mapping[str, Flags], boxes: int) -> list[tuple[tuple[str, ...], int]]:
    """Cliques of a triangulated graph of the columns, each with the position of its parent, -1 of the first.

    Columns are taken away one by one, the one first whose neighbours make the smallest table.
    """
    near: dict[str, set[str]] = {name: set() for name in masks}
    restricted = np.array([np.logical_not(mask.all(axis=1)) for mask in masks.values()]).reshape(len(masks), boxes)
    names = list(masks)
    for pattern in np.unique(restricted, axis=1).T:
        for one, other in combinations([n for n, r in zip(names, pattern, strict=True) if r], 2):
            near[one].add(other)
            near[other].add(one)
    size = {name: mask.shape[1] for name, mask in masks.items()}
    taken: list[tuple[str, set[str]]] = []
    while near:
        name = min(near, key=lambda n: (np.prod([size[m] for m in near[n]] + [size[n]], dtype=float), n))
        around = near.pop(name)
        for one in around:
            near[one] |= around - {one}
            near[one].discard(name)
        taken.append((name, around))
    found: list[tuple[tuple[str, ...], int]] = []
    place: dict[str, int] = {}
    order = {name: number for number, (name, _) in enumerate(taken)}
    for name, around in reversed(taken):  # a clique's parent is that of the neighbour that was taken away first
        parent = place[min(around, key=order.__getitem__)] if around else (0 if found else -1)
        if around and set(found[parent][0]) <= around:
            found[parent] = (tuple(sorted({name, *found[parent][0]})), found[parent][1])
            place[name] = parent
            continue
        place[name] = len(found)
        found.append((tuple(sorted({name, *around})), parent))
    return found or [((), -1)]


def _inside(
    tree: Sequence[tuple[tuple[str, ...], int]], at: Sequence[int], size: int, masks: Mapping[str, Flags], boxes: int
) -> csr_array:
    """Which cells of the clique that has all its columns add up to each box, (boxes, cells)."""
    rows: list[NDArray[np.int64]] = []
    columns: list[NDArray[np.int64]] = []
    open_: dict[str, Flags] = {name: np.asarray(mask.all(axis=1)) for name, mask in masks.items()}
    for i in range(boxes):
        names = {name for name in masks if not open_[name][i]}
        c = min((c for c, (clique, _) in enumerate(tree) if names <= set(clique)), key=lambda c: _cells(tree[c], masks))
        clique = tree[c][0]
        chosen = [np.flatnonzero(masks[name][i]) for name in clique]
        places = _places(chosen, [masks[name].shape[1] for name in clique]) + at[c]
        rows.append(np.full(len(places), i, np.int64))
        columns.append(places)
    row, column = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.ones(len(row)), (row, column)), shape=(boxes, size))


def _cells(clique: tuple[tuple[str, ...], int], masks: Mapping[str, Flags]) -> float:
    return float(np.prod([masks[name].shape[1] for name in clique[0]], dtype=float))


def _places(chosen: Sequence[NDArray[np.int64]], shape: Sequence[int]) -> NDArray[np.int64]:
    """Flat positions of the product of choices along the axes."""
    places = np.zeros(1, np.int64)
    for along, length in zip(chosen, shape, strict=True):
        places = (places[:, np.newaxis] * length + along[np.newaxis, :]).reshape(-1)
    return places


def _agreements(
    tree: Sequence[tuple[tuple[str, ...], int]], at: Sequence[int], size: int, masks: Mapping[str, Flags]
) -> csr_array:
    """Equations between each clique and its parent: the same margin of the columns that they share."""
    found = []
    for c, (clique, parent) in enumerate(tree):
        if parent < 0:
            continue
        shared = tuple(name for name in clique if name in tree[parent][0])
        mine, theirs = (_margin(tree[k][0], shared, at[k], size, masks) for k in (c, parent))
        found.append(csr_array(mine - theirs))
    return csr_array(vstack(found)) if found else csr_array((0, size))


def _margins(
    tree: Sequence[tuple[tuple[str, ...], int]], at: Sequence[int], size: int, masks: Mapping[str, Flags]
) -> csr_array:
    """All margins of every clique, by fewer of its columns: groups that may be known though none of their cells is."""
    found: dict[tuple[str, ...], csr_array] = {}
    for (clique, _), start in zip(tree, at, strict=True):
        for many in range(1, len(clique)):
            for kept in combinations(clique, many):
                if kept not in found:
                    found[kept] = _margin(clique, kept, start, size, masks)
    return csr_array(vstack(list(found.values()))) if found else csr_array((0, size))


def _margin(clique: Sequence[str], kept: Sequence[str], start: int, size: int, masks: Mapping[str, Flags]) -> csr_array:
    """Sums of a clique's cells over the columns that are not kept, (rows, cells)."""
    shape = [masks[name].shape[1] for name in clique]
    index = np.indices(shape).reshape(len(shape), -1) if shape else np.zeros((0, 1), np.int64)
    key = np.zeros(index.shape[1], np.int64)
    for name in kept:
        key = key * masks[name].shape[1] + index[list(clique).index(name)]
    rows = int(np.prod([masks[name].shape[1] for name in kept], dtype=float))
    return csr_array((np.ones(len(key)), (key, np.arange(len(key)) + start)), shape=(rows, size))


def _differences(
    masks: Mapping[str, Flags], counts: Floats, figures: Sequence[Figure], fewest: int
) -> tuple[list[tuple[int, int]], list[float]]:
    """Pairs of rows (outer, inner), one of the table and one that was published, with few records between them."""
    n, known = len(counts), np.array([f.count is not None for f in figures], bool)
    if not known.any() or fewest < 2:
        return [], []
    old = np.array([0.0 if f.count is None else f.count for f in figures])
    within = np.ones((n, len(figures)), bool)  # is the table's row inside the figure's box?
    around = within.copy()
    for mask in masks.values():
        mine, theirs = mask[:n].astype(np.float32), mask[n:].astype(np.float32)
        within &= (mine @ (1 - theirs).T) == 0
        around &= ((1 - mine) @ theirs.T) == 0
    gap = old[np.newaxis, :] - counts[:, np.newaxis]
    found: list[tuple[int, int]] = []
    values: list[float] = []
    for inner, sign in ((within, 1.0), (around, -1.0)):
        for i, j in zip(*np.nonzero(inner & known & (sign * gap > 0) & (sign * gap < fewest)), strict=True):
            found.append((n + int(j), int(i)) if sign > 0 else (int(i), n + int(j)))
            values.append(float(sign * gap[i, j]))
    return found, values
