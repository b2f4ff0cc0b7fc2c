"""How records weigh in the sums of regressions and of moments: what `weighs` of several analyses shares."""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import combinations_with_replacement
from operator import mul

from statfed.core.codebook import Codebook
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._matrix import Design, Term
from statfed.strategies.analyses._survey import ones


def of_design(table: Table, design: Design, frequency: Expr | None = None) -> Iterator[Weighed]:
    """Everything that counts, means, cross products and scores of a design and its response can tell, whatever basis
    they are taken in. table: complete records. frequency: weights, above 0.

    The columns of the design count records, and so do those of the cases and of the others where the response is 0 or
    1; products with the response are values, and so are squares of any residual.
    """
    columns = scaled(table, design)
    root = None if frequency is None else frequency.sqrt()
    yield Rows(table, weighted(columns, root), counting=True)
    yield from crossed(table, design, frequency)
    if root is not None:
        yield Amounts(table, (frequency,))
    if design.left is None:
        return
    y = design.response_expression(table)
    if binary(design, table.codebook):
        yield Rows(table, weighted([x * y for x in columns], root), counting=True)
        yield Rows(table, weighted([x * (real(1.0) - y) for x in columns], root), counting=True)
        return
    low, high = design.response_bounds
    if abs(low) < float("inf") and abs(high) < float("inf") and high > low:
        y = (y - real(low / 2 + high / 2)) / real(high / 2 - low / 2)
    one = real(1.0)
    yield Rows(table, weighted([one, *columns, y], root))
    yield Rows(table, weighted([one, *columns, y, *(x * y for x in columns)], frequency))


def crossed(table: Table, design: Design, times: Expr | None = None) -> Iterator[Amounts | Rows]:
    """What products of two columns add up in each cell that both make: of levels, of marks, and of values there are;
    and how many records such a cell has.

    A leverage bounds squares of combinations. The product of two columns is a sum over those alone who are in the cells
    of both, of whom their leverages say nothing. times: a factor of these products.
    """
    made: dict[tuple[str, ...], tuple[tuple[Expr, ...], dict[str, Expr]]] = {}
    for one, other in combinations_with_replacement(design.terms, 2):
        cells = {**_cells(table, one), **_cells(table, other)}
        values = [x for x in (*one.numbers, *other.numbers) if not x.cases]
        if len(cells) > 1 or values:  # cells of one column are looked at already
            _, amounts = made.setdefault(tuple(sorted(cells)), (tuple(cells.values()), {}))
            name = " * ".join(sorted(x.text for x in values))
            amounts.setdefault(name, reduce(mul, (x.build(table) for x in values), real(1.0)))
    for by, amounts in made.values():
        if len(by) > 1:
            yield Rows(table, (ones(table),), counting=True, by=by)
        yield Amounts(table, weighted([*amounts.values()], times), by)


def _cells(table: Table, term: Term) -> dict[str, Expr]:
    """What tells the records of a column from those at which it is 0, by name."""
    levels = {category.column: table[category.column] for category, _ in term.cells}
    marks = {x.text: x.build(table) for x in term.numbers if x.cases}
    there = {f"missing({of})": table[of].isnull() for x in term.numbers if not x.cases for of, _ in x.marks}
    return levels | marks | there


def spanned(table: Table, design: Design) -> list[Expr]:
    """What values are multiplied by in the sums of a model: the columns of its design, and the response."""
    response = [] if design.left is None else [design.response_expression(table)]
    return [real(1.0), *scaled(table, design), *response]


def binary(design: Design, codebook: Codebook) -> bool:
    """Is the response 0 or 1, by the codebook?"""
    if design.response_levels:
        return True
    column = codebook.columns.get(design.response)
    return column is not None and (
        column.type == "boolean" or (column.type == "integer" and (column.low, column.high) == (0, 1))
    )


def scaled(table: Table, design: Design) -> list[Expr]:
    """The columns of a design, brought into [-1, 1] where the codebook tells how: better conditioned, same span."""
    pairs = zip(design.expressions(table), *design.scaling(), strict=True)
    return [x if (c, s) == (0, 1) else (x - real(float(c))) / real(float(s)) for x, c, s in pairs]


def weighted(columns: Sequence[Expr], weight: Expr | None) -> tuple[Expr, ...]:
    """Each column times the weight, if there is one."""
    return tuple(columns if weight is None else (x * weight for x in columns))


def two_ways(table: Table, values: Sequence[Expr], weight: str, by: Sequence[str]) -> Iterator[Weighed]:
    """That totals with and without the weight tell of nobody by any multiple of their difference.

    values: what records add without the weight.
    """
    w = table.number(weight)
    for value in values:
        yield Rows(table, (value, value * w), by=tuple(by))
