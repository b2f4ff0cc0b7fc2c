"""All that this room uses of Flower beyond its public API, in one place, so that an upgrade has one file to read.

Public are flwr.app, flwr.clientapp, flwr.serverapp, flwr.serverapp.strategy and flwr.simulation. What is here may
change with any minor release: tests/server/test_flower_internals.py says of each part what it has to do, and TRIED has
the versions for which it did. What only a SuperLink or its coordinator needs is imported when it is called.
"""

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import httpx
from flwr.app import Error, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import (
    SUPERLINK_NODE_ID,
    SYSTEM_TIME_TOLERANCE,
    TIMESTAMP_HEADER,
    TIMESTAMP_TOLERANCE,
    ErrorCode,
    SubStatus,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse
from flwr.proto.node_pb2 import NodeInfo as NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError as ObjectPushError
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run as Run
from flwr.supercore.task_identity import TaskIdentity

from statfed.core.errors import EngineError, Refused
from statfed.core.wire import check_pieces

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from flwr.supercore.protobuf.client import (
        ProtobufCall,
        ProtobufClient,
        ProtobufClientInterceptor,
        ProtobufRequestContext,
    )
    from flwr.supercore.runtime import RuntimeHttpClient
    from flwr.superlink.grid import HttpGrid

TRIED = ("1.41.0", "1.42.0")
"""Versions of flwr for which all of this was tried, in both rooms."""

APP_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
UNAVAILABLE = ErrorCode.NODE_UNAVAILABLE
AWAY = (UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)
"""Codes of errors that Flower makes in place of a node that is not there."""
COMPLETED, FAILED = SubStatus.COMPLETED, SubStatus.FAILED
PATIENCE = 10.0
_LEFT = 1000  # tasks whose commands ended before they took them


def set_id(message: Message, name: str) -> None:
    """Give a message the id that replies to it will carry. Flower leaves that to its SuperLink, and has no setter."""
    message.metadata.__dict__["_message_id"] = name


def set_source(reply: Message, node: int) -> None:
    """Say which node a reply is from. Flower takes it from the message that is answered, and has no setter."""
    reply.metadata.__dict__["_src_node_id"] = node


def act_for(run: int, task: int) -> None:
    """Make this process the coordinator of a run: Flower writes run, task and sender into each message from here."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task, run, SUPERLINK_NODE_ID


def over_the_wire(message: Message) -> Message:
    """The message as it would arrive over the network: encoded and decoded, its id kept."""
    objects = {key: item.deflate() for key, item in get_all_nested_objects(message).items()}
    arrived = inflate_object_from_contents(message.object_id, objects)
    if not isinstance(arrived, Message):
        raise TypeError(f"unexpected object: got {type(arrived).__name__}; want Message")
    set_id(arrived, message.metadata.message_id)
    return arrived


def arrived(metadata: Metadata, contents: dict[str, bytes]) -> Message:
    """The message whose objects have come, by id. metadata: as the SuperLink has checked it: from whom, to what.

    What a message says of itself is its sender's word and counts for nothing. One that cannot be read is an error of
    its sender.
    """
    try:
        check_pieces(contents)
        inner = inflate_object_from_contents(metadata.message_id, contents)
        if not isinstance(inner, Message):
            raise TypeError(type(inner).__name__)
    except Exception as error:  # noqa: BLE001  whatever a reader of hostile bytes meets first
        what = (
            str(error) if isinstance(error, Refused) else f"got a message that cannot be read ({type(error).__name__})"
        )
        return make_message(metadata, error=Error(ErrorCode.UNKNOWN, what))
    if inner.has_error():
        return make_message(metadata, error=inner.error)
    return make_message(metadata, content=inner.content)


def instead(reply: Message, code: int, reason: str) -> Message:
    """An error in a reply's place, from the same node to the same message."""
    return make_message(reply.metadata, error=Error(code, reason))


def copied(message: Message) -> Message:
    """A message whose records can be changed without changing the original (array bytes are immutable).

    The metadata is shared; Flower's constructor would make another.
    """
    twin = Message.__new__(Message)
    twin.__dict__.update(message.__dict__)
    if message.has_content():
        records = {key: cast(type[Any], type(value))(dict(value)) for key, value in message.content.items()}
        twin.__dict__["_content"] = RecordDict(records)
    return twin


def empty_run(run: int) -> Run:
    """A run of which nothing but its number is known."""
    return Run.create_empty(run_id=run)


def node_info(node: int) -> NodeInfo:
    """What a Grid says of one of its nodes."""
    return NodeInfo(node_id=node)


def weighs_metrics(function: object) -> bool:
    """If a strategy's way to join metrics is Flower's own: the average, weighted as the arrays are."""
    from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

    return function is aggregate_metricrecords


class Authenticator:
    """Flower's check of a node's request, and what it leaves open.

    Flower verifies a signature of the time alone, takes it for five minutes with whatever request, and lets a node that
    it has recognised push replies in the name of any other. Here a signature is good for one request, a node speaks for
    itself, and who is not registered gets no further than here.
    """

    def __init__(self, check: "Callable[[Request], None]") -> None:
        self._check = check
        self._used: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, request: "Request") -> None:
        """Raises HTTPException, status 401."""
        from fastapi import HTTPException
        from flwr.superlink.dependencies.linkstate import get_linkstate

        self._check(request)
        asked, now = request.state.protobuf_request, time.monotonic()
        key = getattr(asked, "public_key", None)
        if key is not None and get_linkstate(request).get_node_id_by_public_key(key) is None:
            raise HTTPException(401, "Invalid SuperNode authentication")
        others = [one for one in getattr(asked, "messages_list", ()) if one.metadata.src_node_id != asked.node.node_id]
        once = request.headers[FLEET_HTTP_PUBLIC_KEY_HEADER], request.headers[TIMESTAMP_HEADER]
        with self._lock:
            while self._used and (first := next(iter(self._used.items())))[1] < now:
                del self._used[first[0]]
            again = once in self._used
            self._used.setdefault(once, now + 2 * (TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE))
        if others or again:
            raise HTTPException(401, "Invalid SuperNode authentication")


