"""A holder's privacy ledger: what one dataset has lost, for ever. A chain of entries, of which this says the meaning.

Kinds of entries, and their facts: `open` (dataset, unit, epsilon, delta) once, `budget` (epsilon, delta), `reserve`
(order, single; `round` is the most sums of the run, `event` that of each of them; done: sums of the study before them,
where there are), `charge`, `disclose` (figures, what; where known; linked, the others whose units were matched),
`refuse` (withheld, where the coordinator gave no result on seeing totals), `release` (freed; over, where the run has
ended in all its attempts), `restored` (anchor, lost). A reservation of sums with different events has them in
`events`, each with how often; one of a budget that is spent in shares has `adaptive`, and `event` stands for the whole
budget (`accountant.claim`).

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

3. *A run costs what it was admitted for, in all its attempts together.* Attempts (`a~2` of `a`) that are open side by
   side have each set aside what was left when they were admitted; a charge is held against what all of them were
   charged (`spent.beyond`). So a run that is over gives nothing more, for good: `over` is an entry.
4. *After a loss everything counts as spent.* Where entries were lost and nobody knows them, all of the budget at that
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
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from statfed.client.data.identity import identity
from statfed.client.guard import chain
from statfed.client.guard.chain import Chain, Entry
from statfed.client.guard.spent import State, base, beyond, last_of, repeatedly, tight
from statfed.core.errors import Refused, UsageError
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import Event
from statfed.core.privacy.filters import Budget
from statfed.core.privacy.spending import Reservation
from statfed.core.section import Unit

log = logging.getLogger("statfed.holder")


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


@dataclass(frozen=True)
class Before:
    """What a study was charged for earlier. last: number of the last sum, 0 for none; events: of all of them."""

    last: int
    events: tuple[Event, ...]


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
        self._chain = Chain(path, State, writable=True)
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
        self._chain = Chain(path, State, writable=False)
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

    def set_aside(self, run: str, study: str, reservation: Reservation, note: str = "", done: int = 0) -> str:
        """Set aside what a whole study may cost, of one run. As `reserve`, for any kind of budget. done: sums of the
        study before its rounds."""
        if reservation.claim is not None:
            return self._reserve(
                run, study, reservation.most, {privacy.event_to_json(reservation.claim): 1}, note, True, done
            )
        events = Counter[str]()  # asks with equal noise have one event, as often as all of them together
        for event, times in reservation.events:
            events[privacy.event_to_json(event)] += times
        return self._reserve(run, study, events.total(), events, note, done=done)

    def _reserve(
        self,
        run: str,
        study: str,
        rounds: int,
        events: Mapping[str, int],
        note: str,
        adaptive: bool = False,
        done: int = 0,
    ) -> str:
        if rounds < 1 or not run:
            raise UsageError(
                f"reservation of run {run!r}: got {rounds} rounds; want a named run and at least one round"
            )
        with self._chain.writing() as state:
            known = state.runs.get(run)
            if known:
                same = (known.study, known.rounds, dict(known.events), known.adaptive, known.done)
                if not known.released and same == (study, rounds, dict(events), adaptive, done):
                    return self._chain.head
                raise Refused(f"run {run} already has a reservation; want a new run, or the same terms before release")
            asked = [repeatedly(text, often) for text, often in events.items()]
            facts = self._gate(state, asked, adaptive)
            facts |= {"adaptive": True} if adaptive else {}
            facts |= {"done": done} if done else {}
            facts |= {"events": dict(events)} if len(events) > 1 else {}
            event = next(iter(events)) if len(events) == 1 else ""
            return self._chain.append("reserve", run, study, rounds, event=event, facts=facts, note=note)

    def _gate(self, state: State, asked: list[Event], adaptive: bool) -> dict[str, Any]:
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
    def _left(state: State) -> float:
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
            if reason := known.refuses(text) or beyond(state.attempts_of(run, study), text):
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
        self,
        run: str,
        study: str,
        round: int,
        note: str,
        figures: int = 0,
        what: str = "",
        most: int | None = None,
        linked: Sequence[str] = (),
    ) -> str:
        """Record a release that is not differentially private, before it leaves. Each (run, round) once.

        figures: exact numbers that leave; what: names the question and the state of the data (a digest of both), so
        that its figures are counted once however often it is asked; most: Refused where the figures of all time would
        come to more, in words that hold no number. linked: others whose units were matched.
        """
        if figures < 0:
            raise UsageError(f"disclosure: got {figures} figures; want 0 or more")
        with self._chain.writing() as state:
            if (run, round) in state.disclosed:
                raise Refused(f"round {round} of run {run} was already disclosed; want a new round")
            more = max(0, figures - state.asked.get(what, 0)) if what else figures
            if most is not None and more and (state.lost or state.figures + more > most):
                raise Refused("exact figures: more than this holder gives of its data set; want fewer, or privacy")
            told = {"figures": figures, "what": what, "linked": sorted(linked)}
            facts = {key: value for key, value in told.items() if value}
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

    def charged(self, run: str, study: str) -> int:
        """Number of the last sum that a study was charged for in a run and its other attempts, whose names differ after
        `~` alone."""
        with self._chain.reading() as state:
            return last_of(state.attempts_of(run, study))

    def before(self, run: str, study: str) -> "Before":
        """What a study was charged for in the other attempts of a run."""
        with self._chain.reading() as state:
            others = [one for one in state.attempts_of(run, study) if one is not state.runs.get(run)]
            events = [privacy.event_from_json(text) for one in others for text in one.charged.values()]
            return Before(last_of(others), tuple(events))

    def begun(self, run: str) -> int:
        """Sums of its study that were made before the reservation of a run; 0 where it has none."""
        with self._chain.reading() as state:
            return state.runs[run].done if run in state.runs else 0

    def has_charged(self, run: str, round: int) -> bool:
        """Was this round of a run charged already?"""
        with self._chain.reading() as state:
            return run in state.runs and round in state.runs[run].charged

    def refusals(self, days: float) -> int:
        """Refusals of the last days that depended on data; after a loss at least `UNKNOWN`.

        A clock that goes backwards forgives none.
        """
        with self._chain.reading() as state:
            return state.since(state.refusals, *_last(days))

    def linked(self, days: float) -> int:
        """Linkages of the last days, counted as refusals are."""
        with self._chain.reading() as state:
            return state.since(state.links, *_last(days))

    def has_linked(self) -> bool:
        """Were units ever matched with others'?"""
        with self._chain.reading() as state:
            return bool(state.links)

    def linked_with(self, others: Iterable[str]) -> frozenset[tuple[str, str]]:
        """Runs, whatever their attempts, and studies that matched units with any of `others`, of all time."""
        with self._chain.reading() as state:
            return frozenset(each for other in others for each in state.linked.get(other, ()))

    def release(self, run: str, study: str = "", *, over: bool = False) -> str:
        """Free what `run` reserved and did not charge. over: this study's run has ended in all attempts, which is on
        record from then on. Idempotent; nothing to do for a run to which nothing was given."""
        with self._chain.writing() as state:
            known = state.runs.get(run)
            over = over and state.knows(run, study) and (base(run), study) not in state.over
            if not over and (not known or known.released):
                return self._chain.head
            facts = {"freed": known.outstanding if known else 0} | ({"over": True} if over else {})
            return self._chain.append("release", run, study if over or not known else known.study, facts=facts)

    def is_over(self, run: str, study: str) -> bool:
        """Has this run of a study ended, in whatever attempt?"""
        with self._chain.reading() as state:
            return (base(run), study) in state.over

    def has_given_to(self, run: str, study: str) -> bool:
        """Did exact figures leave in this run of a study, in whatever attempt?"""
        with self._chain.reading() as state:
            return (base(run), study) in state.given

    def given(self, run: str, study: str, round: int) -> dict[str, str]:
        """Names of the exact figures that left as this sum of a study in other attempts of a run, by attempt."""
        with self._chain.reading() as state:
            found = state.given.get((base(run), study), {}).get(round, {})
            return {attempt: what for attempt, what in found.items() if attempt != run}

    def spending(self, run: str | None = None, *, delta: float | None = None) -> Spending:
        """What was spent so far. delta: that of the study (0: pure), for `study_epsilon` only; else the budget's."""
        with self._chain.reading() as state:
            attempts = state.attempts.get(base(run), []) if run else []
            mine = [repeatedly(text, n) for known in attempts for text, n in known.composed(True, False).items()]
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
    return tight(events, delta)


def _last(days: float) -> tuple[dt.datetime, dt.datetime]:
    """Begin and end of a period that ends now. Raises UsageError on one that is none."""
    if not 0 < days < math.inf:
        raise UsageError(f"period: got {days:g} days; want more than 0")
    now = dt.datetime.now(dt.UTC)
    return now - dt.timedelta(days=min(days, 365_000.0)), now
