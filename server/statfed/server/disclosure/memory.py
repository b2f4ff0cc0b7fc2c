"""The coordinator's memory of what was released of its data sets: an append-only file of hash-chained lines.

Formal guarantees.

1. *Nothing is released that is not remembered.* `append` returns after the line and its folder are on disk (fsync); the
   release is handed on after that. A line that a crash cut short stands for a release that was never handed on: it has
   no end of line, and is taken away at the next opening. A crash can so only have remembered too much.
2. *Exclusive.* A memory that is open holds a lock on its file, so that what is read, decided on and appended is one
   step between processes of one host. A second opening waits.
3. *Edits show.* The hash of a line covers its content and the hash before it; `open_memory` recomputes all of them and
   refuses a file in which a line was edited, removed or reordered. Beside it stands `<name>.head` with the number of
   lines and the last hash: a tail cut off shows, and a file that is gone while its head stands is not begun anew. The
   chain is not keyed: whoever rewrites both files, or puts back an older copy of both, is found by a copy of the head
   kept elsewhere only.

A line holds what was published and nothing else: no value of a hidden figure. `<name>.key` holds random bytes from
which draws of random rounding follow. All three are readable by their owner alone (0600) and belong on a local disk.
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from statfed.core.errors import EngineError

GENESIS = "0" * 64
FORMAT = 1


@dataclass
class Memory:
    """An open memory, held by this process until the block of `open_memory` ends. entries: what was appended, oldest
    first."""

    path: Path
    entries: list[dict[str, Any]]
    head: str = GENESIS
    _key: bytes = field(default=b"", repr=False)

    def append(self, facts: Mapping[str, Any]) -> str:
        """Remember what is about to be released, on disk when this returns. Returns the line's hash."""
        content = {
            "format": FORMAT,
            "seq": len(self.entries) + 1,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "facts": dict(facts),
            "previous": self.head,
        }
        sealed = content | {"hash": _digest(content)}
        with self.path.open("ab") as file:
            file.write(_canonical(sealed).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(dict(facts))
        self.head = str(sealed["hash"])
        _replace(_beside(self.path, ".head"), f"{len(self.entries)} {self.head}\n".encode())
        return self.head

    def uniform(self, *labels: object) -> float:
        """A number in (0, 1] that follows from the memory's secret key and what it is for: the same whenever asked."""
        text = json.dumps(labels, sort_keys=True, default=str).encode()
        word = int.from_bytes(hmac.new(self._key, text, hashlib.sha256).digest()[:7], "big")
        return (word + 1) / 2**56


@contextmanager
def open_memory(path: Path) -> Iterator[Memory]:
    """The memory at `path`, begun if there is none, for as long as the block lasts.

    Raises EngineError where it was damaged, edited or cut: nothing is released until it is restored.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        lock = os.open(_beside(path, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        held.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = _told(_beside(path, ".head"))
        if not path.exists():
            if told[0]:
                raise _broken(path, "it is gone")
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            _sync(path.parent)
        path.chmod(0o600)
        entries, head = _read(path, told)
        yield Memory(path, entries, head, _key_of(_beside(path, ".key")))


def _read(path: Path, told: tuple[int, str]) -> tuple[list[dict[str, Any]], str]:
    """All entries, verified against their hashes and the head that was kept beside them."""
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b"\n") + 1]
    entries: list[dict[str, Any]] = []
    head = GENESIS
    heads = [head]
    for number, text in enumerate(whole.splitlines(), start=1):
        try:
            sealed = json.loads(text)
            stated = sealed.pop("hash")
            facts = dict(sealed["facts"])
            good = sealed["previous"] == head and sealed["seq"] == number and _digest(sealed) == stated
        except (ValueError, KeyError, TypeError, AttributeError):
            raise _broken(path, f"line {number} cannot be read") from None
        if not good:
            raise _broken(path, f"line {number} was edited, removed or moved")
        head = str(stated)
        heads.append(head)
        entries.append(facts)
    count, last = told
    if count >= len(heads) or heads[count] != (last if count else GENESIS) or len(entries) > count + 1:
        raise _broken(path, f"it ends with line {len(entries)}, and {count} were written")
    if len(whole) < len(raw):
        with path.open("r+b") as file:
            file.truncate(len(whole))
            os.fsync(file.fileno())
    if len(entries) > count:  # the process ended between the line and its head
        _replace(_beside(path, ".head"), f"{len(entries)} {head}\n".encode())
    return entries, head


def _told(path: Path) -> tuple[int, str]:
    try:
        count, head = path.read_text(encoding="ascii").split()
        return int(count), head
    except FileNotFoundError:
        return 0, GENESIS
    except ValueError:
        raise _broken(path, "it cannot be read") from None


def _key_of(path: Path) -> bytes:
    """The secret key, drawn the first time."""
    if not path.exists():
        _replace(path, os.urandom(32))
    key = path.read_bytes()
    if len(key) != 32:
        raise _broken(path, f"got {len(key)} bytes; want 32")
    return key


def _replace(path: Path, content: bytes) -> None:
    """Write a small file at once, for its owner alone, on disk when this returns."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _broken(path: Path, what: str) -> EngineError:
    return EngineError(f"memory of releases: {path.name}: {what}; nothing is released until it is restored from a copy")


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()
