"""What a linkage unit does with encodings: compare those that share a block, and pair off the records one to one.

Records are compared where they share a tag in some pass, every pair once: in the first pass in which it does. Large
blocks are compared as tiles (common bits are a product of matrices of ones and zeros, exact in float32), small ones as
lists of pairs; either way in chunks, so that memory is bounded by what is kept: pairs at or above `floor`, 20 bytes
each.

The Dice coefficient of two filters is 2 |a & b| / (|a| + |b|), in float32: equal quotients are equal numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused

Words = NDArray[np.uint64]
Places = NDArray[np.int64]
_LISTED = 1 << 13  # pairs of a list compared at once: their filters stay in the processor's cache
_TILE = 1024  # rows and columns of a tile at most
_SMALL = 2048  # pairs up to which a block goes by list


@dataclass(frozen=True)
class Encoded:
    """One holder's records as the linkage unit sees them. encodings: (n, words); tags: (n, passes), 0 for none."""

    encodings: Words
    tags: Words


@dataclass(frozen=True)
class Candidates:
    """Compared pairs at or above the floor. left, right: records; score: float32; offered, sought: with how many each
    record on the left and on the right was compared, (records,)."""

    left: Places
    right: Places
    score: NDArray[np.float32]
    offered: Places
    sought: Places

    def above(self, threshold: float) -> "Candidates":
        """Those at or above a threshold."""
        keep = self.score >= np.float32(threshold)
        return Candidates(self.left[keep], self.right[keep], self.score[keep], self.offered, self.sought)


@dataclass(frozen=True)
class _Blocks:
    """Blocks that both sides have in one pass. rows, columns: records by block; then where each begins, its length."""

    rows: Places
    columns: Places
    row_starts: Places
    row_counts: Places
    column_starts: Places
    column_counts: Places

    @property
    def sizes(self) -> Places:
        return self.row_counts * self.column_counts


def compare(a: Encoded, b: Encoded, floor: float, most_compared: int, most_kept: int) -> Candidates:
    """All pairs that share a block in some pass, scored. Raises Refused where there are more than was agreed."""
    passes = [_blocks(a.tags[:, number], b.tags[:, number]) for number in range(a.tags.shape[1])]
    if sum(int(blocks.sizes.sum()) for blocks in passes) > most_compared:
        raise Refused(f"block: got more than the agreed {most_compared:,} pairs to compare; want smaller blocks")
    ones_a, ones_b = (np.bitwise_count(side.encodings).sum(1, dtype=np.int32) for side in (a, b))
    found: list[tuple[Places, Places, NDArray[np.float32]]] = []
    offered, sought = np.zeros(len(a.tags), np.int64), np.zeros(len(b.tags), np.int64)
    kept = 0
    for number, blocks in enumerate(passes):
        for rows, columns in _pairs(blocks):
            new = np.ones(np.broadcast_shapes(rows.shape, columns.shape), bool)
            for earlier in range(number):
                tags = a.tags[rows, earlier]
                new &= (tags != b.tags[columns, earlier]) | (tags == 0)
            np.add.at(offered, rows.ravel(), new.sum(1) if rows.ndim > 1 else new)
            np.add.at(sought, columns.ravel(), new.sum(0) if rows.ndim > 1 else new)
            ones = (ones_a[rows] + ones_b[columns]).astype(np.float32)
            common = (_tile if rows.ndim > 1 else _listed)(a.encodings, b.encodings, rows, columns)
            score = np.divide(2 * common, ones, out=np.zeros(new.shape, np.float32), where=ones > 0)
            where = np.nonzero(new & (score >= np.float32(floor)))
            kept += len(where[0])
            if kept > most_kept:
                raise Refused(f"floor: got more than the agreed {most_kept:,} pairs at or above it; want a higher one")
            left, right = (np.broadcast_to(side, new.shape)[where] for side in (rows, columns))
            found.append((left, right, score[where]))
    if not found:
        return Candidates(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32), offered, sought)
    left, right, score = (np.concatenate(side) for side in zip(*found, strict=True))
    return Candidates(left, right, score, offered, sought)


def _tile(a: Words, b: Words, rows: Places, columns: Places) -> NDArray[np.float32]:
    """Common bits of every row with every column."""
    bits = [np.unpackbits(part.view(np.uint8), axis=1).astype(np.float32) for part in (a[rows[:, 0]], b[columns[0]])]
    common: NDArray[np.float32] = bits[0] @ bits[1].T
    return common


def _listed(a: Words, b: Words, rows: Places, columns: Places) -> NDArray[np.float32]:
    """Common bits of each row with its column."""
    both = a[rows]
    both &= b[columns]
    common: NDArray[np.float32] = np.bitwise_count(both).astype(np.float32) @ np.ones(both.shape[1], np.float32)
    return common


