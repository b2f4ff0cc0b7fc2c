"""A compute process as its node holds it: started, spoken to over pipes, and always stopped.

The process ends when its standard input does, so it cannot outlive the node, however the node ends. Frames go both
ways: eight bytes of lengths, a JSON header, bytes.
"""

import json
import logging
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from typing import IO, Any

from statfed.core.errors import EngineError
from statfed.core.process import how

MODULE = "statfed.strategies.protections._mpc_node"
_LENGTHS = struct.Struct("<II")
log = logging.getLogger("statfed.holder")


class Compute:
    """One compute process. Stopped by `stop`, when this object is forgotten, and when the interpreter exits."""

    def __init__(self) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `stop`
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={name: value for name, value in os.environ.items() if not name.startswith("MPYC")},
        )
        self.stop = weakref.finalize(self, _stop, self.process, self._errors)

    def ask(self, header: Mapping[str, Any], payload: bytes = b"") -> None:
        """Send one request. Raises EngineError when the process has ended."""
        try:
            pipe = self.process.stdin
            assert pipe is not None  # noqa: S101
            pipe.write(framed(header, payload))
            pipe.flush()
        except (OSError, ValueError):
            self._ended()

    def answer(self, patience: float) -> tuple[dict[str, Any], bytes]:
        """The next answer. Raises EngineError with what the process reported, or saying how it ended."""
        deadline = time.monotonic() + patience
        header_size, size = _LENGTHS.unpack(self._read(_LENGTHS.size, deadline))
        header: dict[str, Any] = json.loads(self._read(header_size, deadline))
        payload = self._read(size, deadline)
        if "failed" in header:
            self._log()
            raise EngineError(str(header["failed"]))
        return header, payload

    def _read(self, count: int, deadline: float) -> bytes:
        pipe = self.process.stdout
        assert pipe is not None  # noqa: S101
        found = bytearray()
        while len(found) < count:
            try:
                ready, _, _ = select.select([pipe], [], [], max(deadline - time.monotonic(), 0.0))
                data = os.read(pipe.fileno(), count - len(found)) if ready else None
            except (OSError, ValueError):
                data = b""
            if data is None:
                self.stop()
                raise EngineError("its compute process did not answer in time and was stopped")
            if not data:
                self._ended()
            found += data
        return bytes(found)

    def _ended(self) -> None:
        try:
            code = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = -9
        self._log()
        self.stop()
        raise EngineError(f"its compute process has ended: {how(code)}")

    def _log(self) -> None:
        """What the process wrote about an error stays in this node's own log."""
        if not self._errors.closed:
            self._errors.seek(0)
            said = self._errors.read().decode("utf-8", "replace").strip()
            if said:
                log.error("compute process: %s", said[-4000:])


def _stop(process: "subprocess.Popen[bytes]", errors: IO[bytes]) -> None:
    """End a process for good and reap it."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, errors):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:
            pass


def framed(header: Mapping[str, Any], payload: bytes) -> bytes:
    """One frame."""
    text = json.dumps(dict(header)).encode()
    return _LENGTHS.pack(len(text), len(payload)) + text + payload


def read_frame(pipe: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """The next frame, None at the end of the stream."""
    lengths = pipe.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    header_size, size = _LENGTHS.unpack(lengths)
    header, payload = pipe.read(header_size), pipe.read(size)
    return (json.loads(header), payload) if len(payload) == size else None
