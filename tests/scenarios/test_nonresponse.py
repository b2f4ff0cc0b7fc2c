"""`nonresponse`: the paradata are realistic, the models find what generated them, and rules do what they say."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from statfed.core.errors import UsageError
from statfed.core.scenario import Figure, World, private
from statfed.lab.compare.bench import tried
from statfed.lab.compare.questions import Questions
from statfed.lab.compare.statistics import bench_of, write_sources
from statfed.lab.compare.trial import Cell, Technique, Trial
from statfed.scenarios import nonresponse
from statfed.scenarios._data import fieldwork


@pytest.fixture(scope="module")
def world() -> World:
    return nonresponse.world("quick", 2)


@pytest.fixture(scope="module")
def trials(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trial]:
    """Every level once, under `plain`."""
    sources = write_sources(world, tmp_path_factory.mktemp("nonresponse"))
    reference = nonresponse.pooled(world)
    cells = [Cell("nonresponse", "quick", Technique("plain", level), 2) for level in nonresponse.LEVELS]
    return {c.technique.level.id: tried(bench_of(nonresponse, world, sources, reference), c) for c in cells}


def test_margins_are_those_of_a_social_survey_and_countries_differ(world: World) -> None:
    sizes = [len(frame) for frame in world.holders.values()]
    assert max(sizes) == 5 * min(sizes)
    pooled = pd.concat(world.holders.values())
    assert 0.35 < pooled["responded"].mean() < 0.6
    assert 2 < pooled["attempts"].mean() < 3.5
    assert pooled["attempts"].max() < fieldwork.MOST_ATTEMPTS  # so the cap does not bend the Poisson model
    rates = pooled.groupby("country")["responded"].mean()
    assert rates.max() - rates.min() > 0.2
    cities = (pooled["area"] == "city").groupby(pooled["country"]).mean()
    assert cities.max() - cities.min() > 0.4


def test_a_country_has_the_same_records_whatever_the_others_are(world: World) -> None:
    alone = fieldwork.gross_sample("country-d", 1, 2)
    pd.testing.assert_frame_equal(alone, world.holders["country-d"])


def test_the_generating_coefficients_are_found_in_the_full_world() -> None:
    """In standard errors of 61,000 persons; country effects are in the intercept, which seven countries place badly."""
    world = nonresponse.world("full", 1)
    found = nonresponse.pooled(world)
    slopes = [name for name in world.truth if name not in ("response/Intercept", "spread")]
    assert max(abs(found[name] - world.truth[name]) for name in slopes) < 0.15
    assert np.mean([abs(found[name] - world.truth[name]) for name in slopes]) < 0.04


def test_the_effort_model_is_that_of_statsmodels(world: World, trials: dict[str, Trial]) -> None:
    persons = pd.concat(world.holders.values(), ignore_index=True)
    for name in ("age", "area", "dwelling", "mode"):
        first = nonresponse._CATEGORIES[name][0]
        persons[name] = persons[name].where(persons[name] != first, f" {first}")  # sorts first: the reference
    formula = "I(attempts - 1) ~ C(age) + C(sex) + C(area) + C(dwelling) + C(mode) + C(country)"
    fit = sm.GLM.from_formula(formula, persons, family=sm.families.Poisson()).fit(tol=1e-12, tol_criterion="params")
    limits = fit.conf_int()
    for name in fieldwork.EFFORT:
        figure = trials["exact"].figures[f"effort/{name}"]
        assert figure.value == pytest.approx(fit.params[name], abs=1e-8)
        assert (figure.low, figure.high) == pytest.approx(tuple(limits.loc[name]), abs=1e-8)


def test_the_spread_is_that_of_adjusted_rates_and_has_an_interval(trials: dict[str, Trial]) -> None:
    figures = trials["exact"].figures
    spread = figures["spread"]
    assert spread.value is not None
    assert spread.low is not None
    assert spread.high is not None
    assert spread.low < spread.value < spread.high
    adjusted = np.array([figures[f"adjusted/{name}"].value for name in fieldwork.COUNTRIES], float)
    logits = np.log(adjusted / (1 - adjusted))
    assert logits.std() == pytest.approx(spread.value, rel=0.15)


def test_intervals_of_slopes_hold_the_truth_about_as_often_as_they_say(trials: dict[str, Trial]) -> None:
    coverage = trials["exact"].coverage
    assert coverage is not None
    assert coverage >= 0.8  # of 28; fewer than 23 would be beyond the 1 % point of a binomial of 0.95


def test_suppressed_rates_are_those_of_few_persons_and_some_that_would_give_them_away(
    world: World, trials: dict[str, Trial]
) -> None:
    persons = pd.concat(world.holders.values())
    for level, least in (("suppress-30", 30),):
        figures = trials[level].figures
        for domain in ("age", "dwelling"):
            cells = persons.groupby(["country", domain, "responded"]).size().unstack(fill_value=0)
            for (country, code), (no, yes) in zip(cells.index, cells.to_numpy(), strict=True):
                if min(no, yes) < least:
                    assert figures[f"rate/{country}/{code}"].value is None
        assert trials[level].reached
    shown = [trials[level].suppressed for level in ("exact", "suppress-30")]
    assert shown == sorted(shown, key=float)  # type: ignore[arg-type]
    assert shown[0] == 0
    assert shown[1] > 0.1  # type: ignore[operator]


def test_rounded_counts_give_rates_that_are_off_by_what_rounding_does(world: World, trials: dict[str, Trial]) -> None:
    """Base 5: numerator and denominator are each off by less than 5, so a rate of a small cell is off by points."""
    trial = trials["round"]
    for country, frame in world.holders.items():
        for code, here in frame.groupby("age"):
            figure = trial.figures[f"rate/{country}/{code}"]
            assert figure.value is not None
            assert abs(figure.value - here["responded"].mean()) <= 10 / (len(here) - 5)
    assert not trial.reached


def test_one_country_has_no_spread_and_is_no_success() -> None:
    figures = {"spread": Figure(None), "rate/all": Figure(0.5)}
    assert nonresponse.worst(figures, {"spread": 0.5, "rate/all": 0.5}) == np.inf


def test_differential_privacy_is_refused_as_the_mixed_model_has_no_private_form(world: World, tmp_path: Path) -> None:
    sources = write_sources(world, tmp_path / "data")
    ask = Questions(sources, world.codebook, Technique("plain", private(1.0)), 2, tmp_path)
    with pytest.raises(UsageError, match="glmm has no differentially private form"):
        nonresponse.compute(ask, world.public)
