"""A holder's privacy ledger: what one dataset has lost, for ever. A chain of entries, of which this says the meaning.

Kinds of entries, and their facts: `open` (dataset, unit, epsilon, delta) once, `budget` (epsilon, delta), `reserve`
(order, single; `round` is the most sums of the run, `event` that of each of them), `charge`, `disclose` (figures, what;
where known), `refuse` (withheld, where the coordinator gave no result on seeing totals), `release` (freed), `restored`
(anchor, lost). A reservation of sums with different events has them in `events`, each with how often; one of a budget
that is spent in shares has `adaptive`, and `event` stands for the whole budget (`accountant.claim`).

Formal guarantees.

1. *The budget holds over all studies, however they are chosen*, by the filters of `statfed.core.privacy.filters`: a
   study is reserved only while all that was charged, is reserved and is asked passes the Renyi filter of one order or
   the pure one. The order is fixed with the first study and kept in the chain, whatever rule it was chosen by.
2. *Single study.* The composition of privacy loss distributions is tighter and valid for parameters that were fixed
   beforehand (Koskela et al. 2020), but it is no filter. A ledger without charge or reservation may therefore admit
   one study by that figure, and is then closed to every later one. Which of the two rules governs is settled before
   the first release. There is never "within one or the other" of two rules that each use all of delta: two stopping
   rules that are each valid say nothing about stopping at the later of the two, nor about the more favourable being
   picked after seeing results (Rogers et al. 2016, Whitehouse et al. 2023 on why odometers and filters cost more than
   fixed composition).
   A reservation released without any charge released nothing, so the ledger is as new and the choice is free again.

Crashes, races, edits and deletion are the subject of `statfed.client.guard.chain`, which keeps the entries. A crash can
only over-count: a reservation counts in full until it is released, and `charge` is called before data are read and
returns after the entry is on disk. Dying at any point leaves either no entry and no data read, or an entry and perhaps
no release. Two processes cannot both spend the last of the budget: each check and its entry are one transaction.

3. *After a loss everything counts as spent.* Where entries were lost and nobody knows them, all of the budget at that
   time, (epsilon, delta), does: a ledger that keeps within its budget has lost no more. What was set aside is let go,
   since the lost entries may have. Later studies have what a raised budget goes beyond it, in both epsilon and delta,
   with a filter of its own (basic composition, Dwork and Roth 2014, theorem 3.16). Figures that a policy limits are
   refused, and refusals count as more than any limit.

What left exactly has no epsilon and is counted instead. Enough exact answers give everything away (Dinur and Nissim
2003), so a policy can limit their number: `figures` counts the numbers that left, those of the same question about the
same state of the data once, since it has one answer. A refusal that depended on data says something of them too: it is
an entry, counted by itself and among the disclosures. Refusals of the last days are counted by a clock that only goes
forward: an entry is no older than any before it, and one from the future is from now.

The figures reported for a run that stopped early hold if the stop did not depend on results; the gate needs no such
condition. Raising the budget is on record ("budget"); the promise then is the raised one, as if made at the start.
"""

import datetime as dt
import json
import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from statfed.client.data.identity import identity
from statfed.client.guard import chain
from statfed.client.guard.chain import Chain, Entry
from statfed.core.errors import Refused, UsageError
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import Event, Repeated
from statfed.core.privacy.filters import Budget
from statfed.core.privacy.spending import Reservation
from statfed.core.section import Unit

log = logging.getLogger("statfed.holder")

UNKNOWN = 2**31
"""Refusals that a ledger counts which lost entries: more than any limit."""


@dataclass(frozen=True)
class Spending:
    """What was spent. Figures are epsilons at `delta` unless said otherwise.

    study_epsilon: PLD over the charges of the run asked for and of its other attempts (None without one);
    history_epsilon: PLD over all charges ever, or the filter's figure once a study chose its asks on seeing totals;
    None once anything left without noise, since then no finite epsilon holds for the dataset; filter_epsilon: charges
    and reservations together, by Renyi composition (PLD where `single`); share: of the budget that they take, by the
    gate; left: epsilon of the largest release that is still admitted. disclosures: sums that left without noise, and
    refusals that depended on data; figures: distinct exact numbers in those sums, as far as they were counted;
    refusals: those of all time.
    """

    study_epsilon: float | None
    history_epsilon: float | None
    filter_epsilon: float
    share: float
    charged: int
    reserved: int
    budget: float
    delta: float
    left: float
    order: float | None
    single: bool
    disclosures: int
    figures: int
    refusals: int
    entries: int
    head: str


