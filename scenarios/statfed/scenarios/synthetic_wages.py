"""Reference scenario `synthetic-wages`: synthetic records of a survey of earnings, from published tables or otherwise.

Registers and a large employer hold records of jobs, as the Structure of Earnings Survey has them. A public file of
synthetic jobs can be made from what is published anyway: tables under the rules of a release (`margins`, level
`suppress`), in which hourly wages come as classes. The alternatives are noisy counts (`aim`), and exact trees for users
under an agreement (`cart`). Figures are those that the survey is asked for: jobs by occupation and sex, mean and median
hourly wages, their Gini coefficient, and the adjusted pay gap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.codebook import Codebook
from statfed.core.disclosure import Rules
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
from statfed.scenarios._data import jobs

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "tables of at least 10 jobs a cell, secondary suppression", disclosure=Rules()),
    private(3.0),
    private(1.0),
    private(1.0, "shared"),
)

HOLDERS = ("manufacturer", "register-north", "register-south")
ORDER = ("sex", "age", "occupation", "industry", "part_time", "hourly")
MARGINS = (
    ("sex", "occupation"),
    ("sex", "pay"),
    ("occupation", "pay"),
    ("occupation", "industry"),
    ("industry", "part_time"),
    ("age", "sex"),
)
"""Tables as a survey publishes them; what they do not tell of is drawn as if it depended on nothing else."""

LIMITS = {"table": 0.05, "mean": 0.05, "quantile": 0.05, "gini": 0.02, "coefficient": 0.03}
"""Error that a public file allows.

Tables: one job in twenty in another cell. Means and medians: 5 %, a year's growth of wages. Gini coefficient: 0.02,
what separates neighbours among the member states. Coefficient of the log wage, women: three points, so that a gap of
twice the 5 % from which Directive (EU) 2023/970, article 10, wants pay assessed is not taken for one below it.
"""

SUCCESS = Success(
    "largest error over what its use allows: tables, means and medians 5 %, Gini 0.02, pay gap 3 points",
    _synthesis.worst(LIMITS),
    1.0,
)


def codebook() -> Codebook:
    """What all agree on."""
    return Codebook(title="Jobs of a survey of earnings", columns=jobs.columns())


def world(profile: Profile, seed: int) -> World:
    """Sampled jobs of three holders. quick: about 10,000; full: ten times as many."""
    fraction, scale = (0.23, 1) if profile == "quick" else (0.5, 5)
    holders = jobs.sampled(HOLDERS, fraction, scale, seed)
    return World(
        holders,
        codebook(),
        f"synthetic: generator of statfed {VERSION}, {sum(map(len, holders.values())):,} jobs, seed {seed}",
        public={"holders": tuple(holders)},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """One fit, one draw, and the figures of the drawn jobs; wages within a published class are drawn evenly."""
    columns = {"cart": ORDER, "aim": ORDER, "margins": (*ORDER[:-1], "pay")}
    made = _synthesis.made(ask, codebook(), columns, margins={"margins": MARGINS})
    if "hourly" not in made:
        made["hourly"] = _synthesis.within(made, "pay", jobs.PAY)
    return _synthesis.told(figures(made))


def pooled(world: World) -> Reference:
    """The same figures of all holders' jobs together."""
    return figures(pd.concat(world.holders.values(), ignore_index=True))


def figures(found: pd.DataFrame) -> dict[str, float]:
    """What the survey is asked for."""
    known, hourly = codebook(), found["hourly"].to_numpy(np.float64)
    model = _synthesis.coefficients(found, np.log(hourly), ("sex", "occupation", "industry", "part_time"), known)
    return {
        **_synthesis.shares(found, known, "occupation", "sex"),
        **_synthesis.shares(found, known, "industry", "part_time"),
        **_synthesis.means(found, "hourly", "occupation", known),
        "quantile/hourly/women": _median(hourly[(found["sex"] == "f").to_numpy()]),
        "quantile/hourly/men": _median(hourly[(found["sex"] == "m").to_numpy()]),
        "gini/hourly": _synthesis.gini(hourly),
        "coefficient/women": model["coefficient/sex=f"],
    }


def _median(values: Any) -> float:
    return float(np.median(values)) if len(values) else float("nan")
