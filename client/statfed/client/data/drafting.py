"""Draft a codebook from a holder's own data. Drafting never leaves the holder; `uniting` makes one of several drafts.

A draft is to be read and corrected before it is shared: it tells the categories that occur and roughly the range of
numbers. What is drafted of a column:

- boolean: booleans, and text that is only true and false.
- integer, number: by the stored type; text by what is written, if every value is a number without a leading zero.
  Whole numbers beyond 64 bits are numbers.
  Whole numbers stay integers even if there are few of them, as nothing tells codes from counts.
- date: dates, timestamps that are all at midnight, text that is dates in ISO form, and text or whole numbers that are
  all days of the years 1900 to 2099 in eight digits (20240320).
- array: lists of numbers, all of one length, none missing or infinite.
- category: other text with at most 20 values, or at most 500 that occur 5 times each on average; codes in sorted order.
- text: other text of which more than half reads as prose: three words or more, or over 40 characters that are not
  letters and digits alone, as hashes are. A tenth of headroom, rounded up to two significant digits.
- id: all other text, and columns named id, *_id or id_*.
- Words such as NA in a column of numbers or dates become missing codes.
- Bounds: the range and a tenth of it on both sides, rounded outwards to two significant digits (more where the range is
  far from 0), so that they do not tell the extreme values. They stay on the range's side of 0, those of positive values
  above it, those of shares at most 1. Those of dates are whole years, of a range of two years or less whole months. A
  column without a value is a number without bounds, which in a union gives way to what the other holders have.
"""

import math
import re
import sys
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import Any
from unicodedata import normalize

from statfed.client.data.conversion import as_array, as_days, as_number, as_text, is_numbers
from statfed.client.data.sources import Source
from statfed.core import toml
from statfed.core.codebook import Codebook, Column, day_of, iso_of, make_codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr, real

FEW, MANY, EACH = 20, 500, 5
LONG = 40  # characters
MISSING_WORDS = ("NA", "N/A", "#N/A", "<NA>", "NaN", "nan", "NaT", "null", "NULL", "None", ".", "-")
_ID = re.compile(r"(?i)(.*[_-])?id|id[_-].*")
_PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")


def draft(
    source: Source, types: Mapping[str, str] | None = None, levels: Mapping[str, Sequence[str]] | None = None
) -> Codebook:
    """A codebook that the data fit, unless types and levels are stated that they do not.

    types: of columns whose type is known, `category`, `integer` and so on; levels: categories of columns. Columns that
    are not there are left out. Raises UsageError when the data have no columns or cannot be read, and on a stated type
    that nothing can be drafted of.
    """
    if not source.expr.columns:
        raise UsageError("got data without columns; want at least one")
    facts, types, levels = _facts(source), types or {}, levels or {}
    columns: dict[str, Any] = {}
    for name in source.expr.columns:
        if name in levels:
            columns[name] = {"type": "category", "categories": list(levels[name])}
        elif name in types:
            columns[name] = _stated(source, name, types[name], facts)
        elif not _PANDAS_INDEX.fullmatch(name):
            columns[name] = _column(source, name, facts)
    return make_codebook({"columns": columns})


def to_toml(codebook: Codebook) -> str:
    """The codebook as commented TOML that `load_codebook` reads back equal."""
    lines = [
        "# Codebook: the columns of a table, agreed by all holders before a study. It is public: check that the",
        "# categories and bounds below may be seen by everybody. All keys: docs/codebook.md",
    ]
    if codebook.title:
        lines += ["", toml.line("title", codebook.title)]
    if codebook.rules:
        lines += ["", toml.line("rules", list(codebook.rules))]
    for name, column in codebook.columns.items():
        lines += ["", toml.header("columns", name), *_entry(column)]
    given = codebook.design.model_dump(exclude_defaults=True)
    if given:
        lines += ["", toml.header("design"), *(toml.line(key, _short(value)) for key, value in given.items())]
    if codebook.folded is not None:
        told = codebook.folded.model_dump(exclude_defaults=True)
        lines += ["", toml.header("folded"), *(toml.line(key, value) for key, value in told.items())]
    return "\n".join(lines) + "\n"


