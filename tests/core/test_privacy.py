"""Privacy events and their composition, against closed forms and independent mechanisms."""

import math
import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from statfed.core.errors import LedgerCorrupt
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import (
    Composed,
    DiscreteGaussian,
    DiscreteGaussians,
    DiscreteLaplace,
    Event,
    Gaussian,
    Laplace,
    PoissonSampled,
    Repeated,
)
from statfed.core.privacy.closeness import apart, sums_apart

SAMPLED = PoissonSampled(rate=0.05, event=Gaussian(noise_multiplier=1.0))


def analytic_gaussian_delta(epsilon: float, sigma: float) -> float:
    """Balle and Wang 2018, theorem 8, for sensitivity 1."""
    a, b = 1 / (2 * sigma), epsilon * sigma
    return float(norm.cdf(a - b) - math.exp(epsilon) * norm.cdf(-a - b))


@pytest.mark.parametrize("sigma", [0.7, 1.0, 3.0, 20.0, 300.0])
def test_gaussian_epsilon_is_that_of_the_analytic_gaussian_mechanism(sigma: float) -> None:
    exact = brentq(lambda e: analytic_gaussian_delta(e, sigma) - 1e-6, 0, 50)
    found = privacy.epsilon([Gaussian(noise_multiplier=sigma)], 1e-6)
    assert exact <= found + 1e-9
    assert found == pytest.approx(exact, rel=2e-3)


def test_repeated_gaussian_is_one_gaussian_with_noise_divided_by_the_root() -> None:
    many = privacy.epsilon([privacy.dp_sgd(1.0, 10.0, 25)], 1e-5)
    assert many == pytest.approx(privacy.epsilon([Gaussian(noise_multiplier=2.0)], 1e-5), rel=1e-4)


@pytest.mark.parametrize("scale", [0.5, 2.0, 10.0])
def test_laplace_epsilon_is_one_over_the_scale_at_tiny_delta(scale: float) -> None:
    assert privacy.epsilon([Laplace(noise_multiplier=scale)], 1e-12) == pytest.approx(1 / scale, rel=1e-4)


def test_figure_of_ten_thousand_steps_agrees_with_the_literature() -> None:
    found = privacy.epsilon([privacy.dp_sgd(0.01, 1.1, 10_000)], 1e-5)
    assert 5.185 < found < 5.203  # PRV accountant 5.203, PLD on a grid of 1e-3 5.196


@pytest.mark.parametrize("events", [[Gaussian(noise_multiplier=0.01)], [privacy.dp_sgd(1.0, 1.0, 10_000)]])
def test_hardly_any_noise_is_a_large_figure_and_not_exhausted_memory(events: list[Event]) -> None:
    exact = brentq(lambda e: norm.logsf(e / 100 - 50) - math.log(1e-5), 4000, 7000)  # mu = 100; the second term is 0
    assert exact * 0.999 < privacy.epsilon(events, 1e-5) < exact * 1.01


def test_nothing_costs_nothing() -> None:
    assert privacy.epsilon([], 1e-5) == 0.0
    assert privacy.renyi_epsilon([], 1e-5) == 0.0
    assert filters.share([], filters.Budget(1.0, 1e-5)) == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5])
def test_delta_outside_its_range_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta: got"):
        privacy.epsilon([Laplace(noise_multiplier=1.0)], delta)


POOL: list[Event] = [
    Gaussian(noise_multiplier=4.0),
    Laplace(noise_multiplier=5.0),
    SAMPLED,
    Repeated(times=20, event=SAMPLED),
    DiscreteGaussian(sigma=30.0, sensitivity=7),
    PoissonSampled(rate=0.1, event=DiscreteGaussians(noise_multiplier=1.5, sigma=4096.0, entries=100, draws=3)),
    Composed(
        events=(
            DiscreteLaplace(scale=40.0, sensitivity=3),
            Repeated(times=9, event=DiscreteGaussian(sigma=5, sensitivity=1)),
        )
    ),
]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(POOL), max_size=2), st.sampled_from(POOL))
def test_one_more_event_never_costs_less_and_order_does_not_matter(events: list[Event], more: Event) -> None:
    mixed = [more, *events]
    random.Random(0).shuffle(mixed)
    assert privacy.epsilon(events, 1e-5) <= privacy.epsilon([*events, more], 1e-5) + 1e-9
    assert privacy.epsilon(mixed, 1e-5) == privacy.epsilon([*events, more], 1e-5)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(POOL), min_size=1, max_size=2))
