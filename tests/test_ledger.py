"""The privacy ledger: the gate, replays, crashes, races and tampering."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from statfed.client import chain
from statfed.client.ledger import Ledger, read_only
from statfed.core import privacy
from statfed.core.errors import EngineError, LedgerCorrupt, Refused, UsageError
from statfed.core.privacy import Event, Gaussian

NOISY, CLEARER = Gaussian(noise_multiplier=40.0), Gaussian(noise_multiplier=15.0)
DELTA = 1e-5


def opened(path: Path, epsilon: float = 1.0, **changes: Any) -> Ledger:
    terms: dict[str, Any] = {"dataset": "toy", "unit": "person", "epsilon": epsilon, "delta": DELTA} | changes
    return Ledger(path, **terms)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def filled(path: Path) -> str:
    """A ledger of seven entries; returns the head."""
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY, "training")
        ledger.charge("one", "study", 1, NOISY)
        ledger.charge("one", "study", 2, NOISY)
        ledger.disclose("two", "other", 1, "model without noise")
        ledger.release("one")
        return ledger.reserve("three", "study", 1, NOISY)


# --- the gate


def test_the_first_study_sets_the_order_and_the_filter_is_what_is_counted(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY)
        spent = ledger.spending("one")
        assert spent.order == privacy.filter_order([NOISY] * 3, 1.0, DELTA)
        assert spent.filter_epsilon == privacy.filter_epsilon([NOISY] * 3, spent.order, DELTA)
        assert spent.left == 1.0 - spent.filter_epsilon
        assert (spent.charged, spent.reserved, spent.single, spent.study_epsilon) == (0, 3, False, 0.0)
        ledger.charge("one", "study", 2, NOISY)
        ledger.release("one")
        ledger.reserve("two", "study", 1, CLEARER)
        after = ledger.spending("one")
        assert after.order == spent.order
        assert after.filter_epsilon == privacy.filter_epsilon([NOISY, CLEARER], spent.order, DELTA)
        assert after.study_epsilon == after.history_epsilon == privacy.epsilon([NOISY], DELTA)
        assert ledger.spending("one", delta=1e-7).study_epsilon == privacy.epsilon([NOISY], 1e-7)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from([NOISY, CLEARER])), min_size=1, max_size=5))
def test_refused_exactly_when_the_filter_passes_the_budget(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, Gaussian]]
) -> None:
    taken: list[Event] = []
    with opened(tmp_path_factory.mktemp("gate") / "ledger.sqlite") as ledger:
        for index, (rounds, event) in enumerate(asked):
            new = [*taken, *[event] * rounds]
            before = ledger.spending()
            order = before.order or privacy.filter_order(new, 1.0, DELTA)
            fits = privacy.filter_epsilon(new, order, DELTA) <= 1.0 and not before.single
            single = not taken and not before.single and not fits and privacy.epsilon(new, DELTA) <= 1.0
            if fits or single:
                ledger.reserve(f"run-{index}", "study", rounds, event)
                taken = new
            else:
                with pytest.raises(Refused, match=r"privacy budget: asked epsilon .* spent .* left"):
                    ledger.reserve(f"run-{index}", "study", rounds, event)
                assert ledger.spending() == before
            assert ledger.spending().single == (single or before.single)


@pytest.fixture(scope="module")
def exact() -> Event:
    """Five rounds of it cost epsilon 1 by the PLD, and more by any filter."""
    return privacy.dp_sgd(0.05, privacy.calibrate(0.05, 50, 1.0, DELTA), 10)


def test_a_study_of_the_whole_budget_is_admitted_as_the_only_one(path: Path, exact: Event) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 5, exact)
        spent = ledger.spending()
        assert spent.single
        assert spent.order is None
        assert 0.99 < spent.filter_epsilon <= 1.0
        assert spent.left == 0.0
        with pytest.raises(Refused, match=r"asked epsilon 0\.0\d+ more.*budget of epsilon 1 at.*spent 0,.*left 0"):
            ledger.reserve("two", "study", 1, NOISY)
        ledger.charge("one", "study", 1, exact)
        ledger.release("one")
        assert ledger.spending().left == 0.0
        with pytest.raises(Refused, match="single study"):
            ledger.reserve("two", "study", 1, NOISY)
    with opened(path, epsilon=50.0) as ledger, pytest.raises(Refused, match="single study"):
        ledger.reserve("two", "study", 1, NOISY)


def test_a_single_study_released_without_a_charge_leaves_the_ledger_as_new(path: Path, exact: Event) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 5, exact)
        ledger.release("one")
        assert ledger.spending().left == 1.0
        ledger.reserve("two", "study", 1, NOISY)
        assert ledger.spending().order == privacy.filter_order([NOISY], 1.0, DELTA)
        ledger.release("two")
        ledger.reserve("three", "study", 5, exact)
        assert ledger.spending().single
        ledger.verify()


def test_no_study_becomes_single_beside_another(path: Path, exact: Event) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 1, NOISY)
        with pytest.raises(Refused, match=r"want at most epsilon 1 at delta 1e-05"):
            ledger.reserve("two", "study", 5, exact)


# --- reserve, charge, disclose, release


def test_a_charge_needs_a_matching_outstanding_reservation(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY)
        refused: list[tuple[tuple[str, str, int, Event], str]] = [
            (("two", "study", 1, NOISY), "got no outstanding reservation"),
            (("one", "other", 1, NOISY), "got no outstanding reservation"),
            (("one", "study", 0, NOISY), "got round 0; want one of the 3"),
            (("one", "study", 4, NOISY), "got round 4; want one of the 3"),
            (("one", "study", 1, CLEARER), "got event .*15.*; want the reserved .*40"),
        ]
        for call, message in refused:
            with pytest.raises(Refused, match=message):
                ledger.charge(*call)
        ledger.charge("one", "study", 3, NOISY)
        with pytest.raises(Refused, match="round 3 of run one was already charged; want a new round"):
            ledger.charge("one", "study", 3, NOISY)
        ledger.release("one")
        with pytest.raises(Refused, match="round 3 of run one was already charged; want a new round"):
            ledger.charge("one", "study", 3, NOISY)
        with pytest.raises(Refused, match="got no outstanding reservation"):
            ledger.charge("one", "study", 1, NOISY)
        assert ledger.spending().entries == 4


def test_retries_add_nothing(path: Path) -> None:
    with opened(path) as ledger:
        head = ledger.reserve("one", "study", 3, NOISY)
        assert ledger.reserve("one", "study", 3, NOISY) == head
        with pytest.raises(Refused, match="run one already has a reservation"):
            ledger.reserve("one", "study", 4, NOISY)
        assert ledger.release("unknown") == head
        assert (released := ledger.release("one")) == ledger.release("one") == ledger.head() != head
        with pytest.raises(Refused, match="run one already has a reservation"):
            ledger.reserve("one", "study", 3, NOISY)
        assert ledger.verify(head) == released


def test_each_round_is_disclosed_once(path: Path) -> None:
    with opened(path) as ledger:
        ledger.disclose("one", "study", 1, "model without noise")
        with pytest.raises(Refused, match="round 1 of run one was already disclosed; want a new round"):
            ledger.disclose("one", "study", 1, "again")
        ledger.disclose("one", "study", 2, "model without noise")
        assert ledger.spending().disclosures == 2
        assert ledger.spending().filter_epsilon == 0.0


@pytest.mark.parametrize("bad", [{"run": "\ud800"}, {"round": -1}, {"round": 2**63}, {"note": "\udfff"}])
def test_what_cannot_be_stored_is_wrong_usage_and_leaves_nothing(path: Path, bad: dict[str, Any]) -> None:
    with opened(path) as ledger:
        call: dict[str, Any] = {"run": "one", "study": "s", "round": 1, "note": ""} | bad
        with pytest.raises(UsageError, match="ledger: got round"):
            ledger.disclose(**call)
        assert ledger.spending().entries == 1
        ledger.disclose("one", "s", 1, "")


class Interleavings(RuleBasedStateMachine):
    """Any order of calls of three runs, with reopening, against a plain model of what is spent."""

    folder: Path
    count = 0

    @initialize()
    def start(self) -> None:
        type(self).count += 1
        self.path = self.folder / f"{self.count}.sqlite"
        self.ledger = opened(self.path)
        self.held: dict[str, tuple[int, Gaussian]] = {}
        self.charged: dict[str, set[int]] = {}
        self.spent = 0.0

    @rule(run=st.sampled_from("abc"), rounds=st.integers(1, 12), event=st.sampled_from([NOISY, CLEARER]))
    def reserve(self, run: str, rounds: int, event: Gaussian) -> None:
        try:
            self.ledger.reserve(run, "study", rounds, event)
        except Refused:
            return
        self.held[run] = (rounds, event)
        self.charged.setdefault(run, set())

    @rule(run=st.sampled_from("abc"), round=st.integers(1, 4))
    def charge(self, run: str, round: int) -> None:
        rounds, event = self.held.get(run, (0, NOISY))
        if round <= rounds and round not in self.charged[run]:
            self.ledger.charge(run, "study", round, event)
            self.charged[run].add(round)
        else:
            with pytest.raises(Refused):
                self.ledger.charge(run, "study", round, event)

    @rule(run=st.sampled_from("abc"))
    def release(self, run: str) -> None:
        self.ledger.release(run)
        self.held.pop(run, None)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = opened(self.path)

    @invariant()
    def spending_is_that_of_the_model_within_the_budget_and_never_falls(self) -> None:
        spent = self.ledger.spending()
        assert spent.charged == sum(map(len, self.charged.values()))
        assert spent.reserved == sum(rounds - len(self.charged[run]) for run, (rounds, _) in self.held.items())
        assert spent.history_epsilon is not None
        assert spent.history_epsilon >= self.spent - 1e-9
        assert spent.history_epsilon <= spent.filter_epsilon * 1.001 <= 1.001
        self.spent = spent.history_epsilon

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.verify()
            self.ledger.close()


def test_any_interleaving_of_runs_is_counted_once(tmp_path: Path) -> None:
    Interleavings.folder = tmp_path
    run_state_machine_as_test(
        Interleavings, settings=settings(max_examples=12, stateful_step_count=15, deadline=None, derandomize=True)
    )


# --- opening


def test_the_file_is_private_and_is_for_one_dataset_and_unit(path: Path) -> None:
    filled(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {other.name for other in path.parent.iterdir()} == {path.name, "ledger.opened"}
    with pytest.raises(Refused, match="ledger of dataset toy per person; want dataset other per person"):
        opened(path, dataset="other")
    with pytest.raises(Refused, match="ledger of dataset toy per person; want dataset toy per record"):
        opened(path, unit="record")
    with pytest.raises(UsageError, match="ledger not found"):
        opened(path.with_name("none"), create=False)
    with pytest.raises(UsageError, match="budget: got epsilon inf"):
        opened(path, epsilon=float("inf"))


def test_a_changed_budget_is_on_record_and_governs(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 8, NOISY)
        ledger.charge("one", "study", 1, NOISY)
    opened(path).close()
    with opened(path, epsilon=0.2) as ledger:
        last = ledger.entries()[-1]
        assert (last.kind, last.facts, last.note) == (
            "budget",
            '{"delta":1e-05,"epsilon":0.2}',
            "was epsilon 1 at delta 1e-05",
        )
        assert last.seq == 4
        with pytest.raises(Refused, match=r"changed privacy budget: got epsilon .* want at most 0.2"):
            ledger.charge("one", "study", 2, NOISY)
    with opened(path, epsilon=2.0) as ledger:
        ledger.charge("one", "study", 2, NOISY)
        assert ledger.spending().budget == 2.0


def test_read_only_shows_all_and_writes_nothing(path: Path) -> None:
    head = filled(path)
    before = path.read_bytes()
    with read_only(path) as ledger:
        assert (ledger.dataset, ledger.unit, ledger.verify(head)) == ("toy", "person", head)
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds == ["open", "reserve", "charge", "charge", "disclose", "release", "reserve"]
        assert ledger.spending().budget == 1.0
        with pytest.raises(UsageError, match="cannot be written"):
            ledger.disclose("x", "y", 1, "z")
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="ledger not found"):
        read_only(path.with_name("none"))


# --- tampering


def _sql(*statements: str) -> Callable[[Path], None]:
    def tamper(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type='trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            db.execute(statement)
        for _, sql in triggers:
            db.execute(sql)
        db.close()

    return tamper


_SWAP = (
    "UPDATE entries SET seq = 99 WHERE seq = 3",
    "UPDATE entries SET seq = 3 WHERE seq = 4",
    "UPDATE entries SET seq = 4 WHERE seq = 99",
)


@pytest.mark.parametrize(
    ("tamper", "named"),
    [
        (_sql("UPDATE entries SET round = 9 WHERE seq = 4"), "entry 4 was edited"),
        (_sql("UPDATE entries SET note = 'x' WHERE seq = 2"), "entry 2 was edited"),
        (_sql("UPDATE entries SET salt = x'00ff' WHERE seq = 2"), "entry 2 was edited"),
        (_sql("UPDATE entries SET note = CAST(x'ff' AS TEXT) WHERE seq = 5"), "entry 5 was edited"),
        (_sql("UPDATE entries SET round = '1' || 'a' WHERE seq = 3"), "entry 3 was edited"),
        (_sql("UPDATE entries SET facts = replace(facts, '1.0', '9.0') WHERE seq = 1"), "entry 1 was edited"),
        (_sql("DELETE FROM entries WHERE seq = 3"), "entry 3 was removed"),
        (_sql("DELETE FROM entries WHERE seq = 1"), "entry 1 was removed"),
        (_sql("DELETE FROM entries"), "entry 1 was removed"),
        (_sql(*_SWAP), "entry 3 was reordered: it was written as entry 4"),
        (
            _sql("DELETE FROM entries WHERE seq = 3", "UPDATE entries SET seq = seq - 1 WHERE seq > 3"),
            "entry 3 was reord",
        ),
        (_sql("CREATE TABLE more (x)"), "schema was changed"),
    ],
)
def test_tampering_is_named_and_stops_everything(path: Path, tamper: Callable[[Path], None], named: str) -> None:
    filled(path)
    ledger, viewer = opened(path), read_only(path)
    tamper(path)
    calls: list[Callable[[], object]] = [
        lambda: ledger.charge("three", "study", 1, NOISY),
        lambda: ledger.reserve("four", "study", 1, NOISY),
        lambda: ledger.charge("three", "study", 1, NOISY),
        viewer.verify,
        lambda: read_only(path),
        lambda: opened(path),
    ]
    for call in calls:
        with pytest.raises(LedgerCorrupt, match=named):
            call()
    ledger.close()
    viewer.close()


def test_an_entry_rewritten_with_its_hash_breaks_the_link_that_follows(path: Path) -> None:
    filled(path)
    with read_only(path) as ledger:
        forged = replace(ledger.entries()[3], note="harmless")
    _sql(f"UPDATE entries SET note = 'harmless', hash = '{forged.digest()}' WHERE seq = 4")(path)  # noqa: S608
    with pytest.raises(LedgerCorrupt, match="entry 4 was edited or replaced: entry 5 was chained to another"):
        read_only(path)


def test_entries_that_this_program_would_not_write_are_refused_even_when_chained(path: Path) -> None:
    head = filled(path)
    forged = chain.sealed(8, head, "charge", "one", "study", 1, event=privacy.event_to_json(NOISY))
    db = sqlite3.connect(path)
    chain.insert(db, forged)
    db.commit()
    db.close()
    with pytest.raises(LedgerCorrupt, match="entry 8 was not written by this program: charge without a reservation"):
        read_only(path)


def test_dropped_triggers_are_noticed_and_triggers_abort_edits(path: Path) -> None:
    filled(path)
    db = sqlite3.connect(path, isolation_level=None)
    for statement in ("UPDATE entries SET round = 0", "DELETE FROM entries"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute(statement)
    db.execute("DROP TRIGGER never_delete")
    db.close()
    with pytest.raises(LedgerCorrupt, match="schema was changed"):
        opened(path)


def test_a_truncated_tail_is_found_by_the_anchor_and_by_whoever_saw_it(path: Path) -> None:
    head = filled(path)
    with opened(path) as ledger:
        _sql("DELETE FROM entries WHERE seq > 5")(path)
        with pytest.raises(LedgerCorrupt, match="truncated: entry 7, seen by this process"):
            ledger.reserve("four", "study", 1, NOISY)
        with pytest.raises(LedgerCorrupt, match="truncated: entry 7, seen by this process"):
            ledger.reserve("four", "study", 1, NOISY)
    with read_only(path) as ledger:
        ledger.verify()
        with pytest.raises(LedgerCorrupt, match=f"truncated: the head {head[:16]} .* ends with entry 5"):
            ledger.verify(head)


def test_a_flipped_byte_is_found_or_changes_nothing(path: Path) -> None:
    head = filled(path)
    with read_only(path) as ledger:
        entries = ledger.entries()
    good = path.read_bytes()
    found = 0
    for offset in range(0, len(good), 61):
        path.write_bytes(good[:offset] + bytes([good[offset] ^ 0x41]) + good[offset + 1 :])
        try:
            with read_only(path) as ledger:
                ledger.verify(head)
                assert ledger.entries() == entries
        except (LedgerCorrupt, UsageError):
            found += 1
    assert found > 20


@pytest.mark.parametrize("content", [b"", b"not a ledger at all, but text" * 100, b"SQLite format 3\0" + bytes(4080)])
def test_a_file_that_is_no_ledger_is_corrupt_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for open_it in (opened, read_only):
        with pytest.raises(LedgerCorrupt):
            open_it(path)
    assert path.read_bytes() == content


# --- deletion


def genesis(path: Path) -> str:
    with read_only(path) as ledger:
        return ledger.entries()[0].hash


OPENINGS: list[Callable[[Path], object]] = [opened, read_only, lambda path: opened(path, create=False)]


def test_a_deleted_ledger_is_missed_and_not_begun_anew_until_it_is_restored(path: Path) -> None:
    head = filled(path)
    marker = path.with_name("ledger.opened")
    assert marker.read_text() == genesis(path) + "\n"
    assert marker.stat().st_mode & 0o777 == 0o600
    backup = path.rename(path.with_name("backup"))
    for open_it in OPENINGS:
        with pytest.raises(LedgerCorrupt, match=r"^ledger missing: ledger.sqlite was opened before.*want it restored"):
            open_it(path)
    assert {file.name for file in path.parent.iterdir()} == {"backup", "ledger.opened"}
    backup.rename(path)
    with opened(path) as ledger:
        assert ledger.verify() == head


def test_another_ledger_in_its_place_is_refused(path: Path) -> None:
    filled(path)
    viewer, first = read_only(path), genesis(path)
    opened(path.with_name("other.sqlite")).close()
    path.with_name("other.sqlite").replace(path)
    for open_it in OPENINGS:
        with pytest.raises(LedgerCorrupt, match=f"^ledger replaced: got .*; want {first[:16]}, with which"):
            open_it(path)
    viewer.close()


def test_a_marker_that_is_changed_under_an_open_ledger_shows_when_it_is_verified(path: Path) -> None:
    filled(path)
    with read_only(path) as ledger:
        path.with_name("ledger.opened").write_bytes(b"\xff")
        with pytest.raises(LedgerCorrupt, match="ledger replaced"):
            ledger.verify()


def test_a_ledger_without_a_marker_gets_one_from_its_holder_and_not_from_a_viewer(path: Path) -> None:
    filled(path)
    marker = path.with_name("ledger.opened")
    marker.unlink()
    read_only(path).close()
    assert not marker.exists()
    opened(path).close()
    assert marker.read_text() == genesis(path) + "\n"


def test_who_deletes_both_begins_anew(path: Path) -> None:
    """The limit that the module states: only an anchor shows it."""
    head = filled(path)
    path.unlink()
    path.with_name("ledger.opened").unlink()
    with opened(path) as ledger, pytest.raises(LedgerCorrupt, match="truncated"):
        ledger.verify(head)


def test_a_ledger_that_could_not_be_put_in_place_leaves_no_marker(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def full(source: Path, target: Path) -> None:
        if target == path:
            raise OSError(28, "No space left on device")
        link(source, target)

    monkeypatch.setattr("os.link", full)
    with pytest.raises(UsageError, match=r"cannot be created at .*: No space left"):
        opened(path)
    assert not list(path.parent.iterdir())


# --- locks, crashes and races


def test_the_check_and_its_entry_exclude_other_writers_from_the_start(path: Path) -> None:
    with opened(path) as one, opened(path) as two:
        two._chain.db.execute("PRAGMA busy_timeout = 0")
        with one._chain.writing():
            with pytest.raises(EngineError, match="held by another process"):
                two.reserve("two", "study", 1, NOISY)
            other = sqlite3.connect(path, timeout=0)
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            other.close()
        two.reserve("two", "study", 1, NOISY)


def test_a_commit_that_fails_charges_nothing_and_may_be_repeated(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY)
        ledger._chain.db.execute("PRAGMA busy_timeout = 0")
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM entries").fetchone()
        with pytest.raises(EngineError, match="held by another process"):
            ledger.charge("one", "study", 1, NOISY)
        reader.close()
        assert ledger.spending().charged == 0
        ledger.charge("one", "study", 1, NOISY)
        ledger.verify()


_PRELUDE = """
import os, sys, signal
from pathlib import Path
from statfed.client.ledger import Ledger
from statfed.core.errors import Refused
from statfed.core.privacy import Gaussian, filter_epsilon
path, NOISY = Path(sys.argv[1]), Gaussian(noise_multiplier=40.0)
def opened(path):
    return Ledger(path, dataset="toy", unit="person", epsilon=1.0, delta=1e-5)
