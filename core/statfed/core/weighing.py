"""How single records weigh in what leaves with an ask: what a method says of it, and a holder's rules look at.

A method's optional `weighs(table, question, ask)` yields these, and between them they cover every sum of values or of
products that the ask sends. The rules are about contributors, whoever the method is: see `statfed.client.guard.weights`
for what they promise and why.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.table import Expr, Table

ROLES = ("unit", "enterprise")
"""Roles of columns that tell whose a record is: a person's, an enterprise's."""


WEIGHTS = ("weight", "replicate")
"""Roles of columns that may weigh the records of an exact study."""

Compute = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""From a batch (records, columns) what each record adds: (records, numbers)."""


@dataclass(frozen=True)
class Amounts:
    """Sums over the records of `table` of each of `amounts`, in every cell of `by`.

    amounts: what a record adds to an entry of the array, float64 expressions of the table; null adds nothing. With
    `compute` they are what that makes of these expressions, batch by batch, where no database can. by: expressions or
    names of columns; empty where the whole table is one cell.
    """

    table: Table
    amounts: tuple[Expr, ...]
    by: tuple[Expr | str, ...] = ()
    compute: Compute | None = None


@dataclass(frozen=True)
class Rows:
    """Sums over the records of `table` that are linear or quadratic in `columns`, whole matrices of them.

    Whoever knows them knows the sum of (a'v) and of (a'v)^2 for every a, v being a record's `columns`, or what
    `compute` makes of these. counting: stands a column for records that are there (the columns of a design, weighted or
    not), so that too few of them must not weigh in any combination? Otherwise they are values, of which a few must not
    dominate any combination. by: in each of these cells by itself; then without `compute`.
    """

    table: Table
    columns: tuple[Expr, ...]
    counting: bool = False
    compute: Compute | None = None
    by: tuple[Expr | str, ...] = ()


@dataclass(frozen=True)
class Cuts:
    """Numbers of records of `table` up to each of `edges` of a column, in every cell of `by`.

    edges: (value, is the value itself included?), in any order. cell: codes of columns that all records of the table
    have, where it is one cell of more. tails: edges with too few records on one side tell nothing, since those were
    counted on the other (`Counts.sides`); without `by`.
    """

    table: Table
    column: str
    edges: tuple[tuple[float, bool], ...]
    by: tuple[str, ...] = ()
    cell: tuple[tuple[str, str], ...] = ()
    tails: bool = False


Weighed = Amounts | Rows | Cuts
Weighs = Callable[[Table, Any, Any], Iterable[Weighed]]


def owners(codebook: Codebook) -> tuple[str, ...]:
    """Columns that tell whose a record is; none where each record is somebody's own."""
    return tuple(name for role in ROLES if (name := codebook.role(role)))
