"""`statfed runs`: what was run, and its results."""

import re
import time
import webbrowser
from typing import Annotated, Any

import typer

from statfed.cli._answers import tell, write_outputs
from statfed.cli._output import Json, Overwrite, emit_json, out, say, table
from statfed.cli._runs import RUNS, WORKSPACE, Runs, Workspace, find_run, places
from statfed.cli._study import Outputs
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations

app = typer.Typer(no_args_is_help=True, help="List, show, export and remove past runs.")
Id = Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it, or `last`.")]
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@app.command("list")
def list_runs(runs: Runs = RUNS, workspace: Workspace = WORKSPACE, as_json: Json = False) -> None:
    """List runs, oldest first, with how they ended: of studies, and answers that were kept."""
    from statfed.federation.runs import each_status

    found: list[dict[str, Any]] = list(each_status(places(runs, workspace)))
    if as_json:
        emit_json({"runs": found})
        return
    figures = ("accuracy", "macro-F1")
    rows = table("Runs", "run", "study", "engine", "state", *figures, numbers=figures)
    for status in found:
        scores = ("" if status.get(k) is None else f"{status[k]:.3f}" for k in ("accuracy", "macro_f1"))
        study = str(status.get("scenario") or status.get("method") or status.get("analysis"))
        rows.add_row(status["run"], study, status["engine"], status["state"], *scores)
    out.print(rows if found else f"no runs in {runs}/; start with `statfed run time-use`", markup=False)


@app.command()
def show(run: Id, runs: Runs = RUNS, workspace: Workspace = WORKSPACE, as_json: Json = False) -> None:
    """Show a run's answer, or with --json its whole document."""
    from statfed.federation import load_answer

    tell(load_answer(find_run(runs, workspace, run)), as_json)


@app.command()
def report(
    run: Id,
    runs: Runs = RUNS,
    workspace: Workspace = WORKSPACE,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's HTML report again from its result, and say where it is."""
    from statfed.federation import load_answer
    from statfed.federation.export import write_html

    folder = find_run(runs, workspace, run)
    path = folder / "report.html"
    write_html(load_answer(folder), path)
    if as_json:
        emit_json({"run": folder.name, "report": str(path)})
    else:
        out.print(str(path), highlight=False, soft_wrap=True)
    if open_:
        webbrowser.open(path.resolve().as_uri())


@app.command()
def export(
    run: Id,
    html: Annotated[str | None, typer.Option(metavar="FILE", help="Write a self-contained report.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write the main table, others beside it.")] = None,
    parquet: Annotated[str | None, typer.Option(metavar="FILE", help="The same as Parquet.")] = None,
    save: Annotated[str | None, typer.Option(metavar="FILE", help="Write the model, for statfed predict.")] = None,
    overwrite: Overwrite = False,
    runs: Runs = RUNS,
    workspace: Workspace = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Write a run's answer to files, as `statfed analyse` does: nothing is computed or spent again.

    [bold]Example[/bold]

    statfed runs export last --html means.html --csv means.csv
    """
    from statfed.federation import load_answer

    outputs = Outputs(as_json, csv, parquet, html, overwrite, None, save)
    files = [path for path in (html, csv, parquet, save) if path]
    if not files:
        raise UsageError("runs export: got no file; want --html, --csv, --parquet or --save with one")
    folder = find_run(runs, workspace, run)
    answer = load_answer(folder)
    to = outputs.checked(Destinations(overwrite=overwrite))
    write_outputs(answer, outputs, to, model=folder / "model.npz")
    if as_json:
        emit_json({"run": folder.name, "files": files})


@app.command()
def remove(
    run: Annotated[list[str] | None, typer.Argument(help="Runs, by id or an unambiguous beginning of it.")] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Runs begun longer ago than that: 30d, 12h, 2w.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every run.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    runs: Runs = RUNS,
    workspace: Workspace = WORKSPACE,
    as_json: Json = False,
) -> None:
    """Remove runs: their folders, with result, report and, of a run with --fresh, its simulated holders.

    A run that is running is never removed. Ledgers in the workspace stay: what was spent stays spent.

    [bold]Examples[/bold]

    statfed runs remove 20260301-101500-mean-3f2a

    statfed runs remove --older-than 30d --yes
    """
    from statfed.federation import runs as folders

    if (bool(run) + bool(older_than) + all_) != 1:
        raise UsageError("runs remove: want ids of runs, or --older-than AGE, or --all")
    if run:
        chosen = list(dict.fromkeys(find_run(runs, workspace, name) for name in run))
    else:
        oldest = time.time() - (_seconds(older_than) if older_than else 0.0)
        known = folders.runs_in(places(runs, workspace))
        chosen = [folder for folder in known if all_ or folders.begun(folder) < oldest]
    alive = [folder for folder in chosen if folders.is_alive(folder)]
    if alive and run:
        raise UsageError(f"run {alive[0].name}: is running; want its end first")
    for folder in alive:
        say(f"kept, since it is running: {folder.name}")
    chosen = [folder for folder in chosen if folder not in alive]
    if chosen and not yes:
        for folder in chosen:
            say(f"  {folder}")
        if not typer.confirm(f"Remove {len(chosen)} run{'' if len(chosen) == 1 else 's'}?", err=True):
            raise UsageError("runs remove: nothing was removed; --yes removes without a question")
    for folder in chosen:
        folders.remove(folder)
    if as_json:
        emit_json({"removed": [folder.name for folder in chosen], "kept": [folder.name for folder in alive]})
    else:
        say(f"{len(chosen)} removed")


def _seconds(text: str) -> float:
    """An age such as 30d in seconds. Raises UsageError on what is none.

    >>> _seconds("2d"), _seconds("1.5h")
    (172800.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if not found:
        raise UsageError(f"--older-than: got {text!r}; want a number with s, m, h, d or w, for example 30d")
    return float(found[1]) * _UNITS[found[2]]
