"""The inputs: each is made in a folder, and is to be read as the records it has or refused."""

# a case a line

import gzip
import io
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from statfed.federation.frames import as_arrow

Records = Sequence[tuple[Any, ...]]
BOOK: Mapping[str, Any] = {
    "region": {"type": "category", "categories": ["A", "B", 'the "C"', "D, E; F\tG", "H\nI", "Köln"]},
    "income": {"type": "number", "low": -10_000, "high": 10_000_000},
}
ROWS: Records = (("A", 8675.25), ("B", 309.5), ("A", 4242.0))
NUMBER = {"type": "number", "low": -10_000_000, "high": 10_000_000, "missing": [-9]}
INTEGER = {"type": "integer", "missing": [-9]}
DATE = {"type": "date", "low": "0001-01-01", "high": "9999-12-31"}


@dataclass(frozen=True)
class Case:
    """make: writes it and gives the source; want: its records, None for a refusal; private: what no message may have;
    part: of the page."""

    part: str
    fault: str
    form: str
    make: Callable[[Path], str]
    want: Records | None
    private: tuple[str, ...] = ("8675", "309.5", "4242", "CANARY")
    book: Mapping[str, Any] = field(default_factory=lambda: BOOK)

    def named(self, folder: Path) -> str:
        """The source as a message names it."""
        return next((path.name for path in folder.iterdir() if not path.name.startswith(".")), "")


def cases() -> Iterator[Case]:
    """All of them."""
    from tests.inputs import places

    return chain(_texts(), _values(), places.databases(), places.files())


def line(*fields: object, sign: str = ",") -> str:
    """A record, its fields quoted where they have to be."""
    texts = [str(one) for one in fields]
    return sign.join('"' + text.replace('"', '""') + '"' if set(text) & set(f'"\n\r{sign}') else text for text in texts)


def lines(records: Records = ROWS, sign: str = ",", head: Sequence[str] = ("region", "income")) -> list[str]:
    """A file's lines, the header first."""
    return [line(*record, sign=sign) for record in (head, *records)]


def text_of(records: Records = ROWS, sign: str = ",") -> str:
    return "\n".join([*lines(records, sign), ""])


def _placed(name: str, raw: bytes, options: str = "") -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(raw)
        return f"{name}{options}"

    return make


def _zst(raw: bytes) -> bytes:
    target = io.BytesIO()
    with pa.CompressedOutputStream(target, "zstd") as packed:
        packed.write(raw)
        packed.flush()
        return _closed(packed, target)


def _closed(packed: Any, target: io.BytesIO) -> bytes:
    target.close = lambda: None  # type: ignore[method-assign]  # closing the stream closes it
    packed.close()
    return target.getvalue()


FORMS: Mapping[str, tuple[str, Callable[[bytes], bytes]]] = {
    "csv": ("a.csv", bytes),
    "csv with ;": ("a.csv", bytes),
    "tsv": ("a.tsv", bytes),
    "csv.gz": ("a.csv.gz", partial(gzip.compress, mtime=0)),
    "csv.zst": ("a.csv.zst", _zst),
    "folder of csv": ("a/b.csv", bytes),
}
_SIGNS = {"csv with ;": ";", "tsv": "\t"}


def _texts() -> Iterator[Case]:
    for form, (name, packed) in FORMS.items():
        sign = _SIGNS.get(form, ",")
        for fault, raw, want, options in _text_faults(sign):
            written = raw.encode() if isinstance(raw, str) else raw
            make = _placed(name, packed(written), options)
            if form.startswith("folder"):
                make = _folder(make, options)
            yield Case("Text files", fault, form, make, want)


def _folder(make: Callable[[Path], str], options: str) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        make(folder)
        return f"a{options}"

    return made


