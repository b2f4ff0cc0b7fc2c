"""Conditions: one meaning, SQL's, whatever way they are written; and no other than what the codebook has."""

from collections.abc import Callable
from typing import Any

import ibis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from statfed.client.data.conversion import as_days
from statfed.core.codebook import make_codebook
from statfed.core.conditions import (
    MOST_CONDITIONS,
    Condition,
    Either,
    canonical,
    check_syntax,
    parse_condition,
    parse_where,
    read_clause,
)
from statfed.core.errors import UsageError
from statfed.core.table import Table
from statfed.core.terms import Terms

BOOK = make_codebook(
    {
        "columns": {
            "age": {"type": "integer"},
            "household income": {"type": "number"},
            "region": {"type": "category", "categories": ["north", "south", "Research and Development", "or", "é"]},
            "works": {"type": "boolean"},
            "born": {"type": "date"},
            "sex": {"type": "category", "categories": ["f", "m"]},
            "name": {"type": "id"},
            "story": {"type": "text", "length": 9},
            "wave": {"type": "array", "length": 2},
        }
    }
)
REGIONS = BOOK.columns["region"].levels


def read(text: str) -> list[str]:
    return [str(clause) for clause in parse_where((text,), BOOK)]


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("age >= 18", ["age >= 18.0"]),
        ("age>=18 AND sex=f", ["age >= 18.0", "sex == f"]),
        ("sex = f or sex = m", ["sex in f,m"]),
        ("sex = f or age < 18", ["(sex == f or age < 18.0)"]),
        ("not (sex = f or age < 18)", ["sex != f", "age >= 18.0"]),
        ("not sex = f and age < 18", ["sex != f", "age < 18.0"]),
        ("not(sex = f and age < 18)", ["(sex != f or age >= 18.0)"]),
        ("age between 18 and 64 or sex = f", ["(age >= 18.0 or sex == f)", "(age <= 64.0 or sex == f)"]),
        ("age not between 18 and 64", ["(age < 18.0 or age > 64.0)"]),
        ("age in (1, 2,3)", ["age in 1.0,2.0,3.0"]),
        ("age in 1,2 and sex = f", ["age in 1.0,2.0", "sex == f"]),
        ("age not in (1, 2)", ["age != 1.0", "age != 2.0"]),
        ("age = 1 or age = 2", ["age in 1.0,2.0"]),
        ("region not in north,south", ["region != north", "region != south"]),
        ("region = Research and Development", ["region == 'Research and Development'"]),
        ("region in Research and Development, north", ["region in 'Research and Development',north"]),
        ("region = or or region = 'north'", ["region in north,'or'"]),
        ("region = e\u0301", ["region == é"]),
        ("household income >= 3", ["`household income` >= 3.0"]),
        ("`household income`>=3", ["`household income` >= 3.0"]),
        ("household income is null", ["`household income` is null"]),
        ("not household income is null", ["`household income` is not null"]),
        ("born >= 2021-01-01", ["born >= 2021-01-01"]),
        ("born in ('2021-01-01', 2021-02-01)", ["born in 2021-01-01,2021-02-01"]),
        ("born between '2021-01-01' and 2021-12-31", ["born >= 2021-01-01", "born <= 2021-12-31"]),
        ("sex = f or (sex = f and age = 3)", ["sex == f"]),
        ("((age = 3))", ["age == 3.0"]),
        ("age <> -1.5e1", ["age != -15.0"]),
    ],
)
def test_a_condition_has_one_form(text: str, clauses: list[str]) -> None:
    assert read(text) == clauses
    again = parse_where(clauses, BOOK)  # what is shown can be asked
    assert list(map(canonical, again)) == list(map(canonical, parse_where((text,), BOOK)))
    assert tuple(read_clause(canonical(clause)) for clause in again) == tuple(
        read_clause(clause.model_dump(mode="json")) for clause in map(read_clause, map(canonical, again))
    )


@pytest.mark.parametrize(
    "text",
    [
        "age",
        "age >=",
        "age >= 18 sex",
        "age >= 18 or",
        "(age >= 18",
        "age >= 18)",
        "age between 18",
        "age between 18 or 64",
        "age is nothing",
        "age not 18",
        "age in ()",
        "age in (1",
        "age = nan",
        "age = inf",
        "age = 1e999",
        "age = 1_000",
        "age = 1,5",
        "age = 9007199254740993",
        "age = old",
        "sex > f",
        "sex = x",
        "sex between f and m",
        "sex in (f, x)",
        "region = 'north",
        "born = 2021-02-30",
        "born = 20210101",
        "born in 2021-01-01, 5",
        "name = a",
        "name is null",
        "story = a",
        "wave is null",
        "wave = 1",
        "salary > 1",
        "`age > 1",
        "age >= 18; drop table people",
        "age >= 18 -- ",
        "1 = 1",
        "age = age",
        "",
        "not",
        "(" * 60 + "age = 1" + ")" * 60,
        "not " * 60 + "age = 1",
        " and ".join(f"(age = {i} or household income = {i})" for i in range(12)).join(["not (", ")"]),
    ],
)
def test_what_has_no_meaning_is_refused_in_words(text: str) -> None:
    with pytest.raises(UsageError, match="where"):
        parse_where((text,), BOOK)


VALUES = {
    "age": ["-1", "0", "2", "17.5"],
    "household income": ["0", "0.1", "0.9998846421080685", "1e300"],
    "region": [f"'{region}'" for region in REGIONS],
    "works": ["true", "false"],
    "born": ["'2020-02-29'", "'2021-01-01'"],
    "sex": ["'f'", "'m'"],
}
ORDERED = ("age", "household income", "born")


