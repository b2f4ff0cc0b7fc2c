"""One run of any study: terms -> a session with its parties -> protected sums -> release -> answer."""

import hashlib
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from statfed.client.data.sources import absolute
from statfed.core import toml
from statfed.core.codebook import Codebook
from statfed.core.discovery import load
from statfed.core.errors import EngineError, StatfedError, UsageError
from statfed.core.method import Ask, Cells, Model, is_training
from statfed.core.privacy.noise import error
from statfed.core.progress import Progress, silent
from statfed.core.randomness import stream
from statfed.core.resolve import Resolved, resolve_applicable
from statfed.core.result import Result
from statfed.core.scenario import load_training
from statfed.core.statement import Admission
from statfed.core.study import Study, load_study, noisy_parts
from statfed.core.terms import Terms
from statfed.federation import checkpoint as checkpoints
from statfed.federation.answers import Answer, learns, spending_of, versions
from statfed.federation.parties import third_party_names
from statfed.federation.preflight import before_data, started
from statfed.federation.runs import read_status, working_in, write_status
from statfed.federation.simulation import Opener, World, reused, simulated, world_of
from statfed.federation.tables import known_tables
from statfed.federation.trained import Phase
from statfed.federation.training import Scored, scored, scored_tables, training_of, warnings_of
from statfed.server.disclosure.history import Asked
from statfed.server.disclosure.linked import linked_beside
from statfed.server.disclosure.memory import Memory, open_memory
from statfed.server.disclosure.release import release
from statfed.server.driver import Broken, Checkpoint, Driven, drive
from statfed.server.engine import Deployment, Engine, Session
from statfed.server.linking import apart, beside

Notify = Callable[[str], None]
PATIENCE = 600.0
"""Seconds without progress after which a run in a pilot gives up."""
SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds before another attempt at a run that broke."""
RELEASES = Path("releases") / "memory.jsonl"
"""In the workspace: what was released of its data sets."""


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


class Interrupted(KeyboardInterrupt):
    """Ctrl-C in a run that can go on."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"run {folder.name}: interrupted")
        self.folder = folder


@dataclass(frozen=True)
class Options:
    """How to run.

    workspace: where simulated holders live between runs; None: new ones, for this run alone. runs: where the run's
    folder goes; None: none is written. keep: where the answer alone is kept, in a folder of its own, without `runs`;
    None: nowhere. fresh: new holders, kept inside the run's folder. dry_run: stop after admission
    with DryRun. references: also train what a model is compared with, where records are held out. base: folder that
    relative paths start from. codebook: instead of the study's file; drafted: was it made from the data? terms: as the
    parties approved them, instead of codebooks. engine: instead of the study's. patience: seconds without progress for
    which a run that broke tries again by itself.
    """

    workspace: Path | None = None
    runs: Path | None = None
    fresh: bool = False
    dry_run: bool = False
    references: bool = True
    base: Path | None = None
    codebook: Codebook | None = None
    drafted: bool = False
    terms: Terms | None = None
    engine: Engine | None = None
    keep: Path | None = None
    patience: float = 0.0


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
    """A run, at its attempt number `attempt`. curve: accuracy and macro-F1 after each round, of a reference scenario.

    opened: the last attempt that had a session with its parties; progressed: when a sum was done last, 0 before all
    holders had admitted the run.
    """

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
    opened: int = 0
    progressed: float = 0.0
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
    the method can go on, a checkpoint. What cannot be written once the study is answered is a warning: the answer was
    paid for. Raises UsageError, without making one, where the engine or a holder's name does
    not go with the protection; UsageError, Refused or EngineError as the run does.
    """
    name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{study.scenario or study.method}-{secrets.token_hex(2)}"
    base = options.base or Path.cwd()
    holders = {holder: absolute(source, base) if source else "" for holder, source in study.holders.items()}
    agreed = options.terms is not None  # then no file is read, and none of this machine is named
    own = {"codebook": str((base / study.codebook).resolve())} if study.codebook and not agreed else {}
    others = study.codebooks
    if not agreed:
        others = {holder: str((base / path).resolve()) for holder, path in study.codebooks.items()}
    study = study.model_copy(update={"holders": holders, **own, "codebooks": others})
    if options.terms is None:
        before_data(study, base, options.codebook, options.runs)
    if options.runs is None:
        job = _Job(study, options, name, None, progress, notify, on_codebook)
        return _kept(job, _execute(job), options.keep / name) if options.keep else _execute(job)
    folder = options.runs / name
    _begin(folder, study, fresh=options.fresh)
    with working_in(folder):
        return _recorded(_Job(study, options, name, folder, progress, notify, on_codebook))


def _begin(folder: Path, study: Study, *, fresh: bool) -> None:
    """A folder for a run. Raises UsageError where it cannot be made."""
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        if fresh:
            (folder / "holders").mkdir()
        _write_study(folder, study)
    except OSError as error:
        raise UsageError(
            f"runs: {folder} cannot be written: {error.strerror}; want a folder that can be (--runs, STATFED_RUNS)"
        ) from None


def _write_study(folder: Path, study: Study) -> None:
    (folder / "study.toml").touch(mode=0o600)
    (folder / "study.toml").write_text(toml.dumps(study.model_dump(mode="json")), encoding="utf-8")


def resume_study(
    folder: Path, options: Options, *, progress: Progress = silent, notify: Notify = lambda _: None
) -> Answer:
    """Go on with an interrupted run after its last finished sum. Raises UsageError when that cannot be done, also
    while a living process works on it.

    Holders reserve the remaining sums anew. One that some were charged for when the run broke is lost, so that the run
    never costs more than was agreed.
    """
    with working_in(folder):
        status = read_status(folder)
        if status["state"] == "finished":
            raise UsageError(f"run {folder.name}: already finished; see `statfed runs show {folder.name}`")
        study = load_study(folder / "study.toml")
        if study.engine == "pilot" and options.engine is None:
            raise UsageError(f"run {folder.name}: is of a pilot's study; want `statfed resume NUMBER`")
        checkpoint, curve = checkpoints.load_checkpoint(folder)
        attempt = int(status.get("attempt", 1)) + 1
        name = f"{folder.name}~{attempt}"
        return _recorded(
            _Job(study, options, name, folder, progress, notify, lambda _: None, checkpoint, curve, attempt)
        )


def _kept(job: _Job, answer: Answer, folder: Path) -> Answer:
    """Keep an answer that has no run's folder, to be shown and exported later."""
    from statfed.federation.export import write_answer

    try:
        folder.mkdir(parents=True)
        _write_study(folder, job.study)
        write_answer(answer, folder)
        write_status(folder, {**_facts(job, folder), "state": "finished", "kept": True})
    except Exception as error:  # noqa: BLE001  # as of a run with a folder
        job.notify(_unwritten(folder, error))
    return answer


