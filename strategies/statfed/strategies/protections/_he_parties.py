"""The parties' halves of `homomorphic-encryption`, a holder's and the key holder's. See there for the argument."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, Packet, text
from statfed.core.randomness import Stream
from statfed.strategies.protections import _he_planes as planes
from statfed.strategies.protections._he_codec import CHECKS, Residues
from statfed.strategies.protections._he_keys import Exchange, Secret, digest
from statfed.strategies.protections._he_options import Options, codec_of, planes_of, sealed_entries
from statfed.strategies.protections._he_planes import Malformed, Plane


def _number(packet: Packet, name: str) -> int:
    """A whole number of a packet, 0 to 2^40. Raises UsageError."""
    data = text(packet, name)
    if not data.isdigit() or len(data) > 12:
        raise UsageError(f"packet: got no whole number {name}; want one")
    return int(data)


def _blobs(packet: Packet, name: str, count: int) -> list[bytes]:
    return [text(packet, f"{name}:{i}") for i in range(count)]


class _Rounds:
    """Rounds strictly increase: none is answered twice."""

    def __init__(self) -> None:
        self._last = 0

    def enter(self, packet: Packet) -> int:
        """The round of a packet. Raises Refused unless it is later than any before."""
        number = _number(packet, "round")
        if number <= self._last:
            raise Refused(f"round: got {number}; want one after {self._last}")
        self._last = number
        return number


@dataclass
class Holder:
    """A holder's half. Secrets live here alone, by number of planes."""

    agreement: Agreement
    identity: Identity
    options: Options
    rounds: _Rounds = field(default_factory=_Rounds)
    exchanges: dict[int, Exchange] = field(default_factory=dict, repr=False)
    joined: dict[int, tuple[Secret, tuple[Any, ...]]] = field(default_factory=dict, repr=False)

    def answer(self, stage: str, packet: Packet) -> Packet:
        count = _number(packet, "planes")
        wanted = planes_of(self.options, count)
        if stage == "keys" and count not in self.exchanges:
            self.exchanges[count] = Exchange(self.agreement, self.identity, count)
            return self.exchanges[count].offer()
        if stage == "join" and count in self.exchanges and count not in self.joined:
            public = _blobs(packet, "context", count)
            secret = self.exchanges[count].accept(self.options.key_holder, packet, contexts=public)
            self.joined[count] = secret, tuple(_opened(p, data) for p, data in zip(wanted, public, strict=True))
            return {}
        raise Refused(f"homomorphic-encryption: got stage {stage} out of turn; want keys, then join, once each")

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        encrypted = sealed_entries(self.options, layout)
        codec, sealed = codec_of(self.options, layout, encrypted), int(encrypted.sum())
        if len(codec.planes) not in self.joined:
            raise Refused("homomorphic-encryption: got a request to contribute before join; want keys and join first")
        secret, contexts = self.joined[len(codec.planes)]
        vector = layout.encode(arrays)
        number = self.rounds.enter(packet)
        request = text(packet, "request") if "request" in packet else b""
        rest = vector[encrypted]
        reply: dict[str, bytes | NDArray[Any]] = {"request": request}
        if self.options.last_layer:
            reply["clear"] = vector[~encrypted]
        hidden: NDArray[Any]
        if isinstance(codec, Residues):
            seed, check, width = secrets.token_bytes(16), text(packet, "check"), sealed + CHECKS
            if len(check) != 16:
                raise Refused(f"check: got a seed of {len(check)} bytes; want 16")
            pad = secret.pad(self.identity.name, number, digest(layout, request, check), width)
            split = codec.split(rest)
            checked = np.concatenate([split, codec.checks(split, check)], axis=1)
            hidden = codec.plus(checked, codec.masks(pad, width), codec.masks(Stream(seed), width))
            reply["seed"] = seed
        else:
            hidden = codec.split(rest)
        for i, (plane, context) in enumerate(zip(codec.planes, contexts, strict=True)):
            reply[f"ciphertext:{i}"] = plane.encrypt(context, hidden[i])
        return reply


def _opened(plane: Plane, public: bytes) -> Any:
    try:
        return plane.open(public)
    except Malformed as error:
        raise Refused(str(error)) from None


@dataclass
class KeyHolder:
    """The key holder's half."""

    agreement: Agreement
    identity: Identity
    options: Options
    rounds: _Rounds = field(default_factory=_Rounds)
    keys: dict[int, tuple[Exchange, tuple[Any, ...], tuple[bytes, ...]]] = field(default_factory=dict, repr=False)
    joined: dict[int, dict[str, Secret]] = field(default_factory=dict, repr=False)

    def answer(self, stage: str, packet: Packet) -> Packet:
        count = _number(packet, "planes")
        wanted = planes_of(self.options, count)
        if stage == "keys" and count not in self.keys:
            contexts = tuple(plane.create() for plane in wanted)
            public = tuple(planes.public_part(context) for context in contexts)
            self.keys[count] = Exchange(self.agreement, self.identity, count), contexts, public
            return self.keys[count][0].offer(public) | {f"context:{i}": data for i, data in enumerate(public)}
        if stage == "join" and count in self.keys and count not in self.joined:
            offered = [name for name in self.agreement.holders if f"exchange:{name}" in packet]
            self._enough(offered)
            exchange = self.keys[count][0]
            self.joined[count] = {name: exchange.accept(name, packet, f":{name}") for name in offered}
            return {}
        if stage == "open" and count in self.joined:
            return self._open(packet, count, wanted)
        raise Refused(f"homomorphic-encryption: got stage {stage} out of turn; want keys, join, then open")

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:  # noqa: ARG002
        raise Refused("homomorphic-encryption: got a request to contribute; want none: the key holder holds no data")

    def _enough(self, names: Sequence[str]) -> None:
        if len(names) < self.agreement.minimum_holders:
            raise Refused(f"holders: got a sum over {len(names)}; want at least {self.agreement.minimum_holders}")

    def _open(self, packet: Packet, count: int, wanted: Sequence[Plane]) -> Packet:
        """The decrypted sum less the pads of those who are in it, once a round."""
        known, names = self.joined[count], _names(packet)
        if len(set(names)) != len(names) or not set(names) <= set(known):
            raise Refused(
                "holders: got names twice or of holders that have not joined; want each holder in the sum once"
            )
        self._enough(names)
        layout, entries = text(packet, "layout"), _number(packet, "entries")
        if len(layout) != 32:
            raise Refused(f"layout: got a digest of {len(layout)} bytes; want 32")
        blobs = _blobs(packet, "ciphertext", count)
        number = self.rounds.enter(packet)
        try:
            contexts = self.keys[count][1]
            sums = [p.decrypt(c, blob, entries) for p, c, blob in zip(wanted, contexts, blobs, strict=True)]
        except Malformed as error:
            raise Refused(str(error)) from None
        if self.options.scheme == "ckks":
            return {"sum": np.stack(sums)}
        codec = Residues(32 * count)
        pads = [codec.masks(known[name].pad(name, number, layout, entries), entries) for name in names]
        return {"sum": codec.minus(np.stack(sums).astype(np.uint64), *pads).astype(np.uint32)}


def _names(packet: Packet) -> list[str]:
    try:
        names = json.loads(text(packet, "holders"))
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError("packet: got no list of holders; want names in JSON")
    return names
