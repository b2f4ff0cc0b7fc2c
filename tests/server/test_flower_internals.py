"""Flower's internals: one module a room uses them, the installed version was tried, and each use does what it says."""

import ast
import hashlib
import socket
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import numpy as np
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from packaging.requirements import Requirement

from statfed.client.flower import _flwr as holder
from statfed.client.flower.node import Gate
from statfed.core.errors import EngineError
from statfed.core.pilot.bundle import bundle
from statfed.server import _flwr as coordinator
from statfed.server.grid import _pki
from statfed.server.grid._holder_app import holder_app

ROOT = Path(__file__).parents[2]
ROOMS = sorted(path.parent for path in ROOT.glob("*/statfed"))
BEHIND = {ROOT / "server/statfed/server/_flwr.py", ROOT / "client/statfed/client/flower/_flwr.py"}
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.simulation"}
STATE = {"_message_id", "_src_node_id", "_dst_node_id", "_content", "_error", "_metadata", "_client"}


def beyond_public(source: str) -> list[str]:
    """What a module's source uses of Flower beyond its public API: imports, and private state of other objects."""
    tree = ast.parse(source)
    found, imports_flower = [], False
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module == "flwr":
            names = [f"flwr.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        flower = [name for name in names if name.partition(".")[0] == "flwr"]
        imports_flower |= bool(flower) or any(name.endswith("._flwr") for name in names)
        found += [f"line {node.lineno}: import of {name}" for name in flower if name not in PUBLIC]  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "import_module":
            found += [f"line {node.lineno}: {ast.unparse(node)}" for a in node.args if "'flwr" in ast.unparse(a)]
    for node in ast.walk(tree) if imports_flower else ():
        own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if isinstance(node, ast.Attribute) and not own and (node.attr in STATE or node.attr == "__dict__"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.Constant) and node.value in STATE:
            found.append(f"line {node.lineno}: {node.value!r}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vars":
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


def test_no_other_module_of_any_room_reaches_behind_flowers_public_api() -> None:
    assert {"core", "server", "client", "strategies", "cli"} <= {room.name for room in ROOMS}
    assert all(path.exists() for path in BEHIND)
    found = []
    for path in sorted(p for room in ROOMS for p in room.rglob("*.py")):
        if path not in BEHIND:
            found += [f"{path.relative_to(ROOT)}, {what}" for what in beyond_public(path.read_text())]
    assert not found, "\n".join([*found, "want it in the room's _flwr.py, as a function that says what it does"])


@pytest.mark.parametrize(
    "source",
    [
        "from flwr.common.constant import ErrorCode",
        "from flwr import supercore",
        "import flwr.proto.node_pb2",
        "def f():\n    from flwr.serverapp.strategy.strategy_utils import x",
        "import importlib\nimportlib.import_module('os')\nimport_module('flwr.supernode.main')",
        "from flwr.app import Message\nm.metadata.__dict__['x'] = 1",
        "from flwr.app import Message\nvars(m.metadata)['x'] = 1",
        "from flwr.serverapp import Grid\ngrid._client = 1",
        "from flwr.app import Message\nd['_message_id'] = 1",
    ],
)
def test_the_walk_sees(source: str) -> None:
    assert beyond_public(source)
    assert not beyond_public("from flwr.app import Message\nself._client = 1")


def test_the_installed_flower_was_tried() -> None:
    assert coordinator.TRIED == holder.TRIED, "want the same versions in both rooms"
    assert version("flwr") in coordinator.TRIED, (
        f"flwr: got {version('flwr')}; tried with {', '.join(coordinator.TRIED)}. Read what changed of the modules "
        "that the two _flwr.py import, run tests/server and tests/client/test_flower_*, mend what broke, and add the "
        "version to TRIED in both rooms and to pyproject.toml"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [r for r in map(Requirement, project["dependencies"]) if r.name == "flwr"]
    assert [one for one in coordinator.TRIED if one not in wanted.specifier] == []
    minors = sorted({int(one.split(".")[1]) for one in coordinator.TRIED})
    assert f"1.{minors[-1] + 1}.0" not in wanted.specifier
    assert f"1.{minors[0] - 1}.0" not in wanted.specifier


def message() -> Message:
    """A message to node 7 of run 3, of task 5."""
    coordinator.act_for(run=3, task=5)
    content = RecordDict({"config": ConfigRecord({"a": 1, "b": b"\x00"})})
    content["arrays"] = ArrayRecord({"w": Array(np.arange(3.0))})
    return Message(content, 7, "query.ask")


def test_messages_are_of_the_run_and_task_that_this_process_acts_for() -> None:
    meta = message().metadata
    assert (meta.run_id, meta.src_task_id, meta.dst_node_id) == (3, 5, 7)
    assert meta.src_node_id == SUPERLINK_NODE_ID
    holder._act_for(4, 6, 9)
    meta = Message(RecordDict(), 1, "query.ask").metadata
    assert (meta.run_id, meta.src_task_id, meta.src_node_id) == (4, 6, 9)


@pytest.mark.parametrize("set_id", [coordinator.set_id, holder.set_id])
def test_a_reply_carries_the_id_that_was_set(set_id: Any) -> None:
    asked = message()
    set_id(asked, "the id")
    assert asked.metadata.message_id == "the id"
    assert Message(RecordDict(), reply_to=asked).metadata.reply_to_message_id == "the id"


def test_a_reply_is_from_the_node_that_was_set() -> None:
    asked = message()
    coordinator.set_id(asked, "1")
    reply = Message(Error(coordinator.UNAVAILABLE, "gone"), reply_to=asked)
    coordinator.set_source(reply, 11)
    assert reply.metadata.src_node_id == 11


def test_what_arrives_over_the_wire_is_what_was_sent_and_nothing_is_shared() -> None:
    sent = message()
    coordinator.set_id(sent, "17")
    arrived = coordinator.over_the_wire(sent)
    assert arrived is not sent
    assert arrived.metadata == sent.metadata
    assert arrived.content == sent.content
    arrived.content.config_records["config"]["a"] = 2
    assert sent.content["config"]["a"] == 1
    failed = Message(Error(coordinator.APP_RAISED, "ValueError"), reply_to=sent)
    assert coordinator.over_the_wire(failed).error == failed.error


def test_a_copy_can_be_changed_without_changing_the_original() -> None:
    sent = message()
    twin = coordinator.copied(sent)
    assert twin.metadata == sent.metadata
    assert twin.content == sent.content
    twin.content.config_records["config"]["a"] = 2
    del twin.content["arrays"]["w"]
    twin.content["more"] = ConfigRecord()
    assert sent.content["config"]["a"] == 1
    assert set(sent.content) == {"arrays", "config"}
    assert set(sent.content["arrays"]) == {"w"}
    failed = Message(Error(coordinator.APP_RAISED, "ValueError"), reply_to=sent)
    assert coordinator.copied(failed).error.reason == "ValueError"


def test_runs_and_nodes_carry_their_numbers() -> None:
    assert coordinator.empty_run(9).run_id == 9
    assert coordinator.node_info(2**63 + 1).node_id == 2**63 + 1


def test_error_codes_and_outcomes_are_those_on_the_wire() -> None:
    assert (coordinator.APP_RAISED, coordinator.UNAVAILABLE, coordinator.AWAY) == (2, 5, (5, 3, 4))
    assert (holder.APP_RAISED, holder.BUNDLE_REFUSED) == (2, 7)
    assert (coordinator.COMPLETED, coordinator.FAILED) == ("completed", "failed")


def test_flowers_own_average_of_metrics_is_told_from_any_other() -> None:
    strategy = FedAvg()
    assert coordinator.weighs_metrics(strategy.train_metrics_aggr_fn)
    assert coordinator.weighs_metrics(strategy.evaluate_metrics_aggr_fn)
    assert not coordinator.weighs_metrics(sum)


def test_the_bundle_names_apps_that_are_there_and_its_serverapp_does_nothing() -> None:
    with zipfile.ZipFile(BytesIO(bundle())) as archive:
        named = tomllib.loads(archive.read("pyproject.toml").decode())["tool"]["flwr"]["app"]["components"]
    found = {}
    for part, reference in named.items():
        module, _, name = reference.partition(":")
        found[part] = getattr(import_module(module), name)
    assert isinstance(found["serverapp"], ServerApp)
    assert isinstance(found["clientapp"], ClientApp)
    assert holder_app() is found["clientapp"]
    with pytest.raises(EngineError, match="coordinates its runs itself"):
        found["serverapp"](cast(Grid, None), cast(Context, None))


class Loopback:
    """A server on loopback, in a thread."""

    def __init__(self, app: Any, **options: Any) -> None:
        self.server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="critical", **options))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self) -> str:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self.address

    def __exit__(self, *error: object) -> None:
        self.server.should_exit = True
        self.thread.join()
        self.listener.close()


