"""Inputs that are no matter of what is written: where it lies, how it is kept, what is missing of it."""

# a case a line

import gzip
import io
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet

from tests.inputs.cases import NUMBER, ROWS, Case, Records, text_of

TEXT = text_of().encode()
TABLE = pa.table({"region": [row[0] for row in ROWS], "income": [row[1] for row in ROWS]})
Make = Callable[[Path], str]


def _bytes(write: Callable[[Any], None]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def _ipc(stream: bool) -> bytes:
    def write(buffer: Any) -> None:
        with (pa.ipc.new_stream if stream else pa.ipc.new_file)(buffer, TABLE.schema) as writer:
            writer.write_table(TABLE)

    return _bytes(write)


PARQUET = _bytes(lambda buffer: pyarrow.parquet.write_table(TABLE, buffer))
ARROW, STREAM, PACKED = _ipc(False), _ipc(True), gzip.compress(TEXT, mtime=0)


def _files(source: str, **content: bytes) -> Make:
    """Files by name, `__` for a slash and `_dot_` for a point."""

    def make(folder: Path) -> str:
        for name, raw in content.items():
            path = folder / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        return source

    return make


def files() -> Iterator[Case]:
    """Files and folders."""
    for fault, form, make, want in (*_whole(), *_cut(), *_folders(), *_odd()):
        yield Case("Files and folders", fault, form, make, want)


def _whole() -> Iterator[tuple[str, str, Make, Records | None]]:
    yield "capitals in its ending", "Parquet", _files("A.PARQUET", A_dot_PARQUET=PARQUET), ROWS
    two = gzip.compress(TEXT, mtime=0) + gzip.compress("\n".join(text_of().splitlines()[1:]).encode())
    yield "a second gzip member", "csv.gz", _files("a.csv.gz", a_dot_csv_dot_gz=two), (*ROWS, *ROWS)
    yield "zeros behind the gzip member", "csv.gz", _files("a.csv.gz", a_dot_csv_dot_gz=PACKED + b"\0" * 64), None
    yield "other bytes behind the gzip member", "csv.gz", _files("a.csv.gz", a_dot_csv_dot_gz=PACKED + b"CANARY"), None
    for name, raw in {"a.csv": PARQUET, "a.parquet": TEXT, "a.arrow": PARQUET, "a.csv.gz": TEXT, "a.tsv": TEXT}.items():
        yield "another format than its name says", name[2:], _files(name, **{name.replace(".", "_dot_"): raw}), None
    yield "a stream of Arrow batches", "arrow", _files("a.arrow", a_dot_arrow=STREAM), None
    yield "no such file", "csv", _files("a.csv"), None
    yield "an ending that is none of data", "txt", _files("a.txt", a_dot_txt=TEXT), None


def _cut() -> Iterator[tuple[str, str, Make, Records | None]]:
    whole = {"a.parquet": PARQUET, "a.arrow": ARROW, "a.csv.gz": PACKED}
    for name, raw in whole.items():
        for fault, made in (("cut short", raw[:-9]), ("empty", b""), ("cut to half", raw[: len(raw) // 2])):
            yield fault, name[2:], _files(name, **{name.replace(".", "_dot_"): made}), None
    middle = len(PARQUET) // 4
    spoilt = PARQUET[:middle] + bytes(b ^ 255 for b in PARQUET[middle : middle + 40]) + PARQUET[middle + 40 :]
    yield "damaged within", "parquet", _files("a.parquet", a_dot_parquet=spoilt), None


def _folders() -> Iterator[tuple[str, str, Make, Records | None]]:
    other = TEXT.replace(b"8675.25", b"1.0")
    rows = (*ROWS, ("A", 1.0), *ROWS[1:])
    hidden = {"a___dot_b_dot_csv": other, "a___b_dot_csv": other, "a__c_dot_csv_dot_tmp": other, "a__d_dot_csv~": other}
    yield "hidden and temporary files beside it", "folder", _files("a", a__a_dot_csv=TEXT, **hidden), ROWS
    yield "two files", "folder", _files("a", a__a_dot_csv=TEXT, a__b_dot_csv=other), rows
    yield (
        "two files, one with `;`",
        "folder",
        _files("a", a__a_dot_csv=TEXT, a__b_dot_csv=other.replace(b",", b";")),
        rows,
    )
    yield "a copy", "folder", _files("a", a__a_dot_csv=TEXT, a__b_dot_csv=TEXT), None
    swapped = b"income,region\n1,A\n"
    yield "columns in another order", "folder", _files("a", a__a_dot_csv=TEXT, a__b_dot_csv=swapped), None
    yield "CSV and Parquet", "folder", _files("a", a__a_dot_csv=TEXT, a__b_dot_parquet=PARQUET), None
    yield "an empty file among them", "folder", _files("a", a__a_dot_csv=TEXT, a__b_dot_csv=b""), None
    yield (
        "a file with a header alone among them",
        "folder",
        _files("a", a__a_dot_csv=TEXT, a__b_dot_csv=b"region,income\n"),
        ROWS,
    )
    yield "no data in it", "folder", _files("a", a__read_dot_me=b"CANARY"), None
    text = _bytes(lambda b: pyarrow.parquet.write_table(TABLE.set_column(1, "income", [["1", "2", "3"]]), b))
    yield "another type in one file", "folder", _files("a", a__a_dot_parquet=PARQUET, a__b_dot_parquet=text), None


def _odd() -> Iterator[tuple[str, str, Make, Records | None]]:
    def made(build: Callable[[Path], object], source: str = "a") -> Make:
        def make(folder: Path) -> str:
            (folder / "a").mkdir()
            (folder / "a" / "a.csv").write_bytes(TEXT)
            build(folder)
            return source

        return make

    yield "a link to it", "csv", made(lambda f: (f / "b.csv").symlink_to("a/a.csv"), "b.csv"), ROWS
    yield "a link to nothing", "csv", made(lambda f: (f / "b.csv").symlink_to("none.csv"), "b.csv"), None
    yield "a link to itself", "csv", made(lambda f: (f / "b.csv").symlink_to("b.csv"), "b.csv"), None
    yield "a link to nothing in it", "folder", made(lambda f: (f / "a/b.csv").symlink_to("none.csv")), None
    yield "a link to the folder in it", "folder", made(lambda f: (f / "a/b").symlink_to("..")), None
    yield "a link to a file in it", "folder", made(lambda f: (f / "a/b.csv").symlink_to("a.csv")), None
    yield "a pipe", "csv", made(lambda f: os.mkfifo(f / "b.csv"), "b.csv"), None
    yield "a pipe in it", "folder", made(lambda f: os.mkfifo(f / "a/b.csv")), None
    yield "a device", "csv", made(lambda f: (f / "b.csv").symlink_to("/dev/zero"), "b.csv"), None
    yield "a folder of its name", "csv", made(lambda f: (f / "b.csv").mkdir(), "b.csv"), None


def databases() -> Iterator[Case]:
    """Databases that are files."""
    for fault, statement, want in _duckdb():
        book = {"x": NUMBER}
        yield Case("Databases", fault, "duckdb", _made(statement), want, ("8675", "CANARY"), book)
    for fault, statement, want in _sqlite():
        yield Case("Databases", fault, "sqlite", _lite(statement), want, ("8675", "CANARY"), {"x": NUMBER})
    yield Case("Databases", "no database", "duckdb", _files("duckdb:///a.db?table=t", a_dot_db=TEXT), None)
    yield Case("Databases", "no database", "sqlite", _files("sqlite:///a.db?table=t", a_dot_db=TEXT), None)
    yield Case("Databases", "no such table", "sqlite", _lite("create table u (x)"), None)
    yield Case("Databases", "no such table", "duckdb", _made("create table u (x int)"), None)
    yield Case("Databases", "no table named", "duckdb", _files("duckdb:///a.db", a_dot_db=TEXT), None)
    yield Case("Databases", "cut to half", "sqlite", _half(_lite("create table t (x); insert into t values (1)")), None)


def _half(make: Make) -> Make:
    def made(folder: Path) -> str:
        source = make(folder)
        raw = (folder / "a.db").read_bytes()
        (folder / "a.db").write_bytes(raw[: len(raw) // 2])
        return source

    return made


def _made(statement: str) -> Make:
    def make(folder: Path) -> str:
        with duckdb.connect(str(folder / "a.db")) as connection:
            connection.execute(statement)
        return "duckdb:///a.db?table=t"

    return make


def _lite(statement: str) -> Make:
    def make(folder: Path) -> str:
        connection = sqlite3.connect(folder / "b.db")
        connection.executescript(statement)
        connection.commit()
        shutil.copy(folder / "b.db", folder / "a.db")
        for end in ("-wal", "-shm"):
            if (folder / f"b.db{end}").exists():
                shutil.copy(folder / f"b.db{end}", folder / f"a.db{end}")
        connection.close()
        return "sqlite:///a.db?table=t"

    return make


def _duckdb() -> Iterator[tuple[str, str, Records | None]]:
    yield (
        "a view",
        "create table u (x double); insert into u values (1.5), (-9); create view t as from u",
        ((1.5,), (None,)),
    )
    yield "128-bit integers", "create table t as select 5::hugeint as x", ((5.0,),)
    yield "an enumeration", "create table t as select '7'::enum('7', '8') as x", ((7.0,),)
    for kind in (
        "'2024-03-20'::date",
        "now()",
        "interval 1 day",
        "'a'::blob",
        "uuid()",
        "'101'::bit",
        "[1.5]",
        "{'a': 1}",
        "map {'a': 1}",
        "time '12:00'",
        "'{}'::json",
    ):
        yield f"`{kind}` as a number".replace("|", ""), f"create table t as select {kind} as x", None
    yield "a table of no column that is asked for", "create table t as select 1 as y", None
    yield "a macro that is no table", "create macro t(a) as a", None
    yield "a table in a schema, not said", "create schema s; create table s.t as select 1 as x", None
    yield "infinite", "create table t as select 'inf'::double as x", None


def _sqlite() -> Iterator[tuple[str, str, Records | None]]:
    make = "create table t (x); insert into t values "
    yield (
        "integers, floats and text in one column",
        f"{make} (5), (5.5), ('5.25'), ('-9.0'), (null), ('')",
        tuple((x,) for x in (5.0, 5.5, 5.25, None, None, None)),
    )
    yield "a word among them", f"{make} (5), ('CANARY')", None
    yield "bytes that are digits", f"{make} (5), (x'35')", None
    yield "bytes", f"{make} (5), (x'00ff')", None
    yield "text that is no UTF-8", f"{make} (5), (cast(x'43414e415259ff' as text))", None
    yield "infinite", f"{make} (1e999)", None
    yield "the largest integers", f"{make} (9007199254740992)", None
    yield (
        "a column that is declared as text",
        "create table t (x text); insert into t values (5), (5.5)",
        ((5.0,), (5.5,)),
    )
    yield (
        "a column that is declared as integer",
        "create table t (x integer); insert into t values ('5'), ('5.5')",
        ((5.0,), (5.5,)),
    )
    yield "a view", "create table u (x); insert into u values (5); create view t as select x from u", ((5.0,),)
    yield "a write-ahead log", f"pragma journal_mode = wal; {make} (5)", ((5.0,),)
    yield "a computed column", "create table t (y, x as (y + 1)); insert into t (y) values (5)", ((6.0,),)
