"""`variance` and `covariance` against pandas and scipy on the pooled data."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from statfed.core.errors import UsageError
from tests.federate import codebook_of, federate, split
from tests.noise import noisy

CODEBOOK = codebook_of(
    {
        "income": ("number", -1e7, 1e7),
        "age": ("integer", 0, 120),
        "works": "boolean",
        "free": "number",
        "sex": ["f", "m", "x"],
        "region": ["n", "s"],
    }
)


def people(seed: int, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.integers(0, 99, n)
    frame = pd.DataFrame(
        {
            "income": 1e6 + rng.normal(0, 3, n) + 0.05 * age,
            "age": age,
            "works": rng.random(n) < 0.5,
            "free": rng.lognormal(0, 1, n),
            "sex": rng.choice(["f", "m"], n),  # level x stays empty
            "region": rng.choice(["n", "s"], n),
        }
    )
    frame["income"] = frame["income"].where(rng.random(n) < 0.9)
    frame["sex"] = frame["sex"].where(rng.random(n) < 0.9)
    return frame


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 4), n=st.integers(2, 60))
def test_variance_equals_pooled_pandas_however_the_records_are_split(seed: int, holders: int, n: int) -> None:
    frame = people(seed, n)
    result = federate("variance", split(frame, holders, seed), CODEBOOK, columns=["income", "age", "works", "free"])
    for row in result.tables["estimates"]:
        x = frame[str(row["column"])].astype(float).dropna().to_numpy()
        assert row["count"] == len(x)
        if len(x) > 3:
            assert row["estimate"] == pytest.approx(x.var(ddof=1), rel=1e-9)
            assert row["std_dev"] == pytest.approx(x.std(ddof=1), rel=1e-9)
            assert row["mean_std_error"] == pytest.approx(stats.sem(x), rel=1e-9)
            m4, s2, k = np.mean((x - x.mean()) ** 4), x.var(ddof=1), len(x)
            expected = np.sqrt(max(0, m4 - (k - 3) / (k - 1) * s2**2) / k)
            assert row["std_error"] == pytest.approx(expected, rel=1e-8, abs=1e-9 * s2)


def test_variance_in_groups_uses_each_groups_own_centre_and_leaves_empty_groups_null() -> None:
    frame = people(3, 200)
    frame.loc[frame["sex"] == "f", "income"] += 5e6  # one common centre would cancel ten digits
    result = federate("variance", split(frame, 4, 3), CODEBOOK, columns=["income", "age"], by=["sex", "region"])
    shown = {(row["column"], row["sex"], row["region"]): row for row in result.tables["estimates"]}
    for name in ("income", "age"):
        pooled = frame.groupby(["sex", "region"])[name].agg(["count", "mean", "var"])
        for at, row in pooled.iterrows():
            key: Any = at
            cell = shown[(name, *key)]
            assert cell["count"] == row["count"]
            assert cell["mean"] == pytest.approx(row["mean"], rel=1e-12)
            assert cell["estimate"] == pytest.approx(row["var"], rel=1e-9)
        assert (shown[(name, "x", "n")]["count"], shown[(name, "x", "n")]["estimate"]) == (0, None)


def test_variance_of_a_constant_is_zero_and_of_one_record_null() -> None:
    frame = pd.DataFrame({"income": [0.1 + 0.2] * 7 + [None], "age": [None] * 7 + [5], "works": [True] * 8})
    holders = [frame, frame[:0], pd.DataFrame({"income": [None, None]})]
    rows = {
        row["column"]: row
        for row in federate("variance", holders, CODEBOOK, columns=["income", "age"]).tables["estimates"]
    }
    assert (rows["income"]["estimate"], rows["income"]["std_error"], rows["income"]["count"]) == (0.0, 0.0, 7)
    assert (rows["age"]["estimate"], rows["age"]["mean"], rows["age"]["std_error"]) == (None, 5.0, None)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 4), n=st.integers(5, 60))
def test_covariance_equals_pooled_pandas_and_scipy(seed: int, holders: int, n: int) -> None:
    frame = people(seed, n)
    names = ["income", "age", "free"]
    result = federate("covariance", split(frame, holders, seed), CODEBOOK, columns=names, level=0.9)
    pooled = frame[names].dropna().astype(float)
    matrix: Any = pooled.cov()
    assert len(result.tables["pairs"]) == 6
    for row in result.tables["pairs"]:
        a, b = str(row["name_1"]), str(row["name_2"])
        scale = np.sqrt(matrix.loc[a, a] * matrix.loc[b, b])
        assert row["count"] == len(pooled)
        if len(pooled) > 1:
            assert row["covariance"] == pytest.approx(matrix.loc[a, b], rel=1e-9, abs=1e-9 * scale)
        if a != b and len(pooled) > 3:
            pearson = stats.pearsonr(pooled[a], pooled[b])
            limits = pearson.confidence_interval(0.9)
            assert row["correlation"] == pytest.approx(pearson.statistic, rel=1e-9, abs=1e-9)
            assert row["p_value"] == pytest.approx(pearson.pvalue, rel=1e-6)
            assert (row["lower"], row["upper"]) == pytest.approx((limits.low, limits.high), rel=1e-7, abs=1e-8)


def test_correlation_with_a_constant_is_null_and_of_a_line_one() -> None:
    frame = pd.DataFrame({"income": np.arange(20) / 3, "age": 7, "free": np.arange(20) / 3 * 2 + 0.1})
    rows = federate("covariance", split(frame, 3), CODEBOOK, columns=["income", "age", "free"]).tables["pairs"]
    pairs: dict[Any, Any] = {(row["name_1"], row["name_2"]): row for row in rows}
    assert (pairs["income", "age"]["covariance"], pairs["income", "age"]["correlation"]) == (0, None)
    assert pairs["income", "free"]["correlation"] == pytest.approx(1, abs=1e-12)
    assert pairs["income", "free"]["p_value"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_covariance_of_very_few_records_has_nulls_and_no_warnings(n: int) -> None:
    frame = pd.DataFrame({"income": np.arange(n) * 1.5, "free": np.arange(n) ** 2 * 1.0})
    rows = federate("covariance", [frame, frame[:0]], CODEBOOK, columns=["income", "free"]).tables["pairs"]
    assert all(row["count"] == n and row["lower"] is None for row in rows)
    assert (rows[1]["covariance"] is None) == (n < 2)


@pytest.mark.parametrize(
    ("analysis", "options", "wanted"),
    [
        ("variance", {"columns": ["sex"]}, "want number, integer or boolean"),
        ("variance", {"columns": ["age"], "by": ["income"]}, "want category or boolean"),
        ("variance", {"columns": ["age", "age"]}, "want each column once"),
        ("variance", {"columns": ["agee"]}, "want one of income"),
        ("covariance", {"columns": ["age"]}, "columns"),
    ],
)
def test_mistakes_are_refused_before_anything_is_sent(analysis: str, options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        federate(analysis, [people(0, 5)], CODEBOOK, **options)


@pytest.mark.parametrize("analysis", ["variance", "covariance"])
def test_privacy_without_bounds_is_refused(analysis: str) -> None:
    with pytest.raises(UsageError, match="free: got no bounds in the codebook"):
        noisy(analysis, [people(0, 50)], CODEBOOK, 0, columns=["free", "age"])


BOUNDED = codebook_of({"x": ("number", -10, 30), "y": ("number", 0, 50), "sex": ["f", "m"]})


def bounded(seed: int, n: int = 3000) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    x = np.clip(rng.normal(8, 4, n), -10, 30)
    return pd.DataFrame({"x": x, "y": np.clip(25 + x + rng.normal(0, 4, n), 0, 50), "sex": rng.choice(["f", "m"], n)})


def test_private_variance_without_noise_equals_pooled_pandas() -> None:
    frame = bounded(1)
    rows = noisy("variance", split(frame, 3), BOUNDED, 0, scale=0, columns=["x", "y"], by=["sex"]).tables["estimates"]
    plain = federate("variance", split(frame, 3), BOUNDED, columns=["x", "y"], by=["sex"]).tables["estimates"]
    for row, exact in zip(rows, plain, strict=True):
        for key in ("count", "mean", "mean_std_error", "estimate", "std_error"):
            assert row[key] == pytest.approx(exact[key], rel=1e-9)


def test_private_intervals_of_the_variance_cover_the_sampling_error_and_the_noise() -> None:
    hits = []
    for seed in range(30):
        result = noisy("variance", [bounded(seed)], BOUNDED, seed, columns=["x"], epsilon=0.3)
        limits = result.conf_int()
        hits.append(float(limits["lower"].iloc[0]) <= 16 <= float(limits["upper"].iloc[0]))
    assert np.mean(hits) >= 0.83  # 95 % of 30, less three standard errors


def test_private_covariance_without_noise_equals_pooled_pandas_and_with_noise_covers() -> None:
    frame = bounded(2)
    exact = noisy("covariance", split(frame, 3), BOUNDED, 0, scale=0, columns=["x", "y"]).tables["pairs"]
    plain = federate("covariance", split(frame, 3), BOUNDED, columns=["x", "y"]).tables["pairs"]
    for row, same in zip(exact, plain, strict=True):
        for key in ("covariance", "covariance_std_error", "correlation", "lower", "upper"):
            assert row[key] == (None if same[key] is None else pytest.approx(same[key], rel=1e-9))
    hits, inside = [], []
    for seed in range(30):
        result = noisy("covariance", [bounded(seed)], BOUNDED, seed, columns=["x", "y"], epsilon=0.3)
        keys = ("lower", "upper", "covariance", "covariance_std_error")
        lower, upper, covariance, error = (float(str(result.tables["pairs"][1][key])) for key in keys)
        hits.append(lower <= np.sqrt(0.5) <= upper)
        inside.append(abs(covariance - 16) <= 1.96 * error)
    assert np.mean(hits) >= 0.83
    assert np.mean(inside) >= 0.83


def test_private_moments_of_hardly_any_records_are_null_or_finite() -> None:
    for seed in range(5):
        for analysis in ("variance", "covariance"):
            result = noisy(analysis, [bounded(0, 2)], BOUNDED, seed, columns=["x", "y"], epsilon=0.1)
            for row in next(iter(result.tables.values())):
                assert all(not isinstance(v, float) or np.isfinite(v) for v in row.values())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [1e-140, 1e-90, 1e90, 1e140])
def test_correlations_do_not_depend_on_the_unit_of_columns(unit: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=50)
    y = x + rng.normal(size=50)
    frame, codebook = pd.DataFrame({"x": unit * x, "y": unit * y}), codebook_of({"x": "number", "y": "number"})
    own, pair, _ = federate("covariance", split(frame, 2), codebook, columns=["x", "y"]).tables["pairs"]
    test = stats.pearsonr(x, y)
    limits = test.confidence_interval(0.95)
    assert own["correlation"] == 1
    wanted = [test.statistic, limits.low, limits.high, test.pvalue, np.cov(x, y)[0, 1] * unit * unit]
    names = ("correlation", "lower", "upper", "p_value", "covariance")
    np.testing.assert_allclose(np.array([pair[name] for name in names], float), wanted, rtol=1e-9)


def test_no_error_of_a_variance_is_0_because_its_square_is_no_float() -> None:
    x = np.random.default_rng(1).normal(size=50)
    frame = pd.DataFrame({"x": 1e-90 * x, "y": 1e-90 * x**2, "w": 1.0 + np.arange(50) % 3})
    codebook = codebook_of({"x": "number", "y": "number", "w": {"type": "number", "role": "weight"}})
    for design in (False, True):
        result = federate("variance", [frame], codebook, columns=["x"], design=design)
        (row,) = result.tables["estimates"]
        assert row["std_error"] is None
        assert row["estimate"] not in (None, 0.0)
        assert "no standard errors of variances" in result.notes[-1]
    result = federate("covariance", [frame], codebook, columns=["x", "y"], design=True)
    assert {row["covariance_std_error"] for row in result.tables["pairs"]} == {None}
