"""Grids of noise: the unit in which each entry is counted, its sensitivity in units, and the scale of its noise."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Part
from statfed.core.privacy import discrete
from statfed.core.terms import Placement, Privacy

Mechanism = Literal["discrete-gaussian", "discrete-laplace"]
LEAST_SPREAD = 16.0
"""Least sigma of a share of Gaussian noise on numbers that change together: see `DiscreteGaussians`."""
LEAST_SHARE = 3.0
"""Least sigma of a share of the noise, in grid units: a sum of shares is then the charged noise, to 2^-120 a share."""
_LARGEST_WHOLE = 2.0**44  # the largest noise at that bound still fits into 64 bits


@dataclass(frozen=True)
class Kind:
    """How noise is made. shares: how many equal shares make up what is charged, 1 unless `noise` is shared."""

    mechanism: Mechanism
    noise: Placement
    shares: int = 1

    @property
    def laplace(self) -> bool:
        return self.mechanism == "discrete-laplace"


@dataclass(frozen=True)
class Facts:
    """What a plan depends on. bounds: per entry, of one unit (k records in one entry), 0 for entries without noise."""

    name: str
    shape: tuple[int, ...]
    bounds: tuple[float, ...]
    integer: bool
    single: bool
    divided: bool
    share: float
    records: int

    @property
    def touched(self) -> int:
        """How many entries a record can change."""
        return sum(1 for bound in self.bounds if bound > 0.0)

    def joint(self, kind: Kind) -> bool:
        """Is what a unit does to all entries together charged as one change?"""
        return self.divided or (self.single and kind.laplace)


@dataclass(frozen=True)
class Grid:
    """Noise of one part. unit: (entries,) value of one grid unit; scale: (entries,) of one draw, in units, 0 for none.

    Units of whole numbers are whole, or 2^-j where shares of the noise would be too narrow on a coarser grid.
    changes: (sensitivity in units, scale that is charged, number of entries) that one privacy unit may change together.
    joint: of what changes all entries together, (L1 norm for Laplace noise, L2 norm for Gaussian noise, scale that is
    charged, number of entries) instead; `changes` is empty then.
    """

    facts: Facts
    unit: NDArray[np.float64]
    scale: NDArray[np.float64]
    changes: tuple[tuple[int, float, int], ...]
    joint: tuple[float, float, int] | None = None

    @property
    def coarse(self) -> NDArray[np.int64]:
        """How many whole numbers make a unit: (entries,), 1 where units are finer."""
        return np.maximum(self.unit, 1.0).astype(np.int64)

    @property
    def fine(self) -> NDArray[np.int64]:
        """How many units make a whole number: (entries,), 1 where units are coarser."""
        return np.maximum(1.0 / self.unit, 1.0).astype(np.int64)


def facts_of(parts: Mapping[str, Part], privacy: Privacy) -> tuple[Facts, ...]:
    """What the noise of `parts` depends on. Raises UsageError naming the part that cannot get any."""
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
        if part.divided and part.integer:
            raise UsageError(f"{name}: got whole numbers that a record is divided over; want them single, or sums")
        if part.single and part.integer and entries:
            bound = np.where(bound > 0.0, bound.max(), 0.0)
        bounds = tuple(map(float, bound * records))
        single, divided = part.single and not part.divided, part.divided
        found.append(Facts(name, part.shape, bounds, part.integer, single, divided, float(part.share), records))
    if not any(b > 0.0 for facts in found for b in facts.bounds):
        raise UsageError("privacy: got no entry that a record can change; want at least one")
    return tuple(found)


def multiplier_of(facts: Facts, kind: Kind, shares: float, factor: float) -> float:
    """Scale of the noise over the sensitivity of an entry, or of all together. shares: of the budget, all parts."""
    touched, share = facts.touched, facts.share / shares
    if not touched:
        return 1.0
    k = facts.records
    if facts.joint(kind):
        relative = [1.0]
    elif facts.single:
        relative = [(k // j) / k for j in range(1, min(k, touched) + 1)]
    else:
        relative = [1.0] * touched
    if kind.laplace:
        return math.fsum(relative) / share * factor
    return math.sqrt(math.fsum(r * r for r in relative) / share) * factor


def _resolution(facts: Facts, multiplier: float, kind: Kind) -> int:
    """N, a power of 2: as fine as 512 (finer where many entries count as touched, and where the noise is shared by
    many) while tables stay small, and so coarse that few records are too many for plain summation."""
    entries = facts.touched if (facts.single or facts.divided) and not facts.integer else 1
    bits = math.ceil(math.log2(max(entries, 1)))
    wanted = max(9, min(14, 5 + bits) if kind.laplace else 3 + (bits + 1) // 2)
    root = math.sqrt(kind.shares)
    if kind.shares > 1 and not kind.laplace:
        wanted = max(wanted, math.ceil(math.log2(2.0 * LEAST_SHARE * root / multiplier)))
    if facts.divided and not kind.laplace:
        wanted = max(wanted, math.ceil(math.log2(1.1 * LEAST_SPREAD * root / multiplier)))
    largest = discrete.LARGEST_SHARED if kind.laplace and kind.shares > 1 else discrete.LARGEST
    return 1 << max(3, min(wanted, math.floor(math.log2(largest / 2 / multiplier))))


def grid_of(facts: Facts, multiplier: float, kind: Kind) -> Grid:
    """The grid of a part at this noise; `kind.shares` of the draws make up what is charged.

    Shares of Gaussian noise are Gaussian noise of that much less; those of Laplace noise have its scale.
    """
    bound, root = np.array(facts.bounds), 1.0 if kind.laplace else math.sqrt(kind.shares)
    free = bound <= 0.0
    n = _resolution(facts, multiplier, kind)
    if facts.integer:
        unit = np.maximum(1.0, np.ceil(bound / n))
        if kind.shares > 1 and not kind.laplace:
            short = LEAST_SHARE * root / (multiplier * np.where(free, 1.0, bound))
            finer = 2.0 ** np.maximum(0.0, np.ceil(np.log2(short)))
            unit = np.where((unit == 1.0) & ~free, 1.0 / finer, unit)
        size = np.where(unit <= 1.0, bound / unit, np.ceil(bound / unit) + 1.0).astype(np.int64)
    else:
        unit = np.where(free, 1.0, bound / n)
        size = np.full(len(bound), n + 1, np.int64)
    if facts.joint(kind) and facts.touched:
        most = _together(facts, n, unit, kind)
        draw = _rounded(multiplier * most / root)
        return Grid(facts, unit, np.where(free, 0.0, draw), (), (most, draw * root, facts.touched))
    draws = {int(s): _rounded(multiplier * int(s) / root) for s in np.unique(size[~free])}
    scale = np.array([0.0 if f else draws[int(s)] for f, s in zip(free, size, strict=True)])
    charged = {s: draw * root for s, draw in draws.items()}
    counts: Counter[tuple[int, float]] = Counter()
    for change, at in _changes(facts, n, unit, size, ~free):
        counts[change, charged[at]] += 1
    untouched = int((~free).sum()) - sum(counts.values())
    if untouched and not facts.integer:
        counts[1, charged[n + 1]] += untouched
    changes = tuple((change, of, count) for (change, of), count in sorted(counts.items()))
    return Grid(facts, unit, scale, changes)


def _together(facts: Facts, n: int, unit: NDArray[np.float64], kind: Kind) -> float:
    """Most that a unit changes all entries together, in units: in L1 norm for Laplace noise, else in L2 norm."""
    if not kind.laplace:
        return n + math.sqrt(facts.touched) + 1.0
    if not facts.integer:
        return float(n + facts.touched)
    grid, most = float(unit[np.array(facts.bounds) > 0.0][0]), max(facts.bounds)
    rounded = min(facts.records, facts.touched) if grid > 1.0 else 0
    return math.ceil(most / grid) + float(rounded)


def _changes(
    facts: Facts, n: int, unit: NDArray[np.float64], size: NDArray[np.int64], touched: NDArray[np.bool_]
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
            yield int(most / grid) if grid <= 1.0 else min(own, math.ceil(most / grid) + 1), own


def _rounded(scale: float) -> float:
    return float(f"{scale:.6g}")
