"""Reference scenario `synthetic-twin`: a twin of the holders' records, to rehearse an analysis before there is access.

Whoever plans a study over several holders has a program to write, and no record to run it on. A twin is made first: by
noisy counts that the holders add up, so that it costs a known part of their budget. The program is run on the twin. The
analysis is the one of the scenario `wages`: a regression of log hourly wages, and mean wages by occupation.

What a twin is good for: programs run, columns and categories are those there are, and sizes of effects and of samples
are of the right order. What it is not: evidence. Its standard errors are those of records that nobody has, and know
neither of the noise nor of the model; an effect that the model has no pair of columns for is not there at all.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.codebook import Codebook
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figures,
    Level,
    Profile,
    Reference,
    Success,
    World,
    private,
    read_about,
)
from statfed.scenarios import _synthesis
from statfed.scenarios._data import jobs, payroll

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (EXACT, private(3.0), private(1.0), private(1.0, "shared"))

ORDER = ("sex", "age", "occupation", "industry", "part_time", "hourly")
TERMS = ("sex", "age", "occupation", "part_time")
CLEAR, FACTOR = 4.0, 2.0
"""A coefficient is clear where it is so many standard errors from 0, and of the right order within such a factor."""


def misled(figures: Figures, pooled: Reference) -> float:
    """Share of the clear conclusions of the originals on which the twin misleads.

    Conclusions: each clear coefficient, where the twin misleads by another sign, by another order, or by having none;
    and each pair of occupations whose mean wages differ by more than a tenth, where it misleads by another order.
    """
    wrong = []
    for name, value in pooled.items():
        kind, _, rest = name.partition("/")
        if kind == "coefficient" and abs(value) > CLEAR * pooled[f"error/{rest}"]:
            said = figures[name].value
            wrong.append(said is None or not 1 / FACTOR <= said / value <= FACTOR)
    means = [name for name in pooled if name.startswith("mean/")]
    for low in means:
        for high in means:
            if pooled[high] > 1.1 * pooled[low]:
                one, other = figures[low].value, figures[high].value
                wrong.append(one is None or other is None or one >= other)
    return sum(wrong) / len(wrong) if wrong else math.inf


SUCCESS = Success("share of clear conclusions with another sign, order or rank on the twin", misled, 0.15)
"""A rehearsal is of use while most that it shows will be there: of about twenty conclusions three may be others, which
is as many as a plan of analysis bears that is looked at again with the real results."""


def codebook() -> Codebook:
    """What all agree on."""
    return Codebook(title="Jobs of one month", columns=jobs.columns())


def world(profile: Profile, seed: int) -> World:
    """Jobs of the five holders of the scenario `wages`, a sample. quick: about 8,000; full: ten times as many."""
    holders = jobs.sampled(payroll.HOLDERS, *((0.14, 1) if profile == "quick" else (0.35, 4)), seed)
    return World(
        holders,
        codebook(),
        f"synthetic: generator of statfed {VERSION}, {sum(map(len, holders.values())):,} jobs, seed {seed}",
        public={"holders": tuple(holders)},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """The twin, and what the program says of it."""
    return _synthesis.told(analysis(_synthesis.made(ask, codebook(), {"cart": ORDER, "aim": ORDER})))


def pooled(world: World) -> Reference:
    """What the program says of all holders' jobs together."""
    return analysis(pd.concat(world.holders.values(), ignore_index=True))


def analysis(found: pd.DataFrame) -> dict[str, float]:
    """The program that is rehearsed: coefficients with standard errors, and mean wages by occupation."""
    known, hourly = codebook(), found["hourly"].to_numpy(np.float64)
    return {
        **_synthesis.coefficients(found, np.log(hourly), TERMS, known, errors=True),
        **_synthesis.means(found, "hourly", "occupation", known),
    }
