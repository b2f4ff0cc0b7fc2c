"""A direct line between two parties: bytes in chunks over gRPC, both ends proven by their pinned identity keys.

Each end makes a passing key and has its identity key sign a certificate of it (`statfed.core.pilot.certificates`); what
it trusts of the other is made from the other's pinned public key. No authority of the machine is looked at, TLS 1.3 is
wanted, and whoever has no pinned key gets no further than the handshake. Who calls is who signed: the certificate is
held against the pins again before a byte is taken.

What travels is what would have gone through the coordinator, sealed for the same reader: a line that failed here would
show what the coordinator sees without one. `Box` is where it waits until its reader asks for it. A line also carries
connections of programs that have a protocol of their own (`statfed.client.tunnel`).
"""

import hashlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from pydantic import Field, ValidationError

from statfed.client.guard.addresses import Direct
from statfed.client.tunnel import connected, read, write
from statfed.core.errors import Refused, harmless
from statfed.core.identity import Identity
from statfed.core.pilot.certificates import (
    is_pinned,
    new_key,
    pinned_anchor,
    pinned_certificate,
    pinned_host,
    server_pem,
)
from statfed.core.section import Strict

CHUNK = 2**18
"""Bytes of one message."""
HEADER = 2**10
LIFETIME = timedelta(days=7)
"""Of a passing key: made anew for every handshake that a party answers, and for every line that it opens."""
ATTEMPTS, PAUSE = 3, 0.5
SERVICE, CALL, TUNNEL = "statfed.Direct", "Deliver", "Tunnel"
CONNECTIONS = 16
"""Most calls of one peer at a time."""
_OPTIONS = (
    ("grpc.max_receive_message_length", CHUNK + HEADER),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
)
_SERVING = (*_OPTIONS, ("grpc.so_reuseport", 0), ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000))
_CALLING = (*_OPTIONS, ("grpc.initial_reconnect_backoff_ms", 200), ("grpc.min_reconnect_backoff_ms", 200))
log = logging.getLogger("statfed.holder")
os.environ.setdefault("GRPC_VERBOSITY", "error")  # as Flower does: before the first line is opened


class Head(Strict):
    """What goes before the bytes. agreement: of the run, as the sender has it; sha256: of all bytes."""

    run: str = Field(max_length=200)
    agreement: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def chunks(self) -> int:
        """How many messages follow."""
        return chunks_of(self.size)


