"""Whether estimates over independent draws are as right as they say."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from statfed.core.linkage_errors.estimate import Estimate

RARE = 1e-3
"""Chance that right intervals are taken for wrong ones."""


def complaints(estimates: Sequence[Estimate], truth: Sequence[float], level: float = 0.95) -> list[str]:
    """What does not agree with the laws of right estimates and intervals; empty where all does.

    Bias: mean error within its own law. Standard errors: sum of squared standardised errors within that of chi-square.
    Coverage: number of intervals that hold the truth within the binomial law.
    """
    n = len(truth)
    error = np.array([e.value for e in estimates]) - np.asarray(truth, dtype=float)
    z = error / [e.std_error for e in estimates]
    limits = [e.interval(level) for e in estimates]
    held = sum(low <= t <= high for (low, high), t in zip(limits, truth, strict=True))
    found = []
    if abs(error.mean()) > stats.t.ppf(1 - RARE / 2, n - 1) * error.std(ddof=1) / np.sqrt(n):
        found.append(f"bias: mean error {error.mean():.4g}, spread {error.std(ddof=1):.4g} over {n} draws")
    low, high = float(stats.chi2.ppf(RARE / 2, n)), float(stats.chi2.ppf(1 - RARE / 2, n))
    if not low <= (z**2).sum() <= high:
        found.append(f"standard error: of standardised errors {np.sqrt((z**2).mean()):.3f}; want 1")
    if not stats.binom.ppf(RARE / 2, n, level) <= held <= stats.binom.ppf(1 - RARE / 2, n, level):
        found.append(f"interval: {held} of {n} hold the truth; want {level:.0%}")
    return found
