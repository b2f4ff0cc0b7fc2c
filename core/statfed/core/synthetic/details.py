"""Where a synthetic table differs from the original, column by column and pair by pair: for drawings.

What is shown of the original has to tell of no person, since reports are passed on. Distances and differences of pairs
are rounded to two decimals. Distributions of the original's columns are made only where they are asked for
(`confidential`), and then not exactly: numbers and dates in ten classes of equal width between the codebook's bounds,
never at values of the data; counts rounded to a multiple of `base`, the greater of 10 and a hundredth of the records;
classes of fewer than 10 records withheld. This is coarsening, no guarantee: whoever has the page and other tables of
the same records may combine them, and no epsilon of the synthetic data covers it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import iso_of
from statfed.core.synthetic.coded import Coded, Grid, grid_of
from statfed.core.synthetic.utility import association, distance

CLASSES, FEWEST = 10, 10
MOST_SHOWN = 20
"""Columns of a drawing of pairs; of more, those that are farthest."""
MISSING = "missing"


@dataclass(frozen=True)
class Share:
    """One level or class of a column. original: rounded share; None where it is withheld."""

    label: str
    synthetic: float
    original: float | None


@dataclass(frozen=True)
class Distribution:
    """A column by itself. base: what counts of the original were rounded to."""

    name: str
    shares: tuple[Share, ...]
    base: int


@dataclass(frozen=True)
class Details:
    """Pairs of columns, in the order of `names`: distances of their margins, and differences of their associations,
    (k, k) each, symmetric, rounded; NaN where there is none. Distributions: empty unless they were asked for."""

    names: tuple[str, ...]
    distances: NDArray[np.float64]
    associations: NDArray[np.float64]
    columns: int
    distributions: tuple[Distribution, ...] = ()


def details(original: Coded, synthetic: Coded, *, confidential: bool = False) -> Details:
    """All of it. Raises UsageError for a synthetic table without a column of the original."""
    there = synthetic.only(original.names)
    names, k = original.names, len(original.names)
    grid = grid_of(original, CLASSES)
    codes = grid.codes(original), grid.codes(there)
    distances, differences = np.full((k, k), np.nan), np.full((k, k), np.nan)
    for i, j in combinations(range(k), 2):
        distances[i, j] = distances[j, i] = round(distance(*codes, grid, (i, j)), 2)
        pair = names[i], names[j]
        differences[i, j] = differences[j, i] = round(abs(association(original, *pair) - association(there, *pair)), 2)
    shown = _farthest(distances, MOST_SHOWN)
    taken = np.ix_(shown, shown)
    drawn = tuple(_distribution(original, there, name) for name in names) if confidential else ()
    return Details(tuple(names[i] for i in shown), distances[taken], differences[taken], k, drawn)


def _farthest(distances: NDArray[np.float64], most: int) -> list[int]:
    """Places of the columns whose margins are farthest, in the table's order."""
    if len(distances) <= most or len(distances) < 2:
        return list(range(len(distances)))
    return sorted(np.argsort(-np.nanmean(distances, axis=1), kind="stable")[:most].tolist())


def _distribution(original: Coded, synthetic: Coded, name: str) -> Distribution:
    grid, labels = _classes(original, name)
    base = max(FEWEST, -(-original.count // 100))
    counts = [np.bincount(grid.codes(each.only([name]))[:, 0], minlength=len(labels)) for each in (original, synthetic)]
    shares = []
    for label, own, made in zip(labels, *counts, strict=True):
        if label == MISSING and not own and not made:
            continue
        told = None if own < FEWEST else base * round(int(own) / base) / original.count
        shares.append(Share(label, float(made / synthetic.count), told))
    return Distribution(name, tuple(shares), base)


def _classes(table: Coded, name: str) -> tuple[Grid, Sequence[str]]:
    """Cells by the codebook alone: levels, or classes of equal width between the bounds; without bounds one class."""
    column = table.codebook.columns[name]
    if column.levels:
        return Grid(table.codebook, (name,), {}), (*column.levels, MISSING)
    if column.low is None or column.high is None:
        return Grid(table.codebook, (name,), {name: np.empty(0)}), ("any value", MISSING)
    edges = np.linspace(column.low, column.high, CLASSES + 1)
    if column.type != "number":
        edges = np.unique(np.ceil(edges))
    inner = edges[1:-1]
    ends = [column.low, *inner.tolist(), column.high]
    labels = [f"{_written(low, column.type)} to {_written(high, column.type)}" for low, high in pairwise(ends)]
    return Grid(table.codebook, (name,), {name: inner}), (*labels, MISSING)


def _written(value: float, kind: str) -> str:
    return iso_of(value) if kind == "date" else f"{value:.6g}"
