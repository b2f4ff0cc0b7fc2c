"""`statfed link` and `statfed linkages` as they are typed: the shortest path of docs/linkage.md."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An office and a bank with 200 units in common."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    ids = np.array([f"u{i}" for i in rng.permutation(400)])
    region = rng.choice(["n", "s"], 300)
    pd.DataFrame({"id": ids[:300], "region": region}).to_parquet("a.parquet")
    pd.DataFrame({"id": ids[100:], "sector": rng.choice(["x", "y"], 300)}).to_parquet("b.parquet")
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, [*arguments])
    assert result.exit_code == code, result.output
    return result.stdout if "--json" in arguments else result.output


HOLDERS = ("--key", "id", "--holder", "office=a.parquet", "--holder", "bank=b.parquet")


def test_the_shortest_path_tells_how_many_match(folder: Path) -> None:
    told = json.loads(run("link", *HOLDERS, "--json"))
    assert told["matched"][0]["count"] == 200
    assert "200" in run("link", *HOLDERS)


def test_a_table_of_columns_of_both_is_that_of_the_plain_join(folder: Path) -> None:
    run("link", *HOLDERS, "--analysis", "table rows=region columns=sector", "--csv", "t.csv")
    joined = pd.read_parquet("a.parquet").merge(pd.read_parquet("b.parquet"), on="id")
    counts = joined.groupby(["region", "sector"]).size()
    shown = pd.read_csv("t.csv").dropna(subset=["region", "sector"]).set_index(["region", "sector"])["count"]
    assert shown.astype(int).to_dict() == counts.to_dict()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--analysis", "tabel rows=region"), "table"),
        (("--to", "nobody"), "nobody"),
        (("--by", "ecdh", "--fuzzy"), "want one of them"),
        (("--set", "decimals"), "want key=value"),
    ],
)
def test_mistakes_are_told(folder: Path, more: tuple[str, ...], message: str) -> None:
    assert message in " ".join(run("link", *HOLDERS, *more, code=2).split())


def test_every_linkage_is_listed_with_whom_it_trusts() -> None:
    told = json.loads(run("linkages", "--json"))["linkages"]
    assert {one["name"] for one in told} >= {"ecdh", "fuzzy", "helper", "spu"}
    assert all(one["trust"] for one in told)