def _text_faults(sign: str) -> Iterator[tuple[str, str | bytes, Records | None, str]]:
    """What, the file, its records, and options behind its name."""
    good, rows = text_of(sign=sign), lines(sign=sign)
    odd = [('the "C"', 1.0), ("D, E; F\tG", 2.0), ("H\nI", 3.0), ("Köln", 4.0)]
    read: dict[str, str | bytes] = {
        "as it should be": good,
        "no line end at the end": good.rstrip("\n"),
        "blank lines at the end": good + "\n\n",
        "lines that end in `\\r\\n`": good.replace("\n", "\r\n"),
        "lines that all end in `\\r`": good.replace("\n", "\r"),
        "lines that end in `\\n` and `\\r\\n`": good.replace("\n", "\r\n", 2),
        "UTF-8 with a byte order mark": good.encode("utf-8-sig"),
        "UTF-16 with a byte order mark": good.encode("utf-16"),
        "all fields quoted": "\n".join(sign.join(f'"{one}"' for one in row.split(sign)) for row in rows),
        "blanks around values and names": "\n".join(row.replace(sign, f" {sign} ") for row in rows),
        "a first line `sep=`": f"sep={sign}\n{good}",
    }
    for fault, raw in read.items():
        yield fault, raw, ROWS, ""
    yield "quotes doubled, delimiters, line ends and accents in values", text_of(odd, sign), odd, ""
    yield "Latin-1, stated", text_of(odd, sign).encode("latin-1"), odd, "?encoding=latin-1"
    yield "a header and nothing else", lines((), sign)[0] + "\n", (), ""
    wrong: dict[str, str | bytes] = {
        "a short row": good + "A\n",
        "a long row": good + line("A", 1, 2, sign=sign) + "\n",
        "a footer": good + "Total CANARY\n",
        "two tables": good + "\n" + line("region", "income", "sex", sign=sign) + "\n" + line("B", 3, "f", sign=sign),
        "two dialects": good + "\n".join(lines(sign="|" if sign != "|" else ",")),
        "the header again": good + good,
        "a blank line among records": rows[0] + "\n\n" + "\n".join(rows[1:]),
        "a quote inside a field": good + f'A"x{sign}1\n',
        "a quote that is never closed": good + f'"A{sign}1\n',
        "text behind a closing quote": good + f'"A"CANARY{sign}1\n',
        "Latin-1": text_of(odd, sign).encode("latin-1"),
        "UTF-16 without a mark": good.encode("utf-16-le"),
        "half a character at the end": good.encode() + b"\xc3",
        "a NUL byte": good + f"A{sign}1\0\n",
        "Ctrl-Z at the end": good + "\x1a",
        "a carriage return alone": good + f"A\r{sign}1\n",
        "an empty file": "",
        "blank lines alone": "\n\n\n",
        "a byte order mark alone": "\ufeff".encode(),
        "one name twice": "\n".join([line("region", "income", "income", sign=sign), line("A", 1, 2, sign=sign)]),
        "one name twice but for capitals": "\n".join(
            [line("region", "income", "Income", sign=sign), line("A", 1, 2, sign=sign)]
        ),
        "one name twice but for how letters are composed": "\n".join(
            [line("region", "income", "caf\u00e9", "cafe\u0301", sign=sign), line("A", 1, 2, 3, sign=sign)]
        ),
        "a name that is blank": "\n".join([line("region", "income", " ", sign=sign), line("A", 1, 2, sign=sign)]),
        "names that are all blank": f" {sign} \n" + line("A", 1, sign=sign),
        "a header of over 4 MiB": f"region{sign}income{sign}" + "x" * 5 * 2**20 + "\n",
        "the column is called otherwise": good.replace("income", "wages"),
        "a zip file": b"PK\x03\x04" + good.encode(),
        "a `sep=` of another delimiter": f"sep={'|' if sign != '|' else ';'}\n{good}",
    }
    for fault, raw in wrong.items():
        yield fault, raw, None, ""