def test_renyi_composition_never_counts_less_than_the_tight_composition(events: list[Event]) -> None:
    assert privacy.renyi_epsilon(events, 1e-5) >= privacy.epsilon(events, 1e-5) * 0.999


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(POOL), min_size=1, max_size=2), st.sampled_from([0.3, 1.0, 3.0, 20.0]), st.integers(1, 40)
)
def test_no_filter_admits_what_the_tight_composition_puts_beyond_the_budget(
    events: list[Event], budget: float, times: int
) -> None:
    all_of_them = [privacy.repeated(event, times) for event in events]
    if filters.fits(all_of_them, filters.Budget(budget, 1e-5)):
        assert privacy.epsilon(all_of_them, 1e-5) <= budget * 1.001


@pytest.mark.parametrize("budget", [0.05, 1.0, 20.0])
@pytest.mark.parametrize("delta", [1e-9, 1e-5])
def test_the_filter_admits_as_much_rho_as_the_tight_conversion_of_the_whole_budget(budget: float, delta: float) -> None:
    """Neither less, as an order chosen for something else would, nor more, which nothing proves."""
    found = filters.Budget(budget, delta)
    rho = brentq(lambda x: privacy.zcdp_epsilon(x, delta) - budget, 1e-9, 100.0)
    assert found.limit / found.at == pytest.approx(rho, rel=2e-3)
    assert filters.largest([], found) == pytest.approx(budget, rel=2e-3)


def test_a_first_small_study_takes_a_small_share_of_the_budget() -> None:
    """What was shown was 6.62 of 20 for a study of epsilon 1, and 6.56 for one of 0.1."""
    one = DiscreteGaussian(sigma=4.3, sensitivity=1)
    assert 0.95 < privacy.epsilon([one], 1e-6) < 1.0
    assert filters.share([one], filters.Budget(20.0, 1e-6)) < 0.006
    assert privacy.renyi_epsilon([one], 1e-6) < 1.1
    assert filters.more_like([one] * 4, one, filters.Budget(20.0, 1e-6)) > 160


@pytest.mark.parametrize("event", POOL)
@pytest.mark.parametrize("spent", [[], POOL[:2], POOL[3:]])
def test_exactly_as_many_more_are_admitted_as_are_said(event: Event, spent: list[Event]) -> None:
    budget = filters.Budget(8.0, 1e-5).begun([*spent, event])
    more = filters.more_like(spent, event, budget)
    assert 0 < more < filters.MOST
    assert filters.fits([*spent, privacy.repeated(event, more)], budget)
    assert not filters.fits([*spent, privacy.repeated(event, more + 1)], budget)


def test_a_study_that_only_the_tight_composition_admits_is_one_more_on_a_new_ledger_and_none_later() -> None:
    sigma = privacy.calibrate(1.0, 1, 1.0, 1e-5)
    event, budget = Gaussian(noise_multiplier=sigma), filters.Budget(1.0, 1e-5)
    assert filters.more_like([], event, budget) == 1
    assert filters.more_like([Gaussian(noise_multiplier=1e4)], event, budget) == 0


@pytest.mark.parametrize("order", [1.25, 2.0, 2.5, 17.0])
def test_renyi_divergence_of_the_gaussian_is_order_over_two_variances(order: float) -> None:
    assert privacy.renyi([privacy.dp_sgd(1.0, 3.0, 7)], order) == pytest.approx(7 * order / 18)


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 30.0])
def test_every_order_of_the_filter_has_a_finite_bound_between_its_neighbours(rate: float, sigma: float) -> None:
    event = PoissonSampled(rate=rate, event=Gaussian(noise_multiplier=sigma))
    curve = [privacy.renyi([event], order) for order in (1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0)]
    assert all(math.isfinite(value) for value in curve)
    assert all(one <= two * (1 + 1e-12) for one, two in pairwise(curve))