def _facts(job: _Job, folder: Path) -> dict[str, Any]:
    study = job.study
    return {
        "run": folder.name,
        "method": study.method,
        "scenario": study.scenario,
        "engine": study.engine,
        "title": study.title,
        "attempt": job.attempt,
        "pid": os.getpid(),
    }


def _recorded(job: _Job) -> Answer:
    """Run, and keep status.json true however it ends."""
    folder = job.folder
    if folder is None:
        raise ValueError("a run without a folder has no record")
    facts = _facts(job, folder)
    write_status(folder, {**facts, "state": "running"})
    try:
        answer = _execute(job)
    except BaseException as failed:
        stopped = isinstance(failed, KeyboardInterrupt | SystemExit)
        state = "dry-run" if isinstance(failed, DryRun) else "interrupted" if stopped else "failed"
        with suppress(OSError):  # the failure is what has to be told
            write_status(folder, {**facts, "state": state, "error": str(failed) or type(failed).__name__})
        if isinstance(failed, KeyboardInterrupt) and checkpoints.has_checkpoint(folder):
            raise Interrupted(folder) from failed
        raise
    from statfed.federation.export import write_run

    told: dict[str, Any] = {}
    if answer.training and answer.training.candidates:
        federated = answer.training.candidates[0].scores
        told = {"accuracy": federated.accuracy, "macro_f1": federated.macro_f1}
    try:
        write_run(answer, folder)
    except Exception as error:  # noqa: BLE001  # the answer was paid for: it is told, whatever fails after it
        job.notify(_unwritten(folder, error))
    with suppress(OSError):
        state = "finished" if (folder / "result.json").exists() else "failed"
        write_status(folder, {**facts, "state": state, **told})
    return answer


def _unwritten(folder: Path, error: Exception) -> str:
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if (folder / "result.json").exists():
        return f"run {folder.name}: not all of it could be written ({told}); its answer is in {folder}/result.json"
    return f"run {folder.name}: {folder} cannot be written ({told}): its answer is told here alone"


