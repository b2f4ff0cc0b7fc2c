"""What may leave one holder in the clear: every rule against a slow reference, refusals that tell nothing."""

from dataclasses import replace
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.client.guard.disclosure import (
    check,
    check_declared,
    dominated,
    full_cells,
    p_percent,
    reads,
    undeclared,
    unsafe_frequency,
)
from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import Refused
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Counts,
    Magnitude,
    Model,
    Part,
    Product,
    Public,
    Question,
    Update,
    read_question,
)
from statfed.core.table import Table
from statfed.core.terms import Terms
from tests.federate import codebook_of, table_of
from tests.postgres import Server, postgres  # noqa: F401  # a fixture

COLUMNS: dict[str, Any] = {"region": ["n", "s"], "sex": ["f", "m"], "income": "number", "works": "boolean"}
FIRM = {"firm": {"type": "id", "role": "enterprise"}}
PLAIN, FIRMS = codebook_of(COLUMNS), codebook_of(COLUMNS | FIRM)
ASK = Ask("means")


def question(table: Table, columns: tuple[str, ...] = ("income",)) -> Question[Any]:
    query = Terms(method="describe", options={"columns": columns}, codebook=table.codebook, holders=("a",), seed=1)
    return read_question(query)[1]


def run(
    table: Table,
    discloses: Cells | Model,
    rules: Rules,
    contribution: Arrays | None = None,
    columns: tuple[str, ...] = ("income",),
) -> tuple[str, ...]:
    sent = contribution or {}
    parts = {name: Part(np.shape(array), integer=True, what=Counts()) for name, array in sent.items()}
    return check(table, question(table, columns), ASK, parts, sent, rules, discloses)


def engines(frame: pd.DataFrame, codebook: Any = PLAIN) -> list[Table]:
    """The same records as an engine in this process and as one that is treated like a server."""
    table = table_of(frame, codebook)
    return [table, replace(table, embedded=False)]


def only(**rules: Any) -> Rules:
    return OFF.model_copy(update=rules)


def persons(n: int, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"region": ["n"] * n, "sex": ["f"] * n, "income": [100.0] * n, "works": [True] * n} | columns)


def test_pure_rules_on_worked_cells() -> None:
    assert unsafe_frequency([0, 1, 9, 10], 10).tolist() == [False, True, True, False]
    # Two largest of (60, 31, 9): 91 % of the cell, so unsafe at 90 and safe at 92; at 91 it is exactly allowed.
    assert dominated([91.0], [100.0], 90).tolist() == [True]
    assert dominated([91.0], [100.0], 91).tolist() == [False]
    # rest 9: the second can be wrong about the largest, 60, by 15 % of it.
    assert p_percent([100.0], [60.0], [31.0], 15).tolist() == [False]
    assert p_percent([100.0], [60.0], [31.0], 15.1).tolist() == [True]
    assert p_percent([60.0, 0.0], [60.0, 0.0], [0.0, 0.0], 1).tolist() == [True, False]
    assert full_cells([[5, 0], [2, 3]]).tolist() == [[True, False], [False, True]]
    assert not full_cells([5]).any()


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), firms=st.booleans(), n=st.integers(1, 4))
def test_each_rule_refuses_exactly_when_the_brute_force_does(seed: int, firms: bool, n: int) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(0, 60))
    frame = persons(
        size,
        region=rng.choice(["n", "s"], size),
        sex=pd.Series(rng.choice(["f", "m"], size)).where(rng.random(size) < 0.95),
        income=np.where(rng.random(size) < 0.9, np.round(rng.normal(20, 40, size) ** 3), np.nan),
        firm=rng.choice([f"f{i}" for i in range(12)], size),
    )
    minimum, k, p = int(rng.integers(1, 12)), float(rng.uniform(30, 100)), float(rng.uniform(1, 60))
    cells = Cells(by=("region", "sex"), values=("income",))
    known = frame.dropna(subset=["sex"])
    groups = [cell for _, cell in known.groupby(["region", "sex"])]
    unsafe = {"minimum frequency": False, "(n,k) dominance": False, "p% rule": False}
    for cell in groups:
        given_ = cell.dropna(subset=["income"])
        each = given_.groupby("firm")["income"].sum() if firms else given_["income"]
        size_of = np.sort(each.abs().to_numpy())[::-1]
        total, first = size_of.sum(), size_of[:1].sum()
        unsafe["minimum frequency"] |= len(cell) < minimum or 0 < len(given_) < minimum
        if firms:
            unsafe["minimum frequency"] |= cell["firm"].nunique() < minimum or 0 < given_["firm"].nunique() < minimum
        unsafe["(n,k) dominance"] |= bool(size_of[:n].sum() > k / 100 * total * (1 + 1e-12))
        unsafe["p% rule"] |= bool(max(0, total - size_of[:2].sum()) < p / 100 * first)
    rules = only(minimum_frequency=minimum, dominance_n=n, dominance_k=k, p_percent=p)
    for table in engines(frame, FIRMS if firms else PLAIN):
        wanted = {rule for rule, fails in unsafe.items() if fails}
        try:
            assert set(run(table, cells, rules)) == set(unsafe)
            got: set[str] = set()
        except Refused as refusal:
            got = {rule for rule in unsafe if f"- {rule}:" in str(refusal)}
        assert got == wanted


