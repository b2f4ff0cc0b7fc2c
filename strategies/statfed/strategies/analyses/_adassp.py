"""Differentially private OLS from perturbed sufficient statistics (after AdaSSP: Wang 2018, algorithm 2).

One noisy release of n, Z'Z, Z'y and y'y of columns and response brought into [-1, 1] by the codebook's bounds, so that
noise is equally large in all of them. What follows from other entries is not released again: the intercept's square is
n, an indicator's square its sum, and two levels of one category never meet; and since a record is at one level of each
category, it changes one entry of all that differ in the level alone (`Part.together`), so that levels cost nothing.
That holds since columns of a level, interactions with numbers too, are 0 at all other levels: they are scaled and never
centred.
From these numbers alone:

- *Columns that the release says nothing of.* Where data say less than the noise, as of a rare level or a column whose
  bounds are wide beside its values, no interval of finite length covers (Gleser and Hwang 1987), and what a ridge or a
  floor gives is a coefficient near 0 with a small error. So columns are taken in the order of the formula, and one with
  which the least eigenvalue of Z'Z is below CLEAR standard deviations of its noise is left out, as R leaves out those
  that are collinear: its coefficient is withheld, and a note says that the others are of the regression without it.
- *Bias.* (Z'Z + E)^-1 (Z'y + e) is biased, as with errors in variables (Fuller 1987, section 2.2). The bias, and the
  variance that noise causes, are those of DRAWS fits of what was found with noise drawn anew (parametric bootstrap of
  the release; Ferrando, Wang and Sheldon 2022), in pairs of opposite sign, eigenvalues kept above FLOOR standard
  deviations; the bias is taken off.
- *Variance*: sampling, sigma^2 times the inverse of Z'Z, plus that of the noise, plus the square of the bias that was
  taken off (it is itself an estimate). sigma^2 is the noisy residual sum of squares, freed from the part that noise has
  fitted, over n - p, and at least the deviation of its noise over n - p.
- *Limits.* The error of b = v / l, both with noise of deviation s, is skewed where l is not many s. Fieller's 95 % set
  (1954), |l b' - v| <= 1.96 s sqrt(1 + b'^2), lies within b -+ 1.96 s sqrt(1 + b^2) / (l - 1.96 s), since the root
  changes by at most |b' - b|. So deviations that the noise causes are multiplied by l / (l - 1.96 s) along each
  eigenvector of Z'Z, l its eigenvalue: symmetric limits then contain his.

What is left: a coefficient is shown where noise has made its eigenvalue large, so one that is shown in part of all
releases is too near 0 on average, by up to half a standard error. `benchmarks/private_ols.py` has the bias and the
coverage on eleven designs.
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
CLEAR, FLOOR, DRAWS, NORMAL = 3.0, 1.5, 400, 1.96


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
    fit = _fit(layout, total, moments, n, design.constant)
    back = (design.back(layout.center[:p], layout.scale[:p]) * layout.scale[p])[np.ix_(fit.kept, fit.kept)]
    beta = back @ fit.coefficients
    beta[[fit.kept.index(j) for j in design.constant if j in fit.kept]] += layout.center[p]
    df = float(n - len(fit.kept))
    names = [design.names[j] for j in fit.kept]
    found = {row["name"]: row for row in coefficient_rows(names, beta, back @ fit.covariance @ back.T, "t", df)}
    unknown = dict.fromkeys(("estimate", "std_error", "t", "p_value"))
    rows = [found.get(name, {"name": name, **unknown}) for name in design.names]
    notes = [
        "coefficients from one noisy release, less the bias that its noise causes; std_error includes sampling, noise",
        "observations includes noise; the residual variance is kept above the size of its own noise",
        *_withheld(design, fit.kept),
    ]
    facts: dict[str, Scalar] = {
        "observations": n,
        "residual_df": n - len(fit.kept),
        "r_squared": _r_squared(moments, design, fit.rss, n) if fit.kept else None,
        "sigma": float(np.sqrt(fit.variance) * layout.scale[p]) if fit.kept else None,
    }
    title = f"Private OLS regression: {design.formula}"
    basis = {"coefficients": coefficient_basis("t", "residual_df")}
    tables = {"coefficients": rows}
    return Result("ols", title, tables, facts, tuple(notes), df=df, basis=basis, observations="observations")


def _withheld(design: Design, kept: tuple[int, ...]) -> list[str]:
    lost = ", ".join(name for j, name in enumerate(design.names) if j not in kept)
    if not lost:
        return []
    others = "those shown are of the regression without them" if kept else "none can be shown without them"
    return [
        f"withheld: {lost}: the noise is too large beside what the records say about them (few records, bounds wide "
        f"beside the values, or columns that go together); {others}"
    ]


def _r_squared(moments: Vector, design: Design, rss: float, n: int) -> float | None:
    """1 - residual over total variation (around the mean if the model holds the constant), kept within 0 and 1."""
    total = float(moments[-1, -1] - moments[list(design.constant), -1].sum() ** 2 / n)
    return min(1.0, max(0.0, 1.0 - rss / total)) if total > 0.0 else None


@dataclass(frozen=True)
class _Fit:
    """In scaled units, of the k columns that are kept. coefficients: (k,); covariance: (k, k); variance, rss: of
    residuals."""

    kept: tuple[int, ...]
    coefficients: Vector
    covariance: Vector
    variance: float
    rss: float


def _fit(layout: _Layout, total: Total, moments: Vector, n: int, constant: tuple[int, ...]) -> _Fit:
    """constant: the columns that span it. Raises UsageError on linearly dependent columns without noise."""
    p = len(moments) - 1
    noise = np.concatenate([np.ravel(total.noise["products"]), [float(total.noise["records"])]])
    floor = FLOOR * float(np.max(noise, initial=0.0))
    kept = _kept(moments[:p, :p], layout.slots[:p, :p], noise, constant) if floor > 0.0 else tuple(range(p))
    if not kept:
        return _Fit((), np.zeros(0), np.zeros((0, 0)), 0.0, 0.0)
    at, p = [*kept, p], len(kept)
    moments, slots = moments[np.ix_(at, at)], layout.slots[np.ix_(kept, kept)]
    values, vectors = np.linalg.eigh(moments[:p, :p])
    if values[0] <= 1e-10 * max(values[-1], 1.0):
        raise UsageError("formula: got columns that are linearly dependent; want fewer of them")
    b, inverse = (found[0] for found in solved(moments[None], 0.0))
    extended = np.append(-b, 1.0)
    rss, bias, of_noise = float(extended @ moments @ extended), np.zeros(p), np.zeros((p, p))
    if floor > 0.0:
        added = drawn(layout, noise)[:, at][:, :, at]
        moved = solved(moments + added, floor)[0] - b
        bias = moved.mean(axis=0)
        wider = (vectors * (values / (values - NORMAL * _along(slots, noise, vectors)))) @ vectors.T
        of_noise = wider @ np.cov(moved.T).reshape(p, p) @ wider
        fitted = added[:, :p] @ extended
        rss += float(np.einsum("di,ij,dj->", fitted, inverse, fitted)) / len(fitted)
        rss = max(rss, float(np.std(np.einsum("i,dij,j->d", extended, added, extended))), 0.0)
    variance = rss / (n - p)
    return _Fit(kept, b - bias, variance * inverse + of_noise + np.outer(bias, bias), variance, rss)


def _kept(gram: Vector, slots: NDArray[np.int64], noise: Vector, constant: tuple[int, ...]) -> tuple[int, ...]:
    """Columns of which the release says more than its noise, in the order of the formula: with each of them all
    eigenvalues of Z'Z are at least CLEAR standard deviations of the noise along their eigenvectors. None where one of
    those that span the constant is not, since the others are taken less their centres."""
    kept: list[int] = []
    for j in range(len(gram)):
        at = [*kept, j]
        values, vectors = np.linalg.eigh(gram[np.ix_(at, at)])
        if (values >= CLEAR * _along(slots[np.ix_(at, at)], noise, vectors)).all():
            kept = at
        elif j in constant:
            return ()
    return tuple(kept)


def _along(slots: NDArray[np.int64], noise: Vector, vectors: Vector) -> Vector:
    """Standard deviations of the noise v'Ev along each of `vectors`, (p, k): (k,). noise: of `spread`'s `released`."""
    i, j = np.nonzero(slots != _LEFT_OUT)
    by = np.zeros((len(noise), vectors.shape[1]))
    np.add.at(by, slots[i, j], np.where(i == j, 1.0, 2.0)[:, None] * vectors[i] * vectors[j])
    found: Vector = np.sqrt(((noise[:, None] * by) ** 2).sum(axis=0))
    return found


def solved(moments: Vector, floor: float) -> tuple[Vector, Vector]:
    """Coefficients (draws, p) and inverse (draws, p, p) of Z'Z with eigenvalues of at least `floor`, of moments
    (draws, p + 1, p + 1)."""
    p = moments.shape[-1] - 1
    values, vectors = np.linalg.eigh(moments[:, :p, :p])
    inverse = (vectors / np.maximum(values, floor)[:, None, :]) @ np.swapaxes(vectors, 1, 2)
    b: Vector = np.einsum("dij,dj->di", inverse, moments[:, :p, p])
    return b, inverse


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
    away = np.array([bool(term.cells) for term in design.terms])
    center = np.where(away, 0.0, center)
    furthest = np.abs(design.bounds).max(axis=1)
    scale = np.where(away & (furthest > 0.0), furthest, scale)
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
