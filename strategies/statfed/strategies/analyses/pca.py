"""`pca`: principal components of columns, from the covariance or correlation matrix of their complete records.

The matrix is formed from two protected sums and decomposed at the coordinator; scores are values of records and are
never computed. Variances have divisor n - 1. A component's sign is such that its largest loading in absolute value is
positive; where several are equally large, the first of them.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Coordination, Model, Part, Question
from statfed.core.result import Basis, Result, Row
from statfed.core.section import Section
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses import _products
from statfed.strategies.analyses._records import left_out, looked_at

TITLE = "Principal components of columns: eigenvalues, explained variance, loadings"
GROUP = "Models"
PUSHES_DOWN = "all"

_TIE = 1e-8  # loadings or eigenvalues closer than this, relative to the largest, count as equal


class Options(Section):
    """Options of pca."""

    columns: tuple[str, ...] = Field(min_length=2, description="numeric columns; records complete in all are used")
    scale: bool = Field(default=False, description="scale columns to variance 1: components of the correlation matrix")
    components: int | None = Field(default=None, ge=1, description="number of components; default all")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    m.check_columns(question.codebook, options.columns)
    if options.components is not None and options.components > len(options.columns):
        raise UsageError(f"pca: components: got {options.components}; want {len(options.columns)} at most")
    return options.columns


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    return _products.product_parts(
        [question.codebook.columns[name].bounds for name in question.options.columns], ask, "pca"
    )


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    complete = table.complete(question.options.columns)
    found = _products.products(complete, [complete.number(name) for name in question.options.columns], ask)
    return {**found, **looked_at(table)} if ask.name == "means" else found


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    return [real(1.0), *(table.number(name) for name in question.options.columns)]


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    complete = table.complete(question.options.columns)
    numbers = [complete.number(name) for name in question.options.columns]
    return _products.weighs(complete, numbers, ask)


def discloses(question: Question[Options], ask: Ask) -> Model:  # noqa: ARG001
    k = len(question.options.columns)
    return Model(k + k * (k + 1) // 2, question.options.columns)


def coordinate(question: Question[Options]) -> Coordination:
    options = question.options
    first = yield Ask("means")
    n = int(first["count"])
    if n < 2:
        raise UsageError(f"pca: got {n} records complete in {', '.join(options.columns)}; want at least 2")
    second = yield Ask("products", {"centre": m.centres(first)})
    matrix = _products.covariance_matrix(first, second)
    deviation = np.sqrt(np.diag(matrix))
    constant = [name for name, d in zip(options.columns, deviation, strict=True) if d == 0]
    if options.scale and constant:
        raise UsageError(f"pca: {', '.join(constant)}: got no variation; want columns that vary, or scale off")
    if len(constant) == len(options.columns):
        raise UsageError(f"pca: {', '.join(constant)}: got no variation; want columns that vary")
    if options.scale:
        matrix = matrix / deviation[:, None] / deviation
    values, loadings = decompose(matrix)
    kept = options.components or len(values)
    share = values / values.sum()
    components: list[Row] = [
        {
            "component": i + 1,
            "eigenvalue": float(values[i]),
            "explained": float(share[i]),
            "cumulative": float(min(1.0, share[: i + 1].sum())),
        }
        for i in range(kept)
    ]
    rows: list[Row] = [
        {"name": name, "component": i + 1, "loading": float(loadings[j, i])}
        for i in range(kept)
        for j, name in enumerate(options.columns)
    ]
    of = "correlation" if options.scale else "covariance"
    notes = [f"components of the {of} matrix of complete records; scores are values of records and are not computed"]
    if np.any(-np.diff(values[: kept + 1]) <= _TIE * values[0]):
        notes.append("eigenvalues that are equal do not determine their loadings beyond the space that they span")
    facts = {
        "observations": n,
        "missing": left_out(first, n),
        "total_variance": float(values.sum()),
        "scale": options.scale,
    }
    basis = {
        "components": Basis(keys=("component",), observations=True, own=("eigenvalue", "explained", "cumulative")),
        "loadings": Basis(keys=("name", "component"), observations=True, own=("loading",)),
    }
    return Result(
        "pca",
        "Principal components",
        {"components": components, "loadings": rows},
        facts,
        tuple(notes),
        basis=basis,
        observations="observations",
        numbers=("missing",),
        public=("scale",),
    )


def decompose(matrix: m.Floats) -> tuple[m.Floats, m.Floats]:
    """Eigenvalues, largest first and never negative, and eigenvectors as columns with the sign stated above."""
    ascending, vectors = np.linalg.eigh(matrix)
    values, vectors = np.maximum(ascending[::-1], 0.0), vectors[:, ::-1]
    size = np.abs(vectors)
    leading = np.argmax(size >= size.max(axis=0) * (1 - _TIE), axis=0)
    return values, vectors * np.where(vectors[leading, np.arange(len(values))] < 0, -1.0, 1.0)
