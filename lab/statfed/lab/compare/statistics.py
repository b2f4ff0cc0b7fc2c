"""One trial of a statistics scenario: its questions, asked of simulated holders under one technique."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.optimize import brentq
from scipy.stats import norm
from statfed.federation.answering import Answer, DryRun, run_analysis
from statfed.federation.study import AnalysisStudy, make_analysis_study

from statfed.core.applicability import applicable
from statfed.core.codebook import Codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.method import read_question
from statfed.core.result import Result
from statfed.core.scenario import EXACT, Figures, Level, Reference, World
from statfed.lab.compare.reconstruct import pinned
from statfed.lab.compare.release import too_few
from statfed.lab.compare.trial import Cell, Role, Technique, Trial, compared
from statfed.server.engine import Engine, Meter

DELTA = 1e-6
LEAST = 10
"""Fewest records behind a released cell, for counting violations (ACRO, UK LLC)."""
MARGIN = 0.98
BUDGET = 1000.0
"""Lifetime budget of simulated holders: a comparison measures what a technique spends, and is stopped by none."""


@dataclass
class Questions:
    """The `Ask` of one trial: puts each question to the holders, and keeps what it cost.

    sources: holder to data file. workspace: where the holders' ledgers of this trial live. last: after so many
    questions Answered is raised.
    """

    sources: Mapping[str, str]
    codebook: Codebook
    technique: Technique
    seed: int
    workspace: Path
    engine: Engine | None = None
    dry_run: bool = False
    minimum_holders: int | None = None
    last: int | None = None
    answers: list[Answer] = field(default_factory=list)
    shared: float = 0.0

    def study(
        self, analysis: str, share: float, where: str | Sequence[str], options: Mapping[str, Any]
    ) -> AnalysisStudy:
        """The study of one question."""
        level = self.technique.level
        privacy = {"delta": DELTA} | dict(level.privacy) if level.privacy else None
        delta = privacy["delta"] if privacy else DELTA
        if privacy and share < 1.0:
            privacy["epsilon"] = part_of(privacy["epsilon"], delta, share)
        return make_analysis_study(
            {
                "analysis": analysis,
                "options": {name: value for name, value in options.items() if value is not None},
                "holders": dict(self.sources),
                "where": (where,) if isinstance(where, str) else tuple(where),
                "seed": self.seed,
                "privacy": privacy,
                "protection": {
                    "name": self.technique.protection,
                    "minimum_holders": self.minimum_holders,
                    "options": dict(self.technique.options),
                },
                "disclosure": level.disclosure,
                "simulation": {"lifetime_epsilon": BUDGET, "lifetime_delta": delta or DELTA},
            },
            analysis,
        )

    def __call__(self, analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **options: Any) -> Result:
        if self.technique.level.privacy:
            self.shared += share
            if self.shared > 1 + 1e-9:
                raise UsageError(f"{analysis}: shares of the privacy budget add up to {self.shared:g}; want at most 1")
        study = self.study(analysis, share, where, options)
        answer = run_analysis(
            study, workspace=self.workspace, codebook=self.codebook, dry_run=self.dry_run, engine=self.engine
        )
        self.answers.append(answer)
        if len(self.answers) == self.last:
            raise Answered
        return answer.result


class Answered(Exception):  # not an error: it ends a walk after so many questions
    """Raised after the last question that is wanted."""


class Applies(Exception):  # not an error: it ends a dry walk
    """Raised at the first question of a technique that applies."""


@dataclass
class Dry:
    """An `Ask` that asks nobody: its first question finds out whether the technique applies.

    Raises UsageError with every obstacle, or Applies.
    """

    questions: Questions

    def __call__(self, analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **options: Any) -> Result:
        query = self.questions.study(analysis, share, where, options).query(self.questions.codebook)
        read_question(query)
        applicable(query)
        raise Applies


def write_sources(world: World, folder: Path) -> dict[str, str]:
    """Each holder's table as a Parquet file in `folder`. Returns holder to path."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, frame in world.holders.items():
        paths[name] = str(folder / f"{name}.parquet")
        frame.to_parquet(paths[name], index=False)
    return paths


@cache
def part_of(epsilon: float, delta: float, share: float) -> float:
    """The epsilon, at the same delta, of a release that may take `share` of a budget.

    A Gaussian release of sensitivity 1 and noise 1 / m is (epsilon, delta) private where delta is at least
    P(-epsilon / m + m / 2) - exp(epsilon) P(-epsilon / m - m / 2), P the normal distribution function; releases with
    m1, m2, ... are together one with m = sqrt(m1^2 + m2^2 + ...) (Dong, Roth and Su 2022, corollaries 2.13 and 3.3). So
    shares of m^2 compose to the whole without loss, but for MARGIN: discrete noise and its accounting are a little
    dearer. It is enough up to epsilon 3; beyond, noise on whole numbers of less than one unit departs from the normal
    law, and several tables of counts alone may compose to a sixth more than the level says. What is composed in the end
    is read from the ledgers, whatever was planned here. At delta 0 epsilon adds up.
    """
    if delta == 0.0:
        return epsilon * share

    def spent(m: float, e: float) -> float:
        return float(norm.cdf(-e / m + m / 2) - math.exp(e) * norm.cdf(-e / m - m / 2))

    whole = brentq(lambda m: spent(m, epsilon) - delta, 1e-4, 10.0 * (1.0 + math.sqrt(epsilon)))
    part = whole * math.sqrt(share * MARGIN)
    return float(brentq(lambda e: spent(part, e) - delta, 0.0, epsilon))


