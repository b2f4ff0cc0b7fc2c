"""One value, one meaning: the same records, in whatever form and type, give the same figures or refusals.

A value is written as a person would (`-9.00`), and stored as text in CSV, TSV, SQLite and typed files, and in every
type of Parquet, Arrow, DuckDB and pandas that can hold it.
"""

import math
import sqlite3
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from statfed.client.data.drafting import draft
from statfed.client.data.tables import connect, local_mismatches, mismatches, open_table
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.federation.frames import as_arrow
from tests.covering import each_value


def book(**column: Any) -> Codebook:
    return make_codebook({"columns": {"x": column}})


Kind = tuple[str, Callable[[str], Any], Any]
TEXT: Kind = ("text", str, pa.string())
FLOAT: Kind = ("float", float, pa.float64())
NUMBERS: tuple[Kind, ...] = (
    TEXT,
    FLOAT,
    ("decimal", Decimal, pa.decimal128(38, 10)),
    ("narrow decimal", Decimal, pa.decimal128(15, 4)),
    ("integer", lambda text: int(Decimal(text)), pa.int64()),
    ("short integer", lambda text: int(Decimal(text)), pa.int16()),
    ("unsigned", lambda text: int(Decimal(text)), pa.uint64()),
    ("boolean", lambda text: bool(Decimal(text)), pa.bool_()),
)


def arrays(texts: list[str | None], kinds: tuple[Kind, ...] = NUMBERS) -> Iterator[tuple[str, Any]]:
    """The values in every type that holds them all exactly."""
    for name, read, kind in kinds:
        try:
            values = [None if text is None else read(text) for text in texts]
            array = pa.array(values, kind)
        except (pa.ArrowException, ValueError, ArithmeticError, OverflowError):
            continue
        exact = name in ("text", "float") or all(
            text is None or Decimal(text) == Decimal(str(int(value) if isinstance(value, bool) else value))
            for text, value in zip(texts, array.to_pylist(), strict=True)
        )
        if exact:
            yield name, array


def stored(columns: dict[str, Any], texts: list[str | None], home: Path) -> Iterator[tuple[str, str]]:
    """Names of forms, and sources relative to `home`: each with all of the columns, if it has types, or with text."""
    table = pa.table(columns)
    pyarrow.parquet.write_table(table, home / "a.parquet")
    yield "parquet", "a.parquet"
    pyarrow.feather.write_feather(table, str(home / "a.arrow"))
    yield "arrow", "a.arrow"
    (home / "a.duckdb").unlink(missing_ok=True)
    with duckdb.connect(str(home / "a.duckdb")) as connection:
        connection.register("given", table)
        connection.execute("create or replace table t as select * from given")
    yield "duckdb", "duckdb:///a.duckdb?table=t"
    pyarrow.parquet.write_table(as_arrow("a", table.to_pandas()), home / "frame.parquet")
    yield "pandas", "frame.parquet"
    (home / "a.sqlite").unlink(missing_ok=True)
    with sqlite3.connect(home / "a.sqlite") as lite:
        lite.execute(f"create table t ({', '.join(columns)})")
        kept = (pa.float64(), pa.int64(), pa.int16(), pa.bool_())  # of which SQLite has a type of its own
        own = [column.to_pylist() if column.type in kept else texts for column in columns.values()]
        marks = ", ".join("?" for _ in columns)
        lite.executemany(f"insert into t values ({marks})", zip(*own, strict=True))  # noqa: S608
    lite.close()
    yield "sqlite", "sqlite:///a.sqlite?table=t"
    for ending, sign in ((".csv", ","), (".tsv", "\t")):
        lines = [f"x_text{sign}y", *(f'"{text or ""}"{sign}1' for text in texts)]
        (home / f"a{ending}").write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield ending, f"a{ending}?decimal=."  # else 1.125 alone may be a thousand


def readings(source: str, entry: Any, home: Path) -> dict[str, Any]:
    """By column, its values under the codebook's entry, sorted, or the rules that they break."""
    with connect(source, home) as opened:
        names = [name for name in opened.expr.columns if name != "y"]
        codebook = make_codebook({"columns": dict.fromkeys(names, entry)})
        broken = local_mismatches(opened, codebook)
        assert [one.message for one in broken] == mismatches(opened, codebook)
        rows = open_table(opened, codebook).expr.to_pyarrow().to_pydict()
    for name in names:
        rows[name] = [0.0 if isinstance(value, float) and value == 0 else value for value in rows[name]]  # not -0.0
    found = {name: sorted(rows[name], key=lambda value: (value is None, value)) for name in names}
    for name in {one.column for one in broken}:
        found[name] = [(one.message.replace(name, "x", 1), one.count) for one in broken if one.column == name]
    return found


def read(source: str, codebook: Codebook, home: Path) -> Any:
    return readings(source, codebook.model_dump(mode="json")["columns"]["x"], home)["x"]


