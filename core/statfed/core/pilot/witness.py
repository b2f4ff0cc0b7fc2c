"""Heads of others' logs, kept in one's own: what travels beside each message, what is noted of it, what contradicts.

Each message to a party carries the coordinator's newest head and a salt, each reply the party's. With the first and the
last messages of a run the coordinator also passes on the heads that it has of the others, so that parties see whether
it shows them all one history. Whoever gets a head notes it where it is new, in the entry about that message, under
`heads`. From then on its signer cannot take back anything before it.

A digest of a message is over a salt that stands in no log: nobody who reads a log, without having had the message, can
find out by trying what a short answer was.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from statfed.core.errors import Refused
from statfed.core.pilot.audit import FILE, Entry, Fact, Head, parsed
from statfed.core.section import NAME
from statfed.core.statement import MOST_TEXT
from statfed.core.terms import Terms

RECORD = "audit"
"""Name of the record that travels. Who does not know it passes it over."""
HEADS, ACCEPTED = "heads", "accepted"
MOST_HEADS = 200
"""That travel with one message."""
_MOST_TEXT = 100_000
_MOST_RUNS = 1000
_MOST_STUDIES = 64
_studies: dict[str, str] = {}
_NOTED = re.compile(
    rb'\{"hash":"([0-9a-f]{64})","key":"([0-9a-f]{64})","seq":(\d{1,16}),"signature":"([0-9a-f]{128})",'
    rb'"whose":"([a-z0-9-]{1,40})"\}'
)
"""A noted head in an entry's canonical form; within a text its quotation marks would be escaped."""
_STEPS = ("admit", "protect", "ask", "release")


@dataclass(frozen=True)
class Noted:
    """A head and the name under which whoever noted it knows its owner."""

    whose: str
    head: Head

    def facts(self) -> dict[str, Fact]:
        """As it stands in an entry or a message."""
        return {"whose": self.whose} | self.head.facts()

    @classmethod
    def parse(cls, table: Any) -> "Noted":
        """Raises ValueError on anything else."""
        head, whose = Head.parse(table), table.get("whose")
        if not isinstance(whose, str) or not NAME.fullmatch(whose):
            raise ValueError("got no name; want whose head it is")
        return cls(whose, head)


@dataclass(frozen=True)
class Said:
    """What travels beside a message. salt: of its digest; head: the sender's; heads: of others that it passes on."""

    salt: str
    head: Head | None = None
    heads: tuple[Noted, ...] = ()

    def record(self) -> dict[str, str]:
        """As a record of texts."""
        table = {"head": self.head.facts() if self.head else None, HEADS: [one.facts() for one in self.heads]}
        return {"json": json.dumps(table), "salt": self.salt}

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> "Said":
        """Raises ValueError on anything else than `record` makes."""
        text, salt = record.get("json"), record.get("salt")
        if not (isinstance(text, str) and isinstance(salt, str)) or len(text) > _MOST_TEXT or len(salt) > 100:
            raise ValueError("got other fields; want json and salt")
        try:
            table = json.loads(text)
            head, heads = table["head"], table[HEADS]
            if len(heads) > MOST_HEADS:
                raise ValueError
            return cls(salt, Head.parse(head) if head else None, tuple(map(Noted.parse, heads)))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError("got other JSON; want heads of logs") from None


def content_digest(content: Mapping[str, Mapping[str, Any]], salt: str) -> tuple[str, int]:
    """SHA-256 over a salt and all of a message's records but `audit`, and how many bytes these are.

    Injective: every name, type and value goes in with its length.
    """
    digest, size = hashlib.sha256(), 0

    def add(part: bytes) -> None:
        nonlocal size
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
        size += len(part)

    add(salt.encode())
    size = 0
    for name, record in sorted(content.items()):
        if name == RECORD:
            continue
        add(json.dumps([name, type(record).__name__, len(record)]).encode())
        for key, item in sorted(record.items()):
            data = getattr(item, "data", None)
            if isinstance(data, bytes):  # an array
                add(json.dumps([key, item.dtype, list(item.shape), item.stype]).encode())
                add(data)
            elif isinstance(item, bytes):
                add(json.dumps([key, "bytes"]).encode())
                add(item)
            else:
                add(json.dumps([key, type(item).__name__]).encode())
                add(repr(item).encode("utf-8", "surrogatepass"))
    return digest.hexdigest(), size


def text_digest(text: str, salt: str) -> tuple[str, int]:
    """The same of the text of an error."""
    return content_digest({"error": {"text": text}}, salt)


