"""A business register: enterprises with activity, size, turnover and exports, a few of which everybody knows."""

from typing import Any

import numpy as np

from statfed.core.synthesis import Columns

TITLE = "Business register: activity, legal form, employees, turnover, exports"
VERSION = 1
STORY = """\
The statistical office keeps a register of enterprises. Researchers of productivity and of trade want records. A large
enterprise is known by its size alone: that it is in the register is no secret, its figures are.

Only exporters have a share of exports; sole proprietors have few employees. Turnover is skewed as turnover is: most
enterprises are small, and a few make most of the total."""
RARE = "dominant enterprises: thousands of employees in small regions and unusual activities"
_SECTIONS = ["A", "C", "D", "F", "G", "H", "I", "J", "M", "S"]
CODEBOOK: dict[str, Any] = {
    "title": "Business register (generated: no real enterprises)",
    "columns": {
        "activity": {"type": "category", "categories": _SECTIONS, "label": "NACE section", "required": True},
        "region": {"type": "category", "categories": list("ABCDEFGH"), "required": True},
        "form": {
            "type": "category",
            "categories": {"sole": "sole proprietor", "partners": "partnership", "limited": "company", "public": ""},
            "required": True,
        },
        "founded": {"type": "integer", "low": 1900, "high": 2025, "required": True},
        "employees": {"type": "integer", "low": 0, "high": 20000, "required": True},
        "turnover": {"type": "number", "low": 0, "high": 5000000, "unit": "thousand euro", "required": True},
        "exporter": {"type": "boolean", "required": True},
        "exports": {"type": "number", "low": 0, "high": 100, "unit": "% of turnover", "label": "of exporters"},
        "group": {"type": "boolean", "label": "part of an enterprise group", "required": True},
    },
    "rules": [
        "exporter = true or exports is null",
        "exporter = false or exports is not null",
        "form != sole or employees <= 50",
        "form != sole or group = false",
    ],
}
KEYS = ("activity", "region", "form", "founded")
SECRETS = ("employees", "turnover", "exporter")
TARGET = "exporter"
MODELS = ("ols turnover ~ employees + C(activity)",)


def records(count: int, rng: np.random.Generator) -> Columns:
    """Enterprises whose form, size, turnover and exports go together."""
    activity = rng.choice(10, size=count, p=np.array([6, 12, 2, 14, 24, 8, 10, 8, 12, 4]) / 100)
    region = rng.choice(8, size=count, p=np.arange(9, 1, -1) / 44)
    z = rng.normal(size=count) + 0.7 * (activity == 1) + 0.5 * (activity == 2)
    form = np.searchsorted([-0.2, 0.2, 2.2], z + 0.6 * rng.normal(size=count))
    employees = np.clip(np.round(np.exp(0.9 + 1.1 * z + 0.5 * rng.normal(size=count))) - 1, 0, 20000)
    employees = np.where(form == 0, np.minimum(employees, 50), employees)
    founded = np.clip(np.round(2025 - rng.gamma(1.6, 11 + 3 * form, count)), 1900, 2025)
    each = np.array([60, 130, 300, 100, 170, 95, 55, 110, 90, 45])[activity]
    turnover = np.clip(np.round((employees + 0.7) * each * np.exp(0.5 * rng.normal(size=count)), 0), 0, 5e6)
    pull = -2.6 + 0.9 * np.log1p(employees) / 2 + 1.4 * np.isin(activity, (1, 7)) + 0.5 * (region < 2)
    exporter = rng.random(count) < 1 / (1 + np.exp(-pull))
    share = np.round(100 * rng.beta(1.2 + 0.8 * (activity == 1), 3, count), 1)
    group = (form > 0) & (rng.random(count) < 1 / (1 + np.exp(3.4 - 0.8 * np.log1p(employees))))
    return {
        "activity": activity,
        "region": region,
        "form": form,
        "founded": founded,
        "employees": employees,
        "turnover": turnover,
        "exporter": exporter.astype(np.int64),
        "exports": np.where(exporter, share, np.nan),
        "group": group.astype(np.int64),
    }


def rare(count: int, rng: np.random.Generator) -> Columns:
    """Enterprises that dominate where they are."""
    employees = np.round(np.exp(rng.uniform(np.log(1500), np.log(20000), count)))
    return {
        "activity": rng.integers(0, 10, count),
        "region": rng.integers(0, 8, count),
        "form": rng.integers(1, 4, count),
        "founded": rng.integers(1900, 2026, count).astype(np.float64),
        "employees": employees,
        "turnover": np.clip(np.round(employees * rng.uniform(40, 1500, count)), 0, 5e6),
        "exporter": np.ones(count, np.int64),
        "exports": np.round(rng.uniform(60, 100, count), 1),
        "group": rng.integers(0, 2, count),
    }
