"""A holder's data under the codebook: what does not fit it, and the table that an analysis computes on.

The public view of a mismatch names the column and the rule and repeats the codebook; it holds no value, no count and
nothing of the data but that the rule is broken somewhere, and it travels to the coordinator. The holder's own view
adds counts and examples and stays. All rules of all columns are one aggregation in the holder's engine, and one more
for each category with a long code list.

    with connect("people.csv", home) as source:
        problems = mismatches(source, codebook)
        table = open_table(source, codebook, where)
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ibis
import numpy as np

from statfed.client.data.conversion import Converted, as_text, convert
from statfed.client.data.sources import Source, connect
from statfed.core.codebook import Codebook, Column
from statfed.core.conditions import Clause, columns_of
from statfed.core.errors import UsageError
from statfed.core.table import Expr, Table, real

__all__ = ["Mismatch", "Source", "connect", "inspect", "local_mismatches", "mismatches", "open_table", "places"]

_NEEDED = {
    "weight": "weights",
    "replicate": "replicate weights",
    "stratum": "strata",
    "psu": "PSUs",
    "record-key": "record keys",
}
_CODES = "or missing codes in the codebook"
_WANT = {
    "number": f"numbers; want them, {_CODES}",
    "integer": f"whole numbers of at most 64 bits (as floats below 2^53); want them, {_CODES}",
    "boolean": f"true or false; want them, {_CODES}",
    "date": "calendar days; want dates, timestamps at midnight without a time zone, text such as 2024-03-20 or "
    f"20240320, {_CODES}",
    "text": f"text; want it, {_CODES}",
    "array": "lists of numbers; arrays want Parquet, Arrow or DuckDB",
}
_SIGNED = re.compile(r"[+-]?[0-9]{1,3}(([ ,.'\u2019\u00a0\u202f][0-9]{3})+|[0-9]*)([.,][0-9]*)?")
_PLAIN = re.compile(r"[+-]?[0-9]*\.?[0-9]*")
_SIGNS = (
    "of numbers with other signs than a decimal point these have to be stated: ?decimal=, &thousands=. behind the name"
)
_STORED = "stored in its own form"  # no rule for people: such a column needs no conversion
_SHOWN = 20  # codes named in a message
_EXAMPLES = 3
_WIDE = 60  # characters of an example
_LONG = 30  # a longer code list is compared with the distinct values, not with every record
_SMALLEST = 1e-75
"""Variances of variances are of fourth powers: those of a smaller number are 0 in float64, or have few digits."""
_TOGETHER = 400  # aggregates of one statement; PostgreSQL allows 1,600 columns


@dataclass(frozen=True)
class Mismatch:
    """A rule of the codebook that the data break. message: public; count, examples and rows, the first of the records
    that break it, from 1: for the holder alone."""

    column: str
    message: str
    count: int | None = None
    examples: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Mismatch({self.message!r})"


@dataclass(frozen=True)
class _Rule:
    """broken: boolean per record; value and levels: of the rule that the value is listed."""

    message: str
    broken: Expr
    value: Expr = None
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What one look at the data found. mismatches: public, as of `mismatches`; plain: columns that are stored in the
    very form that the codebook gives them, so that nothing has to be converted. Private: it depends on the data."""

    mismatches: tuple[str, ...]
    plain: frozenset[str]


def inspect(
    source: Source, codebook: Codebook, columns: Sequence[str] | None = None, weights: Collection[str] = ()
) -> Inspection:
    """Every mismatch, and the columns that need no conversion. weights: columns that a question takes for weights:
    as those with that role they are positive, whatever the method."""
    found, plain = _found(source, codebook, columns, weights)
    return Inspection(tuple(mismatch.message for mismatch in found), plain)


def mismatches(source: Source, codebook: Codebook, columns: Sequence[str] | None = None) -> list[str]:
    """Every way in which the data do not fit the codebook, in words that may leave the holder; empty if they fit.

    columns: those to look at, default all of the codebook; columns of the data that the codebook does not list are
    not looked at. Raises UsageError when the data cannot be read.
    """
    return list(inspect(source, codebook, columns).mismatches)


