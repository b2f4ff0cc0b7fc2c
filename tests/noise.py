"""Drive the one ask of a differentially private run with Gaussian noise calibrated from its parts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook
from statfed.core.method import Fixed, Question, Total, budget_of, checked, read_question, summed
from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from tests.federate import table_of


def scheduled(question: Question[Any]) -> tuple[str, int]:
    """The one ask that a private run makes, and how often."""
    budget = budget_of(question)
    assert isinstance(budget, Fixed)
    (ask,) = budget.asks
    return ask.name, ask.times


def noisy(
    analysis: str,
    frames: Sequence[pd.DataFrame],
    codebook: Codebook,
    seed: int,
    *,
    epsilon: float = 1.0,
    scale: float = 1.0,
    **options: Any,
) -> Result:
    """The result of a private run over `frames`, noise of one holder; scale: factor of its standard deviation.

    rho-zCDP with rho = epsilon^2/2, split over parts by share: sigma = L2 sensitivity/sqrt(2 rho share) (Bun and
    Steinke 2016). Fails when the analysis makes another ask than it announces, or more often.
    """
    query = Terms(
        method=analysis,
        options=options,
        codebook=codebook,
        holders=tuple(f"holder-{i}" for i in range(len(frames))),
        seed=1,
        privacy=Privacy(epsilon=epsilon),
    )
    module, question = read_question(query)
    budget = budget_of(question)
    assert isinstance(budget, Fixed)
    ((name, times),) = [(one.name, one.times) for one in budget.asks]
    rng = np.random.default_rng(seed)
    run = module.coordinate(question)
    total: Total | None = None
    for _ in range(times + 1):
        try:
            ask = run.send(total)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            result: Result = end.value
            return result
        assert ask.name == name
        parts = module.parts(question, ask)
        sent = {
            holder: checked(module.contribute(table_of(frame, codebook), question, ask), parts, holder)
            for holder, frame in zip(query.holders, frames, strict=True)
        }
        arrays, noise = summed(sent, parts), {}
        shares = times * sum(part.share for part in parts.values())
        for key, part in parts.items():
            bound = np.broadcast_to(np.asarray(part.bound, float), part.shape)
            sensitivity = bound.max(initial=0.0) if part.single else np.sqrt(np.sum(bound**2))
            sensitivity = sensitivity if part.together is None else bound.max() * part.together[1]
            deviation = scale * sensitivity / (epsilon * np.sqrt(part.share / shares))
            drawn = rng.normal(0, deviation, part.shape) if deviation else np.zeros(part.shape)
            arrays[key] = arrays[key] + (np.rint(drawn).astype(np.int64) if part.integer else drawn)
            noise[key] = np.full(part.shape, deviation)
        total = Total(arrays, noise)
    raise AssertionError(f"{analysis}: made more asks than announced")
