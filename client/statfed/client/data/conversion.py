"""What a raw column means under the codebook: one conversion of every type of every engine, as Ibis expressions.

The same value gives the same result wherever it is stored: "1", 1 and 1.0 are one code, one integer, one truth, and
"-9.00", -9 and the decimal -9.00 are one missing code. Text counts without blanks at its ends. Missing are: null, empty
text, NaN in a column of floats (pandas writes null so) and the column's missing codes.

- number: whole numbers, floats, decimals, booleans as 0 and 1, text such as `-1.5e3`; not `1,5`, `1_000` or `inf`. The
  float64 next to what is written, decimals of any number of digits included.
- integer: the same, if whole and within 64 bits; stored or written as a float, if it is one of the whole numbers below
  2^53, beyond which floats do not tell them apart.
- boolean: booleans, 0 and 1, and in any case true, t, yes, y and false, f, no, n.
- category: text, whole numbers and whole floats as digits, booleans as true and false. Where every numeric code of the
  codebook has the same number of digits, leading zeros that a data file has lost are restored: 1 is "01". Letters with
  accents are one code however they are composed (Unicode NFC), where the engine can tell: DuckDB and PostgreSQL.
- id: like category, as it stands; a timestamp at midnight as its date.
- date: dates, timestamps without a time zone at midnight, text in ISO form (2024-03-20), eight digits as text or whole
  number (20240320), of the years 1 to 9999; as days since 1970-01-01.
- text: like id; not lists or bytes.
- array: lists of numbers, floats as they are stored, others as float64; missing is a list that is null, not an entry.

A float32 holds about seven digits: one that is nearest to a missing code or to a bound stands for that.
"""

import re
import sys
from dataclasses import dataclass
from datetime import date
from functools import reduce
from operator import or_

import ibis
import ibis.expr.datatypes as dt

from statfed.core.codebook import Column, day_of
from statfed.core.table import Expr, real

TRUE = ("true", "t", "yes", "y", "1", "1.0")
FALSE = ("false", "f", "no", "n", "0", "0.0")
# Text that every engine casts to a float without overflow: 200 digits, or 9 and an exponent below 300.
_DECIMAL = r"^[+-]?([0-9]{1,200}([.][0-9]{0,200})?|[.][0-9]{1,200})$"
_SCIENTIFIC = r"^[+-]?([0-9]{1,9}([.][0-9]{0,20})?|[.][0-9]{1,20})[eE][+-]?[0-2]?[0-9]{1,2}$"
_DIGITS = r"^[+-]?0*[0-9]{1,19}$"
_COMPACT = "^[0-9]{8}$"
EXACT = 2.0**53
"""Below it every float64 that is whole is the number that was written; this one is also 2^53 + 1, rounded."""
_FLOAT32 = 3.4e38  # its largest
_DIGITS_OF_FLOAT = 15  # decimals of as many digits are divided by a power of ten, which rounds once
_COMPOSED = {"duckdb": "nfc_normalize", "postgres": "normalize"}
# Every day of the years 1 to 9999, so that no engine's cast fails.
_YEAR = "([0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][48]|[13579][26]|[2468]0)00)"
_DAY = (
    f"^({_YEAR}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP}-02-29)$"
)


@dataclass(frozen=True)
class Converted:
    """A raw column under the codebook. value: of the column's type, null where missing or not convertible; missing:
    boolean; text: the raw value for people to read."""

    value: Expr
    missing: Expr
    text: Expr


