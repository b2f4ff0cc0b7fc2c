"""A user's own records, read as a holder's are, on this machine alone: for predictions, and for synthetic data."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from statfed.client.data.tables import Mismatch, connect, local_mismatches, open_table
from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError


def own_records(
    data: Any, codebook: Codebook, names: Sequence[str], what: str = "the model", called: str = "data"
) -> Any:
    """Columns of the user's own records as Arrow, in their order, as a holder's are read; missing values are null.

    data: a path, a data frame or an Arrow table. what: that they have to fit; called: what messages call them.
    Raises UsageError naming the column, with counts and examples: they are the user's own.
    """
    given = {name: _optional(codebook.columns[name]) for name in names}
    loose = Codebook(columns=given)
    with TemporaryDirectory(prefix="statfed-") as folder:
        source = data if isinstance(data, str | Path) else _written(data, Path(folder))
        with connect(str(source), Path.cwd()) as opened:
            if not opened.embedded:
                raise UsageError("data: got a table of a database server, which has no order; want a file")
            found = local_mismatches(opened, loose, names)
            if found:
                raise UsageError(f"{called} do not fit {what}:\n  " + "\n  ".join(map(_shown, found)))
            return open_table(opened, loose, (), names).rows(names)


def _optional(column: Column) -> Column:
    return column.model_copy(update={"required": False, "role": None})


def _shown(found: Mismatch) -> str:
    examples = f" (for example {', '.join(found.examples)})" if found.examples else ""
    return f"{found.message}{examples}"


def _written(data: Any, folder: Path) -> Path:
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    arrow = pa.Table.from_pandas(data, preserve_index=False) if isinstance(data, pd.DataFrame) else data
    if not isinstance(arrow, pa.Table):
        raise UsageError(f"data: got {type(data).__name__}; want a path, a DataFrame or an Arrow table")
    path = folder / "records.parquet"
    parquet.write_table(arrow, path)
    return path
