"""Records with known relations, for tests of measures and methods of synthetic data."""

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.synthetic.coded import Coded
from statfed.federation.synthetic import own_table

CODEBOOK: Codebook = make_codebook(
    {
        "columns": {
            "age": {"type": "integer", "low": 16, "high": 95, "required": True},
            "edu": {"type": "category", "categories": list("01234"), "required": True},
            "income": {"type": "number", "low": 0, "high": 300_000},
            "region": {"type": "category", "categories": list("ABCDEFGH"), "required": True},
            "employed": {"type": "boolean", "required": True},
        }
    }
)


def people(count: int, seed: int) -> pd.DataFrame:
    """Persons whose education, income and employment go together; one in twenty has no income told."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=count)
    age = np.clip(np.round(45 + 18 * rng.normal(size=count)), 16, 95).astype(int)
    edu = np.clip(np.round(2 + z + 0.5 * rng.normal(size=count)), 0, 4).astype(int)
    income = np.exp(9 + 0.4 * z + 0.01 * age + 0.5 * rng.normal(size=count)).clip(0, 3e5).round(2)
    income[rng.random(count) < 0.05] = np.nan
    region = rng.choice(list("ABCDEFGH"), p=np.arange(8, 0, -1) / 36, size=count)
    employed = rng.random(count) < 1 / (1 + np.exp(1 - z - 1.5 * (age < 65)))
    made = {"age": age, "edu": edu.astype(str), "income": income, "region": region, "employed": employed}
    return pd.DataFrame(made)


def shuffled(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every column in an order of its own: all margins, no relation."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: frame[name].to_numpy()[rng.permutation(len(frame))] for name in frame})


def read(frame: pd.DataFrame) -> Coded:
    """As measures see it."""
    return own_table(frame, CODEBOOK)