def _facts(source: Source) -> Mapping[str, Any]:
    """Of every column, by one scan: records, values, and of numbers their extremes, of text what it looks like."""
    read = _conversions(source)
    asked: dict[str, Expr] = {"records": read.count()}

    def counted(condition: Expr) -> Expr:
        return read.count(where=condition)

    for i, name in enumerate(source.expr.columns):
        raw = source.expr[name]
        if is_numbers(raw):
            asked[f"values_{i}"], asked[f"lists_{i}"] = read[f"raw_{i}"].count(), read[f"list_{i}"].count()
            length, least, most = read[f"length_{i}"], read[f"least_{i}"], read[f"most_{i}"]
            asked[f"shortest_{i}"], asked[f"longest_{i}"] = length.min(), length.max()
            asked[f"holes_{i}"] = counted(read[f"holes_{i}"] > 0)
            asked[f"odd_{i}"] = counted(least.isinf() | most.isinf() | most.isnan())
            asked[f"low_{i}"], asked[f"high_{i}"] = least.min(), most.max()
            continue
        text = read[f"text_{i}"]
        asked[f"values_{i}"] = text.count()
        if raw.type().is_string():
            asked[f"truths_{i}"] = counted(_one_of(text.lower(), ("true", "false")))
            asked[f"zeros_{i}"] = counted(text.re_search(r"^[+-]?0[0-9]"))
            asked[f"words_{i}"] = counted(_one_of(text, MISSING_WORDS))
            asked[f"points_{i}"] = counted(read[f"digits_{i}"].re_search("[.eE]"))
            asked[f"longest_{i}"] = text.length().max()
            prose = text.re_search("[^ ] +[^ ]+ +[^ ]") | ((text.length() > LONG) & text.re_search("[^A-Za-z0-9]"))
            asked[f"prose_{i}"] = counted(prose)
        if f"day_{i}" in read.columns:
            days = read[f"day_{i}"]
            asked[f"days_{i}"] = days.count()
            asked[f"first_{i}"], asked[f"last_{i}"] = days.min(), days.max()
        if f"number_{i}" in read.columns:
            number = read[f"number_{i}"]
            finite = number.abs() <= real(sys.float_info.max)
            asked[f"numbers_{i}"] = number.count()
            asked[f"low_{i}"], asked[f"high_{i}"] = number.min(where=finite), number.max(where=finite)
    names = list(asked)
    found: dict[str, Any] = {}
    try:
        for first in range(0, len(names), 400):
            some = {key: asked[key] for key in names[first : first + 400]}
            found |= read.aggregate(**some).to_pyarrow().to_pylist()[0]
    except Exception as error:  # the engine's message may quote a line of the data
        raise UsageError("the data cannot be read to their end; want a file that is whole") from error
    return found


def _conversions(source: Source) -> Expr:
    """What facts look at, by place: each conversion stands once in a statement, and not once for each fact."""
    engine = source.expr.get_backend().name
    made: dict[str, Expr] = {}
    for i, name in enumerate(source.expr.columns):
        raw = source.expr[name]
        kind = raw.type()
        if is_numbers(raw):
            listed = as_array(raw, engine)
            made |= {f"raw_{i}": raw, f"list_{i}": listed, f"length_{i}": listed.length()}
            made[f"holes_{i}"] = listed.filter(lambda entry: entry.isnull()).length()
            made |= {f"least_{i}": listed.mins().cast("float64"), f"most_{i}": listed.maxs().cast("float64")}
            continue
        made[f"text_{i}"] = as_text(raw)
        if kind.is_string():
            made[f"digits_{i}"] = as_text(source.numeric(name))
        if kind.is_string() or kind.is_date() or _without_zone(raw):
            made[f"day_{i}"] = as_days(raw, engine)
        if kind.is_string() or kind.is_numeric():
            made[f"number_{i}"] = as_number(source.numeric(name), engine)
    return source.expr.select(**made)


