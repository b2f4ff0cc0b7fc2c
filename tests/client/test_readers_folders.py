"""Folders, patterns and binary files: every file of data once, nothing that is none, nothing half."""

import gzip
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.data.identity import content, identity
from statfed.client.data.sources import absolute, connect
from statfed.client.data.tables import local_mismatches, mismatches
from statfed.core.codebook import load_codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations
from statfed.core.study import load_study

ONE = pa.table({"x": [1, 2], "s": ["a", "b"]})
TWO = pa.table({"x": [3], "s": ["c"]})


def parquet(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def text(content: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def count(source: str, home: Path) -> int:
    with connect(source, home) as opened:
        return int(opened.expr.count().to_pyarrow().as_py())


NO_DATA = [
    ".ipynb_checkpoints/0-checkpoint.parquet",
    "._0.parquet",
    ".hidden.parquet",
    "_temporary/0.parquet",
    "_SUCCESS",
    "_metadata",
    "0.parquet.tmp",
    "0.parquet.crdownload",
    "0.parquet.part",
    "0.parquet~",
    "~$0.parquet",
    "README.md",
    "0.parquet.crc",
]


def test_a_folder_that_a_pattern_names_is_refused(tmp_path: Path) -> None:
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    parquet(TWO, tmp_path / "parts" / "more" / "1.parquet")
    with pytest.raises(UsageError, match="got 1 folders by this pattern; want files alone"):
        connect("parts/*", tmp_path)


SOURCES = ("parts", "parts/", "parts/**/*", "parts/[!x]*")


@pytest.mark.parametrize(  # a folder that a pattern names is refused
    ("source", "name"),
    [(source, name) for source in SOURCES for name in NO_DATA if "/" not in name or source != "parts/[!x]*"],
)
def test_what_other_programs_keep_beside_data_is_no_data(name: str, source: str, tmp_path: Path) -> None:
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    parquet(TWO, tmp_path / "parts" / "1.parquet")
    parquet(pa.table({"x": [9, 9, 9]}), tmp_path / "parts" / name)
    with connect(source.replace("**/*", "**/*.parq*"), tmp_path) as opened:
        assert opened.expr.count().to_pyarrow().as_py() == 3
        assert [Path(file).name for file in opened.files] == ["0.parquet", "1.parquet"]
        if source.strip("/") == "parts":
            assert opened.skipped == (name,)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_check_says_which_files_were_read_and_what_was_left_out(as_json: bool, tmp_path: Path) -> None:
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    parquet(TWO, tmp_path / "parts" / "1.parquet")
    parquet(ONE, tmp_path / "parts" / ".ipynb_checkpoints" / "0-checkpoint.parquet")
    text('[columns.x]\ntype = "number"\n', tmp_path / "book.toml")
    given = ["codebook", "check", str(tmp_path / "book.toml"), str(tmp_path / "parts"), *["--json"] * as_json]
    found = CliRunner().invoke(app, given)
    assert found.exit_code == 0, found.output
    shown = found.output.replace("\n", " ")
    if as_json:
        assert '"0.parquet"' in shown
        assert '".ipynb_checkpoints/0-checkpoint.parquet"' in shown
    else:
        assert "read 2 files (0.parquet, 1.parquet); left out as no data: 1 file (.ipynb_checkpoints" in shown


@pytest.mark.parametrize(
    ("files", "records"),
    [
        ({"0.csv": "x,s\n1,a\n", "1.csv": "x,s\n2,b\n"}, 2),
        ({"0.csv": "x,s\n1,a\n", "1.CSV": "x;s\r\n2;b\r\n\r\n"}, 2),
        ({"0.csv": "x,s\n1,a\n", "1.csv": '\ufeff"x","s"\n2,"b\nc"\n', "2.csv": "x,s\n"}, 2),
        ({"0.tsv": "x\ts\n1\ta\n", "1.tsv": "x\ts\n2\tb\n"}, 2),
        ({"2023/0.csv": "x,s\n1,a\n", "2024/0.csv": "x,s\n2,b\n", "2024/.x.csv": "q\n"}, 2),
        ({"[0].csv": "x,s\n1,a\n", "?.csv": "x,s\n2,b\n"}, 2),
    ],
)
def test_a_folder_of_text_files_is_one_table(files: dict[str, str], records: int, tmp_path: Path) -> None:
    for name, written in files.items():
        text(written, tmp_path / "parts" / name)
    with connect("parts", tmp_path) as opened:
        assert opened.expr.columns == ("x", "s")
        found = sorted(opened.expr.to_pyarrow().column("x").to_pylist())
    assert found == [str(i + 1) for i in range(records)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"0.csv": "x,s\n1,a\n", "1.csv": "x,t\n2,b\n"}, "1.csv: got other columns than 0.csv has"),
        ({"0.csv": "x,s\n1,a\n", "1.csv": "s,x\nb,2\n"}, "1.csv: got other columns than 0.csv has"),
        ({"0.csv": "x,s\n1,a\n", "1.csv": "x,s\n2\n"}, "1.csv: line 2: got 1 field; want 2"),
        ({"0.csv": "x,s\n1,a\n", "b/1.csv": ""}, "b/1.csv: line 1: got an empty file"),
        ({"0.csv": "x,s\n1,a\n", "1.tsv": "x\ts\n"}, "got csv and tsv files together; want one form"),
        ({"0.csv": "x,s\n1,a\n", "1.parquet": ""}, "got csv and parquet files together"),
        ({"0.csv": "x,s\n1,a\n", "0 (1).csv": "x,s\n1,a\n"}, "0 .1..csv and 0.csv have the same content"),
        ({"_0.csv": "x,s\n1,a\n", "x.md": ""}, "no file of data in it, 2 others left out; want"),
        ({}, "no file of data in it; want"),
        ({"_delta_log/0.json": "", "0.parquet": ""}, "got a Delta Lake table"),
        ({"0.arrow": "", "1.arrow": ""}, "got a folder of Arrow files; want one, or Parquet"),
    ],
)
def test_a_folder_that_is_no_table_is_refused(files: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, written in files.items():
        text(written, tmp_path / "parts" / name)
    with pytest.raises(UsageError, match=f"^parts: {message}"):
        connect("parts", tmp_path)


def test_options_hold_for_all_files_of_a_folder(tmp_path: Path) -> None:
    for number in range(3):
        text(f"x;s\n{number},5;1\n", tmp_path / "parts" / f"{number}.csv")
    book = make_codebook({"columns": {"x": {"type": "number"}}})
    with connect("parts?decimal=,", tmp_path) as opened:
        assert mismatches(opened, book) == []
    with pytest.raises(UsageError, match="x: got numbers such as 1,5"):
        connect("parts", tmp_path)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (pa.table({"x": [1.5], "s": ["a"]}), "x: got double; want int64, as in 0.parquet"),
        (pa.table({"x": ["1"], "s": ["a"]}), "x: got string; want int64"),
        (pa.table({"x": [1]}), "s: got in one of it and 0.parquet alone"),
        (pa.table({"x": [1], "s": ["a"], "t": [1]}), "t: got in one of it and 0.parquet alone"),
        (pa.table({"X": [1], "s": ["a"]}), "X, x: got in one of it and 0.parquet alone"),
    ],
)
def test_parquet_files_of_other_columns_are_named(other: pa.Table, message: str, tmp_path: Path) -> None:
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    parquet(other, tmp_path / "parts" / "1.parquet")
    with pytest.raises(UsageError, match=f"^parts: 1.parquet: {message}"):
        connect("parts", tmp_path)


