"""Dominance rules on pooled cells, decided by compute nodes: from a question to a released table, against pandas."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.ledger import read_only
from statfed.core import method as contract
from statfed.core.applicability import obstacles
from statfed.core.codebook import Codebook
from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import layout_of
from statfed.core.method import Arrays, Ask, Part, read_question, summed
from statfed.core.protection import Coordinator, Rounds
from statfed.core.randomness import stream
from statfed.core.result import Result, Row
from statfed.core.study import make_study
from statfed.core.terms import Protection, Terms
from statfed.federation import Federation
from statfed.federation.report import render
from statfed.server import driver
from statfed.server.disclosure.release import release
from statfed.strategies.analyses import table as tables
from statfed.strategies.analyses._contributors import contributors
from statfed.strategies.analyses._margins import views
from statfed.strategies.protections import multi_party
from statfed.strategies.protections._mpc_functions import FUNCTIONS
from tests.federate import codebook_of, drive, table_of

BRANCHES = {"A1": "A", "A2": "A", "B1": "B", "B2": "B"}
COLUMNS: dict[str, Any] = {
    "branch": {"type": "category", "categories": [*BRANCHES, "C"], "parents": BRANCHES},
    "size": ["small", "large"],
    "turnover": ("number", 0, 1000),
    "net": ("number", -1000, 1000),
    "w": {"type": "number", "low": 0.5, "high": 4, "role": "weight"},
}
RECORDS = codebook_of(COLUMNS)
FIRMS = codebook_of(COLUMNS | {"firm": {"type": "id", "role": "enterprise"}})
RULES = Rules(minimum_frequency=None, dominance_n=2, dominance_k=60.0, p_percent=30.0)
HOLDERS = 3


def firms(n: int = 240, seed: int = 3) -> pd.DataFrame:
    """Records of firms, each firm at the holder `at`: skewed turnover, ties, a missing id, an empty row of cells."""
    rng = np.random.default_rng(seed)
    firm = (rng.random(n) ** 3 * n / 3).astype(int)  # few have many records
    frame = pd.DataFrame(
        {
            "branch": rng.choice(list(BRANCHES), n, p=[0.45, 0.15, 0.3, 0.1]),
            "size": rng.choice(["small", "large"], n, p=[0.8, 0.2]),
            "turnover": (rng.pareto(1.2, n) * 20).clip(0, 1000).round(2),
            "w": rng.uniform(0.5, 4, n).round(2),
            "firm": [f"f{i}" for i in firm],
            "at": firm % HOLDERS,
        }
    )
    tied = (frame["branch"] == "B2") & (frame["size"] == "large")
    return frame.assign(turnover=frame["turnover"].where(~tied, 250.0), net=1.0)


def at_holders(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The frame by holder."""
    return {f"h{i}": frame[frame["at"] == i].drop(columns="at").reset_index(drop=True) for i in range(HOLDERS)}


def unsafe(amounts: "pd.Series[float]", rules: Rules = RULES) -> bool:
    """The rules on the contributors of one pooled cell, in the words of the handbook."""
    ranked = amounts.sort_values(ascending=False).to_numpy()
    total, first = ranked.sum(), ranked[:1].sum()
    n_k = rules.dominance_k is not None and ranked[: rules.dominance_n].sum() > rules.dominance_k / 100 * total
    p = rules.p_percent is not None and total - ranked[:2].sum() < rules.p_percent / 100 * first
    return bool(n_k or p)


def inside(frame: pd.DataFrame, row: Row) -> pd.DataFrame:
    """The records of a cell, margin or subtotal."""
    for name in ("branch", "size"):
        if row.get(name) is not None:
            code = row[name]
            frame = frame[(frame[name] == code) | (frame[name].map(BRANCHES) == code if name == "branch" else False)]
    return frame


def rows_of(result: Result) -> list[Row]:
    return [*result.tables["cells"], *result.tables["margins"]]


def in_clear(sent: Mapping[str, Arrays], parts: Mapping[str, Part], options: Any, function: str) -> Arrays:
    """What the coordinator would get, without sharing."""
    if "largest" not in parts:
        return summed(sent, parts)
    layout = layout_of(parts, dict.fromkeys(sent, 1000))
    cells = parts["total"].shape[0]
    held = []
    for arrays in sent.values():
        one = layout.encode(arrays).astype(object)  # slots in the order of their names: largest, then total
        held.append({"largest": one[: 2 * cells].reshape(2, cells), "total": one[2 * cells :].reshape(1, cells)})
    found = np.array([FUNCTIONS[function].compute(held, options.limits())[0]])
    return multi_party.opened(function, found, layout, len(sent), options.limits())


