"""What the entries of a holder's ledger add up to: runs, what they set aside and spent, disclosures, refusals.

What entries mean, and why, is in `statfed.client.guard.ledger`. Sums are kept as entries come, so that an admission
does not take longer with a ledger's age: runs that are over are one composition, `settled`.
"""

import datetime as dt
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from statfed.client.guard import chain
from statfed.client.guard.chain import Entry
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import Event, Repeated
from statfed.core.privacy.filters import Budget

UNKNOWN = 2**31
"""Refusals that a ledger counts which lost entries: more than any limit."""


@dataclass
class Run:
    """events: what is set aside, each with how often; of an adaptive budget the claim, once. done: sums of the study
    before round 1."""

    study: str
    rounds: int
    events: Mapping[str, int]
    adaptive: bool
    admitted: tuple[float, float]
    charged: dict[int, str] = field(default_factory=dict)
    released: bool = False
    done: int = 0

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
class State:
    """What the entries add up to. `apply` refuses a sequence that this module could not have written."""

    dataset: str = ""
    unit: str = ""
    epsilon: float = 0.0
    delta: float = 0.0
    order: float | None = None
    single: bool = False
    runs: dict[str, Run] = field(default_factory=dict)
    live: dict[str, Run] = field(default_factory=dict)  # those that were not released
    attempts: dict[str, list[Run]] = field(default_factory=dict)  # by the name that they share
    settled: Counter[str] = field(default_factory=Counter)  # what the others were charged
    charges: int = 0
    chosen: bool = False  # was anything charged whose share was chosen on seeing totals?
    disclosed: set[tuple[str, int]] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)  # figures of each named question
    unnamed: int = 0  # figures of questions without a name
    refusals: list[int] = field(default_factory=list)  # their places in `times`
    links: list[int] = field(default_factory=list)  # of linkages, likewise
    linked: dict[str, set[tuple[str, str]]] = field(default_factory=dict)  # by other: runs and studies that matched its
    withheld: set[str] = field(default_factory=set)  # runs whose totals gave no result
    over: set[tuple[str, str]] = field(default_factory=set)  # runs that ended, by shared name, and their study
    given: dict[tuple[str, str], dict[int, dict[str, str]]] = field(default_factory=dict)
    """Names of the exact figures that left, by run and study as in `over`, number of the sum, and attempt."""
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

    def since(self, listed: Iterable[int], start: dt.datetime, now: dt.datetime) -> int:
        """How many of the listed entries (`refusals`, `links`) are from `start` on, by their times put right as the
        module says."""
        latest, found, places = dt.datetime.min.replace(tzinfo=dt.UTC), 0, set(listed)
        for place, time in enumerate(self.times):
            if time <= now:
                latest = max(latest, time)
            found += place in places and (time > now or latest >= start)
        return found if self.lost is None else found + UNKNOWN

    def disclose(self, run: str, study: str, round: int, facts: Mapping[str, Any]) -> None:
        """Count a release without noise. Raises ValueError on facts that this module could not have written."""
        figures, what = facts.get("figures", 0), facts.get("what", "")
        if type(figures) is not int or figures < 0 or not isinstance(what, str):
            raise ValueError(f"figures: got {figures!r}; want a whole number from 0")
        self.disclosed.add((run, round))
        self.given.setdefault((base(run), study), {}).setdefault(round, {})[run] = what
        if what:
            self.asked[what] = max(figures, self.asked.get(what, 0))
        else:
            self.unnamed += figures

    def events(self, charged: bool = True, reserved: bool = True) -> list[Event]:
        """Composition of charges and outstanding reservations, one event for equal ones."""
        counts = Counter(self.settled) if charged else Counter[str]()
        for run in self.live.values():
            counts += run.composed(charged, reserved)
        return [repeatedly(text, count) for text, count in sorted(counts.items()) if count]

    @property
    def history(self) -> float:
        """The epsilon of all charges. Composition of privacy losses is for asks that were fixed beforehand."""
        charged = self.events(reserved=False)
        return self.figure(charged) if self.chosen or self.lost else tight(charged, self.delta)

    @property
    def reserved(self) -> int:
        return sum(run.outstanding for run in self.live.values())

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

    def settle(self, name: str) -> None:
        """A run is over, and what it was not charged is free."""
        run = self.live.pop(name, None)
        if run is not None:
            run.released = True
            self.settled += run.composed(charged=True, reserved=False)

    def attempts_of(self, run: str, study: str) -> list[Run]:
        """A run of a study and its other attempts."""
        return [known for known in self.attempts.get(base(run), ()) if known.study == study]

    def knows(self, run: str, study: str) -> bool:
        """Was anything set aside for this run of a study, or given to it, in any of its attempts?"""
        return (base(run), study) in self.given or bool(self.attempts_of(run, study))

    def apply(self, entry: Entry) -> None:
        """Take in the next entry. Raises ValueError, KeyError or TypeError on one that could not have been written."""
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
                done = facts.get("done", 0)
                if type(done) is not int or done < 0:
                    raise ValueError(f"done: got {done!r}; want a whole number from 0")
                made = Run(entry.study, entry.round, events, adaptive, admitted, done=done)
                self.runs[entry.run] = self.live[entry.run] = made
                self.attempts.setdefault(base(entry.run), []).append(made)
            case "charge":
                if not run or run.released or not 1 <= entry.round <= run.rounds or entry.round in run.charged:
                    raise ValueError("charge without a reservation")
                if run.study != entry.study or run.refuses(entry.event):
                    raise ValueError("charge that differs from its reservation")
                run.charged[entry.round] = entry.event
                self.charges += 1
                self.chosen |= run.adaptive
            case "disclose":
                self.disclose(entry.run, entry.study, entry.round, facts)
                if "linked" in facts:
                    self.links.append(entry.seq - 1)
                    for other in facts["linked"]:
                        self.linked.setdefault(other, set()).add((base(entry.run), entry.study))
            case "refuse":
                self.refusals.append(entry.seq - 1)
                if facts.get("withheld") is True:
                    self.withheld.add(entry.run)
                    self.over.add((base(entry.run), entry.study))
            case "restored":
                if facts["lost"]:
                    self.lost = (self.epsilon, self.delta)
                    for name in list(self.live):
                        self.settle(name)
            case "release" if run or facts.get("over") is True:
                self.settle(entry.run)
                if facts.get("over") is True:
                    self.over.add((base(entry.run), entry.study))
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


