"""Rows of estimates, each from a number of records: withheld where those are too few.

Rows that break one total down (domains, the bins of a histogram) are treated as a table of their counts: where a total
is shown, a row alone could be got by subtraction, so that a further one is withheld with it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.result import Result, Row, Scalar
from statfed.server.disclosure.primary import DOMINANCE, P_PERCENT, Numbers
from statfed.server.disclosure.sums import Floats, Sum, Sums, published_sums, sums_of_rows
from statfed.server.disclosure.tabular import Treated, number, suppression_of

OBSERVATIONS = ("count", "at_risk", "observations", "records")
"""Columns that may say how many records are behind a row."""
PLACES = ("time", "probability", "low", "high", "start", "end", "left", "right", "bin", "interval", "level")
"""Numbers that say which row it is; they follow from the question and not from the data."""
_DERIVED = ("quality",)


def observations(facts: Mapping[str, Scalar]) -> float | None:
    """How many records a result is from, if its facts say so."""
    return number(facts, "observations", "records", "count")


def blank(row: Row, by: Sequence[str]) -> dict[str, Scalar]:
    """The row without anything that was computed from records."""
    kept = {key for key, value in row.items() if key in by or key in PLACES or isinstance(value, str)}
    kept -= set(_DERIVED)
    return {key: value if key in kept else None for key, value in row.items()} | {"status": "withheld"}


def control_rows(
    name: str, rows: Sequence[Row], result: Result, codebook: Codebook, rules: Rules, treated: Treated, seconds: float
) -> list[Row]:
    """The rows of one table of estimates, each with a `status`: released, or withheld with nothing but its name."""
    by = [column for column in result.by if any(column in row for row in rows)]
    for rule, parameter in ((DOMINANCE, rules.dominance_k), (P_PERCENT, rules.p_percent)):
        if parameter is not None:
            treated.skipped[rule] = "the contributions behind the estimates are not known"
    withheld = np.zeros(len(rows), bool)
    groups: dict[tuple[Scalar, ...], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(_same(row, by), []).append(i)
    for places in groups.values():
        group = [rows[i] for i in places]
        if all(_records(row) is None for row in group):
            withheld[places] = True
            continue
        counts = np.array([_records(row) or 0.0 for row in group])
        sums, counts, order = _structure(group, counts, by, codebook, result.facts)
        primary, hidden, _ = suppression_of(sums, Numbers(counts), rules, treated, seconds)
        treated.count("withheld", int(hidden[: len(group)].sum()))
        treated.count("withheld for others", int((hidden & ~primary)[: len(group)].sum()))
        treated.hides_total |= bool(hidden[len(group) :].any())
        withheld[[places[j] for j in order]] = hidden[: len(group)]
    if withheld.any():
        treated.notes.append(f"{name}: rows from too few records, and rows that would give them away, are withheld.")
    return [blank(row, by) if withheld[i] else {**row, "status": "released"} for i, row in enumerate(rows)]


def _records(row: Row) -> float | None:
    """Records behind a row; where it compares groups (count_1, count_2), those of the smallest."""
    groups = [number(row, key) for key in row if key.startswith("count_")]
    return min((n for n in (number(row, *OBSERVATIONS), *groups) if n is not None), default=None)


def _same(row: Row, by: Sequence[str]) -> tuple[Scalar, ...]:
    """What rows of one breakdown have in common: they differ in `by`, or in a domain, a group or a bin."""
    told = ("column", "name", "name_1", "name_2", "statistic", "curve", "test", "component")
    places = ("time", "probability") if by else ()
    return tuple(row.get(key) for key in (*told, *places))


def _structure(
    group: Sequence[Row], counts: Floats, by: Sequence[str], codebook: Codebook, facts: Mapping[str, Scalar]
) -> tuple[Sums, Floats, list[int]]:
    """Equations between the rows, a shown total among them; the counts, and the order of the rows in both.

    Rows that are not additive (a person in two domains) have no equations between them.
    """
    keys = [tuple(row.get(column) for column in by) for row in group]
    margins = [i for i, key in enumerate(keys) if None in key or _above(key, by, codebook)]
    if not by or len(set(keys)) < len(keys):
        margins = []
    cells = [i for i in range(len(group)) if i not in margins]
    order = cells + margins
    ordered = counts[order]
    total = ordered[: len(cells)].sum()
    shown = any(keys[i] == (None,) * len(by) for i in margins)
    stated = not shown and len(group) > 1 and any(number(facts, key) == total for key in facts)
    if by and len(set(keys)) == len(keys):
        extra: list[Row] = [dict.fromkeys(by)] if stated else []
        sums = sums_of_rows([group[i] for i in cells], [*(group[i] for i in margins), *extra], by, codebook)
    else:
        sums = published_sums([(str(i),) for i in order], [(Sum(None),)] if stated else [], [{}])
    ordered = np.append(ordered, total) if stated else ordered
    if sums.residual(ordered) > 1e-6:
        sums = published_sums([(str(i),) for i in range(len(ordered))], [], [{}])
    return sums, ordered, order


def _above(key: Sequence[Scalar], by: Sequence[str], codebook: Codebook) -> bool:
    """Is a code of the row one that is only a parent of others?"""
    for value, name in zip(key, by, strict=True):
        column = codebook.columns.get(name)
        if column and value in set(column.parents.values()) - set(column.levels):
            return True
    return False
