"""A block: every technique on one world of a scenario, in a process of its own, one after another in shuffled order.

What is common to the techniques (the world, its pooled reference, what each holder finds alone) is computed once.
"""

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statfed.core.discovery import load, modules
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.scenario import PACKAGE, Figures, Profile, Reference, Success, World, kind_of
from statfed.lab.compare import memory, wan
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


def techniques(module: Any, protections: Sequence[str] = (), levels: Sequence[str] = ()) -> Iterator[Technique]:
    """Every installed protection at every release level of a scenario, or those that are named."""
    for protection in sorted(modules(PROTECTIONS)):
        for level in module.LEVELS:
            if (not protections or protection in protections) and (not levels or level.id in levels):
                yield Technique(protection, level)


def cells(scenario: str, profile: Profile, seed: int, chosen: Sequence[Technique]) -> list[Cell]:
    """The cells of one block."""
    return [Cell(scenario, profile, technique, seed) for technique in chosen]


def run_block(block: Block, emit: Emit) -> None:
    """Try every cell of a block and emit its trial as soon as it is there; what fails is a trial too."""
    first = block.cells[0]
    module = load(PACKAGE, first.scenario, "scenario")
    order = list(block.cells)
    random.Random(first.seed).shuffle(order)  # noqa: S311  # spreads drift of the machine over techniques
    runner = {"statistics": _statistics, "training": _training}[kind_of(module)]
    try:
        runner(module, order, block.cache, emit)
    except Exception as error:  # noqa: BLE001  # whatever it is: recorded for every cell that has no trial yet
        for cell in order:
            emit(failed(cell, error))


def failed(cell: Cell, error: BaseException | str) -> Trial:
    """The trial of a cell that failed."""
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    return Trial(cell, "failed", text)


def _attempt(cell: Cell, attempt: Callable[[], Trial]) -> Trial:
    above = memory.watched()
    try:
        trial = attempt()
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


def _local(success: Success, alone: Mapping[str, Figures], reference: Reference) -> float | None:
    """The success measure of what holders find alone, mean over holders."""
    errors = [success.measure(figures, reference) for figures in alone.values()]
    return sum(errors) / len(errors) if errors else None


def _statistics(module: Any, order: Sequence[Cell], _: Path, emit: Emit) -> None:
    from statfed.lab.compare.probes import Probes
    from statfed.lab.compare.statistics import run_alone, run_statistics, warm, write_sources

    first = order[0]
    world = module.world(first.profile, first.seed)
    reference = module.pooled(world)
    with tempfile.TemporaryDirectory(prefix="statfed-block-") as folder:
        sources = write_sources(world, Path(folder))
        alone = {
            name: run_alone(module, world, name, sources[name], first.seed) for name in _some(world, first.profile)
        }
        local = _local(module.SUCCESS, alone, reference)
        probes = Probes(module, world, sources, reference, first.profile, first.seed)
        warmed: set[str] = set()
        for cell in order:

            def attempt(cell: Cell = cell) -> Trial:
                if cell.technique.level.id not in warmed and warm(module, world, cell, sources):
                    warmed.add(cell.technique.level.id)
                return run_statistics(module, world, cell, sources, reference)

            trial = _attempt(cell, attempt)
            trial.local = local
            _probed(trial, probes.of)
            emit(trial)


def _some(world: World, profile: Profile) -> list[str]:
    """Holders that are tried alone: all, or in the quick profile the smallest, the middle one and the largest."""
    names = sorted(world.holders, key=lambda name: (len(world.holders[name]), name))
    return names if profile == "full" or len(names) <= 3 else [names[0], names[len(names) // 2], names[-1]]


def _training(module: Any, order: Sequence[Cell], cache: Path, emit: Emit) -> None:
    from statfed.lab.compare.training import references, run_training, warm

    first = order[0]
    world = references(module, first.profile, first.seed, cache)
    local = _local(module.SUCCESS, world.alone, world.pooled)
    warmed: set[str] = set()
    for cell in order:

        def attempt(cell: Cell = cell) -> Trial:
            if cell.technique.level.id not in warmed:
                warm(module, world, cell)
                warmed.add(cell.technique.level.id)
            trial, _ = run_training(module, world, cell)
            return trial

        trial = _attempt(cell, attempt)
        trial.local = local
        emit(trial)
