"""Totals over matched pairs, corrected for links that are missing and links that are false.

Two keys link the same files: a blocking key on which all matches agree (recall 1), and a longer linkage key. The error
rates of both come from the numbers of pairs and links of each record (`blocked_rates`); no review of pairs is needed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from statfed.core.errors import UsageError
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.rates import LinkRates, grouped, rates_with_influence, recall_of, spread
from statfed.core.result import Row

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BlockedRates:
    """Error rates of a linkage within blocks whose key misses no match.

    blocking: of the blocking key; its `true_links` is the coverage of the other file. linkage: of the linkage key.
    ratio: r, the share of the false pairs in blocks that the linkage key links. realised: covariance (2, 2) of the
    errors of p of both keys about the shares that hold in these very records.
    """

    blocking: LinkRates
    linkage: LinkRates
    ratio: Estimate
    realised: Floats = field(repr=False)

    @property
    def coverage(self) -> Estimate:
        """Probability that a record has a partner in the other file."""
        at = self.blocking.true_links
        return Estimate("coverage", at.value, at.std_error, at.scale, at.slope)

    @property
    def correction(self) -> "Correction":
        """What the correction of a total needs of them."""
        return Correction(
            records=self.linkage.records,
            coverage=self.coverage.value,
            recall=self.linkage.recall.value,
            ratio=self.ratio.value,
            false_pairs=self.blocking.false_links.value,
            realised=self.realised,
            notes=self.notes,
        )

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """All that the correction of a total rests on."""
        return (
            self.linkage.recall,
            self.ratio,
            self.coverage,
            self.linkage.precision,
            self.linkage.false_positive_rate,
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands against them."""
        wrong = [
            f"the model does not fit the numbers of the {name} key (p {of.fit.p_value:.2g}): do not use these figures"
            for name, of in (("blocking", self.blocking), ("linkage", self.linkage))
            if of.fit.fails
        ]
        if self.linkage.groups == 1:
            wrong.append("standard errors take the records as independent: too small where many share a block")
        return tuple(wrong)

    def interval(self, level: float = 0.95) -> Mapping[str, tuple[float, float]]:
        """Confidence limits by name."""
        return {each.name: each.interval(level) for each in self.estimates}

    def rows(self) -> Sequence[Row]:
        """For a table of a `Result`."""
        return [each.row() for each in self.estimates]

    def summary(self) -> str:
        """In words."""
        lines = [f"error rates of two keys, from {self.linkage.records:,} records against {self.linkage.candidates:,}"]
        lines += [f"  {each}" for each in self.estimates]
        lines += [f"  blocking key: {self.blocking.fit.summary()}", f"  linkage key: {self.linkage.fit.summary()}"]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


@dataclass(frozen=True)
class Correction:
    """All that the correction of a total needs of error rates: nine numbers, which can travel.

    records: of the file that was searched for; false_pairs: mean number of false pairs in a record's block; the rest as
    in `BlockedRates`, without their own errors. notes: what stands against them.
    """

    records: float
    coverage: float
    recall: float
    ratio: float
    false_pairs: float
    realised: Floats = field(repr=False)
    notes: tuple[str, ...] = ()

    def numbers(self) -> Floats:
        """The nine numbers, without the notes."""
        alone = [self.records, self.coverage, self.recall, self.ratio, self.false_pairs]
        return np.array([*alone, *self.realised.ravel()])

    @classmethod
    def of(cls, numbers: ArrayLike, notes: tuple[str, ...] = ()) -> "Correction":
        """From `numbers()`. Raises UsageError on what cannot be some."""
        given = np.asarray(numbers, dtype=float)
        if given.shape != (9,) or not np.isfinite(given).all() or (given[:5] < 0).any():
            raise UsageError("correction: want nine finite numbers, of which the first five are not negative")
        if not (given[0] > 0 and 0 < given[1] <= 1 and given[4] > 0):
            raise UsageError("correction: want records, a coverage up to 1, and false pairs")
        records, coverage, recall, ratio, false_pairs = map(float, given[:5])
        return cls(records, coverage, recall, ratio, false_pairs, given[5:].reshape(2, 2), notes)


