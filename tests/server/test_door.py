"""The hub's gate at a real listener: no TLS, garbage, many connections, and heads, bodies and readers that are slow."""

import asyncio
import asyncio.constants
import resource
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from pathlib import Path

import pytest
import uvicorn
from starlette.types import ASGIApp

from statfed.core.pilot.certificates import new_authority, new_key, server_certificate, server_pem
from statfed.server.grid import _door, _superlink
from statfed.server.grid._door import Door, Protocol, Server
from statfed.server.grid._gate import OBJECTS, SMALL, Buckets, PublicGate
from statfed.server.limits import MIB, Limits
from tests.server.test_gate import PULL, Clock, Reading, generous, known


class Listener:
    """A gate at a real listener with TLS. port, and the authority's certificate."""

    def __init__(self, folder: Path, app: ASGIApp | None = None, **limits: int) -> None:
        authority, key, hour = new_authority("a", timedelta(hours=1)), new_key(), timedelta(hours=1)
        (folder / "pem").write_bytes(server_certificate(authority, "hub", ["127.0.0.1"], key.public_key(), hour))
        (folder / "key").write_bytes(server_pem(key))
        self.app = Reading()
        config = uvicorn.Config(
            PublicGate(app or self.app, known, Limits(**limits)),
            http=Protocol,
            loop="asyncio",
            lifespan="off",
            ws="none",
            log_level="critical",
            ssl_certfile=folder / "pem",
            ssl_keyfile=folder / "key",
            timeout_graceful_shutdown=1,
        )
        self.server = Server(config)
        self.door = Door(socket.create_server(("127.0.0.1", 0)).detach(), Limits(**limits))
        self.port = self.door.getsockname()[1]
        self.tls = ssl.create_default_context(cadata=authority.pem.decode())
        self.thread = threading.Thread(target=self.server.run, args=([self.door],))

    def __enter__(self) -> "Listener":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    def plain(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def secure(self) -> ssl.SSLSocket:
        return self.tls.wrap_socket(self.plain(), server_hostname="127.0.0.1")

    def says(self, *parts: bytes) -> bytes:
        """What comes back until the listener hangs up."""
        try:
            with closing(self.secure()) as connection:
                return said(connection, *parts)
        except TimeoutError:
            raise
        except OSError:  # hung up on in the handshake
            return b""


def said(connection: socket.socket, *parts: bytes) -> bytes:
    try:
        for each in parts:
            connection.sendall(each)
        return connection.makefile("rb").read()
    except (ConnectionError, ssl.SSLError):
        return b""


def head(path: str = PULL, *fields: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    monkeypatch.setattr(_door, "HANDSHAKE", 0.3)
    monkeypatch.setattr(_door, "HEAD", 0.3)
    with Listener(tmp_path, connections=12, connections_per_address=8, refusals_per_minute=100) as found:
        yield found


def alive(listener: Listener) -> bool:
    """Does a node that is known get its answer?"""
    fields = ("flwr-public-key: registered", "content-length: 2", "connection: close")
    return listener.says(head(PULL, *fields), b"ab").startswith(b"HTTP/1.1 200")


def test_no_tls_garbage_and_handshakes_that_do_not_end_are_hung_up_on(listener: Listener) -> None:
    for sent in (b"GET /health HTTP/1.1\r\n\r\n", bytes(range(256)) * 64, b"\x16\x03\x01\x02\x00\x01", b""):
        with closing(listener.plain()) as connection:
            assert b"HTTP/1.1 2" not in said(connection, sent)
    assert alive(listener)


def test_heads_that_do_not_end_or_are_huge_are_cut_off(listener: Listener) -> None:
    assert listener.says() == b""  # a handshake, and then nothing
    assert listener.says(head()[:-2], b"x: y\r\n") == b""
    huge = listener.says(head()[:-2], *[b"x" * 1000 + b": " + b"y" * 10_000 + b"\r\n"] * 40, b"\r\n")
    assert huge == b"" or huge.startswith(b"HTTP/1.1 431")
    assert listener.says(b"\x00\x01garbage\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert alive(listener)
    assert listener.app.read == [2]


def test_a_second_head_on_a_connection_has_to_end_as_well(listener: Listener) -> None:
    fields = ("flwr-public-key: registered", "content-length: 2")
    with closing(listener.secure()) as connection:
        connection.sendall(head(PULL, *fields) + b"ab")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert b"HTTP" not in said(connection, head()[:-2])


def test_more_connections_than_one_address_may_have_are_hung_up_on_and_room_is_made_again(listener: Listener) -> None:
    with ExitStack() as stack:
        inside = [stack.enter_context(closing(listener.plain())) for _ in range(30)]
        assert not alive(listener)
        for connection in inside[8:]:
            assert said(connection) == b""
    end = time.monotonic() + 10
    while listener.door._inside and time.monotonic() < end:  # until their going has been seen
        time.sleep(0.01)
    assert alive(listener)


def test_an_answer_is_not_cut_off_while_it_is_read_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn's own timer would close it: here after no time at all, if it counted the answer as handed over."""
    with Listener(tmp_path, generous) as listener:
        listener.server.config.timeout_keep_alive = 0
        monkeypatch.setattr(asyncio.constants, "SSL_SHUTDOWN_TIMEOUT", 0.5)  # before the reader wakes
        with closing(listener.plain()) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            with closing(listener.tls.wrap_socket(plain, server_hostname="127.0.0.1")) as connection:
                connection.sendall(head(OBJECTS, "flwr-public-key: registered", "content-length: 0"))
                time.sleep(1)
                read = 0
                while more := connection.recv(65536):
                    read += len(more)
                    if read > 8 * MIB:
                        break
    assert read > 8 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="calls from several addresses of loopback")
def test_the_door_counts_all_addresses_together_each_alone_and_each_by_the_minute() -> None:
    def let_in(sources: list[int], **limits: int) -> list[int]:
        """From which addresses connections come in, of those that are made one after the other and kept."""
        with ExitStack() as stack:
            door = stack.enter_context(Door(socket.create_server(("127.0.0.1", 0)).detach(), Limits(**limits)))
            door.setblocking(False)
            door._came = Buckets(limits.get("connects_per_minute", 1000), Clock())
            found = []
            for source in sources:
                here = (f"127.0.0.{source}", 0)
                stack.enter_context(socket.create_connection(door.getsockname(), timeout=5, source_address=here))
                try:
                    guest, (address, _) = door.accept()
                except BlockingIOError:
                    continue
                stack.callback(guest.close)
                found.append(int(address.rpartition(".")[2]))
                if limits.get("connects_per_minute") == 10:
                    guest.close()
            assert all(count > 0 for count in door._inside.values())
        assert not door._inside
        return found

    assert let_in([2] * 6 + [3] * 3, connections_per_address=4) == [2] * 4 + [3] * 3
    assert let_in([2, 3, 4] * 4, connections=8, connections_per_address=4) == ([2, 3, 4] * 4)[:8]
    assert let_in([2] * 12 + [3], connects_per_minute=10) == [2] * 10 + [3]


def test_a_body_that_is_too_large_is_refused_before_it_comes(listener: Listener) -> None:
    fields = ("flwr-public-key: registered", f"content-length: {SMALL + 1}")
    assert listener.says(head(PULL, *fields)).startswith(b"HTTP/1.1 413")
    assert listener.says(head(PULL, "content-length: 10")).startswith(b"HTTP/1.1 401")
    assert listener.app.read == []


def test_there_are_files_for_as_many_connections_as_may_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[object] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))
    for now, want in (
        ((256, 4096), [(768, 4096)]),
        ((256, 512), [(512, 512)]),
        ((1024, 4096), []),
        ((256, resource.RLIM_INFINITY), [(768, resource.RLIM_INFINITY)]),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), []),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _, now=now: now)
        set_to.clear()
        _superlink._make_room(512)
        assert set_to == want
