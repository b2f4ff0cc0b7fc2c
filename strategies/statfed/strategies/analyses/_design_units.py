"""Totals over PSUs of figures that no database computes: rows, or batches of them, are added up at the holder.

The arrays are those of `_design_totals.totals`: totals by stratum, or by stratum and PSU where PSUs span holders, and
sums over PSUs of products of two totals by stratum otherwise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from statfed.core.errors import UsageError
from statfed.core.method import Arrays
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._linearisation import place, psu_counts, psu_shape
from statfed.strategies.analyses._matrix import ROWS
from statfed.strategies.analyses._survey import SurveyDesign

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Units:
    """Whose the rows of a holder are. place: stratum of each row, or stratum and PSU where PSUs span holders, of
    `places` in all; unit: its PSU, None where each record is its own."""

    place: Ints
    places: int
    unit: Ints | None

    def sums(self, weight: Floats, square: Floats, z: Floats, pairs: tuple[Ints, Ints]) -> tuple[Floats, Floats]:
        """Totals of the columns of z, (places, k), and sums over PSUs of products of the totals of pairs of columns.

        weight, square: sums of weights and of squared weights of each row's records; z: (rows, k), the same for them.
        """
        one, other = pairs
        if self.unit is None:
            return _gathered(self.place, weight, z, self.places), _gathered(
                self.place, square, z[:, one] * z[:, other], self.places
            )
        size = int(self.unit.max(initial=-1)) + 1
        of_unit, where = _gathered(self.unit, weight, z, size), np.zeros(size, np.int64)
        where[self.unit] = self.place
        ones = np.ones(size)
        return _gathered(where, ones, of_unit, self.places), _gathered(
            where, ones, of_unit[:, one] * of_unit[:, other], self.places
        )


def _gathered(index: Ints, weight: Floats, z: Floats, size: int) -> Floats:
    """Sums of weight times z over the rows with each index: (size, k)."""
    return np.asarray(sparse.csr_array((weight, (index, np.arange(len(index)))), shape=(size, len(index))) @ z)


def levels_of(design: SurveyDesign) -> tuple[str, ...]:
    """Category columns of the design that its sums are by."""
    return (*design.strata, *((design.psu,) if design.psu and design.spans else ()))


def weight_of(sample: Table, design: SurveyDesign) -> Expr:
    """A record's design weight."""
    return sample.number(design.weight) if design.weight else real(1.0)


def unit_columns(sample: Table, design: SurveyDesign) -> dict[str, Expr]:
    """Columns that `streamed_totals` reads: `_place`, a stratum's number or that of a stratum and a PSU, and the `_psu`
    where PSUs do not span holders."""
    psu = {"_psu": sample[design.psu]} if design.psu and not design.spans else {}
    return {"_place": place(sample, levels_of(design)), **psu}


def streamed_totals(
    sample: Table,
    design: SurveyDesign,
    rows: Table,
    columns: Sequence[Expr],
    compute: Callable[[Floats], Floats],
) -> Arrays:
    """What `_design_totals.totals_parts` announces of one block: the k values, weights included, that `compute` makes
    of batches of `columns` of `rows`, (records, columns) to (records, k). sample: the records that the design covers;
    rows: those with a value, with `unit_columns`. Memory is that of the totals of a holder's PSUs."""
    codebook, expr = sample.codebook, rows.expr
    nested, k = design.psu is not None and not design.spans, compute(np.zeros((0, len(columns)))).shape[1]
    of_psu = [ibis.dense_rank().over(order_by=[expr["_place"], expr["_psu"]])] if nested else []
    axes, pairs = psu_shape(design, codebook), np.triu_indices(k)
    places = int(np.prod(axes))
    total, products = np.zeros((places, k)), np.zeros((places, len(pairs[0])))
    of_unit, where = np.zeros((0, k)), np.zeros(0, np.int64)
    for block in rows.batches([*columns, expr["_place"], *of_psu], ROWS):
        if np.isnan(block[:, len(columns) :]).any():
            raise UsageError("design: got a stratum or PSU outside the codebook; want those it lists")
        u, at = compute(block[:, : len(columns)]), block[:, len(columns) :].astype(np.int64)
        if not nested:
            ones = np.ones(len(u))
            added = Units(at[:, 0], places, None).sums(ones, ones, u, pairs)
            total, products = total + added[0], products + added[1]
            continue
        more = max(int(at[:, 1].max(initial=-1)) + 1 - len(of_unit), 0)
        of_unit, where = np.pad(of_unit, ((0, more), (0, 0))), np.pad(where, (0, more))
        np.add.at(of_unit, at[:, 1], u)
        where[at[:, 1]] = at[:, 0]
    if nested:
        ones = np.ones(len(of_unit))
        total, products = Units(where, places, None).sums(ones, ones, of_unit, pairs)
    arrays: dict[str, NDArray[Any]] = {"psus": psu_counts(sample, design), "total": total.reshape(*axes, 1, k)}
    return arrays if design.spans else {**arrays, "products": products.reshape(*axes, 1, -1)}
