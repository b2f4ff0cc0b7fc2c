"""The coordinator's connection to the SuperLink of a local federation: nodes, the run and its one task.

Flower would start a process for a run's ServerApp. Here the coordinator itself takes that task, in the process of the
`statfed` command, so that progress and errors reach the user and nothing is imported from a bundle.
"""

import hashlib
import io
import ssl
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version

import httpx
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from statfed.core.errors import EngineError
from statfed.server.grid._polling import PatientClient
from statfed.server.grid._superlink import HEALTH, SECRET_HEADER

CLIENT_APP = "statfed.client.flower.app:app"
SERVER_APP = "statfed.server.app:app"
HEARTBEAT_SECONDS = 10.0
START_SECONDS = 120.0


def bundle() -> bytes:
    """The app bundle of every run: a manifest that names installed modules, and no code. The same bytes everywhere."""
    manifest = f"""[project]
name = "statfed"
version = "{version("statfed")}"
description = "Names installed modules; holds no code"
license = "Apache-2.0"
dependencies = []

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.flwr.app]
publisher = "statfed"

[tool.flwr.app.components]
serverapp = "{SERVER_APP}"
clientapp = "{CLIENT_APP}"

[tool.flwr.app.config]
""".encode()
    content = f"pyproject.toml,{hashlib.sha256(manifest).hexdigest()},{len(manifest) * 8}".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in (("pyproject.toml", manifest), (".info/CONTENT", content)):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            archive.writestr(entry, data)
    return buffer.getvalue()


class Secret:
    """Adds the secret of the private listener to requests."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        context.request.headers[SECRET_HEADER] = self._secret
        return call_next(context)


class Coordinator:
    """The coordinator's connections to the private listener: it registers nodes and holds the run's one task."""

    def __init__(
        self, stack: ExitStack, address: str, authority: bytes, secret: str, check: Callable[[], None]
    ) -> None:
        self._stack = stack
        self._address = address
        self._authority = authority
        self._check = check
        self._common: list[ProtobufClientInterceptor] = [
            Secret(secret),
            RuntimeVersionHttpInterceptor("flwr-serverapp"),
        ]
        self._control = ControlHttpClient.from_server_address(address, False, authority, self._common)
        stack.enter_context(self._control)
        self._task: PatientClient | None = None
        self._headers = {SECRET_HEADER: secret}

    def wait_until_up(self) -> None:
        """Wait for the SuperLink's first answer."""

        context = ssl.create_default_context(cadata=self._authority.decode("ascii"))
        end = time.monotonic() + START_SECONDS
        with httpx.Client(verify=context, headers=self._headers, timeout=1) as client:
            while time.monotonic() < end:
                self._check()
                try:
                    client.get(f"https://{self._address}{HEALTH}").raise_for_status()
                except httpx.TransportError:
                    time.sleep(0.05)
                else:
                    return
        raise EngineError(f"SuperLink: got no answer in {START_SECONDS:.0f} s; want one")

    def register(self, name: str, public_key: bytes) -> int:
        """Make `public_key` that of holder `name`; the node id it will have."""
        return self._control.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)).node_id

    def open(self, fab: bytes) -> HttpGrid:
        """Start a run, take its task, and open its grid."""
        digest = hashlib.sha256(fab).hexdigest()
        run_id = self._control.StartRun(StartRunRequest(fab=Fab(hash_str=digest, content=fab))).run_id
        with PatientClient.from_server_address(self._address, False, self._authority, self._common) as runtime:
            taken = runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
        if not taken.token or taken.task.run_id != run_id:
            raise EngineError(f"task of run {run_id}: got run {taken.task.run_id}; want a task of it")
        token = RuntimeTokenHttpInterceptor(taken.token)
        client = PatientClient.from_server_address(self._address, False, self._authority, [*self._common, token])
        self._task = self._stack.enter_context(client)
        self._task.check = self._check
        task = client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, run_id, SUPERLINK_NODE_ID
        grid = HttpGrid(self._address, False, self._authority, token=taken.token)
        grid._client = client  # with the secret, and without Flower's endless retries
        grid.set_run(run_from_proto(task.run))
        done = threading.Event()
        threading.Thread(target=self._beat, args=(client, done), name="heartbeat", daemon=True).start()
        self._stack.callback(done.set)
        return grid

    def finish(self, outcome: str) -> None:
        """Tell the SuperLink that the run is over; it may be gone already."""
        if self._task is not None:
            try:
                self._task.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome))
            except httpx.HTTPError:
                return

    @staticmethod
    def _beat(client: PatientClient, done: threading.Event) -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            try:
                client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
            except (httpx.HTTPError, RuntimeError):
                continue  # the grid's next call meets the same and says so
