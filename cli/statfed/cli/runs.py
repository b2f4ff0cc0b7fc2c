"""`statfed runs`: what was run, and its results."""

import json
import webbrowser
from pathlib import Path
from typing import Annotated, Any

import typer

from statfed.cli._output import Json, emit_json, out, table
from statfed.cli.analyse import show_tables
from statfed.cli.run import RUNS, find_run, show_result
from statfed.core.result import Result

app = typer.Typer(no_args_is_help=True, help="List and show past runs.")
Folder = Annotated[Path, typer.Option("--runs", help="Where run folders are.", envvar="STATFED_RUNS")]
Id = Annotated[str, typer.Argument(help="A run's id, or an unambiguous beginning of it, or `last`.")]


@app.command("list")
def list_runs(runs: Folder = RUNS, as_json: Json = False) -> None:
    """List runs, oldest first, with how they ended."""
    found: list[dict[str, Any]] = [
        json.loads((p / "status.json").read_text()) for p in sorted(runs.glob("*/")) if (p / "status.json").exists()
    ]
    if as_json:
        emit_json({"runs": found})
        return
    rows = table("Runs", "run", "study", "engine", "state", "accuracy", "macro-F1", numbers=("accuracy", "macro-F1"))
    for status in found:
        figures = ("" if status.get(k) is None else f"{status[k]:.3f}" for k in ("accuracy", "macro_f1"))
        rows.add_row(
            status["run"], status.get("scenario") or status["analysis"], status["engine"], status["state"], *figures
        )
    out.print(rows if found else f"no runs in {runs}/; start with `statfed run time-use`")


@app.command()
def show(run: Id, runs: Folder = RUNS, as_json: Json = False) -> None:
    """Show a run's summary, or with --json its whole result."""
    from statfed.federation.training import load_result

    folder = find_run(runs, run)
    answered = _analysis(folder)
    if answered is not None:
        if as_json:
            emit_json(answered)
        else:
            show_tables(Result.from_dict(answered), folder.name)
        return
    result = load_result(folder)
    if as_json:
        emit_json(result.model_dump(mode="json"))
    else:
        show_result(result)


@app.command()
def report(
    run: Id,
    runs: Folder = RUNS,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Json = False,
) -> None:
    """Write a run's HTML report again from its result, and say where it is."""
    from statfed.federation.trained_report import write
    from statfed.federation.training import load_result

    folder = find_run(runs, run)
    path = folder / "report.html"
    if _analysis(folder) is None:
        write(load_result(folder), path)
    if as_json:
        emit_json({"run": folder.name, "report": str(path)})
    else:
        out.print(str(path), highlight=False, soft_wrap=True)
    if open_:
        webbrowser.open(path.resolve().as_uri())


def _analysis(folder: Path) -> dict[str, Any] | None:
    """The stored answer of a run that asked a question of tables; None for a training run."""
    from statfed.federation.training import read_status

    if "analysis" not in read_status(folder):
        return None
    answer: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return answer
