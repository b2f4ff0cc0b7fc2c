"""A logistic model that tells synthetic from original records, as sums over records that can lie apart.

The model is that of `utility.propensity`, whose figures do not depend on how a feature is scaled nor on which level is
left out, but on the space that features span alone. So numbers are scaled by the synthetic records here, which are
public, and the fit goes the same way: iteratively reweighted least squares from 0 in coordinates in which all records
together have the identity as second moments, in which its steps are those of any other such basis.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded
from statfed.core.synthetic.features import (
    ALL,
    MOST_FEATURES,
    NONE,
    grouped,
    grouped_width,
    products_for,
    with_interactions,
)

Floats = NDArray[np.float64]
STEPS = 50
"""Steps of a fit at most."""
_RANK = 1e-11
"""Of the second moments of features scaled to 1: a direction with less is none."""
_BLOCK = 4096


@dataclass(frozen=True)
class Features:
    """The columns of a model; public. there: (cells,) of `cells_of`, which of them some record has. reference: its
    known numbers have mean 0 and standard deviation 1. products: as `products_for` has them."""

    reference: Coded
    there: NDArray[np.bool_]
    products: int

    @property
    def main(self) -> int:
        """Main effects."""
        return sum(self._widths())

    @property
    def count(self) -> int:
        """Columns with the constant and products."""
        k = self.main
        if self.products == ALL:
            return 1 + k * (k + 1) // 2
        return 1 + k + (grouped_width(self.reference, self.products) if self.products else 0)

    def _widths(self) -> Iterator[int]:
        for name, there in _by_column(self.reference, self.there):
            yield max(int(there.sum()) - 1, 0) if self.reference.levelled(name) else 1 + int(there[0])

    def matrix(self, table: Coded) -> Floats:
        """Of records, (n, count)."""
        columns = []
        for name, there in _by_column(self.reference, self.there):
            values, missing = table.columns[name], table.missing(name)
            if table.levelled(name):
                codes = np.where(missing, len(there) - 1, values)
                columns += [(codes == level).astype(np.float64) for level in np.flatnonzero(there)[1:]]
                continue
            known = self.reference.columns[name][~self.reference.missing(name)]
            centre, spread = (known.mean(), known.std() or 1.0) if len(known) else (0.0, 1.0)
            columns.append(np.where(missing, 0.0, (np.where(missing, 0.0, values) - centre) / spread))
            columns += [missing.astype(np.float64)] if there[0] else []
        main = np.column_stack(columns) if columns else np.empty((table.count, 0))
        made = [np.ones(table.count), with_interactions(main) if self.products == ALL else main]
        if self.products > ALL:
            made.append(grouped(table, self.reference, self.products))
        return np.column_stack(made)

    def blocks(self, table: Coded) -> Iterator[Floats]:
        """`matrix`, some thousand records at a time."""
        for start in range(0, table.count, _BLOCK):
            yield self.matrix(table.take(np.arange(start, min(start + _BLOCK, table.count))))


def _by_column(table: Coded, cells: NDArray[np.bool_]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    start = 0
    for name, size in zip(table.names, cells_of(table), strict=True):
        yield name, cells[start : start + size]
        start += size


def cells_of(table: Coded) -> tuple[int, ...]:
    """By column: its levels and missing, or missing alone."""
    return tuple(len(table.codebook.columns[n].levels) + 1 if table.levelled(n) else 1 for n in table.names)


def counted(table: Coded) -> NDArray[np.int64]:
    """Records in the cells of `cells_of`, (cells,)."""
    found = []
    for name, size in zip(table.names, cells_of(table), strict=True):
        missing = table.missing(name)
        if table.levelled(name):
            found.append(np.bincount(np.where(missing, size - 1, table.columns[name]), minlength=size))
        else:
            found.append(np.array([missing.sum()]))
    return np.concatenate(found).astype(np.int64)


def features_for(reference: Coded, counts: NDArray[np.int64], records: int, *, interactions: bool) -> Features:
    """The columns of a model of so many records, which have these counts: with the products that there is room for, as
    `utility.propensity` has them. Raises UsageError where they are too many for sums."""
    features = Features(reference, counts > 0, NONE)
    if interactions:
        features = Features(reference, counts > 0, products_for(reference, features.main, records))
    if features.count > MOST_FEATURES:
        raise UsageError(f"columns: got a model with {features.count} features; want at most {MOST_FEATURES}")
    return features


@dataclass(frozen=True)
class Sums:
    """Over records at coefficients: information (q, q), score (q,), deviance over 2."""

    information: Floats
    score: Floats
    deviance: float

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.information + other.information, self.score + other.score, math.fsum((self.deviance, other.deviance))
        )


def probabilities(matrix: Floats, coefficients: Floats) -> Floats:
    """Of being synthetic, (n,)."""
    found: Floats = 1.0 / (1.0 + np.exp(-np.clip(matrix @ coefficients, -30, 30)))
    return found


def sums_of(features: Features, table: Coded, label: int, coefficients: Floats) -> Sums:
    """Of records that are synthetic (label 1) or not (0)."""
    q = features.count
    information, score, deviance = np.zeros((q, q)), np.zeros(q), 0.0
    for matrix in features.blocks(table):
        p = probabilities(matrix, coefficients)
        information += matrix.T @ (matrix * np.maximum(p * (1 - p), 1e-10)[:, None])
        score += matrix.T @ (label - p)
        deviance -= float(np.log(p if label else 1 - p).sum())
    return Sums(information, score, deviance)


def whitened(moments: Floats, records: int) -> Floats:
    """Coordinates in which features have the identity as mean second moments, (q, parameters): features times it.

    moments: (q, q), sums of products over all records. Directions in which records do not differ are left out.
    """
    size = np.sqrt(np.diag(moments))
    there = size > 0
    scale = np.where(there, 1.0 / np.where(there, size, 1.0), 0.0)
    values, vectors = np.linalg.eigh(moments * np.outer(scale, scale))
    kept = values > _RANK * values.max(initial=0.0)
    made: Floats = scale[:, None] * vectors[:, kept] / np.sqrt(values[kept]) * math.sqrt(records)
    return made


@dataclass(frozen=True)
class Spread:
    """Of fitted probabilities of one kind of records. squares: sum of (p - share)^2; cells: how many are between edges,
    (bins,)."""

    squares: float
    cells: NDArray[np.int64]


def spread_of(features: Features, table: Coded, coefficients: Floats, share: float, edges: Floats) -> Spread:
    """edges: increasing; a probability is in the cell after the last edge that is not above it."""
    squares, cells = 0.0, np.zeros(len(edges) + 1, np.int64)
    for matrix in features.blocks(table):
        p = probabilities(matrix, coefficients)
        squares += float(((p - share) ** 2).sum())
        cells += np.bincount(np.searchsorted(edges, p, side="right"), minlength=len(cells))
    return Spread(squares, cells)


def edges_of(features: Features, table: Coded, coefficients: Floats, bins: int) -> Floats:
    """Edges between which about equally many of some public records have their probabilities, at most bins - 1."""
    p = np.concatenate([probabilities(matrix, coefficients) for matrix in features.blocks(table)])
    return np.unique(np.quantile(p, np.arange(1, bins) / bins, method="inverted_cdf"))


def binned_auc(positive: Sequence[int], negative: Sequence[int]) -> tuple[float, float, float]:
    """Area under the ROC curve of counts in cells of a score, its standard error, and how far the area of the score
    itself can be from it.

    Pairs in one cell count half, and can be anything: the bound is half their share, sum of m_b n_b / (2 m n). Error:
    DeLong et al. 1988, of the binned score.
    """
    m, n = np.asarray(positive, np.float64), np.asarray(negative, np.float64)
    above = (np.cumsum(n) - n / 2) / n.sum()
    below = 1.0 - (np.cumsum(m) - m / 2) / m.sum()
    value = float((m * above).sum() / m.sum())

    def variance(weights: Floats, values: Floats) -> float:
        count = weights.sum()
        if count < 2:
            return 0.0
        mean = float((weights * values).sum() / count)
        return float((weights * (values - mean) ** 2).sum() / (count - 1) / count)

    bound = float((m * n).sum() / (2 * m.sum() * n.sum()))
    return value, math.sqrt(variance(m, above) + variance(n, below)), bound
