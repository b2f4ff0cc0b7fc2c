"""Records that a study looks at, told beside those that an analysis uses: every result says how many were left out.

What is told are the records, used or not, so that those left out are what the two differ by; a holder whose rules are
on counts too few of them as if they were not there (`Counts.beside`).
"""

import numpy as np
from numpy.typing import NDArray

from statfed.core.method import Arrays, Counts, Part
from statfed.core.table import Table

LOOKED_AT = "looked_at"


def looked_at_part(beside: str) -> dict[str, Part]:
    """Public facts of `looked_at`. beside: the part of the same ask with the numbers of records that are used."""
    return {LOOKED_AT: Part(integer=True, bound=1, what=Counts(beside=beside))}


def looked_at(table: Table) -> Arrays:
    """Number of all records of a holder that the study looks at."""
    return {LOOKED_AT: np.array(table.aggregate(n=table.expr.count())["n"], np.int64)}


def left_out(total: Arrays, used: int) -> int:
    """Records that were looked at and not used, from a total."""
    return int(total[LOOKED_AT]) - used


def most_used(counts: NDArray[np.int64]) -> int:
    """Records that the measure with most records uses. counts: (measures, *cells)."""
    return int(counts.reshape(len(counts), -1).sum(axis=1).max(initial=0))
