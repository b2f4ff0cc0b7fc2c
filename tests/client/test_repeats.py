"""A sum that was lost is given again and costs nothing; anything else that asks for it is refused."""

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.client.guard.ledger import Ledger
from statfed.client.holder import Holder
from statfed.client.repeats import FOLDER, MOST, Answered, Repeats
from statfed.core.errors import EngineError, Refused
from statfed.core.method import Ask, Question, read_question
from statfed.core.resolve import Resolved
from statfed.core.terms import Terms
from statfed.strategies.learning.local import get_vector
from statfed.strategies.learning.prepared import build
from tests.office import PRIVATE, Office, query
from tests.spender import installed
from tests.universe import people

Home = Callable[..., Office]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made: list[Office] = []

    def make(**changes: dict[str, Any]) -> Office:
        made.append(Office(tmp_path / f"office-{len(made)}", people(200, 1), **changes))
        return made[-1]

    with installed():
        yield make
    for office in made:
        office.close()


def asked(**more: Any) -> Terms:
    two = (("count", 0.5), ("income", 0.5))
    return query(**({"method": "outsider", "options": {"asks": two, "adaptive": False}} | PRIVATE | more))


def exact() -> Terms:
    return query(method="outsider")


def arrays(packet: Any) -> dict[str, bytes]:
    return {name: np.asarray(item).tobytes() for name, item in packet.items()}


def restarted(office: Office) -> None:
    office.close()
    office.holder = Holder(office.home)


@pytest.mark.parametrize(
    ("terms", "ask"),
    [
        (asked(), "count"),
        (asked(options={"asks": (("income", 1.0),), "adaptive": False}), "income"),
        (exact(), "count"),
    ],
    ids=["counts with noise", "amounts with noise", "exact"],
)
def test_what_was_given_is_given_again_without_data_or_an_entry(home: Home, terms: Terms, ask: str) -> None:
    office = home()
    office.say("admit", terms)
    first = arrays(office.say("ask", terms, 1, ask).packet)
    entries = office.entries
    restarted(office)
    office.say("admit", terms, run="r~2")
    before = office.entries
    reads: list[Any] = []
    office.holder._contributions.table = lambda *_: reads.append(1)  # type: ignore[assignment, method-assign]
    assert arrays(office.say("ask", terms, 1, ask, run="r~2").packet) == first
    assert (office.entries, reads) == (before, [])
    assert [kind for kind in before if kind in ("charge", "disclose")] == [
        kind for kind in entries if kind in ("charge", "disclose")
    ]


def test_an_update_of_training_without_noise_is_given_again_as_it_was(home: Home) -> None:
    """Drawn from other batches it would be a second disclosure about the same records."""
    options = {"target": "income", "features": ["age"], "model": {"hidden": 2}, "rounds": 2, "batch_size": 16}
    office, terms = home(), query(method="local-sgd", options=options)
    question: Question[Any] = read_question(terms)[1]
    state = {"vector": np.asarray(get_vector(build(question, 1)))}

    def update(run: str, number: int = 1) -> dict[str, bytes]:
        return arrays(office.say("ask", terms, number, "fit", state, run=run).packet)

    office.say("admit", terms)
    first = update("r")
    restarted(office)
    office.say("admit", terms, run="r~2")
    assert update("r~2") == first
    assert office.entries.count("disclose") == 1
    assert update("r~2", 2) != first, "other batches, hence this test's claim"
    assert office.entries.count("disclose") == 2


@pytest.mark.parametrize(
    "change",
    [{"arrays": {"at": np.array([1.0])}}, {"share": 0.3}, {"run": "s~2"}, {"ask": "income"}],
    ids=lambda change: next(iter(change)),
)
def test_a_second_ask_with_anything_different_is_never_answered_from_what_was_kept(home: Home, change: Any) -> None:
    """Where it would be, somebody would have figures that do not belong to the question."""
    office, terms = home(), asked(options={"adaptive": True})
    office.say("admit", terms)
    office.say("ask", terms, 1, "count", share=0.2)
    given = {"ask": "count", "arrays": {}, "share": 0.2, "run": "r~2"} | change
    run, ask = given.pop("run"), given.pop("ask")
    office.say("admit", terms, run=run)
    before = office.entries.count("charge")
    if run == "s~2":  # another run, which is charged for its own answer
        office.say("ask", terms, 1, ask, run=run, **given)
        assert office.entries.count("charge") == before + 1
        return
    said = office.refusal("ask", terms, 1, ask, run=run, **given)
    assert "was paid for, and is not given again" in said
    assert office.entries.count("charge") == before


