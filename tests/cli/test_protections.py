"""`statfed protections`, `statfed identity` and the options that choose a protection: documents, messages, exits."""

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.cli.protections import PLACEMENTS
from statfed.client.third_party import load_party
from statfed.core import rules
from statfed.core.discovery import modules
from statfed.core.identity import load_identity
from statfed.core.protection import PACKAGE
from statfed.core.terms import Placement
from tests.covering import rest_whole

DOCUMENTS = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
NAMES = sorted(modules(PACKAGE))
SMALL = ["data.source=generated", "data.persons=6", "data.records_per_person=12", "data.test_persons=4", "rounds=1"]
SMALL += ["model.hidden=8", "privacy=none", "training.batch_size=1000"]
RUN = ["run", "time-use", "--no-references", *(word for change in SMALL for word in ("--set", change))]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, list(words))


def document(result: Result) -> Any:
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return json.loads(result.stdout)


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """Options that name three holders' files."""
    for name in ("a", "b", "c"):
        frame = pd.DataFrame({"age": [20, 30, 40, 50] * 5, "sex": list("fmff") * 5})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "people.codebook.toml").write_text(
        '[columns.age]\ntype = "integer"\nlow = 0\nhigh = 120\n'
        '[columns.sex]\ntype = "category"\ncategories = ["f", "m"]\n'
    )
    holders = [word for name in ("a", "b", "c") for word in ("--holder", f"{name}={name}.parquet")]
    return [*holders, "--codebook", "people.codebook.toml"]


def test_every_installed_protection_is_listed_with_all_that_a_reader_needs(call: Any) -> None:
    listed = document(call("protections", "--json"))
    assert [row["id"] for row in listed["protections"]] == NAMES
    for row in listed["protections"]:
        assert row["title"]
        assert row["trust"]
        assert row["cost"] in ("1", "10", "1000", "100000")
        assert row["installed"] is True
        assert bool(row["third_parties"]) == bool(row["parties"])
        assert all(field["description"] for field in row["options"].get("properties", {}).values()), row["id"]
        shared = set() if row["reveals_updates"] else {"table, shared epsilon 1", "dp-fedsgd, shared epsilon 1"}
        assert set(row["learns"]) == {"table", "table, epsilon 1", "training", "training, epsilon 1"} | shared
        for rows in row["learns"].values():
            assert "coordinator" in {one["role"] for one in rows}, row["id"]
    assert {row["noise"] for row in listed["noise"]} == set(Placement.__args__)  # type: ignore[attr-defined]
    shown = call("protections").stdout
    assert all(name in shown for name in (*NAMES, *(place.noise for place in PLACEMENTS)))


@pytest.mark.parametrize("name", NAMES)
def test_one_protection_is_shown_with_its_options_and_who_learns_what(call: Any, name: str) -> None:
    (row,) = document(call("protections", name, "--json"))["protections"]
    result = call("protections", name)
    assert result.exit_code == 0, result.stderr
    assert "Who learns what: training, epsilon 1" in result.stdout
    for option in row["options"].get("properties", {}):
        assert option in result.stdout
    assert "coordinator" in result.stdout


def test_the_documented_keys_of_a_protection_are_those_of_the_document(call: Any) -> None:
    (line,) = (line for line in DOCUMENTS.splitlines() if line.startswith("| `protections`"))
    (keys,) = re.findall(r"\[\{(.*?)\}\], \"noise\"", line)
    (row,) = document(call("protections", "plain", "--json"))["protections"]
    assert set(keys.split(", ")) == set(row)


def test_an_unknown_protection_names_those_there_are(call: Any) -> None:
    result = call("protections", "magic")
    assert result.exit_code == 2
    assert f"want one of {', '.join(NAMES)}" in result.stderr


