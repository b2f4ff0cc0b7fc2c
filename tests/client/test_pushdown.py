"""Every analysis over a table in a real PostgreSQL: the same result as from memory, and what the database was asked.

Skipped where PostgreSQL's server binaries are not installed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sqlglot
from sqlglot import exp

from statfed.client.data.tables import connect, open_table
from statfed.core.discovery import load, modules
from statfed.core.errors import UsageError
from statfed.core.method import (
    ANALYSES,
    Ask,
    Fixed,
    budget_of,
    checked,
    columns_read,
    read_question,
)
from statfed.core.terms import Privacy, Terms, parse_condition
from tests.federate import drive, table_of
from tests.postgres import Server, postgres
from tests.universe import CODEBOOK, EXAMPLES, people

__all__ = ["postgres"]

CASES = [
    pytest.param(name, options, id=f"{name}-{i}")
    for name in sorted(modules(ANALYSES))
    for i, options in enumerate(EXAMPLES[name])
]


def private(name: str, options: dict[str, Any]) -> bool:
    """Does the analysis answer these options privately?"""
    try:
        read_question(
            Terms(method=name, options=options, codebook=CODEBOOK, holders=("a",), seed=1, privacy=Privacy(epsilon=1.0))
        )
    except UsageError:
        return False
    return True


PRIVATE = [case for case in CASES if private(str(case.values[0]), cast(dict[str, Any], case.values[1]))]


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    else:
        assert one == other


TYPES = {
    "income": "double precision",
    "hours": "real",
    "age": "smallint",
    "employed": "boolean",
    "region": "varchar(5)",
    "sex": "char(1)",
    "w": "numeric(6,3)",
    "stratum": "text",
    "psu": "text",
    "person": "text",
    "firm": "text",
    "key": "double precision",
    "duration": "integer",
    "event": "boolean",
}
FRAME = people(200, 7).assign(hours=lambda f: f["hours"].astype("float32").astype(float))

MORE: list[tuple[str, dict[str, Any]]] = [  # SQL that the examples do not reach
    ("histogram", {"column": "hours", "edges": [0, 0.1, 30, 40.5, 80], "weight": "w", "by": ["employed", "sex"]}),
    ("quantile", {"columns": ["hours"], "by": "employed", "tolerance": 0.01}),
    ("quantile", {"columns": ["income"], "weight": "w", "by": "sex", "probabilities": [0.3], "method": "refinement"}),
    ("table", {"rows": ["region", "stratum"], "columns": ["employed"], "value": "hours", "record_keys": True}),
    ("ttest", {"columns": ["hours", "age"], "paired": True}),
    ("covariance", {"columns": ["employed", "hours", "w"]}),
    ("calibrate", {"margins": {"sex": {"f": 500, "m": 480}}, "method": "linear", "columns": ["age"], "weight": "w"}),
    ("ols", {"formula": "income ~ age * C(sex) + I(hours**2)", "weight": "age", "robust": "HC1"}),
    ("ols", {"formula": "hours ~ age + C(employed)", "design": True}),
    ("glm", {"formula": "duration ~ hours", "family": "poisson", "weight": "age"}),
    ("glm", {"formula": "income ~ age", "family": "gamma", "link": "log"}),
    ("glm", {"formula": "duration ~ age", "family": "negative-binomial", "alpha": 0.5}),
    ("survival", {"time": "duration", "event": "event", "group": ["employed"], "strata": ["region"]}),
    ("cox", {"time": "duration", "event": "event", "covariates": "hours", "strata": ["employed"], "ties": "breslow"}),
]
STREAMED: list[tuple[str, dict[str, Any]]] = [  # records leave the database on purpose: see PUSHES_DOWN
    ("glm", {"formula": "employed ~ age", "link": "probit"}),
    ("glm", {"formula": "employed ~ 0 + age"}),  # starting values
    ("cox", {"time": "duration", "event": "event", "covariates": "age", "design": True}),  # scores
]
CELLS = {  # what leaves are counts, or sums of a model, of records that left it
    *("aim", "cart", "made", "marginals", "mst"),
    *("propensity", "synthetic-risk", "synthetic-within"),
}
PARTLY = {"ols", "glm", "glmm", "cox", *CELLS}  # whose PUSHES_DOWN names exceptions


@pytest.fixture(scope="module")
def server(postgres: Server) -> Server:
    postgres.load("universe", TYPES, FRAME)
    return postgres


def condensed(query: exp.Expr) -> bool:
    """Is every row of a query's result made from groups of records?"""
    if isinstance(query, exp.Subquery):
        return condensed(query.this)
    if isinstance(query, exp.SetOperation):
        return condensed(query.left) and condensed(query.right)
    if not isinstance(query, exp.Select) or "from_" not in query.args:
        return False
    if query.args.get("group"):
        return True
    if any(each.find(exp.AggFunc) and not each.find(exp.Window) for each in query.expressions):
        return True
    return all(condensed(source.this) for source in (query.args["from_"], *query.args.get("joins", ())))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT SUM(x) AS s FROM universe", True),
        ("SELECT n / 2 AS h FROM (SELECT COUNT(*) AS n FROM (SELECT * FROM universe) AS a) AS b", True),
        ("SELECT sex, COUNT(*) AS n FROM universe GROUP BY 1", True),
        ("SELECT x FROM universe WHERE x > 1", False),
        ("SELECT x FROM (SELECT x FROM universe LIMIT 9) AS a", False),
        ("SELECT SUM(x) OVER (PARTITION BY sex) AS s FROM universe", False),
        ("SELECT a.x FROM universe AS a JOIN (SELECT COUNT(*) AS n FROM universe) AS b ON a.x = b.n", False),
    ],
)
def test_statements_that_return_records_are_told_from_aggregations(text: str, expected: bool) -> None:
    assert condensed(sqlglot.parse_one(text, read="postgres")) == expected


