"""Reconstruction of a weighted directed network from aggregates: point estimates, an ensemble, and how good they are.

Three steps. *Weights*: iterative proportional fitting of a prior to out-strengths, in-strengths and the total weight in
groups of pairs (distance classes, say). With a flat prior and without groups that is the network of maximum entropy;
with both, a gravity model whose deterrence is a step function fitted to the groups. *Links*: the fitness model, in
which a pair of expected weight w is linked with probability z w / (1 + z w), z such that the expected number of links
is the known one. *Ensemble*: links drawn from those probabilities, weights of linked pairs exponential, so that the
expected weight of every pair is the fitted one.
Sources: Deming and Stephan 1940; Wilson 1967; Cimini, Squartini, Garlaschelli and Gabrielli 2015, Systemic risk
analysis on reconstructed economic and financial networks, Scientific Reports 5; Parisi, Squartini and Garlaschelli
2020, New Journal of Physics 22, for weights conditional on links.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import rankdata

from statfed.core.errors import UsageError

Floats = NDArray[np.float64]
AGREE = 1e-9  # totals of margins differ by no more than this share
NOTHING = 1e-12  # expected weights below this share of the largest are none: such pairs are not linked


@dataclass(frozen=True)
class Fitted:
    """weights: (nodes, nodes), payers down. rounds: of fitting; gap: largest remaining difference from any
    margin, as a share of the total. Above the tolerance the margins contradict each other or the prior's zeros."""

    weights: Floats
    rounds: int
    gap: float


def fit(
    prior: Floats,
    out: Floats,
    into: Floats,
    groups: NDArray[np.int64] | None = None,
    totals: Floats | None = None,
    tolerance: float = 1e-9,
    most: int = 1_000,
) -> Fitted:
    """The weights closest to `prior` in Kullback-Leibler divergence that have the given margins.

    prior: (nodes, nodes), not negative; 0 stays 0. out, into: (nodes,) sums of rows and columns. groups: the group of
    every pair, (nodes, nodes); totals: (groups,). Where no weights meet all margins the last fitted ones hold: groups
    come first, then rows, then columns. Raises UsageError on negative margins or totals that differ.
    """
    margins = (out, into) if totals is None else (out, into, totals)
    if any((margin < 0).any() for margin in margins):
        raise UsageError("margins: got negative ones; want none below 0")
    total = float(out.sum())
    if any(abs(float(margin.sum()) - total) > AGREE * max(total, 1.0) for margin in margins):
        raise UsageError(f"margins: got totals {', '.join(f'{m.sum():.6g}' for m in margins)}; want the same")
    weights = np.where((out > 0)[:, None] & (into > 0)[None, :], prior, 0.0)
    gap, rounds = math.inf, 0
    while gap > tolerance and rounds < most:
        rounds += 1
        if totals is not None and groups is not None:
            weights = weights * _ratio(totals, _by_group(weights, groups, len(totals)))[groups]
        weights = weights * _ratio(out, weights.sum(axis=1))[:, None]
        weights = weights * _ratio(into, weights.sum(axis=0))[None, :]
        gap = float(np.abs(weights.sum(axis=1) - out).max())
        if totals is not None and groups is not None:
            gap = max(gap, float(np.abs(_by_group(weights, groups, len(totals)) - totals).max()))
        gap = max(gap, float(np.abs(weights.sum(axis=0) - into).max())) / max(total, 1e-300)
    return Fitted(weights, rounds, gap)


def reconciled(margins: tuple[Floats, ...], spread: tuple[Floats, ...], sums: tuple[float, ...]) -> tuple[Floats, ...]:
    """Uncertain margins of one network, brought to one total and to at least 0.

    spread: standard errors of each margin's entries, 0 where exact; sums: each margin's own grand total, which noise
    leaves unbiased where entries were cut at 0. The common total is the mean of those, weighted by inverse variances;
    where a margin is exact, the mean of the exact ones. A margin is moved to the nearest one that has that total and no
    entry below 0 (Euclidean projection: all positive entries change by the same amount); an exact one is scaled.
    """
    variances = np.array([(errors**2).sum() for errors in spread])
    precise = variances == 0
    weights = precise.astype(float) if precise.any() else 1.0 / variances
    total = max(0.0, float((weights * np.array(sums)).sum() / weights.sum()))
    return tuple(
        margin * (total / margin.sum()) if exact and margin.sum() > 0 else _projected(margin, total)
        for margin, exact in zip(margins, precise, strict=True)
    )


def _projected(values: Floats, total: float) -> Floats:
    """The nearest point with entries of at least 0 that add up to `total` (Held, Wolfe and Crowder 1974)."""
    ordered = np.sort(values)[::-1]
    shift = (np.cumsum(ordered) - total) / np.arange(1, len(values) + 1)
    last = np.flatnonzero(ordered - shift >= 0).max(initial=0)
    moved = np.maximum(values - shift[last], 0.0)
    return moved * (total / moved.sum()) if moved.sum() > 0 else np.full(len(values), total / len(values))


def possible_links(weights: Floats) -> NDArray[np.bool_]:
    """Pairs whose expected weight is more than nothing."""
    return np.asarray(weights > NOTHING * weights.max(initial=0.0))


def link_probabilities(weights: Floats, links: float) -> Floats:
    """Probability that each pair is linked, from its expected weight and the expected number of links.

    Solves sum z w / (1 + z w) = links for z. Raises UsageError unless 0 < links < possible links.
    """
    possible = possible_links(weights)
    positive = weights[possible]
    if not 0 < links < len(positive):
        raise UsageError(f"links: got {links:g} for {len(positive)} possible pairs; want more than 0 and fewer")
    scaled = positive / positive.mean()

    def excess(log_z: float) -> float:
        return float((1.0 / (1.0 + np.exp(-log_z) / scaled)).sum()) - links

    logs = np.log(scaled)
    log_z = float(brentq(excess, -logs.max() - 60.0, -logs.min() + 60.0, xtol=1e-12))
    found = np.zeros(weights.shape)
    found[possible] = 1.0 / (1.0 + np.exp(-log_z) / scaled)
    return found


def draw(weights: Floats, probability: Floats, rng: np.random.Generator) -> Floats:
    """One network of the ensemble: linked pairs have exponential weights of mean weight / probability."""
    linked = rng.random(weights.shape) < probability
    mean = np.divide(weights, probability, out=np.zeros(weights.shape), where=probability > 0)
    return np.where(linked, mean * rng.exponential(size=weights.shape), 0.0)


def misplaced(weights: Floats, truth: Floats) -> float:
    """Share of the true total weight that is with another pair: half the sum of |difference|, over the total."""
    return float(np.abs(weights - truth).sum() / 2 / truth.sum())


def link_auc(score: Floats, truth: Floats) -> float:
    """Probability that a linked pair has a higher score than one without a link (area under the ROC curve)."""
    linked = truth.ravel() > 0
    n, m = int(linked.sum()), int((~linked).sum())
    if not n or not m:
        return float("nan")
    return float((rankdata(score.ravel())[linked].sum() - n * (n + 1) / 2) / (n * m))


def _ratio(wanted: Floats, got: Floats) -> Floats:
    return np.divide(wanted, got, out=np.zeros(wanted.shape), where=got > 0)


def _by_group(weights: Floats, groups: NDArray[np.int64], number: int) -> Floats:
    return np.asarray(np.bincount(groups.ravel(), weights.ravel(), minlength=number), float)
