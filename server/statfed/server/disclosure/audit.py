"""The attacker of a suppressed table: what can be known of each suppressed number from everything that is published.

The attacker knows all published rows, that rows add up, bounds of every row (see `Measure` in `suppression`), and of
counts that they are whole. The feasible interval of a suppressed number runs from its least to its greatest value over
all tables that agree with that; both ends are linear programs. Of counts these are outer bounds only: `whole_widths`
gives what *whole* tables prove. Every table that it counts is exhibited, by a vertex that is whole or by an integer
program, so a width that it reports is true whether or not the program was solved to the end.
Source: Fischetti and Salazar 2001; Hundepool et al. 2012, sections 4.4.1 and 4.4.2.
"""

import math
import time

import highspy
import numpy as np
from scipy.sparse import csc_array

from statfed.core.errors import EngineError
from statfed.server.disclosure.sums import Flags, Floats, Sums

TOLERANCE = 1e-6
"""Relative slack when widths are compared: the solver's own tolerance is 1e-7."""


_ONE_PROGRAM = 5.0


def solver() -> highspy.Highs:
    """A silent HiGHS on one thread: the same answer on every machine."""
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    highs.setOptionValue("output_flag", False)
    highs.setOptionValue("threads", 1)
    highs.setOptionValue("random_seed", 1)
    return highs


def linear_program(
    highs: highspy.Highs, matrix: csc_array, cost: Floats, low: Floats, high: Floats, right: Floats | None = None
) -> None:
    """Load `min cost z` with `matrix z = right` (0 if not given) and `low <= z <= high`."""
    lp = highspy.HighsLp()
    lp.num_row_, lp.num_col_ = matrix.shape
    lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, low, high
    lp.row_lower_ = lp.row_upper_ = np.zeros(matrix.shape[0]) if right is None else right
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_ = matrix.indptr
    lp.a_matrix_.index_ = matrix.indices
    lp.a_matrix_.value_ = matrix.data
    highs.passModel(lp)


class Attacker:
    """One linear program over the deviations z of the suppressed rows from their true values, kept warm.

    values: of all rows; suppressed: which are not published; low, high: (n,), what is known to bound each, by default
    0 and nothing, and nothing at all where a value is negative. Deviations are measured in units of `scale`. `least`
    and `greatest` (n,) are the deviations reached so far by any table that agrees with what is published.
    """

    def __init__(
        self, sums: Sums, values: Floats, suppressed: Flags, low: Floats | None = None, high: Floats | None = None
    ) -> None:
        self.sums, self.values, self.suppressed = sums, values, suppressed
        self.rows = np.flatnonzero(suppressed)
        self._column = {int(row): j for j, row in enumerate(self.rows)}
        active = sums.matrix[:, self.rows].tocsr()
        self._equations = np.flatnonzero(np.diff(active.indptr))
        size = np.abs(values[self.rows])
        self.scale = float(np.median(size[size > 0])) if (size > 0).any() else 1.0
        self.unbounded = 4.0 * (float(np.abs(values).sum()) / self.scale + 1.0)
        self.least, self.greatest = np.zeros(len(sums)), np.zeros(len(sums))
        least, most = known_bounds(values) if low is None or high is None else (low, high)
        fall = np.minimum((least - values)[self.rows] / self.scale, 0.0)
        rise = np.maximum((most - values)[self.rows] / self.scale, 0.0)
        self._highs = solver()
        linear_program(
            self._highs,
            csc_array(active[self._equations]),
            np.zeros(len(self.rows)),
            np.maximum(fall, -self.unbounded),
            np.minimum(rise, self.unbounded),
        )

    def extreme(self, row: int, direction: int) -> float:
        """Greatest (direction 1) or least (-1) deviation of a suppressed row, in units of `scale`."""
        column = self._column[row]
        self._highs.changeColCost(column, -float(direction))
        self._highs.run()
        status = self._highs.getModelStatus()
        if status != highspy.HighsModelStatus.kOptimal:
            raise EngineError(f"audit: got solver status {self._highs.modelStatusToString(status)}; want Optimal")
        self._highs.changeColCost(column, 0.0)
        self._solution = self._highs.getSolution()
        z = np.array(self._solution.col_value)
        self.greatest[self.rows] = np.maximum(self.greatest[self.rows], z)
        self.least[self.rows] = np.minimum(self.least[self.rows], z)
        return float(z[column])

    def table(self, row: int, direction: int) -> Floats:
        """A table that agrees with what is published and has the greatest or least value of a row, shape (n,)."""
        self.extreme(row, direction)
        found = self.values.astype(float).copy()
        found[self.rows] += self.scale * np.array(self._solution.col_value)
        return found

    def reduced_costs(self, row: int, direction: int) -> Floats:
        """Reduced cost of every row of the table, suppressed or not, in the program last solved, shape (n,).

        For every table that agrees with the equations, direction * z[row] = - reduced @ z: what bounds the deviation
        under any other choice of suppressed rows (the capacity constraints of Fischetti and Salazar).
        """
        multipliers = np.zeros(self.sums.matrix.shape[0])
        multipliers[self._equations] = np.array(self._solution.row_dual)
        cost = np.zeros(len(self.sums))
        cost[row] = -direction
        reduced = np.asarray(cost - self.sums.matrix.T @ multipliers)
        reduced[np.abs(reduced) < 1e-9] = 0.0
        return reduced

    def width(self, row: int, enough: float = math.inf) -> float:
        """Width of the feasible interval, in the units of the table; looks no further once it is `enough`."""
        for direction in (1, -1):
            if self.scale * (self.greatest[row] - self.least[row]) >= enough:
                break
            self.extreme(row, direction)
        reached = self.greatest[row] - self.least[row]
        return math.inf if reached >= self.unbounded * (1 - TOLERANCE) else float(self.scale * reached)


