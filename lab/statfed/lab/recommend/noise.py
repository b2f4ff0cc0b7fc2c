"""How much noise an epsilon means beside what is released: modelled, before anything is computed.

For statistics a release is a table that each record enters in one cell, and the signal is the average cell: with
Laplace or Gaussian noise of sensitivity 1, whichever is less, as `statfed.core.privacy.noise` chooses. For a model it
is a sum of clipped gradients with Gaussian noise, and the signal is the largest norm that they can have (see
`Schedule.noise_to_signal`). The budget of repeated releases is split evenly, which multiplies Gaussian noise by the
root of their number and Laplace noise by their number.
"""

import math
from functools import lru_cache

from scipy.special import log_ndtr, ndtr

from statfed.core.privacy.discrete import laplace_std
from statfed.core.scenario import Case
from statfed.lab.recommend.techniques import ASSUMED_EPSILON, Release

DELTA = 1e-6
LARGEST_CV = 1 / 3
"""Coefficient of variation above which a figure is not released (Statistics Canada, household surveys: 33.3 %)."""
LARGEST_TRAINING = 1.0
"""Norm of the noise over that of the gradients: above, even perfectly aligned gradients drown."""


def seen(case: Case, *, linkage: bool) -> Case:
    """The case by which noise is modelled: of a linkage one holder's records, of which at most all match, and one draw
    of noise, by the holder that sees the figure."""
    return case.model_copy(update={"parties": 1}) if linkage else case


def limit(case: Case) -> float:
    """The `ratio` above which noise makes a release of this case useless."""
    return LARGEST_TRAINING if case.output == "model" else LARGEST_CV


@lru_cache(maxsize=256)
def sigma(epsilon: float, delta: float = DELTA) -> float:
    """Least standard deviation of Gaussian noise with which a sum of sensitivity 1 is (epsilon, delta)-private.

    Source: Balle and Wang 2018, Improving the Gaussian mechanism, theorem 8.
    """

    def spent(scale: float) -> float:
        a, b = 0.5 / scale, epsilon * scale
        return float(ndtr(a - b) - math.exp(epsilon + float(log_ndtr(-a - b))))

    low, high = 1e-6, 1.0
    while spent(high) > delta:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > delta else (low, middle)
    return high


def ratio(case: Case, release: Release, releases: float = 1.0) -> float:
    """Noise over signal of one release, when so many share the case's epsilon (1 where it sets none).

    Shared noise is sized for one colluder, so that it counts on all holders but one.
    """
    parties = case.parties
    draws = {"local": float(parties), "shared": parties / max(1, parties - 1)}.get(release, 1.0)
    epsilon = case.epsilon or ASSUMED_EPSILON
    noise = sigma(epsilon) * math.sqrt(releases)
    if case.output != "model":
        noise = min(noise, laplace_std(releases / epsilon))
    noise *= math.sqrt(draws)
    records = float(case.records) * parties
    return noise * (math.sqrt(case.numbers) if case.output == "model" else case.numbers) / records


def affordable(case: Case, release: Release) -> float:
    """How many releases the case's epsilon buys before noise makes them useless; a whole number, may be infinite."""
    if not ratio(case, release):
        return math.inf
    low, high = 0, 1
    while ratio(case, release, high) <= limit(case) and high < 2**60:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if ratio(case, release, middle) <= limit(case) else (low, middle)
    return low


def in_words(case: Case, release: Release) -> str:
    """The noise beside the signal of one release."""
    epsilon, records = case.epsilon or ASSUMED_EPSILON, case.records * case.parties
    percent = f"{100 * ratio(case, release):.2g} %"
    if case.output == "model":
        return f"noise of {percent} of the largest gradient of {records} records at epsilon {epsilon:g}"
    deviation = ratio(case, release) * records / case.numbers
    return (
        f"noise with standard deviation {deviation:.2g} in cells of {records / case.numbers:.3g} records on average: "
        f"{percent} at epsilon {epsilon:g}"
    )
