"""General utility: how far a synthetic table is from the original as a whole.

Each takes the original, the synthetic table and, where there are any, fresh records of the same population: what the
measure says of those in the place of the synthetic ones is its baseline. Numbers of records are made equal first, since
distances between samples fall with their size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded, Grid, grid_of, joined
from statfed.core.synthetic.features import ALL, NONE, grouped, main_effects, products_for, with_interactions
from statfed.core.synthetic.measured import Measured, Z, auc, of_auc

MOST_SETS = 2_000
"""Sets of columns whose margins are compared; of more, so many are drawn."""
_FOLDS = 5


def compared(original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator) -> tuple[Coded, ...]:
    """Synthetic and fresh records, as many of both; only synthetic ones where there are no fresh ones."""
    if original.names != synthetic.names or (fresh is not None and fresh.names != original.names):
        raise UsageError("columns: got tables with different columns; want the same in both")
    if fresh is None:
        return (synthetic,)
    count = min(synthetic.count, fresh.count)
    return synthetic.drawn(count, rng), fresh.drawn(count, rng)


def margins(
    original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator, ways: int = 2, bins: int = 10
) -> Measured:
    """Mean total variation distance of the margins of so many columns; numbers in `bins` cells of about equally many
    original records. 0 to 1: the share of records that would have to be moved to another cell."""
    grid = grid_of(original, bins)
    sets = _sets(len(grid.names), ways, rng)
    there = grid.codes(original)
    values = [
        float(np.mean([distance(there, grid.codes(table), grid, chosen) for chosen in sets]))
        for table in compared(original, synthetic, fresh, rng)
    ]
    return _against("margins", values, len(sets), f"{ways} columns at a time")


def _sets(columns: int, ways: int, rng: np.random.Generator) -> Sequence[tuple[int, ...]]:
    if not 1 <= ways <= columns:
        raise UsageError(f"ways: got {ways}; want 1 to the number of columns, {columns}")
    if math.comb(columns, ways) <= MOST_SETS:
        return list(combinations(range(columns), ways))
    drawn = {tuple(sorted(rng.choice(columns, ways, replace=False).tolist())) for _ in range(2 * MOST_SETS)}
    return sorted(drawn)[:MOST_SETS]


def distance(one: NDArray[np.int64], other: NDArray[np.int64], grid: Grid, columns: Sequence[int]) -> float:
    """Total variation distance of the margin of some columns. one, other: (n, columns) codes of the grid."""
    sizes = [grid.sizes[column] for column in columns]
    cells = [np.ravel_multi_index(tuple(codes[:, c] for c in columns), sizes) for codes in (one, other)]
    if math.prod(sizes) <= 4 * (len(one) + len(other)):
        counts = [np.bincount(each, minlength=math.prod(sizes)) / len(each) for each in cells]
    else:
        there = np.unique(np.concatenate(cells))
        counts = [np.bincount(np.searchsorted(there, each), minlength=len(there)) / len(each) for each in cells]
    return float(np.abs(counts[0] - counts[1]).sum() / 2)


def hellinger(
    original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator, bins: int = 10
) -> Measured:
    """Mean Hellinger distance of the columns' own distributions, 0 to 1; the worst column is named."""
    grid = grid_of(original, bins)
    there = grid.codes(original)
    found = []
    for table in compared(original, synthetic, fresh, rng):
        other = grid.codes(table)
        found.append([_hellinger(there[:, c], other[:, c], size) for c, size in enumerate(grid.sizes)])
    worst = int(np.argmax(found[0]))
    note = f"farthest: {grid.names[worst]}, {found[0][worst]:.3f}"
    return _against("hellinger", [float(np.mean(each)) for each in found], len(grid.names), note=note)


def _hellinger(one: NDArray[np.int64], other: NDArray[np.int64], size: int) -> float:
    p, q = (np.bincount(each, minlength=size) / len(each) for each in (one, other))
    return math.sqrt(max(0.0, 1.0 - float(np.sqrt(p * q).sum())))


