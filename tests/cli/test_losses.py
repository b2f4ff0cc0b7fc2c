"""What was paid for is never lost: destinations, full disks, readers that go away, and what runs are known by."""

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.outputs import Destinations
from statfed.federation import export
from statfed.federation.runs import working_in, write_status

Call = Callable[..., Result]
MEANS = "analyse mean --columns income --holder a=a.csv --holder b=b.csv"
PRIVATE = f"{MEANS} --codebook people.codebook.toml --privacy epsilon=1,delta=1e-6"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    frame = pd.DataFrame({"income": range(200), "sex": ["f", "m"] * 100})
    frame[:90].to_csv(tmp_path / "a.csv", index=False)
    frame[90:].to_csv(tmp_path / "b.csv", index=False)
    (tmp_path / "people.codebook.toml").write_text(
        '[columns.income]\ntype = "number"\nlow = 0\nhigh = 200\n\n[columns.sex]\ntype = "category"\n'
        'categories = { f = "f", m = "m" }\n'
    )
    monkeypatch.chdir(tmp_path)
    for name in ("STATFED_RUNS", "STATFED_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(words: str, **more: Any) -> Result:
        result = CliRunner().invoke(app, shlex.split(words), **more)
        assert "internal error" not in result.stderr, result.stderr
        return result

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def charges(call: Call) -> int:
    """Entries of all ledgers that spend."""
    try:
        found = document(call("ledger show --json"))["ledgers"]
    except AssertionError:
        return 0
    return sum(entry["kind"] == "charge" for one in found for entry in one["entries"])


@pytest.mark.parametrize(
    "words",
    [
        "--html a.csv/means.html",
        "--html /proc/means.html",
        "--csv /dev/null --overwrite",
        "--parquet means.parquet --csv means.parquet",
        f"--html {'x' * 300}.html",
    ],
)
def test_a_file_that_cannot_be_written_is_said_before_anything_is_spent(call: Call, words: str) -> None:
    result = call(f"{PRIVATE} {words}")
    assert result.exit_code == 2
    assert "output: " in result.stderr
    assert not charges(call)


def test_a_disk_that_is_full_after_spending_loses_no_answer(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Destinations, path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Destinations, "write_text", full)
        result = call(f"{PRIVATE} --html means.html --csv means.csv --json")
    answer = json.loads(result.stdout)  # the answer, and no document of the failure behind it
    assert result.exit_code == 2
    assert "No space left on device" in result.stderr
    assert f"statfed runs export {answer['run']} --html FILE" in result.stderr
    assert Path("means.csv").exists()
    spent = charges(call)
    assert document(call(f"runs show {answer['run']} --json")) == answer
    assert call(f"runs export {answer['run']} --html means.html").exit_code == 0
    assert "<!doctype html>" in Path("means.html").read_text()[:40].lower()
    assert charges(call) == spent


def test_an_answer_that_cannot_be_kept_is_told_all_the_same(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(answer: Any, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_answer", full)
    kept = call(f"{PRIVATE} --json")
    assert json.loads(kept.stdout)["analysis"] == "mean"
    assert (kept.exit_code, "told here alone" in kept.stderr) == (0, True)
    run = call(f"{PRIVATE} --runs runs --json")
    assert json.loads(run.stdout)["analysis"] == "mean"
    assert (run.exit_code, "told here alone" in run.stderr) == (0, True)


def test_every_answer_is_known_by_its_run_and_dry_runs_and_refusals_leave_none(call: Call) -> None:
    answers = [document(call(f"{words} --json")) for words in (MEANS, f"{MEANS} --fresh", f"{MEANS} --runs runs")]
    assert [one["run"] for one in document(call("runs list --json"))["runs"]] == [one["run"] for one in answers]
    for answer in answers:
        assert document(call(f"runs show {answer['run']} --json")) == answer
    assert document(call("runs show last --json")) == answers[-1]
    assert call(f"{PRIVATE} --dry-run").exit_code == 0
    assert call(f"{PRIVATE} --budget 0.5").exit_code == 3
    assert len(document(call("runs list --json"))["runs"]) == 3


def test_the_named_folder_of_runs_is_where_every_command_looks(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATFED_RUNS", str(tmp_path / "elsewhere"))
    answer = document(call(f"{MEANS} --json"))
    assert (tmp_path / "elsewhere" / answer["run"] / "result.json").exists()
    assert call("annex last --out dossier").exit_code == 0
    refused = call("compare wages --report-only")
    assert f"{tmp_path}/elsewhere/compare/results.duckdb" in "".join(refused.stderr.split())
    assert not (tmp_path / "runs").exists()


def test_runs_are_removed_when_that_is_confirmed_and_never_a_running_one(call: Call, tmp_path: Path) -> None:
    first, second = (document(call(f"{MEANS} --json"))["run"] for _ in range(2))
    live = tmp_path / "runs" / "20260101-000000-mean-live"
    live.mkdir(parents=True)
    write_status(live, {"run": live.name, "state": "running", "engine": "inprocess", "method": "mean"})
    assert call("runs remove --all", input="n\n").exit_code == 2
    assert call("runs remove").exit_code == call("runs remove last --all").exit_code == 2
    assert call("runs remove --older-than soon").exit_code == 2
    with working_in(live):
        assert "is running" in call(f"runs remove {live.name} --yes").stderr
        assert document(call(f"runs remove {first} --yes --json")) == {"removed": [first], "kept": []}
        assert document(call("runs remove --older-than 1h --yes --json"))["removed"] == []
        old = time.time() - 40 * 86_400
        for path in (tmp_path / ".statfed" / "runs" / second).iterdir():
            os.utime(path, (old, old))
        assert document(call("runs remove --older-than 30d --yes --json"))["removed"] == [second]
        assert document(call("runs remove --all --yes --json")) == {"removed": [], "kept": [live.name]}
    assert document(call("runs list --json"))["runs"][0]["state"] == "interrupted"
    assert document(call("runs remove --all --json", input="y\n"))["removed"] == [live.name]
    assert charges(call) == 0
    assert call("ledger verify").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("analyse men --json", 2),
        ("analyse mean --json", 2),
        (f"{MEANS} --bogus --json", 2),
        ("analyse mean --columns income --holder a=nowhere.csv --json", 2),
        ("runs show nothing --json", 2),
        ("runs list --bogus --json", 2),
        ("--bogus --json", 2),
        (f"{PRIVATE} --budget 0.5 --json", 3),
    ],
)
def test_every_failure_is_one_document(call: Call, words: str, code: int) -> None:
    result = call(words)
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["exit_code"]) == (code, code)
    assert error["message"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("result.json", b"{"),
        ("result.json", b'{"format": "statfed.answer/1"}'),
        ("result.json", b'{"format": "statfed.answer/2", "run": 1}'),
        ("result.json", b"\xff\xfe"),
        ("status.json", b"[]"),
        ("status.json", b'{"state": "finished", "attempt": "x"}'),
    ],
)
def test_a_damaged_run_is_named_without_what_is_in_it(call: Call, name: str, content: bytes) -> None:
    run = document(call(f"{MEANS} --json"))["run"]
    path = Path(".statfed", "runs", run, name)
    path.write_bytes(content)
    for words in (f"runs show {run}", f"annex {run}", f"runs export {run} --html x.html"):
        if name == "result.json" or words.startswith("annex"):
            result = call(words)
            assert result.exit_code == 2, words
            assert "pydantic" not in result.stderr
            assert run in " ".join(result.stderr.split())
    assert call("runs list").exit_code == 0


