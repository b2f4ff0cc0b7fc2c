"""Reference scenario `health-vertical`: survival of patients whom three registers each know a part of.

A cancer register has the stage at diagnosis and follows patients to their death, hospitals have what was done, the tax
office has incomes. Taken together they say whether survival goes with income, and with treatment: Kaplan-Meier curves
by each, and a logistic model of death within a year on age and stage (the cancer register's), treatment and emergency
admission (the hospitals') and income (the tax office's). Of those in all three registers, without any of them learning
which of its patients another one has. 20 points of survival and 8 coefficients with standard errors, 36 figures.

Three holders and a helper: a linkage of two parties cannot do it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import Rules
from statfed.core.result import Result
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figure,
    Figures,
    Level,
    Matching,
    Profile,
    Reference,
    Success,
    World,
    read_about,
)
from statfed.scenarios._data import oncology
from statfed.scenarios._data.numbers import RULE, issued
from statfed.scenarios._models import design, figures_of, in_errors, logistic

SIZES: Mapping[Profile, oncology.Sizes] = {
    "quick": oncology.Sizes(patients=1_500, issued=200_000),
    "full": oncology.Sizes(patients=12_000, issued=2_000_000),
}
STEP = 6
"""Months between the steps of a curve: by the month a step would be of few deaths, which rules withhold."""
TIMES = (6, 12, 24, 36)
"""Months after diagnosis at which survival is compared."""
HEADLINE = 12
GROUPS: Mapping[str, Sequence[str]] = {"treatment": oncology.TREATMENTS, "income": oncology.INCOMES}
FORMULA = "died_early ~ age + C(stage) + C(treatment) + emergency + C(income)"
TERMS = (
    "Intercept",
    "age",
    "C(stage)[T.regional]",
    "C(stage)[T.distant]",
    "C(treatment)[T.other]",
    "emergency",
    "C(income)[T.middle]",
    "C(income)[T.high]",
)

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress", "curves and models of 10 patients or more in every group", disclosure=Rules()),
    Level("suppress-30", "the same from 30 patients on", disclosure=Rules(minimum_frequency=30)),
)


def worst(figures: Figures, pooled: Reference) -> float:
    """Largest error of a released figure over what its use allows: 1 point of survival, a hundredth of a standard error
    of a coefficient; infinite without the model, or without survival at `HEADLINE` of every group."""
    models = {name: value for name, value in pooled.items() if not name.startswith("survival/")}
    errors = [in_errors(figures, models) / 0.01]
    for name in pooled.keys() - models.keys():
        got = figures[name].value
        if got is not None:
            errors.append(abs(got - pooled[name]) / 0.01)
        elif name.endswith(f"/{HEADLINE}"):
            return math.inf
    return max(errors)


SUCCESS = Success("largest error over what its use allows: survival 1 point, coefficients .01 of theirs", worst, 1.0)
"""Late points of a curve may be withheld, where few die; survival after a year is what is asked first."""


def guesses(public: Mapping[str, Any]) -> Iterable[str]:
    """All patient numbers that were issued."""
    return issued(public["issued"])


MATCHED = Matching(key="id", guesses=guesses)


def codebook() -> Codebook:
    """What the three agree on: each has its own columns beside the patient number."""
    needed = {"required": True}
    columns: dict[str, dict[str, Any]] = {
        "id": {"type": "id", "key": RULE, "label": "patient number"} | needed,
        "age": {"type": "integer", "low": oncology.YOUNGEST, "high": oncology.OLDEST, "unit": "years"} | needed,
        "stage": {"type": "category", "categories": list(oncology.STAGES)} | needed,
        "months": {"type": "integer", "low": 0, "high": oncology.MONTHS, "unit": "months"} | needed,
        "died": {"type": "boolean"} | needed,
        "died_early": {"type": "boolean", "label": "died within twelve months of diagnosis"} | needed,
        "treatment": {"type": "category", "categories": list(oncology.TREATMENTS)} | needed,
        "emergency": {"type": "boolean", "label": "first admitted as an emergency"} | needed,
        "income": {"type": "category", "categories": list(oncology.INCOMES)} | needed,
    }
    return make_codebook({"title": "Cancer patients in three registers", "columns": columns}, "health-vertical")


def world(profile: Profile, seed: int) -> World:
    """The three registers. quick: 1,500 patients; full: 12,000."""
    sizes = SIZES[profile]
    made = oncology.registers(sizes, seed)
    holders = {f"{name}-{what}": made[name] for name, what in _HOLDERS.items()}
    return World(
        holders=holders,
        codebook=codebook(),
        origin=f"synthetic: registers of statfed {VERSION}, seed {seed}, {sizes.patients:,} cancer patients",
        public={"holders": tuple(holders), "issued": sizes.issued},
    )


_HOLDERS = {"cancer": "register", "hospital": "register", "tax": "office"}


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """Two sets of curves and a model."""
    found: dict[str, Figure] = {}
    for column, groups in GROUPS.items():
        curves = ask("survival", time="months", event="died", interval=STEP, group=[column])
        found |= {f"survival/{group}/{time}": _at(curves, column, group, time) for group in groups for time in TIMES}
    return found | figures_of("odds", ask("glm", formula=FORMULA, family="binomial"))


def pooled(world: World) -> Reference:
    """The same figures from the plain join: own product limit, logistic regression by scikit-learn."""
    joined = joined_of(world)
    found: dict[str, float] = {}
    for column, groups in GROUPS.items():
        for group in groups:
            here = joined[joined[column] == group]
            found |= {f"survival/{group}/{time}": _product_limit(here, time) for time in TIMES}
    return found | dict(logistic("odds", design(joined, TERMS), joined["died_early"].to_numpy(bool), TERMS))


def joined_of(world: World) -> pd.DataFrame:
    """The plain join of the three registers."""
    first, *others = world.holders.values()
    for other in others:
        first = first.merge(other, on="id")
    return first


def _at(curves: Result, column: str, group: str, time: int) -> Figure:
    """The curve of a group at a time: its last step by then; none where that was withheld."""
    steps = [row for row in curves.tables["curve"] if row[column] == group and float(row["time"] or 0) <= time]
    last = max(steps, key=lambda row: float(row["time"] or 0), default=None)
    value, low, high = (last.get(name) for name in ("survival", "lower", "upper")) if last else (None, None, None)
    return Figure(*(float(one) if isinstance(one, int | float) else None for one in (value, low, high)))


def _product_limit(frame: pd.DataFrame, time: int) -> float:
    """Kaplan and Meier's estimate at a time, from times rounded up to steps."""
    ends, died = np.ceil(frame["months"].to_numpy() / STEP) * STEP, frame["died"].to_numpy(bool)
    steps = [1 - ((ends == end) & died).sum() / (ends >= end).sum() for end in range(STEP, time + 1, STEP)]
    return float(np.prod(steps))
