"""A real PostgreSQL as a holder: the same tables as from files, computed there and not loaded. Skipped without one."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from statfed.client.data.drafting import draft
from statfed.client.data.tables import connect, local_mismatches, mismatches, open_table
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.terms import parse_condition
from tests.client.test_data import CODEBOOK, describe, people, rows
from tests.federate import codebook_of
from tests.postgres import Server, postgres

__all__ = ["postgres"]

TYPES = {
    "person": "text",
    "age": "smallint",
    "income": "double precision",
    "sex": "char(2)",
    "region": "varchar(2)",
    "status": "numeric(3,1)",
    "works": "boolean",
}


@pytest.fixture
def server(postgres: Server) -> Server:
    postgres.load("people", TYPES, people())
    return postgres


def test_typed_text_and_schema_qualified_tables_equal_the_csv_file(server: Server, tmp_path: Path) -> None:
    people().to_csv(tmp_path / "a.csv", index=False)
    columns = ", ".join(f"{name}::text" for name in TYPES)
    server.execute(
        "drop schema if exists survey cascade",
        "create schema survey",
        f"create table survey.texts as select {columns} from people",  # noqa: S608
    )
    where = [parse_condition("age >= 5", CODEBOOK), parse_condition("works = true", CODEBOOK)]
    with connect("a.csv", tmp_path) as file:
        expected = rows(open_table(file, CODEBOOK)), rows(open_table(file, CODEBOOK, where, per_unit=1))
        shown = describe(open_table(file, CODEBOOK), CODEBOOK, ["age", "income"])["columns"]
    for name in ("people", "public.people", "survey.texts"):
        with connect(server.url(name), tmp_path) as raw:
            assert not raw.embedded
            assert mismatches(raw, CODEBOOK) == []
            table = open_table(raw, CODEBOOK)
            assert (rows(table), rows(open_table(raw, CODEBOOK, where, per_unit=1))) == expected
            for row, first in zip(describe(table, CODEBOOK, ["age", "income"])["columns"], shown, strict=True):
                assert row == {k: pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for k, v in first.items()}


def test_aggregates_and_grids_are_computed_in_the_database(server: Server, tmp_path: Path) -> None:
    with connect(server.url("people"), tmp_path) as raw:
        table = open_table(raw, CODEBOOK, [parse_condition("age >= 5", CODEBOOK)])
        before = len(server.statements())
        found = table.aggregate(n=table["age"].count(), s=table.number("income").sum())
        grid = table.grid(["region", "sex"], n=table["age"].count(), s=table.number("income").sum())
        asked = [text for text in server.statements()[before:] if "people" in text]
    frame = people()
    kept = frame[frame.age >= 5].assign(income=lambda f: f.income.where(f.income != -8))
    assert found == {"n": len(kept), "s": pytest.approx(kept.income.sum())}
    for i, region in enumerate(("01", "02", "10")):
        for j, sex in enumerate("fm"):
            cell = kept[(kept.region == region) & (kept.sex == sex)]
            assert (grid["n"][i, j], grid["s"][i, j]) == (len(cell), pytest.approx(cell.income.sum()))
    assert len(asked) == 2
    assert all("COUNT(" in text and "SUM(" in text for text in asked)
    assert "GROUP BY" in asked[1]


def test_the_check_is_one_statement_and_says_what_the_holder_alone_may_see(server: Server, tmp_path: Path) -> None:
    server.execute(
        "drop table if exists bad",
        "create table bad as select * from (values ('a', 1.5::float8, '7x', 'NaN'::numeric, 'infinity'::float8, 0.0),"
        " ('zz', 2, '8', 4, 5, 1)) v(s, n, t, d, i, w)",
    )
    codebook = make_codebook(
        {
            "columns": {
                "s": {"type": "category", "categories": ["a", "b"]},
                "n": {"type": "integer"},
                "t": {"type": "number", "high": 7},
                "d": {"type": "number", "required": True},
                "i": {"type": "number"},
                "w": {"type": "number", "role": "weight"},
            }
        }
    )
    with connect(server.url("bad"), tmp_path) as raw:
        before = len(server.statements())
        found = mismatches(raw, codebook)
        assert len([text for text in server.statements()[before:] if "bad" in text]) == 1
        assert [message.split(":")[0] for message in found] == ["s", "n", "t", "t", "d", "i", "w"]
        own = {m.message: m for m in local_mismatches(raw, codebook)}
        assert [own[message].examples for message in found] == [
            *[("zz",), ("1.5",), ("7x",), ("8",), ("(missing)",), ("Infinity",), ("0",)]
        ]


def test_streaming_uses_a_cursor_of_the_server(server: Server, tmp_path: Path) -> None:
    with connect(server.url("people"), tmp_path) as raw:
        table = open_table(raw, CODEBOOK, columns=["income"])
        before = len(server.statements())
        blocks = list(table.batches([table.number("income")], rows=64))
        fetches = [text for text in server.statements()[before:] if text.startswith("FETCH FORWARD 64")]
    assert [len(block) for block in blocks] == [64, 64, 64, 8]
    assert len(fetches) >= 4
    values = people().income
    assert np.nansum(np.concatenate(blocks)) == pytest.approx(values[values != -8].sum())


def test_the_holder_s_table_cannot_be_changed(server: Server, tmp_path: Path) -> None:
    with connect(server.url("people"), tmp_path) as raw, pytest.raises(Exception, match="read-only transaction"):
        raw.expr.get_backend().raw_sql("delete from people")


def test_fingerprint_follows_the_contents_and_not_the_order(server: Server, tmp_path: Path) -> None:
    def fingerprint() -> str:
        with connect(server.url("people"), tmp_path) as raw:
            return raw.fingerprint()

    before = fingerprint()
    server.load("people", TYPES, people().iloc[::-1])
    assert fingerprint() == before
    server.execute("update people set income = income + 1e-9 where age = (select max(age) from people)")
    assert fingerprint() != before


def test_a_wrong_password_and_a_missing_table_are_refused_without_the_password(server: Server, tmp_path: Path) -> None:
    wrong = server.url("people").replace(server.password, "not-the-word")
    with pytest.raises(UsageError, match=r"cannot be opened: .*password authentication failed") as caught:
        connect(wrong, tmp_path)
    assert "not-the-word" not in str(caught.value)
    with pytest.raises(UsageError, match="table 'nosuch' cannot be opened") as caught:
        connect(server.url("nosuch"), tmp_path)
    assert server.password not in str(caught.value)


def test_an_empty_table_and_one_of_nulls_fit_and_add_nothing(server: Server, tmp_path: Path) -> None:
    for rows_there in (0, 3):
        nulls = pd.DataFrame({name: [None] * rows_there for name in TYPES})
        server.load("hollow", TYPES, nulls)
        with connect(server.url("hollow"), tmp_path) as raw:
            assert mismatches(raw, CODEBOOK) == []
            table = open_table(raw, CODEBOOK)
            assert table.aggregate(s=table.number("age").sum()) == {"s": 0}
            assert table.grid(["sex"], n=table["sex"].count())["n"].tolist() == [0, 0]
            assert draft(raw).columns["age"].bounds is None


def test_a_draft_from_the_database_fits_its_data(server: Server, tmp_path: Path) -> None:
    with connect(server.url("people"), tmp_path) as raw:
        drafted = draft(raw)
        assert mismatches(raw, drafted) == []
    types = {name: column.type for name, column in drafted.columns.items()}
    assert types == {
        "person": "category",
        "age": "integer",
        "income": "number",
        "sex": "category",
        "region": "category",
        "status": "number",
        "works": "boolean",
    } | {"person": types["person"]}


def test_a_boolean_can_be_computed_with(server: Server, tmp_path: Path) -> None:
    with connect(server.url("people"), tmp_path) as raw:
        table = open_table(raw, codebook_of({"works": "boolean"}))
        works = (people().works == True).sum()  # noqa: E712
        assert table.aggregate(s=table.number("works").sum())["s"] == works
        for kind in ("number", "integer"):
            table = open_table(raw, codebook_of({"works": kind}))
            assert table.aggregate(s=table.number("works").sum())["s"] == works
