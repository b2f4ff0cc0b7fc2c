"""The log of what a coordinator or a party of a pilot was asked, answered, agreed to and charged: `audit.jsonl`.

One entry a line, in canonical JSON: `seq` from 0, `time`, `kind`, `facts` (digests, sizes and names, never data),
`previous` (the hash of the entry before it), `hash` (SHA-256 over the owner's key and all of these) and `signature`
(Ed25519 by the folder's identity.key over key, number and hash). Entry 0, of kind `open`, says whose log it is.

Formal guarantees, where SHA-256 is collision resistant and Ed25519 unforgeable:

1. Whoever has no `identity.key` cannot add, edit, reorder or take out an entry without `verify` naming the first wrong
   one; nor can its owner, as to entries up to a `Head` that somebody else has kept: a head binds all entries before it.
2. Two heads of one key and number with different hashes prove that their signer has shown two histories.
3. `record` returns after its entries are on disk. One process writes at a time, by a lock on the file. What a crash has
   torn was acknowledged to nobody: the next `record` takes it off and says so in an entry of kind `mended`.

It does not prove that everything was recorded, nor when: an owner can leave out what nobody else has noted. It is the
heads that others keep (`statfed.core.pilot.witness`) which bind it.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from statfed.core.errors import EngineError, UsageError
from statfed.core.identity import Identity, load_identity
from statfed.core.section import NAME, deep

FILE, OWNER = "audit.jsonl", "pilot.toml"
COORDINATOR = "coordinator"
OPEN, MENDED, CONTRADICTED = "open", "mended", "contradicted"
LARGEST = 2**18
"""Bytes of an entry."""
ORIGIN = "0" * 64
"""What entry 0 has in place of the hash of the one before it."""
_ENTRY, _HEAD = b"statfed.audit.entry/1\n", b"statfed.audit.head/1\n"
_END = re.compile(rb',"hash":"([0-9a-f]{64})","signature":"([0-9a-f]{128})"\}')
_END_BYTES = len(b',"hash":"","signature":""}') + 64 + 128
_TAIL = 4096

Fact = str | int | Sequence["Fact"] | Mapping[str, "Fact"]
Facts = Mapping[str, Fact]


@dataclass(frozen=True)
class Head:
    """An entry as others keep it: it binds all before it. key: whose log it is; all in hexadecimal but `seq`."""

    key: str
    seq: int
    hash: str
    signature: str

    def signed(self) -> bool:
        """Has the owner of `key` signed it?"""
        return _verified(self.key, _to_sign(self.key, self.seq, self.hash), self.signature)

    def facts(self) -> dict[str, Fact]:
        """As it stands in an entry or a message."""
        return {"key": self.key, "seq": self.seq, "hash": self.hash, "signature": self.signature}

    @classmethod
    def parse(cls, table: Any) -> "Head":
        """A head from a message, which is not checked to be signed. Raises ValueError on anything else."""
        if not isinstance(table, Mapping):
            raise ValueError("got no table; want a head")
        seq, found = table.get("seq"), [table.get(name) for name in ("key", "hash", "signature")]
        fits = all(
            isinstance(text, str) and re.fullmatch(f"[0-9a-f]{{{size}}}", text)
            for text, size in zip(found, (64, 64, 128), strict=True)
        )
        if not fits or type(seq) is not int or not 0 <= seq < 2**53:
            raise ValueError("got other fields; want key, seq, hash and signature of a head")
        key, digest, signature = map(str, found)
        return cls(key, seq, digest, signature)


@dataclass(frozen=True)
class Owner:
    """Whose a log is. role: coordinator or party."""

    name: str
    pilot: str
    role: str
    key: str = ""

    def facts(self) -> dict[str, Fact]:
        """As entry 0 has it."""
        return {"name": self.name, "pilot": self.pilot, "role": self.role, "key": self.key}


@dataclass(frozen=True)
class Entry:
    """One line of a log."""

    seq: int
    time: str
    kind: str
    facts: Mapping[str, Any]
    previous: str
    hash: str
    signature: str = field(repr=False)


@dataclass(frozen=True)
class Checked:
    """A log as `verify` found it. wrong: what is wrong with entry number `at`, the first that is; None where none is.
    entries: those before it. notes: what is right and worth knowing."""

    path: Path
    owner: Owner | None
    entries: tuple[Entry, ...]
    wrong: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def at(self) -> int | None:
        """The number of the first wrong entry."""
        return None if self.wrong is None else len(self.entries)

    @property
    def head(self) -> Head | None:
        """The last right entry."""
        return head_of(self.owner.key, self.entries[-1]) if self.owner and self.entries else None


def record(folder: Path, kind: str, facts: Facts) -> Head | None:
    """Append one entry to the log of a coordinator's folder or a party's home; see `record_all`."""
    return record_all(folder, [(kind, facts)])


def record_all(folder: Path, events: Sequence[tuple[str, Facts]]) -> Head | None:
    """Append entries, together, and return the last as a head, once they are on disk; None, and no file, where the
    folder is of no pilot.

    Raises UsageError on facts that are none, or a folder without its key; EngineError where the log cannot be written,
    or what it ends with is not by this folder's key: what has to be recorded is not to happen then.
    """
    path = folder / FILE
    if not events or (not path.exists() and owner_of(folder) is None):
        return None
    for kind, facts in events:
        if not kind or not _plain(facts) or deep(facts):
            raise UsageError(f"audit: got facts of {kind!r} that are none; want texts, whole numbers, lists and tables")
    identity = load_identity(folder, "", {})
    try:
        with _locked(path, fcntl.LOCK_EX) as file:
            return _append(path, file, identity, events)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written ({error.strerror}); want the log on a disk that can") from None


def head(folder: Path) -> Head | None:
    """The newest entry of a folder's log; None where it has none. Raises EngineError where its last line is none."""
    path = folder / FILE
    if not path.exists():
        return None
    key = load_identity(folder, "", {}).public
    try:
        with _locked(path, fcntl.LOCK_SH) as file:
            line, _ = _tail(file)
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror}); want the log") from None
    return head_of(key, _last(path, line, key)) if line else None


