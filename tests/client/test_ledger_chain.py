"""The privacy ledger's chain: tampering, truncation and deletion are found."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from statfed.client.guard import chain
from statfed.client.guard.ledger import read_only
from statfed.core.errors import LedgerCorrupt, UsageError
from statfed.core.privacy import accountant as privacy
from tests.ledgers import NOISY, filled, opened

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


def test_a_truncated_tail_is_found_by_the_anchor_and_by_whoever_saw_it(path: Path, register: Path) -> None:
    head = filled(path)
    with opened(path) as ledger:
        _sql("DELETE FROM entries WHERE seq > 5")(path)
        with pytest.raises(LedgerCorrupt, match="truncated: entry 7, seen by this process"):
            ledger.reserve("four", "study", 1, NOISY)
        with pytest.raises(LedgerCorrupt, match="truncated: entry 7, seen by this process"):
            ledger.reserve("four", "study", 1, NOISY)
    with pytest.raises(LedgerCorrupt, match="truncated: entry 7, seen by this process"):
        read_only(path)
    chain.forget(genesis_of(path))
    register.unlink()  # an auditor's machine knows nothing of it
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


def genesis_of(path: Path) -> str:
    """The hash of the first entry, of any file."""
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("SELECT hash FROM entries WHERE seq = 1").fetchone()[0])


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


def test_another_ledger_in_its_place_is_refused_by_the_register_and_without_it_by_the_marker(
    path: Path, register: Path
) -> None:
    filled(path)
    viewer, first = read_only(path), genesis(path)
    opened(path.with_name("other.sqlite")).close()
    path.with_name("other.sqlite").replace(path)
    for open_it in OPENINGS:
        with pytest.raises(LedgerCorrupt, match=r"^ledger replaced: got a chain of 1 entries where one of 7 was kept"):
            open_it(path)
    register.unlink()
    with pytest.raises(LedgerCorrupt, match=f"^ledger replaced: got .*; want {first[:16]}, with which"):
        read_only(path)
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


def test_who_deletes_both_is_found_by_the_register_and_who_deletes_that_too_by_an_anchor_only(
    path: Path, register: Path
) -> None:
    head = filled(path)
    path.unlink()
    path.with_name("ledger.opened").unlink()
    with pytest.raises(LedgerCorrupt, match=r"^ledger missing: ledger.sqlite was kept here, with 7 entries"):
        opened(path)
    register.unlink()
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
