"""One file has one budget: in a workspace, whatever it and its holder are called there."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.ledger import read_only
from statfed.client.guard.register import POINTER
from statfed.core.codebook import make_codebook
from statfed.core.errors import UsageError
from statfed.core.progress import silent
from statfed.core.study import Study, make_study
from statfed.federation.federation import Federation
from statfed.federation.homes import DATA, placed
from statfed.federation.simulation import world_of

BOOK = {"columns": {"x": {"type": "number", "low": 0, "high": 100}}}
TWICE = "a and b have the same data: every record counts twice"
AGAIN = "a: its data were asked before in this workspace, as those of {}; one data set has one budget"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "x.csv"
    pd.DataFrame({"x": np.arange(50)}).to_csv(path, index=False)
    return path


def notes(holders: dict[str, str], workspace: Path) -> list[str]:
    with Federation(holders, BOOK, workspace=workspace) as fed:
        fed.mean("x")
        assert fed.last is not None
        return list(fed.last.warnings)


@pytest.mark.parametrize("how", ["path", "options", "copy", "symlink", "hardlink"])
def test_one_file_of_two_holders_is_noted_whatever_its_name(how: str, data: Path, tmp_path: Path) -> None:
    other = tmp_path / "y.csv"
    match how:
        case "copy":
            shutil.copy(data, other)
        case "symlink":
            other.symlink_to(data)
        case "hardlink":
            os.link(data, other)
        case _:
            other = data
    second = f"{other}?decimal=." if how == "options" else str(other)
    study = Study(method="count", holders={"a": str(data), "b": second})
    world = world_of(study, tmp_path, make_codebook(BOOK), silent)
    assert any(TWICE in note for note in world.warnings)


def test_a_file_has_one_home_whatever_leads_to_it_and_however_it_is_read(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(data)
    found = {
        placed(Study(method="count", holders={"a": source}), tmp_path).names["a"]
        for source in (
            str(data),
            f"{data}?decimal=.",
            str(tmp_path / "link.csv"),
            f"{tmp_path}/../{tmp_path.name}/x.csv",
        )
    }
    assert len(found) == 1


def spent(workspace: Path) -> list[float]:
    """What is taken of every budget in a workspace."""
    found = []
    for path in sorted((workspace / "tables").glob(f"*/{DATA}")):
        with read_only(path.with_name("ledger.sqlite")) as ledger:
            found.append(ledger.spending().share)
    return found


def test_a_copy_under_another_name_spends_of_the_budget_of_its_original(data: Path, tmp_path: Path) -> None:
    copy, work = tmp_path / "copy.csv", tmp_path / "w"
    shutil.copy(data, copy)
    for holders, expected in (({"first": data}, False), ({"a": copy}, True), ({"first": data}, False)):
        before = spent(work)
        with Federation({name: str(path) for name, path in holders.items()}, BOOK, workspace=work) as fed:
            fed.mean("x", privacy={"epsilon": 0.5})
            assert fed.last is not None
            assert any(AGAIN.format("first") in note for note in fed.last.warnings) is expected
            [one] = spent(work)
            assert one > sum(before)
            assert fed.last.spending[0].share == one
    assert not any("asked before" in note for note in notes({"first": str(data)}, tmp_path / "other"))


def test_a_frame_that_comes_again_spends_of_the_same_budget(tmp_path: Path) -> None:
    """Each session writes it to a place of its own."""
    frame = pd.DataFrame({"x": np.arange(50.0)})
    for _ in range(2):
        with Federation({"a": frame}, BOOK, workspace=tmp_path / "w") as fed:
            fed.mean("x", privacy={"epsilon": 0.5})
    assert len(spent(tmp_path / "w")) == 1


def test_one_file_of_two_holders_has_no_epsilon(data: Path, tmp_path: Path) -> None:
    study = make_study(
        {
            "method": "mean",
            "options": {"columns": ["x"]},
            "holders": {"a": str(data), "b": str(data)},
            "privacy": {"epsilon": 1.0, "delta": 1e-6},
        }
    )
    with pytest.raises(UsageError, match=f"{TWICE}.*no epsilon of this study would be true"):
        world_of(study, tmp_path, make_codebook(BOOK), silent)


def test_what_a_home_says_of_its_data_and_its_register_is_its_owners_alone(data: Path, tmp_path: Path) -> None:
    with Federation({"a": str(data)}, BOOK, workspace=tmp_path / "w") as fed:
        fed.mean("x", privacy={"epsilon": 0.5})
    modes = {
        path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "w" / "tables").glob("a-*/*") if path.is_file()
    }
    assert {modes[DATA], modes[POINTER]} == {0o600}