def convert(raw: Expr, column: Column, engine: str) -> Converted:
    """`raw` as `column` says. engine: Ibis's name of the backend, as some know safe casts and others do not."""
    text = _days_as_text(raw) if column.type in ("date", "id") else as_text(raw)
    missing = raw_missing(raw)
    codes = _code(raw, text, column, engine) if column.missing else None
    if column.type == "number":
        value = _snapped(raw, as_number(raw, engine), column)
    elif column.type == "integer":
        value = _as_integer(raw, as_number(raw, engine), engine)
    elif column.type == "boolean":
        value = _as_boolean(raw, engine)
    elif column.type == "date":
        value = as_days(raw, engine)
    elif column.type == "array":
        value = as_array(raw, engine)
    elif column.type == "text" and (raw.type().is_nested() or raw.type().is_binary()):
        value = ibis.null("string")
    else:
        value = coded(raw, text, column.levels, engine) if column.type == "category" else text
    if codes is None:
        return Converted(value, missing, text)
    kind: Expr = value.type()
    return Converted(ibis.cases((codes, None), else_=value).cast(kind), missing | codes, text)


def raw_missing(raw: Expr) -> Expr:
    """Is the stored value null, empty or NaN?"""
    if raw.type().is_string():
        return as_text(raw).isnull()
    if raw.type().is_floating() or raw.type().is_decimal():
        return raw.isnull() | raw.cast("float64").isnan().fill_null(False)
    return raw.isnull()


def as_text(raw: Expr) -> Expr:
    """A value as text without blanks at its ends; empty and NaN are null, whole numbers are digits."""
    kind = raw.type()
    if kind.is_string():
        return raw.strip().nullif("")
    if kind.is_boolean():
        return ibis.cases((raw, "true"), (~raw, "false"))
    if kind.is_decimal():
        text = raw.cast("string")
        kept = ibis.cases((text.contains("."), text.re_replace("[.]?0*$", "")), else_=text)
        return ibis.cases((text.lower() == "nan", None), else_=kept)
    if kind.is_floating():
        number = raw.cast("float64")
        digits = ibis.cases((number.abs() < 1e15, number.cast("int64").cast("string")))
        return ibis.cases(
            (number.isnan(), None),
            (_whole(number), digits.fill_null(raw.cast("string"))),
            else_=raw.cast("string"),
        )
    return raw.cast("string")


def as_number(raw: Expr, engine: str) -> Expr:
    """A value as float64; null where it is missing or no number. Infinity stays infinite."""
    kind = raw.type()
    if kind.is_string():
        return _parsed(raw.strip(), engine)
    if kind.is_boolean():  # PostgreSQL casts booleans to int alone, and takes 1.0 for a decimal
        return raw.cast("int32").cast("float64")
    if kind.is_integer():
        return raw.cast("float64")
    if kind.is_floating() or kind.is_decimal():
        short = kind.is_floating() or (kind.precision is not None and kind.precision <= _DIGITS_OF_FLOAT)
        number = raw.cast("float64") if short else raw.cast("string").cast("float64")
        return ibis.cases((number.isnan(), None), else_=number).cast("float64")
    return ibis.null("float64")


def as_days(raw: Expr, engine: str) -> Expr:
    """A calendar day as int64 days since 1970-01-01; null where it is missing or no day."""
    kind = raw.type()
    if kind.is_string() or (kind.is_numeric() and not kind.is_boolean()):
        text: Expr = _without_point(as_text(raw))
        dashed = text.left(4).concat("-", text.substr(4, 2), "-", text.substr(6, 2))
        iso: Expr = ibis.cases((text.re_search(_COMPACT), dashed), else_=text)
        read = iso.try_cast("date") if engine == "duckdb" else iso.cast("date")
        day: Expr = ibis.cases((iso.re_search(_DAY), read))
    elif kind.is_timestamp() and kind.timezone is None:
        day = ibis.cases((_midnight(raw), raw.cast("date")))
    elif kind.is_date():
        day = raw
    else:
        return ibis.null("int64")
    known = day.between(ibis.date(date.min.isoformat()), ibis.date(date.max.isoformat()))
    return ibis.cases((known, day.delta(ibis.date("1970-01-01"), unit="day"))).cast("int64")


def is_numbers(raw: Expr) -> bool:
    """Is the column stored as lists of numbers?"""
    kind = raw.type()
    return bool(kind.is_array() and kind.value_type.is_numeric() and not kind.value_type.is_boolean())


