"""Runs of the automatic attacker against holder `a` under one template: every method, arrays, probes."""

from pathlib import Path

from statfed.client.guard.templates import Template
from statfed.core.disclosure import OFF, Rules
from tests.attacks.attacker import arrays
from tests.attacks.attacker.probes import PROBES, Bit, probe
from tests.attacks.attacker.questions import BINARY, NUMERIC
from tests.attacks.attacker.search import Outcome, aim_of, attack, knowledge_of
from tests.attacks.population import PERSONS, persons
from tests.attacks.world import World


def world(home: Path, template: Template) -> World:
    """One holder, whose figures an attacker sees alone: the strongest case."""
    rules = Rules() if template == "standard" else OFF
    return World(home, {"a": persons()["a"]}, PERSONS, template, {}, rules)


def by_questions(home: Path, template: Template, method: str, column: str, questions: int, seed: int = 0) -> Outcome:
    """An analyst's run with one method, helped by means or counts."""
    made = world(home, template)
    try:
        helped = "mean" if column == "income" else "count"
        found = attack(made, aim_of(made, column), [method, method, helped], questions=questions, seed=seed)
        found.method = method
        return found
    finally:
        made.close()


def by_arrays(home: Path, template: Template, method: str, asks: int, seed: int = 0) -> Outcome:
    """A coordinator's run with one method."""
    made = world(home, template)
    try:
        aim = aim_of(made, arrays.SECRETS[method])
        return arrays.attack(made, aim, knowledge_of(aim), method, asks, seed)
    finally:
        made.close()


def by_bits(home: Path, template: Template, name: str, questions: int = 20) -> Bit:
    """A run that asks for refusals."""
    made = world(home, template)
    try:
        return probe(made, aim_of(made, "income"), name, questions)
    finally:
        made.close()


def pairs() -> list[tuple[str, str]]:
    """Methods and the sensitive column that each is about."""
    return [(method, "income") for method in NUMERIC] + [(method, "illness") for method in BINARY]


__all__ = ["PROBES", "by_arrays", "by_bits", "by_questions", "pairs", "world"]
