"""Whole questions about awkward values: weights, names with blanks, conditions, stated types and levels."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from statfed.core.errors import UsageError
from statfed.federation.federation import Federation

RNG = np.random.default_rng(1)
FRAME = pd.DataFrame(
    {
        "a b": RNG.uniform(1, 9, 60),
        "c d": RNG.choice(["x", "y"], 60),
        "y": RNG.normal(size=60),
        "w": RNG.uniform(0.1, 3, 60),
        "employed": RNG.integers(0, 2, 60),
    }
)


def test_names_with_blanks_are_read_in_formulas_and_conditions() -> None:
    with Federation({"a": FRAME}) as federation:
        found = federation.ols("y ~ log(`a b`) + I(`a b`**2) + C(`c d`)", where="a b >= 2 and (`c d` = x or a b < 8)")
    chosen = FRAME[(FRAME["a b"] >= 2) & ((FRAME["c d"] == "x") | (FRAME["a b"] < 8))]
    wanted = smf.ols("y ~ np.log(Q('a b')) + I(Q('a b')**2) + C(Q('c d'))", chosen).fit().params
    estimates = {row["name"]: row["estimate"] for row in found.tables["coefficients"]}
    assert estimates["log(`a b`)"] == pytest.approx(wanted["np.log(Q('a b'))"])
    assert estimates["I(`a b` ** 2)"] == pytest.approx(wanted["I(Q('a b') ** 2)"])
    assert estimates["C(`c d`)[T.y]"] == pytest.approx(wanted["C(Q('c d'))[T.y]"])


@pytest.mark.parametrize("weight", [0.0, -1.0])
@pytest.mark.parametrize(
    ("analysis", "options"),
    [("mean", {"columns": ["y"]}), ("ols", {"formula": "y ~ `a b`"}), ("count", {}), ("table", {"rows": ["c d"]})],
)
def test_a_weight_of_zero_or_less_is_refused_by_every_method(
    analysis: str, options: dict[str, Any], weight: float
) -> None:
    frame = FRAME.assign(w=FRAME["w"].where(FRAME.index != 3, weight))
    with (
        Federation({"a": frame}) as federation,
        pytest.raises(UsageError, match="w: got weights that are zero or less"),
    ):
        federation.ask(analysis, weight="w", **options)


def test_stated_types_and_levels_make_codes_of_numbers() -> None:
    with Federation({"a": FRAME}) as federation, pytest.raises(UsageError, match="--type employed=category"):
        federation.table("employed")
    with Federation({"a": FRAME}, types={"employed": "category"}, levels={"c d": ["x", "y", "z"]}) as federation:
        rows = federation.table("employed").tables["cells"]
        assert {row["employed"]: row["count"] for row in rows} == {
            code: int((FRAME["employed"] == int(code)).sum()) for code in ("0", "1")
        }
        assert federation.codebook is not None
        assert federation.codebook.columns["c d"].levels == ("x", "y", "z")


def test_alternatives_over_several_columns_are_refused_where_a_release_has_rules() -> None:
    with Federation({"a": FRAME}, disclosure="standard") as federation:
        with pytest.raises(UsageError, match="over several columns"):
            federation.count(where="`c d` = x or a b > 3")
        with pytest.raises(UsageError, match="want is not null"):
            federation.count(where="a b is null")
        assert federation.count(where="a b < 3 or a b > 4").tables


def test_one_name_is_a_list_of_one_and_figures_of_dates_are_refused_with_what_works() -> None:
    frame = FRAME.assign(day=pd.Timestamp("2020-01-01").date())
    with Federation({"a": frame}) as federation:
        rows = federation.ask("mean", columns="y", by="c d").tables["estimates"]
        assert rows == federation.mean(["y"], by=["c d"]).tables["estimates"]
        with pytest.raises(UsageError, match=r"day: got type date; want number.* a column with the days from"):
            federation.ask("quantile", columns="day")


def test_figures_that_do_not_exist_are_nan_whether_or_not_others_of_their_column_do() -> None:
    with Federation({"a": FRAME}) as federation:
        shown = federation.ask("quantile", columns="y", probabilities=[0.5], weight="w").to_pandas()
    assert {shown[name].dtype.kind for name in ("std_error", "lower", "upper")} == {"f"}
