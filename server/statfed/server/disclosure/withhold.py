"""Rows of estimates, each from a number of records: withheld where those are too few.

Rows that break one total down (domains, the bins of a histogram) are treated as a table of their counts: where a total
is shown, a row alone could be got by subtraction, so that a further one is withheld with it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.server.disclosure.boxes import Box
from statfed.server.disclosure.history import Beside, coordinates, ends_of, name_of
from statfed.server.disclosure.primary import DOMINANCE, P_PERCENT, Numbers, minimum_frequency
from statfed.server.disclosure.protect import protect
from statfed.server.disclosure.sums import Flags, Floats, Sum, Sums, published_sums, sums_of_rows
from statfed.server.disclosure.tabular import SUPPRESSED, Treated, figure_of, number


def blank(row: Row, basis: Basis) -> dict[str, Scalar]:
    """The row without anything that was computed from records."""
    return {key: value if key in basis.places else None for key, value in row.items()} | {basis.state: SUPPRESSED}


def control_rows(
    name: str,
    rows: Sequence[Row],
    basis: Basis,
    result: Result,
    codebook: Codebook,
    rules: Rules,
    treated: Treated,
    seconds: float,
    beside: Beside | None = None,
) -> list[Row]:
    """The rows of one table of estimates, each with a `status`: released, or suppressed with nothing but its name."""
    by = [column for column in basis.by if any(column in row for row in rows)]
    for rule, parameter in ((DOMINANCE, rules.dominance_k), (P_PERCENT, rules.p_percent)):
        if parameter is not None:
            treated.skipped[rule] = "the contributions behind the estimates are not known"
    frequent = rules.model_copy(update={"zeros": "allow", "full_cells": "allow"})
    told = [[number(row, name) for name in basis.counts] for row in rows]
    withheld = np.array([None in numbers for numbers in told], bool)
    treated.count(SUPPRESSED, int(withheld.sum()))
    boxes = _boxes(rows, told, by, basis, beside) if beside else []
    wide: dict[int, dict[str, Any]] = {}
    groups: dict[tuple[Scalar, ...], list[int]] = {}
    for i, row in enumerate(rows):
        if not withheld[i]:
            groups.setdefault(tuple(row.get(key) for key in basis.keys), []).append(i)
    for places in groups.values():
        group = [rows[i] for i in places]
        all_counts = np.array([told[i] for i in places], float)
        hidden = np.zeros(len(group), bool)
        for j, each in enumerate(all_counts.T):
            unsafe = minimum_frequency(each, rules.minimum_frequency or 0)
            if j and not (unsafe & ~hidden).any():
                continue
            sums, counts, order = _structure(group, each, by, codebook, result.facts)
            numbers, mine = Numbers(counts), None if j else beside
            ordered = [boxes[places[i]] for i in order] if mine else []
            if mine and len(counts) > len(group):
                ordered.append(_whole(group, by, basis, mine))
            found = protect(sums, numbers, frequent if j else rules, seconds, mine, ordered)
            treated.suppressed_by(found)
            hidden[order] |= found.suppressed[: len(group)]
            treated.hides_total |= bool(found.suppressed[len(group) :].any())
            if mine:
                wide |= {places[i]: figure_of(found, numbers, k) for k, i in enumerate(order)}
        treated.count(SUPPRESSED, int(hidden.sum()))
        withheld[places] = hidden
    if basis.flows:
        more = _between(rows, withheld, basis, rules.minimum_frequency)
        treated.count(SUPPRESSED, int((more & ~withheld).sum()))
        withheld = more
    for i, figure in wide.items():
        if beside:
            beside.remember(boxes[i], {"hidden": True} | figure if withheld[i] and not figure["hidden"] else figure)
    if withheld.any():
        treated.notes.append(f"{name}: rows from too few records, and rows that would give them away, are suppressed.")
    return [blank(row, basis) if withheld[i] else {**row, basis.state: "released"} for i, row in enumerate(rows)]


def _boxes(
    rows: Sequence[Row], told: Sequence[Sequence[float | None]], by: Sequence[str], basis: Basis, beside: Beside
) -> list[Box]:
    """Which records each row is of. Rows of one box that tell different numbers of records are of parts of it."""
    ends, codebook = ends_of(rows, basis), beside.asked.codebook
    boxes = [beside.box(row, basis, coordinates(row, by, codebook), ends) for row in rows]
    names = [name_of(box) for box in boxes]
    numbers: dict[str, set[float | None]] = {}
    for name, counts in zip(names, told, strict=True):
        numbers.setdefault(name, set()).add(counts[0])
    parts = [bool(basis.flows) or len(numbers[name]) > 1 for name in names]
    return [beside.apart(b, row, basis) if part else b for b, row, part in zip(boxes, rows, parts, strict=True)]


def _whole(group: Sequence[Row], by: Sequence[str], basis: Basis, beside: Beside) -> Box:
    """The records of the total that a fact states of a group of rows."""
    row = {key: value for key, value in group[0].items() if key in basis.keys} | dict.fromkeys(by)
    box = beside.box(row, basis, coordinates(row, by, beside.asked.codebook), ends_of(group, basis))
    return box if by and not basis.flows else beside.apart(box, row, basis)


def _between(rows: Sequence[Row], withheld: Flags, basis: Basis, minimum: int | None) -> Flags:
    """`withheld` and further rows, so that those withheld between two that are shown stand for no records or for enough
    in each of `flows`: what is shown before and after gives their sum away."""
    withheld = withheld.copy()
    sequences: dict[tuple[Scalar, ...], list[int]] = {}
    for i, row in enumerate(rows):
        sequences.setdefault(tuple(row.get(column) for column in basis.by), []).append(i)
    for places in sequences.values():
        start = 0
        while minimum is not None and start < len(places):
            end = start
            while end < len(places) and withheld[places[end]]:
                end += 1
            sums = [sum(number(rows[i], flow) or 0.0 for i in places[start:end]) for flow in basis.flows]
            before = [i for i in places[:start] if not withheld[i]]
            if not any(0 < n < minimum for n in sums) or (end == len(places) and not before):
                start = end + 1
            elif end < len(places):
                withheld[places[end]] = True
            else:
                withheld[before[-1]] = True
                start = 0
    return withheld


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
