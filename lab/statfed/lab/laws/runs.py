"""Whole runs of small made-up data under a protection: in-process holders, every message encoded as on the network."""

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.progress import Progress, silent
from statfed.core.result import Result
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
    analysis: str, options: Mapping[str, Any], codebook: Codebook, frames: "Sequence[pd.DataFrame]", protection: str
) -> Result:
    """What an analysis releases over `frames`, one holder each, exactly and without rules."""
    from statfed.federation.answering import run_analysis
    from statfed.federation.study import make_analysis_study

    with tempfile.TemporaryDirectory(prefix="statfed-check-") as folder:
        sources = {f"h{i + 1}": str(Path(folder) / f"h{i + 1}.parquet") for i in range(len(frames))}
        for source, frame in zip(sources.values(), frames, strict=True):
            frame.to_parquet(source, index=False)
        table = {
            "analysis": analysis,
            "options": dict(options),
            "holders": sources,
            "protection": {"name": protection},
            "disclosure": "none",
            "seed": 1,
        }
        study = make_analysis_study(table, analysis)
        return run_analysis(study, codebook=codebook, workspace=Path(folder), engine=Wired()).result


def trained(protection: str, holders: int) -> NDArray[np.float32]:
    """The parameters of a small model after two rounds over made-up records."""
    from statfed.core.records import Channel, Records, WindowCodebook
    from statfed.core.study import make_study
    from statfed.federation.references import build
    from statfed.federation.training_homes import make_homes
    from statfed.server.app import Training, train
    from statfed.strategies.learning.local import get_vector

    codebook = WindowCodebook(
        channels=tuple(Channel(name=name, unit="g", low=-50, high=50, scale=1) for name in "xyz"),
        samples=32,
        classes=("still", "moving"),
    )
    table = {
        "scenario": "time-use",
        "holders": holders,
        "rounds": 2,
        "model": {"hidden": 4},
        "training": {"batch_size": 16},
        "protection": {"name": protection},
    }
    study = make_study(table)
    terms = study.terms(codebook)
    rng = np.random.default_rng(1)

    def records(count: int, first: int) -> Records:
        labels = rng.integers(0, 2, count)
        windows = rng.normal(labels[:, None, None], 0.5, (count, 3, 32)).astype(np.float32)
        return Records(windows, labels.astype(np.int64), first + np.arange(count) // 10)

    initial = get_vector(build(terms, study.seed))
    with tempfile.TemporaryDirectory(prefix="statfed-check-") as folder:
        made = {name: records(30 + 10 * i, 100 * i) for i, name in enumerate(study.holders)}
        homes = make_homes(study, made, Path(folder), "check")

        def drive(session: Session) -> Training:
            return train(session, terms, "check", initial, timeout=study.timeout, progress=silent)

        return Wired().run(Deployment("check", homes, Path(folder) / "logs"), drive, silent).vector


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
