"""Rounding: its laws on generated tables."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.randomness import stream
from statfed.server.disclosure.rounding import controlled, conventional, random_rounding
from tests.server.test_suppression import hierarchical, random_table, table


@given(st.lists(st.integers(-10_000, 10_000), min_size=1, max_size=9), st.integers(2, 100))
def test_conventional_rounding_gives_the_nearest_multiple(values: list[int], base: int) -> None:
    found = conventional(np.array(values, float), base)
    assert (np.mod(found, base) == 0).all()
    assert (np.abs(found - values) <= base / 2).all()


def test_random_rounding_is_unbiased_stays_within_the_base_and_keeps_multiples() -> None:
    values, draws = np.array([0.0, 1, 2, 3, 4, 5, 13.5]), 20_000
    source = stream(1, "rounding")
    found = np.array([random_rounding(values, 5, source) for _ in range(draws)])
    assert (np.mod(found, 5) == 0).all()
    assert (np.abs(found - values) < 5).all()
    assert (found[:, [0, 5]] == [0, 5]).all()
    assert np.abs(found.mean(axis=0) - values).max() < 5 * 2.5 / np.sqrt(draws)


def test_random_rounding_follows_its_stream() -> None:
    values = np.arange(50.0)
    first, again, other = (random_rounding(values, 5, stream(seed, "x")) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


@settings(max_examples=12, deadline=None)
@given(
    shape=st.sampled_from([(2, 3), (5, 6), (3, 3, 3), (4, 3, 5)]),
    seed=st.integers(0, 10_000),
    base=st.sampled_from([3, 5, 10]),
)
def test_controlled_rounding_adds_up_and_stays_within_the_base(shape: tuple[int, ...], seed: int, base: int) -> None:
    sums, values = table(random_table(shape, 12, seed))
    found = controlled(sums, values, base)
    assert found.additive
    assert sums.residual(found.values) == 0
    assert (np.mod(found.values, base) == 0).all()
    assert (found.values >= 0).all()
    assert found.reach is not None
    assert (np.abs(found.values - values) < found.reach * base).all()
    if len(shape) == 2:  # the matrix of a two-way table is totally unimodular (Cox 1987)
        assert found.reach == 1
        kept = np.mod(values, base) == 0
        assert (found.values[kept] == values[kept]).all()
    assert bool(found.reason) == (found.reach != 1)


def test_controlled_rounding_is_as_close_as_any_additive_rounding_of_a_small_table() -> None:
    sums, values = table(np.array([[1, 2], [2, 1]]))
    found = controlled(sums, values, 3)
    shape = [(a, b, c, d) for a in (0, 3) for b in (0, 3) for c in (0, 3) for d in (0, 3)]
    every = np.array([table(np.array(x).reshape(2, 2))[1] for x in shape])
    near = every[(np.abs(every - values) < 3).all(axis=1) & ((every == values) | (values % 3 != 0)).all(axis=1)]
    assert np.abs(found.values - values).sum() == pytest.approx(np.abs(near - values).sum(axis=1).min())


def test_controlled_rounding_keeps_the_subtotals_of_a_hierarchy() -> None:
    sums, values = hierarchical(random_table((5, 3), 20, 4))
    found = controlled(sums, values, 5)
    assert sums.residual(found.values) == 0


def test_a_three_way_table_without_a_zero_restricted_rounding_goes_further_and_says_so() -> None:
    sums, values = table(np.random.default_rng(1).integers(0, 2, (3, 3, 3)))  # found by search
    found = controlled(sums, values, 2)
    assert found.additive
    assert found.reach == 2
    assert "within one base" in found.reason
    assert sums.residual(found.values) == 0
    assert (np.abs(found.values - values) < 4).all()


def test_out_of_time_the_cells_are_rounded_and_summed() -> None:
    sums, values = table(random_table((8, 8, 8), 12, 1))
    found = controlled(sums, values, 5, seconds=0.0)
    assert found.additive
    assert found.reach is None
    assert "two bases" in found.reason
    assert sums.residual(found.values) == 0
    assert (found.values[: sums.cells] == conventional(values[: sums.cells], 5)).all()