def test_a_whole_table_is_one_cell() -> None:
    table = table_of(persons(9), PLAIN)
    assert run(table, Cells(), only(minimum_frequency=9)) == ("minimum frequency",)
    with pytest.raises(Refused, match="minimum frequency: income"):
        run(table, Cells(), only(minimum_frequency=10))


def test_a_mean_of_a_column_that_one_record_has_is_refused() -> None:
    table = table_of(persons(20, income=[7.0] + [None] * 19), PLAIN)
    with pytest.raises(Refused, match="minimum frequency"):
        run(table, Cells(values=("income",)), only(minimum_frequency=3))
    with pytest.raises(Refused, match="minimum frequency"):
        run(table, Cells(), only(minimum_frequency=3), {"count": np.array([1])})


@pytest.mark.parametrize("part", ["count", "n", "anything"])
def test_finer_cells_inside_a_contribution_have_to_be_frequent_too(part: str) -> None:
    table = table_of(persons(20), PLAIN)
    run(table, Cells(), only(minimum_frequency=3), {part: np.array([[17, 0], [3, 0]])})
    with pytest.raises(Refused, match="minimum frequency"):
        run(table, Cells(), only(minimum_frequency=3), {part: np.array([[18, 0], [2, 0]])})


def test_a_part_that_does_not_say_what_it_is_leaves_no_holder_whose_rules_are_on() -> None:
    table, cells = table_of(persons(20), PLAIN), Cells(values=("income",))
    sent = {"count": np.array([1])}
    for what in (None, Product(), Update(), Magnitude("n")):
        with pytest.raises(Refused, match=r"\(means\):\n- what leaves is declared: count\Z"):
            check(table, question(table), ASK, {"count": Part((1,), what=what)}, sent, only(p_percent=10.0), cells)
    check(table, question(table), ASK, {"count": Part((1,), what=Public())}, sent, only(p_percent=10.0), cells)


def test_what_goes_with_cells_and_what_with_models() -> None:
    parts = {
        "n": Part(what=Counts()),
        "sum": Part(what=Magnitude("n")),
        "alone": Part(what=Magnitude()),
        "of_what": Part(what=Magnitude("sum")),
        "product": Part(what=Product()),
        "update": Part(what=Update()),
        "one": Part(what=Public()),
        "silent": Part(),
    }
    assert undeclared(parts, Cells(values=("income",))) == ["of_what", "product", "silent", "update"]
    assert undeclared(parts, Cells()) == ["alone", "of_what", "product", "silent", "sum", "update"]
    assert undeclared(parts, Model(3)) == ["alone", "of_what", "product", "silent", "sum"]
    assert undeclared(parts, Model(3), weighed=True) == ["of_what", "silent"]
    assert undeclared(parts, Cells(), weighed=True) == ["of_what", "product", "silent", "update"]


