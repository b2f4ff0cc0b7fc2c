"""The search for the least noise: every look costs a composition of privacy losses."""

import math
from collections.abc import Callable


def last_within(cost: Callable[[int], float], most: float, low: int, high: int) -> int:
    """The largest whole number with a cost of at most `most`, of an increasing cost that is so at `low` and not at
    `high`: what bisection finds, in fewer looks.

    Where the logarithms of the cost are near a line, the secant through both ends meets `most` near the result: regula
    falsi, an end that stays counting half (Illinois; Dowell and Jarratt 1971). Whenever three looks do not halve the
    bracket, the next one is at its middle. Raises ValueError on another bracket.

    >>> last_within(lambda n: 1.01**n, 3.0, 0, 1000)
    110
    """
    costs = cost(low), cost(high)
    if not costs[0] <= most < costs[1]:
        raise ValueError(f"bracket: got costs {costs[0]:g} and {costs[1]:g}; want {most:g} between them")
    left, right = (_log(one, most) for one in costs)
    widths = [high - low]
    stayed = ""
    while high - low > 1:
        halve = len(widths) > 3 and widths[-1] > widths[-4] / 2
        place = 0.5 if halve or not math.isfinite(right - left) else left / (left - right)
        at = min(max(low + round((high - low) * place), low + 1), high - 1)
        found = cost(at)
        if found <= most:
            low, left, right = at, _log(found, most), right / 2 if stayed == "high" else right
            stayed = "high"
        else:
            high, right, left = at, _log(found, most), left / 2 if stayed == "low" else left
            stayed = "low"
        widths.append(high - low)
    return low


def _log(cost: float, most: float) -> float:
    return math.log(cost / most) if 0.0 < cost < math.inf and most > 0.0 else math.copysign(math.inf, cost - most)
