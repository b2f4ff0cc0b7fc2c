"""Scenario hotspots: planted hotspots, the smoothing against a slow reference, and what noise and suppression do."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from statfed.core.scenario import Figure, Figures, World
from statfed.lab.compare.bench import tried
from statfed.lab.compare.statistics import bench_of, run_alone, write_sources
from statfed.lab.compare.trial import Cell, Technique, Trial
from statfed.scenarios import hotspots as scenario
from statfed.scenarios._data import incidents

Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def world() -> World:
    return scenario.world("quick", 1)


@pytest.fixture(scope="module")
def sources(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_sources(world, tmp_path_factory.mktemp("holders"))


@pytest.fixture(scope="module")
def run(world: World, sources: dict[str, str]) -> Callable[[str], Trial]:
    pooled = scenario.pooled(world)

    def trial(level: str) -> Trial:
        chosen = next(each for each in scenario.LEVELS if each.id == level)
        cell = Cell("hotspots", "quick", Technique("secure-aggregation", chosen), 1)
        return tried(bench_of(scenario, world, sources, pooled), cell)

    return trial


def slowly(count: Floats, expected: Floats, near: NDArray[np.bool_], noise: float) -> Floats:
    """Smoothed risks, one area and period at a time; all counts known."""
    areas, periods = count.shape
    mean, chance = np.zeros(count.shape), np.zeros(count.shape)
    above = below = 0.0
    for t in range(periods):
        for i in range(areas):
            around = [j for j in range(areas) if near[i, j]]
            total = sum(expected[j, t] for j in around)
            mean[i, t] = sum(count[j, t] for j in around) / total
            chance[i, t] = mean[i, t] / expected[i, t] + noise / expected[i, t] ** 2
            beside = 1 - expected[i, t] / total
            deviation = (count[i, t] / expected[i, t] - mean[i, t]) ** 2
            above += expected[i, t] * beside * (deviation - beside * chance[i, t])
            below += expected[i, t] * beside**2
    between = max(0.0, above / below)
    return mean + between / (between + chance) * (count / expected - mean)


def drawn(seed: int) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
    """Counts, expected counts and risks of a quick world, and which areas touch."""
    where = incidents.ground(12, seed)
    risk = incidents.risks(where, 6, seed)
    rng = np.random.default_rng([seed, 5])
    expected = incidents.PER_RESIDENT * where.population[:, None] * np.ones(6)
    return rng.poisson(expected * risk).astype(float), expected, risk, where.adjacent


def test_smoothing_equals_the_slow_reference() -> None:
    count, expected, _, near = drawn(3)
    for noise in (0.0, 30.0):
        value, variance = scenario.smoothed(count, expected, near, noise)
        assert value == pytest.approx(slowly(count, expected, near, noise), rel=1e-9)
        assert (variance > 0).all()


def test_smoothing_beats_raw_rates_and_knows_of_noise() -> None:
    count, expected, risk, near = drawn(4)
    noisy = count + np.random.default_rng(9).normal(0, 8, count.shape)

    def error(value: Floats) -> float:
        return float(np.sqrt(np.mean((value - risk) ** 2)))

    informed, _ = scenario.smoothed(noisy, expected, near, 64.0)
    unaware, _ = scenario.smoothed(noisy, expected, near, 0.0)
    exact, _ = scenario.smoothed(count, expected, near, 0.0)
    assert error(exact) < 0.9 * error(count / expected)
    assert error(exact) < error(informed) < 0.9 * error(unaware) < error(noisy / expected)


def test_an_unknown_count_is_left_out_of_the_means_around_it() -> None:
    count, expected, _, near = drawn(5)
    count[50, 2] = np.nan
    value, _ = scenario.smoothed(count, expected, near, 0.0)
    around = near[50] & (np.arange(144) != 50)
    assert np.isfinite(value).all()
    assert value[50, 2] == pytest.approx(count[around, 2].sum() / expected[around, 2].sum())


def test_planted_hotspots_are_found_from_pooled_counts_in_most_worlds() -> None:
    lost = []
    for seed in range(1, 5):
        world = scenario.world("quick", seed)
        planted, seen = scenario.found(world.truth), scenario.found(scenario.pooled(world))
        assert 20 < len(planted) < 0.15 * len(world.truth)
        lost.append(scenario.disagreement(seen, planted))
    assert np.mean(lost) < 0.2


def test_centres_differ_and_share_the_areas_at_their_borders(world: World) -> None:
    sizes = pd.Series({name: len(table) for name, table in world.holders.items()})
    assert sizes.max() > 1.5 * sizes.min()
    at = pd.concat([table.assign(centre=name) for name, table in world.holders.items()])
    assert 0.2 < (at.groupby("area")["centre"].nunique() > 1).mean() < 0.8
    assert (at.groupby("patient")["centre"].nunique() > 1).any()  # counted as two units: the card asks about them
    rate = len(at) / (sum(world.public["population"]) * 6 * 4 / 52)
    assert 0.10 < rate < 0.14  # calls of a resident in a year


def test_one_centre_alone_misses_hotspots(world: World, sources: dict[str, str]) -> None:
    alone = run_alone(scenario, world, "centre-east", sources["centre-east"], 1)
    assert set(alone) == set(world.truth)
    assert scenario.missed(alone, scenario.pooled(world)) > 0.3
    unserved = np.flatnonzero(~np.array(world.public["serves"]["centre-east"]))
    assert all(alone[f"risk|{world.public['areas'][i]}|p01"].value is None for i in unserved)


def test_exact_equals_pooled_and_intervals_hold_most_true_risks(run: Callable[[str], Trial]) -> None:
    trial = run("exact")
    assert trial.error == 0
    values = {name: figure.value for name, figure in trial.figures.items()}
    assert values == pytest.approx(dict(trial.reference), rel=1e-9)
    assert trial.coverage is not None
    assert 0.88 < trial.coverage < 0.99


def test_a_suppressed_count_gives_no_figure(run: Callable[[str], Trial], world: World) -> None:
    trial = run("suppress")
    counts = pd.concat(world.holders.values()).groupby(["area", "period"]).size()
    small = [f"risk|{area}|{period}" for area, period in counts[counts < 10].index]
    assert len(small) > 20
    assert all(trial.figures[name].value is None for name in small)
    assert sum(figure.value is not None for figure in trial.figures.values()) > 0.7 * len(trial.figures)


def test_private_lists_come_closer_with_epsilon_and_with_shared_noise(run: Callable[[str], Trial]) -> None:
    little, shared, more = run("epsilon-1"), run("epsilon-1-shared"), run("epsilon-3")
    assert little.error is not None
    assert shared.error is not None
    assert more.error is not None
    assert little.error > max(shared.error, more.error)
    assert little.epsilon is not None
    assert 0.9 < little.epsilon <= 1


def test_the_last_level_protects_patients(run: Callable[[str], Trial]) -> None:
    trial = run(scenario.LEVELS[-1].id)
    assert trial.unit == "person"
    assert trial.epsilon is not None
    assert trial.epsilon <= 3
    assert trial.suppressed == 0


def test_disagreement_is_one_minus_f1() -> None:
    one, other = frozenset("abcd"), frozenset("bcde")
    assert scenario.disagreement(one, other) == pytest.approx(0.25)
    assert scenario.disagreement(frozenset(), frozenset()) == 0.0
    assert scenario.disagreement(one, frozenset()) == 1.0
    figures: Figures = {"a": Figure(1.6), "b": Figure(None), "c": Figure(1.4)}
    assert scenario.missed(figures, {"a": 1.7, "b": 1.8, "c": 1.2}) == pytest.approx(1 / 3)
