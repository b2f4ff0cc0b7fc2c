"""Secondary suppression and its audit: what an attacker can work out, against enumeration of all tables."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from statfed.core.disclosure import Rules
from statfed.core.errors import EngineError, UsageError
from statfed.server.disclosure.audit import Attacker, intervals, too_narrow
from statfed.server.disclosure.primary import (
    Numbers,
    dominance,
    full_cells,
    minimum_frequency,
    p_percent,
    unsafe_rows,
)
from statfed.server.disclosure.sums import Floats, Key, Sum, Sums, published_sums
from statfed.server.disclosure.suppression import Measure, Problem, exact, heuristic, suppress

TWO_REGIONS = {"a": "north", "b": "north", "c": "south", "d": "south", "e": "south"}


def table(x: NDArray[Any]) -> tuple[Sums, Floats]:
    """All margins of an array, and the equations between them."""
    cells: list[Key] = [tuple(map(str, place)) for place in np.ndindex(x.shape)]
    margins: list[Key] = []
    values = [float(value) for value in x.reshape(-1)]
    for keep in itertools.product((False, True), repeat=x.ndim):
        if not all(keep):
            margin = np.asarray(x.sum(axis=tuple(i for i, kept in enumerate(keep) if not kept)))
            for place in np.ndindex(margin.shape):
                left = iter(place)
                margins.append(tuple(str(next(left)) if kept else Sum(None) for kept in keep))
                values.append(float(margin[place]))
    return published_sums(cells, margins, [{}] * x.ndim), np.array(values, float)


def hierarchical(x: NDArray[np.int64]) -> tuple[Sums, Floats]:
    """5 areas in two regions by columns; regions, country and column totals are published."""
    below = {Sum("north"): [0, 1], Sum("south"): [2, 3, 4], Sum(None): [0, 1, 2, 3, 4]}
    rows: list[tuple[str | Sum, list[int]]] = [(area, [i]) for i, area in enumerate("abcde")]
    rows += list(below.items())
    columns: list[tuple[str | Sum, list[int]]] = [(str(j), [j]) for j in range(x.shape[1])]
    columns.append((Sum(None), list(range(x.shape[1]))))
    found = {(r, c): float(x[np.ix_(i, j)].sum()) for r, i in rows for c, j in columns}
    cells = [key for key in found if not any(isinstance(c, Sum) for c in key)]
    margins = [key for key in found if key not in cells]
    return published_sums(cells, margins, [TWO_REGIONS, {}]), np.array([found[key] for key in cells + margins])


def problem(sums: Sums, counts: Floats, fewest: int = 10, interval: float = 1.0) -> Problem:
    unsafe = minimum_frequency(counts, fewest)
    width = np.where(unsafe, np.maximum(1, interval * counts), 0.0)
    cost = np.asarray(np.log1p(counts) * sums.leaves, np.float64)
    return Problem(sums, (Measure(counts, width),), unsafe, counts > 0, cost, counts, fewest)


def random_table(shape: Sequence[int], mean: float, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).negative_binomial(1.0, 1 / (1 + mean), tuple(shape))


def proven(asked: Problem, suppressed: NDArray[np.bool_]) -> None:
    """The audit's exact intervals, every protected row, and no primary row shown."""
    assert suppressed[asked.primary].all()
    assert asked.eligible[suppressed].all()
    for measure in asked.measures:
        found = intervals(asked.sums, measure.values, suppressed)
        width = found[:, 1] - found[:, 0]
        assert (width[measure.width > 0] >= measure.width[measure.width > 0] * (1 - 1e-5)).all()
        assert (found[:, 0] <= measure.values + 1e-5).all()
        assert (found[:, 1] >= measure.values - 1e-5).all()
    for equation in asked.sums.equations:
        members = list(equation.members)
        if asked.primary[members].any():
            able = (asked.counts * (asked.eligible | asked.primary))[members].sum()
            assert (asked.counts * suppressed)[members].sum() >= min(asked.together, able)


