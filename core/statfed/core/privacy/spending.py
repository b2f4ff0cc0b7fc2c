"""What an ask of a private study costs, and what a holder sets aside for the whole study: both ends find the same.

A budget is spent in one of two ways, which the method declares.

- `Fixed`: the asks are known beforehand. Each ask's noise is the least with which all of them together stay within the
  study's epsilon, by the composition of privacy loss distributions. Set aside are the very events.
- `Adaptive`: asks, parameters and shares are chosen on seeing totals. No tight composition holds for such choices, so
  each ask's noise is the least that costs its share of rho (Gaussian) or epsilon (Laplace), and what is set aside is
  one event that dominates all asks whose shares add up to at most 1 (`accountant.claim`). The ledger adds the shares up
  and refuses what goes beyond: a filter (Feldman and Zrnic 2021; for pure epsilon Rogers et al. 2016).

Everything follows from public facts: the study, the ask's parts and the holder's public sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from statfed.core.errors import UsageError
from statfed.core.method import Adaptive, Ask, Fixed, Mechanism, Method, Question, budget_of
from statfed.core.privacy.accountant import Event, claim, cost, part_of, pure_epsilon, repeated
from statfed.core.privacy.accountant import epsilon as pld_epsilon
from statfed.core.privacy.grid import facts_of
from statfed.core.privacy.noise import Noise, plan, plan_share, settled
from statfed.core.table import Size

NOTHING = 1e-5
"""Share of a budget that is none."""


@dataclass(frozen=True)
class Price:
    """The cost of one ask at one holder. noise: what core adds; mechanism: what the method adds by itself."""

    event: Event
    noise: Noise | None = None
    mechanism: Mechanism | None = None


@dataclass(frozen=True)
class Reservation:
    """What a holder sets aside. events: of a fixed budget, each with how often; claim: of an adaptive one, for at most
    `most` asks."""

    events: tuple[tuple[Event, int], ...] = ()
    claim: Event | None = None
    most: int = 0

    def epsilon(self, target: float, delta: float) -> float:
        """What the study may cost at its own delta, 0 for a pure one. target: the study's epsilon, of a claim."""
        if self.claim is not None:
            return target
        all_asks = [repeated(event, times) for event, times in self.events]
        pure = pure_epsilon(all_asks)  # holds at every delta, and discretisation does not add to it
        return min(pure, pld_epsilon(all_asks, delta)) if delta > 0.0 else pure


def price(question: Question[Any], ask: Ask, size: Size | None, shares: int) -> Price | None:
    """What one ask costs; None without privacy, and at the coordinator (size None) where the method adds the noise.

    Raises UsageError on an ask that is not one of a fixed budget or whose parts depend on its arrays there, since noise
    was planned without them, and where no noise is enough.
    """
    privacy = question.privacy
    if privacy is None:
        return None
    budget = budget_of(question)
    if isinstance(budget, Adaptive):
        noise = plan_share(question.method.parts(question, ask), privacy, ask.share, shares)
        return Price(noise.event(), noise)
    if all(one.name != ask.name for one in budget.asks):
        raise UsageError(f"ask: got {ask.name}; want {', '.join(one.name for one in budget.asks)}")
    if size is None and ask.name in own_noise(question.method):
        return None
    kept = question.kept.setdefault("prices", {})
    key = (ask.name, size, shares)
    if key not in kept:
        kept[key] = _fixed(question, budget, ask.name, size, shares)
    found: Price = kept[key]
    if found.noise is not None and ask.arrays:
        planned, asked = (question.method.parts(question, one) for one in (Ask(ask.name), ask))
        if facts_of(asked, privacy) != facts_of(planned, privacy):
            raise UsageError(
                f"ask: got {ask.name} with other parts than noise was planned for; want an adaptive budget"
            )
    return found


def own_noise(method: Method) -> tuple[str, ...]:
    """The asks whose noise the method adds inside `contribute`."""
    return tuple(getattr(method, "OWN_NOISE", ()))


def _fixed(question: Question[Any], budget: Fixed, name: str, size: Size | None, shares: int) -> Price:
    privacy, method = question.privacy, question.method
    if privacy is None:
        raise ValueError("a price without privacy")
    if name in own_noise(method):
        mechanism: Mechanism = method.mechanism(question, name, size)  # type: ignore[attr-defined]  # optional
        return Price(mechanism.event, mechanism=mechanism)
    scheduled = next(one for one in budget.asks if one.name == name)
    parts = method.parts(question, Ask(name))
    if len(budget.asks) == 1:
        noise = plan(parts, privacy, scheduled.times, shares)
    else:
        noise = plan_share(parts, privacy, scheduled.share / scheduled.times, shares)
    return Price(noise.event(), noise)


def reservation(
    question: Question[Any], size: Size, shares: int, done: int = 0, spent: Sequence[Event] = ()
) -> Reservation | None:
    """What a holder sets aside for a study, of whose asks `done` were made before and charged as `spent`.

    None without privacy, and where nothing is left of a budget that is spent in shares. What goes on with such a budget
    sets aside the rest of its rho, or of its epsilon: these add up over the attempts of a run as they do over the asks
    of one, so that all attempts together are within the claim of a single one (`accountant.claim`), however the asks
    were chosen. Raises UsageError where a fixed budget's asks together would pass the study's epsilon.
    """
    privacy = question.privacy
    if privacy is None:
        return None
    budget = budget_of(question)
    if isinstance(budget, Adaptive):
        whole = claim(settled(privacy), privacy.epsilon, privacy.delta)
        left = 1.0 - sum(cost(whole, event) for event in spent)
        return Reservation((), part_of(whole, left), budget.most) if left > NOTHING else None
    events: dict[str, tuple[Event, int]] = {}
    for name in budget.order[done:]:
        found = price(question, Ask(name), size, shares)
        if found is None:
            raise ValueError("a reservation without privacy")
        events[name] = found.event, events.get(name, (found.event, 0))[1] + 1
    if not events:
        raise UsageError(f"resume: got {done} asks made; want fewer than all {len(budget.order)}")
    made = Reservation(tuple(events.values()))
    total = made.epsilon(privacy.epsilon, privacy.delta)
    if len(budget.asks) > 1 and total > privacy.epsilon:
        raise UsageError(f"privacy.epsilon: got {privacy.epsilon:g}; want at least {total:.4g} for all asks together")
    return made
