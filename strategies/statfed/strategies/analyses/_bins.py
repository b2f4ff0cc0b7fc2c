"""Bins of a numeric column as if they were a category: counted in the database, whatever the number of records.

Edges are public and the same at every holder; comparisons are exact, by binary search written as nested conditions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._moments import Floats


def check_weight(codebook: Codebook, weight: str, *, bounded: bool) -> None:
    """Raises UsageError when a column cannot be a weight: not numeric, negative, or unbounded where that matters."""
    column = codebook.number(weight, "weight")
    if column.low is not None and column.low < 0:
        raise UsageError(f"weight: {weight}: got values from {column.low} on in the codebook; want none below 0")
    if bounded and column.bounds is None:
        raise UsageError(f"weight: {weight}: got no bounds in the codebook; want low and high")


def place(x: Expr, edges: Floats, closed: Literal["left", "right"]) -> Expr:
    """Index of the bin that x lies in, as a string, among the len(edges) + 1 bins between and beyond increasing edges.

    closed: the end that belongs to a bin: with `left` the index is the number of edges <= x, with `right` of those < x.
    """
    import ibis

    def search(first: int, last: int) -> Expr:
        if first == last:
            return ibis.literal(str(first))
        middle = (first + last) // 2
        edge = real(edges[middle])
        below = x < edge if closed == "left" else x <= edge
        return ibis.ifelse(below, search(first, middle), search(middle + 1, last))

    return search(0, len(edges))


def binned(table: Table, index: Expr, bins: int) -> tuple[Table, str]:
    """`table` with one more category column, of levels 0 to bins - 1, and the name of that column.

    index: the bin of each record, as a string.
    """
    name = "bin"
    while name in table.codebook.columns:
        name += "_"
    column = Column(type="category", categories={str(i): "" for i in range(bins)})
    codebook = table.codebook.model_copy(update={"columns": {**table.codebook.columns, name: column}})
    return Table(table.expr.mutate(**{name: index}), codebook, table.embedded), name


def whole(codebook: Codebook, name: str) -> bool:
    """Does the column hold whole numbers only?"""
    return codebook.columns[name].type in ("integer", "boolean")


def bounds_of(codebook: Codebook, name: str) -> tuple[float, float]:
    """A numeric column's bounds, whole numbers where the column is. Raises UsageError when there are none."""
    bounds = codebook.number(name).bounds
    if bounds is None:
        raise UsageError(f"{name}: got no bounds in the codebook; want low and high")
    return (float(np.ceil(bounds[0])), float(np.floor(bounds[1]))) if whole(codebook, name) else bounds


def check_edges(edges: Sequence[float], where: str) -> None:
    """Raises UsageError unless there are two or more, increasing."""
    if len(edges) < 2 or any(a >= b for a, b in pairwise(edges)):
        raise UsageError(f"{where}: got {', '.join(f'{e:g}' for e in edges)}; want two or more, increasing")
