"""Logs held against each other: what somebody has noted binds its signer, and convicts nobody else."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from statfed.core.errors import Refused
from statfed.core.identity import create_identity, load_identity
from statfed.core.pilot import audit
from statfed.core.pilot.audit import Checked, Head
from statfed.core.pilot.crosscheck import ANSWERED, JOINED, RECEIVED, REPLIED, SENT, cross_check
from statfed.core.pilot.witness import ACCEPTED, Noted, Said, Witness, content_digest
from tests.logs import folder, key, log, noting, rewritten


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
    assert found.against == ""  # the file may be an older copy


def test_two_histories_are_proved_by_anothers_log(two: tuple[Path, Path, Head], tmp_path: Path) -> None:
    mine, theirs, head = two
    rewritten(theirs, 2)
    assert audit.verify(log(theirs)).wrong is None
    (found,) = cross_check(checked(mine, theirs))
    assert "equivocation: entry 3 of cbs's log is another" in found.what
    assert found.against == "cbs"
    third = folder(tmp_path, "insee")
    shown = audit.head_of(key(theirs), audit.verify(log(theirs)).entries[head.seq])
    audit.record(third, RECEIVED, noting("cbs", shown))
    (found,) = cross_check(checked(mine, third))  # without the log that they are of
    whose = f"cbs (key {key(theirs)[:16]})"  # by the word of the two: no log of it is here
    assert f"{whose} has shown istat and insee two different entries 3" in found.what
    assert found.against == whose
    (found,) = cross_check(checked(mine, third), {"cbs": key(theirs)})
    assert found.against == "cbs"


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
    assert "coordinator has left it out, or istat has made it up" in found.what
    assert found.against == ""
    assert ANSWERED != SENT


def test_a_message_that_is_sent_twice_alike_is_recorded_where_it_was_first_sent(tmp_path: Path) -> None:
    office, party = folder(tmp_path), folder(tmp_path, "istat")
    first = audit.record(office, SENT, {"to": "istat", "digest": "aa"})
    audit.record(party, RECEIVED, {"digest": "aa", **noting("coordinator", first)})
    audit.record(office, SENT, {"to": "istat", "digest": "aa"})
    assert cross_check(checked(office, party)) == ()


def test_whoever_makes_up_a_message_convicts_nobody_by_it(tmp_path: Path) -> None:
    office, istat, cbs = folder(tmp_path), folder(tmp_path, "istat"), folder(tmp_path, "cbs")
    sent = audit.record(office, SENT, {"to": "istat", "digest": "aa"})
    audit.record(istat, RECEIVED, {"digest": "aa", **noting("coordinator", sent)})
    for digest in ("11", "aa"):  # made up, and copied from another's log
        begun = log(cbs).read_bytes() if log(cbs).exists() else b""
        audit.record(cbs, RECEIVED, {"digest": digest, **noting("coordinator", sent)})
        (found,) = cross_check(checked(office, istat, cbs))
        assert "or cbs has made it up" in found.what
        assert (found.whose, found.against) == ("cbs", "")
        log(cbs).write_bytes(begun)
    audit.record(office, REPLIED, {"from": "istat", "digest": "bb", **noting("istat", audit.head(istat))})
    (found,) = cross_check(checked(office, istat))
    assert ("or coordinator has made it up" in found.what, found.against) == (True, "")


@pytest.mark.parametrize("pins", ["none", "true", "false"])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("at", [0, 3, 2**53 - 1])
def test_a_head_by_another_key_convicts_nobody_of_the_name_that_it_was_noted_under(
    two: tuple[Path, Path, Head], pins: str, known: bool, at: int
) -> None:
    """istat signs a head itself, and writes it down as one of cbs."""
    istat, cbs, _ = two
    if pins != "none":
        key_of = key(cbs) if pins == "true" else key(istat)
        audit.record(istat, JOINED, {"coordinator": "ab" * 32, "parties": {"cbs": key_of}})
    audit.record(istat, RECEIVED, noting("cbs", signed_by(istat, at)))
    found = cross_check(checked(istat, cbs), {"cbs": key(cbs)} if known else {})
    assert found
    assert not any("signed by cbs" in one.what or one.against == "cbs" for one in found)
    convicted = {one.against for one in found} - {""}
    assert convicted <= {"istat"}
    assert bool(convicted) == (pins != "none")  # by its own log, which has another key of cbs


def test_two_who_make_up_a_key_together_convict_nobody_of_the_name_that_they_give_it(tmp_path: Path) -> None:
    istat, cbs, other = (folder(tmp_path, name) for name in ("istat", "cbs", "other"))
    for home, digest in ((istat, "ab"), (cbs, "cd")):
        audit.record(home, RECEIVED, noting("insee", signed_by(other, 3, digest * 32)))
    (found,) = cross_check(checked(istat, cbs))
    assert found.against == f"insee (key {key(other)[:16]})"
    known = {"insee": "ef" * 32}
    assert {one.against for one in cross_check(checked(istat, cbs), known)} == {""}


def signed_by(home: Path, seq: int, digest: str = "ab" * 32) -> Head:
    """A head that somebody makes up with its own key."""
    identity = load_identity(home, "", {})
    made = identity.sign(audit._to_sign(identity.public, seq, digest)).hex()
    return Head(identity.public, seq, digest, made)


def test_a_head_that_nobody_signed_does_not_make_another_of_two_histories(
    two: tuple[Path, Path, Head], tmp_path: Path
) -> None:
    """Noted first, beside a true one in an honest log: only one of the two is signed."""
    istat, _, head = two
    third = folder(tmp_path, "insee")
    audit.record(third, RECEIVED, noting("cbs", replace(head, hash="0" * 64)))
    (found,) = cross_check(checked(third, istat))
    assert ("has not signed" in found.what, found.against) == (True, "insee")


def test_a_second_log_under_anothers_name_convicts_nobody(two: tuple[Path, Path, Head], tmp_path: Path) -> None:
    """istat's own key, in a log that says it is cbs's."""
    istat, cbs, _ = two
    (tmp_path / "forged").mkdir()
    forged = folder(tmp_path / "forged", "cbs")
    (forged / "identity.key").write_bytes((istat / "identity.key").read_bytes())
    audit.record_all(forged, [("did", {"n": number}) for number in range(6)])
    known = {"cbs": key(cbs), "istat": key(istat)}
    for homes, keys in (
        ((istat, forged), {}),
        ((istat, cbs, forged), {}),
        ((forged, cbs, istat), {}),
        ((istat, forged), known),
    ):
        found = cross_check(checked(*homes), keys)
        assert {one.against for one in found} - {""} <= {"istat", f"whoever has key {key(istat)[:16]}"}
        assert any("two histories" in one.what and one.against for one in found)


def test_a_party_that_has_had_two_keys_is_told_by_whoever_pinned_both_and_contradicts_nobody(
    two: tuple[Path, Path, Head],
) -> None:
    istat, cbs, _ = two
    first = key(cbs)
    for name in (audit.FILE, "identity.key"):
        (cbs / name).unlink()
    create_identity(cbs)
    head = audit.record(cbs, "did", {})
    for pin in (first, key(cbs)):
        audit.record(istat, JOINED, {"coordinator": "ab" * 32, "parties": {"cbs": pin}})
    audit.record(istat, RECEIVED, noting("cbs", head))
    assert cross_check(checked(istat, cbs)) == ()


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
