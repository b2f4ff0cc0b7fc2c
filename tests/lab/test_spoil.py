"""Dirty variants of a world: one thing wrong at one holder, named rightly, and the given world left as it was."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.scenario import World
from statfed.lab.laws.spoil import KINDS, Kind, spoil, spoilable, spoiled_holder

CODEBOOK = Codebook(
    columns={
        "region": Column(type="category", categories={"n": "", "s": ""}, required=True),
        "income": Column(type="number", low=0, high=500),
        "age": Column(type="integer", low=15),
        "works": Column(type="boolean"),
        "w": Column(type="number", role="weight"),
    }
)
BREAKS = {
    "unlisted-category": {"region"},
    "out-of-range": {"income", "age"},
    "missing-required": {"region", "w"},
    "wrong-type": {"income", "age", "works", "w"},
    "lacking-column": {"region", "income", "age", "works", "w"},
}


def table(rows: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "region": pd.Categorical(rng.choice(["n", "s"], rows)),
            "income": rng.integers(0, 500, rows),
            "age": rng.integers(15, 90, rows),
            "works": rng.random(rows) < 0.5,
            "w": rng.integers(1, 9, rows),
        }
    )


def world(codebook: Codebook = CODEBOOK, holders: Mapping[str, int] | None = None) -> World:
    sizes = holders or {"a": 5, "b": 8, "c": 3}
    return World({name: table(rows, i) for i, (name, rows) in enumerate(sizes.items())}, codebook, "made up")


def broken(frame: pd.DataFrame) -> dict[str, Any]:
    """Column to what is wrong with it, and in how many records."""
    found: dict[str, Any] = {name: "lacking" for name in CODEBOOK.columns if name not in frame}
    for name in frame.columns:
        column, values = CODEBOOK.columns[name], frame[name]
        if column.numeric and values.dtype == object:
            found[name] = sum(
                not value.replace(".", "").isdigit() for value in values if value not in ("True", "False")
            )
        elif values.isna().any():
            found[name] = int(values.isna().sum())
        elif column.levels and column.type == "category":
            found[name] = int((~values.isin(column.levels)).sum())
        elif column.numeric:
            low = -np.inf if column.low is None else column.low
            high = np.inf if column.high is None else column.high
            found[name] = int(((values.astype(float) < low) | (values.astype(float) > high)).sum())
    return {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.parametrize("kind", KINDS)
def test_one_column_of_one_holder_is_wrong_in_one_record(kind: Kind) -> None:
    hit = set()
    for seed in range(30):
        clean = world()
        spoiled, column = spoil(clean, kind, seed)
        holder = spoiled_holder(clean, spoiled)
        hit.add(column)
        assert broken(spoiled.holders[holder]) == {column: "lacking" if kind == "lacking-column" else 1}
        assert not any(broken(clean.holders[name]) for name in clean.holders)
        assert len(spoiled.holders[holder]) == len(clean.holders[holder])
    assert hit == BREAKS[kind], "a column that could be hit never is, or one is hit that should not be"


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_and_columns_can_be_chosen(kind: Kind) -> None:
    (one, column), (again, same) = spoil(world(), kind, 7), spoil(world(), kind, 7)
    assert column == same
    for name in one.holders:
        pd.testing.assert_frame_equal(one.holders[name], again.holders[name])
    only = sorted(BREAKS[kind])[0]
    assert {spoil(world(), kind, seed, [only])[1] for seed in range(5)} == {only}


def test_an_empty_holder_is_not_the_one_that_is_spoiled() -> None:
    clean = world(holders={"a": 0, "b": 4, "c": 0})
    assert {spoiled_holder(clean, spoil(clean, "wrong-type", seed)[0]) for seed in range(10)} == {"b"}
    with pytest.raises(UsageError, match="got no holder with a record"):
        spoil(world(holders={"a": 0}), "wrong-type", 1)


def test_a_world_without_such_a_column_is_refused_saying_which() -> None:
    bare = world(Codebook(columns={"works": Column(type="boolean")}))
    for kind in ("unlisted-category", "out-of-range", "missing-required"):
        assert not spoilable(bare.codebook, kind)
        with pytest.raises(UsageError, match=f"{kind}: got no column of"):
            spoil(bare, kind, 1)
    wanted: Any = "smudged"
    with pytest.raises(UsageError, match="got 'smudged'; want one of unlisted-category"):
        spoil(bare, wanted, 1)
