"""`cox`: proportional hazards regression on an agreed time grid, by Newton's method on protected sums.

Risk sets are sums of what left in one interval, added up from the last interval backwards by the coordinator: for each
interval and stratum, the sums of exp(x'b), x exp(x'b) and xx' exp(x'b) over the records that left without and with an
event. A contribution has 2 T (1 + p + p (p + 1) / 2) numbers of 8 bytes for T intervals, p covariates: constant memory
in the records, 200 intervals and 10 covariates make 211 kB in every iteration. Covariates are centred at their pooled
means; see `_lifetimes` for the grid, `_partial_likelihood` for ties and the maximum.

Who sees such a sum of one holder in the clear can read a record's covariates from an interval that one record alone
left: want a protection that shows sums over holders only, or a grid that is wide enough. Every contribution has the
numbers of records in its intervals, `exits` and `entered`, so that a holder's minimum frequency can be applied to them.

With `design` records have the codebook's weights, scaled to mean 1, and standard errors are design-based, as R's
svycoxph: one more ask, `spread`, brings the totals of the scores at the fit by PSU (see `_cox_design`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import add
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Coordination,
    Counts,
    Magnitude,
    Model,
    Part,
    Product,
    Question,
    Total,
    once,
)
from statfed.core.result import Basis, Coefficients, Result, Row, Scalar
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Rows, Weighed, owners
from statfed.strategies.analyses._cox_design import figures, score_sums, score_weigh
from statfed.strategies.analyses._design_totals import spread_of, totals_parts
from statfed.strategies.analyses._design_units import weight_of
from statfed.strategies.analyses._glm_search import course
from statfed.strategies.analyses._lifetimes import (
    Grid,
    Lifetimes,
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
    tally,
)
from statfed.strategies.analyses._linearisation import psu_shape
from statfed.strategies.analyses._matrix import INTERCEPT, Design, make_design
from statfed.strategies.analyses._partial_likelihood import (
    HALVINGS,
    Evaluation,
    Fit,
    Likelihood,
    Ties,
    identified,
    likelihood,
    maximise,
    packed,
)
from statfed.strategies.analyses._survey import largest, limited, survey_design
from statfed.strategies.analyses._weighing import of_design, spanned

TITLE = "Cox proportional hazards regression on an agreed time grid"
GROUP = "Survival"
PUSHES_DOWN = "all but the scores of a design, whose records embedded DuckDB streams"
_MOMENTS = {"exits": "leaving", "entered": "entering"}  # parts with the moments of the records that parts count
_RATIO = ("hazard_ratio", "hazard_ratio_lower", "hazard_ratio_upper")
_OWN = ("estimate", "std_error", "z", "p_value", "lower", "upper", *_RATIO, "mean")
STEEPEST = 300.0  # largest |x'b| around the mean: exp of it is far from the ends of float64


class Options(Lifetimes):
    """Options of cox."""

    covariates: str = Field(min_length=1, description="terms of an R-style formula, such as 'age + C(sex)'")
    strata: tuple[str, ...] = Field(default=(), description="category columns with a baseline hazard for each level")
    ties: Ties = Field(default="efron", description="how events in the same interval are treated")
    level: float = Field(default=0.95, gt=0, lt=1, description="of confidence limits")
    design: bool = Field(
        default=False, description="weights, strata and PSUs of the codebook; design-based standard errors"
    )
    max_iterations: int = Field(default=30, ge=1, le=1000)
    tolerance: float = Field(default=1e-9, gt=0, lt=1e-3, description="distance to the maximum, in standard errors")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    design = _design(question)
    sets = 2 if options.entry is None else 3
    read = check(question.codebook, options, options.strata, numbers=sets * packed(len(design.names)))
    clash = sorted({*options.strata} & {"time", "at_risk", "events", "cumulative_hazard", "survival"})
    if clash:
        raise UsageError(f"strata: got {', '.join(clash)}; want columns not named like one of the result's own")
    survey = survey_design(question)
    if survey.replicates:
        raise UsageError(
            "design: got replicate weights; want a codebook with strata and PSUs in their place, for which cox has "
            "standard errors, or survival, which has them under replicate weights"
        )
    limited(len(design.names) ** 2 * max(psu_shape(survey, question.codebook)), "parameters x strata x PSUs")
    return tuple(dict.fromkeys((*read, *design.columns, *survey.columns)))


@once
def _whole(question: Question[Options]) -> Design:
    """The design of the covariates, every level in use."""
    return make_design(question.options.covariates, question.codebook, response="none")


def _design(question: Question[Options], used: NDArray[np.int64] | None = None) -> Design:
    """Covariates without the intercept, whose place the baseline hazard takes. used: 1 for levels that occur."""
    text = question.options.covariates
    whole = _whole(question)
    if used is not None:
        start, kept = 0, {}
        for name, levels in whole.categories.items():
            mask = used[start : start + len(levels)]
            kept[name] = tuple(level for level, one in zip(levels, mask, strict=True) if one)
            start += len(levels)
        whole = make_design(text, question.codebook, kept, response="none")
    if INTERCEPT not in whole.names:
        raise UsageError(f"covariates: got {text!r} without intercept; want it left in: the baseline takes its place")
    if len(whole.names) == 1 and used is None:
        raise UsageError(f"covariates: got {text!r}; want one term or more")
    return whole.without_intercept()


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    counts = counted(question.codebook, question.options, question.options.strata)
    scalar = Part(bound=1, integer=True, single=True, what=Counts())
    if ask.name == "counts":
        design = _design(question)
        by, ones = Counts(tuple(design.categories)), design.indicator
        records = Part(bound=1, integer=True, single=True, what=Counts(beside="exits"))
        found = counts | {"records": records, "undefined": scalar} | not_followed_part(question.options)
        if question.options.design:
            found["left_out"] = Part(bound=1, integer=True, single=True, what=Counts(beside="left_out"))
        found["levels"] = Part((sum(map(len, design.categories.values())),), bound=1, integer=True, what=by)
        found["indicators"] = Part((int(ones.sum()),), bound=1, integer=True, what=by)
        if not ones.all():
            bound = np.abs(design.bounds[~ones]).max(1)
            found["sums"] = Part(bound.shape, bound=bound, what=Magnitude())
        return found
    if ask.name == "spread" and question.options.design:
        _, _, beta = _asked(question, ask)
        figures(ask, (math.prod(_shape(question)), len(make_grid(question.codebook, question.options)), len(beta)))
        bounds = np.full((1, len(beta)), np.inf)
        return totals_parts(survey_design(question), question.codebook, bounds, Product())
    if ask.name == "moments":
        design, center, beta = _asked(question, ask)
        reach = np.abs(design.bounds - center[:, None]).max(1)
        steep = math.exp(min(STEEPEST, float(_product(np.abs(beta), reach).sum())))
        pairs = _product(reach[:, None], reach)[np.triu_indices(len(beta))]
        one = _product(
            np.array(largest(question.codebook, survey_design(question).weight)),
            steep * np.concatenate([[1.0], reach, pairs]),
        )
        shapes = {_MOMENTS[name]: (*part.shape, len(one)) for name, part in counts.items()}
        moments = {
            name: Part(shape, bound=np.broadcast_to(one, shape), what=Product()) for name, shape in shapes.items()
        }
        return counts | moments | {"beyond": scalar}
    raise UsageError(f"cox: unknown ask: got {ask.name!r}; want counts, moments or, with design, spread")


def _product(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where a factor is 0, also beside an unknown, infinite bound."""
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(a * b, nan=0.0, posinf=math.inf)


