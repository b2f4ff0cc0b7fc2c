"""Scenario `health`: survival and readmission by treatment, across hospitals that may not pool patients' records.

Five hospitals treat the same disease with two treatments, in different proportions and different patients. One
hospital alone has too few patients for a hazard ratio of use, and a comparison of all patients without their age and
illness says more about who was given the treatment than about the treatment. Kaplan-Meier curves by arm (`survival`),
hazard ratios within hospitals (`cox`, a baseline hazard for each) and odds ratios of readmission within 30 days (`glm`,
with hospital effects) come from sums over hospitals.

No differentially private level: `cox` and `glm` have no private form, and a level is the same for all questions of a
scenario. `survival` has one, and would apply by itself.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize
from sklearn.linear_model import LogisticRegression

from statfed.core.codebook import Codebook, Column
from statfed.core.disclosure import Rules
from statfed.core.result import Result
from statfed.core.scenario import (
    EXACT,
    Ask,
    Figure,
    Figures,
    Level,
    Profile,
    Reference,
    Success,
    World,
    read_about,
)
from statfed.scenarios._data import wards

ABOUT = read_about(__file__)

LEVELS: Sequence[Level] = (
    EXACT,
    Level("suppress-11", "at least 11 patients behind a figure", disclosure=Rules(minimum_frequency=11)),
    Level("suppress-50", "at least 50 patients behind a figure", disclosure=Rules(minimum_frequency=50)),
)
"""5 and 11: the small-number limits of NHS England and of the Centers for Medicare and Medicaid Services."""

ALLOWED = {"survival": 0.01, "hazard": 0.02, "odds": 0.02}
"""Error that the use of a figure allows, by the first part of its name: one percentage point of survival, 2 % of a
ratio, a fifth of the 10 % that change a guideline's wording of a modest effect."""

COVARIATES = "C(arm) + I(age / 10) + C(sex) + diagnoses + emergency"
TIMES = (6, 12, 24, 36)
_SCALE: Mapping[Profile, int] = {"quick": 1, "full": 10}
Vector = NDArray[np.float64]


def world(profile: Profile, seed: int) -> World:
    """The hospitals' patients. quick: 3,400; full: 34,000."""
    holders = {name: wards.patients(name, _SCALE[profile], seed) for name in wards.HOSPITALS}
    category = {"hospital": tuple(holders), "arm": wards.ARMS, "sex": wards.SEXES}
    number = {
        "age": (wards.YOUNGEST, wards.OLDEST, "years"),
        "diagnoses": (0, wards.MOST_DIAGNOSES, ""),
        "months": (1, wards.MONTHS, "months"),
    }
    columns = {
        name: Column(type="category", categories=dict.fromkeys(codes, ""), required=True)
        for name, codes in category.items()
    }
    columns |= {
        name: Column(type="integer", low=low, high=high, unit=unit, required=True)
        for name, (low, high, unit) in number.items()
    }
    columns |= {name: Column(type="boolean", required=True) for name in ("emergency", "died", "readmitted")}
    truth = {f"hazard/{_short(name)}": math.exp(b) for name, b in wards.DEATH.items()}
    truth |= {f"odds/{_short(name)}": math.exp(b) for name, b in wards.READMISSION.items()}
    return World(
        holders,
        Codebook(title="Patients by admission", columns=columns),
        f"generated records of {sum(map(len, holders.values())):,} patients, seed {seed}",
        public={"holders": tuple(holders)},
        truth=truth,
    )


def compute(ask: Ask, public: Mapping[str, Any]) -> Figures:  # noqa: ARG001
    """Three questions: hazard ratios, odds ratios of readmission, survival curves by arm."""
    hazards = ask("cox", time="months", event="died", covariates=COVARIATES, strata=["hospital"])
    odds = ask("glm", formula=f"readmitted ~ {COVARIATES} + C(hospital)", family="binomial")
    curves = ask("survival", time="months", event="died", group=["arm"])
    figures = {f"hazard/{_short(name)}": ratio for name, ratio in _ratios(hazards).items()}
    figures |= {f"odds/{_short(name)}": ratio for name, ratio in _ratios(odds).items()}
    for arm in wards.ARMS:
        steps = [row for row in curves.tables["curve"] if row["arm"] == arm]
        for time in TIMES:
            figures[f"survival/{arm}/{time}"] = _survival(steps, time)
    return figures


