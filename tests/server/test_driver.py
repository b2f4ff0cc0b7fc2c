"""The coordinator of any study: refusals that a method catches, runs that end or go on."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message

from statfed.client.guard.ledger import read_only
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.privacy import accountant as privacy
from statfed.core.progress import silent
from statfed.core.resolve import resolve
from statfed.core.statement import Admission
from statfed.core.terms import Terms
from statfed.server.driver import Checkpoint, Driven, drive
from statfed.server.engine import Deployment
from statfed.server.exchange import Exchange
from statfed.server.grid import inprocess
from tests.office import PRIVATE, Office, query
from tests.spender import forgetful, installed
from tests.universe import people

HOLDERS = ("a", "b", "c")
THREE = (("count", 0.7), ("income", 0.5), ("count", 0.2))
Parties = Callable[..., "Federation"]


class Federation:
    """Three holders in memory."""

    def __init__(self, folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> None:
        self.offices = {
            name: Office(
                folder / name,
                people(200, seed),
                **(dict(changes.get("all", {})) | dict(changes.get(name, {})) | {"holder": {"name": name}}),
            )
            for seed, name in enumerate(HOLDERS)
        }

    def run(self, terms: Terms, run: str = "r", fault: inprocess.Fault = inprocess.no_fault, **options: Any) -> Driven:
        study = resolve(terms)
        return inprocess.run(
            Deployment(run, {name: office.home for name, office in self.offices.items()}, Path("unused")),
            lambda session: drive(session, study, run, timeout=60, progress=silent, **options),
            silent,
            fault=fault,
        )

    def entries(self, name: str = "a") -> list[str]:
        return self.offices[name].entries

    def all_entries(self) -> set[tuple[str, ...]]:
        return {tuple(self.entries(name)) for name in HOLDERS}


@pytest.fixture
def parties(tmp_path: Path) -> Iterator[Parties]:
    made: list[Federation] = []

    def make(**changes: Mapping[str, Any]) -> Federation:
        folder = tmp_path / f"federation-{len(made)}"
        folder.mkdir()
        made.append(Federation(folder, changes))
        return made[-1]

    with installed():
        yield make
        for federation in made:
            for office in federation.offices.values():
                office.close()


def spender(*asks: tuple[str, float], **more: Any) -> Terms:
    options = {"asks": asks} | {name: more.pop(name) for name in ("adaptive", "lenient", "remembers") if name in more}
    return query(method="outsider", options=options, **({"holders": HOLDERS} | PRIVATE | more))


def sums(driven: Driven) -> list[float]:
    return [float(row["sum"]) for row in driven.result.tables["sums"]]  # type: ignore[arg-type]


# ---- refusals


def test_a_refusal_that_the_method_catches_costs_nothing_and_the_run_goes_on(parties: Parties) -> None:
    federation = parties()
    done = federation.run(spender(*THREE, lenient=True))
    assert [one.ask for one in done.sums] == ["count", "count"]
    assert len(sums(done)) == 2
    refusal = done.result.notes[0]
    assert all(f"{name}: round 2 of run r: got 0.49" in refusal for name in HOLDERS)
    assert federation.all_entries() == {("open", "reserve", "charge", "charge", "release")}
    for closing in done.closings.values():
        assert closing.study_epsilon is not None
        assert 0.8 < closing.study_epsilon <= 1.0


def test_a_refusal_that_the_method_does_not_catch_ends_the_run_and_frees_what_was_reserved(parties: Parties) -> None:
    federation = parties()
    with pytest.raises(Refused, match=r"a: round 2 of run r: got .* of the study's budget") as caught:
        federation.run(spender(*THREE))
    assert type(caught.value) is Refused
    assert federation.all_entries() == {("open", "reserve", "charge", "release")}


def test_one_holder_that_refuses_is_named_and_what_the_others_gave_was_charged(parties: Parties) -> None:
    """The sum is lost; a method that goes on asks anew, under a new number. Whoever has not answered the first ask of
    an exact study does not answer the second."""
    federation = parties(all={"disclosure": {"minimum_frequency": 5}}, b={"disclosure": {"minimum_frequency": 201}})
    exact = spender(("count", 0.0), ("income", 0.0), lenient=True, privacy=None)
    done = federation.run(exact)
    assert sums(done) == []
    assert len(done.result.notes) == 2
    assert "b: not allowed by this holder's disclosure rules" in done.result.notes[0]
    assert "b: ask: got income first; want count" in done.result.notes[1]
    assert not any("a: " in note or "c: " in note for note in done.result.notes)
    assert federation.entries("b") == ["open"]
    assert federation.entries("a") == ["open", "disclose", "disclose", "release"]


def test_a_failure_is_no_refusal_and_ends_a_run_that_would_catch_one(parties: Parties) -> None:
    federation = parties()
    asked = 0

    def fault(holder: str, message: Message) -> str | None:
        nonlocal asked
        mine = holder == "b" and message.metadata.message_type == "query.ask"
        asked += mine
        return "unplugged" if mine and asked == 2 else None

    with pytest.raises(EngineError, match="b: unplugged"):
        federation.run(spender(("count", 0.3), ("income", 0.3), lenient=True), fault=fault)
    assert federation.entries("a") == ["open", "reserve", "charge", "charge", "release"]


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_an_ask_without_a_share_of_the_budget_is_not_sent(parties: Parties, share: float) -> None:
    federation = parties()
    with pytest.raises(UsageError, match="share of the privacy budget"):
        federation.run(spender(("count", 0.5), ("income", share), lenient=True))
    assert federation.all_entries() == {("open", "reserve", "charge", "release")}


def test_who_looks_at_admissions_may_end_the_run_before_anything_is_spent(parties: Parties) -> None:
    federation = parties()
    seen: list[Mapping[str, Admission]] = []

    def on_admission(admissions: Mapping[str, Admission]) -> None:
        seen.append(admissions)
        raise EngineError("a dry run")

    with pytest.raises(EngineError, match="a dry run"):
        federation.run(spender(("count", 0.5)), on_admission=on_admission)
    assert {name: one.epsilon for name, one in seen[0].items()} == dict.fromkeys(HOLDERS, 1.0)
    assert federation.all_entries() == {("open", "reserve", "release")}


def test_when_one_holder_does_not_admit_the_others_are_freed_and_nothing_is_spent(parties: Parties) -> None:
    federation = parties(b={"budget": {"epsilon": 0.1}}, c={"allow": {"methods": []}})
    with pytest.raises(Refused) as caught:
        federation.run(spender(("count", 0.5)))
    said = str(caught.value)
    assert "b: privacy budget: asked epsilon" in said
    assert "c: not allowed by policy" in said
    assert "1 of 3 holders had agreed; nothing was spent" in said
    assert federation.entries("a") == ["open", "reserve", "release"]


# ---- going on

FIXED: dict[str, Any] = {"adaptive": False, "remembers": True}
PLAN = (("count", 0.5), ("income", 0.5))


class Cut(Exception):
    """The coordinator was killed."""


def cut_at(number: int, kept: list[Checkpoint]) -> Callable[[Checkpoint], None]:
    def on_state(checkpoint: Checkpoint) -> None:
        kept.append(checkpoint)
        if checkpoint.done == number:
            raise Cut

    return on_state


@pytest.mark.parametrize("killed", [True, False])
def test_an_interrupted_run_goes_on_where_it_was_within_one_budget(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    """Also where the coordinator could not free what it had reserved: that is freed before anything is asked again."""
    federation = parties()
    asked, kept = spender(*PLAN, **FIXED), list[Checkpoint]()
    with monkeypatch.context() as patch:
        if killed:
            patch.setattr(Exchange, "release", lambda *_: None)
        with pytest.raises(Cut):
            federation.run(asked, on_state=cut_at(1, kept))
    assert federation.entries()[-1] == ("charge" if killed else "release")
    assert [one.done for one in kept] == [0, 1]
    done = federation.run(asked, "r~2", resume=kept[-1])
    assert [one.ask for one in done.sums] == ["count", "income"]
    assert sums(done)[0] == float(kept[-1].state["sums"][0])
    expected = ("open", "reserve", "charge", "release", "reserve", "charge", "release")
    assert federation.all_entries() == {expected}
    for closing in done.closings.values():
        assert closing.study_epsilon is not None
        assert 0.9 < closing.study_epsilon <= 1.0
    with read_only(federation.offices["a"].home / "ledger.sqlite") as ledger:
        reserved = [entry for entry in ledger.entries() if entry.kind == "reserve"]
        charged = [privacy.event_from_json(entry.event) for entry in ledger.entries() if entry.kind == "charge"]
    assert [entry.round for entry in reserved] == [2, 1]
    assert privacy.epsilon(charged, 1e-6) == pytest.approx(done.closings["a"].study_epsilon)


def test_with_a_public_seed_an_interrupted_run_ends_as_one_that_was_not(
    parties: Parties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spender(*PLAN, **FIXED, seed=5)
    allow = {"all": {"allow": {"public_seed": True}}}
    whole = parties(**allow).run(asked)
    monkeypatch.setenv("STATFED_REGISTER", str(tmp_path / "another" / "register.sqlite"))  # as on another machine
    federation, kept = parties(**allow), list[Checkpoint]()
    with pytest.raises(Cut):
        federation.run(asked, on_state=cut_at(1, kept))
    assert federation.run(asked, "r~2", resume=kept[-1]).result.to_dict() == whole.result.to_dict()


def test_going_on_under_the_old_name_is_refused_and_costs_nothing(parties: Parties) -> None:
    federation, kept = parties(), list[Checkpoint]()
    asked = spender(*PLAN, **FIXED)
    with pytest.raises(Cut):
        federation.run(asked, on_state=cut_at(1, kept))
    with pytest.raises(Refused, match="run r already has a reservation"):
        federation.run(asked, "r", resume=kept[-1])
    assert federation.all_entries() == {("open", "reserve", "charge", "release")}


@pytest.mark.parametrize("remembers", [False, True])
def test_an_adaptive_run_goes_on_with_the_rest_of_its_budget(parties: Parties, remembers: bool) -> None:
    federation, kept = parties(), list[Checkpoint]()
    asked = spender(*PLAN, remembers=remembers)
    with pytest.raises(Cut):
        federation.run(asked, on_state=cut_at(1, kept))
    done = federation.run(asked, "r~2", resume=kept[-1])
    assert federation.all_entries() == {("open", "reserve", "charge", "release", "reserve", "charge", "release")}
    for closing in done.closings.values():
        assert closing.study_epsilon is not None
        assert 0.98 <= closing.study_epsilon <= 1.0 + 1e-9


def test_a_method_that_cannot_go_on_says_so_before_anything_is_spent(parties: Parties) -> None:
    federation, kept = parties(), list[Checkpoint]()
    asked = spender(*PLAN, **FIXED)
    with pytest.raises(Cut):
        federation.run(asked, on_state=cut_at(1, kept))
    with installed(coordinate=forgetful), pytest.raises(UsageError, match="cannot go on with an interrupted run"):
        federation.run(asked, "r~2", resume=kept[-1])
    assert federation.entries() == ["open", "reserve", "charge", "release", "reserve", "release"]


def test_of_a_method_that_remembers_nothing_what_it_was_told_is_kept(parties: Parties) -> None:
    kept: list[Checkpoint] = []
    done = parties().run(spender(*PLAN, adaptive=False), on_state=kept.append)
    assert [(one.done, len(one.told), dict(one.state)) for one in kept] == [(0, 0, {}), (1, 1, {}), (2, 2, {})]
    assert [float(next(iter(one.answer.values()))) for one in kept[-1].told] == sums(done)  # type: ignore[union-attr]
