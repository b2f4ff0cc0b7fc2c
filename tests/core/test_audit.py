"""The audit log: whatever is changed is named, and what a crash tears is mended."""

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from statfed.core.errors import EngineError, UsageError
from statfed.core.identity import create_identity, load_identity
from statfed.core.pilot import audit
from statfed.core.pilot.audit import Checked
from tests.logs import folder, key, log, rewritten


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A log of four entries."""
    home = folder(tmp_path)
    for number in range(3):
        audit.record(home, "did", {"n": number, "list": ["a", {"é": "\n\ud800"}]})
    return home


def test_entries_are_as_they_were_recorded_and_the_log_is_its_owners_alone(small: Path) -> None:
    found = audit.verify(log(small), key(small))
    assert found.wrong is None
    assert [one.kind for one in found.entries] == ["open", "did", "did", "did"]
    assert found.entries[2].facts == {"n": 1, "list": ["a", {"é": "\n\ud800"}]}
    assert found.owner == audit.Owner("coordinator", "trade", "coordinator", key(small))
    assert audit.head(small) == found.head
    assert log(small).stat().st_mode & 0o777 == 0o600


def test_a_folder_of_no_pilot_gets_no_log(tmp_path: Path) -> None:
    create_identity(tmp_path)
    assert audit.record(tmp_path, "did", {}) is None
    assert audit.head(tmp_path) is None
    assert not log(tmp_path).exists()


@pytest.mark.parametrize("facts", [{"x": 0.5}, {"x": None}, {"x": [1.0]}, {1: "x"}, {"x": b"x"}, {"x": "y" * 300_000}])
def test_facts_are_texts_and_whole_numbers_and_few(small: Path, facts: audit.Facts) -> None:
    before = log(small).read_bytes()
    with pytest.raises(UsageError, match="audit: got"):
        audit.record(small, "did", facts)
    assert log(small).read_bytes() == before


def test_every_flipped_byte_is_named_with_its_entry_or_the_next(small: Path) -> None:
    whole, lines = log(small).read_bytes(), log(small).read_bytes().splitlines(keepends=True)
    place = [number for number, line in enumerate(lines) for _ in line]
    for at, number in enumerate(place):
        for mask in (1, 32):
            edited = bytearray(whole)
            edited[at] ^= mask
            log(small).write_bytes(edited)
            found = audit.verify(log(small))
            assert found.at in (number, number + 1), (at, mask)
            assert found.wrong


def test_entries_that_are_removed_swapped_doubled_or_put_in_are_named(small: Path, tmp_path: Path) -> None:
    a, b, c, d = lines = log(small).read_bytes().splitlines(keepends=True)
    other = folder(tmp_path, "other")
    for number in range(3):
        audit.record(other, "did", {"n": number})
    strange = log(other).read_bytes().splitlines(keepends=True)
    for made, at, words in (
        ([b, c, d], 0, "removed"),
        ([a, c, d], 1, "removed"),
        ([a, b, d], 2, "removed"),
        ([a, c, b, d], 1, "removed"),
        ([a, b, b, c, d], 2, "second time"),
        ([a, b, c, d, b], 4, "second time"),
        ([a, b, strange[2], d], 2, "edited"),
        ([a, b, b"\n", c, d], 2, "no entry"),
        ([], 0, "empty"),
        ([*lines[:3], d[:-1]], 3, "torn"),
    ):
        log(small).write_bytes(b"".join(made))
        found = audit.verify(log(small))
        assert found.at == at
        assert words in (found.wrong or "")
    log(small).write_bytes(b"".join(strange))
    assert audit.verify(log(small)).wrong is None  # whose it is has to be known
    assert "another key" in (audit.verify(log(small), key(small)).wrong or "")


def test_two_histories_of_one_owner_are_not_spliced_to_one(small: Path) -> None:
    """Every entry is its owner's and has its number; one does not follow on the one before it."""
    first = log(small).read_bytes().splitlines(keepends=True)
    rewritten(small, 2)
    second = log(small).read_bytes().splitlines(keepends=True)
    log(small).write_bytes(b"".join([*first[:3], *second[3:]]))
    found = audit.verify(log(small))
    assert (found.at, "does not follow" in (found.wrong or "")) == (3, True)