def test_a_supernode_gives_tasks_to_who_knows_the_secret_alone() -> None:
    secret = bytes(range(32))
    api, state = holder.runtime_api(secret)
    assert state is not None
    with Loopback(api) as address:
        with holder.tasks_of(address, secret) as tasks:
            assert tasks.take() is False
            tasks.drop()
        with holder.tasks_of(address, bytes(32)) as tasks, pytest.raises(httpx.HTTPStatusError, match="401"):
            tasks.take()


def test_a_supernodes_port_tells_nothing_of_its_interface() -> None:
    api, _ = holder.runtime_api(bytes(range(32)))
    with Loopback(Gate(api)) as address, httpx.Client(base_url=f"http://{address}") as caller:
        for path in ("/docs", "/docs/oauth2-redirect", "/openapi.json", "/redoc", "/", "//docs", "/v1/fleet/x"):
            answer = caller.get(path)
            assert (answer.status_code, answer.content) == (404, b""), path
        assert caller.get("/health").status_code == 200
        assert caller.post("/v1/runtime/acquire-task").status_code in (400, 401, 403, 415, 422)


def test_flowers_loop_sleeps_as_long_as_our_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = import_module("flwr.supernode.start_client_internal")
    source = ast.parse(Path(str(loop.__file__)).read_text())
    used = {
        node.attr
        for node in ast.walk(source)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time"
    }
    assert used == {"sleep"}, "want all that the loop uses of `time` in our clock"
    for name in ("time", "pull_objects"):
        monkeypatch.setitem(vars(loop), name, vars(loop)[name])
    for module in ("flwr.supernode.fleet_http_connection", "flwr.supercore.heartbeat"):
        monkeypatch.setattr(import_module(module), "HEARTBEAT_DEFAULT_INTERVAL", 30)
    constants = import_module("flwr.common.constant")
    assert constants.HEARTBEAT_MIN_INTERVAL <= holder.HEARTBEAT <= constants.HEARTBEAT_DEFAULT_INTERVAL
    assert constants.HEARTBEAT_CALL_TIMEOUT < holder.HEARTBEAT
    slept: list[float] = []
    holder.shorten_pauses(SimpleNamespace(sleep=slept.append), 0.25)
    loop.time.sleep(3)
    for module in ("flwr.supernode.fleet_http_connection", "flwr.supercore.heartbeat"):
        assert import_module(module).HEARTBEAT_DEFAULT_INTERVAL == holder.HEARTBEAT
    assert slept == [3]
    assert loop.pull_objects.keywords == {"initial_backoff": 0.25, "backoff_cap": 1.0}


