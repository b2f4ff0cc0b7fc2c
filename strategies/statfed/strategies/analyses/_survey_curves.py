"""Kaplan-Meier curves and the log-rank test under a sample design: the coordinator's half of `survival` with `design`.

The curve is the product-limit estimate of weighted numbers, R's svykm(se = FALSE); its standard error comes from the
linearised logarithm, or from the curve of every replicate weight, and limits are taken on the logarithm, as R's confint
of svykm. Beside it stands the Nelson-Aalen hazard, whose standard error is that of svykm(se = TRUE): R's curve there is
exp(-hazard). The log-rank test has the design's variance of the total of its scores, as R's svylogrank.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Ask, Total
from statfed.core.result import Scalar
from statfed.strategies.analyses._design_totals import spread_of
from statfed.strategies.analyses._kaplan_meier import Curve, quadratic
from statfed.strategies.analyses._lifetime_design import curve_figures, sampled, score_figures
from statfed.strategies.analyses._lifetimes import at_risk
from statfed.strategies.analyses._replication import replication
from statfed.strategies.analyses._survey import SurveyDesign

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Test = tuple[float | None, int, float | None]


@dataclass(frozen=True)
class Exits:
    """Weighted and counted records of groups: at risk and with an event, (groups, T) each."""

    risk: Floats
    hazard: Floats
    events: Floats
    counts: Ints  # (groups, T, 2): without and with an event
    there: Ints  # (groups, T): at risk

    @classmethod
    def of(cls, counts: Ints, entered: Ints | None, weights: Floats, entering: Floats | None) -> "Exits":
        there = at_risk(counts.sum(-1), entered)
        risk, hazard = sampled(
            np.stack([at_risk(weights.sum(-1), entering), weights[..., 1]]), np.stack([there, counts[..., 1]])
        )
        return cls(risk, hazard, weights[..., 1], counts, there)

    @property
    def survival(self) -> Floats:
        """Product-limit estimates: (groups, T)."""
        return np.asarray(np.cumprod(1 - self.hazard, axis=-1), np.float64)


@dataclass(frozen=True)
class Curves:
    """Curves with their cumulative hazards, (groups, T) each; the log-rank test; facts of the design."""

    curves: list[Curve]
    hazard: Floats
    hazard_error: Floats
    test: Test | None
    facts: Mapping[str, Scalar]


def by_design(
    codebook: Codebook,
    design: SurveyDesign,
    times: Floats,
    level: float,
    exits: Exits,
    tested: bool,
) -> Generator[Ask, Total, Curves]:
    """Asks for what the variances need: `replicates`, or `curve` and, for the test, `test`."""
    scores = score_figures(exits.risk, exits.events, exits.counts[..., 1].sum(0)) if tested else None
    survival, hazard = exits.survival, np.cumsum(exits.hazard, axis=-1)
    if design.replicates:
        found = yield Ask("replicates")
        facts: dict[str, Scalar] = {"replicates": len(design.replicates)}
        error, hazard_error, test = _replicated(codebook, exits, found, scores)
    else:
        jump, fall = curve_figures(exits.risk, exits.hazard)
        spread = spread_of(codebook, design, (yield Ask("curve", {"jump": jump, "fall": fall})))
        linear = np.zeros(0) if spread.linear is None else spread.linear
        errors = np.sqrt(linear.reshape(2, *survival.shape).clip(0))
        error, hazard_error, facts = survival * errors[1], errors[0], dict[str, Scalar](spread.facts)
        test = None
        if scores is not None:
            sums = spread_of(codebook, design, (yield Ask("test", {"jump": scores[0], "fall": scores[1]})))
            if sums.linear is not None:
                test = _test(sums.total[0], sums.linear[0], exits)
    curves = [_curve(times, exits, g, survival[g], error[g], level) for g in range(len(survival))]
    return Curves(curves, hazard, hazard_error, test, facts)


def _replicated(
    codebook: Codebook, exits: Exits, found: Total, scores: tuple[Floats, Floats] | None
) -> tuple[Floats, Floats, Test | None]:
    """Standard errors of survival and hazard, and the test, from curves and scores under each replicate weight."""
    method = replication(codebook)
    shape, (groups, size) = found["exits"].shape, exits.risk.shape
    weights = found["exits"].reshape(shape[0], groups, size, 2)
    if (weights < 0).any():
        raise UsageError("weight: got negative totals of replicate weights; want weights that are not negative")
    entering = found["entered"].reshape(shape[0], groups, size) if "entered" in found else None
    risk = at_risk(weights.sum(-1), entering)
    each, hazards = sampled(
        np.stack([risk, weights[..., 1]]),
        np.broadcast_to(np.stack([exits.there, exits.counts[..., 1]])[:, None], (2, *risk.shape)),
    )
    empty = ~(each > 0).any(axis=-1, keepdims=True)
    survival = np.where(empty, np.nan, np.cumprod(1 - hazards, axis=-1))
    hazard = np.where(empty, np.nan, np.cumsum(hazards, axis=-1))
    error, hazard_error = (np.sqrt(method.variance(x)) for x in (survival, hazard))
    if scores is None:
        return error, hazard_error, None
    jump, fall = scores
    totals = np.einsum("rgt,fgt->rf", weights[..., 1], jump) - np.einsum("rgt,fgt->rf", risk, fall)
    whole = np.einsum("gt,fgt->f", exits.events, jump) - np.einsum("gt,fgt->f", exits.risk, fall)
    return error, hazard_error, _test(whole, method.covariance(totals), exits)


def _test(scores: Floats, covariance: Floats, exits: Exits) -> Test:
    """Chi-square of the scores; unknown where the design has too few units for as many groups."""
    chi_square, df, p_value = quadratic(scores, covariance)
    if df < int((exits.risk.max(axis=-1, initial=0) > 0).sum()) - 1:
        return None, 0, None
    return chi_square, df, p_value


def _curve(times: Floats, exits: Exits, group: int, survival: Floats, error: Floats, level: float) -> Curve:
    """With limits on the logarithm. Errors and limits are not defined once survival is 0."""
    counts = exits.counts[group]
    length = int(np.flatnonzero(counts.sum(1))[-1]) + 1 if counts.any() else 0
    survival, error = survival[:length], np.where(survival[:length] > 0, error[:length], np.nan)
    half = stats.norm.ppf((1 + level) / 2) * np.divide(error, survival, out=np.full(length, np.nan), where=survival > 0)
    return Curve(
        times=times[:length],
        at_risk=exits.there[group][:length].astype(np.float64),
        events=counts[:length, 1].astype(np.float64),
        censored=counts[:length, 0].astype(np.float64),
        survival=survival,
        std_error=error,
        lower=survival * np.exp(-half),
        upper=np.minimum(survival * np.exp(half), 1.0),
    )
