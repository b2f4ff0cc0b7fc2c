"""The comparison: blocks of trials in parallel processes, written to the store as they come, resumable.

A block is a scenario and a seed; seeds are the outer loop, so repetitions of everything interleave. Every block has a
process of its own: what it leaks or breaks stays there, and a process that dies is recorded as failed trials.
"""

import csv
import math
import multiprocessing
import os
import queue
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from statfed.core.disclosure import HolderRules
from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.names import meant
from statfed.core.progress import Progress, silent
from statfed.core.protection import load_protection
from statfed.core.scenario import PACKAGE, Profile, kind_of
from statfed.lab.compare.block import Block, cells, failed, run_block, techniques
from statfed.lab.compare.dictionary import HASH_JOIN
from statfed.lab.compare.store import BASELINE, opened
from statfed.lab.compare.trial import Cell, Trial

SEEDS = {"quick": 1, "full": 5}
POLL = 0.2  # seconds between looks at the processes


@dataclass(frozen=True)
class Comparison:
    """What to compare. Empty means all there are. seeds: how many worlds of each scenario; streams: processes at a
    time; again: try also what has a result already; rules: what the simulated holders allow (`Level.rules`)."""

    scenarios: tuple[str, ...] = ()
    protections: tuple[str, ...] = ()
    levels: tuple[str, ...] = ()
    profile: Profile = "quick"
    seeds: int | None = None
    streams: int | None = None
    again: bool = False
    rules: HolderRules = "none"


@dataclass
class Outcome:
    """How a comparison ended. trials: counts by status, of this time; kept: results that were there already."""

    counts: dict[str, int] = field(default_factory=dict)
    kept: int = 0


def comparable() -> tuple[str, ...]:
    """Ids of the scenarios that can be compared: statistics and training."""
    found = sorted(modules(PACKAGE))
    return tuple(name for name in found if kind_of(load(PACKAGE, name, "scenario")) != "entry")


def plan(comparison: Comparison) -> list[list[Cell]]:
    """The cells, by block, seeds outermost.

    Raises UsageError on names that do not exist, on entries, on levels that no scenario has, and where there is no
    technique of these names: protections are tried on scenarios of tables and models, linkages where units are matched.
    """
    names = comparison.scenarios or comparable()
    for name in set(comparison.protections) - {HASH_JOIN}:
        load_protection(name)
    blocks: list[list[Cell]] = []
    chosen = {}
    for name in names:
        module = load(PACKAGE, name, "scenario")
        if kind_of(module) == "entry":
            raise UsageError(
                f"scenario: got {name}, whose protocol ({module.ABOUT.partitioning}) is not built; want one of "
                f"{', '.join(comparable())}"
            )
        chosen[name] = list(techniques(module, comparison.protections, comparison.levels, comparison.rules))
    known = dict.fromkeys(level.id for name in names for level in load(PACKAGE, name, "scenario").LEVELS)
    unknown = [level for level in comparison.levels if level not in known]
    if unknown:
        raise UsageError(
            f"--level: got {', '.join(unknown)}; want some of {', '.join(known)}{meant(unknown[0], known)}"
        )
    if not any(chosen.values()):
        named = [
            f"{name}: {', '.join(dict.fromkeys(one.protection for one in techniques(load(PACKAGE, name, 'scenario'))))}"
            for name in names
        ]
        got = ", ".join((*comparison.protections, *comparison.levels))
        raise UsageError(f"--protect, --level: got {got}, of no technique of these scenarios; want {'; '.join(named)}")
    seeds = comparison.seeds or SEEDS[comparison.profile]
    for seed in range(1, seeds + 1):
        blocks += [cells(name, comparison.profile, seed, some) for name, some in chosen.items() if some]
    return blocks


def compare(
    comparison: Comparison,
    results: Path,
    cache: Path,
    progress: Progress = silent,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Outcome:
    """Run what the store does not have yet. results: the store's file; cache: folder for what is slow to find again.

    Raises UsageError before anything runs. An interrupt ends all processes; what they had finished is kept.
    """
    blocks = plan(comparison)
    outcome = Outcome()
    with opened(results, write=True) as store:
        there = {} if comparison.again else store.finished()
        todo = [Block(tuple(c for c in block if c.key() not in there), cache) for block in blocks]
        todo = _longest_first([block for block in todo if block.cells], store.costs() or _usual_costs())
        total = Counter(cell.scenario for block in blocks for cell in block)
        done = total - Counter(cell.scenario for block in todo for cell in block.cells)
        outcome.kept = done.total()
        streams = comparison.streams or os.cpu_count() or 1

        def show(scenario: str) -> None:
            progress("all techniques", done.total(), total.total())
            progress(scenario, done[scenario], total[scenario])

        def keep(trial: Trial) -> None:
            store.add(trial, streams)
            done[trial.cell.scenario] += 1
            outcome.counts[trial.status] = outcome.counts.get(trial.status, 0) + 1
            on_trial(trial)
            show(trial.cell.scenario)

        _run(todo, streams, keep, show)
    return outcome


def _longest_first(blocks: Sequence[Block], costs: Mapping[str, float]) -> list[Block]:
    """Within each seed the scenarios that take longest first, so that no stream is left with one at the end."""
    return sorted(blocks, key=lambda block: (block.cells[0].seed, -costs.get(block.cells[0].scenario, math.inf)))


def _usual_costs() -> dict[str, float]:
    """Scenario to processor seconds in the baseline that is shipped, where there is one."""
    costs: dict[str, float] = {}
    if BASELINE.is_file():
        with BASELINE.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                costs[row["scenario"]] = costs.get(row["scenario"], 0.0) + float(row["processor"] or 0.0)
    return costs


@dataclass
class _Stream:
    """A process at work on a block. waiting: its cells without a trial, by key."""

    process: Any
    trials: Any
    block: Block
    waiting: dict[str, Cell]

    def drain(self, keep: Callable[[Trial], None]) -> None:
        """Take what has come."""
        while True:
            try:
                trial: Trial = self.trials.get_nowait()
            except queue.Empty:
                return
            if self.waiting.pop(trial.cell.key(), None):
                keep(trial)


def _run(
    blocks: Sequence[Block],
    streams: int,
    keep: Callable[[Trial], None],
    begin: Callable[[str], None] = lambda _: None,
) -> None:
    """begin: told the scenario of every block that starts."""
    context = multiprocessing.get_context("spawn")
    left, running = list(blocks), list[_Stream]()
    try:
        while left or running:
            while left and len(running) < streams:
                block = left.pop(0)
                trials = context.Queue()
                process = context.Process(target=_work, args=(block, trials))
                with _one_thread():
                    process.start()
                begin(block.cells[0].scenario)
                running.append(_Stream(process, trials, block, {cell.key(): cell for cell in block.cells}))
            running[0].process.join(POLL)
            for stream in list(running):
                ended = not stream.process.is_alive()
                stream.drain(keep)
                if ended:
                    stream.process.join()
                    running.remove(stream)
                    for cell in stream.waiting.values():
                        keep(failed(cell, f"its process ended with exit code {stream.process.exitcode}"))
    finally:
        _stop(running)


def _stop(running: Iterable[_Stream]) -> None:
    for stream in running:
        stream.process.terminate()
    for stream in running:
        stream.process.join(5.0)
        if stream.process.is_alive():
            stream.process.kill()
            stream.process.join()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes that start here compute on one core: streams share the machine, and times are of one core each."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(block: Block, trials: Any) -> None:
    """A block's process."""
    run_block(block, trials.put)
    trials.close()
    trials.join_thread()
