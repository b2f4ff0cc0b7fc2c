"""Which rows of a table are unsafe by themselves, by each rule, and how wide an interval each of them needs.

Dominance rules need the contributions behind a total. Where only upper bounds on them are known (the analysis `table`
sends power sums, which add up over holders), a row is safe only if it is so for every set of contributions within the
bounds: no unsafe row is released, some safe ones are not. Where a protection decided the rules on the contributions
themselves, its verdict stands, one for both rules.
Source: Hundepool et al. 2012, sections 4.2 and 5.2 to 5.4.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from statfed.core.disclosure import Rules
from statfed.server.disclosure.sums import Flags, Floats, Sums

FREQUENCY, DOMINANCE, P_PERCENT, ZEROS, FULL = "minimum frequency", "(n,k) dominance", "p% rule", "zeros", "full cells"
DECIDED = "decided by the compute nodes"


@dataclass(frozen=True)
class Numbers:
    """What rules look at, one entry per row, (n,): private.

    counts: records. totals: sums of a value over them, None in a table of counts. largest, two_largest: upper bounds
    on the largest contribution to each total and on the two largest together, in absolute value; None if not known.
    decided: rows that break a dominance rule, as the protection decided; None where it did not.
    """

    counts: Floats
    totals: Floats | None = None
    largest: Floats | None = None
    two_largest: Floats | None = None
    decided: Flags | None = None


@dataclass(frozen=True)
class Unsafe:
    """rules: rule to unsafe rows, (n,). skipped: rule to why it could not be evaluated.

    count_width, total_width: widths asked of the feasible intervals, (n,), 0 where nothing is asked. told_width: of the
    counts against an attacker who has been told the minimum frequency and which rows break it, so that each of these is
    within `told` (low and high, (n,)) beforehand. hideable: rows that may be suppressed besides, (n,): empty cells are
    not, unless that is what hides a full one.
    """

    rules: Mapping[str, Flags]
    skipped: dict[str, str]
    count_width: Floats
    total_width: Floats
    told_width: Floats
    told: tuple[Floats, Floats]
    hideable: Flags

    @property
    def rows(self) -> Flags:
        return _any(self.rules, len(self.hideable))


def minimum_frequency(counts: Floats, fewest: int) -> Flags:
    """Rows with records, but too few."""
    return (counts > 0) & (counts < fewest)


def dominance(totals: Floats, largest: Floats, two_largest: Floats, n: int, k: float) -> Flags:
    """Rows of which the n largest contributors may have more than k %.

    The third and later contributions are at most half of what bounds the two largest.
    """
    each = np.minimum(largest, two_largest)
    first = each if n == 1 else np.minimum(n * each, two_largest + (n - 2) * np.minimum(each, two_largest / 2))
    return np.asarray(first > np.abs(totals) * k / 100)


def p_percent(totals: Floats, largest: Floats, two_largest: Floats, p: float) -> Flags:
    """Rows where the second largest contributor may know the largest one to within p %."""
    return _p_need(totals, largest, two_largest, p) > 0


def _p_need(totals: Floats, largest: Floats, two_largest: Floats, p: float) -> Floats:
    """How much wider the remainder would have to be: p % of the largest contribution less all but the two largest."""
    each = np.minimum(largest, two_largest)
    return np.asarray(p / 100 * each - np.maximum(0.0, np.abs(totals) - two_largest))


def told_bounds(counts: Floats, fewest: int, zeros_shown: bool) -> tuple[Floats, Floats]:
    """What somebody knows of counts who is told the minimum frequency and which rows break it, (n,) each.

    Rows that break it hold 1 to fewest - 1 records. Others that are hidden hold `fewest` or more where empty rows are
    always shown, and any number where they may be hidden too.
    """
    few = minimum_frequency(counts, fewest)
    least = np.where(few, 1.0, np.where((counts > 0) & zeros_shown, np.minimum(counts, float(fewest)), 0.0))
    return least, np.where(few, fewest - 1.0, np.inf)


def told_width(counts: Floats, fewest: int, interval: float) -> Floats:
    """Width asked of counts against that attacker, (n,).

    What he is told leaves a width of fewest - 2. Half of that has to remain, or what is asked against everybody where
    that is less; of a table with fewest = 2 the rule itself tells, and nothing can be asked.
    """
    left = min(max(1.0, (fewest - 2) / 2), max(0.0, fewest - 2.0))
    few = minimum_frequency(counts, fewest)
    return np.where(few, np.minimum(np.maximum(1.0, interval * counts), np.floor(left)), 0.0)


def on_contributors(rule: str) -> bool:
    """Does a rule look at the contributions behind a total?"""
    return rule.startswith((DOMINANCE, P_PERCENT))


def full_cells(sums: Sums, counts: Floats) -> tuple[Flags, Flags]:
    """Rows that hold all records of a sum they belong to, and the empty rows beside them, that would show it."""
    full, beside = np.zeros(len(sums), bool), np.zeros(len(sums), bool)
    for equation in sums.equations:
        terms = list(equation.terms)
        holding = [i for i in terms if counts[i] > 0]
        if len(terms) > 1 and len(holding) == 1:
            full[holding] = True
            beside[[i for i in terms if counts[i] == 0]] = True
    return full, beside


def _any(found: Mapping[str, Flags], n: int) -> Flags:
    return np.asarray(np.logical_or.reduce([np.zeros(n, bool), *found.values()]))


def unsafe_rows(sums: Sums, numbers: Numbers, rules: Rules) -> Unsafe:
    """All rules on all rows, margins included."""
    counts, totals = numbers.counts, numbers.totals
    found: dict[str, Flags] = {}
    skipped: dict[str, str] = {}
    hideable = counts > 0
    if rules.minimum_frequency is not None:
        found[FREQUENCY] = minimum_frequency(counts, rules.minimum_frequency)
    if rules.zeros == "protect":
        found[ZEROS] = counts == 0
    if rules.full_cells == "protect":
        found[FULL], beside = full_cells(sums, counts)
        hideable |= beside
    few = _any(found, len(sums))
    need = np.zeros(len(sums))
    asked = {DOMINANCE: rules.dominance_k, P_PERCENT: rules.p_percent}
    if totals is not None and numbers.decided is not None and any(asked.values()):
        found[f"{' or '.join(rule for rule, given in asked.items() if given)}, {DECIDED}"] = numbers.decided
        need = (rules.p_percent or 0.0) / 100 * np.abs(totals)  # no contribution is larger than the total
        asked = {}
    for rule, parameter in asked.items():
        if parameter is None:
            continue
        if totals is None:
            skipped[rule] = "a table of counts has no contributions"
        elif numbers.largest is None or numbers.two_largest is None:
            skipped[rule] = "the contributions behind the totals are not known"
        elif rule == DOMINANCE:
            found[rule] = dominance(totals, numbers.largest, numbers.two_largest, rules.dominance_n, parameter)
        else:
            found[rule] = p_percent(totals, numbers.largest, numbers.two_largest, parameter)
            need = np.maximum(0.0, _p_need(totals, numbers.largest, numbers.two_largest, parameter))
    count_width = np.where(few, np.maximum(1.0, rules.interval * counts), 0.0)
    total_width = np.zeros(len(sums))
    if totals is not None:
        records = counts[: sums.cells].sum()
        one = np.abs(totals[: sums.cells]).sum() / records if records else 0.0
        anyhow = _any(found, len(sums))
        total_width = np.where(anyhow, np.maximum(np.maximum(one, rules.interval * np.abs(totals)), need), 0.0)
    fewest = rules.minimum_frequency or 1
    told = told_bounds(counts, fewest, rules.zeros == "allow" and rules.full_cells == "allow")
    return Unsafe(found, skipped, count_width, total_width, told_width(counts, fewest, rules.interval), told, hideable)
