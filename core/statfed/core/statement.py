"""What the coordinator says and what a holder answers: ids and public parameters, never code.

A statement names a step of an agreed study. The holder rebuilds the computation from its own installed package;
versions have to match.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from statfed.core.discovery import origin
from statfed.core.errors import BY_NAME, EngineError, Refused, StatfedError, harmless
from statfed.core.fixed_point import MOST_RECORDS
from statfed.core.method import package_of
from statfed.core.protection import package_of as protecting
from statfed.core.section import Unit, deep
from statfed.core.terms import Terms

MODELS = "statfed.strategies.models"
MOST_TEXT = 16_000_000
"""Characters of a statement."""
MOST_WORDS = 200
"""Characters of any other text in an answer; and entries of a list there."""
Words = Annotated[str, StringConstraints(max_length=MOST_WORDS, pattern=r"^[^\p{C}]*$")]
Number = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**62)]
Records = Annotated[int, Field(strict=True, ge=1, le=MOST_RECORDS)]
M = TypeVar("M", bound=BaseModel)
Step = Literal["admit", "protect", "ask", "release"]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Statement(_Message):
    """One request to one holder.

    `admit` asks a holder to check policy and reserve budget; `ask` for the contribution to the study's sum number
    `round`, whose public arrays accompany the statement; `protect` carries a stage of the protection between them;
    `release` ends the run, and what was reserved and not charged is freed; `finished` says that it has its result, so
    that nothing of it is repeated any more; `withheld` says that totals were told and that, on seeing them, the
    coordinator gives no result: a refusal that depends on data, which holders count.
    """

    version: str = Field(description="statfed version of the coordinator")
    run: str = Field(min_length=1, max_length=80)
    step: Step
    round: int = Field(default=0, ge=0)
    ask: str = Field(default="", description="name of the sum that step `ask` wants")
    share: float = Field(default=0.0, ge=0, le=1, description="of the privacy budget, where asks choose their shares")
    stage: str = Field(default="", description="stage of the protection whose packet accompanies the statement")
    sizes: dict[str, int] = Field(default_factory=dict, description="public number of records by holder")
    done: int = Field(default=0, ge=0, description="sums that an interrupted run had finished before this one goes on")
    withheld: bool = Field(default=False, description="with step `release`: no result is given, on seeing totals")
    finished: bool = Field(
        default=False, description="with step `release`: there is a result, and the run does not go on"
    )
    outside: tuple[str, ...] = Field(default=(), description="packages beside statfed that bring a part of the study")
    terms: Terms

    @classmethod
    def parse(cls, text: str, installed: str, terms_of: Callable[[Any], Terms] = Terms.model_validate) -> "Statement":
        """Read a statement from the wire. terms_of: reads a study's terms, which come again with every statement.

        Raises Refused on another version, of statfed or of a plugin that the study uses, or anything not understood.
        """
        statement = understood(
            cls, text, installed, "holder", lambda table: {**table, "terms": terms_of(table["terms"])}
        )
        here = outside(statement.terms)
        if statement.outside != here:
            said = harmless(", ".join(statement.outside), 1000) or "none"
            raise Refused(
                f"plugins: the coordinator runs {said} for this study; this holder runs {', '.join(here) or 'none'}"
            )
        return statement


def understood(
    model: type[M],
    text: str,
    installed: str,
    reader: str,
    read: Callable[[dict[str, Any]], dict[str, Any]] = lambda table: table,
) -> M:
    """What the coordinator says, read from the wire. reader: who reads it, in words; installed: its version; read: of
    parts of the table, beforehand.

    Raises Refused on another version or anything not understood, naming keys and never what they hold.
    """
    if len(text) > MOST_TEXT:
        raise Refused(f"statement not understood: got {len(text):,} characters; want at most {MOST_TEXT:,}")
    try:
        table = json.loads(text)
        if deep(table):
            raise ValueError
        version = str(table["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused("statement not understood: want JSON with a version") from None
    if version != installed:
        raise Refused(f"statfed version: the coordinator runs {harmless(version, 80)}; this {reader} runs {installed}")
    try:
        return model.model_validate(read(table))
    except ValidationError as error:
        keys = ", ".join(sorted({".".join(map(str, e["loc"])) for e in error.errors()}))
        raise Refused(f"statement not understood: {harmless(keys, 1000)}") from None
    except KeyError as error:
        raise Refused(f"statement not understood: {harmless(str(error.args[0]), 80)}") from None


def outside(terms: Terms) -> tuple[str, ...]:
    """What other packages bring of a study, as `protection NAME of PACKAGE VERSION`: it has to match everywhere."""
    parts = [
        (protecting(terms.protection.name), "protection", terms.protection.name),
        (package_of(terms.method), "method", terms.method),
    ]
    model = terms.options.get("model")
    if isinstance(model, dict) and "name" in model:
        parts.append((MODELS, "model", str(model["name"])))
    found = ((what, name, origin(package, name)) for package, what, name in parts)
    return tuple(f"{what} {name} of {owner}" for what, name, owner in found if owner)


class Admission(_Message):
    """A holder's answer to `admit`: public facts of its part in the study. Privacy fields are None without privacy."""

    holder: str
    size: Records = Field(description="public number of records")
    persons: Records = Field(description="public number of persons")
    epsilon: Number | None = Field(default=None, description="PLD composition over all sums of the study")
    delta: Number | None = None
    steps: Count | None = Field(default=None, description="steps of local training in one round")
    sampling_rate: Number | None = Field(default=None, description="probability of a unit to be in one step")
    noise_multiplier: Number | None = None
    noise_to_signal: Number | None = Field(
        default=None, description="noise of the whole run against perfectly aligned gradients, one holder alone"
    )
    ledger_head: Words