def _asked(question: Question[Options], ask: Ask) -> tuple[Design, NDArray[np.float64], NDArray[np.float64]]:
    used, whole = np.asarray(ask.arrays["used"]), _design(question)
    if used.shape != (sum(map(len, whole.categories.values())),):
        raise UsageError(f"cox: got used {used.shape}; want one number for every level of every category")
    design = _design(question, used)
    center, beta = (np.asarray(ask.arrays[name], np.float64) for name in ("center", "beta"))
    if center.shape != (len(design.names),) or beta.shape != center.shape:
        raise UsageError(f"cox: got center {center.shape}, beta {beta.shape}; want ({len(design.names)},)")
    return design, center, beta


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    options, codebook = question.options, question.codebook
    complete, survey = table.complete(columns(question)), survey_design(question)
    if ask.name == "counts":
        ordered(complete, options)
        design = _design(question)
        values = {f"x{k}": x for k, x in enumerate(design.expressions(complete))}
        rows = follow(complete, options, options.strata, **values)
        levels = [_levels(complete, options, name) for name in design.categories]
        sums = Table(rows, codebook).aggregate(**{name: rows[name].sum() for name in values})
        defined = complete.aggregate(n=complete.expr.count(), defined=design.defined(complete))
        numbers = np.array([sums[name] for name in values], np.float64)
        found = {
            **count(rows, codebook, options, options.strata),
            "records": np.array(table.aggregate(n=table.expr.count())["n"], np.int64),
            "undefined": np.array(defined["n"] - defined["defined"], np.int64),
            "levels": np.concatenate([np.zeros(0, np.int64), *levels]).astype(np.int64),
            "indicators": np.rint(numbers[design.indicator]).astype(np.int64),
        }
        unfollowed = not_followed(complete, options, found["exits"])
        if options.design:
            sample = survey.sample(table)
            of_sample = np.array(sample.aggregate(n=sample.expr.count())["n"], np.int64)
            found |= {"left_out": found["records"] - of_sample, "records": of_sample}
        if unfollowed:
            found |= {**unfollowed, "records": found["records"] - unfollowed["not_followed"]}
        return found if design.indicator.all() else found | {"sums": numbers[~design.indicator]}
    design, center, beta = _asked(question, ask)
    centred = [x - real(float(c)) for x, c in zip(design.expressions(complete), center, strict=True)]
    if ask.name == "spread":
        return score_sums(survey.sample(table), complete, survey, options, options.strata, centred, ask)
    named = {f"z{k}": x for k, x in enumerate(centred)}
    rows = follow(complete, options, options.strata, **named, dw=weight_of(complete, survey))
    rows, moments = _weighted(rows, beta)
    size = len(make_grid(codebook, options))
    leaving = tally(rows, codebook, options.strata, {"exit": size, "event": 2}, moments)
    beyond = np.array(leaving[..., -2].sum(), np.int64)
    found = {"exits": leaving[..., -1].astype(np.int64), "leaving": leaving[..., :-2], "beyond": beyond}
    if options.entry is not None:
        entering = tally(rows, codebook, options.strata, {"enter": size}, moments)
        found |= {"entered": entering[..., -1].astype(np.int64), "entering": entering[..., :-2]}
    return found