@pytest.mark.parametrize("name", ["study.toml", "checkpoint.npz"])
def test_a_run_that_cannot_go_on_says_so(call: Call, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "runs" / "20260101-000000-mean-0000"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(b"PK\x03\x04 no archive")
    write_status(folder, {"run": folder.name, "state": "interrupted", "engine": "inprocess", "method": "mean"})
    result = call("run --resume last")
    assert result.exit_code == 2
    assert "study" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        "--help",
        pytest.param(f"{MEANS} --html means.html", marks=pytest.mark.whole),
        f"{MEANS} --json --html means.html",
    ],
)
def test_a_reader_that_goes_away_is_no_failure_and_files_are_written(call: Call, tmp_path: Path, words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "statfed.cli.main", *shlex.split(words)]
    process = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr
    assert Path("means.html").exists() == ("--html" in words)


def test_the_meter_says_this_query_the_total_and_how_many_more_and_keeps_its_word(call: Call) -> None:
    words = f"{PRIVATE} --budget 2"
    first = document(call(f"{words} --json --html means.html"))
    promised = {one["holder"]: one["more"] for one in first["spending"]}
    shown = " ".join(call(words).stdout.split())
    answered = 1
    while (result := call(f"{words} --json")).exit_code == 0:
        answered += 1
        left = {one["holder"]: one["more"] for one in document(result)["spending"]}
        assert left == {name: number - answered for name, number in promised.items()}
    assert (result.exit_code, set(promised.values())) == (3, {answered})
    assert all(word in shown for word in ("this query", "total so far", "more like it"))
    assert f"about {answered - 1} more like this one" in shown
    page = Path("means.html").read_text()
    assert f"about {answered}" in page
    assert "budget left" not in page
    ledgers = " ".join(call("ledger show").stdout.split())
    assert "about 0 more like the last study" in ledgers
    assert "left" not in ledgers
