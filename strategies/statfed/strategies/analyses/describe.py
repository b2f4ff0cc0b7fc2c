"""`describe`: count, missing, mean, variance, range of plausible error for each column, from two protected sums.

The first sum gives counts and means; the second the squares around those means (see `_moments`). Variance has divisor
n - 1; `std_error` is that of the mean under simple random sampling without finite population correction.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Part, Question
from statfed.core.result import Basis, Result, Row
from statfed.core.section import Section
from statfed.core.table import Table
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _moments as m

TITLE = "Count, missing values, mean, variance and standard error of columns"
GROUP = "Estimates"
PUSHES_DOWN = "all"

_ORDERS = (1, 2)


class Options(Section):
    """Options of describe."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns")


def columns(question: Question[Options]) -> tuple[str, ...]:
    for name in question.options.columns:
        question.codebook.number(name, "columns")
    return question.options.columns


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    bounds = [question.codebook.columns[name].bounds for name in question.options.columns]
    if ask.name == "means":
        return {
            "records": Part(bound=1, integer=True, single=True, what=Counts(beside="count")),
            **m.sum_parts(bounds, question.codebook, ()),
        }
    if ask.name == "squares":
        return m.power_parts(bounds, ask.arrays["mean"], _ORDERS)
    raise UsageError(f"describe: unknown ask: got {ask.name!r}; want means or squares")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    numbers = [table.number(name) for name in question.options.columns]
    if ask.name == "means":
        return m.sums(table, numbers, records=True)
    return m.powers(table, numbers, ask.arrays["mean"], _ORDERS)


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    numbers = [table.number(name) for name in question.options.columns]
    if ask.name == "means":
        return m.sums_weigh(table, numbers)
    return m.powers_weigh(table, numbers, ask.arrays["mean"], _ORDERS)


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells(values=question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    first = yield Ask("means")
    centre = m.centres(first)
    second = yield Ask("squares", {"mean": centre})
    records, found = int(first["records"]), m.moments(first["count"], centre, second)
    rows: list[Row] = []
    for i, name in enumerate(question.options.columns):
        n, variance = int(found.count[i]), found.variance[i]
        rows.append(
            {
                "column": name,
                "count": n,
                "missing": records - n,
                "mean": m.finite(found.mean[i]),
                "variance": m.finite(variance),
                "std_dev": m.finite(np.sqrt(variance)),
                "std_error": m.finite(np.sqrt(variance / n)) if n else None,
                "unit": question.codebook.columns[name].unit,
            }
        )
    own = ("mean", "variance", "std_dev", "std_error")
    basis = Basis(keys=("column", "unit"), counts=("count",), own=own, numbers=("missing",))
    return Result(
        "describe",
        "Description of columns",
        {"columns": rows},
        {"records": records},
        basis={"columns": basis},
        observations="records",
    )
