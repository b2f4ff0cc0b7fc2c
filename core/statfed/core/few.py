"""Numbers of records that are told only beside others (`Counts.beside`), without the few that they would tell of.

Which records are left out, or miss a value, is what such a number and those beside it differ by. Where that is fewer
than a minimum, the number is told as if they were not there: by a holder of its own records, by a coordinator of a
total. It is done to sums, ahead of everything that is computed from them, so that degrees of freedom and variances are
functions of the numbers told.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.method import Arrays, Counts, Part


def without_few(parts: Mapping[str, Part], arrays: Arrays, least: int) -> dict[str, NDArray[Any]]:
    """Arrays in which no number tells of 1 to `least` - 1 records beside the part that it is told beside."""
    told: dict[str, NDArray[Any]] = {name: np.asarray(array) for name, array in arrays.items()}
    for name, part in parts.items():
        if isinstance(part.what, Counts) and part.what.beside:
            most = 0 if part.what.beside == name else _most(told[part.what.beside], parts[part.what.beside])
            more = told[name] - most
            told[name] = np.where((more > 0) & (more < least), most, told[name]).astype(told[name].dtype)
    return told


def _most(counts: NDArray[Any], part: Part) -> int:
    """Records that an array of counts tells of: all its cells together, or those of the measure that has most."""
    measures = counts.reshape(1, -1) if part.single or counts.ndim < 1 else counts.reshape(len(counts), -1)
    return int(measures.sum(axis=1).max(initial=0))
