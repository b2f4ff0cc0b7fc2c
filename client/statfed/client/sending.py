"""Sealed packets that go from party to party: out of a reply onto a line, and off it into the next stage.

A party's half of a linkage seals what is for another and neither knows nor cares how it travels. Where a study says
`direct`, this party sends it by a line of its own (`statfed.client.direct`) before its reply leaves, and in its place
the coordinator relays a *ticket*: sender, bytes, chunks and SHA-256. The receiver puts what has come in the ticket's
place. So the linkage is the same to all halves, the coordinator's too: tickets that it swaps, repeats or makes up are
packets that it swapped, repeated or made up, which do not open (`_channels` of the linkages). Nothing falls back on the
coordinator: sealed bytes of such a run are never in a reply.
"""

import hashlib
import re
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from statfed.client.direct import Box, Head, Line, Server, chunks_of
from statfed.client.guard.addresses import Direct
from statfed.client.tunnel import Tunnel
from statfed.core.errors import Refused
from statfed.core.identity import Identity
from statfed.core.linkage import Sealed
from statfed.core.protection import Agreement, Packet

_NOTHING = hashlib.sha256().hexdigest()
Item = bytes | NDArray[Any]
_TICKET = re.compile(
    rb"statfed direct: from (?P<sender>[a-z0-9][a-z0-9-]{0,39}), (?P<size>[0-9]{1,15}) bytes in [0-9]{1,12} chunks, "
    rb"sha256 (?P<sha256>[0-9a-f]{64})"
)


def ticket(sender: str, size: int, sha256: str) -> bytes:
    """What the coordinator relays in place of a packet."""
    return f"statfed direct: from {sender}, {size} bytes in {chunks_of(size)} chunks, sha256 {sha256}".encode()


@dataclass
class _Open:
    """One run with its lines."""

    agreement: Agreement
    identity: Identity = field(repr=False)
    direct: Direct
    box: Box
    lines: dict[str, Line] = field(default_factory=dict)
    tunnels: list[Tunnel] = field(default_factory=list)

    def to(self, peer: str) -> Line:
        """The line to a party, which is opened at its first use."""
        if peer not in self.lines:
            self.lines[peer] = Line(self.identity, self.direct, peer)
        return self.lines[peer]

    def head(self, size: int, sha256: str) -> Head:
        """What goes before `size` bytes of this run."""
        return Head(run=self.agreement.run, agreement=self.box.agreement, size=size, sha256=sha256)

    def tunnel(self, peer: str, own: Path, other: Path) -> None:
        """Until the run ends, what connects to the Unix socket `other` reaches the program of `peer`, and the
        connections of that program lead to the socket `own`. Raises Refused where `peer` has no part in the run."""
        line = self.to(peer)
        self.box.programs[peer] = own
        self.tunnels.append(Tunnel(other, partial(line.stream, self.head(0, _NOTHING))))


class Sending:
    """The direct lines of one party, by run. Its address is open while a run is that uses it."""

    def __init__(self) -> None:
        self._runs: dict[str, _Open] = {}
        self._server: Server | None = None

    def open(self, agreement: Agreement, identity: Identity, direct: Direct) -> None:
        """Listen for the others of a run. Raises Refused, in public words, where this party's file or the machine does
        not allow it, and where an earlier run is open at other addresses."""
        others = set(agreement.parties) - {identity.name}
        if lacking := direct.lacks(others):
            raise Refused(lacking)
        if lost := sorted(others - set(identity.pins)):
            raise Refused(f"direct: got no pinned key of {', '.join(lost)}; want one of each party")
        if self._server is None:
            self._server = Server(identity, direct)
        elif (self._server.direct, self._server.identity.pins) != (direct, identity.pins):
            raise Refused("direct: a run is open here under other addresses or keys; want its end first")
        context = agreement.context("direct line").hex()
        box = Box(context, frozenset(others), direct.megabytes * 1_000_000)
        self._server.boxes[agreement.run] = box
        self._runs[agreement.run] = _Open(agreement, identity, direct, box)

    def close(self, run: str) -> None:
        """End a run's lines; with the last run this party stops listening."""
        found = self._runs.pop(run, None)
        if found is None:
            return
        for tunnel in found.tunnels:
            tunnel.close()
        for line in found.lines.values():
            line.close()
        found.box.close()
        if self._server is not None:
            self._server.boxes.pop(run, None)
            if not self._runs:
                self._server.stop()
                self._server = None

    def lines(self, run: str) -> _Open | None:
        """The lines of a run, for a party that has a program of its own to connect; None where it has none."""
        return self._runs.get(run)

    def received(self, run: str, packet: Packet) -> Packet:
        """A stage's packet with what has come directly in the places of its tickets.

        Raises Refused on a ticket for what is not here, or was taken already.
        """
        found = self._runs.get(run)
        return packet if found is None else {name: _taken(found.box, item) for name, item in packet.items()}

    def sent(self, run: str, packet: Packet) -> Packet:
        """A reply with tickets in the places of what it had for other parties, which is with them when this returns.

        Raises Refused where a line does not carry: nothing of the reply leaves then.
        """
        found = self._runs.get(run)
        if found is None:
            return {name: bytes(item) if isinstance(item, Sealed) else item for name, item in packet.items()}
        return {name: _sent(found, item) if isinstance(item, Sealed) else item for name, item in packet.items()}


def _taken(box: Box, item: Item) -> Item:
    said = _TICKET.fullmatch(item) if isinstance(item, bytes) and len(item) < 300 else None
    if said is None:
        return item
    sender = said["sender"].decode()
    content = box.take(sender, said["sha256"].decode())
    if content is None or len(content) != int(said["size"]):
        raise Refused(f"direct: got a ticket for a packet of {sender} that is not here, or was taken; want each once")
    return content


def _sent(run: _Open, item: Sealed) -> bytes:
    sha256 = hashlib.sha256(item).hexdigest()
    run.to(item.to).send(run.head(len(item), sha256), item)
    return ticket(run.identity.name, len(item), sha256)
