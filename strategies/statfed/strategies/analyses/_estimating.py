"""The coordinator's half of count, total, mean and ratio, and `estimated`, which joins it with the holder's half.

The latter and the sums are in `_estimates`."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Fixed, Part, Question, Total, fixed
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.table import Table
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _estimates
from statfed.strategies.analyses._estimates import Estimand, centre
from statfed.strategies.analyses._linearisation import Moments, check_lonely, degrees, moments, psus, variance
from statfed.strategies.analyses._records import most_used
from statfed.strategies.analyses._replication import (
    UNKNOWN,
    rank_cells,
    rank_parts,
    rank_sums,
    rank_weighs,
    replicate_degrees,
    replication,
)
from statfed.strategies.analyses._survey import ESTIMATE, Estimation, SurveyDesign, domains, estimate_row, survey_design

Floats = NDArray[np.float64]
T = TypeVar("T", bound=Estimation)


class Halves(NamedTuple):
    """The functions of an analysis, both halves; see `statfed.core.method.Method`."""

    columns: Callable[[Question[Any]], tuple[str, ...]]
    parts: Callable[[Question[Any], Ask], Mapping[str, Part]]
    contribute: Callable[[Table, Question[Any], Ask], Arrays]
    weighs: Callable[[Table, Question[Any], Ask], Iterable[Weighed]]
    discloses: Callable[[Question[Any], Ask], Cells]
    budget: Callable[[Question[Any]], Fixed]
    coordinate: Callable[[Question[Any]], Coordination]


def estimated(estimand: Callable[[Question[T]], Estimand], title: str) -> Halves:
    """The functions of an analysis that estimates what `estimand` makes of a question. title: of its result."""

    def parts(question: Question[Any], ask: Ask) -> Mapping[str, Part]:
        design = survey_design(question)
        return (
            rank_parts(question, design) if _ranks(ask, design) else _estimates.parts(question, estimand(question), ask)
        )

    def contribute(table: Table, question: Question[Any], ask: Ask) -> Arrays:
        design = survey_design(question)
        if _ranks(ask, design):
            return rank_sums(design.sample(table), design)
        return _estimates.contribute(table, question, estimand(question), ask)

    def weighs(table: Table, question: Question[Any], ask: Ask) -> Iterable[Weighed]:
        design = survey_design(question)
        if _ranks(ask, design):
            return rank_weighs(design.sample(table), design)
        return _estimates.weighs(table, question, estimand(question), ask)

    def discloses(question: Question[Any], ask: Ask) -> Cells:
        design = survey_design(question)
        return rank_cells(design) if _ranks(ask, design) else _estimates.discloses(question, estimand(question), ask)

    return Halves(
        columns=lambda question: _estimates.checked_columns(question, estimand(question)),
        parts=parts,
        contribute=contribute,
        weighs=weighs,
        discloses=discloses,
        budget=lambda _: fixed("noisy"),
        coordinate=lambda question: coordinate(question, estimand(question), title),
    )


def _ranks(ask: Ask, design: SurveyDesign) -> bool:
    """Is it the ask for the rank of replicate weights?"""
    return ask.name == "rank" and bool(design.replicates)


@dataclass(frozen=True)
class Estimates:
    """Arrays (measures, domains): unweighted counts, estimates, variances, design effects; NaN where unknown.

    n: records of the sample, noisy under privacy.
    """

    count: NDArray[np.int64]
    value: Floats
    variance: Floats
    deff: Floats | None
    n: int
    df: float | None


def coordinate(question: Question[Any], estimand: Estimand, title: str) -> Coordination:
    """Estimates in every domain, with their standard errors."""
    if question.privacy:
        noisy = yield Ask("noisy")
        found = _private(question, estimand, noisy)
        notes: tuple[str, ...] = (
            "standard errors include the privacy noise (delta method); sampling variances are themselves noisy and at "
            "least 0; estimates and limits are brought into the range that the codebook allows",
        )
        return _result(question, estimand, title, found, {"observations": found.n}, notes)
    first = yield Ask("sums")
    design, n, left_out = survey_design(question), int(first["records"]), int(first["left_out"])
    y, x = first["y"], first["x"]
    mu = _divided(y.sum(axis=1), x.sum(axis=1), 0.0)
    scale, fpc = _scales(question, estimand, n)
    value = scale * y if estimand.kind == "total" else _divided(y, x)
    used = most_used(first["count"])
    facts: dict[str, Scalar] = {"observations": used, "missing": n - used, "left_out": left_out}
    notes = (f"{left_out} records miss a weight or a variable of the design: left out",) if left_out else ()
    deff = None
    if design.replicates:
        again = yield Ask("replicates", {"centre": mu})
        method = replication(question.codebook)
        totals = again["y"] + mu[:, None, None] * again["x"]
        each = scale * totals if estimand.kind == "total" else _divided(again["y"], again["x"]) + mu[:, None, None]
        spread = np.moveaxis(each, 1, 0)
        squared = method.variance(spread)
        df: float | None = yield from replicate_degrees(question)
        notes = notes if df else (*notes, UNKNOWN)
        facts["replicates"] = len(design.replicates)
        if np.isnan(squared[~np.isnan(value)]).any():
            notes = (*notes, "a domain is empty under a replicate weight: no standard error there")
    else:
        second = yield Ask("squares", {"centre": mu})
        units = psus(design, second["psus"])
        check_lonely(design, units)
        df = degrees(units)
        around = _around(estimand, design, second)
        a, b = _linear(estimand, value, x, mu, scale)
        squared = fpc * variance(units, moments(around, design.spans), a, b, design.lonely)
        if not design.declared and n < 2:
            squared = np.full(squared.shape, np.nan)
        if design.declared:
            facts |= {"psus": int(units.sum()), "strata": int((units > 0).sum())}
        if estimand.kind == "ratio" and estimand.key == "mean" and (design.weight or design.declared):
            deff = _deff(squared, second, first["count"], value, x, mu, design.spans)
    found = Estimates(first["count"], value, squared, deff, n, df)
    return _result(question, estimand, title, found, facts, notes)


def _around(estimand: Estimand, design: SurveyDesign, second: Total) -> Mapping[str, NDArray[Any]]:
    """Sums of Y - mu X and X over PSUs. Of numbers of records mu is 1: Y - X is 0, and X a record's own square."""
    if not estimand.plain(design):
        return second
    x = second["x"]
    return {"x": x, "xx": second.get("xx", x)} | dict.fromkeys(("y", "yy", "yx"), np.zeros(x.shape))


