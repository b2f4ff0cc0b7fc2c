"""Vectors of whole numbers modulo 2^64 or, in a wide layout, 2^192: as uint64, or as Python integers (dtype object)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError
from statfed.core.fixed_point import Layout
from statfed.core.randomness import Stream

WIDE = 24  # bytes of a wide number
Vector = NDArray[Any]


def residues(numbers: Vector, layout: Layout) -> Vector:
    """Whole numbers, as `Layout.encode` gives them, as vectors that can be added and subtracted."""
    return numbers % (1 << 8 * WIDE) if layout.bits == 192 else numbers.astype(np.int64).view(np.uint64)


def numbers(vector: Vector, layout: Layout) -> Vector:
    """Whole numbers with sign, as `Layout.decode` takes them."""
    if layout.bits < 192:
        return vector.view(np.int64)
    return np.array([int(x) - (int(x) >> 8 * WIDE - 1 << 8 * WIDE) for x in vector % (1 << 8 * WIDE)], object)


def mask(key: bytes, layout: Layout) -> Vector:
    """The keystream of a key as a uniform vector."""
    stream = Stream(key[:16])
    if layout.bits < 192:
        return stream.words(layout.entries)
    return _integers(stream.words(3 * layout.entries).tobytes())


def sent(vector: Vector, layout: Layout) -> Vector:
    """What travels: uint64 (entries,), or uint8 (entries, 24), least significant first."""
    if layout.bits < 192:
        return vector
    rows = b"".join(int(x).to_bytes(WIDE, "little") for x in vector % (1 << 8 * WIDE))
    return np.frombuffer(rows, np.uint8).reshape(-1, WIDE)


def received(item: object, name: str, layout: Layout) -> Vector:
    """What `sent` made. Raises EngineError naming its sender on anything else."""
    shape, kind = ((layout.entries, WIDE), np.uint8) if layout.bits == 192 else ((layout.entries,), np.uint64)
    if not isinstance(item, np.ndarray) or item.shape != shape or item.dtype != kind:
        raise EngineError(f"{name}: got no masked vector; want {np.dtype(kind)} of shape {shape}")
    return _integers(item.tobytes()) if layout.bits == 192 else item


def _integers(raw: bytes) -> Vector:
    return np.array([int.from_bytes(raw[i : i + WIDE], "little") for i in range(0, len(raw), WIDE)], object)
