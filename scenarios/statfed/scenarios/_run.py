"""One run of a scenario: population -> simulated holders -> federated training -> references -> result and report."""

import hashlib
import importlib
import json
import math
import platform
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core import VERSION
from statfed.core.discovery import load
from statfed.core.errors import StatfedError, UsageError
from statfed.core.progress import Progress, silent
from statfed.core.statement import Closing, Plan
from statfed.core.study import Study, Terms
from statfed.scenarios._contract import Population, Scenario
from statfed.scenarios._homes import dataset_key, make_homes
from statfed.scenarios._report.formats import toml
from statfed.scenarios._result import Candidate, Disclosure, Phase, Result, Round, Spending
from statfed.server.app import Training, train
from statfed.server.engine import Deployment, Engine, Session

ACCOUNTANT = (
    "Privacy loss distributions (dp-accounting, pessimistic) over all rounds; "
    "the lifetime budget is gated on a Renyi filter of one fixed order"
)
MUCH_NOISE = 1.0  # noise over the largest possible signal: above it nothing can be learned

Notify = Callable[[str], None]


class DryRun(StatfedError):
    """Raised after admission to end a run before anything is spent."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        super().__init__("dry run: nothing was spent")
        self.plans = dict(plans)


@dataclass
class _Clock:
    """Seconds per phase, in order."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - started


def default_study(scenario: str) -> Mapping[str, Any]:
    """The default study of a scenario, as a mapping."""
    module: Scenario = load("statfed.scenarios", scenario, "scenario")
    return module.STUDY


