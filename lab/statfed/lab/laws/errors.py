"""Law of private figures: what noise does to them, their standard errors and limits say.

A standard error that leaves the noise out is a wrong figure that no other law sees. The same sums are released again
and again with noise drawn anew, so much of it that sampling is small beside it: a figure must then not differ between
releases by more than its standard error says, and its limits must hold its middle. Fixed seeds; factors are so generous
that chance breaks none.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core.errors import Refused, UsageError
from statfed.core.result import Result
from statfed.core.terms import Terms
from statfed.lab.laws.check import holds
from statfed.lab.laws.walk import finished

if TYPE_CHECKING:
    import pandas as pd

DRAWS, OFTEN = 30, 20
"""Releases, and how many of them have to show a figure for it to be looked at."""
MOST = 2.0
"""Spread over standard error: half the distance of the 16 and 84 % points over the median; 1 where all is right."""
LEAST = 0.6
"""Share of limits, of nominal 95 %, that hold the middle of all releases."""
EPSILONS = (0.1, 2.0)
"""From noise that hides most to little, for figures that are withheld under much of it."""
ERROR, NORMAL = "std_error", 1.96
VALUES = ("estimate", "correlation", "mean", "survival", "median", "accuracy", "rmse", "total", "count")


@dataclass(frozen=True)
class Figure:
    """A figure of a row. place: table, column and what says which row it is. NaN for what is not told."""

    place: tuple[Any, ...]
    value: float
    error: float
    lower: float
    upper: float


def figures(result: Result) -> Iterator[Figure]:
    """Every figure of a result that has a standard error or limits.

    `x_std_error` is that of x; `std_error`, `lower` and `upper` are those of the row's estimate. Limits are those of
    the normal distribution where there are no others.
    """
    for table, rows in result.tables.items():
        places = result.places(table)
        for row in rows:
            at = tuple(row.get(key) for key in places)
            for value, error in _pairs(row):
                shown = _number(row.get(value))
                deviation = _number(row.get(error))
                own = error == ERROR and "lower" in row and "lower" not in places
                ends = (_number(row["lower"]), _number(row["upper"])) if own else (shown, shown)
                half = 0.0 if own else NORMAL * deviation
                if np.isfinite([shown, *ends]).all() and np.isfinite(half):
                    yield Figure((table, value, *at), shown, deviation, ends[0] - half, ends[1] + half)


def _pairs(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in row:
        if key.endswith(f"_{ERROR}"):
            yield key.removesuffix(f"_{ERROR}"), key
    main = next((key for key in VALUES if key in row), None)
    if main is not None and (ERROR in row or {"lower", "upper"} <= row.keys()):
        yield main, ERROR


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def told(terms: Terms, frame: "pd.DataFrame") -> list[float]:
    """Spread over standard error of every figure of private releases of the same sums. Raises Broken where one says too
    little of its noise."""
    ratios = []
    for epsilon in EPSILONS:
        privacy = terms.privacy and terms.privacy.model_copy(update={"epsilon": epsilon})
        drawn, kept = defaultdict(list), dict[tuple[Any, ...], Any]()
        for seed in range(DRAWS):
            asked = terms.model_copy(update={"privacy": privacy})
            try:
                result = finished(asked, {terms.holders[0]: frame}, seed=seed, kept=kept)
            except (Refused, UsageError):  # too much noise for an answer
                continue
            for figure in figures(result):
                drawn[figure.place].append((figure.value, figure.error, figure.lower, figure.upper))
        for place, each in drawn.items():
            if len(each) < OFTEN:
                continue
            value, error, lower, upper = np.array(each).T
            middle = np.median(value)
            where = f"{place[0]}: {place[1]} of {', '.join(map(str, place[2:])) or 'all'}, epsilon {epsilon:g}"
            held = float(np.mean((lower <= middle) & (middle <= upper)))
            holds(
                held >= LEAST,
                f"{where}: {held:.0%} of 95 % limits hold the middle of {DRAWS} releases; want nearly all",
            )
            if np.isfinite(error).all():
                ends = np.quantile(value, [0.16, 0.84])
                spread, stated = float(ends[1] - ends[0]) / 2, float(np.median(error))
                text = f"{where}: std_error {stated:.4g}, but releases differ by {spread:.4g}; want the noise in it"
                holds(spread <= MOST * stated, text)
                ratios.append(spread / stated if stated else 0.0)
    return ratios
