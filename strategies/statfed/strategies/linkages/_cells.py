"""Tables, totals, means and survival curves over the matched, from one table of cells on shares.

Each holder shares indicators of the cells that its own columns make; the products of all holders' indicators on matched
rows, added up, are the counts, and those with the values' powers the sums. Where a minimum frequency is agreed the
parties first decide on shares whether fewer match in all, none included, and then nothing else is decided or opened.
Else they decide of each cell one bit, whether it has at least the minimum, and open that alone. A cell with fewer is
withheld, *an empty one like one of a single match*: were the two told apart, a holder that gives each of its persons a
level of its own would read off who matches, and in which cell of the others. As it is the bit tells of a person only to
someone who knows the other minimum - 1 matches of its cell already. Of a withheld cell neither count nor sum is ever
opened, and nothing that it is part of: where one cell is withheld, no margin and no number of all matches is told
(cells of a table without its margins tell nothing of each other; complementary suppression by value is left out).
Without a minimum frequency all cells are opened, empty ones as 0. Of survival curves the rule goes by the
records of each group, as in `survival`: of a group that has enough, numbers of exits by interval are opened, also those
of one match. The coordinator's halves of the horizontal methods make the results.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.linkage import Units
from statfed.core.method import Ask, Question, Total
from statfed.core.result import Result, Row, Scalar
from statfed.core.table import Expr, Table
from statfed.strategies.analyses import _centred
from statfed.strategies.analyses._lifetimes import follow, make_grid
from statfed.strategies.analyses._survey import survey_design
from statfed.strategies.linkages._features import ROW, Feature, bounded, owner, places, table_of, values_of
from statfed.strategies.linkages._features import encoded as encoded_features
from statfed.strategies.linkages._rounds import Mail, Out
from statfed.strategies.linkages._shares import Bits, Machine, Value, table_bits

Words = NDArray[np.uint64]
Whole = NDArray[np.int64]
KINDS = ("table", "total", "mean", "survival")
WITHHELD = "withheld"
HIDDEN = 1e-6
"""Share of a value's variance, or of a sum, that may be rounding of what is shared."""
ALIKE = 1e-3
"""Of their mean: how much values that are told to be one may differ."""
MOST_CELLS, MOST_TABLES = 20_000, 1 << 28
"""Cells, and bytes of truth tables, at most."""
ROWS = 1 << 20
"""Rows whose products are formed at a time: what they take in memory and in messages does not grow with the cap."""


@dataclass(frozen=True)
class Axis:
    """One axis of the cells: a column of categories, or times of exit by kind (column "")."""

    column: str
    holder: str
    size: int


