"""Disclosure control of what leaves one holder in the clear: which rules a contribution has to pass. Fails closed.

Formal guarantees. A contribution leaves only if every rule that is switched on holds for every cell of it; all rules
are evaluated, none is skipped after another failed, and an error of the database is an error, never a pass. A refusal
names rules and columns: it is the same text whatever the thresholds, the cells and the values are. Which rules failed
is told: one bit about the data for each rule. Not claimed: that the time taken tells nothing.

Everything is one or two aggregations per rule where the data are. Memory is that of the contribution's own cells; the
largest contributions of a cell come from DuckDB's `max(x, n)`, elsewhere from a window, which databases sort on disk.

Source: Hundepool et al. 2012, Statistical Disclosure Control, chapter 4 (minimum frequency, (n,k) and p% on
contributors, negative contributions by absolute values) and chapter 5 (zeros and full cells of frequency tables).
The functions from `unsafe_frequency` to `full_cells` are pure: arrays of cells in, arrays of bool of their shape out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Counts,
    Magnitude,
    Model,
    Part,
    Product,
    Public,
    Question,
    Update,
    columns_read,
)
from statfed.core.table import Expr, Table

FREQUENCY, DOMINANCE, P_PERCENT = "minimum frequency", "(n,k) dominance", "p% rule"
ZEROS, FULL = "zeros", "full cells"
RESIDUAL, PARAMETERS = "residual degrees of freedom", "parameters per record"
UNDECLARED = "what leaves is declared"
Flags = NDArray[np.bool_]


def unsafe_frequency(counts: ArrayLike, minimum: int) -> Flags:
    """Which non-empty cells have fewer than `minimum` records. Weighted counts are taken as they are."""
    size = np.abs(np.asarray(counts))
    return np.asarray((size > 0) & (size < minimum))


def dominated(top: ArrayLike, total: ArrayLike, k: float) -> Flags:
    """(n,k) rule: do the n largest contributions make up more than k % of the cell?

    top: sum of the n largest absolute contributions of each cell; total: sum of all absolute contributions, same shape.
    """
    return np.asarray(100 * np.asarray(top, np.float64) > k * np.asarray(total, np.float64) * (1 + 1e-12))


def p_percent(total: ArrayLike, first: ArrayLike, second: ArrayLike, p: float) -> Flags:
    """p% rule: total - first - second < p % of first, so that the second largest contributor can estimate the largest
    to within p %.

    Absolute contributions per cell, equal shapes; first and second are 0 where there are none.
    """
    largest = np.asarray(first, np.float64)
    rest = np.asarray(total, np.float64) - largest - np.asarray(second, np.float64)
    return np.asarray(100 * np.maximum(rest, 0) < p * largest)


def full_cells(counts: ArrayLike) -> Flags:
    """Which non-empty cells hold all records of a line of the table: group disclosure.

    A line runs along one axis with all other axes fixed; one cell of the margins that is full makes each line below it
    full, so the finest lines are enough. Axes with a single level are no lines.
    """
    table = np.abs(np.asarray(counts))
    full = np.zeros(table.shape, np.bool_)
    for axis, levels in enumerate(table.shape):
        if levels > 1:
            full |= (table > 0) & (table == table.sum(axis=axis, keepdims=True))
    return full


@dataclass(frozen=True)
class _Finding:
    """One rule on one thing: the columns concerned, all public, and whether it fails."""

    rule: str
    columns: tuple[str, ...]
    fails: bool


def check(
    table: Table,
    question: Question[Any],
    ask: Ask,
    parts: Mapping[str, Part],
    contribution: Arrays,
    rules: Rules,
    discloses: Cells | Model,
) -> tuple[str, ...]:
    """Names of the rules that a contribution passed, before it leaves.

    table: the holder's records that the study looks at, with the columns of `columns_read` and `reads`; contribution:
    what would leave, of which `parts` say what it is; rules: the holder's secret thresholds; discloses: what the method
    says of the ask. What a part does not say of itself, or what does not go with `discloses`, is refused whenever a
    rule is on: no part is told by its name. A holder without records passes all rules but `zeros`. Raises Refused
    naming every rule that fails and the columns concerned, nothing else.
    """
    astray = undeclared(parts, discloses)
    if astray:
        raise Refused(
            f"not allowed by this holder's disclosure rules ({ask.name}):\n- {UNDECLARED}: {', '.join(astray)}"
        )
    counts = [np.asarray(contribution[name]) for name, part in parts.items() if isinstance(part.what, Counts)]
    found = _cells if isinstance(discloses, Cells) else _model
    findings = list(found(table, question, counts, rules, discloses))  # type: ignore[arg-type]
    failing = [finding for finding in findings if finding.fails]
    if failing:
        lines = dict.fromkeys(f"- {f.rule}: {', '.join(f.columns) or 'all records'}" for f in failing)
        raise Refused("\n".join([f"not allowed by this holder's disclosure rules ({ask.name}):", *lines]))
    return tuple(dict.fromkeys(finding.rule for finding in findings))


def undeclared(parts: Mapping[str, Part], discloses: Cells | Model) -> list[str]:
    """Parts of which nothing is known that rules could look at. Public.

    Sums of values need the cells and columns that dominance rules are evaluated on, or the records of a model; cross
    products and updates need a model; counts are looked at themselves. Sums over cells in which no column is summed,
    such as of squared sizes of primary sampling units, are refused: no rule is about them.
    """
    model = isinstance(discloses, Model)

    def known(part: Part) -> bool:
        match part.what:
            case Counts() | Public():
                return True
            case Magnitude(counts=counts):
                said = not counts or (counts in parts and isinstance(parts[counts].what, Counts))
                return said and (model or bool(discloses.values))  # type: ignore[union-attr]
            case Product() | Update():
                return model
        return False

    return sorted(name for name, part in parts.items() if not known(part))


def reads(codebook: Codebook, discloses: Cells | Model) -> tuple[str, ...]:
    """Columns that `check` looks at although the query itself may not read them: the id of the enterprise."""
    enterprise = codebook.role("enterprise")
    return (enterprise,) if enterprise and isinstance(discloses, Cells) and discloses.values else ()


def _cells(
    table: Table, question: Question[Any], finer: list[NDArray[Any]], rules: Rules, cells: Cells
) -> Iterator[_Finding]:
    names = [*cells.by, *cells.complete, *cells.values]
    columns = tuple(dict.fromkeys(names)) or columns_read(question)
    complete = table.complete((*cells.complete, *cells.by))
    counted: dict[str, Expr] = {"records": ibis._.count()}
    for i, name in enumerate(cells.values):
        counted[f"contributors_{i}"] = complete[name].count()
    grids = complete.grid(cells.by, **counted)
    if rules.minimum_frequency is not None:
        unsafe = [unsafe_frequency(counts, rules.minimum_frequency).any() for counts in (*grids.values(), *finer)]
        yield _Finding(FREQUENCY, columns, any(unsafe))
    if rules.full_cells == "protect":
        yield _Finding(FULL, columns, any(full_cells(counts).any() for counts in (grids["records"], *finer)))
    empty = any(not np.all(counts) for counts in (grids["records"], *finer))
    for name in cells.values:
        yield from _magnitudes(complete, question, rules, cells.by, name, empty)
    if not cells.values and rules.zeros == "protect":
        yield _Finding(ZEROS, columns, empty)


def _magnitudes(
    table: Table, question: Question[Any], rules: Rules, by: tuple[str, ...], value: str, empty: bool
) -> Iterator[_Finding]:
    """Rules on the contributions to `value`. Where the query reads the weights, on weighted ones as well: the
    weighted total is what its contributors subtract themselves from, with weights that they may know."""
    columns = (*by, value)
    weight = table.codebook.role("weight")
    weights = [None, weight] if weight in columns_read(question) and weight != value else [None]
    zeros = False
    for each in weights:
        sums = _largest(table, by, value, each, rules.dominance_n)
        zeros |= bool(np.any(sums["total"] == 0))
        if rules.dominance_k is not None:
            fails = dominated(sums["top"], sums["total"], rules.dominance_k).any()
            yield _Finding(DOMINANCE, columns, bool(fails))
        if rules.p_percent is not None:
            fails = p_percent(sums["total"], sums["first"], sums["second"], rules.p_percent).any()
            yield _Finding(P_PERCENT, columns, bool(fails))
    if rules.zeros == "protect":  # a cell in which everybody contributes zero tells each contribution
        yield _Finding(ZEROS, columns, empty or zeros)


@ibis.udf.agg.builtin(name="max")  # type: ignore[untyped-decorator]
def _maxima(x: float, n: int) -> dt.Array(dt.float64):  # type: ignore[valid-type]
    """DuckDB's max(x, n): the n largest in descending order, fewer where there are fewer."""


