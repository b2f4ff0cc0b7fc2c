"""The dictionary attack on identifiers, and `hash-join`, the technique that it is the reason to refuse.

The naive way to match two registers is to hand a hash of every identifier to somebody who joins them. Identifiers are
few and their form is public, so that whoever sees the hashes hashes all identifiers that there may be and reads off who
is in which register: a hash without a secret key hides nothing (Article 29 Working Party, opinion 05/2014, 4.2). So
`hash-join` is tried by nobody and attacked instead: it stands in a comparison as refused, with the share of identifiers
that were recovered and the number of guesses a second.

The same dictionary is tried on a linkage: on what the coordinator relays, on what a third party such as a helper can
open, and on what each holder can open of the others'. A guess is recovered where any form that needs no secret stands
anywhere in the view: the text, its digests, digests with its length before it, and HMAC under a key of zeros. A share
of 0 says that none of these is there; what a leaked key opens, or how often codes repeat, it does not say.
"""

import hashlib
import hmac
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from statfed.client.data.tables import connect
from statfed.client.linking import units_of
from statfed.core.errors import UsageError
from statfed.core.identity import Identity
from statfed.core.linkage import InPlace, Party, linked, linking_of
from statfed.core.protection import Agreement, Packet, agree, read_protection
from statfed.core.table import Table
from statfed.core.terms import Terms

HASH_JOIN = "hash-join"
WIDTH = 8
"""Bytes of a form that are looked for: of a few million that are random, none is met by chance."""
_NOTHING = bytes(32)


@dataclass(frozen=True)
class Attack:
    """What a dictionary found. recovered: share of identifiers; guesses: tried; rate: guesses a processor second."""

    recovered: float
    guesses: int
    rate: float


def on_hashes(guesses: Iterable[str], identifiers: Collection[str]) -> Attack:
    """The attack on unsalted SHA-256 of identifiers, as whoever joins them may mount it."""
    seen = {hashlib.sha256(text.encode()).digest() for text in identifiers}
    texts = [guess.encode() for guess in guesses]
    started = time.process_time()
    found = sum(hashlib.sha256(text).digest() in seen for text in texts)
    return Attack(found / len(seen), len(texts), len(texts) / max(time.process_time() - started, 1e-9))


def refused(attack: Attack) -> str:
    """Why `hash-join` is refused, in one line."""
    return (
        f"refused: hashes without a secret key hide nothing: {attack.recovered:.0%} of the identifiers were recovered "
        f"with {attack.guesses:,} guesses, {attack.rate:,.0f} a second of one processor"
    )


def forms(text: str) -> Iterator[bytes]:
    """What may stand for an identifier where no secret is used, from its first byte on."""
    raw = text.encode()
    lengthy = b"%d:" % len(raw) + raw
    yield raw
    yield hashlib.md5(raw, usedforsecurity=False).digest()
    yield hashlib.sha1(raw, usedforsecurity=False).digest()
    yield hashlib.sha512(raw).digest()
    hashed = hashlib.sha256(raw)
    yield hashed.digest()
    yield hashed.hexdigest().encode()
    yield hashlib.sha256(lengthy).digest()
    yield hmac.digest(_NOTHING, lengthy, "sha256")


