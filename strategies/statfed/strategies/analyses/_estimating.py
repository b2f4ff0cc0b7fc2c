"""The coordinator's half of count, total, mean and ratio, and `estimated`, which joins it with the holder's half.

The latter and the sums are in `_estimates`."""

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Fixed, Part, Question, Total, fixed
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.table import Table
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _centred, _estimates
from statfed.strategies.analyses._divided import Form, positive, read
from statfed.strategies.analyses._estimates import Estimand
from statfed.strategies.analyses._linearisation import (
    Moments,
    check_lonely,
    degrees,
    moments,
    psus,
    spanning_variance,
    variance,
)
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
LOST = 1e-10
"""Of the squares that a variance is a difference of: below it no digits are left."""


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
        x_each = again["x"] - again["x"].mean(axis=1, keepdims=True)  # replicates are compared with each other only
        totals = again["y"] + mu[:, None, None] * x_each
        each = scale * totals if estimand.kind == "total" else _divided(again["y"], again["x"])
        spread = np.moveaxis(each, 1, 0)
        squared = method.variance(spread)
        df: float | None = yield from replicate_degrees(question)
        notes = notes if df else (*notes, UNKNOWN)
        facts["replicates"] = len(design.replicates)
        if np.isnan(squared[~np.isnan(value)]).any():
            notes = (*notes, "a domain is empty under a replicate weight: no standard error there")
    else:
        second = yield Ask("squares", {"centre": mu})
        units = np.array([float(n)]) if design.simple else psus(design, second["psus"])
        check_lonely(design, units)
        df = degrees(units)
        a, b = _linear(estimand, value, x, mu, scale)
        squared = yield from _spread(estimand, design, second, units, (a, b, mu))
        squared = fpc * squared
        if not design.declared and n < 2:
            squared = np.full(squared.shape, np.nan)
        if design.declared:
            facts |= {"psus": int(units.sum()), "strata": int((units > 0).sum())}
        if estimand.kind == "ratio" and estimand.key == "mean" and (design.weight or design.declared):
            deff = _deff(squared, second, first["count"], value, x, mu, design.spans)
    found = Estimates(first["count"], value, squared, deff, n, df)
    return _result(question, estimand, title, found, facts, notes)


def _spread(
    estimand: Estimand, design: SurveyDesign, second: Total, units: Floats, linear: tuple[Floats, Floats, Floats]
) -> Generator[Ask, Total, Floats]:
    """Variances of a (Y - mu X) + b X, with a second look where the first has lost their digits. linear: a, b, mu."""
    a, b, mu = linear
    around = _around(estimand, design, second)
    if design.spans:
        return spanning_variance(second["psus"], around["y"], around["x"], a, b, design.lonely)
    found = moments(around, design.spans)
    squared = variance(units, found, a, b, design.lonely)
    exact = estimand.unit_x(design)
    if estimand.plain(design) or not _centred.cancelled(units, found, a, b, squared, design.lonely, exact_x=exact):
        return squared
    if found.x[0].size > _centred.MOST:
        return np.where(squared > LOST * _centred.squares(units, found, a, b, design.lonely), squared, np.nan)
    about = _centred.centre_of(units, found, mu)
    third = yield Ask(_centred.ASK, about.arrays)
    return _centred.variance(units, third, about, a, b, mu, design.lonely)


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
    forms = _estimates.noisy_forms(question, estimand)
    if forms:
        return _of_amounts(question, estimand, forms, total)
    count, noise = total["count"], total.noise["count"]
    n, of_all = max(int(total.get("records", count.sum())), 2), float(total.noise.get("records", noise).max())
    scale, fpc = _scales_noisy(question, estimand, n)
    value = scale * count.astype(np.float64)
    noisy = scale**2 * noise**2
    if question.options.population is not None:
        noisy = noisy + (value / n * of_all) ** 2
    a, b = _linear(estimand, value, value, np.ones(1), scale)
    x, zero = count[:, None, :].astype(np.float64), np.zeros((len(count), 1, count.shape[1]))
    sampling = fpc * variance(np.array([float(n)]), Moments(zero, x, zero, zero, x), a, b, "refuse")
    return Estimates(count, value, sampling + noisy, None, n, None)


def _of_amounts(question: Question[Any], estimand: Estimand, forms: Sequence[Form], total: Total) -> Estimates:
    """Estimates from sums of amounts; the number of records is taken from all measures."""
    size = len(domains(question.codebook, question.options.by))
    found = [read(form, total, total.noise, size, f"_{i}") for i, form in enumerate(forms)]
    n = max(math.floor(np.mean([sums.records for sums in found])), 2)
    of_all = found[0].records_noise / math.sqrt(len(found))
    scale, fpc = _scales_noisy(question, estimand, n)
    values, variances = [], []
    for sums in found:
        mu = np.array([sums.mu])
        if estimand.kind == "total":
            x = sums.x[None]
            value = scale * sums.total[None]
            noisy = scale**2 * sums.variance(1.0, sums.form.low)[None]
            if question.options.population is not None and survey_design(question).weight is None:
                noisy = noisy + (value / n * of_all) ** 2
        else:
            x = np.where(sums.x > 2 * np.sqrt(sums.variance(0.0, 1.0)), sums.x, np.nan)[None]
            value = mu[:, None] + sums.y / x
            noisy = sums.variance(1.0, mu[0] - value[0])[None] / x**2
        a, b = _linear(estimand, value, x, mu, scale)
        pooled = Moments(*(array[None, None] for array in (sums.y, sums.x, sums.yy, sums.yx, sums.xx)))
        sampling = fpc * positive(
            variance(np.array([float(n)]), pooled, a, b, "refuse"), sums.squares_noise(a[0], b[0])[None]
        )
        values.append(value[0])
        variances.append((sampling + noisy)[0])
    count = np.rint(np.stack([sums.count for sums in found])).astype(np.int64)
    return Estimates(count, np.stack(values), np.stack(variances), None, n, None)


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
            counted = max(0, int(found.count[i, j]))
            row = estimate_row(
                {**measure.keys, **domain},
                None if nothing else value,
                squared,
                df=found.df,
                allowed=allowed,
                records=counted,
            )
            row[estimand.key] = row["estimate"]
            row["count"] = counted
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
