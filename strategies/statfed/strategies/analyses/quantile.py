"""`quantile`: quantiles of columns to a stated tolerance, weighted or not, also in groups, by narrowing brackets.

The p-quantile is the smallest x with F(x) >= p, F the (weighted) distribution function of all records: numpy's
method="inverted_cdf". Each ask counts records at public edges inside the current brackets of all quantiles at once;
columns of whole numbers end at the exact value, others in a bracket as wide as the tolerance, whose middle is the
estimate. The part `count` holds what leaves and what a rule on frequencies looks at.

`bisection` sends the records on both sides of each edge: one edge in the middle until both ends of a bracket were asked
about, then up to 7. Such an edge has on each side at least the records beyond the end on that side, which has passed
the holder's rules; only at a holder without records beyond an end can it be less. In simulation (4 holders of 50 to
30 000 records; normal, lognormal, Pareto and zero-inflated columns; least frequency 3, 5, 10 or 20) as many runs were
refused as with one edge throughout, but for 2 to 4 in 100 more in two of 64 settings, after 8 to 15 asks instead of
20; for a quantile at the column's lower bound it takes 20. In an ask 7 counts leave where three halvings would send 3
(15 and 31 edges in place of 7 save 1 or 2 asks and send 1.6 and 2.8 times as many counts). Edges end as close as the
tolerance, so counts at two of them tell, by subtraction, about few records, with one edge in an ask as with several.

`refinement` sends the records between up to 127 edges, in a third of the asks, but its late cells hold single records:
use it where contributions are not seen in the clear.

std_error, lower and upper are Woodruff's (1952): the quantiles at p -+ z sqrt(p (1 - p)/n), for a simple random sample;
there are none for weighted quantiles, nor where a limit of F leaves (0, 1). With `design` quantiles have the codebook's
weights, and the limits are those with the design's standard error of F at the quantile and t on its degrees of freedom
(R's svyquantile): one ask, `spread`, once the quantiles are found, and then brackets of the limits.

With differential privacy one noisy tree of counts over the codebook's bounds is asked for, and all quantiles and limits
are read from it (`_hierarchy`); limits then cover p -+ z sqrt(sampling + noise variance), rounded outward to bins.
Measured in standard deviations of one count that had the whole budget, 4096 bins and 300 draws, the root mean square
error in ranks beyond the bin was 1.7 (discrete Gaussian) and 7.7 (Laplace) for any number of quantiles. Noisy bisection
in 12 steps had 0.8 and 4.9 for one quantile, 2.0 and 17 for three, and yields no limits; hence the tree.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Magnitude, Part, Question, Total, fixed
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.section import Section
from statfed.core.table import Table
from statfed.core.weighing import Amounts, Cuts, Weighed
from statfed.strategies.analyses import _bins, _brackets, _quantile_tree
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._design_totals import (
    cells_of,
    spread_of,
    totals,
    totals_parts,
)
from statfed.strategies.analyses._linearisation import psu_shape
from statfed.strategies.analyses._quantile_design import around, blocks, by_of, places, points_of, points_weigh
from statfed.strategies.analyses._records import LOOKED_AT, looked_at, looked_at_part, most_used
from statfed.strategies.analyses._replication import (
    UNKNOWN,
    rank_cells,
    rank_parts,
    rank_sums,
    rank_weighs,
    replicate_degrees,
    replication,
)
from statfed.strategies.analyses._survey import cells, limited, ones, survey_design
from statfed.strategies.analyses._weighing import two_ways

TITLE = "Quantiles and median of columns to a stated tolerance, weighted or not, also in groups"
GROUP = "Distributions"
PUSHES_DOWN = "all"

ASKS = 80  # of one study: a bracket of 64 bits has an end
_EDGES = 1024  # edges in one ask and column, at most, but for one per quantile
_FEW, _MANY = 7, 127  # edges in one bracket


class Options(Section):
    """Options of quantile."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns with bounds in the codebook")
    probabilities: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        default=(0.25, 0.5, 0.75), min_length=1, max_length=99, description="between 0 and 1"
    )
    weight: str | None = Field(default=None, description="numeric column of weights")
    by: str | None = Field(default=None, description="grouping column (category or boolean)")
    tolerance: float | None = Field(
        default=None,
        gt=0,
        description="width of the bracket, in the column's units; default 1e-6 of its range; whole numbers are exact",
    )
    method: Literal["bisection", "refinement"] = Field(
        default="bisection", description="counts on both sides of few edges, or between many and fewer asks"
    )
    least: int = Field(
        default=0,
        ge=0,
        description="fewest records, over all holders, in a bracket that is narrowed: holders whose rules are on keep "
        "back what tells of few; the estimate is then interpolated. Some 60 for each holder pass the usual rules",
    )
    level: float = Field(default=0.95, gt=0, lt=1, description="confidence level of lower and upper")
    design: bool = Field(default=False, description="weights, strata, PSUs or replicates of the codebook")

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.least and (self.method != "bisection" or self.weight or self.design):
            raise ValueError("least: got it with refinement, a weight or design; want bisection without a weight")
        return self


