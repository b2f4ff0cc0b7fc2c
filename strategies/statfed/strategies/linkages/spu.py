"""Exact matching of two holders' units for tens of millions: SPU's set intersection (RR22 or KKRT) as a sidecar.

Two holders agree on a key over their sealed channel, make keyed tags of their units (`_tags`), fill both lists up with
random tags to the agreed numbers of items and put them in a secret order. SPU, a program of its own beside each holder
(`_spu_program`), finds the tags that both have: by oblivious pseudorandom functions from vector oblivious linear
evaluation (RR22: Raghuraman and Rindal 2022) or from oblivious transfer (KKRT: Kolesnikov, Kumaresan, Rosulek and Trieu
2016). Its result comes out at one holder, `to`, which so learns **which** of its units match; there is no mode of it in
which nobody does. So `pairs` is what is offered, and the number of matches is told as what follows from it.

*Why it holds*, among holders who follow the protocol (semi-honest), and against everybody else:

- *The receiver* gets values of a pseudorandom function at its own items and, in the other's secret order, at the
  other's: those of items that it does not have look random to it. *The sender* sees messages of the receiver's that
  look random. Both papers prove it; that SPU does what they say is its authors' word.
- *The coordinator* relays the sealed parts of the key and is told a size. SPU's messages never pass it: they go by the
  direct line of the two (`direct`), under TLS 1.3 and the pinned identity keys. SPU's own link is not used between
  machines: with TLS on, its listener takes plain connections too, and so proves nobody. It listens on a Unix socket in
  a folder that its owner alone can open.
- *Tags* instead of keys are what SPU gets, so that files and memory of the sidecar hold no key of a person. Both
  holders have the key: tags hide nothing from them that the protocol does not.

*Not claimed.* SPU says of itself that it is not designed for production, and not to use it directly there; it has had
no review of ours, and RR22's parameters (silent vector OLE on learning parity with noise) are its own. Against a holder
who deviates the same holds as of `ecdh`: a list is what its holder says, every guess takes an item, and
`limits.linkages` counts. SPU leaves a file with times of its steps under /tmp, which is removed at the end of a run.

*Cost*: `benchmarks/linkage_spu.py`.
"""

import hashlib
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError

from statfed.core.card import read_card
from statfed.core.errors import EngineError, Refused, StatfedError, UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import Asked, Estimate, Lines, Outcome, Pairs, Reveal, Rounds, Units
from statfed.core.protection import Agreement, Disclosure, Packet, Replies, Stage, reading, text, whole_numbers
from statfed.core.section import Section, describe
from statfed.strategies.linkages._channels import MEET, OFFER, Channels, met
from statfed.strategies.linkages._spu_program import COMMANDS, VERSION, Program, python
from statfed.strategies.linkages._tags import KEY, fresh, matched, padded, permutation, tags

TITLE = f"Two holders, tens of millions: set intersection of SPU {VERSION} as a sidecar (RR22, KKRT)"
TRUST = (
    'SPU, which says of itself: "NOT designed for production ... DO NOT use it directly in production"; each holder '
    f"makes an environment for it: {'; '.join(COMMANDS)}",
    "both holders follow the protocol (semi-honest): a list is what its holder says, and one that deviates can find "
    "out which of the keys that it guesses are units of the other, up to the agreed number of items",
    "the holder that the pairs are told to applies the minimum size to what the coordinator is told",
    "RR22: learning parity with noise, as SPU sets its parameters; KKRT: oblivious transfer; HMAC-SHA256",
    "each holder has pinned the other's identity key; SPU's messages go by their direct line alone",
)
REVEALS: tuple[Reveal, ...] = ("pairs",)
PARTIES = (2, 2)
EXTRA = ""
METHODS: tuple[str, ...] = ()
PARTED = False
PRIVATE: tuple[Reveal, ...] = ()
PRIVATELY: tuple[str, ...] = ()
ESTIMATES: tuple[Estimate, ...] = ()
CARD = read_card(__file__)
QUALITY = ("Keys are compared by equal tags: two units whose normal forms are the same are linked, right or wrong.",)
MOST = 100_000_000
PRODUCTION = 'none: SPU says of itself that it is "NOT designed for production"'
PART, START, FOUND, SIZE, WITHHELD = "part", "start", "found", "size", "withheld"


class Options(Section):
    """Options of spu."""

    to: str = Field(description="holder that learns which of its own units match")
    minimum: int = Field(default=10, ge=0, description="a smaller size is not told to the coordinator")
    pad_to: dict[str, int] = Field(
        default_factory=dict, description="items of each holder's list, filled up; by default its public size"
    )
    ratio: float = Field(
        default=100.0,
        ge=1,
        description="most items of one list for each of the other's",
        json_schema_extra={"weaker": "above"},
    )
    protocol: Literal["rr22", "kkrt"] = Field(default="rr22", description="of SPU: rr22, or the older kkrt")
    seconds: float = Field(default=3600.0, gt=0, le=86_400, description="most that the intersection may take")


