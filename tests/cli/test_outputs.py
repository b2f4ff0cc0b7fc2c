"""Commands never write over what they read, and say so before anything is spent."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app

Call = Callable[[str], Result]
MEANS = "analyse describe --columns income --holder a=a.parquet --holder b=b.csv"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `statfed` in a folder of two holders' files and a codebook."""
    frame = pd.DataFrame({"income": range(100), "group": ["=1+1", "b"] * 50})
    frame.to_parquet(tmp_path / "a.parquet")
    (frame + frame).to_csv(tmp_path / "b.csv", index=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATFED_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("STATFED_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "240")

    def run(words: str) -> Result:
        result = CliRunner().invoke(app, shlex.split(words))
        assert "internal error" not in result.stderr, result.stderr
        return result

    return run


@pytest.mark.parametrize(
    "words",
    [
        f"{MEANS} --parquet a.parquet --overwrite",
        f"{MEANS} --csv b.csv --overwrite",
        f"{MEANS} --html ./sub/../a.parquet --overwrite",
        f"{MEANS} --codebook people.codebook.toml --csv people.codebook.toml --overwrite",
        "train mlp --target group --features income --holder a=a.parquet --holder b=b.csv --save b.csv --overwrite",
        "codebook infer a.parquet --out a.parquet --overwrite",
        "predict model.statfed b.csv -o b.csv --overwrite",
        "recommend --case case.toml --out case.toml --overwrite",
    ],
)
def test_an_input_is_never_an_output_and_nothing_is_spent(call: Call, tmp_path: Path, words: str) -> None:
    (tmp_path / "sub").mkdir()
    assert call("codebook infer a.parquet b.csv --out people.codebook.toml").exit_code == 0
    (tmp_path / "case.toml").write_text("", encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = call(words)
    assert result.exit_code == 2
    assert "which is read; want another file" in result.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert not (tmp_path / "ws").exists()


def test_a_file_is_replaced_when_that_is_asked_for_and_formulas_in_texts_are_marked(call: Call, tmp_path: Path) -> None:
    words = "analyse count --by group --holder a=a.parquet --holder c=c.csv --csv out.csv"
    pd.read_parquet(tmp_path / "a.parquet").to_csv(tmp_path / "c.csv", index=False)
    assert call(words).exit_code == 0
    written = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert "'=1+1," in written
    again = call(words)
    assert again.exit_code == 2
    assert "out.csv exists; want a new file, or --overwrite" in again.stderr
    assert call(f"{words} --overwrite").exit_code == 0


def test_one_file_of_two_holders_is_noted(call: Call, tmp_path: Path) -> None:
    (tmp_path / "copy.parquet").write_bytes((tmp_path / "a.parquet").read_bytes())
    result = call("analyse describe --columns income --holder a=a.parquet --holder b=copy.parquet")
    assert "a and b have the same data" in " ".join(result.stderr.split())
    assert "same data" not in call(MEANS).stderr
