"""Discrete Gaussian and discrete Laplace noise: probabilities, privacy loss, moments and an exact sampler.

Discrete Gaussian N_Z(0, sigma^2): P(x) proportional to exp(-x^2 / (2 sigma^2)) over the integers (Canonne, Kamath and
Steinke 2020; their parameter sigma, not the standard deviation). Discrete Laplace: P(x) proportional to exp(-|x| /
scale), the difference of two geometric variables (Ghosh, Roughgarden and Sundararajan 2012). One of m shares of it: the
difference of two negative binomial (Polya) variables of size 1 / m and the same ratio; a sum of m independent negative
binomial variables of size 1 / m is geometric, so that m shares add up to discrete Laplace noise exactly (Goryczka and
Xiong 2017, section 4; Balle, Bell, Gascon and Nissim 2019).

Both are log-concave, so a shift by d in {0 ... D} is dominated by the shift by D: a scalar mechanism is described by
its largest sensitivity alone.

Formal guarantee of the sampler: given uniform bits it is exact. A draw compares 63 random bits with the cumulative
probabilities, which are computed in integer arithmetic to within one unit of 2^-63. Where that leaves two answers
open (probability below 2^-40 a draw), another 128 bits are drawn and the probabilities computed as finely, and so on.
There is no truncation of the tails and no rounding of probabilities, hence nothing to add to delta; a pure epsilon
stays pure. What is assumed is that the bits of `Stream` are uniform.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from decimal import Context, Decimal
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from statfed.core.randomness import Stream

LARGEST = float(1 << 17)
"""Largest sigma or scale: beyond it tables take seconds to make. A coarser grid keeps noise below it."""
LARGEST_SHARED = float(1 << 13)
"""Largest scale of shares of discrete Laplace noise, whose tables are longer."""
_BITS, _MORE, _GUARD = 63, 128, 64
_TAIL = 11.0  # in sigmas; P(|X| > 11 sigma) < 2 exp(-60.5) < 2**-86 (Canonne, Kamath and Steinke 2020, section 2)

Weights = Callable[[int], list[int]]
"""Weights of 0, 1, 2 ... as integers, each to a relative error below 2**-precision or an absolute one of 1 unit; as
many as are not negligible at that precision."""


def gaussian_std(sigma: float) -> float:
    """Standard deviation of N_Z(0, sigma^2); slightly below sigma, and far below it for sigma under 0.3."""
    if sigma > 4.0:  # the difference is of order exp(-2 pi^2 sigma^2) (Poisson summation)
        return sigma
    x = np.arange(1.0, math.ceil(_TAIL * sigma) + 2.0)
    w = np.exp(-((x / sigma) ** 2) / 2.0)
    return math.sqrt(2.0 * float(w @ x**2) / (1.0 + 2.0 * float(w.sum())))


def rounded_std(sigma: float, parts: int) -> float:
    """Standard deviation of N_Z(0, sigma^2) / parts, for even `parts`, rounded to whole numbers.

    Halves go either way equally often. For sigma > 1.5 parts it is that of the noise and of the rounding side by side
    (1/12, and 1/(6 parts^2) for the halves), to a relative 1e-15 (Poisson summation).
    """
    if sigma > 1.5 * parts:
        return math.sqrt((sigma / parts) ** 2 + 1.0 / 12.0 + 1.0 / (6.0 * parts**2))
    x = np.arange(1.0, math.ceil(_TAIL * sigma) + 2.0)
    w = np.exp(-((x / sigma) ** 2) / 2.0)
    whole = (np.floor(x / parts + 0.5) ** 2 + np.ceil(x / parts - 0.5) ** 2) / 2.0
    return math.sqrt(2.0 * float(w @ whole) / (1.0 + 2.0 * float(w.sum())))


def laplace_std(scale: float) -> float:
    """Standard deviation of the discrete Laplace distribution: sqrt(2 p) / (1 - p) with p = exp(-1 / scale)."""
    return math.sqrt(2.0 * math.exp(-1.0 / scale)) / -math.expm1(-1.0 / scale)


def gaussian_loss(sigma: float, sensitivity: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Privacy loss of N_Z(0, sigma^2) against its shift by `sensitivity`: values, probabilities, mass at infinity.

    The loss is linear in the noise; what is cut off beyond 11 sigma counts as infinite loss.
    """
    x = np.arange(-math.ceil(_TAIL * sigma), math.ceil(_TAIL * sigma) + 1.0)
    mass = np.exp(-((x / sigma) ** 2) / 2.0)
    return sensitivity / sigma * ((0.5 * sensitivity - x) / sigma), mass / mass.sum(), 2.0 * math.exp(-(_TAIL**2) / 2.0)


