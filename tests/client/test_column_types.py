"""Dates, texts and arrays: the same values whatever they are stored in, every mismatch found, no value told."""

import json
import sqlite3
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest

from statfed.client.data.conversion import as_days
from statfed.client.data.tables import connect, inspect, local_mismatches, mismatches, open_table
from statfed.client.guard import differencing
from statfed.core.codebook import Codebook, Column, day_of, iso_of, load_codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.terms import Condition, Terms, parse_condition

DAY = (date(2024, 3, 20) - date(1970, 1, 1)).days
FORMS = ("csv", "parquet", "arrow", "duckdb", "sqlite")
TYPED = ("parquet", "arrow", "duckdb")


def book(**columns: Any) -> Codebook:
    return make_codebook({"columns": columns})


def stored(form: str, table: pa.Table, home: Path) -> str:
    """The same records in one form: its source."""
    if form == "csv":
        texts = pa.table([_texts(column) for column in table.columns], names=table.column_names)
        if texts.num_columns == 1:  # a value that is missing would be a blank line, which is refused
            texts = texts.append_column("line", pa.array(["x"] * len(texts)))
        pyarrow.csv.write_csv(texts, home / "a.csv")
    elif form == "parquet":
        pyarrow.parquet.write_table(table, home / "a.parquet")
    elif form == "arrow":
        pyarrow.feather.write_feather(table, home / "a.arrow")
    elif form == "duckdb":
        with duckdb.connect(home / "a.db") as connection:
            connection.register("given", table)
            connection.execute("create or replace table t as select * from given")
    else:
        with sqlite3.connect(home / "a.sqlite") as lite:
            lite.execute("drop table if exists t")
            lite.execute(f"create table t ({', '.join(table.column_names)})")
            marks = ", ".join("?" for _ in table.column_names)
            columns = [_texts(column).to_pylist() for column in table.columns]
            lite.executemany(f"insert into t values ({marks})", zip(*columns, strict=True))  # noqa: S608
        lite.close()
    return {"duckdb": "duckdb:///a.db?table=t", "sqlite": "sqlite:///a.sqlite?table=t"}.get(form, f"a.{form}")


def _texts(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if value is None else str(value) for value in column.to_pylist()], pa.string())


def values(form: str, table: pa.Table, codebook: Codebook, home: Path) -> list[Any]:
    """The first column under the codebook, which it fits."""
    with connect(stored(form, table, home), home) as source:
        assert mismatches(source, codebook) == []
        return open_table(source, codebook).expr.to_pyarrow().column(0).to_pylist()  # type: ignore[no-any-return]


def broken(form: str, table: pa.Table, codebook: Codebook, home: Path) -> list[tuple[str, int | None]]:
    """Every mismatch with its number of records."""
    with connect(stored(form, table, home), home) as source:
        found = local_mismatches(source, codebook)
        assert mismatches(source, codebook) == [one.message for one in found]
    return [(one.message, one.count) for one in found]


@pytest.mark.parametrize("form", FORMS)
def test_a_date_is_its_day_number_in_every_form(form: str, tmp_path: Path) -> None:
    table = pa.table({"d": pa.array([date(2024, 3, 20), None, date(1969, 12, 31), date(9999, 12, 31)])})
    codebook = book(d={"type": "date", "low": "1900-01-01", "high": "2100-12-31", "missing": ["9999-12-31"]})
    assert values(form, table, codebook, tmp_path) == [DAY, None, -1, None]
    with connect(stored(form, table, tmp_path), tmp_path) as source:
        assert open_table(source, codebook).expr.schema()["d"] == ibis.dtype("int64")
        assert inspect(source, codebook).plain == frozenset()


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_a_timestamp_at_midnight_is_a_date_and_another_a_mismatch(form: str, unit: str, tmp_path: Path) -> None:
    midnight, later = datetime(2024, 3, 20), datetime(2024, 3, 20, 0, 0, 1)
    codebook = book(d={"type": "date", "missing": ["1900-01-01"]})
    table = pa.table({"d": pa.array([midnight, datetime(1900, 1, 1), None], pa.timestamp(unit))})
    assert values(form, table, codebook, tmp_path) == [DAY, None, None]
    found = broken(form, pa.table({"d": pa.array([midnight, later], pa.timestamp(unit))}), codebook, tmp_path)
    assert [(message[:41], count) for message, count in found] == [("d: got values that are not calendar days;", 1)]


