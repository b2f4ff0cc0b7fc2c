"""`survival`: Kaplan-Meier curves by group, medians, restricted means and log-rank tests, from one protected sum.

What leaves a holder are the numbers of censorings and events per interval of an agreed time grid, group and stratum;
see `_lifetimes` for how times are put on the grid. Such counts are small by nature where intervals are short: `count`
has the records of each group, which a minimum frequency applies to at least; a holder that also wants every single
interval safe applies it to `exits`, and the grid has to be wide enough for that.

With privacy the same counts get noise, sensitivity 1 as a record ends in one interval only, and curve and medians are
computed from the noisy counts. Tests, strata, entries and restricted means have no private form.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Part, Question, Total, fixed
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.table import Table
from statfed.strategies.analyses._kaplan_meier import (
    CLEAR,
    Curve,
    expected_events,
    kaplan_meier,
    noisy_kaplan_meier,
    rank_test,
    restricted_mean,
)
from statfed.strategies.analyses._lifetimes import (
    Lifetimes,
    at_risk,
    check,
    count,
    counted,
    follow,
    make_grid,
    ordered,
    times,
)

TITLE = "Kaplan-Meier survival curves, medians and log-rank tests on an agreed time grid"
GROUP = "Survival"
PUSHES_DOWN = "all"
_OWN = {"time", "at_risk", "events", "censored", "survival", "std_error", "lower", "upper"}
_OWN |= {"records", "expected", "median", "estimate"}
_CENSORED, _EVENTS = 0, 1


class Options(Lifetimes):
    """Options of survival."""

    group: tuple[str, ...] = Field(default=(), description="category columns: one curve per combination, and tests")
    strata: tuple[str, ...] = Field(default=(), description="category columns within which tests compare groups")
    level: float = Field(default=0.95, gt=0, lt=1, description="of confidence limits")
    restricted_to: float | None = Field(default=None, gt=0, description="also mean survival time up to this time")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    read = check(question.codebook, options, _by(options), numbers=2)
    clash = sorted({*options.group} & _OWN)
    if clash:
        raise UsageError(f"group: got {', '.join(clash)}; want columns not named like one of the result's own")
    if options.strata and not options.group:
        raise UsageError("strata: got some without group; want group columns: strata are for tests between groups")
    last = make_grid(question.codebook, options).ends[-1]
    if options.restricted_to is not None and options.restricted_to > last:
        raise UsageError(f"restricted_to: got {options.restricted_to:g}; want a time on the grid, {last:g} at most")
    if question.privacy:
        named = {"strata": options.strata, "entry": options.entry, "restricted_to": options.restricted_to}
        given = [name for name, value in named.items() if value]
        if given:
            raise UsageError(f"privacy: got {', '.join(given)}; want none: they have no differentially private form")
    return read


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("exits")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "exits":
        raise UsageError(f"survival: unknown ask: got {ask.name!r}; want exits")
    parts = counted(question.codebook, question.options, _by(question.options))
    if question.privacy:
        return parts
    return parts | {
        "records": Part(bound=1, integer=True, single=True, what=Counts(beside="count")),
        "count": Part(_shape(question), bound=1, integer=True, single=True, what=Counts(_by(question.options))),
    }


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    options, by = question.options, _by(question.options)
    complete = table.complete(columns(question))
    if not question.privacy:
        ordered(complete, options)
    rows = follow(complete, options, by)
    found = count(rows, question.codebook, options, by)
    if "count" not in parts(question, ask):
        return found
    records = np.array(table.aggregate(n=table.expr.count())["n"], np.int64)
    return found | {"count": found["exits"].sum((-2, -1)), "records": records}


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    options = question.options
    return Cells(by=_by(options), complete=(*times(options), options.event))


def coordinate(question: Question[Options]) -> Coordination:
    total = yield Ask("exits")
    options = question.options
    grid = make_grid(question.codebook, options)
    curves = list(_curves(question, np.array(grid.ends), total))
    groups = _groups(question)
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
        "events": int(total["exits"][..., _EVENTS].sum()),
        "intervals": len(grid),
    }
    return _result(question, tables, facts, notes)


def _result(
    question: Question[Options], tables: Mapping[str, Sequence[Row]], facts: Mapping[str, Scalar], notes: list[str]
) -> Result:
    by, leaving = question.options.group, ("events", "censored")
    limits = ("lower", "upper")
    basis = {
        "curve": Basis(by, ("time",), ("at_risk", *leaving), own=("survival", "std_error", *limits), flows=leaving),
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
        numbers=("missing", "events"),
        public=("intervals",),
    )


def _by(options: Options) -> tuple[str, ...]:
    return (*options.group, *options.strata)


def _shape(question: Question[Options]) -> tuple[int, ...]:
    return tuple(len(question.codebook.category(name).levels) for name in _by(question.options))


def _groups(question: Question[Options]) -> list[dict[str, Scalar]]:
    names = question.options.group
    levels = product(*(question.codebook.category(name).levels for name in names))
    return [dict(zip(names, codes, strict=True)) for codes in levels]


def _grouped(array: NDArray[np.float64], question: Question[Options]) -> NDArray[np.float64]:
    """(levels of groups and strata, ...) as (groups, strata, ...)."""
    shape, split = _shape(question), len(question.options.group)
    return array.reshape(math.prod(shape[:split]), math.prod(shape[split:]), *array.shape[len(shape) :])


def _curves(question: Question[Options], times: NDArray[np.float64], total: Total) -> Iterator[Curve]:
    level = question.options.level
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
