"""`describe`: count, missing, mean, variance, range of plausible error for each column, from two protected sums.

The first sum gives counts and means; the second the squares around those means, so that nothing cancels (two-pass
algorithm, Chan, Golub and LeVeque 1983). Variance has divisor n - 1; `std_error` is that of the mean under simple
random sampling without finite population correction.
"""

import math
from collections.abc import Mapping

import numpy as np
from pydantic import Field

from statfed.core.analysis import Arrays, Ask, Cells, Coordination, Part, Question
from statfed.core.errors import UsageError
from statfed.core.result import Result, Row
from statfed.core.study import Section
from statfed.core.table import Expr, Table

TITLE = "Count, missing values, mean, variance and standard error of columns"
GROUP = "Estimates"
PUSHES_DOWN = "all"


class Options(Section):
    """Options of describe."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns")


def columns(question: Question[Options]) -> tuple[str, ...]:
    for name in question.options.columns:
        question.codebook.number(name, "columns")
    return question.options.columns


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    names = question.options.columns
    bounds = np.array([_bound(question, name) for name in names])
    shape = (len(names),)
    if ask.name == "means":
        return {
            "records": Part(integer=True, bound=1),
            "count": Part(shape, integer=True, bound=1),
            "sum": Part(shape, bound=bounds),
        }
    if ask.name == "squares":
        return {"squares": Part(shape, bound=4 * bounds**2), "deviations": Part(shape, bound=2 * bounds)}
    raise UsageError(f"describe: unknown ask: got {ask.name!r}; want means or squares")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    names = question.options.columns
    numbers = [table.number(name) for name in names]
    if ask.name == "means":
        asked: dict[str, Expr] = {"records": table.expr.count()}
        asked |= {f"count_{i}": x.count() for i, x in enumerate(numbers)}
        asked |= {f"sum_{i}": x.sum() for i, x in enumerate(numbers)}
        found = table.aggregate(**asked)
        return {
            "records": np.array(found["records"], np.int64),
            "count": np.array([found[f"count_{i}"] for i in range(len(names))], np.int64),
            "sum": np.array([found[f"sum_{i}"] for i in range(len(names))], np.float64),
        }
    deviations = [x - float(mean) for x, mean in zip(numbers, ask.arrays["mean"], strict=True)]
    asked = {f"squares_{i}": (d * d).sum() for i, d in enumerate(deviations)}
    asked |= {f"deviations_{i}": d.sum() for i, d in enumerate(deviations)}
    found = table.aggregate(**asked)
    return {
        key: np.array([found[f"{key}_{i}"] for i in range(len(names))], np.float64) for key in ("squares", "deviations")
    }


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells(values=question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    first = yield Ask("means")
    count = first["count"]
    mean = np.divide(first["sum"], count, out=np.zeros(len(count)), where=count > 0)
    second = yield Ask("squares", {"mean": mean})
    squares = second["squares"] - np.divide(second["deviations"] ** 2, count, out=np.zeros(len(count)), where=count > 0)
    rows: list[Row] = []
    for i, name in enumerate(question.options.columns):
        n = int(count[i])
        variance = max(0.0, float(squares[i])) / (n - 1) if n > 1 else None
        rows.append(
            {
                "column": name,
                "count": n,
                "missing": int(first["records"]) - n,
                "mean": float(mean[i]) if n else None,
                "variance": variance,
                "std_dev": math.sqrt(variance) if variance is not None else None,
                "std_error": math.sqrt(variance / n) if variance is not None else None,
                "unit": question.codebook.columns[name].unit,
            }
        )
    return Result("describe", "Description of columns", {"columns": rows}, {"records": int(first["records"])})


def _bound(question: Question[Options], name: str) -> float:
    bounds = question.codebook.columns[name].bounds
    return max(abs(bounds[0]), abs(bounds[1])) if bounds else math.inf