def same(texts: list[str | None], codebook: Codebook, home: Path, kinds: tuple[Kind, ...] = NUMBERS) -> Any:
    """What every form of every type gives."""
    entry = codebook.model_dump(mode="json")["columns"]["x"]
    columns = {f"x_{name.replace(' ', '_')}": array for name, array in arrays(texts, kinds)}
    found = {
        f"{form} of {name}": one
        for form, source in stored(columns, texts, home)
        for name, one in readings(source, entry, home).items()
    }
    assert len(found) > 5
    assert len({repr(one) for one in found.values()}) == 1, found
    return next(iter(found.values()))


@pytest.mark.parametrize(
    ("texts", "missing"),
    each_value(
        [["10.00", "20.00", "-9.00"], ["10", "20", "-9"], ["1e1", "2.0E+1", "-9.0"]],
        [[-9], ["-9.00", "NA"]],
    ),
)
def test_a_missing_code_is_one_however_it_is_written_and_stored(
    texts: list[str | None], missing: list[Any], tmp_path: Path
) -> None:
    assert same(texts, book(type="number", missing=missing), tmp_path) == [10.0, 20.0, None]
    assert same(texts, book(type="integer", missing=missing), tmp_path) == [10, 20, None]


@pytest.mark.parametrize(
    ("column", "texts", "wanted"),
    [
        ({"type": "boolean", "missing": [9]}, ["1.00", "0", "9.0"], [False, True, None]),
        ({"type": "category", "categories": ["1", "2"], "missing": ["9"]}, ["1.00", "2", "9.0"], ["1", "2", None]),
        ({"type": "category", "categories": ["01", "10"]}, ["1", "10", "10.0"], ["01", "10", "10"]),
        ({"type": "number"}, ["-0", "0.0", "+1"], [0.0, 0.0, 1.0]),
        ({"type": "date", "missing": ["9999-12-31"]}, ["20240320", "19691231", "99991231"], [-1, 19802, None]),
    ],
)
def test_codes_truths_and_days_are_the_same_from_text_and_numbers(
    column: dict[str, Any], texts: list[str | None], wanted: Any, tmp_path: Path
) -> None:
    assert same(texts, book(**column), tmp_path) == wanted


_WRITTEN = st.one_of(
    st.decimals(-999, 999, places=2).map(lambda number: f"{number:f}"),
    st.floats(-999, 999, width=64).map(repr),
    st.integers(-999, 999).map(str),
    st.integers(2**53 - 2, 2**53 + 3).map(str),
    st.sampled_from(
        ["-9", "-9.0", "-9.00", "0", "-0", "1", "1.0", "5e-324", "0.9998846421080685", "9223372036854775807"]
    ),
)