def tight(events: list[Event], delta: float) -> float:
    """The composition of events that were fixed beforehand: of privacy losses, or of pure epsilons, which hold at every
    delta, where that is less."""
    pure = privacy.pure_epsilon(events)
    return min(pure, privacy.epsilon(events, delta)) if delta > 0 else pure


def base(run: str) -> str:
    """The name of a run without the number of its attempt: `a~2` goes on with `a`."""
    return run.partition("~")[0]


def beyond(attempts: Sequence[Run], text: str) -> str:
    """Why one more sum with this event is more than the attempts of one run may cost together; nothing where it is not.

    Attempts that are open side by side have each set aside the same budget. A claim is whole in the first of them, and
    of a fixed budget each event as often as in the attempt that set aside most of it: what the study asks in all.
    """
    charged = [one for known in attempts for one in known.charged.values()]
    if attempts[0].adaptive:
        whole, event = privacy.event_from_json(next(iter(attempts[0].events))), privacy.event_from_json(text)
        spent = sum(privacy.cost(whole, privacy.event_from_json(one)) for one in charged)
        asked = privacy.cost(whole, event)
        if spent + asked <= 1.0 + 1e-9:
            return ""
        left = max(0.0, 1.0 - spent)
        return f"got {asked:.4g} of the study's budget; want at most {left:.4g}: its attempts took more"
    if charged.count(text) < max(known.events.get(text, 0) for known in attempts):
        return ""
    return f"got event {text} once more than all attempts of this run may together"


def last_of(attempts: Sequence[Run]) -> int:
    """Number of the last sum that was charged in attempts of one run; of a ledger in which attempts do not say where
    they began, no less than the number of charges."""
    ends = [known.done + max(known.charged) for known in attempts if known.charged]
    return max([*ends, sum(len(known.charged) for known in attempts)])


def repeatedly(text: str, count: int) -> Event:
    """The event of a chain's text, so often."""
    event = privacy.event_from_json(text)
    if isinstance(event, Repeated):
        return Repeated(times=event.times * count, event=event.event)
    return Repeated(times=count, event=event)
