"""How exactly `fuzzy` tells figures in which one record weighs more than once.

A list may hold a record many times, or many that are nearly alike: its partner then has as many links. A count of links
would tell of one person where it has to tell of many, and one in which guesses weigh 1, 2, 4 ... would tell of each of
them. Let `most` be the largest number of the links that are counted which any one record of either list has. Then

- L links have at least L / most different records on either side, since each has at most `most` of them: so a count
  is told where L >= minimum x most, and has at least `minimum` records of each list behind it;
- a count is told in steps of at least `most`, so that no record moves it by more than a step, and weights do not say
  which of them it was.

The same for rates: a record of the other list moves a mean over n by most / n, and that is its step at least. Links
that are paired off one to one are of as many different records, and are told as they are.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
COARSE = 10
"""Steps of 1 / BINS between thresholds and levels that are found, not given: of what is found, few values can be."""


def step(weight: float) -> float:
    """The smallest of 1, 2, 3, 4, 5, 6, 8 times a power of ten that is at least so much; weight above 0."""
    power = 10.0 ** math.floor(math.log10(weight) + 1e-12)
    return next(times * power for times in (1, 2, 3, 4, 5, 6, 8, 10) if times * power >= weight * (1 - 1e-9))


def counted(count: ArrayLike, most: int) -> Floats:
    """Counts in steps of `most` or somewhat more."""
    by = step(max(most, 1))
    return np.asarray(np.rint(np.asarray(count, float) / by) * by)


def stepped(value: float, weight: float) -> float:
    """A rate in steps of at least `weight`, with three digits at most."""
    return float(_even(np.rint(value / (by := _width(value, weight))), by))


def limits(low: float, high: float, value: float, weight: float) -> tuple[float, float]:
    """Limits about a rate in the same steps, no narrower than they were."""
    by = _width(value, weight)
    return float(_even(np.floor(low / by + 1e-9), by)), float(_even(np.ceil(high / by - 1e-9), by))


def error(value: float) -> float:
    """A standard error with two digits, no smaller than it was."""
    if not np.isfinite(value) or value <= 0:
        return float(value)
    by = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(_even(np.ceil(value / by - 1e-9), by))


def spread(covariance: Floats) -> Floats:
    """A covariance (2, 2) with two digits: variances no smaller, what they share no larger, so that it stays one."""
    shared = float(covariance[0, 1])
    by = 10.0 ** (math.floor(math.log10(abs(shared))) - 1) if shared else 1.0
    beside = float(_even(np.trunc(shared / by), by))
    return np.array([[error(float(covariance[0, 0])), beside], [beside, error(float(covariance[1, 1]))]])


def _width(value: float, weight: float) -> float:
    digits = 10.0 ** (math.floor(math.log10(abs(value))) - 2) if value else 0.0
    return max(step(weight), digits)


def _even(number: ArrayLike, by: float) -> Floats:
    """number x by without the dust of binary fractions."""
    return np.round(np.asarray(number) * by, max(0, 12 - math.ceil(math.log10(by))) if by < 1 else 9)
