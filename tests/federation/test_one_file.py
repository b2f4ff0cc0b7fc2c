"""One file has one budget: in a workspace, whatever it is called there, and a second budget is never begun unsaid."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.progress import silent
from statfed.core.study import Study
from statfed.federation.federation import Federation
from statfed.federation.homes import home_names
from statfed.federation.simulation import world_of

BOOK = {"columns": {"x": {"type": "number", "low": 0, "high": 100}}}
TWICE = "a and b have the same data: every record counts twice"
AGAIN = "a: its data were asked before in this workspace, as those of {}, and have a second budget"


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
        home_names(Study(method="count", holders={"a": source}))["a"]
        for source in (
            str(data),
            f"{data}?decimal=.",
            str(tmp_path / "link.csv"),
            f"{tmp_path}/../{tmp_path.name}/x.csv",
        )
    }
    assert len(found) == 1


def test_a_copy_that_is_asked_later_is_noted_and_its_own_again_is_not(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    shutil.copy(data, copy)
    work = tmp_path / "w"
    assert notes({"first": str(data)}, work) == notes({"first": str(data)}, work)
    assert any(AGAIN.format("first") in note for note in notes({"a": str(copy)}, work))
    assert not any("asked before" in note for note in notes({"first": str(data)}, tmp_path / "other"))


def test_a_frame_that_comes_again_is_noted(tmp_path: Path) -> None:
    """Each session writes it to a place of its own."""
    frame = pd.DataFrame({"x": np.arange(50.0)})
    for number in range(2):
        with Federation({"a": frame}, BOOK, workspace=tmp_path / "w") as fed:
            fed.mean("x")
            assert fed.last is not None
            assert any(AGAIN.format("a") in note for note in fed.last.warnings) is bool(number)
