"""`survival` against lifelines and statsmodels on the pooled data."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import multivariate_logrank_test
from lifelines.utils import restricted_mean_survival_time
from statsmodels.duration.survfunc import survdiff

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Total, checked, read_question, summed
from statfed.core.result import Result
from statfed.core.terms import Privacy, Terms
from tests.federate import codebook_of, federate, split, table_of

CODEBOOK = codebook_of(
    {
        "days": ("integer", 0, 60),
        "years": ("number", 0, 5),
        "began": ("integer", 0, 60),
        "died": "boolean",
        "code": ("integer", 0, 1),
        "level": ["0", "1"],
        "arm": ["a", "b", "c", "never"],
        "sex": ["f", "m"],
        "unbounded": "number",
        "signed": ("number", -1, 5),
    }
)
DEATHS = {"time": "days", "event": "died"}


def people(seed: int, n: int, missing: float = 0.1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "days": rng.integers(0, rng.integers(3, 60), n).astype(float),
            "years": rng.uniform(0, 5, n),
            "died": rng.choice(np.array([True, False], object), n),
            "arm": rng.choice(["a", "b", "c"], n),
            "sex": rng.choice(["f", "m"], n),
        }
    )
    frame["code"], frame["level"] = frame["died"].astype(float), frame["died"].astype(int).astype(str)
    for name in ("days", "died", "arm"):
        frame[name] = frame[name].astype(object).mask(rng.random(n) < missing)
    return frame


def pooled(frame: pd.DataFrame, time: str = "days") -> pd.DataFrame:
    whole = frame.dropna(subset=[time, "died", "arm"]).copy()
    whole[time], whole["died"] = whole[time].astype(float), whole["died"].astype(bool)
    return whole


def assert_same_curve(curve: pd.DataFrame, times: Any, events: Any, entry: Any = None) -> None:
    fitted = KaplanMeierFitter().fit(times, events, entry=entry)
    reference = fitted.survival_function_["KM_estimate"].loc[curve["time"]].to_numpy()
    assert curve["survival"].to_numpy() == pytest.approx(reference, rel=1e-9, abs=1e-12)
    limits = fitted.confidence_interval_.loc[curve["time"]].to_numpy()
    alive = reference > 0
    assert curve["lower"].to_numpy(float)[alive] == pytest.approx(limits[alive, 0], rel=1e-9)
    assert curve["upper"].to_numpy(float)[alive] == pytest.approx(limits[alive, 1], rel=1e-9)
    greenwood = fitted._cumulative_sq_.loc[curve["time"]].to_numpy().reshape(-1)
    error = reference * np.sqrt(greenwood)
    assert curve["std_error"].to_numpy(float)[alive] == pytest.approx(error[alive], rel=1e-9)
    assert curve.loc[~alive, ["std_error", "lower", "upper"]].isna().all(axis=None)
    table = fitted.event_table.loc[curve["time"]]
    assert (curve[["events", "censored"]].to_numpy() == table[["observed", "censored"]].to_numpy()).all()


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 5), n=st.integers(3, 120))
def test_curves_and_medians_equal_lifelines_however_the_records_are_split(seed: int, holders: int, n: int) -> None:
    frame = people(seed, n)
    result = federate("survival", split(frame, holders, seed), CODEBOOK, **DEATHS, group=["arm"])
    whole = pooled(frame)
    assert result.facts["observations"] == len(whole)
    assert result.facts["missing"] == n - len(whole)
    curve = result.to_pandas("curve") if len(whole) else pd.DataFrame({"arm": []})
    for row in result.tables["medians"]:
        group = whole[whole["arm"] == row["arm"]]
        assert row["records"] == len(group)
        if len(group):
            assert_same_curve(curve[curve["arm"] == row["arm"]], group["days"], group["died"])
            alive = KaplanMeierFitter().fit(group["days"], group["died"]).survival_function_["KM_estimate"]
            below = alive.index[alive <= 0.5 + 1e-9]
            assert row["median"] == (below[0] if len(below) else None)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 4))
def test_rank_tests_equal_lifelines(seed: int, holders: int) -> None:
    frame = people(seed, 150)
    result = federate("survival", split(frame, holders, seed), CODEBOOK, **DEATHS, group=["arm"])
    whole = pooled(frame)
    weightings = {"log-rank": None, "Wilcoxon": "wilcoxon", "Tarone-Ware": "tarone-ware"}
    for row in result.tables["tests"]:
        # with a fourth, empty group lifelines has no inverse of its own: it sees three
        reference = multivariate_logrank_test(
            whole["days"], whole["arm"], whole["died"], weightings=weightings[str(row["name"])]
        )
        assert row["df"] == 2
        assert row["chi_square"] == pytest.approx(reference.test_statistic, rel=1e-9)
        assert row["p_value"] == pytest.approx(reference.p_value, rel=1e-9)
    assert result.to_pandas("medians")["expected"].sum() == pytest.approx(whole["died"].sum())


def test_stratified_log_rank_equals_statsmodels() -> None:
    frame = people(5, 300)
    result = federate("survival", split(frame, 3), CODEBOOK, **DEATHS, group=["arm"], strata=["sex"])
    whole = pooled(frame)
    chi_square, p_value = survdiff(whole["days"], whole["died"], whole["arm"], strata=whole["sex"])
    row = result.tables["tests"][0]
    assert row["chi_square"] == pytest.approx(chi_square, rel=1e-9)
    assert row["p_value"] == pytest.approx(p_value, rel=1e-9)


def test_times_off_the_grid_are_rounded_up_to_the_end_of_their_interval() -> None:
    frame = people(3, 400)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"interval": 0.25}, np.ceil(frame["years"] / 0.25) * 0.25),
        ({}, (np.ceil(frame["years"] / 0.025) * 0.025).round(12)),
    ]
    for option, rounded in cases:
        whole = frame.assign(rounded=rounded).dropna(subset=["died"])
        result = federate("survival", split(frame, 3), CODEBOOK, time="years", event="died", **option)
        assert_same_curve(result.to_pandas("curve"), whole["rounded"], whole["died"].astype(bool))


def test_decimal_times_on_the_grid_stay_where_they_are() -> None:
    times = [round(k * 0.1, 10) for k in range(51)] + [k * 0.1 for k in range(51)]
    frame = pd.DataFrame({"years": np.minimum(times, 5.0), "died": True})
    curve = federate("survival", [frame], CODEBOOK, time="years", event="died", interval=0.1).to_pandas("curve")
    assert list(curve["time"]) == [round(k * 0.1, 10) for k in range(51)]
    assert set(curve["events"]) == {2}


def test_given_grid_times_end_the_follow_up_with_the_last() -> None:
    frame = people(4, 300, missing=0)
    ends = np.array([5.0, 7.0, 20.0])
    grid: dict[str, Any] = {"grid": list(ends)}
    result = federate("survival", split(frame, 3), CODEBOOK, **DEATHS, **grid)
    whole = pooled(frame)
    place = np.searchsorted(ends, whole["days"])
    died = whole["died"] & (place < 3)
    assert_same_curve(result.to_pandas("curve"), ends[np.minimum(place, 2)], died)


def test_an_entry_puts_records_at_risk_after_it_and_impossible_ones_are_left_out() -> None:
    rng = np.random.default_rng(1)
    frame = people(6, 400, missing=0)
    frame["began"] = rng.integers(0, 30, 400).astype(float)
    whole = pooled(frame)
    whole = whole[whole["began"] < whole["days"]]
    grids: list[dict[str, Any]] = [{}, {"grid": [float(k) for k in range(61)]}]
    for grid in grids:
        result = federate("survival", split(frame, 2), CODEBOOK, **DEATHS, entry="began", group=["arm"], **grid)
        assert result.facts["observations"] == len(whole)
        assert (result.facts["missing"], result.facts["left_out"]) == (0, len(frame) - len(whole))
        assert "began is not before their days are left out." in result.notes[-1]
        curve = result.to_pandas("curve")
        for arm, group in whole.groupby(
            "arm"
        ):  # lifelines counts t = entry as at risk; after it means half a day later
            assert_same_curve(curve[curve["arm"] == arm], group["days"], group["died"], entry=group["began"] + 0.5)
        chi_square, _ = survdiff(whole["days"], whole["died"], whole["arm"], entry=whole["began"])
        assert result.tables["tests"][0]["chi_square"] == pytest.approx(chi_square, rel=1e-9)


@pytest.mark.parametrize("event", ["code", "level"])
def test_events_coded_zero_and_one_count_as_booleans_do(event: str) -> None:
    frame = people(8, 100, missing=0)
    coded = federate("survival", split(frame, 2), CODEBOOK, time="days", event=event)
    assert coded.to_dict() == federate("survival", split(frame, 2), CODEBOOK, **DEATHS).to_dict()


def test_restricted_mean_is_the_area_under_the_curve() -> None:
    frame = people(9, 200, missing=0).astype({"days": float})
    row = federate("survival", split(frame, 3), CODEBOOK, **DEATHS, restricted_to=9).tables["restricted_means"][0]
    fitted = KaplanMeierFitter().fit(frame["days"], frame["died"].astype(bool))
    assert row["estimate"] == pytest.approx(restricted_mean_survival_time(fitted, 9), rel=1e-9)
    whole = federate("survival", split(frame.assign(died=True), 3), CODEBOOK, **DEATHS, restricted_to=60)
    mean = whole.tables["restricted_means"][0]  # without censoring the mean, with the error of divisor n
    assert mean["estimate"] == pytest.approx(frame["days"].mean(), rel=1e-12)
    assert mean["std_error"] == pytest.approx(frame["days"].std(ddof=0) / np.sqrt(200), rel=1e-12)


def test_nothing_to_estimate_gives_nulls_and_never_nan() -> None:
    none = people(1, 40).iloc[:0]
    missing = people(1, 40).assign(died=None)
    for frames in ([none, none], [missing, none]):
        result = federate("survival", frames, CODEBOOK, **DEATHS, group=["arm", "sex"], restricted_to=5)
        assert result.tables["curve"] == []
        assert [row["median"] for row in result.tables["medians"]] == [None] * 8
        assert [row["chi_square"] for row in result.tables["tests"]] == [None] * 3
        json.dumps(result.to_dict(), allow_nan=False)
    ends = pd.DataFrame({"days": [3.0, 3.0, 5.0], "died": [True, True, True], "arm": "a"})
    result = federate("survival", [ends, none], CODEBOOK, **DEATHS, group=["arm"], restricted_to=60)
    assert result.tables["curve"][-1]["survival"] == 0
    assert result.tables["curve"][-1]["std_error"] is None
    assert (result.tables["tests"][0]["df"], result.tables["tests"][0]["chi_square"]) == (0, None)
    json.dumps(result.to_dict(), allow_nan=False)
    censored = federate("survival", [ends.assign(died=False)], CODEBOOK, **DEATHS)
    assert [(row["survival"], row["lower"], row["upper"]) for row in censored.tables["curve"]] == [(1, 1, 1)] * 2
    assert censored.tables["medians"][0]["median"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"time": "nothing"}, "want one of days"),
        ({"time": "died"}, "got type boolean; want number or integer"),
        ({"time": "unbounded"}, "got no low in the codebook"),
        ({"time": "signed"}, "want a low of 0 or more"),
        ({"event": "days"}, "want boolean, or 0 and 1"),
        ({"event": "arm"}, "want boolean, or 0 and 1"),
        ({"group": ["days"]}, "want category or boolean"),
        ({"group": ["arm"], "strata": ["arm"]}, "want each column once"),
        ({"strata": ["arm"]}, "want group columns"),
        ({"interval": 0}, "greater than 0"),
        ({"interval": 1e-9}, "want a wider one"),
        ({"time": "years", "interval": 6e-6, "group": ["arm", "sex"]}, "choose a wider interval"),
        ({"grid": [5, 5]}, "want increasing times"),
        ({"grid": [5], "interval": 1}, "got both"),
        ({"grid": [k / 10 for k in range(501)]}, "want 500 at most"),
        ({"restricted_to": 61}, "60 at most"),
        ({"entry": "sex"}, "want number"),
    ],
)
def test_a_users_mistake_is_named_before_anything_is_asked(options: dict[str, Any], said: str) -> None:
    query = Terms(method="survival", options=DEATHS | options, codebook=CODEBOOK, holders=("a",), seed=1)
    with pytest.raises(UsageError, match=said):
        read_question(query)


def private(frames: list[pd.DataFrame], draws: int, sigma: float, **options: Any) -> list[Result]:
    """Private runs over the same data, each with fresh noise of standard deviation `sigma` in every count."""
    query = Terms(
        method="survival",
        options=options,
        codebook=CODEBOOK,
        holders=tuple(f"h{i}" for i in range(len(frames))),
        seed=1,
        privacy=Privacy(epsilon=1),
    )
    module, question = read_question(query)
    ask = Ask("exits")
    parts = module.parts(question, ask)
    assert {(part.single, part.bound) for part in parts.values()} == {(True, 1)}
    tables = {n: table_of(f, CODEBOOK) for n, f in zip(query.holders, frames, strict=True)}
    exact = summed({n: checked(module.contribute(t, question, ask), parts, n) for n, t in tables.items()}, parts)[
        "exits"
    ]
    rng = np.random.default_rng(11)
    results = []
    for _ in range(draws):
        run = module.coordinate(question)
        assert next(run) == ask
        noisy = exact + rng.normal(0, sigma, exact.shape).round().astype(np.int64)
        with pytest.raises(StopIteration) as end:
            run.send(Total({"exits": noisy}, {"exits": np.full(exact.shape, sigma)}))
        results.append(end.value.value)
    return results


def test_private_intervals_cover_the_truth_and_count_the_noise() -> None:
    rng = np.random.default_rng(2)
    covered, wider = [], []
    for _ in range(15):
        lives = rng.exponential(20, 1500)
        ends = np.minimum(lives, rng.uniform(10, 60, 1500))
        frame = pd.DataFrame({"days": np.ceil(ends).clip(1, 60), "died": lives <= ends})
        plain = federate("survival", [frame], CODEBOOK, **DEATHS, interval=5).to_pandas("curve").set_index("time")
        for result in private(split(frame, 2), 12, 15.0, **DEATHS, interval=5):
            curve = result.to_pandas("curve").set_index("time")
            truth = np.exp(-20.0 / 20)
            row = curve.loc[20.0]
            covered.append(row["lower"] <= truth <= row["upper"])
            wider.append(row["std_error"] > 1.5 * plain.loc[20.0]["std_error"])
            assert (np.diff(curve["survival"]) <= 0).all()
            assert curve["survival"].between(0, 1).all()
            assert (curve[["at_risk", "events", "censored"]] >= 0).all(axis=None)
    assert 0.90 <= np.mean(covered) <= 0.995
    assert np.mean(wider) > 0.9


def test_a_private_curve_ends_where_noise_hides_who_is_at_risk() -> None:
    frame = pd.DataFrame({"days": np.repeat([5.0, 10.0, 60.0], [300, 300, 5]), "died": True})
    result = private([frame], 1, 4.0, **DEATHS, interval=5)[0]
    assert result.to_pandas("curve")["time"].max() < 15
    assert "tests" not in result.tables
    json.dumps(result.to_dict(), allow_nan=False)
    empty = private([frame.iloc[:0]], 1, 4.0, **DEATHS, interval=5)[0]
    assert empty.tables["curve"] == []
    with pytest.raises(UsageError, match="no differentially private form"):
        private([frame], 1, 4.0, **DEATHS, entry="began")


def test_whole_times_are_not_rounded_by_the_headroom_of_drafted_bounds_and_private_grids_stay_coarse() -> None:
    """veteran has times up to 999, whose bounds a draft makes wider: they were rounded to multiples of 6."""
    for high, width, private_width in ((1200, 1, 6), (4000, 1, 20), (4001, 21, 21)):
        codebook = codebook_of({"days": ("integer", 0, high), "died": "boolean"})
        options: dict[str, Any] = {"time": "days", "event": "died"}
        for privacy, wanted in ((None, width), (Privacy(epsilon=1), private_width)):
            terms = Terms(
                method="survival", options=options, codebook=codebook, holders=("a",), seed=1, privacy=privacy
            )
            method, question = read_question(terms)
            intervals = method.parts(question, Ask("exits"))["exits"].shape[0]
            assert intervals == -(-high // wanted) + 1