def test_the_order_is_the_one_that_admits_most_of_a_first_study_that_samples() -> None:
    first = [privacy.dp_sgd(0.05, 1.0, 10)]
    begun = filters.Budget(3.0, 1e-5).begun(first)
    more = filters.more_like([], first[0], filters.Budget(3.0, 1e-5))
    assert more > 0
    for order in filters._ORDERS[40:200:12]:
        assert more >= filters.more_like(first[:0], first[0], filters.Budget(3.0, 1e-5, order)) - 1
    assert begun.at < filters.order_of(3.0, 1e-5)  # at that of Gaussian noise it would not fit once


@pytest.mark.parametrize(
    ("rate", "steps", "target"),
    [(1.0, 10, 1.0), (0.05, 100, 1.0), (0.02, 500, 0.1), (0.01, 1000, 0.01), (0.2, 20, 4.0)],
)
def test_calibrated_noise_stays_within_the_target_and_is_no_more_than_needed(
    rate: float, steps: int, target: float
) -> None:
    sigma = privacy.calibrate(rate, steps, target, 1e-5)
    assert privacy.epsilon([privacy.dp_sgd(rate, sigma, steps)], 1e-5) <= target
    assert privacy.epsilon([privacy.dp_sgd(rate, sigma * 0.99, steps)], 1e-5) > target


def test_an_impossible_target_is_an_error() -> None:
    with pytest.raises(ValueError, match="no noise multiplier"):
        privacy.calibrate(1.0, 1000, 1e-9, 1e-12)


@pytest.mark.parametrize(
    "event",
    [
        *POOL,
        privacy.dp_sgd(0.3, 1.25, 4),
        Repeated(times=3, event=Laplace(noise_multiplier=5.0)),
        Repeated(times=6, event=DiscreteGaussian(sigma=30.0, sensitivity=7)),
    ],
)
def test_events_survive_json(event: Event) -> None:
    text = privacy.event_to_json(event)
    assert privacy.event_from_json(text) == event
    assert privacy.event_to_json(privacy.event_from_json(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "null",
        '{"kind":"exponential","noise_multiplier":1}',
        '{"kind":"gaussian"}',
        '{"kind":"gaussian","noise_multiplier":0}',
        '{"kind":"gaussian","noise_multiplier":NaN}',
        '{"kind":"gaussian","noise_multiplier":1,"rate":0.1}',
        '{"kind":"poisson-sampled","rate":1.5,"event":{"kind":"gaussian","noise_multiplier":1}}',
        '{"kind":"poisson-sampled","rate":0.5,"event":{"kind":"laplace","noise_multiplier":1}}',
        '{"kind":"discrete-gaussian","sigma":1,"sensitivity":1.5}',
        '{"kind":"discrete-gaussian","sigma":1,"sensitivity":0}',
        '{"kind":"discrete-laplace","scale":1e300,"sensitivity":1}',
        '{"kind":"discrete-gaussians","noise_multiplier":1,"sigma":1,"entries":3,"draws":1}',
        '{"kind":"discrete-gaussians","noise_multiplier":1,"sigma":100,"entries":0,"draws":1}',
        '{"kind":"discrete-gaussians","noise_multiplier":1,"sigma":100,"entries":3}',
        '{"kind":"composed","events":[]}',
        '{"kind":"composed","events":[{"kind":"exponential"}]}',
        '{"kind":"repeated","times":0,"event":{"kind":"gaussian","noise_multiplier":1}}',
    ],
)
def test_an_event_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(LedgerCorrupt, match="unknown privacy event"):
        privacy.event_from_json(text)


