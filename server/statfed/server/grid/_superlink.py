"""The SuperLink process of a local federation: one Flower application behind two TLS listeners.

    python -m statfed.server.grid._superlink --public-fd N --private-fd N --certificate FILE --key FILE --parent PID

Flower's Control and Runtime APIs have no authentication of their own. Holders therefore get only the address of the
public listener, which answers `/v1/fleet/*` (where Flower checks each node's key) and `/health`, 403 to all else,
and 413 to requests above a limit, since Flower reads a request into memory before it checks whose it is.
The private listener answers everything to requests that carry a secret, and 401 to all others, so that a holder's
process on the same machine cannot use it either. The sockets are bound by the parent process, which so knows the
ports, and the secret is read from standard input: neither a file, nor the command line, nor the environment shows it.
"""

import argparse
import asyncio
import contextlib
import gc
import hmac
import math
import signal
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from statfed.core.process import die_with_parent
from statfed.server._flwr import superlink

SECRET_HEADER = "x-statfed-secret"  # noqa: S105  the header's name
FLEET = "/v1/fleet/"
HEALTH = "/health"
KEEP_ALIVE = 75
RENEWAL_SECONDS = 1.0
LARGEST_REQUEST = 256 * 2**20


class PublicGate:
    """Lets through what a holder's node needs, and nothing else, in requests of at most `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int = LARGEST_REQUEST) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (scope["path"].startswith(FLEET) or scope["path"] == HEALTH):
            await _refuse(403, scope, receive, send)
        elif _declared(scope) > self._limit:
            await _cut_off(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        came, begun = 0, False

        async def counted() -> Message:
            nonlocal came
            if came <= self._limit:
                message = await receive()
                came += len(message.get("body", b""))
                if came <= self._limit:
                    return message
            raise _TooLarge(f"request: got more than {self._limit} bytes; want at most as many")

        async def guarded(message: Message) -> None:
            nonlocal begun
            if came <= self._limit:  # else what the application says of the cut-off body is not the answer
                begun = True
                await send(message)

        try:
            await self._app(scope, counted, guarded)
        except Exception:
            if came <= self._limit or begun:  # an answer that has begun cannot become another: the connection is closed
                raise
        if came > self._limit and not begun:
            await _cut_off(scope, receive, send)


class _TooLarge(Exception):
    """Raised where the application reads on, so that it never takes a part for the whole."""


class PrivateGate:
    """Lets through requests that carry the secret. It is compared in constant time."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app = app
        self._secret = secret.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        got = [value for name, value in scope["headers"] if name == SECRET_HEADER.encode("ascii")]
        if scope["type"] != "http" or len(got) != 1 or not hmac.compare_digest(got[0], self._secret):
            return await _refuse(401, scope, receive, send)
        return await self._app(scope, receive, send)


async def _refuse(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        raise RuntimeError(f"connection refused: got {scope['type']}; want http")
    await PlainTextResponse("refused\n", status)(scope, receive, send)


async def _cut_off(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 413 and close the connection, instead of reading what is still to come."""
    await PlainTextResponse("too large\n", 413, {"connection": "close"})(scope, receive, send)


def _declared(scope: Scope) -> float:
    """The length that a request says it has; infinite if that is no number."""
    try:
        return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)
    except ValueError:
        return math.inf


class _Server(uvicorn.Server):
    """Leaves the process's signals alone, since two servers share one event loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(servers: Sequence[_Server], sockets: Sequence[socket.socket], certificate: Path, key: Path) -> None:
    """Serve until told to stop by SIGTERM or SIGINT. A certificate that was renewed is shown from then on."""

    def stop() -> None:
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    following = asyncio.ensure_future(_follow(servers, certificate, key))
    await asyncio.gather(*(server.serve([bound]) for server, bound in zip(servers, sockets, strict=True)))
    following.cancel()
    gc.freeze()  # the interpreter then ends at once, and not after half a second


async def _follow(servers: Sequence[_Server], certificate: Path, key: Path) -> None:
    """Load a certificate that has changed, with its key. One without its key yet is tried again."""
    seen = _stamp(certificate)
    while True:
        await asyncio.sleep(RENEWAL_SECONDS)
        if (now := _stamp(certificate)) in (seen, 0):
            continue
        try:
            for server in servers:
                if server.config.ssl is not None:
                    server.config.ssl.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError):
            continue
        seen = now


def _stamp(path: Path) -> int:
    """When a file was written; 0 where there is none any more."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="statfed.server.grid._superlink")
    parser.add_argument("--public-fd", type=int, required=True)
    parser.add_argument("--private-fd", type=int, required=True)
    parser.add_argument("--certificate", type=Path, required=True)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    secret = sys.stdin.readline().strip()
    if len(secret) < 32:
        sys.exit(f"secret on standard input: got {len(secret)} characters; want 32 or more")

    app = superlink()

    def server(gate: ASGIApp, *, lifespan: bool) -> _Server:
        config = uvicorn.Config(
            gate,
            lifespan="on" if lifespan else "off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            ssl_certfile=options.certificate,
            ssl_keyfile=options.key,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
        config.load()  # reads the key now, so that it may be removed once /health answers
        return _Server(config)

    servers = [server(PublicGate(app), lifespan=False), server(PrivateGate(app, secret), lifespan=True)]
    sockets = [socket.socket(fileno=options.public_fd), socket.socket(fileno=options.private_fd)]
    asyncio.run(serve(servers, sockets, options.certificate, options.key))


if __name__ == "__main__":
    main()