def _execute(job: _Job) -> Answer:
    started = time.perf_counter()
    options = job.options
    with job.clock.phase("prepare data"):
        world = _world(job)
        job.warn(world.warnings)
        if world.drafted:
            job.on_codebook(world.terms.codebook)
        study = resolve_applicable(world.terms)
        test = _held_out(options, world, study)
    engine = _engine(job)
    with ExitStack() as stack:
        own = job.folder / "holders" if job.folder and (job.folder / "holders").exists() else None
        shared = own is None and options.workspace is not None and not options.fresh
        root = own or (options.workspace if shared else None)
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="statfed-")))
        logs = job.folder / "logs" if job.folder else root / "logs"
        opener: Opener
        if job.study.engine == "pilot":
            opener = partial(engine.run, Deployment(job.name, dict.fromkeys(_parties(job.study), Path()), logs))
        else:
            job.warn(reused(world, root) if shared else ())
            opener = simulated(world, root, engine, job.name, logs, shared=shared, held=stack)
        driven, session = _driven(job, study, test, opener)
    job.warn(warnings_of(study, driven))
    with ExitStack() as held:
        place = options.workspace if shared and (study.linking or not job.study.disclosure.silent) else None
        memory = held.enter_context(open_memory(place / RELEASES)) if place and not study.training else None
        result = _released(job.study, study, driven, memory)
    training = None
    if study.training:
        with job.clock.phase("references"):
            cache = (options.workspace or Path(tempfile.gettempdir())) / "cache"
            training = training_of(study, driven, test, job.curve, options.references, cache, job.progress)
    return Answer(
        run=job.folder.name if job.folder else job.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        title=world.title or result.title,
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
        synthetic=world.synthetic,
        simulated=job.study.engine != "pilot",
        warnings=tuple(job.warnings),
        phases=tuple(Phase(name=name, seconds=seconds) for name, seconds in job.clock.phases.items()),
        memory_mib=dict(session.memory),
        meters=dict(session.meters),
        versions=versions(),
        training=training,
    )


def _world(job: _Job) -> World:
    options = job.options
    if options.terms is not None:
        return World(job.study, options.terms)
    return world_of(job.study, options.base or Path(), options.codebook, job.progress, drafted=options.drafted)


def _engine(job: _Job) -> Engine:
    """What opens a session with the study's parties. Raises UsageError where a pilot is wanted and none is named."""
    if job.options.engine is not None:
        return job.options.engine
    if job.study.engine == "pilot":
        raise UsageError(
            "engine: got pilot for a file; want it proposed first: `statfed study propose`, then `statfed run NUMBER`"
        )
    return load("statfed.server.grid", job.study.engine, "engine")  # type: ignore[no-any-return]


def _parties(study: Study) -> tuple[str, ...]:
    """Everybody who takes part in a study."""
    return (*study.holders, *third_party_names(study.protection, study.holders, study.engine))


def _held_out(options: Options, world: World, study: Resolved) -> Scored | None:
    """Records that the simulator scores models on: of a scenario's population, or of the holders' own tables."""
    if not study.training:
        return None
    if world.population:
        return scored(study, world.population)
    asked = options.references and world.study.engine != "pilot" and study.question.options.holdout > 0
    return scored_tables(study, world.study.holders) if asked else None


def _released(asked: Study, study: Resolved, driven: Driven, memory: Memory | None) -> Result:
    """The result under the release's rules, beside what the memory holds of earlier ones."""
    private = study.privacy.model_dump() if study.privacy else None
    source = stream(study.terms.seed, study.digest, "release")
    result = driven.result
    if study.linking and memory and private is None:
        result = linked_beside(result, _asked(asked, study, driven), asked.disclosure, memory)
    opened, hidden = apart(result) if study.linking else (result, {})
    found = release(
        opened.with_(privacy=private),
        study.terms.codebook,
        asked.disclosure,
        source=source,
        asked=_asked(asked, study, driven) if memory else None,
        memory=memory,
    )
    return beside(found, hidden) if hidden else found


def _asked(asked: Study, study: Resolved, driven: Driven) -> Asked:
    """What a result is of, in terms that do not depend on how it was asked.

    A holder's table is known by its source and its public number of records; to linkages by whatever else tells it.
    """
    asks = [Ask(name) for name in dict.fromkeys(one.ask for one in driven.sums)]
    declared = [study.method.discloses(study.question, ask) for ask in asks]
    values = [name for one in declared if isinstance(one, Cells) for name in one.values]
    complete = [name for one in declared for name in one.complete]
    marked = [name for one in declared if isinstance(one, Model) for name in one.marked]
    present = [name for name in study.holders if name in driven.closings] or list(study.holders)
    drawn = [asked.scenario, asked.data, asked.seed]  # a population of a scenario has no source
    tables = {
        name: hashlib.sha256(
            f"{asked.holders.get(name) or [*drawn, name]}\n{driven.admissions[name].size}".encode()
        ).hexdigest()
        for name in present
    }
    return Asked(
        study=study.digest,
        method=study.terms.method,
        where=study.terms.where,
        values=tuple(dict.fromkeys(values)),
        complete=tuple(dict.fromkeys(complete)),
        holders={name: digest[:16] for name, digest in tables.items()},
        codebook=study.terms.codebook,
        joint=study.linking is not None,
        known=known_tables(asked.holders, present) if study.linking else {},
        marked=tuple(dict.fromkeys(marked)),
    )


