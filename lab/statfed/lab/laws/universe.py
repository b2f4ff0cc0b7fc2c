"""One population that every built-in method can be asked about, and examples of each one's options.

A method from outside brings its own: `example()`.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core.synthetic.coded import Coded, described
from statfed.core.synthetic.packing import packed
from statfed.core.terms import Privacy
from statfed.lab.laws.check import Broken
from statfed.lab.laws.frames import codebook_of

if TYPE_CHECKING:
    import pandas as pd

REGIONS, SEXES, STRATA = ["north", "south", "west"], ["f", "m"], ["a", "b", "c"]

CODEBOOK = codebook_of(
    {
        "income": ("number", 0, 200_000),
        "hours": ("number", 0, 80),
        "age": {"type": "integer", "low": 0, "high": 110, "scale": 30},
        "employed": "boolean",
        "region": REGIONS,
        "sex": SEXES,
        "w": {"type": "number", "low": 0.1, "high": 50, "role": "weight"},
        "stratum": {"type": "category", "categories": STRATA, "role": "stratum"},
        "psu": {"type": "id", "role": "psu"},
        "person": {"type": "id", "role": "unit"},
        "firm": {"type": "id", "role": "enterprise"},
        "key": {"type": "number", "low": 0, "high": 1, "role": "record-key"},
        "duration": ("integer", 1, 24),
        "event": "boolean",
    },
    design={"psu_spans_holders": False},
)


def _made_up(count: int) -> Coded:
    """A table of records made up from the codebook."""
    rng = np.random.default_rng(5)
    columns: dict[str, Any] = {}
    for key in described(CODEBOOK):
        column = CODEBOOK.columns[key]
        low, high = column.bounds or (0.0, 1.0)
        columns[key] = (
            rng.integers(len(column.levels), size=count)
            if column.levels
            else np.round(rng.uniform(low, high, count), 0 if column.type == "integer" else 2).clip(low, high)
        )
    return Coded(CODEBOOK, columns)


def _compared(more: dict[str, Any]) -> list[dict[str, Any]]:
    """Options of what is asked about a synthetic table: without a control, and with one."""
    made = _made_up(25)
    rest = Coded(CODEBOOK, {key: values for key, values in made.columns.items() if key != "stratum"})
    return [
        {**more, "records": 25, "table": packed(made)},
        {**more, "records": 25, "table": packed(rest), "apart": "stratum = a"},
    ]


def _attacked() -> list[dict[str, Any]]:
    """Options of synthetic-risk."""
    first, second = _compared({"keys": ["region", "sex", "age"]})
    return [{**first, "secrets": ["employed", "hours"]}, {**second, "secrets": ["event"]}]


EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "describe": [{"columns": ["income", "age", "employed"]}],
    "count": [{}, {"by": ["region", "sex"]}, {"by": ["region"], "design": True}],
    "total": [{"columns": ["income", "hours"]}, {"columns": ["income"], "by": ["region"], "weight": "w"}],
    "mean": [{"columns": ["hours", "age"], "by": ["sex"]}, {"columns": ["income"], "design": True}],
    "ratio": [{"numerator": "income", "denominator": "hours", "by": ["region"]}],
    "table": [{"rows": ["region"], "columns": ["sex"]}, {"rows": ["region"], "columns": ["sex"], "value": "income"}],
    "calibrate": [
        {"margins": {"sex": {"f": 500.0, "m": 480.0}}, "columns": ["income"], "weight": "w"},
    ],
    "variance": [
        {"columns": ["income", "age"], "by": ["region"]},
        {"columns": ["hours"], "by": ["sex"], "design": True},
    ],
    "covariance": [{"columns": ["income", "hours", "age"]}, {"columns": ["income", "hours"], "design": True}],
    "histogram": [{"column": "hours", "bins": 10}],
    "marginals": [{"columns": ["hours", "age", "region"], "classes": 6}, {"margins": [["sex"], ["sex", "region"]]}],
    "cart": [{"columns": ["region", "age", "hours", "employed"], "classes": 8, "smallest": 20, "depth": 4}],
    "quantile": [{"columns": ["income", "age"]}, {"columns": ["age"], "probabilities": [0.5], "design": True}],
    "ttest": [{"columns": ["income"], "by": "sex"}, {"columns": ["hours"], "by": "sex", "design": True}],
    "mst": [{"columns": ["region", "sex", "age"], "classes": 4}],
    "aim": [{"columns": ["region", "hours", "employed"], "classes": 4, "more": 1}],
    "made": [{"columns": ["region", "hours", "employed"], "classes": 4, "hidden": 4, "steps": 3}],
    "chisq": [{"columns": ["region", "sex"]}],
    "pca": [{"columns": ["income", "hours", "age"]}],
    "ols": [{"formula": "income ~ hours + C(region)"}],
    "glm": [
        {"formula": "employed ~ age + C(region)", "family": "binomial"},
        {"formula": "employed ~ age + hours", "family": "binomial", "design": True},
    ],
    "glmm": [
        {"formula": "employed ~ age", "group": "region"},
        {"formula": "hours ~ age", "family": "poisson", "group": "sex"},
    ],
    "survival": [
        {"time": "duration", "event": "event", "group": ["sex"]},
        {"time": "duration", "event": "event", "group": ["sex"], "design": True},
    ],
    "cox": [
        {"time": "duration", "event": "event", "covariates": "age + C(sex)"},
        {"time": "duration", "event": "event", "covariates": "age", "design": True},
    ],
    "synthetic-risk": _attacked(),
    "synthetic-within": _compared({"keys": ["region", "sex", "age"], "predicates": 30}),
    "propensity": _compared({"interactions": False, "bins": 10}),
}

"""Of analyses."""
_MODEL = {"model": {"name": "dense", "hidden": 1}, "rounds": 2, "features": ["age", "region", "sex"]}
TRAINING: dict[str, list[dict[str, Any]]] = {
    "local-sgd": [
        {"target": "employed", "batch_size": 32, "holdout": 0.3, **_MODEL},
        {"target": "income", "batch_size": 32, "holdout": 0.3, **_MODEL},
    ],
    "dp-fedsgd": [
        {"target": "employed", "sampling_rate": 0.5, **_MODEL},
        {"target": "income", "holdout": 0.3, **_MODEL},
    ],
}
"""Of training methods: classes, and a number."""
NOISE = Privacy(epsilon=5.0)
"""Of a private form."""


def examples_of(name: str) -> list[dict[str, Any]]:
    """Options of a built-in method. Raises Broken where there are none."""
    found = EXAMPLES.get(name) or TRAINING.get(name)
    if found is None:
        raise Broken(f"examples: got none of {name}; want one in statfed.lab.laws.universe")
    return found


def people(n: int, seed: int = 0) -> "pd.DataFrame":
    """`n` records of the universe: skewed, correlated, with missing values."""
    import pandas as pd

    rng = np.random.default_rng(seed)
    age = rng.integers(16, 90, n)
    region = rng.choice(REGIONS, n, p=[0.5, 0.3, 0.2])
    sex = rng.choice(SEXES, n)
    hours = np.clip(rng.normal(36, 9, n) - 4 * (sex == "f"), 0, 80)
    income = np.clip(rng.lognormal(10, 0.6, n) + 300 * age, 0, 200_000).round(2)
    stratum = rng.choice(STRATA, n)
    frame = pd.DataFrame(
        {
            "income": income,
            "hours": hours,
            "age": age,
            "employed": rng.random(n) < 1 / (1 + np.exp((age - 55) / 12)),
            "region": region,
            "sex": sex,
            "w": rng.uniform(0.5, 20, n).round(3),
            "stratum": stratum,
            "psu": np.char.add(np.char.add(stratum, "-"), rng.integers(0, 8, n).astype(str)),
            "person": [f"p{i}" for i in range(n)],
            "firm": np.char.add("f", rng.integers(0, max(2, n // 6), n).astype(str)),
            "key": rng.random(n),
            "duration": rng.integers(1, 25, n),
            "event": rng.random(n) < 0.6,
        }
    )
    frame["hours"] = frame["hours"].where(rng.random(n) < 0.95)
    return frame
