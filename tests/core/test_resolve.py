"""A study read once: what its terms refuse, codebooks and roles by holder, and how often anything is read again."""

import cProfile
import pstats
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from statfed.core.errors import Refused, UsageError
from statfed.core.method import Adaptive, Ask, Fixed, Question, once, read_question
from statfed.core.progress import silent
from statfed.core.resolve import resolve, resolve_applicable
from statfed.core.study import make_study
from statfed.core.table import Size
from statfed.core.terms import Terms
from statfed.server.driver import Driven, drive
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess
from tests.federate import codebook_of
from tests.office import FREE, PRIVATE, Office, query
from tests.spender import installed
from tests.universe import people

NAMES = ("a", "b", "c")


def run(offices: Mapping[str, Office], terms: Terms, name: str = "r") -> Driven:
    """A study over offices in memory, as its coordinator runs it."""
    homes = {holder: office.home for holder, office in offices.items()}
    return inprocess.run(
        Deployment(name, homes, Path("unused")),
        lambda session: drive(session, resolve_applicable(terms), name, timeout=60, progress=silent),
        silent,
    )


@pytest.fixture
def offices(tmp_path: Path) -> Iterator[dict[str, Office]]:
    made = {
        name: Office(tmp_path / name, people(200, seed), holder={"name": name}, disclosure=FREE)
        for seed, name in enumerate(NAMES)
    }
    yield made
    for office in made.values():
        office.close()


# ---- codebooks and roles by holder

MAIN = codebook_of({"x": ("number", 0, 100), "g": ["u", "v"], "only": "number"})
OTHER = codebook_of(
    {
        "x": {"type": "number", "low": 0, "high": 100, "missing": [-9], "label": "as b calls it"},
        "extra": ["p", "q"],
    }
)


def tables(folder: Path) -> dict[str, Office]:
    """Tables of three holders, b's with other columns and another code for what is missing."""
    x = np.linspace(1, 99, 200)
    frames = {name: pd.DataFrame({"x": x + i / 10, "g": "u", "only": 1.0}) for i, name in enumerate(NAMES)}
    frames["b"] = pd.DataFrame({"x": np.where(np.arange(200) < 50, -9.0, x), "extra": "p"})
    return {name: Office(folder / name, frame, holder={"name": name}) for name, frame in frames.items()}


@pytest.mark.parametrize("private", [{}, {"privacy": {"epsilon": 10.0}}])
def test_a_holder_s_own_columns_do_not_keep_it_out_of_sums_over_common_ones(
    tmp_path: Path, private: dict[str, Any]
) -> None:
    parties = tables(tmp_path)
    asked = query(
        method="total", options={"columns": ["x"]}, codebook=MAIN, codebooks={"b": OTHER}, holders=NAMES, **private
    )
    found = run(parties, asked).result.tables["estimates"][0]["estimate"]
    exact = sum(office.frame["x"].where(office.frame["x"] != -9).sum() for office in parties.values())
    assert found == pytest.approx(exact, rel=0.03 if private else 1e-12)
    shared = query(method="total", options={"columns": ["x"]}, codebook=MAIN, holders=NAMES, **private)
    with pytest.raises(UsageError, match="b: data do not fit the codebook"):  # -9 is a value there
        run(parties, shared, "as if all were alike")
    for office in parties.values():
        office.close()


def test_columns_that_a_holder_does_not_have_are_refused_there_by_name(tmp_path: Path) -> None:
    parties = tables(tmp_path)
    asked = query(method="total", options={"columns": ["only"]}, codebook=MAIN, codebooks={"b": OTHER}, holders=NAMES)
    with pytest.raises(UsageError, match=r"b: .*only"):
        run(parties, asked)
    assert parties["a"].entries == ["open"]
    for office in parties.values():
        office.close()


@pytest.mark.parametrize("role", ["stratum", "replicate"])
def test_columns_of_one_role_have_one_order_at_every_holder(role: str) -> None:
    """Strata are numbered in that order: another one at one holder gave a wrong standard error without a word."""
    column = {"type": "boolean"} if role == "stratum" else {"type": "number", "low": 0, "high": 9}
    column |= {"role": role}
    one, other = (codebook_of(dict.fromkeys(names, column)) for names in ("de", "ed"))
    asked = {"method": "count", "codebook": one, "holders": NAMES}
    with pytest.raises(ValidationError, match=rf"codebooks: b: got columns with role {role} in another order"):
        query(**asked, codebooks={"b": other})
    query(**asked, codebooks={"b": codebook_of({"x": "number"} | dict.fromkeys("de", column))})


