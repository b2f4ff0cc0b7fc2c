"""Records as points: a matrix for models, and one in which distances are Gower's."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from statfed.core.synthetic.coded import Coded

Matrix = NDArray[np.float64]
MOST_FEATURES = 800
"""Columns of a model with products, its constant included."""
NONE, ALL = 0, 1
"""Products of columns in a model: none, of each two; other numbers are groups of each column that are multiplied."""
_GROUPS = (5, 4, 3, 2)
_FINE = 100
"""Columns of a model with finer groups than halves: S_pMSE of fresh records grows with the root of half of them."""
PRODUCTS = (NONE, ALL, *_GROUPS)


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


def products_for(reference: Coded, main: int, records: int) -> int:
    """Which products of columns a model with so many main effects has: ALL of each two, else of as many groups a column
    as there is room for, else NONE. Room is a tenth of the records, and `MOST_FEATURES`."""
    room = min(records / 10, MOST_FEATURES - 1)
    if main * (main + 1) // 2 <= room:
        return ALL
    for groups in _GROUPS:
        if main + grouped_width(reference, groups) <= (room if groups == _GROUPS[-1] else min(room, _FINE)):
            return groups
    return NONE


def grouped_width(reference: Coded, groups: int) -> int:
    """Columns of `grouped`."""
    widths = [(len(cuts_of(reference, name, groups)), reference.levelled(name)) for name in reference.names]
    pairs = sum(a * b for (a, _), (b, _) in combinations(widths, 2))
    return pairs + sum(width for width, levelled in widths if not levelled)


def cuts_of(reference: Coded, name: str, groups: int) -> Matrix:
    """Values of a column after which another group begins, groups of about equally many of the reference's records: at
    least one cut where it varies. Levels are in the codebook's order, missing ones last; missing numbers in none."""
    values = _ordered(reference, name)
    there, counts = np.unique(values[np.isfinite(values)], return_counts=True)
    middle = (np.cumsum(counts) - counts / 2) / max(counts.sum(), 1)
    found: Matrix = there[:-1][np.diff((middle * groups).astype(np.int64)) > 0].astype(np.float64)
    return found


def grouped(table: Coded, reference: Coded, groups: int) -> Matrix:
    """Whether a record is above each cut, of numbers and as products of each two columns, (n, k). The cuts are the
    reference's (`cuts_of`)."""
    above = [
        (_ordered(table, name)[:, None] > cuts_of(reference, name, groups)).astype(np.float64) for name in table.names
    ]
    own = [each for name, each in zip(table.names, above, strict=True) if not table.levelled(name)]
    products = [a[:, i : i + 1] * b for a, b in combinations(above, 2) for i in range(a.shape[1])]
    return np.column_stack([np.empty((table.count, 0)), *own, *products])


def _ordered(table: Coded, name: str) -> Matrix:
    values, missing = table.columns[name].astype(np.float64), table.missing(name)
    lost = len(table.codebook.columns[name].levels) if table.levelled(name) else -np.inf
    found: Matrix = np.where(missing, lost, values)
    return found


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
