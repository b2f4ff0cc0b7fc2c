"""A holder: what it refuses, what its ledger says afterwards, and what its refusals tell."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from statfed.client.holder import Holder
from statfed.client.protecting import MOST
from statfed.core import VERSION
from statfed.core.statement import Admission, Closing, Receipt, Statement, Step
from statfed.core.terms import Terms, parse_condition
from statfed.server.grid._holder_app import holder_app
from statfed.server.grid.inprocess import InProcessGrid
from statfed.server.packets import arrays_out
from tests.federate import codebook_of
from tests.office import MEANS, PRIVATE, Office, Open, query
from tests.universe import people


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Open]:
    made: list[Office] = []

    def make(frame: pd.DataFrame | None = None, name: str = "home", **changes: dict[str, Any]) -> Office:
        made.append(Office(tmp_path / name, people(200) if frame is None else frame, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "method": (MEANS, {"allow": {"methods": ["table"]}}, "method: got describe, not allowed; want table"),
    "column": (MEANS, {"allow": {"columns": ["age"]}}, "columns: got income, not allowed; want only age"),
    "column of a condition": (
        MEANS | {"where": ["age >= 18"]},
        {"allow": {"columns": ["income"]}},
        "columns: got age, not allowed; want only income",
    ),
    "exact": (MEANS, {"allow": {"without_privacy": False}}, "a statistic without differential privacy is not allowed"),
    "public seed": (MEANS | {"seed": 1}, {}, "seed: got a public seed"),
    "protection": (
        MEANS,
        {"allow": {"protections": ["secure-aggregation"]}},
        "protection: got plain, not allowed; want secure-aggregation",
    ),
    "other holders": (MEANS | {"holders": ("a",)}, {}, "holder office is not among the study's holders"),
    "unit": (
        {"method": "count", "privacy": {"epsilon": 1.0, "unit": "person"}},
        {},
        "this dataset's budget is kept per record; got a study per person",
    ),
    "few records": (MEANS, {"minimum": {"records": 7919}}, "minimum number of records"),
    "few holders": (MEANS, {"minimum": {"holders": 7919}}, "minimum number of holders"),
    "delta": (
        {"method": "count", "privacy": {"epsilon": 1.0, "delta": 0.01}},
        {},
        "privacy.delta: got 0.01; want less than 1/200",
    ),
}


@pytest.mark.parametrize("case", list(REFUSED))
@pytest.mark.parametrize("step", ["admit", "ask"])
def test_what_the_policy_does_not_allow_is_refused_with_the_reason_and_written_nowhere(
    office: Open, case: str, step: Step
) -> None:
    terms, changes, reason = REFUSED[case]
    holder = office(**changes)
    said = holder.refusal(step, query(**terms), 1, "means", run=step)
    assert reason in said
    assert "7919" not in said
    assert holder.entries == []


def test_an_exact_query_is_disclosed_once_per_sum_and_a_replayed_number_refused(office: Open) -> None:
    holder, exact = office(), query(**MEANS)
    admission = holder.say("admit", exact).facts
    assert isinstance(admission, Admission)
    assert (admission.epsilon, admission.delta) == (None, None)
    assert holder.entries == ["open"]
    first = holder.say("ask", exact, 1, "means")
    assert isinstance(first.facts, Receipt)
    assert first.packet is not None
    assert (first.facts.holder, first.facts.round, first.facts.rules) == ("office", 1, ())
    assert int(np.asarray(first.packet["count"])[0]) == 200
    assert "round 1 of run r was already disclosed" in holder.refusal("ask", exact, 1, "means")
    holder.say("ask", exact, 2, "squares", {"mean": np.array([1.0])})
    closing = holder.say("release", exact).facts
    assert isinstance(closing, Closing)
    assert (closing.disclosures, closing.history_epsilon, closing.study_epsilon, closing.unit) == (2, None, None, None)
    assert holder.entries == ["open", "disclose", "disclose"]


def test_a_private_query_is_reserved_charged_and_released_in_that_order_and_at_the_epsilon_asked_for(
    office: Open,
) -> None:
    holder, private = office(), query(method="count", **PRIVATE)
    admission = holder.say("admit", private).facts
    assert isinstance(admission, Admission)
    assert admission.epsilon is not None
    assert 0.98 <= admission.epsilon <= 1.0
    assert holder.entries == ["open", "reserve"]
    answer = holder.say("ask", private, 1, "noisy")
    assert answer.packet is not None
    assert all(np.asarray(array).dtype == np.int64 for array in answer.packet.values())  # whole grid units
    closing = holder.say("release", private).facts
    assert isinstance(closing, Closing)
    assert closing.study_epsilon == pytest.approx(admission.epsilon)
    assert closing.history_epsilon is not None
    assert closing.disclosures == 0
    assert holder.entries == ["open", "reserve", "charge", "release"]


def test_under_privacy_only_the_one_ask_is_answered_as_often_as_reserved(office: Open) -> None:
    holder, private = office(), query(method="count", **PRIVATE)
    assert "got no outstanding reservation" in holder.refusal("ask", private, 1, "noisy")
    holder.say("admit", private)
    before = holder.entries
    assert "ask: got sums number 1; want in this order noisy (1)" in holder.refusal("ask", private, 1, "sums")
    assert "ask: got noisy number 2; want in this order noisy (1)" in holder.refusal("ask", private, 2, "noisy")
    assert "sum: got number 0; want 1 or more" in holder.refusal("ask", private, 0, "noisy")
    other = query(method="count", privacy={"epsilon": 0.5})
    assert "describes the run otherwise than its first one did" in holder.refusal("ask", other, 1, "noisy")
    holder.holder._protecting._open.clear()  # as after a restart
    assert "got no outstanding reservation of this study" in holder.refusal("ask", other, 1, "noisy")
    holder.holder._protecting._open.clear()
    assert holder.entries == before
    holder.say("ask", private, 1, "noisy")
    assert "already charged" in holder.refusal("ask", private, 1, "noisy")
    assert holder.entries == [*before, "charge"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_public_parameters_that_are_not_finite_are_refused_before_anything_is_disclosed(
    office: Open, value: float
) -> None:
    holder, exact = office(), query(**MEANS)
    holder.say("admit", exact)
    said = holder.refusal("ask", exact, 1, "squares", {"mean": np.array([value])})
    assert said == "squares: mean: got values that are not finite; want finite numbers"
    assert holder.entries == ["open"]


def test_an_ask_that_the_analysis_does_not_know_discloses_nothing(office: Open) -> None:
    holder, exact = office(), query(**MEANS)
    holder.say("admit", exact)
    assert "unknown ask: got 'rows'" in holder.refusal("ask", exact, 1, "rows")
    assert holder.entries == ["open"]


def test_every_mismatch_is_listed_at_once_and_the_reservation_freed(office: Open) -> None:
    frame = people(200)
    frame.loc[3, "region"] = "atlantis"
    frame.loc[4, "income"] = 1234567.25
    frame = frame.drop(columns="hours")
    holder = office(frame)
    terms = {"method": "mean", "options": {"columns": ["income", "hours"], "by": ["region"]}}
    said = holder.refusal("admit", query(**terms, **PRIVATE))
    assert "region: got a category outside the codebook; want one of north, south, west" in said
    assert "income: got values above the codebook's bound; want at most 200000" in said
    assert "hours: not a column of the data" in said
    assert "atlantis" not in said
    assert "1234567" not in said
    assert holder.entries == ["open", "reserve", "release"]


def test_an_exhausted_budget_is_refused_with_the_numbers_and_costs_nothing(office: Open) -> None:
    holder, private = office(budget={"epsilon": 0.5}), query(method="count", **PRIVATE)
    said = holder.refusal("admit", private)
    assert re.search(r"asked epsilon 1, .* want at most 100 % of epsilon 0\.5 at delta 1e-05 \(spent 0, ", said)
    assert "left 0.5" in said
    assert holder.entries == ["open"]


@pytest.mark.parametrize("private", [True, False])
def test_data_that_change_during_a_run_do_not_slip_past_the_checks(office: Open, private: bool) -> None:
    """Noise is calibrated from the codebook's bounds; two sums of a run have to be about the same records."""
    holder = office()
    asked = query(method="total", options={"columns": ["income"]}, **(PRIVATE if private else {}))
    holder.say("admit", asked)
    changed = holder.frame.copy()
    changed.loc[0, "income"] = 2e6  # ten times the bound
    holder.write(changed)
    assert "the data changed since this run began" in holder.refusal("ask", asked, 1, "noisy" if private else "sums")
    assert holder.entries == (["open", "reserve", "charge"] if private else ["open"])


