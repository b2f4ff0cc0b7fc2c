"""A data holder: answers statements from its own data, under its own policy and ledger.

The one path of every request: parse (version) -> policy -> ledger -> data against the codebook -> compute ->
disclosure control -> noise -> protect -> answer. The ledger is charged before data are read, and nothing leaves when a
step fails. Stages of the protection that carry no request touch neither data nor ledger.

Whatever is raised before data are looked at is a function of the study, the policy and the ledger, and says so in
public. Whatever is raised from then on, be it a rule, a misfit, an option that does not suit the records or an error,
is one refusal (`statfed.client.guard.refusals`): logged here, entered in the ledger, counted, and told in one text.
What the coordinator raises on seeing exact totals is one too: it says so on ending the run, and the ledger counts it.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np

from statfed.client.contributions import Contributions
from statfed.client.guard import links
from statfed.client.guard.admission import admit, bounded, bounded_ask, bounded_linkage, bounded_parts
from statfed.client.guard.disclosure import check_declared
from statfed.client.guard.files import check_modes, one_at_a_time
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import Policy, load_policy
from statfed.client.guard.refusals import SPENT, public, record
from statfed.client.guard.spent import base
from statfed.client.linking import Lines, check_name, forget_list, list_of, prune_lists, units_of, write_pairs
from statfed.client.pilot.permits import known, permit
from statfed.client.protecting import Protecting, bound, own
from statfed.client.repeats import Answered, Repeats, figures_of
from statfed.core import VERSION
from statfed.core.course import check_course, digest_of
from statfed.core.errors import EngineError, LedgerCorrupt, Malformed, Refused, StatfedError, UsageError, harmless
from statfed.core.identity import Identity
from statfed.core.linkage import InPlace, Units
from statfed.core.method import Arrays, Ask, Part, checked
from statfed.core.privacy.spending import Price
from statfed.core.protection import Agreement, Packet, Party
from statfed.core.randomness import Stream, stream
from statfed.core.resolve import Resolved, resolve
from statfed.core.statement import Admission, Closing, Present, Receipt, Statement
from statfed.core.table import Size
from statfed.core.terms import Terms

log = logging.getLogger("statfed.holder")

MALFORMED = "packet: got one that is none of this protocol at this stage; want a run in which all parties follow it"
NOTHING: Packet = MappingProxyType({})
MOST = 64  # studies that are kept read


def _undrawn(purpose: str) -> Stream:
    raise EngineError(f"{purpose}: got a draw in an answer without noise")


@dataclass(frozen=True)
class Reply:
    """What goes back: public facts, and the protection's packet with the protected contribution in it."""

    facts: Admission | Receipt | Present | Closing
    packet: Packet | None = None