filter_epsilon([NOISY], 8.0, 1e-5)  # the accountant is imported before any fork or race
"""

_CRASH = (
    _PRELUDE
    + """
actions = {
    "reserve": lambda ledger: ledger.reserve("two", "study", 2, NOISY),
    "charge": lambda ledger: ledger.charge("one", "study", 2, NOISY),
    "disclose": lambda ledger: ledger.disclose("one", "study", 1, "note"),
    "release": lambda ledger: ledger.release("one"),
}
for name, action in actions.items():
    for step in range(100):
        copy = path.with_name(f"{name}-{step}.sqlite")
        child = os.fork()
        if child == 0:
            with opened(copy) as ledger:
                ledger.reserve("one", "study", 3, NOISY)
                ledger.charge("one", "study", 1, NOISY)
                seen = 0
                def die(statement):
                    global seen
                    if seen == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    seen += 1
                ledger._chain.db.set_trace_callback(die)
                action(ledger)
                os._exit(0)  # acknowledged: dies without closing
        _, status = os.waitpid(child, 0)
        print(copy, name, "acknowledged" if status == 0 else "killed", flush=True)
        if status == 0:
            break
"""
)


def test_a_crash_at_any_statement_never_forgets_what_was_acknowledged(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _CRASH, str(path)], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {name: sum(n == name for _, n, _ in lines) for name in ("reserve", "charge", "disclose", "release")} == {
        "reserve": 5,  # killed before BEGIN, PRAGMA, INSERT and COMMIT, then not at all
        "charge": 5,
        "disclose": 5,
        "release": 5,
    }
    for file, name, status in lines:
        with opened(Path(file)) as ledger:
            ledger.verify()
            spent = ledger.spending()
            assert spent.charged + spent.reserved + spent.disclosures >= (1 if name == "release" else 3)
            assert spent.charged == (2 if (name, status) == ("charge", "acknowledged") else 1)
            assert spent.entries == (4 if status == "acknowledged" else 3)
            if status == "killed":
                ledger.charge("one", "study", 2, NOISY)


def test_who_comes_while_a_ledger_is_begun_waits_and_finds_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, marked, go = os.link, threading.Event(), threading.Event()

    def slow(source: Path, target: Path) -> None:
        if target == path:
            marked.set()
            assert go.wait(60)
        link(source, target)

    def first_entry() -> str:
        with opened(path) as ledger:
            return ledger.entries()[0].hash

    monkeypatch.setattr("os.link", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(first_entry)
        assert marked.wait(60)
        second = pool.submit(first_entry)
        early = wait([second], timeout=0.5).done
        go.set()
        assert not early
        assert first.result() == second.result()


_BIRTH = (
    _PRELUDE
    + """
