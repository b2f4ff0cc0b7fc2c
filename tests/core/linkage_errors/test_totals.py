"""Corrected totals: the figures that the pilots published, plain enumeration, and repeated draws of two registers."""

from functools import cache

import numpy as np
import pytest

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.bootstrap import bootstrap_totals
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.totals import (
    BlockedRates,
    CorrectedTotals,
    adjusted,
    blocked_rates,
    corrected_counts,
    corrected_totals,
)
from tests.core.linkage_errors.repeated import complaints
from tests.trade import CELLS, Linked, draw

DRAWS = 50

# UNECE/Input-Privacy-Preserving-Project, Code/PSI_WITH_TYPOS/README.md: pairs in blocks, links, corrected counts of
# small 100, small 300, large 100 and large 300
CENSUS = (
    (139_049, 46_795, 159_037, 52_261),
    (28_194, 9_612, 31_595, 10_416),
    (35_326.844527, 12_043.755041, 39_588.268876, 13_051.160267),
)
SAMPLES = (
    (68_677, 22_951, 77_687, 25_910),
    (14_013, 4_649, 15_377, 5_185),
    (17_345.776840, 5_754.693251, 19_034.183290, 6_418.172619),
)


@pytest.mark.parametrize(("published", "recall", "total"), [(CENSUS, 0.798090, 100_010), (SAMPLES, 0.807862, 48_553)])
def test_published_cells_of_the_pilots_follow_from_their_counts(
    published: tuple[tuple[float, ...], ...], recall: float, total: float
) -> None:
    """Their two rates are not published. Two cells give them (links = recall T + r (blocked - T)); the other two are
    then to come out as published, and all with the rates that hold best in the four."""
    blocked, links, corrected = map(np.array, published)
    for pair in ([0, 1], [0, 2], [1, 3], [2, 3]):
        rates = np.linalg.solve(np.column_stack([corrected, blocked - corrected])[pair], links[pair])
        got = (links - rates[1] * blocked) / (rates[0] - rates[1])
        np.testing.assert_allclose(got, corrected, rtol=0, atol=0.001)
    rates, *_ = np.linalg.lstsq(np.column_stack([corrected, blocked - corrected]), links)
    assert rates[0] == pytest.approx(recall, abs=5e-7)
    assert 0 <= rates[1] < 1e-8  # the pilots found no false links beyond chance
    np.testing.assert_allclose(adjusted(links, blocked, *rates), corrected, rtol=0, atol=1e-5)
    assert adjusted(links, blocked, *rates).sum() == pytest.approx(total, abs=0.5)


@cache
def results(coverage: float) -> tuple[tuple[BlockedRates, CorrectedTotals], ...]:
    return tuple((rates := rates_of(linked), totals_of(linked, rates)) for linked in draws(coverage))


def rates_of(linked: Linked, grouped: bool = True) -> BlockedRates:
    counts = linked.counts if grouped else linked.counts.sum(axis=0)
    return blocked_rates(counts, candidates=linked.candidates)


def totals_of(linked: Linked, rates: BlockedRates) -> CorrectedTotals:
    return corrected_counts(rates, linked.links, linked.blocked, names=CELLS)


@cache
def draws(coverage: float) -> tuple[Linked, ...]:
    return tuple(draw(seed, 16_000, coverage) for seed in range(DRAWS))


def test_the_tables_of_a_draw_add_up_to_its_totals() -> None:
    small = draw(1, 60, 0.8, typos=0.3, chance=0.25)
    assert small.counts.sum() == small.files[0]
    j, k = np.arange(small.counts.shape[1]), np.arange(small.counts.shape[2])
    assert j @ small.counts.sum(axis=(0, 2)) == small.blocked.sum()
    assert k @ small.counts.sum(axis=(0, 1)) == small.links.sum()


@pytest.mark.parametrize("cell", range(4))
def test_intervals_of_cells_hold_the_truth_as_often_as_they_say(cell: int) -> None:
    found = [totals.cells[cell] for _, totals in results(0.7)]
    assert complaints(found, [linked.truth[cell] for linked in draws(0.7)]) == []


def test_intervals_of_the_total_hold_the_truth_as_often_as_they_say() -> None:
    found = [totals.total for _, totals in results(0.7)]
    assert complaints(found, [linked.truth.sum() for linked in draws(0.7)]) == []


def test_the_naive_total_is_far_off_where_the_corrected_one_is_not() -> None:
    naive = [Estimate("naive", linked.links.sum(), np.sqrt(linked.links.sum())) for linked in draws(0.7)]
    assert complaints(naive, [linked.truth.sum() for linked in draws(0.7)])


def test_intervals_that_take_records_of_a_block_as_independent_are_noticed() -> None:
    found = [totals_of(linked, rates_of(linked, grouped=False)).total for linked in draws(0.7)]
    assert any("standard error" in said for said in complaints(found, [linked.truth.sum() for linked in draws(0.7)]))