def local_mismatches(source: Source, codebook: Codebook, columns: Sequence[str] | None = None) -> list[Mismatch]:
    """The same for the holder's own eyes: with the number of records, up to three of the values and, of data that have
    an order, the first three records."""
    shown = []
    for found in _found(source, codebook, columns)[0]:
        if found.count:
            column = codebook.column(found.column)
            converted = _converted(source, found.column, column)
            broken = next(r.broken for r in _rules(found.column, column, converted) if r.message == found.message)
            values = source.expr.filter(broken).select(text=converted.text).distinct().order_by("text")
            texts = values.limit(_EXAMPLES).to_pyarrow().column("text").to_pylist()
            examples = tuple("(missing)" if text is None else _short(text) for text in texts)
            signed = column.type in ("number", "integer") and any(
                _SIGNED.fullmatch(text) and not _PLAIN.fullmatch(text) for text in texts if text
            )
            message = f"{found.message}; {_SIGNS}" if signed else found.message
            found = replace(found, message=message, examples=examples, rows=places(source, source.expr, broken))
        shown.append(found)
    return shown


def places(source: Source, records: Expr, broken: Expr) -> tuple[int, ...]:
    """Places of the first records for which a rule is broken, from 1, where the engine keeps the order of the data.
    records: the source's, as they are stored or read."""
    if not source.embedded:
        return ()
    connection = source.expr.get_backend().con
    connection.execute("set preserve_insertion_order = true")
    try:
        placed = records.select(row=ibis.row_number() + 1, broken=broken)
        found = placed.filter(placed.broken).order_by("row").limit(_EXAMPLES).to_pyarrow()
    finally:
        connection.execute("set preserve_insertion_order = false")
    return tuple(found.column("row").to_pylist())


def open_table(
    source: Source,
    codebook: Codebook,
    where: Sequence[Clause] = (),
    columns: Sequence[str] | None = None,
    per_unit: int | None = None,
    plain: frozenset[str] = frozenset(),
) -> Table:
    """The records that a query looks at, each column of the type that the codebook gives it.

    columns: those the query reads, default all; the others need not exist. where: clauses, all of which have to hold
    (`statfed.core.conditions` says what of missing values). per_unit: keep at most this many of the records of one
    value of the column with role `unit`, after `where`: those with the lowest MD5 of unit and content, so the choice
    depends on the unit's own records only, not on their order. plain: columns that `inspect` found to need no
    conversion. Raises UsageError on columns that are not there and, with per_unit, on a codebook without that role or
    records without a unit.
    """
    unit = codebook.role("unit")
    if per_unit is not None and unit is None:
        raise UsageError("codebook: got no column with role unit; want one, to bound the records of one person")
    names = list(dict.fromkeys([*(codebook.columns if columns is None else columns), *columns_of(where)]))
    if per_unit is not None and unit is not None and unit not in names:
        names.append(unit)
    absent = [name for name in names if codebook.column(name) and name not in source.expr.columns]
    if absent:
        raise UsageError("\n".join(_absent(name, codebook.column(name)) for name in absent))
    values = {
        name: source.expr[name] if name in plain else _converted(source, name, codebook.column(name)).value
        for name in names
    }
    expr = source.expr.select(**values)
    table = Table(expr, codebook, source.embedded)
    table = table.filter(*(table.holds(condition) for condition in where))
    if per_unit is not None and unit is not None:
        table = replace(table, expr=_bounded(table.expr, unit, per_unit))
    return table


def _found(
    source: Source, codebook: Codebook, columns: Sequence[str] | None, weights: Collection[str] = ()
) -> tuple[list[Mismatch], frozenset[str]]:
    names = tuple(codebook.columns) if columns is None else tuple(dict.fromkeys(columns))
    found = [
        (place, Mismatch(name, _absent(name, codebook.column(name))))
        for place, name in enumerate(names)
        if name not in source.expr.columns
    ]
    there = [name for name in names if name in source.expr.columns]
    made = {name: _converted(source, name, codebook.column(name)) for name in there}
    read = _read(source, made)
    rules: list[tuple[str, _Rule]] = []
    for place, name in enumerate(there):
        converted = Converted(read[f"value_{place}"], read[f"missing_{place}"], made[name].text)
        rules += [(name, rule) for rule in _rules(name, codebook.column(name), converted, name in weights)]
        if source.expr[name].equals(made[name].value):
            rules.append((name, _Rule(_STORED, ibis.literal(False))))
        else:
            rules += [(name, rule) for rule in _form(read[f"raw_{place}"], converted.value)]
    plain = set()
    for (name, rule), count in zip(rules, _counts(read, [rule for _, rule in rules]), strict=True):
        if rule.message == _STORED:
            plain |= set() if count else {name}
        elif count:
            found.append((names.index(name), Mismatch(name, rule.message, count)))
    return [mismatch for _, mismatch in sorted(found, key=lambda pair: pair[0])], frozenset(plain)


