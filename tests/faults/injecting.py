"""Faults by role: what is done to whom, for how long, and how it is undone."""

import importlib.util
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.forked import Command
from tests.faults.world import HOLDERS, KEY_HOLDER, World, disk_full, signal_all


@dataclass(frozen=True)
class Scene:
    """Where a fault happens. party: to whom, where its role is one of several; run: the coordinator's command."""

    world: World
    party: str
    run: Command
    seconds: float


@dataclass(frozen=True)
class Fault:
    """One kind of fault. role: of whom; act: does it; what it leaves, `World.whole` undoes."""

    role: str
    what: str
    act: Callable[[Scene], None]
    needs: str = ""
    """A study that it is for alone."""


def _kill(part: str, whose: str = "") -> Callable[[Scene], None]:
    """SIGKILL to a part of a party, or of `whose`; whoever looks after it starts it again."""

    def act(scene: Scene) -> None:
        role = whose or scene.party
        signal_all(scene.world.processes(role).get(part, []), signal.SIGKILL)
        if part in ("all", "main"):
            _again(scene.world, role)

    return act


def _again(world: World, role: str) -> None:
    """As a service manager does: start what has ended."""
    if world.up[role].wait(10):
        world.start(role)


def _pause(part: str, whose: str = "") -> Callable[[Scene], None]:
    """SIGSTOP for some seconds."""

    def act(scene: Scene) -> None:
        pids = scene.world.processes(whose or scene.party).get(part, [])
        signal_all(pids, signal.SIGSTOP)
        time.sleep(scene.seconds)
        signal_all(pids, signal.SIGCONT)

    return act


def _kill_run(scene: Scene) -> None:
    scene.run.kill()


def _pause_run(scene: Scene) -> None:
    signal_all([scene.run.pid], signal.SIGSTOP)
    time.sleep(scene.seconds)
    signal_all([scene.run.pid], signal.SIGCONT)


def _no_room_for_run(scene: Scene) -> None:
    """Until the command has ended, or some seconds more than it should take."""
    disk_full([scene.run.pid], True)
    scene.run.wait(15)
    disk_full([scene.run.pid], False)


def _no_room(whose: str = "") -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        pids = scene.world.processes(whose or scene.party)["all"]
        disk_full(pids, True)
        time.sleep(scene.seconds)
        disk_full(pids, False)

    return act


def _line(fault: str, whose: str = "") -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        line = scene.world.lines[whose or scene.party]
        line.line.fault = fault  # type: ignore[assignment]
        time.sleep(scene.seconds)
        line.heal()

    return act


def _cut_once(scene: Scene) -> None:
    scene.world.lines[scene.party].cut()


def _slow(scene: Scene) -> None:
    line = scene.world.lines[scene.party].line
    line.delay, line.rate = 0.05, 100e6 / 8
    scene.run.wait(30)


def _narrow(scene: Scene) -> None:
    line = scene.world.lines[scene.party].line
    line.delay, line.rate = 0.2, 20_000
    scene.run.wait(30)


def _replay(scene: Scene) -> None:
    scene.world.lines[scene.party].replay()


def _all_lines(scene: Scene) -> None:
    """The hub's own network."""
    lines = scene.world.lines.values()
    for line in lines:
        line.line.fault = "cut"
    time.sleep(scene.seconds)
    for line in lines:
        line.heal()


