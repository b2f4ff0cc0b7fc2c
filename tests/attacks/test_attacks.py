"""Every attack of the audits fails under the rules of the template standard, and succeeds where they are off."""

from pathlib import Path

import numpy as np
import pytest

from statfed.core.disclosure import OFF
from tests.attacks import alternatives
from tests.attacks.finding import Attack
from tests.attacks.population import PERSONS, persons
from tests.attacks.suite import ALL, tried
from tests.attacks.world import World


@pytest.mark.parametrize("attack", ALL, ids=lambda a: a.name)
def test_an_attack_does_not_find_what_it_is_after(attack: Attack, tmp_path: Path) -> None:
    found, _ = tried(attack, tmp_path, ruled=True)
    assert not found.known, f"{attack.row}, held by {attack.rule}: got {found.got}, truth {found.truth}"


@pytest.mark.parametrize("attack", [a for a in ALL if a.control], ids=lambda a: a.name)
def test_without_rules_it_finds_it(attack: Attack, tmp_path: Path) -> None:
    found, _ = tried(attack, tmp_path, ruled=False)
    assert found.known, f"{attack.row}: got {found.got}, truth {found.truth}"


@pytest.mark.parametrize("attack", [a for a in ALL if a.row == "or"], ids=lambda a: a.name)
def test_holders_alone_hold_attacks_by_alternatives(attack: Attack, tmp_path: Path) -> None:
    """Without the rules of the release, which does not compare alternatives over several columns at all."""
    world = World(tmp_path, dict(list(persons().items())[:1]), PERSONS, "standard", attack.policies, OFF)
    found = attack.run(world)
    world.close()
    assert not found.known, f"{attack.rule}: got {found.got}, truth {found.truth}"


@pytest.mark.parametrize(
    "rules",
    [{"joint_share": "off"}, {"minimum_frequency": "off"}],
    ids=["without the joint rule", "without frequencies"],
)
def test_either_rule_alone_refuses_the_cells_within_alternatives(rules: dict[str, str], tmp_path: Path) -> None:
    world = World(tmp_path, dict(list(persons().items())[:1]), PERSONS, "standard", {"disclosure": rules}, OFF)
    found = alternatives.the_target_or_other_regions_less_the_cells_of_those(world)
    world.close()
    assert not found.known


def test_there_are_attacks_of_every_actor() -> None:
    assert {attack.actor for attack in ALL} == {"analyst", "coordinator", "reader"}
    assert len({attack.method for attack in ALL}) > 15


def test_the_root_of_eighth_powers_is_the_largest_and_of_squares_is_not() -> None:
    """Control of `powers_that_bound_the_largest_contributor`: how high the power is, is no rule that has a switch."""
    turnover = np.array([300.0, 150.0, 120.0, *np.full(30, 3.0)])
    eighth, second = ((turnover**power).sum() ** (1 / power) for power in (8, 2))
    assert abs(eighth / 300 - 1) < 0.01
    assert abs(second / 300 - 1) > 0.1
