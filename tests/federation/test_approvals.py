"""Nothing of a pilot is answered that its parties have not approved, word for word, in its time, as often as they said.

Messages are carried by this process; the guards are those of a pilot.
"""

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from statfed.client.guard.policy import Approval
from statfed.client.pilot import joining, permits, studies
from statfed.client.pilot.diagnosis import diagnosis
from statfed.core import VERSION
from statfed.core.errors import Pending, Refused, UsageError
from statfed.core.identity import Identity, create_identity, load_identity
from statfed.core.pilot.papers import make_roster
from statfed.core.pilot.proposals import make_decision, make_proposal, read_proposal
from statfed.core.statement import Statement
from statfed.server.pilot import studies as at_office
from tests.pilots import CODEBOOK, HOLDERS, Pilot, make_pilot

NOW = {"epsilon": 1.0, "delta": 1e-6}


@pytest.fixture
def pilot(tmp_path: Path) -> Pilot:
    return make_pilot(tmp_path)


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def test_an_approved_study_gives_the_pooled_figure_and_only_as_often_as_approved(pilot: Pilot) -> None:
    number = pilot.agreed(runs=2)
    pooled = pd.concat(pilot.frames.values()).age.mean()
    for _ in range(2):
        answer = pilot.run(number)
        assert answer.result.tables["estimates"][0]["estimate"] == pytest.approx(pooled, rel=1e-9)
        assert not answer.simulated
    with pytest.raises(Refused, match="approved for 2, and run as often"):
        pilot.run(number)
    assert {one["by"] for one in permits.used(pilot.home("cbs"), at_office.find(pilot.office, number).proposal.digest)}


def test_messages_go_to_nobody_before_all_have_approved_and_to_nobody_else_after(pilot: Pilot) -> None:
    two = pilot.propose(holders=["istat", "cbs"], protection={"name": "plain"}).proposal.number
    pilot.post(two)
    pilot.decide(two, "istat")
    pilot.post(two)
    before = {name: len(types) for name, types in pilot.sent.items()}
    with pytest.raises(Pending, match=r"not approved by 1 of 2 parties.*\n  cbs: has not decided"):
        pilot.run(two)
    assert {name: len(types) for name, types in pilot.sent.items()} == before
    pilot.decide(two, "cbs", choice="refused", reason="not our data")
    pilot.post(two)
    with pytest.raises(Pending, match="cbs: has refused: not our data"):
        pilot.run(two)
    pilot.decide(two, "cbs")
    pilot.post(two)
    pilot.run(two)
    assert "insee" not in pilot.sent  # no letter, no statement


def say(pilot: Pilot, name: str, step: Any, number: int, **changes: Any) -> str:
    """What a party answers to a statement that the coordinator makes up."""
    from statfed.client.holder import Holder

    terms = at_office.find(pilot.office, number).proposal.agreed
    terms = terms.model_copy(update=changes.pop("terms", {}))
    facts = {"version": VERSION, "run": "x", "step": step, "round": 1, "ask": "sums", "terms": terms}
    made = Statement.model_validate({**facts, "sizes": dict.fromkeys(terms.holders, 50), **changes})
    holder = Holder(pilot.home(name))
    try:
        return holder.answer(made.model_dump_json(), {}).facts.model_dump_json()
    except (Refused, UsageError) as error:
        return str(error)
    finally:
        with suppress(Refused):  # its data are closed
            holder.answer(made.model_copy(update={"step": "release"}).model_dump_json(), {})


@pytest.mark.parametrize("step", ["admit", "ask", "protect"])
def test_a_party_that_has_not_approved_refuses_whatever_the_coordinator_sends(pilot: Pilot, step: str) -> None:
    number = pilot.propose().proposal.number
    assert "never proposed here" in say(pilot, "istat", step, number)
    pilot.post(number)
    assert "waits for approval at istat" in say(pilot, "istat", step, number)
    pilot.decide(number, "cbs", "insee")
    assert "waits for approval at istat" in say(pilot, "istat", step, number)
    pilot.decide(number, "istat", choice="refused", reason="no")
    assert "istat has refused it" in say(pilot, "istat", step, number)
    assert "never decided on here" in say(pilot, "istat", "release", number, terms={"where": (), "exact": True})