@dataclass
class _Run:
    """events: what is set aside, each with how often; of an adaptive budget the claim, once."""

    study: str
    rounds: int
    events: Mapping[str, int]
    adaptive: bool
    admitted: tuple[float, float]
    charged: dict[int, str] = field(default_factory=dict)
    released: bool = False

    @property
    def outstanding(self) -> int:
        return 0 if self.released else self.rounds - len(self.charged)

    def refuses(self, text: str) -> str:
        """Why a sum with this event is not covered by what is left of the reservation; nothing where it is."""
        if self.adaptive:
            claimed = privacy.event_from_json(next(iter(self.events)))
            spent = sum(privacy.cost(claimed, privacy.event_from_json(one)) for one in self.charged.values())
            asked = privacy.cost(claimed, privacy.event_from_json(text))
            if not spent + asked <= 1.0 + 1e-9:
                return (
                    f"got {asked:.4g} of the study's budget; want at most the {max(0.0, 1.0 - spent):.4g} that is left"
                )
            return ""
        more = self.events.get(text, 0) - sum(one == text for one in self.charged.values())
        return "" if more > 0 else f"got event {text}; want the reserved {' or '.join(self.events)}"

    def composed(self, charged: bool, reserved: bool) -> Counter[str]:
        """Events of the run, with how often: what was charged, and what is still set aside."""
        done, found = Counter(self.charged.values()), Counter[str]()
        if self.adaptive:
            if reserved and not self.released:
                return Counter(self.events) if charged else Counter()  # the claim covers what was charged of it
            return done if charged else found
        if charged:
            found += done
        if reserved and not self.released:
            found += Counter(self.events) - done
        return found


