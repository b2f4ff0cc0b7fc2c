"""Drive both halves of a protection in memory: no policy, ledger, messages or Flower.

`Network` carries stages between a coordinator's generator and parties, lets holders drop out at a stage, and keeps a
transcript: everything that the coordinator sees. An attack is a generator of its own, or a changed packet.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from statfed.core.errors import StatfedError
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import (
    Aggregate,
    Agreement,
    Coordinator,
    Packet,
    Party,
    Replies,
    Rounds,
    Stage,
    conduct,
    named_protection,
)

Change = Callable[[str, str, Packet], Packet]
"""Given a stage, a party and the packet on its way to it: what arrives."""


def agreement(
    protection: str, holders: int = 3, *, minimum: int | None = None, run: str = "run", **options: Any
) -> Agreement:
    """An agreement of `holders` holders named h001, h002, ... of 100 records each."""
    module, read = named_protection(protection, options)
    names = tuple(sorted(f"h{i + 1:03}" for i in range(holders)))
    return Agreement(
        run=run,
        study="0" * 64,
        protection=protection,
        holders=names,
        third_parties=tuple(sorted(module.third_parties(read))),
        minimum_holders=holders if minimum is None else minimum,
        sizes=dict.fromkeys(names, 100),
        options=read,
    )


def identities(names: Collection[str]) -> dict[str, Identity]:
    """A key for each party, and everybody's pins at each."""
    made = {name: Identity.ephemeral(name) for name in names}
    pins = {name: one.public for name, one in made.items()}
    return {name: Identity(name, one._key, pins) for name, one in made.items()}


@dataclass
class Network:
    """A run's parties. contributions: by holder, for the sums to come; drops: stage name to holders that fall silent
    from that stage of the coming sum on; refused: what parties refused, when `tolerant`."""

    agreement: Agreement
    contributions: Mapping[str, Arrays] = field(default_factory=dict)
    drops: Mapping[str, Collection[str]] = field(default_factory=dict)
    change: Change = lambda _stage, _party, packet: packet
    tolerant: bool = False
    parties: dict[str, Party] = field(default_factory=dict)
    coordinator: Coordinator | None = None
    transcript: list[tuple[str, str, Packet]] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        module, _ = named_protection(self.agreement.protection, self.agreement.options.model_dump())
        if not self.parties:
            known = identities(self.agreement.parties)
            self.parties = {name: module.party(self.agreement, known[name]) for name in self.agreement.parties}
        self.coordinator = self.coordinator or module.coordinator(self.agreement)

    def rounds(self, layout: Layout) -> Rounds:
        """The honest coordinator's stages of one sum."""
        if self.coordinator is None:
            raise TypeError("network: got no coordinator; want one")
        return self.coordinator.total(layout)

    def sum(self, contributions: Mapping[str, Arrays], layout: Layout) -> Aggregate:
        """One protected sum by the honest coordinator."""
        return self.drive(self.rounds(layout), contributions, layout)

    def deliver(
        self, stage: Stage, name: str, packet: Packet, contributions: Mapping[str, Arrays], layout: Layout
    ) -> Packet:
        """One party's answer to one packet. Raises what the party raises."""
        if not stage.carries:
            return self.parties[name].answer(stage.name, packet)
        sizes = self.agreement.sizes
        own = layout.for_holder(sizes[name] / sum(sizes.values()))
        return self.parties[name].contribute(packet, contributions[name], own)

    def drive(self, rounds: Rounds, contributions: Mapping[str, Arrays], layout: Layout) -> Aggregate:
        """One protected sum by any coordinator."""
        gone: set[str] = set()

        def send(stage: Stage) -> Replies:
            gone.update(self.drops.get(stage.name, ()))
            replies: dict[str, Packet] = {}
            for name, packet in stage.packets.items():
                if name in gone:
                    continue
                arrived = self.change(stage.name, name, packet)
                try:
                    replies[name] = self.deliver(stage, name, arrived, contributions, layout)
                except StatfedError as error:
                    if not self.tolerant:
                        raise
                    self.refused[name] = str(error)
                    continue
                self.transcript.append((stage.name, name, replies[name]))
            return replies

        return conduct(rounds, send)
