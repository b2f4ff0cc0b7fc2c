"""Cryptographic long-term keys: keyed Bloom filters of a record's q-grams, hardened, that tell how alike records are.

An attribute's text is cut into q-grams; each sets a few of 1,024 bits, which HMAC-SHA256 draws under the linkage's
secret (bits 10 to 25 a digest: independent positions, no double hashing, whose few combinations are what Niedermeyer
et al. 2014 exploit). All attributes share one filter, so that no attribute's distribution shows by itself. `bits`, the
positions that an attribute sets whatever its length, are its weight in the comparison, and hide how long it is.
With a salt (a stable attribute such as the year of birth) each of its values has q-grams of its own.

Hardened how (`Hardening`): `balanced` appends the complement, in a secret order, so that all filters have one weight;
`fold` is the exclusive or of the halves, `rule90` that of a bit's neighbours, both of which leave no bit that one
q-gram sets alone. `flip` turns bits at random, for every record anew (randomised response, Schnell and Borgs 2016).

Against whom: without the secret nobody can encode a guess, so no dictionary is tried. Whoever sees many encodings still
sees which are alike: see `fuzzy` for the attacks that remain.

Sources: Schnell, Bachteler and Reiher 2009, Privacy-preserving record linkage using Bloom filters, BMC Med Inform
Decis Mak 9:41, and 2011 (one filter for all attributes); Schnell and Borgs 2016, Randomized response and balanced Bloom
filters, ICDMW, and XOR-folding for Bloom filter-based encryptions for error-tolerant record linkage; Schnell and Borgs
2018, Hardening encrypted patient names against cryptographic attacks using cellular automata, ICDMW.
"""

import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.randomness import Stream
from statfed.core.section import Section

LENGTH = 1024
"""Bits of a filter before it is hardened."""
Hardening = Literal["none", "balanced", "fold", "rule90"]
Words = NDArray[np.uint64]
_CHUNK = 4096  # records whose bits are held apart, a byte each
_A_DIGEST = 16  # positions that one digest gives


class Attribute(Section):
    """How one part of the key is encoded."""

    bits: int = Field(default=100, ge=1, le=500, description="positions that it sets, which is its weight")
    q: int = Field(default=2, ge=1, le=4, description="characters of a gram")
    positional: bool = Field(default=False, description="grams with their place: for dates and numbers of fixed width")


@dataclass(frozen=True)
class Encoder:
    """Texts to filters. secret: 32 bytes that holders share and nobody else has; salt: name of a part, or none."""

    secret: bytes = field(repr=False)
    attributes: Mapping[str, Attribute]
    salt: str = ""
    hardening: Hardening = "fold"
    flip: float = 0.0

    @property
    def words(self) -> int:
        """64-bit words of an encoding."""
        return {"fold": LENGTH // 2, "balanced": 2 * LENGTH}.get(self.hardening, LENGTH) // 64

    def encode(self, keys: Mapping[str, Sequence[str | None]]) -> Words:
        """Filters of records, (n, words). keys: of every attribute and of the salt, normal forms.

        A missing attribute sets nothing; a missing salt is a salt of its own.
        """
        count = len(next(iter(keys.values())))
        salts: Sequence[str | None] = keys[self.salt] if self.salt else [None] * count
        made = np.empty((count, self.words), np.uint64)
        order = self._order()
        grams = {name: _Grams(derived(self.secret, f"attribute {name}"), one) for name, one in self.attributes.items()}
        random = Stream(os.urandom(16))
        for start in range(0, count, _CHUNK):
            stop = min(start + _CHUNK, count)
            bits = np.zeros((stop - start, LENGTH), np.uint8)
            for name, cut in grams.items():
                for row, (value, salt) in enumerate(zip(keys[name][start:stop], salts[start:stop], strict=True)):
                    if value is not None:
                        bits[row, cut.positions(value, salt)] = 1
            bits = self._hardened(bits, order)
            if self.flip:
                bits ^= (random.uniform(bits.size) <= self.flip).reshape(bits.shape).astype(np.uint8)
            made[start:stop] = np.packbits(bits, 1).view(np.uint64)
        return made

    def _order(self) -> NDArray[np.int64]:
        return Stream(derived(self.secret, "order of balanced bits")[:16]).permutation(2 * LENGTH)

    def _hardened(self, bits: NDArray[np.uint8], order: NDArray[np.int64]) -> NDArray[np.uint8]:
        if self.hardening == "fold":
            return bits[:, : LENGTH // 2] ^ bits[:, LENGTH // 2 :]
        if self.hardening == "rule90":
            return np.roll(bits, 1, 1) ^ np.roll(bits, -1, 1)
        if self.hardening == "balanced":
            return np.ascontiguousarray(np.hstack([bits, 1 - bits])[:, order])
        return bits


class _Grams:
    """One attribute's q-grams and the positions that they set."""

    def __init__(self, key: bytes, attribute: Attribute) -> None:
        self._key = key
        self._attribute = attribute
        self._known: dict[tuple[str | None, str], NDArray[np.uint16]] = {}
        self._texts: dict[tuple[str | None, str], NDArray[np.uint16]] = {}

    def positions(self, value: str, salt: str | None) -> NDArray[np.uint16]:
        """The positions that a text sets, some more than once."""
        known = self._texts.get((salt, value))
        if known is None:
            found = grams_of(value, self._attribute)
            each = max(1, round(self._attribute.bits / len(found)))
            known = np.concatenate([self._drawn(gram, salt, each) for gram in found])
            if len(self._texts) < 1 << 18:
                self._texts[salt, value] = known
        return known

    def _drawn(self, gram: str, salt: str | None, count: int) -> NDArray[np.uint16]:
        """The first `count` positions of a gram: of more and of fewer the same ones."""
        known = self._known.get((salt, gram))
        if known is None or len(known) < count:
            text = f"{'' if salt is None else len(salt)}:{salt or ''}{gram}".encode()
            rounds = range(-(-count // _A_DIGEST))
            digests = b"".join(hmac.digest(self._key, bytes([number]) + text, "sha256") for number in rounds)
            known = np.frombuffer(digests, "<u2") % LENGTH  # 2^16 is a multiple: no position is likelier
            if len(self._known) < 1 << 20:
                self._known[salt, gram] = known
        return known[:count]


def grams_of(value: str, attribute: Attribute) -> list[str]:
    """The distinct q-grams of a text, its ends marked; with their places if those count."""
    ends = "\x02" * (attribute.q - 1)
    text = f"{ends}{value}{ends}"
    cut = [text[place : place + attribute.q] for place in range(len(text) - attribute.q + 1)]
    return sorted({f"{place} {gram}" if attribute.positional else gram for place, gram in enumerate(cut)})


def derived(secret: bytes, purpose: str) -> bytes:
    """32 bytes for one purpose."""
    return hmac.digest(secret, f"statfed fuzzy: {purpose}".encode(), "sha256")


def tags(secret: bytes, blocks: Mapping[str, Sequence[str | None]]) -> Words:
    """Keyed tags of the blocks that records are in, (n, passes); 0 where a block's key is missing.

    64 bits of HMAC-SHA256: of ten million records two blocks share one with probability 3e-6, and are then compared.
    """
    made = []
    for name, values in blocks.items():
        key = derived(secret, f"block {name}")
        known = {
            value: int.from_bytes(hmac.digest(key, value.encode(), "sha256")[:8]) or 1
            for value in set(values)
            if value is not None
        }
        made.append(np.array([0 if value is None else known[value] for value in values], np.uint64))
    return np.column_stack(made) if made else np.empty((0, 0), np.uint64)