@pytest.mark.parametrize(("sigma", "sensitivity", "times"), [(1.0, 1, 1), (0.6, 1, 2), (50.0, 7, 3), (200.0, 513, 1)])
def test_epsilon_of_discrete_gaussian_noise_is_dp_accountings_own(sigma: float, sensitivity: int, times: int) -> None:
    found = privacy.epsilon([privacy.repeated(DiscreteGaussian(sigma=sigma, sensitivity=sensitivity), times)], 1e-6)
    pld = privacy_loss_distribution.from_discrete_gaussian_mechanism(
        sigma, sensitivity, value_discretization_interval=1e-4, use_connect_dots=True
    )
    assert found == pytest.approx(pld.self_compose(times).get_epsilon_for_delta(1e-6), rel=1e-4)


@pytest.mark.parametrize(("scale", "sensitivity", "times"), [(1.0, 1, 1), (2.5, 3, 2), (50.0, 7, 10)])
def test_epsilon_of_discrete_laplace_noise_is_dp_accountings_own(scale: float, sensitivity: int, times: int) -> None:
    event = privacy.repeated(DiscreteLaplace(scale=scale, sensitivity=sensitivity), times)
    found = privacy.epsilon([event], 1e-6)
    pld = privacy_loss_distribution.from_discrete_laplace_mechanism(
        1 / scale, sensitivity, value_discretization_interval=1e-4, use_connect_dots=True
    )
    assert found == pytest.approx(pld.self_compose(times).get_epsilon_for_delta(1e-6), rel=1e-3)
    assert found <= privacy.pure_epsilon([event]) * 1.001
    assert privacy.pure_epsilon([event]) == pytest.approx(times * sensitivity / scale)


def test_epsilon_of_a_vector_is_the_hockey_stick_divergence_of_its_distribution() -> None:
    """Two entries, written out: sum over all outcomes of the positive part of P - exp(epsilon) Q."""
    event = Composed(events=(DiscreteGaussian(sigma=2.0, sensitivity=1), DiscreteLaplace(scale=3.0, sensitivity=2)))
    x, y = np.arange(-30, 31), np.arange(-100, 101)
    gaussian = np.exp(-(np.arange(-60, 61) ** 2) / 8.0)
    gaussian /= gaussian.sum()
    one, two = gaussian[x + 60], math.tanh(1 / 6) * np.exp(-np.abs(y) / 3)
    other, shifted = gaussian[x + 59], math.tanh(1 / 6) * np.exp(-np.abs(y - 2) / 3)
    found = privacy.epsilon([event], 1e-4)

    def divergence(epsilon: float) -> float:
        return float(np.maximum(np.outer(one, two) - math.exp(epsilon) * np.outer(other, shifted), 0).sum())

    exact = brentq(lambda e: divergence(e) - 1e-4, 0.1, 5)
    assert exact <= found + 1e-9
    assert found == pytest.approx(exact, rel=1e-3)


def test_many_small_changes_are_counted_without_adding_up_discretisation() -> None:
    rest = privacy.repeated(DiscreteGaussian(sigma=5000.0, sensitivity=1), 5000)
    found = privacy.epsilon([DiscreteGaussian(sigma=5000.0, sensitivity=513), rest], 1e-6)
    together = Gaussian(noise_multiplier=5000 / math.hypot(513, math.sqrt(5000)))
    assert privacy.epsilon([together], 1e-6) * 0.999 < found < privacy.epsilon([together], 1e-6) * 1.01


@pytest.mark.parametrize("order", [1.25, 2.0, 17.0])
def test_renyi_divergences_of_discrete_noise_are_those_of_the_probabilities(order: float) -> None:
    x = np.arange(-400, 401)
    gaussian, laplace = DiscreteGaussian(sigma=6.0, sensitivity=5), DiscreteLaplace(scale=6.0, sensitivity=5)
    for found, log_p, log_q in [
        (privacy.renyi([gaussian], order), -(x**2) / 72.0, -((x - 5) ** 2) / 72.0),
        (privacy.renyi([laplace], order), -np.abs(x) / 6.0, -np.abs(x - 5) / 6.0),
    ]:
        terms = order * log_p + (1 - order) * log_q - np.log(np.exp(log_p).sum())
        assert found == pytest.approx(np.log(np.exp(terms).sum()) / (order - 1), rel=1e-9)