def _column(source: Source, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    i = source.expr.columns.index(name)
    kind = source.expr[name].type()
    values = facts[f"values_{i}"]
    if kind.is_boolean():
        return {"type": "boolean"}
    if not values:
        return {"type": "number"}
    if _ID.fullmatch(name):
        return {"type": "id"}
    if kind.is_numeric():
        if kind.is_integer() and _eight_digits(facts, i) and _all_days(source, name, values):
            return _dates(source, name, facts)
        whole = kind.is_integer() and (not kind.is_unsigned_integer() or facts[f"high_{i}"] < 2.0**63)
        return _number("integer" if whole else "number", facts, i)
    if is_numbers(source.expr[name]) and _regular(facts, i):
        return _number("array", facts, i) | {"length": facts[f"longest_{i}"]}
    words = 0
    if kind.is_string():
        words = facts[f"words_{i}"]
        if facts[f"truths_{i}"] == values:
            return {"type": "boolean"}
        dated = facts[f"days_{i}"] + words == values and _eight_digits(facts, i)
        if not dated and facts[f"numbers_{i}"] and facts[f"numbers_{i}"] + words == values and not facts[f"zeros_{i}"]:
            long = max(abs(facts[f"low_{i}"] or 0.0), abs(facts[f"high_{i}"] or 0.0)) >= 2.0**63
            pointed = long or facts[f"points_{i}"] > _with_point(source, name)
            drafted = _number("number" if pointed else "integer", facts, i)
            return drafted | ({"missing": _words(source, name)} if words else {})
    if facts.get(f"days_{i}") and facts[f"days_{i}"] + words == values:
        return _dates(source, name, facts) | ({"missing": _words(source, name)} if words else {})
    codes = _codes(source, name)
    if len(codes) <= FEW or (len(codes) <= MANY and values >= EACH * len(codes)):
        return {"type": "category", "categories": codes}
    if facts.get(f"prose_{i}", 0) > values / 2:
        return {"type": "text", "length": text_length(facts[f"longest_{i}"])}
    return {"type": "id"}


def _stated(source: Source, name: str, kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a column whose type is stated: levels, bounds and length from the data, as far as they have them."""
    i = source.expr.columns.index(name)
    stored = source.expr[name].type()
    made: dict[str, Any] = {"type": kind}
    if kind == "category":
        codes = _codes(source, name)
        if not codes or len(codes) > MANY:
            got = "none" if not codes else f"more than {MANY}"
            raise UsageError(f"{name}: got {got} values; want 1 to {MANY} for a category, or its levels stated")
        return made | {"categories": codes}
    if kind in ("number", "integer"):
        made |= (
            {"low": 0.0, "high": 1.0}
            if stored.is_boolean()
            else _number(kind, facts, i)
            if facts.get(f"numbers_{i}")
            else {}
        )
    elif kind == "date":
        made |= _dates(source, name, facts)
    elif kind == "text":
        made["length"] = text_length(facts.get(f"longest_{i}") or LONG)
    elif kind == "array":
        drafted = _column(source, name, facts)
        if drafted["type"] != kind:
            raise UsageError(f"{name}: got no lists of numbers of one length; want them for an array")
        return drafted
    if stored.is_string() and kind in ("number", "integer", "date") and facts[f"words_{i}"]:
        made["missing"] = _words(source, name)
    return made


def _codes(source: Source, name: str) -> list[str]:
    """Values of a column as texts, in sorted order; at most `MANY` and one more."""
    found = source.expr.select(text=as_text(source.expr[name])).distinct().filter(lambda t: t.text.notnull())
    texts = found.limit(MANY + 1).to_pyarrow().column("text").to_pylist()
    return sorted({normalize("NFC", text) for text in texts})


def _eight_digits(facts: Mapping[str, Any], i: int) -> bool:
    """Do all numbers lie where days of this and the last century do, written as 20240320?"""
    low, high = facts[f"low_{i}"], facts[f"high_{i}"]
    return low is not None and 19_000_101 <= low <= high <= 20_991_231


def _all_days(source: Source, name: str, values: int) -> bool:
    days = as_days(source.expr[name], source.expr.get_backend().name)
    return bool(source.expr.aggregate(n=days.count()).to_pyarrow().to_pylist()[0]["n"] == values)


def _dates(source: Source, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    i = source.expr.columns.index(name)
    first, last = facts.get(f"first_{i}"), facts.get(f"last_{i}")
    if first is None:
        days = as_days(source.expr[name], source.expr.get_backend().name)
        found = source.expr.aggregate(first=days.min(), last=days.max()).to_pyarrow().to_pylist()[0]
        first, last = found["first"], found["last"]
    if first is None or last is None:
        return {"type": "date"}
    low, high = day_bounds(first, last)
    return {"type": "date", "low": low, "high": high}


def _regular(facts: Mapping[str, Any], i: int) -> bool:
    """Are all arrays of one length, without entries that are missing or infinite?"""
    same = facts[f"lists_{i}"] == facts[f"values_{i}"] and facts[f"shortest_{i}"] == facts[f"longest_{i}"] > 0
    return same and not facts[f"holes_{i}"] and not facts[f"odd_{i}"]


def text_length(longest: int) -> int:
    """With a tenth of headroom."""
    return int(_rounded(1.1 * longest, ROUND_CEILING))


def _number(kind: str, facts: Mapping[str, Any], i: int) -> dict[str, Any]:
    low, high = facts[f"low_{i}"], facts[f"high_{i}"]
    if low is None:  # nothing but infinite values
        return {"type": kind}
    return {"type": kind} | dict(zip(("low", "high"), bounds(float(low), float(high), kind == "integer"), strict=True))


def bounds(low: float, high: float, integer: bool = False) -> tuple[float, float]:
    """Public bounds around a range: a tenth of headroom, rounded outwards to two significant digits, or to the first
    digit of the range where two would be coarser than that.

    They keep the sign of the range: of positive values both are positive. Shares, from 0 to 1, stay so; whole numbers
    of which none is another than 0 and 1 have these two, since one of them alone would be told. The numbers are
    reckoned as they are written, in decimals, so that no rounding leaves a value outside.
    """
    if integer and low >= 0 and high <= 1:
        return 0.0, 1.0
    first, last = Decimal(repr(low)), Decimal(repr(high))
    room = (last - first or abs(last)) / 10
    below, above = _outwards(first, -room, last - first), _outwards(last, room, last - first)
    if integer:
        below, above = float(math.ceil(below)), float(math.floor(above))
    below = min(max(below, 0.0), low) if low >= 0 else below
    above = max(min(above, 0.0), high) if high <= 0 else above
    return below, min(above, 1.0) if 0 <= low <= high <= 1 else above


def day_bounds(first: int, last: int) -> tuple[str, str]:
    """Public bounds around a range of days since 1970-01-01, in ISO form: a tenth of headroom, a day at least, and
    from there outwards to whole months, for more than two years to whole years."""
    room = max((last - first) // 10, 1)
    earliest, latest = day_of(date.min), day_of(date.max)
    below = date.fromisoformat(iso_of(max(first - room, earliest)))
    above = date.fromisoformat(iso_of(min(last + room, latest)))
    if last - first > 2 * 366:
        below, above = below.replace(month=1), above.replace(month=12, day=1)
    return below.replace(day=1).isoformat(), above.replace(day=monthrange(above.year, above.month)[1]).isoformat()


def _outwards(end: Decimal, room: Decimal, spread: Decimal) -> float:
    """An end of a range with its room, rounded away from the range. Where that would be 0 or beyond, the next of 1, 2
    and 5 times a power of ten that is at most half of the end, on its side of 0."""
    far = end + room
    if end and far * end <= 0:
        half = abs(end) / 2
        digit = Decimal(1).scaleb(half.adjusted())
        near = float(max(step * digit for step in (1, 2, 5) if step * digit <= half).copy_sign(end))
        return near or float(end)
    if not far:
        return 0.0
    towards = ROUND_FLOOR if room < 0 else ROUND_CEILING
    digit_at = min(far.adjusted() - 1, max(spread.adjusted(), end.adjusted() - 15) if spread else far.adjusted() - 1)
    with localcontext(prec=400):
        return _finite(float(far.quantize(Decimal(1).scaleb(digit_at), rounding=towards)))


def _rounded(value: float, towards: str) -> float:
    """`value` to two significant digits, in one direction."""
    exact = Decimal(repr(value))
    found = float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding=towards)) if exact else 0.0
    return _finite(found)


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.copysign(sys.float_info.max, value)


def _without_zone(raw: Expr) -> bool:
    kind = raw.type()
    return bool(kind.is_timestamp() and kind.timezone is None)


def _one_of(text: Expr, words: Sequence[str]) -> Expr:
    import ibis

    listed: Expr = ibis.array(list(words))
    return text.notnull() & listed.contains(text).fill_null(False)


def _with_point(source: Source, name: str) -> int:
    """Records whose missing word has a point or an e in it."""
    text = as_text(source.expr[name])
    pointed = tuple(word for word in MISSING_WORDS if re.search("[.eE]", word))
    return int(
        source.expr.aggregate(n=source.expr.count(where=_one_of(text, pointed))).to_pyarrow().to_pylist()[0]["n"]
    )


def _words(source: Source, name: str) -> list[str]:
    text = as_text(source.expr[name])
    found = source.expr.filter(_one_of(text, MISSING_WORDS)).select(text=text).distinct()
    return sorted(found.to_pyarrow().column("text").to_pylist())


def _entry(column: Column) -> list[str]:
    lines = []
    for key, value in column.model_dump(exclude_defaults=True).items():
        if key == "categories" and not any(value.values()):
            value = tuple(value)
        lines.append(toml.line(key, _short(value)))
    if column.type == "integer" and column.bounds and 1 < column.bounds[1] - column.bounds[0] <= FEW:
        lines.append('# if these are codes: type = "category", categories = ["1", "2", ...], without low and high')
    if column.type == "id":
        lines.append('# if one person or household has several records: role = "unit"')
    return lines


def _short(value: object) -> object:
    """Whole numbers without a decimal point; -0.0 would lose its sign."""
    if isinstance(value, tuple):
        return tuple(_short(item) for item in value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 and str(value) != "-0.0":
        return int(value)
    return value
