"""Sealed channels between the parties of a linkage, through a coordinator that relays and cannot read.

Each party makes an X25519 key (RFC 7748) for this linkage alone and signs it with its identity key, whose public half
the others have pinned: keys never come from the coordinator, so it cannot take a party's place. Every pair derives one
AES-256-GCM key a direction (HKDF-SHA256, RFC 5869), bound to the agreement and to the keys of *all* parties, so two
parties who were told different casts share no key. Messages of a direction are numbered and each names its purpose:
what is replayed, left out, put in another order or passed off as something else does not open. Keys end with the run.

What the coordinator still learns: who writes to whom, when, and how much.
"""

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from statfed.core.errors import EngineError, Malformed
from statfed.core.identity import Identity
from statfed.core.linkage import Sealed
from statfed.core.protection import Agreement, Packet, Replies, Stage, reading, text

OFFER, MEET = "offer", "meet"
_KEY = 32
TAG = 16
"""Bytes that sealing adds."""


@dataclass
class _Way:
    """One direction between two parties: its key and the number of its next message."""

    key: AESGCM
    number: int = 0

    def nonce(self) -> bytes:
        self.number += 1
        return self.number.to_bytes(12, "big")


@dataclass
class Channels:
    """One party's channels to all others of a linkage."""

    agreement: Agreement
    identity: Identity = field(repr=False)
    _secret: X25519PrivateKey | None = field(default_factory=X25519PrivateKey.generate, repr=False)
    _out: dict[str, _Way] = field(default_factory=dict, repr=False)
    _in: dict[str, _Way] = field(default_factory=dict, repr=False)

    def offer(self) -> Packet:
        """This party's key, signed."""
        if self._secret is None:
            raise Malformed("channels: got a second meeting; want one a run")
        key = self._secret.public_key().public_bytes_raw()
        return {"key": key, "signature": self.identity.sign(_signed(self.agreement, self.identity.name, key))}

    def meet(self, packet: Packet) -> Packet:
        """Open the channels to all parties, whose offers the packet has. Raises Refused on any that is not theirs."""
        if self._secret is None:
            raise Malformed("channels: got a second meeting; want one a run")
        keys = {}
        for name in self.agreement.parties:
            key = text(packet, f"{name}:key")
            self.identity.verify(name, _signed(self.agreement, name, key), text(packet, f"{name}:signature"))
            keys[name] = key
        secret, self._secret = self._secret, None
        own = self.identity.name
        if keys[own] != secret.public_key().public_bytes_raw():
            raise Malformed("channels: got another key for this party than its own")
        cast = hashlib.sha256(b"".join(keys[name] for name in self.agreement.parties)).digest()
        for name in self.agreement.parties:
            if name != own:
                try:
                    shared = secret.exchange(X25519PublicKey.from_public_bytes(keys[name]))
                except ValueError:
                    raise Malformed(f"channels: got a key of {name} that is none") from None
                self._out[name] = _Way(self._derived(shared, cast, own, name))
                self._in[name] = _Way(self._derived(shared, cast, name, own))
        return {}

    def _derived(self, shared: bytes, cast: bytes, sender: str, to: str) -> AESGCM:
        info = f"{len(sender)}:{sender}{to}".encode()
        salt = self.agreement.context("linkage channel") + cast
        return AESGCM(HKDF(SHA256(), _KEY, salt, info).derive(shared))

    def seal(self, to: str, purpose: str, content: bytes | memoryview) -> bytes:
        """`content` for one party alone. purpose: what it is, which the reader has to expect."""
        way = self._way(self._out, to)
        return Sealed.of(to, way.key.encrypt(way.nonce(), content, purpose.encode()))

    def open(self, sender: str, purpose: str, content: bytes) -> bytes:
        """What a party has sealed for this one. Raises Refused on anything but its next message, for this purpose."""
        way = self._way(self._in, sender)
        try:
            return way.key.decrypt(way.nonce(), content, purpose.encode())
        except InvalidTag:
            raise Malformed(
                f"{purpose}: got what {sender} has not sealed for it: changed, repeated, left out or out of order"
            ) from None

    def _way(self, ways: Mapping[str, _Way], name: str) -> _Way:
        if name not in ways:
            raise Malformed(f"channels: got a message before parties have met, or of none of them: {name}")
        return ways[name]


def met(agreement: Agreement) -> Generator[Stage, Replies, None]:
    """The coordinator's half of a meeting of all parties. Raises EngineError where one does not answer."""
    replies = yield Stage(OFFER, {name: {} for name in agreement.parties})
    offers: dict[str, bytes] = {}
    for name in agreement.parties:
        if name not in replies:
            raise EngineError(f"{OFFER}: no answer from {name}; want every party")
        with reading(name):
            offers |= {f"{name}:{item}": text(replies[name], item) for item in ("key", "signature")}
    replies = yield Stage(MEET, dict.fromkeys(agreement.parties, offers))
    if gone := sorted(set(agreement.parties) - set(replies)):
        raise EngineError(f"{MEET}: no answer from {', '.join(gone)}; want every party")


def _signed(agreement: Agreement, name: str, key: bytes) -> bytes:
    return agreement.context("linkage offer") + hashlib.sha256(f"{name} ".encode() + key).digest()
