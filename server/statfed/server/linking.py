"""The coordinator's end of a linkage: it relays sealed packets between the parties, and gets what was agreed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from statfed.core.errors import EngineError, Refused
from statfed.core.linkage import Asked, InPlace, Outcome, Rounds
from statfed.core.method import Ask
from statfed.core.progress import Progress
from statfed.core.protection import Replies, agree
from statfed.core.resolve import Resolved
from statfed.core.result import Basis, Result, Row
from statfed.core.statement import Receipt
from statfed.server.exchange import Exchange, Traffic

LINKAGE = "link units"
WITHHELD = "withheld"


def linked(study: Resolved, exchange: Exchange, run: str, timeout: float, progress: Progress) -> tuple[Result, Traffic]:
    """Link the units of all holders; the result, not yet under release rules, and what it moved.

    Raises Refused where figures would be about too few units, EngineError where a party fails.
    """
    module, asked = study.protection, study.linking
    if not isinstance(module, InPlace) or asked is None:
        raise EngineError(f"{study.terms.protection.name}: no linkage")
    progress(LINKAGE, 0, 1)
    rounds: Any = module.coordinator(agree(run, study.terms, exchange.sizes))
    watched = cast(Any, _watched(rounds, progress))  # gives an outcome, and no sum
    found, _, traffic = exchange.total(watched, dict, Receipt, 1, LINKAGE, timeout)
    progress(LINKAGE, 1, 1)
    result = _result(asked, cast(Outcome, found))
    return (result.with_(notes=(*result.notes, _against(study))) if study.linked_noise else result), traffic


def _against(study: Resolved) -> str:
    """Against whom epsilon does not hold, and of which neighbours it is, for the result."""
    seen = " and ".join(f"{name}, which sees the {what}" for name, what in sorted(study.seen.items()))
    return (
        f"epsilon is of one unit more or less at one holder, and holds against everybody but {seen or 'nobody'} before "
        "there is noise in it"
    )


def _watched(rounds: Rounds, progress: Progress) -> Rounds:
    """The same, telling how far what takes several exchanges is: what is over in one is not worth a line."""
    told: tuple[str, int] | None = None
    reply: Replies | None = None
    while True:
        try:
            stage = next(rounds) if reply is None else rounds.send(reply)
        except StopIteration as end:
            if told:
                progress(f"{LINKAGE}: {told[0]}", told[1], told[1])
            outcome: Outcome = end.value
            return outcome
        doing, done, total = stage.standing
        if told and (told[0] != doing or not done):
            progress(f"{LINKAGE}: {told[0]}", told[1], told[1])
            told = None
        if doing and done:
            progress(f"{LINKAGE}: {doing}", done, total)
            told = doing, total
        reply = yield stage


def first_ask(study: Resolved) -> str:
    """The name of what the method asks for first: what its disclosures are declared by."""
    first: Ask = next(study.method.coordinate(study.question))
    return first.name


def apart(result: Result) -> tuple[Result, Mapping[str, Sequence[Row]]]:
    """A result without the rows that were never opened, which rules of a release cannot look at, and those rows.

    Cells of such a table do not add up to anything that is told.
    """
    kept, hidden, basis = {}, dict[str, Sequence[Row]](), dict(result.basis)
    for name, rows in result.tables.items():
        counts = own.counts if (own := result.basis_of(name)) else ()
        closed = [row for row in rows if counts and all(row.get(count) is None for count in counts)]
        kept[name] = [row for row in rows if row not in closed]
        if closed:
            hidden[name] = closed
            if name in basis:
                basis[name] = replace(basis[name], kind=None, own=(*basis[name].own, *basis[name].total))
    return result.with_(tables=kept, basis=basis), hidden


def beside(result: Result, hidden: Mapping[str, Sequence[Row]]) -> Result:
    """The released result with the rows that were never opened, said to be withheld."""
    tables = {
        name: [*rows, *({**row, result.state_of(name): WITHHELD} for row in hidden.get(name, ()))]
        for name, rows in result.tables.items()
    }
    return result.with_(tables=tables)


def _result(asked: Asked, outcome: Outcome) -> Result:
    """The outcome as a result. Raises Refused where there are fewer matched units than agreed."""
    least = asked.linking.minimum_frequency
    if outcome.result is not None:
        return outcome.result
    if outcome.size is None or outcome.size < least > 1:
        raise Refused(
            f"linkage: fewer than {least} units match, or none; want a larger set, or other units{_as_written(asked)}"
        )
    size, deviation = max(0, outcome.size), ("std_error",) if outcome.std else ()
    if outcome.figures:
        rows: list[Mapping[str, str | float]] = [
            {"name": name, "total": float(figure), **_deviation(outcome, name), "count": size}
            for name, figure in outcome.figures.items()
        ]
        basis = Basis(keys=("name",), counts=("count",), own=("total", *deviation))
        return Result("total", "Totals over matched units", {"matched": rows}, basis={"matched": basis})
    return Result(
        "count",
        "Matched units",
        {"matched": [{"count": size, **_deviation(outcome, "size")}]},
        basis={"matched": Basis(counts=("count",), own=deviation)},
    )


def _as_written(asked: Asked) -> str:
    """Where parts of the key are compared as they are written, that this may be why nothing matches."""
    codebook = next(iter(asked.terms.codebooks.values()))
    pieces = [piece for part in asked.linking.parts(codebook) for piece in part.pieces]
    names = sorted({piece.column for piece in pieces if piece.rule.name == "exact"})
    if not names:
        return ""
    return (
        f", or a rule for the key: {', '.join(names)} compared as written (7 is not 007, Rossi not ROSSI; "
        f"{names[0]}:digits(3), {names[0]}:name)"
    )


def _deviation(outcome: Outcome, name: str) -> dict[str, float]:
    """The standard deviation of the noise in a figure, where there is some."""
    return {"std_error": outcome.std[name]} if name in outcome.std else {}