@dataclass(frozen=True)
class Dictionary:
    """Guesses with all their forms. texts: n guesses; words: (n, forms), the first WIDTH bytes of each."""

    texts: NDArray[np.str_]
    words: NDArray[np.uint64] = field(repr=False)

    @classmethod
    def of(cls, guesses: Iterable[str]) -> "Dictionary":
        """Raises UsageError on a guess of fewer than WIDTH bytes, which would be met by chance."""
        texts = list(guesses)
        if short := next((text for text in texts if len(text.encode()) < WIDTH), None):
            raise UsageError(f"guesses: got {short!r}; want {WIDTH} characters or more")
        words = np.frombuffer(b"".join(form[:WIDTH] for text in texts for form in forms(text)), "<u8")
        return cls(np.array(texts), words.reshape(len(texts), -1))

    def recovered(self, view: Iterable[bytes], identifiers: Collection[str]) -> float:
        """Share of `identifiers` of which a guess stands in some content of the view, wherever it begins."""
        shifts = (content[shift:] for content in view for shift in range(WIDTH))
        whole = [np.frombuffer(content, "<u8", len(content) // WIDTH) for content in shifts]
        there = np.isin(self.words, np.unique(np.concatenate([*whole, np.empty(0, "<u8")]))).any(axis=1)
        wanted = set(identifiers)
        return len(wanted & set(self.texts[there].tolist())) / len(wanted)


@dataclass
class Views:
    """What each party of a linkage could read. relayed: all that passed the coordinator; opened: by party, what it
    got and what it could open of it; holders, helpers: names of these parties."""

    holders: tuple[str, ...]
    helpers: tuple[str, ...]
    relayed: list[bytes] = field(default_factory=list)
    opened: dict[str, list[bytes]] = field(default_factory=dict)


def overheard(terms: Terms, sources: Mapping[str, str]) -> Views:
    """Match the units of these files once, all parties in this process, and keep what each of them sees.

    terms: of a study with a linkage. Raises UsageError where it has none, or where a party's sealed letters cannot be
    listened to: what it sees would be unknown, and not nothing.
    """
    asked = linking_of(terms)
    module, _ = read_protection(terms)
    if asked is None or not isinstance(module, InPlace):
        raise UsageError(f"protection: got {terms.protection.name}; want a linkage")
    tables = {}
    for name, source in sources.items():
        with connect(source, Path()) as opened:
            tables[name] = units_of(
                Table(opened.expr, terms.codebook_of(name)), asked, name, parted=module.module.PARTED
            )
    agreement = agree("dictionary", terms, {name: max(1, units.count) for name, units in tables.items()})
    views = Views(agreement.holders, agreement.third_parties)
    parties = {
        name: _Watched(name, module.module.party(agreement, identity, tables.get(name)), views)
        for name, identity in _identities(agreement).items()
    }
    linked(module.module.coordinator(agreement), cast(Mapping[str, Party], parties))
    return views


def _identities(agreement: Agreement) -> dict[str, Identity]:
    made = {name: Identity.ephemeral(name) for name in agreement.parties}
    pins = {name: identity.public for name, identity in made.items()}
    return {name: replace(identity, pins=pins) for name, identity in made.items()}


class _Watched:
    """A party whose packets are kept, and the letters that it opens."""

    def __init__(self, name: str, party: Party, views: Views) -> None:
        self._party, self._views, self._own = party, views, views.opened.setdefault(name, [])
        channels = [one for one in vars(party).values() if hasattr(one, "seal") and hasattr(one, "open")]
        if len(channels) != 1:
            raise UsageError(f"{name}: got {len(channels)} ways to open letters; want one that can be listened to")
        channels[0].open = self._listening(channels[0].open)

    def _listening(self, inner: Callable[..., bytes]) -> Callable[..., bytes]:
        def opened(*given: Any, **named: Any) -> bytes:
            self._own.append(inner(*given, **named))
            return self._own[-1]

        return opened

    def answer(self, stage: str, packet: Packet) -> Packet:
        reply = self._party.answer(stage, packet)
        self._views.relayed += _contents(reply)
        self._own += _contents(packet)
        return reply


def _contents(packet: Packet) -> list[bytes]:
    return [one.tobytes() if isinstance(one, np.ndarray) else bytes(one) for one in packet.values()]


def measured(dictionary: Dictionary, views: Views, identifiers: Mapping[str, Collection[str]]) -> dict[str, float]:
    """Shares of identifiers that the dictionary recovers: by the coordinator, by the worst third party, and by the
    worst holder of those that only others have. identifiers: by holder."""
    everybody = set().union(*map(set, identifiers.values()))
    found = {"coordinator": [dictionary.recovered(views.relayed, everybody)]}
    found["third_party"] = [dictionary.recovered(views.opened[name], everybody) for name in views.helpers]
    found["holder"] = [
        dictionary.recovered(views.opened[name], foreign)
        for name in views.holders
        if (foreign := everybody - set(identifiers[name]))
    ]
    return {f"leakage.identifiers_{role}": max(shares) for role, shares in found.items() if shares}