def test_a_key_is_known_by_what_a_node_signs_now_and_by_nothing_else() -> None:
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    state = SimpleNamespace(get_node_id_by_public_key={pem: 7}.get)
    app = SimpleNamespace(state=SimpleNamespace(linkstate_factory=SimpleNamespace(state=lambda: state)))
    known = coordinator.knows(cast(Any, app))
    good, strange = holder.signed_as(key), holder.signed_as(other)
    assert set(good) == {"flwr-public-key", "flwr-timestamp", "flwr-signature"}
    assert known(good)
    assert not known(strange)
    assert not known({})
    old = (datetime.now(UTC) - timedelta(minutes=6)).isoformat()
    signed = b64encode(key.sign(old.encode(), ec.ECDSA(SHA256()))).decode()
    late = {"flwr-timestamp": old, "flwr-signature": signed}
    for change in (
        {"flwr-signature": strange["flwr-signature"]},
        {"flwr-signature": "no base64"},
        {"flwr-signature": "é"},
        {"flwr-public-key": strange["flwr-public-key"]},
        {"flwr-timestamp": datetime.now(UTC).isoformat()},  # not what was signed
        {"flwr-timestamp": "yesterday"},
        {"flwr-timestamp": "2026-01-01T00:00:00"},
        late,
    ):
        assert not known(good | change), change
    app.state = SimpleNamespace()  # before it has started
    assert not known(good)


