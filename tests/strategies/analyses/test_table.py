"""`table` against pandas, scipy and R's survey package."""

import itertools
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.method import Ask, Cells, read_question
from statfed.core.result import Result, Row
from statfed.core.terms import Terms
from tests.federate import codebook_of, federate, split
from tests.strategies.analyses.test_survey import REFERENCE, REGIONS, ROLES, SAMPLE, SEXES, codebook, nested

BOOK = codebook_of(
    {
        "region": [*REGIONS, "overseas"],
        "sex": SEXES,
        "works": "boolean",
        "size": ["s", "l"],
        "turnover": ("number", 0, 1000),
        "net": ("number", -10, 10),
        "w": ("number", 0, 9),
    }
)
FIRMS = codebook_of(
    {"region": REGIONS, "sex": SEXES, "turnover": ("number", 0, 1000), "firm": {"type": "id", "role": "enterprise"}}
)


def people(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "region": rng.choice(REGIONS, n, p=[0.6, 0.3, 0.1]),
            "sex": rng.choice(SEXES, n),
            "works": rng.random(n) < 0.6,
            "size": rng.choice(["s", "l"], n),
            "turnover": rng.lognormal(3, 1, n).clip(0, 1000).round(2),
            "w": rng.uniform(0.5, 9, n),
        }
    )
    frame.loc[rng.random(n) < 0.07, "sex"] = None
    return frame


def found(rows: Any, **where: Any) -> Row:
    matching = [row for row in rows if all(row[name] == value for name, value in where.items())]
    assert len(matching) == 1
    result: Row = matching[0]
    return result


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 4), n=st.integers(1, 80), ways=st.integers(1, 4))
def test_cells_and_margins_equal_pooled_pandas_however_split(seed: int, holders: int, n: int, ways: int) -> None:
    frame, by = people(n, seed), ["region", "sex", "works", "size"][:ways]
    rows, columns = by[:1], by[1:]
    counted = federate("table", split(frame, holders, seed), BOOK, rows=rows, columns=columns)
    valued = federate("table", split(frame, holders, seed), BOOK, rows=rows, columns=columns, value="turnover")
    kept = frame.dropna(subset=by)
    assert len(counted.tables["cells"]) == np.prod([4, 2, 2, 2][:ways])
    assert len(counted.tables["margins"]) == np.prod([5, 3, 3, 3][:ways]) - len(counted.tables["cells"])
    assert counted.facts["missing"] == n - len(kept)
    for table, other in itertools.chain(
        zip(counted.tables["cells"], valued.tables["cells"], strict=True),
        zip(counted.tables["margins"], valued.tables["margins"], strict=True),
    ):
        inside = np.ones(len(kept), bool)
        for name in by:
            if table[name] is not None:
                inside &= (kept[name].astype(str).str.lower() == table[name]).to_numpy()
        assert (table["count"], table["total"]) == (inside.sum(), inside.sum())
        assert other["total"] == pytest.approx(kept["turnover"][inside].sum(), rel=1e-12)
        if n > 1:
            assert table["std_error"] == pytest.approx(np.sqrt(n * np.r_[inside, np.zeros(n - len(kept))].var(ddof=1)))
            z = np.r_[kept["turnover"].where(inside, 0.0), np.zeros(n - len(kept))]
            assert other["std_error"] == pytest.approx(np.sqrt(n * z.var(ddof=1)), rel=1e-9)


@pytest.mark.parametrize("ways", [2, 3, 4])
def test_chi_square_equals_scipy_and_a_level_that_nobody_has_is_a_zero_cell(ways: int) -> None:
    frame, by = people(400, 5), ["region", "sex", "works", "size"][:ways]
    result = federate("table", [*split(frame, 3, 1), frame.iloc[:0]], BOOK, rows=by[:1], columns=by[1:])
    zero = [row for row in result.tables["cells"] if row["region"] == "overseas"]
    assert zero
    assert all(row["count"] == 0 for row in zero)
    counts = np.array([row["count"] for row in result.tables["cells"]]).reshape(4, *(2,) * (ways - 1))[:3]
    wanted = stats.chi2_contingency(counts, correction=False)
    assert result.facts["chi_square"] == pytest.approx(wanted.statistic, rel=1e-12)
    assert result.facts["chi_square_df"] == wanted.dof
    assert result.facts["chi_square_p_value"] == pytest.approx(wanted.pvalue, rel=1e-9)
    association = stats.contingency.association(counts, "cramer") if ways == 2 else None
    assert result.facts["cramers_v"] == (pytest.approx(association, rel=1e-9) if association else None)


def against_r(result: Result, wanted: dict[str, Any], key: str) -> None:
    order = [(region, sex) for region in REGIONS for sex in SEXES]
    rows: list[Any] = [found(result.tables["cells"], region=region, sex=sex) for region, sex in order]
    np.testing.assert_allclose([row["total"] for row in rows], wanted[key]["estimate"], rtol=1e-9)
    np.testing.assert_allclose([row["std_error"] for row in rows], wanted[key]["std_error"], rtol=1e-9)