@settings(max_examples=6, deadline=None)
@given(texts=st.lists(st.none() | _WRITTEN, min_size=1, max_size=5), ends=st.tuples(_WRITTEN, _WRITTEN))
@example(texts=["0.9998846421080685", "-9.00"], ends=("0.9998846421080685", "-9"))
@example(texts=["9007199254740993", None], ends=("0", "1"))
def test_figures_and_refusals_are_those_of_every_other_form(
    texts: list[str | None], ends: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("forms")
    low, high = sorted(map(float, ends))
    same(texts, book(type="number", low=low, high=high, missing=[-9]), home)
    whole = [text for text in texts if text is None or (float(text).is_integer() and abs(float(text)) < 2**53)]
    if whole:
        same(whole, book(type="integer", missing=[-9]), home)


def sized(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[float]:
    """Without those so near to 0 that they are refused: their powers are lost."""
    return numbers.filter(lambda value: not value or abs(value) >= 1e-75)


@settings(max_examples=12, deadline=None)
@given(bound=sized(st.floats(-1e6, 1e6) | st.floats(allow_nan=False, allow_infinity=False)))
@example(bound=0.9998846421080685)
def test_a_value_that_is_its_bound_is_admitted_whatever_its_digits(
    bound: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("bounds")
    for name, array in (("csv", None), ("parquet", pa.array([bound])), ("float32", None)):
        value = bound
        if name == "csv":
            (home / "a.csv").write_text(f"x,y\n{bound!r},1\n")
            source = "a.csv?decimal=."
        elif name == "float32":
            if not 1e-30 < abs(bound) < 1e30:
                continue
            pyarrow.parquet.write_table(pa.table({"x": pa.array([bound], pa.float32())}), home / "b.parquet")
            source = "b.parquet"
        else:
            pyarrow.parquet.write_table(pa.table({"x": array}), home / "a.parquet")
            source = "a.parquet"
        assert read(source, book(type="number", low=bound, high=bound), home) == [value], name


@pytest.mark.parametrize("text", ["1e400", "inf", "nan", "1_000", "٣"])
def test_text_that_is_no_number_is_refused_from_text_in_every_form(text: str, tmp_path: Path) -> None:
    found = same([text, "1"], book(type="number"), tmp_path, (TEXT,))
    assert found == [("x: got values that are not numbers; want them, or missing codes in the codebook", 1)]


@pytest.mark.parametrize("text", ["9223372036854775808", "99999999999999999999", "1.5", "9007199254740994.0", "1e16"])
def test_whole_numbers_that_are_none_or_that_a_float_does_not_tell_are_refused(text: str, tmp_path: Path) -> None:
    found = same([text], book(type="integer"), tmp_path, (TEXT, FLOAT))
    assert "not whole numbers" in found[0][0]


@pytest.mark.parametrize("number", [2**63 - 1, -(2**63), 5_000_000_000_000_000_001, 2**53 + 1])
def test_long_whole_numbers_keep_every_digit(number: int, tmp_path: Path) -> None:
    kinds = (TEXT, ("integer", int, pa.int64()), ("decimal", Decimal, pa.decimal128(38, 2)))
    assert same([str(number)], book(type="integer"), tmp_path, kinds) == [number]


def test_a_decimal_of_many_digits_is_the_nearest_float(tmp_path: Path) -> None:
    kinds = (TEXT, ("decimal", Decimal, pa.decimal128(38, 30)), FLOAT)
    for text in ("0.9998846421080685", "12345678.123456789012345"):
        assert same([text], book(type="number"), tmp_path, kinds) == [float(text)]


def test_decimals_of_more_digits_than_the_engine_has_are_refused(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([Decimal("1.50"), Decimal("2.50")], pa.decimal256(40, 2))})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    pyarrow.feather.write_feather(table, str(tmp_path / "a.arrow"))
    for source in ("a.parquet", "a.arrow"):
        with pytest.raises(UsageError, match="x: got decimals of more than 38 digits; want at most 38, or float64"):
            connect(source, tmp_path)


@pytest.mark.parametrize("missing", [-9.9, -99.9, 0.1])
def test_a_float_of_32_bits_stands_for_the_missing_code_that_it_is_nearest_to(missing: float, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"x": pa.array([missing, 5.0], pa.float32())}), tmp_path / "a.parquet")
    assert read("a.parquet", book(type="number", missing=[missing]), tmp_path) == [5.0, None]


def test_letters_are_one_level_however_they_are_composed(tmp_path: Path) -> None:
    composed, apart = "Caf\u00e9", "Cafe\u0301"
    for level in (composed, apart):
        found = same([composed, apart, f" {apart} "], book(type="category", categories=[level]), tmp_path, (TEXT,))
        assert found == [composed] * 3
    with pytest.raises(UsageError, match="more than once"):
        book(type="category", categories=[composed, apart])


def test_words_for_missing_are_levels_only_where_they_are_listed(tmp_path: Path) -> None:
    texts: list[str | None] = ["nan", "<NA>", "None", "NULL", "a", None]
    listed = book(type="category", categories=["a"], missing=["nan", "<NA>", "None", "NULL"])
    assert same(texts, listed, tmp_path, (TEXT,)) == ["a", None, None, None, None, None]
    [(message, count)] = same(texts, book(type="category", categories=["a"]), tmp_path, (TEXT,))
    assert ("outside the codebook" in message, count) == (True, 4)


@settings(max_examples=6, deadline=None)
@given(
    values=st.lists(
        sized(st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1))
        | st.sampled_from([1700000000.1, 1700000000.9, 0.9998846421080685, 1e-75]),
        min_size=1,
        max_size=4,
    ),
    form=st.sampled_from(["csv", "parquet"]),
)
@example(values=[1700000000.1, 1700000000.9], form="csv")
def test_a_draft_admits_its_own_numbers_and_stays_on_their_side_of_zero(
    values: list[float], form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("drafts")
    frame = pd.DataFrame({"x": values, "y": 1})
    frame.to_csv(home / "a.csv", index=False) if form == "csv" else frame.to_parquet(home / "a.parquet")
    with connect("a.csv?decimal=." if form == "csv" else "a.parquet", home) as opened:
        found = draft(opened)
        assert mismatches(opened, found) == []
    low, high = found.columns["x"].bounds or (math.nan, math.nan)
    assert (low > 0) >= (min(values) > 0)
    assert (high <= 1) >= all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize("kind", [pa.uint64(), pa.int64()])
def test_drafts_of_the_largest_whole_numbers_admit_them(kind: Any, tmp_path: Path) -> None:
    most = 2**64 - 1 if kind == pa.uint64() else 2**63 - 1
    pyarrow.parquet.write_table(pa.table({"x": pa.array([1, most], kind)}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text(f"x,y\n1,1\n{most},1\n")
    for source in ("a.parquet", "a.csv"):
        with connect(source, tmp_path) as opened:
            assert mismatches(opened, draft(opened)) == []