@st.composite
def comparisons(draw: Callable[..., Any]) -> tuple[str, str]:
    """A comparison, as it is asked and as SQL."""
    name = draw(st.sampled_from(sorted(VALUES)))
    value = st.sampled_from(VALUES[name])
    kinds = ["compared", "in", "null"] + ["between"] * (name in ORDERED)
    kind = draw(st.sampled_from(kinds))
    sql = '"' + name + '"'

    def typed(text: str) -> str:
        return f"date {text}" if name == "born" else f"'{text}'::double" if name in ORDERED else text

    if kind == "null":
        op = draw(st.sampled_from(["is null", "is not null"]))
        return f"`{name}` {op}", f"{sql} {op}"
    negated = draw(st.sampled_from(["", "not "]))
    if kind == "between":
        low, high = draw(value), draw(value)
        return f"{name} {negated}between {low} and {high}", f"{sql} {negated}between {typed(low)} and {typed(high)}"
    if kind == "in":
        several = draw(st.lists(value, min_size=1, max_size=3))
        return (
            f"`{name}` {negated}in ({', '.join(several)})",
            f"{sql} {negated}in ({', '.join(map(typed, several))})",
        )
    op = draw(st.sampled_from(["=", "!=", *(["<", "<=", ">", ">="] if name in ORDERED else [])]))
    one = draw(value)
    return f"{name} {op} {one}", f"{sql} {op} {typed(one)}"


FORMULAS = st.recursive(
    comparisons(),
    lambda inner: st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", f"not ({one[1]})")),
        st.tuples(inner, st.sampled_from(["and", "or", "OR"]), inner).map(
            lambda three: (f"({three[0][0]}) {three[1]} ({three[2][0]})", f"({three[0][1]}) {three[1]} ({three[2][1]})")
        ),
    ),
    max_leaves=6,
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.none() | st.sampled_from([-1, 0, 1, 2, 17, 18]),
            "household income": st.none() | st.sampled_from([0.0, 0.1, 0.9998846421080685, 1.0, 1e300]),
            "region": st.none() | st.sampled_from(REGIONS),
            "works": st.none() | st.booleans(),
            "born": st.none() | st.sampled_from(["2020-02-28", "2020-02-29", "2021-01-01", "2022-01-01"]),
            "sex": st.none() | st.sampled_from(["f", "m"]),
        }
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(formula=FORMULAS, rows=ROWS)
def test_conditions_select_what_sql_selects_of_the_same_records(
    formula: tuple[str, str], rows: list[dict[str, Any]]
) -> None:
    text, sql = formula
    people = 'age int, "household income" double, region text, works bool, born date, sex text'
    names = ("age", "household income", "region", "works", "born", "sex")
    engine = ibis.duckdb.connect()
    engine.con.execute(f"create table people ({people})")
    engine.con.executemany(
        "insert into people values (?, ?, ?, ?, ?, ?)", [[row[name] for name in names] for row in rows]
    )
    [(wanted,)] = engine.con.execute(f"select count(*) from people where {sql}").fetchall()  # noqa: S608
    stored = engine.table("people")
    table = Table(stored.mutate(born=as_days(stored.born, "duckdb")), BOOK)
    chosen = table.filter(*(table.holds(clause) for clause in parse_where((text,), BOOK)))
    assert chosen.aggregate(n=chosen.expr.count())["n"] == wanted
    engine.disconnect()


def terms(where: Any) -> Terms:
    return Terms(method="count", codebook=BOOK, where=where, holders=("a",), seed=None)


def test_a_travelling_condition_is_read_back_as_it_was() -> None:
    asked = terms(parse_where(("sex = f or age in (1, 2)", "region in north,south", "born is not null"), BOOK))
    read_back = Terms.model_validate_json(asked.model_dump_json())
    assert read_back == asked
    assert read_back.digest() == asked.digest()
    assert [type(clause) for clause in read_back.where] == [Either, Condition, Condition]


@pytest.mark.parametrize(
    "where",
    [
        [{"column": "age", "op": "==", "value": None}],
        [{"column": "age", "op": "is null", "value": 1}],
        [{"column": "age", "op": "in", "value": 1}],
        [{"column": "age", "op": "in", "value": []}],
        [{"column": "sex", "op": "==", "value": ["f"]}],
        [{"column": "age", "op": "in", "value": ["1"]}],
        [{"column": "age", "op": ">=", "value": float("nan")}],
        [{"any": []}],
        [{"any": [{"column": "age", "op": "==", "value": 1}]}],
        [{"any": [{"any": [{"column": "age", "op": "==", "value": 1}] * 2}] * 2}],
        [{"any": [{"column": "age", "op": "==", "value": 1}, {"column": "name", "op": "==", "value": "a"}]}],
        [{"any": [{"column": "age", "op": "==", "value": 1}] * 501}] * 2,
        [{"any": [{"column": "age", "op": "==", "value": 1}] * (MOST_CONDITIONS + 1)}],
    ],
)
def test_conditions_that_no_reader_makes_are_refused(where: Any) -> None:
    with pytest.raises(ValidationError):
        terms(where)


def test_the_same_alternatives_have_one_text_whatever_their_order() -> None:
    one, other = (parse_condition(t, BOOK) for t in ("sex = f or age in (2, 1)", "age in (1, 2, 2) or sex = f"))
    assert canonical(one) == canonical(other)
    twice = Either(any=(Condition(column="age", op="==", value=1.0),) * 2)
    assert canonical(twice) == canonical(Condition(column="age", op="==", value=1.0))


def test_policies_may_name_conditions_before_there_is_a_codebook() -> None:
    for text in ("age >= 18", "sex = f or age < 18", "dept = Research and Development", "`a b` is not null"):
        check_syntax(text)
    for text in ("age between 1", "(age = 1", "age is"):
        with pytest.raises(UsageError):
            check_syntax(text)
