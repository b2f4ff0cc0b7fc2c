"""DataSHIELD's disclosure filters, written anew from its documentation (`ds.listDisclosureSettings` of dsBaseClient and
the pages of the functions that apply them), with the defaults given there.

nfilter.tab 3: smallest non-zero cell of a table, of a mean by levels, and of each level of a two-valued column of a
regression; nfilter.subset 3: smallest non-empty subset; nfilter.glm 0.33: parameters per record of a model;
nfilter.string 80 and nfilter.stringShort 20: longest texts; nfilter.levels.density 0.33 and nfilter.levels.max 40:
levels of a factor. Records count, not persons; there is no memory of what was answered.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

TAB, SUBSET, GLM, STRING = 3, 3, 0.33, 80


def table(counts: ArrayLike) -> bool:
    """May a table with these counts be returned?"""
    cells = np.asarray(counts)
    return not np.any((cells > 0) & (cells < TAB))


def mean(records: int) -> bool:
    """May a mean, a variance or a covariance of so many records be returned?"""
    return records >= TAB


def subset(records: int) -> bool:
    """May a subset be formed? One without records is refused like a small one."""
    return records >= SUBSET


def text(words: str) -> bool:
    """May an expression of this length be evaluated?"""
    return len(words) <= STRING


def model(columns: Sequence[NDArray[np.float64]]) -> bool:
    """May a regression of these columns, response included, be fitted? Two-valued columns are tables of two cells."""
    n = len(columns[0])
    for column in columns:
        values, counts = np.unique(column, return_counts=True)
        if len(values) == 2 and counts.min() < TAB:
            return False
    return len(columns) - 1 <= GLM * n