def _scales(question: Question[Any], estimand: Estimand, n: int) -> tuple[float, float]:
    """What totals are multiplied with, and the finite population correction of variances."""
    population, design = question.options.population, survey_design(question)
    if population is None:
        return 1.0, 1.0
    if n > population:
        raise UsageError(f"population: got {population:g} with {n} records in the sample; want at least as many units")
    expand = population / n if design.weight is None and not design.declared and n else 1.0
    fpc = 1 - n / population if design.simple else 1.0
    return expand / (population if estimand.per_unit else 1.0), fpc


def _linear(estimand: Estimand, value: Floats, x: Floats, mu: Floats, scale: float) -> tuple[Floats, Floats]:
    """a and b with which a (Y - mu X) + b X is the linearised value."""
    if estimand.kind == "total":
        return np.full(value.shape, scale), np.broadcast_to(scale * mu[:, None], value.shape)
    a = _divided(np.ones(x.shape), x)
    return a, a * (mu[:, None] - value)


def _deff(
    squared: Floats,
    total: Mapping[str, Any],
    count: NDArray[np.int64],
    value: Floats,
    x: Floats,
    mu: Floats,
    spans: bool,
) -> Floats:
    """Variance over that of a simple random sample of as many records, drawn with replacement."""
    y = moments(total, spans).y.sum(axis=1)
    shift = mu[:, None] - value
    around = total["spread"] + 2 * shift * y + shift**2 * x
    simple = _divided(_divided(around, x), np.maximum(count - 1.0, 0.0))
    return _divided(squared, simple)


