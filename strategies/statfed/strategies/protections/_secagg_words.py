"""Words of the ring Z/2^bits that masked vectors are made of, and the masks themselves.

A mask is the keystream of AES-128 in counter mode (NIST SP 800-38A, 6.5) from a counter block of zeros; every key masks
one vector once. It is made in pieces that stay in the processor's cache and are added where they are, so that no whole
mask is ever held and masking takes little longer than the keystream alone.

A vector of words is `(entries,)` of uint32 or uint64, or `(entries, 3)` of uint64, least significant first, for 192
bits; always little-endian, as keystreams are read.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from statfed.core.fixed_point import Bits, Layout
from statfed.core.method import Arrays

Words = NDArray[Any]
KEY = 16  # bytes of a mask key
_PIECE = 1 << 18  # bytes of keystream at a time
_ZEROS = bytes(_PIECE)
_DTYPE: dict[int, np.dtype[Any]] = {32: np.dtype("<u4"), 64: np.dtype("<u8"), 192: np.dtype("<u8")}


def words_form(entries: int, bits: Bits) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a vector of words."""
    shape: tuple[int, ...] = (entries, 3) if bits == 192 else (entries,)
    return shape, _DTYPE[bits]


def encoded(layout: Layout, arrays: Arrays) -> Words:
    """A contribution as words, in the range that `layout` allows. Raises what `Layout.encode` raises."""
    return to_words(layout.encode(arrays, np.int32 if layout.bits == 32 else np.int64), layout.bits)


def to_words(numbers: NDArray[Any], bits: Bits) -> Words:
    """Whole numbers (entries,) modulo 2^bits: of a word's width, or Python integers. Shares the memory of `numbers`."""
    if bits == 192:
        parts = [(int(x) & ((1 << 192) - 1)).to_bytes(24, "little") for x in numbers.tolist()]
        return np.frombuffer(bytearray(b"".join(parts)), "<u8").reshape(-1, 3)
    kind = f"{bits // 8}"
    return numbers.astype(f"<i{kind}", copy=False).view(f"<u{kind}")


def to_numbers(words: Words, bits: Bits) -> NDArray[Any]:
    """Whole numbers in [-2^(bits - 1), 2^(bits - 1)): int64, or Python integers (dtype object) for 192 bits."""
    if bits == 192:
        row = words.tobytes()
        found = [int.from_bytes(row[i : i + 24], "little", signed=True) for i in range(0, len(row), 24)]
        return np.array(found, object)
    return words.view("<i4").astype(np.int64) if bits == 32 else words.view("<i8")


def add(words: Words, other: Words) -> None:
    """`words` += `other`, in place."""
    if words.ndim == 1:
        np.add(words, other, out=words)
        return
    carry = np.zeros(len(words), np.uint64)
    for place in range(3):
        column = words[:, place]
        column += carry
        carry = (column < carry).astype(np.uint64)
        column += other[:, place]
        carry |= column < other[:, place]


def subtract(words: Words, other: Words) -> None:
    """`words` -= `other`, in place."""
    if words.ndim == 1:
        np.subtract(words, other, out=words)
        return
    np.invert(words, out=words)  # a - b = ~(~a + b)
    add(words, other)
    np.invert(words, out=words)


def mask(words: Words, keys: Sequence[tuple[bytes, bool]]) -> None:
    """Add the masks of `keys` to `words`, in place. Each: 16 bytes, and whether its mask is subtracted instead."""
    streams = [
        (Cipher(algorithms.AES128(key), modes.CTR(bytes(16))).encryptor(), subtract if minus else add)
        for key, minus in keys
    ]
    width = words.itemsize * (3 if words.ndim == 2 else 1)
    step = _PIECE // width
    buffer = bytearray(_PIECE + 15)  # what `update_into` wants for a block cipher
    for start in range(0, len(words), step):
        piece = words[start : start + step]
        size = len(piece) * width
        stream = np.frombuffer(buffer, words.dtype, size // words.itemsize).reshape(piece.shape)
        zeros = memoryview(_ZEROS)[:size]
        for encryptor, apply in streams:
            encryptor.update_into(zeros, buffer)
            apply(piece, stream)
