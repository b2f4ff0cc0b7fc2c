"""Refusals tell whoever asks nothing but that they are refusals: one text, counted, limited, and explained at home."""

import json
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.client.contributions import _engine
from statfed.client.guard.admission import allowed_functions
from statfed.client.guard.files import check_modes
from statfed.client.guard.policy import Allow, load_policy
from statfed.client.guard.refusals import FILE, public, refusals, why
from statfed.client.holder import Holder
from statfed.core.codebook import Codebook
from statfed.core.errors import Refused, UsageError
from statfed.core.terms import Terms
from tests.federate import codebook_of
from tests.office import FREE, MEANS, Office, query
from tests.universe import CODEBOOK, people

RULES: dict[str, Any] = FREE | {"minimum_frequency": 10}
SHUT: dict[str, Any] = {"explain": False}
COUNTED: dict[str, Any] = {"figures": 10_000, "refusals": 1_000}
Make = Callable[..., Office]


def pinned(codebook: Codebook = CODEBOOK, frame: pd.DataFrame | None = None, **more: Any) -> dict[str, Any]:
    """Sections of a policy that explains nothing and pins one codebook."""
    size = {} if frame is None else {"records": len(frame), "persons": len(frame)}
    sections = {"dataset": {"codebooks": [codebook.digest()]} | size, "refusals": SHUT, "limits": COUNTED}
    sections["disclosure"] = RULES
    for name, keys in more.items():
        sections[name] = sections.get(name, {}) | keys
    return sections


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Make]:
    made: list[Office] = []

    def make(frame: pd.DataFrame | None = None, name: str = "home", **changes: dict[str, Any]) -> Office:
        made.append(Office(tmp_path / name, people(200) if frame is None else frame, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def bare(text: str) -> str:
    """A refusal without its id."""
    return re.sub(r"\b[0-9a-f]{12}\b", "ID", text)


ONE = bare(public("0123456789ab"))
OF_FIRMS: dict[str, Any] = {"rows": ["region"], "value": "income", "nested_enterprises": True}
FIRMS: dict[str, Any] = {"method": "table", "options": OF_FIRMS}


def misfit() -> pd.DataFrame:
    frame = people(200)
    frame.loc[3, "region"] = "atlantis"
    return frame


CAUSES: dict[str, Callable[[Make], str]] = {
    "a small cell": lambda office: office(**pinned(disclosure={"minimum_frequency": 190})).refusal(
        "ask", query(method="table", options={"rows": ["region"]}), 1, "cells"
    ),
    "a filter of no record": lambda office: office(**pinned()).refusal(
        "ask", query(**MEANS, where=["income >= 199999"]), 1, "means"
    ),
    "a filter of one record": lambda office: office(**pinned()).refusal(
        "ask", query(**MEANS, where=[f"income >= {people(200)['income'].max()}"]), 1, "means"
    ),
    "dominance": lambda office: office(
        people(200).assign(income=[199_999.0] + [0.5] * 199), **pinned(disclosure={"dominance_k": 90.0})
    ).refusal("ask", query(method="total", options={"columns": ["income"]}), 1, "sums"),
    "an option that raises on the largest contributor": lambda office: office(**pinned()).refusal(
        "ask",
        query(**{**FIRMS, "options": {**OF_FIRMS, "largest_contributor": 1.0}}),
        1,
        "cells",
    ),
    "data that do not fit, at admission": lambda office: office(misfit(), **pinned()).refusal(
        "admit", query(method="count", options={"by": ["region"]})
    ),
    "data that do not fit, of a private study": lambda office: office(misfit(), **pinned()).refusal(
        "admit", query(method="count", options={"by": ["region"]}, privacy={"epsilon": 1.0})
    ),
    "a column that the data lack": lambda office: office(people(200).drop(columns="income"), **pinned()).refusal(
        "admit", query(**MEANS)
    ),
    "arrays that make it raise an unexpected error": lambda office: begun(office(**pinned())).refusal(
        "ask", query(**MEANS), 2, "squares", {"mean": np.zeros(7)}
    ),
    "data that cannot be opened": lambda office: missing(office).refusal("admit", query(**MEANS)),
}


def begun(office: Office) -> Office:
    office.say("ask", query(**MEANS), 1, "means")
    return office


def missing(office: Make) -> Office:
    made = office(**pinned())
    (made.home / "people.parquet").unlink()
    return made


@pytest.mark.parametrize("cause", list(CAUSES))
def test_a_refusal_that_depended_on_data_is_the_same_bytes_whatever_the_cause(office: Make, cause: str) -> None:
    said = CAUSES[cause](office)
    assert bare(said).encode() == ONE.encode()
    assert len(said) == len(public("0123456789ab"))


def test_a_populations_filter_of_none_is_the_filter_of_one_and_enough_are_answered(office: Make) -> None:
    """Bisecting a known person's value by whether a filter holds it."""
    top = float(np.sort(people(200)["income"])[-1])
    holder = office(**pinned())
    told = {
        bare(holder.refusal("ask", query(**MEANS, where=[f"income >= {least}"]), 1, "means", run=f"r{i}"))
        for i, least in enumerate((top + 1, top, top - 1))
    }
    assert told == {ONE}
    holder.say("ask", query(**MEANS, where=["age >= 30"]), 1, "means", run="enough")


def test_details_stay_at_home_in_a_private_file_under_the_id_that_was_told(office: Make) -> None:
    holder = office(**pinned(disclosure={"minimum_frequency": 190}))
    said = holder.refusal("ask", query(method="table", options={"rows": ["region"]}), 1, "cells", run="early")
    (found,) = refusals(holder.home)
    assert found.id in said
    assert why(holder.home, found.id[:5]) == found
    assert (found.run, found.method, found.step, found.ask, found.kind) == ("early", "table", "ask", "cells", "Refused")
    assert "minimum frequency: region" in found.reason
    assert found.study == query(method="table", options={"rows": ["region"]}).digest()
    assert stat.S_IMODE((holder.home / FILE).stat().st_mode) == 0o600
    assert "minimum" not in said
    with pytest.raises(UsageError, match="got 0 of that id"):
        why(holder.home, "nothing")


def test_every_refusal_that_depended_on_data_is_an_entry_and_a_public_one_is_none(office: Make) -> None:
    holder = office(**pinned(allow={"methods": ["describe"]}))
    holder.refusal("admit", query(method="count"))
    assert holder.refused == 0
    for number in range(3):
        holder.refusal("ask", query(**MEANS, where=["age < 1"]), 1, "means", run=f"r{number}")
    assert holder.refused == 3
    assert holder.entries == ["open"]
    assert holder.holder.ledger().verify()


def test_after_as_many_refusals_as_the_policy_allows_nothing_exact_is_answered_to_anybody(office: Make) -> None:
    holder = office(**pinned(limits={"refusals": 2}))
    fine, private = query(**MEANS), query(method="count", privacy={"epsilon": 1.0})
    for number in range(2):
        holder.refusal("ask", query(**MEANS, where=["age < 1"]), 1, "means", run=f"r{number}")
    for step, ask in (("admit", ""), ("ask", "means")):
        said = holder.refusal(step, fine, 1, ask, run="other")
        assert said.startswith("limits.refusals: this holder has refused on seeing its data as often")
    small = query(**MEANS, where=["age < 1"])
    assert holder.refusal("ask", small, 1, "means", run="more") == said  # whatever the data are
    assert holder.refused == 2
    holder.say("admit", private, run="p")
    holder.say("ask", private, 1, "noisy", run="p")
    holder.policy(**pinned(limits={"refusals": 3}))
    holder.say("ask", fine, 1, "means", run="again")


def test_bisecting_the_largest_contributor_by_an_option_ends_after_as_many_refusals(office: Make) -> None:
    holder, asked, low, high = office(**pinned(limits={"refusals": 5})), 0, 1.0, 1e9
    told = set()
    for number in range(30):
        middle = (low + high) / 2
        options = {"rows": ["sex"], "value": "income", "largest_contributor": middle}
        try:
            holder.say("ask", query(method="table", options=options), 1, "cells", run=f"r{number}")
            high = middle
        except Refused as refusal:
            told.add(bare(str(refusal)))
            asked += "not answered" in str(refusal)
            low = middle
    assert asked == 5
    assert len(told) == 2


def test_a_codebook_that_is_not_pinned_is_refused_before_data_are_looked_at(office: Make) -> None:
    """Bisecting a maximum by the bounds that a codebook declares."""
    holder = office(**pinned())
    columns = CODEBOOK.columns["income"].model_copy(update={"high": 50_000.0})
    other = CODEBOOK.model_copy(update={"columns": CODEBOOK.columns | {"income": columns}})
    (holder.home / "people.parquet").unlink()
    for privacy in ({}, {"privacy": {"epsilon": 1.0}}):
        for step in ("admit", "ask"):
            said = holder.refusal(step, query(method="count", **privacy, codebook=other), 1, "sums")
            assert f"codebook: got {other.digest()}, which this holder has not pinned" in said
            assert f"want one of {CODEBOOK.digest()}" in said
    assert holder.entries == []
    assert refusals(holder.home) == []
    holder.policy(**pinned(dataset={"codebooks": []}))
    assert "want this holder to pin one" in holder.refusal("admit", query(method="count"))


def test_roles_and_hierarchies_are_those_of_the_pinned_codebook(office: Make) -> None:
    holder = office(**pinned())
    others: dict[str, dict[str, Any]] = {
        "region": {"role": "stratum"},
        "income": {"missing": (187_423.0,)},
        "sex": {"parents": {"f": "m"}},
    }
    for name, changes in others.items():
        column = CODEBOOK.columns[name].model_copy(update=changes)
        other = CODEBOOK.model_copy(update={"columns": CODEBOOK.columns | {name: column}})
        assert "has not pinned" in holder.refusal("admit", query(method="count", codebook=other))


def test_only_a_column_with_that_role_weighs_records_of_an_exact_study(office: Make) -> None:
    holder = office(**pinned(allow={"weights": []}, disclosure=FREE))
    for method, more in (("mean", {"columns": ["income"]}), ("histogram", {"column": "income", "bins": 4})):
        said = holder.refusal("admit", query(method=method, options={**more, "weight": "hours"}), run=method)
        assert "weight: got hours, by which records may not be weighed; want a column with role weight" in said
    holder.say("admit", query(method="mean", options={"columns": ["income"], "weight": "w"}), run="w")
    private = query(method="mean", options={"columns": ["income"], "weight": "hours"}, privacy={"epsilon": 1.0})
    holder.say("admit", private, run="p")
    holder.policy(**pinned(allow={"weights": ["hours"]}, disclosure=FREE))
    holder.say("admit", query(method="mean", options={"columns": ["income"], "weight": "hours"}), run="listed")


def test_exact_figures_are_counted_and_end_whatever_the_data_are(office: Make) -> None:
    small = codebook_of({"x": ("number", 0, 100), "g": ["u", "v"]})
    frame = pd.DataFrame({"x": [float(i) for i in range(60)], "g": ["u", "v"] * 30})
    holder = office(frame, **pinned(small, frame, limits={"figures": 5}, disclosure=FREE))
    tables = [query(method="table", options={"rows": ["g"]}, codebook=small, where=()) for _ in range(2)]
    for number, asked in enumerate(tables):  # the same figures once more are no more figures
        holder.say("ask", asked, 1, "cells", run=f"r{number}")
    with holder.holder.ledger() as ledger:
        given = ledger.figures()
    assert 2 <= given <= 5
    closing = holder.say("release", tables[0], run="r0").facts
    assert (closing.figures, closing.most_figures) == (given, 5)  # type: ignore[union-attr]
    other = query(method="describe", options={"columns": ["x"]}, codebook=small)
    holder.policy(**pinned(small, frame, limits={"figures": given}, disclosure=FREE))
    said = holder.refusal("ask", other, 1, "means", run="more")
    assert said.startswith(f"limits.figures: this dataset gave {given} of the {given} exact figures that it ever gives")
    assert refusals(holder.home) == []


def test_a_replayed_number_is_refused_ahead_of_the_data_with_other_parameters_too(office: Make) -> None:
    holder, exact = office(**pinned(disclosure=FREE)), query(**MEANS)
    holder.say("ask", exact, 1, "means")
    (holder.home / "people.parquet").unlink()
    assert "already disclosed" in holder.refusal("ask", exact, 1, "squares", {"mean": np.array([2.0])})
    assert holder.refused == 0


@pytest.mark.parametrize(
    ("limits", "terms", "ask", "wanted"),
    [
        ({"categories": 2}, MEANS, "means", "limits.categories: got 3 categories; want at most 2"),
        ({"columns": 5}, MEANS, "means", "limits.columns: got 14 columns; want at most 5"),
        ({"holders": 1}, MEANS | {"holders": ("office", "b")}, "means", "limits.holders: got 2 holders"),
        (
            {"cells": 5},
            {"method": "table", "options": {"rows": ["region"], "columns": ["sex"]}},
            "cells",
            "limits.cells: got 6",
        ),
        (
            {"parameters": 1},
            {"method": "ols", "options": {"formula": "income ~ age + hours"}},
            "gram",
            "limits.parameters: got",
        ),
        ({"entries": 1}, MEANS | {"options": {"columns": ["income", "age"]}}, "means", "limits.entries: got"),
    ],
)
def test_what_is_larger_than_a_holder_works_on_is_refused_before_it_does(
    office: Make, limits: dict[str, Any], terms: dict[str, Any], ask: str, wanted: str
) -> None:
    holder = office(**pinned(limits=limits, disclosure=FREE))
    (holder.home / "people.parquet").unlink()
    if ask == "gram":
        ask = first_ask(query(**terms))
    assert wanted in holder.refusal("ask", query(**terms), 1, ask)


def first_ask(terms: Terms) -> str:
    from statfed.core.method import read_question

    method, question = read_question(terms)
    return next(method.coordinate(question)).name


def test_a_study_makes_so_many_asks_and_a_statement_has_so_many_bytes(office: Make) -> None:
    holder = office(**pinned(limits={"asks": 3, "megabytes": 1}, disclosure=FREE))
    assert "limits.asks: got 4 asks; want at most 3" in holder.refusal("ask", query(**MEANS), 4, "means")
    large = {"mean": np.zeros(200_000)}
    assert "limits.megabytes: got 2 megabytes; want at most 1" in holder.refusal(
        "ask", query(**MEANS), 1, "squares", large
    )


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"version": ' + "[" * 200 + "]" * 200 + "}", '"' + "x" * 17_000_000 + '"']
)
def test_text_that_is_too_long_or_too_deep_is_refused_before_it_is_read(office: Make, text: str) -> None:
    with pytest.raises(Refused, match="statement not understood"):
        office(**pinned()).holder.answer(text, {})


def test_filters_are_columns_or_whole_conditions_that_the_policy_lists(office: Make) -> None:
    holder = office(**pinned(allow={"filters": ["age", "region in north,south", "hours >= 10"]}, disclosure=FREE))
    for number, text in enumerate(("age >= 33", "region in south,north", "hours >= 10.0")):
        holder.say("admit", query(**MEANS, where=[text]), run=f"r{number}")
    for text in ("hours >= 11", "hours > 10", "sex = f", "region in north"):
        assert "filters: got" in holder.refusal("admit", query(**MEANS, where=[text]))
    holder.policy(**pinned(allow={"filters": []}))
    assert "want none: the list is empty" in holder.refusal("admit", query(**MEANS, where=["age >= 33"]))


def test_alternatives_are_allowed_by_all_their_columns_or_as_a_whole(office: Make) -> None:
    """Each half of an `or` may be allowed and the whole not; and a listed conjunction is no list of its parts."""
    listed = ["age", "sex = f or hours >= 10", "hours >= 20 and region = north"]
    holder = office(**pinned(allow={"filters": listed}, disclosure=FREE))
    allowed = (
        "age >= 33 or age < 20",
        "hours >= 10 or sex = f",
        "region = north and hours >= 20",
        "not (age between 30 and 40)",
        "age is not null",
    )
    for number, text in enumerate(allowed):
        holder.say("admit", query(**MEANS, where=[text]), run=f"r{number}")
    refused = (
        "age >= 33 or hours >= 10",
        "sex = f",
        "hours >= 10",
        "sex = f or hours >= 10 or age >= 33",
        "sex = f or hours >= 11",
        "hours >= 20",
        "region = north",
        "hours >= 20 or region = north",
        "hours is null",
    )
    for text in refused:
        assert "filters: got" in holder.refusal("admit", query(**MEANS, where=[text])), text


def test_functions_that_formulas_may_use_are_the_policys() -> None:
    allow = Allow(protections=("plain",), columns=("*",))
    assert allowed_functions(allow) == frozenset({"log", "log1p", "sqrt", "square", "standardise"})
    assert allowed_functions(allow.model_copy(update={"functions": ("*",)})) is None


def test_rule_parameters_of_a_study_are_the_holders_own(office: Make) -> None:
    """Bisecting the largest contribution by the k of the dominance rule."""

    def asked(k: float) -> Terms:
        options = {"functions": ["dominance"], "n": 2, "k": k, "p": 10.0}
        holders = ("office", "b", "c")
        return query(**FIRMS, holders=holders, protection={"name": "multi-party", "options": options})

    nodes = {"protections": ["multi-party"], "third_parties": ["node-1", "node-2", "node-3"]}
    rules = {"dominance_k": 90.0, "p_percent": 10.0}
    holder = office(**pinned(allow=nodes, disclosure=rules))
    for k in (89.0, 91.0, 50.0):
        said = holder.refusal("admit", asked(k))
        assert "rule parameters: got others for dominance rules than this holder's own" in said
        assert "90" not in said.replace(CODEBOOK.digest(), "")
    holder.say("admit", asked(90.0))


def test_a_query_that_takes_longer_than_the_policy_allows_is_interrupted(office: Make) -> None:
    holder = office(**pinned(limits={"seconds": 0.05, "memory": 512}))
    contributions, policy = holder.holder._contributions, holder.holder.policy
    endless = "select sum(a.range * b.range) from range(100000000) a, range(100000000) b"
    with contributions.within("r", policy), pytest.raises(Exception, match="Interrupted"):
        _engine(contributions._open("r", policy)).execute(endless)
    limit = _engine(contributions._open("r", policy)).execute("select current_setting('memory_limit')").fetchone()
    assert limit == ("488.2 MiB",)
    later = _engine(contributions._open("r", policy)).execute("select 1").fetchone()
    assert later == (1,)  # and is not interrupted


FILES = ("policy.toml", "ledger.sqlite", "refusals.jsonl", "releases.sqlite")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_a_home_whose_files_are_open_to_others_answers_nothing(office: Make, name: str, mode: int) -> None:
    holder = office(**pinned())
    holder.say("ask", query(**MEANS), 1, "means")
    holder.refusal("ask", query(**MEANS, where=["age < 1"]), 1, "means", run="two")
    path = holder.home / name
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        check_modes(holder.home)
    with pytest.raises(Refused, match="its own log says why"):
        Holder(holder.home)
    assert "its own log says why" in holder.refusal("admit", query(**MEANS))
    path.chmod(0o600)
    holder.say("admit", query(**MEANS), run="three")


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_home_that_others_can_write_to_answers_nothing(office: Make, mode: int) -> None:
    holder = office(**pinned())
    holder.home.chmod(mode)
    with pytest.raises(UsageError, match=f"chmod go-w {holder.home}"):
        check_modes(holder.home)
    assert "its own log says why" in holder.refusal("admit", query(**MEANS))
    holder.home.chmod(0o755)
    holder.say("admit", query(**MEANS))


def test_every_file_of_a_home_is_made_private_under_any_umask(office: Make) -> None:
    import os

    before = os.umask(0)
    try:
        holder = office(**pinned())
        holder.say("ask", query(**MEANS), 1, "means")
        holder.refusal("ask", query(**MEANS, where=["age < 1"]), 1, "means", run="two")
    finally:
        os.umask(before)
    assert {name for name in FILES if stat.S_IMODE((holder.home / name).stat().st_mode) != 0o600} == set()


def test_a_rehearsal_is_told_everything_and_still_has_it_on_record(office: Make) -> None:
    holder = office(disclosure=RULES)
    said = holder.refusal("ask", query(**MEANS, where=["age < 1"]), 1, "means")
    assert "minimum frequency" in said
    assert holder.refused == 1
    assert json.loads((holder.home / FILE).read_text())["reason"] == said
    assert load_policy(holder.home / "policy.toml").rehearsal