def as_array(raw: Expr, engine: str) -> Expr:
    """A list of numbers as a list of float32, if it is stored so, or float64; null where it is missing or no list."""
    if not is_numbers(raw):
        return ibis.null("array<float64>")
    kind = raw.type()
    if engine == "postgres":  # where a column's type does not say how many dimensions its arrays have
        listed = raw.cast("array<float32>" if kind.value_type.is_float32() else "array<float64>")
        dimensions: Expr = _dimensions(raw.cast("array<float64>"))
        return ibis.cases((dimensions > 1, None), else_=listed).cast(listed.type())
    if kind.value_type.is_floating() and kind.length is None:
        return raw
    return raw.cast("array<float32>" if kind.value_type.is_float32() else "array<float64>")


def coded(raw: Expr, text: Expr, levels: tuple[str, ...], engine: str) -> Expr:
    """Text as one of `levels`, if it is one up to how numbers are written and letters composed; otherwise as it
    stands."""
    if raw.type().is_string():
        text = _composed(text, engine)
    numeric = [level for level in levels if level.lstrip("-").isdigit()]
    if not numeric:
        return text
    if raw.type().is_string() and not any(re.search("[.]0+$", level) for level in levels):
        text = _without_point(text)
    lengths = {len(level) for level in numeric}
    if len(lengths) == 1 and any(level.startswith("0") for level in numeric):
        width = lengths.pop()
        short = text.re_search(f"^[0-9]{{1,{width - 1}}}$") if width > 1 else ibis.literal(False)
        zeros: Expr = ibis.literal("0" * width)
        text = ibis.cases((short, zeros.concat(text).right(width)), else_=text)
    return text


def missing_codes(column: Column) -> tuple[str, ...]:
    """Missing codes as text, whole numbers as digits."""
    texts: list[str] = []
    for code in column.missing:
        number = _numeric(code)
        texts.append(str(code).strip())
        if number is not None and number == int(number):
            texts.append(str(int(number)))
    return tuple(dict.fromkeys(texts))


def _code(raw: Expr, text: Expr, column: Column, engine: str) -> Expr:
    """Is the value one of the missing codes? Equalities, as DuckDB makes a join of a longer list.

    In a column of numbers or truths codes that are numbers are compared as such, in one of dates those that are days;
    all are compared as text, up to zeros after the point.
    """
    kind = raw.type()
    found = []
    if kind.is_string() or not (column.numeric and kind.is_numeric()):
        written = _composed(text, engine) if kind.is_string() else text
        bare = _without_point(written) if kind.is_string() else written
        found += [bare == code for code in missing_codes(column)]
        found += [written == code for code in missing_codes(column) if re.search("[.]0+$", code)]
    numbers = [number for number in map(_numeric, column.missing) if number is not None]
    if column.numeric and (kind.is_string() or (kind.is_numeric() and not kind.is_boolean())):
        number = as_number(raw, engine)
        found += [_stands_for(raw, number, code) for code in numbers]
    if column.type == "date":
        days = as_days(raw, engine)
        found += [days == day for code in column.missing if (day := _day(code)) is not None]
    listed: Expr = reduce(or_, found, ibis.literal(False))
    return listed.fill_null(False)


def _stands_for(raw: Expr, number: Expr, wanted: float) -> Expr:
    """Is a stored number the float64 `wanted`, as far as its type can tell?"""
    if raw.type().is_float32() or raw.type().is_float16():
        if abs(wanted) > _FLOAT32:
            return ibis.literal(False)
        return raw.cast("float32") == real(wanted).cast("float32")
    if raw.type().is_integer() and wanted.is_integer():
        least = 0.0 if raw.type().is_unsigned_integer() else -(2.0**63)
        return raw == int(wanted) if least <= wanted < 2.0**63 else ibis.literal(False)
    return number == real(wanted)


