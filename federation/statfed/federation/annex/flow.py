"""Who sends what to whom in a linkage, stage by stage, for an agreement: traced, never described by hand.

The linkage is run once in memory with made-up units of the study's own codebooks, and what a party's answer has in it
is found again in what others are sent. So the flow is that of the module which would run, whichever it is. Nothing is
known of data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from statfed.core.codebook import Codebook
from statfed.core.errors import StatfedError
from statfed.core.identity import Identity
from statfed.core.linkage import Asked, InPlace, Linking, Units
from statfed.core.linkkeys import KeyPart, read_key, together
from statfed.core.protection import Agreement, Packet, Stage, agree
from statfed.core.terms import Terms

COORDINATOR = "coordinator"
FEWEST, MOST = 200, 4_000
"""Made-up units of a holder: four times the minimum frequency, within these."""
_SHORT = 16  # bytes of numbers of rounds and chunks, which say nothing of whose they are
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
_SEED = 1


@dataclass(frozen=True, order=True)
class Arrow:
    """What goes from one party to another. what: names of entries, as the protocol calls them."""

    sender: str
    receiver: str
    what: str

    @property
    def relayed(self) -> bool:
        """Does it pass through the coordinator?"""
        return COORDINATOR not in (self.sender, self.receiver)


@dataclass(frozen=True)
class Step:
    """Exchanges of one stage that look alike, one after another. first: number of the first of them."""

    stage: str
    first: int
    times: int
    arrows: tuple[Arrow, ...]

    @property
    def label(self) -> str:
        """Number and name."""
        last = self.first + self.times - 1
        return f"{self.first}{f' to {last}' if self.times > 1 else ''}: {self.stage}"

    @property
    def lines(self) -> tuple[Arrow, ...]:
        """The arrows, those between the same two as one."""
        found: dict[tuple[str, str], list[str]] = {}
        for arrow in self.arrows:
            found.setdefault((arrow.sender, arrow.receiver), []).append(arrow.what)
        return tuple(Arrow(sender, to, ", ".join(what)) for (sender, to), what in found.items())


@dataclass(frozen=True)
class Flow:
    """The exchanges of a linkage. parties: holders, the coordinator, third parties; ended: why the trace ended early,
    empty where it did not."""

    parties: tuple[str, ...]
    steps: tuple[Step, ...]
    ended: str = ""


def flow_of(terms: Terms, module: InPlace, asked: Asked) -> Flow:
    """The flow of a study's linkage. What is padded to a cap is padded to fewer units here."""
    options = asked.linking.model_copy(update={"cap": None})
    protection = terms.protection.model_copy(update={"options": options.model_dump(mode="json")})
    terms = terms.model_copy(update={"protection": protection})
    count = min(MOST, max(FEWEST, 4 * options.minimum_frequency))
    agreement = agree("flow", terms, dict.fromkeys(terms.holders, count))
    parties = (*terms.holders, COORDINATOR, *agreement.third_parties)
    seen, ended = list[tuple[str, frozenset[Arrow]]](), ""
    try:
        for stage, arrows in _traced(terms, module, replace(asked, linking=options), agreement, count):
            seen.append((stage, arrows))
    except StatfedError as error:
        ended = " ".join(str(error).split())
    return Flow(parties, tuple(_steps(seen)), ended)


def _steps(seen: list[tuple[str, frozenset[Arrow]]]) -> Iterator[Step]:
    """Exchanges as steps: those that look alike in a row are one."""
    at = 0
    while at < len(seen):
        end = at
        while end < len(seen) and seen[end] == seen[at]:
            end += 1
        yield Step(seen[at][0], at + 1, end - at, tuple(sorted(seen[at][1])))
        at = end


def _traced(
    terms: Terms, module: InPlace, asked: Asked, agreement: Agreement, count: int
) -> Iterator[tuple[str, frozenset[Arrow]]]:
    keys = {name: Identity.ephemeral(name) for name in agreement.parties}
    pins = {name: key.public for name, key in keys.items()}
    units = {holder: _units(terms, module, asked, holder, count) for holder in terms.holders}
    parties = {name: module.party(agreement, replace(key, pins=pins), units.get(name)) for name, key in keys.items()}
    rounds, made = module.coordinator(agreement), dict[bytes, tuple[str, str]]()
    replies: Mapping[str, Packet] | None = None
    while True:
        try:
            stage: Stage = next(rounds) if replies is None else rounds.send(replies)
        except StopIteration:
            return
        arrows, replies = set[Arrow](), {}
        for name, packet in stage.packets.items():
            coming = (_incoming(made, name, entry, part) for entry, part in packet.items() if _says(part))
            arrows |= {arrow for arrow in coming if arrow.sender != name}
            replies[name] = parties[name].answer(stage.name, packet)
        for name, packet in replies.items():
            for entry, part in packet.items():
                if isinstance(part, bytes) and len(part) >= _SHORT:
                    made[part] = (name, _named(entry, agreement.parties))
                elif _says(part):
                    arrows.add(Arrow(name, COORDINATOR, _named(entry, agreement.parties)))
        yield stage.name, frozenset(arrows)


def _says(part: Any) -> bool:
    return not isinstance(part, bytes) or len(part) >= _SHORT


def _incoming(made: Mapping[bytes, tuple[str, str]], to: str, entry: str, part: Any) -> Arrow:
    """What a party is sent: from whoever has made it, else from the coordinator."""
    if isinstance(part, bytes) and part in made:
        sender, what = made[part]
        return Arrow(sender, to, what)
    return Arrow(COORDINATOR, to, _named(entry, ()))


def _named(entry: str, parties: tuple[str, ...]) -> str:
    """The name of an entry without whom it is for or from."""
    words = [word for word in entry.split(":") if word not in (*parties, "public")]
    name = words[0] if words else entry
    return "sealed mail" if name in ("to", "from") else name.replace("_", " ")


def _units(terms: Terms, module: InPlace, asked: Asked, holder: str, count: int) -> Units:
    """Made-up units, the same keys at every holder, and values within the codebook's bounds."""
    codebook, linking = terms.codebook_of(holder), asked.linking
    parted = module.module.PARTED
    parts = linking.parts(codebook) if parted else (together(read_key(linking.key, codebook)),)
    grouping = {part.name for part in _grouping(linking, codebook)}
    rng = np.random.default_rng(_SEED)
    keys = {part.name: _texts(rng, count, few=part.name in grouping) for part in parts}
    values = np.random.default_rng([_SEED, list(terms.holders).index(holder)])
    columns = {name: _numbers(values, terms.codebook.column(name), count) for name in asked.columns[holder]}
    return Units(keys, columns)


def _grouping(linking: Linking, codebook: Codebook) -> tuple[KeyPart, ...]:
    """Parts by which records are put into groups: many share one."""
    return tuple(part for text in (linking.block, linking.salt) if text for part in read_key(text, codebook))


def _texts(rng: np.random.Generator, count: int, *, few: bool) -> list[str | None]:
    """Texts, all different, or each shared by about ten."""
    words = ["".join(rng.choice(_LETTERS, 12)) for _ in range(max(1, count // 10) if few else count)]
    return [words[i % len(words)] for i in range(count)]


def _numbers(rng: np.random.Generator, column: Any, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    if column.levels:
        return rng.integers(0, len(column.levels), count).astype(np.float64)
    low, high = column.bounds or (0.0, 1.0)
    if column.type in ("integer", "boolean"):
        return rng.integers(int(low), int(high) + 1, count).astype(np.float64)
    return np.round(rng.uniform(low, high, count), 0).clip(low, high)