def test_an_exact_run_cannot_ask_otherwise_for_a_sum_that_it_had(home: Home) -> None:
    office, terms = home(disclosure={"minimum_frequency": 3}), exact()
    office.say("admit", terms)
    office.say("ask", terms, 1, "count")
    restarted(office)
    office.say("admit", terms, run="r~2")
    assert "want what this run asked for as that sum before" in office.refusal("ask", terms, 1, "income", run="r~2")
    assert "got count a second time" in office.refusal("ask", terms, 2, "count", run="r~2")
    office.say("ask", terms, 2, "income", run="r~2")


def test_without_its_record_a_run_that_is_under_way_has_to_begin_anew(home: Home) -> None:
    """The course of an exact study does not fail open, and what was charged is not charged again."""
    office = home(disclosure={"minimum_frequency": 3})
    for run, terms in (("e", exact()), ("p", asked())):
        office.say("admit", terms, run=run)
        office.say("ask", terms, 1, "count", run=run)
    for path in (office.home / FOLDER).iterdir():
        path.write_bytes(b"damaged")
    restarted(office)
    office.say("admit", exact(), run="e~2")
    assert "got income first; want count" in office.refusal("ask", exact(), 2, "income", run="e~2", done=1)
    assert "resume: got 0 sums done; want 1" in office.refusal("admit", asked(), run="p~2")
    office.say("admit", asked(), run="p~2", done=1)


def test_data_that_changed_end_a_run_in_its_next_attempt_too(home: Home) -> None:
    office, terms = home(), asked()
    office.say("admit", terms)
    office.say("ask", terms, 1, "count")
    restarted(office)
    office.write(people(201, 5))
    assert "the data changed since this run began" in office.refusal("admit", terms, run="r~2")


@pytest.mark.parametrize("how", ["finished", "withheld"])
def test_a_run_that_is_over_is_given_nothing_again(home: Home, how: str) -> None:
    """A coordinator that adds the noise would draw it twice over the same figures."""
    noisy: Any = PRIVATE["privacy"] | {"noise": "central"}
    office, terms = home(allow={"noise": ["central"]}), asked(privacy=noisy)
    office.say("admit", terms)
    office.say("ask", terms, 1, "count")
    over: Any = {how: True}
    office.say("release", terms, **over)
    assert "want 1, which this run was charged for here" in office.refusal("admit", terms, run="r~2")


@pytest.mark.parametrize("how", ["finished", "withheld"])
@pytest.mark.parametrize("terms", [exact(), asked(), asked(options={"adaptive": True})], ids=["exact", "fixed", "free"])
def test_a_run_that_is_over_is_answered_in_no_attempt_whatever_is_left_of_its_files(
    home: Home, terms: Terms, how: str
) -> None:
    """One approved run would be a hundred answers about data that are edited in between."""
    office = home()
    for run in ("r", "r~2"):  # one of them is open while the run ends
        office.say("admit", terms, run=run)
    office.say("ask", terms, 1, "count", share=0.1)
    over: Any = {how: True}
    office.say("release", terms, **over)
    entries = office.entries
    office.say("release", terms, **over)
    assert office.entries == entries
    for records in (200, 200, 201):
        if records > 200:
            office.write(people(records, 5))
        restarted(office)
        for path in (office.home / FOLDER).iterdir():
            path.unlink()
        office.say("admit", terms, run=f"r~{len(office.entries)}", done=1)
        for run, ask, number in (("r~2", "count", 1), ("r~2", "income", 2), (f"r~{len(office.entries)}", "income", 2)):
            assert "run r: it has ended" in office.refusal("ask", terms, number, ask, share=0.1, run=run)
    kinds = [kind for kind in office.entries if kind in ("charge", "disclose")]
    assert len(kinds) == 1
    office.say("admit", terms, run="another")
    office.say("ask", terms, 1, "count", share=0.1, run="another")


def test_an_end_that_is_told_of_a_run_that_was_given_nothing_is_no_entry(home: Home) -> None:
    """Or whoever asks could fill a ledger with names."""
    office = home()
    office.say("release", exact(), finished=True)
    assert office.entries == ["open"]


