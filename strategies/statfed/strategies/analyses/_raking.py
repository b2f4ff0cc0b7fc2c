"""Calibration factors from a pooled table of weights: raking (iterative proportional fitting) and linear (GREG).

Both give one number per code of each margin column, in the order of the codebook: the factor of a record is their
product (raking) or 1 plus their sum (linear).
Source: Deming and Stephan 1940; Deville and Särndal 1992, Calibration estimators in survey sampling, JASA 87.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError

Floats = NDArray[np.float64]
TOLERANCE = 1e-12  # largest discrepancy of a margin, relative to the population
ITERATIONS = 5_000
DIVERGED = 1e100  # number of a code that no data ask for
ACCEPTED = 1e-8  # a discrepancy above it is a failure


@dataclass(frozen=True)
class Calibration:
    """codes: by margin column, the numbers of its codes; factor: (cells), shaped as the table of weights."""

    codes: tuple[Floats, ...]
    factor: Floats
    iterations: int
    discrepancy: float


def margins_of(table: Floats) -> list[Floats]:
    """One-way margins of a table, by axis."""
    return [table.sum(axis=tuple(a for a in range(table.ndim) if a != axis)) for axis in range(table.ndim)]


def check_targets(names: Sequence[str], targets: Sequence[Floats]) -> None:
    """Raises UsageError unless all margins are sums of one positive population."""
    sums = [float(target.sum()) for target in targets]
    if min(sums) <= 0 or max(sums) - min(sums) > 1e-9 * max(sums):
        shown = ", ".join(f"{name} {total:g}" for name, total in zip(names, sums, strict=True))
        raise UsageError(f"margins: got totals that differ or are not positive: {shown}; want one population")


def check_sample(
    names: Sequence[str], levels: Sequence[Sequence[str]], table: Floats, targets: Sequence[Floats]
) -> None:
    """Raises UsageError for a code with units in the population and none in the sample: no factor can make them."""
    for name, codes, margin, target in zip(names, levels, margins_of(table), targets, strict=True):
        absent = [code for code, have, want in zip(codes, margin, target, strict=True) if want > 0 and have <= 0]
        if absent:
            raise UsageError(f"margins.{name}: got no sampled weight in {', '.join(absent)}; want some, or merge codes")


def discrepancy(table: Floats, targets: Sequence[Floats]) -> float:
    """Largest difference between a margin of `table` and its target, relative to the population."""
    found = zip(margins_of(table), targets, strict=True)
    return max(float(np.abs(have - want).max()) for have, want in found) / float(targets[0].sum())


def rake(table: Floats, targets: Sequence[Floats]) -> Calibration:
    """Iterative proportional fitting. Raises UsageError when it does not converge, as where zero cells forbid it."""
    codes = [np.ones(len(target)) for target in targets]
    fitted, iterations, gap = table.copy(), 0, math.inf
    while iterations < ITERATIONS and gap > TOLERANCE and max(code.max() for code in codes) < DIVERGED:
        for axis, target in enumerate(targets):
            have = margins_of(fitted)[axis]
            step = np.divide(target, have, out=np.ones(len(target)), where=have > 0)
            codes[axis] = codes[axis] * step
            fitted = fitted * step.reshape(-1, *(1,) * (table.ndim - 1 - axis))
        iterations, gap = iterations + 1, discrepancy(fitted, targets)
    factor = np.ones(table.shape)
    for axis, code in enumerate(codes):
        factor = factor * code.reshape(-1, *(1,) * (table.ndim - 1 - axis))
    return _accepted(Calibration(tuple(codes), factor, iterations, discrepancy(table * factor, targets)))


def regress(table: Floats, targets: Sequence[Floats]) -> Calibration:
    """Generalised regression: the linear factors closest to 1. Raises UsageError when no factors fit the margins."""
    x = dummies(table.shape)
    weight = np.maximum(table.reshape(-1), 0.0)
    gap = np.concatenate(list(targets)) - x.T @ weight
    root = np.sqrt(weight)[:, None] * x
    solution = np.linalg.pinv(root) @ (np.linalg.pinv(root).T @ gap)
    factor = (1 + x @ solution).reshape(table.shape)
    ends = np.cumsum([len(target) for target in targets])[:-1]
    return _accepted(Calibration(tuple(np.split(solution, ends)), factor, 1, discrepancy(table * factor, targets)))


def dummies(shape: tuple[int, ...]) -> Floats:
    """0/1 columns of every code of every axis, by cell: (cells, codes)."""
    places = [index.reshape(-1) for index in np.indices(shape)]
    return np.column_stack([place == i for place, size in zip(places, shape, strict=True) for i in range(size)]) * 1.0


def _accepted(found: Calibration) -> Calibration:
    if not found.discrepancy <= ACCEPTED:
        raise UsageError(
            f"margins: got a discrepancy of {found.discrepancy:.2g} of the population after {found.iterations} "
            "iterations; want margins that the sample's non-empty cells can meet"
        )
    return found
