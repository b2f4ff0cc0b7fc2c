"""From an R-style formula and a codebook to the columns of a design matrix, the same at every holder.

`formulaic` parses the formula and decides the order and the coding (full or reduced rank) of its terms; factors are
translated by `_formula`, levels and reference come from the codebook. Names are those of `formulaic.model_matrix` on
the pooled data. A design is public: it holds names, intervals and recipes of Ibis expressions, never data.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from itertools import product
from operator import add, and_, mul
from typing import Any, Literal

import ibis
import numpy as np
from formulaic import Formula, SimpleFormula
from formulaic.errors import FormulaicError
from formulaic.materializers.base import FormulaMaterializer
from formulaic.materializers.types import EvaluatedFactor, FactorValues, ScopedTerm
from formulaic.parser.types import Factor
from formulaic.parser.types import Term as FormulaTerm
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._formula import LARGEST, NO_MARKS, Category, Number, at_level, read_factor

INTERCEPT = "Intercept"
LONGEST = 4_000  # characters of a formula
CROSSINGS = 16  # operators * / ^ ** in a formula, so that parsing stays cheap at a holder
COLUMNS = 1_000
_SUMS = 1_000  # in one statement: PostgreSQL takes 1,664 at most
ROWS = 65_536  # of a batch that is streamed into BLAS


@dataclass(frozen=True)
class Term:
    """One column: the product of numeric expressions and of indicators that categories take certain codes."""

    name: str
    numbers: tuple[Number, ...] = ()
    cells: tuple[tuple[Category, str], ...] = ()
    scale: float = 1.0

    @property
    def interval(self) -> tuple[float, float]:
        low, high = self.scale, self.scale
        for number in self.numbers:
            ends = [0.0 if 0.0 in (x, y) else x * y for x in (low, high) for y in (number.low, number.high)]
            low, high = min(ends), max(ends)
        return (min(low, 0.0), max(high, 0.0)) if self.cells else (low, high)

    @property
    def safe(self) -> bool:
        """Does the product of finite factors stay within the range whose squares a float64 holds?"""
        return all(abs(end) <= LARGEST or math.isinf(end) for end in self.interval)

    def expression(self, table: Table, shifts: Sequence[float] = ()) -> Expr:
        """The column. shifts: subtracted from each of `numbers` before they are multiplied."""
        numbers = [number.build(table) for number in self.numbers]
        numbers = [x - real(c) if c else x for x, c in zip(numbers, shifts or [0.0] * len(numbers), strict=True)]
        if self.scale != 1 or not (numbers or self.cells):
            numbers.append(real(self.scale))
        if not self.cells:
            return reduce(mul, numbers)
        inside = reduce(and_, [at_level(table, category, code) for category, code in self.cells])
        if not numbers:
            return inside.cast("int32").cast("float64")
        return ibis.ifelse(inside, reduce(mul, numbers), real(0.0))


@dataclass(frozen=True)
class Design:
    """Columns of a design matrix and its response. p is the number of columns.

    names: of the p columns. bounds: (p, 2), public intervals of their values, infinite where unknown. indicator: (p,),
    is the column one of zeros and ones? constant: indices of columns that add up to 1 at every record (the intercept,
    or all indicators of one category), empty when there are none. categories: columns coded by levels, with the levels
    in use. columns: those of the codebook that are read, response included. complete: those of them without which a
    record is left out: all but those that `level`, `missing` and `known` are of. response: its text, "" without one.
    response_levels: codes that mean 0 and 1 when the response is a category. total: has every expression a finite
    value at every complete record within the codebook's bounds? Where not, compare `defined` with the records.
    """

    formula: str
    names: tuple[str, ...]
    bounds: NDArray[np.float64]
    indicator: NDArray[np.bool_]
    constant: tuple[int, ...]
    categories: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    response: str
    response_bounds: tuple[float, float]
    response_levels: tuple[str, ...]
    total: bool
    terms: tuple[Term, ...]
    left: Number | None
    complete: tuple[str, ...]

    def expressions(self, table: Table) -> list[Expr]:
        """The p columns, float64, at records complete in `columns`; elsewhere they mean nothing."""
        return [term.expression(table) for term in self.terms]

    @property
    def numbers(self) -> tuple[Number, ...]:
        """The distinct numeric expressions that the columns are made of, in order."""
        return tuple({number.text: number for term in self.terms for number in term.numbers}.values())

    @property
    def functions(self) -> frozenset[str]:
        """Names of what the formula does to columns, beside interactions; see `Number`."""
        return frozenset().union(*(x.functions for x in (*self.numbers, *([self.left] if self.left else []))))

    @property
    def marks(self) -> tuple[tuple[str, str | None], ...]:
        """Columns with a code, or None for a missing value, that the formula is about as `Number` says."""
        numbers = (*self.numbers, *([self.left] if self.left else []))
        return tuple(dict.fromkeys(mark for number in numbers for mark in number.marks))

    @property
    def marked(self) -> tuple[str, ...]:
        """Columns that are read and need not be complete."""
        return tuple(name for name in self.columns if name not in self.complete)

    def response_expression(self, table: Table) -> Expr:
        """The response, float64. Raises UsageError when the formula has none."""
        if self.left is None:
            raise UsageError(f"formula: got {self.formula!r} without a response; want 'response ~ terms'")
        return self.left.build(table)

    def defined(self, table: Table) -> Expr:
        """A count: records at which the response and all columns have finite values."""
        values = [*self.expressions(table), *([self.left.build(table)] if self.left else [])]
        return reduce(and_, [value.abs() <= LARGEST for value in values]).ifelse(1, 0).sum()

    def without_intercept(self) -> "Design":
        """The same coding without its intercept column, for models that have none (Cox)."""
        keep = [i for i, name in enumerate(self.names) if name != INTERCEPT]
        return replace(
            self,
            names=tuple(self.names[i] for i in keep),
            bounds=self.bounds[keep],
            indicator=self.indicator[keep],
            constant=() if len(keep) < len(self.names) else self.constant,
            terms=tuple(self.terms[i] for i in keep),
        )

    def scaling(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Public centre and scale of each column, which bring it into [-1, 1]: middle and half range of its interval.

        0 and 1 for columns of zeros and ones and where the interval is unknown. In a design that does not hold the
        constant the centre is 0, because moving a column would change the model, and the scale its largest absolute
        value.
        """
        low, high = self.bounds.T
        known = np.isfinite(low) & np.isfinite(high) & (high > low) & ~self.indicator
        center, scale = np.zeros(len(low)), np.ones(len(low))
        low, high = low[known], high[known]
        if self.constant:
            center[known], scale[known] = low / 2 + high / 2, high / 2 - low / 2
        else:
            scale[known] = np.maximum(np.abs(low), np.abs(high))
        return center, scale

    def back(self, center: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
        """(p, p) matrix A that takes coefficients of (x - center) / scale to those of x.

        beta = A b and cov(beta) = A cov(b) A'. The constant takes up the centres. Raises ValueError when columns that
        add up to the constant are themselves moved or scaled, or when a centre is given without them.
        """
        constant = list(self.constant)
        if np.any(center[constant] != 0) or np.any(scale[constant] != 1) or (not constant and np.any(center != 0)):
            raise ValueError("center, scale: got a moved constant, or centres without one; want 0 and 1 there")
        matrix = np.diag(1 / scale)
        matrix[constant] -= center / scale
        return matrix


def make_design(
    formula: str,
    codebook: Codebook,
    levels: Mapping[str, Sequence[str]] | None = None,
    response: Literal["number", "binary", "none"] = "number",
    *,
    marks: bool = False,
) -> Design:
    """The design that a formula means under a codebook.

    levels: narrows the levels in use of some category columns, as to those that occur. response: "binary" takes a
    category of two levels too (the second is 1); "none" wants terms alone. marks: may it say level, missing or known?
    An analysis that allows them sends the part `marks` of `start_parts` and asks for what is `complete` alone.
    Raises UsageError on formulas, functions, columns or references that are not allowed (see `read_factor`).
    """
    left, right = _parsed(formula)
    if response == "none" and left is not None:
        raise UsageError(f"formula: got {formula!r} with a response; want terms alone")
    factors: dict[str, Number | Category] = {}
    evaluated: dict[str, EvaluatedFactor] = {}
    for factor in (factor for term in right for factor in term.factors):
        if factor.expr not in evaluated:
            evaluated[factor.expr] = _evaluated(factor, codebook, levels or {}, factors)
    terms: list[Term] = []
    constant: tuple[int, ...] = ()
    spanned: set[ScopedTerm] = set()
    for term in right:
        span = FormulaMaterializer._get_scoped_terms_spanned_by_evaled_factors(
            [evaluated[f.expr] for f in term.factors]
        )
        for scoped in FormulaMaterializer._simplify_scoped_terms(span - spanned):
            made = _columns(scoped, factors)
            full = all(isinstance(factors[f.factor.expr], Category) and not f.reduced for f in scoped.factors)
            if full and scoped.scale == 1 and not constant:
                constant = tuple(range(len(terms), len(terms) + len(made)))
            terms += made
        spanned.update(span)
    if len(terms) > COLUMNS:
        raise UsageError(f"formula: got {len(terms)} columns; want at most {COLUMNS}")
    outcome, codes = _response(left, formula, codebook, response)
    if outcome and any(
        f.column in outcome.columns if isinstance(f, Category) else f.text == outcome.text for f in factors.values()
    ):
        raise UsageError(f"formula: got the response {outcome.text} among the terms too; want terms without it")
    read = [*(outcome.columns if outcome else ()), *(name for f in factors.values() for name in _reads(f))]
    needed = [
        *(outcome.needs if outcome else ()),
        *(name for f in factors.values() for name in (f.needs if isinstance(f, Number) else (f.column,))),
    ]
    used = {f.column: f.codes for f in factors.values() if isinstance(f, Category)}
    numbers = [f for f in (outcome, *factors.values()) if isinstance(f, Number)]
    if not marks and any(number.marks for number in numbers):
        raise UsageError(f"formula: got {formula!r}; want another one: {NO_MARKS}")
    return Design(
        formula=formula,
        names=tuple(term.name for term in terms),
        bounds=np.array([term.interval for term in terms], np.float64).reshape(-1, 2),
        indicator=np.array([not term.numbers and term.scale == 1 for term in terms], np.bool_),
        constant=constant,
        categories=used,
        columns=tuple(dict.fromkeys(read)),
        response=str(left.expr) if left is not None else "",
        response_bounds=(outcome.low, outcome.high) if outcome else (-math.inf, math.inf),
        response_levels=codes,
        total=all(number.total for number in numbers) and all(term.safe for term in terms),
        terms=tuple(terms),
        left=outcome,
        complete=tuple(dict.fromkeys(needed)),
    )


def cross_products(
    table: Table,
    columns: Sequence[Expr],
    weight: Expr | None = None,
    transform: NDArray[np.float64] | None = None,
    rows: int = ROWS,
) -> NDArray[np.float64]:
    """(m, m): sums over records of weight * q_i * q_j, where q = z @ transform for the k computed columns z.

    transform: (k, m), by default the identity. Constant memory in the records: an embedded engine streams the columns
    in batches into BLAS, another database adds up the m(m+1)/2 products itself.
    """
    if not columns:
        return np.zeros((0, 0))
    if table.embedded:
        return _streamed(table, columns, weight, transform, rows)
    z = {f"z{i}": column for i, column in enumerate(columns)}
    computed = once(table.expr.select(**z, w=real(1.0) if weight is None else weight))
    if transform is not None:
        made = {f"z{j}": _combined([computed[name] for name in z], t) for j, t in enumerate(transform.T)}
        computed = once(computed.select(**made, w=computed["w"]))
    k = len(columns) if transform is None else transform.shape[1]
    source = replace(table, expr=computed)
    pairs = [(i, j) for i in range(k) for j in range(i, k)]
    sums = np.zeros((k, k))
    for start in range(0, len(pairs), _SUMS):
        some = pairs[start : start + _SUMS]
        weighted = {i: computed[f"z{i}"] if weight is None else computed[f"z{i}"] * computed["w"] for i, _ in some}
        found = source.aggregate(**{f"s{i}_{j}": (weighted[i] * computed[f"z{j}"]).sum() for i, j in some})
        for i, j in some:
            sums[i, j] = sums[j, i] = float(found[f"s{i}_{j}"])
    return sums


def once(expr: Expr) -> Expr:
    """The same records, each expression of them computed once.

    A planner that merges nested selects (PostgreSQL) would copy an expression to every place that uses it, which grows
    exponentially with nesting; it does not look below a limit.
    """
    return expr.limit(2**62)


def _combined(columns: Sequence[Expr], factors: NDArray[np.float64]) -> Expr:
    parts = [column * real(t) for column, t in zip(columns, factors, strict=True) if t != 0]
    return reduce(add, parts) if parts else real(0.0)


def _streamed(
    table: Table, columns: Sequence[Expr], weight: Expr | None, transform: NDArray[np.float64] | None, rows: int
) -> NDArray[np.float64]:
    k = len(columns)
    m = k if transform is None else transform.shape[1]
    sums = np.zeros((m, m))
    for block in table.batches([*columns, *([] if weight is None else [weight])], rows):
        z = block[:, :k] if transform is None else block[:, :k] @ transform
        sums += z.T @ (z if weight is None else z * block[:, k:])
    return (sums + sums.T) / 2


@lru_cache(maxsize=64)
def _parsed(formula: str) -> tuple[Factor | None, Sequence[FormulaTerm]]:
    """The response and the terms, in formulaic's order."""
    crossings = len(re.findall(r"\*\*|[*/^]|%in%", formula))
    if len(formula) > LONGEST or crossings > CROSSINGS:
        raise UsageError(f"formula: want at most {LONGEST} characters and {CROSSINGS} of the operators * / ^ **")
    if any(int(k) > 4 for k in re.findall(r"\)\s*(?:\*\*|\^)\s*(\d+)", formula)):
        raise UsageError("formula: got a power of terms above 4; want at most 4")
    try:
        parsed: Any = Formula.from_spec(formula)
    except (FormulaicError, AttributeError, SyntaxError, ValueError, RecursionError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UsageError(f"formula: got {formula!r}: {reason}; want for example 'y ~ a + C(b)'") from None
    if isinstance(parsed, SimpleFormula):
        return None, list(parsed)
    both = set(parsed._structure) == {"lhs", "rhs"}
    if not both or not all(isinstance(side, SimpleFormula) for side in (parsed.lhs, parsed.rhs)):
        raise UsageError(f"formula: got {formula!r}; want 'response ~ terms' in one part")
    left = [factor for term in parsed.lhs for factor in term.factors]
    if len(left) != 1:
        raise UsageError(f"formula: got {formula!r}; want one column or expression on the left")
    return left[0], list(parsed.rhs)


def _evaluated(
    factor: Factor, codebook: Codebook, levels: Mapping[str, Sequence[str]], factors: dict[str, Number | Category]
) -> EvaluatedFactor:
    """What formulaic's rules of coding look at: the kind of a factor. Its meaning goes into `factors`."""
    if factor.eval_method is Factor.EvalMethod.LITERAL:
        value = float(factor.expr) if re.fullmatch(r"\d+(\.\d*)?", factor.expr) else math.nan
        if not math.isfinite(value):
            raise UsageError(f"formula: got {factor.expr!r}; want a number, a column or an expression")
        return EvaluatedFactor(factor, FactorValues(value, kind=Factor.Kind.CONSTANT))
    found = read_factor(factor.expr, codebook, "formula", factor.eval_method is Factor.EvalMethod.LOOKUP)
    if isinstance(found, Category):
        used = levels.get(found.column, found.codes)
        found = replace(found, codes=tuple(code for code in found.codes if code in used))
        if found.reference is not None and found.reference not in found.codes:
            raise UsageError(
                f"formula: {factor.expr}: no records at the reference; want one of {', '.join(found.codes)}"
            )
    factors[factor.expr] = found
    category = isinstance(found, Category)
    kind = Factor.Kind.CATEGORICAL if category else Factor.Kind.NUMERICAL
    return EvaluatedFactor(factor, FactorValues(0, kind=kind, spans_intercept=category))


def _columns(scoped: ScopedTerm, factors: Mapping[str, Number | Category]) -> list[Term]:
    """The columns of a term: all combinations of its factors' columns, the first factor's varying fastest."""
    choices = [_choices(f.factor.expr, factors[f.factor.expr], f.reduced) for f in scoped.factors]
    terms = []
    for combination in product(*reversed(choices)):
        parts = combination[::-1]
        terms.append(
            Term(
                ":".join(part.name for part in parts) or INTERCEPT,
                tuple(number for part in parts for number in part.numbers),
                tuple(cell for part in parts for cell in part.cells),
                float(scoped.scale),
            )
        )
    return terms


def _choices(text: str, factor: Number | Category, reduced: bool) -> list[Term]:
    if isinstance(factor, Number):
        return [Term(text, (factor,))]
    if not reduced:
        return [Term(f"{text}[{factor.label(code)}]", cells=((factor, code),)) for code in factor.codes]
    reference = factor.reference or next(iter(factor.codes), None)
    return [
        Term(f"{text}[T.{factor.label(code)}]", cells=((factor, code),)) for code in factor.codes if code != reference
    ]


def _response(
    left: Factor | None, formula: str, codebook: Codebook, wanted: str
) -> tuple[Number | None, tuple[str, ...]]:
    if left is None:
        if wanted == "none":
            return None, ()
        raise UsageError(f"formula: got {formula!r} without a response; want 'response ~ terms'")
    if left.eval_method is Factor.EvalMethod.LITERAL:
        raise UsageError(f"formula: got response {left.expr!r}; want a column or an expression of columns")
    found = read_factor(left.expr, codebook, "formula: response", left.eval_method is Factor.EvalMethod.LOOKUP)
    if isinstance(found, Number):
        return found, found.cases
    if wanted == "binary" and len(found.codes) == 2:
        one = Term(left.expr, cells=((found, found.codes[1]),))
        return Number(one.expression, 0.0, 1.0, (found.column,), text=left.expr), found.codes
    want = "a numeric column, or a category of two levels" if wanted == "binary" else "a numeric column"
    raise UsageError(f"formula: response {left.expr}: got {len(found.codes)} categories; want {want}")


def _reads(factor: Number | Category) -> tuple[str, ...]:
    return (factor.column,) if isinstance(factor, Category) else factor.columns
