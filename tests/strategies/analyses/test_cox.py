"""`cox` against lifelines and statsmodels on the pooled data."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter

from statfed.core.errors import UsageError
from statfed.core.method import read_question
from statfed.core.terms import Terms
from tests.federate import codebook_of, federate, split

CODEBOOK = codebook_of(
    {
        "days": ("integer", 0, 60),
        "years": ("number", 0, 60),
        "began": ("integer", 0, 60),
        "died": "boolean",
        "age": ("number", 0, 120),
        "score": "number",
        "sex": ["f", "m"],
        "region": ["north", "nowhere", "south", "west"],
        "site": ["a", "b", "never"],
    }
)
FOLLOWED = {"time": "days", "event": "died"}
REGIONS = ["region_south", "region_west"]


def patients(seed: int, n: int, missing: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.normal(60, 8, n).clip(0, 120),
            "score": rng.normal(-2, 1, n),
            "sex": rng.choice(["f", "m"], n),
            "region": rng.choice(["north", "south", "west"], n),
            "site": rng.choice(["a", "b"], n),
        }
    )
    risk = 0.04 * (frame["age"] - 60) - 0.5 * frame["score"] + 0.7 * (frame["sex"] == "m")
    lives = rng.exponential(15 * np.exp(-risk))
    ends = np.minimum(lives, rng.uniform(1, 60, n))
    frame["days"], frame["died"] = np.ceil(ends).clip(1, 60), np.asarray(lives <= ends, object)
    frame["began"] = (frame["days"] * rng.uniform(0, 1.1, n)).round().clip(0, 60)
    for name in ("age", "died", "region"):
        frame[name] = frame[name].astype(object).mask(rng.random(n) < missing)
    return frame


def matrix(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "age": frame["age"].astype(float),
            "score": frame["score"],
            "sex_m": (frame["sex"] == "m").astype(float),
            **{name: (frame["region"] == name.split("_")[1]).astype(float) for name in REGIONS},
        }
    )


FORMULA = "age + score + C(sex) + C(region)"


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 3), ties=st.sampled_from(["efron", "breslow"]))
def test_equals_pooled_statsmodels_however_the_records_are_split(seed: int, holders: int, ties: str) -> None:
    frame = patients(seed, 150, missing=0.05)
    strata = ["site"] if seed % 2 else []
    frames = [*split(frame, holders, seed), frame.iloc[:0], frame.iloc[:3].assign(died=None)]
    result = federate("cox", frames, CODEBOOK, **FOLLOWED, covariates=FORMULA, ties=ties, strata=strata)
    whole = frame.dropna()
    model = sm.PHReg(
        whole["days"],
        matrix(whole),
        status=whole["died"].astype(int),
        ties=ties,
        strata=whole["site"] if strata else None,
    )
    fitted = model.fit(method="newton", tol=1e-13, maxiter=100, disp=0)
    rows = result.to_pandas("coefficients")
    assert list(rows["name"]) == ["age", "score", "C(sex)[T.m]", "C(region)[T.south]", "C(region)[T.west]"]
    assert rows["estimate"].to_numpy() == pytest.approx(fitted.params, rel=1e-8, abs=1e-10)
    assert rows["std_error"].to_numpy() == pytest.approx(fitted.bse, rel=1e-9)
    assert rows["p_value"].to_numpy() == pytest.approx(fitted.pvalues, rel=1e-6)
    assert result.facts["log_likelihood"] == pytest.approx(fitted.llf, rel=1e-10)
    assert model.score(rows["estimate"].to_numpy()) == pytest.approx(0, abs=1e-7)
    assert (result.facts["observations"], result.facts["missing"]) == (len(whole), len(frame) + 3 - len(whole))
    json.dumps(result.to_dict(), allow_nan=False)


def test_coefficients_tests_and_baseline_equal_lifelines() -> None:
    frame = patients(1, 300)
    result = federate("cox", split(frame, 3), CODEBOOK, **FOLLOWED, covariates=FORMULA)
    whole = matrix(frame).assign(days=frame["days"], died=frame["died"].astype(bool))
    fitted = CoxPHFitter().fit(whole, "days", "died", fit_options={"precision": 1e-12})
    rows = result.to_pandas("coefficients")
    assert rows["estimate"].to_numpy() == pytest.approx(fitted.params_.to_numpy(), rel=1e-9)
    assert rows["std_error"].to_numpy() == pytest.approx(fitted.standard_errors_.to_numpy(), rel=1e-9)
    assert rows[["lower", "upper"]].to_numpy() == pytest.approx(fitted.confidence_intervals_.to_numpy(), rel=1e-8)
    assert rows["hazard_ratio"].to_numpy() == pytest.approx(fitted.hazard_ratios_.to_numpy(), rel=1e-9)
    assert result.facts["aic"] == pytest.approx(fitted.AIC_partial_, rel=1e-10)
    tests = result.to_pandas("tests").set_index("name")
    ratio = fitted.log_likelihood_ratio_test()
    assert tests.loc["likelihood ratio", "chi_square"] == pytest.approx(ratio.test_statistic, rel=1e-8)
    wald = fitted.params_ @ np.linalg.solve(fitted.variance_matrix_, fitted.params_)
    assert tests.loc["Wald", "chi_square"] == pytest.approx(wald, rel=1e-8)
    baseline = result.to_pandas("baseline").set_index("time")["cumulative_hazard"]
    reference = fitted.baseline_cumulative_hazard_["baseline cumulative hazard"].loc[baseline.index]
    assert baseline.to_numpy() == pytest.approx(reference.to_numpy(), rel=1e-8)


def test_the_score_test_of_two_groups_is_the_log_rank_test_where_nothing_ties() -> None:
    frame = patients(2, 60).assign(days=np.arange(60.0))
    cox = federate("cox", split(frame, 2), CODEBOOK, **FOLLOWED, covariates="C(sex)")
    survival = federate("survival", split(frame, 2), CODEBOOK, **FOLLOWED, group=["sex"])
    score = cox.to_pandas("tests").set_index("name").loc["score", "chi_square"]
    assert score == pytest.approx(survival.tables["tests"][0]["chi_square"], rel=1e-9)


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_an_entry_leaves_records_out_of_risk_sets_before_it(ties: str) -> None:
    frame = patients(3, 400)
    whole = frame[frame["began"] < frame["days"]]
    result = federate("cox", split(frame, 2), CODEBOOK, **FOLLOWED, covariates=FORMULA, entry="began", ties=ties)
    assert result.facts["left_out"] == len(frame) - len(whole) > 10
    assert result.facts["missing"] == 0
    assert result.notes[-1] == "Records whose began is not before their days are left out."
    # statsmodels counts t = entry as at risk; after it means half a day later
    model = sm.PHReg(
        whole["days"], matrix(whole), status=whole["died"].astype(int), ties=ties, entry=whole["began"] + 0.5
    )
    fitted = model.fit(method="newton", tol=1e-13, maxiter=100, disp=0)
    rows = result.to_pandas("coefficients")
    assert rows["estimate"].to_numpy() == pytest.approx(fitted.params, rel=1e-8)
    assert rows["std_error"].to_numpy() == pytest.approx(fitted.bse, rel=1e-9)


def test_a_coarse_grid_is_the_model_of_rounded_times() -> None:
    frame = patients(4, 400)
    frame["years"] = frame["days"] - 0.3
    result = federate("cox", split(frame, 2), CODEBOOK, time="years", event="died", interval=7, covariates=FORMULA)
    rounded = np.ceil(frame["years"] / 7) * 7
    fitted = sm.PHReg(rounded, matrix(frame), status=frame["died"].astype(int), ties="efron").fit(
        method="newton", tol=1e-13, maxiter=100, disp=0
    )
    assert result.to_pandas()["estimate"].to_numpy() == pytest.approx(fitted.params, rel=1e-8)


def test_far_away_and_large_covariates_lose_no_digits() -> None:
    frame = patients(5, 300)
    near = federate("cox", split(frame, 2), CODEBOOK, **FOLLOWED, covariates="age + score").to_pandas()
    far = frame.assign(score=frame["score"] * 1e4 + 1e8)
    moved = federate("cox", split(far, 2), CODEBOOK, **FOLLOWED, covariates="age + score").to_pandas()
    scale = np.array([1, 1e4])
    assert moved["estimate"].to_numpy() * scale == pytest.approx(near["estimate"].to_numpy(), rel=1e-9)
    assert moved["std_error"].to_numpy() * scale == pytest.approx(near["std_error"].to_numpy(), rel=1e-9)


def test_a_step_too_far_is_halved_until_the_likelihood_grows() -> None:
    rng = np.random.default_rng(7)
    score = np.concatenate([rng.exponential(1, 200) ** 3, [400.0]])
    lives = rng.exponential(20 * np.exp(-0.4 * np.minimum(score, 12)))
    lives[-1] = 25.0  # heavy leverage: Newton's first step overshoots
    frame = pd.DataFrame({"score": score, "days": np.ceil(lives).clip(1, 60), "died": lives < 60})
    rows = federate("cox", split(frame, 2), CODEBOOK, **FOLLOWED, covariates="score").to_pandas()
    model = sm.PHReg(frame["days"], frame[["score"]], status=frame["died"].astype(int), ties="efron")
    assert model.score(rows["estimate"].to_numpy()) == pytest.approx(0, abs=1e-6)


def test_levels_without_records_have_no_coefficient_even_as_reference() -> None:
    frame = patients(6, 200)
    plain = federate("cox", split(frame, 2), CODEBOOK, **FOLLOWED, covariates="age + C(region)")
    assert [row["name"] for row in plain.tables["coefficients"]] == ["age", "C(region)[T.south]", "C(region)[T.west]"]
    assert any("nowhere" in note for note in plain.notes)
    southern = frame[frame["region"] != "north"]
    moved = federate("cox", split(southern, 2), CODEBOOK, **FOLLOWED, covariates="age + C(region)")
    assert [row["name"] for row in moved.tables["coefficients"]] == ["age", "C(region)[T.west]"]


@pytest.mark.parametrize(
    ("change", "covariates", "more", "said"),
    [
        (lambda f: f.iloc[:0], "age", {}, "got no complete records"),
        (lambda f: f.assign(age=None), "age", {}, "got no complete records"),
        (lambda f: f.assign(died=False), "age", {}, "got no events in 200 records"),
        (lambda f: f.assign(age=50.1), "age + score", {}, "age: got the same value in all records"),
        (lambda f: f.assign(sex="m"), "C(sex)", {}, "one level only"),
        (lambda f: f.assign(score=3 * f["age"] - 7), "age + score", {}, "score: got a combination of age"),
        (lambda f: f, "age + C(sex)", {"strata": ["sex"]}, "same value in all records at risk together"),
        (lambda f: f.assign(score=-f["days"]), "score", {}, "coefficient without limit for score"),
        (lambda f: f.assign(died=f["sex"] == "m"), "age + C(sex)", {}, r"without limit for C\(sex\)\[T.m\]"),
        (lambda f: f, "age + log(score)", {}, "no finite value"),
        (lambda f: f, "age + score", {"max_iterations": 1}, "no maximum within 1 iterations"),
    ],
)
def test_what_cannot_be_estimated_is_refused_with_the_reason(
    change: Any, covariates: str, more: dict[str, Any], said: str
) -> None:
    frame = change(patients(8, 200))
    with pytest.raises(UsageError, match=said):
        federate("cox", [frame], CODEBOOK, **FOLLOWED, covariates=covariates, **more)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"covariates": "nothing"}, "want one of days"),
        ({"covariates": "1"}, "want one term or more"),
        ({"covariates": "age - 1"}, "without intercept"),
        ({"covariates": "died ~ age"}, "want terms alone"),
        ({"covariates": "__import__('os')"}, "formula"),
        ({"ties": "exact"}, "'efron' or 'breslow'"),
        ({"strata": ["age"]}, "want category or boolean"),
        ({"time": "score"}, "got no low"),
        ({"time": "years", "interval": 0.0005, "covariates": "age*score*C(sex)*C(region)"}, "choose a wider interval"),
    ],
)
def test_a_users_mistake_is_named_before_anything_is_asked(options: dict[str, Any], said: str) -> None:
    given = FOLLOWED | {"covariates": "age"} | options
    query = Terms(method="cox", options=given, codebook=CODEBOOK, holders=("a",), seed=1)
    with pytest.raises(UsageError, match=said):
        read_question(query)
