"""What a lifetime budget (epsilon, delta) admits, however studies are chosen: the gate of a ledger, and its meter.

A filter is passed by a sequence of releases, each chosen on seeing the earlier ones, only while their fixed limit is
kept. Two are used side by side.

1. *Renyi.* The divergences of one order a add up to at most r = epsilon - c(a), c what the conversion adds at delta
   (`accountant.conversion`; Feldman and Zrnic 2021, theorem 4.3; Canonne, Kamath and Steinke 2020, proposition 12).
   The order is fixed before the first release. It follows from the budget alone (`order_of`): it is the one under
   which rho = r / a is largest, so that the filter admits all that the zero-concentrated filter of the tight conversion
   admits (Bun and Steinke 2016: an event of rho has divergence a rho at most), exactly as much Gaussian noise, and more
   of discrete Laplace noise and of sampled events, whose divergence at this order is less than a times their rho. Where
   the first study samples, whose curve bends upwards at some order, it is the order under which such studies fit most
   often: that study was chosen before anything was released too.
2. *Pure.* The epsilons of releases at delta 0 add up to at most epsilon (Rogers et al. 2016, theorem 3.1).

*Passing either one is enough.* Let A be the outcomes on which the pure filter was the last to hold, B the others; A and
B follow from what was released. On A the outcome is that of the mechanism which stops at the pure filter's limit, on B
that of the one which stops at the Renyi filter's, so P(S) = P(S & A) + P(S & B) <= exp(epsilon) Q(S & A) +
exp(epsilon) Q(S & B) + delta. In general the deltas of filters that are used so add up, and the pure one's is 0.

The meter is the `share` of the limit that is used. It is not the epsilon of all releases together over the epsilon of
the budget: epsilon grows about with the root of what is released, the share in proportion to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from statfed.core.privacy.accountant import (
    Event,
    PoissonSampled,
    conversion,
    epsilon,
    pure_epsilon,
    renyi,
    repeated,
    singles,
    zcdp_epsilon,
)

_ORDERS = tuple(float(f"{1.0 + 2.0 ** (k / 16):.6g}") for k in range(-80, 209))  # to 8193
_MOST_SAMPLED = 256.0  # bounds on sampling take as long as the order is large
MOST = 10**9
"""More releases than this are not counted."""


@dataclass(frozen=True)
class Budget:
    """A lifetime budget. order: that of its Renyi filter, where one was fixed earlier; None for `order_of`."""

    epsilon: float
    delta: float
    order: float | None = None

    @property
    def at(self) -> float:
        """The order of its Renyi filter."""
        return order_of(self.epsilon, self.delta) if self.order is None else self.order

    def begun(self, first: Sequence[Event]) -> "Budget":
        """The budget with its order fixed, by a first study where it is not yet."""
        order = order_of(self.epsilon, self.delta, first) if self.order is None else self.order
        return replace(self, order=order)

    @property
    def limit(self) -> float:
        """What Renyi divergences of the order may add up to; not above 0 where the filter admits nothing."""
        return self.epsilon - conversion(self.at, self.delta)


def order_of(budget_epsilon: float, delta: float, first: Sequence[Event] = ()) -> float:
    """The order of a budget's Renyi filter: that of the largest (epsilon - c(order)) / order, or, where the first study
    samples, over its divergence at the order."""
    orders = [order for order in _ORDERS if conversion(order, delta) < budget_epsilon] or [_ORDERS[-1]]
    sampled = any(isinstance(event, PoissonSampled) for event, _ in singles(first))
    if sampled:
        orders = [order for order in orders if order <= _MOST_SAMPLED] or orders[:1]

    def times(order: float) -> float:
        return (budget_epsilon - conversion(order, delta)) / (renyi(first, order) if sampled else order)

    return max(orders, key=times)


def share(events: Sequence[Event], budget: Budget) -> float:
    """How much of the budget `events` take, by the filter that they take less of; more than 1 is not admitted."""
    if not events:
        return 0.0
    limit = budget.limit
    of_renyi = renyi(events, budget.at) / limit if limit > 0.0 else math.inf
    return min(of_renyi, pure_epsilon(events) / budget.epsilon)


def fits(events: Sequence[Event], budget: Budget) -> bool:
    """Does the budget admit `events`, all releases ever?"""
    return share(events, budget) <= 1.0


def more_like(spent: Sequence[Event], event: Event, budget: Budget) -> int:
    """How many more releases of `event` the budget admits after `spent`: exactly as a ledger will, `MOST` at most.

    Where nothing was released and neither filter admits one, a single release that is within the budget by `epsilon`
    is admitted as the only one ever.
    """

    def admitted(times: int) -> bool:
        return fits([*spent, *([repeated(event, times)] if times else [])], budget)

    if not spent:
        budget = budget.begun([event])
    if not admitted(1):
        return int(not spent and epsilon([event], budget.delta) <= budget.epsilon)
    low, high = 1, 2
    while high <= MOST and admitted(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if admitted(middle) else (low, middle)
    return min(low, MOST)


def largest(spent: Sequence[Event], budget: Budget) -> float:
    """The epsilon, at the budget's delta, of the largest release that is still admitted: of Gaussian noise, or pure."""
    left = budget.limit - renyi(spent, budget.at)
    gaussian = zcdp_epsilon(left / budget.at, budget.delta) if left > 0.0 else 0.0
    return max(0.0, min(gaussian, budget.epsilon), budget.epsilon - pure_epsilon(spent))
