"""Privacy events and their composition: one vocabulary for training, queries and synthetic data.

An event says what a mechanism did to one dataset, for one privacy unit under add-or-remove-one neighbours. It is
built by the object that adds the noise, stored in the holder's ledger as JSON, and never changes meaning. An event
that this module does not know is refused, not skipped.

Two figures are given, for two questions:

- `epsilon`: composition of privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, pessimistic
  discretisation of dp-accounting). Tight, and valid when the parameters of the composed events were fixed without
  looking at earlier results. Within one study they are.
- `filter_epsilon`: Renyi filter of one order fixed in advance (Feldman and Zrnic 2021, theorem 4.3). Valid when an
  analyst chooses each study after seeing the results of earlier ones, so the lifetime budget is gated on it.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from statfed.core.errors import LedgerCorrupt

if TYPE_CHECKING:
    import dp_accounting

# Discretisation of the privacy loss. It is pessimistic: a coarser one only over-counts. It follows epsilon outside
# [0.1, 10], so that a small figure is not mostly discretisation, and a study with hardly any noise costs a holder
# megabytes and not gigabytes.
_REPORTED, _CALIBRATED, _FINEST, _COARSEST = 1e-4, 1e-3, 1e-3, 1e-5
_ORDERS = (1.25, 1.5, 1.75, 2.0, 2.5, *sorted({float(round(3 * 1.09**k)) for k in range(49)}))  # to 188


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Gaussian(_Event):
    """Gaussian noise of standard deviation `noise_multiplier` times the L2 sensitivity."""

    kind: Literal["gaussian"] = "gaussian"
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)


class Laplace(_Event):
    """Laplace noise of scale `noise_multiplier` times the L1 sensitivity."""

    kind: Literal["laplace"] = "laplace"
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)


class PoissonSampled(_Event):
    """`event` on a secret subsample that keeps each unit independently with probability `rate`."""

    kind: Literal["poisson-sampled"] = "poisson-sampled"
    rate: float = Field(gt=0, le=1)
    event: Gaussian


class Repeated(_Event):
    """`event`, `times` times with fresh randomness."""

    kind: Literal["repeated"] = "repeated"
    times: int = Field(ge=1)
    event: Annotated[Gaussian | Laplace | PoissonSampled, Field(discriminator="kind")]


Event = Annotated[Union[Gaussian, Laplace, PoissonSampled, Repeated], Field(discriminator="kind")]  # noqa: UP007
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def event_to_json(event: Event) -> str:
    """Canonical JSON of an event."""
    return _ADAPTER.dump_json(event).decode()


def event_from_json(text: str) -> Event:
    """Read an event back. Raises LedgerCorrupt on one that is not known."""
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError:
        raise LedgerCorrupt(f"unknown privacy event: {text[:200]}") from None


def in_words(event: Event) -> str:
    """An event for people.

    >>> in_words(dp_sgd(0.0854, 2.054, 12))
    '12 x Poisson sample 0.0854, Gaussian 2.054'
    """
    match event:
        case Gaussian(noise_multiplier=sigma):
            return f"Gaussian {sigma:.4g}"
        case Laplace(noise_multiplier=scale):
            return f"Laplace {scale:.4g}"
        case PoissonSampled(rate=rate, event=inner):
            return f"Poisson sample {rate:.4g}, {in_words(inner)}"
        case Repeated(times=times, event=inner):
            return f"{times} x {in_words(inner)}"


def dp_sgd(rate: float, noise_multiplier: float, steps: int) -> Repeated:
    """The event of `steps` noisy clipped-gradient sums over Poisson batches (Abadi et al. 2016)."""
    noise = Gaussian(noise_multiplier=noise_multiplier)
    return Repeated(times=steps, event=noise if rate >= 1.0 else PoissonSampled(rate=rate, event=noise))


def _merged(events: Iterable[Event]) -> tuple[tuple[str, int], ...]:
    """Events as (JSON of the single event, count): equal ones composed once, order irrelevant."""
    counts: dict[str, int] = {}
    for event in events:
        single, times = (event.event, event.times) if isinstance(event, Repeated) else (event, 1)
        key = event_to_json(single)
        counts[key] = counts.get(key, 0) + times
    return tuple(sorted(counts.items()))


def _dp_event(text: str, times: int) -> "dp_accounting.DpEvent":
    import dp_accounting as da

    def convert(event: Event) -> "da.DpEvent":
        match event:
            case Gaussian(noise_multiplier=sigma):
                return da.GaussianDpEvent(sigma)
            case Laplace(noise_multiplier=scale):
                return da.LaplaceDpEvent(scale)
            case PoissonSampled(rate=rate, event=inner):
                return da.PoissonSampledDpEvent(rate, convert(inner))
        raise LedgerCorrupt(f"unknown privacy event: {event!r}")

    return da.SelfComposedDpEvent(convert(event_from_json(text)), times)


def epsilon(events: Sequence[Event], delta: float) -> float:
    """The PLD composition of `events` at `delta`. 0 for no events; infinite where the accountant gives no bound."""
    return _pld_epsilon(_merged(events), delta, _REPORTED)


@lru_cache(maxsize=4096)
def _pld_epsilon(merged: tuple[tuple[str, int], ...], delta: float, interval: float) -> float:
    if not merged:
        return 0.0
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta: got {delta}; want a number between 0 and 1")
    from dp_accounting.pld import PLDAccountant

    rough = min(
        _renyi(merged, order) + _conversion(order, delta) for order in (1.25, 1.5, *(2.0**k for k in range(1, 9)))
    )
    if not math.isfinite(rough):
        return math.inf
    step = max(min(interval, _FINEST * rough), _COARSEST * rough) if rough > 0.0 else interval
    accountant = PLDAccountant(value_discretization_interval=step)
    for text, times in merged:
        accountant.compose(_dp_event(text, times))
    value = float(accountant.get_epsilon(delta))
    return value if not math.isnan(value) else math.inf


@lru_cache(maxsize=4096)
def _rdp(text: str, order: float) -> float:
    """Renyi divergence bound of one event. At fractional orders of sampled events, the chord of (order-1)*rdp.

    That function is convex (Wang, Balle and Kasiviswanathan 2019, corollary 10), so the chord over-counts; the series
    of Mironov et al. 2019 for fractional orders does not always converge, and an order has to fit every later study.
    """
    whole = math.floor(order)
    if order != whole and isinstance(event_from_json(text), PoissonSampled):
        below = (whole + 1 - order) * (whole - 1) * _rdp(text, float(whole)) if whole > 1 else 0.0
        return (below + (order - whole) * whole * _rdp(text, float(whole + 1))) / (order - 1)
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(orders=[order])
    accountant.compose(_dp_event(text, 1))
    value = float(accountant._rdp[0])  # the accountant offers no public access to the curve itself
    return value if not math.isnan(value) else math.inf


def _renyi(merged: tuple[tuple[str, int], ...], order: float) -> float:
    return math.fsum(times * _rdp(text, order) for text, times in merged)


def renyi(events: Sequence[Event], order: float) -> float:
    """The summed Renyi divergence bound of `events` at `order`."""
    return _renyi(_merged(events), order)


def _conversion(order: float, delta: float) -> float:
    """What (order, rdp) to (epsilon, delta) adds: Canonne, Kamath and Steinke 2020, proposition 12."""
    return math.log1p(-1.0 / order) - (math.log(delta) + math.log(order)) / (order - 1.0)


def filter_order(first: Sequence[Event], budget_epsilon: float, delta: float) -> float:
    """The order of a budget's filter: the one under which studies like the first one fit most often.

    The first study is chosen before anything was released, so an order chosen from it is fixed in advance.
    """
    orders = [order for order in _ORDERS if _conversion(order, delta) < budget_epsilon]
    if not orders:
        return _ORDERS[-1]
    return max(orders, key=lambda order: (budget_epsilon - _conversion(order, delta)) / (renyi(first, order) or 1e-12))


def filter_epsilon(events: Sequence[Event], order: float, delta: float) -> float:
    """The epsilon that a filter of this order counts for `events`; it is passed while that is <= the budget.

    0 for no events. Exceeds `epsilon` in general: the price of letting studies be chosen adaptively.
    """
    return max(0.0, renyi(events, order) + _conversion(order, delta)) if events else 0.0


def calibrate(rate: float, steps: int, target_epsilon: float, delta: float) -> float:
    """The smallest noise multiplier (to 0.1 %) with which `steps` steps at `rate` stay within the target.

    Raises ValueError where no multiplier up to 10**6 does. The result never exceeds the target by the PLD bound.
    """
    return _calibrate(rate, steps, target_epsilon, delta)


@lru_cache(maxsize=1024)
def _calibrate(rate: float, steps: int, target: float, delta: float) -> float:
    def spent(sigma: float, interval: float = _CALIBRATED) -> float:
        return _pld_epsilon(_merged([dp_sgd(rate, sigma, steps)]), delta, interval)

    low, high = 0.0, 1.0
    while spent(high) > target:
        low, high = high, high * 2
        if high > 1e6:
            raise ValueError(f"no noise multiplier up to 10**6 gives epsilon {target} at delta {delta}")
    while low == 0.0 and high > 1e-2 and spent(high / 2) <= target:
        high /= 2
    low = high / 2
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle) <= target else (middle, high)
    # The coarse search over-counts: settle the last per cents on the discretisation that is reported.
    while spent(high, _REPORTED) > target:
        high *= 1.0005
    low = high * 0.998
    while low > 1e-3 and spent(low, _REPORTED) <= target:
        low, high = low * 0.98, low
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spent(middle, _REPORTED) <= target else (middle, high)
    return high
