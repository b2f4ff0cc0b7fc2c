"""A holder's privacy ledger: what one dataset has lost, for ever. One SQLite file, append-only and hash-chained.

Formal guarantees.

1. *The budget holds over all studies, however they are chosen.* What is gated is the Renyi filter of one order
   (Feldman and Zrnic 2021, theorem 4.3; converted by Canonne, Kamath and Steinke 2020, proposition 12): a study is
   reserved only while rdp(charged + reserved + asked) at that order stays within the lifetime (epsilon, delta). The
   filter allows each study to depend on the results of earlier ones; the order itself must not, so it is chosen from
   the first study, before anything was released, and kept in the chain.
2. *Single study.* The composition of privacy loss distributions is tighter and valid for parameters that were fixed
   beforehand (Koskela et al. 2020), but it is no filter. A ledger without charge or reservation may therefore admit
   one study by that figure, and is then closed to every later one. Which of the two rules governs is settled before
   the first release. There is never "within one or the other": two stopping rules that are each valid say nothing
   about stopping at the later of the two, nor about the more favourable being picked after seeing results
   (Rogers et al. 2016, Whitehouse et al. 2023 on why odometers and filters cost more than fixed composition).
   A reservation released without any charge released nothing, so the ledger is as new and the choice is free again.
3. *A crash can only over-count.* A reservation counts in full until it is released. `charge` is called before data
   are read and returns after the entry is on disk (rollback journal, synchronous=EXTRA, which also syncs the folder:
   without it a power cut may bring back the journal and undo the last commit). Dying at any point leaves either no
   entry and no data read, or an entry and perhaps no release.
4. *Two processes cannot both spend the last of it*: every check and its entry are one BEGIN IMMEDIATE transaction.
5. *Edits show.* An entry's hash covers its fields and the previous hash. `verify` names what was edited, removed or
   reordered; a tail cut off shows against an anchor, a head hash kept elsewhere. Nothing is charged to a ledger that
   fails. The chain is not keyed: whoever rewrites all of it is found by an anchor only.

The figures reported for a run that stopped early hold if the stop did not depend on results; the gate needs no such
condition. Raising the budget is on record ("budget"); the promise then is the raised one, as if made at the start.
"""

import datetime as dt
import json
import math
import os
import secrets
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from statfed.core import privacy
from statfed.core.errors import EngineError, LedgerCorrupt, Refused, UsageError
from statfed.core.privacy import Event, Repeated
from statfed.core.study import Unit

FORMAT = 1
_GENESIS = "0" * 64
_FIELDS = ("seq", "time", "kind", "run", "study", "round", "event", "facts", "note", "salt", "previous", "hash")
_SCHEMA = (
    "CREATE TABLE entries (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL, run TEXT NOT NULL, "
    "study TEXT NOT NULL, round INTEGER NOT NULL, event TEXT NOT NULL, facts TEXT NOT NULL, note TEXT NOT NULL, "
    "salt TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)",
    "CREATE TRIGGER never_delete BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "CREATE TRIGGER never_update BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
)
_BUSY_SECONDS = 60.0


