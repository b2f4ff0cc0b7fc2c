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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
from numpy.typing import ArrayLike, NDArray

from statfed.client.guard.cuts import told
from statfed.client.guard.weights import FREQUENCY, failing
from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.core.few import without_few as few_not_told
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Counts,
    Magnitude,
    Method,
    Model,
    Part,
    Product,
    Public,
    Question,
    Update,
    columns_read,
)
from statfed.core.table import Expr, Table
from statfed.core.weighing import Amounts, Cuts, Weighed, owners

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
    on_cuts: Callable[[Sequence[Cuts], int], None] = lambda _, __: None,
) -> tuple[str, ...]:
    """Names of the rules that a contribution passed, before it leaves.

    table: the holder's records that the study looks at, with the columns of `columns_read` and `reads`; contribution:
    what would leave, of which `parts` say what it is; rules: the holder's secret thresholds; discloses: what the method
    says of the ask; on_cuts: judges cuts of columns, with the fewest records between two of
    them, after all else. What a part does not say of itself, or what does not go with `discloses`, is refused whenever
    a rule is on: no part is told by its name. A holder without records passes all rules but `zeros`. Raises Refused
    naming every rule that fails and the columns concerned, nothing else.
    """
    check_declared(question, ask, parts, discloses)
    weighs: Callable[..., Iterable[Weighed]] | None = getattr(question.method, "weighs", None)
    counted = [
        (np.asarray(contribution[name]), part.what) for name, part in parts.items() if isinstance(part.what, Counts)
    ]
    few = _Few(table, rules)
    whole = None if isinstance(discloses, Cells) else table.complete(discloses.complete)
    findings = [_Finding(FREQUENCY, _named(question, discloses), fails) for fails in few.unsafe(counted, whole)]
    found = _cells if isinstance(discloses, Cells) else _model
    findings += found(table, question, [array for array, _ in counted], rules, discloses)  # type: ignore[arg-type]
    weighed = list(weighs(table, question, ask)) if weighs else []
    for one in weighed:
        findings += [_Finding(rule, _named(question, discloses), fails) for rule, fails in failing(one, rules)]
    if isinstance(discloses, Cells):
        findings += _summed(table, question, rules, discloses)
    broken = [finding for finding in findings if finding.fails]
    if broken:
        lines = dict.fromkeys(f"- {f.rule}: {', '.join(f.columns) or 'all records'}" for f in broken)
        raise Refused("\n".join([f"not allowed by this holder's disclosure rules ({ask.name}):", *lines]))
    on_cuts([told(one, few.least) for one in weighed if isinstance(one, Cuts)], few.least)
    return tuple(dict.fromkeys(finding.rule for finding in findings))


def check_declared(question: Question[Any], ask: Ask, parts: Mapping[str, Part], discloses: Cells | Model) -> None:
    """Raises Refused where an ask would send what nothing is known of. Looks at no data."""
    astray = undeclared(parts, discloses, weighed(question.method, discloses))
    if astray:
        raise Refused(
            f"not allowed by this holder's disclosure rules ({ask.name}):\n- {UNDECLARED}: {', '.join(astray)}"
        )


def weighed(method: Method, discloses: Cells | Model) -> bool:
    """Does a method say what the rules on products need: how records weigh, and for models what values are multiplied
    by, which the rule on all answers together looks at?"""
    return hasattr(method, "weighs") and (isinstance(discloses, Cells) or hasattr(method, "spans"))


def undeclared(parts: Mapping[str, Part], discloses: Cells | Model, weighed: bool = False) -> list[str]:
    """Parts of which nothing is known that rules could look at. Public.

    Sums of values need the cells and columns that dominance rules are evaluated on, or, like cross products, a method
    that says how records weigh in them (weighed); updates need a model; counts are looked at themselves. Sums over
    cells in which no column is summed, such as of squared sizes of primary sampling units, are refused: no rule is
    about them.
    """
    model = isinstance(discloses, Model)

    def known(part: Part) -> bool:
        match part.what:
            case Counts() | Public():
                return True
            case Magnitude(counts=counts):
                said = not counts or (counts in parts and isinstance(parts[counts].what, Counts))
                return said and (weighed or bool(isinstance(discloses, Cells) and discloses.values))
            case Product():
                return model and weighed
            case Update():
                return model
        return False

    return sorted(name for name, part in parts.items() if not known(part))


def reads(codebook: Codebook) -> tuple[str, ...]:
    """Columns that `check` looks at although the query itself may not read them: whose a record is."""
    return owners(codebook)


def without_few(table: Table, parts: Mapping[str, Part], contribution: Arrays, rules: Rules) -> Arrays:
    """The contribution with numbers that are only told beside others (`Counts.beside`) as if the few records that they
    would tell of were not there: those that are left out, or that miss a value, where they are fewer than the rule on
    frequencies asks for."""
    few = _Few(table, rules)
    if not any(isinstance(part.what, Counts) and (part.what.beside or part.what.sides) for part in parts.values()):
        return contribution
    told = few_not_told(parts, contribution, few.least)
    for name, part in parts.items():
        if isinstance(part.what, Counts) and part.what.sides:
            up, beyond = told[name][..., 0], told[name][..., 1]
            whole = up + beyond
            up = np.where(beyond < few.least, whole, np.where(up < few.least, 0, up))
            told[name] = np.stack([up, whole - up], axis=-1).astype(told[name].dtype)
    return told


