"""Cell-key noise: the table's laws, and what look-ups do with it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.linalg import null_space

from statfed.core.errors import UsageError
from statfed.core.privacy.cell_key import cell_keys, fixed_point, noise_table


@settings(max_examples=15, deadline=None)
@given(largest=st.integers(1, 8), share=st.floats(0.15, 0.9))
def test_every_row_has_mean_zero_the_stated_variance_and_no_negative_result(largest: int, share: float) -> None:
    table = noise_table(largest, share * largest)
    for count, probability in enumerate(table.probability):
        assert probability.sum() == pytest.approx(1, abs=1e-12)
        assert (probability[count + table.noise < 0] == 0).all()
        assert probability @ table.noise == pytest.approx(0, abs=1e-9)
        wanted = 0 if count == 0 else table.variance
        assert probability @ table.noise**2 == pytest.approx(wanted, abs=1e-8)


def test_no_other_distribution_with_the_same_moments_has_more_entropy() -> None:
    table = noise_table(3, 1.5)
    for count in (1, 2, 3):
        support = count + table.noise >= 0
        noise, found = table.noise[support], table.probability[count][support]
        moments = np.stack([np.ones(len(noise)), noise, noise**2])

        def entropy(p: NDArray[np.float64]) -> float:
            return float(-(p * np.log(np.maximum(p, 1e-300))).sum())

        kernel = null_space(moments)
        assert found @ moments.T == pytest.approx([1, 0, 1.5])
        for direction in kernel.T:  # a strictly concave function with no slope along the kernel is at its maximum
            assert entropy(found + 1e-4 * direction) < entropy(found)
            assert entropy(found - 1e-4 * direction) < entropy(found)
        slope = -(np.log(found) + 1) @ kernel
        assert slope == pytest.approx(np.zeros(kernel.shape[1]), abs=1e-8)


def test_counts_at_or_below_the_forbidden_one_are_never_shown() -> None:
    table = noise_table(6, 5.5, forbidden=2)
    rng = np.random.default_rng(0)
    shown = table.perturb(rng.integers(0, 15, 20_000), rng.random(20_000))
    assert not np.isin(shown, [1, 2]).any()
    assert (shown == 0).any()


def test_the_same_cell_gets_the_same_noise_whoever_asks_and_however_it_is_split() -> None:
    rng = np.random.default_rng(3)
    keys = fixed_point(rng.random(500))
    owner = rng.integers(0, 4, 500)
    table = noise_table(5)
    pooled = table.perturb(np.array([500]), cell_keys(np.array([keys.sum()])))
    holders = np.array([sum(keys[owner == i].sum() for i in (3, 1, 0, 2))])
    assert table.perturb(np.array([500]), cell_keys(holders)) == pooled
    assert cell_keys(holders)[0] == pytest.approx(np.mod((keys / 2**32).sum(), 1), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 60])
def test_noise_over_random_cells_follows_the_table(count: int) -> None:
    table, rng = noise_table(5), np.random.default_rng(7)
    keys = cell_keys(np.array([fixed_point(rng.random(max(count, 3))).sum() for _ in range(20_000)]))
    noise = table.perturb(np.full(20_000, count), keys) - count
    probability = table.probability[min(count, 5)]
    likely = probability > 0
    seen = np.array([(noise == d).sum() for d in table.noise])
    assert seen[~likely].sum() == 0
    assert stats.chisquare(seen[likely], 20_000 * probability[likely]).pvalue > 1e-3


def test_an_empty_cell_stays_empty_and_shapes_are_kept() -> None:
    shown = noise_table(5).perturb(np.zeros((2, 3), np.int64), np.full((2, 3), 0.999999))
    assert shown.shape == (2, 3)
    assert (shown == 0).all()


def test_the_ends_of_the_unit_interval_are_within_the_table() -> None:
    table = noise_table(4)
    for count in range(9):
        shown = table.perturb(np.array([count, count]), np.array([0.0, np.nextafter(1, 0)]))
        assert (shown >= 0).all()
        assert (np.abs(shown - count) <= 4).all()


def test_what_no_noise_can_do_is_refused() -> None:
    with pytest.raises(UsageError, match="less than 3 for a count of 1"):
        noise_table(3, 3.5)
    with pytest.raises(UsageError, match="more than 2"):
        noise_table(5, 1.9, forbidden=2)
    with pytest.raises(ValueError, match="keys outside"):
        noise_table(3).perturb(np.array([4]), np.array([1.0]))
    with pytest.raises(ValueError, match="record keys"):
        fixed_point(np.array([np.nan]))