def _read(source: Source, made: Mapping[str, Converted]) -> Expr:
    """The columns as they are stored and converted, by place. Rules look at these: each conversion is written once in
    a statement, and not once for each rule."""
    columns: dict[str, Expr] = {}
    for place, (name, converted) in enumerate(made.items()):
        columns |= {f"raw_{place}": source.expr[name], f"value_{place}": converted.value}
        columns[f"missing_{place}"] = converted.missing
    return source.expr.select(**columns) if columns else source.expr


def _counts(read: Expr, rules: Sequence[_Rule]) -> list[int]:
    """Number of records that break each rule."""
    counts = [0] * len(rules)
    short = [i for i, rule in enumerate(rules) if len(rule.levels) <= _LONG]
    for first in range(0, len(short), _TOGETHER):
        some = short[first : first + _TOGETHER]
        found = _run(read.aggregate(**{f"r{i}": read.count(where=rules[i].broken) for i in some}))
        for i in some:
            counts[i] = int(found[f"r{i}"])
    for i, rule in enumerate(rules):
        if len(rule.levels) > _LONG:
            values = read.group_by(value=rule.value).aggregate(records=read.count())
            unlisted = values.filter(values.value.notnull(), values.value.notin(rule.levels))
            counts[i] = int(_run(unlisted.aggregate(records=unlisted.records.sum()))["records"] or 0)
    return counts


def _run(expr: Expr) -> dict[str, Any]:
    try:
        row: dict[str, Any] = expr.to_pyarrow().to_pylist()[0]
    except Exception as error:  # the engine's message may quote a line of the data
        raise UsageError(
            "the data cannot be read to their end; want a file that is whole, or a database that answers"
        ) from error
    return row


def _converted(source: Source, name: str, column: Column) -> Converted:
    raw = source.numeric(name) if column.type in ("number", "integer") else source.expr[name]
    found = convert(raw, column, source.expr.get_backend().name)
    return replace(found, text=as_text(source.expr[name])) if source.signs else found


def _rules(name: str, column: Column, converted: Converted, weighs: bool = False) -> list[_Rule]:
    """weighs: does a question take the column for weights, whatever its role?"""
    value, missing = converted.value, converted.missing
    rules = []
    if column.type == "category":
        shown = ", ".join(column.levels[:_SHOWN]) + (", ..." if len(column.levels) > _SHOWN else "")
        codes: Expr = ibis.array(list(column.levels))
        listed = codes.contains(value).fill_null(False)
        message = f"{name}: got a category outside the codebook; want one of {shown}"
        rules.append(_Rule(message, value.notnull() & ~listed, value, column.levels))
    elif column.type != "id":
        rules.append(_Rule(f"{name}: got values that are not {_WANT[column.type]}", ~missing & value.isnull()))
    if column.type == "number":
        infinite = value.isinf().fill_null(False)
        rules.append(_Rule(f"{name}: got infinite values; want finite numbers", infinite))
        tiny = ((value.abs() < _SMALLEST) & ~value.between(0.0, 0.0)).fill_null(False)
        message = f"{name}: got values nearer to 0 than {_SMALLEST:g}, whose powers are lost; want 0, or another unit"
        rules.append(_Rule(message, tiny))
    lowest: Expr = value
    highest: Expr = value
    what = "values"
    if column.type == "text":
        message = f"{name}: got text that is too long; want at most {column.length} characters"
        rules.append(_Rule(message, (value.length() > column.length).fill_null(False)))
    if column.type == "array":
        lowest, highest, what = value.mins().cast("float64"), value.maxs().cast("float64"), "entries"
        rules += _entries(name, column, value, lowest, highest)
        highest = ibis.cases((~highest.isnan(), highest))
    if column.low is not None:
        below = (lowest < _end(value, column.low, min)).fill_null(False)
        message = f"{name}: got {what} below the codebook's bound; want at least {column.shown(column.low)}"
        rules.append(_Rule(message, below))
    if column.high is not None:
        above = (highest > _end(value, column.high, max)).fill_null(False)
        message = f"{name}: got {what} above the codebook's bound; want at most {column.shown(column.high)}"
        rules.append(_Rule(message, above))
    if column.required or column.role in _NEEDED:
        why = _NEEDED.get(column.role or "", "values")
        rules.append(_Rule(f"{name}: got missing {why}; want a value in every record", missing))
    if column.role == "weight" or weighs:
        message = (
            f"{name}: got weights that are zero or less; want positive ones, and records of nobody left out "
            "of the data: all are looked at, whatever the conditions"
        )
        rules.append(_Rule(message, (value <= 0).fill_null(False)))
    if column.role == "replicate":
        rules.append(_Rule(f"{name}: got replicate weights below zero; want none", (value < 0).fill_null(False)))
    if column.role == "record-key":
        outside_unit = ((value < 0) | (value >= 1)).fill_null(False)
        rules.append(_Rule(f"{name}: got record keys outside their range; want at least 0 and below 1", outside_unit))
    return rules


