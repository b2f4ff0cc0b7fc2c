"""Cells merged into groups by noisy counts, which are public: fewer and fuller ones, beside which noise is small."""

import numpy as np
from numpy.typing import NDArray

from statfed.strategies.analyses._classes import merge_few

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def merged(values: Floats, least: float, ordered: bool) -> Ints:
    """The group of each cell, (cells,), from 0 on. ordered: only neighbours are merged, and no two cells with
    `least` or more, so that a value which many have (a 0, a full year) stays apart; what is left between such cells and
    has less than half of `least` joins the smaller neighbour."""
    if not ordered:
        return np.array(merge_few(values, least, ordered=False), np.int64)
    groups, group, held, alone = np.zeros(len(values), np.int64), -1, np.inf, False
    for place, value in enumerate(values):
        full = bool(value >= least)
        if full or alone or held >= least:
            group, held = group + 1, 0.0
        groups[place], held, alone = group, held + float(value), full
    while groups.max() > 0:  # what was left between full cells joins the smaller neighbour
        totals = np.bincount(groups, weights=values)
        small = int(totals.argmin())
        if totals[small] >= least / 2:
            break
        near = [each for each in (small - 1, small + 1) if 0 <= each < len(totals)]
        other = min(near, key=lambda each: float(totals[each]))
        groups = numbered(np.where(groups == max(small, other), min(small, other), groups))
    return groups


def merged_alike(values: Floats, least: float, ordered: bool, marks: Ints) -> Ints:
    """As `merged`, but only cells with the same mark, (cells,), are in one group."""
    if not marks.any():
        return merged(values, least, ordered)
    runs = np.concatenate([[0], np.cumsum(np.diff(marks) != 0)]) if ordered else marks
    groups, begun = np.zeros(len(values), np.int64), 0
    for run in np.unique(runs):
        here = runs == run
        groups[here] = begun + merged(values[here], least, ordered)
        begun = int(groups[here].max()) + 1
    return groups


def coarser(values: Floats, most: int, ordered: bool) -> Ints:
    """At most so many groups, with counts as alike as they can be."""
    if len(values) <= most:
        return np.arange(len(values))
    if not ordered:
        load, groups = np.zeros(most), np.zeros(len(values), np.int64)
        for place in np.argsort(-values, kind="stable"):
            groups[place] = load.argmin()
            load[groups[place]] += max(float(values[place]), 0.0)
        return numbered(groups)
    low, high = 0.0, 2.0 * float(np.maximum(values, 0.0).sum()) + 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if merged(values, middle, ordered=True).max() >= most else (low, middle)
    return merged(values, high, ordered=True)


def numbered(groups: Ints) -> Ints:
    """The same groups, numbered from 0 on without gaps."""
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def projected(values: Floats, total: float) -> Floats:
    """The nearest numbers that are not negative and add up to `total`: what is above a threshold, less it. Unlike
    cutting off at 0 it makes no mass of the noise of many empty cells. Even where the total is not above 0."""
    if total <= 0:
        return np.zeros(len(values))
    falling = np.sort(values)[::-1]
    over = (np.cumsum(falling) - total) / np.arange(1, len(values) + 1)
    last = int(np.flatnonzero(falling > over)[-1])
    return np.asarray(np.maximum(values - over[last], 0.0), np.float64)
