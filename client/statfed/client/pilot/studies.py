"""Studies that a party was asked for, and what its people said of them.

    studies/0007/ proposal.json      as the coordinator signed it
                  people/NAME.json   what each of the people said, signed with their own key, if the policy lists any
                  decision.json      what this party says, signed with its identity: this is what others are shown

What may be answered on the strength of it: `statfed.client.pilot.permits`.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from statfed.client.guard.approvals import covering, end_of
from statfed.client.guard.policy import Approval
from statfed.client.pilot.joining import KIT, Own, standing
from statfed.client.pilot.uses import left, uses_of
from statfed.core import VERSION
from statfed.core.errors import Refused, UsageError, harmless
from statfed.core.identity import Identity, load_identity
from statfed.core.pilot.audit import FILE as LOG
from statfed.core.pilot.audit import record
from statfed.core.pilot.documents import read_document
from statfed.core.pilot.files import replace_file
from statfed.core.pilot.proposals import (
    LONGEST_REASON,
    Choice,
    Decision,
    Letter,
    Mail,
    Proposal,
    SignedDecision,
    SignedProposal,
    make_decision,
    read_decision,
    read_letter,
    read_proposal,
)
from statfed.core.resolve import resolve
from statfed.core.section import describe
from statfed.core.study import make_study
from statfed.core.terms import Terms
from statfed.core.turns import in_turn

FOLDER, PROPOSAL, DECISION, PEOPLE = "studies", "proposal.json", "decision.json", "people"
ROUNDS = 1_000
"""Sums of one run that an approval is for unless it says otherwise."""
MOST_WAITING, MOST_KEPT = 1_000, 10_000
"""Proposals that a home keeps, open and in all: a coordinator that sends more is told so."""
log = logging.getLogger("statfed.holder")


@dataclass(frozen=True)
class Asked:
    """A proposal at this home. people: who has said what; decision: what this party says; None while open."""

    signed: SignedProposal
    people: tuple[tuple[str, SignedDecision], ...]
    decision: SignedDecision | None

    @property
    def proposal(self) -> Proposal:
        return self.signed.proposal


@dataclass(frozen=True)
class Limits:
    """What an approval is limited to."""

    runs: int
    rounds: int
    since: datetime
    until: datetime


def receive(home: Path, text: str, rules: Approval, now: datetime) -> Asked:
    """Keep a proposal that has come; one that a standing approval covers is approved. The same again changes nothing.

    Raises Refused, in words that may travel, for what is not the coordinator's, is not asked of this party, or has the
    number of another.
    """
    own = _joined(home)
    try:
        signed = read_proposal(text, "proposal")
        _one_study(signed.proposal)
    except UsageError as error:
        raise Refused(str(error)) from None
    proposal = signed.proposal
    if signed.key != own.pilot.coordinator or proposal.pilot != own.pilot.name:
        raise Refused("proposal: got one that this pilot's coordinator has not signed; want its own")
    if own.pilot.party not in proposal.parties:
        raise Refused(f"proposal {proposal.number}: asks nothing of {own.pilot.party}; want a party's own proposals")
    folder = _folder(home, proposal.number)
    with alone(home):
        if (folder / PROPOSAL).exists():
            there = find(home, proposal.number)
            if there.signed.id != signed.id:
                raise Refused(f"proposal {proposal.number}: got another under this number; want a new number")
            return there
        if proposal.until <= now:
            raise Refused(f"proposal {proposal.number}: is over; want one that can be approved")
        there_are = listing(home)
        if sum(one.proposal.until > now for one in there_are) >= MOST_WAITING or len(there_are) >= MOST_KEPT:
            raise Refused(f"proposals: this party keeps {MOST_WAITING} that are not over and takes no more; want fewer")
        (folder / PEOPLE).mkdir(parents=True, exist_ok=True, mode=0o700)
        record(home, "proposed", {"number": proposal.number, "proposal": signed.id, "study": proposal.digest})
        replace_file(folder / PROPOSAL, text)
        rule = covering(rules, proposal.agreed, now)
        privacy = proposal.agreed.privacy
        cost = privacy.epsilon if privacy else 0.0
        if rule and left(rule, signed, uses_of(home), "", cost) and not _for_people(there_are, proposal):
            end = min(proposal.until, end_of(rule))
            limits = Limits(min(proposal.runs, rule.runs), rule.rounds, now, end)
            _decide(home, own, signed, "approved", f"standing {rule.name}", "", limits, now)
    return find(home, proposal.number)


def decide(
    home: Path,
    number: int,
    choice: Choice,
    rules: Approval,
    *,
    reason: str = "",
    limits: Limits | None = None,
    person: tuple[str, Identity] | None = None,
    now: datetime,
) -> Asked:
    """Approve or refuse a proposal, or change that. person: name and key of one of the policy's people.

    Where the policy lists people, the party approves once as many as it needs have, within what all of them said, and
    nobody has refused: a refusal stands until whoever gave it approves. Raises UsageError where the proposal is unknown
    or over, or who decides is not listed.
    """
    own = _joined(home)
    with alone(home):
        asked = find(home, number)
        limits = limits or standard(asked.proposal, now)
        _within(asked.proposal, limits, now)
        if not rules.people:
            if person is not None:
                raise UsageError("--as: got a person, and the policy lists none; want [approval] people, or no --as")
            _decide(home, own, asked.signed, choice, "people", reason, limits, now)
            return find(home, number)
        if person is None:
            known = ", ".join(sorted(rules.people))
            raise UsageError(f"--as: got nobody; want one of the policy's people: {known}, with --key")
        name, identity = person
        if rules.people.get(name) != identity.public:
            raise UsageError(f"--as: got {name} with a key that [approval] people does not list; want the listed one")
        said = make_decision(_decision(home, own, asked.signed, choice, "people", reason, limits, now), identity)
        record(home, "said", {"by": name, "number": number, "proposal": asked.signed.id, "choice": choice})
        replace_file(_folder(home, number) / PEOPLE / f"{name}.json", said.text)
        asked = find(home, number)
        agreed, against = agreeing(asked, rules), refusing(asked, rules)
        if against:
            whose, why = next(iter(against.items()))
            _decide(home, own, asked.signed, "refused", "people", f"{whose}: {why}"[:LONGEST_REASON], limits, now)
        elif len(agreed) >= rules.needed:
            common = Limits(
                min(one.runs for one in agreed.values()),
                min(one.rounds for one in agreed.values()),
                max(one.since for one in agreed.values()),
                min(one.until for one in agreed.values()),
            )
            _within(asked.proposal, common, now)
            _decide(home, own, asked.signed, "approved", "people", "", common, now)
        return find(home, number)


def agreeing(asked: Asked, rules: Approval) -> dict[str, Decision]:
    """The listed people who approve this very proposal, each with a signature by the listed key."""
    return {
        name: said.decision
        for name, said in asked.people
        if rules.people.get(name) == said.key
        and said.decision.choice == "approved"
        and said.decision.proposal == asked.signed.id
    }


def refusing(asked: Asked, rules: Approval) -> dict[str, str]:
    """The listed people whose last word on this very proposal is no, with their reasons."""
    return {
        name: said.decision.reason
        for name, said in asked.people
        if rules.people.get(name) == said.key
        and said.decision.choice == "refused"
        and said.decision.proposal == asked.signed.id
    }


def standard(proposal: Proposal, now: datetime) -> Limits:
    """What is approved unless somebody says otherwise: what was asked for, from now on."""
    return Limits(proposal.runs, ROUNDS, now, proposal.until)


def find(home: Path, number: int) -> Asked:
    """One proposal. Raises UsageError where there is none, or its files are damaged."""
    folder = _folder(home, number)
    if not (folder / PROPOSAL).exists():
        known = ", ".join(str(one.proposal.number) for one in listing(home)) or "none has come"
        raise UsageError(f"study {number}: not known here; want one of {known}")
    return _asked(folder)


def listing(home: Path) -> list[Asked]:
    """All proposals at this home, by number. Raises UsageError where one is damaged."""
    return [_asked(path.parent) for path in sorted((home / FOLDER).glob(f"*/{PROPOSAL}"))]


def answer(home: Path, text: str, rules: Approval, now: datetime) -> Mail:
    """The party's answer to a letter of the coordinator. Raises Refused in words that may travel."""
    try:
        letter = read_letter(text)
    except UsageError as error:
        raise Refused(str(error)) from None
    try:
        return _answered(home, letter, rules, now)
    except UsageError as error:  # of this home's own files, whose names are nobody else's business
        log.error("approvals: %s", error)
        raise Refused("approval: this party's record of approvals cannot be read; its own log says why") from None


