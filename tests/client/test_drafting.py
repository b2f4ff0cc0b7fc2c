"""Drafted codebooks: they fit the data they come from, do not tell extremes, unite whatever the order, survive TOML."""

import itertools
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from statfed.cli import codebook as command
from statfed.client.data.drafting import bounds, draft, to_toml
from statfed.client.data.tables import connect, mismatches, open_table
from statfed.client.data.uniting import union
from statfed.core.codebook import Codebook, load_codebook, make_codebook
from statfed.core.errors import UsageError
from tests.awkward import texts
from tests.client.test_data import CODEBOOK, people, store
from tests.federate import codebook_of


def drafted(values: list[Any], home: Path, form: str = "parquet", name: str = "x") -> Codebook:
    frame = pd.DataFrame({name: pd.Series(values, dtype=object if not values else None)})
    if form == "csv":
        frame.to_csv(home / "d.csv", index=False)
    else:
        frame.to_parquet(home / "d.parquet")
    with connect(f"d.{form}", home) as source:
        found = draft(source)
        assert mismatches(source, found) == []
    return found


@pytest.mark.parametrize(
    ("values", "form", "column"),
    [
        ([17, 93, 40], "parquet", {"type": "integer", "low": 10, "high": 110}),
        ([17, 93, None], "csv", {"type": "number", "low": 9.4, "high": 110}),
        (["17", "93", "40"], "csv", {"type": "integer"}),
        ([0, 1, 1], "parquet", {"type": "integer", "low": 0, "high": 1}),
        ([0.5, 2.25], "csv", {"type": "number"}),
        (["01", "02"], "csv", {"type": "category", "categories": {"01": "", "02": ""}}),
        (["b", "a", None, "b"], "csv", {"type": "category", "categories": {"a": "", "b": ""}}),
        (["true", "False", None], "csv", {"type": "boolean"}),
        ([True, None], "parquet", {"type": "boolean"}),
        (["f"] * 3, "csv", {"type": "category"}),
        ([f"name {i}" for i in range(21)], "csv", {"type": "id"}),
        ([f"town {i}" for i in range(21)] * 5, "csv", {"type": "category"}),
        ([1, "NA", 3], "csv", {"type": "integer", "missing": ("NA",)}),
        ([None, None], "csv", {"type": "number", "low": None, "high": None}),
        (["", " "], "parquet", {"type": "number", "low": None}),
        ([math.inf, -math.inf], "parquet", None),
    ],
)
def test_type_levels_and_bounds_of_a_column(
    values: list[Any], form: str, column: dict[str, Any] | None, tmp_path: Path
) -> None:
    if column is None:
        with pytest.raises(AssertionError, match="infinite"):  # drafted, but the data do not fit any codebook
            drafted(values, tmp_path, form)
        return
    found = drafted(values, tmp_path, form).columns["x"].model_dump()
    assert {key: found[key] for key in column} == column


@pytest.mark.parametrize("name", ["id", "person_id", "ID", "id_household"])
def test_columns_named_id_are_ids(name: str, tmp_path: Path) -> None:
    assert drafted([1, 2, 3], tmp_path, name=name).columns[name].type == "id"


@settings(max_examples=60, deadline=None)
@given(
    st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e12, 1e12),
    st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e12, 1e12),
    st.booleans(),
)
@example(1700000000.1, 1700000000.9, False)
@example(0.9998846421080685, 0.9998846421080685, False)
@example(-0.0, 0.0, True)
@example(1e-300, 1.5, False)
@example(0.0, -2.2250738585072014e-308, False)
@example(1.0, 1.0, True)
@example(0.0, sys.float_info.max, False)
def test_bounds_hold_the_range_without_telling_it(one: float, other: float, integer: bool) -> None:
    if integer:
        one, other = float(int(one)), float(int(other))
    low, high = min(one, other), max(one, other)
    below, above = bounds(low, high, integer)
    assert below <= low <= high <= above
    assert (below >= 0) >= (low >= 0)
    assert math.isfinite(below)
    assert math.isfinite(above)
    indicator = integer and 0 <= low <= high <= 1  # 0 to 1 whichever of the two occur, which is not told
    assert indicator or (below > 0) >= (low > 0)
    assert (above < 0) >= (high < 0)
    assert (above <= 1) >= (0 <= low <= high <= 1)
    if not integer and high > 1 and high - low > 1e-9 * high:
        assert above > high or high == sys.float_info.max


def test_drafts_of_all_forms_unite_to_one_that_every_holder_fits_at_once(tmp_path: Path) -> None:
    sources = store(people(), tmp_path)
    drafts = []
    for source in sources.values():
        with connect(source, tmp_path) as raw:
            drafts.append(draft(raw))
    codebook = union(drafts)
    for source in sources.values():
        with connect(source, tmp_path) as raw:
            assert mismatches(raw, codebook) == []
            table = open_table(raw, codebook)
            assert table.grid(["sex", "region"], n=table["sex"].count())["n"].shape == (2, 3)
            assert table.aggregate(n=table.number("income").count())["n"] > 0


def test_union_is_the_same_whatever_the_order_and_an_empty_holder_changes_nothing(tmp_path: Path) -> None:
    parts: list[list[str | None]] = [["a", "c"], ["b"], [None], []]
    drafts = []
    for values in parts:
        frame = pd.DataFrame({"s": pd.Series(values, dtype=object), "n": np.arange(len(values)) * 100 - 7.0})
        frame.to_csv(tmp_path / "a.csv", index=False)
        with connect("a.csv", tmp_path) as raw:
            drafts.append(draft(raw))
    made = {union(order).digest() for order in itertools.permutations(drafts)}
    assert len(made) == 1
    assert union(drafts).columns["s"].levels == ("a", "b", "c")
    assert union(drafts[:2]).columns == union(drafts).columns


