"""Which data set a source is, told without reading it all: so that one data set on a machine has one ledger.

A data set has several keys, each of which names it by itself. Of a file: its path, with links followed, and a digest of
its content; of a folder or a pattern: those of each file of data in it, and the folder. So a copy, a symbolic link, a
part of a folder, and the same file after an update are found; a hard link to a file that was edited since is found by
who compares the files themselves. Of a table in a database that is a file: path and content, each with the name of the
table. Of a server: host, port, database and table, never user or password.

The digest is of a file's size and all of its bytes up to `WHOLE`, else of `SAMPLES` blocks spread evenly over it, first
and last included: 4 MiB at most are read of a file of any size. It is a fingerprint against forgetfulness, not against
whoever is bent on a second budget, who could as well change every record: a full digest, which takes as long as reading
the file (measured on a slow disk: 2 GB in 20 seconds, against 0.03), would be no harder to get around. Two data sets of
one size that agree in all the blocks are taken for one. That is an error on the side of refusal, and the refusal says
which ledger it means.

Not told: a table copied into another database or format; a view of a table; a server by two of its names; a copy in
which anything was changed within the blocks.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from statfed.client.data.listing import listing
from statfed.client.data.reading import split
from statfed.core.errors import UsageError

WHOLE = 4 * 2**20
SAMPLES = 64
_BLOCK = WHOLE // SAMPLES
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433, "clickhouse": 8123}
_LOCAL = {"", "localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True)
class Identity:
    """keys: each names the data set; files: those that are read for it, as they are now."""

    keys: frozenset[str]
    files: tuple[Path, ...]


Digest = Callable[[Path], str]


def identity(source: str, home: Path, digest: Digest) -> Identity:
    """The identity of `source`, as a policy names it. digest: of a file, see `content`. Raises OSError on reading."""
    scheme, sign, _ = source.partition("://")
    scheme = scheme.lower()
    if sign and scheme in ("duckdb", "sqlite"):
        return _database(source, home, digest)
    if sign:
        return Identity(frozenset({f"table:{_table(source)}"}), ())
    written, _ = split(source, home)
    path = home / Path(written).expanduser()
    keys = set() if any(mark in written for mark in "*?[") and not path.exists() else {f"path:{path.resolve()}"}
    try:
        files = listing(written, home, "").files
    except UsageError:  # it cannot be opened either
        files = ()
    for file in files:
        keys |= {f"path:{file.resolve()}", f"content:{digest(file)}"}
    return Identity(frozenset(keys), files)


def content(file: Path) -> str:
    """The digest of a file's content: of all of it, or of blocks spread evenly over it."""
    size = file.stat().st_size
    found = hashlib.sha256(str(size).encode() + b"\n")
    with file.open("rb") as opened:
        if size <= WHOLE:
            found.update(opened.read(WHOLE))
        else:
            for number in range(SAMPLES):
                opened.seek((size - _BLOCK) * number // (SAMPLES - 1))
                found.update(opened.read(_BLOCK))
    return found.hexdigest()


def stamp(file: Path) -> str:
    """What changes when a file is written: its size, time and place on disk."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_dev} {found.st_ino}"


def _database(source: str, home: Path, digest: Digest) -> Identity:
    from statfed.client.data.sources import database_path

    table = dict(parse_qsl(source.partition("?")[2])).get("table", "").lower().removeprefix("main.")
    try:
        path = database_path(source, home)
    except (UsageError, ValueError):  # it cannot be opened either
        return Identity(frozenset(), ())
    keys = {f"path:{path.resolve()} {table}", f"content:{digest(path)} {table}"}
    return Identity(frozenset(keys), ())


def _table(source: str) -> str:
    """A server's table, without user, password and the ways of writing it that mean the same."""
    try:
        url = urlsplit(source)
        port = url.port
    except ValueError:  # malformed: it cannot be opened either
        return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()
    scheme = {"postgres": "postgresql"}.get(url.scheme, url.scheme)
    host = (url.hostname or "").lower()
    host = "localhost" if host in _LOCAL else host
    query = dict(parse_qsl(url.query))
    table = query.get("table", "").lower().removeprefix("public.").removeprefix("dbo.")
    return f"{scheme}://{host}:{port or _PORTS.get(scheme, '')}/{unquote(url.path.strip('/'))} {table}"
