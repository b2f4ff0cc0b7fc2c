"""Scenario remote-analytics: generated pupils, the user's own copy, one holder, and what an attack finds at a level."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score

from statfed.core.applicability import obstacles
from statfed.core.errors import UsageError
from statfed.core.method import read_question
from statfed.core.progress import silent
from statfed.core.records import Records, mismatches
from statfed.core.scenario import EXACT, Level, Population, Training
from statfed.core.study import Study, make_study
from statfed.federation.references import prepare
from statfed.federation.run import Options, run_study
from statfed.lab.compare.membership import attack, standard_error
from statfed.lab.compare.training import probabilities, study_of, terms_of
from statfed.lab.compare.trial import Technique
from statfed.scenarios import remote_analytics
from statfed.scenarios._data import student
from statfed.strategies.learning.local import set_vector
from statfed.strategies.learning.prepared import build


def study(holders: Any = 1, seed: int = 1, **data: Any) -> Study:
    return make_study(dict(remote_analytics.STUDY) | {"holders": holders, "seed": seed, "data": data})


def populate(holders: Any = 1, seed: int = 1, **data: Any) -> Population:
    return remote_analytics.population(study(holders, seed, **data), silent)


def same(one: Records, other: Records) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("windows", "labels", "persons"))


def test_module_fulfils_the_training_contract() -> None:
    def check(scenario: Training) -> None:
        assert scenario.codebook(make_study(scenario.STUDY)) == scenario.CODEBOOK
        for profile in ("quick", "full"):
            for level in scenario.LEVELS:
                found = study_of(scenario, profile, 3, Technique("plain", level))
                assert len(found.holders) == 1
                assert not obstacles(terms_of(scenario, found))

    check(remote_analytics)


# The generator


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return student.generate(20_000, np.random.default_rng(1))


def test_generated_margins_are_those_of_the_questions(table: pd.DataFrame) -> None:
    for name, question in student.QUESTIONS.items():
        want: dict[Any, Any]
        if isinstance(question, student.Scale):
            want = dict(enumerate(np.array(question.shares) / sum(question.shares), question.low))
        else:
            want = dict(question.shares)
        found = table[name].value_counts(normalize=True)
        assert set(found.index) <= set(want), name
        for code, share in want.items():
            assert found.get(code, 0.0) == pytest.approx(share, abs=0.015), (name, code)


def test_two_thirds_pass_and_grades_hang_together_as_in_the_data_set(table: pd.DataFrame) -> None:
    assert (table["G3"] >= student.PASS).mean() == pytest.approx(0.67, abs=0.02)
    with_final = {
        name: float(np.corrcoef(table[name], table["G3"])[0, 1]) for name in table if table[name].dtype != "O"
    }
    assert with_final["G1"] == pytest.approx(0.80, abs=0.04)
    assert with_final["G2"] == pytest.approx(0.90, abs=0.03)
    assert -0.45 < with_final["failures"] < -0.2
    assert 0.1 < with_final["Medu"] < 0.35


def test_a_table_becomes_records_that_fit_the_codebook(table: pd.DataFrame) -> None:
    windows, labels = student.windows(table)
    assert windows.shape == (20_000, 45, 1)
    assert mismatches(Records(windows, labels, np.arange(20_000)), student.CODEBOOK) == []
    names = [channel.name for channel in student.CODEBOOK.channels]
    column = dict(zip(names, windows[:, :, 0].T, strict=True))
    np.testing.assert_array_equal(column["Mjob=teacher"], table["Mjob"] == "teacher")
    np.testing.assert_array_equal(column["sex"], table["sex"] == "M")
    np.testing.assert_array_equal(column["G2"], table["G2"])
    jobs = np.stack([column[name] for name in names if name.startswith("Mjob=")])
    np.testing.assert_array_equal(jobs.sum(0), 1)


def test_a_logistic_regression_on_pooled_records_beats_the_majority_by_far() -> None:
    found = populate(records=2000, test_records=2000)
    train, test = found.holders["office-1"], found.test
    model = LogisticRegression(max_iter=2000).fit(train.windows[:, :, 0], train.labels)
    right = model.score(test.windows[:, :, 0], test.labels)
    assert 0.80 < right < 0.93
    assert right > test.labels.mean() + 0.12


# The population


def test_population_repeats_itself_and_offices_do_not_depend_on_one_another() -> None:
    one, again, more = populate(), populate(), populate(3)
    assert same(one.holders["office-1"], again.holders["office-1"])
    assert same(one.test, again.test)
    assert same(one.holders["office-1"], more.holders["office-1"])
    assert not np.array_equal(more.holders["office-1"].windows, more.holders["office-2"].windows)
    people = np.concatenate([r.persons for r in [*more.holders.values(), more.test]])
    assert len(np.unique(people)) == len(people) == 3 * 650 + 1000
    assert one.synthetic


def written(folder: Path, **changes: Any) -> str:
    rows = student.generate(90, np.random.default_rng(7)).assign(**changes)
    path = folder / "student-mat.csv"
    rows.to_csv(path, sep=";", index=False)
    return str(path)


def test_an_own_copy_is_dealt_to_the_office_and_a_third_is_held_out(tmp_path: Path) -> None:
    found = populate(source="uci-student", path=written(tmp_path, absences=75))
    (office,) = found.holders.values()
    assert (len(office), len(found.test)) == (60, 30)
    assert not found.synthetic
    assert set(office.persons) | set(found.test.persons) == set(range(90))
    absences = [channel.name for channel in student.CODEBOOK.channels].index("absences")
    np.testing.assert_array_equal(office.windows[:, absences, 0], student.ABSENCES)  # top-coded
    assert mismatches(office, student.CODEBOOK) == []
    ignored = populate(source="uci-student", path=written(tmp_path), records=30)
    assert ignored.warnings == ("data.records has no effect with these data: ignored",)


@pytest.mark.parametrize(
    ("holders", "data", "message"),
    [
        (1, {"source": "uci-student"}, "data.path: missing; want student-mat.csv"),
        (1, {"source": "uci-student", "path": "nowhere.csv"}, "data.path: got nowhere.csv, not readable"),
        (2, {"source": "uci-student", "path": "x"}, "holders: got 2; want 1"),
        (1, {"records": 5}, "data.records: got 5; want"),
        (2, {"records": 600_000}, "data.records: got 1,201,000 records in all; want at most 1,000,000"),
        (1, {"rows": 5}, "data.rows: unknown key"),
    ],
)
def test_wrong_options_are_refused_by_name(holders: int, data: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        populate(holders, **data)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"school": "XX"}, "school: got 'XX'; want GP, MS"),
        ({"Dalc": 9}, "Dalc: got 9; want 1, 2, 3, 4, 5"),
    ],
)
def test_a_spoiled_copy_is_refused_naming_the_column(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        populate(source="uci-student", path=written(tmp_path, **changes))
    assert message in str(caught.value)


def test_a_copy_that_lacks_a_column_is_refused(tmp_path: Path) -> None:
    path = Path(written(tmp_path))
    pd.read_csv(path, sep=";").drop(columns=["G2"]).to_csv(path, sep=";", index=False)
    with pytest.raises(UsageError, match=r"student-mat.csv lacks G2"):
        populate(source="uci-student", path=str(path))


# One holder, measures, levels


@pytest.mark.parametrize("protection", ["secure-aggregation", "multi-party", "homomorphic-encryption"])
def test_a_sum_over_one_office_is_refused_with_its_reason(protection: str) -> None:
    found = study_of(remote_analytics, "quick", 1, Technique(protection, EXACT))
    (obstacle,) = obstacles(terms_of(remote_analytics, found))
    assert "each could subtract its own part from an exact total" in str(obstacle)
    assert "at least 3 holders" in str(obstacle)
    assert protection not in remote_analytics.ABOUT.protections


def test_measures_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    passes, labels = random.random(300), random.integers(0, 2, 300)
    given = np.stack([1 - passes, passes], axis=1)
    found = remote_analytics.measures(given, labels)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, passes))
    assert found["brier"] == pytest.approx(brier_score_loss(labels, passes))
    assert remote_analytics.measures(given, np.ones(300, np.int64))["roc_auc"] == 0.5


@pytest.mark.parametrize("level", remote_analytics.LEVELS, ids=lambda level: level.id)
def test_a_level_trains_and_an_attack_finds_members_only_where_records_were_fitted(
    level: Level, tmp_path: Path
) -> None:
    found = study_of(remote_analytics, "quick", 1, Technique("plain", level))
    population = remote_analytics.population(found, silent)
    result = run_study(found, Options(workspace=tmp_path / "work", references=False))
    epsilon = result.spending[0].study_epsilon
    if level.privacy is None:
        assert epsilon is None
    else:
        assert epsilon is not None
        assert 0.9 * level.privacy["epsilon"] < epsilon <= level.privacy["epsilon"]
    _, question = read_question(result.terms)
    model = build(question)
    set_vector(model, result.result.arrays["model"])
    mine, test = prepare(population.holders["office"], question), prepare(population.test, question)
    leak = attack(probabilities(model, mine), mine.labels, probabilities(model, test), test.labels)
    error = standard_error(len(mine.labels), len(test.labels))
    if level.id == "exact-fitted":
        assert leak > 0.5 + 3 * error
    else:
        assert abs(leak - 0.5) < 3 * error
    if level.id != "epsilon-0.3":
        assert result.candidates[0].scores.accuracy > 0.8