def functions_used(question: Question[Options]) -> frozenset[str]:
    return _whole(question).functions


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    return spanned(table, _whole(question))


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    """The covariates of all records as a design, and at given coefficients what each record adds to an interval."""
    options = question.options
    complete = table.complete(columns(question))
    if ask.name == "counts":
        yield from of_design(complete, _whole(question))
        return
    design, center, beta = _asked(question, ask)
    expressions = zip(design.expressions(complete), center, strict=True)
    survey = survey_design(question)
    if ask.name == "spread":
        z = [x - real(float(c)) for x, c in expressions]
        yield from score_weigh(complete, survey, options, options.strata, z, ask)
        return
    owner = {name: complete.expr[name] for name in owners(table.codebook)}
    own = {f"whose{i}": column for i, column in enumerate(owner.values())}
    centred = {f"z{k}": x - real(float(c)) for k, (x, c) in enumerate(expressions)}
    weight = {"dw": weight_of(complete, survey)}
    rows, _ = _weighted(follow(complete, options, options.strata, **own, **centred, **weight), beta)
    rows = rows.rename({name: f"whose{i}" for i, name in enumerate(owner)})
    z, w = [rows[name] for name in centred], rows["w"]
    followed = Table(rows, table.codebook, table.embedded)
    yield Rows(followed, tuple(w.sqrt() * x for x in (real(1.0), *z)), counting=True)
    amounts = (w, *(w * x for x in z), *(w * x * x for x in z))
    strata = tuple(rows[f"level_{i}"] for i in range(len(options.strata)))
    yield Amounts(followed, amounts, (*strata, rows["exit"], rows["event"]))
    if options.entry is not None:
        yield Amounts(followed, amounts, (*strata, rows["enter"]))


