"""`chisq`: Pearson's chi-square tests on counts: independence of two columns, or fit of one to given probabilities.

One protected sum, the table of counts. Levels of a row or column without any record carry no information on
independence: they are left out of the degrees of freedom, with a note. Cramer's V (1946, section 21.9) is computed
without Yates's correction. There is no differentially private form: under noise the statistic does not follow the
chi-square distribution (Gaboardi et al. 2016), and p-values from it would be wrong.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Part, Question
from statfed.core.result import Additive, Basis, Result, Row
from statfed.core.section import Section
from statfed.core.table import Table
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._records import left_out, looked_at, looked_at_part

TITLE = "Chi-square tests: independence of two columns, goodness of fit of one"
GROUP = "Tests"
PUSHES_DOWN = "all"

_FEW = 5.0  # Cochran 1954: expected counts under which the chi-square distribution is a doubtful approximation


class Options(Section):
    """Options of chisq."""

    columns: tuple[str, ...] = Field(
        min_length=1, max_length=2, description="two category columns: independence; one: goodness of fit"
    )
    probabilities: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(), description="goodness of fit: probability of each level in the codebook's order; default all equal"
    )
    correction: bool = Field(default=False, description="Yates's continuity correction for 2 x 2 tables")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    m.check_columns(question.codebook, (), options.columns)
    wanted = len(question.codebook.category(options.columns[0]).levels)
    if len(options.columns) == 2:
        if options.probabilities:
            raise UsageError("chisq: probabilities: got some for two columns; want them with one column only")
        return options.columns
    if options.correction:
        raise UsageError("chisq: correction: got it for one column; want it with two columns only")
    if options.probabilities and len(options.probabilities) != wanted:
        raise UsageError(f"chisq: probabilities: got {len(options.probabilities)}; want {wanted}, one per level")
    if options.probabilities and abs(math.fsum(options.probabilities) - 1) > 1e-9:
        raise UsageError(f"chisq: probabilities: got a sum of {math.fsum(options.probabilities)}; want 1")
    return options.columns


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "counts":
        raise UsageError(f"chisq: unknown ask: got {ask.name!r}; want counts")
    shape = m.level_shape(question.codebook, question.options.columns)
    count = Part(shape, 1.0, integer=True, single=True, what=Counts(question.options.columns))
    return {"count": count, **looked_at_part("count")}


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:  # noqa: ARG001
    count = table[question.options.columns[0]].count()
    return {**table.grid(question.options.columns, count=count), **looked_at(table)}


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells(by=question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    options = question.options
    total = yield Ask("counts")
    observed = total["count"]
    n = int(observed.sum())
    independence = observed.ndim == 2
    if independence:
        row, notes = _independence(question, observed)
        expected = np.outer(observed.sum(1), observed.sum(0)) / max(n, 1)
    else:
        expected = n * (np.array(options.probabilities) if options.probabilities else np.full(len(observed), 1.0))
        expected = expected if options.probabilities else expected / len(observed)
        row, notes = _fit(observed, expected)
    smallest = float(expected[expected > 0].min()) if n else None
    if smallest is not None and smallest < _FEW:
        notes.append(f"smallest expected count {smallest:.3g} is below 5: the p-value is a rough approximation")
    title = "Chi-square test of independence" if independence else "Chi-square test of goodness of fit"
    test: Row = {"name": " x ".join(options.columns), **row, "count": n, "smallest_expected": smallest}
    cells: list[Row] = [
        {**levels, "count": int(observed[at]), "expected": float(expected[at]) if n else None}
        for at, levels in m.level_rows(question.codebook, options.columns)
    ]
    figures = tuple(key for key in test if key not in ("name", "count"))
    basis = {
        "tests": Basis(keys=("name",), counts=("count",), own=figures),
        "cells": Basis(options.columns, counts=("count",), derived=("expected",), kind=Additive()),
    }
    return Result(
        "chisq",
        title,
        {"tests": [test], "cells": cells},
        {"observations": n, "missing": left_out(total, n)},
        tuple(notes),
        options.columns,
        basis=basis,
        observations="observations",
        numbers=("missing",),
    )


def _independence(question: Question[Options], observed: NDArray[np.int64]) -> tuple[dict[str, Any], list[str]]:
    notes = []
    kept = [observed.sum(axis=1 - axis) > 0 for axis in (0, 1)]
    for name, some in zip(question.options.columns, kept, strict=True):
        empty = [level for level, k in zip(question.codebook.category(name).levels, some, strict=True) if not k]
        if empty:
            notes.append(f"{name}: no records in {', '.join(empty)}: left out of the degrees of freedom")
    table = observed[np.ix_(*kept)].astype(float)
    df = (table.shape[0] - 1) * (table.shape[1] - 1) if table.size else 0
    if df == 0:
        notes.append("no test: want at least two levels with records in each column")
        return _row(None, df) | {"cramers_v": None}, notes
    n = table.sum()
    expected = np.outer(table.sum(1), table.sum(0)) / n
    distance = np.abs(table - expected)
    plain = float(np.sum(distance**2 / expected))
    cramer = math.sqrt(min(1.0, plain / (n * (min(table.shape) - 1))))
    if question.options.correction and df == 1:
        notes.append("Yates's continuity correction; Cramer's V without it")
        plain = float(np.sum((distance - np.minimum(0.5, distance)) ** 2 / expected))
    elif question.options.correction:
        notes.append("no continuity correction: the table is not 2 x 2")
    return _row(plain, df) | {"cramers_v": cramer}, notes


def _fit(observed: NDArray[np.int64], expected: m.Floats) -> tuple[dict[str, Any], list[str]]:
    df = len(observed) - 1
    if df == 0 or not observed.any():
        return _row(None, df), ["no test: want at least two levels and one record"]
    return _row(float(np.sum((observed - expected) ** 2 / expected)), df), []


def _row(statistic: float | None, df: int) -> dict[str, Any]:
    from scipy import stats

    p_value = None if statistic is None else float(stats.chi2.sf(statistic, df))
    return {"statistic": statistic, "df": df, "p_value": p_value}
