"""Scenario coding: generated answers, how offices differ, what is measured, and that training works at each level."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.applicability import obstacles
from statfed.core.errors import UsageError
from statfed.core.progress import silent
from statfed.core.records import Records, mismatches
from statfed.core.scenario import Level, Population, Training
from statfed.core.study import Study, make_study
from statfed.federation.run import Options, run_study
from statfed.lab.compare.training import study_of, terms_of
from statfed.lab.compare.trial import Technique
from statfed.scenarios import coding
from statfed.scenarios._data import occupations

SMALL = {"records": 200, "test_records": 300}


def study(holders: Any = 5, seed: int = 1, **data: Any) -> Study:
    return make_study(dict(coding.STUDY) | {"holders": holders, "seed": seed, "data": SMALL | data})


def populate(holders: Any = 5, seed: int = 1, **data: Any) -> Population:
    return coding.population(study(holders, seed, **data), silent)


def same(one: Records, other: Records) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("windows", "labels", "persons"))


def test_module_fulfils_the_training_contract() -> None:
    def check(scenario: Training) -> None:
        assert scenario.codebook(make_study(scenario.STUDY)) == scenario.CODEBOOK
        for profile in ("quick", "full"):
            for level in scenario.LEVELS:
                found = study_of(scenario, profile, 3, Technique("secure-aggregation", level))
                assert not obstacles(terms_of(scenario, found))

    check(coding)


# The generator


def test_the_groups_are_20_unit_groups_of_isco_with_rare_ones_among_them() -> None:
    codes = [group.code for group in occupations.GROUPS]
    assert len(set(codes)) == len(occupations.CLASSES) == 20
    assert all(len(code) == 4 and code.isdigit() for code in codes)
    assert len(occupations.RARE) == 4
    assert occupations.SHARES[list(occupations.RARE)].sum() < 0.03
    assert occupations.SHARES.sum() == pytest.approx(1.0)


def test_answers_come_back_from_their_codes_and_other_alphabets_are_refused() -> None:
    said = ["Köchin im Hotel", "", "x" * 80]
    windows = occupations.codes(said)
    assert windows.shape == (3, 1, 64)
    assert occupations.texts(windows) == ["Köchin im Hotel", "", "x" * 64]
    with pytest.raises(UnicodeEncodeError):
        occupations.codes(["учитель"])


def test_typos_and_abbreviations_are_as_frequent_as_the_office_makes_them() -> None:
    random = np.random.default_rng(1)
    labels = random.choice(20, 3000, p=occupations.SHARES)
    drawn = occupations.speech(random)
    clean = occupations.Speech(drawn.favourites, 0.0, 0.0, 0.0)
    dirty = occupations.Speech(drawn.favourites, 0.08, 0.0, 0.0)
    short = occupations.Speech(drawn.favourites, 0.0, 1.0, 1.0)

    def words(spoken: occupations.Speech) -> list[str]:
        return [w for said in occupations.answers(labels, spoken, np.random.default_rng(2)) for w in said.split()]

    known = set(words(clean))
    assert len(known) < 400
    assert np.mean([word in known for word in words(dirty)]) < 0.75
    shouted = words(short)
    assert all(word.upper() == word for word in shouted)
    assert "ASSISTANT" not in shouted
    assert "ASST" in shouted


def test_vague_answers_fit_several_groups() -> None:
    groups = {word: [g.code for g in occupations.GROUPS if word in g.vague] for word in ("nurse", "assistant", "clerk")}
    assert groups["nurse"] == ["2221", "3221", "3240"]
    assert len(groups["assistant"]) >= 4
    assert groups["clerk"] == ["4120", "4311", "5230"]


def test_miscoding_has_its_rate_and_stays_among_groups_that_share_words() -> None:
    random = np.random.default_rng(3)
    true = np.repeat(np.arange(20), 2000)
    given = occupations.coded(true, random, 0.1)
    rates = np.array([(given[true == group] != group).mean() for group in range(20)])
    alone = [i for i, g in enumerate(occupations.GROUPS) if not any(set(g.vague) & set(o.vague) - {""}
             for o in occupations.GROUPS if o is not g)]  # fmt: skip
    assert rates[alone] == pytest.approx(0.0)
    np.testing.assert_allclose(np.delete(rates, alone), 0.1, atol=0.03)
    for one, other in set(zip(true[true != given].tolist(), given[true != given].tolist(), strict=True)):
        assert set(occupations.GROUPS[one].vague) & set(occupations.GROUPS[other].vague)


# The population


def test_population_repeats_itself_and_fits_the_codebook() -> None:
    one, again, other = populate(), populate(), populate(seed=2)
    for name, records in [*one.holders.items(), ("test", one.test)]:
        assert mismatches(records, coding.CODEBOOK) == []
        assert same(records, again.holders.get(name, again.test))
    assert not np.array_equal(one.test.windows, other.test.windows)
    assert one.synthetic


def test_an_office_does_not_depend_on_how_many_others_there_are() -> None:
    few, many = populate(2), populate(5)
    assert same(few.holders["office-1"], many.holders["office-1"])
    assert same(few.holders["office-2"], many.holders["office-2"])


def test_offices_differ_in_size_mix_and_words_and_the_test_is_in_the_common_mix() -> None:
    found = populate(records=2000, test_records=3000)
    assert [len(r) for r in found.holders.values()] == [3200, 3200, 1200, 1200, 1200]
    mixes = np.array([np.bincount(r.labels, minlength=20) / len(r) for r in found.holders.values()])
    assert np.abs(mixes - occupations.SHARES).sum(1).min() > 0.15  # total variation above 7 points
    test = np.bincount(found.test.labels, minlength=20) / len(found.test)
    assert np.abs(test - occupations.SHARES).sum() < 0.12
    assert all(np.unique(r.persons).size == len(r) for r in found.holders.values())
    people = np.concatenate([r.persons for r in [*found.holders.values(), found.test]])
    assert len(np.unique(people)) == len(people)

    def share(records: Records, word: str) -> float:
        drivers = records.select(records.labels == 19)
        return float(np.mean([word in said.lower() for said in occupations.texts(drivers.windows)]))

    trucks = [share(records, "truck") for records in found.holders.values()]
    assert max(trucks) - min(trucks) > 0.1


def test_the_held_out_answers_are_rightly_coded_and_training_answers_are_not_all() -> None:
    right, wrong = populate(miscoded=0.0), populate(miscoded=0.3)
    assert np.array_equal(right.test.labels, wrong.test.labels)
    moved = [(right.holders[n].labels != wrong.holders[n].labels).mean() for n in right.holders]
    assert 0.15 < np.mean(moved) < 0.35


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holders": 1}, "holders: got 1 offices; want 2 to 1000"),
        ({"data": {"records": 100_000}}, "data.records: got 500,000 answers of 5 offices in all; want at most 200,000"),
        ({"data": {"record": 5}}, "data.record: unknown key; want one of data.records"),
        ({"data": {"skew": 0}}, "data.skew: got 0; want"),
    ],
)
def test_wrong_options_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        coding.population(make_study(dict(coding.STUDY) | changes), silent)
    assert message in str(caught.value)


# The measures


def test_measures_of_a_small_case_by_hand() -> None:
    probabilities = np.full((4, 20), 0.001)
    labels = np.array([0, 4, 3, 3])
    for row, (taken, second) in enumerate([(0, 1), (2, 1), (3, 0), (4, 5)]):
        probabilities[row, taken], probabilities[row, second] = 0.9 - row / 100, 0.05
    probabilities[3, 6:10] = 0.01  # the right code, 3, is not among the first five
    found = coding.measures(probabilities, labels)
    assert found["top_5"] == 0.75
    assert found["codable"] == 0.25  # the surest is right; with the second, half are wrong
    assert found["rare_recall"] == 0.5  # group 3 is rare, one of its two answers got its code


def test_codable_share_is_that_of_trying_every_threshold() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        sureness = random.integers(0, 40, 200) / 40  # with ties
        right = random.random(200) < 0.75 + 0.25 * sureness
        shares = [
            (sureness >= threshold).mean()
            for threshold in np.unique(sureness)
            if (~right[sureness >= threshold]).mean() <= coding.CODABLE_ERROR
        ]
        assert coding.codable(sureness, right) == pytest.approx(max(shares, default=0.0))
    assert coding.codable(np.ones(3), np.array([True, True, True])) == 1.0
    assert coding.codable(np.ones(3), np.array([True, True, False])) == 0.0


# Training


@pytest.mark.parametrize("level", coding.LEVELS, ids=lambda level: level.id)
def test_a_level_trains_and_spends_what_it_says(level: Level, tmp_path: Path) -> None:
    protection = "secure-aggregation" if level.privacy and level.privacy["noise"] == "shared" else "plain"
    found = study_of(coding, "quick", 1, Technique(protection, level))
    small = found.replace(options={**found.options, "rounds": 3}, data=SMALL)
    result = run_study(small, Options(workspace=tmp_path / "work", references=False))
    assert result.synthetic
    scores = result.candidates[0].scores
    assert scores.accuracy > {"exact": 0.5, "epsilon-1": 0.05}.get(level.id, 0.13)  # the largest group has 12 %
    epsilons = [spending.study_epsilon for spending in result.spending]
    if level.privacy is None:
        assert epsilons == [None] * 5
    else:
        assert all(e is not None and 0.9 * level.privacy["epsilon"] < e <= level.privacy["epsilon"] for e in epsilons)
