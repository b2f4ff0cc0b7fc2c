"""A block: every technique on one world of a scenario, in a process of its own, one after another in shuffled order.

What is common to the techniques (the world, its pooled reference, what each holder finds alone) is computed once.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statfed.core.disclosure import HolderRules
from statfed.core.discovery import LINKAGES, load, modules
from statfed.core.errors import Refused
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.scenario import PACKAGE, Profile, kind_of, matching_of
from statfed.lab.compare import memory, wan
from statfed.lab.compare.bench import Bench, tried, warm
from statfed.lab.compare.dictionary import HASH_JOIN
from statfed.lab.compare.trial import Cell, Technique, Trial

Emit = Callable[[Trial], None]


@dataclass(frozen=True)
class Block:
    """What one process does: these cells, all of one scenario, profile and seed. cache: folder for tuned recipes."""

    cells: tuple[Cell, ...]
    cache: Path

    @property
    def name(self) -> str:
        """For progress and errors."""
        first = self.cells[0]
        return f"{first.scenario}, seed {first.seed}"


def techniques(
    module: Any, protections: Sequence[str] = (), levels: Sequence[str] = (), rules: HolderRules = "none"
) -> Iterator[Technique]:
    """Every installed protection at every release level of a scenario, every linkage where it has units to match, or
    those that are named, of holders whose policies follow a template (`Level.rules`).

    Where identifiers can be listed, `hash-join` stands beside the linkages, at the first level, to be attacked."""
    matched = matching_of(module)
    found = sorted(modules(LINKAGES if matched else PROTECTIONS))
    for protection in [*found, HASH_JOIN] if matched and matched.guesses else found:
        for level in module.LEVELS if protection != HASH_JOIN else module.LEVELS[:1]:
            if (not protections or protection in protections) and (not levels or level.id in levels):
                yield Technique(protection, level.under(rules))


def cells(scenario: str, profile: Profile, seed: int, chosen: Sequence[Technique]) -> list[Cell]:
    """The cells of one block."""
    return [Cell(scenario, profile, technique, seed) for technique in chosen]


def run_block(block: Block, emit: Emit) -> None:
    """Try every cell of a block and emit its trial as soon as it is there; what fails is a trial too."""
    first = block.cells[0]
    module = load(PACKAGE, first.scenario, "scenario")
    order = list(block.cells)
    random.Random(first.seed).shuffle(order)  # noqa: S311  # spreads drift of the machine over techniques
    try:
        with tempfile.TemporaryDirectory(prefix="statfed-block-") as folder:
            _tried(_bench(module, first, Path(folder), block.cache), order, emit)
    except Exception as error:  # noqa: BLE001  # whatever it is: recorded for every cell that has no trial yet
        for cell in order:
            emit(failed(cell, error))


def _bench(module: Any, first: Cell, folder: Path, cache: Path) -> Bench:
    if kind_of(module) == "training":
        from statfed.lab.compare import training

        return training.opened(module, first.profile, first.seed, folder, cache)
    from statfed.lab.compare import statistics

    return statistics.opened(module, first.profile, first.seed, folder)


def _tried(bench: Bench, order: Sequence[Cell], emit: Emit) -> None:
    warmed: set[str] = set()
    local = bench.local
    for cell in order:

        def attempt(cell: Cell = cell) -> Trial:
            if cell.technique.level.id not in warmed and warm(bench, cell):
                warmed.add(cell.technique.level.id)
            return tried(bench, cell)

        trial = _attempt(cell, attempt)
        trial.local = local
        _probed(trial, bench.probed)
        emit(trial)


def failed(cell: Cell, error: BaseException | str) -> Trial:
    """The trial of a cell that failed."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Trial(cell, "failed", text)


def _attempt(cell: Cell, attempt: Callable[[], Trial]) -> Trial:
    above = memory.watched()
    try:
        trial = attempt()
    except Refused as error:
        if cell.technique.level.rules == "none":
            return failed(cell, error)
        return Trial(cell, "not-applicable", f"refused by holders' rules: {' '.join(str(error).split())}")
    except Exception as error:  # noqa: BLE001  # a failure is a result of the comparison
        return failed(cell, error)
    if trial.status == "done":
        trial.memory_mib = above()
        trial.measures |= {f"wan_seconds.{line.id}": wan.seconds(trial.roles, line) for line in wan.LINES}
    return trial


def _probed(trial: Trial, probe: Callable[[Trial], Mapping[str, float]]) -> None:
    """Add a probe's measures to a trial that gave something; a probe that fails is said, and the trial stands."""
    if trial.status == "done":
        try:
            trial.measures |= probe(trial)
        except Exception as error:  # noqa: BLE001  # recorded beside what was measured
            trial.reason = f"probe failed: {type(error).__name__}: {error}"
