"""Scores of a Cox regression under a sample design: what a record adds to the score at the fit, and totals over PSUs.

With covariates z, weight w and r = exp(z'b) a record adds w times event (z - mean at its exit) - r times the sum, over
the grid times at which it is at risk, of the hazard times (z - mean there); means and hazards are those of the
weighted risk sets, public figures of the fit (`Likelihood.rates`, `Likelihood.means`). With Efron's ties an event is at
risk for a part of its own interval. The covariance of the coefficients is that of the total of the scores between two
inverses of the information, as R's svycoxph. Source: Binder 1992, Biometrika 79; Lin 2000, Biometrika 87.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask
from statfed.core.table import Expr, Table
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._lifetime_design import Units, levels_of, owned, weight_of
from statfed.strategies.analyses._lifetimes import Lifetimes, follow
from statfed.strategies.analyses._linearisation import place, psu_counts, psu_shape
from statfed.strategies.analyses._matrix import ROWS
from statfed.strategies.analyses._survey import SurveyDesign

Floats = NDArray[np.float64]


def score_sums(
    sample: Table,
    complete: Table,
    design: SurveyDesign,
    options: Lifetimes,
    strata: Sequence[str],
    z: Sequence[Expr],
    ask: Ask,
) -> Arrays:
    """Totals of the scores and, unless PSUs span holders, products of PSU totals, with the numbers of PSUs: the arrays
    of `_design_totals.totals_parts` for one block of p values. z: centred covariates of the `complete` records."""
    codebook, p = sample.codebook, len(z)
    table = _followed(complete, design, options, strata, z, whose=False)
    rows, columns = table.expr, _columns(table, options, p)
    nested = design.psu is not None and not design.spans
    columns += [rows["place"], *([ibis.dense_rank().over(order_by=[rows["place"], rows["psu"]])] if nested else [])]
    places, pairs = int(np.prod(psu_shape(design, codebook))), np.triu_indices(p)
    total, products, of_unit, where = (
        np.zeros((places, p)),
        np.zeros((places, len(pairs[0]))),
        np.zeros((0, p)),
        np.zeros(0, np.int64),
    )
    for block in table.batches(columns, ROWS):
        if np.isnan(block).any():
            raise UsageError("design, strata: got a value outside the codebook; want those it lists")
        u, at = _scores(block, ask, p), block[:, p + 5].astype(np.int64)
        if not nested:
            ones = np.ones(len(u))
            added = Units(at, places, None).sums(ones, ones, u, pairs)
            total, products = total + added[0], products + added[1]
            continue
        unit = block[:, p + 6].astype(np.int64)
        more = int(unit.max(initial=-1)) + 1 - len(of_unit)
        if more > 0:
            of_unit, where = np.pad(of_unit, ((0, more), (0, 0))), np.pad(where, (0, more))
        np.add.at(of_unit, unit, u)
        where[unit] = at
    if nested:
        ones = np.ones(len(of_unit))
        total, products = Units(where, places, None).sums(ones, ones, of_unit, pairs)
    axes = psu_shape(design, codebook)
    arrays: dict[str, NDArray[Any]] = {"psus": psu_counts(sample, design), "total": total.reshape(*axes, 1, p)}
    return arrays if design.spans else {**arrays, "products": products.reshape(*axes, 1, -1)}


def score_weigh(
    complete: Table,
    design: SurveyDesign,
    options: Lifetimes,
    strata: Sequence[str],
    z: Sequence[Expr],
    ask: Ask,
) -> Iterator[Weighed]:
    """How records weigh in `score_sums`: PSUs are looked at by the records that they are made of."""
    p = len(z)
    table = _followed(complete, design, options, strata, z, whose=True)
    columns = tuple(_columns(table, options, p))

    def scores(block: Floats) -> Floats:
        return _scores(block, ask, p)

    def amounts(block: Floats) -> Floats:
        u = _scores(block, ask, p)
        return np.concatenate([u, u * u], axis=1)

    yield Rows(table, columns, compute=scores)
    yield Amounts(table, columns, (table.expr["place"],) if levels_of(design) else (), compute=amounts)


def figures(ask: Ask, shape: tuple[int, int, int]) -> tuple[Floats, Floats]:
    """The ask's rates (strata, T, 2) and means (strata, T, 3, p). Raises UsageError when they are not that."""
    rates, means = (np.asarray(ask.arrays.get(name, np.zeros(0)), np.float64) for name in ("rates", "means"))
    strata, size, p = shape
    if rates.shape != (strata, size, 2) or means.shape != (strata, size, 3, p) or not np.isfinite(means).all():
        raise UsageError(
            f"spread: got rates {rates.shape}, means {means.shape}; want {(strata, size, 2)}, {(strata, size, 3, p)}"
        )
    return rates, means


def _followed(
    complete: Table,
    design: SurveyDesign,
    options: Lifetimes,
    strata: Sequence[str],
    z: Sequence[Expr],
    *,
    whose: bool,
) -> Table:
    """Followed records: `z0`, ..., design weight `dw`, number of the baseline's stratum `s` and of the design's `place`,
    `psu` where PSUs do not span holders. whose: also the columns that tell whose they are, which rules look at."""
    psu = {"psu": complete[design.psu]} if design.psu and not design.spans else {}
    values = {f"z{k}": x for k, x in enumerate(z)} | {"dw": weight_of(complete, design), **psu}
    values |= {"s": place(complete, strata), "place": place(complete, levels_of(design))}
    if whose:
        return owned(complete, options, (), **values)
    return Table(follow(complete, options, (), **values), complete.codebook, complete.embedded)


def _columns(table: Table, options: Lifetimes, p: int) -> list[Expr]:
    """z, design weight, stratum of the baseline, exit, event and entry."""
    rows = table.expr
    enter = rows["enter"] if options.entry else rows["exit"] - rows["exit"]
    return [*(rows[f"z{k}"] for k in range(p)), rows["dw"], rows["s"], rows["exit"], rows["event"], enter]


def _scores(block: Floats, ask: Ask, p: int) -> Floats:
    """(records, p): what each adds to the score, with its weight. block: `_columns`."""
    z, weight = block[:, :p], block[:, p]
    s, exit_, event, enter = (block[:, p + i].astype(np.int64) for i in range(1, 5))
    rates, means = (np.asarray(ask.arrays[name], np.float64) for name in ("rates", "means"))
    hazard, shifted = (
        np.concatenate([np.zeros((len(x), 1, *x.shape[2:])), np.cumsum(x, axis=1)], axis=1)
        for x in (rates[:, :, 0], means[:, :, 0])
    )
    risk = np.exp(z @ np.asarray(ask.arrays["beta"], np.float64))[:, None]
    exposed = (hazard[s, exit_ + 1] - hazard[s, enter])[:, None] * z - (shifted[s, exit_ + 1] - shifted[s, enter])
    tied = rates[s, exit_, 1][:, None] * z - means[s, exit_, 1]
    own = event[:, None] * (z - means[s, exit_, 2] + risk * tied)
    return np.asarray(weight[:, None] * (own - risk * exposed), np.float64)
