"""The coordinator's half of a query: admit, one protected sum after another, release.

The analysis is a straight line of sums (see `statfed.core.method`); this module sends each ask to every holder, has
the protection form the total, and gives it back to the analysis. What comes out has not passed the release rules yet.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from statfed.core.applicability import applicable
from statfed.core.errors import EngineError
from statfed.core.fixed_point import layout_of
from statfed.core.method import Ask, Total, functions_of, private_asks, read_question
from statfed.core.privacy.noise import plan
from statfed.core.privacy.placement import note, shares
from statfed.core.progress import Progress
from statfed.core.protection import agree, formed, read_protection
from statfed.core.terms import Terms
from statfed.core.randomness import stream
from statfed.core.result import Result
from statfed.core.statement import Admission, Closing, Contributed
from statfed.server.engine import Session
from statfed.server.exchange import SHORT, Exchange

LIMIT = 10_000  # sums of one query; an analysis that wants more does not converge


@dataclass
class Sum:
    """What one sum took. Bytes count arrays and the protection's packets, all parties together."""

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
    query: Terms,
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
    analysis, question = read_question(query)
    applicable(query)
    protection, _ = read_protection(query)
    exchange = Exchange(session, query, run, progress)
    try:
        inquiry = Inquiry(Result(query.analysis, "", {"none": ()}), exchange.admit(Admission))
        on_admission(inquiry.admissions)
        coordination = analysis.coordinate(question)
        noise = None
        if query.privacy:
            name, times = private_asks(analysis, question)
            noise = plan(analysis.parts(question, Ask(name)), query.privacy, times, shares(query))
        exchange.sizes = {name: admission.size for name, admission in inquiry.admissions.items()}
        coordinator = protection.coordinator(agree(run, query, exchange.sizes))
        functions = functions_of(question)
        ask, counted = next(coordination), query.holders
        for number in range(1, LIMIT + 1):
            progress("protected sums", number - 1, 0)
            started = time.perf_counter()
            parts = analysis.parts(question, ask)
            layout = noise.layout(len(query.holders)) if noise else layout_of(parts, exchange.sizes)
            aggregate, facts, traffic = exchange.total(
                formed(coordinator, layout, functions.get(ask.name, "")),
                partial(exchange.requests, "ask", number, ask),
                Contributed,
                number,
                f"ask {ask.name}",
                timeout,
            )
            counted = _same_holders(counted, aggregate.holders, exchange.dropped, number)
            if noise:
                drawn = stream(query.seed, query.digest(), number, "central noise")
                total = Total(noise.values(aggregate.total, drawn), noise.std(len(aggregate.holders)))
            else:
                total = Total(aggregate.total)
            inquiry.sums.append(
                Sum(
                    ask.name,
                    time.perf_counter() - started,
                    traffic.down,
                    traffic.up,
                    {name: fact.seconds for name, fact in facts.items()},
                    {name: fact.ledger_head for name, fact in facts.items()},
                    tuple(sorted({rule for fact in facts.values() for rule in fact.rules})),
                )
            )
            try:
                ask = coordination.send(total)
            except StopIteration as end:
                inquiry.result = _told(end.value, counted, query.holders)
                said = note(query.privacy) if query.privacy else None
                if said:
                    inquiry.result = inquiry.result.with_(notes=(*inquiry.result.notes, said))
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


def _same_holders(
    before: tuple[str, ...], now: tuple[str, ...], dropped: Mapping[str, str], number: int
) -> tuple[str, ...]:
    """Whom a query's sums are about: whoever is in the first one, and then the same ones.

    Raises EngineError where a later sum is about others: no figure could be made of both.
    """
    if number > 1 and set(now) != set(before):
        gone = ", ".join(f"{name} ({dropped.get(name, 'absent')})" for name in sorted(set(before) ^ set(now)))
        raise EngineError(
            f"sum {number}: it is about other holders than the sums before it: {gone}; want a new run, of those that "
            "are there"
        )
    return tuple(sorted(now))


def _told(result: Result, counted: tuple[str, ...], asked: tuple[str, ...]) -> Result:
    """The result, with a note where holders are missing in it."""
    missing = sorted(set(asked) - set(counted))
    if not missing:
        return result
    note = f"without {', '.join(missing)}, which dropped out: a result over {len(counted)} of {len(asked)} holders"
    return result.with_(notes=(*result.notes, note))
