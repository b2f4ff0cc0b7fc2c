"""Arithmetic on additive shares in Z/2^64 between two computing parties, with help of a dealer who sees no shares.

x is shared as x = x0 + x1 mod 2^64. Sums, and products with public numbers, are formed by each party alone. For what is
not linear a third party deals correlated random numbers that depend on no data (Beaver 1991), most of them as seeds: a
stream that it has in common with each computing party; only what makes their shares fit goes to the second one.

- *Products.* For x and y the parties open x - a and y - b, with a and b uniform and dealt, and the dealer has dealt
  shares of f(a, b) for the bilinear f at hand: all products of columns row by row, or the matrix X'Y, for which
  n (p + q) numbers are opened and p q dealt (Mohassel and Zhang 2017). A value keeps its mask for all its products:
  x - a is opened once, and shares of every f(a, b) have fresh randomness of their own.
- *Comparison of a count with a public threshold* by a one-time truth table (Ishai, Kushilevitz, Meldgaard, Orlandi and
  Paskin-Cherniavsky 2013): the parties open v + r mod 2^m and hold shares by exclusive or of the table of the answer,
  rotated by r. The bit alone comes out. *Whether any of several is few:* each bit b stays shared; with a dealt bit r,
  shared both ways, the parties open b xor r and have b in Z/2^64 as (b xor r) + r - 2 (b xor r) r; the sum of these is
  compared in its turn.
- *Waves.* Of angles t in turns, 2^64 to the turn, where wrapping round does no harm, the parties open t - r and have
  shares of cos(k r) and sin(k r), dealt: every trigonometric polynomial in t is then a sum that each forms alone, as
  exp(ikt) = exp(ik(t - r)) exp(ikr). What the angles mean is in `_waves`.
- *Division by 2^k* is off by less than one unit, unbiased, and never fails: u + r is opened for a uniform r of which
  r >> k and the top bit are dealt; as u < 2^63, the sum has overflowed exactly where r has its top bit and the sum has
  not. (The local division of Mohassel and Zhang needs no dealer, and is wrong by 2^(64 - k) with probability
  |x| / 2^64, which a million entries of 45 bits would meet.)

Security, semi-honest, computing parties and dealer pairwise not colluding: all that a computing party sees are uniform
numbers, since whatever is opened to it is masked by a mask that is uniform given all else it has, and its dealt shares
are uniform or fixed by what it is meant to learn (the decided bits). The dealer gets nothing. One program, the same
text for all three, runs on a `Computer` at each computing party and on a `Dealer`, in step, round by round.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.core.randomness import Stream
from statfed.strategies.linkages import _waves
from statfed.strategies.linkages._rounds import Mail, Out

Words = NDArray[np.uint64]
Bits = NDArray[np.bool_]
Kind = Literal["outer", "matrix"]
BITS = 64
_HALF = np.uint64(1 << 62)


@dataclass(eq=False)
class Value:
    """Numbers shared between the computing parties. share: this party's; none at the dealer.

    mask: this party's share of the mask, at the dealer the mask; opened: the value less its mask.
    """

    shape: tuple[int, ...]
    share: Words | None = field(default=None, repr=False)
    mask: Words | None = field(default=None, repr=False)
    opened: Words | None = field(default=None, repr=False)

    def columns(self, start: int, stop: int) -> "Value":
        """Some columns, as a value of its own."""
        share = None if self.share is None else self.share[:, start:stop]
        return Value((self.shape[0], stop - start), share)

    def rows(self, block: slice) -> "Value":
        """Some rows, as a value of its own."""
        share = None if self.share is None else self.share[block]
        return Value((len(range(*block.indices(self.shape[0]))), *self.shape[1:]), share)

    @property
    def own(self) -> Words:
        """This party's share. Raises ValueError at the dealer."""
        return _had(self.share)

    @property
    def masking(self) -> Words:
        """This party's share of the mask. Raises ValueError before there is one."""
        return _had(self.mask)

    @property
    def apart(self) -> Words:
        """The value less its mask. Raises ValueError before that is opened."""
        return _had(self.opened)


def _had(words: Words | None) -> Words:
    if words is None:
        raise ValueError("value: got one without this share; want a party that has it")
    return words


Job = tuple[Value, Value, Kind]
Working = Generator[Out, Mail, list[Value]]


