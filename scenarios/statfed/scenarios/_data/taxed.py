"""Generated persons in a tax register and in a health register, of whom most are in both.

Incomes rise with age and education and fall with chronic conditions; whether somebody is employed goes the same way.
Orders of magnitude are those of European statistics on income and living conditions: annual incomes of employed adults
around 30,000 EUR, 36 % of adults with a long-standing condition, an employment gap of over 20 points for people with a
disability.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from statfed.scenarios._data.numbers import drawn

EDUCATION = ("basic", "secondary", "tertiary")
YOUNGEST, OLDEST = 25, 64
MOST_INCOME, MOST_CONDITIONS, MOST_STAYS = 200, 3, 60
"""Thousand euros a year; chronic conditions, three or more as 3, since rare values would tell of few; days in
hospital in the year before."""
INCOME: Mapping[str, float] = {
    "Intercept": 16.0,
    "age": 0.22,
    "C(education)[T.secondary]": 5.0,
    "C(education)[T.tertiary]": 14.0,
    "conditions": -1.6,
    "stays": -0.15,
}
"""Coefficients of income, in thousand euros a year."""
EMPLOYED: Mapping[str, float] = {
    "Intercept": 2.3,
    "age": -0.015,
    "C(education)[T.secondary]": 0.4,
    "C(education)[T.tertiary]": 0.9,
    "conditions": -0.45,
    "stays": -0.06,
}
"""Log odds of being employed."""


@dataclass(frozen=True)
class Sizes:
    """Records of the tax office, of the health register, and of those in both; numbers that were issued."""

    tax: int
    health: int
    both: int
    issued: int


def registers(sizes: Sizes, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The tax office's persons (id, age, education, income, employed) and the health register's (id, conditions,
    stays), each in an order of its own. The health register has the sicker ones."""
    rng = np.random.default_rng([seed, 5309, sizes.tax, sizes.health])
    total = sizes.tax + sizes.health - sizes.both
    age = rng.integers(YOUNGEST, OLDEST + 1, total)
    education = rng.choice(EDUCATION, total, p=[0.2, 0.45, 0.35])
    conditions = np.minimum(rng.poisson(0.3 + 0.02 * (age - YOUNGEST)), MOST_CONDITIONS)
    stays = np.where(rng.random(total) < 0.12 + 0.05 * conditions, rng.geometric(0.18, total), 0).clip(max=MOST_STAYS)
    values = {
        "Intercept": np.ones(total),
        "age": age,
        "C(education)[T.secondary]": education == "secondary",
        "C(education)[T.tertiary]": education == "tertiary",
        "conditions": conditions,
        "stays": stays,
    }
    mean = sum(beta * values[name] for name, beta in INCOME.items())
    income = np.clip(np.round(mean + rng.gamma(2.0, 5.0, total) - 10.0, 1), 0.0, MOST_INCOME)
    odds = sum(beta * values[name] for name, beta in EMPLOYED.items())
    persons = pd.DataFrame(
        {
            "id": drawn(total, sizes.issued, rng),
            "age": age,
            "education": education,
            "income": income,
            "employed": rng.random(total) < 1 / (1 + np.exp(-odds)),
            "conditions": conditions,
            "stays": stays,
        }
    )
    ill = np.argsort(-(conditions + 6 * rng.random(total)), kind="stable")
    health, others = rng.permutation(ill[: sizes.health]), ill[sizes.health :]
    tax = np.concatenate([health[: sizes.both], others])
    return (
        persons.iloc[rng.permutation(tax)][["id", "age", "education", "income", "employed"]].reset_index(drop=True),
        persons.iloc[rng.permutation(health)][["id", "conditions", "stays"]].reset_index(drop=True),
    )
