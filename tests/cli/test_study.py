"""`statfed study`, `status`, `run N`: what people at the coordinator and at a party type, without processes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.identity import create_identity
from tests.pilots import HOLDERS, Pilot, make_pilot


@pytest.fixture
def pilot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pilot:
    monkeypatch.chdir(tmp_path)
    found = make_pilot(tmp_path)
    (tmp_path / "mean.study.toml").write_text(
        'method = "mean"\nholders = ["istat", "cbs", "insee"]\ncodebook = "people.codebook.toml"\n'
        '[options]\ncolumns = ["age"]\n[protection]\nname = "secure-aggregation"\n'
    )
    return found


def ask(*words: str, code: int = 0) -> Any:
    found = CliRunner().invoke(app, [*words, "--json"])
    assert found.exit_code == code, found.output
    return json.loads(found.stdout)


def shown(*words: str) -> str:
    found = CliRunner().invoke(app, list(words))
    assert found.exit_code == 0, found.output
    return found.stdout + found.stderr


def test_no_text_of_a_study_says_another_fact_in_its_review(pilot: Pilot) -> None:
    said = "privacy    epsilon 0.01, delta 0 per record"
    (pilot.root / "people.codebook.toml").write_text(
        f'[columns.age]\ntype = "integer"\nlow = 0\nhigh = 120\n'
        f'[columns.sex]\ntype = "category"\ncategories = ["f", "m", "x\\n{said}"]\n'
    )
    number = pilot.propose(where=[f"sex != 'x\n{said}'"]).proposal.number
    pilot.post(number)
    lines = shown("study", "review", str(number), "--no-rehearse", "--home", "istat").splitlines()
    assert [line for line in lines if line.startswith("privacy ")] == [
        "privacy    no noise: exact figures, under the rules of this holder"
    ]


def test_a_study_from_its_file_to_everybody_s_approval(pilot: Pilot) -> None:
    made = ask("study", "propose", "mean.study.toml", "--purpose", "ages", "--runs", "2", "--days", "10")
    assert made["number"] == 1
    assert {name: one["state"] for name, one in made["parties"].items()} == dict.fromkeys(HOLDERS, "unsent")
    told = ask("run", "1", code=4)["error"]["message"]
    assert "coordinator start" in told
    assert ask("study", "list", "--home", "istat")["studies"] == []
    assert "not known here" in ask("study", "review", "1", "--home", "istat", code=2)["error"]["message"]
    pilot.post(1)
    seen = ask("study", "review", "1", "--home", "istat")
    assert seen["proposal"]["purpose"] == "ages"
    assert seen["terms"]["method"] == "mean"
    assert seen["learns"]
    words = shown("study", "review", "1", "--home", "istat")
    assert "purpose    ages" in words
    assert seen["id"] in words
    done = ask("study", "approve", "1", "--runs", "1", "--rounds", "7", "--until", "2199-01-01", "--home", "istat")
    assert (done["study"]["decision"], done["study"]["runs"], done["study"]["rounds"]) == ("approved", 1, 7)
    assert done["study"]["until"] == seen["proposal"]["until"].replace("Z", "+00:00")
    ask("study", "refuse", "1", "--reason", "holidays", "--home", "cbs")
    ask("study", "approve", "1", "--home", "insee")
    pilot.post(1)
    states = ask("study", "list", "--pilot", "trade")["studies"][0]["parties"]
    assert {name: one["state"] for name, one in states.items()} == {
        "istat": "approved",
        "cbs": "refused",
        "insee": "approved",
    }
    assert states["cbs"]["what"] == "holidays"
    assert "cbs (refused)" in shown("study", "list", "--pilot", "trade")
    assert ask("status", "--home", "cbs")["studies"][0]["decision"] == "refused"
    assert ask("status", "--pilot", "trade")["studies"][0]["parties"]["cbs"] == "refused"
    assert "nothing to decide" in shown("status", "--home", "cbs")
    assert "hub down" in shown("status", "--pilot", "trade")
    ask("study", "approve", "1", "--home", "cbs")
    pilot.post(1)
    pilot.run(1)
    assert ask("study", "list", "--home", "cbs")["studies"][0]["runs_made"] == 1
    assert ask("study", "list", "--pilot", "trade")["studies"][0]["state"] == "finished"
    assert "none was interrupted" in ask("resume", "1", code=2)["error"]["message"]
    assert ask("stop", "1")["stopped"] is False


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("study", "approve", "1", "--until", "soon"), "want a day as"),
        (("study", "approve", "1", "--as", "anna"), "got one without the other"),
        (("study", "approve", "1", "--runs", "9"), "at most what was asked for"),
        (("study", "approve", "1", "--since", "2199-01-01"), "ends before it begins"),
        (("study", "approve", "2"), "study 2: not known here; want one of 1"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_way_out(pilot: Pilot, words: tuple[str, ...], told: str) -> None:
    pilot.post(pilot.propose().proposal.number)
    assert told in ask(*words, "--home", "istat", code=2)["error"]["message"]
    assert ask("study", "list", "--home", "istat")["studies"][0]["decision"] == "open"


def test_a_pilot_s_study_is_run_by_number_and_by_nothing_else(pilot: Pilot) -> None:
    pilot.propose()
    assert "want a number" in ask("run", "mean.study.toml", "--pilot", "trade", code=2)["error"]["message"]
    assert "run as it was approved" in ask("run", "1", "--set", "exact=true", code=2)["error"]["message"]
    assert "study 4: not known" in ask("run", "4", code=2)["error"]["message"]
    assert "neither a party's home nor" in ask("status", "--home", "nowhere", code=2)["error"]["message"]


def test_two_people_approve_with_keys_of_their_own(pilot: Pilot, tmp_path: Path) -> None:
    people = {}
    for name in ("anna", "bert"):
        (tmp_path / name).mkdir()
        people[name] = create_identity(tmp_path / name)
    pilot.policy("istat", {"needed": 2, "people": people})
    pilot.post(pilot.propose().proposal.number)
    assert (
        "want one of the policy's people" in ask("study", "approve", "1", "--home", "istat", code=2)["error"]["message"]
    )
    first = shown("study", "approve", "1", "--home", "istat", "--as", "anna", "--key", "anna")
    assert "1 of the 2 people" in first
    done = ask("study", "approve", "1", "--home", "istat", "--as", "bert", "--key", "bert")
    assert done["study"]["decision"] == "approved"
    assert done["study"]["people"] == {"anna": "approved", "bert": "approved"}
