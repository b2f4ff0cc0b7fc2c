"""Survival curves and rank tests from counts on a time grid: the coordinator's arithmetic of `survival`."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from statfed.strategies.analyses._lifetimes import at_risk

Floats = NDArray[np.float64]
HALF = 0.5 * (1 + 1e-12)  # a product that is one half but for rounding counts as one half
CLEAR = 3.0  # a private curve ends where fewer than this many standard deviations of noise are at risk


@dataclass(frozen=True)
class Curve:
    """One survival curve; all arrays (length,), one entry per grid time until the curve ends.

    at_risk, events, censored: counts. survival: estimate after the grid time. std_error, lower, upper: NaN where they
    are not defined.
    """

    times: Floats
    at_risk: Floats
    events: Floats
    censored: Floats
    survival: Floats
    std_error: Floats
    lower: Floats
    upper: Floats

    def quantile(self, values: Floats) -> float | None:
        """First grid time at which a curve (`survival`, `lower` or `upper`) is one half or less."""
        below = np.flatnonzero(values <= HALF)
        return float(self.times[below[0]]) if len(below) else None


def kaplan_meier(times: Floats, exits: NDArray[np.int64], entered: NDArray[np.int64] | None, level: float) -> Curve:
    """Product-limit estimate with Greenwood's standard error and log(-log) limits.

    exits: (T, 2), censorings and events by interval; entered: (T,), first intervals at risk, None without entries.
    Limits are 1 before the first event and undefined once survival is 0.
    Source: Kalbfleisch and Prentice 2002, section 1.4.
    """
    length = int(np.flatnonzero(exits.sum(1))[-1]) + 1 if exits.any() else 0
    risk = at_risk(exits.sum(1), entered).astype(float)[:length]
    censored, events = exits[:length].astype(float).T
    survival = np.cumprod(np.divide(risk - events, risk, out=np.ones(length), where=risk > 0), dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.cumsum(np.where(events > 0, events / (risk * (risk - events)), 0.0))
        spread = stats.norm.ppf((1 + level) / 2) * np.sqrt(variance) / -np.log(survival)
        lower, upper = (np.where(survival < 1, survival ** np.exp(s), 1.0) for s in (spread, -spread))
    dead = survival <= 0
    lower, upper, error = (
        np.where(dead, np.nan, x) for x in (lower, upper, survival * np.sqrt(np.where(dead, 0, variance)))
    )
    return Curve(times[:length], risk, events, censored, survival, error, lower, upper)


def noisy_kaplan_meier(times: Floats, exits: Floats, noise: Floats, level: float) -> Curve:
    """Product-limit estimate from counts with independent noise of known standard deviation, both (T, 2).

    Counts enter as they are, also negative ones, so that their errors average out; the curve is then made decreasing
    by isotonic regression and clamped to 0..1. std_error: Greenwood's variance plus the noise's by the delta method;
    limits are estimate -+ quantile * std_error, clamped to 0..1. The curve ends where the records at risk are fewer
    than `CLEAR` standard deviations of their noise. Source: Gondara and Wang 2020 for noise on counts at risk.
    """
    events, variance = exits[:, 1], noise**2
    risk = at_risk(exits.sum(1))
    spread = np.sqrt(at_risk(variance.sum(1)))
    unclear = np.flatnonzero((risk <= CLEAR * spread) | (risk - events <= CLEAR * spread / 2) | (risk < 1))
    length = int(unclear[0]) if len(unclear) else len(times)
    d, n = events[:length], risk[:length]
    raw = np.cumprod((n - d) / n)
    greenwood = np.maximum(np.cumsum(d / (n * (n - d))), 0.0)
    # d log S(j) / d exits(k) = sum of d / (n (n - d)) over i <= min(j, k), for events less 1 / (n - d) at k <= j
    slope = np.cumsum(d / (n * (n - d)))
    order = np.arange(length)
    reach = slope[np.minimum.outer(order, order)]
    through = np.tril(np.ones((length, length))) / (n - d)
    added = reach**2 @ variance[:length, 0] + (reach - through) ** 2 @ variance[:length, 1]
    added += slope**2 * variance[length:].sum()
    error = raw * np.sqrt(greenwood + added)
    smooth = optimize.isotonic_regression(raw, increasing=False).x if length else raw
    survival = np.asarray(np.clip(smooth, 0.0, 1.0), np.float64)
    half = stats.norm.ppf((1 + level) / 2) * error
    return Curve(
        times=times[:length],
        at_risk=_whole(n),
        events=_whole(d),
        censored=_whole(exits[:length, 0]),
        survival=survival,
        std_error=error,
        lower=np.clip(survival - half, 0, 1),
        upper=np.clip(survival + half, 0, 1),
    )


def _whole(counts: Floats) -> Floats:
    return np.maximum(np.round(counts), 0.0)


def restricted_mean(curve: Curve, to: float) -> tuple[float | None, float | None]:
    """Area under the curve up to a time, and its standard error; None where the curve ends above 0 before it.

    Variance: sum of A(t)^2 d / (n (n - d)), A(t) the area from t on. Source: Klein and Moeschberger 2003, section 4.5.
    """
    if not len(curve.times) or (curve.times[-1] < to and curve.survival[-1] > 0):
        return None, None
    at = np.concatenate([[0.0], np.minimum(curve.times, to), [to]])
    areas = np.concatenate([[1.0], curve.survival]) * np.diff(at)
    after = areas[1:].sum() - np.concatenate([[0.0], np.cumsum(areas[1:])])[:-1]
    d, r = curve.events, curve.at_risk
    term = np.divide(d, r * (r - d), out=np.zeros(len(d)), where=(d > 0) & (r > d))
    return float(areas.sum()), math.sqrt(float((after**2 * term).sum()))


def rank_test(events: Floats, risk: Floats, weights: Floats) -> tuple[float | None, int, float | None]:
    """Chi-square, degrees of freedom and p-value of a (weighted, stratified) log-rank test of equal hazards.

    events, risk: (groups, strata, T); weights: (strata, T). Degrees of freedom are the rank of the covariance matrix:
    the number of groups less one, groups that were never at risk together with another one left aside.
    Source: Kalbfleisch and Prentice 2002, section 1.5; Fleming and Harrington 1981 for weights.
    """
    d, n = events.sum(0), risk.sum(0)
    share = np.divide(risk, n, out=np.zeros(risk.shape), where=n > 0)
    surplus = (weights * (events - share * d)).sum((1, 2))
    factor = weights**2 * d * np.divide(n - d, n - 1, out=np.zeros(n.shape), where=n > 1)
    flat = share.reshape(len(share), -1)
    covariance = np.diag((share * factor).sum((1, 2))) - (flat * factor.reshape(-1)) @ flat.T
    return quadratic(surplus, covariance)


def quadratic(surplus: Floats, covariance: Floats) -> tuple[float | None, int, float | None]:
    """Chi-square of figures of mean 0, its degrees of freedom, the rank of their covariance, and the p-value."""
    scale = np.sqrt(np.diag(covariance).clip(0))
    kept = scale > 1e-9 * max(float(scale.max(initial=0)), 1e-300)
    values, vectors = np.linalg.eigh(covariance[np.ix_(kept, kept)] / np.outer(scale[kept], scale[kept]))
    real = values > 1e-9
    df = int(real.sum())
    if not df:
        return None, 0, None
    rotated = vectors[:, real].T @ (surplus[kept] / scale[kept])
    chi_square = float((rotated**2 / values[real]).sum())
    return chi_square, df, float(stats.chi2.sf(chi_square, df))


def expected_events(events: Floats, risk: Floats) -> Floats:
    """Events expected in each group if hazards were equal within strata: (groups,) from (groups, strata, T)."""
    n = risk.sum(0)
    share = np.divide(risk, n, out=np.zeros(risk.shape), where=n > 0)
    return np.asarray((share * events.sum(0)).sum((1, 2)))
