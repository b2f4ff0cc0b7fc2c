"""A holder under studies of several asks: what is charged, what is refused before that."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.client.contributions import Contributions
from statfed.core.statement import Admission, Closing, Receipt
from statfed.core.terms import Terms
from tests.office import PRIVATE, Office, query
from tests.spender import installed
from tests.universe import people

Home = Callable[..., Office]


@pytest.fixture
def method() -> Iterator[str]:
    with installed() as name:
        yield name


@pytest.fixture
def home(tmp_path: Path, method: str) -> Iterator[Home]:
    made: list[Office] = []

    def make(**changes: Any) -> Office:
        made.append(Office(tmp_path / f"home-{len(made)}", people(200), **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever a holder's records are looked at for a contribution."""
    found: list[str] = []
    table = Contributions.table

    def noted(self: Contributions, run: str, *more: Any) -> Any:
        found.append(run)
        return table(self, run, *more)

    monkeypatch.setattr(Contributions, "table", noted)
    return found


def adaptive(*asks: tuple[str, float], **more: Any) -> Terms:
    return query(method="outsider", options={"asks": asks} if asks else {}, **(PRIVATE | more))


def scheduled(*asks: tuple[str, float], **more: Any) -> Terms:
    return query(method="outsider", options={"asks": asks, "adaptive": False}, **(PRIVATE | more))


# ---- shares that are chosen on the way


def test_a_holder_charges_each_share_until_its_study_s_budget_is_spent(home: Home, reads: list[str]) -> None:
    holder, asked = home(), adaptive()
    admission = holder.say("admit", asked).facts
    assert isinstance(admission, Admission)
    assert admission.epsilon == 1.0
    assert holder.entries == ["open", "reserve"]
    first = holder.say("ask", asked, 1, "count", share=0.6)
    assert isinstance(first.facts, Receipt)
    assert first.packet is not None
    assert np.asarray(first.packet["n"]).dtype == np.int64  # in whole units, with noise
    assert holder.entries == ["open", "reserve", "charge"]
    assert len(reads) == 1
    said = holder.refusal("ask", asked, 2, "income", share=0.5)
    assert re.match(
        r"round 2 of run r: got 0\.49\d+ of the study's budget; want at most the 0\.40\d+ that is left", said
    )
    assert holder.entries == ["open", "reserve", "charge"]
    assert len(reads) == 1
    holder.say("ask", asked, 2, "income", share=0.39)
    closing = holder.say("release", asked).facts
    assert isinstance(closing, Closing)
    assert holder.entries == ["open", "reserve", "charge", "charge", "release"]
    assert closing.study_epsilon is not None
    assert closing.history_epsilon is not None
    assert 0.95 < closing.study_epsilon <= 1.0
    assert closing.disclosures == 0


@pytest.mark.parametrize(
    ("ask", "number", "more", "message"),
    [
        ("count", 1, {"share": 0.0}, "share of the privacy budget: got 0; want more than 0"),
        ("count", 1, {}, "share of the privacy budget: got 0; want more than 0"),
        ("count", 1, {"share": float("nan")}, "statement not understood: share"),
        ("count", 1, {"share": float("inf")}, "statement not understood: share"),
        ("count", 1, {"share": -0.1}, "statement not understood: share"),
        ("count", 1, {"share": 1.1}, "statement not understood: share"),
        ("count", 1, {"share": "much"}, "statement not understood: share"),
        ("count", 1, {"share": 1e-15}, "want a larger epsilon or share"),
        ("rows", 1, {"share": 0.5}, "unknown ask: got 'rows'"),
        ("", 1, {"share": 0.5}, "unknown ask: got ''"),
        ("count", 0, {"share": 0.5}, "sum: got number 0; want 1 or more"),
        ("count", 7, {"share": 0.5}, "ask: got number 7; want 1 to 6"),
        ("count", 2, {"share": 0.5, "done": 2}, "sum: got number 2; want 3 or more"),
        ("count", 1, {"share": 0.5, "done": -1}, "statement not understood: done"),
        ("count", 1, {"share": 0.5, "outside": []}, "plugins: the coordinator runs none for this study"),
        ("count", 1, {"share": 0.5, "outside": ["method outsider of outsider 2.0"]}, "outsider 1.0"),
    ],
)
def test_what_is_no_ask_of_the_study_is_refused_before_anything_is_charged_or_read(
    home: Home, reads: list[str], ask: str, number: int, more: dict[str, Any], message: str
) -> None:
    holder, asked = home(), adaptive()
    holder.say("admit", asked)
    assert message in holder.refusal("ask", asked, number, ask, **more)
    assert holder.entries == ["open", "reserve"]
    assert reads == []
    holder.say("ask", asked, 1, "count", share=1.0)  # and the run goes on


