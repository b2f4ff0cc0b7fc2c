"""A method from outside that spends its budget as its options tell it to: for tests of holders and of the coordinator.

It asks for `count` and `income` (their sums over records), in the order and with the shares of `asks`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from ibis import _

from statfed.core.errors import Refused, UsageError
from statfed.core.method import (
    Adaptive,
    Arrays,
    Ask,
    Budget,
    Cells,
    Coordination,
    Counts,
    Fixed,
    Magnitude,
    Part,
    Question,
    Scheduled,
)
from statfed.core.result import Result
from statfed.core.section import Section
from statfed.core.table import Table
from tests.fakes import brought

HIGH = 200_000.0


class Options(Section):
    """asks: name and share of each. adaptive: are they chosen on the way? lenient: go on after a refusal."""

    asks: tuple[tuple[str, float], ...] = (("count", 0.5), ("income", 0.5))
    adaptive: bool = True
    lenient: bool = False
    remembers: bool = False


def columns(question: Question[Options]) -> tuple[str, ...]:
    question.codebook.column("income")
    return ("income",)


def budget(question: Question[Options]) -> Budget:
    if question.options.adaptive:
        return Adaptive(6)
    return Fixed(tuple(Scheduled(name, 1, share) for name, share in question.options.asks))


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name == "count":
        return {"n": Part((), 1, integer=True, single=True, what=Counts())}
    if ask.name == "income":
        return {"s": Part((), HIGH, what=Magnitude())}
    raise UsageError(f"outsider: unknown ask: got {ask.name!r}; want count or income")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    if ask.name == "count":
        return {"n": np.array(table.aggregate(n=_.count())["n"])}
    return {"s": np.array(float(table.aggregate(s=table.number("income").sum())["s"]))}


def discloses(question: Question[Options], ask: Ask) -> Cells:
    return Cells((), ("income",))


def coordinate(question: Question[Options], state: Arrays | None = None) -> Coordination:
    """state: `sums`, those that were made."""
    sums = list(np.asarray((state or {}).get("sums", np.zeros(0))))
    refused: list[str] = []
    for name, share in question.options.asks[len(sums) :]:
        kept = {"sums": np.array(sums), "on": np.array(1)} if question.options.remembers else {}
        try:
            total = yield Ask(name, share=share, state=kept)
        except Refused as error:
            if not question.options.lenient:
                raise
            refused.append(str(error))
            continue
        sums.append(float(next(iter(total.values()))))
    rows = [{"sum": value} for value in sums]
    return Result("outsider", "Sums", {"sums": rows}, notes=tuple(refused))


def forgetful(question: Question[Options]) -> Coordination:
    """As `coordinate`, of a method that cannot go on."""
    return coordinate(question)


METHOD: dict[str, Any] = {
    "TITLE": "Spends as told",
    "GROUP": "Tests",
    "PUSHES_DOWN": "all",
    "Options": Options,
    "columns": columns,
    "budget": budget,
    "parts": parts,
    "contribute": contribute,
    "discloses": discloses,
    "coordinate": coordinate,
}


@contextmanager
def installed(**changes: Any) -> Iterator[str]:
    """The method as if another package had brought it. Yields its name."""
    with brought("analyses", METHOD | changes) as name:
        yield name