def test_intervals_of_a_value_hold_the_truth_as_often_as_they_say() -> None:
    found = []
    for linked, (rates, _) in zip(draws(0.7), results(0.7), strict=True):
        totals = corrected_totals(
            rates,
            linked.value_links,
            linked.value_blocked,
            links_squared=linked.squares_links,
            blocked_squared=linked.squares_blocked,
        )
        found.append(totals.total)
    assert complaints(found, [linked.value_truth.sum() for linked in draws(0.7)]) == []


def test_census_files_give_their_number_of_records_and_cells_within_their_intervals() -> None:
    some = [draw(seed, 4_000, 1.0) for seed in range(40)]
    found = [totals_of(linked, rates_of(linked)) for linked in some]
    assert all(t.total.value == pytest.approx(4000, abs=1e-6) for t in found)
    for cell in range(4):  # wider than they would need to be, by what a coverage just below 1 would do
        held = sum(
            t.cells[cell].interval()[0] <= d.truth[cell] <= t.cells[cell].interval()[1]
            for t, d in zip(found, some, strict=True)
        )
        assert held >= 34


def test_recall_and_r_hold_the_truth_as_often_as_they_say() -> None:
    found = [rates for rates, _ in results(0.7)]
    assert complaints([r.linkage.recall for r in found], [0.8] * DRAWS) == []
    assert complaints([r.coverage for r in found], [0.7] * DRAWS) == []
    # a pair that is no match agrees on the key with chance 1 / 20, miswritten or not
    assert complaints([r.ratio for r in found], [0.05] * DRAWS) == []


def test_the_bootstrap_of_totals_agrees_with_the_formula() -> None:
    linked = draw(5, 20_000, 0.7)
    totals = totals_of(linked, rates := rates_of(linked))
    drawn = bootstrap_totals(linked.counts, rates, totals, 60, seed=1)
    for each in (*totals.cells, totals.total):
        assert drawn.std_error()[each.name] == pytest.approx(each.std_error, rel=0.35)
    with pytest.raises(UsageError, match="counts"):
        bootstrap_totals(linked.counts[:, :, :-1], rates, totals, 60)


def test_known_rates_correct_a_linkage_that_is_enumerated() -> None:
    # 100 matches of which 80 are linked, 300 other pairs of which 15 are
    assert adjusted(95, 400, 0.8, 0.05) == pytest.approx(100)
    with pytest.raises(UsageError, match="0 <= r < recall"):
        adjusted(95, 400, 0.05, 0.05)


def test_more_links_than_pairs_in_the_block_are_refused() -> None:
    counts = draws(0.7)[0].counts.copy()
    counts[0, 0, 1] = 1
    with pytest.raises(UsageError, match="k <= j"):
        blocked_rates(counts, candidates=16_000)


def test_totals_of_a_value_are_not_taken_for_counts() -> None:
    linked, (rates, _) = draws(0.7)[0], results(0.7)[0]
    with pytest.raises(UsageError, match="whole numbers"):
        corrected_counts(rates, linked.value_links, linked.value_blocked)
    with pytest.raises(UsageError, match="that the rates come from"):
        corrected_counts(rates, np.round(linked.value_links), np.round(linked.value_blocked))
    with pytest.raises(UsageError, match="cells"):
        corrected_counts(rates, linked.links[:2], linked.blocked)


def test_a_key_without_typos_and_one_that_links_nothing_false() -> None:
    faultless = draw(1, 4_000, 1.0, typos=0.0)
    totals = totals_of(faultless, rates := rates_of(faultless))
    assert rates.linkage.recall.value == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose([e.value for e in totals.cells], faultless.truth, rtol=0.05)
    pilot = draw(2, 4_000, 1.0, chance=1e-6)  # as in the pilot's census: no two pairs of a block agree by chance
    with pytest.raises(UsageError, match="one-to-one"):
        rates_of(pilot)
    rates = blocked_rates(pilot.counts, candidates=pilot.candidates, several_allowed=True)
    assert rates.ratio.value == 0
    totals = totals_of(pilot, rates)
    assert totals.total.value == pytest.approx(4_000)
    held = [low <= t <= high for (low, high), t in zip((e.interval() for e in totals.cells), pilot.truth, strict=True)]
    assert all(held)


def test_a_model_that_does_not_fit_is_said_with_the_totals() -> None:
    rng = np.random.default_rng(1)
    counts = np.zeros((50, 13, 4), dtype=int)
    pairs = rng.binomial(6, 0.5, 40_000) + (rng.random(40_000) < 0.8)  # less spread than any mixture of Poissons
    links = (rng.random(40_000) < 0.6 * (pairs > 0)).astype(int) + (rng.random(40_000) < 0.1 * (pairs > 1))
    np.add.at(counts, (rng.integers(0, 50, 40_000), pairs, links), 1)
    totals = corrected_counts(blocked_rates(counts, candidates=40_000), links.sum(), pairs.sum())
    assert any("does not fit" in note for note in totals.notes)
    assert "does not fit" in totals.summary()


def test_results_say_what_they_are() -> None:
    rates, totals = results(0.7)[0]
    assert "naive" in totals.summary()
    assert totals.notes == ()
    assert [row["name"] for row in totals.rows()] == [*CELLS, "total"]
    assert totals.total.value == pytest.approx(sum(each.value for each in totals.cells))
    assert "coverage" in rates.summary()
