"""Generated households of four regions: partners of like age, children of their parents' age, incomes of who works."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

AGES: Mapping[str, int] = {"0-13": 0, "14-24": 14, "25-39": 25, "40-54": 40, "55-64": 55, "65+": 65}
"""Age classes, with the first age of each."""
WORK = ("none", "employed", "self")
MOST = 5
"""Members of a household: none is larger here."""
TOP_CODE = 120_000.0
"""EUR a year, of a household."""
REGIONS: Mapping[str, float] = {"capital": 0.34, "west": 0.3, "east": 0.2, "islands": 0.16}
"""Shares of households."""
_SINGLE = {"capital": 0.42, "west": 0.3, "east": 0.28, "islands": 0.24}
_PAY = {"capital": 10.35, "west": 10.2, "east": 10.0, "islands": 9.95}  # log EUR a year of an employed person


def generated(households: int, seed: int) -> dict[str, pd.DataFrame]:
    """Members of so many households in four regional offices: household, region, income, age, work; one record each."""
    return {
        name: _members(name, round(households * share), np.random.default_rng([seed, 9109, place]))
        for place, (name, share) in enumerate(REGIONS.items())
    }


def _members(region: str, households: int, rng: np.random.Generator) -> pd.DataFrame:
    head = np.clip(rng.normal(52, 17, households), 20, 95).round()
    partner = rng.random(households) > _SINGLE[region] + 0.2 * (head > 75)
    fertile = partner & (head < 60) | (rng.random(households) < 0.06) & (head < 55)
    children = np.where(fertile, np.minimum(rng.poisson(1.3, households), MOST - 1 - partner), 0)
    size = 1 + partner + children
    place = np.repeat(np.arange(households), size)
    rank = np.arange(len(place)) - np.repeat(np.cumsum(size) - size, size)
    adult = rank < np.repeat(1 + partner, size)
    age = head[place]
    second = (rank == 1) & adult
    age[second] += rng.normal(-2, 4, int(second.sum())).round()
    age[~adult] -= np.clip(rng.normal(29, 5, int((~adult).sum())), 18, 45).round()
    age = np.clip(age, np.where(adult, 18, 0), 100)
    works = rng.random(len(age)) < np.interp(age, [14, 18, 27, 50, 60, 67, 75], [0, 0.2, 0.8, 0.84, 0.6, 0.12, 0.02])
    own = works & (rng.random(len(age)) < 0.13)
    pay = np.exp(_PAY[region] + 0.5 * rng.standard_normal(len(age)) - 0.2 * own) * works
    pension = np.where(age >= 65, np.exp(9.6 + 0.3 * rng.standard_normal(len(age))), 0.0)
    income = np.bincount(place, pay + pension, households) + 4_000 * (1 + rng.random(households))
    return pd.DataFrame(
        {
            "household": [f"{region}{one}" for one in place],
            "region": region,
            "income": np.minimum(income, TOP_CODE).round()[place],
            "age": classes(age),
            "work": np.array(WORK, object)[np.where(own, 2, works.astype(np.int64))],
        }
    )


def classes(age: NDArray[np.float64]) -> NDArray[np.object_]:
    """The class of each age."""
    return np.array(list(AGES), object)[np.searchsorted(list(AGES.values()), age, side="right") - 1]
