"""Tables of the user's own with a column of every type, and studies of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.study import Study, make_study
from statfed.federation.answers import Answer
from statfed.federation.run import Options, run_study

JOBS = {"driver": "drives a lorry", "nurse": "nurse on a ward", "clerk": "clerk at the town hall"}
CODEBOOK: Codebook = make_codebook(
    {
        "columns": {
            "id": {"type": "id", "role": "unit"},
            "age": {"type": "integer", "low": 0, "high": 100},
            "income": {"type": "number", "low": 0, "high": 200},
            "region": {"type": "category", "categories": ["north", "south", "west"]},
            "since": {"type": "date", "low": "2000-01-01", "high": "2012-01-01"},
            "old": {"type": "boolean"},
            "wave": {"type": "array", "length": 16, "low": -3, "high": 3},
            "longer": {"type": "array", "length": 20, "low": -10, "high": 10},
            "job": {"type": "text", "length": 40},
            "remark": {"type": "text", "length": 12},
            "free": {"type": "number"},
            "employed": {"type": "boolean"},
            "kind": {"type": "category", "categories": [*JOBS, "judge"]},
            "one": {"type": "category", "categories": ["all"]},
        }
    }
)


def people(count: int, seed: int, each: int = 1) -> pd.DataFrame:
    """Records of which every column tells something of `employed`, `kind` or `income`. each: records of a person."""
    rng = np.random.default_rng(seed)
    age, region = rng.integers(16, 80, count), rng.choice(["north", "south", "west"], count)
    employed = rng.random(count) < 1 / (1 + np.exp(-((age - 45) / 8 + 2.0 * (region == "south"))))
    income = (0.9 * age + 30 * (region == "west") + rng.normal(0, 8, count) + 20).clip(0, 200)
    kind = rng.choice(list(JOBS), count)
    wave = np.sin(np.arange(16) * np.where(employed, 0.5, 2.0)[:, None]) + rng.normal(0, 0.3, (count, 16))
    days = pd.to_timedelta(rng.integers(0, 3000, count), "D")
    return pd.DataFrame(
        {
            "id": [f"{seed}-{i // each}" for i in range(count)],
            "age": age,
            "income": income,
            "region": region,
            "since": (pd.Timestamp("2001-01-01") + days).date,
            "old": age > 50,
            "wave": list(wave.astype(np.float32)),
            "longer": list(np.zeros((count, 20), np.float32)),
            "job": [JOBS[name] for name in kind],
            "remark": "none",
            "free": income,
            "employed": employed,
            "kind": kind,
            "one": "all",
        }
    )


def written(folder: Path, frames: Mapping[str, pd.DataFrame]) -> dict[str, str]:
    """Holder to file."""
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet")
    return {name: str(folder / f"{name}.parquet") for name in frames}


def study_of(holders: Mapping[str, str], target: str, features: Any, method: str = "local-sgd", **more: Any) -> Study:
    """A study; keyword arguments beyond those of a study file are options of the method."""
    own = {key: more.pop(key) for key in tuple(more) if key not in Study.model_fields}
    named = [features] if isinstance(features, str) else list(features)
    table = {"method": method, "holders": dict(holders), "seed": 1, "disclosure": "none"}
    return make_study(table | more | {"options": {"target": target, "features": named} | own})


def trained(study: Study, **options: Any) -> Answer:
    """A run of it, without references unless told."""
    given: dict[str, Any] = {"codebook": CODEBOOK, "references": False} | options
    return run_study(study, Options(**given))