def decided(frames: Sequence[pd.DataFrame], codebook: Codebook, rules: Rules = RULES, **options: Any) -> Result:
    """A table before its release, with verdicts, from both halves in memory."""
    holders = {f"h{i}": table_of(frame, codebook) for i, frame in enumerate(frames)}
    study = make_study(study_of(rules, **options) | {"holders": dict.fromkeys(holders, "x")})
    query = study.terms(codebook)
    module, question = read_question(query)
    (function,) = contract.functions_of(question).values()
    read = multi_party.Options.model_validate(query.protection.options)
    return drive(module, question, holders, lambda sent, parts: in_clear(sent, parts, read, function))


def study_of(rules: Rules = RULES, **options: Any) -> dict[str, Any]:
    table = {"rows": ["branch"], "columns": ["size"], "value": "turnover"} | options
    named = {"method": "table", "options": table, "disclosure": rules, "protection": {"name": "multi-party"}}
    return named | {"holders": {f"h{i}": "x.csv" for i in range(HOLDERS)}}


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    """One run of the whole path, with real compute processes, on firms that lie with one holder each."""
    with Federation(at_holders(firms()), FIRMS, seed=1, protection="multi-party", disclosure=RULES) as made:
        made.table("branch", "size", value="turnover", nested_enterprises=True)
        yield made


def test_a_released_table_hides_exactly_the_rows_that_the_pooled_contributors_make_unsafe(
    federation: Federation,
) -> None:
    answer, frame = federation.last, firms()
    assert answer is not None
    found, want = [], []
    for row in rows_of(answer.result):
        found.append(row["status"] == "suppressed")
        want.append(unsafe(inside(frame, row).groupby("firm")["turnover"].sum()))
        assert (row["total"] is None) == (row["status"] != "released")
        assert not any(key.startswith("dominance") for key in row)
    assert all(hidden for hidden, bad in zip(found, want, strict=True) if bad)
    assert 0 < sum(want) <= sum(found) < len(want)
    rule = "(n,k) dominance or p% rule, decided by the compute nodes"
    assert answer.result.disclosure["rules"] == [rule]
    assert not answer.result.disclosure["not_evaluated"]


def test_holders_agree_to_the_rules_and_record_what_they_gave_for_them(federation: Federation) -> None:
    answer = federation.last
    assert answer is not None
    assert answer.terms.protection.options == {"functions": ["dominance"], "n": 2, "k": 60.0, "p": 30.0}
    assert [one.ask for one in answer.sums] == ["cells", "contributors"]
    assert {closing.disclosures for closing in answer.spending} == {2}
    (home,) = (federation._workspace / "tables").glob("h0-*")
    with read_only(home / "ledger.sqlite") as ledger:
        notes = [str(entry) for entry in ledger.entries()]
    assert any("table: contributors without noise, for dominance by the protection" in note for note in notes)
    learned = [row.learns for row in answer.learns if row.role == "coordinator"]
    assert any(what.startswith("dominance: which cells fail") for what in learned)
    assert ("all parties", "the parameters of the dominance rules") in {(r.role, r.learns) for r in answer.learns}


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("codebook", [RECORDS, FIRMS], ids=["records", "firms"])
def test_verdicts_are_those_of_pooled_contributors_in_cells_margins_and_subtotals(
    codebook: Codebook, weight: str | None
) -> None:
    frame = firms(400, 5)
    strict = RULES.model_copy(update={"dominance_k": 20.0})
    result = decided(list(at_holders(frame).values()), codebook, strict, weight=weight, nested_enterprises=True)
    amount = frame["turnover"] * (frame["w"] if weight else 1.0)
    who = frame["firm"] if codebook is FIRMS else frame.index.to_series()
    rows = rows_of(result)
    assert len(rows) == 18 + 6  # cells and margins, and subtotals of A and B
    by_record = []
    for row in rows:
        part = inside(frame, row).index
        by_record.append(unsafe(amount[part], strict))
        assert row["dominance_decided"] == unsafe(amount[part].groupby(who[part]).sum(), strict), row
    assert (by_record == [row["dominance_decided"] for row in rows]) == (codebook is RECORDS)
    assert not any(key.startswith("dominance_bound") for key in rows[0])
    empty = [row for row in rows if row["branch"] == "C"]
    assert empty
    assert not any(row["count"] or row["dominance_decided"] for row in empty)


def test_records_without_an_enterprise_count_as_one_contributor() -> None:
    frame = firms(90, 7)
    frame["firm"] = frame["firm"].where(frame["branch"] != "A1")
    result = decided([frame], FIRMS, nested_enterprises=True)
    assert all(row["dominance_decided"] for row in result.tables["cells"] if row["branch"] == "A1")


