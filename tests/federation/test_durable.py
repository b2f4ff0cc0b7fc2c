"""Faults at every moment of a run: it ends with the answer of a run without faults, and each sum is charged once."""

import errno
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message

from statfed.client.flower import app
from statfed.client.guard.ledger import Ledger, read_only
from statfed.client.holder import Holder
from statfed.client.repeats import Repeats
from statfed.core.errors import EngineError, UsageError
from statfed.core.study import make_study
from statfed.federation import Answer, Options, checkpoint, resume_study, run, run_study
from statfed.server._flwr import UNAVAILABLE
from statfed.server.engine import Session
from statfed.server.grid._holder_app import holder_app
from statfed.server.grid.inprocess import InProcessGrid
from tests.federate import split
from tests.universe import CODEBOOK, people

HOLDERS = 3
LOCAL = {"epsilon": 3.0, "delta": 1e-5}
TRAINING = {
    "features": ["age"],
    "target": "income",
    "rounds": 3,
    "batch_size": 16,
    "model": {"hidden": 2},
}
METHODS: dict[str, dict[str, Any]] = {
    "mean": {"method": "mean", "options": {"columns": ["income"], "by": ["sex"]}},
    "table": {"method": "table", "options": {"rows": ["region"], "columns": ["sex"]}},
    "glm": {"method": "glm", "options": {"formula": "employed ~ age", "family": "binomial"}},
    "quantile": {"method": "quantile", "options": {"columns": ["age"]}},
    "table, local noise": {"method": "table", "options": {"rows": ["sex"]}, "privacy": LOCAL},
    "mean, local noise": {"method": "mean", "options": {"columns": ["income"]}, "privacy": LOCAL},
    "quantile, local noise": {"method": "quantile", "options": {"columns": ["age"]}, "privacy": LOCAL},
    "table, shared noise": {"method": "table", "options": {"rows": ["sex"]}, "privacy": LOCAL | {"noise": "shared"}},
    "table, central noise": {"method": "table", "options": {"rows": ["sex"]}, "privacy": LOCAL | {"noise": "central"}},
    "training": {"method": "local-sgd", "options": TRAINING},
    "training, local noise": {"method": "local-sgd", "options": TRAINING, "privacy": LOCAL},
}
PROTECTIONS = ("plain", "secure-aggregation", "homomorphic-encryption")


class Killed(BaseException):
    """The coordinator is gone: nothing that comes after it runs."""


class HolderKilled(BaseException):
    """A holder's process is gone, and another one takes its place."""


@dataclass(frozen=True)
class Moment:
    """kind: of the message; which: how far into the messages of this kind, from 0 to 1; after: the answer was made."""

    kind: str
    which: float
    after: bool = False

    def at(self, counts: Mapping[str, int]) -> int:
        """Number of the message; 0 where the run has none of this kind."""
        many = counts.get(self.kind, 0)
        return min(many, 1 + int(self.which * many))


MOMENTS = {
    "before admission": Moment("query.admit", 0.0),
    "after admission": Moment("query.admit", 1.0, after=True),
    "before the first contribution": Moment("query.ask", 0.0),
    "between contributions": Moment("query.ask", 0.5),
    "after a contribution": Moment("query.ask", 0.5, after=True),
    "after the last contribution": Moment("query.ask", 1.0, after=True),
    "in the protection": Moment("query.protect", 0.0, after=True),
    "between stages": Moment("query.protect", 0.6),
    "before release": Moment("query.release", 0.0),
    "after release": Moment("query.release", 1.0, after=True),
}
FAULTS = ("killed", "rebuilt", "lost", "doubled", "replayed", "full")
INSIDE = {
    "before the charge": (Ledger, "charge", False),
    "after the charge": (Ledger, "charge", True),
    "before it is kept": (Repeats, "write", False),
    "after it is kept": (Repeats, "write", True),
}


