"""Survival times as the days between two dates: lifelines on the differences, a date out of order refused."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter

from statfed.core.codebook import day_of
from statfed.core.errors import UsageError
from statfed.core.method import Ask, read_question
from statfed.core.terms import Privacy, Terms
from tests.federate import codebook_of, federate, split, table_of

DATES = {"type": "date", "low": "2019-01-01", "high": "2021-12-31"}
CODEBOOK = codebook_of(
    {
        "began": DATES,
        "entered": DATES,
        "ended": DATES | {"high": "2022-06-30"},
        "open": {"type": "date"},
        "early": {"type": "date", "low": "2001-01-01", "high": "2002-01-01"},
        "days": ("integer", 0, 60),
        "died": "boolean",
        "arm": ["a", "b"],
        "age": ("integer", 18, 80),
    }
)
DEATHS: dict[str, Any] = {"time": "ended", "start": "began", "event": "died", "interval": 1}


def people(n: int = 300) -> pd.DataFrame:
    """Some are seen on one day alone, some have no start."""
    rng = np.random.default_rng(3)
    began = day_of("2019-01-15") + rng.integers(0, 700, n)
    days, age, late = rng.integers(0, 365, n), rng.integers(18, 80, n), rng.integers(-3, 60, n)
    frame = pd.DataFrame({"began": began, "ended": began + days, "entered": began + late}, dtype=object)
    frame.loc[rng.random(n) <= 0.05, "began"] = None
    return frame.assign(
        days=days, died=rng.random(n) < 0.7 - age / 200, arm=rng.choice(["a", "b"], n), age=age, late=late
    )


def test_curve_between_two_dates_is_that_of_lifelines_on_their_differences() -> None:
    frame = people()
    result = federate("survival", split(frame, 3), CODEBOOK, **DEATHS, group=["arm"])
    whole = frame[frame["began"].notna()]
    assert result.facts["observations"] == len(whole)
    assert result.notes[0].startswith("Times are days from began to ended, rounded up to whole multiples of 1")
    curve = result.to_pandas("curve")
    for arm, some in whole.groupby("arm"):
        fitted = KaplanMeierFitter().fit(some["days"], some["died"])
        mine = curve[curve["arm"] == arm]
        reference = fitted.survival_function_["KM_estimate"].loc[mine["time"]]
        assert mine["survival"].to_numpy() == pytest.approx(reference.to_numpy(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("entry", [False, True])
def test_hazards_between_two_dates_are_those_of_numbers_and_of_lifelines(entry: bool) -> None:
    frame = people()
    whole = frame[frame["began"].notna() & ((frame["days"] > frame["late"]) if entry else True)]
    dated = {**DEATHS, "entry": "entered"} if entry else DEATHS
    result = federate("cox", split(frame, 3), CODEBOOK, **dated, covariates="age + C(arm)")
    shown = whole[["days", "died", "age"]].assign(b=(whole["arm"] == "b") * 1.0)
    if entry:  # lifelines counts t = entry as at risk, this analysis and R do not
        shown = shown.assign(late=whole["late"] + 0.5)
    fitted = CoxPHFitter().fit(shown, "days", "died", entry_col="late" if entry else None)
    got = pd.DataFrame(result.tables["coefficients"]).set_index("name")
    assert got["estimate"].to_numpy() == pytest.approx(fitted.params_.to_numpy(), rel=1e-6)
    assert got["std_error"].to_numpy() == pytest.approx(fitted.standard_errors_.to_numpy(), rel=1e-6)


def test_an_end_before_its_start_is_refused_and_says_no_date() -> None:
    frame = people(40)
    frame.loc[7, "began"], frame.loc[7, "ended"] = day_of("2019-03-04"), day_of("2019-01-02")
    more: dict[str, Any]
    for method, more in (("survival", {}), ("cox", {"covariates": "age"})):
        with pytest.raises(UsageError, match="got records whose ended is before began; want them right") as refused:
            federate(method, split(frame, 3), CODEBOOK, **DEATHS, **more)
        assert "2019" not in str(refused.value)


def test_with_noise_an_end_before_its_start_is_left_out_as_a_refusal_would_tell_of_it() -> None:
    frame = people(400)
    frame.loc[:9, "began"], frame.loc[:9, "ended"] = day_of("2020-03-04"), day_of("2020-03-03")
    terms = Terms(
        method="survival",
        options={**DEATHS, "interval": 90},
        codebook=CODEBOOK,
        holders=("a", "b"),
        seed=1,
        privacy=Privacy(epsilon=1),
    )
    module, question = read_question(terms)
    exits = module.contribute(table_of(frame, CODEBOOK), question, Ask("exits"))["exits"]
    assert exits.sum() == frame["began"][10:].notna().sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "ended"}, "time: ended: got type date; want a number, or a start"),
        ({"time": "days", "start": "began"}, "time: days: got type integer; want date"),
        ({"time": "ended", "start": "days"}, "start: days: got type integer; want date"),
        ({"time": "ended", "start": "began", "entry": "days"}, "entry: days: got type integer; want date"),
        ({"time": "ended", "start": "open"}, "open, ended: got no low and high in the codebook; want both"),
        ({"time": "early", "start": "began"}, "time: early: got no day after began in the codebook"),
        ({"time": "ended", "start": "begun"}, "start: got 'begun'; want"),
    ],
)
def test_columns_that_give_no_days_are_refused_before_data(options: dict[str, Any], message: str) -> None:
    terms = Terms(
        method="survival", options={"event": "died", **options}, codebook=CODEBOOK, holders=("a", "b"), seed=1
    )
    with pytest.raises(UsageError, match=message):
        read_question(terms)


def test_default_grid_of_two_dates_is_whole_days_where_they_are_few() -> None:
    from statfed.strategies.analyses._lifetimes import Lifetimes, make_grid

    options = Lifetimes(time="early", start="early", event="died")
    grid = make_grid(CODEBOOK, options)
    assert (grid.ends[0], grid.ends[-1], grid.width) == (0.0, 365.0, 1.0)