FORMS: dict[str, Any] = {
    "bounds": {"x": ("number", 0, 1000)},
    "type": {"x": ("integer", 0, 100)},
    "unit": {"x": {"type": "number", "low": 0, "high": 100, "unit": "EUR"}},
    "scale": {"x": {"type": "number", "low": 0, "high": 100, "scale": 7}},
    "role": {"x": {"type": "number", "low": 0, "high": 100, "role": "weight"}},
    "order of levels": {"g": ["v", "u"]},
    "further levels": {"g": ["u", "v", "w"]},
}


@pytest.mark.parametrize("what", FORMS)
def test_a_column_of_one_name_has_one_form_at_every_holder(what: str) -> None:
    """Grids of noise and encodings follow from bounds: other bounds at one holder gave a wrong total without a word."""
    asked = {"method": "count", "codebook": MAIN, "holders": NAMES}
    with pytest.raises(ValidationError, match=r"codebooks: b: .: got another form than in another codebook; want one"):
        query(**asked, codebooks={"b": codebook_of(FORMS[what])})
    with pytest.raises(ValidationError, match="codebooks: c: extra"):
        query(**asked, codebooks={"b": OTHER, "c": codebook_of({"extra": "number"})})
    study = make_study({"method": "count", "holders": {name: f"{name}.csv" for name in NAMES}})
    with pytest.raises(UsageError, match=r"^study: codebooks: b: .: got another form"):
        study.terms(MAIN, {"b": codebook_of(FORMS[what])})


def test_a_codebook_or_role_of_a_stranger_is_refused_in_a_study_in_terms_and_in_a_statement(tmp_path: Path) -> None:
    want = "codebooks, roles: got some for d, e; want holders of the study"
    strangers: dict[str, Any] = {"codebooks": {"d": OTHER}, "roles": {"e": "agency", "a": "agency"}}
    with pytest.raises(ValidationError, match=want):
        query(method="count", codebook=MAIN, holders=NAMES, **strangers)
    files = {"method": "count", "holders": {name: f"{name}.csv" for name in NAMES}}
    with pytest.raises(UsageError, match=f"^study: {want}"):
        make_study(files | {"codebooks": {"d": "d.codebook.toml"}, "roles": {"e": "agency"}})
    with pytest.raises(UsageError, match="codebooks, roles: got some for d; want holders"):
        make_study(files).terms(MAIN, {"d": OTHER})
    office = Office(tmp_path / "home", people(20))
    good = query(method="count")
    bad = good.model_dump(mode="json") | {"roles": {"e": "agency"}}
    assert "statement not understood" in office.refusal("admit", good, terms=bad)
    assert office.entries == []
    office.close()


def test_roles_and_codebooks_are_part_of_what_holders_agree_to() -> None:
    plain = query(method="count", codebook=MAIN, holders=NAMES)
    named = query(method="count", codebook=MAIN, holders=NAMES, roles={"a": "agency"})
    other = query(method="count", codebook=MAIN, holders=NAMES, codebooks={"b": OTHER})
    assert len({plain.digest(), named.digest(), other.digest()}) == 3
    assert (other.codebook_of("b"), other.codebook_of("a")) == (OTHER, MAIN)
    assert resolve(other, "b").question.codebook == OTHER
    assert resolve(other).question.codebook == resolve(other, "a").question.codebook == MAIN


def test_a_condition_holds_in_every_codebook_or_the_study_is_refused() -> None:
    study = make_study({"method": "count", "holders": {name: f"{name}.csv" for name in NAMES}, "where": ["g = u"]})
    study.terms(MAIN)
    with pytest.raises(UsageError, match="g"):
        study.terms(MAIN, {"b": OTHER})


# ---- what was read


