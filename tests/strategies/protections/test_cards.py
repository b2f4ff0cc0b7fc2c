"""Cards of protections and scenarios: every topic is asked about, as a question, and no word decides it."""

import json
import re
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.card import TOPICS, Card, Question, by_topic, card_of
from statfed.core.discovery import LINKAGES, load, modules
from statfed.core.errors import UsageError
from statfed.core.protection import PACKAGE, load_protection

NAMES = sorted(name for name, where in modules(PACKAGE).items() if where.startswith(f"{PACKAGE}."))  # not from outside
LINKED = sorted(name for name, where in modules(LINKAGES).items() if where.startswith(f"{LINKAGES}."))
VERDICT = re.compile(
    r"\b(complian\w*|complies|comply|lawful\w*|unlawful\w*|illegal\w*|permitted|certified|adequate\w*|"
    r"gdpr-proof|risk-free|no risk|(?<!not )anonymous|(?<!not )anonymi[sz]ed|not personal data|"
    r"(fully|perfectly|completely) (safe|secure|private))\b",
    re.IGNORECASE,
)
"""Words with which a card would answer what only the parties can."""


def cards() -> dict[str, Card]:
    """Every card there is, of protections and of scenarios."""
    found = {name: card_of(load(PACKAGE, name, "protection")) for name in NAMES}
    found |= {f"linkage {name}": card_of(load(LINKAGES, name, "linkage")) for name in LINKED}
    for name in sorted(modules("statfed.scenarios")):
        found[f"scenario {name}"] = load("statfed.scenarios", name, "scenario").ABOUT.card
    return found


@pytest.mark.parametrize("name", [*NAMES, *LINKED])
def test_a_technique_here_leaves_no_topic_out(name: str) -> None:
    card = card_of(load_protection(name))
    assert set(TOPICS) - set(card.topics()) == set()
    assert card.topics() == TOPICS, "in the order of the topics"
    asked = [one.question for one in card.questions]
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("name", NAMES)
def test_a_protection_with_third_parties_asks_who_they_are_and_what_keeps_them_apart(name: str) -> None:
    module = load(PACKAGE, name, "protection")
    who = {"homomorphic-encryption": "key holder", "multi-party": "node"}.get(name, "")
    assert bool(module.REQUIRES.third_parties) == bool(who)
    if who:
        for topic in ("roles", "trust", "key custody", "joint control", "transfers", "recurring cost"):
            assert any(who in one.question + one.note for one in card_of(module).on(topic)), topic


def test_every_question_of_every_card_is_a_question_with_evidence_to_attach() -> None:
    for name, card in cards().items():
        for one in card.questions:
            assert one.topic in TOPICS, (name, one)
            assert one.question.endswith("?"), (name, one.question)
            assert one.question[0].isupper(), (name, one.question)
            assert len(one.evidence) > 10, (name, one.question)
            assert "?" not in one.evidence + one.note, (name, one.question)


def test_no_card_answers_what_only_the_parties_can() -> None:
    for name, card in cards().items():
        for one in card.questions:
            for text in (one.question, one.evidence, one.note):
                assert VERDICT.search(text) is None, (name, text)


@pytest.mark.parametrize(
    "text",
    ["The technique is compliant.", "This is GDPR-proof", "sums are anonymous", "an adequate level", "fully secure"],
)
def test_the_words_of_a_verdict_are_recognised(text: str) -> None:
    assert VERDICT.search(text)


def test_a_card_sorts_its_questions_by_topic_and_keeps_their_order_within_one() -> None:
    a, b, c = Question("trust", "A?", "x"), Question("roles", "B?", "x"), Question("trust", "C?", "x")
    assert by_topic(a, b, c).questions == (b, a, c)
    assert by_topic(a, b, c).topics() == ("roles", "trust")
    assert by_topic(a, b, c).on("trust") == (a, c)


def test_a_protection_from_outside_may_bring_no_card_and_not_a_wrong_one() -> None:
    assert card_of(ModuleType("plugin")) == Card()
    with pytest.raises(UsageError, match="got list; want a"):
        card_of(SimpleNamespace(CARD=[]))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *words: CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("name", NAMES)
def test_the_command_shows_the_whole_card_and_has_it_in_its_document(call: Any, name: str) -> None:
    card = card_of(load(PACKAGE, name, "protection"))
    (row,) = json.loads(call("protections", name, "--json").stdout)["protections"]
    assert [Question(**one) for one in row["card"]] == list(card.questions)
    shown = re.sub(r"[\s│]+", "", call("protections", name).stdout)
    for topic in TOPICS:
        assert topic.replace(" ", "") in shown
    assert "Questionstoanswer,andevidencetoattach" in shown


def test_the_command_says_that_a_technique_brings_no_card(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(load(PACKAGE, "plain", "protection"), "CARD")
    assert "this technique brings no card" in call("protections", "plain").stdout
    (row,) = json.loads(call("protections", "plain", "--json").stdout)["protections"]
    assert row["card"] == []