def test_parquet_files_that_differ_in_what_no_value_has_are_one_table(tmp_path: Path) -> None:
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    parquet(pa.table({"s": pa.nulls(2), "x": [3, 4]}), tmp_path / "parts" / "1.parquet")  # another order, no value
    large = pa.table({"x": [5], "s": pa.array(["e"], pa.large_string())})
    parquet(large, tmp_path / "parts" / "2.PARQUET")
    words = pa.table({"x": [6], "s": pa.array(["f"]).dictionary_encode()})
    parquet(words, tmp_path / "parts" / "3.pq")
    with connect("parts", tmp_path) as opened:
        found = opened.expr.order_by("x").to_pyarrow().to_pydict()
    assert found == {"x": [1, 2, 3, 4, 5, 6], "s": ["a", "b", None, None, "e", "f"]}


def test_partition_folders_become_a_column_of_text(tmp_path: Path) -> None:
    for place in ("year=2023/a=x%20y", "year=2024/a=z", "year=02024/a=[1]"):
        parquet(pa.table({"x": [len(place)]}), tmp_path / "k=v" / "parts" / place / "0.parquet")
    with connect("k=v/parts", tmp_path) as opened:
        found = opened.expr.order_by("year").to_pyarrow().to_pydict()
    assert found["year"] == ["02024", "2023", "2024"]
    assert found["a"] == ["[1]", "x y", "z"]
    assert list(found) == ["x", "year", "a"]  # what is above the source says nothing


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (["year=2023/0.parquet", "1.parquet"], r"year=2023/0.parquet: got folders .'year',.; want none"),
        (["year=2023/0.parquet", "month=1/1.parquet"], "year=2023/0.parquet: got folders"),
        (["x=2023/0.parquet"], "x=2023/0.parquet: got x in the file and in the folder's name"),
    ],
)
def test_folders_that_are_partitions_in_part_are_refused(places: list[str], message: str, tmp_path: Path) -> None:
    for number, place in enumerate(places):
        parquet(pa.table({"x": [number]}), tmp_path / "parts" / place)
    with pytest.raises(UsageError, match=f"parts: {message}"):
        connect("parts", tmp_path)


