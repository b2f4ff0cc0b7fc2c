"""Draft a codebook from a holder's own data, and unite the drafts of several. Drafting never leaves the holder.

A draft is to be read and corrected before it is shared: it tells the categories that occur and roughly the range of
numbers. What is drafted of a column:

- boolean: booleans, and text that is only true and false.
- integer, number: by the stored type; text by what is written, if every value is a number without a leading zero.
  Whole numbers stay integers even if there are few of them, as nothing tells codes from counts.
- category: other text with at most 20 values, or at most 500 that occur 5 times each on average; codes in sorted order.
- id: all other text, and columns named id, *_id or id_*.
- Words such as NA in a column of numbers become missing codes.
- Bounds: the range and a tenth of it on both sides, rounded outwards to two significant digits, so that they do not
  tell the extreme values; not beyond 0, and not around 0 and 1. A column without a value is a number without bounds,
  which in a union gives way to what the other holders have.
"""

import math
import re
import sys
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from statfed.client.data.conversion import as_number, as_text
from statfed.client.data.sources import Source
from statfed.core import toml
from statfed.core.codebook import Codebook, Column, make_codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr

FEW, MANY, EACH = 20, 500, 5
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
        text = as_text(raw)
        asked[f"values_{i}"] = text.count()
        if raw.type().is_string():
            zeros = text.re_search(r"^[+-]?0[0-9]")
            word = _one_of(text, MISSING_WORDS)
            asked[f"truths_{i}"] = source.expr.count(where=_one_of(text.lower(), ("true", "false")))
            asked[f"zeros_{i}"] = source.expr.count(where=zeros)
            asked[f"words_{i}"] = source.expr.count(where=word)
            asked[f"points_{i}"] = source.expr.count(where=text.re_search("[.eE]"))
        if raw.type().is_string() or raw.type().is_numeric():
            number = as_number(raw, engine)
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
    if kind.is_string():
        words = facts[f"words_{i}"]
        if facts[f"truths_{i}"] == values:
            return {"type": "boolean"}
        if facts[f"numbers_{i}"] and facts[f"numbers_{i}"] + words == values and not facts[f"zeros_{i}"]:
            pointed = facts[f"points_{i}"] > _with_point(source, name)
            drafted = _number("number" if pointed else "integer", facts, i)
            return drafted | ({"missing": _words(source, name)} if words else {})
    texts = as_text(source.expr[name])
    found = source.expr.select(text=texts).distinct().filter(lambda t: t.text.notnull()).limit(MANY + 1)
    codes = sorted(found.to_pyarrow().column("text").to_pylist())
    if len(codes) <= FEW or (len(codes) <= MANY and values >= EACH * len(codes)):
        return {"type": "category", "categories": codes}
    return {"type": "id"}


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
    if "id" in kinds and kinds <= {"id", "category", "integer"}:
        return "id"
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
    if kind in ("number", "integer"):
        ends = [_ends(column) for column in known]
        lows, highs = [low for low, _ in ends], [high for _, high in ends]
        made["low"] = min((x for x in lows if x is not None), default=None) if None not in lows else None
        made["high"] = max((x for x in highs if x is not None), default=None) if None not in highs else None
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
