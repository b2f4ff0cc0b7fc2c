"""Drive both halves of an analysis over data frames in memory: the shortest path from a question to its result.

No policy, ledger, noise or messages: tests of analyses compare `federate` with the pooled computation, and
tests/test_analysis_laws.py puts every analysis under its laws with it.
"""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa

from statfed.core.analysis import Analysis, Arrays, Part, Question, Total, checked, read_query, summed
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.query import Query, parse_condition
from statfed.core.result import Result
from statfed.core.table import Table

_KINDS = {
    "number": pa.float64(),
    "integer": pa.int64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "id": pa.string(),
}
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


def table_of(frame: pd.DataFrame, codebook: Codebook) -> Table:
    """A holder's table in the form that `statfed.client.data` brings it to."""
    arrow = pa.table(
        {
            name: pa.array(frame[name] if name in frame else [None] * len(frame), _KINDS[column.type], from_pandas=True)
            for name, column in codebook.columns.items()
        }
    )
    name, engine = f"t{next(_NUMBERS)}", _engine(threading.get_ident())
    engine.con.register(name, arrow)
    return Table(engine.table(name), codebook)


@cache
def _engine(thread: int) -> Any:  # one connection is not for two threads
    """One engine for all tables of a thread: starting one costs more than a small query."""
    return ibis.duckdb.connect(threads=1)


def federate(
    analysis: str,
    frames: Sequence[pd.DataFrame],
    codebook: Codebook,
    *,
    where: Sequence[str] = (),
    **options: Any,
) -> Result:
    """The result of `analysis` with `options` over `frames`, one holder each."""
    query = Query(
        analysis=analysis,
        options=options,
        codebook=codebook,
        where=tuple(parse_condition(text, codebook) for text in where),
        holders=tuple(f"holder-{i}" for i in range(len(frames))),
        seed=1,
    )
    module, question = read_query(query)
    whole = {name: table_of(frame, codebook) for name, frame in zip(query.holders, frames, strict=True)}
    tables = {name: table.filter(*map(table.holds, query.where)) for name, table in whole.items()}
    return drive(module, question, tables)


Summing = Callable[[Mapping[str, Arrays], Mapping[str, Part]], Arrays]


def drive(
    analysis: Analysis, question: Question[Any], tables: Mapping[str, Table], summing: Summing = summed
) -> Result:
    """The result of both halves over ready tables, one a holder. summing: forms the totals of contributions."""
    run = analysis.coordinate(question)
    total: Total | None = None
    while True:
        try:
            ask = run.send(total)  # type: ignore[arg-type]  # None starts a generator
        except StopIteration as end:
            result: Result = end.value
            return result
        parts = analysis.parts(question, ask)
        sent = {name: checked(analysis.contribute(t, question, ask), parts, name) for name, t in tables.items()}
        total = Total(summing(sent, parts))


def split(frame: pd.DataFrame, holders: int, seed: int = 0) -> list[pd.DataFrame]:
    """`frame` dealt at random to `holders`, unequally: some may get one record or none."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(holders, 0.7))
    owner = rng.choice(holders, len(frame), p=shares)
    return [frame[owner == i].reset_index(drop=True) for i in range(holders)]
