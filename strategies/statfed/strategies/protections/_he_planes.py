"""Vectors of whole numbers under TenSEAL: keys, encryption, sums, decryption, and what may come in from outside.

A plane is one vector under one set of parameters:

| scheme | N | data modulus q | special prime | plaintext | HomomorphicEncryption.org (2018), 128 bits |
| --- | --- | --- | --- | --- | --- |
| BFV | 4096 | one prime of 60 bits | 49 bits | integers modulo a prime t < 2^32 | 109 bits at N = 4096 |
| CKKS | 8192 | two primes of 44 bits | 60 bits | numbers up to 2^36, scale 2^46 | 148 of 218 bits at N = 8192 |

Every sum of at most `MOST_HOLDERS` fresh ciphertexts decrypts to the sum of the plaintexts, with certainty. Secrets and
encryption randomness are ternary and errors at most 21 in SEAL, so the error at the key level is at most 21 (2N + 1);
division by the special prime leaves less than 1 of it and rounds two polynomials, which costs at most (1 + N) / 2;
scaling the message rounds by at most 1. A fresh ciphertext's noise is below N + 4, that of a sum of n below n (N + 4).

- BFV decrypts rightly while the noise is below q / (2t) > 2^59 / 2^33 = 2^26, so up to n = 2^26 / 4100.
- CKKS: a slot is off by at most N times the noise over the scale, n 2^13 2^13.001 / 2^46, below 1/4 for the same n. The
  floating-point transforms at both ends err by 2^-53 relative to totals of 2^36, times log2(N) sqrt(N) and a small
  constant, together below 1/4: the nearest whole number is the sum. It alone is returned. An unrounded CKKS result has
  the noise in it, from which whoever holds the ciphertext computes the secret key (Li and Micciancio 2021); a correctly
  rounded one is a function of the plaintexts.

Nothing that arrives is handed to TenSEAL's own vector format: it trusts the vector's length in it, and decryption reads
beyond the ciphertext when it is wrong. What travels are single SEAL ciphertexts, whose loading checks them against the
parameters, framed by their length; the vector around each is written here.
"""

import importlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError

SLOTS = 4096  # numbers in one ciphertext, in both schemes
MOST_HOLDERS = 2**26 // (4096 + 4)
CKKS_BITS = 36  # totals under CKKS are at most 2^36 in absolute value
_SCALE = 2.0**46
_FRESH = 2  # polynomials in a ciphertext that was never multiplied
_LARGEST = 2 * 8192 * 2 * 8 + 1024  # bytes of a ciphertext, uncompressed, under either scheme
_OPENING = b"\x0a\x02\x80\x20\x12"  # of a serialised vector: one chunk of 4096 numbers, then one ciphertext


class Malformed(Exception):
    """Bytes that are not what they should be. The message says what was got and wanted, and nothing of the data."""


