"""Run folders: `runs/<id>/` with the study, its state, and what came out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from statfed.core.errors import UsageError


def read_status(folder: Path) -> dict[str, Any]:
    """A run's status.json. Raises UsageError when it is damaged."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text(encoding="utf-8"))
        if not isinstance(status["state"], str):
            raise TypeError("state: want a word")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UsageError(f"run {folder.name}: status.json is damaged ({type(error).__name__})") from None
    return status


def write_status(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write a run's status.json."""
    (folder / "status.json").write_text(json.dumps(dict(facts), indent=2) + "\n")
