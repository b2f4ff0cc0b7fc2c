"""Draft a codebook from a holder's own data, and unite the drafts of several. Drafting never leaves the holder.

A draft is to be read and corrected before it is shared: it tells the categories that occur and roughly the range of
numbers. What is drafted of a column:

- boolean: booleans, and text that is only true and false.
- integer, number: by the stored type; text by what is written, if every value is a number without a leading zero.
  Whole numbers stay integers even if there are few of them, as nothing tells codes from counts.
- date: dates, timestamps that are all at midnight, and text that is dates in ISO form.
- array: lists of numbers, all of one length, none missing or infinite.
- category: other text with at most 20 values, or at most 500 that occur 5 times each on average; codes in sorted order.
- text: other text of which more than half reads as prose: three words or more, or over 40 characters that are not
  letters and digits alone, as hashes are. A tenth of headroom, rounded up to two significant digits.
- id: all other text, and columns named id, *_id or id_*.
- Words such as NA in a column of numbers or dates become missing codes.
- Bounds: the range and a tenth of it on both sides, rounded outwards to two significant digits, so that they do not
  tell the extreme values; not beyond 0, and not around 0 and 1. Those of dates are whole years, of a range of two
  years or less whole months. A column without a value is a number without bounds, which in a union gives way to what
  the other holders have.
"""

import math
import re
import sys
from calendar import monthrange
from collections.abc import Mapping, Sequence
from datetime import date
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from statfed.client.data.conversion import as_array, as_days, as_number, as_text, is_numbers
from statfed.client.data.sources import Source
from statfed.core import toml
from statfed.core.codebook import Codebook, Column, day_of, iso_of, make_codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr

FEW, MANY, EACH = 20, 500, 5
LONG = 40  # characters
MISSING_WORDS = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", ".", "-")
_ID = re.compile(r"(?i)(.*[_-])?id|id[_-].*")
_PANDAS_INDEX = re.compile(r"__index_level_[0-9]+__")


def draft(source: Source) -> Codebook:
    """A codebook that the data fit. Raises UsageError when they have no columns or cannot be read."""
    if not source.expr.columns:
        raise UsageError("got data without columns; want at least one")
    facts = _facts(source)
    columns = {name: _column(source, name, facts) for name in source.expr.columns if not _PANDAS_INDEX.fullmatch(name)}
    return make_codebook({"columns": columns})


def union(drafts: Sequence[Codebook]) -> Codebook:
    """One codebook that fits all who drafted, whatever their order: levels united and sorted, bounds widened.

    Raises UsageError that lists every column whose types have nothing in common.
    """
    if not drafts:
        raise UsageError("got no codebooks; want at least one")
    places: dict[str, int] = {}
    for one in drafts:
        for place, name in enumerate(one.columns):
            places[name] = min(place, places.get(name, place))
    united, conflicts = {}, []
    for name in sorted(places, key=lambda name: (places[name], name)):
        columns = [one.columns[name] for one in drafts if name in one.columns]
        kind = _common_type([column for column in columns if not _unknown(column)] or columns[:1])
        if kind is None:
            types = ", ".join(sorted({column.type for column in columns}))
            conflicts.append(f"{name}: got types {types} at different holders; want one: write its codebook entry")
        elif kind == "array" and len({column.length for column in columns if not _unknown(column)}) > 1:
            lengths = ", ".join(map(str, sorted({column.length or 0 for column in columns if not _unknown(column)})))
            conflicts.append(f"{name}: got arrays of {lengths} entries at different holders; want one length")
        else:
            united[name] = _united(kind, columns)
    if conflicts:
        raise UsageError("\n".join(conflicts))
    design = drafts[0].design.model_dump() if all(one.design == drafts[0].design for one in drafts) else {}
    return make_codebook({"title": _first(one.title for one in drafts), "columns": united, "design": design})


def to_toml(codebook: Codebook) -> str:
    """The codebook as commented TOML that `load_codebook` reads back equal."""
    lines = [
        "# Codebook: the columns of a table, agreed by all holders before a study. It is public: check that the",
        "# categories and bounds below may be seen by everybody. All keys: docs/codebook.md",
    ]
    if codebook.title:
        lines += ["", toml.line("title", codebook.title)]
    for name, column in codebook.columns.items():
        lines += ["", toml.header("columns", name), *_entry(column)]
    given = codebook.design.model_dump(exclude_defaults=True)
    if given:
        lines += ["", toml.header("design"), *(toml.line(key, _short(value)) for key, value in given.items())]
    return "\n".join(lines) + "\n"


