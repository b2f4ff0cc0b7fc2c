"""Scenario `mobility`: its population, its figures against DuckDB, and what its release levels do to small flows."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from statfed.core.scenario import EXACT, Figure, Level, World, private
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.statistics import write_sources
from statfed.lab.compare.trial import Technique
from statfed.scenarios import mobility
from statfed.scenarios._data import devices

SUPPRESS, KEYED = mobility.LEVELS[1:3]


@pytest.fixture(scope="module")
def world() -> World:
    return mobility.world("quick", 1)


@pytest.fixture(scope="module")
def pooled(world: World) -> Mapping[str, float]:
    return mobility.pooled(world)


def figures_of(
    world: World, folder: Path, level: Level = EXACT, seed: int = 1, protection: str = "plain"
) -> Mapping[str, Figure]:
    sources = write_sources(world, folder / "sources")
    ask = Questions(sources, world.codebook, Technique(protection, level), seed, folder / f"work-{seed}")
    return mobility.compute(ask, {**world.public, "holders": tuple(world.holders)})


def alone(world: World, holder: str) -> World:
    return replace(world, holders={holder: world.holders[holder]})


@pytest.fixture(scope="module")
def exact(world: World, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Figure]:
    return figures_of(world, tmp_path_factory.mktemp("exact"))


def test_shares_of_the_market_differ_between_operators_zones_and_countries(world: World) -> None:
    frame = pd.concat([each.assign(operator=name) for name, each in world.holders.items()])
    home = frame[frame["kind"] != "visitor"]
    market = home["operator"].value_counts(normalize=True)
    assert market["operator-a"] > 4 * market["operator-d"]
    by_zone = pd.crosstab(home["zone"], home["operator"], normalize="index")
    assert by_zone["operator-d"].max() > 2.5 * by_zone["operator-d"].min()
    densest, sparsest = by_zone["operator-c"].loc[["Z01", "Z12"]].to_numpy(float)
    assert sparsest > 1.5 * densest
    guests = frame[frame["kind"] == "visitor"]
    roaming = pd.crosstab(guests["country"], guests["operator"], normalize="index")
    assert (roaming.max() - roaming.min()).max() > 0.2
    assert 0.2 < (home["kind"] == "commuter").mean() < 0.45


def test_many_flows_are_small_and_few_carry_most_commuters(pooled: Mapping[str, float]) -> None:
    flows = np.sort([value for name, value in pooled.items() if name.startswith("commuters/")])
    assert np.mean(flows < 100) > 0.3
    assert 0 < np.mean(flows < 10) < 0.3
    assert flows[-len(flows) // 5 :].sum() > 0.6 * flows.sum()


def test_an_operator_has_the_same_devices_whoever_else_takes_part(world: World) -> None:
    true = devices.country(12, 120_000, np.random.default_rng([1, 5201]))
    own = devices.devices("operator-c", true, np.random.default_rng([1, 5202, 2]))
    pd.testing.assert_frame_equal(own, world.holders["operator-c"])


def test_exact_figures_are_those_of_a_database_with_all_devices(
    world: World, exact: Mapping[str, Figure], pooled: Mapping[str, float]
) -> None:
    frame = pd.concat(world.holders.values(), ignore_index=True)
    frame["region"] = frame["zone"].map(world.public["region"])
    known = pd.DataFrame(list(world.public["residents"].items()), columns=["region", "residents"])
    with duckdb.connect() as engine:
        engine.register("device", frame)
        engine.register("register", known)
        rows = engine.execute(
            """
            with factor as (
                select region, any_value(residents) / count(*) as f from device join register using (region)
                where kind <> 'visitor' group by region
            )
            select 'residents/' || zone, any_value(f) * count(*) from device join factor using (region)
            where kind <> 'visitor' group by zone
            union all
            select 'commuters/' || zone || '/' || destination, any_value(f) * count(*)
            from device join factor using (region) where kind = 'commuter' group by zone, destination
            union all
            select 'visitors/' || zone || '/' || country, count(*) from device
            where kind = 'visitor' and nights > 0 group by zone, country
            """
        ).fetchall()
    wanted = dict.fromkeys(exact, 0.0) | dict(rows)
    assert wanted.keys() == exact.keys() == pooled.keys()
    for name, figure in exact.items():
        assert figure.value == pytest.approx(wanted[name], rel=1e-12), name
        assert pooled[name] == pytest.approx(wanted[name], rel=1e-12), name


def test_residents_add_up_to_the_register(world: World, exact: Mapping[str, Figure]) -> None:
    for region, residents in world.public["residents"].items():
        zones = [zone for zone, of in world.public["region"].items() if of == region]
        assert sum(exact[f"residents/{zone}"].value or 0.0 for zone in zones) == pytest.approx(residents)


def test_intervals_hold_the_true_population_about_as_often_as_they_say() -> None:
    """They cover chance in who has a device, not that zones differ in devices per person: hence less than 95 %."""
    held = []
    for seed in range(2, 12):
        world = mobility.world("quick", seed)
        pooled = mobility.pooled(world)
        for name, true in world.truth.items():
            if name.startswith("commuters/") and pooled[name] > 0:
                half = 1.96 * np.sqrt(pooled[name])
                held.append(abs(pooled[name] - true) <= half + 1)
    assert 0.88 < np.mean(held) < 0.995


def test_no_operator_alone_comes_near_to_all_together(
    world: World, pooled: Mapping[str, float], tmp_path: Path
) -> None:
    for name in world.holders:
        figures = figures_of(alone(world, name), tmp_path / name)
        assert figures.keys() == pooled.keys()
        assert mobility.misplaced(figures, pooled) > mobility.TOLERANCE


def test_a_release_with_a_least_frequency_shows_no_small_flow(
    world: World, pooled: Mapping[str, float], exact: Mapping[str, Figure], tmp_path: Path
) -> None:
    figures = figures_of(world, tmp_path, SUPPRESS)
    frame = pd.concat(world.holders.values())
    moving = frame[frame["kind"] == "commuter"]
    counts = ("commuters/" + moving["zone"] + "/" + moving["destination"]).value_counts()
    small = set(counts.index[counts < 10])
    hidden = {name for name, figure in figures.items() if figure.value is None and name.startswith("commuters/")}
    assert small
    assert small < hidden
    assert all(
        figure.value == exact[name].value for name, figure in figures.items() if name not in hidden and figure.value
    )
    lost = sum(pooled[name] for name in hidden)
    assert lost < 0.05 * sum(value for name, value in pooled.items() if name.startswith("commuters/"))


def test_cell_keys_move_a_count_by_five_at_most_and_in_the_same_way_each_time(
    world: World, exact: Mapping[str, Figure], tmp_path: Path
) -> None:
    first, again = (figures_of(world, tmp_path / str(seed), KEYED, seed) for seed in (1, 2))
    assert {name: figure.value for name, figure in first.items()} == {name: f.value for name, f in again.items()}
    moved = [
        abs((figure.value or 0.0) - (exact[name].value or 0.0))
        for name, figure in first.items()
        if name.startswith("visitors/")
    ]
    assert 0 < max(moved) <= 5


def test_fewer_persons_are_misplaced_at_a_larger_epsilon(
    world: World, pooled: Mapping[str, float], tmp_path: Path
) -> None:
    errors = [
        mobility.misplaced(figures_of(world, tmp_path / f"{epsilon:g}", private(epsilon)), pooled)
        for epsilon in (0.3, 3.0)
    ]
    assert errors[0] > 2 * errors[1] > 0


def test_misplaced_is_the_worst_tables_total_variation_and_counts_hidden_cells_as_lost() -> None:
    pooled = {
        "residents/a": 60.0,
        "residents/b": 40.0,
        "commuters/a/b": 10.0,
        "commuters/b/a": 30.0,
        "visitors/a/X": 5.0,
    }
    figures = {name: Figure(value) for name, value in pooled.items()}
    assert mobility.misplaced(figures, pooled) == 0
    moved = figures | {"residents/a": Figure(50.0), "residents/b": Figure(50.0)}
    assert mobility.misplaced(moved, pooled) == pytest.approx(0.1)
    assert mobility.misplaced(moved | {"commuters/a/b": Figure(None)}, pooled) == pytest.approx(0.25)
