"""`statfed run`: run a scenario or a study file in simulation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, progress_bars, say, show_learns, table
from statfed.cli.analyse import read_protection, show_answer, show_drafted, show_dry_run
from statfed.core.applicability import applicable
from statfed.core.discovery import modules
from statfed.core.errors import UsageError
from statfed.core.scenario import load_training
from statfed.core.section import read_toml
from statfed.core.statement import Plan
from statfed.core.study import Study, load_study, make_study
from statfed.core.toml import literal
from statfed.federation.trained import Result

RUNS = Path("runs")
WORKSPACE = Path(".statfed")


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
        typer.Option(
            metavar="NAME", help="How updates become the next model: fedavg, fedyogi, krum, ... (docs/study.md)."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Your own copy of the data (time-use: a UCI HAR folder).")] = None,
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
        str | None, typer.Option(metavar="RUN", help="Go on with an interrupted run (its id, or `last`).")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Where run folders go.", envvar="STATFED_RUNS")] = RUNS,
    workspace: Annotated[
        Path, typer.Option(help="Where simulated holders live between runs.", envvar="STATFED_WORKSPACE")
    ] = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Run a study with simulated holders, and write runs/<id>/ with result.json and report.html.

    A study trains a model (it names a scenario) or asks a question of tables (it names an analysis).

    [bold]Examples[/bold]

    statfed run time-use

    statfed run time-use --engine processes --set privacy.epsilon=1

    statfed run time-use --protect secure-aggregation --minimum-holders 3

    statfed run time-use --set privacy=none --strategy fedyogi

    statfed run study.toml --dry-run

    statfed run people.study.toml --engine processes

    statfed run --resume last
    """
    from statfed.federation.training import DryRun, Options, resume_study, run_study

    options = Options(runs, workspace, fresh, dry_run, references)

    def notify(text: str) -> None:
        say(f"note: {text}", "yellow")

    changes = [*(set_ or []), *_changes(protect, protect_option or [], minimum_holders, strategy)]
    if resume and (study or changes or engine or data or fresh):
        raise UsageError(
            "--resume: goes on with the same study; want no study, --set, --protect, --strategy, --engine, --data or "
            "--fresh"
        )
    if not resume and not study:
        raise UsageError("study: got none; want a scenario, for example `statfed run time-use`, or a study file")
    path = Path(study or "")
    if study and path.suffix == ".toml" and "analysis" in read_toml(path, "study"):
        _analysis(path, engine, changes, runs, None if fresh else workspace, dry_run, as_json)
        return
    try:
        if resume:
            folder = find_run(runs, resume)
            with progress_bars() as bars:
                result, folder = resume_study(folder, options, bars, notify)
        else:
            chosen = read_study(study or "", engine, changes, data)
            applicable(chosen.terms(load_training(chosen.scenario).codebook(chosen)))
            with progress_bars() as bars:
                result, folder = run_study(chosen, options, bars, notify)
    except DryRun as stop:
        _show_plan(stop.plans, as_json)
        return
    if as_json:
        emit_json(result.model_dump(mode="json"))
    else:
        show_result(result)
    say(f"report: {folder / 'report.html'}")


def _changes(protect: str | None, options: list[str], minimum_holders: int | None, strategy: str | None) -> list[str]:
    """Overrides of a study file for the options that have a name of their own."""
    found = [f"strategy.name={literal(strategy)}"] if strategy else []
    if protect:  # another protection has other options
        found += [f"protection.name={literal(protect)}", "protection.options={}"]
    read_protection(protect or "NAME", options, None)
    found += [f"protection.options.{option}" for option in options]
    if minimum_holders is not None:
        found.append(f"protection.minimum_holders={minimum_holders}")
    return found


