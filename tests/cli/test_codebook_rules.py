"""`statfed codebook check` and rules: how many records break each, at the holder."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.data.drafting import to_toml
from statfed.client.data.edits import broken_rules
from statfed.client.data.tables import connect, mismatches
from statfed.core.codebook import load_codebook

BOOK = """rules = ["age >= 16 or employed = false", "age < 100", "job = 1 or employed = true"]
[columns.age]
type = "integer"
low = 0
high = 120
missing = [-9]
[columns.employed]
type = "boolean"
[columns.job]
type = "category"
categories = [1, 2]
"""
ROWS = "age,employed,job\n40,true,1\n12,true,1\n15,false,1\n-9,true,2\n14,,1\n13,true,1\n"


def test_check_counts_the_records_that_break_each_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    book, data = tmp_path / "c.codebook.toml", tmp_path / "people.csv"
    book.write_text(BOOK)
    data.write_text(ROWS)
    found = CliRunner().invoke(app, ["codebook", "check", str(book), str(data), "--json"])
    assert found.exit_code == 2
    (row,) = json.loads(found.stdout)["mismatches"]
    assert row["column"] == "age, employed"
    assert (row["count"], row["rows"]) == (2, [2, 6])
    assert row["message"] == "got records that break the rule 'age >= 16 or employed = false'; want none"
    shown = CliRunner().invoke(app, ["codebook", "check", str(book), str(data)])
    assert shown.exit_code == 2
    assert "employed" in shown.stdout
    told = CliRunner().invoke(app, ["codebook", "show", str(book)]).stdout
    assert "rule: age >= 16 or employed = false" in told


def test_what_leaves_the_holder_says_nothing_of_rules(tmp_path: Path) -> None:
    book, data = tmp_path / "c.codebook.toml", tmp_path / "people.csv"
    book.write_text(BOOK)
    data.write_text(ROWS)
    codebook = load_codebook(book)
    with connect(str(data), tmp_path) as source:
        assert mismatches(source, codebook) == []
        assert len(broken_rules(source, codebook)) == 1
    book.write_text(to_toml(codebook))
    assert load_codebook(book) == codebook


def test_a_rule_on_a_column_that_the_data_have_not_is_not_counted(tmp_path: Path) -> None:
    book, data = tmp_path / "c.codebook.toml", tmp_path / "people.csv"
    book.write_text(BOOK)
    data.write_text("age,job\n140,1\n40,2\n")
    with connect(str(data), tmp_path) as source:
        found = broken_rules(source, load_codebook(book))
    assert [(one.column, one.count) for one in found] == [("age", 1)]