def _driven(job: _Job, study: Resolved, test: Scored | None, opener: Opener) -> tuple[Driven, Session]:
    """The sums of a run: one attempt and, while `patience` lasts, others as soon as all parties are connected again.

    Tried again is what failed of parties and connections, once every holder had admitted the run: never what somebody
    refuses, nor a run that has no result on seeing totals.
    """
    of = checkpoints.made_of(study.digest, job.study.holders) if job.folder else {}
    if job.folder and job.checkpoint:
        checkpoints.check(job.folder, of)
    while True:
        opened = job.opened
        try:
            return _attempt(job, study, test, opener, of)
        except EngineError as error:
            waited = time.monotonic() - job.progressed
            lost = isinstance(error, Broken) or job.opened == opened  # or no session could be opened
            if not lost or not job.progressed or waited >= job.options.patience:
                raise
            _wait_for_another(job, error, waited)


def _wait_for_another(job: _Job, error: EngineError, waited: float) -> None:
    """Name the next attempt, and give parties time to come back."""
    pause = min(LONGEST_PAUSE, max(SHORTEST_PAUSE, waited / 10))
    done = job.checkpoint.done if job.checkpoint else 0
    job.notify(f"{str(error).splitlines()[0]}: after {done} sums, another attempt follows in {pause:.0f} s")
    time.sleep(pause)
    job.attempt = job.opened + 1
    job.name = f"{job.name.partition('~')[0]}~{job.attempt}"
    if job.folder:
        with suppress(OSError):
            write_status(job.folder, {**_facts(job, job.folder), "state": "running"})


def _attempt(
    job: _Job, study: Resolved, test: Scored | None, opener: Opener, of: Mapping[str, str]
) -> tuple[Driven, Session]:
    clock, opened = job.clock, time.perf_counter()

    def on_admission(admissions: Mapping[str, Admission]) -> None:
        from statfed.federation.training import noise_warnings

        if not job.progressed:
            job.progressed = time.monotonic()
            job.warn(noise_warnings(admissions, study))
        if job.options.dry_run:
            raise DryRun(study.terms, admissions)

    def on_state(checkpoint: Checkpoint) -> None:
        if test is not None and checkpoint.state:
            test.note(job.curve, checkpoint.state)
        if checkpoint.done > (job.checkpoint.done if job.checkpoint else -1):
            job.progressed = time.monotonic()
        job.checkpoint = checkpoint
        keep(checkpoint)

    def keep(checkpoint: Checkpoint) -> None:
        if job.folder:
            try:
                checkpoints.save(job.folder, checkpoint, job.curve, of)
            except OSError as error:  # what was paid for goes on without it
                job.warn([f"no checkpoint after {checkpoint.done} sums: {job.folder}: {error.strerror}"])

    def run(session: Session) -> tuple[Driven, Session, float]:
        job.opened = job.attempt
        clock.add("start engine", time.perf_counter() - opened)
        first = started(job.study.start, job.options.runs)
        if job.checkpoint is None and not job.options.dry_run:  # what is reserved from now on can be given back
            keep(Checkpoint(job.name, 0, dict(first or {})))
        with clock.phase("protected sums"):
            driven = drive(
                session,
                study,
                job.name,
                timeout=job.study.timeout,
                progress=job.progress,
                on_admission=on_admission,
                on_state=on_state,
                start=first,
                resume=job.checkpoint,
                earlier=_attempts(job) if job.checkpoint else (),
                few=job.study.disclosure.minimum_frequency or 0,
            )
        return driven, session, time.perf_counter()

    driven, session, ended = opener(run, job.progress)
    clock.add("stop engine", time.perf_counter() - ended)
    if test is not None:
        rounds = int(getattr(study.question.options, "rounds", 0))
        test.note(job.curve, {"model": driven.result.arrays["model"], "round": np.array(rounds)})
    return driven, session


def _attempts(job: _Job) -> list[str]:
    """Names of a run's earlier attempts at the holders, without the one that its checkpoint is of."""
    name = job.name.partition("~")[0]
    return [name, *(f"{name}~{number}" for number in range(2, job.attempt))]
