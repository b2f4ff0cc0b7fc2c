"""Tables of cells and margins: suppression with its audit, rounding or cell-key noise.

What is derived from several rows (chi-square, shares) would allow to solve for hidden ones, so it is withheld as soon
as any row of the table is treated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.privacy.cell_key import noise_table, perturbed_totals
from statfed.core.randomness import Stream
from statfed.core.result import Additive, Basis, Result, Row, Scalar
from statfed.server.disclosure import rounding
from statfed.server.disclosure.boxes import Box
from statfed.server.disclosure.history import Beside, ends_of
from statfed.server.disclosure.primary import Numbers, on_contributors, unsafe_rows
from statfed.server.disclosure.protect import Protected, check_additive, protect
from statfed.server.disclosure.sums import Flags, Floats, Sums, sums_of_rows

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

    def suppressed_by(self, found: Protected) -> None:
        """Record that a pattern was found and passed its audit, and by which rules."""
        for rule in found.unsafe.rules:
            self.ran(rule)
        self.skipped = found.unsafe.skipped | self.skipped
        self.method = "suppress"
        self.audit = {"passed": True, "pattern": found.pattern}

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
    beside: Beside | None = None,
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
    boxes: list[Box] = []
    if beside:
        beside.check_treatment()
        ends = ends_of(shown, basis)
        keyed = [dict(zip(by, key, strict=True)) for key in sums.keys]
        boxes = [beside.box(row, basis, keys, ends) for row, keys in zip(shown, keyed, strict=True)]
    if rules.method == "suppress":
        rows, changed = _suppressed(shown, sums, numbers, basis, rules, treated, seconds, beside, boxes)
    else:
        rows, changed = _disturbed(shown, sums, numbers, basis, rules, treated, source, beside), True
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
    beside: Beside | None,
    boxes: Sequence[Box],
) -> tuple[list[dict[str, Scalar]], bool]:
    found = protect(sums, numbers, rules, seconds, beside, boxes)
    treated.suppressed_by(found)
    hidden = found.suppressed
    for i, box in enumerate(boxes):
        if beside:
            beside.remember(box, figure_of(found, numbers, i))
    treated.count(SUPPRESSED, int(hidden.sum()))
    keep = (*basis.places, *basis.counts, *basis.total)
    over = _over(sums, hidden)
    rows: list[dict[str, Scalar]] = []
    for i, row in enumerate(shown):
        status = SUPPRESSED if hidden[i] else "released"
        kept = basis.places if hidden[i] else keep if over[i] else (*keep, *basis.own) if hidden.any() else tuple(row)
        rows.append({key: value if key in kept else None for key, value in row.items()} | {basis.state: status})
    return rows, bool(hidden.any())


def figure_of(found: Protected, numbers: Numbers, row: int, valued: bool = True) -> dict[str, Any]:
    """What the memory keeps of a row: its figures where it is shown, else how wide the intervals of them are."""

    def width(wide: Floats) -> float | None:
        return float(wide[row]) if np.isfinite(wide[row]) else None

    if found.suppressed[row]:
        return {"hidden": True, "wide": width(found.wide), "wide_total": width(found.wide_total)}
    shown: dict[str, Any] = {"hidden": False, "count": float(numbers.counts[row])}
    return shown | ({"total": float(numbers.totals[row])} if valued and numbers.totals is not None else {})


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
    beside: Beside | None,
) -> list[dict[str, Scalar]]:
    """Rounded or perturbed rows: all of them, so that nobody sees which were unsafe."""
    unsafe = unsafe_rows(sums, numbers, rules)
    check_additive(sums, numbers)
    dominated = [rule for rule, rows in unsafe.rules.items() if on_contributors(rule) and rows.any()]
    if dominated:
        raise UsageError(f"method: got {rules.method} for totals that break the {dominated[0]}; want suppress")
    treated.skipped |= unsafe.skipped
    for rule in filter(on_contributors, unsafe.rules):
        treated.ran(rule)
    treated.method = rules.method
    status = "perturbed" if rules.method == "cell-key" else "rounded"
    counts, totals = _disturb(numbers, sums, rules, shown, basis, source, treated, beside)
    treated.count(status, len(shown))
    rows: list[dict[str, Scalar]] = []
    for i, row in enumerate(shown):
        values: dict[str, Scalar] = {key: row[key] if key in basis.places else None for key in row}
        values[basis.counts[0]] = round(float(counts[i]))
        for total in basis.total:
            values[total] = float(counts[i] if totals is None else totals[i])
        rows.append(values | {basis.state: status})
    return rows


def _disturb(
    numbers: Numbers,
    sums: Sums,
    rules: Rules,
    shown: Sequence[Row],
    basis: Basis,
    source: Stream,
    treated: Treated,
    beside: Beside | None,
) -> tuple[Floats, Floats | None]:
    """Counts and totals, rounded or perturbed."""
    if rules.method == "cell-key":
        return _perturbed(numbers, rules, shown, basis, treated)
    found: list[Floats] = []
    for what, values in (("count", numbers.counts), ("total", numbers.totals)):
        if values is None:
            continue
        if rules.method == "round":
            found.append(rounding.conventional(values, rules.base))
        elif rules.method == "random-round":
            draws = None
            if beside:
                draws = np.array([beside.uniform(what, float(value)) for value in values])
            found.append(rounding.random_rounding(values, rules.base, source, draws))
        else:
            rounded = rounding.controlled(sums, values, rules.base)
            treated.audit |= {"additive": rounded.additive, "bases": rounded.reach}
            if rounded.reason:
                treated.notes.append(f"Controlled rounding: {rounded.reason}.")
            found.append(rounded.values)
    return found[0], found[1] if len(found) > 1 else None


def _perturbed(
    numbers: Numbers, rules: Rules, shown: Sequence[Row], basis: Basis, treated: Treated
) -> tuple[Floats, Floats | None]:
    given = [number(row, _additive(basis).record_key) for row in shown]
    if any(key is None for key in given):
        raise UsageError("method: got cell-key for rows without keys; want a codebook column of role record-key")
    treated.notes.append("Cells and margins are perturbed by their own keys: they need not add up.")
    table, keys, counts = noise_table(rules.base), np.array(given, float), numbers.counts.astype(np.int64)
    totals = numbers.totals
    if totals is not None:
        totals = perturbed_totals(totals, counts, keys, table, numbers.largest)
        treated.notes.append("Totals are perturbed by themselves: divided by counts they give no exact mean.")
    return table.perturb(counts, keys).astype(float), totals


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
