"""Differentially private OLS by adaptive sufficient statistics perturbation (AdaSSP; Wang 2018, algorithm 2).

One noisy release of n, Z'Z, Z'y and y'y of columns and response brought into [-1, 1] by the codebook's bounds. What
follows from other entries is not released again: the intercept's square is n, an indicator's square its sum, and two
levels of one category never meet. From these numbers alone:

- Ridge. AdaSSP adds lambda = max(0, k - smallest eigenvalue), k a bound on the spectral norm of the noise in Z'Z that
  holds with probability about 95 % (Bandeira and van Handel 2016), so that the system stays regular when noise is
  large; it is 0 when there are data enough. The noisy matrix itself gives the eigenvalue (post-processing), instead of
  a third of the budget as in the paper.
- Variance by the delta method, of coefficients b = (Z'Z + lambda)^-1 Z'y: sampling sigma^2 H Z'Z H with
  H = (Z'Z + lambda)^-1, plus noise H Cov(e - E b) H for noise E in Z'Z and e in Z'y, plus the square of the estimated
  shrinkage lambda H b. sigma^2 is the noisy residual sum of squares, freed from the part that noise has fitted
  (trace of H Cov(e - E b)), over n - p, and at least the standard deviation of its noise over n - p.

Intervals hold where noise is small beside Z'Z: the terms of second order, an attenuation as with errors in variables
(Fuller 1987, section 2.2), are not in them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Coordination, Counts, Part, Product, Question, Total
from statfed.core.result import Result, Scalar
from statfed.core.table import Table, real
from statfed.strategies.analyses._matrix import INTERCEPT, Design, cross_products
from statfed.strategies.analyses._regression import coefficient_basis, coefficient_rows

if TYPE_CHECKING:
    from statfed.strategies.analyses.ols import Options

Vector = NDArray[np.float64]
_LEFT_OUT, _RECORDS = -2, -1


@dataclass(frozen=True)
class _Layout:
    """Where the upper triangle of [Z, y]'[Z, y] is found. p columns, the response last.

    center, scale: (p + 1,) so that (value - center) / scale lies within `bound`, (p + 1,). slots: (p + 1, p + 1), index
    into the released products, _RECORDS for n, _LEFT_OUT for what is always 0. pairs: (entries, 2) of the released.
    """

    center: Vector
    scale: Vector
    bound: Vector
    slots: NDArray[np.int64]
    pairs: NDArray[np.int64]


def parts(question: "Question[Options]", design: Design) -> Mapping[str, Part]:
    """records: (), n. products: (entries,), sums of products of two columns within [-1, 1].

    Raises UsageError where a column or the response has no bounds, and on weights, robust errors and sample designs.
    """
    options = question.options
    if options.weight is not None or options.robust != "none" or options.design:
        raise UsageError("privacy: got weight, robust or design; want a private regression without them")
    layout = _layout(design)
    bound = np.prod(layout.bound[layout.pairs], axis=1)
    return {
        "records": Part(integer=True, bound=1, share=1.0, what=Counts()),
        "products": Part(bound.shape, bound=bound, share=float(max(1, len(bound))), what=Product()),
    }


def contribute(table: Table, question: "Question[Options]", design: Design) -> Arrays:  # noqa: ARG001
    """What `parts` announces, over the records complete in the columns of the formula."""
    layout = _layout(design)
    complete = table.complete(design.columns)
    values = [*design.expressions(complete), design.response_expression(complete)]
    scaled = [(value - real(c)) / real(s) for value, c, s in zip(values, layout.center, layout.scale, strict=True)]
    products = cross_products(complete, scaled)
    return {
        "records": np.array(complete.aggregate(n=complete.expr.count())["n"], np.int64),
        "products": products[layout.pairs[:, 0], layout.pairs[:, 1]],
    }


def coordinate(question: "Question[Options]", design: Design) -> Coordination:  # noqa: ARG001
    """One ask, "adassp". Raises UsageError when the noisy number of records is not above the number of parameters."""
    total = yield Ask("adassp")
    layout, p = _layout(design), len(design.names)
    n = int(total["records"])
    if n <= p:
        raise UsageError(f"formula: got about {n} complete records for {p} parameters; want more records or epsilon")
    moments = _matrix(layout, total, n)
    fit = _fit(layout, total, moments, n)
    back = design.back(layout.center[:p], layout.scale[:p]) * layout.scale[p]
    beta, covariance = back @ fit.coefficients, back @ fit.covariance @ back.T
    beta[list(design.constant)] += layout.center[p]
    df = float(n - p)
    rows = coefficient_rows(design.names, beta, covariance, "t", df)
    notes = [
        "AdaSSP: coefficients from one noisy release; std_error includes sampling and noise by the delta method",
        "observations includes noise; the residual variance is kept above the size of its own noise",
    ]
    if fit.ridge > 0.0:
        notes.append("ridge: noise is large beside the data, so coefficients are shrunk and intervals are approximate")
    facts: dict[str, Scalar] = {
        "observations": n,
        "residual_df": n - p,
        "r_squared": _r_squared(moments, design, fit.rss, n),
        "sigma": float(np.sqrt(fit.variance) * layout.scale[p]),
        "ridge": fit.ridge,
    }
    title = f"Private OLS regression: {design.formula}"
    basis = {"coefficients": coefficient_basis("t", "residual_df")}
    tables = {"coefficients": rows}
    return Result("ols", title, tables, facts, tuple(notes), df=df, basis=basis, observations="observations")


def _r_squared(moments: Vector, design: Design, rss: float, n: int) -> float | None:
    """1 - residual over total variation (around the mean if the model holds the constant), kept within 0 and 1."""
    total = float(moments[-1, -1] - moments[list(design.constant), -1].sum() ** 2 / n)
    return min(1.0, max(0.0, 1.0 - rss / total)) if total > 0.0 else None


@dataclass(frozen=True)
class _Fit:
    """In scaled units. coefficients: (p,); covariance: (p, p); variance, rss: of residuals; ridge: lambda."""

    coefficients: Vector
    covariance: Vector
    variance: float
    rss: float
    ridge: float


def _fit(layout: _Layout, total: Total, moments: Vector, n: int) -> _Fit:
    p = len(moments) - 1
    gram, cross = moments[:p, :p], moments[:p, p]
    noise = np.concatenate([np.ravel(total.noise["products"]), [float(total.noise["records"])]])
    eigenvalues = np.linalg.eigvalsh(gram)
    ridge = max(0.0, _spectral(layout, noise, p) - float(eigenvalues[0]))
    if eigenvalues[0] + ridge <= 1e-10 * max(eigenvalues[-1], 1.0):
        raise UsageError("formula: got columns that are linearly dependent; want fewer of them")
    inverse = np.linalg.inv(gram + ridge * np.eye(p))
    b = inverse @ cross
    extended = np.append(-b, 1.0)
    # each released number moves e - E b linearly, and the residual sum of squares by its coefficient in x'Mx
    moves, squares = np.zeros((p, len(noise))), np.zeros(len(noise))
    for i in range(p + 1):
        for j in range(p + 1):
            slot = int(layout.slots[min(i, j), max(i, j)])
            if slot != _LEFT_OUT:
                squares[slot] += extended[i] * extended[j]
                if i < p:
                    moves[i, slot] += extended[j]
    of_noise = (moves * noise**2) @ moves.T
    rss = float(extended @ moments @ extended + np.trace(inverse @ of_noise))
    rss = max(rss, float(np.sqrt(np.sum((squares * noise) ** 2))), 0.0)
    variance = rss / (n - p)
    shrunk = ridge * (inverse @ b)
    covariance = inverse @ (variance * gram + of_noise) @ inverse + np.diag(shrunk**2)
    return _Fit(b, covariance, variance, rss, ridge)


def _spectral(layout: _Layout, noise: Vector, p: int) -> float:
    """A bound on the spectral norm of the noise in Z'Z: twice the largest row plus the largest entry's deviation."""
    slots = layout.slots[:p, :p]
    std = np.triu(np.where(slots == _LEFT_OUT, 0.0, noise[np.maximum(slots, _RECORDS)]))
    std = std + np.triu(std, 1).T
    return float(2.0 * np.sqrt((std**2).sum(axis=1)).max() + std.max() * np.sqrt(2.0 * np.log(40.0 * p)))


def _matrix(layout: _Layout, total: Total, n: int) -> Vector:
    """[Z, y]'[Z, y], (p + 1, p + 1), from what was released."""
    released = np.concatenate([total["products"], [float(n)]])
    upper = np.triu(np.where(layout.slots == _LEFT_OUT, 0.0, released[np.maximum(layout.slots, _RECORDS)]))
    return upper + np.triu(upper, 1).T