@dataclass
class _State:
    """What the entries add up to. `apply` refuses a sequence that this module could not have written."""

    dataset: str = ""
    unit: str = ""
    epsilon: float = 0.0
    delta: float = 0.0
    order: float | None = None
    single: bool = False
    runs: dict[str, _Run] = field(default_factory=dict)
    disclosed: set[tuple[str, int]] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)  # figures of each named question
    unnamed: int = 0  # figures of questions without a name
    refusals: list[int] = field(default_factory=list)  # their places in `times`
    withheld: set[str] = field(default_factory=set)  # runs whose totals gave no result
    times: list[dt.datetime] = field(default_factory=list)  # of all entries
    lost: tuple[float, float] | None = None  # epsilon and delta of the budget when entries were lost

    @property
    def room(self) -> tuple[float, float]:
        """Epsilon and delta that the entries of the chain have: the budget, without what was lost."""
        epsilon, delta = self.lost or (0.0, 0.0)
        return self.epsilon - epsilon, self.delta - delta

    @property
    def figures(self) -> int:
        return sum(self.asked.values()) + self.unnamed

    def refused_since(self, start: dt.datetime, now: dt.datetime) -> int:
        """Refusals from `start` on, by the times of the entries put right as the module says."""
        latest, found, places = dt.datetime.min.replace(tzinfo=dt.UTC), 0, set(self.refusals)
        for place, time in enumerate(self.times):
            if time <= now:
                latest = max(latest, time)
            found += place in places and (time > now or latest >= start)
        return found if self.lost is None else found + UNKNOWN

    def disclose(self, run: str, round: int, facts: Mapping[str, Any]) -> None:
        """Count a release without noise. Raises ValueError on facts that this module could not have written."""
        figures, what = facts.get("figures", 0), facts.get("what", "")
        if type(figures) is not int or figures < 0 or not isinstance(what, str):
            raise ValueError(f"figures: got {figures!r}; want a whole number from 0")
        self.disclosed.add((run, round))
        if what:
            self.asked[what] = max(figures, self.asked.get(what, 0))
        else:
            self.unnamed += figures

    def events(self, charged: bool = True, reserved: bool = True) -> list[Event]:
        """Composition of charges and outstanding reservations, one event for equal ones."""
        counts: Counter[str] = Counter()
        for run in self.runs.values():
            counts += run.composed(charged, reserved)
        return [_times(text, count) for text, count in sorted(counts.items()) if count]

    @property
    def charges(self) -> int:
        return sum(len(run.charged) for run in self.runs.values())

    @property
    def history(self) -> float:
        """The epsilon of all charges. Composition of privacy losses is for asks that were fixed beforehand."""
        charged = self.events(reserved=False)
        chosen = any(run.adaptive and run.charged for run in self.runs.values())
        return self.figure(charged) if chosen or self.lost else _tight(charged, self.delta)

    @property
    def reserved(self) -> int:
        return sum(run.outstanding for run in self.runs.values())

    @property
    def new(self) -> bool:
        """Nothing was ever released under the budget and nothing is about to be."""
        return not self.charges and not self.reserved and not self.lost

    def figure(self, events: list[Event]) -> float:
        """The epsilon of `events` together, what counts as lost included."""
        gone, delta = self.lost[0] if self.lost else 0.0, self.room[1]
        if not events:
            return gone
        if delta <= 0:
            return math.inf
        return gone + (privacy.epsilon if self.single else privacy.renyi_epsilon)(events, delta)

    @property
    def budget(self) -> Budget | None:
        """What the filters of this ledger are about; None where everything counts as spent."""
        epsilon, delta = self.room
        return Budget(epsilon, delta, None if self.new else self.order) if epsilon > 0 and delta > 0 else None

    def admits(self, events: list[Event]) -> bool:
        """Is that all of `events` ever left within the budget, by the rule in force?"""
        if self.single:
            return privacy.epsilon(events, self.delta) <= self.epsilon
        return self.budget is not None and filters.fits(events, self.budget)

    @property
    def share(self) -> float:
        """What charges and reservations take of the budget; of a budget in which entries were lost, of the whole."""
        events = self.events()
        if self.budget is None or (self.single and not self.new):
            return 1.0
        gone = self.lost[0] / self.epsilon if self.lost else 0.0
        return gone + (1.0 - gone) * filters.share(events, self.budget)

    def more_like(self, asked: list[Event]) -> int:
        """How many more studies of these events are admitted."""
        if self.budget is None or (self.single and not self.new):
            return 0
        return filters.more_like(self.events(), privacy.composed(asked), self.budget)

    def apply(self, entry: Entry) -> None:
        facts: dict[str, Any] = json.loads(entry.facts)
        time = dt.datetime.fromisoformat(entry.time)
        self.times.append(time if time.tzinfo else time.replace(tzinfo=dt.UTC))
        run = self.runs.get(entry.run)
        if (entry.kind == "open") != (entry.seq == 1):
            raise ValueError("open comes first and once")
        match entry.kind:
            case "open":
                if facts["format"] != chain.FORMAT:
                    raise ValueError(f"format: got {facts['format']}; want {chain.FORMAT}")
                self.dataset, self.unit = facts["dataset"], facts["unit"]
                self.epsilon, self.delta = _budget(facts)
            case "budget":
                self.epsilon, self.delta = _budget(facts)
            case "reserve":
                kept = self.order if self.order is not None or not self.lost else facts["order"]
                follows = not self.single and (facts["order"], facts["single"]) == (kept, False)
                if run or not (self.new or follows):
                    raise ValueError("reservation that could not have been admitted")
                adaptive, events = bool(facts.get("adaptive")), dict(facts.get("events", {}))
                events = events or {entry.event: 1 if adaptive else entry.round}
                for text in events:
                    privacy.event_from_json(text)
                self.order, self.single = _order(facts["order"]), facts["single"] is True
                admitted = (self.epsilon, self.delta)
                self.runs[entry.run] = _Run(entry.study, entry.round, events, adaptive, admitted)
            case "charge":
                if not run or run.released or not 1 <= entry.round <= run.rounds or entry.round in run.charged:
                    raise ValueError("charge without a reservation")
                if run.study != entry.study or run.refuses(entry.event):
                    raise ValueError("charge that differs from its reservation")
                run.charged[entry.round] = entry.event
            case "disclose":
                self.disclose(entry.run, entry.round, facts)
            case "refuse":
                self.refusals.append(entry.seq - 1)
                if facts.get("withheld") is True:
                    self.withheld.add(entry.run)
            case "restored":
                if facts["lost"]:
                    self.lost = (self.epsilon, self.delta)
                    for known in self.runs.values():
                        known.released = True
            case "release" if run:
                run.released = True
            case _:
                raise ValueError(f"unknown kind {entry.kind!r}")


