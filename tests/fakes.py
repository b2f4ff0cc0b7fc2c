"""Protections and methods that break a law each, as if another package had brought them.

Bases that keep every law: pairwise masks over every holder or none, and variances. A fake changes one thing.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from statfed.core import discovery
from statfed.core.fixed_point import Layout
from statfed.core.identity import Identity
from statfed.core.method import Arrays, Ask, Cells, Coordination, Public, fixed
from statfed.core.protection import Aggregate, Agreement, Packet, Requirements, Rounds, Stage
from statfed.core.section import Section
from statfed.strategies.analyses import variance
from statfed.strategies.protections import secure_aggregation
from statfed.strategies.protections._secagg_all import AllCoordinator, AllParty
from statfed.strategies.training import local_sgd
from tests.universe import CODEBOOK, examples_of, people

NAME = "outsider"


@contextmanager
def brought(group: str, contents: Mapping[str, Any]) -> Iterator[str]:
    """A module with these contents is what a package `outsider` 1.0 brings to `statfed.GROUP`. Yields its name."""
    module = ModuleType("outsider_module")
    vars(module).update(contents)
    wanted = f"statfed.{group}"
    point = SimpleNamespace(name=NAME, value=module.__name__, dist=SimpleNamespace(name="outsider", version="1.0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(discovery, "entry_points", lambda group: [point] if group == wanted else [])
        _forget()
        try:
            yield NAME
        finally:
            patch.undo()
            _forget()


def _forget() -> None:
    discovery.plugins.cache_clear()
    discovery.modules.cache_clear()


class _None(Section):
    """No options."""


class _Undecided(Section):
    """An option without a default."""

    key: str


PROTECTION: dict[str, Any] = {
    "TITLE": "masks that cancel",
    "TRUST": ("no two holders collude",),
    "REQUIRES": Requirements(minimum_holders=3, fixed_point=True, identities=True, cost="10"),
    "Options": _None,
    "third_parties": lambda _: (),
    "party": AllParty,
    "coordinator": AllCoordinator,
    "learns": secure_aggregation.learns,
    "CARD": secure_aggregation.CARD,
}


def requires(**changes: Any) -> Requirements:
    """The base's requirements, changed."""
    base: Requirements = PROTECTION["REQUIRES"]
    return replace(base, **changes)


class Twice(AllCoordinator):
    """Asks for the contribution in a second stage too."""

    def total(self, layout: Layout) -> Rounds:
        yield from super().total(layout)
        return (yield from super().total(layout))


class Off(AllCoordinator):
    """Gives a total that is one too large where there are more than three holders."""

    def total(self, layout: Layout) -> Rounds:
        found = yield from super().total(layout)
        more = int(len(self._holders) > 3)
        return replace(found, total={name: array + more for name, array in found.total.items()})


class Unnamed(AllCoordinator):
    """Does not say of one holder that it is in the total."""

    def total(self, layout: Layout) -> Rounds:
        found = yield from super().total(layout)
        return replace(found, holders=found.holders[1:])


class Stuck(AllCoordinator):
    """Gives the first total again wherever it has the form that is asked for."""

    first: Any = None

    def total(self, layout: Layout) -> Rounds:
        found = yield from super().total(layout)
        self.first = self.first or found
        return self.first if self.first.total.keys() == found.total.keys() else found


class Showing(AllCoordinator):
    """Gives something as single contributions."""

    def total(self, layout: Layout) -> Rounds:
        found = yield from super().total(layout)
        return replace(found, each=dict.fromkeys(found.holders, found.total))


class Lenient:
    """Adds up what is sent in clear by whoever answered, and says that it is the sum over all."""

    def __init__(self, agreement: Agreement) -> None:
        self._holders = agreement.holders

    def total(self, layout: Layout) -> Rounds:
        replies = yield Stage("send", {name: {} for name in self._holders}, carries=True)
        total = sum((np.asarray(packet["words"]) for packet in replies.values()), np.zeros(layout.entries, np.int64))
        return Aggregate(layout.decode(total), self._holders)


