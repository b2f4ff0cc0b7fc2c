"""The channel between compute nodes: streams over mutual TLS, and who is refused."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from statfed.core.errors import EngineError
from statfed.strategies.protections._mpc_channel import METHOD, SERVICE, Channel, Credentials, Link, certificate, der
from statfed.strategies.protections._mpc_node import Node

NAMES = ("node-1", "node-2", "node-3")


class Nodes:
    """Three channels of this process. got: what each has received, by (node, peer); lost: streams that ended."""

    def __init__(self, **pins: bytes) -> None:
        self.own = {name: certificate(name) for name in NAMES}
        self.pems = {name: made.certificate for name, made in self.own.items()} | pins
        self.got: dict[tuple[str, str], bytearray] = {}
        self.links: dict[tuple[str, str], Link] = {}
        self.lost: list[tuple[str, str]] = []
        self.channels = {name: self._channel(name) for name in NAMES}
        self.addresses: dict[str, str] = {}

    def _channel(self, name: str) -> Channel:
        def accept(peer: str, calling: bool) -> Link:
            assert calling == (NAMES.index(name) < NAMES.index(peer))
            got = self.got[name, peer] = bytearray()
            link = self.links[name, peer] = Link(peer, got.extend)
            return link

        return Channel(self.own[name], self.pems, accept, lambda peer: self.lost.append((name, peer)))

    async def listen(self) -> None:
        for name, channel in self.channels.items():
            self.addresses[name] = f"127.0.0.1:{await channel.listen('127.0.0.1', 0)}"

    async def join(self) -> None:
        for channel in self.channels.values():
            channel.call(self.addresses)
        await until(lambda: len(self.links) == 6)

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has to come."""
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.01)


def played(scene: Callable[[Nodes], Coroutine[Any, Any, None]], **pins: bytes) -> Nodes:
    """A scene with three nodes that listen."""

    async def whole() -> Nodes:
        nodes = Nodes(**pins)
        await nodes.listen()
        try:
            await scene(nodes)
        finally:
            await nodes.close()
        return nodes

    return asyncio.run(whole())