def _layout(design: Design) -> _Layout:
    low, high = design.response_bounds
    if not design.total or not np.isfinite([*design.bounds.ravel(), low, high]).all():
        unknown = [n for n, ends in zip(design.names, design.bounds, strict=True) if not np.isfinite(ends).all()]
        unknown += [design.response] if not np.isfinite([low, high]).all() else []
        raise UsageError(f"privacy: got no bounds for {', '.join(unknown) or 'the formula'}; want low and high for it")
    center, scale = design.scaling()
    middle, half = ((low + high) / 2, (high - low) / 2) if design.constant else (0.0, max(abs(low), abs(high)))
    if half <= 0.0:
        raise UsageError(f"privacy: {design.response}: got bounds {low:g} to {high:g}; want an interval")
    center, scale = np.append(center, middle), np.append(scale, half)
    ends = np.vstack([design.bounds, [low, high]])
    bound = np.abs((ends - center[:, None]) / scale[:, None]).max(axis=1)
    slots, pairs = _slots(design)
    return _Layout(center, scale, bound, slots, pairs)


def _slots(design: Design) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    p = len(design.names)
    slots = np.full((p + 1, p + 1), _LEFT_OUT, np.int64)
    one = design.names.index(INTERCEPT) if INTERCEPT in design.names else None
    cells = [{category.column: code for category, code in term.cells} for term in design.terms]
    pairs: list[tuple[int, int]] = []
    for i in range(p + 1):
        for j in range(i, p + 1):
            if i == j == one:
                slots[i, j] = _RECORDS
            elif j < p and any(cells[i][c] != cells[j][c] for c in cells[i].keys() & cells[j].keys()):
                continue
            elif i != j or one is None or i == p or not design.indicator[i]:
                slots[i, j] = len(pairs)
                pairs.append((i, j))
    for i in range(p):
        if one is not None and i != one and design.indicator[i]:
            slots[i, i] = slots[min(i, one), max(i, one)]
    return slots, np.array(pairs, np.int64).reshape(-1, 2)
