"""The coordinator's half of secure aggregation that survives dropout.

It checks what it needs to form the total and to say whose answer is at fault. What protects the holders is checked by
them. A member that once did not answer is not asked again before the next setup.
"""

from collections.abc import Collection, Generator, Mapping
from contextlib import suppress
from functools import partial
from itertools import chain, combinations, islice
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from statfed.core.errors import EngineError
from statfed.core.fixed_point import Layout
from statfed.core.protection import Aggregate, Agreement, Replies, Rounds, Stage
from statfed.strategies.protections._secagg_all import summed
from statfed.strategies.protections._secagg_graph import SETUPS, Graph, Shape
from statfed.strategies.protections._secagg_messages import (
    Binding,
    Bundle,
    Commitment,
    Revealed,
    Roster,
    Setup,
    Share,
    Signed,
    Unmask,
    Upload,
    Uploaded,
    array_in,
    body,
    heard,
    named,
    public,
    session_of,
    told_all,
)
from statfed.strategies.protections._secagg_party import members_session, ring_seed
from statfed.strategies.protections._secagg_secrets import pair_mask, sealed_size, seed_commitment, self_mask
from statfed.strategies.protections._secagg_shamir import corrected, restore
from statfed.strategies.protections._secagg_words import mask, to_numbers

Stages = Generator[Stage, Replies, None]
TRIES = 1_000
"""Choices of shares that are tried: all of up to three wrong ones among 19."""


