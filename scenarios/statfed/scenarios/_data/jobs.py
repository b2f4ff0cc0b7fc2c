"""A sample of the jobs of the generated labour market (`payroll`), as a survey of earnings has them: no enterprise."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from statfed.core.codebook import Column
from statfed.scenarios._data import payroll

AGES = {"15-24": "", "25-34": "", "35-44": "", "45-54": "", "55+": ""}
_STARTS = (25, 35, 45, 55)
_LIMITS = ((5, 9), (9, 11), (11, 13), (13, 15), (15, 17), (17, 20), (20, 24), (24, 30), (30, 40), (40, 60), (60, 100))
PAY: Mapping[str, tuple[float, float]] = {f"{low}-{high}": (float(low), float(high)) for low, high in _LIMITS}
"""Classes of the hourly wage, EUR, with their limits: closed on the left."""


def sampled(holders: Sequence[str], fraction: float, scale: int, seed: int) -> dict[str, pd.DataFrame]:
    """Jobs of some holders of `payroll`, each drawn with the same chance. scale: as of `payroll.employees`."""
    found = {}
    for name in holders:
        rng = np.random.default_rng([seed, 7201, payroll.HOLDERS.index(name)])
        every = payroll.employees(name, scale, rng)
        jobs = every[rng.random(len(every)) < fraction].reset_index(drop=True)
        places = np.searchsorted([high for _, high in PAY.values()][:-1], jobs["hourly"], side="right")
        found[name] = pd.DataFrame(
            {
                "sex": jobs["sex"],
                "age": np.array(list(AGES), object)[np.digitize(jobs["age"], _STARTS)],
                "occupation": jobs["occupation"],
                "industry": jobs["industry"],
                "part_time": jobs["part_time"],
                "hourly": jobs["hourly"],
                "pay": np.array(list(PAY), object)[places],
            }
        )
    return found


def columns() -> dict[str, Column]:
    """Of a codebook. `pay` is the class of `hourly`: a method looks at one of the two."""
    return {
        "sex": Column(type="category", categories=payroll.SEXES, required=True),
        "age": Column(type="category", label="age in years", categories=AGES, required=True),
        "occupation": Column(type="category", label="ISCO-08", categories=payroll.OCCUPATIONS, required=True),
        "industry": Column(type="category", label="NACE", categories=payroll.INDUSTRIES, required=True),
        "part_time": Column(type="boolean", required=True),
        "hourly": Column(type="number", unit="EUR", low=payroll.LOWEST, high=payroll.HIGHEST, required=True),
        "pay": Column(type="category", label="EUR an hour", categories=dict.fromkeys(PAY, ""), required=True),
    }