def laplace_loss(scale: float, sensitivity: int) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Privacy loss of discrete Laplace noise against its shift by `sensitivity`; exact: sensitivity + 1 values."""
    x = np.arange(1.0, sensitivity)
    p = math.exp(-1.0 / scale)
    end = 1.0 / (1.0 + p)
    inner = -math.expm1(-1.0 / scale) * end * np.exp(-x / scale)
    loss = np.concatenate([[sensitivity], sensitivity - 2.0 * x, [-sensitivity]]) / scale
    return loss, np.concatenate([[end], inner, [end * math.exp(-sensitivity / scale)]]), 0.0


def laplace_renyi(scale: float, sensitivity: int, order: float) -> float:
    """Renyi divergence of order a > 1 of discrete Laplace noise from its shift by d = `sensitivity`: the exact sum.

    With p = exp(-1 / scale) and q = p^(2 a - 1) it is ln R(d) / (a - 1), R(d) = A p^((1 - a) d) + B p^(a d), B = (1 -
    p) / (1 + p) (1 / (1 - p) - 1 / (1 - q)) and A = 1 - B, both not negative. So ln R is convex in d and 0 at 0, and of
    changes d1, d2 ... of several numbers ln R(d1) + ln R(d2) + ... <= ln R(d1 + d2 + ...).
    """
    p, q = math.exp(-1.0 / scale), math.exp((1.0 - 2.0 * order) / scale)
    b = (p - q) / -math.expm1((1.0 - 2.0 * order) / scale) / (1.0 + p)
    up, down = math.log1p(-b) + (order - 1.0) * sensitivity / scale, -order * sensitivity / scale
    return max(0.0, up + math.log1p(b * math.exp(down - up))) / (order - 1.0)


def draw_gaussian(sigma: float, count: int, stream: Stream) -> NDArray[np.int64]:
    """`count` independent draws from N_Z(0, sigma^2), shape (count,). One 64-bit word each: 63 bits and the sign."""
    words = stream.words(count)
    size = _search(_gaussian_weights(sigma), ("gaussian", sigma), words >> np.uint64(1), stream)
    return np.where(words & np.uint64(1), -size, size)


def draw_laplace(scale: float, count: int, stream: Stream) -> NDArray[np.int64]:
    """`count` independent draws from the discrete Laplace distribution, shape (count,). Four 64-bit words each.

    The difference of two geometric variables, each high * R + low: the digits of a geometric variable to base R are
    independent, one geometric again, the other geometric cut off at R.
    """
    base = 1 << max(0, round(math.log2(max(scale, 1.0))))
    bits = stream.words(4 * count).reshape(4, count) >> np.uint64(1)
    high = _search(_geometric_weights(scale, base, 0), ("high", scale), bits[:2].reshape(-1), stream)
    low = _search(_geometric_weights(scale, 1, base), ("low", scale), bits[2:].reshape(-1), stream)
    one, two = (high * base + low).reshape(2, count)
    return one - two


def draw_share(scale: float, shares: int, count: int, stream: Stream) -> NDArray[np.int64]:
    """`count` independent draws of one of `shares` shares of discrete Laplace noise, (count,). Two 64-bit words
    each."""
    bits = stream.words(2 * count) >> np.uint64(1)
    one, two = _search(_polya_weights(scale, shares), (f"polya {shares}", scale), bits, stream).reshape(2, count)
    return one - two


def _search(weights: Weights, key: tuple[str, float], bits: NDArray[np.uint64], stream: Stream) -> NDArray[np.int64]:
    """Inverse of the cumulative distribution at uniform 63-bit numbers; open cases by more bits."""
    table = _table(weights, key, _BITS)
    found = np.searchsorted(table, bits, side="right")
    below, above = np.maximum(found - 1, 0), np.minimum(found, len(table) - 1)
    one = np.uint64(1)
    open_ = np.flatnonzero((bits - table[below] <= one) | (table[above] - bits <= one) | (found == len(table)))
    for i in open_:
        found[i] = _settle(weights, int(bits[i]), _BITS, stream)
    return found


def _settle(weights: Weights, number: int, bits: int, stream: Stream) -> int:
    """The value at a uniform number of which `bits` bits are known so far. Thresholds are within 1 of the truth."""
    while True:
        bits += _MORE
        for word in stream.words(_MORE // 64):
            number = number << 64 | int(word)
        table = _thresholds(weights, bits)
        found = bisect_right(table, number)
        clear = found < len(table) and table[found] - number > 1
        if clear and (found == 0 or number - table[found - 1] > 1):
            return found


_TABLES: dict[tuple[str, float, int], NDArray[np.uint64]] = {}


def _table(weights: Weights, key: tuple[str, float], bits: int) -> NDArray[np.uint64]:
    """Thresholds as an array, the last few of them kept (they depend on public parameters only)."""
    full = (*key, bits)
    table = _TABLES.pop(full, None)
    if table is None:
        table = np.array(_thresholds(weights, bits), np.uint64)
        while len(_TABLES) >= 16:
            _TABLES.pop(next(iter(_TABLES)))
    _TABLES[full] = table
    return table


def _thresholds(weights: Weights, bits: int) -> list[int]:
    """floor(2^bits P(X <= x)) for x = 0, 1, ... to within 1; the last, 2^bits - 1, for all so close to 1."""
    cumulated = list(accumulate(weights(bits + _GUARD)))
    total = cumulated[-1]
    last = (1 << bits) - 1
    table = [(c << bits) // total for c in cumulated]
    return [*table[: bisect_right(table, last - 1)], last]


@lru_cache(maxsize=64)
def _gaussian_weights(sigma: float) -> Weights:
    """Of |X|: 1 for 0, else 2 exp(-x^2 / (2 sigma^2)), by w(x+1) = w(x) r(x), r(x+1) = r(x) exp(-1 / sigma^2)."""

    def weights(precision: int) -> list[int]:
        places = precision + 48  # the recursion loses less than 2 log2(number of weights) + 2 bits
        exact, square = _exact(places), _exact(places).multiply(Decimal(sigma), Decimal(sigma))
        ratio = _exp(exact.divide(Decimal(-1), exact.multiply(square, Decimal(2))), places)
        step = _exp(exact.divide(Decimal(-1), square), places)
        found, weight = [], 1 << places
        while weight:
            found.append(weight)
            weight = weight * ratio >> places
            ratio = ratio * step >> places
        return [found[0], *(2 * w for w in found[1:])]

    return weights


@lru_cache(maxsize=64)
def _geometric_weights(scale: float, stride: int, cut: int) -> Weights:
    """exp(-x stride / scale) for x = 0 ... cut - 1, without end for cut = 0."""

    def weights(precision: int) -> list[int]:
        places = precision + 48
        ratio = _exp(_exact(places).divide(Decimal(-stride), Decimal(scale)), places)
        found: list[int] = []
        weight = 1 << places
        while weight and (not cut or len(found) < cut):
            found.append(weight)
            weight = weight * ratio >> places
        return found

    return weights


@lru_cache(maxsize=64)
def _polya_weights(scale: float, shares: int) -> Weights:
    """Negative binomial of size 1 / shares: w(0) = 1, w(x + 1) = w(x) (x + 1 / shares) / (x + 1) exp(-1 / scale)."""

    def weights(precision: int) -> list[int]:
        places = precision + 48
        ratio = _exp(_exact(places).divide(Decimal(-1), Decimal(scale)), places)
        found: list[int] = []
        weight, x = 1 << places, 0
        while weight:
            found.append(weight)
            weight = (weight * ratio >> places) * (x * shares + 1) // (shares * (x + 1))
            x += 1
        return found

    return weights


def _exact(places: int) -> Context:
    return Context(prec=math.ceil(places * 0.30103) + 12)


def _exp(x: Decimal, places: int) -> int:
    """floor(2^places exp(x)) to within 1, for x <= 0."""
    context = _exact(places)
    return int(context.multiply(context.exp(x), Decimal(1 << places)))