class DropoutCoordinator:
    """The coordinator. sums: how many a setup provides for."""

    def __init__(self, agreement: Agreement, shape: Shape, sums: int) -> None:
        self._holders, self._shape, self._sums = agreement.holders, shape, sums
        self._binding = Binding(agreement)
        self._setup, self._number = 0, sums
        self._graph = Graph((), shape.minimum, shape.minimum)
        self._bundles: dict[str, Bundle] = {}
        self._sealed: dict[str, NDArray[Any]] = {}
        self._session = ""
        self._members: tuple[str, ...] = ()
        self._active: set[str] = set()
        self._served: set[str] = set()

    def total(self, layout: Layout) -> Rounds:
        """The sum over the holders that answered. Raises EngineError when they are too few, naming who is missing."""
        if self._number >= self._sums or self._graph.obstacle(self._active):
            yield from self._set_up()
        self._number += 1
        replies = yield Stage("upload", {name: self._upload(name) for name in sorted(self._active)}, carries=True)
        survivors = tuple(sorted(replies))
        self._enough(survivors, "upload")
        words, request = summed(replies, layout)
        self._served.update(survivors)
        signed = {name: heard(packet, Uploaded, name).signature for name, packet in sorted(replies.items())}
        roster = told_all(Roster(setup=self._setup, number=self._number, survivors=signed), survivors)
        replies = yield Stage("roster", roster)
        self._enough(replies, "roster")
        signatures = {name: heard(packet, Signed, name).signature for name, packet in sorted(replies.items())}
        unmask = Unmask(setup=self._setup, number=self._number, signatures=signatures)
        replies = yield Stage("unmask", told_all(unmask, signatures))
        self._enough(replies, "unmask")
        mask(words, self._masks(survivors, request, replies))
        return Aggregate(layout.decode(to_numbers(words, layout.bits)), survivors)

    def _enough(self, answered: Collection[str], stage: str) -> None:
        """Go on with those that answered. Raises EngineError when they are too few."""
        missing = sorted(set(self._holders) - set(answered))
        self._active &= set(answered)
        obstacle = self._graph.obstacle(answered) if stage in ("share", "upload") else ""
        if len(answered) < self._shape.minimum or obstacle:
            wanted = obstacle or f"got {len(answered)}; want at least {self._shape.minimum}"
            raise EngineError(
                f"secure-aggregation, {stage}: no answer from {named(missing)}; holders: {wanted}. No total was formed"
            )

    def _set_up(self) -> Stages:
        """A new session of all holders that answer."""
        asked: Collection[str] = self._holders
        self._active = set(asked)
        while True:
            self._setup += 1
            commitments: dict[str, Commitment] = {}
            if self._shape.rings:
                if self._setup > SETUPS:
                    raise EngineError(
                        f"secure-aggregation: want at most {SETUPS} setups a run; set options.sums higher"
                    )
                replies = yield Stage("commit", told_all(Setup(setup=self._setup), asked))
                self._enough(replies, "commit")
                commitments = {name: heard(packet, Commitment, name) for name, packet in sorted(replies.items())}
                asked = tuple(commitments)
            replies = yield Stage("keys", told_all(Setup(setup=self._setup, commitments=commitments), asked))
            self._enough(replies, "keys")
            if not commitments or set(replies) == set(asked):
                break
            asked = tuple(sorted(replies))  # a commitment stayed closed: draw another ring without that holder
        self._bundles = {name: self._bundle(replies, name) for name in sorted(replies)}
        self._graph = self._shape.draw(tuple(self._bundles), ring_seed(self._binding, self._setup, self._bundles))
        replies = yield Stage("share", told_all(Share(setup=self._setup, bundles=self._bundles), self._bundles))
        self._members = tuple(sorted(replies))
        self._enough(self._members, "share")
        session = session_of(self._binding, self._setup, self._bundles)
        self._session = members_session(self._binding, self._setup, session, self._members)
        self._sealed = {}
        for name in self._members:
            form = (len(self._graph.neighbours(name)), sealed_size(self._sums))
            sealed = array_in(replies[name], "shares", form, np.dtype(np.uint8))
            if sealed is None:
                raise EngineError(f"{name}: got no shares; want an array {form} of bytes")
            self._sealed[name] = sealed
        self._number, self._served = 0, set()

    def _bundle(self, replies: Replies, name: str) -> Bundle:
        bundle = heard(replies[name], Bundle, name)
        if len(bundle.masks) != self._sums or len(bundle.seeds) != self._sums:
            raise EngineError(f"{name}: got keys for {len(bundle.masks)} sums; want {self._sums}")
        return bundle

    def _upload(self, name: str) -> Mapping[str, Any]:
        upload = Upload(setup=self._setup, number=self._number)
        if name in self._served:
            return body(upload)
        senders = [other for other in self._graph.neighbours(name) if other in self._members]
        rows = [self._sealed[other][self._graph.neighbours(other).index(name)] for other in senders]
        return body(upload.model_copy(update={"members": self._members}), inbox=np.stack(rows))

    def _masks(self, survivors: tuple[str, ...], request: str, replies: Replies) -> list[tuple[bytes, bool]]:
        """What stands between the sum of the uploads and the total."""
        revealed: dict[str, Revealed] = {}
        unread: list[str] = []
        for name, packet in sorted(replies.items()):
            try:
                revealed[name] = heard(packet, Revealed, name)
            except EngineError as error:
                unread.append(str(error))
        if len(revealed) < self._graph.threshold:
            raise EngineError("\n".join(["secure-aggregation, unmask: got too few answers that can be read", *unread]))
        facts = (self._setup, self._number, self._session, request)
        keys = []
        for name in survivors:
            seed = self._restored(
                name, {by: one.seeds[name] for by, one in revealed.items() if name in one.seeds}, True
            )
            keys.append((self_mask(self._binding, *facts, seed), True))
        for name in sorted(set(self._members) - set(survivors)):
            shares = {by: one.masks[name] for by, one in revealed.items() if name in one.masks}
            own = X25519PrivateKey.from_private_bytes(self._restored(name, shares, False))
            for other in self._graph.neighbours(name):
                if other in survivors:
                    key = self._bundles[other].masks[self._number - 1]
                    keys.append((pair_mask(self._binding, *facts, own, name, other, key), other < name))
        return keys

    def _restored(self, name: str, shares: Mapping[str, str], seed: bool) -> bytes:
        """The seed or the mask key of `name`, from shares by who revealed them.

        Wrong shares are left out: all where there are few enough ways to choose right ones, and as many as half of
        those beyond the threshold. Raises EngineError naming who is concerned where nothing gives what the bundle of
        `name` promised.
        """
        keepers, threshold = set(self._graph.keepers(name)), self._graph.threshold
        places = {self._graph.places[by]: int(share, 16) for by, share in shares.items() if by in keepers}
        if len(places) < threshold:
            raise EngineError(f"secure-aggregation, unmask: got {len(places)} shares about {name}; want {threshold}")
        chosen = combinations(sorted(places), threshold)
        first = [
            partial(restore, {place: places[place] for place in next(chosen)}),
            partial(corrected, places, threshold),
        ]
        rest = (partial(restore, {place: places[place] for place in one}) for one in islice(chosen, TRIES))
        for attempt in chain(first, rest):
            with suppress(ValueError):
                secret = attempt()
                if self._promised(name, secret, seed):
                    return secret
        raise EngineError(
            f"secure-aggregation, unmask: shares about {name} do not give what it had promised; {name} dealt wrong "
            f"ones, or some of {named(sorted(keepers & set(shares)))} did not give what they were dealt"
        )

    def _promised(self, name: str, secret: bytes, seed: bool) -> bool:
        bundle, which = self._bundles[name], self._number - 1
        if seed:
            return seed_commitment(self._binding, self._setup, self._number, name, secret) == bundle.seeds[which]
        return public(X25519PrivateKey.from_private_bytes(secret)) == bundle.masks[which]
