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
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, iso_of
from statfed.core.errors import UsageError
from statfed.core.keyrules import Rule, read_rule
from statfed.core.names import one_of
from statfed.core.section import shown
from statfed.core.table import Table

pc: Any = pyarrow.compute  # its functions are made when it is imported
MOST_PARTS = 32
MOST_LETTERS = 8_000
_RULE = re.compile(r"[a-z0-9()-]+")
_END = re.compile(r"-?[0-9]{0,4}")
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


@dataclass(frozen=True)
class Packed:
    """A holder's keys, packed: as `Keys`, the texts as bytes of UTF-8 in Arrow arrays, null where one is missing."""

    parts: Mapping[str, pa.LargeBinaryArray]
    failed: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Packed(<private>)"


Texts: TypeAlias = "Sequence[str | None] | pa.LargeBinaryArray"
"""Texts of units, None where one is missing: Python's, or bytes of UTF-8 in an Arrow array, which take a fifth."""


def packed_texts(texts: Texts) -> pa.LargeBinaryArray:
    """Texts as bytes of UTF-8 in one Arrow array, with offsets of 64 bits: all together may take any space."""
    if isinstance(texts, pa.Array):
        array: Any = texts
        return array.cast(pa.large_binary())
    found = [None if text is None else str(text).encode("utf-8", "surrogatepass") for text in texts]
    return pa.array(found, pa.large_binary())


def read_key(written: str, codebook: Codebook, where: str = "key") -> tuple[KeyPart, ...]:
    """The parts of a key. Raises UsageError on a column, rule or range that there is not, or that cannot be a key."""
    if len(written) > MOST_LETTERS:
        raise UsageError(f"{where}: got {len(written):,} letters; want at most {MOST_LETTERS:,}")
    parts = tuple(
        KeyPart(tuple(_piece(piece, codebook, where) for piece in part.split("+"))) for part in written.split(",")
    )
    if len(parts) > MOST_PARTS:
        raise UsageError(f"{where}: got {len(parts)} parts; want at most {MOST_PARTS}")
    names = [part.name for part in parts]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where}: got {', '.join(twice)} more than once; want each part once")
    return parts


def check_part(written: str) -> None:
    """Raise UsageError on what is one part of no key, whatever the codebook."""
    for piece in written.split("+"):
        found = None if len(written) > MOST_LETTERS or "," in piece else _split(piece)
        if found is None:
            raise UsageError(f"got {shown(written)}; want one part of a key, as id:digits or postcode[:2]")
        if found[1]:
            read_rule(found[1], found[0])


def together(parts: Sequence[KeyPart]) -> KeyPart:
    """One part of all: what an exact linkage compares."""
    return KeyPart(tuple(piece for part in parts for piece in part.pieces))


def _split(written: str) -> tuple[str, str, str, str] | None:
    """Column, rule, first and last of a piece, empty where there is none; None of what is no piece. In one pass each:
    nothing is tried again from another place, however many blanks there are."""
    rest, bracket, ends = written.strip().partition("[")
    start = stop = ""
    if bracket:
        start, colon, stop = ends.removesuffix("]").partition(":")
        start, stop = start.strip(), stop.strip()
        if not (colon and ends.endswith("]") and _END.fullmatch(start) and _END.fullmatch(stop)):
            return None
    column, colon, rule = rest.partition(":")
    column, rule = column.strip(), rule.strip()
    if not column or "]" in column or (colon and not _RULE.fullmatch(rule)):
        return None
    return column, rule, start, stop


def _piece(written: str, codebook: Codebook, where: str) -> Piece:
    found = _split(written)
    if found is None:
        raise UsageError(f"{where}: got {shown(written)}; want columns such as name, id:luhn or postcode[:2]")
    name, said, *ends = found
    column = codebook.column(name, where)
    if column.type not in _DEFAULT:
        raise UsageError(f"{where}: {name}: got type {column.type}; want {one_of(_DEFAULT, column.type)}")
    rule = read_rule(said or column.key or _DEFAULT[column.type], f"{where}: {name}")
    if column.type == "date" and rule.name not in _DATES:
        raise UsageError(f"{where}: {name}: got rule {rule} for type date; want {one_of(_DATES, rule.name)}")
    start, stop = (int(end) if end else None for end in ends)
    return Piece(name, rule, start, stop)


