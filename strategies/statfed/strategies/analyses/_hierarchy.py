"""Counts over a range from a noisy tree of counts: each level of the tree counts all records, in ever finer bins.

Any range of bins is a sum of few nodes, so its noise grows with the logarithm of their number. `consistent` gives the
best linear unbiased estimate of all bins given all levels (Hay et al. 2010, section 4, here with one variance per
level); `rank_variance` is the exact variance of what it implies for cumulative counts.
"""

from collections.abc import Sequence

import numpy as np

from statfed.strategies.analyses._moments import Floats


def node_variances(variances: Sequence[float], fan_out: int) -> list[float]:
    """Variance of the best estimate of a node from itself and all below it, by level from the root.

    variances: of the noise of one node, by level from the root.
    """
    best = [variances[-1]]
    for variance in reversed(variances[:-1]):
        best.insert(0, 1 / (1 / variance + 1 / (fan_out * best[0])))
    return best


def consistent(levels: Sequence[Floats], variances: Sequence[float], fan_out: int) -> Floats:
    """Best linear unbiased estimate of the finest bins, (fan_out ** depth,); levels: noisy counts from the root on."""
    best = node_variances(variances, fan_out)
    upward = [levels[-1]]
    for depth in range(len(levels) - 2, -1, -1):
        below = upward[0].reshape(-1, fan_out).sum(axis=1)
        upward.insert(0, best[depth] * (levels[depth] / variances[depth] + below / (fan_out * best[depth + 1])))
    counts = upward[0]
    for finer in upward[1:]:
        counts = finer + np.repeat((counts - finer.reshape(-1, fan_out).sum(axis=1)) / fan_out, fan_out)
    return counts


def rank_variance(variances: Sequence[float], fan_out: int, share: float) -> Floats:
    """Variance of (count in the first t bins) - share * (count in all), for t = 0 ... fan_out ** depth.

    Given a node, what the estimate says of its inside is independent of the node's own error; so a cumulative count is
    weight * node + an independent rest, and both follow from the finest level upward.
    """
    best = node_variances(variances, fan_out)
    depth = len(variances) - 1
    t = np.arange(fan_out**depth + 1)
    weight, rest = np.zeros(len(t)), np.zeros(len(t))
    for level in range(depth, 0, -1):
        whole = (t // fan_out ** (depth - level)) % fan_out
        mean = (whole + weight) / fan_out
        rest += best[level] * (whole + weight**2 - fan_out * mean**2)
        weight = mean
    weight[-1], rest[-1] = 1.0, 0.0
    result: Floats = (weight - share) ** 2 * best[0] + rest
    return result
