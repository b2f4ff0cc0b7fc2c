"""Discrete noise for one release: how much each array gets, what that costs, and what it does to an estimate.

Every entry of a contribution becomes a whole number of units of a public grid, and gets independent integer noise
(`statfed.core.discrete`). Both ends make the same plan from public facts: the parts and the query's privacy.

Formal guarantees, for one holder and add-or-remove-one privacy unit (a record, or a person with at most k records).

1. *Sensitivity.* A unit changes an entry by at most k * bound. Whole numbers with k * bound up to the resolution N are
   left as they are. Everything else is put on a grid of k * bound / N *after* it was summed, and changes by at most
   ceil(N) + 1 units: |round(a) - round(b)| < |a - b| + e + 1, where e < 1 units is what floating-point summation adds.
   Two sums of n float64 values of at most `bound` err by less than 2 n^2 bound 2^-53 together, so e < 1 for
   n < sqrt(2^52 / N) records at a holder (three million at N = 512), whatever the order of summation; under random
   rounding errors (Higham and Mary 2019) up to 4e8; for compensated summation without limit in practice. The order in
   which a database adds up may differ from run to run, so entries that a unit does not touch count as changed by one
   unit of a float grid.
2. *One entry per record* (`Part.single`). k records touch at most k entries, the j-th most changed of them by at most
   floor(k / j) * bound, and each is charged that; this dominates every way to spread k records over entries.
3. *The event* is the composition of those scalar mechanisms and is built from the numbers that `add` uses. Composed
   `times` times it stays within the query's epsilon by `privacy.epsilon` at its delta (`privacy.pure_epsilon` at 0).

The budget is split by `Part.share`: shares of rho (sigma^-2) for Gaussian noise, of epsilon (scale^-1) for Laplace,
within a part evenly over the changes of one unit. Noise multipliers come from a ladder of 0.1 % steps and scales have
six digits, so that the last bit of a floating-point library does not separate the two ends.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core import discrete
from statfed.core.analysis import Arrays, Part
from statfed.core.errors import EngineError, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.privacy import DiscreteGaussian, DiscreteLaplace, Event, composed, pure_epsilon, repeated
from statfed.core.privacy import epsilon as pld_epsilon
from statfed.core.query import Privacy
from statfed.core.randomness import Stream

Mechanism = Literal["discrete-gaussian", "discrete-laplace"]
_STEP = 1.001
_LADDER = (-16_000, 16_000)
_LARGEST_SUM = 2.0**52  # grid units: float64 tells neighbours apart
_LARGEST_UNITS = 2.0**53  # with its noise
_LARGEST_WHOLE = 2.0**44  # the largest noise at that bound still fits into 64 bits


@dataclass(frozen=True)
class _Facts:
    """What a plan depends on. bounds: per entry, of one unit (k records in one entry), 0 for entries without noise."""

    name: str
    shape: tuple[int, ...]
    bounds: tuple[float, ...]
    integer: bool
    single: bool
    share: float
    records: int


@dataclass(frozen=True)
class _Grid:
    """Noise of one part. unit: (entries,) value of one grid unit; scale: (entries,) of the noise, in units, 0 for none.

    changes: (sensitivity in units, scale, number of entries) that one privacy unit may change together.
    """

    facts: _Facts
    unit: NDArray[np.float64]
    scale: NDArray[np.float64]
    changes: tuple[tuple[int, float, int], ...]


@dataclass(frozen=True)
class Noise:
    """The noise of one ask. All of it is public: the noise itself exists only in what `add` returns."""

    mechanism: Mechanism
    _grids: tuple[_Grid, ...]

    def event(self) -> Event:
        """The privacy event of one ask with noise added by `add`."""
        events: list[Event] = []
        for grid in self._grids:
            for sensitivity, scale, count in grid.changes:
                single: DiscreteGaussian | DiscreteLaplace = (
                    DiscreteGaussian(sigma=scale, sensitivity=sensitivity)
                    if self.mechanism == "discrete-gaussian"
                    else DiscreteLaplace(scale=scale, sensitivity=sensitivity)
                )
                events.append(repeated(single, count))
        return composed(events)

    def epsilon(self, times: int, delta: float) -> float:
        """What `times` asks cost at `delta`, by PLD; at delta 0 by basic composition, infinite for Gaussian noise."""
        asks = [repeated(self.event(), times)]
        return pld_epsilon(asks, delta) if delta > 0.0 else pure_epsilon(asks)

    def units(self, arrays: Arrays, stream: Stream) -> dict[str, NDArray[np.int64]]:
        """`arrays` (private) with noise from `stream`, in whole grid units: what leaves a holder.

        Entries with bound 0 come out as 0. Raises EngineError on other parts or shapes than planned, on numbers that
        are not finite and on sums of 2**52 grid units or more (that many records do not exist).
        """
        if set(arrays) != {grid.facts.name for grid in self._grids}:
            want = ", ".join(grid.facts.name for grid in self._grids)
            raise EngineError(f"noise: got {', '.join(sorted(arrays))}; want {want}")
        return {grid.facts.name: self._noisy(grid, np.asarray(arrays[grid.facts.name]), stream) for grid in self._grids}

    def values(self, units: Arrays) -> dict[str, NDArray[Any]]:
        """What a sum of `units` means: int64 for integer parts, else float64."""
        found: dict[str, NDArray[Any]] = {}
        for grid in self._grids:
            whole = np.asarray(units[grid.facts.name]).reshape(-1)
            unit = grid.unit.astype(np.int64) if grid.facts.integer else grid.unit
            found[grid.facts.name] = np.asarray(whole * unit).reshape(grid.facts.shape)
        return found

    def add(self, arrays: Arrays, stream: Stream) -> dict[str, NDArray[Any]]:
        """`arrays` (private) with noise from `stream`: int64 for integer parts, else float64 multiples of the grid."""
        return self.values(self.units(arrays, stream))

    def layout(self, holders: int) -> Layout:
        """How sums of `units` over holders are encoded: exactly, since a rounded sum would tell more than the sum."""
        shapes = {grid.facts.name: grid.facts.shape for grid in self._grids}
        return Layout({name: Slot(shape, _LARGEST_UNITS * holders, True) for name, shape in shapes.items()}, holders)

    def _noisy(self, grid: _Grid, array: NDArray[Any], stream: Stream) -> NDArray[np.int64]:
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
            unit = grid.unit.astype(np.int64)
            whole, rest = np.divmod(flat.astype(np.int64), unit)
            whole += 2 * rest >= np.maximum(unit, 2)
        else:
            whole = np.rint(flat / grid.unit).astype(np.int64)
        for scale in np.unique(grid.scale):
            at = np.flatnonzero(grid.scale == scale)
            whole[at] = whole[at] + self._draw(float(scale), len(at), stream) if scale > 0.0 else 0
        return whole.reshape(facts.shape)

    def _draw(self, scale: float, count: int, stream: Stream) -> NDArray[np.int64]:
        draw = discrete.draw_gaussian if self.mechanism == "discrete-gaussian" else discrete.draw_laplace
        return draw(scale, count, stream)

    def std(self, holders: int = 1) -> dict[str, NDArray[np.float64]]:
        """Standard deviation of the noise in the sum over `holders`, per entry, rounding to the grid included.

        Rounding counts as uniform over one unit, independent of the rest: 1/12 of its square.
        """
        deviation = discrete.gaussian_std if self.mechanism == "discrete-gaussian" else discrete.laplace_std
        found = {}
        for grid in self._grids:
            of = {s: deviation(s) if s > 0.0 else 0.0 for s in map(float, np.unique(grid.scale))}
            noise = np.array([of[float(s)] for s in grid.scale])
            rounded = (grid.scale > 0.0) & ((grid.unit > 1.0) if grid.facts.integer else np.array(True))
            std = grid.unit * np.sqrt(holders * (noise**2 + rounded / 12.0))
            found[grid.facts.name] = std.reshape(grid.facts.shape)
        return found


def plan(parts: Mapping[str, Part], privacy: Privacy, times: int = 1) -> Noise:
    """The least noise with which `times` asks for `parts` stay within `privacy`: both ends find the same.

    Raises UsageError naming the part whose bound or share is not usable, and where no noise up to 8192 times the
    sensitivity is enough.
    """
    if times < 1:
        raise UsageError(f"times: got {times}; want at least 1")
    facts = _facts(parts, privacy)
    step = _affordable(facts, privacy.mechanism, privacy.epsilon, privacy.delta, times)
    return _noise(facts, privacy.mechanism, step)


def error(
    parts: Mapping[str, Part], privacy: Privacy, holders: int, times: int = 1, level: float = 0.95
) -> dict[str, NDArray[np.float64]]:
    """Half-width, per entry, of the interval that holds the noise of the sum over `holders` with probability `level`.

    Of the noise alone: sampling variance comes on top. Raises UsageError as `plan` does.
    """
    noise = plan(parts, privacy, times)
    quantile = _quantile(privacy.mechanism, holders, level)
    return {name: quantile * std for name, std in noise.std(holders).items()}


def epsilon_for(
    parts: Mapping[str, Part],
    privacy: Privacy,
    part: str,
    half_width: float,
    holders: int,
    times: int = 1,
    level: float = 0.95,
) -> float:
    """The smallest epsilon (at `privacy.delta`, its own epsilon aside) with which the half-width that `error` states is
    at most `half_width` in every entry of `part`.

    Raises UsageError on an unknown part, on a target that is not positive, and on one that takes epsilon above 1000.
    """
    if part not in parts:
        raise UsageError(f"margin of error: got part {part!r}; want one of {', '.join(parts)}")
    if not 0.0 < half_width < math.inf:
        raise UsageError(f"margin of error: got {half_width:g}; want a positive number")
    facts = _facts(parts, privacy)
    quantile = _quantile(privacy.mechanism, holders, level)

    def reached(step: int) -> bool:
        std = _noise(facts, privacy.mechanism, step).std(holders)[part]
        return quantile * float(std.max(initial=0.0)) <= half_width

    low, high = _least_step(facts, privacy.mechanism), _LADDER[1]
    if not reached(high):
        raise UsageError(f"margin of error: got {half_width:g} for {part}; want one that epsilon 1000 can reach")
    step = low if reached(low) else _bisect(lambda j: not reached(j), low, high) + 1
    found = _spent(facts, privacy.mechanism, privacy.delta, times, step)
    if found > 1000.0:
        raise UsageError(f"margin of error: got {half_width:g} for {part}; want one that epsilon 1000 can reach")
    return found


def _facts(parts: Mapping[str, Part], privacy: Privacy) -> tuple[_Facts, ...]:
    records = privacy.max_records_per_unit if privacy.unit == "person" else 1
    found = []
    for name, part in sorted(parts.items()):
        entries = math.prod(part.shape)
        bound = np.broadcast_to(np.asarray(part.bound, np.float64), part.shape).reshape(-1)
        if not np.isfinite(bound * records).all():
            raise UsageError(f"{name}: got no finite bound; want bounds (low, high) in the codebook for noise")
        if (bound < 0.0).any() or not (part.share > 0.0 and math.isfinite(part.share)):
            raise UsageError(f"{name}: got a negative bound or share {part.share:g}; want bounds >= 0 and a share > 0")
        if part.integer:
            bound = np.floor(bound)
            if (bound * records > _LARGEST_WHOLE).any():
                raise UsageError(f"{name}: got bound {bound.max() * records:g}; want at most 2**44 for whole numbers")
        if part.single and part.integer and entries:
            bound = np.where(bound > 0.0, bound.max(), 0.0)
        bounds = tuple(map(float, bound * records))
        found.append(_Facts(name, part.shape, bounds, part.integer, part.single, float(part.share), records))
    if not any(b > 0.0 for facts in found for b in facts.bounds):
        raise UsageError("privacy: got no entry that a record can change; want at least one")
    return tuple(found)


def _noise(facts: tuple[_Facts, ...], mechanism: Mechanism, step: int) -> Noise:
    """The noise at a step of the ladder: step up, noise down."""
    shares = sum(f.share for f in facts if any(f.bounds))
    return Noise(mechanism, tuple(_grid(f, _multiplier(f, mechanism, shares, step)) for f in facts))


def _multiplier(facts: _Facts, mechanism: Mechanism, shares: float, step: int) -> float:
    """Scale of the noise over the sensitivity of an entry; infinite where it overflows."""
    touched = sum(1 for b in facts.bounds if b > 0.0)
    if not touched:
        return 1.0
    k = facts.records
    relative = [(k // j) / k for j in range(1, min(k, touched) + 1)] if facts.single else [1.0] * touched
    share = facts.share / shares
    if mechanism == "discrete-gaussian":
        return math.sqrt(math.fsum(r * r for r in relative) / share) * _STEP**-step
    return math.fsum(relative) / share * _STEP**-step


def _resolution(facts: _Facts, multiplier: float) -> int:
    """N, a power of 2: as fine as 512 (finer where many entries count as touched) while tables stay small."""
    entries = len(facts.bounds) if facts.single and not facts.integer else 1
    wanted = max(9, 3 + math.ceil(math.log2(max(entries, 1)) / 2))
    return 1 << max(3, min(wanted, math.floor(math.log2(discrete.LARGEST / 2 / multiplier))))


def _grid(facts: _Facts, multiplier: float) -> _Grid:
    bound = np.array(facts.bounds)
    free = bound <= 0.0
    n = _resolution(facts, multiplier)
    if facts.integer:
        unit = np.maximum(1.0, np.ceil(bound / n))
        size = np.where(unit == 1.0, bound, np.ceil(bound / unit) + 1.0).astype(np.int64)
    else:
        unit = np.where(free, 1.0, bound / n)
        size = np.full(len(bound), n + 1, np.int64)
    sizes = {int(s): _rounded(multiplier * int(s)) for s in np.unique(size[~free])}
    scale = np.array([0.0 if f else sizes[int(s)] for f, s in zip(free, size, strict=True)])
    counts: Counter[tuple[int, float]] = Counter()
    for change, at in _changes(facts, n, unit, size, ~free):
        counts[change, sizes[at]] += 1
    untouched = int((~free).sum()) - sum(counts.values())
    if untouched and not facts.integer:
        counts[1, sizes[n + 1]] += untouched
    changes = tuple((change, of, count) for (change, of), count in sorted(counts.items()))
    return _Grid(facts, unit, scale, changes)


def _changes(
    facts: _Facts, n: int, unit: NDArray[np.float64], size: NDArray[np.int64], touched: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """Change in units, and the entry's own sensitivity, of each entry that a privacy unit's records touch."""
    if not facts.single:
        yield from ((int(s), int(s)) for s in size[touched])
        return
    k = facts.records
    for j in range(1, min(k, int(touched.sum())) + 1):
        own = int(size[touched][0])
        if not facts.integer:
            yield min(own, math.ceil(n * (k // j) / k) + 1), own
        else:
            grid, most = float(unit[touched][0]), max(facts.bounds) / k * (k // j)
            yield int(most) if grid == 1.0 else min(own, math.ceil(most / grid) + 1), own


def _rounded(scale: float) -> float:
    return float(f"{scale:.6g}")


def _least_step(facts: tuple[_Facts, ...], mechanism: Mechanism) -> int:
    """The lowest step at which all scales are ones that noise can be drawn for."""
    shares = sum(f.share for f in facts if any(f.bounds))

    def drawable(step: int) -> bool:
        made = [(f, _multiplier(f, mechanism, shares, step)) for f in facts if any(f.bounds)]
        return all(m <= discrete.LARGEST / 16 for _, m in made)

    return _bisect(lambda j: not drawable(j), *_LADDER) + 1


def _affordable(facts: tuple[_Facts, ...], mechanism: Mechanism, epsilon: float, delta: float, times: int) -> int:
    """The highest step whose composition stays within epsilon."""
    lowest = _least_step(facts, mechanism)

    def spent(step: int) -> float:
        return _spent(facts, mechanism, delta, times, step)

    guess = max(lowest, _first_guess(mechanism, epsilon, delta, times))
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
    return _bisect(lambda j: spent(j) <= epsilon, low, high)


def _first_guess(mechanism: Mechanism, epsilon: float, delta: float, times: int) -> int:
    """The step of zero-concentrated privacy (Bun and Steinke 2016, proposition 1.3), or of basic composition."""
    if mechanism == "discrete-laplace":
        return math.floor(math.log(epsilon / times) / math.log(_STEP))
    tail = math.log(1.0 / delta)
    rho = (math.sqrt(epsilon + tail) - math.sqrt(tail)) ** 2
    return math.floor(math.log(math.sqrt(2.0 * rho / times)) / math.log(_STEP))


@lru_cache(maxsize=512)
def _spent(facts: tuple[_Facts, ...], mechanism: Mechanism, delta: float, times: int, step: int) -> float:
    return _noise(facts, mechanism, step).epsilon(times, delta)


def _bisect(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The largest number at which `holds` for a condition that holds at `low` and fails at `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _quantile(mechanism: Mechanism, holders: int, level: float) -> float:
    """Half-width of a central interval in standard deviations; for a sum of Laplace variables their exact law.

    A sum of h Laplace variables is sqrt(2 G) Z with G gamma distributed with shape h (Kotz et al. 2001, section 4.1).
    """
    from scipy import optimize, stats

    if not 0.0 < level < 1.0:
        raise UsageError(f"level: got {level:g}; want a number between 0 and 1")
    if mechanism == "discrete-gaussian":
        return float(stats.norm.ppf((1.0 + level) / 2.0))
    nodes, weights = np.polynomial.legendre.leggauss(400)
    spread = np.sqrt(stats.gamma.ppf((nodes + 1.0) / 2.0, holders) / holders)

    def excess(t: float) -> float:
        return float(weights / 2.0 @ (2.0 * stats.norm.cdf(t / spread) - 1.0)) - level

    return float(optimize.brentq(excess, 1e-6, 100.0))
