"""`mst`: noisy counts for a tree of pairs of columns: of single columns, and of the pairs of a spanning tree.

Three protected sums: margins of single columns, by which cells are merged; coarse counts of all pairs; and the pairs of
the maximum spanning tree, by how far their coarse counts are from independence beyond what noise explains. How that is
private, and sources: `_structure`. Records are drawn from the result by the method of synthetic data of the same name.
"""

from statfed.core.method import Coordination, Question
from statfed.strategies.analyses import _structure
from statfed.strategies.analyses._structure import budget as budget
from statfed.strategies.analyses._structure import columns as columns
from statfed.strategies.analyses._structure import contribute as contribute
from statfed.strategies.analyses._structure import discloses as discloses
from statfed.strategies.analyses._structure import parts as parts

TITLE = "Noisy counts of a spanning tree of pairs of columns, for private synthetic data"
GROUP = "Distributions"
PUSHES_DOWN = "all but the count of cells; embedded DuckDB streams"
LINKED = True


class Options(_structure.Options):
    """Options of mst."""


def coordinate(question: Question[Options]) -> Coordination:
    told = yield from _structure.begun(question, len(columns(question)) - 1)
    if told.pairs:
        ask = _structure.chosen_ask(told, _structure.spanning(told), question.options.shares[2])
        told = _structure.with_chosen(told, _structure.counted(ask, (yield ask)))
    return _structure.result(question, told, f"Counts of a tree of {len(told.chosen)} pairs of columns")
