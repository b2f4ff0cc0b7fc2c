"""A small world that most tests share: toy sensor records of a few persons, and a study over them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.records import Channel, Records, WindowCodebook
from statfed.core.study import Study, make_study
from statfed.core.terms import Terms

CODEBOOK = WindowCodebook(
    channels=tuple(Channel(name=n, unit="g", low=-50, high=50, scale=1) for n in ("x", "y", "z", "p", "q", "r")),
    samples=128,
    classes=("still", "walk", "run"),
)


def toy_records(persons: int, each: int, seed: int = 0, first: int = 0) -> Records:
    """Windows whose frequency tells the class: learnable in a few steps."""
    rng = np.random.default_rng(seed)
    count = persons * each
    labels = rng.integers(0, 3, count)
    t = np.arange(128) / 50
    wave = np.sin(2 * np.pi * (0.5 + 2 * labels)[:, None, None] * t + rng.uniform(0, 6, (count, 6, 1)))
    windows = (wave * (0.3 + labels)[:, None, None] + rng.normal(0, 0.3, (count, 6, 128))).astype(np.float32)
    return Records(windows, labels.astype(np.int64), np.repeat(np.arange(first, first + persons), each))


def toy_study(**changes: Any) -> Study:
    """A small study; keyword arguments replace top-level keys."""
    base: dict[str, Any] = {
        "scenario": "time-use",
        "holders": 2,
        "rounds": 2,
        "model": {"hidden": 8},
        "training": {"batch_size": 16, "learning_rate": 0.1},
    }
    return make_study(base | changes)


def toy_terms(**changes: Any) -> Terms:
    """The terms of `toy_study` under the toy codebook."""
    return toy_study(**changes).terms(CODEBOOK)


@pytest.fixture
def homes(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Make home folders of simulated holders from records."""
    from statfed.federation.training_homes import make_homes

    def make(study: Study, holders: Mapping[str, Records] | None = None) -> dict[str, Path]:
        made = holders or {
            name: toy_records(3, 20, seed=i, first=10 * i) for i, name in enumerate(study.holders, start=1)
        }
        return make_homes(study, made, tmp_path / "holders", "toy")

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's ledger lies."""
    return tmp_path / "ledger.sqlite"
