"""Data access at the holder: the same records give the same table whatever they are stored in, and nothing leaks."""

import gzip
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from statfed.client.data import tables as holder_data
from statfed.client.data.tables import connect, local_mismatches, mismatches, open_table
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.errors import UsageError
from statfed.core.method import read_question
from statfed.core.table import Table
from statfed.core.terms import Terms, parse_condition
from tests.federate import codebook_of

CODEBOOK = make_codebook(
    {
        "columns": {
            "person": {"type": "id", "role": "unit"},
            "age": {"type": "integer", "low": 0, "high": 120, "missing": [-9]},
            "income": {"type": "number", "low": -1000, "high": 1e6, "missing": [-8, "NA"]},
            "sex": {"type": "category", "categories": ["f", "m"]},
            "region": {"type": "category", "categories": ["01", "02", "10"]},
            "status": {"type": "category", "categories": ["1", "2"], "missing": ["9"]},
            "works": {"type": "boolean"},
        }
    }
)


def people(n: int = 200, seed: int = 0) -> pd.DataFrame:
    """Raw records with every kind of missing value."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "person": [f"p{i}" for i in rng.integers(0, max(n // 3, 1), n)],
            "age": np.where(rng.random(n) < 0.1, -9.0, rng.integers(0, 100, n)),
            "income": np.where(rng.random(n) < 0.1, -8.0, np.round(rng.normal(3e4, 1e4, n), 2) / 3),
            "sex": rng.choice(["f", "m"], n),
            "region": rng.choice(["01", "02", "10"], n),
            "status": rng.choice([1.0, 2.0, 9.0], n),
            "works": rng.random(n) < 0.5,
        }
    )
    for name in ("age", "income", "sex", "region", "status", "works"):
        frame[name] = frame[name].astype(object).mask(rng.random(n) < 0.1)
    return frame.astype({"age": float, "income": float, "status": float})


def store(frame: pd.DataFrame, home: Path) -> dict[str, str]:
    """The same records in every embedded form: name to source."""
    frame.to_csv(home / "a.csv", index=False)
    with (home / "a.csv").open("rb") as plain, gzip.open(home / "b.csv.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    frame.to_csv(home / "a.tsv", index=False, sep="\t")
    frame.to_parquet(home / "a.parquet")
    frame.reset_index(drop=True).to_feather(home / "a.feather")
    (home / "parts").mkdir()
    for i, part in enumerate(np.array_split(np.arange(len(frame)), 3)):
        frame.iloc[part].to_parquet(home / "parts" / f"{i}.parquet")
    with duckdb.connect(home / "c.db") as connection:
        connection.register("frame", frame)
        connection.execute("create table people as select * from frame")
    with sqlite3.connect(home / "s.db") as lite:
        frame.to_sql("people", lite, index=False)
    lite.close()
    return {
        "csv": "a.csv",
        "csv.gz": "b.csv.gz",
        "tsv": "a.tsv",
        "parquet": "a.parquet",
        "arrow": "a.feather",
        "folder": "parts",
        "glob": "parts/*.parquet",
        "duckdb": "duckdb:///c.db?table=people",
        "duckdb, absolute": f"duckdb:///{home}/c.db?table=main.people",
        "sqlite": "sqlite:///s.db?table=people",
    }


def rows(table: Table) -> list[tuple[Any, ...]]:
    """Records in an order of their own."""
    return sorted((tuple(r.values()) for r in table.expr.to_pyarrow().to_pylist()), key=repr)


def describe(table: Table, codebook: Codebook, columns: list[str]) -> dict[str, Any]:
    """Both sums of `describe` over one holder."""
    query = Terms(method="describe", options={"columns": columns}, codebook=codebook, holders=("a",), seed=1)
    module, question = read_question(query)
    run = module.coordinate(question)
    from statfed.core.method import Total

    total: Any = None
    while True:
        try:
            ask = run.send(total)
        except StopIteration as end:
            return end.value.to_dict()  # type: ignore[no-any-return]
        total = Total({k: np.asarray(v) for k, v in module.contribute(table, question, ask).items()})


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str], Any]:
    def write(text: str, name: str = "x.csv") -> Any:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return connect(name, tmp_path)

    return write


def test_the_same_records_in_every_form_give_identical_tables_and_results(tmp_path: Path) -> None:
    sources = store(people(), tmp_path)
    expected: Any = None
    described: Any = None
    for form, source in sources.items():
        with connect(source, tmp_path) as raw:
            assert raw.embedded
            assert mismatches(raw, CODEBOOK) == [], form
            table = open_table(raw, CODEBOOK)
            bounded = open_table(raw, CODEBOOK, per_unit=2)
            found = rows(table), rows(bounded)
            expected = expected or found
            assert found == expected, form
            shown = describe(table, CODEBOOK, ["age", "income", "works"])["columns"]
            described = described or shown
            for row, first in zip(shown, described, strict=True):  # up to the order in which the engine adds
                assert row == {k: pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for k, v in first.items()}
            grid = table.grid(["region", "works"], n=table["works"].count())["n"]
            assert grid.sum() == sum(r[4] is not None and r[6] is not None for r in expected[0])


def test_normalised_values_follow_the_codebook_and_not_the_stored_type(opened: Callable[..., Any]) -> None:
    text = (
        "person,age,income,sex,region,status,works\n 7 ,1e2,-8,f,1,1.0,YES\np,042,NA, m ,02,2,f\np,-9.0,+.5,,10,9.0,\n"
    )
    with opened(text) as raw:
        assert mismatches(raw, CODEBOOK) == []
        assert rows(open_table(raw, CODEBOOK)) == sorted(
            [
                ("7", 100, None, "f", "01", "1", True),
                ("p", 42, None, "m", "02", "2", False),
                ("p", None, 0.5, None, "10", None, None),
            ],
            key=repr,
        )


def test_every_mismatch_of_every_column_is_listed_at_once_without_a_value_or_a_count(
    opened: Callable[..., Any],
) -> None:
    codebook = make_codebook(
        {
            "columns": {
                "gone": {"type": "number"},
                "a": {"type": "number"},
                "b": {"type": "integer"},
                "c": {"type": "boolean"},
                "d": {"type": "category", "categories": ["x", "y"]},
                "e": {"type": "number", "low": 5, "high": 6},
                "f": {"type": "number", "required": True},
                "w": {"type": "number", "role": "weight"},
                "k": {"type": "number", "role": "record-key"},
                "long": {"type": "category", "categories": [f"c{i}" for i in range(50)]},
                "fine": {"type": "integer"},
            }
        }
    )
    text = "a,b,c,d,e,f,w,k,long,fine\n7731x,773.1,7731,7731,7731,,-7731,7731,7731,1\n1,1,1,x,-7731,1,,,c1,1\n"
    with opened(text) as raw:
        found = mismatches(raw, codebook)
        names = ["gone", "a", "b", "c", "d", "e", "e", "f", "w", "w", "k", "k", "long"]
        assert [message.split(":")[0] for message in found] == names
        assert "773" not in "".join(found)
        assert "want one of x, y" in found[4]
        assert "at least 5" in found[5]
        own = local_mismatches(raw, codebook)
        assert [m.message for m in own] == found
        assert (own[4].count, own[4].examples) == (1, ("7731",))
        assert "7731" not in repr(own)
        assert mismatches(raw, codebook, ["fine"]) == []
        assert mismatches(raw, codebook, ["gone"]) == found[:1]


def test_infinity_and_numbers_beyond_64_bits_are_mismatches_and_nan_is_missing(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"x": [1.0, np.inf, np.nan], "n": [1e300, 1.0, np.nan], "u": np.array([1, 2**63, 3], np.uint64)}
    )
    codebook = codebook_of({"x": "number", "n": "integer", "u": "integer"})
    with duckdb.connect(tmp_path / "c.db") as connection:
        connection.register("frame", frame)
        connection.execute(
            "create table t as select x::double x, n::double n, u from frame union all select 'nan'::double, 1, 1"
        )
    with connect("duckdb://c.db?table=t", tmp_path) as raw:
        own = local_mismatches(raw, codebook)
        assert [(m.column, m.count) for m in own] == [("x", 1), ("n", 1), ("u", 1)]
        assert "infinite" in own[0].message
        table = open_table(raw, codebook, columns=["x"])
        assert table.aggregate(n=table["x"].count()) == {"n": 2}


@pytest.mark.parametrize("text", ["1,5", "1_000", "inf", "nan", "0x1F", "1 000", "-", "1e999", "٣", "NULL"])
def test_text_that_only_some_engines_take_for_a_number_is_refused(opened: Callable[..., Any], text: str) -> None:
    with opened(f'x\n"{text}"\n1\n') as raw:
        assert len(mismatches(raw, codebook_of({"x": "number"}))) == 1


def test_different_dtypes_at_two_holders_give_the_same_codes(tmp_path: Path) -> None:
    codebook = codebook_of({"s": ["1", "2"], "n": "integer"})
    for i, values in enumerate((["1", "2"], [1, 2], [1.0, 2.0], [1.0, 2.0, None], [True, None])):
        pd.DataFrame({"s": values, "n": values}).to_parquet(tmp_path / f"{i}.parquet")
    for i in range(4):
        with connect(f"{i}.parquet", tmp_path) as raw:
            assert mismatches(raw, codebook) == []
            table = open_table(raw, codebook)
            assert table.grid(["s"], n=table["s"].count())["n"].tolist() == [1, 1]
            assert table.aggregate(n=table["n"].sum()) == {"n": 3}
    with connect("4.parquet", tmp_path) as raw:
        assert mismatches(raw, codebook) == ["s: got a category outside the codebook; want one of 1, 2"]


def test_empty_file_and_holder_with_only_missings_fit_and_contribute_nothing(tmp_path: Path) -> None:
    store(people(0), tmp_path)
    pd.DataFrame({name: [None] * 3 for name in CODEBOOK.columns}).to_parquet(tmp_path / "missings.parquet")
    (tmp_path / "blank.csv").write_text(",".join(CODEBOOK.columns) + "\n" + ",,,,,,\n", encoding="utf-8")
    for source in ("a.csv", "a.parquet", "a.feather", "sqlite:///s.db?table=people", "missings.parquet", "blank.csv"):
        with connect(source, tmp_path) as raw:
            assert mismatches(raw, CODEBOOK) == [], source
            table = open_table(raw, CODEBOOK)
            assert table.aggregate(s=table.number("income").sum()) == {"s": 0}
            assert table.grid(["sex"], n=table["sex"].count())["n"].tolist() == [0, 0]
            assert describe(table, CODEBOOK, ["age"])["columns"][0]["mean"] is None


def test_a_level_of_another_holder_is_a_zero_cell_and_an_unlisted_one_a_mismatch(tmp_path: Path) -> None:
    codebook = codebook_of({"s": ["a", "b", "c"]})
    for name, values in {"one": ["a", "c"], "two": ["c", "d"]}.items():
        pd.DataFrame({"s": values}).to_csv(tmp_path / f"{name}.csv", index=False)
    with connect("one.csv", tmp_path) as raw:
        assert mismatches(raw, codebook) == []
        table = open_table(raw, codebook)
        assert table.grid(["s"], n=table["s"].count())["n"].tolist() == [1, 0, 1]
    with connect("two.csv", tmp_path) as raw:
        assert mismatches(raw, codebook) == ["s: got a category outside the codebook; want one of a, b, c"]
        table = open_table(raw, codebook)
        with pytest.raises(UsageError, match="outside the codebook"):
            table.grid(["s"], n=table["s"].count())


@pytest.mark.parametrize(
    ("condition", "keep"),
    [
        ("age >= 18", lambda f: f.age >= 18),
        ("age != 18", lambda f: f.age.notna() & (f.age != 18)),
        ("sex = f", lambda f: f.sex == "f"),
        ("sex != f", lambda f: f.sex == "m"),
        ("region in 01,10", lambda f: f.region.isin(["01", "10"])),
        ("works = true", lambda f: f.works == True),  # noqa: E712
        ("works != true", lambda f: f.works == False),  # noqa: E712
    ],
)
def test_conditions_keep_what_pandas_keeps_and_no_missing(tmp_path: Path, condition: str, keep: Any) -> None:
    frame = people(300, seed=3)
    frame.to_csv(tmp_path / "a.csv", index=False)
    clean = frame.assign(age=frame.age.where(frame.age != -9))
    with connect("a.csv", tmp_path) as raw:
        table = open_table(raw, CODEBOOK, [parse_condition(condition, CODEBOOK)], columns=["income"])
        assert table.aggregate(n=table.expr.count())["n"] == keep(clean).sum()


def test_columns_that_are_not_read_need_not_exist_and_read_ones_are_all_named(opened: Callable[..., Any]) -> None:
    with opened("age\n7\n") as raw:
        table = open_table(raw, CODEBOOK, columns=["age"])
        assert list(table.expr.columns) == ["age"]
        with pytest.raises(UsageError, match=r"(?s)sex: not a column.*income: not a column"):
            open_table(raw, CODEBOOK, [parse_condition("income > 1", CODEBOOK)], columns=["age", "sex"])


def test_at_most_k_records_of_a_unit_chosen_by_its_own_records_alone(tmp_path: Path) -> None:
    frame = people(300, seed=5)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.sample(frac=1, random_state=1).to_csv(tmp_path / "b.csv", index=False)
    others = frame[frame.person != frame.person[0]]
    others.to_parquet(tmp_path / "c.parquet")
    where = [parse_condition("age >= 10", CODEBOOK)]
    kept = []
    for name in ("a.parquet", "b.csv", "c.parquet"):
        with connect(name, tmp_path) as raw:
            kept.append(rows(open_table(raw, CODEBOOK, where, per_unit=2)))
    assert kept[0] == kept[1]
    assert kept[2] == [row for row in kept[0] if row[0] != frame.person[0]]
    counts = pd.Series([row[0] for row in kept[0]]).value_counts()
    full = frame[(frame.age >= 10)].person.value_counts()
    assert counts.to_dict() == full.clip(upper=2).to_dict()


def test_choice_of_a_unit_s_records_does_not_prefer_values(tmp_path: Path) -> None:
    frame = pd.DataFrame({"person": np.repeat(np.arange(2000), 2), "works": np.tile([0, 1], 2000)})
    frame.to_parquet(tmp_path / "a.parquet")
    codebook = codebook_of({"person": {"type": "id", "role": "unit"}, "works": "boolean"})
    with connect("a.parquet", tmp_path) as raw:
        table = open_table(raw, codebook, per_unit=1)
        assert 900 < table.aggregate(n=table.number("works").sum())["n"] < 1100


def test_bounding_records_of_a_unit_is_refused_without_units(opened: Callable[..., Any]) -> None:
    with opened("person,age\np,1\n,2\n") as raw:
        with pytest.raises(UsageError, match="person: got records without a unit"):
            open_table(raw, CODEBOOK, columns=["age"], per_unit=1)
        with pytest.raises(UsageError, match="at least 1"):
            open_table(raw, CODEBOOK, [parse_condition("age < 2", CODEBOOK)], columns=["age"], per_unit=0)
        with pytest.raises(UsageError, match="role unit"):
            open_table(raw, codebook_of({"age": "integer"}), per_unit=1)


def test_fingerprint_changes_with_the_data_only(tmp_path: Path) -> None:
    sources = store(people(20), tmp_path)
    before = {}
    for form, source in sources.items():
        with connect(source, tmp_path) as raw:
            before[form] = raw.fingerprint()
            assert raw.fingerprint() == before[form]
    assert len(set(before.values())) == len(sources) - 1  # the glob is the folder
    with sqlite3.connect(tmp_path / "s.db") as lite:
        lite.execute("update people set age = 3")
    lite.close()
    with (tmp_path / "a.csv").open("a") as file:
        file.write("p,1,1,f,01,1,true\n")
    for form in ("csv", "sqlite"):
        with connect(sources[form], tmp_path) as raw:
            assert raw.fingerprint() != before[form]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone.csv", "gone.csv: no such file; want a .csv"),
        ("x.xlsx", "x.xlsx: got .xlsx extension; want a .csv"),
        ("empty", "empty: no file of data in it"),
        ("bad.parquet", "bad.parquet: not readable as Parquet: it ends too early"),
        ("duckdb:///gone.db?table=t", "duckdb:///gone.db: no such file"),
        ("duckdb:///bad.parquet?table=t", "no readable duckdb database with a table 't'"),
        ("sqlite:///bad.parquet?table=t", "no readable sqlite database with a table 't'"),
        ("postgres://u:secret@127.0.0.1:1/db", "got no table; want \\?table=NAME"),
        ("postgres://u:secret@127.0.0.1:1/db?table=t", "postgres://127.0.0.1:1/db: table 't' cannot be opened"),
        ("trino://u:secret@127.0.0.1:1/db?table=t", "pip install 'ibis-framework\\[trino\\]'"),
        ("nosuch://u:secret@h/db?table=t", "nosuch://h/db: table 't' cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_named_without_a_secret_or_a_line_of_data(
    tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("x.xlsx", "bad.parquet"):
        (tmp_path / name).write_text("private line\n", encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        connect(source, tmp_path)
    assert "secret" not in str(caught.value)
    assert "private" not in str(caught.value)


def test_a_broken_line_far_down_a_file_does_not_appear_in_the_message(opened: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="line 60002: got 3 fields; want 2") as caught:
        opened("a,b\n" + "1,2\n" * 60_000 + "secret,3,4\n" + "1,2\n" * 10)
    assert "secret" not in str(caught.value)


def test_sources_are_opened_for_reading_only_and_leave_no_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    sources = store(people(20), tmp_path)
    with connect(sources["duckdb"], tmp_path) as raw, connect(sources["duckdb"], tmp_path) as again:
        assert mismatches(again, CODEBOOK) == []
        with pytest.raises(duckdb.Error):
            raw.expr.get_backend().con.execute("delete from source.main.people")
        assert "private" in repr(raw)
        assert list(spill.iterdir())
    assert not list(spill.iterdir())
    raw.close()


def test_check_and_aggregates_are_single_statements_whatever_the_number_of_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = pd.DataFrame(np.ones((5, 60)), columns=[f"x{i}" for i in range(60)])
    wide.to_parquet(tmp_path / "a.parquet")
    codebook = codebook_of(dict.fromkeys(map(str, wide), ("number", 0, 1)))
    run, asked = holder_data._run, []

    def spy(expr: Any) -> dict[str, Any]:
        asked.append(expr)
        return run(expr)

    monkeypatch.setattr(holder_data, "_run", spy)
    with connect("a.parquet", tmp_path) as raw:
        assert mismatches(raw, codebook) == []
    assert len(asked) == 1


@pytest.mark.filterwarnings("ignore:fetch_record_batch:DeprecationWarning")
def test_batches_stream_in_bounded_pieces_from_a_query_larger_than_the_memory_allowed(tmp_path: Path) -> None:
    with duckdb.connect() as connection:
        made = connection.sql("select i::double x, i % 7 y from range(5000000) t(i)")
        made.write_parquet(str(tmp_path / "a.parquet"), row_group_size=100_000)
    codebook = codebook_of({"x": "number", "y": "integer"})
    with connect("a.parquet", tmp_path) as raw:
        raw.expr.get_backend().con.execute("set memory_limit = '60MB'")  # 80 MB of result
        raw.expr.get_backend().con.execute("set max_temp_directory_size = '0MB'")
        raw.expr.get_backend().con.execute("set threads = 1")
        table = open_table(raw, codebook)
        total, largest = 0.0, 0
        for block in table.batches([table.number("x"), table.number("y")]):
            total, largest = total + block[:, 0].sum(), max(largest, len(block))
    assert total == sum(range(5_000_000))
    assert largest <= 65_536
