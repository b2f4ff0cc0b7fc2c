"""The automatic attacker: it picks its questions by what they would tell of the target, asks, and solves for the value.

Before it asks it draws many questions of a method and takes the one after which the target's unit vector lies furthest
in the span of all it knows (`Knowledge.reach`): differencing, isolating columns and saturated cells are all found that
way, since each makes that share 1. Three questions in four are such as the rules should find nothing in (`polite`),
so that it is their combination that tells; the others are daring, until one is refused;
after each refusal it asks of larger groups. In the end two linear
programs give the interval that is left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tests.attacks.attacker.knowledge import Knowledge
from tests.attacks.attacker.questions import Aim, Question, apart, made, polite
from tests.attacks.world import No, World

SHARE = 0.02  # of the range: an interval of this width is the value within 1 %


@dataclass
class Outcome:
    """What an attack by one method left. width: of the interval, as a share of the public range."""

    method: str
    column: str
    width: float
    holds: bool
    reach: float
    asked: int
    refused: int
    told: int
    trail: list[str] = field(default_factory=list)

    @property
    def success(self) -> bool:
        """The value within 1 % of its range; of a yes or no, which it is."""
        return self.holds and self.width <= (0.5 if self.column == "illness" else SHARE)


def aim_of(world: World, column: str, index: int = 0) -> Aim:
    """What an attacker knows who knows every quasi-identifier of everybody. index: the target, in all records."""
    parts = [frame.assign(_holder=name) for name, frame in world.frames.items()]
    frame = pd.concat(parts, ignore_index=True)
    book = world.codebook
    secret = {"income", "benefit", "grant", "illness", "turnover", "hours", "weight", "event", "key", "share"}
    numeric = tuple(n for n in book.columns if book.columns[n].type in ("number", "integer") and n not in secret)
    categories = tuple(n for n in book.columns if book.columns[n].type == "category")
    for name in categories:
        frame[name] = pd.Categorical(frame[name], categories=list(book.columns[name].levels))
    return Aim(frame, index, column, numeric, categories, book)


def knowledge_of(aim: Aim) -> Knowledge:
    """Nothing but the public bounds."""
    low, high = aim.codebook.columns[aim.column].bounds or (0.0, 1.0)
    n = len(aim.frame)
    return Knowledge(np.full(n, low), np.full(n, high), np.eye(n)[aim.index])


def attack(
    world: World,
    aim: Aim,
    methods: Sequence[str],
    *,
    questions: int = 20,
    pool: int = 40,
    minimum: int = 10,
    seed: int = 0,
    known: Knowledge | None = None,
) -> Outcome:
    """Ask up to `questions`, the best of `pool` drawn ones each time, and solve."""
    rng = np.random.default_rng(seed)
    known = known or knowledge_of(aim)
    past: list[NDArray[np.bool_]] = []
    minimum = 6 * minimum if aim.binary else minimum  # of those who say yes there have to be enough
    refused: set[str] = set()
    trail: list[str] = []
    asked = told = 0
    for _ in range(questions):
        best = _best(aim, known, methods, rng, minimum, pool, refused, past)
        if best is None:
            break
        asked += 1
        words = f"{best.method} {best.options} {' & '.join(best.where)}"
        try:
            result = world.release(best.method, best.options, best.where)
        except No:
            refused.add(words)
            trail.append(f"refused: {words}")
            minimum = min(int(1.6 * minimum) + 1, len(aim.frame) // 4)  # it was too daring: more caution from here on
            continue
        found = best.read(result)
        past.append(best.inside)
        for a, b in found:
            known.learn(a, b)
        told += len(found)
        trail.append(f"{len(found)} figures: {words}")
        if known.reach() > 1 - 1e-9:
            break
    return outcome(aim, known, "+".join(methods) if len(methods) < 4 else "any", asked, len(refused), told, trail)


def outcome(aim: Aim, known: Knowledge, method: str, asked: int, refused: int, told: int, trail: list[str]) -> Outcome:
    """What the equations leave of the target's value."""
    low, high = known.interval()
    truth = float(aim.frame[aim.column].to_numpy(np.float64) @ known.wanted)
    full = float(np.abs(known.wanted) @ (known.high - known.low))
    slack = 1e-3 * full
    holds = low - slack <= truth <= high + slack
    return Outcome(method, aim.column, max(high - low, 0.0) / full, holds, known.reach(), asked, refused, told, trail)


def _best(
    aim: Aim,
    known: Knowledge,
    methods: Sequence[str],
    rng: np.random.Generator,
    minimum: int,
    pool: int,
    refused: set[str],
    past: Sequence[NDArray[np.bool_]],
) -> Question | None:
    """The drawn question that leads furthest; None where none leads further."""
    dare = not refused and rng.random() < 0.25
    best, score = None, known.reach() + 1e-12
    for _ in range(pool):
        one = made(aim, str(rng.choice(methods)), rng, minimum)
        words = f"{one.method} {one.options} {' & '.join(one.where)}"
        if words in refused:
            continue
        reach = known.reach(one.span)
        fine = dare or (apart(aim, one.inside, past, minimum) and polite(aim, one.span, minimum))
        if reach > score and fine:
            best, score = one, reach
    return best
