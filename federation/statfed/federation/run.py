"""One run of any study in simulation: codebook -> simulated holders -> protected sums -> release -> answer."""

import hashlib
import json
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.client.data.drafting import draft, union
from statfed.client.data.sources import absolute
from statfed.client.data.tables import connect
from statfed.core import toml
from statfed.core.codebook import Codebook, load_codebook
from statfed.core.discovery import load
from statfed.core.errors import StatfedError, UsageError
from statfed.core.method import is_training
from statfed.core.privacy.noise import error
from statfed.core.progress import Progress, silent
from statfed.core.randomness import stream
from statfed.core.resolve import Resolved, resolve_applicable
from statfed.core.result import Result
from statfed.core.scenario import Population, load_training
from statfed.core.statement import Admission
from statfed.core.study import Study, load_study, noisy_parts
from statfed.core.terms import Terms
from statfed.federation import checkpoint as checkpoints
from statfed.federation.answers import Answer, learns, spending_of, versions
from statfed.federation.homes import home_names, homes_under, make_homes
from statfed.federation.parties import third_party_names
from statfed.federation.population import described, write_tables
from statfed.federation.runs import read_status, write_status
from statfed.federation.trained import Phase
from statfed.federation.training import Scored, scored, scored_tables, training_of, warnings_of
from statfed.server.disclosure.release import release
from statfed.server.driver import Checkpoint, Driven, drive
from statfed.server.engine import Deployment, Engine, Session

Notify = Callable[[str], None]


class DryRun(StatfedError):
    """Raised after admission to end a run before anything is spent.

    margins: per noisy sum, the smallest and the largest half-width of its noise in the total, with probability 0.95.
    """

    def __init__(self, terms: Terms, admissions: Mapping[str, Admission]) -> None:
        super().__init__("dry run: nothing was spent")
        self.admissions, self.terms, self.privacy = dict(admissions), terms, terms.privacy
        self.margins: dict[str, tuple[float, float]] = {}
        if terms.privacy and not is_training(terms.method):
            try:
                parts, times = noisy_parts(terms)
            except UsageError:
                return
            from statfed.core.privacy.placement import shares

            for name, width in error(parts, terms.privacy, len(terms.holders), times, shares=shares(terms)).items():
                if width.size:
                    self.margins[name] = float(width.min()), float(width.max())


@dataclass(frozen=True)
class Options:
    """How to run.

    workspace: where simulated holders live between runs; None: new ones, for this run alone. runs: where the run's
    folder goes; None: none is written. fresh: new holders, kept inside the run's folder. dry_run: stop after admission
    with DryRun. references: also train what a model is compared with, where records are held out. base: folder that
    relative paths start from. codebook: instead of the study's file. engine: instead of the study's.
    """

    workspace: Path | None = None
    runs: Path | None = None
    fresh: bool = False
    dry_run: bool = False
    references: bool = True
    base: Path | None = None
    codebook: Codebook | None = None
    engine: Engine | None = None


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


@dataclass
class _Job:
    """One attempt at a run. curve: accuracy and macro-F1 after each round, of a reference scenario."""

    study: Study
    options: Options
    name: str
    folder: Path | None
    progress: Progress
    notify: Notify
    on_codebook: Callable[[Codebook], None]
    checkpoint: Checkpoint | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    attempt: int = 1
    clock: _Clock = field(default_factory=_Clock)
    warnings: list[str] = field(default_factory=list)

    def warn(self, found: Sequence[str]) -> None:
        for warning in found:
            self.warnings.append(warning)
            self.notify(warning)


def default_study(scenario: str) -> Mapping[str, Any]:
    """The default study of a scenario, as a mapping."""
    study: Mapping[str, Any] = load_training(scenario).STUDY
    return study


def run_study(
    study: Study,
    options: Options = Options(),  # frozen
    *,
    progress: Progress = silent,
    notify: Notify = lambda _: None,
    on_codebook: Callable[[Codebook], None] = lambda _: None,
) -> Answer:
    """Run a study with simulated holders. notify is called with each warning, on_codebook with a drafted codebook.

    With `options.runs` a folder `runs/<id>/` is written; a run that fails leaves it with status.json, logs and, where
    the method can go on, a checkpoint. Raises UsageError, without making one, where the engine or a holder's name does
    not go with the protection; UsageError, Refused or EngineError as the run does.
    """
    third_party_names(study.protection, study.holders, study.engine)
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{study.scenario or study.method}-{secrets.token_hex(2)}"
    base = options.base or Path.cwd()
    holders = {holder: absolute(source, base) if source else "" for holder, source in study.holders.items()}
    study = study.model_copy(update={"holders": holders})
    if options.runs is None:
        return _execute(_Job(study, options, name, None, progress, notify, on_codebook))
    folder = options.runs / name
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(toml.dumps(study.model_dump(mode="json")), encoding="utf-8")
    if options.fresh:
        (folder / "holders").mkdir()
    return _recorded(_Job(study, options, name, folder, progress, notify, on_codebook))


