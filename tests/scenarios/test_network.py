"""Scenario network-from-aggregates: the reconstruction against cases solved by hand or by another library; the case.

Fitting is compared with the closed form of a 2 x 2 table and with the dual problem solved by scipy, link probabilities
with their equation, the ensemble with its expectation, link AUC with scikit-learn.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.scenario import EXACT, Figure, World
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.statistics import write_sources
from statfed.lab.compare.trial import Technique
from statfed.scenarios import network_from_aggregates as scenario
from statfed.scenarios._data import payments
from statfed.scenarios._data.network import draw, fit, link_auc, link_probabilities, misplaced, reconciled

RNG = np.random.default_rng(3)
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def world() -> World:
    return scenario.world("quick", 1)


def exact(world: World) -> scenario.Margins:
    """The margins by pandas."""
    everything = pd.concat(world.holders.values())
    values = tuple(
        everything.groupby(name)["amount"].sum().reindex(world.codebook.columns[name].levels, fill_value=0).to_numpy()
        for name in scenario.SHARES
    )
    return scenario.Margins(values, tuple(np.zeros(len(v)) for v in values), tuple(float(v.sum()) for v in values))


def test_no_enterprise_group_is_at_two_banks_as_the_tables_declare(world: World) -> None:
    banks = pd.concat(frame.assign(bank=name) for name, frame in world.holders.items()).groupby("group")["bank"]
    assert banks.nunique().max() == 1


# Fitting


def test_a_flat_prior_gives_the_product_of_the_margins() -> None:
    out, into = np.array([3.0, 5.0, 2.0]), np.array([6.0, 1.0, 3.0])
    found = fit(np.ones((3, 3)), out, into)
    np.testing.assert_allclose(found.weights, np.outer(out, into) / 10, rtol=1e-12)


def test_a_two_by_two_table_keeps_the_odds_ratio_of_its_prior() -> None:
    # odds ratio 6, margins (5, 5) and (6, 4): x (x - 1) = 6 (6 - x) (5 - x), so 5 x^2 - 65 x + 180 = 0
    found = fit(np.array([[6.0, 1.0], [1.0, 1.0]]), np.array([5.0, 5.0]), np.array([6.0, 4.0])).weights
    x = (65 - np.sqrt(65**2 - 20 * 180)) / 10
    np.testing.assert_allclose(found, [[x, 5 - x], [6 - x, x - 1]], rtol=1e-7)


def test_groups_are_fitted_to_the_optimum_of_the_dual_problem() -> None:
    n, prior, groups = 5, RNG.gamma(1.0, size=(5, 5)), RNG.integers(0, 3, (5, 5))
    truth = RNG.gamma(1.0, size=(n, n))
    out, into, totals = truth.sum(1), truth.sum(0), np.array([truth[groups == g].sum() for g in range(3)])
    wanted = np.concatenate([out, into, totals]) / truth.sum()

    def exponent(dual: Floats) -> Floats:
        return np.log(prior) + dual[:n, None] + dual[None, n : 2 * n] + dual[2 * n :][groups]

    def dual_value(dual: Floats) -> float:
        return float(np.log(np.exp(exponent(dual)).sum()) - dual @ wanted)

    solved = minimize(dual_value, np.zeros(2 * n + 3), method="BFGS", options={"gtol": 1e-9})
    by_dual = truth.sum() * softmax(exponent(solved.x))
    found = fit(prior, out, into, groups, totals)
    assert found.gap <= 1e-9
    np.testing.assert_allclose(found.weights, by_dual, rtol=1e-4)


def test_margins_that_contradict_the_prior_leave_a_gap_and_others_are_refused() -> None:
    apart = np.eye(2)
    assert fit(apart, np.array([3.0, 1.0]), np.array([1.0, 3.0]), most=50).gap > 0.1
    assert not fit(apart, np.zeros(2), np.zeros(2)).weights.any()
    with pytest.raises(UsageError, match="got negative ones"):
        fit(apart, np.array([-1.0, 2.0]), np.array([0.5, 0.5]))
    with pytest.raises(UsageError, match="got totals 4, 5; want the same"):
        fit(apart, np.array([3.0, 1.0]), np.array([1.0, 4.0]))


def test_noisy_margins_come_to_one_total_without_negative_entries() -> None:
    margins = np.array([5.0, -2.0, 4.0]), np.array([6.0, 6.0, 0.0])
    first, second = reconciled(margins, (np.full(3, 2.0), np.full(3, 1.0)), (7.0, 12.0))
    assert first.sum() == pytest.approx((7 / 12 + 12 / 3) / (1 / 12 + 1 / 3))
    assert second.sum() == pytest.approx(first.sum())
    assert first.min() == second.min() == 0
    assert first[0] - first[2] == pytest.approx(1.0), "positive entries move by the same amount"
    scaled, kept = reconciled((np.array([1.0, 3.0]), np.array([2.0, 6.0])), (np.ones(2), np.zeros(2)), (4.0, 8.0))
    assert scaled.tolist() == [3.0, 5.0]  # the exact margin decides on the total
    assert kept.tolist() == [2.0, 6.0]


# Links and the ensemble


def test_link_probabilities_meet_the_number_of_links_and_the_fitness_equation() -> None:
    weights = RNG.gamma(0.4, size=(8, 8))
    weights[0] = 0
    found = link_probabilities(weights, 20.0)
    assert found.sum() == pytest.approx(20.0)
    assert not found[0].any()
    inside = weights > 0
    odds = found[inside] / (1 - found[inside]) / weights[inside]
    np.testing.assert_allclose(odds, odds[0], rtol=1e-6)
    np.testing.assert_allclose(link_probabilities(np.ones((4, 4)), 4.0), 0.25)
    with pytest.raises(UsageError, match="got 56 for 56 possible pairs"):
        link_probabilities(weights, 56.0)


def test_the_ensemble_has_the_fitted_weights_and_links_as_expectation() -> None:
    weights = RNG.gamma(1.0, size=(4, 4))
    probability = link_probabilities(weights, 7.0)
    drawn = np.array([draw(weights, probability, RNG) for _ in range(20_000)])
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - weights) < 5 * error).all()
    assert np.abs((drawn > 0).mean(axis=0) - probability).max() < 0.02


def test_misplaced_weight_and_link_auc_are_those_of_small_cases() -> None:
    truth = np.array([[0.0, 4.0], [6.0, 0.0]])
    assert misplaced(truth, truth) == 0
    assert misplaced(truth.T, truth) == pytest.approx(0.2)
    assert misplaced(np.array([[4.0, 0.0], [0.0, 6.0]]), truth) == 1
    score, links = np.round(RNG.random((9, 9)), 1), RNG.random((9, 9)) * (RNG.random((9, 9)) < 0.4)
    assert link_auc(score, links) == pytest.approx(roc_auc_score(links.ravel() > 0, score.ravel()))
    assert np.isnan(link_auc(score, np.ones((9, 9))))


# The case


def test_banks_differ_in_size_and_in_whom_they_serve(world: World) -> None:
    sizes = pd.Series({name: len(frame) for name, frame in world.holders.items()})
    assert sizes.max() > 2.5 * sizes.min()
    agriculture = pd.Series(
        {name: frame["payer"].str.endswith("-agri").mean() for name, frame in world.holders.items()}
    )
    assert agriculture["bank-rural"] > 3 * agriculture["bank-online"]


def test_amounts_are_skewed_and_within_the_public_bounds(world: World) -> None:
    everything = pd.concat(world.holders.values())
    assert everything["amount"].between(0.1, payments.LARGEST).all()
    assert everything.groupby("group")["amount"].sum().max() <= payments.LARGEST_GROUP + 1
    by_size = everything["amount"].sort_values()
    assert by_size.iloc[-len(by_size) // 10 :].sum() > 0.45 * by_size.sum(), "the largest tenth has about half"
    assert everything.groupby("enterprise").size().max() <= payments.RELATIONS
    assert not everything.duplicated(["enterprise", "payee"]).any()


def test_near_suppliers_are_preferred_and_bands_are_those_of_the_map(world: World) -> None:
    everything, nodes = pd.concat(world.holders.values()), list(world.public["nodes"])
    index = world.public["bands"][everything["payer"].map(nodes.index), everything["payee"].map(nodes.index)]
    assert (np.array(list(payments.BANDS))[index] == everything["band"]).all()
    same = (everything["band"] == "same-region").mean()
    assert same > 1.4 / len(payments.distances(("north", "coast", "centre")))


def test_the_benchmark_year_is_another_one_of_the_same_economy(world: World) -> None:
    everything = pd.concat(world.holders.values())
    divisions = [everything[name].str.rsplit("-", n=1).str[1] for name in ("payer", "payee")]
    now = everything["amount"].groupby(divisions).sum().unstack(fill_value=0)
    now = now.reindex(index=list(payments.DIVISIONS), columns=list(payments.DIVISIONS), fill_value=0)
    then = world.public["benchmark"]
    assert not np.allclose(now, then, rtol=0.01)
    assert misplaced(then * now.to_numpy().sum() / then.sum(), now.to_numpy(float)) < 0.15


def test_margins_that_are_asked_for_are_those_of_all_records(world: World, tmp_path: Path) -> None:
    ask = Questions(
        write_sources(world, tmp_path / "data"), world.codebook, Technique("plain", EXACT), 1, tmp_path / "homes"
    )
    asked, pooled = scenario.released(ask), exact(world)
    for got, want in zip(asked.values, pooled.values, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9)
    np.testing.assert_allclose(asked.sums, pooled.sums, rtol=1e-9)
    assert not any(spread.any() for spread in asked.spread)


def test_margins_alone_are_not_valid_and_the_benchmark_table_makes_them_so(world: World) -> None:
    found = {
        m: scenario.measures(scenario.inferred(exact(world), world.public, m), world.truth) for m in scenario.METHODS
    }
    assert found["margins"]["misplaced"] > found["distances"]["misplaced"] > found["table"]["misplaced"]
    assert found["margins"]["misplaced"] > 0.5, "more than half of the weight is with the wrong pair"
    assert scenario.worst(scenario.inferred(exact(world), world.public, "margins"), world.truth) > 1.5
    assert scenario.worst(scenario.inferred(exact(world), world.public, "distances"), world.truth) > 1.5
    assert scenario.worst(scenario.inferred(exact(world), world.public, "table"), world.truth) < 1
    assert 0.9 < found["table"]["coverage"] < 0.99


def test_the_inferred_network_has_the_margins_and_the_known_density(world: World) -> None:
    figures, margins, nodes = scenario.inferred(exact(world), world.public), exact(world), world.public["nodes"]
    for i, node in enumerate(nodes):
        row = sum(figures[f"flow {node} > {other}"].value or 0.0 for other in nodes)
        assert row == pytest.approx(margins.values[0][i], rel=1e-6)
    degrees = [figures[f"outdegree {node}"].value or 0.0 for node in nodes]
    assert sum(degrees) == pytest.approx(world.public["links"])
    assert sum(world.truth[f"outdegree {node}"] for node in nodes) == sum(
        value > 0 for name, value in world.truth.items() if name.startswith("flow ")
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_error_grows_with_the_noise_of_the_margins_and_intervals_widen(world: World, seed: int) -> None:
    rng, clean = np.random.default_rng(seed), exact(world)
    errors, widths = [], []
    for share in (0.0, 0.1, 0.5):  # of the mean entry
        spread = tuple(np.full(len(v), share * v.mean()) for v in clean.values)
        values = tuple(v + s * rng.normal(size=len(v)) for v, s in zip(clean.values, spread, strict=True))
        noisy = dataclasses.replace(clean, values=values, spread=spread, sums=tuple(float(v.sum()) for v in values))
        figures = scenario.inferred(noisy, world.public)
        errors.append(scenario.measures(figures, world.truth)["misplaced"])
        widths.append(np.mean([(figure.high or 0.0) - (figure.low or 0.0) for figure in figures.values()]))
    assert errors[0] < errors[1] < errors[2]
    assert widths[0] < widths[2]


def test_noise_that_leaves_nothing_gives_an_empty_network_that_is_not_valid(world: World) -> None:
    clean = exact(world)
    lost = scenario.Margins(
        tuple(np.zeros(len(v)) for v in clean.values), tuple(np.ones(len(v)) for v in clean.values), (0.0, 0.0, 0.0)
    )
    figures = scenario.inferred(lost, world.public)
    assert not any(figure.value for name, figure in figures.items() if name.startswith("flow "))
    assert scenario.worst(figures, world.truth) > 1


def test_suppressed_margins_share_what_is_left_of_the_total() -> None:
    rows: list[dict[str, Any]] = [{"total": 5.0}, {"total": None}, {"total": None}, {"total": 1.0}]
    result = Result("table", "", {"cells": rows, "margins": [{"total": 10.0}]})
    values, spread, total = scenario._margin(result)
    assert values.tolist() == [5.0, 2.0, 2.0, 1.0]
    assert spread == pytest.approx([0.0, 2 / np.sqrt(3), 2 / np.sqrt(3), 0.0])
    assert total == 10.0


def test_validity_is_the_measure_that_misses_its_limit_most() -> None:
    pooled = {"flow a > b": 10.0, "flow b > a": 0.0, "outdegree a": 1.0, "outdegree b": 1.0}
    good = {
        "flow a > b": Figure(8.0, 5.0, 12.0),
        "flow b > a": Figure(2.0, 0.0, 3.0),
        "outdegree a": Figure(1.0),
        "outdegree b": Figure(0.9),
    }
    assert scenario.measures(good, pooled) == {
        "misplaced": 0.2,
        "link_auc": 1.0,
        "degree_error": pytest.approx(0.05),
        "coverage": 1.0,
        "link_coverage": 1.0,
    }
    assert scenario.worst(good, pooled) == pytest.approx(0.6)
    off = good | {"flow a > b": Figure(8.0, 8.0, 9.0)}
    assert scenario.worst(off, pooled) == pytest.approx(5.0)  # half of the intervals hold; a tenth may miss
