"""Graphical models against the table of all cells: margins, the nearest model, and records drawn from it."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize

from statfed.strategies.analyses._graph import Junction, Measured, fitted, junction
from statfed.strategies.analyses._merging import coarser, merged, projected

SIZES = (3, 2, 4, 2, 3)
SETS = {
    "tree": [(0, 1), (1, 2), (2, 3), (3, 4)],
    "cycle": [(0, 1), (1, 2), (2, 3), (0, 3), (3, 4)],
    "apart": [(0, 2), (3, 4)],
    "none": [],
    "all": list(combinations(range(5), 2)),
}


def joint(tree: Junction, factors: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The table of all cells."""
    logs = np.zeros(tree.sizes)
    for clique, factor in zip(tree.cliques, factors, strict=True):
        logs = logs + factor.reshape([size if c in clique else 1 for c, size in enumerate(tree.sizes)])
    found: NDArray[np.float64] = np.exp(logs) / np.exp(logs).sum()
    return found


def margin(table: NDArray[np.float64], columns: tuple[int, ...]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = table.sum(axis=tuple(c for c in range(table.ndim) if c not in columns))
    return found


@pytest.mark.parametrize("name", SETS)
def test_margins_of_cliques_are_those_of_all_cells_together(name: str) -> None:
    tree, rng = junction(SIZES, SETS[name]), np.random.default_rng(1)
    factors = [rng.normal(0, 2, tree.shape(clique)) for clique in tree.cliques]
    table = joint(tree, factors)
    for clique, found in zip(tree.cliques, tree.margins(factors), strict=True):
        np.testing.assert_allclose(found, margin(table, clique), atol=1e-12)


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_in_a_clique_and_cliques_of_a_column_hang_together(name: str) -> None:
    tree = junction(SIZES, SETS[name])
    assert all(tree.holding(one) is not None for one in SETS[name])
    assert {column for clique in tree.cliques for column in clique} == set(range(5))
    for place, over in enumerate(tree.separators):
        earlier = {column for clique in tree.cliques[:place] for column in clique}
        assert {*tree.cliques[place]} & earlier == {*over}


def test_the_model_is_the_nearest_to_noisy_counts_as_a_general_optimiser_finds_it() -> None:
    rng, total = np.random.default_rng(2), 1000.0
    tree = junction((3, 4, 2), [(0, 1), (1, 2)])
    groups = {1: np.array([0, 0, 1, 1])}
    told = [
        Measured((0, 1), rng.uniform(0, 200, (3, 4)) + rng.normal(0, 30, (3, 4)), np.full((3, 4), 30.0), {}),
        Measured((2, 1), rng.uniform(50, 400, (2, 2)), np.full((2, 2), 15.0), groups),
        Measured((0,), rng.uniform(200, 400, 3), np.array([5.0, 10.0, 20.0]), {}),
    ]

    def loss(values: NDArray[np.float64]) -> float:
        table = np.exp(values - values.max()).reshape(3, 4, 2)
        table = total * table / table.sum()
        one, two = table.sum(axis=2), table.sum(axis=0)
        coarse = np.stack([two[:2].sum(axis=0), two[2:].sum(axis=0)], axis=1)
        seen = (one, coarse, table.sum(axis=(1, 2)))
        return 0.5 * sum(float((((a - b.values) / b.noise) ** 2).sum()) for a, b in zip(seen, told, strict=True))

    best = optimize.minimize(loss, np.zeros(24), method="BFGS", options={"maxiter": 2000})
    factors, _ = fitted(tree, told, total, 5000)
    assert loss(np.log(joint(tree, factors)).ravel()) == pytest.approx(best.fun, rel=2e-3)


def test_exact_counts_are_met_and_what_no_clique_holds_is_left_out() -> None:
    rng = np.random.default_rng(3)
    counts = rng.multinomial(5000, rng.dirichlet(np.ones(6))).reshape(3, 2).astype(float)
    tree = junction((3, 2, 2), [(0, 1)])
    told = [Measured((0, 1), counts, np.ones((3, 2)), {}), Measured((1, 2), np.ones((2, 2)), np.ones((2, 2)), {})]
    _, margins = fitted(tree, told, 5000.0, 3000)
    place = tree.holding((0, 1))
    assert place is not None
    np.testing.assert_allclose(5000 * margins[place], counts, atol=1.0)


@pytest.mark.parametrize("name", SETS)
def test_records_have_the_model_s_margins_of_any_columns(name: str) -> None:
    tree, rng = junction(SIZES, SETS[name]), np.random.default_rng(4)
    factors = [rng.normal(0, 1, tree.shape(clique)) for clique in tree.cliques]
    table, count = joint(tree, factors), 40_000
    records = tree.drawn(tree.margins(factors), count, rng)
    for pair in combinations(range(5), 2):
        shape = tree.shape(pair)
        seen = np.bincount(
            np.ravel_multi_index((records[:, pair[0]], records[:, pair[1]]), shape), minlength=np.prod(shape)
        )
        wanted = count * margin(table, pair).ravel()
        assert (((seen - wanted) ** 2) / wanted).sum() < 2.5 * len(wanted) + 12  # of independent draws about its length


def test_a_cell_without_mass_is_not_drawn() -> None:
    tree = junction((2, 2), [(0, 1)])
    records = tree.drawn([np.array([[0.5, 0.0], [0.0, 0.5]])], 1001, np.random.default_rng(0))
    assert (records[:, 0] == records[:, 1]).all()
    assert abs(int(records[:, 0].sum()) - 500.5) < 1.5


def test_full_cells_stay_apart_and_what_is_left_joins_the_smaller_neighbour() -> None:
    groups = merged(np.array([500.0, 3, 4, 60, 70, 2, 1, 900, 5]), 50, ordered=True)
    assert groups.tolist() == [0, 1, 1, 1, 2, 2, 2, 3, 3]
    assert merged(np.zeros(6), 50, ordered=True).tolist() == [0] * 6
    assert merged(np.array([500.0, 3, 4, 60]), 50, ordered=False).tolist() in ([0, 1, 1, 1], [0, 1, 1, 2])


@pytest.mark.parametrize("ordered", [True, False])
def test_coarse_groups_are_few_and_none_is_empty(ordered: bool) -> None:
    rng = np.random.default_rng(5)
    for size in (1, 3, 5, 40):
        groups = coarser(rng.lognormal(3, 2, size) - 10, 4, ordered)
        assert {*groups.tolist()} == {*range(groups.max() + 1)}
        assert groups.max() < 4
        assert not ordered or (np.diff(groups) >= 0).all()


def test_noise_of_empty_cells_makes_little_mass() -> None:
    values = np.concatenate([[1000.0], np.random.default_rng(6).normal(0, 20, 99)])
    found = projected(values, float(values.sum()))
    assert found.sum() == pytest.approx(values.sum())
    assert (found >= 0).all()
    assert found[1:].sum() < 0.5 * np.maximum(values[1:], 0).sum()
    assert projected(values, -5.0).tolist() == [0.0] * 100