def pooled(world: World) -> Reference:
    """The same figures from all records together: own product limit and partial likelihood, scikit-learn's logit."""
    patients = pd.concat(world.holders.values(), ignore_index=True)
    x = np.column_stack(
        [
            patients["arm"] == "new",
            patients["age"] / 10,
            patients["sex"] == "m",
            patients["diagnoses"],
            patients["emergency"],
        ]
    ).astype(np.float64)
    hospital = patients["hospital"].map({name: i for i, name in enumerate(world.holders)}).to_numpy()
    months, died = patients["months"].to_numpy(), patients["died"].to_numpy()
    beta = _partial_likelihood(x - x.mean(axis=0), months, died, hospital)
    found = {f"hazard/{_short(name)}": math.exp(b) for name, b in zip(wards.DEATH, beta, strict=True)}
    indicators = np.eye(len(world.holders))[hospital][:, 1:]
    logit = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-12, max_iter=200)
    logit.fit(np.column_stack([x - x.mean(axis=0), indicators]), patients["readmitted"])
    found |= {f"odds/{_short(name)}": math.exp(b) for name, b in zip(wards.READMISSION, logit.coef_[0], strict=False)}
    for arm in wards.ARMS:
        here = (patients["arm"] == arm).to_numpy()
        for time in TIMES:
            found[f"survival/{arm}/{time}"] = _product_limit(months[here], died[here], time)
    return found


def worst(figures: Figures, pooled: Reference) -> float:
    """Largest error of a released figure over what its use allows (`ALLOWED`), that of ratios relative to the figure;
    infinite without the treatment's hazard ratio."""
    if figures["hazard/new"].value is None:
        return math.inf

    def error(name: str, value: float) -> float:
        kind = name.partition("/")[0]
        return abs(value - pooled[name]) / (1.0 if kind == "survival" else pooled[name]) / ALLOWED[kind]

    return max(error(name, figure.value) for name, figure in figures.items() if figure.value is not None)


SUCCESS = Success("largest error over what its use allows: survival 1 point, hazard and odds ratios 2 %", worst, 1.0)


def _short(name: str) -> str:
    """What a coefficient is called in figures."""
    return {"C(arm)[T.new]": "new", "I(age / 10)": "age", "C(sex)[T.m]": "men"}.get(name, name)


def _ratios(model: Result) -> dict[str, Figure]:
    """Exponentials of the coefficients that hospitals share, with their limits; none where a hospital has not the
    covariate's levels."""
    found = dict.fromkeys(wards.DEATH, Figure(None))
    limits = model.conf_int().set_index("name")
    for row in model.tables["coefficients"]:
        name, value = str(row["name"]), row["estimate"]
        if name.removesuffix("[T.True]") in found and isinstance(value, float):
            low, high = (math.exp(float(limits[end][name])) for end in ("lower", "upper"))
            found[name.removesuffix("[T.True]")] = Figure(math.exp(value), low, high)
    return found


def _survival(steps: Sequence[Mapping[str, Any]], time: int) -> Figure:
    """The curve at a time: its last step by then, none where that step was withheld."""
    last = max((row for row in steps if row["time"] <= time), key=lambda row: row["time"], default=None)
    return Figure(None) if last is None else Figure(last["survival"], last["lower"], last["upper"])


def _product_limit(months: NDArray[Any], died: NDArray[Any], time: int) -> float:
    """Kaplan and Meier's estimate at a time."""
    survival = 1.0
    for month in range(1, time + 1):
        survival *= 1 - ((months == month) & died).sum() / (months >= month).sum()
    return float(survival)


def _partial_likelihood(x: Vector, months: NDArray[Any], died: NDArray[Any], stratum: NDArray[Any]) -> Vector:
    """Coefficients at the maximum of the stratified partial likelihood, ties after Efron; BFGS, then Newton's steps
    with the gradient by complex steps."""
    sets = [
        ((stratum == s) & (months >= month), here)
        for s in np.unique(stratum)
        for month in np.unique(months[(stratum == s) & died])
        if (here := (stratum == s) & (months == month) & died).any()
    ]

    def objective(cases: NDArray[Any]) -> NDArray[Any]:
        """cases: (coefficients, m). Minus the log partial likelihood of each, (m,)."""
        eta = x @ cases
        weight, total = np.exp(eta), np.zeros(cases.shape[1], cases.dtype)
        for risk, deaths in sets:
            d = int(deaths.sum())
            left = weight[risk].sum(0) - np.arange(d)[:, None] / d * weight[deaths].sum(0)
            total += eta[deaths].sum(0) - np.log(left).sum(0)
        return -total

    def gradient(beta: Vector) -> Vector:
        cases = beta[:, None] + 1e-30j * np.eye(len(beta))
        return np.asarray(np.imag(objective(cases)) / 1e-30)

    def value(beta: Vector) -> float:
        return float(objective(beta[:, None])[0])

    rough = optimize.minimize(value, np.zeros(x.shape[1]), jac=gradient)
    return np.asarray(optimize.root(gradient, rough.x, tol=1e-13).x)
