"""Cuts of a column, judged together with all earlier ones: no two of them may have a few records between them.

A histogram and a quantile cut a column at edges; whoever knows how many records lie up to two edges knows how many lie
between. So of all cuts of one column that were ever answered, among the same records, every two neighbours have as many
records between them as the rule on frequencies asks for. None are too few as well: an edge could be shifted until the
answer is refused, which would be at somebody's value.

Formal guarantee. After `unsafe` was false for a new cut against every past one, the number of records between any two
edges of either is at least `least`, in every cell that both tell of and that has records, but for what lies outside the
codebook's bounds; so any sum or difference of the two tells of no smaller group that is an interval of the column. Cuts
among different records (other conditions, another cell) are not compared here; populations are, in
`statfed.client.guard.differencing`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.table import Table
from statfed.core.weighing import Cuts

TOGETHER = 400  # counts in one statement
Edges = tuple[tuple[float, bool], ...]


def unsafe(new: Cuts, past: Sequence[tuple[Edges, tuple[str, ...]]], least: int) -> bool:
    """Has the new cut too few records between two of its edges, or between one of them and one of a past cut?

    past: edges and cells (`by`) of cuts of the same column among the same records.
    """
    if not least:
        return False
    together: dict[tuple[str, ...], set[tuple[float, bool]]] = {new.by: {*new.edges}}
    for edges, by in past:
        together.setdefault(tuple(name for name in new.by if name in by), {*new.edges}).update(edges)
    return any(_few(new.table, new.column, sorted(edges), by, least) for by, edges in together.items())


def told(cut: Cuts, least: int) -> Cuts:
    """The cut with the edges alone that tell anything."""
    if not cut.tails or not least:
        return cut
    edges = sorted(cut.edges)
    counts, whole = _counts(cut.table, cut.column, edges, ())
    kept = [edge for edge, n in zip(edges, counts, strict=True) if n >= least and whole - n >= least]
    return replace(cut, edges=tuple(kept), tails=False)


def _few(table: Table, column: str, edges: Sequence[tuple[float, bool]], by: tuple[str, ...], least: int) -> bool:
    counts, whole = _counts(table, column, edges, by)
    if not len(counts):
        return False
    between = np.diff(np.concatenate([np.zeros_like(whole)[None], counts, whole[None]]), axis=0)
    low, high = table.codebook.column(column).bounds or (-math.inf, math.inf)
    none = np.zeros(len(between), np.bool_)  # of intervals that the codebook leaves empty
    none[0], none[-1] = edges[0][0] <= low, edges[-1][0] >= high
    empty = none.reshape(-1, *(1,) * whole.ndim)
    return bool(((between < least) & ~((between == 0) & (empty | (whole == 0)))).any())


def _counts(
    table: Table, column: str, edges: Sequence[tuple[float, bool]], by: tuple[str, ...]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Numbers of records up to each edge, and of all that have a value, in every cell."""
    known = table.complete((column,))
    value = known.number(column)
    named = {f"e{i}": value <= edge if closed else value < edge for i, (edge, closed) in enumerate(edges)}
    counts = []
    whole = known.grid(by, all=value.count())["all"]
    for start in range(0, len(edges), TOGETHER):
        names = [*named][start : start + TOGETHER]
        asked = {name: named[name].ifelse(1, 0).sum() for name in names}
        found = known.grid(by, **asked)
        counts += [found[name] for name in names]
    return np.array(counts).reshape(-1, *whole.shape), whole
