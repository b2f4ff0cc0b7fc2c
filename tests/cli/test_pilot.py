"""`statfed pilot` and `statfed doctor` from an empty folder: nothing is pinned that nobody compared."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from statfed.cli.main import app


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command in an empty folder; its JSON document."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> Any:
        found = CliRunner().invoke(app, [*words, "--json"])
        assert found.exit_code == code, found.output
        return json.loads(found.stdout)

    return run


def test_from_an_empty_folder_to_parties_that_know_each_other(ask: Any, tmp_path: Path) -> None:
    hub = ask("pilot", "init", "trade", "--host", "127.0.0.1", "--port", "1")
    words = {
        name: ask("pilot", "request", "--name", name, "--home", name, "-o", f"{name}.request")["words"]
        for name in ("istat", "cbs")
    }
    refused = ask("pilot", "sign", "istat.request", code=2)
    assert "got none for istat" in refused["error"]["message"]
    refused = ask("pilot", "sign", "istat.request", "--words", words["cbs"], code=2)
    assert "none that fit istat" in refused["error"]["message"]
    signed = ask("pilot", "sign", "istat.request", "cbs.request", "--words", words["istat"], "--words", words["cbs"])
    assert set(signed["kits"]) == {"istat", "cbs"}
    assert signed["words"] == hub["words"]
    kit = signed["kits"]["istat"]
    ask("pilot", "join", kit, "--home", "istat", "--words", hub["words"], code=2)  # cbs was not compared
    assert not (tmp_path / "istat" / "pilot.toml").exists()
    joined = ask("pilot", "join", kit, "--home", "istat", "--words", hub["words"], "--words", words["cbs"])
    assert list(joined["parties"]) == ["cbs"]
    assert ask("pilot", "join", kit, "--home", "istat")["added"] == []  # once more: nothing to compare
    listed = ask("pilot", "participants")
    assert listed["words"] == words | {"coordinator": hub["words"]}
    ask("pilot", "revoke", "cbs", "--reason", "left the pilot")
    assert ask("pilot", "join", kit, "--home", "istat")["removed"] == ["cbs"]
    assert ask("pilot", "renew")["until"]


def test_doctor_names_what_fails_and_exits_with_4(ask: Any, tmp_path: Path) -> None:
    hub = ask("pilot", "init", "trade", "--host", "127.0.0.1", "--port", "1")
    words = ask("pilot", "request", "--name", "istat", "--home", "istat")["words"]
    kit = ask("pilot", "sign", "istat.request", "--words", words)["kits"]["istat"]
    ask("doctor", "--home", "istat", "--pilot", "nowhere", code=2)
    found = ask("doctor", "--pilot", "trade")
    assert found["failed"] == 0
    assert f"flwr {version('flwr')}" in found["findings"][0]["what"]
    ask("pilot", "join", kit, "--home", "istat", "--words", hub["words"])
    assert ask("doctor", "--home", "istat", "--offline")["failed"] == 0
    found = ask("doctor", "--home", "istat", code=4)
    assert [one["code"] for one in found["findings"] if one["state"] == "failed"] == ["reach"]
    path = tmp_path / "istat" / "pilot.kit"
    path.write_text(path.read_text().replace("127.0.0.1", "127.0.0.2"))
    (tmp_path / "istat" / "node.key").chmod(0o644)
    found = ask("doctor", "--home", "istat", code=4)
    assert [one["code"] for one in found["findings"] if one["state"] == "failed"] == ["modes", "kit"]
    (tmp_path / "trade" / "hub" / "server.key").write_text("")
    found = ask("doctor", "--pilot", "trade", code=4)
    assert [one["code"] for one in found["findings"] if one["state"] == "failed"] == ["key-mismatch"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("init", "Trade", "--host", "hub"), "pilot: name"),
        (("init", "trade", "--host", "hub example"), "pilot: host"),
        (("init", "trade", "--host", "hub", "--port", "99999"), "pilot: port"),
        (("request", "--name", "ISTAT"), "--name"),
        (("sign", "none.request"), "no folder of a pilot here"),
        (("join", "none.kit"), "no such file"),
        (("revoke", "istat", "--reason", "x"), "no folder of a pilot here"),
    ],
)
def test_what_is_wrong_is_said(ask: Any, words: tuple[str, ...], told: str) -> None:
    assert told in ask("pilot", *words, code=2)["error"]["message"]