def columns(question: Question[Options]) -> tuple[str, ...]:
    options, codebook = question.options, question.codebook
    survey = survey_design(question)
    m.check_columns(codebook, options.columns, by_of(question), bounded=True)
    if survey.weight:
        _bins.check_weight(codebook, survey.weight, bounded=False)
        if question.privacy:
            raise UsageError("quantile: got weight with privacy; want quantiles without weights")
        if survey.weight in (*options.columns, *by_of(question)):
            raise UsageError(f"quantile: got {survey.weight} as weight and as column; want another weight")
    if survey.replicates:
        replication(codebook)
    if options.design:
        size = len(options.columns) * cells(codebook, by_of(question)) * len(options.probabilities)
        limited(size * 4 * max(1, len(survey.replicates), *psu_shape(survey, codebook)), "strata x PSUs x quantiles")
    return tuple(dict.fromkeys((*options.columns, *by_of(question), *survey.columns)))


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("tree")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    options = question.options
    if ask.name == "tree":
        return _quantile_tree.parts(question.codebook, options.columns, by_of(question))
    survey = survey_design(question)
    if ask.name == "spread" and options.design:
        size = points_of(question, ask).size
        return totals_parts(survey, question.codebook, np.ones((size, 2)), Magnitude())
    if ask.name == "rank" and survey.replicates:
        return rank_parts(question, survey)
    if ask.name != "cells":
        raise UsageError(f"quantile: unknown ask: got {ask.name!r}; want cells, spread, rank or tree")
    edges = _edges(question, ask).shape
    shape = (*edges[:-1], edges[-1] + 1) if _between(question) else (*edges, 2)
    announced = {"count": Part(shape, 1.0, integer=True, what=Counts(by_of(question), sides=options.least > 0))}
    announced["used"] = Part((len(options.columns),), 1.0, integer=True, what=Counts())
    announced |= looked_at_part("used")
    if survey.weight:
        weight = m.largest(question.codebook.columns[survey.weight].bounds)
        announced["total"] = Part(shape, weight, what=Magnitude("count"))
    return announced


def _edges(question: Question[Options], ask: Ask) -> m.Floats:
    """The ask's edges (columns, *levels, targets, edges of a bracket). Raises UsageError when they are not that."""
    options, levels = question.options, m.level_shape(question.codebook, by_of(question))
    edges = np.asarray(ask.arrays.get("edges", np.zeros(0)), np.float64)
    brackets, most = (len(options.columns), *levels, 3 * len(options.probabilities)), _most(question)
    if edges.shape[:-1] != brackets or not 1 <= edges.shape[-1] <= most or not np.isfinite(edges).all():
        raise UsageError(f"quantile: edges: got shape {edges.shape}; want {brackets} with 1 to {most} numbers in each")
    if np.any(np.diff(edges) < 0):
        raise UsageError("quantile: edges: got some that decrease; want none below the one before")
    return edges


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    options, by = question.options, by_of(question)
    if ask.name == "tree":
        return _quantile_tree.contribute(table, options.columns, by)
    between = _between(question)
    edges = _edges(question, ask) if ask.name not in ("rank", "spread") else np.zeros(0)
    survey = survey_design(question)
    sample = survey.sample(table)
    if ask.name == "rank":
        return rank_sums(sample, survey)
    if ask.name == "spread":
        return totals(sample, survey, blocks(question, sample, ask))
    found = [
        _brackets.counts(sample, name, survey.weight, by, edges[i], between=between)
        for i, name in enumerate(options.columns)
    ]
    cells = {key: np.stack([each[key] for each in found]) for key in found[0]}
    used = _brackets.whole(cells["count"], between=between).reshape(len(found), -1).sum(axis=1)
    return {**cells, "used": used.astype(np.int64), **looked_at(table)}


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    """The edges of every group, and weights between them."""
    if ask.name == "tree":  # counts alone
        return
    options, by, survey = question.options, by_of(question), survey_design(question)
    table = survey.sample(table)
    if ask.name == "rank":
        yield from rank_weighs(table, survey)
        return
    if ask.name == "spread":
        yield from points_weigh(table, question, ask)
        return
    edges = _edges(question, ask)
    for at, labels in m.level_rows(question.codebook, by):
        cell = tuple(labels.items())
        group = table.filter(*(table[name].cast("string") == code for name, code in cell))
        if survey.weight:
            yield from two_ways(group, [ones(group)], survey.weight, ())
        for i, name in enumerate(options.columns):
            own = np.unique(edges[(i, *at)])
            yield Cuts(group, name, tuple((float(edge), True) for edge in own), (), cell, options.least > 0)
            if survey.weight:
                inside = group.complete((name,))
                place = _bins.place(inside.number(name), own, "right")
                yield Amounts(inside, (inside.number(survey.weight),), (place,))


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:
    once = ("spread", "rank") if question.options.design else ()
    if ask.name in once:
        return f"got {ask.name} a second time; want it once" if any(one.name == ask.name for one in before) else ""
    return "" if ask.name == "cells" and len(before) < ASKS else f"got {ask.name} number {len(before) + 1}; want {ASKS}"