def head_of(key: str, entry: Entry) -> Head:
    """An entry as others keep it."""
    return Head(key, entry.seq, entry.hash, entry.signature)


def entries(path: Path) -> Iterator[Entry]:
    """The entries of a log, unchecked. Raises UsageError at the first line that is none."""
    for number, line in enumerate(_lines(path)):
        try:
            yield parsed(line.removesuffix(b"\n"))
        except ValueError as error:
            raise UsageError(f"{path}: entry {number}: {error}; `statfed audit verify` says more") from None


def verify(path: Path, key: str | None = None) -> Checked:
    """Check every entry of a log: form, hash, number, link to the one before it, signature.

    key: that of whose log it has to be; without it, the key that the log itself names, which the caller has to know.
    Raises UsageError where there is no such file.
    """
    good: list[Entry] = []
    owner: Owner | None = None
    notes: list[str] = []
    wrong: str | None = None
    for line in _lines(path):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn: the last line has no end, as a crash leaves it; the next entry will mend it")
            entry = parsed(line[:-1])
            if owner is None:
                owner = _opened(entry, key)
            _check(entry, line[:-1], owner.key, good[-1] if good else None)
        except ValueError as error:
            wrong = str(error)
            break
        if entry.kind == MENDED:
            notes.append(f"entry {entry.seq} mends a line of {entry.facts.get('bytes')} bytes that a crash has torn")
        good.append(entry)
    if not good and wrong is None:
        wrong = "removed: the log is empty"
    return Checked(path, owner, tuple(good), wrong, tuple(notes))


def copy(path: Path, target: Path) -> None:
    """Copy a log, between two entries of whoever is writing it. Raises UsageError where it cannot be read."""
    try:
        with _locked(path, fcntl.LOCK_SH) as file, target.open("xb") as made:
            shutil.copyfileobj(file, made)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); want the log of a pilot, {FILE}") from None


