"""Processes that end with their parent, as real processes, and how an end is worded."""

import signal
import subprocess
import sys

import pytest

from statfed.core.process import how

_CHILD = """
import os, signal, sys, time
from statfed.core import process
{setting}
def say(number, frame):
    print("got", signal.Signals(number).name, flush=True)
    if {obedient}:
        sys.exit()
signal.signal(signal.SIGTERM, say)
process.die_with_parent(os.getppid())
print("ready", flush=True)
time.sleep(30)
print("outlived its parent")
"""
_PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"


@pytest.mark.parametrize(
    ("setting", "obedient", "said"),
    [
        pytest.param("process.PARENT_POLL = 1e6", True, "got SIGTERM\n", id="told by the kernel"),
        pytest.param("sys.platform = 'darwin'", True, "got SIGTERM\n", id="found by the poll"),
        pytest.param("sys.platform = 'darwin'; process.LAST_RESORT = 0.1", False, "got SIGTERM\n", id="deaf"),
    ],
)
def test_a_child_ends_with_its_killed_parent(setting: str, obedient: bool, said: str) -> None:
    if setting.startswith("process") and sys.platform != "linux":
        pytest.skip("only Linux's kernel tells")
    child = _CHILD.format(setting=setting, obedient=obedient)
    command = [sys.executable, "-c", _PARENT, child]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        parent.kill()
        assert parent.stdout.read() == said  # returns at the end of the child, which holds the other end of the pipe


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit status 0"), (71, "exit status 71"), (-9, "killed by SIGKILL"), (-15, "killed by SIGTERM")],
)
def test_an_end_is_worded(code: int, words: str) -> None:
    assert how(code) == words


def test_a_signal_without_a_name_is_worded_by_its_number() -> None:
    unnamed = next(number for number in range(1, 65) if number not in set(signal.Signals))
    assert how(-unnamed) == f"killed by {unnamed}"


def test_what_a_real_process_ended_by_is_worded() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        process.send_signal(signal.SIGKILL)
    assert how(process.returncode) == "killed by SIGKILL"
