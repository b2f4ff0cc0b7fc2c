"""Drafts of dates, texts and arrays: they admit the data they come from, do not tell extremes, and unite."""

import itertools
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statfed.client.data.drafting import day_bounds, draft, to_toml
from statfed.client.data.tables import connect, mismatches
from statfed.client.data.uniting import union
from statfed.core.codebook import Codebook, day_of, load_codebook, make_codebook
from statfed.core.errors import UsageError

PROSE = [f"the {i}th answer" for i in range(30)]


def drafted(values: Any, home: Path, form: str = "parquet", name: str = "x") -> dict[str, Any]:
    """What of the one column's entry is not a default. The data fit it, and TOML reads it back."""
    if form == "csv":
        pyarrow.csv.write_csv(pa.table({name: values}), home / "d.csv")
    else:
        pyarrow.parquet.write_table(pa.table({name: values}), home / "d.parquet")
    with connect(f"d.{form}", home) as source:
        found = draft(source)
        assert mismatches(source, found) == []
    (home / "d.codebook.toml").write_text(to_toml(found), encoding="utf-8")
    assert load_codebook(home / "d.codebook.toml") == found
    return found.columns[name].model_dump(exclude_defaults=True)


def book(*columns: dict[str, Any]) -> list[Codebook]:
    return [make_codebook({"columns": {"x": column}}) for column in columns]


@pytest.mark.parametrize(
    ("values", "form", "column"),
    [
        ([date(2020, 2, 10), date(2020, 3, 5), None], "parquet", ("date", "2020-02-01", "2020-03-31")),
        ([datetime(2020, 2, 10), datetime(2020, 3, 5)], "parquet", ("date", "2020-02-01", "2020-03-31")),
        (["2020-02-10", "2020-03-05"], "csv", ("date", "2020-02-01", "2020-03-31")),
        ([date(1930, 6, 1), date(2010, 6, 1)], "parquet", ("date", "1922-01-01", "2018-12-31")),
        ([date(2024, 5, 1)], "parquet", ("date", "2024-04-01", "2024-05-31")),
        (["2020-02-10", "20200305"], "csv", ("date", "2020-02-01", "2020-03-31")),
        (["20200210", "20200305"], "csv", ("date", "2020-02-01", "2020-03-31")),
        ([20200210, 20200305, None], "parquet", ("date", "2020-02-01", "2020-03-31")),
        ([date.min, date.max], "parquet", ("date", "0001-01-01", "9999-12-31")),
    ],
)
def test_dates_have_bounds_of_whole_months_or_years(values: Any, form: str, column: Any, tmp_path: Path) -> None:
    assert drafted(values, tmp_path, form) == dict(zip(("type", "low", "high"), column, strict=True))


def test_words_in_a_column_of_dates_become_missing_codes(tmp_path: Path) -> None:
    found = drafted(["2020-02-10", "NA", "-"], tmp_path, "csv")
    assert (found["type"], found["missing"]) == ("date", ("-", "NA"))


@pytest.mark.parametrize(
    ("values", "form", "kind"),
    [
        (["2020-02-10", "2020-02-30"], "csv", "category"),
        ([20200210, 20200230], "parquet", "integer"),
        ([10200210, 10200211], "parquet", "integer"),
        ([datetime(2020, 2, 10), datetime(2020, 2, 10, 1)], "parquet", "category"),
        ([[1.0, 2.0], [1.0]], "parquet", "category"),
        ([[1.0, None]], "parquet", "category"),
        ([[1.0, float("nan")]], "parquet", "category"),
        ([[1.0, float("-inf")]], "parquet", "category"),
        ([[]], "parquet", "category"),
        ([["a"]], "parquet", "category"),
        ([f"name {i}" for i in range(30)], "csv", "id"),
        ([f"{i:064x}" for i in range(30)], "csv", "id"),
        (PROSE[:20], "csv", "category"),
        (PROSE * 5, "csv", "category"),
        ([*PROSE, *map(str, range(40))], "csv", "id"),
    ],
)
def test_what_is_no_date_array_or_prose_is_drafted_as_ever(values: Any, form: str, kind: str, tmp_path: Path) -> None:
    values = pa.array(values, pa.list_(pa.float64())) if values == [[]] else values
    assert drafted(values, tmp_path, form)["type"] == kind


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float64(), 2), pa.list_(pa.int8())])
def test_lists_of_one_length_are_arrays_with_bounds(kind: Any, tmp_path: Path) -> None:
    values = pa.array([[-41, 2], None, [3, 57]], kind)
    assert drafted(values, tmp_path) == {"type": "array", "length": 2, "low": -51.0, "high": 67.0}


def test_prose_is_text_with_headroom(tmp_path: Path) -> None:
    assert drafted([*PROSE, "as long as this one is", None], tmp_path) == {"type": "text", "length": 25}
    assert drafted([f"https://example.org/a/rather/long/path/{i}" for i in range(30)], tmp_path)["type"] == "text"


def test_columns_named_id_are_ids_whatever_they_hold(tmp_path: Path) -> None:
    for values in ([date(2020, 1, 1)], PROSE, [[1.0]]):
        assert drafted(values, tmp_path, name="case_id")["type"] == "id"