def _largest(table: Table, by: tuple[str, ...], value: str, weight: str | None, n: int) -> dict[str, NDArray[Any]]:
    """Per cell: `total` of the absolute contributions, the `first` and `second` largest, `top`: sum of the n largest.

    A contributor is an enterprise where the codebook has that role, else a record; records without the enterprise's id
    count as one contributor, which can only refuse more.
    """
    given = table.filter(table[value].notnull())
    amount = given.number(value)
    if weight:
        amount = amount * given.number(weight).fill_null(0.0)
    records = given.expr.mutate(_amount=amount)
    enterprise = table.codebook.role("enterprise")
    if enterprise:
        keys = list(dict.fromkeys((*by, enterprise)))
        sums = records.group_by(keys).aggregate(
            _net=records["_amount"].sum().abs(), _gross=records["_amount"].abs().sum()
        )
        each = sums.mutate(_amount=sums[enterprise].isnull().ifelse(sums["_gross"], sums["_net"]))
    else:
        each = records.mutate(_amount=records["_amount"].abs())
    size = each["_amount"]
    if table.embedded:
        two: Expr = _maxima(size, 2)
        top: Expr = _maxima(size, n)
        values = {"first": two[0], "second": two[1], "top": top.sums()}
    else:
        each = each.mutate(_rank=ibis.row_number().over(group_by=list(by), order_by=size.desc()))
        size, rank = each["_amount"], each["_rank"]
        values = {
            "first": size.sum(where=rank == 0),
            "second": size.sum(where=rank == 1),
            "top": size.sum(where=rank < n),
        }
    grids = replace(table, expr=each).grid(by, total=size.sum(), **values)
    return {name: grid.astype(np.float64) for name, grid in grids.items()}