@dataclass(frozen=True)
class CorrectedTotals:
    """Totals over matched pairs by cell. naive: over the links; blocked: over the pairs in blocks. std_error of each is
    that of its error about the total over these files' own matched pairs. counts: whether they are numbers of pairs.
    notes: what stands against them."""

    cells: tuple[Estimate, ...]
    total: Estimate
    naive: tuple[float, ...]
    blocked: tuple[float, ...]
    counts: bool
    notes: tuple[str, ...] = ()

    def interval(self, level: float = 0.95) -> Mapping[str, tuple[float, float]]:
        """Confidence limits by cell, and of all as `total`."""
        return {each.name: each.interval(level) for each in (*self.cells, self.total)}

    def rows(self) -> Sequence[Row]:
        """For a table of a `Result`: with the naive figure beside each estimate."""
        naive = [*self.naive, sum(self.naive)]
        return [{**each.row(), "naive": n} for each, n in zip((*self.cells, self.total), naive, strict=True)]

    def summary(self) -> str:
        """In words."""
        each = zip((*self.cells, self.total), (*self.naive, sum(self.naive)), strict=True)
        lines = ["totals corrected for linkage errors", *(f"  {e}; naive {n:,.6g}" for e, n in each)]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def blocked_rates(counts: ArrayLike, *, candidates: int, several_allowed: bool = False) -> BlockedRates:
    """Error rates of a blocking key that misses no match and of a linkage key within it, from the same records.

    counts: (J + 1, K + 1) records of one file with j pairs in their block and k of them linked, or (R, J + 1, K + 1) by
    random group of blocks, R at least 20. candidates: records of the other file. several_allowed: as in `link_rates`,
    for the linkage key. Additive over records.

    coverage c = p of the blocking key, recall = p of the linkage key / c, r = mean false links of the linkage key / of
    the blocking key. Groups: all records of a block belong to one group, which a keyed hash of the blocking key
    draws; records of a block share their pairs, and only groups show what that does to the standard errors.
    Source: UNECE Input Privacy-Preserving Project, private set intersection with typos, notes of 2 February 2023;
    Dasylva and Goussanou 2022. The errors about this file's own shares are worked out here: each is the estimator's
    influence less what the numbers j and k leave to expect of the record, plus what they leave open.

    Misleads where a match may disagree on the blocking key: then coverage and total are too small by the share that is
    lost. Raises UsageError where the rates are not identified, or k > j anywhere.
    """
    table = grouped(counts, 3, "counts")
    if np.triu(table.sum(axis=0), 1).any():
        raise UsageError("counts: got records with more links than pairs in their block; want k <= j")
    blocking, by_pairs = rates_with_influence(table.sum(axis=2), candidates, several_allowed=False)
    linkage, by_links = rates_with_influence(table.sum(axis=1), candidates, several_allowed=several_allowed)
    if blocking.false_links.value == 0:
        raise UsageError("the blocking key links no false pair: totals over its pairs need no correction")
    n = table.sum()
    table = table[:, : len(by_pairs), : len(by_links)]
    c, p = blocking.true_links.value, linkage.true_links.value
    ratio = linkage.false_links.value / blocking.false_links.value
    j, k = np.arange(table.shape[1])[:, None], np.arange(table.shape[2])[None, :]
    ones = np.ones(table.shape[1:])
    both = np.stack([by_pairs[:, None] * ones, by_links[None, :] * ones], axis=-1)
    of_ratio = ((k - p) / n - both[..., 1] - ratio * ((j - c) / n - both[..., 0])) / blocking.false_links.value
    of_ratio = of_ratio - ((table * of_ratio).sum() / n)
    adds = np.stack([(both[..., 1] - p / c * both[..., 0]) / c, of_ratio], axis=-1)
    recall_error, ratio_error = np.sqrt(np.diag(_spread(table, adds)))
    open_ends = [_open_end(blocking), _open_end(linkage)]
    recall = recall_of(linkage.true_links, c, float(np.hypot(recall_error, p / c**2 * open_ends[0])))
    known = ratio > 0
    slope = 0.0 if known else linkage.false_links.slope * blocking.false_links.value
    matched, linked = expected(blocking, min(recall.value, 1.0), ratio, table.shape[1], table.shape[2])
    realised = _spread(table, both - (np.stack([matched, linked], axis=-1) - [c, p]) / n)
    for place, leaves in {
        (0, 0): matched * (1 - matched),
        (1, 1): linked * (1 - linked),
        (0, 1): linked * (1 - matched),
        (1, 0): linked * (1 - matched),
    }.items():
        realised[place] += (table.sum(axis=0) * leaves).sum() / n**2
    realised += np.diag(np.square(open_ends))
    return BlockedRates(
        blocking=blocking,
        linkage=linkage.with_recall(recall, c),
        ratio=Estimate("r", ratio, float(ratio_error) if known else 0.0, "log", slope),
        realised=realised,
    )


