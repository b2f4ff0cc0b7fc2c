"""What a linkage is: how units of several holders are matched, what is worked out over the matched, who learns what.

One module of `statfed.strategies.linkages` is one linkage, with the halves of all roles side by side. A linkage is a
protocol of named stages between the coordinator and the parties (holders, and third parties such as a helper), as a
protection is (`statfed.core.protection`: stages, packets, agreement). What one party has for another travels through
the coordinator, which relays it and cannot read it: packets between parties are sealed. It knows nothing
of Flower, policies or ledgers: adapters at both ends carry its packets.

- The coordinator's half is a straight line: `replies = yield Stage("tags", packets)`; what it returns is an `Outcome`.
- A party's half answers a stage with a packet, once, from secrets that never leave it, and refuses anything else.
- Every direction is declared: `learns` has a row for every role, and what is not in it does not happen.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from statfed.core.discovery import load
from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Disclosure, Packet, Replies, Stage
from statfed.core.result import Result
from statfed.core.section import Section

PACKAGE = "statfed.strategies.linkages"
Reveal = Literal["size", "totals", "pairs"]
"""What comes out: the number of matched units; figures over them; the pairs themselves, at the parties named."""


@dataclass(frozen=True)
class Units:
    """One holder's units as a linkage sees them. Private.

    keys: by name of the key's part, one text a unit in its normal form (`statfed.core.linkkeys`), None where it is
    missing: such a unit matches nothing. An exact linkage has one part. columns: what is worked out over the matched,
    by name, float64 (n,), NaN nowhere. n units; the order means nothing and is never told.
    """

    keys: Mapping[str, Sequence[str | None]]
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of units."""
        return len(next(iter(self.keys.values())))

    def __repr__(self) -> str:
        return "Units(<private>)"


@dataclass(frozen=True)
class Outcome:
    """What the coordinator ends up with. figures: by name; size: matched units, None where that is not told; result:
    that of an analysis over the matched, as of any other."""

    figures: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    size: int | None = None
    result: Result | None = None


Rounds = Generator[Stage, Replies, Outcome]


class Party(Protocol):
    """One party's half of one linkage. Raises Refused, in public words, on whatever does not fit its state."""

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage."""
        ...


class Linkage(Protocol):
    """The module contract of `statfed.strategies.linkages.*`.

    TITLE: one line for lists. TRUST: assumptions under which it holds. REVEALS: what may come out of it. PARTIES:
    fewest and most holders. EXTRA: optional packages that it needs. Options: pydantic model of `[linkage] options`.
    """

    TITLE: str
    TRUST: tuple[str, ...]
    REVEALS: tuple[Reveal, ...]
    PARTIES: tuple[int, int]
    EXTRA: str
    Options: type[Section]

    def third_parties(self, options: Any) -> tuple[str, ...]:
        """Names of the parties that take part beside the holders."""
        ...

    def party(self, agreement: Agreement, identity: Identity, units: Units | None) -> Party:
        """A party's half; `identity.name` says whose. units: a holder's own, None of a third party."""
        ...

    def coordinator(self, agreement: Agreement, question: Any) -> Rounds:
        """The coordinator's half. question: what is worked out over the matched, as the linkage reads it."""
        ...

    def learns(self, agreement: Agreement, reveal: Reveal) -> Sequence[Disclosure]:
        """What each role learns."""
        ...


def load_linkage(name: str) -> Linkage:
    """The module of a linkage. Raises UsageError naming those there are."""
    module: Linkage = load(PACKAGE, name, "linkage")
    return module


def linked(rounds: Rounds, parties: Mapping[str, Party]) -> Outcome:
    """Run a linkage whose parties are all in this process: for rehearsals and tests."""
    try:
        stage = next(rounds)
        while True:
            astray = sorted(set(stage.packets) - set(parties))
            if astray:
                raise UsageError(
                    f"{stage.name}: got packets for {', '.join(astray)}; want {', '.join(sorted(parties))}"
                )
            stage = rounds.send(
                {name: parties[name].answer(stage.name, packet) for name, packet in stage.packets.items()}
            )
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
