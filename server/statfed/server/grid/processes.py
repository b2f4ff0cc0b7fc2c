"""The engine `processes`: a real SuperLink and, per holder, a real SuperNode with its pinned runner, on loopback.

Transport is TLS under a throw-away authority. Every holder's key is registered under its name before its node may
join, so a node id stands for a holder. Holders know the public listener only (see `_superlink`). All processes belong
to the engine and end with it, whatever happens. What cannot be shown here is a holder on another machine: the holder's
side, `statfed.client.flower.runner`, is the same there.
"""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import TypeVar

import httpx

from statfed.core.errors import EngineError
from statfed.core.pilot.bundle import CLIENT_APP, bundle
from statfed.core.pilot.proxy import carried
from statfed.core.process import OFFLINE, how
from statfed.core.progress import Progress
from statfed.server._flwr import COMPLETED, FAILED
from statfed.server.engine import Deployment, Session
from statfed.server.grid import _pki
from statfed.server.grid._coordinator import START_SECONDS, Coordinator
from statfed.server.grid._polling import PollingGrid
from statfed.server.limits import LOOPBACK

R = TypeVar("R")

TRAINING = "statfed.strategies.learning.local"  # takes seconds to import, which no round should have to wait for
START_POLL = 0.2
STOP_SECONDS = 5.0
GRACE_SECONDS = 1.0
TAIL_LINES = 5


def run(
    deployment: Deployment,
    drive: Callable[[Session], R],
    progress: Progress,
    *,
    app: str = CLIENT_APP,
    port: int = 0,
    poll: float = 0.05,
) -> R:
    """Start all processes, hand the open federation to `drive`, and stop them all, always.

    app: the ClientApp installed at the holders. port: of the public listener, 0 for any free one. poll: seconds
    between looks for messages. Raises EngineError if the port is in use, a process does not start, or one ends early.
    """
    with federation(deployment, progress, app=app, port=port, poll=poll) as opened:
        return drive(opened.session)


@dataclass
class Owned:
    """A process of this federation. status: the file in which a runner tells about itself."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    status: Path | None = None
    _facts: dict[str, object] = field(default_factory=dict)

    def facts(self) -> Mapping[str, object]:
        """What the runner last told: supernode (pid), ready, ended."""
        if self.status is not None and self.status.exists():
            self._facts = json.loads(self.status.read_text(encoding="utf-8"))
        return self._facts

    @property
    def supernode(self) -> int | None:
        """The pid of the holder's SuperNode, once there is one."""
        pid = self._facts.get("supernode") or self.facts().get("supernode")
        return pid if isinstance(pid, int) else None

    def ended(self) -> str | None:
        """How this process or its SuperNode ended; None while both live."""
        code, pid = self.process.poll(), self.supernode
        if code is None and (pid is None or _alive(pid)):
            return None
        end = time.monotonic() + GRACE_SECONDS
        while code is None and "ended" not in self.facts() and time.monotonic() < end:
            time.sleep(0.02)  # either the runner is about to tell how its SuperNode ended, or it is ending itself
            code = self.process.poll()
        if self.status is None:
            return f"it ended: {how(code or 0)}"
        if code is None or "ended" in self.facts():
            return f"its SuperNode ended: {self.facts().get('ended', 'its runner does not say how')}"
        return f"its runner ended: {how(code)}"

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"  {line}" for line in [line for line in lines if line.strip()][-TAIL_LINES:])


class Processes:
    """All processes of this federation; each leads a process group of its own."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.owned: dict[str, Owned] = {}
        self.dispensable: set[str] = set()
        self._logs = logs
        self._environment = dict(environment)
        self._stopping = False
        logs.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        name: str,
        module: str,
        *arguments: object,
        status: Path | None = None,
        text: str = "",
        fds: tuple[int, ...] = (),
    ) -> Owned:
        """Start `python -m module arguments`; `text` goes to its standard input. Its log is for the owner's eyes."""
        log = self._logs / f"{name}.log"
        command = [sys.executable, "-P", "-m", module, *map(str, arguments), "--parent", str(os.getpid())]
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self._environment,
                pass_fds=fds,
                start_new_session=True,
                text=True,
            )
        self.owned[name] = Owned(name, process, log, status)
        if process.stdin is not None:
            with suppress(BrokenPipeError), process.stdin:  # one that has ended already is for `check` to report
                process.stdin.write(text)
        return self.owned[name]

    def check(self) -> None:
        """Raise EngineError if a process has ended that none can do without: whose, how, and where its log is."""
        for name in set(self.owned) - self.dispensable:
            if why := self._ended(name):
                raise EngineError(f"{name}: {why}")

    def lost(self) -> dict[str, str]:
        """Dispensable processes that have ended, with how and where their logs are."""
        return {name: why for name in sorted(self.dispensable) if (why := self._ended(name))}

    def _ended(self, name: str) -> str | None:
        owned = self.owned[name]
        if self._stopping or not (how := owned.ended()):
            return None
        return f"{how}; its log is {owned.log}\n{owned.tail()}".rstrip()

    def memory(self) -> dict[str, float]:
        """Peak resident MiB by process, where the system tells."""
        found: dict[str, float] = {}
        for owned in self.owned.values():
            holder = owned.status is not None
            pids = {f"{owned.name}/runner" if holder else owned.name: owned.process.pid}
            if holder and owned.supernode is not None:
                pids[f"{owned.name}/supernode"] = owned.supernode
            found |= {name: peak for name, pid in pids.items() if (peak := _peak(pid)) is not None}
        return found

    def stop(self) -> None:
        """Stop holders, then the SuperLink: SIGTERM, and after 5 seconds SIGKILL to all that is left of each group."""
        self._stopping = True
        try:
            for wave in (
                [o for o in self.owned.values() if o.status],
                [o for o in self.owned.values() if not o.status],
            ):
                for owned in wave:
                    owned.process.terminate()
                end = time.monotonic() + STOP_SECONDS
                for owned in wave:
                    with suppress(subprocess.TimeoutExpired):
                        owned.process.wait(max(0.0, end - time.monotonic()))
        finally:
            for owned in self.owned.values():
                with suppress(ProcessLookupError, PermissionError):  # then the whole group has gone
                    os.killpg(owned.process.pid, signal.SIGKILL)
                owned.process.wait()


