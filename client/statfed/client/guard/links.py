"""How often a data set's units are matched with others', and what is counted of it: entries before they are looked at.

A linkage with noise is charged the event of that noise (`Resolved.linked_noise`), of which the budget was set aside
when the run was admitted, and counted besides: somebody who takes part sees a figure before there is noise in it
(`Resolved.seen`), as a coordinator does that adds the noise itself.

An attempt that was broken off may have told its figures, and another one may be about other units of the others: so
each attempt is entered anew, and charged. Of a run with noise there is one, since noise that is drawn again can be
averaged out; of others at most `ATTEMPTS`, so that whoever approved one run has not approved a hundred guesses.

Each linkage can be probed with guessed identifiers, and the difference of two tells of few units: also of one study
that is run twice, between which another's list may have lost one. So a policy limits their number, and while it has a
minimum frequency one run matches units with the same others. After entries were lost nothing exact is answered at all
(`limits.refusals`), linkages included.
"""

import hashlib
from pathlib import Path

from statfed.client.guard.differencing import LINKED, Releases
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Policy
from statfed.client.guard.spent import base
from statfed.core.errors import LedgerCorrupt, Refused
from statfed.core.resolve import Resolved

ATTEMPTS = 3
"""Attempts at one run that units are matched in, at most."""


def kept(home: Path, dataset: str, ledger: Ledger) -> None:
    """Raise LedgerCorrupt where units were linked before and the record of whom that was about is gone, or another; it
    is begun with the first linkage, before that is entered. The ledger tells, whatever is put back beside it."""
    path = home / LINKED
    if ledger.has_linked() and not path.exists():
        raise LedgerCorrupt(
            f"{LINKED}, the record of past linkages: it is not there, and the ledger has some; units are not linked "
            f"until it is restored: want the copy of the ledger's own backup in {home}, and `statfed ledger restore`"
        )
    Releases(path, dataset=dataset).close()


def enter(ledger: Ledger, policy: Policy, study: Resolved, run: str, number: int, figures: int, first: int) -> None:
    """Enter a linkage and its figures, which are new whenever they are worked out: they are about others' data too.

    number: of the sum that it stands for; figures: most that come out of it; first: those of them that come out at
    once, the others are entered by `step`. Raises Refused where it was entered in this run or the run has ended, or
    there are more figures or linkages than the policy allows. All of it is public.
    """
    limits, name = policy.limits, study.terms.protection.name
    others = sorted(set(study.holders) - {policy.holder.name})
    if ledger.has_disclosed(run, number):
        raise Refused(f"linkage: run {run} has linked already; want a new run")
    if ledger.is_over(run, study.digest):
        raise Refused(f"run {base(run)}: it has ended, and nothing is given to it any more; want a new run")
    tried = len(ledger.given(run, study.digest, number))
    if tried >= ATTEMPTS:
        raise Refused(
            f"run {base(run)}: units were matched in {tried} attempts at it; want at most {ATTEMPTS}, and a new run, "
            "which has to be approved"
        )
    before, linked = ledger.figures(), ledger.linked(limits.days)
    alone = policy.disclosure.minimum_frequency is not None and f"{name}:several" not in policy.allow.linkages
    if alone and ledger.linked_with(others) - {(base(run), study.digest)}:
        raise Refused(
            f"linkage: units were matched with those of {' or '.join(others)} in another run; the difference of two "
            "tells of few units, of the same study too where another's list has changed, which minimum frequency "
            f"cannot see; want {name}:several in allow.linkages, or another attempt at that run"
        )
    if limits.linkages is not None and linked >= limits.linkages:
        raise Refused(
            f"limits.linkages: this dataset was linked {linked} times in {limits.days} days, and is so no more often: "
            "every linkage tells of units that somebody may have guessed"
        )
    if limits.figures is not None and before + figures > limits.figures:
        raise Refused(
            f"limits.figures: this dataset gave {before:,} of the {limits.figures:,} exact figures that it ever gives, "
            f"and {figures:,} more are asked for; want fewer"
        )
    note = f"{study.terms.method}: linkage {name}"
    if noise := study.linked_noise:
        seen = " and ".join(f"the {what} to {who}" for who, what in sorted(study.seen.items()))
        note += f", with noise; {seen} without"
        ledger.charge(run, study.digest, number, noise.event())
    ledger.disclose(run, study.digest, number, note, first, _named(run, study, 0), linked=others)


def step(ledger: Ledger, policy: Policy, study: Resolved, run: str, number: int, figures: int) -> None:
    """Enter the figures of one step of a linkage, before they leave. number: of the step, from 1. Raises Refused where
    the data set then gave more than its policy allows."""
    note = f"{study.terms.method}: linkage {study.terms.protection.name}, step {number}"
    what, most = _named(run, study, number), policy.limits.figures
    ledger.disclose(run, study.digest, 1 + number, note, figures, what, most)


def _named(run: str, study: Resolved, step: int) -> str:
    """Names the figures of one attempt, and of a step of it."""
    return hashlib.sha256(f"{run} {study.digest} {step}".encode()).hexdigest()