def new_run_id(scenario: str) -> str:
    """A new run's name: time, scenario and four random letters."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{scenario}-{secrets.token_hex(2)}"


def run_study(
    study: Study,
    *,
    runs: Path,
    workspace: Path,
    fresh: bool = False,
    dry_run: bool = False,
    with_references: bool = True,
    progress: Progress = silent,
    notify: Notify = lambda _: None,
) -> tuple[Result, Path]:
    """Run a study in simulation and write `runs/<id>/`. Returns the result and the run's folder.

    fresh: holders, and so ledgers, of this run alone. dry_run: stop after admission with DryRun.
    A run that fails leaves its folder with `status.json` and logs.
    """
    run = new_run_id(study.scenario)
    folder = runs / run
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(toml(study.model_dump(mode="json")), encoding="utf-8")
    status = {"run": run, "scenario": study.scenario, "engine": study.engine, "title": study.title}
    _write_status(folder, status | {"state": "running"})
    try:
        result = _run(study, run, folder, workspace, fresh, dry_run, with_references, progress=progress, notify=notify)
    except BaseException as error:
        state = "dry-run" if isinstance(error, DryRun) else "interrupted" if _interrupted(error) else "failed"
        _write_status(folder, status | {"state": state, "error": str(error) or type(error).__name__})
        raise
    federated = result.candidates[0].scores
    _write_status(
        folder, status | {"state": "finished", "accuracy": federated.accuracy, "macro_f1": federated.macro_f1}
    )
    return result, folder


def _interrupted(error: BaseException) -> bool:
    return isinstance(error, KeyboardInterrupt | SystemExit)


def _write_status(folder: Path, status: Mapping[str, Any]) -> None:
    (folder / "status.json").write_text(json.dumps(dict(status), indent=2) + "\n")


def _run(
    study: Study,
    run: str,
    folder: Path,
    workspace: Path,
    fresh: bool,
    dry_run: bool,
    with_references: bool,
    *,
    progress: Progress,
    notify: Notify,
) -> Result:
    from statfed.client.training import get_arrays, set_arrays
    from statfed.scenarios._references import build, prepare, references, scores

    clock = _Clock()
    scenario: Scenario = load("statfed.scenarios", study.scenario, "scenario")
    with clock.phase("prepare data"):
        progress("prepare data", 0, 1)
        population = scenario.population(study, progress)
        terms = study.terms(scenario.codebook(study))
        warnings = list(population.warnings)
        warnings += _class_warnings(population, terms.codebook.classes)
        root = folder / "holders" if fresh else workspace / "holders" / dataset_key(study)
        homes = make_homes(study, population.holders, root)
        test = prepare(population.test, terms)
        progress("prepare data", 1, 1)
    for warning in warnings:
        notify(warning)

    model = build(terms, study.seed)
    curve: list[tuple[float, float]] = []

    def on_plan(plans: Mapping[str, Plan]) -> None:
        for warning in noise_warnings(plans, terms):
            warnings.append(warning)
            notify(warning)
        if dry_run:
            raise DryRun(plans)

    def on_round(_number: int, arrays: list[NDArray[np.float32]]) -> None:
        set_arrays(model, arrays)
        after = scores(model, test, terms.codebook.classes)
        curve.append((after.accuracy, after.macro_f1))

    def drive(session: Session) -> tuple[Training, Session]:
        clock.phases["start engine"] = time.perf_counter() - opened
        with clock.phase("federated training"):
            trained = train(
                session,
                terms,
                run,
                get_arrays(model),
                timeout=study.timeout,
                progress=progress,
                on_plan=on_plan,
                on_round=on_round,
            )
        return trained, session

    engine: Engine = importlib.import_module(f"statfed.server.grid.{study.engine}")
    deployment = Deployment(run, homes, folder / "logs")
    opened = time.perf_counter()
    training, session = engine.run(deployment, drive, progress)
    clock.phases["stop engine"] = (
        time.perf_counter() - opened - sum(clock.phases[name] for name in ("start engine", "federated training"))
    )
    np.savez(folder / "model.npz", *training.arrays)
    federated = Candidate(
        id="federated",
        title=f"Federated, {study.strategy.name}" + (f", epsilon {study.privacy.epsilon:g}" if study.privacy else ""),
        kind="federated",
        scores=scores(model, test, terms.codebook.classes),
        note=f"{study.rounds} rounds, {len(study.holders)} holders, protection {study.protection.name}",
    )
    compared: list[Candidate] = []
    if with_references:
        with clock.phase("references"):
            compared = references(population.holders, test, terms, study.seed, workspace / "cache", progress)
    result = Result(
        run=run,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        title=study.title or scenario.ABOUT.title,
        scenario=study.scenario,
        engine=study.engine,
        synthetic=population.synthetic,
        origin=population.origin,
        warnings=warnings,
        study=study.model_dump(mode="json"),
        study_digest=terms.digest(),
        classes=list(terms.codebook.classes),
        test_records=len(population.test),
        test_persons=len(np.unique(population.test.persons)),
        candidates=[federated, *compared],
        rounds=_rounds(training, curve),
        spending=[_spending(training.plans[n], training.closings[n], terms) for n in terms.holders],
        accountant=ACCOUNTANT,
        phases=[Phase(name=name, seconds=seconds) for name, seconds in clock.phases.items()],
        memory_mib=dict(session.memory),
        learns=_learns(terms),
        versions=_versions(),
        model_digest=digest(training.arrays),
    )
    _write_result(result, folder)
    return result


def digest(arrays: Sequence[NDArray[np.float32]]) -> str:
    """SHA-256 over shapes and bytes of a model's arrays: equal digests mean bit-identical models."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()


def _write_result(result: Result, folder: Path) -> None:
    from statfed.scenarios._report import write

    (folder / "result.json").write_text(result.model_dump_json(indent=2) + "\n")
    write(result, folder / "report.html")


def load_result(folder: Path) -> Result:
    """The stored result of a finished run. Raises UsageError when there is none or it cannot be read."""
    path = folder / "result.json"
    if not path.exists():
        raise UsageError(f"run {folder.name}: no result.json; the run did not finish (see status.json and logs/)")
    try:
        return Result.model_validate_json(path.read_text())
    except ValueError as error:
        raise UsageError(f"run {folder.name}: result.json is damaged or of another version: {error}") from None


