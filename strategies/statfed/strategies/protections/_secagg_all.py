"""Secure aggregation over every holder or none: pairwise masks alone, one message a sum.

Where a sum needs every holder, nothing ever has to be taken back: there are no shares, no self masks, and no stage
after the upload. Each pair of holders has a key from one exchange at the start; for every sum each pair derives a mask
from it, which one of the two adds and the other subtracts.

Why it holds. An honest party uploads at most once under one number, and a mask's key depends on the run, all parties'
signed keys, the number, and the digest of the request. Take two honest parties or more; the others may be with the
coordinator, which may say anything to anyone. Pair masks between honest parties are pseudorandom to it (X25519 as a
key agreement, HKDF and AES-CTR as pseudorandom functions). If not all honest parties uploaded under the same keys,
number and request, then every one that did shares at least one mask with one that did not, and that mask occurs once:
the uploads are jointly uniform. If all did, the uploads of the honest are uniform under the one condition that they add
up to their own sum (Bonawitz et al. 2017, lemma 6.1). So nothing but the sum over all honest parties is ever told,
whatever the coordinator does. It can only keep a sum from being formed.
"""

import os
from collections.abc import Callable, Mapping
from functools import reduce

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from statfed.core.errors import EngineError, Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import Aggregate, Agreement, Packet, Replies, Rounds, Stage, request_of
from statfed.strategies.protections._secagg_messages import (
    Binding,
    Bundle,
    Setup,
    Upload,
    Uploaded,
    array_in,
    body,
    check_bundles,
    derive,
    heard,
    named,
    public,
    session_of,
    shared,
    sign_bundle,
    told,
    told_all,
)
from statfed.strategies.protections._secagg_words import KEY, Words, add, encoded, mask, to_numbers, words_form

SETUP = 1  # the only one


class AllParty:
    """A holder. random: that many random bytes, for test vectors."""

    def __init__(self, agreement: Agreement, identity: Identity, random: Callable[[int], bytes] = os.urandom) -> None:
        self._agreement, self._identity, self._random = agreement, identity, random
        self._binding = Binding(agreement)
        self._key: X25519PrivateKey | None = None
        self._own: Bundle | None = None
        self._pairs: dict[str, bytes] = {}
        self._session = ""
        self._number = 0

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Stage `keys`, once."""
        if stage != "keys":
            raise Refused(f"secure-aggregation: got stage {stage}; want keys")
        if told(packet, Setup).setup != SETUP or self._own is not None:
            raise Refused("secure-aggregation: keys asked for again; want one setup a run")
        self._key = X25519PrivateKey.from_private_bytes(self._random(32))
        self._own = sign_bundle(self._identity, self._binding, SETUP, "", {"key": public(self._key)})
        return body(self._own)

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        """Stage `upload`: the contribution under one mask for each other holder."""
        upload = told(packet, Upload)
        if upload.bundles is not None:
            self._meet(upload.bundles)
        if not self._pairs:
            raise Refused("secure-aggregation: got no keys of the others; want them with the first upload")
        if upload.setup != SETUP or upload.number <= self._number:
            raise Refused(
                f"secure-aggregation: got setup {upload.setup}, upload {upload.number}; want setup {SETUP}, upload "
                f"{self._number + 1} or later"
            )
        self._number = upload.number
        words = encoded(layout, arrays)
        request = request_of(layout, packet)
        mask(words, [self._mask(name, request) for name in self._pairs])
        return body(Uploaded(request=request), words=words)

    def _meet(self, bundles: Mapping[str, Bundle]) -> None:
        """Agree on a key with each other holder; one's own private key is forgotten."""
        if set(bundles) != set(self._agreement.holders):
            raise Refused(f"secure-aggregation: got keys of {named(sorted(bundles))}; want those of every holder")
        session = session_of(self._binding, SETUP, bundles)
        if self._key is None:
            if session != self._session:
                raise Refused("secure-aggregation: got other keys than before; want one setup a run")
            return
        check_bundles(self._identity, self._binding, SETUP, "", bundles, self._own)
        own = self._identity.name
        self._pairs = {name: shared(self._key, one.key, name) for name, one in sorted(bundles.items()) if name != own}
        self._session, self._key = session, None

    def _mask(self, other: str, request: str) -> tuple[bytes, bool]:
        own = self._identity.name
        info = self._binding("mask", SETUP, self._number, self._session, request, *sorted((own, other)))
        return derive(self._pairs[other], info)[:KEY], own > other


class AllCoordinator:
    """The coordinator."""

    def __init__(self, agreement: Agreement) -> None:
        self._holders = agreement.holders
        self._bundles: dict[str, Bundle] = {}
        self._delivered = False
        self._number = 0

    def total(self, layout: Layout) -> Rounds:
        """The sum. Raises EngineError naming who is missing, or sent something else than its masked vector."""
        if not self._bundles:
            replies = yield Stage("keys", told_all(Setup(setup=SETUP), self._holders))
            self._every(replies, "keys")
            self._bundles = {name: heard(replies[name], Bundle, name) for name in self._holders}
        self._number += 1
        upload = Upload(setup=SETUP, number=self._number, bundles=None if self._delivered else self._bundles)
        replies = yield Stage("upload", told_all(upload, self._holders), carries=True)
        self._every(replies, "upload")
        self._delivered = True
        words, _ = summed(replies, layout)
        return Aggregate(layout.decode(to_numbers(words, layout.bits)), self._holders)

    def _every(self, replies: Replies, stage: str) -> None:
        missing = sorted(set(self._holders) - set(replies))
        if missing:
            raise EngineError(
                f"secure-aggregation, {stage}: no answer from {named(missing)}; want every holder. No total was formed"
            )


def summed(replies: Replies, layout: Layout) -> tuple[Words, str]:
    """The sum of masked vectors and the request that they are about.

    Raises EngineError naming a party whose vector has another form or is about another request than the others'.
    """
    shape, dtype = words_form(layout.entries, layout.bits)
    uploads: dict[str, Words] = {}
    requests: dict[str, str] = {}
    for name, packet in sorted(replies.items()):
        words = array_in(packet, "words", shape, dtype)
        if words is None:
            raise EngineError(f"{name}: got no masked vector; want words {shape} of {8 * dtype.itemsize} bits")
        uploads[name], requests[name] = words, heard(packet, Uploaded, name).request
    first, *others = requests
    for name in others:
        if requests[name] != requests[first]:
            raise EngineError(f"{name}: its contribution is about another request than that of {first}; want the same")

    def onto(total: Words, words: Words) -> Words:
        add(total, words)
        return total

    return reduce(onto, (uploads[name] for name in others), uploads[first].copy()), requests[first]
