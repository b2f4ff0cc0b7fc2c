"""A data holder: answers statements from its own data, under its own policy and ledger.

The one path of every request: parse (version) -> policy -> ledger -> data against the codebook -> compute ->
disclosure control -> noise -> protect -> answer. The ledger is charged before data are read, and nothing leaves when a
step fails. Stages of the protection that carry no request touch neither data nor ledger.
"""

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from statfed.client.contributions import Contributions
from statfed.client.guard.approvals import approved
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Policy, admit, load_policy
from statfed.client.protecting import Protecting, bound, own
from statfed.core import VERSION
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Arrays, Ask, checked
from statfed.core.protection import Packet
from statfed.core.randomness import Stream, stream
from statfed.core.resolve import Resolved, resolve
from statfed.core.statement import Admission, Closing, Present, Receipt, Statement
from statfed.core.table import Size
from statfed.core.terms import Terms

log = logging.getLogger("statfed.holder")

NOTHING: Packet = MappingProxyType({})
MOST = 64  # studies that are kept read


@dataclass(frozen=True)
class Reply:
    """What goes back: public facts, and the protection's packet with the protected contribution in it."""

    facts: Admission | Receipt | Present | Closing
    packet: Packet | None = None


def read_policy(home: Path) -> Policy:
    """The policy in a home folder. Raises Refused in words that hold none of it: its thresholds are secret."""
    try:
        return load_policy(home / "policy.toml")
    except UsageError as error:
        log.error("policy: %s", error)
        raise Refused("this holder's policy cannot be read; its own log says why") from None


