"""All that this room uses of Flower beyond its public API, in one place, so that an upgrade has one file to read.

Public are flwr.app, flwr.clientapp, flwr.serverapp, flwr.serverapp.strategy and flwr.simulation. What is here may
change with any minor release: tests/server/test_flower_internals.py says of each part what it has to do, and TRIED has
the versions for which it did. What only a SuperNode needs is imported when it is called.
"""

import functools
import importlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import httpx
from flwr.app import Context, Message, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.common.serde import context_from_proto
from flwr.common.serde_utils import metadata_from_proto
from flwr.proto.message_pb2 import Metadata as ProtoMetadata
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufClientInterceptor, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

from statfed.core.wire import check_pieces

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec
    from fastapi import FastAPI
    from flwr.supernode.nodestate import NodeStateFactory

TRIED = ("1.41.0", "1.42.0")
"""Versions of flwr for which all of this was tried, in both rooms."""

APP_RAISED = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
BUNDLE_REFUSED = ErrorCode.INVALID_FAB
WAITING, LONGEST_PAUSE = 2.0, 0.5
"""Seconds: before it is asked whether there is another task, and between looks for an object."""
HEARTBEAT = 10
"""Seconds: the shortest that a SuperLink takes."""

log = logging.getLogger("statfed.holder")
_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"


class Clock(Protocol):
    """What Flower's loop uses of the module `time`."""

    def sleep(self, seconds: float) -> None: ...


class _TaskToken:
    """Adds the token of the task in hand to requests, so that one connection serves all tasks."""

    value: str | None = None

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Flower's hook around a request."""
        if self.value is not None:
            context.request.headers[TASK_TOKEN_HEADER] = self.value
        return call_next(context)


class Tasks:
    """The tasks of one SuperNode, one at a time, over its Runtime API. Its methods raise httpx.HTTPError."""

    def __init__(self, client: RuntimeHttpClient, token: _TaskToken) -> None:
        self._client = client
        self._token = token

    def take(self) -> bool:
        """Take the next task in hand, if there is one."""
        taken = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        self._token.value = taken.token or None
        return bool(taken.token)

    def drop(self) -> None:
        """Have no task in hand."""
        self._token.value = None

    def pull(self, poll: float) -> tuple[Message, Context, bytes]:
        """The message, the context and the bundle of the task in hand.

        Where a run ends while the SuperNode is receiving a message, it goes on to the next one without a word, and what
        it had announced never comes. It has one message at a time: another task says that this one was given up.
        """
        while True:
            task = self._client.PullTaskInput(PullTaskInputRequest())
            context = context_from_proto(task.context)
            _act_for(task.run.run_id, task.task_id, context.node_id)
            if (found := self._objects(Node(node_id=context.node_id), context.run_id, poll)) is not None:
                break
        tree, metadata, contents = found
        node = Node(node_id=context.node_id)
        make_confirm_message_received_fn_protobuf(self._client.ConfirmMessageReceived, node, context.run_id)(
            tree.object_id
        )
        return arrived(metadata, contents), context, task.fab.content

    def _objects(self, node: Node, run: int, poll: float) -> tuple[Any, Any, dict[str, bytes]] | None:
        """The message of the task in hand and its objects, once all have come; None where there is another task now.

        The SuperNode gives a message once, whether its objects are there or not.
        """
        pull = make_pull_object_fn_protobuf(self._client.PullObject, node, run)
        begun = time.monotonic()
        pulled = PullAppMessagesResponse()
        while True:
            if not pulled.messages_list:
                pulled = self._client.PullMessages(PullAppMessagesRequest())
            if pulled.messages_list:
                tree = pulled.message_object_trees[0]
                wanted = [one.object_id for one in iterate_object_tree(tree)]
                try:
                    found = pull_objects(
                        wanted, pull, max_time=WAITING, initial_backoff=poll, backoff_cap=LONGEST_PAUSE
                    )
                except ObjectPullError as error:
                    if "timeout" not in str(error):
                        raise
                else:
                    return tree, pulled.messages_list[0].metadata, found
            elif time.monotonic() - begun < WAITING:
                time.sleep(poll)  # the SuperNode announces a task just before it stores its message
                continue
            if self._another():
                log.warning("a run ended while its message was on its way: it is given up for the next one")
                return None
            begun = time.monotonic()

    def _another(self) -> bool:
        """Take another task in hand, if there is one."""
        held, self._token.value = self._token.value, None
        if self.take():
            return True
        self._token.value = held
        return False

    def push(self, reply: Message, context: Context) -> None:
        """Deliver the reply to the task in hand, and say that it is done."""
        status = SubStatus.FAILED if reply.has_error() else SubStatus.COMPLETED
        push_message(self._client, reply, context)
        push_task_output(self._client, context, status, "")

    def beat(self) -> None:
        """Keep the task in hand alive at the SuperNode, which gives one up after a minute of silence."""
        self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest())