def test_a_timestamp_with_a_time_zone_is_no_date(tmp_path: Path) -> None:
    table = pa.table({"d": pa.array([datetime(2024, 3, 20, tzinfo=timezone.utc)], pa.timestamp("us", "UTC"))})  # noqa: UP017
    [(message, count)] = broken("parquet", table, book(d={"type": "date"}), tmp_path)
    assert "without a time zone" in message
    assert count == 1


@pytest.mark.parametrize("form", ["csv", "sqlite", "parquet"])
@pytest.mark.parametrize(
    "text", ["20240230", "2024-3-20", "2023-02-29", "20.03.2024", "2024-03-20 00:00:00", "0000-01-01", "12024-01-01"]
)
def test_only_iso_text_of_a_real_day_is_a_date(form: str, text: str, tmp_path: Path) -> None:
    table = pa.table({"d": [" 2024-02-29 ", text]})
    assert broken(form, table, book(d={"type": "date"}), tmp_path) == [
        (
            "d: got values that are not calendar days; want dates, timestamps at midnight without a time zone, text "
            "such as 2024-03-20 or 20240320, or missing codes in the codebook",
            1,
        )
    ]


@pytest.mark.parametrize("form", TYPED)
def test_a_number_is_a_date_where_its_eight_digits_are_one(form: str, tmp_path: Path) -> None:
    whole = pa.table({"d": [20240320, 99991231, None]})
    codebook = book(d={"type": "date", "missing": ["9999-12-31"]})
    assert values(form, whole, codebook, tmp_path) == [DAY, None, None]
    [(message, count)] = broken(form, pa.table({"d": [20240332, 19802, 20240320]}), codebook, tmp_path)
    assert "not calendar days" in message
    assert "20240332" not in message
    assert count == 2


@pytest.mark.parametrize("form", FORMS)
def test_dates_outside_their_bounds_are_mismatches_told_in_iso_form(form: str, tmp_path: Path) -> None:
    table = pa.table({"d": pa.array([date(1999, 12, 31), date(2001, 1, 1), date(2001, 1, 2), None])})
    codebook = book(d={"type": "date", "low": "2000-01-01", "high": "2001-01-01", "required": True})
    assert broken(form, table, codebook, tmp_path) == [
        ("d: got values below the codebook's bound; want at least 2000-01-01", 1),
        ("d: got values above the codebook's bound; want at most 2001-01-01", 1),
        ("d: got missing values; want a value in every record", 1),
    ]


def test_infinite_dates_and_dates_before_christ_are_mismatches(tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "a.db") as connection:
        connection.execute(
            "create table t as select unnest(['infinity'::date, '0044-03-15 (BC)'::date, '0001-01-01'::date]) d"
        )
    with connect("duckdb:///a.db?table=t", tmp_path) as source:
        assert [one.count for one in local_mismatches(source, book(d={"type": "date"}))] == [2]


@pytest.mark.parametrize("engine", ["duckdb", "another"])  # a safe cast, or a pattern that spares a cast its errors
def test_text_is_the_day_that_python_reads_or_none(engine: str) -> None:
    years = (0, 1, 4, 100, 400, 1000, 1900, 1970, 2000, 2023, 2024, 2100, 9996, 9999)
    texts = [f"{y:04d}-{m:02d}-{d:02d}" for y in years for m in range(14) for d in range(33)]
    connection = ibis.duckdb.connect()
    connection.con.register("texts", pa.table({"text": texts}))
    table = connection.table("texts")
    found = table.select(text=table.text, day=as_days(table.text, engine)).to_pyarrow().to_pydict()
    assert len(found["text"]) == len(texts)
    for text, day in zip(found["text"], found["day"], strict=True):
        assert day == _day(text), text