@pytest.mark.parametrize("terms", [{}, PRIVATE])
def test_a_holder_that_was_restarted_after_admission_checks_its_data_again(office: Open, terms: dict[str, Any]) -> None:
    holder = office()
    asked = query(method="total", options={"columns": ["income"]}, **terms)
    holder.say("admit", asked)
    changed = holder.frame.copy()
    changed.loc[0, "income"] = 2e6
    holder.write(changed)
    holder.close()
    holder.holder = Holder(holder.home)
    said = holder.refusal("ask", asked, 1, "noisy" if terms else "sums")
    assert "income: got values above the codebook's bound" in said


def test_a_policy_that_is_tightened_during_a_run_holds_from_the_next_sum_on(office: Open) -> None:
    holder, exact = office(), query(**MEANS)
    holder.say("admit", exact)
    holder.say("ask", exact, 1, "means")
    holder.policy(allow={"without_privacy": False})
    assert "not allowed" in holder.refusal("ask", exact, 2, "squares", {"mean": np.array([1.0])})
    assert holder.entries == ["open", "disclose"]


SMALL = codebook_of({"x": ("number", 0, 100), "g": ["u", "v"]})


def refused_by_rules(office: Open, name: str, minimum: int) -> tuple[str, Office]:
    frame = pd.DataFrame({"x": [float(minimum)] * 60, "g": ["u"] * 57 + ["v"] * 3})
    dataset = {"records": 60, "persons": 60}
    holder = office(frame, name, dataset=dataset, disclosure={"minimum_frequency": minimum})
    asked = query(method="table", options={"rows": ["g"]}, codebook=SMALL)
    holder.say("admit", asked)
    return holder.refusal("ask", asked, 1, "cells"), holder


