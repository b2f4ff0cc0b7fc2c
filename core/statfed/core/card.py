"""Organisational, business and legal aspects as questions to answer and evidence to attach, never as a verdict."""

from dataclasses import dataclass
from typing import Literal, get_args

from statfed.core.errors import UsageError

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


@dataclass(frozen=True)
class Question:
    """One question that the parties have to answer. evidence: what would show the answer; note: facts on it."""

    topic: Topic
    question: str
    evidence: str
    note: str = ""


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


def card_of(module: object) -> Card:
    """The `CARD` of a protection's module; an empty card where it brings none, as one from outside may.

    Raises UsageError on a CARD of another kind.
    """
    card = getattr(module, "CARD", Card())
    if not isinstance(card, Card):
        raise UsageError(f"CARD: got {type(card).__name__}; want a statfed.core.card.Card")
    return card