def _day(text: str) -> int | None:
    try:
        days = (date.fromisoformat(text) - date(1970, 1, 1)).days
    except ValueError:
        with pytest.raises(ValueError, match="want a date such as"):
            day_of(text)
        return None
    assert (day_of(text), iso_of(days)) == (days, text)
    return days


@pytest.mark.parametrize(
    ("condition", "keep"),
    [
        ("d >= 2021-01-01", lambda d: d >= date(2021, 1, 1)),
        ("d > 2021-01-01", lambda d: d > date(2021, 1, 1)),
        ("d < '2021-01-01'", lambda d: d < date(2021, 1, 1)),
        ("d <= 2021-01-01", lambda d: d <= date(2021, 1, 1)),
        ("d = 2021-01-01", lambda d: d == date(2021, 1, 1)),
        ("d != 2021-01-01", lambda d: d != date(2021, 1, 1)),
    ],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_conditions_on_dates_keep_what_python_keeps_and_no_missing(
    form: str, condition: str, keep: Any, tmp_path: Path
) -> None:
    days = [date(2021, 1, 1) + timedelta(days=i) for i in range(-3, 4)]
    codebook = book(d={"type": "date"})
    with connect(stored(form, pa.table({"d": pa.array([*days, None])}), tmp_path), tmp_path) as source:
        table = open_table(source, codebook, [parse_condition(condition, codebook)])
        assert sorted(table.expr.to_pyarrow().column("d").to_pylist()) == [day_of(d) for d in days if keep(d)]


def test_a_condition_on_a_date_travels_and_is_read_by_people_in_iso_form() -> None:
    codebook = book(d={"type": "date", "low": "2000-01-01"})
    condition = parse_condition("d>=2021-01-01", codebook)
    assert str(condition) == "d >= 2021-01-01"
    terms = Terms(method="describe", codebook=codebook, where=(condition,), holders=("a",), seed=1)
    assert Terms.model_validate_json(terms.model_dump_json()) == terms


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("d >= 20210101", "want a comparison with a date such as 2021-01-01"),
        ("d >= 2021-13-01", "got 'd >= 2021-13-01'; want a comparison with a date"),
        ("d in 2021-01-01,2021-01-02", "want a comparison with a date"),
        ("t = something", "t: got type text; want a column that does not single out records"),
        ("a >= 1", "a: got type array; want a column with one value in a record"),
    ],
)
def test_conditions_that_have_no_meaning_are_refused(condition: str, message: str) -> None:
    codebook = book(d={"type": "date"}, t={"type": "text", "length": 9}, a={"type": "array", "length": 3})
    with pytest.raises(UsageError, match=message):
        parse_condition(condition, codebook)


def test_a_number_in_a_condition_on_a_date_is_refused_where_terms_are_read() -> None:
    codebook = book(d={"type": "date"})
    with pytest.raises(ValueError, match="a date such as 2021-01-01"):
        Terms(
            method="describe",
            codebook=codebook,
            where=(Condition(column="d", op=">", value=18000.0),),
            holders=("a",),
            seed=1,
        )


@pytest.mark.parametrize("form", FORMS)
def test_text_is_what_was_written_without_blanks_at_its_ends(form: str, tmp_path: Path) -> None:
    table = pa.table({"t": ["  héllo wörld ", None, "   ", "x" * 11, 'say "no"']})
    found = values(form, table, book(t={"type": "text", "length": 11}), tmp_path)
    assert found == ["héllo wörld", None, None, "x" * 11, 'say "no"']


@pytest.mark.parametrize("form", FORMS)
def test_text_that_is_too_long_is_a_mismatch_and_never_told(form: str, tmp_path: Path) -> None:
    secret = "Anna earns too little, and says so at length"
    table = pa.table({"t": [secret, "short"]})
    codebook = book(t={"type": "text", "length": 11})
    assert broken(form, table, codebook, tmp_path) == [("t: got text that is too long; want at most 11 characters", 1)]
    with connect(stored(form, table, tmp_path), tmp_path) as source:
        assert local_mismatches(source, codebook)[0].examples == (secret,)