@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    kind: open, budget, reserve, charge, disclose or release; round: number of rounds for reserve; event: JSON of the
    event of one round, or ""; facts: canonical JSON of what else the kind says (for reserve: `order`, `single`).
    """

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


@dataclass(frozen=True)
class Spending:
    """What was spent. Figures are epsilons at `delta` unless said otherwise.

    study_epsilon: PLD over the charges of the run asked for (None without one); history_epsilon: PLD over all charges
    ever; filter_epsilon: what the gate counts, charges and reservations (PLD where `single`); left: budget - filter.
    """

    study_epsilon: float | None
    history_epsilon: float
    filter_epsilon: float
    charged: int
    reserved: int
    budget: float
    delta: float
    left: float
    order: float | None
    single: bool
    disclosures: int
    entries: int
    head: str


@dataclass
class _Run:
    study: str
    rounds: int
    event: str
    admitted: tuple[float, float]
    charged: set[int] = field(default_factory=set)
    released: bool = False

    @property
    def outstanding(self) -> int:
        return 0 if self.released else self.rounds - len(self.charged)


@dataclass
class _State:
    """What the entries add up to. `apply` refuses a sequence that this module could not have written."""

    dataset: str = ""
    unit: str = ""
    epsilon: float = 0.0
    delta: float = 0.0
    order: float | None = None
    single: bool = False
    runs: dict[str, _Run] = field(default_factory=dict)
    disclosed: set[tuple[str, int]] = field(default_factory=set)
    seq: int = 0
    head: str = _GENESIS

    def events(self, charged: bool = True, reserved: bool = True) -> list[Event]:
        """Composition of charges and outstanding reservations, one event for equal ones."""
        counts: Counter[str] = Counter()
        for run in self.runs.values():
            counts[run.event] += (len(run.charged) if charged else 0) + (run.outstanding if reserved else 0)
        return [_times(text, count) for text, count in sorted(counts.items()) if count]

    @property
    def charges(self) -> int:
        return sum(len(run.charged) for run in self.runs.values())

    @property
    def reserved(self) -> int:
        return sum(run.outstanding for run in self.runs.values())

    @property
    def new(self) -> bool:
        """Nothing was ever released under the budget and nothing is about to be."""
        return not self.charges and not self.reserved

    def figure(self, events: list[Event]) -> float:
        """The epsilon that the gate counts for `events` under the rule in force."""
        if not events:
            return 0.0
        if self.single or self.order is None:
            return privacy.epsilon(events, self.delta)
        return privacy.filter_epsilon(events, self.order, self.delta)

    def apply(self, entry: Entry) -> None:
        facts: dict[str, Any] = json.loads(entry.facts)
        run = self.runs.get(entry.run)
        if (entry.kind == "open") != (self.seq == 0):
            raise ValueError("open comes first and once")
        match entry.kind:
            case "open":
                if facts["format"] != FORMAT:
                    raise ValueError(f"format: got {facts['format']}; want {FORMAT}")
                self.dataset, self.unit = facts["dataset"], facts["unit"]
                self.epsilon, self.delta = facts["epsilon"], facts["delta"]
            case "budget":
                self.epsilon, self.delta = facts["epsilon"], facts["delta"]
            case "reserve":
                follows = not self.single and (facts["order"], facts["single"]) == (self.order, False)
                if run or not (self.new or follows):
                    raise ValueError("reservation that could not have been admitted")
                privacy.event_from_json(entry.event)
                self.order, self.single = facts["order"], facts["single"]
                admitted = (self.epsilon, self.delta)
                self.runs[entry.run] = _Run(entry.study, entry.round, entry.event, admitted)
            case "charge":
                if not run or run.released or not 1 <= entry.round <= run.rounds or entry.round in run.charged:
                    raise ValueError("charge without a reservation")
                if (run.study, run.event) != (entry.study, entry.event):
                    raise ValueError("charge that differs from its reservation")
                run.charged.add(entry.round)
            case "disclose":
                self.disclosed.add((entry.run, entry.round))
            case "release" if run:
                run.released = True
            case _:
                raise ValueError(f"unknown kind {entry.kind!r}")
        self.seq, self.head = entry.seq, entry.hash


class Ledger:
    """The ledger of one dataset, created with its first opening; see the module for what it guarantees.

    dataset, unit: bound for ever, others are Refused. epsilon, delta: lifetime budget; a change is appended to the
    chain. create: False where the ledger must exist already. Safe between threads and between processes of one host;
    the file belongs on a local disk, since SQLite's locks do not hold on every network file system.
    Raises LedgerCorrupt whenever the chain does not verify.
    """

    def __init__(
        self, path: Path, *, dataset: str, unit: Unit, epsilon: float, delta: float, create: bool = True
    ) -> None:
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise UsageError(f"budget: got epsilon {epsilon:g} at delta {delta:g}; want epsilon > 0 and 0 < delta < 1")
        budget: dict[str, Any] = {"epsilon": float(epsilon), "delta": float(delta)}
        if not path.exists():
            if not create:
                raise UsageError(f"ledger not found: {path}; want the ledger that this dataset has always had")
            with _translated(path):
                _create(path, {"format": FORMAT, "dataset": dataset, "unit": unit} | budget)
        self._open(path, writable=True)
        with self._closing_on_error(), self._transaction():
            got, want = (self._state.dataset, self._state.unit), (dataset, unit)
            if got != want:
                raise Refused(f"ledger of dataset {got[0]} per {got[1]}; want dataset {want[0]} per {want[1]}")
            if (self._state.epsilon, self._state.delta) != (budget["epsilon"], budget["delta"]):
                was = f"was epsilon {self._state.epsilon:g} at delta {self._state.delta:g}"
                self._append("budget", facts=budget, note=was)

    @classmethod
    def read_only(cls, path: Path) -> "Ledger":
        """Open to show or verify. Never writes; dataset, unit and budget are those of the chain."""
        self = cls.__new__(cls)
        self._open(path, writable=False)
        with self._closing_on_error(), self._lock, _translated(path):
            self._refresh()
        return self

    def _open(self, path: Path, *, writable: bool) -> None:
        if not path.is_file():
            raise UsageError(f"ledger not found: {path}")
        self._path, self._lock, self._state = path, threading.RLock(), _State()
        self._version: int | None = None  # of the file, when `_state` was read
        self._seen = (0, _GENESIS)  # the last entry known to be on disk
        with _translated(path):
            self._db = _connect(path, writable)
        if writable:
            path.chmod(0o600)

    @property
    def dataset(self) -> str:
        """The dataset that the chain is bound to."""
        return self._state.dataset

    @property
    def unit(self) -> str:
        """The privacy unit that the chain is bound to."""
        return self._state.unit

    def reserve(self, run: str, study: str, rounds: int, event_per_round: Event, note: str = "") -> str:
        """Set aside budget for `rounds` rounds of one run. Returns the head hash.

        Raises Refused, with the numbers, when the gate would pass the lifetime budget; UsageError on rounds < 1.
        Asking again for what is already reserved returns the head and adds nothing.
        """
        if rounds < 1 or not run:
            raise UsageError(
                f"reservation of run {run!r}: got {rounds} rounds; want a named run and at least one round"
            )
        event = privacy.event_to_json(event_per_round)
        with self._transaction() as state:
            known = state.runs.get(run)
            if known:
                if not known.released and (known.study, known.rounds, known.event) == (study, rounds, event):
                    return state.head
                raise Refused(f"run {run} already has a reservation; want a new run, or the same terms before release")
            facts = self._gate(state, _times(event, rounds))
            return self._append("reserve", run, study, rounds, event=event, facts=facts, note=note)

    def _gate(self, state: _State, asked: Event) -> dict[str, Any]:
        """The facts of the reservation of `asked`; Refused when no rule admits it."""
        if state.single and not state.new:
            raise Refused(
                f"privacy budget: asked epsilon {privacy.epsilon([asked], state.delta):.4g} more; the whole lifetime "
                f"budget of epsilon {state.epsilon:g} at delta {state.delta:g} went to a single study "
                f"(spent {state.figure(state.events(reserved=False)):.4g}, spent and reserved "
                f"{state.figure(state.events()):.4g}); left 0"
            )
        order = privacy.filter_order([asked], state.epsilon, state.delta) if state.new else cast(float, state.order)
        total = privacy.filter_epsilon([*state.events(), asked], order, state.delta)
        if total <= state.epsilon:
            return {"order": order, "single": False}
        alone = privacy.epsilon([asked], state.delta)
        if state.new and alone <= state.epsilon:
            return {"order": None, "single": True}
        spent, held = (0.0, 0.0) if state.new else (state.figure(state.events(reserved=r)) for r in (False, True))
        raise Refused(
            f"privacy budget: asked epsilon {alone:.4g}, with which the lifetime filter (order {order:g}) comes to "
            f"{total:.4g}; want at most epsilon {state.epsilon:g} at delta {state.delta:g} "
            f"(spent {spent:.4g}, spent and reserved {held:.4g}, left {max(0.0, state.epsilon - held):.4g})"
        )

    def charge(self, run: str, study: str, round: int, event: Event) -> str:
        """Charge one round. Call before data are read. Returns the head hash, once the entry is on disk.

        Raises Refused on a replayed round, and on anything that an outstanding reservation does not cover.
        """
        text = privacy.event_to_json(event)
        with self._transaction() as state:
            known = state.runs.get(run)
            if known and round in known.charged:
                raise Refused(f"round {round} of run {run} was already charged; want a new round")
            if not known or known.released or known.study != study:
                raise Refused(f"round {round} of run {run}: got no outstanding reservation of this study; want reserve")
            if not 1 <= round <= known.rounds:
                raise Refused(f"run {run}: got round {round}; want one of the {known.rounds} reserved rounds")
            if known.event != text:
                raise Refused(f"round {round} of run {run}: got event {text}; want the reserved {known.event}")
            if known.admitted != (state.epsilon, state.delta):  # the budget was changed since: it has to cover this too
                total = state.figure([*state.events(reserved=False), event])
                if total > state.epsilon:
                    raise Refused(f"changed privacy budget: got epsilon {total:.4g}; want at most {state.epsilon:g}")
            return self._append("charge", run, study, round, event=text)

    def disclose(self, run: str, study: str, round: int, note: str) -> str:
        """Record a release that is not differentially private, before it leaves. Each (run, round) once."""
        with self._transaction() as state:
            if (run, round) in state.disclosed:
                raise Refused(f"round {round} of run {run} was already disclosed; want a new round")
            return self._append("disclose", run, study, round, note=note)

    def release(self, run: str) -> str:
        """Free what `run` reserved and did not charge. Idempotent; nothing to do for an unknown run."""
        with self._transaction() as state:
            known = state.runs.get(run)
            if not known or known.released:
                return state.head
            return self._append("release", run, known.study, facts={"freed": known.outstanding})

    def spending(self, run: str | None = None, *, delta: float | None = None) -> Spending:
        """What was spent so far. delta: that of the study, for `study_epsilon` only; else the budget's."""
        with self._lock, _translated(self._path):
            state = self._refresh()
            known = state.runs.get(run) if run is not None else None
            mine = [_times(known.event, len(known.charged))] if known and known.charged else []
            counted = state.figure(state.events())
            closed = state.single and not state.new
            return Spending(
                study_epsilon=None if run is None else privacy.epsilon(mine, delta or state.delta),
                history_epsilon=privacy.epsilon(state.events(reserved=False), state.delta),
                filter_epsilon=counted,
                charged=state.charges,
                reserved=state.reserved,
                budget=state.epsilon,
                delta=state.delta,
                left=0.0 if closed else max(0.0, state.epsilon - counted),
                order=state.order,
                single=closed,
                disclosures=len(state.disclosed),
                entries=state.seq,
                head=state.head,
            )

    def entries(self) -> list[Entry]:
        """All entries, verified."""
        with self._lock, _translated(self._path):
            found = list(_rows(self._db))
            _replay(found)
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
        with self._lock, _translated(self._path):
            _check_file(self._db)
        return found[-1].hash

    def head(self) -> str:
        """The hash of the last entry, of a verified chain."""
        with self._lock, _translated(self._path):
            return self._refresh().head

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Ledger({str(self._path)!r}, dataset={self.dataset!r}, entries={self._state.seq})"

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _transaction(self) -> Iterator[_State]:
        """Exclusive writing on a verified chain: all of it is committed, or none."""
        with self._lock, _translated(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._refresh()
                self._db.execute("COMMIT")
                self._seen = (self._state.seq, self._state.head)
            except BaseException:
                if (self._state.seq, self._state.head) != self._seen:  # what was appended here is not on disk
                    self._version = None
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _refresh(self) -> _State:
        """The state of a verified chain. Own appends are trusted; after another connection's, all is verified anew."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version, found = None, list(_rows(self._db))
            self._state = _replay(found)
            seq, head = self._seen
            if seq and (self._state.seq < seq or found[seq - 1].hash != head):
                raise LedgerCorrupt(f"ledger truncated: entry {seq}, seen by this process, is no longer there")
            _check_file(self._db, quick=True)
            self._version, self._seen = version, (self._state.seq, self._state.head)
        return self._state

    def _append(self, kind: str, run: str = "", study: str = "", round: int = 0, **more: Any) -> str:
        if not 0 <= round < 2**31 or any(
            "\ud800" <= sign <= "\udfff" for sign in f"{run}{study}{more.get('note', '')}"
        ):
            raise UsageError(f"ledger: got round {round} of run {run!a}; want a round from 0 and text that is Unicode")
        entry = _sealed(self._state.seq + 1, self._state.head, kind, run, study, round, **more)
        self._state.apply(entry)
        _insert(self._db, entry)
        return entry.hash


def read_only(path: Path) -> Ledger:
    """`Ledger.read_only`: open to show or verify, never writing."""
    return Ledger.read_only(path)


def _canonical(table: dict[str, Any]) -> str:
    return json.dumps(table, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _times(text: str, count: int) -> Event:
    event = privacy.event_from_json(text)
    if isinstance(event, Repeated):
        return Repeated(times=event.times * count, event=event.event)
    return Repeated(times=count, event=event)


def _sealed(
    seq: int,
    previous: str,
    kind: str,
    run: str = "",
    study: str = "",
    round: int = 0,
    *,
    event: str = "",
    facts: dict[str, Any] | None = None,
    note: str = "",
) -> Entry:
    time, salt = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"), secrets.token_hex(16)
    draft = Entry(seq, time, kind, run, study, round, event, _canonical(facts or {}), note, salt, previous, "")
    return replace(draft, hash=draft.digest())


def _connect(path: Path, writable: bool) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'rw' if writable else 'ro'}"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")  # damaged text fails its hash, and is named
    if writable:
        db.execute("PRAGMA synchronous=EXTRA")
    return db


def _create(path: Path, facts: dict[str, Any]) -> None:
    """Write schema and first entry under another name, then link: a ledger is never seen without its first entry."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = _connect(draft, writable=True)
        try:
            for statement in ("PRAGMA journal_mode=DELETE", f"PRAGMA user_version={FORMAT}", "BEGIN", *_SCHEMA):
                db.execute(statement)
            _insert(db, _sealed(1, _GENESIS, "open", facts=facts))
            db.execute("COMMIT")
        finally:
            db.close()
        os.link(draft, path)
    except FileExistsError:
        pass  # another process was first: its ledger is the ledger
    except OSError as error:
        raise UsageError(f"ledger cannot be created at {path}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _insert(db: sqlite3.Connection, entry: Entry) -> None:
    db.execute(
        f"INSERT INTO entries VALUES ({','.join('?' * len(_FIELDS))})",  # noqa: S608
        [getattr(entry, name) for name in _FIELDS],
    )


def _rows(db: sqlite3.Connection) -> Iterator[Entry]:
    for row in db.execute(f"SELECT {','.join(_FIELDS)} FROM entries ORDER BY seq"):  # noqa: S608
        yield Entry(*row)


def _replay(found: list[Entry]) -> _State:
    """The state that the entries add up to. Raises LedgerCorrupt naming the first that is not as it was written."""
    state = _State()
    for entry in found:
        seq = state.seq + 1
        if entry.seq != seq:
            raise LedgerCorrupt(f"ledger entry {seq} was removed: got entry {entry.seq} after {seq - 1}; want {seq}")
        if not _intact(entry):
            other = next((n for n in range(1, len(found) + 2) if n != seq and _intact(entry, n)), None)
            if other is not None:
                raise LedgerCorrupt(f"ledger entry {seq} was reordered: it was written as entry {other}")
            raise LedgerCorrupt(f"ledger entry {seq} was edited: its content does not match its hash")
        if entry.previous != state.head:
            raise LedgerCorrupt(f"ledger entry {seq - 1} was edited or replaced: entry {seq} was chained to another")
        try:
            state.apply(entry)
        except (ValueError, KeyError, TypeError, LedgerCorrupt) as error:
            raise LedgerCorrupt(f"ledger entry {seq} was not written by this program: {error}") from None
    if not found:
        raise LedgerCorrupt("ledger entry 1 was removed: got no entries; want at least the first")
    return state


def _intact(entry: Entry, seq: int | None = None) -> bool:
    try:
        return entry.digest(seq) == entry.hash
    except (TypeError, ValueError):  # a value of a type that was never written
        return False


def _check_file(db: sqlite3.Connection, quick: bool = False) -> None:
    """Raise LedgerCorrupt when the file is not what `_create` made, or (unless quick) when a page is damaged."""
    schema = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master ORDER BY type, name")]
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != FORMAT or schema != list(_SCHEMA):
        raise LedgerCorrupt(f"ledger schema was changed: got version {version}; want {FORMAT} and its triggers")
    if not quick and (report := db.execute("PRAGMA quick_check").fetchall()) != [("ok",)]:
        raise LedgerCorrupt(f"ledger file is damaged: {report[0][0]}")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's errors as ours: a lock held by another process, or a file that is no ledger any more."""
    try:
        yield
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
