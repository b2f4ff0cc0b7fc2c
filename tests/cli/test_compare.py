"""`statfed scenarios` and `statfed compare`: documents, tables that fit a terminal, errors that a user can act on."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.compare import _show, _up
from statfed.cli.main import app
from statfed.core.codebook import make_codebook
from statfed.core.discovery import modules
from statfed.core.scenario import EXACT, PACKAGE, Figure, Figures, Profile, Success, World, private
from statfed.lab.compare import harness
from statfed.lab.compare.block import Block, run_block
from statfed.lab.compare.store import Store
from statfed.lab.compare.tables import Tables
from statfed.lab.compare.trial import Trial
from statfed.scenarios import mobility
from statfed.scenarios._measures import median_relative_error
from tests.fakes import brought

CODEBOOK = make_codebook({"columns": {"income": {"type": "number", "low": 0, "high": 100}}})
TITLE = "a title of a case that is far longer than any table of its results is wide [in square brackets]"


def world(profile: Profile, seed: int) -> World:
    rng = np.random.default_rng(seed)
    holders = {f"office-{i}": pd.DataFrame({"income": rng.uniform(0, 100, 100 * i)}) for i in (1, 2, 3)}
    return World(holders, CODEBOOK, "synthetic")


def compute(ask: Any, public: Mapping[str, Any]) -> Figures:
    result = ask("mean", columns=["income"])
    return {"mean": Figure(float(result.tables[result.main][0]["estimate"]))}


def pooled(drawn: World) -> dict[str, float]:
    return {"mean": float(pd.concat(drawn.holders.values())["income"].mean())}


SCENARIO = {
    "ABOUT": replace(mobility.ABOUT, title=TITLE),
    "LEVELS": (EXACT, private(5.0), private(5.0, "shared")),
    "SUCCESS": Success(TITLE, median_relative_error, 1e-9),
    "world": world,
    "compute": compute,
    "pooled": pooled,
}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A scenario of one mean, which another package brings; blocks run in this process."""

    def run(todo: list[Block], streams: int, keep: Callable[[Trial], None], begin: Callable[[str], None]) -> None:
        for one in todo:
            begin(one.cells[0].scenario)
            run_block(one, keep)

    monkeypatch.setattr(harness, "_run", run)
    with brought("scenarios", SCENARIO) as name:
        yield name


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATFED_RUNS", raising=False)
    monkeypatch.setattr("statfed.cli._output.out.width", 80)
    return lambda *words: CliRunner().invoke(app, list(words))


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def widest(text: str) -> int:
    return max(map(len, text.splitlines()))


def test_every_scenario_is_listed_in_few_lines_of_80_columns(call: Any) -> None:
    listed = call("scenarios").stdout
    names = sorted(modules(PACKAGE))
    assert widest(listed) <= 80
    assert all(re.search(rf"^│ {name} ", listed, re.M) for name in names)
    assert len(listed.splitlines()) < 5 * len(names)
    assert listed == call("scenarios", "list").stdout
    rows = document(call("scenarios", "list", "--json"))["scenarios"]
    assert [row["id"] for row in rows] == names


@pytest.mark.parametrize("name", sorted(modules(PACKAGE)))
def test_a_scenario_is_shown_with_its_levels_questions_and_next_commands(call: Any, name: str) -> None:
    shown = call("scenarios", "show", name)
    assert shown.exit_code == 0, shown.stderr
    assert widest(shown.stdout) <= 80
    row = document(call("scenarios", "show", name, "--json"))["scenarios"][0]
    assert all(level["id"] in shown.stdout for level in row.get("levels", []))
    assert (f"statfed compare {name}" in shown.stdout) == (row["kind"] != "entry")
    assert (f"statfed run {name}" in shown.stdout) == (row["kind"] == "training")
    assert f"statfed recommend --scenario {name}" in shown.stdout
    assert row["card"]["questions"]
    assert row["case"]["parties"] >= 1


def test_a_comparison_is_one_document_and_is_kept_the_second_time(call: Any, toy: str) -> None:
    words = ["compare", toy, toy, "--protect", "plain"]
    first = document(call(*words, "--json"))
    assert first["outcome"] == {"done": 2, "not-applicable": 1}
    assert first["kept"] == 0
    assert {row["status"] for row in first["trials"]} == {"done", "not-applicable"}
    exact = next(row for row in first["trials"] if (row["protection"], row["level"]) == ("plain", "exact"))
    assert exact["reached"]
    assert exact["error"] < 1e-12
    assert all(Path(file).is_file() for file in first["files"])
    second = document(call(*words, "--json"))
    assert (second["outcome"], second["kept"]) == ({}, 3)
    assert second["trials"] == first["trials"]
    again = document(call("compare", toy, "--protect", "plain", "--level", "exact", "--again", "--json"))
    assert (again["outcome"], again["kept"]) == ({"done": 1}, 0)


