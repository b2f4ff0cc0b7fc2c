"""Records as points: a matrix for models, and one in which distances are Gower's."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from statfed.core.synthetic.coded import Coded

Matrix = NDArray[np.float64]


def main_effects(table: Coded, reference: Coded) -> Matrix:
    """One column for every number (missing: the reference's mean, and an indicator) and every level but the first that
    the reference or the table itself has, (n, k). Numbers are standardised by the reference."""
    columns = []
    for name in table.names:
        values = table.columns[name]
        if table.levelled(name):
            there = np.union1d(np.unique(reference.columns[name]), np.unique(values))
            columns += [(values == level).astype(np.float64) for level in there[1:]]
            continue
        missing, known = table.missing(name), reference.columns[name][~reference.missing(name)]
        centre, spread = (known.mean(), known.std() or 1.0) if len(known) else (0.0, 1.0)
        columns.append(np.where(missing, 0.0, (np.where(missing, 0.0, values) - centre) / spread))
        if missing.any() or reference.missing(name).any():
            columns.append(missing.astype(np.float64))
    return np.column_stack(columns) if columns else np.empty((table.count, 0))


def with_interactions(matrix: Matrix) -> Matrix:
    """The columns and the products of each two, (n, k + k (k - 1) / 2)."""
    products = [matrix[:, i] * matrix[:, j] for i, j in combinations(range(matrix.shape[1]), 2)]
    return np.column_stack([matrix, *products]) if products else matrix


def gower_points(table: Coded, reference: Coded) -> NDArray[np.float32]:
    """Points whose L1 distance is the number of columns times Gower's distance (Gower 1971), (n, k).

    Numbers are divided by their range in the reference and cut off at it; two levels are 1 apart, and so is a missing
    value from any other.
    """
    columns = []
    for name in table.names:
        values = table.columns[name]
        if table.levelled(name):
            size = len(table.codebook.columns[name].levels)
            columns += [(values == level) * np.float32(0.5) for level in range(-1, size)]
            continue
        missing, known = table.missing(name), reference.columns[name][~reference.missing(name)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        place = np.clip((np.where(missing, low, values) - low) / ((high - low) or 1.0), 0.0, 1.0)
        columns.append(np.where(missing, 0.5, place))
        columns.append(np.where(missing, 1.0, 0.0))
    return np.column_stack(columns).astype(np.float32)


def nearest(points: NDArray[np.float32], among: NDArray[np.float32], k: int = 1) -> tuple[Matrix, NDArray[np.int64]]:
    """Distances to the k nearest of some points, in L1, and their places, both (n, k). Of equals, any."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=min(k, len(among)), metric="manhattan", algorithm="brute").fit(among)
    distances, places = found.kneighbors(points)
    return distances.astype(np.float64), places.astype(np.int64)
