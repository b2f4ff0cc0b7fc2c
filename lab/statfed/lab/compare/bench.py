"""One trial of any scenario: a world that techniques are tried on, and what one of them gave and took."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from statfed.core.codebook import Codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.scenario import Figures, Matching, Reference, Success
from statfed.federation.answers import Answer
from statfed.federation.run import DryRun
from statfed.lab.compare.questions import Applies, Dry, Questions
from statfed.lab.compare.trial import Cell, Role, Technique, Trial, compared
from statfed.server.engine import Engine, Meter

Beside = Callable[[Cell, Sequence[Answer]], Mapping[str, float]]


@dataclass(frozen=True)
class Bench:
    """A world that techniques are tried on, and what is common to them.

    compute: all questions of the scenario, asked; beside: further measures of a trial, from the answers to them.
    sources: holder to data file. reference, truth: figures of pooled data and of the population. alone: of holders that
    compute by themselves. probed: measures that take runs of their own. matched, codebooks: as of `Questions`.
    refused: techniques that stand in the comparison to be attacked, with the reason and measures of the attack.
    """

    compute: Callable[[Questions], Figures]
    sources: Mapping[str, str]
    codebook: Codebook
    success: Success
    reference: Reference
    truth: Reference = field(default_factory=dict)
    alone: Mapping[str, Figures] = field(default_factory=dict)
    matched: Matching | None = None
    codebooks: Mapping[str, Codebook] = field(default_factory=dict)
    refused: Mapping[str, Callable[[], tuple[str, dict[str, float]]]] = field(default_factory=dict)
    beside: Beside = lambda cell, answers: {}  # noqa: ARG005
    probed: Callable[[Trial], Mapping[str, float]] = lambda trial: {}  # noqa: ARG005

    def ask(self, technique: Technique, seed: int, workspace: Path, **more: Any) -> Questions:
        """Questions to the holders of this world."""
        more = {"matched": self.matched, "codebooks": self.codebooks} | more
        return Questions(self.sources, self.codebook, technique, seed, workspace, **more)

    @property
    def local(self) -> float | None:
        """The success measure of what holders find alone, mean over holders."""
        errors = [self.success.measure(figures, self.reference) for figures in self.alone.values()]
        return sum(errors) / len(errors) if errors else None


def obstacle(bench: Bench, technique: Technique) -> str:
    """Why a technique does not apply to a scenario; nothing when it does."""
    try:
        dry = Dry(bench.sources, bench.codebook, technique, 1, Path())
        dry.matched, dry.codebooks = bench.matched, bench.codebooks
        bench.compute(dry)
    except Applies:
        return ""
    except UsageError as error:
        return str(error)
    raise UsageError("scenario: compute asked nothing; want at least one question")


def tried(bench: Bench, cell: Cell, engine: Engine | None = None) -> Trial:
    """One cell of a comparison. Raises what the run raises: the harness records it."""
    if attacked := bench.refused.get(cell.technique.protection):
        reason, measures = attacked()
        return Trial(cell, "not-applicable", reason, measures=measures)
    reason = obstacle(bench, cell.technique)
    if reason:
        return Trial(cell, "not-applicable", reason)
    trial = Trial(cell, "done")
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        ask = bench.ask(cell.technique, cell.seed, Path(folder), engine=engine)
        started, spent = time.perf_counter(), time.process_time()
        figures = bench.compute(ask)
        trial.wall, trial.processor = time.perf_counter() - started, time.process_time() - spent
    compared(trial, figures, bench.reference, bench.truth, bench.success)
    account(trial, ask.answers)
    trial.measures |= bench.beside(cell, ask.answers)
    return trial


def warm(bench: Bench, cell: Cell) -> bool:
    """Let holders admit the first question and stop: noise is calibrated once in a process, at no technique's cost.

    Returns whether that was done: it is not under a technique that does not apply.
    """
    if cell.technique.protection in bench.refused:
        return False
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        try:
            bench.compute(bench.ask(cell.technique, cell.seed, Path(folder), dry_run=True))
        except DryRun:
            return True
        except (UsageError, Refused):
            return False
    return True


def account(trial: Trial, answers: Sequence[Answer]) -> None:
    """Fill in what the questions cost: epsilon by the holders' ledgers, bytes and time by party."""
    last = answers[-1].spending
    trial.disclosures = max((spent.disclosures for spent in last), default=0)
    composed = [spent.history_epsilon for spent in last]
    trial.epsilon = None if None in composed or not composed else max(e for e in composed if e is not None)
    if trial.epsilon is not None:
        trial.delta = max((spent.lifetime_delta or 0.0 for spent in last), default=None)
        trial.unit = next((spent.unit for spent in last), None)
    meters: dict[str, Meter] = {}
    for answer in answers:
        for party, meter in answer.meters.items():
            so_far = meters.setdefault(party, Meter())
            so_far.processor += meter.processor
            so_far.received += meter.received
            so_far.sent += meter.sent
            so_far.messages += meter.messages
    trial.roles = roles(meters, set(answers[0].terms.holders), trial.processor)
    trial.stages = max((role.messages for role in trial.roles if role.role == "holder"), default=0)
    trial.learns = tuple(dict.fromkeys(row for answer in answers for row in answer.learns))


def roles(meters: Mapping[str, Meter], holders: set[str], processor: float) -> tuple[Role, ...]:
    """A row for each party; the coordinator has what is left of the whole trial's processor time, set-up included."""
    parties = [
        Role(
            "holder" if party in holders else "third party",
            party,
            meter.processor,
            meter.received,
            meter.sent,
            meter.messages,
        )
        for party, meter in meters.items()
    ]
    rest = max(0.0, processor - sum(role.processor for role in parties))
    sent, received = sum(role.received for role in parties), sum(role.sent for role in parties)
    messages = sum(role.messages for role in parties)
    return (*parties, Role("coordinator", "coordinator", rest, received, sent, messages))
