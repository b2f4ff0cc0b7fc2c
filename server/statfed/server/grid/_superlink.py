"""The SuperLink process of a federation: one Flower application behind two TLS listeners.

    python -m statfed.server.grid._superlink --public-fd N --private-fd N --certificate FILE --key FILE --parent PID \\
        --limits JSON

Holders get only the address of the public listener; what each listener answers, to whom and how much of it, is said in
`_gate`, and what happens before there is a request in `_door`. The sockets are bound by the parent process, which so
knows the ports, and the secret of the private listener is read from standard input: neither a file, nor the command
line, nor the environment shows it, and a holder's process on the same machine cannot use it either.
"""

import argparse
import asyncio
import gc
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from statfed.core.process import die_with_parent
from statfed.server._flwr import knows, superlink
from statfed.server.grid._door import Door, Protocol, Server
from statfed.server.grid._gate import PrivateGate, PublicGate
from statfed.server.limits import LOOPBACK, Limits

KEEP_ALIVE = 75
FILES = 256
"""Files that are open beside connections."""
RENEWAL_SECONDS = 1.0


async def serve(servers: Sequence[Server], sockets: Sequence[socket.socket], certificate: Path, key: Path) -> None:
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


async def _follow(servers: Sequence[Server], certificate: Path, key: Path) -> None:
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


def _make_room(connections: int) -> None:
    """As many open files as these connections need, where the system allows them to this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    want = connections + FILES
    most = want if hard == resource.RLIM_INFINITY else min(want, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


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
    parser.add_argument("--limits", type=Limits.model_validate_json, required=True, metavar="JSON")
    options = parser.parse_args(arguments)
    die_with_parent(options.parent)
    secret = sys.stdin.readline().strip()
    if len(secret) < 32:
        sys.exit(f"secret on standard input: got {len(secret)} characters; want 32 or more")

    app, limits = superlink(), options.limits
    _make_room(limits.connections)

    def server(gate: ASGIApp, *, lifespan: bool) -> Server:
        config = uvicorn.Config(
            gate,
            lifespan="on" if lifespan else "off",
            loop="asyncio",
            http=Protocol,
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
        return Server(config)

    public = PublicGate(app, knows(app), limits)
    servers = [server(public, lifespan=False), server(PrivateGate(app, secret), lifespan=True)]
    doors = [Door(options.public_fd, limits), Door(options.private_fd, LOOPBACK)]
    asyncio.run(serve(servers, doors, options.certificate, options.key))


if __name__ == "__main__":
    main()
