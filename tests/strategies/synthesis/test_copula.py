"""Gaussian copula: margins and latent correlations from counts, against a pooled and obvious computation."""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.utility import margins
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit, own_table
from statfed.strategies.synthesis import copula
from statfed.strategies.synthesis._latent import binormal, nearest_correlation, polychoric, projected
from tests.federate import codebook_of, federate, split

CORRELATIONS = np.array([[1, 0.6, -0.4, 0.5], [0.6, 1, -0.2, 0.3], [-0.4, -0.2, 1, 0.1], [0.5, 0.3, 0.1, 1]])
BOOK = codebook_of(
    {
        "x": {"type": "number", "low": -6, "high": 6, "required": True},
        "income": ("number", 0, 120_000),
        "kind": ["b", "d", "a", "c"],
        "works": "boolean",
    }
)


def people(n: int, seed: int) -> pd.DataFrame:
    """Classes of normals with `CORRELATIONS`; the levels of `kind` stand in the order d, a, c, b."""
    z = np.random.default_rng(seed).multivariate_normal(np.zeros(4), CORRELATIONS, n)
    return pd.DataFrame(
        {
            "x": np.clip(z[:, 0], -6, 6),
            "income": np.minimum(np.exp(9 + 0.8 * z[:, 1]), 120_000),
            "kind": np.array(list("dacb"))[np.digitize(z[:, 2], [-0.8, 0.1, 1.0])],
            "works": z[:, 3] > 0.3,
        }
    )


def fitted(frames: list[pd.DataFrame], book: Codebook = BOOK, **options: Any) -> Any:
    def ask(analysis: str, **more: Any) -> Any:
        return federate(analysis, frames, book, **more)

    return copula.fit(ask, book, copula.Options(**options))


def test_binormal_is_that_of_scipy() -> None:
    points = np.array([-2.5, -0.4, 0.0, 1.1])
    for rho in (-0.99, -0.5, 0.0, 0.3, 0.9, 0.99):
        want = [[multivariate_normal.cdf([h, k], cov=[[1, rho], [rho, 1]]) for k in points] for h in points]
        assert np.abs(binormal(points, points, rho) - want).max() < 1e-6


def test_latent_correlations_are_recovered_and_equal_a_pooled_computation() -> None:
    frame = people(12_000, 1)
    model = fitted(split(frame, 3))
    names = list(model["axes"])
    found = np.array(model["correlations"])
    order = {
        name: [model["axes"][name]["levels"][cell] for cell in model["order"][name] if cell < 4] for name in ["kind"]
    }
    assert order["kind"] in (list("dacb"), list("bcad"))
    sign = np.ones(4)
    sign[2] = 1 if order["kind"] == list("dacb") else -1
    works = model["order"]["works"]
    sign[3] = 1 if works.index(0) < works.index(1) else -1
    for a, b in combinations(range(4), 2):
        assert abs(found[a, b] * sign[a] * sign[b] - CORRELATIONS[a, b]) < 0.035, (names[a], names[b])
    want = slow_polychoric(frame["works"].astype(int), pd.Categorical(frame["kind"], list("dacb")).codes)
    assert found[2, 3] * sign[2] * sign[3] == pytest.approx(want, abs=2e-3)


def slow_polychoric(a: Any, b: Any) -> float:
    """By rectangles of scipy's distribution and a search over a grid."""
    table = pd.crosstab(a, b).to_numpy()
    limits = [np.array([-9, *norm.ppf(np.cumsum(table.sum(axis=1 - i))[:-1] / table.sum()), 9]) for i in (0, 1)]
    losses = []
    grid = np.arange(-0.1, 0.32, 0.06)
    for rho in grid:
        points = np.dstack(np.meshgrid(*limits, indexing="ij"))
        cells = np.diff(np.diff(multivariate_normal.cdf(points, cov=[[1, rho], [rho, 1]]), axis=0), axis=1)
        losses.append(-(table * np.log(cells)).sum())
    bend = np.polyfit(grid, losses, 6)
    fine = np.linspace(grid[0], grid[-1], 100_001)
    return float(fine[np.argmin(np.polyval(bend, fine))])


