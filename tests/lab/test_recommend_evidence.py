"""Recommendations: what was measured near a case, case files, and the command."""

import csv
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from statfed.cli import _output
from statfed.cli.main import app
from statfed.core.errors import UsageError
from statfed.core.scenario import EXACT, Case, private
from statfed.lab.compare.store import opened
from statfed.lab.compare.trial import Cell, Technique, Trial
from statfed.lab.recommend import Answer, Measurements, evidence, recommend
from statfed.lab.recommend.cases import answered, make_case, read_case, template, written
from statfed.lab.recommend.evidence import Known

ROOT = Path(__file__).parents[2]
NONE: Mapping[str, Known] = {}


def row(reached: bool | None = True, **changes: Any) -> dict[str, Any]:
    """One trial of plain without noise in the scenario `near`."""
    made: dict[str, Any] = {"key": "k", "scenario": "near", "profile": "quick", "protection": "plain"}
    made |= {"options": "{}", "level": "exact", "seed": 1, "version": "0", "status": "done", "reached": reached}
    made |= {"error": 0.01, "tolerance": 0.05, "epsilon": None, "processor": 2.0, "machine": "m", "coverage": None}
    return made | changes


def scored(name: str, case: Case, rows: list[dict[str, Any]], known: Mapping[str, Known]) -> float:
    return next(one.score for one in recommend(case, Measurements(rows, "t"), known).ranked if one.id == name)


def test_what_was_measured_near_the_case_moves_the_ranking_by_its_share_of_success() -> None:
    known = {"near": Known(Case(), {"exact": "exact", "epsilon-5": "local"})}
    name, nothing = "plain, exact", scored("plain, exact", Case(), [], known)
    assert scored(name, Case(), [row(True)], known) == pytest.approx(nothing + 2)
    assert scored(name, Case(), [row(False)], known) == pytest.approx(nothing - 2)
    assert scored(name, Case(), [row(True), row(False, seed=2)], known) == pytest.approx(nothing)
    failed = row(None, seed=2, status="failed", error=None)
    assert scored(name, Case(), [row(True), failed], known) == pytest.approx(nothing), "failures count"
    assert scored(name, Case(), [row(None, status="not-applicable")], known) == pytest.approx(nothing)
    other = [row(True, protection="secure-aggregation")]
    assert scored(name, Case(), other, known) == pytest.approx(nothing), "another technique's success"


def test_the_same_facts_give_the_same_document_whatever_the_order_of_measurements() -> None:
    rows = [row(True), row(False, level="epsilon-1", epsilon=1.0), row(True, protection="secure-aggregation")]
    known = {"near": Known(Case(), {"exact": "exact", "epsilon-1": "local"})}
    documents = {
        recommend(Case(), Measurements(each, "here"), known).model_dump_json() for each in (rows, rows, rows[::-1])
    }
    assert len(documents) == 1


def test_evidence_beyond_the_required_epsilon_does_not_count() -> None:
    known = {"near": Known(Case(), {"epsilon-5": "local"})}
    rows = [row(True, level="epsilon-5", epsilon=5.0)]
    case, name = Case(epsilon=1.0), "plain, local"
    answer = recommend(case, Measurements(rows, "t"), known)
    one = next(each for each in answer.ranked if each.id == name)
    assert one.evidence, "it is shown"
    assert scored(name, case, rows, known) == scored(name, case, [], known)
    assert scored(name, Case(epsilon=6.0), rows, known) == pytest.approx(scored(name, Case(epsilon=6.0), [], known) + 2)


def test_the_nearest_scenarios_are_those_with_the_nearest_facts_and_the_same_question() -> None:
    known = {
        "same": Known(Case()),
        "close": Known(Case(recurrence="once")),
        "far": Known(Case(numbers=10**6, records=10, exact=True, dominance=True)),
        "farther": Known(Case(numbers=10**6, records=10, exact=True, dominance=True, coordinator="malicious")),
        "model": Known(Case(output="model")),
    }
    order = [near.scenario for near in evidence.nearest(Case(), known)]
    assert [name for name in order if name != "model"] == ["same", "close", "far", "farther"]
    rows = [row(scenario=name) for name in known]
    assert [one.scenario for one in evidence.evidence(rows, Case(), known)] == ["same", "close", "far"]
    assert [one.scenario for one in evidence.evidence(rows, Case(output="model"), known)] == ["model"]


