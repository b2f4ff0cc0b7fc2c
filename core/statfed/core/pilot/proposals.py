"""A study as the parties of a pilot agree to it: the coordinator proposes one document, each party decides on its hash.

A proposal holds the study, its terms and whom they are asked of, under a number. Whoever approves signs the SHA-256 of
the signed document, so that another byte is another study. An approval is for named parties with the keys that the
approver has pinned for them, from a day to a day, for at most so many runs and so many sums in each. Terms travel as
text, since what is signed holds whole numbers alone (`statfed.core.pilot.documents`).
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, model_validator

from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.pilot.documents import seal, unseal
from statfed.core.pilot.papers import Name, PublicKey, check_protocol
from statfed.core.section import Section, describe
from statfed.core.terms import Terms

VERSION = 1
"""Of both documents' form."""
MOST_NUMBER = 1_000_000
LONGEST_REASON = 500
Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
PRINTABLE = r"^[^\p{C}]*$"
"""No control characters, no changes of direction: people read these on a screen before they decide."""
Text = Annotated[str, StringConstraints(max_length=2_000, pattern=PRINTABLE)]
Reason = Annotated[str, StringConstraints(max_length=LONGEST_REASON, pattern=PRINTABLE)]
Choice = Literal["approved", "refused"]
M = TypeVar("M", bound=Section)


class Proposal(Section):
    """What the coordinator asks for. parties: everybody who takes part, holders and third parties; study, terms: as
    JSON; digest: of the terms, the study's name in every ledger; until: for when approval is asked; runs: how many of
    it; purpose: what it is for, in words."""

    pilot: Name
    number: int = Field(ge=1, le=MOST_NUMBER)
    title: Text
    purpose: Text
    method: Annotated[str, StringConstraints(max_length=80, pattern=PRINTABLE)]
    parties: tuple[Name, ...] = Field(min_length=1, max_length=10_000)
    study: str
    terms: str
    digest: Digest
    runs: int = Field(ge=1, le=1_000_000)
    made: AwareDatetime
    until: AwareDatetime
    protocol: int = Field(ge=1)

    @cached_property
    def agreed(self) -> Terms:
        """The terms. Raises ValidationError or ValueError on what this version cannot read."""
        return Terms.model_validate(json.loads(self.terms))

    @model_validator(mode="after")
    def _one_study(self) -> "Proposal":
        try:
            terms = self.agreed
        except RecursionError:
            raise ValueError("terms: nested too deeply") from None
        if terms.digest() != self.digest or terms.method != self.method:
            raise ValueError("terms: got others than the digest or the method says; want one study")
        if not set(terms.holders) <= set(self.parties) or len(set(self.parties)) != len(self.parties):
            raise ValueError("parties: want every holder of the terms, each once")
        if self.until <= self.made:
            raise ValueError("until: got an end before the beginning")
        return self


@dataclass(frozen=True)
class SignedProposal:
    """A proposal, who signed it, and the document as it came. id: what an approval names."""

    proposal: Proposal
    key: str
    text: str = field(repr=False)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the body in its canonical form and of the key that signed it."""
        body = json.dumps(self.proposal.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"statfed.pilot.proposal/{VERSION}\n{self.key}\n{body}".encode()).hexdigest()


class Decision(Section):
    """What a party says of a proposal, by its id.

    by: who decided, `people` or the name of a standing approval; since, until: from when and to when it may be run;
    runs, rounds: how often, and most sums of one run; keys: of every party, as pinned by the one that decides.
    """

    pilot: Name
    number: int = Field(ge=1, le=MOST_NUMBER)
    proposal: Digest
    study: Digest
    party: Name
    choice: Choice
    by: Annotated[str, StringConstraints(max_length=80, pattern=PRINTABLE)] = "people"
    reason: Reason = ""
    since: AwareDatetime
    until: AwareDatetime
    runs: int = Field(ge=0, le=1_000_000)
    rounds: int = Field(ge=0, le=1_000_000)
    keys: dict[Name, PublicKey] = Field(max_length=10_000)
    at: AwareDatetime

    @model_validator(mode="after")
    def _whole(self) -> "Decision":
        if self.choice == "approved" and (self.until <= self.since or not self.runs or not self.rounds):
            raise ValueError("got an approval of nothing; want a time, a run and a sum at least")
        return self


@dataclass(frozen=True)
class SignedDecision:
    """A decision, who signed it, and the document as it came."""

    decision: Decision
    key: str
    text: str = field(repr=False)


class Letter(Section):
    """From the coordinator to one party: proposals, as signed documents, and numbers of those whose decisions are
    wanted."""

    protocol: int = Field(ge=1)
    proposals: tuple[str, ...] = Field(default=(), max_length=1_000)
    numbers: tuple[int, ...] = Field(default=(), max_length=10_000)


class Mail(Section):
    """A party's answer: which proposals it has, decisions as signed documents, what it did not take and why, and the
    version of its package."""

    party: Name
    has: dict[int, Digest] = Field(default_factory=dict)
    decisions: tuple[str, ...] = ()
    returned: dict[int, Text] = Field(default_factory=dict)
    version: Annotated[str, StringConstraints(max_length=40, pattern=PRINTABLE)]


def make_proposal(proposal: Proposal, coordinator: Identity) -> SignedProposal:
    """The proposal, signed."""
    return SignedProposal(proposal, coordinator.public, seal("proposal", VERSION, proposal, coordinator))


def read_proposal(text: str, where: str) -> SignedProposal:
    """A proposal as it was signed, and by which key, which the caller has to know. Raises UsageError."""
    proposal, key = unseal(text, "proposal", VERSION, Proposal, where)
    check_protocol(proposal.protocol, where)
    return SignedProposal(proposal, key, text)


def make_decision(decision: Decision, identity: Identity) -> SignedDecision:
    """The decision, signed by the party, or by one of its people."""
    return SignedDecision(decision, identity.public, seal("decision", VERSION, decision, identity))


def read_decision(text: str, where: str) -> SignedDecision:
    """A decision as it was signed, and by which key, which the caller has to know. Raises UsageError."""
    decision, key = unseal(text, "decision", VERSION, Decision, where)
    return SignedDecision(decision, key, text)


def read_letter(text: str) -> Letter:
    """What the coordinator wrote. Raises UsageError on what is none."""
    letter = _read(text, Letter, "letter")
    check_protocol(letter.protocol, "letter")
    return letter


def read_mail(text: str, where: str) -> Mail:
    """What a party answered. Raises UsageError on what is none."""
    return _read(text, Mail, where)


def _read(text: str, model: type[M], where: str) -> M:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(describe(error, where, "what this version of statfed knows", model)) from None