def _model(
    table: Table,
    question: Question[Any],  # noqa: ARG001
    finer: list[NDArray[Any]],
    rules: Rules,
    model: Model,
) -> Iterator[_Finding]:
    """Rules on a contribution to a model. A dummy variable of a level is a cell: the levels of the categorical columns
    that the model uses, those with a role in the design aside, have to be frequent enough one by one."""
    complete = table.complete(model.complete)
    records = int(complete.aggregate(records=ibis._.count())["records"])
    if rules.minimum_frequency is not None:
        sizes = [np.asarray(records), *finer]
        unsafe = any(unsafe_frequency(size, rules.minimum_frequency).any() for size in sizes)
        yield _Finding(FREQUENCY, model.complete, unsafe)
        for name in dict.fromkeys(model.complete):
            column = table.codebook.column(name)
            if column.levels and column.role is None:
                counts = complete.grid((name,), records=ibis._.count())["records"]
                yield _Finding(FREQUENCY, (name,), bool(unsafe_frequency(counts, rules.minimum_frequency).any()))
    if rules.zeros == "protect":
        yield _Finding(ZEROS, model.complete, records == 0)
    if rules.residual_df is not None:
        fails = records > 0 and records - model.parameters < rules.residual_df
        yield _Finding(RESIDUAL, model.complete, fails)
    if rules.parameters_per_record is not None:
        fails = records > 0 and model.parameters > rules.parameters_per_record * records
        yield _Finding(PARAMETERS, model.complete, fails)
