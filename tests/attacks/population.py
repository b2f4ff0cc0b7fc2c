"""Made populations that hold one person, or one enterprise, whom an attacker knows well and wants to know better.

Everything about the target but the sensitive values is known to the attacker: region, sex, age, education, occupation,
the month of entry, that it alone receives a grant to speak of, holds two posts and is on the short list, that it alone
is both in the club and in the union. The sensitive values lie far from everybody else's, so that no attack finds them
by guessing what is usual.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, make_codebook

REGIONS, SEXES = ["north", "south", "east", "far"], ["f", "m"]
EDUCATION, OCCUPATIONS = ["none", "school", "trade", "degree"], ["farm", "care", "office", "plant", "other"]
SECTORS = ["food", "steel", "trade", "mining"]


@dataclass(frozen=True)
class Target:
    """Whom the attacker is after. known: what it knows; secret: what it does not."""

    holder: str
    known: dict[str, Any]
    secret: dict[str, float]


PERSON = Target(
    "a",
    {"region": "north", "sex": "f", "age": 47, "education": "degree", "occupation": "office", "entry": 17},
    {"income": 187_423.0, "benefit": 13_777.0, "illness": 1.0, "grant": 31_250.0},
)
ENTERPRISE = Target("a", {"sector": "mining", "region": "north"}, {"turnover": 873_512.0})
ENTERPRISE_LARGE = 300_000.0
"""Turnover of the largest of three in trade at `a`, none of whom dominates."""

PERSONS = make_codebook(
    {
        "columns": {
            "person": {"type": "id", "role": "unit"},
            "region": {"type": "category", "categories": REGIONS},
            "sex": {"type": "category", "categories": SEXES},
            "age": {"type": "integer", "low": 0, "high": 100},
            "education": {"type": "category", "categories": EDUCATION},
            "occupation": {"type": "category", "categories": OCCUPATIONS},
            "entry": {"type": "integer", "low": 1, "high": 24},
            "event": {"type": "boolean"},
            "income": {"type": "number", "low": 0, "high": 200_000},
            "benefit": {"type": "number", "low": 0, "high": 20_000},
            "grant": {"type": "number", "low": 0, "high": 50_000},
            "posts": {"type": "number", "low": 0, "high": 5},
            "list": {"type": "category", "categories": ["long", "short"]},
            "club": {"type": "category", "categories": ["n", "y"]},
            "union": {"type": "category", "categories": ["n", "y"]},
            "hours": {"type": "number", "low": 0, "high": 80},
            "illness": {"type": "boolean"},
            "weight": {"type": "number", "low": 0.1, "high": 50, "role": "weight"},
            "key": {"type": "number", "low": 0, "high": 1, "role": "record-key"},
            "share": {"type": "number", "low": 0, "high": 1},
        }
    }
)
ENTERPRISES = make_codebook(
    {
        "columns": {
            "enterprise": {"type": "id", "role": "enterprise"},
            "sector": {"type": "category", "categories": SECTORS},
            "region": {"type": "category", "categories": REGIONS[:3]},
            "turnover": {"type": "number", "low": 0, "high": 1_000_000},
            "staff": {"type": "integer", "low": 0, "high": 5_000},
        }
    }
)


def persons(records: int = 220, seed: int = 1) -> dict[str, pd.DataFrame]:
    """Three holders' persons, the target first at holder `a`; in region `far` one person of `a` has 12 records."""
    rng = np.random.default_rng(seed)
    return {name: _persons(rng, name, records) for name in ("a", "b", "c")}


def _persons(rng: np.random.Generator, holder: str, n: int) -> pd.DataFrame:
    age = rng.integers(18, 80, n)
    entry = rng.integers(1, 25, n)
    entry = np.where((age == 47) & (entry == 17), 16, entry)
    sex = rng.choice(SEXES, n)
    education = rng.choice(EDUCATION, n, p=[0.2, 0.35, 0.3, 0.15])
    income = np.clip(rng.lognormal(9.9, 0.5, n) + 150 * (age - 18), 0, 90_000).round(2)
    frame = pd.DataFrame(
        {
            "person": [f"{holder}{i}" for i in range(n)],
            "region": rng.choice(REGIONS[:3], n, p=[0.4, 0.35, 0.25]),
            "sex": sex,
            "age": age,
            "education": education,
            "occupation": rng.choice(OCCUPATIONS, n),
            "entry": entry,
            "event": rng.random(n) < 0.6,
            "income": income,
            "benefit": rng.uniform(0, 6_000, n).round(2),
            "grant": 0.001,
            "posts": 1.0,
            "list": "long",
            "club": np.where(np.arange(n) % 6 == 1, "y", "n"),
            "union": np.where(np.arange(n) % 6 == 2, "y", "n"),
            "hours": np.clip(rng.normal(36, 8, n), 0, 80).round(1),
            "illness": rng.random(n) < 0.15,
            "weight": rng.uniform(0.5, 6, n).round(3),
            "key": rng.random(n),
            "share": 0.5,
        }
    )
    if holder == PERSON.holder:
        values = (
            PERSON.known
            | PERSON.secret
            | {"illness": True, "hours": 41.5, "event": True, "posts": 2.0, "list": "short"}
            | {"club": "y", "union": "y"}
        )
        for name, value in values.items():
            frame.loc[0, name] = value
        many = frame.index >= n - 12
        frame["person"] = frame["person"].where(~many, "a-many")
        frame["region"] = frame["region"].where(~many, "far")
        frame["income"] = frame["income"].where(~many, 61_234.0)
    return frame


def enterprises(records: int = 90, seed: int = 2) -> dict[str, pd.DataFrame]:
    """Three holders' enterprises with several establishments each. One in mining, at `a`, has nearly all of it there,
    in thirty establishments none of which is large."""
    rng = np.random.default_rng(seed)
    found: dict[str, pd.DataFrame] = {}
    for holder in ("a", "b", "c"):
        turnover = rng.lognormal(8.0, 0.7, records).round(0)
        found[holder] = pd.DataFrame(
            {
                "enterprise": [f"{holder}-{i // 3}" for i in range(records)],
                "sector": np.repeat(rng.choice(SECTORS, records // 3), 3)[:records],
                "region": rng.choice(REGIONS[:3], records),
                "turnover": turnover,
                "staff": rng.integers(1, 60, records),
            }
        )
        small = found[holder]["sector"] == "mining"
        found[holder].loc[small, "turnover"] = (turnover[small] / 50).round(0)
    share = rng.dirichlet(np.full(30, 20.0))
    site = np.round(share * ENTERPRISE.secret["turnover"], 0)
    site[0] += ENTERPRISE.secret["turnover"] - site.sum()
    sites = pd.DataFrame({"enterprise": "giant", "sector": "mining", "region": "north", "turnover": site, "staff": 40})
    trade = pd.DataFrame(
        {
            "enterprise": ["large", "middle", "small"],
            "sector": "trade",
            "region": ["south", "north", "east"],
            "turnover": [ENTERPRISE_LARGE, 150_000.0, 120_000.0],
            "staff": 40,
        }
    )
    found["a"] = pd.concat([found["a"], sites, trade], ignore_index=True)
    return found


def changed(codebook: Codebook, **columns: dict[str, Any] | None) -> Codebook:
    """The codebook as an attacker would like it: with other fields of some columns; None: without the column."""
    made = codebook.model_dump(mode="json", exclude_unset=True)
    for name, fields in columns.items():
        if fields is None:
            made["columns"].pop(name)
        else:
            made["columns"][name] = made["columns"].get(name, {}) | fields
    return make_codebook(made)