def resume_study(
    folder: Path, options: Options, *, progress: Progress = silent, notify: Notify = lambda _: None
) -> Answer:
    """Go on with an interrupted run after its last finished sum. Raises UsageError when that cannot be done.

    Holders reserve the remaining sums anew. One that some had answered when the run broke is charged again.
    """
    status = read_status(folder)
    if status["state"] == "finished":
        raise UsageError(f"run {folder.name}: already finished; see `statfed runs show {folder.name}`")
    study = load_study(folder / "study.toml")
    checkpoint, curve = checkpoints.load_checkpoint(folder)
    attempt = int(status.get("attempt", 1)) + 1
    name = f"{folder.name}~{attempt}"
    job = _Job(study, options, name, folder, progress, notify, lambda _: None, checkpoint, curve, attempt)
    return _recorded(job)


def _recorded(job: _Job) -> Answer:
    """Run, and keep status.json true however it ends."""
    folder = job.folder
    if folder is None:
        raise ValueError("a run without a folder has no record")
    facts = {
        "run": folder.name,
        "method": job.study.method,
        "scenario": job.study.scenario,
        "engine": job.study.engine,
        "title": job.study.title,
        "attempt": job.attempt,
    }
    write_status(folder, {**facts, "state": "running"})
    try:
        answer = _execute(job)
    except BaseException as failed:
        stopped = isinstance(failed, KeyboardInterrupt | SystemExit)
        state = "dry-run" if isinstance(failed, DryRun) else "interrupted" if stopped else "failed"
        write_status(folder, {**facts, "state": state, "error": str(failed) or type(failed).__name__})
        raise
    from statfed.federation.export import write_run

    write_run(answer, folder)
    told: dict[str, Any] = {}
    if answer.training and answer.training.candidates:
        federated = answer.training.candidates[0].scores
        told = {"accuracy": federated.accuracy, "macro_f1": federated.macro_f1}
    write_status(folder, {**facts, "state": "finished", **told})
    return answer


@dataclass(frozen=True)
class _World:
    """What a run is about. sources: of every holder, empty where the population's tables are written for it."""

    study: Study
    terms: Terms
    drafted: bool
    population: Population | None = None
    form: Any = None

    @property
    def origin(self) -> str:
        return self.population.origin if self.population else "tables of the holders"


def _execute(job: _Job) -> Answer:
    started = time.perf_counter()
    with job.clock.phase("prepare data"):
        world = _world(job)
        study = resolve_applicable(world.terms)
        test = _held_out(job, world, study)
    engine: Engine = job.options.engine or load("statfed.server.grid", job.study.engine, "engine")
    with ExitStack() as stack:
        root = _root(job, world, stack)
        homes = _homes(job, world, root)
        logs = job.folder / "logs" if job.folder else root / "logs"
        driven, session = _driven(job, study, test, engine, Deployment(job.name, homes, logs))
    job.warn(warnings_of(study, driven))
    source = stream(world.terms.seed, study.digest, "release")
    result = _released(job.study, study, driven.result, source)
    training = None
    if study.training:
        with job.clock.phase("references"):
            cache = (job.options.workspace or Path(tempfile.gettempdir())) / "cache"
            training = training_of(study, driven, test, job.curve, job.options.references, cache, job.progress)
    return Answer(
        run=job.folder.name if job.folder else job.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        title=job.study.title
        or (load_training(job.study.scenario).ABOUT.title if job.study.scenario else result.title),
        study=world.study.model_dump(mode="json"),
        terms=world.terms,
        result=result,
        engine=job.study.engine,
        drafted=world.drafted,
        sums=tuple(driven.sums),
        spending=spending_of(study, driven.admissions, driven.closings),
        learns=learns(study),
        seconds=time.perf_counter() - started,
        origin=world.origin,
        synthetic=world.population.synthetic if world.population else False,
        warnings=tuple(job.warnings),
        phases=tuple(Phase(name=name, seconds=seconds) for name, seconds in job.clock.phases.items()),
        memory_mib=dict(session.memory),
        meters=dict(session.meters),
        versions=versions(),
        training=training,
    )


def _held_out(job: _Job, world: _World, study: Resolved) -> Scored | None:
    """Records that the simulator scores models on: of a scenario's population, or of the holders' own tables."""
    if not study.training:
        return None
    if world.population:
        return scored(study, world.population)
    asked = job.options.references and study.question.options.holdout > 0
    return scored_tables(study, world.study.holders) if asked else None


def _title(study: Study) -> str:
    return str(load_training(study.scenario).ABOUT.title) if study.scenario else ""


def _released(asked: Study, study: Resolved, result: Result, source: Any) -> Result:
    private = study.privacy.model_dump() if study.privacy else None
    return release(result.with_(privacy=private), study.terms.codebook, asked.disclosure, source=source)