def _facts(source: Source) -> Mapping[str, Any]:
    """Of every column, by one scan: records, values, and of numbers their extremes, of text what it looks like."""
    engine = source.expr.get_backend().name
    asked: dict[str, Expr] = {"records": source.expr.count()}
    for i, name in enumerate(source.expr.columns):
        raw = source.expr[name]
        if is_numbers(raw):
            listed = as_array(raw, engine)
            least, most = listed.mins().cast("float64"), listed.maxs().cast("float64")
            asked[f"values_{i}"], asked[f"lists_{i}"] = raw.count(), listed.count()
            asked[f"shortest_{i}"], asked[f"longest_{i}"] = listed.length().min(), listed.length().max()
            asked[f"holes_{i}"] = source.expr.count(where=listed.filter(lambda entry: entry.isnull()).length() > 0)
            asked[f"odd_{i}"] = source.expr.count(where=least.isinf() | most.isinf() | most.isnan())
            asked[f"low_{i}"], asked[f"high_{i}"] = least.min(), most.max()
            continue
        text = as_text(raw)
        asked[f"values_{i}"] = text.count()
        if raw.type().is_string():
            zeros = text.re_search(r"^[+-]?0[0-9]")
            word = _one_of(text, MISSING_WORDS)
            asked[f"truths_{i}"] = source.expr.count(where=_one_of(text.lower(), ("true", "false")))
            asked[f"zeros_{i}"] = source.expr.count(where=zeros)
            asked[f"words_{i}"] = source.expr.count(where=word)
            asked[f"points_{i}"] = source.expr.count(where=as_text(source.numeric(name)).re_search("[.eE]"))
            asked[f"longest_{i}"] = text.length().max()
            prose = text.re_search("[^ ] +[^ ]+ +[^ ]") | ((text.length() > LONG) & text.re_search("[^A-Za-z0-9]"))
            asked[f"prose_{i}"] = source.expr.count(where=prose)
        if raw.type().is_string() or raw.type().is_date() or raw.type().is_timestamp():
            days = as_days(raw, engine)
            asked[f"days_{i}"] = days.count()
            asked[f"first_{i}"], asked[f"last_{i}"] = days.min(), days.max()
        if raw.type().is_string() or raw.type().is_numeric():
            number = as_number(source.numeric(name), engine)
            finite = number.abs() <= 1e300
            asked[f"numbers_{i}"] = number.count()
            asked[f"low_{i}"], asked[f"high_{i}"] = number.min(where=finite), number.max(where=finite)
    names = list(asked)
    found: dict[str, Any] = {}
    try:
        for first in range(0, len(names), 400):
            some = {key: asked[key] for key in names[first : first + 400]}
            found |= source.expr.aggregate(**some).to_pyarrow().to_pylist()[0]
    except Exception as error:  # the engine's message may quote a line of the data
        raise UsageError("the data cannot be read to their end") from error
    return found


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
        return _number("integer" if kind.is_integer() else "number", facts, i)
    if is_numbers(source.expr[name]) and _regular(facts, i):
        return _number("array", facts, i) | {"length": facts[f"longest_{i}"]}
    words = 0
    if kind.is_string():
        words = facts[f"words_{i}"]
        if facts[f"truths_{i}"] == values:
            return {"type": "boolean"}
        if facts[f"numbers_{i}"] and facts[f"numbers_{i}"] + words == values and not facts[f"zeros_{i}"]:
            pointed = facts[f"points_{i}"] > _with_point(source, name)
            drafted = _number("number" if pointed else "integer", facts, i)
            return drafted | ({"missing": _words(source, name)} if words else {})
    if facts.get(f"days_{i}") and facts[f"days_{i}"] + words == values:
        low, high = day_bounds(facts[f"first_{i}"], facts[f"last_{i}"])
        return {"type": "date", "low": low, "high": high} | ({"missing": _words(source, name)} if words else {})
    texts = as_text(source.expr[name])
    found = source.expr.select(text=texts).distinct().filter(lambda t: t.text.notnull()).limit(MANY + 1)
    codes = sorted(found.to_pyarrow().column("text").to_pylist())
    if len(codes) <= FEW or (len(codes) <= MANY and values >= EACH * len(codes)):
        return {"type": "category", "categories": codes}
    if facts.get(f"prose_{i}", 0) > values / 2:
        return {"type": "text", "length": _length(facts[f"longest_{i}"])}
    return {"type": "id"}