def associations(original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator) -> Measured:
    """Mean absolute difference of the association of each two columns: Pearson's r of two numbers, Cramer's V of two
    columns with levels (bias corrected, Bergsma 2013), the correlation ratio of one each. Records that miss either are
    left out of it; the farthest pair is named."""
    pairs = list(combinations(original.names, 2))
    if not pairs:
        raise UsageError("columns: got one column; want two or more for associations")
    there = np.array([association(original, a, b) for a, b in pairs])
    found = [
        np.abs(there - np.array([association(table, a, b) for a, b in pairs]))
        for table in compared(original, synthetic, fresh, rng)
    ]
    known = np.isfinite(found[0])
    if not known.any():
        raise UsageError("columns: got no two columns that vary together in both tables; want some")
    worst = pairs[int(np.nanargmax(np.where(known, found[0], np.nan)))]
    lost = int((~known & np.isfinite(there)).sum())
    note = f"farthest: {worst[0]} with {worst[1]}, {np.nanmax(found[0]):.3f}"
    note += f"; {lost} pairs do not vary in the synthetic data" if lost else ""
    return _against("associations", [float(np.nanmean(each)) for each in found], int(known.sum()), note=note)


def association(table: Coded, first: str, second: str) -> float:
    """The association of two columns, as in `associations`; NaN where one of the two does not vary."""
    known = ~table.missing(first) & ~table.missing(second)
    a, b = table.columns[first][known], table.columns[second][known]
    if len(a) < 2:
        return math.nan
    if not table.levelled(first) and not table.levelled(second):
        spread = a.std() * b.std()
        return float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else math.nan
    if table.levelled(first) and table.levelled(second):
        return _cramer(a, b)
    codes, values = (a, b) if table.levelled(first) else (b, a)
    whole = values.var()
    counts = np.bincount(codes)
    means = np.bincount(codes, weights=values) / np.maximum(counts, 1)
    between = float((counts * (means - values.mean()) ** 2).sum() / len(values))
    return math.sqrt(max(0.0, min(1.0, between / whole))) if whole > 0 else math.nan


def _cramer(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    _, a = np.unique(a, return_inverse=True)
    _, b = np.unique(b, return_inverse=True)
    rows, columns, n = int(a.max()) + 1, int(b.max()) + 1, len(a)
    if min(rows, columns) < 2:
        return math.nan
    table = np.bincount(a * columns + b, minlength=rows * columns).reshape(rows, columns)
    expected = np.outer(table.sum(1), table.sum(0)) / n
    phi = float(((table - expected) ** 2 / expected).sum()) / n
    phi = max(0.0, phi - (rows - 1) * (columns - 1) / (n - 1))
    r, c = rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)
    return math.sqrt(phi / (min(r, c) - 1)) if min(r, c) > 1 else math.nan


def propensity(
    original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator, interactions: bool = True
) -> tuple[Measured, Measured]:
    """pMSE of a logistic model that tells synthetic from original records, and its standardised form S_pMSE.

    The model has all main effects, and products of each two where they are at most a tenth of the records; else
    products of groups of each two columns, the finest of 5 to 2 groups that are as few. Where not even those are, it
    does not see relations: S_pMSE is then the lower end of an interval without an upper one, which may break a limit
    and keeps none, and its note says so. With k
    parameters, N records and a share c of synthetic ones, pMSE of data from the right model has mean
    (k - 1) (1 - c)^2 c / N and standard deviation sqrt(2 (k - 1)) (1 - c)^2 c / N: S_pMSE is how many of those the
    value lies above the mean. That null is of synthetic records drawn given the original ones' estimates; fresh records
    of the population have twice the mean at c = 1/2. Source: Woo et al. 2009; Snoke et al. 2018, theorem 1.
    """
    found = [
        _fitted(original, table, interactions, synthetic)[0] for table in compared(original, synthetic, fresh, rng)
    ]
    return propensity_measured(found[0], found[1] if len(found) > 1 else None)