@pytest.mark.parametrize("facts", [{}, {"epsilon": 1.0}, {"parties": 100, "records": 7}, {"output": "model"}])
def test_distance_is_a_distance_of_facts(facts: dict[str, Any]) -> None:
    one, other = Case.model_validate(facts), Case(parties=5, epsilon=3.0, latency=0.0)
    assert evidence.distance(one, one) == 0
    assert evidence.distance(one, one.model_copy(update={"title": "renamed"})) == 0
    assert evidence.distance(one, other) == evidence.distance(other, one)
    assert 0 < evidence.distance(one, other) <= 1


def test_cost_of_a_row_is_against_plain_at_the_same_level() -> None:
    rows = [row(), row(protection="secure-aggregation", processor=6.0)]
    rows += [row(level="epsilon-1", epsilon=1.0, processor=100.0)]
    found = {
        (one.protection, one.level): one.multiple
        for one in evidence.evidence(rows, Case(), {"near": Known(Case(), {"exact": "exact"})})
    }
    assert found["secure-aggregation", "exact"] == pytest.approx(3.0)
    assert found["plain", "epsilon-1"] == pytest.approx(1.0)


def trial(reached: bool) -> Trial:
    technique = Technique("plain", private(1.0))
    return Trial(Cell("near", "quick", technique, 1), "done", error=0.1, tolerance=0.2, reached=reached, epsilon=1.0)


def test_trials_come_back_from_a_store_and_from_a_table_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "results.duckdb"
    with opened(path, write=True) as store:
        store.add(trial(True), 1)
    stored = evidence.measurements(path)
    assert "1 trials in results.duckdb" in stored.origin
    with (tmp_path / "baseline.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(trial(True).row()))
        writer.writeheader()
        writer.writerow(trial(True).row())
    table = evidence.read_rows(tmp_path / "baseline.csv")
    known = {"near": Known(Case(), {"epsilon-1": "local", EXACT.id: "exact"})}
    for rows in (stored.rows, table):
        (found,) = evidence.evidence(rows, Case(), known)
        assert (found.reached, found.release, found.epsilon, found.error) == (1.0, "local", 1.0, 0.1)


def test_a_baseline_is_taken_with_its_version_and_machine_and_without_one_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "BASELINE", tmp_path / "none.csv")
    assert "statfed compare --all --profile quick" in evidence.measurements().origin
    made = row()
    with (tmp_path / "there.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(made))
        writer.writeheader()
        writer.writerow(made)
    monkeypatch.setattr(evidence, "BASELINE", tmp_path / "there.csv")
    assert evidence.measurements().origin == "baseline of 1 trials: statfed 0, m; yours may differ"
    (tmp_path / "there.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"got columns a, b; want those of a trial"):
        evidence.measurements()


def test_a_case_file_is_read_changed_and_written_without_loss(tmp_path: Path) -> None:
    case = Case(title='a "quoted" title', epsilon=0.5, parties=7, third_party=True, bandwidth=2.5)
    path = tmp_path / "case.toml"
    for comments in (False, True):
        path.write_text(written(case, comments))
        assert read_case(path) == case
    assert read_case(path, ["epsilon=none", "skills=basic"]) == case.model_copy(
        update={"epsilon": None, "skills": "basic"}
    )
    assert make_case(tomllib.loads(template())) == Case()
    assert read_case(ROOT / "examples" / "case.toml").dominance


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parties = 0", "parties: got 0; want greater than or equal to 1"),
        ('skills = "guru"', "skills: got 'guru'; want 'basic', 'intermediate' or 'advanced'"),
        ("partys = 3", "partys: unknown key; want one of title, output, partitioning, parties"),
        ('exact = "perhaps"', "exact: got 'perhaps'; want"),
    ],
)
def test_errors_of_a_case_file_name_the_key_what_was_got_and_what_is_wanted(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "case.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(message)):
        read_case(path)


def test_answers_of_a_person_are_read_as_values() -> None:
    assert answered("epsilon", "none") is None
    assert answered("epsilon", " 2.5 ") == 2.5
    assert answered("exact", "yes") is True
    assert answered("parties", "4") == 4
    assert answered("title", "Trade") == "Trade"
    with pytest.raises(UsageError, match="epsilon: got '-1'; want greater than 0"):
        answered("epsilon", "-1")


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_output.out, "_width", 200)
    monkeypatch.setattr("statfed.lab.recommend.decide.scenarios", lambda: {"near": Known(Case(exact=True))})
    monkeypatch.setattr(evidence, "BASELINE", tmp_path / "none.csv")
    return lambda *words, **more: CliRunner().invoke(app, ["recommend", *words], **more)