def test_equal_entries_are_counted_however_they_are_nested_and_words_say_so() -> None:
    one, other = DiscreteGaussian(sigma=2.5, sensitivity=1), DiscreteLaplace(scale=3, sensitivity=2)
    event = privacy.composed([one, other, privacy.repeated(one, 4)])
    assert event == privacy.composed([privacy.repeated(Composed(events=(one,)), 5), other])
    assert privacy._merged([privacy.repeated(event, 3)]) == privacy._merged([*[one] * 15, *[other] * 3])
    words = privacy.in_words(privacy.repeated(event, 3))
    assert words.startswith("3 x (")
    assert "5 x discrete Gaussian 2.5 at sensitivity 1" in words
    assert "discrete Laplace 3 at sensitivity 2" in words
    with pytest.raises(ValueError, match="got none"):
        privacy.composed([])


def test_only_laplace_noise_has_an_epsilon_at_delta_zero() -> None:
    events: list[Event] = [
        Laplace(noise_multiplier=4.0),
        privacy.repeated(DiscreteLaplace(scale=10.0, sensitivity=3), 2),
    ]
    assert privacy.pure_epsilon(events) == pytest.approx(0.25 + 0.6)
    assert privacy.pure_epsilon([*events, DiscreteGaussian(sigma=1, sensitivity=1)]) == math.inf
    assert privacy.pure_epsilon([]) == 0.0


