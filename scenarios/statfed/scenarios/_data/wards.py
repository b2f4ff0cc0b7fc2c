"""Generated records of patients admitted with heart failure to five hospitals of different size and case mix.

Orders of magnitude follow registers of heart failure in Europe: patients in their seventies, a little more than half of
them men, about a fifth dying within a year, a fifth to a quarter readmitted within 30 days. The university hospital
gives the newer treatment more often than district hospitals do, and to younger patients; so patients with it do better
than others even where the treatment had no effect. Deaths follow a Weibull hazard that is proportional within each
hospital, with follow-up until a common closing date and some patients lost before; the month of death or censoring is
what is recorded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Hospital:
    """patients: of the small world; age: mean; illness: mean number of further diagnoses; new: log odds of the newer
    treatment at age 75; hazard, readmission: log of the baseline hazard and odds, relative to the first hospital."""

    patients: int
    age: float
    illness: float
    new: float
    hazard: float
    readmission: float


HOSPITALS: Mapping[str, Hospital] = {
    "university": Hospital(1300, 68.0, 2.6, 0.7, 0.0, 0.0),
    "city": Hospital(900, 73.0, 2.0, 0.1, 0.15, 0.20),
    "coast": Hospital(600, 77.0, 1.8, -0.4, 0.05, -0.15),
    "valley": Hospital(380, 75.0, 1.5, -0.8, 0.30, 0.30),
    "island": Hospital(230, 78.0, 1.7, -1.2, 0.20, -0.25),
}
ARMS = ("standard", "new")
SEXES = ("f", "m")
MONTHS = 36
YOUNGEST, OLDEST, MOST_DIAGNOSES = 40, 99, 10
DEATH: Mapping[str, float] = {
    "C(arm)[T.new]": -0.35,
    "I(age / 10)": 0.45,
    "C(sex)[T.m]": 0.15,
    "diagnoses": 0.12,
    "emergency": 0.25,
}
"""Log hazard ratios."""
READMISSION: Mapping[str, float] = {
    "C(arm)[T.new]": -0.25,
    "I(age / 10)": 0.10,
    "C(sex)[T.m]": 0.05,
    "diagnoses": 0.18,
    "emergency": 0.40,
}
"""Log odds ratios of readmission within 30 days."""
_SHAPE, _SCALE = 0.85, 130.0  # months, at age 75 without further diagnoses
_LOST = 0.006  # a month


def patients(hospital: str, scale: int, seed: int) -> pd.DataFrame:
    """One record for each patient of a hospital. scale: patients per patient of the small world."""
    here, place = HOSPITALS[hospital], list(HOSPITALS).index(hospital)
    rng, n = np.random.default_rng([seed, 8821, place, scale]), here.patients * scale
    age = np.clip(np.rint(rng.normal(here.age, 10.0, n)), YOUNGEST, OLDEST).astype(int)
    diagnoses = np.minimum(rng.poisson(here.illness, n), MOST_DIAGNOSES)
    emergency = rng.random(n) < 1 / (1 + np.exp(-(0.4 + 0.02 * (age - 75))))
    new = rng.random(n) < 1 / (1 + np.exp(-(here.new - 0.04 * (age - 75) - 0.1 * (diagnoses - 2))))
    men = rng.random(n) < 0.55
    values = {
        "C(arm)[T.new]": new.astype(float),
        "I(age / 10)": (age - 75) / 10,
        "C(sex)[T.m]": men.astype(float),
        "diagnoses": diagnoses.astype(float),
        "emergency": emergency.astype(float),
    }
    risk = here.hazard + sum(b * values[name] for name, b in DEATH.items())
    death = _SCALE * (rng.exponential(size=n) / np.exp(risk)) ** (1 / _SHAPE)
    closing = rng.uniform(12.0, MONTHS, n)  # admitted over two years, followed to a common date
    lost = rng.exponential(1 / _LOST, n)
    time = np.minimum(death, np.minimum(closing, lost))
    odds = -1.9 + here.readmission + sum(b * values[name] for name, b in READMISSION.items())
    return pd.DataFrame(
        {
            "hospital": hospital,
            "arm": np.where(new, "new", "standard"),
            "age": age,
            "sex": np.where(men, "m", "f"),
            "diagnoses": diagnoses,
            "emergency": emergency,
            "months": np.maximum(np.ceil(time), 1).astype(int),
            "died": death <= np.minimum(closing, lost),
            "readmitted": rng.random(n) < 1 / (1 + np.exp(-odds)),
        }
    )
