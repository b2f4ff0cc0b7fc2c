"""Tests of independence of the columns of a table: Pearson's of counts, Rao and Scott's of weighted totals.

Source: Rao and Scott 1984, On chi-squared tests for multiway contingency tables, Annals of Statistics 12.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from statfed.core.result import Scalar

Floats = NDArray[np.float64]


def _present(table: NDArray[Any]) -> tuple[NDArray[Any], ...] | None:
    """Positions of the levels that occur, by axis; None unless there are at least two axes with two of them each."""
    axes = range(table.ndim)
    used = tuple(np.flatnonzero(table.sum(axis=tuple(a for a in axes if a != axis))) for axis in axes)
    return used if len(used) > 1 and all(len(levels) > 1 for levels in used) else None


def pearson(count: NDArray[np.int64]) -> dict[str, Scalar]:
    """Pearson's test without continuity correction; levels that nobody has are left out."""
    used = _present(count)
    if used is None:
        return {}
    table = count[np.ix_(*used)]
    found = stats.chi2_contingency(table, correction=False)
    tests: dict[str, Scalar] = {
        "chi_square": float(found.statistic),
        "chi_square_df": int(found.dof),
        "chi_square_p_value": float(found.pvalue),
    }
    if table.ndim == 2:
        tests["cramers_v"] = math.sqrt(float(found.statistic) / (float(table.sum()) * (min(table.shape) - 1)))
    return tests


def rao_scott(cells: Floats, of_shares: Callable[[NDArray[np.int64]], Floats], n: int, df: float) -> dict[str, Scalar]:
    """Rao and Scott's corrections of Pearson's statistic of a two-way table of weighted totals over n records.

    of_shares: covariance matrix of the shares of cells, by their places."""
    used = _present(cells)
    if used is None or (cells < 0).any():
        return {}
    table = cells[np.ix_(*used)]
    places = np.arange(cells.size).reshape(cells.shape)[np.ix_(*used)].reshape(-1)
    share = (table / table.sum()).reshape(-1)
    v = of_shares(places)
    inverse = np.diag(np.divide(1.0, share, out=np.zeros(share.size), where=share > 0))
    contrasts = _interactions(*table.shape)
    denominator = contrasts.T @ inverse @ contrasts / n
    numerator = contrasts.T @ inverse @ v @ inverse @ contrasts
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum() ** 2
    statistic = n * float(((share.reshape(table.shape) - expected) ** 2 / expected).sum())
    if np.linalg.matrix_rank(denominator) < len(denominator):
        return {}
    delta = np.linalg.solve(denominator, numerator)
    trace, squared = float(np.trace(delta)), float(np.trace(delta @ delta))
    if not trace > 0 or df <= 0:
        return {}
    first, size = statistic / (trace / len(delta)), trace**2 / squared
    return {
        "chi_square": first,
        "chi_square_df": len(delta),
        "chi_square_p_value": float(stats.chi2.sf(first, len(delta))),
        "f_statistic": statistic / trace,
        "f_df": size,
        "f_residual_df": size * df,
        "f_p_value": float(stats.f.sf(statistic / trace, size, size * df)),
    }


def _interactions(rows: int, columns: int) -> Floats:
    """Basis of the interactions of a two-way table, orthogonal to its main effects: (rows * columns, df)."""
    i, j = (x.reshape(-1) for x in np.indices((rows, columns)))
    main = np.column_stack([np.ones(i.size), *(i == k for k in range(1, rows)), *(j == k for k in range(1, columns))])
    both = np.column_stack([(i == k) & (j == m) for k in range(1, rows) for m in range(1, columns)]).astype(float)
    residual: Floats = both - main @ np.linalg.lstsq(main, both, rcond=None)[0]
    return residual
