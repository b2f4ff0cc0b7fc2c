"""What regressions share: the first ask, columns that are centred before they are multiplied, linear algebra, rows.

The first ask counts records and levels and adds up the numeric expressions of the formula. From it both ends build the
same `Basis`: levels without records are left out, and every numeric expression is taken less its mean wherever the
model holds the lower-order columns that take up the difference, so that cross-products lose no digits.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, stats

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Counts, Magnitude, Part, Total
from statfed.core.result import Basis as Grounds
from statfed.core.result import Coefficients, Row
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._formula import LARGEST, Category, Number, at_level
from statfed.strategies.analyses._matrix import INTERCEPT, Design, make_design
from statfed.strategies.analyses._records import looked_at_part

Vector = NDArray[np.float64]
ALIASED = 1e-12  # share of a column's variance that must be left given the columns before it
CONSTANT = 1e-28  # share of a column's mean square that must be variance: 45 steps of float64 in a standard deviation
SMALLEST = 1e-280  # sum of squares whose inverse, a variance, float64 still holds with all its digits


@dataclass(frozen=True)
class Basis:
    """Columns that span what the design's columns span, numerically far apart.

    design: with the levels in use. shifts: per column, subtracted from each of its numeric expressions. matrix:
    (p, p), T with beta = T b for coefficients b of the columns here. free: indices, among [1, columns less the
    intercept], of the p columns that the model has; the leading 1 is there for the response's total in any case.
    size: number of `expressions`, also of those that `identified` leaves out.
    """

    design: Design
    shifts: tuple[tuple[float, ...], ...]
    matrix: Vector
    free: tuple[int, ...]
    size: int

    def expressions(self, table: Table) -> list[Expr]:
        """[1, columns less the intercept]."""
        pairs = zip(self.design.terms, self.shifts, strict=True)
        return [real(1.0), *(term.expression(table, c) for term, c in pairs if term.name != INTERCEPT)]

    def without(self, left_out: Collection[int]) -> "Basis":
        """The basis of the model without these columns. What `expressions` gives stays the same: holders send all."""
        kept = [j for j in range(len(self.free)) if j not in left_out]
        design = replace(
            self.design,
            names=tuple(self.design.names[j] for j in kept),
            bounds=self.design.bounds[kept],
            indicator=self.design.indicator[kept],
            constant=tuple(kept.index(j) for j in self.design.constant if j in kept),
            terms=tuple(self.design.terms[j] for j in kept),
        )
        shifts, free = (tuple(each[j] for j in kept) for each in (self.shifts, self.free))
        return Basis(design, shifts, self.matrix[np.ix_(kept, kept)], free, self.size)  # type: ignore[arg-type]

    @property
    def bound(self) -> Vector:
        """Largest absolute value of each of `expressions`."""
        largest = [1.0]
        for term, shifts in zip(self.design.terms, self.shifts, strict=True):
            if term.name != INTERCEPT:
                ends = [max(abs(x.low - c), abs(x.high - c)) for x, c in zip(term.numbers, shifts, strict=True)]
                largest.append(abs(term.scale) * float(np.prod(ends)))
        return np.array(largest)


def start_parts(design: Design) -> dict[str, Part]:
    """records complete, of those `looked_at`; those with `defined` values, counts of all levels, and sums of the
    numeric expressions and response; of a design with `marks` the records of each, which are cells as levels are."""
    numbers = [*design.numbers, design.left]
    bound = np.array([max(abs(x.low), abs(x.high)) for x in numbers if x is not None])
    return {
        "records": Part(integer=True, bound=1, what=Counts()),
        "defined": Part(integer=True, bound=1, what=Counts()),
        "levels": Part((len(_codes(design)),), integer=True, bound=1, what=Counts(tuple(design.categories))),
        "sums": Part(bound.shape, bound=bound, what=Magnitude("records")),
        **({"marks": Part((len(design.marks),), integer=True, bound=1, what=Counts())} if design.marks else {}),
        **looked_at_part("records"),
    }


def start_contribution(table: Table, design: Design) -> Arrays:
    """What `start_parts` announces, but `looked_at`. table: its records complete in what is read."""
    count = table.expr.count()
    asked: dict[str, Expr] = {"records": count, "defined": count if design.total else design.defined(table)}
    for i, (column, code) in enumerate(_codes(design)):
        asked[f"level_{i}"] = _coded(table, column, code).cast("int32").sum()
    values = [number.build(table) for number in design.numbers] + [design.response_expression(table)]
    for i, value in enumerate(values):
        inside = value if design.total else (value.abs() <= LARGEST).ifelse(value, real(0.0))
        asked[f"sum_{i}"] = inside.sum()
    for i, (column, mark) in enumerate(design.marks):
        here = table[column].isnull() if mark is None else _coded(table, column, mark).fill_null(False)
        asked[f"mark_{i}"] = here.ifelse(1, 0).sum()
    found = table.aggregate(**asked)
    marks = np.array([int(found[f"mark_{i}"]) for i in range(len(design.marks))], np.int64)
    return {
        **({"marks": marks} if design.marks else {}),
        "records": np.array(found["records"], np.int64),
        "defined": np.array(found["defined"], np.int64),
        "levels": np.array([int(found[f"level_{i}"]) for i in range(len(_codes(design)))], np.int64),
        "sums": np.array([found[f"sum_{i}"] for i in range(len(values))], np.float64),
    }


def read_start(total: Total, design: Design) -> tuple[int, Vector, NDArray[np.int64], tuple[str, ...]]:
    """Records, means of the numeric expressions and the response, which levels occur, and notes on those that do not.

    Raises UsageError without records, or when some have no value of an expression in the formula.
    """
    n = int(total["records"])
    if n == 0:
        raise UsageError(f"formula: got no records that are complete in {', '.join(design.complete)}; want some")
    if int(total["defined"]) < n:
        raise UsageError(
            f"formula: got records at which an expression of {design.formula!r} has no finite value (the logarithm or "
            "root of a negative number, a division by 0); want where conditions or another formula"
        )
    present = (total["levels"] > 0).astype(np.int64)
    absent: dict[str, list[str]] = {}
    for (column, code), there in zip(_codes(design), present, strict=True):
        if not there:
            absent.setdefault(column, []).append(code)
    notes = tuple(f"{column}: no records at {', '.join(codes)}; left out" for column, codes in absent.items())
    return n, total["sums"] / n, present, notes


def make_basis(design: Design, codebook: Codebook, ask: Ask) -> Basis:
    """The basis that both ends build from the arrays `mean` and `present` of an ask."""
    there = [pair for pair, present in zip(_codes(design), ask.arrays["present"], strict=True) if present]
    levels = {name: [code for column, code in there if column == name] for name in design.categories}
    kept = make_design(design.formula, codebook, levels, "binary", marks=True)
    mean = {x.text: float(c) for x, c in zip(design.numbers, ask.arrays["mean"], strict=False)}
    place = {_key(term.numbers, term.cells): j for j, term in enumerate(kept.terms) if term.scale == 1}
    shifts: list[tuple[float, ...]] = []
    matrix = np.eye(len(kept.names))
    for j, term in enumerate(kept.terms):
        inner = [some for k in range(len(term.numbers)) for some in combinations(term.numbers, k)]
        places = [_places(kept, place, some, term.cells) for some in inner]
        if term.scale != 1 or not all(places):
            shifts.append((0.0,) * len(term.numbers))
            continue
        shifts.append(tuple(mean[x.text] for x in term.numbers))
        for some, where in zip(inner, places, strict=True):
            matrix[list(where), j] += np.prod([-mean[x.text] for x in term.numbers if x not in some])
    others = iter(range(1, len(kept.names) + 1))
    free = tuple(0 if name == INTERCEPT else next(others) for name in kept.names)
    return Basis(kept, tuple(shifts), matrix, free, 1 + sum(name != INTERCEPT for name in kept.names))


def identified(products: Vector, basis: Basis) -> tuple[Basis, tuple[str, ...]]:
    """The basis without interactions of categories that the columns before them determine, as a cell without records
    does, and a note on those. products: as of `check_rank`, which refuses any other collinearity."""
    left_out = check_rank(products, basis, interactions=False)
    names = [basis.design.names[j] for j in left_out]
    if not names:
        return basis, ()
    note = f"{', '.join(names)}: left out, determined by the other columns (a combination of levels without records)"
    return basis.without(left_out), (note,)


def check_rank(products: Vector, basis: Basis, *, interactions: bool = True) -> list[int]:
    """products: (p, p) of the basis's free columns. Raises UsageError naming the columns of an exact collinearity.

    interactions: those of categories with each other too; otherwise their places are given back, and they are left out.

    A column is collinear when less than `ALIASED` of its sum of squares is left given the columns before it (the
    pivots of a Cholesky factorisation), or when a shifted expression does not vary beyond rounding.
    """
    names, p = basis.design.names, len(products)
    size = np.array([abs(float(np.prod(c))) if c else 0.0 for c in basis.shifts])
    diagonal = np.diag(products)
    if small := [name for name, square in zip(names, diagonal, strict=True) if 0 < square < SMALLEST]:
        raise UsageError(
            f"formula: {', '.join(small)}: values whose squares float64 does not hold (below 1e-140); want another "
            "unit, such as I(1e150 * x) of a column x"
        )
    mean_square = diagonal + diagonal[0] * size**2
    factor = np.zeros((p, p))
    left_out: list[int] = []
    root = np.sqrt(_positive(diagonal))
    scaled = products / root[:, None] / root
    for j in range(p):
        row = linalg.solve_triangular(factor[:j, :j], scaled[:j, j], lower=True) if j else np.zeros(0)
        left = scaled[j, j] - row @ row
        collinear = diagonal[j] <= 0 or left <= ALIASED or left * diagonal[j] <= CONSTANT * mean_square[j]
        needed = j in basis.design.constant and diagonal[j] > 0
        if collinear and not interactions and len(basis.design.terms[j].cells) > 1 and not needed:
            left_out.append(j)
            scaled[j, :] = scaled[:, j] = 0.0
            factor[j, j] = 1.0
            continue
        if collinear:
            if np.sum(mean_square[j]) <= 0:
                raise UsageError(
                    f"formula: {names[j]} is 0 at every record, or its squares are; want it left out, or another unit"
                )
            if 0 < diagonal[j] <= CONSTANT * mean_square[j] and left > ALIASED:
                raise UsageError(
                    f"formula: {names[j]}: spread too small beside its level (less than {np.sqrt(CONSTANT):g} of it); "
                    "want a constant subtracted from its values"
                )
            on = linalg.solve_triangular(factor[:j, :j], row, lower=True, trans="T") if j else np.zeros(0)
            relation = np.zeros(p)
            relation[: j + 1] = np.append(-on / root[:j], 1 / root[j])
            share = np.abs(basis.matrix @ relation) * np.sqrt(_positive(mean_square))
            involved = [names[i] for i in range(p) if share[i] > 1e-6 * share.max() and i != j]
            raise UsageError(
                f"formula: collinear: {names[j]} is a combination of {', '.join(involved) or 'the other columns'} "
                f"(less than {ALIASED:g} of its variance is left given them); want one of them left out"
            )
        factor[j, :j], factor[j, j] = row, np.sqrt(left)
    return left_out


def whitening(products: Vector) -> Vector:
    """W with W' products W = 1: upper triangular, from the Cholesky factor of the scaled matrix."""
    scale = np.sqrt(np.diag(products))
    factor = linalg.cholesky(products / scale[:, None] / scale, lower=True)
    inverse = linalg.solve_triangular(factor, np.eye(len(factor)), lower=True)
    return np.asarray(inverse.T / scale[:, None], np.float64)


