"""Error rates of a linkage without clerical review, from how many links each record has.

The linkage must let a record have several links: what a one-to-one assignment leaves tells nothing of false links.
Counts are additive over records, so that they can come from any protected sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.linkage_errors._mixture import Mixture, fitted, influence, log_likelihood, scores, slopes
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.result import Row

Floats = NDArray[np.float64]
FEWEST_GROUPS = 20
MOST_CLASSES = 4


@dataclass(frozen=True)
class Fit:
    """How well the model fits. classes: latent classes of false links; chi_square: Pearson's, cells with fewer than
    5 expected records pooled; df, p_value: None where no cell is left over to test with."""

    classes: int
    chi_square: float
    df: int | None
    p_value: float | None

    @property
    def fails(self) -> bool:
        """Whether numbers as far from the model would come about less than once in a thousand times."""
        return self.p_value is not None and self.p_value < 0.001

    def summary(self) -> str:
        """In words."""
        head = f"{self.classes} latent class{'es' if self.classes > 1 else ''} of false links"
        if self.df is None or self.p_value is None:
            return f"{head}; too few numbers of links to test the fit"
        test = f"chi-square {self.chi_square:.4g} on {self.df} degrees of freedom, p {self.p_value:.2g}"
        verdict = "; the model does not fit: do not use these rates" if self.fails else ""
        return f"{head}; {test}{verdict}"


@dataclass(frozen=True)
class LinkRates:
    """The error rates of one linkage, for records of one file.

    records: of this file; candidates: records of the other. true_links: probability that a record has its true link,
    which is coverage x recall. false_links: mean number of false links a record. false_positive_rate: of a pair that
    is no match. precision: share of true links among links. groups: random groups behind the standard errors; with 1
    records are taken to be independent of each other.
    """

    records: int
    candidates: int
    true_links: Estimate
    coverage: Estimate | None
    recall: Estimate
    false_links: Estimate
    false_positive_rate: Estimate
    precision: Estimate
    fit: Fit
    groups: int
    model: Mixture | None = field(repr=False)

    @property
    def estimates(self) -> tuple[Estimate, ...]:
        """All of them, the most asked for first."""
        known = (self.coverage,) if self.coverage else ()
        return (self.recall, self.precision, self.false_positive_rate, self.true_links, self.false_links, *known)

    @property
    def false_negative_rate(self) -> Estimate:
        """1 - recall."""
        scale = self.recall.scale
        return Estimate("false negative rate", 1 - self.recall.value, self.recall.std_error, scale, self.recall.slope)

    def with_recall(self, recall: Estimate, coverage: float) -> "LinkRates":
        """These with another recall, and the false positive rate for a coverage."""
        rate, pairs = self.false_positive_rate, self.candidates - coverage
        by = (self.false_links.value / pairs, self.false_links.std_error / pairs)
        rate = Estimate(rate.name, by[0], by[1], rate.scale, self.false_links.slope * pairs)
        return replace(self, recall=recall, false_positive_rate=rate)

    def interval(self, level: float = 0.95) -> Mapping[str, tuple[float, float]]:
        """Confidence limits by name."""
        return {each.name: each.interval(level) for each in self.estimates}

    def rows(self) -> Sequence[Row]:
        """For a table of a `Result`."""
        return [each.row() for each in self.estimates]

    def summary(self) -> str:
        """In words."""
        lines = [f"error rates of the linkage, from {self.records:,} records against {self.candidates:,}"]
        lines += [f"  {each}" for each in self.estimates]
        lines.append(f"  {self.fit.summary()}")
        if self.groups == 1:
            lines.append("  standard errors take the records as independent: too small where many share a block")
        return "\n".join(lines)


def link_rates(
    counts: ArrayLike,
    *,
    candidates: int,
    coverage: Estimate | None = None,
    several_allowed: bool = False,
    classes: int | None = None,
    trials: int | None = None,
) -> LinkRates:
    """Error rates from the distribution of the number of links of a record, without clerical review.

    counts: (K + 1,) records with 0 ... K links, or (R, K + 1) by random group of blocks, R at least 20: then standard
    errors hold where records of a block share their links. candidates: records of the other file. coverage:
    probability that a record has a partner there (such as `true_links` of a blocking key that misses no match); None
    where every record has one. several_allowed: said where no record has more than one link although it could.
    classes: latent classes of false links; None picks 1 to 4 by Akaike's criterion. trials: candidates of each record
    in its block, the same for all (binomial law); None for Poisson.

    p, the false links' mean and its classes by maximum likelihood (`_mixture`); recall = p / coverage, false positive
    rate = mean false links / (candidates - coverage), precision = p / mean links. Standard errors from the observed
    information over records, or over groups.
    Source: Dasylva and Goussanou 2022; Dasylva et al. 2024, Survey Methodology 50(2).

    Misleads where recall differs between records together with their number of false links (estimate by class and
    pool: `pooled`), where records stand several times in a file (a second true link looks like a false one), and where
    the linkage chooses among several links. `coverage` is taken to be independent of the counts: with both from the
    same records the recall's standard error is too large; use `blocked_rates`.
    Raises UsageError where the rates are not identified.
    """
    table = grouped(counts, 2, "counts")
    return rates_with_influence(
        table, candidates, coverage=coverage, several_allowed=several_allowed, classes=classes, trials=trials
    )[0]


def pooled(parts: Sequence[LinkRates]) -> LinkRates:
    """Rates over several known classes of records, each with its own recall and false links, estimated by themselves.

    Classes are those of the asker (block sizes, years of birth), known of every record of both files, and pairs are of
    one class: recall may differ between them. Means weighted by records; classes are independent.
    Raises UsageError for no classes, or a coverage of some alone.
    """
    if not parts:
        raise UsageError("pooled: got no classes; want one or more")
    n = np.array([part.records for part in parts], dtype=float)

    def mean(name: str, each: Sequence[Estimate], by: Floats, like: Estimate) -> Estimate:
        w = by / by.sum()
        value = sum(w * [e.value for e in each])
        variance = sum(w**2 * [0 if e.at_limit else e.std_error**2 for e in each])
        slope = sum(e.slope for e in each if e.at_limit) if all(e.at_limit for e in each) else 0.0
        return Estimate(name, float(value), float(np.sqrt(variance)), like.scale, slope)

    first = parts[0]
    partners = np.array([p.coverage.value if p.coverage else 1.0 for p in parts])
    covered = [p.coverage for p in parts if p.coverage]
    if len(covered) not in (0, len(parts)):
        raise UsageError("pooled: got a coverage for some classes; want it for all or none")
    links = n * [p.true_links.value + p.false_links.value for p in parts]
    pairs = n * ([p.candidates for p in parts] - partners)
    known = [p.fit for p in parts if p.fit.df is not None]
    df, chi_square = sum(fit.df or 0 for fit in known) or None, sum(fit.chi_square for fit in known)
    fit = Fit(max(p.fit.classes for p in parts), chi_square, df, float(stats.chi2.sf(chi_square, df)) if df else None)
    return LinkRates(
        records=int(n.sum()),
        candidates=sum(p.candidates for p in parts),
        true_links=mean("true links a record", [p.true_links for p in parts], n, first.true_links),
        coverage=mean("coverage", covered, n, covered[0]) if covered else None,
        recall=mean("recall", [p.recall for p in parts], n * partners, first.recall),
        false_links=mean("false links a record", [p.false_links for p in parts], n, first.false_links),
        false_positive_rate=mean(
            "false positive rate", [p.false_positive_rate for p in parts], pairs, first.false_positive_rate
        ),
        precision=mean("precision", [p.precision for p in parts], links, first.precision),
        fit=fit,
        groups=min(p.groups for p in parts),
        model=None,
    )


def grouped(counts: ArrayLike, dimensions: int, name: str) -> Floats:
    """Counts with the dimension of random groups first. Raises UsageError on what is no table of counts."""
    table = np.asarray(counts, dtype=float)
    if table.ndim == dimensions - 1:
        table = table[None]
    if table.ndim != dimensions:
        raise UsageError(f"{name}: got {table.ndim} dimensions; want {dimensions - 1}, or {dimensions} by random group")
    if not np.isfinite(table).all() or (table < 0).any() or (table != np.floor(table)).any():
        raise UsageError(f"{name}: got numbers that are no counts; want whole numbers from 0")
    if table.sum() == 0:
        raise UsageError(f"{name}: got no records")
    if 1 < len(table) < FEWEST_GROUPS:
        raise UsageError(f"{name}: got {len(table)} random groups; want none, or at least {FEWEST_GROUPS}")
    return table


def spread(errors: Floats) -> Floats:
    """Covariance (q, q) of sums of errors (groups, q), each with mean zero."""
    return np.asarray(errors.T @ errors * len(errors) / (len(errors) - 1))


def rates_with_influence(
    table: Floats,
    candidates: int,
    *,
    coverage: Estimate | None = None,
    several_allowed: bool = False,
    classes: int | None = None,
    trials: int | None = None,
) -> tuple[LinkRates, Floats]:
    """The rates, and what a record with k links adds to the error of p, (K + 1,)."""
    table = trimmed(table)
    counts = table.sum(axis=0)
    n, cells = counts.sum(), len(counts)
    if candidates < cells - 1 or candidates < 1:
        raise UsageError(f"candidates: got {candidates}; want at least the largest number of links, {cells - 1}")
    if coverage is not None and not 0 < coverage.value <= 1:
        raise UsageError(f"coverage: got {coverage.value}; want more than 0, and at most 1")
    if cells == 1:
        raise UsageError("not identified: no record has a link")
    if cells == 2 and not several_allowed:
        raise UsageError(
            "not identified: all records have 0 or 1 links. That is what a one-to-one assignment leaves of any number "
            "of false links. Want the links before it; or several_allowed=True, where a record could have had several"
        )
    model = _chosen(table, classes, trials)
    if model.p == 0:
        raise UsageError("not identified: the numbers of links look like those of false links alone")
    try:
        all_adds, inverse = influence(model, counts)
    except np.linalg.LinAlgError:
        raise UsageError(
            f"not identified: {np.count_nonzero(counts)} different numbers of links do not tell true links from false "
            f"ones in {len(model.means)} classes"
        ) from None
    by_record = all_adds[:, 0]
    k = np.arange(cells)
    mean = float(k @ counts / n)
    p, false_links = model.p, mean - model.p
    of_mean = (k - mean) / n
    precision = p / mean
    adds = np.stack([by_record, of_mean - by_record, (by_record - precision * of_mean) / mean], axis=1)
    if len(table) > 1:
        errors = np.sqrt(np.diag(spread(table @ adds)))
    else:
        errors = np.sqrt((counts[:, None] * adds**2).sum(axis=0))
        errors[0] = np.sqrt(inverse[0, 0])
    by_p, by_false = slopes(model, counts)
    if false_links < 1e-12:
        false_links, precision, errors[1:] = 0.0, 1.0, 0.0
    true = Estimate("true links a record", p, float(errors[0]), "complement", by_p if p == 1 else 0.0)
    partner, partner_error = (1.0, 0.0) if coverage is None else (coverage.value, coverage.std_error)
    pairs = candidates - partner
    none = by_false if false_links == 0 else 0.0
    return LinkRates(
        records=int(n),
        candidates=candidates,
        true_links=true,
        coverage=coverage,
        recall=recall_of(true, partner, float(np.hypot(errors[0], p / partner * partner_error) / partner)),
        false_links=Estimate("false links a record", false_links, float(errors[1]), "log", none),
        false_positive_rate=Estimate(
            "false positive rate", false_links / pairs, float(errors[1]) / pairs, "log", none * pairs
        ),
        precision=Estimate("precision", precision, float(errors[2]), "logit", none * p if none else 0.0),
        fit=_fit(model, table, all_adds),
        groups=len(table),
        model=model,
    ), by_record


def recall_of(true_links: Estimate, coverage: float, std_error: float) -> Estimate:
    """Recall = p / coverage. On the plain scale where the estimate is not below 1 although p is."""
    value = true_links.value / coverage
    if coverage == 1 and true_links.at_limit:
        return Estimate("recall", 1.0, 0.0, "logit", true_links.slope)
    if value > 1 + 5 * std_error + 1e-9:
        raise UsageError(f"coverage: got {coverage:.6g}, less than the true links a record, {true_links.value:.6g}")
    return Estimate("recall", value, std_error, "logit" if value < 1 - 1e-12 else "plain")


def _chosen(table: Floats, classes: int | None, trials: int | None) -> Mixture:
    """The model with the number of classes that was asked for, or that which Akaike's criterion picks."""
    counts = table.sum(axis=0)
    room = int(np.count_nonzero(counts)) - 1
    if classes is not None:
        if not 1 <= classes <= MOST_CLASSES:
            raise UsageError(f"classes: got {classes}; want 1 to {MOST_CLASSES}")
        if 2 * classes > max(room, 2):
            raise UsageError(
                f"not identified: got {room + 1} different numbers of links; {classes} classes want {2 * classes + 1}"
            )
        return fitted(counts, classes, trials)
    best = fitted(counts, 1, trials)
    for each in range(2, MOST_CLASSES + 1):
        if 2 * each > room:
            break
        model = fitted(counts, each, trials)
        try:
            # a model without any true link tells of no better one by its own penalty
            cost = _penalty(model, table) - _penalty(best, table) if best.p > 0 else 2.0
        except np.linalg.LinAlgError:
            break
        if log_likelihood(model, counts) - log_likelihood(best, counts) <= cost:
            break
        best = model
    return best


