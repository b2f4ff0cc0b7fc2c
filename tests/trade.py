"""Pairs of registers of one population, of the design of the pilot of Statistics Netherlands and Statistics Canada.

Units fall into blocks at random (exporter and commodity), 2.97 to a block as there; a file holds each unit with its
coverage. All records of a unit agree on the block; a further key of `1 / chance` values is miswritten in one file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
GROUPS = 50
CELLS = ("small 100", "small 300", "large 100", "large 300")


@dataclass(frozen=True)
class Linked:
    """What a linkage of one draw gives, and the truth. counts: (groups, J + 1, K + 1); the rest: (4 cells,)."""

    counts: Ints
    candidates: int
    links: Floats
    blocked: Floats
    truth: Floats
    value_links: Floats
    value_blocked: Floats
    squares_links: Floats
    squares_blocked: Floats
    value_truth: Floats
    files: tuple[int, int]


def draw(
    seed: int, size: int = 100_000, coverage: float = 0.7, typos: float = 0.2, chance: float = 0.05, per_block: float = 2.97
) -> Linked:
    """Two files of a population of `size` units, linked by both keys; only counts and totals come out."""
    rng = np.random.default_rng(seed)
    blocks, values = max(round(size / per_block), 1), round(1 / chance)
    block, key = rng.integers(0, blocks, size), rng.integers(0, values, size)
    value = np.round(rng.lognormal(3, 1, size), 2)
    first, second = rng.random(size) < coverage, rng.random(size) < coverage
    size_class, code = (rng.random(size) < 0.53).astype(int), (rng.random(size) < 0.25).astype(int)
    # a miswritten key is one of the others
    written = np.where(rng.random(size) < typos, (key + rng.integers(1, values, size)) % values, key)
    ours, theirs = np.flatnonzero(first), np.flatnonzero(second)
    order = theirs[np.argsort(block[theirs], kind="stable")]
    in_block = np.bincount(block[order], minlength=blocks)
    starts = np.concatenate([[0], np.cumsum(in_block)[:-1]])
    j = in_block[block[ours]]
    left = np.repeat(np.arange(len(ours)), j)
    within = np.arange(j.sum()) - np.repeat(np.cumsum(j) - j, j)
    a, b = ours[left], order[starts[block[ours]][left] + within]
    linked = written[a] == key[b]
    k = np.bincount(left, weights=linked, minlength=len(ours)).astype(int)
    counts = np.zeros((GROUPS, j.max() + 1, k.max() + 1), dtype=np.int64)
    np.add.at(counts, (block[ours] % GROUPS, j, k), 1)
    cell = 2 * size_class[a] + code[b]  # a column of each file

    def by_cell(weights: Floats, which: NDArray[np.bool_]) -> Floats:
        return np.bincount(cell[which], weights=weights[which], minlength=4)

    ones, v, every, same = np.ones(len(a)), value[b], np.ones(len(a), dtype=bool), a == b
    return Linked(
        counts=counts,
        candidates=len(theirs),
        links=by_cell(ones, linked),
        blocked=by_cell(ones, every),
        truth=by_cell(ones, same),
        value_links=by_cell(v, linked),
        value_blocked=by_cell(v, every),
        squares_links=by_cell(v**2, linked),
        squares_blocked=by_cell(v**2, every),
        value_truth=by_cell(v, same),
        files=(len(ours), len(theirs)),
    )