class Receipt(_Message):
    """A holder's public facts beside its contribution to one sum. rules: disclosure rules that passed."""

    holder: str
    run: Words
    round: Count
    rules: tuple[Words, ...] = Field(default=(), max_length=MOST_WORDS)
    seconds: Number
    ledger_head: Words


class Present(_Message):
    """A party's public facts beside its packet of one stage of the protection."""

    holder: str
    stage: str
    seconds: Number


class Closing(_Message):
    """A holder's answer to `release`: what the study cost it in the end."""

    holder: str
    unit: Unit | None
    study_epsilon: Number | None = Field(
        description="PLD over all sums charged in this run and its attempts, at its delta"
    )
    history_epsilon: Number | None = Field(description="PLD over everything ever charged; None after a disclosure")
    filter_epsilon: Number | None = Field(description="Renyi composition of everything charged and set aside")
    share: Number | None = Field(
        default=None, description="of the lifetime budget: what everything charged and set aside takes, by its gate"
    )
    budget_epsilon: Number | None
    delta: Number | None
    disclosures: Count = Field(description="entries that are not differentially private")
    figures: Count = Field(default=0, description="distinct exact figures that the dataset has given so far")
    most_figures: Count | None = Field(
        default=None, description="most that it ever gives; None where nothing counts them"
    )
    more: Count | None = Field(
        default=None, description="studies that cost as much and would be admitted next; None without noise"
    )
    charged: Count = Field(
        default=0, description="number of the last sum charged in this run and its attempts; 0 without privacy"
    )
    again: Count = Field(
        default=0, description="of these the sum that another attempt is given again without a charge; 0 for none"
    )
    ledger_head: Words


def failure(error: StatfedError) -> str:
    """The wire form of a public error."""
    return json.dumps({"kind": type(error).__name__, "message": str(error)})


def failure_in(text: str, holder: str) -> StatfedError:
    """The error that a holder reported, naming the holder, in words that `harmless` has gone over."""
    try:
        if len(text) > MOST_TEXT:
            raise ValueError
        table: dict[str, Any] = json.loads(text)
        kind, message = BY_NAME[table["kind"]], str(table["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return EngineError(f"{holder}: {harmless(text, 1000)}")
    return kind(f"{holder}: {harmless(message)}")


def raise_failure(text: str, holder: str) -> None:
    """Raise the error that a holder reported."""
    raise failure_in(text, holder)
