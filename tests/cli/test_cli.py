"""The command line: documents, messages, exit codes, and errors that a user can act on."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app

SMALL = ["--set", "data.source=generated", "--set", "data.persons=6", "--set", "data.records_per_person=12"]
SMALL += [
    "--set",
    "data.test_persons=4",
    "--set",
    "options.rounds=2",
    "--set",
    "holders=2",
    "--set",
    "options.model.hidden=8",
    "--set",
    "privacy=none",
]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATFED_RUNS", raising=False)
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, list(words))


def document(result: Result) -> Any:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


def test_scenarios_and_protections_are_listed(call: Any) -> None:
    names = {row["id"]: row for row in document(call("scenarios", "--json"))["scenarios"]}
    assert names["time-use"]["partitioning"] == "horizontal"
    assert "plain" in names["time-use"]["protections"]
    assert "time-use" in call("scenarios").stdout
    assert document(call("scenarios", "list", "--json")) == document(call("scenarios", "--json"))
    assert document(call("scenarios", "show", "time-use", "--json"))["scenarios"][0]["study"]["scenario"] == "time-use"
    assert "plain" in {row["id"] for row in document(call("protections", "--json"))["protections"]}


def test_a_run_its_result_ledger_and_report(call: Any, tmp_path: Path) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs" / "schema" / "answer.json").read_text())
    first = call("run", "time-use", *SMALL, "--set", "privacy.epsilon=2", "--set", "privacy.delta=1e-4", "--json")
    assert first.exit_code == 0, first.stderr
    result = document(first)
    jsonschema.validate(result, schema)
    assert result["synthetic"] is True
    assert all(1.8 < s["study_epsilon"] <= 2.0 for s in result["spending"])
    assert {c["kind"] for c in result["training"]["candidates"]} == {
        "federated",
        "pooled",
        "local",
        "local-dp",
        "majority",
    }

    listed = document(call("runs", "list", "--json"))["runs"]
    assert [(r["run"], r["state"]) for r in listed] == [(result["run"], "finished")]
    assert document(call("runs", "show", "last", "--json")) == result
    report = Path(document(call("runs", "report", result["run"][:15], "--json"))["report"])
    assert "<html" in report.read_text()

    ledger = document(call("ledger", "show", "--holder", "office-1", "--json"))["ledgers"]
    assert len(ledger) == 1
    assert ledger[0]["spending"]["history_epsilon"] == pytest.approx(result["spending"][0]["history_epsilon"])
    head = result["spending"][0]["ledger_head"]
    assert call("ledger", "verify", "--holder", "office-1", "--anchor", head).exit_code == 0
    assert "office-1" in call("ledger", "show").stdout

    again = document(
        call("run", "time-use", *SMALL, "--set", "privacy.epsilon=2", "--set", "privacy.delta=1e-4", "--json")
    )
    assert again["training"]["model_digest"] == result["training"]["model_digest"]
    assert again["spending"][0]["history_epsilon"] > result["spending"][0]["history_epsilon"]


def test_dry_run_spends_nothing_and_shows_the_noise(call: Any) -> None:
    words = ["run", "time-use", *SMALL, "--set", "privacy.epsilon=1", "--set", "privacy.unit=person"]
    plan = call(*words, "--dry-run", "--json")
    assert plan.exit_code == 0
    assert document(plan)["admissions"][0]["noise_to_signal"] > 1
    assert "Expect no utility" in plan.stderr
    ledger = document(call("ledger", "show", "--holder", "office-1", "--json"))["ledgers"][0]
    assert ledger["spending"]["filter_epsilon"] == 0
    assert document(call("runs", "list", "--json"))["runs"][0]["state"] == "dry-run"


def test_overspending_is_refused_with_the_numbers_and_exit_code_3(call: Any) -> None:
    words = ["run", "time-use", *SMALL, "--set", "privacy.epsilon=2", "--set", "privacy.delta=1e-4"]
    words += ["--set", "simulation.lifetime_epsilon=1.5", "--set", "simulation.lifetime_delta=1e-4", "--json"]
    refused = call(*words)
    assert refused.exit_code == 3
    error = document(refused)["error"]
    assert error["kind"] == "Refused"
    assert "office-1" in error["message"]
    assert "1.5" in error["message"]


BAD = {
    "unknown strategy": (["--strategy", "krumm"], 2, "strategy.name: got 'krumm'; want 'fedavg'"),
    "unknown key": (["--set", "rouds=3"], 2, "rouds: unknown key"),
    "negative epsilon": (["--set", "privacy.epsilon=-1"], 2, "privacy: epsilon: got -1; want greater than 0"),
    "delta too large": (
        ["--set", "privacy.epsilon=1", "--set", "privacy.delta=0.4"],
        2,
        "privacy.delta: got 0.4; want less",
    ),
    "delta at least 1/n": (
        ["--set", "privacy.epsilon=1", "--set", "privacy.delta=0.02", "--set", "simulation.lifetime_delta=0.001"],
        2,
        "privacy.delta: got 0.02; want less than 1/72",
    ),
    "one person a holder": (
        ["--set", "privacy.epsilon=1", "--set", "privacy.unit=person", "--set", "data.persons=1"],
        3,
        "got a data set of one person; want at least two",
    ),
    "duplicate holder": (["--set", 'holders=["a","a"]'], 2, "duplicate name: got a more than once"),
    "bad holder name": (["--set", 'holders=["../a"]'], 2, "got '../a'; want lower-case letters"),
    "no holders": (["--set", "holders=0"], 2, "holders: "),
    "unknown model": (
        ["--set", "options.model.name=resnet"],
        2,
        "unknown model: got 'resnet'; want one of cnn, dense, mlp, text",
    ),
    "unknown protection": (["--set", "protection.name=magic"], 2, "unknown protection: got 'magic'; want one of "),
    "unknown engine": (
        ["--engine", "quantum"],
        2,
        "engine: got 'quantum'; want 'inprocess', 'processes', 'ray' or 'pilot'",
    ),
    "not key=value": (["--set", "rounds"], 2, "got 'rounds'; want key=value"),
    "missing data folder": (["--data", "nowhere"], 2, "data.path: "),
    "unknown data option": (["--set", "data.sauce=1"], 2, "data.sauce"),
    "no noise not allowed": (
        ["--set", "simulation.allow_without_privacy=false"],
        3,
        "without differential privacy is not allowed",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_bad_input_gives_a_clear_message_and_no_traceback(call: Any, case: str) -> None:
    words, code, text = BAD[case]
    result = call("run", "time-use", *SMALL, *words)
    assert result.exit_code == code, result.stderr
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_a_tampered_ledger_is_named_and_exits_with_5(call: Any) -> None:
    run = call("run", "time-use", *SMALL, "--set", "privacy.epsilon=2", "--no-references", "--json")
    head = document(run)["spending"][1]["ledger_head"]
    path = Path(document(call("ledger", "show", "--holder", "office-2", "--json"))["ledgers"][0]["ledger"])
    truncated = call("ledger", "verify", "--holder", "office-2", "--anchor", "0" * 64, "--json")
    assert truncated.exit_code == 5
    assert "truncated" in document(truncated)["error"]["message"]
    assert document(call("ledger", "verify", "--holder", "office-2", "--anchor", head, "--json"))["ledgers"][0][
        "intact"
    ]
    db = sqlite3.connect(path)
    triggers = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]
    kept = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")]
    for name in triggers:
        db.execute(f"DROP TRIGGER {name}")
    db.execute("UPDATE entries SET event = replace(event, 'times', 'tines') WHERE kind = 'charge' AND round = 2")
    for sql in kept:
        db.execute(sql)
    db.commit()
    db.close()
    edited = call("ledger", "verify", "--holder", "office-2")
    assert edited.exit_code == 5
    assert "entry 4" in edited.stderr
    again = call("run", "time-use", *SMALL, "--set", "privacy.epsilon=2", "--no-references")
    assert again.exit_code == 5
    assert "its privacy ledger does not verify" in again.stderr
    path.unlink()
    gone = call("ledger", "verify", "--holder", "office-2")
    assert gone.exit_code == 5
    assert "missing, although it was opened before" in gone.stderr
    assert "office-2" in again.stderr


def test_missing_files_and_names_are_explained(call: Any, tmp_path: Path) -> None:
    assert "study file not found" in call("run", "none.toml").stderr
    assert "got 'time-uze'; want a scenario (" in call("run", "time-uze").stderr
    (tmp_path / "broken.toml").write_text("rounds = = 3")
    assert "not a readable TOML file" in call("run", "broken.toml").stderr
    assert "not found in runs/" in call("runs", "show", "x").stderr
    assert "none found in" in call("ledger", "show", "--holder", "x").stderr
    assert "want one of febrl4, pseudopeople, watch" in call("data", "fetch", "x").stderr


def test_a_study_file_runs_like_its_scenario(call: Any, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text('scenario = "time-use"\nholders = ["north", "south"]\n[options]\nrounds = 1\n')
    words = [w for w in SMALL if not w.startswith(("holders", "options.rounds"))]
    words = [w for i, w in enumerate(words) if not (w == "--set" and (i + 1 == len(words) or words[i + 1] == "--set"))]
    result = call("run", "study.toml", *words, "--no-references", "--json")
    assert result.exit_code == 0, result.stderr
    assert [s["holder"] for s in document(result)["spending"]] == ["north", "south"]


def test_an_unforeseen_error_is_one_line_unless_debug(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("wires crossed")

    monkeypatch.setattr("statfed.federation.run_study", broken)
    result = call("run", "time-use")
    assert result.exit_code == 1
    assert "internal error: RuntimeError: wires crossed" in result.stderr
    assert isinstance(call("--debug", "run", "time-use").exception, RuntimeError)