@pytest.mark.parametrize(
    "changes",
    [
        {"exact": True},
        {"options": {"columns": ("age",), "by": ()}},
        {"holders": ("istat", "cbs")},
        {"seed": 1},
        {"protection": {"name": "plain"}},
    ],
)
def test_another_word_is_another_study(pilot: Pilot, changes: dict[str, Any]) -> None:
    from statfed.core.terms import Protection

    number = pilot.agreed()
    if "protection" in changes:
        changes = {"protection": Protection(**changes["protection"])}
    assert "never proposed here" in say(pilot, "istat", "admit", number, terms=changes)
    assert '"holder":"istat"' in say(pilot, "istat", "admit", number)


def test_margins_in_another_order_are_another_study(pilot: Pilot) -> None:
    """Cells are in the order of the margins: in two orders under one digest, the difference of two totals was that of a
    holder's own cells."""
    codebook = pilot.root / "people.codebook.toml"
    codebook.write_text(CODEBOOK + "".join(f'[columns.{name}]\ntype = "boolean"\n' for name in ("member", "owner")))
    margins = {name: {"false": 60, "true": 90} for name in ("member", "owner")}
    number = pilot.agreed(method="calibrate", options={"margins": margins}, runs=2)
    turned = {"margins": dict(reversed(margins.items()))}
    assert "never proposed here" in say(pilot, "istat", "admit", number, terms={"options": turned})
    assert "never proposed here" not in say(pilot, "istat", "admit", number, terms={"options": {"margins": margins}})


def test_an_approval_ends_by_time_by_sums_by_another_key_and_by_being_taken_back(pilot: Pilot) -> None:
    number = pilot.agreed()
    home = pilot.home("istat")
    proposal = at_office.find(pilot.office, number).proposal
    later = studies.Limits(1, 1, now() + timedelta(days=1), now() + timedelta(days=2))
    pilot.decide(number, "istat", limits=later)
    assert "approved from" in say(pilot, "istat", "admit", number)
    pilot.decide(number, "istat", limits=studies.Limits(1, 1, now(), now() + timedelta(days=1)))
    assert "sum 2 of a run; approved for 1" in say(pilot, "istat", "ask", number, round=2)
    assert '"holder":"istat"' in say(pilot, "istat", "admit", number)
    pilot.decide(number, "istat", choice="refused", reason="changed our mind")
    assert "istat has refused it" in say(pilot, "istat", "admit", number)
    pilot.decide(number, "istat")
    own = joining.standing(home)
    assert own is not None
    pins = own.parties.model_copy(update={"root": own.parties.root | {"cbs": "ab" * 32}})
    text = (home / "pilot.toml").read_text().replace(own.parties.root["cbs"], pins.root["cbs"])
    (home / "pilot.toml").write_text(text)
    assert "other keys than when it was approved" in say(pilot, "istat", "admit", number)
    with pytest.raises(UsageError, match="at most what was asked for"):
        pilot.decide(number, "istat", limits=studies.Limits(2, 1, now(), proposal.until))
    with pytest.raises(UsageError, match="at most what was asked for"):
        pilot.decide(number, "istat", limits=studies.Limits(1, 1, now(), proposal.until + timedelta(seconds=1)))


def test_what_the_policy_does_not_allow_is_refused_whoever_approved_it(pilot: Pilot) -> None:
    number = pilot.agreed()
    pilot.policy("istat", template="strict")
    assert "approval" not in say(pilot, "istat", "admit", number)
    assert "without" in say(pilot, "istat", "admit", number)


@pytest.mark.parametrize("file", ["decision.json", "proposal.json", "uses.jsonl", "people"])
@pytest.mark.parametrize("content", ["", "{", "[]", "\udcff", '{"format": 3}'])
def test_a_damaged_record_approves_nothing(pilot: Pilot, file: str, content: str) -> None:
    number = pilot.agreed()
    folder = pilot.home("istat") / "studies"
    path = folder / "uses.jsonl" if file == "uses.jsonl" else folder / "0001" / file
    if file == "people":
        path = path / "anna.json"
    path.write_text(content or "x", encoding="utf-8", errors="surrogateescape")
    said = say(pilot, "istat", "admit", number)
    assert "cannot be read; its own log says why" in said


@pytest.mark.parametrize("place", range(0, 1000, 97))
def test_no_byte_of_a_decision_can_be_changed(pilot: Pilot, place: int) -> None:
    number = pilot.agreed()
    path = pilot.home("istat") / "studies" / "0001" / "decision.json"
    content = bytearray(path.read_bytes())
    place = place % len(content)
    content[place] ^= 1
    path.write_bytes(bytes(content))
    said = say(pilot, "istat", "admit", number)
    assert "cannot be read" in said or content.decode(errors="replace").isspace()


