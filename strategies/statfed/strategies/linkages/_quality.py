"""How good a link is, estimated without clerical review or truth, and the threshold that follows.

Two components make up the best scores of records: a share `alone` has no partner among its candidates and scores as
the best of strangers does, the rest scores as partners do. What strangers score is seen in second-best scores: below a
record's best there are strangers alone, whoever the best was. Where the number of a record's strangers above a score is
Poisson, the chance that the next below its best b lies at x < b depends on neither b nor on whether b is the partner:
the distribution F of the best stranger is the product-limit estimate in reverse, in which a record enters at its best
score and its event is the second-best (Kaplan and Meier 1958; delayed entry: Lynden-Bell 1971). With B(t) the share of
records whose best is at or above t, and G = 1 - F,

- alone = (1 - B) / (1 - G), where strangers decide: in the middle of G (as Storey 2002 has the share of nulls);
- true(t) = B(t) - alone G(t), made monotone, the share of records rightly linked; recall(t) = true(t) / (1 - alone);
- precision(t) = true(t) / linked(t), of which the links after one-to-one assignment are counted, not estimated.

Recall is of the partners that blocking leaves and that do not score like strangers: what no pass brings together is not
seen, and a partner below the middle of strangers counts as none. (Links by the number of passes that bring them
together are told; capture-recapture of passes is not, since passes share columns and fail together.) Records that have
more alike strangers than others (common names, many candidates) make G too high and precision too low, on the safe
side: on FEBRL4 with half of one file .86 instead of 1 at a low threshold. An offset for the number of candidates mends
that there, and errs on the other side where strangers are alike for another reason (households), so there is none.
Intervals: percentile bootstrap over records; of recall no narrower than normal in its logit.

A threshold that is chosen as the lowest whose estimated precision suffices is one where the estimate is rather high
than low. So it is chosen on one half of the blocks, which a keyed hash draws, and what is told of it is estimated on
the other half (`estimated`): sample splitting (Cox 1975, A note on data-splitting for the evaluation of significance
levels), at the cost of wider intervals. A threshold that is given is assessed on all records.

What is released are counts, in groups where each is nothing or at least a minimum frequency, and these curves at the
groups' lower ends.
"""

import os
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from statfed.core.randomness import Stream
from statfed.strategies.linkages._comparing import Candidates
from statfed.strategies.linkages._fuzzy_told import COARSE

BINS = 500
_DRAWS = 200
_LEVEL = (0.025, 0.975)
_NORMAL = 1.959964
_MIDDLE = (0.25, 0.75)  # of G: where strangers decide what the best score is
Counts = NDArray[np.int64]
Curve = NDArray[np.float64]


@dataclass(frozen=True)
class Quality:
    """Estimates at thresholds 0, 1/BINS ... 1. matched: records with a partner; precision, recall: (BINS + 1,);
    intervals: (2, ...) of each, 95 per cent."""

    matched: float
    precision: Curve
    recall: Curve
    matched_interval: Curve
    precision_interval: Curve
    recall_interval: Curve

    def threshold(self, precision: float, least: float) -> float | None:
        """The lowest of thresholds 0, .02, .04 ... at and above which the estimated precision is at least `precision`,
        and its interval at that threshold begins no lower than `least`; None if there is none."""
        below = np.flatnonzero(self.precision < precision)
        first = int(below[-1]) + 1 if len(below) else 0
        sure = np.flatnonzero((self.precision_interval[0] >= least) & (self.recall > 0))
        sure = sure[(sure >= first) & (sure % COARSE == 0)]
        return int(sure[0]) / BINS if len(sure) else None


def binned(scores: NDArray[np.float32]) -> Counts:
    """Bin of each score: that of the highest threshold that it reaches."""
    thresholds = (np.arange(BINS + 1) / BINS).astype(np.float32)
    return np.searchsorted(thresholds, scores, side="right") - 1


def assess(
    best: NDArray[np.float32], second: NDArray[np.float32], offered: Counts, linked: NDArray[np.float32], seed: int
) -> Quality:
    """Quality at every threshold. best, second: scores of each record's two best candidates, 0 where there is none;
    offered: how many candidates it has, of which those without any stay out; linked: scores of the links after
    one-to-one assignment of all candidates."""
    some = offered > 0
    records = np.stack([binned(best[some]), binned(second[some])])
    cells, weights = np.unique(records, axis=1, return_counts=True)
    links = _at_least(np.bincount(binned(linked), minlength=BINS + 1))
    found = _curves(cells, weights, links)
    random = np.random.default_rng(seed)
    count = int(weights.sum())
    draws = [_curves(cells, random.multinomial(count, weights / max(count, 1)), links) for _ in range(_DRAWS)]
    drawn = [np.array(side) for side in zip(*draws, strict=True)]
    matched, precision, recall = (np.quantile(side, _LEVEL, axis=0) for side in drawn)
    return Quality(
        float(found[0]), found[1], found[2], matched, precision, _widened(found[2], recall, drawn[2].std(0), count)
    )