@pytest.mark.parametrize("forgotten", [False, True], ids=["with its record", "without its record"])
def test_an_exact_sum_is_given_to_another_attempt_as_the_same_figures_alone(home: Home, forgotten: bool) -> None:
    """Attempts of one run would follow the data as they change, and be one run of those that were approved."""
    office, terms = home(), exact()
    for run in ("r", "r~2", "r~3"):
        office.say("admit", terms, run=run)
    first = arrays(office.say("ask", terms, 1, "count").packet)
    if forgotten:
        for path in (office.home / FOLDER).iterdir():
            path.unlink()
    assert arrays(office.say("ask", terms, 1, "count", run="r~2").packet) == first
    if forgotten:
        for path in (office.home / FOLDER).iterdir():
            path.unlink()
    office.write(people(201, 5))
    restarted(office)
    if forgotten:
        assert "data or question are others" in office.refusal("ask", terms, 1, "count", run="r~3")
    else:
        assert arrays(office.say("ask", terms, 1, "count", run="r~3").packet) == first
    office.say("admit", terms, run="another")
    assert arrays(office.say("ask", terms, 1, "count", run="another").packet) != first


@pytest.mark.parametrize("rules", [{}, {"minimum_frequency": 3}], ids=["without rules", "with rules"])
def test_without_its_record_an_exact_run_is_given_no_sum_under_another_number(home: Home, rules: Any) -> None:
    """Its course would begin again, about other data each time: records make room for those of sixteen later runs."""
    office, terms = home(disclosure=rules), exact()
    for run in ("r", "r~2"):
        office.say("admit", terms, run=run)
    office.say("ask", terms, 1, "count")
    for path in (office.home / FOLDER).iterdir():
        path.unlink()
    office.write(people(201, 5))
    restarted(office)
    for run in ("r", "r~2"):
        assert "what it was given is not known any more" in office.refusal("ask", terms, 2, "count", run=run)


