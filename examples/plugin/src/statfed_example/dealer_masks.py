"""`dealer-masks`: a dealer gives holders masks that add up to zero, so that the coordinator gets the sum alone.

    keys        every party: an ephemeral X25519 key, signed with its identity
    deal        dealer: to each holder i the seeds s_i and s_(i+1), sealed to its key; s_(n+1) is s_1
    contribute  holder i: x_i + PRG(s_i) - PRG(s_(i+1)) modulo 2^64 or 2^192; in the sum all masks cancel

Keys and seeds are made once a run. What a seed is stretched with holds the number of the sum and the digest of what the
holder was asked for, so that no mask is used twice and contributions to different requests never add up.

Why the coordinator alone learns the sum only, whatever it does: an honest dealer deals once, to keys that the holders
of this agreement have signed for this very run, so the coordinator knows no seed. A holder sends one vector a number.
If all do so under one number and request, the masks of any n - 1 of them are independent and uniform (HKDF and AES-CTR
as pseudorandom functions), so the vectors are uniform but for their sum. If one does not, nothing cancels.

What it does not withstand: the dealer knows all masks. And holders i - 1 and i + 1 know both seeds of holder i, so that
those two with the coordinator learn its contribution: `REQUIRES.colluders` is 1.
"""

import json
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import Field

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import (
    Aggregate,
    Agreement,
    Disclosure,
    Packet,
    Replies,
    Requirements,
    Rounds,
    Stage,
    request_of,
    text,
)
from statfed.core.section import Section
from statfed.core.terms import Terms
from statfed_example import _ring
from statfed_example._words import CARD as CARD
from statfed_example._words import rows

TITLE = "Dealer masks: the coordinator gets only the sum, by masks of a dealer that cancel"
TRUST = (
    "the dealer does not collude with the coordinator",
    "no two holders collude with the coordinator: those beside a holder, in the order of names, can unmask it",
    "holders and dealer have pinned each other's keys, which were compared outside this system",
    "every holder's software, for what its own contribution contains",
)
REQUIRES = Requirements(
    minimum_holders=3,
    fixed_point=True,
    identities=True,
    third_parties="a dealer of masks that does not collude with the coordinator",
    cost="10",
    colluders=1,
)


class Options(Section):
    """Options of dealer-masks."""

    dealer: str = Field(default="dealer", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="the dealer's name")


def third_parties(options: Options) -> tuple[str, ...]:
    """The dealer."""
    return (options.dealer,)


def learns(terms: Terms) -> Sequence[Disclosure]:
    """The coordinator gets the sums; the dealer nothing but who takes part."""
    return rows(terms)


class _Member:
    """What holder and dealer have in common: an ephemeral key, and the others' keys, checked."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        self._agreement, self._identity = agreement, identity
        self._key: X25519PrivateKey | None = None
        self._announced = False

    def _announce(self, stage: str) -> Packet:
        if stage != "keys" or self._announced:
            raise Refused(f"dealer-masks: got stage {stage}; want keys, once")
        self._key, self._announced = X25519PrivateKey.generate(), True
        public = self._key.public_key().public_bytes_raw()
        return {"key": public, "signature": self._identity.sign(self._said(self._identity.name, public))}

    def _said(self, name: str, public: bytes) -> bytes:
        return self._agreement.context("dealer-masks/key") + name.encode() + b"\0" + public

    def _sealing(self, packet: Packet, other: str, holder: str) -> AESGCM:
        """The key of the one message from the dealer to `holder`, with the signed key of `other`, the other end."""
        public, signature = _bytes(packet, f"key:{other}"), _bytes(packet, f"signature:{other}")
        self._identity.verify(other, self._said(other, public), signature)
        if self._key is None:
            raise Refused("dealer-masks: got a stage before keys; want keys first")
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise Refused(f"dealer-masks: got a key of {other} that is no X25519 key; want one") from None
        own = self._key.public_key().public_bytes_raw()
        info = self._agreement.context("dealer-masks/seal") + holder.encode() + b"\0" + b"".join(sorted((own, public)))
        return AESGCM(_derived(shared, info))


class _Holder(_Member):
    """A holder. _seeds: its own and its neighbour's, once dealt; _number: of the last sum that it contributed to."""

    _seeds: tuple[bytes, bytes] | None = None
    _number = 0

    def answer(self, stage: str, packet: Packet) -> Packet:  # noqa: ARG002
        """Stage `keys`, once."""
        return self._announce(stage)

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        """Stage `contribute`: the masked vector. The first brings the dealer's key and the sealed seeds."""
        number = int.from_bytes(_bytes(packet, "number"), "big")
        if number <= self._number:
            raise Refused(f"dealer-masks: got sum {number}; want {self._number + 1} or later")
        if self._seeds is None:
            self._seeds = self._opened(packet)
        self._number = number
        request = request_of(layout, packet)
        info = self._agreement.context("dealer-masks/mask") + json.dumps([number, request]).encode()
        plus, minus = (_ring.mask(_derived(seed, info), layout) for seed in self._seeds)
        vector = _ring.residues(layout.encode(arrays), layout)
        return {"words": _ring.sent(vector + plus - minus, layout), "request": request.encode()}

    def _opened(self, packet: Packet) -> tuple[bytes, bytes]:
        dealer, name = self._agreement.third_parties[0], self._identity.name
        box = self._sealing(packet, dealer, name)
        try:
            seeds = box.decrypt(bytes(12), _bytes(packet, "sealed"), None)
        except InvalidTag:
            raise Refused(f"dealer-masks: got seeds that {dealer} has not sealed for this run; want its own") from None
        self._key = None  # nobody can open the seeds again
        return seeds[:32], seeds[32:]