@contextmanager
def tasks_of(address: str, secret: bytes) -> Iterator[Tasks]:
    """The tasks of the SuperNode whose Runtime API listens at `address`, on loopback and without TLS.

    secret: without it the SuperNode gives none away.
    """
    token = _TaskToken()
    authority = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE})
    interceptors: list[ProtobufClientInterceptor] = [RuntimeVersionHttpInterceptor("flwr-clientapp"), authority, token]
    with RuntimeHttpClient.from_server_address(address, True, None, interceptors) as client:
        yield Tasks(client, token)


def arrived(metadata: ProtoMetadata, contents: dict[str, bytes]) -> Message:
    """The message whose objects have come, by id, and without content where they cannot be read. metadata: as the
    SuperNode has it: a message that describes itself otherwise is still answered to where it came from."""
    content = RecordDict()
    try:
        check_pieces(contents)
        inner = inflate_object_from_contents(metadata.message_id, contents)
        if isinstance(inner, Message) and inner.has_content():
            content = inner.content
    except Exception as error:  # noqa: BLE001  whatever a reader of hostile bytes meets first
        log.warning("got a message that cannot be read: %s", type(error).__name__)
    return make_message(metadata_from_proto(metadata), content)


def set_id(message: Message, name: str) -> None:
    """Give a message the id that replies to it will carry. Flower leaves that to its SuperLink, and has no setter."""
    vars(message.metadata)["_message_id"] = name


def _act_for(run: int, task: int, node: int) -> None:
    """Make this process the ClientApp of a node: Flower writes run, task and sender into each message from here."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task, run, node


def signed_as(key: "ec.EllipticCurvePrivateKey") -> dict[str, str]:
    """Headers that prove to a SuperLink, for five minutes, that this node's key is called with."""
    from flwr.supercore.protobuf.client import ProtobufRequestContext
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    request = httpx.Request("GET", "https://hub.invalid")
    before = set(request.headers)
    context = ProtobufRequestContext("", AcquireTaskRequest(), request)
    NodeAuthHttpInterceptor(key, key.public_key()).intercept(context, lambda _: httpx.Response(200))
    return {name: value for name, value in request.headers.items() if name not in before}


def runtime_api(secret: bytes) -> "tuple[FastAPI, NodeStateFactory]":
    """A SuperNode's Runtime API, which gives tasks only to who knows the secret, and the state behind it.

    FastAPI's pages about the interface (/docs, /openapi.json) come with it; `node.Gate` serves none of them.
    """
    from flwr.supercore.object_store import ObjectStoreFactory
    from flwr.supernode.main import create_app
    from flwr.supernode.nodestate import NodeStateFactory

    state = NodeStateFactory(objectstore_factory=ObjectStoreFactory())
    return create_app(state_factory=state, superexec_auth_secret=secret), state


def shorten_pauses(clock: Clock, poll: float) -> None:
    """Let a clock of ours decide how long Flower's loop sleeps, have it look for objects sooner, and say every few
    seconds that this node lives: the SuperLink knows after `2 * HEARTBEAT` seconds of one that does not.

    All are constants there.
    """
    for module in ("flwr.supernode.fleet_http_connection", "flwr.supercore.heartbeat"):
        vars(importlib.import_module(module))["HEARTBEAT_DEFAULT_INTERVAL"] = HEARTBEAT
    loop = importlib.import_module("flwr.supernode.start_client_internal")
    vars(loop)["time"] = clock
    vars(loop)["pull_objects"] = functools.partial(loop.pull_objects, initial_backoff=poll, backoff_cap=1.0)


def at_exit(stop: Callable[[], None]) -> None:
    """Have `stop` called when Flower's loop ends this process."""
    from flwr.supercore.exit import add_exit_handler

    add_exit_handler(stop)


def carry_messages(
    state: "NodeStateFactory",
    superlink: str,
    root_certificates: bytes,
    key: "ec.EllipticCurvePrivateKey",
    secret: bytes,
) -> None:
    """Flower's own loop of a SuperNode that starts no process and installs nothing. It returns when a signal comes."""
    from flwr.common.constant import ISOLATION_MODE_PROCESS
    from flwr.supernode.start_client_internal import start_client_internal

    start_client_internal(
        state_factory=state,
        server_address=superlink,
        node_config={},
        root_certificates=root_certificates,
        insecure=False,
        authentication_keys=(key, key.public_key()),
        isolation=ISOLATION_MODE_PROCESS,
        superexec_auth_secret=secret,
        runtime_dependency_install=False,
    )
