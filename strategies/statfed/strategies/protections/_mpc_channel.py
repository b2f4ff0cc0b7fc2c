"""Streams of bytes between compute nodes: gRPC over mutual TLS, with certificates pinned one by one.

Each node makes a P-256 key and a self-signed certificate for one run (`certificate`); the private key stays in its
process. The node's identity signs the certificate, and the others take it only with that signature, so an identity
key that was compared by hand is what a connection rests on in the end; there is no authority. A client trusts the
certificate of the node that it calls and no other, so only the holder of that key can answer. A server wants a client
certificate, and then compares it with the other nodes': what a node's key has issued to somebody else is none of
them. It takes the peer's name from the certificate.

Of two nodes the one with the lower index calls the other. A stream has an end: when it is lost, so is the run.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from statfed.core.errors import EngineError

SERVICE, METHOD = "statfed.MultiParty", "Stream"
LIFETIME, CLOCK_SKEW = timedelta(days=7), timedelta(minutes=5)
CHUNK = 1 << 20


@dataclass(frozen=True)
class Credentials:
    """A node's key and certificate for one run, in PEM. The key never leaves the process that made it."""

    name: str
    certificate: bytes
    key: bytes = field(repr=False)


def certificate(name: str) -> Credentials:
    """A new P-256 key with a self-signed certificate for the node `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(name, made.public_bytes(serialization.Encoding.PEM), secret)


class Link:
    """One end of a stream to a peer, with those methods of an asyncio transport that MPyC uses. What is written
    while the stream is busy travels together."""

    def __init__(self, peer: str, received: Callable[[bytes], None]) -> None:
        self.peer, self._received = peer, received
        self._waiting = bytearray()
        self._wake = asyncio.Event()
        self.sent = 0

    def write(self, data: bytes | bytearray) -> None:
        """Send bytes, some time."""
        self._waiting += data
        self._wake.set()

    def writelines(self, parts: list[bytes]) -> None:
        """Send bytes, some time."""
        self.write(b"".join(parts))

    async def run(self, read: Callable[[], Awaitable[object]], write: Callable[[bytes], Awaitable[object]]) -> None:
        """Carry bytes both ways until the peer ends the stream. Raises grpc.RpcError when the stream breaks."""
        sending = asyncio.create_task(self._send(write))
        try:
            while isinstance(data := await read(), bytes):
                self._received(data)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            data, self._waiting = self._waiting, bytearray()
            for start in range(0, len(data), CHUNK):
                part = bytes(data[start : start + CHUNK])
                await write(part)
                self.sent += len(part)


@dataclass
class Channel:
    """A node's streams to the others.

    certificates: all nodes' PEM by name, in the order of the nodes. accept: makes the link of a stream, given the
    peer's name and if this node is the one that calls. lost: called with the peer's name when its stream has ended.
    """

    own: Credentials
    certificates: Mapping[str, bytes]
    accept: Callable[[str, bool], Link]
    lost: Callable[[str], None]
    _server: grpc.aio.Server | None = None
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _callers: set[str] = field(default_factory=set)

    async def listen(self, host: str, port: int) -> int:
        """Serve at an address; port 0 takes a free one. Result: the port. Raises EngineError when it is taken."""
        others = [pem for name, pem in self.certificates.items() if name != self.own.name]
        credentials = grpc.ssl_server_credentials(
            [(self.own.key, self.own.certificate)], root_certificates=b"".join(others), require_client_auth=True
        )
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        try:
            bound: int = self._server.add_secure_port(f"{host}:{port}", credentials)
        except RuntimeError:
            raise EngineError(f"channel: cannot listen at {host}:{port}") from None
        await self._server.start()
        return bound

    def call(self, addresses: Mapping[str, str]) -> None:
        """Connect to every node with a higher index, waiting until it is there."""
        names = list(self.certificates)
        for peer in names[names.index(self.own.name) + 1 :]:
            self._tasks.append(asyncio.create_task(self._call(peer, addresses[peer])))

    async def close(self) -> None:
        """End every stream."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(None)

    async def _call(self, peer: str, address: str) -> None:
        credentials = grpc.ssl_channel_credentials(self.certificates[peer], self.own.key, self.own.certificate)
        options = [("grpc.ssl_target_name_override", peer), ("grpc.enable_http_proxy", 0)]
        try:
            async with grpc.aio.secure_channel(address, credentials, options) as channel:
                stream = channel.stream_stream(f"/{SERVICE}/{METHOD}")(wait_for_ready=True)
                await self.accept(peer, True).run(stream.read, stream.write)
        except grpc.RpcError:
            pass  # said by `lost`
        finally:
            self.lost(peer)

    async def _serve(self, _requests: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        peer = self._caller(context)
        if peer is None or peer in self._callers:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "want one stream of each node with a lower index")
        assert peer is not None  # noqa: S101  # abort raises
        self._callers.add(peer)
        try:
            await self.accept(peer, False).run(context.read, context.write)
        finally:
            self.lost(peer)

    def _caller(self, context: "grpc.aio.ServicerContext[bytes, bytes]") -> str | None:
        """The node whose certificate the client has shown, if it may call this one."""
        shown = [der(pem) for pem in context.auth_context().get("x509_pem_cert", ())]
        names = list(self.certificates)
        for name in names[: names.index(self.own.name)]:
            if shown == [der(self.certificates[name])]:
                return name
        return None


def der(pem: bytes) -> bytes:
    """A certificate's binary form, whatever the line ends of its text."""
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
