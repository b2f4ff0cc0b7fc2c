"""The audit log: whatever is changed is named, what a crash tears is mended, and others' heads bind their signer."""

import fcntl
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.identity import create_identity, load_identity
from statfed.core.pilot import audit
from statfed.core.pilot.audit import Checked, Head
from statfed.core.pilot.crosscheck import ANSWERED, RECEIVED, SENT, cross_check
from statfed.core.pilot.witness import ACCEPTED, HEADS, Noted, Said, Witness, content_digest


def folder(root: Path, name: str = "", pilot: str = "trade") -> Path:
    """A coordinator's folder or, with a name, a party's home, without a log."""
    home = root / (name or "office")
    home.mkdir(mode=0o700)
    create_identity(home)
    party = f'party = "{name}"\n' if name else 'host = "h"\n'
    (home / audit.OWNER).write_text(f'[pilot]\nname = "{pilot}"\n{party}')
    return home


def log(home: Path) -> Path:
    return home / audit.FILE


def key(home: Path) -> str:
    return create_identity(home)


def noting(whose: str, head: Head | None) -> audit.Facts:
    assert head is not None
    return {HEADS: [Noted(whose, head).facts()]}


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
    log(small).write_bytes(whole[:-20] + b"0" + whole[-19:])
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


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path, Head]:
    """The logs of two parties, of which the first has noted entry 3 of the second, which has gone on."""
    mine, theirs = folder(tmp_path, "istat"), folder(tmp_path, "cbs")
    head = audit.record_all(theirs, [("did", {"n": number}) for number in range(3)])
    assert head is not None
    audit.record(mine, RECEIVED, noting("cbs", head))
    audit.record(theirs, "did", {"n": 3})
    return mine, theirs, head


def checked(*homes: Path) -> list[Checked]:
    return [audit.verify(log(home)) for home in homes]


def test_logs_that_fit_do_not_contradict(two: tuple[Path, Path, Head]) -> None:
    mine, theirs, _ = two
    assert cross_check(checked(mine, theirs)) == ()
    assert cross_check(checked(theirs)) == ()


def test_a_log_that_was_cut_is_caught_by_anothers(two: tuple[Path, Path, Head]) -> None:
    mine, theirs, head = two
    lines = log(theirs).read_bytes().splitlines(keepends=True)
    log(theirs).write_bytes(b"".join(lines[: head.seq]))
    assert audit.verify(log(theirs)).wrong is None
    (found,) = cross_check(checked(mine, theirs))
    assert (found.whose, found.at) == ("istat", 1)
    assert "truncated: cbs's log ends with entry 2; istat has noted its entry 3" in found.what


def rewritten(home: Path, keep: int) -> None:
    """A second history after some entries, with the owner's own key: the strongest attacker."""
    lines = log(home).read_bytes().splitlines(keepends=True)
    log(home).write_bytes(b"".join(lines[:keep]))
    for number in range(keep, len(lines)):
        audit.record(home, "did", {"n": number, "another": "history"})


def test_two_histories_are_proved_by_anothers_log(two: tuple[Path, Path, Head], tmp_path: Path) -> None:
    mine, theirs, head = two
    rewritten(theirs, 2)
    assert audit.verify(log(theirs)).wrong is None
    (found,) = cross_check(checked(mine, theirs))
    assert "equivocation: entry 3 of cbs's log is another" in found.what
    third = folder(tmp_path, "insee")
    shown = audit.head_of(key(theirs), audit.verify(log(theirs)).entries[head.seq])
    audit.record(third, RECEIVED, noting("cbs", shown))
    (found,) = cross_check(checked(mine, third))  # without the log that they are of
    assert "cbs has shown istat and insee two different entries 3" in found.what


def test_two_logs_of_one_key_are_one_history(two: tuple[Path, Path, Head], tmp_path: Path) -> None:
    _, theirs, _ = two
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(log(theirs).read_bytes())
    audit.record(theirs, "did", {})
    assert cross_check([audit.verify(copy), *checked(theirs)]) == ()
    rewritten(theirs, 2)
    (found,) = cross_check([audit.verify(copy), *checked(theirs)])
    assert "two histories of cbs" in found.what


def test_a_log_made_anew_under_another_key_is_not_taken_for_the_first(two: tuple[Path, Path, Head]) -> None:
    mine, theirs, _ = two
    for name in (audit.FILE, "identity.key"):
        (theirs / name).unlink()
    create_identity(theirs)
    for number in range(6):
        audit.record(theirs, "did", {"n": number})
    (found,) = cross_check(checked(mine, theirs))
    assert "another key" in found.what


