"""Design matrices against formulaic's on pooled data; hostile formulas; cross products on both paths."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import formulaic
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st

from statfed.core.errors import UsageError
from statfed.strategies.analyses._matrix import cross_products, make_design
from tests.federate import codebook_of, federate, split, table_of

pytestmark = pytest.mark.filterwarnings("ignore:fetch_record_batch:DeprecationWarning")

CODEBOOK = codebook_of(
    {
        "y": "number",
        "a": ("number", -5, 5),
        "b": ("number", 0.5, 20),
        "n": ("integer", 0, 90),
        "free": "number",
        "works": "boolean",
        "region": ["north", "south", "west"],
        "sex": ["f", "m"],
        "code": ["1", "2", "3"],
        "one": ["only"],
        "person": "id",
    }
)


def people(n: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "a": rng.uniform(-5, 5, n),
            "b": rng.uniform(0.5, 20, n),
            "n": rng.integers(0, 90, n),
            "free": rng.normal(size=n),
            "works": rng.random(n) < 0.5,
            "region": rng.permutation(np.resize(["north", "south", "west"], n)),
            "sex": rng.permutation(np.resize(["f", "m"], n)),
            "code": rng.permutation(np.resize(["1", "2", "3"], n)),
            "one": "only",
            "person": [str(i) for i in range(n)],
        }
    )


FORMULAS = [
    "y ~ a",
    "y ~ 1",
    "y ~ 0 + a",
    "y ~ a - 1",
    "y ~ a + b + n + works",
    "y ~ region",
    "y ~ 0 + region",
    "y ~ C(region) + C(sex)",
    "y ~ 0 + C(region) + C(sex)",
    "y ~ C(code) + C(works)",
    'y ~ C(region, Treatment("south"))',
    'y ~ C(region, contr.treatment("west")) * a',
    'y ~ C(region, contr.treatment(base="west")):C(sex)',
    "y ~ C(region):C(sex)",
    "y ~ 0 + C(region):C(sex)",
    "y ~ C(region)*C(sex)",
    "y ~ 0 + C(region)*C(sex)",
    "y ~ a + C(region):a",
    "y ~ C(region):a",
    "y ~ 0 + C(region):a",
    "y ~ a:b + a",
    "y ~ a*b*C(sex)",
    "y ~ C(region) + C(region):C(sex)",
    "y ~ C(sex):C(region):C(code)",
    "y ~ C(sex):C(region) + C(code):C(region)",
    "y ~ a:C(sex) + b:C(sex):C(region)",
    "y ~ (a + b + C(sex))**2",
    "y ~ (a + b + C(sex))**2 - a:b",
    "y ~ C(region)/a",
    "y ~ a:works + works",
    "y ~ one + a",
    "y ~ 0 + one + a",
    "y ~ C(one):a",
    "y ~ np.log(b) + np.log1p(n) + np.sqrt(b) + np.exp(a) + np.abs(a)",
    "y ~ log(b) + exp(a) + abs(a)",
    "y ~ I(b**0 + a)",
    "y ~ I(a**2) + I(a**3 - 2*a/b + 1)",
    "y ~ I(b**-1.5) + I(b**0.5) + I(b**-2.0)",
    "y ~ {a + 1}:C(sex) + I(-a)",
    "y ~ 2:a + b",
    "y ~ 2:C(sex):b",
    "log(b) ~ a",
    "I(a + b) ~ n",
    "y ~ np.log(I(a**2) + 1)",
    "y ~ C(region, Treatment('west')) + C(region, Treatment('west')):C(sex, Treatment('m'))",
]


@pytest.mark.parametrize("formula", FORMULAS)
def test_names_and_values_are_formulaics_on_pooled_data(formula: str) -> None:
    frame = people()
    design = make_design(formula, CODEBOOK)
    pooled = formulaic.model_matrix(formula, frame, context={"np": np, "abs": abs})
    table = table_of(frame, CODEBOOK)
    block = np.concatenate(list(table.batches([*design.expressions(table), design.response_expression(table)])))
    assert list(design.names) == list(pooled.rhs.columns)
    np.testing.assert_allclose(block[:, :-1], pooled.rhs.to_numpy(dtype=float), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(block[:, -1], pooled.lhs.to_numpy(dtype=float)[:, 0], rtol=1e-13)
    assert np.all(block[:, :-1] >= design.bounds[:, 0] - 1e-9)
    assert np.all(block[:, :-1] <= design.bounds[:, 1] + 1e-9)
    assert table.aggregate(n=design.defined(table))["n"] == len(frame)
    if design.constant:
        np.testing.assert_allclose(block[:, list(design.constant)].sum(axis=1), 1)


@pytest.mark.parametrize("formula", ["y ~ C(region)", "y ~ 0 + region:a", "y ~ C(region)*C(sex)", "y ~ C(region):b"])
@pytest.mark.parametrize("absent", ["north", "west"])
def test_narrowed_levels_code_like_pooled_data_without_them(formula: str, absent: str) -> None:
    frame = people()
    frame = frame[frame["region"] != absent].reset_index(drop=True)
    levels = [level for level in CODEBOOK.columns["region"].levels if level != absent]
    design = make_design(formula, CODEBOOK, {"region": levels})
    assert list(design.names) == list(formulaic.model_matrix(formula, frame).rhs.columns)


HOSTILE = [
    "y ~ {__import__('os').system('true')}",
    "y ~ I(__import__('os'))",
    "y ~ a.__class__",
    "y ~ I(a.__class__)",
    "y ~ {a.expr}",
    "y ~ {(lambda x: x)(a)}",
    "y ~ I([a for a in (1,)])",
    "y ~ I(a if a else b)",
    "y ~ I(a[0])",
    "y ~ eval('a')",
    "y ~ open('x')",
    "y ~ np.linalg.inv(a)",
    "y ~ os.system(a)",
    "y ~ I(f'{a}')",
    "y ~ I('a')",
    "y ~ I(a := 3)",
    "y ~ I(9**9**9**9)",
    "y ~ I(a**b)",
    "y ~ I(a // 2)",
    "y ~ I(a and b)",
    "y ~ I(a > 1)",
    "y ~ I(True)",
    "y ~ I(3)",
    "y ~ I(1j)",
    "y ~ I(1e999)",
    "y ~ I(a, b)",
    "y ~ log(b, b)",
    "y ~ log(x=b)",
    "y ~ log(*b)",
    "y ~ C(region, levels=['north'])",
    "y ~ C(region, Sum)",
    "y ~ C(region, contr.sum)",
    "y ~ C(region, Treatment(eval('1')))",
    "y ~ C(region, Treatment('moon'))",
    "y ~ C(a)",
    "y ~ C(I(a))",
    "y ~ I(region)",
    "y ~ log(region)",
    "y ~ poly(a, 2)",
    "y ~ center(a)",
    "y ~ person",
    "y ~ C(person)",
    "y ~ nothing",
    "y ~ .",
    "y ~ a | b",
    "y + a ~ b",
    "y ~ a ~ b",
    "1 ~ a",
    "region ~ a",
    "a",
    "y ~ log(",
    "y ~ 'a'",
    "y ~ log(`a`)",
    "y ~ \x00",
    "y ~ 0x10:a",
    "y ~ I(" + "(" * 900 + "a" + ")" * 900 + ")",
    "y ~ I(" + "-" * 3000 + "a)",
    "y ~ " + "*".join(["a"] * 40),
    "y ~ (a + b)**50",
    "y ~ " + "a + " * 3000 + "b",
]


@pytest.mark.parametrize("formula", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_but_arithmetic_on_columns_is_accepted(formula: str) -> None:
    with pytest.raises(UsageError, match="formula"):
        make_design(formula, CODEBOOK)


@pytest.mark.parametrize(
    "formula", ["y ~ log(n)", "y ~ log1p(a)", "y ~ sqrt(a)", "y ~ I(1/a)", "y ~ I(a**0.5)", "y~I(n**-1)"]
)
def test_bounds_that_leave_an_expression_undefined_are_refused(formula: str) -> None:
    with pytest.raises(UsageError, match="codebook's bounds"):
        make_design(formula, CODEBOOK)


@pytest.mark.parametrize(
    "formula",
    ["y ~ log(free)", "y ~ sqrt(free)", "y ~ I(1/free)", "y ~ I(free**-2)", "y ~ I(free**0.5)", "y ~ exp(free)"],
)
def test_undefined_values_are_counted_not_raised_where_bounds_are_unknown(formula: str) -> None:
    frame = people(5)
    frame["free"] = [-1.0, 0.0, 1.0, 2.0, 3000.0]
    design = make_design(formula, CODEBOOK)
    assert not design.total
    table = table_of(frame, CODEBOOK)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        x = frame["free"].to_numpy()
        value = {"l": np.log(x), "s": np.sqrt(x), "e": np.exp(x)}.get(formula[4]) if formula[4] != "I" else None
        if value is None:
            value = 1 / x if "/" in formula else x ** (-2.0 if "-2" in formula else 0.5)
    assert table.aggregate(n=design.defined(table))["n"] == np.isfinite(value).sum()


def test_intervals_follow_interval_arithmetic() -> None:
    design = make_design("y ~ I(a*b) + I(a**2) + I(a - b) + C(sex):b + abs(a) + log(b) + I(n/b) + free", CODEBOOK)
    bounds = dict(zip(design.names, design.bounds.tolist(), strict=True))
    assert bounds["I(a * b)"] == [-100, 100]
    assert bounds["I(a ** 2)"] == [0, 25]
    assert bounds["I(a - b)"] == [-25, 4.5]
    assert bounds["C(sex)[m]:b"] == [0, 20]
    assert bounds["abs(a)"] == [0, 5]
    assert bounds["log(b)"] == pytest.approx([np.log(0.5), np.log(20)])
    assert bounds["I(n / b)"] == [0, 180]
    assert bounds["free"] == [-np.inf, np.inf]
    assert bounds["Intercept"] == [1, 1]


@pytest.mark.parametrize("formula", ["y ~ a + b + C(sex)*a", "y ~ 0 + C(region) + a + b", "y ~ 0 + a + b"])
def test_coefficients_of_scaled_columns_map_back(formula: str) -> None:
    frame = people(50)
    design = make_design(formula, CODEBOOK)
    table = table_of(frame, CODEBOOK)
    x = np.concatenate(list(table.batches(design.expressions(table))))
    center, scale = design.scaling()
    assert np.abs((x - center) / scale).max() <= 1
    b = np.linalg.lstsq((x - center) / scale, frame["y"].to_numpy(), rcond=None)[0]
    raw = np.linalg.lstsq(x, frame["y"].to_numpy(), rcond=None)[0]
    np.testing.assert_allclose(design.back(center, scale) @ b, raw, rtol=1e-9)


def test_coding_without_intercept_is_that_with_it_less_one_column() -> None:
    design = make_design("~ a + C(sex)", CODEBOOK, response="none").without_intercept()
    assert design.names == ("a", "C(sex)[T.m]")
    assert design.constant == ()
    assert design.columns == ("a", "sex")


def test_two_level_category_is_a_binary_response_only_where_asked() -> None:
    design = make_design("sex ~ a", CODEBOOK, response="binary")
    table = table_of(people(30), CODEBOOK)
    block = np.concatenate(list(table.batches([design.response_expression(table)])))
    np.testing.assert_array_equal(block[:, 0], people(30)["sex"] == "m")
    assert design.response_levels == ("f", "m")
    with pytest.raises(UsageError, match="3 categories"):
        make_design("region ~ a", CODEBOOK, response="binary")


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(0, 80),
    weighted=st.booleans(),
    transformed=st.booleans(),
    rows=st.sampled_from([7, 65_536]),
)
def test_streamed_and_pushed_down_cross_products_are_the_same(
    seed: int, n: int, weighted: bool, transformed: bool, rows: int
) -> None:
    frame = people(max(n, 1), seed).iloc[:n]
    design = make_design("y ~ a*C(region) + log(b)", CODEBOOK)
    table = table_of(frame, CODEBOOK)

    transform = np.random.default_rng(seed).normal(size=(len(design.names), 4)) if transformed else None

    def sums(table: Any, columns: Sequence[Any]) -> Any:
        return cross_products(table, columns, table.number("b") if weighted else None, transform, rows)

    streamed = sums(table, design.expressions(table))
    pushed = sums(replace(table, embedded=False), design.expressions(table))
    np.testing.assert_allclose(streamed, pushed, rtol=1e-11, atol=1e-9)
    if n:
        x = np.concatenate(list(table.batches(design.expressions(table))))
        x = x if transform is None else x @ transform
        w = frame["b"].to_numpy() if weighted else np.ones(n)
        np.testing.assert_allclose(streamed, x.T @ (x * w[:, None]), rtol=1e-11, atol=1e-9)


def test_names_with_blanks_are_read_in_backticks_everywhere() -> None:
    book = codebook_of({"net wage": "number", "hours worked": ("number", 1, 80), "in out": ["a", "b"]})
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"net wage": rng.normal(size=40), "hours worked": rng.uniform(2, 70, 40)})
    frame["in out"] = rng.choice(["a", "b"], 40)
    formula = "`net wage` ~ I(`hours worked` ** 2) + log(`hours worked`) + C(`in out`)"
    shown = federate("ols", split(frame, 2), book, formula=formula, where=["`hours worked` > 5", "in out in a,b"])
    plain = frame.rename(columns={"net wage": "y", "hours worked": "x", "in out": "g"})[frame["hours worked"] > 5]
    wanted = smf.ols("y ~ I(x ** 2) + np.log(x) + C(g)", plain).fit()
    rows = {str(row["name"]): float(row["estimate"] or 0) for row in shown.tables["coefficients"]}
    assert [*rows] == ["Intercept", "I(`hours worked` ** 2)", "log(`hours worked`)", "C(`in out`)[T.b]"]
    by_name = dict(zip(["Intercept", "C(`in out`)[T.b]", *[*rows][1:3]], wanted.params, strict=True))
    assert rows == pytest.approx(by_name, rel=1e-7)


def test_dotted_names_mean_the_same_bare_in_backticks_and_inside_functions() -> None:
    codebook = codebook_of({"y": "number", "a.b": ["p", "q"], "x.y": ("number", 1, 3)})
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=20), "a.b": ["p", "q"] * 10, "x.y": rng.uniform(1, 3, 20)})
    dotted, ticked, same = (
        federate("ols", [frame], codebook, formula=f"y ~ {terms}").to_pandas()["estimate"].tolist()
        for terms in (
            "C(a.b) + np.log(x.y) + I(x.y**2)",
            "C(`a.b`) + np.log(`x.y`) + I(`x.y`**2)",
            "C(a.b, contr.treatment('p')) + log(x.y) + I(x.y**2)",
        )
    )
    assert dotted == ticked == same


@pytest.mark.parametrize(
    ("formula", "response"), [("y ~ a + y", "number"), ("works ~ works", "binary"), ("sex ~ a + C(sex)", "binary")]
)
def test_a_response_among_its_own_terms_is_refused(formula: str, response: Any) -> None:
    with pytest.raises(UsageError, match="among the terms too; want terms without it"):
        make_design(formula, CODEBOOK, response=response)
