"""Rehearsals of a pilot: the guide's commands lead to a result, and the line that fails fails as it says."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from statfed.lab.pilot.proxy import Fault, proxy

GUIDE = Path(__file__).parents[2] / "docs" / "pilot.md"


@pytest.mark.processes
def test_the_shortest_path_of_the_guide_leads_from_empty_folders_to_the_pooled_result(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "statfed.lab.pilot.demo", "--short", "--keep", str(tmp_path / "demo")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    typed = re.findall(r"^ *[0-9.]+ s  ([a-z]+)\$ (statfed .*)$", done.stdout, re.MULTILINE)
    path = GUIDE.read_text(encoding="utf-8").split("## Shortest path")[1].split("##")[0]
    rows = [line.split("|")[1:3] for line in path.splitlines() if line.startswith(("| `", "| |"))]
    wanted = {
        (role, line) for row in rows for role, cell in enumerate(row) for line in re.findall(r"`(statfed .*?)`", cell)
    }
    assert len(wanted) >= 10
    shown = {
        (0 if role == "coordinator" else 1, re.sub(r"--host \S+", "--host hub.example", line)) for role, line in typed
    }
    assert wanted <= shown
    assert not [pid for pid in _running() if str(tmp_path) in pid]


def _running() -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield entry.read_bytes().decode(errors="replace")
        except OSError:
            continue


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that sends back what it has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                while content := connection.recv(4096):
                    connection.sendall(content)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def say(port: int, content: bytes, wait: float = 0.5) -> bytes:
    """What comes back until nothing more does."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(content)
        connection.settimeout(wait)
        found = b""
        try:
            while more := connection.recv(4096):
                found += more
        except (TimeoutError, ConnectionResetError):
            pass
        return found


@pytest.mark.parametrize(
    ("fault", "comes"),
    [
        (None, b"abc"),
        ("cut", b""),
        ("refuse", b""),
        ("stall", b""),
        ("drop", b""),
        ("reset", b""),
        ("double", b"abcabc"),
    ],
)
def test_a_line_does_to_bytes_what_it_says_and_is_whole_again(
    echo: tuple[str, int], fault: Fault | None, comes: bytes
) -> None:
    with proxy(echo) as made:
        made.line.fault, made.line.after = fault, 2
        assert say(made.port, b"abc") == comes
        made.heal()
        assert say(made.port, b"abc") == b"abc"


def test_what_was_sent_is_sent_again_to_whom_it_was_sent(echo: tuple[str, int]) -> None:
    with proxy(echo) as made:
        say(made.port, b"abc")
        assert [bytes(one) for one in made.taken] == [b"abc"]
        assert made.replay(0.3) == 1
