"""Data frames as holders' tables, and a population dealt to holders as its codebook says that it may lie."""

import itertools
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from statfed.core.codebook import Codebook, make_codebook
from statfed.core.randomness import Stream, stream
from statfed.core.table import Size, Table

if TYPE_CHECKING:
    import pandas as pd

_NUMBERS = itertools.count()


def codebook_of(columns: Mapping[str, Any], **rest: Any) -> Codebook:
    """A codebook from `{"age": ("integer", 0, 120), "sex": ["f", "m"], "w": {...full column...}}`."""
    made: dict[str, Any] = {}
    for name, column in columns.items():
        if isinstance(column, Mapping):
            made[name] = column
        elif isinstance(column, tuple):
            made[name] = {"type": column[0], "low": column[1], "high": column[2]}
        elif isinstance(column, list):
            made[name] = {"type": "category", "categories": column}
        else:
            made[name] = {"type": column}
    return make_codebook({"columns": made} | rest)


def table_of(frame: "pd.DataFrame", codebook: Codebook) -> Table:
    """A holder's table in the form that `statfed.client.data.tables` brings it to."""
    import pyarrow as pa

    kinds = {
        "number": pa.float64(),
        "integer": pa.int64(),
        "boolean": pa.bool_(),
        "category": pa.string(),
        "id": pa.string(),
        "date": pa.int64(),
    }
    arrow = pa.table(
        {
            name: pa.array(frame[name] if name in frame else [None] * len(frame), kinds[column.type], from_pandas=True)
            for name, column in codebook.columns.items()
        }
    )
    name, engine = f"t{next(_NUMBERS)}", _engine(threading.get_ident())
    engine.con.register(name, arrow)
    return Table(engine.table(name), codebook)


def size_of(frame: "pd.DataFrame", codebook: Codebook) -> Size:
    """The public size that a simulated holder of these records declares."""
    unit = codebook.role("unit")
    records = max(1, len(frame))
    persons = records if unit is None or unit not in frame else max(1, int(frame[unit].nunique()))
    return Size(records, persons)


def holder_table(frame: "pd.DataFrame", codebook: Codebook, size: Size | None = None) -> Table:
    """As `table_of`, with what an ask brings: public size, random numbers, and room for what a method keeps.

    size: what the holder declares, its true size by default.
    """

    def random(purpose: str) -> Stream:
        return stream(1, "holder", purpose)

    return replace(table_of(frame, codebook), size=size or size_of(frame, codebook), random=random, kept={})


@cache
def _engine(thread: int) -> Any:  # noqa: ARG001  # one connection is not for two threads
    """One engine for all tables of a thread: starting one costs more than a small query."""
    import ibis

    return ibis.duckdb.connect(threads=1)


def dealt(frame: "pd.DataFrame", nested: str | None, holders: int, seed: int = 0) -> "list[pd.DataFrame]":
    """`frame` at `holders` holders, unequally and at random. nested: column whose values do not span holders (primary
    sampling units, enterprises); None: records lie anywhere."""
    rng = np.random.default_rng(seed)
    share = np.arange(1, holders + 1) / (holders * (holders + 1) / 2)
    if nested is None:
        owner = rng.choice(holders, len(frame), p=share)
    else:
        values = sorted(frame[nested].unique())
        place = dict(zip(values, np.arange(len(values)) % holders, strict=True))
        owner = frame[nested].map(place).to_numpy()
    return [frame[owner == i].reset_index(drop=True) for i in range(holders)]
