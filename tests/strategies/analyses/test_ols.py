"""`ols` against statsmodels on the pooled data, and against textbook linearisation for survey designs."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from formulaic import model_matrix
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.errors import UsageError
from statfed.core.result import Result
from tests.federate import codebook_of, federate, split

pytestmark = pytest.mark.filterwarnings("ignore:fetch_record_batch:DeprecationWarning")

COLUMNS: dict[str, Any] = {
    "y": "number",
    "income": ("number", 1, 1e9),
    "year": ("integer", 1900, 2100),
    "age": ("integer", 0, 120),
    "works": "boolean",
    "region": ["north", "south", "west", "moon"],
    "sex": ["f", "m"],
    "w": ("number", 0, 100),
}
CODEBOOK = codebook_of(COLUMNS)


def people(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "income": rng.normal(1e6, 2e4, n),
            "year": rng.integers(2018, 2027, n),
            "age": rng.integers(18, 90, n),
            "works": rng.random(n) < 0.6,
            "region": rng.choice(["north", "south", "west"], n),
            "sex": rng.choice(["f", "m"], n),
            "w": rng.uniform(0.5, 9, n),
        }
    )
    frame["y"] = 3 + 1e-5 * frame["income"] + 0.2 * (frame["year"] - 2000) + frame["works"] + rng.normal(0, 1, n)
    frame["y"] += (frame["region"] == "west") * 0.7
    return frame


def pooled(formula: str, frame: pd.DataFrame, weight: str | None = None, robust: str = "none") -> Any:
    frame = frame.dropna()
    matrices = model_matrix(formula, frame, context={"np": np})
    y, x = matrices.lhs.iloc[:, 0].astype(float), matrices.rhs.astype(float)
    model: Any = sm.OLS(y, x) if weight is None else sm.WLS(y, x, weights=frame[weight].to_numpy())
    return model.fit() if robust == "none" else model.fit(cov_type=robust, use_t=True)


def assert_equal(result: Result, fit: Any, rel: float = 1e-9) -> None:
    shown = result.to_pandas().set_index("name")
    assert list(shown.index) == list(fit.params.index)
    assert (np.abs(shown["estimate"] - fit.params) <= rel * (np.abs(fit.params) + fit.bse)).all()
    np.testing.assert_allclose(shown["std_error"], fit.bse, rtol=rel)
    np.testing.assert_allclose(shown["t"], fit.tvalues, rtol=rel, atol=rel)
    np.testing.assert_allclose(shown["p_value"].astype(float), fit.pvalues, rtol=1e-6, atol=1e-300)
    facts = {
        "observations": fit.nobs,
        "residual_df": fit.df_resid,
        "r_squared": fit.rsquared,
        "adj_r_squared": fit.rsquared_adj,
        "sigma": np.sqrt(fit.scale),
        "log_likelihood": fit.llf,
        "aic": fit.aic,
        "bic": fit.bic,
    }
    if fit.df_model > 0 and np.linalg.cond(fit.cov_params()) < 1e14:  # beyond, the reference drops a constraint
        facts |= {"f_statistic": float(np.squeeze(fit.fvalue))}
        if np.isnan(facts["f_statistic"]):  # robust and the constant only implied: no F test there either
            assert result.facts["f_statistic"] is None
            del facts["f_statistic"]
        else:
            assert result.facts["f_p_value"] == pytest.approx(float(fit.f_pvalue), rel=1e-6, abs=1e-300)
    for name, want in facts.items():
        assert result.facts[name] == pytest.approx(want, rel=rel), name
    assert result.facts["condition_number"] == pytest.approx(fit.condition_number, rel=1e-6)


FORMULAS = [
    "y ~ age + works + C(region)",
    "y ~ income + year",
    "y ~ income * C(sex) + year:C(region)",
    "y ~ 0 + C(region) + year",
    "y ~ 0 + age + works",
    "y ~ year + I(year**2)",
    "y ~ 1",
    "np.log(income) ~ C(sex, Treatment('m')) * age",
]


@settings(max_examples=4, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    holders=st.integers(1, 5),
    formula=st.sampled_from([f for f in FORMULAS if "**2" not in f]),
    weight=st.sampled_from([None, "w"]),
    robust=st.sampled_from(["none", "HC0", "HC1"]),
)
def test_equals_pooled_statsmodels_however_the_records_are_split(
    seed: int, holders: int, formula: str, weight: str | None, robust: str
) -> None:
    frame = people(80, seed)
    rng = np.random.default_rng(seed)
    for name in ("age", "y"):
        frame[name] = frame[name].astype(object).where(rng.random(len(frame)) < 0.9)
    result = federate("ols", split(frame, holders, seed), CODEBOOK, formula=formula, weight=weight, robust=robust)
    kept = [c for c in ("y", "income", "year", "age", "works", "region", "sex", "w") if c in formula or c == weight]
    complete = frame.dropna(subset=kept).astype({"age": float, "y": float}, errors="ignore")
    assert_equal(result, pooled(formula, complete[[*kept]], weight, robust), 2e-9)


@pytest.mark.parametrize("formula", FORMULAS)
def test_every_formula_equals_statsmodels(formula: str) -> None:
    frame = people(60, 1)
    result = federate("ols", split(frame, 3, 1), CODEBOOK, formula=formula)
    assert_equal(result, pooled(formula, frame))


@pytest.mark.parametrize("robust", ["none", "HC0"])
def test_a_quadratic_keeps_digits_that_the_raw_columns_would_lose(robust: str) -> None:
    frame = people(80, 0)
    result = federate("ols", split(frame, 3), CODEBOOK, formula="y ~ year + I(year**2)", robust=robust)
    centred = pooled("y ~ year + I(year**2)", frame.assign(year=frame["year"] - 2022), robust=robust)
    shown = result.to_pandas().iloc[2]
    assert shown["estimate"] == pytest.approx(centred.params.iloc[2], rel=1e-9)
    assert shown["std_error"] == pytest.approx(centred.bse.iloc[2], rel=1e-9)


def test_nearly_exact_fit_keeps_the_digits_of_its_residuals() -> None:
    frame = people(60, 2)
    frame["y"] = 1e6 + 3 * frame["age"] + np.random.default_rng(0).normal(0, 1e-3, 60)
    shown = federate("ols", split(frame, 3, 2), CODEBOOK, formula="y ~ age + year").to_pandas().set_index("name")
    centred = frame[["age", "year"]] - frame[["age", "year"]].mean()
    reference = sm.OLS(frame["y"] - frame["y"].mean(), centred).fit()
    np.testing.assert_allclose(shown["estimate"][["age", "year"]], reference.params, rtol=1e-9)
    np.testing.assert_allclose(shown["std_error"][["age", "year"]], reference.bse * np.sqrt(58 / 57), rtol=1e-9)


def test_a_level_without_records_is_left_out_with_a_note_like_pooled() -> None:
    frame = people(60, 3)
    result = federate("ols", split(frame, 3, 3), CODEBOOK, formula="y ~ C(region)")
    assert_equal(result, pooled("y ~ C(region)", frame))
    assert "region: no records at moon; left out" in result.notes
    frame = frame[frame["region"] != "north"].reset_index(drop=True)
    result = federate("ols", split(frame, 3, 3), CODEBOOK, formula="y ~ C(region) + age")
    assert [row["name"] for row in result.tables["coefficients"]] == ["Intercept", "C(region)[T.west]", "age"]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("y ~ age + I(2*age - 3)", r"collinear: I\(2 \* age - 3\) is a combination of Intercept, age "),
        ("y ~ year + age + {year - age}", "collinear: year - age is a combination of year, age "),
        ("y ~ I(year - year)", "is 0 at every record"),
        ("y ~ age + same", "collinear: same is a combination of Intercept "),
        ("y ~ works + C(sex) + C(region) + twin", "collinear: twin is a combination of"),
    ],
)
def test_exact_collinearity_is_refused_naming_the_columns(formula: str, message: str) -> None:
    frame = people(90, 4)
    frame["same"], frame["twin"] = 7.3, frame["works"].astype(float) + (frame["sex"] == "m")
    codebook = codebook_of(COLUMNS | {"same": "number", "twin": "number"})
    with pytest.raises(UsageError, match=message):
        federate("ols", split(frame, 3, 4), codebook, formula=formula)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("unit", [1e-140, 1e-90, 1e15, 1e90, 1e140])
def test_a_fit_does_not_depend_on_the_unit_of_its_columns_and_warns_of_nothing(unit: float) -> None:
    rng = np.random.default_rng(1)
    x, e = rng.normal(size=60), rng.normal(size=60)
    frame = pd.DataFrame({"x": unit * x, "y": unit * (3 + x + e)})
    result = federate("ols", split(frame, 2), codebook_of({"x": "number", "y": "number"}), formula="y ~ x")
    fit = sm.OLS(3 + x + e, sm.add_constant(x)).fit()
    shown = result.to_pandas()
    np.testing.assert_allclose(shown["estimate"] / [unit, 1], fit.params, rtol=1e-9)
    np.testing.assert_allclose(shown["std_error"] / [unit, 1], fit.bse, rtol=1e-9)
    assert result.facts["r_squared"] == pytest.approx(fit.rsquared, rel=1e-9)
    assert result.facts["f_statistic"] == pytest.approx(fit.fvalue, rel=1e-9)


@pytest.mark.parametrize(("level", "spread"), [(1e12, 1), (1e9, 1e-3), (1e12, 1e-3)])
def test_a_small_spread_at_a_large_level_is_fitted_or_said_to_be_small_but_is_not_called_collinear(
    level: float, spread: float
) -> None:
    rng = np.random.default_rng(1)
    x = level + spread * rng.normal(size=60)
    frame = pd.DataFrame({"x": x, "y": (x - level) / spread + rng.normal(size=60)})
    frames, codebook = split(frame, 2), codebook_of({"x": "number", "y": "number"})
    if spread / level < 1e-14:
        with pytest.raises(UsageError, match=r"x: spread too small beside its level .* want a constant subtracted"):
            federate("ols", frames, codebook, formula="y ~ x")
        return
    fit = sm.OLS(frame["y"], sm.add_constant(x - level)).fit()
    shown = federate("ols", frames, codebook, formula="y ~ x").to_pandas()
    assert shown["estimate"].iloc[1] == pytest.approx(fit.params.iloc[1], rel=1e-9)
    assert shown["std_error"].iloc[1] == pytest.approx(fit.bse.iloc[1], rel=1e-9)


def test_the_verdict_and_numbers_do_not_depend_on_the_order_of_holders() -> None:
    frames = split(people(50, 5), 4, 5)
    a = federate("ols", frames, CODEBOOK, formula="y ~ income + C(region)")
    b = federate("ols", frames[::-1], CODEBOOK, formula="y ~ income + C(region)")
    assert a.to_dict() == b.to_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formula": "y ~ nothing"}, "'nothing'"),
        ({"formula": "y ~ age", "weight": "sex"}, "weight: sex"),
        ({"formula": "y ~ age", "robust": "HC7"}, "robust"),
        ({"formula": "y ~ age", "design": True}, "without roles"),
        ({"formula": "sex ~ age"}, "2 categories"),
    ],
)
def test_mistakes_are_refused_before_anything_is_sent(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        federate("ols", [people(10)], CODEBOOK, **options)


def test_too_few_records_none_and_bad_weights_are_refused() -> None:
    frame = people(4, 6)
    with pytest.raises(UsageError, match="4 complete records for 4 parameters"):
        federate("ols", split(frame, 2), CODEBOOK, formula="y ~ age + year + works")
    with pytest.raises(UsageError, match="no records that are complete"):
        federate("ols", [frame.iloc[:0], frame.assign(y=None)], CODEBOOK, formula="y ~ age")
    with pytest.raises(UsageError, match="0 or less"):
        federate("ols", [people(30).assign(w=0.0), frame], CODEBOOK, formula="y ~ age", weight="w")
    with pytest.raises(UsageError, match="no finite value"):
        federate("ols", [people(30).assign(y=-1.0), frame], CODEBOOK, formula="log(y) ~ age")


def test_constant_response_and_exact_fit_give_nulls_not_nan() -> None:
    frame = people(30, 7).assign(y=2.0)
    facts = federate("ols", split(frame, 2), CODEBOOK, formula="y ~ age").facts
    assert facts["r_squared"] is None
    assert facts["log_likelihood"] is None
    assert facts["f_statistic"] is None


def survey(n: int, seed: int, spans: bool) -> tuple[pd.DataFrame, Any]:
    frame = people(n, seed)
    rng = np.random.default_rng(seed)
    frame["h"] = rng.choice(["1", "2", "3"], n)
    frame["k"] = frame["h"] + "-" + rng.integers(0, 6, n).astype(str)
    codes = [f"{h}-{k}" for h in "123" for k in range(6)]
    psu = {"type": "category", "categories": codes, "role": "psu"} if spans else {"type": "id", "role": "psu"}
    columns = COLUMNS | {
        "w": {"type": "number", "role": "weight"},
        "h": {"type": "category", "categories": ["1", "2", "3"], "role": "stratum"},
        "k": psu,
    }
    return frame, codebook_of(columns, design={"psu_spans_holders": spans})


@pytest.mark.parametrize("spans", [False, True])
def test_design_based_errors_are_the_linearised_ones_of_the_pooled_sample(spans: bool) -> None:
    frame, codebook = survey(150, 8, spans)
    frame.loc[5, "y"] = None
    psu_of = frame["k"].str[-1].astype(int) + 6 * frame["h"].astype(int)
    frames = split(frame, 3, 8) if spans else [frame[psu_of % 3 == i].reset_index(drop=True) for i in range(3)]
    result = federate("ols", frames, codebook, formula="y ~ age + C(sex)", design=True)
    complete = frame.dropna()
    x = model_matrix("y ~ age + C(sex)", complete).rhs.to_numpy(dtype=float)
    y, w = complete["y"].to_numpy(dtype=float), complete["w"].to_numpy()
    bread = np.linalg.inv(x.T @ (x * w[:, None]))
    beta = bread @ (x.T @ (w * y))
    scores = (
        pd.DataFrame(x * (w * (y - x @ beta))[:, None])
        .groupby([complete["h"].to_numpy(), complete["k"].to_numpy()])
        .sum()
    )
    meat = np.zeros((3, 3))
    for _, stratum in scores.groupby(level=0):
        u = stratum.to_numpy() - stratum.to_numpy().mean(axis=0)
        meat += len(u) / (len(u) - 1) * u.T @ u
    shown = result.to_pandas()
    np.testing.assert_allclose(shown["estimate"], beta, rtol=1e-9)
    np.testing.assert_allclose(shown["std_error"], np.sqrt(np.diag(bread @ meat @ bread)), rtol=1e-9)
    assert result.df == len(scores) - 3 - 2


def test_a_stratum_with_one_psu_is_refused_unless_the_codebook_says_what_to_do() -> None:
    frame, codebook = survey(60, 9, False)
    frame["k"] = frame["k"].where(frame["h"] != "2", "2-0")
    with pytest.raises(UsageError, match="single PSU"):
        federate("ols", [frame], codebook, formula="y ~ age", design=True)


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("method", ["ols", "glm"])
def test_an_interaction_of_levels_that_nobody_has_together_is_left_out(method: str, reference: bool) -> None:
    frame = people(200, 4)
    sexes, regions = sorted(frame["sex"].dropna().unique()), sorted(frame["region"].dropna().unique())
    empty = (frame["sex"] == sexes[0 if reference else 1]) & (frame["region"] == regions[0 if reference else -1])
    frame = frame[~empty].dropna(subset=["y", "sex", "region", "age"])
    more = {"family": "gaussian"} if method == "glm" else {"robust": "HC0"}
    result = federate(method, split(frame, 2), CODEBOOK, formula="y ~ age + C(sex)*C(region)", **more)
    assert any("left out, determined by the other columns" in note for note in result.notes)
    x = model_matrix("age + C(sex)*C(region)", frame)
    shown = result.to_pandas()
    x = x[list(shown["name"])].to_numpy(dtype=float)
    assert np.linalg.matrix_rank(x) == x.shape[1] == 6
    fit = sm.OLS(frame["y"].to_numpy(dtype=float), x).fit(cov_type="HC0" if method == "ols" else "nonrobust")
    np.testing.assert_allclose(shown["estimate"], fit.params, rtol=1e-7)
    np.testing.assert_allclose(shown["std_error"], fit.bse, rtol=1e-7)
