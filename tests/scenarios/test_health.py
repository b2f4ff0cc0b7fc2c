"""`health`: patients are realistic, the models are those of lifelines and statsmodels, and rules do what they say."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from lifelines import CoxPHFitter, KaplanMeierFitter

from statfed.core.errors import UsageError
from statfed.core.scenario import World, private
from statfed.lab.compare.bench import tried
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.statistics import bench_of, run_alone, write_sources
from statfed.lab.compare.trial import Cell, Technique, Trial
from statfed.scenarios import health
from statfed.scenarios._data import wards


@pytest.fixture(scope="module")
def world() -> World:
    return health.world("quick", 1)


@pytest.fixture(scope="module")
def patients(world: World) -> pd.DataFrame:
    return pd.concat(world.holders.values(), ignore_index=True)


@pytest.fixture(scope="module")
def sources(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_sources(world, tmp_path_factory.mktemp("health"))


@pytest.fixture(scope="module")
def trials(world: World, sources: dict[str, str]) -> dict[str, Trial]:
    """The first and the strictest level, under `plain`."""
    reference = health.pooled(world)
    cells = [Cell("health", "quick", Technique("plain", level), 1) for level in (health.LEVELS[0], health.LEVELS[-1])]
    return {c.technique.level.id: tried(bench_of(health, world, sources, reference), c) for c in cells}


def coded(patients: pd.DataFrame) -> pd.DataFrame:
    """Covariates as the models have them, with follow-up and hospital."""
    return pd.DataFrame(
        {
            "new": patients["arm"] == "new",
            "age": patients["age"] / 10,
            "men": patients["sex"] == "m",
            "diagnoses": patients["diagnoses"],
            "emergency": patients["emergency"],
            "months": patients["months"],
            "died": patients["died"],
        }
    ).astype(float)


def test_patients_are_those_of_a_heart_failure_register_and_hospitals_differ(patients: pd.DataFrame) -> None:
    assert 68 < patients["age"].mean() < 76
    assert 0.15 < patients["readmitted"].mean() < 0.3
    first_year = 1 - KaplanMeierFitter().fit(patients["months"], patients["died"]).predict(12)
    assert 0.12 < first_year < 0.3
    assert 0.3 < 1 - patients["died"].mean() < 0.85  # censored
    by = patients.groupby("hospital")
    assert by.size().max() > 5 * by.size().min()
    assert by["age"].mean().max() - by["age"].mean().min() > 6
    newer = (patients["arm"] == "new").groupby(patients["hospital"]).mean()
    assert newer["university"] > 0.6
    assert newer["island"] < 0.4


def test_a_crude_comparison_flatters_the_new_treatment(patients: pd.DataFrame, trials: dict[str, Trial]) -> None:
    """It is given to younger patients: without adjustment its hazard ratio is lower than the one within hospitals."""
    crude = CoxPHFitter().fit(coded(patients)[["new", "months", "died"]], "months", "died")
    adjusted = trials["exact"].figures["hazard/new"].value
    assert adjusted is not None
    assert math.exp(crude.params_["new"]) < adjusted - 0.1


def test_hazard_ratios_and_limits_are_those_of_lifelines(patients: pd.DataFrame, trials: dict[str, Trial]) -> None:
    frame = coded(patients).assign(hospital=patients["hospital"])
    fit = CoxPHFitter().fit(frame, "months", "died", strata=["hospital"], fit_options={"precision": 1e-10})
    for name, row in fit.summary.iterrows():
        figure = trials["exact"].figures[f"hazard/{name}"]
        found = (figure.value, figure.low, figure.high)
        wanted = (row["exp(coef)"], row["exp(coef) lower 95%"], row["exp(coef) upper 95%"])
        assert found == pytest.approx(wanted, rel=1e-5)


def test_odds_ratios_and_limits_are_those_of_statsmodels(patients: pd.DataFrame, trials: dict[str, Trial]) -> None:
    x = coded(patients).drop(columns=["months", "died"])
    x = pd.concat([x, pd.get_dummies(patients["hospital"], drop_first=True, dtype=float)], axis=1)
    fit = sm.Logit(patients["readmitted"].astype(float), sm.add_constant(x)).fit(disp=0, tol=1e-12)
    limits = np.exp(fit.conf_int())
    for name in ("new", "age", "men", "diagnoses", "emergency"):
        figure = trials["exact"].figures[f"odds/{name}"]
        found = (figure.value, figure.low, figure.high)
        assert found == pytest.approx((math.exp(fit.params[name]), *limits.loc[name]), rel=1e-6)


def test_curves_and_limits_are_those_of_lifelines(patients: pd.DataFrame, trials: dict[str, Trial]) -> None:
    for arm in wards.ARMS:
        here = patients[patients["arm"] == arm]
        fit = KaplanMeierFitter().fit(here["months"], here["died"])
        for time in health.TIMES:
            figure = trials["exact"].figures[f"survival/{arm}/{time}"]
            low, high = fit.confidence_interval_.loc[:time].iloc[-1]
            assert figure.value == pytest.approx(fit.predict(time), rel=1e-9)
            assert (figure.low, figure.high) == pytest.approx((low, high), abs=0.01)  # other transformations


def test_the_generating_ratios_are_found_in_the_full_world() -> None:
    """Whole months and Efron's ties take little away: within 0.1 in the logarithm of every ratio at 34,000 patients."""
    world = health.world("full", 1)
    found = health.pooled(world)
    away = {name: abs(math.log(found[name] / value)) for name, value in world.truth.items()}
    assert max(away.values()) < 0.1, away


def test_the_smallest_hospital_alone_cannot_tell_the_effect(world: World, sources: dict[str, str]) -> None:
    alone = run_alone(health, world, "island", sources["island"], 1)
    together = health.pooled(world)
    figure = alone["hazard/new"]
    assert figure.low is not None
    assert figure.high is not None
    assert math.log(figure.high / figure.low) > 1.0  # limits a factor of e apart or more
    assert health.worst(alone, together) > 5


def test_points_with_few_at_risk_are_withheld_and_the_rest_is_as_it_was(
    patients: pd.DataFrame, trials: dict[str, Trial]
) -> None:
    strict, exact = trials["suppress-50"], trials["exact"]
    for arm in wards.ARMS:
        left = int((patients.loc[patients["arm"] == arm, "months"] >= 36).sum())
        if left < 50:
            assert strict.figures[f"survival/{arm}/36"].value is None
    shown = [name for name, figure in strict.figures.items() if figure.value is not None]
    assert any(strict.figures[f"survival/{arm}/36"].value is None for arm in wards.ARMS)
    assert all(strict.figures[name] == exact.figures[name] for name in shown)
    assert strict.reached


def test_differential_privacy_is_refused_as_the_hazard_model_has_no_private_form(
    world: World, sources: dict[str, str], tmp_path: Path
) -> None:
    ask = Questions(sources, world.codebook, Technique("plain", private(1.0)), 1, tmp_path)
    with pytest.raises(UsageError, match="cox has no differentially private form"):
        health.compute(ask, world.public)