def _world(job: _Job) -> _World:
    """The study with its codebook, or with the population of its scenario."""
    study, progress = job.study, job.progress
    if study.scenario:
        scenario = load_training(study.scenario)
        study = study if study.seed is not None else study.model_copy(update={"seed": 1})
        progress("prepare data", 0, 1)
        population, form = scenario.population(study, progress), scenario.codebook(study)
        table = described(form, scenario.ABOUT.title)
        named = {"features": list(table.features), "target": table.target}
        study = study.model_copy(update={"options": {**named, **study.options}})
        progress("prepare data", 1, 1)
        job.warn([*population.warnings, *_class_warnings(population, form.classes)])
        return _World(study, study.terms(table.codebook), False, population, form)
    codebook = job.options.codebook
    drafted = codebook is None and study.codebook is None
    base = job.options.base or Path.cwd()
    if codebook is None:
        codebook = load_codebook(base / study.codebook) if study.codebook else _drafted(study, progress)
    if drafted:
        job.on_codebook(codebook)
    others = {name: load_codebook(base / path) for name, path in study.codebooks.items()}
    return _World(study, study.terms(codebook, others), drafted)


def _class_warnings(population: Population, classes: Sequence[str]) -> list[str]:
    found = []
    for name, records in population.holders.items():
        missing = sorted(set(range(len(classes))) - set(records.labels.tolist()))
        if missing:
            found.append(f"{name} holds no records of: {', '.join(classes[i] for i in missing)}")
    return found


def _root(job: _Job, world: _World, stack: ExitStack) -> Path:
    """Where the parties' homes are."""
    own = job.folder / "holders" if job.folder else None
    if own and own.exists():
        return own
    if job.options.workspace is None or job.options.fresh:
        return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-")))
    return job.options.workspace / ("holders" if world.population else "tables")


def dataset_key(study: Study, synthetic: bool) -> str:
    """Names a simulated data set and its privacy unit: scenario, unit and a digest of where the data come from.

    synthetic tells real data from a generated stand-in for them: they are two data sets, with two ledgers.
    """
    made_of = [study.scenario, study.data, list(study.holders), study.seed, study.unit, synthetic]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{study.scenario}-{study.unit}-{digest}"


def _homes(job: _Job, world: _World, root: Path) -> dict[str, Path]:
    if world.population is None:
        homes = homes_under(root, home_names(world.study))
        return make_homes(world.study, world.terms, world.study.holders, homes, root)
    dataset = dataset_key(world.study, world.population.synthetic)
    own = job.folder is not None and root == job.folder / "holders"
    place = root if own else root / dataset
    homes = homes_under(place, {name: name for name in world.population.holders})
    sources = write_tables(world.population.holders, world.form, homes)
    return make_homes(world.study, world.terms, sources, homes, place, dataset)


def _driven(
    job: _Job, study: Resolved, test: Scored | None, engine: Engine, deployment: Deployment
) -> tuple[Driven, Session]:
    clock, opened = job.clock, time.perf_counter()

    def on_admission(admissions: Mapping[str, Admission]) -> None:
        from statfed.federation.training import noise_warnings

        job.warn(noise_warnings(admissions, study))
        if job.options.dry_run:
            raise DryRun(study.terms, admissions)

    def on_state(checkpoint: Checkpoint) -> None:
        if test is not None:
            test.note(job.curve, checkpoint.state)
        if job.folder and checkpoint.done:
            checkpoints.save(job.folder, checkpoint, job.curve)

    def run(session: Session) -> tuple[Driven, Session, float]:
        clock.add("start engine", time.perf_counter() - opened)
        with clock.phase("protected sums"):
            driven = drive(
                session,
                study,
                job.name,
                timeout=job.study.timeout,
                progress=job.progress,
                on_admission=on_admission,
                on_state=on_state,
                start=_started(job) if job.study.start else None,
                resume=job.checkpoint,
            )
        return driven, session, time.perf_counter()

    driven, session, ended = engine.run(deployment, run, job.progress)
    clock.add("stop engine", time.perf_counter() - ended)
    if test is not None:
        rounds = int(getattr(study.question.options, "rounds", 0))
        test.note(job.curve, {"model": driven.result.arrays["model"], "round": np.array(rounds)})
    return driven, session


def _started(job: _Job) -> dict[str, NDArray[Any]]:
    """The parameters that a study starts from: an earlier run's, or of a model.npz. Raises UsageError without any."""
    start = str(job.study.start)
    inside = job.options.runs / start / "model.npz" if job.options.runs else Path(start)
    path = inside if inside.is_file() else Path(start)
    try:
        with np.load(path, allow_pickle=False) as file:
            vector = np.asarray(file["vector"], np.float32)
    except Exception:  # noqa: BLE001  # a damaged archive raises whatever its reader meets first
        raise UsageError(f"start: got {start!r}; want a finished run's name or the path of its model.npz") from None
    if not np.isfinite(vector).all():
        raise UsageError(f"start: {start!r} has parameters that are not finite")
    return {"model": vector}


def _drafted(study: Study, progress: Progress) -> Codebook:
    """The union of the holders' own drafts. In a simulation only: across organisations a draft never leaves."""
    drafts = []
    for number, (name, source) in enumerate(study.holders.items()):
        progress("draft a codebook", number, len(study.holders))
        try:
            with connect(source, Path()) as opened:
                drafts.append(draft(opened))
        except UsageError as failed:
            raise UsageError(f"{name}: {failed}") from None
    progress("draft a codebook", len(drafts), len(drafts))
    return union(drafts)
