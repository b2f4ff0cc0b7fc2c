"""What a holder shares of each of its units for an analysis over the matched: whole numbers in a public fixed point.

A feature is a column, or a function of columns of one holder. Its bounds are public; x is shared as the whole number
nearest to 2^bits (x - middle) / half, which lies in [-2^bits, 2^bits]; an indicator as 0 or 1. A sum of products of
two features over n units then stays below n 2^(2 bits), and `places` is the finest for which that has room. A value out
of its bounds, or none, is refused, never clipped.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ibis
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.linkage import Units
from statfed.core.table import Expr, Table

ROW = "_row"
ROOM = 62
"""Bits that a sum may take, sign aside."""
Words = NDArray[np.uint64]


def places(cap: int, factors: int) -> int:
    """Binary places of features such that sums of `factors` of them over `cap` units fit, with a bit to spare."""
    found = (ROOM - 1 - int(cap).bit_length()) // factors
    if found < 8:
        raise UsageError(f"cap: got {cap}; want fewer units: sums over so many have no room in 64 bits")
    return found


@dataclass(frozen=True)
class Feature:
    """One column of what is shared. low, high: public bounds. whole: is it 0 or 1? build: on the holder's own table."""

    key: str
    holder: str
    low: float
    high: float
    build: Callable[[Table], Expr] = field(repr=False)
    whole: bool = False

    @property
    def middle(self) -> float:
        return 0.0 if self.whole else (self.low + self.high) / 2

    @property
    def half(self) -> float:
        return 1.0 if self.whole else (self.high - self.low) / 2 or 1.0

    def unit(self, bits: int) -> float:
        """What one of the whole numbers stands for."""
        return 1.0 if self.whole else self.half / 2.0**bits

    def encoded(self, values: NDArray[np.float64], bits: int) -> Words:
        """Whole numbers modulo 2^64. Raises Refused on a value out of bounds or none."""
        name = self.key.removeprefix("number ")
        if self.whole and not np.isin(values, (0.0, 1.0)).all():
            raise Refused(f"{name}: got another value than 0 and 1, or none; want 0 or 1")
        slack = 1e-9 * max(abs(self.low), abs(self.high), 1e-300)
        if not (
            np.isfinite(values).all() and (values >= self.low - slack).all() and (values <= self.high + slack).all()
        ):
            raise Refused(f"{name}: got a value out of the codebook's bounds, or none; want values within them")
        scaled = values if self.whole else (values - self.middle) / self.half * 2.0**bits
        return np.rint(scaled).astype(np.int64).view(np.uint64)


def bounded(key: str, holder: str, low: float, high: float, build: Callable[[Table], Expr]) -> Feature:
    """A feature of numbers. Raises UsageError without bounds."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError(f"{key}: got no bounds; want low and high in the codebook: they say how values are shared")
    return Feature(key, holder, low, high, build)


def values_of(units: Units, codebook: Codebook, name: str) -> NDArray[np.float64]:
    """One column of the units (n,), of a category the places of its levels.

    Raises Refused where the units lack it or have a value that the codebook does not list.
    """
    if name not in units.columns:
        raise Refused(f"{name}: got no such column; want it among the columns that are worked out over the matched")
    values, column = np.asarray(units.columns[name], np.float64), codebook.column(name)
    if values.shape != (units.count,) or not np.isfinite(values).all():
        raise Refused(f"{name}: got values that are missing, or not one a unit; want a number for every unit")
    if column.levels:
        listed = (values >= 0).all() and (values < len(column.levels)).all() and (values == np.floor(values)).all()
        if not listed:
            raise Refused(f"{name}: got another value than the places of its levels; want 0, 1, ...")
    elif not column.numeric:
        raise Refused(f"{name}: got type {column.type}; want a number or a category")
    else:
        bounds = column.bounds
        if bounds and units.count and not (bounds[0] <= values.min() and values.max() <= bounds[1]):
            raise Refused(f"{name}: got a value out of the codebook's bounds; want values within them")
    return values


def table_of(units: Units, codebook: Codebook, names: Sequence[str]) -> Table:
    """A holder's columns as a table, with `ROW`, the place of each unit. A category has the places of its levels.

    Raises Refused where the units lack a column or have a value that the codebook does not list.
    """
    frame: dict[str, NDArray[Any]] = {ROW: np.arange(units.count)}
    for name in names:
        values, column = values_of(units, codebook, name), codebook.column(name)
        if column.levels:
            places = values.astype(np.int64)
            frame[name] = places.astype(bool) if column.type == "boolean" else np.array(column.levels, object)[places]
        else:
            frame[name] = values
    return Table(ibis.memtable(pd.DataFrame(frame)), codebook)


def encoded(table: Table, features: Sequence[Feature], bits: int) -> Words:
    """(n, features): what a holder shares, in the order of its units."""
    made = {f"_f{i}": feature.build(table).cast("float64") for i, feature in enumerate(features)}
    found = table.expr.select(ROW, **made).to_pandas().sort_values(ROW)
    out = np.empty((len(found), len(features)), np.uint64)
    for i, feature in enumerate(features):
        out[:, i] = feature.encoded(found[f"_f{i}"].to_numpy(np.float64), bits)
    return out


def owner(columns: Sequence[str], of: dict[str, str], what: str) -> str:
    """The holder that has all of `columns`. Raises UsageError where there is none, or several share them."""
    holders = sorted({of[name] for name in columns if name in of})
    if lost := sorted(set(columns) - set(of)):
        raise UsageError(f"columns: got none of the holders for {', '.join(lost)}; want each at one holder")
    if len(holders) != 1:
        raise UsageError(f"{what}: got columns of {', '.join(holders) or 'no holder'} in one; want those of one holder")
    return holders[0]
