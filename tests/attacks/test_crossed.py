"""Products of two columns of a model are sums over the few who are in the cells of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.disclosure import OFF
from tests.attacks.world import No, World

BOOK = make_codebook(
    {
        "columns": {
            "person": {"type": "id", "role": "unit"},
            "club": {"type": "category", "categories": ["n", "y"]},
            "union": {"type": "category", "categories": ["n", "y"]},
            "age": {"type": "number", "low": 0, "high": 100},
            "hours": {"type": "number", "low": 0, "high": 80},
            "income": {"type": "number", "low": 0, "high": 100_000},
        }
    }
)
MARKS: dict[str, Any] = {"allow": {"functions": ["level", "missing", "known"]}}


def people(few: int, n: int = 400) -> pd.DataFrame:
    """60 in the club, whose age is missing, and 70 in the union, whose hours are; `few` of them in both."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"person": [f"p{i}" for i in range(n)], "club": "n", "union": "n"})
    frame["income"], frame["age"], frame["hours"] = (rng.uniform(20, 60, n).round(2) for _ in range(3))
    frame.loc[:59, "club"], frame.loc[:59, "age"] = "y", np.nan
    last = slice(60 - few, 129 - few)
    frame.loc[last, "union"], frame.loc[last, "hours"] = "y", np.nan
    return frame


@pytest.mark.parametrize(
    "formula",
    [
        "income ~ club + union",
        "hours ~ club:income + union",
        "income ~ missing(age) + missing(hours)",
        "income ~ club + missing(hours)",
        "income ~ level(club, 'y') + level(union, 'y')",
    ],
)
def test_a_model_does_not_tell_of_the_one_in_two_groups(formula: str, tmp_path: Path) -> None:
    """Nor of two, nor how many they are of fewer than the minimum; of thirty it is answered."""
    whole = formula.replace("hours ~", "income ~").replace("club:income", "club")
    for few, asked in ((1, formula), (2, formula), (4, formula), (30, whole)):
        frame = people(few)
        if formula.startswith("hours"):
            frame["hours"] = 40.0 + np.arange(len(frame)) % 7
        world = World(tmp_path / f"{few}", {"a": frame}, BOOK, changes=MARKS, rules=OFF)
        if few < 30:
            with pytest.raises(No):
                world.release("ols", {"formula": asked})
        else:
            assert world.release("ols", {"formula": asked}).tables["coefficients"]
        world.close()


@pytest.mark.parametrize("formula", ["missing(age) ~ 1", "level(club, 'y') ~ 1", "known(age) ~ missing(hours)"])
def test_a_model_of_marks_alone_is_answered(formula: str, tmp_path: Path) -> None:
    """It is about all records: no column has to be complete."""
    world = World(tmp_path, {"a": people(20)}, BOOK, changes=MARKS, rules=OFF)
    assert world.release("ols", {"formula": formula}).tables["coefficients"]
    world.close()