class Clear:
    """Sends whole numbers as they are."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        pass

    def answer(self, stage: str, packet: Packet) -> Packet:
        return {}

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        return {"words": layout.encode(arrays)}


class Answering(AllParty):
    """Answers any stage."""

    def answer(self, stage: str, packet: Packet) -> Packet:
        return super().answer(stage, packet) if stage == "keys" else {}


class Repeating(AllParty):
    """Uploads under one number as often as it is asked."""

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        self._number = 0
        return super().contribute(packet, arrays, layout)


class Unbound(AllParty):
    """Binds keys and masks to no run."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        super().__init__(replace(agreement, run="any", study="0" * 64), identity)


class _Believing(Identity):
    def verify(self, name: str, message: bytes, signature: bytes) -> None:
        pass


class Trusting(AllParty):
    """Takes anybody's keys."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        super().__init__(agreement, _Believing(identity.name, identity._key, identity.pins))


class Peeking(AllParty):
    """Sends one figure of its contribution beside the masked vector."""

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        first = np.asarray(next(iter(arrays.values())), np.float64).reshape(-1)[:1]
        return {**super().contribute(packet, arrays, layout), "first": first}


class Hiding(AllParty):
    """Sends one figure as a part of some bytes."""

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        first = np.asarray(next(iter(arrays.values())), np.float64).reshape(-1)[:1]
        return {**super().contribute(packet, arrays, layout), "digest": bytes(32) + first.tobytes()}


class Fixed(AllParty):
    """Draws the same key in every run."""

    def __init__(self, agreement: Agreement, identity: Identity) -> None:
        super().__init__(agreement, identity, lambda size: identity.name.encode().ljust(size, b"0"))


class Exotic(AllParty):
    """Sends a field that is neither bytes nor numbers."""

    def contribute(self, packet: Packet, arrays: Arrays, layout: Layout) -> Packet:
        return {**super().contribute(packet, arrays, layout), "word": "seven"}  # type: ignore[dict-item]


PROTECTIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("contract", "TITLE: missing", {"TITLE": None}),
    ("contract", "TRUST: got", {"TRUST": ()}),
    ("contract", "REQUIRES: got dict", {"REQUIRES": {}}),
    ("contract", "Options: key: no default", {"Options": _Undecided}),
    ("contract", "REQUIRES.third_parties: got ''", {"third_parties": lambda _: ("dealer",)}),
    ("stages", "got 2 stages that carry", {"coordinator": Twice}),
    ("totals", "want the exact sum", {"coordinator": Off}),
    ("totals", "does not account for h001", {"coordinator": Unnamed}),
    ("repeated", "want the exact sum", {"coordinator": Stuck}),
    ("each", "want none: updates are hidden", {"coordinator": Showing}),
    ("each", "want every holder's", {"REQUIRES": requires(reveals_updates=True)}),
    ("missing", "want whose contributions arrived", {"coordinator": Lenient, "party": Clear}),
    ("survives", "got an error; want the total", {"REQUIRES": requires(survives_dropout=True)}),
    ("unknown stage", "got an answer; want a refusal", {"party": Answering}),
    ("replay", "upload a second time: got an answer", {"party": Repeating}),
    ("other run", "is of another run: got a total", {"party": Unbound}),
    ("pins", "has wrong pins of all others: got a total", {"party": Trusting}),
    ("hidden", "of a holder's figures in what the coordinator sees", {"party": Peeking}),
    ("hidden", "of a holder's figures in what the coordinator sees", {"party": Hiding}),
    ("fresh", "in the next run; want fresh randomness", {"party": Fixed}),
    ("learns", "got no rows", {"learns": lambda _: ()}),
    ("learns", "want one of the coordinator", {"learns": lambda terms: secure_aggregation.learns(terms)[-1:]}),
    ("analysis", "", {"party": Exotic}),
    ("training", "", {"party": Exotic}),
    ("card", "want CARD", {"CARD": None}),
]
"""The law, words of what is found, and what is changed of the base; None takes it away."""

OPTIONS: dict[str, Any] = {"columns": ["income", "age"], "by": ["region"]}
ANALYSIS: dict[str, Any] = {
    name: getattr(variance, name)
    for name in ("TITLE", "GROUP", "PUSHES_DOWN", "Options", "columns", "budget", "parts", "contribute", "discloses")
} | {"coordinate": variance.coordinate, "example": lambda: (OPTIONS, CODEBOOK, people(200, 1))}


def _contribute(change: Any) -> Any:
    def contribute(table: Any, question: Any, ask: Any) -> Arrays:
        changed: Arrays = change(dict(variance.contribute(table, question, ask)), ask.name)
        return changed

    return contribute


def _means(sent: dict[str, Any], ask: str) -> Arrays:
    return sent | {"sum": sent["sum"] / np.maximum(sent["count"], 1)} if ask == "means" else sent


def _one_more(sent: dict[str, Any], ask: str) -> Arrays:
    return sent | {"count": sent["count"] + 1} if ask == "means" else sent


class _First:
    """Gives the first holder that is asked more weight."""

    asked = 0

    def __call__(self, sent: dict[str, Any], ask: str) -> Arrays:
        self.asked += 1
        return {name: array * 2 if self.asked % 3 == 1 else array for name, array in sent.items()}


def _parts(**changes: Any) -> Any:
    def parts(question: Any, ask: Any) -> Any:
        found = variance.parts(question, ask)
        scale = changes.get("scale", 1.0)
        return {
            name: replace(
                part, bound=changes.get("bound", np.asarray(part.bound) * scale), what=changes.get("what", part.what)
            )
            for name, part in found.items()
        }

    return parts


def _coordinate(question: Any) -> Coordination:
    result = yield from variance.coordinate(question)
    return result.with_(facts={"share": float("nan")})


def _twice(question: Any) -> Coordination:
    yield Ask("scaled") if question.privacy else Ask("means")
    return (yield from variance.coordinate(question))


def _counted(question: Any, ask: Any) -> Any:
    return {name: replace(part, what=Public()) for name, part in variance.parts(question, ask).items()}


def _hundredth(question: Any, ask: Any) -> Any:
    """In private runs alone, bounds and so the noise are a hundred times too small."""
    return _parts(scale=0.01 if question.privacy else 1.0)(question, ask)


ANALYSES: list[tuple[str, str, dict[str, Any]]] = [
    ("contract", "PUSHES_DOWN: missing", {"PUSHES_DOWN": None}),
    ("contract", "example: missing", {"example": None}),
    ("contract", "want a tuple of options", {"example": lambda: OPTIONS}),
    ("contract", "want 50 or more", {"example": lambda: (OPTIONS, CODEBOOK, people(5, 1))}),
    ("additive", "add up to something that is off", {"contribute": _contribute(_means)}),
    ("additive", "", {"contribute": _contribute(_one_more)}),
    ("public", "got other figures of other records", {"parts": _counted}),
    ("declared", "not declared", {"parts": _parts(what=None)}),
    ("bounded", "one record changes an entry by 1; want at most 0.5", {"parts": _parts(scale=0.5)}),
    ("private bounds", "at the bounds changes an entry by", {"parts": _hundredth}),
    ("order", "want", {"contribute": _contribute(_First())}),
    ("json", "want text, finite numbers", {"coordinate": _coordinate}),
    ("names", "got nowhere; want columns of the codebook", {"discloses": lambda *_: Cells(("nowhere",))}),
    ("names", "discloses sex, which", {"discloses": lambda *_: Cells(("sex",))}),
    ("private", "no finite bound", {"parts": _parts(bound=np.inf)}),
    ("private", "got scaled number 2; want in this order", {"coordinate": _twice}),
    ("budget", "got asks scaled; want those announced", {"budget": lambda _: fixed("scaled", 2)}),
    ("protected", "no total of the agreed records", {"parts": _parts(scale=1e-6)}),
]
"""As `PROTECTIONS`, of methods."""

TRAINING: dict[str, Any] = {name: item for name, item in vars(local_sgd).items() if not name.startswith("__")} | {
    "example": lambda: (examples_of("local-sgd")[0], CODEBOOK, people(200, 1))
}
"""A training method that keeps every law."""


def weighed_by_age(table: Any, question: Any, ask: Any) -> Arrays:
    """Sends how many of its records are of old people, as if it were the public number of records."""
    sent = local_sgd.contribute(table, question, ask)
    old = int(table.filter(table["age"] > 60).expr.count().to_pyarrow().as_py())
    return {**sent, "weight": np.array(old)} if "weight" in sent else sent