def corrected_counts(
    rates: BlockedRates, links: ArrayLike, blocked: ArrayLike, *, names: Sequence[str] | None = None
) -> CorrectedTotals:
    """Numbers of matched pairs by cell, corrected for missed and false links, with intervals.

        T = (links - r * blocked) / (recall - r)

    links, blocked: (cells,) numbers of linked pairs and of all pairs in blocks, of the linkage that the rates are of.
    Cells split the pairs, by columns of either file; they may leave pairs out.

    Error about these files' own matched pairs: what the recall among a cell's matches differs from that among all, and
    r likewise, by sampling without replacement; and the error of the rates about what holds among all pairs.
    Source: UNECE Input Privacy-Preserving Project (Statistics Netherlands and Statistics Canada), for T; the standard
    error is worked out here and measured in docs/linkage-errors.md.

    Misleads where errors in the keys depend on the cell: recall then differs between cells.
    Raises UsageError where recall <= r (the linkage key tells nothing), or these are no counts of that linkage.
    """
    over_links, over_pairs = _totals(links, "links"), _totals(blocked, "blocked")
    if over_links.shape == over_pairs.shape and (
        ((over_links < 0) | (over_links > over_pairs)).any()
        or (over_links != np.floor(over_links)).any()
        or (over_pairs != np.floor(over_pairs)).any()
    ):
        raise UsageError("links, blocked: want whole numbers of pairs, no more links than pairs in any cell")
    for name, cells, of in (("links", over_links, rates.linkage), ("blocked", over_pairs, rates.blocking)):
        most = of.records * (of.true_links.value + of.false_links.value)
        if cells.sum() > most * (1 + 1e-9) + 0.5:
            raise UsageError(
                f"{name}: got {cells.sum():,.0f} pairs; want at most the {most:,.0f} that the rates come from"
            )
    return _corrected(rates.correction, over_links, over_pairs, None, names)


def corrected_totals(
    rates: BlockedRates | Correction,
    links: ArrayLike,
    blocked: ArrayLike,
    *,
    links_squared: ArrayLike,
    blocked_squared: ArrayLike,
    names: Sequence[str] | None = None,
) -> CorrectedTotals:
    """Totals of a value over matched pairs by cell, corrected as `corrected_counts`.

    links, blocked: (cells,) totals of the value over linked pairs and over all pairs in blocks; links_squared,
    blocked_squared: of its square, which the standard errors need.
    Misleads where errors in the keys depend on the value. Raises UsageError where recall <= r, or shapes differ.
    """
    squares = _totals(links_squared, "links_squared"), _totals(blocked_squared, "blocked_squared")
    by = rates.correction if isinstance(rates, BlockedRates) else rates
    return _corrected(by, _totals(links, "links"), _totals(blocked, "blocked"), squares, names)


def adjusted(links: ArrayLike, blocked: ArrayLike, recall: float, ratio: float) -> Floats:
    """(links - ratio * blocked) / (recall - ratio): the corrected totals for rates that are known.

    Raises UsageError unless 0 <= ratio < recall.
    """
    if not 0 <= ratio < recall:
        raise UsageError(f"recall, r: got {recall:.6g} and {ratio:.6g}; want 0 <= r < recall")
    return np.asarray((np.asarray(links, dtype=float) - ratio * np.asarray(blocked, dtype=float)) / (recall - ratio))