def test_a_head_that_its_owner_never_signed_convicts_whoever_noted_it(two: tuple[Path, Path, Head]) -> None:
    mine, theirs, head = two
    audit.record(mine, RECEIVED, noting("cbs", replace(head, seq=4, hash="0" * 64)))
    (found,) = cross_check(checked(mine, theirs))
    assert "istat has noted a head of cbs that cbs has not signed" in found.what


def test_a_message_that_its_sender_left_out_is_caught_by_the_receivers_log(tmp_path: Path) -> None:
    office, party = folder(tmp_path), folder(tmp_path, "istat")
    first = audit.record(office, SENT, {"to": "istat", "digest": "aa"})
    audit.record(party, RECEIVED, {"digest": "aa", **noting("coordinator", first)})
    assert cross_check(checked(office, party)) == ()
    second = audit.record(office, "did", {})
    audit.record(party, RECEIVED, {"digest": "bb", **noting("coordinator", second)})
    audit.record(office, SENT, {"to": "istat", "digest": "bb"})  # too late: the head that came did not bind it
    (found,) = cross_check(checked(office, party))
    assert "istat has a message of coordinator that coordinator has not recorded" in found.what
    assert ANSWERED != SENT


def test_a_witness_refuses_forks_and_heads_that_go_back_and_takes_new_ones(two: tuple[Path, Path, Head]) -> None:
    mine, theirs, head = two
    witness, pin = Witness(mine), key(theirs)
    assert not witness.check("cbs", pin, head, run=1)
    older = audit.head_of(pin, audit.verify(log(theirs)).entries[1])
    with pytest.raises(Refused, match="as the newest of cbs's log"):
        witness.check("cbs", pin, older, run=2)
    assert witness.check("cbs", pin, older)  # passed on by somebody else, who knows less
    newest = audit.head(theirs)
    assert newest is not None
    assert witness.check("cbs", pin, newest, run=2)
    audit.record(mine, RECEIVED, noting("cbs", newest))
    assert not witness.check("cbs", pin, newest, run=2)
    rewritten(theirs, 2)
    forked = audit.head_of(pin, audit.verify(log(theirs)).entries[3])
    for run in (None, 2, 3):
        with pytest.raises(Refused, match="two histories"):
            witness.check("cbs", pin, forked, run=run)
    with pytest.raises(Refused, match="not signed by its key"):
        witness.check("cbs", key(mine), newest)
    with pytest.raises(Refused, match="not signed by its key"):
        witness.check("cbs", pin, replace(newest, seq=99))
    audit.record(mine, ACCEPTED, {"whose": "cbs", "key": pin, "reason": "its disk was lost"})
    assert witness.check("cbs", pin, forked, run=4)


def test_messages_of_two_runs_may_overtake_each_other(two: tuple[Path, Path, Head]) -> None:
    mine, theirs, _ = two
    witness, pin = Witness(mine), key(theirs)
    heads = [audit.record(theirs, "did", {"n": number}) for number in range(4)]
    for place, run in ((0, 1), (1, 2), (3, 2), (2, 1)):
        head = heads[place]
        assert head is not None
        assert witness.check("cbs", pin, head, run=run)
        audit.record(mine, RECEIVED, noting("cbs", head))


def test_what_travels_is_read_back_and_anything_else_is_refused(two: tuple[Path, Path, Head]) -> None:
    _, _, head = two
    said = Said("salt", head, (Noted("cbs", head),))
    assert Said.parse(said.record()) == said
    assert Said.parse(Said("salt").record()) == Said("salt")
    good = json.loads(said.record()["json"])
    for bad in (
        {},
        {"json": "{}", "salt": "s"},
        {"json": "[" * 10_000, "salt": "s"},
        {"json": json.dumps(good | {"heads": [good["head"]]}), "salt": "s"},
        {"json": json.dumps(good | {"head": good["head"] | {"seq": True}}), "salt": "s"},
        {"json": json.dumps(good | {"head": good["head"] | {"seq": -1}}), "salt": "s"},
        {"json": json.dumps(good | {"head": good["head"] | {"key": "A" * 64}}), "salt": "s"},
        {"json": json.dumps(good | {"heads": good["heads"] * 300}), "salt": "s"},
        {"json": json.dumps(good), "salt": 1},
    ):
        with pytest.raises(ValueError, match="want"):
            Said.parse(bad)


def test_digests_of_messages_tell_records_apart_and_hide_them_behind_the_salt() -> None:
    contents: list[Any] = [
        {},
        {"a": {}},
        {"a": {"b": 1}},
        {"a": {"b": "1"}},
        {"a": {"b": b"1"}},
        {"a": {"b": [1]}},
        {"ab": {"": 1}},
    ]
    found = [content_digest(one, salt)[0] for one in contents for salt in ("", "s", "s2")]
    assert len(set(found)) == len(found)
    assert content_digest({"a": {"b": 1}, "audit": {"x": "y"}}, "s") == content_digest({"a": {"b": 1}}, "s")
