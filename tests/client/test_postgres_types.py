"""Dates, texts and arrays of a real PostgreSQL: the same rules as for files. Skipped without one."""

from pathlib import Path

import pytest

from statfed.client.data.drafting import draft
from statfed.client.data.tables import connect, local_mismatches, mismatches, open_table
from statfed.core.codebook import make_codebook
from statfed.core.terms import parse_condition
from tests.postgres import Server, postgres

__all__ = ["postgres"]

CODEBOOK = make_codebook(
    {
        "columns": {
            "p": {"type": "id", "role": "unit"},
            "d": {"type": "date", "low": "1900-01-01", "high": "2100-01-01", "missing": ["9999-12-31"]},
            "t": {"type": "text", "length": 5},
            "a": {"type": "array", "length": 3, "low": -5, "high": 5},
        }
    }
)
GOOD = (
    "('p', date '2024-03-20', ' héllo ', '{1,2,3}')",
    "('p', '9999-12-31', '', null)",
    "('q', '1969-12-31', 'x', '{-5,0,5}')",
)


def _made(server: Server, name: str, day: str, array: str, *rows: str) -> str:
    server.execute(
        f"drop table if exists {name}",
        f"create table {name} (p text, d {day}, t text, a {array})",
        f"insert into {name} select p, d::{day}, t, a::{array} from (values {', '.join(rows)}) v(p, d, t, a)",  # noqa: S608
    )
    return server.url(name)


@pytest.mark.parametrize("day", ["date", "timestamp", "text"])
@pytest.mark.parametrize("array", ["double precision[]", "real[]", "integer[]", "numeric(5,1)[]"])
def test_values_are_those_of_files(postgres: Server, day: str, array: str, tmp_path: Path) -> None:
    with connect(_made(postgres, "good", day, array, *GOOD), tmp_path) as source:
        assert mismatches(source, CODEBOOK) == []
        rows = open_table(source, CODEBOOK).expr.to_pyarrow().to_pylist()
        assert [tuple(row.values()) for row in rows] == [
            ("p", 19802, "héllo", [1, 2, 3]),
            ("p", None, None, None),
            ("q", -1, "x", [-5, 0, 5]),
        ]
        early = open_table(source, CODEBOOK, [parse_condition("d < 2000-01-01", CODEBOOK)], per_unit=1)
        assert early.expr.to_pyarrow().column("p").to_pylist() == ["q"]
        found = draft(source)
        assert mismatches(source, found) == []
        assert (found.columns["d"].type, found.columns["a"].type, found.columns["a"].length) == ("date", "array", 3)


def test_every_mismatch_is_found(postgres: Server, tmp_path: Path) -> None:
    bad = (
        "('p', date 'infinity', 'too long', '{1,2}')",
        "('p', '0044-03-15 BC', 'x', '{1,null,3}')",
        "('p', '1800-01-01', 'x', '{1,NaN,3}')",
        "('p', '2200-01-01', 'x', '{-Infinity,2,3}')",
        "('p', null, 'x', '{{1},{2},{3}}')",
        "('p', null, 'x', '{1,2,7}')",
    )
    with connect(_made(postgres, "bad", "date", "double precision[]", *bad), tmp_path) as source:
        found = [
            (one.column, one.message.split(";")[0].split(": ")[1], one.count)
            for one in local_mismatches(source, CODEBOOK)
        ]
    assert found == [
        ("d", "got values that are not calendar days", 2),
        ("d", "got values below the codebook's bound", 1),
        ("d", "got values above the codebook's bound", 1),
        ("t", "got text that is too long", 1),
        ("a", "got values that are not lists of numbers", 1),
        ("a", "got arrays of another length", 1),
        ("a", "got arrays with missing entries", 1),
        ("a", "got entries that are not finite", 2),
        ("a", "got entries below the codebook's bound", 1),
        ("a", "got entries above the codebook's bound", 1),
    ]


def test_drafts_of_arrays_of_several_dimensions_admit_them(postgres: Server, tmp_path: Path) -> None:
    rows = ("('p', date '2024-03-20', 'x', '{{1,2}}')", "('q', '2024-03-20', 'x', '{1,2}')")
    with connect(_made(postgres, "deep", "date", "real[]", *rows), tmp_path) as source:
        found = draft(source)
        assert mismatches(source, found) == []
        assert found.columns["a"].type == "category"


def test_text_that_is_no_date_is_a_mismatch_and_no_error_of_the_server(postgres: Server, tmp_path: Path) -> None:
    rows = [f"('p', '{day}', 'x', '{{1,2,3}}')" for day in ("2023-02-29", "20240320", "0000-01-01", "x", "2024-02-29")]
    with connect(_made(postgres, "texts", "text", "real[]", *rows), tmp_path) as source:
        assert [one.count for one in local_mismatches(source, CODEBOOK)] == [3]  # eight digits are a date
