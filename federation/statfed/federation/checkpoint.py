"""A run's checkpoint on disk: written before every sum, read by `statfed run --resume`.

It holds what the method was told: totals, never a holder's contribution (`statfed.server.driver`). Its owner alone can
read it, since release rules have not seen those totals.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.client.data.identity import content, identity
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Total
from statfed.core.table import Size
from statfed.server.driver import Answer, Checkpoint, Sum

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
    """Write what it takes to go on, what the sums took, the learning curve and what the run is `made_of`, on disk; an
    interruption leaves the previous checkpoint."""
    facts = {
        "of": dict(of),
        "run": checkpoint.run,
        "done": checkpoint.done,
        "sums": [asdict(one) for one in checkpoint.sums],
        "curve": curve,
        "counted": list(checkpoint.counted),
        "few": list(checkpoint.few),
        "sizes": {name: [size.records, size.persons] for name, size in checkpoint.sizes.items()},
        "told": [_facts(one) for one in checkpoint.told],
    }
    arrays: dict[str, NDArray[Any]] = {f"state/{key}": np.asarray(array) for key, array in checkpoint.state.items()}
    for place, one in enumerate(checkpoint.told):
        if isinstance(one.answer, Total):
            for kind, given in (
                ("total", one.answer),
                ("noise", one.answer.noise),
                ("resolution", one.answer.resolution),
            ):
                arrays |= {f"told/{place}/{kind}/{name}": np.asarray(array) for name, array in given.items()}
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    part = folder / "checkpoint.part.npz"
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
            file.flush()
            os.fsync(descriptor)
        os.replace(part, folder / "checkpoint.npz")  # noqa: PTH105
    finally:
        part.unlink(missing_ok=True)


def _facts(one: Answer) -> dict[str, Any]:
    known = {"number": one.number, "asked": one.asked}
    if isinstance(one.answer, Refused):
        return known | {"refused": str(one.answer)}
    return known | {"holders": list(one.answer.holders)}


def _told(facts: list[dict[str, Any]], arrays: Mapping[str, NDArray[Any]]) -> Iterator[Answer]:
    """What `save` wrote of answers."""
    for place, one in enumerate(facts):
        answer: Total | Refused
        if "refused" in one:
            answer = Refused(str(one["refused"]))
        else:
            under = {
                kind: {
                    name.removeprefix(f"told/{place}/{kind}/"): array
                    for name, array in arrays.items()
                    if name.startswith(f"told/{place}/{kind}/")
                }
                for kind in ("total", "noise", "resolution")
            }
            holders = tuple(map(str, one["holders"]))
            answer = Total(under["total"], under["noise"], {}, {}, holders, under["resolution"])
        yield Answer(int(one["number"]), str(one["asked"]), answer)


def has_checkpoint(folder: Path) -> bool:
    """Can the run go on?"""
    return (folder / "checkpoint.npz").exists()


def load_checkpoint(folder: Path) -> tuple[Checkpoint, Curve]:
    """The last checkpoint of a run. Raises UsageError when there is none or it is damaged."""
    facts, arrays = _read(folder)
    try:
        sums = tuple(Sum(**{**one, "rules": tuple(one["rules"])}) for one in facts["sums"])
        state = {key.removeprefix("state/"): array for key, array in arrays.items() if key.startswith("state/")}
        found = Checkpoint(
            facts["run"],
            facts["done"],
            state,
            sums,
            tuple(_told(facts["told"], arrays)),
            tuple(facts["counted"]),
            (bool(facts["few"][0]), bool(facts["few"][1])),
            {name: Size(*size) for name, size in facts["sizes"].items()},
        )
        return found, [(a, f) for a, f in facts["curve"]]
    except Exception as error:  # noqa: BLE001  # whatever is missing in a damaged one
        raise _damaged(folder, error) from None


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    path = folder / "checkpoint.npz"
    if not path.exists():
        raise UsageError(f"run {folder.name}: no checkpoint; it ended before anybody was asked, so start it anew")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            facts = dict(json.loads(bytes(file["facts"])))
            facts["of"] = dict(facts["of"])
            return facts, {key: file[key] for key in file.files if key != "facts"}
    except Exception as error:  # noqa: BLE001  # a damaged archive raises whatever its reader meets first
        raise _damaged(folder, error) from None


def _damaged(folder: Path, error: Exception) -> UsageError:
    return UsageError(f"run {folder.name}: checkpoint.npz is damaged ({type(error).__name__})")
