"""`plain`: every holder's contribution reaches the coordinator as it is, over an authenticated, encrypted channel.

The baseline of every comparison. It protects against outsiders only. With differential privacy each contribution is
noised at its holder before it leaves, so the coordinator's view is covered by that guarantee; without, the
coordinator sees exact model updates, from which training records can be reconstructed (Zhu et al. 2019).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.card import read_card, read_trust
from statfed.core.errors import EngineError, Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays, Part, checked, summed
from statfed.core.protection import Aggregate, Agreement, Disclosure, Packet, Requirements, Rounds, Stage
from statfed.core.section import Section
from statfed.core.terms import Terms
from statfed.strategies.protections._words import NETWORK, to_all, words_of

TITLE = "Plain: contributions in clear to the coordinator, over TLS"
TRUST = read_trust(__file__)
CARD = read_card(__file__)
REQUIRES = Requirements(minimum_holders=1, reveals_updates=True)


class Options(Section):
    """No options."""


def third_parties(options: Options) -> tuple[str, ...]:  # noqa: ARG001
    """None."""
    return ()


class _Party:
    """A holder: it sends what it has."""

    def answer(self, stage: str, packet: Packet) -> Packet:  # noqa: ARG002
        raise Refused(f"plain: got stage {stage}; want none but contributions")

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:  # noqa: ARG002
        return dict(arrays)


def party(agreement: Agreement, identity: Identity) -> _Party:  # noqa: ARG001
    """A holder's half."""
    return _Party()


class _Sums(Mapping[str, NDArray[Any]]):
    """Sums over holders by part, formed when they are looked at: training looks at single updates instead."""

    def __init__(self, each: Mapping[str, Arrays], parts: Mapping[str, Part]) -> None:
        self._each, self._parts = each, parts

    def __getitem__(self, name: str) -> NDArray[Any]:
        only = {holder: {name: arrays[name]} for holder, arrays in self._each.items()}
        return summed(only, {name: self._parts[name]})[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _within(arrays: Arrays, layout: Layout, name: str) -> None:
    """Raise EngineError where a holder sent figures larger than the total of all holders can be."""
    for key, slot in layout.slots.items():
        most = np.asarray(slot.limit, np.float64) * (1.0 + 2.0**-20)
        if not (np.abs(np.asarray(arrays[key], np.float64)) <= most).all():
            raise EngineError(
                f"{name}: {key}: got a value that no total of the agreed records can have; want its own sum"
            )


@dataclass(frozen=True)
class _Coordinator:
    agreement: Agreement

    def total(self, layout: Layout) -> Rounds:
        """The sum, the same whatever the order of the holders. Raises EngineError naming who is missing."""
        replies = yield Stage("contribute", {name: {} for name in self.agreement.holders}, carries=True)
        missing = sorted(set(self.agreement.holders) - set(replies))
        if missing:
            raise EngineError(f"contribute: no answer from {', '.join(missing)}; want every holder")
        parts = {name: Part(slot.shape, integer=slot.integer) for name, slot in layout.slots.items()}
        each = {}
        for name in self.agreement.holders:
            arrays = {key: np.asarray(value) for key, value in replies[name].items()}
            each[name] = checked(arrays, parts, name)
            if layout.fine:
                _within(each[name], layout, name)
        return Aggregate(_Sums(each, parts), self.agreement.holders, each)


def coordinator(agreement: Agreement) -> _Coordinator:
    """The coordinator's half."""
    return _Coordinator(agreement)


def learns(terms: Terms) -> Sequence[Disclosure]:
    """The coordinator sees each holder's contribution to each round or sum."""
    words = words_of(terms)
    return [
        Disclosure("coordinator", f"each holder's {words.one} {words.every}", words.seen),
        Disclosure("other holders", words.public, words.noise),
        Disclosure("result party", words.result, words.released),
        *to_all(),
        NETWORK,
    ]
