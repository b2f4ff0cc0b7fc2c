"""What a machine knows of its ledgers, apart from them: how far each has come, and which data set each accounts for.

One SQLite file a user, of mode 0600: `$STATFED_REGISTER`, else `statfed/register.sqlite` under `$XDG_STATE_HOME` or
`~/.local/state`. It keeps, for each chain (`statfed.client.guard.chain`, named by the hash of its first entry), where
it lies, its last number and head, and a copy of its entries; and, for each data set, the chain that accounts for it.

Formal guarantees.

1. *A copy put back is noticed.* A chain is opened for writing only where it holds the last entry that this register
   knows of it, and what is appended is in the register before the act that it accounts for goes on. So a ledger that is
   behind is refused, also by the process that was running when it was put back, and whatever became of the marker
   beside it. A register that fails stops everything. It is behind the ledger at most by what a power cut or a kill took
   between the two, and catches up at the next opening.
2. *A chain that was begun under a register is not written without it.* Its first entry says so. A backup on another
   machine, or after the register was lost too, wants an anchor (`statfed.client.guard.restoring`).
3. *One data set, one chain.* A second home on the same data of this machine is refused, unless the first never recorded
   anything. What "the same" means is in `statfed.client.data.identity`; data are never taken for others' silently: the
   error is a refusal that says which ledger is meant.

Not protected against: who puts back register, ledger and marker together (a snapshot of the machine), runs holders
under several users or machines, or names another register. These show against an anchor only. A simulation, where one
person plays all parties, keeps a register inside its workspace, of which `POINTER` in each home tells, and binds no
data: its homes are one a study, and it begins new budgets on purpose.
"""

import os
import sqlite3
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from statfed.client.data.identity import content, stamp
from statfed.client.guard.files import write_private
from statfed.core.errors import EngineError

POINTER = "register.path"
"""In a simulated home: the path of its register, relative to the home."""
Row = tuple[Any, ...]
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS chains (first TEXT PRIMARY KEY, path TEXT NOT NULL, seq INTEGER NOT NULL, "
    "head TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS entries (first TEXT NOT NULL, seq INTEGER NOT NULL, time TEXT NOT NULL, kind TEXT NOT "
    "NULL, run TEXT NOT NULL, study TEXT NOT NULL, round INTEGER NOT NULL, event TEXT NOT NULL, facts TEXT NOT NULL, "
    "note TEXT NOT NULL, salt TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL, PRIMARY KEY (first, seq))",
    "CREATE TABLE IF NOT EXISTS data (key TEXT PRIMARY KEY, first TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS digests (file TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL)",
    "CREATE INDEX IF NOT EXISTS places ON chains (path)",
)
_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Mark:
    """How far a chain is known to have come. head: the hash of its entry number `seq`."""

    path: str
    seq: int
    head: str


def register_of(folder: Path) -> "Register":
    """The register for chains in `folder`: the one that a simulation named there, or the user's."""
    pointer = folder / POINTER
    if pointer.is_file():
        return Register((folder / pointer.read_text(encoding="utf-8").strip()).resolve(), binds=False)
    named = os.environ.get("STATFED_REGISTER")
    if named:
        return Register(Path(named).expanduser().absolute())
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Register(Path(state) / "statfed" / "register.sqlite")


def point(folder: Path, register: Path) -> None:
    """Name the register of a simulated home."""
    write_private(folder / POINTER, os.path.relpath(register, folder.resolve()) + "\n")


