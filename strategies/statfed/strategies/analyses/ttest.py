"""`ttest`: Student's and Welch's t-tests of means, from two protected sums.

One sample against `mu`; two samples, the two levels of a grouping column, with unequal variances (Welch 1947,
Satterthwaite's degrees of freedom) or pooled ones; paired, two columns of the same records. Two-sided p-values.

With `design` the means have the codebook's weights, and the standard error of the mean or of the difference is that of
the design, as R's svyttest: t on its degrees of freedom less one.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Part, Question, once
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.section import Section
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._design_form import DesignForm, Means
from statfed.strategies.analyses._design_totals import Spread
from statfed.strategies.analyses._records import left_out, looked_at, looked_at_part, most_used
from statfed.strategies.analyses._replication import UNKNOWN

TITLE = "t-tests of means: one sample, two samples (Welch or pooled), paired"
GROUP = "Tests"
PUSHES_DOWN = "all"

_ORDERS = (1, 2)
_OWN = ("estimate", "std_error", "df", "statistic", "p_value", "lower", "upper")


class Options(Section):
    """Options of ttest."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns, one test each; paired: two columns")
    mu: float = Field(default=0.0, description="mean, or difference of means, under the null hypothesis")
    by: str | None = Field(default=None, description="two samples: column with the groups")
    groups: tuple[str, ...] = Field(
        default=(), description="two samples: the two levels to compare, if `by` has more than two"
    )
    paired: bool = Field(default=False, description="test the difference of two columns of the same record")
    pooled: bool = Field(default=False, description="two samples: assume equal variances (Student) instead of Welch")
    level: float = Field(default=0.95, gt=0, lt=1, description="confidence level of lower and upper")
    design: bool = Field(default=False, description="weights, strata, PSUs or replicates of the codebook")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    by = (options.by,) if options.by else ()
    m.check_columns(question.codebook, options.columns)
    if options.paired and len(options.columns) != 2:
        raise UsageError(f"ttest: paired: got {len(options.columns)} columns; want two")
    if options.paired and options.by:
        raise UsageError(f"ttest: got paired and by {options.by}; want one of them")
    if options.by is None and (options.pooled or options.groups):
        raise UsageError("ttest: got pooled or groups without by; want a grouping column with them")
    if options.by is not None:
        known = question.codebook.category(options.by, "by").levels
        chosen = options.groups or known
        if len(chosen) != 2 or chosen[0] == chosen[1] or any(level not in known for level in chosen):
            raise UsageError(f"ttest: groups: got {', '.join(chosen)}; want two of {options.by}: {', '.join(known)}")
    if options.design:
        if options.pooled:
            raise UsageError("ttest: got pooled with design; want one of them: a design has no common variance")
        _by_design(question).check(question)
        return _by_design(question).reads(question)
    return (*options.columns, *by)


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if question.options.design:
        return _by_design(question).parts(question, ask)
    bounds = _bounds(question)
    if ask.name == "means":
        by = question.options.by
        return m.sum_parts(bounds, question.codebook, (by,) if by else ()) | looked_at_part("count")
    if ask.name == "powers":
        return m.power_parts(bounds, ask.arrays["centre"], _ORDERS)
    raise UsageError(f"ttest: unknown ask: got {ask.name!r}; want means or powers")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    if question.options.design:
        return _by_design(question).contribute(table, question, ask)
    table, numbers, by = _samples(table, question)
    if ask.name == "means":
        return {**m.sums(table, numbers, by), **looked_at(table)}
    return m.powers(table, numbers, ask.arrays["centre"], _ORDERS, by)


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    if question.options.design:
        return _by_design(question).weighs(table, question, ask)
    table, numbers, by = _samples(table, question)
    if ask.name == "means":
        return m.sums_weigh(table, numbers, by)
    return m.powers_weigh(table, numbers, ask.arrays["centre"], _ORDERS, by)


def _samples(table: Table, question: Question[Options]) -> tuple[Table, list[Expr], tuple[str, ...]]:
    """The records to look at, the numbers that are tested, and the column of the samples."""
    options = question.options
    if options.by and options.groups:
        table = table.filter(table[options.by].cast("string").isin(options.groups))
    numbers: list[Expr] = [table.number(name) for name in options.columns]
    if options.paired:
        numbers = [numbers[0] - numbers[1]]
    return table, numbers, (options.by,) if options.by else ()