@pytest.mark.parametrize("how", ["symlink", "hardlink", "copy", "folder"])
def test_a_file_that_is_in_a_folder_twice_is_refused(how: str, tmp_path: Path) -> None:
    first, second = tmp_path / "parts" / "0.parquet", tmp_path / "parts" / "1.parquet"
    parquet(ONE, first)
    match how:
        case "symlink":
            second.symlink_to(first)
        case "hardlink":
            os.link(first, second)
        case "copy":
            shutil.copy(first, second)
        case _:
            (tmp_path / "parts" / "again").symlink_to(tmp_path / "parts")
    with pytest.raises(UsageError, match=r"parts: .*(are one file|the same content|leads to \. again)"):
        connect("parts", tmp_path)


def test_a_linked_folder_is_read_and_files_without_records_may_be_alike(tmp_path: Path) -> None:
    parquet(TWO, tmp_path / "elsewhere" / "0.parquet")
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    for name in ("1", "2"):
        parquet(ONE.slice(0, 0), tmp_path / "parts" / f"{name}.parquet")
    (tmp_path / "parts" / "more").symlink_to(tmp_path / "elsewhere")
    assert count("parts", tmp_path) == 3


@pytest.mark.parametrize("kept", [0, 3, 4, 100, -1, -9])
@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather"])
def test_binary_files_that_are_cut_are_refused(kept: int, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    parquet(ONE, path) if name == "x.parquet" else pyarrow.feather.write_feather(ONE, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=f"^{name}: (got an empty file|not readable as)") as caught:
        connect(name, tmp_path)
    assert caught.value.__cause__ is None


def test_a_page_that_is_damaged_is_a_refusal_without_a_word_of_the_engine(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"x": [1.5, 2.5] * 50_000}), tmp_path / "x.parquet", use_dictionary=False)
    damaged = bytearray((tmp_path / "x.parquet").read_bytes())
    damaged[100:140] = b"\x99" * 40
    (tmp_path / "x.parquet").write_bytes(bytes(damaged))
    book = make_codebook({"columns": {"x": {"type": "number"}}})
    with connect("x.parquet", tmp_path) as opened:
        for look in (mismatches, local_mismatches):
            with pytest.raises(UsageError, match=r"^the data cannot be read to their end; want a file that is whole"):
                look(opened, book)