def test_nobody_can_decide_for_a_party_nor_propose_in_the_coordinator_s_name(pilot: Pilot) -> None:
    signed = pilot.propose()
    number = signed.proposal.number
    stranger = Identity.ephemeral("istat")
    forged = make_proposal(signed.proposal, stranger)
    with pytest.raises(Refused, match="has not signed"):
        studies.receive(pilot.home("istat"), forged.text, rules(pilot, "istat"), now())
    pilot.post(number)
    other = signed.proposal.model_copy(update={"title": "another"})
    text = make_proposal(other, pilot.office.identity).text
    with pytest.raises(Refused, match="another under this number"):
        studies.receive(pilot.home("istat"), text, rules(pilot, "istat"), now())
    for name in HOLDERS:
        pilot.decide(number, name)
    path = pilot.home("istat") / "studies" / "0001" / "decision.json"
    decision = studies.find(pilot.home("istat"), number).decision
    assert decision is not None
    genuine = decision.text
    path.write_text(make_decision(decision.decision, stranger).text)
    assert "by another key" in say(pilot, "istat", "admit", number)
    assert "of another study, party or key" in pilot.post(number)["istat"]
    path.write_text((pilot.home("cbs") / "studies" / "0001" / "decision.json").read_text())
    assert "of another study, party or key" in pilot.post(number)["istat"]
    with pytest.raises(Pending, match="istat"):
        at_office.ready(pilot.office, number, now())
    path.write_text(genuine)
    assert pilot.post(number) == {}
    at_office.ready(pilot.office, number, now())


def test_the_coordinator_is_told_where_keys_have_changed_since(pilot: Pilot) -> None:
    number = pilot.agreed()
    office = pilot.office
    roster = office.roster
    renamed = tuple(
        one.model_copy(update={"identity": "cd" * 32}) if one.name == "cbs" else one for one in roster.participants
    )
    changed = roster.model_copy(update={"participants": renamed})
    (office.root / "roster.json").write_text(make_roster(changed, office.identity))
    with pytest.raises(Pending, match="cbs: its approval does not hold: decided of another document, or with another"):
        at_office.ready(office, number, now())
    with pytest.raises(Pending, match="istat: its approval does not hold: a party has other keys"):
        at_office.ready(office, number, now())


def rules(pilot: Pilot, name: str) -> Any:
    from statfed.client.third_party import approval_of

    return approval_of(pilot.home(name))


def test_four_eyes_need_two_people_with_their_own_keys(pilot: Pilot, tmp_path: Path) -> None:
    people = {name: create_identity_in(tmp_path / name) for name in ("anna", "bert", "carl")}
    pilot.policy("istat", {"needed": 2, "people": people})
    number = pilot.propose().proposal.number
    pilot.post(number)
    pilot.decide(number, "cbs", "insee")
    person = {name: (name, load_identity(tmp_path / name, name, {})) for name in people}
    with pytest.raises(UsageError, match="want one of the policy's people"):
        pilot.decide(number, "istat")
    with pytest.raises(UsageError, match="with a key that"):
        pilot.decide(number, "istat", person=("anna", person["bert"][1]))
    pilot.decide(number, "istat", person=person["anna"])
    pilot.decide(number, "istat", person=person["anna"])
    assert "waits for approval" in say(pilot, "istat", "admit", number)
    short = studies.Limits(1, 5, now(), now() + timedelta(days=3))
    pilot.decide(number, "istat", person=person["bert"], limits=short)
    decision = studies.find(pilot.home("istat"), number).decision
    assert decision is not None
    assert (decision.decision.rounds, decision.decision.until) == (5, short.until)
    assert '"holder":"istat"' in say(pilot, "istat", "admit", number)
    (pilot.home("istat") / "studies" / "0001" / "people" / "bert.json").unlink()  # the home's own key is not enough
    assert "fewer people have approved it than istat wants" in say(pilot, "istat", "admit", number)
    pilot.decide(number, "istat", person=person["bert"], limits=short)
    assert '"holder":"istat"' in say(pilot, "istat", "admit", number)
    pilot.policy("istat", {"needed": 2, "people": {**people, "bert": people["carl"], "carl": people["bert"]}})
    assert "fewer people have approved it than istat wants" in say(pilot, "istat", "admit", number)
    pilot.policy("istat", {"needed": 2, "people": people})
    pilot.decide(number, "istat", person=person["carl"], choice="refused", reason="unsafe")
    assert "istat has refused it" in say(pilot, "istat", "admit", number)


