"""Secret sharing for `multi-party`: additive shares for sums, Shamir shares for functions.

*Sums.* A vector of words x modulo 2^bits becomes two seeds and the rest: share 1 and share 2 are AES-128-CTR
keystreams of fresh 16-byte keys, share 3 is x - share 1 - share 2. Any two shares are computationally independent of x
(each pair lacks a keystream that masks every word), and only one of three has the length of the vector. Shares of
several holders add up to shares of their sum.

*Functions.* Multiplying needs Shamir's sharing (1979): node i = 1, 2, 3 gets f(i) of a random line f with f(0) = x,
over the prime field of `PRIME`. One share is uniform whatever x is. Three shares lie on a line, so a node that
deviates by itself is noticed when a result is put together.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError
from statfed.core.fixed_point import Bits
from statfed.core.randomness import Stream

NODES = 3
SEED = 16
PRIME = 2**127 - 1  # a Mersenne prime; 3 modulo 4, so that square roots are one power
_ELEMENT = 16
_LOW = (1 << 64) - 1
_BLOCK = 3 * 2**14  # words drawn together

Words = NDArray[Any]
"""(n,) uint32 or uint64, or (n, 3) uint64 with the lowest limb first for 192 bits."""


def words(values: NDArray[Any], bits: Bits) -> Words:
    """Whole numbers of `Layout.encode` modulo 2^bits."""
    if bits == 192:
        limbs = [[(x >> shift) & _LOW for x in map(int, values.tolist())] for shift in (0, 64, 128)]
        return np.array(limbs, np.uint64).reshape(3, len(values)).T
    return values.astype(np.int64, copy=False).view(np.uint64).astype(_kind(bits), copy=False)


def whole(total: Words, bits: Bits) -> NDArray[Any]:
    """The whole numbers in [-2^(bits - 1), 2^(bits - 1)) of words: int64, or Python integers for 192 bits."""
    if bits == 192:
        low, middle, high = (column.tolist() for column in total.T)
        top = 1 << 191
        joined = [a | b << 64 | c << 128 for a, b, c in zip(low, middle, high, strict=True)]
        return np.array([(x ^ top) - top for x in joined] or [], object)
    return total.view(np.int32 if bits == 32 else np.int64).astype(np.int64, copy=False)


def add(total: Words, other: Words, bits: Bits) -> None:
    """Add `other` to `total` in place, modulo 2^bits."""
    if bits == 192:
        _carry(total, other)
    else:
        total += other


def split(values: NDArray[Any], bits: Bits) -> tuple[bytes, bytes, Words]:
    """Three additive shares: two seeds for `expand`, and words. values: private."""
    seeds = os.urandom(SEED), os.urandom(SEED)
    rest = words(values, bits)
    rest = np.ascontiguousarray(~rest)  # -x - 1: the seeds are added, and the complement of the sum is the rest
    for seed in seeds:
        expand(rest, seed, bits)
    return *seeds, np.invert(rest, out=rest)


def expand(total: Words, seed: bytes, bits: Bits) -> None:
    """Add the share that a seed stands for to `total` in place, a cache-sized block at a time."""
    stream, flat = Stream(seed), total.reshape(-1)
    per_word = 2 if bits == 32 else 1
    for start in range(0, len(flat), _BLOCK):
        part = flat[start : start + _BLOCK]
        drawn = stream.words((len(part) + per_word - 1) // per_word).view(part.dtype)[: len(part)]
        add(part.reshape(-1, 3) if bits == 192 else part, drawn.reshape(-1, 3) if bits == 192 else drawn, bits)


def zeros(entries: int, bits: Bits) -> Words:
    """Nothing, to add to."""
    return np.zeros((entries, 3) if bits == 192 else entries, _kind(bits))


def from_bytes(data: bytes | NDArray[Any], entries: int, bits: Bits) -> Words:
    """Words from the wire. Raises EngineError on another length."""
    found = np.frombuffer(data, _kind(bits))
    if len(found) != entries * (3 if bits == 192 else 1):
        raise EngineError(f"share: got {len(found)} words; want {entries} of {bits} bits")
    return found.reshape(entries, 3) if bits == 192 else found


def shamir(values: NDArray[Any]) -> list[list[int]]:
    """Shamir shares of whole numbers in (-PRIME / 2, PRIME / 2), one list a node. values: private."""
    slopes = elements(len(values))
    found = [int(x) for x in values.tolist()]
    return [[(x + i * c) % PRIME for x, c in zip(found, slopes, strict=True)] for i in range(1, NODES + 1)]


def reconstructed(shares: Sequence[Sequence[int]]) -> NDArray[Any]:
    """The whole numbers that three nodes' Shamir shares stand for, (n,) Python integers.

    Raises EngineError where the shares do not lie on a line: a node did not send what the protocol asks for.
    """
    one, two, three = shares
    if any((a - 2 * b + c) % PRIME for a, b, c in zip(one, two, three, strict=True)):
        raise EngineError("result: the three nodes' shares do not fit together; a node deviated from the protocol")
    half = PRIME // 2
    found = ((2 * a - b) % PRIME for a, b in zip(one, two, strict=True))
    return np.array([x - PRIME if x > half else x for x in found], object)


def elements(count: int) -> list[int]:
    """`count` uniform field elements from the operating system."""
    found: list[int] = []
    while len(found) < count:
        drawn = unpacked(os.urandom(_ELEMENT * (count - len(found))), raw=True)
        found += [x for x in (y & PRIME for y in drawn) if x < PRIME]
    return found


def packed(shares: Sequence[int]) -> bytes:
    """Field elements as bytes, 16 each."""
    return b"".join(x.to_bytes(_ELEMENT, "little") for x in shares)


def unpacked(data: bytes, *, raw: bool = False) -> list[int]:
    """Field elements from bytes. Raises EngineError on what is not a sequence of them."""
    found = [int.from_bytes(data[i : i + _ELEMENT], "little") for i in range(0, len(data), _ELEMENT)]
    if len(data) % _ELEMENT or not (raw or all(x < PRIME for x in found)):
        raise EngineError("share: got bytes that are not field elements")
    return found


def _kind(bits: Bits) -> type[np.uint32] | type[np.uint64]:
    return np.uint32 if bits == 32 else np.uint64


def _carry(total: Words, other: Words) -> None:
    """Add three-limb words in place, modulo 2^192."""
    total += other
    over = total < other
    for limb in (1, 2):
        carry = over[:, limb - 1].astype(np.uint64)
        total[:, limb] += carry
        over[:, limb] |= total[:, limb] < carry