@pytest.mark.parametrize(
    ("first", "second", "united"),
    [
        (("integer", 0, 5), ("number", -1, 2), ("number", -1, 5)),
        ("boolean", ("integer", 0, 1), "boolean"),
        ("boolean", ("integer", 0, 9), ("integer", 0, 9)),
        ("boolean", ("number", -1, 0.5), ("number", -1, 1)),
        (["1", "2", "12"], ("integer", 0, 5), ("integer", 0, 12)),
        (["a"], "id", "id"),
        ("id", ("integer", 0, 5), "id"),
        ("number", ["a"], ["a"]),
        ("number", "boolean", "boolean"),
    ],
)
def test_types_that_can_be_reconciled_are(first: Any, second: Any, united: Any) -> None:
    want = codebook_of({"x": united}).columns["x"]
    for pair in ((first, second), (second, first)):
        assert union([codebook_of({"x": one}) for one in pair]).columns["x"] == want


def test_all_conflicts_are_listed_at_once() -> None:
    one = codebook_of({"a": ["x"], "b": ("number", 0, 1), "c": ["01"], "d": ["x"]})
    two = codebook_of({"a": ("number", 0, 1), "b": "id", "c": ("integer", 0, 3), "d": ["y"]})
    with pytest.raises(
        UsageError, match=r"(?s)a: got types category, number.*b: got types id, number.*c: got"
    ) as caught:
        union([one, two])
    assert "d:" not in str(caught.value)


def test_union_keeps_what_people_wrote() -> None:
    written = make_codebook(
        {
            "title": "Labour force",
            "columns": {
                "s": {"type": "category", "categories": {"f": "women"}, "missing": ["9"], "label": "sex"},
                "w": {"type": "number", "role": "weight", "low": 0, "high": 10, "unit": "persons"},
            },
            "design": {"replicate_method": "brr"},
        }
    )
    assert union([written, written]) == written


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(texts(1), min_size=2, max_size=4, unique=True),
    codes=st.dictionaries(texts(1), texts(), min_size=1, max_size=4),
    low=st.floats(-1e300, 0) | st.sampled_from([-0.0, 0.0, -3.0]),
    missing=st.lists(texts(1) | st.integers(-99, 99).map(float), max_size=3),
)
def test_toml_reads_back_equal(
    names: list[str], codes: dict[str, str], low: float, missing: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    codebook = make_codebook(
        {
            "title": names[0],
            "columns": {
                names[0]: {"type": "category", "categories": codes, "missing": missing, "label": names[1]},
                names[1]: {"type": "number", "low": low, "high": 1e-5, "role": "weight", "required": True},
            },
            "design": {"replicate_method": "jk1", "replicate_rscales": [0.5, 1.0]},
        }
    )
    path = tmp_path_factory.getbasetemp() / "x.codebook.toml"
    path.write_text(to_toml(codebook), encoding="utf-8")
    assert load_codebook(path) == codebook
    assert load_codebook(path).digest() == codebook.digest()  # which tells -0.0 from 0.0
    assert list(load_codebook(path).columns) == list(codebook.columns)


@pytest.fixture
def survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    people(50).to_csv("a.csv", index=False)
    people(60, seed=1).to_parquet("b.parquet")
    return tmp_path


def test_infer_then_check_then_show_on_the_command_line(survey: Path) -> None:
    run = CliRunner().invoke
    made = run(command.app, ["infer", "a.csv", "b.parquet", "--out", "p.codebook.toml"])
    assert made.exit_code == 0, made.output
    assert run(command.app, ["infer", "a.csv", "--out", "p.codebook.toml"]).exit_code != 0  # never overwrites by itself
    assert run(command.app, ["check", "p.codebook.toml", "a.csv"]).exit_code == 0
    assert json.loads(run(command.app, ["check", "p.codebook.toml", "b.parquet", "--json"]).stdout)["fits"] is True
    assert "income" in run(command.app, ["show", "p.codebook.toml"]).stdout
    printed = run(command.app, ["infer", "a.csv", "b.parquet"]).stdout
    assert printed == Path("p.codebook.toml").read_text()
    shown = json.loads(run(command.app, ["show", "p.codebook.toml", "--json"]).stdout)
    assert shown["digest"] == load_codebook(Path("p.codebook.toml")).digest()


def test_check_exits_2_and_lists_all_mismatches_with_counts(survey: Path) -> None:
    strict = CODEBOOK.model_dump(mode="json")
    strict["columns"]["sex"]["categories"] = {"f": ""}
    strict["columns"]["gone"] = {"type": "number"}
    Path("p.codebook.toml").write_text(to_toml(make_codebook(strict)))
    found = CliRunner().invoke(command.app, ["check", "p.codebook.toml", "a.csv", "--json"])
    assert found.exit_code == 2
    listed = {m["column"]: m for m in json.loads(found.stdout)["mismatches"]}
    assert set(listed) == {"sex", "gone"}
    assert (listed["sex"]["count"], listed["sex"]["examples"]) == ((people(50).sex == "m").sum(), ["m"])
    plain = CliRunner().invoke(command.app, ["check", "p.codebook.toml", "a.csv"])
    assert plain.exit_code == 2
    assert "outside" in plain.stdout
