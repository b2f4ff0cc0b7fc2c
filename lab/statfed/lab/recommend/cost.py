"""What one release takes on the case's lines: modelled from bytes that are counted by running a protection once, of a
linkage from those that were measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from statfed.core.applicability import missing
from statfed.core.errors import StatfedError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.identity import Identity
from statfed.core.protection import Agreement, Packet, Party, Replies, Rounds, Stage, conduct, named_protection
from statfed.core.scenario import Case
from statfed.lab.compare.trial import Role
from statfed.lab.compare.wan import Line, seconds
from statfed.lab.recommend.techniques import Candidate
from statfed.strategies.learning.options import TrainingOptions

PLAIN_SECONDS = 0.7e-9
"""Processor seconds of a plain sum, a number and a holder: 3.5 ms for 5 holders x 1,000,000 (docs/benchmarks.md)."""
FUNCTION_SECONDS = 6e-3
"""The same of deciding dominance rules on shares, a cell and a holder: 2.9 s for 5 x 100 (docs/benchmarks.md)."""
ROUNDS: int = TrainingOptions.model_fields["rounds"].default
PATIENCE = {"once": 24.0, "yearly": 24.0, "monthly": 8.0, "continuous": 1.0}
"""Hours that one release may take, by recurrence."""
_BLOCK = 4096


@dataclass(frozen=True)
class Measured:
    """What a linkage was measured to take (docs/benchmarks.md), an item of a holder's list: processor seconds of all
    parties, bytes that the holder sends and receives; stages: exchanges in all, but for `chunk` items each another."""

    seconds: float
    bytes: float
    stages: int
    chunk: int


LINKED: dict[str, dict[str, Measured]] = {
    "ecdh": {
        "linkage": Measured(183e-6, 96, 8, 2**14),
        "statistics": Measured(284e-6, 192, 9, 2**14),
    },
    "fuzzy": {"linkage": Measured(78e-6, 88, 7, 100_000)},
    "helper": {
        "linkage": Measured(2.3e-6, 16, 5, 10**9),
        "statistics": Measured(5.8e-6, 700, 12, 10**9),
    },
}
"""By linkage and output. Statistics of helper are those of least squares with 10 columns (a table of 20 x 20 takes
three times as much, a logistic model seven times); fuzzy encodes two records and compares each with 2,500 of its block,
at 12 ns a pair."""


@dataclass(frozen=True)
class Traffic:
    """One holder's bytes in one sum, up and down: fixed + each * numbers; stages: exchanges one after another.

    first, first_stages: what comes on top once in a run.
    """

    fixed: float
    each: float
    stages: int
    first: float
    first_stages: int


@dataclass(frozen=True)
class Estimate:
    """Of one release, modelled: bytes of one holder, stages, seconds on the line, processor seconds of all."""

    bytes: float
    stages: int
    line: float
    processor: float

    @property
    def total(self) -> float:
        """Seconds altogether."""
        return self.line + self.processor


def estimate(case: Case, candidate: Candidate) -> Estimate | None:
    """What a release of the case takes under a candidate; None where the protection cannot be run here.

    A model takes the default number of rounds, statistics one sum; each sum also carries the numbers down once, as a
    model or a request travels.
    """
    if candidate.linkage:
        return _of_linkage(case, candidate)
    traffic = None if candidate.protection is None else counted(candidate.protection, narrow=case.output == "model")
    if traffic is None:
        return None
    sums, width = (ROUNDS, 4.0) if case.output == "model" else (1, 0.0)
    moved = traffic.first + sums * (traffic.fixed + (traffic.each + width) * case.numbers)
    stages = traffic.first_stages + sums * traffic.stages
    role = Role("holder", "holder", 0.0, 0, round(moved), stages)
    line = seconds([role], Line("case", "the case's own", case.bandwidth, case.latency))
    work = PLAIN_SECONDS * int(candidate.requires.cost) * case.numbers * case.parties * sums
    if case.dominance and case.output == "statistics" and candidate.release == "exact" and candidate.requires.functions:
        work += FUNCTION_SECONDS * case.numbers * case.parties
    return Estimate(moved, stages, line, work)


def _of_linkage(case: Case, candidate: Candidate) -> Estimate | None:
    """Of a linkage that was measured, by the records of a holder; None of another."""
    found = LINKED.get(str(candidate.protection), {}).get(case.output)
    if found is None:
        return None
    moved, stages = found.bytes * case.records, found.stages + case.records // found.chunk
    role = Role("holder", "holder", 0.0, 0, round(moved), stages)
    line = seconds([role], Line("case", "the case's own", case.bandwidth, case.latency))
    return Estimate(moved, stages, line, found.seconds * case.records)


@lru_cache(maxsize=64)
def counted(protection: str, narrow: bool) -> Traffic | None:
    """Bytes of one of three holders, and stages, counted in three sums of a run in memory.

    narrow: words of model updates. None where the protection is not installed completely or refuses such a run.
    """
    module, options = named_protection(protection, {})
    if missing(module.REQUIRES.extra):
        return None
    holders, nodes = ("a", "b", "c"), tuple(sorted(module.third_parties(options)))
    agreement = Agreement("run", "0" * 64, protection, holders, nodes, 3, dict.fromkeys(holders, 100), options)
    keys = {name: Identity.ephemeral(name) for name in agreement.parties}
    pins = {name: key.public for name, key in keys.items()}
    try:
        parties = {name: module.party(agreement, Identity(name, key._key, pins)) for name, key in keys.items()}
        coordinator = module.coordinator(agreement)

        def one(numbers: int) -> tuple[float, int]:
            layout = Layout({"numbers": Slot((numbers,), 1.0)}, 3, narrow=narrow)
            return _moved(coordinator.total(layout), parties, numbers, layout, narrow)

        first, again, twice = one(_BLOCK), one(_BLOCK), one(2 * _BLOCK)
    except StatfedError:
        return None
    each = _rounded((twice[0] - again[0]) / _BLOCK)
    return Traffic(
        _rounded(max(0.0, again[0] - each * _BLOCK)),
        each,
        again[1],
        _rounded(max(0.0, first[0] - again[0])),
        max(0, first[1] - again[1]),
    )


def _moved(
    rounds: Rounds, parties: Mapping[str, Party], numbers: int, layout: Layout, narrow: bool
) -> tuple[float, int]:
    """Bytes of holder `a`, and stages, in one sum of zeros."""
    moved, stages = 0.0, 0
    zeros = np.zeros(numbers, np.float32 if narrow else np.float64)

    def send(stage: Stage) -> Replies:
        nonlocal moved, stages
        stages += 1
        replies = {}
        for name, packet in stage.packets.items():
            party = parties[name]
            if stage.carries:
                replies[name] = party.contribute(packet, {"numbers": zeros}, layout.for_holder(1 / 3))
            else:
                replies[name] = party.answer(stage.name, packet)
            if name == "a":
                moved += _size(packet) + _size(replies[name])
        return replies

    conduct(rounds, send)
    return moved, stages


def _size(packet: Packet) -> int:
    return sum(len(name) + (len(part) if isinstance(part, bytes) else part.nbytes) for name, part in packet.items())


def _rounded(number: float) -> float:
    """Two significant digits: ciphertexts are compressed, so that their lengths differ a little."""
    return round(number, 1 - math.floor(math.log10(number))) if number > 0 else 0.0