@dataclass(frozen=True)
class Federation:
    """An open federation, with what tests want to know of it. public, private: addresses of the SuperLink."""

    session: Session
    public: str
    private: str
    authority: Path
    coordinator: Coordinator
    processes: Processes


@contextmanager
def federation(
    deployment: Deployment, progress: Progress, *, app: str = CLIENT_APP, port: int = 0, poll: float = 0.05
) -> Iterator[Federation]:
    """Start and connect everything; stop everything at the end, after filling `session.memory`."""
    holders = list(deployment.homes)
    for name in holders:
        if not name or Path(name).name != name or name == "superlink":
            raise EngineError(f"holder name: got {name!r}; want a plain name other than 'superlink'")
    fab = bundle()
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-", ignore_cleanup_errors=True)))
        keys = _pki.create(work, holders)
        processes = Processes(deployment.logs, environment(work))
        stack.callback(processes.stop)
        public, private, secret = _start_superlink(processes, keys, port, progress)
        coordinator = Coordinator(stack, private, keys.authority.read_bytes(), secret, processes.check)
        try:
            coordinator.wait_until_up()
            progress("start SuperLink", 1, 1)
            progress("holders online", 0, len(holders))
            nodes = {name: coordinator.register(name, keys.node_public[name]) for name in holders}
            for index, name in enumerate(holders):
                status = work / f"runner-{index}.json"
                options: list[object] = ["--home", deployment.homes[name].resolve(), "--superlink", public]
                options += ["--root-certificates", keys.authority, "--node-key", keys.node_keys[name]]
                options += [
                    "--bundle-sha256",
                    hashlib.sha256(fab).hexdigest(),
                    "--poll",
                    poll,
                    "--app",
                    app,
                    "--status",
                    status,
                ]
                options += ["--preload", TRAINING] if deployment.training and app == CLIENT_APP else []
                processes.start(name, "statfed.client.flower.runner", *options, status=status)

            def lost() -> dict[int, str]:
                return {nodes[name]: why for name, why in processes.lost().items()}

            grid = PollingGrid(coordinator.open(fab), processes.check, poll, lost)
            _wait_for_holders(grid, processes, nodes, progress)
        except httpx.HTTPError as error:
            processes.check()
            raise EngineError(f"SuperLink: got {type(error).__name__}: {error}; want an answer") from error
        keys.forget()
        session = Session(grid, nodes, survive=processes.dispensable.update)
        stack.callback(lambda: session.memory.update(processes.memory()))
        outcome = FAILED
        try:
            yield Federation(session, public, private, keys.authority, coordinator, processes)
            outcome = COMPLETED
        finally:
            coordinator.finish(outcome)


def _start_superlink(processes: Processes, keys: _pki.Keys, port: int, progress: Progress) -> tuple[str, str, str]:
    """Public address, private address and secret of a SuperLink that is starting."""
    progress("start SuperLink", 0, 1)
    secret = token_hex(32)
    with listen(port) as public, listen(0) as private:  # bound here, so that nobody else can take the ports
        addresses = [f"127.0.0.1:{bound.getsockname()[1]}" for bound in (public, private)]
        fds = (public.fileno(), private.fileno())
        options: list[object] = ["--public-fd", fds[0], "--private-fd", fds[1]]
        options += ["--certificate", keys.certificate, "--key", keys.server_key]
        options += ["--limits", LOOPBACK.model_dump_json()]
        processes.start("superlink", "statfed.server.grid._superlink", *options, text=secret + "\n", fds=fds)
    return addresses[0], addresses[1], secret


def listen(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A listening socket. Raises EngineError where the port is taken, or is not this user's to take."""
    try:
        return socket.create_server((host, port), backlog=1024)
    except OSError as error:
        raise EngineError(f"port in use: got {host}:{port}; want a free port") from error


def _wait_for_holders(grid: PollingGrid, processes: Processes, nodes: Mapping[str, int], progress: Progress) -> None:
    """Wait until every holder's node is connected and its runner has loaded the ClientApp."""
    end = time.monotonic() + START_SECONDS
    before = 0
    while True:
        processes.check()
        online = set(grid.get_node_ids())
        missing = [
            name for name, node in nodes.items() if node not in online or not processes.owned[name].facts().get("ready")
        ]
        if len(nodes) - len(missing) > before:
            before = len(nodes) - len(missing)
            progress("holders online", before, len(nodes))
        if not missing:
            return
        if time.monotonic() > end:
            raise EngineError(f"holders online: got {before} of {len(nodes)}; want all; missing {', '.join(missing)}")
        time.sleep(START_POLL)


def environment(work: Path) -> dict[str, str]:
    """Children inherit no setting of Flower's, contact nobody, and put temporary files where the engine cleans up."""
    kept = {name: value for name, value in carried(None, os.environ).items() if not name.startswith("FLWR_")}
    own = {
        "FLWR_HOME": str(work / "flwr"),
        **OFFLINE,
        "TMPDIR": str(work),
        "PYTHONUNBUFFERED": "1",
    }
    return {"OMP_NUM_THREADS": "1"} | kept | own


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _peak(pid: int) -> float | None:
    """Peak resident MiB of a process, from /proc where there is one."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)
