"""Laws of what a party refuses and what its messages tell: a protection that hides contributions has to keep them all.

None of them is a proof. A protection that breaks one does not hide what it says; one that keeps all may still not.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import StatfedError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.identity import Identity
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, Packet, Party, Replies, Stage, conduct
from statfed.lab.laws.check import Broken, Law, holds
from statfed.lab.laws.network import Network, identities
from statfed.lab.laws.sums import Subject, carried, contributions, layouts, stages

MANY = 400  # figures of a contribution: its messages are then large beside keys, digests and signatures
LARGE = 1000  # bytes from which on a field of a message is about the contribution
FEW = 16  # figures that are looked for: of many more, chance alone would find some in every run
RUNS = 4
NEXT = 2.0**-36  # relative distance at which a word of 64 bits is a figure, not one of many next to it by chance
HIDDEN = "does not apply: the coordinator is shown contributions"


def _unknown(subject: Subject) -> str:
    made = subject.agreement()
    known = identities(made.parties)
    for name in made.parties:
        party = subject.module.party(made, known[name])
        _refused(lambda party=party: party.answer("no-such-stage", {}), f"{name}: stage no-such-stage")
    return f"{len(made.parties)} parties"


def _refused(call: Any, what: str) -> None:
    try:
        call()
    except StatfedError:
        return
    raise Broken(f"{what}: got an answer; want a refusal")


def _replayed(subject: Subject) -> str:
    if subject.requires.reveals_updates:
        return HIDDEN
    made = subject.agreement()
    _, layout = next(layouts(len(made.holders)))
    given, other = (contributions(layout, made, seed) for seed in (60, 61))
    names = [stage.name for stage in stages(made, layout, given)]
    for number in range(len(names)):
        network, count = Network(made), iter(range(len(names)))

        def send(stage: Stage, number: int = number, network: Network = network, count: Any = count) -> Replies:
            replies = {name: network.deliver(stage, name, p, given, layout) for name, p in stage.packets.items()}
            if next(count) == number:
                for name, packet in stage.packets.items():
                    again = (stage, name, packet, other, layout)
                    _refused(lambda again=again: network.deliver(*again), f"{name}: stage {stage.name} a second time")
                raise _Enough
            return replies

        try:
            conduct(network.rounds(layout), send)
        except _Enough:
            continue
    return f"{', '.join(names)}: each is answered once"


class _Enough(Exception):  # not an error: it ends a run that has been looked at
    """Raised when the stage in question is over."""


def _forms(made: Agreement, parties: Mapping[str, Party]) -> bool:
    """Does a run of these parties come to a total?"""
    _, layout = next(layouts(len(made.holders)))
    given = contributions(layout, made, seed=70)
    try:
        dict(Network(made, parties=dict(parties)).sum(given, layout).total)
    except StatfedError:
        return False
    return True


def _foreign(subject: Subject) -> str:
    if subject.requires.reveals_updates:
        return HIDDEN
    made = subject.agreement()
    for what, other in (("run", replace(made, run="other")), ("study", replace(made, study="1" * 64))):
        for stranger in (made.holders[-1], *made.third_parties):
            known = identities(made.parties)
            parties = {
                name: subject.module.party(other if name == stranger else made, known[name]) for name in made.parties
            }
            holds(not _forms(made, parties), f"{stranger} is of another {what}: got a total; want an error")
    return "another run, another study: no total"


def _pins(subject: Subject) -> str:
    if not subject.requires.identities:
        return "does not apply: REQUIRES asks for no identities"
    made = subject.agreement()
    for doubtful in made.parties:
        known = identities(made.parties)
        wrong = {name: Identity.ephemeral(name).public for name in made.parties}
        for pins in (wrong, {}):
            changed = known | {doubtful: replace(known[doubtful], pins=pins)}
            try:
                parties = {name: subject.module.party(made, changed[name]) for name in made.parties}
            except StatfedError:
                continue
            what = "wrong pins" if pins else "no pins"
            holds(not _forms(made, parties), f"{doubtful} has {what} of all others: got a total; want a refusal")
    return "wrong and missing pins at each party: no total"


def _layout(bits: int, entries: int, holders: int) -> Layout:
    slot = {32: Slot((entries,), 1000.0), 64: Slot((entries,), 1e6), 192: Slot((entries,), np.inf)}[bits]
    return Layout({"x": slot}, holders, narrow=bits == 32)


def raw(packet: Packet) -> Iterator[tuple[NDArray[np.float64], float]]:
    """A packet's fields, bytes and arrays, read as numbers of 64 bits: absolute values, sorted, and the least of them
    that has enough places to be told from its neighbours."""
    for item in packet.values():
        text = np.ascontiguousarray(item).tobytes() if isinstance(item, np.ndarray) else item
        for kind, least in (("<f8", 0.0), ("<i8", 1 / NEXT)):
            words = np.abs(np.frombuffer(text[: len(text) // 8 * 8], kind).astype(np.float64))
            yield np.sort(words[np.isfinite(words)]), least


def written(words: NDArray[np.float64], least: float, figures: NDArray[np.float64]) -> bool:
    """Does one of the figures (positive), times a power of two, stand among sorted words to 36 binary places?"""
    wanted = np.multiply.outer(2.0 ** np.arange(-8, 63), figures).reshape(-1)
    wanted = wanted[wanted >= least] if len(words) else wanted[:0]
    place = np.minimum(np.searchsorted(words, wanted * (1 - NEXT)), len(words) - 1)
    return bool((np.abs(words[place] - wanted) <= NEXT * wanted).any())


def _read(subject: Subject) -> str:
    """A figure is read when it is seen in every one of several runs, each with randomness of its own: in one of them a
    word of 32 bits is next to one of the figures by chance about once in fifty runs."""
    if subject.requires.reveals_updates:
        return HIDDEN
    from statfed.lab.compare.views import figures_in, read_off

    made = subject.agreement()
    for bits in (32, 64, 192):
        layout = _layout(bits, FEW, len(made.holders))
        given = contributions(layout, made, seed=80)
        figures = [figures_in(arrays.values()) for arrays in given.values()]
        shares = []
        for _ in range(RUNS):
            network = Network(made)
            network.sum(given, layout)
            packets = [packet for _, _, packet in network.transcript]
            arrays = [item for packet in packets for item in packet.values() if isinstance(item, np.ndarray)]
            share = max(read_off(arrays, one) for one in figures)
            plain = any(written(*words, one) for packet in packets for words in raw(packet) for one in figures)
            shares.append(1.0 if plain else share)
        holds(
            min(shares) == 0,
            f"{bits} bits: got {min(shares):.0%} of a holder's figures in what the coordinator sees; want none",
        )
    return f"{FEW} figures a holder, three widths, {RUNS} runs each: none is seen"


def _fresh(subject: Subject) -> str:
    if subject.requires.reveals_updates:
        return HIDDEN
    made = subject.agreement()
    layout = _layout(64, MANY, len(made.holders))
    given: dict[str, Arrays] = contributions(layout, made, seed=90)
    first = Network(made)
    sent = [carried(first, layout, given), carried(first, layout, given), carried(Network(made), layout, given)]
    looked = 0
    for name in made.holders:
        for what, other in (("the next sum", sent[1]), ("the next run", sent[2])):
            for key, item in sent[0][name].items():
                if _bytes(item) is None or key not in other[name]:
                    continue
                looked += 1
                holds(
                    _bytes(item) != _bytes(other[name][key]),
                    f"{name}: {key}: got the same message of the same contribution in {what}; want fresh randomness",
                )
    holds(looked, f"got no field of {LARGE} bytes or more in any message about {MANY} figures; want the contribution")
    return "the same contribution, in two sums and in two runs: other messages"


def _bytes(item: Any) -> bytes | None:
    """What is large of a message."""
    raw = item if isinstance(item, bytes) else np.ascontiguousarray(item).tobytes()
    return raw if len(raw) >= LARGE else None


LAWS: tuple[Law[Subject], ...] = (
    Law("unknown stage", "A stage that is not of the protocol is refused", _unknown),
    Law("replay", "A stage is answered once", _replayed),
    Law("other run", "A party of another run or study does not help to a total", _foreign),
    Law("pins", "Parties that have pinned other keys refuse", _pins),
    Law("hidden", "No figure of a holder can be read off what the coordinator sees", _read),
    Law("fresh", "The same contribution looks different each time", _fresh),
)