def discloses(question: Question[Options], ask: Ask) -> Cells:
    survey, by = survey_design(question), by_of(question)
    if ask.name == "rank":
        return rank_cells(survey)
    weights = (*((survey.weight,) if survey.weight else ()), *(survey.replicates if ask.name == "spread" else ()))
    if not question.options.design:
        return Cells(by, weights)
    finer = cells_of(survey) if ask.name == "spread" else ()
    return Cells(tuple(dict.fromkeys((*finer, *by))), weights, survey.columns)


def coordinate(question: Question[Options]) -> Coordination:
    options = question.options
    if question.privacy:
        total = yield Ask("tree")
        return _private_result(question, total)
    state, count, asks, records = yield from _found(question)
    df, of_design = 0.0, dict[str, Scalar]()
    if options.design:
        points = np.where(state.known, state.bracket[1], 0.0)[..., : len(options.probabilities)]
        total = yield Ask("spread", {"points": points})
        survey = survey_design(question)
        of_weights = (yield from replicate_degrees(question)) if survey.replicates else None
        spread = spread_of(question.codebook, survey, total, of_weights)
        df, of_design = spread.df or 0.0, dict[str, Scalar](spread.facts)
        limits_of = around(spread, points.shape, options.level)
        limits, _, more, _ = yield from _found(question, limits_of)
        state, asks = state.joined(limits, len(options.probabilities)), asks + more
    rows = [_row(question, i, at, labels, j, state, int(count[(i, *at)]), df) for i, at, labels, j in places(question)]
    lower, upper = state.bracket
    widest = float((upper - lower)[state.known].max(initial=0.0))
    used = most_used(count)
    facts: dict[str, Scalar] = {"observations": used, "missing": records - used}
    facts |= {"asks": asks, "method": options.method, "widest_bracket": widest}
    notes = ["estimate: smallest value x with F(x) >= probability, within bracket_lower to bracket_upper"]
    if options.least:
        notes = [
            f"estimate: interpolated in a bracket, which is not narrowed below {options.least} records; none where a "
            "quantile has fewer records than that on one side"
        ]
    if options.design:
        facts |= of_design
        notes.append(f"std_error, lower, upper: Woodruff's {options.level:.0%} limits with the design's error of F")
        notes += [] if df else [UNKNOWN]
    elif options.weight:
        notes.append("no standard errors for weighted quantiles: they depend on the design of the sample; want design")
    else:
        notes.append(f"std_error, lower, upper: Woodruff's {options.level:.0%} limits for a simple random sample")
    return _result(question, rows, facts, tuple(notes))


