"""Survey weights in an evaluation: figures by weight on both sides, and never mixed with others without a word."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from statfed.core.synthetic.evaluation import Asked, evaluate
from statfed.core.synthetic.weights import survey_notes, weighted_figures
from statfed.federation.evaluation import coefficients_of
from statfed.federation.synthetic import own_table
from tests.federate import codebook_of

BOOK = codebook_of(
    {
        "sex": {"type": "category", "categories": ["m", "f"], "required": True},
        "age": {"type": "integer", "low": 0, "high": 9, "required": True},
        "pay": {"type": "number", "low": -100, "high": 100, "required": True},
        "w": {"type": "number", "low": 0.5, "high": 50, "required": True, "role": "weight"},
        "area": {"type": "category", "categories": ["1", "2"], "required": True, "role": "stratum"},
        "psu": {"type": "id", "required": True, "role": "psu"},
    }
)


def sample(count: int, seed: int, heavy: float) -> pd.DataFrame:
    """Women weigh `heavy` times as much as men, and their pay rises more with age."""
    rng = np.random.default_rng(seed)
    women, age = rng.random(count) < 0.5, rng.integers(0, 10, count)
    pay = np.where(women, 4.0, 1.0) * age + rng.normal(0, 3, count)
    weight = np.where(women, heavy, 1.0) * rng.uniform(0.9, 1.1, count)
    area = rng.choice(["1", "2"], count)
    return pd.DataFrame(
        {"sex": np.where(women, "f", "m"), "age": age, "pay": pay, "w": weight, "area": area}
        | {"psu": [f"p{i % 40}" for i in range(count)]}
    )


REAL, LIGHT, FRESH = (sample(1500, seed, 8.0) for seed in (1, 2, 3))
LIGHT["w"] = np.random.default_rng(4).permutation(LIGHT["w"])  # the same weights, of anybody


def test_margins_by_weight_are_those_of_weighted_cross_tables() -> None:
    columns = ["sex", "age", "area"]  # of so few values that each is a cell
    book = codebook_of(
        BOOK.model_copy(update={"columns": {n: BOOK.columns[n] for n in (*columns, "w")}}).model_dump()["columns"]
    )
    real, light = own_table(REAL, book), own_table(LIGHT, book)
    found = {one.about: one.value for one in weighted_figures(real, light, None, bins=100)}
    slow = []
    for pair in combinations(columns, 2):
        one, other = (frame.groupby(list(pair))["w"].sum() / frame["w"].sum() for frame in (REAL, LIGHT))
        slow.append(one.sub(other, fill_value=0).abs().sum() / 2)
    assert found["2 columns at a time, weighted"] == pytest.approx(np.mean(slow), abs=1e-12)


def test_what_is_off_by_weight_alone_is_seen_and_each_figure_says_what_it_is() -> None:
    real, light, fresh = (own_table(frame, BOOK) for frame in (REAL, LIGHT, FRESH))
    asked = Asked("testing-analysis", measures=("margins", "hellinger", "associations"))
    found = evaluate(real, light, fresh, asked, np.random.default_rng(1))
    figures = {one.about: one for one in found.measured if one.name == "margins"}
    assert figures["2 columns at a time, weighted"].excess > 0.2  # type: ignore[operator]
    assert figures["2 columns at a time, unweighted"].excess < 0.1  # type: ignore[operator]
    assert all("weighted" in one.about for one in found.measured if one.kind == "utility")
    assert set(survey_notes(BOOK)) <= set(found.notes)
    assert any("Left out: psu" in note for note in found.notes)


def test_coefficients_are_by_weight_on_both_sides(tmp_path: Path) -> None:
    files = {}
    for name, frame in (("original", REAL), ("synthetic", LIGHT.drop(columns="psu"))):
        files[name] = str(tmp_path / f"{name}.parquet")
        frame.to_parquet(files[name], index=False)
    line = "ols pay ~ age"
    (apart,) = coefficients_of({"original": files["original"]}, {"s": files["synthetic"]}, BOOK, (line,))
    (same,) = coefficients_of({"original": files["original"]}, {"s": files["original"]}, BOOK, (line,))
    assert apart.about == f"{line}, weighted"
    slopes = [
        sm.WLS(frame["pay"], sm.add_constant(frame[["age"]]), weights).fit().params["age"]
        for frame, weights in ((REAL, REAL["w"]), (LIGHT, LIGHT["w"]), (REAL, np.ones(len(REAL))))
    ]
    assert abs(slopes[0] - slopes[1]) > 0.8 > abs(slopes[1] - slopes[2]) * 4  # apart by weight, alike as records
    assert same.value == pytest.approx(1.0)
    assert apart.value < 0