def _clock(offset: str) -> Callable[[Scene], None]:
    """The party is started again with a wrong clock, and lives with it to the end of the run."""

    def act(scene: Scene) -> None:
        library = faketime()
        assert library is not None
        scene.world.up[scene.party].end()
        more = {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        scene.world.start(scene.party, more | {"DONT_FAKE_MONOTONIC": "1"})
        scene.run.wait(60)
        scene.world.up[scene.party].end()
        scene.world.start(scene.party)

    return act


def faketime() -> Path | None:
    """libfaketime, where it is installed."""
    spec = importlib.util.find_spec("libfaketime")
    roots = [Path(spec.origin).parent] if spec and spec.origin else []
    for root in (*roots, *Path("/usr/lib").glob("*/faketime")):
        if found := sorted(root.rglob("libfaketime.so.1")):
            return found[0]
    return None


FAULTS = (
    Fault("coordinator's command", "killed", _kill_run),
    Fault("coordinator's command", "stopped for seconds", _pause_run),
    Fault("coordinator's command", "no room on disk", _no_room_for_run),
    Fault("hub", "killed, started again", _kill("all", "hub")),
    Fault("hub", "its SuperLink killed", _kill("superlink", "hub")),
    Fault("hub", "stopped for seconds", _pause("all", "hub")),
    Fault("hub", "no room on disk for seconds", _no_room("hub")),
    Fault("hub", "all lines cut for seconds", _all_lines),
    Fault("SuperNode", "killed", _kill("supernode")),
    Fault("SuperNode", "stopped for seconds", _pause("supernode")),
    Fault("runner", "killed", _kill("runner")),
    Fault("runner", "stopped for seconds", _pause("runner")),
    Fault("holder", "killed whole, started again", _kill("all")),
    Fault("holder", "its parent process killed, started again", _kill("main")),
    Fault("holder", "stopped whole for seconds", _pause("all")),
    Fault("holder", "no room on disk for seconds", _no_room()),
    Fault("holder", "clock a day ahead", _clock("+1d")),
    Fault("holder", "clock a day behind", _clock("-1d")),
    Fault("line of a holder", "cut once", _cut_once),
    Fault("line of a holder", "cut for seconds", _line("cut")),
    Fault("line of a holder", "stalled for seconds", _line("stall")),
    Fault("line of a holder", "loses everything for seconds", _line("drop")),
    Fault("line of a holder", "resets after 4 KiB, for seconds", _line("reset")),
    Fault("line of a holder", "doubles every byte for seconds", _line("double")),
    Fault("line of a holder", "replays what was sent", _replay),
    Fault("line of a holder", "50 ms, 100 Mbit/s", _slow),
    Fault("line of a holder", "200 ms, 160 kbit/s", _narrow),
    Fault("key holder", "killed whole, started again", _kill("all", KEY_HOLDER), "encrypted"),
    Fault("key holder", "its runner killed", _kill("runner", KEY_HOLDER), "encrypted"),
    Fault("key holder", "stopped whole for seconds", _pause("all", KEY_HOLDER), "encrypted"),
    Fault("key holder", "its line cut for seconds", _line("cut", KEY_HOLDER), "encrypted"),
    Fault("key holder", "its line loses everything for seconds", _line("drop", KEY_HOLDER), "encrypted"),
)
MOMENTS = ("before admission", "after admission", "in a sum", "between sums", "at the last sum", "at random")


class Watch:
    """Waits for a moment of a run, by what it writes; says whether the run was still going on."""

    def __init__(self, world: World, command: Command, before: set[str]) -> None:
        self.world, self.command, self.before = world, command, before
        self.run = ""

    def wait(self, moment: str, sums: int, random: float) -> bool:
        """sums: of the study; random: seconds, for the moment at random."""
        begun = time.monotonic()
        while self.command.ended is None:
            if not self.run:
                self._look()
            elif self._is(moment, sums, time.monotonic() - begun, random):
                return True
            time.sleep(0.02)
        if not self.run:
            self._look()
        return False

    def _look(self) -> None:
        self.run = next((one.name for one in self.world.runs() if one.name not in self.before), "")

    def _is(self, moment: str, sums: int, passed: float, random: float) -> bool:
        if moment == "before admission":
            return True
        if moment == "at random":
            return passed >= random
        entries = [self.world.entries(holder, self.run) for holder in HOLDERS]
        paid = [sum(kind in ("charge", "disclose") for kind, _, _ in one) for one in entries]
        if moment == "after admission":
            return any(entries)
        if moment == "in a sum":
            return max(paid) > 0
        return min(paid) >= (1 if moment == "between sums" else sums)


def background(fault: Fault, scene: Scene) -> threading.Thread:
    """Let a fault happen while the run goes on."""
    thread = threading.Thread(target=fault.act, args=(scene,), daemon=True)
    thread.start()
    return thread