class Holder:
    """One data holder with its home folder: policy.toml, ledger.sqlite and the data file."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.policy: Policy = read_policy(home)
        self._known: dict[str, Terms] = {}
        self._studies: dict[int, tuple[str, Resolved]] = {}
        self._protecting = Protecting(home)
        self._contributions = Contributions(home)

    def ledger(self) -> Ledger:
        """This dataset's ledger, opened for one transaction or a few."""
        budget = self.policy.budget
        return Ledger(
            self.home / "ledger.sqlite",
            dataset=self.policy.dataset.id,
            unit=budget.unit,
            epsilon=budget.epsilon,
            delta=budget.delta,
        )

    @property
    def size(self) -> Size:
        """The public size of the dataset."""
        return Size(self.policy.dataset.records, self.policy.dataset.persons)

    def answer(self, text: str, arrays: Arrays, packet: Packet = NOTHING) -> Reply:
        """Answer one statement. Raises Refused or UsageError with a public message, and then nothing leaves.

        arrays: public parameters; packet: the protection's.
        """
        statement = Statement.parse(text, VERSION, self._terms)
        self.policy = read_policy(self.home)  # a changed policy holds from the next statement on
        if statement.step == "release":  # whoever may no longer ask may still give back what was reserved
            self._contributions.close()
            self._protecting.close(statement.run)
            return Reply(self._release(statement))
        study = self._study(statement)
        admit(self.policy, study)
        match statement.step:
            case "admit":
                return Reply(self._admit(statement, study))
            case "ask":
                return self._contribute(statement, study, arrays, packet)
            case "protect":
                name = self.policy.holder.name
                _, party = self._protecting.party(statement, name, self.policy.parties.root, self.size.records)
                return Reply(*self._protecting.answer(statement, party, packet, name))

    def _terms(self, table: Any) -> Terms:
        """The terms of a statement, read once: they come again with every statement of a run."""
        key = hashlib.sha256(json.dumps(table).encode()).hexdigest()
        if key not in self._known:
            while len(self._known) >= MOST:
                forgotten = self._known.pop(next(iter(self._known)))
                self._studies.pop(id(forgotten), None)
            self._known[key] = Terms.model_validate(table)
        return self._known[key]

    def _study(self, statement: Statement) -> Resolved:
        """The study of a statement, read once."""
        found = self._studies.get(id(statement.terms))
        if found is None or found[0] != self.policy.holder.name:
            found = self.policy.holder.name, resolve(statement.terms, self.policy.holder.name)
            self._studies[id(statement.terms)] = found
        return found[1]

    def _admit(self, statement: Statement, study: Resolved) -> Admission:
        """Reserve budget, then check the data against the codebook. Nothing stays reserved when they do not fit."""
        size, privacy = self.size, study.privacy
        if not approved(self.home, self.policy, study.digest):
            with self.ledger() as ledger:
                head = ledger.verify()
            return Admission(
                holder=self.policy.holder.name, pending=True, size=size.records, persons=size.persons, ledger_head=head
            )
        reserved = study.reservation(size, statement.done)
        self._contributions.provable(statement.run, study, self.policy, size)
        with self.ledger() as ledger:
            head = ledger.verify()
            if reserved:
                head = ledger.set_aside(statement.run, study.digest, reserved, study.terms.method)
        try:
            self._contributions.checked(statement.run, study, self.policy)
        except BaseException:
            with self.ledger() as ledger:
                ledger.release(statement.run)
            raise
        first = study.question.method
        planned = getattr(first, "planned", None)
        steps, rate = planned(study.question, size) if planned and not privacy else (None, None)
        mechanism = None
        if reserved and study.own_noise:
            paid = study.price(Ask(study.own_noise[0]), size)
            mechanism = paid.mechanism if paid else None
        return Admission(
            holder=self.policy.holder.name,
            size=size.records,
            persons=size.persons,
            epsilon=reserved.epsilon(privacy.epsilon, privacy.delta) if reserved and privacy else None,
            delta=privacy.delta if privacy else None,
            steps=mechanism.steps if mechanism else steps,
            sampling_rate=mechanism.rate if mechanism else rate,
            noise_multiplier=mechanism.noise_multiplier if mechanism else None,
            noise_to_signal=mechanism.noise_to_signal if mechanism else None,
            ledger_head=head,
        )

    def _contribute(self, statement: Statement, study: Resolved, arrays: Arrays, packet: Packet) -> Reply:
        """The protected contribution to one sum. Raises Refused when a rule or the ledger does not allow it."""
        started = time.perf_counter()
        name, size, terms = self.policy.holder.name, self.size, study.terms
        if not approved(self.home, self.policy, study.digest):
            raise Refused("this study waits for approval at this holder; want it approved there first")
        if statement.round <= statement.done:
            raise Refused(f"sum: got number {statement.round}; want {statement.done + 1} or more")
        agreement, party = self._protecting.party(statement, name, self.policy.parties.root, size.records)
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise Refused(f"{statement.ask}: {key}: got values that are not finite; want finite numbers")
        ask = Ask(statement.ask, arrays, statement.share)
        study.scheduled(ask, statement.round)
        parts = study.parts(ask)
        function = study.functions.get(ask.name, "")
        paid = study.price(ask, size)
        head = ""
        if paid:
            with self.ledger() as ledger:
                number = statement.round - statement.done
                head = ledger.charge(statement.run, study.digest, number, paid.event)

        def random(purpose: str) -> Stream:
            return stream(terms.seed, name, statement.round, purpose)

        table = self._contributions.table(statement.run, study, self.policy, paid, random)
        found = checked(study.method.contribute(table, study.question, ask), parts, "contribution")
        rules: tuple[str, ...] = ()
        if paid is None or study.central:
            rules, sent = self._contributions.controlled(statement.run, study, self.policy, ask, parts, found)
            found = checked(sent, parts, "contribution")
            whom = " to the coordinator, which is trusted to add the noise" if study.central else ""
            use = f", for {function} by the protection" if function else ""
            note = f"{terms.method}: {ask.name} without noise{whom}{use}"
            with self.ledger() as ledger:
                head = ledger.disclose(statement.run, study.digest, statement.round, note)
        if paid and paid.noise:
            found = paid.noise.units(found, stream(terms.seed, name, study.digest, statement.round, "noise"))
        layout = study.layout(ask, parts, paid, agreement.sizes)
        protected = party.contribute(bound(packet, statement, arrays, function), found, own(layout, agreement, name))
        seconds = time.perf_counter() - started
        facts = Receipt(holder=name, round=statement.round, rules=rules, seconds=seconds, ledger_head=head)
        return Reply(facts, protected)

    def _release(self, statement: Statement) -> Closing:
        privacy = statement.terms.privacy
        with self.ledger() as ledger:
            head = ledger.release(statement.run)
            spent = ledger.spending(statement.run, delta=privacy.delta if privacy else None)
        return Closing(
            holder=self.policy.holder.name,
            unit=self.policy.budget.unit if privacy else None,
            study_epsilon=spent.study_epsilon if privacy else None,
            history_epsilon=spent.history_epsilon,
            filter_epsilon=spent.filter_epsilon,
            budget_epsilon=self.policy.budget.epsilon,
            delta=self.policy.budget.delta,
            disclosures=spent.disclosures,
            ledger_head=head,
        )
