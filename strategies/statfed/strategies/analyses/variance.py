"""`variance`: variance of columns, over all records or in groups, with its own standard error, from two protected sums.

The estimate has divisor n - 1. Its standard error under simple random sampling is distribution-free, from the fourth
central moment m4: Var(s^2) = (m4 - (n - 3)/(n - 1) sigma^4)/n (Cramer 1946, section 27.4), with m4 and s^2 put in.

With differential privacy there is one sum: counts and the first four powers of (x - middle)/half, where middle and
half are those of the codebook's bounds, so that each power lies in [-1, 1] whatever the data. The standard error then
adds the variance of the noise by the delta method; the bias that noise in the mean causes in its square is removed.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Coordination,
    Counts,
    Fixed,
    Magnitude,
    Part,
    Question,
    Total,
    fixed,
    once,
)
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.section import Section
from statfed.core.table import Table, real
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._design_form import DesignForm
from statfed.strategies.analyses._records import left_out, looked_at, looked_at_part, most_used

TITLE = "Variance and standard deviation of columns, with standard errors, also in groups"
GROUP = "Estimates"
PUSHES_DOWN = "all"

_ORDERS = (1, 2, 3, 4)
_SHARES = {0: 1.0, 1: 1.0, 2: 1.0, 3: 0.1, 4: 0.1}  # the last two serve the standard error only
_NOTES = (
    "estimate: variance with divisor n - 1; standard errors: simple random sampling without finite population "
    "correction, that of the variance from the fourth central moment",
)
_PRIVATE = (
    "standard errors include the privacy noise (delta method)",
    "post-processing: a variance is kept between 0 and the largest that the codebook's bounds allow, its fourth moment "
    "between the smallest and the largest possible for that variance",
)


class Options(Section):
    """Options of variance."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns")
    by: tuple[str, ...] = Field(default=(), max_length=4, description="grouping columns (category or boolean)")
    design: bool = Field(default=False, description="weights, strata, PSUs or replicates of the codebook")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    m.check_columns(question.codebook, options.columns, options.by, bounded=question.privacy is not None)
    if options.design:
        _by_design(question).check(question)
        return _by_design(question).reads(question)
    return (*options.columns, *options.by)


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("scaled")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    names = question.options.columns
    bounds = [question.codebook.columns[name].bounds for name in names]
    shape = m.level_shape(question.codebook, question.options.by)
    if question.options.design:
        return _by_design(question).parts(question, ask)
    if ask.name == "means":
        return m.sum_parts(bounds, question.codebook, question.options.by) | looked_at_part("count")
    if ask.name == "powers":
        return m.power_parts(bounds, ask.arrays["centre"], _ORDERS)
    if ask.name == "scaled":
        return {
            _scaled(order, i): Part(
                shape, 1.0, integer=order == 0, single=True, share=share, what=_what(question, order, i)
            )
            for i in range(len(names))
            for order, share in _SHARES.items()
        }
    raise UsageError(f"variance: unknown ask: got {ask.name!r}; want means, powers or scaled")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    by = question.options.by
    if question.options.design:
        return _by_design(question).contribute(table, question, ask)
    numbers = [table.number(name) for name in question.options.columns]
    if ask.name == "means":
        return {**m.sums(table, numbers, by), **looked_at(table)}
    if ask.name == "powers":
        return m.powers(table, numbers, ask.arrays["centre"], _ORDERS, by)
    scaled = []
    for name, x in zip(question.options.columns, numbers, strict=True):
        middle, half = m.frame(question.codebook, name)
        scaled.append((x - real(middle)) / real(half))
    found = m.powers(table, scaled, np.zeros((len(scaled), *m.level_shape(table.codebook, by))), _ORDERS, by)
    count = m.sums(table, scaled, by)["count"]
    return {_scaled(r, i): found[f"power_{r}"][i] for i in range(len(scaled)) for r in _ORDERS} | {
        _scaled(0, i): count[i] for i in range(len(scaled))
    }


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    by = question.options.by
    if question.options.design:
        return _by_design(question).weighs(table, question, ask)
    numbers = [table.number(name) for name in question.options.columns]
    if ask.name == "means":
        return m.sums_weigh(table, numbers, by)
    if ask.name == "scaled":
        middles = np.array([m.frame(question.codebook, name)[0] for name in question.options.columns])
        shape = (len(middles), *m.level_shape(question.codebook, by))
        middle = np.broadcast_to(middles.reshape(-1, *(1,) * len(by)), shape)
        return m.powers_weigh(table, numbers, middle, _ORDERS, by)
    return m.powers_weigh(table, numbers, ask.arrays["centre"], _ORDERS, by)


