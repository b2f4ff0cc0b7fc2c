"""Totals under cell keys have noise of their own, so that divided by perturbed counts they give no exact mean."""

import numpy as np
import pytest

from statfed.core.privacy.cell_key import noise_table, own_keys, perturbed_totals

KEYS = np.random.default_rng(1).random(4000)
TABLE = noise_table(5)


def test_keys_of_totals_are_uniform_and_not_those_of_counts() -> None:
    own = own_keys(KEYS)
    assert ((own >= 0) & (own < 1)).all()
    assert np.abs(np.histogram(own, 10, (0, 1))[0] / 4000 - 0.1).max() < 0.03
    assert abs(np.corrcoef(own, KEYS)[0, 1]) < 0.06
    assert (own == own_keys(KEYS)).all()


@pytest.mark.parametrize("bounded", [True, False])
def test_a_quotient_of_perturbed_numbers_is_not_the_mean(bounded: bool) -> None:
    counts = np.full(4000, 40)
    totals = counts * 12.5
    largest = np.full(4000, 30.0) if bounded else None
    shown = perturbed_totals(totals, counts, KEYS, TABLE, largest) / TABLE.perturb(counts, KEYS)
    exact = np.abs(shown - 12.5) < 1e-9
    assert exact.mean() < 0.25  # where both noises happen to agree, which nobody can see
    assert abs(shown.mean() - 12.5) < 0.1
    assert not bounded or not exact.any() or exact.mean() < 0.01


def test_noise_of_a_bounded_total_is_a_quarter_to_three_quarters_of_the_largest_contribution() -> None:
    counts, totals, largest = np.full(4000, 9), np.full(4000, 500.0), np.full(4000, 80.0)
    moved = (perturbed_totals(totals, counts, KEYS, TABLE, largest) - totals) / largest
    assert np.abs(moved).min() >= 0.25 - 1e-12
    assert np.abs(moved).max() <= 0.75 + 1e-12
    assert abs(moved.mean()) < 0.03


def test_an_empty_cell_keeps_its_total() -> None:
    none = np.zeros(3, np.int64)
    for largest in (None, np.zeros(3)):
        assert (perturbed_totals(np.zeros(3), none, KEYS[:3], TABLE, largest) == 0).all()