def _end(value: Expr, bound: float, outer: Callable[[float, float], float]) -> Expr:
    """A bound as a float64 constant, for lists of float32 with the one next to it."""
    if value.type().is_array() and value.type().value_type.is_float32() and abs(bound) <= 3.4e38:
        bound = outer(bound, float(np.float32(bound)))
    return real(bound)


def _entries(name: str, column: Column, value: Expr, lowest: Expr, highest: Expr) -> list[_Rule]:
    """Of arrays. lowest, highest: of the entries of each; every engine takes NaN for the largest number."""
    odd: Expr = lowest.isinf() | highest.isinf() | highest.isnan()
    empty: Expr = value.filter(lambda entry: entry.isnull()).length() > 0
    wrong: Expr = value.length() != column.length
    return [
        _Rule(f"{name}: got arrays of another length; want {column.length} entries in each", wrong.fill_null(False)),
        _Rule(f"{name}: got arrays with missing entries; want a number in each", empty.fill_null(False)),
        _Rule(f"{name}: got entries that are not finite; want finite numbers", odd.fill_null(False)),
    ]


def _short(text: str) -> str:
    return text if len(text) <= _WIDE else f"{text[: _WIDE - 3]}..."


def _form(raw: Expr, value: Expr) -> list[_Rule]:
    """Broken where a column is stored in another form than its converted one; no rule where no record can be in it."""
    if raw.type().copy(nullable=True) != value.type().copy(nullable=True):
        return []
    if raw.type().is_array():  # of another form, as a whole
        return []
    return [_Rule(_STORED, raw.notnull() & (value.isnull() | (raw != value)).fill_null(True))]


def _absent(name: str, column: Column) -> str:
    return f"{name}: not a column of the data; want one of type {column.type}"


@ibis.udf.scalar.builtin(name="md5")  # type: ignore[untyped-decorator]
def _md5(text: str) -> str:  # type: ignore[empty-body]  # the engine's own function
    ...


def _bounded(expr: Expr, unit: str, most: int) -> Expr:
    if most < 1:
        raise UsageError(f"records per unit: got {most}; want at least 1")
    if _run(expr.aggregate(none=expr.count(where=expr[unit].isnull())))["none"]:
        raise UsageError(f"{unit}: got records without a unit; want one in every record, to bound what one contributes")
    others = [name for name in expr.columns if name != unit]
    separator: Expr = ibis.literal("\x1f")
    content = separator.join([_portable(expr[name]).fill_null("") for name in (unit, *others)])
    window = ibis.window(group_by=expr[unit], order_by=[_md5(content), *(expr[name] for name in others)])
    place = "record of its unit"
    kept = expr.mutate(**{place: ibis.row_number().over(window)})
    return kept.filter(kept[place] < most).select(*expr.columns)


def _portable(value: Expr) -> Expr:
    """Text of a value that is the same in every engine: floats as whole part and billionths."""
    if value.type().is_array():
        return value.map(lambda entry: _portable(entry.cast("float64")).fill_null("")).join(",")
    if not value.type().is_floating():
        return ibis.cases((value, "true"), (~value, "false")) if value.type().is_boolean() else value.cast("string")
    whole = value.floor().cast("float64")
    billionths = ((value - whole) * 1e9).floor().cast("int64").cast("string")
    return ibis.cases((value.abs() < 1e15, whole.cast("int64").cast("string").concat(".", billionths)))