def _levels(complete: Table, options: Options, name: str) -> NDArray[np.int64]:
    rows = follow(complete, options, [name])
    return tally(rows, complete.codebook, [name], {}, [rows.count()])[:, 0]


def _weighted(rows: Expr, beta: NDArray[np.float64]) -> tuple[Expr, list[Expr]]:
    """Records with weight w = dw exp(z'b), and the aggregates: packed moments, records that are too steep, records."""
    p = len(beta)
    rows = rows.mutate(steep=reduce(add, [rows[f"z{k}"] * float(beta[k]) for k in range(p)]))
    rows = rows.mutate(w=rows["steep"].clip(-STEEPEST, STEEPEST).exp() * rows["dw"])
    rows = rows.mutate(**{f"w{k}": rows["w"] * rows[f"z{k}"] for k in range(p)})
    values = [rows["w"].sum(), *(rows[f"w{k}"].sum() for k in range(p))]
    values += [(rows[f"w{k}"] * rows[f"z{m}"]).sum() for k in range(p) for m in range(k, p)]
    return rows, [*values, (rows["steep"].abs() > STEEPEST).ifelse(1, 0).sum(), rows.count()]


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:
    most = {"moments": question.options.max_iterations + HALVINGS, "spread": int(question.options.design)}
    kept = {name: ask.arrays[name] for name in ask.arrays if name not in ("rates", "means")}
    return course(before, Ask(ask.name, kept), most)


def discloses(question: Question[Options], ask: Ask) -> Cells | Model:
    options = question.options
    if ask.name == "counts":
        numbers = dict.fromkeys(name for number in _design(question).numbers for name in number.columns)
        return Cells(options.strata, tuple(numbers), columns(question))
    return Model(parameters=len(_design(question).names), complete=columns(question))


def coordinate(question: Question[Options]) -> Coordination:
    options = question.options
    first = yield Ask("counts")
    observations, deaths = int(first["exits"].sum()), _by_stratum(first["exits"], question)[..., 1]
    _enough(int(first["undefined"]), observations, int(deaths.sum()))
    used = (first["levels"] > 0).astype(np.int64)
    design = _design(question, used)
    if not design.names:
        raise UsageError(f"covariates: {options.covariates}: got records at one level only; want terms that vary")
    means = _means(_design(question), first, observations)
    center = np.array([means.get(name, 0.0) for name in design.names])
    covered, events, scale = np.zeros(len(center)), np.zeros(deaths.shape), 1.0

    def evaluate(beta: NDArray[np.float64]) -> Evaluation:
        total = yield Ask("moments", {"used": used, "center": center, "beta": beta})
        if int(total["beyond"]):
            return None
        nonlocal scale
        leaving = _by_stratum(total["leaving"], question)
        if not beta.any():  # then weights are those of the design, and sums over the events those of their covariates
            scale = _scale(leaving, observations) if options.design else 1.0
            covered[:] = scale * leaving[:, :, 1, 1 : len(beta) + 1].sum((0, 1))
            events[:] = scale * leaving[:, :, 1, 0]
        entering = scale * _by_stratum(total["entering"], question) if "entering" in total else None
        weights = events if options.design else None
        return likelihood(beta, scale * leaving, entering, deaths, covered, options.ties, weights)

    null = cast(Likelihood, (yield from evaluate(np.zeros(len(center)))))
    identified(design.names, null, center)
    fit = yield from maximise(design.names, null, evaluate, options.max_iterations, options.tolerance)
    if not options.design:
        return _result(question, design, center, fit, first, deaths)
    best = fit.best
    arrays = {"used": used, "center": center, "beta": best.beta, "rates": best.rates, "means": best.means}
    found = spread_of(question.codebook, survey_design(question), (yield Ask("spread", arrays)))
    df = found.df or 0
    if found.linear is None or df < len(center):
        raise UsageError(f"design: got {df:g} degrees of freedom for {len(center)} parameters; want more PSUs")
    covariance = scale**2 * fit.covariance @ found.linear[0] @ fit.covariance
    return _result(question, design, center, replace(fit, covariance=covariance), first, deaths, found.facts)