@pytest.mark.parametrize("content", [b"private,1\n", gzip.compress(b"private,1\n", mtime=0), b"PAR1private,1PAR1"])
@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather"])
def test_something_else_under_a_binary_name_is_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"^{name}: not readable as") as caught:
        connect(name, tmp_path)
    assert "private" not in str(caught.value)


def test_an_arrow_stream_is_refused_by_what_it_is(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as sink, pa.ipc.new_stream(sink, ONE.schema) as writer:
        writer.write_table(ONE)
    with pytest.raises(UsageError, match=r"x.arrow: not readable as an Arrow file .IPC, not a stream"):
        connect("x.arrow", tmp_path)


@pytest.mark.parametrize("names", [["income", "income"], ["income", "Income"], ["É", "é"]])
@pytest.mark.parametrize("form", ["x.csv", "x.parquet", "x.arrow", "duckdb", "sqlite"])
def test_columns_of_one_name_are_refused_in_every_form(names: list[str], form: str, tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=names)
    source = {"duckdb": "duckdb:///x.db?table=t", "sqlite": "sqlite:///x.db?table=t"}.get(form, form)
    match form:
        case "x.csv":
            text(",".join(names) + "\n1,2\n", tmp_path / form)
        case "x.parquet":
            parquet(table, tmp_path / form)
        case "x.arrow":
            with pa.OSFile(str(tmp_path / form), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table)
        case "duckdb":
            with duckdb.connect(tmp_path / "x.db") as db:
                if "É" not in names:
                    with pytest.raises(duckdb.Error):
                        db.execute(f"create table t ({names[0]} int, {names[1]} int)")
                    return
                db.execute('create table t as select 1 as "É", 2 as "é"')  # two names for DuckDB
            assert count(source, tmp_path) == 1
            return
        case _:
            with sqlite3.connect(tmp_path / "x.db") as lite:
                lite.execute(f'create view t as select 1 as "{names[0]}", 2 as "{names[1]}"')
            lite.close()
            with sqlite3.connect(tmp_path / "x.db") as lite:
                given = [column[0] for column in lite.execute("select * from t").description]
            lite.close()
            if len({name.casefold() for name in given}) == 2:  # SQLite renames one itself, in the view
                assert count(source, tmp_path) == 1
                return
    with pytest.raises(UsageError, match=r"got one name for columns 1 and 2|as the name of several columns; want one"):
        connect(source, tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x.csv?delimeter=;", "got an unknown option 'delimeter'; want delimiter, quote, decimal"),
        ("x.csv?delimiter=;&delimiter=,", "got delimiter twice"),
        ("x.csv?delimiter=", "delimiter: got ''; want one sign"),
        ("x.csv?delimiter=;;", "delimiter: got ';;'; want one sign"),
        ("x.csv?delimiter=&", "got an unknown option ''; want .*%26"),
        ("x.csv?delimiter=e", "delimiter: got 'e'; want one sign that is neither"),
        ("x.csv?delimiter=|&quote=|", "delimiter, quote: got '|' for both".replace("|", r"\|")),
        ("x.csv?decimal=x", "decimal: got 'x'; want a point or a comma"),
        ("x.csv?thousands=.", "decimal, thousands: got '.' for both"),
        ("x.csv?encoding=latin-99", "encoding: got 'latin-99'"),
        ("x.csv?encoding=hex", "encoding: got 'hex'"),
        ("x.csv?encoding=unicode_escape", "encoding: got 'unicode_escape'"),
        ("x.csv?header=0", "header: got '0'; want the number of the line"),
        ("x.csv?header=yes", "header: got 'yes'"),
        ("x.csv?names=a,a", "names: got 'a,a'"),
        ("x.csv?names=a,b&header=1", "header, names: got names and a header in line 1"),
        ("x.parquet?delimiter=;", "got options of a text file for one of parquet; want none"),
        ("gone.csv?delimiter=;", "gone.csv: no such file"),
        ("gone[1].csv", "no file of data of such a name; want"),
        ("x.csv.bak", "got .bak extension; want a .csv"),
    ],
)
def test_options_that_make_no_sense_are_refused(source: str, message: str, tmp_path: Path) -> None:
    for name in ("x.csv", "x.csv.bak"):
        text("a,b\n1,2\n", tmp_path / name)
    parquet(ONE, tmp_path / "x.parquet")
    with pytest.raises(UsageError, match=message):
        connect(source, tmp_path)


