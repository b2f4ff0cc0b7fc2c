"""One process a role, from the command line: whatever ends it leaves none behind, and what it left stands in nobody's
way. The party calls through a proxy, which sees whom it calls and nothing else."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from statfed.client.guard.policy import Budget, Dataset, HolderName, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining
from statfed.core.errors import EngineError
from statfed.server.pilot import hub
from statfed.server.pilot.office import Office, Settings, create
from tests.connect import proxy
from tests.server.test_processes import descendants, gone

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc"),
]


@pytest.fixture
def office(tmp_path: Path, free_port: int) -> Office:
    made_here = create(tmp_path / "a trade", Settings(name="trade", host="127.0.0.1", port=free_port))
    home = tmp_path / "an istat"
    joining.join(home, joining.look(home, made_here.sign(joining.request(home, "istat", "holder"))))
    policy = made(
        "rehearsal",
        holder=HolderName(name="istat"),
        dataset=Dataset(id="istat", path="people.csv", records=50, persons=50, codebooks=("0" * 64,)),
        budget=Budget(unit="record", epsilon=1.0, delta=1e-6),
    )
    write_policy(policy, home / "policy.toml")
    return made_here


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command of statfed, which is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []
    program = "from statfed.cli.main import main; main()"

    def start(*words: str) -> subprocess.Popen[bytes]:
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        with (tmp_path / f"{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen([sys.executable, "-c", program, *words], stdout=log, stderr=log, env=kept))
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.wait()


def until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.1)


def online(office: Office) -> bool:
    try:
        return hub.connected(office)["istat"]
    except EngineError:
        return False


def test_processes_end_with_their_command_and_what_a_killed_one_leaves_stands_in_nobodys_way(
    office: Office, command: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    coordinate = ("coordinator", "start", "--pilot", str(office.root), "--host", "127.0.0.1")
    with proxy() as seen:
        first = command(*coordinate)
        holder = command("holder", "start", "--home", str(tmp_path / "an istat"), "--proxy", seen.url)
        until(lambda: online(office))

        ours = below(first.pid)
        first.kill()
        first.wait()
        assert len(ours) == 1
        assert gone(ours)
        control = office.root / "hub" / hub.CONTROL
        left = json.loads(control.read_text())
        control.write_text(json.dumps(left | {"pid": os.getpid()}))  # its number has become another process's
        with pytest.raises(EngineError, match="got none that is up"):
            hub.control_of(office)
        assert not hub.stop_hub(office)

        second = command(*coordinate)
        until(lambda: online(office))
        assert hub.control_of(office).pid == second.pid
        assert hub.control_of(office).secret != left["secret"]

        started = descendants() - {second.pid}
        holder.kill()
        holder.wait()
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
        assert gone(started)
        assert len(started) == 4  # SuperLink, holder, runner, SuperNode
        assert not control.exists()

    called = f"CONNECT {office.settings.address} HTTP/1.[01]\r\n".encode()
    assert len(seen.heads) > 1
    for head in seen.heads:
        assert re.match(called, head)
        assert b"flwr" not in head.lower()
    assert {first[:2] for first in seen.inside} == {b"\x16\x03"}


def below(parent: int) -> set[int]:
    """Processes that were told to end with this one."""
    told = (b"--parent", str(parent).encode())
    return {pid for pid in descendants() if told in pairwise(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))}


@pytest.fixture
def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
