"""Where a holder's records are: a file or a table of a database, opened for reading only. Private.

Files are read by an embedded DuckDB, always the same way whatever stands in them: CSV as text (what a column means is
the codebook's business, so that '01' stays '01' and no two holders guess different types), Parquet and Arrow in their
own types, DuckDB databases attached. Every record of a file is read, or the file is refused: see `listing`, `lines`,
`text_files`, `column_files`; `reading` has the options of text files. SQLite stores any value in any column, so its
table is copied as text into the embedded engine, a batch at a time. Every other database is reached by URL through Ibis
and computes by itself. `engine` says what is written to disk meanwhile.

Another package brings a kind of source by an entry point in the group `statfed.sources` that names a module with

    SCHEMES: tuple[str, ...]     of URLs: ("sas",) for sas://server/people
    SUFFIXES: tuple[str, ...]    of files and folders, in lower case: (".sav",)
    open_source(source: str, home: Path) -> pyarrow.Table | pyarrow.dataset.Dataset | ibis Table
    state(source: str, home: Path) -> str       something that changes when the data change

one of SCHEMES and SUFFIXES at least. `source` is what the holder wrote, a path relative to `home` or absolute. Arrow
data are read by the embedded engine; an Ibis table brings a connection of its own, which is closed with the source. It
is imported when a source is of no built-in kind. A built-in scheme or suffix cannot be taken. Of what a plugin raises,
the type alone is told: its words may quote the data.
"""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from statfed.client.data import listing as files
from statfed.client.data.brought import Kind, find
from statfed.client.data.column_files import open_arrow, open_parquet
from statfed.client.data.engine import engine, identifier, literal
from statfed.client.data.reading import START, Signs, joined, parsed, split
from statfed.client.data.stored import alike, check_schema
from statfed.client.data.text_views import open_texts
from statfed.core.errors import UsageError
from statfed.core.table import BATCH, Expr

_POSTGRES = ("postgres", "postgresql")
_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:[^/?#@]*@)?"
    r"(?P<place>(?:[A-Za-z0-9._~*-]*|\[[0-9A-Fa-f:.]*\])(?::[0-9]+)?(?:/[^?#@]*)?)(?:\?[^@]*)?"
)
_EXTRA = {"postgres": "statfed[postgres]", "postgresql": "statfed[postgres]"}


@dataclass(frozen=True)
class Source:
    """An opened source of one holder. Use it in a `with` block, or `close` it.

    expr: Ibis table of the raw columns; embedded: does the engine run in this process (DuckDB)? signs: how its text
    writes numbers, where the holder stated it; files, skipped: names of the files that were read, and of those of a
    folder or pattern that were left out.
    """

    expr: Expr
    embedded: bool
    _state: Callable[[], str] = field(repr=False)
    _open: ExitStack = field(repr=False)
    signs: Signs | None = None
    files: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def numeric(self, name: str) -> Expr:
        """A column as one of numbers: as it is, or text with the stated signs made plain."""
        raw = self.expr[name]
        return self.signs.plain(raw) if self.signs and raw.type().is_string() else raw

    def fingerprint(self) -> str:
        """SHA-256 that changes when the data change: of files' sizes and times, of a database's count and hashes."""
        return hashlib.sha256(self._state().encode()).hexdigest()

    def close(self) -> None:
        """Close the connection and remove temporary files. Closing twice is allowed."""
        self._open.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return "Source(<private>)"


def connect(source: str, home: Path) -> Source:
    """Open `source` for reading: a path, relative to `home` or absolute, with options as `reading` has them, a URL with
    `?table=`, or what a plugin reads.

    Raises UsageError when it is not there, is of no known form or cannot be opened; never with a password in it.
    """
    try:
        return _connect(source, home)
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001  # a malformed source, or a folder that may not be read; its words may quote either
        raise UsageError(f"{shown(source)}: cannot be opened ({type(error).__name__}); want {files.WANTED}") from None


def shown(source: str) -> str:
    """`source` without what may be secret: of a URL its scheme, host and path, of a file its name as it was written.

    What is neither a well-formed URL nor plainly a path is not shown at all, apart from its scheme: a URL with a slash
    too few, or with signs in its password that belong quoted, has the password in a place where nobody looks for it.
    """
    if found := _URL.fullmatch(source):
        return f"{found['scheme']}://{found['place']}"
    source = source if "://" in source else START.split(source)[0]
    scheme, sign, _ = source.partition(":/")
    if sign and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return f"{scheme}:..."
    return "the data source" if "@" in source or ":" in source else source