def _written(text: str, want: float | None = None) -> tuple[str, Mapping[str, Any], list[Any], Any, list[Any] | None]:
    return f"number `{text}`", NUMBER, ["7", text], pa.string(), None if want is None else [7.0, want]


def _value_faults() -> Iterator[tuple[str, Mapping[str, Any], list[Any], Any, list[Any] | None]]:
    """What, the codebook's entry, the values, how they are stored, and what they are read as."""
    for text, want in {"1e2": 100.0, "+5.": 5.0, ".5": 0.5, "-0": -0.0, "  41 ": 41.0, "00012": 12.0}.items():
        yield _written(text, want)
    refused = (
        "1,5",
        "1,234",
        "1_000",
        "1 234",
        "1\u00a0234",
        "1'234",
        "\u0661\u0662\u0663",
        "\uff11\uff12\uff13",
        "\u22125",
    )
    for text in (
        *refused,
        "0x1F",
        "1e400",
        "inf",
        "nan",
        "NA",
        "5%",
        "(5)",
        "5-",
        "\u00a35",
        "true",
        "1/2",
        "1.2.3",
        "5\u00a0EUR",
    ):
        yield _written(text)
    yield "number, decimal comma in most values", NUMBER, ["104,5", "271,25", "3"], pa.string(), None
    yield "number, thousands in most values", NUMBER, ["1,234", "271,250", "3"], pa.string(), None
    for text in ("-9", "-9.0", "-9.00", "-9e0", " -9"):
        yield f"missing code -9 written `{text}`", NUMBER, ["7", text], pa.string(), [7.0, None]
    yield "number, null and empty text", NUMBER, ["7", None, ""], pa.string(), [7.0, None, None]
    yield "number, NaN among floats", NUMBER, [7.0, float("nan"), None], pa.float64(), [7.0, None, None]
    yield "number, infinite", NUMBER, [7.0, float("inf")], pa.float64(), None
    bound = {"type": "number", "low": 0.0001153578919315, "high": 0.9998846421080685}
    yield (
        "number equal to a bound of 16 digits",
        bound,
        [bound["low"], bound["high"]],
        pa.float64(),
        [bound["low"], bound["high"]],
    )
    yield "number beyond a bound in the 16th digit", bound, [0.9998846421080687], pa.float64(), None
    yield "number out of bounds", NUMBER, [7.0, 10_000_001.5], pa.float64(), None
    yield (
        "category outside the list",
        {"type": "category", "categories": ["x", "y"]},
        ["x", "CANARY"],
        pa.string(),
        None,
    )
    accents = {"type": "category", "categories": ["é", "ß"]}
    yield "category, accents composed otherwise", accents, ["e\u0301", "é"], pa.string(), ["é", "é"]
    coded = {"type": "category", "categories": ["01", "02"]}
    yield "category, leading zeros lost", coded, ["1", "02", "2.0"], pa.string(), ["01", "02", "02"]
    yield "category from floats with a missing one", coded, [1.0, float("nan"), 2.0], pa.float64(), ["01", None, "02"]
    for text, whole in {"1e5": 100_000, "7.00": 7, "9007199254740993": 9007199254740993}.items():
        yield f"integer `{text}`", INTEGER, [text], pa.string(), [whole]
    for text in ("1.5", "1e16", "9223372036854775808", "1_000", "0x10"):
        yield f"integer `{text}`", INTEGER, ["7", text], pa.string(), None
    yield "integer, floats with NaN", INTEGER, [1.0, float("nan"), 3.0], pa.float64(), [1, None, 3]
    yield "integer, 64-bit, every digit", INTEGER, [2**63 - 1, -(2**63)], pa.int64(), [2**63 - 1, -(2**63)]
    yield "integer, unsigned beyond 2^53", INTEGER, [2**53 + 1], pa.uint64(), [2**53 + 1]
    yield "integer, unsigned beyond 2^63", INTEGER, [1, 2**63 + 1], pa.uint64(), None
    yield "integer, floats beyond 2^53", INTEGER, [2.0**53 + 2], pa.float64(), None
    for words, truths in (
        (["1", "0"], 1),
        (["Yes", "no"], 1),
        (["T", "F"], 1),
        (["TRUE", "false"], 1),
        (["1.0", "0.0"], 1),
        (["ja", "nein"], 0),
        (["2", "0"], 0),
        (["on", "off"], 0),
    ):
        yield (
            f"boolean `{words[0]}`, `{words[1]}`",
            {"type": "boolean"},
            list(words),
            pa.string(),
            [True, False] if truths else None,
        )
    for text in ("2024-02-29", "0001-01-01", "9999-12-31", "20240229"):
        iso = f"{text[:4]}-{text[4:6]}-{text[6:]}" if len(text) == 8 else text
        days = (date.fromisoformat(iso) - date(1970, 1, 1)).days
        yield f"date `{text}`", DATE, [text], pa.string(), [days]
    for text in (
        "2023-02-29",
        "2024-02-30",
        "0000-01-01",
        "10000-01-01",
        "-0001-01-01",
        "2024-3-2",
        "20.03.2024",
        "03/04/2024",
        "2024/03/20",
        "2024-03-20T24:00",
        "2024-12-31T23:59:60",
        "2024-03-21 00:00:00",
        "20240230",
        "45371",
        "\uff12024-01-01",
    ):
        yield f"date `{text}`", DATE, ["2021-05-05", text], pa.string(), None


