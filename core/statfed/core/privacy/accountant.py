"""Privacy events and their composition: one vocabulary for training, queries and synthetic data.

An event says what a mechanism did to one dataset, for one privacy unit under add-or-remove-one neighbours. It is
built by the object that adds the noise, stored in the holder's ledger as JSON, and never changes meaning. An event
that this module does not know is refused, not skipped.

Two figures are given, for two questions:

- `epsilon`: composition of privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, pessimistic
  discretisation of dp-accounting). Tight, and valid when the parameters of the composed events were fixed without
  looking at earlier results. Within one study they are.
- `renyi`: Renyi divergences of one order. They add up when an analyst chooses each study after seeing the results of
  earlier ones too, so the lifetime budget is gated on them (`statfed.core.privacy.filters`).
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, Union

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from statfed.core.errors import LedgerCorrupt, UsageError
from statfed.core.privacy import discrete
from statfed.core.privacy.closeness import apart
from statfed.core.privacy.search import last_within

if TYPE_CHECKING:
    import dp_accounting
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

# Discretisation of the privacy loss. It is pessimistic: a coarser one only over-counts. It follows epsilon outside
# [0.1, 10], so that a small figure is not mostly discretisation, and a study with hardly any noise costs a holder
# megabytes and not gigabytes.
_REPORTED, _CALIBRATED, _FINEST, _COARSEST = 1e-4, 1e-3, 1e-3, 1e-5
_FINE_ORDERS = tuple(1.0 + 2.0 ** (k / 8) for k in range(-40, 97))  # to 4097
_REPORTED_ORDERS = (
    1.125,
    1.25,
    1.5,
    1.75,
    2.0,
    2.5,
    *sorted({float(round(3 * 1.15**k)) for k in range(43)}),
)  # to 1064


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


class DiscreteGaussians(_Event):
    """Noise on each of `entries` whole numbers: the sum of `draws` independent draws from N_Z(0, sigma^2).

    A unit changes the numbers by at most sigma * sqrt(draws) / noise_multiplier in L2 norm, by whole numbers.
    """

    kind: Literal["discrete-gaussians"] = "discrete-gaussians"
    noise_multiplier: float = Field(gt=0, allow_inf_nan=False)
    sigma: float = Field(ge=16, le=discrete.LARGEST)
    entries: int = Field(ge=1, le=2**40)
    draws: int = Field(ge=1, le=2**20)


class PoissonSampled(_Event):
    """`event` on a secret subsample that keeps each unit independently with probability `rate`."""

    kind: Literal["poisson-sampled"] = "poisson-sampled"
    rate: float = Field(gt=0, le=1)
    event: Annotated[Gaussian | DiscreteGaussians, Field(discriminator="kind")]


class DiscreteGaussian(_Event):
    """Noise from N_Z(0, sigma^2) on one whole number that a unit changes by at most `sensitivity`."""

    kind: Literal["discrete-gaussian"] = "discrete-gaussian"
    sigma: float = Field(gt=0, le=discrete.LARGEST)
    sensitivity: int = Field(ge=1, le=2**53)


class DiscreteLaplace(_Event):
    """Noise with probabilities proportional to exp(-|x| / scale) on one whole number, changed by `sensitivity`."""

    kind: Literal["discrete-laplace"] = "discrete-laplace"
    scale: float = Field(gt=0, le=discrete.LARGEST)
    sensitivity: int = Field(ge=1, le=2**20)


class DiscreteLaplaces(_Event):
    """Noise with probabilities proportional to exp(-|x| / scale) on each of several whole numbers.

    A unit changes the numbers by at most `sensitivity` together, in L1 norm.
    """

    kind: Literal["discrete-laplaces"] = "discrete-laplaces"
    scale: float = Field(gt=0, le=discrete.LARGEST)
    sensitivity: int = Field(ge=1, le=2**40)


class Composed(_Event):
    """All of `events`, with independent noise: the entries of one release."""

    kind: Literal["composed"] = "composed"
    events: tuple["Event", ...] = Field(min_length=1)


class Repeated(_Event):
    """`event`, `times` times with fresh randomness."""

    kind: Literal["repeated"] = "repeated"
    times: int = Field(ge=1)
    event: Annotated[
        Gaussian
        | Laplace
        | PoissonSampled
        | DiscreteGaussian
        | DiscreteGaussians
        | DiscreteLaplace
        | DiscreteLaplaces
        | Composed,
        Field(discriminator="kind"),
    ]


Event = Annotated[
    Union[  # noqa: UP007
        Gaussian,
        Laplace,
        PoissonSampled,
        DiscreteGaussian,
        DiscreteGaussians,
        DiscreteLaplace,
        DiscreteLaplaces,
        Composed,
        Repeated,
    ],
    Field(discriminator="kind"),
]
Composed.model_rebuild()
Repeated.model_rebuild()
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
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity):
            return f"discrete Gaussian {sigma:.4g} at sensitivity {sensitivity}"
        case DiscreteGaussians(noise_multiplier=sigma, entries=entries, draws=draws):
            of = f" of {draws} holders" if draws > 1 else ""
            return f"discrete Gaussian {sigma:.4g} on {entries} numbers{of}"
        case DiscreteLaplace(scale=scale, sensitivity=sensitivity):
            return f"discrete Laplace {scale:.4g} at sensitivity {sensitivity}"
        case DiscreteLaplaces(scale=scale, sensitivity=sensitivity):
            return f"discrete Laplace {scale:.4g} at sensitivity {sensitivity} of all numbers together"
        case Composed(events=events):
            return " and ".join(map(in_words, events))
        case Repeated(times=times, event=Composed() as inner):
            return f"{times} x ({in_words(inner)})"
        case Repeated(times=times, event=inner):
            return f"{times} x {in_words(inner)}"


def dp_sgd(rate: float, noise_multiplier: float, steps: int) -> Repeated:
    """The event of `steps` noisy clipped-gradient sums over Poisson batches (Abadi et al. 2016)."""
    noise = Gaussian(noise_multiplier=noise_multiplier)
    return Repeated(times=steps, event=noise if rate >= 1.0 else PoissonSampled(rate=rate, event=noise))


def dp_fedsgd(rate: float, noise: DiscreteGaussians, steps: int) -> Repeated:
    """The event of `steps` clipped-gradient sums over Poisson batches in whole numbers, with `noise`."""
    return Repeated(times=steps, event=noise if rate >= 1.0 else PoissonSampled(rate=rate, event=noise))


def repeated(event: Event, times: int) -> Repeated:
    """`event`, `times` times; what is repeated already is counted further."""
    if isinstance(event, Repeated):
        return Repeated(times=event.times * times, event=event.event)
    return Repeated(times=times, event=event)


def composed(events: Iterable[Event]) -> Event:
    """One event for all of `events`, in one form whatever their order: equal ones counted.

    Raises ValueError on none: there is no event that costs nothing.
    """
    found = [(event_from_json(text), times) for text, times in _merged(events)]
    parts: list[Event] = [event if times == 1 else repeated(event, times) for event, times in found]
    if not parts:
        raise ValueError("events: got none; want at least one")
    return parts[0] if len(parts) == 1 else Composed(events=tuple(parts))


def singles(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """The events that `events` are composed of, none of them composed or repeated, each with how often."""
    for event in events:
        yield from _singles(event)


def _singles(event: Event, times: int = 1) -> Iterator[tuple[Event, int]]:
    match event:
        case Repeated(times=more, event=inner):
            yield from _singles(inner, times * more)
        case Composed(events=events):
            for one in events:
                yield from _singles(one, times)
        case _:
            yield event, times


def _merged(events: Iterable[Event]) -> tuple[tuple[str, int], ...]:
    """Events as (JSON of the single event, count): equal ones composed once, order irrelevant."""
    counts: Counter[str] = Counter()
    for event in events:
        for single, times in _singles(event):
            counts[event_to_json(single)] += times
    return tuple(sorted(counts.items()))


def _dp_event(text: str, times: int) -> "dp_accounting.DpEvent":
    import dp_accounting as da

    def convert(event: Event) -> "da.DpEvent":
        match event:
            case Gaussian(noise_multiplier=sigma) | DiscreteGaussians(noise_multiplier=sigma):
                return da.GaussianDpEvent(sigma)  # `_accounted` adds what the second is apart from the first
            case Laplace(noise_multiplier=scale):
                return da.LaplaceDpEvent(scale)
            case PoissonSampled(rate=rate, event=inner):
                return da.PoissonSampledDpEvent(rate, convert(inner))
        raise LedgerCorrupt(f"unknown privacy event: {event!r}")

    return da.SelfComposedDpEvent(convert(event_from_json(text)), times)


def epsilon(events: Sequence[Event], delta: float) -> float:
    """The PLD composition of `events` at `delta`. 0 for no events; infinite where the accountant gives no bound."""
    merged = _merged(events)
    return _accounted(merged, delta, _REPORTED, *_apart(merged))


def _apart(merged: tuple[tuple[str, int], ...]) -> tuple[float, float]:
    """(log_ratio, failure) of all events together, against those that `_pld_epsilon` composes.

    The noise of different releases is independent, so that logarithms of ratios add up, and failures by the union
    bound, whatever was asked on seeing earlier releases.
    """
    ratio = failure = 0.0
    for text, times in merged:
        event = event_from_json(text)
        noise = event.event if isinstance(event, PoissonSampled) else event
        if isinstance(noise, DiscreteGaussians):
            one, missed = apart(noise.sigma, noise.draws, noise.entries)
            ratio, failure = ratio + times * one, failure + times * missed
    return ratio, failure


def _accounted(
    merged: tuple[tuple[str, int], ...], delta: float, interval: float, ratio: float, failure: float
) -> float:
    """Epsilon of mechanisms that are (ratio, failure) apart from those with the privacy losses of `merged`.

    If P is within exp(ratio) of P* but for probability `failure`, on either of two neighbours, and P* is (e, d)-DP,
    then P(E) <= exp(ratio) P*(E) + failure <= exp(ratio) (exp(e) P*'(E) + d) + failure, and P*'(E) <= exp(ratio) P'(E)
    + failure: P is (e + 2 ratio, exp(ratio) d + (1 + exp(e + ratio)) failure)-DP. A millionth of delta is kept for the
    last term; where it does not cover that, there is no bound.
    """
    if not ratio and not failure:
        return _pld_epsilon(merged, delta, interval)
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta: got {delta}; want a number between 0 and 1")
    if not math.isfinite(ratio):
        return math.inf
    ideal = _pld_epsilon(merged, delta * math.exp(-ratio) * (1.0 - 1e-6), interval)
    covered = math.log(2.0 * failure) + ideal + ratio <= math.log(1e-6 * delta)
    return ideal + 2.0 * ratio if covered else math.inf


def pure_epsilon(events: Sequence[Event]) -> float:
    """Basic composition of `events` at delta 0; infinite where one of them has no bound."""
    total = 0.0
    for event in events:
        for single, times in _singles(event):
            match single:
                case Laplace(noise_multiplier=scale):
                    total += times / scale
                case DiscreteLaplace(scale=scale, sensitivity=sensitivity):
                    total += times * sensitivity / scale
                case DiscreteLaplaces(scale=scale, sensitivity=sensitivity):
                    total += times * sensitivity / scale
                case _:
                    return math.inf
    return total


@lru_cache(maxsize=4096)
def _pld_epsilon(merged: tuple[tuple[str, int], ...], delta: float, interval: float) -> float:
    if not merged:
        return 0.0
    if not 0.0 < delta < 1.0:
        raise ValueError(f"delta: got {delta}; want a number between 0 and 1")
    from dp_accounting.pld import PLDAccountant

    rough = min(
        _renyi(merged, order) + conversion(order, delta) for order in (1.25, 1.5, *(2.0**k for k in range(1, 9)))
    )
    if not math.isfinite(rough):
        return math.inf
    step = max(min(interval, _FINEST * rough), _COARSEST * rough) if rough > 0.0 else interval
    accountant = PLDAccountant(value_discretization_interval=step)
    for text, times in merged:
        event = event_from_json(text)
        if isinstance(event, DiscreteLaplaces):  # dominated by randomised response (Kairouz, Oh and Viswanath 2015)
            event = DiscreteLaplace(scale=event.scale / event.sensitivity, sensitivity=1)
        if isinstance(event, DiscreteGaussian | DiscreteLaplace):
            # dp-accounting has no event for the one and visits every value of the noise in Python for both
            accountant._pld = accountant._pld.compose(_discrete_pld(event, step).self_compose(times))
        else:
            accountant.compose(_dp_event(text, times))
    value = float(accountant.get_epsilon(delta))
    return value if not math.isnan(value) else math.inf


def _discrete_pld(event: DiscreteGaussian | DiscreteLaplace, step: float) -> "PrivacyLossDistribution":
    """Privacy loss of one noisy whole number on multiples of `step`, pessimistic.

    Each loss is split between its two neighbours on the grid such that the total probability and the expectation of
    exp(-loss) stay: a spread of exp(-loss) around its mean, so that no hockey-stick divergence gets smaller
    (Doroshenko et al. 2022, "connect the dots"). The loss is symmetric in adding and removing.
    """
    from dp_accounting.pld.pld_pmf import DensePLDPmf
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    match event:
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity):
            loss, mass, infinite = discrete.gaussian_loss(sigma, sensitivity)
        case DiscreteLaplace(scale=scale, sensitivity=sensitivity):
            loss, mass, infinite = discrete.laplace_loss(scale, sensitivity)
    below = np.floor(loss / step)
    upward = np.clip(np.expm1(below * step - loss) / np.expm1(-step), 0.0, 1.0)
    start = int(below.min())
    place = (below - start).astype(np.int64)
    size = int(place.max()) + 2
    split = np.bincount(place, mass * (1.0 - upward), size) + np.bincount(place + 1, mass * upward, size)
    return PrivacyLossDistribution(DensePLDPmf(step, start, split, infinite, pessimistic_estimate=True))


@lru_cache(maxsize=4096)
def _rdp(text: str, order: float) -> float:
    """Renyi divergence bound of one event. At fractional orders of sampled events, the chord of (order-1)*rdp.

    That function is convex (Wang, Balle and Kasiviswanathan 2019, corollary 10), so the chord over-counts; the series
    of Mironov et al. 2019 for fractional orders does not always converge, and an order has to fit every later study.
    Discrete Gaussian: Canonne, Kamath and Steinke 2020, proposition 5; discrete Laplace: the divergence itself, which
    for changes of several numbers is at most that of their sum in one (`discrete.laplace_renyi`).

    Many whole numbers with discrete Gaussian noise, sampled or not, count as the continuous mechanism, without the
    approximation that `epsilon` needs. The moments of the ratio of two shifts are at most the continuous ones
    (proposition 5 again, for each number), the bound on sampling at whole orders is a sum of such moments with positive
    weights, and a reflection of the whole numbers swaps the two shifts (Mironov, Talwar and Zhang 2019, theorems 4 and
    5, section 3.3). A sum of draws is within a factor 1 + 10^-1000 of that everywhere (`closeness`, 1): counted as
    nothing.
    """
    match event_from_json(text):
        case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity):
            return order * (sensitivity / sigma) ** 2 / 2.0
        case DiscreteLaplace(scale=scale, sensitivity=sensitivity):
            return discrete.laplace_renyi(scale, sensitivity, order)
        case DiscreteLaplaces(scale=scale, sensitivity=sensitivity):
            return discrete.laplace_renyi(scale, sensitivity, order)
        case _:
            pass
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


def conversion(order: float, delta: float) -> float:
    """What (order, rdp) to (epsilon, delta) adds: Canonne, Kamath and Steinke 2020, proposition 12."""
    return math.log1p(-1.0 / order) - (math.log(delta) + math.log(order)) / (order - 1.0)


def renyi_epsilon(events: Sequence[Event], delta: float) -> float:
    """The Renyi composition of `events` at `delta`, by the best order, or their sum at delta 0 where that is less.

    0 for no events. Exceeds `epsilon` a little. Of studies that were chosen on seeing results it says how much they are
    together; what then holds is the budget that a filter keeps (`statfed.core.privacy.filters`).
    """
    if not events:
        return 0.0
    merged = _merged(events)
    found = min(_renyi(merged, order) + conversion(order, delta) for order in _REPORTED_ORDERS)
    return max(0.0, min(found, pure_epsilon(events)))


def rho(event: Event) -> float:
    """Zero-concentrated privacy of an event (Bun and Steinke 2016); infinite where it has none.

    Gaussian noise, and discrete Gaussian noise on one whole number or on many (Canonne, Kamath and Steinke 2020,
    theorem 4, and `_rdp`); composition adds up, adaptively too.
    """
    total = 0.0
    for single, times in _singles(event):
        match single:
            case Gaussian(noise_multiplier=sigma):
                total += times / (2.0 * sigma**2)
            case DiscreteGaussian(sigma=sigma, sensitivity=sensitivity):
                total += times * (sensitivity / sigma) ** 2 / 2.0
            case DiscreteGaussians(noise_multiplier=sigma):
                total += times / (2.0 * sigma**2)
            case _:
                return math.inf
    return total


def zcdp_epsilon(concentrated: float, delta: float) -> float:
    """Epsilon at `delta` of a mechanism of this rho: the best order of its Renyi curve (order * rho), converted."""
    if not concentrated:
        return 0.0
    found: float = min(order * concentrated + conversion(order, delta) for order in _FINE_ORDERS)
    return max(0.0, found)


@lru_cache(maxsize=256)
def claim(mechanism: str, target: float, delta: float) -> Event:
    """The event that stands for a whole budget which asks may spend in shares chosen on seeing results.

    Gaussian noise: of the largest rho whose `zcdp_epsilon` at `delta` is at most `target`; asks whose rho adds up to no
    more have at most its Renyi divergence at every order, whatever was chosen when (a filter: Feldman and Zrnic 2021,
    theorem 4.3). Laplace noise: randomised response of epsilon `target`, which dominates every mechanism of that pure
    epsilon (Kairouz, Oh and Viswanath 2015), hence asks whose epsilons add up to no more.
    Raises UsageError on a target that no noise reaches.
    """
    low, high = 1e-6, 1e6
    laplace = mechanism == "discrete-laplace"
    if 1.0 / target > discrete.LARGEST if laplace else zcdp_epsilon(1.0 / (2.0 * high**2), delta) > target:
        raise UsageError(f"privacy: got epsilon {target:g} at delta {delta:g} in shares; want a larger epsilon")
    if laplace:
        return DiscreteLaplace(scale=1.0 / target, sensitivity=1)
    while high - low > 1e-9 * high:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if zcdp_epsilon(1.0 / (2.0 * middle**2), delta) <= target else (middle, high)
    return Gaussian(noise_multiplier=float(f"{high * (1.0 + 1e-5):.6g}"))  # more than six digits can take away


def part_of(claimed: Event, share: float) -> Event:
    """The `claim` of a share of the budget that another claim stands for: of its rho, or of its pure epsilon."""
    if share == 1.0:
        return claimed
    if isinstance(claimed, Gaussian):
        return Gaussian(noise_multiplier=claimed.noise_multiplier / math.sqrt(share))
    if isinstance(claimed, DiscreteLaplace):
        return DiscreteLaplace(scale=claimed.scale / share, sensitivity=claimed.sensitivity)
    raise LedgerCorrupt(f"event {in_words(claimed)}: not one that stands for a budget")


def cost(claimed: Event, event: Event) -> float:
    """The share of a `claim` that an event takes; infinite where it is none of the claim's kind."""
    if isinstance(claimed, Gaussian):
        return rho(event) / rho(claimed)
    if isinstance(claimed, DiscreteLaplace):
        return pure_epsilon([event]) / pure_epsilon([claimed])
    raise LedgerCorrupt(f"event {in_words(claimed)}: not one that stands for a budget")


def calibrate(
    rate: float,
    steps: int,
    target_epsilon: float,
    delta: float,
    apart: tuple[float, float] = (0.0, 0.0),
    beside: tuple[Event, ...] = (),
) -> float:
    """The smallest noise multiplier (to 0.1 %) with which `steps` steps at `rate` stay within the target.

    apart: (log_ratio, failure) of one step's noise against continuous Gaussian noise, as `closeness.apart` gives it.
    beside: further events of the same study.
    Raises ValueError where no multiplier up to 10**6 does. The result never exceeds the target by the PLD bound.
    """
    return _calibrate(rate, steps, target_epsilon, delta, steps * apart[0], steps * apart[1], beside)


@lru_cache(maxsize=1024)
def _calibrate(
    rate: float, steps: int, target: float, delta: float, ratio: float, failure: float, beside: tuple[Event, ...] = ()
) -> float:
    def spent(sigma: float, interval: float = _CALIBRATED) -> float:
        return _accounted(_merged([dp_sgd(rate, sigma, steps), *beside]), delta, interval, ratio, failure)

    low, high = 0.0, 1.0
    while spent(high) > target:
        low, high = high, high * 2
        if high > 1e6:
            raise ValueError(f"no noise multiplier up to 10**6 gives epsilon {target} at delta {delta}")
    while low == 0.0 and high > 1e-2 and spent(high / 2) <= target:
        high /= 2
    finest = high / 2048
    high -= finest * last_within(lambda less: spent(high - less * finest), target, 0, 1024)
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