def _connect(source: str, home: Path) -> Source:
    kind = find(source, home, shown(source), _schemes(), files.SUFFIXES)
    if kind:
        return _opened(kind, source, home, shown(source))
    if "://" in source:
        url = urlsplit(source)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        table = query.pop("table", "")
        if not table:
            raise UsageError(f"{shown(source)}: got no table; want ?table=NAME at the end of the URL")
        if url.scheme in ("duckdb", "sqlite"):
            return _database_file(source, table, home)
        return _server(source, table, query)
    return _files(source, home)


def _files(source: str, home: Path) -> Source:
    path, options = split(source, home)
    name = shown(source)
    found = files.listing(path, home, name)
    if found.form is None:
        end = found.files[0].suffix or "no"
        raise UsageError(f"{name}: got {end} extension; want {files.WANTED}")
    reading = parsed(options, name)
    if options and found.form not in ("csv", "tsv"):
        raise UsageError(f"{name}: got options of a text file for one of {found.form}; want none")
    state = partial(_stamp, found.files, options)
    before = state()
    with ExitStack() as stack:
        connection = engine(stack)
        if found.form in ("csv", "tsv"):
            expr, _ = open_texts(found, reading, connection, name)
        else:
            expr, _ = (open_parquet if found.form == "parquet" else open_arrow)(found, connection, name)
        if state() != before:
            raise UsageError(f"{name}: it changed while it was read; want it left alone meanwhile")
        names = tuple(found.name(file) for file in found.files)
        return Source(expr, True, state, stack.pop_all(), reading.signs, names, found.skipped)


def _schemes() -> frozenset[str]:
    """Of built-in URLs: of databases that are files, and of all that Ibis knows."""
    return frozenset({"duckdb", "sqlite", *_POSTGRES, *(point.name for point in entry_points(group="ibis.backends"))})


def _opened(kind: Kind, source: str, home: Path, shown: str) -> Source:
    import ibis
    import pyarrow.dataset

    with ExitStack() as stack:
        found = kind.open_source(source, home, shown)
        if isinstance(found, pyarrow.Table | pyarrow.dataset.Dataset):
            check_schema(found.schema, shown)
            connection = engine(stack).ibis
            try:
                connection.con.register("brought", found)
                expr = connection.table("brought")
            except Exception:  # noqa: BLE001  # the engine's message may quote the data
                raise UsageError(f"{shown}: what {kind.plugin} gives cannot be read by DuckDB") from None
        elif isinstance(found, ibis.Table):
            expr, connection = found, found.get_backend()
            stack.callback(connection.disconnect)
        else:
            got = type(found).__name__
            raise UsageError(
                f"{shown}: got {got} from {kind.plugin}; want a pyarrow Table or Dataset, or an Ibis table"
            )
        state = partial(kind.state, source, home, shown)
        return Source(expr, connection.name == "duckdb", state, stack.pop_all())


def _database_file(source: str, table: str, home: Path) -> Source:
    path, url = database_path(source, home), urlsplit(source)
    with ExitStack() as stack:
        connection = engine(stack).ibis
        try:
            if url.scheme == "duckdb":
                connection.con.execute(f"attach {literal(str(path))} as source (read_only)")
                schema, _, name = table.rpartition(".")
                expr = connection.table(name, database=("source", schema or "main"))
            else:
                _copy_sqlite(path, table, connection.con)
                expr = connection.table("copied")
        except UsageError:
            raise
        except Exception:  # noqa: BLE001  # the engine's message may quote the data
            what = f" with a table {table!r}" if _URL.fullmatch(source) else ""
            raise UsageError(f"{shown(source)}: no readable {url.scheme} database{what}") from None
        parts = [p for p in (path, Path(f"{path}.wal"), Path(f"{path}-wal")) if p.exists()]
        return Source(expr, True, lambda: f"{table}\n{_stamp(parts)}", stack.pop_all())


def database_path(source: str, home: Path) -> Path:
    """The file of a database by URL. `duckdb://c.db` and `duckdb:///c.db` are relative to home, the latter absolute if
    there is no such file. Raises UsageError when there is neither."""
    url = urlsplit(source)
    tail = unquote(url.netloc + url.path)
    relative = home / tail.lstrip("/")
    try:
        found = next((p for p in (relative, Path(tail)) if p.is_file()), None)
    except (OSError, ValueError):  # a name that no file can have
        found = None
    if found is None:
        raise UsageError(f"{shown(source)}: no such file; want {url.scheme}:///PATH?table=NAME")
    return found