def _typed() -> Iterator[tuple[str, Mapping[str, Any], list[Any], Any, list[Any] | None]]:
    """As `_value_faults`, of types that text has none of."""
    words = {"type": "category", "categories": ["x", "y"]}
    noon, night = datetime(2024, 3, 20, 12), datetime(2024, 3, 20)
    day = (date(2024, 3, 20) - date(1970, 1, 1)).days
    yield "text as a dictionary", words, ["x", "y", "x"], pa.dictionary(pa.int8(), pa.string()), ["x", "y", "x"]
    yield "numbers as a dictionary", NUMBER, [1.5, 2.5], pa.dictionary(pa.int8(), pa.float64()), [1.5, 2.5]
    yield "large text", words, ["x", "y"], pa.large_string(), ["x", "y"]
    yield "text as views", words, ["x", "y"], pa.string_view(), ["x", "y"]
    yield "no value at all", NUMBER, [None, None], pa.null(), [None, None]
    yield "decimals", NUMBER, [Decimal("1.50"), Decimal("-9.00")], pa.decimal128(20, 2), [1.5, None]
    yield "decimals of 38 digits", NUMBER, [Decimal("0.1"), None], pa.decimal128(38, 37), [0.1, None]
    yield "decimals of 40 digits", NUMBER, [Decimal("1.50")], pa.decimal256(40, 2), None
    yield "decimals of negative scale", NUMBER, [Decimal("1200")], pa.decimal128(5, -2), None
    yield "small decimals", NUMBER, [Decimal("1.50")], pa.decimal64(10, 2), [1.5]
    yield "16-bit floats", NUMBER, [1.5, -9.0], pa.float16(), [1.5, None]
    yield "truths as numbers", NUMBER, [True, False], pa.bool_(), [1.0, 0.0]
    yield "bytes as numbers", NUMBER, [b"5"], pa.binary(), None
    yield "bytes as a category", words, [b"x"], pa.binary(), ["x"]
    yield "lists as numbers", NUMBER, [[1.0]], pa.list_(pa.float64()), None
    yield "records as numbers", NUMBER, [{"a": 1.0}], pa.struct({"a": pa.float64()}), None
    yield "lists as a category", words, [["x"]], pa.list_(pa.string()), None
    yield "durations as numbers", NUMBER, [timedelta(days=1)], pa.duration("s"), None
    yield "times of day as numbers", NUMBER, [time(12)], pa.time64("us"), None
    yield "dates as numbers", NUMBER, [date(2024, 3, 20)], pa.date32(), None
    yield "dates of 32 and 64 bits", DATE, [date(2024, 3, 20)], pa.date64(), [day]
    yield "timestamps at midnight", DATE, [night], pa.timestamp("ns"), [day]
    yield "timestamps at noon", DATE, [noon], pa.timestamp("us"), None
    yield "timestamps with a time zone", DATE, [night.replace(tzinfo=UTC)], pa.timestamp("us", "UTC"), None
    yield "integers as dates", DATE, [20240320], pa.int32(), [day]