def chunks_of(size: int) -> int:
    """How many messages `size` bytes take."""
    return -(-size // CHUNK)


@dataclass
class Box:
    """What has arrived for one run and waits. names: parties that may send; agreement: theirs and this party's;
    programs: by party, the Unix socket here that its connections lead to."""

    agreement: str
    names: frozenset[str]
    most: int
    programs: dict[str, Path] = field(default_factory=dict)
    _held: dict[tuple[str, str], bytes] = field(default_factory=dict, repr=False)
    _had: set[tuple[str, str]] = field(default_factory=set, repr=False)
    _taken: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    closed: bool = False

    def reserve(self, size: int, until: float) -> bool:
        """Wait for room for `size` bytes; False where there is none by then (monotonic seconds)."""
        with self._changed:
            while self._taken + size > self.most and not self.closed:
                if not self._changed.wait(max(0.0, until - time.monotonic())):
                    return False
            self._taken += size
            return not self.closed

    def free(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def known(self, sender: str, sha256: str) -> bool:
        """Was this sent before?"""
        with self._changed:
            return (sender, sha256) in self._had

    def put(self, sender: str, sha256: str, content: bytes) -> None:
        """Keep what has arrived, for which there is room. Once: what came a second time gives its room back."""
        with self._changed:
            if (sender, sha256) in self._had:
                self._taken -= len(content)
            else:
                self._had.add((sender, sha256))
                self._held[sender, sha256] = content

    def take(self, sender: str, sha256: str) -> bytes | None:
        """What `sender` has sent, once; None where it is not here, or no longer."""
        with self._changed:
            found = self._held.pop((sender, sha256), None)
            if found is not None:
                self._taken -= len(found)
                self._changed.notify_all()
            return found

    def close(self) -> None:
        """Forget everything; whoever waits for room gets none."""
        with self._changed:
            self.closed = True
            self._held.clear()
            self._changed.notify_all()


class _Refusal(Exception):
    """What the caller is told: a status and public words."""

    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


class Server:
    """The listening end of a party, for all runs that are open here.

    Raises Refused where its address cannot be had.
    """

    def __init__(self, identity: Identity, direct: Direct) -> None:
        self.identity, self.direct = identity, direct
        self.boxes: dict[str, Box] = {}
        self._pins = {name: key for name, key in identity.pins.items() if name in direct.peers}
        many = CONNECTIONS * max(1, len(self._pins))
        self._server = grpc.server(ThreadPoolExecutor(many), options=_SERVING, maximum_concurrent_rpcs=many)
        calls = {
            CALL: grpc.stream_unary_rpc_method_handler(self._deliver),
            TUNNEL: grpc.stream_stream_rpc_method_handler(self._tunnel),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, calls),))
        shown = self._shown()
        credentials = grpc.dynamic_ssl_server_credentials(shown, self._shown, require_client_authentication=True)
        try:
            port = self._server.add_secure_port(str(direct.listen), credentials)
        except RuntimeError:
            port = 0
        if not port:
            log.error("direct: cannot listen at %s", direct.listen)
            raise Refused("direct: this party cannot listen at its own address; want [direct] listen that is free")
        self._server.start()

    def _shown(self) -> Any:
        """What a caller is shown, and whom it has to be signed by: made anew, since certificates end."""
        anchors = b"".join(pinned_anchor(key, LIFETIME) for key in self._pins.values())
        return grpc.ssl_server_certificate_configuration([_proof(self.identity)], anchors)

    def stop(self) -> None:
        """Close the address. What is on its way is lost."""
        for box in self.boxes.values():
            box.close()
        self._server.stop(None).wait()

    def _deliver(self, messages: Iterator[bytes], context: Any) -> bytes:
        """One delivery. The answer is empty: it is there, whole."""
        until = time.monotonic() + self.direct.seconds
        late = threading.Timer(self.direct.seconds, context.cancel)  # of a caller that sends slowly, or nothing
        late.daemon = True
        late.start()
        try:
            self._received(self._caller(context), messages, until)
        except _Refusal as refusal:
            log.warning("direct: refused: %s", refusal.text)
            context.abort(refusal.code, refusal.text)
        finally:
            late.cancel()
        return b""

    def _tunnel(self, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One connection of a peer's program, which leads to this party's own."""
        try:
            link = self._reached(self._caller(context), messages)
        except _Refusal as refusal:
            log.warning("direct: refused: %s", refusal.text)
            context.abort(refusal.code, refusal.text)
            return
        context.add_callback(lambda: link.shutdown(socket.SHUT_RDWR) if link.fileno() >= 0 else None)
        threading.Thread(target=write, args=(link, messages), daemon=True).start()
        with link:
            yield from read(link)

    def _reached(self, sender: str, messages: Iterator[bytes]) -> socket.socket:
        """A connection to this party's program, for its like at `sender`."""
        program = self._box(_head(next(messages, b"")), sender).programs.get(sender)
        if program is None:
            raise _Refusal(grpc.StatusCode.FAILED_PRECONDITION, "tunnel: got none that is open here")
        try:
            return connected(program)
        except OSError:
            text = "tunnel: got no program that listens here"
            raise _Refusal(grpc.StatusCode.FAILED_PRECONDITION, text) from None

    def _box(self, head: Head, sender: str) -> Box:
        """Where this party waits for what a head is about."""
        box = self.boxes.get(head.run)
        if box is None or sender not in box.names or head.agreement != box.agreement:
            raise _Refusal(grpc.StatusCode.PERMISSION_DENIED, "run: got none that is open here with this caller")
        return box

    def _caller(self, context: Any) -> str:
        """Whose identity key has signed the caller's certificate."""
        proof = context.auth_context()
        if proof.get("ssl_tls_version") != [b"TLSv1.3"]:
            raise _Refusal(
                grpc.StatusCode.UNAUTHENTICATED, "line: got no TLSv1.3 for certain; want it, and grpcio 1.85"
            )
        (shown,) = proof.get("x509_pem_cert", [b""])
        for name, key in self._pins.items():
            if is_pinned(shown, key):
                return name
        raise _Refusal(grpc.StatusCode.UNAUTHENTICATED, "line: got a certificate that no pinned key has signed")

    def _received(self, sender: str, messages: Iterator[bytes], until: float) -> None:
        head = _head(next(messages, b""))
        box = self._box(head, sender)
        if head.size > box.most:
            text = f"packet: got {head.size} bytes; want at most {box.most} (direct.megabytes)"
            raise _Refusal(grpc.StatusCode.OUT_OF_RANGE, text)
        if box.known(sender, head.sha256):
            raise _Refusal(grpc.StatusCode.ALREADY_EXISTS, "packet: got it before; want each once")
        if not box.reserve(head.size, until):
            text = f"packet: got {head.size} bytes, with others that wait; want {box.most} together (direct.megabytes)"
            raise _Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        try:
            content = _content(head, messages)
        except BaseException:
            box.free(head.size)
            raise
        box.put(sender, head.sha256, content)


def _head(message: bytes) -> Head:
    try:
        if len(message) > HEADER:
            raise ValueError
        return Head.model_validate(json.loads(message))
    except (ValueError, ValidationError):
        raise _Refusal(grpc.StatusCode.INVALID_ARGUMENT, "head: got none that can be read; want one first") from None


def _content(head: Head, messages: Iterator[bytes]) -> bytes:
    """The bytes, whole. No memory is taken before they come."""
    parts, size = [], 0
    for message in messages:
        size += len(message)
        if len(message) > CHUNK or size > head.size:
            raise _Refusal(grpc.StatusCode.OUT_OF_RANGE, f"packet: got more than the {head.size} bytes it said")
        parts.append(message)
    content = b"".join(parts)
    if size != head.size or len(parts) != head.chunks:
        text = f"packet: got {size} bytes in {len(parts)} chunks; want {head.size} in {head.chunks}"
        raise _Refusal(grpc.StatusCode.DATA_LOSS, text)
    if hashlib.sha256(content).hexdigest() != head.sha256:
        raise _Refusal(grpc.StatusCode.DATA_LOSS, "packet: got other bytes than it said; want the same SHA-256")
    return content


class Line:
    """The calling end: from one party to one other. Raises Refused, in public words, where the line does not carry."""

    def __init__(self, identity: Identity, direct: Direct, peer: str) -> None:
        if peer not in direct.peers or peer not in identity.pins:
            raise Refused(f"direct: got no address, or no pinned key, of {peer}; want both at this party")
        self._peer, self._seconds, self._address = peer, direct.seconds, direct.peers[peer]
        key = identity.pins[peer]
        credentials = grpc.ssl_channel_credentials(pinned_anchor(key, LIFETIME), *_proof(identity))
        named = ("grpc.ssl_target_name_override", pinned_host(key))
        self._channel = grpc.secure_channel(self._address, credentials, options=(*_CALLING, named))
        self._call = self._channel.stream_unary(f"/{SERVICE}/{CALL}")
        self._stream = self._channel.stream_stream(f"/{SERVICE}/{TUNNEL}")

    def close(self) -> None:
        """End it."""
        self._channel.close()

    def send(self, head: Head, content: bytes) -> None:
        """Deliver a packet; it is at the other end when this returns. A line that was lost is opened again, twice."""
        until = time.monotonic() + self._seconds
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._call(_messages(head, content), timeout=max(0.0, until - time.monotonic()))
                return
            except grpc.RpcError as error:
                code, details = error.code(), str(error.details())
            if code is grpc.StatusCode.ALREADY_EXISTS:
                return  # the receipt of an earlier attempt was lost
            if code is not grpc.StatusCode.UNAVAILABLE or attempt == ATTEMPTS:
                log.error("direct: %s at %s: %s: %s", self._peer, self._address, code.name, harmless(details, 300))
                raise Refused(self._told(code, details, head.size))
            time.sleep(PAUSE)

    def stream(self, head: Head, chunks: Iterator[bytes]) -> Any:
        """A two-way stream to the other's program: iterate for what comes back, `cancel` to end it."""
        return self._stream(chain([head.model_dump_json().encode()], chunks))

    def _told(self, code: grpc.StatusCode, details: str, size: int) -> str:
        """What the coordinator is told: no address, and the other's words only where they are of its own."""
        if code is grpc.StatusCode.UNAVAILABLE:
            got = "got no line: nobody answers there, or one of both ends has not the key that the other has pinned"
            want = "want both to listen, with each other's keys; nothing goes through the coordinator instead"
        elif code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            got = f"got no receipt of {size} bytes within {self._seconds:g} s, or of this party's time there"
            want = "want a faster line, or a longer direct.seconds at both ends"
        else:
            got, want = f"it refused {size} bytes: {harmless(details, 200)}", "want them taken"
        return f"direct: {self._peer}: {got}; {want}"


def _messages(head: Head, content: bytes) -> Iterator[bytes]:
    """The head, and the chunks after it, each made when there is room for it on the line."""
    yield head.model_dump_json().encode()
    view = memoryview(content)
    for start in range(0, len(content), CHUNK):
        yield bytes(view[start : start + CHUNK])


def _proof(identity: Identity) -> tuple[bytes, bytes]:
    """A passing key and its certificate."""
    key = new_key()
    return server_pem(key), pinned_certificate(identity, key.public_key(), LIFETIME)
