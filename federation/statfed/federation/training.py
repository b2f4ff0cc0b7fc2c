"""One run of a scenario: population -> simulated holders -> federated training -> references -> result and report."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core import toml
from statfed.core.discovery import load
from statfed.core.errors import StatfedError, UsageError
from statfed.core.progress import Progress, silent
from statfed.core.scenario import load_training
from statfed.core.statement import Plan
from statfed.core.study import Study, load_study
from statfed.federation import assemble as _assemble
from statfed.federation import checkpoint as _checkpoint
from statfed.federation.parties import third_party_names
from statfed.federation.trained import Candidate, Phase, Result
from statfed.federation.training_homes import dataset_key, make_homes
from statfed.server.app import Checkpoint, Training, train
from statfed.server.engine import Deployment, Engine, Session

Notify = Callable[[str], None]


class DryRun(StatfedError):
    """Raised after admission to end a run before anything is spent."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        super().__init__("dry run: nothing was spent")
        self.plans = dict(plans)


@dataclass(frozen=True)
class Options:
    """How to run. fresh: holders, and so ledgers, of this run alone. dry_run: stop after admission with DryRun."""

    runs: Path
    workspace: Path
    fresh: bool = False
    dry_run: bool = False
    references: bool = True


@dataclass
class _Clock:
    """Seconds per phase, in order."""

    phases: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.phases[name] = self.phases.get(name, 0.0) + seconds

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - started)


def default_study(scenario: str) -> Mapping[str, Any]:
    """The default study of a scenario, as a mapping."""
    study: Mapping[str, Any] = load_training(scenario).STUDY
    return study


def run_study(
    study: Study, options: Options, progress: Progress = silent, notify: Notify = lambda _: None
) -> tuple[Result, Path]:
    """Run a study in simulation and write `runs/<id>/`. Returns the result and the run's folder.

    A run that fails leaves its folder with status.json, logs and, after its first round, a checkpoint.
    Raises UsageError, without making one, where the engine or a holder's name does not go with the protection.
    """
    third_party_names(study.protection, study.holders, study.engine)
    run = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{study.scenario}-{secrets.token_hex(2)}"
    folder = options.runs / run
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(toml.dumps(study.model_dump(mode="json")), encoding="utf-8")
    if options.fresh:
        (folder / "holders").mkdir()
    return _recorded(_Run(study, options, run, folder, progress, notify))


def resume_study(
    folder: Path, options: Options, progress: Progress = silent, notify: Notify = lambda _: None
) -> tuple[Result, Path]:
    """Go on with an interrupted run after its last finished round. Raises UsageError when that cannot be done.

    Holders reserve the remaining rounds anew. A round that some had trained when the run broke is charged again.
    """
    status = read_status(folder)
    if status["state"] == "finished":
        raise UsageError(f"run {folder.name}: already finished; see `statfed runs show {folder.name}`")
    study = load_study(folder / "study.toml")
    checkpoint, curve = _checkpoint.load_checkpoint(folder)
    attempt = int(status.get("attempt", 1)) + 1
    name = f"{folder.name}~{attempt}"
    job = _Run(study, options, name, folder, progress, notify, checkpoint, curve, attempt)
    return _recorded(job)


@dataclass
class _Run:
    """One attempt at a run. curve: accuracy and macro-F1 after each round."""

    study: Study
    options: Options
    name: str
    folder: Path
    progress: Progress
    notify: Notify
    checkpoint: Checkpoint | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    attempt: int = 1


