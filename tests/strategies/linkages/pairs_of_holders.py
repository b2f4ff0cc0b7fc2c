"""Two holders of an ECDH linkage in memory, with whatever stands between them and whatever one of them does instead."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.linkage import Outcome, Units
from statfed.core.protection import Agreement, Packet, Stage
from statfed.strategies.linkages import ecdh
from statfed.strategies.linkages._ecdh_party import Matcher, Mirror
from tests.protocol import identities

Keys = Sequence[str | None]
Change = Callable[[str, str, Packet], Packet]
"""Given a stage, a party and the packet on its way to it: what arrives."""
Spoil = Callable[[str, int, bytes], bytes]
"""Given a stage, the number of a message and what a holder means to say in it: what it says."""


def agreed(sizes: Mapping[str, int] | None = None, run: str = "run", **options: Any) -> Agreement:
    """An agreement of office and bank; the office is whom it comes out at unless `to` says otherwise."""
    read = ecdh.Options(**{"to": "office", "chunk": 64, "minimum": 0, **options})
    sizes = {"bank": 100, "office": 100} if sizes is None else dict(sorted(sizes.items()))
    return Agreement(run, "0" * 64, "ecdh", tuple(sizes), (), 2, sizes, read)


@dataclass
class Run:
    """A linkage of office and bank. sent: everything that the coordinator sees; heard: what each holder has opened."""

    office: Keys
    bank: Keys
    columns: Mapping[str, Mapping[str, NDArray[np.float64]]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Change = lambda _stage, _party, packet: packet
    spoils: Mapping[str, Spoil] = field(default_factory=dict)
    keep: Mapping[str, Path] = field(default_factory=dict)
    run: str = "run"
    sizes: Mapping[str, int] | None = None
    sent: list[tuple[str, str, Packet]] = field(default_factory=list)
    heard: dict[str, list[tuple[str, bytes]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys = {"bank": self.bank, "office": self.office}
        sizes = {name: len(one) for name, one in keys.items()} if self.sizes is None else self.sizes
        self.agreement = agreed(sizes, self.run, **self.options)
        known = identities(self.agreement.parties)
        self.parties: dict[str, Matcher | Mirror] = {}
        for name in self.agreement.parties:
            units = Units({"id": keys[name]}, self.columns.get(name, {}))
            self.parties[name] = ecdh.party(self.agreement, known[name], units, self.keep.get(name))
            self._watch(name, self.parties[name])

    def _watch(self, name: str, party: Matcher | Mirror) -> None:
        gives, takes = party._gives, party._takes

        def said(stage: str, number: int, content: bytes) -> Packet:
            spoil = self.spoils.get(name)
            return gives(stage, number, content if spoil is None else spoil(stage, number, content))

        def opened(stage: str, number: int, packet: Packet, size: int, item: str = "chunk") -> bytes:
            content = takes(stage, number, packet, size, item)
            self.heard.setdefault(name, []).append((stage, content))
            return content

        vars(party).update(_gives=said, _takes=opened)

    def outcome(self) -> Outcome:
        """Run it."""
        rounds = ecdh.coordinator(self.agreement)
        try:
            stage = next(rounds)
            while True:
                stage = rounds.send(self._answers(stage))
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

    def _answers(self, stage: Stage) -> dict[str, Packet]:
        replies: dict[str, Packet] = {}
        for name, packet in stage.packets.items():
            replies[name] = self.parties[name].answer(stage.name, self.change(stage.name, name, packet))
            self.sent.append((stage.name, name, replies[name]))
        return replies


def numbered(start: int, stop: int) -> list[str]:
    """Keys of persons `start` to `stop`."""
    return [f"person {i:05}" for i in range(start, stop)]
