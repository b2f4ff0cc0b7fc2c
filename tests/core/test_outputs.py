"""An output is never an input, replaces nothing that nobody said may go, and is there as a whole or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest

from statfed.core.errors import UsageError
from statfed.core.outputs import Destinations, files_of, plain_cell


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.parquet"
    path.write_text("records", encoding="utf-8")
    return path


def _link(data: Path) -> Path:
    data.with_name("link").symlink_to(data)
    return data.with_name("link")


def _hard(data: Path) -> Path:
    os.link(data, data.with_name("hard"))
    return data.with_name("hard")


def _around(data: Path) -> Path:
    (data.parent / "sub").mkdir()
    return data.parent / "sub" / ".." / data.name


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("named", [lambda data: data, _link, _hard, _around])
def test_an_input_is_not_written_over_under_any_name(data: Path, named: Any, overwrite: bool) -> None:
    to = Destinations((data.name,), overwrite, data.parent)
    path = named(data)
    for attempt in (lambda: to.check(path), lambda: to.write_text(path, "gone")):
        with pytest.raises(UsageError, match="which is read; want another file"):
            attempt()
    assert data.read_text(encoding="utf-8") == "records"


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("parts", "parts/new.parquet"),
        ("parts/*.parquet", "parts/a.parquet"),
        ("duckdb:///c.db?table=t", "c.db"),
        ("sqlite://c.db?table=t", "c.db"),
        ("not-there-yet.csv", "not-there-yet.csv"),
    ],
)
def test_folders_patterns_and_databases_are_inputs_too(tmp_path: Path, source: str, output: str) -> None:
    (tmp_path / "parts").mkdir()
    for name in ("parts/a.parquet", "c.db"):
        (tmp_path / name).write_text("records", encoding="utf-8")
    with pytest.raises(UsageError, match="which is read"):
        Destinations((source,), True, tmp_path).check(tmp_path / output)


def test_a_file_is_replaced_when_that_was_said_and_not_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.csv"
    Destinations().write_text(path, "first")
    with pytest.raises(UsageError, match=r"out.csv exists; want a new file, or --overwrite"):
        Destinations().write_text(path, "second")
    assert path.read_text(encoding="utf-8") == "first"
    Destinations(overwrite=True).write_text(path, "second")
    assert path.read_text(encoding="utf-8") == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_appears_while_it_is_computed_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"

    def write() -> None:
        with Destinations().writing(path) as draft:
            draft.write_text("ours", encoding="utf-8")
            path.write_text("theirs", encoding="utf-8")

    with pytest.raises(UsageError, match="exists"):
        write()
    assert path.read_text(encoding="utf-8") == "theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interruption_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("before", encoding="utf-8")

    def write() -> None:
        with Destinations(overwrite=True).writing(path) as draft:
            draft.write_text("half", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert path.read_text(encoding="utf-8") == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_tables_beside_the_main_one_are_looked_at_before(tmp_path: Path) -> None:
    (tmp_path / "out-cells.csv").write_text("mine", encoding="utf-8")
    Destinations(overwrite=True).check(tmp_path / "out.csv", beside=True)
    with pytest.raises(UsageError, match=r"out-cells.csv exists.*tables of the result go beside out.csv"):
        Destinations().check(tmp_path / "out.csv", beside=True)
    with pytest.raises(UsageError, match=r"out-cells.csv is out-cells.csv, which is read"):
        Destinations(("out-cells.csv",), True, tmp_path).check(tmp_path / "out.csv", beside=True)


@pytest.mark.parametrize("name", [".", "file/out.csv", "x" * 300, "a\0b"])
def test_what_cannot_be_a_file_is_refused_before_anything_is_done(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match=r"^output: "):
        Destinations().check(tmp_path / name)


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(UsageError, match="twice"):
        Destinations().check(tmp_path / "a", tmp_path / "sub" / ".." / "a")


@pytest.mark.parametrize("source", ["postgres://u:secret@h/db?table=t", "a\0b", "~nobody-at-all/x", "[**", "x://[::1"])
def test_sources_that_are_no_files_are_no_obstacle(tmp_path: Path, source: str) -> None:
    assert not any(file.exists() for file in files_of(source, tmp_path))
    Destinations((source,), False, tmp_path).check(tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\tx", "'\tx"),
        ("\rx", "'\rx"),
        ("-5", "-5"),
        ("+1.5e-3", "+1.5e-3"),
        ("-12 %", "'-12 %"),
        ("a=b", "a=b"),
        ("", ""),
        (-5, -5),
        (None, None),
    ],
)
def test_a_text_that_a_spreadsheet_would_run_is_marked_as_text(value: object, written: object) -> None:
    assert plain_cell(value) == written
