"""Normals behind tables: counts without their noise's negatives, first factors, polychoric and nearest correlations."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
_MOST = 0.995  # absolute correlation
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)
_NEAR, _ROUNDS = 1e-10, 1000
_LEAST = 1e-8  # eigenvalue of a correlation matrix


def projected(counts: Floats, total: float) -> Floats:
    """The nearest numbers, in Euclidean distance, that are not negative and add up to `total` (Duchi et al. 2008).

    >>> projected(np.array([5.0, -1.0, 2.0]), 6.0).tolist()
    [4.5, 0.0, 1.5]
    """
    flat = np.sort(counts, axis=None)[::-1]
    surplus = (np.cumsum(flat) - total) / np.arange(1, flat.size + 1)
    last = int(np.flatnonzero(flat > surplus)[-1])
    found: Floats = np.maximum(counts - surplus[last], 0.0)
    return found


def first_factor(
    shares: Mapping[str, Floats], tables: Mapping[tuple[str, str], Floats], ordered: Mapping[str, bool]
) -> dict[str, Floats]:
    """Scores of the cells of each column on the first factor of a multiple correspondence analysis, (cells,) each.

    shares: of the cells of each column; tables: of the cells of each two; ordered: of columns whose cells are in order,
    is the last one for missing values? Their scores are normal ones of the order times a factor, missing aside. Cells
    without records have score 0.
    """
    names = list(shares)
    starts = np.cumsum([0, *(len(shares[name]) for name in names)])
    at = {name: slice(starts[i], starts[i + 1]) for i, name in enumerate(names)}
    burt = np.zeros((starts[-1], starts[-1]))
    mass = np.concatenate([shares[name] for name in names])
    for (a, b), table in tables.items():
        burt[at[a], at[b]] = table
        burt[at[b], at[a]] = table.T
    for name in names:
        burt[at[name], at[name]] = np.diag(shares[name])
    scale = np.divide(1.0, np.sqrt(mass), out=np.zeros_like(mass), where=mass > 0)
    root = np.sqrt(mass)
    centred = scale[:, None] * burt * scale - np.outer(root, root)
    basis = np.zeros((len(mass), 0))
    for name in names:
        block = np.zeros((len(mass), len(shares[name])))
        block[at[name]] = np.eye(len(shares[name]))
        if name in ordered:
            block = block @ _linear(shares[name], missing=ordered[name])
        basis = np.column_stack([basis, block])
    centred = basis.T @ (centred + centred.T) @ basis / 2
    vector = basis @ np.linalg.eigh(centred)[1][:, -1]
    vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
    return {name: (vector * scale)[at[name]] for name in names}


def _linear(shares: Floats, *, missing: bool) -> Floats:
    """An orthonormal basis of what normal scores of an order, times a factor, and one score of the missing can be; in
    units of the square roots of the shares, (cells, 1 or 2)."""
    root, known = np.sqrt(shares), len(shares) - missing
    total = shares[:known].sum() or 1.0
    middle = (np.cumsum(shares[:known]) - shares[:known] / 2) / total
    scores = np.concatenate([ndtri(np.clip(middle, 1e-9, 1 - 1e-9)), np.zeros(int(missing))])
    made = np.column_stack([scores, np.arange(len(shares)) >= known][: 1 + missing]) * root[:, None]
    made = made - np.outer(root, root @ made)
    left, sizes, _ = np.linalg.svd(made, full_matrices=False)
    found: Floats = left[:, sizes > 1e-9]
    return found


def binormal(h: Floats, k: Floats, rho: float) -> Floats:
    """P(X <= h, Y <= k) of standard normals with correlation rho, (len(h), len(k)); h, k may be infinite.

    The integral of its derivative over the angle whose sine is rho (Drezner and Wesolowsky 1990), by Gauss and
    Legendre's rule.
    """
    angle = np.arcsin(rho)
    theta = angle * (_NODES + 1) / 2
    a, b = np.clip(h, -40, 40)[:, None, None], np.clip(k, -40, 40)[None, :, None]
    inside = np.exp(-(a * a + b * b - 2 * a * b * np.sin(theta)) / (2 * np.cos(theta) ** 2))
    added: Floats = (inside @ _WEIGHTS) * angle / 2 / (2 * np.pi)
    return np.outer(ndtr(h), ndtr(k)) + added


def polychoric(table: Floats, rows: Floats, columns: Floats) -> float:
    """The correlation of two normals of whose classes a table has the shares: of maximum likelihood, given thresholds.

    table: (r, c), shares; rows: (r,) and columns: (c,) shares of each alone, from which the thresholds are. 0 where
    either has one class only. Source: Olsson 1979, the estimator of two steps.
    """
    table = table[np.ix_(rows > 0, columns > 0)]
    rows, columns = rows[rows > 0] / rows.sum(), columns[columns > 0] / columns.sum()
    if min(len(rows), len(columns)) < 2 or not table.any():
        return 0.0
    h, k = (np.concatenate([[-np.inf], ndtri(np.cumsum(one)[:-1]), [np.inf]]) for one in (rows, columns))

    def loss(rho: float) -> float:
        cells = np.diff(np.diff(binormal(h, k, rho), axis=0), axis=1)
        return -float((table * np.log(np.maximum(cells, 1e-12))).sum())

    return float(minimize_scalar(loss, bounds=(-_MOST, _MOST), method="bounded", options={"xatol": 1e-6}).x)


def nearest_correlation(matrix: Floats) -> Floats:
    """The nearest correlation matrix in Frobenius norm: symmetric, no eigenvalue below 1e-8, ones on the diagonal.

    By alternating projections with Dykstra's correction. Source: Higham 2002, algorithm 3.3.
    """
    y, correction = (matrix + matrix.T) / 2, np.zeros_like(matrix)
    for _ in range(_ROUNDS):
        before, shifted = y, y - correction
        x = _definite(shifted)
        correction, y = x - shifted, x.copy()
        np.fill_diagonal(y, 1.0)
        if np.abs(y - before).max() < _NEAR:
            break
    y = _definite(y)
    root = np.sqrt(np.diag(y))
    found: Floats = y / np.outer(root, root)
    np.fill_diagonal(found, 1.0)
    return found


def _definite(matrix: Floats) -> Floats:
    values, vectors = np.linalg.eigh(matrix)
    found: Floats = (vectors * np.maximum(values, _LEAST)) @ vectors.T
    return (found + found.T) / 2
