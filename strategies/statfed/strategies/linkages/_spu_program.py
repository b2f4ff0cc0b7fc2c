"""SPU as a program beside this one: in its own environment, its own process and a folder that nobody else can open.

It gets tags in a file, two Unix sockets of the folder to talk on, and what to do on standard input; nothing secret is
in arguments or the environment. What it leaves is believed as far as it can be: its version, its counts, and that what
it found are tags of the list that it was given. It ends with this process, at its time, or when the run does.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import weakref
from binascii import hexlify, unhexlify
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused
from statfed.core.process import how
from statfed.strategies.linkages import _spu_sidecar
from statfed.strategies.linkages._tags import SIZE, TAG

VARIABLE = "STATFED_SPU_PYTHON"
VERSION = "0.9.5"
COMMANDS = (
    "python3.11 -m venv /opt/statfed-spu",
    f"/opt/statfed-spu/bin/pip install spu=={VERSION}",
    f"export {VARIABLE}=/opt/statfed-spu/bin/python",
)
"""What makes SPU's environment (Python 3.10 or 3.11, Linux, 75 MB): at each of the two holders."""
_HEADER, _LINE = b"tag\n", 2 * SIZE + 1
_TRACE = re.compile(r"Trace has been written to (/tmp/psi_[A-Za-z0-9_-]{8,32}\.trace)")


