"""A hash-chained, append-only file of entries: one SQLite file that knows the order of its entries, not their meaning.

Whoever keeps such a file says what its entries mean with a `State`, to which each entry is applied in order, and which
refuses an entry that does not follow from those before it. `statfed.client.guard.ledger` is the one that does.

Formal guarantees.

1. *A crash loses nothing acknowledged.* `Chain.writing` returns after its entries are on disk (rollback journal,
   synchronous=EXTRA, which also syncs the folder: without it a power cut may bring back the journal and undo the last
   commit). Dying at any point leaves all entries of the transaction or none. What is appended before the act that it
   accounts for, and counts until an entry says otherwise, can so only be over-counted.
2. *Exclusive.* A check and the entries that follow from it are one BEGIN IMMEDIATE transaction on a verified chain: two
   processes cannot both act on the same last state.
3. *Edits show.* An entry's hash covers its fields and the previous hash. `verify` names what was edited, removed or
   reordered; a tail cut off shows against an anchor, a head hash kept elsewhere, and to a process that has seen it.
   Nothing is appended to a chain that fails. The chain is not keyed: whoever rewrites all of it is found by an anchor
   only.
4. *Deletion shows.* Beside `ledger.sqlite` stands `ledger.opened` with the hash of the first entry, on disk before the
   chain can be seen. While it stands, a missing chain is not begun anew, and another chain in its place is refused. A
   crash between the two can only over-refuse; the message says what to do. A chain without the file (begun before there
   was one, or restored without it) gets one at its next opening for writing.
5. *Going back shows.* `statfed.client.guard.register` keeps, apart from the file, how far each chain came and which one
   was kept at which place. A chain that is behind it, differs from it, or stands where another was, is refused, and is
   completed from the register's copy (`statfed.client.guard.restoring`). A process besides remembers what it saw. Who
   puts back the register too is found by an anchor only.
6. *A state is kept by the process that verified it.* The next opening takes it instead of reading all entries again
   only where the file's stamp (place, size, times), its last entry and the register are those that were left. Anything
   else is verified from the first entry on; so is `verify`, always.
"""

import datetime as dt
import json
import os
import secrets
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from statfed.client.guard.register import register_of
from statfed.core.errors import EngineError, LedgerCorrupt, UsageError
from statfed.core.turns import in_turn

FORMAT = 1
GENESIS = "0" * 64
_FIELDS = ("seq", "time", "kind", "run", "study", "round", "event", "facts", "note", "salt", "previous", "hash")
_SCHEMA = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, run TEXT NOT NULL, "
    "study TEXT NOT NULL, round INTEGER NOT NULL, event TEXT NOT NULL, facts TEXT NOT NULL, note TEXT NOT NULL, "
    "salt TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER never_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER never_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)
_BUSY_SECONDS = 60.0
_RESTORE = "a copy put back gives no budget back; want `statfed ledger restore --home {}`, which completes it"
_met: dict[str, tuple[int, str]] = {}  # by first entry: number and hash of the last entry that this process saw
_MOST = 64  # chains whose state is kept


@dataclass(frozen=True)
class _Kept:
    """A chain as this process left it. stamp: of the file as it then was; made: by what its state was begun."""

    stamp: tuple[int, ...]
    made: Callable[[], Any]
    state: Any
    seq: int
    head: str
    first: str


_kept: dict[Path, _Kept] = {}


@dataclass(frozen=True)
class Entry:
    """One line of the file. kind: "open" for the first; facts: canonical JSON; what else they mean is the keeper's."""

    seq: int
    time: str
    kind: str
    run: str
    study: str
    round: int
    event: str
    facts: str
    note: str
    salt: str
    previous: str
    hash: str

    def digest(self, seq: int | None = None) -> str:
        """SHA-256 of the canonical JSON of all fields but `hash`; `seq` to ask whether it was written elsewhere."""
        table = {name: getattr(self, name) for name in _FIELDS[:-1]} | ({} if seq is None else {"seq": seq})
        return sha256(_canonical(table).encode()).hexdigest()


class State(Protocol):
    """What entries add up to."""

    def apply(self, entry: Entry) -> None:
        """Take in the next entry. Raises ValueError, KeyError or TypeError on one that could not have been written."""


