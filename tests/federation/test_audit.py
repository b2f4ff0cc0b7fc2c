"""A pilot's messages in signed logs at both ends: histories that were changed end a run, and are told by the others."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from flwr.app import Message

from statfed.client.guard.ledger import read_only
from statfed.client.pilot import joining
from statfed.core.errors import Contradicted, EngineError, Refused
from statfed.core.identity import load_identity
from statfed.core.pilot import audit
from statfed.core.pilot.audit import CONTRADICTED, Checked, _to_sign
from statfed.core.pilot.crosscheck import ANSWERED, RECEIVED, REPLIED, SENT, cross_check
from statfed.core.pilot.witness import ACCEPTED, RECORD, Said, noted
from statfed.federation.answers import Answer
from statfed.federation.crate import bag, write_folder
from statfed.federation.dossier import documents, dossier
from statfed.federation.logs import check
from statfed.server.pilot import studies as at_office
from tests import pilots
from tests.pilots import HOLDERS


class Pilot(pilots.Pilot):
    def ask(self, number: int = 1) -> Answer:
        return self.run(number)

    @property
    def mean(self) -> float:
        return float(pd.concat(self.frames.values()).age.mean())

    def log(self, name: str) -> Path:
        return (self.office.root if name == "coordinator" else self.root / name) / audit.FILE

    def checked(self, *names: str) -> list[Checked]:
        return [audit.verify(self.log(name)) for name in names or ("coordinator", *HOLDERS)]

    def kinds(self, name: str) -> Counter[str]:
        return Counter(one.kind for one in audit.entries(self.log(name)))


@pytest.fixture
def pilot(tmp_path: Path) -> Pilot:
    """A coordinator and three holders that have joined and approved a mean."""
    made = pilots.make_pilot(tmp_path)
    found = Pilot(made.root, made.office, made.frames)
    found.agreed(runs=10)
    return found


def cut(path: Path, keep: int) -> None:
    """Put back a log as it was after some entries."""
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:keep]))


def test_each_message_is_in_both_logs_once_and_the_heads_of_all_are_known_to_all(pilot: Pilot) -> None:
    answer = pilot.ask()
    assert answer.result.tables["estimates"][0]["estimate"] == pytest.approx(pilot.mean, rel=1e-9)
    logs = pilot.checked()
    assert [one.wrong for one in logs] == [None] * 4
    assert cross_check(logs) == ()
    hub = pilot.kinds("coordinator")
    assert hub[SENT] == hub[REPLIED] == pilot.messages
    parties = [pilot.kinds(name) for name in HOLDERS]
    assert sum(one[RECEIVED] for one in parties) == sum(one[ANSWERED] for one in parties) == pilot.messages
    assert not any(one[CONTRADICTED] for one in [*parties, hub])
    digests = [
        {str(e.facts["digest"]) for log in logs for e in log.entries if e.kind in kinds}
        for kinds in ((SENT, ANSWERED), (RECEIVED, REPLIED))
    ]
    assert digests[0] == digests[1]
    for name, log in zip(("coordinator", *HOLDERS), logs, strict=True):
        known = {one.whose for entry in log.entries for one in noted(entry)}
        assert known == {"coordinator", *HOLDERS} - {name}
    (study,) = {e.facts["study"] for e in logs[1].entries if e.kind == RECEIVED and "study" in e.facts}
    with read_only(pilot.root / "istat" / "ledger.sqlite") as ledger:
        assert study in {one.study for one in ledger.entries()}
        told = [e.facts["ledger"] for e in logs[1].entries if "ledger" in e.facts]
        assert told[-1] == ledger.head()


def test_logs_grow_by_one_entry_a_message_and_direction_whatever_the_number_of_parties(pilot: Pilot) -> None:
    pilot.ask()
    size, messages = pilot.log("istat").stat().st_size, pilot.messages
    pilot.ask()
    grown = pilot.log("istat").stat().st_size - size
    assert grown < 2000 * (pilot.messages - messages) / len(HOLDERS)


def test_a_coordinator_with_another_history_is_refused_until_it_is_accepted(pilot: Pilot) -> None:
    pilot.ask()
    cut(pilot.log("coordinator"), -6)
    with read_only(pilot.root / "istat" / "ledger.sqlite") as ledger:
        head = ledger.head()
    with pytest.raises(Refused, match=r"two histories|as the newest"):
        pilot.ask()
    for name in HOLDERS:
        assert pilot.kinds(name)[CONTRADICTED] >= 1
    with read_only(pilot.root / "istat" / "ledger.sqlite") as ledger:
        assert ledger.head() == head
    key = pilot.office.identity.public
    for name in HOLDERS:
        audit.record(pilot.root / name, ACCEPTED, {"whose": "coordinator", "key": key, "reason": "disk lost"})
    pilot.ask()
    assert cross_check(pilot.checked())  # what was accepted stays told


def test_a_party_with_another_history_ends_the_run(pilot: Pilot) -> None:
    pilot.ask()
    showing(pilot, "cbs", audit.head_of(key_of(pilot, "cbs"), list(audit.entries(pilot.log("cbs")))[3]))
    with pytest.raises(Contradicted, match=r"cbs: audit: got .*as the newest"):
        pilot.ask()
    assert pilot.kinds("coordinator")[CONTRADICTED] >= 1
    cut(pilot.log("cbs"), 3)
    assert any("truncated: cbs's log" in one.what for one in cross_check(pilot.checked()))


def test_a_coordinator_that_keeps_a_log_for_each_party_is_caught_by_theirs(pilot: Pilot) -> None:
    """Two branches from one beginning, each shown to one party: every party alone sees one history."""
    log = pilot.log("coordinator")
    alone: dict[str, Any] = {"protection": {"name": "plain"}, "disclosure": "none"}
    first, second = (pilot.agreed(holders=[name], **alone) for name in ("istat", "cbs"))
    begun = log.read_bytes()
    pilot.ask(first)
    log.write_bytes(begun)
    pilot.ask(second)
    assert not any(pilot.kinds(name)[CONTRADICTED] for name in HOLDERS)
    found = cross_check(pilot.checked("istat", "cbs"), {"coordinator": pilot.office.identity.public})
    assert any("coordinator has shown istat and cbs two different entries" in one.what for one in found)
    assert any("equivocation" in one.what for one in cross_check(pilot.checked("coordinator", "istat", "cbs")))


def test_a_head_by_another_key_ends_the_run(pilot: Pilot) -> None:
    strange = audit.head(pilot.root / "insee")
    assert strange is not None
    showing(pilot, "istat", strange)
    with pytest.raises(EngineError, match="istat: audit: got a head of istat's log that is not signed by its key"):
        pilot.ask()


def test_a_party_whose_log_cannot_be_written_answers_nothing(pilot: Pilot) -> None:
    log = pilot.log("istat")
    log.write_bytes(log.read_bytes()[:-30] + b"0" * 29 + b"\n")
    with pytest.raises(EngineError, match="istat: a failure at the holder") as caught:
        pilot.ask()
    assert str(pilot.root) not in str(caught.value)
    assert not (pilot.root / "istat" / "ledger.sqlite").exists()


def test_a_coordinator_whose_log_cannot_be_written_sends_nothing(pilot: Pilot) -> None:
    log, messages = pilot.log("coordinator"), pilot.messages
    log.write_bytes(log.read_bytes()[:-30] + b"0" * 29 + b"\n")
    with pytest.raises(EngineError, match="its last entry is wrong"):
        pilot.ask()
    assert pilot.messages == messages


def showing(pilot: Pilot, name: str, head: audit.Head, types: str = "query.") -> None:
    """Let a party send this head in each answer to messages of these types."""

    def meddle(party: str, message: Message, reply: Message) -> None:
        if party == name and message.metadata.message_type.startswith(types) and not reply.has_error():
            said = Said.parse(reply.content.config_records[RECORD])
            for key, text in replace(said, head=head).record().items():
                reply.content.config_records[RECORD][key] = text

    pilot.meddle = meddle


def key_of(pilot: Pilot, name: str) -> str:
    return load_identity(pilot.root / name, name, {}).public


def poisoned(pilot: Pilot, name: str) -> None:
    """Let a party sign a head with the largest number that there is."""
    identity = load_identity(pilot.root / name, name, {})
    digest, seq = "cd" * 32, 2**53 - 1
    signature = identity.sign(_to_sign(identity.public, seq, digest)).hex()
    showing(pilot, name, audit.Head(identity.public, seq, digest, signature))


def test_one_partys_made_up_head_costs_no_other_partys_decision_and_blocks_that_party_until_it_is_accepted(
    pilot: Pilot,
) -> None:
    poisoned(pilot, "cbs")
    number = pilot.propose().proposal.number
    assert pilot.post(number) == {}
    pilot.meddle = lambda *_: None
    pilot.decide(number, *HOLDERS)
    failed = pilot.post(number)
    assert list(failed) == ["cbs"]
    assert "as the newest of cbs's log" in failed["cbs"]
    now = datetime.now(UTC)
    states = {name: word.state for name, word in at_office.words(pilot.office, number, now).items()}
    assert states == {"istat": "approved", "insee": "approved", "cbs": "sent"}
    key = key_of(pilot, "cbs")
    audit.record(pilot.office.root, ACCEPTED, {"whose": "cbs", "key": key, "reason": "it signed what was not there"})
    assert pilot.post(number) == {}
    assert at_office.words(pilot.office, number, now)["cbs"].state == "approved"
    assert any("truncated: cbs's log" in one.what for one in cross_check(pilot.checked()))  # told for ever


@pytest.mark.parametrize("types", ["query.admit", "query.ask", "query.release"])
def test_a_contradiction_at_any_step_ends_the_run_naming_the_party(pilot: Pilot, types: str) -> None:
    number = pilot.agreed(protection={"name": "plain"})
    strange = audit.head(pilot.root / "insee")
    assert strange is not None
    showing(pilot, "istat", strange, types)
    with pytest.raises(Contradicted, match="istat: audit: got a head of istat's log that is not signed by its key"):
        pilot.run(number)


@pytest.mark.parametrize("name", ["coordinator", "istat"])
def test_crates_of_pilots_with_a_past_fit_their_logs(pilot: Pilot, tmp_path: Path, name: str) -> None:
    """Runs, a decision taken back, a party that left and came again with other keys, and another roster."""
    pilot.ask()
    number = pilot.propose().proposal.number
    pilot.post(number)
    pilot.decide(number, *HOLDERS)
    pilot.post(number)
    pilot.decide(number, "istat", choice="refused", reason="not now")
    pilot.post(number)
    pilot.office.revoke("cbs", "left")
    pilot.office.sign(joining.request(pilot.root / "elsewhere", "cbs", "holder"))
    istat = pilot.root / "istat"
    joining.join(istat, joining.look(istat, pilot.office.kit("istat")))
    folder = pilot.office.root if name == "coordinator" else istat
    for study in (None, 1):
        log, made = audit.verify(pilot.log(name)), tmp_path / f"crate-{study}"
        write_folder(made, bag(dossier(folder, log, study), pilot.log(name), documents(folder, study)))
        found = check(made, {})
        assert (found.wrong, found.beside) == (None, None)
        assert any(note.startswith("not in it") for note in found.notes) == (study is not None)
