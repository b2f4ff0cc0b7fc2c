"""Records by regressions: coefficients as statsmodels has them on pooled data, and a known population recovered."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from statfed.client.guard.disclosure import check
from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused, UsageError
from statfed.core.method import Ask, read_question
from statfed.core.terms import Terms
from statfed.federation.federation import Federation
from statfed.federation.synthetic import fit, load_synthesizer
from statfed.strategies.synthesis import _regressions, fcs
from tests.federate import codebook_of, federate, split, table_of

BOOK = codebook_of(
    {
        "age": {"type": "integer", "low": 15, "high": 90, "required": True},
        "works": {"type": "boolean", "required": True},
        "region": ["n", "s", "w", "x"],
        "wage": ("number", 0, 1_000_000),
        "since": {"type": "date", "low": "1990-01-01", "high": "2030-12-31"},
    }
)
BINOMIAL = sm.families.Binomial()


def people(n: int, seed: int) -> pd.DataFrame:
    """Nobody lives in x; the young miss their region, and some that do not work their wage."""
    rng = np.random.default_rng(seed)
    age = rng.integers(15, 91, n)
    works = rng.random(n) < 1 / (1 + np.exp(-2 + 0.04 * age))
    region = np.where(rng.random(n) < 0.3 + 0.3 * works, "n", np.where(rng.random(n) < 0.5, "s", "w")).astype(object)
    region[rng.random(n) < np.where(age < 30, 0.3, 0.05)] = None
    wage = np.exp(8 + 0.02 * age + 0.8 * works - 0.5 * (region == "n") + 0.4 * rng.standard_normal(n))
    since = pd.array(np.clip(np.round(15_000 - 20 * age + 500 * rng.standard_normal(n)), 7305, 22279), dtype="Int64")
    since[rng.random(n) < 0.1] = pd.NA
    return pd.DataFrame(
        {
            "age": age,
            "works": works,
            "region": region,
            "wage": np.where(rng.random(n) < np.where(works, 0.05, 0.3), np.nan, wage.clip(0, 1e6)),
            "since": since,
        }
    )


def fitted(frames: list[pd.DataFrame], book: Codebook = BOOK, **options: Any) -> Any:
    def ask(analysis: str, **more: Any) -> Any:
        return federate(analysis, frames, book, **more)

    return fcs.fit(ask, book, fcs.Options(**options))


def estimates(model: Any, column: str, what: str, level: str = "") -> tuple[dict[str, float], Any]:
    (one,) = [
        each for each in model["regressions"] if (each["column"], each["what"], each["level"]) == (column, what, level)
    ]
    names = [f"{term['kind']} {term['column']} {term['level']}".strip() for term in one["terms"]]
    return dict(zip(names, one["estimates"], strict=True)), one


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return people(900, 1)


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> Any:
    return fitted(split(frame, 3), log1p=("wage",))


def test_three_holders_have_the_regressions_of_statsmodels_on_pooled_records(frame: pd.DataFrame, model: Any) -> None:
    pooled = frame.assign(
        w=frame["works"].astype(float),
        r_missing=frame["region"].isna().astype(float),
        s=(frame["region"] == "s") * 1.0,
        west=(frame["region"] == "w") * 1.0,
        n=(frame["region"] == "n") * 1.0,
        wage_missing=frame["wage"].isna().astype(float),
        logged=np.log1p(frame["wage"]),
        known=np.log1p(frame["wage"].fillna(0.0)),
        day=frame["since"].astype(float),
    )
    place = {
        "Intercept": "intercept",
        "age": "number age",
        "w": "level works true",
        "r_missing": "missing region",
        "s": "level region s",
        "west": "level region w",
        "wage_missing": "missing wage",
        "known": "log1p wage",
    }
    there = pooled["region"].notna()
    before = "age + w + r_missing + s + west"
    logits = [
        (("works", "level", "true"), smf.glm("w ~ age", pooled, family=BINOMIAL)),
        (("region", "missing", ""), smf.glm("r_missing ~ age + w", pooled, family=BINOMIAL)),
        (("region", "level", "n"), smf.glm("n ~ age + w", pooled[there], family=BINOMIAL)),
        (("region", "level", "s"), smf.glm("s ~ age + w", pooled[pooled["s"] + pooled["west"] > 0], family=BINOMIAL)),
        (("wage", "missing", ""), smf.glm(f"wage_missing ~ {before}", pooled, family=BINOMIAL)),
    ]
    linear = [
        (("age", "value", ""), smf.ols("age ~ 1", pooled)),
        (("wage", "value", ""), smf.ols(f"logged ~ {before}", pooled)),
        (("since", "value", ""), smf.ols(f"day ~ {before} + wage_missing + known", pooled)),
    ]
    for key, reference in logits + linear:
        want = reference.fit()
        found, one = estimates(model, *key)
        assert found == pytest.approx({place[name]: value for name, value in want.params.items()}, rel=1e-6, abs=1e-9)
        errors = dict(zip(found, one["std_errors"], strict=True))
        assert errors == pytest.approx({place[name]: value for name, value in want.bse.items()}, rel=1e-6)
        assert one["observations"] == want.nobs
        if key[1] == "value":
            assert one["sigma"] == pytest.approx(np.sqrt(want.scale), rel=1e-6)
    assert len(model["regressions"]) == len(logits + linear) + 1
    assert model["columns"]["region"] == {
        "missing": int((~there).sum()),
        "known": int(there.sum()),
        "counts": {**frame["region"].value_counts().to_dict(), "x": 0},
    }


def test_records_have_the_relations_of_the_regressions_and_obey_the_codebook(model: Any) -> None:
    """The regressions of 60,000 records drawn with fixed parameters are those of the model, within 5 errors."""
    made = fcs.generate({**model, "parameters": "fixed"}, BOOK, 60_000, np.random.default_rng(1))
    table = pd.DataFrame(dict(made))
    table["region_missing"] = (table["region"] < 0) * 1.0
    for key, code in (("n", 0), ("s", 1)):
        table["y"] = (table["region"] == code) * 1.0
        of = table[table["region"] >= code]
        want = smf.glm("y ~ age + works", of, family=BINOMIAL).fit()
        found = list(estimates(model, "region", "level", key)[0].values())
        assert np.abs((want.params - found) / want.bse).max() < 5
    table["y"] = table["wage"].isna() * 1.0
    table["s"], table["w"] = (table["region"] == 1) * 1.0, (table["region"] == 2) * 1.0
    want = smf.glm("y ~ age + works + region_missing + s + w", table, family=BINOMIAL).fit()
    assert np.abs((want.params - list(estimates(model, "wage", "missing")[0].values())) / want.bse).max() < 5
    table["y"] = np.log1p(table["wage"])
    want = smf.ols("y ~ age + works + region_missing + s + w", table).fit()
    assert np.abs((want.params - list(estimates(model, "wage", "value")[0].values())) / want.bse).max() < 5
    assert not (made["region"] == 3).any()
    since = made["since"][~np.isnan(made["since"])]
    assert (since == np.round(since)).all()
    for name, values in (("age", made["age"]), ("since", since)):
        low, high = BOOK.columns[name].bounds or (0, 0)
        assert low <= values.min() <= values.max() <= high


def test_parameters_spread_as_their_covariance_does(frame: pd.DataFrame, model: Any) -> None:
    """Of 400 draws, the covariance of three coefficients that are far from independent: off by a fifth at most."""
    regression = _regressions.Regression.read(estimates(model, "works", "level", "true")[1])
    want = smf.glm("works ~ age", frame.assign(works=frame["works"].astype(float)), family=BINOMIAL).fit()
    records = fcs.generate({**model, "parameters": "fixed"}, BOOK, 4000, np.random.default_rng(1))
    x = _regressions.design(regression.terms, records, BOOK, 4000)
    rng = np.random.default_rng(2)
    drawn = np.array([_regressions.drawn_parameters(regression, x, rng).estimates for _ in range(2000)])
    at = np.array([[1.0, 20.0], [1.0, 50.0], [1.0, 80.0]])  # linear predictors, that correlations decide on
    spread, expected = at @ np.cov(drawn.T) @ at.T, at @ want.cov_params().to_numpy() @ at.T
    assert np.diag(spread) == pytest.approx(np.diag(expected), rel=0.2)
    linear = _regressions.Regression.read(estimates(model, "wage", "value")[1])
    x = _regressions.design(linear.terms, records, BOOK, 4000)
    sigmas = np.array([_regressions.drawn_parameters(linear, x, rng).sigma for _ in range(2000)])
    df = linear.residual_df
    assert np.std(sigmas**2) == pytest.approx(linear.sigma**2 * np.sqrt(2 / df), rel=0.1)
    assert np.mean(sigmas**2) == pytest.approx(linear.sigma**2, rel=0.02)


def test_small_differences_of_told_errors_do_not_move_every_record(model: Any) -> None:
    """At the mean of a column far from 0, errors of intercept and slope cancel, whatever the last digits of each."""
    regression = _regressions.Regression.read(estimates(model, "works", "level", "true")[1])
    records = {"age": 1000 + 20 * np.random.default_rng(1).standard_normal(4000)}
    x = np.column_stack([np.ones(4000), records["age"]])
    near = dataclasses.replace(regression, estimates=(0.0, 0.0), std_errors=(1.01, 0.99e-3))
    rng = np.random.default_rng(2)
    drawn = np.array([_regressions.drawn_parameters(near, x, rng).estimates for _ in range(1000)])
    assert np.std(drawn @ x.mean(axis=0)) == pytest.approx(2 / np.sqrt(near.observations), rel=0.1)
    assert np.std(drawn[:, 1]) == pytest.approx(0.99e-3, rel=0.1)


def test_sweeps_over_all_others_keep_relations_of_both_directions(frame: pd.DataFrame) -> None:
    model = fitted([frame], columns=("age", "works", "wage"), order="sweeps", log1p=("wage",), parameters="fixed")
    terms = [term["column"] for term in estimates(model, "age", "value")[1]["terms"]]
    assert terms == ["", "works", "wage", "wage"]
    made = fcs.generate(model, BOOK, 20_000, np.random.default_rng(1))
    known = ~np.isnan(made["wage"])
    for name in ("age", "works"):
        want = frame[name].astype(float).corr(np.log1p(frame["wage"]))
        assert np.corrcoef(made[name][known], np.log1p(made["wage"][known]))[0, 1] == pytest.approx(want, abs=0.1)
    again = fcs.generate(model, BOOK, 500, np.random.default_rng(4))
    other = fcs.generate(model, BOOK, 500, np.random.default_rng(4))
    assert all(np.array_equal(again[name], other[name], equal_nan=True) for name in again)


def test_columns_without_variation_are_drawn_as_they_are() -> None:
    n = 120
    book = codebook_of(
        {
            "one": ["a", "b"],
            "same": ("number", 0, 10),
            "gone": ("number", 0, 10),
            "lost": ["a", "b", "c"],
            "some": ("integer", 0, 10),
            "odd name": ["p q", "r)s~t", "u'v"],
        }
    )
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"one": "b", "same": 0.1 + 0.2, "gone": np.nan, "lost": None, "some": 3.0}, index=range(n))
    frame.loc[rng.random(n) < 0.5, "some"] = np.nan
    frame["odd name"] = rng.choice(["p q", "r)s~t", "u'v"], n)
    model = fitted(split(frame, 2), book)
    assert [(one["column"], one["what"]) for one in model["regressions"]] == [
        ("some", "missing"),
        ("odd name", "level"),
        ("odd name", "level"),
    ]
    made = fcs.generate(model, book, 2000, rng)
    assert (made["one"] == 1).all()
    assert np.allclose(made["same"], 0.3)
    assert np.isnan(made["gone"]).all()
    assert (made["lost"] == -1).all()
    assert {*made["some"][~np.isnan(made["some"])]} == {3.0}
    assert np.isnan(made["some"]).mean() == pytest.approx(frame["some"].isna().mean(), abs=0.15)
    assert {*made["odd name"]} == {0, 1, 2}


@pytest.mark.parametrize("mistaken", [0, 3])
def test_separated_logits_give_no_model(mistaken: int) -> None:
    """Wholly, and where some records lie on the plane between both."""
    frame = people(300, 3)[["age", "works"]]
    frame.loc[:5, "age"] = 50
    frame["works"] = (frame["age"] > 50) | (frame.index < mistaken)
    with pytest.raises(UsageError, match=r"fcs: works ~ age: formula: separation"):
        fitted([frame], columns=("age", "works"))


def test_what_has_no_estimate_is_refused_with_its_regression() -> None:
    frame = people(300, 4)
    frame["since"] = frame["since"].where(frame["works"])
    with pytest.raises(UsageError, match=r"fcs: missing\(since\) ~ C\(works\): .*separation"):
        fitted([frame], columns=("works", "since"))
    frame["double"] = 2.0 * frame["age"]
    book = codebook_of({"age": ("number", 0, 90), "double": ("number", 0, 180), "wage": ("number", 0, 1_000_000)})
    with pytest.raises(UsageError, match=r"fcs: wage ~ .*collinear"):
        fitted([frame[["age", "double", "wage"]].dropna()], book)
    model = fitted([frame[["age", "double", "wage"]].dropna()], book, predictors={"wage": ("age",)})
    assert [term["column"] for term in estimates(model, "wage", "value")[1]["terms"]] == ["", "age"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ("age", "age")}, "got 2; want 1 to 60, each once"),
        ({"log1p": ("region",)}, "region"),
        ({"predictors": {"age": ("works",)}}, "want columns before it"),
        ({"predictors": {"nobody": ("works",)}}, "want columns that are modelled"),
    ],
)
def test_options_that_do_not_suit_are_refused_before_anything_is_asked(options: Any, message: str) -> None:
    def ask(analysis: str, **_: Any) -> Any:
        raise AssertionError(analysis)

    with pytest.raises(UsageError, match=message):
        fcs.fit(ask, BOOK, fcs.Options(**options))


@pytest.mark.parametrize(
    ("formula", "where"),
    [
        ("level(region, 'x') ~ 1", "region is not null"),
        ("level(region, 3) ~ age", "region is not null"),
        ("age ~ level(region, 'x')", None),
        ("missing(wage) ~ 1", None),
        ("age ~ missing(wage)", None),
        ("age ~ known(wage)", None),
        ("age ~ known(log1p(wage))", None),
        ("level(region, 's') ~ 1", "wage is not null"),
    ],
)
def test_a_level_or_missing_value_of_few_records_is_a_cell_however_a_formula_says_it(
    formula: str, where: str | None
) -> None:
    """The last is of 100 records and passes. So do the others where ten times as many have it."""
    for few, passes in ((2, formula.startswith("level(region, 's')")), (20, True)):
        frame = pd.DataFrame({"age": np.arange(100) % 40 + 20, "region": ["n", "s"] * 50, "works": True})
        frame["wage"] = np.arange(100) % 7 + 100.0
        frame.loc[: few - 1, "region"] = "x"
        frame.loc[: few - 1, "wage"] = np.nan
        analysis = "ols" if formula.startswith("age") else "glm"
        conditions = parse_where([where] if where else [], BOOK)
        terms = Terms(
            method=analysis, options={"formula": formula}, codebook=BOOK, where=conditions, holders=("a",), seed=1
        )
        method, question = read_question(terms)
        whole = table_of(frame, BOOK)
        table = whole.filter(*map(whole.holds, conditions))
        start = Ask("start")
        sent = method.contribute(table, question, start)
        parts, rules = method.parts(question, start), Rules(minimum_frequency=5)
        if passes:
            check(table, question, start, parts, sent, rules, method.discloses(question, start))
            continue
        with pytest.raises(Refused, match="frequency"):
            check(table, question, start, parts, sent, rules, method.discloses(question, start))


def test_policies_do_not_allow_the_functions_and_private_regressions_have_none(frame: pd.DataFrame) -> None:
    holders = {"a": frame[:300], "b": frame[300:]}
    with Federation(holders, BOOK, seed=1, rules="standard") as fed:
        with pytest.raises(Refused, match="formula: got known, missing, not allowed"):
            fed.ask("ols", formula="age ~ missing(wage) + known(wage)")
        with pytest.raises(UsageError, match="has no differentially private form"):
            fit(fed, "fcs", {}, 1.0)
        with pytest.raises(UsageError, match="are of ols and glm without noise"):
            fed.ask("ols", formula="age ~ missing(wage)", privacy=1.0)


def test_a_model_under_the_rules_of_a_release_is_saved_and_sampled(frame: pd.DataFrame, tmp_path: Path) -> None:
    with Federation({"a": frame[:300], "b": frame[300:]}, BOOK, disclosure="standard") as fed:
        made = fit(fed, "fcs", {"columns": "works"})
    made.save(tmp_path / "m.json")
    again = load_synthesizer(tmp_path / "m.json")
    assert again.sample(50, 1).equals(made.sample(50, 1))
    assert made.fitted.origin["questions"][-1].endswith("works ~ 1")


@pytest.mark.parametrize("change", [{"columns": {}}, {"regressions": [{}]}, {"columns": 2}])
def test_a_model_that_is_none_is_refused(model: Any, change: Any) -> None:
    with pytest.raises(UsageError, match="model: got"):
        fcs.generate({**model, **change}, BOOK, 10, np.random.default_rng(1))


def test_values_beyond_bounds_are_mirrored() -> None:
    assert _regressions.within(np.array([-3.0, 4.0, 12.0, 27.0]), 0.0, 10.0).tolist() == [3.0, 4.0, 8.0, 7.0]
    assert _regressions.within(np.array([-3.0, 4.0]), None, 1.0).tolist() == [-3.0, -2.0]
    assert _regressions.within(np.array([-3.0, 4.0]), 0.0, None).tolist() == [3.0, 4.0]
    assert _regressions.within(np.array([-3.0, 4.0]), 2.0, 2.0).tolist() == [2.0, 2.0]