def _answered(home: Path, letter: Letter, rules: Approval, now: datetime) -> Mail:
    own = _joined(home)
    has, decisions, returned = {}, [], {}
    for place, proposed in enumerate(letter.proposals):
        try:
            found = receive(home, proposed, rules, now)
            has[found.proposal.number] = found.signed.id
        except Refused as error:
            returned[place] = "; ".join(harmless(str(error), 1_000).splitlines())
    for number in letter.numbers:
        if (_folder(home, number) / PROPOSAL).exists():
            asked = find(home, number)
            has[number] = asked.signed.id
            if asked.decision is not None:
                decisions.append(asked.decision.text)
    return Mail(party=own.pilot.party, has=has, decisions=tuple(decisions), returned=returned, version=VERSION)


def standing_of(home: Path) -> Own | None:
    """This home's part in a pilot; None where it has joined none.

    Raises Refused where it cannot be read, or is gone from a home with a kit, studies or a log, which would answer
    anything.
    """
    try:
        own = standing(home)
    except UsageError as error:
        log.error("pilot: %s", error)
        raise Refused("this party's pilot.toml cannot be read; its own log says why") from None
    if own is None and any((home / name).exists() for name in (KIT, FOLDER, LOG)):
        raise Refused("this party has papers or a log of a pilot, and no pilot.toml; want `statfed pilot join` again")
    return own


