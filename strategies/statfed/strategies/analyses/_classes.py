"""Cells of columns that follow from the codebook alone: levels, and classes of numbers and dates; with missing as one.

Classes of a number are values where it has few, else equal ones and, towards 0 or the end nearest to it, ever smaller
ones: so that skewed amounts and small ones are told apart without a look at the data. Cells can be merged into groups:
by released counts, say, which are public.

*Spikes.* Within a class values are told apart no more, and what is drawn from it is spread evenly: a value that many
have, as no hours or a top code, would be smeared. So of 8 classes or more some are one value alone: both bounds, where
values are cut off and codes are put; 0, of numbers; and the values that the codebook names (`Column.spikes`, round
numbers, say). All of them are public facts of the codebook, and the same at every holder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr, Table
from statfed.strategies.analyses import _bins

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_CELLS = 4096
"""Of one column."""
_FEW = 8  # classes below which they are equal ones
_FINEST = 1e-5  # of a number's range: the smallest class next to its fine end


@dataclass(frozen=True)
class Axis:
    """The cells of one column, public. levels: codes, of a column that has some; edges: (classes + 1,), increasing, of
    others: classes are closed on the left, the last one on both sides. missing: is the last cell for missing values?
    groups: (cells,) the group of each cell, from 0 on, all of them there; None: each cell is its own."""

    name: str
    levels: tuple[str, ...]
    edges: tuple[float, ...]
    missing: bool
    groups: tuple[int, ...] | None = None

    @property
    def cells(self) -> int:
        """Cells before they are merged."""
        return (len(self.levels) or len(self.edges) - 1) + self.missing

    @cached_property
    def size(self) -> int:
        """Groups."""
        return self.cells if self.groups is None else max(self.groups) + 1

    def expr(self, table: Table) -> Expr:
        """The group of each record, a whole number; null where a value is missing and no cell is for it."""
        column, groups = table[self.name], self.groups or tuple(range(self.cells))
        if self.levels:
            texts = column.cast("string")
            found = ibis.cases(*((texts == level, groups[i]) for i, level in enumerate(self.levels)))
        else:
            classes = np.array(groups[: len(self.edges) - 1])
            starts = np.flatnonzero(np.diff(classes)) + 1  # where another group begins
            place = _bins.place(column.cast("float64"), np.array(self.edges)[starts], "left")
            runs = [int(group) for group in classes[[0, *starts]]]
            plain = runs == list(range(len(runs)))
            found = place if plain else ibis.cases(*((place == i, group) for i, group in enumerate(runs)))
        return ibis.ifelse(column.isnull(), groups[-1] if self.missing else ibis.null("int32"), found.cast("int32"))

    def places(self, values: NDArray[Any], missing: NDArray[np.bool_]) -> Ints:
        """The group of each value as `Coded` has it, (n,); -1 where it is missing and no cell is for that."""
        cells = values if self.levels else np.searchsorted(np.array(self.edges[1:-1]), values, side="right")
        cells = np.where(missing, self.cells - 1, cells).astype(np.int64)
        found = cells if self.groups is None else np.array(self.groups)[cells]
        return found if self.missing else np.where(missing, -1, found)

    def merged(self, groups: Sequence[int]) -> "Axis":
        """The same cells in groups. Raises UsageError unless there is one for each cell, numbered from 0 on."""
        if len(groups) != self.cells or set(groups) != set(range(max(groups, default=-1) + 1)):
            raise UsageError(
                f"{self.name}: got {len(groups)} groups; want one for each of {self.cells} cells, from 0 on"
            )
        return Axis(self.name, self.levels, self.edges, self.missing, tuple(int(group) for group in groups))


def axis_of(
    codebook: Codebook, name: str, classes: int, edges: Sequence[float] = (), cuts: Sequence[float] = ()
) -> Axis:
    """The cells of a column, of a number at most about `classes`, and more that begin at `cuts`.

    Raises UsageError for columns that have neither levels nor bounds, and for edges that do not span the bounds.
    """
    column = codebook.column(name)
    if column.levels:
        return Axis(name, column.levels, (), not column.required)
    if column.type not in ("number", "integer", "date") or column.bounds is None:
        raise UsageError(
            f"{name}: got type {column.type}{'' if column.bounds else ' without bounds'}; want a category or boolean, "
            "or a number or date with low and high in the codebook"
        )
    low, high = column.bounds
    whole = column.type != "number"
    if edges:
        _bins.check_edges(edges, f"{name}: edges")
        if edges[0] > low or edges[-1] < high:
            raise UsageError(f"{name}: got edges {edges[0]:g} to {edges[-1]:g}; want them to span {low:g} to {high:g}")
        return Axis(name, (), tuple(float(edge) for edge in edges), not column.required)
    spikes = (*column.spikes, *(() if column.type == "date" else (0.0,)))
    return Axis(name, (), _edges(low, high, whole, classes, spikes, cuts), not column.required)


def above(value: float) -> float:
    """The least number above one, that every database can hold: above 0 the least one of full precision."""
    found = float(np.nextafter(value, np.inf))
    return float(np.finfo(np.float64).tiny) if abs(found) < np.finfo(np.float64).tiny and found != 0 else found


def alone(axis: Axis) -> NDArray[np.bool_]:
    """Of which classes of a number all that is in them is one value, their left edge? (classes,)"""
    edges = np.array(axis.edges)
    return edges[1:] <= [above(edge) for edge in axis.edges[:-1]]


def _edges(
    low: float, high: float, whole: bool, classes: int, spikes: Sequence[float], cuts: Sequence[float]
) -> tuple[float, ...]:
    if whole:
        low, high = float(np.ceil(low)), float(np.floor(high))
        if high - low + 1 <= classes:
            return tuple(float(value) for value in np.arange(low, high + 2))
    end = high + 1.0 if whole else above(high)
    if low == high:
        return (low, end)
    width = high - low
    origin = min(max(0.0, low), high)
    equal = np.linspace(low, high, max(classes // 2, 1) + 1)
    fine = np.geomspace(_FINEST * width, width, max(classes // 2, 1))
    found = np.concatenate([equal, origin + fine, origin - fine]) if classes >= _FEW else equal
    if whole:
        found = np.ceil(found)
    inside = found[(found > low) & (found < high)].tolist()
    if classes >= _FEW:
        apart = [spike for spike in (low, high, *spikes) if low <= spike <= high]
        inside += [edge for one in apart for edge in (one, one + 1.0 if whole else above(one)) if low < edge < end]
    inside += [cut for cut in cuts if low < cut < end]
    return (low, *sorted({float(edge) for edge in inside}), end)


def cells_of(axes: Sequence[Axis]) -> tuple[int, ...]:
    """Shape of a margin. Raises UsageError where it has too many cells."""
    return tuple(axis.size for axis in axes)


def counts(table: Table, axes: Mapping[str, Axis], margins: Sequence[Sequence[str]]) -> list[Ints]:
    """Records in the cells of each margin, int64, of the shape of its axes; read in one pass. A record that misses a
    value without a cell for it is in no margin of that column."""
    shapes = [cells_of([axes[name] for name in margin]) for margin in margins]
    found = [np.zeros(int(np.prod(shape)), np.int64) for shape in shapes]
    names = list(axes)
    for block in table.batches({f"a{i}": axes[name].expr(table) for i, name in enumerate(names)}):
        codes = {name: block[:, i] for i, name in enumerate(names)}
        for total, margin, shape in zip(found, margins, shapes, strict=True):
            place = np.zeros(len(block))
            for name, size in zip(margin, shape, strict=True):
                place = place * size + codes[name]
            total += np.bincount(place[~np.isnan(place)].astype(np.int64), minlength=len(total))
    return [total.reshape(shape) for total, shape in zip(found, shapes, strict=True)]


def merge_few(values: Floats, least: float, ordered: bool) -> tuple[int, ...]:
    """Groups of cells such that each has a count of about `least` or more, by counts that are public. ordered: only
    neighbours are merged, as of a number; else all that are too small are one group, with the next ones where they are
    still too small together. At least one group."""
    if ordered:
        groups, group, held = [], 0, 0.0
        for value in np.maximum(values, 0.0):
            if held >= least:
                group, held = group + 1, 0.0
            groups.append(group)
            held += float(value)
        if held < least and group > 0:  # what is left over joins the group before
            groups = [min(each, group - 1) for each in groups]
        return tuple(groups)
    order = np.argsort(values, kind="stable")
    small = np.maximum(values, 0.0) < least
    held = float(np.maximum(values[small], 0.0).sum())
    for place in order:
        if held >= least or not small.any():
            break
        if not small[place]:
            small[place] = True
            held += float(values[place])
    found, following = np.zeros(len(values), np.int64), 0
    for place in range(len(values)):
        if not small[place]:
            found[place], following = following, following + 1
    found[small] = following
    return tuple(int(group) for group in found)
