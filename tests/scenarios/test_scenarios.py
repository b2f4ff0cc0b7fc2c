"""What every scenario is put under, found by its place: description, world, exactness, success, refusals, spoiled data.

The quick profile with seed 1 throughout. A scenario that is added comes under these tests without being named here.
"""

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.client.data.tables import connect, mismatches
from statfed.core.applicability import obstacles
from statfed.core.discovery import LINKAGES, modules
from statfed.core.errors import StatfedError, UsageError
from statfed.core.linkage import Linking, key_columns
from statfed.core.method import columns_read, read_question
from statfed.core.progress import silent
from statfed.core.protection import PACKAGE as PROTECTIONS_PACKAGE
from statfed.core.records import mismatches as record_mismatches
from statfed.core.scenario import EXACT, PACKAGE, Figures, Level, Reference, World, kind_of, matching_of
from statfed.core.study import make_study
from statfed.lab.compare.bench import Bench, obstacle, tried
from statfed.lab.compare.questions import DELTA, Questions
from statfed.lab.compare.statistics import bench_of, run_alone, write_sources
from statfed.lab.compare.training import study_of, terms_of
from statfed.lab.compare.trial import Cell, Technique
from statfed.lab.laws.spoil import KINDS, Kind, spoil, spoilable, spoiled_holder
from tests.covering import each_value, rest_whole

MODULES = {name: importlib.import_module(path) for name, path in sorted(modules(PACKAGE).items())}
TABLES = [name for name, module in MODULES.items() if kind_of(module) == "statistics"]
LINKED = [name for name in TABLES if matching_of(MODULES[name])]
STATISTICS = [name for name in TABLES if name not in LINKED]
TRAINING = [name for name, module in MODULES.items() if kind_of(module) == "training"]
ENTRIES = [name for name, module in MODULES.items() if kind_of(module) == "entry"]
PROTECTIONS = sorted(modules(PROTECTIONS_PACKAGE))
DOCS = Path(__file__).parents[2] / "docs" / "scenarios"
SEED = 1

APPROXIMATE: Mapping[str, tuple[str, ...]] = {
    "health-vertical": ("odds/",),  # sums on shares are in fixed point
    "network-from-aggregates": ("",),  # a network is inferred from its margins: none of it is a pooled computation
    "synthetic-census": ("",),  # figures of synthetic records, which no exact computation gives
    "synthetic-households": ("",),
    "synthetic-register": ("",),
    "synthetic-twin": ("",),
    "synthetic-wages": ("",),
    "trade-linkage": ("",),  # estimates of what is true, which no exact computation gives
    "coverage": ("",),
    "vertical-regression": ("ols/", "glm/"),  # likewise
    "wages": ("hourly/",),  # quantiles are bracketed to 0.02 EUR
}
"""Figures, by how their names begin, that the exact level gives to the success tolerance only, and why."""


