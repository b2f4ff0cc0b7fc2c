"""A private PostgreSQL server for tests: its own data folder and port on loopback, always stopped.

`postgres` is a module fixture; a test module imports it. Where the server's binaries are missing the tests that use
it are skipped with that message. Binaries are looked for on the PATH, under /usr/lib/postgresql/*/bin and in
STATFED_POSTGRES_BIN. PostgreSQL does not run as root: as root the server gets another user's id.
"""

import ctypes
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import pytest

USER = "holder"
_ENTRY = "@@entry@@"  # starts every entry of the log, as statements have line ends
_OTHERS = ("postgres", "nobody", "daemon")


@dataclass(frozen=True)
class Server:
    """A running server with one database `test`."""

    port: int
    password: str
    log: Path

    def url(self, table: str, **query: str) -> str:
        """Source of a table, as a holder's policy or `--holder` names it."""
        rest = "".join(f"&{key}={quote(value)}" for key, value in query.items())
        return f"postgres://{USER}:{quote(self.password)}@127.0.0.1:{self.port}/test?table={table}{rest}"

    def connect(self) -> Any:
        """A psycopg connection that commits at once."""
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=self.password, dbname="test", autocommit=True
        )

    def execute(self, *statements: str) -> None:
        """Run statements of a test's set-up."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement)

    def load(self, table: str, types: Mapping[str, str], rows: pd.DataFrame) -> None:
        """Create `table` anew with columns of `types` and copy `rows` into it; None and NaN become null."""
        columns = ", ".join(f'"{name}" {kind}' for name, kind in types.items())
        whole = [kind in ("smallint", "integer", "bigint") for kind in types.values()]  # pandas has floats where nulls
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"drop table if exists {table}")
            cursor.execute(f"create table {table} ({columns})")
            with cursor.copy(f"copy {table} from stdin") as copy:
                for row in rows[list(types)].astype(object).itertuples(index=False):
                    copy.write_row(
                        [None if pd.isna(v) else int(v) if w else v for v, w in zip(row, whole, strict=True)]
                    )

    def statements(self) -> list[str]:
        """Every statement the server was sent so far, oldest first."""
        found = []
        for entry in self.log.read_text(encoding="utf-8").split(_ENTRY):
            kind, _, text = entry.partition(":  ")
            mark = re.match(r"(statement|execute [^:]*): ", text)
            if kind == "LOG" and mark:
                found.append(text[mark.end() :].strip())
        return found


def binaries() -> Path | None:
    """The folder with initdb and postgres, or None."""
    places = [os.environ.get("STATFED_POSTGRES_BIN", ""), *map(str, _installed())]
    on_path = shutil.which("initdb")
    if on_path:
        places.append(str(Path(on_path).resolve().parent))
    return next(
        (Path(p) for p in places if p and (Path(p) / "initdb").exists() and (Path(p) / "postgres").exists()), None
    )


def _installed() -> Sequence[Path]:
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def _unprivileged() -> tuple[int, int] | None:
    """User and group to start the server as, None for this process's own."""
    if os.geteuid() != 0:
        return None
    for name in _OTHERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres, nobody or daemon to run it as")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server() -> Iterator[Server]:
    """Start a server in a temporary folder; stop it and remove the folder whatever happens."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'statfed[postgres]'")
    where = binaries()
    if where is None:
        pytest.skip("PostgreSQL's server binaries (initdb, postgres) are not installed")
    who = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="statfed-postgres-"))
    if who:
        os.chown(folder, *who)
    data, log, port, password = folder / "data", folder / "log", _free_port(), secrets.token_hex(16)
    secret = folder / "password"
    secret.write_text(password, encoding="utf-8")
    if who:
        os.chown(secret, *who)

    started: dict[str, Any] = {
        "user": who[0] if who else None,
        "group": who[1] if who else None,
        "extra_groups": [] if who else None,
        "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(folder)},
        "cwd": folder,
        "stdin": subprocess.DEVNULL,
    }
    initialise: list[str | Path] = [
        where / "initdb",
        "-D",
        data,
        "-U",
        USER,
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--no-sync",
    ]
    settings = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}", "fsync=off"]
    settings += ["log_statement=all", f"log_line_prefix={_ENTRY}"]
    try:
        subprocess.run([*initialise, "--encoding=UTF8"], check=True, capture_output=True, timeout=60, **started)
        with log.open("w") as written:
            process = subprocess.Popen(
                [where / "postgres", "-D", data, *(part for each in settings for part in ("-c", each))],
                stdout=written,
                stderr=written,
                preexec_fn=_end_with_parent,  # a killed test run leaves no server behind
                **started,
            )
        try:
            _create(port, password, process, log)
            yield Server(port, password, log)
        finally:
            process.send_signal(signal.SIGQUIT)  # immediate shutdown
            process.wait(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGQUIT)  # PR_SET_PDEATHSIG


def _create(port: int, password: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Create the database as soon as the server answers."""
    import psycopg

    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"postgres ended: {log.read_text(encoding='utf-8')}")
        try:
            with psycopg.connect(
                host="127.0.0.1", port=port, user=USER, password=password, dbname="postgres", autocommit=True
            ) as connection:
                connection.execute("create database test")
                return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise RuntimeError(f"postgres does not answer: {log.read_text(encoding='utf-8')}")


@pytest.fixture(scope="module")
def postgres() -> Iterator[Server]:
    """One server for all tests of a module; no child of the test process stays behind for others to find."""
    with server() as running:
        yield running
