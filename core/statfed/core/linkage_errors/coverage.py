"""How many units there are, and how many each of two lists misses, when the lists are linked with errors.

Capture-recapture (dual system estimation): with n1 and n2 units on two independent lists and M on both, the population
is N = n1 n2 / M. A missed link makes M too small and N too large; a false link does the opposite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.result import Row


@dataclass(frozen=True)
class Coverage:
    """Population size and what lists miss. matched: units on both lists; naive: the size where every link counts as a
    match, None where the links were not told."""

    population: Estimate
    first_missing: Estimate
    second_missing: Estimate
    matched: Estimate
    naive: float | None

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """The size, and the shares of the population that are on neither the first nor the second list."""
        return (self.population, self.first_missing, self.second_missing, self.matched)

    def interval(self, level: float = 0.95) -> Mapping[str, tuple[float, float]]:
        """Confidence limits by name."""
        return {each.name: each.interval(level) for each in self.estimates}

    def rows(self) -> Sequence[Row]:
        """For a table of a `Result`."""
        return [each.row() for each in self.estimates]

    def summary(self) -> str:
        """In words."""
        lines = ["coverage of two lists", *(f"  {each}" for each in self.estimates)]
        return "\n".join(
            [*lines, *([f"  population if every link were true: {self.naive:,.6g}"] if self.naive else [])]
        )


def matched_units(links: int, exposed: float, *, recall: Estimate, false_rate: Estimate) -> Estimate:
    """Units on both lists, from the number of links and error rates that come from elsewhere (a reviewed sample).

        M = (links - false_rate * exposed) / (recall - false_rate)

    exposed: what false links happen to, matches included. One-to-one linkage: the records of the list that is searched
    for, with `false_rate` the share of those without a partner that get a false link. Linkage of all pairs that agree:
    the pairs, n1 * n2 or those in blocks, with the share of pairs that are no match and are linked.

    Standard error by the delta method about the files' own M: M recall (1 - recall) + (exposed - M) false_rate
    (1 - false_rate) by the linkage, and the variances of both rates, independent of the links and of each other. Rates
    from these same links: `corrected_counts`, whose `total` is M.
    Source: Ding and Fienberg 1994, Survey Methodology 20; Di Consiglio and Tuoto 2015, Journal of Official Statistics
    31(3), 415-429.
    Misleads where a match that was missed gets a false link less often than a record without a partner, or more.
    Raises UsageError unless 0 <= false_rate < recall <= 1, 0 < links, and M > 0.
    """
    a, b = recall.value, false_rate.value
    if not 0 <= b < a <= 1:
        raise UsageError(f"recall, false_rate: got {a:.6g} and {b:.6g}; want 0 <= false_rate < recall <= 1")
    if not 0 < links <= exposed:
        raise UsageError(f"links: got {links}; want more than 0 and at most exposed, {exposed:g}")
    m = (links - b * exposed) / (a - b)
    if not 0 < m <= exposed:
        raise UsageError(
            "links: got a number that these error rates make 0 or fewer matches of, or more than there can be"
        )
    by_linkage = m * a * (1 - a) + (exposed - m) * b * (1 - b)
    by_rates = (m * recall.std_error) ** 2 + ((exposed - m) * false_rate.std_error) ** 2
    return Estimate("units on both lists", m, math.sqrt(by_linkage + by_rates) / (a - b), "log")


def population_size(
    first: int, second: int, matched: Estimate | int, *, links: int | None = None, odds_ratio: float = 1.0
) -> Coverage:
    """Population size and under-coverage of both lists, with intervals.

        N = first + second - M + odds_ratio (first - M)(second - M) / M

    first, second: units on each list, every one of the population and once. matched: units on both, M; an int where
    the linkage has no errors, else from `corrected_counts(...).total`, or `matched_units`. links: what the linkage
    found, for the naive figure. odds_ratio: of being on one list given being on the other; 1 for independent lists
    (Lincoln and Petersen, N = first * second / M), other values to show how much dependence would matter.

    Var N = u^2 (1 / M + 1 / (first - M) + 1 / (second - M)) + u + (dN / dM)^2 Var M, with u the last term of N; for an
    odds ratio of 1 the first part is first second (first - M)(second - M) / M^3 (Sekar and Deming 1949). Log-normal
    interval. Share missing on the first list: 1 - first / N.
    Source: Lincoln-Petersen with linkage errors after Ding and Fienberg 1994; Di Consiglio and Tuoto 2015; de Wolf, van
    der Laan and Zult 2019, Journal of Official Statistics 35.
    Misleads where lists are dependent, where units differ in their chance of being listed, and where lists hold units
    outside the population or twice; the first and second make N too small as a rule, the last too large.
    Raises UsageError unless 0 < M <= min(first, second).
    """
    on_both = matched if isinstance(matched, Estimate) else Estimate("units on both lists", float(matched), 0.0, "log")
    m, least = on_both.value, min(first, second)
    if not m > 0:
        raise UsageError("matched: got no units on both lists; the population's size is not identified")
    if m > least:
        if m - least > 5 * on_both.std_error:
            raise UsageError(f"matched: got {m:,.6g}; want at most the units of the shorter list, {least:,}")
        m = float(least)
    if not odds_ratio > 0:
        raise UsageError(f"odds_ratio: got {odds_ratio}; want more than 0")
    one, two = first - m, second - m
    size = first + second - m + odds_ratio * one * two / m
    by_matched = -1 - odds_ratio * (one + two + one * two / m) / m
    capture = _capture_variance(m, one, two, odds_ratio)
    error = math.sqrt(capture + (by_matched * on_both.std_error) ** 2)

    def missing(name: str, listed: int) -> Estimate:
        share, its = 1 - listed / size, listed / size**2 * error
        return Estimate(name, share, its, "logit" if 0 < share < 1 else "plain")

    return Coverage(
        population=Estimate("population", size, error, "log"),
        first_missing=missing("missing on the first list", first),
        second_missing=missing("missing on the second list", second),
        matched=replace(on_both, name="units on both lists", scale="log"),
        naive=first + second - links + odds_ratio * (first - links) * (second - links) / links if links else None,
    )


def _capture_variance(m: float, one: float, two: float, odds_ratio: float) -> float:
    """Variance of N by who is listed: that of odds_ratio one two / m by the delta method, and of the unlisted."""
    if one == 0 or two == 0:
        return 0.0
    unseen = odds_ratio * one * two / m
    return unseen**2 * (1 / m + 1 / one + 1 / two) + unseen
