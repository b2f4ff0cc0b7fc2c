"""Every attack of the audits fails under the rules of the template standard, and succeeds where they are off."""

from pathlib import Path

import numpy as np
import pytest

from tests.attacks.finding import Attack
from tests.attacks.suite import ALL, tried


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name)
def test_an_attack_does_not_find_what_it_is_after(attack: Attack, tmp_path: Path) -> None:
    found, _ = tried(attack, tmp_path, ruled=True)
    assert not found.known, f"{attack.row}, held by {attack.rule}: got {found.got}, truth {found.truth}"


@pytest.mark.parametrize("attack", [a for a in ALL if a.control], ids=lambda a: a.name)
def test_without_rules_it_finds_it(attack: Attack, tmp_path: Path) -> None:
    found, _ = tried(attack, tmp_path, ruled=False)
    assert found.known, f"{attack.row}: got {found.got}, truth {found.truth}"


def test_there_are_attacks_of_every_actor() -> None:
    assert {attack.actor for attack in ALL} == {"analyst", "coordinator", "reader"}
    assert len({attack.method for attack in ALL}) > 15


def test_the_root_of_eighth_powers_is_the_largest_and_of_squares_is_not() -> None:
    """Control of `powers_that_bound_the_largest_contributor`: how high the power is, is no rule that has a switch."""
    turnover = np.array([300.0, 150.0, 120.0, *np.full(30, 3.0)])
    eighth, second = ((turnover**power).sum() ** (1 / power) for power in (8, 2))
    assert abs(eighth / 300 - 1) < 0.01
    assert abs(second / 300 - 1) > 0.1