class Addressed:
    """Flower's handlers of what nodes pull, for objects of messages to that very node alone.

    Flower gives any object to any node that knows its SHA-256: of a few small numbers that another party has sent, it
    can be guessed. handlers: Flower's module of them.
    """

    MOST = 64  # messages that a node has not yet said it has received

    def __init__(self, handlers: Any) -> None:
        self._pull, self._object = handlers.pull_messages, handlers.pull_object
        self._confirm = handlers.confirm_message_received
        self._given: dict[int, dict[str, set[str]]] = {}
        self._lock = threading.Lock()

    def pull_messages(self, request: Any, state: Any, store: Any) -> Any:
        """Messages to the node, of which it may pull the objects from now on."""
        response = self._pull(request=request, state=state, store=store)
        with self._lock:
            given = self._given.setdefault(request.node.node_id, {})
            for tree in response.message_object_trees:
                given[tree.object_id] = {one.object_id for one in iterate_object_tree(tree)}
            while len(given) > self.MOST:
                del given[next(iter(given))]
        return response

    def pull_object(self, request: Any, state: Any) -> Any:
        """An object of a message to the node; others are not there."""
        with self._lock:
            theirs = any(request.object_id in ids for ids in self._given.get(request.node.node_id, {}).values())
        return self._object(request=request, state=state) if theirs else PullObjectResponse(object_found=False)

    def confirm_message_received(self, request: Any, state: Any, store: Any) -> Any:
        """The node has a message to it; nobody can say so of another's."""
        with self._lock:
            theirs = self._given.get(request.node.node_id, {}).pop(request.message_object_id, None)
        if theirs is None:
            return ConfirmMessageReceivedResponse()
        return self._confirm(request=request, state=state, store=store)


def superlink() -> "FastAPI":
    """Flower's own SuperLink: nodes are authenticated, state is in memory, and it starts no process.

    Flower makes one from a command line alone, which also opens ports that this house does not want open.
    """
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME
    from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig
    from flwr.superlink.main import create_app
    from flwr.superlink.routers.fleet import node_auth
    from flwr.superlink.servicer.fleet import fleet_handlers

    if not isinstance(node_auth.authenticate_node, Authenticator):
        addressed, name = Addressed(fleet_handlers), "authenticate_node"
        setattr(node_auth, name, Authenticator(node_auth.authenticate_node))
        for name in ("pull_messages", "pull_object", "confirm_message_received"):
            setattr(fleet_handlers, name, getattr(addressed, name))
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=NoOpControlAuthnPlugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    return create_app(config, SuperLinkLifespan)


