"""Files for service managers: they start what there is, as who they should, and survive any path that a folder has."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.pilot import joining
from statfed.core.errors import UsageError
from statfed.core.pilot.services import INSIDE, Service, files, quoted
from statfed.core.process import OFFLINE
from statfed.server.pilot.office import open_office

HUB = Service(
    "coordinator",
    "trade",
    Path("/srv/a trade/100% $HOME"),
    Path("/opt/stat fed/bin/statfed"),
    "0.1.0",
    ("statfed", 998, 997),
    options=("--host", "0.0.0.0", "--port", "18443"),  # noqa: S104
    port=18443,
)
PARTY = replace(
    HUB,
    role="holder",
    name="istat",
    options=("--proxy", "http://proxy.example:3128"),
    port=None,
    reads=(Path("/data/the people.parquet"),),
)


def understood(words: Sequence[str]) -> dict[str, Any]:
    """The options that our own command line reads in these words. Raises where there is no such command or option."""
    found: Any = typer.main.get_command(app)
    left, context = list(words), None
    while True:
        context = found.make_context(found.name, left, parent=context)
        if not hasattr(found, "resolve_command"):
            return dict(context.params)
        _, found, left = found.resolve_command(context, [*context._protected_args, *context.args])


def started(unit: str) -> list[str]:
    """The words of ExecStart as systemd reads them."""
    (line,) = re.findall("^ExecStart=(.*)$", unit, re.MULTILINE)
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


def composed(service: Service) -> dict[str, Any]:
    document = yaml.safe_load(files(service)["compose.yaml"])
    assert list(document) == ["services"]
    assert list(document["services"]) == [service.unit]
    found: dict[str, Any] = document["services"][service.unit]
    return found


@pytest.mark.parametrize("service", [HUB, PARTY])
def test_every_command_is_one_of_ours_with_the_folder_and_options_that_were_given(service: Service) -> None:
    made, (where, inside) = files(service), ("pilot", "/pilot") if service is HUB else ("home", "/party")
    program, *words = started(made[f"{service.unit}.service"])
    assert program == str(service.program)
    contained = yaml.safe_load(re.findall("^CMD (.*)$", made["Containerfile"], re.MULTILINE)[0])
    found = composed(service)
    health = found["healthcheck"]["test"]
    assert health[:2] == ["CMD", INSIDE]
    for each, folder in ((words, str(service.folder)), (contained, inside), (found["command"], inside)):
        assert each[:2] == [service.role, "start"]
        options = understood(each)
        assert str(options.pop(where)) == folder
        want = {"host": "0.0.0.0", "port": 18443} if service is HUB else {"proxy": "http://proxy.example:3128"}  # noqa: S104
        assert options == want
    assert str(understood(health[2:])[where]) == inside
    with pytest.raises(Exception, match="No such option"):
        understood([*words, "--no-such-option"])


@pytest.mark.parametrize("service", [HUB, PARTY])
def test_nothing_is_fetched_and_nobody_is_called_but_the_peers(service: Service) -> None:
    made = files(service)
    for name, value in OFFLINE.items():
        assert f'Environment="{name}={value}"' in made[f"{service.unit}.service"]
        assert f"{name}={value}" in made["Containerfile"]
    assert "--no-index" in made["Containerfile"]
    for text in made.values():
        assert "http" not in text.replace("http://proxy.example:3128", "")
    (base,) = re.findall("^ARG BASE=(.*)$", made["Containerfile"], re.MULTILINE)
    assert "/" not in base  # the name of an image alone


def test_a_container_has_no_privileges_and_sees_its_folder_and_its_data_alone() -> None:
    hub, party = composed(HUB), composed(PARTY)
    for found in (hub, party):
        assert found["user"] == "998:997"
        assert (found["read_only"], found["cap_drop"]) == (True, ["ALL"])
    assert (hub["ports"], party.get("ports")) == (["18443:18443"], None)
    assert hub["volumes"] == [{"type": "bind", "source": "/srv/a trade/100% $$HOME", "target": "/pilot"}]
    assert party["volumes"][1:] == [
        {"type": "bind", "source": "/data/the people.parquet", "target": "/data/the people.parquet", "read_only": True}
    ]
    low = replace(HUB, port=443)
    assert composed(low)["sysctls"] == {"net.ipv4.ip_unprivileged_port_start": 0}
    unit = files(low)[f"{HUB.unit}.service"]
    assert "\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n" in unit
    assert "\nCapabilityBoundingSet=\n" in files(HUB)[f"{HUB.unit}.service"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="has no systemd")
@pytest.mark.parametrize("service", [HUB, PARTY])
def test_systemd_finds_nothing_wrong_with_the_unit(service: Service, tmp_path: Path) -> None:
    program = tmp_path / "a bin" / "statfed"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    path = tmp_path / f"{service.unit}.service"
    for folder, text in ((service.folder, ""), (tmp_path / 'it"s', "\nNoSuchSetting=1\n")):
        made = replace(service, program=program, folder=folder, owner=("root", 0, 0))
        path.write_text(files(made)[path.name].replace("[Install]", f"{text}[Install]"))
        command = ["systemd-analyze", "verify", "--man=no", str(path)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        said = [line for line in found.stderr.splitlines() if path.name in line]
        assert bool(said) is bool(text), said


@given(st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1))
def test_a_word_of_any_characters_comes_back_from_quotes(word: str) -> None:
    (back,) = shlex.split(quoted(word))
    assert back.replace("%%", "%").replace("$$", "$") == word


@pytest.mark.parametrize("path", ["relative", "/a\nUser=root", "/a\0b"])
def test_a_path_that_no_file_can_hold_is_refused(path: str) -> None:
    for changed in (
        replace(HUB, folder=Path(path)),
        replace(HUB, program=Path(path)),
        replace(PARTY, reads=(Path(path),)),
    ):
        with pytest.raises(UsageError, match="want an absolute one of printable characters"):
            files(changed)


def test_a_quoted_password_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the commands themselves, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "bin" / "statfed"
    program.parent.mkdir()
    program.touch()
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))

    def ask(*words: str, code: int = 0) -> str:
        found = CliRunner().invoke(app, words)
        assert found.exit_code == code, found.output
        return found.output

    ask("pilot", "init", "trade", "--host", "127.0.0.1")
    ask("coordinator", "files", "-o", "hub files")
    assert {one.name for one in Path("hub files").iterdir()} == set(files(HUB))
    ask("coordinator", "files", "-o", "hub files", code=2)
    ask("coordinator", "files", "-o", "hub files", "--overwrite")
    ask("holder", "files", "-o", "party", code=2)
    home = tmp_path / "istat"
    kit = open_office(tmp_path / "trade").sign(joining.request(home, "istat", "holder"))
    joining.join(home, joining.look(home, kit))
    named = ("holder", "files", "-o", "party", "--home", "istat", "--proxy")
    assert "HTTPS_PROXY" in ask(*named, "http://me:secret@p:1", code=2)
    ask(*named, "http://p:1", "--data", "nothing", code=2)
    ask(*named, "http://p:1", "--data", "bin")
    unit = (tmp_path / "party" / "statfed-holder-istat.service").read_text()
    assert started(unit) == [str(program), "holder", "start", "--home", str(home), "--proxy", "http://p:1"]
    assert "User=root" not in unit
