"""Results of comparisons: one DuckDB file, one row a trial, keyed by what was asked of which version on which machine.

Failed trials are rows too. Writing a trial again replaces it, so that an interrupted comparison goes on where it was.
"""

import os
import platform
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb

from statfed.core.errors import UsageError
from statfed.lab.compare.tables import Tables
from statfed.lab.compare.trial import Trial

BASELINE = Path(__file__).parent / "baseline.csv"
"""Trials of a quick comparison, shipped: columns of `trials`."""
FORMAT = 1
TABLES = ("trials", "figures", "measures", "roles", "learns")
_SCHEMA = {
    "trials": "key VARCHAR PRIMARY KEY, scenario VARCHAR, profile VARCHAR, protection VARCHAR, options VARCHAR, "
    "level VARCHAR, seed BIGINT, version VARCHAR, status VARCHAR, reason VARCHAR, error DOUBLE, tolerance DOUBLE, "
    "reached BOOLEAN, local DOUBLE, bias DOUBLE, coverage DOUBLE, suppressed DOUBLE, epsilon DOUBLE, delta DOUBLE, "
    "unit VARCHAR, disclosures BIGINT, wall DOUBLE, processor DOUBLE, memory_mib DOUBLE, stages BIGINT, "
    "streams BIGINT, machine VARCHAR, created VARCHAR",
    "figures": "key VARCHAR, figure VARCHAR, pooled DOUBLE, value DOUBLE, low DOUBLE, high DOUBLE",
    "measures": "key VARCHAR, name VARCHAR, value DOUBLE",
    "roles": "key VARCHAR, role VARCHAR, party VARCHAR, processor DOUBLE, received BIGINT, sent BIGINT, "
    "messages BIGINT",
    "learns": "key VARCHAR, role VARCHAR, learns VARCHAR, protected_by VARCHAR",
}


@cache
def machine() -> str:
    """What the figures of time were taken on, in one line: processor, cores, system, Python."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


class Store:
    """An open store. Only one process may write; `opened` closes it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._db = connection

    def finished(self) -> dict[str, str]:
        """Key to status of every trial on this machine that needs no other attempt: a package may be there by now."""
        rows = self._db.execute(
            "SELECT key, status FROM trials WHERE status <> 'failed' AND machine = ? "
            "AND NOT (status = 'not-applicable' AND reason LIKE '%not installed%')",
            [machine()],
        ).fetchall()
        return {str(key): str(status) for key, status in rows}

    def add(self, trial: Trial, streams: int) -> None:
        """Write one trial, over an earlier attempt at it."""
        key = trial.cell.key()
        row = trial.row() | {
            "streams": streams,
            "machine": machine(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        tables = {"trials": [row]} | trial.details()
        self._db.begin()
        for name, rows in tables.items():
            self._db.execute(f"DELETE FROM {name} WHERE key = ?", [key])  # noqa: S608  # names are constants above
            self._insert(name, rows)
        self._db.commit()

    def _insert(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            marks = ", ".join("?" for _ in row)
            columns = ", ".join(row)
            self._db.execute(f"INSERT INTO {name} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608

    def trials(self) -> list[dict[str, Any]]:
        """All trials, in order of scenario, protection, level and seed."""
        return self.rows("trials", "scenario, protection, level, seed")

    def costs(self) -> dict[str, float]:
        """Scenario to the processor seconds that its trials took so far."""
        rows = self._db.execute("SELECT scenario, sum(processor) FROM trials GROUP BY scenario").fetchall()
        return {str(scenario): float(seconds) for scenario, seconds in rows}

    def rows(self, name: str, order: str = "ALL") -> list[dict[str, Any]]:
        """The rows of one of TABLES."""
        if name not in TABLES:
            raise UsageError(f"table: got {name}; want one of {', '.join(TABLES)}")
        found = self._db.execute(f"SELECT * FROM {name} ORDER BY {order}")  # noqa: S608  # checked above
        columns = [column[0] for column in found.description or ()]
        return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]

    def tables(self, keys: Collection[str] | None = None) -> Tables:
        """All tables, or the rows of some trials; with the measure `overhead`, see `overheads`."""
        found = {name: self.rows(name) for name in TABLES}
        if keys is not None:
            found = {name: [row for row in rows if row["key"] in keys] for name, rows in found.items()}
        found["measures"] += overheads(found["trials"])
        return Tables(**found)

    def export(self, folder: Path) -> list[Path]:
        """Each table as a Parquet file in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / f"{name}.parquet" for name in TABLES]
        for name, path in zip(TABLES, paths, strict=True):
            target = str(path).replace("'", "''")
            self._db.execute(f"COPY (SELECT * FROM {name} ORDER BY ALL) TO '{target}' (FORMAT parquet)")  # noqa: S608
        return paths


def overheads(trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of measure `overhead`: a trial's processor time over that of plain on the same world and machine.

    The plain trial is that of the same release level, or of the level with local noise where plain cannot share it.
    """

    def world(row: Mapping[str, Any], level: str) -> tuple[Any, ...]:
        return row["scenario"], row["profile"], row["seed"], row["machine"], row["version"], level

    done = [row for row in trials if row["status"] == "done"]
    plain = {world(row, row["level"]): row["processor"] for row in done if row["protection"] == "plain"}
    found = []
    for row in done:
        level = str(row["level"])
        base = plain.get(world(row, level)) or plain.get(world(row, level.removesuffix("-shared")))
        if base:
            found.append({"key": row["key"], "name": "overhead", "value": row["processor"] / base})
    return found


@contextmanager
def opened(path: Path, *, write: bool = False) -> Iterator[Store]:
    """The store at `path`; a new one where there is none and it is to be written.

    Raises UsageError when it is missing, is not one of ours, is of another format, or another process writes to it.
    """
    if not write and not path.is_file():
        raise UsageError(f"results: got {path}, which does not exist; want the file of a comparison (statfed compare)")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"results: {path}: its folder cannot be made: {error.strerror}; want another file") from None
    try:
        connection = duckdb.connect(str(path), read_only=not write)
    except duckdb.Error as error:
        busy = "lock" in str(error).lower()
        why = "another comparison is writing to it" if busy else "it is not a DuckDB file that can be read"
        raise UsageError(f"results: {path}: {why}; want another file (--results)") from None
    try:
        _prepare(connection, path, write)
        yield Store(connection)
    except duckdb.IOException as error:
        raise UsageError(f"results: {path}: it cannot be read or written: {error}; want another file") from None
    finally:
        connection.close()


def _prepare(connection: duckdb.DuckDBPyConnection, path: Path, write: bool) -> None:
    names = {str(row[0]) for row in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
    if not names and write:
        connection.execute("CREATE TABLE format (version BIGINT)")
        connection.execute("INSERT INTO format VALUES (?)", [FORMAT])
        for name, columns in _SCHEMA.items():
            connection.execute(f"CREATE TABLE {name} ({columns})")
        return
    if not set(TABLES) | {"format"} <= names:
        raise UsageError(
            f"results: {path}: got tables {', '.join(sorted(names)) or 'none'}; want those of a comparison"
        )
    found = connection.execute("SELECT max(version) FROM format").fetchone()
    if found != (FORMAT,):
        raise UsageError(f"results: {path}: got format {found and found[0]}; want {FORMAT}")