SHAPES = st.sampled_from([(3, 4), (5, 5), (3, 3, 3), (4, 3, 5), (2, 3, 2, 2)])


@settings(max_examples=15, deadline=None)
@given(
    shape=SHAPES, seed=st.integers(0, 10_000), mean=st.sampled_from([5, 15, 60]), interval=st.sampled_from([0.5, 1, 2])
)
def test_heuristic_leaves_no_primary_row_narrower_than_asked(
    shape: tuple[int, ...], seed: int, mean: float, interval: float
) -> None:
    asked = problem(*table(random_table(shape, mean, seed)), interval=interval)
    found = heuristic(asked)
    proven(asked, found)
    assert asked.safe(found)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), columns=st.integers(1, 4))
def test_hierarchies_are_protected_through_their_subtotals(seed: int, columns: int) -> None:
    sums, values = hierarchical(random_table((5, columns), 25, seed))
    assert sums.residual(values) == 0
    asked = problem(sums, values)
    for pattern in (heuristic(asked), suppress(asked, seconds=1.0).suppressed):
        proven(asked, pattern)


@settings(max_examples=10, deadline=None)
@given(shape=st.sampled_from([(3, 4), (4, 4), (2, 3, 3)]), seed=st.integers(0, 10_000))
def test_the_optimum_is_safe_and_never_dearer_than_the_heuristic(shape: tuple[int, ...], seed: int) -> None:
    asked = problem(*table(random_table(shape, 30, seed)))
    start = heuristic(asked)
    best = exact(asked, start, seconds=2.0)
    proven(asked, best.suppressed)
    assert best.bound <= asked.price(best.suppressed) + 1e-6
    assert asked.price(best.suppressed) <= asked.price(start) + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_is_that_of_trying_all_patterns(seed: int) -> None:
    asked = problem(*table(random_table((2, 3), 25, seed)))
    free = np.flatnonzero(~asked.primary & asked.eligible)
    least = math.inf
    for chosen in itertools.product((False, True), repeat=len(free)):
        trial = asked.primary.copy()
        trial[free] = chosen
        if asked.price(trial) < least and asked.safe(trial):
            least = asked.price(trial)
    best = exact(asked, heuristic(asked), seconds=10.0)
    assert best.optimal
    assert asked.price(best.suppressed) == pytest.approx(least)


def everything_possible(x: NDArray[np.int64], suppressed: NDArray[np.bool_], most: int) -> Floats:
    """Least and greatest value of each cell over all 2 x 3 tables of whole numbers that agree with what is shown."""
    _, values = table(x)
    grids = np.array(list(itertools.product(range(most + 1), repeat=x.size)))
    design = np.array([table(np.eye(x.size, dtype=np.int64)[i].reshape(x.shape))[1] for i in range(x.size)])
    agree = (np.abs(grids @ design - values)[:, ~suppressed] == 0).all(axis=1)
    return np.column_stack([grids[agree].min(axis=0), grids[agree].max(axis=0)]).astype(float)


@pytest.mark.parametrize("seed", range(4))
def test_audit_agrees_with_enumeration_of_every_possible_table(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 5, (2, 3))
    sums, values = table(x)
    suppressed = np.zeros(len(sums), bool)
    suppressed[rng.choice(6, 4, replace=False)] = True
    if seed % 2:
        suppressed[6 + int(rng.integers(1, 3))] = True
    found = intervals(sums, values, suppressed)[:6]
    assert found == pytest.approx(
        everything_possible(x, suppressed, 7 if seed % 2 == 0 else 8).clip(None, 99), abs=1e-6
    )