def test_a_refusal_of_one_of_the_people_stands_until_that_one_approves(pilot: Pilot, tmp_path: Path) -> None:
    people = {name: create_identity_in(tmp_path / name) for name in ("anna", "bert", "carl")}
    person = {name: (name, load_identity(tmp_path / name, name, {})) for name in people}
    pilot.policy("istat", {"needed": 2, "people": people})
    number = pilot.propose().proposal.number
    pilot.post(number)

    def say_of(name: str, choice: str) -> str:
        pilot.decide(number, "istat", choice=choice, person=person[name], reason="no" if choice == "refused" else "")
        decision = studies.find(pilot.home("istat"), number).decision
        return decision.decision.choice if decision else "open"

    assert say_of("carl", "refused") == "refused"
    assert [say_of("anna", "approved"), say_of("bert", "approved")] == ["refused", "refused"]
    assert say_of("carl", "approved") == "approved"
    assert say_of("bert", "refused") == "refused"
    assert say_of("anna", "approved") == "refused"  # with carl's old word there would be two
    home = pilot.home("istat") / "studies" / "0001"
    assert say_of("bert", "approved") == "approved"
    approved = (home / "decision.json").read_text()
    say_of("bert", "refused")
    (home / "decision.json").write_text(approved)  # put back, bert's own word stands against it
    assert "or one has refused" in say(pilot, "istat", "admit", number)


def create_identity_in(folder: Path) -> str:
    folder.mkdir()
    return create_identity(folder)


def standing(**changes: Any) -> dict[str, Any]:
    rule = {"name": "routine", "methods": ("mean",), "epsilon": 1.0, "total": 2.0, "until": "2199-12-31", "runs": 5}
    return {"standing": ({**rule, **changes},)}


def test_a_standing_approval_covers_its_kind_up_to_its_total_and_no_more(pilot: Pilot) -> None:
    for name in HOLDERS:
        pilot.policy(name, standing(total=1.5))
    private: dict[str, Any] = {"privacy": NOW, "protection": {"name": "secure-aggregation"}}
    first = pilot.propose(**private, runs=5).proposal.number
    pilot.post(first)
    at_office.ready(pilot.office, first, now())
    pilot.run(first)
    with pytest.raises(Refused, match="used up; want a person to approve it"):
        pilot.run(first)
    second = pilot.propose(**private, title="again").proposal.number
    pilot.post(second)
    with pytest.raises(Pending, match="has not decided"):  # the total does not reach for it
        pilot.run(second)
    pilot.decide(second, *HOLDERS)
    pilot.post(second)
    pilot.run(second)
    pilot.policy("istat")
    assert "no standing approval covers it any more" in say(pilot, "istat", "admit", first, run="other")


def test_names_of_runs_do_not_hide_what_a_standing_approval_has_cost(pilot: Pilot) -> None:
    """Costs were added up by the run's name alone: another study under `a~2` cost nothing."""
    pilot.policy("istat", standing(total=1.5))
    numbers = [pilot.propose(privacy={**NOW, "epsilon": cost}).proposal.number for cost in (1.0, 0.9, 0.8)]
    pilot.post(*numbers)
    for number, run in zip(numbers, ("a", "a~2", "a~3"), strict=True):
        proposal = at_office.find(pilot.office, number).proposal
        home, given = pilot.home("istat"), rules(pilot, "istat")

        def begun(run: str = run, p: Any = proposal, home: Path = home, given: Any = given) -> None:
            permits.permit(home, given, p.agreed, p.digest, run, 1, uses=True, now=datetime.now(UTC))

        if number == numbers[0]:
            begun()
            begun(run=f"{run}~2")  # goes on with the same run
        else:
            with pytest.raises(Refused, match="used up"):
                begun()
    last = pilot.propose(privacy={**NOW, "epsilon": 0.7}).proposal.number
    pilot.post(last)
    assert studies.find(pilot.home("istat"), last).decision is None  # nothing is left that could cover it


def test_what_people_have_refused_is_not_approved_under_another_number(pilot: Pilot) -> None:
    pilot.policy("istat", standing())
    numbers = [pilot.propose(privacy=NOW, title=title).proposal.number for title in "ab"]
    pilot.post(numbers[0])
    pilot.decide(numbers[0], "istat", choice="refused", reason="no")
    pilot.post(numbers[1])
    assert "waits for approval" in say(pilot, "istat", "admit", numbers[1])