def test_an_enterprise_at_several_holders_is_found_unless_somebody_declares_that_there_is_none() -> None:
    """One firm has nearly everything in A1, in equal parts at each holder, among others that are small."""
    small = pd.DataFrame({"branch": "A1", "size": "small", "turnover": [30.0] * 6, "firm": list("abcdef")})
    big = pd.DataFrame({"branch": ["A1"], "size": ["small"], "turnover": [900.0], "firm": ["big"]})
    frames = [pd.concat([small.assign(firm=small["firm"] + str(i)), big]) for i in range(HOLDERS)]
    pooled = pd.concat(frames)
    rules = Rules(minimum_frequency=None, dominance_n=1, dominance_k=50.0, p_percent=None)
    assert unsafe(pooled.groupby("firm")["turnover"].sum(), rules)
    assert decided(frames, FIRMS, rules).tables["cells"][0]["dominance_decided"]
    assert not decided(frames, FIRMS, rules, nested_enterprises=True).tables["cells"][0]["dominance_decided"]


@pytest.mark.parametrize("seed", range(6))
def test_with_enterprises_anywhere_no_row_that_is_unsafe_passes(seed: int) -> None:
    frame = firms(300, seed)
    frame["at"] = np.random.default_rng(seed).integers(0, HOLDERS, len(frame))
    result = decided(list(at_holders(frame).values()), FIRMS)
    verdicts = {
        (bool(row["dominance_decided"]), unsafe(inside(frame, row).groupby("firm")["turnover"].sum()))
        for row in rows_of(result)
    }
    assert (False, True) not in verdicts
    assert (False, False) in verdicts


def query_of(rules: Rules = RULES, protection: Mapping[str, Any] | None = None, **options: Any) -> Terms:
    named = study_of(rules, **options) | ({"protection": dict(protection)} if protection else {})
    return make_study(named).terms(FIRMS)


@pytest.mark.parametrize(
    ("query", "function"),
    [
        (query_of(), "dominance-spanning"),
        (query_of(nested_enterprises=True), "dominance"),
        (query_of(Rules(dominance_k=None)), "dominance-spanning"),
        (query_of(OFF), None),
        (query_of(value=None), None),
        (query_of(value="net"), None),
        (query_of(protection={"name": "secure-aggregation"}), None),
        (query_of(protection={"name": "multi-party", "options": {"functions": []}}), None),
    ],
    ids=["any", "nested", "p% alone", "no rules", "counts", "negative", "sums only", "declined"],
)
def test_a_query_agrees_to_the_function_that_its_rules_need_and_to_no_other(query: Terms, function: str | None) -> None:
    module, question = read_question(query)
    assert list(contract.functions_of(question).values()) == ([function] if function else [])
    assert list(query.protection.options.get("functions", ())) == ([function] if function else [])
    powers = "power0" in module.parts(question, Ask("cells"))
    assert powers == (function is None and query.options["value"] == "turnover")
    assert not obstacles(query)
    if function is None:
        with pytest.raises(UsageError, match="unknown ask"):
            module.parts(question, Ask("contributors"))


def test_rules_are_those_of_the_release_and_part_of_what_holders_agree_to() -> None:
    assert query_of().digest() != query_of(Rules(minimum_frequency=None, dominance_k=61.0, p_percent=30.0)).digest()
    other = {"name": "multi-party", "options": {"k": 80.0}}
    with pytest.raises(UsageError, match=r"options.k: got 80.0; want that of \[disclosure\], or none"):
        query_of(protection=other)
    assert query_of(protection={"name": "multi-party", "options": {"k": 60.0}}).protection.options["k"] == 60.0
    with pytest.raises(UsageError, match="less than or equal to 8"):
        obstacles(query_of(Rules(dominance_n=9)))


def test_a_coordinator_that_wants_contributors_added_up_is_refused_by_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(coordinator: Coordinator, layout: Any, function: str = "") -> Rounds:
        return coordinator.total(layout)

    monkeypatch.setattr(driver, "formed", greedy)
    with (
        Federation(at_holders(firms()), FIRMS, seed=1, protection="multi-party", disclosure=RULES) as made,
        pytest.raises(Refused, match="got sum of what the analysis gives for dominance-spanning"),
    ):
        made.table("branch", "size", value="turnover")