CASES = [
    ("clustered", ROLES, False, {"design": True}),
    ("clustered", ROLES, True, {"design": True}),
    ("strata", ("weight", "stratum"), False, {"design": True}),
    ("weighted", (), False, {"weight": "w"}),
]


@pytest.mark.parametrize(("case", "roles", "spans", "options"), CASES)
def test_weighted_tables_with_margins_and_rao_scott_equal_r(
    case: str, roles: tuple[str, ...], spans: bool, options: dict[str, Any]
) -> None:
    frames = split(SAMPLE, 3, 4) if spans or case != "clustered" else nested(SAMPLE)
    wanted = REFERENCE["table"][case]
    book = codebook(*roles, spans=spans)
    result = federate("table", frames, book, rows=["region"], columns=["sex"], **options)
    against_r(result, wanted, "cells")
    for i, sex in enumerate(SEXES):
        margin = found(result.tables["margins"], region=None, sex=sex)
        assert margin["total"] == pytest.approx(wanted["rows"]["estimate"][i], rel=1e-9)
        assert margin["std_error"] == pytest.approx(wanted["rows"]["std_error"][i], rel=1e-9)
    facts = result.facts
    assert facts["f_statistic"] == pytest.approx(wanted["f"], rel=1e-8)
    assert (facts["f_df"], facts["f_residual_df"]) == pytest.approx(wanted["f_df"], rel=1e-8)
    assert facts["f_p_value"] == pytest.approx(wanted["f_p"], rel=1e-8)
    assert facts["chi_square_df"] == 2
    assert facts["chi_square_p_value"] == pytest.approx(wanted["chi_p"], rel=1e-8)
    against_r(
        federate("table", frames, book, rows=["region"], columns=["sex"], value="income", **options), wanted, "value"
    )


def test_replicate_weights_give_the_errors_that_count_gives() -> None:
    book = codebook("weight", replicates="brr", replicate_method="brr")
    frames = split(SAMPLE, 3, 4)
    table = federate("table", frames, book, rows=["region"], columns=["sex"], design=True)
    rows = federate("count", frames, book, by=["region", "sex"], design=True).tables["estimates"]
    for row in rows:
        cell = found(table.tables["cells"], region=row["region"], sex=row["sex"])
        assert (cell["total"], cell["std_error"]) == pytest.approx((row["total"], row["std_error"]), rel=1e-9)
    assert table.facts["f_p_value"] is not None


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 3))
def test_dominance_bounds_hold_and_are_within_what_squares_allow(seed: int, holders: int) -> None:
    frame = people(60, seed)
    frame["firm"] = np.random.default_rng(seed).choice([f"f{i}" for i in range(12)], 60)
    owner = frame["firm"].str[1:].astype(int) % holders
    pieces = [frame[owner == i].reset_index(drop=True) for i in range(holders)]
    for book in (FIRMS, BOOK):
        result = federate(
            "table", pieces, book, rows=["region"], columns=["sex"], value="turnover", nested_enterprises=True
        )
        firm = frame["firm"] if book is FIRMS else frame.index
        kept = frame.dropna(subset=["sex"])
        for row in (*result.tables["cells"], *result.tables["margins"]):
            inside = kept[
                [
                    (row["region"] in (None, a)) and (row["sex"] in (None, b))
                    for a, b in zip(kept["region"], kept["sex"], strict=True)
                ]
            ]
            largest = inside["turnover"].groupby(firm[inside.index]).sum().nlargest(2).to_numpy()
            one, two = float(row["dominance_bound_1"]), float(row["dominance_bound_2"])  # type: ignore[arg-type]
            assert largest[:1].sum() <= one * (1 + 1e-9)
            assert largest.sum() <= two * (1 + 1e-9)
            assert one <= max(largest[:1].sum() * 60 ** (1 / 2), 1e-9)


def test_dominance_needs_values_that_cannot_be_negative_and_a_true_largest_contributor() -> None:
    frame = people(50, 1).assign(net=1.0, firm="f1")
    row = federate("table", [frame], BOOK, rows=["region"], value="net").tables["cells"][0]
    assert not any(key.startswith("dominance_bound") for key in row)
    with pytest.raises(UsageError, match="larger public bound"):
        federate("table", [frame], FIRMS, rows=["region"], value="turnover", largest_contributor=20)


