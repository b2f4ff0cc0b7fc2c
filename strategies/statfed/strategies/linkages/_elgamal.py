"""Sums of whole numbers under ElGamal encryption in the exponent, on ristretto255.

A number v of a column is written in digits of 16 bits, v = d_0 + 2^16 d_1 + ..., the last of them signed. With secret
keys s_1 ... s_k, one for each digit of each column, and one random r an item, its ciphertext is k + 1 points: r G and
(r s_i + d_i) G for each digit. Ciphertexts add up point by point. Whoever has the keys takes s_i times the first point
off, and finds the sum of a digit, at most 2^16 times the number of items, as a logarithm by baby steps and giant steps
(Shanks 1971).

*Secure* under the decisional Diffie-Hellman assumption: ElGamal for recipients with keys of their own may share r
(Kurosawa 2002; Bellare, Boldyreva and Staddon 2003). *A sum tells the key holder the sum alone*: it knows every r, so
a fresh encryption of zero under the public keys is added (`Sums.finished`), which makes the points those of a fresh
encryption of the sum, whatever was added up.

Cost, for k digits in all columns: k + 1 products with the generator an item at the key holder (12 microseconds each),
k + 1 checks (4) and additions (11) an item at the other, 32 (k + 1) bytes an item; in the end 2^8 sqrt(items) additions
for the baby steps and as many for each digit. Paillier's scheme (Ion et al. 2020) has one ciphertext a column and no
logarithm, but costs milliseconds and 512 bytes an item. Lattice schemes pack thousands of values, but their noise tells
the key holder which ones were added up unless it is flooded, which no maintained library here offers.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.strategies.linkages import _ristretto as group
from statfed.strategies.linkages._ecdh_plan import Column
from statfed.strategies.linkages._ristretto import ORDER, SIZE, Points

BITS = 16
"""Of a digit."""


@dataclass(frozen=True)
class Digits:
    """How values of columns are written: bounds of every digit, public, (low, high) by column and digit."""

    columns: tuple[Column, ...]

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        return tuple(bound for column in self.columns for bound in _bounds(*column.units))

    @property
    def count(self) -> int:
        """Digits of all columns together."""
        return len(self.bounds)

    def written(self, values: Sequence[NDArray[np.float64]]) -> NDArray[np.int64]:
        """(n, digits) of columns (n,) each, within their bounds. Raises Refused where values have more decimals."""
        found = []
        for column, value in zip(self.columns, values, strict=True):
            scaled = value * 10.0**column.decimals
            rest = np.rint(scaled).astype(np.int64)
            if (np.abs(scaled - rest) > 1e-6 + 1e-9 * np.abs(scaled)).any():
                raise Refused(f"totals: got values of more than {column.decimals} decimals; want them as agreed")
            count = len(_bounds(*column.units))
            found += [(rest >> BITS * i) & (2**BITS - 1) for i in range(count - 1)]
            found.append(rest >> BITS * (count - 1))
        return np.stack(found, axis=1)

    def read(self, sums: Sequence[int]) -> list[float]:
        """Totals of the columns from the sums of the digits: exact below 2^53 units, else rounded once."""
        found, at = [], 0
        for column in self.columns:
            count = len(_bounds(*column.units))
            whole = sum(one << BITS * i for i, one in enumerate(sums[at : at + count]))
            scale = 10 ** abs(column.decimals)
            found.append(whole / scale if column.decimals >= 0 else float(whole * scale))
            at += count
        return found


def _bounds(low: int, high: int) -> list[tuple[int, int]]:
    """Bounds of the digits of whole numbers in [low, high]."""
    count = 1
    while high >> BITS * (count - 1) >= 2**BITS or low >> BITS * (count - 1) < -(2**BITS):
        count += 1
    top = BITS * (count - 1)
    return [(0, 2**BITS - 1)] * (count - 1) + [(low >> top, high >> top)]


@dataclass(frozen=True)
class Key:
    """Secret keys, one a digit."""

    scalars: tuple[bytes, ...] = field(repr=False)

    @classmethod
    def fresh(cls, digits: int) -> "Key":
        return cls(tuple(group.fresh_scalar() for _ in range(digits)))

    @property
    def public(self) -> Points:
        """The public keys, (digits, 32)."""
        base = group.library().crypto_scalarmult_ristretto255_base
        return group.points_of(b"".join(base(scalar) for scalar in self.scalars))

    def encrypted(self, digits: NDArray[np.int64]) -> Points:
        """Ciphertexts of (n, digits), private: (n * (digits + 1), 32), those of an item after each other."""
        base = group.library().crypto_scalarmult_ristretto255_base
        secrets = [int.from_bytes(scalar, "little") for scalar in self.scalars]

        def work(part: NDArray[np.int64]) -> list[bytes]:
            found = []
            for numbers in part.tolist():
                r = int.from_bytes(os.urandom(2 * SIZE), "little") % ORDER
                found.append(base(r.to_bytes(SIZE, "little")))
                for secret, number in zip(secrets, numbers, strict=True):
                    found.append(base(((r * secret + number) % ORDER).to_bytes(SIZE, "little")))
            return found

        return group.spread(work, digits)

    def decrypted(self, sums: Points, bounds: Sequence[tuple[int, int]], items: int, sender: str) -> list[int]:
        """The sums of at most `items` numbers each, within `bounds`, from a ciphertext that `sender` has added up.

        Raises Refused, naming the sender, where a point is none of the group or a sum is out of range.
        """
        lib = group.library()
        group.checked(sums, sender)
        shared = sums[0].tobytes()
        ranges = [(min(0, low * items), max(0, high * items)) for low, high in bounds]  # of none to all of the items
        steps = _Steps(max(high - low for low, high in ranges) + 1)
        found = []
        for scalar, (low, high), point in zip(self.scalars, ranges, sums[1:], strict=True):
            mask = lib.crypto_scalarmult_ristretto255(scalar, shared)
            bare = lib.crypto_core_ristretto255_sub(point.tobytes(), mask)
            value = steps.logarithm(bare, low, high)
            if value is None:
                raise Refused(f"totals: got a sum of {sender} that is out of range; want one of the values sent")
            found.append(value)
        return found


class _Steps:
    """Baby steps for logarithms in ranges of up to `most` numbers."""

    def __init__(self, most: int) -> None:
        self._lib = group.library()
        self._count = math.isqrt(most) + 1
        generator = _times(1)
        self._index, point = {}, bytes(SIZE)
        for step in range(self._count):
            self._index[point] = step
            point = self._lib.crypto_core_ristretto255_add(point, generator)
        self._giant = point

    def logarithm(self, point: bytes, low: int, high: int) -> int | None:
        """v in [low, high] with v G = point; None where there is none. It takes as long whatever v is."""
        point, found = self._lib.crypto_core_ristretto255_sub(point, _times(low)), None
        for start in range(low, high + 1, self._count):
            step = self._index.get(point)
            if step is not None and start + step <= high:
                found = start + step
            point = self._lib.crypto_core_ristretto255_sub(point, self._giant)
        return found


def _times(number: int) -> bytes:
    """A whole number times the generator; 32 zero bytes, the identity, for 0."""
    base = group.library().crypto_scalarmult_ristretto255_base
    found: bytes = base((number % ORDER).to_bytes(SIZE, "little")) if number else bytes(SIZE)
    return found


class Sums:
    """Ciphertexts added up by somebody who has the public keys, (digits, 32), from `sender`."""

    def __init__(self, public: Points, sender: str) -> None:
        self._public, self._sender = group.checked(public, sender), sender
        self._sums = [[bytes(SIZE), bytes(SIZE)] for _ in range(len(public) + 1)]  # of the others, of the chosen

    def add(self, ciphertexts: Points, chosen: NDArray[np.bool_]) -> None:
        """Add the chosen items. The others are added up beside them, so that the work does not tell how many there are.

        Raises Refused, naming the sender, where any point is none of the group: of the others too, or a refusal would
        tell which were chosen.
        """
        items = group.checked(ciphertexts, self._sender).reshape(len(chosen), len(self._sums), SIZE)
        plus, which = group.library().crypto_core_ristretto255_add, chosen.tolist()
        for at, sums in enumerate(self._sums):
            data = items[:, at].tobytes()
            for number, one in enumerate(which):
                sums[one] = plus(sums[one], data[number * SIZE : (number + 1) * SIZE])

    def finished(self) -> Points:
        """A fresh encryption of the sum, (digits + 1, 32)."""
        lib = group.library()
        r = group.fresh_scalar()
        zero = [lib.crypto_scalarmult_ristretto255_base(r)]
        zero += [lib.crypto_scalarmult_ristretto255(r, key.tobytes()) for key in self._public]
        both = zip(self._sums, zero, strict=True)
        return group.points_of(b"".join(lib.crypto_core_ristretto255_add(sums[1], other) for sums, other in both))