def _open_end(rates: LinkRates) -> float:
    """Standard error of p where a rate is at its limit: that of an error with the likelihood's exponential tail."""
    slopes = [each.slope for each in (rates.true_links, rates.false_links) if each.at_limit and each.slope > 0]
    return max((1 / slope for slope in slopes), default=0.0)


def _corrected(
    rates: Correction,
    links: Floats,
    blocked: Floats,
    squares: tuple[Floats, Floats] | None,
    names: Sequence[str] | None,
) -> CorrectedTotals:
    shapes = {len(each) for each in (links, blocked, *(squares or ()))}
    if len(shapes) > 1:
        raise UsageError(f"totals: got {sorted(shapes)} cells; want as many of each")
    labels = tuple(names) if names is not None else tuple(f"cell {i + 1}" for i in range(len(links)))
    if len(labels) != len(links):
        raise UsageError(f"names: got {len(labels)}; want {len(links)}")
    recall, r, c, others_each = rates.recall, rates.ratio, rates.coverage, rates.false_pairs
    true = adjusted(links, blocked, recall, r)
    true_squares = true if squares is None else adjusted(*squares, recall, r)
    pair_squares = blocked if squares is None else squares[1]
    matches, others = rates.records * c, rates.records * others_each
    inside = min(recall, 1.0)

    def error(t: float, f: float, t_squares: float, f_squares: float) -> float:
        apart = max(t_squares - t**2 / matches, 0.0) * inside * (1 - inside)
        apart += max(f_squares - f**2 / others, 0.0) * r * (1 - r)
        slope = np.array([recall * t / c - r * f / others_each, f / others_each - t / c])
        return float(np.sqrt(apart + slope @ rates.realised @ slope) / (recall - r))

    def of(name: str, part: Floats) -> Estimate:
        t = float(part[0])
        most = t / c  # if every record had its partner: what is missing to it is seen in records without any pair
        return Estimate(name, t, error(*part), "complement" if 0 < t < most else "plain", most=most)

    parts = np.stack([true, blocked - true, true_squares, pair_squares - true_squares])
    return CorrectedTotals(
        cells=tuple(of(label, part) for label, part in zip(labels, parts.T, strict=True)),
        total=of("total", parts.sum(axis=1)),
        naive=tuple(map(float, links)),
        blocked=tuple(map(float, blocked)),
        counts=squares is None,
        notes=rates.notes,
    )


def _totals(values: ArrayLike, name: str) -> Floats:
    totals = np.atleast_1d(np.asarray(values, dtype=float))
    if totals.ndim != 1 or not np.isfinite(totals).all():
        raise UsageError(f"{name}: want one finite number a cell")
    return totals


def _spread(table: Floats, adds: Floats) -> Floats:
    """Covariance (2, 2) of what records add, (J + 1, K + 1, 2), over groups, or over records where there is one."""
    if len(table) > 1:
        return spread(np.tensordot(table, adds, axes=([1, 2], [0, 1])))
    return np.asarray(np.einsum("jk,jka,jkb->ab", table[0], adds, adds))


def expected(blocking: LinkRates, recall: float, ratio: float, pairs: int, links: int) -> tuple[Floats, Floats]:
    """P(has a partner | j, k) and P(has its true link | j, k), (J + 1, K + 1)."""
    from scipy import stats

    if blocking.model is None:
        raise UsageError("rates: got rates pooled over classes; want those of one table")
    j, k = np.arange(pairs)[:, None], np.arange(links)[None, :]
    partner = blocking.model.true_given(pairs)[:, None]
    others = np.maximum(j - 1, 0)
    found = partner * recall * np.where((k >= 1) & (j >= 1), stats.binom.pmf(k - 1, others, ratio), 0.0)
    missed = partner * (1 - recall) * np.where(j >= 1, stats.binom.pmf(k, others, ratio), 0.0)
    none = (1 - partner) * stats.binom.pmf(k, j, ratio)
    whole = found + missed + none
    impossible = whole <= 0  # where the rates are at a limit: what is linked is then taken to be true
    share = np.where(impossible, 1.0, whole)
    linked = np.where(impossible, (k >= 1) & (j >= 1), found / share)
    return np.where(impossible, j >= 1, (found + missed) / share), linked
