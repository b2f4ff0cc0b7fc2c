"""`describe` against pandas on the pooled data."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.federate import codebook_of, federate, split

CODEBOOK = codebook_of({"income": ("number", -1e7, 1e7), "age": ("integer", 0, 120), "works": "boolean"})


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), holders=st.integers(1, 5), n=st.integers(2, 60))
def test_equals_pooled_pandas_however_the_records_are_split(seed: int, holders: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"income": rng.normal(1e6, 3, n), "age": rng.integers(0, 99, n), "works": rng.random(n) < 0.5})
    frame["income"] = frame["income"].where(rng.random(n) < 0.9)
    result = federate("describe", split(frame, holders, seed), CODEBOOK, columns=["income", "age", "works"])
    shown = result.to_pandas().set_index("column")
    for name in ("income", "age", "works"):
        pooled = frame[name].astype(float)
        assert shown.loc[name, "count"] == pooled.count()
        assert shown.loc[name, "missing"] == pooled.isna().sum()
        if pooled.count() > 1:
            assert shown.loc[name, "mean"] == pytest.approx(pooled.mean(), rel=1e-12)
            assert shown.loc[name, "variance"] == pytest.approx(pooled.var(), rel=1e-9)
            assert shown.loc[name, "std_error"] == pytest.approx(pooled.sem(), rel=1e-9)


def test_no_records_at_all_gives_nulls_not_zeros() -> None:
    frame = pd.DataFrame({"income": [], "age": [], "works": []})
    row = federate("describe", [frame, frame], CODEBOOK, columns=["age"]).to_dict()["columns"][0]
    assert (row["count"], row["mean"], row["variance"], row["std_error"]) == (0, None, None, None)