def test_an_entry_signed_by_another_key_is_named(small: Path, tmp_path: Path) -> None:
    """Its hash is right, so that nothing but the signature tells."""
    line = log(small).read_bytes().splitlines(keepends=True)[3]
    entry = audit.parsed(line[:-1])
    other = load_identity(folder(tmp_path, "other"), "", {})
    forged = other.sign(audit._to_sign(key(small), entry.seq, entry.hash)).hex()
    log(small).write_bytes(log(small).read_bytes().replace(entry.signature.encode(), forged.encode()))
    found = audit.verify(log(small))
    assert (found.at, "signature" in (found.wrong or "")) == (3, True)


def test_a_crash_at_each_byte_of_an_append_costs_nothing_that_was_acknowledged(small: Path) -> None:
    before = log(small).read_bytes()
    audit.record(small, "did", {"n": 9})
    line = log(small).read_bytes()[len(before) :]
    for size in range(len(line)):
        log(small).write_bytes(before + line[:size])
        assert (audit.verify(log(small)).wrong is None) == (size == 0)
        audit.record(small, "next", {})
        found = audit.verify(log(small))
        assert found.wrong is None
        kept = size == len(line) - 1  # all but its end
        mended = [] if size == 0 else ["did"] if kept else [audit.MENDED]
        assert [one.kind for one in found.entries[4:]] == [*mended, "next"]
        assert bool(found.notes) == (mended == [audit.MENDED])


def test_a_crash_at_each_byte_of_the_first_append_leaves_a_log_that_goes_on(tmp_path: Path) -> None:
    home = folder(tmp_path)
    audit.record(home, "did", {})
    whole = log(home).read_bytes()
    for size in range(len(whole)):
        log(home).write_bytes(whole[:size])
        audit.record(home, "next", {})
        found = audit.verify(log(home), key(home))
        assert found.wrong is None, size
        assert found.entries[-1].kind == "next"


def test_a_full_disk_leaves_the_log_as_it_was(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = log(small).read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left"):
        audit.record(small, "did", {})
    assert log(small).read_bytes() == before


def test_nothing_is_appended_to_a_log_that_ends_wrong(small: Path, tmp_path: Path) -> None:
    whole = log(small).read_bytes()
    log(small).write_bytes(whole[:-20] + (b"1" if whole[-20:-19] == b"0" else b"0") + whole[-19:])
    with pytest.raises(EngineError, match="last entry is wrong"):
        audit.record(small, "did", {})
    log(small).write_bytes(log_of_another(tmp_path))
    with pytest.raises(EngineError, match="another key"):
        audit.record(small, "did", {})


def log_of_another(root: Path) -> bytes:
    other = folder(root, "other")
    audit.record(other, "did", {})
    return log(other).read_bytes()


APPEND = """
import sys
from pathlib import Path
from statfed.core.pilot import audit
for number in range(20):
    audit.record(Path(sys.argv[1]), "did", {"by": sys.argv[2], "n": number})
"""


def test_processes_that_append_at_once_make_one_chain(small: Path) -> None:
    workers = [subprocess.Popen([sys.executable, "-c", APPEND, str(small), name]) for name in "abc"]
    assert [one.wait() for one in workers] == [0, 0, 0]
    found = audit.verify(log(small))
    assert found.wrong is None
    by = [(one.facts["by"], one.facts["n"]) for one in found.entries[4:]]
    assert sorted(by) == [(name, number) for name in "abc" for number in range(20)]


def test_who_reads_while_an_entry_is_written_sees_all_of_it_or_nothing(small: Path) -> None:
    whole = log(small).read_bytes()
    audit.record(small, "did", {})
    line = log(small).read_bytes()[len(whole) :]
    log(small).write_bytes(whole)
    found: list[Checked] = []
    reader = threading.Thread(target=lambda: found.append(audit.verify(log(small))))
    with log(small).open("ab", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line[:50])
        reader.start()
        reader.join(0.2)
        file.write(line[50:])
    reader.join()
    assert (found[0].wrong, len(found[0].entries)) == (None, 5)


def test_appending_reads_the_end_of_a_log_alone(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audit.record_all(small, [("did", {"text": "x" * 1000})] * 500)
    read: list[int] = []
    tail = audit._tail

    def watched(file: object) -> tuple[bytes, bytes]:
        found = tail(file)  # type: ignore[arg-type]
        read.append(sum(map(len, found)))
        return found

    monkeypatch.setattr(audit, "_tail", watched)
    audit.record(small, "did", {})
    assert read[0] < 3000
