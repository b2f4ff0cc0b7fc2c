"""A holder's half of rules that are decided on pooled contributors: its total and its two largest contributors in
every row of a table, margins and subtotals included.

One aggregation a view and depth of its hierarchies, where the data are. DuckDB finds the two largest in constant
memory; elsewhere a window sorts them.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import numpy as np
from numpy.typing import NDArray

from statfed.core.table import Expr, Table
from statfed.strategies.analyses._margins import View, by_depth, views

Floats = NDArray[np.float64]


@ibis.udf.agg.builtin(name="max")  # type: ignore[untyped-decorator]
def _maxima(x: float, n: int) -> dt.Array(dt.float64):  # type: ignore[valid-type]
    """DuckDB's max(x, n): the n largest in descending order, fewer where there are fewer."""


def contributors(table: Table, by: tuple[str, ...], amount: Expr) -> dict[str, Floats]:
    """`total` (rows,) and `largest` (2, rows), the largest first, over the rows of `views` one after the other.

    amount: what each record adds to a row, not below 0. A contributor is an enterprise where the codebook has that
    role, else a record; records without the enterprise's id are one contributor.
    """
    found = [_of(table, by, amount, view) for view in views(table.codebook, by)]
    total = np.concatenate([rows[0].reshape(-1) for rows in found])
    return {"total": total, "largest": np.concatenate([rows[1:].reshape(2, -1) for rows in found], axis=1)}


def _of(table: Table, by: tuple[str, ...], amount: Expr, view: View) -> Floats:
    """Total, largest and second largest in the rows of one view: (3, *shape)."""
    codebook, firm = table.codebook, table.codebook.role("enterprise")
    known = table.complete(by).expr
    records = known.mutate(_amount=amount)
    kept = [axis for axis in range(len(by)) if axis not in view.collapsed]
    found = np.zeros((3, *view.shape))
    places = [{code: i for i, code in enumerate(codes)} for codes in view.codes]
    labels: list[list[Mapping[str, str] | None]] = [
        list(by_depth(codebook, by[axis])) if axis in view.grouped else [None] for axis in kept
    ]
    for label in product(*labels):
        keys = [f"_key{axis}" for axis in kept]
        columns = {key: records[by[axis]].cast("string") for key, axis in zip(keys, kept, strict=True)}
        for key, mapping in zip(keys, label, strict=True):
            if mapping is not None:
                columns[key] = columns[key].cases(*mapping.items(), else_=ibis.null("string"))
        each = records.mutate(**columns)
        each = each.filter([each[key].notnull() for key in keys]) if keys else each
        if firm:
            each = each.group_by([*keys, firm]).aggregate(_amount=each["_amount"].sum())
        for row in _two_largest(each, keys, table.embedded):
            at: tuple[Any, ...] = tuple(place[row[key]] for place, key in zip(places, keys, strict=True))
            found[(slice(None), *at)] = [row[name] or 0.0 for name in ("total", "first", "second")]
    return found


def _two_largest(each: Expr, keys: list[str], embedded: bool) -> list[dict[str, Any]]:
    """Rows with `total`, `first` and `second` of the contributors in each combination of the keys."""
    if embedded:
        two: Expr = _maxima(each["_amount"], 2)
        values = {"first": two[0], "second": two[1]}
    else:
        order = each["_amount"].desc()
        each = each.mutate(_rank=ibis.row_number().over(group_by=keys, order_by=order))
        values = {
            name: each["_amount"].sum(where=each["_rank"] == rank) for rank, name in enumerate(("first", "second"))
        }
    grouped = each.group_by(keys) if keys else each
    rows: list[dict[str, Any]] = grouped.aggregate(total=each["_amount"].sum(), **values).to_pyarrow().to_pylist()
    return rows
