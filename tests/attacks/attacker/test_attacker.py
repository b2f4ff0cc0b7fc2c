"""The automatic attacker finds nothing under the template standard, and everything where rules are off."""

from pathlib import Path

import numpy as np
import pytest

from tests.attacks.attacker.arrays import SECRETS
from tests.attacks.attacker.campaign import PROBES, by_arrays, by_bits, by_questions, pairs
from tests.attacks.attacker.knowledge import Knowledge


def test_what_is_known_is_what_the_equations_leave() -> None:
    known = Knowledge(np.zeros(3), np.full(3, 10.0), np.eye(3)[0])
    assert known.interval() == (0.0, 10.0)
    known.learn(np.array([1.0, 1.0, 0.0]), 12.0)
    assert known.interval() == pytest.approx((2.0, 10.0), abs=1e-4)
    assert known.reach() == pytest.approx(0.5)
    assert known.reach(np.array([[0.0, 1.0, 0.0]])) == pytest.approx(1.0)
    known.learn(np.array([0.0, 1.0, 1.0]), 9.0)
    known.learn(np.array([1.0, 0.0, 1.0]), 7.0)
    assert known.interval() == pytest.approx((5.0, 5.0), abs=1e-4)
    assert known.reach() == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["total", "ratio", "describe", "table", "ttest", "covariance", "pca", "ols"])
def test_without_rules_an_analyst_who_searches_finds_the_value(method: str, tmp_path: Path) -> None:
    assert by_questions(tmp_path, "rehearsal", method, "income", 14).success


@pytest.mark.parametrize("method", ["glm", "glmm"])
def test_without_rules_a_coordinator_who_searches_finds_the_value(method: str, tmp_path: Path) -> None:
    assert by_arrays(tmp_path, "rehearsal", method, 20).success


@pytest.mark.parametrize(
    ("method", "column"), [("total", "income"), ("covariance", "income"), ("ols", "income"), ("table", "illness")]
)
def test_under_rules_an_analyst_finds_no_value(method: str, column: str, tmp_path: Path) -> None:
    found = by_questions(tmp_path, "standard", method, column, 5)
    assert found.holds, "the truth lies outside what the equations leave: the attacker is broken"
    assert not found.success, found.trail


@pytest.mark.parametrize("method", ["glm", "quantile"])
def test_under_rules_a_coordinator_finds_no_value(method: str, tmp_path: Path) -> None:
    found = by_arrays(tmp_path, "standard", method, 4)
    assert found.holds
    assert not found.success, found.trail


@pytest.mark.parametrize(
    "name", [name if i < 4 else pytest.param(name, marks=pytest.mark.whole) for i, name in enumerate(PROBES)]
)
def test_refusals_tell_no_value(name: str, tmp_path: Path) -> None:
    assert not by_bits(tmp_path, "standard", name, 12).success


def test_a_refusal_that_explains_tells_the_value(tmp_path: Path) -> None:
    assert by_bits(tmp_path, "rehearsal", "the upper bound of a codebook").success


@pytest.mark.whole
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("method", "column"), pairs())
def test_twenty_questions_of_several_attackers(method: str, column: str, seed: int, tmp_path: Path) -> None:
    found = by_questions(tmp_path, "standard", method, column, 20, seed)
    assert found.holds
    assert not found.success, found.trail


@pytest.mark.whole
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("method", SECRETS)
def test_twenty_asks_of_several_coordinators(method: str, seed: int, tmp_path: Path) -> None:
    found = by_arrays(tmp_path, "standard", method, 20, seed)
    assert found.holds
    assert not found.success, found.trail
