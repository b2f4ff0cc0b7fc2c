"""One data set on a machine has one budget: a second home on it is refused, whatever name it gives the data."""

import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from statfed.client.data.identity import WHOLE, content, identity
from statfed.client.guard.ledger import Ledger, read_only
from statfed.client.guard.register import Register, point
from statfed.core.errors import Refused, UsageError
from tests.office import MEANS, Office, query

SPENT = "accounted for by another ledger"


def kept(home: Path, source: str, spends: bool = True) -> str:
    """Open the ledger of a home on some data, and record one release. Returns the head."""
    home.mkdir(exist_ok=True)
    terms = {"dataset": home.name, "epsilon": 1.0, "delta": 1e-5}
    with Ledger(home / "ledger.sqlite", unit="record", source=source, **terms) as ledger:  # type: ignore[arg-type]
        runs = ledger.spending().entries
        return ledger.disclose(f"run-{runs}", "study", 1, "") if spends else ledger.head()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(500)), encoding="utf-8")
    return path


def _copied(data: Path) -> str:
    return str(shutil.copy(data, data.with_name("copy.csv")))


def _linked(data: Path) -> str:
    data.with_name("link.csv").symlink_to(data)
    return str(data.with_name("link.csv"))


def _linked_folder(data: Path) -> str:
    (data.parent / "other").symlink_to(data.parent)
    return str(data.parent / "other" / data.name)


def _relative(data: Path) -> str:
    return f"../{data.name}"


def _hard_linked_and_edited(data: Path) -> str:
    os.link(data, data.with_name("hard.csv"))
    with data.open("a", encoding="utf-8") as file:
        file.write("501,7\n")
    return str(data.with_name("hard.csv"))


def _edited(data: Path) -> str:
    data.write_text("a,b\n1,2\n", encoding="utf-8")
    return str(data)


@pytest.mark.parametrize(
    "renamed",
    [str, _copied, _linked, _linked_folder, _relative, _hard_linked_and_edited, _edited],
)
def test_a_second_home_on_the_same_data_is_refused_under_any_name(
    tmp_path: Path, data: Path, renamed: Callable[[Path], str], caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path / "first", str(data))
    source = renamed(data)
    with caplog.at_level(logging.ERROR, "statfed.holder"), pytest.raises(Refused, match=SPENT) as caught:
        kept(tmp_path / "second", source)
    assert str(tmp_path) not in str(caught.value)  # it travels
    assert str(tmp_path / "first" / "ledger.sqlite") in caplog.text
    kept(tmp_path / "first", str(data))  # the first goes on


def test_data_of_ones_own_and_an_updated_file_are_no_reason_to_refuse(tmp_path: Path, data: Path) -> None:
    kept(tmp_path / "first", str(data))
    other = tmp_path / "other.csv"
    other.write_text(data.read_text(encoding="utf-8") + "900,1\n", encoding="utf-8")
    kept(tmp_path / "second", str(other))
    with data.open("a", encoding="utf-8") as file:
        file.write("901,1\n")
    kept(tmp_path / "first", str(data))
    kept(tmp_path / "second", str(other))


def test_what_an_earlier_state_of_the_data_was_stays_bound(tmp_path: Path, data: Path) -> None:
    old = shutil.copy(data, tmp_path / "of-may.csv")
    kept(tmp_path / "first", str(data))
    with data.open("a", encoding="utf-8") as file:
        file.write("901,1\n")
    kept(tmp_path / "first", str(data))
    with pytest.raises(Refused, match=SPENT):
        kept(tmp_path / "second", str(old))


def test_a_home_that_never_recorded_anything_gives_way(tmp_path: Path, data: Path) -> None:
    kept(tmp_path / "first", str(data), spends=False)
    kept(tmp_path / "second", str(data))
    with pytest.raises(Refused, match=SPENT):
        kept(tmp_path / "first", str(data))