def test_one_enterprise_with_many_records_dominates_although_no_record_does() -> None:
    frame = persons(30, firm=["big"] * 20 + [f"small-{i}" for i in range(10)])
    rules = only(dominance_n=1, dominance_k=50.0)
    for table in engines(frame, FIRMS):
        with pytest.raises(Refused, match="dominance: region, income"):
            run(table, Cells(by=("region",), values=("income",)), rules)
    run(table_of(frame, PLAIN), Cells(by=("region",), values=("income",)), rules)
    assert reads(FIRMS) == ("firm",)
    assert reads(PLAIN) == ()


def test_records_without_an_enterprise_count_as_one_and_do_not_cancel() -> None:
    frame = persons(14, firm=["a", "b", "c", "d"] + [None] * 10, income=[1.0] * 4 + [100.0, -100.0] * 5)
    for table in engines(frame, FIRMS):
        with pytest.raises(Refused, match="dominance"):
            run(table, Cells(values=("income",)), only(dominance_n=1, dominance_k=90.0))


def test_a_loss_dominates_as_a_profit_would() -> None:
    frame = persons(20, income=[-5000.0] + [10.0] * 19)
    for table in engines(frame):
        with pytest.raises(Refused, match=r"p% rule: income\Z"):
            run(table, Cells(values=("income",)), only(p_percent=10.0))


def test_weights_that_the_query_reads_make_a_weighted_contribution_dominate() -> None:
    codebook = codebook_of(COLUMNS | {"w": {"type": "number", "role": "weight"}})
    table = table_of(persons(20, w=[1000.0] + [1.0] * 19), codebook)
    rules = only(dominance_n=1, dominance_k=50.0)
    assert run(table, Cells(values=("income",)), rules) == ("(n,k) dominance",)
    with pytest.raises(Refused, match="dominance"):
        run(table, Cells(values=("income",)), rules, columns=("income", "w"))


def test_a_weight_that_one_record_has_dominates_the_sum_of_the_weights() -> None:
    codebook = codebook_of(COLUMNS | {"w": {"type": "number", "role": "weight"}})
    table = table_of(persons(20, w=[1000.0] + [0.0] * 19), codebook)
    with pytest.raises(Refused, match=r"dominance: w\Z"):
        run(table, Cells(values=("w",)), only(dominance_n=1, dominance_k=90.0), columns=("w",))


def test_empty_and_full_cells_only_where_they_are_protected() -> None:
    frame = persons(20, region=["n"] * 10 + ["s"] * 10, sex=["f"] * 10 + ["f", "m"] * 5)
    table, cells = table_of(frame, PLAIN), Cells(by=("region", "sex"))
    assert run(table, cells, OFF) == ()
    with pytest.raises(Refused, match="- zeros: region, sex"):
        run(table, cells, only(zeros="protect"))
    with pytest.raises(Refused, match="- full cells: region, sex"):
        run(table, cells, only(full_cells="protect"))
    assert run(table, Cells(by=("region",)), only(zeros="protect", full_cells="protect")) == ("full cells", "zeros")


def test_a_cell_whose_contributors_all_have_zero_is_protected_like_an_empty_one() -> None:
    table = table_of(persons(20, income=[0.0] * 20), PLAIN)
    with pytest.raises(Refused, match="zeros"):
        run(table, Cells(values=("income",)), only(zeros="protect"))


def test_a_model_needs_degrees_of_freedom_in_its_own_complete_records() -> None:
    table = table_of(persons(20, income=[1.0] * 12 + [None] * 8), PLAIN)
    model = Model(parameters=4, complete=("income",))
    rules = only(residual_df=8, parameters_per_record=0.34)
    assert run(table, model, rules) == ("residual degrees of freedom", "parameters per record")
    with pytest.raises(Refused, match=r"residual degrees of freedom: income\Z"):
        run(table, model, rules.model_copy(update={"residual_df": 9}))
    with pytest.raises(Refused, match=r"parameters per record: income\Z"):
        run(table, model, rules.model_copy(update={"parameters_per_record": 0.33}))


