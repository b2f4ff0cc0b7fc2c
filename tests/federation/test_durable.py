"""Faults at every moment of a run: it ends with the answer of a run without faults, and each sum is charged once."""

import errno
import gc
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message

from statfed.client.flower import app
from statfed.client.guard.ledger import Ledger, read_only
from statfed.client.holder import Holder
from statfed.client.repeats import Repeats
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.study import make_study
from statfed.federation import Answer, Options, checkpoint, resume_study, run, run_study
from statfed.server._flwr import UNAVAILABLE
from statfed.server.engine import Session
from statfed.server.grid._holder_app import holder_app
from statfed.server.grid.inprocess import InProcessGrid
from statfed.server.pilot.hub import Watch
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
    how = {"fresh": True, "references": False, "engine": engine, "patience": 60.0, "codebook": CODEBOOK}
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


def ended(root: Path, study: Any, engine: Faulty) -> Answer:
    """The answer, of a run that is resumed by hand where its coordinator was killed."""
    try:
        return run_study(study, options_of(root, engine))
    except Killed:
        (folder,) = (root / "runs").iterdir()
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
    if protection == "homomorphic-encryption" and fault == "rebuilt" and at is not None and at.kind == "query.protect":
        return False  # a key holder that is another process in the first sum refuses: gone on with by hand
    if fault == "replayed":
        return at is not None and at.kind == "query.ask"
    return fault != "lost" or at is None or at.kind != "query.admit"  # then nothing has begun


ALL = [
    case
    for case in itertools.product(METHODS, PROTECTIONS, [*MOMENTS, *INSIDE], FAULTS)
    if applies(case[0], case[1], case[2], case[3])
]
CHEAP = [case for case in ALL if case[0] in ("table", "mean", "mean, local noise") and case[1] != PROTECTIONS[2]]
UNKEPT = ("training, local noise", "plain", "after release", "killed")
"""Here alone the last total is lost: it was read holder by holder, is on no disk for that, and the run was over."""
SHORT = random.Random(14).sample(CHEAP, 28)
WHOLE = list(dict.fromkeys([*SHORT, *random.Random(15).sample(ALL, 220)]))


