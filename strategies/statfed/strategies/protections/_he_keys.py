"""Keys of `homomorphic-encryption`: signed X25519 keys between each holder and the key holder, and pads from them.

A party's X25519 key (RFC 7748) lives for one run and one number of planes, and is signed by its identity together with
the run's context and, by the key holder, with its public contexts. A pad's key is HKDF-SHA256 (RFC 5869) of the shared
secret, bound to both public keys, the run, the holder, the round, and the layout and length of the sum: who adds up
other arrays, or for another round, has another pad.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from statfed.core.errors import Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet, text
from statfed.core.randomness import Stream

NAME = "homomorphic-encryption"


def digest(layout: Layout, request: bytes, check: bytes = b"") -> bytes:
    """32 bytes of the facts of a sum: how its arrays are encoded, what its holders were asked for, and the seed of its
    checks, which the key holder cannot tell from the digest and which is the same for all holders: else pads stay."""
    slots = [
        (name, slot.shape, np.frexp(np.asarray(slot.limit, np.float64))[1].tolist(), slot.integer)
        for name, slot in sorted(layout.slots.items())
    ]
    facts = [layout.bits, layout.holders, layout.narrow, layout.fine, slots, request.hex(), check.hex()]
    return hashlib.sha256(json.dumps(facts, separators=(",", ":")).encode()).digest()


@dataclass(frozen=True)
class Exchange:
    """One party's X25519 key pair of a run. planes: the number of planes that it is for."""

    agreement: Agreement
    identity: Identity
    planes: int
    _key: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self._key.public_key().public_bytes_raw()

    def offer(self, contexts: Sequence[bytes] = ()) -> dict[str, bytes]:
        """What travels: the public key and its signature. contexts: the key holder's public ones."""
        signed = self.identity.sign(self._message(self.identity.name, self.public, contexts))
        return {"exchange": self.public, "signature": signed}

    def accept(self, name: str, packet: Packet, suffix: str = "", contexts: Sequence[bytes] = ()) -> "Secret":
        """The secret shared with party `name` whose offer is in `packet`. Raises Refused unless that party signed it.

        suffix: of the offer's names in the packet.
        """
        public = text(packet, f"exchange{suffix}")
        self.identity.verify(name, self._message(name, public, contexts), text(packet, f"signature{suffix}"))
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise Refused(f"keys: got an unusable X25519 key of {name}; want one made at random") from None
        both = b"".join(sorted((public, self.public)))
        return Secret(self.agreement, hashlib.sha256(both).digest(), shared)

    def _message(self, name: str, public: bytes, contexts: Sequence[bytes]) -> bytes:
        facts = [NAME, "keys", name, self.planes, public.hex(), [hashlib.sha256(c).hexdigest() for c in contexts]]
        return json.dumps(facts).encode() + self.agreement.context(f"{NAME} keys")


@dataclass(frozen=True)
class Secret:
    """What one holder and the key holder share. both: 32 bytes that stand for their two public keys."""

    agreement: Agreement
    both: bytes
    _shared: bytes = field(repr=False)

    def pad(self, holder: str, number: int, layout: bytes, entries: int) -> Stream:
        """The stream of the pad of `holder` in round `number`, for a sum of `entries` with this layout `digest`."""
        info = self.agreement.context(f"{NAME} pad") + number.to_bytes(8) + entries.to_bytes(8) + layout
        info += holder.encode()
        return Stream(HKDF(SHA256(), 16, salt=self.both, info=info).derive(self._shared))
