"""`ttest` and `chisq` against scipy.stats on the pooled data."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.method import read_question
from statfed.core.terms import Privacy, Terms
from tests.federate import codebook_of, federate, split

CODEBOOK = codebook_of(
    {
        "x": ("number", -1e7, 1e7),
        "y": "number",
        "works": "boolean",
        "region": ["n", "s", "w", "none"],
        "sex": ["f", "m"],
    }
)


def sample(seed: int, n: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m"], n)
    x = 1e5 + rng.normal(0, 2, n) + (sex == "f")
    frame = pd.DataFrame({"x": x, "y": x + rng.normal(0.3, 1, n), "sex": sex, "works": rng.random(n) < 0.4})
    frame["region"] = rng.choice(["n", "s", "w"], n)
    frame["x"] = frame["x"].where(rng.random(n) < 0.9)
    frame["sex"] = frame["sex"].where(rng.random(n) < 0.95)
    return frame


def agrees(row: Any, reference: Any, level: float) -> None:
    limits = reference.confidence_interval(level)
    for key, value in {
        "statistic": reference.statistic,
        "df": reference.df,
        "p_value": reference.pvalue,
        "lower": limits.low,
        "upper": limits.high,
    }.items():
        assert row[key] == pytest.approx(value, rel=1e-8), key


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 3), n=st.integers(12, 80))
def test_ttests_equal_pooled_scipy_however_the_records_are_split(seed: int, holders: int, n: int) -> None:
    frame = sample(seed, n)
    frames = split(frame, holders, seed)
    x, y = frame["x"].dropna(), frame["y"]
    one = federate("ttest", frames, CODEBOOK, columns=["x", "y"], mu=1e5, level=0.9).tables["tests"]
    agrees(one[0], stats.ttest_1samp(x, 1e5), 0.9)
    agrees(one[1], stats.ttest_1samp(y, 1e5), 0.9)
    pairs = frame[["x", "y"]].dropna()
    paired = federate("ttest", frames, CODEBOOK, columns=["x", "y"], paired=True).tables["tests"]
    agrees(paired[0], stats.ttest_rel(pairs["x"], pairs["y"]), 0.95)
    f, m = (frame.loc[frame["sex"] == level, "x"].dropna() for level in ("f", "m"))
    if min(len(f), len(m)) > 1:
        welch = federate("ttest", frames, CODEBOOK, columns=["x"], by="sex")
        agrees(welch.tables["tests"][0], stats.ttest_ind(f, m, equal_var=False), 0.95)
        pooled = federate("ttest", frames, CODEBOOK, columns=["x"], by="sex", pooled=True).tables["tests"]
        agrees(pooled[0], stats.ttest_ind(f, m), 0.95)
        row = welch.tables["tests"][0]
        shown = welch.conf_int()  # uses the row's own degrees of freedom
        assert shown["lower"][0] == pytest.approx(row["lower"])
        assert (row["group_1"], row["count_1"], row["group_2"], row["count_2"]) == ("f", len(f), "m", len(m))


def test_two_of_several_levels_are_compared_in_the_order_asked_for() -> None:
    frame = sample(5, 90)
    row = federate("ttest", split(frame, 3), CODEBOOK, columns=["y"], by="region", groups=["w", "n"]).tables["tests"][0]
    w, n = (frame.loc[frame["region"] == level, "y"] for level in ("w", "n"))
    agrees(row, stats.ttest_ind(w, n, equal_var=False), 0.95)


@pytest.mark.parametrize("options", [{}, {"by": "sex"}, {"by": "sex", "pooled": True}])
@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": [], "sex": []}),
        pd.DataFrame({"x": [1.0], "sex": ["f"]}),
        pd.DataFrame({"x": [None, None], "sex": ["f", "m"]}),
        pd.DataFrame({"x": [0.3] * 6, "sex": ["f", "m"] * 3}),
    ],
)
def test_samples_that_are_empty_single_missing_or_constant_give_nulls(
    frame: pd.DataFrame, options: dict[str, Any]
) -> None:
    result = federate("ttest", [frame, frame[:0]], CODEBOOK, columns=["x"], **options)
    row = result.tables["tests"][0]
    assert (row["statistic"], row["p_value"], row["lower"]) == (None, None, None)
    assert any("no statistic" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"columns": ["x"], "by": "region"}, "want two of region"),
        ({"columns": ["x"], "by": "region", "groups": ["n", "z"]}, "want two of region"),
        ({"columns": ["x"], "by": "y"}, "want category or boolean"),
        ({"columns": ["sex"]}, "want number"),
        ({"columns": ["x"], "paired": True}, "got 1 columns; want two"),
        ({"columns": ["x", "y"], "paired": True, "by": "sex"}, "want one of them"),
        ({"columns": ["x"], "pooled": True}, "without by"),
    ],
)
def test_ttest_mistakes_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        federate("ttest", [sample(0, 9)], CODEBOOK, **options)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 3), n=st.integers(30, 120), yates=st.booleans())
def test_independence_equals_pooled_scipy_however_the_records_are_split(
    seed: int, holders: int, n: int, yates: bool
) -> None:
    frame = sample(seed, n)
    for columns in (["sex", "works"], ["sex", "region"]):
        result = federate("chisq", split(frame, holders, seed), CODEBOOK, columns=columns, correction=yates)
        table = pd.crosstab(frame[columns[0]], frame[columns[1]])
        reference = stats.chi2_contingency(table, correction=yates)
        row = result.tables["tests"][0]
        assert row["statistic"] == pytest.approx(reference.statistic, rel=1e-9, abs=1e-12)
        assert row["p_value"] == pytest.approx(reference.pvalue, rel=1e-9)
        assert row["df"] == reference.dof
        assert row["cramers_v"] == pytest.approx(stats.contingency.association(table), rel=1e-9)
        assert row["count"] == table.to_numpy().sum()
        assert row["smallest_expected"] == pytest.approx(reference.expected_freq.min())
        shown = result.to_pandas("cells")
        stacked: Any = table.stack()
        for cell, expected in zip(stacked.items(), reference.expected_freq.ravel(), strict=True):
            levels = [str(level).lower() if isinstance(level, bool) else level for level in cell[0]]
            found = shown[(shown[columns[0]] == levels[0]) & (shown[columns[1]] == levels[1])].iloc[0]
            assert found["count"] == cell[1]
            assert found["expected"] == pytest.approx(expected)


def test_levels_without_records_do_not_count_as_degrees_of_freedom_and_are_named() -> None:
    result = federate("chisq", split(sample(0, 60), 3), CODEBOOK, columns=["sex", "region"])
    assert result.tables["tests"][0]["df"] == 2
    assert any("region: no records in none" in note for note in result.notes)


def test_small_expected_counts_are_noted() -> None:
    result = federate("chisq", [sample(0, 12)], CODEBOOK, columns=["sex", "region"])
    assert any("is below 5" in note for note in result.notes)


@pytest.mark.parametrize("probabilities", [(), (0.5, 0.3, 0.1, 0.1)])
def test_goodness_of_fit_equals_pooled_scipy(probabilities: tuple[float, ...]) -> None:
    frame = sample(2, 100)
    result = federate("chisq", split(frame, 4), CODEBOOK, columns=["region"], probabilities=probabilities)
    observed = [int((frame["region"] == level).sum()) for level in ("n", "s", "w", "none")]
    reference = stats.chisquare(observed, 100 * np.array(probabilities) if probabilities else None)
    row = result.tables["tests"][0]
    assert row["statistic"] == pytest.approx(reference.statistic, rel=1e-12)
    assert row["p_value"] == pytest.approx(reference.pvalue, rel=1e-9)
    assert row["df"] == 3


@pytest.mark.parametrize("columns", [["sex", "region"], ["sex"]])
def test_no_records_or_one_level_give_no_test_but_nulls(columns: list[str]) -> None:
    empty = pd.DataFrame({"sex": [], "region": []})
    row = federate("chisq", [empty, empty], CODEBOOK, columns=columns).tables["tests"][0]
    assert (row["statistic"], row["p_value"], row["count"]) == (None, None, 0)
    one = pd.DataFrame({"sex": ["f", "f"], "region": ["n", "s"]})
    if len(columns) == 2:
        row = federate("chisq", [one], CODEBOOK, columns=columns).tables["tests"][0]
        assert (row["statistic"], row["df"], row["cramers_v"]) == (None, 0, None)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"columns": ["sex", "sex"]}, "want each column once"),
        ({"columns": ["sex", "x"]}, "want category or boolean"),
        ({"columns": ["sex"], "probabilities": [0.5, 0.2, 0.3]}, "got 3; want 2, one per level"),
        ({"columns": ["sex"], "probabilities": [0.5, 0.4]}, "want 1"),
        ({"columns": ["sex", "region"], "probabilities": [0.5, 0.5]}, "with one column only"),
        ({"columns": ["sex"], "correction": True}, "with two columns only"),
    ],
)
def test_chisq_mistakes_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        federate("chisq", [sample(0, 9)], CODEBOOK, **options)


def test_tests_have_no_private_form() -> None:
    for analysis, options in (("chisq", {"columns": ["sex"]}), ("ttest", {"columns": ["x"]})):
        query = Terms(
            method=analysis, options=options, codebook=CODEBOOK, holders=("a",), seed=1, privacy=Privacy(epsilon=1)
        )
        with pytest.raises(UsageError, match="no differentially private form"):
            read_question(query)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("unit", "level"), [(1, 1e12), (1e140, 0), (1e-140, 0)])
@pytest.mark.parametrize("design", [False, True])
def test_ttests_far_from_0_or_1_keep_the_digits_of_the_deviations(unit: float, level: float, design: bool) -> None:
    x = level + unit * np.random.default_rng(1).normal(size=300)
    frame = pd.DataFrame({"x": x, "g": np.repeat(["a", "b"], 150), "w": 1.0})
    codebook = codebook_of({"x": "number", "g": ["a", "b"], "w": {"type": "number", "role": "weight"}})
    (row,) = federate("ttest", split(frame, 2), codebook, columns=["x"], by="g", design=design).tables["tests"]
    first, second = (x[:150] - level) / unit, (x[150:] - level) / unit
    test = stats.ttest_ind(first, second, equal_var=False)
    assert row["estimate"] == pytest.approx(unit * (first.mean() - second.mean()), rel=1e-10)
    if not design:
        assert row["statistic"] == pytest.approx(test.statistic, rel=1e-10)
        assert row["p_value"] == pytest.approx(test.pvalue, rel=1e-9)
    (row,) = federate("ttest", [frame], codebook, columns=["x"], mu=level, design=design).tables["tests"]
    assert row["statistic"] == pytest.approx(stats.ttest_1samp((x - level) / unit, 0).statistic, rel=1e-9)
