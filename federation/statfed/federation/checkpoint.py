"""A run's checkpoint on disk: written before every sum that a run can go on at, read by `statfed run --resume`."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.client.data.identity import content, identity
from statfed.core.errors import UsageError
from statfed.server.driver import Checkpoint, Sum

Curve = list[tuple[float, float]]


def made_of(study: str, holders: Mapping[str, str]) -> dict[str, str]:
    """What a run is of: `study`, the digest of its terms, and digests of the holders' data as they are now."""
    found = {}
    for name, source in holders.items():
        try:
            keys = sorted(identity(source, Path(), content).keys) if source else []
        except (OSError, ValueError, RuntimeError):  # it cannot be opened either
            keys = []
        found[name] = sha256("\n".join(keys).encode()).hexdigest()
    return {"study": study, **{f"the data of {name}": digest for name, digest in found.items()}}


def check(folder: Path, of: Mapping[str, str]) -> None:
    """Raises UsageError where a run would go on as another study, or on other data, than it was begun with."""
    known = _read(folder)[0]["of"]
    changed = [name for name in {*known, *of} if known.get(name) != of.get(name)]
    if changed:
        told = ", ".join(sorted("study.toml" if name == "study" else name for name in changed))
        raise UsageError(f"run {folder.name}: {told} changed since it was interrupted; want it as it was, or a new run")


def save(folder: Path, checkpoint: Checkpoint, curve: Curve, of: Mapping[str, str]) -> None:
    """Write the state to go on with, what the sums took, the learning curve and what the run is `made_of`; an
    interruption leaves the previous checkpoint."""
    facts = {
        "of": dict(of),
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
    facts, state = _read(folder)
    try:
        sums = tuple(Sum(**{**one, "rules": tuple(one["rules"])}) for one in facts["sums"])
        return Checkpoint(facts["run"], facts["done"], state, sums), [(a, f) for a, f in facts["curve"]]
    except Exception as error:  # noqa: BLE001  # whatever is missing in a damaged one
        raise _damaged(folder, error) from None


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    path = folder / "checkpoint.npz"
    if not path.exists():
        raise UsageError(f"run {folder.name}: no checkpoint; it ended before its first round, so start it anew")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            facts = dict(json.loads(bytes(file["facts"])))
            facts["of"] = dict(facts["of"])
            return facts, {key.removeprefix("state/"): file[key] for key in file.files if key.startswith("state/")}
    except Exception as error:  # noqa: BLE001  # a damaged archive raises whatever its reader meets first
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> UsageError:
    return UsageError(f"run {folder.name}: checkpoint.npz is damaged ({type(error).__name__})")
