"""The hub of a pilot: a SuperLink behind its gate, which parties call, and through which studies are run.

`serve` keeps it up: every participant's node key is registered, a revoked one's is taken out, and a renewed certificate
is shown to whoever connects next, all without a restart. A file that only its owner can read, `hub/control.json`, tells
the commands of the same user on the same machine where to reach it and with which secret, and a lock beside it whether
there is one. `PilotEngine` is what a run opens: nodes stand for the names under which their keys were signed, and
messages go to those alone that have approved.
"""

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

import httpx
from flwr.serverapp import Grid

from statfed.core import VERSION
from statfed.core.errors import EngineError, UsageError
from statfed.core.pilot.audit import record
from statfed.core.pilot.bundle import bundle
from statfed.core.pilot.files import alone, replace_file, taken
from statfed.core.pilot.papers import Participant
from statfed.core.progress import Progress
from statfed.core.turns import in_turn
from statfed.server._flwr import COMPLETED, FAILED
from statfed.server.engine import Deployment, Session
from statfed.server.grid._coordinator import Coordinator
from statfed.server.grid._polling import PollingGrid
from statfed.server.grid.processes import Processes, environment, listen
from statfed.server.pilot import studies
from statfed.server.pilot.office import Office, open_office
from statfed.server.pilot.witnessed import WitnessedGrid

R = TypeVar("R")
CONTROL, LOCK = "control.json", "lock"
LOOK = 1.0
"""Seconds between looks at the roster's file."""
JOINING = 60.0
"""Seconds that a run waits for its parties to be connected."""


@dataclass(frozen=True)
class Control:
    """How a command reaches the hub of its own pilot. nodes: by the name of the party."""

    address: str
    secret: str
    pid: int
    nodes: Mapping[str, int]


def serve(
    office: Office, stop: threading.Event, ready: Callable[[str], None], host: str, port: int | None = None
) -> None:
    """Serve parties until `stop` is set. host, port: where to listen, the pilot's own port unless another is forwarded.

    ready: called once, with the address. Raises UsageError where a hub of this pilot is up, or its port is taken;
    EngineError when the SuperLink ends by itself.
    """
    control = office.root / "hub" / CONTROL
    with ExitStack() as stack:
        stack.enter_context(alone(office.root / "hub" / LOCK, "coordinator"))
        control.unlink(missing_ok=True)  # of a hub that was killed: its process number may be another's by now
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-", ignore_cleanup_errors=True)))
        processes = Processes(office.root / "logs", environment(work))
        stack.callback(processes.stop)
        secret = token_hex(32)
        with listen(port if port is not None else office.settings.port, host) as public, listen(0) as private:
            shown = f"{host}:{public.getsockname()[1]}"
            inner = f"127.0.0.1:{private.getsockname()[1]}"
            fds = (public.fileno(), private.fileno())
            options: list[object] = ["--public-fd", fds[0], "--private-fd", fds[1]]
            options += ["--certificate", office.root / "hub" / "server.pem"]
            options += ["--key", office.root / "hub" / "server.key"]
            options += ["--limits", office.limits.model_dump_json()]
            processes.start("superlink", "statfed.server.grid._superlink", *options, text=secret + "\n", fds=fds)
        coordinator = Coordinator(stack, inner, office.authority.pem, secret, processes.check)
        coordinator.wait_until_up()
        nodes: dict[str, tuple[Participant, int]] = {}
        stack.callback(control.unlink, missing_ok=True)
        seen, due = 0, datetime.max.replace(tzinfo=UTC)
        told = False
        while not stop.wait(LOOK if told else 0):
            processes.check()
            stamp = (office.root / "roster.json").stat().st_mtime_ns
            if stamp != seen or datetime.now(UTC) >= due:
                due = follow(office, coordinator, nodes, datetime.now(UTC))
                seen = stamp
                facts = {name: node for name, (_, node) in nodes.items()}
                table = {"address": inner, "secret": secret, "pid": os.getpid(), "nodes": facts}
                replace_file(control, json.dumps(table))
            if not told:
                told = True
                record(office.root, "hub-started", {"address": shown, "version": VERSION})
                stack.callback(record, office.root, "hub-stopped", {})
                ready(shown)


def follow(
    office: Office, coordinator: Coordinator, nodes: dict[str, tuple[Participant, int]], at: datetime
) -> datetime:
    """Register who is new, take out who is gone, has expired or has other keys. When the next one expires."""
    now = {one.name: one for one in office.roster.participants if one.until > at}
    for name, (known, node) in list(nodes.items()):
        if name not in now or now[name].node_key != known.node_key:
            coordinator.unregister(node)
            del nodes[name]
    for name, one in now.items():
        if name not in nodes:
            nodes[name] = one, coordinator.register(name, one.node_key.encode("ascii"))
    return min((one.until for one in now.values()), default=datetime.max.replace(tzinfo=UTC))


