"""Studies of a pilot at its coordinator: numbered, proposed to their parties, and run only as those have approved.

    studies/0007/ proposal.json        signed; the study is read from nowhere else
                  decisions/NAME.json  what each party says, as it signed it
                  parties.json         which version each party had when it was last asked, and what it did not take
                  runs/                its runs

Nothing is taken on the word of whoever carries it: a decision counts where it is signed by the identity that the roster
has for that party, names this very document, and knows the parties by the keys that they have now.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from pydantic import ValidationError

from statfed.core.errors import EngineError, Pending, StatfedError, UsageError
from statfed.core.pilot import PROTOCOL
from statfed.core.pilot.audit import Fact, record
from statfed.core.pilot.certificates import CLOCK_SKEW
from statfed.core.pilot.documents import LARGEST, read_document
from statfed.core.pilot.files import replace_file
from statfed.core.pilot.proposals import (
    Letter,
    Mail,
    Proposal,
    SignedDecision,
    SignedProposal,
    make_proposal,
    read_decision,
    read_mail,
    read_proposal,
)
from statfed.core.section import describe
from statfed.core.statement import raise_failure
from statfed.core.terms import Terms
from statfed.core.turns import in_turn
from statfed.server.pilot.office import Office

FOLDER, PROPOSAL, DECISIONS, PARTIES, RUNS = "studies", "proposal.json", "decisions", "parties.json", "runs"
POSTING = 60.0
"""Seconds that parties have to answer a letter."""


@dataclass(frozen=True)
class Word:
    """How one party stands to a proposal. state: unsent, sent, approved, refused, or lapsed where its approval is over
    or of other keys; what: the reason, in words; version: of its package, when it was last asked."""

    party: str
    state: str
    what: str = ""
    version: str = ""
    decision: SignedDecision | None = None


def propose(
    office: Office,
    study: Mapping[str, Any],
    terms: Terms,
    parties: Sequence[str],
    *,
    title: str,
    purpose: str,
    runs: int,
    made: datetime,
    until: datetime,
) -> SignedProposal:
    """Number and sign a proposal. Raises UsageError where a party takes no part in the pilot, or in another role."""
    roster = office.roster
    strangers = sorted(set(parties) - {one.name for one in roster.participants})
    if strangers:
        known = ", ".join(one.name for one in roster.participants) or "nobody"
        raise UsageError(f"holders: got {', '.join(strangers)}; want participants of the pilot: {known}")
    third = {one.name for one in roster.participants if one.role == "third-party"}
    if wrong := sorted(third & set(terms.holders)) or sorted(set(parties) - set(terms.holders) - third):
        raise UsageError(
            f"{', '.join(wrong)}: got a holder where the protection wants a party without data, or the reverse; want "
            "the role that it has in the pilot (statfed pilot participants)"
        )
    with _alone(office):
        number = max((one.proposal.number for one in listing(office)), default=0) + 1
        try:
            proposal = Proposal(
                pilot=office.settings.name,
                number=number,
                title=title,
                purpose=purpose,
                method=terms.method,
                parties=tuple(sorted(parties)),
                study=json.dumps(dict(study), ensure_ascii=False),
                terms=terms.model_dump_json(),
                digest=terms.digest(),
                runs=runs,
                made=made,
                until=until,
                protocol=PROTOCOL,
            )
        except ValidationError as error:
            raise UsageError(describe(error, "proposal", "a proposal", Proposal)) from None
        signed = make_proposal(proposal, office.identity)
        if len(signed.text) > LARGEST:
            raise UsageError(
                f"proposal: got {len(signed.text):,} characters; want at most {LARGEST:,}: fewer categories"
            )
        folder = folder_of(office, number)
        facts: dict[str, Fact] = {"number": number, "proposal": signed.id, "study": proposal.digest}
        record(office.root, "proposed", facts | {"parties": proposal.parties})
        (folder / DECISIONS).mkdir(parents=True, mode=0o700)
        replace_file(folder / PROPOSAL, signed.text)
    return signed


def find(office: Office, number: int) -> SignedProposal:
    """One proposal. Raises UsageError where there is none, or it is not as it was signed."""
    path = folder_of(office, number) / PROPOSAL
    if not path.exists():
        known = ", ".join(str(one.proposal.number) for one in listing(office)) or "none yet"
        raise UsageError(f"study {number}: not known here; want one of {known}")
    return _read(office, path)


def listing(office: Office) -> list[SignedProposal]:
    """All proposals, by number. Raises UsageError where one was edited."""
    return [_read(office, path) for path in sorted((office.root / FOLDER).glob(f"*/{PROPOSAL}"))]


def folder_of(office: Office, number: int) -> Path:
    """Where a study has its files."""
    return office.root / FOLDER / f"{number:04d}"


def words(office: Office, number: int, now: datetime) -> dict[str, Word]:
    """How each party stands to a proposal, by name."""
    signed, roster = find(office, number), office.roster
    keys = {one.name: one.identity for one in roster.participants}
    told = _told(office, number)
    found = {}
    for name in signed.proposal.parties:
        facts = told.get(name, {})
        version, returned = str(facts.get("version", "")), str(facts.get("returned", ""))
        path = folder_of(office, number) / DECISIONS / f"{name}.json"
        if name not in keys:
            found[name] = Word(name, "lapsed", "takes part in the pilot no more", version)
        elif not path.exists():
            state = "sent" if facts.get("has") == signed.id else "unsent"
            found[name] = Word(name, state, returned, version)
        else:
            found[name] = _word(read_decision(read_document(path), str(path)), signed, keys, name, version, now)
    return found


def ready(office: Office, number: int, now: datetime) -> SignedProposal:
    """The proposal, where every party has approved it. Raises Pending naming those that have not."""
    signed, found = find(office, number), words(office, number, now)
    open_ = [one for one in found.values() if one.state != "approved"]
    if open_:
        told = "".join(f"\n  {one.party}: {_in_words(one)}" for one in open_)
        raise Pending(f"study {number}: not approved by {len(open_)} of {len(found)} parties; nothing was asked{told}")
    return signed


def post(office: Office, grid: Grid, nodes: Mapping[str, int], numbers: Sequence[int], now: datetime) -> dict[str, str]:
    """Send proposals to those of their parties that are in `nodes`, and take in what they have decided.

    Returns what went wrong, by party: nothing where all is well. A letter goes to the parties of its proposals alone.
    """
    signed = {number: find(office, number) for number in numbers}
    letters = {
        name: Letter(
            protocol=PROTOCOL,
            proposals=tuple(
                one.text
                for number, one in signed.items()
                if name in one.proposal.parties and _told(office, number).get(name, {}).get("has") != one.id
            ),
            numbers=tuple(number for number, one in signed.items() if name in one.proposal.parties),
        )
        for name in nodes
    }
    messages = [
        Message(RecordDict({"config": ConfigRecord({"letter": letter.model_dump_json()})}), nodes[name], "query.study")
        for name, letter in letters.items()
        if letter.numbers
    ]
    by_node, failed = {node: name for name, node in nodes.items()}, {}
    asked = {by_node[message.metadata.dst_node_id] for message in messages}
    for reply in grid.send_and_receive(messages, timeout=POSTING) if messages else ():
        name = by_node[reply.metadata.src_node_id]
        asked.discard(name)
        try:
            _take(office, name, signed, _mail(reply, name), now)
        except StatfedError as error:
            failed[name] = str(error).removeprefix(f"{name}: ")
    return failed | dict.fromkeys(asked, f"no answer in {POSTING:.0f} s")


def _mail(reply: Message, name: str) -> Mail:
    if reply.has_error():
        raise_failure(reply.error.reason or "no reason given", name)
    try:
        text = str(reply.content.config_records["facts"]["json"])
    except KeyError:
        raise EngineError(f"{name}: got an answer that is no mail") from None
    mail = read_mail(text, name)
    if mail.party != name:
        raise EngineError(f"{name}: the answer says it is from {mail.party}; want {name}")
    return mail


def _take(office: Office, name: str, signed: Mapping[int, SignedProposal], mail: Mail, now: datetime) -> None:
    """Keep what a party answered. Raises EngineError where a decision is not that party's own, of this document."""
    keys = {one.name: one.identity for one in office.roster.participants}
    with _alone(office):
        for number, proposed in signed.items():
            if name not in proposed.proposal.parties:
                continue
            facts = {"version": mail.version, "has": mail.has.get(number, ""), "at": now.isoformat(timespec="seconds")}
            told = _told(office, number) | {name: facts | {"returned": " ".join(mail.returned.values())}}
            replace_file(folder_of(office, number) / PARTIES, json.dumps(told, indent=2))
        for text in mail.decisions:
            said = read_decision(text, f"{name}: decision")
            number = said.decision.number
            fits = number in signed and said.decision.proposal == signed[number].id and said.decision.party == name
            if not fits or said.key != keys.get(name):
                raise EngineError(f"{name}: got a decision of another study, party or key; want its own")
            path = folder_of(office, number) / DECISIONS / f"{name}.json"
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                record(office.root, "decided", said.decision.model_dump(mode="json"))
                replace_file(path, text)


