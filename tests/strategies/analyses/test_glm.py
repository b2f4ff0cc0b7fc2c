"""`glm` against statsmodels on the pooled data: every family and link, streamed and pushed down; in PostgreSQL too."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from formulaic import model_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

import tests.federate as driver
from statfed.client.data.tables import connect, open_table
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.table import Table
from statfed.strategies.analyses._families import LINKS, Family, _lgamma
from tests.federate import codebook_of, federate, split, table_of
from tests.postgres import Server, postgres

__all__ = ["postgres"]

pytestmark = pytest.mark.filterwarnings("ignore:fetch_record_batch:DeprecationWarning")

COLUMNS: dict[str, Any] = {
    "y": "number",
    "age": ("integer", 0, 120),
    "year": ("integer", 1900, 2100),
    "works": "boolean",
    "region": ["north", "south", "west", "moon"],
    "vote": ["no", "yes"],
    "w": ("number", 0, 100),
    "t": ("number", 0, 100),
}
CODEBOOK = codebook_of(COLUMNS)
STATSMODELS: dict[str, Any] = {
    "logit": sm.families.links.Logit,
    "probit": sm.families.links.Probit,
    "log": sm.families.links.Log,
    "identity": sm.families.links.Identity,
    "inverse": sm.families.links.InversePower,
}


def people(n: int, seed: int, family: str, link: str) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(18, 90, n),
            "year": rng.integers(2018, 2027, n),
            "works": rng.random(n) < 0.5,
            "region": rng.choice(["north", "south", "west"], n),
            "w": rng.integers(1, 5, n).astype(float),
            "t": rng.uniform(0.5, 2, n),
        }
    )
    x = ((frame["age"] - 50) / 40 + 0.3 * frame["works"] + 0.2 * (frame["region"] == "west")).to_numpy()
    if family == "binomial":
        p = {"logit": special.expit(x), "probit": special.ndtr(x), "log": np.exp(-1.5 + x / 3)}
        frame["y"] = (rng.random(n) < p.get(link, 0.4 + x / 8)).astype(float)
    elif family == "gaussian":
        mu = {"identity": 5 + x, "log": np.exp(1 + x / 3), "inverse": 1 / (3 + x / 2)}[link]
        frame["y"] = mu + rng.normal(0, 0.05, n)
    elif family == "gamma":
        frame["y"] = rng.gamma(4, {"log": np.exp(x / 2), "identity": 3 + x, "inverse": 1 / (3 + x)}[link] / 4)
    else:
        mu = np.exp(1 + x / 2) if link == "log" else 4 + x
        frame["y"] = rng.poisson(mu * (rng.gamma(2, 0.5, n) if family == "negative-binomial" else 1)).astype(float)
    frame["vote"] = np.where(frame["y"] > 0, "yes", "no")
    return frame


def pooled(formula: str, frame: pd.DataFrame, family: str, link: str, alpha: float = 1.0, **given: Any) -> Any:
    matrices = model_matrix(formula, frame)
    y, x = matrices.lhs.iloc[:, 0].astype(float), matrices.rhs.astype(float)
    made = {
        "binomial": sm.families.Binomial,
        "poisson": sm.families.Poisson,
        "gamma": sm.families.Gamma,
        "gaussian": sm.families.Gaussian,
    }
    with np.errstate(all="ignore"):
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            of = STATSMODELS[link]()
            kind = made[family](of) if family in made else sm.families.NegativeBinomial(of, alpha=alpha)
            fit = sm.GLM(y, x, family=kind, **given).fit(tol=1e-15, tol_criterion="params", maxiter=300)
            return fit, {
                "null_deviance": fit.null_deviance,
                "log_likelihood": fit.llf,
                "aic": fit.aic,
                "bic": fit.bic_llf,
            }


def assert_equal(result: Result, wanted: tuple[Any, dict[str, float]], rel: float = 1e-9) -> None:
    fit, facts = wanted
    shown = result.to_pandas().set_index("name")
    assert list(shown.index) == list(fit.params.index)
    tolerance = rel * np.asarray(fit.bse)
    assert (np.abs(shown["estimate"] - fit.params) <= rel * np.abs(fit.params) + tolerance).all()
    np.testing.assert_allclose(shown["std_error"], fit.bse, rtol=rel)
    np.testing.assert_allclose(shown["p_value"].astype(float), fit.pvalues, rtol=1e-6, atol=1e-12)
    facts = facts | {
        "observations": fit.nobs,
        "residual_df": fit.df_resid,
        "deviance": fit.deviance,
        "pearson_chi2": fit.pearson_chi2,
        "scale": float(fit.scale),
    }
    for name, want in facts.items():
        assert result.facts[name] == pytest.approx(want, rel=rel * 10, abs=1e-9), name


CASES = [(family, link) for family, links in LINKS.items() for link in links]


@pytest.mark.parametrize(
    ("family", "link", "pushed_down"),
    [(*case, False) for case in CASES]
    + [("binomial", "logit", True), ("poisson", "log", True), ("gamma", "inverse", True)]
    + [("negative-binomial", "log", True)],
)
def test_every_family_and_link_equals_statsmodels(
    family: str, link: str, pushed_down: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if pushed_down:
        monkeypatch.setattr(driver, "table_of", remote)
    frame = people(120, 1, family, link)
    formula = "y ~ age + works + C(region)"
    result = federate("glm", split(frame, 2, 1), CODEBOOK, formula=formula, family=family, link=link, alpha=0.7)
    assert_equal(result, pooled(formula, frame, family, link, 0.7))


@pytest.mark.parametrize(
    ("analysis", "options"),
    [
        ("glm", {"family": "binomial"}),
        ("glm", {"family": "poisson", "exposure": "t"}),
        ("glm", {"family": "binomial", "link": "probit"}),
        ("ols", {"weight": "w", "robust": "HC1"}),
    ],
)
def test_postgresql_gives_what_the_embedded_engine_gives(
    analysis: str, options: dict[str, Any], postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = people(80, 13, options.get("family", "gaussian"), _usual(options))
    frame.loc[3, "age"] = None
    formula = "y ~ age + C(region) + log1p(t) + I(w**0.5):works"
    wanted = federate(analysis, [frame, frame.iloc[:0]], CODEBOOK, formula=formula, **options)
    kinds = {"age": "integer", "year": "integer", "works": "boolean", "region": "text", "vote": "text"}
    types = {name: kinds.get(name, "double precision") for name in COLUMNS}
    with ExitStack() as stack:

        def stored(holder: pd.DataFrame, codebook: Codebook) -> Table:
            name = f"holder_{len(holder)}"
            postgres.load(name, types, holder)
            return open_table(stack.enter_context(connect(postgres.url(name), tmp_path)), codebook)

        monkeypatch.setattr(driver, "table_of", stored)
        found = federate(analysis, [frame, frame.iloc[:0]], CODEBOOK, formula=formula, **options)
    for key in ("estimate", "std_error"):
        np.testing.assert_allclose(found.to_pandas()[key], wanted.to_pandas()[key], rtol=1e-9)


def _usual(options: dict[str, Any]) -> str:
    return str(options.get("link") or LINKS[options.get("family", "gaussian")][0])


def remote(frame: pd.DataFrame, codebook: Codebook) -> Table:
    return replace(table_of(frame, codebook), embedded=False)


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 1000),
    holders=st.integers(1, 3),
    family=st.sampled_from([("binomial", "logit"), ("poisson", "log"), ("gamma", "log")]),
    formula=st.sampled_from(["y ~ age + C(region)", "y ~ 0 + C(region) + year", "y ~ 0 + works + t", "y ~ age*works"]),
)
def test_equals_pooled_however_split(seed: int, holders: int, family: tuple[str, str], formula: str) -> None:
    frame = people(120, seed, *family)
    frame["age"] = frame["age"].astype(object).where(np.random.default_rng(seed).random(120) < 0.9)
    result = federate("glm", split(frame, holders, seed), CODEBOOK, formula=formula, family=family[0], link=family[1])
    complete = frame.dropna(subset=["age"]) if "age" in formula else frame
    assert_equal(result, pooled(formula, complete.astype({"age": float}), *family), 2e-9)


@pytest.mark.parametrize(
    ("family", "link", "formula"),
    [
        ("poisson", "log", "y ~ 0 + age + works"),
        ("binomial", "logit", "y ~ age + works"),
        ("gamma", "log", "y ~ age + works"),
    ],
)
def test_weights_offset_and_exposure_equal_statsmodels(family: str, link: str, formula: str) -> None:
    frame = people(120, 2, family, link)
    frames = split(frame, 2, 2)
    result = federate("glm", frames, CODEBOOK, formula=formula, family=family, link=link, weight="w")
    assert_equal(result, pooled(formula, frame, family, link, freq_weights=frame["w"]))
    result = federate("glm", frames, CODEBOOK, formula=formula, family=family, link=link, offset="t")
    assert_equal(result, pooled(formula, frame, family, link, offset=frame["t"]))
    if link == "log":
        result = federate("glm", frames, CODEBOOK, formula=formula, family=family, link=link, exposure="t")
        assert_equal(result, pooled(formula, frame, family, link, exposure=frame["t"]))


def test_category_of_two_levels_is_a_binomial_response_with_a_note() -> None:
    frame = people(100, 3, "binomial", "logit")
    result = federate("glm", split(frame, 2), CODEBOOK, formula="vote ~ age")
    assert_equal(result, pooled("y ~ age", frame, "binomial", "logit"))
    assert "vote: yes counts as 1, no as 0" in result.notes


@pytest.mark.parametrize(("link", "kind"), [("logit", "perfect"), ("logit", "quasi"), ("probit", "quasi")])
def test_separation_is_refused_and_named(link: str, kind: str) -> None:
    frame = people(100, 4, "binomial", "logit")
    if kind == "perfect":
        frame["y"] = (frame["age"] > 50).astype(float)
    else:
        frame["y"] = frame["y"].where(frame["region"] != "west", 1.0)
    with pytest.raises(UsageError, match=r"separation: .* along .*(age|west)"):
        federate("glm", split(frame, 2), CODEBOOK, formula="y ~ age + C(region)", link=link)


@pytest.mark.parametrize("family", ["poisson", "negative-binomial"])
def test_a_group_with_counts_of_zero_only_is_separation(family: str) -> None:
    frame = people(100, 5, family, "log")
    frame["y"] = frame["y"].where(frame["region"] != "south", 0.0)
    with pytest.raises(UsageError, match=r"separation: .*south"):
        federate("glm", split(frame, 2), CODEBOOK, formula="y ~ age + C(region)", family=family)


def test_rare_but_overlapping_responses_are_not_taken_for_separation() -> None:
    n = 3000
    frame = people(n, 6, "poisson", "log")
    frame["y"] = np.where(frame["region"] == "south", 0.0, frame["y"] * 200)
    frame.loc[frame.index[frame["region"] == "south"][0], "y"] = 1.0
    result = federate("glm", split(frame, 2), CODEBOOK, formula="y ~ C(region)", family="poisson")
    assert_equal(result, pooled("y ~ C(region)", frame, "poisson", "log"))


def test_unreachable_convergence_says_so_with_the_iterations() -> None:
    frame = people(100, 7, "binomial", "logit")
    with pytest.raises(UsageError, match=r"(?s)1 iterations were not enough.*1: deviance"):
        federate("glm", split(frame, 2), CODEBOOK, formula="y ~ age", max_iterations=1)


@pytest.mark.parametrize(
    ("family", "value", "message"),
    [
        ("binomial", 2.0, "want 0 or 1"),
        ("binomial", 0.5, "want 0 or 1"),
        ("poisson", -1.0, "want 0 or more"),
        ("negative-binomial", -1.0, "want 0 or more"),
        ("gamma", 0.0, "want above 0"),
    ],
)
def test_responses_outside_the_family_are_refused_without_saying_where(family: str, value: float, message: str) -> None:
    frame = people(50, 8, family, LINKS[family][0])
    frame.loc[7, "y"] = value
    with pytest.raises(UsageError, match=message):
        federate("glm", split(frame, 2), CODEBOOK, formula="y ~ age", family=family)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "y ~ age", "family": "poisson", "link": "logit"}, "link: got logit for poisson"),
        ({"formula": "y ~ age", "exposure": "t"}, "without the log link"),
        ({"formula": "y ~ age", "offset": "region"}, "offset: region"),
        ({"formula": "y ~ age", "weight": "works"}, "weight: works"),
        ({"formula": "region ~ age"}, "4 categories"),
        ({"formula": "vote ~ age", "family": "poisson"}, "2 categories"),
        ({"formula": "y ~ age", "family": "tweedie"}, "family"),
    ],
)
def test_mistakes_are_refused_before_anything_is_sent(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        federate("glm", [people(10, 9, "binomial", "logit")], CODEBOOK, **options)


def test_degenerate_data_are_refused_in_words() -> None:
    frame = people(50, 10, "binomial", "logit")
    with pytest.raises(UsageError, match="response is 1 at every record"):
        federate("glm", [frame.assign(y=1.0)], CODEBOOK, formula="y ~ age")
    with pytest.raises(UsageError, match="collinear"):
        federate("glm", [frame], CODEBOOK, formula="y ~ age + I(2*age)")
    with pytest.raises(UsageError, match="no records"):
        federate("glm", [frame.iloc[:0]], CODEBOOK, formula="y ~ age")
    with pytest.raises(UsageError, match="more records than parameters"):
        federate("glm", [frame.iloc[:2].assign(y=[0.0, 1.0])], CODEBOOK, formula="y ~ age")
    with pytest.raises(UsageError, match="weight: got records with 0 or less"):
        federate("glm", [frame.assign(w=0.0)], CODEBOOK, formula="y ~ age", weight="w")


def test_order_of_holders_does_not_matter() -> None:
    frames = split(people(90, 11, "poisson", "log"), 4)
    a = federate("glm", frames, CODEBOOK, formula="y ~ age + C(region)", family="poisson")
    b = federate("glm", frames[::-1], CODEBOOK, formula="y ~ age + C(region)", family="poisson")
    assert a.to_dict() == b.to_dict()


def test_gaussian_identity_is_ols() -> None:
    frame = people(80, 12, "gaussian", "identity")
    a = federate("glm", split(frame, 2), CODEBOOK, formula="y ~ age + year", family="gaussian").to_pandas()
    b = federate("ols", split(frame, 2), CODEBOOK, formula="y ~ age + year").to_pandas()
    np.testing.assert_allclose(a["estimate"], b["estimate"], rtol=1e-8)
    np.testing.assert_allclose(a["std_error"], b["std_error"], rtol=1e-9)


def test_log_gamma_of_a_database_has_thirteen_digits() -> None:
    x = np.concatenate([[1e-3, 0.5, 1, 1.5, 2, 3, 7, 20], np.geomspace(30, 1e6, 20)])
    table = table_of(pd.DataFrame({"y": x}), codebook_of({"y": "number"}))
    found = np.concatenate(list(table.batches([_lgamma(table.number("y"))])))[:, 0]
    np.testing.assert_allclose(found, special.gammaln(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("family", "link"), CASES)
def test_score_and_information_are_derivatives_of_the_deviance(family: str, link: str) -> None:
    kind = Family(family, link, 0.7)
    y, eta, f = (
        np.array([1.0, 1.0]),
        np.array([-0.4, -0.3]) if link in ("log", "probit") else np.array([0.3, 0.6]),
        np.ones(2),
    )
    h = 1e-5
    up, down = kind.weights(y, eta + h, f), kind.weights(y, eta - h, f)
    np.testing.assert_allclose(kind.weights(y, eta, f).score, -(up.deviance - down.deviance) / (4 * h), rtol=1e-6)


def _covariate(values: np.ndarray[Any, Any], high: float) -> tuple[pd.DataFrame, Codebook]:
    rng = np.random.default_rng(3)
    z = (values - values.mean()) / values.std()
    frame = pd.DataFrame({"x": values, "y": rng.poisson(np.exp(0.3 + 0.5 * z)).astype(float)})
    ends = {"x": {"type": "number", "low": 0, "high": high}, "y": {"type": "number", "low": 0, "high": 1e4}}
    return frame, make_codebook({"columns": ends})


@pytest.mark.parametrize(("centre", "spread"), [(202_012.0, 300.0), (1e8, 1.0), (1e8, 1e3), (1.7e9, 1e6)])
def test_a_covariate_far_from_zero_equals_statsmodels_on_the_standardised_one(centre: float, spread: float) -> None:
    frame, codebook = _covariate(centre + spread * np.random.default_rng(1).normal(size=400), 3e9)
    x, scale = frame.x.to_numpy(), frame.x.std(ddof=0)
    want = sm.GLM(frame.y, sm.add_constant((x - x.mean()) / scale), family=sm.families.Poisson()).fit(tol=1e-12)
    result = federate("glm", split(frame, 2, 1), codebook, formula="y ~ x", family="poisson")
    row: dict[str, Any] = dict(result.tables["coefficients"][1])
    assert row["estimate"] * scale == pytest.approx(want.params.iloc[1], rel=1e-9)
    assert row["std_error"] * scale == pytest.approx(want.bse.iloc[1], rel=1e-7)
    assert result.facts["deviance"] == pytest.approx(want.deviance, rel=1e-12)


@pytest.mark.parametrize("method", ["glm", "ols"])
def test_a_covariate_whose_squares_float64_does_not_hold_is_refused(method: str) -> None:
    """Its standard error was infinite."""
    frame, codebook = _covariate(1e-160 * np.random.default_rng(1).uniform(1, 2, 50), 1.0)
    with pytest.raises(UsageError, match="x: values whose squares float64 does not hold"):
        federate(
            method, split(frame, 2, 1), codebook, formula="y ~ x", **({"family": "poisson"} if method == "glm" else {})
        )
