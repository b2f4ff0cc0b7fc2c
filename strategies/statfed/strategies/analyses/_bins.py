"""Records, and the total of a weight, in bins of a numeric column: counted in the database, in one statement.

Edges are public and the same at every holder, and comparisons with them are exact. DuckDB has an aggregate that counts
between sorted edges by binary search; elsewhere, and for totals of a weight, the search is nested conditions.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import ibis
import ibis.expr.datatypes as dt
import numpy as np

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.method import Arrays
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._moments import Floats

Closed = Literal["left", "right"]


def check_weight(codebook: Codebook, weight: str, *, bounded: bool) -> None:
    """Raises UsageError when a column cannot be a weight: not numeric, negative, or unbounded where that matters."""
    column = codebook.number(weight, "weight")
    if column.low is not None and column.low < 0:
        raise UsageError(f"weight: {weight}: got values from {column.low} on in the codebook; want none below 0")
    if bounded and column.bounds is None:
        raise UsageError(f"weight: {weight}: got no bounds in the codebook; want low and high")


def counts(
    table: Table, name: str, edges: Floats, closed: Closed, weight: str | None = None, by: Sequence[str] = ()
) -> Arrays:
    """Records in the len(edges) + 1 bins between and beyond increasing edges, for each combination of levels of `by`.

    closed: the end that belongs to a bin: with `left` a record's bin is the number of edges <= its value, with `right`
    of those < it. Result: `count` int64 and, with a weight, `total` float64 over records complete in both columns, of
    shape (len(edges) + 1, *levels).
    """
    complete = table.complete((name, weight) if weight else (name,))
    if table.embedded and weight is None and len(edges):
        return _gathered(complete, _histograms(complete, name, edges, closed, by), len(edges) + 1, by)
    return at_index(complete, place(complete.number(name), edges, closed), len(edges) + 1, by, weight)


def at_index(table: Table, index: Expr, bins: int, by: Sequence[str], weight: str | None = None) -> Arrays:
    """As `counts`, in bins that are given for each record, as an integer from 0 to bins - 1."""
    name = _new(table.codebook, "bin")
    groups = table.expr.mutate(**{name: index}).group_by([*by, name])
    asked = {_new(table.codebook, "count"): ibis._.count()}
    if weight:
        asked[_new(table.codebook, "total")] = table.number(weight).sum()
    return _gathered(table, groups.aggregate(**asked), bins, by)


def _new(codebook: Codebook, name: str) -> str:
    """`name`, or one like it that no column has."""
    while name in codebook.columns:
        name += "_"
    return name


def _gathered(table: Table, groups: Expr, bins: int, by: Sequence[str]) -> Arrays:
    """Grids of `count` and, if there, `total` of groups of records, added up by `bin` and the levels of `by`."""
    name, count, total = (_new(table.codebook, word) for word in ("bin", "count", "total"))
    column = Column(type="category", categories={str(i): "" for i in range(bins)})
    codebook = table.codebook.model_copy(update={"columns": {**table.codebook.columns, name: column}})
    asked = {"count": groups[count].sum()}
    if total in groups.columns:
        asked["total"] = groups[total].sum()
    found = Table(groups, codebook, table.embedded).grid((name, *by), **asked)
    return {key: np.asarray(array, np.float64 if key == "total" else np.int64) for key, array in found.items()}


@ibis.udf.agg.builtin(name="histogram")  # type: ignore[untyped-decorator]
def _histogram(x: float, edges: dt.Array(dt.float64)) -> dt.Map(dt.float64, dt.int64):  # type: ignore[valid-type]
    """DuckDB's: number of values in each bin closed on the right, by its upper edge, and beyond the last edge."""


def _histograms(table: Table, name: str, edges: Floats, closed: Closed, by: Sequence[str]) -> Expr:
    """`count` of each `bin` and level of `by`, a row each. Bins closed on the left are those of -x on the right."""
    index, count = _new(table.codebook, "bin"), _new(table.codebook, "count")
    x, limits = (table.number(name), edges) if closed == "right" else (-table.number(name), -edges[::-1])
    held: Expr = _histogram(x, ibis.array([real(limit) for limit in limits]))
    groups = table.expr.group_by(list(by)) if by else table.expr
    rows = groups.aggregate(**{count: held.values()}).unnest(count, offset=index)
    return rows if closed == "right" else rows.mutate(**{index: len(edges) - rows[index]})


def place(x: Expr, edges: Floats, closed: Closed) -> Expr:
    """Index of the bin that x lies in, by binary search."""

    def search(first: int, last: int) -> Expr:
        if first == last:
            return ibis.literal(first, "int32")
        middle = (first + last) // 2
        edge = real(edges[middle])
        below = x < edge if closed == "left" else x <= edge
        return ibis.ifelse(below, search(first, middle), search(middle + 1, last))

    return search(0, len(edges))


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
