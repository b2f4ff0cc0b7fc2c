"""The group ristretto255 (RFC 9496) by libsodium: keys hashed to points, points multiplied, points looked up.

A batch of n points is an array (n, 32) of uint8, each row one canonical encoding. The group has prime order: there are
no points of small order, and an encoding that is canonical is in the group. libsodium decodes before it multiplies and
refuses an encoding that is none, and a product that is the identity, which only the identity has (scalars are not
zero): so `multiplied` checks every point that it is given. The topmost bit is looked at here: libsodium ignores it, as
of curve25519, and a point would have two encodings. libsodium is called without Python's global
lock: batches are spread over the processor's cores.

Scalars that blind are drawn by libsodium and used by its code of constant time; in Python nothing depends on them.
"""

import hashlib
import importlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError

Points = NDArray[np.uint8]
SIZE = 32
"""Bytes of a point, and of a scalar."""
ORDER = 2**252 + 27742317777372353535851937790883648493
_ROW = np.dtype(f"V{SIZE}")
_LEAST_SPREAD = 256
"""Points that are worth a thread of their own."""


def library() -> Any:
    """The library. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module("rbcl")
    except ImportError:
        raise UsageError("ecdh needs rbcl: pip install 'statfed[link]'") from None


def fresh_scalar() -> bytes:
    """A uniform scalar that is not zero. Secret."""
    scalar: bytes = library().crypto_core_ristretto255_scalar_random()
    return scalar


def hashed(context: bytes, keys: Sequence[str | bytes | None]) -> Points:
    """Points of keys (private): SHA-512 of `context` (32 bytes) and the key with its length, mapped to the group as RFC
    9496, section 4.3.4 has it. Missing ones (None) become random points, that nobody knows the key of."""
    start = hashlib.sha512(context)

    def digest(key: str | bytes | None) -> bytes:
        if key is None:
            return os.urandom(64)
        text, one = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass"), start.copy()
        one.update(len(text).to_bytes(8, "big") + text)
        return one.digest()

    to_group = library().crypto_core_ristretto255_from_hash
    return spread(lambda part: [to_group(digest(key)) for key in part], keys)


def multiplied(scalar: bytes, points: Points, sender: str) -> Points:
    """Every point times a secret scalar, in the same order. points: (n, 32), as they came from `sender`.

    Raises Refused, naming the sender, where one is not the canonical encoding of a point, or is the identity.
    """
    multiply = library().crypto_scalarmult_ristretto255
    if not _below(points):
        raise Refused(_ASTRAY.format(sender))

    def times(part: Points) -> list[bytes]:
        data = part.tobytes()
        return [multiply(scalar, data[at : at + SIZE]) for at in range(0, len(data), SIZE)]

    try:
        return spread(times, points)
    except RuntimeError:
        raise Refused(_ASTRAY.format(sender)) from None


def checked(points: Points, sender: str) -> Points:
    """Points as they are. Raises Refused, naming the sender, where one is no point or the identity."""
    valid = library().crypto_core_ristretto255_is_valid_point
    data = points.tobytes()
    if not (_below(points) and points.any(axis=1).all()) or not all(
        valid(data[at : at + SIZE]) for at in range(0, len(data), SIZE)
    ):
        raise Refused(_ASTRAY.format(sender))
    return points


def _below(points: Points) -> bool:
    """Is the topmost bit of every encoding 0?"""
    return bool((points[:, SIZE - 1] < 0x80).all())


_ASTRAY = (
    "points: got one from {} that is not canonical, not in ristretto255, or the identity; want points of the group"
)


def points_of(data: bytes) -> Points:
    """The points in bytes whose length is a multiple of 32."""
    return np.frombuffer(data, np.uint8).reshape(-1, SIZE)


def rows(points: Points) -> NDArray[np.void]:
    """Points as an array (n,) that can be sorted, compared and looked up: by their bytes."""
    return np.ascontiguousarray(points).view(_ROW).reshape(-1)


def sort(points: Points) -> None:
    """Sort points in place."""
    rows(points).sort()


def ascending(points: Points) -> bool:
    """Are they sorted, and each there once?"""
    one, two = points[:-1].view(">u8").reshape(-1, 4), points[1:].view(">u8").reshape(-1, 4)
    less, equal = np.zeros(len(one), bool), np.ones(len(one), bool)
    for word in range(4):
        less |= equal & (one[:, word] < two[:, word])
        equal &= one[:, word] == two[:, word]
    return bool(less.all())


def found(points: Points, among: Points) -> NDArray[np.int64]:
    """Where each point is in `among`, which is ascending: its index, -1 where it is not there. (n,)."""
    if not len(among):
        return np.full(len(points), -1)
    sought, known = rows(points), rows(among)
    at = np.minimum(np.searchsorted(known, sought), len(known) - 1)
    return np.where(known[at] == sought, at, -1)


def spread(work: Callable[[Any], list[bytes]], items: Any) -> Points:
    """`work` on parts of `items`, side by side, put together again."""
    threads = max(1, min(os.cpu_count() or 1, len(items) // _LEAST_SPREAD))
    size = -(-len(items) // threads)
    parts = [items[at : at + size] for at in range(0, len(items), size)] if len(items) else []
    if len(parts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            done = list(pool.map(work, parts))
    else:
        done = [work(part) for part in parts]
    return np.frombuffer(bytearray(b"".join(b"".join(part) for part in done)), np.uint8).reshape(-1, SIZE)