def test_a_missing_package_shows_in_the_list(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    needing = [row["id"] for row in document(call("protections", "--json"))["protections"] if row["extra"]]
    assert "homomorphic-encryption" in needing
    monkeypatch.setattr(rules, "find_spec", lambda _: None)
    for name in needing:
        (row,) = document(call("protections", name, "--json"))["protections"]
        assert row["installed"] is False
        assert row["install"].startswith("pip install 'statfed[")
        assert row["install"] in call("protections", name).stdout


def test_an_identity_is_made_once_and_its_lines_can_be_read_as_pins(call: Any, tmp_path: Path) -> None:
    home = tmp_path / "homes" / "key-holder"
    first = document(call("identity", str(home), "--name", "key-holder", "--json"))
    assert first["created"]
    assert stat.S_IMODE((home / "identity.key").stat().st_mode) == 0o600
    secret = (home / "identity.key").read_text().strip()
    again = call("identity", str(home), "--name", "key-holder")
    assert secret not in again.stdout + again.stderr
    assert (
        tomllib.loads(again.stdout)
        == {"parties": {"key-holder": first["public_key"]}}
        == tomllib.loads(first["parties"])
    )
    assert load_identity(home, "key-holder", {}).public == first["public_key"]
    (home / "party.toml").write_text(
        f'[party]\nname = "key-holder"\n[allow]\nprotections = ["homomorphic-encryption"]\n{again.stdout}'
    )
    assert load_party(home / "party.toml").parties.root == {"key-holder": first["public_key"]}
    assert document(call("identity", str(home), "--json"))["name"] == "key-holder"  # from party.toml
    other = call("identity", str(home), "--name", "somebody")
    assert other.exit_code == 2
    assert "party.toml" not in other.stdout


def test_an_identity_without_a_name_or_with_a_bad_one_is_refused_and_makes_no_key(call: Any, tmp_path: Path) -> None:
    for words, text in ((["h"], "want --name"), (["h", "--name", "Bad Name"], "want lower-case")):
        result = call("identity", *words)
        assert result.exit_code == 2
        assert text in result.stderr
    assert not (tmp_path / "h").exists()
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "policy.toml").write_text("holder = 3")
    assert "want one" in call("identity", "h").stderr


