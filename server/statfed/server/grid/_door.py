"""The way into a SuperLink before there is a request: connections, handshakes and heads, limited in number and time.

A connection counts from its first packet until it is closed, so that those without TLS, and those that never finish
their handshake, count too. Too many are hung up on without a word: there is no TLS yet to say one in.
"""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from statfed.server.grid._gate import Buckets, address_of
from statfed.server.limits import Limits

HANDSHAKE = 10.0
"""Seconds for a TLS handshake."""
HEAD = 20.0
"""Seconds for the head of a request, from the connection or its first byte on."""
LARGEST_HEAD = 32 * 1024


class Door(socket.socket):
    """A listening socket that lets in so many at once, in all and from one address, and so many a minute.

    asyncio accepts by calling `accept`, and closes by calling `close`.
    """

    def __init__(self, descriptor: int, limits: Limits) -> None:
        super().__init__(fileno=descriptor)
        self._limits = limits
        self._inside: Counter[str] = Counter()
        self._came = Buckets(limits.connects_per_minute)

    def accept(self) -> "tuple[socket.socket, Any]":
        """The next connection that may come in. Raises BlockingIOError where there is none."""
        while True:
            plain, peer = super().accept()
            address = address_of(peer[:2])
            if self._may_enter(address):
                self._inside[address] += 1
                return _Guest(plain, partial(self._leaves, address)), peer
            plain.close()

    def _may_enter(self, address: str) -> bool:
        if self._came.empty(address):
            return False
        self._came.take(address)
        inside = self._inside
        return inside.total() < self._limits.connections and inside[address] < self._limits.connections_per_address

    def _leaves(self, address: str) -> None:
        self._inside[address] -= 1
        self._inside += Counter()  # forgets who is not inside


class _Guest(socket.socket):
    """A connection that says when it is closed."""

    def __init__(self, plain: socket.socket, leaves: Callable[[], None]) -> None:
        super().__init__(plain.family, plain.type, plain.proto, plain.detach())
        self._leaves: Callable[[], None] | None = leaves

    def close(self) -> None:
        """Close, and say so once."""
        super().close()
        if self._leaves is not None:
            leaves, self._leaves = self._leaves, None
            leaves()


class Protocol(HttpToolsProtocol):
    """uvicorn's own, with an end to waiting for the head of a request and to its length."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A head has to come soon."""
        super().connection_made(transport)
        self._head, self._timer = 0, self.loop.call_later(HEAD, transport.close)

    def data_received(self, data: bytes) -> None:
        """More of a head, or of a body, which the gate looks after."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the head is whole
            self._timer.cancel()
            self._head = 0
            return
        if self._timer.cancelled():
            self._timer = self.loop.call_later(HEAD, self.transport.close)
        self._head += len(data)
        if self._head > LARGEST_HEAD and not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        self._timer.cancel()
        super().connection_lost(exc)


class Server(uvicorn.Server):
    """Serves at a door. It leaves the process's signals alone, since two servers share one event loop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own, which has no way to say how long a handshake may take."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return

        def protocol() -> asyncio.Protocol:
            made: Any = self.config.http_protocol_class
            found: asyncio.Protocol = made(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return found

        loop, tls = asyncio.get_running_loop(), self.config.ssl
        self.servers = [
            await loop.create_server(
                protocol,
                sock=door,
                ssl=tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=HANDSHAKE if tls else None,
            )
            for door in sockets or ()
        ]
        self.started = True