def test_what_stops_the_node_is_called_when_flower_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("flwr.supercore.exit")
    called: list[Any] = []
    monkeypatch.setattr(module, "add_exit_handler", called.append)
    holder.at_exit(print)
    assert called == [print]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """The APIs of Flower's own SuperLink on loopback, with what came in with each request."""
    keys = _pki.create(tmp_path, ["office"])
    seen: list[str | None] = []
    inner = coordinator.superlink()

    async def listening(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(dict(scope["headers"]).get(b"x-test", b"").decode() or None)
        await inner(scope, receive, send)

    options = {"lifespan": "on", "ssl_certfile": keys.certificate, "ssl_keyfile": keys.server_key}
    with Loopback(listening, **options) as address, ExitStack() as stack:
        authority, steps = keys.authority.read_bytes(), []
        made = coordinator.Api(stack, address, authority, {"x-test": "here"}, lambda: steps.append(1))
        yield SimpleNamespace(made=made, keys=keys, seen=seen)


def test_a_superlink_of_our_own_registers_nodes_and_gives_the_runs_task_to_the_coordinator(
    api: SimpleNamespace,
) -> None:
    node = api.made.register("office", api.keys.node_public["office"])
    assert node > 0
    task = api.made.start(bundle())
    assert isinstance(task.grid, Grid)
    assert task.grid.run.run_id > 0
    assert list(task.grid.get_node_ids()) == []  # registered, and not connected
    made = Message(RecordDict(), node, "query.ask").metadata
    assert (made.run_id, made.src_node_id) == (task.grid.run.run_id, SUPERLINK_NODE_ID)
    task.beat()
    task.finish(coordinator.COMPLETED)
    assert set(api.seen) == {"here"}, "want our headers on every request"


def test_a_task_that_its_command_never_took_stands_in_nobodys_way(api: SimpleNamespace) -> None:
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.proto.fab_pb2 import Fab

    fab = Fab(hash_str=hashlib.sha256(bundle()).hexdigest(), content=bundle())
    left = [api.made._control.StartRun(StartRunRequest(fab=fab)).run_id for _ in range(3)]
    task = api.made.start(bundle())
    assert task.grid.run.run_id not in left
    task.finish(coordinator.COMPLETED)
    api.made.start(bundle()).finish(coordinator.COMPLETED)


def test_patience_with_an_object_on_its_way_looks_again_soon_and_looks_after_the_processes(tmp_path: Path) -> None:
    from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
    from flwr.supercore.runtime import RuntimeHttpClient

    answers = [PullObjectResponse(object_found=True)] * 3 + [
        PullObjectResponse(object_found=True, object_available=True, object_content=b"x")
    ]
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(RuntimeHttpClient, "PullObject", lambda *_: answers.pop(0))
        authority = _pki.create(tmp_path, []).authority.read_bytes()
        made = coordinator.Api(stack, "127.0.0.1:1", authority, {}, lambda: steps.append(1))
        client = stack.enter_context(made._runtime([]))
        assert client.PullObject(PullObjectRequest()).object_content == b"x"
    assert len(steps) == 3


def test_only_what_a_message_needs_is_imported_for_messages() -> None:
    code = (
        "import sys, statfed.server.protected_grid, statfed.server.grid.inprocess, statfed.client.flower.mod;"
        "print([m for m in sys.modules if m.startswith(('flwr.superlink', 'flwr.supernode', 'fastapi'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