def test_drawn_records_have_the_margins_and_the_pairs_of_the_original() -> None:
    frame, fresh = people(12_000, 2), people(12_000, 3)
    model = fitted([frame])
    made = Coded(BOOK, dict(copula.generate(model, BOOK, 12_000, np.random.default_rng(4))))
    original = own_table(frame, BOOK)
    found = margins(original, made, own_table(fresh, BOOK), np.random.default_rng(5))
    rng = np.random.default_rng(6)
    independent = Coded(BOOK, {name: rng.permutation(values) for name, values in made.columns.items()})
    lost = margins(original, independent, None, np.random.default_rng(5))
    assert found.baseline is not None
    assert found.value < found.baseline + 0.03
    assert found.value < lost.value * 0.8


def test_missing_values_come_as_often_and_with_what_they_came() -> None:
    frame = people(6_000, 7)
    frame["income"] = frame["income"].where(~((frame["x"] > 1) & (np.arange(6_000) % 2 == 0)))
    model = fitted([frame])
    made = Coded(BOOK, dict(copula.generate(model, BOOK, 20_000, np.random.default_rng(1))))
    gone = made.missing("income")
    assert gone.mean() == pytest.approx(frame["income"].isna().mean(), abs=0.01)
    assert made.columns["x"][gone].mean() > made.columns["x"][~gone].mean() + 0.3
    assert not made.missing("kind").any()


def test_one_holder_and_three_have_the_same_model() -> None:
    frame = people(900, 8)
    assert fitted([frame], classes=12) == fitted(split(frame, 3), classes=12)


def test_nearest_correlation_is_that_of_higham() -> None:
    found = nearest_correlation(np.array([[2, -1, 0, 0], [-1, 2, -1, 0], [0, -1, 2, -1], [0, 0, -1, 2.0]]))
    want = [[1, -0.8084, 0.1916, 0.1068], [-0.8084, 1, -0.6562, 0.1916]]  # Higham 2002, section 4
    assert np.abs(found[:2] - want).max() < 1e-3
    assert np.linalg.eigvalsh(found)[0] > 0
    fine = np.array([[1, 0.3], [0.3, 1]])
    assert np.abs(nearest_correlation(fine) - fine).max() < 1e-9


def test_noisy_counts_become_the_nearest_that_can_be() -> None:
    rng = np.random.default_rng(1)
    noisy = rng.normal(0, 3, 12)
    found = projected(noisy, 7.0)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(7)
    for _ in range(200):
        other = rng.dirichlet(np.full(12, 0.2)) * 7
        assert ((noisy - found) ** 2).sum() <= ((noisy - other) ** 2).sum() + 1e-9


def test_columns_that_do_not_vary_are_not_correlated() -> None:
    assert polychoric(np.array([[0.2, 0.8]]), np.array([1.0]), np.array([0.2, 0.8])) == 0.0
    assert polychoric(np.array([[0.2, 0.8], [0, 0]]), np.array([1.0, 0]), np.array([0.2, 0.8])) == 0.0


def test_it_is_fitted_privately_by_one_question_and_refused_without_what_it_needs() -> None:
    frame = people(4_000, 9)
    with Federation({f"h{i}": part for i, part in enumerate(split(frame, 3))}, BOOK, seed=1) as fed:
        model = fit(fed, "copula", {"classes": 16}, privacy={"epsilon": 3.0})
    assert model.fitted.origin["epsilon"] <= 3.0
    assert len(model.fitted.origin["questions"]) == 1
    made = model.coded(4_000, seed=1)
    assert margins(own_table(frame, BOOK), made, None, np.random.default_rng(1)).value < 0.2
    with pytest.raises(UsageError, match="ordered: got x"):
        fitted([frame], ordered=("x",))
