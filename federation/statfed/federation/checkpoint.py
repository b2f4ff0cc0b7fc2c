"""A run's checkpoint on disk: written before every sum that a run can go on at, read by `statfed run --resume`."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.server.driver import Checkpoint, Sum

Curve = list[tuple[float, float]]


def save(folder: Path, checkpoint: Checkpoint, curve: Curve) -> None:
    """Write the state to go on with, what the sums took and the learning curve; an interruption leaves the previous
    checkpoint."""
    facts = {
        "run": checkpoint.run,
        "done": checkpoint.done,
        "sums": [asdict(one) for one in checkpoint.sums],
        "curve": curve,
    }
    arrays: dict[str, NDArray[Any]] = {f"state/{key}": np.asarray(array) for key, array in checkpoint.state.items()}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    part = folder / "checkpoint.part.npz"
    np.savez(part, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    os.replace(part, folder / "checkpoint.npz")  # noqa: PTH105


def has_checkpoint(folder: Path) -> bool:
    """Can the run go on?"""
    return (folder / "checkpoint.npz").exists()


def load_checkpoint(folder: Path) -> tuple[Checkpoint, Curve]:
    """The last checkpoint of a run. Raises UsageError when there is none or it is damaged."""
    path = folder / "checkpoint.npz"
    if not path.exists():
        raise UsageError(f"run {folder.name}: no checkpoint; it ended before its first round, so start it anew")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            facts = json.loads(bytes(file["facts"]))
            state = {key.removeprefix("state/"): file[key] for key in file.files if key.startswith("state/")}
        sums = tuple(Sum(**{**one, "rules": tuple(one["rules"])}) for one in facts["sums"])
        return Checkpoint(facts["run"], facts["done"], state, sums), [(a, f) for a, f in facts["curve"]]
    except Exception as error:  # noqa: BLE001  # a damaged archive raises whatever its reader meets first
        raise UsageError(f"run {folder.name}: checkpoint.npz is damaged ({type(error).__name__})") from None
