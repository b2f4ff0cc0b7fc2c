"""Keyed tags of units, and what a party that sees tags alone makes of them.

A tag is the first 16 bytes of HMAC-SHA256 (RFC 2104, FIPS 198-1) under a fresh 32-byte key that holders share and
nobody else has, of the length-prefixed parts of a unit's key. To whoever lacks the key, tags of different units are
independent uniform 128-bit strings (HMAC is a pseudorandom function: Bellare 2006), so that a dictionary of all
persons finds nothing in them, and tags of the units of padding, which *are* uniform, look the same. Two different units
among n share a tag with probability below n^2 / 2^129: 1.5e-25 for ten million. With the key, a party that has seen
tags can try a dictionary on them: the key has to stay with the holders, and ends with the run.
"""

import hashlib
import hmac
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from statfed.core.errors import Refused
from statfed.core.linkage import Units
from statfed.core.randomness import Stream

pc: Any = pyarrow.compute  # its functions are made when it is imported
KEY, SIZE = 32, 16
Places = NDArray[np.int64]
TAG = np.dtype([("high", "<u8"), ("low", "<u8")])
_BLOCK = 64
_ROWS = 1 << 16  # units whose texts are Python's at a time


def fresh() -> Stream:
    """Random numbers of the operating system's choice."""
    return Stream(os.urandom(16))


def permutation(stream: Stream, size: int) -> Places:
    """A uniformly random order of `size` places: that of 64-bit words, drawn again where two are the same."""
    while True:
        words = stream.words(size)
        order = np.argsort(words)
        words = words[order]
        if not (words[1:] == words[:-1]).any():
            return order.astype(np.int64, copy=False)


def tags(key: bytes, units: Units) -> tuple[NDArray[np.void], Places]:
    """Tags of the units that have a key, and their places; (n,) of `TAG` and (n,).

    Raises Refused where two units have the same key: a match would then not be one of units.
    """
    if len(key) != KEY:
        raise Refused(f"tags: got a key of {len(key)} bytes; want {KEY}")
    parts = [units.packed(name) for name in sorted(units.keys)]
    if not parts or any(len(part) != units.count for part in parts):
        raise Refused("keys: got parts of different lengths, or none; want one text a unit in each")
    there = np.ones(units.count, bool)
    for part in parts:
        there &= part.is_valid().to_numpy(zero_copy_only=False)
    places = np.flatnonzero(there)
    inner, outer = (hashlib.sha256(bytes(b ^ pad for b in key.ljust(_BLOCK, b"\0"))) for pad in (0x36, 0x5C))
    found, at = np.empty(len(places) * SIZE, np.uint8), 0
    for start in range(0, units.count, _ROWS):
        made = bytearray()
        for content in _contents([part.slice(start, _ROWS) for part in parts]):
            # HMAC with both padded keys hashed once: what hmac.digest gives, in half the time
            first, second = inner.copy(), outer.copy()
            first.update(content)
            second.update(first.digest())
            made += second.digest()[:SIZE]
        found[at : at + len(made)] = np.frombuffer(made, np.uint8)
        at += len(made)
    tags = found.view(TAG)
    high = np.sort(tags["high"])
    if (high[1:] == high[:-1]).any():
        ordered = tags[_order(tags)]
        if (ordered[1:] == ordered[:-1]).any():
            raise Refused("keys: got some that several units have; want a key of one unit each: leave the others out")
    return tags, places


def _contents(parts: Sequence[pa.LargeBinaryArray]) -> list[bytes]:
    """What is tagged of units that have all parts: each with its length in front."""
    colon = pa.scalar(b":", pa.large_binary())
    pieces: list[Any] = []
    for part in parts:
        pieces += [pc.binary_length(part).cast(pa.large_string()).cast(pa.large_binary()), colon, part]
    joined = pc.binary_join_element_wise(*pieces, pa.scalar(b"", pa.large_binary()), null_handling="emit_null")
    found: list[bytes] = joined.drop_null().to_pylist()
    return found


def tag_of(key: bytes, parts: Sequence[str]) -> bytes:
    """One unit's tag, the slow and obvious way."""
    content = b"".join(b"%d:" % len(part.encode()) + part.encode() for part in parts)
    return hmac.digest(key, content, "sha256")[:SIZE]


def padded(found: NDArray[np.void], cap: int, stream: Stream) -> NDArray[np.void]:
    """The tags and, after them, random ones up to `cap`. Raises Refused where there are more units than that."""
    if len(found) > cap:
        raise Refused("units: got more with a key than the agreed cap; want a larger cap")
    return np.concatenate([found, stream.words(2 * (cap - len(found))).view(TAG)])


def matched(lists: Sequence[NDArray[np.void]]) -> Places:
    """Places of the tags that all lists have: (matches, lists), in the order of the tags.

    Lists without repetition. Raises Refused where one repeats a tag.
    """
    orders, ordered = [], []
    for each in lists:
        orders.append(_order(each))
        ordered.append(each[orders[-1]])
        if (ordered[-1][1:] == ordered[-1][:-1]).any():
            raise Refused("tags: got one twice from a holder; want each once")
    common = ordered[0]
    for each in ordered[1:]:
        common = common[_place(each, common) >= 0]
    found = np.empty((len(common), len(ordered)), np.int64)
    for i, (each, order) in enumerate(zip(ordered, orders, strict=True)):
        found[:, i] = order[_place(each, common)]
    return found


def _order(found: NDArray[np.void]) -> Places:
    """Places in order of the high half, then of the low one."""
    order = np.argsort(found["high"])
    high = found["high"][order]
    if (high[1:] == high[:-1]).any():
        order = np.lexsort((found["low"], found["high"]))
    return order.astype(np.int64, copy=False)


def _place(ordered: NDArray[np.void], wanted: NDArray[np.void]) -> Places:
    """Place of each of `wanted` in a list in order of the high half, -1 where it is not there."""
    high = np.ascontiguousarray(ordered["high"])
    parts = [_placed(ordered, high, wanted[at : at + _ROWS]) for at in range(0, len(wanted), _ROWS)]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _placed(ordered: NDArray[np.void], high: NDArray[np.uint64], wanted: NDArray[np.void]) -> Places:
    at = np.searchsorted(high, wanted["high"])
    place = np.full(len(wanted), -1, np.int64)
    open_ = np.arange(len(wanted))
    while len(open_):  # more than once only where tags share their high half
        open_ = open_[at[open_] < len(ordered)]
        here = ordered[at[open_]]
        same = here["high"] == wanted["high"][open_]
        hit = same & (here["low"] == wanted["low"][open_])
        place[open_[hit]] = at[open_[hit]]
        open_ = open_[same & ~hit]
        at[open_] += 1
    return place


def aligned(found: Places, cap: int, stream: Stream) -> tuple[Places, NDArray[np.bool_]]:
    """All places of every list in rows: (lists, cap), and which rows are matches.

    Matches stand in random rows, each with its places; the other rows have what is left of every list in random order,
    so that each list's rows are a permutation of all places.
    """
    order = permutation(stream, cap)
    rows = np.empty((found.shape[1], cap), np.int64)
    for i, own in enumerate(rows):
        own[order[: len(found)]] = found[:, i]
        rest = np.ones(cap, bool)
        rest[found[:, i]] = False
        left = np.flatnonzero(rest)
        own[order[len(found) :]] = left[permutation(stream, len(left))]
    is_match = np.zeros(cap, bool)
    is_match[order[: len(found)]] = True
    return rows, is_match
