"""Discrete noise for one release: how much each array gets, what that costs, and what it does to an estimate.

Every entry of a contribution becomes a whole number of units of a public grid, and gets independent integer noise
(`statfed.core.privacy.discrete`). Both ends make the same plan from public facts: the parts and the query's privacy.
Who adds the noise is the subject of `statfed.core.privacy.placement`.

Formal guarantees, for one holder and add-or-remove-one privacy unit (a record, or a person with at most k records).

1. *Sensitivity.* A unit changes an entry by at most k * bound. Whole numbers with k * bound up to the resolution N are
   left as they are (in shared noise they count units of 2^-j, exactly). Everything else is put on a grid of
   k * bound / N *after* it was summed, and changes by at most ceil(N) + 1 units: |round(a) - round(b)| < |a - b| + e
   + 1, where e < 1 units is what floating-point summation adds. Two sums of n float64 values of at most `bound` err by
   less than 2 n^2 bound 2^-53 together, so e < 1 for n < sqrt(2^52 / N) records at a holder (three million at N = 512,
   see `Noise.most_summed`), whatever the order of summation; under random rounding errors (Higham and Mary 2019) up to
   4e8; for compensated summation without limit in practice. The order in which a database adds up may differ from run
   to run, so entries that a unit does not touch count as changed by one unit of a float grid. Every holder rounds
   before anything is added to its contribution, so that a total over holders changes by as much as that holder's part.
2. *One entry per record* (`Part.single`). Gaussian noise: k records touch at most k entries, the j-th most changed of
   them by at most floor(k / j) * bound, and each is charged that; this dominates every way to spread k records over
   entries. Laplace noise: all entries together change by at most k * bound in L1 norm, and that is charged once.
   *Entries together* (`Part.together`): they change by at most k times those norms (L1, L2), each entry over its bound.
   With rounding, as in 1: entry i changes by fewer than x_i + 1 + e_i units, where the x_i have those norms times N and
   the e_i add up to less than 1 (the errors of all float sums together are those of one sum of n values of at most L1
   bounds, see `Noise.most_summed`); so by at most L1 N + E units in L1 norm and L2 N + sqrt(E) + 1 in L2 norm, E
   entries. Discrete Laplace noise of scale s on numbers that change by D together in L1 norm is D / s private, and its
   Renyi divergence is at most that of one number that changes by D (`discrete.laplace_renyi`); discrete Gaussian noise
   on many numbers is charged as continuous noise with what it is apart from that (`statfed.core.privacy.closeness`).
3. *The event* is the composition of those scalar mechanisms and is built from the numbers that are drawn with.
   Composed `times` times it stays within the query's epsilon by `privacy.epsilon` at its delta (`privacy.pure_epsilon`
   at 0). Central noise is one draw for the total; of local noise a holder's own is counted, and what others add to the
   total is post-processing.
4. *Shared noise*, m holders' draws being counted on. Laplace: a draw is the difference of two negative binomial
   variables of size 1 / m, m of which add up to discrete Laplace noise exactly, and nothing has to be added
   (`discrete.draw_share`). Gaussian: a holder draws N_Z(0, s^2), and m of them are charged as one N_Z(0, m s^2). The
   log-probabilities of the sum of m draws and of that one differ by at most t = 5 sum_{k=1}^{m-1} exp(-2 pi^2 s^2 k /
   (k+1)) (Kairouz, Liu and Steinke 2021, The Distributed Discrete Gaussian Mechanism, theorem 9 and its induction over
   summands; both neighbours together, their 10 sum). The grid is refined until s >= 3, so t < m 2^-124. Hence no
   hockey-stick divergence of an entry is larger by more than 2 (e^t - 1): P_s(S) <= e^t P(S), and where P_s >= e^eps
   P_s' the term e^eps P_s'(S) is at most 1. The accountant counts 2 exp(-60.5) > 2^-87 an entry as infinite loss for
   the tails beyond 11 sigma of one charged draw, which hold less than a tenth of that (`discrete.gaussian_loss`), so
   its figure covers both. In a Renyi divergence of order a the excess is t (2a - 1) / (a - 1), below the last bit of a
   d^2 / (2 m s^2) in float64, in which all of it is computed. More than m draws in a total are m and post-processing.

*Which noise.* Left to itself (`mechanism` automatic), a study of one ask gets the kind with the smaller expected error:
of the logarithm of the standard deviation over the bound, in the mean over entries and over parts by share, each kind
at the least noise that stays within epsilon; Laplace noise by the sum of its epsilons, so that it holds at delta 0.
Laplace noise has the smaller error where a record changes little in L1 norm (counts, totals, means), Gaussian noise
where it changes many entries. All of that is public, and both ends find the same. Studies of several asks and of
adaptive ones get Gaussian noise unless delta is 0.

The budget is split by `Part.share`: shares of rho (sigma^-2) for Gaussian noise, of epsilon (scale^-1) for Laplace,
within a part evenly over the changes of one unit. Noise multipliers come from a ladder of 0.1 % steps and scales have
six digits, so that the last bit of a floating-point library does not separate the two ends.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.method import Arrays, Part
from statfed.core.names import one_of
from statfed.core.privacy import discrete
from statfed.core.privacy.accountant import (
    DiscreteGaussian,
    DiscreteGaussians,
    DiscreteLaplace,
    DiscreteLaplaces,
    Event,
    claim,
    composed,
    cost,
    pure_epsilon,
    repeated,
    singles,
)
from statfed.core.privacy.accountant import epsilon as pld_epsilon
from statfed.core.privacy.grid import Facts, Grid, Kind, Mechanism, facts_of, grid_of, multiplier_of
from statfed.core.privacy.search import last_within
from statfed.core.randomness import Stream
from statfed.core.terms import Privacy

_STEP = 1.001
_LADDER = (-16_000, 16_000)
_LARGEST_SUM = 2.0**52  # grid units: float64 tells neighbours apart
_LARGEST_UNITS = 2.0**53  # with its noise


@dataclass(frozen=True)
class Noise:
    """The noise of one ask. All of it is public: the noise itself exists only in what `units` and `values` return."""

    kind: Kind
    _grids: tuple[Grid, ...]

    def event(self) -> Event:
        """The privacy event of one ask, for every holder in it."""
        events: list[Event] = []
        for grid in self._grids:
            if grid.joint is not None:
                events.append(self._together(grid, *grid.joint))
            for sensitivity, scale, count in grid.changes:
                single: DiscreteGaussian | DiscreteLaplace = (
                    DiscreteLaplace(scale=scale, sensitivity=sensitivity)
                    if self.kind.laplace
                    else DiscreteGaussian(sigma=scale, sensitivity=sensitivity)
                )
                events.append(repeated(single, count))
        return composed(events)

    def _together(self, grid: Grid, most: float, scale: float, entries: int) -> Event:
        """The event of entries that change together by at most `most` units."""
        if not self.kind.laplace:
            drawn = float(grid.scale.max())
            multiplier = float(f"{scale / most * (1.0 - 1e-5):.6g}")  # less noise than there is, in six digits
            return DiscreteGaussians(noise_multiplier=multiplier, sigma=drawn, entries=entries, draws=self.kind.shares)
        if most == 1.0:
            return DiscreteLaplace(scale=scale, sensitivity=1)
        return DiscreteLaplaces(scale=scale, sensitivity=int(most))

    def epsilon(self, times: int, delta: float) -> float:
        """What `times` asks cost at `delta`: by PLD, or by basic composition where that is less, as of Laplace noise on
        few numbers; at delta 0 by the latter, infinite for Gaussian noise."""
        asks = [repeated(self.event(), times)]
        pure = pure_epsilon(asks)
        single = times == 1 and math.isfinite(pure) and len(list(singles(asks))) == 1
        return pure if delta == 0.0 or single else min(pure, pld_epsilon(asks, delta))

    @property
    def most_summed(self) -> int:
        """Most records of a holder for which the grid is proven when floats are added up without compensation."""
        grids = [grid for grid in self._grids if not grid.facts.integer]
        finest = 1.0
        for grid in grids:
            together = max(1.0, grid.facts.together[0]) if grid.facts.together else 1.0
            finest = max(finest, together * float(np.max(np.array(grid.facts.bounds) / grid.unit, initial=1.0)))
        return math.isqrt(2**52 // math.ceil(finest))

    def grid(self, name: str) -> NDArray[np.float64]:
        """What one grid unit stands for in each entry of a part, (entries,)."""
        return next(grid.unit for grid in self._grids if grid.facts.name == name)

    def units(self, arrays: Arrays, stream: Stream) -> dict[str, NDArray[np.int64]]:
        """What leaves a holder: `arrays` (private) in whole grid units, with the holder's noise from `stream`.

        Where the coordinator adds the noise (central) they are exact but for the grid, and nothing is drawn. Entries
        with bound 0 come out as 0. Raises EngineError on other parts or shapes than planned, on numbers that are not
        finite and on sums of 2**52 grid units or more (that many records do not exist).
        """
        if set(arrays) != {grid.facts.name for grid in self._grids}:
            want = ", ".join(grid.facts.name for grid in self._grids)
            raise EngineError(f"noise: got {', '.join(sorted(arrays))}; want {want}")
        found = {}
        for grid in self._grids:
            whole = _whole(grid, np.asarray(arrays[grid.facts.name]))
            if self.kind.noise != "central":
                whole += self._drawn(grid, stream)
            found[grid.facts.name] = whole.reshape(grid.facts.shape)
        return found

    def values(self, units: Arrays, stream: Stream) -> dict[str, NDArray[Any]]:
        """What the coordinator makes of a sum of `units`: int64 for integer parts, else float64 multiples of the grid.

        Central noise is drawn here, from `stream`, before anything else is done with the sum. Whole numbers that were
        counted in finer units are rounded, halves to even.
        """
        found: dict[str, NDArray[Any]] = {}
        for grid in self._grids:
            whole = np.asarray(units[grid.facts.name]).reshape(-1)
            if self.kind.noise == "central":
                whole = whole + self._drawn(grid, stream)
            value = _nearest(whole, grid.fine) * grid.coarse if grid.facts.integer else whole * grid.unit
            found[grid.facts.name] = np.asarray(value).reshape(grid.facts.shape)
        return found

    def add(self, arrays: Arrays, stream: Stream) -> dict[str, NDArray[Any]]:
        """What comes of `arrays` (private) of one holder alone, `stream` being everybody's."""
        return self.values(self.units(arrays, stream), stream)

    def layout(self, holders: int) -> Layout:
        """How sums of `units` over holders are encoded: exactly, since a rounded sum would tell more than the sum."""
        shapes = {grid.facts.name: grid.facts.shape for grid in self._grids}
        return Layout(
            {name: Slot(shape, _LARGEST_UNITS * holders, True) for name, shape in shapes.items()}, holders, even=True
        )

    def _drawn(self, grid: Grid, stream: Stream) -> NDArray[np.int64]:
        draw = discrete.draw_laplace if self.kind.laplace else discrete.draw_gaussian
        if self.kind.laplace and self.kind.shares > 1:
            draw = partial(_shared, self.kind.shares)
        noise = np.zeros(len(grid.scale), np.int64)
        for scale in np.unique(grid.scale[grid.scale > 0.0]):
            at = np.flatnonzero(grid.scale == scale)
            noise[at] = draw(float(scale), len(at), stream)
        return noise

    def draws(self, holders: int) -> int:
        """How many draws of noise are in a total over `holders`: one where the coordinator adds it."""
        return 1 if self.kind.noise == "central" else holders

    def std(self, holders: int = 1) -> dict[str, NDArray[np.float64]]:
        """Standard deviation of the noise in a sum that `holders` contributed to, per entry, rounding included.

        Rounding at a holder counts as uniform over one unit, independent of the rest: 1/12 of its square. That of a
        total of finer units to whole numbers is counted as it is (`discrete.rounded_std`).
        """
        deviation = discrete.laplace_std if self.kind.laplace else discrete.gaussian_std
        found, draws = {}, float(self.draws(holders))
        if self.kind.laplace:  # a share of Laplace noise has the scale of all of it
            draws /= self.kind.shares
        for grid in self._grids:
            of = {s: deviation(s) if s > 0.0 else 0.0 for s in map(float, np.unique(grid.scale))}
            noise = np.array([of[float(s)] for s in grid.scale])
            rounded = (grid.scale > 0.0) & ((grid.unit > 1.0) if grid.facts.integer else np.array(True))
            std = grid.unit * np.sqrt(draws * noise**2 + holders * rounded / 12.0)
            if grid.facts.integer and (grid.fine > 1).any():
                pairs = [(float(s) * math.sqrt(draws), int(f)) for s, f in zip(grid.scale, grid.fine, strict=True)]
                whole = {pair: discrete.rounded_std(*pair) for pair in set(pairs) if pair[1] > 1}
                std = np.array([whole.get(pair, float(one)) for pair, one in zip(pairs, std, strict=True)])
            found[grid.facts.name] = std.reshape(grid.facts.shape)
        return found


