"""Every port that a pilot's processes listen on, called by whoever has no business there."""

import os
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import Message, Metadata
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message

from statfed.client.guard.policy import Budget, Dataset, HolderName, write_policy
from statfed.client.guard.templates import made
from statfed.client.pilot import joining, serving
from statfed.core.pilot.certificates import new_key
from statfed.server.pilot import hub
from statfed.server.pilot.office import Office, Settings, create
from tests.federation.test_pilot import background, hub_up
from tests.server.test_processes import descendants

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="finds ports through /proc"),
]
CLOSED = {401, 403, 404}
"""What a stranger may be answered; None stands for a connection that was closed."""
ELSEWHERE = (
    *("/", "/docs", "/openapi.json", "/metrics", "/v1/", "/v1/control/StartRun", "/v1/control/list-nodes"),
    *("/v1/control/register-node", "/v1/runtime/AcquireTask", "/v1/runtime/acquire-task", "/v1/runtime/pull-object"),
    *("/flwr.proto.Runtime/AcquireTask", "/flwr.proto.Control/StartRun", "/v1/fleet/../control/StartRun"),
    *("/v1/fleet/%2e%2e/control/StartRun", "//v1/control/StartRun", "/V1/CONTROL/StartRun", "/health/../docs"),
)
FLEET = ("register-node", "activate-node", "pull-messages", "push-messages", "get-run", "push-object", "pull-object")


@dataclass(frozen=True)
class Up:
    """A started pilot. hub: HOST:PORT that parties call; ports: of all its processes; keys: of two parties' nodes."""

    hub: str
    ports: frozenset[int]
    nodes: dict[str, int]
    keys: dict[str, ec.EllipticCurvePrivateKey]


def listening(pids: set[int]) -> frozenset[int]:
    """Ports of TCP on which these processes listen, of any address."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = os.readlink(link)  # noqa: PTH115
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return frozenset(found)


@contextmanager
def party(home: Path) -> Iterator[None]:
    with background(lambda stop: serving.serve(home, stop, lambda *_: None)):
        yield


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    root = tmp_path_factory.mktemp("pilot")
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
    office: Office = create(root / "trade", Settings(name="trade", host="127.0.0.1", port=port))
    keys = {}
    for name in ("istat", "cbs"):
        office.sign(joining.request(root / name, name, "holder"))
        loaded = load_ssh_private_key((root / name / "node.key").read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        keys[name] = loaded
    home = root / "istat"
    joining.join(home, joining.look(home, office.kit("istat")))
    pd.DataFrame({"age": range(20, 70)}).to_csv(home / "people.csv", index=False)
    policy = made(
        "rehearsal",
        holder=HolderName(name="istat"),
        dataset=Dataset(id="istat", path="people.csv", records=50, persons=50),
        budget=Budget(unit="record", epsilon=1.0, delta=1e-6),
    )
    write_policy(policy, home / "policy.toml")
    before = descendants()
    with hub_up(office) as address, party(home):
        waiting = threading.Event()
        for _ in range(600):
            if hub.connected(office)["istat"]:
                break
            waiting.wait(0.1)
        else:
            pytest.fail("istat did not connect")
        pids = (descendants() - before) | {os.getpid()}
        yield Up(address, listening(pids), dict(hub.control_of(office).nodes), keys)


def call(
    port: int, path: str, body: bytes = b"", headers: dict[str, str] | None = None, tls: bool = True
) -> int | None:
    """The status of an answer; None where the connection was closed."""
    kind = {"content-type": "application/protobuf"} | (headers or {})
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with httpx.Client(verify=context, timeout=20) as client:
            url = httpx.URL(f"http{'s' if tls else ''}://127.0.0.1:{port}", raw_path=path.encode())
            return client.send(client.build_request("POST", url, content=body, headers=kind)).status_code
    except httpx.TransportError:
        return None


def signed(key: ec.EllipticCurvePrivateKey, age: timedelta = timedelta(0)) -> dict[str, str]:
    """Headers with which Flower's nodes prove who they are."""
    at = (now() - age).isoformat()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, at.encode("ascii"))).decode(),
        TIMESTAMP_HEADER: at,
    }


def test_a_pilot_listens_on_no_more_than_three_ports_and_gives_strangers_nothing_on_any(up: Up) -> None:
    public = int(up.hub.rpartition(":")[2])
    assert public in up.ports
    assert len(up.ports) == 3  # the hub's public and private one, and the holder's own for its runner
    told: dict[tuple[int, str, bool], int | None] = {}
    for port in up.ports:
        paths = [*ELSEWHERE, *(f"/v1/fleet/{name}" for name in FLEET)]
        for tls in (True, False):
            told |= {(port, path, tls): call(port, path, tls=tls) for path in paths}
    others = {where: status for where, status in told.items() if status is not None and status not in CLOSED}
    # A port without TLS is the SuperNode's own: it wants the secret of its runner, and says so in its own way.
    assert others == {}
    assert all(told[public, path, False] is None for path in ELSEWHERE)


def test_nobody_is_taken_for_another_node_or_registers_itself(up: Up) -> None:
    port, mine, theirs = int(up.hub.rpartition(":")[2]), up.nodes["cbs"], up.nodes["istat"]
    pull, push = "/v1/fleet/pull-messages", "/v1/fleet/push-messages"
    own = PullMessagesRequest(node=Node(node_id=mine)).SerializeToString()
    other = PullMessagesRequest(node=Node(node_id=theirs)).SerializeToString()
    assert call(port, pull, own, signed(up.keys["cbs"])) == 200  # the control: a node with its own key
    assert call(port, pull, other, signed(up.keys["cbs"])) == 401
    stranger = new_key()
    assert call(port, pull, own, signed(stranger)) == 401
    public = public_key_to_bytes(stranger.public_key())
    register = RegisterNodeFleetRequest(public_key=public).SerializeToString()
    activate = ActivateNodeRequest(public_key=public, heartbeat_interval=30).SerializeToString()
    assert call(port, "/v1/fleet/register-node", register, signed(stranger)) == 401
    assert call(port, "/v1/fleet/activate-node", activate, signed(stranger)) == 401
    forged = Message(metadata=Metadata(run_id=1, src_node_id=theirs, reply_to_message_id="00" * 32))
    asked = PushMessagesRequest(node=Node(node_id=mine), messages_list=[forged]).SerializeToString()
    assert call(port, push, asked, signed(up.keys["cbs"])) == 401


def test_a_signed_request_is_good_once_and_for_its_time(up: Up) -> None:
    refused = (401, 429)  # or, after many of them from this address, not listened to
    port, path = int(up.hub.rpartition(":")[2]), "/v1/fleet/pull-messages"
    body = PullMessagesRequest(node=Node(node_id=up.nodes["cbs"])).SerializeToString()
    captured = signed(up.keys["cbs"])
    assert call(port, path, body, captured) == 200
    assert call(port, path, body, captured) in refused  # the same again
    beat = SendNodeHeartbeatRequest(node=Node(node_id=up.nodes["cbs"]), heartbeat_interval=30).SerializeToString()
    assert call(port, "/v1/fleet/send-node-heartbeat", beat, captured) in refused  # its signature under another request
    assert call(port, path, body, signed(up.keys["cbs"], timedelta(minutes=6))) in refused
    assert call(port, path, body, signed(up.keys["cbs"], -timedelta(minutes=1))) in refused
    assert call(port, path, body, captured | {FLEET_HTTP_SIGNATURE_HEADER: b64encode(bytes(70)).decode()}) in refused