@pytest.mark.parametrize(
    ("method", "protection", "moment", "fault"),
    [pytest.param(*case, marks=() if case in SHORT else pytest.mark.whole) for case in WHOLE],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
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
    if (method, protection, moment, fault) == UNKEPT:
        assert answer.result.notes[0].startswith("1 of 3 sums of training were interrupted after holders had paid")
        assert entries(tmp_path) == wanted.ledgers
    else:
        same(answer, entries(tmp_path), wanted)
    gc.collect()  # holders whose process was ended have closed nothing


def test_messages_in_another_order_change_nothing(tmp_path: Path, whole: Callable[[str, str], Whole]) -> None:
    wanted = whole("table", "secure-aggregation")
    study = study_of(Path(wanted.answer.study["holders"]["h0"]).parent, "table", "secure-aggregation")
    same(run_study(study, options_of(tmp_path, Faulty("reordered"))), entries(tmp_path), wanted)


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


@pytest.mark.parametrize(
    ("method", "protection"),
    [
        pytest.param(method, protection, marks=pytest.mark.whole if slow else ())
        for method, protection in itertools.product(["mean", "training"], PROTECTIONS)
        for slow in [protection == PROTECTIONS[2] and method == "training"]  # as slow as the others together
    ],
)
def test_no_contribution_is_ever_on_the_coordinators_disk(
    method: str, protection: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while a run is under way nor once it ended, whatever the protection shows the coordinator."""
    given = recorded(monkeypatch)
    study = study_of(tmp_path / "data", method, protection)
    engine = Faulty("killed", Moment("query.release", 0.0), {"query.release": 3})
    answer = ended(tmp_path, study, engine)
    assert answer is not None
    searched = on_disk(tmp_path)
    assert any("checkpoint" in name for name in searched)
    assert len(given) >= HOLDERS
    for contribution in given:
        for name, content in searched.items():
            assert not any(word in content for word in marks(contribution)), name


def test_a_total_over_a_single_holder_is_not_written_and_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = recorded(monkeypatch)
    study = study_of(tmp_path / "data", "mean", "plain")
    alone = study.model_copy(update={"holders": dict([next(iter(study.holders.items()))])})
    with pytest.raises(Killed):
        run_study(alone, options_of(tmp_path, Faulty("killed", Moment("query.ask", 1.0, after=True), {"query.ask": 2})))
    searched = on_disk(tmp_path)
    assert any(word for one in given for word in marks(one))
    assert not any(word in content for one in given for word in marks(one) for content in searched.values())
    (folder,) = (tmp_path / "runs").iterdir()
    answer = resume_study(folder, options_of(tmp_path, Faulty()))
    whole_run = run_study(alone, Options(tmp_path / "other", codebook=CODEBOOK))
    assert answer.result.to_dict() == whole_run.result.to_dict()


def test_a_result_is_not_lost_where_an_answer_to_its_end_is(tmp_path: Path) -> None:
    """Its totals cannot be told again, being over one holder, and of a run that ended nothing is given again."""
    study = study_of(tmp_path / "data", "mean", "plain")
    alone = study.model_copy(update={"holders": dict([next(iter(study.holders.items()))])})
    for number in (1, 2):
        place = tmp_path / str(number)
        engine = Faulty("lost", Moment("query.release", number / 2 - 0.5, after=True), {"query.release": 2})
        answer = run_study(alone, options_of(place, engine))
        assert engine.done
        assert answer.result.tables
        with read_only(next(place.glob("runs/*/holders/*/ledger.sqlite"))) as ledger:
            assert ledger.entries()[-1].kind == "release"


def recorded(patch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What holders contribute from here on, as it goes into the protection."""
    given: list[dict[str, Any]] = []
    made = Holder._given

    def kept(self: Holder, *words: Any, **more: Any) -> Any:
        found = made(self, *words, **more)
        given.append(dict(found[1]))
        return found

    patch.setattr(Holder, "_given", kept)
    return given


def on_disk(root: Path) -> dict[str, bytes]:
    """All that is under a coordinator's folder, its simulated holders' homes left out."""
    files = [path for path in (root / "runs").rglob("*") if path.is_file() and "holders" not in path.parts]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def marks(contribution: Mapping[str, Any]) -> list[bytes]:
    """Bytes and words by which figures of a contribution would be known again: those that no other figure is."""
    found = []
    for array in contribution.values():
        values = np.asarray(array)
        if np.issubdtype(values.dtype, np.floating):
            for value in values.reshape(-1)[:200]:
                if abs(value) > 1e-3 and value != round(float(value)):
                    found.append(value.tobytes() * (2 if values.dtype == np.float32 and values.size < 2 else 1))
                    found.append(repr(float(value)).encode())
    return [word for word in found if len(word) >= 8]


def test_a_run_is_not_told_again_what_it_would_not_have_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers of other asks would make a wrong figure."""
    study = study_of(tmp_path / "data", "mean", "plain")
    with pytest.raises(Killed):
        run_study(study, options_of(tmp_path, Faulty("killed", Moment("query.ask", 1.0, after=True), {"query.ask": 6})))
    (folder,) = (tmp_path / "runs").iterdir()
    known, curve = checkpoint.load_checkpoint(folder)
    assert (known.done, len(known.told)) == (1, 1)
    assert (folder / "checkpoint.npz").stat().st_mode & 0o777 == 0o600
    other = replace(known, told=(replace(known.told[0], asked="0" * 64),))
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda _: (other, curve))
    with pytest.raises(UsageError, match="other than what was asked for as that sum before"):
        resume_study(folder, options_of(tmp_path, Faulty()))


def test_a_disk_that_is_full_at_the_coordinator_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    told: list[str] = []
    study = study_of(tmp_path / "data", "table", "plain")
    answer = run_study(study, options_of(tmp_path, Faulty()), notify=told.append)
    assert answer.result.tables
    assert any("no checkpoint after 1 sums" in one for one in told)


@pytest.mark.parametrize("error", [Refused("no"), UsageError("no")])
def test_what_somebody_refuses_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(Holder, "_given", refuse)
    engine = Faulty()
    with pytest.raises(type(error), match="no"):
        run_study(study_of(tmp_path / "data", "table", "plain"), options_of(tmp_path, engine))
    assert engine.seen["query.admit"] == HOLDERS


def test_a_run_whose_parties_stay_away_ends_after_its_patience_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(Faulty):
        def run(self, deployment: Any, drive: Any, progress: Any) -> Any:
            if self.done:
                tried.append(deployment.run)
                raise EngineError("holders: got no connection from h1")
            return super().run(deployment, drive, progress)

    tried: list[str] = []
    now = itertools.count(1.0, 3.0)
    monkeypatch.setattr(
        run, "time", SimpleNamespace(monotonic=lambda: next(now), sleep=lambda _: None, perf_counter=time.perf_counter)
    )
    study = study_of(tmp_path / "data", "mean", "plain")
    with pytest.raises(EngineError, match="no connection from h1"):
        run_study(study, options_of(tmp_path, Away("lost", Moment("query.ask", 0.6, after=True), {"query.ask": 6})))
    assert 5 < len(tried) < 25
    (folder,) = (tmp_path / "runs").iterdir()
    answer = resume_study(folder, options_of(tmp_path, Faulty()))
    assert [one.ask for one in answer.sums] == ["means", "variances"] or len(answer.sums) == 2


def test_a_node_that_is_slow_is_not_lost_and_one_that_came_back_is() -> None:
    """It has forgotten what it was asked, and whoever waited for it would wait until the timeout."""
    online = {1: "a", 2: "b", 3: "c"}
    watch = Watch(lambda: dict(online), dict(online))
    watch._looked = -1e9
    assert watch.lost() == {}
    online |= {2: "later"}
    del online[3]
    watch._looked = -1e9
    assert {node: "made anew" in why for node, why in watch.lost().items()} == {2: True, 3: False}
    online |= {2: "b", 3: "c"}
    watch._looked = -1e9
    assert set(watch.lost()) == {2, 3}
