"""A labour force survey of one quarter: persons, work, hours, wages, weights."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.synthesis import Columns

TITLE = "Labour force survey: persons, status, hours, occupation, wage, weight"
VERSION = 1
STORY = """\
The statistical office of a country with eight regions asks households about work every quarter. Universities and
ministries want the records: to learn the survey, to write programs, to study wages. The law does not let the office
give them away. It asks you for synthetic ones.

The survey skips what does not apply: children under 15 have no labour status (`work`); only the employed have hours, an
occupation and a wage, which some do not tell. Such gaps are part of the data, and the codebook has them as rules."""
RARE = "people who work past 80 or head large households, with long hours and very high wages"
_OCCUPATIONS = {
    "1": "managers",
    "2": "professionals",
    "3": "technicians",
    "4": "clerks",
    "5": "service and sales",
    "6": "agriculture",
    "7": "crafts",
    "8": "operators",
    "9": "elementary",
}
CODEBOOK: dict[str, Any] = {
    "title": "Labour force survey, one quarter (generated: no real persons)",
    "columns": {
        "age": {"type": "integer", "low": 0, "high": 99, "unit": "years", "required": True},
        "sex": {"type": "category", "categories": {"f": "female", "m": "male"}, "required": True},
        "region": {"type": "category", "categories": list("ABCDEFGH"), "required": True},
        "education": {
            "type": "category",
            "categories": {"0": "none yet", "1": "lower secondary", "2": "upper secondary", "3": "tertiary"},
            "required": True,
        },
        "work": {
            "type": "category",
            "categories": {"employed": "", "unemployed": "", "inactive": ""},
            "label": "persons of 15 and more",
        },
        "hours": {"type": "integer", "low": 1, "high": 80, "unit": "hours a week", "label": "of the employed"},
        "occupation": {"type": "category", "categories": _OCCUPATIONS, "label": "of the employed, ISCO-08 major group"},
        "wage": {"type": "number", "low": 100, "high": 30000, "unit": "euro a month", "label": "null: not told"},
        "household": {"type": "integer", "low": 1, "high": 10, "unit": "persons", "required": True},
        "weight": {"type": "number", "low": 50, "high": 1000, "role": "weight", "required": True},
    },
    "rules": [
        "age >= 15 or work is null",
        "age < 15 or work is not null",
        "age >= 15 or education = 0",
        "work = employed or hours is null",
        "work != employed or hours is not null",
        "work = employed or occupation is null",
        "work != employed or occupation is not null",
        "work = employed or wage is null",
    ],
}
KEYS = ("age", "sex", "region", "education", "household")
SECRETS = ("work", "occupation", "wage")
TARGET = "work"
MODELS = ("ols wage ~ age + C(education) + C(sex)",)
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def records(count: int, rng: np.random.Generator) -> Columns:
    """Persons whose education, status, hours, occupation and wage go together."""
    pyramid = np.concatenate([np.full(55, 1.0), np.linspace(1.1, 0.05, 45)])
    age = rng.choice(100, size=count, p=pyramid / pyramid.sum())
    sex = (rng.random(count) < 0.49).astype(np.int64)
    region = rng.choice(8, size=count, p=np.arange(9, 1, -1) / 44)
    latent = rng.normal(size=count) - 0.012 * np.maximum(age - 40, 0) + 0.25 * (region < 2)
    education = np.where(age < 15, 0, 1 + np.searchsorted([-0.7, 0.6], latent + 0.5 * rng.normal(size=count)))
    education = np.where((education == 3) & (age < 21), 2, education)
    old = np.maximum(age - 60, 0)
    pull = -0.6 + 0.5 * education + 0.35 * sex - 0.35 * old + 1.3 * ((age > 24) & (age < 58))
    works = rng.random(count) < 1 / (1 + np.exp(-pull))
    seeks = rng.random(count) < np.where(age < 65, 0.26 - 0.04 * education + 0.06 * (region > 5), 0.0)
    status = np.where(age < 15, -1, np.where(works, 0, np.where(seeks, 1, 2)))
    household = np.clip(1 + rng.poisson(np.where(age < 20, 2.6, np.where(age < 50, 1.7, 0.8))), 1, 10)
    return _with_work(age, sex, region, education, status, household, rng)


def _with_work(
    age: Ints, sex: Ints, region: Ints, education: Ints, status: Ints, household: Ints, rng: np.random.Generator
) -> Columns:
    count, works = len(age), status == 0
    part = rng.random(count) < np.where(sex == 0, 0.38, 0.1)
    hours = np.where(part, rng.normal(21, 5, count), rng.normal(40, 3, count) + 6 * (rng.random(count) < 0.12))
    skill = education + 0.8 * rng.normal(size=count) + 0.01 * (age - 40)
    order = np.array([8, 7, 6, 4, 3, 2, 1, 0])  # from elementary to managers; agriculture is by region
    step = np.clip(np.round(1.2 + 2.1 * (skill - 0.6) + 0.9 * rng.normal(size=count)), 0, 7).astype(np.int64)
    farms = (region > 5) & (rng.random(count) < 0.12)
    occupation = np.where(farms, 5, order[step])
    hours = np.clip(np.round(hours + 2.5 * (occupation == 0)), 1, 80)
    rate = 2.1 + 0.075 * (8 - occupation) + 0.16 * education + 0.07 * sex + 0.006 * (age - 40) + 0.1 * (region < 2)
    wage = np.exp(rate + 0.28 * rng.normal(size=count)) * hours * 4.3 / 1.4
    told = rng.random(count) > 0.06 + 0.05 * (occupation < 2)
    return {
        "age": age.astype(np.float64),
        "sex": sex,
        "region": region,
        "education": education,
        "work": status,
        "hours": np.where(works, hours, np.nan),
        "occupation": np.where(works, occupation, -1),
        "wage": np.where(works & told, np.clip(np.round(wage, -1), 100, 30000), np.nan),
        "household": household.astype(np.float64),
        "weight": _weights(age, region, rng),
    }


def _weights(age: Ints, region: Ints, rng: np.random.Generator) -> Floats:
    """Design weights by region, corrected for the young who answer less."""
    design = np.array([420, 380, 330, 300, 260, 210, 170, 140])[region]
    found: Floats = np.clip(np.round(design * (1 + 0.25 * (age < 35)) * rng.uniform(0.9, 1.1, len(age)), 1), 50, 1000)
    return found


def rare(count: int, rng: np.random.Generator) -> Columns:
    """Persons whom a neighbour would know."""
    old = rng.random(count) < 0.5
    age = np.where(old, rng.integers(80, 100, count), rng.integers(15, 25, count))
    region = rng.integers(0, 8, count)
    works = rng.random(count) < 0.85
    return {
        "age": age.astype(np.float64),
        "sex": rng.integers(0, 2, count),
        "region": region,
        "education": rng.integers(1, 4, count),
        "work": np.where(works, 0, 1),
        "hours": np.where(works, rng.integers(55, 81, count), np.nan),
        "occupation": np.where(works, rng.integers(0, 9, count), -1),
        "wage": np.where(works, np.round(rng.uniform(9000, 30000, count), -1), np.nan),
        "household": rng.integers(6, 11, count).astype(np.float64),
        "weight": _weights(age, region, rng),
    }