class Machine(Protocol):
    """What a program runs on: see the module. Every method but the last takes rounds, the same number for all.

    steps: of a program that opens something at each, how many were opened.
    """

    steps: int

    def products(self, jobs: Sequence[Job]) -> Working:
        """Of x (n, p) and y (n, q) the products of columns row by row, (n, p q), or x'y, (p, q). One round."""
        ...

    def few(self, counts: Value, minimum: int, most: int, least: int = 1) -> Generator[Out, Mail, Bits | None]:
        """Which counts, from 0 to `most`, are in least..minimum - 1; None at the dealer. Opened to all. Two rounds."""
        ...

    def any_few(self, counts: Value, minimum: int, most: int) -> Generator[Out, Mail, Bits | None]:
        """Is any of these counts, from 0 to `most`, in 1..minimum - 1? (1,), None at the dealer. That bit alone is
        opened to all. Four rounds."""
        ...

    def halved(self, value: Value, bits: NDArray[np.uint64]) -> Generator[Out, Mail, Value]:
        """value / 2^bits, by column, off by less than one; |value| < 2^62. One round."""
        ...

    def waves(self, angle: Value, series: NDArray[np.float64]) -> Generator[Out, Mail, Value]:
        """Trigonometric polynomials of (n, 1) angles, times 2^`_waves.SCALE`: (n, polynomials). One round.

        series: (polynomials, 2, K), factors of sin(k t) and cos(k t) for k = 1..K; of which the dealer needs the form.
        """
        ...

    def combined(self, values: Sequence[Value]) -> Value:
        """Columns side by side."""
        ...

    def added(self, one: Value, other: Value) -> Value:
        """The sum of two values of one shape."""
        ...

    def linear(self, value: Value, factors: NDArray[np.uint64]) -> Value:
        """value (n, p) times public factors (p, q) modulo 2^64."""
        ...

    def grouped(self, value: Value, places: NDArray[np.int64], groups: NDArray[np.int64], count: int) -> Value:
        """Sums of the entries at these places of the flattened value by group, 0 to count - 1: (1, count)."""
        ...


def _shape(x: Value, y: Value, kind: Kind) -> tuple[int, ...]:
    return (x.shape[1], y.shape[1]) if kind == "matrix" else (x.shape[0], x.shape[1] * y.shape[1])


def _applied(x: Words, y: Words, kind: Kind) -> Words:
    """The bilinear map of a job."""
    return multiplied(x, y) if kind == "matrix" else (x[:, :, None] * y[:, None, :]).reshape(len(x), -1)


def multiplied(x: Words, y: Words) -> Words:
    """x'y modulo 2^64 for (n, p) and (n, q), by products of 22-bit pieces in float64.

    Pieces are below 2^22 and blocks have 2^9 rows, so that sums stay below 2^53 and are exact.
    """
    total = np.zeros((x.shape[1], y.shape[1]), np.uint64)
    if x.shape[1] * y.shape[1] < 1024:  # the pieces cost more than they save
        for j in range(y.shape[1]):
            total[:, j] = (x * y[:, j : j + 1]).sum(axis=0, dtype=np.uint64)
        return total
    piece, mask = np.uint64(22), np.uint64((1 << 22) - 1)
    for start in range(0, len(x), 512):
        parts = []
        for block in (x[start : start + 512], y[start : start + 512]):
            parts.append([((block >> (piece * np.uint64(i))) & mask).astype(np.float64) for i in range(3)])
        for i in range(3):
            for j in range(3 - i):
                found = (parts[0][i].T @ parts[1][j]).astype(np.uint64)
                total += found << np.uint64(22 * (i + j))
    return total


def _unmasked(jobs: Sequence[Job]) -> list[Value]:
    found: list[Value] = []
    for x, y, _ in jobs:
        for value in (x, y):
            if value.mask is None and not any(value is other for other in found):
                found.append(value)
    return found


