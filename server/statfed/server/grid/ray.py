"""Engine `ray`: Flower's own simulation, for hundreds to thousands of virtual holders.

Each virtual node plays the holder whose home folder its partition number points to. Needs the extra `statfed[ray]`.
Any of Ray's workers may answer for a holder, so protections that keep secrets between messages are refused.
"""

import importlib.util
import logging
import os
import time
from collections.abc import Callable

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from statfed.core.errors import EngineError, UsageError
from statfed.core.progress import Progress
from statfed.server.engine import Deployment, R, Session
from statfed.server.grid._holder_app import holder_app
from statfed.server.grid.inprocess import peak_memory

START_SECONDS = 120.0


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
    failed: list[BaseException] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001
        try:
            progress("start Ray", 1, 1)
            session = Session(grid, _roster(grid, len(homes)), remembers=False)
            try:
                outcome.append(drive(session))
            finally:
                session.memory["coordinator"] = peak_memory()
        except BaseException as error:
            failed.append(error)
            raise

    progress("start Ray", 0, 1)
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
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
    except Exception as error:
        if not failed:
            raise EngineError(f"Ray simulation failed: {type(error).__name__}: {error}") from error
    if failed:
        raise failed[0]
    if not outcome:
        raise EngineError("Ray simulation ended without a result")
    return outcome[0]
