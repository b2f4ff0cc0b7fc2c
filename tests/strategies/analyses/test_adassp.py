"""Private OLS (AdaSSP): against statsmodels where noise vanishes, and its intervals over repeated draws."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from formulaic import model_matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Part, Question, Total, checked, read_question, summed
from statfed.core.privacy import noise
from statfed.core.randomness import stream
from statfed.core.result import Result
from statfed.core.terms import Terms
from statfed.strategies.analyses import _adassp, ols
from statfed.strategies.analyses._matrix import Design, make_design
from tests.federate import codebook_of, split, table_of

pytestmark = pytest.mark.filterwarnings("ignore:fetch_record_batch:DeprecationWarning")

CODEBOOK = codebook_of(
    {"y": ("number", -50, 150), "age": ("integer", 20, 70), "x": ("number", -3, 3), "region": ["n", "s", "w"]}
)
FORMULA = "y ~ age + x + C(region)"


def data(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": rng.integers(20, 71, n),
            "x": rng.normal(size=n).clip(-3, 3),
            "region": rng.choice(["n", "s", "w"], n, p=[0.5, 0.3, 0.2]),
        }
    )
    effect = 5 + 0.8 * frame["age"] - 4 * frame["x"] + frame["region"].map({"n": 0.0, "s": 6.0, "w": -3.0})
    frame["y"] = (effect + rng.normal(scale=10, size=n)).clip(-50, 150)
    return frame


def pooled_fit(formula: str, frame: pd.DataFrame) -> Any:
    response, columns = model_matrix(formula, frame.dropna())
    return sm.OLS(response.iloc[:, 0], columns).fit()


def question_of(
    formula: str = FORMULA, epsilon: float = 1.0, codebook: Codebook = CODEBOOK, holders: int = 3, **options: Any
) -> Question[Any]:
    query = Terms.model_validate(
        {
            "method": "ols",
            "options": {"formula": formula} | options,
            "codebook": codebook,
            "holders": [f"h{i}" for i in range(holders)],
            "seed": 1,
            "privacy": {"epsilon": epsilon, "delta": 1e-6},
        }
    )
    return read_question(query)[1]


def contributions(question: Question[Any], frames: list[pd.DataFrame]) -> tuple[Mapping[str, Part], dict[str, Arrays]]:
    parts = ols.parts(question, Ask("adassp"))
    tables = {f"h{i}": table_of(frame, question.codebook) for i, frame in enumerate(frames)}
    sent: dict[str, Arrays] = {
        name: checked(ols.contribute(table, question, Ask("adassp")), parts, name) for name, table in tables.items()
    }
    return parts, sent


def estimated(question: Question[Any], total: Total) -> Result:
    run = ols.coordinate(question)
    assert next(run).name == "adassp"
    with pytest.raises(StopIteration) as end:
        run.send(total)
    result: Result = end.value.value
    return result


@settings(max_examples=6, deadline=None)
@given(
    seed=st.integers(0, 1000), formula=st.sampled_from([FORMULA, "y ~ 0 + C(region) + x", "y ~ age:x + C(region):x"])
)
def test_without_noise_it_is_ols_of_the_pooled_data(seed: int, formula: str) -> None:
    frame = data(300, seed)
    frame.loc[:20, "x"] = np.nan
    question = question_of(formula)
    parts, sent = contributions(question, [*split(frame, 2, seed), frame.iloc[:0]])
    result = estimated(question, Total(summed(sent, parts))).to_pandas().set_index("name")
    pooled = pooled_fit(formula, frame)
    assert list(result.index) == list(pooled.params.index)
    np.testing.assert_allclose(result["estimate"], pooled.params, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(result["std_error"], pooled.bse, rtol=1e-7)


def test_with_much_budget_and_many_records_it_is_nearly_ols() -> None:
    frame = data(4000, 1)
    question = question_of(epsilon=200.0)
    parts, sent = contributions(question, split(frame, 3, 1))
    result = estimated(question, released(question, parts, summed_of(sent), 3, 0))
    shown, pooled = result.to_pandas().set_index("name"), pooled_fit(FORMULA, frame)
    assert not any("withheld" in note for note in result.notes)
    assert (np.abs(shown["estimate"] - pooled.params) < 0.5 * pooled.bse).all()
    assert abs(float(result.facts["r_squared"] or 0) - pooled.rsquared) < 0.02
    assert float(result.facts["sigma"] or 0) == pytest.approx(np.sqrt(pooled.scale), rel=0.05)


def summed_of(sent: Mapping[str, Arrays]) -> list[Arrays]:
    return [sent[name] for name in sorted(sent)]


def released(
    question: Question[Any], parts: Mapping[str, Part], sent: Sequence[Arrays], holders: int, draw: int
) -> Total:
    assert question.privacy is not None
    made = noise.plan(parts, question.privacy)
    noisy = {f"h{i}": made.add(arrays, stream(draw, "holder", i)) for i, arrays in enumerate(sent)}
    return Total(summed(noisy, parts), made.std(holders))


def reference(frame: pd.DataFrame, design: Design) -> dict[str, Any]:
    """The contribution computed from the model matrix by itself."""
    columns = pd.DataFrame({"Intercept": 1.0, "age": frame["age"], "x": frame["x"]})
    for code in ("s", "w"):
        columns[f"C(region)[T.{code}]"] = (frame["region"] == code).astype(float)
    z = np.column_stack([columns[list(design.names)], frame["y"]])
    layout = _adassp._layout(design)
    z = (z - layout.center) / layout.scale
    moments = z.T @ z
    return {"records": np.array(len(frame)), "products": moments[layout.pairs[:, 0], layout.pairs[:, 1]]}


def test_intervals_hold_the_truth_as_often_as_they_say_over_samples_and_noise() -> None:
    """200 samples of 3,000, each with its own noise at epsilon 3, which makes errors three to five times larger.

    Nominal 95 %; the band allows for chance (99.9 % of binomial outcomes, per coefficient) and for one and a half
    per cent of bias that the delta method leaves.
    """
    question = question_of(epsilon=3.0, holders=2)
    design = make_design(FORMULA, CODEBOOK)
    parts = ols.parts(question, Ask("adassp"))
    truth = dict(zip(["Intercept", "age", "x", "C(region)[T.s]", "C(region)[T.w]"], [5, 0.8, -4, 6, -3], strict=True))
    hits, wider = pd.Series(0, index=list(truth)), []
    for draw in range(200):
        frame = data(3000, 10_000 + draw)
        if draw == 0:
            _, sent = contributions(question, [frame, frame.iloc[:7]])
            for arrays, own in zip(summed_of(sent), [frame, frame.iloc[:7]], strict=True):
                np.testing.assert_allclose(arrays["products"], reference(own, design)["products"], rtol=1e-9, atol=1e-9)
        halves = [reference(half, design) for half in (frame.iloc[:1000], frame.iloc[1000:])]
        total = released(question, parts, halves, 2, draw)
        result = estimated(question, total)
        limits = result.conf_int().set_index("name")
        true = pd.Series(truth)
        hits += ((limits["lower"] <= true) & (true <= limits["upper"])).astype(int)
        exact = estimated(question, Total(total))
        wider.append(result.to_pandas()["std_error"] / exact.to_pandas()["std_error"])
    assert np.mean(wider) > 2  # noise matters here: an interval without it would miss
    low, high = float(stats.binom.ppf(0.0005, 200, 0.935)), float(stats.binom.ppf(0.9995, 200, 0.965))
    assert all(low <= found <= high for found in hits.tolist()), hits.to_dict()


def simulated(question: Question[Any], where: str, z: Any, draw: int) -> Result:
    """What a study with this noise of four holders says of records z, [columns, response] (n, p + 1)."""
    assert question.privacy is not None
    privacy = question.privacy.model_copy(update={"noise": where})
    std = noise.plan(ols.parts(question, Ask("adassp")), privacy).std(4)
    layout = _adassp._layout(make_design(question.options.formula, question.codebook))
    rng = np.random.default_rng([draw, 1])
    scaled = (z - layout.center) / layout.scale
    products = (scaled.T @ scaled)[layout.pairs[:, 0], layout.pairs[:, 1]]
    products = products + rng.normal(size=len(products)) * std["products"]
    records = len(z) + int(np.rint(rng.normal() * float(std["records"])))
    return estimated(question, Total({"records": np.array(records), "products": products}, std))


@pytest.mark.parametrize("where", ["central", "local"])
def test_a_rare_level_leaves_the_other_coefficients_as_they_are(where: str) -> None:
    """A ridge in all directions, as large as the rarest level needs, took a sixth of the slope of x.

    5,000 records of four holders at epsilon 1, one level with 1 %: 100 samples and releases, with bounds of chance for
    the mean (3.5 standard errors and a sixth of that of one estimate) and for the coverage. Where the level is withheld
    its records count with the first one, which moves the intercept by .03.
    """
    question = question_of("y ~ x + C(region)", holders=4)
    truth, found = np.array([40.0, 8.0, 6.0, -3.0]), []
    for draw in range(100):
        rng = np.random.default_rng(draw)
        region = rng.choice(3, 5000, p=[0.6, 0.39, 0.01])
        x = np.column_stack([np.ones(5000), rng.normal(size=5000).clip(-3, 3), region == 1, region == 2])
        z = np.column_stack([x, x @ truth + rng.normal(scale=10, size=5000)])
        rows = simulated(question, where, z, draw).to_pandas()
        found.append(rows[["estimate", "std_error"]].to_numpy(float))
    estimates, errors = np.moveaxis(np.array(found), 2, 0)
    common = slice(0, 3)
    assert np.isfinite(estimates[:, common]).all()
    assert np.isnan(estimates[:, 3]).any()  # the noise does not always support it
    bias, typical = (estimates.mean(axis=0) - truth)[common], np.median(errors, axis=0)[common]
    assert (np.abs(bias) < 3.5 * estimates.std(axis=0)[common] / np.sqrt(100) + typical / 6).all()
    assert abs(bias[1]) < 0.08 * truth[1]
    missed = (np.abs(estimates - truth) > 1.96 * errors).sum(axis=0)
    assert missed.max() <= stats.binom.ppf(0.9995, 100, 0.07)


@pytest.mark.parametrize("wider", [3.0, 10.0])
def test_a_column_with_bounds_too_wide_is_withheld_and_not_shown_near_zero(wider: float) -> None:
    """A floor for eigenvalues gave a slope of .17 with a standard error of .2 where 1.2 is true, ten times too wide.

    What is shown beside a withheld slope is of the regression without it.
    """
    low, high = -4 * wider, 4 * wider
    book = codebook_of({"y": ("number", -8, 8), "x": ("number", low, high), "region": ["n", "s"]})
    question = question_of("y ~ x + C(region)", codebook=book, holders=4)
    wrong, withheld = 0, 0
    for draw in range(60):
        rng = np.random.default_rng(draw)
        region = rng.random(5000) < 0.4
        x = rng.normal(size=5000) + region
        z = np.column_stack([np.ones(5000), x, region, 1 + 1.2 * x - 0.5 * region + rng.normal(size=5000)])
        result = simulated(question, "central", z, draw)
        limits = result.conf_int()
        slope, group = limits.iloc[1], limits.iloc[2]
        absent = bool(np.isnan(slope["lower"]))
        withheld += absent
        truth = (1.2, 0.7 if absent else -0.5)
        if absent:
            assert any(note.startswith("withheld: x:") for note in result.notes)
            wrong += not group["lower"] <= truth[1] <= group["upper"]
        else:
            wrong += not slope["lower"] <= truth[0] <= slope["upper"]
    assert withheld > (50 if wider == 10.0 else 5)
    assert wrong <= stats.binom.ppf(0.9995, 60, 0.06)


def test_levels_of_a_category_cost_nothing() -> None:
    few, many = (
        ols.parts(
            question_of("y ~ x + g", codebook=codebook_of({"y": ("number", 0, 1), "x": ("number", 0, 1), "g": levels})),
            Ask("adassp"),
        )["products"]
        for levels in (["a", "b"], [f"l{i}" for i in range(30)])
    )
    assert few.together == many.together == (8, np.sqrt(8))
    assert many.shape > few.shape


def test_with_hardly_any_data_coefficients_are_withheld_and_the_table_still_has_its_form() -> None:
    question = question_of(epsilon=0.5)
    parts, sent = contributions(question, split(data(60, 3), 3, 3))
    for draw in range(20):
        total = released(question, parts, summed_of(sent), 3, draw)
        if int(total["records"]) <= 5:
            with pytest.raises(UsageError, match="want more records or epsilon"):
                estimated(question, total)
            continue
        result = estimated(question, total)
        assert any(note.startswith("withheld: ") for note in result.notes)
        rows = result.to_pandas()
        assert list(rows["name"]) == ["Intercept", "age", "x", "C(region)[T.s]", "C(region)[T.w]"]
        shown = rows.dropna()
        assert len(shown) < 5
        assert (shown["std_error"].astype(float) > 0).all()
        assert len(result.conf_int()) == 5


def test_residual_variance_does_not_fall_below_its_own_noise() -> None:
    frame = data(200, 5)
    frame["y"] = 10 + frame["age"]
    question = question_of("y ~ age")
    parts, sent = contributions(question, [frame])
    for draw in range(10):
        result = estimated(question, released(question, parts, summed_of(sent), 1, draw))
        assert float(result.facts["sigma"] or 0) > 1


def test_a_category_without_records_and_dependent_columns_do_not_break_a_noisy_fit() -> None:
    frame = data(2000, 4)
    frame["region"] = "n"
    question = question_of("y ~ age + I(2 * age) + C(region)", epsilon=5.0)
    parts, sent = contributions(question, split(frame, 3, 4))
    result = estimated(question, released(question, parts, summed_of(sent), 3, 0))
    rows = result.to_pandas().set_index("name")
    assert rows["estimate"].isna().to_list() == [False, False, True, True, True]
    with pytest.raises(UsageError, match="linearly dependent"):
        estimated(question, Total(summed(sent, parts)))


@settings(max_examples=12, deadline=None)
@given(
    age=st.integers(20, 70),
    x=st.floats(-3, 3),
    y=st.floats(-50, 150),
    region=st.sampled_from(["n", "s", "w"]),
    formula=st.sampled_from([FORMULA, "y ~ 0 + C(region) + x", "y ~ age * x + C(region):x", "y ~ 0 + age + x"]),
)
def test_one_record_changes_no_entry_by_more_than_its_bound(
    age: int, x: float, y: float, region: str, formula: str
) -> None:
    question = question_of(formula)
    record = pd.DataFrame({"age": [age], "x": [x], "y": [y], "region": [region]})
    frame = data(5, age)
    parts, sent = contributions(question, [frame, pd.concat([frame, record]), frame.iloc[:0]])
    for name, part in parts.items():
        change = np.abs(np.asarray(sent["h1"][name]) - np.asarray(sent["h0"][name]))
        assert (change <= np.broadcast_to(part.bound, part.shape) * (1 + 1e-12) + 1e-12).all()
        assert not np.asarray(sent["h2"][name]).any()


def test_what_follows_from_other_entries_is_not_paid_for() -> None:
    parts = ols.parts(question_of(), Ask("adassp"))
    # upper triangle of 6 columns with the response: less n, two indicator squares, one pair of levels
    assert parts["products"].shape == (21 - 1 - 2 - 1,)
    assert np.max(parts["products"].bound) == 1.0


@pytest.mark.parametrize(
    ("formula", "columns", "options", "message"),
    [
        ("y ~ free", {"free": "number"}, {}, "got no bounds for free"),
        ("free ~ x", {"free": "number"}, {}, "got no bounds for free"),
        ("flat ~ x", {"flat": ("number", 2, 2)}, {}, "want an interval"),
        (FORMULA, {}, {"robust": "HC1"}, "without them"),
    ],
)
def test_what_has_no_sensitivity_is_refused_before_anything_is_sent(
    formula: str, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    codebook = codebook_of({name: c.model_dump() for name, c in CODEBOOK.columns.items()} | columns)
    with pytest.raises(UsageError, match=message):
        question_of(formula, codebook=codebook, **options)


@pytest.mark.parametrize(
    "formula",
    ["y ~ x:C(g)", "y ~ z*C(g)", "y ~ x*C(g) + z*C(g)", "y ~ x*z*C(g)", "y ~ log(z)*C(g)", "y ~ 0 + C(g) + C(g):z"],
)
def test_no_record_changes_more_than_together_says_whatever_its_level(formula: str) -> None:
    levels = list("abcdefghijklmnopqrst")  # many: what is not 0 at other levels adds up over them
    codebook = codebook_of({"y": ("number", 0, 1000), "z": ("number", 5, 6), "x": ("number", -3, 10), "g": levels})
    question = question_of(formula, codebook=codebook)
    extremes = [(g, z, y, x) for g in "at" for z in (5.0, 6.0) for y in (0.0, 1000.0) for x in (-3.0, 10.0)]
    frames = [pd.DataFrame([one], columns=["g", "z", "y", "x"]) for one in extremes]
    parts, sent = contributions(question, frames)
    part = parts["products"]
    assert part.together is not None
    for one in sent.values():
        changed = np.abs(one["products"]) / part.bound
        norms = changed.sum(), np.sqrt((changed**2).sum())
        assert all(norm <= most * (1 + 1e-9) for norm, most in zip(norms, part.together, strict=True))