def _analysis(
    path: Path,
    engine: str | None,
    changes: list[str],
    runs: Path,
    workspace: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a study that names an analysis."""
    from statfed.federation import DryRun, export, load_analysis_study, run_analysis

    chosen = load_analysis_study(path, [*changes, f'engine="{engine}"'] if engine else changes)
    try:
        with progress_bars() as bars:
            answer = run_analysis(
                chosen,
                workspace=workspace,
                base=path.parent,
                dry_run=dry_run,
                progress=bars,
                on_codebook=show_drafted,
            )
    except DryRun as stop:
        show_dry_run(stop, as_json)
        return
    folder = export.write_run(answer, runs)
    if as_json:
        emit_json(answer.to_dict())
    else:
        show_answer(answer)
    say(f"report: {folder / 'report.html'}")


def find_run(runs: Path, name: str) -> Path:
    """The folder of a run. Raises UsageError listing what there is."""
    known = sorted(p for p in runs.glob("*/") if (p / "status.json").exists())
    if name == "last" and known:
        return known[-1]
    matching = [p for p in known if p.name == name] or [p for p in known if p.name.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(
            f"run {name}: got {len(matching)} that begin so; want one: {', '.join(p.name for p in matching)}"
        )
    there = ", ".join(p.name for p in known[-5:]) or "none yet; start with `statfed run time-use`"
    raise UsageError(f"run {name}: not found in {runs}/; newest there: {there}")


def read_study(study: str, engine: str | None, changes: list[str], data: Path | None) -> Study:
    """The study that a command line names. Raises UsageError."""
    if engine:
        changes = [*changes, f'engine="{engine}"']
    if data:
        changes = [*changes, 'data.source="uci-har"', f"data.path='{data}'"]
    path = Path(study)
    if path.suffix == ".toml" or path.exists():
        return load_study(path, changes)
    if study not in modules("statfed.scenarios"):
        known = ", ".join(sorted(modules("statfed.scenarios")))
        raise UsageError(f"study: got {study!r}; want a scenario ({known}) or the path of a study file")
    from statfed.federation.training import default_study

    return make_study(default_study(study), changes, where=study)


def show_result(result: Result) -> None:
    """The summary of a run on the terminal."""
    from statfed.federation.report.formats import size
    from statfed.federation.trained_report.facts import Facts

    if result.synthetic:
        out.print("[bold yellow]SYNTHETIC DATA[/bold yellow]: these figures describe a generator, not people")
    out.print(f"[bold]{result.title}[/bold]  ({result.run})", highlight=False)
    out.print(
        f"{result.origin}; {result.test_persons} held-out persons, {result.test_records} records\n", highlight=False
    )
    rows = table("Held-out persons", "model", "accuracy", "macro-F1", numbers=("accuracy", "macro-F1"))
    for kind, title in (("local", "Local only, mean"), ("local-dp", "Local only, same privacy, mean")):
        alone = [c for c in result.candidates if c.kind == kind]
        if alone:
            rows.add_row(
                f"{title} of {len(alone)}",
                f"{sum(c.scores.accuracy for c in alone) / len(alone):.3f}",
                f"{sum(c.scores.macro_f1 for c in alone) / len(alone):.3f}",
            )
    for c in result.candidates:
        if c.kind in ("federated", "pooled", "majority"):
            style = "bold" if c.kind == "federated" else ""
            rows.add_row(c.title, f"{c.scores.accuracy:.3f}", f"{c.scores.macro_f1:.3f}", style=style)
    out.print(rows)
    if any(s.study_epsilon is not None for s in result.spending):
        columns = ("holder", "unit", "n", "sigma", "this study", "history", "filter", "budget")
        spent = table("Epsilon, composed per holder", *columns, numbers=columns[2:])
        for s in result.spending:
            figures = (s.study_epsilon, s.history_epsilon, s.filter_epsilon, s.budget_epsilon)
            spent.add_row(
                s.holder,
                s.unit or "",
                str(s.units),
                f"{s.noise_multiplier:.3f}" if s.noise_multiplier else "",
                *("" if f is None else f"{f:.3f}" for f in figures),
            )
        out.print(spent)
        if result.simulated:
            out.print("Simulated: the noise follows from the public seed. A rehearsal, not a release.")
    else:
        out.print("Trained without noise: every update is a disclosure in the holders' ledgers.")
    seconds = [r.seconds for r in result.rounds[1:]]
    phases = ", ".join(f"{p.name} {p.seconds:.1f} s" for p in result.phases)
    show_learns("Who learns what", result.learns)
    moved = sum(r.bytes_down + r.bytes_up for r in result.rounds)
    left, asked = len(result.spending), len(result.study["holders"])
    held = f"{asked} holders" if left == asked else f"{left} of {asked} holders to the end"
    step = "step" if result.study["training"].get("method") == "dp-fedsgd" else "round"
    taken = f"{len(seconds)} {step}" + ("" if len(seconds) == 1 else "s")
    out.print(
        f"protection {Facts(result).protection}: {held}, {taken}, {size(moved)} moved",
        highlight=False,
    )
    out.print(f"{phases}; {sum(seconds) / len(seconds):.2f} s a {step}", highlight=False)


def _show_plan(plans: Mapping[str, Plan], as_json: bool) -> None:
    if as_json:
        emit_json({"dry_run": True, "plans": [plan.model_dump(mode="json") for plan in plans.values()]})
        return
    columns = ("holder", "records", "units", "steps a round", "rate", "sigma", "epsilon", "noise / signal")
    rows = table("Dry run: nothing was spent", *columns, numbers=columns[1:])
    for plan in plans.values():
        optional = (plan.noise_multiplier, plan.epsilon, plan.noise_to_signal)
        rows.add_row(
            plan.holder,
            str(plan.size),
            str(plan.units),
            str(plan.steps_per_round),
            f"{plan.sampling_rate:.4f}",
            *("" if value is None else f"{value:.3f}" for value in optional),
        )
    out.print(rows)