def test_a_dummy_variable_with_one_record_is_a_cell_of_one() -> None:
    table = table_of(persons(60, region=["s"] + ["n"] * 59), PLAIN)
    with pytest.raises(Refused, match=r"minimum frequency: region\Z"):
        run(table, Model(2, ("income", "region")), Rules())
    run(table, Model(2, ("income",)), Rules())


@pytest.mark.parametrize(
    "discloses", [Cells(by=("region",), values=("income",)), Cells(), Model(50, ("income", "region"))]
)
def test_a_holder_without_records_passes_unless_zeros_are_protected(discloses: Cells | Model) -> None:
    for table in engines(persons(0)):
        run(table, discloses, Rules(full_cells="protect"), {"count": np.zeros((2, 3), np.int64)})
        with pytest.raises(Refused, match="zeros"):
            run(table, discloses, only(zeros="protect"))


def test_a_refusal_is_the_same_text_whatever_thresholds_and_values_are() -> None:
    cells = Cells(by=("region",), values=("income",))
    texts = set()
    for income, n, minimum, k, p in ((8000.0, 2, 10, 90.0, 10.0), (123.0, 5, 50, 60.0, 30.0), (-7.5, 1, 3, 20.0, 99.0)):
        table = table_of(persons(n, income=[income] + [0.001] * (n - 1)), PLAIN)
        with pytest.raises(Refused) as refusal:
            run(table, cells, only(minimum_frequency=minimum, dominance_k=k, p_percent=p))
        texts.add(str(refusal.value).encode())
    assert texts == {
        b"not allowed by this holder's disclosure rules (means):\n"
        b"- minimum frequency: region, income\n- (n,k) dominance: region, income\n- p% rule: region, income"
    }


def test_an_error_of_the_database_is_an_error_and_no_pass() -> None:
    table = table_of(persons(20), PLAIN)
    broken = replace(table, expr=table.expr.drop("income"))
    with pytest.raises(Exception, match="income"):
        run(broken, Cells(values=("income",)), Rules())


@pytest.mark.parametrize("by", [(), ("region", "works")])
def test_postgresql_finds_what_duckdb_finds(postgres: Server, by: tuple[str, ...]) -> None:  # noqa: F811
    rng = np.random.default_rng(1)
    frame = persons(
        80,
        region=rng.choice(["n", "s"], 80),
        works=rng.random(80) < 0.5,
        income=np.where(rng.random(80) < 0.9, rng.lognormal(5, 2, 80), np.nan),
        firm=pd.Series(rng.choice([f"f{i}" for i in range(8)], 80)).where(rng.random(80) < 0.9),
    )
    types = {"region": "text", "sex": "text", "income": "float8", "works": "boolean", "firm": "text"}
    postgres.load("disclosure", types, frame)
    connection = ibis.postgres.connect(
        host="127.0.0.1", port=postgres.port, user="holder", password=postgres.password, database="test"
    )
    try:
        server = Table(connection.table("disclosure"), FIRMS, embedded=False)
        local = table_of(frame, FIRMS)
        for k in (50.0, 80.0, 99.9):
            rules = Rules(dominance_n=3, dominance_k=k, p_percent=k / 3, minimum_frequency=15)
            for discloses in (Cells(by, ("income",)), Model(3, ("income", *by))):
                assert outcome(server, discloses, rules) == outcome(local, discloses, rules)
    finally:
        connection.disconnect()


def outcome(table: Table, discloses: Cells | Model, rules: Rules) -> str:
    try:
        return "passed " + ", ".join(run(table, discloses, rules))
    except Refused as refusal:
        return str(refusal)


@pytest.mark.parametrize("lacking", ["weighs", "spans"])
def test_products_of_a_method_that_does_not_say_how_records_weigh_do_not_leave(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Terms(method="covariance", options={"columns": ["income", "works"]}, codebook=PLAIN, holders=("a",), seed=1)
    made = read_question(asked)[1]
    parts, discloses = made.method.parts(made, ASK), made.method.discloses(made, ASK)
    check_declared(made, ASK, parts, discloses)
    monkeypatch.delattr(f"statfed.strategies.analyses.covariance.{lacking}")
    with pytest.raises(Refused, match="what leaves is declared"):
        check_declared(made, ASK, parts, discloses)
