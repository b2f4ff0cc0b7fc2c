"""The standard error of a distribution function at its quantiles under a sample design: what `quantile` asks once they
are found, for the limits of quantiles as R's svyquantile (Woodruff 1952)."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Question
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Cuts, Weighed
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._design_totals import Spread, totals_weigh
from statfed.strategies.analyses._survey import ones, survey_design


def by_of(question: Question[Any]) -> tuple[str, ...]:
    """Columns of the groups."""
    return (question.options.by,) if question.options.by else ()


def places(question: Question[Any]) -> Iterator[tuple[int, tuple[int, ...], dict[str, str], int]]:
    """Every quantile: numbers of its column, its group and its probability, and the group's levels."""
    for i in range(len(question.options.columns)):
        for at, levels in m.level_rows(question.codebook, by_of(question)):
            for j in range(len(question.options.probabilities)):
                yield i, at, levels, j


def points_weigh(sample: Table, question: Question[Any], ask: Ask) -> Iterator[Weighed]:
    """Both sides of every quantile, in every stratum and group."""
    survey, points = survey_design(question), points_of(question, ask)
    for i, name in enumerate(question.options.columns):
        for at, labels in m.level_rows(question.codebook, by_of(question)):
            cell = tuple(labels.items())
            group = sample.filter(*(sample[by].cast("string") == code for by, code in cell)).complete((name,))
            edges = np.unique(points[(i, *at)])
            yield Cuts(group, name, tuple((float(edge), True) for edge in edges), (), cell)
            upto = [(group.number(name) <= real(float(edge))).ifelse(real(1.0), real(0.0)) for edge in edges]
            yield from totals_weigh(group, survey, [ones(group), *upto])


def blocks(question: Question[Any], sample: Table, ask: Ask) -> list[list[Expr]]:
    """For every quantile: is a record in its group, and is it there up to the quantile?"""
    made, points = [], points_of(question, ask)
    for i, at, labels, j in places(question):
        x = sample.number(question.options.columns[i])
        inside = x.notnull()
        for name, code in labels.items():
            inside = inside & (sample[name].cast("string") == code)
        upto = inside & (x <= real(float(points[(i, *at, j)])))
        made.append([each.ifelse(real(1.0), real(0.0)) for each in (inside, upto)])
    return made


def around(spread: Spread, shape: tuple[int, ...], level: float) -> m.Floats:
    """Limits of F at the quantiles: (columns, *levels, 3 * probabilities), NaN where they leave (0, 1), and for the
    quantiles themselves."""
    from scipy import stats

    df = spread.df or 0.0
    f, half = np.full((2, int(np.prod(shape))), np.nan)
    for block, total in enumerate(spread.total):
        if total[0] > 0 and df > 0:
            f[block] = total[1] / total[0]
            square = float(spread.covariance(block, lambda t: t[1:] / t[0])[0, 0])
            half[block] = stats.t.ppf((1 + level) / 2, df) * np.sqrt(max(square, 0.0))
    low, high = (f - half).reshape(shape), (f + half).reshape(shape)
    none = np.full(shape, np.nan)
    return np.concatenate([none, np.where(low > 0, low, np.nan), np.where(high < 1, high, np.nan)], axis=-1)


def points_of(question: Question[Any], ask: Ask) -> m.Floats:
    """The ask's quantiles (columns, *levels, probabilities). Raises UsageError when they are not that."""
    options, levels = question.options, m.level_shape(question.codebook, by_of(question))
    points = np.asarray(ask.arrays.get("points", np.zeros(0)), np.float64)
    shape = (len(options.columns), *levels, len(options.probabilities))
    if points.shape != shape or not np.isfinite(points).all():
        raise UsageError(f"quantile: points: got shape {points.shape}; want {shape}")
    return points