def row_level(statements: Sequence[str]) -> list[str]:
    """Those of the statements that return records of the table as they are."""
    selects = [text[text.index("SELECT") :] for text in statements if "universe" in text and "SELECT" in text]
    assert selects, "the database was asked nothing"
    return [text for text in selects if not condensed(sqlglot.parse_one(text, read="postgres"))]


@pytest.mark.parametrize(("name", "options"), [*CASES, *MORE, *STREAMED[:2]])
def test_a_table_in_postgresql_gives_the_same_result_from_aggregations_alone(
    name: str, options: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    texts = () if options.get("design") else ("age >= 20", "region in north,west")
    where = tuple(parse_condition(text, CODEBOOK) for text in texts)
    query = Terms(method=name, options=options, codebook=CODEBOOK, where=where, holders=("office",), seed=1)
    analysis, question = read_question(query)
    whole = table_of(FRAME, CODEBOOK)
    here = drive(analysis, question, {"office": whole.filter(*map(whole.holds, where))})
    with connect(server.url("universe"), tmp_path) as raw:
        before = len(server.statements())
        there = drive(analysis, question, {"office": open_table(raw, CODEBOOK, where, columns_read(question))})
        asked = server.statements()[before:]
    assert_close(there.to_dict(), here.to_dict())
    assert bool(row_level(asked)) == (name in CELLS or (name, options) in STREAMED)


@pytest.mark.parametrize(("name", "statements"), [("describe", 2), ("variance", 3)])  # and one of all records
def test_moments_of_all_columns_are_two_statements(name: str, statements: int, server: Server, tmp_path: Path) -> None:
    options = {"columns": ["income", "hours", "age", "employed"]}
    analysis, question = read_question(Terms(method=name, options=options, codebook=CODEBOOK, holders=("a",), seed=1))
    with connect(server.url("universe"), tmp_path) as raw:
        before = len(server.statements())
        drive(analysis, question, {"a": open_table(raw, CODEBOOK, columns=columns_read(question))})
        asked = [text for text in server.statements()[before:] if "universe" in text and "SELECT" in text]
    assert len(asked) == statements


@pytest.mark.parametrize(("name", "options"), PRIVATE)
def test_the_ask_of_a_private_run_is_the_same_from_aggregations_alone(
    name: str, options: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    query = Terms(
        method=name, options=options, codebook=CODEBOOK, holders=("office",), seed=1, privacy=Privacy(epsilon=1.0)
    )
    analysis, question = read_question(query)
    budget = budget_of(question)
    ask = Ask(budget.order[0]) if isinstance(budget, Fixed) else next(analysis.coordinate(question))
    parts = analysis.parts(question, ask)
    here = checked(analysis.contribute(table_of(FRAME, CODEBOOK), question, ask), parts, "memory")
    with connect(server.url("universe"), tmp_path) as raw:
        before = len(server.statements())
        table = open_table(raw, CODEBOOK, columns=columns_read(question))
        there = checked(analysis.contribute(table, question, ask), parts, "postgres")
        asked = server.statements()[before:]
    for key, part in parts.items():
        tolerance = 0.0 if part.integer else 1e-9
        np.testing.assert_allclose(
            there[key], here[key], rtol=tolerance, atol=tolerance * abs(here[key]).max(initial=0)
        )
    assert bool(row_level(asked)) == (name in CELLS)


def test_exceptions_are_named_where_there_are_some_and_nowhere_else() -> None:
    for name in modules(ANALYSES):
        text = load(ANALYSES, name, "analysis").PUSHES_DOWN
        assert (text != "all") == ("streams" in text) == (name in PARTLY), name