def _penalty(model: Mixture, table: Floats) -> float:
    """Number of parameters; over groups the composite likelihood's (Varin and Vidoni 2005), which counts those larger
    that records of a block tell of together. Raises numpy.linalg.LinAlgError as `influence`."""
    adds, _ = influence(model, table.sum(axis=0))
    if len(table) == 1:
        return float(model.parameters)
    by_group = table @ scores(model, table.shape[1])
    return float(((table @ adds) * by_group).sum() * len(table) / (len(table) - 1))


def _fit(model: Mixture, table: Floats, adds: Floats) -> Fit:
    """Pearson's test of the fit; over groups divided by the mean design effect of its cells (Rao and Scott 1984)."""
    counts, classes = table.sum(axis=0), len(model.means)
    n, law = counts.sum(), model.probability(len(counts))
    law[-1] += max(1 - law.sum(), 0.0)  # the tail beyond the largest number seen
    cell, room = np.zeros(len(counts), dtype=int), 5.0  # numbers of links, pooled from the end to 5 expected records
    for k in range(len(counts) - 1, -1, -1):
        above = cell[k + 1] if k + 1 < len(counts) else -1
        cell[k], room = (above, room + n * law[k]) if room < 5 else (above + 1, n * law[k])
    if room < 5 and cell[0]:
        cell[cell == cell[0]] -= 1
    pooling = np.eye(cell.max() + 1)[cell]
    seen, expected = counts @ pooling, n * law @ pooling
    chi_square = float(((seen - expected) ** 2 / expected).sum())
    free = int(np.count_nonzero(np.abs(adds).sum(axis=0)))
    df = len(expected) - 1 - free
    if df < 1:
        return Fit(classes, chi_square, None, None)
    if len(table) > 1:
        by_cell = ((law[:, None] * scores(model, len(counts))).T @ pooling) * n
        left = table @ (pooling - expected / n - adds @ by_cell)
        effect = float((np.diag(spread(left)) / expected).sum()) / df
        chi_square /= max(effect, 1.0)
    return Fit(classes, chi_square, df, float(stats.chi2.sf(chi_square, df)))


def trimmed(table: ArrayLike) -> Floats:
    """Without the empty numbers of links at the end, all but one: the law goes on beyond the largest seen."""
    full = np.asarray(table, dtype=float)
    last = int(np.flatnonzero(full.sum(axis=0)).max())
    return full[:, : last + 1]
