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

from statfed.core.analysis import Arrays, Part, checked, summed
from statfed.core.errors import EngineError, Refused
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.placement import in_words
from statfed.core.protection import Aggregate, Agreement, Disclosure, Packet, Requirements, Rounds, Stage
from statfed.core.query import Query
from statfed.core.study import Section, Terms

TITLE = "Plain: contributions in clear to the coordinator, over TLS"
TRUST = ("the coordinator is trusted with each holder's contribution",)
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
        return Aggregate(_Sums(each, parts), self.agreement.holders, each)


def coordinator(agreement: Agreement) -> _Coordinator:
    """The coordinator's half."""
    return _Coordinator(agreement)


def learns(terms: Terms | Query) -> Sequence[Disclosure]:
    """The coordinator sees each holder's contribution to each round or sum."""
    if isinstance(terms, Query):
        return _of_query(terms)
    noise = (
        f"noise at the holder: epsilon {terms.privacy.epsilon:g} per {terms.privacy.unit} over all rounds"
        if terms.privacy
        else "nothing: without differential privacy an update can reveal training records"
    )
    return [
        Disclosure("coordinator", "each holder's model update in every round", noise),
        Disclosure("other holders", "the averaged model before every round", noise),
        Disclosure("result party", "the final model and its scores on the held-out persons", noise),
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content"),
    ]


def _of_query(query: Query) -> Sequence[Disclosure]:
    rules = "each holder's disclosure rules, as far as its policy sets any"
    noise = in_words(query.privacy) if query.privacy else rules
    seen = in_words(query.privacy, to_coordinator=True) if query.privacy else rules
    released = noise if query.privacy else "release rules, as far as the study sets any"
    return [
        Disclosure("coordinator", "each holder's contribution to every sum", seen),
        Disclosure("other holders", "public parameters of every sum, such as means and coefficients so far", noise),
        Disclosure("result party", f"the released result of {query.analysis}", released),
        Disclosure("all parties", "if each holder's data fit the codebook; which rule refused, if one did", "none"),
        Disclosure("anyone on the network", "message sizes and times", "TLS hides the content"),
    ]
