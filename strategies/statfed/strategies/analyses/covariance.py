"""`covariance`: covariances and Pearson correlations of columns over their complete records, from two protected sums.

The second sum takes products of deviations from the means of the first, so that nothing cancels. Divisor n - 1.
p_value: t-test of no correlation, n - 2 degrees of freedom; lower and upper: confidence limits of the correlation
from Fisher's z (Fisher 1921), standard error 1/sqrt(n - 3); covariance_std_error: from the normal distribution,
sqrt((s_xx s_yy + s_xy^2)/(n - 1)) (Anderson 2003, section 3.4). All assume a simple random sample.

With differential privacy there is one sum: count, sums and products of (x - middle)/half, all in [-1, 1] by the
codebook's bounds. The variance of the noise is added to all three by the delta method, and p_value is that of z.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement

import numpy as np
from pydantic import Field

from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Coordination,
    Counts,
    Fixed,
    Magnitude,
    Model,
    Part,
    Product,
    Question,
    Total,
    fixed,
    once,
)
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.section import Section
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses import _products
from statfed.strategies.analyses._design_form import DesignForm
from statfed.strategies.analyses._records import left_out, looked_at
from statfed.strategies.analyses._replication import UNKNOWN

TITLE = "Covariances and Pearson correlations of columns"
GROUP = "Estimates"
PUSHES_DOWN = "all"

_OWN = ("covariance", "covariance_std_error", "correlation", "lower", "upper", "p_value")
_PRIVATE = (
    "standard errors, limits and p-values include the privacy noise (delta method)",
    "post-processing: variances are kept from 0 on, correlations between -1 and 1 (and at -1 and 1 without limits)",
)


class Options(Section):
    """Options of covariance."""

    columns: tuple[str, ...] = Field(min_length=2, description="numeric columns; records complete in all are used")
    level: float = Field(default=0.95, gt=0, lt=1, description="confidence level of lower and upper")
    design: bool = Field(default=False, description="weights, strata, PSUs or replicates of the codebook")


def columns(question: Question[Options]) -> tuple[str, ...]:
    m.check_columns(question.codebook, question.options.columns, bounded=question.privacy is not None)
    if question.options.design:
        _by_design(question).check(question)
        return _by_design(question).reads(question)
    return question.options.columns


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("scaled")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    names = question.options.columns
    if question.options.design:
        return _by_design(question).parts(question, ask)
    if ask.name == "scaled":
        pairs = len(names) * (len(names) + 1) // 2
        return {
            "count": Part(bound=1.0, integer=True, single=True, what=Counts()),
            "sum": Part((len(names),), 1.0, what=Magnitude("count")),
            "products": Part((pairs,), 1.0, what=Product()),
        }
    return _products.product_parts([question.codebook.columns[name].bounds for name in names], ask, "covariance")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    names = question.options.columns
    if question.options.design:
        return _by_design(question).contribute(table, question, ask)
    complete = table.complete(names)
    numbers: list[Expr] = [complete.number(name) for name in names]
    if ask.name != "scaled":
        found = _products.products(complete, numbers, ask)
        return {**found, **looked_at(table)} if ask.name == "means" else found
    frames = [m.frame(question.codebook, name) for name in names]
    scaled = [(x - real(middle)) / real(half) for x, (middle, half) in zip(numbers, frames, strict=True)]
    return _products.products(complete, scaled, Ask("products", {"centre": np.zeros(len(names))}))


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    return [real(1.0), *(table.number(name) for name in question.options.columns)]


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    if question.options.design:
        return _by_design(question).weighs(table, question, ask)
    complete = table.complete(question.options.columns)
    numbers = [complete.number(name) for name in question.options.columns]
    return _products.weighs(complete, numbers, ask)


def discloses(question: Question[Options], ask: Ask) -> Model | Cells:
    if question.options.design:
        return _by_design(question).discloses(question, ask)
    k = len(question.options.columns)
    return Model(k + k * (k + 1) // 2, question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    options = question.options
    if options.design:
        return (yield from _of_design(question))
    notes = [f"records complete in {', '.join(options.columns)}; simple random sampling; {options.level:.0%} limits"]
    facts: dict[str, Scalar] = {}
    if question.privacy:
        total = yield Ask("scaled")
        n, matrix, noise = _noisy(question, total)
        notes += _PRIVATE
    else:
        first = yield Ask("means")
        second = yield Ask("products", {"centre": m.centres(first)})
        n = int(first["count"])
        matrix = _products.covariance_matrix(first, second)
        noise = np.zeros(())
        facts["missing"] = left_out(first, n)
    rows = [_row(question, i, j, n, matrix, noise) for i in range(len(options.columns)) for j in range(i, len(matrix))]
    basis = Basis(keys=("name_1", "name_2"), counts=("count",), own=_OWN)
    return Result(
        "covariance",
        "Covariance and correlation",
        {"pairs": rows},
        {"observations": n, **facts},
        tuple(notes),
        basis={"pairs": basis},
        observations="observations",
        numbers=tuple(facts),
    )


@once
def _by_design(question: Question[Options]) -> DesignForm:
    """For every pair of columns the totals of 1, of both deviations, of their product and their squares."""
    names = question.options.columns
    pairs = list(combinations_with_replacement(range(len(names)), 2))

    def blocks(deviations: list[list[Expr]], inside: list[Expr]) -> list[list[Expr]]:
        one, d = inside[0], [each[0] for each in deviations]
        known = d[0].notnull().ifelse(one, real(0.0))
        return [[known, d[i], d[j], d[i] * d[j], d[i] * d[i], d[j] * d[j]] for i, j in pairs]

    def reach(wide: m.Floats) -> m.Floats:
        return np.array([[1.0, wide[i], wide[j], wide[i] * wide[j], wide[i] ** 2, wide[j] ** 2] for i, j in pairs])

    return DesignForm(
        numbers=lambda table: [table.number(name) for name in names],
        bounds=[question.codebook.columns[name].bounds for name in names],
        columns=names,
        by=(),
        blocks=blocks,
        reach=reach,
        complete=names,
    )


def _of_design(question: Question[Options]) -> Coordination:
    from scipy import stats

    names, level = question.options.columns, question.options.level
    means, spread = yield from _by_design(question).coordinate(question)
    n, df, unheld = int(means.count.min()), spread.df or 0.0, False
    rows: list[Row] = []
    for block, (i, j) in enumerate(combinations_with_replacement(range(len(names)), 2)):
        covariance = error = correlation = lower = upper = p_value = np.nan
        if n > 1 and spread.total[block, 0] > 0:
            figures = partial(_covariance_and_correlation, n=n, same=i == j)
            covariance, correlation = figures(spread.total[block])
            errors = np.sqrt(np.maximum(np.diag(spread.covariance(block, figures)), 0.0))
            if not m.squares_fit(spread.total[block, 4:] / spread.total[block, 0]).all():
                unheld, errors = True, np.full(2, np.nan)
            error = errors[0]
            if i != j and abs(correlation) < 1 and df > 0 and not np.isnan(errors[1]):
                z, of_z = np.arctanh(correlation), errors[1] / (1 - correlation**2)
                half = stats.t.ppf((1 + level) / 2, df) * of_z
                lower, upper = np.tanh(z - half), np.tanh(z + half)
                p_value = 2 * stats.t.sf(abs(z) / of_z, df) if of_z > 0 else np.nan
        figures_of = (covariance, error, correlation, lower, upper, p_value)
        shown = dict(zip(_OWN, (m.finite(float(x)) for x in figures_of), strict=True))
        rows.append({"name_1": names[i], "name_2": names[j], **shown, "count": n})
    notes = [
        f"records complete in {', '.join(names)}; standard errors from the design; {level:.0%} limits and p-values of "
        "correlations from Fisher's z with its standard error, t on the degrees of freedom of the design"
    ]
    if means.left_out:
        notes.append(f"{means.left_out} records miss a variable of the design: left out")
    notes += [m.UNHELD] if unheld else []
    notes += [] if df else [UNKNOWN]
    return Result(
        "covariance",
        "Covariance and correlation",
        {"pairs": rows},
        {"observations": n, "missing": means.records - n, "left_out": means.left_out, **spread.facts},
        tuple(notes),
        basis={"pairs": Basis(keys=("name_1", "name_2"), counts=("count",), own=_OWN)},
        observations="observations",
        numbers=("missing", "left_out"),
        public=tuple(spread.facts),
    )


def _covariance_and_correlation(t: m.Floats, n: int, same: bool) -> m.Floats:
    """From the totals of a block of `_by_design` over n records; NaN as correlation where a column does not vary."""
    a, b = t[1] / t[0], t[2] / t[0]
    xy, xx, yy = t[3] / t[0] - a * b, t[4] / t[0] - a * a, t[5] / t[0] - b * b
    varies = min(xx.real, yy.real) > 0
    scale = np.sqrt(xx) * np.sqrt(yy) if varies else np.nan
    correlation = xy * 0 + 1 if same and varies else xy / scale
    return np.stack([xy * (n / (n - 1)), correlation])


def _row(question: Question[Options], i: int, j: int, n: int, matrix: m.Floats, noise: m.Floats) -> Row:
    """One pair; noise: variance matrix of the noise in (s_xx, s_yy, s_xy) by pair of pairs, () without."""
    from scipy import stats

    names, level = question.options.columns, question.options.level
    xx, yy, xy = matrix[i, i], matrix[j, j], matrix[i, j]
    scale = np.sqrt(xx) * np.sqrt(yy)
    correlation = float(1 if i == j else np.clip(xy / scale, -1, 1)) if scale > 0 else np.nan
    sampling = np.hypot(scale, xy) / np.sqrt(n - 1) if n > 1 else np.nan
    block = np.zeros((3, 3))
    if noise.ndim:
        at = [_products.pair(len(matrix), *p) for p in ((i, i), (j, j), (i, j))]
        block = noise[np.ix_(at, at)]
        sampling = np.hypot(sampling, np.sqrt(block[2, 2]))
    lower = upper = p_value = np.nan
    if i != j and abs(correlation) < 1:
        slopes = np.array([-correlation / (2 * xx), -correlation / (2 * yy), 1 / scale]) / (1 - correlation**2)
        width = (1 / (n - 3) if n > 3 else np.nan) + float(slopes @ block @ slopes)
        if noise.ndim:
            p_value = 2 * stats.norm.sf(abs(np.arctanh(correlation)) / np.sqrt(width))
        elif n > 2:
            p_value = 2 * stats.t.sf(abs(correlation) * np.sqrt((n - 2) / (1 - correlation**2)), n - 2)
        half = stats.norm.ppf((1 + level) / 2) * np.sqrt(width)
        lower, upper = (float(np.tanh(np.arctanh(correlation) + side)) for side in (-half, half))
    elif i != j and n > 2 and not noise.ndim and not np.isnan(correlation):
        p_value = 0.0
    return {
        "name_1": names[i],
        "name_2": names[j],
        "covariance": m.finite(xy),
        "covariance_std_error": m.finite(sampling),
        "correlation": m.finite(correlation),
        "lower": m.finite(lower),
        "upper": m.finite(upper),
        "p_value": m.finite(p_value),
        "count": n,
    }


def _noisy(question: Question[Options], total: Total) -> tuple[int, m.Floats, m.Floats]:
    """Count, covariance matrix and the variance of its noise (pair by pair) in the units of the columns."""
    names = question.options.columns
    k = len(names)
    n = max(0, int(total["count"]))
    first, second = np.triu_indices(k)
    if n < 2:
        return n, np.full((k, k), np.nan), np.zeros((len(first),) * 2)
    mean = np.clip(total["sum"] / n, -1, 1)
    bias = np.where(first == second, (total.noise["sum"][first] / n) ** 2, 0.0)
    products = mean[first] * mean[second]
    flat = (total["products"] - n * (products - np.minimum(bias, products.clip(0)))) / (n - 1)
    flat = np.where(first == second, np.maximum(flat, 0.0), flat)
    slopes = np.zeros((len(first), 1 + k + len(first)))  # derivatives by count, sums and products
    rows = np.arange(len(first))
    slopes[:, 0] = products - flat
    np.add.at(slopes, (rows, 1 + first), -mean[second])
    np.add.at(slopes, (rows, 1 + second), -mean[first])
    slopes[rows, 1 + k + rows] = 1
    slopes /= n - 1
    variances = np.concatenate([total.noise[part].reshape(-1) ** 2 for part in ("count", "sum", "products")])
    half = np.array([m.frame(question.codebook, name)[1] for name in names])
    scale = half[first] * half[second]
    noise = (slopes * variances) @ slopes.T * np.outer(scale, scale)
    return n, _products.symmetric(flat * scale, k), noise
