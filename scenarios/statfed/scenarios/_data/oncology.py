"""Generated patients in a cancer register, a hospital register and a tax register, of whom most are in all three.

The cancer register knows the stage at diagnosis and follows patients to death or to the closing date; hospitals know
what was done; the tax office knows income. Deaths follow a Weibull hazard that rises with stage and falls with surgery
and income, so that inequality in survival shows once the registers are taken together. Orders of magnitude are those of
colorectal cancer in European registers: four in five patients alive after a year, three in five after three.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from statfed.scenarios._data.numbers import drawn

STAGES = ("localised", "regional", "distant")
TREATMENTS = ("surgery", "other")
INCOMES = ("low", "middle", "high")
MONTHS = 36
YOUNGEST, OLDEST = 40, 90
HAZARD: Mapping[str, float] = {"regional": 0.6, "distant": 1.7, "other": 0.5, "low": 0.3, "high": -0.3}
"""Log hazard ratios, against localised, surgery and middle."""
_SHAPE, _SCALE = 0.8, 210.0  # months, at age 70
_SHARES = (0.4, 0.36, 0.24)
_SURGERY = {"localised": 0.9, "regional": 0.75, "distant": 0.3}


@dataclass(frozen=True)
class Sizes:
    """Patients of the cancer register; share of them that each other register has; numbers that were issued.

    others: persons in the hospital and the tax register who are in no other one, for each patient.
    """

    patients: int
    issued: int
    hospital: float = 0.9
    tax: float = 0.93
    others: float = 0.4


def registers(sizes: Sizes, seed: int) -> dict[str, pd.DataFrame]:
    """cancer (id, age, stage, months, died, died_early), hospital (id, treatment, emergency) and tax (id, income), each
    in an order of its own."""
    rng = np.random.default_rng([seed, 6143, sizes.patients])
    extra = round(sizes.others * sizes.patients)
    total = sizes.patients + 2 * extra
    age = np.clip(np.rint(rng.normal(70, 11, total)), YOUNGEST, OLDEST).astype(int)
    stage = rng.choice(STAGES, total, p=_SHARES)
    surgery = rng.random(total) < pd.Series(stage).map(_SURGERY).to_numpy(float)
    treatment = np.where(surgery, *TREATMENTS)
    income = rng.choice(INCOMES, total, p=[0.35, 0.4, 0.25])
    risk = 0.03 * (age - 70) + sum(
        beta * ((stage == name) | (treatment == name) | (income == name)) for name, beta in HAZARD.items()
    )
    death = _SCALE * (rng.exponential(size=total) / np.exp(risk)) ** (1 / _SHAPE)
    closing = rng.uniform(14.0, MONTHS + 12.0, total)
    months = np.ceil(np.minimum(np.minimum(death, closing), MONTHS)).astype(int)
    died = (death <= closing) & (death <= MONTHS)
    persons = pd.DataFrame(
        {
            "id": drawn(total, sizes.issued, rng),
            "age": age,
            "stage": stage,
            "months": months,
            "died": died,
            "died_early": died & (months <= 12),
            "treatment": treatment,
            "emergency": rng.random(total) < 0.15 + 0.15 * (stage == "distant"),
            "income": income,
        }
    )
    patients = np.arange(sizes.patients)
    rows = {
        "cancer": patients,
        "hospital": np.concatenate([_some(patients, sizes.hospital, rng), sizes.patients + np.arange(extra)]),
        "tax": np.concatenate([_some(patients, sizes.tax, rng), sizes.patients + extra + np.arange(extra)]),
    }
    return {name: persons.iloc[rng.permutation(rows[name])][_COLUMNS[name]].reset_index(drop=True) for name in rows}


_COLUMNS = {
    "cancer": ["id", "age", "stage", "months", "died", "died_early"],
    "hospital": ["id", "treatment", "emergency"],
    "tax": ["id", "income"],
}


def _some(rows: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(rows, round(share * len(rows)), replace=False)
