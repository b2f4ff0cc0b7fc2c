"""The published sums of one table: its cells, its margins and nested subtotals, and the equations between them.

A key has one coordinate per category column: a code in a cell; in a margin also `Sum(code)`, all records at or below a
code of the codebook's `parents`, and `Sum(None)`, all records. The attacker of a suppressed table knows every equation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from statfed.core.codebook import Codebook
from statfed.core.errors import EngineError, UsageError
from statfed.core.result import Row

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Sum(NamedTuple):
    """All codes at or below `code`; with None, all codes."""

    code: str | None


Coordinate = str | Sum
Key = tuple[Coordinate, ...]


@dataclass(frozen=True)
class Equation:
    """One published sum and the published rows that add up to it along one column; positions of rows."""

    total: int
    terms: tuple[int, ...]

    @property
    def members(self) -> tuple[int, ...]:
        return (self.total, *self.terms)


@dataclass(frozen=True)
class Sums:
    """Rows of a table (cells first, margins after them) and the equations between them.

    keys: of all n rows. cells: how many of them are cells. equations: every way in which one row is the sum of others.
    leaves: number of cells below each row, shape (n,). matrix: (equations, n), +1 for terms and -1 for the total.
    """

    keys: tuple[Key, ...]
    cells: int
    equations: tuple[Equation, ...]
    leaves: NDArray[np.int64]
    matrix: csr_array

    def __len__(self) -> int:
        return len(self.keys)

    def residual(self, values: Floats) -> float:
        """Largest violation of an equation, relative to the largest value."""
        if not self.equations:
            return 0.0
        return float(np.abs(self.matrix @ values).max() / max(1.0, np.abs(values).max()))


def published_sums(cells: Sequence[Key], margins: Sequence[Key], parents: Sequence[Mapping[str, str]]) -> Sums:
    """Find the equations between cells and margins.

    cells: their keys, all coordinates codes; combinations that are not listed are empty. margins: keys with at least
    one `Sum`. parents: per column, code to the code one level up.
    Raises UsageError when a hierarchy runs in a circle, EngineError when a key is listed twice.
    """
    keys = (*cells, *margins)
    place = {key: i for i, key in enumerate(keys)}
    if len(place) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise EngineError(f"table: got the row {_shown(twice)} twice; want each once")
    trees = [_Tree([key[axis] for key in keys], up) for axis, up in enumerate(parents)]
    below = _cells_below(cells, place, trees)
    equations: dict[tuple[int, frozenset[int]], Equation] = {}
    for key in margins:
        found = [
            Equation(place[key], terms)
            for axis, coordinate in enumerate(key)
            if isinstance(coordinate, Sum) and (terms := _terms(key, axis, trees[axis], place)) is not None
        ]
        found = found or [Equation(place[key], tuple(below[place[key]]))]
        equations |= {(e.total, frozenset(e.terms)): e for e in found}
    return Sums(
        tuple(keys),
        len(cells),
        tuple(equations.values()),
        np.array([len(below[i]) for i in range(len(keys))], np.int64),
        _matrix(list(equations.values()), len(keys)),
    )


def sums_of_rows(cells: Sequence[Row], margins: Sequence[Row], by: Sequence[str], codebook: Codebook) -> Sums:
    """The published sums of result rows: null in a margin sums over the column, a parent's code over its codes."""
    parents = [codebook.columns[name].parents if name in codebook.columns else {} for name in by]
    above = [set(up.values()) for up in parents]
    cell_keys: list[Key] = [tuple(str(row[name]) for name in by) for row in cells]

    def coordinate(axis: int, value: object) -> Coordinate:
        if value is None:
            return Sum(None)
        return Sum(str(value)) if str(value) in above[axis] else str(value)

    # a subtotal is told from the records that carry its code: the one is a margin, the other a cell
    margin_keys: list[Key] = [tuple(coordinate(axis, row[name]) for axis, name in enumerate(by)) for row in margins]
    return published_sums(cell_keys, margin_keys, parents)


class _Tree:
    """The hierarchy of one column, as far as its codes occur."""

    def __init__(self, coordinates: Sequence[Coordinate], parents: Mapping[str, str]) -> None:
        self._up = parents
        self._above = set(parents.values())
        codes = {c for c in coordinates if isinstance(c, str)} | set(parents)
        self._codes = {c for c in coordinates if isinstance(c, str)}
        self._children: dict[str | None, list[str]] = {}
        for code in sorted(codes | self._above):
            self.path(code)
            self._children.setdefault(parents.get(code), []).append(code)

    def path(self, code: str) -> list[str]:
        """The code and every code above it."""
        found = [code]
        while found[-1] in self._up:
            found.append(self._up[found[-1]])
            if found[-1] in found[:-1]:
                raise UsageError(f"parents: got a circle through {code}; want a tree")
        return found

    def below(self, total: Sum) -> list[Coordinate]:
        """What a sum is directly the sum of: codes, subtotals, and its own code where records carry it."""
        own: list[Coordinate] = [total.code] if total.code in self._codes and total.code is not None else []
        children = self._children.get(total.code, [])
        return own + [Sum(code) if code in self._above else code for code in children]


def _terms(key: Key, axis: int, tree: _Tree, place: Mapping[Key, int]) -> tuple[int, ...] | None:
    """The rows that add up to `key` along one column; None where a row that is needed is not published."""
    found: list[int] = []
    todo = tree.below(key[axis]) if isinstance(key[axis], Sum) else []  # type: ignore[arg-type]
    while todo:
        coordinate = todo.pop()
        part = (*key[:axis], coordinate, *key[axis + 1 :])
        if part in place:
            found.append(place[part])
        elif isinstance(coordinate, Sum):
            todo += tree.below(coordinate)
        elif any(isinstance(c, Sum) for c in part):
            return None
    return tuple(sorted(found))


def _cells_below(cells: Sequence[Key], place: Mapping[Key, int], trees: Sequence[_Tree]) -> dict[int, list[int]]:
    """Positions of the cells that each row is the sum of."""
    found: dict[int, list[int]] = {i: [] for i in place.values()}
    for i, cell in enumerate(cells):
        above: list[list[Coordinate]] = [
            [code, *(Sum(c) for c in tree.path(str(code))), Sum(None)] for code, tree in zip(cell, trees, strict=True)
        ]
        for key in product(*above):
            if key in place:
                found[place[key]].append(i)
    return found


def _matrix(equations: Sequence[Equation], n: int) -> csr_array:
    rows = [i for i, e in enumerate(equations) for _ in e.members]
    columns = [j for e in equations for j in e.members]
    signs = [float(sign) for e in equations for sign in (-1, *(1 for _ in e.terms))]
    return csr_array((signs, (rows, columns)), shape=(len(equations), n))


def _shown(key: Key) -> str:
    return " x ".join("all" if c == Sum(None) else c.code or "" if isinstance(c, Sum) else c for c in key)