class Register:
    """An open register; the file is made with the first writing. binds: is a data set bound to one chain?

    Safe between threads that share no Register, and between processes of one host; the file belongs on a local disk.
    Raises EngineError when it cannot be read or written.
    """

    def __init__(self, path: Path, *, binds: bool = True) -> None:
        self.path, self.binds = path, binds
        self._db: sqlite3.Connection | None = None

    def mark(self, first: str) -> Mark | None:
        """What is known of the chain whose first entry has this hash."""
        with self._reading() as db:
            found = db and db.execute("SELECT path, seq, head FROM chains WHERE first = ?", (first,)).fetchone()
        return Mark(*found) if found else None

    def others(self, path: Path, first: str) -> Mark | None:
        """A chain other than `first` that was kept at this place and had recorded something, the longest."""
        with self._reading() as db:
            found = (
                db
                and db.execute(
                    "SELECT path, seq, head FROM chains WHERE path = ? AND first != ? AND seq > 1 ORDER BY seq DESC",
                    (str(path.resolve()), first),
                ).fetchone()
            )
        return Mark(*found) if found else None

    def at(self, path: Path) -> str | None:
        """The first entry's hash of the longest chain that was kept at this place."""
        with self._reading() as db:
            found = (
                db
                and db.execute(
                    "SELECT first FROM chains WHERE path = ? ORDER BY seq DESC LIMIT 1", (str(path.resolve()),)
                ).fetchone()
            )
        return str(found[0]) if found else None

    def rows(self, first: str) -> list[Row]:
        """The copy of a chain: the fields of its entries, in order."""
        with self._reading() as db:
            if not db:
                return []
            return db.execute(
                "SELECT seq, time, kind, run, study, round, event, facts, note, salt, previous, hash FROM entries "
                "WHERE first = ? ORDER BY seq",
                (first,),
            ).fetchall()

    def record(self, first: str, path: Path, rows: Sequence[Row], *, instead: bool = False) -> None:
        """Take down new entries of a chain, and where it lies. instead: the chain as it now is, for all that was known.

        rows: seq first, hash last. Never goes back, whoever is slower.
        """
        seq, head = rows[-1][0], rows[-1][-1]
        with self._writing() as db:
            if instead:
                db.execute("DELETE FROM entries WHERE first = ?", (first,))
                db.execute("DELETE FROM chains WHERE first = ? OR path = ?", (first, str(path.resolve())))
            marks = ",".join("?" * 13)
            db.executemany(f"INSERT OR IGNORE INTO entries VALUES ({marks})", [(first, *row) for row in rows])  # noqa: S608
            db.execute(
                "INSERT INTO chains VALUES (?, ?, ?, ?) ON CONFLICT (first) DO UPDATE SET path = excluded.path, "
                "seq = max(seq, excluded.seq), head = CASE WHEN excluded.seq > seq THEN excluded.head ELSE head END",
                (first, str(path.resolve()), seq, head),
            )

    def bind(self, first: str, keys: Collection[str], files: Collection[Path]) -> str | None:
        """Bind a data set to a chain. Returns where another chain lies that accounts for it, and then binds nothing.

        keys: each names the data set by itself, as `statfed.client.data.identity` has them; files: those of it that
        exist now, which may be known under another name (hard links).
        """
        if not self.binds:
            return None
        with self._reading() as db:
            if db and keys and self._bound(db, first, keys) == len(keys):
                return None
        with self._writing() as db:
            bound = "SELECT c.path, d.key FROM data d JOIN chains c USING (first) WHERE d.first != ? AND c.seq > 1"
            for path, key in db.execute(bound, (first,)):
                if key in keys or (key.startswith("path:") and any(_same(key[5:], file) for file in files)):
                    return str(path)
            db.executemany("INSERT OR REPLACE INTO data VALUES (?, ?)", [(key, first) for key in keys])
        return None

    def content(self, file: Path) -> str:
        """The digest of a file's content, read once for each state of it."""
        now, name = stamp(file), str(file.resolve())
        with self._reading() as db:
            found = db and db.execute("SELECT stamp, digest FROM digests WHERE file = ?", (name,)).fetchone()
        if found and found[0] == now:
            return str(found[1])
        digest = content(file)
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO digests VALUES (?, ?, ?)", (name, now, digest))
        return digest

    def close(self) -> None:
        """Close the file. Closing twice is allowed."""
        if self._db is not None:
            self._db.close()
            self._db = None

    @staticmethod
    def _bound(db: sqlite3.Connection, first: str, keys: Collection[str]) -> int:
        return sum(
            db.execute("SELECT count(*) FROM data WHERE key = ? AND first = ?", (key, first)).fetchone()[0]
            for key in keys
        )

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The register, or None where none was begun: then nothing is known, and it is not begun by looking."""
        with self._named():
            yield self._open() if self._db is not None or self.path.exists() else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._named():
            db = self._open()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    def _open(self) -> sqlite3.Connection:
        if self._db is not None:
            return self._db
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.path.touch(mode=0o600)
        if stat.S_IMODE(self.path.stat().st_mode) & 0o022:
            raise EngineError(f"register {self.path}: others may write it; want mode 0600 (chmod 600 {self.path})")
        db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL", *_SCHEMA):
                db.execute(statement)
        except BaseException:
            db.close()
            raise
        self._db = db
        return db

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            reason = getattr(error, "sqlite_errorname", "") or getattr(error, "strerror", "") or type(error).__name__
            raise EngineError(
                f"register {self.path}: cannot be used ({reason}); want a place that this user may write, by "
                "STATFED_REGISTER if not there. Nothing leaves without it"
            ) from None

    def __repr__(self) -> str:
        return f"Register({str(self.path)!r})"


def _same(known: str, file: Path) -> bool:
    """Is it the same file now, under whatever name?"""
    try:
        return Path(known).samefile(file)
    except OSError:
        return False