def logarithm_of_ratio(x: int, sigma: int) -> float:
    """ln of P[round(N(0, sigma^2)) = x] / N_Z(0, sigma^2)(x), the normalisations being equal to within exp(-5000)."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    u = nodes / 2.0
    return math.log(float(weights / 2.0 @ np.exp(-(2.0 * x * u + u * u) / (2.0 * sigma**2))))


@pytest.mark.parametrize("sigma", [16, 100, 5000])
def test_rounded_and_discrete_gaussian_noise_differ_by_no_more_than_stated(sigma: int) -> None:
    ratio, failure = apart(sigma, 1, 1)
    end = math.floor(sigma * math.sqrt(1.0 + 2.0 * math.sqrt(600.0) + 1200.0))
    found = [abs(logarithm_of_ratio(x, sigma)) for x in (0, 1, sigma // 2, sigma, 5 * sigma, 20 * sigma, end)]
    assert max(found) <= ratio
    assert max(found) > 0.7 * ratio  # the bound is no idle one
    assert 2.0 * norm.logsf(end / sigma) < math.log(failure) + 1e-9


@pytest.mark.parametrize("entries", [1, 40, 1000])
def test_what_is_left_out_of_the_likely_outcomes_is_as_rare_as_stated(
    entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statfed.core.privacy.closeness._T", 3.0)
    _, failure = apart(100.0, 1, entries)
    draws = np.rint(np.random.default_rng(1).normal(0.0, 100.0, (20_000, entries)))
    off = np.abs(((draws / 100.0) ** 2).sum(1) - entries) > 2.0 * math.sqrt(3.0 * entries) + 6.0
    assert off.mean() <= failure == pytest.approx(4.0 * math.exp(-3.0))
    if entries >= 40:
        assert off.mean() > 1e-3  # of the order that the bound says


@pytest.mark.parametrize("draws", [2, 3, 6])
@pytest.mark.parametrize("sigma", [0.8, 1.0, 1.3])
def test_sums_of_draws_differ_from_one_draw_by_no_more_than_stated(sigma: float, draws: int) -> None:
    x = np.arange(-60, 61)
    one = np.exp(-(x**2) / (2.0 * sigma**2))
    one /= one.sum()
    total = one
    for _ in range(draws - 1):
        total = np.convolve(total, one)
    y = np.arange(-60 * draws, 60 * draws + 1)
    whole = np.exp(-(y**2) / (2.0 * draws * sigma**2))
    near = np.abs(y) < 4.0 * sigma * math.sqrt(draws)
    found = np.abs(np.log(total[near] / (whole / whole.sum())[near])).max()
    assert found <= sums_apart(sigma, draws)


@pytest.mark.parametrize("rate", [0.1, 1.0])
@pytest.mark.parametrize(("sigma", "sensitivity"), [(16, 16), (100, 60)])
def test_steps_in_whole_numbers_cost_no_more_than_counted_and_hardly_less(
    rate: float, sigma: int, sensitivity: int
) -> None:
    """Two steps on one number, written out: hockey-stick divergence of the product law, both ways."""
    x = np.arange(-9 * sigma - sensitivity, 9 * sigma + 2 * sensitivity + 1)
    without = np.exp(-(x**2) / (2.0 * sigma**2))
    with_unit = (1.0 - rate) * without + rate * np.exp(-((x - sensitivity) ** 2) / (2.0 * sigma**2))
    without, with_unit = without / without.sum(), with_unit / with_unit.sum()

    def divergence(epsilon: float) -> float:
        pairs = ((without, with_unit), (with_unit, without))
        return max(float(np.maximum(np.outer(p, p) - math.exp(epsilon) * np.outer(q, q), 0).sum()) for p, q in pairs)

    noise = DiscreteGaussians(noise_multiplier=sigma / sensitivity, sigma=sigma, entries=1, draws=1)
    found = privacy.epsilon([privacy.dp_fedsgd(rate, noise, 2)], 1e-4)
    ratio, _ = apart(sigma, 1, 1)
    exact = brentq(lambda e: divergence(e) - 1e-4, 0.01, 9)
    at_less = brentq(lambda e: divergence(e) - 1e-4 * math.exp(-2.0 * ratio), 0.01, 9)
    assert exact < found
    assert found == pytest.approx(at_less + 4.0 * ratio, rel=0.01)


def test_noise_in_whole_numbers_is_counted_as_continuous_noise_and_what_it_is_apart() -> None:
    noise = DiscreteGaussians(noise_multiplier=1.5, sigma=2.0**16, entries=10_000, draws=5)
    steps = privacy.dp_fedsgd(0.05, noise, 200)
    continuous = privacy.dp_sgd(0.05, 1.5, 200)
    ratio, failure = apart(2.0**16, 5, 10_000)
    assert 0.0 < 200 * ratio < 1e-5
    assert failure < 1e-250
    inner = privacy.epsilon([continuous], 1e-5 * math.exp(-200 * ratio) * (1.0 - 1e-6))
    assert privacy.epsilon([steps], 1e-5) == pytest.approx(inner + 400 * ratio, rel=1e-12)
    other = [Laplace(noise_multiplier=5.0)]
    assert privacy.epsilon([steps, *other], 1e-5) > privacy.epsilon([continuous, *other], 1e-5)
    for order in (1.5, 2.0, 9.0):
        assert privacy.renyi([steps], order) == privacy.renyi([continuous], order)
    one = privacy.dp_fedsgd(0.05, noise, 1)
    assert privacy.epsilon([one] * 200, 1e-5) == privacy.epsilon([steps], 1e-5)
    assert "5 holders" in privacy.in_words(steps)
    assert privacy.pure_epsilon([steps]) == math.inf


def test_noise_that_the_proof_does_not_reach_has_no_epsilon() -> None:
    coarse = DiscreteGaussians(noise_multiplier=5.0, sigma=16.0, entries=10_000, draws=1)
    assert privacy.epsilon([coarse], 1e-5) == math.inf
    fine = DiscreteGaussians(noise_multiplier=0.02, sigma=2.0**16, entries=10, draws=1)
    assert privacy.epsilon([fine], 1e-5) == math.inf  # so little noise that exp(epsilon) outweighs the failures
    with pytest.raises(ValueError, match="delta: got"):
        privacy.epsilon([fine], 0.0)


def test_importing_the_contract_does_not_import_the_accountant() -> None:
    code = "import sys, statfed.core.privacy.accountant; sys.exit('dp_accounting' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
