"""Noise on what `helper` opens: size, tables, totals and means over the matched, private before anybody sees them.

What is opened are the sums that the horizontal method asks its holders for with [privacy] (`noisy`), over the joined
records: numbers by cell, or the terms of amounts (`statfed.strategies.analyses._divided`). Of these each of the first
two holders has a share, and to its share it adds *all of the noise* of one release. So a figure has the noise twice.

Formal guarantee: (epsilon, delta) differential privacy of each holder's units, add-or-remove one unit of one holder, of
all that the coordinator sees, what it releases, and what either of the two holders sees, its own noise included, while
they follow the protocol, these two do not collude, and the helper colludes with nobody.

1. *Sensitivity.* Keys of a list are each there once (a list that has one twice is refused), so that one unit more or
   less at one holder is one joined record more or less, or none: also among three holders. Its column values being
   within the codebook's bounds (others are refused), figures change as those of a horizontal study do when a record
   comes or goes, and `Noise` is planned for exactly these. Where a unit *changes* instead, its key or a value, one
   joined record goes and one comes: the size changes by 1 at most, all else by twice as much as stated, and the event
   twice composed covers it.
2. *Rounding.* Amounts are shared as whole numbers of 2^-k of the grid that the noise is planned on, each within half of
   it, and their sums divided by 2^k on shares (`_shares.halved`). For fixed random numbers of that division its result
   is a constant and the whole part of (a constant + sum) / 2^k, or one less: as in rounding to the grid it changes by
   fewer than x + 1 units where the sum changes by x, and not at all where that does not. That is what the event has
   been charged for (`statfed.core.privacy.noise`, 1 and 2); numbers of units are exact.
3. *Shares.* The coordinator sees s_1 + z_1 and s_2 + z_2, each uniform given their sum, the figure + z_1 + z_2. Given
   all that holder 1 has, z_2 is fresh noise, of which the guarantee follows; z_1 is post-processing. Nothing else is
   opened: whether a cell is small is not decided on shares, and the minimum frequency is judged by the coordinator, on
   the noisy size; figures with noise have no other, as in horizontal studies.
4. *Lists* are of the agreed cap, at least every holder's public size: their length says nothing of what conditions
   select or keys are missing. *Attempts*: each draws its own noise, so that a holder is charged for each and gives no
   second one for the charge of the first (`statfed.client.holder`).

*Not claimed:* anything against the helper, which sees how many tags match, exactly (not which, nor a value); and what
holders refuse on seeing their data (a key twice, values out of bounds, the differencing rule), as in every study.

Sources: Dwork, Kenthapadi, McSherry, Mironov and Naor 2006, Our data, ourselves (noise added to shares);
Canonne, Kamath and Steinke 2020 on discrete noise.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, UsageError
from statfed.core.linkage import Outcome, Units
from statfed.core.method import Ask, Part, Question, Total
from statfed.core.privacy.noise import Noise
from statfed.core.privacy.noise import plan as noise_plan
from statfed.core.privacy.placement import in_words
from statfed.core.randomness import Stream, stream
from statfed.core.result import Result
from statfed.core.table import Table
from statfed.core.terms import Privacy
from statfed.strategies.analyses import _divided
from statfed.strategies.analyses._survey import survey_design
from statfed.strategies.linkages._cells import MOST_CELLS, Axis
from statfed.strategies.linkages._features import ROOM, ROW, owner, table_of
from statfed.strategies.linkages._rounds import Mail, Out
from statfed.strategies.linkages._shares import Machine, Value

KINDS = ("table", "total", "mean")
SIZE = "size"
OPENED = "opened"
FINEST = 20
"""Most binary places of values beyond the grid of their noise."""
DRAWS = 2
"""Draws of noise in each figure: one of each computing party."""
Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Measure:
    """Amounts of a column, at one holder. suffix: of the names of their parts; form: the terms that are summed."""

    column: str
    suffix: str
    form: _divided.Form


@dataclass(frozen=True)
class Noisy:
    """What is shared and opened. question: None for the size alone; axes: of the cells, in the order of the method's
    domains; measures: all at one holder, none where units are counted."""

    noise: Noise
    parts: Mapping[str, Part]
    question: Question[Any] | None
    axes: tuple[Axis, ...]
    measures: tuple[Measure, ...]
    cap: int
    holders: tuple[str, ...]
    last: str

    groups = 0
    """Cells of which it is decided on shares whether they are small: none."""
    figures = 1
    """Exact figures that somebody sees: the number of matches, the helper."""

    @property
    def cells(self) -> int:
        return math.prod(axis.size for axis in self.axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is opened: all parts one after the other."""
        return (sum(math.prod(part.shape) for part in self.parts.values()),)

    @property
    def entries(self) -> list[tuple[Measure, str, int, float]]:
        """What is summed of amounts, in the order in which it is shared: measure, part, entry in it, and its grid."""
        return [
            (measure, name, entry, float(self.noise.grid(f"{name}{measure.suffix}")[0]))
            for measure in self.measures
            for name, piece in measure.form.pieces.items()
            for entry in range(piece.entries)
        ]

    @property
    def bits(self) -> int:
        """Binary places of amounts beyond the grid: none where units are counted."""
        if not self.measures:
            return 0
        most = max(piece.unit / self._grid(m, name) for m in self.measures for name, piece in m.form.pieces.items())
        found = min(FINEST, ROOM - 2 - int(self.cap).bit_length() - math.ceil(math.log2(most)))
        if found < 8:
            raise UsageError(f"cap: got {self.cap}; want fewer units: sums over so many have no room in 64 bits")
        return found

    def _grid(self, measure: Measure, name: str) -> float:
        return next(grid for one, part, _, grid in self.entries if (one, part) == (measure, name))

    def own(self, holder: str) -> list[int]:
        return [i for i, axis in enumerate(self.axes) if axis.holder == holder]

    @property
    def left(self) -> list[str]:
        return [name for name in self.holders if name != self.last and self.own(name)]

    def size(self, holder: str) -> int:
        return math.prod(self.axes[i].size for i in self.own(holder))

    def width(self, holder: str) -> int:
        if holder == self.last:
            return self.size(holder) * max(1, len(self.entries)) if self.question else 0
        return self.size(holder) if self.own(holder) else 0

    def payload(self, holder: str, units: Units, names: Sequence[str]) -> Iterator[Words]:
        """`width` columns (n,): indicators of the holder's cells; at the last one times each term of the amounts.
        names: columns that the question reads.

        Raises Refused on values that the codebook does not list.
        """
        if self.question is None or not self.width(holder):
            return iter(())
        table = table_of(units, self.question.codebook, names)
        flat = np.zeros(units.count, np.int64)
        for i in self.own(holder):
            flat = flat * self.axes[i].size + _levels(table, self.axes[i].column)
        terms = self._terms(table) if holder == self.last and self.measures else [np.ones(units.count, np.int64)]
        return self._columns(flat, terms, self.size(holder))

    def _columns(self, flat: NDArray[np.int64], terms: Sequence[NDArray[np.int64]], size: int) -> Iterator[Words]:
        for each in terms:
            for cell in range(size):
                yield np.where(flat == cell, each.view(np.uint64), np.uint64(0))

    def _terms(self, table: Table) -> list[NDArray[np.int64]]:
        """Of `entries`, at every unit, in 2^-bits of the grid."""
        made: dict[str, Any] = {}
        names: list[str] = []
        for measure in self.measures:
            of = _divided.expressions(measure.form, table.number(measure.column))
            for piece, each in of.items():
                names += [f"_{measure.suffix}_{piece}_{j}" for j in range(len(each))]
                made |= {f"_{measure.suffix}_{piece}_{j}": x.cast("float64") for j, x in enumerate(each)}
        found = table.expr.select(ROW, **made).to_pandas().sort_values(ROW)
        scaled = [
            found[name].to_numpy(np.float64) / grid * 2.0**self.bits
            for name, (_, _, _, grid) in zip(names, self.entries, strict=True)
        ]
        return [np.rint(one).astype(np.int64) for one in scaled]

    def program(self, m: Machine, w: Value, shared: Mapping[str, Value]) -> Generator[Out, Mail, None]:
        """On shares: see the module."""
        left = w
        for holder in self.left:
            (left,) = yield from m.products([(left, shared[holder], "outer")])
        right = shared[self.last] if self.width(self.last) else w
        (found,) = yield from m.products([(left, right, "matrix")])
        if self.bits:
            found = yield from m.halved(found, np.array(self.bits, np.uint64))
        at = self.places()
        told = m.grouped(found, at[0], at[1], self.shape[0])
        yield Out(public={} if told.share is None else {OPENED: told.share[0] + self.drawn(stream(None))})

    def drawn(self, source: Stream) -> Words:
        """One party's noise, of all that is opened."""
        nothing = {
            name: np.zeros(part.shape, np.int64 if part.integer else np.float64) for name, part in self.parts.items()
        }
        units = self.noise.units(nothing, source)
        return np.concatenate([units[name].reshape(-1) for name in self.parts]).view(np.uint64)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each sum is on shares, and where among what is opened. Entries for records in no domain stay 0."""
        order = [i for holder in (*self.left, self.last) for i in self.own(holder)]
        last, rows = self.size(self.last), math.prod(self.size(holder) for holder in self.left)
        many = max(1, len(self.entries))
        cells = np.arange(rows * last).reshape([self.axes[i].size for i in order])
        cells = cells.transpose(np.argsort(order)).reshape(-1) if order else cells.reshape(-1)
        row, column = np.divmod(cells, last)
        taken = np.concatenate([row * last * many + block * last + column for block in range(many)])
        starts, start = {}, 0
        for name, part in self.parts.items():
            starts[name] = start
            start += math.prod(part.shape)
        if not self.measures:
            return taken, np.arange(self.cells)
        to = [starts[f"{name}{m.suffix}"] + entry * self.cells for m, name, entry, _ in self.entries]
        return taken, np.concatenate([begin + np.arange(self.cells) for begin in to])

    def outcome(self, opened: NDArray[np.int64], driven: Any) -> Outcome:
        """What the opened numbers are. driven: makes the method's result of a function that answers its ask."""
        units, start = {}, 0
        for name, part in self.parts.items():
            size = math.prod(part.shape)
            units[name] = opened[start : start + size].reshape(part.shape)
            start += size
        values, std = self.noise.values(units, stream(None)), self.noise.std(DRAWS)
        if self.question is None:
            return Outcome(size=int(values[SIZE]), std={SIZE: float(std[SIZE])})

        def answer(ask: Ask) -> Total:
            if ask.name != "noisy":
                raise EngineError(f"ask: got {ask.name} with noise; want noisy")
            return Total(values, std, {}, {}, self.holders)

        result: Result = driven(answer)
        return Outcome(result=result)


