"""The synthetic table of a question, and a holder's records as it is compared with them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.conditions import parse_where
from statfed.core.linkage import restricted
from statfed.core.method import Question, once
from statfed.core.section import Section
from statfed.core.synthetic.coded import Coded, coded, described
from statfed.core.synthetic.packing import unpacked
from statfed.core.table import Table

MOST_RECORDS = 50_000
"""Synthetic records that travel."""
MOST_TEXT = 20_000_000
"""Characters of the packed table."""


class Compared(Section):
    """Options that questions about a synthetic table have in common."""

    table: str = Field(
        max_length=MOST_TEXT, description="the synthetic records, packed (statfed.core.synthetic.packing)"
    )
    records: int = Field(ge=1, le=MOST_RECORDS, description="how many they are")
    apart: str = Field(default="", description="condition on records that the data were not made from: the control")


def names_of(codebook: Codebook, options: Compared) -> tuple[str, ...]:
    """The columns that are looked at: of the codebook without those that only say which records were kept apart."""
    apart = (
        {name for clause in parse_where((options.apart,), codebook) for name in clause.columns}
        if options.apart
        else set()
    )
    return tuple(name for name in described(codebook) if name not in apart)


def columns_of(question: Question[Any]) -> tuple[str, ...]:
    """`names_of`, and the columns of the condition. Raises UsageError on a table that does not fit."""
    synthetic_of(question)
    clauses = parse_where((question.options.apart,), question.codebook) if question.options.apart else ()
    return tuple(
        dict.fromkeys((*names_of(question.codebook, question.options), *(n for c in clauses for n in c.columns)))
    )


@once
def synthetic_of(question: Question[Any]) -> Coded:
    """The synthetic table of a question. Raises UsageError on one that does not fit the codebook."""
    options = question.options
    return unpacked(options.table, question.codebook, names_of(question.codebook, options), options.records)


def sides(table: Table, options: Compared) -> Sequence[Table]:
    """Records that the data were made from, and those kept apart; neither where the condition is not known."""
    if not options.apart:
        return (table,)
    inside = [table.holds(clause) for clause in parse_where((options.apart,), table.codebook)]
    together = inside[0]
    for clause in inside[1:]:
        together = together & clause
    return table.filter(~together), table.filter(together)


def coded_sides(table: Table, question: Question[Any]) -> tuple[Coded | None, Coded | None]:
    """Both sides read by the codebook; None where there are no records."""
    names = names_of(question.codebook, question.options)
    found: list[Coded | None] = []
    for side in sides(table, question.options):
        rows = side.rows(names)
        found.append(coded(rows, restricted(question.codebook, names)) if rows.num_rows else None)
    return found[0], found[1] if len(found) > 1 else None


def in_order(table: Coded) -> Coded:
    """The records in an order of their own values, so that what is drawn of them does not depend on a file's."""
    return table.take(np.lexsort([table.columns[name] for name in reversed(table.names)]))
