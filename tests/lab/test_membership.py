"""Membership attack: its figure against scikit-learn, and that it finds members of a model that knows them by heart."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

from statfed.lab.compare.membership import (
    SMALLEST,
    Slice,
    attack,
    auc,
    best_slice,
    losses,
    slices,
    standard_error,
)


def world(count: int, seed: int, features: int = 10) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Records whose labels are partly noise: a model that fits them all has learnt noise."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, features))
    labels = (x[:, 0] + random.normal(0, 1.0, count) > 0).astype(np.int64)
    return x, labels


def given_by(model: Any, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The model's probabilities, (records, classes)."""
    found: NDArray[np.float64] = model.predict_proba(x)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
)
def test_auc_is_that_of_scikit_learn_ties_included(members: list[int], others: list[int]) -> None:
    mine, theirs = np.array(members, float), np.array(others, float)
    truth = np.r_[np.ones(len(mine)), np.zeros(len(theirs))]
    want = roc_auc_score(truth, -np.r_[mine, theirs])
    assert auc(mine, theirs) == pytest.approx(float(want), abs=1e-12)
    assert auc(theirs, mine) == pytest.approx(1.0 - float(want), abs=1e-12)


def test_losses_are_cross_entropies_and_finite_for_a_probability_of_0() -> None:
    given_ = np.array([[0.2, 0.8], [1.0, 0.0]])
    found = losses(given_, np.array([1, 1]))
    assert found[0] == pytest.approx(-math.log(0.8))
    assert np.isfinite(found).all()
    assert found[1] > 20


def test_attack_finds_members_of_a_model_that_knows_them_by_heart() -> None:
    (x, y), (x_new, y_new) = world(400, 1), world(400, 2)
    heart = DecisionTreeClassifier(random_state=0).fit(x, y)
    found = attack(given_by(heart, x), y, given_by(heart, x_new), y_new)
    # a full tree is right about all members and about a share p of others: ties count half, so the area is 1 - p / 2
    assert found == pytest.approx(1 - heart.score(x_new, y_new) / 2, abs=1e-12)
    assert found > 0.6
    near = KNeighborsClassifier(3).fit(x, y)
    assert attack(given_by(near, x), y, given_by(near, x_new), y_new) > 0.6


def test_attack_guesses_where_the_model_never_saw_either() -> None:
    x, y = world(400, 3)
    model = DecisionTreeClassifier(max_depth=6, random_state=0).fit(x, y)
    found = []
    for seed in range(10, 30):
        (one, a), (other, b) = world(500, seed), world(700, seed + 1000)
        found.append(attack(given_by(model, one), a, given_by(model, other), b))
    error = standard_error(500, 700)
    assert abs(np.mean(found) - 0.5) < 3 * error / math.sqrt(20)


def test_a_simple_model_of_many_records_tells_less_than_a_tree() -> None:
    (x, y), (x_new, y_new) = world(2000, 1), world(2000, 2)
    plain = LogisticRegression().fit(x, y)
    found = attack(given_by(plain, x), y, given_by(plain, x_new), y_new)
    assert abs(found - 0.5) < 4 * standard_error(2000, 2000)


def test_standard_error_is_the_spread_of_areas_where_nothing_leaks() -> None:
    random = np.random.default_rng(1)
    drawn = [auc(random.random(60), random.random(90)) for _ in range(3000)]
    assert np.std(drawn) == pytest.approx(standard_error(60, 90), rel=0.05)


def test_slices_are_attacks_on_their_records_and_the_best_is_found() -> None:
    random = np.random.default_rng(2)
    mine, theirs = random.dirichlet([1, 1, 1], 300), random.dirichlet([1, 1, 1], 400)
    a, b = random.integers(0, 3, 300), random.integers(0, 3, 400)
    mine[a == 2] = [0.01, 0.01, 0.98]  # members of class 2 are known by heart
    found = {one.name: one for one in slices(mine, a, theirs, b)}
    assert list(found) == ["all", "class 0", "class 1", "class 2", "right", "wrong"]
    assert found["all"].auc == attack(mine, a, theirs, b)
    assert found["class 1"].auc == attack(mine[a == 1], a[a == 1], theirs[b == 1], b[b == 1])
    wrong = (mine.argmax(1) != a, theirs.argmax(1) != b)
    assert found["wrong"].auc == attack(mine[wrong[0]], a[wrong[0]], theirs[wrong[1]], b[wrong[1]])
    assert (found["wrong"].members, found["wrong"].others) == (wrong[0].sum(), wrong[1].sum())
    assert best_slice(tuple(found.values())).name == "class 2"
    assert best_slice(tuple(found.values())).auc > 0.9


def test_a_slice_of_few_records_is_left_out_and_all_records_never() -> None:
    random = np.random.default_rng(3)
    mine, theirs = random.dirichlet([1, 1], SMALLEST + 5), random.dirichlet([1, 1], 200)
    few = np.zeros(SMALLEST + 5, np.int64)
    few[: SMALLEST - 1] = 1
    names = [one.name for one in slices(mine, few, theirs, random.integers(0, 2, 200))]
    assert "class 1" not in names
    assert names[0] == "all"
    only = slices(mine[:3], few[:3], theirs, random.integers(0, 2, 200))
    assert [one.name for one in only] == ["all"]
    assert isinstance(only[0], Slice)


@pytest.mark.parametrize("members", [np.array([]), np.array([0.1, np.nan])])
def test_nothing_to_attack_and_losses_that_are_no_numbers_are_refused(members: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="membership: got"):
        auc(members, np.array([0.5]))