def _copy_sqlite(path: Path, table: str, target: Any) -> None:
    """Copy a SQLite table as text, a batch at a time; numbers in the shortest form that reads back equal."""
    import pyarrow as pa

    with sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True) as connection:
        cursor = connection.execute(f"select * from {identifier(table)}")  # noqa: S608  # quoted
        names = [column[0] for column in cursor.description]
        if twice := alike(names):
            raise UsageError(f"{table}: got {', '.join(twice)} as the name of several columns; want one of each name")
        schema = pa.schema([(name, pa.string()) for name in names])
        target.register("batch", schema.empty_table())
        target.execute("create table copied as select * from batch")
        while rows := cursor.fetchmany(BATCH):
            columns = [pa.array(map(_text, column), pa.string()) for column in zip(*rows, strict=True)]
            target.register("batch", pa.Table.from_arrays(columns, schema=schema))
            target.execute("insert into copied select * from batch")
        target.unregister("batch")
    connection.close()


def _text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return (
        f"x'{value.hex()}'" if isinstance(value, bytes) else str(value)
    )  # as SQLite writes it: no number, whatever it has


def _server(source: str, table: str, query: Mapping[str, str]) -> Source:
    import ibis

    url = urlsplit(source)
    schema, _, name = table.rpartition(".")
    with ExitStack() as stack:
        try:
            if url.scheme in _POSTGRES:
                connection = ibis.postgres.connect(**_postgres(url, query))
            else:
                connection = ibis.connect(url._replace(query=urlencode(query)).geturl())
            stack.callback(connection.disconnect)
            database: Any = tuple(schema.split(".")) if "." in schema else schema or None
            expr = connection.table(name, database=database)
        except ImportError as error:
            extra = _EXTRA.get(url.scheme, f"ibis-framework[{url.scheme}]")
            raise UsageError(f"{shown(source)}: its driver is not installed; want pip install '{extra}'") from error
        except Exception as error:  # noqa: BLE001  # whatever a driver raises; without its words where they may tell
            if not _URL.fullmatch(source):  # neither the table nor the driver's words can be told from a password
                raise UsageError(f"{shown(source)}: cannot be opened; want {files.WANTED}") from None
            raise UsageError(f"{shown(source)}: table {table!r} cannot be opened: {_reason(error, url)}") from None
        return Source(expr, connection.name == "duckdb", lambda: _contents(expr, table), stack.pop_all())


def _postgres(url: SplitResult, query: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of psycopg. What the URL leaves out libpq reads from PGPASSWORD, ~/.pgpass and the like."""
    given = {
        "host": url.hostname,
        "port": url.port,
        "user": unquote(url.username) if url.username else None,
        "password": unquote(url.password) if url.password else None,
        "database": unquote(url.path.strip("/")) or None,
    }
    read_only = {"options": "-c default_transaction_read_only=on"}
    return {key: value for key, value in given.items() if value is not None} | dict(query) | read_only


def _contents(expr: Expr, table: str) -> str:
    """Schema, number of records and sum of record hashes, computed in the database by one scan."""
    import ibis

    cells = [expr[name].cast("string").fill_null("\x01") for name in expr.columns]
    separator: Expr = ibis.literal("\x02")
    record = separator.join(cells).hash() % 2_147_483_647
    found = expr.aggregate(count=expr.count(), hashes=record.sum()).to_pyarrow().to_pylist()[0]
    return f"{table}\n{expr.schema()}\n{found['count']}\n{found['hashes']}"


def _stamp(paths: Sequence[Path], more: str = "") -> str:
    stats = [(p, p.stat()) for p in paths]
    return "\n".join([*(f"{p.name} {s.st_size} {s.st_mtime_ns}" for p, s in stats), *filter(None, [more])])


def _reason(error: Exception, url: SplitResult) -> str:
    """First line of a driver's message, without the secrets that came with the URL."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    for secret in _secrets(url):
        line = line.replace(secret, "***")
    return line


def _secrets(url: SplitResult) -> Iterator[str]:
    values = [url.password or "", *(v for k, v in parse_qsl(url.query) if re.search("pass|token|secret|key", k))]
    for value in values:
        yield from {value, unquote(value)} - {""}


def absolute(source: str, base: Path) -> str:
    """`source` with its path made absolute from `base`, for a holder whose home is elsewhere. Servers stay as they are.

    Raises UsageError when a database file is not there.
    """
    if "://" not in source:
        try:
            path, options = split(source, base)
            return joined(str((base / Path(path).expanduser()).absolute()), options)
        except RuntimeError:
            raise UsageError(f"{shown(source)}: got the folder of a user that is none; want {files.WANTED}") from None
    try:
        url = urlsplit(source)
    except ValueError:
        raise UsageError(f"{shown(source)}: got a malformed URL; want {files.WANTED}") from None
    if url.scheme not in ("duckdb", "sqlite"):
        return source
    return f"{url.scheme}:///{database_path(source, base).absolute()}?{url.query}"