def test_long_examples_are_cut(tmp_path: Path) -> None:
    with connect(stored("parquet", pa.table({"t": ["y" * 1000]}), tmp_path), tmp_path) as source:
        assert local_mismatches(source, book(t={"type": "text", "length": 5}))[0].examples == ("y" * 57 + "...",)


def test_lists_and_bytes_are_no_text(tmp_path: Path) -> None:
    table = pa.table({"t": [[1.0]], "u": [b"x"]})
    codebook = book(t={"type": "text", "length": 50}, u={"type": "text", "length": 50})
    assert [message[:27] for message, _ in broken("parquet", table, codebook, tmp_path)] == [
        "t: got values that are not ",
        "u: got values that are not ",
    ]


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize(
    ("kind", "want"),
    [
        (pa.list_(pa.float32()), "float32"),
        (pa.list_(pa.float64()), "float64"),
        (pa.large_list(pa.float64()), "float64"),
        (pa.list_(pa.float32(), 3), "float32"),
        (pa.list_(pa.int16()), "float64"),
    ],
)
def test_an_array_is_a_list_of_floats_as_stored(form: str, kind: Any, want: str, tmp_path: Path) -> None:
    rows = [[1, 2, 3], None, [-4, 5, 6]]
    codebook = book(a={"type": "array", "length": 3, "low": -4, "high": 6})
    table = pa.table({"a": pa.array(rows, kind)})
    assert values(form, table, codebook, tmp_path) == rows
    with connect(stored(form, table, tmp_path), tmp_path) as source:
        assert open_table(source, codebook).expr.schema()["a"].value_type == ibis.dtype(want)


def test_lists_of_floats_need_no_conversion_and_whole_numbers_do(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([[1.0, 2.0]], pa.list_(pa.float32())), "b": [[1, 2]]})
    codebook = book(a={"type": "array", "length": 2}, b={"type": "array", "length": 2})
    with connect(stored("parquet", table, tmp_path), tmp_path) as source:
        plain = inspect(source, codebook).plain
        assert plain == {"a"}
        found = open_table(source, codebook, plain=plain).expr.to_pyarrow().to_pylist()
    assert found == [{"a": [1.0, 2.0], "b": [1.0, 2.0]}]


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([1.0], "a: got arrays of another length; want 2 entries in each"),
        ([], "a: got arrays of another length; want 2 entries in each"),
        ([1.0, None], "a: got arrays with missing entries; want a number in each"),
        ([1.0, float("nan")], "a: got entries that are not finite; want finite numbers"),
        ([-7731.0, 1.0], "a: got entries below the codebook's bound; want at least -5"),
        ([1.0, 7731.0], "a: got entries above the codebook's bound; want at most 5"),
        (None, "a: got missing values; want a value in every record"),
    ],
)
def test_each_way_in_which_an_array_can_be_wrong_is_one_mismatch(
    form: str, row: Any, message: str, tmp_path: Path
) -> None:
    codebook = book(a={"type": "array", "length": 2, "low": -5, "high": 5, "required": True})
    table = pa.table({"a": pa.array([[1.0, 2.0], row], pa.list_(pa.float64()))})
    assert broken(form, table, codebook, tmp_path) == [(message, 1)]


@pytest.mark.parametrize("infinite", [float("inf"), float("-inf")])
def test_infinite_entries_are_a_mismatch_without_bounds_too(infinite: float, tmp_path: Path) -> None:
    table = pa.table({"a": [[1.0, infinite]]})
    [(message, count)] = broken("parquet", table, book(a={"type": "array", "length": 2}), tmp_path)
    assert (message, count) == ("a: got entries that are not finite; want finite numbers", 1)


@pytest.mark.parametrize("form", ["csv", "sqlite"])
def test_arrays_in_text_are_refused_with_what_holds_them(form: str, tmp_path: Path) -> None:
    table = pa.table({"a": [[1.0, 2.0], None]})
    found = broken(form, table, book(a={"type": "array", "length": 2}), tmp_path)
    assert found == [("a: got values that are not lists of numbers; arrays want Parquet, Arrow or DuckDB", 1)]