@dataclass
class Faulty:
    """An engine in memory, with one fault at one moment. old: replies of an earlier run, by party, kind and number."""

    fault: str = ""
    moment: Moment = Moment("", 0.0)
    counts: Mapping[str, int] = field(default_factory=dict)
    old: Mapping[tuple[str, str, int], Message] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    done: bool = False
    replies: dict[tuple[str, str, int], Message] = field(default_factory=dict)
    by: Counter[tuple[str, str]] = field(default_factory=Counter)

    def run(self, deployment: Any, drive: Any, progress: Any) -> Any:
        grid = FaultyGrid(self, {name: str(home) for name, home in deployment.homes.items()})
        try:
            return drive(Session(grid, grid.nodes, meters=grid.meters))
        finally:
            grid.rebuild()


class FaultyGrid(InProcessGrid):
    def __init__(self, engine: Faulty, homes: Mapping[str, str]) -> None:
        super().__init__(holder_app(), homes, wire=True)
        self.engine, self.homes = engine, homes

    def rebuild(self) -> None:
        """Every holder is another process from here on."""
        for home in self.homes.values():
            party = app._party(home)
            if isinstance(party, Holder):
                party._contributions.close()
        app._party.cache_clear()

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = list(messages)
        return super().send_and_receive(sent[::-1] if self.engine.fault == "reordered" else sent, timeout=timeout)

    def _deliver(self, message: Message) -> Message:
        engine, kind = self.engine, message.metadata.message_type
        name = self._nodes[message.metadata.dst_node_id].holder
        if engine.fault == "killed" and engine.done:
            raise Killed
        engine.seen[kind] += 1
        engine.by[name, kind] += 1
        now = not engine.done and kind == engine.moment.kind and engine.seen[kind] == engine.moment.at(engine.counts)
        if now and not engine.moment.after:
            self._strike()
        try:
            reply = super()._deliver(message)
        except HolderKilled:
            self.rebuild()
            return Message(Error(UNAVAILABLE, "its process has ended"), reply_to=message)
        key = (name, kind, engine.by[name, kind])
        engine.replies[key] = reply
        if now:
            if engine.moment.after:
                self._strike()
            engine.done = True
            if engine.fault == "lost":
                return Message(Error(UNAVAILABLE, "no answer"), reply_to=message)
            if engine.fault == "doubled":
                super()._deliver(message)
            if engine.fault == "replayed" and key in engine.old:
                return Message(engine.old[key].content, reply_to=message)
        return reply

    def _strike(self) -> None:
        self.engine.done = self.engine.done or self.engine.fault == "killed"
        if self.engine.fault == "killed":
            raise Killed
        if self.engine.fault == "rebuilt":
            self.rebuild()


def study_of(folder: Path, method: str, protection: str, **more: Any) -> Any:
    if not (folder / "h0.parquet").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for i, part in enumerate(split(people(240, seed=2), HOLDERS, seed=3)):
            part.to_parquet(folder / f"h{i}.parquet")
    return make_study(
        METHODS[method]
        | {
            "holders": {f"h{i}": str(folder / f"h{i}.parquet") for i in range(HOLDERS)},
            "protection": {"name": protection},
            "disclosure": "none",
            "seed": 7,
        }
        | more
    )


@dataclass(frozen=True)
class Whole:
    """A run without faults."""

    answer: Answer
    engine: Faulty
    ledgers: dict[str, list[tuple[str, int]]]


def options_of(root: Path, engine: Faulty) -> Options:
    how = {"fresh": True, "references": False, "engine": engine, "patience": 600.0, "codebook": CODEBOOK}
    return Options(root / "ws", root / "runs", **how)  # type: ignore[arg-type]


def entries(root: Path) -> dict[str, list[tuple[str, int]]]:
    """What each holder's ledger was charged, and what it gave without noise."""
    found = {}
    for path in sorted(root.glob("runs/*/holders/*/ledger.sqlite")):
        with read_only(path) as ledger:
            ledger.verify()
            spent = ledger.spending()
            found[path.parent.name] = [
                ("charged", spent.charged),
                ("reserved", spent.reserved),
                ("given", spent.disclosures),
                ("refused", spent.refusals),
            ]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Whole]:
    root = tmp_path_factory.mktemp("whole")

    @cache
    def found(method: str, protection: str) -> Whole:
        place, engine = root / f"{method}-{protection}".replace(" ", "-"), Faulty()
        answer = run_study(study_of(root, method, protection), options_of(place, engine))
        return Whole(answer, engine, entries(place))

    return found


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SHORTEST_PAUSE", 0.0)
    monkeypatch.setattr(run, "LONGEST_PAUSE", 0.0)


