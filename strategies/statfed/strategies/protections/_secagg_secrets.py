"""One party's secrets of one setup where dropout is survived, and what is derived from them.

For each sum of the setup: a private mask key and a self-mask seed, dealt as Shamir shares to the keepers, and the
shares that this party keeps of others'. A sum's secrets are deleted when it is over or passed over.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from statfed.strategies.protections._secagg_graph import Graph
from statfed.strategies.protections._secagg_messages import Binding, Bundle, Revealed, derive, public, shared
from statfed.strategies.protections._secagg_shamir import SHARE, split
from statfed.strategies.protections._secagg_words import KEY

_NONCE = bytes(12)  # every key encrypts one message


class Secrets:
    """Of the party `name` in one setup. random: that many random bytes."""

    def __init__(self, binding: Binding, setup: int, name: str, sums: int, random: Callable[[int], bytes]) -> None:
        self._binding, self._setup, self._name, self._sums, self._random = binding, setup, name, sums, random
        self._key = X25519PrivateKey.from_private_bytes(random(32))
        self._masks = {number: random(32) for number in range(1, sums + 1)}
        self._seeds = {number: random(32) for number in range(1, sums + 1)}
        self._shares: dict[int, dict[str, tuple[bytes, bytes]]] = {number: {} for number in range(1, sums + 1)}

    def bundle(self) -> dict[str, Any]:
        """Fields of the bundle that are public keys and commitments."""
        return {
            "key": public(self._key),
            "masks": tuple(public(X25519PrivateKey.from_private_bytes(key)) for key in self._masks.values()),
            "seeds": tuple(
                seed_commitment(self._binding, self._setup, number, self._name, seed)
                for number, seed in self._seeds.items()
            ),
        }

    def deal(self, graph: Graph, bundles: Mapping[str, Bundle], session: str) -> NDArray[np.uint8]:
        """Encrypted shares, (neighbours, bytes), in the order of the neighbours; one's own are kept."""
        keepers = graph.keepers(self._name)
        places = [graph.places[name] for name in keepers]
        parts: dict[str, list[bytes]] = {name: [] for name in keepers}
        for number in range(1, self._sums + 1):
            for secret in (self._seeds[number], self._masks[number]):
                for name, share in zip(keepers, split(secret, graph.threshold, places, self._random), strict=True):
                    parts[name].append(share.to_bytes(SHARE, "big"))
        self._keep(self._name, b"".join(parts.pop(self._name)))
        sealed = []
        for name, shares in parts.items():
            key = self._sealing(bundles[name].key, name, session, self._name, name)
            sealed.append(np.frombuffer(AESGCM(key).encrypt(_NONCE, b"".join(shares), None), np.uint8))
        return np.stack(sealed)

    def take(self, senders: Sequence[str], inbox: NDArray[Any], bundles: Mapping[str, Bundle], session: str) -> None:
        """Keep what neighbours have dealt. Nothing is kept of one whose message cannot be decrypted: it has spoilt its
        own recovery, and there will be nothing of it to reveal."""
        for name, row in zip(senders, inbox, strict=True):
            key = self._sealing(bundles[name].key, name, session, name, self._name)
            try:
                self._keep(name, AESGCM(key).decrypt(_NONCE, row.tobytes(), None))
            except InvalidTag:
                continue

    def _sealing(self, other: str, whose: str, session: str, sender: str, receiver: str) -> bytes:
        """The key of the one message from `sender` to `receiver` in this setup."""
        secret = shared(self._key, other, whose)
        return derive(secret, self._binding("shares", self._setup, session, sender, receiver))

    def _keep(self, owner: str, shares: bytes) -> None:
        for number in range(1, self._sums + 1):
            start = (number - 1) * 2 * SHARE
            self._shares[number][owner] = shares[start : start + SHARE], shares[start + SHARE : start + 2 * SHARE]

    def masks(
        self, number: int, neighbours: Collection[str], bundles: Mapping[str, Bundle], session: str, request: str
    ) -> list[tuple[bytes, bool]]:
        """Keys of the masks of one upload, and whether each is subtracted. Own secrets up to it are deleted, and the
        shares of sums before it."""
        own = X25519PrivateKey.from_private_bytes(self._masks[number])
        facts = (self._setup, number, session, request)
        keys = [(self_mask(self._binding, *facts, self._seeds[number]), False)]
        for name in neighbours:
            key = pair_mask(self._binding, *facts, own, self._name, name, bundles[name].masks[number - 1])
            keys.append((key, self._name > name))
        for past in [n for n in self._seeds if n <= number]:
            del self._seeds[past], self._masks[past]
        for past in [n for n in self._shares if n < number]:
            del self._shares[past]
        return keys

    def give_up(self, number: int) -> dict[str, tuple[bytes, bytes]]:
        """The shares of one sum, which are deleted: by owner, of its seed and of its mask key."""
        return self._shares.pop(number)


def revealed(shares: Mapping[str, tuple[bytes, bytes]], survivors: Collection[str]) -> Revealed:
    """Of each owner one share: of its seed if its upload is in the sum, else of its mask key."""
    return Revealed(
        seeds={name: seed.hex() for name, (seed, _) in shares.items() if name in survivors},
        masks={name: key.hex() for name, (_, key) in shares.items() if name not in survivors},
    )


def sealed_size(sums: int) -> int:
    """Bytes of one neighbour's encrypted shares for a setup of `sums`."""
    return sums * 2 * SHARE + 16


def seed_commitment(binding: Binding, setup: int, number: int, name: str, seed: bytes) -> str:
    """A value that tells a restored seed from a wrong one, and nothing about its masks (HKDF is pseudorandom)."""
    return derive(seed, binding("seed", setup, number, name)).hex()


def self_mask(binding: Binding, setup: int, number: int, session: str, request: str, seed: bytes) -> bytes:
    """Key of a self mask."""
    return derive(seed, binding("self", setup, number, session, request))[:KEY]


def pair_mask(
    binding: Binding,
    setup: int,
    number: int,
    session: str,
    request: str,
    own: X25519PrivateKey,
    name: str,
    other: str,
    key: str,
) -> bytes:
    """Key of the mask between `name`, who has the private key `own`, and `other`, who has the public `key`."""
    info = binding("mask", setup, number, session, request, *sorted((name, other)))
    return derive(shared(own, key, other), info)[:KEY]
