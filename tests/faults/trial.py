"""One fault in one run, what came of it, and whether budgets, releases and results are as they should be."""

import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.forked import Command
from tests.faults.injecting import FAULTS, MOMENTS, Fault, Scene, Watch, background, faketime
from tests.faults.world import HOLDERS, STUDIES, Price, World

LONGEST = 300.0
"""Seconds after which a command counts as one that never ends."""
TRIES = 3
PATIENCE = "45"
"""Seconds without a sum after which a run gives up trying again by itself."""
BETWEEN = {"exact": 2, "encrypted": 2, "private": 1, "training": 3}
"""Sums of each study."""


@dataclass(frozen=True)
class Case:
    """What is tried. seconds, wait: how long the fault lasts, and when it happens where that is at random."""

    number: int
    fault: Fault
    moment: str
    study: str
    party: str
    seconds: float
    wait: float


@dataclass
class Outcome:
    """What came of it. how: alone, resumed, refused, never ended or broke; late: the run had ended before the fault.

    drift: entries of ledgers more or fewer than what was released costs; doubled: sums that a holder was charged for
    twice; lost: paid for by every holder, and no result; wrong: another result than it has to be; held: holders at
    which budget is still set aside.
    """

    case: Case
    how: str
    resumes: int = 0
    late: bool = False
    drift: int = 0
    doubled: int = 0
    lost: bool = False
    wrong: bool = False
    held: int = 0
    said: str = ""
    seconds: float = 0.0
    whole: bool = True
    run: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Is everything as it has to be?"""
        return self.how not in ("never ended", "broke") and not (self.drift or self.doubled or self.lost or self.wrong)


def cases(count: int, seed: int) -> list[Case]:
    """So many cases, each kind of fault at each moment before any comes twice."""
    drawn, found = random.Random(seed), list[Case]()
    kinds = [one for one in FAULTS if faketime() is not None or "clock" not in one.what]
    pool: list[tuple[Fault, str]] = []
    while len(found) < count:
        if not pool:
            pool = [(fault, moment) for fault in kinds for moment in MOMENTS]
            drawn.shuffle(pool)
        fault, moment = pool.pop()
        studies = [fault.needs] if fault.needs else ["exact", "private", "private", "training"]
        study = drawn.choice(studies)
        if study == "private" and moment == "between sums":
            study = "training"
        party, seconds = drawn.choice(HOLDERS), round(drawn.uniform(0.5, 4.0), 2)
        found.append(Case(len(found) + 1, fault, moment, study, party, seconds, round(drawn.uniform(0.0, 4.0), 2)))
    return found


def run_once(world: World, study: str) -> tuple[str, float]:
    """A run without faults: its name, and the seconds that it took."""
    before, begun = _runs(world), time.monotonic()
    command = _ask(world, study, "reference.log")
    assert command.wait(LONGEST), "reference: no end"
    assert command.ended == "exit status 0", command.said()[-2000:]
    (run,) = _runs(world) - before
    return run, time.monotonic() - begun


def _runs(world: World) -> set[str]:
    return {one.name for one in world.runs()}


def _ask(world: World, study: str, log: str, word: str = "run") -> Command:
    number = str(world.numbers[study])
    words = (word, number, "--pilot", "trade", "--patience", PATIENCE, "--json")
    return world.command(*words, log=log, own="coordinator")


def prices(world: World, studies: Iterable[str] = STUDIES) -> Mapping[str, Price]:
    """What each study costs, by a run without faults; those runs' results are checked too."""
    found = {}
    for study in studies:
        run, _ = run_once(world, study)
        found[study] = world.cost(run)
        assert all(sum(paid.values()) == BETWEEN[study] for paid in found[study].values()), (study, found[study])
        assert not _wrong(world, study, run)
    return found


def tried(world: World, case: Case, price: Price) -> Outcome:
    """One case, from a whole pilot to a whole pilot."""
    begun, before, log = time.monotonic(), _runs(world), f"case-{case.number}.log"
    command = _ask(world, case.study, log)
    watch = Watch(world, command, before)
    there = watch.wait(case.moment, BETWEEN[case.study], case.wait)
    acting = background(case.fault, Scene(world, case.party, command, case.seconds))
    ended = command.wait(LONGEST)
    acting.join(LONGEST)
    outcome = Outcome(case, "alone", late=not there, run=watch.run)
    if not ended:
        command.kill()
        outcome.how = "never ended"
    outcome.whole = world.whole()
    if outcome.how == "alone" and command.ended != "exit status 0":
        _resume(world, outcome, command.said(), log)
    judge(world, outcome, price)
    outcome.seconds = time.monotonic() - begun
    return outcome


def _resume(world: World, outcome: Outcome, said: str, log: str) -> None:
    """Go on with a run until it has ended, is refused, or is none."""
    outcome.how = "refused"
    outcome.said = _last_words(said)
    if "Traceback" in said:
        outcome.how = "broke"
    for _ in range(TRIES):
        if not outcome.run:
            return
        again = _ask(world, outcome.case.study, f"resume-{log}", "resume")
        outcome.resumes += 1
        if not again.wait(LONGEST):
            again.kill()
            outcome.how = "never ended"
            return
        if again.ended == "exit status 0":
            outcome.how = "resumed"
            return
        outcome.said = _last_words(again.said())
        outcome.how = "broke" if "Traceback" in again.said() else "refused"
        if "anew" in again.said():
            return
        world.whole()


def _last_words(said: str) -> str:
    found = re.findall(r'"message": ?"((?:[^"\\]|\\.)*)"', said)
    return (found[-1] if found else said[-300:]).strip()


def judge(world: World, outcome: Outcome, price: Price) -> None:
    """Compare ledgers and result with what they have to be."""
    if not outcome.run:
        return
    cost = world.cost(outcome.run)
    outcome.doubled = sum(count - 1 for paid in cost.values() for count in _by_sum(paid).values() if count > 1)
    finished = outcome.how in ("alone", "resumed")
    for holder in HOLDERS:
        want: Counter[tuple[str, int, str]] = price[holder] if finished else Counter()
        outcome.drift += sum((cost[holder] - want).values()) + sum((want - cost[holder]).values())
    outcome.lost = not finished and all(cost[holder] == price[holder] for holder in HOLDERS)
    outcome.wrong = finished and _wrong(world, outcome.case.study, outcome.run)
    outcome.held = world.held(outcome.run)
    world.intact()


def _by_sum(paid: Counter[tuple[str, int, str]]) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for (kind, number, _), count in paid.items():
        found[kind, number] += count
    return found


def _wrong(world: World, study: str, run: str) -> bool:
    """Is the result another than that of the pooled records, or of a model that was trained through?"""
    result = world.result(run)
    if result is None:
        return True
    if study == "training":
        sums: Sequence[object] = result["sums"]  # type: ignore[assignment]
        return len(sums) != BETWEEN[study]
    row: Mapping[str, float] = result["estimates"][0]  # type: ignore[index]
    off, scale = abs(row["estimate"] - world.pooled()), 1e-9 if study != "private" else 8 * row["std_error"]
    return off > max(scale, 1e-9)


def suite(world: World, chosen: Sequence[Case]) -> Iterator[Outcome]:
    """Case by case."""
    price = prices(world, dict.fromkeys(case.study for case in chosen))
    for case in chosen:
        yield tried(world, case, price[case.study])