def _within(proposal: Proposal, limits: Limits, now: datetime) -> None:
    """Raise UsageError where an approval would go beyond what was asked for, or is of nothing."""
    if limits.until <= now or limits.until <= limits.since:
        raise UsageError(f"study {proposal.number}: got an approval that ends before it begins, or is over; want later")
    if limits.until > proposal.until or limits.runs > proposal.runs:
        raise UsageError(
            f"study {proposal.number}: got an approval to {limits.until:%Y-%m-%d} for {limits.runs} runs; want at most "
            f"what was asked for: to {proposal.until:%Y-%m-%d}, {proposal.runs} runs"
        )


def _one_study(proposal: Proposal) -> None:
    """Raise UsageError unless the study of a proposal is the one that its terms are of."""
    terms = proposal.agreed
    try:
        study = make_study(json.loads(proposal.study), where="proposal: study")
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UsageError("proposal: study: cannot be read; want a study file as JSON") from None
    if study.engine != "pilot" or study.terms(terms.codebook, terms.codebooks).digest() != proposal.digest:
        raise UsageError("proposal: got a study that its terms are not of; want one study")


def _for_people(there_are: Sequence[Asked], proposal: Proposal) -> bool:
    """Is a study nearly what people here have refused, or an exact one of others than an exact one that was approved?

    Order, epsilon or a condition make another study of one that means the same. So none by a method that was refused on
    one of its columns is approved without people; and no exact one over other holders, of which the difference may be
    one holder's own figures. Nor what cannot be read.
    """
    terms = proposal.agreed
    try:
        columns = set(resolve(terms).columns)
        for decision, other in ((one.decision, one.proposal.agreed) for one in there_are):
            if decision is None:
                continue
            if decision.decision.choice == "refused":
                if other.method == terms.method and (not columns or columns & set(resolve(other).columns)):
                    return True
            elif _exact(terms) and _exact(other) and set(terms.holders) != set(other.holders):
                return True
    except UsageError:
        return True
    return False


def _exact(terms: Terms) -> bool:
    """Do sums of it leave without noise?"""
    return terms.privacy is None or terms.privacy.noise == "central"


def _decide(
    home: Path, own: Own, signed: SignedProposal, choice: Choice, by: str, reason: str, limits: Limits, now: datetime
) -> None:
    """Write what this party says, signed with its identity."""
    made = make_decision(
        _decision(home, own, signed, choice, by, reason, limits, now), load_identity(home, own.pilot.party, {})
    )
    record(home, "decided", made.decision.model_dump(mode="json"))
    replace_file(_folder(home, signed.proposal.number) / DECISION, made.text)


def _decision(
    home: Path, own: Own, signed: SignedProposal, choice: Choice, by: str, reason: str, limits: Limits, now: datetime
) -> Decision:
    proposal = signed.proposal
    try:
        return Decision(
            pilot=proposal.pilot,
            number=proposal.number,
            proposal=signed.id,
            study=proposal.digest,
            party=own.pilot.party,
            choice=choice,
            by=by,
            reason=reason,
            since=limits.since,
            until=limits.until,
            runs=limits.runs,
            rounds=limits.rounds,
            keys=keys_of(home, own, proposal),
            at=now,
        )
    except ValidationError as error:
        raise UsageError(describe(error, f"study {proposal.number}", "a decision", Decision)) from None


def keys_of(home: Path, own: Own, proposal: Proposal) -> dict[str, str]:
    """Every party's identity as it is pinned here now; one that is not pinned is left out."""
    mine = load_identity(home, own.pilot.party, {}).public
    pins = {**own.parties.root, own.pilot.party: mine}
    return {name: pins[name] for name in sorted(proposal.parties) if name in pins}


def _joined(home: Path) -> Own:
    own = standing_of(home)
    if own is None:
        raise UsageError(f"{home}: has joined no pilot; want `statfed pilot join` first")
    return own


def _folder(home: Path, number: int) -> Path:
    return home / FOLDER / f"{number:04d}"


def _asked(folder: Path) -> Asked:
    """A proposal with what was said of it, from its files."""
    people = tuple(
        (path.stem, read_decision(read_document(path), str(path))) for path in sorted((folder / PEOPLE).glob("*.json"))
    )
    path = folder / DECISION
    decision = read_decision(read_document(path), str(path)) if path.exists() else None
    return Asked(_proposed(folder / PROPOSAL), people, decision)


def _proposed(path: Path) -> SignedProposal:
    state = path.stat()
    return _read(path, (state.st_ino, state.st_mtime_ns, state.st_size))


@lru_cache(maxsize=256)
def _read(path: Path, state: tuple[int, int, int]) -> SignedProposal:  # noqa: ARG001  what the file was when it was read
    return read_proposal(read_document(path), str(path))


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """Hold what was decided here for one look or change."""
    (home / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
    with in_turn(home / FOLDER):
        yield
