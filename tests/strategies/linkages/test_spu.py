"""SPU as a sidecar: who learns what of two lists, and everything that a program beside this one can do wrong."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.linkage import Outcome, Units, load_linkage
from statfed.core.protection import Agreement, Packet
from statfed.strategies.linkages import spu
from statfed.strategies.linkages._spu_program import VARIABLE, Program
from statfed.strategies.linkages._tags import TAG, fresh
from tests.protocol import identities
from tests.strategies.linkages.sidecar import Wires, fake

OFFICE = [f"P{i:03d}" for i in range(60)]
BANK = [None, *(f"P{i:03d}" for i in range(99, 30, -1))]
REAL = os.environ.get(VARIABLE)
BOTH = sorted(set(OFFICE) & set(BANK))


def agreement(**options: Any) -> Agreement:
    read = spu.Options(**{"to": "bank", "minimum": 5, "pad_to": {"office": 80, "bank": 90}, "seconds": 20.0, **options})
    return Agreement("run", "0" * 64, "spu", ("bank", "office"), (), 2, {"bank": 70, "office": 60}, read)


class Run:
    """A linkage of office and bank whose parties are in this process. sent: every reply; told: by holder, its pairs."""

    def __init__(self, **options: Any) -> None:
        self.agreement, self.wires, self.sent = agreement(**options), Wires(), list[Packet]()
        known = identities(self.agreement.parties)
        keys: dict[str, list[str | None]] = {"bank": BANK, "office": [*OFFICE]}
        self.parties = {n: spu.party(self.agreement, known[n], Units({"id": keys[n]})) for n in self.agreement.parties}
        for name, party in self.parties.items():
            party.lined(self.wires.of(name))

    def outcome(self) -> Outcome:
        rounds = spu.coordinator(self.agreement)
        try:
            stage = next(rounds)
            while True:
                replies = {name: self.parties[name].answer(stage.name, one) for name, one in stage.packets.items()}
                self.sent += replies.values()
                stage = rounds.send(replies)
        except StopIteration as end:
            found: Outcome = end.value
            return found
        finally:
            for party in self.parties.values():
                party.close()


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where programs have their folders; none is left."""
    place = tmp_path / "t"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    monkeypatch.setenv(VARIABLE, fake(tmp_path))
    yield place
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("to", ["bank", "office"])
def test_the_named_holder_learns_its_units_of_the_plain_join_and_the_coordinator_their_number(to: str) -> None:
    run = Run(to=to)
    assert run.outcome().size == len(BOTH)
    keys = BANK if to == "bank" else OFFICE
    pairs = run.parties[to].pairs
    assert pairs is not None
    assert sorted(str(keys[place]) for place in pairs.unit) == BOTH
    other = "office" if to == "bank" else "bank"
    assert run.parties[other].pairs is None
    assert {name for packet in run.sent for name in packet} == {"key", "signature", "part", "size"}


def test_too_few_matches_are_not_told_to_the_coordinator() -> None:
    run = Run(minimum=len(BOTH) + 1)
    assert run.outcome() == Outcome()


def test_what_the_program_gets_are_tags_filled_up_in_another_order_in_files_of_its_owner(folders: Path) -> None:
    run = Run()
    told = dict.fromkeys(run.parties, b"")
    rounds = spu.coordinator(run.agreement)
    stage = next(rounds)
    while stage.name != "found":
        stage = rounds.send({name: run.parties[name].answer(stage.name, one) for name, one in stage.packets.items()})
    for folder in folders.iterdir():
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert all(stat.S_IMODE(one.lstat().st_mode) & 0o077 == 0 for one in folder.iterdir() if one.is_file())
        content = (folder / "input.csv").read_bytes()
        told["bank" if len(content) == 4 + 90 * 33 else "office"] = content
    for party in run.parties.values():
        party.close()
    assert len(told["office"]) == 4 + 80 * 33
    assert not any(str(key).encode() in content for content in told.values() for key in OFFICE)
    assert len(set(told["bank"].split()) & set(told["office"].split())) == len(BOTH) + 1  # and the heading