def agreed(asked: Asked) -> Options:
    """What the two holders agree on, of a study. Raises UsageError on what spu cannot do or has no option for."""
    linking, given = asked.linking, dict(asked.linking.options)
    if not linking.direct:
        raise UsageError("spu: got no direct line; want direct = true (--direct): its messages pass no coordinator")
    if len(linking.to) != 1:
        raise UsageError(f"to: got {', '.join(linking.to) or 'nobody'}; want one holder, which sees the pairs")
    fixed = {"to": linking.to[0], "minimum": linking.minimum_frequency}
    if linking.cap is not None:
        fixed["pad_to"] = dict.fromkeys(asked.terms.holders, linking.cap)
    if clash := sorted(set(fixed) & set(given)):
        raise UsageError(f"options: got {', '.join(clash)}; want them where the study says what is linked")
    try:
        return Options.model_validate(given | fixed)
    except ValidationError as error:
        raise UsageError(describe(error, "linkage spu", "its options", Options)) from None


def slots(agreement: Agreement) -> dict[str, int]:
    """Items of each holder's list. Raises UsageError on an agreement that is none of spu."""
    options = agreement.options
    if not isinstance(options, Options):
        raise UsageError("spu: got options of something else; want its own")
    if len(agreement.holders) != 2 or agreement.third_parties:
        raise UsageError(f"spu: got {len(agreement.parties)} parties; want two holders and nobody else")
    if not {options.to, *options.pad_to} <= set(agreement.holders):
        raise UsageError(f"to, pad_to: got others than holders; want of {', '.join(agreement.holders)}")
    found = {name: options.pad_to.get(name, agreement.sizes[name]) for name in agreement.holders}
    least, most = min(found.values()), max(found.values())
    if least < max(1, options.minimum) or most > MOST or most > options.ratio * least:
        raise UsageError(
            f"pad_to: got lists of {least} and {most} items; want {max(1, options.minimum)} (minimum) to {MOST} each, "
            f"and at most {options.ratio:g} for each of the other's"
        )
    return found


def figures(agreement: Agreement) -> int:
    """For every item of the receiver's, if it matches."""
    return slots(agreement)[_options(agreement).to]


def lists(agreement: Agreement) -> Mapping[str, int]:
    """Items of each holder's list."""
    return slots(agreement)


def stepwise(agreement: Agreement, holder: str) -> tuple[int, int]:  # noqa: ARG001
    """All figures come out at once."""
    return figures(agreement), 0


def noise(options: Options) -> None:
    """None is added."""


def seen(options: Options, holders: Sequence[str]) -> Mapping[str, Reveal]:  # noqa: ARG001
    """Nothing is told with noise."""
    return {}


def third_parties(options: Options) -> tuple[str, ...]:  # noqa: ARG001
    """None."""
    return ()


def ready() -> None:
    """Raises Refused, with the commands that make it, where this holder has no environment of SPU."""
    python()


def party(agreement: Agreement, identity: Identity, units: Units | None, keep: Path | None = None) -> "Half":  # noqa: ARG001
    """A holder's half. keep: left alone, SPU goes on with nothing.

    Raises UsageError on anybody else's, Refused on units that do not fit the agreement.
    """
    if units is None or identity.name not in agreement.holders:
        raise UsageError(f"spu: got no units of {identity.name}; want a holder's own")
    return Half(agreement, identity, units)