link, seen = os.link, 0
def die(*arguments):
    global seen
    if seen == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    seen += 1
    link(*arguments)
os.link = die
opened(path).reserve("one", "study", 1, NOISY)
"""
)


@pytest.mark.parametrize(("step", "left"), [(0, False), (1, True)])
def test_a_crash_while_a_ledger_is_begun_over_refuses_at_most(path: Path, step: int, left: bool) -> None:
    died = subprocess.run([sys.executable, "-c", _BIRTH, str(path), str(step)], check=False)
    assert died.returncode == -signal.SIGKILL
    marker = path.with_name("ledger.opened")
    assert (path.exists(), marker.exists()) == (False, left)
    if left:
        with pytest.raises(
            LedgerCorrupt, match=r"or ledger.opened deleted too, if that very first opening was cut off"
        ):
            opened(path)
        marker.unlink()
    with opened(path) as ledger:
        ledger.reserve("one", "study", 1, NOISY)
        ledger.verify()


def test_a_commit_cut_off_halfway_is_undone_by_the_holder_and_not_by_a_viewer(path: Path) -> None:
    head, copy = filled(path), path.with_name("copy.sqlite")
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA cache_size = 1")  # pages reach the file before COMMIT: what a power cut in COMMIT leaves
    db.execute("BEGIN IMMEDIATE")
    for number in range(8, 200):
        chain.insert(db, chain.sealed(number, head, "disclose", "one", "study", number))
    shutil.copy(path, copy)
    shutil.copy(f"{path}-journal", f"{copy}-journal")
    db.close()
    assert copy.read_bytes() != path.read_bytes()
    with pytest.raises(UsageError, match="has an interrupted entry; open as its holder"):
        read_only(copy)
    with opened(copy) as ledger:
        assert ledger.verify() == head
    with read_only(copy) as ledger:
        assert ledger.verify() == head


_LOOP = (
    _PRELUDE
    + """
