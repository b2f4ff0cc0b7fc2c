"""Machines of a rehearsal: a folder each, an environment each, and where it is permitted a network each.

A machine runs the `statfed` command as its people would type it, in its own working directory; what it has from others
was sent to it. `networks` gives each machine a network namespace behind one switch, so that only the coordinator's
address can be called; without the right to make them all share the loopback.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from statfed.core.errors import EngineError
from statfed.core.process import how

_STATFED = ("-P", "-c", "import sys; from statfed.cli.main import main; sys.argv[0] = 'statfed'; sys.exit(main())")
HUB = "hub.example"
UNSHARED = ("unshare", "--map-root-user", "--net", "--mount")
_INSIDE = "STATFED_REHEARSAL_INSIDE"
_PREFIX = "192.0.2."
"""TEST-NET-1 (RFC 5737): addresses that exist in these namespaces alone."""


@dataclass(frozen=True)
class Step:
    """One command that somebody typed. role: whose; seconds: how long it took, or until what was started was there."""

    role: str
    command: str
    seconds: float


@dataclass
class Machine:
    """One organisation's machine. through: the command that enters its network; told: called with every step; python:
    the interpreter of the environment that it has `statfed` in.
    """

    name: str
    folder: Path
    through: tuple[str, ...] = ()
    told: Callable[[Step], None] = lambda _: None
    python: str = sys.executable
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)

    def run(self, line: str, *, said: Sequence[str] = (), code: int = 0, limit: float = 300.0) -> str:
        """What a command printed. line: as it is typed; said: further arguments, which a person would have answered.

        Raises EngineError with its last words where it ends with another status than `code`.
        """
        begun = time.perf_counter()
        words = [*self.through, self.python, *_STATFED, *shlex.split(line)[1:], *said]
        try:
            done = subprocess.run(
                words,
                cwd=self.folder,
                env=self.environment(),
                capture_output=True,
                timeout=limit,
                check=False,
                text=True,
            )
        except subprocess.TimeoutExpired:
            raise EngineError(f"{self.name}: {line}: no end in {limit:.0f} s; want one") from None
        self.told(Step(self.name, line, time.perf_counter() - begun))
        if done.returncode != code:
            last = (done.stderr or done.stdout)[-2000:]
            raise EngineError(f"{self.name}: {line}: got {how(done.returncode)}; want {code}\n{last}")
        return done.stdout

    def start(self, line: str, up: str, *, said: Sequence[str] = (), limit: float = 120.0) -> subprocess.Popen[bytes]:
        """Start what stays up, and wait until its log says `up`. Raises EngineError with its last words otherwise."""
        begun, log = time.perf_counter(), self.folder / f"{shlex.split(line)[1]}.log"
        words = [*self.through, self.python, *_STATFED, *shlex.split(line)[1:], *said]
        with log.open("wb") as file:
            process = subprocess.Popen(
                words, cwd=self.folder, env=self.environment(), stdout=file, stderr=subprocess.STDOUT
            )
        self.processes.append(process)
        while up not in log.read_text(encoding="utf-8", errors="replace"):
            if process.poll() is not None or time.perf_counter() - begun > limit:
                raise EngineError(f"{self.name}: {line}: it is not up\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
        self.told(Step(self.name, line, time.perf_counter() - begun))
        return process

    def send(self, file: str, to: "Machine") -> None:
        """Send a file to another machine, which finds it under its own name."""
        shutil.copyfile(self.folder / file, to.folder / Path(file).name)

    def stop(self, seconds: float = 20.0) -> None:
        """End what was started here."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    def environment(self) -> Mapping[str, str]:
        """What its commands see: its interpreter's paths, and a home that is this machine's alone."""
        foreign = ("STATFED_", "XDG_") if self.python == sys.executable else ("STATFED_", "XDG_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        return kept | {"HOME": str(self.folder), "COLUMNS": "120"}

    def resident_mib(self) -> float:
        """Resident memory of what was started here, with its children, in MiB."""
        return sum(_resident(pid) for process in self.processes for pid in tree(process.pid)) / 1024


def tree(root: int) -> list[int]:
    """A process and all those below it, the deepest last."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                if fields[0] != "Z":
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def _resident(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return float(line.split()[1])
    return 0.0


def networks_permitted() -> bool:
    """May network namespaces be made here, with pairs of interfaces between them?"""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    tried = "mount -t tmpfs none /run && ip netns add a && ip link add v type veth peer name w netns a"
    return subprocess.run([*UNSHARED, "sh", "-c", tried], capture_output=True, check=False).returncode == 0


def enter_networks(module: str, arguments: Sequence[str]) -> int:
    """Run a module again inside a network of its own, where `networks` can make others. Its exit status."""
    words = [*UNSHARED, sys.executable, "-P", "-m", module, *arguments]
    with subprocess.Popen(words, env=os.environ | {_INSIDE: "1"}) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # it has it too, and ends what it started
                continue


def inside() -> bool:
    """Was this process started by `enter_networks`?"""
    return os.environ.get(_INSIDE) == "1"


@contextmanager
def networks(names: Sequence[str], hub: str, work: Path) -> Iterator[Mapping[str, tuple[str, ...]]]:
    """A network namespace for each name behind one switch; by name, what enters it. hub: whom HUB stands for.

    Holds inside `enter_networks` alone, whose end takes all of it away.
    """
    hosts = work / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{_PREFIX}{names.index(hub) + 1} {HUB}\n", encoding="utf-8")
    _shell("mount -t tmpfs none /run")
    _shell(f"mount --bind {shlex.quote(str(hosts))} /etc/hosts")
    _shell("ip link set lo up && ip link add switch type bridge && ip link set switch up")
    for number, name in enumerate(names):
        _shell(f"ip netns add {name} && ip link add v{number} type veth peer name line netns {name}")
        _shell(f"ip link set v{number} master switch && ip link set v{number} up")
        inner = f"nsenter --net=/run/netns/{name}"
        _shell(f"{inner} ip addr add {_PREFIX}{number + 1}/24 dev line && {inner} ip link set line up")
        _shell(f"{inner} ip link set lo up")
    yield {name: ("nsenter", f"--net=/run/netns/{name}") for name in names}


def _shell(line: str) -> None:
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode != 0:
        raise EngineError(f"network: {line}: {done.stderr.strip()}")


def end(pid: int, seconds: float = 10.0) -> None:
    """Have a process and all below it end, by force where it does not."""
    pids = tree(pid)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + seconds
    while time.monotonic() < until and Path(f"/proc/{pid}").exists():
        time.sleep(0.05)
    for one in pids:
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
