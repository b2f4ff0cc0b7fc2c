"""`synthetic-risk`: attacks on synthetic data, made by every holder on its own records; only successes are added up.

The synthetic table is public and is an option of the question, so that its digest, and approvals, are about it. Each
holder attacks each of its records by itself: whether an attack succeeds on a record follows from that record and the
synthetic table alone, so that the numbers of successes are additive over records, and a record adds at most one to
each. Records that were kept apart before the data were made (`apart`, a condition) are attacked as the control.

Attacks are those of `statfed.core.synthetic`: linkability, inference of each secret, disclosive and correct (DiSCO) and
targeted correct attribution (TCAP) of each secret, verbatim copies. What depends on several records at once (uniques,
predicates that single out, membership of rare records) is none of them: see `synthetic-within`.

Whoever asks chooses the table, and so a condition on records: how many are equal to a row of it, say. Without privacy
no rule on populations can judge that: the parts then say of nothing what they are, so that no holder whose rules are on
answers. With it a record changes each number by at most one, whatever the table is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Part, Question, fixed, once
from statfed.core.result import Basis, Result, Row
from statfed.core.synthetic import attacks, targets
from statfed.core.synthetic.coded import Coded
from statfed.core.table import Table
from statfed.strategies.analyses._synthetic_table import (
    Compared,
    coded_sides,
    columns_of,
    names_of,
    synthetic_of,
)

TITLE = "Attacks on synthetic data, by each holder on its own records"
GROUP = "Distributions"
PUSHES_DOWN = "all but the attacks; embedded DuckDB streams"
LINKED = True
Flags = NDArray[np.bool_]
SEED = 1
"""Of the order in which synthetic records that are equally near are taken, the same at every holder."""


class Options(Compared):
    """Options of synthetic-risk."""

    keys: tuple[str, ...] = Field(min_length=1, description="what is known of a person")
    secrets: tuple[str, ...] = Field(min_length=1, max_length=50, description="what is to be found out, one at a time")
    neighbours: int = Field(default=1, ge=1, le=20, description="nearest records of each half, for linkability")


@dataclass(frozen=True)
class Attack:
    """One attack. name: of the measure; about: which columns; secret: empty where there is none."""

    name: str
    about: str
    secret: str = ""


@once
def attacks_of(question: Question[Options]) -> tuple[Attack, ...]:
    """All attacks, in order."""
    options, names = question.options, names_of(question.codebook, question.options)
    for name in (*options.keys, *options.secrets):
        if name not in names:
            question.codebook.column(name, "keys, secrets")
            raise UsageError(f"keys, secrets: got {name}; want columns with levels or an order")
    found = [
        Attack("linkability", "two halves"),
        Attack("copies", "all columns"),
    ]
    for secret in options.secrets:
        known = tuple(name for name in options.keys if name != secret)
        if not known:
            raise UsageError(f"keys: got {', '.join(options.keys)} for secret {secret}; want columns beside it")
        found.append(Attack("inference", f"{secret} from {len(names) - 1} columns", secret))
        found += [Attack(name, f"{secret} by the keys", secret) for name in ("disco", "tcap")]
    return tuple(found)


def columns(question: Question[Options]) -> tuple[str, ...]:
    attacks_of(question)
    return columns_of(question)


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("attacks")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "attacks":
        raise UsageError(f"synthetic-risk: unknown ask: got {ask.name!r}; want attacks")
    shape, private = (len(attacks_of(question)), 2), question.privacy is not None
    return {
        **({} if private else {"records": Part((), 1.0, integer=True, single=True)}),
        "tried": Part(shape, 1.0, integer=True, what=Counts() if private else None),
        "succeeded": Part(shape, 1.0, integer=True, what=Counts(beside="tried") if private else None),
    }


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:  # noqa: ARG001
    synthetic, options = synthetic_of(question), question.options
    tried, succeeded = (np.zeros((len(attacks_of(question)), 2), np.int64) for _ in range(2))
    for side, own in enumerate(coded_sides(table, question)):
        if own is not None:
            for place, attack in enumerate(attacks_of(question)):
                hits, attempts = _made(attack, own, synthetic, options)
                tried[place, side], succeeded[place, side] = int(attempts.sum()), int((hits & attempts).sum())
    found = {"tried": tried, "succeeded": succeeded}
    if question.privacy is None:
        found["records"] = np.array(table.aggregate(n=table.expr.count())["n"], np.int64)
    return found


def _made(
    attack: Attack, own: Coded, synthetic: Coded, options: Options
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of each own record: does the attack succeed, and is it made at all?"""
    rng, everybody = np.random.default_rng(SEED), np.ones(own.count, np.bool_)
    if attack.name == "linkability":
        halves = own.names[::2], own.names[1::2]
        return attacks.linked(own, synthetic, synthetic, halves, options.neighbours, rng), everybody
    if attack.name == "copies":
        return _copied(own, synthetic), everybody
    known = tuple(name for name in options.keys if name != attack.secret)
    if attack.name == "inference":
        others = tuple(name for name in own.names if name != attack.secret)
        there = ~own.missing(attack.secret)
        return attacks.inferred(own, synthetic, synthetic, attack.secret, others, rng) & there, there
    open_, right = targets.unanimous(synthetic, synthetic, own, known, attack.secret)
    return right, (everybody if attack.name == "disco" else open_)


def _copied(own: Coded, synthetic: Coded) -> NDArray[np.bool_]:
    rows = [
        np.column_stack([np.where(t.missing(name), np.pi, t.columns[name].astype(np.float64)) for name in own.names])
        for t in (own, synthetic)
    ]
    there = {row.tobytes() for row in rows[1]}
    return np.array([row.tobytes() in there for row in rows[0]], np.bool_)


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells()


def coordinate(question: Question[Options]) -> Coordination:
    total = yield Ask("attacks")
    rows: list[Row] = []
    for place, attack in enumerate(attacks_of(question)):
        for side, name in enumerate(("made from", "apart")):
            rows.append(
                {
                    "measure": attack.name,
                    "about": attack.about,
                    "records": name,
                    "tried": int(total["tried"][place, side]),
                    "succeeded": int(total["succeeded"][place, side]),
                    "std_error": float(total.noise["succeeded"][place, side]),
                }
            )
    rests = Basis(keys=("measure", "about", "records"), counts=("tried",), own=("succeeded", "std_error"))
    basis = {"attacks": rests} if question.privacy else {}
    keys = {"attacks": rests.keys}
    facts = {} if question.privacy else {"records": int(total["records"])}
    return Result("synthetic-risk", "Attacks on synthetic data", {"attacks": rows}, facts, basis=basis, keys=keys)
