"""Cells of one column and of two that a codebook's rules make impossible: structural zeros.

They follow from the codebook alone, which is public: nothing is asked for them, and what is made of them is
post-processing. A rule is a clause, comparisons of which one has to hold. Over two columns it is broken by a pair of
cells where all its comparisons with the one column are definitely false of every value of the one cell, and all those
with the other of every value of the other. A missing value makes a comparison neither true nor false, but `is null`
and `is not null` one of both. A cell of which a rule is false for some values only is not impossible: so numbers are
cut where rules compare them. Rules over three columns or more make no zeros here; records that break one are drawn
anew.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column, day_of
from statfed.core.conditions import Condition, parse_where
from statfed.strategies.analyses._classes import Axis

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Side = tuple[int, Bools]
"""A column by place, and which of its cells, (cells,), make all comparisons of a rule with it false."""
Zeros = Mapping[tuple[int, ...], Bools]
"""By one column or two, increasing, the groups that no record has, of their shape."""
_MOST_CUTS = 50  # of a column


def cuts_of(codebook: Codebook) -> dict[str, tuple[float, ...]]:
    """Where rules cut numbers and dates: starts of classes, so that a rule is true or false of a class as a whole."""
    found: dict[str, set[float]] = {}
    for clause in parse_where(codebook.rules, codebook):
        for one in clause.either:
            column = codebook.columns[one.column]
            if not column.levels and one.value is not None:
                found.setdefault(one.column, set()).update(_starts(one, whole=column.type != "number"))
    return {name: tuple(sorted(cuts)[:_MOST_CUTS]) for name, cuts in found.items()}


def _starts(one: Condition, *, whole: bool) -> list[float]:
    found: list[float] = []
    for value in _numbers(one):
        after = float(np.floor(value)) + 1 if whole else float(np.nextafter(value, np.inf))
        found += [float(np.ceil(value)) if whole else value] if one.op not in ("<=", ">") else []
        found += [after] if one.op not in ("<", ">=") else []
    return found


def _numbers(one: Condition) -> list[float]:
    told = one.value if isinstance(one.value, tuple) else (one.value,)
    return [float(day_of(value)) if isinstance(value, str) else float(value) for value in told if value is not None]


def sides_of(codebook: Codebook, axes: Sequence[Axis]) -> list[tuple[Side, ...]]:
    """The rules over one or two of these columns that make cells impossible."""
    places = {axis.name: place for place, axis in enumerate(axes)}
    found = []
    for clause in parse_where(codebook.rules, codebook):
        names = sorted({*clause.columns}, key=lambda name: places.get(name, -1))
        if len(names) > 2 or not {*names} <= {*places}:
            continue
        sides = tuple(
            (place, _false(axes[place], codebook.columns[name], [one for one in clause.either if one.column == name]))
            for name in names
            for place in [places[name]]
        )
        if all(cells.any() for _, cells in sides):
            found.append(sides)
    return found


def _false(axis: Axis, column: Column, comparisons: Sequence[Condition]) -> Bools:
    """The cells of whose every value all comparisons are false, and not merely open, (cells,)."""
    found = np.ones(axis.cells, np.bool_)
    for one in comparisons:
        if one.value is None:
            here = np.full(axis.cells, one.op == "is null")
            here[len(axis.levels) or len(axis.edges) - 1 :] = one.op == "is not null"
        else:
            here = np.zeros(axis.cells, np.bool_)
            seen = _levels(axis, one) if axis.levels else _classes(axis, one, whole=column.type != "number")
            here[: len(seen)] = seen
        found &= here
    return found


def _levels(axis: Axis, one: Condition) -> Bools:
    told = one.value if isinstance(one.value, tuple) else (one.value,)
    named = np.isin(axis.levels, [str(value) for value in told])
    return np.asarray(named if one.op == "!=" else ~named, np.bool_)


def _classes(axis: Axis, one: Condition, *, whole: bool) -> Bools:
    edges = np.array(axis.edges)
    low, high = edges[:-1], edges[1:] - 1 if whole else np.nextafter(edges[1:], -np.inf)
    values = _numbers(one)
    within = np.any([(low <= value) & (value <= high) for value in values], axis=0)
    false: Mapping[str, Bools] = {
        "<": low >= values[0],
        "<=": low > values[0],
        ">": high <= values[0],
        ">=": high < values[0],
        "==": ~within,
        "in": ~within,
        "!=": (low == values[0]) & (high == values[0]),
    }
    return np.asarray(false[one.op], np.bool_)


def marks_of(sides: Sequence[tuple[Side, ...]], axes: Sequence[Axis]) -> list[Ints]:
    """By column a number for each cell, (cells,): cells with one number are alike to all these rules."""
    found = []
    for place, axis in enumerate(axes):
        mine = [cells for clause in sides for column, cells in clause if column == place]
        codes = np.column_stack([np.zeros(axis.cells, np.bool_), *mine])
        found.append(np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64))
    return found


def zeros_of(sides: Sequence[tuple[Side, ...]], groups: Sequence[Ints]) -> dict[tuple[int, ...], Bools]:
    """The groups of one column and of two of which a rule is false whatever the cells in them."""
    found: dict[tuple[int, ...], Bools] = {}
    for clause in sides:
        ends = []
        for place, cells in clause:
            whole = np.ones(int(groups[place].max()) + 1, np.bool_)
            np.logical_and.at(whole, groups[place], cells)
            ends.append(whole)
        never = ends[0] if len(ends) == 1 else np.logical_and.outer(*ends)
        key = tuple(place for place, _ in clause)
        if never.any():
            found[key] = found[key] | never if key in found else never
    return found
