"""The coordinator of any study: admit, one protected sum after another, release.

The method is a straight line of sums (see `statfed.core.method`); this module sends each ask to every holder, has the
protection form the total, and gives it back to the method. What comes out has not passed the release rules yet.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.course import digest_of
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.few import without_few
from statfed.core.method import Adaptive, Arrays, Ask, Coordination, Counts, Fixed, Total
from statfed.core.privacy.placement import note
from statfed.core.progress import Progress
from statfed.core.protection import Aggregate, Coordinator, agree, formed
from statfed.core.randomness import stream
from statfed.core.resolution import Told, check
from statfed.core.resolve import Resolved
from statfed.core.result import Result, Row, Scalar
from statfed.core.statement import Admission, Closing, Receipt
from statfed.core.table import Size
from statfed.server.engine import Session
from statfed.server.exchange import SHORT, Exchange
from statfed.server.linking import first_ask, linked

LIMIT = 100_000  # sums of one study; a method that wants more does not converge


@dataclass
class Sum:
    """What one sum took. Bytes count arrays and the protection's packets, all parties together."""

    ask: str
    seconds: float
    bytes_down: int
    bytes_up: int
    holder_seconds: dict[str, float]
    ledger_heads: dict[str, str]
    rules: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What a method was told: the number of the sum, the digest of the ask, and the total or the refusal."""

    number: int
    asked: str
    answer: Total | Refused


@dataclass(frozen=True)
class Checkpoint:
    """A run before its next sum: enough to go on.

    run: its name; done: sums made; state: that of the last ask that gave one, or what the run began with; told: what
    the method was told from there on. counted: whom the sums are about; few: what a run remembers of records that are
    too few; sizes: of the holders.
    """

    run: str
    done: int
    state: Mapping[str, NDArray[Any]]
    sums: tuple[Sum, ...] = ()
    told: tuple[Answer, ...] = ()
    counted: tuple[str, ...] = ()
    few: tuple[bool, bool] = (False, False)
    sizes: Mapping[str, Size] = field(default_factory=dict)


class Broken(EngineError):
    """A party failed, or a connection: the run can go on as another attempt."""


@dataclass
class Driven:
    """A finished study. result: not yet under release rules."""

    result: Result
    admissions: dict[str, Admission]
    sums: list[Sum] = field(default_factory=list)
    closings: dict[str, Closing] = field(default_factory=dict)


OnAdmission = Callable[[Mapping[str, Admission]], None]
OnState = Callable[[Checkpoint], None]


def drive(
    session: Session,
    study: Resolved,
    run: str,
    *,
    timeout: float,
    progress: Progress,
    on_admission: OnAdmission = lambda _: None,
    on_state: OnState = lambda _: None,
    start: Arrays | None = None,
    resume: Checkpoint | None = None,
    earlier: Sequence[str] = (),
    few: int = 0,
) -> Driven:
    """Answer a study with every holder of the session.

    on_admission is called after all holders have admitted and before anything is spent, on_state before every sum and
    before the end; either may raise to end the run. start: `state` to begin with, such as a first model. resume: go on
    after this checkpoint; `run` has to be a new name, and what the interrupted run and other attempts, `earlier`, had
    set aside is let go. The method is told again what it was told, and then goes on; an ask other than the one that was
    answered is a UsageError. A sum that a holder was charged for without the coordinator having it is repeated, where
    every holder that was charged gives it again (`statfed.client.repeats`), else it is lost: a study never costs more
    than was agreed. Raises Refused or UsageError when a holder does not admit the study, Broken when one fails. What
    the method or `statfed.core.resolution` raises on seeing totals depends on data: holders are told that there is no
    result, and count a refusal. few: records of a total fewer than which are not told of beside others, as the
    release's rules want it (`statfed.core.few`).
    """
    if study.obstacles:
        raise UsageError("\n".join(study.obstacles))
    done = resume.done if resume else 0
    exchange = Exchange(session, study, run, progress, done)
    line: _Line | None = None
    try:
        if resume:  # a coordinator that was killed could not free what it had reserved
            closings: Iterable[Closing] = ()
            for name in dict.fromkeys((*earlier, resume.run)):
                closings = Exchange(session, study, name, progress, done).release(SHORT).values()
            done = max(done, *(_lost(one, resume.done) for one in closings))
            resume = _without_lost(study, resume, done)
            exchange = Exchange(session, study, run, progress, done)
        driven = Driven(Result(study.terms.method, "", {"none": ()}), exchange.admit())
        on_admission(driven.admissions)
        _alike(study, driven.admissions)
        exchange.sizes = {name: admission.size for name, admission in driven.admissions.items()}
        if study.linking:
            started = time.perf_counter()
            driven.result, moved = linked(study, exchange, run, timeout, progress)
            seconds = time.perf_counter() - started
            driven.sums = [Sum(first_ask(study), seconds, moved.down, moved.up, {}, {})]
            driven.closings = _ended(exchange, kept=True)
            return driven
        begun = resume or Checkpoint(run, 0, dict(start or {}))
        line = _Line(study, exchange, driven, run, timeout, progress, on_state, begun, few)
        line.walk(lambda: _coordination(study, dict(begun.state)))
        driven.closings = _ended(exchange, kept=line.kept)
    except BaseException as error:
        withheld = line is not None and line.withheld
        with suppress(Exception):  # the first failure is the one to report; a reservation left over only over-counts
            exchange.release(SHORT if withheld else 5.0, "withheld" if withheld else "")
        if not withheld and type(error) is EngineError:
            raise Broken(str(error)) from error
        raise
    return driven


def _ended(exchange: Exchange, *, kept: bool) -> dict[str, Closing]:
    """Tell the holders that there is a result, from when on they give the run nothing more. kept: can another attempt
    be told all that this one was? Else it is told once everybody is known to be there, and is not insisted on."""
    if kept:
        return exchange.release(SHORT, "finished")
    closings = exchange.release(SHORT)
    with suppress(EngineError):
        closings = exchange.release(SHORT, "finished")
    return closings


def _lost(closing: Closing, done: int) -> int:
    """The last sum that a holder was charged for and does not give again, to a run that has `done` sums."""
    again = closing.again == closing.charged == done + 1
    return done if again else closing.charged


def _coordination(study: Resolved, state: dict[str, Any]) -> Coordination:
    if not state:
        return study.method.coordinate(study.question)
    coordinate: Callable[..., Coordination] = study.method.coordinate
    try:
        return coordinate(study.question, state)
    except TypeError:
        raise UsageError(f"{study.terms.method}: cannot go on with an interrupted run; want it begun anew") from None


def _without_lost(study: Resolved, resume: Checkpoint, done: int) -> Checkpoint:
    """A checkpoint after the sums that were paid for and are lost: rounds of training that left the model as it was.

    Raises UsageError where the method's state does not count rounds: it cannot do without a sum.
    """
    lost = done - resume.done
    if lost <= 0:
        return resume
    if not isinstance(study.budget, Fixed) or "round" not in resume.state or resume.told:
        raise UsageError(
            f"{study.terms.method}: sums {resume.done + 1} to {done} were paid for when the run was interrupted, and "
            "what they gave is lost; want it begun anew"
        )
    names = study.budget.order[resume.done : done]
    rounds = min(rounds_done(resume.state) + lost, int(getattr(study.question.options, "rounds", 0)))
    missing = int(np.asarray(resume.state.get("lost", 0))) + rounds - rounds_done(resume.state)
    state = {**resume.state, "round": np.array(rounds), "lost": np.array(missing)}
    sums = (*resume.sums, *(Sum(name, 0.0, 0, 0, {}, {}) for name in names))
    return replace(resume, done=done, state=state, sums=sums)


def _alike(study: Resolved, admissions: Mapping[str, Admission]) -> None:
    """Raises EngineError where holders have planned other noise, in a study whose noise is to be the same at all."""
    if not (study.privacy and study.own_noise) or getattr(study.method, "UPDATES", False):
        return
    found = {(one.noise_multiplier, one.sampling_rate): name for name, one in admissions.items()}
    if len(found) > 1:
        told = "; ".join(f"{name}: noise multiplier {m} at rate {r}" for (m, r), name in found.items())
        raise EngineError(f"{told}; want the same at every holder: totals would mean nothing")


@dataclass
class _Line:
    """One run of a method's coordination. withheld: did it end without a result, on seeing totals? kept: was all that
    the method was told handed to whoever keeps it?"""

    study: Resolved
    exchange: Exchange
    driven: Driven
    run: str
    timeout: float
    progress: Progress
    on_state: OnState
    begun: Checkpoint
    few: int = 0
    withheld: bool = False
    kept: bool = True
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        begun, driven = self.begun, self.driven
        self.number, driven.sums = begun.done, list(begun.sums)
        self.few_left_out, self.few_withheld = begun.few
        self.counted = begun.counted or self.study.terms.holders
        self.sizes = {n: Size(a.size, a.persons) for n, a in driven.admissions.items()}
        if begun.sizes and dict(begun.sizes) != self.sizes:
            raise UsageError(
                f"run {begun.run}: holders have other numbers of records than when it began; want a new run"
            )
        self.replays, self.state = deque(begun.told), begun.state
        self.since: list[Answer] = []  # what the method was told since `state`

    def walk(self, begin: Callable[[], Coordination]) -> None:
        """Ask by ask, until the method returns."""
        coordination = begin()
        study, terms = self.study, self.study.terms
        coordinator = study.protection.coordinator(agree(self.run, terms, self.exchange.sizes))
        tolerant = getattr(study.method, "TOLERANT", False)
        steps = len(study.budget.order) if isinstance(study.budget, Fixed) else 0
        steps = steps or int(getattr(study.question.options, "rounds", 0))
        refused: Refused | None = None
        total: Total | None = None
        for _ in range(LIMIT):
            with self._seeing(total is not None, refused):
                try:
                    ask = coordination.throw(refused) if refused else coordination.send(total)  # type: ignore[arg-type]
                except StopIteration as end:
                    self._save({})
                    check(begin, self.told, end.value, terms.protection.name)
                    self.driven.result = self._told(end.value)
                    self.progress("protected sums", self.number, self.number)
                    return
            refused, asked = None, digest_of(ask)
            self._save(ask.state)
            if self.replays:
                total, refused = self._replayed(ask, asked)
                continue
            if study.spent(self.number):
                refused = Refused("it was paid for when the run was interrupted, and what it gave is lost")
                continue
            self.number += 1
            self.progress("protected sums", self.number - 1, steps)
            try:
                total, aggregate = self._sum(coordinator, ask)
            except Refused as error:  # a method may do without what holders' rules keep back
                refused = error
                self._remember(ask, asked, error)
                continue
            self._remember(ask, asked, total)
            if not tolerant:
                self.counted = _same_holders(
                    self.counted, aggregate.holders, self.exchange.dropped, len(self.driven.sums)
                )
        with self._seeing(True):
            raise EngineError(f"{terms.method}: got no result after {LIMIT} sums")

    @contextmanager
    def _seeing(self, totals: bool, refused: Refused | None = None) -> Iterator[None]:
        """What is raised within it, where totals were told, depends on them. refused: by a holder, which counts it."""
        try:
            yield
        except Exception as error:
            self.withheld = totals and error is not refused
            raise

    def _replayed(self, ask: Ask, asked: str) -> tuple[Total | None, Refused | None]:
        """What was told to this ask in an earlier attempt."""
        one = self.replays.popleft()
        if one.asked != asked:
            raise UsageError(
                f"run {self.begun.run}: got {ask.name} as sum {one.number}, other than what was asked for as that sum "
                "before it was interrupted; want it begun anew"
            )
        answer = one.answer
        if isinstance(answer, Total):
            answer = Total(answer, answer.noise, {}, self.sizes, answer.holders, answer.resolution)
        self.number = one.number
        self._remember(ask, asked, answer)
        return (None, answer) if isinstance(answer, Refused) else (answer, None)

    def _save(self, state: Arrays) -> None:
        """Say what it takes to go on from here, `state` alone where the next ask has one.

        Nothing that stands for a single holder is kept: not a total over one, and not one whose single contributions
        the method read, which would be missing when it is told again. From such a total on only a state will do.
        """
        if self.replays:
            return
        if state:
            self.state, self.since = state, []
        totals = [one.answer for one in self.since if isinstance(one.answer, Total)]
        self.kept = not any(total.looked or len(total.holders) < 2 for total in totals)
        if self.kept:
            few, sums = (self.few_left_out, self.few_withheld), tuple(self.driven.sums)
            since = tuple(self.since)
            self.on_state(Checkpoint(self.run, self.number, self.state, sums, since, self.counted, few, self.sizes))

    def _remember(self, ask: Ask, asked: str, answer: Total | Refused) -> None:
        """Keep what the method is told, and of statistics all of it, for `statfed.core.resolution`; models are as they
        come."""
        self.since.append(Answer(self.number, asked, answer))
        if self.study.protection.REQUIRES.fixed_point and not self.study.training:
            self.told.append(Told(ask, answer))

    def _sum(self, coordinator: Coordinator, ask: Ask) -> tuple[Total, Aggregate]:
        """One protected total."""
        study, exchange, number = self.study, self.exchange, self.number
        started = time.perf_counter()
        if isinstance(study.budget, Adaptive) and not ask.share:
            raise UsageError(f"{study.terms.method}: {ask.name} states no share of the privacy budget; want one")
        parts, paid = study.parts(ask), study.price(ask, None)
        layout = study.layout(ask, parts, paid, exchange.sizes)
        aggregate, facts, traffic = exchange.total(
            formed(coordinator, layout, study.functions.get(ask.name, "")),
            partial(exchange.requests, "ask", number, ask),
            Receipt,
            number,
            f"ask {ask.name}",
            self.timeout,
        )
        if paid and paid.noise:
            drawn = stream(study.terms.seed, study.digest, number, "central noise")
            values, std = paid.noise.values(aggregate.total, drawn), paid.noise.std(len(aggregate.holders))
            total = Total(values, std, {}, self.sizes, aggregate.holders)
        else:
            summed = study.protection.REQUIRES.fixed_point and ask.name not in study.functions
            off = layout.resolution(len(aggregate.holders)) | dict(aggregate.resolution) if summed else None
            sums = aggregate.total
            arrays = sums if ask.name in study.functions else without_few(parts, sums, self.few)
            self.few_withheld |= any(not np.array_equal(arrays[name], sums[name]) for name in parts if name in sums)
            total = Total(arrays, None, aggregate.each, self.sizes, aggregate.holders, off)
        told_beside = any(isinstance(part.what, Counts) and part.what.beside for part in parts.values())
        self.few_left_out |= told_beside and any(fact.rules for fact in facts.values())
        self.driven.sums.append(
            Sum(
                ask.name,
                time.perf_counter() - started,
                traffic.down,
                traffic.up,
                {name: fact.seconds for name, fact in facts.items()},
                {name: fact.ledger_head for name, fact in facts.items()},
                tuple(sorted({rule for fact in facts.values() for rule in fact.rules})),
            )
        )
        return total, aggregate

    def _told(self, result: Result) -> Result:
        """The result, with notes where holders are missing in it, and against whom its epsilon holds."""
        asked = self.study.terms.holders
        missing = sorted(set(asked) - set(self.counted))
        notes = result.notes
        if missing:
            gone = ", ".join(missing)
            notes += (f"without {gone}, which dropped out: a result over {len(self.counted)} of {len(asked)} holders",)
        if self.few_left_out:
            notes += ("holders with rules leave out of numbers of missing and left-out records those that are too few",)
        if self.few_withheld:
            result = _without_zeros(result)
            notes += (
                "numbers of missing and left-out records that are too few are withheld; figures are as without those",
            )
        said = note(self.study.privacy) if self.study.privacy else None
        return result.with_(notes=(*notes, said) if said else notes)


def _without_zeros(result: Result) -> Result:
    """The result without numbers of missing or left-out records that are 0, since few were left out of some."""

    def shown(row: Row, names: Sequence[str]) -> dict[str, Scalar]:
        return {key: None if key in names and value == 0 else value for key, value in row.items()}

    tables = {
        name: [shown(row, basis.numbers if (basis := result.basis_of(name)) else ()) for row in rows]
        for name, rows in result.tables.items()
    }
    return result.with_(tables=tables, facts=shown(result.facts, result.numbers))


def _same_holders(
    before: tuple[str, ...], now: tuple[str, ...], dropped: Mapping[str, str], number: int
) -> tuple[str, ...]:
    """Whom a study's sums are about: whoever is in the first one, and then the same ones.

    Raises EngineError where a later sum is about others: no figure could be made of both.
    """
    if number > 1 and set(now) != set(before):
        gone = ", ".join(f"{name} ({dropped.get(name, 'absent')})" for name in sorted(set(before) ^ set(now)))
        raise EngineError(
            f"sum {number}: it is about other holders than the sums before it: {gone}; want a new run, of those that "
            "are there"
        )
    return tuple(sorted(now))


def rounds_done(state: Mapping[str, NDArray[Any]]) -> int:
    """Rounds of training that a state stands for."""
    return int(np.asarray(state.get("round", 0)))
