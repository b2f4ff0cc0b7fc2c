"""Random numbers from a cryptographic generator, reproducible in simulation, secret in a pilot.

A `Stream` is the AES-128-CTR keystream of one key. In simulation the key is derived from the study's seed and
from labels (holder, round, purpose), so that every engine draws the same numbers; in a pilot it comes from the
operating system. Two purposes never share a key.

AES-CTR with a secret key is computationally indistinguishable from uniform bits (NIST SP 800-38A), which is what
differential privacy with computational indistinguishability needs (Mironov et al. 2009). With a *public* seed the
noise can be subtracted by anyone who knows the seed: a simulation's epsilon describes the mechanism, not the files
that it leaves behind.
"""

import hashlib
import math
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

_CHUNK = bytes(1 << 20)
_BLOCK = 4096
"""Normal values computed together: few enough for the temporaries, used again, to stay in the processor's cache."""


class Stream:
    """An endless stream of random numbers under one 16-byte key (secret; never shown)."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise ValueError(f"unexpected key length: got {len(key)} bytes; want 16")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __repr__(self) -> str:
        return "Stream(key=<secret>)"

    def words(self, count: int) -> NDArray[np.uint64]:
        """`count` uniform 64-bit words, shape (count,)."""
        out = np.empty(count, np.uint64)
        view = out.data.cast("B")
        for start in range(0, len(view), len(_CHUNK)):
            part = view[start : start + len(_CHUNK)]
            self._encryptor.update_into(_CHUNK[: len(part)], part)
        return out

    def uniform(self, count: int) -> NDArray[np.float64]:
        """`count` values in (0, 1], multiples of 2**-53 plus half a step, shape (count,); 1 has probability 2**-53."""
        out = np.empty(count)
        _unit_interval(self.words(count), out)
        return out

    def normal(self, count: int) -> NDArray[np.float64]:
        """`count` standard normal values, shape (count,).

        Each is half the sum of four Box-Muller draws: the attack on the floating-point grid of a single draw
        (Mironov 2012) needs to invert it, which is infeasible for a sum (Holohan and Braghin 2021, section 4).
        The guarantee is stated for real-valued noise; this reduces, and does not remove, the gap to float64.
        """
        words = self.words(4 * count).reshape(4, count)  # two radii and two angles of each value
        out = np.empty(count)
        scratch = np.empty((3, 2, min(count, _BLOCK)))
        for start in range(0, count, _BLOCK):
            block = out[start : start + _BLOCK]
            radius, t, cosine = scratch[:, :, : len(block)]
            _unit_interval(words[:2, start : start + _BLOCK], radius)
            _unit_interval(words[2:, start : start + _BLOCK], t)
            np.sqrt(np.multiply(np.log(radius, out=radius), -2.0, out=radius), out=radius)
            # with t the tangent of half the angle, cosine (1 - t^2) / (1 + t^2) and sine 2 t / (1 + t^2): numpy's
            # own float64 cosine and sine take ten times as long as its tangent
            np.tan(np.multiply(t, math.pi, out=t), out=t)
            np.multiply(t, t, out=cosine)
            cosine += 1.0
            radius /= cosine
            np.subtract(2.0, cosine, out=cosine)
            cosine *= radius
            t *= 2.0
            t *= radius
            np.add(cosine[0], cosine[1], out=block)
            block += t[0]
            block += t[1]
            block *= 0.5
        return out

    def choose(self, count: int, probability: float) -> NDArray[np.int64]:
        """Poisson sample: indices of `range(count)`, each kept independently with `probability`, ascending."""
        if probability >= 1.0:
            return np.arange(count)
        return np.flatnonzero(self.uniform(count) < probability)

    def permutation(self, count: int) -> NDArray[np.int64]:
        """A uniform order of `range(count)` (ties of 64-bit sort keys have probability below count**2 / 2**65)."""
        return np.argsort(self.words(count), kind="stable")

    def seed(self) -> int:
        """A 63-bit integer to seed another library's generator (initial weights; never noise)."""
        return int(self.words(1)[0] >> np.uint64(1))


def _unit_interval(words: NDArray[np.uint64], out: NDArray[np.float64]) -> None:
    words >>= np.uint64(11)
    np.add(words, 0.5, out=out)
    out *= 2.0**-53


def stream(seed: int | None, *labels: str | int) -> Stream:
    """The stream for one purpose, named by `labels`.

    seed: the study's public seed (simulation), or None to draw the key from the operating system (pilot).

    >>> float(stream(1, "noise", "a").uniform(1)[0]) == float(stream(1, "noise", "a").uniform(1)[0])
    True
    >>> float(stream(1, "noise", "a").uniform(1)[0]) == float(stream(1, "noise", "b").uniform(1)[0])
    False
    """
    if seed is None:
        return Stream(os.urandom(16))
    parts = [str(seed), *map(str, labels)]
    material = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    return Stream(hashlib.blake2b(material, digest_size=16, person=b"statfed.stream").digest())
