"""A generated labour market: payroll records of a few very large enterprises and of registers of small ones.

Orders of magnitude follow the European Structure of Earnings Survey 2022 and the gender pay gap statistics made from
it: hourly wages around 15 to 25 EUR, women a minority of managers and of craft workers and most of clerks, far more
women than men in part-time work, an unadjusted gap of 10 to 20 % of which about half is left after adjustment.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.errors import UsageError

SEXES = {"m": "men", "f": "women"}
OCCUPATIONS = {
    "1": "managers",
    "2": "professionals",
    "3": "technicians",
    "4-5": "clerks, services and sales",
    "7-8": "craft and plant",
    "9": "elementary",
}
INDUSTRIES = {
    "M": "head offices and professional services",
    "C": "manufacturing",
    "D": "energy",
    "G": "trade",
    "H": "transport",
    "K": "finance",
}
REGIONS = {"north": "", "south": ""}
LOWEST, HIGHEST = 5.0, 100.0
"""EUR an hour: wages are bottom- and top-coded there by every holder."""
MOST_HOURS = 200.0
ADJUSTED = -0.085
"""Women's log hourly wage less men's in the same occupation, industry, working time and age."""

_LARGE: Mapping[str, tuple[Mapping[str, int], float]] = {
    "manufacturer": ({"C": 7000, "D": 250, "G": 900, "M": 800}, 0.85),
    "utility": ({"D": 2600, "M": 300}, 0.7),
    "retailer": ({"G": 5200, "H": 700, "M": 300}, 0.5),
}
"""Employees by industry of the local units, and the share of them in the north."""
_REGISTERS: Mapping[str, tuple[Mapping[str, int], float]] = {
    "register-north": ({"C": 6500, "D": 150, "G": 5200, "H": 4200, "K": 2600, "M": 4200}, 0.95),
    "register-south": ({"C": 4000, "D": 60, "G": 4300, "H": 3300, "K": 1900, "M": 3000}, 0.1),
}
HOLDERS = (*_LARGE, *_REGISTERS)
_MIX = {  # occupations by industry, in the order of OCCUPATIONS
    "M": (0.10, 0.42, 0.22, 0.18, 0.03, 0.05),
    "C": (0.05, 0.12, 0.17, 0.09, 0.49, 0.08),
    "D": (0.06, 0.24, 0.30, 0.12, 0.24, 0.04),
    "G": (0.05, 0.06, 0.14, 0.57, 0.09, 0.09),
    "H": (0.03, 0.05, 0.12, 0.20, 0.45, 0.15),
    "K": (0.08, 0.34, 0.30, 0.26, 0.01, 0.01),
}
_WOMEN = {"1": 0.32, "2": 0.49, "3": 0.46, "4-5": 0.66, "7-8": 0.15, "9": 0.52}
_WOMEN_HERE = {"M": 0.02, "C": -0.10, "D": -0.14, "G": 0.04, "H": -0.12, "K": 0.03}  # more or fewer than above
_LEVEL = {"1": 3.45, "2": 3.20, "3": 2.98, "4-5": 2.70, "7-8": 2.78, "9": 2.52}  # log EUR an hour
_PREMIUM = {"M": 0.0, "C": 0.05, "D": 0.22, "G": -0.06, "H": 0.0, "K": 0.18}
_LARGE_PREMIUM = 0.12
_PART_TIME = {"m": 0.09, "f": 0.31}


def employees(holder: str, scale: int, rng: np.random.Generator) -> pd.DataFrame:
    """One record per job at the enterprises of a holder, ids of enterprises its own.

    scale: how many times as many employees as in the small world, at larger large enterprises and more small ones.
    """
    places = _large(holder, scale, rng) if holder in _LARGE else _small(holder, scale, rng)
    industry, n = places["industry"].to_numpy(), len(places)
    occupation = np.empty(n, object)
    for code, mix in _MIX.items():
        here = industry == code
        occupation[here] = rng.choice(list(OCCUPATIONS), int(here.sum()), p=mix)
    women = np.array([_WOMEN[o] + _WOMEN_HERE[i] for o, i in zip(occupation, industry, strict=True)])
    sex = np.where(rng.random(n) < women, "f", "m")
    part_time = rng.random(n) < np.where(sex == "f", _PART_TIME["f"], _PART_TIME["m"])
    age = np.clip(np.rint(rng.normal(42, 12, n)), 18, 67).astype(int)
    hours = np.where(part_time, rng.integers(40, 131, n), rng.integers(155, 174, n)).astype(float)
    log_wage = (
        np.array([_LEVEL[o] + _PREMIUM[i] for o, i in zip(occupation, industry, strict=True)])
        + places["premium"].to_numpy()
        + ADJUSTED * (sex == "f")
        - 0.04 * part_time
        + 0.006 * (age - 42)
        + rng.normal(0, 0.24, n)
    )
    hourly = np.clip(np.exp(log_wage), LOWEST, HIGHEST).round(2)
    frame = places.drop(columns="premium").assign(
        sex=sex, occupation=occupation, part_time=part_time, age=age, hours=hours, hourly=hourly
    )
    frame["wage"] = (hourly * hours).round(2)
    return frame


def with_squares(frame: pd.DataFrame, largest: float = 40.0) -> pd.DataFrame:
    """The records with `square`: wage times the wage bill, in million EUR, of the enterprise in the record's industry.

    Its sum over an enterprise's records of an industry is the square of the enterprise's wage bill there, so that the
    sum over all records is additive over holders as long as no enterprise has records with two of them.
    largest: public bound of a bill, in million EUR. Noise for one job rests on it, so that a larger bill is refused: a
    holder checks this before it offers the column. Raises UsageError.
    """
    bill = frame.groupby(["enterprise", "industry"])["wage"].transform("sum") / 1e6
    if len(bill) and bill.max() > largest:
        raise UsageError(f"square: got a wage bill above {largest:g} million EUR; want a larger public bound")
    return frame.assign(square=frame["wage"] * bill)


def _large(holder: str, scale: int, rng: np.random.Generator) -> pd.DataFrame:
    workforce, north = _LARGE[holder]
    industry = np.repeat(list(workforce), [n * scale for n in workforce.values()])
    return pd.DataFrame(
        {
            "enterprise": holder,
            "industry": industry,
            "region": rng.choice(list(REGIONS), len(industry), p=[north, 1 - north]),
            "premium": _LARGE_PREMIUM,
        }
    )


def _small(holder: str, scale: int, rng: np.random.Generator) -> pd.DataFrame:
    """Enterprises of one industry and region each, of lognormal size."""
    workforce, north = _REGISTERS[holder]
    found = []
    for industry, n in workforce.items():
        size = _sizes(n * scale, rng)
        frame = pd.DataFrame(
            {
                "enterprise": [f"{holder}-{industry}-{i}" for i in range(len(size))],
                "industry": industry,
                "region": rng.choice(list(REGIONS), len(size), p=[north, 1 - north]),
                "premium": rng.normal(0, 0.10, len(size)),
            }
        )
        found.append(frame.loc[frame.index.repeat(size)])
    return pd.concat(found, ignore_index=True)


def _sizes(employees_in_all: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Numbers of employees of small enterprises, most below 20 and a few of several hundreds, that add up."""
    drawn = np.clip(rng.lognormal(2.6, 1.5, employees_in_all), 1, 800).astype(np.int64)
    size = drawn[: int(np.searchsorted(np.cumsum(drawn), employees_in_all)) + 1].copy()
    size[-1] -= int(size.sum()) - employees_in_all
    return size
