"""How a text file is to be read, as its holder states it behind the file's name. Private.

    people.csv?delimiter=;&decimal=,&thousands=.&encoding=latin-1

| option | value |
| --- | --- |
| delimiter | one sign, or `tab`; else found in the header |
| quote | one sign, or `none`; else `"` |
| decimal, thousands | of numbers: `.` or `,`; and `.`, `,`, `'`, `_`, `space`, `nbsp` or `none` |
| encoding | a name that Python knows; else UTF-8, or UTF-16 and UTF-32 with a byte order mark |
| header | number of the line with the names (what is before is no data), or `none`; else 1 |
| names | names of the columns, with commas between, of a file without a header |

`&` and `%` in a value are written %26 and %25. A file that has the whole text as its name is meant by it.
"""

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import ibis

from statfed.client.data.stored import plain
from statfed.core.errors import UsageError
from statfed.core.table import Expr

START = re.compile(r"[?](?=[A-Za-z_]+=)")
"""Of options behind a path."""
_WORDS = {"tab": "\t", "\\t": "\t", "space": " ", "nbsp": "\xa0", "none": ""}
_ESCAPES = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf_7", "mbcs", "oem"}
_THOUSANDS = (".", ",", "'", "\u2019", "_", " ", "\xa0", "\u202f", "")
_POINTED = r"^[+-]?([0-9]+[.][0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True)
class Signs:
    """How numbers are written in text: the sign before decimals, and that between groups of three digits, or none."""

    decimal: str = "."
    thousands: str = ""

    def plain(self, raw: Expr) -> Expr:
        """Text with its numbers written as `-1234.5`; other text as it is, but what has a point is no number then."""
        point, group = re.escape(self.decimal), re.escape(self.thousands)
        whole = f"([0-9]+|[0-9]{{1,3}}({group}[0-9]{{3}})+)" if group else "[0-9]+"
        pattern = f"^[+-]?({whole}({point}[0-9]*)?|{point}[0-9]+)([eE][+-]?[0-9]+)?$"
        text: Expr = raw.strip()
        number: Expr = text.replace(self.thousands, "") if group else text
        number = number.replace(self.decimal, ".")
        pointed: Expr = ibis.cases((text.re_search(_POINTED), text.replace(".", "..")), else_=raw)
        return ibis.cases((text.re_search(pattern), number), else_=pointed)


@dataclass(frozen=True)
class Reading:
    """The options; None is what was not stated. quote and thousands: "" for none. header: its line, 0 for none."""

    delimiter: str | None = None
    quote: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    encoding: str | None = None
    header: int | None = None
    names: tuple[str, ...] = ()

    @property
    def signs(self) -> Signs | None:
        """Of numbers, where one was stated."""
        if self.decimal is None and self.thousands is None:
            return None
        return Signs(self.decimal or ".", self.thousands or "")


def split(source: str, home: Path) -> tuple[str, str]:
    """The path in `source`, and the text of its options. Raises OSError where `source` is no name that a file has."""
    found = list(START.finditer(source))
    if not found or (home / Path(source).expanduser()).exists():
        return source, ""
    return source[: found[-1].start()], source[found[-1].end() :]


def joined(path: str, options: str) -> str:
    """The source that `split` reads so. A slash in an option would read as one of the path."""
    return f"{path}?{options.replace('/', quote('/', safe=''))}" if options else path


def parsed(options: str, shown: str) -> Reading:
    """The options in this text. Raises UsageError for each that is unknown, stated twice or makes no sense."""
    given: dict[str, str] = {}
    known = ", ".join(field.name for field in fields(Reading))
    for pair in options.split("&") if options else ():
        key, sign, value = pair.partition("=")
        if not sign or key not in _READERS:
            raise UsageError(f"{shown}: got an unknown option {key!r}; want {known}, and %26 for a & in a value")
        if key in given:
            raise UsageError(f"{shown}: got {key} twice; want it once")
        given[key] = unquote(value)
    read: dict[str, Any] = {}
    for key, value in given.items():
        reader, want = _READERS[key]
        try:
            read[key] = reader(value)
        except (LookupError, ValueError):
            raise UsageError(f"{shown}: {key}: got {value!r}; want {want}") from None
    reading = Reading(**read)
    for clash in _clashes(reading):
        raise UsageError(f"{shown}: {clash}")
    return reading


def _clashes(reading: Reading) -> Iterator[str]:
    signs = reading.signs
    if signs and signs.decimal == signs.thousands:
        yield f"decimal, thousands: got {signs.decimal!r} for both; want decimal and thousands stated, and different"
    if reading.delimiter and reading.delimiter == reading.quote:
        yield f"delimiter, quote: got {reading.quote!r} for both; want different ones"
    if reading.names and reading.header:
        yield f"header, names: got names and a header in line {reading.header}; want one of them"


def _sign(text: str) -> str:
    sign = _WORDS.get(text, text)
    if len(sign) != 1 or not sign.isascii() or sign.isalnum() or sign in '"\r\n\0\\+-':
        raise ValueError
    return sign


def _quote(text: str) -> str:
    sign = _WORDS.get(text, text)
    if len(sign) > 1 or not sign.isascii() or sign.isalnum() or (text and not sign.strip() and text != "none"):
        raise ValueError
    return sign


def _one_of(*known: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        sign = _WORDS.get(text, text)
        if sign not in known:
            raise ValueError
        return sign

    return read


def _encoding(text: str) -> str:
    name = codecs.lookup(text).name
    if name.replace("-", "_") in _ESCAPES:
        raise LookupError
    (b" " * 8).decode(name, "replace")  # LookupError where it is no encoding of text
    return name


def _header(text: str) -> int:
    if text != "none" and not re.fullmatch("[1-9][0-9]{0,5}", text):
        raise ValueError
    return 0 if text == "none" else int(text)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names) or len({plain(name) for name in names}) < len(names):
        raise ValueError
    return names


_READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "delimiter": (_sign, "one sign that is neither a letter nor a digit, such as ; or tab"),
    "quote": (_quote, "one sign such as ', or none"),
    "decimal": (_one_of(".", ","), "a point or a comma"),
    "thousands": (_one_of(*_THOUSANDS), "one of . , ' _ space, nbsp or none"),
    "encoding": (_encoding, "a text encoding such as utf-8, latin-1, cp1252 or utf-16-le"),
    "header": (_header, "the number of the line with the names, or none"),
    "names": (_names, "names with commas between, each once"),
}
