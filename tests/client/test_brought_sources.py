"""Kinds of sources from other packages: read like any, never in a built-in's place, no word of the data told."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from statfed.client.data.drafting import draft
from statfed.client.data.tables import connect, mismatches, open_table
from statfed.core import discovery
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError

CODEBOOK = make_codebook({"columns": {"x": {"type": "integer"}, "a": {"type": "array", "length": 2}}})
TABLE = pa.table({"x": [1, 2, None], "a": [[1.0, 2.0], None, [3.0, 4.0]]})
Bring = Callable[..., None]


@pytest.fixture
def bring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bring]:
    """Have packages bring sources: each a mapping of what its module holds; None: one that cannot be imported."""
    points: list[Any] = []

    def entries(group: str) -> list[Any]:
        return points if group == "statfed.sources" else []

    def brings(**contents: Any) -> None:
        name = f"outsider{len(points)}"
        if contents:
            module = ModuleType(f"{name}_module")
            vars(module).update({"state": _state} | contents)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        points.append(
            SimpleNamespace(name=name, value=f"{name}_module", dist=SimpleNamespace(name=name, version="1.0"))
        )
        _forget()

    monkeypatch.setattr(discovery, "entry_points", entries)
    _forget()
    yield brings
    monkeypatch.undo()
    _forget()


def _forget() -> None:
    discovery.plugins.cache_clear()
    discovery.modules.cache_clear()


def _state(source: str, home: Path) -> str:
    return "1"


def _table(source: str, home: Path) -> Any:
    return TABLE


def _dataset(source: str, home: Path) -> Any:
    pyarrow.parquet.write_table(TABLE, home / "hidden.parquet")
    return pyarrow.dataset.dataset(str(home / "hidden.parquet"))


def _lazy(source: str, home: Path) -> Any:
    connection = ibis.duckdb.connect()
    return connection.create_table("t", TABLE)


@pytest.mark.parametrize("opened", [_table, _dataset, _lazy])
@pytest.mark.parametrize("source", ["people.odd", "folder.odd", "odd://server/people?token=secret"])
def test_what_a_plugin_opens_is_read_like_any_source(bring: Bring, opened: Any, source: str, tmp_path: Path) -> None:
    (tmp_path / "people.odd").touch()
    (tmp_path / "folder.odd").mkdir()
    asked: list[tuple[str, Path]] = []

    def open_source(source: str, home: Path) -> Any:
        asked.append((source, home))
        return opened(source, home)

    bring(SCHEMES=("odd",), SUFFIXES=(".odd",), open_source=open_source)
    with connect(source, tmp_path) as raw:
        assert raw.embedded
        assert mismatches(raw, CODEBOOK) == []
        assert mismatches(raw, draft(raw)) == []
        assert open_table(raw, CODEBOOK).expr.to_pyarrow().to_pydict() == TABLE.to_pydict()
        assert len(raw.fingerprint()) == 64
    assert asked == [(source, tmp_path)]


def test_the_fingerprint_follows_what_the_plugin_says_of_the_state(bring: Bring, tmp_path: Path) -> None:
    state = ["one"]
    bring(SCHEMES=("odd",), open_source=_table, state=lambda *_: state[0])
    with connect("odd://people", tmp_path) as raw:
        first = raw.fingerprint()
        assert raw.fingerprint() == first
        state[0] = "two"
        assert raw.fingerprint() != first


@pytest.mark.parametrize(
    ("contents", "taken"),
    [
        ({"SCHEMES": ("odd", "postgres")}, "postgres"),
        ({"SCHEMES": ("odd", "Trino")}, "trino"),
        ({"SCHEMES": ("odd",), "SUFFIXES": (".csv", ".parquet")}, ".csv, .parquet"),
    ],
)
def test_a_built_in_scheme_or_suffix_cannot_be_taken(
    bring: Bring, contents: dict[str, Any], taken: str, tmp_path: Path
) -> None:
    bring(**contents, open_source=_table)
    (tmp_path / "a.csv").write_text("x,a\n9,\n")
    with connect("a.csv", tmp_path) as raw:  # the built-in reads it, whatever is installed
        assert open_table(raw, CODEBOOK).expr.to_pyarrow().column("x").to_pylist() == [9]
    with pytest.raises(UsageError, match=f"plugin outsider0 1.0: reads {taken}, which statfed itself does"):
        connect("odd://people", tmp_path)


def test_two_plugins_for_one_kind_are_an_error_that_names_both(bring: Bring, tmp_path: Path) -> None:
    bring(SCHEMES=("odd",), open_source=_table)
    bring(SCHEMES=("odd",), open_source=_table)
    with pytest.raises(UsageError, match=r"odd://people: outsider0 1.0 and outsider1 1.0 both read it"):
        connect("odd://people", tmp_path)


def test_a_plugin_that_cannot_be_imported_is_an_error_only_where_nothing_else_reads_it(
    bring: Bring, tmp_path: Path
) -> None:
    bring()
    bring(SCHEMES=("odd",), open_source=_table)
    connect("odd://people", tmp_path).close()
    with pytest.raises(UsageError, match=r"outsider0 of outsider0 1.0: cannot be imported \(ModuleNotFoundError"):
        connect("even://people", tmp_path)
    (tmp_path / "2024.v2").mkdir()
    pyarrow.parquet.write_table(TABLE, tmp_path / "2024.v2" / "a.parquet")
    connect("2024.v2", tmp_path).close()


def _quoting(source: str, home: Path) -> Any:
    raise UsageError("line 7: Anna, 7731")


@pytest.mark.parametrize("source", ["odd://user:secret@server/people?token=secret", "people.odd"])
def test_errors_of_a_plugin_tell_their_type_and_nothing_else(bring: Bring, source: str, tmp_path: Path) -> None:
    (tmp_path / "people.odd").touch()
    bring(SCHEMES=("odd",), SUFFIXES=(".odd",), open_source=_quoting)
    with pytest.raises(UsageError, match=r"open_source of outsider0 1.0 raised UsageError") as caught:
        connect(source, tmp_path)
    assert "7731" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_error_of_the_state_tells_its_type_alone(bring: Bring, tmp_path: Path) -> None:
    bring(SCHEMES=("odd",), open_source=_table, state=_quoting)
    with connect("odd://people", tmp_path) as raw, pytest.raises(UsageError, match=r"state of outsider0 1.0") as caught:
        raw.fingerprint()
    assert "7731" not in str(caught.value)


def test_something_else_than_a_table_is_refused_by_its_type(bring: Bring, tmp_path: Path) -> None:
    bring(SCHEMES=("odd",), open_source=lambda *_: [7731])
    with pytest.raises(UsageError, match=r"got list from outsider0 1.0; want a pyarrow Table") as caught:
        connect("odd://people", tmp_path)
    assert "7731" not in str(caught.value)


def test_claims_that_are_no_tuple_are_refused(bring: Bring, tmp_path: Path) -> None:
    bring(SCHEMES="odd", open_source=_table)
    with pytest.raises(UsageError, match="SCHEMES: got str; want a tuple of texts"):
        connect("odd://people", tmp_path)


def test_a_missing_file_of_a_plugin_s_kind_is_named_as_such(bring: Bring, tmp_path: Path) -> None:
    bring(SUFFIXES=(".odd",), open_source=_table)
    with pytest.raises(UsageError, match=r"gone.odd: no such file"):
        connect("gone.odd", tmp_path)
