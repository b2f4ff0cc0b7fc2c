"""`statfed run`: run a scenario or a study file in simulation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from statfed.cli._output import Json, emit_json, out, progress_bars, say, table
from statfed.core.discovery import modules
from statfed.core.errors import UsageError
from statfed.core.statement import Plan
from statfed.core.study import Study, load_study, make_study
from statfed.scenarios._result import Result

RUNS = Path("runs")
WORKSPACE = Path(".statfed")


def run(
    study: Annotated[str, typer.Argument(help="A scenario (statfed scenarios) or a study file (study.toml).")],
    engine: Annotated[
        str | None, typer.Option(help="inprocess: fast; processes: real SuperLink and SuperNodes; ray: many holders.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the study, e.g. privacy.epsilon=1."),
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
    runs: Annotated[Path, typer.Option(help="Where run folders go.", envvar="STATFED_RUNS")] = RUNS,
    workspace: Annotated[
        Path, typer.Option(help="Where simulated holders live between runs.", envvar="STATFED_WORKSPACE")
    ] = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Run a study with simulated holders, and write runs/<id>/ with result.json and report.html.

    [bold]Examples[/bold]

    statfed run time-use

    statfed run time-use --engine processes --set privacy.epsilon=1

    statfed run time-use --set privacy=none --set strategy.name=fedyogi

    statfed run study.toml --dry-run
    """
    from statfed.scenarios._run import DryRun, run_study

    chosen = read_study(study, engine, set_ or [], data)
    try:
        with progress_bars() as bars:
            result, folder = run_study(
                chosen,
                runs=runs,
                workspace=workspace,
                fresh=fresh,
                dry_run=dry_run,
                with_references=references,
                progress=bars,
                notify=lambda text: say(f"note: {text}", "yellow"),
            )
    except DryRun as stop:
        _show_plan(stop.plans, as_json)
        return
    if as_json:
        emit_json(result.model_dump(mode="json"))
    else:
        show_result(result)
    say(f"report: {folder / 'report.html'}")


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
    from statfed.scenarios._run import default_study

    return make_study(default_study(study), changes, where=study)


def show_result(result: Result) -> None:
    """The summary of a run on the terminal."""
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
        columns = ("holder", "unit", "n", "noise multiplier", "epsilon, all rounds", "history", "filter", "budget")
        spent = table("Privacy, composed per holder", *columns, numbers=columns[2:])
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
    else:
        out.print("Trained without noise: every update is a disclosure in the holders' ledgers.")
    seconds = [r.seconds for r in result.rounds[1:]]
    phases = ", ".join(f"{p.name} {p.seconds:.1f} s" for p in result.phases)
    out.print(f"{phases}; {sum(seconds) / len(seconds):.2f} s a round", highlight=False)


def _show_plan(plans: Mapping[str, Plan], as_json: bool) -> None:
    if as_json:
        emit_json({"dry_run": True, "plans": [plan.model_dump(mode="json") for plan in plans.values()]})
        return
    columns = (
        "holder",
        "records",
        "units",
        "steps a round",
        "sampling rate",
        "noise multiplier",
        "epsilon",
        "noise/signal",
    )
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