async def refused(address: str, peer: str, roots: bytes, own: Credentials | None) -> grpc.StatusCode:
    """What a client with these certificates gets when it opens a stream to `peer`."""
    pair: Mapping[str, bytes] = {"private_key": own.key, "certificate_chain": own.certificate} if own else {}
    credentials = grpc.ssl_channel_credentials(roots, **pair)
    options = [("grpc.ssl_target_name_override", peer)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        stream = channel.stream_stream(f"/{SERVICE}/{METHOD}")(timeout=10)
        with pytest.raises(grpc.RpcError) as caught:
            await stream.read()
        code: grpc.StatusCode = caught.value.code()
        return code


def test_every_pair_of_nodes_exchanges_bytes_in_order() -> None:
    async def scene(nodes: Nodes) -> None:
        await nodes.join()
        for (name, peer), link in nodes.links.items():
            for part in range(30):
                link.writelines([f"{name} to {peer}, ".encode(), bytes([part]) * 100_000])
                await asyncio.sleep(0)
        size = 30 * (100_000 + len(b"node-1 to node-2, "))
        await until(lambda: all(len(got) == size for got in nodes.got.values()))

    nodes = played(scene)
    for (name, peer), got in nodes.got.items():
        want = b"".join(f"{peer} to {name}, ".encode() + bytes([part]) * 100_000 for part in range(30))
        assert got == want


def test_a_client_without_a_certificate_is_refused() -> None:
    async def scene(nodes: Nodes) -> None:
        code = await refused(nodes.addresses["node-2"], "node-2", nodes.pems["node-2"], None)
        assert code is grpc.StatusCode.UNAVAILABLE

    assert not played(scene).links


def test_a_client_with_a_certificate_that_nobody_pinned_is_refused() -> None:
    async def scene(nodes: Nodes) -> None:
        code = await refused(nodes.addresses["node-2"], "node-2", nodes.pems["node-2"], certificate("node-1"))
        assert code is grpc.StatusCode.UNAVAILABLE

    assert not played(scene).links


def test_a_certificate_issued_with_a_nodes_own_key_is_refused() -> None:
    """TLS would take it, since the issuer is trusted: the comparison with the pinned certificates does not."""

    async def scene(nodes: Nodes) -> None:
        issuer = x509.load_pem_x509_certificate(nodes.own["node-3"].certificate)
        secret = serialization.load_pem_private_key(nodes.own["node-3"].key, None)
        assert isinstance(secret, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node-1")]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(secret, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        forged = Credentials("node-1", made.public_bytes(pem), private)
        code = await refused(nodes.addresses["node-2"], "node-2", nodes.pems["node-2"], forged)
        assert code is grpc.StatusCode.PERMISSION_DENIED

    assert not played(scene).links


def test_a_node_cannot_call_out_of_its_place() -> None:
    """node-3 has a good certificate, but does not call node-2: it would take another's stream."""

    async def scene(nodes: Nodes) -> None:
        own = nodes.own["node-3"]
        code = await refused(nodes.addresses["node-2"], "node-2", nodes.pems["node-2"], own)
        assert code is grpc.StatusCode.PERMISSION_DENIED

    assert not played(scene).links


def test_a_second_stream_of_a_node_is_refused() -> None:
    async def scene(nodes: Nodes) -> None:
        await nodes.join()
        own = nodes.own["node-1"]
        code = await refused(nodes.addresses["node-2"], "node-2", nodes.pems["node-2"], own)
        assert code is grpc.StatusCode.PERMISSION_DENIED
        nodes.links["node-1", "node-2"].write(b"still there")
        await until(lambda: nodes.got["node-2", "node-1"] == b"still there")

    played(scene)


def test_a_server_with_another_certificate_is_refused_by_its_clients() -> None:
    async def scene(nodes: Nodes) -> None:
        own = nodes.own["node-1"]
        code = await refused(nodes.addresses["node-2"], "node-2", certificate("node-2").certificate, own)
        assert code is grpc.StatusCode.UNAVAILABLE
        code = await refused(
            nodes.addresses["node-3"], "node-2", nodes.pems["node-2"], own
        )  # a node in another's place
        assert code is grpc.StatusCode.UNAVAILABLE

    assert not played(scene).links


def test_a_node_with_a_wrong_certificate_is_never_joined() -> None:
    async def scene(nodes: Nodes) -> None:
        for channel in nodes.channels.values():
            channel.call(nodes.addresses)
        await until(lambda: ("node-3", "node-1") in nodes.links)
        await asyncio.sleep(0.5)
        assert not {pair for pair in nodes.got if nodes.got[pair]}
        assert ("node-2", "node-1") not in nodes.links
        assert ("node-3", "node-2") not in nodes.links

    played(scene, **{"node-2": certificate("node-2").certificate})


def test_the_end_of_a_stream_is_noticed_at_the_other_end() -> None:
    async def scene(nodes: Nodes) -> None:
        await nodes.join()
        await nodes.channels["node-2"].close()
        await until(lambda: {("node-1", "node-2"), ("node-3", "node-2")} <= set(nodes.lost))
        assert ("node-1", "node-3") not in nodes.lost

    played(scene)


def test_a_node_that_gives_itself_anothers_index_ends_the_run() -> None:
    """MPyC takes the index that a caller states; the certificate says who it is."""

    async def scene() -> None:
        loop = asyncio.get_running_loop()
        parties = [SimpleNamespace(pid=i, protocol=None) for i in range(3)]
        node = Node(SimpleNamespace(pid=2, parties=parties, _loop=loop), certificate("node-3"), list(NAMES))
        node._channel = SimpleNamespace(call=lambda _: None)  # type: ignore[assignment]
        parties[2].protocol.set_result(None)
        node._exchangers = {"node-1": SimpleNamespace(peer_pid=0), "node-2": SimpleNamespace(peer_pid=1)}
        await node.join({}, 1.0)
        node._exchangers["node-2"].peer_pid = 0
        with pytest.raises(EngineError, match="node-2 says that it is another node"):
            await node.join({}, 1.0)

    asyncio.run(scene())


def test_a_private_key_does_not_show() -> None:
    made = certificate("node-1")
    assert "PRIVATE" not in repr(made)
    assert der(made.certificate + b"\n") == der(made.certificate)
