"""Run folders: `runs/<id>/` with the study, its state, and what came out.

They are in two places: where the user keeps runs, and `runs/` of the workspace, where answers are kept that the user
gave no folder for. A folder is a run where it has a status.json; whoever works in it holds its lock.
"""

import json
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from statfed.core.errors import UsageError
from statfed.federation import locks

STATUS, LOCK = "status.json", "lock"
KEPT = "runs"
"""In the workspace: answers that the user gave no folder for."""
UNFINISHED = ("interrupted", "failed")


def working_in(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's lock while the block runs. Raises UsageError where a living process holds it."""
    busy = f"run {folder.name}: is running; want its end, or an end to its process, which a run can go on after"
    return locks.held(folder / LOCK, busy)


def is_alive(folder: Path) -> bool:
    """Does a process work on this run?"""
    return locks.is_held(folder / LOCK)


def interrupt(folder: Path) -> bool:
    """Ask the process that works on a run to stop, so that the run can go on later. False where none does."""
    if not is_alive(folder):
        return False
    try:
        os.kill(int(read_status(folder)["pid"]), signal.SIGINT)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    return True


def read_status(folder: Path) -> dict[str, Any]:
    """A run's status.json; of a run whose process ended without a word, as one that was interrupted.

    Raises UsageError when it is damaged.
    """
    try:
        status: dict[str, Any] = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        if not isinstance(status["state"], str) or not isinstance(status.get("attempt", 1), int):
            raise TypeError("state: want a word")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"run {folder.name}: status.json is damaged ({type(error).__name__})") from None
    if status["state"] == "running" and not is_alive(folder):
        status |= {"state": "interrupted", "error": "its process ended without a word"}
    return status


def write_status(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a run's status.json, as a whole."""
    write_whole(folder / STATUS, json.dumps(dict(facts), indent=2) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write one of the program's own files: an interruption leaves what was there."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)  # noqa: PTH105


def runs_in(places: Sequence[Path]) -> list[Path]:
    """Folders of runs, the one begun last at the end."""
    found = {path.resolve(): path for place in places for path in place.glob("*/") if (path / STATUS).exists()}
    return sorted(found.values(), key=_begun)


def find_run(places: Sequence[Path], name: str, *, unfinished: bool = False) -> Path:
    """The folder of a run, by its id, the beginning of one, or `last`. unfinished: the last one that can go on.

    Raises UsageError listing what there is.
    """
    known = runs_in(places)
    if name == "last":
        if found := next((path for path in reversed(known) if not unfinished or _can_go_on(path)), None):
            return found
        if known and unfinished:
            raise UsageError("run last: none was interrupted; see `statfed runs list`")
    matching = [p for p in known if p.name == name] or [p for p in known if name and p.name.startswith(name)]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UsageError(
            f"run {name}: got {len(matching)} that begin so; want one: {', '.join(p.name for p in matching)}"
        )
    there = ", ".join(p.name for p in known[-5:]) or "none yet; start with `statfed run time-use`"
    where = " or ".join(f"{place}/" for place in places)
    raise UsageError(f"run {name}: not found in {where}; newest there: {there}")


def remove(folder: Path) -> None:
    """Remove a run's folder. Raises UsageError where a process works on it, it is none, or it cannot be removed."""
    if not (folder / STATUS).is_file() or folder.is_symlink():
        raise UsageError(f"run {folder.name}: {folder} is no folder of a run; want one")
    with working_in(folder):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise UsageError(f"run {folder.name}: {folder} cannot be removed: {error.strerror}") from None


def begun(folder: Path) -> float:
    """When a run was begun, seconds since 1970."""
    return _begun(folder)[0] / 1e9


def _begun(folder: Path) -> tuple[int, str]:
    for name in ("study.toml", STATUS):
        try:
            return (folder / name).stat().st_mtime_ns, folder.name
        except OSError:
            continue
    return 0, folder.name


def _can_go_on(folder: Path) -> bool:
    try:
        return read_status(folder)["state"] in UNFINISHED
    except UsageError:
        return False


def each_status(places: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """What runs say of themselves, oldest first; of one whose status is damaged, that it is."""
    for folder in runs_in(places):
        try:
            yield read_status(folder)
        except UsageError as error:
            facts = {"method": "", "scenario": None, "engine": "", "title": "", "attempt": 1}
            yield {"run": folder.name, **facts, "state": "damaged", "error": str(error)}
