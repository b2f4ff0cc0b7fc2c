"""Studies that a party was asked for, what its people said of them, and what may therefore be answered.

    studies/0007/ proposal.json      as the coordinator signed it
                  people/NAME.json   what each of the people said, signed with their own key, if the policy lists any
                  decision.json      what this party says, signed with its identity: this is what others are shown
    studies/uses.jsonl               every attempt at a run that was answered, and under which approval

A home that has joined a pilot answers approved studies alone. An approval holds for the very document that it names,
for the parties with the keys that were pinned when it was given, in its time, and for so many runs and sums: all of it
is looked at again with every statement, from these files, so that a decision taken back holds from the next one on.
What cannot be read approves nothing.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from pydantic import ValidationError

from statfed.client.guard.approvals import covering, covers, end_of
from statfed.client.guard.files import append_private
from statfed.client.guard.policy import Approval
from statfed.client.guard.spent import base
from statfed.client.pilot.joining import Own, standing
from statfed.core import VERSION
from statfed.core.errors import Refused, UsageError, harmless
from statfed.core.identity import Identity, load_identity
from statfed.core.pilot.audit import Fact, record
from statfed.core.pilot.documents import LARGEST, read_document
from statfed.core.pilot.files import replace_file
from statfed.core.pilot.proposals import (
    Choice,
    Decision,
    Mail,
    Proposal,
    SignedDecision,
    SignedProposal,
    make_decision,
    read_decision,
    read_letter,
    read_proposal,
)
from statfed.core.section import describe
from statfed.core.terms import Terms

FOLDER, PROPOSAL, DECISION, PEOPLE, USES = "studies", "proposal.json", "decision.json", "people", "uses.jsonl"
ROUNDS = 1_000
"""Sums of one run that an approval is for unless it says otherwise."""
MOST_ATTEMPTS = 100
"""Of one run: each goes on after an interruption."""
MOST_WAITING = 1_000
"""Proposals that a home keeps: a coordinator that sends more is told so."""
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
        if len(text) > LARGEST:
            raise UsageError(f"proposal: got more than {LARGEST} characters; want fewer")
        signed = read_proposal(text, "proposal")
    except UsageError as error:
        raise Refused(str(error)) from None
    proposal = signed.proposal
    if signed.key != own.pilot.coordinator or proposal.pilot != own.pilot.name:
        raise Refused("proposal: got one that this pilot's coordinator has not signed; want its own")
    if own.pilot.party not in proposal.parties:
        raise Refused(f"proposal {proposal.number}: asks nothing of {own.pilot.party}; want a party's own proposals")
    folder = _folder(home, proposal.number)
    with _alone(home):
        if (folder / PROPOSAL).exists():
            there = find(home, proposal.number)
            if there.signed.id != signed.id:
                raise Refused(f"proposal {proposal.number}: got another under this number; want a new number")
            return there
        if sum(1 for _ in (home / FOLDER).glob(f"*/{PROPOSAL}")) >= MOST_WAITING:
            raise Refused(f"proposals: this party keeps {MOST_WAITING} and takes no more; want fewer")
        (folder / PEOPLE).mkdir(parents=True, exist_ok=True, mode=0o700)
        record(home, "proposed", {"number": proposal.number, "proposal": signed.id, "study": proposal.digest})
        replace_file(folder / PROPOSAL, text)
        rule = covering(rules, proposal.agreed, now)
        if rule is not None:
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

    Where the policy lists people, the party approves once as many as it needs have, within what all of them said; one
    refusal is enough to refuse. Raises UsageError where the proposal is unknown or over, or who decides is not listed.
    """
    own = _joined(home)
    with _alone(home):
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
        agreed = agreeing(asked, rules)
        if choice == "refused":
            _decide(home, own, asked.signed, "refused", "people", f"{name}: {reason}", limits, now)
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
    own = _joined(home)
    try:
        letter = read_letter(text)
    except UsageError as error:
        raise Refused(str(error)) from None
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


def permit(
    home: Path, rules: Approval, terms: Terms, digest: str, run: str, number: int, *, uses: bool, now: datetime
) -> None:
    """Raise Refused unless a study may be answered now: always, in a home that has joined no pilot.

    digest: of the terms; number: of the sum; uses: is something computed, so that the run counts? The texts hold what
    the documents say, and nothing of data.
    """
    own = standing_of(home)
    if own is None:
        return
    try:
        there = [asked for asked in listing(home) if asked.proposal.digest == digest]
        if not there:
            raise Refused("approval: this study was never proposed here; want `statfed study propose` first")
        failed: list[str] = []
        for asked in there:
            try:
                with _alone(home):
                    _permitted(home, own, rules, asked, terms, run, number, uses, now)
                return
            except Refused as error:
                failed.append(str(error))
    except (UsageError, OSError) as error:
        log.error("approvals: %s", error)
        raise Refused("approval: this party's record of approvals cannot be read; its own log says why") from None
    raise Refused("; ".join(failed))


def known(home: Path, digest: str) -> bool:
    """Was this study ever proposed here? Always, in a home that has joined no pilot."""
    if standing_of(home) is None:
        return True
    try:
        return any(asked.proposal.digest == digest for asked in listing(home))
    except (UsageError, OSError) as error:
        log.error("approvals: %s", error)
        return False


def used(home: Path, digest: str) -> list[dict[str, object]]:
    """Runs of a study that were answered here. Raises UsageError where the record is damaged."""
    return [one for one in _uses(home) if one["study"] == digest]


def standing_of(home: Path) -> Own | None:
    """This home's part in a pilot; None where it has joined none. Raises Refused where that cannot be read."""
    try:
        return standing(home)
    except UsageError as error:
        log.error("pilot: %s", error)
        raise Refused("this party's pilot.toml cannot be read; its own log says why") from None