def _found(
    question: Question[Options], wanted: m.Floats | None = None
) -> Generator[Ask, Total, tuple[_brackets.State, NDArray[np.int64], int, int]]:
    """Brackets of the quantiles and of their limits, records in every group, numbers of asks and of all records.

    wanted: (columns, *levels, targets), values of F to find instead, NaN for none.
    """
    options, weight = question.options, survey_design(question).weight
    between, key = _between(question), "total" if weight else "count"
    names, levels = options.columns, m.level_shape(question.codebook, by_of(question))
    bounds = [_bins.bounds_of(question.codebook, name) for name in names]
    tolerance = np.array([_tolerance(question, name) for name in names])
    state = _brackets.start(bounds, tolerance, (len(names), *levels, 3 * len(options.probabilities)))
    state = replace(state, least=options.least)
    inner = 1 if options.least else max(1, min(_EDGES // max(1, state.low[0].size), _most(question)))
    asks, records, count = 0, 0, np.zeros((len(names), *levels), np.int64)
    while not asks or not state.done.all():
        edges = state.edges(inner, careful=not between)
        cells = yield Ask("cells", {"edges": edges})
        if np.any(cells[key] < 0):
            raise UsageError("weight: got negative totals; want weights that are not negative")
        if not asks:
            records = int(cells[LOOKED_AT])
            count = _brackets.whole(cells["count"], between=between)
            plain = weight is None and not options.design
            limits = _brackets.with_limits(options.probabilities, count, options.level, plain)
            size = _brackets.whole(cells[key], between=between)
            goal = _brackets.goals(limits if wanted is None else wanted, size, whole=weight is None)
            if options.least:  # holders count few records beyond an edge on its other side
                ends = np.minimum(goal, 0.0 * goal + size[..., None] - goal)
                goal = np.where(ends < options.least, np.nan, goal)
            state = replace(state, goal=goal, upto=(0.0 * goal, 0.0 * goal + size[..., None]))
        state = state.narrowed(edges, _brackets.upto(cells[key], between=between))
        asks += 1
    return state, count, asks, records


def _row(
    question: Question[Options],
    i: int,
    at: tuple[int, ...],
    levels: Mapping[str, str],
    j: int,
    state: _brackets.State,
    count: int,
    df: float = 0.0,
) -> Row:
    from scipy import stats

    wanted = len(question.options.probabilities)
    tail = (1 + question.options.level) / 2
    z = stats.t.ppf(tail, df) if df else stats.norm.ppf(tail)
    estimate, below, above = (state.estimate[(i, *at, j + k * wanted)] for k in range(3))
    cell, p = (i, *at, j), question.options.probabilities[j]
    return {
        "column": question.options.columns[i],
        **levels,
        "probability": p,
        "estimate": m.finite(estimate),
        "std_error": m.finite((above - below) / (2 * z)),
        "lower": m.finite(below),
        "upper": m.finite(above),
        "bracket_lower": m.finite(state.bracket[0][cell]),
        "bracket_upper": m.finite(state.bracket[1][cell]),
        "count": count,
        "beyond": max(1, math.floor(min(p, 1 - p) * count)) if count else 0,  # records on the side that has fewer
    }


def _private_result(question: Question[Options], total: Total) -> Result:
    options = question.options
    rows: list[Row] = []
    read: dict[tuple[int, ...], _quantile_tree.Distribution] = {}
    for i, at, levels, j in places(question):
        if (i, *at) not in read:
            read[(i, *at)] = _quantile_tree.distribution(question.codebook, options.columns[i], total, i, at)
        found = read[(i, *at)]
        row: dict[str, Scalar] = {"column": options.columns[i], **levels, "probability": options.probabilities[j]}
        rows.append(row | found.quantile(options.probabilities[j], options.level) | {"count": found.count})
    notes = (
        f"lower, upper: {options.level:.0%} limits that cover the sampling error of a simple random sample and the "
        "privacy noise, rounded outward to the tree's bins; std_error: their distance over twice the normal quantile",
        "post-processing: levels of the tree are made consistent, cumulative counts increasing and not negative",
    )
    facts: dict[str, Scalar] = {"asks": 1, "method": "tree"}
    return _result(question, rows, facts, notes)


def _result(
    question: Question[Options], rows: list[Row], facts: Mapping[str, Scalar], notes: tuple[str, ...]
) -> Result:
    by, own = by_of(question), ("estimate", "std_error", "lower", "upper", "bracket_lower", "bracket_upper")
    counts = ("count", "beyond") if all("beyond" in row for row in rows) else ("count",)
    basis = {"estimates": Basis(by, ("column", "probability"), counts, own=own, hidden=counts[1:])}
    tables = {"estimates": rows}
    numbers = ("observations", "missing") if "missing" in facts else ()
    return Result(
        "quantile",
        "Quantiles",
        tables,
        facts,
        notes,
        by,
        basis=basis,
        observations=numbers[0] if numbers else None,
        numbers=numbers[1:],
        public=tuple(name for name in facts if name not in numbers),
    )


def _between(question: Question[Options]) -> bool:
    """Do records between edges leave the holder, and not those on both sides of each edge?"""
    return question.options.method == "refinement"


def _most(question: Question[Options]) -> int:
    """Edges in one bracket and ask, at most."""
    return _MANY if _between(question) else _FEW


def _tolerance(question: Question[Options], name: str) -> float:
    """Width at which a bracket is narrow enough; NaN for whole numbers, which end exactly."""
    if _bins.whole(question.codebook, name):
        return np.nan
    low, high = _bins.bounds_of(question.codebook, name)
    return question.options.tolerance or 1e-6 * (high - low)
