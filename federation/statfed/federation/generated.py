"""Records that are made up from a codebook alone: types, bounds, categories and roles, and nothing of anybody's data.

Columns are independent and uniform over what the codebook allows, so that nothing is learnt from them; they serve to
see a study run. Half of the records are drawn from what the study's conditions select, where single columns can say
that, since uniform values would rarely meet narrow ones.
"""

import operator
from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column, day_of
from statfed.core.conditions import Clause, Condition
from statfed.core.errors import UsageError
from statfed.core.randomness import stream
from statfed.federation.generated_keys import Rules, keyed

POOL = 4_000
"""Values of a column that are drawn to find some that conditions select."""
PERSONS, FIRMS, CLUSTERS = 0.8, 0.1, 0.05
"""Share of distinct persons, enterprises and sampling units in the records of a holder."""
_EPOCH, _SPAN = date(1970, 1, 1), 1_000.0
_THERE = {
    "integer": (-(2.0**53), 2.0**53),
    "date": (float((date.min - _EPOCH).days), float((date.max - _EPOCH).days)),
}
"""Whole numbers that a float tells apart, and days of the calendar."""
_ARROW = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_(), "date": pa.date32()}


def entries(codebook: Codebook, read: Collection[str]) -> int:
    """Values of one record as it is generated."""
    columns = codebook.columns.items()
    return sum((column.length or 1) if name in read or column.required else 1 for name, column in columns)


def generated(
    codebook: Codebook,
    records: int,
    holder: str,
    read: Collection[str],
    where: Sequence[Clause] = (),
    positive: Collection[str] = (),
    seed: int = 1,
    keys: Rules | None = None,
) -> pa.Table:
    """A table of one holder that fits the codebook, the same for the same arguments.

    read: columns that a study reads; others that have no role are one value throughout, or missing where that is an
    array. positive: columns that the study takes for weights. keys: columns by which units are matched, which have the
    same values at every holder. Raises UsageError where there are no values within the
    bounds.
    """
    columns, made = codebook.columns, dict[str, list[object]]()
    strata = codebook.with_role("stratum")
    for name in sorted(columns, key=lambda one: columns[one].role == "psu"):  # within its stratum
        column = columns[name]
        random = np.random.default_rng(stream(seed, "generated", holder, name).seed())
        if keys and name in keys:
            made[name] = keyed(column, name, records, keys[name], seed)
            continue
        if name not in read and not column.role:
            made[name] = [
                None if column.type == "array" else _drawn(column, name, 1, holder, random, False)[0]
            ] * records
            continue
        within = [made[stratum] for stratum in strata] if column.role == "psu" and not column.levels else []
        values = _drawn(column, name, records, holder, random, name in positive, within)
        selected = _selected(column, name, holder, random, where, name in positive)
        if selected:
            half = records // 2
            values[:half] = [selected[i] for i in random.integers(0, len(selected), half)]
        made[name] = values
    return pa.table({name: pa.array(made[name], _kind(columns[name])) for name in columns})


def _kind(column: Column) -> pa.DataType:
    return pa.list_(pa.float64()) if column.type == "array" else _ARROW.get(column.type, pa.string())


def _drawn(
    column: Column,
    name: str,
    records: int,
    holder: str,
    random: np.random.Generator,
    positive: bool,
    within: Sequence[Sequence[object]] = (),
) -> list[object]:
    """Values of one column. within: of the strata, in which sampling units lie."""
    if column.levels:
        codes = [code for code in column.levels if code not in column.missing] or list(column.levels)
        picked = [codes[i] for i in random.integers(0, len(codes), records)]
        return [code == "true" if column.type == "boolean" else code for code in picked]
    if column.type == "id":
        distinct = {"unit": PERSONS, "enterprise": FIRMS, "psu": CLUSTERS}.get(column.role or "", 1.0)
        groups = random.permutation(records) % max(1, round(distinct * records))
        stems = [f"{holder}-{name}-{one}" for one in groups]
        return ["/".join([*map(str, above), stem]) for *above, stem in zip(*within, stems, strict=True)]
    if column.type == "text":
        letters = random.integers(0, 26, (records, min(column.length or 1, 8)))
        return ["".join(chr(97 + one) for one in row) for row in letters]
    if column.type == "array":
        entries = _numbers(column, (records, column.length or 1), random, positive=False)
        return list(entries)
    values = _numbers(column, (records,), random, positive=positive)
    for _ in range(8):  # a code for missing is drawn anew, as far as the bounds leave something else
        struck = np.isin(values, [float(code) for code in column.missing if isinstance(code, float | int)])
        if not struck.any():
            break
        values[struck] = _numbers(column, (int(struck.sum()),), random, positive=positive)
    if column.type == "date":
        return [_EPOCH + timedelta(days=int(day)) for day in values]
    return [int(one) for one in values] if column.type == "integer" else list(map(float, values))