def read(
    question: Question[Any] | None,
    privacy: Privacy,
    of: Mapping[str, str],
    holders: tuple[str, ...],
    cap: int,
) -> Noisy:
    """What is opened with noise of a question, or of the size without one. of: the holder of each column.

    Raises UsageError on what has no form with noise on shares.
    """
    noise, parts = planned(question, privacy)
    if question is None:
        return Noisy(noise, parts, None, (), (), cap, holders, holders[-1])
    options, codebook, name = question.options, question.codebook, question.terms.method
    crossed = {"table": ("rows", "columns")}.get(name, ("by",))
    names = [each for key in crossed for each in getattr(options, key)]
    axes = tuple(Axis(each, owner((each,), dict(of), each), len(codebook.category(each).levels)) for each in names)
    measures = _measures(question)
    if math.prod(axis.size for axis in axes) > MOST_CELLS:
        raise UsageError(f"{name}: got more than {MOST_CELLS:,} cells; want fewer levels")
    places = sorted({owner((one.column,), dict(of), one.column) for one in measures})
    if len(places) > 1:
        raise UsageError(f"columns: got some of {', '.join(places)} together; want columns of one holder at a time")
    return Noisy(noise, parts, question, axes, measures, cap, holders, (places or [axes[-1].holder])[0])