def owner_of(folder: Path) -> Owner | None:
    """Whose folder it is, by its pilot.toml; None where there is none. Raises UsageError where it cannot be read."""
    path = folder / OWNER
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))["pilot"]
        party = table.get("party")
        return Owner(str(party or COORDINATOR), str(table["name"]), "party" if party else COORDINATOR)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path}: cannot be read; want it as `statfed pilot` wrote it") from None


def parsed(line: bytes) -> Entry:
    """The entry that a line is. Raises ValueError on anything else, or another form of the same."""
    core, end = line[:-_END_BYTES] + b"}", _END.fullmatch(line[-_END_BYTES:])
    try:
        table = json.loads(core)
        fits = end is not None and not deep(table) and _canonical(table) == core
        if not fits or set(table) != {"seq", "time", "kind", "facts", "previous"}:
            raise ValueError
        seq, time, kind, facts = (table[name] for name in ("seq", "time", "kind", "facts"))
        if type(seq) is not int or not (isinstance(time, str) and isinstance(kind, str)) or not _plain(facts):
            raise ValueError
    except (ValueError, RecursionError):
        raise ValueError("edited: got a line that is no entry") from None
    assert end is not None  # noqa: S101  `fits` says so
    return Entry(seq, time, kind, facts, str(table["previous"]), end[1].decode(), end[2].decode())


def _check(entry: Entry, line: bytes, key: str, before: Entry | None) -> None:
    """Raise ValueError unless this is the next entry of this key's log."""
    seq, previous = (before.seq + 1, before.hash) if before else (0, ORIGIN)
    if entry.hash != _hash(key, line[:-_END_BYTES] + b"}"):
        raise ValueError("edited: its content does not fit its hash")
    if entry.seq != seq:
        how = "removed: entries before it are missing" if entry.seq > seq else "out of order, or a second time"
        raise ValueError(f"{how}: got number {entry.seq}; want {seq}")
    if entry.previous != previous:
        raise ValueError("it does not follow on the entry before it: one of the two was replaced")
    if not head_of(key, entry).signed():
        raise ValueError("signature: got one by another key, or an edited one; want one by the log's owner")


def _opened(entry: Entry, key: str | None) -> Owner:
    """Whose log it is, as its first line says."""
    owner = Owner(*(str(entry.facts.get(name)) for name in ("name", "pilot", "role", "key")))
    if entry.kind != OPEN:
        raise ValueError(f"removed: got {entry.kind!r} at the beginning; want {OPEN!r}, which says whose log it is")
    if not (NAME.fullmatch(owner.name) and NAME.fullmatch(owner.pilot) and re.fullmatch("[0-9a-f]{64}", owner.key)):
        raise ValueError(f"{OPEN}: got no name or key; want whose log it is")
    if key is not None and owner.key != key:
        raise ValueError(f"another key: got the log of key {owner.key[:16]}; want that of {key[:16]}")
    return owner


def _append(path: Path, file: BinaryIO, identity: Identity, events: Sequence[tuple[str, Facts]]) -> Head:
    """Write entries at the end of a log that is held; where that fails, it is as it was."""
    line, torn = _tail(file)
    size = file.seek(0, os.SEEK_END)
    key, whole = identity.public, size - len(torn)
    before = _last(path, line, key) if line else None
    more = list(events)
    if torn and _follows(torn, key, before):  # all of it but the line's end
        before, whole, new = parsed(torn), size, [b"\n"]
    else:
        new = []
        if torn:
            more.insert(0, (MENDED, {"bytes": len(torn), "sha256": hashlib.sha256(torn).hexdigest()}))
    if before is None:
        owner = owner_of(path.parent)
        if owner is None:
            raise UsageError(f"{path}: got a log without {OWNER} beside it; want the folder of a pilot")
        more.insert(0, (OPEN, owner.facts() | {"key": key}))
    made: Entry | None = before
    for kind, facts in more:
        added, made = _entry(identity, made, kind, facts)
        new.append(added)
    assert made is not None  # noqa: S101  there is at least one event
    if whole < size:
        file.truncate(whole)
    try:
        file.seek(whole)
        file.writelines(new)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        file.truncate(whole)
        raise
    if size == 0:
        _sync_folder(path.parent)
    return head_of(key, made)