def test_an_analysis_that_needs_a_function_is_refused_under_sums_with_a_choice_that_applies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "functions", lambda _: {"middle": "median"})
    (obstacle,) = obstacles(query_of(OFF, {"name": "secure-aggregation"}))
    assert obstacle.reason == (
        "table: needs median of holders' figures, but protection secure-aggregation forms sums only"
    )
    (choice,) = obstacle.choices
    assert isinstance(choice.then, Terms)
    assert choice.then.protection == Protection(name="multi-party", options={"functions": ["median"]})
    declined = {"name": "multi-party", "options": {"functions": ["maximum"]}}
    (obstacle,) = obstacles(query_of(OFF, declined))
    assert obstacle.reason == "protection.options.functions: got maximum for table"
    assert [choice.text for choice in obstacle.choices] == ["protection.options.functions maximum, median"]


def released(result: Result, rules: Rules) -> Result:
    return release(result, FIRMS, rules, source=stream(1, "release"), seconds=2.0)


def test_a_release_takes_verdicts_on_all_rows_or_none_and_does_not_round_what_is_dominated() -> None:
    result = decided(list(at_holders(firms()).values()), FIRMS, nested_enterprises=True)
    cells = [dict(row) for row in result.tables["cells"]]
    del cells[2]["dominance_decided"]
    with pytest.raises(EngineError, match="verdict of the compute nodes on some rows only"):
        released(result.with_(tables={"cells": cells, "margins": result.tables["margins"]}), RULES)
    with pytest.raises(UsageError, match="decided by the compute nodes; want suppress"):
        released(result, RULES.model_copy(update={"method": "round"}))
    one = released(result, RULES.model_copy(update={"p_percent": None}))
    assert one.disclosure["rules"] == ["(n,k) dominance, decided by the compute nodes"]
    assert not released(result, OFF).disclosure["rules"]


def test_a_holder_gives_the_same_whatever_its_engine_and_zeros_when_it_is_empty() -> None:
    module, question = read_question(query_of())
    ask, frame = Ask("contributors"), firms().drop(columns="at")
    held = table_of(frame, FIRMS)
    one = module.contribute(held, question, ask)
    other = module.contribute(replace(held, embedded=False), question, ask)
    nothing = module.contribute(table_of(frame.iloc[:0], FIRMS), question, ask)
    assert (one["largest"][0] >= one["largest"][1]).all()
    for name, part in module.parts(question, ask).items():
        assert np.shape(one[name]) == part.shape
        np.testing.assert_allclose(other[name], one[name], rtol=1e-12)
        assert not np.any(nothing[name])


def test_no_record_moves_what_a_holder_gives_by_more_than_its_bound() -> None:
    module, question = read_question(query_of(weight="w"))
    ask, frame = Ask("contributors"), firms(30).drop(columns="at")
    whole = module.contribute(table_of(frame, FIRMS), question, ask)
    for i in range(0, 30, 6):
        rest = module.contribute(table_of(frame.drop(index=i), FIRMS), question, ask)
        for name, part in module.parts(question, ask).items():
            assert (np.abs(whole[name] - rest[name]) <= part.bound).all()


def test_subtotals_of_subtotals_count_every_record_below_them_once() -> None:
    parents = {"A11": "A1", "A12": "A1", "A1": "A", "A2": "A"}
    branch = {"type": "category", "categories": [*parents, "B"], "parents": parents}
    codebook = codebook_of(COLUMNS | {"branch": branch, "firm": {"type": "id", "role": "enterprise"}})
    frame = firms(80).assign(branch=np.random.default_rng(1).choice([*parents, "B"], 80))
    found = contributors(table_of(frame, codebook), ("branch",), ibis._["turnover"])
    below = {"A1": ["A1", "A11", "A12"], "A": ["A1", "A11", "A12", "A2"]}
    codes = [[code] for code in branch["categories"]] + [[*parents, "B"]]
    (view,) = (view for view in views(codebook, ("branch",)) if view.grouped)
    for i, members in enumerate(codes + [below[code] for code in view.codes[0]]):
        sums = frame[frame["branch"].isin(members)].groupby("firm")["turnover"].sum().sort_values(ascending=False)
        assert found["total"][i] == pytest.approx(sums.sum())
        np.testing.assert_allclose(found["largest"][:, i], sums.to_numpy()[:2])


def test_a_report_names_the_dominance_parameters_and_keeps_their_values_back() -> None:
    frames = {f"h{i}": part.drop(columns="at") for i, part in firms().groupby("at")}
    with Federation(frames, FIRMS, protection="multi-party", disclosure=RULES) as federation:
        federation.table("branch", value="turnover")
        assert federation.last is not None
        page = render(federation.last)
    assert federation.last.terms.protection.options["k"] == 60.0
    assert "; k not shown; p not shown" in page
    assert "60.0" not in page
