"""A run's checkpoint on disk: written after every round, read by `statfed run --resume`."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.server.app import Checkpoint, Round

Curve = list[tuple[float, float]]


def save(folder: Path, checkpoint: Checkpoint, curve: Curve) -> None:
    """Write model, optimiser memory, rounds and learning curve; an interruption leaves the previous checkpoint."""
    facts = {
        "run": checkpoint.run,
        "round": checkpoint.round,
        "rounds": [asdict(r) for r in checkpoint.rounds],
        "curve": curve,
    }
    arrays: dict[str, NDArray[Any]] = {"model": checkpoint.vector}
    arrays |= {f"state/{key}": array for key, array in checkpoint.state.items()}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    part = folder / "checkpoint.part.npz"
    np.savez(part, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    os.replace(part, folder / "checkpoint.npz")  # noqa: PTH105


def load_checkpoint(folder: Path) -> tuple[Checkpoint, Curve]:
    """The last checkpoint of a run. Raises UsageError when there is none or it is damaged."""
    path = folder / "checkpoint.npz"
    if not path.exists():
        raise UsageError(f"run {folder.name}: no checkpoint; it ended before its first round, so start it anew")
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(bytes(file["facts"]))
            vector = file["model"]
            state = {key.removeprefix("state/"): file[key] for key in file.files if key.startswith("state/")}
        rounds = [Round(**r) for r in facts["rounds"]]
        return Checkpoint(facts["run"], facts["round"], vector, state, rounds), [(a, f) for a, f in facts["curve"]]
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        raise UsageError(f"run {folder.name}: checkpoint.npz is damaged ({type(error).__name__})") from None