_UNLIKE: Mapping[str, Mapping[str, Records | None]] = {
    "decimals of 40 digits": {"pandas": [(1.5,)]},  # where they are Python's
    "decimals of negative scale": {"pandas": [(1200.0,)]},
    "16-bit floats": {"arrow": None},
}


def _values() -> Iterator[Case]:
    for what, entry, values, kind, want in (*_value_faults(), *_typed()):
        records = None if want is None else [(one,) for one in want]
        private = tuple(text for one in values if len(text := str(one)) > 4 and not _kept(text, entry))
        text = pa.types.is_string(kind)
        column = pa.array(values, kind)
        except_in = _UNLIKE.get(what, {})
        for form, make in (*(_plain(values) if text else ()), *_tables(pa.table({"x": column}))):
            unlike = except_in.get(form, records)
            yield Case("Values", what, form, make, unlike, private, {"x": entry})


def _kept(text: str, entry: Mapping[str, Any]) -> bool:
    """Is a value public by the codebook?"""
    return text in map(str, (*entry.values(), *entry.get("categories", ())))


def _plain(values: Sequence[str | None]) -> Iterator[tuple[str, Callable[[Path], str]]]:
    for form, name, sign in (("csv", "a.csv", ","), ("csv with ;", "a.csv", ";")):
        written = "\n".join([f"x{sign}y", *(f'"{one or ""}"{sign}k' for one in values)])
        yield form, _placed(name, written.encode())
    copied = list(values)

    def sqlite(folder: Path) -> str:
        with sqlite3.connect(folder / "a.db") as lite:
            lite.execute("create table t (x text)")
            lite.executemany("insert into t values (?)", [(one,) for one in copied])
        lite.close()
        return "sqlite:///a.db?table=t"

    yield "sqlite", sqlite


def _tables(table: Any) -> Iterator[tuple[str, Callable[[Path], str]]]:
    def parquet(folder: Path) -> str:
        pyarrow.parquet.write_table(table, folder / "a.parquet")
        return "a.parquet"

    def arrow(folder: Path) -> str:
        with pa.OSFile(str(folder / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return "a.arrow"

    def database(folder: Path) -> str:
        with duckdb.connect(str(folder / "a.duckdb")) as connection:
            connection.register("given", table)
            connection.execute("create table t as select * from given")
        return "duckdb:///a.duckdb?table=t"

    def memory(data: Callable[[], Any]) -> Callable[[Path], str]:
        def make(folder: Path) -> str:
            pyarrow.parquet.write_table(as_arrow("a", data()), folder / "a.parquet")
            return "a.parquet"

        return make

    kind = table.schema.field("x").type
    if _writes(parquet):
        yield "parquet", parquet
    yield "arrow", arrow
    if _writes(database):
        yield "duckdb", database
    if not pa.types.is_binary_view(kind):
        yield "pandas", memory(lambda: pd.DataFrame({"x": table.column("x").to_pandas()}))
    if not pa.types.is_string(kind):
        yield "Arrow stream", memory(lambda: pa.RecordBatchReader.from_batches(table.schema, table.to_batches()))


def _writes(make: Callable[[Path], str]) -> bool:
    """Can the format hold it at all?"""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        try:
            make(Path(folder))
        except (pa.ArrowException, duckdb.Error, OSError):
            return False
    return True
