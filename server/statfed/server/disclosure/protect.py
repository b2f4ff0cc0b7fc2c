"""The pattern of one table: which rows are suppressed, beside everything that was published before.

Four attackers are kept out, see `suppression.Measure`:

1. of the counts, who knows that they are whole and not negative, and everything published;
2. of the counts of this table, who has besides been told the minimum frequency and which of its rows break it. Whoever
   only guesses the threshold, or which rows break it, knows less than this one;
3. of the totals, who knows everything published of the same value;
4. of what was hidden in earlier releases: its interval stays at least half as wide as it was when it was hidden.

Unsafe are, besides the rows of the table, the records between two boxes one of which lies within the other, where they
are few: a filter, a shifted limit or a missing value sets them apart. They are a row of the system, and hidden by what
hides one of the two. So is every cell of the joint cross-classification that would be known exactly, where it is small.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from statfed.core.disclosure import Rules
from statfed.core.errors import EngineError, Refused
from statfed.server.disclosure.audit import Attacker, whole_widths
from statfed.server.disclosure.boxes import Box
from statfed.server.disclosure.history import Beside, name_of, of_parts
from statfed.server.disclosure.joint import CONTRADICTION, TOO_LARGE, Figure, Joint, agreeing, joint
from statfed.server.disclosure.primary import Numbers, Unsafe, unsafe_rows
from statfed.server.disclosure.sums import Flags, Floats, Sums
from statfed.server.disclosure.suppression import Measure, Pattern, Problem, Unprotectable, suppress

UNSAFE = "release: this result cannot be shown beside what is public of it; nothing is released"
_ATTEMPTS = 4
_ADDITIVE = 1e-6
_ROUNDED = 1e-5
_SECONDS = 60.0


@dataclass(frozen=True)
class Protected:
    """suppressed: rows of the table, (n,). pattern: how it was found. wide, wide_total: of the suppressed rows, how
    wide the attackers' intervals of counts and totals are, from what is published alone; infinite where nothing bounds
    them, nan in other rows."""

    suppressed: Flags
    unsafe: Unsafe
    pattern: str
    wide: Floats
    wide_total: Floats


def protect(
    sums: Sums,
    numbers: Numbers,
    rules: Rules,
    seconds: float,
    beside: Beside | None = None,
    boxes: Sequence[Box] = (),
) -> Protected:
    """The rows that may not be shown. boxes: of the rows, where there is something `beside` them. Raises Refused where
    what is unsafe cannot be hidden any more, or that cannot be found out in time."""
    check_additive(sums, numbers)
    unsafe = unsafe_rows(sums, numbers, rules)
    n = len(sums)
    same = [beside.of(box) if beside else None for box in boxes] or [None] * n
    counts_known = np.array([one is not None and one.count is not None for one in same], bool)
    if any(one is not None and one.count not in (None, numbers.counts[i]) for i, one in enumerate(same)):
        raise Refused(CONTRADICTION)
    forced = np.array([one is not None and (one.hidden or one.hidden_total) for one in same], bool)
    valued = bool(beside and beside.asked.values)
    shown = np.array([one is not None and one.count is not None and (one.told or not valued) for one in same], bool)
    forced &= ~shown
    if (unsafe.rows & shown).any():
        raise Refused(UNSAFE)
    nothing = np.full(n, np.nan)
    if beside and n and (forced | shown).all() and not (unsafe.rows & ~forced).any():
        return Protected(forced, unsafe, "as before", nothing, nothing)
    names = {name_of(box) for box in boxes}
    others = [figure for name, figure in beside.figures.items() if name not in names] if beside else []
    others = [] if any(map(of_parts, boxes)) else [figure for figure in others if not of_parts(figure.box)]
    problem, system = _problem(sums, numbers, rules, unsafe, forced, shown, counts_known, same, boxes, others, beside)
    pattern = audited(problem, seconds, system, rules.minimum_frequency or 0)
    hidden = pattern.suppressed[:n]
    if not beside:
        return Protected(hidden, unsafe, pattern.method, nothing, nothing)
    wide = _widths(problem, problem.measures[0], pattern.suppressed, hidden)
    if numbers.totals is None:
        return Protected(hidden, unsafe, pattern.method, wide, nothing)
    wide_total = _widths(problem, problem.measures[-1], pattern.suppressed, hidden)
    return Protected(hidden, unsafe, pattern.method, wide, wide_total)


def check_additive(sums: Sums, numbers: Numbers) -> None:
    """Raises EngineError where margins are not the sums of their cells."""
    for values in (numbers.counts, numbers.totals):
        if values is not None and sums.residual(values) > _ADDITIVE:
            raise EngineError("audit: got margins that are not the sums of their cells; want sums, or no margins")


def _problem(
    sums: Sums,
    numbers: Numbers,
    rules: Rules,
    unsafe: Unsafe,
    forced: Flags,
    shown: Flags,
    known: Flags,
    same: Sequence[Figure | None],
    boxes: Sequence[Box],
    others: Sequence[Figure],
    beside: Beside | None,
) -> tuple[Problem, Joint]:
    """What to protect, in the system of the table and, where there are any, of earlier figures."""
    fewest = rules.minimum_frequency or 0
    if others and beside:
        system, counts = joint(sums, boxes, numbers.counts, others, beside.asked.codebook, fewest)
    else:
        system, counts = Joint(sums, len(sums), (), ()), numbers.counts
    figures = system.figures
    size = len(system.sums)
    free = system.padded(np.zeros(len(sums)), 1.0, 1.0, 1.0) > 0
    pinned = system.padded(known.astype(float), _flags([f.count is not None for f in figures]), 0.0, 0.0) > 0
    was = np.array([_asked(one.wide) if one is not None and one.hidden else 0.0 for one in same])
    width = np.where(known, 0.0, np.maximum(unsafe.count_width, was))
    hidden_before = np.array([_asked(f.wide) if f.hidden else 0.0 for f in figures])
    apart = np.array([max(1.0, rules.interval * d) for d in system.differences])
    asked = system.padded(width, hidden_before, apart, 0.0)
    none, unbounded = np.zeros(size), np.full(size, np.inf)
    low, high = np.where(pinned, counts, none), np.where(pinned, counts, unbounded)
    measures = [Measure(counts, asked, low, high, whole=True, free=free)]
    if unsafe.told_width.any():
        told = system.padded(np.where(known, 0.0, unsafe.told_width), 0.0, np.minimum(apart, 1.0), 0.0)
        least = np.maximum(low, system.padded(unsafe.told[0], 0.0, 0.0, 0.0))
        most = np.minimum(high, system.padded(unsafe.told[1], np.inf, np.inf, np.inf))
        measures.append(Measure(counts, told, least, most, whole=True, free=free))
    measures += _totals(system, numbers, rules, unsafe, same, free, beside)
    primary = system.padded((unsafe.rows | forced).astype(float), 0.0, 0.0, 0.0) > 0
    eligible = system.padded((unsafe.hideable & ~shown).astype(float), 0.0, 0.0, 0.0) > 0
    cost = np.maximum(np.log1p(numbers.counts), 0.1) * np.maximum(1, sums.leaves)
    problem = Problem(
        system.sums, tuple(measures), primary, eligible, system.padded(cost, 0.0, 0.0, 0.0), counts, fewest
    )
    return problem, system


def _totals(
    system: Joint,
    numbers: Numbers,
    rules: Rules,
    unsafe: Unsafe,
    same: Sequence[Figure | None],
    free: Flags,
    beside: Beside | None,
) -> list[Measure]:
    """The measure of the totals: none in a table of counts, unless totals of the same value were hidden before."""
    figures, totals = system.figures, numbers.totals
    if totals is None and not any(f.hidden_total for f in figures):
        return []
    before = np.array([np.nan if f.total is None else f.total for f in figures])
    mine = np.full(system.table, np.nan) if totals is None else totals
    if not figures and totals is not None:
        return [Measure(totals, unsafe.total_width)]
    nonnegative = beside is not None and beside.asked.nonnegative
    values = agreeing(system.sums, np.concatenate([mine, before]), 0.0 if nonnegative else -np.inf, _ROUNDED)
    if values is None:
        raise Refused(CONTRADICTION)
    told = [one is not None and one.told for one in same]
    pinned = system.padded(_flags(told), _flags([f.told for f in figures]), 0.0, 0.0) > 0
    first = system.table + len(figures)
    sizes = np.abs(values[system.table : first])
    hidden_before = np.array(
        [
            (rules.interval * sizes[i] if f.wide_total is None else f.wide_total) / 2 if f.hidden_total else 0.0
            for i, f in enumerate(figures)
        ]
    )
    apart = rules.interval * np.abs(values[first : first + len(system.differences)])
    table = unsafe.total_width if totals is not None else np.zeros(system.table)
    width = np.where(pinned, 0.0, system.padded(table, hidden_before, apart if totals is not None else 0.0, 0.0))
    low = np.where(pinned, values, 0.0 if nonnegative else -np.inf)
    return [Measure(values, width, low, np.where(pinned, values, np.inf), free=free)]


def _flags(found: Sequence[bool]) -> Floats:
    return np.array(found, float)


def _asked(wide: float | None) -> float:
    """Width that an earlier hidden count keeps: half of what it was, and one record at least."""
    return 1.0 if wide is None else max(1.0, np.floor(wide / 2))


def audited(problem: Problem, seconds: float, system: Joint | None = None, fewest: int = 0) -> Pattern:
    """A safe pattern, of which every width is proven on whole tables where the numbers are counts. Where those are
    narrower than the linear programs say, wider intervals are asked for, and where a small cell of the system is known,
    an interval of it. The best pattern is looked for where a table stands alone, beside others the heuristic's is
    taken. Raises Refused where none is found."""
    for attempt in range(_ATTEMPTS):
        alone = attempt == 0 and (system is None or not system.figures)
        try:
            pattern = suppress(problem, seconds=seconds) if alone else suppress(problem, exact_rows=0)
        except Unprotectable:
            break
        if not problem.safe(pattern.suppressed):
            break
        short = [_short(problem, m, pattern.suppressed, system) for m in problem.measures]
        if system is not None and system.figures:
            short[0] = short[0] | _known_cells(problem, pattern.suppressed, system, fewest)
        if not any(rows.any() for rows in short):
            return pattern
        wider = zip(problem.measures, short, strict=True)
        problem = replace(problem, measures=tuple(replace(m, width=m.width + rows) for m, rows in wider))
    raise Refused(UNSAFE)


def _short(problem: Problem, measure: Measure, suppressed: Flags, system: Joint | None) -> Flags:
    """Rows of which whole tables do not prove the width that was asked. Of earlier figures and cells linear programs
    have to do."""
    asked = measure.width.copy()
    if system is not None:
        asked[system.table :] = 0.0
    if not measure.whole or not asked.any():
        return np.zeros(len(asked), bool)
    proven = whole_widths(problem.sums, measure.values, measure.hidden(suppressed), asked, *measure.bounds)
    return np.asarray(proven < asked * (1 - 1e-6) - 1e-6) & (asked > 0)


def _known_cells(problem: Problem, suppressed: Flags, system: Joint, fewest: int) -> Flags:
    """Cells of the system that hold 1 to `fewest` - 1 records and are known exactly.

    A cell that some table sees otherwise is not known, so that few programs decide on many.
    """
    measure = problem.measures[0]
    values, n = measure.values, len(problem.sums)
    start = system.table + len(system.figures) + len(system.differences)
    attacker = Attacker(problem.sums, values, measure.hidden(suppressed), *measure.bounds)
    found, deadline = np.zeros(n, bool), time.monotonic() + _SECONDS
    for row in range(start, n):
        if not 0.5 < values[row] < fewest - 0.5 or not float(values[row] + 1e-6) % 1 < 2e-6:
            continue
        if time.monotonic() > deadline:
            raise Refused(TOO_LARGE)
        found[row] = attacker.width(row, 0.5) < 0.5
    return found


def _widths(problem: Problem, measure: Measure, suppressed: Flags, rows: Flags) -> Floats:
    """Widths of the intervals of suppressed rows of the table, from what is published alone; nan in other rows."""
    found = np.full(len(rows), np.nan)
    if not rows.any():
        return found
    attacker = Attacker(problem.sums, measure.values, measure.hidden(suppressed), *measure.bounds)
    deadline = time.monotonic() + _SECONDS / 6
    for row in np.flatnonzero(rows):
        late = time.monotonic() > deadline  # what other rows' programs have reached is a width all the same
        found[row] = attacker.width(int(row), 0.0 if late else np.inf)
    return found
