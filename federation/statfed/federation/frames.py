"""Tables in memory as Arrow: what a user hands over beside files and URLs, read right or refused before it is stored.

Read are pandas data frames, Arrow tables, datasets and record batches, and whatever offers itself as a stream of Arrow
data: polars data frames, DuckDB relations, Ibis tables. Refused, naming the column and never a value: several types in
one column, two columns of one name, column names on several levels, and what has no place in a codebook (complex
numbers, periods, intervals, durations, structs, whole numbers beyond 64 bits, decimals of negative scale).
"""

from typing import Any

from statfed.client.data.stored import alike
from statfed.core.errors import UsageError

WANT = "a path, a URL, a pandas or polars DataFrame, an Arrow table, or a DuckDB relation"
_TYPES = "want one type: numbers, text, truth values or dates"
_SHOWN = 5  # types named in a message


def as_arrow(name: str, data: Any) -> Any:
    """A holder's table as a pyarrow Table. Raises UsageError that begins with the holder's name."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset

    if isinstance(data, pd.DataFrame):
        table = _from_pandas(name, data)
    elif isinstance(data, pa.Table):
        table = data
    elif isinstance(data, pyarrow.dataset.Dataset):
        table = data.to_table()
    else:
        table = _from_stream(name, data)
    if not table.num_columns:
        raise UsageError(f"{name}: got a table without columns; want at least one")
    _unique(name, table.column_names)
    return pa.table({field.name: _column(name, field.name, table.column(field.name)) for field in table.schema})


def _from_stream(name: str, data: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    what = type(data).__name__
    streams = hasattr(data, "__arrow_c_stream__") and not isinstance(data, pd.Series)
    if streams or isinstance(data, pa.RecordBatch | pa.RecordBatchReader):
        try:
            return pa.table(data)
        except Exception as error:  # noqa: BLE001  # whatever a library raises; its words may quote the data
            what += f" that raised {type(error).__name__} when it was read"
    raise UsageError(f"{name}: got {what}; want {WANT}")


def _from_pandas(name: str, frame: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    if isinstance(frame.columns, pd.MultiIndex):
        raise UsageError(f"{name}: got column names on {frame.columns.nlevels} levels; want one name for each column")
    names = [str(column) for column in frame.columns]
    _unique(name, names)
    if not names:
        raise UsageError(f"{name}: got a table without columns; want at least one")
    return pa.table({column: _from_series(name, column, frame.iloc[:, i]) for i, column in enumerate(names)})


def _from_series(name: str, column: str, series: Any) -> Any:
    import pandas as pd
    import pyarrow as pa

    if isinstance(series.dtype, pd.SparseDtype):
        series = series.sparse.to_dense()
    if isinstance(series.dtype, pd.PeriodDtype | pd.IntervalDtype) or series.dtype.kind in "cm":
        raise UsageError(f"{name}: {column}: got {_kind(series.dtype)}; {_TYPES}")
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):  # their words quote the value
        types = sorted({type(value).__name__ for value in series[series.notna()]})
    if types == ["int"]:
        raise UsageError(f"{name}: {column}: got whole numbers beyond 64 bits; want them as floats or as text")
    shown = ", ".join(types[:_SHOWN]) + (", ..." if len(types) > _SHOWN else "")
    raise UsageError(f"{name}: {column}: got values of type {shown} in one column; {_TYPES}")


def _column(name: str, column: str, values: Any) -> Any:
    """A column of a type that can be stored and read as it is."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        values = values.cast(kind)
    if str(kind) in ("string_view", "large_string"):
        return values.cast(pa.string() if str(kind) == "string_view" else pa.large_string())
    refused = (
        pa.types.is_duration(kind)
        or pa.types.is_interval(kind)
        or pa.types.is_struct(kind)
        or pa.types.is_map(kind)
        or pa.types.is_union(kind)
        or isinstance(kind, pa.BaseExtensionType)
        or (pa.types.is_decimal(kind) and kind.scale < 0)
    )
    if refused:
        raise UsageError(f"{name}: {column}: got {_kind(kind)}; {_TYPES}")
    return values


def _kind(kind: Any) -> str:
    return str(kind).partition("<")[0]


def _unique(name: str, columns: list[str]) -> None:
    twice = alike(columns)
    if twice:
        raise UsageError(f"{name}: got {', '.join(twice)} as the name of several columns; want one column of each name")
    if not all(column.strip() for column in columns):
        raise UsageError(f"{name}: got a column without a name; want one for each")