@pytest.mark.parametrize(
    "column", [pa.array([["x"]]), pa.array([[[1.0]]]), pa.array([[True]]), pa.array([1.0]), pa.array([{"x": 1.0}])]
)
def test_lists_of_something_else_are_no_arrays(column: Any, tmp_path: Path) -> None:
    found = broken("parquet", pa.table({"a": column}), book(a={"type": "array", "length": 1}), tmp_path)
    assert found == [("a: got values that are not lists of numbers; arrays want Parquet, Arrow or DuckDB", 1)]


@pytest.mark.parametrize("form", FORMS)
def test_columns_without_a_value_fit_every_type(form: str, tmp_path: Path) -> None:
    codebook = book(d={"type": "date"}, t={"type": "text", "length": 3}, a={"type": "array", "length": 3})
    table = pa.table({name: pa.array([None, None], pa.string()) for name in codebook.columns})
    with connect(stored(form, table, tmp_path), tmp_path) as source:
        assert mismatches(source, codebook) == []
        found = open_table(source, codebook).expr.to_pyarrow()
    assert found.to_pylist() == [dict.fromkeys(codebook.columns)] * 2
    assert (str(found.schema.field("d").type), found.schema.field("a").type.value_type) == ("int64", pa.float64())


def test_records_of_a_unit_are_chosen_alike_whatever_their_form(tmp_path: Path) -> None:
    codebook = book(
        p={"type": "id", "role": "unit"},
        d={"type": "date"},
        t={"type": "text", "length": 9},
        a={"type": "array", "length": 2},
    )
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(40)]
    table = pa.table(
        {
            "p": [f"p{i % 10}" for i in range(40)],
            "d": days,
            "t": [f"t {i}" for i in range(40)],
            "a": pa.array([[i / 3, -i] if i % 7 else None for i in range(40)], pa.list_(pa.float64())),
        }
    )
    chosen = []
    for form in TYPED:
        with connect(stored(form, table, tmp_path), tmp_path) as source:
            found = open_table(source, codebook, per_unit=2).expr.to_pyarrow().to_pylist()
        chosen.append(sorted(found, key=repr))
        assert len(found) == 20
    assert chosen[0] == chosen[1] == chosen[2]


