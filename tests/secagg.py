"""A run of secure aggregation that an attacker drives stage by stage, for the tests of attacks."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from scipy import stats

from statfed.core.fixed_point import Layout, Slot
from statfed.core.protection import Packet
from statfed.strategies.protections._secagg_graph import Shape
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
    body,
    heard,
    session_of,
)
from statfed.strategies.protections._secagg_party import DropoutParty, members_session
from statfed.strategies.protections._secagg_secrets import pair_mask, self_mask
from statfed.strategies.protections._secagg_shamir import restore
from statfed.strategies.protections._secagg_words import mask, to_numbers
from tests.protocol import agreement, identities

SLOT = {"x": Slot((2000,), 2.0**40, integer=True)}
VICTIM = "h001"
RING = Shape(40, 32, 4, 28)  # a share's threshold is small where a ring is


def values(seed: int) -> dict[str, NDArray[Any]]:
    return {"x": np.random.default_rng(seed).integers(-1000, 1000, 2000)}


def uniform(words: NDArray[Any]) -> bool:
    counts = np.bincount(np.ascontiguousarray(words).view(np.uint8).reshape(-1), minlength=256)
    return float(stats.chisquare(counts).pvalue) > 1e-9


@dataclass
class Run:
    """A run that survives dropout, up to its first uploads, in the attacker's hands."""

    holders: int = 5
    minimum: int = 4
    kind: Callable[..., DropoutParty] = DropoutParty
    shape: Shape | None = None
    tell: Callable[[str, Packet], Packet] = lambda _name, packet: packet
    parties: dict[str, DropoutParty] = field(default_factory=dict)
    uploads: dict[str, Packet] = field(default_factory=dict)
    stolen: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.agreement = agreement("secure-aggregation", self.holders)
        self.names = self.agreement.holders
        shape = self.shape or Shape(self.holders, self.minimum, 0)
        known = identities(self.names)
        self.parties = {n: self.kind(self.agreement, known[n], shape, 2) for n in self.names}
        self.contributions = {name: values(i) for i, name in enumerate(self.names)}
        self.layout = Layout(SLOT, self.holders)
        self.binding = Binding(self.agreement)
        commitments: dict[str, Commitment] = {}
        if shape.rings:
            asked = body(Setup(setup=1))
            commitments = {n: heard(p.answer("commit", asked), Commitment, n) for n, p in self.parties.items()}
        asked = body(Setup(setup=1, commitments=commitments))
        self.bundles = {n: heard(p.answer("keys", asked), Bundle, n) for n, p in self.parties.items()}
        self.sealed = {
            n: np.asarray(p.answer("share", body(Share(setup=1, bundles=self.bundles)))["shares"])
            for n, p in self.parties.items()
        }
        self.graph = self.parties[VICTIM]._graph
        self.session = members_session(self.binding, 1, session_of(self.binding, 1, self.bundles), self.names)
        for name, party in self.parties.items():
            self.stolen[name] = party._held()._masks[1]
            packet = self.tell(name, self.upload(name))
            share = self.layout.for_holder(1 / self.holders)
            self.uploads[name] = party.contribute(packet, self.contributions[name], share)
        self.request = heard(self.uploads[VICTIM], Uploaded, VICTIM).request

    def upload(self, name: str, number: int = 1) -> Packet:
        rows = [self.sealed[n][self.graph.neighbours(n).index(name)] for n in self.graph.neighbours(name)]
        return body(Upload(setup=1, number=number, members=self.names), inbox=np.stack(rows))

    def signed(self, names: Collection[str]) -> dict[str, str]:
        return {n: heard(self.uploads[n], Uploaded, n).signature for n in names}

    def roster(self, name: str, survivors: Collection[str], number: int = 1) -> str:
        packet = body(Roster(setup=1, number=number, survivors=self.signed(survivors)))
        return heard(self.parties[name].answer("roster", packet), Signed, name).signature

    def unmask(self, name: str, signatures: Mapping[str, str], number: int = 1) -> Revealed:
        packet = body(Unmask(setup=1, number=number, signatures=dict(signatures)))
        return heard(self.parties[name].answer("unmask", packet), Revealed, name)

    def words(self, name: str) -> NDArray[Any]:
        return np.asarray(self.uploads[name]["words"]).copy()

    def facts(self) -> tuple[Binding, int, int, str, str]:
        return self.binding, 1, 1, self.session, self.request

    def without_pairs(self, words: NDArray[Any], victim: str, key: bytes, others: Collection[str]) -> None:
        """Take the victim's masks with `others` off, by its own mask key."""
        own = X25519PrivateKey.from_private_bytes(key)
        for other in others:
            pair = pair_mask(*self.facts(), own, victim, other, self.bundles[other].masks[0])
            mask(words, [(pair, victim < other)])

    def exposed(self, seeds: Mapping[str, str], keys: Mapping[str, str]) -> NDArray[Any]:
        """The victim's numbers from shares of its seed and its mask key, by who gave them."""
        words = self.words(VICTIM)
        mask(words, [(self_mask(*self.facts(), self.restored(seeds)), True)])
        self.without_pairs(words, VICTIM, self.restored(keys), self.graph.neighbours(VICTIM))
        return to_numbers(words, 64)

    def restored(self, shares: Mapping[str, str]) -> bytes:
        chosen = sorted(shares)[: self.graph.threshold]
        return restore({self.graph.places[name]: int(shares[name], 16) for name in chosen})

    def seen(self, numbers: NDArray[Any]) -> bool:
        return bool(np.array_equal(numbers, self.contributions[VICTIM]["x"]))
