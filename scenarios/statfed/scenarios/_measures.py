"""Measures of how well figures agree with the pooled ones, for `Success`; smaller is better in all of them.

Suppressed figures are left out, unless a measure says otherwise; where none is left the measure is infinite.
"""

import math
from collections.abc import Callable

import numpy as np

from statfed.core.scenario import Figures, Reference


def relative_errors(figures: Figures, pooled: Reference) -> list[float]:
    """|figure - pooled| / |pooled| of every released figure whose pooled value is not 0."""
    return [
        abs(figure.value - pooled[name]) / abs(pooled[name])
        for name, figure in figures.items()
        if figure.value is not None and pooled[name] != 0
    ]


def median_relative_error(figures: Figures, pooled: Reference) -> float:
    """Median of `relative_errors`."""
    errors = relative_errors(figures, pooled)
    return float(np.median(errors)) if errors else math.inf


def largest_relative_error(figures: Figures, pooled: Reference) -> float:
    """Largest of `relative_errors`."""
    return max(relative_errors(figures, pooled), default=math.inf)


def share_missed(within: float) -> Callable[[Figures, Reference], float]:
    """Share of all figures that are not released, or off by more than `within`, relative to the pooled one."""

    def measure(figures: Figures, pooled: Reference) -> float:
        missed = [
            figure.value is None or abs(figure.value - pooled[name]) > within * abs(pooled[name])
            for name, figure in figures.items()
        ]
        return sum(missed) / len(missed)

    return measure


def root_mean_square(figures: Figures, pooled: Reference) -> float:
    """Root of the mean squared difference, in the figures' unit."""
    squares = [(f.value - pooled[name]) ** 2 for name, f in figures.items() if f.value is not None]
    return math.sqrt(float(np.mean(squares))) if squares else math.inf


def shortfall(name: str) -> Callable[[Figures, Reference], float]:
    """By how much a figure that should be large, such as a model's accuracy, falls short of the pooled one."""

    def measure(figures: Figures, pooled: Reference) -> float:
        value = figures[name].value
        return math.inf if value is None else pooled[name] - value

    return measure
