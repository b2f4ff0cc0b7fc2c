"""Which records a published figure is of: a box, restricted column by column.

A column that a box does not name is not restricted: records where it is missing belong to it too. A column with levels
is restricted to codes; one of numbers or dates to spans between cuts, where a cut (v, 0) lies just below v and (v, 1)
just above. Hierarchies, merged categories, filters and class limits all become such restrictions, so that figures of
different questions can be compared whatever they were called.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column, day_of
from statfed.core.conditions import COMPARED, Clause, Condition
from statfed.core.errors import Refused
from statfed.server.disclosure.sums import Coordinate, Sum

Cut = tuple[float, int]
Span = tuple[Cut, Cut]
Codes = frozenset[str]
Restriction = Codes | tuple[Span, ...]
Box = Mapping[str, Restriction]
Flags = NDArray[np.bool_]

HOLDERS = " holders"
"""The column of who holds a record. No codebook has a column whose name begins with a blank."""
HELD = frozenset({"held"})
"""Of linked figures: what each holder's own column says, `HOLDERS` and its table's name, of units that it has."""
EVERYTHING: tuple[Span, ...] = (((-math.inf, 0), (math.inf, 1)),)
NOT_COMPARED = f"release: conditions with or over several columns, or with is null; nothing is released: {COMPARED}"
DISAGREE = "release: a column is another one than in earlier releases of this data set; nothing is released"


def cut_at(*, low: float, high: float, closed: bool) -> tuple[Span, ...]:
    """Numbers from `low`, inclusive, to `high`, inclusive where `closed`."""
    return (((low, 0), (high, int(closed))),)


def complete(column: Column) -> Restriction:
    """A column that is not missing."""
    if column.levels:
        return frozenset(column.levels)
    return EVERYTHING if column.type in ("number", "integer", "date") else frozenset({" present"})


def condition(found: Clause, column: Column) -> Restriction:
    """The records that a clause on one column is true of; those where the column is missing are not among them.

    Raises Refused on `is null`: a box has no part for records without a value.
    """
    parts = [_compared(one, column) for one in found.either]
    codes = [part for part in parts if isinstance(part, frozenset)]
    if codes:
        return frozenset().union(*codes)
    spans = sorted(span for part in parts if isinstance(part, tuple) for span in part)
    joined: list[Span] = []
    for low, high in spans:
        if joined and low <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    return tuple(joined)


def _compared(found: Condition, column: Column) -> Restriction:
    if found.op == "is null":
        raise Refused(NOT_COMPARED)
    if found.op == "is not null":
        return complete(column)
    values: tuple[Any, ...] = found.value if isinstance(found.value, tuple) else (found.value,)
    if column.levels:
        codes = frozenset(map(str, values))
        return frozenset(column.levels) - codes if found.op == "!=" else codes
    numbers = [float(day_of(value)) if column.type == "date" else float(value) for value in values]
    value, below, above = numbers[0], (-math.inf, 0), (math.inf, 1)
    spans: dict[str, tuple[Span, ...]] = {
        "<": ((below, (value, 0)),),
        "<=": ((below, (value, 1)),),
        ">": (((value, 1), above),),
        ">=": (((value, 0), above),),
        "==": (((value, 0), (value, 1)),),
        "!=": ((below, (value, 0)), ((value, 1), above)),
        "in": tuple(((one, 0), (one, 1)) for one in sorted({*numbers})),
    }
    return spans[found.op]


def both(one: Box, other: Box) -> dict[str, Restriction]:
    """The records that lie in two boxes."""
    found = dict(one)
    for name, restriction in other.items():
        mine = found.get(name, restriction)
        if isinstance(mine, frozenset) and isinstance(restriction, frozenset):
            found[name] = mine & restriction
        elif isinstance(mine, tuple) and isinstance(restriction, tuple):
            pairs = [(max(a[0], b[0]), min(a[1], b[1])) for a in mine for b in restriction]
            found[name] = tuple(sorted({(low, high) for low, high in pairs if low < high}))
        else:
            raise Refused(DISAGREE)
    return found


def population(where: Sequence[Clause], columns: Sequence[str], codebook: Codebook) -> dict[str, Restriction]:
    """Records that fulfil conditions and are complete in columns.

    Raises Refused where alternatives are on several columns: those records are no box.
    """
    found: dict[str, Restriction] = {}
    for one in where:
        if len(one.columns) > 1:
            raise Refused(NOT_COMPARED)
        (name,) = sorted(set(one.columns))
        found = both(found, {name: condition(one, codebook.column(name))})
    for name in columns:
        found = both(found, {name: complete(codebook.column(name))})
    return found


def at(coordinate: Coordinate, name: str, codebook: Codebook) -> Restriction:
    """The codes that a row of a table stands for along a column; see `sums`."""
    column = codebook.columns.get(name)
    if column is None:
        return frozenset({str(coordinate)}) if isinstance(coordinate, str) else frozenset()
    if isinstance(coordinate, str):
        return frozenset({coordinate})
    if coordinate == Sum(None):
        return complete(column)
    below, grown = {str(coordinate.code)}, True
    while grown:
        more = {code for code, up in column.parents.items() if up in below} - below
        below, grown = below | more, bool(more)
    return frozenset(below & set(column.levels)) if column.levels else frozenset(below)


def to_json(box: Box) -> dict[str, Any]:
    """For a line of the memory."""

    def ends(span: Span) -> list[list[float | None]]:
        return [[None if math.isinf(value) else value, side] for value, side in span]

    return {
        n: sorted(r) if isinstance(r, frozenset) else {"spans": [ends(s) for s in r]} for n, r in sorted(box.items())
    }


def from_json(found: Mapping[str, Any]) -> dict[str, Restriction]:
    """What `to_json` gave."""

    def span(ends: Any) -> Span:
        (low, below), (high, above) = ends
        return (-math.inf if low is None else low, below), (math.inf if high is None else high, above)

    return {
        name: frozenset(r) if isinstance(r, list) else tuple(span(s) for s in r["spans"]) for name, r in found.items()
    }


def membership(boxes: Sequence[Box], name: str, levels: Sequence[str], rest: bool) -> Flags:
    """Which boxes hold which of the finest classes of a column that boxes tell apart, shape (boxes, classes).

    levels: codes that the column has besides those that are named; rest: may records have none of either?
    """
    given = [box.get(name) for box in boxes]
    kinds = {isinstance(one, frozenset) for one in given if one is not None}
    if len(kinds) > 1:
        raise Refused(DISAGREE)
    if kinds == {False}:
        cuts = sorted({cut for one in given if one is not None for span in one for cut in span} | set(EVERYTHING[0]))
        parts: list[Any] = list(pairwise(cuts))

        def holds(one: Any, part: Any) -> bool:
            return any(low <= part[0] and part[1] <= high for low, high in one)
    else:
        parts = sorted({code for one in given if one is not None for code in one} | set(levels))

        def holds(one: Any, part: Any) -> bool:
            return part in one

    cache: dict[Any, list[bool]] = {}
    for one in given:
        if one not in cache:
            cache[one] = (
                [True] * (len(parts) + rest) if one is None else [holds(one, p) for p in parts] + [False] * rest
            )
    found = np.array([cache[one] for one in given], bool).reshape(len(boxes), -1)
    return np.unique(found, axis=1)
