"""Scores of a Cox regression under a sample design: what a record adds to the score at the fit, and totals over PSUs.

With covariates z, weight w and r = exp(z'b) a record adds w times event (z - mean at its exit) - r times the sum, over
the grid times at which it is at risk, of the hazard times (z - mean there); means and hazards are those of the
weighted risk sets, public figures of the fit (`Likelihood.rates`, `Likelihood.means`). With Efron's ties an event is at
risk for a part of its own interval. The covariance of the coefficients is that of the total of the scores between two
inverses of the information, as R's svycoxph. Source: Binder 1992, Biometrika 79; Lin 2000, Biometrika 87.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask
from statfed.core.table import Expr, Table
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._design_units import levels_of, streamed_totals, unit_columns, weight_of
from statfed.strategies.analyses._lifetime_design import owned
from statfed.strategies.analyses._lifetimes import Lifetimes, follow
from statfed.strategies.analyses._linearisation import place
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
    p = len(z)
    table = _followed(complete, design, options, strata, z, whose=False)
    return streamed_totals(sample, design, table, _columns(table, options, p), lambda block: _scores(block, ask, p))


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
    yield Amounts(table, columns, (table.expr["_place"],) if levels_of(design) else (), compute=amounts)


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
    """Followed records: `z0`, ..., the design's `_weight`, number of the baseline's `_stratum`, `unit_columns`. whose:
    also the columns that tell whose they are, which rules look at."""
    values = {f"z{k}": x for k, x in enumerate(z)} | {
        "_weight": weight_of(complete, design),
        "_stratum": place(complete, strata),
    }
    values |= unit_columns(complete, design)
    if whose:
        return owned(complete, options, (), **values)
    return Table(follow(complete, options, (), **values), complete.codebook, complete.embedded)


def _columns(table: Table, options: Lifetimes, p: int) -> list[Expr]:
    """z, design weight, stratum of the baseline, exit, event and entry."""
    rows = table.expr
    enter = rows["enter"] if options.entry else rows["exit"] - rows["exit"]
    return [*(rows[f"z{k}"] for k in range(p)), rows["_weight"], rows["_stratum"], rows["exit"], rows["event"], enter]


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
