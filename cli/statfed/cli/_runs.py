"""Where the command line keeps runs, and finds them: in the folder of runs, and in the workspace.

STATFED_RUNS and STATFED_WORKSPACE name both for every command.
"""

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

RUNS = Path("runs")
WORKSPACE = Path(".statfed")
Runs = Annotated[Path, typer.Option("--runs", help="Where run folders are.", envvar="STATFED_RUNS")]
Workspace = Annotated[
    Path,
    typer.Option("--workspace", help="Where simulated holders live, and answers are kept.", envvar="STATFED_WORKSPACE"),
]


def places(runs: Path, workspace: Path) -> tuple[Path, ...]:
    """Folders with runs: those that the user keeps, answers that were kept in the workspace, and those of a pilot's
    studies where its folder is here."""
    from statfed.federation.runs import KEPT

    pilots = [one for pattern in ("studies/*/runs", "*/studies/*/runs") for one in sorted(Path().glob(pattern))]
    return runs, workspace / KEPT, *pilots


def find_run(runs: Path, workspace: Path, name: str) -> Path:
    """The folder of a run. Raises UsageError listing what there is."""
    from statfed.federation import runs as folders

    return folders.find_run(places(runs, workspace), name)


def kept_in(workspace: Path) -> Path:
    """Where answers go that the user gave no folder for: STATFED_RUNS where it is set, else the workspace."""
    named = os.environ.get("STATFED_RUNS")
    return Path(named) if named else places(RUNS, workspace)[1]


def resuming(folder: Path) -> str:
    """The command that goes on with a run."""
    study, pilot = folder.parent.parent, folder.parent.parent.parent.parent
    if study.parent.name == "studies" and study.name.isdecimal():
        return shlex.join(["statfed", "resume", str(int(study.name)), "--pilot", str(pilot)])
    words = ["statfed", "run", "--resume", folder.name]
    default = Path(os.environ.get("STATFED_RUNS") or RUNS)
    if folder.parent.resolve() != default.resolve():
        words += ["--runs", str(folder.parent)]
    return shlex.join(words)