@pytest.mark.parametrize(
    "changes", [{"holders": ["cbs", "istat", "insee"]}, {"privacy": {**NOW, "epsilon": 0.9}}, {"where": ["age >= 0"]}]
)
def test_what_people_have_refused_is_not_approved_in_other_words(pilot: Pilot, changes: dict[str, Any]) -> None:
    """Holders in another order were another study, which a standing approval covered."""
    pilot.policy("istat", standing())
    first = pilot.propose(privacy=NOW).proposal.number
    pilot.post(first)
    pilot.decide(first, "istat", choice="refused", reason="no")
    again = pilot.propose(**{"privacy": NOW, **changes}).proposal.number
    pilot.post(again)
    assert "waits for approval" in say(pilot, "istat", "admit", again)


def test_exact_studies_over_other_holders_are_not_approved_without_people(pilot: Pilot) -> None:
    """The difference of two such sums is what one holder has."""
    for name in HOLDERS:
        pilot.policy(name, standing(exact=True))
    plain: dict[str, Any] = {"protection": {"name": "plain"}}
    numbers = [
        pilot.propose(**plain, **changes).proposal.number
        for changes in ({}, {"title": "again", "where": ["age >= 0"]}, {"holders": ["istat", "cbs"]})
    ]
    pilot.post(*numbers)
    chosen = [studies.find(pilot.home("cbs"), number).decision for number in numbers]
    assert [one.decision.by if one else "" for one in chosen] == ["standing routine", "standing routine", ""]


def test_a_record_of_runs_that_was_cut_approves_nothing(pilot: Pilot) -> None:
    number = pilot.agreed(runs=2)
    pilot.run(number)
    uses = pilot.home("istat") / "studies" / "uses.jsonl"
    uses.unlink()
    assert "cannot be read" in say(pilot, "istat", "admit", number)


def test_an_approval_that_is_put_back_after_it_was_taken_back_approves_nothing(pilot: Pilot) -> None:
    number = pilot.agreed()
    path = pilot.home("istat") / "studies" / "0001" / "decision.json"
    approved = path.read_text()
    pilot.decide(number, "istat", choice="refused", reason="no")
    path.write_text(approved)
    assert "istat decided otherwise since" in say(pilot, "istat", "admit", number)
    pilot.decide(number, "istat")
    assert '"holder":"istat"' in say(pilot, "istat", "admit", number)


@pytest.mark.parametrize("name", ["../../decision", "a/b", "Anna", ""])
def test_people_have_names_that_are_no_paths(name: str) -> None:
    with pytest.raises(ValidationError, match=r"approval\.people: got"):
        Approval.model_validate({"people": {name: "ab" * 32}})


def test_a_standing_approval_has_a_day_after_its_last(pilot: Pilot) -> None:
    """Of the last day that there is no letter was answered any more."""
    with pytest.raises(ValidationError, match="want an earlier day"):
        pilot.policy("istat", standing(until="9999-12-31"))
    pilot.policy("istat", standing(until="9999-12-30"))
    number = pilot.propose(privacy=NOW).proposal.number
    assert pilot.post(number) == {}


def test_a_document_is_measured_in_bytes_wherever_it_is_read(pilot: Pilot) -> None:
    """Characters were counted on the way in: what was kept could not be read again, and nothing was answered."""
    signed = pilot.propose()
    wide = signed.proposal.model_copy(update={"study": json.dumps({"x": "\u4e2d" * 1_500_000}, ensure_ascii=False)})
    text = make_proposal(wide.model_copy(update={"number": 9}), pilot.office.identity).text
    with pytest.raises(Refused, match="bytes"):
        studies.receive(pilot.home("istat"), text, rules(pilot, "istat"), now())
    pilot.post(signed.proposal.number)
    pilot.decide(signed.proposal.number, "istat")
    path = pilot.home("istat") / "studies" / "0001" / "decision.json"
    path.write_text(path.read_text() + " " * 5_000_000)
    assert "got more than" in pilot.post(signed.proposal.number)["istat"] or pilot.post(1)["istat"]
    assert at_office.words(pilot.office, 1, now())["istat"].state == "sent"