def test_an_ask_is_answered_once_whatever_its_share(home: Home, reads: list[str]) -> None:
    holder, asked = home(), adaptive()
    holder.say("admit", asked)
    holder.say("ask", asked, 1, "count", share=0.1)
    for share in (0.1, 0.2):
        assert "round 1 of run r was already charged" in holder.refusal("ask", asked, 1, "income", share=share)
    assert "got 1 sums done; want 0" in holder.refusal("ask", asked, 2, "income", share=0.1, done=1)
    assert holder.entries == ["open", "reserve", "charge"]
    assert len(reads) == 1


@pytest.mark.parametrize("pure", [False, True])
def test_shares_add_up_over_the_attempts_of_a_run(home: Home, pure: bool) -> None:
    laplace = {"epsilon": 1.0, "delta": 0.0, "mechanism": "discrete-laplace"}
    holder, asked = home(), adaptive(**({"privacy": laplace} if pure else {}))
    spent, taken = 0, list[float]()
    for attempt, shares in enumerate(((0.5, 0.2), (0.2,), (0.1,)), start=1):
        run = "r" if attempt == 1 else f"r~{attempt}"
        holder.say("admit", asked, run=run, done=spent)
        if spent:
            share = 1.01 - sum((0.5, 0.2, 0.2, 0.1)[:spent])
            assert "of the study's budget" in holder.refusal("ask", asked, spent + 1, "income", share=share, run=run)
        for share in shares:
            spent += 1
            holder.say("ask", asked, spent, "income", share=share, run=run)
        closing = holder.say("release", asked, run=run).facts
        assert isinstance(closing, Closing)
        assert (closing.charged, closing.again) == (spent, spent)
        taken.append(closing.study_epsilon or 0.0)
    assert 0.98 <= taken[-1] <= 1.0 + 1e-9
    holder.say("admit", asked, run="r~4", done=spent)
    assert holder.refusal("ask", asked, spent + 1, "income", share=0.01, run="r~4", done=spent)


def test_shares_of_pure_privacy_add_up_to_its_epsilon(home: Home) -> None:
    holder, asked = home(), adaptive(privacy={"epsilon": 1.0, "delta": 0.0, "mechanism": "discrete-laplace"})
    holder.say("admit", asked)
    for number, share in enumerate((0.5, 0.25, 0.25), start=1):
        holder.say("ask", asked, number, "income", share=share)
    assert "of the study's budget" in holder.refusal("ask", asked, 4, "count", share=0.01)
    closing = holder.say("release", asked).facts
    assert isinstance(closing, Closing)
    assert closing.study_epsilon is not None
    assert 0.98 <= closing.study_epsilon <= 1.0 + 1e-9


def test_an_exact_study_of_an_adaptive_method_needs_no_shares(home: Home) -> None:
    holder, asked = home(), query(method="outsider")
    holder.say("admit", asked)
    for number in range(1, 9):  # beyond the most of a private one
        holder.say("ask", asked, number, "count")
    assert holder.entries == ["open", *["disclose"] * 8]


