"""Whole runs of small made-up data under a protection: in-process holders, every message encoded as on the network."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.progress import Progress
from statfed.core.result import Result
from statfed.core.terms import Privacy
from statfed.lab.laws.check import holds
from statfed.server.engine import Deployment, R, Session
from statfed.server.grid import inprocess

if TYPE_CHECKING:
    import pandas as pd


class Wired:
    """The engine `inprocess` with messages that are encoded and decoded."""

    def run(self, deployment: Deployment, drive: Callable[[Session], R], progress: Progress) -> R:
        """As the engine `inprocess`."""
        return inprocess.run(deployment, drive, progress, wire=True)


def asked(
    method: str,
    options: Mapping[str, Any],
    codebook: Codebook,
    frames: "Sequence[pd.DataFrame]",
    protection: str,
    privacy: Privacy | None = None,
) -> Result:
    """What a method releases over `frames`, one holder each, without rules; exactly unless there is to be noise."""
    from statfed.core.study import make_study
    from statfed.federation.run import Options, run_study

    with tempfile.TemporaryDirectory(prefix="statfed-check-") as folder:
        sources = {f"h{i + 1}": str(Path(folder) / f"h{i + 1}.parquet") for i in range(len(frames))}
        for source, frame in zip(sources.values(), frames, strict=True):
            frame.to_parquet(source, index=False)
        table = {
            "method": method,
            "options": dict(options),
            "holders": sources,
            "protection": {"name": protection},
            "privacy": privacy,
            "disclosure": "none",
            "seed": 1,
        }
        how = Options(workspace=Path(folder), codebook=codebook, engine=Wired())
        return run_study(make_study(table, where=method), how).result


def trained(protection: str, holders: int) -> NDArray[np.float32]:
    """The parameters of a small model after two rounds over made-up records."""
    from statfed.lab.laws.frames import dealt
    from statfed.lab.laws.universe import CODEBOOK, examples_of, people

    frames = dealt(people(60 * holders, seed=1), None, holders)
    result = asked("local-sgd", examples_of("local-sgd")[0], CODEBOOK, frames, protection)
    vector: NDArray[np.float32] = result.arrays["model"]
    return vector


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar of a JSON document with where it stands."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}/{index}")
    else:
        yield path, value


def same(got: Any, want: Any, relative: float, absolute: float) -> int:
    """How many figures two documents share. Raises Broken where they differ."""
    found, wanted = dict(leaves(got)), dict(leaves(want))
    holds(found.keys() == wanted.keys(), "got a result of another form; want the same tables, rows and columns")
    for path, value in wanted.items():
        if isinstance(value, float) and isinstance(found[path], int | float):
            close = math.isclose(found[path], value, rel_tol=relative, abs_tol=absolute)
            holds(close, f"{path}: got {found[path]!r}; want {value!r}")
        else:
            holds(found[path] == value, f"{path}: got {found[path]!r}; want {value!r}")
    return len(wanted)
