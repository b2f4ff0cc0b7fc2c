"""What can be refused before data are read is: nothing is drafted, no home is made and no engine started."""

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.errors import BY_NAME, UsageError
from statfed.federation import Federation, run, simulation
from statfed.scenarios import time_use

BOOK = """[columns.region]
type = "category"
categories = ["A", "B"]
[columns.income]
type = "number"
low = 0
high = 1000
"""
FILES = ["--holder", "a=a.csv", "--holder", "b=b.csv"]
PINNED = [*FILES, "--codebook", "people.codebook.toml"]
MEAN = ["analyse", "mean", "--columns", "income"]
TRAIN = ["train", "mlp", "--target", "region", "--features", "income", *FILES]
EARLY: dict[str, tuple[list[str], str]] = {
    "a method": (["analyse", "maen", *FILES], "did you mean mean?"),
    "a command": (["analize", "mean"], "did you mean analyse?"),
    "an option": ([*MEAN, "--engin", "ray", *FILES], "--engine"),
    "a column": (["analyse", "mean", "--columns", "incme", *FILES], r"a: columns: got 'incme'.*did you mean income\?"),
    "a column of the codebook": (["analyse", "mean", "--columns", "incme", *PINNED], r"did you mean income\?"),
    "a domain": ([*MEAN, "--by", "regon", *FILES], r"by: got 'regon'.*did you mean region\?"),
    "a column in a formula": (["analyse", "ols", "--formula", "income ~ regon", *FILES], r"did you mean region\?"),
    "a column in a condition": ([*MEAN, "--where", "incme > 3", *FILES], r"did you mean income\?"),
    "a condition": ([*MEAN, "--where", "income", *FILES], "--where: got 'income'; want"),
    "epsilon 0": ([*MEAN, "--privacy", "epsilon=0", *PINNED], "privacy: epsilon: got '0'; want greater than 0"),
    "epsilon below 0": ([*MEAN, "--privacy", "epsilon=-1", *PINNED], "greater than 0"),
    "epsilon nan": ([*MEAN, "--privacy", "epsilon=nan", *PINNED], "a finite number"),
    "epsilon inf": ([*MEAN, "--privacy", "epsilon=inf", *PINNED], "a finite number"),
    "epsilon twice": ([*MEAN, "--privacy", "epsilon=1,epsilon=2", *PINNED], "got epsilon twice"),
    "a key of privacy": ([*MEAN, "--privacy", "epslon=1", *PINNED], r"did you mean epsilon\?"),
    "who is protected": ([*MEAN, "--privacy", "epsilon=1,unit=persn", *PINNED], r"did you mean person\?"),
    "a part of the margin": ([*MEAN, "--privacy", "margin=5,part=cuont", *PINNED], "part 'cuont'; want one of"),
    "a protection": ([*MEAN, "--protect", "secure-agregation", *FILES], r"did you mean secure-aggregation\?"),
    "an option of a protection": (
        [*MEAN, "--protect", "secure-aggregation", "--protect-option", "coluders=1", *FILES],
        r"did you mean colluders\?",
    ),
    "too few holders": ([*MEAN, "--protect", "secure-aggregation", *FILES], "want at least 3 holders"),
    "more holders than there are": ([*MEAN, "--minimum-holders", "5", *FILES], "got 5"),
    "noise on an official figure": ([*MEAN, "--exact", "--privacy", "epsilon=1", *PINNED], "has to be exact"),
    "an engine": ([*MEAN, "--engine", "procesess", *FILES], r"did you mean processes\?"),
    "a rule": ([*MEAN, "--rule", "minimum_freqency=3", *FILES], r"did you mean minimum_frequency\?"),
    "a method of the release": ([*MEAN, "--rule", "method=supress", *FILES], r"did you mean suppress\?"),
    "no rule": ([*MEAN, "--rule", "=3", *FILES], r"--rule: got '=3'; want key=value"),
    "a quantile": (["analyse", "quantile", "--columns", "income", "--probabilities", "1.5", *FILES], "less than 1"),
    "a model": (["train", "mpl", "--target", "region", "--features", "income", *FILES], r"did you mean mlp\?"),
    "a target": (
        ["train", "mlp", "--target", "regon", "--features", "income", *FILES],
        r"a: target: got 'regon'.*did you mean region\?",
    ),
    "a strategy": ([*TRAIN, "--strategy", "fedavgg"], r"did you mean fedavg\?"),
    "a learning rate": ([*TRAIN, "--learning-rate", "nan"], "learning_rate: got 'nan'; want a finite number"),
    "no privacy": ([*TRAIN, "--method", "dp-fedsgd"], "without differential privacy"),
    "a scenario": (["run", "time-usee"], r"did you mean time-use\?"),
    "a key": (["run", "time-use", "--set", "timout=3"], r"did you mean timeout\?"),
    "a key of the data": (["run", "time-use", "--set", "data.persns=3"], r"did you mean persons\?"),
    "a source of the data": (["run", "time-use", "--set", "data.source=genrated"], r"did you mean generated\?"),
    "a model of a scenario": (["run", "time-use", "--set", "options.model.name=mpl"], r"did you mean mlp\?"),
    "a method of a scenario": (["run", "time-use", "--set", "method=local-sdg"], r"did you mean local-sgd\?"),
    "rounds": (["run", "time-use", "--set", "options.rounds=0"], "rounds: got 0; want greater than or equal to 1"),
    "a start": (["run", "time-use", "--set", "start=nowhere"], "start: got 'nowhere'"),
    "a strategy and a protection": (
        ["run", "time-use", "--strategy", "krum", "--protect", "secure-aggregation"],
        "looks at each holder's update",
    ),
    "a scenario to compare": (["compare", "wagess"], r"did you mean wages\?"),
    "a level to compare": (["compare", "wages", "--level", "exct"], r"did you mean exact\?"),
}