def _scale(leaving: NDArray[np.float64], observations: int) -> float:
    """What brings design weights to mean 1. leaving: moments at beta = 0. Raises UsageError on weights below 0."""
    weights = leaving[..., 0]
    if (weights < 0).any() or not weights.any():
        raise UsageError("weight: got totals that are 0 or negative; want weights above 0")
    return observations / float(weights.sum())


def _means(design: Design, first: Total, observations: int) -> dict[str, float]:
    """Mean of every covariate."""
    sums = np.zeros(len(design.names))
    sums[design.indicator] = first["indicators"]
    if "sums" in first:
        sums[~design.indicator] = first["sums"]
    return dict(zip(design.names, sums / observations, strict=True))


def _enough(undefined: int, observations: int, events: int) -> None:
    if undefined:
        raise UsageError(
            f"covariates: got {undefined} records at which a term has no finite value; want a formula that is defined "
            "for all of them, or a condition that leaves them out"
        )
    if not observations:
        raise UsageError("cox: got no complete records; want some")
    if not events:
        raise UsageError(f"cox: got no events in {observations} records; want some")


def _shape(question: Question[Options]) -> tuple[int, ...]:
    return tuple(len(question.codebook.category(name).levels) for name in question.options.strata)


def _by_stratum(array: NDArray[Any], question: Question[Options]) -> NDArray[Any]:
    """(levels of strata, T, ...) as (strata, T, ...)."""
    return array.reshape(-1, *array.shape[len(question.options.strata) :])


def _result(
    question: Question[Options],
    design: Design,
    center: NDArray[np.float64],
    fit: Fit,
    first: Total,
    deaths: NDArray[np.int64],
    of_design: Mapping[str, int] | None = None,
) -> Result:
    options, grid = question.options, make_grid(question.codebook, question.options)
    quantile = float(stats.norm.ppf((1 + options.level) / 2))
    rows: list[Row] = []
    for name, value, variance, mean in zip(design.names, fit.best.beta, np.diag(fit.covariance), center, strict=True):
        error = math.sqrt(variance)
        lower, upper = value - quantile * error, value + quantile * error
        rows.append(
            {
                "name": name,
                "estimate": float(value),
                "std_error": error,
                "z": float(value / error),
                "p_value": float(2 * stats.norm.sf(abs(value / error))),
                "lower": float(lower),
                "upper": float(upper),
                "hazard_ratio": _ratio(value),
                "hazard_ratio_lower": _ratio(lower),
                "hazard_ratio_upper": _ratio(upper),
                "mean": float(mean),
            }
        )
    observations, left = int(first["exits"].sum()), first["exits"].sum(-1)
    facts: dict[str, Scalar] = {
        "observations": observations,
        "missing": int(first["records"]) - observations,
        **left_out_of(first),
        "events": int(deaths.sum()),
        "intervals": len(grid),
        "ties": options.ties,
        "log_likelihood": fit.best.value,
        "null_log_likelihood": fit.null.value,
        "aic": 2 * len(center) - 2 * fit.best.value,
        "iterations": fit.iterations,
        "concordance": None,
    }
    if of_design is not None:  # of weights there is no likelihood to compare models by
        facts |= {"log_likelihood": None, "null_log_likelihood": None, "aic": None, **of_design}
    tables: dict[str, Sequence[Row]] = {
        "coefficients": rows,
        "tests": _tests(fit) if of_design is None else _wald(fit),
        "baseline": _baseline(question, grid, fit, _by_stratum(left, question), deaths),
    }
    return Result(
        "cox",
        "Cox proportional hazards regression",
        tables,
        facts,
        (*_notes(design, question, grid, fit), *not_followed_notes(options, first)),
        by=options.strata,
        basis={
            "coefficients": Basis(keys=("name",), observations=True, own=_OWN, kind=Coefficients()),
            "tests": Basis(keys=("name",), observations=True, own=("chi_square", "df", "p_value")),
            "baseline": Basis(
                options.strata, ("time",), ("events",), own=("cumulative_hazard", "survival"), flows=("events",)
            ),
        },
        observations="observations",
        numbers=("missing", *(name for name in ("left_out",) if name in facts), "events"),
        public=("intervals", "ties", "concordance", *(of_design or {})),
    )