def _budget(facts: Mapping[str, Any]) -> tuple[float, float]:
    """Epsilon and delta of an entry. Raises ValueError on what is no budget."""
    epsilon, delta = facts["epsilon"], facts["delta"]
    if type(epsilon) is not float or type(delta) is not float or not (0 < epsilon < math.inf and 0 < delta < 1):
        raise ValueError("budget: want epsilon > 0 and 0 < delta < 1")
    return epsilon, delta


def _order(order: Any) -> float | None:
    """The filter's order of an entry. Raises ValueError on what is none."""
    if order is not None and (type(order) not in (int, float) or not 1 < order < math.inf):
        raise ValueError("order: want a number above 1")
    return None if order is None else float(order)


class Ledger:
    """The ledger of one dataset, created with its first opening; see the module for what it guarantees.

    dataset, unit: bound for ever, others are Refused. epsilon, delta: lifetime budget; a change is appended to the
    chain. create: False where the ledger must exist already. source: where the data are, relative to the ledger's
    folder: Refused where another ledger of this machine accounts for them. Safe between threads and between processes
    of one host; the file belongs on a local disk, since SQLite's locks do not hold on every network file system.
    Raises LedgerCorrupt whenever the chain does not verify.
    """

    def __init__(
        self,
        path: Path,
        *,
        dataset: str,
        unit: Unit,
        epsilon: float,
        delta: float,
        create: bool = True,
        source: str | None = None,
    ) -> None:
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise UsageError(f"budget: got epsilon {epsilon:g} at delta {delta:g}; want epsilon > 0 and 0 < delta < 1")
        budget: dict[str, Any] = {"epsilon": float(epsilon), "delta": float(delta)}
        if not path.exists():
            if not create:
                chain.check_marker(path, None)
                raise UsageError(f"ledger not found: {path}; want the ledger that this dataset has always had")
            chain.create(path, {"format": chain.FORMAT, "dataset": dataset, "unit": unit} | budget)
        self._chain = Chain(path, _State, writable=True)
        try:
            with self._chain.writing() as state:
                got, want = (state.dataset, state.unit), (dataset, unit)
                if got != want:
                    raise Refused(f"ledger of dataset {got[0]} per {got[1]}; want dataset {want[0]} per {want[1]}")
                if (state.epsilon, state.delta) != (budget["epsilon"], budget["delta"]):
                    was = f"was epsilon {state.epsilon:g} at delta {state.delta:g}"
                    self._chain.append("budget", facts=budget, note=was)
            if source is not None:
                self._bind(source, path.parent)
        except BaseException:
            self.close()
            raise

    def _bind(self, source: str, home: Path) -> None:
        """Bind the data to this ledger. Raises Refused, in words without a path, where they are bound to another."""
        register = self._chain.register
        if not register.binds:
            return
        try:
            found = identity(source, home, register.content)
        except (OSError, ValueError, RuntimeError) as error:  # the last of a home folder that is none
            log.error("data: %s", error)
            raise UsageError("this holder's data cannot be opened; its own log says why") from None
        other = register.bind(self._chain.first, found.keys, found.files)
        if other is not None:
            log.error(
                "ledger: the data of %s are accounted for by another ledger, %s; want that home for them, since one "
                "data set has one budget (or other data here, if these two only look alike)",
                home,
                other,
            )
            raise Refused(
                "this holder's data set is accounted for by another ledger on its machine, and one data set has one "
                "budget; its own log says which"
            )

    @classmethod
    def read_only(cls, path: Path) -> "Ledger":
        """Open to show or verify. Never writes; dataset, unit and budget are those of the chain."""
        self = cls.__new__(cls)
        self._chain = Chain(path, _State, writable=False)
        return self

    @property
    def dataset(self) -> str:
        """The dataset that the chain is bound to."""
        return self._chain.state.dataset

    @property
    def unit(self) -> str:
        """The privacy unit that the chain is bound to."""
        return self._chain.state.unit

    def reserve(self, run: str, study: str, rounds: int, event_per_round: Event, note: str = "") -> str:
        """Set aside budget for `rounds` rounds of one run. Returns the head hash.

        Raises Refused, with the numbers, when the gate would pass the lifetime budget; UsageError on rounds < 1.
        Asking again for what is already reserved returns the head and adds nothing.
        """
        return self._reserve(run, study, rounds, {privacy.event_to_json(event_per_round): rounds}, note)

    def set_aside(self, run: str, study: str, reservation: Reservation, note: str = "") -> str:
        """Set aside what a whole study may cost, of one run. As `reserve`, for any kind of budget."""
        if reservation.claim is not None:
            return self._reserve(
                run, study, reservation.most, {privacy.event_to_json(reservation.claim): 1}, note, True
            )
        events = Counter[str]()  # asks with equal noise have one event, as often as all of them together
        for event, times in reservation.events:
            events[privacy.event_to_json(event)] += times
        return self._reserve(run, study, events.total(), events, note)

    def _reserve(
        self, run: str, study: str, rounds: int, events: Mapping[str, int], note: str, adaptive: bool = False
    ) -> str:
        if rounds < 1 or not run:
            raise UsageError(
                f"reservation of run {run!r}: got {rounds} rounds; want a named run and at least one round"
            )
        with self._chain.writing() as state:
            known = state.runs.get(run)
            if known:
                same = (known.study, known.rounds, dict(known.events), known.adaptive)
                if not known.released and same == (study, rounds, dict(events), adaptive):
                    return self._chain.head
                raise Refused(f"run {run} already has a reservation; want a new run, or the same terms before release")
            asked = [_times(text, times) for text, times in events.items()]
            facts = self._gate(state, asked, adaptive)
            facts |= {"adaptive": True} if adaptive else {}
            facts |= {"events": dict(events)} if len(events) > 1 else {}
            event = next(iter(events)) if len(events) == 1 else ""
            return self._chain.append("reserve", run, study, rounds, event=event, facts=facts, note=note)

    def _gate(self, state: _State, asked: list[Event], adaptive: bool) -> dict[str, Any]:
        """The facts of the reservation of `asked`; Refused when no rule admits it."""
        if state.single and not state.new:
            raise Refused(
                f"privacy budget: asked epsilon {privacy.epsilon(asked, state.delta):.4g} more; the whole lifetime "
                f"budget of epsilon {state.epsilon:g} at delta {state.delta:g} went to a single study "
                f"(spent {state.figure(state.events(reserved=False)):.4g}, spent and reserved "
                f"{state.figure(state.events()):.4g}); left 0"
            )
        epsilon, delta = state.room
        if not (epsilon > 0 and delta > 0):
            raise Refused(
                f"privacy budget: all of epsilon {state.epsilon:g} at delta {state.delta:g} counts as spent, since "
                "entries of this ledger were lost; want epsilon and delta raised by whoever decides on the budget"
            )
        budget = Budget(epsilon, delta, None if state.new else state.order).begun(asked)
        events = state.events()
        if filters.fits([*events, *asked], budget):
            return {"order": budget.at, "single": False}
        alone = privacy.epsilon(asked, state.delta)
        if state.new and alone <= state.epsilon and not adaptive:  # rule 2 is for parameters that were fixed beforehand
            return {"order": None, "single": True}
        spent, held = (0.0, 0.0) if state.new else (state.figure(state.events(reserved=r)) for r in (False, True))
        taken = 1.0 - (1.0 - filters.share([*events, *asked], budget)) * (epsilon / state.epsilon)
        raise Refused(
            f"privacy budget: asked epsilon {alone:.4g}, with which {100 * taken:.4g} % of the lifetime budget would "
            f"be taken; want at most 100 % of epsilon {state.epsilon:g} at delta {state.delta:g} "
            f"(spent {spent:.4g}, spent and reserved {held:.4g}, left {self._left(state):.4g})"
        )

    @staticmethod
    def _left(state: _State) -> float:
        """Epsilon of the largest release that is still admitted."""
        if state.budget is None or (state.single and not state.new):
            return 0.0
        return filters.largest(state.events(), state.budget)

    def more_like(self, reservation: Reservation) -> int:
        """How many more studies that cost as much are admitted; 0 where none is."""
        asked = [reservation.claim] if reservation.claim is not None else []
        asked += [privacy.repeated(event, times) for event, times in reservation.events]
        with self._chain.reading() as state:
            return state.more_like(asked)

    def more_like_last(self) -> int | None:
        """How many more studies like the one reserved last are admitted; None where none was."""
        with self._chain.reading() as state:
            last = next(reversed(state.runs.values()), None)
        if last is None:
            return None
        events = tuple((privacy.event_from_json(text), times) for text, times in last.events.items())
        claim = events[0][0] if last.adaptive else None
        return self.more_like(Reservation(() if claim else events, claim, last.rounds))

    def charge(self, run: str, study: str, round: int, event: Event) -> str:
        """Charge one round. Call before data are read. Returns the head hash, once the entry is on disk.

        Raises Refused on a replayed round, and on anything that an outstanding reservation does not cover.
        """
        text = privacy.event_to_json(event)
        with self._chain.writing() as state:
            known = state.runs.get(run)
            if known and round in known.charged:
                raise Refused(f"round {round} of run {run} was already charged; want a new round")
            if not known or known.released or known.study != study:
                raise Refused(f"round {round} of run {run}: got no outstanding reservation of this study; want reserve")
            if not 1 <= round <= known.rounds:
                raise Refused(f"run {run}: got round {round}; want one of the {known.rounds} reserved rounds")
            if reason := known.refuses(text):
                raise Refused(f"round {round} of run {run}: {reason}")
            if known.admitted != (state.epsilon, state.delta):  # the budget was changed since: it has to cover this too
                events = [*state.events(reserved=False), event]
                if not state.admits(events):
                    total = state.figure(events)
                    raise Refused(
                        f"changed privacy budget: got epsilon {total:.4g} in all, beyond what the filter admits; want "
                        f"at most epsilon {state.epsilon:g} at delta {state.delta:g}"
                    )
            return self._chain.append("charge", run, study, round, event=text)

    def disclose(
        self, run: str, study: str, round: int, note: str, figures: int = 0, what: str = "", most: int | None = None
    ) -> str:
        """Record a release that is not differentially private, before it leaves. Each (run, round) once.

        figures: exact numbers that leave; what: names the question and the state of the data (a digest of both), so
        that its figures are counted once however often it is asked; most: Refused where the figures of all time would
        come to more, in words that hold no number.
        """
        if figures < 0:
            raise UsageError(f"disclosure: got {figures} figures; want 0 or more")
        with self._chain.writing() as state:
            if (run, round) in state.disclosed:
                raise Refused(f"round {round} of run {run} was already disclosed; want a new round")
            more = max(0, figures - state.asked.get(what, 0)) if what else figures
            if most is not None and more and (state.lost or state.figures + more > most):
                raise Refused("exact figures: more than this holder gives of its data set; want fewer, or privacy")
            facts = ({"figures": figures} if figures else {}) | ({"what": what} if what else {})
            return self._chain.append("disclose", run, study, round, facts=facts, note=note)

    def figures(self) -> int:
        """Distinct exact numbers that left, of all time, as far as they were counted."""
        with self._chain.reading() as state:
            return state.figures

    def has_given(self, what: str) -> bool:
        """Did the exact figures of this name leave before?"""
        with self._chain.reading() as state:
            return what in state.asked

    def has_disclosed(self, run: str, round: int) -> bool:
        """Was this sum disclosed already?"""
        with self._chain.reading() as state:
            return (run, round) in state.disclosed

    def refused(self, run: str, study: str, note: str) -> str:
        """Record a refusal that depended on data, before it leaves: that much was disclosed. note: nothing of data."""
        with self._chain.writing():
            return self._chain.append("refuse", run, study, note=note)

    def withheld(self, run: str, study: str, note: str) -> str:
        """Record, once a run, that its exact totals gave no result: a refusal that depended on data. Nothing for a run
        that disclosed nothing, of which nobody can tell anything. Returns the head hash."""
        with self._chain.writing() as state:
            if run in state.withheld or not any(known == run for known, _ in state.disclosed):
                return self._chain.head
            return self._chain.append("refuse", run, study, facts={"withheld": True}, note=note)

    def restored(self, anchor: str, lost: bool, reason: str) -> str:
        """Record that the chain was put back from a backup. lost: may entries be missing? Then all counts as spent."""
        with self._chain.writing():
            return self._chain.append("restored", facts={"anchor": anchor, "lost": lost}, note=reason)

    def refusals(self, days: float) -> int:
        """Refusals of the last days that depended on data; after a loss at least `UNKNOWN`.

        A clock that goes backwards forgives none.
        """
        if not 0 < days < math.inf:
            raise UsageError(f"refusals: got {days:g} days; want more than 0")
        now = dt.datetime.now(dt.UTC)
        start = now - dt.timedelta(days=min(days, 365_000.0))
        with self._chain.reading() as state:
            return state.refused_since(start, now)

    def release(self, run: str) -> str:
        """Free what `run` reserved and did not charge. Idempotent; nothing to do for an unknown run."""
        with self._chain.writing() as state:
            known = state.runs.get(run)
            if not known or known.released:
                return self._chain.head
            return self._chain.append("release", run, known.study, facts={"freed": known.outstanding})

    def spending(self, run: str | None = None, *, delta: float | None = None) -> Spending:
        """What was spent so far. delta: that of the study (0: pure), for `study_epsilon` only; else the budget's."""
        with self._chain.reading() as state:
            attempts = [known for name, known in state.runs.items() if run and _base(name) == _base(run)]
            mine = [_times(text, n) for known in attempts for text, n in known.composed(True, False).items()]
            adaptive = any(known.adaptive for known in attempts)
            counted = state.figure(state.events())
            closed = (state.single and not state.new) or min(state.room) <= 0
            return Spending(
                study_epsilon=None if run is None else _at(mine, state.delta if delta is None else delta, adaptive),
                history_epsilon=None if state.disclosed or state.refusals else state.history,
                filter_epsilon=counted,
                share=state.share,
                charged=state.charges,
                reserved=state.reserved,
                budget=state.epsilon,
                delta=state.delta,
                left=self._left(state),
                order=state.order,
                single=closed,
                disclosures=len(state.disclosed) + len(state.refusals),
                figures=state.figures,
                refusals=len(state.refusals),
                entries=self._chain.seq,
                head=self._chain.head,
            )

    def entries(self) -> list[Entry]:
        """All entries, verified."""
        return self._chain.entries()

    def verify(self, anchor: str | None = None) -> str:
        """Recompute the whole chain and return its head. Raises LedgerCorrupt naming the entry that is wrong.

        anchor: a head hash seen earlier and kept elsewhere; if it is not in the chain, the tail was cut off.
        """
        return self._chain.verify(anchor)

    def head(self) -> str:
        """The hash of the last entry, of a verified chain."""
        with self._chain.reading():
            return self._chain.head

    def close(self) -> None:
        """Close the file."""
        self._chain.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self._chain.path)!r}, dataset={self.dataset!r}, entries={self._chain.seq})"


