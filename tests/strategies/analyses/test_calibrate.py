"""`calibrate` against R's survey package and against plain NumPy raking of the pooled records."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from tests.federate import codebook_of, federate, split
from tests.strategies.analyses.test_survey import REFERENCE, ROLES, SAMPLE, codebook, nested

MARGINS = {"sex": {"f": 4000.0, "m": 4500.0}, "group": {"young": 3000.0, "middle": 3500.0, "old": 2000.0}}


def book(*roles: str, spans: bool = False) -> Codebook:
    plain = codebook(*roles, spans=spans).model_dump()
    plain["columns"]["group"] = {"type": "category", "categories": ["young", "middle", "old"]}
    return make_codebook(plain)


@pytest.mark.parametrize(
    ("case", "method", "roles", "spans"),
    [
        ("raking", "raking", ROLES, False),
        ("raking", "raking", ROLES, True),
        ("linear", "greg", ROLES, False),
        ("linear", "linear", ROLES, True),
        ("srs_raking", "raking", (), False),
    ],
)
def test_factors_totals_means_and_their_errors_equal_r(case: str, method: str, roles: Any, spans: bool) -> None:
    frames = split(SAMPLE, 3, 4) if spans else [*nested(SAMPLE, 3), SAMPLE.iloc[:0]]
    asked: dict[str, Any] = {
        "margins": MARGINS,
        "method": method,
        "columns": ["income", "hours"],
        "design": bool(roles),
    }
    result = federate("calibrate", frames, book(*roles, spans=spans), **asked)
    wanted = REFERENCE["calibrate"][case]
    factors = result.to_pandas("factors").set_index(["sex", "group"])["factor"]
    order = [(sex, group) for sex in ("f", "m") for group in ("young", "middle", "old")]
    np.testing.assert_allclose([factors[key] for key in order], wanted["g"], rtol=1e-9)
    rows: dict[Any, Any] = {(row["column"], row["statistic"]): row for row in result.tables["estimates"]}
    for column, statistic, name in (
        ("income", "total", "total"),
        ("income", "mean", "mean"),
        ("hours", "total", "hours_total"),
        ("hours", "mean", "hours_mean"),
    ):
        row = rows[column, statistic]
        assert row["estimate"] == pytest.approx(wanted[name]["estimate"], rel=1e-9)
        assert row["std_error"] == pytest.approx(wanted[name]["std_error"], rel=1e-9)
    assert result.facts["discrepancy"] < 1e-11  # type: ignore[operator]
    margins = result.to_pandas("margins")
    np.testing.assert_allclose(margins["calibrated"], margins["target"], rtol=1e-10)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 4))
def test_raking_equals_a_loop_over_the_pooled_records(seed: int, holders: int) -> None:
    rng = np.random.default_rng(seed)
    levels = {"a": ["1", "2"], "b": ["x", "y", "z"], "c": ["false", "true"]}
    frame = pd.DataFrame(
        {"a": rng.choice(levels["a"], 90), "b": rng.choice(levels["b"], 90), "c": rng.random(90) < 0.5}
    )
    frame["w"], frame["y"] = rng.uniform(1, 9, 90), rng.normal(5, 1, 90)
    frame.loc[rng.random(90) < 0.1, "a"] = None
    margins = {
        name: dict(zip(codes, rng.dirichlet(np.full(len(codes), 20)) * 1000, strict=True))
        for name, codes in levels.items()
    }
    made = codebook_of({"a": levels["a"], "b": levels["b"], "c": "boolean", "w": "number", "y": "number"})
    result = federate(
        "calibrate", split(frame, holders, seed), made, margins=json.dumps(margins), columns=["y"], weight="w"
    )
    kept = frame.dropna().assign(c=lambda f: f["c"].astype(str).str.lower())
    weight = kept["w"].to_numpy().copy()
    for _ in range(300):
        for name, wanted in margins.items():
            have = pd.Series(weight, kept.index).groupby(kept[name]).sum()
            weight *= kept[name].map({code: wanted[code] / have[code] for code in have.index}).to_numpy()
    row = result.tables["estimates"][0]
    assert row["estimate"] == pytest.approx(float((weight * kept["y"]).sum()), rel=1e-9)
    assert result.facts["missing"] == 90 - len(kept)


def test_without_columns_factors_alone_come_out() -> None:
    result = federate("calibrate", split(SAMPLE, 3), book(), margins=MARGINS, weight="w")
    assert result.main == "factors"
    assert sum(row["total"] for row in result.tables["factors"]) == pytest.approx(8500)  # type: ignore[misc]


def test_a_column_without_values_has_no_mean_and_no_nan() -> None:
    result = federate("calibrate", split(SAMPLE.assign(income=np.nan), 2), book(), margins=MARGINS, columns=["income"])
    json.dumps(result.to_dict(), allow_nan=False)
    assert [row["estimate"] for row in result.tables["estimates"]] == [0.0, None]


@pytest.mark.parametrize(
    ("margins", "message"),
    [
        ({"sex": {"f": 1}}, "want a total for each of f, m"),
        ({"sex": {"f": 1, "m": 2, "x": 3}}, "want a total for each of f, m"),
        ({"sex": {"f": -1, "m": 2}}, "negative totals for f"),
        ({"sex": {"f": 5, "m": 2}, "group": {"young": 1, "middle": 1, "old": 1}}, "sex 7, group 3"),
        ({"income": {"1": 2}}, "want category or boolean"),
        ("{not json", "not JSON"),
        ({}, "at least 1"),
    ],
)
def test_margins_that_do_not_fit_are_refused_before_anything_is_sent(margins: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        federate("calibrate", [SAMPLE], book(), margins=margins)


@pytest.mark.parametrize("method", ["raking", "linear"])
def test_a_population_code_without_sample_and_impossible_margins_are_refused(method: str) -> None:
    with pytest.raises(UsageError, match="got no sampled weight in old; want some, or merge"):
        federate("calibrate", [SAMPLE[SAMPLE["group"] != "old"]], book(), margins=MARGINS, method=method)
    tied = SAMPLE.assign(group=np.where(SAMPLE["sex"] == "f", "young", "middle"))
    margins = {"sex": {"f": 40, "m": 60}, "group": {"young": 50, "middle": 50, "old": 0}}
    with pytest.raises(UsageError, match="non-empty cells can meet"):
        federate("calibrate", [tied], book(), margins=margins, method=method)
    with pytest.raises(UsageError, match="got no sampled weight"):
        federate("calibrate", [SAMPLE.iloc[:0]], book(), margins=MARGINS, method=method)


def test_replicate_weights_are_refused_with_the_reason() -> None:
    made = codebook("weight", replicates="brr", replicate_method="brr")
    with pytest.raises(UsageError, match="each of which needs its own calibration"):
        federate("calibrate", [SAMPLE], made, margins={"sex": {"f": 1, "m": 1}}, design=True)