def tenseal() -> Any:
    """The library. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module("tenseal")
    except ImportError:
        raise UsageError("homomorphic-encryption needs TenSEAL: pip install 'statfed[he]'") from None


@dataclass(frozen=True)
class Plane:
    """Parameters of one vector. modulus: BFV's plaintext modulus t, 0 under CKKS."""

    scheme: Literal["bfv", "ckks"]
    modulus: int = 0

    def create(self) -> Any:
        """A fresh context with its secret key. Its repr shows no key."""
        ts = tenseal()
        if self.scheme == "bfv":
            return ts.context(ts.SCHEME_TYPE.BFV, 4096, self.modulus, [60, 49], n_threads=1)
        return ts.context(ts.SCHEME_TYPE.CKKS, 8192, -1, [44, 44, 60], n_threads=1)

    def open(self, public: bytes) -> Any:
        """A context from `public_part`. Raises Malformed when it has other parameters, or a secret key."""
        try:
            context = tenseal().context_from(public, n_threads=1)
            same = _parameters(context) == _wanted(self)
        except (ValueError, RuntimeError, IndexError, MemoryError):
            raise Malformed("context: got bytes that are not a public context; want one") from None
        if not same:
            raise Malformed(f"context: got other parameters than those of {self.scheme} in this version; want them")
        if context.is_private() or not context.has_public_key():
            raise Malformed("context: got one with a secret key or without a public one; want the public part")
        return context

    def encrypt(self, context: Any, numbers: NDArray[Any]) -> bytes:
        """Ciphertexts of (entries,) whole numbers: in [0, t) under BFV, at most 2^36 in absolute value under CKKS."""
        frames = []
        for start in range(0, len(numbers), SLOTS):
            block = np.zeros(SLOTS, np.int64)
            part = numbers[start : start + SLOTS].astype(np.int64)
            block[: len(part)] = part - self.modulus * (part > self.modulus // 2) if self.modulus else part
            frames.append(self._save(self._vector(context, block)))
        return b"".join(frames)

    def add(self, context: Any, blobs: Sequence[tuple[str, bytes]], entries: int) -> bytes:
        """The ciphertexts of the sum. blobs: with whose they are. Raises Malformed naming whose does not fit."""
        summed = []
        for index, frames in enumerate(zip(*(_framed(who, blob, entries) for who, blob in blobs), strict=True)):
            total = None
            for (who, _), frame in zip(blobs, frames, strict=True):
                vector = self._load(context, frame, who, index)
                total = vector if total is None else total.add_(vector)
            summed.append(self._save(total))
        return b"".join(summed)

    def decrypt(self, context: Any, blob: bytes, entries: int) -> NDArray[np.int64]:
        """(entries,): numbers in [0, t) under BFV, the nearest whole numbers under CKKS. Raises Malformed."""
        found = []
        for index, frame in enumerate(_framed("the sum", blob, entries)):
            values = np.array(self._load(context, frame, "the sum", index).decrypt())
            if self.scheme == "ckks":
                if not (np.abs(values) < 2.0**52).all():
                    raise Malformed("the sum: got a ciphertext of numbers out of range; want one of the agreed range")
                values = np.rint(values)
            found.append(values.astype(np.int64) % self.modulus if self.modulus else values.astype(np.int64))
        return np.concatenate([*found, np.empty(0, np.int64)])[:entries]

    def _vector(self, context: Any, block: NDArray[np.int64]) -> Any:
        if self.scheme == "bfv":
            return tenseal().bfv_vector(context, block.tolist())
        return tenseal().ckks_vector(context, block.astype(np.float64).tolist(), scale=_SCALE)

    def _save(self, vector: Any) -> bytes:
        """One frame: length, then the SEAL ciphertext alone."""
        whole: bytes = vector.serialize()
        length, start = _read_varint(whole, len(_OPENING))
        return struct.pack("<I", length) + whole[start : start + length]

    def _load(self, context: Any, ciphertext: bytes, who: str, index: int) -> Any:
        whole = _OPENING + _varint(len(ciphertext)) + ciphertext
        ts = tenseal()
        try:
            if self.scheme == "bfv":
                vector = ts.bfv_vector_from(context, whole)
            else:
                vector = ts.ckks_vector_from(context, whole + b"\x19" + struct.pack("<d", _SCALE))
            inner = vector.ciphertext()[0]
            fits = inner.size() == _FRESH and (self.scheme == "bfv" or inner.scale == _SCALE)
            fits = fits and inner.parms_id() == context.seal_context().data.first_parms_id()
        except (ValueError, RuntimeError, IndexError, MemoryError):
            raise Malformed(f"{who}: ciphertext {index} cannot be read; want one under the run's parameters") from None
        if not fits:
            raise Malformed(f"{who}: ciphertext {index} was multiplied or rescaled; want a sum of fresh ones")
        return vector


def public_part(context: Any) -> bytes:
    """A context without its secret key, as it travels."""
    found: bytes = context.serialize(
        save_public_key=True, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    return found


def _parameters(context: Any) -> tuple[int, ...]:
    """SEAL's hash of scheme, N, q and t."""
    return tuple(context.seal_context().data.key_parms_id())


@lru_cache(maxsize=16)
def _wanted(plane: Plane) -> tuple[int, ...]:
    return _parameters(plane.create())


def _framed(who: str, blob: bytes, entries: int) -> Iterator[bytes]:
    """The ciphertexts of a blob, as many as `entries` need. Raises Malformed when there are others."""
    at, wanted = 0, -(-entries // SLOTS)
    for index in range(wanted):
        if len(blob) < at + 4:
            raise Malformed(f"{who}: got {index} ciphertexts; want {wanted}")
        (length,) = struct.unpack_from("<I", blob, at)
        if length > min(_LARGEST, len(blob) - at - 4):
            raise Malformed(f"{who}: ciphertext {index} is cut short or too long; want one under the run's parameters")
        yield blob[at + 4 : at + 4 + length]
        at += 4 + length
    if at != len(blob):
        raise Malformed(f"{who}: got more than {wanted} ciphertexts; want {wanted}")


def _varint(number: int) -> bytes:
    """Protocol-buffer form of a length."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends. `data` is our own serialised vector."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at