def read_only(path: Path) -> Ledger:
    """`Ledger.read_only`: open to show or verify, never writing."""
    return Ledger.read_only(path)


def _at(events: list[Event], delta: float, adaptive: bool = False) -> float:
    """Epsilon at the study's own delta, 0 for a pure one. adaptive: by what holds for shares chosen on seeing results,
    rho added up or basic composition, instead of the tighter composition of fixed asks."""
    if adaptive and events and delta > 0:
        concentrated = sum(privacy.rho(event) for event in events)
        pure = privacy.pure_epsilon(events)
        return min(privacy.zcdp_epsilon(concentrated, delta) if math.isfinite(concentrated) else math.inf, pure)
    return _tight(events, delta)


def _tight(events: list[Event], delta: float) -> float:
    """The composition of events that were fixed beforehand: of privacy losses, or of pure epsilons, which hold at every
    delta, where that is less."""
    pure = privacy.pure_epsilon(events)
    return min(pure, privacy.epsilon(events, delta)) if delta > 0 else pure


def _base(run: str) -> str:
    """The name of a run without the number of its attempt: `a~2` goes on with `a`."""
    return run.partition("~")[0]


def _times(text: str, count: int) -> Event:
    event = privacy.event_from_json(text)
    if isinstance(event, Repeated):
        return Repeated(times=event.times * count, event=event.event)
    return Repeated(times=count, event=event)