def control_of(office: Office) -> Control:
    """How to reach the pilot's hub. Raises EngineError where none is up."""
    try:
        if not taken(office.root / "hub" / LOCK):
            raise FileNotFoundError
        table = json.loads((office.root / "hub" / CONTROL).read_text(encoding="utf-8"))
        return Control(str(table["address"]), str(table["secret"]), int(table["pid"]), dict(table["nodes"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise EngineError(
            f"coordinator: got none that is up for {office.settings.name}; want `statfed coordinator start`"
        ) from None


def stop_hub(office: Office, seconds: float = 15.0) -> bool:
    """Stop the hub of this pilot: was there one? Raises EngineError where it does not end."""
    try:
        pid = control_of(office).pid
    except EngineError:
        return False
    os.kill(pid, signal.SIGTERM)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            control_of(office)
        except EngineError:
            return True
        time.sleep(0.05)
    raise EngineError(f"coordinator: process {pid} has not ended in {seconds:.0f} s; want it to")


def connected(office: Office) -> dict[str, bool]:
    """Which participants are connected now. Raises EngineError where no hub is up."""
    control = control_of(office)
    with ExitStack() as stack:
        online = _coordinator(stack, office, control).online()
    return {name: node in online for name, node in sorted(control.nodes.items())}


@dataclass(frozen=True)
class PilotEngine:
    """The engine `pilot`: an existing hub, and parties on machines of their own, for the study of one proposal.

    folder: the coordinator's; number: of the proposal, whose approval by every party is looked at before anybody is
    asked. Messages go to those parties alone.
    """

    folder: Path
    number: int
    poll: float = 0.05

    def run(self, deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R:
        """Open a session with the parties of a study, by name, and close it, always. Raises Pending where one has not
        approved it, UsageError where it has other parties, EngineError where one is not connected."""
        office = open_office(self.folder)
        parties = studies.ready(office, self.number, datetime.now(UTC)).proposal.parties
        if set(parties) != set(deployment.homes):
            got = ", ".join(sorted(deployment.homes))
            raise UsageError(
                f"study {self.number}: got {got} as parties; want those that approved it: {', '.join(parties)}"
            )
        control = control_of(office)
        if strangers := sorted(set(parties) - set(control.nodes)):
            raise UsageError(f"{', '.join(strangers)}: not known to the hub: expired or revoked; want them renewed")
        nodes = {name: control.nodes[name] for name in parties}
        with _opened(office, control, lambda hub: _wait(hub, nodes, progress), self.poll) as (grid, _):
            return drive(Session(witnessed(grid, office, nodes), nodes))


def correspond(office: Office, numbers: Sequence[int]) -> dict[str, str]:
    """Send proposals to those of their parties that are connected, and take in what they have decided.

    Returns what went wrong, by party. Raises EngineError where no hub is up.
    """
    control = control_of(office)
    with _opened(office, control, Coordinator.online) as (grid, online):
        nodes = {name: node for name, node in control.nodes.items() if node in online}
        return studies.post(office, witnessed(grid, office, nodes), nodes, numbers, datetime.now(UTC))


@contextmanager
def _opened(
    office: Office, control: Control, found: Callable[[Coordinator], Mapping[int, str]], poll: float = 0.05
) -> Iterator[tuple[PollingGrid, Mapping[int, str]]]:
    """A run of the hub, which carries messages as long as the block runs, and the nodes that are watched in it.

    found: those nodes, with since when each is connected.
    """

    def check() -> None:
        control_of(office)

    with ExitStack() as stack:
        coordinator = _coordinator(stack, office, control)
        try:
            since = found(coordinator)
            watch = Watch(coordinator.online, since)
            with in_turn(office.root / "hub"):
                opened = coordinator.open(bundle())
            grid = PollingGrid(opened, check, poll, watch.lost)
        except httpx.HTTPError as error:
            raise EngineError(f"coordinator: got {type(error).__name__}; want an answer") from error
        outcome = FAILED
        try:
            yield grid, since
            outcome = COMPLETED
        finally:
            coordinator.finish(outcome)


def witnessed(grid: Grid, office: Office, nodes: Mapping[str, int]) -> Grid:
    """The grid of a run, which writes its messages into the coordinator's log."""
    pins = {one.name: one.identity for one in office.roster.participants}
    return WitnessedGrid(grid, office.root, {node: name for name, node in nodes.items()}, pins)


def _coordinator(stack: ExitStack, office: Office, control: Control) -> Coordinator:
    return Coordinator(stack, control.address, office.authority.pem, control.secret, lambda: None)


@dataclass
class Watch:
    """Which nodes of a session are lost. online: nodes that are connected, with since when; since: as it was at first.

    A node whose connection ended has no memory of messages that it took: Flower does not send them again, so that
    whoever waits for their answers would wait until the study's timeout. One that is busy goes on saying that it lives,
    however long it takes, and is not lost. Once lost, a node is lost for this session, whether it comes back or not.
    """

    online: Callable[[], Mapping[int, str]]
    since: Mapping[int, str]
    _lost: dict[int, str] = field(default_factory=dict)
    _looked: float = -LOOK

    def lost(self) -> Mapping[int, str]:
        """Nodes that are lost, with what happened. Looks once in `LOOK` seconds; raises httpx.HTTPError."""
        if time.monotonic() - self._looked >= LOOK:
            now = self.online()
            self._looked = time.monotonic()
            for node, since in self.since.items():
                if now.get(node) != since:
                    how = "was made anew since" if node in now else "ended"
                    self._lost.setdefault(node, f"its connection {how}, and what it was asked is lost")
        return self._lost


def _wait(coordinator: Coordinator, nodes: Mapping[str, int], progress: Progress) -> Mapping[int, str]:
    """Wait until the study's parties are connected; since when they are, by node. Raises EngineError, naming those that
    are not."""
    end = time.monotonic() + JOINING
    while True:
        online = coordinator.online()
        missing = sorted(name for name, node in nodes.items() if node not in online)
        progress("holders online", len(nodes) - len(missing), len(nodes))
        if not missing:
            return {node: online[node] for node in nodes.values()}
        if time.monotonic() > end:
            raise EngineError(
                f"holders: got no connection from {', '.join(missing)} in {JOINING:.0f} s; want `statfed holder start` "
                "there, and `statfed doctor` to say what stands against it"
            )
        time.sleep(0.2)