def test_the_command_shows_exports_and_prints_one_document(call: Any, tmp_path: Path) -> None:
    path = str(ROOT / "examples" / "case.toml")
    shown = call("--case", path, "--out", "advice.md")
    assert shown.exit_code == 0, shown.output
    for word in ("multi-party, exact", "contributions-shown", "trusted-hardware", "might do", "near (0."):
        assert word in shown.stdout, word
    assert "run `statfed compare --all" in shown.stderr
    page = (tmp_path / "advice.md").read_text(encoding="utf-8")
    for head in ("# Recommendation for Turnover", "## Shortlist", "## Excluded", "## If a fact were another"):
        assert head in page
    document = json.loads(call("--case", path, "--json").stdout)
    jsonschema.validate(document, Answer.model_json_schema(mode="serialization"))
    assert document["ranked"][0]["id"] == "multi-party, exact"


def test_measurements_of_a_results_file_reach_the_screen(call: Any, tmp_path: Path) -> None:
    with opened(tmp_path / "results.duckdb", write=True) as store:
        store.add(trial(True), 1)
    shown = call("--case", str(ROOT / "examples" / "case.toml"), "--set", "exact=false", "--results", "results.duckdb")
    assert shown.exit_code == 0, shown.output
    assert "1 of 1 trials reached the success measure of near" in shown.stdout


def test_the_template_is_a_case_file(call: Any, tmp_path: Path) -> None:
    (tmp_path / "case.toml").write_text(call("--template").stdout)
    assert read_case(tmp_path / "case.toml") == Case()
    assert call("--case", "case.toml", "--set", "parties=2", "--json").exit_code == 0


def test_questions_are_asked_with_defaults_and_again_when_an_answer_does_not_fit(call: Any, tmp_path: Path) -> None:
    given = {"title": "Trade", "parties": "many\n5", "third_party": "yes", "epsilon": "-1\n2", "skills": "advanced"}
    lines = "\n".join(given.get(fact, "") for fact in Case.model_fields) + "\n"
    done = call("--interactive", "--save", "case.toml", "--json", input=lines)
    assert done.exit_code == 0, done.output
    assert "parties: got 'many'; want" in done.stderr
    assert "epsilon: got '-1'; want greater than 0" in done.stderr
    wanted = Case(title="Trade", parties=5, third_party=True, epsilon=2.0, skills="advanced")
    assert read_case(tmp_path / "case.toml") == wanted
    assert Case.model_validate(json.loads(done.stdout)["case"]) == wanted


def test_facts_of_a_reference_scenario_can_be_taken_and_changed(call: Any) -> None:
    document = json.loads(call("--scenario", "time-use", "--set", "parties=9", "--json").stdout)
    assert document["case"]["parties"] == 9
    assert document["case"]["output"] == "model"
    named = json.loads(call("time-use", "--set", "parties=9", "--json").stdout)
    assert named == document


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "got no case; want one of FILE, --case FILE, --interactive, --scenario NAME, --template"),
        (["--case", "a.toml", "--scenario", "time-use"], "got --case and --scenario; want one of"),
        (["missing.toml"], "case file not found: missing.toml"),
        (["set-intersection", "--scenario", "time-use"], "got set-intersection and --scenario; want one case"),
        (["--case", "missing.toml"], "case file not found: missing.toml"),
        (["--scenario", "nothing"], "unknown scenario: got 'nothing'; want one of"),
        (["--scenario", "time-use", "--set", "epsilon=0"], "time-use: epsilon: got 0; want greater than 0"),
        (["--scenario", "time-use", "--set", "epsilon"], "--set: got 'epsilon'; want key=value"),
        (["--scenario", "time-use", "--results", "none.duckdb"], "results: got none.duckdb, which does not exist"),
        (["--scenario", "time-use", "--out", "/dev/null/where.md"], "cannot be written"),
    ],
)
def test_wrong_use_is_told_with_what_was_got_and_wanted(call: Any, words: list[str], message: str) -> None:
    done = call(*words)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")