ledger = opened(path)
ledger.reserve("one", "study", 300, Gaussian(noise_multiplier=400.0))
for round in range(1, 301):
    ledger.charge("one", "study", round, Gaussian(noise_multiplier=400.0))
    print(round, flush=True)
"""
)


@pytest.mark.parametrize("acknowledged", [1, 40])
def test_a_killed_holder_has_charged_all_that_it_acknowledged(path: Path, acknowledged: int) -> None:
    with subprocess.Popen([sys.executable, "-c", _LOOP, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        for line in child.stdout:
            if int(line) >= acknowledged:
                break
        child.send_signal(signal.SIGKILL)
        said = max([acknowledged, *(int(line) for line in child.stdout if line.endswith("\n"))])
    with opened(path) as ledger:
        ledger.verify()
        assert said <= ledger.spending().charged <= said + 1
        with pytest.raises(Refused, match=f"round {said} of run one was already charged"):
            ledger.charge("one", "study", said, Gaussian(noise_multiplier=400.0))


_RACE = (
    _PRELUDE
    + """
print("ready", flush=True)
sys.stdin.readline()
wins = 0
for run in range(10):
    try:
        with opened(path) as ledger:
            ledger.reserve(f"{sys.argv[2]}-{run}", "study", int(sys.argv[3]), NOISY)
        wins += 1
    except Refused as error:
        assert "privacy budget" in str(error)
print(wins, flush=True)
"""
)


@pytest.mark.parametrize(("rounds", "winners"), [(60, 1)])
def test_racing_processes_cannot_both_spend_the_last_of_the_budget(path: Path, rounds: int, winners: int) -> None:
    order = privacy.filter_order([NOISY] * rounds, 1.0, DELTA)
    assert privacy.filter_epsilon([NOISY] * rounds * winners, order, DELTA) <= 1.0
    assert privacy.filter_epsilon([NOISY] * rounds * (winners + 1), order, DELTA) > 1.0
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACE, str(path), name, str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]
    for racer in racers:
        assert racer.stdout
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sum(int(racer.communicate()[0]) for racer in racers) == winners
    with opened(path) as ledger:
        ledger.verify()
        assert ledger.spending().reserved == rounds * winners
        assert [entry.kind for entry in ledger.entries()].count("open") == 1
    assert {file.name for file in path.parent.iterdir()} == {path.name, "ledger.opened"}