def python() -> Path:
    """The interpreter of SPU's environment. Raises Refused, with the commands that make one, where there is none."""
    wanted = f"want {VARIABLE} with the python of an environment that has spu {VERSION}: {'; '.join(COMMANDS)}"
    said = os.environ.get(VARIABLE)
    if not said:
        raise Refused(f"spu: got no {VARIABLE}; {wanted}")
    path = Path(said)
    if not path.is_absolute() or not os.access(path, os.X_OK) or not path.is_file():
        raise Refused(f"spu: got {VARIABLE} that is no program with an absolute path; {wanted}")
    look = "import importlib.metadata as found; print(found.version('spu'))"
    try:
        told = subprocess.run(
            [str(path), "-I", "-c", look], env=_environment(Path("/")), capture_output=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        raise Refused(f"spu: got {VARIABLE} whose environment has no spu; {wanted}") from None
    if told.stdout.strip() != VERSION.encode():
        raise Refused(f"spu: got another version than {VERSION}; {wanted}")
    return path


class Program:
    """One set intersection at one holder. tags: its list, (n,) of `TAG`, in the order in which SPU is to have it.

    own, other: sockets at which this holder's program listens, and at which it calls the other's.
    """

    def __init__(self, tags: NDArray[np.void]) -> None:
        self._python = python()
        self._folder = Path(tempfile.mkdtemp(prefix="statfed-spu-"))  # mode 0700
        self.own, self.other = self._folder / "own", self._folder / "other"
        self._count = len(tags)
        self._running: list[subprocess.Popen[bytes]] = []
        self._end = weakref.finalize(self, _ended, self._running, self._folder)
        with _private(self._folder / "input.csv") as file:
            file.write(_HEADER)
            file.write(_lines(tags))

    def __repr__(self) -> str:
        return "Program(<private>)"

    def start(self, run: str, names: tuple[str, str], own: str, receiver: str, protocol: str, seconds: float) -> None:
        """Start it. names: both holders, in the order that both have them; own: whose this is."""
        sockets = [(name, str(self.own if name == own else self.other)) for name in names]
        given: dict[str, Any] = {
            "run": run,
            "sockets": sockets,
            "rank": names.index(own),
            "receiver": names.index(receiver),
            "protocol": protocol,
            "seconds": seconds,
            "folder": str(self._folder),
            **{name: str(self._folder / file) for name, file in _FILES.items()},
        }
        with _private(self._folder / "log") as log:
            process = subprocess.Popen(
                [str(self._python), "-I", str(Path(_spu_sidecar.__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_environment(self._folder),
                cwd=self._folder,
                umask=0o077,
                start_new_session=True,
            )
        self._running.append(process)
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # it has ended: `found` says how
                process.stdin.write(json.dumps(given).encode() + b"\n")
                process.stdin.flush()

    def found(self, seconds: float, *, receives: bool) -> NDArray[np.void]:
        """Wait for its end; the tags that both lists have, at the holder that receives them, none at the other.

        Raises EngineError where it did not end well or in time, or left what cannot be.
        """
        if not self._running:
            raise EngineError("spu: got no program that runs; want it started")
        try:
            code = self._running[0].wait(seconds)
        except subprocess.TimeoutExpired:
            raise EngineError(f"spu: got no result within {seconds:g} s; want it, or more seconds") from None
        if code:
            raise EngineError(f"spu: its program ended with {how(code)}; want 0. It said last: {self._said()}")
        report = self._report()
        if report.get("spu") != VERSION or report.get("items") != self._count:
            raise EngineError(f"spu: got a report of another version or list; want {VERSION} and {self._count} items")
        if not receives:
            if (self._folder / _FILES["output"]).exists():
                raise EngineError("spu: got a result at the holder that is to learn nothing; want none")
            return np.zeros(0, TAG)
        tags = self._output()
        if report.get("found") != len(tags):
            raise EngineError(f"spu: got {len(tags)} tags; want {report.get('found')!r}, as it reports")
        return tags

    def close(self) -> None:
        """End it, whatever it does, and forget its folder."""
        self._end()

    def _report(self) -> dict[str, Any]:
        try:
            found = json.loads(_limited(self._folder / _FILES["report"], 4096))
        except (OSError, ValueError):
            raise EngineError("spu: got no report that can be read; want one") from None
        return found if isinstance(found, dict) else {}

    def _output(self) -> NDArray[np.void]:
        try:
            content = _limited(self._folder / _FILES["output"], 16 + _LINE * self._count)
            head, _, body = content.partition(b"\n")
            if head.strip(b'"') != _HEADER.strip() or len(body) % _LINE:
                raise ValueError
            lines = np.frombuffer(body, np.uint8).reshape(-1, _LINE)
            if (lines[:, -1] != ord("\n")).any():
                raise ValueError
            return np.frombuffer(unhexlify(lines[:, :-1].tobytes()), TAG)
        except (OSError, ValueError):
            raise EngineError("spu: got a result that cannot be read; want a tag a line, of the list at most") from None

    def _said(self) -> str:
        """The last words of its log; for this holder's own log, and a rehearsal."""
        with suppress(OSError):
            lines = (self._folder / "log").read_bytes()[-2000:].decode(errors="replace").strip().splitlines()
            return lines[-1][:300] if lines else "nothing"
        return "nothing"


_FILES = {"input": "input.csv", "output": "output.csv", "report": "report.json"}


def _lines(tags: NDArray[np.void]) -> bytes:
    """Tags in hexadecimal digits, a line each."""
    lines = np.full((len(tags), _LINE), ord("\n"), np.uint8)
    lines[:, :-1] = np.frombuffer(hexlify(np.ascontiguousarray(tags).tobytes()), np.uint8).reshape(-1, 2 * SIZE)
    return lines.tobytes()


def _limited(path: Path, most: int) -> bytes:
    """A file's content. Raises ValueError where it is longer than `most` bytes."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{path.name}: got more than {most} bytes")
    return content


def _private(path: Path) -> Any:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of this process's own, but how many threads it may take."""
    kept = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    return {"TMPDIR": str(folder), "HOME": str(folder), "LANG": "C.UTF-8", **kept}


def _ended(running: list[subprocess.Popen[bytes]], folder: Path) -> None:
    """Kill a program and what it started, and forget its folder, and the trace of times that SPU leaves elsewhere."""
    for process in running:
        if process.poll() is None:  # else its number may be another's by now
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()
        process.wait()
    with suppress(OSError):
        for trace in _TRACE.findall((folder / "log").read_text(errors="replace")):
            Path(trace).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
