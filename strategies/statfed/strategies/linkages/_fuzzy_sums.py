"""Sums over links that the linkage unit finds, of columns that it does not see: counts and totals by cell.

The *owner* has a matrix V (n, m) of its n records in their secret order: an indicator of each cell, and each value and
its square times that. The linkage unit has S (n, 2): how many links and how many pairs in blocks each of these records
has. Wanted is S' V, of which neither may learn the other's half. The other holder *deals*: uniform R (n, 2) to the
unit and Q (n, m) to the owner, by seeds, and uniform T, T* with T + T* = R' Q. Then

    the unit sends S - R to the owner, the owner V - Q to the unit; all is modulo 2^64;
    the owner's share is (S - R)' V + T, the unit's R' (V - Q) + T*, and both add up to S' V.

Why it holds, parties following the protocol: R and Q are used once, so that what is sent is uniform whatever S and V
are, and T is uniform: each party's view follows from its own input and its share alone. The dealer gets nothing. So
nobody learns anything unless two parties work together: the dealer with the unit sees V, the dealer with the owner S,
which two holders who pool their registers could work out anyway.

Cells have numbers in an order that the owner draws: the unit, which opens counts to see that they are not too small,
knows how many links and pairs each numbered cell has, and not which cell it is nor which record is in it.

Source: Beaver 1997, Commodity-based cryptography; Du and Zhan 2002, A practical approach to solve secure multi-party
computation problems (scalar products with a commodity server).

Numbers: a value is a whole number of units, a square one of units of its own, rounded up or down at random so that no
sum is off but by chance (`off`).
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from statfed.core.randomness import Stream
from statfed.core.section import Section

Words = NDArray[np.uint64]
Floats = NDArray[np.float64]
SEED = 32
"""Bytes of what is dealt to the unit: seeds of R and of its share of the sums."""
MOST_WEIGHT = 2**32
"""Links and pairs of all records together, at most: so that no sum of values wraps."""
_PLACES = 30  # binary places of a value, and of a square, beside its bound
_MESSAGE = 1 << 20  # words of one message at most


class Value(Section):
    """A column that is summed, with its public bounds."""

    low: float
    high: float
    whole: bool = Field(default=False, description="whole numbers alone")

    @model_validator(mode="after")
    def _checked(self) -> "Value":
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"low, high: got {self.low:g}, {self.high:g}; want low <= high, both finite")
        return self

    @property
    def units(self) -> tuple[float, float]:
        """Smallest differences of a value and of its square: powers of two."""
        bound = max(abs(self.low), abs(self.high), 1e-30)
        places = math.ceil(math.log2(bound)) - _PLACES
        fine = 1.0 if self.whole and places <= 0 else 2.0**places
        return fine, 2.0 ** (math.ceil(2 * math.log2(bound)) - _PLACES)


@dataclass(frozen=True)
class Plan:
    """What follows from an agreement. owner: who has the columns; dealer: the other holder; size: records that
    the owner sends; cells: how many; values: by name."""

    owner: str
    dealer: str
    size: int
    cells: int
    values: Mapping[str, Value]

    @property
    def width(self) -> int:
        """Columns of V: indicators, then each value and its square."""
        return self.cells * (1 + 2 * len(self.values))

    @property
    def rows(self) -> int:
        """Records of one message."""
        return max(1, _MESSAGE // max(self.width, 2))

    @property
    def messages(self) -> int:
        """In how many messages the records go."""
        return -(-self.size // self.rows)

    def parts(self) -> Iterator[slice]:
        """The records of each message."""
        return (slice(at, min(at + self.rows, self.size)) for at in range(0, self.size, self.rows))


@dataclass
class Drawn:
    """Rows of a uniform matrix from a seed, in order."""

    seed: bytes
    width: int

    def __post_init__(self) -> None:
        self._stream = Stream(self.seed)

    def __repr__(self) -> str:
        return "Drawn(<private>)"

    def rows(self, count: int) -> Words:
        """The next rows."""
        return self._stream.words(count * self.width).reshape(count, self.width)


def deal(plan: Plan, random: Stream) -> tuple[bytes, bytes]:
    """What the dealer gives to the owner (a seed of Q, then its share T) and to the unit (seeds of R and of T*)."""
    seeds = [random.words(2).tobytes() for _ in range(3)]
    of_owner, of_unit = Drawn(seeds[0], plan.width), Drawn(seeds[1], 2)
    share = np.zeros((2, plan.width), np.uint64) - Drawn(seeds[2], plan.width).rows(2)
    for part in plan.parts():
        count = part.stop - part.start
        share += product(of_unit.rows(count), of_owner.rows(count))
    return seeds[0] + share.tobytes(), seeds[1] + seeds[2]


def product(weights: Words, values: Words) -> Words:
    """weights' values modulo 2^64: (2, m) of (n, 2) and (n, m)."""
    return np.stack([(values * weights[:, place, None]).sum(0, dtype=np.uint64) for place in range(weights.shape[1])])


def matrix(plan: Plan, cells: NDArray[np.int64], values: Mapping[str, Floats], random: Stream) -> Words:
    """V for records of the owner: (n, width). cells: of each record, in the order that is drawn; -1 for what pads."""
    made = np.zeros((len(cells), plan.width), np.uint64)
    rows = np.flatnonzero(cells >= 0)
    made[rows, cells[rows]] = 1
    for place, (name, value) in enumerate(plan.values.items()):
        for square, unit in enumerate(value.units):
            amounts = values[name][rows] ** (1 + square) / unit
            whole = np.floor(amounts + 1.0 - random.uniform(len(rows))) if unit != 1.0 else np.rint(amounts)
            made[rows, cells[rows] + (1 + 2 * place + square) * plan.cells] = whole.astype(np.int64).view(np.uint64)
    return made


def opened(plan: Plan, words: Words) -> tuple[Floats, dict[str, Floats]]:
    """Counts (2, cells), and by value totals and totals of squares, (2, 2, cells): of links and of pairs each."""
    numbers = words.view(np.int64).reshape(2, -1, plan.cells)
    found = {}
    for place, (name, value) in enumerate(plan.values.items()):
        units = np.array(value.units)[None, :, None]
        found[name] = numbers[:, 1 + 2 * place : 3 + 2 * place] * units
    return numbers[:, 0].astype(np.float64), found


def off(value: Value, count: Floats) -> tuple[Floats, Floats]:
    """Standard error at most, by rounding, of a total of so many values and of one of their squares."""
    fine, coarse = value.units
    return (0.0 if fine == 1.0 else fine / 2) * np.sqrt(count), coarse / 2 * np.sqrt(count)


def told(links: Floats, pairs: Floats, minimum: int, most: tuple[int, int] = (1, 1)) -> NDArray[np.bool_]:
    """Which cells are told: those with at least `minimum` x most links, and as many other pairs or none.

    most: the largest number of links, and of other pairs, that any record of either list has. At least `minimum`
    different records of each list are behind what is told: were there n < minimum of one list behind a cell's L links,
    each has at most `most` of them, so that L <= n x most < minimum x most. For other pairs the same.
    What is withheld is, all cells together, as many links and other pairs, or nothing: totals over all cells are told.
    """
    others = pairs - links
    least = [minimum * max(one, 1) for one in most]
    shown = np.asarray((links >= least[0]) & ((others == 0) | (others >= least[1])), bool)
    by_size = np.argsort(links, kind="stable")
    for cell in by_size[shown[by_size]]:
        left = [kind[~shown].sum() for kind in (links, others)]
        if not any(0 < number < enough for number, enough in zip(left, least, strict=True)):
            break
        shown[cell] = False
    return shown
