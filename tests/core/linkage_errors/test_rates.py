"""Error rates from numbers of links, against likelihoods written out, other maximisers, and known truth."""

import numpy as np
import pytest
from scipy import optimize, stats

from statfed.core.errors import UsageError
from statfed.core.linkage_errors._mixture import Mixture, fitted, scores
from statfed.core.linkage_errors.bootstrap import bootstrap_rates
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.rates import link_rates, pooled
from tests.core.linkage_errors.repeated import complaints


def numbers(rng: np.random.Generator, n: int, p: float, means: np.ndarray) -> np.ndarray:
    """Records by number of links."""
    return np.bincount((rng.random(n) < p).astype(int) + rng.poisson(means, n))


def test_probabilities_are_the_convolution_of_one_true_link_and_false_ones() -> None:
    model = Mixture(0.7, np.array([0.4, 0.6]), np.array([0.2, 1.5]), None)
    false = 0.4 * stats.poisson.pmf(np.arange(12), 0.2) + 0.6 * stats.poisson.pmf(np.arange(12), 1.5)
    np.testing.assert_allclose(model.probability(12), np.convolve([0.3, 0.7], false)[:12], rtol=1e-12)
    model = Mixture(0.7, np.ones(1), np.array([1.2]), 4)
    want = np.convolve([0.3, 0.7], stats.binom.pmf(np.arange(8), 4, 0.3))[:8]
    np.testing.assert_allclose(model.probability(8), want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("trials", [None, 6])
def test_scores_are_the_derivatives_of_the_log_likelihood(trials: int | None) -> None:
    def logs(t: np.ndarray) -> np.ndarray:
        weights = np.exp([0, t[3]]) / np.exp([0, t[3]]).sum()
        return np.log(Mixture(t[0], weights, t[1:3], trials).probability(6))

    at = np.array([0.7, 0.3, 1.4, 0.5])
    got = scores(Mixture(0.7, np.exp([0, 0.5]) / np.exp([0, 0.5]).sum(), at[1:3], trials), 6)
    for i in range(4):
        step = np.eye(4)[i] * 1e-6
        np.testing.assert_allclose(got[:, i], (logs(at + step) - logs(at - step)) / 2e-6, rtol=1e-6, atol=1e-8)


def test_no_other_maximiser_finds_a_better_fit() -> None:
    counts = np.array([1500, 6200, 3100, 1400, 500, 120, 30, 6], dtype=float)
    ours = fitted(counts, 2)

    def loss(t: np.ndarray) -> float:
        k = np.arange(8)
        law = (1 - t[3]) * stats.poisson.pmf(k, t[1]) + t[3] * stats.poisson.pmf(k, t[2])
        return float(-(counts * np.log((1 - t[0]) * law + t[0] * np.r_[0, law[:-1]])).sum())

    bounds = optimize.Bounds([1e-6] * 4, [1 - 1e-6, 5, 5, 1 - 1e-6])
    other = optimize.differential_evolution(loss, bounds, seed=1, tol=1e-10, maxiter=300)
    least = loss(np.array([ours.p, *ours.means, ours.weights[1]]))
    assert least <= other.fun + 1e-6
    assert ours.p + ours.false_links == pytest.approx(np.arange(8) @ counts / counts.sum(), rel=1e-12)


def test_errors_of_the_rates_are_as_large_as_they_say() -> None:
    rng = np.random.default_rng(7)
    found = [link_rates(numbers(rng, 5000, 0.8, np.full(5000, 0.3)), candidates=5000, classes=1) for _ in range(100)]
    assert complaints([r.recall for r in found], [0.8] * 100) == []
    assert complaints([r.false_links for r in found], [0.3] * 100) == []
    assert complaints([r.precision for r in found], [0.8 / 1.1] * 100) == []
    assert complaints([r.false_positive_rate for r in found], [0.3 / 4999] * 100) == []


def test_latent_classes_take_the_bias_away_that_one_class_has() -> None:
    rng = np.random.default_rng(3)
    means = np.where(rng.random(40_000) < 0.7, 0.1, 1.5)
    counts = numbers(rng, 40_000, 0.8, means)
    one, more = link_rates(counts, candidates=40_000, classes=1), link_rates(counts, candidates=40_000)
    assert one.fit.p_value is not None
    assert one.fit.p_value < 1e-6
    assert abs(one.recall.value - 0.8) > 0.02
    assert more.fit.classes > 1
    assert more.fit.p_value is None or more.fit.p_value > 0.01
    assert abs(more.recall.value - 0.8) < 4 * more.recall.std_error


def test_recall_by_class_is_pooled_where_one_fit_would_mix_it_with_false_links() -> None:
    rng = np.random.default_rng(5)
    parts = [numbers(rng, 20_000, 0.95, np.full(20_000, 0.05)), numbers(rng, 20_000, 0.5, np.full(20_000, 1.5))]
    both = pooled([link_rates(part, candidates=20_000, classes=1) for part in parts])
    assert both.recall.value == pytest.approx(0.725, abs=4 * both.recall.std_error)
    assert both.precision.value == pytest.approx(1.45 / 3.0, abs=4 * both.precision.std_error)
    width = max(map(len, parts))
    mixed = link_rates(sum(np.pad(p, (0, width - len(p))) for p in parts), candidates=20_000)
    assert abs(mixed.recall.value - 0.725) > 4 * mixed.recall.std_error


def test_binomial_false_links_within_small_blocks() -> None:
    rng = np.random.default_rng(8)
    counts = np.bincount((rng.random(30_000) < 0.8).astype(int) + rng.binomial(3, 0.2, 30_000))
    rates = link_rates(counts, candidates=30_000, trials=3, classes=1)
    assert rates.recall.value == pytest.approx(0.8, abs=4 * rates.recall.std_error)
    poisson = link_rates(counts, candidates=30_000, classes=1)
    assert abs(poisson.recall.value - 0.8) > 4 * poisson.recall.std_error


def test_records_that_share_links_need_groups_for_their_standard_errors() -> None:
    rng = np.random.default_rng(2)
    by_group = np.zeros((50, 20))
    for block in range(4000):  # five records to a block, all with the same number of links
        k = int(rng.random() < 0.8) + rng.poisson(0.3)
        by_group[block % 50, k] += 5
    grouped = link_rates(by_group, candidates=20_000, classes=1)
    alone = link_rates(by_group.sum(axis=0), candidates=20_000, classes=1)
    assert grouped.recall.value == pytest.approx(alone.recall.value)
    assert 1.6 < grouped.recall.std_error / alone.recall.std_error < 3
    assert alone.fit.chi_square > grouped.fit.chi_square


def test_nothing_is_said_of_false_links_where_no_record_has_two() -> None:
    with pytest.raises(UsageError, match="one-to-one"):
        link_rates([2000, 8000], candidates=10_000)
    rates = link_rates([2000, 8000], candidates=10_000, several_allowed=True)
    assert rates.recall.value == pytest.approx(0.8)
    assert rates.false_links.value == 0
    # zero of about 8000 records with a second link: the rule of three
    assert rates.false_links.interval()[1] == pytest.approx(3 / 8000, rel=0.01)
    assert rates.precision.interval()[1] == 1


@pytest.mark.parametrize(
    ("counts", "want"),
    [
        ([100, 0, 0], "no record has a link"),
        ([[1, 2, 3]] * 5, "random groups"),
        ([10, -1, 3], "whole numbers"),
        ([10, 2.5, 3], "whole numbers"),
        ([0, 0, 0], "no records"),
        ([[[1, 2]]], "dimensions"),
        (np.round(stats.poisson.pmf(np.arange(8), 0.5) * 10_000), "false links alone"),
    ],
)
def test_what_identifies_nothing_is_refused(counts: list[float], want: str) -> None:
    with pytest.raises(UsageError, match=want):
        link_rates(counts, candidates=10_000)


def test_more_classes_than_numbers_of_links_are_refused() -> None:
    with pytest.raises(UsageError, match="2 classes want 5"):
        link_rates([2000, 7000, 900, 60], candidates=10_000, classes=2)


def test_a_coverage_below_the_true_links_is_refused() -> None:
    with pytest.raises(UsageError, match="less than the true links"):
        link_rates([2000, 7000, 900, 60], candidates=10_000, coverage=Estimate("coverage", 0.5, 0.01, "logit"))


def test_recall_where_the_other_file_covers_a_part() -> None:
    rng = np.random.default_rng(4)
    counts = numbers(rng, 20_000, 0.9 * 0.8, np.full(20_000, 0.2))
    rates = link_rates(counts, candidates=18_000, coverage=Estimate("coverage", 0.9, 0.004, "logit"), classes=1)
    assert rates.recall.value == pytest.approx(0.8, abs=4 * rates.recall.std_error)
    assert rates.false_negative_rate.value == pytest.approx(1 - rates.recall.value)
    assert rates.recall.std_error > rates.true_links.std_error / 0.9


def test_the_bootstrap_agrees_with_the_observed_information() -> None:
    rng = np.random.default_rng(6)
    rates = link_rates(numbers(rng, 10_000, 0.8, np.full(10_000, 0.3)), candidates=10_000, classes=1)
    drawn = bootstrap_rates(rates, 100, seed=1)
    for each in (rates.recall, rates.precision, rates.false_positive_rate):
        assert drawn.std_error()[each.name] == pytest.approx(each.std_error, rel=0.3)
        low, high = drawn.interval()[each.name]
        assert low < each.value < high
    np.testing.assert_array_equal(drawn.values["recall"], bootstrap_rates(rates, 100, seed=1).values["recall"])


def test_results_say_what_they_are() -> None:
    rates = link_rates([2000, 7000, 900, 60], candidates=10_000)
    assert "recall: 0.7" in rates.summary()
    assert "independent" in rates.summary()
    assert {"name", "estimate", "std_error"} == set(rates.rows()[0])
    assert rates.interval(0.99)["recall"][0] < rates.interval(0.9)["recall"][0]
    with pytest.raises(UsageError, match="level"):
        rates.interval(1.0)


def test_the_fit_is_pearsons_over_cells_with_five_expected_records() -> None:
    counts = np.array([1050, 5200, 2900, 740, 95, 13, 1, 1])
    rates = link_rates(counts, candidates=10_000, classes=1)
    assert rates.model is not None
    law = rates.model.probability(8)
    expected = counts.sum() * np.array([*law[:5], 1 - law[:5].sum()])  # five links and more: fewer than 5 beyond
    assert expected[5] >= 5
    assert counts.sum() * (1 - law[:6].sum()) < 5
    seen = np.array([*counts[:5], counts[5:].sum()])
    assert rates.fit.chi_square == pytest.approx(((seen - expected) ** 2 / expected).sum())
    assert rates.fit.df == 6 - 1 - 2
