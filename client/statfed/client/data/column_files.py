"""Parquet and Arrow files as one table of the embedded engine, in their own types. Private.

The files of a folder have the same columns, of the same types, and the same partitions (`year=2024/part.parquet`, whose
names become a column of text), or are refused.
"""

from pathlib import Path
from urllib.parse import quote, unquote

import pyarrow as pa

from statfed.client.data.engine import Engine, identifier, literal
from statfed.client.data.listing import Listing
from statfed.client.data.stored import check_schema
from statfed.client.data.text_views import copies
from statfed.core.errors import UsageError
from statfed.core.table import Expr

_DAMAGED = "it ends too early, is damaged or something else; want it written again"


def open_parquet(listing: Listing, engine: Engine, shown: str) -> tuple[Expr, int]:
    """The records of all files, and their number. Raises UsageError that names the file."""
    first: dict[str, pa.DataType] = {}
    keys: tuple[str, ...] = ()
    links, records = [], []
    for number, file in enumerate(listing.files):
        name = shown if listing.one else f"{shown}: {listing.name(file)}"
        columns, many = _schema(file, name)
        parts = _partitions(listing, file)
        _fits(columns, tuple(parts), first, keys, name, listing)
        if number == 0:
            first, keys = columns, tuple(parts)
        records.append(many)
        places = [f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in parts.items()]
        links.append(engine.link(file, *places, f"{number}.parquet"))
    copies(listing, records, shown)
    files = ", ".join(literal(str(link)) for link in links)
    names = ", ".join(identifier(name) for name in (*first, *keys))
    how = f"union_by_name = true, hive_partitioning = {str(bool(keys)).lower()}, hive_types_autocast = false"
    select = f"select {names} from read_parquet([{files}], {how})"  # noqa: S608  # quoted
    try:
        expr = engine.view(select)
        found = int(engine.execute("select count(*) from records")[0][0])
    except Exception:  # noqa: BLE001  # the engine's message may quote the data
        raise UsageError(f"{shown}: DuckDB cannot read it as Parquet: {_DAMAGED}") from None
    if found != sum(records):
        raise UsageError(f"{shown}: got {found} records and {sum(records)} by its own count; want it written again")
    return expr, found


def open_arrow(listing: Listing, engine: Engine, shown: str) -> tuple[Expr, int]:
    """The records of one Arrow file, and their number. Raises UsageError."""
    import pyarrow.dataset

    if not listing.one:
        raise UsageError(f"{shown}: got a folder of Arrow files; want one, or Parquet files")
    file = listing.files[0]
    if file.stat().st_size == 0:
        raise UsageError(f"{shown}: got an empty file; want an Arrow file")
    try:
        with pa.ipc.open_file(str(file)) as opened:
            check_schema(opened.schema, shown)
        data = pyarrow.dataset.dataset(str(file), format="ipc")
        records = 0
        for batch in data.to_batches():  # nobody else looks at lengths and offsets before memory is read by them
            batch.validate(full=True)
            records += batch.num_rows
    except (pa.ArrowException, OSError, ValueError):
        raise UsageError(f"{shown}: not readable as an Arrow file (IPC, not a stream): {_DAMAGED}") from None
    try:
        return engine.registered(data), records
    except Exception:  # noqa: BLE001  # the engine's message may quote the data
        kinds = ", ".join(sorted({str(kind) for kind in data.schema.types}))
        raise UsageError(f"{shown}: got types that DuckDB does not read from Arrow, of {kinds}; want Parquet") from None


def _schema(file: Path, name: str) -> tuple[dict[str, pa.DataType], int]:
    from pyarrow import parquet

    if file.stat().st_size == 0:
        raise UsageError(f"{name}: got an empty file; want Parquet")
    try:
        with parquet.ParquetFile(file) as opened:
            schema, records = opened.schema_arrow, opened.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError):
        raise UsageError(f"{name}: not readable as Parquet: {_DAMAGED}") from None
    check_schema(schema, name)
    if lasting := [field.name for field in schema if pa.types.is_duration(field.type)]:
        raise UsageError(f"{name}: {', '.join(lasting)}: got durations, whose unit Parquet does not keep; want numbers")
    if not schema.names:
        raise UsageError(f"{name}: got no columns; want at least one")
    return {field.name: _plain(field.type) for field in schema}, records


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type without what depends on the writer and not on the data."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    alike = {pa.large_string(): pa.string(), pa.string_view(): pa.string(), pa.large_binary(): pa.binary()}
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.list_(_plain(kind.value_type)) if pa.types.is_list(kind) else alike.get(kind, kind)


def _partitions(listing: Listing, file: Path) -> dict[str, str]:
    """Columns that the folders' names between the source and a file tell."""
    if listing.one:
        return {}
    parts = file.relative_to(listing.root).parts[:-1]
    return {unquote(key): unquote(value) for key, sign, value in (part.partition("=") for part in parts) if sign}


def _fits(
    columns: dict[str, pa.DataType],
    parts: tuple[str, ...],
    first: dict[str, pa.DataType],
    keys: tuple[str, ...],
    name: str,
    listing: Listing,
) -> None:
    if both := sorted({key.casefold() for key in parts} & {column.casefold() for column in columns}):
        raise UsageError(f"{name}: got {', '.join(both)} in the file and in the folder's name; want it once")
    if not first:
        return
    other = listing.name(listing.files[0])
    if parts != keys:
        raise UsageError(f"{name}: got folders {parts or 'without key=value'}; want {keys or 'none'}, as of {other}")
    if columns.keys() != first.keys():
        odd = sorted(columns.keys() ^ first.keys())
        raise UsageError(
            f"{name}: {', '.join(odd[:5])}: got in one of it and {other} alone; want the same columns in all"
        )
    for column, kind in columns.items():
        if pa.null() in (kind, first[column]):  # it has no value
            first[column] = kind if first[column] == pa.null() else first[column]
        elif kind != first[column]:
            raise UsageError(f"{name}: {column}: got {kind}; want {first[column]}, as in {other}")