@dataclass(frozen=True)
class Drawn:
    """A quick world, written once. figures: of `plain`, where units are matched of the first linkage that is listed,
    without noise or rules; read: columns that were looked at."""

    module: Any
    world: World
    reference: Reference
    sources: Mapping[str, str]
    figures: Figures
    read: tuple[str, ...]

    @property
    def bench(self) -> Bench:
        return bench_of(self.module, self.world, self.sources, self.reference)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Drawn]:
    """Draws a scenario's world, at most once."""
    made: dict[str, Drawn] = {}

    def draw(name: str) -> Drawn:
        if name not in made:
            module, folder = MODULES[name], tmp_path_factory.mktemp(name)
            world = module.world("quick", SEED)
            sources = write_sources(world, folder / "data")
            first = Technique(listed(name)[0] if name in LINKED else "plain", EXACT)
            ask = bench_of(module, world, sources).ask(first, SEED, folder / "homes")
            figures = module.compute(ask, world.public)
            read = dict.fromkeys(
                name for answer in ask.answers for name in columns_read(read_question(answer.terms)[1])
            )
            made[name] = Drawn(module, world, module.pooled(world), sources, figures, tuple(read))
        return made[name]

    return draw


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No registry and an empty cache: a scenario with real data falls back on generated ones."""
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")


def first_level(one: Drawn, protection: str) -> Level:
    """The first release level at which a protection applies."""
    for level in one.module.LEVELS:
        if not obstacle(one.bench, Technique(protection, level)):
            return level  # type: ignore[no-any-return]
    raise AssertionError(f"{protection}: got no level at which it applies; want one, or not in ABOUT.protections")


def listed(name: str) -> tuple[str, ...]:
    """Protections that a scenario says apply. One without a description fails its own tests and not the collection."""
    about = getattr(MODULES[name], "ABOUT", None)
    return about.protections if about else ()


def _shown(parameter: Any) -> str:
    return str(getattr(parameter, "id", parameter))


def noisy(name: str) -> list[tuple[str, Level]]:
    return [(name, level) for level in getattr(MODULES[name], "LEVELS", ()) if level.privacy]


def test_scenarios_of_each_kind_are_found() -> None:
    assert "network-from-aggregates" in STATISTICS
    assert "time-use" in TRAINING
    assert {"set-intersection", "vertical-regression", "health-vertical"} <= set(LINKED)


# Descriptions


@pytest.mark.parametrize("name", MODULES)
def test_a_description_is_complete(name: str) -> None:
    about = MODULES[name].ABOUT
    empty = [one.name for one in fields(about) if one.name != "protections" and not getattr(about, one.name)]
    assert not empty, f"ABOUT: got nothing for {', '.join(empty)}"
    assert re.match(r"[1-8]\.\d ", about.gsbpm), about.gsbpm
    assert set(about.protections) <= set(modules(LINKAGES) if name in LINKED else PROTECTIONS)
    assert len(set(about.protections)) == len(about.protections)
    assert {"input parties", "result parties"} <= set(about.roles)
    assert about.case.partitioning == about.partitioning
    assert about.case.title
    assert MODULES[name].__doc__


@pytest.mark.parametrize("name", MODULES)
def test_a_card_asks_about_four_topics_with_evidence(name: str) -> None:
    card = MODULES[name].ABOUT.card
    assert len(card.topics()) >= 4, card.topics()
    for one in card.questions:
        assert one.question.endswith("?"), one.question
        assert one.evidence, one.question
        assert "compliant" not in f"{one.question} {one.evidence} {one.note}".lower()


@pytest.mark.parametrize("name", MODULES)
def test_a_scenario_has_a_page(name: str) -> None:
    page, linkage = DOCS / f"{name}.md", DOCS / "linkage.md"
    assert page.exists() or (linkage.exists() and f"`{name}`" in linkage.read_text()), page


@pytest.mark.parametrize("name", [*TABLES, *TRAINING])
def test_levels_are_told_apart_and_exact_comes_first(name: str) -> None:
    levels = MODULES[name].LEVELS
    ids = [level.id for level in levels]
    assert 3 <= len(set(ids)) == len(ids), ids
    assert all(level.title for level in levels)
    assert EXACT not in levels[1:]
    success = MODULES[name].SUCCESS
    assert success.title
    assert success.tolerance >= 0


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_is_a_description_alone(name: str) -> None:
    module = MODULES[name]
    assert module.ABOUT.protections == ()
    assert module.ABOUT.partitioning in ("linkage", "vertical")
    assert not any(hasattr(module, one) for one in ("STUDY", "compute", "LEVELS", "SUCCESS", "world", "population"))


# Worlds of statistics scenarios


@pytest.mark.parametrize("name", TABLES)
def test_a_world_follows_from_profile_and_seed(name: str, drawn: Callable[[str], Drawn]) -> None:
    world, module = drawn(name).world, MODULES[name]
    again, other = module.world("quick", SEED), module.world("quick", SEED + 1)
    assert world.holders.keys() == again.holders.keys() == other.holders.keys()
    for holder, frame in world.holders.items():
        pd.testing.assert_frame_equal(frame, again.holders[holder])
    assert any(not frame.equals(other.holders[holder]) for holder, frame in world.holders.items())
    assert again.codebook == world.codebook
    assert again.truth == world.truth
    assert dict(drawn(name).reference) == pytest.approx(dict(module.pooled(again)), rel=1e-12)  # order of a sum


@pytest.mark.parametrize("name", TABLES)
def test_a_world_has_holders_that_differ_and_public_facts(name: str, drawn: Callable[[str], Drawn]) -> None:
    world = drawn(name).world
    assert len(world.holders) >= (2 if name in LINKED else 3)
    assert tuple(world.public["holders"]) == tuple(world.holders)
    sizes = [len(frame) for frame in world.holders.values()]
    assert min(sizes) > 0
    assert max(sizes) > min(sizes), "holders of one size: no skew"
    assert world.origin
    private = [key for key, value in world.public.items() if isinstance(value, pd.DataFrame)]
    assert not any(world.public[key] is frame for key in private for frame in world.holders.values())


@pytest.mark.parametrize("name", TABLES)
def test_the_full_world_is_larger(name: str, drawn: Callable[[str], Drawn]) -> None:
    quick, full = drawn(name).world, MODULES[name].world("full", SEED)
    assert sum(map(len, full.holders.values())) > 2 * sum(map(len, quick.holders.values()))


@pytest.mark.parametrize("name", TABLES)
def test_tables_fit_the_codebook(name: str, drawn: Callable[[str], Drawn], tmp_path: Path) -> None:
    one = drawn(name)
    codebooks = one.bench.codebooks
    for holder, source in one.sources.items():
        with connect(source, tmp_path) as opened:
            assert mismatches(opened, codebooks.get(holder, one.world.codebook)) == []


@pytest.mark.parametrize("name", TABLES)
def test_truth_is_of_figures_that_come_out(name: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    assert set(one.world.truth) <= set(one.figures)
    assert np.isfinite(list(one.world.truth.values())).all()


# What comes out


@pytest.mark.parametrize("name", TABLES)
def test_exact_figures_are_the_pooled_ones(name: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    assert one.figures.keys() == one.reference.keys()
    missing = [figure for figure, got in one.figures.items() if got.value is None]
    assert not missing, missing
    exact = [figure for figure in one.figures if not figure.startswith(APPROXIMATE.get(name, ()))]
    got = np.array([one.figures[figure].value for figure in exact], float)
    want = np.array([one.reference[figure] for figure in exact], float)
    far = [exact[i] for i in np.flatnonzero(np.abs(got - want) > 1e-6 * np.maximum(np.abs(want), 1e-9))]
    assert not far, far[:10]
    assert one.module.SUCCESS.measure(one.figures, one.reference) <= one.module.SUCCESS.tolerance


@pytest.mark.parametrize("name", STATISTICS)
def test_a_holder_alone_gets_figures_of_the_same_names(name: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    holder = min(one.world.holders, key=lambda name: len(one.world.holders[name]))
    alone = run_alone(one.module, one.world, holder, one.sources[holder], SEED)
    assert alone.keys() == one.figures.keys()
    error = one.module.SUCCESS.measure(alone, one.reference)
    assert error > one.module.SUCCESS.measure(one.figures, one.reference), "the smallest holder needs no others"


def turn(name: str, protection: str) -> bool:
    """Scenarios take turns with their protections."""
    return listed(name)[STATISTICS.index(name) % len(listed(name))] == protection


@pytest.mark.parametrize(
    ("name", "protection"), rest_whole([(name, one) for name in STATISTICS for one in listed(name)], turn)
)
def test_success_is_reached_at_the_first_level(name: str, protection: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    technique = Technique(protection, first_level(one, protection))
    trial = tried(one.bench, Cell(name, "quick", technique, SEED))
    assert trial.status == "done", trial.reason
    assert trial.reached, f"{technique.id}: got {trial.error}; want at most {trial.tolerance}"
    assert {role.role for role in trial.roles} >= {"holder", "coordinator"}
    assert trial.learns


@pytest.mark.parametrize("name", STATISTICS)
def test_a_protection_that_is_not_listed_is_refused_with_a_reason(name: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    for protection in sorted(set(PROTECTIONS) - set(listed(name))):
        for level in one.module.LEVELS:
            assert obstacle(one.bench, Technique(protection, level)), f"{protection}, {level.id}"


@pytest.mark.parametrize(("name", "level"), [pair for name in STATISTICS for pair in noisy(name)], ids=_shown)
def test_a_level_costs_no_more_than_it_says(name: str, level: Level, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    protection = next(p for p in ("plain", "secure-aggregation") if not obstacle(one.bench, Technique(p, level)))
    cell = Cell(name, "quick", Technique(protection, level), SEED)
    trial = tried(one.bench, cell)
    assert level.privacy is not None
    assert trial.epsilon is not None
    assert trial.delta is not None
    assert 0 < trial.epsilon <= level.privacy["epsilon"] * (1 + 1e-9)
    assert trial.delta <= level.privacy.get("delta", DELTA) * (1 + 1e-9)
    assert trial.disclosures == 0 or level.privacy["noise"] == "central"


@pytest.mark.parametrize(("name", "kind"), each_value(STATISTICS, KINDS))
def test_a_spoiled_table_is_refused_by_column_and_holder(
    name: str, kind: Kind, drawn: Callable[[str], Drawn], tmp_path: Path
) -> None:
    one = drawn(name)
    if not spoilable(one.world.codebook, kind, one.read):
        with pytest.raises(UsageError, match="got no column of"):
            spoil(one.world, kind, SEED, one.read)
        return
    spoiled, column = spoil(one.world, kind, SEED, one.read)
    ask = Questions(
        write_sources(spoiled, tmp_path / "data"), spoiled.codebook, Technique("plain", EXACT), SEED, tmp_path
    )
    with pytest.raises(StatfedError) as refused:
        one.module.compute(ask, spoiled.public)
    holder = spoiled_holder(one.world, spoiled)
    assert re.search(rf"^{re.escape(holder)}: data do not fit the codebook", str(refused.value), re.MULTILINE)
    assert re.search(rf"^\s*{re.escape(column)}: ", str(refused.value), re.MULTILINE)
    assert not [other for other in spoiled.holders if other != holder and f"{other}: " in str(refused.value)]


# Scenarios whose units are matched


@pytest.mark.parametrize("name", LINKED)
def test_holders_of_a_linkage_share_the_key_alone(name: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    by = key_columns(Linking(key=one.module.MATCHED.key), one.world.codebook)
    frames = one.world.holders.values()
    for frame in frames:
        assert set(by) <= set(frame)
        others = set().union(*(set(other) for other in frames if other is not frame))
        assert set(frame) & others == set(by)
    assert set().union(*map(set, frames)) == set(one.world.codebook.columns)


@pytest.mark.parametrize("name", LINKED)
def test_a_linkage_gives_exact_figures_as_far_as_it_goes_and_others_say_why_not(
    name: str, drawn: Callable[[str], Drawn]
) -> None:
    one = drawn(name)
    tolerance = one.module.SUCCESS.tolerance
    for linkage in sorted(modules(LINKAGES)):
        technique = Technique(linkage, one.module.LEVELS[0])
        if linkage not in listed(name):
            assert obstacle(one.bench, technique), linkage
        elif linkage != listed(name)[0]:  # whose figures are looked at above
            trial = tried(one.bench, Cell(name, "quick", technique, SEED))
            assert trial.status == "done", trial.reason
            shown = {n: f.value for n, f in trial.figures.items() if f.value is not None}
            assert shown
            for figure, value in shown.items():
                rel = max(tolerance, 1e-6) if figure.startswith(APPROXIMATE.get(name, ())) else 1e-6
                assert value == pytest.approx(one.reference[figure], rel=rel), figure
            assert trial.learns


@pytest.mark.parametrize("name", LINKED)
def test_some_level_beyond_exact_is_carried_out_by_a_linkage(name: str, drawn: Callable[[str], Drawn]) -> None:
    one = drawn(name)
    for level in one.module.LEVELS:
        assert not all(obstacle(one.bench, Technique(linkage, level)) for linkage in listed(name)), level.id


# Training scenarios


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.parametrize("profile", ["quick", "full"])
def test_a_training_study_is_valid(name: str, profile: Any) -> None:
    module = MODULES[name]
    study = make_study(dict(module.study(profile, SEED)))
    assert study.scenario == name
    assert study.seed == SEED
    assert make_study(dict(module.STUDY)).scenario == name


@pytest.mark.parametrize("name", TRAINING)
def test_training_levels_are_valid_and_protections_apply_as_described(name: str) -> None:
    module = MODULES[name]
    applies: dict[str, list[str]] = {}
    for protection in PROTECTIONS:
        for level in module.LEVELS:
            study = study_of(module, "quick", SEED, Technique(protection, level))
            if not obstacles(terms_of(module, study)):
                applies.setdefault(protection, []).append(level.id)
    assert sorted(applies) == sorted(module.ABOUT.protections)
    assert all(any(level.id in levels for levels in applies.values()) for level in module.LEVELS)


@pytest.mark.parametrize("name", TRAINING)
@pytest.mark.usefixtures("offline")
def test_a_population_follows_from_the_seed_and_fits_the_codebook(name: str) -> None:
    module = MODULES[name]
    study, other = (make_study(dict(module.study("quick", seed))) for seed in (SEED, SEED + 1))
    first, second = module.population(study, silent), module.population(study, silent)
    assert list(first.holders) == list(second.holders) == list(study.holders)
    everyone = {**first.holders, "test": first.test}
    for holder, records in {**second.holders, "test": second.test}.items():
        assert np.array_equal(records.windows, everyone[holder].windows)
        assert np.array_equal(records.labels, everyone[holder].labels)
        assert record_mismatches(records, module.codebook(study)) == []
    different = module.population(other, silent)
    assert any(
        not np.array_equal(records.windows, different.holders[holder].windows)
        for holder, records in first.holders.items()
    )
    assert first.origin