def test_primary_suppression_alone_is_shown_to_be_unsafe_and_masking_whole_rows_costs_more() -> None:
    x = random_table((6, 6), 40, 2)
    asked = problem(*table(x))
    measure = asked.measures[0]
    exposed = too_narrow(asked.sums, measure.values, asked.primary, measure.width)
    assert exposed.any()
    alone = intervals(asked.sums, measure.values, asked.primary)
    assert (np.abs(alone[exposed] - measure.values[exposed, np.newaxis]).max(axis=1) < 1e-6).any()
    masked = asked.primary.copy()
    for i in np.flatnonzero(asked.primary):
        if i < asked.sums.cells:
            row = asked.sums.keys[i][0]
            masked |= np.array([key[0] == row for key in asked.sums.keys])
    best = suppress(asked, seconds=5.0).suppressed
    assert asked.safe(best)
    assert best.sum() < masked.sum()
    assert measure.values[best].sum() < measure.values[masked].sum()


def test_a_primary_cell_alone_in_its_row_is_recovered_exactly_by_the_audit() -> None:
    sums, values = table(np.array([[3, 50], [60, 70]]))
    hidden = np.zeros(len(sums), bool)
    hidden[0] = True
    assert intervals(sums, values, hidden)[0] == pytest.approx([3, 3])


def test_three_ways_are_attacked_as_a_whole_and_not_slice_by_slice() -> None:
    x = np.full((2, 2, 2), 50)
    x[0, 0, 0] = 3
    sums, values = table(x)
    slice_only = np.zeros(len(sums), bool)
    slice_only[[0, 2, 4, 6]] = True  # a safe rectangle in one two-way slice, given away by the third margin
    assert intervals(sums, values, slice_only)[0] == pytest.approx([3, 3])
    asked = problem(sums, values)
    assert suppress(asked).suppressed[:8].sum() == 8 or suppress(asked).suppressed[8:].any()
    proven(asked, suppress(asked).suppressed)


def test_without_suppressible_cells_the_margins_themselves_are_suppressed() -> None:
    asked = problem(*table(np.array([[4, 0], [0, 0]])))
    found = suppress(asked).suppressed
    proven(asked, found)
    assert math.isinf(intervals(asked.sums, asked.measures[0].values, found)[0, 1])


def test_numbers_that_may_be_negative_bound_nothing_from_below() -> None:
    sums, values = table(np.array([[-5, 20], [30, 40]]))
    hidden = np.zeros(len(sums), bool)
    hidden[:4] = True
    assert np.isinf(intervals(sums, values, hidden)[:4]).all()


def test_two_measures_are_both_protected_by_one_pattern() -> None:
    rng = np.random.default_rng(5)
    x = random_table((4, 5), 30, 5)
    sums, counts = table(x)
    _, totals = table(x * rng.integers(1, 1000, x.shape))
    unsafe = minimum_frequency(counts, 10)
    measures = (Measure(counts, np.where(unsafe, counts, 0.0)), Measure(totals, np.where(unsafe, totals, 0.0)))
    asked = Problem(
        sums, measures, unsafe, counts > 0, np.asarray(np.log1p(totals) * sums.leaves, np.float64), counts, 10
    )
    for pattern in (heuristic(asked), suppress(asked, seconds=3.0).suppressed):
        proven(asked, pattern)


def test_stopping_early_never_claims_more_than_the_true_interval() -> None:
    asked = problem(*table(random_table((5, 4, 3), 30, 1)))
    found = heuristic(asked)
    measure = asked.measures[0]
    full, part = (intervals(asked.sums, measure.values, found, enough) for enough in (None, measure.width))
    assert (part[:, 0] >= full[:, 0] - 1e-6).all()
    assert (part[:, 1] <= full[:, 1] + 1e-6).all()


def test_reduced_costs_prove_the_attackers_optimum() -> None:
    asked = problem(*table(random_table((4, 4), 20, 3)))
    found = heuristic(asked)
    attacker = Attacker(asked.sums, asked.measures[0].values, found)
    row = int(np.flatnonzero(asked.primary)[0])
    attacker.extreme(row, 1)
    reduced = attacker.reduced_costs(row, 1)
    change = np.random.default_rng(0).normal(size=asked.sums.cells)
    sums, _ = table(np.zeros((4, 4), np.int64))
    z = table(change.reshape(4, 4))[1]  # any table that adds up
    assert z[row] == pytest.approx(-(reduced @ z), abs=1e-6)
    assert len(sums) == len(z)