def test_a_proposal_that_is_over_or_one_too_many_is_not_kept(pilot: Pilot, monkeypatch: pytest.MonkeyPatch) -> None:
    signed = pilot.propose(days=1.0)
    late = now() + timedelta(days=2)
    with pytest.raises(Refused, match="is over"):
        studies.receive(pilot.home("istat"), signed.text, rules(pilot, "istat"), late)
    monkeypatch.setattr(studies, "MOST_WAITING", 1)
    first, second = signed.proposal.number, pilot.propose(title="b").proposal.number
    pilot.post(first)
    pilot.post(second)
    assert [one.proposal.number for one in studies.listing(pilot.home("istat"))] == [first]
    assert "takes no more" in at_office.words(pilot.office, second, now())["istat"].what


def test_a_proposal_s_study_is_the_one_of_its_terms(pilot: Pilot) -> None:
    signed = pilot.propose()
    other = json.loads(signed.proposal.study) | {"exact": True}
    for study in (json.dumps(other), "{}", "[", '"x"'):
        text = make_proposal(signed.proposal.model_copy(update={"study": study}), pilot.office.identity).text
        with pytest.raises(Refused, match="study"):
            studies.receive(pilot.home("istat"), text, rules(pilot, "istat"), now())


def test_nobody_is_called_coordinator_and_words_that_move_a_screen_are_none(pilot: Pilot, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="want another name"):
        joining.request(tmp_path / "x", "coordinator", "holder")
    for words in ("a\x1b[8m", "a\nprivacy    epsilon 0.01", "\u202e"):
        with pytest.raises(UsageError, match="title"):
            pilot.propose(title=words)


@pytest.mark.parametrize("step", ["admit", "ask", "release"])
def test_a_home_that_has_lost_its_pilot_toml_answers_nothing(pilot: Pilot, step: str) -> None:
    """Without it a home has joined no pilot, and studies needed nobody's approval."""
    number = pilot.agreed()
    (pilot.home("istat") / "pilot.toml").unlink()
    assert "no pilot.toml" in say(pilot, "istat", step, number)
    (pilot.home("istat") / "pilot.kit").unlink()
    shutil.rmtree(pilot.home("istat") / "studies")
    assert "no pilot.toml" in say(pilot, "istat", step, number)


def test_nothing_is_told_of_a_run_s_end_before_anybody_has_decided(pilot: Pilot) -> None:
    number = pilot.propose().proposal.number
    pilot.post(number)
    assert "never decided on here" in say(pilot, "istat", "release", number)


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, {}),
        ({}, {"privacy": {**NOW, "delta": 1e-5}}),
        ({}, {"privacy": {**NOW, "noise": "central"}, "protection": {"name": "plain"}}),
        ({"epsilon": 0.5}, {"privacy": NOW}),
        ({"methods": ("describe",)}, {"privacy": NOW}),
        ({"until": "2020-01-01"}, {"privacy": NOW}),
    ],
)
def test_what_a_standing_approval_does_not_cover_waits_for_people(
    pilot: Pilot, changes: dict[str, Any], asked: dict[str, Any]
) -> None:
    pilot.policy("istat", standing(**changes))
    number = pilot.propose(**asked).proposal.number
    pilot.post(number)
    assert "waits for approval" in say(pilot, "istat", "admit", number)


def test_proposals_hold_no_path_of_the_coordinator_s_machine_and_are_read_back_equal(pilot: Pilot) -> None:
    signed = pilot.propose()
    assert str(pilot.root) not in signed.text
    again = read_proposal(signed.text, "x")
    assert again.id == signed.id
    assert again.proposal.agreed.digest() == signed.proposal.digest
    study = json.loads(signed.proposal.study)
    assert study["codebook"] == "people.codebook.toml"
    with pytest.raises(UsageError, match="want participants of the pilot"):
        pilot.propose(holders=["istat", "cbs", "nobody"])
    with pytest.raises(UsageError, match="study 9: not known here; want one of 1"):
        at_office.find(pilot.office, 9)


def test_doctor_says_that_the_register_is_not_the_one_of_the_ledger(
    pilot: Pilot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pilot.run(pilot.agreed())

    def ledger() -> list[str]:
        found = diagnosis(pilot.home("istat"), datetime.now(UTC), offline=True)
        return [one.state for one in found if one.code == "ledger"]

    assert ledger() == ["ok"]
    monkeypatch.setenv("STATFED_REGISTER", str(tmp_path / "other" / "register.sqlite"))
    assert ledger() == ["failed"]