def test_bounds_levels_and_scale_say_what_the_type_has() -> None:
    columns = book(
        d={"type": "date", "low": "1970-01-01", "high": date(1970, 1, 11)},
        t={"type": "text", "length": 5},
        a={"type": "array", "length": 5, "low": -50, "high": 50},
        b={"type": "array", "length": 5, "scale": 9.81},
        n={"type": "number", "low": -1e308, "high": 1e308},
        i={"type": "integer", "low": 3, "high": 3},
        k={"type": "number", "low": 0, "high": 8, "scale": 2},
        x={"type": "boolean"},
    ).columns
    assert {name: (c.bounds, c.scale) for name, c in columns.items()} == {
        "d": ((0.0, 10.0), 5.0),
        "t": (None, None),
        "a": ((-50.0, 50.0), 50.0),
        "b": (None, 9.81),
        "n": ((-1e308, 1e308), 1e308),
        "i": ((3.0, 3.0), 1.0),
        "k": ((0.0, 8.0), 2.0),
        "x": ((0.0, 1.0), None),
    }
    assert not any(columns[name].numeric or columns[name].levels for name in "dtab")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"type": "text"}, "length: got none for type text; want the most characters"),
        ({"type": "array"}, "length: got none for type array; want the number of entries"),
        ({"type": "array", "length": 0}, "length: got 0; want greater than or equal to 1"),
        ({"type": "number", "length": 3}, "length: got 3 for type number; want it for text or array only"),
        ({"type": "text", "length": 3, "low": 0}, "low, high: got bounds for type text; want them for number"),
        ({"type": "text", "length": 3, "role": "unit"}, "role: got unit for type text; want a column of another type"),
        ({"type": "array", "length": 3, "missing": [-9]}, "missing: got codes for type array; want null"),
        ({"type": "array", "length": 3, "scale": 0}, "scale: got 0; want greater than 0"),
        ({"type": "date", "scale": 30}, "scale: got one for type date; want it for number, integer or array only"),
        ({"type": "date", "low": 2020}, "low: got 2020; want a date such as 2021-01-01"),
        ({"type": "date", "low": "20200101"}, "low: got '20200101'; want a date such as 2021-01-01"),
        ({"type": "date", "low": datetime(2020, 1, 1)}, "low: got datetime.datetime"),
        ({"type": "date", "low": "2021-01-02", "high": "2021-01-01"}, "got 2021-01-02 to 2021-01-01; want low at most"),
        ({"type": "date", "categories": ["2021-01-01"]}, "categories: got some for type date"),
        ({"type": "date", "role": "weight"}, "got role weight for type date; want number"),
    ],
)
def test_a_codebook_that_makes_no_sense_is_refused_in_words(column: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        book(x=column)
    assert message in str(caught.value)


def test_columns_of_the_new_types_are_refused_where_numbers_or_levels_are_wanted() -> None:
    codebook = book(d={"type": "date"}, t={"type": "text", "length": 5}, a={"type": "array", "length": 5})
    for name, column in codebook.columns.items():
        with pytest.raises(UsageError, match=f"got type {column.type}; want number, integer or boolean"):
            codebook.number(name)
        with pytest.raises(UsageError, match=f"got type {column.type}; want category or boolean"):
            codebook.category(name)


def test_dates_in_a_codebook_are_iso_in_the_file_and_on_the_wire_and_days_in_the_object(tmp_path: Path) -> None:
    path = tmp_path / "x.codebook.toml"
    path.write_text(
        '[columns.d]\ntype = "date"\nlow = 2020-01-01\nhigh = "2021-01-01"\nmissing = [1900-01-01, "9999-12-31", 0]\n'
    )
    codebook = load_codebook(path)
    column = codebook.columns["d"]
    assert (column.low, column.high) == (18262.0, 18628.0)
    assert column.missing == ("1900-01-01", "9999-12-31", 0.0)
    sent = codebook.model_dump_json()
    assert (json.loads(sent)["columns"]["d"]["low"], column.model_dump()["high"]) == ("2020-01-01", "2021-01-01")
    assert Codebook.model_validate_json(sent) == codebook


@pytest.mark.parametrize(
    "column",
    [
        {"type": "text", "length": 5},
        {"type": "array", "length": 5, "scale": 2.0},
        {"type": "number", "scale": 2.0, "low": 0.0},
        {"type": "date", "high": "2020-01-01"},
    ],
)
def test_a_dumped_column_has_the_file_s_keys_and_reads_back_equal(column: dict[str, Any]) -> None:
    made = Column.model_validate(column)
    assert made.model_dump(exclude_defaults=True) == column
    assert Column.model_validate(made.model_dump()) == made


def test_the_differencing_guard_finds_columns_of_every_type_in_its_past_again() -> None:
    codebook = book(d={"type": "date"}, t={"type": "text", "length": 9}, a={"type": "array", "length": 3})
    readings = tuple((name, differencing._reading(column)) for name, column in codebook.columns.items())
    past = differencing.Population((), tuple(codebook.columns), (), readings)
    assert differencing.joint_codebook(book(x={"type": "number"}), [past]).columns.keys() == {"x", "d", "t", "a"}
    assert differencing.joint_codebook(codebook, [past]) == codebook


def test_the_example_of_the_documentation_is_a_codebook(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "codebook.md").read_text(encoding="utf-8")
    (tmp_path / "x.toml").write_text(text.split("```toml\n")[1].split("```")[0], encoding="utf-8")
    columns = load_codebook(tmp_path / "x.toml").columns
    assert {column.type for column in columns.values()} >= {"date", "text", "array", "number", "id"}