def _blocks(a: Words, b: Words) -> _Blocks:
    sides = []
    for tags in (a, b):
        order = np.argsort(tags, kind="stable")
        order = order[np.searchsorted(tags[order], 1) :]  # 0 is no block
        names, starts, counts = np.unique(tags[order], return_index=True, return_counts=True)
        sides.append((order, names, starts, counts))
    (rows, names, starts, counts), (columns, other_names, other_starts, other_counts) = sides
    _, mine, others = np.intersect1d(names, other_names, assume_unique=True, return_indices=True)
    return _Blocks(rows, columns, starts[mine], counts[mine], other_starts[others], other_counts[others])


def _pairs(blocks: _Blocks) -> Iterator[tuple[Places, Places]]:
    """Pairs of all blocks in chunks: rows and columns that broadcast, or run along each other."""
    small = blocks.sizes <= _SMALL
    for block in np.flatnonzero(~small):
        row, column = blocks.row_starts[block], blocks.column_starts[block]
        rows = blocks.rows[row : row + blocks.row_counts[block]]
        columns = blocks.columns[column : column + blocks.column_counts[block]]
        for first in range(0, len(rows), _TILE):
            for start in range(0, len(columns), _TILE):
                yield rows[first : first + _TILE, None], columns[None, start : start + _TILE]
    chosen = np.flatnonzero(small)
    ends = np.cumsum(blocks.sizes[chosen])
    first = 0
    while first < len(chosen):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _LISTED, side="right")))
        part = chosen[first:last]
        sizes, width = blocks.sizes[part], blocks.column_counts[part]
        place = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        width = np.repeat(width, sizes)
        yield (
            blocks.rows[np.repeat(blocks.row_starts[part], sizes) + place // width],
            blocks.columns[np.repeat(blocks.column_starts[part], sizes) + place % width],
        )
        first = last


def two_best(pairs: Candidates) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Best and second-best score of each left record; 0 where there is none above the floor."""
    order = np.lexsort((-pairs.score, pairs.left))
    left, score = pairs.left[order], pairs.score[order]
    best, second = np.zeros((2, len(pairs.offered)), np.float32)
    first = np.flatnonzero(np.diff(left, prepend=-1))
    best[left[first]] = score[first]
    follows = first[np.append(np.diff(first), len(left) - first[-1:]) > 1] + 1
    second[left[follows]] = score[follows]
    return best, second


def leaning(pairs: Candidates) -> int:
    """The largest number of left records of which one right record is among the two best."""
    order = np.lexsort((-pairs.score, pairs.left))
    left = pairs.left[order]
    third = np.append([-1, -1], left[:-2])[: len(left)] == left
    return int(np.bincount(pairs.right[order][~third]).max(initial=0))


def repeated(side: Encoded) -> int:
    """The largest number of records that have one encoding and the same tags."""
    rows = np.ascontiguousarray(np.hstack([side.encodings, side.tags]))
    _, counts = np.unique(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))), return_counts=True)
    return int(counts.max(initial=0))


def one_to_one(pairs: Candidates, rows: int, columns: int) -> tuple[Candidates, int]:
    """Pairs of records that choose each other, best scores first, and how many records a tie leaves undecided.

    Greedy: the best pair is linked, its records leave, and so on. Where the best pairs of a record tie, a coin would
    decide and half its links be wrong: all records of such ties leave unlinked.
    """
    left, right, score = pairs.left, pairs.right, pairs.score
    at = np.arange(len(score))
    chosen: list[Places] = []
    undecided = 0
    while len(at):
        rows_left, columns_left, s = left[at], right[at], score[at]
        sides = ((rows_left, rows), (columns_left, columns))
        tops = []
        for side, count in sides:
            top = np.full(count, -np.inf, np.float32)
            np.maximum.at(top, side, s)
            tops.append(top[side])
        mutual = (s == tops[0]) & (s == tops[1])
        ties = [
            np.bincount(side[s == top], minlength=count)[side] > 1
            for (side, count), top in zip(sides, tops, strict=True)
        ]
        sure = mutual & ~ties[0] & ~ties[1]
        taken = sure if sure.any() else mutual
        gone_rows, gone_columns = np.zeros(rows, bool), np.zeros(columns, bool)
        gone_rows[rows_left[taken]] = True
        gone_columns[columns_left[taken]] = True
        if sure.any():
            chosen.append(at[sure])
        else:
            undecided += int(gone_rows.sum() + gone_columns.sum())
        at = at[~(gone_rows[rows_left] | gone_columns[columns_left])]
    kept = np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)
    return Candidates(left[kept], right[kept], score[kept], pairs.offered, pairs.sought), undecided
