"""Population size from two lists, against the textbook and repeated draws with missed and false links."""

import numpy as np
import pytest

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.coverage import Coverage, matched_units, population_size
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.totals import blocked_rates, corrected_counts
from tests.core.linkage_errors.repeated import complaints
from tests.trade import draw

SIZE, FIRST, SECOND = 5000, 0.8, 0.7
UNITS = 16_000


def lists(rng: np.random.Generator) -> tuple[int, int, int]:
    """Units on the first list, on the second, and on both."""
    first, second = rng.random(SIZE) < FIRST, rng.random(SIZE) < SECOND
    return int(first.sum()), int(second.sum()), int((first & second).sum())


def test_without_errors_it_is_the_textbook_estimate() -> None:
    got = population_size(700, 600, 420)
    assert got.population.value == pytest.approx(700 * 600 / 420)
    assert got.population.std_error == pytest.approx((700 * 600 * 280 * 180 / 420**3) ** 0.5)
    assert got.first_missing.value == pytest.approx(0.3)
    assert got.second_missing.value == pytest.approx(0.4)


def test_an_odds_ratio_multiplies_the_unlisted_alone() -> None:
    got, independent = population_size(700, 600, 420, odds_ratio=2.0), population_size(700, 600, 420)
    assert got.population.value - 880 == pytest.approx(2 * (independent.population.value - 880))


def test_sizes_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    found = [population_size(*lists(rng)) for _ in range(300)]
    assert complaints([c.population for c in found], [SIZE] * 300) == []
    assert complaints([c.first_missing for c in found], [1 - FIRST] * 300)  # this population's, not the chance


def with_errors(rng: np.random.Generator, recall: float, false: float, known: float) -> tuple[Coverage, Coverage]:
    """Corrected and naive, for one-to-one links of the first list's records; rates known with error."""
    first, second, both = lists(rng)
    links = int(rng.binomial(both, recall) + rng.binomial(first - both, false))
    a, b = rng.normal(recall, known), max(rng.normal(false, known / 3), 0.0)
    rates = {"recall": Estimate("recall", a, known, "logit"), "false_rate": Estimate("false", b, known / 3, "log")}
    return population_size(first, second, matched_units(links, first, **rates), links=links), population_size(
        first, second, links
    )


@pytest.mark.parametrize(("recall", "false"), [(0.9, 0.0), (1.0, 0.1), (0.85, 0.1)])
def test_missed_and_false_links_are_both_corrected(recall: float, false: float) -> None:
    rng = np.random.default_rng(2)
    known = 0.01 if false > 0 and recall < 1 else 0.0
    pairs = [with_errors(rng, recall, false, known) for _ in range(300)]
    assert complaints([c.population for c, _ in pairs], [SIZE] * 300) == []
    assert complaints([n.population for _, n in pairs], [SIZE] * 300)
    assert pairs[0][0].naive == pytest.approx(pairs[0][1].population.value)


def test_the_size_from_links_whose_errors_come_from_the_same_links() -> None:
    found, missing, truth = [], [], []
    for seed in range(40):
        linked = draw(seed, UNITS, 0.75)
        rates = blocked_rates(linked.counts, candidates=linked.candidates)
        total = corrected_counts(rates, linked.links, linked.blocked).total
        result = population_size(*linked.files, total, links=int(linked.links.sum()))
        found.append(result.population)
        missing.append(result.first_missing)
        truth.append(1 - linked.files[0] / UNITS)
    assert complaints(found, [UNITS] * 40) == []
    assert complaints(missing, truth) == []


@pytest.mark.parametrize(
    ("change", "want"),
    [({"links": 0}, "links"), ({"links": 60}, "0 or fewer"), ({"recall": Estimate("recall", 0.05, 0.0)}, "false_rate")],
)
def test_links_that_identify_no_matches_are_refused(change: dict[str, object], want: str) -> None:
    rates = {
        "recall": Estimate("recall", 0.9, 0.0),
        "false_rate": Estimate("false", 0.1, 0.0),
        "links": 500,
        "exposed": 700,
    }
    with pytest.raises(UsageError, match=want):
        matched_units(**{**rates, **change})  # type: ignore[arg-type]


def test_more_matches_than_the_shorter_list_has_are_refused() -> None:
    with pytest.raises(UsageError, match="shorter list"):
        population_size(700, 600, 640)
    assert population_size(700, 600, Estimate("both", 604.0, 5.0, "log")).population.value == 700
    with pytest.raises(UsageError, match="not identified"):
        population_size(700, 600, 0)
