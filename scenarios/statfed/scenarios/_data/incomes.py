"""Seeded population of persons with incomes: those who file a tax return, and those who need not and are sampled.

Margins are set to be plausible for a European country, not to be those of one: a fifth of adults below the filing
threshold, mostly young or retired; wages the main source of income of half of all adults, pensions of a quarter,
property of one in fifty; a capital region a quarter richer and the poorest a fifth poorer than the rest; lognormal
incomes with a long tail among owners of businesses and property, recorded up to an agreed top code.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

AGES = ("16-24", "25-34", "35-44", "45-54", "55-64", "65-plus")
SOURCES = ("wages", "business", "pensions", "benefits", "property")
SEXES = ("f", "m")
TOP_CODE = 150_000
THRESHOLD = 22_000
"""EUR a year: who has more has to file."""
MOST_WEIGHT = 15.0

_AGE_SHARES = np.array([0.12, 0.15, 0.17, 0.18, 0.16, 0.22])
_SOURCE_GIVEN_AGE = np.array(
    [
        [0.6400, 0.0250, 0.0030, 0.3300, 0.0020],
        [0.7800, 0.0700, 0.0050, 0.1400, 0.0050],
        [0.7600, 0.1000, 0.0100, 0.1200, 0.0100],
        [0.7300, 0.1150, 0.0250, 0.1150, 0.0150],
        [0.5400, 0.1050, 0.2000, 0.1300, 0.0250],
        [0.0450, 0.0350, 0.8730, 0.0120, 0.0350],
    ]
)
_FILES_GIVEN_SOURCE = np.array([0.94, 0.97, 0.66, 0.32, 0.96])
_MEDIAN = np.array([25_500.0, 23_000.0, 21_500.0, 13_500.0, 29_000.0])
_SPREAD = np.array([0.50, 0.85, 0.45, 0.35, 1.00])
_AGE_FACTOR = np.array([0.66, 0.92, 1.06, 1.12, 1.10, 0.98])
_GAP = 0.86
"""Median income of women over that of men with the same source and age."""


@dataclass(frozen=True)
class Region:
    """A region: share of the population, level of incomes, and the NSO's sampling fraction of its non-filers."""

    code: str
    share: float
    level: float
    fraction: float


REGIONS = (
    Region("R1", 0.26, 1.24, 1 / 12),
    Region("R2", 0.20, 1.05, 1 / 11),
    Region("R3", 0.16, 0.97, 1 / 10),
    Region("R4", 0.11, 0.88, 1 / 9),
    Region("R5", 0.07, 0.81, 1 / 7),
    Region("R6", 0.10, 1.12, 1 / 9),
    Region("R7", 0.06, 1.08, 1 / 7),
    Region("R8", 0.04, 0.93, 1 / 5),
)


def adults(region: Region, persons: int, seed: int) -> pd.DataFrame:
    """All adults of a region, about `persons` times its share of them.

    Columns: person, household (of those who do not file, else -1), region, age, sex, source, income (EUR a year, whole
    and top-coded), files, key (record key). A region's adults depend on the seed and the region alone.
    """
    rng = np.random.default_rng([seed, 20_311, _number(region)])
    n = round(persons * region.share)
    age = rng.choice(len(AGES), n, p=_AGE_SHARES)
    sex = rng.integers(0, 2, n)
    source = (rng.random(n)[:, None] > np.cumsum(_SOURCE_GIVEN_AGE, axis=1)[age]).sum(axis=1).clip(max=4)
    files = rng.random(n) < _FILES_GIVEN_SOURCE[source]
    centre = _MEDIAN[source] * _AGE_FACTOR[age] * np.where(sex == 0, _GAP, 1.0) * region.level
    income = centre * np.exp(_SPREAD[source] * rng.standard_normal(n))
    household = _households(files, rng)
    small = THRESHOLD * rng.beta(1.6, 2.4, n) * np.exp(0.3 * rng.standard_normal(n))[household]
    income = np.where(files, income, np.minimum(small, THRESHOLD))
    return pd.DataFrame(
        {
            "person": [f"{region.code}-{i:07d}" for i in range(n)],
            "household": np.where(files, -1, household),
            "region": region.code,
            "age": np.array(AGES)[age],
            "sex": np.array(SEXES)[sex],
            "source": np.array(SOURCES)[source],
            "income": np.rint(np.minimum(income, TOP_CODE)),
            "files": files,
            "key": rng.random(n),
        }
    )


def _households(files: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """Number of each person's household: 1 to 3 persons who do not file, in the order of persons; 0 for the rest."""
    found = np.zeros(len(files), np.int64)
    outside = int((~files).sum())
    sizes = rng.choice([1, 2, 3], outside + 1, p=[0.55, 0.35, 0.10])
    found[~files] = np.repeat(np.arange(len(sizes)), sizes)[:outside]
    return found


def register(people: pd.DataFrame, holder: str) -> pd.DataFrame:
    """What a tax register holds: everybody who files, with weight 1, as one PSU that was taken with certainty."""
    own = people[people["files"]].drop(columns=["household", "files"]).reset_index(drop=True)
    return own.assign(weight=1.0, stratum=holder, psu=holder)


def sample(people: pd.DataFrame, region: Region, seed: int) -> pd.DataFrame:
    """The NSO's sample of the households of a region that do not file: simple random, without replacement.

    weight: households over sampled households. The region is the stratum, the household the PSU.
    """
    rng = np.random.default_rng([seed, 20_312, _number(region)])
    outside = people[~people["files"]]
    households = outside["household"].unique()
    n = max(2, round(region.fraction * len(households)))
    chosen = rng.choice(households, n, replace=False)
    own = outside[outside["household"].isin(chosen)].reset_index(drop=True)
    psu = region.code + "-" + own["household"].astype(str)
    own = own.drop(columns=["household", "files"])
    return own.assign(weight=len(households) / n, stratum=f"survey-{region.code}", psu=psu)


def _number(region: Region) -> int:
    return [each.code for each in REGIONS].index(region.code)