def known_bounds(values: Floats) -> tuple[Floats, Floats]:
    """What is known of numbers of which nothing is said: none is negative, unless some are; (n,) each."""
    return np.full(len(values), -math.inf if (values < 0).any() else 0.0), np.full(len(values), math.inf)


def intervals(
    sums: Sums,
    values: Floats,
    suppressed: Flags,
    enough: Floats | None = None,
    low: Floats | None = None,
    high: Floats | None = None,
) -> Floats:
    """What an attacker can know of every row: shape (n, 2), lower and upper end; infinite where nothing bounds it.

    values: (n,), private. low, high: what is known to bound each, see `Attacker`. enough: (n,) widths at which to stop:
    the interval given is then part of the true one, and proves at least that width. Without it the intervals are exact,
    two programs per suppressed row.
    """
    found = np.column_stack([values, values]).astype(float)
    if not suppressed.any():
        return found
    attacker = Attacker(sums, values, suppressed, low, high)
    for row in attacker.rows:
        if enough is None:
            attacker.extreme(int(row), 1)
            attacker.extreme(int(row), -1)
        elif enough[row] > 0:
            attacker.width(int(row), float(enough[row]) * (1 + TOLERANCE))
    rows = attacker.rows
    far = attacker.unbounded * (1 - TOLERANCE)
    least, greatest = attacker.least[rows], attacker.greatest[rows]
    found[rows, 0] = np.where(least <= -far, -math.inf, values[rows] + attacker.scale * least)
    found[rows, 1] = np.where(greatest >= far, math.inf, values[rows] + attacker.scale * greatest)
    return found


def too_narrow(
    sums: Sums,
    values: Floats,
    suppressed: Flags,
    width: Floats,
    low: Floats | None = None,
    high: Floats | None = None,
) -> Flags:
    """Rows whose feasible interval is narrower than asked, shape (n,). width: (n,), 0 where nothing is asked."""
    found = intervals(sums, values, suppressed, width, low, high)
    return np.asarray(found[:, 1] - found[:, 0] < width * (1 - TOLERANCE))


def whole_widths(
    sums: Sums, values: Floats, suppressed: Flags, width: Floats, low: Floats, high: Floats, seconds: float = 60.0
) -> Floats:
    """How far apart whole tables that agree with everything published are in each row, shape (n,); at least that far.

    values: of all rows, a table that adds up, not necessarily whole. width: (n,), what is asked; looks no further once
    it is reached, and only where it is not 0. seconds: for all integer programs; what they miss is not counted.
    """
    least, greatest = np.full(len(values), math.inf), np.full(len(values), -math.inf)
    if (np.abs(values - np.round(values)) < 1e-6).all():
        least, greatest = values.copy(), values.copy()
    attacker = Attacker(sums, values, suppressed, low, high)

    def saw(table: Floats) -> None:
        whole = np.round(table)
        fits = (
            (whole >= low - 1e-9).all()
            and (whole <= high + 1e-9).all()
            and (whole == np.round(values))[~suppressed].all()
        )
        if (
            fits
            and np.abs(table - whole).max(initial=0.0) < 1e-5
            and np.abs(sums.matrix @ whole).max(initial=0.0) < 1e-6
        ):
            np.minimum(least, whole, out=least)
            np.maximum(greatest, whole, out=greatest)

    deadline = time.monotonic() + seconds
    for row in map(int, np.flatnonzero(suppressed & (width > 0))):
        for direction in (1, -1):
            if greatest[row] - least[row] < width[row] - 1e-9:
                saw(attacker.table(row, direction))
        for direction in (1, -1):
            left = deadline - time.monotonic()
            if left > 0 and greatest[row] - least[row] < width[row] - 1e-9:
                other = (least[row] if least[row] <= greatest[row] else values[row]) if direction > 0 else greatest[row]
                to = (other if np.isfinite(other) else values[row]) + direction * width[row]
                found = _whole_table(sums, values, suppressed, low, high, row, direction, to, min(left, _ONE_PROGRAM))
                if found is not None:
                    saw(found)
    return np.where(greatest >= least, greatest - least, 0.0)


def _whole_table(
    sums: Sums,
    values: Floats,
    suppressed: Flags,
    low: Floats,
    high: Floats,
    row: int,
    direction: int,
    to: float,
    seconds: float,
) -> Floats | None:
    """A whole table that agrees with what is published, and in which a row is `to` at least (direction 1) or at most
    (-1); None if none was found in time."""
    n = len(values)
    most = 4.0 * (float(np.abs(values).sum()) + 1.0)
    least = np.where(suppressed, np.maximum(low, -most), np.round(values))
    greatest = np.where(suppressed, np.minimum(high, most), np.round(values))
    if direction > 0:
        least[row] = max(least[row], math.ceil(to - 1e-9))
    else:
        greatest[row] = min(greatest[row], math.floor(to + 1e-9))
    if least[row] > greatest[row]:
        return None
    highs = solver()
    linear_program(highs, csc_array(sums.matrix), np.zeros(n), least, greatest)
    highs.changeColsIntegrality(
        n, np.arange(n, dtype=np.int32), np.full(n, int(highspy.HighsVarType.kInteger), np.uint8)
    )
    highs.setOptionValue("time_limit", seconds)
    highs.run()
    if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    return np.array(highs.getSolution().col_value)