S = TypeVar("S", bound=State)


class Chain(Generic[S]):
    """An open chain and the state that its entries add up to.

    path: must exist, see `create`; fresh: makes the state of no entries; writable: else the register is compared with,
    where it knows the chain, and neither file is written. Safe between threads and between processes of one host; the
    file belongs on a local disk, since neither SQLite's locks nor those of `create` hold on every network file system.
    Raises LedgerCorrupt whenever the chain does not verify, UsageError if there is none.
    """

    def __init__(self, path: Path, fresh: Callable[[], S], *, writable: bool) -> None:
        if not path.is_file():
            check_marker(path, None)
            raise UsageError(f"ledger not found: {path}")
        self.path, self._fresh, self._lock = path, fresh, threading.RLock()
        self._writable, self._appended, self.register = writable, list[Entry](), register_of(path.parent)
        self.state: S = fresh()
        self.seq, self.head, self._first = 0, GENESIS, GENESIS
        self._seen = (0, GENESIS)  # the last entry known to be on disk
        self._version: int | None = None  # of the file, when `state` was read
        with translated(path):
            self.db = connect(path, writable)
        try:
            if writable:
                with translated(path):
                    if stat.S_IMODE(path.stat().st_mode) != 0o600:
                        path.chmod(0o600)
            with self.writing() if writable else self.reading():
                check_marker(path, self._first, adopt=writable)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def reading(self) -> Iterator[S]:
        """The state of a verified chain, for as long as the block lasts in this process."""
        with self._lock, translated(self.path):
            yield self._refresh()

    @contextmanager
    def writing(self) -> Iterator[S]:
        """Exclusive writing on a verified chain: all that is appended in the block is committed, or nothing."""
        with self._lock, translated(self.path):
            self.db.execute("BEGIN IMMEDIATE")
            self._appended.clear()
            try:
                yield self._refresh()
                self.db.execute("COMMIT")
                self._saw()
                self._record(self._appended)
            except BaseException:
                if (self.seq, self.head) != self._seen:  # what was appended here is not on disk
                    self._version = None
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise

    def append(self, kind: str, run: str = "", study: str = "", round: int = 0, **more: Any) -> str:
        """Append an entry, inside `writing`. more: event, facts, note. Returns its hash."""
        text = f"{run}{study}{more.get('note', '')}"
        if not 0 <= round < 2**31 or any("\ud800" <= sign <= "\udfff" for sign in text):
            raise UsageError(f"ledger: got round {round} of run {run!a}; want a round from 0 and text that is Unicode")
        entry = sealed(self.seq + 1, self.head, kind, run, study, round, **more)
        self.seq, self.head = entry.seq, entry.hash
        self.state.apply(entry)
        insert(self.db, entry)
        self._appended.append(entry)
        return entry.hash

    def entries(self) -> list[Entry]:
        """All entries, verified."""
        with self._lock, translated(self.path):
            found = list(rows(self.db))
            replay(found, self._fresh().apply)
            return found

    def verify(self, anchor: str | None = None) -> str:
        """Recompute the whole chain and return its head. Raises LedgerCorrupt naming the entry that is wrong.

        anchor: a head hash seen earlier and kept elsewhere; if it is not in the chain, the tail was cut off.
        """
        found = self.entries()
        if anchor is not None and anchor not in {entry.hash for entry in found}:
            raise LedgerCorrupt(
                f"ledger truncated: the head {anchor[:16]} seen earlier is not in the chain; "
                f"it ends with entry {found[-1].seq}, {found[-1].hash[:16]}"
            )
        with self._lock, translated(self.path):
            check_file(self.db)
        check_marker(self.path, found[0].hash)
        return found[-1].hash

    def close(self) -> None:
        """Close the file. Its state is kept for the next opening by this process."""
        with suppress(sqlite3.Error, OSError):
            self._keep()
        self.db.close()
        self.register.close()

    @property
    def first(self) -> str:
        """The hash of the first entry, which names the chain."""
        return self._first

    def _keep(self) -> None:
        """Keep the state with the stamp of the file that it is of: one that others wrote since has another."""
        if not self._writable or self._version is None or self.db.in_transaction:
            return
        kept = _Kept(_stamp(self.path), self._fresh, self.state, self.seq, self.head, self._first)
        self._version, version = None, self._version
        if (version,) == self.db.execute("PRAGMA data_version").fetchone():  # none wrote before the stamp was taken
            while len(_kept) >= _MOST:
                _kept.pop(next(iter(_kept)), None)
            _kept[self.path.resolve()] = kept

    def _adopt(self, version: int) -> bool:
        """Take the state that this process left, if file and register are as they were then."""
        kept = _kept.pop(self.path.resolve(), None)  # one opening alone has it
        if kept is None or not self._writable or kept.made is not self._fresh or _stamp(self.path) != kept.stamp:
            return False
        mark = self.register.mark(kept.first)
        if mark is None or (mark.seq, mark.head) != (kept.seq, kept.head):
            return False
        if _met.get(kept.first) != (kept.seq, kept.head) or self.register.others(self.path, kept.first):
            return False
        last = self.db.execute("SELECT seq, hash FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
        if last != (kept.seq, kept.head):
            return False
        self.state, self.seq, self.head, self._first = kept.state, kept.seq, kept.head, kept.first
        self._saw()
        self._version = version
        return True

    def _saw(self) -> None:
        self._seen = _met[self._first] = (self.seq, self.head)

    def _record(self, entries: Sequence[Entry]) -> None:
        """Take entries down in the register; the act that they account for goes on only then."""
        if entries:
            self.register.record(self._first, self.path, [fields(entry) for entry in entries])

    def _refresh(self) -> S:
        """The state of a verified chain. Own appends are trusted, those of an earlier opening by this process too where
        the file is as it was left; after others', all is verified anew."""
        (version,) = self.db.execute("PRAGMA data_version").fetchone()
        if version != self._version and not (self._version is None and not self.seq and self._adopt(version)):
            self._version, found, state = None, list(rows(self.db)), self._fresh()
            replay(found, state.apply)
            seq, head = max(self._seen, _met.get(found[0].hash, self._seen))
            if seq and (len(found) < seq or found[seq - 1].hash != head):
                raise LedgerCorrupt(
                    f"ledger truncated: entry {seq}, seen by this process, is no longer there; "
                    + _RESTORE.format(self.path.parent)
                )
            check_file(self.db, quick=True)
            more = self._compared(found)
            self.state, self._first = state, found[0].hash
            self.seq, self.head = found[-1].seq, found[-1].hash
            self._saw()
            if self._writable:
                self._record(more)
            self._version = version
        return self.state

    def _compared(self, found: list[Entry]) -> list[Entry]:
        """The entries that the register does not know yet. Raises LedgerCorrupt where it knows more, or others."""
        first, restore = found[0].hash, _RESTORE.format(self.path.parent)
        mark = self.register.mark(first)
        if mark is None:
            if self._writable and json.loads(found[0].facts).get("registered"):
                raise LedgerCorrupt(
                    f"ledger of unknown age: got entry {len(found)} as its last, and no record of it in the register "
                    f"{self.register.path}, under which it was begun; want that register, or the head that the last "
                    f"result carried: `statfed ledger restore --home {self.path.parent} --anchor HEAD`"
                )
        else:
            now = found if len(found) >= mark.seq else list(rows(self.db))  # others may have appended while this looked
            if len(now) < mark.seq:
                raise LedgerCorrupt(
                    f"ledger rolled back: got entry {len(now)} as its last; want entry {mark.seq}, which it had on "
                    f"this machine; {restore}"
                )
            if now[mark.seq - 1].hash != mark.head:
                raise LedgerCorrupt(
                    f"ledger rolled back: entry {mark.seq} is another than it had on this machine; {restore}"
                )
        if other := self.register.others(self.path, first):
            raise LedgerCorrupt(
                f"ledger replaced: got a chain of {len(found)} entries where one of {other.seq} was kept; {restore}"
            )
        return found[mark.seq if mark else 0 :]


def create(path: Path, facts: Mapping[str, Any]) -> None:
    """Begin a chain at `path` with an entry of kind "open", unless there is one by the time it is this process's turn.

    Schema and first entry are written under another name and linked into place: a chain is never seen without its
    first entry, nor before its marker is on disk and the register knows it. Raises LedgerCorrupt if a chain was begun
    here before.
    """
    register = register_of(path.parent)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with translated(path), in_turn(path.parent) as folder:
            if path.exists():
                return
            check_marker(path, None)
            if known := register.others(path, GENESIS):
                raise LedgerCorrupt(
                    f"ledger missing: {path.name} was kept here, with {known.seq} entries; "
                    + _RESTORE.format(path.parent)
                )
            try:
                first = _draft(draft, {**facts, "registered": True})
                register.record(first.hash, path, [fields(first)])
                _mark(path, first.hash, folder)
                try:
                    os.link(draft, path)
                except OSError:
                    if not path.exists():  # nothing was begun: the next attempt may
                        marker(path).unlink()
                    raise
                os.fsync(folder)
            finally:
                draft.unlink(missing_ok=True)
    except FileExistsError:
        pass  # a process that does not wait for its turn was first: its chain is the chain
    except OSError as error:
        raise UsageError(f"ledger cannot be created at {path}: {error.strerror}") from None
    finally:
        register.close()


def forget(first: str) -> None:
    """Let this process take a chain as it now is: it was restored."""
    _met.pop(first, None)


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes with every writing of a file: its place, size and times. It is not opened: closing would let go of
    SQLite's locks on it."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def marker(path: Path) -> Path:
    """The file that tells, for good, that a chain was begun at `path`: `ledger.opened` for `ledger.sqlite`."""
    return path.with_suffix(".opened")


def check_marker(path: Path, first: str | None, *, adopt: bool = False) -> None:
    """Raise LedgerCorrupt unless the chain at `path` is the one that was begun there.

    first: the hash of its first entry, None where there is no chain. adopt: write the marker of a chain without one.
    """
    file = marker(path)
    try:
        begun = file.read_text(encoding="ascii", errors="replace").strip() if file.exists() else None
        if begun is None and first is not None and adopt:
            with in_turn(path.parent) as folder, suppress(FileExistsError):
                _mark(path, first, folder)
    except OSError as error:
        raise EngineError(f"ledger {path.name}: storage of {file.name} failed: {error.strerror}") from None
    if begun is not None and first is None:
        raise LedgerCorrupt(
            f"ledger missing: {path.name} was opened before, with the first entry {begun[:16]}; want it restored: "
            f"`statfed ledger restore --home {path.parent}` (or {file.name} deleted too, if that very first opening "
            "was cut off and nothing was ever released)"
        )
    if begun is not None and begun != first:
        raise LedgerCorrupt(
            f"ledger replaced: got the first entry {first and first[:16]}; want {begun[:16]}, with which {path.name} "
            f"was opened before (see {file.name})"
        )


def _mark(path: Path, first: str, folder: int) -> None:
    """Write the marker as a whole, and return once it is on disk. Raises FileExistsError if there is one."""
    file = marker(path)
    draft = path.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="ascii") as opened:
            opened.write(first + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        os.link(draft, file)
        os.fsync(folder)
    finally:
        draft.unlink(missing_ok=True)


def _draft(draft: Path, facts: Mapping[str, Any]) -> Entry:
    """Write a file of one entry and return that entry."""
    first = sealed(1, GENESIS, "open", facts=facts)
    written(draft, [first])
    return first


def written(draft: Path, entries: Sequence[Entry]) -> None:
    """Write a new file of these entries as they are, to be put in place under its own name."""
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    with closing(connect(draft, writable=True)) as db:
        for statement in ("PRAGMA journal_mode=DELETE", f"PRAGMA user_version={FORMAT}", "BEGIN", *_SCHEMA):
            db.execute(statement)
        for entry in entries:
            insert(db, entry)
        db.execute("COMMIT")


def sealed(
    seq: int,
    previous: str,
    kind: str,
    run: str = "",
    study: str = "",
    round: int = 0,
    *,
    event: str = "",
    facts: Mapping[str, Any] | None = None,
    note: str = "",
) -> Entry:
    """An entry with time, salt and hash, chained to the hash `previous`."""
    time, salt = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"), secrets.token_hex(16)
    draft = Entry(seq, time, kind, run, study, round, event, _canonical(facts or {}), note, salt, previous, "")
    return replace(draft, hash=draft.digest())


def _canonical(table: Mapping[str, Any]) -> str:
    return json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)


