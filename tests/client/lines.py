"""Two parties with a direct line on this machine, and what somebody else may do with it."""

import hashlib
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]

from statfed.client.direct import CALL, LIFETIME, SERVICE, Box, Head, Line, Server, _messages, _proof
from statfed.client.guard.addresses import Direct
from statfed.core.errors import Refused
from statfed.core.identity import Identity
from statfed.core.pilot.certificates import pinned_anchor, pinned_host

AGREEMENT = "ab" * 32


def free() -> str:
    """A free address of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"127.0.0.1:{one.getsockname()[1]}"


class Two:
    """Office calls, bank listens; each has pinned the other, unless a test says that another key stands there."""

    def __init__(self, **settings: Any) -> None:
        office, bank = Identity.ephemeral("office"), Identity.ephemeral("bank")
        self.office = Identity("office", office._key, {"bank": bank.public})
        self.bank = Identity("bank", bank._key, {"office": office.public})
        self.address = free()
        self.direct = Direct(listen=self.address, peers={"office": free()}, **settings)
        self.calling = Direct(listen=free(), peers={"bank": self.address}, seconds=settings.get("seconds", 20.0))

    @contextmanager
    def listening(self, most: int = 10_000_000) -> Iterator[Box]:
        """The bank listens for one run."""
        server = Server(self.bank, self.direct)
        box = server.boxes["run"] = Box(AGREEMENT, frozenset({"office"}), most)
        try:
            yield box
        finally:
            server.stop()

    @contextmanager
    def line(self, caller: Identity | None = None) -> Iterator[Line]:
        line = Line(caller or self.office, self.calling, "bank")
        try:
            yield line
        finally:
            line.close()

    def send(self, content: bytes, **changes: Any) -> None:
        with self.line() as line:
            line.send(head(content, **changes), content)

    def refused(self, content: bytes, caller: Identity | None = None, **changes: Any) -> str:
        """What the calling end says where the line does not carry."""
        try:
            with self.line(caller) as line:
                line.send(head(content, **changes), content)
        except Refused as error:
            return str(error)
        return "not refused"

    def said(self, messages: Iterable[bytes], timeout: float = 20.0, proof: bool = True) -> tuple[grpc.StatusCode, str]:
        """What the bank answers to messages made by hand. proof: with the office's certificate?"""
        own = _proof(self.office) if proof else (None, None)
        trusted = grpc.ssl_channel_credentials(pinned_anchor(self.bank.public, LIFETIME), *own)
        named = (("grpc.ssl_target_name_override", pinned_host(self.bank.public)),)
        with grpc.secure_channel(self.address, trusted, options=named) as channel:
            try:
                channel.stream_unary(f"/{SERVICE}/{CALL}")(iter(messages), timeout=timeout)
            except grpc.RpcError as error:
                return error.code(), str(error.details())
        return grpc.StatusCode.OK, ""


def head(content: bytes, **changes: Any) -> Head:
    facts: dict[str, Any] = {"run": "run", "agreement": AGREEMENT, "size": len(content), "sha256": sha256(content)}
    return Head(**facts | changes)


def messages(content: bytes, **changes: Any) -> list[bytes]:
    return list(_messages(head(content, **changes), content))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def slowly(first: Iterable[bytes], seconds: float) -> Iterator[bytes]:
    """Messages, and then a caller that says nothing more for a while."""
    yield from first
    time.sleep(seconds)
