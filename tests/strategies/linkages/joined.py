"""Linkages in this process, with every packet kept, for the tests of `helper`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from statfed.core.identity import Identity
from statfed.core.linkage import Outcome, Party, Units, linked
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import helper


def agreed(sizes: Mapping[str, int], options: helper.Options, run: str = "run") -> Agreement:
    third = helper.third_parties(options)
    return Agreement(run, "study", "helper", tuple(sorted(sizes)), third, len(sizes), dict(sizes), options)


def identities(names: tuple[str, ...]) -> dict[str, Identity]:
    made = {name: Identity.ephemeral(name) for name in names}
    pins = {name: identity.public for name, identity in made.items()}
    return {name: Identity(name, identity._key, pins) for name, identity in made.items()}


@dataclass
class Watched:
    """A party whose packets are written down."""

    party: Party
    got: list[Packet] = field(default_factory=list)
    gave: list[Packet] = field(default_factory=list)

    def answer(self, stage: str, packet: Packet) -> Packet:
        self.got.append(packet)
        self.gave.append(self.party.answer(stage, packet))
        return self.gave[-1]


@dataclass
class Run:
    outcome: Outcome
    parties: dict[str, Any]
    watched: dict[str, Watched]

    @property
    def bytes(self) -> dict[str, int]:
        """Sent by each party."""
        return {
            name: sum(x.nbytes if isinstance(x, np.ndarray) else len(x) for packet in w.gave for x in packet.values())
            for name, w in self.watched.items()
        }


def run(units: Mapping[str, Units], watched: dict[str, Watched] | None = None, **options: Any) -> Run:
    """A linkage of these holders. watched: filled with the parties, for runs that end in a refusal."""
    agreement = agreed({name: each.count for name, each in units.items()}, helper.Options(**options))
    who = identities(agreement.parties)
    parties = {name: helper.party(agreement, who[name], units.get(name)) for name in agreement.parties}
    watched = {} if watched is None else watched
    watched |= {name: Watched(party) for name, party in parties.items()}
    return Run(linked(helper.coordinator(agreement), watched), parties, watched)
