"""Engine `inprocess`: holders as objects in this process, behind a Flower `Grid` in memory.

The same ServerApp logic and the same ClientApp as in a deployment, without sockets: for tests, notebooks and fast
comparison. Records are copied between the sides, so that neither can change what the other holds; with `wire=True`
every message is also encoded and decoded as on the network. Faults can be injected by holder and message.
"""

import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from statfed.core.progress import Progress
from statfed.server._flwr import (
    APP_RAISED,
    UNAVAILABLE,
    NodeInfo,
    Run,
    act_for,
    copied,
    empty_run,
    node_info,
    set_id,
)
from statfed.server._flwr import over_the_wire as over_the_wire
from statfed.server.engine import Deployment, Meter, R, Session
from statfed.server.packets import size

Fault = Callable[[str, Message], str | None]
"""Given a holder's name and a message to it: the reason why it does not answer, or None to let it answer."""
Tap = Callable[[str, Message, Message], None]
"""Given a party's name, a message to it and its reply: sees what the coordinator sees, and changes nothing."""


def no_fault(holder: str, message: Message) -> str | None:  # noqa: ARG001
    """Every holder answers."""
    return None


def no_tap(party: str, message: Message, reply: Message) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class _Node:
    holder: str
    context: Context


class InProcessGrid(Grid):
    """A Flower Grid whose nodes are function calls. Replies come in the order of the messages."""

    def __init__(
        self,
        app: ClientApp,
        homes: Mapping[str, str],
        *,
        wire: bool = False,
        fault: Fault = no_fault,
        tap: Tap = no_tap,
    ) -> None:
        self._app, self._wire, self._fault, self._tap = app, wire, fault, tap
        self.meters = {name: Meter() for name in homes}
        self._run = empty_run(1)
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._nodes = {
            1000 + i: _Node(name, Context(1, 1000 + i, {"home": home, "holder": name}, RecordDict(), {}))
            for i, (name, home) in enumerate(homes.items())
        }
        act_for(run=1, task=1)

    @property
    def nodes(self) -> dict[str, int]:
        """Holder name to node id."""
        return {node.holder: node_id for node_id, node in self._nodes.items()}

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._nodes)

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [node_info(node_id) for node_id in self._nodes]

    def _deliver(self, message: Message) -> Message:
        set_id(message, str(next(self._ids)))
        node = self._nodes[message.metadata.dst_node_id]
        if (reason := self._fault(node.holder, message)) is not None:
            return Message(Error(UNAVAILABLE, reason), reply_to=message)
        arrived = over_the_wire(message) if self._wire else copied(message)
        meter, started = self.meters[node.holder], time.process_time()
        try:
            reply = self._app(message=arrived, context=node.context)
        except Exception as error:  # noqa: BLE001  # what Flower's own runtime does with an app that raises
            return Message(Error(APP_RAISED, type(error).__name__), reply_to=message)
        meter.processor += time.process_time() - started
        meter.received, meter.sent = meter.received + size(message), meter.sent + size(reply)
        meter.messages += 1
        self._tap(node.holder, message, reply)
        return over_the_wire(reply) if self._wire else copied(reply)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = []
        for message in messages:
            reply = self._deliver(message)
            self._replies[message.metadata.message_id] = reply
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in list(message_ids) if i in self._replies]

    def send_and_receive(
        self,
        messages: Iterable[Message],
        *,
        timeout: float | None = None,  # noqa: ARG002  # a call returns when it is done
    ) -> Iterable[Message]:
        return [self._deliver(message) for message in messages]


def peak_memory() -> float:
    """Peak resident memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def run(
    deployment: Deployment,
    drive: Callable[[Session], R],
    progress: Progress,
    *,
    wire: bool = False,
    fault: Fault = no_fault,
    tap: Tap = no_tap,
) -> R:
    """Drive a federation of in-memory holders."""
    progress("load holders", 0, 1)
    from statfed.server.grid._holder_app import holder_app

    grid = InProcessGrid(
        holder_app(), {n: str(h) for n, h in deployment.homes.items()}, wire=wire, fault=fault, tap=tap
    )
    progress("load holders", 1, 1)
    session = Session(grid, grid.nodes, meters=grid.meters)
    try:
        return drive(session)
    finally:
        session.memory["all in one process"] = peak_memory()