def test_nothing_and_only_missing_values_give_zero_cells_and_no_nan() -> None:
    empty = people(0, 1)
    void = people(20, 1).assign(sex=None)
    for frames in ([empty, empty], [void, empty]):
        for options in ({}, {"value": "turnover"}, {"weight": "w"}):
            result = federate("table", frames, BOOK, rows=["region"], columns=["sex"], **options)
            json.dumps(result.to_dict(), allow_nan=False)
            assert result.facts["observations"] == 0
            assert result.facts["chi_square"] is None
            assert all(row["total"] == 0 for row in result.tables["cells"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ["turnover"]}, "want category or boolean"),
        ({"rows": ["sex"], "columns": ["sex"]}, "more than once"),
        ({"rows": ["region", "sex", "works"], "columns": ["size", "sex"]}, "more than once"),
        ({"rows": ["sex"], "value": "region"}, "want number"),
        ({"rows": ["sex"], "design": True}, "without roles"),
        ({"rows": []}, "got 0 entries; want at least 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        federate("table", [people(5, 1)], BOOK, **options)


def test_the_holder_is_told_what_cells_leave_it() -> None:
    query = Terms(
        method="table",
        options={"rows": ["region"], "columns": ["sex"], "value": "turnover"},
        codebook=BOOK,
        holders=("a",),
        seed=1,
    )
    module, question = read_question(query)
    assert module.discloses(question, Ask("cells")) == Cells(("region", "sex"), ("turnover",), ("turnover",))


NESTED = codebook_of(
    {
        "activity": {
            "type": "category",
            "categories": ["A1", "A2", "B1", "B2", "B3"],
            "parents": {"A1": "A", "A2": "A", "B1": "B", "B2": "B", "B3": "B"},
        },
        "size": ["small", "large"],
        "turnover": ("number", 0, 1000),
        "w": {"type": "number", "low": 0.5, "high": 9, "role": "weight"},
        "firm": {"type": "id", "role": "enterprise"},
    }
)


def firms(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "activity": rng.choice(["A1", "A2", "B1", "B2", "B3"], n, p=[0.4, 0.1, 0.3, 0.15, 0.05]),
            "size": rng.choice(["small", "large"], n, p=[0.8, 0.2]),
            "turnover": rng.gamma(1, 60, n).clip(0, 1000),
            "w": rng.uniform(0.5, 9, n),
            "firm": [f"f{i}" for i in rng.integers(0, n // 3, n)],
        }
    )


@pytest.mark.parametrize("options", [{}, {"weight": "w"}, {"value": "turnover"}, {"value": "turnover", "weight": "w"}])
def test_subtotals_of_a_hierarchy_equal_a_table_of_its_sections(options: dict[str, Any]) -> None:
    frame = firms(300, 4)
    sections = codebook_of({n: c.model_dump() for n, c in NESTED.columns.items()} | {"activity": ["A", "B"]})
    pieces = [frame[frame["firm"].str[1:].astype(int) % 3 == i] for i in range(3)]  # a firm lies with one holder
    fine = federate("table", pieces, NESTED, rows=["activity"], columns=["size"], **options)
    coarse = federate(
        "table",
        [frame.assign(activity=frame["activity"].str[0])],
        sections,
        rows=["activity"],
        columns=["size"],
        **options,
    )
    wanted = {(r["activity"], r["size"]): r for r in (*coarse.tables["cells"], *coarse.tables["margins"])}
    shown = [row for row in fine.tables["margins"] if row["activity"] in ("A", "B")]
    assert len(shown) == 6
    for row in shown:
        other = wanted[row["activity"], row["size"]]
        assert row["count"] == other["count"]
        assert row["total"] == pytest.approx(other["total"], rel=1e-12)
        assert row["std_error"] == pytest.approx(other["std_error"], rel=1e-9)
        if "dominance_bound_1" in other:  # looser than the table of sections has it, never tighter
            assert row["dominance_bound_1"] >= other["dominance_bound_1"] * (1 - 1e-12)  # type: ignore[operator]


def test_a_hierarchical_release_protects_every_unsafe_cell_against_its_subtotals() -> None:
    from statfed.core.disclosure import Rules
    from statfed.core.randomness import stream
    from statfed.server.disclosure.release import release

    result = federate("table", [firms(260, 9)], NESTED, rows=["activity"], columns=["size"])
    rules = Rules(minimum_frequency=12, dominance_k=None, p_percent=None)
    released = release(result, NESTED, rules, source=stream(1, "hierarchy"))
    rows = [*released.tables["cells"], *released.tables["margins"]]
    before = [*result.tables["cells"], *result.tables["margins"]]
    unsafe = [i for i, row in enumerate(before) if 0 < int(row["count"] or 0) < 12]
    assert unsafe
    assert all(rows[i]["count"] is None for i in unsafe)
    assert sum(row["status"] == "suppressed" for row in rows) > len(unsafe)
    for section in ("A", "B"):  # a suppressed cell is never alone under a subtotal that is shown
        for size in ("small", "large"):
            below = [r for r in rows if str(r["activity"])[0] == section and r["size"] == size]
            assert sum(r["count"] is None for r in below) != 1