@pytest.fixture
def untouched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two holders' files, where whatever is heavy raises."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.delenv("STATFED_RUNS", raising=False)
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("region,income\nA,1\nB,2\n", encoding="utf-8")
    (tmp_path / "people.codebook.toml").write_text(BOOK, encoding="utf-8")

    def heavy(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("more was done than has to be for a refusal")

    for module, name in (
        (simulation, "draft"),
        (simulation, "identity"),
        (simulation, "make_homes"),
        (run, "simulated"),
        (time_use, "population"),
    ):
        monkeypatch.setattr(module, name, heavy)
    return tmp_path


@pytest.mark.parametrize("case", EARLY)
def test_what_no_data_can_mend_is_refused_before_they_are_read(case: str, untouched: Path) -> None:
    words, wanted = EARLY[case]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == UsageError.exit_code, result.stderr
    assert isinstance(result.exception, SystemExit)
    assert re.search(wanted, result.stderr), result.stderr
    assert not (untouched / ".statfed").exists()
    if "draft a codebook" not in result.stderr:  # else the run that failed there is kept
        assert not (untouched / "runs").exists()


def test_what_depends_on_the_types_of_columns_is_left_to_their_codebook(untouched: Path) -> None:
    words = ["analyse", "ols", "--formula", "income ~ log(income) + C(region)", "--where", "income >= 3", *FILES]
    assert isinstance(CliRunner().invoke(app, words).exception, SystemExit | AssertionError)
    assert "more was done" in CliRunner().invoke(app, words).stderr


def test_a_notebook_is_told_as_early(untouched: Path) -> None:
    frame = pd.DataFrame({"region": ["A", "B"], "income": [1.0, 2.0]})
    with Federation({"a": frame, "b": frame}) as federation:
        questions: list[tuple[str, dict[str, Any]]] = [
            ("mean", {"columns": ["incme"]}),
            ("mean", {"columns": ["income"], "by": ["regon"]}),
            ("maen", {"columns": ["income"]}),
            ("mean", {"columns": ["income"], "wieght": "income"}),
            ("mean", {"columns": ["income"], "where": "incme > 1"}),
        ]
        for analysis, options in questions:
            with pytest.raises(UsageError, match=r"did you mean"):
                federation.ask(analysis, **options)


def test_exit_codes_are_those_of_the_page_and_of_the_help() -> None:
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
    told = " ".join(CliRunner().invoke(app, ["--help"], env={"COLUMNS": "300"}).stdout.split())
    assert len({error.exit_code for error in BY_NAME.values()}) == 5
    for name, error in BY_NAME.items():
        assert f"| {error.exit_code} | `{name}` |" in page, name
        assert f"{error.exit_code} " in told
    assert "| 130 |" in page
    assert "| 0 |" in page


def test_an_early_refusal_is_a_json_document_too(untouched: Path) -> None:
    result = CliRunner().invoke(app, [*MEAN, "--protect", "plian", *FILES, "--json"])
    error = json.loads(result.stdout)["error"]
    assert (error["kind"], error["exit_code"]) == ("UsageError", 2)
    assert "did you mean plain?" in error["message"]


@pytest.mark.parametrize(
    "words", [["analyse", "men"], ["analyse", "mean", "--engin", "ray"], ["analyse", "mean"], ["nothing"]]
)
def test_what_the_command_line_itself_refuses_is_a_json_document_too(words: list[str], untouched: Path) -> None:
    result = CliRunner().invoke(app, [*words, "--json"])
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["kind"], error["exit_code"]) == (2, "UsageError", 2)
    assert error["message"]
