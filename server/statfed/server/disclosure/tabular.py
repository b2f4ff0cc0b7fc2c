"""Tables of cells and margins: suppression with its audit, rounding or cell-key noise.

What is derived from several rows (chi-square, shares) would allow to solve for hidden ones, so it is withheld as soon
as any row of the table is treated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.privacy.cell_key import noise_table
from statfed.core.randomness import Stream
from statfed.core.result import Additive, Basis, Result, Row, Scalar
from statfed.server.disclosure import rounding
from statfed.server.disclosure.audit import whole_widths
from statfed.server.disclosure.primary import Numbers, Unsafe, on_contributors, unsafe_rows
from statfed.server.disclosure.sums import Flags, Floats, Sums, sums_of_rows
from statfed.server.disclosure.suppression import Measure, Pattern, Problem, Unprotectable, suppress

_ADDITIVE = 1e-6
_ATTEMPTS = 3
UNSAFE = "release: this result cannot be shown beside what is public of it; nothing is released"
SUPPRESSED = "suppressed"
"""The one status of whatever is not shown, for whatever reason."""


@dataclass
class Treated:
    """What the release did, gathered on the way. hides_total: may the number of all records not be shown?
    changed: was any cell of a table treated?"""

    rules: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    audit: dict[str, Scalar] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    method: str = ""
    hides_total: bool = False
    changed: bool = False

    def ran(self, rule: str) -> None:
        self.rules.add(rule)

    def count(self, what: str, rows: int) -> None:
        self.counts[what] = self.counts.get(what, 0) + rows

    def add(self, rule: str, what: str, rows: int) -> None:
        self.ran(rule)
        self.count(what, rows)


def number(row: Row, *names: str) -> float | None:
    """The first of these columns that holds a number."""
    for name in names:
        value = row.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def suppression_of(
    sums: Sums, numbers: Numbers, rules: Rules, treated: Treated, seconds: float
) -> tuple[Flags, Flags, Unsafe]:
    """Primary rows, all suppressed rows, and why. Raises Refused when the audit fails: nothing is released.

    Three attackers are kept out: one of the counts who knows that they are whole and not negative; one of them who has
    been told the minimum frequency and which rows break it; and one of the totals. Whoever only guesses the threshold, or
    which rows break it, knows less than the second.
    """
    unsafe = unsafe_rows(sums, numbers, rules)
    for rule in unsafe.rules:
        treated.ran(rule)
    treated.skipped = unsafe.skipped | treated.skipped
    _check_additive(sums, numbers)
    none, unbounded = np.zeros(len(sums)), np.full(len(sums), np.inf)
    counted = Measure(numbers.counts, unsafe.count_width, none, unbounded, whole=True)
    told = Measure(numbers.counts, unsafe.told_width, *unsafe.told, whole=True)
    measures = [counted, told] if unsafe.told_width.any() else [counted]
    if numbers.totals is not None:
        measures.append(Measure(numbers.totals, unsafe.total_width))
    problem = Problem(
        sums,
        tuple(measures),
        unsafe.rows,
        unsafe.hideable,
        np.maximum(np.log1p(numbers.counts), 0.1) * np.maximum(1, sums.leaves),
        numbers.counts,
        rules.minimum_frequency or 0,
    )
    pattern = audited(problem, seconds)
    treated.method = "suppress"
    treated.audit = {"passed": True, "pattern": pattern.method}
    return unsafe.rows, pattern.suppressed, unsafe


def audited(problem: Problem, seconds: float) -> Pattern:
    """A safe pattern, of which every width is proven on whole tables where the numbers are counts. Where those are
    narrower than the linear programs say, wider intervals are asked for. Raises Refused where none is found."""
    for _ in range(_ATTEMPTS):
        try:
            pattern = suppress(problem, seconds=seconds)
        except Unprotectable:
            break
        if not problem.safe(pattern.suppressed):
            break
        short = [_short(problem, m, pattern.suppressed) for m in problem.measures]
        if not any(rows.any() for rows in short):
            return pattern
        wider = zip(problem.measures, short, strict=True)
        problem = replace(problem, measures=tuple(replace(m, width=m.width + rows) for m, rows in wider))
    raise Refused(UNSAFE)


def _short(problem: Problem, measure: Measure, suppressed: Flags) -> Flags:
    """Rows of which whole tables do not prove the width that was asked."""
    asked = measure.width
    if not measure.whole or not asked.any():
        return np.zeros(len(asked), bool)
    proven = whole_widths(problem.sums, measure.values, measure.hidden(suppressed), asked, *measure.bounds)
    return np.asarray(proven < asked * (1 - 1e-6) - 1e-6) & (asked > 0)


@dataclass(frozen=True)
class Controlled:
    """A treated table. tables: its cells and, where shown, margins. changed: was any row treated? facts: the number of
    all records as the table shows it, by the name that it has there."""

    tables: dict[str, Sequence[Row]]
    changed: bool
    facts: dict[str, Scalar]


def control_table(
    name: str,
    basis: Basis,
    result: Result,
    codebook: Codebook,
    rules: Rules,
    treated: Treated,
    source: Stream,
    seconds: float,
) -> Controlled:
    """Cells, margins and the number of all records of a table, treated by `rules.method`; every row gets a `status`.

    basis: of the cells, additive. Raises Refused where rows do not say how many records they hold, UsageError where the
    method does not fit.
    """
    kind, by = _additive(basis), basis.by
    cells, margins = list(result.tables[name]), list(result.tables.get(kind.margins, ()))
    shown = cells + margins
    grand = next((i for i, row in enumerate(shown) if i >= len(cells) and all(row[n] is None for n in by)), None)
    if grand is None:
        grand = len(shown)
        shown.append(dict.fromkeys(by) | _grand_total(cells, basis))
        margins.append(shown[grand])
    sums = sums_of_rows(cells, margins, by, codebook)
    numbers = _numbers(shown, basis)
    if rules.method == "suppress":
        rows, changed = _suppressed(shown, sums, numbers, basis, rules, treated, seconds)
    else:
        rows, changed = _disturbed(shown, sums, numbers, basis, rules, treated, source), True
    treated.changed |= changed
    facts: dict[str, Scalar] = {}
    if changed and result.observations in result.facts:
        facts[str(result.observations)] = rows[grand][basis.counts[0]]
    if changed:
        treated.notes.append("What is derived from several cells (tests, shares) is withheld: cells were treated.")
    done: dict[str, Sequence[Row]] = {name: rows[: len(cells)]}
    if kind.margins in result.tables:
        done[kind.margins] = rows[len(cells) : len(cells) + len(result.tables[kind.margins])]
    return Controlled(done, changed, facts)


def _additive(basis: Basis) -> Additive:
    if not isinstance(basis.kind, Additive):
        raise EngineError("disclosure: got rows of another kind; want cells that add up")
    return basis.kind


def _suppressed(
    shown: Sequence[Row],
    sums: Sums,
    numbers: Numbers,
    basis: Basis,
    rules: Rules,
    treated: Treated,
    seconds: float,
) -> tuple[list[dict[str, Scalar]], bool]:
    _, hidden, _ = suppression_of(sums, numbers, rules, treated, seconds)
    treated.count(SUPPRESSED, int(hidden.sum()))
    keep = (*basis.places, *basis.counts, *basis.total)
    over = _over(sums, hidden)
    rows: list[dict[str, Scalar]] = []
    for i, row in enumerate(shown):
        status = SUPPRESSED if hidden[i] else "released"
        kept = basis.places if hidden[i] else keep if over[i] else (*keep, *basis.own) if hidden.any() else tuple(row)
        rows.append({key: value if key in kept else None for key, value in row.items()} | {"status": status})
    return rows, bool(hidden.any())


def _over(sums: Sums, hidden: Flags) -> Flags:
    """Rows that hold records of a suppressed one, (n,). Their other figures (a standard error is a sum of squares) say
    more of it than their total does."""
    below = hidden[: sums.cells].astype(float)
    seen = np.concatenate([below, np.zeros(len(sums) - sums.cells)])
    for equation in sorted(sums.equations, key=lambda e: int(sums.leaves[e.total])):
        seen[equation.total] = max(seen[equation.total], float(max((seen[i] for i in equation.terms), default=0.0)))
    return np.asarray(seen > 0)


def _disturbed(
    shown: Sequence[Row],
    sums: Sums,
    numbers: Numbers,
    basis: Basis,
    rules: Rules,
    treated: Treated,
    source: Stream,
) -> list[dict[str, Scalar]]:
    """Rounded or perturbed rows: all of them, so that nobody sees which were unsafe."""
    unsafe = unsafe_rows(sums, numbers, rules)
    _check_additive(sums, numbers)
    dominated = [rule for rule, rows in unsafe.rules.items() if on_contributors(rule) and rows.any()]
    if dominated:
        raise UsageError(f"method: got {rules.method} for totals that break the {dominated[0]}; want suppress")
    treated.skipped |= unsafe.skipped
    for rule in filter(on_contributors, unsafe.rules):
        treated.ran(rule)
    treated.method = rules.method
    status = "perturbed" if rules.method == "cell-key" else "rounded"
    counts = _disturb(numbers.counts, sums, rules, shown, basis, source, treated)
    if numbers.totals is None:
        totals = None
    elif rules.method == "cell-key":  # as many mean records are added or taken away as in the count
        each = np.divide(
            numbers.totals, numbers.counts, out=np.zeros(len(counts)), where=np.asarray(numbers.counts > 0)
        )
        totals = each * counts
    else:
        totals = _disturb(numbers.totals, sums, rules, shown, basis, source, treated)
    treated.count(status, len(shown))
    rows: list[dict[str, Scalar]] = []
    for i, row in enumerate(shown):
        values: dict[str, Scalar] = {key: row[key] if key in basis.places else None for key in row}
        values[basis.counts[0]] = round(float(counts[i]))
        for total in basis.total:
            values[total] = float(counts[i] if totals is None else totals[i])
        rows.append(values | {"status": status})
    return rows


def _disturb(
    values: Floats, sums: Sums, rules: Rules, shown: Sequence[Row], basis: Basis, source: Stream, treated: Treated
) -> Floats:
    if rules.method == "round":
        return rounding.conventional(values, rules.base)
    if rules.method == "random-round":
        return rounding.random_rounding(values, rules.base, source)
    if rules.method == "controlled-round":
        rounded = rounding.controlled(sums, values, rules.base)
        treated.audit |= {"additive": rounded.additive, "bases": rounded.reach}
        if rounded.reason:
            treated.notes.append(f"Controlled rounding: {rounded.reason}.")
        return rounded.values
    keys = [number(row, _additive(basis).record_key) for row in shown]
    if any(key is None for key in keys):
        raise UsageError("method: got cell-key for rows without keys; want a codebook column of role record-key")
    treated.notes.append("Cells and margins are perturbed by their own keys: they need not add up.")
    table = noise_table(rules.base)
    return table.perturb(values.astype(np.int64), np.array(keys, float)).astype(float)


def _numbers(shown: Sequence[Row], basis: Basis) -> Numbers:
    kind = _additive(basis)
    if len(basis.counts) != 1:
        raise Refused("minimum frequency: want one column with the records of a cell; nothing is released")
    counts = _column(shown, basis.counts[0])
    if counts is None:
        raise Refused("minimum frequency: a row does not say how many records it holds; nothing is released")
    if not kind.total:
        return Numbers(counts)
    totals = _column(shown, kind.total)
    if totals is None:
        raise Refused("minimum frequency: a row does not tell its total; nothing is released")
    if (totals == counts).all():
        return Numbers(counts)
    largest, two_largest = (_column(shown, name) for name in kind.bounds or ("", ""))
    return Numbers(counts, totals, largest, two_largest, _decided(shown, kind))


def _decided(shown: Sequence[Row], kind: Additive) -> Flags | None:
    """What the protection decided on the rows; None where it was not asked."""
    found = [row.get(kind.decided) for row in shown]
    if all(verdict is None for verdict in found):
        return None
    if not all(isinstance(verdict, bool) for verdict in found):
        raise EngineError("dominance: got a verdict of the compute nodes on some rows only; nothing is released")
    return np.array(found, bool)


def _column(shown: Sequence[Row], name: str) -> Floats | None:
    found = [number(row, name) for row in shown]
    return None if any(value is None for value in found) else np.array(found, float)


def _check_additive(sums: Sums, numbers: Numbers) -> None:
    for values in (numbers.counts, numbers.totals):
        if values is not None and sums.residual(values) > _ADDITIVE:
            raise EngineError("audit: got margins that are not the sums of their cells; want sums, or no margins")


def _grand_total(cells: Sequence[Row], basis: Basis) -> dict[str, Any]:
    """A margin over everything, where the analysis shows none: facts and holders' registers give it away."""
    kind = _additive(basis)
    summed = (*basis.counts, *basis.total, *kind.bounds)  # sums of bounds are bounds
    columns = [key for key in summed if any(number(row, key) is not None for row in cells)]
    total: dict[str, Any] = {key: sum(number(row, key) or 0.0 for row in cells) for key in columns}
    keys = [number(row, kind.record_key) for row in cells]
    if keys and all(key is not None for key in keys):
        total[kind.record_key] = float(np.mod(np.sum(np.array(keys, float)), 1.0))
    return total