def _snapped(raw: Expr, number: Expr, column: Column) -> Expr:
    """A float32 that is nearest to a bound is that bound."""
    ends = [end for end in (column.low, column.high) if end is not None]
    if not ends or not (raw.type().is_float32() or raw.type().is_float16()):
        return number
    return ibis.cases(*((_stands_for(raw, number, end), real(end)) for end in ends), else_=number).cast("float64")


def _as_boolean(raw: Expr, engine: str) -> Expr:
    kind = raw.type()
    if kind.is_boolean():
        return raw
    number = as_number(raw, engine) if kind.is_string() or kind.is_numeric() else None
    if number is None:
        return ibis.null("boolean")
    whole = ((number == 1, True), (number == 0, False))
    if not kind.is_string():
        return ibis.cases(*whole)
    lowered = raw.strip().lower()
    words = ((lowered == word, truth) for words, truth in ((TRUE, True), (FALSE, False)) for word in words)
    return ibis.cases(*words, *whole)


def _days_as_text(raw: Expr) -> Expr:
    """As `as_text`, a timestamp at midnight as its date."""
    if not raw.type().is_timestamp():
        return as_text(raw)
    return ibis.cases((_midnight(raw), raw.cast("date").cast("string")), else_=raw.cast("string"))


def _midnight(raw: Expr) -> Expr:
    return raw.cast("date").cast("timestamp") == raw.cast("timestamp")


@ibis.udf.scalar.builtin(name="array_ndims")  # type: ignore[untyped-decorator]
def _dimensions(array: dt.Array[dt.Float64]) -> int:  # type: ignore[empty-body]  # PostgreSQL's own
    ...


def _numeric(code: str | float) -> float | None:
    text = str(code).strip()
    return float(text) if re.fullmatch(_DECIMAL, text) or re.fullmatch(_SCIENTIFIC, text) else None


def _day(code: str | float) -> int | None:
    try:
        return day_of(code)
    except ValueError:
        return None


def _parsed(text: Expr, engine: str) -> Expr:
    if engine == "duckdb":  # knows a safe cast, four times faster; it also takes 1_000, inf and nan
        number = text.try_cast("float64")
        sound = number.between(real(-sys.float_info.max), real(sys.float_info.max)) & ~text.contains("_")
    else:
        number = text.cast("float64")
        sound = text.re_search(_DECIMAL) | text.re_search(_SCIENTIFIC)
    return ibis.cases((sound, number), else_=ibis.null("float64"))


def _without_point(text: Expr) -> Expr:
    """Digits of a whole number that is written with zeros after a point."""
    return ibis.cases((text.re_search("^-?[0-9]+[.]0+$"), text.re_replace("[.]0+$", "")), else_=text)


def _composed(text: Expr, engine: str) -> Expr:
    """Text in Unicode's normalisation form C, where the engine has a function for it."""
    if engine not in _COMPOSED:
        return text

    @ibis.udf.scalar.builtin(name=_COMPOSED[engine])  # type: ignore[untyped-decorator]
    def composed(text: str) -> str:  # type: ignore[empty-body]  # the engine's own function
        ...

    return composed(text)


def _whole(number: Expr) -> Expr:
    return ibis.cases((number.abs() < 2.0**63, number.floor().cast("float64") == number), else_=False)


def _as_integer(raw: Expr, number: Expr, engine: str) -> Expr:
    kind = raw.type()
    if kind.is_integer() and not kind.is_unsigned_integer():
        return raw.cast("int64")
    if kind.is_unsigned_integer():
        return ibis.cases((raw <= 2**63 - 1, raw.cast("int64")))
    told = _whole(number) & (number.abs() < EXACT)
    whole = ibis.cases((told, number.cast("int64")), else_=ibis.null("int64"))
    if not (kind.is_string() or kind.is_decimal()):
        return whole
    text = as_text(raw)  # digits exactly: a float holds 15 of them
    if engine == "duckdb":
        return ibis.cases((text.re_search(_DIGITS), text.try_cast("int64")), else_=whole)
    within = text.re_search(_DIGITS) & (number.abs() < 9.2e18)
    return ibis.cases((within, text.cast("int64")), else_=whole)
