"""How many of a holder's records break the rules of a codebook: for the holder's own eyes, and never sent.

A rule that data break stops no study: it is what the codebook promises of records, and what synthetic ones are held to.
"""

from functools import reduce
from operator import and_

from statfed.client.data.sources import Source
from statfed.client.data.tables import Mismatch, open_table, places
from statfed.core.codebook import Codebook
from statfed.core.conditions import columns_of, parse_where
from statfed.core.table import Expr


def broken_rules(source: Source, codebook: Codebook) -> list[Mismatch]:
    """Every rule that is false of some records, with their number and the first three. A rule that a missing value
    leaves open is not broken; one on columns that the data have not is not looked at: their absence is a mismatch."""
    found = []
    for rule in codebook.rules:
        clauses = parse_where((rule,), codebook)
        names = columns_of(clauses)
        if any(name not in source.expr.columns for name in names):
            continue
        table = open_table(source, codebook, columns=names)
        holds: Expr = reduce(and_, (table.holds(clause) for clause in clauses))
        broken = ~holds.fill_null(True)
        count = int(table.aggregate(broken=table.expr.count(where=broken))["broken"])
        if count:
            message = f"got records that break the rule '{rule}'; want none"
            found.append(Mismatch(", ".join(names), message, count, (), places(source, table.expr, broken)))
    return found
