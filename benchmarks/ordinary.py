"""Forty questions that official statistics ask every day, under the rules that are to stop attacks: how many are
refused, and why; and what the rules cost.

    python benchmarks/ordinary.py                       # each question to holders that were never asked before
    python benchmarks/ordinary.py --together            # all forty to the same holders, one after the other
    python benchmarks/ordinary.py --cost 5              # processor time with and without rules, interleaved

Four made populations of realistic shape (skewed incomes, rare levels, a few large enterprises), each with three holders
of 2,000 to 10,000 records. The questions are those of labour force, income, expenditure, health, crime and business
statistics and of regressions in the literature on them. Reasons are the holder's own log, which the asker never sees.
"""

# ruff: noqa: E501  # a question a line

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from statfed.client.guard.refusals import refusals
from statfed.client.guard.templates import Template
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.disclosure import OFF, Rules

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.attacks.world import No, World

SIZES = {"a": 10_000, "b": 4_000, "c": 2_000}
REGIONS = [f"r{i}" for i in range(1, 9)]
EDUCATION = ["primary", "lower", "upper", "tertiary"]
OCCUPATIONS = [f"o{i}" for i in range(1, 10)]
SECTORS = list("ACFGHIJKMQ")
AGES = ["15-24", "25-34", "35-44", "45-54", "55-64", "65+"]


@dataclass(frozen=True)
class Ordinary:
    """One question. of: the population; like: the publication that prints such a figure."""

    like: str
    of: str
    method: str
    options: Mapping[str, Any]
    where: Sequence[str] = ()


def _category(codes: Sequence[str], **more: Any) -> dict[str, Any]:
    return {"type": "category", "categories": list(codes), **more}


def _number(low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"type": "number", "low": low, "high": high, **more}


BOOKS: dict[str, Codebook] = {
    "persons": make_codebook(
        {
            "columns": {
                "person": {"type": "id", "role": "unit"},
                "region": _category(REGIONS),
                "sex": _category(["f", "m"]),
                "age": {"type": "integer", "low": 15, "high": 100},
                "agegroup": _category(AGES),
                "education": _category(EDUCATION),
                "schooling": {"type": "integer", "low": 0, "high": 25},
                "occupation": _category(OCCUPATIONS),
                "status": _category(["employed", "unemployed", "inactive"]),
                "employed": {"type": "boolean"},
                "hours": _number(0, 100),
                "income": _number(0, 2_000_000),
                "wage": _number(1, 500),
                "experience": _number(0, 70),
                "poor": {"type": "boolean"},
                "smoker": {"type": "boolean"},
                "illness": {"type": "boolean"},
                "visits": {"type": "integer", "low": 0, "high": 60},
                "weight": _number(0.1, 500, role="weight"),
                "spell": {"type": "integer", "low": 1, "high": 24},
                "found": {"type": "boolean"},
            }
        }
    ),
    "households": make_codebook(
        {
            "columns": {
                "household": {"type": "id", "role": "unit"},
                "region": _category(REGIONS),
                "type": _category(["single", "couple", "family", "lone parent", "other"]),
                "members": {"type": "integer", "low": 1, "high": 12},
                "tenure": _category(["owner", "tenant", "free"]),
                "income": _number(0, 3_000_000),
                "expenditure": _number(0, 1_000_000),
                "food": _number(0, 100_000),
                "rent": _number(0, 200_000),
                "energy": _number(0, 50_000),
                "transport": _number(0, 200_000),
                "weight": _number(0.1, 500, role="weight"),
                "income_last_year": _number(0, 3_000_000),
            }
        }
    ),
    "enterprises": make_codebook(
        {
            "columns": {
                "enterprise": {"type": "id", "role": "enterprise"},
                "sector": _category(SECTORS),
                "region": _category(REGIONS),
                "size": _category(["1-9", "10-49", "50-249", "250+"]),
                "staff": {"type": "integer", "low": 1, "high": 50_000},
                "turnover": _number(0, 1e10),
                "exports": {"type": "boolean"},
                "accidents": {"type": "integer", "low": 0, "high": 200},
                "months": {"type": "integer", "low": 1, "high": 60},
                "closed": {"type": "boolean"},
            }
        }
    ),
    "incidents": make_codebook(
        {
            "columns": {
                "incident": {"type": "id"},
                "region": _category(REGIONS),
                "offence": _category(["theft", "burglary", "assault", "fraud", "robbery", "drugs", "homicide"]),
                "month": {"type": "integer", "low": 1, "high": 12},
                "cleared": {"type": "boolean"},
                "loss": _number(0, 1_000_000),
                "unemployment": _number(0, 40),
                "density": _number(0, 20_000),
                "overcrowding": _number(0, 60),
                "nocar": _number(0, 90),
            }
        }
    ),
}


