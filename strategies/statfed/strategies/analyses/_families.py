"""Exponential families and links of generalised linear models, written once for NumPy arrays and Ibis expressions.

With mean mu, variance function V and d mu / d eta, a record of weight f has score weight f (y - mu) mu' / V, Fisher
information weight f mu'^2 / V, deviance and Pearson residual. Source: McCullagh and Nelder 1989, chapter 2.
"""

import math
from dataclasses import dataclass
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray
from scipy import special

from statfed.core.errors import UsageError
from statfed.core.table import real

Values = Any  # an array, or an Ibis expression
LINKS = {
    "binomial": ("logit", "probit", "log", "identity"),
    "poisson": ("log", "identity"),
    "gamma": ("inverse", "log", "identity"),
    "negative-binomial": ("log", "identity"),
    "gaussian": ("identity", "log", "inverse"),
}
RESPONSES = {
    "binomial": "0 or 1",
    "poisson": "0 or more",
    "gamma": "above 0",
    "negative-binomial": "0 or more",
    "gaussian": "numbers",
}
ETA_LOG, ETA_LOGIT, ETA_PROBIT = 345.0, 700.0, 30.0  # beyond them means leave the range of float64 squares


@dataclass(frozen=True)
class Weights:
    """Per record: information and score weights, deviance, Pearson's squared residual, is mu in the family's range?

    The first four are 0 where it is not.
    """

    information: Values
    score: Values
    deviance: Values
    pearson: Values
    valid: Values


