"""Which cases of a family run with every `make test`, and which with `make test-all` alone (marker `whole`)."""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

import pytest

__all__ = ["each_value", "rest_whole"]


def rest_whole(cases: Iterable[Sequence[Any]], kept: Callable[..., bool]) -> list[Any]:
    """Parameters, of which those that are not kept are `whole`."""
    return [pytest.param(*case, marks=() if kept(*case) else pytest.mark.whole) for case in cases]


def each_value(*factors: Sequence[Any]) -> list[Any]:
    """All combinations; those that are not `whole` have each value of each factor, and as few as that takes."""
    longest = max(map(len, factors))
    ways = {tuple(turn % len(factor) for factor in factors) for turn in range(longest)}
    made = []
    for places in product(*(range(len(factor)) for factor in factors)):
        values = [factor[place] for factor, place in zip(factors, places, strict=True)]
        made.append(pytest.param(*values, marks=() if places in ways else pytest.mark.whole))
    return made