def test_a_file_that_has_the_options_in_its_name_is_meant(tmp_path: Path) -> None:
    text("a;b\n1;2\n", tmp_path / "x.csv")
    text("c,d\n1,2\n", tmp_path / "x.csv?names=a,b.csv")
    with connect("x.csv?names=a,b.csv", tmp_path) as opened:
        assert opened.expr.columns == ("c", "d")


def test_a_source_with_options_is_one_place_for_all_who_ask(tmp_path: Path) -> None:
    text("a;b\n1;2\n", tmp_path / "x.csv")
    source = "x.csv?delimiter=;&decimal=,"
    whole = absolute(source, tmp_path)
    assert whole == f"{tmp_path}/x.csv?delimiter=;&decimal=,"
    assert count(whole, Path("/")) == 1
    assert identity(source, tmp_path, content).keys == identity("x.csv", tmp_path, content).keys
    with pytest.raises(UsageError, match="which is read"):
        Destinations((source,), True, tmp_path).check(tmp_path / "x.csv")


def test_the_state_changes_with_what_is_stated(tmp_path: Path) -> None:
    text("a;b\n1;2\n", tmp_path / "x.csv")
    found = set()
    for source in ("x.csv", "x.csv?decimal=,", "x.csv?decimal=."):
        with connect(source, tmp_path) as opened:
            found.add(opened.fingerprint())
    assert len(found) == 3


def test_files_that_change_between_two_openings_are_read_anew(tmp_path: Path) -> None:
    text("a,b\n1,2\n", tmp_path / "x.csv")
    assert count("x.csv", tmp_path) == 1
    text("a,b\n1,2\n3,4\n", tmp_path / "x.csv")
    assert count("x.csv", tmp_path) == 2
    text("a,b\n1,2\n3,4,5\n", tmp_path / "x.csv")
    with pytest.raises(UsageError, match="line 3: got 3 fields"):
        connect("x.csv", tmp_path)


MARK = "\ufeff"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_of_codebook_study_and_policy_is_none_of_their_business(end: str, tmp_path: Path) -> None:
    book = f'{MARK}[columns.x]\ntype = "number"\n'.replace("\n", end)
    (tmp_path / "book.toml").write_bytes(book.encode())
    assert list(load_codebook(tmp_path / "book.toml").columns) == ["x"]
    study = f'{MARK}method = "count"\n[holders]\na = "a.csv"\n'.replace("\n", end)
    (tmp_path / "study.toml").write_bytes(study.encode())
    assert load_study(tmp_path / "study.toml").method == "count"


def kinds(found: Any) -> list[str]:
    return sorted(key.partition(":")[0] for key in found.keys)


def test_hidden_files_are_no_part_of_a_data_set(tmp_path: Path) -> None:
    parquet(ONE, tmp_path / "parts" / "0.parquet")
    parquet(TWO, tmp_path / "parts" / ".1.parquet")
    assert kinds(identity("parts", tmp_path, content)) == ["content", "path", "path"]