@dataclass(frozen=True)
class Cells:
    """What is shared and opened. axes: in the order of the method's `by`, exits last; measures: all at one holder."""

    question: Question[Any]
    axes: tuple[Axis, ...]
    measures: tuple[Feature, ...]
    minimum: int
    cap: int
    last: str
    holders: tuple[str, ...]

    @property
    def figures(self) -> int:
        """Most exact figures that are opened: number, sum and sum of squares of each cell."""
        return math.prod(axis.size for axis in self.axes) * (1 + 2 * len(self.measures))

    @property
    def bits(self) -> int:
        """Binary places of values that are added up."""
        return places(self.cap, 1)

    @property
    def coarse(self) -> int:
        """Of values that are squared: the squares are exact, so that values that do not differ have no variance."""
        return places(self.cap, 2)

    @property
    def shape(self) -> tuple[int, int]:
        """Of what is opened: cells of the other holders, and blocks of those of the last."""
        return math.prod(self.size(holder) for holder in self.left), max(self.width(self.last), 1)

    def own(self, holder: str) -> list[int]:
        return [i for i, axis in enumerate(self.axes) if axis.holder == holder]

    @property
    def left(self) -> list[str]:
        return [name for name in self.holders if name != self.last and self.own(name)]

    def size(self, holder: str) -> int:
        return math.prod(self.axes[i].size for i in self.own(holder))

    @property
    def blocks(self) -> int:
        return 1 + 3 * len(self.measures)

    def width(self, holder: str) -> int:
        if holder == self.last:
            return self.size(holder) * self.blocks
        return self.size(holder) if self.own(holder) else 0

    def payload(self, holder: str, units: Units, names: Sequence[str]) -> Iterator[Words]:
        """`width` columns (n,): indicators of the holder's cells; at the last one also times each value, finely, and
        times its coarse form and the square of that. names: columns that the analysis reads.

        Raises Refused, before there is a column, on values that the codebook does not list.
        """
        codebook = self.question.codebook
        known = {name: values_of(units, codebook, name) for name in names}
        flat = np.zeros(units.count, np.int32)
        for i in self.own(holder):
            axis = self.axes[i]
            flat *= axis.size
            flat += known[axis.column].astype(np.int32) if axis.column else self._exits(units, names)
        times: list[Words] = []
        if holder == self.last and self.measures:
            table = table_of(units, codebook, names)
            fine, coarse = (encoded_features(table, self.measures, bits) for bits in (self.bits, self.coarse))
            for j in range(len(self.measures)):
                times += [fine[:, j], coarse[:, j], coarse[:, j] ** 2]
        return self._columns(flat, times, self.size(holder) if self.width(holder) else 0)

    def _columns(self, flat: NDArray[np.int32], times: Sequence[Words], size: int) -> Iterator[Words]:
        for values in (None, *times):
            for cell in range(size):
                inside = (flat == cell).astype(np.uint64)
                yield inside if values is None else inside * values

    def _exits(self, units: Units, names: Sequence[str]) -> NDArray[np.int32]:
        table = table_of(units, self.question.codebook, names)
        rows = follow(table, self.question.options, (), **{ROW: table.expr[ROW]}).to_pandas().sort_values(ROW)
        return np.asarray(2 * rows["exit"] + rows["event"], np.int32)

    def program(self, m: Machine, w: Value, shared: Mapping[str, Value]) -> Generator[Out, Mail, None]:
        """On shares: see the module."""
        found = Value((0, 0))
        for start in range(0, self.cap, ROWS):
            block = slice(start, start + ROWS)
            left = w.rows(block)
            for holder in self.left:
                (left,) = yield from m.products([(left, shared[holder].rows(block), "outer")])
            right = shared[self.last].rows(block) if self.width(self.last) else w.rows(block)
            (part,) = yield from m.products([(left, right, "matrix")])
            found = m.added(found, part) if start else part
        rows, columns = found.shape
        allowed: Bits | None = np.ones(self.groups, bool)
        if self.minimum > 1:
            counts = self._count_places(rows, columns)
            whole = yield from m.few(m.grouped(found, counts, np.zeros_like(counts), 1), self.minimum, self.cap, 0)
            if whole is not None and whole.any():
                return
            grouped = m.grouped(found, counts, self._cells().reshape(-1), self.groups)
            few = yield from m.few(grouped, self.minimum, self.cap, 0)
            allowed = None if few is None else ~few.reshape(-1)
        opened = {}
        if found.share is not None and allowed is not None:
            opened["opened"] = np.where(allowed[self._inside(rows, columns)], found.share, np.uint64(0))
        yield Out(public=opened)

    @property
    def groups(self) -> int:
        """Cells that the minimum frequency goes by."""
        return math.prod(axis.size for axis in self.axes if axis.column)

    def _order(self) -> list[int]:
        """Axes in the order in which shares have them."""
        return [i for holder in (*self.left, self.last) for i in self.own(holder)]

    def _cells(self) -> Whole:
        """(left cells, last cells): the group that each belongs to."""
        order = self._order()
        kept = [i for i, axis in enumerate(self.axes) if axis.column]
        sizes = [self.axes[i].size for i in kept]
        group = np.arange(self.groups).reshape(sizes)
        for i, axis in enumerate(self.axes):
            if not axis.column:
                group = np.broadcast_to(np.expand_dims(group, i), [a.size for a in self.axes])
        last = self.size(self.last)
        return np.asarray(group).transpose(order).reshape(-1, last)

    def _inside(self, rows: int, columns: int) -> Whole:
        return np.tile(self._cells(), (1, columns // self._cells().shape[1])).reshape(rows, columns)

    def _count_places(self, rows: int, columns: int) -> Whole:
        """Where the counts are among all that was worked out."""
        return np.arange(rows * columns).reshape(rows, columns)[:, : self.size(self.last)].reshape(-1)

    def total(self, opened: Whole, few: Bits) -> "Sums":
        """What the opened numbers are."""
        size, order = self.size(self.last), self._order()
        shape = [self.axes[i].size for i in order]
        blocks = opened.reshape(-1, self.blocks if self.width(self.last) else 1, size).transpose(1, 0, 2)
        arrays = [block.reshape(shape).transpose(np.argsort(order)) if order else block.reshape(()) for block in blocks]
        fine = [array / 2.0**self.bits for array in arrays[1::3]]
        spread = [_spread(arrays[0], *pair, self.coarse) for pair in zip(arrays[2::3], arrays[3::3], strict=True)]
        for feature, sums, squares in zip(self.measures, arrays[1::3], spread, strict=True):
            for n, one, two in zip(arrays[0].flat, sums.flat, squares.flat, strict=True):
                if n and not self._told(feature, int(n), int(one), float(two)):
                    raise UsageError(
                        f"{feature.key}: its spread is too small beside its bounds to be told from the rounding of "
                        "what is shared, in all or in a cell; want narrower bounds"
                    )
        return Sums(arrays[0], fine, spread, few)

    def _told(self, feature: Feature, n: int, one: int, spread: float) -> bool:
        """Can the sum and the spread of a cell of n matches be told from rounding? one: in units of 2^-bits; spread: of
        half the range. Values that are all one of the bounds or 0 are as they are."""
        zero = round(-feature.middle / feature.half * 2.0**self.bits)
        ends = (-n << self.bits, n << self.bits)
        if not spread and (one in ends or (one == n * zero and feature.unit(self.bits) <= 1)):
            return True
        about = abs(feature.middle + feature.half * one / n / 2.0**self.bits)
        if feature.unit(self.bits) > HIDDEN * max(about, feature.half * math.sqrt(spread / n)):
            return False
        deviation = feature.half**2 * spread / n
        if self.question.terms.method == "table":
            return feature.unit(self.coarse) ** 2 / 12 <= HIDDEN * (deviation + about**2)
        if n > 1 and not spread:  # one value, or several that were rounded to one
            return one % n == 0 and feature.unit(self.coarse) <= ALIKE * about
        return n == 1 or feature.unit(self.coarse) ** 2 / 12 <= HIDDEN * deviation


@dataclass(frozen=True)
class Sums:
    """By cell the counts, sums of the values, and of squares about the cell's mean; in units of half their range about
    its middle."""

    count: Whole
    first: list[NDArray[np.float64]]
    spread: list[NDArray[np.float64]]
    few: Bits

    def about(
        self, j: int, feature: Feature, centre: float | NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sums of x - centre and of its square, by cell. centre: one, or one a cell."""
        shift = feature.middle - centre
        one = feature.half * self.first[j] + shift * self.count
        return one, feature.half**2 * self.spread[j] + one**2 / np.maximum(self.count, 1)


def _spread(count: Whole, first: Whole, second: Whole, bits: int) -> NDArray[np.float64]:
    """second - first^2 / count, exactly and then rounded once, in units of 2^(2 bits)."""
    exact = [
        float(Fraction(int(b)) - Fraction(int(a)) ** 2 / int(n)) if n else 0.0
        for n, a, b in zip(count.flat, first.flat, second.flat, strict=True)
    ]
    return np.array(exact).reshape(count.shape) / 4.0**bits


def read(question: Question[Any], of: dict[str, str], holders: tuple[str, ...], cap: int, minimum: int) -> Cells:
    """The cells of a question. of: the holder of each column. Raises UsageError on what has no form on shares."""
    options, codebook, name = question.options, question.codebook, question.terms.method
    design = survey_design(question)
    if not design.simple or design.weight or design.declared:
        raise UsageError(f"{name}: got weights or a design; want a simple random sample: others have no form on shares")
    unfit = {
        "table": ("largest_contributor", "record_keys"),
        "mean": ("population",),
        "total": ("population",),
        "survival": ("entry", "start", "strata", "restricted_to"),
    }[name]
    if given := [key for key in unfit if getattr(options, key, None)]:
        raise UsageError(f"{name}: got {', '.join(given)}; want it without: that has no form on shares")
    crossed = {"table": ("rows", "columns"), "survival": ("group",)}.get(name, ("by",))
    names = [each for key in crossed for each in getattr(options, key)]
    axes = [Axis(each, owner((each,), of, each), len(codebook.category(each).levels)) for each in names]
    if name == "survival":
        at = owner((options.time, options.event), of, "time, event")
        axes.append(Axis("", at, 2 * len(make_grid(codebook, options))))
    valued = (options.value,) if name == "table" and options.value else getattr(options, "columns", ())
    valued = () if name in ("survival",) or (name == "table" and not options.value) else tuple(valued)
    measures = tuple(_measure(question, each, of) for each in valued)
    places_of = sorted({feature.holder for feature in measures})
    if len(places_of) > 1:
        raise UsageError(f"columns: got some of {', '.join(places_of)} together; want columns of one holder at a time")
    last = places_of[0] if places_of else axes[-1].holder
    found = Cells(question, tuple(axes), measures, minimum, cap, last, holders)
    if math.prod(axis.size for axis in axes) > MOST_CELLS:
        raise UsageError(f"{name}: got more than {MOST_CELLS:,} cells; want fewer levels, or a coarser grid")
    if minimum > 1 and found.groups << table_bits(cap) > 8 * MOST_TABLES:
        raise UsageError(f"{name}: got {found.groups} cells of up to {cap} matches; want fewer, or a smaller cap")
    if codebook.role("enterprise") and name == "table" and measures:
        raise UsageError("table: got a column of role enterprise; want none: dominance has no form on shares")
    return found


def _measure(question: Question[Any], name: str, of: dict[str, str]) -> Feature:
    bounds = question.codebook.number(name, "columns").bounds or (-math.inf, math.inf)

    def build(table: Table) -> Expr:
        return table.number(name)

    return bounded(name, owner((name,), of, name), *bounds, build)


def answer(cells: Cells, sums: Sums, ask: Ask) -> Total:
    """What the holders' sums over the plain join would be. Raises UsageError on an ask that shares do not answer."""
    question, count = cells.question, sums.count
    parts, n = question.method.parts(question, ask), int(sums.count.sum())
    whole = {name: np.array(n, np.int64) for name in ("records", "looked_at") if name in parts}
    whole |= {name: np.array(0, np.int64) for name in ("left_out", "not_followed") if name in parts}
    found: dict[str, NDArray[Any]] = dict(whole)
    values = [(j, feature) for j, feature in enumerate(cells.measures)]
    if (question.terms.method, ask.name) == ("survival", "exits"):
        exits = count.reshape(*parts["exits"].shape)
        found |= {"exits": exits, "count": exits.sum((-2, -1))}
    elif (question.terms.method, ask.name) == ("table", "cells"):
        found["count"] = count
        for j, feature in values:
            one, two = sums.about(j, feature, 0.0)
            found |= {"total": one, "squares": two}
            if "psus" in parts:
                found["psus"] = np.full(parts["psus"].shape, n)
            if "power0" in parts:
                from statfed.strategies.analyses import table

                found["power0"] = two / table._largest(question) ** 2 * table._magnified(question)
    elif ask.name in ("sums", "squares"):
        centre = ask.arrays["centre"] if ask.name == "squares" else np.zeros(len(values))
        around = [sums.about(j, feature, float(c)) for (j, feature), c in zip(values, centre, strict=True)]
        each = np.stack([count] * len(values))
        y, yy = (np.stack([pair[i] for pair in around]) for i in (0, 1))
        found |= {"count": each, "x": each.astype(float), "y": y, "yy": yy, "yx": y, "xx": each.astype(float)}
        found["spread"] = yy
    elif ask.name == _centred.ASK:
        ratio, size = (ask.arrays[key].reshape(len(values), *count.shape) for key in ("ratio", "size"))
        around = [sums.about(j, feature, ratio[j]) for j, feature in values]
        y, yy = (np.stack([pair[i] for pair in around]) for i in (0, 1))
        x = 1.0 - size  # of every record in the cell
        found |= {"present": np.stack([count] * len(values)), "x": x * count, "xx": x * x * count}
        found |= {"y": y, "yy": yy, "yx": x * y}
    missing = sorted(set(parts) - set(found))
    if missing:
        raise UsageError(f"{question.terms.method}: got an ask for {', '.join(missing)}, which has no form on shares")
    return Total({name: found[name].reshape(part.shape) for name, part in parts.items()})


def released(cells: Cells, result: Result, few: Bits) -> Result:
    """The result without the cells that were not opened, and without what they are part of."""
    if not few.any():
        return result
    by = [axis.column for axis in cells.axes if axis.column]
    levels = [cells.question.codebook.category(name).levels for name in by]
    flags = few.reshape([len(each) for each in levels])
    gone = {tuple(level[i] for level, i in zip(levels, at, strict=True)) for at in np.ndindex(flags.shape) if flags[at]}
    tables = {}
    basis = result.basis_of(result.main)
    margins = getattr(basis.kind, "margins", "") if basis and basis.kind else ""
    for name, rows in result.tables.items():
        keys = set(result.places(name))
        inexact = cells.question.terms.method == "total"
        tables[name] = [] if name == margins else [_row(row, by, gone, keys, inexact) for row in rows]
    facts: dict[str, Scalar] = {
        name: value if result.analysis == "survival" and name == "intervals" else None
        for name, value in result.facts.items()
    }
    note = (
        f"{len(gone)} of {few.size} cells have fewer matches than {cells.minimum}, or none: never opened, and with "
        "them no margin, test or number of all matches; what is shown is of the matches in the other cells"
    )
    return replace(result, tables=tables, facts=facts, notes=(*result.notes, note))


def _row(row: Row, by: list[str], gone: set[tuple[str, ...]], keys: set[str], inexact: bool) -> Row:
    if tuple(row.get(name) for name in by) in gone:
        return {name: value if name in keys or name in by else None for name, value in row.items()}
    of_all = ("std_error", "cv", "quality", "lower", "upper") if inexact else ()
    return {name: None if name in of_all else value for name, value in row.items()}
