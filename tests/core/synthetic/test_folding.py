"""Members folded into one record per unit and back: nothing is lost, no file's order is left, a unit is one record."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.edits import clauses, obeys
from statfed.core.synthetic.folding import Plan, Wide, fold, members_codebook, unfold, wide_codebook

BOOK = make_codebook(
    {
        "rules": [
            "relation != child or age < 18",
            "job is not null or age < 16 or region = n",
            "region = n or born is null",
        ],
        "columns": {
            "home": {"type": "id", "role": "unit"},
            "region": {"type": "category", "categories": ["n", "s"]},
            "age": {"type": "integer", "low": 0, "high": 99, "required": True},
            "relation": {"type": "category", "categories": ["head", "child"], "required": True},
            "job": {"type": "boolean"},
            "born": {"type": "date", "low": "1920-01-01", "high": "2025-12-31"},
            "wage": {"type": "number", "low": 0, "high": 9},
            "name": {"type": "text", "length": 20},
        },
    }
)
PLAN = Plan(3, ("relation", "age-"), ("region",))
Row = tuple[int, int, int, int, float, float, float]


@st.composite
def homes(draw: st.DrawFn) -> list[Row]:
    """Home, and region, age, relation, job, born, wage: of homes with 1 to 3 members, in any order."""
    rows: list[Row] = []
    for home in range(draw(st.integers(1, 6))):
        region = draw(st.sampled_from([-1, 0, 1]))
        for _ in range(draw(st.integers(1, 3))):
            ages, jobs = st.integers(0, 99), st.sampled_from([-1, 0, 1])
            some = st.sampled_from([np.nan, 0.0, 1.0, 5.0])
            rows.append((home, region, draw(st.integers(0, 1)), draw(jobs), float(draw(ages)), draw(some), draw(some)))
    found: list[Row] = draw(st.permutations(rows))
    return found


def table(rows: list[Row], book: Codebook = BOOK) -> tuple[Coded, NDArray[Any]]:
    home, region, relation, job, age, born, wage = (np.array(each) for each in zip(*rows, strict=True))
    columns = {"region": region, "age": age, "relation": relation, "job": job, "born": born, "wage": wage}
    return Coded(book, columns), np.array([f"h{one}" for one in home])


def contents(made: Coded, unit: NDArray[Any]) -> list[list[tuple[str, ...]]]:
    """By unit the members, in no order; units in no order."""
    names = sorted(made.names)
    by_unit: dict[Any, list[tuple[str, ...]]] = {}
    for place, one in enumerate(unit.tolist()):
        by_unit.setdefault(one, []).append(tuple(str(float(made.columns[name][place])) for name in names))
    return sorted(sorted(each) for each in by_unit.values())


def records(wide: Wide) -> dict[str, tuple[str, ...]]:
    columns = wide.table.columns
    return {
        str(unit): tuple(str(float(columns[name][place])) for name in columns)
        for place, unit in enumerate(wide.units.tolist())
    }


@settings(max_examples=40, deadline=None)
@given(homes(), st.randoms(use_true_random=False))
def test_folding_and_back_gives_every_member_in_its_unit_whatever_the_order_of_the_file(
    rows: list[Row], mixed: Any
) -> None:
    made, homes_ = table(rows)
    wide = fold(made, homes_, PLAN)
    assert wide.dropped == wide.larger == 0
    back, unit = unfold(wide.table)
    assert contents(back, unit) == contents(made, homes_)
    again = [*rows]
    mixed.shuffle(again)
    assert records(fold(*table(again), PLAN)) == records(wide)


@settings(max_examples=25, deadline=None)
@given(homes())
def test_a_unit_more_is_one_record_more_and_changes_no_other(rows: list[Row]) -> None:
    one_more = [*rows, (99, 0, 0, -1, 40.0, np.nan, 1.0), (99, 0, 1, 1, 12.0, 5.0, np.nan)]
    before, after = records(fold(*table(rows), PLAN)), records(fold(*table(one_more), PLAN))
    assert {*after} - {*before} == {"h99"}
    assert {unit: after[unit] for unit in before} == before


@settings(max_examples=25, deadline=None)
@given(homes())
def test_a_folded_record_obeys_the_rules_where_all_its_members_do(rows: list[Row]) -> None:
    made, homes_ = table(rows)
    wide = fold(made, homes_, PLAN)
    fine = obeys(made, clauses(BOOK))
    want = np.array([fine[homes_ == unit].all() for unit in wide.units])
    assert obeys(wide.table, clauses(wide.table.codebook)).tolist() == want.tolist()


def test_a_slot_that_its_size_has_not_or_a_member_that_is_not_there_breaks_a_rule() -> None:
    wide = fold(
        *table([(0, 0, 0, 1, 40.0, 1.0, 1.0), (0, 0, 1, -1, 4.0, 1.0, 1.0), (1, 0, 0, 1, 30.0, 1.0, 1.0)]), PLAN
    )
    rules, columns = clauses(wide.table.codebook), wide.table.columns
    assert obeys(wide.table, rules).all()
    for name, place, value in (("job_2", 1, 0), ("wage_3", 0, 2.0), ("age_2", 0, np.nan), ("members", 0, 1.0)):
        changed = columns[name].copy()
        changed[place] = value
        broken = Coded(wide.table.codebook, {**columns, name: changed})
        assert obeys(broken, rules).tolist() == [place != 0, place != 1]
        with pytest.raises(UsageError, match="1 records whose slots do not go with members"):
            unfold(broken)


def test_slots_follow_the_order_that_is_named_then_all_other_columns() -> None:
    rows = [(0, 0, 1, 1, 12.0, 1.0, 1.0), (0, 0, 0, 0, 40.0, 1.0, 1.0), (0, 0, 0, 0, 50.0, np.nan, 1.0)]
    wide = fold(*table(rows), PLAN)
    assert [wide.table.columns[f"age_{k}"][0] for k in (1, 2, 3)] == [50.0, 40.0, 12.0]
    same = [(0, 0, 0, 0, 40.0, np.nan, 1.0), (0, 0, 0, 1, 40.0, 1.0, 1.0), (0, 0, 0, 0, 40.0, 1.0, 1.0)]
    wide = fold(*table(same), PLAN)
    assert [wide.table.columns[f"job_{k}"][0] for k in (1, 2, 3)] == [0, 0, 1]
    assert np.isnan(wide.table.columns["born_2"][0])


@pytest.mark.parametrize(("larger", "size", "most"), [("drop-members", 3.0, 3), ("top-code", 4.0, 4)])
def test_units_with_more_members_are_refused_or_counted(larger: Any, size: float, most: int) -> None:
    rows: list[Row] = [(0, 0, 0, 1, 20.0 + i, 1.0, 1.0) for i in range(5)] + [(1, 0, 0, 1, 9.0, 1.0, 1.0)]
    with pytest.raises(UsageError, match="got 1 units with more than 3 members; want more slots"):
        fold(*table(rows), PLAN)
    wide = fold(*table(rows), Plan(3, ("age-",), ("region",), larger))
    assert (wide.dropped, wide.larger) == (2, 1)
    assert wide.table.columns["members"].tolist() == [size, 1.0]
    assert wide.table.codebook.columns["members"].high == most
    assert [wide.table.columns[f"age_{k}"][0] for k in (1, 2, 3)] == [24.0, 23.0, 22.0]
    assert obeys(wide.table, clauses(wide.table.codebook)).all()
    assert unfold(wide.table)[1].tolist() == [0, 0, 0, 1]


def test_a_shared_column_that_varies_is_refused_without_a_value() -> None:
    rows: list[Row] = [(0, 0, 0, 1, 77.0, 1.0, 1.0), (0, 1, 0, 1, 20.0, 1.0, 1.0), (1, -1, 0, 1, 20.0, 1.0, 1.0)]
    with pytest.raises(UsageError, match="--shared: region: got 1 units within which it varies") as told:
        fold(*table(rows), PLAN)
    assert not any(value in str(told.value) for value in ("77", "h0", " n ", " s "))


def test_the_folded_codebook_is_one_and_reads_back_and_says_what_members_are() -> None:
    wide = wide_codebook(BOOK, PLAN)
    assert make_codebook(wide.model_dump(mode="json")) == wide
    assert wide.columns["age_1"].required
    assert not wide.columns["age_2"].required
    back = members_codebook(wide)
    kept = {name: column for name, column in BOOK.columns.items() if name != "name"}
    assert dict(back.columns) == kept
    assert "folded" not in BOOK.model_dump(mode="json")
    for change in ({"columns": ["agee"]}, {"most": 4}, {"size": "age_1"}, {"columns": ["region"]}):
        told = wide.model_dump(mode="json")
        with pytest.raises(UsageError, match=r"folded\.(columns|size): got"):
            make_codebook({**told, "folded": {**told["folded"], **change}})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(3, size="age"), "--size: got age"),
        (Plan(3, shared=("home",)), "--shared: got home, which identifies"),
        (Plan(3, order=("name",)), "--order: got name, which identifies"),
        (Plan(3, order=("region",), shared=("region",)), "--order: got region, which is shared"),
        (Plan(3, shared=("age", "age")), "got a column twice"),
        (Plan(3, order=("ages",)), "--order: got 'ages'"),
        (Plan(99), "want"),
    ],
)
def test_plans_that_do_not_go_with_a_codebook_are_refused(plan: Plan, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        wide_codebook(BOOK, plan)


def test_a_weight_of_members_and_a_codebook_without_units_are_refused() -> None:
    told = BOOK.model_dump(mode="json")
    weighted = make_codebook({**told, "columns": told["columns"] | {"w": {"type": "number", "role": "weight"}}})
    with pytest.raises(UsageError, match="w: got role weight for a column of members; want it in --shared"):
        wide_codebook(weighted, PLAN)
    assert wide_codebook(weighted, Plan(3, (), ("region", "w"))).columns["w"].role == "weight"
    with pytest.raises(UsageError, match="want one, such as the household"):
        wide_codebook(make_codebook({"columns": {"age": {"type": "integer"}}}), Plan(3))
    with pytest.raises(UsageError, match="got one of folded records"):
        wide_codebook(wide_codebook(BOOK, PLAN), Plan(2))