@dataclass(frozen=True)
class Propensity:
    """A fitted propensity model. value: pMSE; synthetic: how many of the records are so; products: as
    `features.products_for` has them."""

    value: float
    parameters: int
    synthetic: int
    records: int
    products: int = ALL

    @property
    def terms(self) -> str:
        """What the model has, in words."""
        more = {NONE: ", no products of columns", ALL: ""}
        return f"{self.parameters} parameters" + more.get(
            self.products, f", products of {self.products} groups a column"
        )

    @property
    def share(self) -> float:
        """Of synthetic records."""
        return self.synthetic / self.records

    @property
    def mean(self) -> float:
        """Of pMSE under the null."""
        return (self.parameters - 1) * self._unit

    @property
    def error(self) -> float:
        """Standard deviation of pMSE under the null."""
        return math.sqrt(2 * (self.parameters - 1)) * self._unit

    @property
    def _unit(self) -> float:
        return (1 - self.share) ** 2 * self.share / self.records


def propensity_measured(found: Propensity, fresh: Propensity | None) -> tuple[Measured, Measured]:
    """pMSE and S_pMSE as figures. fresh: of fresh records in the place of the synthetic ones; where they are not as
    many, their pMSE is scaled by c (1 - c) / N, as that of two samples of one population goes."""
    k = found.parameters
    about, n = found.terms, found.records
    low, high = (
        found.mean + found.error / math.sqrt(2 * (k - 1)) * (chi2.ppf(p, k - 1) - (k - 1)) for p in (0.025, 0.975)
    )
    note = f"of data from the right model {low:.2g} to {high:.2g}"
    baseline, other = found.mean, 0.0
    if fresh is not None:
        scales = [each.share * (1 - each.share) / each.records for each in (found, fresh)]
        baseline = fresh.value * (scales[0] / scales[1])
        like = replace(found, parameters=fresh.parameters)
        other = (baseline - like.mean) / like.error
    value = found.value
    plain = Measured("pmse", "utility", value, baseline=baseline, excess=value - baseline, n=n, about=about, note=note)
    standard = (value - found.mean) / found.error
    scaled = Measured("s-pmse", "utility", standard, baseline=other, excess=standard - other, n=n, about=about)
    if found.products != NONE:
        return plain, scaled
    return replace(plain, note=f"{note}; {_BLIND}"), replace(
        scaled, low=standard, high=math.inf, excess_low=scaled.excess, excess_high=math.inf, note=_BLIND
    )


_BLIND = "too few records for products of columns: relations are not seen, and this is a lower end"


def logistic_auc(
    original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator, interactions: bool = True
) -> Measured:
    """Area under the ROC curve of the propensity model on the records it was fitted to: above .5 for fresh records too,
    the more so the more parameters it has. Its interval takes the fit as given (DeLong et al. 1988)."""
    found = [_fitted(original, table, interactions, synthetic) for table in compared(original, synthetic, fresh, rng)]
    areas = [auc(p[original.count :], p[: original.count]) for _, p in found]
    model, baseline = found[0][0], areas[1][0] if len(areas) > 1 else None
    return logistic_measured(areas[0], model, baseline)


def logistic_measured(
    area: tuple[float, float], model: Propensity, baseline: float | None, off: float = 0.0
) -> Measured:
    """area: with its standard error; off: what it may be off by beside, which the interval has."""
    value, error = area
    about = f"{model.terms}, on the records of the fit"
    half = Z * error + off
    excess = None if baseline is None else value - baseline
    low, high = max(value - half, 0.0), min(value + half, 1.0)
    note = f"by classes of the score: within {off:.2g} of the score's own" if off else ""
    return Measured(
        "logistic-auc", "utility", value, low, high, baseline, excess, n=model.records, about=about, note=note
    )


