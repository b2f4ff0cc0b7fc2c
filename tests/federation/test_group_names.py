"""Groups by columns that are called as a figure: shown as what they are, or refused before anything is asked."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.errors import UsageError
from statfed.core.result import FIGURES, Basis, Result
from statfed.federation import Federation


@pytest.fixture(scope="module")
def federation() -> Federation:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({name: rng.choice(["a", "b"], 200, p=[0.3, 0.7]) for name in ("status", "count", "mean")})
    frame["v"] = rng.normal(size=200).clip(-3, 3)
    return Federation({"x": frame.iloc[:90], "y": frame.iloc[90:]})


@pytest.mark.parametrize(
    ("analysis", "options"),
    [("table", {"rows": ["status"]}), ("count", {"by": ["status"]}), ("mean", {"columns": ["v"], "by": ["status"]})],
)
def test_groups_by_status_are_told_beside_what_the_release_did(
    federation: Federation, analysis: str, options: dict[str, Any]
) -> None:
    result = federation.ask(analysis, **options)
    rows = result.tables[result.main]
    assert [row["status"] for row in rows] == ["a", "b"]
    assert {row["release_status"] for row in rows} == {"released"}
    assert sum(int(str(row["count"])) for row in rows) == 200
    assert result.state_of(result.main) == "release_status"


@pytest.mark.parametrize("name", ["count", "mean"])
def test_other_names_of_figures_are_refused_before_anything_is_asked(federation: Federation, name: str) -> None:
    for analysis, options in (("table", {"rows": [name]}), ("quantile", {"columns": ["v"], "by": name})):
        with pytest.raises(UsageError, match=f"by {name}, which is what results call a figure"):
            federation.ask(analysis, **options)


def test_a_table_with_a_column_twice_is_none() -> None:
    for name in ("count", "share"):
        with pytest.raises(UsageError, match="a figure of their own"):
            Result("table", "", {"t": ()}, basis={"t": Basis(by=(name,), counts=("count",), own=("share",))})
    assert "status" not in FIGURES