def keys_of(table: Table, parts: Sequence[KeyPart]) -> Packed:
    """The keys of a table's records, in the order of `Table.rows`. Raises UsageError on what `read_key` would.

    Records are read and brought to their normal form a batch at a time: what stays in memory is the packed keys.
    """
    columns = list(dict.fromkeys(name for part in parts for name in part.columns))
    types = {name: table.codebook.column(name, "key").type for name in columns}
    packed: dict[str, list[pa.LargeBinaryArray]] = {part.name: [] for part in parts}
    failed = {part.name: 0 for part in parts}
    for batch in table.streamed(columns):
        plain = {name: _plain(batch.column(name), types[name]) for name in columns}
        slow = [part for part in parts if not _quick(part, plain)]
        texts = {
            name: [_text(value, types[name]) for value in batch.column(name).to_pylist()]
            for name in dict.fromkeys(name for part in slow for name in part.columns)
        }
        found = keys_of_texts(texts, slow)
        for part in parts:
            if part.name in found.parts:
                packed[part.name].append(packed_texts(found.parts[part.name]))
                failed[part.name] += found.failed[part.name]
            else:
                packed[part.name].append(plain[part.columns[0]])
    return Packed({name: _joined(chunks) for name, chunks in packed.items()}, failed)


def _quick(part: KeyPart, plain: Mapping[str, pa.LargeBinaryArray | None]) -> bool:
    """Is the part one column as it is, of texts that are their own normal form?"""
    (first, *others) = part.pieces
    as_it_is = first.rule == Rule("exact") and first.start is None and first.stop is None
    return not others and as_it_is and plain[first.column] is not None


def _plain(values: pa.Array, kind: str) -> pa.LargeBinaryArray | None:
    """A batch as its own normal form by rule `exact`; None where some of it may have another one.

    Printable letters of Basic Latin are composed, and have no other control or space around them than what is looked
    at here.
    """
    if kind in ("date", "boolean"):
        return None
    if pa.types.is_integer(values.type):
        values = values.cast(pa.large_string())
    if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
        return None
    if not pc.all(pc.match_substring_regex(values, r"^[!-~]([ -~]*[!-~])?$"), min_count=0).as_py():
        return None
    return values.cast(pa.large_string()).cast(pa.large_binary())


@dataclass
class Missing:
    """Which records of a table have no key, a batch at a time. types: of the columns, by name."""

    types: Mapping[str, str]

    def of(self, batch: Any, part: KeyPart) -> NDArray[np.bool_]:
        """Is the part missing? batch: Arrow, as of `Table.streamed`."""
        found = np.zeros(batch.num_rows, bool)
        for piece in part.pieces:
            values = batch.column(piece.column)
            plain = _plain(values, self.types[piece.column])
            if plain is not None and piece.rule == Rule("exact") and piece.start is None and piece.stop is None:
                found |= pc.is_null(plain).to_numpy(zero_copy_only=False)
                continue
            texts = [_text(value, self.types[piece.column]) for value in values.to_pylist()]
            none = {text: piece.of(text) is None for text in set(texts)}
            found |= np.fromiter((none[text] for text in texts), bool, len(texts))
        return found


def as_codebook(part: KeyPart, codebook: Codebook) -> bool:
    """Is it of whole columns, each by the rule of the codebook, or of its type?"""
    return all(
        piece.start is None and piece.stop is None and piece.rule == _rule_of(piece.column, codebook)
        for piece in part.pieces
    )


def _rule_of(name: str, codebook: Codebook) -> Rule:
    column = codebook.columns[name]
    return read_rule(column.key or _DEFAULT[column.type])


def _joined(chunks: list[pa.LargeBinaryArray]) -> pa.LargeBinaryArray:
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_binary())


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
