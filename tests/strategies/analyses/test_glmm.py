"""`glmm` against a slow, obvious Laplace approximation of the pooled data, adaptive quadrature and statsmodels."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import optimize, special
from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Part, Total, read_question, summed
from statfed.core.result import Result
from statfed.core.terms import Terms
from tests.federate import codebook_of, drive, federate, split, table_of

GROUPS = [f"g{i}" for i in range(8)]
CODEBOOK = codebook_of(
    {
        "y": ("number", 0, 1_000_000),
        "x": ("number", -10, 10),
        "s": ["f", "m"],
        "g": [*GROUPS, "nobody"],
        "t": ("number", 0, 100),
        "log_t": ("number", -10, 10),
        "records": ["a", "b"],
    }
)
FORMULA = "y ~ s + x"
Vector = NDArray[np.float64]


def people(n: int, sigma: float, seed: int, family: str) -> pd.DataFrame:
    """Records in groups of unequal size with normal intercepts."""
    rng = np.random.default_rng(seed)
    g, u = rng.choice(8, n, p=rng.dirichlet(np.full(8, 3.0))), rng.normal(0, sigma, 8)
    x, men, t = rng.normal(0, 1, n), rng.random(n) < 0.5, rng.uniform(0.5, 2, n)
    eta = -0.3 + 0.7 * x - 0.4 * men + u[g]
    y = rng.random(n) < special.expit(eta) if family == "binomial" else rng.poisson(t * np.exp(eta))
    return pd.DataFrame(
        {
            "y": y.astype(float),
            "x": x,
            "s": np.where(men, "m", "f"),
            "g": np.array(GROUPS)[g],
            "t": t,
            "log_t": np.log(t),
            "records": "a",
        }
    )


class Pooled:
    """The Laplace approximation by its definition, on dense matrices of all records."""

    def __init__(self, frame: pd.DataFrame, family: str, offset: Vector | None = None) -> None:
        self.x = np.column_stack([np.ones(len(frame)), frame["s"] == "m", frame["x"]]).astype(float)
        self.y, self.z = frame["y"].to_numpy(), pd.get_dummies(frame["g"]).to_numpy(float)
        self.family, self.offset = family, np.zeros(len(frame)) if offset is None else offset

    def at(self, beta: Vector, u: Vector) -> tuple[Vector, Vector, float]:
        """Means, information weights and log-likelihood given effects."""
        eta = self.x @ beta + self.z @ u + self.offset
        if self.family == "binomial":
            mu = special.expit(eta)
            return mu, mu * (1 - mu), float((self.y * eta - np.logaddexp(0, eta)).sum())
        mu = np.exp(eta)
        return mu, mu, float((self.y * eta - mu - special.gammaln(self.y + 1)).sum())

    def modes(self, beta: Vector, sigma: float) -> Vector:
        u = np.zeros(self.z.shape[1])
        for _ in range(60):
            mu, w, _ = self.at(beta, u)
            u = u + (self.z.T @ (self.y - mu) - u / sigma**2) / (self.z.T @ w + 1 / sigma**2)
        return u

    def log_likelihood(self, theta: Vector) -> float:
        """theta: coefficients and log sigma."""
        beta, sigma = theta[:-1], float(np.exp(theta[-1]))
        u = self.modes(beta, sigma)
        _, w, given = self.at(beta, u)
        hessian = self.z.T @ (self.z * w[:, None]) * sigma**2 + np.eye(len(u))
        return given - float(u @ u) / 2 / sigma**2 - float(np.linalg.slogdet(hessian)[1]) / 2

    def marginal(self, theta: Vector) -> float:
        """The integral that the approximation is of, by adaptive Gauss-Hermite quadrature in each group."""
        beta, sigma = theta[:-1], float(np.exp(theta[-1]))
        u, (nodes, weights) = self.modes(beta, sigma), np.polynomial.hermite.hermgauss(40)
        total = np.float64(0)
        for j in range(len(u)):
            here = Pooled.__new__(Pooled)
            inside = self.z[:, j] > 0
            here.x, here.y, here.offset, here.family = self.x[inside], self.y[inside], self.offset[inside], self.family
            here.z = np.ones((int(inside.sum()), 1))
            scale = 1 / np.sqrt(here.at(beta, u[j : j + 1])[1].sum() + 1 / sigma**2)
            points = u[j] + np.sqrt(2) * scale * nodes
            logs = [here.at(beta, np.array([v]))[2] - v**2 / 2 / sigma**2 for v in points]
            total += special.logsumexp(np.array(logs) + nodes**2, b=weights * np.sqrt(2) * scale)
        return float(total - len(u) * (np.log(sigma) + np.log(2 * np.pi) / 2))

    def joint_inverse(self, theta: Vector) -> Vector:
        """Inverse of the penalised information of coefficients and effects, (3 + groups, 3 + groups)."""
        beta, sigma = theta[:-1], float(np.exp(theta[-1]))
        u = self.modes(beta, sigma)
        both = np.hstack([self.x, self.z])
        penalty = np.concatenate([np.zeros(self.x.shape[1]), np.full(len(u), sigma**-2)])
        return np.asarray(np.linalg.inv(both.T @ (both * self.at(beta, u)[1][:, None]) + np.diag(penalty)), np.float64)


def theta_of(result: Result) -> Vector:
    return np.append(result.to_pandas()["estimate"].to_numpy(float), np.log(float(str(result.facts["sigma"]))))


CASES = [("binomial", 400, 0.8), ("binomial", 60, 1.5), ("poisson", 300, 0.4), ("poisson", 60, 1.0)]


@pytest.mark.parametrize(("family", "n", "sigma"), CASES)
def test_estimates_are_the_maximum_of_the_laplace_approximation(family: str, n: int, sigma: float) -> None:
    frame = people(n, sigma, 1, family).assign(t=1.0, log_t=0.0)
    result = federate("glmm", split(frame, 3), CODEBOOK, formula=FORMULA, group="g", family=family)
    pooled, theta = Pooled(frame, family), theta_of(result)
    assert result.facts["log_likelihood"] == pytest.approx(pooled.log_likelihood(theta), rel=1e-11)
    errors = np.append(result.to_pandas()["std_error"], float(str(result.facts["log_sigma_std_error"])))
    for i, error in enumerate(errors):
        step = np.zeros(len(theta))
        step[i] = error
        rise = pooled.log_likelihood(theta + 1e-3 * step) - pooled.log_likelihood(theta - 1e-3 * step)
        assert abs(rise) < 1e-7, i  # at a distance of d standard errors from the maximum it is 2e-3 d

    def loss(theta: Vector) -> float:
        return -pooled.log_likelihood(theta)

    other = optimize.minimize(loss, np.zeros(4), method="BFGS")
    assert -other.fun <= float(str(result.facts["log_likelihood"])) + 1e-7
    np.testing.assert_allclose(theta, other.x, atol=2e-3 * errors.max())


@pytest.mark.parametrize(("family", "n", "sigma"), CASES[:1] + CASES[2:3])
def test_standard_errors_and_effects_equal_the_dense_computation(family: str, n: int, sigma: float) -> None:
    frame = people(n, sigma, 2, family).assign(t=1.0, log_t=0.0)
    result = federate("glmm", split(frame, 2), CODEBOOK, formula=FORMULA, group="g", family=family)
    pooled, theta = Pooled(frame, family), theta_of(result)
    errors = np.sqrt(np.diag(pooled.joint_inverse(theta)))
    groups = result.to_pandas("groups")
    np.testing.assert_allclose(result.to_pandas()["std_error"], errors[:3], rtol=1e-7)
    np.testing.assert_allclose(groups["std_error"], errors[3:], rtol=1e-7)
    np.testing.assert_allclose(groups["estimate"], pooled.modes(theta[:-1], float(np.exp(theta[-1]))), atol=1e-7)
    assert groups["records"].tolist() == frame.groupby("g").size().tolist()
    assert "g: no records at nobody; left out" in result.notes


def test_error_of_log_sigma_is_the_curvature_of_the_profile() -> None:
    frame = people(500, 0.8, 3, "binomial")
    result = federate("glmm", [frame], CODEBOOK, formula=FORMULA, group="g")
    pooled, theta = Pooled(frame, "binomial"), theta_of(result)

    def profile(log_sigma: float) -> float:
        def loss(beta: Vector) -> float:
            return -pooled.log_likelihood(np.append(beta, log_sigma))

        found = optimize.minimize(loss, theta[:-1], tol=1e-9)
        return -float(found.fun)

    h = 0.1
    curvature = (profile(theta[-1] + h) - 2 * profile(theta[-1]) + profile(theta[-1] - h)) / h**2
    assert result.facts["log_sigma_std_error"] == pytest.approx(1 / np.sqrt(-curvature), rel=0.02)


def test_laplace_is_near_the_integral_that_it_approximates() -> None:
    frame = people(600, 0.8, 4, "binomial")
    result = federate("glmm", split(frame, 2), CODEBOOK, formula=FORMULA, group="g")
    assert result.facts["log_likelihood"] == pytest.approx(
        Pooled(frame, "binomial").marginal(theta_of(result)), abs=0.1
    )


def test_estimates_are_near_statsmodels_variational_ones() -> None:
    """Another approximation with weak priors: roughly the same, in standard errors."""
    frame = people(800, 0.8, 5, "binomial")
    result = federate("glmm", split(frame, 2), CODEBOOK, formula=FORMULA, group="g").to_pandas()
    other = BinomialBayesMixedGLM.from_formula("y ~ s + x", {"g": "0 + C(g)"}, frame, vcp_p=2, fe_p=10).fit_vb()
    assert (np.abs(result["estimate"] - other.fe_mean) < 0.3 * result["std_error"]).all()


def test_without_differences_between_groups_it_is_glm_with_sigma_0() -> None:
    frame = people(500, 0.0, 3, "binomial")
    frame["y"] = frame.groupby("g")["y"].transform(lambda y: np.arange(len(y)) % 2)  # the same share in every group
    frames = split(frame, 3)
    mixed = federate("glmm", frames, CODEBOOK, formula=FORMULA, group="g")
    plain = federate("glm", frames, CODEBOOK, formula=FORMULA)
    assert mixed.facts["sigma"] == 0.0
    assert mixed.facts["log_sigma_std_error"] is None
    assert mixed.facts["log_likelihood"] == pytest.approx(plain.facts["log_likelihood"], rel=1e-12)
    for key in ("estimate", "std_error"):
        np.testing.assert_allclose(mixed.to_pandas()[key], plain.to_pandas()[key], rtol=1e-7, atol=1e-9)
    assert (mixed.to_pandas("groups")["estimate"] == 0).all()
    assert any("sigma is estimated as 0" in note for note in mixed.notes)


def test_a_maximum_inside_is_found_although_the_likelihood_falls_at_0() -> None:
    """One large group without effect hides many small ones from the score of the variance at 0."""
    rng = np.random.default_rng(1)
    large = pd.DataFrame({"g": "g0", "y": rng.permutation(np.arange(3000) % 2).astype(float)})
    small = [pd.DataFrame({"g": f"g{j}", "y": np.r_[np.full(11, j % 2), 1 - j % 2].astype(float)}) for j in range(1, 8)]
    frame = pd.concat([large, *small], ignore_index=True).assign(x=rng.normal(size=3000 + 84), s="f", t=1.0, log_t=0.0)
    sizes = frame.groupby("g")["y"].agg(["sum", "size"])
    p = frame["y"].mean()
    assert ((sizes["sum"] - p * sizes["size"]) ** 2 - p * (1 - p) * sizes["size"]).sum() < 0
    result = federate("glmm", split(frame, 2), CODEBOOK, formula="y ~ x", group="g")
    assert float(str(result.facts["sigma"])) > 1
    assert float(str(result.facts["likelihood_ratio"])) > 5
    assert float(str(result.facts["likelihood_ratio_p_value"])) < 0.05


def test_exposure_and_offset_are_the_same_in_poisson_and_equal_the_pooled_maximum() -> None:
    frame = people(200, 0.6, 6, "poisson")
    frames, options = split(frame, 2), {"formula": FORMULA, "group": "g", "family": "poisson"}
    one = federate("glmm", frames, CODEBOOK, exposure="t", **options)
    other = federate("glmm", frames, CODEBOOK, offset="log_t", **options)
    np.testing.assert_allclose(theta_of(one), theta_of(other), rtol=1e-6)
    pooled = Pooled(frame, "poisson", frame["log_t"].to_numpy())
    assert one.facts["log_likelihood"] == pytest.approx(pooled.log_likelihood(theta_of(one)), rel=1e-11)


@pytest.mark.parametrize("family", ["binomial", "poisson"])
def test_the_database_adds_up_what_batches_do(family: str) -> None:
    options = {"formula": FORMULA, "group": "g", "family": family}
    module, question = read_question(Terms(method="glmm", options=options, codebook=CODEBOOK, holders=("a",), seed=1))
    run, table = module.coordinate(question), table_of(people(150, 0.8, 7, family), CODEBOOK)
    start = next(run)
    step = run.send(Total(module.contribute(table, question, start)))
    arrays = dict(step.arrays) | {"coefficients": np.array([0.2, -0.4, 0.5]), "effects": np.linspace(-1, 1, 9)}
    here, there = (
        module.contribute(replace(table, embedded=embedded), question, Ask("step", arrays))
        for embedded in (True, False)
    )
    for name, part in module.parts(question, step).items():
        assert here[name].shape == there[name].shape == part.shape
        np.testing.assert_allclose(there[name], here[name], rtol=1e-10, atol=1e-10, err_msg=name)


@pytest.mark.parametrize(("family", "n", "sigma"), [*CASES, ("binomial", 2000, 3.0), ("poisson", 2000, 0.02)])
def test_few_sums_are_enough(family: str, n: int, sigma: float) -> None:
    count = 0

    def counting(sent: Mapping[str, Arrays], parts: Mapping[str, Part]) -> Arrays:
        nonlocal count
        count += 1
        return summed(sent, parts)

    options: dict[str, Any] = {"formula": FORMULA, "group": "g", "family": family}
    query = Terms(method="glmm", options=options, codebook=CODEBOOK, holders=("a",), seed=1)
    frame = people(n, sigma, 1, family)
    drive(*read_question(query), {"a": table_of(frame, CODEBOOK)}, counting)
    assert count <= 40


def test_groups_of_few_records_are_withheld_by_a_release_with_rules() -> None:
    frame = people(400, 0.8, 8, "binomial")
    frame["g"] = np.where(np.arange(400) < 4, "g0", np.where(frame["g"] == "g0", "g1", frame["g"]))
    from statfed.federation import Federation

    federation = Federation({"a": frame[::2], "b": frame[1::2]}, CODEBOOK, disclosure="standard")
    shown = federation.ask("glmm", formula=FORMULA, group="g").to_pandas("groups").set_index("g")
    assert shown.loc["g0", "status"] == "suppressed"
    assert pd.isna(shown.loc["g0", "estimate"])
    assert (shown["status"] == "released").sum() >= 5


def test_separation_is_refused_and_named() -> None:
    frame = people(200, 0.5, 9, "binomial")
    frame["y"] = frame["y"].where(frame["s"] == "f", 1.0)
    with pytest.raises(UsageError, match=r"separation: .* along .*s\[T\.m\]"):
        federate("glmm", split(frame, 2), CODEBOOK, formula=FORMULA, group="g")


def test_a_group_without_a_mixed_response_is_no_separation() -> None:
    frame = people(300, 0.5, 10, "binomial")
    frame["y"] = frame["y"].where(frame["g"] != "g3", 1.0)
    result = federate("glmm", split(frame, 2), CODEBOOK, formula=FORMULA, group="g")
    effects = result.to_pandas("groups").set_index("g")["estimate"]
    assert effects.idxmax() == "g3"
    assert np.isfinite(effects).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": FORMULA, "group": "x"}, "group: x: got type number"),
        ({"formula": "y ~ x + g", "group": "g"}, "group: got g, which the formula has too"),
        ({"formula": FORMULA, "group": "records"}, "want a column not named like one of the result's own"),
        ({"formula": FORMULA, "group": "g", "exposure": "t"}, "exposure: got one with family binomial"),
        ({"formula": FORMULA, "group": "g", "family": "gamma"}, "family"),
        ({"formula": FORMULA, "group": "g", "offset": "s"}, "offset: s"),
    ],
)
def test_mistakes_are_refused_before_anything_is_sent(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        federate("glmm", [people(20, 0.5, 1, "binomial")], CODEBOOK, **options)


def test_data_without_an_answer_are_refused_in_words() -> None:
    frame, asked = people(60, 0.5, 11, "binomial"), {"formula": FORMULA, "group": "g"}
    with pytest.raises(UsageError, match="group: got records at one level of g; want two or more"):
        federate("glmm", [frame.assign(g="g1")], CODEBOOK, **asked)
    with pytest.raises(UsageError, match="values of y that binomial has not"):
        federate("glmm", [frame.assign(y=2.0)], CODEBOOK, **asked)
    with pytest.raises(UsageError, match="response is 1 at every record"):
        federate("glmm", [frame.assign(y=1.0)], CODEBOOK, **asked)
    with pytest.raises(UsageError, match="no records"):
        federate("glmm", [frame.iloc[:0]], CODEBOOK, **asked)
    with pytest.raises(UsageError, match="collinear"):
        federate("glmm", [frame], CODEBOOK, formula="y ~ x + I(2*x)", group="g")
    with pytest.raises(UsageError, match="exposure: got records with 0 or less"):
        federate("glmm", [frame.assign(t=0.0)], CODEBOOK, family="poisson", exposure="t", **asked)


def test_privacy_is_refused_before_anything_is_sent() -> None:
    from statfed.federation import Federation

    federation = Federation({"a": people(50, 0.5, 12, "binomial")}, CODEBOOK)
    with pytest.raises(UsageError, match="glmm has no differentially private form"):
        federation.ask("glmm", formula=FORMULA, group="g", privacy=1.0)


def test_an_interaction_of_levels_that_nobody_has_together_is_left_out() -> None:
    """A level for each pair that occurs makes the same model."""
    frame = people(300, 0.8, 4, "binomial")
    frame["arm"] = np.where((frame["s"] == "f") & (frame.index % 3 == 0), "b", "a")
    frame["pair"] = frame["s"] + frame["arm"]
    described = CODEBOOK.model_dump(mode="json", exclude_defaults=True)
    pairs = {"arm": ["a", "b"], "pair": ["fa", "fb", "ma"]}
    described["columns"] |= {n: {"type": "category", "categories": levels} for n, levels in pairs.items()}
    book = Codebook.model_validate(described)
    crossed = federate("glmm", split(frame, 3, 1), book, formula="y ~ x + C(s)*C(arm)", group="g")
    one = federate("glmm", split(frame, 3, 1), book, formula="y ~ x + C(pair)", group="g")
    assert any("left out, determined by the other columns" in note for note in crossed.notes)
    assert crossed.facts["residual_df"] == one.facts["residual_df"]
    assert crossed.facts["sigma"] == pytest.approx(one.facts["sigma"], rel=1e-5)
    assert crossed.facts["log_likelihood"] == pytest.approx(one.facts["log_likelihood"], rel=1e-9)
    shown, wanted = crossed.to_pandas("coefficients").set_index("name"), one.to_pandas("coefficients").set_index("name")
    assert len(shown) == len(wanted) == 4
    for key in ("estimate", "std_error"):
        assert shown.loc["x", key] == pytest.approx(wanted.loc["x", key], rel=1e-6)


def test_a_design_is_refused_with_what_to_ask_instead() -> None:
    with pytest.raises(UsageError, match="design: got it with glmm; want glm with design = true"):
        federate("glmm", [people(50, 0.5, 1, "binomial")], CODEBOOK, formula=FORMULA, group="g", design=True)