def knows(app: "FastAPI") -> Callable[[Mapping[str, str]], bool]:
    """Whether the headers of a request prove, as Flower's own nodes prove it, a key that is registered with `app`.

    Flower checks the same, and that the request is of that node, but reads the whole request first. headers: by their
    names in lower case.
    """
    from base64 import b64decode
    from datetime import datetime

    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_HEADER, TIMESTAMP_TOLERANCE
    from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
    from flwr.supercore.date import now
    from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

    def known(headers: Mapping[str, str]) -> bool:
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER.lower()], validate=True)
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER.lower()], validate=True)
            signed = headers[TIMESTAMP_HEADER.lower()]
            age = (now() - datetime.fromisoformat(signed)).total_seconds()
            if not -SYSTEM_TIME_TOLERANCE < age < TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE:
                return False
            states = getattr(app.state, "linkstate_factory", None)  # none before it has started
            if states is None or states.state().get_node_id_by_public_key(key) is None:
                return False
            return verify_signature(bytes_to_public_key(key), signed.encode("ascii"), signature)
        except (KeyError, ValueError, TypeError):  # also of what is no ASCII, no base64, no key
            return False

    return known


class Headers:
    """Adds headers to every request to Flower's APIs."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)

    def intercept(self, context: "ProtobufRequestContext", call_next: "ProtobufCall") -> httpx.Response:
        """Flower's hook around a request."""
        context.request.headers.update(self._headers)
        return call_next(context)


class Task:
    """The coordinator's task of one run. grid: Flower's own, which sends messages of that run."""

    def __init__(self, client: "RuntimeHttpClient", grid: Grid) -> None:
        self._client = client
        self.grid = grid

    def beat(self) -> None:
        """Say that the coordinator lives. Raises httpx.HTTPError or RuntimeError where nobody listens."""
        from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest

        self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    def finish(self, outcome: str) -> None:
        """Say that the run is over: COMPLETED or FAILED. Raises httpx.HTTPError where nobody listens."""
        from flwr.proto.runtime_pb2 import PushTaskOutputRequest

        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome))