def test_a_small_cell_is_refused_in_the_same_words_whatever_the_secret_threshold(office: Open) -> None:
    low, holder = refused_by_rules(office, "low", 4)
    high, _ = refused_by_rules(office, "high", 50)
    assert low == high == "not allowed by this holder's disclosure rules (cells):\n- minimum frequency: g"
    assert holder.entries == ["open"]


def test_a_population_that_differs_by_a_few_records_is_refused_in_another_run_too(office: Open) -> None:
    frame = people(200)
    few = int(np.sort(frame["age"])[-4])
    holder = office(frame, disclosure={"minimum_frequency": 10})
    everybody, all_but_few = query(**MEANS), query(**MEANS, where=[f"age < {few}"])
    for asked, run in ((everybody, "one"), (all_but_few, "two")):
        holder.say("admit", asked, run=run)
        if run == "one":
            holder.say("ask", asked, 1, "means", run=run)
            holder.say("release", asked, run=run)
    said = holder.refusal("ask", all_but_few, 1, "means", run="two")
    assert said.startswith("not allowed by this holder's differencing rule: ")
    assert not re.search(r"\d", said)
    assert holder.entries == ["open", "disclose"]


SENTINELS = ("atlantis", "7777", "88.125", "p-secret")


def test_no_error_that_leaves_a_holder_holds_anything_of_its_data(office: Open) -> None:
    frame = people(200)
    secrets: dict[str, Any] = {"income": 7777777.0, "hours": 88.125, "person": "p-secret", "region": "atlantis"}
    for name, value in secrets.items():
        frame.loc[0, name] = value
    home = office(frame, disclosure={"minimum_frequency": 150, "p_percent": 10.0}).home
    grid = InProcessGrid(holder_app(), {"office": str(home)}, wire=True)
    region = {"method": "table", "options": {"rows": ["region"], "columns": ["sex"]}}
    small = {"method": "table", "options": {"rows": ["sex"]}}
    person = {"method": "count", "privacy": {"epsilon": 1.0, "unit": "person"}}
    age = {"method": "describe", "options": {"columns": ["age"]}}
    asked: list[tuple[Step, Terms, str]] = [
        ("admit", query(**region), ""),
        ("ask", query(**region), "cells"),
        ("admit", query(**MEANS), ""),
        ("ask", query(**MEANS), "means"),
        ("admit", query(**person), ""),
        ("ask", query(**small), "cells"),
        ("ask", query(**age), "rows"),
        ("ask", query(**age), "squares"),
    ]
    said = []
    for number, (step, terms, ask) in enumerate(asked, start=1):
        sizes = dict.fromkeys(terms.holders, 200)
        made = Statement(version=VERSION, run=f"r{number}", step=step, round=1, ask=ask, sizes=sizes, terms=terms)
        text = made.model_dump_json()
        content = RecordDict({"config": ConfigRecord({"statement": text})})
        content["arrays"] = arrays_out({"mean": np.zeros(7)})  # of the wrong length: an internal error at the holder
        (reply,) = grid.send_and_receive([Message(content, grid.nodes["office"], f"query.{step}")])
        said.append((reply.error.reason or "") if reply.has_error() else "")
    assert all(said)
    assert {json.loads(text)["kind"] for text in said} == {"UsageError", "Refused"}
    for text in said:
        assert not any(sentinel in text for sentinel in SENTINELS), text
        assert "Traceback" not in text


