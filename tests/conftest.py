"""A small world that most tests share: toy sensor records of a few persons, and a study over them."""

import gc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pytest
from hypothesis import settings

from statfed.core.records import Channel, Records, WindowCodebook
from statfed.core.study import Study, make_study
from statfed.core.table import Size, Table
from statfed.core.terms import Terms
from statfed.federation.homes import homes_under, make_homes
from statfed.federation.population import described, table_of, write_tables

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=400)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
"""Property tests try the same inputs at every run, so that a change alone can break them; `make test-all` searches."""

gc.set_threshold(50_000, 20, 50)
"""Importing and collecting make a million objects that live to the end: looking at them again and again took a quarter
of that time."""


def pytest_collection_finish() -> None:
    """What lives to the end is looked at no more."""
    gc.collect()
    gc.freeze()


CODEBOOK = WindowCodebook(
    channels=tuple(Channel(name=n, unit="g", low=-50, high=50, scale=1) for n in ("x", "y", "z", "p", "q", "r")),
    samples=128,
    classes=("still", "walk", "run"),
)
"""The form of the toy records, one channel a column."""
TOY = described(CODEBOOK, "toy")
"""The codebook of the holders' tables, and the columns a model is trained on."""


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
    """A small study of training; keyword arguments replace top-level keys, of which `rounds`, `model`, `training` and
    `strategy` are read as options."""
    base: dict[str, Any] = {
        "scenario": "time-use",
        "holders": 2,
        "seed": 1,
        "rounds": 2,
        "model": {"hidden": 8},
        "training": {"batch_size": 16, "learning_rate": 0.1},
    }
    columns = {"features": list(TOY.features), "target": TOY.target}
    return make_study(base | changes | {"options": columns | dict(changes.get("options", {}))})


def toy_terms(**changes: Any) -> Terms:
    """The terms of `toy_study` under the codebook of the toy tables."""
    return toy_study(**changes).terms(TOY.codebook)


def toy_table(records: Records) -> Table:
    """Toy records as the table that a method computes on."""
    engine = ibis.duckdb.connect(threads=1)
    engine.con.register("toy", table_of(records, CODEBOOK))
    size = Size(len(records), len(np.unique(records.persons)))
    return Table(engine.table("toy"), TOY.codebook, size=size)


@pytest.fixture(autouse=True)
def register(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's machine keeps what it knows of ledgers; never the user's own."""
    path = tmp_path_factory.mktemp("register") / "register.sqlite"
    monkeypatch.setenv("STATFED_REGISTER", str(path))
    return path


@pytest.fixture
def homes(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Make home folders of simulated holders from records; returns party name to folder."""

    def make(study: Study, holders: Mapping[str, Records] | None = None) -> dict[str, Path]:
        made = holders or {
            name: toy_records(3, 20, seed=i, first=10 * i) for i, name in enumerate(study.holders, start=1)
        }
        root = tmp_path / "holders"
        folders = homes_under(root, {name: name for name in made})
        sources = write_tables(made, CODEBOOK, folders)
        return make_homes(study, study.terms(TOY.codebook), sources, folders, root, "toy")

    return make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's ledger lies."""
    return tmp_path / "ledger.sqlite"
