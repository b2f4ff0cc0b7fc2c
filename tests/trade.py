"""Pairs of registers of one population, of the design of the pilot of Statistics Netherlands and Statistics Canada.

Units fall into blocks at random (exporter and commodity), 2.97 to a block as there; a file holds each unit with its
coverage. All records of a unit agree on the block; a further key of `1 / chance` values is miswritten in one file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
GROUPS, PER_BLOCK = 50, 2.97
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
    seed: int,
    size: int = 100_000,
    coverage: float = 0.7,
    typos: float = 0.2,
    chance: float = 0.05,
    *,
    skew: float = 0.0,
    lost: float = 0.0,
    uneven: float = 0.0,
    odds_ratio: float = 1.0,
) -> Linked:
    """Two files of a population of `size` units, linked by both keys; only counts and totals come out.

    What the corrections do not allow for: skew: standard deviation of the log weights of blocks; lost: share of units
    whose block is miswritten in one file; uneven: how much more often keys of small units are miswritten than of large
    ones; odds_ratio: of being in one file given the other.
    """
    rng = np.random.default_rng(seed)
    blocks, values = max(round(size / PER_BLOCK), 1), round(1 / chance)
    weights = np.exp(skew * rng.normal(size=blocks))
    block = rng.choice(blocks, size, p=weights / weights.sum())
    key = rng.integers(0, values, size)
    value = np.round(rng.lognormal(3, 1, size), 2)
    first = rng.random(size) < coverage
    second = rng.random(size) < _given(first, coverage, odds_ratio)
    size_class, code = (rng.random(size) < 0.53).astype(int), (rng.random(size) < 0.25).astype(int)
    # a miswritten key is one of the others
    miswritten = rng.random(size) < typos + uneven * (0.53 - size_class)
    written = np.where(miswritten, (key + rng.integers(1, values, size)) % values, key)
    in_first = np.where(rng.random(size) < lost, rng.integers(0, blocks, size), block)
    ours, theirs = np.flatnonzero(first), np.flatnonzero(second)
    order = theirs[np.argsort(block[theirs], kind="stable")]
    in_block = np.bincount(block[order], minlength=blocks)
    starts = np.concatenate([[0], np.cumsum(in_block)[:-1]])
    j = in_block[in_first[ours]]
    left = np.repeat(np.arange(len(ours)), j)
    within = np.arange(j.sum()) - np.repeat(np.cumsum(j) - j, j)
    a, b = ours[left], order[starts[in_first[ours]][left] + within]
    linked = written[a] == key[b]
    k = np.bincount(left, weights=linked, minlength=len(ours)).astype(int)
    counts = np.zeros((GROUPS, j.max() + 1, k.max() + 1), dtype=np.int64)
    np.add.at(counts, (in_first[ours] % GROUPS, j, k), 1)
    cell = 2 * size_class[a] + code[b]  # a column of each file

    def by_cell(weights: Floats, which: NDArray[np.bool_]) -> Floats:
        return np.bincount(cell[which], weights=weights[which], minlength=4).astype(float)

    ones, v, every, both = np.ones(len(a)), value[b], np.ones(len(a), dtype=bool), first & second
    return Linked(
        counts=counts,
        candidates=len(theirs),
        links=by_cell(ones, linked),
        blocked=by_cell(ones, every),
        truth=np.bincount((2 * size_class + code)[both], minlength=4).astype(float),
        value_links=by_cell(v, linked),
        value_blocked=by_cell(v, every),
        squares_links=by_cell(v**2, linked),
        squares_blocked=by_cell(v**2, every),
        value_truth=np.bincount((2 * size_class + code)[both], weights=value[both], minlength=4).astype(float),
        files=(len(ours), len(theirs)),
    )


def _given(first: NDArray[np.bool_], coverage: float, odds_ratio: float) -> Floats:
    """Chance of being in the second file, given the first, with the same coverage."""
    low, high, apart, among = 0.0, 1.0, coverage, coverage
    for _ in range(60):
        apart = (low + high) / 2
        odds = odds_ratio * apart / max(1 - apart, 1e-12)
        among = odds / (1 + odds)
        low, high = (apart, high) if coverage * among + (1 - coverage) * apart < coverage else (low, apart)
    return np.where(first, among, apart)
