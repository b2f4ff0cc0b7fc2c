"""A household budget survey: households, income, and what they spend on what."""

from typing import Any

import numpy as np

from statfed.core.synthesis import Columns

TITLE = "Household budget survey: size, tenure, income, spending by purpose"
VERSION = 1
STORY = """\
Households write down for two weeks what they spend. The office computes the basket of the price index from it, and
universities want records for demand systems. What a household earns and spends is nobody else's business.

Only tenants pay rent; many buy no alcohol in two weeks: zeros and gaps are part of the data. Persons who live alone
have no children in the household."""
RARE = "large families with very high incomes and unusual baskets"
_SPENT = {"type": "number", "low": 0, "high": 20000, "unit": "euro a month", "required": True}
CODEBOOK: dict[str, Any] = {
    "title": "Household budget survey (generated: no real households)",
    "columns": {
        "size": {"type": "integer", "low": 1, "high": 10, "unit": "persons", "required": True},
        "children": {"type": "integer", "low": 0, "high": 8, "required": True},
        "age": {"type": "integer", "low": 18, "high": 99, "label": "of the reference person", "required": True},
        "region": {"type": "category", "categories": list("ABCDEF"), "required": True},
        "tenure": {"type": "category", "categories": {"owner": "", "tenant": "", "free": ""}, "required": True},
        "income": {"type": "number", "low": 0, "high": 40000, "unit": "euro a month", "label": "null: not told"},
        "rent": {"type": "number", "low": 50, "high": 8000, "unit": "euro a month", "label": "of tenants"},
        "food": _SPENT,
        "alcohol": _SPENT,
        "transport": _SPENT,
        "leisure": _SPENT,
    },
    "rules": [
        "size > 1 or children = 0",
        "tenure = tenant or rent is null",
        "tenure != tenant or rent is not null",
    ],
}
KEYS = ("size", "children", "age", "region", "tenure")
SECRETS = ("income", "alcohol")
TARGET = "income"
MODELS = ("ols food ~ income + size",)


def records(count: int, rng: np.random.Generator) -> Columns:
    """Households whose income, tenure and spending go together."""
    age = np.clip(np.round(rng.normal(52, 17, count)), 18, 99)
    size = np.clip(1 + rng.poisson(np.where(age < 55, 1.6, 0.7)), 1, 10)
    children = np.where(size > 1, rng.binomial(np.maximum(size - 1, 0), np.where(age < 55, 0.55, 0.08)), 0)
    region = rng.choice(6, size=count, p=np.array([28, 22, 17, 14, 11, 8]) / 100)
    z = rng.normal(size=count)
    adults = size - children
    curve = 1.1 - 0.0007 * (age - 50) ** 2
    income = np.exp(7.3 + 0.35 * curve + 0.45 * np.log(adults) + 0.45 * z + 0.12 * (region < 2))
    income = np.clip(np.round(income, -1), 0, 40000)
    owns = rng.random(count) < 1 / (1 + np.exp(1.2 - 0.03 * (age - 45) - 0.8 * z))
    tenure = np.where(owns, 0, np.where(rng.random(count) < 0.9, 1, 2))
    rent = np.clip(np.round(180 + 0.16 * income + 70 * size + 60 * rng.normal(size=count), -1), 50, 8000)
    food = np.round(90 + 110 * size**0.8 + 0.05 * income * np.exp(0.25 * rng.normal(size=count)), 0)
    alcohol = np.where(rng.random(count) < 0.38, 0, np.round(rng.gamma(1.5, 12 + 0.006 * income, count), 0))
    transport = np.where(rng.random(count) < 0.08, 0, np.round(0.09 * income * rng.gamma(2, 0.5, count), 0))
    leisure = np.round(0.07 * income * rng.gamma(2, 0.5, count) * (1 + 0.2 * (children == 0)), 0)
    return {
        "size": size.astype(np.float64),
        "children": np.minimum(children, 8).astype(np.float64),
        "age": age,
        "region": region,
        "tenure": tenure,
        "income": np.where(rng.random(count) < 0.07, np.nan, income),
        "rent": np.where(tenure == 1, rent, np.nan),
        "food": np.clip(food, 0, 20000),
        "alcohol": np.clip(alcohol, 0, 20000),
        "transport": np.clip(transport, 0, 20000),
        "leisure": np.clip(leisure, 0, 20000),
    }


def rare(count: int, rng: np.random.Generator) -> Columns:
    """Households that a street knows."""
    size = rng.integers(7, 11, count)
    tenant = rng.random(count) < 0.5
    spent = {
        name: np.round(rng.uniform(1500, high, count))
        for name, high in (("food", 8000), ("alcohol", 5000), ("transport", 12000), ("leisure", 15000))
    }
    return {
        "size": size.astype(np.float64),
        "children": rng.integers(4, 9, count).astype(np.float64),
        "age": rng.integers(18, 100, count).astype(np.float64),
        "region": rng.integers(0, 6, count),
        "tenure": np.where(tenant, 1, rng.choice([0, 2], count)),
        "income": np.round(rng.uniform(12000, 40000, count), -1),
        "rent": np.where(tenant, np.round(rng.uniform(2500, 8000, count), -1), np.nan),
        **spent,
    }