def _fitted(
    original: Coded, synthetic: Coded, interactions: bool, reference: Coded | None = None
) -> tuple[Propensity, NDArray[np.float64]]:
    """The model, and fitted probabilities of the original records and then the synthetic ones. reference: by whose
    records columns are grouped where they are, or the synthetic ones."""
    n = original.count + synthetic.count
    matrix, like = _stacked(original, synthetic), reference or synthetic
    products = products_for(like, matrix.shape[1], n) if interactions else NONE
    if products == ALL:
        matrix = with_interactions(matrix)
    elif products != NONE:
        matrix = np.column_stack([matrix, grouped(joined(original, synthetic), like, products)])
    labels = np.repeat([0.0, 1.0], [original.count, synthetic.count])
    p, k = _logistic(matrix, labels)
    if k < 2:
        raise UsageError("columns: got none that vary; want some for a propensity model")
    value = float(((p - synthetic.count / n) ** 2).mean())
    return Propensity(value, k, synthetic.count, n, products), p


def _stacked(original: Coded, synthetic: Coded) -> NDArray[np.float64]:
    """Main effects of both tables below one another, by the same levels."""
    both = joined(original, synthetic)
    return main_effects(both, both)


def _logistic(matrix: NDArray[np.float64], labels: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Fitted probabilities of a logistic model with intercept, and its number of parameters that can be told apart.

    By iteratively reweighted least squares on an orthogonal basis of the columns; where the two are told apart
    completely, coefficients grow without end and the probabilities near 0 and 1 are kept.
    """
    design = np.column_stack([np.ones(len(labels)), matrix])
    basis, sizes, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, sizes > sizes[0] * max(design.shape) * np.finfo(float).eps] * math.sqrt(len(labels))
    coefficients = np.zeros(basis.shape[1])
    before = math.inf
    p = np.full(len(labels), 0.5)
    for _ in range(50):
        p = 1.0 / (1.0 + np.exp(-np.clip(basis @ coefficients, -30, 30)))
        deviance = -float(np.log(np.where(labels > 0, p, 1 - p)).sum())
        if abs(before - deviance) < 1e-9 * (1 + deviance):
            break
        before = deviance
        weights = np.maximum(p * (1 - p), 1e-10)
        step = np.linalg.lstsq(basis.T @ (basis * weights[:, None]), basis.T @ (labels - p), rcond=None)[0]
        coefficients += step
    return p, basis.shape[1]


def discrimination(original: Coded, synthetic: Coded, fresh: Coded | None, rng: np.random.Generator) -> Measured:
    """Area under the ROC curve of boosted trees that tell synthetic from original records, cross-validated.

    .5: they cannot be told apart by it. Of fresh records it is .5. Its standard error takes records as independent
    (DeLong et al. 1988).
    """
    value, error, n = _told_apart(original, compared(original, synthetic, fresh, rng)[0], rng)
    twins = "below .5: records are in both tables, each told by its twin" if value + 4 * error < 0.5 else ""
    return of_auc("propensity-auc", "utility", value, error, n, note=twins)


def _told_apart(original: Coded, synthetic: Coded, rng: np.random.Generator) -> tuple[float, float, int]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedKFold

    count = min(original.count, synthetic.count)
    if count < 2 * _FOLDS:
        raise UsageError(f"data: got {count} records; want at least {2 * _FOLDS} of both")
    matrix = _stacked(original.drawn(count, rng), synthetic.drawn(count, rng))
    labels = np.repeat([0, 1], count)
    scores = np.empty(2 * count)
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
    for train, test in folds.split(matrix, labels):
        model = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(matrix[train], labels[train])
        scores[test] = model.predict_proba(matrix[test])[:, 1]
    return (*auc(scores[labels == 1], scores[labels == 0]), 2 * count)


def _against(
    name: str, values: Sequence[float], n: int, about: str = "", note: str = "", otherwise: float | None = None
) -> Measured:
    baseline = values[1] if len(values) > 1 else otherwise
    excess = None if baseline is None else values[0] - baseline
    return Measured(name, "utility", values[0], baseline=baseline, excess=excess, n=n, about=about, note=note)
