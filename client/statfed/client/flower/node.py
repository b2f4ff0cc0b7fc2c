"""The SuperNode process of a data holder: it carries messages and runs no code.

`supernode` starts it as a child of `statfed.client.flower.runner`; `main` is what runs in the child. It is Flower's own
SuperNode with `isolation="process"`, and only who knows the secret (read from standard input) can take its tasks.
Two things differ from `flower-supernode`: the Runtime API listens on a loopback socket that the parent has bound, so
that no other process can take the port, and the fixed sleeps of Flower's loop (3 s without work, 0.5 s for a reply,
1 s for an object on its way) become short ones.
"""

import argparse
import gc
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from statfed.client.flower._flwr import at_exit, carry_messages, runtime_api, shorten_pauses
from statfed.core.process import OFFLINE, die_with_parent, how

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

STOP_SECONDS = 4.0
SECRET_BYTES = 32
LONGEST_PAUSE = 0.5


@dataclass(frozen=True)
class Link:
    """How a holder reaches its coordinator. superlink: HOST:PORT; poll: seconds between the first looks for work."""

    superlink: str
    root_certificates: Path
    node_key: Path
    poll: float


def pause(poll: float, waited: float) -> float:
    """Seconds to the next look after `waited` seconds in vain: a twentieth of them, so that idling is cheap."""
    return max(poll, min(LONGEST_PAUSE, waited / 20))


@contextmanager
def supernode(link: Link, secret: bytes, ended: Callable[[str], None]) -> Iterator[tuple[str, int]]:
    """A SuperNode child process: yields the address of its Runtime API, and its pid.

    ended: called in a thread, with how the child ended, if it did so before the block.
    """
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-node-", ignore_cleanup_errors=True))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = [sys.executable, "-P", "-m", "statfed.client.flower.node", "--superlink", link.superlink]
        command += ["--root-certificates", str(link.root_certificates), "--node-key", str(link.node_key)]
        command += ["--runtime-fd", str(listener.fileno()), "--poll", str(link.poll), "--parent", str(os.getpid())]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, env=_environment(home), pass_fds=[listener.fileno()], text=True
        )
        stack.callback(_end, child)
        listener.close()
        if child.stdin is not None:
            with suppress(BrokenPipeError), child.stdin:
                child.stdin.write(secret.hex() + "\n")
        leaving = threading.Event()
        threading.Thread(target=_watch, args=(child, leaving, ended), name="supernode", daemon=True).start()
        stack.callback(leaving.set)
        yield address, child.pid


def _environment(home: str) -> dict[str, str]:
    """No setting of Flower's is inherited, and the SuperNode contacts nobody but its SuperLink."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLWR_")}
    return kept | OFFLINE | {"FLWR_HOME": home, "OMP_NUM_THREADS": "1"}


def _watch(child: subprocess.Popen[str], leaving: threading.Event, ended: Callable[[str], None]) -> None:
    code = child.wait()
    if not leaving.is_set():
        ended(how(code))


def _end(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


class _Clock:
    """Stands in for the module `time` in Flower's loop, which sleeps 3 s when idle and 0.5 s during a task."""

    def __init__(self, poll: float) -> None:
        self._poll = poll
        self._idle_since: float | None = None

    def sleep(self, seconds: float) -> None:
        now = time.monotonic()
        if seconds < 1:
            self._idle_since = None
            time.sleep(min(seconds, self._poll))
            return
        self._idle_since = self._idle_since or now
        time.sleep(min(seconds, pause(self._poll, now - self._idle_since)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the Runtime API to the runner and carry messages until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="statfed.client.flower.node")
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT")
    parser.add_argument("--root-certificates", required=True, type=Path)
    parser.add_argument("--node-key", required=True, type=Path)
    parser.add_argument("--runtime-fd", required=True, type=int)
    parser.add_argument("--poll", required=True, type=float)
    parser.add_argument("--parent", required=True, type=int)
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    secret = bytes.fromhex(sys.stdin.readline())
    if len(secret) < SECRET_BYTES:
        sys.exit(f"secret on standard input: got {len(secret)} bytes; want {SECRET_BYTES} or more")
    link = Link(options.superlink, options.root_certificates, options.node_key, options.poll)
    _run(link, secret, socket.socket(fileno=options.runtime_fd))


class Gate:
    """Lets through what the holder's own runner needs, and answers 404 to everything else, pages about the interface
    included: whoever is on this machine learns nothing from the port."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or path == "/health" or path.startswith("/v1/runtime/"):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})


def _run(link: Link, secret: bytes, listener: socket.socket) -> None:
    import uvicorn
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    shorten_pauses(_Clock(link.poll), link.poll)
    key = load_ssh_private_key(link.node_key.read_bytes(), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        sys.exit(f"node key {link.node_key}: got {type(key).__name__}; want a NIST EC private key")
    api, state = runtime_api(secret)
    server = uvicorn.Server(
        uvicorn.Config(
            Gate(api),
            ws="none",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
    )

    serving = threading.Thread(target=server.run, args=([listener],), name="runtime-api", daemon=True)

    def stop() -> None:
        server.should_exit = True
        serving.join(1.0)  # a thread that still runs while the interpreter ends can crash it
        gc.freeze()  # the interpreter then ends at once, and not after half a second

    serving.start()
    at_exit(stop)
    carry_messages(state, link.superlink, link.root_certificates.read_bytes(), key, secret)


if __name__ == "__main__":
    main()