def read_status(folder: Path) -> dict[str, Any]:
    """A run's status.json. Raises UsageError when it is damaged."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"run {folder.name}: status.json is damaged ({type(error).__name__})") from None
    return status


def _recorded(job: _Run) -> tuple[Result, Path]:
    """Run, and keep status.json true however it ends."""
    facts = {
        "run": job.folder.name,
        "scenario": job.study.scenario,
        "engine": job.study.engine,
        "title": job.study.title,
        "attempt": job.attempt,
    }

    def record(**more: Any) -> None:
        (job.folder / "status.json").write_text(json.dumps(facts | more, indent=2) + "\n")

    record(state="running")
    try:
        result = _execute(job)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        state = "dry-run" if isinstance(error, DryRun) else "interrupted" if stopped else "failed"
        record(state=state, error=str(error) or type(error).__name__)
        raise
    federated = result.candidates[0].scores
    record(state="finished", accuracy=federated.accuracy, macro_f1=federated.macro_f1)
    return result, job.folder


def _execute(job: _Run) -> Result:
    from statfed.federation.references import build, prepare, references, scores
    from statfed.strategies.learning.local import get_vector, set_vector

    study, clock, progress = job.study, _Clock(), job.progress
    scenario = load_training(study.scenario)
    with clock.phase("prepare data"):
        progress("prepare data", 0, 1)
        population = scenario.population(study, progress)
        terms = study.terms(scenario.codebook(study))
        classes = terms.codebook.classes
        warnings = [*population.warnings, *_assemble.class_warnings(population, classes)]
        dataset, own = dataset_key(study, population.synthetic), job.folder / "holders"
        root = own if own.exists() else job.options.workspace / "holders" / dataset
        homes = make_homes(study, population.holders, root, dataset)
        test = prepare(population.test, terms)
        progress("prepare data", 1, 1)
    for warning in warnings:
        job.notify(warning)
    model = build(terms, study.seed)
    if study.start:
        set_vector(model, _started(study.start, job.options.runs))

    def on_plan(plans: Mapping[str, Plan]) -> None:
        for warning in _assemble.noise_warnings(plans, terms):
            warnings.append(warning)
            job.notify(warning)
        if job.options.dry_run:
            raise DryRun(plans)

    def on_round(checkpoint: Checkpoint) -> None:
        set_vector(model, checkpoint.vector)
        after = scores(model, test, classes)
        job.curve.append((after.accuracy, after.macro_f1))
        if checkpoint.round:
            _checkpoint.save(job.folder, checkpoint, job.curve)

    def drive(session: Session) -> tuple[Training, Session, float]:
        clock.add("start engine", time.perf_counter() - opened)
        with clock.phase("federated training"):
            trained = train(
                session,
                terms,
                job.name,
                get_vector(model),
                timeout=study.timeout,
                progress=progress,
                on_plan=on_plan,
                on_round=on_round,
                resume=job.checkpoint,
            )
        return trained, session, time.perf_counter()

    engine: Engine = load("statfed.server.grid", study.engine, "engine")
    opened = time.perf_counter()
    training, session, trained_at = engine.run(Deployment(job.name, homes, job.folder / "logs"), drive, progress)
    ended = _assemble.dropout_warnings(training.closings, terms)
    for warning in ended + _assemble.disclosure_warnings(training.closings, terms):
        warnings.append(warning)
        job.notify(warning)
    clock.add("stop engine", time.perf_counter() - trained_at)
    set_vector(model, training.vector)
    np.savez(job.folder / "model.npz", vector=training.vector)
    fedsgd = study.training.method == "dp-fedsgd"
    round_ = "step" if fedsgd else "round"
    epsilon = f", epsilon {study.privacy.epsilon:g}" if study.privacy else ""
    compared = [
        Candidate(
            id="federated",
            title=f"Federated, {'dp-fedsgd, ' if fedsgd else ''}{study.strategy.name}{epsilon}",
            kind="federated",
            scores=scores(model, test, classes),
            note=f"{study.rounds} {round_}s, {len(study.holders)} holders, protection {study.protection.name}",
        )
    ]
    if job.options.references:
        with clock.phase("references"):
            cache = job.options.workspace / "cache"
            compared += references(population.holders, test, terms, study.seed, cache, progress)
    result = Result(
        run=job.folder.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        title=study.title or scenario.ABOUT.title,
        scenario=study.scenario,
        engine=study.engine,
        synthetic=population.synthetic,
        origin=population.origin,
        warnings=warnings,
        study=study.model_dump(mode="json"),
        study_digest=terms.digest(),
        classes=list(classes),
        test_records=len(population.test),
        test_persons=len(np.unique(population.test.persons)),
        candidates=compared,
        rounds=_assemble.rounds_of(training, job.curve),
        spending=[
            _assemble.spending(training.plans[name], training.closings[name], terms)
            for name in terms.holders
            if name in training.closings
        ],
        accountant=_assemble.ACCOUNTANT,
        phases=[Phase(name=name, seconds=seconds) for name, seconds in clock.phases.items()],
        memory_mib=dict(session.memory),
        learns=_assemble.learns(terms),
        versions=_assemble.versions(),
        model_digest=_assemble.digest(training.vector),
    )
    write_result(result, job.folder)
    return result


def _started(start: str, runs: Path) -> NDArray[np.float32]:
    """The parameters that a study starts from: an earlier run's, or of a model.npz. Raises UsageError without any."""
    path = runs / start / "model.npz" if (runs / start / "model.npz").is_file() else Path(start)
    try:
        with np.load(path, allow_pickle=False) as file:
            vector: NDArray[np.float32] = np.asarray(file["vector"], np.float32)
    except (OSError, ValueError, KeyError, EOFError):
        raise UsageError(f"start: got {start!r}; want a finished run's name or the path of its model.npz") from None
    if not np.isfinite(vector).all():
        raise UsageError(f"start: {start!r} has parameters that are not finite")
    return vector


def write_result(result: Result, folder: Path) -> None:
    """Write result.json and report.html."""
    from statfed.federation.trained_report import write

    (folder / "result.json").write_text(result.model_dump_json(indent=2) + "\n")
    write(result, folder / "report.html")


def load_result(folder: Path) -> Result:
    """The stored result of a finished run. Raises UsageError when there is none or it cannot be read."""
    path = folder / "result.json"
    if not path.exists():
        state = read_status(folder)["state"]
        raise UsageError(f"run {folder.name}: no result, since it is {state}; see status.json and logs/ in {folder}")
    try:
        return Result.model_validate_json(path.read_text())
    except ValueError as error:
        raise UsageError(f"run {folder.name}: result.json is damaged or of another version: {error}") from None
