"""A number of missing records that is withheld is told by no other figure of the same answer."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.result import Result
from statfed.federation.federation import Federation

BOOK = {"columns": {"hours": {"type": "number", "low": 0, "high": 100}}}


def answer(missing: int, method: str, rules: str) -> tuple[Result, pd.Series]:
    """Over three holders, of whom the first has the missing values."""
    frame = pd.DataFrame({"hours": np.random.default_rng(5).uniform(10, 60, 300).round(1)})
    frame.loc[frame.index[:missing], "hours"] = np.nan
    parts = {name: frame.iloc[100 * i : 100 * (i + 1)] for i, name in enumerate("abc")}
    protection = "plain" if rules == "none" else "secure-aggregation"
    with Federation(parts, BOOK, disclosure="standard", protection=protection, rules=rules) as asked:  # type: ignore[arg-type]
        options: dict[str, Any] = {"population": 5_000} if method == "total" else {}
        return asked.ask(method, columns=["hours"], **options), frame["hours"].dropna()


@pytest.mark.parametrize("rules", ["none", "standard"])
@pytest.mark.parametrize("method", ["mean", "total"])
def test_degrees_of_freedom_and_standard_errors_are_those_of_the_numbers_told(method: str, rules: str) -> None:
    for missing in (1, 3, 7):
        found, values = answer(missing, method, rules)
        [row] = found.tables["estimates"]
        n, scale = len(values), 5_000 if method == "total" else 1
        error = scale * values.std() / np.sqrt(n) * (np.sqrt(1 - n / 5_000) if method == "total" else 1)
        assert found.facts["observations"] == n
        assert found.facts["missing"] == (None if rules == "none" else 0)
        assert found.df == n - 1
        assert row["estimate"] == pytest.approx(scale * values.mean(), rel=1e-9)
        assert row["std_error"] == pytest.approx(error, rel=1e-9)


def test_many_missing_are_told_and_count_in_the_degrees_of_freedom_as_in_r() -> None:
    """svymean(~hours, svydesign(~1, data = d), na.rm = TRUE), whose degf are 299."""
    found, values = answer(15, "mean", "none")
    [row] = found.tables["estimates"]
    assert (found.facts["missing"], found.df) == (15, 299)
    domain = np.sqrt(300 / 299 * ((values - values.mean()) ** 2).sum()) / len(values)
    assert row["std_error"] == pytest.approx(domain, rel=1e-9)
