"""Which models over the matched are refused under a minimum frequency, so that no sum of theirs is about a few.

1. *By each holder, of its own units, before it shares anything.* Fewer than the minimum of its units with a key must
   not have one level of a category or boolean, or one value of a column of numbers that has fewer than `MANY` values
   among them. A level that no unit has is no matter. That refusal tells of the holder's own register that there is
   such a level, not which, and nothing of matches.
2. *On shares, of the matches.* None or the minimum of them have to be in each group that sums of the model are about:
   each level of a category, each cell of categories that a term crosses, each value of a boolean or of an integer whose
   codebook has at most `SPAN` + 1 values; and of every other number or product of a term the units whose value is not
   that holder's commonest (of a column that is 0 but for one unit, that one), and where there are fewer than `MANY`
   values those that have the commonest: of two values each alone. Of these numbers one bit is opened, whether any of
   them is from 1 to the minimum less 1 (`any_few` of `_shares`): a bit of each would, with a level for every person,
   tell of each whether it matches. What the one bit tells of a group is that all are well, or that some one is not.

Not looked at on shares: three or more values of a column of type number beside the commonest, which powers of it in one
formula would tell apart; against these stands 1 alone. How records weigh in a step of a logistic model: see `_models`.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import pandas as pd

from statfed.core.errors import Refused
from statfed.core.linkage import Units
from statfed.core.method import Question
from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._formula import Number
from statfed.strategies.analyses._matrix import Design
from statfed.strategies.linkages._features import Feature, owner, values_of

MANY = 20
"""Values of a column of numbers from which on it has no levels."""
SPAN = 20
"""Between the bounds of an integer each value of which is a level."""
Build = Callable[[Table], Expr]


def refuse_few(question: Question[Any], units: Units, names: Sequence[str], minimum: int) -> None:
    """Raises Refused where fewer than `minimum` of these units have one level or value of a column. Says not which."""
    keyed = np.logical_and.reduce([units.packed(part).is_valid().to_numpy(zero_copy_only=False) for part in units.keys])
    for name in names:
        values = values_of(units, question.codebook, name)[keyed]
        counts = pd.Series(values).value_counts().to_numpy()
        if (question.codebook.column(name).levels or len(counts) < MANY) and (counts < minimum).any():
            raise Refused(
                f"{question.terms.method}: got a level, or one of few values of a column, that fewer than {minimum} of "
                "this holder's own units have; want wider levels, or a model without it: nothing of this one was opened"
            )


def of_model(question: Question[Any], design: Design, response: Number, of: dict[str, str]) -> list[Feature]:
    """Indicators of the groups, beside levels, that sums of a model are about."""
    found: list[Feature] = []
    for term in design.terms:
        crossed = tuple(dict.fromkeys(category.column for category, _ in term.cells))
        if len(crossed) > 1:
            at = owner(crossed, of, term.name)
            for codes in itertools.product(*(design.categories[column] for column in crossed)):
                cell = tuple(zip(crossed, codes, strict=True))
                key = "cell " + ", ".join(f"{column} {code}" for column, code in cell)
                found.append(Feature(key, at, 0.0, 1.0, _cell(cell), True))
        if term.numbers:
            read = (*(name for number in term.numbers for name in number.columns), *crossed)
            found += _of_number(term.name, owner(tuple(dict.fromkeys(read)), of, term.name), term.expression)
    for number in (*design.numbers, response):
        at = owner(number.columns, of, number.text)
        found += _of_number(number.text, at, number.build)
        if number is response and question.terms.method == "glm":
            found += _values(number.text, at, number.build, (0.0, 1.0))
        else:
            found += _of_few(question, number.columns, at)
    return found


def of_columns(question: Question[Any], of: dict[str, str]) -> list[Feature]:
    """The same for products of columns."""
    found: list[Feature] = []
    for name in question.options.columns:
        at = owner((name,), of, name)
        found += _of_number(name, at, column_of(name))
        found += _of_few(question, (name,), at)
    return found


def column_of(name: str) -> Build:
    return lambda table: table.number(name)


def _of_number(name: str, at: str, build: Build) -> list[Feature]:
    """Those that do not have the commonest value, and of a few values those that have it."""
    return [
        Feature(f"apart {name}", at, 0.0, 1.0, _apart(build), True),
        Feature(f"common {name}", at, 0.0, 1.0, _common(build), True),
    ]


def _of_few(question: Question[Any], names: Sequence[str], at: str) -> list[Feature]:
    """Indicators of every value of each column of numbers that has few by the codebook."""
    found: list[Feature] = []
    for name in names:
        column = question.codebook.columns[name]
        if column.type in ("boolean", "integer") and column.bounds and column.bounds[1] - column.bounds[0] <= SPAN:
            low, high = (round(bound) for bound in column.bounds)
            found += _values(name, at, column_of(name), range(low, high + 1))
    return found


def _values(name: str, at: str, build: Build, values: Sequence[float]) -> list[Feature]:
    return [Feature(f"value {name} {x:g}", at, 0.0, 1.0, _equal(build, float(x)), True) for x in values]


def _cell(cell: Sequence[tuple[str, str]]) -> Build:
    def build(table: Table) -> Expr:
        inside = reduce(and_, [table[column].cast("string") == code for column, code in cell])
        return inside.ifelse(real(1.0), real(0.0))

    return build


def _equal(build: Build, value: float) -> Build:
    return lambda table: (build(table).cast("float64") == real(value)).ifelse(real(1.0), real(0.0))


def _counts(table: Table, build: Build) -> "pd.Series[int]":
    """How many of this holder's units have each value, the commonest first, of ties the least."""
    values = table.expr.select(_v=build(table).cast("float64")).to_pandas()["_v"]
    counts: pd.Series[int] = values.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return counts


def _apart(build: Build) -> Build:
    """1 where a value is not the commonest of this holder's."""

    def made(table: Table) -> Expr:
        counts = _counts(table, build)
        common = real(float(counts.index[0]) if len(counts) else 0.0)
        return (build(table).cast("float64") != common).ifelse(real(1.0), real(0.0))

    return made


def _common(build: Build) -> Build:
    """1 where it is, and there are few values; else 0 everywhere, which nobody sees."""

    def made(table: Table) -> Expr:
        counts = _counts(table, build)
        if not 0 < len(counts) < MANY:
            return build(table).cast("float64") * real(0.0)
        return _equal(build, float(counts.index[0]))(table)

    return made
