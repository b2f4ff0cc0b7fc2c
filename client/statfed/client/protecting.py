"""A party's halves of protected sums, one per run, between the statements that arrive and the protection's protocol.

They live in memory only. A party that was restarted has lost its secrets and has thereby dropped out of its runs.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from statfed.client.guard.addresses import Direct
from statfed.client.pilot.joining import coordinator_of, pinned
from statfed.client.sending import Sending
from statfed.core.errors import Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity, load_identity
from statfed.core.linkage import Lines, Linking
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, Packet, Party, agree, read_protection
from statfed.core.statement import Present, Statement
from statfed.core.terms import Terms

MOST = 16  # open runs; the oldest is forgotten, and its coordinator has to start anew


class Protecting:
    """The protected runs that the party with this home folder takes part in."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._open: dict[str, tuple[Agreement, Party]] = {}
        self._agreed: dict[str, tuple[Terms, dict[str, int], Agreement]] = {}
        self._ended: set[str] = set()
        self._sending = Sending()

    def party(
        self,
        statement: Statement,
        name: str,
        pins: Mapping[str, str],
        size: int | None = None,
        join: Callable[[Agreement, Identity], Party] | None = None,
        direct: Direct | None = None,
    ) -> tuple[Agreement, Party]:
        """The run's agreement and this party's half of it, joined at its first statement.

        size: this holder's own public number of records, None for a third party. join: makes this party's half, where
        data are looked at for it. direct: where its lines to the others go, None where none are allowed; they are there
        before data are looked at. Raises Refused when a later
        statement describes the run otherwise than the first did, and on a run that has ended: it would begin anew under
        the name to which signatures of its first time are bound, and rings could be drawn without end.
        """
        kept = self._agreed.get(statement.run)
        if kept and kept[0] is statement.terms and kept[1] == statement.sizes:
            agreement = kept[2]
        else:
            agreement = agree(statement.run, statement.terms, statement.sizes)
            self._agreed[statement.run] = statement.terms, dict(statement.sizes), agreement
        if name not in agreement.parties:
            raise Refused(f"protection: {name} has no part in this run; want one that names it")
        if size is not None and agreement.sizes[name] != size:
            raise Refused(f"sizes: got {agreement.sizes[name]} records for {name}; want its own figure, {size}")
        if statement.run in self._ended:
            raise Refused("protection: this run has ended here, and its secrets are forgotten; want a new run")
        if statement.run not in self._open:
            module, options = read_protection(statement.terms)
            needed = module.REQUIRES.identities
            identity = Identity.ephemeral(name)
            if needed:
                identity = load_identity(self._home, name, pinned(self._home, pins))
                check_apart(agreement, identity, coordinator_of(self._home))
            while len(self._open) >= MOST:
                self.close(next(iter(self._open)))
            if isinstance(options, Linking) and options.direct:
                if direct is None:
                    raise Refused("direct: got a study whose packets go from party to party; want allow.direct")
                self._sending.open(agreement, identity, direct)
            try:
                made = join(agreement, identity) if join else module.party(agreement, identity)
            except BaseException:
                self._sending.close(statement.run)
                raise
            lined: Callable[[Lines | None], None] | None = getattr(made, "lined", None)
            if lined:
                lined(self._sending.lines(statement.run))
            self._open[statement.run] = agreement, made
        known, party = self._open[statement.run]
        if known != agreement:
            raise Refused("protection: this statement describes the run otherwise than its first one did")
        return known, party

    def knows(self, run: str) -> bool:
        """Has this process secrets of a run, or had it?"""
        return run in self._open or run in self._ended

    def answer(self, statement: Statement, party: Party, packet: Packet, name: str) -> tuple[Present, Packet]:
        """A party's answer to one stage."""
        started = time.perf_counter()
        reply = party.answer(statement.stage, packet)
        return Present(holder=name, stage=statement.stage, seconds=time.perf_counter() - started), reply

    def received(self, run: str, packet: Packet) -> Packet:
        """A stage's packet, with what other parties have sent directly in its place."""
        return self._sending.received(run, packet)

    def sent(self, run: str, packet: Packet) -> Packet:
        """A reply, without what was for other parties where it has gone to them directly."""
        return self._sending.sent(run, packet)

    def close(self, run: str) -> None:
        """Forget a run and its secrets."""
        self._sending.close(run)
        self._agreed.pop(run, None)
        if found := self._open.pop(run, None):
            self._ended.add(run)
            if close := getattr(found[1], "close", None):
                close()


def check_apart(agreement: Agreement, identity: Identity, coordinator: str | None = None) -> None:
    """Raise Refused where two parties of a run have one key, or a third party has the coordinator's: one organisation
    under two names would count as two, and trust that is asked of two of them be that of one.

    By keys, and not by names, which whoever joins chooses. An organisation that has made two keys is not found out:
    people who compare words know whose they are.
    """
    keys = {name: identity.public if name == identity.name else identity.pins.get(name) for name in agreement.parties}
    if coordinator in [keys[name] for name in agreement.third_parties]:
        raise Refused("identity: got the coordinator as a third party; want another organisation for it")
    known = [key for key in keys.values() if key is not None]
    if twice := sorted(name for name, key in keys.items() if key is not None and known.count(key) > 1):
        raise Refused(f"identity: got one key for {' and '.join(twice)}; want parties of different organisations")


def bound(packet: Packet, statement: Statement, arrays: Arrays, function: str = "") -> Packet:
    """A packet with `request`: SHA-256 of what this holder was asked for, the public parameters included.

    Protections bind masks and pads to it, so that holders that were asked for different things never add up
    (Pasquini, Francati and Ateniese 2022). And with `function`: what this holder's own copy of the analysis says that
    its contribution is for, empty for a sum. Whatever the coordinator put in their places is overwritten.
    """
    digest = hashlib.sha256(json.dumps([statement.step, statement.round, statement.ask]).encode())
    for name, array in sorted(arrays.items()):
        made = np.ascontiguousarray(array)
        digest.update(json.dumps([name, made.dtype.str, made.shape]).encode())
        digest.update(made.tobytes())
    return {**packet, "request": digest.digest(), "function": function.encode()}


def own(layout: Layout, agreement: Agreement, name: str) -> Layout:
    """The layout of this holder: its share of the range is its share of the records, or an equal one."""
    share = 1.0 / len(agreement.holders) if layout.even else agreement.sizes[name] / sum(agreement.sizes.values())
    return layout.for_holder(share)