class Api:
    """A SuperLink's Control and Runtime APIs, which Flower's command and its processes of ServerApps call.

    authority: certificate in PEM that vouches for the SuperLink. headers: of every request. check: called in every step
    of waiting for an object; it may raise. Connections are closed with `stack`.
    """

    def __init__(
        self,
        stack: ExitStack,
        address: str,
        authority: bytes,
        headers: Mapping[str, str],
        check: Callable[[], None],
    ) -> None:
        from flwr.supercore.control import ControlHttpClient
        from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

        self._stack, self._address, self._authority, self._check = stack, address, authority, check
        self._common: list[ProtobufClientInterceptor] = [
            Headers(headers),
            RuntimeVersionHttpInterceptor("flwr-serverapp"),
        ]
        self._control = ControlHttpClient.from_server_address(address, False, authority, self._common)
        _call_directly(self._control, authority)
        stack.enter_context(self._control)

    def register(self, name: str, public_key: bytes) -> int:
        """Make `public_key` that of node `name`; the node id it will have."""
        from flwr.proto.control_pb2 import RegisterNodeRequest

        return self._control.RegisterNode(RegisterNodeRequest(public_key=public_key, name=name)).node_id

    def unregister(self, node: int) -> None:
        """Take a node's key out."""
        from flwr.proto.control_pb2 import UnregisterNodeRequest

        self._control.UnregisterNode(UnregisterNodeRequest(node_id=node))

    def online(self) -> dict[int, str]:
        """Ids of nodes that are connected, with when each connection was made."""
        from flwr.proto.control_pb2 import ListNodesRequest

        found = self._control.ListNodes(ListNodesRequest()).nodes_info
        return {node.node_id: node.last_activated_at for node in found if node.status == "online"}

    def start(self, bundle: bytes) -> Task:
        """Start a run of this bundle and take its one task, so that no process of a ServerApp does.

        One at a time: whoever took another's task would leave its run without one. Tasks that are still there are of
        commands that ended between the two: the SuperLink gives the oldest first, and lets go of one that nobody works
        on. Raises EngineError where there are too many of them.
        """
        from flwr.common.serde import run_from_proto
        from flwr.proto.control_pb2 import StartRunRequest
        from flwr.proto.fab_pb2 import Fab
        from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest
        from flwr.supercore.constant import TaskType
        from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor

        fab = Fab(hash_str=hashlib.sha256(bundle).hexdigest(), content=bundle)
        run = self._control.StartRun(StartRunRequest(fab=fab)).run_id
        with self._runtime([]) as runtime:
            wanted = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
            taken, left = runtime.AcquireTask(wanted), _LEFT
            while taken.token and taken.task.run_id != run and left:
                taken, left = runtime.AcquireTask(wanted), left - 1
        if not taken.token or taken.task.run_id != run:
            raise EngineError(f"task of run {run}: got {taken.task.run_id or 'none'}; want its one task")
        client = self._stack.enter_context(self._runtime([RuntimeTokenHttpInterceptor(taken.token)]))
        task = client.PullTaskInput(PullTaskInputRequest())
        act_for(run, task.task_id)
        grid = _grid_class()(self._address, False, self._authority, token=taken.token)
        grid._client = client  # with the headers, and without Flower's endless retries
        grid.set_run(run_from_proto(task.run))
        return Task(client, grid)

    def _runtime(self, more: "list[ProtobufClientInterceptor]") -> "RuntimeHttpClient":
        """A client that waits in short steps for an object on its way: Flower sleeps a second before it asks again.

        A reply can be announced before its contents have been uploaded.
        """
        from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
        from flwr.supercore.runtime import RuntimeHttpClient

        check = self._check

        class PatientClient(RuntimeHttpClient):
            def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:
                end = time.monotonic() + PATIENCE
                pause = 0.01
                while True:
                    response = super().PullObject(request)
                    if not response.object_found or response.object_available or time.monotonic() > end:
                        return response
                    check()
                    time.sleep(pause)
                    pause = min(2 * pause, 0.2)

        made = PatientClient.from_server_address(self._address, False, self._authority, [*self._common, *more])
        _call_directly(made, self._authority)
        return made


def _call_directly(client: "ProtobufClient", authority: bytes) -> None:
    """Have a client of Flower's use no proxy, whatever the environment says: the SuperLink is on this machine."""
    client._client.close()
    verify = ssl.create_default_context(cadata=authority.decode("ascii"))
    client._client = httpx.Client(verify=verify, timeout=30.0, trust_env=False)


class Pulling:
    """A grid that pulls what replies announce. gone: nodes that are lost, whose objects will not come any more."""

    gone: Callable[[], Mapping[int, str]] = dict


@cache
def _grid_class() -> "type[HttpGrid]":
    """Flower's grid, with replies as `arrived` reads them: its own believes what a reply says of its sender, and an
    unreadable one ends the coordinator instead of naming the node."""
    from flwr.common.serde_utils import metadata_from_proto
    from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
    from flwr.proto.runtime_pb2 import PullAppMessagesRequest
    from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, pull_objects
    from flwr.superlink.grid import HttpGrid

    class Checked(HttpGrid, Pulling):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            client, run = self._runtime_client, self.run.run_id
            came = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
            pull = make_pull_object_fn_protobuf(client.PullObject, self.node, run)
            found = []
            for proto, tree in zip(came.messages_list, came.message_object_trees, strict=True):
                metadata = metadata_from_proto(proto.metadata)

                def pulled(name: str, node: int = metadata.src_node_id) -> bytes:
                    if node in self.gone():
                        raise ObjectPullError(name, "its node is lost")
                    content: bytes = pull(name)
                    return content

                try:
                    contents = pull_objects([one.object_id for one in iterate_object_tree(tree)], pulled)
                except (ObjectPullError, RecursionError):
                    told = "the reply was announced and has not come whole"
                    found.append(make_message(metadata, error=Error(ErrorCode.MESSAGE_UNAVAILABLE, told)))
                    continue
                client.ConfirmMessageReceived(
                    ConfirmMessageReceivedRequest(node=self.node, run_id=run, message_object_id=metadata.message_id)
                )
                found.append(arrived(metadata, contents))
            return found

    return Checked
