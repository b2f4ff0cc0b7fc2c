"""The coordinator's connection to the SuperLink of a local federation: nodes, the run and its one task.

Flower would start a process for a run's ServerApp. Here the coordinator itself takes that task, in the process of the
`statfed` command, so that progress and errors reach the user and nothing is imported from a bundle.
"""

import ssl
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from statfed.core.errors import EngineError
from statfed.core.pilot.checks import HEALTH
from statfed.server._flwr import Api, Task
from statfed.server.grid._gate import SECRET_HEADER

HEARTBEAT_SECONDS = 10.0
START_SECONDS = 120.0

app = ServerApp()
"""What a bundle names as its ServerApp, since it has to name one."""


@app.main()
def _nobody(grid: Grid, context: Context) -> None:  # noqa: ARG001
    raise EngineError("ServerApp: got a process for it; want the `statfed` command, which coordinates its runs itself")


class Coordinator:
    """The coordinator's connections to the private listener: it registers nodes and holds the run's one task."""

    def __init__(
        self, stack: ExitStack, address: str, authority: bytes, secret: str, check: Callable[[], None]
    ) -> None:
        self._stack = stack
        self._address = address
        self._authority = authority
        self._check = check
        self._headers = {SECRET_HEADER: secret}
        self._api = Api(stack, address, authority, self._headers, check)
        self._task: Task | None = None

    def wait_until_up(self) -> None:
        """Wait for the SuperLink's first answer."""

        context = ssl.create_default_context(cadata=self._authority.decode("ascii"))
        end = time.monotonic() + START_SECONDS
        with httpx.Client(verify=context, headers=self._headers, timeout=1, trust_env=False) as client:
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
        return self._api.register(name, public_key)

    def unregister(self, node: int) -> None:
        """A node's key is nobody's any more; it is cut off."""
        self._api.unregister(node)

    def online(self) -> dict[int, str]:
        """Nodes that are connected now, with when each connection was made."""
        return self._api.online()

    def open(self, fab: bytes) -> Grid:
        """Start a run, take its task, and open its grid."""
        self._task = self._api.start(fab)
        done = threading.Event()
        threading.Thread(target=_beat, args=(self._task, done), name="heartbeat", daemon=True).start()
        self._stack.callback(done.set)
        return self._task.grid

    def finish(self, outcome: str) -> None:
        """Tell the SuperLink that the run is over; it may be gone already."""
        if self._task is not None:
            try:
                self._task.finish(outcome)
            except httpx.HTTPError:
                return


def _beat(task: Task, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        try:
            task.beat()
        except (httpx.HTTPError, RuntimeError):
            continue  # the grid's next call meets the same and says so