def planned(question: Question[Any] | None, privacy: Privacy) -> tuple[Noise, Mapping[str, Part]]:
    """The noise of a question, or of the size without one, and the parts that it is of: of every party the same.

    Raises UsageError on what has no form with noise on shares.
    """
    if question is None:
        parts: Mapping[str, Part] = {SIZE: Part(integer=True, bound=1.0)}
        return noise_plan(parts, privacy), parts
    name, design = question.terms.method, survey_design(question)
    if name not in KINDS:
        raise UsageError(f"{name}: got [privacy]; want one of {', '.join(KINDS)}: others have no noise on shares")
    if not design.simple or design.weight or design.declared or getattr(question.options, "population", None):
        raise UsageError(f"{name}: got weights, a design or a population; want none: they have no form on shares")
    parts = question.method.parts(question, Ask("noisy"))
    made = [part for one in _measures(question) for part in _divided.parts(one.form, _domains(question), one.suffix)]
    if set(parts) != set(made or ("count",)):
        raise UsageError(f"{name}: got {', '.join(parts)} to be summed with noise; want a form on shares")
    return noise_plan(parts, privacy), parts


def _measures(question: Question[Any]) -> tuple[Measure, ...]:
    """The amounts of a question, as its method has them."""
    options, codebook, name = question.options, question.codebook, question.terms.method

    def bounds(column: str) -> tuple[float, float]:
        found = codebook.number(column, "columns").bounds
        if found is None:
            raise UsageError(f"{column}: got no bounds; want low and high in the codebook: noise follows from them")
        return found

    if name == "table":
        return (Measure(options.value, "", _divided.of_total(*bounds(options.value))),) if options.value else ()
    form = _divided.of_total if name == "total" else _divided.of_mean
    return tuple(Measure(each, f"_{i}", form(*bounds(each))) for i, each in enumerate(options.columns))


def _domains(question: Question[Any]) -> int:
    crossed = ("rows", "columns") if question.terms.method == "table" else ("by",)
    names = [each for key in crossed for each in getattr(question.options, key)]
    return math.prod(len(question.codebook.category(each).levels) for each in names)


def _levels(table: Table, column: str) -> NDArray[np.int64]:
    """The place of each unit's level."""
    place = {level: i for i, level in enumerate(table.codebook.category(column).levels)}
    rows = table.expr.select(ROW, _c=table[column].cast("string")).to_pandas().sort_values(ROW)
    return np.asarray(rows["_c"].map(place), np.int64)


def told(privacy: Privacy) -> str:
    """What protects the figures, for *who learns what*."""
    return f"{in_words(privacy)}, by each of the first two holders on its share, so twice"
