"""`survival`: Kaplan-Meier curves by group, medians, restricted means and log-rank tests, from one protected sum.

What leaves a holder are the numbers of censorings and events per interval of an agreed time grid, group and stratum;
see `_lifetimes` for how times are put on the grid. Such counts are small by nature where intervals are short: `count`
has the records of each group, which a minimum frequency applies to at least; a holder that also wants every single
interval safe applies it to `exits`, and the grid has to be wide enough for that.

With privacy the same counts get noise, sensitivity 1 as a record ends in one interval only, and curve and medians are
computed from the noisy counts. Tests, strata, entries and restricted means have no private form.

With `design` curves, errors and the log-rank test are those of the population that the sample stands for: see
`_survey_curves` for the figures and `_lifetime_design` for the sums.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Part, Question, Total, fixed
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.table import Table
from statfed.core.weighing import Weighed
from statfed.strategies.analyses._design_totals import cells_of
from statfed.strategies.analyses._kaplan_meier import (
    CLEAR,
    Curve,
    expected_events,
    kaplan_meier,
    noisy_kaplan_meier,
    rank_test,
    restricted_mean,
)
from statfed.strategies.analyses._lifetime_design import (
    exits_weigh,
    linear_parts,
    linear_sums,
    linear_weigh,
    replicate_parts,
    weighted_exits,
    weighted_parts,
)
from statfed.strategies.analyses._lifetimes import (
    Lifetimes,
    at_risk,
    check,
    count,
    counted,
    follow,
    left_out_of,
    make_grid,
    not_followed,
    not_followed_notes,
    not_followed_part,
    ordered,
    private_interval,
    times,
)
from statfed.strategies.analyses._linearisation import psu_shape
from statfed.strategies.analyses._replication import replication
from statfed.strategies.analyses._survey import limited, survey_design
from statfed.strategies.analyses._survey_curves import Curves, Exits, by_design

TITLE = "Kaplan-Meier survival curves, medians and log-rank tests on an agreed time grid"
GROUP = "Survival"
PUSHES_DOWN = "all"
_OWN = {"time", "at_risk", "events", "censored", "survival", "std_error", "lower", "upper"}
_OWN |= {"records", "expected", "median", "estimate", "hazard", "hazard_std_error"}
_CENSORED, _EVENTS = 0, 1


class Options(Lifetimes):
    """Options of survival."""

    group: tuple[str, ...] = Field(default=(), description="category columns: one curve per combination, and tests")
    strata: tuple[str, ...] = Field(default=(), description="category columns within which tests compare groups")
    level: float = Field(default=0.95, gt=0, lt=1, description="of confidence limits")
    restricted_to: float | None = Field(default=None, gt=0, description="also mean survival time up to this time")
    design: bool = Field(
        default=False, description="weights, strata, PSUs or replicates of the codebook; design-based standard errors"
    )


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = _options(question)
    read = check(question.codebook, options, _by(options), numbers=2)
    clash = sorted({*options.group} & _OWN)
    if clash:
        raise UsageError(f"group: got {', '.join(clash)}; want columns not named like one of the result's own")
    if options.strata and not options.group:
        raise UsageError("strata: got some without group; want group columns: strata are for tests between groups")
    grid = make_grid(question.codebook, options)
    last = grid.ends[-1]
    if options.restricted_to is not None and options.restricted_to > last:
        raise UsageError(f"restricted_to: got {options.restricted_to:g}; want a time on the grid, {last:g} at most")
    if question.privacy:
        named = {"strata": options.strata, "entry": options.entry, "restricted_to": options.restricted_to}
        given = [name for name, value in named.items() if value]
        if given:
            raise UsageError(f"privacy: got {', '.join(given)}; want none: they have no differentially private form")
    design = survey_design(question)
    if options.design:
        named = {"strata": options.strata, "restricted_to": options.restricted_to}
        if given := [name for name, value in named.items() if value]:
            raise UsageError(f"design: got it with {', '.join(given)}; want none: they have no design-based form")
        if design.replicates:
            replication(question.codebook)
        each = len(design.replicates) or int(np.prod(psu_shape(design, question.codebook)))
        limited(2 * len(grid) * math.prod(_shape(question)) * each, "strata x PSUs x groups x grid times")
    return tuple(dict.fromkeys((*read, *design.columns)))


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("exits")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    parts, design = counted(question.codebook, _options(question), _by(_options(question))), survey_design(question)
    if ask.name in ("curve", "test") and _options(question).design and not design.replicates:
        shape = (math.prod(_shape(question)), len(make_grid(question.codebook, _options(question))))
        return linear_parts(question.codebook, design, ask, shape)
    if ask.name == "replicates" and design.replicates:
        return replicate_parts(question.codebook, design, parts)
    if ask.name != "exits":
        raise UsageError(f"survival: unknown ask: got {ask.name!r}; want exits, and with design curve or replicates")
    if question.privacy:
        return parts
    if _options(question).design:
        parts |= weighted_parts(question.codebook, design, parts)
        parts |= {"left_out": Part(bound=1, integer=True, single=True, what=Counts(beside="left_out"))}
    return (
        parts
        | not_followed_part(_options(question))
        | {
            "records": Part(bound=1, integer=True, single=True, what=Counts(beside="count")),
            "count": Part(_shape(question), bound=1, integer=True, single=True, what=Counts(_by(_options(question)))),
        }
    )


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    options, by = _options(question), _by(_options(question))
    complete, design = table.complete(columns(question)), survey_design(question)
    if not question.privacy:
        ordered(complete, options)
    if ask.name == "replicates":
        return weighted_exits(complete, options, by, design.replicates)
    if ask.name in ("curve", "test"):
        return linear_sums(design.sample(table), complete, design, options, by, ask)
    rows = follow(complete, options, by)
    found = count(rows, question.codebook, options, by)
    if "count" not in parts(question, ask):
        return found
    records = np.array(table.aggregate(n=table.expr.count())["n"], np.int64)
    more: dict[str, NDArray[Any]] = {"count": found["exits"].sum((-2, -1)), "records": records}
    unfollowed = not_followed(complete, options, found["exits"])
    if options.design:
        sample = design.sample(table)
        more["records"] = np.array(sample.aggregate(n=sample.expr.count())["n"], np.int64)
        more["left_out"] = records - more["records"]
    more["records"] = more["records"] - unfollowed.get("not_followed", 0)
    if design.weight:
        weighted = weighted_exits(complete, options, by, (design.weight,))
        more |= {f"weight_{name}": array[0] for name, array in weighted.items()}
    return found | more | unfollowed


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    options, by, design = _options(question), _by(_options(question)), survey_design(question)
    complete = table.complete(columns(question))
    if ask.name in ("curve", "test"):
        yield from linear_weigh(complete, design, options, by, ask)
        return
    names = design.replicates if ask.name == "replicates" else (design.weight,) if design.weight else ()
    if names:
        yield from exits_weigh(complete, options, by, names)


def discloses(question: Question[Options], ask: Ask) -> Cells:
    options, design = _options(question), survey_design(question)
    weights = design.replicates if ask.name == "replicates" else (design.weight,) if design.weight else ()
    own = cells_of(design) if ask.name in ("curve", "test") else ()
    kinds = options.design and question.codebook.columns[options.event].levels
    by = (*own, *_by(options), *((options.event,) if kinds else ()))
    complete = (*times(options), options.event, *design.columns)
    return Cells(tuple(dict.fromkeys(by)), weights, tuple(dict.fromkeys(complete)))


def coordinate(question: Question[Options]) -> Coordination:
    total = yield Ask("exits")
    options = _options(question)
    grid = make_grid(question.codebook, options)
    groups = _groups(question)
    if options.design:
        found = yield from by_design(
            question.codebook,
            survey_design(question),
            np.array(grid.ends),
            options.level,
            _exits(question, total),
            bool(options.group),
        )
        return _of_design(question, total, found)
    curves = list(_curves(question, np.array(grid.ends), total))
    medians = [_median(*each) for each in zip(groups, curves, _grouped(total["exits"], question), strict=True)]
    tables: dict[str, Sequence[Row]] = {
        "curve": [row for group, curve in zip(groups, curves, strict=True) for row in _steps(group, curve, question)],
        "medians": medians,
    }
    notes = [grid.note()]
    if question.privacy:
        notes.append(
            "Curves are made decreasing and kept within 0 and 1; counts are rounded and not below 0; std_error and "
            "limits include the noise (delta method). A curve ends where fewer records are at risk than "
            f"{CLEAR:g} standard deviations of the noise in their number."
        )
        if options.start:
            notes.append(f"Records whose {options.time} is before {options.start} are left out, uncounted.")
        return _result(question, tables, {}, notes)
    if options.group:
        events, risk = _by_stratum(question, total)
        expected = expected_events(events, risk)
        tables["medians"] = [{**row, "expected": float(e)} for row, e in zip(medians, expected, strict=True)]
        tables["tests"] = _tests(events, risk)
    if options.restricted_to is not None:
        tables["restricted_means"] = [
            {
                **group,
                "time": options.restricted_to,
                "estimate": mean,
                "std_error": error,
                "records": row["records"],
            }
            for group, row, (mean, error) in zip(
                groups, medians, (restricted_mean(curve, options.restricted_to) for curve in curves), strict=True
            )
        ]
    observations, records = int(total["count"].sum()), int(total["records"])
    facts: dict[str, Scalar] = {
        "observations": observations,
        "missing": records - observations,
        **left_out_of(total),
        "events": int(total["exits"][..., _EVENTS].sum()),
        "intervals": len(grid),
    }
    return _result(question, tables, facts, [*notes, *not_followed_notes(_options(question), total)])


def _exits(question: Question[Options], total: Total) -> Exits:
    """Numbers of records and weights by group. Raises UsageError on weights below 0."""
    arrays: dict[str, NDArray[Any]] = {
        name: _grouped(total[name], question)[:, 0] for name in total if name.endswith(("exits", "entered"))
    }
    counts, entered = arrays["exits"], arrays.get("entered")
    weights = arrays.get("weight_exits", counts.astype(np.float64))
    entering = arrays.get("weight_entered", None if entered is None else entered.astype(np.float64))
    if (weights < 0).any():
        raise UsageError("weight: got negative totals; want weights that are not negative")
    return Exits.of(counts, entered, weights, entering)


def _of_design(question: Question[Options], total: Total, found: Curves) -> Result:
    groups, exits = _groups(question), _grouped(total["exits"], question)
    curve: list[Row] = []
    for g, group in enumerate(groups):
        places = {float(t): i for i, t in enumerate(found.curves[g].times)}
        for row in _steps(group, found.curves[g], question):
            i = places[float(str(row["time"]))]
            curve.append(
                {**row, "hazard": float(found.hazard[g, i]), "hazard_std_error": _known(found.hazard_error[g, i])}
            )
    medians = [_median(*each) for each in zip(groups, found.curves, exits, strict=True)]
    tables: dict[str, Sequence[Row]] = {"curve": curve, "medians": medians}
    notes = [
        make_grid(question.codebook, _options(question)).note(),
        "at_risk, events and censored are records of the sample; survival, hazard and medians are weighted, their "
        "standard errors those of the design; limits are taken on the logarithm.",
    ]
    if found.test is not None:
        chi_square, df, p_value = found.test
        tables["tests"] = [{"name": "log-rank", "chi_square": chi_square, "df": df, "p_value": p_value}]
        notes.append("The log-rank test has the design's variance of its scores; other tests have no such form.")
    observations = int(total["count"].sum())
    facts: dict[str, Scalar] = {
        "observations": observations,
        "missing": int(total["records"]) - observations,
        **left_out_of(total),
        "events": int(total["exits"][..., _EVENTS].sum()),
        "intervals": exits.shape[2],
        **found.facts,
    }
    return _result(question, tables, facts, [*notes, *not_followed_notes(_options(question), total)])


def _result(
    question: Question[Options], tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Scalar], notes: list[str]
) -> Result:
    by, leaving = _options(question).group, ("events", "censored")
    limits = ("lower", "upper")
    own = ("survival", "std_error", *limits, *(("hazard", "hazard_std_error") if _options(question).design else ()))
    basis = {
        "curve": Basis(by, ("time",), ("at_risk", *leaving), own=own, flows=leaving),
        "medians": Basis(by, counts=("records", "events"), own=("median", *limits), derived=("expected",)),
        "tests": Basis(keys=("name",), observations=True, own=("chi_square", "df", "p_value")),
        "restricted_means": Basis(by, ("time",), ("records",), own=("estimate", "std_error"), hidden=("records",)),
    }
    return Result(
        "survival",
        "Survival (Kaplan-Meier)",
        tables,
        facts,
        tuple(notes),
        by=by,
        basis=basis,
        observations="observations",
        numbers=("missing", *(name for name in ("left_out",) if name in facts), "events"),
        public=("intervals", "psus", "strata", "replicates"),
    )


def _options(question: Question[Options]) -> Options:
    """The options, with privacy on the coarser grid of `private_interval` where none is stated."""
    options = question.options
    if not question.privacy or options.interval or options.grid:
        return options
    return options.model_copy(update={"interval": private_interval(question.codebook, options)})


def _by(options: Options) -> tuple[str, ...]:
    return (*options.group, *options.strata)


def _shape(question: Question[Options]) -> tuple[int, ...]:
    return tuple(len(question.codebook.category(name).levels) for name in _by(_options(question)))


def _groups(question: Question[Options]) -> list[dict[str, Scalar]]:
    names = _options(question).group
    levels = product(*(question.codebook.category(name).levels for name in names))
    return [dict(zip(names, codes, strict=True)) for codes in levels]


def _grouped(array: NDArray[np.float64], question: Question[Options]) -> NDArray[np.float64]:
    """(levels of groups and strata, ...) as (groups, strata, ...)."""
    shape, split = _shape(question), len(_options(question).group)
    return array.reshape(math.prod(shape[:split]), math.prod(shape[split:]), *array.shape[len(shape) :])


def _curves(question: Question[Options], times: NDArray[np.float64], total: Total) -> Iterator[Curve]:
    level = _options(question).level
    exits = _grouped(total["exits"], question)
    if question.privacy:
        noise = _grouped(total.noise["exits"], question)
        for count, spread in zip(exits[:, 0], noise[:, 0], strict=True):
            yield noisy_kaplan_meier(times, count.astype(float), spread, level)
        return
    entered = _grouped(total["entered"], question).sum(1) if "entered" in total else None
    for i, count in enumerate(exits.sum(1)):
        yield kaplan_meier(times, count, None if entered is None else entered[i], level)


def _steps(group: Mapping[str, Scalar], curve: Curve, question: Question[Options]) -> Iterator[Row]:
    """Rows at the grid times at which somebody left; with privacy, where nobody can tell, at all of them."""
    for i in range(len(curve.times)):
        if question.privacy or curve.events[i] or curve.censored[i]:
            yield {
                **group,
                "time": float(curve.times[i]),
                "at_risk": int(curve.at_risk[i]),
                "events": int(curve.events[i]),
                "censored": int(curve.censored[i]),
                "survival": float(curve.survival[i]),
                "std_error": _known(curve.std_error[i]),
                "lower": _known(curve.lower[i]),
                "upper": _known(curve.upper[i]),
            }


def _median(group: Mapping[str, Scalar], curve: Curve, exits: NDArray[np.int64]) -> dict[str, Scalar]:
    """Median and its limits by inverting the curve's limits (Brookmeyer and Crowley 1982). exits: (strata, T, 2)."""
    return {
        **group,
        "records": max(int(exits.sum()), 0),
        "events": max(int(exits[..., _EVENTS].sum()), 0),
        "median": curve.quantile(curve.survival),
        "lower": curve.quantile(curve.lower),
        "upper": curve.quantile(curve.upper),
    }


def _by_stratum(question: Question[Options], total: Total) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    exits = _grouped(total["exits"], question).astype(float)
    entered = _grouped(total["entered"], question).astype(float) if "entered" in total else None
    return exits[..., _EVENTS], at_risk(exits.sum(-1), entered)


def _tests(events: NDArray[np.float64], risk: NDArray[np.float64]) -> list[Row]:
    together = risk.sum(0)
    weights = {"log-rank": np.ones(together.shape), "Wilcoxon": together, "Tarone-Ware": np.sqrt(together)}
    rows: list[Row] = []
    for name, weight in weights.items():
        chi_square, df, p_value = rank_test(events, risk, weight)
        rows.append({"name": name, "chi_square": chi_square, "df": df, "p_value": p_value})
    return rows


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
