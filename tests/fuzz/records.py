"""Targets: files of records. What is refused of them says nothing of what stands in them."""

import gzip
import io
import sqlite3
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather, parquet

from statfed.client.data.drafting import draft
from statfed.client.data.sources import Source, connect
from statfed.client.data.tables import mismatches, open_table
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.records import Records, load_records
from tests.fuzz.mutations import blobs
from tests.fuzz.trial import Target

FRAME = pd.DataFrame(
    {
        "region": ["A", "B"] * 15,
        "income": np.r_[np.linspace(1.0, 900.0, 29), 8675309.25],
        "name": ["CANARY7391", *(f"person {i}" for i in range(29))],
        "start": ["2020-01-01"] * 30,
    }
)
"""One income is beyond the codebook, and no name is in it."""
FITTING = FRAME.assign(name="x", income=FRAME["income"].clip(upper=900.0))
BOOK = make_codebook(
    {
        "columns": {
            "region": {"type": "category", "categories": ["A", "B"]},
            "income": {"type": "number", "low": 0, "high": 1000, "missing": [-9]},
            "name": {"type": "category", "categories": ["x", "y"]},
            "start": {"type": "date", "low": "2000-01-01", "high": "2030-01-01"},
        }
    }
)


def csv(separator: str = ",", end: str = "\n", quote: bool = False) -> bytes:
    text = FRAME.to_csv(index=False, sep=separator, lineterminator=end, quoting=1 if quote else 0)
    return text.encode()


def packed(first: bytes, again: bytes, times: int) -> bytes:
    """A gzip file that is small and whose contents are not."""
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(first), *(packer.compress(again) for _ in range(times)), packer.flush()]
    return b"".join(parts)


def _parquet(compression: str = "snappy", frame: pd.DataFrame = FRAME) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.Table.from_pandas(frame), buffer, compression=compression)
    return buffer.getvalue()


def _arrow(frame: pd.DataFrame = FRAME) -> bytes:
    buffer = io.BytesIO()
    feather.write_feather(pa.Table.from_pandas(frame), buffer, compression="uncompressed")
    return buffer.getvalue()


def _database(folder: Path, kind: str) -> bytes:
    path = folder / f"made.{kind}"
    path.unlink(missing_ok=True)
    if kind == "sqlite":
        with sqlite3.connect(path) as lite:
            FITTING.to_sql("people", lite, index=False)
        lite.close()
    else:
        with duckdb.connect(str(path)) as duck:
            duck.register("frame", FITTING)
            duck.execute("create table people as select * from frame")
    return path.read_bytes()


def _read(suffix: str, raw: bytes, folder: Path, url: str = "") -> None:
    """What a holder does with a file: draft; and compare with the codebook, and read what fits."""
    path = folder / f"people{suffix}"
    path.write_bytes(raw)
    with connect(url.format(path=path) or str(path), folder) as source:
        refused = []
        steps: tuple[Callable[[Source], object], ...] = (draft, _fitting)
        for step in steps:
            try:
                step(source)
            except UsageError as error:
                refused.append(str(error))
    if refused:
        raise UsageError("\n".join(refused))


def _fitting(source: Source) -> None:
    found = mismatches(source, BOOK)
    if found:
        raise UsageError("\n".join(found))
    open_table(source, BOOK, (), ("region", "income")).rows(("region", "income"))


def _npz(raw: bytes, folder: Path) -> None:
    path = folder / "people.npz"
    path.write_bytes(raw)
    load_records(path)


def _records(folder: Path) -> bytes:
    path = folder / "made.npz"
    Records(np.zeros((4, 2, 3), np.float32), np.arange(4), np.arange(4)).save(path)
    return path.read_bytes()


def targets(folder: Path) -> tuple[Target, ...]:
    """folder: where samples are made."""
    plain, wide = csv(), csv(";", "\r\n", quote=True)
    digits = packed(b"region,income\nA,", b"1" * 1_000_000, 200)
    many = packed(b"region,income,name,start\n", b"A,1,x,2020-01-01\n" * 10_000, 30)
    fits = FITTING.to_csv(index=False).encode()
    sixteen = plain.decode().encode("utf-16")
    latin = plain.replace(b"person 3", b"p\xe9rson 3")
    made: tuple[tuple[str, tuple[bytes, ...], tuple[bytes, ...]], ...] = (
        (
            ".csv",
            (plain, wide, csv("\t"), latin, fits),
            (b"", b"\n", b"\x1a", b"sep=;\n" + wide, sixteen),
        ),
        (".tsv", (csv("\t"),), (b"\t" * 40, plain)),
        (
            ".csv.gz",
            (gzip.compress(plain, mtime=0), gzip.compress(fits, mtime=0)),
            (digits, many, gzip.compress(plain, mtime=0)[:-9], plain),
        ),
        (".parquet", (_parquet(), _parquet("gzip", FITTING)), (b"PAR1PAR1", b"PAR1" + b"\xff" * 8 + b"PAR1")),
        (".arrow", (_arrow(), _arrow(FITTING)), (b"ARROW1\0\0" + b"\xff" * 64 + b"ARROW1",)),
    )
    found = [Target(name, blobs(*good), partial(_suffixed, name), bombs, counted=False) for name, good, bombs in made]
    for kind in ("duckdb", "sqlite"):
        url = f"{kind}:///{{path}}?table=people"
        read: Callable[[bytes, Path], None] = partial(_suffixed, f".{kind}", url=url)
        found.append(
            Target(kind, blobs(_database(folder, kind)), read, (b"", b"SQLite format 3\0"), share=0.3, counted=False)
        )
    found.append(Target("records .npz", blobs(_records(folder)), _npz))
    return tuple(found)


def _suffixed(suffix: str, raw: bytes, folder: Path, url: str = "") -> None:
    _read(suffix, raw, folder, url)