def population(of: str, seed: int = 3) -> dict[str, pd.DataFrame]:
    """Holders' records of one population."""
    rng = np.random.default_rng(seed)
    return {name: _DRAW[of](rng, name, n) for name, n in SIZES.items()}


def _persons(rng: np.random.Generator, holder: str, n: int) -> pd.DataFrame:
    age = np.clip(rng.gamma(6.5, 7, n) + 15, 15, 99).astype(int)
    level = rng.choice(4, n, p=[0.12, 0.22, 0.41, 0.25])
    schooling = np.clip(6 + 3 * level + rng.integers(-1, 3, n), 0, 25)
    sex = rng.choice(["f", "m"], n)
    work = 1 / (1 + np.exp(-(2.2 + 0.4 * (level - 1.5) - ((age - 42) / 14) ** 2 + 0.3 * (sex == "m"))))
    employed = rng.random(n) < work
    experience = np.clip(age - schooling - 6, 0, 70)
    wage = np.clip(np.exp(1.6 + 0.09 * schooling + 0.02 * experience + rng.normal(0, 0.5, n)), 1, 500)
    hours = np.where(employed, np.clip(rng.normal(38, 9, n) - 5 * (sex == "f"), 4, 90), 0)
    income = (
        np.where(employed, wage * hours * 48, rng.lognormal(8.8, 0.7, n))
        + (rng.random(n) < 0.02) * rng.pareto(1.8, n) * 40_000
    )
    ill = rng.random(n) < 1 / (1 + np.exp(3.2 - 0.03 * age))
    return pd.DataFrame(
        {
            "person": [f"{holder}{i}" for i in range(n)],
            "region": rng.choice(REGIONS, n, p=[0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04]),
            "sex": sex,
            "age": age,
            "agegroup": np.array(AGES)[np.clip((age - 15) // 10, 0, 5)],
            "education": np.array(EDUCATION)[level],
            "schooling": schooling,
            "occupation": rng.choice(OCCUPATIONS, n, p=[0.06, 0.18, 0.16, 0.12, 0.17, 0.03, 0.1, 0.08, 0.1]),
            "status": np.where(employed, "employed", np.where(rng.random(n) < 0.18, "unemployed", "inactive")),
            "employed": employed,
            "hours": hours.round(1),
            "income": np.clip(income, 0, 2e6).round(0),
            "wage": wage.round(2),
            "experience": experience.astype(float),
            "poor": income < 9_000,
            "smoker": rng.random(n) < 0.22,
            "illness": ill,
            "visits": np.minimum(rng.negative_binomial(1.2, 0.25, n) + 2 * ill, 60),
            "weight": np.clip(rng.lognormal(4, 0.35, n), 0.1, 500).round(3),
            "spell": np.clip(rng.geometric(0.12, n), 1, 24),
            "found": rng.random(n) < 0.7,
        }
    )


def _households(rng: np.random.Generator, holder: str, n: int) -> pd.DataFrame:
    members = np.clip(rng.poisson(1.3, n) + 1, 1, 12)
    income = np.clip(rng.lognormal(10.2, 0.65, n) * np.sqrt(members), 0, 3e6)
    spent = np.clip(0.75 * income * rng.lognormal(0, 0.3, n) ** 0.8, 0, 1e6)
    tenure = rng.choice(["owner", "tenant", "free"], n, p=[0.6, 0.36, 0.04])
    return pd.DataFrame(
        {
            "household": [f"{holder}{i}" for i in range(n)],
            "region": rng.choice(REGIONS, n, p=[0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04]),
            "type": rng.choice(
                ["single", "couple", "family", "lone parent", "other"], n, p=[0.34, 0.28, 0.25, 0.08, 0.05]
            ),
            "members": members,
            "tenure": tenure,
            "income": income.round(0),
            "expenditure": spent.round(0),
            "food": np.clip(3_000 * members**0.7 * rng.lognormal(0, 0.4, n), 0, 1e5).round(0),
            "rent": np.where(tenure == "tenant", np.clip(0.25 * spent * rng.lognormal(0, 0.3, n), 0, 2e5), 0).round(0),
            "energy": np.clip(1_200 * rng.lognormal(0, 0.5, n), 0, 5e4).round(0),
            "transport": np.where(
                rng.random(n) < 0.8, np.clip(0.1 * spent * rng.lognormal(0, 0.6, n), 0, 2e5), 0
            ).round(0),
            "weight": np.clip(rng.lognormal(4, 0.3, n), 0.1, 500).round(3),
            "income_last_year": np.clip(income * rng.lognormal(-0.02, 0.15, n), 0, 3e6).round(0),
        }
    )


def _enterprises(rng: np.random.Generator, holder: str, n: int) -> pd.DataFrame:
    staff = np.clip(rng.pareto(1.1, n) * 3 + 1, 1, 50_000).astype(int)
    return pd.DataFrame(
        {
            "enterprise": [f"{holder}{i}" for i in range(n)],
            "sector": rng.choice(SECTORS, n, p=[0.03, 0.1, 0.14, 0.24, 0.06, 0.1, 0.08, 0.04, 0.14, 0.07]),
            "region": rng.choice(REGIONS, n, p=[0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04]),
            "size": np.array(["1-9", "10-49", "50-249", "250+"])[np.digitize(staff, [10, 50, 250])],
            "staff": staff,
            "turnover": np.clip(staff * rng.lognormal(11.5, 0.8, n), 0, 1e10).round(0),
            "exports": rng.random(n) < 0.1 + 0.2 * (staff > 20),
            "accidents": np.minimum(rng.poisson(0.02 * staff**0.9), 200),
            "months": np.clip(rng.geometric(0.02, n), 1, 60),
            "closed": rng.random(n) < 0.55,
        }
    )


def _incidents(rng: np.random.Generator, holder: str, n: int) -> pd.DataFrame:
    base = rng.normal(0, 1, n)
    return pd.DataFrame(
        {
            "incident": [f"{holder}{i}" for i in range(n)],
            "region": rng.choice(REGIONS, n, p=[0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.04]),
            "offence": rng.choice(
                ["theft", "burglary", "assault", "fraud", "robbery", "drugs", "homicide"],
                n,
                p=[0.42, 0.12, 0.16, 0.14, 0.05, 0.1, 0.01],
            ),
            "month": rng.integers(1, 13, n),
            "cleared": rng.random(n) < 0.35,
            "loss": np.clip(rng.lognormal(5.5, 1.6, n), 0, 1e6).round(0),
            "unemployment": np.clip(6 + 2.5 * base + rng.normal(0, 1.5, n), 0, 40).round(1),
            "density": np.clip(np.exp(6.5 + 0.5 * base + rng.normal(0, 0.8, n)), 0, 20_000).round(0),
            "overcrowding": np.clip(8 + 4 * base + rng.normal(0, 3, n), 0, 60).round(1),
            "nocar": np.clip(25 + 9 * base + rng.normal(0, 7, n), 0, 90).round(1),
        }
    )


_DRAW = {"persons": _persons, "households": _households, "enterprises": _enterprises, "incidents": _incidents}

P, H, E, C = "persons", "households", "enterprises", "incidents"
MINCER = "log(wage) ~ schooling + experience + I(experience**2)"
QUESTIONS: tuple[Ordinary, ...] = (
    Ordinary("LFS: persons by status and sex", P, "table", {"rows": ["status"], "columns": ["sex"]}),
    Ordinary("LFS: persons by status and age", P, "table", {"rows": ["status"], "columns": ["agegroup"]}),
    Ordinary("LFS: persons by status, education and sex", P, "table", {"rows": ["status", "education"], "columns": ["sex"]}),
    Ordinary("LFS: weighted employment by region", P, "count", {"by": ["employed", "region"], "design": True}),
    Ordinary("LFS: occupation by sex", P, "table", {"rows": ["occupation"], "columns": ["sex"]}, ["employed = true"]),
    Ordinary("LFS: usual hours by sex and education", P, "mean", {"columns": ["hours"], "by": ["sex", "education"]}, ["employed = true"]),
    Ordinary("LFS: hours of work in classes", P, "histogram", {"column": "hours", "edges": [0, 10, 20, 30, 35, 40, 45, 100]}, ["employed = true"]),
    Ordinary("LFS: employment logit", P, "glm", {"formula": "employed ~ age + I(age**2) + C(sex) + C(education)", "family": "binomial"}),
    Ordinary("LFS: employment logit with regions", P, "glm", {"formula": "employed ~ age + C(sex)*C(education) + C(region)", "family": "binomial"}),
    Ordinary("Mincer 1974: wage equation", P, "ols", {"formula": MINCER}, ["employed = true"]),
    Ordinary("Blau and Kahn 2017: gender wage gap", P, "ols", {"formula": f"{MINCER} + C(sex) + C(occupation) + C(region)", "robust": "HC1"}, ["employed = true"]),
    Ordinary("SES: mean hourly wage by occupation and sex", P, "mean", {"columns": ["wage"], "by": ["occupation", "sex"]}, ["employed = true"]),
    Ordinary("SILC: mean income by region and sex", P, "mean", {"columns": ["income"], "by": ["region", "sex"], "design": True}),
    Ordinary("SILC: total income by region", P, "total", {"columns": ["income"], "by": ["region"], "design": True}),
    Ordinary("SILC: quartiles of income", P, "quantile", {"columns": ["income"], "least": 300}),
    Ordinary("SILC: median income by sex", P, "quantile", {"columns": ["income"], "probabilities": [0.5], "by": "sex", "least": 300}),
    Ordinary("SILC: deciles of wages", P, "quantile", {"columns": ["wage"], "probabilities": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], "least": 300}, ["employed = true"]),
    Ordinary("SILC: at risk of poverty by age", P, "mean", {"columns": ["poor"], "by": ["agegroup"], "design": True}),
    Ordinary("SILC: income by sex, Welch's test", P, "ttest", {"columns": ["income"], "by": "sex"}),
    Ordinary("EHIS: smokers by education, chi-square", P, "chisq", {"columns": ["smoker", "education"]}),
    Ordinary("EHIS: illness logit", P, "glm", {"formula": "illness ~ age + C(sex) + smoker", "family": "binomial"}),
    Ordinary("EHIS: visits to doctors, Poisson", P, "glm", {"formula": "visits ~ age + C(sex) + illness", "family": "poisson"}),
    Ordinary("LFS: unemployment spells, Kaplan-Meier", P, "survival", {"time": "spell", "event": "found", "group": ["sex"]}),
    Ordinary("LFS: unemployment spells, Cox", P, "cox", {"time": "spell", "event": "found", "covariates": "age + C(sex) + C(education)"}),
    Ordinary("LFS: calibration to age and sex", P, "calibrate", {"margins": {"sex": {"f": 5.2e5, "m": 5.0e5}, "agegroup": dict(zip(AGES, [1e5, 1.6e5, 1.8e5, 1.9e5, 1.7e5, 2.2e5], strict=True))}, "columns": ["hours"], "weight": "weight"}),
    Ordinary("LFS: multilevel logit with regions", P, "glmm", {"formula": "employed ~ age + C(sex)", "group": "region"}),
    Ordinary("HBS: mean expenditure by kind of household", H, "mean", {"columns": ["expenditure", "food", "energy"], "by": ["type"], "design": True}),
    Ordinary("HBS: share of expenditure in income by region", H, "ratio", {"numerator": "expenditure", "denominator": "income", "by": ["region"], "design": True}),
    Ordinary("HBS: Engel curve of food", H, "ols", {"formula": "food ~ log(expenditure + 1) + members + C(region)"}),
    Ordinary("HBS: description of expenditure", H, "describe", {"columns": ["expenditure", "food", "rent", "energy", "transport"]}),
    Ordinary("HBS: tenure by kind of household", H, "table", {"rows": ["type"], "columns": ["tenure"]}),
    Ordinary("HBS: income this and last year, paired test", H, "ttest", {"columns": ["income", "income_last_year"], "paired": True}),
    Ordinary("HBS: correlation of expenditures", H, "covariance", {"columns": ["food", "energy", "transport", "expenditure"]}),
    Ordinary("SBS: enterprises by sector and size", E, "table", {"rows": ["sector"], "columns": ["size"]}),
    Ordinary("SBS: turnover by sector", E, "table", {"rows": ["sector"], "value": "turnover"}),
    Ordinary("Business demography: survival of enterprises by size", E, "survival", {"time": "months", "event": "closed", "group": ["size"]}),
    Ordinary("ESAW: accidents at work, Poisson with staff", E, "glm", {"formula": "accidents ~ C(sector) + exports", "family": "poisson", "exposure": "staff"}),
    Ordinary("Crime: incidents by offence and region", C, "table", {"rows": ["offence"], "columns": ["region"]}),
    Ordinary("Crime: cleared incidents by offence", C, "mean", {"columns": ["cleared"], "by": ["offence"]}),
    Ordinary("Deprivation: components of four indicators", C, "pca", {"columns": ["unemployment", "density", "overcrowding", "nocar"], "scale": True}),
)  # fmt: skip


def world(of: str, ruled: bool, policies: Mapping[str, Mapping[str, Any]] | None = None) -> World:
    """Three holders of one population, under the standard rules or under none."""
    home = Path(tempfile.mkdtemp(prefix="ordinary-"))
    template: Template = "standard" if ruled else "rehearsal"
    return World(home, population(of), BOOKS[of], template, dict(policies or {}), Rules() if ruled else OFF)


def outcome(made: World, question: Ordinary) -> tuple[str, str]:
    """Answered, partly (with rows that are withheld) or refused; and the reason, from the holders' own logs."""
    before = {name: len(refusals(holder.home)) for name, holder in made.holders.items()}
    try:
        result = made.release(question.method, question.options, question.where)
    except No as error:
        logs = {name: refusals(holder.home)[before[name] :] for name, holder in made.holders.items()}
        own = [f"{name}: {one.reason}" for name, found in logs.items() for one in found]
        return "refused", " ".join("; ".join(own or [str(error)]).split())
    rows = [row for table in result.tables.values() for row in table]
    hidden = sum(row.get("status") not in (None, "released") for row in rows)
    return ("partly", f"{hidden} of {len(rows)} rows hidden") if hidden else ("answered", "")


def asked(together: bool) -> list[dict[str, str]]:
    """Every question, to new holders each or to the same ones."""
    found: list[dict[str, str]] = []
    worlds: dict[str, World] = {}
    for question in QUESTIONS:
        if together and question.of in worlds:
            made = worlds[question.of]
        else:
            made = worlds[question.of] = world(question.of, ruled=True)
        state, why = outcome(made, question)
        found.append({"question": question.like, "method": question.method, "state": state, "why": why})
        print(f"{state:9} {question.method:10} {question.like}{': ' + why[:300] if why else ''}", flush=True)
        if not together:
            made.close()
    return found


def cost(repeat: int) -> dict[str, float]:
    """Processor time of a ruled against an unruled question, by method: medians of ratios taken in turn."""
    ratios: dict[str, list[float]] = {}
    pairs = {of: (world(of, ruled=True), world(of, ruled=False)) for of in BOOKS}
    for turn in range(repeat + 1):
        for question in QUESTIONS:
            seconds = []
            for made in pairs[question.of]:
                started = time.process_time()
                made.asked(question.method, question.options, question.where)
                seconds.append(time.process_time() - started)
            if turn:  # the first turn warms up
                ratios.setdefault(question.method, []).append(seconds[0] / seconds[1])
    return {name: statistics.median(all_) for name, all_ in sorted(ratios.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--together", action="store_true", help="all questions to the same holders")
    parser.add_argument("--cost", type=int, default=0, help="turns of the comparison of processor time")
    parser.add_argument("--json", type=Path, help="where the figures go as well")
    given = parser.parse_args()
    if given.cost:
        found: Any = cost(given.cost)
        for name, ratio in found.items():
            print(f"{name:12} {ratio:5.2f}")
        print(f"{'median':12} {statistics.median(found.values()):5.2f}")
    else:
        found = asked(given.together)
        states = [one["state"] for one in found]
        share = states.count("refused") / len(states)
        print(f"refused {states.count('refused')} of {len(states)} ({share:.1%}), partly {states.count('partly')}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
