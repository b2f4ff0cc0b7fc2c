"""Corrected regressions against statsmodels without errors, matrices written out, and repeated draws."""

import numpy as np
import pytest
import statsmodels.api as sm

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.regression import (
    Family,
    Form,
    LinkedRegression,
    Records,
    kept,
    linked_regression,
    step,
    sums,
)
from tests.core.linkage_errors.repeated import complaints

RIGHT = np.array([1.0, 0.95, 0.9, 0.8, 0.7])
BETA = {"linear": np.array([1.0, 2.0, -1.0]), "logistic": np.array([-0.3, 0.8, -0.6])}
FORMS: list[tuple[Family, Form]] = [
    ("linear", "chambers"),
    ("linear", "lahiri-larsen"),
    ("logistic", "chambers"),
    ("logistic", "lahiri-larsen"),
]


def linked(rng: np.random.Generator, family: Family, n: int = 2000, right: np.ndarray = RIGHT) -> Records:
    """Records of which a link leads to another of the block, all alike, with chance 1 - right."""
    block = np.arange(n) % len(right)
    x = np.column_stack([np.ones(n), rng.normal(0.2 * block, 1), (rng.random(n) < 0.4).astype(float)])
    linear = x @ BETA[family]
    y = linear + rng.normal(size=n) if family == "linear" else (rng.random(n) < 1 / (1 + np.exp(-linear))).astype(float)
    seen = y.copy()
    for b, q in enumerate(right):
        wrong = np.flatnonzero((block == b) & (rng.random(n) > q))
        around = rng.permutation(wrong)
        seen[around] = y[np.roll(around, 1)]
    return Records(x, seen, block)


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_without_errors_it_is_the_usual_regression_with_robust_standard_errors(family: Family, form: Form) -> None:
    records = linked(np.random.default_rng(1), family, right=np.ones(5))
    model = sm.OLS(records.y, records.x) if family == "linear" else sm.Logit(records.y, records.x)
    want = model.fit(disp=0, cov_type="HC0") if family == "logistic" else model.fit(cov_type="HC0")
    got = linked_regression(records, 1.0, family=family, form=form)
    np.testing.assert_allclose([e.value for e in got.coefficients], want.params, rtol=1e-7)
    np.testing.assert_allclose([e.std_error for e in got.coefficients], want.bse, rtol=1e-6)
    np.testing.assert_allclose(got.naive, want.params, rtol=1e-7)


def test_linear_forms_are_those_of_the_papers_with_the_matrix_written_out() -> None:
    records = linked(np.random.default_rng(2), "linear", n=100)
    same = records.block[:, None] == records.block[None, :]
    size = same.sum(axis=1)
    right = RIGHT[records.block]
    matrix = np.where(same, ((1 - right) / (size - 1))[:, None], 0.0)
    np.fill_diagonal(matrix, right)
    x, y, moved = records.x, records.y, matrix @ records.x
    got = {form: [e.value for e in linked_regression(records, RIGHT, form=form).coefficients] for _, form in FORMS[:2]}
    np.testing.assert_allclose(got["chambers"], np.linalg.solve(x.T @ moved, x.T @ y), rtol=1e-9)
    np.testing.assert_allclose(got["lahiri-larsen"], np.linalg.solve(moved.T @ moved, moved.T @ y), rtol=1e-9)


@pytest.mark.parametrize("form", ["chambers", "lahiri-larsen"])
def test_logistic_coefficients_solve_the_estimating_equation_written_out(form: Form) -> None:
    records = linked(np.random.default_rng(3), "logistic", n=400)
    beta = np.array([e.value for e in linked_regression(records, RIGHT, family="logistic", form=form).coefficients])
    f = 1 / (1 + np.exp(-records.x @ beta))
    score = np.zeros(3)
    for b in range(5):
        x, y, p = (v[records.block == b] for v in (records.x, records.y, f))
        matrix = np.full((len(p), len(p)), (1 - RIGHT[b]) / (len(p) - 1))
        np.fill_diagonal(matrix, RIGHT[b])
        score += (x if form == "chambers" else matrix @ x).T @ (y - matrix @ p)
    np.testing.assert_allclose(score, 0, atol=1e-6)


@pytest.mark.parametrize(("family", "form"), FORMS)
def test_coefficients_hold_the_truth_as_often_as_they_say_with_shares_that_are_estimated(
    family: Family, form: Form
) -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(80):
        records = linked(rng, family)
        estimated = np.minimum(RIGHT + rng.normal(0, 0.03, 5) * (RIGHT < 1), 1)
        found.append(
            linked_regression(records, estimated, family=family, form=form, std_error=[0, 0.03, 0.03, 0.03, 0.03])
        )
    for i, truth in enumerate(BETA[family]):
        assert complaints([r.coefficients[i] for r in found], [truth] * 80) == []
    slope = [Estimate("naive", r.naive[1], r.coefficients[1].std_error) for r in found]
    assert complaints(slope, [BETA[family][1]] * 80)


def test_a_share_that_is_one_for_all_carries_its_error_as_one() -> None:
    def fit(rng: np.random.Generator, error: float) -> LinkedRegression:
        return linked_regression(
            linked(rng, "linear", right=np.full(5, 0.8)), 0.8 + rng.normal(0, 0.05), std_error=error
        )

    rng = np.random.default_rng(5)
    found = [fit(rng, 0.05) for _ in range(80)]
    assert complaints([r.coefficients[1] for r in found], [2.0] * 80) == []
    assert complaints([fit(rng, 0.0).coefficients[1] for _ in range(80)], [2.0] * 80)


def test_steps_from_sums_of_two_holders_are_those_of_all_records() -> None:
    records = linked(np.random.default_rng(6), "logistic", n=500)
    halves = [Records(records.x[i], records.y[i], records.block[i]) for i in (slice(0, 180), slice(180, None))]
    beta = np.array([0.1, 0.2, -0.1])
    whole = sums(records, beta, 5, "logistic")
    one, two = (sums(half, beta, 5, "logistic") for half in halves)
    a = kept(RIGHT, whole.size)
    for form in ("chambers", "lahiri-larsen"):
        np.testing.assert_allclose(step(one + two, a, form), step(whole, a, form), rtol=1e-10)


@pytest.mark.parametrize(("right", "want"), [(1.2, "1 / m < q"), (0.002, "1 / m < q"), (np.nan, "1 / m < q")])
def test_links_no_better_than_chance_are_refused(right: float, want: str) -> None:
    with pytest.raises(UsageError, match=want):
        linked_regression(linked(np.random.default_rng(7), "linear"), right)


def test_a_singular_design_and_separated_responses_are_refused() -> None:
    records = linked(np.random.default_rng(8), "linear", n=200)
    twice = Records(np.column_stack([records.x, records.x[:, 1]]), records.y, records.block)
    with pytest.raises(UsageError, match="singular"):
        linked_regression(twice, 0.9)
    apart = Records(records.x, (records.x[:, 1] > 0).astype(float), records.block)
    with pytest.raises(UsageError, match=r"no solution|singular"):
        linked_regression(apart, 1.0, family="logistic")


def test_records_do_not_show_themselves() -> None:
    assert repr(linked(np.random.default_rng(9), "linear", n=10)) == "Records(<private>)"