def _entry(identity: Identity, before: Entry | None, kind: str, facts: Facts) -> tuple[bytes, Entry]:
    """The line of the next entry."""
    seq, previous = (before.seq + 1, before.hash) if before else (0, ORIGIN)
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    core = _canonical({"seq": seq, "time": at, "kind": kind, "facts": facts, "previous": previous})
    digest = _hash(identity.public, core)
    signature = identity.sign(_to_sign(identity.public, seq, digest)).hex()
    line = core[:-1] + f',"hash":"{digest}","signature":"{signature}"}}\n'.encode()
    if len(line) > LARGEST:
        raise UsageError(f"audit: got {len(line)} bytes of facts of {kind}; want digests, {LARGEST} bytes at most")
    return line, Entry(seq, at, kind, facts, previous, digest, signature)


def _last(path: Path, line: bytes, key: str) -> Entry:
    """The entry that a log ends with. Raises EngineError unless it is one, by this key."""
    try:
        entry = parsed(line)
        if entry.hash != _hash(key, line[:-_END_BYTES] + b"}") or not head_of(key, entry).signed():
            raise ValueError("it was edited, or is by another key than this folder's")
    except ValueError as error:
        raise EngineError(
            f"{path}: its last entry is wrong ({error}); want it as it was written: `statfed audit verify`"
        ) from None
    return entry


def _follows(line: bytes, key: str, before: Entry | None) -> bool:
    try:
        _check(parsed(line), line, key, before)
    except ValueError:
        return False
    return True


def _tail(file: BinaryIO) -> tuple[bytes, bytes]:
    """The last whole line of a log, without its end, and what stands behind it. Reads no more than these."""
    size, step = file.seek(0, os.SEEK_END), _TAIL
    while True:
        step = min(step, size)
        file.seek(size - step)
        found = file.read(step)
        end = found.rfind(b"\n")
        begin = found.rfind(b"\n", 0, end) if end >= 0 else -1
        if begin >= 0 or step == size:
            return found[begin + 1 : end] if end >= 0 else b"", found[end + 1 :]
        step *= 4


@contextmanager
def _locked(path: Path, how: int) -> Iterator[BinaryIO]:
    """The log, held by this process alone or with other readers."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC if how == fcntl.LOCK_EX else os.O_RDONLY
    with os.fdopen(os.open(path, flags, 0o600), "r+b" if how == fcntl.LOCK_EX else "rb") as file:
        fcntl.flock(file.fileno(), how)
        yield file


def _lines(path: Path) -> Iterator[bytes]:
    """Lines, with their ends, as far as they were written when this begins. Raises UsageError where there is no such
    file."""
    try:
        with _locked(path, fcntl.LOCK_SH) as file:  # nobody is in the middle of an entry
            left = os.fstat(file.fileno()).st_size
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)
            while left > 0 and (line := file.readline(min(left, LARGEST + 1))):
                left -= len(line)
                yield line
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); want the log of a pilot, {FILE}") from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _plain(value: object) -> bool:
    """Is it a text, a whole number, or lists and tables of these?"""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _plain(item) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return isinstance(value, str | int)


def _canonical(table: object) -> bytes:
    return json.dumps(table, sort_keys=True, separators=(",", ":")).encode("ascii")


def _hash(key: str, core: bytes) -> str:
    return hashlib.sha256(_ENTRY + key.encode("ascii") + b"\n" + core).hexdigest()


def _to_sign(key: str, seq: int, digest: str) -> bytes:
    return _HEAD + f"{key}\n{seq}\n{digest}".encode("ascii")


@lru_cache(maxsize=1024)
def _public(key: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))


def _verified(key: str, message: bytes, signature: str) -> bool:
    try:
        _public(key).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True