def obstacle(module: Any, world: World, technique: Technique) -> str:
    """Why a technique does not apply to a scenario; nothing when it does."""
    sources = {name: f"{name}.parquet" for name in world.holders}
    try:
        module.compute(Dry(Questions(sources, world.codebook, technique, 1, Path())), world.public)
    except Applies:
        return ""
    except UsageError as error:
        return str(error)
    raise UsageError("scenario: compute asked nothing; want at least one question")


def run_statistics(
    module: Any,
    world: World,
    cell: Cell,
    sources: Mapping[str, str],
    reference: Reference,
    engine: Engine | None = None,
) -> Trial:
    """One cell of a statistics scenario. Raises what the run raises: the harness records it.

    sources: the world's tables as files; reference: `module.pooled(world)`.
    """
    reason = obstacle(module, world, cell.technique)
    if reason:
        return Trial(cell, "not-applicable", reason)
    trial = Trial(cell, "done")
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        ask = Questions(sources, world.codebook, cell.technique, cell.seed, Path(folder), engine)
        started, spent = time.perf_counter(), time.process_time()
        figures = module.compute(ask, world.public)
        trial.wall, trial.processor = time.perf_counter() - started, time.process_time() - spent
    compared(trial, figures, reference, world.truth, module.SUCCESS)
    _account(trial, ask.answers)
    trial.measures |= violations(ask.answers, world, cell.technique.level)
    return trial


def warm(module: Any, world: World, cell: Cell, sources: Mapping[str, str]) -> bool:
    """Let holders admit the first question and stop: noise is calibrated once in a process, at no technique's cost.

    Returns whether that was done: it is not under a technique that does not apply.
    """
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        ask = Questions(sources, world.codebook, cell.technique, cell.seed, Path(folder), dry_run=True)
        try:
            module.compute(ask, world.public)
        except DryRun:
            return True
        except (UsageError, Refused):
            return False
    return True


def violations(answers: list[Answer], world: World, level: Level) -> dict[str, float]:
    """Released cells that have too few records behind them, and the largest share of a table's suppressed cells that
    its margins pin down. Nothing where releases are noisy or rounded: their rows are not what was counted."""
    if level.privacy is not None or level.disclosure.method in (
        "cell-key",
        "round",
        "random-round",
        "controlled-round",
    ):
        return {}
    frame = pd.concat(world.holders.values())
    found = 0
    for answer in answers:
        result = answer.result
        rows = result.tables[result.main]
        if result.by and all(name in frame for name in result.by):
            found += too_few(rows, result.by, frame, answer.query.where, LEAST)
    shares = [share for answer in answers for share in map(partial(pinned, answer.result), ("count", "total"))]
    attacked = [share for share in shares if share is not None]
    return {"violations": float(found)} | ({"leakage.pinned_cells": max(attacked)} if attacked else {})


def run_alone(module: Any, world: World, holder: str, source: str, seed: int) -> Figures:
    """What one holder finds out by itself: the same questions of its own table, without noise or protection."""
    alone = Technique("plain", EXACT)
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        ask = Questions({holder: source}, world.codebook, alone, seed, Path(folder))
        return dict(module.compute(ask, {**world.public, "holders": (holder,)}))


def _account(trial: Trial, answers: Sequence[Answer]) -> None:
    """Fill in what the questions cost: epsilon by the holders' ledgers, bytes and time by party."""
    holders = set(answers[0].query.holders)
    last = answers[-1].closings.values()
    trial.disclosures = max((closing.disclosures for closing in last), default=0)
    composed = [closing.history_epsilon for closing in last]
    trial.epsilon = None if None in composed or not composed else max(e for e in composed if e is not None)
    if trial.epsilon is not None:
        trial.delta = max((closing.delta or 0.0 for closing in last), default=None)
        trial.unit = next((closing.unit for closing in last), None)
    meters: dict[str, Meter] = {}
    for answer in answers:
        for party, meter in answer.meters.items():
            so_far = meters.setdefault(party, Meter())
            so_far.processor += meter.processor
            so_far.received += meter.received
            so_far.sent += meter.sent
            so_far.messages += meter.messages
    trial.roles = roles(meters, holders, trial.processor)
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
