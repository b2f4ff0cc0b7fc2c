"""The Cox partial likelihood from sums over grid intervals, and its maximum: the coordinator's arithmetic of `cox`.

Moments are packed: for a record with covariates z (p,) and weight w = exp(z'b) they are w, w z and w z z' (upper
triangle by rows), q = 1 + p + p (p + 1) / 2 numbers.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Total
from statfed.strategies.analyses._lifetimes import at_risk

Floats = NDArray[np.float64]
Ties = Literal["efron", "breslow"]
COLLINEAR = 1e-10  # share of a covariate's information that the covariates before it may leave
STALLED = 1e-5  # standard errors to the maximum, within which a search may end for want of precision
HALVINGS = 12  # of a step that does not improve the likelihood
CHUNK = 2**20


@dataclass(frozen=True)
class Likelihood:
    """Log partial likelihood at `beta`, its gradient (p,) and negative Hessian (p, p), and moments at risk.

    risk: (strata, T), the sum of weights at risk at each grid time. spread: (p,), standard deviations of the
    covariates around 0 under the weights. rates: (strata, T, 2), the hazard of a grid time, and that of the part of it
    that the tied events are not at risk for; means: (strata, T, 3, p), the covariates' means in the risk set times
    each of these, and their mean over the tied events. events: (strata, T), sum of the weights of the events.
    """

    beta: Floats
    value: float
    score: Floats
    information: Floats
    risk: Floats
    spread: Floats
    rates: Floats
    means: Floats
    events: Floats


@dataclass(frozen=True)
class Fit:
    """The maximum, the null model, the number of sums that were asked for, and the distance to the maximum in
    standard errors that was reached."""

    null: Likelihood
    best: Likelihood
    covariance: Floats
    iterations: int
    reached: float


def packed(p: int) -> int:
    """Numbers per set of moments."""
    return 1 + p + p * (p + 1) // 2


def likelihood(
    beta: Floats,
    leaving: Floats,
    entering: Floats | None,
    deaths: NDArray[np.int64],
    covered: Floats,
    ties: Ties,
    events: Floats | None = None,
) -> Likelihood:
    """Efron's or Breslow's partial likelihood; with weights of records that of tied events is their mean, as R's coxph.

    leaving: (strata, T, 2, q), moments of the records that left without and with an event. entering: (strata, T, q),
    by first interval at risk, None without entries. deaths: (strata, T). covered: (p,), sum of the events' covariates.
    events: (strata, T), weights of the events, which the moments and `covered` have; None where they are 1.
    Source: Efron 1977; Breslow 1974; Therneau and Grambsch 2000, section 3.3.
    """
    p = len(beta)
    everybody = leaving.sum(2)
    risk = at_risk(everybody, entering, axis=1)
    dying = (deaths > 0) & (True if events is None else events > 0)
    r, e, d = risk[dying], leaving[:, :, 1][dying] * (ties == "efron"), deaths[dying]
    logs, a, b = _tied(r[:, 0], e[:, 0], d, np.ones(len(d)) if events is None else events[dying] / d)
    r1, e1 = r[:, 1 : p + 1], e[:, 1 : p + 1]
    score = covered - (a[0] @ r1 - a[1] @ e1)
    cross = (r1 * b[1][:, None]).T @ e1
    information = _square(a[0] @ r[:, p + 1 :] - a[1] @ e[:, p + 1 :], p)
    information -= (r1 * b[0][:, None]).T @ r1 - cross - cross.T + (e1 * b[2][:, None]).T @ e1
    total = everybody.sum((0, 1))
    spread = np.sqrt(np.diag(_square(total[p + 1 :], p)) / total[0]) if total[0] > 0 else np.zeros(p)
    rates, means = np.zeros((*deaths.shape, 2)), np.zeros((*deaths.shape, 3, p))
    tied, weight = float(ties == "efron"), d if events is None else events[dying]
    rates[dying] = np.stack([a[0], tied * a[1]], axis=-1)
    first, second = (b[i][:, None] * r1 - b[i + 1][:, None] * e1 for i in range(2))
    mean = (a[0][:, None] * r1 - a[1][:, None] * e1) / weight[:, None]
    means[dying] = np.stack([first, tied * second, mean], axis=1)
    return Likelihood(
        beta,
        float(covered @ beta) - logs,
        score,
        (information + information.T) / 2,
        risk[..., 0],
        spread,
        rates,
        means,
        deaths.astype(np.float64) if events is None else events.copy(),
    )


def _tied(risk: Floats, event: Floats, deaths: NDArray[np.int64], weight: Floats) -> tuple[float, Floats, Floats]:
    """Sums over the l-th of d tied events of this mean weight with s(l) = risk - (l / d) event, l = 0 .. d - 1.

    Returns the total of log s; (2, n) sums of 1/s and (l/d)/s; (3, n) sums of 1, l/d and (l/d)^2 over s^2.
    """
    logs = 0.0
    a, b = np.zeros((2, len(deaths))), np.zeros((3, len(deaths)))
    for i, d in enumerate(deaths):
        for start in range(0, int(d), CHUNK):
            f = np.arange(start, min(start + CHUNK, int(d))) / d
            s = max(risk[i], event[i]) - f * event[i]
            logs += float(weight[i] * np.log(s).sum())
            a[:, i] += (1 / s).sum(), (f / s).sum()
            b[:, i] += (1 / s**2).sum(), (f / s**2).sum(), (f**2 / s**2).sum()
    return logs, a * weight, b * weight


def _square(triangle: Floats, p: int) -> Floats:
    square = np.zeros((p, p))
    square[np.triu_indices(p)] = triangle
    return np.asarray(square + np.triu(square, 1).T)


Evaluation = Generator[Ask, Total, Likelihood | None]


def maximise(
    names: tuple[str, ...],
    start: Likelihood,
    evaluate: Callable[[Floats], Evaluation],
    iterations: int,
    tolerance: float,
) -> Generator[Ask, Total, Fit]:
    """Newton's method with step halving from `start`, the likelihood at beta = 0.

    evaluate: asks for the likelihood at a beta; None where exp(z'b) leaves the range of numbers. Ends where the
    maximum is `tolerance` standard errors away, or where it comes no closer than `STALLED` for want of precision.
    Raises UsageError when there is no maximum: a coefficient grows without limit, or `iterations` are not enough.
    """
    here, before, reached = start, np.inf, np.inf
    for iteration in range(1, iterations + 1):
        covariance = _inverse(here.information, start, here, names)
        step = covariance @ here.score
        reached = float(np.sqrt(max(float(here.score @ step), 0.0)))
        moved = np.abs(step) * start.spread
        if reached < STALLED and moved.max() > 0.01:
            raise _monotone(names, moved)
        if reached <= tolerance or (reached < STALLED and reached > before / 2):
            return Fit(start, here, covariance, iteration, reached)
        before = reached
        for _ in range(HALVINGS):
            there = yield from evaluate(here.beta + step)
            if there is not None and (reached < 1e-3 or there.value >= here.value):
                break
            step = step / 2
        else:
            raise _monotone(names, moved)
        here = there
    raise UsageError(
        f"cox: got no maximum within {iterations} iterations, {reached:.1e} standard errors from it; want more "
        "max_iterations, or fewer covariates"
    )


def identified(names: tuple[str, ...], null: Likelihood, center: Floats) -> None:
    """Raises UsageError where the data cannot tell the coefficients apart, naming the covariate. center: (p,)."""
    own = np.diag(null.information)
    for name, information, spread, middle in zip(names, own, null.spread, center, strict=True):
        if spread <= 1e-9 * abs(middle):
            raise UsageError(f"covariates: {name}: got the same value in all records; want one that varies")
        if information <= 1e-12 * spread**2:
            raise UsageError(
                f"covariates: {name}: got the same value in all records at risk together; want one that varies there"
            )
    scale = np.sqrt(own)
    correlation = null.information / scale[:, None] / scale
    factor = np.zeros_like(correlation)
    for k, name in enumerate(names):
        row = np.linalg.solve(factor[:k, :k], correlation[:k, k]) if k else np.zeros(0)
        left = 1 - float(row @ row)
        if left <= COLLINEAR:
            raise UsageError(
                f"covariates: {name}: got a combination of {', '.join(names[:k])} in all records at risk; want "
                "covariates that are not collinear, and more events than covariates"
            )
        factor[k, :k], factor[k, k] = row, np.sqrt(left)


def _inverse(information: Floats, start: Likelihood, here: Likelihood, names: tuple[str, ...]) -> Floats:
    scale = np.sqrt(np.diag(start.information))
    scaled = information / scale[:, None] / scale
    if not np.linalg.eigvalsh(scaled)[0] > 1e-13:
        raise _monotone(names, np.abs(here.beta) * start.spread)
    return np.asarray(np.linalg.inv(scaled) / scale[:, None] / scale)


def _monotone(names: tuple[str, ...], size: Floats) -> UsageError:
    grown = ", ".join(name for name, one in zip(names, size, strict=True) if one > 0.1 * size.max())
    return UsageError(
        f"cox: the likelihood has no maximum: got a coefficient without limit for {grown}; want covariates that do not "
        "predict the order of events perfectly, events at every level, and no extreme values"
    )