def _widened(recall: Curve, limits: Curve, errors: Curve, count: int) -> Curve:
    """Limits of recall no narrower than those that are normal in its logit: of the few partners that are missed where
    it is near 1, the percentiles of a bootstrap hold too few."""
    edge = np.clip(errors, 0.5 / max(count, 1), 0.5)  # nearer to 1 than its error a logit says nothing
    inside = np.clip(recall, edge, 1.0 - edge)
    reach = _NORMAL * errors / (inside * (1.0 - inside))
    logit = np.log(inside / (1.0 - inside))
    ends = [1.0 / (1.0 + np.exp(-np.clip(logit + sign * reach, -500.0, 500.0))) for sign in (-1, 1)]
    return np.stack([np.minimum(limits[0], ends[0]), np.maximum(limits[1], ends[1])])


def estimated(
    best: NDArray[np.float32],
    second: NDArray[np.float32],
    offered: Counts,
    links: Candidates,
    first: NDArray[np.bool_],
    wanted: tuple[float, float],
    seed: int,
) -> tuple[float | None, Quality]:
    """The threshold that one half of the records suggests, and the quality of links as the other half shows it.

    first: which records are of the half that chooses (`halved`); wanted: precision, and the least that its lower
    limit may be; the rest as of `assess`. How many records have a partner is estimated from all: it chose no threshold.
    """
    linked = first[links.left]
    chosen = assess(best[first], second[first], offered[first], links.score[linked], seed)
    rest = assess(best[~first], second[~first], offered[~first], links.score[~linked], seed)
    every = assess(best, second, offered, links.score, seed)
    return chosen.threshold(*wanted), replace(rest, matched=every.matched, matched_interval=every.matched_interval)


def halved(tags: NDArray[np.uint64], offered: Counts) -> NDArray[np.bool_]:
    """Half of the blocks, by their keyed tag: which records are in it, (n,). tags: of the first block of each record.

    Where blocks are so few or large that neither half has a quarter of the records, records are drawn one by one.
    """
    half = (tags >> np.uint64(1)) % np.uint64(2) == 0
    some = offered > 0
    if not (some.any() and 0.25 <= half[some].mean() <= 0.75):
        half = Stream(os.urandom(16)).words(len(tags)) % np.uint64(2) == 0
    return np.asarray(half, bool)


def _curves(cells: Counts, weights: Counts, links: Curve) -> tuple[Curve, Curve, Curve]:
    size = BINS + 1
    count = max(int(weights.sum()), 1)
    best, second = (np.bincount(side, weights, size) for side in cells)
    at_risk = _at_least(best) - _at_least(second) + second
    hazard = np.divide(second, at_risk, out=np.zeros(size), where=at_risk > 0)
    hazard[0] = 0.0  # no second candidate above the floor
    strangers = 1.0 - np.cumprod((1.0 - hazard)[::-1])[::-1]
    reached = _at_least(best) / count
    middle = (strangers >= _MIDDLE[0]) & (strangers <= _MIDDLE[1])
    if not middle.any():  # the floor cuts off the strangers' middle, or there are hardly any
        middle = np.arange(size) == np.argmax(strangers < 1.0)
    alone = min(1.0, float((1.0 - reached[middle]).sum() / (1.0 - strangers[middle]).sum()))
    true = isotonic_regression(np.maximum(reached - alone * strangers, 0.0), increasing=False).x
    precision = np.clip(np.divide(true * count, links, out=np.ones(size), where=links > 0), 0.0, 1.0)
    recall = np.minimum(true / (1.0 - alone), 1.0) if alone < 1.0 else np.zeros(size)
    return np.array((1.0 - alone) * count), precision, recall


def _at_least(counts: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.cumsum(counts[::-1].astype(np.float64))[::-1]


def grouped(counts: Counts, minimum: int, at: int = 0) -> tuple[Counts, Counts]:
    """Neighbouring bins put together until every count in a group is 0 or at least `minimum`.

    counts: (kinds, bins). Result: the first bin of each group; the counts, (kinds, groups). From above, where counts
    are rare; what is left over joins the groups above it. at: a bin that begins a group, so that what is told of it
    elsewhere tells nothing more; groups below it are left out where they would have to join those above.
    """
    upper = _grouped(counts[:, at:], minimum)
    lower = _grouped(counts[:, :at], minimum)
    starts = np.array([*lower[0], *(start + at for start in upper[0])], np.int64)
    return starts, np.array([*lower[1], *upper[1]], np.int64).reshape(len(starts), len(counts)).T


def _grouped(counts: Counts, minimum: int) -> tuple[list[int], list[Counts]]:
    def told(sums: Counts) -> bool:
        return bool(sums.any() and ((sums == 0) | (sums >= minimum)).all())

    groups: list[tuple[int, Counts]] = []
    held = np.zeros(len(counts), np.int64)
    for place in range(counts.shape[1] - 1, -1, -1):
        held = held + counts[:, place]
        if told(held):
            groups.append((place, held))
            held = np.zeros(len(counts), np.int64)
    while groups and held.any() and not told(held):
        held = held + groups.pop()[1]
    if held.any() and told(held):
        groups.append((0, held))
    elif groups and not held.any():
        groups[-1] = (0, groups[-1][1])
    groups.reverse()
    return [place for place, _ in groups], [sums for _, sums in groups]
