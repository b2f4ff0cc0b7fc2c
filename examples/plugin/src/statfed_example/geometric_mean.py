"""`geometric-mean`: geometric means of positive columns, in domains, with standard errors, from one protected sum.

G = exp(mean of log x). Its standard error under simple random sampling is G s / sqrt(n), s the standard deviation of
log x (delta method). Holders send counts, sums and sums of squares of y = (log x - middle) / half, where middle and
half are those of the logarithms of the codebook's bounds: public constants with which y lies in [-1, 1]. With noise the
standard error adds the variance of the noise in count and sum.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from pydantic import Field

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Magnitude, Part, Question, fixed
from statfed.core.result import Basis, Result
from statfed.core.section import Section
from statfed.core.table import Table, real

TITLE = "Geometric means of positive columns, with standard errors, also in groups"
GROUP = "Estimates"
PUSHES_DOWN = "all"
NOTE = "standard errors: simple random sampling without finite population correction, delta method"


class Options(Section):
    """Options of geometric-mean."""

    columns: tuple[str, ...] = Field(min_length=1, description="numeric columns whose values are above 0")
    by: tuple[str, ...] = Field(default=(), max_length=4, description="grouping columns (category or boolean)")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    for name in options.columns:
        _frame(question.codebook, name)
    for name in options.by:
        question.codebook.category(name, "by")
    named = (*options.columns, *options.by)
    if len(set(named)) < len(named):
        raise UsageError(f"columns, by: got {', '.join(named)}; want each column once")
    return named


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("logarithms")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "logarithms":
        raise UsageError(f"geometric-mean: unknown ask: got {ask.name!r}; want logarithms")
    shape = tuple(len(question.codebook.category(name).levels) for name in question.options.by)
    found = {}
    for i in range(len(question.options.columns)):
        counts = Magnitude(f"count_{i}")
        found[f"count_{i}"] = Part(shape, 1.0, integer=True, single=True, what=Counts(question.options.by))
        found[f"sum_{i}"] = Part(shape, 1.0, single=True, what=counts)
        found[f"squares_{i}"] = Part(shape, 1.0, single=True, share=0.5, what=counts)  # for the standard error
    return found


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:  # noqa: ARG001
    values: dict[str, Any] = {}
    for i, name in enumerate(question.options.columns):
        middle, half = _frame(question.codebook, name)
        y = ((table.number(name).ln() - real(middle)) / real(half)).clip(real(-1.0), real(1.0))  # rounding may leave it
        values |= {f"count_{i}": y.count(), f"sum_{i}": y.sum(), f"squares_{i}": (y * y).sum()}
    found = table.grid(question.options.by, **values)
    return {name: np.asarray(a, np.int64 if name.startswith("count") else np.float64) for name, a in found.items()}


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells(question.options.by, question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    total = yield Ask("logarithms")
    by, rows = question.options.by, []
    levels = [question.codebook.category(name).levels for name in by]
    for i, name in enumerate(question.options.columns):
        middle, half = _frame(question.codebook, name)
        for at in np.ndindex(*(len(codes) for codes in levels)):
            n, first, second = (float(total[f"{key}_{i}"][at]) for key in ("count", "sum", "squares"))
            noise = [float(total.noise[f"{key}_{i}"][at]) for key in ("count", "sum")]
            row: dict[str, Any] = {"column": name, **{b: codes[j] for b, codes, j in zip(by, levels, at, strict=True)}}
            unit = question.codebook.columns[name].unit
            rows.append(row | _estimated(n, first, second, noise, middle, half) | {"unit": unit})
    basis = {"estimates": Basis(by, ("column", "unit"), ("count",), own=("estimate", "std_error"))}
    return Result("geometric-mean", "Geometric means", {"estimates": rows}, {}, (NOTE,), by, basis=basis)


def _estimated(n: float, first: float, second: float, noise: list[float], middle: float, half: float) -> dict[str, Any]:
    """A cell's count, estimate and standard error; noise: standard deviations of that in count and sum."""
    if n < 1:
        return {"count": max(0, int(n)), "estimate": None, "std_error": None}
    mean = min(1.0, max(-1.0, first / n))
    estimate = math.exp(middle + half * mean)
    if n < 2:
        return {"count": int(n), "estimate": estimate, "std_error": None}
    variance = max(0.0, second - n * mean**2) / (n - 1) / n + (noise[1] ** 2 + (mean * noise[0]) ** 2) / n**2
    return {"count": int(n), "estimate": estimate, "std_error": estimate * half * math.sqrt(variance)}


def _frame(codebook: Codebook, name: str) -> tuple[float, float]:
    """Middle and half width of the logarithms of a column's bounds. Raises UsageError unless those are above 0."""
    bounds = codebook.number(name, "columns").bounds
    if bounds is None or bounds[0] <= 0:
        raise UsageError(f"columns: {name}: got {bounds or 'no bounds'} in the codebook; want low above 0, and high")
    low, high = math.log(bounds[0]), math.log(bounds[1])
    return (low + high) / 2, (high - low) / 2 or 1.0


def example() -> tuple[dict[str, Any], Codebook, pd.DataFrame]:
    """For `statfed plugin check`: rents by region, skewed and with gaps."""
    codebook = make_codebook(
        {
            "columns": {
                "rent": {"type": "number", "low": 50, "high": 20_000, "unit": "EUR"},
                "rooms": {"type": "integer", "low": 1, "high": 20},
                "region": {"type": "category", "categories": ["north", "south", "west"]},
            }
        }
    )
    rng = np.random.default_rng(1)
    rent = np.clip(rng.lognormal(6.6, 0.5, 300), 50, 20_000).round(2)
    frame = pd.DataFrame({"rent": rent, "rooms": rng.integers(1, 8, 300)})
    frame["region"] = rng.choice(["north", "south", "west"], 300, p=[0.6, 0.3, 0.1])
    frame["rent"] = frame["rent"].where(rng.random(300) < 0.95)
    return {"columns": ["rent", "rooms"], "by": ["region"]}, codebook, frame
