"""The structure of a text file, told line by line: every record has as many fields as the header, or which has not.

The grammar is RFC 4180, in which all parsers read the same: a field is quoted from its first sign to its last or not
at all, a quote inside is doubled, lines end in `\\n` or `\\r\\n` (or all in `\\r`), a quoted field may go over lines.
Blank lines stand at the end only. Nothing is guessed and nothing left out: header, records and blank lines at the end
are the whole file. Blocks are looked at with numpy and forgotten, so memory does not grow with the file.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
LONGEST = 16 * 2**20
"""Bytes of a record."""
_LF, _CR, _END_OF_DOS = 10, 13, 26


class Fault(Exception):
    """What is wrong with a text file. line: its number, from 1; what: without a value of a record."""

    def __init__(self, line: int, what: str) -> None:
        super().__init__(f"line {line}: {what}")
        self.line = line


@dataclass(frozen=True)
class Counts:
    """records; content: bytes of all values, quotes taken off; longest: bytes of a record; inner: line ends within
    quotes; paired, single: records that end in `\\r\\n` and in one sign; blank: lines at the end."""

    records: int = 0
    content: int = 0
    longest: int = 0
    inner: int = 0
    paired: int = 0
    single: int = 0
    blank: int = 0


@dataclass(frozen=True)
class _Found:
    """A fault at a place of a block, which is seen there or, the number of fields, where its record ends."""

    place: int
    what: str
    seen: int | None = None

    @property
    def found(self) -> int:
        return self.place if self.seen is None else self.seen


@dataclass
class Lines:
    """Takes in a file's bytes, block by block. Not safe to go on with after a Fault.

    delimiter, quote: single bytes, quote "" for none; fields: of every record; line: number of the first one; carriage:
    do lines end in `\\r`? write: what takes the same records with lines that end in `\\n`, without blank ones.
    """

    delimiter: str
    quote: str
    fields: int
    line: int = 1
    carriage: bool = False
    write: Callable[[bytes], object] | None = None
    counts: Counts = Counts()

    def __post_init__(self) -> None:
        self._inside = False  # a quoted field, at the end of the last block
        self._opened = 0  # line of the quote that opened it
        self._before = 0  # delimiters of the record under way,
        self._length = 0  # and its bytes
        self._start = self.line  # and its line
        self._blank = 0  # line of the first blank one

    def feed(self, block: bytes, last: bool = False) -> None:
        """Take in a block that ends with a line end, or the last one. Raises Fault."""
        end = _CR if self.carriage else _LF
        if last and block and block[-1] != end:
            block += bytes([end])
        found = _look(block, self.delimiter, self.quote, end, self._inside)
        paired = np.zeros(len(found.outer), bool)
        if b"\r" in block and not self.carriage:
            paired = (found.data[found.outer - 1] == _CR) & (found.outer > 0)
        faults = [*self._odd(block, found, last), *self._misquoted(found), *self._misshapen(found, paired)]
        if faults:
            first = min(faults, key=lambda fault: fault.found)
            raise Fault(self._line(found, first.place) if first.place >= 0 else self._start, first.what)
        self._take(found, paired)

    def end(self) -> Counts:
        """What the file has. Raises Fault on a quote that is never closed."""
        if self._inside:
            raise Fault(self._opened, "a quote opens here and is never closed")
        return self.counts

    def _line(self, found: "_Block", position: int) -> int:
        return self.line + int(np.count_nonzero(found.data[:position] == found.end))

    def _odd(self, block: bytes, found: "_Block", last: bool) -> list[_Found]:
        """Signs that no line may have."""
        faults = []
        if (place := block.find(b"\0")) >= 0:
            faults.append(
                _Found(place, "got a NUL byte; want text (of UTF-16, its encoding stated: encoding=utf-16-le)")
            )
        stray = _LF if self.carriage else _CR
        if bytes([stray]) in block:
            places = np.flatnonzero(found.data == stray)
            if not self.carriage:
                places = places[found.data[np.minimum(places + 1, len(block) - 1)] != _LF]
            places = found.outside(places)
            if places.size:
                what = "got a carriage return alone" if stray == _CR else "got a line feed among carriage returns"
                faults.append(_Found(int(places[0]), f"{what}; want lines that end alike"))
        if last and (text := block.rstrip(b"\r\n")).endswith(bytes([_END_OF_DOS])):
            faults.append(_Found(len(text) - 1, "got Ctrl-Z (0x1A), an end mark of DOS; want it removed"))
        return faults

    def _misquoted(self, found: "_Block") -> list[_Found]:
        """Quotes that neither open a field nor close one."""
        quotes, closing = found.quotes, found.closing
        if not quotes.size:
            return []
        edge = np.zeros(256, bool)
        edge[[ord(self.delimiter), found.end]] = True
        before = found.data[quotes - 1]
        if quotes[0] == 0:
            before[0] = found.end
        after = found.data[np.minimum(quotes + 1, len(found.data) - 1)]
        again = ~closing & (before == ord(self.quote))
        starts = ~closing & edge[before]
        edge[[ord(self.quote), found.end if self.carriage else _CR]] = True
        good = starts | again | (closing & edge[after])
        found.starts, found.doubled = quotes[starts], int(np.count_nonzero(again))
        if good.all():
            return []
        first = int(np.argmin(good))
        if not closing[first]:
            return [
                _Found(
                    int(quotes[first]),
                    'got a quote inside a field without quotes; want "" in a quoted one, or quote=none',
                )
            ]
        opened = found.starts[found.starts < quotes[first]]
        line = self._line(found, int(opened[-1])) if opened.size else self._opened
        return [
            _Found(int(quotes[first]), f"got text behind a closing quote (opened in line {line}); want a delimiter")
        ]

    def _misshapen(self, found: "_Block", paired: NDArray[np.bool_]) -> list[_Found]:
        """Records of a wrong number of fields, or too long, and blank lines that are not at the end."""
        starts = np.concatenate([[-self._length], found.outer + 1])
        lengths = starts[1:] - starts[:-1] - 1 - paired
        tail = len(found.data) - int(starts[-1])
        filled = np.count_nonzero(lengths > 0)
        done = int(np.flatnonzero(lengths > 0)[-1]) + 1 if filled else 0
        faults: list[_Found] = []
        if self._blank and (done or tail):
            raise Fault(self._blank, _BLANK)
        if done > filled:
            faults.append(_Found(int(starts[np.argmax(lengths == 0)]), _BLANK))
        elif tail and done < len(lengths):
            faults.append(_Found(int(starts[done]), _BLANK))
        if lengths.max(initial=tail) > LONGEST:
            place = int(starts[np.argmax(np.append(lengths, tail) > LONGEST)])
            what = f"got a record of over {LONGEST >> 20} MiB; want shorter ones (or a quote is not closed)"
            faults.append(_Found(place, what))
        numbers = found.fields[:done]
        if done:
            numbers[0] += self._before
        if (numbers != self.fields).any():
            first = int(np.argmax(numbers != self.fields))
            got = int(numbers[first])
            what = f"got {got} field{'s' * (got > 1)}; want {self.fields}, one a column"
            faults.append(_Found(int(starts[first]), what, int(found.outer[first])))
        found.lengths, found.done, found.tail = lengths, done, tail
        return faults

    def _take(self, found: "_Block", paired: NDArray[np.bool_]) -> None:
        pairs, many, old = int(np.count_nonzero(paired)), len(found.outer), self.counts
        structure = many + pairs + found.delimiters + len(found.quotes) - found.doubled
        self.counts = Counts(
            old.records + found.done,
            old.content + len(found.data) - structure,
            max(old.longest, int(found.lengths.max(initial=found.tail))),
            old.inner + found.ends - many,
            old.paired + pairs,
            old.single + many - pairs,
            old.blank + many - found.done,
        )
        if self.write is not None:
            self.write(self._clean(found, paired))
        if found.done < many and not self._blank:
            self._blank = self._line(found, int(found.outer[found.done - 1]) + 1 if found.done else 0)
        if found.starts.size:
            self._opened = self._line(found, int(found.starts[-1]))
        self._inside = found.inside
        if many:
            self._start = self._line(found, int(found.outer[-1]) + 1)
        self._before = found.begun + (0 if many else self._before)
        self._length = found.tail
        self.line += found.ends

    def _clean(self, found: "_Block", paired: NDArray[np.bool_]) -> bytes:
        data, outer = found.data, found.outer
        if found.done < len(outer):  # blank lines, and nothing behind them
            data = data[: int(outer[found.done - 1]) + 1 if found.done else 0]
            outer, paired = outer[: found.done], paired[: found.done]
        if self.carriage:
            data = data.copy()
            data[outer] = _LF
        if paired.any():
            data = np.delete(data, outer[paired] - 1)
        return data.tobytes()


_BLANK = 'got a blank line before the last record; want it removed, or "" for a record without a value'


@dataclass
class _Block:
    """Where the signs of a block are. end: the sign that ends lines; ends: how many there are; outer: places of those
    outside quotes; fields: of each record, as many as end in this block; begun: delimiters behind the last record;
    delimiters: how many are outside quotes; quotes: places; closing: which of them close; inside: is the end of the
    block within quotes?
    starts, doubled, lengths, done, tail: of quotes and records, as they are found."""

    data: NDArray[np.uint8]
    end: int
    ends: int
    outer: Positions
    fields: Positions
    begun: int
    delimiters: int
    quotes: Positions
    closing: NDArray[np.bool_]
    inside: bool
    starts: Positions
    lengths: Positions
    doubled: int = 0
    done: int = 0
    tail: int = 0

    def outside(self, places: Positions) -> Positions:
        """Those of the places that are outside quotes."""
        start = self.inside ^ bool(len(self.quotes) % 2)
        found: Positions = places[(np.searchsorted(self.quotes, places) + start) % 2 == 0]
        return found


def _look(block: bytes, delimiter: str, quote: str, end: int, inside: bool) -> _Block:
    """inside: does the block begin within quotes?"""
    data = np.frombuffer(block, np.uint8)
    special = data == ord(delimiter)
    special |= data == end
    quoted = bool(quote) and quote.encode() in block
    if quoted:
        special |= data == ord(quote)
    places = np.flatnonzero(special)
    signs = data[places]
    ends = int(np.count_nonzero(signs == end))
    quotes, closing = places[:0], np.zeros(0, bool)
    if quoted:
        is_quote = signs == ord(quote)
        within = (np.cumsum(is_quote) + inside) & 1 == 1
        quotes = places[np.flatnonzero(is_quote)]
        closing = (np.arange(len(quotes)) + inside) & 1 == 1
        inside = bool(within[-1])
        outer = np.flatnonzero(~(within | is_quote))
        places, signs = places[outer], signs[outer]
    elif inside:
        places, signs = places[:0], signs[:0]
    cuts = np.flatnonzero(signs == end)
    begun = len(signs) - (int(cuts[-1]) + 1 if cuts.size else 0)
    fields = np.diff(cuts, prepend=-1)
    return _Block(
        data,
        end,
        ends,
        places[cuts],
        fields,
        begun,
        len(signs) - len(cuts),
        quotes,
        closing,
        inside,
        quotes[:0],
        fields[:0],
    )
