"""A text file of records: how it is written, found once and told; what is in it, counted before it is read. Private.

Nothing is read by guess. The dialect is what the holder states (`statfed.client.data.reading`), else what the header
says: the one delimiter that it has, of `,` `;` tab `|`. The encoding is UTF-8 or what a byte order mark says, else it
has to be stated. `sep=;` in a line of its own, as spreadsheets write it, states the delimiter.

A file is read from its own place where DuckDB reads it as it stands. Where not (another encoding or compression, line
ends of two kinds, lines before the header), a copy in UTF-8 with plain line ends is written into the source's private
folder, which is removed on closing.
"""

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from statfed.client.data.lines import LONGEST, Counts, Fault, Lines
from statfed.client.data.reading import Reading
from statfed.client.data.stored import plain

BLOCK = 2**18
_HEADER = 4 * 2**20  # bytes
_SAMPLE = 20  # records that tell delimiters apart
_DELIMITERS = ",;\t|"
_EDGES = (b"", b"\n", b"\r")
_OTHER_DELIMITERS = " :~^"
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_OTHERS = {
    b"\x1f\x8b": "a gzip file; want .gz at the end of its name",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; want .zst at the end of its name",
    b"PK\x03\x04": "a zip file or a workbook; want it unpacked, or saved as CSV",
    b"\xd0\xcf\x11\xe0": "a workbook; want it saved as CSV",
    b"PAR1": "a Parquet file; want .parquet at the end of its name",
    b"ARROW1": "an Arrow file; want .arrow at the end of its name",
    b"SQLite format 3\0": "a SQLite database; want sqlite:///PATH?table=NAME",
    b"{\\rtf": "a document; want it saved as text",
    b"%PDF": "a PDF; want a table",
}
_SEPARATOR = re.compile(rb'"?sep=([^\r\n"]|\\t)"?\r?\n', re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """What a file is. delimiter, quote: signs, "" for no quotes; names: of its columns; counts: of its records, without
    the header; direct: can DuckDB read it from its place? packed: gzip; header: has it one?"""

    delimiter: str
    quote: str
    names: tuple[str, ...]
    counts: Counts
    direct: bool
    packed: bool
    header: bool
    encoding: str

    def __repr__(self) -> str:
        return "Text(<private>)"


def examine(file: Path, reading: Reading, write: Callable[[bytes], object] | None = None) -> Text:
    """Read the whole file and say what it is. write: takes its records as `Lines` has them, without the header.

    Raises Fault that names the line, OSError where it cannot be read.
    """
    tabs = file.name.lower().endswith((".tsv", ".tsv.gz", ".tsv.zst"))
    with _opened(file) as stream:
        bytes_of = None
        try:
            bytes_of = _Bytes(stream, reading.encoding, file.suffix.lower() not in (".gz", ".zst"))
            return _examined(bytes_of, reading, "\t" if tabs else None, file, write)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Fault(bytes_of.line if bytes_of else 1, _damaged(error)) from None
        except OSError as error:
            if error.errno is None:  # of a decoder and not of the system
                raise Fault(bytes_of.line if bytes_of else 1, _damaged(error)) from None
            raise


def _damaged(error: Exception) -> str:
    cut = isinstance(error, EOFError)
    return f"the compressed file {'ends too early' if cut else 'is damaged'}; want it whole"


def _opened(file: Path) -> Any:
    packed = file.suffix.lower()
    if packed == ".gz":
        return gzip.open(file, "rb")
    if packed == ".zst":
        import pyarrow as pa

        return pa.input_stream(str(file), compression="zstd")
    return file.open("rb")


class _Bytes:
    """The content of a stream as UTF-8, without a byte order mark. line: of the last byte that was given out."""

    def __init__(self, stream: Any, stated: str | None, plain: bool) -> None:
        self._stream, self.line, self._lines = stream, 1, 1
        first = stream.read(max(BLOCK, 64))
        if plain and (what := next((what for mark, what in _OTHERS.items() if first.startswith(mark)), None)):
            raise Fault(1, f"got {what}")
        mark = next((mark for mark in _MARKS if first.startswith(mark)), b"")
        self.encoding = codecs.lookup(stated or _MARKS.get(mark, "utf-8")).name
        if mark and _MARKS[mark].startswith(self.encoding):  # utf-16 stands for both
            first, self.encoding = first[len(mark) :], _MARKS[mark]
        elif mark and stated:
            raise Fault(
                1, f"got the byte order mark of {_MARKS[mark]}; want it, and not {stated}, or no encoding stated"
            )
        self._decoder = None if self.encoding == "utf-8" else codecs.getincrementaldecoder(self.encoding)("strict")
        self._first = first

    def __iter__(self) -> Iterator[bytes]:
        chunk = self._first or self._stream.read(BLOCK)
        while chunk:
            if text := self._recoded(chunk):
                yield text
            chunk = self._stream.read(BLOCK)
        if self._decoder is not None and (text := self._recoded(b"", final=True)):
            yield text

    def _recoded(self, chunk: bytes, final: bool = False) -> bytes:
        if self._decoder is None:
            return chunk
        try:
            text = self._decoder.decode(chunk, final).encode("utf-8")
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode(self.encoding, "replace")
            line = self._lines + (before.count("\n") or before.count("\r"))
            raise Fault(line, f"not {self.encoding}; want the encoding stated as it is") from None
        except UnicodeError:  # of an encoder: half a character
            raise Fault(self._lines, f"not {self.encoding}; want the encoding stated as it is") from None
        self._lines += text.count(b"\n") or text.count(b"\r")
        return text


def _examined(
    source: _Bytes, reading: Reading, tabs: str | None, file: Path, write: Callable[[bytes], object] | None
) -> Text:
    chunks = iter(source)
    start = _Start(chunks, reading)
    delimiter = start.delimiter or tabs or _delimiter(start, file.name)
    quote = start.quote
    first = _fields(start.header, delimiter, quote, start.line)
    if tabs and not start.delimiter and len(first) == 1 and any(sign in first[0] for sign in ",;|"):
        raise Fault(
            start.line, f"got no tab; want tabs in a .tsv file, or the delimiter stated: {file.name}?delimiter=;"
        )
    lines = Lines(delimiter, quote, len(first), start.line, start.carriage, None)
    names = _names(reading, first, start.line)
    if start.named:
        lines.feed(start.header, last=True)
        lines.end()
    head, lines.counts = lines.counts, Counts()
    lines.write = write
    for block, last in _blocks(start.rest, chunks, start.carriage):
        source.line = lines.line
        _valid(block, lines.line, file.name)
        if start.named and len(names) > 1:
            _single(block, start.header.rstrip(b"\r\n"), lines.line)
        lines.feed(block, last)
    counts = lines.end()
    ends = (head.paired + counts.paired > 0) + (head.single + counts.single > 0)
    direct = (
        source.encoding == "utf-8"
        and file.suffix.lower() != ".zst"
        and not start.carriage
        and start.first
        and not head.inner
        and not counts.blank
        and ends <= 1
        and not (counts.paired and counts.inner)
    )
    packed = file.suffix.lower() == ".gz"
    return Text(delimiter, quote, names, counts, direct, packed, start.named, source.encoding)


class _Start:
    """The begin of a file: its header, or its first record, and what came with it.

    header: bytes with the line end; line: its number; rest: bytes behind it; carriage: do lines end in `\\r`? named: is
    it a header? first: does it stand at the very begin?
    """

    def __init__(self, chunks: Iterator[bytes], reading: Reading) -> None:
        self._chunks, self._more, self._data = chunks, True, b""
        self.quote = '"' if reading.quote is None else reading.quote
        self.named = reading.header != 0 and not reading.names
        self.line, self.delimiter = 1, reading.delimiter
        self._grow()
        if found := _SEPARATOR.match(self._data):
            sign = found[1].decode("ascii", "replace").replace("\\t", "\t")
            if sign.isalnum() or not sign.isascii() or self.delimiter not in (None, sign):
                raise Fault(1, "got a line sep= that says another delimiter than is stated, or none; want it right")
            self.delimiter, self.line, self._data = sign, 2, self._data[found.end() :]
        self.first = self.line == 1
        self.carriage = self._ends_in_carriage()
        end = b"\r" if self.carriage else b"\n"
        while self.line < (reading.header or 1):
            while (place := self._data.find(end)) < 0 and self._grow():
                pass
            if place < 0:
                raise Fault(self.line, f"got the end of the file; want the header in line {reading.header}")
            self._data, self.line, self.first = self._data[place + 1 :], self.line + 1, False
        size = self._record(end)
        self.header, self.rest = self._data[:size], self._data[size:]
        _valid(self.header, self.line, "")
        if not self.header.strip(b"\r\n"):
            what = "an empty file" if not self._data and self.line == 1 else "a blank line"
            raise Fault(self.line, f"got {what}; want the names of the columns")
        if not self.named:
            self.header, self.rest = self._data[:size], self._data

    def sample(self) -> str:
        """Whole records, the header first."""
        data = self.header + self.rest if self.named else self.rest
        cut = data.rfind(b"\r" if self.carriage else b"\n") + 1 if self._more else len(data)
        return data[: cut or None].decode("utf-8", "replace")

    def _grow(self) -> bool:
        chunk = next(self._chunks, b"") if self._more else b""
        self._more = bool(chunk)
        self._data += chunk
        if len(self._data) > _HEADER + BLOCK:
            raise Fault(self.line, f"got a line of over {_HEADER >> 20} MiB; want the names of the columns")
        return self._more

    def _ends_in_carriage(self) -> bool:
        """Is the first line end, outside quotes, a carriage return alone?"""
        inside, place = False, 0
        while True:
            while place < len(self._data):
                sign = self._data[place : place + 1]
                if sign == self.quote.encode():
                    inside = not inside
                elif sign == b"\n" and not inside:
                    return False
                elif sign == b"\r" and not inside:
                    if place + 1 == len(self._data):
                        self._grow()
                    return self._data[place + 1 : place + 2] != b"\n" and place + 1 < len(self._data)
                place += 1
            if not self._grow():
                return False

    def _record(self, end: bytes) -> int:
        """Bytes of the first record."""
        place = quotes = 0
        sign = self.quote.encode()
        while True:
            found = self._data.find(end, place)
            if found >= 0:
                quotes += self._data.count(sign, place, found) if sign else 0
                place = found + 1
                if quotes % 2 == 0:
                    return place
            elif not self._grow():
                if sign and (quotes + self._data.count(sign, place)) % 2:
                    raise Fault(self.line, "a quote opens here and is never closed")
                return len(self._data)


def _delimiter(start: _Start, name: str) -> str:
    text, inside, found = start.header.decode("utf-8"), False, dict[str, None]()
    for sign in text:
        inside ^= sign == start.quote
        if not inside and sign in _DELIMITERS:
            found[sign] = None
    if len(found) > 1:
        sample = start.sample()
        fitting = [sign for sign in found if _even(sample, sign, start.quote)]
        if len(fitting) != 1:
            shown = " and ".join("tab" if sign == "\t" else sign for sign in found)
            raise Fault(start.line, f"got {shown}; want the delimiter stated, as in {name}?delimiter=;")
        return fitting[0]
    others = [] if found else [sign for sign in _OTHER_DELIMITERS if sign in text]
    if others := [sign for sign in others if _even(start.sample(), sign, "", 2)]:
        sign = {" ": "space"}.get(others[0], others[0])
        raise Fault(
            start.line, f"got one column, and {sign} in every line; want the delimiter stated: {name}?delimiter={sign}"
        )
    return next(iter(found), ",")


def _even(sample: str, delimiter: str, quote: str, least: int = 1) -> bool:
    """Have the first records, so many at least, all as many fields? Blank lines do not count."""
    try:
        sizes = [len(row) for row in islice(_reader(sample, delimiter, quote), _SAMPLE) if row]
        return len(sizes) >= least and len(set(sizes)) == 1
    except csv.Error:
        return False


def _reader(text: str, delimiter: str, quote: str) -> Any:
    lines = io.StringIO(text, newline="")
    if not quote:
        return csv.reader(lines, delimiter=delimiter, strict=True, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=True, quotechar=quote)


def _fields(record: bytes, delimiter: str, quote: str, line: int) -> list[str]:
    try:
        return next(_reader(record.decode("utf-8"), delimiter, quote))
    except csv.Error:
        raise Fault(line, "got quotes or a field that no line of names has; want the names of the columns") from None


def _names(reading: Reading, first: list[str], line: int) -> tuple[str, ...]:
    """Of the columns. A name that stands twice is told by its places: of a file without a header it is a value."""
    if reading.names:
        if len(reading.names) != len(first):
            raise Fault(line, f"got {len(first)} fields; want {len(reading.names)}, as many as names are stated")
        return reading.names
    if reading.header == 0:
        return tuple(f"column{number}" for number in range(1, len(first) + 1))
    names = [name.strip() for name in first]
    if all(len(name) > 1 and name[0] == name[-1] == "'" for name in names):
        raise Fault(line, "got names in single quotes; want quote=' stated")
    places: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise Fault(line, f"got no name for column {number} of {len(names)}; want one for each")
        if other := places.get(plain(name)):
            alike = names[other - 1] == name
            how = "" if alike else " but for upper and lower case, or how letters are composed"
            raise Fault(line, f"got one name for columns {other} and {number}{how}; want each to have its own")
        places[plain(name)] = number
    return tuple(names)


def _blocks(rest: bytes, chunks: Iterator[bytes], carriage: bool) -> Iterator[tuple[bytes, bool]]:
    """Bytes cut behind line ends, and whether they are the last."""
    end, kept, ready = (b"\r" if carriage else b"\n"), [rest], b""
    for chunk in chunks:
        place = chunk.rfind(end) + 1
        if place:
            if ready:
                yield ready, False
            ready, kept = b"".join([*kept, chunk[:place]]), [chunk[place:]]
        else:
            kept.append(chunk)
            if sum(map(len, kept)) > LONGEST + BLOCK:  # refused
                break
    yield ready + b"".join(kept), True


def _single(block: bytes, header: bytes, line: int) -> None:
    """The header stands once: what follows a second one is another file's."""
    place = block.find(header)
    while place >= 0:
        start, end = place, place + len(header)
        if block.startswith(codecs.BOM_UTF8, max(start - 3, 0)) and start >= 3:
            start -= 3
        if block[max(start - 1, 0) : start] in _EDGES and block[end : end + 1] in _EDGES:
            before = block[:start]
            where = line + (before.count(b"\n") or before.count(b"\r"))
            raise Fault(where, "got the header again; want one table, with one header")
        place = block.find(header, place + 1)


def _valid(block: bytes, line: int, name: str) -> None:
    if block.isascii():
        return
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        where = line + block.count(b"\n", 0, error.start)
        how = f", as in {name}?encoding=latin-1" if name else ": encoding=latin-1, say"
        raise Fault(where, f"not UTF-8; want the encoding stated{how}") from None
