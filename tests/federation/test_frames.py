"""Tables in memory: read as they are, or refused in words that name the column and hold no value."""

import datetime as dt
from decimal import Decimal
from typing import Any

import duckdb
import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pytest

from statfed.core.errors import UsageError
from statfed.federation.federation import Federation
from statfed.federation.frames import as_arrow

SECRET = "zz-secret"
STREAM = pa.table({"x": [1.5, 2.5, None], "s": ["a", "b", "b"]})


class Streaming:
    """What polars data frames and other libraries offer."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return STREAM.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "data",
    [
        STREAM,
        STREAM.to_pandas(),
        STREAM.to_batches()[0],
        pyarrow.dataset.dataset(STREAM),
        Streaming(),
        duckdb.from_arrow(STREAM),
        ibis.memtable(STREAM),
        pa.table({"x": pa.array([Decimal("1.50"), Decimal("2.50"), None]), "s": STREAM["s"].dictionary_encode()}),
        pd.DataFrame({"x": pd.array([1.5, 2.5, None], "Float64"), "s": pd.Categorical(["a", "b", "b"])}),
        pd.DataFrame(
            {"x": pd.arrays.SparseArray(np.array([1.5, 2.5, np.nan])), "s": pd.array(["a", "b", "b"], "string")}
        ),
        pd.DataFrame({"x": [Decimal("1.50"), Decimal("2.50"), None], "s": ["a", "b", "b"]}),
    ],
)
def test_every_kind_of_table_gives_the_same_figures(data: Any) -> None:
    with Federation({"a": data}) as federation:
        [row] = federation.mean("x").tables["estimates"]
        assert (row["mean"], row["count"]) == (2.0, 2)
        assert federation.codebook is not None
        assert federation.codebook.columns["s"].levels == ("a", "b")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            pd.DataFrame({"x": [1, SECRET, 2.5]}),
            "a: x: got values of type float, int, str in one column; want one type",
        ),
        (pd.DataFrame({"x": [dt.date(2020, 1, 1), SECRET]}), "a: x: got values of type date, str in one column"),
        (pd.DataFrame({"x": [10**30, 1]}), "a: x: got whole numbers beyond 64 bits; want them as floats or as text"),
        (pd.DataFrame({"x": [1 + 2j, 3]}), "a: x: got complex128; want one type"),
        (pd.DataFrame({"x": pd.to_timedelta([1], unit="D")}), "a: x: got timedelta64"),
        (pd.DataFrame({"x": pd.period_range("2020-01", periods=2, freq="M")}), "a: x: got period"),
        (pd.DataFrame({"x": pd.interval_range(0, 2)}), "a: x: got interval"),
        (pd.DataFrame({"x": [{"k": SECRET}]}), "a: x: got struct; want one type"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "a: got columns 1 and 2 of one name"),
        (pd.DataFrame([[1, 2]], columns=["x", "X"]), "a: got columns 1 and 2 of one name"),
        (pd.DataFrame([[1, 2]], columns=[1, "1"]), "a: got columns 1 and 2 of one name"),
        (pa.table([[1], [2]], names=["x", "x"]), "a: got columns 1 and 2 of one name"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")])), "a: got column names on 2 levels"),
        (pd.DataFrame({"": [1]}), "a: got a column without a name"),
        (pd.DataFrame(), "a: got a table without columns"),
        (pa.table({"x": pa.array([Decimal("1.5")], pa.decimal256(40, 2))}), "x: got decimals of more than 38 digits"),
        ([1, 2], "a: got list; want a path"),
        ({"x": [1]}, "a: got dict; want a path"),
        (pd.Series([1], name="x"), "a: got Series; want a path"),
        (np.array([[1]]), "a: got ndarray; want a path"),
        (None, "a: got NoneType; want a path"),
    ],
)
def test_what_is_no_table_of_a_codebook_is_refused_without_a_value(data: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Federation({"a": data}).count()
    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("holders", [[("a", STREAM)], STREAM.to_pandas(), None])
def test_holders_that_are_no_mapping_are_refused(holders: Any) -> None:
    with pytest.raises(UsageError, match="want a mapping of a name to each holder's data"):
        Federation(holders)


def test_a_frame_without_records_adds_nothing() -> None:
    with Federation({"a": STREAM, "b": STREAM.slice(0, 0)}) as federation:
        assert federation.mean("x").tables["estimates"][0]["count"] == 2


def test_an_index_is_no_column_and_the_order_of_columns_stays() -> None:
    frame = pd.DataFrame({"b": [1], "a": [2]}, index=pd.Index(["i"], name="row"))
    assert as_arrow("a", frame).column_names == ["b", "a"]