def connect(path: Path, writable: bool) -> sqlite3.Connection:
    """A connection to an existing file, without transactions of its own making."""
    uri = f"{path.absolute().as_uri()}?mode={'rw' if writable else 'ro'}"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # damaged text fails its hash, and is named
    if writable:
        db.execute("PRAGMA synchronous=EXTRA")
    return db


def insert(db: sqlite3.Connection, entry: Entry) -> None:
    """Write one entry as it is."""
    db.execute(f"INSERT INTO entries VALUES ({','.join('?' * len(_FIELDS))})", fields(entry))  # noqa: S608


def fields(entry: Entry) -> tuple[Any, ...]:
    """The fields of an entry, in the order of the file."""
    return tuple(getattr(entry, name) for name in _FIELDS)


def rows(db: sqlite3.Connection) -> Iterator[Entry]:
    """The entries as they are, unverified."""
    for row in db.execute(f"SELECT {','.join(_FIELDS)} FROM entries ORDER BY seq"):  # noqa: S608
        yield Entry(*row)


def replay(found: list[Entry], apply: Callable[[Entry], None]) -> None:
    """Hand each entry to `apply`. Raises LedgerCorrupt naming the first that is not as it was written."""
    head = GENESIS
    for seq, entry in enumerate(found, start=1):
        if entry.seq != seq:
            raise LedgerCorrupt(f"ledger entry {seq} was removed: got entry {entry.seq} after {seq - 1}; want {seq}")
        if not _intact(entry):
            other = next((n for n in range(1, len(found) + 2) if n != seq and _intact(entry, n)), None)
            if other is not None:
                raise LedgerCorrupt(f"ledger entry {seq} was reordered: it was written as entry {other}")
            raise LedgerCorrupt(f"ledger entry {seq} was edited: its content does not match its hash")
        if entry.previous != head:
            raise LedgerCorrupt(f"ledger entry {seq - 1} was edited or replaced: entry {seq} was chained to another")
        try:
            apply(entry)
        except (
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            ArithmeticError,
            RecursionError,
            LedgerCorrupt,
        ) as error:
            raise LedgerCorrupt(f"ledger entry {seq} was not written by this program: {error}") from None
        head = entry.hash
    if not found:
        raise LedgerCorrupt("ledger entry 1 was removed: got no entries; want at least the first")