def ended(root: Path, study: Any, engine: Faulty) -> Answer | None:
    """The answer, of a run that is resumed by hand where its coordinator was killed; None where it begins anew."""
    try:
        return run_study(study, options_of(root, engine))
    except Killed:
        (folder,) = (root / "runs").iterdir()
        if not checkpoint.has_checkpoint(folder):
            with pytest.raises(UsageError, match="ended before every holder had admitted it"):
                resume_study(folder, options_of(root, Faulty()))
            return None
        return resume_study(folder, options_of(root, Faulty()))


def same(answer: Answer, found: dict[str, Any], wanted: Whole) -> None:
    assert answer.result.to_dict() == wanted.answer.result.to_dict()
    if wanted.answer.training:
        assert answer.model_digest == wanted.answer.model_digest
    assert found == wanted.ledgers
    assert [one.ask for one in answer.sums] == [one.ask for one in wanted.answer.sums]
    for one, other in zip(answer.spending, wanted.answer.spending, strict=True):
        assert (one.study_epsilon, one.filter_epsilon) == (other.study_epsilon, other.filter_epsilon)


def applies(method: str, protection: str, moment: str, fault: str) -> bool:
    at = MOMENTS.get(moment)
    if ("shared" in method and protection == "plain") or (protection == "plain" and "stage" in moment + "protection"):
        return protection != "plain"
    if protection == "homomorphic-encryption" and "training" in method:
        return False
    if moment in INSIDE:
        return fault in ("rebuilt", "full") and ("noise" in method or "kept" in moment)
    if fault == "full":
        return False
    if fault == "replayed":
        return at is not None and at.kind == "query.ask"
    return fault != "lost" or at is None or at.kind != "query.admit"  # then nothing has begun


ALL = [
    case
    for case in itertools.product(METHODS, PROTECTIONS, [*MOMENTS, *INSIDE], FAULTS)
    if applies(case[0], case[1], case[2], case[3])
]
CHEAP = [case for case in ALL if case[0] in ("table", "mean", "quantile, local noise") and case[1] != PROTECTIONS[2]]
SHORT = random.Random(14).sample(CHEAP, 28)
WHOLE = list(dict.fromkeys([*SHORT, *random.Random(15).sample(ALL, 220)]))


@pytest.mark.parametrize(
    ("method", "protection", "moment", "fault"),
    [pytest.param(*case, marks=() if case in SHORT else pytest.mark.whole) for case in WHOLE],
)
def test_a_fault_changes_neither_the_answer_nor_what_was_paid(
    method: str,
    protection: str,
    moment: str,
    fault: str,
    tmp_path: Path,
    whole: Callable[[str, str], Whole],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = whole(method, protection)
    study = study_of(Path(wanted.answer.study["holders"]["h0"]).parent, method, protection)
    engine = Faulty(fault, counts=wanted.engine.seen, old=wanted.engine.replies)
    if moment in INSIDE:
        owner, name, after = INSIDE[moment]
        inside(monkeypatch, owner, name, after=after, fault=fault)
    else:
        engine.moment = MOMENTS[moment]
    answer = ended(tmp_path, study, engine)
    if answer is None:
        assert all(dict(one)["charged"] == 0 for one in entries(tmp_path).values())
        return
    same(answer, entries(tmp_path), wanted)


def inside(patch: pytest.MonkeyPatch, owner: type, name: str, *, after: bool, fault: str) -> None:
    """A holder's process ends, or its disk is full, once, in the midst of an answer."""
    made, calls = getattr(owner, name), itertools.count(1)

    def struck(self: Any, *words: Any, **more: Any) -> Any:
        now = next(calls) == 2
        if now and not after:
            strike()
        found = made(self, *words, **more)
        if now and after:
            strike()
        return found

    def strike() -> None:
        if fault == "full":
            raise EngineError(f"storage failed: {OSError(errno.ENOSPC, 'No space left on device')}")
        raise HolderKilled

    patch.setattr(owner, name, struck)