def _numbers(
    column: Column, shape: tuple[int, ...], random: np.random.Generator, *, positive: bool
) -> NDArray[np.float64]:
    low, high = _range(column)
    if positive or column.role == "weight":
        low = max(low, min(1.0, high) if column.type == "integer" else min(high, 1.0) / 1_000)
    if column.role == "record-key":
        low, high = max(low, 0.0), min(high, float(np.nextafter(1.0, 0.0)))
    if column.type in ("integer", "date"):
        low, high = float(np.ceil(low)), float(np.floor(high))
    if low > high:
        raise UsageError(f"got a column of type {column.type} with no value from {low:g} to {high:g}; want some")
    share = random.random(shape)
    if column.type in ("integer", "date"):
        return np.asarray(np.minimum(low + np.floor(share * (high - low + 1.0)), high))
    return np.clip(low * (1.0 - share) + high * share, low, high)  # high - low may be no number


def _range(column: Column) -> tuple[float, float]:
    """The bounds, or where an end is open one that lies a span away; of whole numbers and days those that there are."""
    low, high = column.low, column.high
    if low is None:
        low = 0.0 if high is None else high - _SPAN
    high = low + _SPAN if high is None else high
    least, most = _THERE.get(column.type, (-np.inf, np.inf))
    return max(low, least), min(high, most)


def _selected(
    column: Column, name: str, holder: str, random: np.random.Generator, where: Sequence[Clause], positive: bool
) -> list[object]:
    """Values of a column that all conditions on it alone select; none where nothing was found, or nothing is asked."""
    clauses = [clause for clause in where if set(clause.columns) == {name}]
    if not clauses or column.type in ("id", "text", "array"):
        return []
    pool = _drawn(column, name, POOL, holder, random, positive)
    low, high = _range(column)
    for one in (one for clause in clauses for one in clause.either if not column.levels):
        named = one.value if isinstance(one.value, tuple) else (one.value,)
        days = [float(day_of(value)) if column.type == "date" else value for value in named if value is not None]
        ends = [end + step for end in map(float, days) for step in (-1.0, 0.0, 1.0) if low <= end + step <= high]
        whole = [_EPOCH + timedelta(days=int(end)) if column.type == "date" else end for end in ends]
        pool += [int(end) if column.type == "integer" and isinstance(end, float) else end for end in whole]
    if not column.required and not column.role:
        pool.append(None)
    return [value for value in pool if all(any(_holds(value, one) for one in clause.either) for clause in clauses)]


def _holds(value: object, condition: Condition) -> bool:
    """Does a condition hold for one value of its column? A comparison with a missing value does not."""
    if condition.op in ("is null", "is not null"):
        return (value is None) == (condition.op == "is null")
    if value is None:
        return False
    told = str(value).lower() if isinstance(value, bool) else value.isoformat() if isinstance(value, date) else value
    wanted = condition.value
    match condition.op:
        case "in":
            return isinstance(wanted, tuple) and told in wanted
        case "==":
            return told == wanted
        case "!=":
            return told != wanted
    return _compared(told, condition.op, wanted)


def _compared(told: Any, op: str, wanted: Any) -> bool:
    """An order, of numbers or of ISO dates, which have theirs as texts."""
    if isinstance(told, str) != isinstance(wanted, str):
        return False
    return bool({"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[op](told, wanted))