def _notes(design: Design, question: Question[Options], grid: Grid, fit: Fit) -> list[str]:
    notes = [
        grid.note(),
        *(
            ["Standard errors are design-based; the Wald test alone has such a form."]
            if question.options.design
            else []
        ),
        "The baseline is Breslow's estimate at the means of the covariates (column mean).",
        "Concordance is not available: it compares pairs of records of different holders.",
    ]
    for name, levels in design.categories.items():
        absent = [level for level in question.codebook.category(name).levels if level not in levels]
        if absent:
            notes.append(f"{name}: no records, and so no coefficients, at {', '.join(absent)}.")
    if fit.reached > question.options.tolerance:
        notes.append(
            f"The maximum is {fit.reached:.1e} standard errors away: the sums are not precise enough for more."
        )
    return notes


def _tests(fit: Fit) -> list[Row]:
    """Tests of all coefficients being 0."""
    beta, df = fit.best.beta, len(fit.best.beta)
    scores = {
        "likelihood ratio": 2 * (fit.best.value - fit.null.value),
        "Wald": float(beta @ fit.best.information @ beta),
        "score": float(fit.null.score @ np.linalg.solve(fit.null.information, fit.null.score)),
    }
    return [
        {"name": name, "chi_square": max(value, 0.0), "df": df, "p_value": float(stats.chi2.sf(max(value, 0.0), df))}
        for name, value in scores.items()
    ]


def _wald(fit: Fit) -> list[Row]:
    """The test of all coefficients being 0 by their covariance under the design; others have no such form."""
    beta, df = fit.best.beta, len(fit.best.beta)
    value = float(beta @ np.linalg.solve(fit.covariance, beta))
    return [{"name": "Wald", "chi_square": value, "df": df, "p_value": float(stats.chi2.sf(value, df))}]


def _baseline(
    question: Question[Options], grid: Grid, fit: Fit, left: NDArray[np.int64], deaths: NDArray[np.int64]
) -> list[Row]:
    """Breslow's cumulative hazard at the covariates' means, by stratum, at the grid times at which records left."""
    names, risk = question.options.strata, fit.best.risk
    hazard = np.cumsum(
        np.divide(fit.best.events, risk, out=np.zeros(risk.shape), where=(deaths > 0) & (risk > 0)), axis=1
    )
    rows: list[Row] = []
    for s, codes in enumerate(product(*(question.codebook.category(name).levels for name in names))):
        for j in np.flatnonzero(left[s]):
            rows.append(
                {
                    **dict(zip(names, codes, strict=True)),
                    "time": grid.ends[j],
                    "events": int(deaths[s, j]),
                    "cumulative_hazard": float(hazard[s, j]),
                    "survival": math.exp(-hazard[s, j]),
                }
            )
    return rows


def _ratio(value: float) -> float | None:
    """exp, None beyond the range of numbers."""
    return math.exp(value) if value < 700 else None
