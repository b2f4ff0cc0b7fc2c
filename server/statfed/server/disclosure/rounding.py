"""Rounding of tables to multiples of a base: conventional, random and controlled.

Conventional and random rounding treat every row by itself, so that margins need not be the sum of rounded cells.
Controlled rounding keeps all equations of the table.
Source: Hundepool et al. 2012, section 5.4.3; Cox 1987 for controlled rounding of two-way tables; Salazar 2005.
"""

from dataclasses import dataclass

import highspy
import numpy as np
from scipy.sparse import csc_array, hstack

from statfed.core.randomness import Stream
from statfed.server.disclosure.audit import linear_program, solver
from statfed.server.disclosure.sums import Floats, Sums


@dataclass(frozen=True)
class Rounded:
    """values: (n,), multiples of the base. additive: do all equations hold? reach: how many bases a value may have
    moved, exclusively (1 is zero-restricted). reason: why not more, else empty."""

    values: Floats
    additive: bool
    reach: int | None
    reason: str = ""


def conventional(values: Floats, base: int) -> Floats:
    """The nearest multiple of `base`; halves away from zero."""
    return np.asarray(np.sign(values) * np.floor(np.abs(values) / base + 0.5) * base)


def random_rounding(values: Floats, base: int, source: Stream, draws: Floats | None = None) -> Floats:
    """The multiple of `base` below or above, with probabilities that make the expectation the value itself.

    Multiples stay as they are. Each value is rounded independently. draws: (n,), in (0, 1], instead of the source's: a
    figure that is asked for again has to be given the draw that it had, or averages undo the rounding.
    """
    below = np.floor(values / base)
    rest = values / base - below
    up = 1.0 - (source.uniform(len(values)) if draws is None else draws) < rest  # uniform is in (0, 1]
    return np.asarray((below + up) * base)


def controlled(sums: Sums, values: Floats, base: int, seconds: float = 20.0) -> Rounded:
    """Multiples of `base` that add up, as close to `values` as can be.

    Zero-restricted where possible: each value becomes the multiple below or above, multiples stay. In tables of three
    and more ways such a rounding need not exist; then values may go one multiple further, and where `seconds` do not
    suffice for that either, cells are rounded conventionally and their sums are taken.
    """
    below = np.floor(values / base + 1e-9)
    exact = np.abs(values / base - np.round(values / base)) < 1e-9
    zero = np.abs(values) < 1e-9
    tried: list[str] = []
    for reach, low, high in (
        (1, np.where(exact, np.round(values / base), below), np.where(exact, np.round(values / base), below + 1)),
        (2, np.where(zero, 0.0, np.maximum(below - 1, _floor(values))), np.where(zero, 0.0, below + 2)),
    ):
        found = _nearest(sums, values / base, low, high, seconds)
        if found is not None:
            return Rounded(found * base, True, reach, "; ".join(tried))
        tried.append(f"found no additive rounding within {('one base', 'two bases')[reach - 1]}")
    summed = _added_up(sums, conventional(values[: sums.cells], base))
    return Rounded(summed, True, None, "; ".join(tried))


def _floor(values: Floats) -> Floats:
    """Numbers that are not negative do not become so."""
    return np.where(values >= 0, 0.0, -np.inf)


def _nearest(sums: Sums, values: Floats, low: Floats, high: Floats, seconds: float) -> Floats | None:
    """Whole numbers within bounds that satisfy every equation, least sum of distances; None if there are none.

    Each variable is `low` plus up to three steps of one; the cost of the steps is convex, so they are taken in order.
    """
    n, steps = len(sums), int((high - low).max(initial=0))
    if steps == 0:
        return low
    columns = csc_array(hstack([sums.matrix] * steps))
    cost = np.concatenate([np.abs(low + k + 1 - values) - np.abs(low + k - values) for k in range(steps)])
    open_ = np.concatenate([low + k + 1 <= high for k in range(steps)]).astype(float)
    highs = solver()
    linear_program(highs, columns, cost, np.zeros(steps * n), open_, -(sums.matrix @ low))
    highs.changeColsIntegrality(
        steps * n,
        np.arange(steps * n, dtype=np.int32),
        np.full(steps * n, int(highspy.HighsVarType.kInteger), np.uint8),
    )
    highs.setOptionValue("time_limit", seconds)
    highs.run()
    if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    taken = np.round(np.array(highs.getSolution().col_value)).reshape(steps, n)
    found = low + taken.sum(axis=0)
    return found if np.abs(sums.matrix @ found).max(initial=0.0) < 1e-6 else None


def _added_up(sums: Sums, cells: Floats) -> Floats:
    """Every row as the sum of cells, worked out through the equations, innermost first."""
    values = np.full(len(sums), np.nan)
    values[: sums.cells] = cells
    while np.isnan(values).any():
        for equation in sums.equations:
            if np.isnan(values[equation.total]):
                values[equation.total] = values[list(equation.terms)].sum()
    return values