def _regular(facts: Mapping[str, Any], i: int) -> bool:
    """Are all arrays of one length, without entries that are missing or infinite?"""
    same = facts[f"lists_{i}"] == facts[f"values_{i}"] and facts[f"shortest_{i}"] == facts[f"longest_{i}"] > 0
    return same and not facts[f"holes_{i}"] and not facts[f"odd_{i}"]


def _length(longest: int) -> int:
    return int(_rounded(1.1 * longest, ROUND_CEILING))


def _number(kind: str, facts: Mapping[str, Any], i: int) -> dict[str, Any]:
    low, high = facts[f"low_{i}"], facts[f"high_{i}"]
    if low is None:  # nothing but infinite values
        return {"type": kind}
    return {"type": kind} | dict(zip(("low", "high"), bounds(float(low), float(high), kind == "integer"), strict=True))


def bounds(low: float, high: float, integer: bool = False) -> tuple[float, float]:
    """Public bounds around a range: a tenth of headroom, rounded outwards to two significant digits.

    They keep the sign of the range, and a range within 0 and 1 has the bounds 0 and 1.
    """
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    room = (high - low or abs(high)) / 10
    below, above = _rounded(low - room, ROUND_FLOOR), _rounded(high + room, ROUND_CEILING)
    if integer:
        below, above = float(math.ceil(below)), float(math.floor(above))
    return (max(below, 0.0) if low >= 0 else below), (min(above, 0.0) if high <= 0 else above)


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


def _rounded(value: float, towards: str) -> float:
    """`value` to two significant digits, in one direction; nine digits are read, so that 9.4 stays 9.4."""
    if not math.isfinite(value):
        return math.copysign(sys.float_info.max, value)
    exact = Decimal(f"{value:.9g}")
    found = float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding=towards)) if exact else 0.0
    return found if math.isfinite(found) else math.copysign(sys.float_info.max, found)


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


def _unknown(column: Column) -> bool:
    """Did its holder have no value at all?"""
    return column.type == "number" and column.bounds is None and not column.missing


def _common_type(columns: Sequence[Column]) -> str | None:
    kinds = {column.type for column in columns}
    if len(kinds) == 1:
        return columns[0].type
    if kinds <= {"integer", "number"}:
        return "number"
    if kinds == {"boolean", "integer"}:
        return "boolean" if all(c.bounds == (0.0, 1.0) for c in columns) else "integer"
    if kinds == {"boolean", "number"}:
        return "number"
    if "id" in kinds and kinds <= {"id", "category", "integer", "text"}:
        return "id"
    if kinds == {"category", "text"}:
        return "text"
    codes = {code for column in columns for code in column.categories}
    if kinds == {"category", "integer"} and all(re.fullmatch("0|-?[1-9][0-9]*", code) for code in codes):
        return "integer"
    return None


def _united(kind: str, columns: Sequence[Column]) -> dict[str, Any]:
    known = [column for column in columns if not _unknown(column)]
    made: dict[str, Any] = {
        "type": kind,
        "label": _first(column.label for column in columns),
        "unit": _first(column.unit for column in columns),
        "missing": sorted({code for column in columns for code in column.missing}, key=str),
        "required": any(column.required for column in columns),
        "role": _first(column.role or "" for column in columns) or None,
    }
    if kind in ("number", "integer", "date", "array"):
        ends = [_ends(column) for column in known]
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        made["low"] = min((x for x in lows if x is not None), default=None) if None not in lows else None
        made["high"] = max((x for x in highs if x is not None), default=None) if None not in highs else None
        if kind == "date":
            made |= {end: iso_of(made[end]) for end in ("low", "high") if made[end] is not None}
        scales = {column.given_scale for column in known}
        made["scale"] = scales.pop() if len(scales) == 1 else None
    if kind == "array":
        made["length"] = known[0].length
    if kind == "text":
        made["length"] = max(column.length or _length(max(map(len, column.levels))) for column in known)
    if kind == "category":
        codes = sorted({code for column in columns for code in column.categories})
        made["categories"] = {code: _first(c.categories.get(code, "") for c in columns) for code in codes}
        made["parents"] = {code: up for c in sorted(columns, key=repr) for code, up in c.parents.items()}
    return made


def _ends(column: Column) -> tuple[float | None, float | None]:
    if column.type == "category":  # whole numbers: see _common_type
        codes = [float(code) for code in column.categories]
        return min(codes), max(codes)
    return column.bounds if column.type == "boolean" and column.bounds else (column.low, column.high)


def _first(texts: Any) -> str:
    return min((text for text in texts if text), default="")


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