def read_policy(home: Path) -> Policy:
    """The policy in a home folder. Raises Refused in words that hold none of it, its thresholds being secret, also
    where it or another file of the home is open to others than its owner."""
    try:
        check_modes(home)
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
        self._repeats = Repeats(home)
        self._here: set[str] = set()  # runs that this process admitted
        self._protecting = Protecting(home)
        self._units: dict[str, Units] = {}  # of runs in which pairs are told here
        self._lines = Lines()
        self._contributions = Contributions(home)
        prune_lists(home)

    def ledger(self) -> Ledger:
        """This dataset's ledger, opened for one transaction or a few."""
        budget = self.policy.budget
        return Ledger(
            self.home / "ledger.sqlite",
            dataset=self.policy.dataset.id,
            unit=budget.unit,
            epsilon=budget.epsilon,
            delta=budget.delta,
            source=self.policy.dataset.path,
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
            if not known(self.home, self._digest(statement)):
                raise Refused("release: this study was never decided on here; want one that was")
            self._contributions.close()
            self._protecting.close(statement.run)
            self._units.pop(statement.run, None)
            self._lines.forget(statement.run)
            self._here.discard(statement.run)
            return Reply(self._release(statement))
        bounded(self.policy.limits, statement.terms)
        study = self._study(statement)
        self._permit(statement, study, uses=False)
        admit(self.policy, study)
        if statement.step != "admit" and study.protection.REQUIRES.identities and statement.run not in self._here:
            raise EngineError(f"run {statement.run}: its secrets went with an earlier process; want another attempt")
        match statement.step:
            case "admit":
                prune_lists(self.home)
                return Reply(self._admit(statement, study))
            case "ask":
                return self._contribute(statement, study, arrays, packet)
            case "protect" if study.linking:
                return self._link(statement, study, packet)
            case "protect":
                name = self.policy.holder.name
                _, party = self._protecting.party(statement, name, self.policy.parties.root, self.size.records)
                return Reply(*self._protecting.answer(statement, party, packet, name))

    def _permit(self, statement: Statement, study: Resolved, *, uses: bool) -> None:
        """Raise Refused unless this study is approved here, in a pilot; see `statfed.client.pilot.permits`."""
        rules, now = self.policy.approval, datetime.now(UTC)
        permit(self.home, rules, study.terms, study.digest, statement.run, statement.round, uses=uses, now=now)

    def _terms(self, table: Any) -> Terms:
        """The terms of a statement, read once: they come again with every statement of a run."""
        key = hashlib.sha256(json.dumps(table).encode()).hexdigest()
        if key not in self._known:
            while len(self._known) >= MOST:
                forgotten = self._known.pop(next(iter(self._known)))
                self._studies.pop(id(forgotten), None)
            self._known[key] = Terms.model_validate(table)
        return self._known[key]

    def _digest(self, statement: Statement) -> str:
        """The digest of a statement's terms, which is known where the study was read before."""
        found = self._studies.get(id(statement.terms))
        return found[1].digest if found else statement.terms.digest()

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
        study.reservation(size)  # of a study that no budget is enough for, nothing is opened
        with one_at_a_time(self.home):
            self._patient(study)
            with self._looking(statement, study):
                self._same_data(statement.run, self._repeats.read(statement.run, study.digest))
            self._contributions.provable(statement.run, study, self.policy, size)
            with self.ledger() as ledger:
                head, before = ledger.head(), ledger.before(statement.run, study.digest)
                if study.linked_noise and before.last:
                    raise Refused(
                        f"run {base(statement.run)}: its units were matched and its noise was charged in an earlier "
                        "attempt; want a new run: another draw has to be charged too, or the noise could be averaged"
                    )
                if privacy and statement.done < before.last != self._again(ledger, statement.run, study.digest):
                    raise Refused(
                        f"resume: got {statement.done} sums done; want {before.last}, which this run was charged for "
                        "here, and of which the last is not kept: none is paid for twice"
                    )
                if privacy and statement.done < before.last - 1:
                    raise Refused(
                        f"resume: got {statement.done} sums done; want {before.last - 1} or {before.last}: this holder "
                        "keeps the last sum that this run was charged for, and none before it"
                    )
                done = max(statement.done, before.last)
                reserved = None if study.spent(done) else study.reservation(size, done, before.events)
                if reserved:
                    head = ledger.set_aside(statement.run, study.digest, reserved, study.terms.method, done)
            try:
                with self._looking(statement, study), self._contributions.within(statement.run, self.policy):
                    self._contributions.checked(statement.run, study, self.policy)
            except BaseException:
                with self.ledger() as ledger:
                    ledger.release(statement.run)
                raise
        self._here.add(statement.run)
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
            epsilon=reserved.epsilon(privacy.epsilon, privacy.delta)
            if reserved and privacy
            else 0.0
            if privacy
            else None,
            delta=privacy.delta if privacy else None,
            steps=mechanism.steps if mechanism else steps,
            sampling_rate=mechanism.rate if mechanism else rate,
            noise_multiplier=mechanism.noise_multiplier if mechanism else None,
            noise_to_signal=mechanism.noise_to_signal if mechanism else None,
            ledger_head=head,
        )

    def _patient(self, study: Resolved) -> None:
        """Raise Refused where an exact study is asked of a holder that has refused as often as its policy allows."""
        limits = self.policy.limits
        if limits.refusals is None or (study.privacy is not None and not study.central):
            return
        with self.ledger() as ledger:
            if ledger.refusals(limits.days) >= limits.refusals:
                raise Refused(SPENT.format(days=limits.days))

    def _figures(self, statement: Statement, study: Resolved, ask: Ask, figures: int) -> str:
        """Names the exact figures of an answer. Raises Refused where it was given in this run already, would be others
        than another attempt was given, or more than the data ever give; those that left before are no more of them, as
        long as the data are the same."""
        run, most = statement.run, self.policy.limits.figures
        with self.ledger() as ledger:
            if ledger.has_disclosed(run, statement.round):
                raise Refused(f"round {statement.round} of run {run} was already disclosed; want a new round")
            given = ledger.given(run, study.digest, statement.round)
        with self._looking(statement, study):
            state = self._contributions.state(run, self.policy)
            what = figures_of(study, ask, state)
            told = state != run or not study.training  # of one that cannot be told no statistic is computed again
            if told and any(one != what for one in given.values()):
                raise Refused("data or question are others than when this run was given this sum; want a new run")
        with self.ledger() as ledger:
            before = ledger.figures()
            if most is not None and not ledger.has_given(what) and before + figures > most:
                raise Refused(
                    f"limits.figures: this dataset gave {before:,} of the {most:,} exact figures that it ever gives, "
                    f"and {figures:,} more are asked for; want fewer, or noise (a [privacy] section)"
                )
        return what

    def _may_give(self, ledger: Ledger, statement: Statement, study: Resolved, *, exact: bool) -> None:
        """Raise Refused where nothing is given to a run any more, or this sum to no other attempt. Public."""
        run, number, fewest = statement.run, statement.round, study.minimum_holders
        if ledger.is_over(run, study.digest):
            raise Refused(f"run {base(run)}: it has ended, and nothing is given to it any more; want a new run")
        if exact and not (study.repeatable or study.training) and ledger.given(run, study.digest, number):
            raise Refused(
                f"sum {number} was given to another attempt of this run, and is over {fewest} or more of "
                f"{len(study.holders)} holders (protection.minimum_holders): the difference of two such totals would "
                "be few holders' exact figures; want the run begun anew"
            )

    def _may_ask(self, before: Sequence[Ask], study: Resolved, ask: Ask, parts: Mapping[str, Part]) -> None:
        """Raise Refused where an exact ask is out of its method's course, or does not say what it sends. Public."""
        if self.policy.disclosure.silent:
            return
        if not study.training and not study.privacy:
            check_course(study.question, before, ask)
        check_declared(study.question, ask, parts, study.method.discloses(study.question, ask))

    def _same_data(self, run: str, kept: Answered | None) -> str:
        """Names the state of the data, empty where it cannot be told. Raises Refused where earlier sums of the run, in
        another attempt, are about another one."""
        state = self._contributions.state(run, self.policy)
        if state == run:
            return ""
        if kept and kept.data and kept.data != state:
            raise Refused("the data changed since this run began; want a new run")
        return state

    def _again(self, ledger: Ledger, run: str, study: str) -> int:
        """Number of the last sum that a run was charged for, where another attempt is given it without a charge; 0 for
        none."""
        kept = self._repeats.read(run, study)
        given = kept is not None and (kept.pending or kept.found is not None)
        return kept.number if kept and given and kept.number == ledger.charged(run, study) else 0

    @contextmanager
    def _looking(self, statement: Statement, study: Resolved) -> Iterator[None]:
        """Within it data are looked at: whatever is raised becomes the one refusal, logged, entered and counted."""
        try:
            yield
        except LedgerCorrupt:
            raise
        except Malformed as error:  # of whoever sent it, and not of the data: nothing is learned, and nothing counted
            log.warning("%s: %s", harmless(statement.run), harmless(str(error)))
            if self.policy.rehearsal:
                raise
            raise Refused(MALFORMED) from None
        except Exception as error:
            if not isinstance(error, StatfedError):
                log.exception("internal error on seeing the data")
            method = study.terms.method
            found = record(
                self.home,
                run=statement.run,
                study=study.digest,
                method=method,
                step=statement.step,
                ask=statement.ask,
                error=error,
            )
            with self.ledger() as ledger:
                ledger.refused(statement.run, study.digest, f"{method}: refusal {found.id}")
            if self.policy.rehearsal:
                raise
            raise Refused(public(found.id)) from None

    def _contribute(self, statement: Statement, study: Resolved, arrays: Arrays, packet: Packet) -> Reply:
        """The protected contribution to one sum. Raises Refused when a rule or the ledger does not allow it."""
        started = time.perf_counter()
        name, size = self.policy.holder.name, self.size
        if statement.round <= statement.done:
            raise Refused(f"sum: got number {statement.round}; want {statement.done + 1} or more")
        agreement, party = self._protecting.party(statement, name, self.policy.parties.root, size.records)
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                raise Refused(f"{statement.ask}: {key}: got values that are not finite; want finite numbers")
        ask = Ask(statement.ask, arrays, statement.share)
        study.scheduled(ask, statement.round)
        bounded_ask(self.policy.limits, study, ask, statement.round)
        parts = study.parts(ask)
        entries = bounded_parts(self.policy.limits, parts)
        paid = study.price(ask, size)
        with one_at_a_time(self.home):
            self._permit(statement, study, uses=True)
            head, found, rules = self._given(statement, study, ask, parts, paid, entries)
            with self._looking(statement, study):
                layout = study.layout(ask, parts, paid, agreement.sizes)
                asked = bound(packet, statement, arrays, study.functions.get(ask.name, ""))
                protected = party.contribute(asked, found, own(layout, agreement, name))
        seconds = time.perf_counter() - started
        facts = Receipt(
            holder=name, run=statement.run, round=statement.round, rules=rules, seconds=seconds, ledger_head=head
        )
        return Reply(facts, protected)

    def _link(self, statement: Statement, study: Resolved, packet: Packet) -> Reply:
        """The answer to one stage of a linkage. At the first one it is charged, and then the units are looked at: once
        a run, since what another attempt finds may be about other units of the others.
        """
        name, number, run = self.policy.holder.name, 1, statement.run
        if statement.round != number:
            raise Refused(f"linkage: got number {statement.round}; want {number}: units are linked once a run")
        module, asked = study.protection, study.linking
        if not isinstance(module, InPlace) or asked is None:
            raise Refused(f"{study.terms.protection.name}: no linkage; want one")
        if asked.linking.to:
            check_name(run)

        def join(agreement: Agreement, identity: Identity) -> Party:
            figures = module.module.figures(agreement)
            bounded_linkage(self.policy, study, figures, module.module.lists(agreement))
            self._permit(statement, study, uses=True)
            self._patient(study)
            if ready := getattr(module.module, "ready", None):
                ready()
            with one_at_a_time(self.home), self.ledger() as ledger:
                links.kept(self.home, self.policy.dataset.id, ledger)
                links.enter(
                    ledger, self.policy, study, run, number, figures, module.module.stepwise(agreement, name)[0]
                )
            with self._looking(statement, study), self._contributions.within(run, self.policy):
                table = self._contributions.table(run, study, self.policy, None, _undrawn)
                self._contributions.linked(run, study, self.policy)
                found = units_of(table, asked, name, parted=module.module.PARTED)
                if name in asked.linking.to:
                    self._units[run] = found
                keep = list_of(self.home, run, study.digest)
                return cast(Party, module.module.party(agreement, identity, found, keep))  # which looks at them

        pins, direct = self.policy.parties.root, self.policy.direct if self.policy.allow.direct else None
        agreement, party = self._protecting.party(statement, name, pins, self.size.records, join, direct)
        packet = self._protecting.received(run, packet)
        before = getattr(party, "steps", 0)
        with self._looking(statement, study):
            present, found = self._protecting.answer(statement, party, packet, name)
            if line := self._lines.of(run, getattr(party, "standing", ("", 0, 1))):
                log.info("linkage %s: %s", harmless(run), line)
            if (pairs := getattr(party, "pairs", None)) is not None and run in self._units:
                write_pairs(self.home, run, self._units.pop(run), pairs)
        if (steps := getattr(party, "steps", 0)) > before:
            with one_at_a_time(self.home), self.ledger() as ledger:
                links.step(ledger, self.policy, study, run, steps, module.module.stepwise(agreement, name)[1])
        return Reply(present, self._protecting.sent(run, found))

    def _given(
        self,
        statement: Statement,
        study: Resolved,
        ask: Ask,
        parts: Mapping[str, Part],
        paid: Price | None,
        entries: int,
    ) -> tuple[str, Arrays, tuple[str, ...]]:
        """The ledger's head, the contribution and the rules that it passed: charged, computed and entered once, and
        from then on kept for whoever asks for it in another attempt (`statfed.client.repeats`)."""
        run, number, digest = statement.run, statement.round, study.digest
        exact = paid is None or study.central
        under = repr(self.policy.disclosure) if exact else ""
        told, kept = digest_of(ask), self._repeats.read(run, digest)
        with self.ledger() as ledger:
            head, before, begun = ledger.head(), ledger.before(run, digest), ledger.begun(run)
            again = ledger.has_charged(run, number - begun)
            self._may_give(ledger, statement, study, exact=exact)
        use = f", for {study.functions[ask.name]} by the protection" if ask.name in study.functions else ""
        whom = " to the coordinator, which is trusted to add the noise" if study.central else ""
        note = f"{study.terms.method}: {ask.name} without noise{whom}{use}"
        repeated = kept if kept and kept.again(run, number, told, under) else None
        if repeated and repeated.found is not None:
            with self.ledger() as ledger:
                entered = not exact or ledger.has_disclosed(repeated.attempt, number)
            if not entered:  # its process ended before it left
                what = self._figures(statement, study, ask, entries)
                with self.ledger() as ledger:
                    head = ledger.disclose(repeated.attempt, digest, number, note, entries, what)
            return head, repeated.found, repeated.rules
        late = repeated is not None and repeated.pending and number == before.last
        if paid and statement.done > max(begun, before.last):
            raise Refused(f"sum: got {statement.done} sums done; want {begun}, as when this run was admitted")
        if paid and number <= before.last and not late:
            raise Refused(f"sum {number} of this run was paid for, and is not given again; want a new run")
        course = dict(kept.course) if kept else {}
        if number in course and digest_of(course[number]) != told:
            raise Refused(f"ask: got {ask.name} as sum {number}; want what this run asked for as that sum before")
        if exact:
            self._may_ask(kept.before(number) if kept else (), study, ask, parts)
            if kept is None and not study.training:
                with self.ledger() as ledger:
                    if ledger.has_given_to(run, digest) and not ledger.given(run, digest, number):
                        raise Refused(f"run {base(run)}: what it was given is not known any more; want it begun anew")
        self._patient(study)
        what = self._figures(statement, study, ask, entries) if exact else ""
        with self._looking(statement, study):
            data = self._same_data(run, kept)
        answered = Answered(digest, run, number, told, data, pending=True, under=under, course=course)
        if paid and not late:
            if not again:
                self._repeats.write(answered)
            with self.ledger() as ledger:
                head = ledger.charge(run, digest, number - begun, paid.event)
        with self._looking(statement, study), self._contributions.within(run, self.policy):
            found, rules = self._found(statement, study, ask, parts, paid, exact=exact)
        if not study.privacy and not study.training and not self.policy.disclosure.silent:
            course[number] = ask
        given = found if study.repeatable else None
        self._repeats.write(replace(answered, pending=False, found=given, rules=rules, course=course))
        if exact:
            with self.ledger() as ledger:
                head = ledger.disclose(run, digest, number, note, entries, what)
        return head, found, rules

    def _found(
        self,
        statement: Statement,
        study: Resolved,
        ask: Ask,
        parts: Mapping[str, Part],
        paid: Price | None,
        exact: bool,
    ) -> tuple[Arrays, tuple[str, ...]]:
        """The contribution to one sum, controlled or with its noise, and the rules that it passed."""
        policy, run = self.policy, statement.run
        name, seed = policy.holder.name, study.terms.seed

        def random(purpose: str) -> Stream:
            return stream(seed, name, statement.round, purpose)

        rules: tuple[str, ...] = ()
        if exact:
            self._populated(run, study)
        table = self._contributions.table(run, study, policy, paid, random)
        found: Arrays = checked(study.method.contribute(table, study.question, ask), parts, "contribution")
        if exact:
            rules, sent = self._contributions.controlled(run, study, policy, ask, parts, found)
            found = checked(sent, parts, "contribution")
        if paid and paid.noise:
            found = paid.noise.units(found, stream(seed, name, study.digest, statement.round, "noise"))
        return found, rules

    def _populated(self, run: str, study: Resolved) -> None:
        """Raise Refused where conditions select no record here, or fewer than the minimum: one is as good as the other
        for finding out where a known person's value lies."""
        minimum = self.policy.disclosure.minimum_frequency
        if (
            study.terms.where
            and minimum is not None
            and self._contributions.selected(run, study, self.policy) < minimum
        ):
            raise Refused("minimum frequency: the conditions select fewer records than that, or none")

    def _release(self, statement: Statement) -> Closing:
        privacy, digest = statement.terms.privacy, self._digest(statement)
        with self.ledger() as ledger:
            over = statement.withheld or statement.finished
            if statement.withheld:
                ledger.withheld(statement.run, digest, f"{statement.terms.method}: no result")
            head = ledger.release(statement.run, digest, over=over)
            if over:
                self._repeats.forget(statement.run, digest)
                forget_list(self.home, statement.run, digest)
            spent = ledger.spending(statement.run, delta=privacy.delta if privacy else None)
            charged = ledger.charged(statement.run, digest) if privacy else 0
            again = self._again(ledger, statement.run, digest) if privacy else 0
            more = self._more(ledger, statement) if charged else None
        return Closing(
            holder=self.policy.holder.name,
            unit=self.policy.budget.unit if privacy else None,
            study_epsilon=spent.study_epsilon if privacy else None,
            history_epsilon=spent.history_epsilon,
            filter_epsilon=spent.filter_epsilon,
            share=spent.share,
            budget_epsilon=self.policy.budget.epsilon,
            delta=self.policy.budget.delta,
            disclosures=spent.disclosures,
            figures=spent.figures,
            most_figures=self.policy.limits.figures,
            more=more,
            charged=charged,
            again=again,
            ledger_head=head,
        )

    def _more(self, ledger: Ledger, statement: Statement) -> int | None:
        """How many more studies like this one the ledger's own filter admits; None where it cannot be told."""
        try:
            reserved = self._study(statement).reservation(self.size)
        except StatfedError:  # whoever may no longer ask may still end its run
            return None
        return ledger.more_like(reserved) if reserved else None
