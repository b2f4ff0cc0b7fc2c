"""What travels in `multi-party`: tasks, nodes' signed offers, sealed shares and signed lists. No state.

Every signature is by an identity key that its reader has pinned, over `agreement.context(purpose)`, which stands for
run, study, parties and options; every sealing key is bound to the same. So nothing of one run, task, holder or node
can be passed off as another's.

A share is sealed to one node: X25519 (RFC 7748) between a key that the holder makes for this one task and the node's
key of this run, HKDF-SHA256 (RFC 5869), AES-256-GCM with each key used once. The holder signs its half of the key
exchange together with the task: only it can have sealed what opens under that key, apart from the node itself. Neither
key outlives the run, so a later theft of identity keys opens nothing.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from statfed.core.errors import Refused
from statfed.core.fixed_point import Bits, Layout
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet, text

_NONCE = bytes(12)  # each key seals one message


@dataclass(frozen=True)
class Task:
    """One computation: the number-th of its run. slots: name and shape of what each holder puts in.

    asked: digest of units and request (`core.protection.request_of`), which each holder fills in for itself before it
    signs and seals; nodes take holders into one list only where it is the same. Empty on the way to holders.
    """

    number: int
    function: str
    bits: Bits
    slots: tuple[tuple[str, tuple[int, ...]], ...]
    asked: str = ""

    @classmethod
    def of(cls, number: int, function: str, layout: Layout) -> "Task":
        """The task of forming `function` of contributions in `layout`."""
        slots = tuple((name, tuple(slot.shape)) for name, slot in sorted(layout.slots.items()))
        return cls(number, function, layout.bits, slots)

    @classmethod
    def read(cls, packet: Packet) -> "Task":
        """The task of a packet. Raises Refused when it is not one."""
        try:
            table: dict[str, Any] = json.loads(text(packet, "task"))
            slots = tuple((str(name), tuple(int(n) for n in shape)) for name, shape in table["slots"])
            task = cls(int(table["number"]), str(table["function"]), table["bits"], slots, str(table["asked"]))
        except (ValueError, KeyError, TypeError):
            raise Refused("task: not understood; want number, function, bits, slots and asked") from None
        if task.bits not in (32, 64, 192) or any(n < 0 for _, shape in slots for n in shape):
            raise Refused("task: not understood; want 32, 64 or 192 bits and shapes")
        return task

    def text(self) -> bytes:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Offer:
    """What a node brings to a run. key: X25519, 32 bytes; certificate: PEM of its channel, empty without functions."""

    key: bytes
    certificate: bytes
    signature: bytes

    @classmethod
    def made(cls, agreement: Agreement, identity: Identity, key: bytes, certificate: bytes) -> "Offer":
        """A node's own, signed."""
        return cls(key, certificate, identity.sign(_offer(agreement, identity.name, key, certificate)))

    def packet(self, prefix: str = "") -> dict[str, bytes]:
        """Its part of a packet."""
        return {f"{prefix}{name}": value for name, value in vars(self).items()}

    @classmethod
    def read(cls, packet: Packet, prefix: str = "") -> "Offer":
        """Its part of a packet, not verified."""
        return cls(*(text(packet, f"{prefix}{name}") for name in ("key", "certificate", "signature")))


def _offer(agreement: Agreement, node: str, key: bytes, certificate: bytes) -> bytes:
    return agreement.context("multi-party offer") + digest(node.encode(), key, certificate)


def offers(packet: Packet, agreement: Agreement, identity: Identity) -> dict[str, Offer]:
    """All nodes' offers in a packet, each verified by the key pinned for the node. Raises Refused otherwise."""
    found = {node: Offer.read(packet, f"{node}:") for node in agreement.third_parties}
    for node, offer in found.items():
        identity.verify(node, _offer(agreement, node, offer.key, offer.certificate), offer.signature)
    return found


def envelope(agreement: Agreement, task: Task, key: bytes) -> bytes:
    """What a holder signs: that `key` is its half of the key exchange, for this task."""
    return agreement.context("multi-party share") + digest(task.text(), key)


def roll(agreement: Agreement, task: Task, keys: Mapping[str, bytes]) -> bytes:
    """What nodes sign before they open anything: the task and exactly which holders' shares are in it.

    keys: by holder, its half of the key exchange.
    """
    entries = [part for holder, key in sorted(keys.items()) for part in (holder.encode(), key)]
    return agreement.context("multi-party list") + digest(task.text(), *entries)


def seal(
    agreement: Agreement,
    task: Task,
    holder: str,
    secret: X25519PrivateKey,
    nodes: Mapping[str, bytes],
    shares: Sequence[Any],
) -> dict[str, bytes]:
    """Shares, each encrypted to its node. nodes: X25519 public keys by node, in the order of `shares`."""
    own = secret.public_key().public_bytes_raw()
    return {
        node: AESGCM(_derived(agreement, task, holder, node, secret, public, own + public)).encrypt(
            _NONCE, memoryview(share).cast("B"), None
        )
        for (node, public), share in zip(nodes.items(), shares, strict=True)
    }


def unseal(
    agreement: Agreement,
    task: Task,
    holder: str,
    node: str,
    secret: X25519PrivateKey,
    key: bytes,
    sealed: bytes | memoryview,
) -> bytes:
    """A node's share from `holder`. key: the holder's half of the key exchange. Raises Refused when it was changed."""
    try:
        both = key + secret.public_key().public_bytes_raw()
        return AESGCM(_derived(agreement, task, holder, node, secret, key, both)).decrypt(_NONCE, sealed, None)
    except (InvalidTag, ValueError):
        raise Refused(f"share: got one of {holder} that does not open; want it as sealed for {node}") from None


def _derived(
    agreement: Agreement, task: Task, holder: str, node: str, secret: X25519PrivateKey, public: bytes, both: bytes
) -> bytes:
    shared = secret.exchange(X25519PublicKey.from_public_bytes(public))
    about = agreement.context("multi-party seal") + digest(task.text(), holder.encode(), node.encode(), both)
    return HKDF(SHA256(), 32, salt=None, info=about).derive(shared)


def digest(*parts: bytes) -> bytes:
    """SHA-256 of parts, each with its length."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()