def condition(products: Vector) -> float:
    """Condition number of a matrix of cross-products after scaling its diagonal to 1."""
    scale = np.sqrt(np.diag(products))
    return float(np.linalg.cond(products / scale[:, None] / scale))


def coefficient_rows(
    names: Sequence[str], estimates: Vector, covariance: Vector, statistic: str, df: float | None
) -> list[Row]:
    """Rows name, estimate, std_error, the statistic ("t" or "z") and p_value (two-sided; normal where df is None)."""
    rows: list[Row] = []
    for name, estimate, variance in zip(names, estimates, np.diag(covariance), strict=True):
        error = float(np.sqrt(max(variance, 0.0)))
        ratio = float(estimate) / error if error > 0 else None
        tail = None
        if ratio is not None:
            tail = float(2 * (stats.norm.sf(abs(ratio)) if df is None else stats.t.sf(abs(ratio), df)))
        rows.append({"name": name, "estimate": float(estimate), "std_error": error, statistic: ratio, "p_value": tail})
    return rows


def coefficient_basis(statistic: str, residual_df: str = "") -> Grounds:
    """What rows of coefficients rest on. residual_df: fact with the residual degrees of freedom."""
    own = ("estimate", "std_error", statistic, "p_value")
    return Grounds(keys=("name",), observations=True, own=own, kind=Coefficients(residual_df=residual_df))


def finite(value: float) -> float | None:
    """For JSON, which has no NaN and no infinity."""
    return float(value) if np.isfinite(value) else None


def _codes(design: Design) -> list[tuple[str, str]]:
    return [(column, code) for column, codes in design.categories.items() for code in codes]


def _coded(table: Table, column: str, code: str) -> Expr:
    boolean = table.codebook.columns[column].type == "boolean"
    return at_level(table, Category(column, (), boolean=boolean), code)


def _key(numbers: Sequence[Number], cells: Sequence[tuple[Category, str]]) -> tuple[frozenset[str], frozenset[str]]:
    return frozenset(x.text for x in numbers), frozenset(f"{len(c.column)} {c.column} {code}" for c, code in cells)


def _places(
    design: Design,
    place: Mapping[tuple[frozenset[str], frozenset[str]], int],
    numbers: Sequence[Number],
    cells: Sequence[tuple[Category, str]],
) -> tuple[int, ...]:
    """Columns that add up to the product of `numbers` in `cells`; none where the design does not hold it."""
    if not numbers and not cells:
        return design.constant
    found = place.get(_key(numbers, cells))
    return () if found is None else (found,)


def _positive(x: Vector) -> Vector:
    return np.where(x > 0, x, 1.0)