def test_a_part_of_a_folder_and_a_folder_around_a_part_are_the_same_data(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for number in range(3):
        pd.DataFrame({"x": np.arange(number, 50)}).to_parquet(folder / f"{number}.parquet")
    kept(tmp_path / "first", str(folder))
    for number, source in enumerate([folder / "1.parquet", folder / "*.parquet", folder.parent / "parts/../parts"]):
        with pytest.raises(Refused, match=SPENT):
            kept(tmp_path / f"second-{number}", str(source))


def test_tables_of_one_database_file_are_data_sets_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "db.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript("create table people (a); create table firms (a); insert into people values (1)")
    db.close()
    kept(tmp_path / "first", f"sqlite:///{path}?table=people")
    kept(tmp_path / "second", f"sqlite:///{path}?table=firms")
    with pytest.raises(Refused, match=SPENT):
        kept(tmp_path / "third", f"sqlite:///{shutil.copy(path, tmp_path / 'copy.db')}?table=people")
    with pytest.raises(Refused, match=SPENT):
        kept(tmp_path / "fourth", f"sqlite:///{path}?table=MAIN.People")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("postgres://h/db?table=t", "postgresql://me:secret@H:5432/db?table=public.t", True),
        ("postgres://localhost/db?table=t", "postgres://127.0.0.1/db?table=T", True),
        ("postgres://h/db?table=t", "postgres://h/db?table=u", False),
        ("postgres://h/db?table=t", "postgres://h/other?table=t", False),
        ("postgres://h/db?table=t", "postgres://h:5433/db?table=t", False),
        ("postgres://h:1e400/db?table=t", "postgres://h:1e401/db?table=t", False),
    ],
)
def test_a_servers_table_is_told_by_its_address_and_not_by_who_reads_it(
    tmp_path: Path, one: str, other: str, same: bool
) -> None:
    found = [identity(source, tmp_path, content).keys for source in (one, other)]
    assert (found[0] == found[1]) is same
    assert not any("secret" in key or "me" in key.partition(" ")[0].partition("://")[2] for key in found[1])


def test_a_large_file_is_told_by_blocks_of_it_and_read_once_for_each_state(
    tmp_path: Path, register: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    large = tmp_path / "large.csv"
    large.write_bytes(rng.bytes(2 * WHOLE))
    before = content(large)
    with large.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    assert content(large) != before  # the last block counts
    read: list[Path] = []
    monkeypatch.setattr(
        "statfed.client.guard.register.content", lambda file: read.append(file) or f"digest {len(read)}"
    )
    known = Register(register)
    assert [known.content(large) for _ in range(3)] == ["digest 1"] * 3
    large.touch()
    assert known.content(large) == "digest 2"
    known.close()


def test_a_simulation_keeps_its_own_register_and_binds_nothing(tmp_path: Path, data: Path, register: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        point(tmp_path / name, tmp_path / "workspace.sqlite")
        kept(tmp_path / name, str(data))
    assert not register.exists()


def test_a_second_holder_answers_nothing_on_the_data_of_the_first(tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": np.linspace(1.0, 9.0, 200)})
    first = Office(tmp_path / "a", frame)
    asked = query(**MEANS)
    first.say("admit", asked)
    first.say("ask", asked, 1, "means")
    second = Office(tmp_path / "b", frame)
    assert SPENT in second.refusal("admit", asked)
    assert second.refusal("ask", asked, 1, "means")
    with read_only(second.home / "ledger.sqlite") as ledger:
        assert [entry.kind for entry in ledger.entries()] == ["open"]
    first.close()
    second.close()


def test_data_that_may_not_be_read_are_refused_without_their_path(tmp_path: Path, data: Path) -> None:
    data.unlink()
    data.mkdir()
    with pytest.raises(UsageError, match="cannot be opened") as caught:
        kept(tmp_path / "first", f"{data}\0.csv")
    assert "people" not in str(caught.value)
