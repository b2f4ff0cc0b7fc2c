"""Organisational, business and legal aspects as questions to answer and evidence to attach, never as a verdict.

A protection's questions stand in the TOML file beside its module, with the assumptions under which it holds:

    trust = ["the coordinator follows the protocol"]
    [card]
    include = ["_everywhere.toml"]  # files beside it with questions that several cards have
    [[card.questions]]
    topic = "roles"
    question = "Who coordinates?"
    evidence = "the agreement"
    note = "facts on it, where there are any"
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from statfed.core.beside import beside, closed, read_as
from statfed.core.errors import UsageError
from statfed.core.section import Section

Topic = Literal[
    "roles",
    "trust",
    "key custody",
    "legal basis",
    "impact assessment",
    "joint control",
    "transfers",
    "safe projects",
    "safe people",
    "safe settings",
    "safe data",
    "safe outputs",
    "skills",
    "maturity",
    "recurring cost",
    "auditability",
    "revocation",
]
"""What a card may ask about: who does what and is trusted with what; law; the Five Safes (Desai, Ritchie and Welpton
2016); what it takes to run and to end."""
TOPICS: tuple[Topic, ...] = get_args(Topic)


@closed
@dataclass(frozen=True)
class Question:
    """One question that the parties have to answer. evidence: what would show the answer; note: facts on it."""

    topic: Topic
    question: str
    evidence: str
    note: str = ""


@closed
@dataclass(frozen=True)
class Card:
    """The questions that a technique or a case raises, by topic."""

    questions: tuple[Question, ...] = ()

    def topics(self) -> tuple[Topic, ...]:
        """Topics with a question, in the card's order."""
        return tuple(dict.fromkeys(one.topic for one in self.questions))

    def on(self, topic: Topic) -> tuple[Question, ...]:
        """The questions of one topic."""
        return tuple(one for one in self.questions if one.topic == topic)


def by_topic(*questions: Question) -> Card:
    """A card with its questions in the order of `TOPICS`; within a topic as given."""
    return Card(tuple(sorted(questions, key=lambda one: TOPICS.index(one.topic))))


class _Questions(Section):
    """A card as it is written. include: files beside this one whose questions it has too."""

    include: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()


class _Described(Section):
    """The file beside a protection."""

    trust: tuple[str, ...] = ()
    card: _Questions = _Questions()


class _Shared(Section):
    """A file of questions that several cards have."""

    card: Card


_ASKED = "topic, question, evidence and note of card.questions"


@cache
def _described(path: Path) -> _Described:
    return read_as(path, _Described, f"trust, card.include, and {_ASKED} only")


def read_card(module: str) -> Card:
    """The card in the TOML file beside a protection's module, in the order of `TOPICS`. module: its `__file__`.

    Raises UsageError naming the file and the key, what was got and what is wanted.
    """
    path = beside(module)
    written = _described(path).card
    shared = [read_as(path.parent / name, _Shared, f"{_ASKED} only").card for name in written.include]
    card = by_topic(*(one for other in shared for one in other.questions), *written.questions)
    if not card.questions:
        raise UsageError(f"{path}: card.questions: got none; want the questions that the technique raises")
    return card


def read_trust(module: str) -> tuple[str, ...]:
    """The assumptions under which a protection holds, as its TOML file says. Raises UsageError as `read_card` does."""
    path = beside(module)
    trust = _described(path).trust
    if not trust:
        raise UsageError(f"{path}: trust: got none; want the assumptions under which the protection holds")
    return trust


def card_of(module: object) -> Card:
    """The `CARD` of a protection's module; an empty card where it brings none, as one from outside may.

    Raises UsageError on a CARD of another kind.
    """
    card = getattr(module, "CARD", Card())
    if not isinstance(card, Card):
        raise UsageError(f"CARD: got {type(card).__name__}; want a statfed.core.card.Card")
    return card
