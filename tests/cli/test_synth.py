"""`statfed synth` as it is typed: guide, fit, sample, evaluate."""

import json
from pathlib import Path

import pandas as pd
import pytest
import tomli_w
from typer.testing import CliRunner

from statfed.cli.main import app
from tests.synthetic_people import CODEBOOK, people

RUNNER = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, seed in (("own", 1), ("fresh", 2), ("other", 3)):
        people(600, seed).to_parquet(f"{name}.parquet")
    told = CODEBOOK.model_dump(mode="json", exclude_defaults=True)
    Path("c.toml").write_text(tomli_w.dumps(told))
    told["columns"]["part"] = {"type": "category", "categories": ["used", "kept"], "required": True}
    Path("parts.toml").write_text(tomli_w.dumps(told))
    both = pd.concat([people(600, 1).assign(part="used"), people(600, 2).assign(part="kept")])
    for place, name in enumerate(("a", "b")):
        both.iloc[place::2].to_parquet(f"{name}.parquet")
    return tmp_path


def run(*arguments: str, code: int = 0) -> str:
    result = RUNNER.invoke(app, ["synth", *arguments])
    assert result.exit_code == code, result.output
    return result.stdout if "--json" in arguments else result.output


def test_the_guide_has_every_use_and_says_that_nothing_is_cleared() -> None:
    told = json.loads(run("guide", "--json"))
    for use in told["uses"]:
        assert use["title"] in run("guide", "--use", use["id"])
    assert "no method earned public release" in " ".join(run("guide", "--use", "public-release").split())
    assert "distance" in run("guide", "--measure", "distance-to-closest-record").lower()
    assert "testing-analysis" in run("guide", "--use", "testing-analyses", code=2)


def test_a_guide_as_json_is_of_what_was_asked_for() -> None:
    """It was all of the guide, whatever was asked for, and a name that nobody knows was answered."""
    for option, part, name in (
        ("use", "uses", "public-release"),
        ("method", "methods", "aim"),
        ("measure", "measures", "disco"),
    ):
        told = json.loads(run("guide", f"--{option}", name, "--json"))
        assert [one["id"] for one in told[part]] == [name]
        assert name in run("guide", f"--{option}", "nothing", "--json", code=2)
    assert "--use public-release and --method aim" in " ".join(
        run("guide", "--use", "public-release", "--method", "aim", code=2).split()
    )


def test_help_names_the_table_of_limits() -> None:
    """Markup took [[limits]] for a style, and [] was left."""
    assert "TOML file of limits" in " ".join(run("evaluate", "--help").split())


def test_from_data_to_a_page(folder: Path) -> None:
    run("fit", "own.parquet", "--codebook", "c.toml", "--method", "margins", "--set", "columns=edu,region,employed")
    assert json.loads(Path("model.json").read_text())["method"] == "margins"
    run("fit", "own.parquet", "--codebook", "c.toml", "--method", "dummy", code=2)  # model.json is there
    run("fit", "own.parquet", "--codebook", "c.toml", "--method", "dummy", "-o", "d.json", "--seed", "1")
    told = json.loads(run("sample", "d.json", "-n", "600", "-o", "s.parquet", "--seed", "1", "--json"))
    assert told["records"] == 600
    page = folder / "r.html"
    common = ("--original", "own.parquet", "--fresh", "fresh.parquet", "--codebook", "c.toml")
    more = ("--use", "testing-technology", "--attempts", "100")
    run("evaluate", "s.parquet", *common, *more, "-o", str(page))
    assert "Not a clearance" in page.read_text()
    assert "<script" not in page.read_text()
    document = json.loads(run("evaluate", "s.parquet", *common, *more, "--json"))
    assert document["verdict"]["risk"] == "no evidence against"
    assert document["verdict"]["utility"] == "not judged"


def test_holders_are_asked_and_nothing_is_pooled(folder: Path) -> None:
    holders = ("--holder", "a=a.parquet", "--holder", "b=b.parquet", "--codebook", "parts.toml")
    asked = ("--apart", "part = kept", "--keys", "age,edu", "--secrets", "employed", "--use", "public-release")
    told = json.loads(run("evaluate", "other.parquet", *holders, *asked, "--json"))
    assert {one["name"] for one in told["measures"]} >= {"margins", "linkability", "inference", "disco", "copies"}
    assert any("Nothing was pooled" in note for note in told["notes"])
    assert told["verdict"]["risk"] == "not enough evidence"


def test_a_private_fit_of_holders_says_its_epsilon(folder: Path) -> None:
    holders = ("--holder", "a=a.parquet", "--holder", "b=b.parquet", "--codebook", "parts.toml")
    told = json.loads(run("fit", *holders, "--method", "mst", "--epsilon", "2", "-o", "m.json", "--json"))
    assert 0 < told["origin"]["epsilon"] <= 2 + 1e-9
    run("sample", "m.json", "-n", "50", "-o", "s.csv")
    assert len(pd.read_csv("s.csv")) == 50


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit",), "got a file and holders, or neither"),
        (("fit", "own.parquet", "--codebook", "c.toml", "--method", "aim"), "want one (--epsilon)"),
        (("fit", "own.parquet", "--method", "aim", "--epsilon", "1"), "want one (--codebook)"),
        (("fit", "own.parquet", "--codebook", "c.toml", "--method", "ami"), "aim"),
        (("sample", "c.toml"), "want a file of `statfed synth fit`"),
        (("sample", "none.json"), "cannot be read"),
        (("evaluate", "own.parquet", "--codebook", "c.toml"), "want --original FILE, or --holder"),
        (("evaluate", "own.parquet", "--codebook", "c.toml", "--original", "own.parquet", "-o", "own.parquet"), "own"),
        (
            ("evaluate", "own.parquet", "--codebook", "c.toml", "--original", "own.parquet", "--apart", "edu = 1"),
            "with",
        ),
        (("evaluate", "own.parquet", "--codebook", "c.toml", "--original", "own.parquet", "--use", "x"), "testing"),
    ],
)
def test_mistakes_are_told(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in " ".join(run(*arguments, code=2).split())


def test_a_file_is_checked_before_it_is_given_away(folder: Path) -> None:
    run("fit", "own.parquet", "--codebook", "c.toml", "--method", "dummy", "-o", "d.json")
    run("sample", "d.json", "-n", "50", "-o", "s.parquet", "--seed", "1")
    common = ("--codebook", "c.toml", "--model", "d.json")
    assert "no clearance" in run("check", "s.parquet", *common)
    told = json.loads(run("check", "own.parquet", *common, "--original-records", "600", "--json", code=2))
    assert {one["check"] for one in told["checks"] if one["kept"] is False} == {"label", "records"}


def test_a_whole_population_has_no_fresh_records(folder: Path) -> None:
    common = ("--original", "own.parquet", "--codebook", "c.toml", "--population", "--use", "testing-technology")
    told = json.loads(run("evaluate", "other.parquet", *common, "--attempts", "50", "--json"))
    assert any("everybody is in it" in note for note in told["notes"])
    assert {one["measure"] for one in told["limits"]} == {"replicated-uniques", "disco", "copies"}
    assert "everybody is in" in run("evaluate", "other.parquet", *common, "--fresh", "fresh.parquet", code=2)