def _word(
    said: SignedDecision, signed: SignedProposal, keys: Mapping[str, str], name: str, version: str, now: datetime
) -> Word:
    decision = said.decision
    wanted = {party: keys.get(party, "") for party in signed.proposal.parties}
    state, what = str(decision.choice), decision.reason
    if said.key != keys[name] or decision.proposal != signed.id or decision.party != name:
        state, what = "lapsed", "decided of another document, or with another key"
    elif decision.choice == "approved" and decision.keys != wanted:
        state, what = "lapsed", "a party has other keys than when it was approved, or was not pinned then"
    elif decision.choice == "approved" and not decision.since - CLOCK_SKEW <= now < decision.until:
        state, what = "lapsed", f"approved from {decision.since:%Y-%m-%d} to {decision.until:%Y-%m-%d}"
    return Word(name, state, what, version, said)


def _in_words(word: Word) -> str:
    said = {
        "unsent": "has not had it: it was not connected",
        "sent": "has not decided: statfed study review there",
        "refused": "has refused",
        "lapsed": "its approval does not hold",
    }[word.state]
    return f"{said}{': ' if word.what else ''}{word.what}"


def _told(office: Office, number: int) -> dict[str, dict[str, Any]]:
    """What parties said of themselves when they were last asked; nothing where that cannot be read."""
    try:
        found = json.loads((folder_of(office, number) / PARTIES).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read(office: Office, path: Path) -> SignedProposal:
    signed = read_proposal(read_document(path), str(path))
    if signed.key != office.identity.public or path.parent.name != f"{signed.proposal.number:04d}":
        raise UsageError(f"{path}: got a proposal of another pilot or number; want the one that was signed here")
    return signed


@contextmanager
def _alone(office: Office) -> Iterator[None]:
    """Hold the studies for one change."""
    (office.root / FOLDER).mkdir(exist_ok=True, mode=0o700)
    with in_turn(office.root / FOLDER):
        yield
