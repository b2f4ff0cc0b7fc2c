"""A party that runs: what stands against it is said in words, once for each cause, and mended causes are taken back."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import pytest

from statfed.client.flower import runner
from statfed.client.guard.policy import Budget, Dataset, HolderName, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining, serving
from statfed.client.pilot.serving import Told
from statfed.core.errors import UsageError
from statfed.core.pilot.certificates import Authority, new_authority, new_key, node_pem
from statfed.core.pilot.checks import Finding
from statfed.core.pilot.files import alone, replace_file
from statfed.server.pilot.office import Office, Settings, create
from tests.core.test_pilot import hub


@pytest.fixture
def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def nobody(free_port: int) -> Iterator[None]:
    """Nothing listens on the hub's port, and no other process can."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", free_port))
        yield


@pytest.fixture
def office(tmp_path: Path, free_port: int) -> Office:
    return create(tmp_path / "trade", Settings(name="trade", host="127.0.0.1", port=free_port))


@pytest.fixture
def home(tmp_path: Path, office: Office, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that has joined, whose runner is a stand-in that does nothing, and is looked after often."""
    found = tmp_path / "my home"
    kit = office.sign(joining.request(found, "istat", "holder"))
    joining.join(found, joining.look(found, kit))
    policy = made(
        "rehearsal",
        holder=HolderName(name="istat"),
        dataset=Dataset(id="istat", path="people.csv", records=50, persons=50, codebooks=("0" * 64,)),
        budget=Budget(unit="record", epsilon=1.0, delta=1e-6),
    )
    write_policy(policy, found / "policy.toml")
    idle = tmp_path / "idle"
    idle.write_text("#!/bin/sh\nexec sleep 60\n")
    idle.chmod(0o755)
    monkeypatch.setattr(serving, "PYTHON", str(idle))
    for name in ("FIRST_LOOK", "NEXT_LOOK", "SHORTEST"):
        monkeypatch.setattr(serving, name, 0.05)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    return found


def test_a_runner_calls_its_own_supernode_by_no_proxy_and_the_hub_by_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:2", "no_proxy": "other.example", "A": "b"}
    monkeypatch.setattr(os, "environ", environment)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def begun(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(runner, "supernode", begun)
    words = [
        "--home",
        ".",
        "--superlink",
        "hub.example:1",
        "--root-certificates",
        "c",
        "--node-key",
        "k",
        "--bundle-sha256",
        "0",
    ]
    with pytest.raises(LookupError):
        runner.main(words)
    assert environment == {"HTTPS_PROXY": "http://p:2", "A": "b"}


class Running:
    """A party in the background. said: what it has logged, beginning with its code."""

    def __init__(self, home: Path, caplog: pytest.LogCaptureFixture) -> None:
        self._home, self._caplog = home, caplog
        self.stop = threading.Event()
        self.begun: list[str] = []
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        serving.serve(self._home, self.stop, lambda how, _: self.begun.append(how))

    def __enter__(self) -> "Running":
        self._caplog.set_level(logging.INFO, "statfed.holder")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._thread.join()

    def said(self) -> list[str]:
        return [one.getMessage() for one in self._caplog.records if one.name == "statfed.holder"]

    def until(self, wanted: Callable[[], bool]) -> None:
        end = time.monotonic() + 20
        while not wanted():
            assert time.monotonic() < end, self.said()
            time.sleep(0.02)

    def hears(self, text: str) -> None:
        self.until(lambda: any(text in one for one in self.said()))


@pytest.fixture
def running(home: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Running]:
    with Running(home, caplog) as found:
        yield found


def serve_at(folder: Path, port: int, authority: Authority, node: str = "known") -> AbstractContextManager[str]:
    folder.mkdir(exist_ok=True)
    return hub(folder, authority, port=port, node=node)


def test_a_connection_that_fails_is_explained_once_for_each_cause_and_taken_back(
    running: Running, office: Office, free_port: int, tmp_path: Path
) -> None:
    running.hears("reach: 127.0.0.1")
    time.sleep(0.5)
    assert len([one for one in running.said() if one.startswith("reach")]) == 1
    with serve_at(tmp_path / "s", free_port, new_authority("another", timedelta(days=1))):
        running.hears("certificate-authority: 127.0.0.1: got a certificate by CN=another")
        running.hears("reach: mended")
    with serve_at(tmp_path / "s", free_port, office.authority, node="unknown"):
        running.hears("node-unknown")
    with serve_at(tmp_path / "s", free_port, office.authority):
        running.hears("node-unknown: mended")
    assert len(running.begun) == 1  # the runner itself goes on


@pytest.mark.usefixtures("nobody")
def test_a_kit_that_was_edited_or_lost_and_a_key_that_was_replaced_are_said_while_it_runs(
    running: Running, home: Path
) -> None:
    kit, key = (home / "pilot.kit").read_text(), (home / "node.key").read_bytes()
    running.until(lambda: bool(running.begun))
    replace_file(home / "pilot.kit", kit.replace("127.0.0.1", "127.0.0.2"))
    running.hears("kit: ")
    (home / "pilot.kit").unlink()
    running.hears("no such file")
    replace_file(home / "pilot.kit", kit)
    running.hears("kit: mended")
    replace_file(home / "node.key", node_pem(new_key()).decode())
    running.hears("made out to istat with other keys")
    replace_file(home / "node.key", key.decode())
    running.until(lambda: len([one for one in running.said() if one == "kit: mended"]) == 2)


@pytest.mark.usefixtures("nobody")
def test_a_runner_is_not_started_again_under_a_kit_that_was_edited_and_is_once_it_was_mended(
    home: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "idle").write_text("#!/bin/sh\nexit 3\n")
    kit = (home / "pilot.kit").read_text()
    with Running(home, caplog) as running:
        running.hears("the runner ended (exit status 3)")
        replace_file(home / "pilot.kit", kit.replace("trade", "Trade"))
        running.hears("kit: ")
        time.sleep(0.3)
        before = len(running.begun)
        time.sleep(0.3)
        assert len(running.begun) == before
        replace_file(home / "pilot.kit", kit)
        running.until(lambda: len(running.begun) > before)


def test_a_home_is_served_by_one_process_and_a_proxy_that_is_none_stops_it_before_it_starts(
    home: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with alone(home / serving.LOCK, "holder"), pytest.raises(UsageError, match="got one that is up"):
        serving.serve(home, threading.Event(), lambda *_: None)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://p:1")
    with pytest.raises(UsageError, match="HTTPS_PROXY: got a proxy that is asked by socks5"):
        serving.serve(home, threading.Event(), lambda *_: None)
    monkeypatch.setenv("HTTPS_PROXY", "http://p.invalid:1")
    with Running(home, caplog) as running:
        running.until(lambda: bool(running.begun))
        assert running.begun[0].endswith(" through p.invalid:1")  # and nobody has to guess
        running.hears("name: p.invalid")


def test_a_cause_is_told_again_once_it_was_mended_or_got_worse_and_never_for_its_numbers_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def late(days: int) -> Finding:
        return Finding("x", "warning", f"{days} days")

    caplog.set_level(logging.INFO, "statfed.holder")
    told, well, blocked = Told(), Finding("x", "ok", "well"), Finding("y", "failed", "before it")
    for found in ([late(3)], [late(2)], [blocked], [late(1)], [well], [late(9)], [Finding("x", "failed", "now")], []):
        told.tell(found)
    said = [f"{one.levelname[0]} {one.getMessage()}" for one in caplog.records]
    assert said == [
        "W x: 3 days",
        "E y: before it",
        "I x: mended",
        "I y: mended",
        "W x: 9 days",
        "E x: now",
        "I x: mended",
    ]
