"""Lifetimes on an agreed time grid, so that no individual time leaves a holder: shared by `survival` and `cox`.

The grid is public and follows from the options and the codebook's bounds of the time column. A time counts as the end
of the grid interval it lies in (it is rounded up), an entry as the end of the interval before (rounded down), so that
a record that is followed for any time at all is at risk in one interval at least. Data that are on the grid already,
such as whole days with interval 1, are not changed. Within an interval events come before censorings, and a record is
at risk at grid times t with entry < t <= time (R's convention for `Surv(entry, time, event)`; lifelines counts t =
entry as well). Records with a missing value, or whose entry is not before their time, are left out; the latter are told
as such (R's `Surv` makes them missing, with a warning).

With `start`, time and entry are dates too, and what is counted are the days from start. A time before its start is a
mistake of the data: `ordered` refuses it, and `follow` leaves the record out where nobody may be told (with privacy).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import ibis
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.method import Counts, Part
from statfed.core.result import check_places
from statfed.core.section import Section
from statfed.core.table import Expr, Table

INTERVALS = 200  # of the default grid, but for whole numbers
WHOLE = 4000  # whole numbers, at most, that are grid times of their own by default: ten years of days
PRIVATE = 1000  # of those with privacy, where every grid time has noise
MOST = 500  # grid times given one by one: they become a case expression of the database
SUMS = 1000  # in one statement: PostgreSQL takes 1,664 at most
BYTES = 2**26  # largest contribution to one ask
TOLERANCE = 1e-9  # of an interval: a time this little above a grid time is that grid time


class Lifetimes(Section):
    """Options that say how long records were followed and why that ended."""

    time: str = Field(description="column with the time at which following ended, counted from 0; a date with start")
    start: str | None = Field(
        default=None, description="date column from which time and entry, then dates too, are counted in days"
    )
    event: str = Field(description="column that tells an event (true or 1) from censoring (false or 0)")
    entry: str | None = Field(default=None, description="column with the time from which on records were at risk")
    interval: float | None = Field(
        default=None,
        gt=0,
        description=f"width of the time grid; default 1 for whole numbers, bounds up to {WHOLE} apart (with privacy "
        f"{PRIVATE}), else range/{INTERVALS}",
    )
    grid: tuple[float, ...] = Field(
        default=(), description="grid times instead of an interval, increasing; following ends with the last"
    )


@dataclass(frozen=True)
class Grid:
    """Interval ends, increasing: `ends[i]` stands for times in (ends[i - 1], ends[i]].

    width: ends are whole multiples of it; None for given grid times, after the last of which following ends. unit: what
    times are, where they are differences.
    """

    ends: tuple[float, ...]
    width: float | None
    unit: str = ""

    def __len__(self) -> int:
        return len(self.ends)

    def exit(self, time: Expr) -> Expr:
        """Index of the interval that a time lies in; of the last one for times after the grid."""
        if self.width is None:
            return _position(time, self.ends[:-1], closed=True)
        return (time / self.width - TOLERANCE).ceil().cast("int64") - self._first

    def enter(self, entry: Expr) -> Expr:
        """Index of the first interval that a record is at risk in: the first that ends after its entry."""
        if self.width is None:
            return _position(entry, self.ends, closed=False)
        index = (entry / self.width + TOLERANCE).floor().cast("int64") + 1 - self._first
        return ibis.greatest(index, 0)

    @property
    def _first(self) -> int:
        return round(self.ends[0] / self.width) if self.width else 0

    def note(self) -> str:
        """What the grid does to times, in a sentence."""
        if self.width is None:
            ends = "the grid times"
            after = f"; following ends at {self.ends[-1]:g}"
        else:
            ends, after = f"whole multiples of {self.width:g}", ""
        times = f"Times are {self.unit}," if self.unit else "Times are"
        return f"{times} rounded up to {ends}{after}; within an interval events come before censorings."


def make_grid(codebook: Codebook, options: Lifetimes) -> Grid:
    """The grid that both ends agree on. Raises UsageError when options and codebook do not give one."""
    low, high, whole = _days(codebook, options) if options.start else _range(codebook, options.time)
    unit = f"days from {options.start} to {options.time}" if options.start else ""
    if options.grid:
        ends = options.grid
        if len(ends) > MOST:
            raise UsageError(f"grid: got {len(ends)} times; want {MOST} at most, or an interval")
        if options.interval is not None:
            raise UsageError("grid, interval: got both; want one of them")
        if any(b <= a for a, b in itertools.pairwise(ends)) or ends[0] < low or ends[-1] <= 0:
            raise UsageError(f"grid: got {_listed(ends)}; want increasing times above 0, none below {low:g}")
        return Grid(ends, None, unit)
    if high is None:
        bound = (
            f"{options.start}, {options.time}: got no low and high" if options.start else f"{options.time}: got no high"
        )
        raise UsageError(f"time: {bound} in the codebook; want {'both' if options.start else 'one'}, or grid times")
    width = options.interval or _width(whole, low, high)
    first, last = (math.ceil(bound / width - TOLERANCE) for bound in (low, high))
    if last - first >= 1_000_000:
        raise UsageError(f"interval: got {width:g}, {last - first + 1} intervals; want a wider one")
    return Grid(tuple(float(f"{i * width:.12g}") for i in range(first, last + 1)), width, unit)


def private_interval(codebook: Codebook, options: Lifetimes) -> float | None:
    """Default width of the grid of a private study; None where the codebook has no end for one."""
    low, high, whole = _days(codebook, options) if options.start else _range(codebook, options.time)
    return None if high is None else _width(whole, low, high, PRIVATE)


def _width(whole: bool, low: float, high: float, most: int = WHOLE) -> float:
    if whole:
        return 1.0 if high - low <= most else float(math.ceil((high - low) / INTERVALS))
    return (high - low) / INTERVALS or 1.0


def _range(codebook: Codebook, name: str) -> tuple[float, float | None, bool]:
    """Lowest and highest time, and whether times are whole numbers."""
    column = _followed(codebook, name, "time")
    return cast(float, column.low), column.high, column.type == "integer"


def _days(codebook: Codebook, options: Lifetimes) -> tuple[float, float | None, bool]:
    """As `_range`, of the days from one date to another."""
    end, start = _date(codebook, options.time, "time"), _date(codebook, options.start or "", "start")
    low = 0.0 if end.low is None or start.high is None else max(0.0, end.low - start.high)
    high = None if end.high is None or start.low is None else end.high - start.low
    if high is not None and high <= 0:
        raise UsageError(f"time: {options.time}: got no day after {options.start} in the codebook; want later ones")
    return low, high, True


def _date(codebook: Codebook, name: str, where: str) -> Column:
    column = codebook.column(name, where)
    if column.type != "date":
        want = "date: with start, time and entry are dates that days are counted to"
        raise UsageError(f"{where}: {name}: got type {column.type}; want {want}")
    return column


def _followed(codebook: Codebook, name: str, where: str) -> Column:
    if codebook.column(name, where).type == "date":
        raise UsageError(
            f"{where}: {name}: got type date; want a number, or a start: the date from which it is counted"
        )
    column = codebook.number(name, where)
    if column.type == "boolean":
        raise UsageError(f"{where}: {name}: got type boolean; want number or integer")
    if column.low is None or column.low < 0:
        got = "no low" if column.low is None else f"low {column.low:g}"
        raise UsageError(f"{where}: {name}: got {got} in the codebook; want a low of 0 or more: times count from 0")
    return column


def check(codebook: Codebook, options: Lifetimes, by: Sequence[str], numbers: int) -> tuple[str, ...]:
    """Columns that the options read, `by` included. numbers: float64 values of the largest ask per grid time and cell.

    Raises UsageError on options that do not fit the codebook, and on contributions of absurd size.
    """
    intervals = len(make_grid(codebook, options))
    _event(codebook, options.event)
    if options.entry is not None:
        (_date if options.start else _followed)(codebook, options.entry, "entry")
    check_places(by)
    if len(set(by)) < len(by):
        raise UsageError(f"group, strata: got {', '.join(by)}; want each column once")
    cells = math.prod(len(codebook.category(name, "group, strata").levels) for name in by)
    size = 8 * intervals * cells * numbers
    if size > BYTES:
        raise UsageError(
            f"interval: got {intervals} intervals x {cells} cells x {numbers} numbers = {size / 2**20:.0f} MiB for "
            f"every ask; want {BYTES / 2**20:.0f} MiB at most: choose a wider interval"
        )
    return (*times(options), options.event, *by)


def times(options: Lifetimes) -> tuple[str, ...]:
    """Columns that say how long a record was followed."""
    return tuple(name for name in (options.time, options.start, options.entry) if name)


def ordered(complete: Table, options: Lifetimes) -> None:
    """Raise UsageError where a time is before its start. complete: records complete in both."""
    if (
        options.start
        and complete.aggregate(n=(complete[options.time] < complete[options.start]).ifelse(1, 0).sum())["n"]
    ):
        raise UsageError(
            f"time, start: got records whose {options.time} is before {options.start}; want them right, or missing"
        )


def _event(codebook: Codebook, name: str) -> Column:
    column = codebook.column(name, "event")
    coded = column.type == "integer" and column.bounds and column.bounds[0] >= 0 and column.bounds[1] <= 1
    if column.type == "boolean" or coded or (column.type == "category" and set(column.levels) <= {"0", "1"}):
        return column
    raise UsageError(f"event: {name}: got type {column.type}; want boolean, or 0 and 1 as bounds or categories")


def follow(table: Table, options: Lifetimes, by: Sequence[str], **values: Expr) -> Expr:
    """Records as an Ibis table: `level_i` for `by`, `exit`, `event` (1 or 0), with an entry `enter`, and `values`.

    table: records complete in all columns that are read; values are expressions on it.
    """
    grid = make_grid(table.codebook, options)
    time = _counted(table, options, options.time)
    kind = _event(table.codebook, options.event).type
    event = table[options.event] if kind == "boolean" else table[options.event] == ("1" if kind == "category" else 1)
    if grid.width is None:
        event = event & (time <= grid.ends[-1])
    columns = {f"level_{i}": table[name].cast("string") for i, name in enumerate(by)}
    columns |= {"exit": grid.exit(time), "event": event.ifelse(1, 0)}
    expr = table.expr.filter(time >= 0) if options.start else table.expr
    if options.entry is None:
        return expr.select(**columns, **values)
    entry = _counted(table, options, options.entry)
    kept = expr.filter(entry < time)
    rows = kept.select(**columns, enter=grid.enter(entry), **values)
    return rows.filter(rows["enter"] <= rows["exit"])


def _counted(table: Table, options: Lifetimes, name: str) -> Expr:
    """A time as a number, from the start if there is one."""
    if options.start is None:
        return table.number(name)
    return (table[name] - table[options.start]).cast("float64")


def tally(
    rows: Expr, codebook: Codebook, by: Sequence[str], keys: Mapping[str, int], values: Sequence[Expr]
) -> NDArray[Any]:
    """Aggregates of `rows` in every cell, computed in the database: shape (*levels of by, *sizes of keys, values).

    keys: columns of 0, 1, ... to the number of them. int64 when all aggregates are, else float64; 0 in empty cells.
    Raises UsageError on a category or time outside the codebook: it names the column only.
    """
    shape = (*(len(codebook.category(name).levels) for name in by), *keys.values(), len(values))
    tallied: NDArray[Any] = np.zeros(shape, np.int64)
    for start in range(0, len(values), SUMS):
        some = values[start : start + SUMS]
        found = listed(rows, codebook, by, keys, some)
        cells = [*(found[f"level_{i}"] for i in range(len(by))), *(found[name] for name in keys)]
        for i in range(len(some)):
            sums = found[f"value_{i}"]
            tallied = tallied.astype(np.result_type(tallied, sums), copy=False)
            tallied[(*cells, np.full(len(sums), start + i))] = sums
    return tallied


def listed(
    rows: Expr,
    codebook: Codebook,
    by: Sequence[str],
    keys: Mapping[str, int],
    values: Sequence[Expr],
    beside: Sequence[str] = (),
) -> dict[str, NDArray[Any]]:
    """Aggregates of `rows` in the cells that have some: places of `by` as `level_i`, of `keys`, `value_i`.

    beside: columns that the cells are by as well, as they are. Raises UsageError as `tally`.
    """
    names = [f"level_{i}" for i in range(len(by))]
    found = rows.group_by([*names, *keys, *beside]).aggregate(**{f"value_{i}": x for i, x in enumerate(values)})
    arrow = found.to_pyarrow()
    made: dict[str, NDArray[Any]] = dict(zip(names, _codes(arrow, codebook, by), strict=True))
    made |= dict(zip(keys, _indices(arrow, keys), strict=True))
    made |= {name: np.array(arrow.column(name).to_pylist(), object) for name in beside}
    return made | {f"value_{i}": arrow.column(f"value_{i}").to_numpy() for i in range(len(values))}


def counted(codebook: Codebook, options: Lifetimes, by: Sequence[str]) -> dict[str, Part]:
    """Parts of `count`: `exits` (*levels of by, T, 2) without and with an event, with an entry `entered` (..., T)."""
    shape = (*(len(codebook.category(name).levels) for name in by), len(make_grid(codebook, options)))
    times = Counts((*by, options.time))
    exits = {"exits": Part((*shape, 2), 1, integer=True, single=True, what=Counts((*times.by, options.event)))}
    return exits | ({"entered": Part(shape, 1, integer=True, single=True, what=times)} if options.entry else {})


def count(rows: Expr, codebook: Codebook, options: Lifetimes, by: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """Numbers of records by interval of exit and kind, and by first interval at risk. rows: as `follow` gives them."""
    size, number = len(make_grid(codebook, options)), [rows.count()]
    exits = {"exits": tally(rows, codebook, by, {"exit": size, "event": 2}, number)[..., 0]}
    if options.entry is None:
        return exits
    return exits | {"entered": tally(rows, codebook, by, {"enter": size}, number)[..., 0]}


def not_followed_part(options: Lifetimes) -> dict[str, Part]:
    """With an entry, public facts of the number of complete records that `follow` leaves out."""
    one = Part(bound=1, integer=True, single=True, what=Counts(beside="not_followed"))
    return {"not_followed": one} if options.entry else {}


def not_followed(complete: Table, options: Lifetimes, exits: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """What `not_followed_part` announces. exits: of `count`."""
    if options.entry is None:
        return {}
    return {"not_followed": np.array(complete.aggregate(n=complete.expr.count())["n"] - exits.sum(), np.int64)}


def left_out_of(total: Mapping[str, Any]) -> dict[str, int]:
    """The fact `left_out`, of records without a variable of the design and of those that are not followed; if asked."""
    known = [int(total[name]) for name in ("left_out", "not_followed") if name in total]
    return {"left_out": sum(known)} if known else {}


def not_followed_notes(options: Lifetimes, total: Mapping[str, Any]) -> list[str]:
    """Why records were left out, if some were."""
    some = "not_followed" in total and int(total["not_followed"]) > 0
    return [f"Records whose {options.entry} is not before their {options.time} are left out."] if some else []


def _codes(arrow: Any, codebook: Codebook, by: Sequence[str]) -> list[NDArray[np.int64]]:
    codes = []
    for i, name in enumerate(by):
        place = {level: i for i, level in enumerate(codebook.category(name).levels)}
        codes.append(np.array([place.get(code, -1) for code in arrow.column(f"level_{i}").to_pylist()], np.int64))
        _inside(codes[-1], len(place), name)
    return codes


def _indices(arrow: Any, keys: Mapping[str, int]) -> list[NDArray[np.int64]]:
    indices = []
    for name, size in keys.items():
        indices.append(arrow.column(name).to_numpy().astype(np.int64))
        _inside(indices[-1], size, "time")
    return indices


def _inside(index: NDArray[np.int64], size: int, column: str) -> None:
    if len(index) and (index.min() < 0 or index.max() >= size):
        raise UsageError(f"{column}: got a value outside the codebook; want those it lists")


def _position(value: Expr, splits: Sequence[float], closed: bool, low: int = 0) -> Expr:
    """low + the number of increasing `splits` below `value` (not closed: or equal to it), by bisection in SQL."""
    if not splits:
        return ibis.literal(low, "int64")
    middle = len(splits) // 2
    left = value <= splits[middle] if closed else value < splits[middle]
    return ibis.ifelse(
        left,
        _position(value, splits[:middle], closed, low),
        _position(value, splits[middle + 1 :], closed, low + middle + 1),
    )


def at_risk(exits: NDArray[Any], entered: NDArray[Any] | None = None, axis: int = -1) -> NDArray[Any]:
    """Sums over the records at risk at each grid time, from sums by interval of exit and of first interval at risk."""
    remaining = np.flip(np.cumsum(np.flip(exits, axis), axis), axis)
    if entered is None:
        return remaining
    ahead = np.flip(np.cumsum(np.flip(entered, axis), axis), axis) - entered
    return cast(NDArray[Any], remaining - ahead)


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
