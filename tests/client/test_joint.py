"""All exact answers together: leverages against a slow reference, and what pairs of answers cannot see."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.joint import Block, blocks, determined, few, read_recipe, recipe
from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.disclosure import Rules
from statfed.core.method import Ask, read_question
from statfed.core.table import Table
from statfed.core.terms import Terms
from tests.federate import codebook_of, table_of

COLUMNS: dict[str, Any] = {"region": ["n", "s"], "club": ["y", "n"], "union": ["y", "n"], "income": "number"}
CODEBOOK = codebook_of(COLUMNS)
OWNED = codebook_of(COLUMNS | {"who": {"type": "id", "role": "unit"}})


def people(n: int = 60, seed: int = 1) -> pd.DataFrame:
    """One person alone is in both club and union; nobody else is told apart by any pair of conditions."""
    rng = np.random.default_rng(seed)
    club, union = np.array(["n"] * n, object), np.array(["n"] * n, object)
    club[: n // 3], union[n // 3 : 2 * n // 3] = "y", "y"
    union[0] = "y"
    regions = rng.choice(["n", "s"], n)
    return pd.DataFrame({"region": regions, "club": club, "union": union, "income": np.round(rng.uniform(1, 99, n))})


def of(table: Table, codebook: Codebook, *questions: dict[str, Any]) -> list[Block]:
    found: list[Block] = []
    for given in questions:
        where = parse_where(given.get("where", ()), codebook)
        terms = Terms(
            method=given["method"], options=given["options"], codebook=codebook, where=where, holders=("a",), seed=1
        )
        _, question = read_question(terms)
        first: Ask = next(question.method.coordinate(question))
        one = question.method.discloses(question, first)
        text = recipe(question, one)
        again, same = read_recipe(text, codebook)
        assert same == one
        found += blocks(table, again, same, text)
    return found


def total(*where: str) -> dict[str, Any]:
    return {"method": "total", "options": {"columns": ("income",)}, "where": where}


def reference(vectors: np.ndarray, owner: np.ndarray | None = None) -> float:
    """Largest diagonal entry of the projection on the span, by a singular value decomposition."""
    if owner is not None:
        vectors = np.array([vectors[owner == who].sum(axis=0) for who in np.unique(owner)])
    left, values, _ = np.linalg.svd(vectors, full_matrices=False)
    left = left[:, values > 1e-10 * values.max()]
    return float((left**2).sum(axis=1).max())


def test_leverages_are_those_of_a_singular_value_decomposition() -> None:
    frame = people()
    table = table_of(frame, CODEBOOK)
    asked = [{"method": "total", "options": {"columns": ("income",), "by": ("region",)}}, total("club = y")]
    asked += [{"method": "ols", "options": {"formula": "income ~ C(region)"}}]
    n, s, club = (frame.region == "n").to_numpy(), (frame.region == "s").to_numpy(), (frame.club == "y").to_numpy()
    vectors = np.stack([n, s, club, np.ones(len(frame)), frame.income.to_numpy()], axis=1).astype(float)
    assert determined(table, of(table, CODEBOOK, *asked)) == pytest.approx(reference(vectors), rel=1e-9)


def test_leverages_are_of_persons_where_a_column_tells_whose_a_record_is() -> None:
    frame = people(90)
    frame["who"] = [f"p{i // 3}" for i in range(90)]
    frame.loc[80:, "who"] = "p0"
    table = table_of(frame, OWNED)
    found = determined(table, of(table, OWNED, total("club = y"), total()))
    vectors = np.stack([frame.club == "y", np.ones(90)], axis=1).astype(float)
    assert found == pytest.approx(reference(vectors, frame.who.to_numpy()), rel=1e-9)


def test_inclusion_and_exclusion_tells_one_person_although_every_pair_of_answers_differs_by_many() -> None:
    table = table_of(people(), CODEBOOK)
    first = [total("club = y"), total("union = y"), total()]
    assert determined(table, of(table, CODEBOOK, *first)) < 0.5
    assert determined(table, of(table, CODEBOOK, *first, total("club = n", "union = n"))) == pytest.approx(1.0)


def test_the_same_question_again_and_values_that_are_only_summed_change_nothing() -> None:
    frame = people()
    table = table_of(frame, CODEBOOK)
    asked = of(table, CODEBOOK, total("club = y"), total())
    once = determined(table, asked)
    assert determined(table, [*asked, *of(table, CODEBOOK, total("club = y"))]) == once
    other = table_of(frame.assign(income=frame.income[::-1].to_numpy()), CODEBOOK)
    assert determined(other, of(other, CODEBOOK, total("club = y"), total())) == once


def test_a_difference_of_many_that_is_one_persons_value_is_that_persons_share() -> None:
    """Of those who are in the union and not in the club only one has any income."""
    frame = people()
    frame.loc[frame.union == "y", "income"] = 0.0
    frame.loc[25, "income"] = 67.89
    table = table_of(frame, CODEBOOK)
    asked = of(table, CODEBOOK, total("region in n,s"), total("union = n"))
    assert determined(table, asked, ["income"]) < 0.1
    assert determined(table, asked, ["income"], values=True) == pytest.approx(1.0, abs=1e-6)
    values = frame.income.to_numpy()[:, None] * np.stack([np.ones(60), frame.union == "n"], axis=1).astype(float)
    assert determined(table, asked, ["income"], values=True) == pytest.approx(reference(values), rel=1e-9)


def test_a_holder_refuses_the_answer_that_would_complete_a_combination(tmp_path: Any) -> None:
    from statfed.core.errors import Refused
    from tests.office import Office

    home = Office(
        tmp_path / "office",
        people(),
        dataset={"records": 60, "persons": 60},
        disclosure={"minimum_frequency": 5, "joint_share": 50.0},
    )

    def ask(run: str, *where: str) -> None:
        conditions = parse_where(where, CODEBOOK)
        terms = Terms(
            method="total",
            options={"columns": ("income",)},
            codebook=CODEBOOK,
            where=conditions,
            holders=("office",),
            seed=None,
        )
        home.say("ask", terms, 1, "sums", run=run)

    try:
        ask("a", "club = y")
        ask("b", "union = y")
        ask("c")
        with pytest.raises(Refused, match="all earlier exact answers"):
            ask("d", "club = n", "union = n")
        ask("e", "club = y")
    finally:
        home.close()


def test_a_weight_that_has_no_role_is_a_coefficient_too() -> None:
    """A policy may list columns as weights: totals with and without one that differs for one person are that one's."""
    book = codebook_of(COLUMNS | {"w": {"type": "number"}})
    frame = people().assign(w=[1.0] * 59 + [2.0])
    table = table_of(frame, book)
    weighted = {"method": "total", "options": {"columns": ("income",), "weight": "w"}}
    assert determined(table, of(table, book, total()), ["income"]) < 0.1
    assert determined(table, of(table, book, total(), weighted), ["income"]) == pytest.approx(1.0)


def test_columns_that_are_skewed_pass_by_themselves_and_whom_they_are_over_counts_all_the_same() -> None:
    book = codebook_of(COLUMNS | {"density": "number"})
    frame = people(400).assign(density=np.random.default_rng(2).lognormal(3, 0.8, 400).round(2))
    frame.loc[1:4, "union"] = "y"
    table, rules = table_of(frame, book), Rules(minimum_frequency=10)

    def asked(*where: str) -> dict[str, Any]:
        return {"method": "covariance", "options": {"columns": ("income", "density")}, "where": where}

    alone = of(table, book, asked("club = y"))
    assert determined(table, alone, ["income"]) > 0.1
    assert not few(table, alone, ["income"], rules)
    groups = [asked("club = y"), asked("union = y")]
    assert not few(table, of(table, book, *groups), ["income"], rules)
    assert few(table, of(table, book, *groups, asked("club = y or union = y")), ["income"], rules)
