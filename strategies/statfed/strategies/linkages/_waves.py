"""The logistic function as a trigonometric polynomial, for shares.

With w_k = 2 pi k / P and A_k = (2 pi / P) / sinh(pi w_k), the sum of all translates of the logistic density by
multiples of P has the Fourier series 1/P + sum_k A_k w_k cos(w_k x) (Poisson summation; the density's transform is
pi w / sinh(pi w)). So for |x| <= B < P, with e = e^(B - P) / (1 - e^-P),

    sigma(x)                = 1/2 + x/P + sum_k A_k sin(w_k x)                       off by at most e,
    sigma(x) (1 - sigma(x)) = 1/P + sum_k A_k w_k cos(w_k x)                         by at most 2 e,
    log(2 cosh(x / 2))      = log 2 + x^2/(2P) + sum_k (A_k / w_k) (1 - cos(w_k x))  by at most B e,

and what is left out after K frequencies is below sum_{k>K} A_k of the first. `plan` chooses P for a given B and K and
says what both come to. Terms in x and x^2 are linear in sums that are known; the rest are waves, which shares of x give
whatever they wrap round to (see `_shares`).

Fixed point: dealt cosines and sines have 28 binary places, and so have the public factors that they are multiplied
with. Every rounding is of a number whose fraction is that of a uniform angle, so its errors have mean 0 and add up like
the root of the number of records.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError

PLACES = 28
SCALE = 2 * PLACES
FREQUENCIES = 48
MOST_OFF = 1e-7
"""Of a probability: a model whose linear predictor may go so far that it would be more is refused."""
_TURN = 2 * math.pi / 2.0**64
_ROWS = 8192
Words = NDArray[np.uint64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """The three polynomials for one period. off: largest error of a probability."""

    period: float
    off: float

    @property
    def factors(self) -> Floats:
        """(3, 2, K): of sin and cos for sigma, its derivative, and log(2 cosh(x / 2))."""
        w, a = _coefficients(self.period, FREQUENCIES)
        none = np.zeros(len(w))
        return np.array([[a, none], [none, a * w], [none, -a / w]])

    @property
    def level(self) -> float:
        """What log(2 cosh(x / 2)) has beside x^2 / (2P) and its waves."""
        w, a = _coefficients(self.period, FREQUENCIES)
        return math.log(2) + float((a / w).sum())


def _coefficients(period: float, count: int) -> tuple[Floats, Floats]:
    w: Floats = 2 * np.pi / period * np.arange(1, count + 1, dtype=np.float64)
    return w, np.asarray(2 * np.pi / period / np.sinh(np.pi * w), np.float64)


def error(period: float, reach: float) -> float:
    """Largest error of sigma for |x| <= reach < period."""
    start = 2 * math.pi**2 * (FREQUENCIES + 1) / period
    tail = (
        4 * math.pi / period * math.exp(-start) / (1 - math.exp(-2 * math.pi**2 / period)) / (1 - math.exp(-2 * start))
    )
    return math.exp(reach - period) / (1 - math.exp(-period)) + tail


def plan(reach: float) -> Series:
    """The period that suits linear predictors up to `reach`. Raises UsageError where none is near enough."""
    if not math.isfinite(reach):
        raise UsageError("glm: got a linear predictor without bounds; want low and high of every column")
    periods = max(reach, 0.0) + np.arange(8.0, 80.0, 0.5)
    errors = [error(float(period), reach) for period in periods]
    best = int(np.argmin(errors))
    if errors[best] > MOST_OFF:
        raise UsageError(
            f"glm: got coefficients with which the linear predictor may be as far as {reach:.3g} from 0 within the "
            "columns' bounds; want narrower bounds or columns of another form: about 40 is what the series reaches"
        )
    return Series(float(periods[best]), errors[best])


def _powers(angle: Words, count: int) -> NDArray[np.complex128]:
    """exp(i k t) for k = 1..count, (n, count)."""
    found = np.empty((len(angle), count), np.complex128)
    phase = angle.view(np.int64) * _TURN
    base = np.cos(phase) + 1j * np.sin(phase)
    found[:, 0] = base
    for k in range(1, count):
        np.multiply(found[:, k - 1], base, out=found[:, k])
    return found


def _fixed(x: Floats) -> Words:
    return np.rint(x * 2.0**PLACES).astype(np.int64).view(np.uint64)


def dealt(angle: Words, count: int) -> Words:
    """cos(k r), then sin(k r), in fixed point: (n, 2 count)."""
    found = np.empty((len(angle), 2 * count), np.uint64)
    for start in range(0, len(angle), _ROWS):
        waves = _powers(angle[start : start + _ROWS], count)
        found[start : start + _ROWS, :count] = _fixed(waves.real)
        found[start : start + _ROWS, count:] = _fixed(waves.imag)
    return found


def summed(apart: Words, share: Words, series: Floats) -> Words:
    """This party's share of every polynomial at t = apart + r, times 2^`SCALE`: (n, polynomials).

    share: of what `dealt` gives for r; sin(k t) = sin(k apart) cos(k r) + cos(k apart) sin(k r), and so on.
    """
    count = series.shape[2]
    found = np.empty((len(apart), len(series)), np.uint64)
    for start in range(0, len(apart), _ROWS):
        waves = _powers(apart[start : start + _ROWS], count)
        cosines, sines = np.ascontiguousarray(waves.real), np.ascontiguousarray(waves.imag)
        block = share[start : start + _ROWS]
        for i, (of_sin, of_cos) in enumerate(series):
            with_cos = _fixed(sines * of_sin + cosines * of_cos)
            with_sin = _fixed(cosines * of_sin - sines * of_cos)
            part = np.einsum("nk,nk->n", with_cos, block[:, :count])
            found[start : start + _ROWS, i] = part + np.einsum("nk,nk->n", with_sin, block[:, count:])
    return found