def noise_warnings(plans: Mapping[str, Plan], terms: Terms) -> list[str]:
    """What to say before spending: where the noise of the averaged model exceeds the largest possible signal.

    Independent noise of holders with weights w_i and ratios r_i averages to sqrt(sum (w_i r_i)^2) / sum w_i.
    """
    if terms.privacy is None:
        return []
    ratios = {name: plan.noise_to_signal or 0.0 for name, plan in plans.items()}
    total = sum(plan.size for plan in plans.values())
    together = math.sqrt(sum((plan.size * ratios[name]) ** 2 for name, plan in plans.items())) / total
    if together <= MUCH_NOISE:
        return []
    unit = terms.privacy.unit
    fewest = min(plan.units for plan in plans.values())
    needed = math.ceil(fewest * together / (MUCH_NOISE / 4))
    return [
        f"Expect no utility: after averaging, the noise of the whole run is {together:.1f} times the largest signal "
        f"that clipped gradients can carry. The smallest holder has {fewest} {unit}s; "
        f"at epsilon {terms.privacy.epsilon:g} learning starts to be possible at roughly {needed} {unit}s a holder."
    ]


def _class_warnings(population: Population, classes: Sequence[str]) -> list[str]:
    found = []
    for name, records in population.holders.items():
        missing = sorted(set(range(len(classes))) - set(records.labels.tolist()))
        if missing:
            found.append(f"{name} holds no records of: {', '.join(classes[i] for i in missing)}")
    return found


def _rounds(training: Training, curve: Sequence[tuple[float, float]]) -> list[Round]:
    first = Round(round=0, accuracy=curve[0][0], macro_f1=curve[0][1], seconds=0.0, bytes_down=0, bytes_up=0)
    return [first] + [
        Round(
            round=r.round,
            accuracy=accuracy,
            macro_f1=macro_f1,
            seconds=r.seconds,
            bytes_down=r.bytes_down,
            bytes_up=r.bytes_up,
            holder_seconds=r.holder_seconds,
        )
        for r, (accuracy, macro_f1) in zip(training.rounds, curve[1:], strict=True)
    ]


def _spending(plan: Plan, closing: Closing, terms: Terms) -> Spending:
    private = terms.privacy is not None
    return Spending(
        holder=plan.holder,
        records=plan.size,
        units=plan.units,
        unit=terms.privacy.unit if terms.privacy else None,
        delta=plan.delta,
        lifetime_delta=closing.delta,
        noise_multiplier=plan.noise_multiplier,
        sampling_rate=plan.sampling_rate,
        steps=plan.steps_per_round * terms.rounds,
        study_epsilon=plan.epsilon if private else None,
        history_epsilon=closing.history_epsilon,
        filter_epsilon=closing.filter_epsilon,
        budget_epsilon=closing.budget_epsilon,
        noise_to_signal=plan.noise_to_signal,
        disclosures=closing.disclosures,
        ledger_head=closing.ledger_head,
    )


def _learns(terms: Terms) -> list[Disclosure]:
    """The protection's own rows, then what every run of this package shows."""
    protection = load("statfed.strategies.protections", terms.protection.name, "protection")
    always = (
        (
            "coordinator",
            "each holder's public numbers of records and persons, and its ledger's head hash",
            "nothing: declared public in the holder's policy",
        ),
        ("coordinator", "whether a holder refuses, and by which rule", "thresholds stay secret"),
        ("coordinator", "whether a holder's data fit the codebook", "no value is named"),
        ("coordinator", "how long each holder computes in a round", "nothing: it grows with the data"),
    )
    rows = [(row.role, row.learns, row.protected_by) for row in protection.learns(terms)]
    return [Disclosure(role=role, learns=learns, protected_by=by) for role, learns, by in (*rows, *always)]


def _versions() -> dict[str, str]:
    names = ("flwr", "torch", "opacus", "numpy", "dp-accounting", "scikit-learn", "cryptography")
    return {"statfed": VERSION, "python": platform.python_version()} | {name: version(name) for name in names}
