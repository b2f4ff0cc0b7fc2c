"""`statfed synth fold` and `unfold` as they are typed, and what is drawn in between."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app

RUNNER = CliRunner()
BOOK = """
rules = ["relation != child or age < 18"]
[columns.home]
type = "id"
role = "unit"
[columns.region]
type = "category"
categories = ["n", "s"]
[columns.age]
type = "integer"
low = 0
high = 99
required = true
[columns.relation]
type = "category"
categories = ["head", "child"]
required = true
[columns.name]
type = "text"
length = 20
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("c.toml").write_text(BOOK)
    rows = [(f"h{i // 2}", "ns"[i // 2 % 2], 40 - 30 * (i % 2), ("head", "child")[i % 2], "Ann") for i in range(40)]
    frame = pd.DataFrame([*rows, ("h0", "n", 7, "child", "Bo")], columns=["home", "region", "age", "relation", "name"])
    frame.sample(frac=1, random_state=1).to_parquet("m.parquet")
    frame.head(10).to_csv("few.csv", index=False)
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, ["synth", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if "--json" in arguments else " ".join(result.output.split())


def test_members_are_folded_drawn_and_unfolded(folder: Path) -> None:
    plan = ("--codebook", "c.toml", "--order", "relation,age-", "--shared", "region", "--larger", "top-code")
    told = json.loads(run("fold", "m.parquet", "--most", "2", *plan, "--json"))
    assert (told["units"], told["members"], told["dropped"], told["larger"]) == (20, 41, 1, 1)
    assert told["left_out"] == ["name"]
    few = run("fold", "few.csv", "--most", "2", *plan, "-o", "few.parquet", "--codebook-out", "few.toml")
    assert "5 records of 10 members" in few
    assert Path("few.toml").read_text() == Path("wide.codebook.toml").read_text()
    wide = pd.read_parquet("wide.parquet")
    assert wide.loc[wide["home"] == "h0", ["members", "age_1", "age_2"]].to_numpy().tolist() == [[3, 40, 10]]
    run("fit", "wide.parquet", "--codebook", "wide.codebook.toml", "--method", "cart", "--set", "smallest=2")
    run("sample", "model.json", "-n", "50", "-o", "s.parquet", "--seed", "1")
    said = run("unfold", "s.parquet", "--codebook", "wide.codebook.toml", "-o", "back.csv")
    assert "of 50 units" in said
    assert "more than 2 members" in said
    back = pd.read_csv("back.csv")
    assert (back.loc[back["relation"] == "child", "age"] < 18).all()
    assert (back.groupby("home")["region"].nunique() == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fold", "m.parquet", "--codebook", "c.toml", "--most", "2"), "got 1 units with more than 2 members"),
        (("fold", "m.parquet", "--codebook", "c.toml", "--most", "3", "--shared", "age"), "20 units within which it"),
        (("fold", "m.parquet", "--codebook", "c.toml", "--most", "0"), "--most: got 0; want 1 or more"),
        (("fold", "m.parquet", "--codebook", "c.toml", "--most", "3", "--larger", "drop"), "top-code"),
        (("fold", "m.parquet", "--codebook", "c.toml", "--most", "3", "-o", "m.parquet"), "m.parquet"),
        (("fold", "m.parquet", "--codebook", "c.toml", "--most", "3", "-o", "m.txt"), "want a file ending in"),
        (("unfold", "m.parquet", "--codebook", "c.toml"), "got one without [folded]"),
    ],
)
def test_mistakes_are_told(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in run(*arguments, code=2)
    assert not Path("wide.parquet").exists()
