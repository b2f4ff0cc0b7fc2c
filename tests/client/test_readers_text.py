"""Awkward text files: each is read right, or refused by the number of its line and the cause, without a value of it.

`SECRET` and 7731 stand in the records: no message may have them.
"""

import codecs
import gzip
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from statfed.client.data.drafting import draft
from statfed.client.data.reading import START
from statfed.client.data.sources import Source, connect
from statfed.client.data.tables import local_mismatches, mismatches, open_table
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError

GOOD = "a,b\n1,SECRET\n2,7731\n"
ROWS = [("1", "SECRET"), ("2", "7731")]
MANY = 20_500
"""Records, beyond what DuckDB looks at to guess."""
SPREAD = "\n".join(f"{i},{'x' * (i % 7)}" for i in range(MANY))


def csv_of(text: str, encoding: str = "utf-8") -> bytes:
    return text.encode(encoding)


def stored(name: str, content: bytes, home: Path) -> str:
    """A file; what its name says is compressed."""
    path = START.split(name)[0]
    if path.lower().endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    if path.lower().endswith(".zst"):
        content = pa.compress(content, codec="zstd", asbytes=True)
    (home / path).write_bytes(content)
    return name


def rows_of(source: Source) -> list[tuple[str, ...]]:
    return sorted(tuple(value or "" for value in row.values()) for row in source.expr.to_pyarrow().to_pylist())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.csv", csv_of(GOOD)),
        ("no-end.csv", csv_of(GOOD.rstrip("\n"))),
        ("windows.csv", csv_of(GOOD.replace("\n", "\r\n"))),
        ("macintosh.csv", csv_of(GOOD.replace("\n", "\r"))),
        ("mixed.csv", csv_of(GOOD.replace("\n", "\r\n", 2))),
        ("blank-end.csv", csv_of(GOOD + "\n\r\n\n")),
        ("blank-end-windows.csv", csv_of(GOOD.replace("\n", "\r\n") + "\r\n")),
        ("mark.csv", codecs.BOM_UTF8 + csv_of(GOOD)),
        ("quoted-mark.csv", codecs.BOM_UTF8 + csv_of('"a","b"\n"1","SECRET"\n"2","7731"\n')),
        ("wide.csv", csv_of(GOOD, "utf-16")),
        ("wide-big.csv", codecs.BOM_UTF16_BE + csv_of(GOOD, "utf-16-be")),
        ("wider.csv", csv_of(GOOD, "utf-32")),
        ("unmarked.csv?encoding=utf-16-le", csv_of(GOOD, "utf-16-le")),
        ("stated-mark.csv?encoding=utf-16", csv_of(GOOD, "utf-16")),
        ("packed.csv.gz", csv_of(GOOD)),
        ("packed-mark.csv.gz", codecs.BOM_UTF8 + csv_of(GOOD + "\n")),
        ("packed.csv.zst", csv_of(GOOD)),
        ("tabs.tsv", csv_of(GOOD.replace(",", "\t"))),
        ("TABS.TSV", csv_of(GOOD.replace(",", "\t"))),
        ("tabs.tsv.gz", csv_of(GOOD.replace(",", "\t"))),
        ("tabs.csv", csv_of(GOOD.replace(",", "\t"))),
        ("semicolons.csv", csv_of(GOOD.replace(",", ";"))),
        ("bars.csv", csv_of(GOOD.replace(",", "|"))),
        ("colons.csv?delimiter=:", csv_of(GOOD.replace(",", ":"))),
        ("tildes.csv?delimiter=%7E", csv_of(GOOD.replace(",", "~"))),
        ("spreadsheet.csv", csv_of("sep=;\r\n" + GOOD.replace(",", ";"))),
        ("spreadsheet-mark.csv", codecs.BOM_UTF8 + csv_of('"sep=|"\n' + GOOD.replace(",", "|"))),
        ("spreadsheet-wide.csv", csv_of("sep=\t\n" + GOOD.replace(",", "\t"), "utf-16")),
        ("UPPER.CSV", csv_of(GOOD)),
        ("data[2024].csv", csv_of(GOOD)),
        ("what?.csv", csv_of(GOOD)),
        ("a*b.csv", csv_of(GOOD)),
        ("year=2024.csv", csv_of(GOOD)),
        ("it's.csv", csv_of(GOOD)),
        ("_named.csv", csv_of(GOOD)),
        (".named.csv", csv_of(GOOD)),
        ("blanks.csv", csv_of(GOOD.replace("a,b", " a , b "))),
        ("single.csv?quote='", csv_of("a,b\n1,'SECRET'\n'2',7731\n")),
        ("above.csv?header=3", csv_of("A table, of people\n\n" + GOOD)),
        ("names.csv?names=a,b", csv_of(GOOD.partition("\n")[2])),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_files_of_every_kind_that_give_the_same_two_records(name: str, content: bytes, tmp_path: Path) -> None:
    with connect(stored(name, content, tmp_path), tmp_path) as source:
        assert source.expr.columns == ("a", "b")
        assert rows_of(source) == ROWS
        assert source.expr.count().to_pyarrow().as_py() == 2


