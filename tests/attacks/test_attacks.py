"""Every attack of the audits fails under the rules of the template standard, and succeeds where they are off."""

from pathlib import Path

import pytest

from tests.attacks.finding import Attack
from tests.attacks.suite import ALL, tried


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name)
def test_an_attack_does_not_find_what_it_is_after(attack: Attack, tmp_path: Path) -> None:
    found, _ = tried(attack, tmp_path, ruled=True)
    assert not found.known, f"{attack.row}, held by {attack.rule}: got {found.got}, truth {found.truth}"


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name)
def test_without_rules_it_finds_it(attack: Attack, tmp_path: Path) -> None:
    found, _ = tried(attack, tmp_path, ruled=False)
    assert found.known, f"{attack.row}: got {found.got}, truth {found.truth}"


def test_there_are_attacks_of_every_actor() -> None:
    assert {attack.actor for attack in ALL} == {"analyst", "coordinator", "reader"}
    assert len({attack.method for attack in ALL}) > 15
