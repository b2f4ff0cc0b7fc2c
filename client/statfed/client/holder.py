"""A data holder: answers statements from its own data, under its own policy and ledger.

The one path of every request: parse (version) -> policy -> ledger -> data against the codebook -> compute ->
protect -> answer. The ledger is charged before data are read, and nothing leaves when a step fails. Stages of the
protection that carry no request touch neither data nor ledger.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Policy, admit, load_policy
from statfed.client.inquiry import Inquiry
from statfed.client.protecting import Protecting, bound, own
from statfed.core import VERSION
from statfed.core.discovery import load
from statfed.core.errors import Refused, UsageError
from statfed.core.fixed_point import Layout, training_layout
from statfed.core.method import Arrays
from statfed.core.privacy.accountant import Repeated, epsilon
from statfed.core.protection import Agreement, Packet, read_protection
from statfed.core.terms import Terms
from statfed.core.randomness import stream
from statfed.core.records import Records, load_records, mismatches
from statfed.core.statement import Admission, Closing, Contributed, Plan, Present, Receipt, Statement
from statfed.core.terms import Terms
from statfed.strategies.learning import step as fedsgd

log = logging.getLogger("statfed.holder")

if TYPE_CHECKING:
    from torch import nn

    from statfed.strategies.learning.local import Schedule

Vector = NDArray[np.float32]
EMPTY = np.empty(0, np.float32)
NOTHING: Packet = MappingProxyType({})


@dataclass(frozen=True)
class Answer:
    """What goes back: public facts, and the protection's packet with the protected contribution in it."""

    facts: Plan | Receipt | Admission | Contributed | Present | Closing
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
        self._prepared: tuple[tuple[object, ...], Records, NDArray[np.float32]] | None = None
        self._protecting = Protecting(home)
        self._inquiry = Inquiry(home, self.ledger, self._protecting)

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

    def answer(self, text: str, arrays: Arrays, packet: Packet = NOTHING) -> Answer:
        """Answer one statement. Raises Refused or UsageError with a public message, and then nothing leaves.

        arrays: public parameters; packet: the protection's.
        """
        statement = Statement.parse(text, VERSION)
        self.policy = read_policy(self.home)  # a changed policy holds from the next statement on
        if statement.step != "release":  # whoever may no longer ask may still give back what was reserved
            admit(self.policy, statement.terms)
        match statement.step, statement.terms:
            case "admit", Terms() as terms:
                return Answer(self._admit(statement, terms))
            case "fit", Terms() as terms:
                return self._fit(statement, terms, np.asarray(arrays.get("vector", EMPTY)), packet)
            case "admit", Terms() as query:
                return Answer(self._inquiry.admit(statement, query, self.policy))
            case "ask", Terms() as query:
                return Answer(*self._inquiry.contribute(statement, query, self.policy, arrays, packet))
            case "protect", _:
                name = self.policy.holder.name
                _, party = self._protecting.party(
                    statement, name, self.policy.parties.root, self.policy.dataset.records
                )
                return Answer(*self._protecting.answer(statement, party, packet, name))
            case "release", _:
                self._inquiry.close()
                self._protecting.close(statement.run)
                return Answer(self._release(statement))
        raise Refused(f"step: got {statement.step}; want fit for a training study, ask for a query")

    def _admit(self, statement: Statement, terms: Terms) -> Plan:
        name, dataset = self.policy.holder.name, self.policy.dataset
        model = self._model(terms)
        parameters = sum(p.numel() for p in model.parameters())
        plan = self._plan(terms, parameters)
        unit = terms.privacy.unit if terms.privacy else "record"
        units = dataset.records if unit == "record" else dataset.persons
        with self.ledger() as ledger:
            head = ledger.verify()
            if terms.privacy:
                head = ledger.reserve(
                    statement.run,
                    terms.digest(),
                    terms.rounds - statement.done,
                    plan.event_per_round(),
                    f"{terms.scenario} training",
                )
        try:
            self._records(terms)
        except (UsageError, Refused):
            with self.ledger() as ledger:
                ledger.release(statement.run)
            raise
        return Plan(
            holder=name,
            size=dataset.records,
            units=units,
            steps_per_round=plan.steps_per_round,
            sampling_rate=plan.rate,
            noise_multiplier=plan.noise_multiplier,
            epsilon=_study_epsilon(plan.event_per_round(), terms) if terms.privacy else None,
            delta=terms.privacy.delta if terms.privacy else None,
            noise_to_signal=plan.noise_to_signal(terms.rounds, units if isinstance(plan, fedsgd.Step) else parameters),
            ledger_head=head,
        )

    def _fit(self, statement: Statement, terms: Terms, vector: Vector, packet: Packet) -> Answer:
        from statfed.strategies.learning.local import set_vector

        started = time.perf_counter()
        name, dataset = self.policy.holder.name, self.policy.dataset
        if not statement.done < statement.round <= terms.rounds:
            raise Refused(f"round: got {statement.round}; want {statement.done + 1} to {terms.rounds}")
        if not np.isfinite(vector).all():
            raise Refused("model: got values that are not finite; want finite numbers")
        agreement, party = self._protecting.party(statement, name, self.policy.parties.root, dataset.records)
        plan = self._plan(terms, len(vector))
        model = self._model(terms)
        set_vector(model, vector)
        with self.ledger() as ledger:
            if terms.privacy:
                number = statement.round - statement.done
                head = ledger.charge(statement.run, terms.digest(), number, plan.event_per_round())
            else:
                head = ledger.disclose(
                    statement.run, terms.digest(), statement.round, f"{terms.scenario}: model update without noise"
                )
        if isinstance(plan, fedsgd.Step):
            contribution, layout = self._stepped(statement, terms, model, plan, agreement)
        else:
            contribution, layout = self._trained(statement, terms, model, plan, agreement, vector)
        protected = party.contribute(bound(packet, statement, {"vector": vector}), contribution, layout)
        seconds = time.perf_counter() - started
        return Answer(
            Receipt(holder=name, round=statement.round, weight=dataset.records, seconds=seconds, ledger_head=head),
            protected,
        )

    def _plan(self, terms: Terms, parameters: int) -> "Schedule | fedsgd.Step":
        from statfed.strategies.learning.local import schedule

        dataset = self.policy.dataset
        if terms.training.method == "dp-fedsgd":
            return fedsgd.step(terms, parameters)
        fedsgd.check_local(terms)
        return schedule(terms, dataset.records, dataset.persons)

    def _trained(
        self,
        statement: Statement,
        terms: Terms,
        model: "nn.Module",
        plan: "Schedule",
        agreement: Agreement,
        start: Vector,
    ) -> tuple[Arrays, Layout]:
        """The update, or the model, after local training, and how it is encoded."""
        from statfed.strategies.learning.local import fit, get_vector

        name, size = self.policy.holder.name, self.policy.dataset.records
        records, inputs = self._records(terms)
        sampling, noise = (stream(terms.seed, name, statement.round, of) for of in ("sampling", "noise"))
        fit(model, inputs, records.labels, records.persons, terms, plan, sampling, noise)
        trained = get_vector(model)
        if not np.isfinite(trained).all():
            raise Refused("training diverged: the update is not finite; want a smaller learning rate")
        revealed = read_protection(terms)[0].REQUIRES.reveals_updates
        layout = own(training_layout(terms, len(start), agreement.sizes, revealed), agreement, name)
        if revealed:
            return {"vector": trained, "weight": np.array(size)}, layout
        update = bounded(trained - start, terms.training.update_norm)
        return {"update": update * np.float64(size), "weight": np.array(size)}, layout

    def _stepped(
        self, statement: Statement, terms: Terms, model: "nn.Module", plan: fedsgd.Step, agreement: Agreement
    ) -> tuple[Arrays, Layout]:
        """The noisy sum of clipped gradients of one step, and how it is encoded."""
        from statfed.strategies.learning.gradients import noisy_sum

        name = self.policy.holder.name
        records, inputs = self._records(terms)
        sampling, noise = (stream(terms.seed, name, statement.round, of) for of in ("sampling", "noise"))
        found = noisy_sum(model, inputs, records.labels, records.persons, terms, plan, sampling, noise)
        return {"gradient": found}, plan.layout(agreement.sizes).for_holder(1.0 / len(agreement.holders))

    def _release(self, statement: Statement) -> Closing:
        with self.ledger() as ledger:
            head = ledger.release(statement.run)
            privacy = statement.terms.privacy
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

    def _records(self, terms: Terms) -> tuple[Records, NDArray[np.float32]]:
        """The holder's data, checked against the codebook, and prepared for the model. Kept while unchanged.

        Whether they fit is disclosed to the coordinator; every guarantee is for data that do. Their size is not
        compared with the declared one: a refusal that depends on it would tell neighbouring data sets apart.
        """
        path = self.home / self.policy.dataset.path
        if not path.exists():
            raise UsageError("data file not found; want the path given in policy.toml to exist")
        stat = path.stat()
        key = (str(path), stat.st_mtime_ns, stat.st_size, terms.model.name, terms.codebook)
        if self._prepared is None or self._prepared[0] != key:
            records = load_records(path)
            found = mismatches(records, terms.codebook)
            if found:
                raise UsageError("data do not fit the codebook:\n  " + "\n  ".join(found))
            model = load("statfed.strategies.models", terms.model.name, "model")
            self._prepared = (key, records, model.prepare(records.windows, terms.codebook))
        return self._prepared[1], self._prepared[2]

    def _model(self, terms: Terms) -> "nn.Module":
        module = load("statfed.strategies.models", terms.model.name, "model")
        model: nn.Module = module.build(terms.codebook, terms.model.hidden, 0)
        return model


def bounded(update: Vector, norm: float) -> Vector:
    """An update, scaled down to L2 norm `norm` where it is longer. After noise it is post-processing."""
    length = float(np.linalg.norm(update.astype(np.float64)))
    return update if length <= norm else update * np.float32(norm / length * (1.0 - 1e-6))


def _study_epsilon(per_round: Repeated, terms: Terms) -> float | None:
    """PLD composition of all rounds of the study, at its own delta."""
    return epsilon([per_round] * terms.rounds, terms.privacy.delta) if terms.privacy else None