def test_what_the_names_stand_for() -> None:
    found = resolve(query(method="count", holders=NAMES, protection={"name": "multi-party"}, **PRIVATE))
    assert (found.training, found.own_noise, found.central) == (False, (), False)
    assert isinstance(found.budget, Fixed)
    assert found.digest == found.terms.digest()
    assert found.third_parties
    assert found.minimum_holders == 3
    assert found.parts(Ask("noisy"))
    exact = resolve(query(method="count", holders=NAMES))
    assert exact.budget is None
    assert exact.price(Ask("sums"), Size(3, 3)) is None
    assert exact.reservation(Size(3, 3)) is None
    exact.scheduled(Ask("whatever"), 99)  # no private study, no order


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"method": "nothing"}, "unknown method: got 'nothing'; want one of .*count.*local-sgd"),
        ({"method": "count", "options": {"bogus": 1}}, "count: bogus: unknown key; want one of weight, design, by"),
        ({"method": "total", "options": {"columns": ["nowhere"]}}, "nowhere"),
        ({"method": "describe", "options": {"columns": ["age"]}, **PRIVATE}, "describe has no differentially private"),
        ({"method": "count", "protection": {"name": "nothing"}}, "unknown protection: got 'nothing'"),
        ({"method": "count", "protection": {"name": "plain", "options": {"bogus": 1}}}, "bogus"),
    ],
)
def test_names_that_stand_for_nothing_are_refused_when_a_study_is_read(terms: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(query(**terms))


def test_a_sum_beyond_the_schedule_is_refused_by_number_and_name() -> None:
    fixed = resolve(query(method="count", **PRIVATE))
    fixed.scheduled(Ask("noisy"), 1)
    for ask, number in ((Ask("noisy"), 2), (Ask("noisy"), 0), (Ask("sums"), 1), (Ask("noisy"), -1)):
        with pytest.raises(Refused, match=rf"ask: got {ask.name} number {number}; want in this order noisy \(1\)"):
            fixed.scheduled(ask, number)
    with installed():
        chosen = resolve(query(method="outsider", **PRIVATE))
        assert chosen.budget == Adaptive(6)
        for number in (1, 6):
            chosen.scheduled(Ask("any"), number)
        for number in (0, 7):
            with pytest.raises(Refused, match=f"ask: got number {number}; want 1 to 6"):
                chosen.scheduled(Ask("any"), number)


def test_once_is_once_for_each_question() -> None:
    calls: list[int] = []

    @once
    def worked_out(question: Question[Any]) -> object:
        calls.append(id(question))
        return None if len(calls) == 1 else object()

    one, other = (read_question(query(method="count"))[1] for _ in range(2))
    assert worked_out(one) is worked_out(one) is None  # also what is false
    assert worked_out(other) is worked_out(other)
    assert calls == [id(one), id(other)]


# ---- how often


def calls(done: cProfile.Profile) -> Counter[str]:
    """Calls of the package's functions, by file and name."""
    found = Counter[str]()
    for (file, _, name), (_, count, *_) in pstats.Stats(done).stats.items():  # type: ignore[attr-defined]
        if "/statfed/" in file or "formulaic" in file:
            found[f"{Path(file).stem}.{name}"] += count
    return found


GLM = {"formula": "employed ~ age + C(region) + hours", "family": "binomial"}
PARTIES = 4  # three holders and the coordinator
ONCE_A_STUDY: tuple[str, ...] = (
    "method.read_question",
    "terms.digest",
    "protection.minimum_holders",
    "glm.columns",
)
ONCE_A_STUDY += ("resolve.resolve", "applicability.obstacles", "protection.read_protection", "parser.get_terms")


def test_a_study_is_read_once_by_each_party_however_many_sums_it_takes(offices: dict[str, Office]) -> None:
    """Before studies were read into one object a GLM read its query 66 times and parsed its formula 223 times."""
    found = []
    for tolerance in (1e-3, 1e-9):
        asked = query(method="glm", options=GLM | {"tolerance": tolerance}, holders=NAMES)
        with cProfile.Profile() as profile:
            sums = len(run(offices, asked, f"run-{tolerance:g}").sums)
        found.append((sums, calls(profile)))
    (few, short), (sums, long) = found
    assert few < sums
    for name in ONCE_A_STUDY:
        assert long[name] == short[name], name  # nothing is read again for a further sum
    assert long["resolve.resolve"] == PARTIES
    assert long["terms.digest"] <= 2 * PARTIES
    assert long["method.read_question"] <= 4 * PARTIES
    assert long["glm._model"] == long["glm.columns"] == long["method.read_question"]
    assert long["protection.minimum_holders"] <= 4 * PARTIES
    assert long["protection.read_protection"] <= 4 * PARTIES
    assert long["_matrix.make_design"] <= long["glm._model"] + 2 * PARTIES * sums  # a basis depends on the ask
