"""Moments of columns in two protected sums: counts and means first, then powers of the deviations from those means.

Deviations are taken from a centre that every holder is told, so that nothing cancels; what the rounding of the centre
leaves over is removed with the first power (corrected two-pass algorithm, Chan, Golub and LeVeque 1983). Moments come
for several columns at once and, with `by`, in every combination of levels: arrays have shape (columns, *levels).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Counts, Magnitude, Part
from statfed.core.result import check_places
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Weighed

Bounds = tuple[float, float] | None
Floats = NDArray[np.float64]
SMALLEST = 1e-140  # variance whose own square float64 holds with all its digits
UNHELD = "no standard errors of variances whose squares float64 does not hold: want another unit of the column"


def by_level(
    table: Table, by: Sequence[str], leaf: Callable[[tuple[int, ...]], Expr], at: tuple[int, ...] = ()
) -> Expr:
    """For each record `leaf(i, j, ...)` of its own levels of `by`; records with a missing value in `by` get any."""
    import ibis

    if not by:
        return leaf(at)
    levels = table.codebook.category(by[0]).levels
    values = [by_level(table, by[1:], leaf, (*at, i)) for i in range(len(levels))]
    code = table[by[0]].cast("string")
    branches = [(code == level, value) for level, value in zip(levels[:-1], values[:-1], strict=True)]
    return ibis.cases(*branches, else_=values[-1]) if branches else values[-1]


def level_shape(codebook: Codebook, by: Sequence[str]) -> tuple[int, ...]:
    """Number of levels of each column of `by`."""
    return tuple(len(codebook.category(name).levels) for name in by)


def level_rows(codebook: Codebook, by: Sequence[str]) -> list[tuple[tuple[int, ...], dict[str, str]]]:
    """Every combination of levels: its indices and its values under the names of `by`."""
    levels = [codebook.category(name).levels for name in by]
    return [
        (at, {name: level[i] for name, level, i in zip(by, levels, at, strict=True)})
        for at in np.ndindex(level_shape(codebook, by))
    ]


def check_columns(codebook: Codebook, columns: Sequence[str], by: Sequence[str] = (), *, bounded: bool = False) -> None:
    """Numeric columns and grouping columns, each named once. Raises UsageError; with `bounded`, also without bounds."""
    named = [*columns, *by]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise UsageError(f"columns, by: got {', '.join(twice)} more than once; want each column once")
    for name in columns:
        column = codebook.number(name, "columns")
        if bounded and column.bounds is None:
            raise UsageError(f"columns: {name}: got no bounds in the codebook; want low and high")
    for name in by:
        codebook.category(name, "by")
    check_places(by)


def frame(codebook: Codebook, name: str) -> tuple[float, float]:
    """Middle and half width of a column's bounds, so that (x - middle)/half lies in [-1, 1]; half width 1 where the
    bounds are one value. Raises UsageError when there are no bounds."""
    bounds = codebook.column(name).bounds
    if bounds is None:
        raise UsageError(f"columns: {name}: got no bounds in the codebook; want low and high")
    return (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2 or 1.0


def largest(bounds: Bounds) -> float:
    """The largest absolute value within bounds; infinite without them."""
    return max(abs(bounds[0]), abs(bounds[1])) if bounds else np.inf


def reach(bounds: Sequence[Bounds], centre: Floats) -> Floats:
    """The largest distance of a value of each column from its centres (columns, ...); infinite without bounds."""
    wide = np.full(centre.shape, np.inf)
    for i, limits in enumerate(bounds):
        if limits:
            wide[i] = np.maximum(np.abs(centre[i] - limits[0]), np.abs(limits[1] - centre[i]))
    return wide


def sum_parts(bounds: Sequence[Bounds], codebook: Codebook, by: Sequence[str]) -> dict[str, Part]:
    """Parts of `sums` for columns with these bounds, in the cells of `by`."""
    shape = level_shape(codebook, by)
    full = (len(bounds), *shape)
    one_cell = len(bounds) == 1
    limits = np.array([largest(b) for b in bounds]).reshape(-1, *[1] * len(shape)) * np.ones(full)
    return {
        "count": Part(full, 1.0, integer=True, single=one_cell, what=Counts(tuple(by))),
        "sum": Part(full, limits, single=one_cell, what=Magnitude("count")),
    }


def sums(table: Table, numbers: Sequence[Expr], by: Sequence[str] = (), *, records: bool = False) -> Arrays:
    """Count and sum of each number in each cell: `count` int64 and `sum` float64.

    records: also `records`, of shape (*levels): their number in each cell, whether values are missing or not.
    """
    import ibis

    asked = {f"count_{i}": x.count() for i, x in enumerate(numbers)}
    asked |= {f"sum_{i}": x.sum() for i, x in enumerate(numbers)}
    found = table.grid(by, **asked, **({"records": ibis._.count()} if records else {}))
    stacked = _stacked(found, {"count": np.int64, "sum": np.float64}, len(numbers))
    return {**stacked, "records": found["records"]} if records else stacked


def power_parts(bounds: Sequence[Bounds], centre: Floats, orders: Sequence[int]) -> dict[str, Part]:
    """Parts of `powers` about `centre`."""
    with np.errstate(over="ignore"):  # to no bound
        wide = {r: reach(bounds, centre) ** r for r in orders}
    return {f"power_{r}": Part(centre.shape, wide[r], single=len(bounds) == 1, what=Magnitude()) for r in orders}


def powers(
    table: Table, numbers: Sequence[Expr], centre: Floats, orders: Sequence[int], by: Sequence[str] = ()
) -> Arrays:
    """Sums of the powers `orders` of each number's deviation from its cell's centre: `power_1`, `power_2` ..."""
    asked: dict[str, Expr] = {}
    for i, x in enumerate(numbers):
        deviation = x - by_level(table, by, lambda at, i=i: real(centre[(i, *at)]))  # type: ignore[misc]
        power: Expr = deviation
        for order in range(1, max(orders) + 1):
            if order in orders:
                asked[f"power_{order}_{i}"] = power.sum()
            power = power * deviation
    return _stacked(table.grid(by, **asked), {f"power_{r}": np.float64 for r in orders}, len(numbers))


def sums_weigh(table: Table, numbers: Sequence[Expr], by: Sequence[str] = ()) -> Iterator[Weighed]:
    """How records weigh in `sums`."""
    yield Amounts(table.complete(by), tuple(numbers), tuple(by))


def powers_weigh(
    table: Table, numbers: Sequence[Expr], centre: Floats, orders: Sequence[int], by: Sequence[str] = ()
) -> Iterator[Weighed]:
    """How records weigh in `powers`."""
    amounts: list[Expr] = []
    for i, x in enumerate(numbers):
        deviation = x - by_level(table, by, lambda at, i=i: real(centre[(i, *at)]))  # type: ignore[misc]
        amounts += [deviation**order if order > 1 else deviation for order in orders]
    yield Amounts(table.complete(by), tuple(amounts), tuple(by))


def _stacked(found: Arrays, kinds: Mapping[str, type], columns: int) -> Arrays:
    return {
        key: np.stack([np.asarray(found[f"{key}_{i}"], kind) for i in range(columns)]) for key, kind in kinds.items()
    }


@dataclass(frozen=True)
class Moments:
    """Pooled moments of each column in each cell; arrays (columns, *levels), NaN where there are too few records.

    mean: centre + shift; a difference of means that lie far from 0 keeps its digits as that of both by itself.
    squares: sum of squared deviations from the mean, exactly 0 where the values do not differ beyond rounding.
    variance: divisor n - 1, wants two records. kurtosis: mean fourth power of the deviations over the squared variance,
    NaN if not asked for, where values do not differ, and where float64 does not hold fourth powers.
    """

    count: NDArray[np.int64]
    centre: Floats
    shift: Floats
    mean: Floats
    squares: Floats
    variance: Floats
    kurtosis: Floats


def squares_fit(variance: Floats) -> NDArray[np.bool_]:
    """Does float64 hold the squares of these variances? Standard errors of variances are made of them."""
    return np.asarray((variance == 0) | ((variance > SMALLEST) & (variance < 1 / SMALLEST)))


def centres(first: Arrays) -> Floats:
    """The means that `powers` is asked about, from the total of `sums`; 0 in empty cells."""
    count = np.broadcast_to(first["count"], first["sum"].shape)
    means: Floats = np.divide(first["sum"], count, out=np.zeros(count.shape), where=count > 0)
    return means


def moments(count: NDArray[np.int64], centre: Floats, total: Arrays) -> Moments:
    """Moments from counts and the total of `powers` about `centre`."""
    some = np.where(count > 0, count, np.nan)
    shift = total["power_1"] / some
    squares = np.maximum(total["power_2"] - some * shift**2, 0.0)
    mean = centre + shift
    squares = np.where(squares <= some * (4 * np.finfo(float).eps * np.abs(mean)) ** 2, 0.0, squares)
    variance = squares / np.where(count > 1, count - 1, np.nan)
    kurtosis = np.full(count.shape, np.nan)
    if "power_4" in total:
        unit = np.sqrt(np.where(squares_fit(variance) & (variance > 0), variance, np.nan))
        one = shift / unit
        powers = {order: total[f"power_{order}"] / unit**order for order in (2, 3, 4)}
        fourth = powers[4] - 4 * one * powers[3] + 6 * one**2 * powers[2]
        kurtosis = np.maximum(fourth / some - 3 * one**4, 0.0)
    return Moments(count, centre, shift, mean, squares, variance, kurtosis)


def finite(value: float) -> float | None:
    """A number for a result row: None for NaN and infinities, which JSON does not have."""
    return float(value) if np.isfinite(value) else None
