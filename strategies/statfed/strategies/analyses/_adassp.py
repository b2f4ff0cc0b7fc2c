"""Differentially private OLS from perturbed sufficient statistics (after AdaSSP: Wang 2018, algorithm 2).

One noisy release of n, Z'Z, Z'y and y'y of columns and response brought into [-1, 1] by the codebook's bounds, so that
noise is equally large in all of them. What follows from other entries is not released again: the intercept's square is
n, an indicator's square its sum, and two levels of one category never meet; and since a record is at one level of each
category, it changes one entry of all that differ in the level alone (`Part.together`), so that levels cost nothing.
From these numbers alone:

- *Floor, no ridge.* Eigenvalues of the noisy Z'Z below FLOOR standard deviations of its noise are set to that: only the
  directions about which the data say less than the noise are shrunk, such as that of a rare level. (AdaSSP's ridge is
  added to every direction, and a column whose bounds are wide beside its values is shrunk by a rare level elsewhere.)
- *Bias.* (Z'Z + E)^-1 (Z'y + e) is biased, as with errors in variables (Fuller 1987, section 2.2). The bias, and the
  variance that noise causes, are those of DRAWS fits of what was found with noise drawn anew (parametric bootstrap of
  the release; Ferrando, Wang and Sheldon 2022), in pairs of opposite sign; the bias is taken off.
- *Variance*: sampling, sigma^2 H Z'Z H with H the inverse, plus that of the noise, plus the squares of the bias that
  was taken off (it is itself an estimate) and of what the floor shrinks coefficients by. sigma^2 is the noisy residual
  sum of squares, freed from the part that noise has fitted, over n - p, and at least the deviation of its noise over
  n - p.

What is left: the coefficient of a direction with less data than FLOOR standard deviations is biased by up to what the
floor takes, which its standard error includes and a note says; the others are unbiased to the third order in noise over
eigenvalue. `benchmarks/private_ols.py` has the bias and the coverage on ten designs.
"""

import math
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
FLOOR, DRAWS = 1.5, 400


@dataclass(frozen=True)
class _Layout:
    """Where the upper triangle of [Z, y]'[Z, y] is found. p columns, the response last.

    center, scale: (p + 1,) so that (value - center) / scale lies within `bound`, (p + 1,). slots: (p + 1, p + 1), index
    into the released products, _RECORDS for n, _LEFT_OUT for what is always 0. pairs: (entries, 2) of the released, of
    which a record changes `most`.
    """

    center: Vector
    scale: Vector
    bound: Vector
    slots: NDArray[np.int64]
    pairs: NDArray[np.int64]
    most: int


def parts(question: "Question[Options]", design: Design) -> Mapping[str, Part]:
    """records: (), n. products: (entries,), sums of products of two columns within [-1, 1].

    Raises UsageError where a column or the response has no bounds, and on weights, robust errors and sample designs.
    """
    options = question.options
    if options.weight is not None or options.robust != "none" or options.design:
        raise UsageError("privacy: got weight, robust or design; want a private regression without them")
    layout = _layout(design)
    bound, most = np.prod(layout.bound[layout.pairs], axis=1), max(1, layout.most)
    products = Part(bound.shape, bound, share=float(most), together=(most, math.sqrt(most)), what=Product())
    return {"records": Part(integer=True, bound=1, share=1.0, what=Counts()), "products": products}


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
        "coefficients from one noisy release, less the bias that its noise causes; std_error includes sampling, noise",
        "observations includes noise; the residual variance is kept above the size of its own noise",
    ]
    if fit.ridge > 0.0:
        shrunk = np.abs(back @ fit.shrunk)
        named = [
            f"{name} by about {by:.3g}"
            for name, by, spread in zip(design.names, shrunk, np.diag(covariance), strict=True)
            if by > 0.1 * math.sqrt(spread)
        ]
        notes.append(
            "ridge: in some directions noise is large beside the data, and coefficients are shrunk there"
            + (f" ({', '.join(named)}; std_error includes it)" if named else ", by little beside their std_error")
        )
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
    """In scaled units. coefficients: (p,); covariance: (p, p); shrunk: (p,), by the floor; variance, rss: of residuals;
    ridge: the most that was added to an eigenvalue."""

    coefficients: Vector
    covariance: Vector
    shrunk: Vector
    variance: float
    rss: float
    ridge: float


