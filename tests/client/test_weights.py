"""How contributors weigh in sums: every figure against a slow reference, and combinations that single columns hide."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.client.guard.cuts import told, unsafe
from statfed.client.guard.weights import failing, in_cells, leverages
from statfed.core.disclosure import OFF, Rules
from statfed.core.table import Table
from statfed.core.weighing import Amounts, Cuts, Rows
from tests.federate import codebook_of, table_of

COLUMNS: dict[str, Any] = {"g": ["a", "b", "c"], "x": "number", "y": "number", "z": "number"}
CODEBOOK, OWNED = codebook_of(COLUMNS), codebook_of(COLUMNS | {"who": {"type": "id", "role": "unit"}})


def records(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({name: np.round(np.exp(rng.normal(0, 1.5, n)), 3) for name in ("x", "y", "z")})
    frame["z"] = np.where(rng.random(n) < 0.2, frame["z"], 0.0)
    return frame.assign(g=rng.choice(["a", "b", "c"], n), who=[f"p{i}" for i in rng.integers(0, max(1, n // 3), n)])


def only(**rules: Any) -> Rules:
    return OFF.model_copy(update=rules)


def rows_of(table: Table, *names: str, **more: Any) -> Rows:
    return Rows(table, tuple(table.number(name) for name in names), **more)


def hat(vectors: np.ndarray) -> np.ndarray:
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    left = left[:, values > 1e-9 * values.max()]
    return np.asarray(left @ left.T)


def pairs(projection: np.ndarray) -> float:
    """The largest share that two contributors have in any combination: the top eigenvalue of their block."""
    n = len(projection)
    blocks = (projection[np.ix_((i, j), (i, j))] for i in range(n) for j in range(i))
    return max(float(np.linalg.eigvalsh(block)[-1]) for block in blocks)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(4, 60), owned=st.booleans())
def test_leverages_are_those_of_the_projection(seed: int, n: int, owned: bool) -> None:
    frame = records(n, seed)
    table = table_of(frame, OWNED if owned else CODEBOOK)
    values = frame[["x", "y", "z"]].to_numpy()
    each = np.array([values[frame.who == who].sum(axis=0) for who in sorted(set(frame.who))]) if owned else values
    found = leverages(rows_of(table, "x", "y", "z"), 2, "who" if owned else None, size=16)
    projection = hat(each)
    assert found.largest == pytest.approx(np.diag(projection).max(), abs=1e-9)
    if len(each) > 1:
        exact = pairs(projection)
        assert exact - 1e-9 <= found.two <= (exact + 1e-9 if exact > 0.5 else np.sort(np.diag(projection))[-2:].sum())
    if owned:
        own = np.diag(hat(values))
        assert found.own == pytest.approx(max(own[frame.who == who].sum() for who in set(frame.who)), abs=1e-9)


def test_what_is_computed_batch_by_batch_weighs_as_if_the_database_had_made_it() -> None:
    frame = records(50, 3)
    for codebook, owner in ((CODEBOOK, None), (OWNED, "who")):
        table = table_of(frame, codebook)
        made = Rows(table, (table.number("x"), table.number("y")), compute=lambda block: block * block[:, :1])
        plain = Rows(table, (table.number("x") * table.number("x"), table.number("x") * table.number("y")))
        assert leverages(made, 2, owner).largest == pytest.approx(leverages(plain, 2, owner).largest, abs=1e-9)


@pytest.mark.parametrize(("owner", "times"), [(None, 1), ("who", 2)])
def test_records_that_fit_in_memory_are_read_once_for_each_way_they_are_added_up(
    owner: str | None, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = records(50, 1)
    rows, read, batches = rows_of(table_of(frame, OWNED), "x", "y"), list[int](), Table.batches

    def counted(*given: Any) -> Any:
        read.append(1)
        return batches(*given)

    monkeypatch.setattr(Table, "batches", counted)
    leverages(rows, 1, owner)
    assert len(read) == times


def test_no_column_has_a_heavy_record_but_their_difference_is_one_record() -> None:
    n = 40
    x = np.linspace(1, 2, n)
    frame = pd.DataFrame({"g": "a", "x": x, "y": x + (np.arange(n) == 7) * 1e-3, "z": 1.0})
    table = table_of(frame, CODEBOOK)
    assert leverages(rows_of(table, "x"), 1).largest < 0.1
    assert leverages(rows_of(table, "y"), 1).largest < 0.1
    assert leverages(rows_of(table, "x", "y"), 1).largest == pytest.approx(1.0, abs=1e-6)
    assert dict(failing(rows_of(table, "x", "y", counting=True), only(minimum_frequency=5)))["minimum frequency"]


def test_the_leverage_of_an_indicator_is_the_rule_on_frequencies() -> None:
    for n, fails in ((9, True), (10, False)):
        frame = pd.DataFrame({"g": "a", "x": [1.0] * n + [0.0] * 50, "y": 1.0, "z": 0.0})
        table = table_of(frame, CODEBOOK)
        found = dict(failing(rows_of(table, "x", "y", counting=True), only(minimum_frequency=10)))
        assert found["minimum frequency"] is fails


@pytest.mark.parametrize("apart", [1e-3, 3e-7, 1e-9])
def test_nearly_collinear_columns_keep_their_digits_and_exactly_collinear_ones_are_one(apart: float) -> None:
    x = np.random.default_rng(1).uniform(1, 2, 60)
    wave = np.cos(np.arange(60.0))
    table = table_of(pd.DataFrame({"g": "a", "x": x, "y": x * (1 + apart * wave), "z": 2 * x}), CODEBOOK)
    found = leverages(rows_of(table, "x", "y"), 1)
    assert found.largest == pytest.approx(np.diag(hat(np.stack([x, x * wave], axis=1))).max(), rel=1e-5)
    assert leverages(rows_of(table, "x", "z"), 1).largest == pytest.approx(np.diag(hat(x[:, None])).max())
    frame = pd.DataFrame({"g": "a", "x": x, "y": x * (1 + 1e-13 * wave), "z": 2 * x})
    assert leverages(rows_of(table_of(frame, CODEBOOK), "x", "y"), 1).largest < 0.1  # rounding alone


def test_amounts_are_judged_cell_by_cell_and_by_person() -> None:
    frame = pd.DataFrame({"g": ["a"] * 12 + ["b"] * 12, "x": [5.0] * 24, "y": 0.0, "z": 1.0})
    frame["who"] = [f"p{i}" for i in range(12)] + ["q"] * 11 + ["r"]
    rules = only(dominance_n=1, dominance_k=80.0, p_percent=10.0)
    plain, owned = table_of(frame, CODEBOOK), table_of(frame, OWNED)
    for table, fails in ((plain, False), (owned, True)):
        for compute in (None, lambda block: block):
            amounts = Amounts(table, (table.number("x"),), ("g",), compute)
            assert dict(failing(amounts, rules)) == {"(n,k) dominance": fails, "p% rule": fails}


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_leverages_within_cells_are_those_of_each_cell_alone(seed: int) -> None:
    frame = records(60, seed)
    table = table_of(frame, CODEBOOK)
    found = in_cells(Rows(table, (table.number("x"), table.number("z")), by=("g",)), 2)
    each = [np.diag(hat(cell[["x", "z"]].to_numpy())) for _, cell in frame.groupby("g")]
    assert found.largest == pytest.approx(max(h.max() for h in each), abs=1e-8)
    assert found.two == pytest.approx(min(1.0, max(np.sort(h)[-2:].sum() for h in each)), abs=1e-8)


def test_cuts_are_judged_with_those_before_them() -> None:
    frame = pd.DataFrame({"g": ["a"] * 50 + ["b"] * 50, "x": np.arange(100.0), "y": 0.0, "z": 0.0})
    table = table_of(frame, CODEBOOK)
    thirty = Cuts(table, "x", ((30.0, False), (60.0, False)))
    assert not unsafe(thirty, (), 10)
    assert unsafe(Cuts(table, "x", ((35.0, False),)), [(thirty.edges, ())], 10)
    assert not unsafe(Cuts(table, "x", ((40.0, False),)), [(thirty.edges, ())], 10)
    assert not unsafe(Cuts(table, "x", ((30.0, False),)), [(thirty.edges, ())], 10)
    assert unsafe(Cuts(table, "x", ((30.5, False), (30.6, False))), (), 10)  # nobody between
    assert unsafe(Cuts(table, "x", ((150.0, False),)), (), 10)  # nobody beyond
    assert unsafe(Cuts(table, "x", ((30.0, True),)), [(thirty.edges, ())], 10)  # the one record at 30
    assert unsafe(Cuts(table, "x", ((5.0, True),)), (), 10)
    tail = told(Cuts(table, "x", ((5.0, True), (50.0, True)), tails=True), 10)
    assert tail.edges == ((50.0, True),)
    assert unsafe(Cuts(table, "x", ((45.0, False),), ("g",)), (), 10)  # five records of a lie beyond it