def _permitted(
    home: Path,
    own: Own,
    rules: Approval,
    asked: Asked,
    terms: Terms,
    run: str,
    number: int,
    uses: bool,
    now: datetime,
) -> None:
    """Raise Refused unless this proposal's approval covers it; enter the run's use."""
    what = f"study {asked.proposal.number}"
    signed = asked.decision
    if signed is None:
        raise Refused(f"{what}: waits for approval at {own.pilot.party}; want it approved there first")
    decision, me = signed.decision, load_identity(home, own.pilot.party, {}).public
    if signed.key != me or decision.proposal != asked.signed.id or decision.study != asked.proposal.digest:
        raise Refused(f"{what}: its approval is of another document or by another key; want it approved again")
    if asked.signed.key != own.pilot.coordinator:
        raise Refused(f"{what}: proposed by another coordinator than this pilot's; want it proposed again")
    if decision.choice == "refused":
        raise Refused(f"{what}: {own.pilot.party} has refused it")
    if not decision.since <= now < decision.until:
        span = f"{decision.since:%Y-%m-%d %H:%M} to {decision.until:%Y-%m-%d %H:%M}"
        raise Refused(f"{what}: approved from {span} (UTC), and it is {now:%Y-%m-%d %H:%M} at {own.pilot.party}")
    if decision.keys != _keys(home, own, asked.proposal):
        raise Refused(f"{what}: a party has other keys than when it was approved; want it approved again")
    if number > decision.rounds:
        raise Refused(f"{what}: sum {number} of a run; approved for {decision.rounds}")
    entries = _uses(home)
    attempts = {str(one["run"]) for one in entries if one["proposal"] == asked.signed.id}
    runs = {base(attempt) for attempt in attempts}
    if base(run) not in runs and len(runs) >= decision.runs:
        raise Refused(f"{what}: approved for {decision.runs}, and run as often; want it proposed again")
    if run not in attempts and sum(base(one) == base(run) for one in attempts) >= MOST_ATTEMPTS:
        raise Refused(f"{what}: run {base(run)} was begun {MOST_ATTEMPTS} times; want a new run")
    cost = 0.0 if terms.privacy is None else terms.privacy.epsilon
    if decision.by.startswith("standing "):
        name = decision.by.removeprefix("standing ")
        rule = next((one for one in rules.standing if one.name == name), None)
        if rule is None or not covers(rule, terms, now):
            raise Refused(f"{what}: no standing approval covers it any more; want a person to approve it")
        costs = {base(str(one["run"])): float(str(one["epsilon"])) for one in entries if one["by"] == decision.by}
        spent = sum(epsilon for name, epsilon in costs.items() if name != base(run))
        if spent + cost > rule.total * (1 + 1e-9):
            raise Refused(f"{what}: the standing approval that covered it is used up; want a person to approve it")
    elif rules.people and len(_vouching(asked, rules)) < rules.needed:
        raise Refused(f"{what}: fewer people have approved it than {own.pilot.party} wants; want them to")
    if uses and run not in attempts:
        entry = {
            "study": asked.proposal.digest,
            "proposal": asked.signed.id,
            "number": asked.proposal.number,
            "run": run,
            "by": decision.by,
            "epsilon": cost,
            "at": now.isoformat(timespec="seconds"),
        }
        begun: dict[str, Fact] = {
            "number": asked.proposal.number,
            "proposal": asked.signed.id,
            "run": run,
            "by": decision.by,
        }
        record(home, "begun", begun)
        append_private(home / FOLDER / USES, json.dumps(entry))


def _vouching(asked: Asked, rules: Approval) -> list[str]:
    """People whose own word covers what this party's decision says."""
    if asked.decision is None:
        return []
    whole = asked.decision.decision
    return [
        name
        for name, said in agreeing(asked, rules).items()
        if said.since <= whole.since
        and said.until >= whole.until
        and said.runs >= whole.runs
        and said.rounds >= whole.rounds
        and said.keys == whole.keys
    ]


def _within(proposal: Proposal, limits: Limits, now: datetime) -> None:
    """Raise UsageError where an approval would go beyond what was asked for, or is of nothing."""
    if limits.until <= now or limits.until <= limits.since:
        raise UsageError(f"study {proposal.number}: got an approval that ends before it begins, or is over; want later")
    if limits.until > proposal.until or limits.runs > proposal.runs:
        raise UsageError(
            f"study {proposal.number}: got an approval to {limits.until:%Y-%m-%d} for {limits.runs} runs; want at most "
            f"what was asked for: to {proposal.until:%Y-%m-%d}, {proposal.runs} runs"
        )


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
            keys=_keys(home, own, proposal),
            at=now,
        )
    except ValidationError as error:
        raise UsageError(describe(error, f"study {proposal.number}", "a decision", Decision)) from None


def _keys(home: Path, own: Own, proposal: Proposal) -> dict[str, str]:
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


def _uses(home: Path) -> list[dict[str, object]]:
    """Every run that was answered. Raises UsageError where the record is damaged."""
    path = home / FOLDER / USES
    if not path.exists():
        return []
    try:
        found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for one in found:
            if set(one) != _USE or not isinstance(one["epsilon"], int | float):
                raise ValueError
    except (OSError, ValueError, TypeError, RecursionError):
        raise UsageError(f"{path}: got a line that is damaged; want the record as it was written") from None
    return found


_USE = {"study", "proposal", "number", "run", "by", "epsilon", "at"}


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold what was decided here for one look or change."""
    (home / FOLDER).mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(home / FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