@dataclass(frozen=True)
class Family:
    """name: a key of `LINKS`; alpha: of the negative binomial, V = mu + alpha mu^2."""

    name: str
    link: str
    alpha: float = 1.0

    @property
    def fixed_scale(self) -> bool:
        """Is the dispersion 1? Otherwise it is Pearson's chi-square over the residual degrees of freedom."""
        return self.name not in ("gamma", "gaussian")

    @property
    def in_database(self) -> bool:
        """Can a database compute the weights? It has no normal distribution function."""
        return self.link != "probit"

    @property
    def separable(self) -> bool:
        """Can responses on the boundary send coefficients to infinity?"""
        return (self.name == "binomial" and self.link in ("logit", "probit")) or (
            self.name in ("poisson", "negative-binomial") and self.link == "log"
        )

    def adverse(self, y: NDArray[np.float64], along: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far each record moves away from its response when its linear predictor moves by `along`."""
        if self.name == "binomial":
            return np.where(y > 0.5, -along, along)
        return np.where(y == 0, along, np.abs(along))

    def predictor(self, mu: float) -> float:
        """eta of a mean. Raises UsageError when the mean lies on the boundary, where all responses are the same."""
        if self.name != "gaussian" and (mu <= 0 or (self.name == "binomial" and mu >= 1)):
            raise UsageError(f"formula: the response is {mu:g} at every record; want one that varies")
        if self.link == "logit":
            return math.log(mu / (1 - mu))
        if self.link == "probit":
            return float(special.ndtri(mu))
        if self.link == "identity":
            return mu
        if mu <= 0:
            raise UsageError(f"formula: got a mean response of 0 or less with the {self.link} link; want identity")
        return math.log(mu) if self.link == "log" else 1 / mu

    def allowed(self, y: Values) -> Values:
        """Is the response one that the family allows?"""
        if self.name == "binomial":
            return (y == 0) | (y == 1)
        if self.name == "gaussian":
            return y == y
        return y > 0 if self.name == "gamma" else y >= 0

    def saturated(self, y: Values) -> Values:
        """The part of a record's log-likelihood that does not depend on mu; the rest is -deviance / (2 scale)."""
        if self.name == "gamma":
            return -_log(y)
        if self.name not in ("poisson", "negative-binomial"):
            return y * 0.0
        positive = _where(y > 0, y, _one(y))
        own = y * _log(positive) - y - _lgamma(y + 1.0)
        if self.name == "poisson":
            return own
        r, alpha = _real(y, 1 / self.alpha), _real(y, self.alpha)
        return (
            y * _log(positive)
            - (y + r) * _log(y * alpha + 1.0)
            + y * math.log(self.alpha)
            + (_lgamma(y + r) - _lgamma(y + 1.0) - math.lgamma(1 / self.alpha))
        )

    def log_likelihood(self, deviance: float, saturated: float, n: float, scale: float) -> float | None:
        """Sum over n (weighted) records. None where it is infinite."""
        if self.fixed_scale:
            return saturated - deviance / 2
        if scale <= 0 or deviance <= 0:
            return None
        if self.name == "gamma":
            k = 1 / scale
            return saturated + n * (k * math.log(k) - k - math.lgamma(k)) - k * deviance / 2
        if self.link == "identity":
            scale = deviance / n
        return -(deviance / scale + n * math.log(2 * math.pi * scale)) / 2

    def weights(self, y: Values, eta: Values, f: Values) -> Weights:
        """At linear predictors eta (offset included), with frequency weights f."""
        mu, nu, slope, valid = self.mean(eta)
        return self.weights_at(y, mu, nu, slope, _where(valid, f, f * 0.0), valid)

    def mean(self, eta: Values) -> tuple[Values, Values, Values, Values]:
        """mu, 1 - mu, d mu / d eta, and is mu in the family's range? Where not, the first three are 1/2."""
        mu, nu, slope, valid = self._linked(eta)
        if self.name == "binomial":
            valid = valid & (mu > 0) & (nu > 0)
        elif self.name != "gaussian":
            valid = valid & (mu > 0)
        half = _one(eta) / 2.0
        return _where(valid, mu, half), _where(valid, nu, half), _where(valid, slope, half), valid

    def weights_at(self, y: Values, mu: Values, nu: Values, slope: Values, f: Values, valid: Values) -> Weights:
        """At means in the family's range; f is 0 where they were not."""
        variance = self._variance(mu, nu)
        residual = _where(y > 0.5, nu, -mu) if self.name == "binomial" else y - mu
        information, score = f * slope * slope / variance, f * residual * slope / variance
        return Weights(information, score, f * self._deviance(y, mu, nu), f * residual * residual / variance, valid)

    def initial(self, y: NDArray[np.float64], mean: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Linear predictors and information weights at the usual start, halfway between the response and its mean."""
        mu = (y + 0.5) / 2 if self.name == "binomial" else (y + mean) / 2
        if self.link != "identity" and self.name == "gaussian":
            mu = np.maximum(mu, abs(mean) / 100)
        if self.link in ("logit", "probit"):
            eta = special.logit(mu) if self.link == "logit" else special.ndtri(mu)
        else:
            eta = {"log": np.log, "identity": np.array, "inverse": np.reciprocal}[self.link](mu)  # type: ignore[operator]
        return eta, self.weights(y, eta, np.ones(len(y))).information

    def _variance(self, mu: Values, nu: Values) -> Values:
        if self.name == "binomial":
            return mu * nu
        if self.name == "negative-binomial":
            return mu + mu * mu * _real(mu, self.alpha)
        return {"poisson": mu, "gamma": mu * mu, "gaussian": mu * 0.0 + 1.0}[self.name]

    def _deviance(self, y: Values, mu: Values, nu: Values) -> Values:
        one = _one(mu)
        if self.name == "binomial":
            return _log(_where(y > 0.5, mu, nu)) * -2.0
        if self.name == "gaussian":
            return (y - mu) * (y - mu)
        y_log = _log(_where(y > 0, y, one) / _where(y > 0, mu, one))
        if self.name == "gamma":
            return ((y - mu) / mu - y_log) * 2.0
        if self.name == "poisson":
            return (y * y_log - (y - mu)) * 2.0
        alpha = _real(mu, self.alpha)
        return (y * y_log - (y + one / alpha) * _log((y * alpha + 1.0) / (mu * alpha + 1.0))) * 2.0

    def _linked(self, eta: Values) -> tuple[Values, Values, Values, Values]:
        """mu, 1 - mu, d mu / d eta, and is eta in the link's range?"""
        if self.link == "logit":
            e = _exp(-_least(_absolute(eta), ETA_LOGIT))
            large, small = 1.0 / (e + 1.0), e / (e + 1.0)
            return _where(eta >= 0, large, small), _where(eta >= 0, small, large), large * small, eta == eta
        if self.link == "probit":
            inside = np.clip(eta, -ETA_PROBIT, ETA_PROBIT)
            density = np.exp(-inside * inside / 2) / math.sqrt(2 * math.pi)
            return special.ndtr(inside), special.ndtr(-inside), density, eta == eta
        if self.link == "log":
            mu = _exp(-_least(-_least(eta, ETA_LOG), ETA_LOG))
            return mu, 1.0 - mu, mu, eta <= ETA_LOG
        if self.link == "identity":
            return eta, 1.0 - eta, eta * 0.0 + 1.0, eta == eta
        usable = eta > 1e-150 if self.name == "gamma" else _absolute(eta) > 1e-150
        mu = 1.0 / _where(usable, eta, _one(eta))
        return mu, 1.0 - mu, -mu * mu, usable


def _array(x: Values) -> bool:
    return isinstance(x, np.ndarray)


def _real(like: Values, value: float) -> Values:
    return value if _array(like) else real(value)


def _one(like: Values) -> Values:
    return np.ones(len(like)) if _array(like) else real(1.0)


def _exp(x: Values) -> Values:
    return np.exp(x) if _array(x) else x.exp()


def _log(x: Values) -> Values:
    return np.log(x) if _array(x) else x.ln()


def _absolute(x: Values) -> Values:
    return np.abs(x) if _array(x) else x.abs()


def _where(condition: Values, a: Values, b: Values) -> Values:
    return np.where(condition, a, b) if _array(condition) else ibis.ifelse(condition, a, b)


def _least(x: Values, limit: float) -> Values:
    return np.minimum(x, limit) if _array(x) else ibis.ifelse(x > limit, real(limit), x)


def _lgamma(x: Values) -> Values:
    """log Gamma of positive values. In a database by Stirling's series at x + 10, to about 14 digits.

    Source: Abramowitz and Stegun 1964, 6.1.41 and 6.1.15.
    """
    if _array(x):
        return special.gammaln(x)
    product, z = x, x + 10.0
    for i in range(1, 10):
        product = product * (x + float(i))
    w = 1.0 / (z * z)
    series = w * (1 / 1188) - real(1 / 1680)
    for coefficient in (1 / 1260, -1 / 360, 1 / 12):
        series = series * w + real(coefficient)
    return (z - real(0.5)) * z.ln() - z + real(0.5 * math.log(2 * math.pi)) + series / z - product.ln()