def _intact(entry: Entry, seq: int | None = None) -> bool:
    try:
        return entry.digest(seq) == entry.hash
    except (TypeError, ValueError):  # a value of a type that was never written
        return False


def check_file(db: sqlite3.Connection, quick: bool = False) -> None:
    """Raise LedgerCorrupt when the file is not what `create` made, or (unless quick) when a page is damaged."""
    schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master ORDER BY type, name")]
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != FORMAT or schema != list(_SCHEMA):
        raise LedgerCorrupt(f"ledger schema was changed: got version {version}; want {FORMAT} and its triggers")
    if not quick and (report := db.execute("PRAGMA quick_check").fetchall()) != [("ok",)]:
        raise LedgerCorrupt(f"ledger file is damaged: {report[0][0]}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: a lock held by another process, or a file that is no ledger any more."""
    try:
        yield
    except PermissionError:
        raise UsageError(
            f"ledger {path.name}: got files that this account may not read or write; want its holder's account, and "
            "the folder and its files owned by it. Nothing was charged"
        ) from None
    except sqlite3.ProgrammingError:  # used after close: a fault of the caller, not of the file
        raise
    except sqlite3.DatabaseError as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise EngineError(f"ledger {path.name} is held by another process; want it free") from None
        if name.startswith("SQLITE_READONLY"):
            raise UsageError(
                f"ledger {path.name} cannot be written, or has an interrupted entry; open as its holder"
            ) from None
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN")):
            raise EngineError(f"ledger {path.name}: storage failed ({name}); nothing was acknowledged") from None
        raise LedgerCorrupt(f"ledger {path.name} is damaged or not a ledger: {error}") from None
