"""What hidden rows say of themselves: nothing. An attacker who is told the threshold, and even which rows broke it,
cannot work one out."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_array

from statfed.core.disclosure import Rules
from statfed.core.errors import Refused
from statfed.server.disclosure.audit import intervals, whole_widths
from statfed.server.disclosure.primary import Numbers, minimum_frequency, told_bounds, told_width
from statfed.server.disclosure.protect import audited, protect
from statfed.server.disclosure.sums import Floats, Sums, published_sums
from statfed.server.disclosure.suppression import Measure, Problem, suppress
from tests.server.test_suppression import random_table, table


def rules(fewest: int) -> Rules:
    return Rules(minimum_frequency=fewest, dominance_k=None, p_percent=None)


def before(sums: Sums, counts: Floats, fewest: int) -> np.ndarray:
    """The pattern of the audit that knew no thresholds."""
    unsafe = minimum_frequency(counts, fewest)
    width = np.where(unsafe, np.maximum(1.0, counts), 0.0)
    cost = np.log1p(counts) * np.maximum(1, sums.leaves)
    measure = Measure(counts, width)
    return suppress(Problem(sums, (measure,), unsafe, counts > 0, cost, counts, fewest), seconds=1.0).suppressed


def recovered(sums: Sums, counts: Floats, hidden: np.ndarray, fewest: int) -> tuple[int, int]:
    """Rows below the threshold that an attacker who knows it and them can name, and how many there are."""
    unsafe = minimum_frequency(counts, fewest)
    found = intervals(sums, counts, hidden, None, *told_bounds(counts, fewest, True))
    exact = np.floor(found[:, 1] + 1e-6) - np.ceil(found[:, 0] - 1e-6) < 1
    return int((exact & unsafe).sum()), int(unsafe.sum())


@pytest.mark.parametrize(("fewest", "mean"), [(3, 8), (5, 12), (10, 30)])
def test_knowing_threshold_and_unsafe_rows_recovers_none_where_it_recovered_some(fewest: int, mean: float) -> None:
    old, new, cells = 0, 0, 0
    for seed in range(12):
        sums, counts = table(random_table((4, 5), mean, seed))
        hit, there = recovered(sums, counts, before(sums, counts, fewest), fewest)
        hidden = protect(sums, Numbers(counts), rules(fewest), 1.0).suppressed
        old, cells = old + hit, cells + there
        new += recovered(sums, counts, hidden, fewest)[0]
    assert cells > 20
    assert old > 0 or fewest == 10
    assert new == 0


def test_two_cells_of_nine_are_not_hidden_behind_a_margin_of_eighteen() -> None:
    sums, counts = table(np.array([[9, 9, 60], [9, 9, 70], [50, 40, 80]]))
    alone = minimum_frequency(counts, 10)
    assert recovered(sums, counts, alone, 10) == (4, 4)
    hidden = protect(sums, Numbers(counts), rules(10), 1.0).suppressed
    assert recovered(sums, counts, hidden, 10)[0] == 0
    # the same by trying every guess: whoever takes all hidden inner cells for unsafe ones does not name one either
    guess = np.where(hidden & (counts < 10), 9.0, np.inf)
    found = intervals(sums, counts, hidden, None, np.where(counts > 0, 1.0, 0.0), guess)
    assert (found[alone, 1] - found[alone, 0] >= 1).all()


def test_half_of_what_the_rule_itself_leaves_is_asked_of_an_attacker_who_was_told() -> None:
    counts = np.array([0.0, 1, 5, 9, 10])
    assert told_width(counts, 10, 1.0).tolist() == [0, 1, 4, 4, 0]
    assert told_width(counts, 2, 1.0).tolist() == [0, 0, 0, 0, 0]  # below 2 is 1: the rule tells
    low, high = told_bounds(counts, 10, True)
    assert (low.tolist(), high.tolist()) == ([0, 1, 1, 1, 10], [np.inf, 9, 9, 9, np.inf])


def test_widths_of_whole_tables_are_those_of_trying_all_of_them() -> None:
    x = np.array([[1, 2, 3], [2, 4, 1]])
    sums, counts = table(x)
    hidden = np.zeros(len(sums), bool)
    hidden[[0, 1, 3, 4]] = True
    none, unbounded = np.zeros(len(sums)), np.full(len(sums), np.inf)
    found = whole_widths(sums, counts, hidden, np.where(hidden, 99.0, 0.0), none, unbounded)
    every = [(a, 3 - a, 3 - a, 3 + a) for a in range(4) if min(a, 3 - a, 3 + a) >= 0]
    assert found[[0, 1, 3, 4]].tolist() == [max(c) - min(c) for c in zip(*every, strict=True)]


def test_a_width_between_two_whole_numbers_is_no_width() -> None:
    """2 a + b = 5 with b at most 2: a is 1.5 to 2.5, and of whole numbers 2 alone."""
    base = published_sums([(c,) for c in "abc"], [], [{}])
    sums = replace(base, matrix=csr_array(np.array([[2.0, 1.0, -1.0]])))
    values, low, high = np.array([2.0, 1.0, 5.0]), np.zeros(3), np.array([np.inf, 2.0, np.inf])
    hidden = np.array([True, True, False])
    wide = intervals(sums, values, hidden, None, low, high)
    assert wide[0, 1] - wide[0, 0] == pytest.approx(1.0)
    assert whole_widths(sums, values, hidden, np.ones(3), low, high)[0] == 0
    measure = Measure(values, np.array([1.0, 0.0, 0.0]), low, high, whole=True)
    problem = Problem(sums, (measure,), hidden & (values == 2), hidden, np.ones(3), values)
    with pytest.raises(Refused, match="nothing is released"):
        audited(problem, 0.2)


def test_nothing_of_a_release_tells_which_hidden_row_was_unsafe() -> None:
    """Two tables that differ in which of two hidden cells is unsafe, and in nothing that is shown, look alike."""
    from tests.server.test_release import released, tabulated

    def shown(first: int, second: int) -> str:
        counts = dict.fromkeys(itertools.product("xyz", "ab"), 60)
        counts |= {("x", "a"): first, ("x", "b"): second, ("y", "a"): 40 - first, ("y", "b"): 40 - second}
        result = released(tabulated(counts))
        hidden = [row for row in (*result.tables["cells"], *result.tables["margins"]) if row["status"] == "suppressed"]
        assert all(row["count"] is None for row in hidden)
        return str(result.to_dict())

    assert shown(4, 20) == shown(20, 4)
