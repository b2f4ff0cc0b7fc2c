"""The coordinator's half of a query: admit, one protected sum after another, release.

The analysis is a straight line of sums (see `statfed.core.analysis`); this module sends each ask to every holder, has
the protection form the total, and gives it back to the analysis. What comes out has not passed the release rules yet.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.analysis import Ask, Total, private_asks, read_query
from statfed.core.discovery import load
from statfed.core.errors import EngineError, StatfedError, UsageError
from statfed.core.noise import plan
from statfed.core.progress import Progress
from statfed.core.query import Query
from statfed.core.result import Result
from statfed.core.statement import Admission, Closing, Contributed
from statfed.server.engine import Session
from statfed.server.exchange import SHORT, Exchange, arrays_in, facts_of, joined

LIMIT = 10_000  # sums of one query; an analysis that wants more does not converge


@dataclass
class Sum:
    """What one sum took. Bytes count array contents, all holders together."""

    ask: str
    seconds: float
    bytes_down: int
    bytes_up: int
    holder_seconds: dict[str, float]
    ledger_heads: dict[str, str]
    rules: tuple[str, ...]


@dataclass
class Inquiry:
    """A finished query. result: not yet under release rules."""

    result: Result
    admissions: dict[str, Admission]
    sums: list[Sum] = field(default_factory=list)
    closings: dict[str, Closing] = field(default_factory=dict)


def inquire(
    session: Session,
    query: Query,
    run: str,
    *,
    timeout: float,
    progress: Progress,
    on_admission: Callable[[Mapping[str, Admission]], None] = lambda _: None,
) -> Inquiry:
    """Answer a query with every holder of the session.

    on_admission is called after all holders have admitted and before anything is spent; it may raise to end the run.
    Raises Refused or UsageError when a holder does not admit the query, EngineError when one fails later.
    """
    analysis, question = read_query(query)
    protection = load("statfed.strategies.protections", query.protection.name, "protection")
    if len(query.holders) < protection.REQUIRES.minimum_holders:
        raise UsageError(
            f"protection {query.protection.name}: got {len(query.holders)} holders; "
            f"want at least {protection.REQUIRES.minimum_holders}"
        )
    exchange = Exchange(session, query, run, progress)
    try:
        inquiry = Inquiry(Result(query.analysis, "", {"none": ()}), exchange.admit(Admission))
        on_admission(inquiry.admissions)
        coordination = analysis.coordinate(question)
        noise = None
        if query.privacy:
            name, times = private_asks(analysis, question)
            noise = plan(analysis.parts(question, Ask(name)), query.privacy, times).std(len(query.holders))
        ask = next(coordination)
        for number in range(1, LIMIT + 1):
            progress("protected sums", number - 1, 0)
            started = time.perf_counter()
            parts = analysis.parts(question, ask)
            replies = exchange.ask("ask", timeout, number, ask)
            arrived, facts = _contributions(replies, number)
            total = Total(protection.combine_sums(arrived, parts), noise)
            inquiry.sums.append(
                Sum(
                    ask.name,
                    time.perf_counter() - started,
                    sum(a.nbytes for a in ask.arrays.values()) * len(query.holders),
                    sum(a.nbytes for arrays in arrived.values() for a in arrays.values()),
                    {name: fact.seconds for name, fact in facts.items()},
                    {name: fact.ledger_head for name, fact in facts.items()},
                    tuple(sorted({rule for fact in facts.values() for rule in fact.rules})),
                )
            )
            try:
                ask = coordination.send(total)
            except StopIteration as end:
                inquiry.result = end.value
                progress("protected sums", number, number)
                break
        else:
            raise EngineError(f"{query.analysis}: got no result after {LIMIT} sums")
    except BaseException:
        with suppress(Exception):  # the first failure is the one to report; a reservation left over only over-counts
            exchange.release(5.0)
        raise
    inquiry.closings = exchange.release(SHORT)
    return inquiry


def _contributions(
    replies: Mapping[str, Any], number: int
) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Contributed]]:
    """Arrays and facts of one sum by holder name. Every holder's refusal is named."""
    arrived, facts = {}, {}
    errors: list[StatfedError] = []
    for name, reply in replies.items():
        try:
            fact = facts_of(reply, Contributed, name)
            if fact.round != number:
                raise EngineError(f"{name}: got a contribution to sum {fact.round}; want sum {number}")
            arrived[name] = {key: np.asarray(value) for key, value in arrays_in(reply, name).items()}
            facts[name] = fact
        except StatfedError as error:
            errors.append(error)
    if errors:
        raise joined(errors)
    return arrived, facts