def _fit(layout: _Layout, total: Total, moments: Vector, n: int) -> _Fit:
    p = len(moments) - 1
    noise = np.concatenate([np.ravel(total.noise["products"]), [float(total.noise["records"])]])
    floor = FLOOR * float(np.max(noise, initial=0.0))
    eigenvalues = np.linalg.eigvalsh(moments[:p, :p])
    if max(eigenvalues[0], floor) <= 1e-10 * max(eigenvalues[-1], 1.0):
        raise UsageError("formula: got columns that are linearly dependent; want fewer of them")
    b, inverse, gram = (found[0] for found in solved(moments[None], floor))
    shrunk = inverse @ ((gram - moments[:p, :p]) @ b)
    extended = np.append(-b, 1.0)
    regular = moments.copy()
    regular[:p, :p] = gram
    rss, bias, of_noise = float(extended @ regular @ extended), np.zeros(p), np.zeros((p, p))
    if floor > 0.0:
        added = drawn(layout, noise)
        moved = solved(regular + added, floor)[0] - b
        bias, of_noise = moved.mean(axis=0), np.cov(moved.T).reshape(p, p)
        fitted = added[:, :p] @ extended
        rss += float(np.einsum("di,ij,dj->", fitted, inverse, fitted)) / len(fitted)
        rss = max(rss, float(np.std(np.einsum("i,dij,j->d", extended, added, extended))), 0.0)
    variance = rss / (n - p)
    covariance = inverse @ (variance * gram) @ inverse + of_noise + np.outer(bias, bias) + np.diag(shrunk**2)
    return _Fit(b - bias, covariance, shrunk, variance, rss, max(0.0, floor - float(eigenvalues[0])))


def solved(moments: Vector, floor: float) -> tuple[Vector, Vector, Vector]:
    """Coefficients (draws, p), inverse and Z'Z itself (draws, p, p) with eigenvalues of at least `floor`, of moments
    (draws, p + 1, p + 1)."""
    p = moments.shape[-1] - 1
    values, vectors = np.linalg.eigh(moments[:, :p, :p])
    values = np.maximum(values, floor)[:, None, :]
    across = np.swapaxes(vectors, 1, 2)
    inverse = (vectors / values) @ across
    b: Vector = np.einsum("dij,dj->di", inverse, moments[:, :p, p])
    return b, inverse, (vectors * values) @ across


def drawn(layout: _Layout, noise: Vector) -> Vector:
    """DRAWS draws of the noise in the moments, (DRAWS, p + 1, p + 1), in pairs of opposite sign; always the same."""
    half = np.random.default_rng(0).normal(size=(DRAWS // 2, len(noise))) * noise
    return spread(layout, np.concatenate([half, -half]))


def spread(layout: _Layout, released: Vector) -> Vector:
    """[Z, y]'[Z, y], (draws, p + 1, p + 1), from released products and numbers of records, (draws, entries + 1)."""
    upper = np.triu(np.where(layout.slots == _LEFT_OUT, 0.0, released[:, np.maximum(layout.slots, _RECORDS)]))
    both: Vector = upper + np.swapaxes(np.triu(upper, 1), 1, 2)
    return both


def _matrix(layout: _Layout, total: Total, n: int) -> Vector:
    """[Z, y]'[Z, y], (p + 1, p + 1), from what was released."""
    moments: Vector = spread(layout, np.concatenate([total["products"], [float(n)]])[None])[0]
    return moments


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
    return _Layout(center, scale, bound, slots, pairs, _most(design, pairs))


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


def _most(design: Design, pairs: NDArray[np.int64]) -> int:
    """How many of the released products a record can change: of columns that differ in the codes of categories alone it
    is in one."""
    families = [
        (tuple(sorted(x.text for x in term.numbers)), tuple(sorted(c.column for c, _ in term.cells)), term.scale)
        for term in design.terms
    ]
    response: tuple[tuple[str, ...], tuple[str, ...], float] = ((), ("",), 0.0)
    of = [*families, response]
    return len({tuple(sorted((of[i], of[j]))) for i, j in pairs.tolist()})