_DAYS = st.dates() | st.dates(date(2020, 1, 1), date(2020, 3, 1))
_COLUMNS = st.one_of(
    st.lists(_DAYS | st.none(), max_size=6).map(lambda rows: pa.array(rows, pa.date32())),
    st.lists(st.datetimes() | _DAYS.map(lambda day: datetime(day.year, day.month, day.day)), max_size=4).map(
        lambda rows: pa.array(rows, pa.timestamp("us"))
    ),
    st.lists(_DAYS.map(str) | st.sampled_from(["NA", "", "2020-02-30"]), max_size=6).map(pa.array),
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60), min_size=22, max_size=40, unique=True
    )
    .map(lambda rows: [f"in fact, {row}" for row in rows])
    .map(pa.array),
    st.integers(0, 3)
    .flatmap(
        lambda n: st.lists(st.none() | st.lists(st.floats(width=32) | st.none(), min_size=n, max_size=n), max_size=4)
    )
    .map(lambda rows: pa.array(rows, pa.list_(pa.float32()))),
    st.lists(st.none() | st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=2), max_size=4).map(
        lambda rows: pa.array(rows, pa.list_(pa.float64()))
    ),
    st.lists(st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, max_size=3), max_size=4).map(
        lambda rows: pa.array(rows, pa.list_(pa.int64()))
    ),
)


@settings(max_examples=120, deadline=None)
@given(values=_COLUMNS)
@example(values=pa.array([[1.5, 1e-45], [3.4e38, -3.4e38]], pa.list_(pa.float32())))
def test_a_draft_admits_the_data_that_it_comes_from(values: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    drafted(values, tmp_path_factory.getbasetemp())


@settings(max_examples=200, deadline=None)
@given(st.dates(), st.dates())
def test_bounds_of_dates_hold_the_range_and_leave_a_day_on_both_sides(one: date, other: date) -> None:
    first, last = sorted((day_of(one), day_of(other)))
    low, high = map(day_of, day_bounds(first, last))
    assert low < first or low == day_of(date.min)
    assert high > last or high == day_of(date.max)
    assert low <= first <= last <= high


@pytest.mark.parametrize(
    ("columns", "united"),
    [
        (
            [
                {"type": "date", "low": "2020-01-01", "high": "2020-12-31"},
                {"type": "date", "low": "1999-01-01", "high": "2001-12-31"},
            ],
            {"type": "date", "low": "1999-01-01", "high": "2020-12-31"},
        ),
        ([{"type": "date", "low": "2020-01-01"}, {"type": "number"}], {"type": "date", "low": "2020-01-01"}),
        ([{"type": "text", "length": 20}, {"type": "text", "length": 99}], {"type": "text", "length": 99}),
        (
            [{"type": "text", "length": 20}, {"type": "category", "categories": ["x" * 101]}],
            {"type": "text", "length": 120},
        ),
        ([{"type": "text", "length": 20}, {"type": "id"}], {"type": "id"}),
        (
            [{"type": "array", "length": 3, "low": 0, "high": 1}, {"type": "array", "length": 3, "low": -9, "high": 0}],
            {"type": "array", "length": 3, "low": -9, "high": 1},
        ),
        ([{"type": "array", "length": 3, "scale": 2}] * 2, {"type": "array", "length": 3, "scale": 2}),
        ([{"type": "array", "length": 3, "scale": 2}, {"type": "array", "length": 3}], {"type": "array", "length": 3}),
        ([{"type": "array", "length": 3}, {"type": "number"}], {"type": "array", "length": 3}),
    ],
)
def test_drafts_unite_whatever_their_order(columns: list[dict[str, Any]], united: dict[str, Any]) -> None:
    for order in itertools.permutations(book(*columns)):
        assert union(order) == book(united)[0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            [{"type": "array", "length": 3}, {"type": "array", "length": 4}],
            "x: got arrays of 3, 4 entries at different holders; want one length",
        ),
        ([{"type": "date"}, {"type": "category", "categories": ["a"]}], "x: got types category, date at different"),
        ([{"type": "array", "length": 3}, {"type": "id"}], "x: got types array, id at different holders"),
    ],
)
def test_what_cannot_be_united_is_told(columns: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        union(book(*columns))


def test_united_drafts_of_prose_and_dates_admit_all_their_data(tmp_path: Path) -> None:
    days = [date(2020, 1, 1) + timedelta(days=50 * i) for i in range(60)]
    texts = [*PROSE, *(f"and another {'very ' * i}long answer" for i in range(30))]
    for i in range(3):
        part = slice(20 * i, 20 * i + (25 if i < 2 else 20))
        pyarrow.parquet.write_table(pa.table({"d": days[part], "t": texts[part]}), tmp_path / f"{i}.parquet")
    drafts = []
    for i in range(3):
        with connect(f"{i}.parquet", tmp_path) as source:
            drafts.append(draft(source))
    united = union(drafts)
    assert [column.type for column in united.columns.values()] == ["date", "text"]
    for i in range(3):
        with connect(f"{i}.parquet", tmp_path) as source:
            assert mismatches(source, united) == []
