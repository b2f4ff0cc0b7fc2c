"""Reconstruction of suppressed cells from margins: cases solved by hand, and the release's own treatment."""

import numpy as np
import pandas as pd
import pytest

from statfed.core.disclosure import Rules
from statfed.core.result import Result, Row
from statfed.federation import Federation
from statfed.lab.compare.reconstruct import pinned

CELLS = {("x", "p"): 20, ("x", "q"): 30, ("y", "p"): 7, ("y", "q"): 40}


def table(*hidden: tuple[str | None, str | None]) -> Result:
    """The table of CELLS with its margins, some of it suppressed."""

    def row(a: str | None, b: str | None) -> Row:
        inside = [n for (i, j), n in CELLS.items() if a in (None, i) and b in (None, j)]
        return {"a": a, "b": b, "count": None if (a, b) in hidden else sum(inside)}

    margins = [row(a, None) for a in "xy"] + [row(None, b) for b in "pq"] + [row(None, None)]
    return Result("table", "t", {"cells": [row(*key) for key in CELLS], "margins": margins}, by=("a", "b"))


def test_one_suppressed_cell_follows_from_its_margin() -> None:
    assert pinned(table(("y", "p")), "count") == 1.0


def test_a_cell_whose_margins_are_hidden_too_follows_from_the_grand_total() -> None:
    assert pinned(table(("y", "p"), ("y", None), (None, "p")), "count") == 1.0


def test_a_rectangle_of_suppressed_cells_is_not_pinned_down() -> None:
    assert pinned(table(*CELLS), "count") == 0.0


def test_two_suppressed_cells_of_a_row_follow_from_their_columns() -> None:
    assert pinned(table(("y", "p"), ("y", "q")), "count") == 1.0
    assert pinned(table(("y", "p"), ("y", "q"), (None, "p"), (None, "q")), "count") == 0.0


def test_there_is_nothing_to_attack_without_suppression_or_margins() -> None:
    assert pinned(table(), "count") is None
    assert pinned(table(("y", "p")), "total") is None
    lone = Result("table", "t", {"cells": [{"a": "x", "count": None}]}, by=("a",))
    assert pinned(lone, "count") is None


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_the_release_suppresses_is_not_pinned_down(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def frame(size: int) -> pd.DataFrame:
        a = rng.choice(["x", "y", "z"], size, p=[0.5, 0.45, 0.05])
        return pd.DataFrame({"a": a, "b": rng.choice(["p", "q", "s"], size), "v": rng.uniform(1, 90, size)})

    columns = {"a": ["x", "y", "z"], "b": ["p", "q", "s"]}
    book = {name: {"type": "category", "categories": codes} for name, codes in columns.items()}
    book |= {"v": {"type": "number", "low": 0, "high": 100}}  # type: ignore[dict-item]
    with Federation({name: frame(150) for name in "nsw"}, {"columns": book}, disclosure=Rules()) as federation:
        released = federation.table("a", "b", value="v")
    assert any(row["count"] is None for row in released.tables["cells"])
    assert pinned(released, "count") == 0.0
    assert pinned(released, "total") == 0.0
