"""The comparison harness: what is planned, kept, resumed and recorded; and what trials say of techniques."""

import math
import os
from collections.abc import Callable, Mapping
from multiprocessing import resource_tracker
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from statfed.core import discovery
from statfed.core.codebook import make_codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import UsageError
from statfed.core.method import Part
from statfed.core.privacy import noise
from statfed.core.privacy.accountant import epsilon as composed
from statfed.core.scenario import (
    EXACT,
    Figure,
    Figures,
    Level,
    Profile,
    Success,
    World,
    private,
)
from statfed.core.terms import Privacy
from statfed.lab.compare import block as blocks
from statfed.lab.compare import harness, memory, wan
from statfed.lab.compare import trial as trials
from statfed.lab.compare.bench import obstacle, tried
from statfed.lab.compare.block import Block, run_block, techniques
from statfed.lab.compare.harness import Comparison, Outcome, compare, plan
from statfed.lab.compare.questions import part_of
from statfed.lab.compare.statistics import bench_of, run_alone, write_sources
from statfed.lab.compare.store import TABLES, opened, overheads
from statfed.lab.compare.trial import Cell, Role, Technique, Trial, compared
from statfed.scenarios._measures import median_relative_error

SUPPRESS = Level("suppress", "cells of few records are suppressed", disclosure=Rules())
CODEBOOK = make_codebook(
    {
        "columns": {
            "region": {"type": "category", "categories": ["a", "b", "c"]},
            "income": {"type": "number", "low": 0, "high": 1000},
        }
    }
)


def world(profile: Profile, seed: int) -> World:
    """Three offices of unequal size; region c is rare."""
    rng = np.random.default_rng(seed)

    def office(size: int) -> pd.DataFrame:
        region = rng.choice(["a", "b", "c"], size, p=[0.6, 0.39, 0.01])
        return pd.DataFrame({"region": region, "income": np.minimum(rng.lognormal(4, 0.5, size), 1000)})

    holders = {f"office-{i}": office(100 * i) for i in (1, 2, 3)}
    truth = dict.fromkeys("ab", math.exp(4 + 0.125))
    return World(holders, CODEBOOK, "synthetic", public={"holders": tuple(holders)}, truth=truth)


def compute(ask: Any, public: Mapping[str, Any]) -> Figures:
    result = ask("mean", columns=["income"], by=["region"])
    limits = result.conf_int()
    return {
        str(row["region"]): Figure(row["estimate"], low, high)
        for row, low, high in zip(result.tables[result.main], limits.lower, limits.upper, strict=True)
    }


def pooled(drawn: World) -> dict[str, float]:
    means = pd.concat(drawn.holders.values()).groupby("region")["income"].mean()
    return {str(region): float(value) for region, value in means.items()}


@pytest.fixture
def toy() -> SimpleNamespace:
    return SimpleNamespace(
        world=world,
        compute=compute,
        pooled=pooled,
        LEVELS=(EXACT, private(5.0), private(5.0, "shared")),
        SUCCESS=Success("median relative error", median_relative_error, 1e-9),
    )


