"""The parties' halves of `multi-party`: a holder, which shares, and a node, which adds up or computes. Both refuse
whatever does not fit their state, and do each task once."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, Packet, request_of, text, whole_numbers
from statfed.strategies.protections import _mpc_functions as functions
from statfed.strategies.protections import _mpc_messages as messages
from statfed.strategies.protections import _mpc_shares as sharing
from statfed.strategies.protections._mpc_messages import Offer, Task
from statfed.strategies.protections._mpc_process import Compute

SUM = "sum"
MARGIN = 30.0  # seconds that a process has to report that its patience is over


class Holder:
    """A holder's half of a run."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        self._agreement, self._identity = agreement, identity
        self._number = 0

    def answer(self, stage: str, packet: Packet) -> Packet:  # noqa: ARG002
        raise Refused(f"multi-party: got stage {stage}; want none but share")

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        """Three sealed shares of a contribution, signed with what they are for."""
        task = Task.read(packet)
        permitted(self._agreement, task)
        wanted = text(packet, "function").decode() or SUM
        if task.function != wanted:
            raise Refused(f"multi-party: got {task.function} of what the analysis gives for {wanted}")
        if task.number <= self._number:
            raise Refused(f"multi-party: got task {task.number}; want one after {self._number}")
        if task != Task.of(task.number, task.function, layout):
            raise Refused("multi-party: got a task with another layout than this holder's")
        offers = messages.offers(packet, self._agreement, self._identity)
        self._number = task.number
        task = replace(task, asked=request_of(layout, packet))
        if task.function == SUM:
            shares: list[Any] = list(sharing.split(layout.encode(arrays), task.bits))
        else:
            functions.check(task.function, layout)
            functions.admissible(task.function, arrays)
            shares = [sharing.packed(share) for share in sharing.shamir(layout.encode(arrays))]
        secret = X25519PrivateKey.generate()
        keys = {node: offer.key for node, offer in offers.items()}
        shares = [np.ascontiguousarray(s) if isinstance(s, np.ndarray) else s for s in shares]
        sealed = messages.seal(self._agreement, task, self._identity.name, secret, keys, shares)
        own = secret.public_key().public_bytes_raw()
        signature = self._identity.sign(messages.envelope(self._agreement, task, own))
        found: dict[str, Any] = {node: np.frombuffer(share, np.uint8) for node, share in sealed.items()}
        return found | {"key": own, "signature": signature, "asked": task.asked.encode()}


def permitted(agreement: Agreement, task: Task) -> None:
    """Raises Refused on a function that the study has not agreed to."""
    options: Any = agreement.options
    if task.function != SUM and task.function not in options.functions:
        allowed = ", ".join((SUM, *options.functions))
        raise Refused(f"multi-party: got function {task.function}; want one that the study agreed to: {allowed}")


