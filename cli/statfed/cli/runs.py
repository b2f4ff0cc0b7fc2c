"""`statfed runs`: what was run, and its results."""

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from statfed.cli._answers import tell
from statfed.cli._output import Json, emit_json, out, table
from statfed.cli.run import RUNS, find_run

app = typer.Typer(no_args_is_help=True, help="List and show past runs.")
Folder = Annotated[Path, typer.Option("--runs", help="Where run folders are.", envvar="STATFED_RUNS")]
Id = Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it, or `last`.")]


@app.command("list")
def list_runs(runs: Folder = RUNS, as_json: Json = False) -> None:
    """List runs, oldest first, with how they ended."""
    from statfed.federation.runs import read_status

    found: list[dict[str, Any]] = [
        read_status(path) for path in sorted(runs.glob("*/")) if (path / "status.json").exists()
    ]
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
def show(run: Id, runs: Folder = RUNS, as_json: Json = False) -> None:
    """Show a run's answer, or with --json its whole document."""
    from statfed.federation import load_answer

    tell(load_answer(find_run(runs, run)), as_json)


@app.command()
def report(
    run: Id,
    runs: Folder = RUNS,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's HTML report again from its result, and say where it is."""
    from statfed.federation import load_answer
    from statfed.federation.export import write_html

    folder = find_run(runs, run)
    path = folder / "report.html"
    write_html(load_answer(folder), path)
    if as_json:
        emit_json({"run": folder.name, "report": str(path)})
    else:
        out.print(str(path), highlight=False, soft_wrap=True)
    if open_:
        webbrowser.open(path.resolve().as_uri())