def discloses(question: Question[Options], ask: Ask) -> Cells:
    options = question.options
    if options.design:
        return _by_design(question).discloses(question, ask)
    return Cells((options.by,) if options.by else (), options.columns, options.columns if options.paired else ())


def coordinate(question: Question[Options]) -> Coordination:
    options = question.options
    names = [" - ".join(options.columns)] if options.paired else list(options.columns)
    facts: dict[str, Scalar] = {}
    notes = []
    if options.design:
        means, spread = yield from _by_design(question).coordinate(question)
        rows = [_design_row(question, name, means, spread, i) for i, name in enumerate(names)]
        facts = {**means.facts, **spread.facts}
        notes.append("standard errors from the design; t on its degrees of freedom less one")
        if means.left_out:
            notes.append(f"{means.left_out} records miss a variable of the design: left out")
        notes += [] if spread.df else [UNKNOWN]
    else:
        first = yield Ask("means")
        centre = m.centres(first)
        second = yield Ask("powers", {"centre": centre})
        found = m.moments(first["count"], centre, second)
        rows = [_row(question, name, found, i) for i, name in enumerate(names)]
        used = most_used(first["count"])
        facts = {"observations": used, "missing": left_out(first, used)}
    if any(row["statistic"] is None for row in rows):
        notes.append("no statistic where a sample has too few records or its values do not differ")
    if options.by:
        notes.append(f"estimate: mean of {options.by} {' minus mean of '.join(_levels(question))}")
    groups = (1, 2) if options.by else ()
    basis = Basis(
        keys=("name", "test", *(f"group_{j}" for j in groups)),
        counts=("count", *(f"count_{j}" for j in groups)),
        own=(*_OWN, *(f"mean_{j}" for j in groups)),
    )
    settings = {"mu": options.mu, "level": options.level}
    numbers = ("observations", "missing", "left_out")
    return Result(
        "ttest",
        "t-test",
        {"tests": rows},
        settings | facts,
        tuple(notes),
        basis={"tests": basis},
        observations="observations",
        numbers=tuple(name for name in numbers[1:] if name in facts),
        public=(*settings, *(name for name in facts if name not in numbers)),
    )


@once
def _by_design(question: Question[Options]) -> DesignForm:
    """Totals of 1 and of the deviation in each sample: (number, 2 x samples)."""
    options, levels = question.options, _levels(question)
    known = _known(question)
    chosen = [known.index(level) for level in levels] or [0]

    def numbers(table: Table) -> list[Expr]:
        found = [table.number(name) for name in options.columns]
        return [found[0] - found[1]] if options.paired else found

    def blocks(deviations: list[list[Expr]], inside: list[Expr]) -> list[list[Expr]]:
        made = []
        for each in deviations:
            pairs = [(each[j].notnull().ifelse(inside[j], real(0.0)), inside[j] * each[j]) for j in chosen]
            made.append([value for pair in pairs for value in pair])
        return made

    def reach(wide: m.Floats) -> m.Floats:
        flat = wide.reshape(len(wide), -1)[:, chosen]
        return np.stack([np.ones(flat.shape), flat], axis=-1).reshape(len(wide), -1)

    by = (options.by,) if options.by else ()
    complete = options.columns if options.paired else ()
    return DesignForm(numbers, _bounds(question), options.columns, by, blocks, reach, complete)


