"""Sums and sums of squares of a few persons from answers that are each about many: what the minimum frequency promises
of one cell has to hold of every combination of answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.refusals import refusals
from statfed.core.codebook import make_codebook
from statfed.core.disclosure import OFF
from tests.attacks.world import No, World

BOOK = make_codebook(
    {
        "columns": {
            "person": {"type": "id", "role": "unit"},
            "club": {"type": "category", "categories": ["n", "y"]},
            "union": {"type": "category", "categories": ["n", "y"]},
            "income": {"type": "number", "low": 0, "high": 100_000},
        }
    }
)
LAST = {"or": ["club = y or union = y"], "and": ["club = n", "union = n"]}


def overlapping(few: int, holder: str, n: int = 400) -> pd.DataFrame:
    """60 persons in the club and 70 in the union, `few` of them in both; nobody stands out."""
    income = np.random.default_rng(few).uniform(12_000, 60_000, n).round(2)
    frame = pd.DataFrame({"person": [f"{holder}{i}" for i in range(n)], "club": "n", "union": "n", "income": income})
    frame.loc[:59, "club"] = "y"
    frame.loc[60 - few : 129 - few, "union"] = "y"
    return frame


def powers(world: World, where: list[str]) -> np.ndarray:
    """Number, sum and sum of squares, from the figures that a release has. Raises No where it has none."""
    [row] = world.release("describe", {"columns": ["income"]}, where).tables["columns"]
    n, mean, variance = (float(row[name]) for name in ("count", "mean", "variance"))  # type: ignore[arg-type]
    return np.array([n, n * mean, (n - 1) * variance + n * mean**2])


def in_both(world: World, last: str) -> Any:
    """What three or four answers tell of those who are in both groups."""
    both = powers(world, ["club = y"]) + powers(world, ["union = y"])
    if last == "or":
        return both - powers(world, LAST[last])
    return both - (powers(world, []) - powers(world, LAST[last]))


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize(("few", "holders"), [(2, "a"), (3, "abc"), (9, "a")])
def test_no_answers_together_tell_the_powers_of_fewer_persons_than_the_minimum(
    few: int, holders: str, last: str, tmp_path: Path
) -> None:
    frames = {name: overlapping(few, name) for name in holders}
    ruled = World(tmp_path / "ruled", frames, BOOK, rules=OFF)
    with pytest.raises(No):
        in_both(ruled, last)
    ruled.close()
    [why] = {one.reason for holder in ruled.holders.values() for one in refusals(holder.home)}
    assert "all earlier exact answers" in why


def test_without_rules_two_incomes_follow_exactly(tmp_path: Path) -> None:
    """Control."""
    frame = overlapping(2, "a")
    world = World(tmp_path, {"a": frame}, BOOK, "rehearsal", rules=OFF)
    n, total, squares = in_both(world, "or")
    world.close()
    apart = np.sqrt(2 * squares - total**2)
    truth = sorted(frame.income[(frame.club == "y") & (frame.union == "y")])
    assert round(n) == 2
    assert [(total - apart) / 2, (total + apart) / 2] == pytest.approx(truth, abs=0.01)


def test_persons_as_many_as_the_minimum_are_told_of_as_one_cell_of_them_would_be(tmp_path: Path) -> None:
    frame = overlapping(10, "a")
    world = World(tmp_path, {"a": frame}, BOOK, rules=OFF)
    n, total, _ = in_both(world, "or")
    world.close()
    inside = frame.income[(frame.club == "y") & (frame.union == "y")]
    assert (round(n), total) == (10, pytest.approx(inside.sum(), abs=0.1))