def discloses(question: Question[Options], ask: Ask) -> Cells:
    if question.options.design:
        return _by_design(question).discloses(question, ask)
    return Cells(question.options.by, question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    if question.privacy:
        total = yield Ask("scaled")
        rows = [row for i in range(len(question.options.columns)) for row in _noisy_rows(question, total, i)]
        return _result(question, rows, (*_NOTES, *_PRIVATE))
    if question.options.design:
        return (yield from _of_design(question))
    first = yield Ask("means")
    centre = m.centres(first)
    second = yield Ask("powers", {"centre": centre})
    found = m.moments(first["count"], centre, second)
    n = np.where(found.count > 1, found.count, np.nan)
    error = found.variance * np.sqrt(np.maximum(found.kurtosis - (n - 3) / (n - 1), 0) / n)
    error = np.where(found.variance == 0, 0.0, error)
    rows = []
    for i, name in enumerate(question.options.columns):
        for at, levels in m.level_rows(question.codebook, question.options.by):
            cell = (i, *at)
            mean_error = float(np.sqrt(found.variance[cell] / n[cell]))
            values = (found.mean[cell], mean_error, found.variance[cell], error[cell])
            rows.append(_row(name, levels, int(found.count[cell]), *values, question.codebook.columns[name].unit))
    used = most_used(first["count"])
    notes = _NOTES if m.squares_fit(found.variance[found.count > 1]).all() else (*_NOTES, m.UNHELD)
    return _result(question, rows, notes, {"observations": used, "missing": left_out(first, used)})


@once
def _by_design(question: Question[Options]) -> DesignForm:
    """Totals of 1, of the deviation and of its square, for every column in every cell."""
    names = question.options.columns
    return DesignForm(
        numbers=lambda table: [table.number(name) for name in names],
        bounds=[question.codebook.columns[name].bounds for name in names],
        columns=names,
        by=question.options.by,
        blocks=lambda deviations, inside: [
            [d.notnull().ifelse(one, real(0.0)), one * d, one * d * d]
            for each in deviations
            for d, one in zip(each, inside, strict=True)
        ],
        reach=lambda wide: np.stack([np.ones(wide.size), wide.reshape(-1), wide.reshape(-1) ** 2], axis=-1),
    )


def _of_design(question: Question[Options]) -> Coordination:
    means, spread = yield from _by_design(question).coordinate(question)
    rows, unheld = [], False
    levels = m.level_rows(question.codebook, question.options.by)
    for i, name in enumerate(question.options.columns):
        for j, (at, labels) in enumerate(levels):
            block, n = i * len(levels) + j, int(means.count[(i, *at)])
            values: tuple[float, float, float, float] = (np.nan, np.nan, np.nan, np.nan)
            if n > 1 and spread.total[block, 0] > 0:
                figures = partial(_mean_and_variance, n=n)
                mean, variance = figures(spread.total[block])
                errors = np.sqrt(np.maximum(np.diag(spread.covariance(block, figures)), 0.0))
                fits = bool(m.squares_fit(variance))
                unheld |= not fits
                error = errors[1] if fits else np.nan
                values = (means.mean[(i, *at)] + mean, errors[0], max(variance, 0.0), error)
            rows.append(_row(name, labels, n, *values, question.codebook.columns[name].unit))
    notes = (
        "estimate: weighted variance about the weighted mean, times n / (n - 1); standard errors from the design",
        *((f"{means.left_out} records miss a variable of the design: left out",) if means.left_out else ()),
        *((m.UNHELD,) if unheld else ()),
    )
    return _result(question, rows, notes, {**means.facts, **spread.facts})


def _mean_and_variance(t: m.Floats, n: int) -> m.Floats:
    """Mean and variance from totals of weights, weighted deviations and their squares over n records."""
    mean = t[1] / t[0]
    return np.stack([mean, (t[2] / t[0] - mean * mean) * (n / (n - 1))])


def _result(
    question: Question[Options], rows: list[Row], notes: tuple[str, ...], facts: Mapping[str, Scalar] | None = None
) -> Result:
    by, own = question.options.by, ("mean", "mean_std_error", "estimate", "std_error", "std_dev")
    basis = {"estimates": Basis(by, ("column", "unit"), ("count",), own=own)}
    known = dict(facts or {})
    numbers = tuple(name for name in known if name in ("missing", "left_out"))
    of_design = tuple(name for name in known if name not in ("observations", *numbers))
    return Result(
        "variance",
        "Variance",
        {"estimates": rows},
        known,
        notes,
        by,
        basis=basis,
        observations="observations" if known else None,
        numbers=numbers,
        public=of_design,
    )


def _row(
    name: str,
    levels: Mapping[str, str],
    count: int,
    mean: float,
    mean_error: float,
    variance: float,
    error: float,
    unit: str,
) -> Row:
    return {
        "column": name,
        **levels,
        "count": count,
        "mean": m.finite(mean),
        "mean_std_error": m.finite(mean_error),
        "estimate": m.finite(variance),
        "std_error": m.finite(error),
        "std_dev": m.finite(np.sqrt(variance)),
        "unit": unit,
    }


def _what(question: Question[Options], order: int, column: int) -> Counts | Magnitude:
    return Magnitude(_scaled(0, column)) if order else Counts(question.options.by)


def _scaled(order: int, column: int) -> str:
    return f"count_{column}" if order == 0 else f"power_{order}_{column}"


def _noisy_rows(question: Question[Options], total: Total, i: int) -> list[Row]:
    name = question.options.columns[i]
    middle, half = m.frame(question.codebook, name)
    rows = []
    for at, levels in m.level_rows(question.codebook, question.options.by):
        n, *power = (float(total[_scaled(r, i)][at]) for r in range(5))
        noise = np.array([total.noise[_scaled(r, i)][at] for r in range(5)])
        values = _noisy_moments(n, power, noise) if n > 1 else (np.nan,) * 4
        mean, mean_error, variance, error = values
        scaled = (middle + half * mean, half * mean_error, half**2 * variance, half**2 * error)
        rows.append(_row(name, levels, max(0, int(n)), *scaled, question.codebook.columns[name].unit))
    return rows


def _noisy_moments(n: float, power: list[float], noise: m.Floats) -> tuple[float, float, float, float]:
    """Mean, its standard error, variance and its standard error of values in [-1, 1] from noisy sums of powers."""
    mean = float(np.clip(power[0] / n, -1, 1))
    squares = power[1] - max(0.0, power[0] ** 2 - noise[1] ** 2) / n
    variance = float(np.clip(squares / (n - 1), 0, (1 - mean**2) * n / (n - 1)))
    fourth = (power[3] - 4 * mean * power[2] + 6 * mean**2 * power[1]) / n - 3 * mean**4
    fourth = float(np.clip(fourth, variance**2, (1 + abs(mean)) ** 2 * variance))
    sampling = max(0.0, fourth - (n - 3) / (n - 1) * variance**2) / n
    slopes = np.array([mean**2 - variance, -2 * mean, 1.0]) / (n - 1)
    error = np.sqrt(sampling + np.sum((slopes * noise[:3]) ** 2))
    mean_error = np.sqrt(variance / n + (noise[1] / n) ** 2 + (mean * noise[0] / n) ** 2)
    return mean, float(mean_error), variance, float(error)