class Node:
    """A compute node's half of a run. Its secrets: the key that shares are sealed to, and shares until they are opened.

    Its compute process exists where the study has functions, and ends with this object.
    """

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        self._agreement, self._identity = agreement, identity
        self._options: Any = agreement.options
        self._secret = X25519PrivateKey.generate()
        self._index = agreement.third_parties.index(identity.name)
        self._compute: Compute | None = None
        self._offered: Offer | None = None
        self._done: set[str] = set()
        self._number = 0
        self._pending: tuple[Task, dict[str, bytes], Any] | None = None
        self._running = False

    def __repr__(self) -> str:
        return f"Node({self._identity.name}, secrets=<secret>)"

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer a stage; `failure` says what went wrong here. Raises Refused on a stage that does not come next."""
        steps = {
            "offer": self._offer,
            "listen": self._listen,
            "join": self._join,
            "gather": self._gather,
            "open": self._open,
            "collect": self._collect,
        }
        if stage not in steps:
            raise Refused(f"multi-party: got stage {stage}; want one of {', '.join(steps)}")
        if stage in self._done:
            raise Refused(f"multi-party: got stage {stage} again; want it once in a run")
        try:
            found = steps[stage](packet)
        except EngineError as error:
            self._stop()
            return {"failure": str(error).encode()}
        if stage in ("offer", "listen", "join"):
            self._done.add(stage)
        return found

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:  # noqa: ARG002
        raise Refused("multi-party: got a request for data; want none: a compute node has none")

    def _offer(self, packet: Packet) -> Packet:  # noqa: ARG002
        certificate = b""
        if self._options.functions:
            needed()
            self._compute = Compute()
            self._compute.ask({"do": "start", "name": self._identity.name, "nodes": self._agreement.third_parties})
            header, _ = self._compute.answer(self._options.patience)
            certificate = str(header["certificate"]).encode()
        public = self._secret.public_key().public_bytes_raw()
        self._offered = Offer.made(self._agreement, self._identity, public, certificate)
        return self._offered.packet()

    def _listen(self, packet: Packet) -> Packet:
        offers = messages.offers(packet, self._agreement, self._identity)
        if offers[self._identity.name] != self._offered:
            raise Refused("offer: got another than this node's own")
        host, port = self._options.address(self._identity.name)
        certificates = {node: offer.certificate.decode() for node, offer in offers.items()}
        process = self._process()
        process.ask({"do": "listen", "certificates": certificates, "host": host, "port": port})
        header, _ = process.answer(self._options.patience)
        return {"address": f"{host}:{header['port']}".encode()}

    def _join(self, packet: Packet) -> Packet:
        addresses = {node: text(packet, node).decode() for node in self._agreement.third_parties}
        patience = self._options.patience
        self._process().ask({"do": "join", "addresses": addresses, "patience": patience})
        return {}

    def _gather(self, packet: Packet) -> Packet:
        """Take in the shares of one task; the node's signature of exactly what it has."""
        agreement, task = self._agreement, Task.read(packet)
        permitted(agreement, task)
        if self._running:
            raise Refused("multi-party: got stage gather; want collect first: a function is running")
        if task.number <= self._number:
            raise Refused(f"multi-party: got task {task.number}; want one after {self._number}")
        holders = sorted({name.partition(":")[0] for name in packet if ":" in name})
        strangers = sorted(set(holders) - set(agreement.holders))
        if strangers:
            raise Refused(f"list: got {', '.join(strangers)}; want holders of this run")
        if len(holders) < agreement.minimum_holders:
            raise Refused(f"list: got {len(holders)} holders; want at least {agreement.minimum_holders}")
        if task.function != SUM:
            self._process()
        keys = {}
        for holder in holders:
            keys[holder] = text(packet, f"{holder}:key")
            signed = messages.envelope(agreement, task, keys[holder])
            self._identity.verify(holder, signed, text(packet, f"{holder}:signature"))
        self._number, self._pending = task.number, None
        shares = (self._unsealed(task, holder, keys[holder], packet) for holder in holders)
        self._pending = task, keys, self._added(task, shares) if task.function == SUM else b"".join(shares)
        return {"signature": self._identity.sign(messages.roll(agreement, task, keys))}

    def _open(self, packet: Packet) -> Packet:
        """With all nodes' signatures of the same list: this node's share of the sum, or the start of the function."""
        if self._pending is None:
            raise Refused("multi-party: got stage open; want gather first, and open once")
        task, keys, share = self._pending
        self._pending = None
        for node in self._agreement.third_parties:
            try:
                self._identity.verify(node, messages.roll(self._agreement, task, keys), text(packet, node))
            except Refused:
                raise Refused(
                    f"list: got none that {node} signed; want the same list of holders at every node"
                ) from None
        if task.function == SUM:
            return {"share": share}
        cells = prod(task.slots[_position(task, functions.FUNCTIONS[task.function].slots[0])][1])
        request = {
            "do": "evaluate",
            "function": task.function,
            "bits": task.bits,
            "holders": len(keys),
            "slots": [(name, prod(shape) // cells, cells) for name, shape in task.slots],
            "limits": vars(self._options.limits()),
            "patience": self._options.patience,
        }
        process = self._process()
        if "joined" not in self._done:
            process.answer(self._options.patience + MARGIN)
            self._done.add("joined")
        process.ask(request, share)
        self._running = True
        return {}

    def _collect(self, packet: Packet) -> Packet:  # noqa: ARG002
        """Wait for the function that was started: this node's share of its results."""
        if not self._running:
            raise Refused("multi-party: got stage collect; want open first")
        self._running = False
        _, share = self._process().answer(self._options.patience + MARGIN)
        return {"share": share}

    def _unsealed(self, task: Task, holder: str, key: bytes, packet: Packet) -> bytes:
        sealed = np.ascontiguousarray(whole_numbers(packet, f"{holder}:share")).view(np.uint8).data
        own = self._identity.name
        share = messages.unseal(self._agreement, task, holder, own, self._secret, key, sealed)
        entries = sum(prod(shape) for _, shape in task.slots)
        if task.function != SUM and len(sharing.unpacked(share)) != entries:
            raise Refused(f"share: got one of {holder} of another length; want {entries} figures")
        return share

    def _added(self, task: Task, shares: Any) -> Any:
        entries = sum(prod(shape) for _, shape in task.slots)
        total = sharing.zeros(entries, task.bits)
        for share in shares:
            if self._index == sharing.NODES - 1:
                sharing.add(total, sharing.from_bytes(share, entries, task.bits), task.bits)
            elif len(share) == sharing.SEED:
                sharing.expand(total, share, task.bits)
            else:
                raise Refused(f"share: got a seed of {len(share)} bytes; want {sharing.SEED}")
        return total

    def _process(self) -> Compute:
        if self._compute is None:
            raise Refused("multi-party: this run has no compute process at this node, or it has ended; start a new run")
        return self._compute

    def _stop(self) -> None:
        if self._compute is not None:
            self._compute.stop()
            self._compute = None


def _position(task: Task, slot: str) -> int:
    return [name for name, _ in task.slots].index(slot)


def needed() -> None:
    """Raises UsageError when MPyC is not installed."""
    from importlib.util import find_spec

    if find_spec("mpyc") is None:
        raise UsageError("multi-party: functions need MPyC: pip install 'statfed[mpc]'")


def seats(agreement: Agreement) -> Mapping[str, int]:
    """Index of each node. Raises UsageError when a node is also a holder."""
    both = sorted(set(agreement.holders) & set(agreement.third_parties))
    if both:
        raise UsageError(f"multi-party: got {', '.join(both)} as holder and as node; want nodes that hold no data")
    return {node: i for i, node in enumerate(agreement.third_parties)}
