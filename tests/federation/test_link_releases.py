"""Releases over matched units beside earlier ones: no sum or difference of studies has a withheld cell in it."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.errors import Refused
from statfed.core.result import Result
from statfed.core.study import make_study
from statfed.federation import Options, run_study
from tests.federation.test_link import CODEBOOK, answered, joined, study, tables

SIZE = study({"key": "id", "minimum_frequency": 5})


def analysis(method: str, minimum: int = 5, where: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    asked = {"key": "id", "reveal": "totals", "minimum_frequency": minimum}
    return study(asked, method=method, options=options, where=list(where))


TABLE = analysis("table", rows=["region"], columns=["sector"])
FEW = {("A", "y"): 0, ("B", "y"): 3, ("C", "y"): 3}


def released(folder: Path, given: dict[str, Any]) -> Result:
    found: Result = answered(folder, given).result
    return found


def test_the_cells_of_these_tests_are_few() -> None:
    plain = joined().groupby(["region", "sector"]).size()
    assert {key: int(plain.get(key, 0)) for key in FEW} == FEW


@pytest.mark.parametrize(
    "second",
    [
        SIZE,
        pytest.param(analysis("mean", columns=["income"]), marks=pytest.mark.whole),
        pytest.param(analysis("ols", formula="income ~ age"), marks=pytest.mark.whole),
    ],
    ids=["size", "mean", "ols"],
)
def test_what_a_withheld_cell_is_part_of_is_not_released_after_it(second: dict[str, Any], tmp_path: Path) -> None:
    """The size less the cells that are shown would be the two that are not."""
    table = released(tmp_path, TABLE).tables["cells"]
    assert {row["count"] for row in table if (row["region"], row["sector"]) in FEW} == {None}
    with pytest.raises(Refused, match="an earlier study of these holders withheld"):
        released(tmp_path, second)


def test_an_empty_cell_is_withheld_as_one_of_few_and_so_is_its_row_afterwards(tmp_path: Path) -> None:
    """The number of region A less its cell that is shown would be the 0 that is not."""
    table = released(tmp_path, TABLE).tables["cells"]
    assert [row["count"] for row in table if (row["region"], row["sector"]) == ("A", "y")] == [None]
    with pytest.raises(Refused, match="an earlier study of these holders withheld"):
        released(tmp_path, analysis("mean", columns=["income"], by=["region"]))


def test_nor_a_table_with_such_a_cell_after_what_it_is_part_of(tmp_path: Path) -> None:
    assert released(tmp_path, SIZE).tables["matched"][0]["count"] == len(joined())
    with pytest.raises(Refused, match="or the other way round"):
        released(tmp_path, TABLE)


def test_rows_without_matches_of_a_withheld_cell_are_released(tmp_path: Path) -> None:
    released(tmp_path, TABLE)
    found = released(tmp_path, analysis("mean", columns=["income"], by=["sector"]))
    shown = {row["sector"]: row["count"] for row in found.tables["estimates"]}
    assert shown == {"x": int((joined()["sector"] == "x").sum()), "y": None}
    assert found.facts["observations"] is None
    apart = released(tmp_path, SIZE | {"where": ["sector = x"]})
    assert apart.tables["matched"][0]["count"] == int((joined()["sector"] == "x").sum())


@pytest.mark.whole
def test_the_same_table_again_is_the_same_release(tmp_path: Path) -> None:
    one, two = (released(tmp_path, TABLE).tables["cells"] for _ in range(2))
    assert [row["count"] for row in one] == [row["count"] for row in two]


@pytest.mark.whole
def test_the_same_matches_by_another_linkage_or_key_are_no_others(tmp_path: Path) -> None:
    released(tmp_path, TABLE)
    for name, key in (("ecdh", "id"), ("helper", "id[:3],id")):
        other = study({"key": key, "minimum_frequency": 5})
        other["protection"]["name"] = name
        with pytest.raises(Refused, match="an earlier study of these holders withheld"):
            released(tmp_path, other)


def test_figures_with_noise_are_released_beside_a_withheld_cell(tmp_path: Path) -> None:
    released(tmp_path, TABLE)
    found = released(tmp_path, SIZE | {"privacy": {"epsilon": 1.0}})
    assert found.tables["matched"][0]["count"] is not None


@pytest.mark.whole
def test_under_release_rules_a_linked_table_is_of_other_records_than_all_that_holders_have(tmp_path: Path) -> None:
    """With units of both holders taken for records of any, the size and the table would contradict each other."""
    rules: dict[str, Any] = {"disclosure": {"minimum_frequency": 5, "zeros": "allow", "full_cells": "allow"}}
    table = analysis("table", minimum=5, where=("sector = x",), rows=["region"])
    assert released(tmp_path, table | rules).tables["cells"][0]["count"] == 29
    size = SIZE | {"where": ["sector = x"]} | rules
    assert released(tmp_path, size).tables["matched"][0]["count"] == int((joined()["sector"] == "x").sum())
    cells = {(row["region"], row["sector"]): row["count"] for row in released(tmp_path, TABLE | rules).tables["cells"]}
    assert (cells["A", "x"], cells["B", "y"]) == (29, None)


def grown(folder: Path) -> dict[str, pd.DataFrame]:
    """Tables with one record more at each, of nobody in both."""
    found = {name: pd.read_parquet(folder / f"{name}.parquet") for name in tables()}
    return {name: pd.concat([one, one.head(1).assign(id=f"new {name}")]) for name, one in found.items()}


def moved(folder: Path, other: Path, names: dict[str, str]) -> dict[str, Any]:
    """SIZE over copies of the tables in another folder, under other names."""
    other.mkdir()
    for name in names:
        shutil.copy(folder / f"{name}.parquet", other / f"{name}.parquet")
    return SIZE | {"holders": {new: str(other / f"{old}.parquet") for old, new in names.items()}}


def test_a_table_that_has_grown_by_one_record_is_no_other(tmp_path: Path) -> None:
    released(tmp_path, TABLE)
    with pytest.raises(Refused, match="an earlier study of these holders withheld"):
        answered(tmp_path, SIZE, grown(tmp_path))


@pytest.mark.parametrize(
    "names", [{"office": "office", "bank": "bank"}, {"office": "agency", "bank": "lender"}], ids=["same", "renamed"]
)
def test_nor_is_a_copy_of_it_or_one_under_another_name(names: dict[str, str], tmp_path: Path) -> None:
    released(tmp_path, TABLE)
    read = make_study(moved(tmp_path, tmp_path / "other", names))
    options = Options(codebook=make_codebook(CODEBOOK), workspace=tmp_path / "workspace")
    with pytest.raises(Refused, match="an earlier study of these holders withheld"):
        run_study(read, options)
