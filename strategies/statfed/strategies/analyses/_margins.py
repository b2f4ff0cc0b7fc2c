"""The rows of a table in their order: cells, margins, and subtotals by the hierarchies of the codebook.

A row takes each column either by a level, or by a code that others are put under (`parents`), or sums over it. Rows
that do the same with every column are one `View`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """Rows of one kind. collapsed: axes that are summed over; grouped: those with codes above others; codes: of each
    other axis, in order."""

    collapsed: tuple[int, ...]
    grouped: tuple[int, ...]
    codes: tuple[tuple[str, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(codes) for codes in self.codes)

    @property
    def rows(self) -> int:
        return math.prod(self.shape)


def collapsed_axes(axes: int) -> list[tuple[int, ...]]:
    """Axes to sum over: none for the cells, then every margin, the grand total last."""
    return [c for size in range(axes + 1) for c in combinations(range(axes), size)]


def views(codebook: Codebook, by: Sequence[str]) -> list[View]:
    """Every row of a table by `by`: cells, margins, then subtotals in every combination with levels and margins."""
    codes = [groups(codebook, name)[0] for name in by]
    levels = [codebook.category(name).levels for name in by]
    above = [axis for axis, found in enumerate(codes) if found]
    made = []
    for size in range(len(above) + 1):
        for grouped in combinations(above, size):
            for collapsed in collapsed_axes(len(by)):
                if not set(collapsed) & set(grouped):
                    kept = [axis for axis in range(len(by)) if axis not in collapsed]
                    shown = tuple(codes[axis] if axis in grouped else levels[axis] for axis in kept)
                    made.append(View(collapsed, grouped, shown))
    return made


def groups(codebook: Codebook, name: str) -> tuple[tuple[str, ...], Floats]:
    """Codes with others below them, and which levels lie at or below each: (groups, levels), 0 or 1."""
    column = codebook.category(name)
    members: dict[str, set[str]] = {}
    for level in column.levels:
        for code in _path(codebook, name, level)[1:]:
            members.setdefault(code, {code} & set(column.levels)).add(level)
    inside = [[float(level in below) for level in column.levels] for below in members.values()]
    return tuple(members), np.array(inside).reshape(len(members), len(column.levels))


def by_depth(codebook: Codebook, name: str) -> list[dict[str, str]]:
    """The codes above others as mappings of level to code, one for each depth: there no level is below two codes."""
    above, _ = groups(codebook, name)
    found: dict[int, dict[str, str]] = {}
    for level in codebook.category(name).levels:
        for depth, code in enumerate(reversed(_path(codebook, name, level))):
            if code in above:
                found.setdefault(depth, {})[level] = code
    return [found[depth] for depth in sorted(found)]


def _path(codebook: Codebook, name: str, level: str) -> list[str]:
    """A level and every code above it. Raises UsageError on a circle."""
    parents, path = codebook.category(name).parents, [level]
    while path[-1] in parents:
        code = parents[path[-1]]
        if code in path:
            raise UsageError(f"{name}: parents run in a circle at {code}; want a tree")
        path.append(code)
    return path
