"""Covariance matrices in two protected sums over complete records: means first, then products of the deviations.

Symmetric matrices travel as their upper triangle, row by row. As in `_moments`, what the rounding of the means leaves
over is removed with the sums of the deviations.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Counts, Magnitude, Part, Product
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Rows, Weighed
from statfed.strategies.analyses._moments import Bounds, Floats, centres, largest, reach
from statfed.strategies.analyses._records import looked_at_part


def pair(columns: int, i: int, j: int) -> int:
    """Place of the pair i <= j in the upper triangle, row by row."""
    return i * columns - i * (i - 1) // 2 + j - i


def symmetric(flat: Floats, columns: int) -> Floats:
    """The symmetric matrix with this upper triangle."""
    matrix = np.zeros((columns, columns))
    first, second = np.triu_indices(columns)
    matrix[first, second] = matrix[second, first] = flat
    return matrix


def product_parts(bounds: Sequence[Bounds], ask: Ask, analysis: str) -> dict[str, Part]:
    """Parts of the two asks of a covariance matrix, `means` and `products`, over complete records."""
    count = Part(bound=1.0, integer=True, single=True, what=Counts())
    if ask.name == "means":
        limits = np.array([largest(b) for b in bounds])
        summed = Part(limits.shape, limits, what=Magnitude("count"))
        return {"count": count, "sum": summed, **looked_at_part("count")}
    if ask.name == "products":
        wide = reach(bounds, ask.arrays["centre"])
        first, second = np.triu_indices(len(bounds))
        return {
            "count": count,
            "sum": Part(wide.shape, wide, what=Magnitude("count")),
            "products": Part(first.shape, wide[first] * wide[second], what=Product()),
        }
    raise UsageError(f"{analysis}: unknown ask: got {ask.name!r}; want means or products")


def products(complete: Table, numbers: Sequence[Expr], ask: Ask) -> Arrays:
    """Contribution to `products`, or to `means` but for `looked_at`; numbers are columns of `complete`, without missing
    values.

    count: (); sum: (columns,), of the deviations from `centre` in `products`; products: (pairs,) of the deviations.
    """
    centre = ask.arrays["centre"] if ask.name == "products" else None
    values = numbers if centre is None else [x - real(c) for x, c in zip(numbers, centre, strict=True)]
    asked: dict[str, Expr] = {"count": complete.expr.count()}
    asked |= {f"sum_{i}": x.sum() for i, x in enumerate(values)}
    pairs = list(combinations_with_replacement(range(len(values)), 2)) if centre is not None else []
    asked |= {f"product_{i}_{j}": (values[i] * values[j]).sum() for i, j in pairs}
    found = complete.aggregate(**asked)
    sent: dict[str, NDArray[np.int64] | Floats] = {
        "count": np.array(found["count"], np.int64),
        "sum": np.array([found[f"sum_{i}"] for i in range(len(values))], np.float64),
    }
    if centre is not None:
        sent["products"] = np.array([found[f"product_{i}_{j}"] for i, j in pairs], np.float64)
    return sent


def weighs(complete: Table, numbers: Sequence[Expr], ask: Ask) -> Iterator[Weighed]:
    """How records weigh in the sums of `products`, whose centre does not matter to the span."""
    if ask.name == "products":
        centre = np.asarray(ask.arrays["centre"], np.float64)
        numbers = [x - real(float(c)) for x, c in zip(numbers, centre, strict=True)]
    yield Rows(complete, (real(1.0), *numbers))


def covariance_matrix(first: Arrays, second: Arrays) -> Floats:
    """Covariances (divisor n - 1) from the totals of both asks; NaN with fewer than two records.

    Rows and columns of columns whose values do not differ beyond rounding are exactly 0.
    """
    n = int(first["count"])
    k = len(first["sum"])
    if n < 2:
        return np.full((k, k), np.nan)
    shift = second["sum"] / n
    matrix = symmetric(second["products"], k) - n * np.outer(shift, shift)
    mean = centres(first) + shift
    constant = np.diag(matrix) <= n * (4 * np.finfo(float).eps * np.abs(mean)) ** 2
    matrix[constant, :] = 0.0
    matrix[:, constant] = 0.0
    covariances: Floats = matrix / (n - 1)
    return covariances
