"""Questions whose answer is whether there is one: refusals, errors and their words as bits, bisected.

Each probe is a question with a number in it. The attacker asks it at both ends of the value's public range; where what
comes back differs it has found an oracle, and bisects. What comes back is put into words: an answer, or the text.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.attacks.attacker.questions import Aim
from tests.attacks.population import changed
from tests.attacks.world import World

Ask = Callable[[World, Aim, float], str]


@dataclass(frozen=True)
class Bit:
    """What one probe found. width: of the interval that is left, as a share of the range."""

    name: str
    method: str
    width: float
    holds: bool
    asked: int

    @property
    def success(self) -> bool:
        return self.holds and self.width <= 0.02


def _words(world: World, method: str, options: dict[str, object], where: list[str], **more: Any) -> str:
    try:
        world.release(method, options, where, **more)
    except Exception as error:  # noqa: BLE001  # whatever is said differently is a bit
        text = re.sub("[0-9a-f]{8,}", "", str(error))  # ids are drawn at random, digests are public
        return "refused" if "limits.refusals" in text else re.sub("[0-9]", "", text)
    return "answered"


def _around(aim: Aim) -> list[str]:
    equal = [f"{name} = {aim.value(name)}" for name in aim.categories]
    return equal + [f"{name} {op} {aim.value(name)}" for name in aim.numeric for op in (">=", "<=")]


def _filter(method: str, options: dict[str, object], wide: bool) -> Ask:
    def ask(world: World, aim: Aim, x: float) -> str:
        where = [f"age >= {aim.value('age')}"] if wide else _around(aim)
        relation = f"{aim.column} < {x}" if wide else f"{aim.column} >= {x}"
        return _words(world, method, options, [*where, relation])

    return ask


def _codebook(**field: str) -> Ask:
    (key, kind), *_ = field.items()

    def ask(world: World, aim: Aim, x: float) -> str:
        value: object = [x] if kind == "list" else x
        book = changed(aim.codebook, **{aim.column: {key: value}})
        return _words(world, "mean", {"columns": [aim.column]}, [], codebook=book)

    return ask


def _option(method: str, **options: object) -> Ask:
    def ask(world: World, aim: Aim, x: float) -> str:
        given = {key: (x if value is None else value) for key, value in options.items()}
        return _words(world, method, given, [])

    return ask


def _edge(world: World, aim: Aim, x: float) -> str:
    low, high = aim.codebook.columns[aim.column].bounds or (0.0, 1.0)
    edges = [low, min(max(x, low + 1e-6), high - 1e-6), high]
    return _words(world, "histogram", {"column": aim.column, "edges": edges}, [])


def _log(world: World, aim: Aim, x: float) -> str:
    """A logarithm that some record has not."""
    return _words(world, "ols", {"formula": f"hours ~ sqrt({x} - {aim.column})"}, [])


PROBES: dict[str, tuple[str, Ask]] = {
    "a filter around the target": ("count", _filter("count", {}, wide=False)),
    "a filter around the target, means": ("mean", _filter("mean", {"columns": ["benefit"]}, wide=False)),
    "a filter that leaves the target out": ("count", _filter("count", {}, wide=True)),
    "the upper bound of a codebook": ("mean", _codebook(high="number")),
    "a missing code of a codebook": ("mean", _codebook(missing="list")),
    "the largest contributor of a table": (
        "table",
        _option("table", rows=["sex"], value="income", largest_contributor=None),
    ),
    "an edge of a histogram": ("histogram", _edge),
    "a mean under the null hypothesis": ("ttest", _option("ttest", columns=["income"], mu=None)),
    "where a function is defined": ("ols", _log),
}


def probe(world: World, aim: Aim, name: str, questions: int = 20) -> Bit:
    """Bisect with one probe, as far as it has anything to say."""
    method, ask = PROBES[name]
    low, high = aim.codebook.columns[aim.column].bounds or (0.0, 1.0)
    truth, full = float(aim.value(aim.column)), high - low
    first = ask(world, aim, low + 0.3 * full)  # above everybody's but the target's, below it: see the population
    last = ask(world, aim, high - 1e-3 * full)
    asked = 2
    if first == last:
        return Bit(name, method, 1.0, True, asked)
    at, end = low + 0.3 * full, high
    while asked < questions and end - at > 0.01 * full:
        middle = (at + end) / 2
        asked += 1
        if ask(world, aim, middle) == first:
            at = middle
        else:
            end = middle
    return Bit(name, method, (end - at) / full, at - 0.01 * full <= truth <= end + 0.01 * full, asked)
