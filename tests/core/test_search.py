"""The search for the least noise finds what bisection finds, in fewer looks."""

import bisect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statfed.core.privacy.search import last_within


@given(
    costs=st.lists(st.floats(0, 1e9) | st.just(math.inf), min_size=2, max_size=200).map(sorted),
    most=st.floats(0, 1e9),
)
def test_it_finds_what_bisection_finds_whatever_jumps_a_cost_has(costs: list[float], most: float) -> None:
    if not costs[0] <= most < costs[-1]:
        with pytest.raises(ValueError, match="bracket"):
            last_within(costs.__getitem__, most, 0, len(costs) - 1)
        return
    assert last_within(costs.__getitem__, most, 0, len(costs) - 1) == bisect.bisect_right(costs, most) - 1


@pytest.mark.parametrize("power", [-2, -1, 0.5, 3])
def test_a_cost_that_is_smooth_in_its_logarithm_takes_at_most_seven_looks(power: float) -> None:
    looks: list[int] = []

    def cost(at: int) -> float:
        looks.append(at)
        return float((1 + (at if power > 0 else 1024 - at) / 1024) ** power)

    low, high = cost(0), cost(1024)
    for part in (0.1, 0.5, 0.9):
        looks.clear()
        last_within(cost, low + part * (high - low), 0, 1024)
        assert len(looks) <= 7  # bisection takes twelve
