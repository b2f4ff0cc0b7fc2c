"""What parts and results say of themselves: names decide nothing, what is not said is refused, lies are found out."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.disclosure import check
from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import Refused
from statfed.core.method import (
    Ask,
    Cells,
    Coordination,
    Counts,
    Magnitude,
    Method,
    Part,
    Public,
    Question,
)
from statfed.core.randomness import stream
from statfed.core.result import Basis, Result, Row
from statfed.core.section import Section
from statfed.core.table import Table
from statfed.core.terms import Terms
from statfed.lab.laws.check import Broken, Law
from statfed.lab.laws.declared import LEAVES, SHOWS, Subject, group_counts, pattern, renamed, run
from statfed.server.disclosure.release import release
from tests.federate import codebook_of, table_of

BOOK = codebook_of({"region": ["n", "s"], "x": ("number", 0, 10_000)})
RULES = Rules(minimum_frequency=5, dominance_k=None, p_percent=None)
LAWS = {law.id: law for law in (*LEAVES, *SHOWS)}


def sums(
    *,
    count: Part | None = None,
    discloses: Cells | None = None,
    basis: Basis | None = None,
    extra: Any = None,
    none: bool = False,
) -> Method:
    """An analysis of counts and sums by region, whose part of counts is called `n` and whose columns are `n` and `sum`.

    It may say of them what is not so. extra: a further part and its numbers; none: also counts of nothing.
    """
    parts = {
        "n": count or Part((2,), 1, integer=True, what=Counts(("region",))),
        "sum": Part((2,), 10_000, what=Magnitude("n")),
    }
    parts |= {"extra": extra[0]} if extra else {}
    parts |= {"none": Part((2,), 1, integer=True, what=Counts())} if none else {}

    def contribute(table: Table, question: Question[Any], ask: Ask) -> Mapping[str, Any]:
        found = table.complete(("x",)).grid(("region",), n=table["x"].count(), sum=table.number("x").sum())
        sent = {"n": found["n"].astype(np.int64), "sum": found["sum"].astype(np.float64)}
        sent |= {"extra": extra[1](found)} if extra else {}
        return sent | ({"none": np.zeros(2, np.int64)} if none else {})

    def coordinate(question: Question[Any]) -> Coordination:
        total = yield Ask("sums")
        rows: list[Row] = [
            {"region": code, "n": int(n), "sum": float(s), "all": int(total["n"].sum())}
            for code, n, s in zip("ns", total["n"], total["sum"], strict=True)
        ]
        said = basis or Basis(("region",), counts=("n",), own=("sum", "all"))
        return Result("sums", "Sums", {"sums": rows}, by=("region",), basis={"sums": said})

    return cast(
        Method,
        SimpleNamespace(
            Options=Section,
            columns=lambda _: ("region", "x"),
            parts=lambda *_: parts,
            contribute=contribute,
            coordinate=coordinate,
            discloses=lambda *_: discloses or Cells(("region",), ("x",), ("x",)),
        ),
    )


def subject(method: Method) -> Subject:
    rng = np.random.default_rng(2)
    frame = pd.DataFrame({"region": rng.choice(["n", "s"], 80), "x": rng.uniform(1, 100, 80).round(2)})
    terms = Terms(method="sums", codebook=BOOK, holders=("a",), seed=1)
    return Subject(method, Question(terms, method, Section(), BOOK), frame)


def small() -> pd.DataFrame:
    """One record in the south."""
    return pd.DataFrame({"region": ["n"] * 20 + ["s"], "x": [10.0 + i for i in range(20)] + [87.65]})


def test_a_part_of_counts_is_looked_at_whatever_it_is_called() -> None:
    made = subject(sums(discloses=Cells((), ("x",))))
    (asked,), _ = run(made)
    table, sent = table_of(small(), BOOK), asked.contribution(made, small())
    rules = OFF.model_copy(update={"minimum_frequency": 5})
    with pytest.raises(Refused, match="minimum frequency"):
        check(table, made.question, asked.ask, asked.parts, sent, rules, Cells((), ("x",)))


def test_columns_of_a_release_are_looked_at_whatever_they_are_called() -> None:
    made = subject(sums())
    result = run(made, small())[1]
    shown = release(result, BOOK, RULES, source=stream(1))
    assert shown.tables["sums"][1] == {"region": "s", "n": None, "sum": None, "all": None, "status": "suppressed"}
    with pytest.raises(Refused, match="not declared: table sums; nothing is released"):
        release(result.with_(basis={}), BOOK, RULES, source=stream(1))


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_an_analysis_that_tells_the_truth_passes_under_any_names(law: Law[Subject]) -> None:
    law.test(subject(sums()))


def counts_of(found: Mapping[str, Any]) -> Any:
    return found["n"].astype(np.int64)


LIES: dict[str, tuple[str, Callable[[], Method], str]] = {
    "discloses less than it sends": ("stopped", lambda: sums(discloses=Cells((), ("x",))), "sum: one record has 95%"),
    "discloses nothing": ("declared", lambda: sums(discloses=Cells()), "sum: not declared"),
    "says nothing of a part": ("declared", lambda: sums(count=Part((2,), 1, integer=True)), "n, sum: not declared"),
    "a breakdown that it does not disclose": (
        "broken down",
        lambda: sums(discloses=Cells((), ("x",), ("x",))),
        "counts by region, which Cells",
    ),
    "a breakdown that nothing discloses": (
        "broken down",
        lambda: sums(count=Part((2,), 1, integer=True, what=Counts()), discloses=Cells((), ("x",), ("x",))),
        "n: broken down by region",
    ),
    "a breakdown of sums that is only said to be complete": (
        "broken down",
        lambda: sums(discloses=Cells((), ("x",), ("region", "x"))),
        "sum: broken down by region",
    ),
    "counts that are called public": (
        "public",
        lambda: sums(extra=(Part((2,), 1, integer=True, what=Public()), counts_of)),
        "extra: declared public",
    ),
    "counts that are called sums": (
        "hidden counts",
        lambda: sums(extra=(Part((2,), 1, integer=True, what=Magnitude("n")), counts_of)),
        "extra: declared .* is a number of records",
    ),
    "sums that are called counts": (
        "counts",
        lambda: sums(extra=(Part((2,), 1, what=Counts()), lambda found: found["sum"])),
        "want whole numbers",
    ),
    "pairs that are called counts": (
        "counts",
        lambda: sums(extra=(Part((2,), 1, integer=True, what=Counts()), lambda found: counts_of(found) ** 2)),
        "one record changes it by",
    ),
    "counts of another shape": (
        "magnitudes",
        lambda: sums(extra=(Part((3,), 1, what=Magnitude("n")), lambda found: np.append(found["sum"], 1.0))),
        "want one for each",
    ),
    "counts of something else": (
        "magnitudes",
        lambda: sums(extra=(Part((2,), 1, what=Magnitude("none")), lambda found: found["sum"]), none=True),
        "extra: counted by none, which is 0 where the sum is not",
    ),
    "rows that rest on all records": (
        "rests",
        lambda: sums(basis=Basis(("region",), counts=("all",), own=("n", "sum"))),
        "sums: released a row from fewer records",
    ),
    "a column that nobody is told of": (
        "rests",
        lambda: sums(basis=Basis(("region",), counts=("n",), own=("all",))),
        "not declared: column sum of table sums",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_out(lie: str) -> None:
    law, made, message = LIES[lie]
    with pytest.raises(Broken, match=message):
        LAWS[law].test(subject(made()))


def test_other_names_are_other_names() -> None:
    made = subject(sums())
    result = run(made)[1]
    other, codebook = renamed(result, BOOK)
    assert not {*result.tables} & {*other.tables}
    assert not {*result.tables["sums"][0]} & {*next(iter(other.tables.values()))[0]}
    assert set(other.by) <= set(codebook.columns)
    assert pattern(release(other, codebook, RULES, source=stream(1))) is not None


def test_the_reference_counts_every_group() -> None:
    made = subject(sums())
    assert {1, 20, 21} <= group_counts(made, small())