class _Dealer(_Member):
    """The dealer. It deals once."""

    _dealt = False

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Stages `keys` and `deal`, each once."""
        if stage != "deal":
            return self._announce(stage)
        if self._dealt:
            raise Refused("dealer-masks: got stage deal again; want one a run")
        holders = self._agreement.holders
        boxes = {name: self._sealing(packet, name, name) for name in holders}
        self._dealt, self._key = True, None
        seeds = [os.urandom(32) for _ in holders]
        pairs = zip(holders, seeds, [*seeds[1:], seeds[0]], strict=True)
        return {f"sealed:{name}": boxes[name].encrypt(bytes(12), own + after, None) for name, own, after in pairs}

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:  # noqa: ARG002
        """The dealer has no data."""
        raise Refused("dealer-masks: the dealer holds no data; want a holder")


def party(agreement: Agreement, identity: Identity) -> _Holder | _Dealer:
    """A holder's half or the dealer's. Raises Refused on fewer than three holders or a sum over fewer than all."""
    if len(agreement.holders) < 3 or agreement.minimum_holders < len(agreement.holders):
        raise Refused(
            f"dealer-masks: got sums over {agreement.minimum_holders} of {len(agreement.holders)} holders; want three "
            "or more, and all of them"
        )
    return (_Dealer if identity.name in agreement.third_parties else _Holder)(agreement, identity)


class _Coordinator:
    """The coordinator: it relays keys and seeds that it cannot open, and adds up."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._first: dict[str, Packet] = {}
        self._number = 0

    def total(self, layout: Layout) -> Rounds:
        """The sum over all holders. Raises EngineError naming who is missing or sent something else."""
        holders, (dealer,) = self._agreement.holders, self._agreement.third_parties
        if not self._number:
            keys = yield Stage("keys", {name: {} for name in self._agreement.parties})
            _every(keys, self._agreement.parties, "keys")
            told = {f"{item}:{name}": _heard(keys, name, item) for name in holders for item in ("key", "signature")}
            dealt = yield Stage("deal", {dealer: told})
            _every(dealt, (dealer,), "deal")
            offer = {f"{item}:{dealer}": _heard(keys, dealer, item) for item in ("key", "signature")}
            self._first = {name: {**offer, "sealed": _heard(dealt, dealer, f"sealed:{name}")} for name in holders}
        self._number += 1
        number = self._number.to_bytes(8, "big")
        packets: dict[str, Packet] = {name: {**self._first.get(name, {}), "number": number} for name in holders}
        replies = yield Stage("contribute", packets, carries=True)
        _every(replies, holders, "contribute")
        self._first = {}
        if len({_heard(replies, name, "request") for name in holders}) > 1:
            raise EngineError("contribute: got contributions to different requests; want all to the same")
        first, *others = (_ring.received(replies[name].get("words"), name, layout) for name in holders)
        return Aggregate(layout.decode(_ring.numbers(sum(others, first), layout)), holders)


def coordinator(agreement: Agreement) -> _Coordinator:
    """The coordinator's half."""
    return _Coordinator(agreement)


def _every(replies: Replies, names: Sequence[str], stage: str) -> None:
    missing = sorted(set(names) - set(replies))
    if missing:
        raise EngineError(f"{stage}: no answer from {', '.join(missing)}; want every holder and the dealer")


def _bytes(packet: Packet, name: str) -> bytes:
    try:
        return text(packet, name)
    except UsageError as error:
        raise Refused(f"dealer-masks: {error}") from None


def _heard(replies: Replies, who: str, name: str) -> bytes:
    try:
        return text(replies[who], name)
    except UsageError as error:
        raise EngineError(f"{who}: {error}") from None


def _derived(secret: bytes, info: bytes) -> bytes:
    """32 bytes: HKDF-SHA-256 (RFC 5869)."""
    return HKDF(SHA256(), 32, None, info).derive(secret)