class Half:
    """A holder's half: a part of the key, then its list to SPU, then what SPU found. Each stage once, in order.

    pairs: which of its units match, at the holder `to`, at the end.
    """

    def __init__(self, agreement: Agreement, identity: Identity, units: Units) -> None:
        self._agreement, self._units, self._options = agreement, units, _options(agreement)
        self._name, self._slots = identity.name, slots(agreement)[identity.name]
        self._other = next(name for name in agreement.holders if name != identity.name)
        self._channels = Channels(agreement, identity)
        self._part = os.urandom(KEY)
        self._stages = [OFFER, MEET, PART, START, FOUND]
        self._lines: Lines | None = None
        self._program: Program | None = None
        self.pairs: Pairs | None = None
        if units.count > self._slots:
            raise Refused(f"units: got more than the agreed {self._slots:,}; want at most so many")

    def __repr__(self) -> str:
        return "Half(<private>)"

    def lined(self, lines: Lines | None) -> None:
        """The run's direct lines, which SPU's connections take."""
        self._lines = lines

    def close(self) -> None:
        """End SPU and forget its files."""
        self._stages = []
        if self._program is not None:
            self._program.close()

    def answer(self, stage: str, packet: Packet) -> Packet:
        """Answer one stage. Raises Refused on any other than the next, and after that on all."""
        want = self._stages.pop(0) if self._stages else "none"
        try:
            if stage != want:
                raise Refused(f"spu: got another stage than the next, {want}; want each once and in order")
            if stage == OFFER:
                return self._channels.offer()
            if stage == MEET:
                return self._channels.meet(packet)
            if stage == PART:
                return {PART: self._channels.seal(self._other, PART, self._part)}
            return self._started(packet) if stage == START else self._ended()
        except StatfedError:
            self.close()
            raise

    def _started(self, packet: Packet) -> Packet:
        theirs = self._channels.open(self._other, PART, text(packet, PART))
        if len(theirs) != KEY:
            raise Refused(f"{PART}: got {len(theirs)} bytes of {self._other}; want {KEY}")
        if self._lines is None:
            raise Refused("spu: got no direct line; want one, which its messages take")
        parts = {self._name: self._part, self._other: theirs}
        joined = b"".join(parts[name] for name in self._agreement.holders)
        key = hashlib.sha256(self._agreement.context("spu tags") + joined).digest()
        found, self._places = tags(key, self._units)
        stream = fresh()
        listed = padded(found, self._slots, stream)
        self._order = permutation(stream, len(listed))
        self._listed = listed[self._order]
        self._program = Program(self._listed)
        self._lines.tunnel(self._other, self._program.own, self._program.other)
        first, second = self._agreement.holders
        options, run = self._options, self._agreement.context("spu run").hex()
        self._program.start(run, (first, second), self._name, options.to, options.protocol, options.seconds)
        return {}

    def _ended(self) -> Packet:
        if self._program is None:
            raise Refused("spu: got no program that runs; want it started")
        receives = self._name == self._options.to
        found = self._program.found(self._options.seconds, receives=receives)
        self.close()
        if not receives:
            return {}
        both = matched([self._listed, found])
        places = self._order[both[:, 0]]
        if len(both) != len(found) or (places >= len(self._places)).any():
            raise EngineError("spu: got tags that are no units of this holder; want some of its list")
        self.pairs = Pairs(np.sort(self._places[places]), np.arange(len(places)))
        size = len(places)
        return {WITHHELD: b"1"} if size < self._options.minimum else {SIZE: np.array(size)}


def coordinator(agreement: Agreement) -> Rounds:
    """The coordinator's half. Raises UsageError on an agreement that does not fit, EngineError where a holder does not
    answer, or answers what it cannot have."""
    return _rounds(agreement, slots(agreement))


def _rounds(agreement: Agreement, lists: dict[str, int]) -> Rounds:
    options, holders = _options(agreement), agreement.holders
    yield from met(agreement)
    replies = yield from _both(PART, {name: {} for name in holders})
    parts = {}
    for name, other in (holders, holders[::-1]):
        with reading(other):
            parts[name] = {PART: text(replies[other], PART)}
    yield from _both(START, parts)
    replies = yield from _both(FOUND, {name: {} for name in holders})
    report = replies[options.to]
    with reading(options.to):
        if WITHHELD in report:
            return Outcome()
        size = whole_numbers(report, SIZE)
        if size.shape != () or not np.issubdtype(size.dtype, np.integer):
            raise EngineError("size: got no whole number; want one")
        if not options.minimum <= size <= min(lists.values()):
            raise EngineError(f"size: got one that cannot be; want {options.minimum} to {min(lists.values())}")
    return Outcome(size=int(size))


def _both(stage: str, packets: Mapping[str, Packet]) -> Generator[Stage, Replies, Replies]:
    replies = yield Stage(stage, packets)
    if gone := sorted(set(packets) - set(replies)):
        raise EngineError(f"{stage}: no answer from {', '.join(gone)}; want both holders")
    return replies


def _options(agreement: Agreement) -> Options:
    if not isinstance(agreement.options, Options):
        raise UsageError("spu: got options of something else; want its own")
    return agreement.options


def learns(agreement: Agreement, reveal: Reveal) -> Sequence[Disclosure]:
    """What each role learns. Raises UsageError on anything but pairs."""
    if reveal != "pairs":
        raise UsageError(f"reveal: got {reveal}; want pairs: SPU tells one holder which of its own units match")
    options, lists = _options(agreement), slots(agreement)
    other = next(name for name in agreement.holders if name != options.to)
    agreed_on = {name: f"{count} items" for name, count in options.pad_to.items()}
    many = " and ".join(f"{agreed_on.get(name, 'its public size')} ({name})" for name in sorted(lists))
    name = options.protocol.upper()
    hidden = f"minimum of {options.minimum}, judged by {options.to}"
    return [
        Disclosure(options.to, "which of its own units match", "none: that is what SPU gives the receiver"),
        Disclosure(options.to, f"nothing else of the units of {other}", f"{name} as in SPU, a secret order"),
        Disclosure(other, f"nothing of the units of {options.to}, nor how many match", f"{name} as in SPU"),
        Disclosure("coordinator", "the number of matched units, or that it is below the minimum", hidden),
        Disclosure("coordinator", "no key, no tag, no message of SPU", "sealing, and the holders' direct line"),
        Disclosure("result party", "the number of matched units, if the coordinator releases it", hidden),
        Disclosure("all parties", f"the agreed lengths of the lists: {many}", "none; filled up where agreed"),
        Disclosure("whoever knows a fault of SPU", "what it gives away of either list", PRODUCTION),
    ]