def _shared(shares: int, scale: float, count: int, stream: Stream) -> NDArray[np.int64]:
    return discrete.draw_share(scale, shares, count, stream)


def _whole(grid: Grid, array: NDArray[Any]) -> NDArray[np.int64]:
    """An array of a contribution in whole grid units: (entries,), 0 where there is to be no noise."""
    facts = grid.facts
    if array.shape != facts.shape:
        raise EngineError(f"noise: {facts.name}: got shape {array.shape}; want {facts.shape}")
    if not np.isfinite(array).all():
        raise EngineError(f"noise: {facts.name}: got values that are not finite")
    flat = array.reshape(-1)
    limit = np.minimum(_LARGEST_SUM * grid.unit, 2.0**62) if facts.integer else _LARGEST_SUM * grid.unit
    if not ((np.abs(flat.astype(np.float64)) < limit) | (grid.scale == 0.0)).all():
        raise EngineError(f"noise: {facts.name}: got a sum too large for its bound; want below 2**52 grid units")
    if facts.integer:
        coarse = grid.coarse
        whole, rest = np.divmod(flat.astype(np.int64), coarse)
        whole += 2 * rest >= np.maximum(coarse, 2)
        whole *= grid.fine
    else:
        whole = np.rint(flat / grid.unit).astype(np.int64)
    return np.where(grid.scale > 0.0, whole, 0)


