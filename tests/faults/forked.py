"""Commands as processes of their own, forked from one that has them imported: a hundred of them in minutes."""

import contextlib
import multiprocessing as mp
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from statfed.core.process import how
from statfed.lab.pilot.machines import tree

_PRELOAD = [
    "statfed.cli.main",
    "statfed.federation",
    "statfed.federation.report.formats",
    "statfed.server.pilot.hub",
    "statfed.client.pilot.serving",
    "statfed.strategies.training.dp_fedsgd",
    "statfed.strategies.protections.secure_aggregation",
]


@contextlib.contextmanager
def warm() -> Iterator[None]:
    """While it lasts, the process that commands are forked from has imported what they need, and finds this module."""
    mp.get_context("forkserver").set_forkserver_preload(_PRELOAD)
    root = str(Path(__file__).parents[2])
    sys.path.insert(0, root)
    try:
        yield
    finally:
        sys.path.remove(root)


@dataclass
class Command:
    """A running `statfed` command. log: everything that it printed."""

    process: BaseProcess
    log: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def ended(self) -> str | None:
        """How it ended; None while it runs."""
        code = self.process.exitcode
        return None if code is None else how(code)

    def wait(self, seconds: float) -> bool:
        """Has it ended by then?"""
        self.process.join(seconds)
        return self.process.exitcode is not None

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """SIGKILL to it and to all below it."""
        for pid in tree(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()

    def end(self, seconds: float = 20.0) -> None:
        """As a service manager does: SIGTERM, and SIGKILL to what is left."""
        self.process.terminate()
        if not self.wait(seconds):
            self.kill()


def start(words: Sequence[str], folder: Path, log: Path, more: Mapping[str, str]) -> Command:
    """Start `statfed words` in a folder. more: changes of its environment."""
    process = mp.get_context("forkserver").Process(target=_command, args=(list(words), folder, log, dict(more)))
    process.start()
    return Command(process, log)


def _command(words: list[str], folder: Path, log: Path, more: dict[str, str]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(more)
    with log.open("ab", buffering=0) as file, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    from statfed.cli.main import main

    sys.argv = ["statfed", *words]
    main()
