"""Scenarios whose units are matched: as described, with references of pandas, statsmodels and lifelines."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from lifelines import KaplanMeierFitter

from statfed.core.keyrules import luhn_holds
from statfed.core.scenario import Figure
from statfed.scenarios import health_vertical, set_intersection, vertical_regression
from statfed.scenarios._data import borrowers, oncology, taxed
from statfed.scenarios._data.numbers import issued, numbered

SCENARIOS: tuple[Any, ...] = (set_intersection, vertical_regression, health_vertical)


def joined(module: Any, seed: int = 1) -> pd.DataFrame:
    frames: list[pd.DataFrame] = list(module.world("quick", seed).holders.values())
    found = frames[0]
    for other in frames[1:]:
        found = found.merge(other, on="id")
    return found


@pytest.mark.parametrize("module", SCENARIOS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_units_overlap_in_part_are_of_one_record_each_and_have_numbers_that_were_issued(module: Any) -> None:
    world, both = module.world("quick", 1), joined(module)
    known = set(module.MATCHED.guesses(world.public))
    for frame in world.holders.values():
        assert frame["id"].is_unique
        assert set(frame["id"]) <= known
        assert 0 < len(both) < len(frame)
        assert not frame["id"].iloc[: len(both)].isin(both["id"]).all(), "the matched come first"


def test_registers_of_set_intersection_have_the_pilots_sizes() -> None:
    world = set_intersection.world("quick", 1)
    assert [len(frame) for frame in world.holders.values()] == [1_000, 3_500]
    assert len(joined(set_intersection)) == 820


def test_numbers_have_check_digits_and_are_issued_in_order() -> None:
    assert all(map(luhn_holds, issued(2_000)))
    assert list(issued(3)) == [numbered(0), numbered(1), numbered(2)] == ["000000000", "000000018", "000000026"]


def test_figures_of_set_intersection_are_those_of_a_merge() -> None:
    both, found = joined(set_intersection), set_intersection.pooled(set_intersection.world("quick", 1))
    counts: Any = both.groupby(["region", "sector"]).size()
    assert found["size"] == len(both)
    assert found["loans"] == both["loans"].sum()
    assert sum(value for name, value in found.items() if name.startswith("enterprises/")) == len(both)
    for (region, sector), count in counts.items():
        assert found[f"enterprises/{region}/{sector}"] == count
    for region in borrowers.REGIONS:
        assert found[f"loans/{region}"] == both["loans"][both["region"] == region].sum()


def test_a_figure_that_is_not_released_counts_as_missed() -> None:
    pooled = {"a": 100.0, "b": 0.0, "c": 50.0, "d": 10.0}
    figures = {"a": Figure(100.9), "b": Figure(0.0), "c": Figure(None), "d": Figure(10.2)}
    assert set_intersection.SUCCESS.measure(figures, pooled) == 0.5


def test_models_of_vertical_regression_are_those_of_statsmodels() -> None:
    both, found = joined(vertical_regression), vertical_regression.pooled(vertical_regression.world("quick", 1))
    both["employed"] = both["employed"].astype(int)
    fits = {
        "ols": smf.ols(f"income ~ {vertical_regression.TERMS}", both).fit(),
        "glm": smf.logit(f"employed ~ {vertical_regression.TERMS}", both).fit(disp=0, tol=1e-12, method="newton"),
    }
    for model, fit in fits.items():
        for name in taxed.INCOME:
            assert found[f"{model}/{name}"] == pytest.approx(fit.params[name], rel=1e-7)
            assert found[f"{model}/{name}/error"] == pytest.approx(fit.bse[name], rel=1e-7)
    assert len(found) == 2 * sum(len(fit.params) for fit in fits.values())


def test_the_logistic_model_finds_the_coefficients_that_persons_were_drawn_with() -> None:
    found = vertical_regression.pooled(vertical_regression.world("full", 1))
    for name, beta in taxed.EMPLOYED.items():
        assert abs(found[f"glm/{name}"] - beta) < 4 * found[f"glm/{name}/error"], name


def test_curves_and_model_of_health_vertical_are_those_of_lifelines_and_statsmodels() -> None:
    both, found = joined(health_vertical), health_vertical.pooled(health_vertical.world("quick", 1))
    ends = np.ceil(both["months"] / health_vertical.STEP) * health_vertical.STEP
    for column, groups in health_vertical.GROUPS.items():
        for group, time in itertools.product(groups, health_vertical.TIMES):
            here = both[column] == group
            fit = KaplanMeierFitter().fit(ends[here], both["died"][here])
            assert found[f"survival/{group}/{time}"] == pytest.approx(float(fit.predict(time)), rel=1e-12)
    for column, groups in {"stage": oncology.STAGES, **health_vertical.GROUPS}.items():
        both[column] = pd.Categorical(both[column], list(groups))
    both = both.assign(died_early=both["died_early"].astype(int), emergency=both["emergency"].astype(int))
    fit = smf.logit(health_vertical.FORMULA, both).fit(disp=0, tol=1e-12, method="newton")
    for name in health_vertical.TERMS:
        assert found[f"odds/{name}"] == pytest.approx(fit.params[name], rel=1e-7)
        assert found[f"odds/{name}/error"] == pytest.approx(fit.bse[name], rel=1e-7)


def test_survival_after_a_year_has_to_be_released_and_later_points_need_not() -> None:
    pooled = health_vertical.pooled(health_vertical.world("quick", 1))
    exact = {name: Figure(value) for name, value in pooled.items()}
    assert health_vertical.worst(exact, pooled) == 0.0
    assert health_vertical.worst(exact | {"survival/high/36": Figure(None)}, pooled) == 0.0
    assert health_vertical.worst(exact | {"survival/high/12": Figure(None)}, pooled) == np.inf
    assert health_vertical.worst(exact | {"odds/age": Figure(None)}, pooled) == np.inf
    off = Figure(pooled["survival/high/36"] + 0.02)
    assert health_vertical.worst(exact | {"survival/high/36": off}, pooled) == pytest.approx(2.0)
