"""`statfed run`: run a scenario or a study file in simulation."""

from dataclasses import replace
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
from statfed.core.errors import UsageError
from statfed.core.names import meant
from statfed.core.section import read_toml
from statfed.core.study import Study, make_study, old_keys
from statfed.core.toml import literal

if TYPE_CHECKING:
    from statfed.federation import Answer, Options


def run(
    study: Annotated[
        str | None, typer.Argument(help="A scenario (statfed scenarios) or a study file (study.toml).")
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
        typer.Option(help="Ask the parties of a pilot, by the coordinator's folder; a study names holders alone."),
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
    """
    from statfed.federation import DryRun, Options

    options = Options(workspace, runs, fresh=fresh, dry_run=dry_run, references=references, patience=patience or 0.0)
    if pilot is not None:
        from statfed.federation.run import PATIENCE
        from statfed.server.pilot.hub import PilotEngine

        if engine or fresh or rules:
            raise UsageError("--pilot: got --engine, --fresh or --rules too, which simulate holders; want one of them")
        wait = PATIENCE if patience is None else patience
        options = replace(options, workspace=pilot, engine=PilotEngine(pilot), patience=wait)
        engine = None if resume else "pilot"
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
