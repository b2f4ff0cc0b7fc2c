"""The workshop: kits that obey their own rules, scores at both ends and between, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.core.errors import UsageError
from statfed.core.synthetic import edits
from statfed.federation.synthetic import frame_of
from statfed.lab.workshop.contract import draw, independent, load_kit, names
from statfed.lab.workshop.folder import Workshop, read, write
from statfed.lab.workshop.league import league
from statfed.lab.workshop.score import Score, keep, score

USE = "training-education"
ATTEMPTS = 100


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workshop") / "kit"
    write("labour-survey", folder, USE, 1000, 1)
    return folder


@pytest.fixture(scope="module")
def workshop(kit: Path) -> Workshop:
    return read(kit)


@pytest.fixture(scope="module")
def scores(kit: Path, workshop: Workshop) -> dict[str, Score]:
    """By team: the original, its columns shuffled (of strangers), a sample that lies between, a copy of one tenth."""
    rng = np.random.default_rng(5)
    original, strangers = workshop.original, draw(load_kit("labour-survey"), 1000, 77, 78).original
    files = {"original": frame_of(original), "independent": frame_of(independent(strangers, rng))}
    whole, lost = frame_of(original), frame_of(independent(original, rng))
    files["between"] = pd.concat([whole.head(90), frame_of(strangers).head(600), lost.head(310)])
    for team, frame in files.items():
        frame.to_parquet(kit / f"{team}.parquet", index=False)
    return {team: score(kit / f"{team}.parquet", workshop, attempts=ATTEMPTS) for team in files}


@pytest.mark.parametrize("name", names())
def test_a_kit_draws_the_same_records_again_and_all_obey_its_rules(name: str) -> None:
    one, again, other = (draw(load_kit(name), 1000, 3, seed) for seed in (4, 4, 5))
    assert frame_of(one.original).equals(frame_of(again.original))
    assert frame_of(one.fresh).equals(frame_of(again.fresh))
    assert frame_of(one.original).equals(frame_of(other.original)), "what is held back is of another seed"
    assert not frame_of(one.fresh).equals(frame_of(other.fresh))
    for table in (one.original, one.fresh, one.members, one.others):
        assert edits.obeys(table, edits.clauses(one.codebook)).all()
        for column, values in table.columns.items():
            low, high = one.codebook.columns[column].bounds or (0, len(one.codebook.columns[column].levels) - 1)
            there = values[~table.missing(column)]
            assert low <= there.min() <= there.max() <= high, column
    rows = set(frame_of(one.original).astype(str).agg("|".join, axis=1))
    assert set(frame_of(one.members).astype(str).agg("|".join, axis=1)) <= rows
    assert not set(frame_of(one.others).astype(str).agg("|".join, axis=1)) & rows


def test_the_original_handed_in_is_told_and_has_the_highest_risk_and_full_utility(scores: dict[str, Score]) -> None:
    found = scores["original"]
    assert (found.utility.value, found.risk.value) == (100.0, 100.0)
    assert min(part.points for part in found.risk.parts) > 95, "also without the rule on copies"
    assert found.found.word("risk") == "evidence against"
    assert "Passed off: 1,000 records (100.0%) stand verbatim in the original" in found.reasons[0]


def test_independent_columns_of_strangers_are_of_little_use_and_risk(scores: dict[str, Score]) -> None:
    found = scores["independent"]
    assert found.utility.value is not None
    assert found.risk.value is not None
    assert found.utility.value < 15
    assert found.risk.value < 20
    assert not found.conduct
    assert sum(one.records for one in found.submission.broken) > 100


def test_a_file_between_lies_between_and_the_league_puts_what_was_not_made_last(
    kit: Path, scores: dict[str, Score]
) -> None:
    low, mid, high = (scores[name] for name in ("independent", "between", "original"))
    assert (low.utility.value or 0) < (mid.utility.value or 0) < (high.utility.value or 0)
    assert (low.risk.value or 0) < (mid.risk.value or 0) < (high.risk.value or 0)
    (kit / "scores.jsonl").unlink(missing_ok=True)
    for found in (high, low, mid, low):
        keep(found, kit)
    ((use, lines),) = league(kit).items()
    assert use == USE
    assert [one.team for one in lines][-1] == "original"
    assert len(lines) == 3, "a team has one place"
    assert "no clearance" in high.page()


def test_a_score_is_the_same_again(kit: Path, scores: dict[str, Score]) -> None:
    again = score(kit / "between.parquet", read(kit), attempts=ATTEMPTS)
    assert json.dumps(again.document()) == json.dumps(scores["between"].document())


def _changed(frame: pd.DataFrame, case: str) -> pd.DataFrame:
    if case == "code":
        frame.loc[3, "region"] = "Z"
    elif case == "bound":
        frame["hours"] = frame["hours"] * 3
    elif case == "missing":
        frame.loc[:4, "age"] = pd.NA
    elif case == "unknown":
        frame["name"] = "x"
    elif case == "absent":
        frame = frame.drop(columns="wage")
    elif case == "type":
        frame["wage"] = "much"
    elif case == "few":
        frame = frame.head(99)
    elif case == "empty":
        frame = frame.head(0)
    return frame


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("code", ("region", "Z", "record 4")),
        ("bound", ("hours", "80")),
        ("missing", ("age", "record 1, 2, 3")),
        ("unknown", ("unknown columns name",)),
        ("absent", ("no column wage",)),
        ("type", ("wage", "much")),
        ("few", ("99 records", "100 to 10,000")),
        ("empty", ("0 records",)),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_told_where(
    workshop: Workshop, tmp_path: Path, case: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "team.parquet"
    _changed(frame_of(workshop.original), case).to_parquet(path, index=False)
    with pytest.raises(UsageError) as error:
        score(path, workshop)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("name", ["codebook.toml", "original.parquet", "judge/fresh.parquet", "kit.toml"])
def test_a_kit_that_is_not_as_it_was_written_is_refused(kit: Path, name: str) -> None:
    path = kit / name
    before = path.read_bytes()
    changed = before.replace(b'use = "training-education"', b'use = "testing-technology"')
    path.write_bytes(changed if changed != before else before + b"\n")
    try:
        with pytest.raises(UsageError, match=path.name):
            read(kit)
    finally:
        path.write_bytes(before)


def test_what_teams_get_does_not_tell_the_seed_of_the_rest(kit: Path, workshop: Workshop) -> None:
    secret = workshop.seed
    assert f"{secret:x}" in (kit / "judge" / "judge.toml").read_text()
    for path in kit.glob("*.*"):
        assert f"{secret:x}".encode() not in path.read_bytes(), path
    assert "Nobody's records are in this folder" in (kit / "task.md").read_text()


def test_the_commands_of_a_workshop_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def call(*words: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["workshop", *words])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout) if "--json" in words else result.output

    assert [one["kit"] for one in call("list", "--json")["kits"]] == list(names())
    call("new", "business-register", "-o", "b", "--judge", "held", "--use", USE, "--records", "1000", "--seed", "2")
    call("new", "business-register", "-o", "b", code=2)  # it is there
    assert not Path("b/judge").exists()
    strangers = draw(load_kit("business-register"), 1000, 8, 9).original
    frame_of(strangers).to_csv("b/team.csv", index=False)
    assert "want the judge's part" in " ".join(call("score", "b/team.csv", code=2).split())
    told = call("score", "b/team.csv", "--judge", "held", "--attempts", "50", "-o", "r.html", "--json")
    assert told["marks"]["utility"]["mark"] > 80
    assert "Not a clearance" in Path("r.html").read_text()
    (use,) = call("table", "b", "--json")["uses"]
    assert [(one["place"], one["team"]) for one in use["teams"]] == [(1, "team")]
    assert "labour-survey" in " ".join(call("new", "labour-surve", code=2).split())