@pytest.fixture
def known(toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The toy scenario as the only one installed."""

    def load(package: str, name: str, what: str) -> Any:
        return toy if (package, name) == ("statfed.scenarios", "toy") else discovery.load(package, name, what)

    def modules(package: str) -> dict[str, str]:
        return {"toy": "toy"} if package == "statfed.scenarios" else discovery.modules(package)

    for module in (harness, blocks):
        monkeypatch.setattr(module, "load", load)
        monkeypatch.setattr(module, "modules", modules)
    return toy


def tried_on(toy: SimpleNamespace, technique: Technique, folder: Path) -> Trial:
    drawn = toy.world("quick", 1)
    sources = write_sources(drawn, folder)
    return tried(bench_of(toy, drawn, sources, toy.pooled(drawn)), Cell("toy", "quick", technique, 1))


def in_this_process(
    todo: list[Block], streams: int, keep: Callable[[Trial], None], begin: Callable[[str], None]
) -> None:
    for one in todo:
        begin(one.cells[0].scenario)
        run_block(one, keep)


def test_an_exact_trial_agrees_with_pooled_data_and_says_what_each_party_moved(
    toy: SimpleNamespace, tmp_path: Path
) -> None:
    trial = tried_on(toy, Technique("secure-aggregation", EXACT), tmp_path)
    assert (trial.status, trial.reached, trial.epsilon) == ("done", True, None)
    assert trial.error is not None
    assert trial.error < 1e-12
    assert trial.disclosures > 0
    parties = {role.party: role for role in trial.roles}
    assert set(parties) == {"office-1", "office-2", "office-3", "coordinator"}
    assert parties["coordinator"].received == sum(r.sent for r in trial.roles if r.role == "holder") > 0
    assert sum(role.processor for role in trial.roles) == pytest.approx(trial.processor)
    assert {row.role for row in trial.learns} >= {"coordinator"}


def test_a_private_trial_reports_the_composed_epsilon_of_the_ledgers_and_covers_the_truth(
    toy: SimpleNamespace, tmp_path: Path
) -> None:
    trial = tried_on(toy, Technique("plain", private(5.0)), tmp_path)
    assert trial.epsilon is not None
    assert 4.5 < trial.epsilon <= 5.0
    assert trial.disclosures == 0
    assert trial.coverage in (0.0, 0.5, 1.0)
    assert trial.error is not None
    assert 0 < trial.error < 1


def test_shares_of_the_budget_compose_to_the_level_and_more_than_all_of_it_is_refused(
    toy: SimpleNamespace, tmp_path: Path
) -> None:
    def twice(share: float) -> Callable[[Any, Any], Figures]:
        def asked(ask: Any, public: Any) -> Figures:
            for _ in range(2):
                result = ask("count", by=["region"], share=share)
            return {str(row["region"]): Figure(row["count"]) for row in result.tables[result.main]}

        return asked

    toy.pooled = lambda w: {str(k): float(v) for k, v in pd.concat(w.holders.values())["region"].value_counts().items()}
    toy.compute = twice(0.5)
    half = tried_on(toy, Technique("plain", private(2.0)), tmp_path)
    assert half.epsilon is not None
    assert half.epsilon <= 2.0
    toy.compute = twice(0.6)
    with pytest.raises(UsageError, match=r"add up to 1\.2; want at most 1"):
        tried_on(toy, Technique("plain", private(2.0)), tmp_path)


@pytest.mark.parametrize(("epsilon", "shares"), [(3.0, (0.2, 0.5, 0.3)), (3.0, (0.5, 0.5)), (1.0, (0.7, 0.3))])
def test_tables_of_counts_with_shares_of_a_budget_stay_within_it(epsilon: float, shares: tuple[float, ...]) -> None:
    count = {"count": Part((8,), integer=True, bound=1, single=True)}
    kind = {"delta": 1e-6, "mechanism": "discrete-gaussian"}  # what shares are of
    parts = [Privacy.model_validate(kind | {"epsilon": part_of(epsilon, 1e-6, share)}) for share in shares]
    assert composed([noise.plan(count, one).event() for one in parts], 1e-6) <= epsilon


def test_a_technique_that_does_not_apply_is_recorded_with_the_reason(toy: SimpleNamespace, tmp_path: Path) -> None:
    trial = tried_on(toy, Technique("plain", private(1.0, "shared")), tmp_path)
    assert trial.status == "not-applicable"
    assert "got shared under plain" in trial.reason
    assert obstacle(bench_of(toy, toy.world("quick", 1)), Technique("plain", EXACT)) == ""


def test_a_holder_alone_answers_for_its_own_records(toy: SimpleNamespace, tmp_path: Path) -> None:
    drawn = toy.world("quick", 1)
    sources = write_sources(drawn, tmp_path)
    alone = run_alone(toy, drawn, "office-1", sources["office-1"], 1)
    own = drawn.holders["office-1"].groupby("region")["income"].mean()
    assert alone["a"].value == pytest.approx(own["a"])


def test_suppressed_figures_bias_and_coverage_are_counted_as_they_are() -> None:
    trial = Trial(Cell("toy", "quick", Technique("plain", EXACT), 1), "done")
    figures = {"a": Figure(110.0, 90.0, 130.0), "b": Figure(None), "c": Figure(90.0, 80.0, 95.0), "d": Figure(5.0)}
    reference = {"a": 100.0, "b": 50.0, "c": 100.0, "d": 0.0}
    truth = {"a": 100.0, "b": 50.0, "c": 100.0}
    compared(trial, figures, reference, truth, Success("x", median_relative_error, 0.1))
    assert trial.error == pytest.approx(0.1)
    assert trial.reached
    assert trial.suppressed == 0.25
    assert trial.bias == pytest.approx(0.0)  # +10 % and -10 %; a pooled zero has no relative error
    assert trial.coverage == 0.5  # a yes, c no; b has no interval


def test_an_error_that_is_not_a_number_is_not_a_success() -> None:
    trial = Trial(Cell("toy", "quick", Technique("plain", EXACT), 1), "done")
    compared(trial, {"a": Figure(1.0)}, {"a": 1.0}, {}, Success("x", lambda _f, _p: math.nan, 1.0))
    assert trial.reached is False


def test_the_key_of_a_cell_changes_with_everything_that_is_asked() -> None:
    base = Cell("toy", "quick", Technique("plain", EXACT), 1)
    others = [
        Cell("other", "quick", Technique("plain", EXACT), 1),
        Cell("toy", "full", Technique("plain", EXACT), 1),
        Cell("toy", "quick", Technique("multi-party", EXACT), 1),
        Cell("toy", "quick", Technique("plain", private(1.0)), 1),
        Cell("toy", "quick", Technique("plain", private(1.0, "shared")), 1),
        Cell("toy", "quick", Technique("plain", SUPPRESS), 1),
        Cell("toy", "quick", Technique("plain", EXACT, {"neighbours": 3}), 1),
        Cell("toy", "quick", Technique("plain", EXACT), 2),
        Cell("toy", "quick", Technique("plain", EXACT.under("standard")), 1),
    ]
    assert len({cell.key() for cell in (base, *others)}) == 10
    assert base.key() == Cell("toy", "quick", Technique("plain", Level("exact", "said otherwise")), 1).key()


def test_another_version_of_a_plugin_is_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    cell, keys = Cell("toy", "quick", Technique("plain", EXACT), 1), set()
    for brought in ("", "masks 1.0", "masks 1.1"):
        monkeypatch.setattr(
            trials, "origin", lambda package, _, brought=brought: brought * package.endswith("protections")
        )
        keys.add(cell.key())
    assert len(keys) == 3


def test_what_failed_or_waits_for_a_package_is_tried_again(tmp_path: Path) -> None:
    found = {"no": "protection x: needs y: not installed", "never": "got shared under plain", "done": ""}
    with opened(tmp_path / "r.duckdb", write=True) as store:
        for name, reason in found.items():
            cell = Cell(name, "quick", Technique("plain", EXACT), 1)
            store.add(Trial(cell, "not-applicable" if reason else "done", reason), 1)
        wanted = {Cell(name, "quick", Technique("plain", EXACT), 1).key() for name in ("never", "done")}
        assert set(store.finished()) == wanted


def test_a_comparison_keeps_every_trial_and_goes_on_where_it_was(
    known: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_run", in_this_process)
    file, cache = tmp_path / "r.duckdb", tmp_path / "cache"
    first = compare(Comparison(protections=("plain",)), file, cache)
    assert first == Outcome({"done": 2, "not-applicable": 1}, 0)
    asked: list[str] = []
    shown: list[tuple[str, int, int]] = []
    second = compare(
        Comparison(protections=("plain", "secure-aggregation")),
        file,
        cache,
        on_trial=lambda trial: asked.append(trial.cell.technique.protection),
        progress=lambda *one: shown.append(one),
    )
    assert shown[:2] == [("all techniques", 3, 6), ("toy", 3, 6)]
    assert shown[-2:] == [("all techniques", 6, 6), ("toy", 6, 6)]
    assert second == Outcome({"done": 3}, 3)
    assert asked == ["secure-aggregation"] * 3
    with opened(file) as store:
        tables = store.tables()
        assert len(tables.trials) == 6
        assert {row["status"] for row in tables.trials} == {"done", "not-applicable"}
        plain = {(row["protection"], row["level"]): row for row in tables.trials}
        assert plain["plain", "exact"]["local"] > 0
        names = {row["name"] for row in tables.measures}
        assert {"overhead", "wan_seconds.office", "violations", "leakage.holder_values", "dropout.survived"} <= names
        exported = store.export(tmp_path / "parquet")
    assert [path.name for path in exported] == [f"{name}.parquet" for name in TABLES]
    assert len(pd.read_parquet(exported[0])) == 6


def test_under_a_template_holders_refuse_exact_means_of_few_and_answer_with_noise(
    known: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_run", in_this_process)
    wanted = Comparison(protections=("secure-aggregation",), levels=("exact", "epsilon-5"), rules="standard")
    assert compare(wanted, tmp_path / "r.duckdb", tmp_path).counts == {"done": 1, "not-applicable": 1}
    with opened(tmp_path / "r.duckdb") as store:
        found = {row["level"]: row for row in store.trials()}
    assert found["exact, standard"]["reason"].startswith("refused by holders' rules: office-")
    assert found["epsilon-5, standard"]["status"] == "done"


def test_what_fails_is_a_row_with_the_reason_and_is_tried_again_the_next_time(
    known: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_run", in_this_process)
    wanted = Comparison(protections=("plain",), levels=("exact",))
    compute = known.compute

    def breaks(ask: Any, public: Any) -> Figures:
        figures: Figures = compute(ask, public)
        if len(public["holders"]) > 1:
            raise RuntimeError("out of luck")
        return figures

    known.compute = breaks
    assert compare(wanted, tmp_path / "r.duckdb", tmp_path).counts == {"failed": 1}
    with opened(tmp_path / "r.duckdb") as store:
        assert store.trials()[0]["reason"] == "RuntimeError: out of luck"
    known.compute = compute
    assert compare(wanted, tmp_path / "r.duckdb", tmp_path) == Outcome({"done": 1}, 0)
    with opened(tmp_path / "r.duckdb") as store:
        assert [row["status"] for row in store.trials()] == ["done"]


def test_a_world_that_cannot_be_drawn_fails_every_cell_of_its_block(
    known: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_run", in_this_process)

    def no_world(profile: Profile, seed: int) -> World:
        raise UsageError("data: got none")

    known.world = no_world
    outcome = compare(Comparison(protections=("plain",)), tmp_path / "r.duckdb", tmp_path)
    assert outcome.counts == {"failed": 3}


def _dies(block: Block, trials: Any) -> None:
    trials.put(Trial(block.cells[0], "not-applicable", "said before the end"))
    trials.close()
    trials.join_thread()
    os._exit(9)


def test_a_process_that_dies_loses_its_own_cells_only_and_says_how(
    known: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "_work", _dies)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # where the new process looks for `_dies`
    kept: list[Trial] = []
    cells = tuple(Cell("time-use", "quick", Technique(name, EXACT), 1) for name in ("plain", "multi-party"))
    try:
        harness._run([Block(cells, Path())], 2, kept.append)
    finally:  # Python's own helper process would stay until this one ends, and other tests look for processes left
        resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    assert [trial.status for trial in kept] == ["not-applicable", "failed"]
    assert kept[1].reason == "its process ended with exit code 9"


def test_a_plan_has_seeds_outermost_so_that_repetitions_interleave(known: SimpleNamespace) -> None:
    found = plan(Comparison(scenarios=("toy",), seeds=3, protections=("plain",)))
    assert [(block[0].scenario, block[0].seed) for block in found] == [("toy", 1), ("toy", 2), ("toy", 3)]
    assert [cell.technique.level.id for cell in found[0]] == ["exact", "epsilon-5", "epsilon-5-shared"]
    assert len(plan(Comparison(profile="full"))) == 5


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Comparison(scenarios=("nothing",)), "unknown scenario: got 'nothing'"),
        (Comparison(protections=("magic",)), "unknown protection: got 'magic'"),
        (Comparison(levels=("epsilon-0",)), "--level: got epsilon-0; want some of exact, epsilon-5"),
    ],
)
def test_a_plan_of_what_does_not_exist_is_refused_before_anything_runs(
    known: SimpleNamespace, wanted: Comparison, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        plan(wanted)


def test_the_longest_scenarios_start_first_within_a_seed() -> None:
    def block(scenario: str, seed: int) -> Block:
        return Block((Cell(scenario, "quick", Technique("plain", EXACT), seed),), Path())

    found = harness._longest_first(
        [block("short", 1), block("long", 1), block("long", 2), block("new", 2)], {"short": 1.0, "long": 9.0}
    )
    assert [(one.cells[0].scenario, one.cells[0].seed) for one in found] == [
        ("long", 1),
        ("short", 1),
        ("new", 2),
        ("long", 2),
    ]
    assert set(harness._usual_costs()) <= set(discovery.modules("statfed.scenarios"))


def test_an_entry_of_the_inventory_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SimpleNamespace(ABOUT=SimpleNamespace(partitioning="linkage"))
    monkeypatch.setattr(harness, "load", lambda *_: entry)
    with pytest.raises(UsageError, match=r"whose protocol \(linkage\) is not built"):
        plan(Comparison(scenarios=("entry",)))


def test_a_file_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"), opened(tmp_path / "none.duckdb"):
        pass
    text = tmp_path / "text.duckdb"
    text.write_text("not a database")
    with pytest.raises(UsageError, match="not a DuckDB file"), opened(text, write=True):
        pass
    assert text.read_text() == "not a database"
    other = tmp_path / "other.duckdb"
    with duckdb.connect(str(other)) as connection:
        connection.execute("CREATE TABLE mine (x INT)")
    with pytest.raises(UsageError, match="got tables mine"), opened(other, write=True):
        pass


def test_overhead_is_over_plain_of_the_same_world_and_level() -> None:
    base = {"status": "done", "scenario": "s", "profile": "quick", "seed": 1, "machine": "m", "version": "v"}
    rows = [
        base | {"key": "1", "protection": "plain", "level": "exact", "processor": 2.0},
        base | {"key": "2", "protection": "he", "level": "exact", "processor": 8.0},
        base | {"key": "3", "protection": "he", "level": "exact", "processor": 9.0, "seed": 2},
        base | {"key": "4", "protection": "plain", "level": "epsilon-1", "processor": 4.0},
        base | {"key": "5", "protection": "he", "level": "epsilon-1-shared", "processor": 6.0},
        base | {"key": "6", "protection": "he", "level": "exact", "processor": 9.0, "status": "failed"},
    ]
    found = {row["key"]: row["value"] for row in overheads(rows)}
    assert found == {"1": 1.0, "2": 4.0, "4": 1.0, "5": 1.5}


def test_modelled_time_is_latency_of_every_stage_and_the_bytes_of_the_busiest_holder() -> None:
    roles = [
        Role("holder", "a", 0.0, 1_000_000, 250_000, 4),
        Role("holder", "b", 0.0, 10, 10, 4),
        Role("coordinator", "coordinator", 0.0, 10**9, 10**9, 8),
    ]
    line = wan.Line("x", "x", bandwidth=10.0, latency=100.0)
    assert wan.seconds(roles, line) == pytest.approx(4 * 0.1 + 8 * 1_250_000 / 10e6)


def test_techniques_are_every_protection_at_every_level_or_those_that_are_named(toy: SimpleNamespace) -> None:
    assert len(list(techniques(toy))) == len(discovery.modules("statfed.strategies.protections")) * 3
    some = list(techniques(toy, ["plain"], ["exact"]))
    assert [one.id for one in some] == ["plain, exact"]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux tells peaks of memory")
def test_peak_memory_is_what_came_on_top_since() -> None:
    above = memory.watched()
    block = np.ones(30_000_000)
    del block
    first = above()
    assert first is not None
    assert 200 < first < 400
