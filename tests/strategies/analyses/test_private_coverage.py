"""Intervals of private estimates hold the truth as often as they say, over fresh samples and fresh noise.

The very noise that holders add, drawn from seeded streams; small samples and little budget, where the noisy estimate of
the sampling variance is worst.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.method import Ask, Total, checked, read_question
from statfed.core.privacy.noise import plan
from statfed.core.randomness import stream
from statfed.core.terms import Privacy, Terms
from tests.covering import each_value
from tests.federate import codebook_of, table_of
from tests.noise import scheduled

CODEBOOK = codebook_of({"x": ("number", 0, 10), "y": ("number", 0, 10), "s": ("number", -10, 10), "g": ["a", "b"]})
DRAWS = 60
TRUTH = {("mean", "a"): 10 / 3, ("mean", "b"): 10 / 3, ("ratio", "a"): 2 / 3, ("ratio", "b"): 2 / 3}


def sample(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = 10 * rng.beta(1, 2, n)
    frame = pd.DataFrame({"x": x, "y": 10 * rng.beta(2, 2, n), "g": np.where(rng.random(n) < 0.7, "a", "b")})
    return frame.assign(s=rng.normal(10 / 3, 1, n))


def answered(analysis: str, options: dict[str, Any], frame: pd.DataFrame, epsilon: float, seed: int) -> pd.DataFrame:
    """The limits of one private run over one holder with `frame`."""
    query = Terms(
        method=analysis, options=options, codebook=CODEBOOK, holders=("a",), seed=1, privacy=Privacy(epsilon=epsilon)
    )
    module, question = read_question(query)
    name, times = scheduled(question)
    parts = module.parts(question, Ask(name))
    noise = plan(parts, Privacy(epsilon=epsilon), times)
    exact = checked(module.contribute(table_of(frame, CODEBOOK), question, Ask(name)), parts, "a")
    run = module.coordinate(question)
    next(run)
    with pytest.raises(StopIteration) as end:
        run.send(Total(noise.add(exact, stream(seed, "coverage")), noise.std()))
    return pd.DataFrame(end.value.value.conf_int())


ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "mean": ("mean", {"columns": ["x"], "by": ["g"]}),
    "ratio": ("ratio", {"numerator": "x", "denominator": "y", "by": ["g"]}),
    "total": ("total", {"columns": ["x"], "by": ["g"]}),
    # of either sign: squares are noisier than their sampling variance
    "signed total": ("total", {"columns": ["s"], "by": ["g"]}),
    "count": ("count", {"by": ["g"]}),
    "table": ("table", {"rows": ["g"], "value": "x"}),
}


@pytest.mark.parametrize(("epsilon", "asked"), each_value([0.5, 4.0], list(ASKED)))
def test_95_percent_limits_hold_the_truth_in_about_95_percent_of_runs(epsilon: float, asked: str) -> None:
    analysis, options = ASKED[asked]
    n = 400
    share = {"a": 0.7, "b": 0.3}
    held = {"a": 0, "b": 0}
    for draw in range(DRAWS):
        limits = answered(analysis, options, sample(n, draw), epsilon, draw)
        for group in ("a", "b"):
            row = limits[limits["g"] == group].iloc[0]
            default = n * share[group] * (1.0 if analysis == "count" else 10 / 3)
            truth = TRUTH.get((analysis, group), default)
            held[group] += row["lower"] <= truth <= row["upper"]
    for group, times in held.items():  # four binomial standard deviations below, and not mostly noise above
        assert times / DRAWS > 0.95 - 4 * np.sqrt(0.95 * 0.05 / DRAWS), (group, times)