def test_a_home_that_is_no_folder_is_a_usage_error(call: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("identity", "file", "--name", "x")
    assert (result.exit_code, "want a folder" in result.stderr) == (2, True), result.stderr


def test_a_damaged_key_is_reported_and_kept(call: Any, tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "identity.key").write_text("not a key")
    result = call("identity", "h", "--name", "x")
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr
    assert (tmp_path / "h" / "identity.key").read_text() == "not a key"


@pytest.mark.parametrize("name", NAMES)
def test_an_analysis_says_the_same_under_every_protection_and_who_learns_what(
    call: Any, tables: list[str], name: str
) -> None:
    result = call("analyse", "table", "--rows", "sex", *tables, "--protect", name, "--fresh", "--json")
    assert result.exit_code == 0, result.stderr
    answer = document(result)
    assert {row["sex"]: row["count"] for row in answer["cells"]} == {"f": 45, "m": 15}
    (listed,) = document(call("protections", name, "--json"))["protections"]
    assert "coordinator" in {row["role"] for row in answer["learns"]}
    assert len(answer["learns"]) == len(listed["learns"]["table"]) + 3  # what every run shows besides
    assert answer["terms"]["protection"]["name"] == name


@pytest.mark.parametrize("name", rest_whole([(name,) for name in NAMES], lambda name: name == "homomorphic-encryption"))
def test_a_training_runs_under_the_protection_that_the_command_line_names(call: Any, name: str, tmp_path: Path) -> None:
    result = call(*RUN, "--protect", name, "--json")
    assert result.exit_code == 0, result.stderr
    made = document(result)
    assert made["study"]["protection"]["name"] == name
    assert "coordinator" in {row["role"] for row in made["learns"]}


def test_options_of_the_command_line_reach_the_study(call: Any, tables: list[str]) -> None:
    words = ["analyse", "table", "--rows", "sex", *tables, "--fresh"]
    unknown = call(*words, "--protect-option", "no_such=1")
    assert (unknown.exit_code, "no_such: unknown key" in unknown.stderr) == (2, True), unknown.stderr
    assert "--protect-option: got 'x'" in call(*words, "--protect-option", "x").stderr
    few = call(*words, "--minimum-holders", "2")
    assert (few.exit_code, "want protection.minimum_holders 3" in few.stderr) == (2, True), few.stderr
    assert "no_such: unknown key" in call(*RUN, "--protect-option", "no_such=1").stderr
    assert "want protection.minimum_holders 4" in call(*RUN, "--minimum-holders", "3").stderr


def test_a_robust_strategy_is_refused_before_anything_is_done_and_runs_once_holders_are_enough(
    call: Any, tmp_path: Path
) -> None:
    refused = call(*RUN, "--strategy", "krum")
    assert refused.exit_code == 2
    assert "strategy krum: got 4 holders, too few with num_malicious 1; want at least 5 holders" in refused.stderr
    assert not list(tmp_path.rglob("ledger.sqlite"))
    assert call(*RUN, "--strategy", "krum", "--set", "holders=5").exit_code == 0
    if "secure-aggregation" in NAMES:
        hidden = call(*RUN, "--strategy", "krum", "--set", "holders=5", "--protect", "secure-aggregation")
        assert "which protection secure-aggregation hides; want protection plain" in hidden.stderr


def test_an_official_figure_with_noise_is_refused_with_what_to_do(call: Any, tables: list[str]) -> None:
    words = ["analyse", "table", "--rows", "sex", *tables, "--fresh", "--exact"]
    assert call(*words).exit_code == 0
    refused = call(*words, "--privacy", "epsilon=1")
    assert refused.exit_code == 2
    assert "an official figure has to be exact; want protection" in refused.stderr
    assert "without [privacy] but with disclosure rules" in refused.stderr


def test_full_model_paillier_is_refused_with_the_reason(call: Any) -> None:
    result = call(*RUN, "--protect", "homomorphic-encryption", "--protect-option", "scheme=paillier")
    assert result.exit_code == 2
    assert "paillier" in result.stderr.lower()
    assert "bfv" in result.stderr


def test_a_partly_encrypted_statistic_is_refused(call: Any, tables: list[str]) -> None:
    words = ["--protect", "homomorphic-encryption", "--protect-option", "last_layer=2"]
    result = call("analyse", "table", "--rows", "sex", *tables, "--fresh", *words)
    assert result.exit_code == 2
    assert "for a statistic, where it means nothing" in result.stderr


@pytest.mark.parametrize("words", [RUN, ["analyse", "table", "--rows", "sex", "--fresh"]], ids=["training", "table"])
def test_an_engine_that_cannot_keep_secrets_is_refused_before_it_starts(
    call: Any, tables: list[str], words: list[str], tmp_path: Path
) -> None:
    given = words if words is RUN else [*words, *tables]
    result = call(*given, "--engine", "ray", "--protect", "secure-aggregation")
    assert result.exit_code == 2
    assert "engine: got ray under protection secure-aggregation" in result.stderr
    assert "want engine inprocess or processes, or protection plain" in result.stderr
    assert "start" not in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_holder_with_the_name_of_a_third_party_is_refused(call: Any, tables: list[str]) -> None:
    words = ["--protect", "homomorphic-encryption", "--protect-option", "key_holder=b"]
    result = call("analyse", "table", "--rows", "sex", "--fresh", *tables, *words)
    assert result.exit_code == 2
    assert "got b both as a holder and as a third party" in result.stderr


def test_a_run_says_its_protection_what_it_moved_and_who_learns_what(call: Any, tables: list[str]) -> None:
    trained = call(*RUN, "--protect", "secure-aggregation")
    assert "Who learns what" in trained.stdout
    assert "coordinator with" in trained.stdout  # the rest of the cell wraps where the terminal is narrow
    assert "protection secure-aggregation: 1 sum over 4 holders" in trained.stdout
    assert "moved" in trained.stdout
    answered = call("analyse", "table", "--rows", "sex", "--fresh", *tables, "--protect", "secure-aggregation")
    assert "protection secure-aggregation: 1 sum over 3 holders" in answered.stdout
    assert "moved" in answered.stdout


def test_the_list_keeps_words_whole_on_a_narrow_terminal(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = call("protections").stdout
    for word in ("coordinator", "contribution", "identity", "homomorphic-encryption", "collude", "survived"):
        assert word in shown
    assert len(shown.splitlines()) < 120