def test_a_policy_tightened_during_a_run_still_frees_what_was_reserved(office: Open) -> None:
    holder = office()
    asked = query(method="count", **PRIVATE)
    holder.say("admit", asked)
    assert holder.entries[-1] == "reserve"
    holder.policy(allow={"methods": ["table"]})
    assert "method: got count, not allowed" in holder.refusal("ask", asked, 1, "noisy")
    closing = holder.say("release", asked).facts
    assert isinstance(closing, Closing)
    assert holder.entries[-1] == "release"


def ruled(office: Open, minimum: int = 5) -> Office:
    frame = pd.DataFrame({"x": [float(i) for i in range(60)], "g": ["u"] * 40 + ["v"] * 20})
    dataset = {"records": 60, "persons": 60}
    return office(frame, dataset=dataset, disclosure={"minimum_frequency": minimum})


def test_rules_that_one_query_passed_are_not_passed_for_another_under_the_same_run_name(office: Open) -> None:
    holder = ruled(office)
    asked = query(method="total", options={"columns": ["x"]}, codebook=SMALL)
    tiny = query(method="total", options={"columns": ["x"]}, codebook=SMALL.model_copy())
    where = tuple(parse_condition(text, SMALL) for text in ("x >= 57",))
    tiny = tiny.model_copy(update={"where": where})
    holder.say("admit", asked)
    holder.say("ask", asked, 1, "sums")
    assert "describes the run otherwise than its first one did" in holder.refusal("ask", tiny, 2, "sums")
    holder.holder._protecting._open.clear()  # the rules do not rely on that guard
    assert "minimum frequency" in holder.refusal("ask", tiny, 2, "sums")
    nearly = asked.model_copy(update={"where": tuple(parse_condition(text, SMALL) for text in ("x >= 1",))})
    holder.holder._protecting._open.clear()
    assert "differencing rule" in holder.refusal("ask", nearly, 2, "sums")
    assert holder.entries.count("disclose") == 1


def test_rules_tightened_during_a_run_hold_from_the_next_sum_on(office: Open) -> None:
    holder = ruled(office)
    asked = query(method="total", options={"columns": ["x"]}, codebook=SMALL)
    holder.say("admit", asked)
    holder.say("ask", asked, 1, "sums")
    dataset = {"records": 60, "persons": 60}
    holder.policy(dataset=dataset, disclosure={"minimum_frequency": 61})
    assert "minimum frequency" in holder.refusal("ask", asked, 2, "squares", {"centre": np.zeros(1)})


def test_pure_privacy_is_accounted_as_such_to_the_end(office: Open) -> None:
    pure = {"epsilon": 1.0, "delta": 0.0, "mechanism": "discrete-laplace"}
    holder, asked = office(), query(method="count", privacy=pure)
    admitted = holder.say("admit", asked).facts
    holder.say("ask", asked, 1, "noisy")
    closing = holder.say("release", asked).facts
    assert isinstance(admitted, Admission)
    assert isinstance(closing, Closing)
    assert closing.study_epsilon == pytest.approx(admitted.epsilon, rel=1e-9)
    assert closing.study_epsilon == pytest.approx(1.0, rel=0.02)


def test_a_run_that_has_ended_does_not_begin_again_under_its_name(office: Open) -> None:
    holder = ruled(office)
    asked = query(method="total", options={"columns": ["x"]}, codebook=SMALL)
    holder.say("admit", asked)
    holder.say("ask", asked, 1, "sums")
    holder.say("release", asked)
    holder.say("admit", asked)
    assert "this run has ended here" in holder.refusal("ask", asked, 2, "sums")
    protecting = holder.holder._protecting
    for number in range(MOST + 1):  # the oldest is forgotten, and then it has ended too
        holder.say("ask", asked, 1, "sums", run=f"run-{number}")
    assert "this run has ended here" in holder.refusal("ask", asked, 2, "sums", run="run-0")
    assert len(protecting._open) == MOST
