"""Scenario income-tables: its population, design-based intervals against pandas, and what each treatment does."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statfed.core.scenario import Figure, World
from statfed.lab.compare.bench import tried
from statfed.lab.compare.statistics import bench_of, write_sources
from statfed.lab.compare.trial import Cell, Technique, Trial
from statfed.scenarios import income_tables as scenario
from statfed.scenarios._data import incomes


@pytest.fixture(scope="module")
def world() -> World:
    return scenario.world("quick", 1)


@pytest.fixture(scope="module")
def people(world: World) -> pd.DataFrame:
    return pd.concat(world.holders.values())


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Trial]:
    sources, pooled = write_sources(world, tmp_path_factory.mktemp("holders")), scenario.pooled(world)

    def trial(level: str, protection: str = "secure-aggregation") -> Trial:
        chosen = next(each for each in scenario.LEVELS if each.id == level)
        cell = Cell("income-tables", "quick", Technique(protection, chosen), 1)
        return tried(bench_of(scenario, world, sources, pooled), cell)

    return trial


def variances(people: pd.DataFrame) -> pd.Series:
    """Design variance of total income by region and age: household totals within the survey's strata."""
    survey = people[people["stratum"].str.startswith("survey-")]
    survey = survey.assign(total=survey["weight"] * survey["income"])
    totals = survey.pivot_table(
        index=["stratum", "psu"], columns=["region", "age"], values="total", aggfunc="sum", fill_value=0.0
    )
    n = totals.groupby(level="stratum").size()
    within = totals.groupby(level="stratum").var(ddof=1)
    return within.mul(n, axis=0).sum()


def named(what: str, cells: pd.Series) -> dict[str, float]:
    """Values of cells under the names of the scenario's figures."""
    return {"|".join((what, *at)): float(value) for at, value in dict[Any, Any](cells.to_dict()).items()}


def test_holders_differ_in_size_and_income_and_nobody_is_with_two(world: World, people: pd.DataFrame) -> None:
    sizes = pd.Series({name: len(table) for name, table in world.holders.items()})
    assert sizes.max() > 20 * sizes.min()
    assert people["person"].is_unique
    means = people.groupby("region")["income"].mean()
    assert means["R1"] > 1.35 * means["R5"]
    assert world.holders["nso"]["income"].max() <= incomes.THRESHOLD


def test_weights_add_up_to_the_population_and_keep_their_public_bound(world: World, people: pd.DataFrame) -> None:
    sample = world.holders["nso"]
    assert people["weight"].sum() == pytest.approx(scenario.ADULTS["quick"], rel=0.005)
    assert 4 < sample["weight"].min() < sample["weight"].max() <= incomes.MOST_WEIGHT
    shares = people.groupby("source")["weight"].sum() / people["weight"].sum()
    assert shares["wages"] == pytest.approx(0.53, abs=0.08)
    assert shares["pensions"] == pytest.approx(0.24, abs=0.04)


def test_a_region_does_not_depend_on_the_others(world: World) -> None:
    region = incomes.REGIONS[7]
    alone = incomes.register(incomes.adults(region, scenario.ADULTS["quick"], 1), "region-8")
    pd.testing.assert_frame_equal(alone, world.holders["region-8"])


def test_exact_intervals_are_those_of_the_stratified_sample_of_households(
    run: Callable[[str], Trial], people: pd.DataFrame
) -> None:
    trial = run("exact")
    assert trial.error == pytest.approx(0, abs=1e-9)
    survey = people[people["stratum"].str.startswith("survey-")]
    df = survey["psu"].nunique() - survey["stratum"].nunique()  # each register: one PSU less one stratum
    for name, variance in named("income", variances(people)).items():
        figure, width = trial.figures[name], stats.t.ppf(0.975, df) * variance**0.5
        assert figure.low is not None
        assert figure.high is not None
        assert (figure.high - figure.low) / 2 == pytest.approx(width, rel=1e-6)


def test_design_variances_cover_the_population_over_repeated_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenario, "ADULTS", {"quick": 40_000, "full": 40_000})
    inside = []
    for seed in range(12):
        drawn = scenario.world("quick", seed)
        people = pd.concat(drawn.holders.values())
        totals = (people["weight"] * people["income"]).groupby([people["region"], people["age"]]).sum()
        half = {name: 1.96 * variance**0.5 for name, variance in named("income", variances(people)).items()}
        errors = {name: abs(total - drawn.truth[name]) for name, total in named("income", totals).items()}
        inside += [errors[name] <= half[name] for name in half]
    assert 0.88 < np.mean(inside) <= 0.99


def test_suppression_hides_every_small_cell_and_leaves_the_rest_exact(
    run: Callable[[str], Trial], people: pd.DataFrame
) -> None:
    trial = run("suppress")
    counts = people.groupby(["region", "age", "source"]).size()
    small = list(named("persons", counts[counts < 10]))
    assert len(small) > 5
    assert all(trial.figures[name].value is None for name in small)
    hidden = [name for name, figure in trial.figures.items() if figure.value is None]
    assert len(small) < len(hidden) < 0.25 * len(trial.figures)
    shown = {name: figure.value for name, figure in trial.figures.items() if figure.value is not None}
    assert all(value == pytest.approx(trial.reference[name], rel=1e-9) for name, value in shown.items())


def test_cell_keys_move_a_count_by_at_most_five_mean_weights(run: Callable[[str], Trial], people: pd.DataFrame) -> None:
    trial = run("cell-key")
    heaviest = people.groupby(["region", "age", "source"])["weight"].mean()
    moved = {
        name: abs(float(trial.figures[name].value or 0) - trial.reference[name]) / weight
        for name, weight in named("persons", heaviest).items()
    }
    assert max(moved.values()) <= 5 + 1e-9
    assert np.mean([one > 0 for one in moved.values()]) > 0.5
    assert all(figure.low is None for figure in trial.figures.values())


def test_private_error_shrinks_with_epsilon_which_is_what_the_ledgers_say(run: Callable[[str], Trial]) -> None:
    little, more = run("epsilon-1"), run("epsilon-10-shared")
    assert little.error is not None
    assert more.error is not None
    assert little.error > 5 * more.error
    for trial, most in ((little, 1), (more, 10)):
        assert trial.epsilon is not None
        assert 0.6 * most < trial.epsilon <= most


def test_a_suppressed_figure_counts_as_wholly_wrong() -> None:
    pooled = {"a": 10.0, "b": 20.0, "c": 40.0, "empty": 0.0}
    figures = {"a": Figure(10.1), "b": Figure(None), "c": Figure(None), "empty": Figure(3.0)}
    assert scenario.median_error(figures, pooled) == 1.0
    assert scenario.median_error(figures | {"b": Figure(20.4)}, pooled) == pytest.approx(0.02)