def test_a_budget_too_small_for_its_epsilon_in_shares_is_refused_in_words(home: Home) -> None:
    holder = home()
    said = holder.refusal("admit", adaptive(privacy={"epsilon": 1e-4, "delta": 1e-9}))
    assert "in shares; want a larger epsilon" in said
    assert holder.entries == []


# ---- asks that are fixed beforehand

ORDER = (("count", 0.3), ("income", 0.5), ("count", 0.3))
TWO = (("count", 0.5), ("income", 0.5))


def test_a_fixed_budget_is_charged_in_its_order_and_each_ask_once(home: Home, reads: list[str]) -> None:
    holder, asked = home(), scheduled(*TWO)
    admission = holder.say("admit", asked).facts
    assert isinstance(admission, Admission)
    assert admission.epsilon is not None
    assert 0.9 < admission.epsilon <= 1.0
    told = "want in this order count (1), income (1)"
    for ask, number in (("income", 1), ("count", 2), ("income", 3), ("rows", 1)):
        assert f"ask: got {ask} number {number}; {told}" in holder.refusal("ask", asked, number, ask)
    assert "sum: got number 0" in holder.refusal("ask", asked, 0, "count")
    assert (holder.entries, reads) == (["open", "reserve"], [])
    holder.say("ask", asked, 1, "count")
    assert told in holder.refusal("ask", asked, 1, "income")
    assert "already charged" in holder.refusal("ask", asked, 1, "count")
    holder.say("ask", asked, 2, "income", share=0.9)  # shares of a fixed budget are its own
    closing = holder.say("release", asked).facts
    assert isinstance(closing, Closing)
    assert closing.study_epsilon == pytest.approx(admission.epsilon)
    assert holder.entries == ["open", "reserve", "charge", "charge", "release"]


def test_a_run_that_goes_on_reserves_what_is_left_and_is_charged_for_nothing_again(home: Home) -> None:
    holder, asked = home(), scheduled(*TWO)
    holder.say("admit", asked)
    first = holder.say("ask", asked, 1, "count").packet
    holder.say("release", asked)
    holder.say("admit", asked, run="r~2", done=1)
    assert "sum: got number 1; want 2 or more" in holder.refusal("ask", asked, 1, "count", run="r~2", done=1)
    again = holder.say("ask", asked, 1, "count", run="r~2").packet  # as if nothing had been done
    assert first is not None
    assert again is not None
    assert {name: np.asarray(item).tobytes() for name, item in first.items()} == {
        name: np.asarray(item).tobytes() for name, item in again.items()
    }
    assert holder.entries == ["open", "reserve", "charge", "release", "reserve"]
    holder.say("ask", asked, 2, "income", run="r~2", done=1)
    assert "already charged" in holder.refusal("ask", asked, 2, "income", run="r~2", done=1)
    closing = holder.say("release", asked, run="r~2").facts
    assert isinstance(closing, Closing)
    assert closing.study_epsilon is not None
    assert closing.study_epsilon <= 1.0
    admission = holder.say("admit", asked, run="r~3", done=2).facts
    assert isinstance(admission, Admission)
    assert admission.epsilon == 0.0  # nothing is left to ask
    assert holder.refusal("ask", asked, 2, "income", run="r~3", done=2)
    assert holder.entries.count("charge") == 2


def test_shares_of_more_than_the_whole_budget_are_refused_at_admission(home: Home) -> None:
    holder = home()
    said = holder.refusal("admit", scheduled(("count", 0.9), ("income", 0.9)))
    assert "privacy.epsilon: got 1; want at least 1." in said
    assert holder.entries == []


def test_one_ask_named_twice_is_priced_and_reserved_alike_each_time(home: Home) -> None:
    holder, asked = home(), scheduled(*ORDER, privacy={"epsilon": 1.2, "delta": 1e-6})
    holder.say("admit", asked)
    for number, (ask, _) in enumerate(ORDER, start=1):
        holder.say("ask", asked, number, ask)
    closing = holder.say("release", asked).facts
    assert isinstance(closing, Closing)
    assert closing.study_epsilon is not None
    assert closing.study_epsilon <= 1.2
