"""What a home that has joined a pilot may answer: studies that are approved here, now, for this run.

An approval holds for the very document that it names, for the parties with the keys that were pinned when it was given,
in its time, and for so many runs and sums. All of it is looked at again with every statement, from its files, so that a
decision taken back holds from the next one on. What cannot be read approves nothing.

Runs are counted by proposal and name, since names are the coordinator's; an attempt that goes on with an interrupted
run (`NAME~2`) is no other run.
"""

import json
import logging
from datetime import datetime
from pathlib import Path

from statfed.client.guard.approvals import covers
from statfed.client.guard.files import append_private
from statfed.client.guard.policy import Approval, Standing
from statfed.client.guard.spent import base
from statfed.client.pilot.joining import Own
from statfed.client.pilot.studies import Asked, agreeing, alone, keys_of, listing, refusing, standing_of
from statfed.client.pilot.uses import USES, decided_last, left, uses_of
from statfed.core.errors import Refused, UsageError
from statfed.core.identity import load_identity
from statfed.core.pilot.audit import Fact, record
from statfed.core.terms import Terms

MOST_ATTEMPTS = 100
"""Of one run: each goes on after an interruption."""
log = logging.getLogger("statfed.holder")


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
                with alone(home):
                    _permitted(home, own, rules, asked, terms, run, number, uses, now)
                return
            except Refused as error:
                failed.append(str(error))
    except (UsageError, OSError) as error:
        log.error("approvals: %s", error)
        raise Refused("approval: this party's record of approvals cannot be read; its own log says why") from None
    raise Refused("; ".join(failed))


def known(home: Path, digest: str) -> bool:
    """Has this party ever decided on this study? Always, in a home that has joined no pilot."""
    if standing_of(home) is None:
        return True
    try:
        return any(asked.proposal.digest == digest and asked.decision is not None for asked in listing(home))
    except (UsageError, OSError) as error:
        log.error("approvals: %s", error)
        return False


def used(home: Path, digest: str) -> list[dict[str, object]]:
    """Runs of a study that were answered here. Raises UsageError where the record is damaged."""
    return [one for one in uses_of(home) if one["study"] == digest]


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
    if decision.keys != keys_of(home, own, asked.proposal):
        raise Refused(f"{what}: a party has other keys than when it was approved; want it approved again")
    entries, rounds = uses_of(home), decision.rounds
    cost = 0.0 if terms.privacy is None else terms.privacy.epsilon
    if decision.by.startswith("standing "):
        rule = _standing(rules, decision.by, terms, now, what)
        rounds = min(rounds, rule.rounds)
        if not left(rule, asked.signed, entries, base(run), cost):
            raise Refused(f"{what}: the standing approval that covered it is used up; want a person to approve it")
    elif rules.people and (len(_vouching(asked, rules)) < rules.needed or refusing(asked, rules)):
        raise Refused(f"{what}: fewer people have approved it than {own.pilot.party} wants, or one has refused")
    last = decided_last(home, asked.signed.id)
    if last is not None and last != decision.model_dump(mode="json"):
        raise Refused(f"{what}: {own.pilot.party} decided otherwise since; want it decided again")
    if number > rounds:
        raise Refused(f"{what}: sum {number} of a run; approved for {rounds}")
    attempts = {str(one["run"]) for one in entries if one["proposal"] == asked.signed.id}
    runs = {base(attempt) for attempt in attempts}
    if base(run) not in runs and len(runs) >= decision.runs:
        raise Refused(f"{what}: approved for {decision.runs}, and run as often; want it proposed again")
    if run not in attempts and sum(base(one) == base(run) for one in attempts) >= MOST_ATTEMPTS:
        raise Refused(f"{what}: run {base(run)} was begun {MOST_ATTEMPTS} times; want a new run")
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
        append_private(home / USES, json.dumps(entry))


def _standing(rules: Approval, by: str, terms: Terms, now: datetime, what: str) -> Standing:
    """The standing approval that a decision is under. Raises Refused where it covers the study no more."""
    rule = next((one for one in rules.standing if f"standing {one.name}" == by), None)
    if rule is None or not covers(rule, terms, now):
        raise Refused(f"{what}: no standing approval covers it any more; want a person to approve it")
    return rule


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