def test_an_exact_sum_that_may_be_over_other_holders_is_given_to_one_attempt(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator would drop a holder from the second, and subtract."""
    office, terms = home(), exact()
    monkeypatch.setattr(Resolved, "repeatable", False)  # as under a protection that may do without some holders
    office.say("admit", terms)
    office.say("ask", terms, 1, "count")
    for run in ("r~2", "r~3"):
        office.say("admit", terms, run=run)
        said = office.refusal("ask", terms, 1, "count", run=run)
        assert "was given to another attempt of this run, and is over 1 or more of 1 holders" in said
    assert office.entries.count("disclose") == 1


def test_attempts_that_are_open_side_by_side_cost_no_more_than_the_run(home: Home) -> None:
    """Each has set aside the whole of a budget of shares before any was charged."""
    office, terms = home(), asked(options={"adaptive": True})
    for number in range(1, 5):
        office.say("admit", terms, run=f"r~{number}")
    office.say("ask", terms, 1, "count", share=0.6, run="r~1")
    assert "its attempts took more" in office.refusal("ask", terms, 2, "count", share=0.6, run="r~2")
    office.say("ask", terms, 3, "count", share=0.39, run="r~3")
    for number in (2, 4):
        assert office.refusal("ask", terms, 4, "count", share=0.1, run=f"r~{number}")
    assert office.entries.count("charge") == 2


def test_attempts_that_are_open_side_by_side_are_charged_once_for_each_sum_of_a_fixed_budget(home: Home) -> None:
    office, terms = home(), asked()
    for number in (1, 2):
        office.say("admit", terms, run=f"r~{number}")
    first = arrays(office.say("ask", terms, 1, "count", run="r~1").packet)
    assert arrays(office.say("ask", terms, 1, "count", run="r~2").packet) == first
    office.say("ask", terms, 2, "income", run="r~2")
    office.say("ask", terms, 2, "income", run="r~1")
    assert office.entries.count("charge") == 2


def test_where_totals_may_be_over_other_holders_only_local_noise_is_given_again() -> None:
    """The difference of two totals would be one holder's figures with a share of the noise, or with none."""
    from statfed.core.resolve import resolve

    def repeatable(**more: Any) -> bool:
        holders = ("a", "b", "c", "d", "e", "f", "g")
        return resolve(query(**({"method": "count", "holders": holders} | more))).repeatable

    tolerant = {"name": "secure-aggregation", "minimum_holders": 5}
    whole = {"name": "secure-aggregation"}
    shared = {"epsilon": 1.0, "noise": "shared", "colluders": 1}
    assert not repeatable(protection=tolerant)
    assert not repeatable(protection=tolerant, privacy=shared)
    assert not repeatable(protection=tolerant, privacy={"epsilon": 1.0, "noise": "central"})
    assert repeatable(protection=tolerant, privacy={"epsilon": 1.0})
    assert repeatable(protection=whole)
    assert repeatable(protection=whole, privacy=shared)


def test_a_charge_without_an_answer_is_answered_once_and_no_lie_about_it_gives_a_second_one(home: Home) -> None:
    """Also where a charge is provoked to fail: what left is not computed anew for the charge that was made."""
    office, terms = home(), asked(options={"adaptive": True})
    office.say("admit", terms)
    first = arrays(office.say("ask", terms, 1, "count", share=0.4).packet)
    for done in (0, 1):
        assert office.refusal("ask", terms, 1, "count", share=0.4, done=done)
    assert office.refusal("ask", terms, 2, "count", share=0.9)  # more than is left: it fails after it was announced
    office.say("admit", terms, run="r~2", done=1)
    assert "was paid for" in office.refusal("ask", terms, 1, "count", share=0.4, run="r~2")
    office.say("ask", terms, 2, "count", share=0.4, run="r~2")
    assert office.entries.count("charge") == 2
    assert first


def test_a_holder_that_ends_between_charge_and_answer_answers_later_for_that_charge(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, terms = home(), asked()
    office.say("admit", terms)
    with monkeypatch.context() as patch:
        patch.setattr(Holder, "_found", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            office.say("ask", terms, 1, "count")
    assert office.entries[-1] == "charge"
    restarted(office)
    office.say("admit", terms, run="r~2")
    given = arrays(office.say("ask", terms, 1, "count", run="r~2").packet)
    assert office.entries.count("charge") == 1
    office.say("admit", terms, run="r~3")
    assert arrays(office.say("ask", terms, 1, "count", run="r~3").packet) == given
    assert office.entries.count("charge") == 1


def test_a_holder_that_ends_before_the_charge_charges_later(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it had announced was not paid for."""
    office, terms = home(), asked()
    office.say("admit", terms)
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "charge", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            office.say("ask", terms, 1, "count")
    restarted(office)
    office.say("admit", terms, run="r~2")
    office.say("ask", terms, 1, "count", run="r~2")
    assert office.entries.count("charge") == 1


def test_where_it_cannot_be_recorded_nothing_leaves_and_the_charge_is_not_lost(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    office, terms = home(), asked()
    office.say("admit", terms)
    full = OSError(28, "No space left on device")
    made, calls = os.fsync, iter((False, False, True))

    def fsync(descriptor: int) -> None:
        if next(calls):
            raise full
        made(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(EngineError, match="No space left on device; nothing was given"):
            office.say("ask", terms, 1, "count")
    office.say("admit", terms, run="r~2")
    office.say("ask", terms, 1, "count", run="r~2")
    assert office.entries.count("charge") == 1


def test_records_are_their_owners_alone_few_and_young(tmp_path: Path) -> None:
    kept = Repeats(tmp_path)
    one = Answered("study", "r", 1, "asked", found={"x": np.arange(3.0)}, course={1: Ask("a", {"b": np.ones(2)}, 0.5)})
    for number in range(MOST + 4):
        kept.write(replace(one, attempt=f"r{number}"))
        os.utime(kept._path(f"r{number}", "study"), (1e9 + number, 1e9 + number) if number < 3 else None)
    files = list((tmp_path / FOLDER).iterdir())
    assert len(files) <= MOST
    assert kept.read("r0", "study") is None
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    found = kept.read(f"r{MOST + 3}~7", "study")
    assert found is not None
    assert found.found is not None
    assert found.found["x"].tolist() == [0.0, 1.0, 2.0]
    assert (found.course[1].name, found.course[1].share, found.course[1].arrays["b"].tolist()) == ("a", 0.5, [1.0, 1.0])
    assert kept.read(f"r{MOST + 3}", "another") is None
    kept.forget(f"r{MOST + 3}", "study")
    assert kept.read(f"r{MOST + 3}", "study") is None


@pytest.mark.parametrize("days", [-1.0, 1.0])
def test_a_clock_that_is_wrong_by_a_day_loses_nothing(home: Home, days: float, monkeypatch: pytest.MonkeyPatch) -> None:
    office, terms = home(), asked()
    office.say("admit", terms)
    first = arrays(office.say("ask", terms, 1, "count").packet)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * 86_400)
    office.say("admit", exact(), run="another")
    office.say("ask", exact(), 1, "count", run="another")
    office.say("admit", terms, run="r~2")
    assert arrays(office.say("ask", terms, 1, "count", run="r~2").packet) == first


def test_a_folder_that_others_can_read_is_refused(home: Home) -> None:
    office = home()
    (office.home / FOLDER).mkdir(mode=0o755)
    (office.home / FOLDER).chmod(0o755)
    with pytest.raises(Refused, match="policy cannot be read"):
        office.say("admit", asked())