class _Few:
    """How many records are too few: such that fewer than the minimum of contributors could be behind them."""

    def __init__(self, table: Table, rules: Rules) -> None:
        self._table, self._minimum = table, rules.minimum_frequency
        self._known: int | None = None

    @property
    def least(self) -> int:
        """Fewest records that are enough, whoever they belong to: one more than the minimum less one of contributors
        with most records have. 0 without a rule."""
        if self._minimum is None:
            return 0
        if self._known is None:
            expr, least = self._table.expr, self._minimum
            for owner in owners(self._table.codebook):
                sizes = expr.group_by(expr[owner]).aggregate(_size=expr.count())
                top = sizes.order_by(sizes["_size"].desc()).limit(self._minimum - 1).to_pyarrow()["_size"].to_pylist()
                least = max(least, sum(top) + 1)
            self._known = least
        return self._known

    def unsafe(self, counted: Iterable[tuple[NDArray[Any], Counts]], whole: Table | None) -> Iterator[bool]:
        """For each array of counts: is one of them too small, or does it leave too few of the records of `whole`?"""
        if self._minimum is None:
            return
        records = 0 if whole is None else int(whole.aggregate(n=whole.expr.count())["n"])
        for array, what in counted:
            if what.units:
                yield bool(unsafe_frequency(array, self._minimum).any())
                continue
            others = records - array if whole is not None else array
            yield bool((unsafe_frequency(array, self.least) | ((others > 0) & (others < self.least))).any())


def _cells(
    table: Table, question: Question[Any], finer: list[NDArray[Any]], rules: Rules, cells: Cells
) -> Iterator[_Finding]:
    columns = _named(question, cells)
    complete = table.complete((*cells.complete, *cells.by))
    counted: dict[str, Expr] = {"records": ibis._.count()}
    for i, name in enumerate(cells.values):
        counted[f"contributors_{i}"] = complete[name].count()
    for owner in owners(table.codebook):
        if owner not in cells.by:
            counted[f"{owner} of records"] = complete[owner].nunique()
            for i, name in enumerate(cells.values):
                counted[f"{owner} of {i}"] = complete[owner].nunique(where=complete[name].notnull())
    grids = complete.grid(cells.by, **counted)
    if rules.minimum_frequency is not None:
        unsafe = [unsafe_frequency(counts, rules.minimum_frequency) for counts in grids.values()]
        nobody = [
            (grids["records"] > 0) & (counts == 0) for name, counts in grids.items() if name.endswith("of records")
        ]
        yield _Finding(FREQUENCY, columns, any(flags.any() for flags in (*unsafe, *nobody)))
    if rules.full_cells == "protect":
        yield _Finding(FULL, columns, any(full_cells(counts).any() for counts in (grids["records"], *finer)))
    empty = any(not np.all(counts) for counts in (grids["records"], *finer))
    if rules.zeros == "protect":  # a cell in which everybody contributes zero tells each contribution
        sums = {f"s{i}": complete.number(name).abs().sum() for i, name in enumerate(cells.values)}
        found = complete.grid(cells.by, **sums) if sums else {}
        yield _Finding(ZEROS, columns, empty or any(np.any(sizes == 0) for sizes in found.values()))


def _named(question: Question[Any], cells: Cells | Model) -> tuple[str, ...]:
    names = (*cells.by, *cells.complete, *cells.values) if isinstance(cells, Cells) else cells.complete
    return tuple(dict.fromkeys(names)) or columns_read(question)


def _summed(table: Table, question: Question[Any], rules: Rules, cells: Cells) -> Iterator[_Finding]:
    """The dominance rules on the columns that a method says it sums. Where the query reads the weights, on weighted
    values as well: the weighted total is what its contributors subtract themselves from."""
    complete = table.complete((*cells.complete, *cells.by))
    weight = table.codebook.role("weight")
    for name in cells.values:
        value = complete.number(name)
        amounts = [value, *([value * complete.number(weight)] if weight in columns_read(question) else [])]
        for rule, fails in failing(Amounts(complete, tuple(amounts), cells.by), rules):
            yield _Finding(rule, (*cells.by, name), fails)


def _model(
    table: Table,
    question: Question[Any],  # noqa: ARG001
    finer: list[NDArray[Any]],  # noqa: ARG001
    rules: Rules,
    model: Model,
) -> Iterator[_Finding]:
    """Rules on a contribution to a model. A dummy variable of a level is a cell: the levels of the categorical columns
    that the model uses have to be frequent enough one by one."""
    complete = table.complete(model.complete)
    records = int(complete.aggregate(records=ibis._.count())["records"])
    if rules.minimum_frequency is not None:
        whose = {owner: complete[owner].nunique() for owner in owners(table.codebook)}
        for name in dict.fromkeys(("", *model.complete)):
            if not name or table.codebook.column(name).levels:
                grids = complete.grid((name,) if name else (), records=ibis._.count(), **whose)
                unsafe = [unsafe_frequency(counts, rules.minimum_frequency).any() for counts in grids.values()]
                yield _Finding(FREQUENCY, (name,) if name else model.complete, any(unsafe))
    if rules.zeros == "protect":
        yield _Finding(ZEROS, model.complete, records == 0)
    if rules.residual_df is not None:
        fails = records > 0 and records - model.parameters < rules.residual_df
        yield _Finding(RESIDUAL, model.complete, fails)
    if rules.parameters_per_record is not None:
        fails = records > 0 and model.parameters > rules.parameters_per_record * records
        yield _Finding(PARAMETERS, model.complete, fails)