def _nearest(units: NDArray[np.int64], fine: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers nearest to `units` of 1 / fine, halves to even."""
    whole, rest = np.divmod(units, fine)
    return np.asarray(whole + ((2 * rest > fine) | ((2 * rest == fine) & (whole % 2 == 1))))


def plan(parts: Mapping[str, Part], privacy: Privacy, times: int = 1, shares: int = 1) -> Noise:
    """The least noise with which `times` asks for `parts` stay within `privacy`: both ends find the same.

    shares: of shared noise, how many holders' noise is counted on (`placement.shares`); one that is too small only
    adds noise. Raises UsageError naming the part whose bound or share is not usable, and where no noise up to 8192
    times the sensitivity is enough.
    """
    if times < 1:
        raise UsageError(f"times: got {times}; want at least 1")
    facts = facts_of(parts, privacy)
    return _chosen(facts, _kinds(privacy, shares), privacy.epsilon, privacy.delta, times)


@lru_cache(maxsize=256)
def _chosen(facts: tuple[Facts, ...], kinds: tuple[Kind, ...], epsilon: float, delta: float, times: int) -> Noise:
    """The noise of least expected error, of those kinds of which some amount stays within epsilon."""
    found: list[Noise] = []
    refused: UsageError | None = None
    for kind in kinds:
        pure = kind.laplace and len(kinds) > 1
        if found and _expected(_guessed(facts, kind, epsilon, delta, times)) > _expected(found[0]):
            continue
        try:
            step = _affordable(facts, kind, epsilon, 0.0 if pure else delta, times)
        except UsageError as error:
            refused = error
            continue
        found.append(_noise(facts, kind, step))
    if not found:
        raise refused or UsageError("privacy: got no kind of noise")
    return min(found, key=_expected)


def _guessed(facts: tuple[Facts, ...], kind: Kind, epsilon: float, delta: float, times: int) -> Noise:
    """Gaussian noise a third below what zero-concentrated privacy asks for: no tighter composition gets there."""
    step = _first_guess(kind, epsilon, delta, times) + math.ceil(math.log(1.5) / math.log(_STEP))
    return _noise(facts, kind, max(_least_step(facts, kind), step))


def _expected(noise: Noise) -> float:
    """The logarithm of the standard deviation over the bound, in the mean over entries and over parts by share."""
    std, total, weights = noise.std(noise.kind.shares), 0.0, 0.0
    for grid in noise._grids:
        bound = np.array(grid.facts.bounds)
        there = bound > 0.0
        if there.any():
            relative = std[grid.facts.name].reshape(-1)[there] / bound[there]
            total += grid.facts.share * float(np.mean(np.log(np.maximum(relative, 1e-300))))
            weights += grid.facts.share
    return round(total / weights, 9)  # a difference in the last bits of a library does not separate the two ends


def plan_share(parts: Mapping[str, Part], privacy: Privacy, share: float, shares: int = 1) -> Noise:
    """The least noise with which one ask for `parts` takes at most `share` of the budget that `accountant.claim` stands
    for: both ends find the same.

    Raises UsageError as `plan` does, and on a share that is not above 0 and at most 1.
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(f"share of the privacy budget: got {share:g}; want more than 0 and at most 1")
    facts, kind = facts_of(parts, privacy), Kind(settled(privacy), privacy.noise, _counted(privacy, shares))
    claimed = claim(kind.mechanism, privacy.epsilon, privacy.delta)

    def affordable(step: int) -> bool:
        return cost(claimed, _noise(facts, kind, step).event()) <= share

    low = _least_step(facts, kind)
    if not affordable(low):
        raise UsageError(
            f"privacy: got {share:.3g} of epsilon {privacy.epsilon:g} for {sum(len(f.bounds) for f in facts)} entries; "
            "want a larger epsilon or share, or a question with fewer entries"
        )
    width = 16
    while affordable(low + width):
        low, width = low + width, 2 * width
    return _noise(facts, kind, _bisect(affordable, low, low + width))


def settled(privacy: Privacy) -> Mechanism:
    """The kind of noise of studies of several asks and of adaptive ones."""
    if privacy.mechanism == "automatic":
        return "discrete-gaussian" if privacy.delta > 0.0 else "discrete-laplace"
    return privacy.mechanism


def _kinds(privacy: Privacy, shares: int) -> tuple[Kind, ...]:
    """The kinds of noise that a study of one ask may get, the first where they are equally good."""
    some: tuple[Mechanism, ...] = ("discrete-laplace", "discrete-gaussian")
    if privacy.mechanism != "automatic" or privacy.delta == 0.0:
        some = (settled(privacy),)
    return tuple(Kind(mechanism, privacy.noise, _counted(privacy, shares)) for mechanism in some)


def _counted(privacy: Privacy, shares: int) -> int:
    if shares < 1 or (shares > 1 and privacy.noise != "shared"):
        raise UsageError(f"shares: got {shares} of {privacy.noise} noise; want 1, or more of shared noise")
    return shares


def error(
    parts: Mapping[str, Part], privacy: Privacy, holders: int, times: int = 1, level: float = 0.95, shares: int = 1
) -> dict[str, NDArray[np.float64]]:
    """Half-width, per entry, of the interval that holds the noise of the sum over `holders` with probability `level`.

    Of the noise alone: sampling variance comes on top. Raises UsageError as `plan` does.
    """
    noise = plan(parts, privacy, times, shares)
    quantile = _quantile(noise.kind, noise.draws(holders), level)
    return {name: quantile * std for name, std in noise.std(holders).items()}


def epsilon_for(
    parts: Mapping[str, Part],
    privacy: Privacy,
    part: str,
    half_width: float,
    holders: int,
    times: int = 1,
    level: float = 0.95,
    shares: int = 1,
) -> float:
    """The smallest epsilon (at `privacy.delta`, its own epsilon aside) with which the half-width that `error` states is
    at most `half_width` in every entry of `part`.

    Raises UsageError on an unknown part, on a target that is not positive, and on one that takes epsilon above 1000.
    """
    if part not in parts:
        raise UsageError(f"margin of error: got part {part!r}; want {one_of(parts, part)}")
    if not 0.0 < half_width < math.inf:
        raise UsageError(f"margin of error: got {half_width:g}; want a positive number")
    facts, kinds = facts_of(parts, privacy), _kinds(privacy, shares)
    found = [_epsilon_for(facts, kind, privacy.delta, part, half_width, holders, times, level) for kind in kinds]
    if len(kinds) > 1:  # whichever `plan` takes at that epsilon is the better one over all parts, not for this one

        def wide(epsilon: float) -> float:
            noise = _chosen(facts, kinds, epsilon, privacy.delta, times)
            width = _quantile(noise.kind, noise.draws(holders), level) * noise.std(holders)[part]
            return float(width.max(initial=0.0))

        fitting = [epsilon for epsilon in sorted(found) if epsilon <= 1000.0 and wide(epsilon) <= half_width]
        found = fitting or [max(found)]
    if not found[0] <= 1000.0:
        raise UsageError(f"margin of error: got {half_width:g} for {part}; want one that epsilon 1000 can reach")
    return found[0]


def _epsilon_for(
    facts: tuple[Facts, ...],
    kind: Kind,
    delta: float,
    part: str,
    half_width: float,
    holders: int,
    times: int,
    level: float,
) -> float:
    """`epsilon_for` with noise of one kind; infinite where none reaches it."""
    quantile = _quantile(kind, Noise(kind, ()).draws(holders), level)

    def reached(step: int) -> bool:
        std = _noise(facts, kind, step).std(holders)[part]
        return quantile * float(std.max(initial=0.0)) <= half_width

    low, high = _least_step(facts, kind), _LADDER[1]
    if not reached(high):
        return math.inf
    step = low if reached(low) else _bisect(lambda j: not reached(j), low, high) + 1
    return _spent(facts, kind, delta, times, step)


@lru_cache(maxsize=64)
def _noise(facts: tuple[Facts, ...], kind: Kind, step: int) -> Noise:
    """The noise at a step of the ladder: step up, noise down."""
    return Noise(kind, tuple(grid_of(f, m, kind) for f, m in zip(facts, _made(facts, kind, step), strict=True)))


def _made(facts: tuple[Facts, ...], kind: Kind, step: int) -> list[float]:
    """Noise multipliers of the parts at a step of the ladder."""
    shares = sum(f.share for f in facts if any(f.bounds))
    return [multiplier_of(f, kind, shares, _STEP**-step) for f in facts]


def _least_step(facts: tuple[Facts, ...], kind: Kind) -> int:
    """The lowest step at which all scales are ones that noise can be drawn for."""
    noisy = tuple(f for f in facts if any(f.bounds))

    def drawable(step: int) -> bool:
        largest = discrete.LARGEST_SHARED if kind.laplace and kind.shares > 1 else discrete.LARGEST
        made = _made(noisy, kind, step)
        if any(m > largest / 16 for m in made):
            return False
        together = ((f, m) for f, m in zip(noisy, made, strict=True) if f.joint(kind))
        return all(float(grid_of(f, m, kind).scale.max()) <= largest for f, m in together)

    return _bisect(lambda j: not drawable(j), *_LADDER) + 1


@lru_cache(maxsize=256)
def _affordable(facts: tuple[Facts, ...], kind: Kind, epsilon: float, delta: float, times: int) -> int:
    """The highest step whose composition stays within epsilon."""
    lowest = _least_step(facts, kind)

    def spent(step: int) -> float:
        return _spent(facts, kind, delta, times, step)

    guess = max(lowest, _first_guess(kind, epsilon, delta, times))
    width = 16
    if spent(guess) <= epsilon:
        low, high = guess, guess + width
        while spent(high) <= epsilon:
            width *= 2
            low, high = high, high + width
    else:
        low, high = guess - width, guess
        while low > lowest and spent(low) > epsilon:
            width *= 2
            low, high = low - width, low
        if low <= lowest:
            low = lowest
            if spent(low) > epsilon:
                raise UsageError(
                    f"privacy: got epsilon {epsilon:g} for {sum(len(f.bounds) for f in facts)} entries, {times} times; "
                    f"want at least epsilon {spent(low):.3g}, or a question with fewer entries"
                )
    return last_within(spent, epsilon, low, high)


def _first_guess(kind: Kind, epsilon: float, delta: float, times: int) -> int:
    """The step of zero-concentrated privacy (Bun and Steinke 2016, proposition 1.3), or of basic composition."""
    if kind.laplace:
        return math.floor(math.log(epsilon / times) / math.log(_STEP))
    tail = math.log(1.0 / delta)
    rho = (math.sqrt(epsilon + tail) - math.sqrt(tail)) ** 2
    return math.floor(math.log(math.sqrt(2.0 * rho / times)) / math.log(_STEP))


@lru_cache(maxsize=512)
def _spent(facts: tuple[Facts, ...], kind: Kind, delta: float, times: int, step: int) -> float:
    return _noise(facts, kind, step).epsilon(times, delta)


def _bisect(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number at which `holds` for a condition that holds at `low` and fails at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _quantile(kind: Kind, draws: int, level: float) -> float:
    """Half-width of a central interval in standard deviations; for a sum of Laplace variables their exact law.

    A sum of h Laplace variables is sqrt(2 G) Z with G gamma distributed with shape h (Kotz et al. 2001, section 4.1).
    """
    from scipy import optimize, stats

    if not 0.0 < level < 1.0:
        raise UsageError(f"level: got {level:g}; want a number between 0 and 1")
    if not kind.laplace:
        return float(stats.norm.ppf((1.0 + level) / 2.0))
    nodes, weights = np.polynomial.legendre.leggauss(400)
    shape = draws / kind.shares
    spread = np.sqrt(stats.gamma.ppf((nodes + 1.0) / 2.0, shape) / shape)

    def excess(t: float) -> float:
        return float(weights / 2.0 @ (2.0 * stats.norm.cdf(t / spread) - 1.0)) - level

    return float(optimize.brentq(excess, 1e-6, 100.0))