def test_the_table_has_every_level_and_the_reason_of_what_does_not_apply(call: Any, toy: str) -> None:
    shown = call("compare", toy, "--protect", "plain")
    assert shown.exit_code == 0, shown.stderr
    assert widest(shown.stdout) <= 80
    assert TITLE in " ".join(shown.stdout.split())
    assert re.search(r"│ exact +│ +│ \S+ yes x1 +│", shown.stdout)
    spent = re.search(r"│ epsilon-5 +│ +(\S+) │ \S+ no x1 +│", shown.stdout)
    assert spent
    with duckdb.connect("runs/compare/results.duckdb", read_only=True) as store:
        found = store.execute("SELECT max(epsilon) FROM trials").fetchone()
    assert found
    assert found[0] <= float(spent[1]) <= found[0] + 0.01
    assert "not-applicable: plain, epsilon-5-shared: privacy.noise: got shared" in " ".join(shown.stdout.split())
    assert "2 done, 1 not-applicable; 0 kept" in shown.stderr
    again = call("compare", toy, "--protect", "plain", "--report-only")
    assert again.stdout == shown.stdout
    assert "3 reported. results: runs/compare/results.duckdb" in again.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "want scenarios (statfed scenarios list), or --all"),
        (["mobility", "--all"], "want scenarios (statfed scenarios list), or --all"),
        (["mobilty"], "unknown scenario: got 'mobilty'; want one of coding"),
        (["mobility", "--protect", "pain"], "unknown protection: got 'pain'; want one of"),
        (
            ["set-intersection", "--protect", "plain"],
            "got plain, of no technique of these scenarios; want set-intersect",
        ),
        (["mobility", "--level", "exact", "--level", "exct"], "--level: got exct; want some of exact"),
        (["mobility", "--profile", "slow"], "--profile: got slow; want one of quick, full"),
        (["mobility", "--report-only"], "results.duckdb, which does not exist"),
    ],
)
def test_wrong_words_are_refused_before_anything_runs(
    call: Any, tmp_path: Path, words: list[str], message: str
) -> None:
    refused = call("compare", *words)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert not list(tmp_path.rglob("*.duckdb"))
    assert json.loads(call("compare", *words, "--json").stdout)["error"]["exit_code"] == 2


def test_results_that_cannot_be_used_are_named_and_left_as_they_are(call: Any, toy: str, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        result = call("compare", toy, "--protect", "plain", *words)
        assert result.exit_code == 2, result.stderr
        return str(result.stderr)

    (tmp_path / "bad.duckdb").write_text("garbage")
    assert "bad.duckdb: it is not a DuckDB file" in refused("--results", "bad.duckdb")
    assert (tmp_path / "bad.duckdb").read_text() == "garbage"
    duckdb.connect("other.duckdb").execute("CREATE TABLE mine (x INTEGER)").close()
    assert "got tables mine; want those of a comparison" in refused("--results", "other.duckdb")
    assert "its folder cannot be made" in refused("--results", "bad.duckdb/x/results.duckdb")
    assert call("compare", toy, "--protect", "plain", "--level", "exact", "--results", "r.duckdb").exit_code == 0
    assert "none of the trials that were asked for" in refused(
        "--level", "epsilon-5", "--report-only", "--results", "r.duckdb"
    )
    unwritten = refused("--level", "exact", "--results", "r.duckdb", "--report", "bad.duckdb")
    assert "output: bad.duckdb/report.html cannot be written" in unwritten


def test_results_that_are_cut_short_are_an_error_of_the_file_and_not_of_the_program(
    call: Any, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise duckdb.IOException("Could not read enough bytes from file")

    monkeypatch.setattr(Store, "finished", cut)
    result = call("compare", toy)
    assert result.exit_code == 2
    assert "results.duckdb: it cannot be read or written: Could not read enough bytes" in result.stderr


def test_a_second_comparison_on_the_same_results_is_told_of_the_first(
    call: Any, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise duckdb.IOException("Could not set lock on file")

    monkeypatch.setattr(duckdb, "connect", locked)
    result = call("compare", toy)
    assert result.exit_code == 2
    assert "another comparison is writing to it; want another file (--results)" in result.stderr


def test_four_protections_fit_80_columns_with_costs_in_plain_figures(
    call: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("homomorphic-encryption", "multi-party", "plain", "secure-aggregation")
    trial = {"scenario": "mobility", "status": "done", "reason": "", "error": 0.029, "tolerance": 0.05}
    trial |= {"reached": True, "local": None, "epsilon": 3.0012}
    levels = [level.id for level in mobility.LEVELS]
    rows = [trial | {"protection": name, "level": one, "key": name + one} for name in names for one in levels]
    costs = [{"key": row["key"], "name": "overhead", "value": 1234.5} for row in rows]
    _show(Tables(trials=rows, measures=costs), {"mobility": TITLE})
    shown = capsys.readouterr().out
    assert widest(shown) <= 80
    assert "e+0" not in shown
    assert "x1,234" in shown


def test_an_epsilon_on_the_screen_is_never_less_than_what_was_spent() -> None:
    shown = {value: _up(value) for value in (3.0012, 4.995, 0.1, 3.0, 123.4, 0.00012341, 1e-9, float("inf"))}
    assert all(float(text) >= value for value, text in shown.items())
    assert shown[3.0012] == "3.01"
    assert (shown[0.1], shown[3.0], shown[123.4]) == ("0.1", "3", "124")


def test_help_names_every_default(call: Any) -> None:
    """Square brackets are markup to the help's renderer, which drops them."""
    text = " ".join(call("compare", "--help").stdout.replace("│", " ").split())
    assert "Processes at a time (one a core)" in text
    assert "(report/ beside the results)" in text
    assert "SCENARIO: one name or several" in text