def test_a_run_of_the_same_lists_has_other_tags() -> None:
    seen = []
    for _ in range(2):
        run = Run()
        assert run.outcome().size == len(BOTH)
        seen.append(run.parties["bank"]._listed.tobytes())
    assert not set(np.frombuffer(seen[0], "V16").tolist()) & set(np.frombuffer(seen[1], "V16").tolist())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("stranger", "got tags that are no units of this holder"),
        ("padding", "got tags that are no units of this holder"),
        ("twice", "got one twice"),
    ],
)
def test_tags_that_no_unit_of_the_holder_has_are_no_result(
    how: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, fake(tmp_path, how))
    run = Run()
    with pytest.raises((EngineError, Refused), match=said):
        run.outcome()
    assert all(party.pairs is None for party in run.parties.values())


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("crash", "ended with exit status 3; want 0. It said last: a bad thing"),
        ("killed", "ended with killed by SIGKILL; want 0"),
        ("count", "got 5 tags; want 6, as it reports"),
        ("long", "got a result that cannot be read"),
        ("garbage", "got a result that cannot be read"),
        ("lines", "got a result that cannot be read"),
        ("told", "got a result at the holder that is to learn nothing"),
        ("other", "got a report of another version or list"),
        ("items", "got a report of another version or list"),
        ("no report", "got no report that can be read"),
        ("no json", "got no report that can be read"),
    ],
)
def test_whatever_a_program_does_wrong_is_no_result(
    how: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, fake(tmp_path, how))
    program = Program(fresh().words(40).view(TAG))
    program.start("run", ("a", "b"), "a", "b" if how == "told" else "a", "rr22", 20.0)
    with pytest.raises(EngineError, match=said):
        program.found(20.0, receives=how != "told")
    program.close()


def test_a_program_without_a_result_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, fake(tmp_path, "silent"))
    run = Run(seconds=0.3)
    with pytest.raises(EngineError, match=r"got no result within 0.3 s"):
        run.outcome()
    programs = [party._program for party in run.parties.values()]
    assert [one is not None and one._running[0].poll() for one in programs] == [-9, -9]


def test_a_program_that_nobody_holds_any_more_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, fake(tmp_path, "silent"))
    program = Program(fresh().words(8).view(TAG))
    program.start("run", ("a", "b"), "a", "a", "rr22", 60.0)
    (process,) = program._running
    del program
    assert process.wait(10) == -9


@pytest.mark.parametrize("given", [None, "python3", "/nowhere/python", "version", "without"])
def test_where_spu_is_missing_the_refusal_says_how_to_get_it(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given == "version":
        given = fake(tmp_path, version="0.9.4")
    elif given == "without":
        (tmp_path / "none").write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / "none").chmod(0o700)
        given = str(tmp_path / "none")
    monkeypatch.delenv(VARIABLE)
    if given:
        monkeypatch.setenv(VARIABLE, given)
    for call in (spu.ready, lambda: Program(fresh().words(8).view(TAG))):
        with pytest.raises(Refused, match=r"spu: got .*; want STATFED_SPU_PYTHON .*pip install spu==0.9.5; export"):
            call()


def test_stages_are_answered_once_and_in_order() -> None:
    party = Run().parties["bank"]
    party.answer("offer", {})
    for stage in ("found", "meet"):  # and nothing after a refusal
        with pytest.raises(Refused, match="got another stage than the next"):
            party.answer(stage, {})


def test_without_a_direct_line_nothing_is_given_to_a_program(folders: Path) -> None:
    run = Run()
    run.parties["bank"].lined(None)
    with pytest.raises(Refused, match="got no direct line"):
        run.outcome()
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pad_to": {"office": 80, "bank": 9000}}, "at most 100 for each of the other's"),
        ({"minimum": 500}, r"want 500 \(minimum\)"),
        ({"to": "me"}, "got others than holders"),
    ],
)
def test_lists_that_cannot_be_linked_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        spu.slots(agreement(**changes))


def test_more_units_than_agreed_are_refused() -> None:
    with pytest.raises(Refused, match=r"got more than the agreed 50"):
        Run(pad_to={"office": 50, "bank": 90})


def test_a_size_that_cannot_be_is_no_size() -> None:
    for lie in (np.array(81), np.array(4), np.array([5]), np.array(5.5)):
        rounds = spu.coordinator(agreement())
        stage = next(rounds)
        said: dict[str, Packet] = {"offer": {"key": b"k", "signature": b"s"}, "part": {"part": b"p"}}
        while stage.name != "found":
            stage = rounds.send(dict.fromkeys(stage.packets, said.get(stage.name, {})))
        with pytest.raises(EngineError, match="size: got"):
            rounds.send({"bank": {"size": lie}, "office": {}})


def test_every_role_is_told_what_it_learns() -> None:
    rows = load_linkage("spu").learns(agreement(), "pairs")
    assert {"bank", "office", "coordinator", "result party", "all parties"} < {row.role for row in rows}
    assert ("bank", "which of its own units match") in {(row.role, row.learns) for row in rows}
    with pytest.raises(UsageError, match="want pairs"):
        spu.learns(agreement(), "size")
    assert spu.figures(agreement()) == 90


@pytest.mark.skipif(not REAL, reason=f"{VARIABLE}: no python of SPU's environment")
@pytest.mark.parametrize("protocol", ["rr22", "kkrt"])
def test_spu_itself_finds_the_plain_join(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(REAL))
    run = Run(protocol=protocol, seconds=60.0)
    assert run.outcome().size == len(BOTH)
    pairs = run.parties["bank"].pairs
    assert pairs is not None
    assert sorted(str(BANK[place]) for place in pairs.unit) == BOTH
