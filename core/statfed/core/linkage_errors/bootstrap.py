"""The bootstrap of error rates and of corrected totals: intervals that do not rest on a normal law."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from statfed.core.errors import UsageError
from statfed.core.linkage_errors._mixture import Mixture, fitted
from statfed.core.linkage_errors.rates import LinkRates, grouped, trimmed
from statfed.core.linkage_errors.totals import BlockedRates, CorrectedTotals, expected

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bootstrap:
    """What estimates came to in draws. values: name to (draws,)."""

    values: Mapping[str, Floats]

    def interval(self, level: float = 0.95) -> Mapping[str, tuple[float, float]]:
        """Percentile limits by name. Raises UsageError for a level outside 0 to 1."""
        if not 0 < level < 1:
            raise UsageError(f"level: got {level}; want a number between 0 and 1")
        ends = [(1 - level) / 2, (1 + level) / 2]
        return {
            name: (float(low), float(high)) for name, v in self.values.items() for low, high in [np.quantile(v, ends)]
        }

    def std_error(self) -> Mapping[str, float]:
        """Standard deviation over the draws by name."""
        return {name: float(values.std(ddof=1)) for name, values in self.values.items()}

    def summary(self) -> str:
        """In words."""
        draws = len(next(iter(self.values.values())))
        limits = self.interval()
        lines = [f"  {name}: 95 % interval {low:.6g} to {high:.6g}" for name, (low, high) in limits.items()]
        return "\n".join([f"bootstrap, {draws} draws", *lines])


def bootstrap_rates(rates: LinkRates, draws: int = 200, seed: int = 0) -> Bootstrap:
    """Parametric bootstrap of `link_rates`: records drawn from the fitted model, independent of each other, refitted.

    Holds where records of a block do not share their links; where they do, groups show it (`link_rates`).
    Raises UsageError for rates pooled over classes.
    """
    if rates.model is None:
        raise UsageError("bootstrap: got rates pooled over classes; want those of one class")
    rng = _generator(draws, seed)
    model, coverage = rates.model, rates.coverage.value if rates.coverage else 1.0
    largest = float(model.means.max())
    cells = 4 + int(largest + 12 * np.sqrt(largest + 1))
    if model.trials is not None:
        cells = min(cells, model.trials + 2)
    law = model.probability(cells)
    samples = rng.multinomial(rates.records, law / law.sum(), size=draws)
    p, false_links = np.array([_again(counts, model) for counts in samples]).T
    return Bootstrap(
        {
            "recall": p / coverage,
            "precision": p / np.maximum(p + false_links, 1e-300),
            "false positive rate": false_links / (rates.candidates - coverage),
            "true links a record": p,
            "false links a record": false_links,
        }
    )


def bootstrap_totals(
    counts: ArrayLike, rates: BlockedRates, totals: CorrectedTotals, draws: int = 200, seed: int = 0
) -> Bootstrap:
    """Bootstrap of `corrected_counts`, about these files' own matched pairs.

    counts: those that `rates` come from. Each draw takes groups (or records, where there is one group) with
    replacement, refits both keys, sets beside them the shares that hold among the records taken (what j and k leave to
    expect, and a binomial draw of what they leave open), draws each cell's links without replacement, corrects them
    and adds the error to the estimate: percentile limits. Cells are counts, not totals of a value.
    Raises UsageError where the totals are no counts.
    """
    rng = _generator(draws, seed)
    table = grouped(counts, 3, "counts")
    blocking, linkage = rates.blocking, rates.linkage
    if blocking.model is None or linkage.model is None:
        raise UsageError("rates: got rates pooled over classes; want those of one table")
    if table.sum() != linkage.records:
        raise UsageError(
            f"counts: got {table.sum():.0f} records; want the {linkage.records:,} that the rates come from"
        )
    if not totals.counts:
        raise UsageError("totals: got those of a value; want counts")
    partner, link = expected(blocking, min(linkage.recall.value, 1.0), rates.ratio.value, *table.shape[1:])
    true = np.maximum(np.round([each.value for each in totals.cells]), 0).astype(int)
    true = np.minimum(true, np.asarray(totals.blocked, dtype=int))
    false = np.asarray(totals.blocked, dtype=int) - true
    j, k = np.arange(table.shape[1]), np.arange(table.shape[2])
    errors = []
    for _ in range(draws):
        taken = _retaken(table, rng)
        n, pairs, links = taken.sum(), j @ taken.sum(axis=1), k @ taken.sum(axis=0)
        matched, linked = _realised(taken, partner, link, rng)
        c, p = _again(taken.sum(axis=1), blocking.model)[0], _again(taken.sum(axis=0), linkage.model)[0]
        recall, ratio = p / c, (links / n - p) / (pairs / n - c)
        among_true, among_false = linked / matched, (links - linked) / (pairs - matched)
        found = _split(true, among_true, rng) + _split(false, among_false, rng)
        whole = (found - ratio * (true + false)) / (recall - ratio) - true
        errors.append([*whole, whole.sum()])
    names = (*totals.cells, totals.total)
    values = {each.name: each.value + column for each, column in zip(names, np.array(errors).T, strict=True)}
    return Bootstrap(values)


def _generator(draws: int, seed: int) -> np.random.Generator:
    if draws < 20:
        raise UsageError(f"draws: got {draws}; want at least 20")
    return np.random.default_rng(seed)


def _again(counts: ArrayLike, model: Mixture) -> tuple[float, float]:
    again = fitted(trimmed(np.asarray(counts)[None, :])[0], len(model.means), model.trials, near=model)
    return again.p, again.false_links


def _retaken(table: Floats, rng: np.random.Generator) -> Floats:
    if len(table) > 1:
        times = rng.multinomial(len(table), np.full(len(table), 1 / len(table)))
        return np.asarray(np.tensordot(times, table, axes=1))
    share = table[0] / table[0].sum()
    return rng.multinomial(int(table.sum()), share.ravel()).reshape(share.shape).astype(float)


def _realised(taken: Floats, partner: Floats, link: Floats, rng: np.random.Generator) -> tuple[float, float]:
    """Records with a partner, and records with their true link, among those taken."""
    count = taken.astype(int)
    matched = rng.binomial(count, np.clip(partner, 0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(partner > 0, link / partner, 0.0)
    return float(matched.sum()), float(rng.binomial(matched, np.clip(share, 0, 1)).sum())


def _split(pairs: Ints, share: float, rng: np.random.Generator) -> Ints:
    """Of `share` of all pairs, drawn without replacement, how many fall into each cell."""
    some = int(np.round(np.clip(share, 0, 1) * pairs.sum()))
    return np.asarray(rng.multivariate_hypergeometric(pairs, some, method="marginals"))
