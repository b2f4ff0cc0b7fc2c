"""Reconstruction from a released table: how closely do its margins pin down the cells that were suppressed?

The attacker has the release alone: every shown cell and margin is the exact sum of its inner cells, and inner cells are
not negative. Two linear programs for each suppressed inner cell give the interval of its values that fits (Hundepool et
al. 2012, section 4.3). This is written apart from the release's own audit, which it checks.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from statfed.core.result import Result, Row

NARROW = 0.1
"""Width of an interval, as a share of its middle, below which a cell counts as pinned down: the p% rule's 10 %."""
MOST_CELLS = 400


def pinned(result: Result, column: str) -> float | None:
    """Share of the suppressed inner cells of a released table whose value the rest of it pins down; None where it has
    none, or no margins to attack with. A release does not say which of them were unsafe by themselves.

    column: `count` or `total`. Counts are whole, so an interval of less than 1 is one value.
    """
    cells, margins = result.tables.get("cells", ()), result.tables.get("margins", ())
    if not result.by or not margins or any(column not in row for row in (*cells, *margins)):
        return None
    hidden = [i for i, row in enumerate(cells) if row[column] is None]
    if not hidden or len(hidden) > MOST_CELLS:
        return None
    place = {index: k for k, index in enumerate(hidden)}
    equations, right = [], []
    for margin in margins:
        if margin[column] is None or not _plain(margin, cells, result.by):
            continue
        inside = [i for i, row in enumerate(cells) if _within(row, margin, result.by)]
        unknown = [place[i] for i in inside if i in place]
        if unknown:
            equations.append(unknown)
            right.append(_value(margin, column) - sum(_value(cells[i], column) for i in inside if i not in place))
    if not equations:
        return 0.0
    rows = [number for number, unknown in enumerate(equations) for _ in unknown]
    columns = [k for unknown in equations for k in unknown]
    matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(equations), len(hidden)))
    scale = max(map(abs, right), default=1.0) or 1.0
    targets = np.maximum(np.array(right), 0.0) / scale
    return sum(_narrow(matrix, targets, k, scale, column) for k in range(len(hidden))) / len(hidden)


def _narrow(matrix: Any, right: NDArray[np.float64], k: int, scale: float, column: str) -> bool:
    ends = []
    for sign in (1.0, -1.0):
        cost = np.zeros(matrix.shape[1])
        cost[k] = sign
        solved = linprog(cost, A_eq=matrix, b_eq=right, bounds=(0, None), method="highs")
        if solved.status == 3:  # unbounded: in no margin
            return False
        if solved.status != 0:
            raise ValueError(f"reconstruction: {solved.message}")
        ends.append(sign * float(solved.fun or 0.0) * scale)
    low, high = ends
    width, middle = high - low, (low + high) / 2
    return width < 1.0 - 1e-6 if column == "count" else width < NARROW * middle or high <= 1e-9 * scale


def _plain(margin: Row, cells: Sequence[Row], by: Sequence[str]) -> bool:
    """Is the row a sum over whole columns? Codes of a hierarchy's upper levels are no inner cells' codes."""
    return all(margin[name] is None or any(row[name] == margin[name] for row in cells) for name in by)


def _within(row: Row, margin: Row, by: Sequence[str]) -> bool:
    return all(margin[name] is None or row[name] == margin[name] for name in by)


def _value(row: Mapping[str, object], column: str) -> float:
    value = row[column]
    return float(value) if isinstance(value, int | float) else 0.0