def test_equations_of_a_hierarchy_are_read_level_by_level_and_a_circle_is_refused() -> None:
    sums, _ = hierarchical(np.ones((5, 1), np.int64))
    country = sums.keys.index((Sum(None), "0"))
    terms = next(e.terms for e in sums.equations if e.total == country and len(e.terms) > 1)
    assert {sums.keys[i][0] for i in terms} == {Sum("north"), Sum("south")}
    with pytest.raises(UsageError, match="circle"):
        published_sums([("a",), ("b",)], [(Sum(None),)], [{"a": "b", "b": "a"}])
    with pytest.raises(EngineError, match="twice"):
        published_sums([("a",), ("a",)], [], [{}])


def test_records_that_carry_a_parents_code_are_a_part_of_its_subtotal() -> None:
    up: Mapping[str, str] = {"a1": "a", "a2": "a"}
    sums = published_sums([("a1",), ("a2",), ("a",)], [(Sum("a"),), (Sum(None),)], [up])
    assert sums.leaves.tolist() == [1, 1, 1, 3, 3]
    assert sums.residual(np.array([1.0, 2, 3, 6, 6])) == 0


def test_where_a_margin_is_missing_its_cells_are_used() -> None:
    keys: list[Key] = [(a, b) for a in "xy" for b in "uv"]
    sums = published_sums(keys, [(Sum(None), Sum(None))], [{}, {}])
    assert [e.terms for e in sums.equations] == [(0, 1, 2, 3)]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8), st.integers(1, 4), st.floats(1, 4))
def test_bounds_on_contributions_never_release_what_the_contributions_forbid(
    values: list[float], n: int, power: float
) -> None:
    x = np.sort(np.array(values))[::-1]
    total, k, p = x.sum(), 80.0, 15.0
    bound = min(x.max() * len(x) ** (1 / power), total)  # any upper bound will do
    largest, two = np.array([bound]), np.array([min(2 * bound, total)])
    truly = x[:n].sum() > k / 100 * total * (1 + 1e-9)
    assert dominance(np.array([total]), largest, two, n, k)[0] or not truly
    second = x[1] if len(x) > 1 else 0.0
    assert p_percent(np.array([total]), largest, two, p)[0] or total - x[0] - second >= p / 100 * x[0] * (1 - 1e-9)


def test_rules_on_known_contributions() -> None:
    totals = np.array([100.0, 100.0, 100.0])
    first, two = np.array([95.0, 50.0, 20.0]), np.array([97.0, 99.0, 40.0])
    assert dominance(totals, first, two, 1, 90).tolist() == [True, False, False]
    assert dominance(totals, first, two, 2, 90).tolist() == [True, True, False]
    assert p_percent(totals, first, two, 10).tolist() == [True, True, False]


def test_full_cells_are_hidden_with_an_empty_neighbour_so_that_the_group_is_not_disclosed() -> None:
    sums, counts = table(np.array([[40, 0, 0], [30, 20, 50], [10, 20, 30]]))
    full, beside = full_cells(sums, counts)
    assert np.flatnonzero(full).tolist() == [0]
    assert np.flatnonzero(beside).tolist() == [1, 2]
    unsafe = unsafe_rows(sums, Numbers(counts), Rules(full_cells="protect"))
    width = unsafe.count_width
    asked = Problem(sums, (Measure(counts, width),), unsafe.rows, unsafe.hideable, np.log1p(counts) + 0.1, counts, 0)
    found = suppress(asked).suppressed
    assert found[0]
    assert intervals(sums, counts, found)[0, 0] < 40


def test_empty_cells_are_primary_only_where_they_are_protected() -> None:
    sums, counts = table(np.array([[0, 40], [30, 20]]))
    assert not unsafe_rows(sums, Numbers(counts), Rules()).rows.any()
    assert unsafe_rows(sums, Numbers(counts), Rules(zeros="protect")).rows[0]