def _private(question: Question[Any], estimand: Estimand, total: Total) -> Estimates:
    """Estimates from the one noisy ask; their variances are sampling variance plus noise variance."""
    design, mu, noise = survey_design(question), centre(question, estimand), total.noise
    count, zero = total["count"], np.zeros(total["count"].shape)
    plain = estimand.unit_x(design)
    x = count.astype(np.float64) if plain else total["x"]
    noise_x = noise["count"] if plain else noise["x"]
    y, noise_y = (zero, zero) if estimand.counts else (total["y"], noise["y"])
    xx = x if plain else total["xx"]
    yy = zero if estimand.counts else total["yy"]
    yx = zero if estimand.counts else y if plain else total["yx"]
    n = max(int(total["records"]), 2)
    scale, fpc = _scales_noisy(question, estimand, n)
    if estimand.kind == "total":
        value = scale * (y + mu[:, None] * x)
        noisy = scale**2 * (noise_y**2 + (mu[:, None] * noise_x) ** 2)
        if question.options.population is not None and design.weight is None:
            noisy = noisy + (value / n * noise["records"]) ** 2
    else:
        x = np.where(x > 2 * noise_x, x, np.nan)
        value = mu[:, None] + y / x
        noisy = (noise_y**2 + ((value - mu[:, None]) * noise_x) ** 2) / x**2
    a, b = _linear(estimand, value, x, mu, scale)
    pooled = Moments(*(array[:, None, :] for array in (y, x, yy, yx, xx)))
    sampling = fpc * variance(np.array([float(n)]), pooled, a, b, "refuse")
    return Estimates(count, value, sampling + noisy, None, n, None)


def _scales_noisy(question: Question[Any], estimand: Estimand, n: int) -> tuple[float, float]:
    population = question.options.population
    return _scales(question, estimand, n if population is None else min(n, math.floor(population)))


def _result(
    question: Question[Any],
    estimand: Estimand,
    title: str,
    found: Estimates,
    facts: Mapping[str, Scalar],
    notes: tuple[str, ...],
) -> Result:
    rows: list[Row] = []
    by = question.options.by
    for i, measure in enumerate(estimand.measures):
        allowed = _allowed(question, estimand, i)
        for j, domain in enumerate(domains(question.codebook, by)):
            value, squared = _known(found.value[i, j]), _known(found.variance[i, j])
            nothing = not question.privacy and found.n == 0
            row = estimate_row(
                {**measure.keys, **domain}, None if nothing else value, squared, df=found.df, allowed=allowed
            )
            row[estimand.key] = row["estimate"]
            row["count"] = max(0, int(found.count[i, j]))
            if found.deff is not None:
                row["deff"] = _known(found.deff[i, j])
            rows.append(row)
    own = (*ESTIMATE, *(("deff",) if found.deff is not None else ()))
    basis = Basis(by, tuple(estimand.measures[0].keys), ("count",), own=(*own, estimand.key))
    return Result(
        question.terms.method,
        title,
        {"estimates": rows},
        facts,
        notes,
        by,
        found.df,
        basis={"estimates": basis},
        observations="observations",
        numbers=("missing", "left_out"),
        public=("replicates",),
    )


def _allowed(question: Question[Any], estimand: Estimand, i: int) -> tuple[float, float]:
    """Range of an estimate under privacy; without it, any number."""
    if not question.privacy:
        return -math.inf, math.inf
    measure = estimand.measures[i]
    if measure.numerator is None:
        return 0.0, math.inf
    if measure.denominator is not None:
        return -math.inf, math.inf
    low, high = question.codebook.columns[measure.numerator].bounds or (-math.inf, math.inf)
    if estimand.kind == "ratio":
        return low, high
    return (0.0 if low >= 0 else -math.inf), (0.0 if high <= 0 else math.inf)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _divided(a: Floats, b: Floats, otherwise: float = math.nan) -> Floats:
    """a / b, `otherwise` where b is 0."""
    out = np.full(np.broadcast_shapes(a.shape, b.shape), otherwise)
    quotient: Floats = np.divide(a, b, out=out, where=b != 0)
    return quotient
