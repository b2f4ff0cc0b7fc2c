"""Engine `ray`: Flower's own simulation, for hundreds to thousands of virtual holders.

Each virtual node plays the holder whose home folder its partition number points to. Needs the extra `statfed[ray]`.
Any of Ray's workers may answer for a holder, so protections that keep secrets between messages are refused.

Flower waits for its threads without an end when it is interrupted. It therefore runs in a thread of its own, which is
told to stop: the coordinator sends no further message but those that free what was reserved, and Ray is ended.
"""

import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from statfed.core.errors import EngineError, UsageError
from statfed.core.progress import Progress
from statfed.server._flwr import NodeInfo, Run
from statfed.server.engine import Deployment, R, Session
from statfed.server.grid._holder_app import holder_app
from statfed.server.grid.inprocess import peak_memory

START_SECONDS = 120.0
STOP_SECONDS = 8.0
"""How long an interrupted simulation has to end by itself."""
_POLL = 0.05


class _Stopped(Exception):
    """The user has interrupted the simulation: no message any more."""


class StoppableGrid(Grid):
    """A grid whose waiting ends when `stop` is set: once for each wait that was begun before, so that what was reserved
    can still be freed, within `STOP_SECONDS`."""

    def __init__(self, grid: Grid, stop: threading.Event) -> None:
        self._grid, self._stop, self._told = grid, stop, False

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        self._check()
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        self._check()
        seconds = START_SECONDS * 1000 if timeout is None else timeout
        end = time.monotonic() + (min(seconds, STOP_SECONDS / 2) if self._told else seconds)
        waiting, found = set(self._grid.push_messages(messages)), list[Message]()
        while waiting and time.monotonic() < end:
            replies = list(self._grid.pull_messages(waiting))
            found += replies
            waiting -= {reply.metadata.reply_to_message_id for reply in replies}
            self._check()
            if waiting:
                time.sleep(_POLL)
        return found

    def _check(self) -> None:
        if self._stop.is_set() and not self._told:
            self._told = True
            raise _Stopped


class PlacedHolders(ClientApp):
    """The installed holder application, told at which home folder it is."""

    def __init__(self, homes: list[tuple[str, str]]) -> None:
        super().__init__()
        self._homes = homes

    def __call__(self, message: Message, context: Context) -> Message:
        name, home = self._homes[int(context.node_config["partition-id"])]
        if message.metadata.message_type == "query.hello":
            return Message(RecordDict({"facts": ConfigRecord({"holder": name})}), reply_to=message)
        context.node_config["home"] = home
        return holder_app()(message, context)


def _roster(grid: Grid, count: int) -> dict[str, int]:
    """Holder name to node id, asked from the virtual nodes once all are registered."""
    end = time.monotonic() + START_SECONDS
    while len(nodes := list(grid.get_node_ids())) < count and time.monotonic() < end:
        time.sleep(0.05)
    messages = [Message(RecordDict(), node, "query.hello") for node in nodes]
    replies = list(grid.send_and_receive(messages, timeout=START_SECONDS))
    names = {
        str(reply.content.config_records["facts"]["holder"]): reply.metadata.src_node_id
        for reply in replies
        if reply.has_content()
    }
    if len(names) != count:
        raise EngineError(f"Ray simulation: got {len(names)} holders; want {count}")
    return names


def run(deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R:
    """Drive a federation of virtual holders on Ray. Raises UsageError when Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise UsageError("engine ray: Ray is not installed; want `pip install 'statfed[ray]'`")
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }.items():
        os.environ.setdefault(name, value)
    from flwr.simulation import run_simulation

    homes = [(name, str(home)) for name, home in deployment.homes.items()]
    outcome: list[R] = []
    failed: list[BaseException] = []  # what the coordinator met
    broken: list[BaseException] = []  # what Flower or Ray did
    stop, server = threading.Event(), ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
        try:
            progress("start Ray", 1, 1)
            stoppable = StoppableGrid(grid, stop)
            session = Session(stoppable, _roster(stoppable, len(homes)), remembers=False)
            try:
                outcome.append(drive(session))
            finally:
                session.memory["coordinator"] = peak_memory()
        except BaseException as error:  # noqa: BLE001  # raised again where the caller waits
            failed.append(error)
            raise RuntimeError from None

    def simulate() -> None:
        try:
            run_simulation(
                server_app=server,
                client_app=PlacedHolders(homes),
                num_supernodes=len(homes),
                backend_config={
                    "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                    "init_args": {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"},
                },
            )
        except BaseException as error:  # noqa: BLE001  # as above
            broken.append(error)

    progress("start Ray", 0, 1)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    simulation = threading.Thread(target=simulate, name="simulation", daemon=True)
    simulation.start()
    try:
        while simulation.is_alive():
            simulation.join(0.2)
    except BaseException:
        stop.set()
        _end(simulation)
        raise
    if failed:
        raise failed[0]
    if broken:
        raise EngineError(f"Ray simulation failed: {type(broken[0]).__name__}: {broken[0]}") from broken[0]
    if not outcome:
        raise EngineError("Ray simulation ended without a result")
    return outcome[0]


def _end(simulation: threading.Thread) -> None:
    """Wait for a simulation that was told to stop, and end Ray where it does not."""
    import ray

    try:
        simulation.join(STOP_SECONDS)
    finally:
        if simulation.is_alive():
            ray.shutdown()
            simulation.join(1.0)
