"""Descriptions in TOML: the same objects as if written in Python, and whatever does not fit named by file and key."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from statfed.core.beside import beside, closed, read_as
from statfed.core.card import TOPICS, Card, Question, read_card, read_trust
from statfed.core.errors import UsageError
from statfed.core.scenario import About, Case, read_about

ABOUT = """\
title = "Incomes"
purpose = "Mean income, by region"
parties = "three registers"
data = "one record per person"
partitioning = "horizontal"
protections = ["plain"]
source = "none"
gsbpm = "5.7 Calculate aggregates"

[roles]
"input parties" = "the registers"

[case]
parties = 3
epsilon = 2

[[card.questions]]
topic = "trust"
question = "Who is trusted?"
evidence = \"\"\"\\
    a contract, and \\
    its annex\"\"\"
"""
CARD = """\
trust = ["the coordinator follows the protocol"]

[card]
include = ["_shared.toml"]

[[card.questions]]
topic = "trust"
question = "Who is trusted?"
evidence = "a contract"

[[card.questions]]
topic = "roles"
question = "Who coordinates?"
evidence = "the agreement"
note = "one office"
"""
SHARED = """\
[[card.questions]]
topic = "roles"
question = "Who holds data?"
evidence = "the list of parties"
"""


def module(folder: Path, text: str, shared: str | None = SHARED) -> str:
    """Where a module would be that has `text` beside it."""
    (folder / "thing.toml").write_text(text, encoding="utf-8")
    if shared is not None:
        (folder / "_shared.toml").write_text(shared, encoding="utf-8")
    return str(folder / "thing.py")


def test_a_scenario_is_described_beside_its_module(tmp_path: Path) -> None:
    assert read_about(module(tmp_path, ABOUT)) == About(
        title="Incomes",
        purpose="Mean income, by region",
        parties="three registers",
        data="one record per person",
        partitioning="horizontal",
        protections=("plain",),
        source="none",
        gsbpm="5.7 Calculate aggregates",
        roles={"input parties": "the registers"},
        case=Case(parties=3, epsilon=2.0),
        card=Card((Question("trust", "Who is trusted?", "a contract, and its annex"),)),
    )


def test_a_card_is_sorted_by_topic_with_what_it_includes_first(tmp_path: Path) -> None:
    where = module(tmp_path, CARD)
    card = read_card(where)
    assert card.questions == (
        Question("roles", "Who holds data?", "the list of parties"),
        Question("roles", "Who coordinates?", "the agreement", "one office"),
        Question("trust", "Who is trusted?", "a contract"),
    )
    assert read_trust(where) == ("the coordinator follows the protocol",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Incomes"', 'titel = "Incomes"', "titel: unknown key; want fields of About, Case and Question only"),
        ('title = "Incomes"\n', "", "title: missing; want a value"),
        ('title = "Incomes"', "title = 3", "title: got 3; want string"),
        ('"horizontal"', '"diagonal"', "partitioning: got 'diagonal'; want 'horizontal', 'vertical' or 'linkage'"),
        ('["plain"]', '"plain"', "protections: got 'plain'; want tuple"),
        ('"the registers"', "7", "roles.input parties: got 7; want string"),
        ("parties = 3", "partys = 3", "case.partys: unknown key; want fields of"),
        ("parties = 3", "parties = 0", "case.parties: got 0; want greater than or equal to 1"),
        ('question = "Who is trusted?"\n', "", "card.questions.0.question: missing; want a value"),
        ("topic = ", "subject = ", "card.questions.0.subject: unknown key; want fields of"),
        ('topic = "trust"', 'topic = "thrust"', "card.questions.0.topic: got 'thrust'; want 'roles', 'trust', "),
        ("[roles]", "[roles", "not a readable TOML file"),
    ],
)
def test_a_wrong_description_of_a_scenario_is_told_by_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert ABOUT.count(old) == 1
    with pytest.raises(UsageError, match=re.escape(f"{tmp_path / 'thing.toml'}: {message}")):
        read_about(module(tmp_path, ABOUT.replace(old, new)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trust = ", "trusts = ", "thing.toml: trusts: unknown key; want trust, card.include, and topic, question, "),
        ("include = ", "includes = ", "thing.toml: card.includes: unknown key; want trust, card.include, "),
        ("note = ", "notes = ", "thing.toml: card.questions.1.notes: unknown key; want trust, card.include, "),
        ('evidence = "a contract"\n', "", "thing.toml: card.questions.0.evidence: missing; want a value"),
        ('evidence = "a contract"', "evidence = true", "thing.toml: card.questions.0.evidence: got True; want string"),
        ('topic = "roles"', 'topic = "rolls"', "thing.toml: card.questions.1.topic: got 'rolls'; want 'roles', "),
        ('["_shared.toml"]', '"_shared.toml"', "thing.toml: card.include: got '_shared.toml'; want tuple"),
        ('"_shared.toml"', '"_other.toml"', "description file not found: "),
        (CARD, 'trust = ["x"]', "thing.toml: card.questions: got none; want the questions that the technique raises"),
    ],
)
def test_a_wrong_card_is_told_by_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert CARD.count(old) == 1
    with pytest.raises(UsageError, match=re.escape(message)):
        read_card(module(tmp_path, CARD.replace(old, new)))


@pytest.mark.parametrize(
    ("shared", "message"),
    [
        (
            SHARED.replace("evidence", "proof"),
            "_shared.toml: card.questions.0.proof: unknown key; want topic, question",
        ),
        (f"[card]\ninclude = []\n{SHARED}", "_shared.toml: card.include: unknown key; want topic, question, evidence"),
        (f'trust = ["x"]\n{SHARED}', "_shared.toml: trust: unknown key; want topic, question, evidence and note of"),
    ],
)
def test_what_is_wrong_in_an_included_file_is_told_of_that_file(tmp_path: Path, shared: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read_card(module(tmp_path, CARD, shared))


def test_a_protection_says_what_it_rests_on(tmp_path: Path) -> None:
    where = module(tmp_path, CARD.partition("\n")[2])
    assert read_card(where).topics() == TOPICS[:2]
    with pytest.raises(UsageError, match=r"thing\.toml: trust: got none; want the assumptions under which"):
        read_trust(where)


def test_a_module_without_a_file_beside_it_says_which_it_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / "thing.toml"))):
        read_about(str(tmp_path / "thing.py"))


def test_a_key_that_an_open_dataclass_lets_pass_is_refused_by_a_closed_one(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Open:
        x: int

    @closed
    @dataclass(frozen=True)
    class Shut:
        x: int

    path = beside(module(tmp_path, "x = 1\ny = 2\n"))
    assert read_as(path, Open, "x") == Open(1)
    with pytest.raises(UsageError, match=r"thing\.toml: y: unknown key; want x$"):
        read_as(path, Shut, "x")
