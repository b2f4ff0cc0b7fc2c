"""Drive both halves of an analysis over data frames in memory: the shortest path from a question to its result.

No policy, ledger, noise or messages: tests of analyses compare `federate` with the pooled computation, and
tests/strategies/analyses/test_analysis_laws.py puts every analysis under its laws with it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.method import Arrays, Method, Part, Question, Total, checked, read_question, summed
from statfed.core.result import Result
from statfed.core.table import Table
from statfed.core.terms import Terms
from statfed.lab.laws.frames import codebook_of as codebook_of
from statfed.lab.laws.frames import table_of as table_of


def federate(
    analysis: str,
    frames: Sequence[pd.DataFrame],
    codebook: Codebook,
    *,
    where: Sequence[str] = (),
    **options: Any,
) -> Result:
    """The result of `analysis` with `options` over `frames`, one holder each."""
    query = Terms(
        method=analysis,
        options=options,
        codebook=codebook,
        where=parse_where(where, codebook),
        holders=tuple(f"holder-{i}" for i in range(len(frames))),
        seed=1,
    )
    module, question = read_question(query)
    whole = {name: table_of(frame, codebook) for name, frame in zip(query.holders, frames, strict=True)}
    tables = {name: table.filter(*map(table.holds, query.where)) for name, table in whole.items()}
    return drive(module, question, tables)


Summing = Callable[[Mapping[str, Arrays], Mapping[str, Part]], Arrays]


def drive(analysis: Method, question: Question[Any], tables: Mapping[str, Table], summing: Summing = summed) -> Result:
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
