"""What an engine is: it opens a Flower `Grid` to a set of holders, hands it to `drive`, and always cleans up.

One module of `statfed.server.grid` is one engine; it exposes `run(deployment, drive, progress)`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from flwr.serverapp import Grid

from statfed.core.progress import Progress

R = TypeVar("R")


@dataclass(frozen=True)
class Deployment:
    """Where a simulated federation lives.

    homes: holder name to its home folder (policy.toml, ledger.sqlite, data); logs: folder for process logs; training:
    will models be trained? What that needs takes seconds to import, which a statistic can do without.
    """

    run: str
    homes: Mapping[str, Path]
    logs: Path
    training: bool = True


@dataclass
class Meter:
    """What one party of a federation took and moved. processor: seconds; bytes of arrays and packets; messages that it
    answered."""

    processor: float = 0.0
    received: int = 0
    sent: int = 0
    messages: int = 0


@dataclass(frozen=True)
class Session:
    """An open federation. nodes: holder name to Flower node id, authenticated by the engine.

    memory: filled by the engine with peak resident MiB per process name, as far as it can tell. survive: called with
    the parties that a run can do without; until then an engine ends the run when any of them ends. remembers: a party
    answers all messages of a run from one process, which protections with secrets of their own need. meters: by party,
    where the engine can tell them apart.
    """

    grid: Grid
    nodes: Mapping[str, int]
    memory: dict[str, float] = field(default_factory=dict)
    survive: Callable[[Collection[str]], None] = lambda parties: None  # noqa: ARG005
    remembers: bool = True
    meters: Mapping[str, Meter] = field(default_factory=dict)


class Engine(Protocol):
    """The module contract of `statfed.server.grid.*`."""

    def run(self, deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R: ...
