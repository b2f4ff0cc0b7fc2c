"""Keys by which units are matched: which columns, in which normal form, and what becomes of a table's records.

A key is written as its parts, with commas between: `name,birth_date,postcode[:2]`. A part is a column, or several with
plus signs between (`postcode[:2]+birth_date[:4]`), each with a rule (`id:luhn`, see `statfed.core.keyrules`) and with
the characters that count (`[:2]`, `[-4:]`), both optional. Without a rule the codebook's `key` of the column holds, and
without that one the rule of its type. All of it is public and the same at every holder: the name of a part is its text
with the rules that hold, so that holders with other rules have other parts, and a linkage refuses them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from statfed.core.codebook import Codebook, iso_of
from statfed.core.errors import UsageError
from statfed.core.keyrules import Rule, read_rule
from statfed.core.names import one_of
from statfed.core.section import shown
from statfed.core.table import Table

MOST_PARTS = 32
_PIECE = re.compile(r"([^\[\]:,+]+?)\s*(?::\s*([a-z0-9()-]+?))?\s*(?:\[\s*(-?[0-9]{0,4})\s*:\s*(-?[0-9]{0,4})\s*\])?")
_BETWEEN = "\x1f"  # no rule leaves one in a text, so that "ab" + "c" is not "a" + "bc"
_DEFAULT = {"id": "exact", "category": "exact", "boolean": "exact", "text": "text", "date": "date", "integer": "exact"}
_DATES = frozenset({"date", "exact", "text", "digits"})


@dataclass(frozen=True)
class Piece:
    """One column of a part: its rule, then the characters from `start` to `stop`, as Python counts them."""

    column: str
    rule: Rule
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        ends = ["" if end is None else str(end) for end in (self.start, self.stop)]
        return f"{self.column}:{self.rule}" + (f"[{ends[0]}:{ends[1]}]" if any(ends) else "")

    def of(self, value: str | None) -> str | None:
        """What becomes of a value; None where nothing is left of it."""
        found = self.rule(value)
        return None if found is None else found[self.start : self.stop] or None


@dataclass(frozen=True)
class KeyPart:
    """One part of a key: the pieces, put together. Missing where one of them is."""

    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """Its text with the rules that hold: equal names are equal rules."""
        return "+".join(map(str, self.pieces))

    @property
    def columns(self) -> tuple[str, ...]:
        """Its columns, in order."""
        return tuple(piece.column for piece in self.pieces)


@dataclass(frozen=True)
class Keys:
    """A holder's keys. Private. parts: by name of the part, one text a record, None where it is missing; failed: by
    name of the part, values that were there and that its rules could not take, a wrong check digit say."""

    parts: Mapping[str, Sequence[str | None]]
    failed: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Keys(<private>)"


def read_key(written: str, codebook: Codebook, where: str = "key") -> tuple[KeyPart, ...]:
    """The parts of a key. Raises UsageError on a column, rule or range that there is not, or that cannot be a key."""
    parts = tuple(
        KeyPart(tuple(_piece(piece, codebook, where) for piece in part.split("+"))) for part in written.split(",")
    )
    if len(parts) > MOST_PARTS:
        raise UsageError(f"{where}: got {len(parts)} parts; want at most {MOST_PARTS}")
    names = [part.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where}: got {', '.join(twice)} more than once; want each part once")
    return parts


def together(parts: Sequence[KeyPart]) -> KeyPart:
    """One part of all: what an exact linkage compares."""
    return KeyPart(tuple(piece for part in parts for piece in part.pieces))


def _piece(written: str, codebook: Codebook, where: str) -> Piece:
    found = _PIECE.fullmatch(written.strip())
    if found is None:
        raise UsageError(f"{where}: got {shown(written)}; want columns such as name, id:luhn or postcode[:2]")
    column = codebook.column(found[1], where)
    if column.type not in _DEFAULT:
        raise UsageError(f"{where}: {found[1]}: got type {column.type}; want {one_of(_DEFAULT, column.type)}")
    rule = read_rule(found[2] or column.key or _DEFAULT[column.type], f"{where}: {found[1]}")
    if column.type == "date" and rule.name not in _DATES:
        raise UsageError(f"{where}: {found[1]}: got rule {rule} for type date; want {one_of(_DATES, rule.name)}")
    start, stop = (int(end) if end else None for end in (found[3], found[4]))
    return Piece(found[1], rule, start, stop)


def keys_of(table: Table, parts: Sequence[KeyPart]) -> Keys:
    """The keys of a table's records, in the order of `Table.rows`. Raises UsageError on what `read_key` would."""
    columns = list(dict.fromkeys(name for part in parts for name in part.columns))
    types = {name: table.codebook.column(name, "key").type for name in columns}
    rows = table.rows(columns)
    texts = {name: [_text(value, types[name]) for value in rows.column(name).to_pylist()] for name in columns}
    return keys_of_texts(texts, parts)


def keys_of_texts(columns: Mapping[str, Sequence[str | None]], parts: Sequence[KeyPart]) -> Keys:
    """The keys of records whose columns are texts already, dates in ISO form. columns: of equal lengths."""
    made: dict[str, list[str | None]] = {}
    failed: dict[str, int] = {}
    for part in parts:
        pieces, missed = [], set()
        for piece in part.pieces:
            values = columns[piece.column]
            forms = {value: piece.of(value) for value in set(values)}
            pieces.append([forms[value] for value in values])
            missed |= {i for i, value in enumerate(values) if value and value.strip() and forms[value] is None}
        made[part.name] = [None if None in row else _BETWEEN.join(map(str, row)) for row in zip(*pieces, strict=True)]
        failed[part.name] = len(missed)
    return Keys(made, failed)


def _text(value: Any, kind: str) -> str | None:
    if value is None:
        return None
    if kind == "date":
        return iso_of(value)
    return ("true" if value else "false") if kind == "boolean" else str(value)