def about(statement: str) -> dict[str, Fact]:
    """What a statement says of itself, in short, before anybody has looked whether it is one: run, step, round, stage,
    and the study's digest. Nothing of what is not understood, or of an empty one."""
    if not statement:
        return {}
    if len(statement) > MOST_TEXT:
        return {"statement": "too long"}
    try:
        table = json.loads(statement)
        step, number = str(table["step"]), table.get("round", 0)
        found: dict[str, Fact] = {
            "run": plain(str(table["run"])),
            "step": step if step in _STEPS else "unknown",
            "round": number if type(number) is int and 0 <= number < 2**53 else -1,
            "stage": plain(str(table.get("stage", ""))),
        }
        return found | {"study": _study(table["terms"])}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {"statement": "not understood"}


def plain(text: str) -> str:
    """A text of somebody else, short and without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:80])


def _study(terms: Any) -> str:
    """The digest of a study's terms, which come again with every statement."""
    key = hashlib.sha256(json.dumps(terms).encode()).hexdigest()
    if key not in _studies:
        while len(_studies) >= _MOST_STUDIES:
            del _studies[next(iter(_studies))]
        try:
            _studies[key] = Terms.model_validate(terms).digest()
        except (ValidationError, ValueError, RecursionError):
            _studies[key] = "not understood"
    return _studies[key]


@dataclass
class Witness:
    """What a folder's log has noted of others' heads, read as far as it is written; every process has its own.

    Raises Refused on heads that contradict what was noted: signed by another key, another hash for a known number, or
    older than what was known when the run began (messages of two runs may overtake each other).
    """

    folder: Path
    _read: int = 0
    _hashes: dict[str, dict[int, str]] = field(default_factory=dict)
    _newest: dict[str, Noted] = field(default_factory=dict)
    _floors: dict[tuple[str, object], int] = field(default_factory=dict)

    def newest(self) -> tuple[Noted, ...]:
        """The newest head of each, as noted so far."""
        self._catch_up()
        return tuple(self._newest[key] for key in sorted(self._newest))

    def check(self, whose: str, pin: str, head: Head, run: object = None) -> bool:
        """Is a head new? pin: the key that is known to be its owner's; run: the run that it came with, where its owner
        sent it itself. Raises Refused."""
        self._catch_up()
        if head.key != pin or not head.signed():
            raise Refused(f"audit: got a head of {whose}'s log that is not signed by its key; want that of its log")
        known = self._hashes.get(pin, {})
        if head.seq in known:
            if known[head.seq] != head.hash:
                raise Refused(
                    f"audit: got another entry {head.seq} of {whose}'s log than before: it shows two histories; want "
                    "one: compare logs (`statfed audit verify`), and see `statfed audit accept`"
                )
            return False
        if run is not None:
            last = self._newest[pin].head.seq if pin in self._newest else -1
            while len(self._floors) >= _MOST_RUNS:
                del self._floors[next(iter(self._floors))]
            floor = self._floors.setdefault((pin, run), last)
            if head.seq < floor:
                raise Refused(
                    f"audit: got entry {head.seq} as the newest of {whose}'s log, of which entry {floor} was noted: "
                    "entries were taken out, or a backup was put back; want all of it: compare logs (`statfed audit "
                    "verify`), and see `statfed audit accept`"
                )
        return True

    def _catch_up(self) -> None:
        """Read what was appended since, by any process; all of it where the log is another one by now."""
        path = self.folder / FILE
        if not path.exists():
            return
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) < self._read:
                self._read, self._hashes, self._newest, self._floors = 0, {}, {}, {}
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read += len(line)
                if b'"kind":"accepted"' in line:
                    self._forget(line[:-1])
                if b'"heads":[' in line:
                    self._take(line)

    def _forget(self, line: bytes) -> None:
        """Somebody here has accepted that another history of a log begins."""
        entry = parsed(line)
        if entry.kind == ACCEPTED:
            key = str(entry.facts.get("key"))
            self._hashes.pop(key, None)
            self._newest.pop(key, None)
            self._floors = {place: floor for place, floor in self._floors.items() if place[0] != key}

    def _take(self, line: bytes) -> None:
        for digest, key, seq, signature, whose in _NOTED.findall(line):
            head = Head(key.decode(), int(seq), digest.decode(), signature.decode())
            self._hashes.setdefault(head.key, {})[head.seq] = head.hash
            last = self._newest.get(head.key)
            if last is None or last.head.seq < head.seq:
                self._newest[head.key] = Noted(whose.decode(), head)


def noted(entry: Entry) -> Iterable[Noted]:
    """The heads that an entry notes; what is none is passed over."""
    found = entry.facts.get(HEADS, ())
    for table in found if isinstance(found, Sequence) and not isinstance(found, str) else ():
        try:
            yield Noted.parse(table)
        except ValueError:
            continue
