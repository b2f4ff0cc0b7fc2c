"""`statfed run`: run a scenario or a study file in simulation."""

import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from statfed.cli._answers import notify, say_where, show_drafted, show_dry_run, tell
from statfed.cli._output import Json, progress_bars
from statfed.cli._runs import RUNS, WORKSPACE
from statfed.cli._study import LEVELS, TYPE, read_levels, read_protection, read_types
from statfed.core.disclosure import HolderRules
from statfed.core.discovery import modules
from statfed.core.errors import Pending, UsageError
from statfed.core.names import meant
from statfed.core.section import read_toml
from statfed.core.study import Study, make_study, old_keys
from statfed.core.toml import literal

if TYPE_CHECKING:
    from statfed.federation import Answer, Options


def run(
    study: Annotated[
        str | None,
        typer.Argument(
            help="A scenario (statfed scenarios), a study file (study.toml), or the number of a pilot's approved study."
        ),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="inprocess: fast; processes: real SuperLink and SuperNodes; ray: many holders.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, e.g. privacy.epsilon=1."),
    ] = None,
    protect: Annotated[
        str | None, typer.Option(metavar="NAME", help="How the sum over holders is formed (statfed protections).")
    ] = None,
    protect_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Set one option of the protection (statfed protections NAME). Repeat."),
    ] = None,
    minimum_holders: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER",
            help="Fewest holders of a sum, where the protection survives dropout (more than two thirds in training).",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="How updates become the next model: fedavg, krum, ... (docs/study.md)."),
    ] = None,
    types: Annotated[list[str] | None, typer.Option("--type", metavar="COLUMN=TYPE", help=TYPE)] = None,
    levels: Annotated[list[str] | None, typer.Option("--levels", metavar="COLUMN=A,B", help=LEVELS)] = None,
    pilot: Annotated[
        Path | None,
        typer.Option(help="The coordinator's folder of a pilot, where STUDY is the number of a study approved there."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Your own copy of the data (time-use: a UCI HAR folder).")] = None,
    rules: Annotated[
        HolderRules | None,
        typer.Option(
            help="What simulated holders allow: everything, or what that template of statfed policy init does."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option(help="New simulated holders with unspent budgets, kept inside this run only.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the holders, show noise and cost, and stop before spending.")
    ] = False,
    references: Annotated[
        bool, typer.Option(help="Also train the pooled and local-only models that the result is compared with.")
    ] = True,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with an interrupted run: its id, or `last` for the last one that was."),
    ] = None,
    wait: Annotated[
        float, typer.Option(help="In a pilot: seconds to wait for parties that have not approved the study yet.")
    ] = 0.0,
    runs: Annotated[Path, typer.Option(help="Where run folders go.", envvar="STATFED_RUNS")] = RUNS,
    workspace: Annotated[
        Path, typer.Option(help="Where simulated holders live between runs.", envvar="STATFED_WORKSPACE")
    ] = WORKSPACE,
    patience: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="SECONDS",
            help="Try again while parties fail, until so long no sum was done (600 in a pilot, 0 in a simulation).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a study with simulated holders, and write runs/<id>/ with result.json and report.html.

    A study asks one method of tables, or of the population of a scenario (docs/study.md).

    [bold]Examples[/bold]

    statfed run time-use

    statfed run time-use --engine processes --set privacy.epsilon=1

    statfed run time-use --protect secure-aggregation --minimum-holders 3

    statfed run time-use --set privacy=none --strategy fedyogi

    statfed run people.study.toml --engine processes --dry-run

    statfed run --resume last

    statfed run 7
    """
    from statfed.federation import DryRun, Options

    if pilot is not None or (study or "").isdecimal():
        others = [set_, protect, protect_option, minimum_holders, strategy, types, levels, engine, data, rules, fresh]
        if any(others) or resume:
            raise UsageError(
                "study: a pilot's is run as it was approved; want `statfed run NUMBER`, or another proposal"
            )
        from statfed.federation.run import PATIENCE

        patient = PATIENCE if patience is None else patience
        _run_number(study, pilot, wait, patient, dry_run=dry_run, as_json=as_json)
        return
    options = Options(workspace, runs, fresh=fresh, dry_run=dry_run, references=references, patience=patience or 0.0)
    changes = [*(set_ or []), *_changes(protect, protect_option or [], minimum_holders, strategy)]
    changes += [f"simulation.rules={literal(rules)}"] if rules else []
    stated = {"types": read_types(types or ()), "levels": read_levels(levels or ())}
    if resume and (study or changes or engine or data or fresh or any(stated.values())):
        raise UsageError(
            "--resume: goes on with the same study; want no study, --set, --protect, --strategy, --engine, --data or "
            "--fresh"
        )
    if not resume and not study:
        raise UsageError("study: got none; want a scenario, for example `statfed run time-use`, or a study file")
    try:
        answer = _resumed(resume, options) if resume else _run(study or "", engine, changes, data, stated, options)
    except DryRun as stop:
        show_dry_run(stop, as_json)
        return
    tell(answer, as_json)
    say_where(runs / answer.run)


def _run_number(
    study: str | None, pilot: Path | None, wait: float, patience: float, *, dry_run: bool, as_json: bool
) -> None:
    """Run a pilot's study as it was approved, after asking its parties what they have decided."""
    from statfed.cli.pilot import office_of
    from statfed.federation import DryRun, Options
    from statfed.federation.pilot import run_number, runs_of
    from statfed.server.pilot import hub, studies

    if study is None or not study.isdecimal():
        raise UsageError(f"study: got {study!r} for a pilot; want a number: `statfed study propose FILE` gives it one")
    office, number = office_of(pilot), int(study)
    studies.find(office, number)
    end = time.monotonic() + wait
    while True:
        for name, what in hub.correspond(office, [number]).items():
            notify(f"{name}: {what}")
        try:
            studies.ready(office, number, datetime.now(UTC))
            break
        except Pending:
            if time.monotonic() >= end:
                raise
            time.sleep(min(5.0, max(0.1, end - time.monotonic())))
    try:
        with progress_bars() as bars:
            answer = run_number(
                office.root, number, Options(dry_run=dry_run, patience=patience), progress=bars, notify=notify
            )
    except DryRun as stop:
        show_dry_run(stop, as_json)
        return
    tell(answer, as_json)
    say_where(runs_of(office, number)[-1])


def _resumed(name: str, options: "Options") -> "Answer":
    from statfed.federation import resume_study
    from statfed.federation.runs import find_run

    folder = find_run([options.runs or RUNS], name, unfinished=True)
    with progress_bars() as bars:
        return resume_study(folder, options, progress=bars, notify=notify)


def _run(
    study: str,
    engine: str | None,
    changes: list[str],
    data: Path | None,
    stated: dict[str, Any],
    options: "Options",
) -> "Answer":
    from statfed.federation import run_study

    chosen, base = read_study(study, engine, changes, data)
    if any(stated.values()):
        chosen = make_study(chosen.model_dump() | stated, where=study)
    with progress_bars() as bars:
        how = replace(options, base=base)
        return run_study(chosen, how, progress=bars, notify=notify, on_codebook=partial(show_drafted, chosen))


def _changes(protect: str | None, options: list[str], minimum_holders: int | None, strategy: str | None) -> list[str]:
    """Overrides of a study file for the options that have a name of their own."""
    found = [f"options.strategy.name={literal(strategy)}"] if strategy else []
    if protect:  # another protection has other options
        found += [f"protection.name={literal(protect)}", "protection.options={}"]
    read_protection(protect or "NAME", options, None)
    found += [f"protection.options.{option}" for option in options]
    if minimum_holders is not None:
        found.append(f"protection.minimum_holders={minimum_holders}")
    return found


def read_study(study: str, engine: str | None, changes: list[str], data: Path | None) -> tuple[Study, Path | None]:
    """The study that a command line names, and the folder that its paths start from. Raises UsageError.

    Says in one line what of a study file is of format 1, and as what it is read.
    """
    if engine:
        changes = [*changes, f'engine="{engine}"']
    if data:
        changes = [*changes, 'data.source="uci-har"', f"data.path='{data}'"]
    path = Path(study)
    if path.suffix == ".toml" or path.exists():
        table: dict[str, Any] = read_toml(path, "study")
        if old := old_keys(table):
            notify(f"{path}: a study of an earlier format; read {', '.join(old)}")
        return make_study(table, changes, where=str(path)), path.parent
    if study not in modules("statfed.scenarios"):
        known = sorted(modules("statfed.scenarios"))
        near = meant(study, known)
        raise UsageError(
            f"study: got {study!r}; want a scenario ({', '.join(known)}) or the path of a study file{near}"
        )
    from statfed.federation.run import default_study

    return make_study(default_study(study), changes, where=study), None