def _design_row(question: Question[Options], name: str, means: Means, spread: Spread, i: int) -> Row:
    from scipy import stats

    options = question.options
    samples = [_known(question).index(level) for level in _levels(question)] if options.by else [0]
    count = np.atleast_1d(means.count[i])[samples]
    centre = np.atleast_1d(means.mean[i])[samples]
    total, signs = spread.total[i], (1.0, -1.0)[: len(samples)]

    def difference(t: m.Floats) -> m.Floats:
        return np.stack([sum(sign * t[2 * j + 1] / t[2 * j] for j, sign in enumerate(signs))])

    mean, estimate, beyond, error, df = centre, np.nan, np.nan, np.nan, (spread.df or 0.0) - 1
    if (total[::2] > 0).all():
        shift = total[1::2] / total[::2]
        mean, estimate = centre + shift, _difference(centre, shift, 0.0)
        beyond = _difference(centre, shift, options.mu)
        square = float(spread.covariance(i, difference)[0, 0])
        error = np.sqrt(square) if square > 0 else np.nan
    statistic = beyond / error
    half = stats.t.ppf((1 + options.level) / 2, df) * error if df > 0 else np.nan
    test = "paired" if options.paired else "two-sample" if options.by else "one-sample"
    row: dict[str, str | float | int | None] = {
        "name": name,
        "test": test,
        "estimate": m.finite(estimate),
        "std_error": m.finite(error),
        "df": df if df > 0 else None,
        "statistic": m.finite(statistic),
        "p_value": m.finite(2 * stats.t.sf(abs(statistic), df)) if df > 0 else None,
        "lower": m.finite(estimate - half),
        "upper": m.finite(estimate + half),
        "count": int(count.sum()),
    }
    if options.by:
        for j, level in enumerate(_levels(question), 1):
            row |= {f"group_{j}": level, f"count_{j}": int(count[j - 1]), f"mean_{j}": m.finite(mean[j - 1])}
    return row


def _row(question: Question[Options], name: str, found: m.Moments, i: int) -> Row:
    from scipy import stats

    options = question.options
    samples = [_known(question).index(level) for level in _levels(question)] if options.by else [0]
    count, centre, shift, mean, variance, squares = (
        np.atleast_1d(a[i])[samples]
        for a in (found.count, found.centre, found.shift, found.mean, found.variance, found.squares)
    )
    estimate, beyond = (_difference(centre, shift, mu) for mu in (0.0, options.mu))
    terms = variance / np.where(count > 0, count, np.nan)
    if options.by is None:
        test, df, square = "paired" if options.paired else "one-sample", count[0] - 1.0, terms[0]
    elif options.pooled:
        test, df = "pooled", count.sum() - 2.0
        inverse = np.sum(1 / np.where(count > 0, count, np.nan))
        square = np.sum(squares) / df * inverse if df > 0 else np.nan
    else:
        test, square = "Welch", np.sum(terms)
        df = 1 / np.sum((terms / square) ** 2 / (count - 1)) if square > 0 else np.nan
    error = np.sqrt(square) if square > 0 else np.nan
    statistic = beyond / error
    half = stats.t.ppf((1 + options.level) / 2, df) * error if error > 0 else np.nan
    row: dict[str, str | float | int | None] = {
        "name": name,
        "test": test,
        "estimate": m.finite(estimate),
        "std_error": m.finite(error),
        "df": m.finite(df) if df > 0 else None,
        "statistic": m.finite(statistic),
        "p_value": m.finite(2 * stats.t.sf(abs(statistic), df)) if error > 0 else None,
        "lower": m.finite(estimate - half),
        "upper": m.finite(estimate + half),
        "count": int(count.sum()),
    }
    if options.by:
        for j, level in enumerate(_levels(question), 1):
            row |= {f"group_{j}": level, f"count_{j}": int(count[j - 1]), f"mean_{j}": m.finite(mean[j - 1])}
    return row


def _difference(centre: m.Floats, shift: m.Floats, mu: float) -> float:
    """First mean less the second, if there are two, less mu: the centres by themselves, so that nothing is rounded."""
    if len(centre) == 1:
        return float((centre[0] - mu) + shift[0])
    return float((centre[0] - centre[1] - mu) + (shift[0] - shift[1]))


def _known(question: Question[Options]) -> tuple[str, ...]:
    by = question.options.by
    return question.codebook.category(by).levels if by else ()


def _levels(question: Question[Options]) -> tuple[str, ...]:
    """The two levels that are compared, in the order asked for; the whole sample where there is no `by`."""
    return question.options.groups or _known(question)


def _bounds(question: Question[Options]) -> list[m.Bounds]:
    bounds = [question.codebook.columns[name].bounds for name in question.options.columns]
    if not question.options.paired:
        return bounds
    first, second = bounds
    return [(first[0] - second[1], first[1] - second[0]) if first and second else None]
