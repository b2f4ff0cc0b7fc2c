"""Secondary suppression: which further rows to hide, so that no primary one can be worked out from the rest.

Least information lost subject to every primary row's feasible interval being at least as wide as asked. The heuristic
takes primary rows in turn and finds the cheapest change of the whole table that moves that row by the width asked
while all published rows stay as they are: what changes is suppressed (Kelly, Golden and Assad 1992; Castro 2012). The
exact method is a binary program whose constraints are found one by one from the attacker's programs, improved by the
heuristic at every step (Fischetti and Salazar 2001). Margins may be suppressed too, so there is always a solution.

Beyond the interval of each row, rows that are suppressed together in an equation must stand for enough records, since
the attacker knows their sum; and for that to hold no suppressed row, secondary or not, may be exactly recoverable.

A `Measure` says what the attacker of one number is assumed to know. The same number may be measured twice, under less
and under more knowledge, each with its own width: a pattern is safe if it is so under all. An attacker who knows less
than one of them finds an interval that contains that one's.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import highspy
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, hstack

from statfed.core.errors import EngineError
from statfed.server.disclosure.audit import TOLERANCE, Attacker, known_bounds, linear_program, solver, too_narrow
from statfed.server.disclosure.sums import Equation, Flags, Floats, Sums

_BOTH_DIRECTIONS = 700  # rows up to which the heuristic tries to raise and to lower each primary row
_TIDY_SECONDS = 5.0


class Unprotectable(EngineError):
    """No choice of rows hides the unsafe ones: something that would have to be hidden is known."""


@dataclass(frozen=True)
class Measure:
    """One additive number of the rows (the count, the total) and what the attacker knows of it; (n,) each.

    values; width: asked of the interval of each, 0 where nothing is asked; low, high: bounds known to the attacker, see
    `known_bounds`; whole: are the numbers counts? free: rows that are known to nobody whatever is suppressed, of which
    values are one of many possibilities; by default none.
    """

    values: Floats
    width: Floats
    low: Floats | None = None
    high: Floats | None = None
    whole: bool = False
    free: Flags | None = None

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        if self.low is None or self.high is None:
            return known_bounds(self.values)
        return self.low, self.high

    def hidden(self, suppressed: Flags) -> Flags:
        """What is not known of this number where `suppressed` is the pattern."""
        return suppressed if self.free is None else suppressed | self.free

    def too_narrow(self, sums: Sums, suppressed: Flags, width: Floats) -> Flags:
        return too_narrow(sums, self.values, self.hidden(suppressed), width, *self.bounds)


@dataclass(frozen=True)
class Problem:
    """What to protect and at what price. Arrays are (n,), one entry per row of `sums`.

    primary: rows to suppress in any case. eligible: rows that may be suppressed besides. cost: information lost with
    each. counts, together: suppressed rows of one equation that hold a primary row stand for `together` records.
    """

    sums: Sums
    measures: tuple[Measure, ...]
    primary: Flags
    eligible: Flags
    cost: Floats
    counts: Floats
    together: int = 0

    def price(self, suppressed: Flags) -> float:
        return float(self.cost[suppressed].sum())

    def asked(self, measure: Measure, suppressed: Flags) -> Floats:
        """Width asked of every row, (n,): of a secondary one a single record, in the first measure."""
        if measure is not self.measures[0]:
            return measure.width
        secondary = suppressed & ~self.primary
        return np.where(secondary, np.maximum(measure.width, np.minimum(1.0, np.abs(measure.values))), measure.width)

    def safe(self, suppressed: Flags) -> bool:
        """Does every suppressed row have the width asked, and do suppressed rows stand for enough records?"""
        if (self.primary & ~suppressed).any() or any(_thin(self, suppressed)):
            return False
        return not any(m.too_narrow(self.sums, suppressed, self.asked(m, suppressed)).any() for m in self.measures)


@dataclass(frozen=True)
class Pattern:
    """suppressed: (n,). optimal: is nothing cheaper possible? bound: no safe pattern costs less."""

    suppressed: Flags
    method: str
    optimal: bool
    bound: float


def suppress(problem: Problem, *, exact_rows: int = 800, seconds: float = 10.0) -> Pattern:
    """The cheapest safe pattern found in `seconds`, or, for more than `exact_rows` rows, by the heuristic alone.

    The pattern still has to be audited: nothing here is proof.
    """
    if not problem.primary.any() and problem.safe(problem.primary):
        return Pattern(problem.primary.copy(), "none needed", True, 0.0)
    start = heuristic(problem)
    if len(problem.sums) > exact_rows:
        return Pattern(start, "heuristic", False, problem.price(problem.primary))
    return exact(problem, start, seconds)


def heuristic(problem: Problem, start: Flags | None = None, tidy: float = _TIDY_SECONDS) -> Flags:
    """A safe pattern that contains the primary rows; `start` is free of charge. tidy: seconds to unsuppress in."""
    suppressed = problem.primary | (start if start is not None else False)
    while True:
        for measure in problem.measures:
            suppressed = _protect(problem, measure, suppressed)
        short = next(_thin(problem, suppressed), None)
        if short is None:
            break
        suppressed[min(_addable(problem, suppressed, short), key=lambda i: (problem.cost[i], i))] = True
    return _tidied(problem, suppressed, time.monotonic() + tidy)


def _protect(problem: Problem, measure: Measure, suppressed: Flags) -> Flags:
    """Suppress what the cheapest change of the table moves, for each row of `measure` that needs it."""
    n = len(problem.sums)
    suppressed = suppressed.copy()
    low_end, high_end = measure.bounds
    free = measure.hidden(np.zeros(n, bool))
    highs = solver()
    cost = np.where(suppressed | free, 0.0, problem.cost)
    usable = np.where(problem.eligible | suppressed | free, np.inf, 0.0)
    both = csc_array(hstack([problem.sums.matrix, -problem.sums.matrix]))
    linear_program(highs, both, np.tile(cost, 2), np.zeros(2 * n), np.tile(usable, 2))
    indices = np.arange(2 * n, dtype=np.int32)
    greatest, least = np.zeros(n), np.zeros(n)
    asked = problem.asked(measure, suppressed)
    for row in np.argsort(-asked, kind="stable"):
        width = asked[row]
        if width <= 0 or greatest[row] - least[row] >= width * (1 - TOLERANCE):
            continue
        fall = np.minimum(usable, np.maximum(measure.values - low_end, 0.0) / width)
        rise = np.minimum(usable, np.maximum(high_end - measure.values, 0.0) / width)
        best: tuple[float, Floats] | None = None
        for direction in (-1, 1):
            if (fall if direction == -1 else rise)[row] < 1 - 1e-9:
                continue
            if best is not None and n > _BOTH_DIRECTIONS:
                break
            low, high = np.zeros(2 * n), np.concatenate([rise, fall])
            low[[row, n + row]] = high[[row, n + row]] = (float(direction > 0), float(direction < 0))
            highs.changeColsBounds(2 * n, indices, low, high)
            highs.changeColsCost(2 * n, indices, np.tile(np.where(suppressed | free, 0.0, problem.cost), 2))
            highs.run()
            if highs.getModelStatus() == highspy.HighsModelStatus.kOptimal:
                z = np.array(highs.getSolution().col_value)
                change = z[:n] - z[n:]
                price = problem.price((np.abs(change) > 1e-7) & ~suppressed & ~free)
                if best is None or price < best[0]:
                    best = (price, change)
        if best is None:
            raise Unprotectable(
                "suppression: got a row above an unsafe one that may not be suppressed; want one that may"
            )
        suppressed |= (np.abs(best[1]) > 1e-7) & ~free
        greatest, least = np.maximum(greatest, width * best[1]), np.minimum(least, width * best[1])
    return suppressed


def _watched(problem: Problem) -> Iterator[Equation]:
    """Equations with a primary row in them."""
    yield from (e for e in problem.sums.equations if problem.primary[list(e.members)].any())


def _enough(problem: Problem, equation: Equation) -> float:
    """Records that the suppressed rows of an equation have to stand for, as far as it has them."""
    members = list(equation.members)
    usable = members if problem.together else []
    able = problem.counts[usable][(problem.eligible | problem.primary)[usable]].sum()
    return float(min(problem.together, able))


def _thin(problem: Problem, suppressed: Flags) -> Iterator[Equation]:
    """Equations whose suppressed rows have a known sum over too few records."""
    for equation in _watched(problem):
        members = list(equation.members)
        if (problem.counts * suppressed)[members].sum() < _enough(problem, equation):
            yield equation


def _addable(problem: Problem, suppressed: Flags, equation: Equation) -> list[int]:
    return [i for i in equation.members if problem.eligible[i] and not suppressed[i] and problem.counts[i] > 0]


def _tidied(problem: Problem, suppressed: Flags, deadline: float) -> Flags:
    """Publish again, dearest first, what turns out not to be needed."""
    extra = np.flatnonzero(suppressed & ~problem.primary)
    for row in extra[np.argsort(-problem.cost[extra], kind="stable")]:
        if time.monotonic() > deadline:
            break
        fewer = suppressed.copy()
        fewer[row] = False
        if problem.safe(fewer):
            suppressed = fewer
    return suppressed


def exact(problem: Problem, start: Flags, seconds: float) -> Pattern:
    """The cheapest safe pattern, or the best found in `seconds`. start: a safe pattern."""
    deadline = time.monotonic() + seconds
    best, bound = start, problem.price(problem.primary)
    master = _Master(problem)
    while (left := deadline - time.monotonic()) > 0:
        trial, reached, proven = master.solve(left)
        bound = max(bound, reached)
        if bound >= problem.price(best) * (1 - TOLERANCE):
            return Pattern(best, "exact", True, bound)
        if trial is None:
            break
        cuts = [cut for measure in problem.measures for cut in _cuts(problem, measure, trial, deadline)]
        if not cuts and proven and time.monotonic() < deadline:
            return Pattern(trial, "exact", True, bound)
        repaired = heuristic(problem, trial, tidy=0.0)
        if problem.price(repaired) < problem.price(best):
            best = _tidied(problem, repaired, deadline)
        for cut, least in cuts:
            master.add(cut, least)
        if not cuts and not proven:
            break
    return Pattern(best, "best within the time limit", False, bound)


def _cuts(problem: Problem, measure: Measure, trial: Flags, deadline: float) -> Iterator[tuple[Floats, float]]:
    """Capacity constraints that `trial` violates: `cut @ suppressed >= least`."""
    least, most = measure.bounds
    free = measure.hidden(np.zeros(len(problem.sums), bool))
    attacker = Attacker(problem.sums, measure.values, measure.hidden(trial), least, most)
    asked = problem.asked(measure, trial)
    for row in np.flatnonzero(asked > 0):
        if time.monotonic() > deadline:
            return
        width = float(asked[row])
        if attacker.scale * (attacker.greatest[row] - attacker.least[row]) >= width * (1 - TOLERANCE):
            continue
        cut, reached = np.zeros(len(problem.sums)), 0.0
        for direction in (1, -1):
            reached += abs(attacker.extreme(int(row), direction))
            reduced = attacker.reduced_costs(int(row), direction)
            fall, rise = np.maximum(measure.values - least, 0.0), np.maximum(most - measure.values, 0.0)
            with np.errstate(invalid="ignore"):
                cut += np.where(reduced > 0, reduced * fall, np.where(reduced < 0, -reduced * rise, 0.0))
        if reached * attacker.scale < width * (1 - TOLERANCE):
            cut = np.minimum(cut / width, 1.0)
            anyhow = float(cut[free].sum())
            cut[free] = 0.0
            always = bool(problem.primary[row] or free[row])
            if not always:
                cut[row] -= 1.0
            yield cut, float(always) - anyhow


class _Master:
    """Binary program over the rows: which are suppressed, at least cost."""

    def __init__(self, problem: Problem) -> None:
        n = len(problem.sums)
        self._problem, self._highs = problem, solver()
        low, high = problem.primary.astype(float), (problem.primary | problem.eligible).astype(float)
        linear_program(self._highs, csc_array((0, n)), problem.cost.astype(float), low, high)
        self._highs.changeColsIntegrality(
            n, np.arange(n, dtype=np.int32), np.full(n, int(highspy.HighsVarType.kInteger), np.uint8)
        )
        hidden = {int(i) for m in problem.measures for i in np.flatnonzero(m.width > 0)}
        for equation in problem.sums.equations:
            for i in equation.members:  # a row hidden alone in an equation is not hidden
                others = [j for j in equation.members if j != i]
                if i in hidden or not problem.primary[i]:
                    self._row([*others, i], [1.0] * len(others) + [-1.0], 0.0)
        for equation in _watched(problem):
            members = list(equation.members)
            self._row(members, problem.counts[members].tolist(), _enough(problem, equation))

    def add(self, cut: Floats, least: float) -> None:
        at: NDArray[np.int64] = np.flatnonzero(cut)
        self._row(at.tolist(), cut[at].tolist(), least)

    def solve(self, seconds: float) -> tuple[Flags | None, float, bool]:
        """Best pattern found, lower bound on the cost, and whether the pattern is the cheapest."""
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + seconds)
        self._highs.run()
        info = self._highs.getInfo()
        proven = self._highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
        found = np.array(self._highs.getSolution().col_value)
        usable = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        return (found > 0.5 if usable else None), float(info.mip_dual_bound), proven

    def _row(self, at: list[int], values: list[float], least: float) -> None:
        self._highs.addRow(least, highspy.kHighsInf, len(at), np.array(at, np.int32), np.array(values, float))
