"""How a vector of whole numbers becomes planes that are added under encryption, and back.

`Residues` (BFV) is exact. A layout's totals lie in [-2^(bits - 2), 2^(bits - 2)]; the product of bits / 32 primes just
below 2^32 exceeds 2^(bits - 1), so the residues of a total fix it (Chinese remainder theorem). Residues of a total are
functions of the total alone; limbs would tell the carries as well. A sum of residues modulo a prime is masked perfectly
by a uniform number modulo the same prime.

`Coarse` (CKKS) is one plane of whole numbers whose totals are at most 2^36: entries of 64-bit layouts lose their last
26 bits, rounded at the holder, so a total over n holders is off by at most n / 2 steps of 2^-36 of the range. Whole
numbers are not rounded.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.fixed_point import Layout
from statfed.core.randomness import Stream
from statfed.strategies.protections._he_planes import CKKS_BITS, Plane

PRIMES = (4294828033, 4294729729, 4294483969, 4294475777, 4294451201, 4294008833)
"""The largest primes below 2^32 that are 1 modulo 8192, as batching at N = 4096 needs."""
CHECKS = 2
"""Sums that travel beside the entries so that the coordinator can tell whether the key holder changed them."""
PLANES = (1, 2, 6)
"""How many planes layouts of 32, 64 and 192 bits take."""


@dataclass(frozen=True)
class Residues:
    """Totals of `bits` bits by their residues modulo bits / 32 primes."""

    bits: int

    @cached_property
    def primes(self) -> tuple[int, ...]:
        return PRIMES[: self.bits // 32]

    @property
    def planes(self) -> tuple[Plane, ...]:
        return tuple(Plane("bfv", prime) for prime in self.primes)

    def split(self, vector: NDArray[Any]) -> NDArray[np.uint64]:
        """(primes, entries) from (entries,) whole numbers."""
        if vector.dtype == object:
            numbers = vector.tolist()
            found = [np.array([x % prime for x in numbers], np.uint64) for prime in self.primes]
        else:
            found = [np.mod(vector, prime).astype(np.uint64) for prime in self.primes]
        return np.stack(found)

    def masks(self, stream: Stream, entries: int) -> NDArray[np.uint64]:
        """(primes, entries) numbers of a stream, uniform modulo each prime: 32-bit words, those too large redrawn."""
        found = []
        for prime in self.primes:
            words = _words(stream, entries)
            while (again := np.flatnonzero(words >= prime)).size:
                words[again] = _words(stream, again.size)
            found.append(words)
        return np.stack(found)

    def checks(self, planes: NDArray[np.uint64], seed: bytes) -> NDArray[np.uint64]:
        """(primes, CHECKS) sums over the entries of `planes`, each entry times a number that follows from `seed`.

        Linear: the checks of a sum are the sum of the checks. Whoever changes the planes and does not know the seed
        keeps them with a chance of 1 in prime^CHECKS, each prime by itself (Freivalds 1977).
        """
        stream, moduli = Stream(seed), np.array(self.primes, np.uint64)[:, None]
        found = []
        for _ in range(CHECKS):
            products = planes * self.masks(stream, planes.shape[1]) % moduli
            found.append(products.sum(axis=1, dtype=np.uint64) % moduli[:, 0])
        return np.stack(found, axis=1)

    def plus(self, *terms: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Sum modulo the primes of (primes, entries) each, entries below 2^32."""
        moduli = np.array(self.primes, np.uint64)[:, None]
        total = np.zeros_like(terms[0])
        for term in terms:
            total = (total + term) % moduli
        return total

    def minus(self, one: NDArray[np.uint64], *others: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Difference modulo the primes."""
        moduli = np.array(self.primes, np.uint64)[:, None]
        return self.plus(one, moduli - self.plus(*others)) if others else one

    def join(self, planes: NDArray[np.uint64]) -> NDArray[Any]:
        """(entries,) signed whole numbers from (primes, entries) residues: int64, Python integers when wide.

        Mixed-radix digits (Garner 1959), each below 2^32, so that 64-bit words do for everything but the last step.
        """
        digits: list[NDArray[np.uint64]] = []
        for plane, prime in zip(planes, self.primes, strict=True):
            rest = plane % prime
            for digit, earlier in zip(digits, self.primes, strict=False):
                rest = (rest + (prime - digit % prime)) % prime * pow(earlier, -1, prime) % prime
            digits.append(rest)
        product = math.prod(self.primes)
        if self.bits == 192:
            weights = [math.prod(self.primes[:i]) for i in range(len(digits))]
            columns = zip(*(digit.tolist() for digit in digits), strict=True)
            totals = [sum(d * w for d, w in zip(column, weights, strict=True)) for column in columns]
            signed = np.empty(len(totals), object)
            signed[:] = [total - product if total > product // 2 else total for total in totals]
            return signed
        total = digits[0] if self.bits == 32 else digits[0] + digits[1] * np.uint64(self.primes[0])
        return np.where(total > product // 2, total - np.uint64(product), total).view(np.int64)


@dataclass(frozen=True)
class Coarse:
    """One plane of whole numbers without their last bits. shift: (entries,) how many bits an entry loses."""

    shift: NDArray[np.int64]

    @property
    def planes(self) -> tuple[Plane, ...]:
        return (Plane("ckks"),)

    def split(self, vector: NDArray[Any]) -> NDArray[np.int64]:
        """(1, entries): rounded to the nearest step, halves up."""
        half = np.where(self.shift > 0, np.int64(1) << np.maximum(self.shift - 1, 0), 0)
        rounded: NDArray[np.int64] = np.right_shift(vector + half, self.shift)
        return rounded[None, :]

    def join(self, planes: NDArray[np.int64]) -> NDArray[np.int64]:
        """(entries,) from (1, entries)."""
        found: NDArray[np.int64] = np.left_shift(planes[0], self.shift)
        return found


def resolution(layout: Layout, holders: int) -> dict[str, NDArray[np.float64]]:
    """What entries of a total over so many holders may be off by under CKKS, by slot: the steps that are left."""
    lost = 2.0 ** max(0, layout.bits - 2 - CKKS_BITS)
    return {name: lost * off for name, off in layout.resolution(holders).items()}


def coarse(layout: Layout) -> Coarse:
    """How a layout travels under CKKS. Raises UsageError where rounding is not acceptable or has no bounds."""
    if layout.bits == 192:
        raise UsageError(
            "scheme ckks: got a sum with entries that have no bound, or so wide ones that its steps are too coarse; "
            "want bfv"
        )
    if all(slot.integer for slot in layout.slots.values()):
        raise UsageError("scheme ckks: got a sum of whole numbers, which has to be exact; want bfv")
    lost, shifts = max(0, layout.bits - 2 - CKKS_BITS), []
    for name, slot in sorted(layout.slots.items()):
        if slot.integer and float(np.max(slot.limit, initial=0.0)) > 2.0**CKKS_BITS:
            raise UsageError(f"scheme ckks: {name}: got whole numbers beyond 2^{CKKS_BITS}; want bfv")
        shifts.append(np.full(math.prod(slot.shape), 0 if slot.integer else lost, np.int64))
    return Coarse(np.concatenate(shifts))


def _words(stream: Stream, count: int) -> NDArray[np.uint64]:
    """(count,) uniform 32-bit words."""
    return stream.words(-(-count // 2)).view(np.uint32)[:count].astype(np.uint64)