@pytest.mark.parametrize(
    ("name", "text", "records"),
    [
        ("line-ends.csv", 'a,b\n1,"x\ny"\n2,"x\r\ny"\n3,"x\ry"\n', [("1", "x\ny"), ("2", "x\r\ny"), ("3", "x\ry")]),
        ("line-ends-windows.csv", 'a,b\r\n1,"x\ny"\r\n2,"x\r\ny"\r\n', [("1", "x\ny"), ("2", "x\r\ny")]),
        ("line-ends-mixed.csv", 'a,b\n1,"x\r\ny"\r\n2,z\n', [("1", "x\r\ny"), ("2", "z")]),
        ("line-ends-macintosh.csv", 'a,b\r1,"x\ry"\r2,"x\ny"\r', [("1", "x\ry"), ("2", "x\ny")]),
        ("name-of-lines.csv", 'a,"b\nc"\n1,2\n', [("1", "2")]),
        ("quotes.csv", 'a,b\n"1","say ""no"""\n"",""""""\n', [("", '""'), ("1", 'say "no"')]),
        ("unquoted.csv?quote=none", 'a,b\n1,5" pipe\n2,"x\n', [("1", '5" pipe'), ("2", '"x')]),
        ("delimiters.csv", 'a,b\n"1,2","x,y"\n', [("1,2", "x,y")]),
        ("empty-values.csv", "a,b\n,\n,\n", [("", ""), ("", "")]),
        ("one-column.csv", 'a\n1\n""\n\n', [("",), ("1",)]),
        ("comments.csv", "a,b\n#1,2\n", [("#1", "2")]),
        ("words.csv", "a,b\nNULL,NA\ntrue,0x1F\n", [("NULL", "NA"), ("true", "0x1F")]),
        ("sentence.csv", "net income\n1\n", [("1",)]),
        ("sentence-alone.csv", "net income\n", []),
        ("like-header.csv", "a,b\na,bb\nba,b\n", [("a", "bb"), ("ba", "b")]),
        ("own-name.csv", "sex\nsex\n", [("sex",)]),
        ("zeros.csv", "a,b\n01,1.0\n", [("01", "1.0")]),
        ("blanks.csv", "a,b\n x ,\t\n", [(" x ", "\t")]),
        ("header-only.csv", "a,b\n", []),
        ("header-only-no-end.csv", "a,b", []),
        ("header-only-blank.csv", "a,b\n\n\n", []),
        ("numbers.csv?header=none", "1,2\n3,4\n", [("1", "2"), ("3", "4")]),
        ("two-delimiters.csv", "a,b;c\n1,2\n", [("1", "2")]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:30] and "\n" not in value else "",
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_values_are_what_was_written(name: str, text: str, records: list[Any], packed: str, tmp_path: Path) -> None:
    name = name.replace(".csv", f".csv{packed}")
    with connect(stored(name, csv_of(text), tmp_path), tmp_path) as source:
        assert rows_of(source) == sorted(records)


FAULTS = [
    ("two dialects", "a,b,c\n7731,3,SECRET\n", 0, "got 3 fields; want 2"),
    ("header again", "a,b\n7731,SECRET\n", 0, "got the header again"),
    ("header of a file put behind", "\ufeffa,b\n7731,SECRET\n", 0, "got the header again"),
    ("short row", "7731\n", 0, "got 1 field; want 2"),
    ("long row", "7731,2,\n", 0, "got 3 fields; want 2"),
    ("footer", "Source: SECRET\n", 0, "got 1 field; want 2"),
    ("comma without quotes", "7731,SECRET, of 5\n", 0, "got 3 fields; want 2"),
    ("blank line", "\n7731,2\n", 0, "got a blank line before the last record"),
    ("line of blanks", "  \n", 0, "got 1 field; want 2"),
    ("DOS end", "\x1a", 0, "got Ctrl-Z"),
    ("DOS end behind a value", "7731,SECRET\x1a\n", 0, "got Ctrl-Z"),
    ("NUL", "7731,\0SECRET\n", 0, "got a NUL byte"),
    ("carriage return", "7731,\rSECRET\n", 0, "got a carriage return alone"),
    ("quote never closed", '7731,"SECRET\n1,2\n', 0, "a quote opens here and is never closed"),
    ("quote closed too late", '7731,"SECRET\n1,2\n3,"x"\n', 2, "got text behind a closing quote"),
    ("text behind a quote", '7731,"SECRET"x\n', 0, "got text behind a closing quote"),
    ("blank behind a quote", '7731,"SECRET" \n', 0, "got text behind a closing quote"),
    ("blank before a quote", '7731, "SECRET"\n', 0, "got a quote inside a field without quotes"),
    ("quote inside", '7731,5" SECRET\n', 0, "got a quote inside a field without quotes"),
    ("escaped quote", '7731,"SECRET \\" x"\n', 0, "got text behind a closing quote"),
    ("record of 17 MB", "7731," + "x" * (17 * 2**20) + "\n", 0, "got a record of over 16 MiB"),
]


@pytest.mark.parametrize("before", ["1,2\n1,2\n", f"{SPREAD}\n", '1,"x\ny"\n'], ids=["few", "many", "lines"])
@pytest.mark.parametrize(("bad", "more", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_bad_line_is_refused_by_its_number_wherever_it_stands(
    before: str, bad: str, more: int, message: str, tmp_path: Path
) -> None:
    line = 2 + before.count("\n") + more
    source = stored("x.csv", csv_of(f"a,b\n{before}{bad}"), tmp_path)
    with pytest.raises(UsageError, match=f"^x.csv: line {line}: {message}") as caught:
        connect(source, tmp_path)
    assert "SECRET" not in str(caught.value)
    assert "7731" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", ["x.csv.gz", "x.tsv", "x.csv.zst", "x.csv?delimiter=;", "x.csv?encoding=utf-16"])
@pytest.mark.parametrize("rows", [2, 2040])
def test_two_dialects_in_one_file_are_refused_in_every_form(name: str, rows: int, tmp_path: Path) -> None:
    text = "region,income\n" + "A,100\n" * rows + "region,income,sex\nB,300,f\nB,300,f\n"
    sign = "\t" if "tsv" in name else ";" if ";" in name else ","
    content = csv_of(text.replace(",", sign), "utf-16" if "utf-16" in name else "utf-8")
    with pytest.raises(UsageError, match=f"line {rows + 2}: got 3 fields; want 2"):
        connect(stored(name, content, tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.csv", b"", "line 1: got an empty file; want the names"),
        ("empty.csv.gz", b"", "line 1: got an empty file"),
        ("blank.csv", b"\n\n", "line 1: got a blank line; want the names"),
        ("blank-first.csv", b"\na,b\n1,2\n", "line 1: got a blank line"),
        ("mark.csv", codecs.BOM_UTF8, "line 1: got an empty file"),
        ("unnamed.csv", b"a,,c\n1,2,3\n", "line 1: got no name for column 2 of 3"),
        ("index.csv", b",a,b\n0,1,2\n", "line 1: got no name for column 1 of 3"),
        ("trailing.csv", b"a,b,\n1,2,\n", "line 1: got no name for column 3 of 3"),
        ("twice.csv", b"region,income,income\nA,1,2\n", "line 1: got one name for columns 2 and 3; want each"),
        ("case.csv", b"a,B,b\n1,2,3\n", "line 1: got one name for columns 2 and 3 but for upper and lower case"),
        ("quotes.csv", b"'a','b'\n'1','2'\n", "line 1: got names in single quotes; want quote='"),
        ("open.csv", b'"a,b\n1,2\n', "line 1: a quote opens here and is never closed"),
        ("latin.csv", csv_of("a,b\n1,2\n1,é\n", "latin-1"), "line 3: not UTF-8; want the encoding stated, as in latin"),
        ("latin-name.csv", csv_of("a,é\n1,2\n", "latin-1"), "line 1: not UTF-8"),
        ("latin-far.csv", csv_of(f"a,b\n{SPREAD}\n1,é\n", "latin-1"), f"line {MANY + 2}: not UTF-8"),
        ("cut.csv", "a,b\n1,é".encode()[:-1], "line 2: not UTF-8"),
        ("wide.csv", csv_of("a,b\n1,2\n", "utf-16-le"), "line 1: got a NUL byte; want text .of UTF-16"),
        ("odd-wide.csv", csv_of("a,b\n1,2\n", "utf-16") + b"x", "line 3: not utf-16-le; want"),
        ("mark.csv?encoding=latin-1", csv_of("a,b\n1,2\n", "utf-16"), "line 1: got the byte order mark of utf-16-le"),
        ("undefined.csv?encoding=cp1252", b"a,b\n1,\x81\n", "line 2: not cp1252"),
        ("gzip.csv", gzip.compress(b"a,b\n1,2\n", mtime=0), "got a gzip file; want .gz at the end"),
        ("workbook.csv", b"PK\x03\x04\x14\0", "got a zip file or a workbook"),
        ("parquet.csv", b"PAR1\x15\x04", "got a Parquet file"),
        ("commas.tsv", b"a,b\n1,2\n", "line 1: got no tab; want tabs in a .tsv file"),
        ("blanks.csv", b"a b\n1 2\n", "line 1: got one column, and space in every line; want the delimiter stated"),
        ("colons.csv", b"a:b\n1:2\n", "line 1: got one column, and : in every line; want .*colons.csv.delimiter=:"),
        ("either.csv", b"a;b,c\n1;2,3\n", "line 1: got ; and ,; want the delimiter stated, as in either.csv"),
        ("sep.csv?delimiter=,", b"sep=;\na;b\n1;2\n", "line 1: got a line sep= that says another delimiter"),
        ("far.csv?header=9", b"a,b\n1,2\n", "line 3: got the end of the file; want the header in line 9"),
        ("names.csv?names=a,b,c", b"1,2\n", "line 1: got 2 fields; want 3, as many as names"),
        ("one.csv", b"a\n1\n\n2\n", "line 3: got a blank line before the last record"),
        ("feeds.csv", b"a,b\r1,2\n3,4\r", "line 2: got a line feed among carriage returns"),
    ],
    ids=lambda value: value if isinstance(value, str) and ".csv" in value[:30] else "",
)
def test_files_that_are_none_of_records_say_why(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    shown = name.partition("?")[0]
    with pytest.raises(UsageError, match=f"^{shown}: (line [0-9]+: )?{message}"):
        connect(stored(name, content, tmp_path), tmp_path)


@pytest.mark.parametrize(("kept", "message"), [(-9, "ends too early"), (40, "ends too early|is damaged")])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_is_refused(kept: int, suffix: str, message: str, tmp_path: Path) -> None:
    stored(f"x.csv{suffix}", csv_of(f"a,b\n{SPREAD}\n"), tmp_path)
    whole = (tmp_path / f"x.csv{suffix}").read_bytes()
    (tmp_path / f"x.csv{suffix}").write_bytes(whole[:kept])
    with pytest.raises(UsageError, match=f"the compressed file ({message}|is damaged); want it whole"):
        connect(f"x.csv{suffix}", tmp_path)


def test_no_gzip_under_its_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(csv_of(GOOD))
    with pytest.raises(UsageError, match="compressed file is damaged"):
        connect("x.csv.gz", tmp_path)


def test_lines_within_quotes_are_read_right_behind_what_an_engine_looks_at_to_guess(tmp_path: Path) -> None:
    text = "a,b\n" + "a,x\n" * MANY + 'b,"one\ntwo"\n'
    with connect(stored("x.csv", csv_of(text), tmp_path), tmp_path) as source:
        assert rows_of(source)[-2:] == [("a", "x"), ("b", "one\ntwo")]
        assert source.expr.count().to_pyarrow().as_py() == MANY + 1


def test_a_field_of_three_megabytes_is_read(tmp_path: Path) -> None:
    long = "x" * 3_000_000
    with connect(stored("x.csv", csv_of(f'a,b\n1,"{long}\n"\n2,{long}\n'), tmp_path), tmp_path) as source:
        assert rows_of(source) == [("1", f"{long}\n"), ("2", long)]


def test_what_another_reader_would_read_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's count of records and bytes is compared, not believed."""
    from statfed.client.data import text_views

    select = text_views._select
    less = "select * from ({}) limit 1"
    monkeypatch.setattr(text_views, "_select", lambda *given: less.format(select(*given)))
    with pytest.raises(UsageError, match="got 1 records of 7 bytes by one reader and 2 of 12 by another"):
        connect(stored("x.csv", csv_of(GOOD), tmp_path), tmp_path)


def test_no_word_of_the_engine_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from statfed.client.data import text_views

    monkeypatch.setattr(text_views, "_select", lambda *_: "select cast('SECRET' as int) as a, '' as b")
    with pytest.raises(UsageError, match="DuckDB cannot read it, though its lines are sound") as caught:
        connect(stored("x.csv", csv_of(GOOD), tmp_path), tmp_path)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert isinstance(caught.value.__context__, duckdb.Error)


NUMBERS = make_codebook({"columns": {"a": {"type": "number"}, "c": {"type": "category", "categories": ["1.000", "2"]}}})


@pytest.mark.parametrize(
    ("options", "values", "total"),
    [
        ("decimal=,&thousands=.", ["1.000", "1,5", "-2.000.000,25", "1e3", ",5", "+7"], -1_997_991.25 + 1000 - 0.5),
        ("decimal=,", ["1000", "1,5", "-2,25", ""], 999.25),
        ("decimal=.&thousands='", ["1'000", "1.5"], 1001.5),
        ("thousands=space", ["1 000", "1.5", "12 345 678"], 12_346_679.5),
        ("thousands=nbsp&decimal=,", ["1\xa0000", "1,5"], 1001.5),
        ("decimal=.", ["1.000", "2.500"], 3.5),
    ],
)
def test_numbers_are_read_by_the_signs_that_are_stated(
    options: str, values: list[str], total: float, tmp_path: Path
) -> None:
    text = "a;c\n" + "".join(f"{value};1.000\n" for value in values)
    with connect(stored(f"x.csv?{options}", csv_of(text), tmp_path), tmp_path) as source:
        assert mismatches(source, NUMBERS) == []
        table = open_table(source, NUMBERS)
        expected = total if "e3" not in text else sum([1000, 1.5, -2_000_000.25, 1000, 0.5, 7])
        assert table.aggregate(s=table.number("a").sum())["s"] == pytest.approx(expected)
        assert table.aggregate(n=table.expr.count(where=table.expr.c == "1.000"))["n"] == len(values)  # text stays


@pytest.mark.parametrize("value", ["1.5", "1.00", "10.00,5", "1..000", "1,5,0", "1.0000", ".5"])
def test_a_number_with_other_signs_than_stated_is_none(value: str, tmp_path: Path) -> None:
    text = f"a;c\n{value};2\n"
    with connect(stored("x.csv?decimal=,&thousands=.", csv_of(text), tmp_path), tmp_path) as source:
        (found,) = local_mismatches(source, NUMBERS)
    assert found.message.startswith("a: got values that are not numbers")
    assert found.examples == (value,)  # as it is written


@pytest.mark.parametrize("sign", [";", "\t", "|"])
@pytest.mark.parametrize(
    "values",
    [
        ["1,5", "2,25", "7"],
        ["1.000", "22.000"],
        ["1.000,5", "NA", ""],
        ["7"] * MANY + ["1,5"],
        ["1,000,000"],
        ["1,5"] * 11 + ["bad1"],
        ["0.000,5"] + ["1.000,5"] * 10,
    ],
)
def test_numbers_of_two_readings_want_their_signs_stated(sign: str, values: list[str], tmp_path: Path) -> None:
    text = f"a{sign}c\n" + "".join(f"{value}{sign}x\n" for value in values)
    with pytest.raises(UsageError, match=r"x.csv: a: got numbers such as 1,5 or 1.000, which have two readings; want"):
        connect(stored("x.csv", csv_of(text), tmp_path), tmp_path)
    with connect(stored("x.csv?decimal=.", csv_of(text), tmp_path), tmp_path) as source:
        assert source.expr.count().to_pyarrow().as_py() == len(values)


@pytest.mark.parametrize(
    "values", [["1.5", "1000"], ["0.125"], ["1.000", "x1"], ["x, y", "z"], ["1", "2"], ["2024-01-01"]]
)
def test_what_has_one_reading_needs_no_signs(values: list[str], tmp_path: Path) -> None:
    text = "a;c\n" + "".join(f"{value};x\n" for value in values)
    with connect(stored("x.csv", csv_of(text), tmp_path), tmp_path) as source:
        assert source.expr.count().to_pyarrow().as_py() == len(values)


def test_a_draft_reads_numbers_by_the_stated_signs(tmp_path: Path) -> None:
    text = "a;b;c\n" + "".join(f"{i}.000;{i},5;x\n" for i in range(1, 40))
    with connect(stored("x.csv?decimal=,&thousands=.", csv_of(text), tmp_path), tmp_path) as source:
        found = draft(source)
        assert (found.columns["a"].type, found.columns["b"].type) == ("integer", "number")
        assert found.columns["a"].high is not None
        assert found.columns["a"].high >= 39_000
        assert mismatches(source, found) == []


@pytest.mark.parametrize("value", ["1,000", "12,345.50", "0,5", "1 000", "1'000"])
def test_a_quoted_number_with_other_signs_is_told_how_to_state_them_to_its_holder_alone(
    value: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(f'region,x\nA,"{value}"\nB,5\n')
    book = make_codebook({"columns": {"x": {"type": "number"}}})
    with connect("a.csv", tmp_path) as source:
        (found,) = local_mismatches(source, book)
        assert "?decimal=, &thousands=." in found.message
        assert "decimal=" not in mismatches(source, book)[0]