@dataclass
class Computer:
    """One computing party. first: is it the one whose dealt shares all come from the stream? stream: the dealer's."""

    peer: str
    dealer: str
    first: bool
    stream: Stream = field(repr=False)
    steps: int = 0

    def words(self, shape: tuple[int, ...]) -> Words:
        """Uniform numbers that the dealer knows too."""
        return self.stream.words(int(np.prod(shape))).reshape(shape)

    def dealt(self, mail: Mail, shape: tuple[int, ...]) -> Words:
        """A share of what the dealer deals: from the stream at the first, from its mail at the second."""
        return self.words(shape) if self.first else mail.of(self.dealer).take(shape)

    def products(self, jobs: Sequence[Job]) -> Working:
        fresh = _unmasked(jobs)
        for value in fresh:
            value.mask = self.words(value.shape)
        masked = [value.own - value.masking for value in fresh]
        mail = yield Out({self.peer: tuple(masked)} if masked else {})
        for value, own in zip(fresh, masked, strict=True):
            value.opened = own + mail.of(self.peer).take(value.shape)
        found = []
        for x, y, kind in jobs:
            share = self.dealt(mail, _shape(x, y, kind))
            with_x = y.masking + y.apart if self.first else y.masking
            share = share + _applied(x.apart, with_x, kind) + _applied(x.masking, y.apart, kind)
            found.append(Value(share.shape, share))
        return found

    def few(self, counts: Value, minimum: int, most: int, least: int = 1) -> Generator[Out, Mail, Bits | None]:  # noqa: ARG002
        bit = yield from self._decided(counts, most)
        mail = yield Out({self.peer: (bit,)}, {"few": bit})
        decided: Bits = (bit ^ mail.of(self.peer).take(bit.shape, "<u1")).astype(bool).reshape(counts.shape)
        return decided

    def _decided(self, counts: Value, most: int) -> Generator[Out, Mail, NDArray[np.uint8]]:
        """A share by exclusive or of the answer of each count's table. One round."""
        size, cells = table_bits(most), int(np.prod(counts.shape))
        low = np.uint64((1 << size) - 1)
        own = (counts.own.reshape(-1) + self.words((cells,))) & low
        mail = yield Out({self.peer: (own,)})
        at = (own + mail.of(self.peer).take((cells,))) & low
        width = (1 << size) // 8
        dealt = self.dealt(mail, (cells, width // 8)).view("<u1").reshape(cells, width)
        byte = dealt[np.arange(cells), (at >> np.uint64(3)).astype(np.int64)]
        return np.asarray((byte >> (at & np.uint64(7)).astype("<u1")) & 1, np.uint8)

    def any_few(self, counts: Value, minimum: int, most: int) -> Generator[Out, Mail, Bits | None]:  # noqa: ARG002
        bit = yield from self._decided(counts, most)
        own = bit.astype(np.uint64) ^ (self.words(bit.shape) & np.uint64(1))
        mail = yield Out({self.peer: (own,)})
        apart, mask = own ^ mail.of(self.peer).take(bit.shape), self.dealt(mail, bit.shape)
        share = mask - np.uint64(2) * apart * mask
        if self.first:
            share = share + apart
        total = Value((1,), share.sum(dtype=np.uint64).reshape(1))
        return (yield from self.few(total, len(bit) + 1, len(bit)))

    def halved(self, value: Value, bits: NDArray[np.uint64]) -> Generator[Out, Mail, Value]:
        own = value.own + self.words(value.shape)
        if self.first:
            own = own + _HALF
        mail = yield Out({self.peer: (own,)})
        summed = own + mail.of(self.peer).take(value.shape)
        shifted, top = self.dealt(mail, value.shape), self.dealt(mail, value.shape)
        no_top = (summed >> np.uint64(63)) ^ np.uint64(1)
        share = no_top * (top << (np.uint64(64) - bits)) - shifted
        if self.first:
            share = share + (summed >> bits) - (_HALF >> bits)
        return Value(value.shape, share)

    def waves(self, angle: Value, series: NDArray[np.float64]) -> Generator[Out, Mail, Value]:
        own = angle.own - self.words(angle.shape)
        mail = yield Out({self.peer: (own,)})
        apart = own + mail.of(self.peer).take(angle.shape)
        dealt = self.dealt(mail, (angle.shape[0], 2 * series.shape[2]))
        share = _waves.summed(apart[:, 0], dealt, series)
        return Value(share.shape, share)

    def combined(self, values: Sequence[Value]) -> Value:
        share = np.concatenate([value.own for value in values], axis=1)
        return Value(share.shape, share)

    def added(self, one: Value, other: Value) -> Value:
        return Value(one.shape, one.own + other.own)

    def linear(self, value: Value, factors: NDArray[np.uint64]) -> Value:
        share = np.stack([(value.own * column).sum(axis=1, dtype=np.uint64) for column in factors.T], axis=1)
        return Value(share.shape, share)

    def grouped(self, value: Value, places: NDArray[np.int64], groups: NDArray[np.int64], count: int) -> Value:
        share = np.zeros((1, count), np.uint64)
        np.add.at(share[0], groups, value.own.reshape(-1)[places])
        return Value(share.shape, share)


@dataclass
class Dealer:
    """The dealer: it has the streams of both computing parties, and sends the second what makes shares fit."""

    second: str
    streams: tuple[Stream, Stream] = field(repr=False)
    steps: int = 0

    def words(self, shape: tuple[int, ...]) -> Words:
        """Uniform numbers of which each computing party has a share."""
        first, second = (stream.words(int(np.prod(shape))) for stream in self.streams)
        return (first + second).reshape(shape)

    def corrected(self, value: Words) -> Words:
        """What the second party's share of `value` is, where the first one's is next in its stream."""
        return value - self.streams[0].words(value.size).reshape(value.shape)

    def products(self, jobs: Sequence[Job]) -> Working:
        for value in _unmasked(jobs):
            value.mask = self.words(value.shape)
        sent, found = [], []
        for x, y, kind in jobs:
            product = _applied(x.masking, y.masking, kind)
            sent.append(self.corrected(product))
            found.append(Value(product.shape))
        yield Out({self.second: tuple(sent)})
        return found

    def few(self, counts: Value, minimum: int, most: int, least: int = 1) -> Generator[Out, Mail, Bits | None]:
        yield Out({self.second: (self._tables(counts, minimum, most, least),)})
        yield Out()
        return None

    def _tables(self, counts: Value, minimum: int, most: int, least: int) -> Words:
        """The second party's shares of the tables."""
        size, cells = table_bits(most), int(np.prod(counts.shape))
        low = np.uint64((1 << size) - 1)
        r = self.words((cells,)) & low
        answers = np.zeros((cells, (1 << size) // 8), np.uint8)
        for count in range(least, min(minimum, most + 1)):  # few: the minimum is a small number
            at = (r + np.uint64(count)) & low
            answers[np.arange(cells), (at >> np.uint64(3)).astype(np.int64)] |= np.uint8(1) << (
                at & np.uint64(7)
            ).astype(np.uint8)
        words: Words = answers.view("<u8")
        return words ^ self.streams[0].words(words.size).reshape(words.shape)

    def any_few(self, counts: Value, minimum: int, most: int) -> Generator[Out, Mail, Bits | None]:
        cells = int(np.prod(counts.shape))
        yield Out({self.second: (self._tables(counts, minimum, most, 1),)})
        mask = self.words((cells,)) & np.uint64(1)  # its bit is the exclusive or of the parties' bits
        yield Out({self.second: (self.corrected(mask),)})
        return (yield from self.few(Value((1,)), cells + 1, cells))

    def halved(self, value: Value, bits: NDArray[np.uint64]) -> Generator[Out, Mail, Value]:
        r = self.words(value.shape)
        yield Out({self.second: (self.corrected(r >> bits), self.corrected(r >> np.uint64(63)))})
        return Value(value.shape)

    def waves(self, angle: Value, series: NDArray[np.float64]) -> Generator[Out, Mail, Value]:
        r = self.words(angle.shape)
        yield Out({self.second: (self.corrected(_waves.dealt(r[:, 0], series.shape[2])),)})
        return Value((angle.shape[0], len(series)))

    def combined(self, values: Sequence[Value]) -> Value:
        return Value((values[0].shape[0], sum(value.shape[1] for value in values)))

    def added(self, one: Value, other: Value) -> Value:  # noqa: ARG002
        return Value(one.shape)

    def linear(self, value: Value, factors: NDArray[np.uint64]) -> Value:
        return Value((value.shape[0], factors.shape[1]))

    def grouped(self, value: Value, places: NDArray[np.int64], groups: NDArray[np.int64], count: int) -> Value:  # noqa: ARG002
        return Value((1, count))


def table_bits(most: int) -> int:
    """Bits of a count from 0 to `most`: at least 6, so that a table has whole words."""
    return max(6, int(most).bit_length())


def opened(shares: Sequence[Words]) -> NDArray[np.int64]:
    """The numbers that two shares are of, from -2^63 to 2^63. Raises Refused on shares of different form."""
    if len(shares) != 2 or shares[0].shape != shares[1].shape or any(s.dtype != np.uint64 for s in shares):
        raise Refused("shares: got some of different form; want two of 64-bit words")
    return (shares[0] + shares[1]).view(np.int64)
