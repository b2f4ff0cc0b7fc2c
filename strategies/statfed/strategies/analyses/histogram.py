"""`histogram`: records, and the total of a weight, in bins of a numeric column, also in groups. One protected sum.

Bins are public: equal ones over the codebook's bounds or explicit edges. They are closed on the left, the last one on
both sides, as in numpy.histogram. In a column of whole numbers each equal bin holds the same number of values.

The cells that leave a holder are the bins: the part `count` is the number of records in each, of shape
(bins, *levels of by), and it is what a rule on frequencies looks at. Rules on the contributions to a total of the
weight look at the cells of `by`, not at single bins.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Magnitude, Part, Question, Total, fixed
from statfed.core.result import Additive, Basis, Result, Row
from statfed.core.section import Section
from statfed.core.table import Table, real
from statfed.core.weighing import Amounts, Cuts, Weighed
from statfed.strategies.analyses import _bins
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._survey import ones
from statfed.strategies.analyses._weighing import two_ways

TITLE = "Histogram of a numeric column, weighted or not, also in groups"
GROUP = "Distributions"
PUSHES_DOWN = "all"


SHARE = 0.15  # of the privacy budget, for numbers of records beside totals of a weight


class Options(Section):
    """Options of histogram."""

    column: str = Field(description="numeric column")
    bins: int | None = Field(
        default=None, ge=1, le=1000, description="number of equal bins over the codebook's bounds; default 10"
    )
    edges: tuple[float, ...] = Field(default=(), max_length=1001, description="explicit edges instead of bins")
    weight: str | None = Field(default=None, description="numeric column whose total is taken in each bin")
    by: tuple[str, ...] = Field(default=(), max_length=3, description="grouping columns (category or boolean)")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options, codebook = question.options, question.codebook
    extra = (options.weight,) if options.weight else ()
    m.check_columns(codebook, (options.column, *extra), options.by)
    if options.weight:
        _bins.check_weight(codebook, options.weight, bounded=question.privacy is not None)
    edges_of(question)
    return (options.column, *extra, *options.by)


def edges_of(question: Question[Options]) -> m.Floats:
    """Edges (bins + 1,). Raises UsageError when options and codebook do not give any."""
    options, codebook = question.options, question.codebook
    bounds = codebook.number(options.column, "column").bounds
    whole = _bins.whole(codebook, options.column)
    if options.edges:
        if options.bins is not None:
            raise UsageError("histogram: got bins and edges; want one of them")
        _bins.check_edges(options.edges, "histogram: edges")
        if bounds and (options.edges[0] < bounds[0] or options.edges[-1] > bounds[1] + whole):
            raise UsageError(
                f"histogram: edges: got {options.edges[0]:g} to {options.edges[-1]:g}; "
                f"want them within {bounds[0]:g} to {bounds[1] + whole:g}, by the codebook"
            )
        return np.array(options.edges)
    if bounds is None:
        raise UsageError(f"histogram: {options.column}: got no bounds in the codebook; want edges, or low and high")
    low, high = _bins.bounds_of(codebook, options.column)
    bins = options.bins or 10
    if whole:
        step = math.ceil((high - low + 1) / bins)
        return low + step * np.arange(math.ceil((high - low + 1) / step) + 1, dtype=float)
    edges = np.linspace(low, high, bins + 1) if low < high else np.linspace(low - 0.5, high + 0.5, bins + 1)
    _bins.check_edges(edges.tolist(), "histogram: edges")
    return edges


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("counts")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "counts":
        raise UsageError(f"histogram: unknown ask: got {ask.name!r}; want counts")
    options = question.options
    shape = (len(edges_of(question)) - 1, *m.level_shape(question.codebook, options.by))
    cells = Counts((options.column, *options.by))
    announced = {"count": Part(shape, 1.0, integer=True, single=True, what=cells)}
    if options.weight and question.privacy:
        announced["count"] = replace(announced["count"], share=SHARE)
    if options.weight:
        weight = question.codebook.columns[options.weight].bounds
        announced["total"] = Part(shape, m.largest(weight), single=True, what=Magnitude("count"))
    return announced


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:  # noqa: ARG001
    options, edges = question.options, edges_of(question)
    x = table.number(options.column)
    inside = table.filter(x >= real(edges[0]), x <= real(edges[-1]))
    return _bins.counts(inside, options.column, edges[1:-1], "left", options.weight, options.by)


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:  # noqa: ARG001
    options, edges = question.options, edges_of(question)
    closed = tuple((float(edge), i == len(edges) - 1) for i, edge in enumerate(edges))
    yield Cuts(table.complete(options.by), options.column, closed, options.by)
    if options.weight:
        x = table.number(options.column)
        inside = table.filter(x >= real(edges[0]), x <= real(edges[-1])).complete(options.by)
        place = _bins.place(inside.number(options.column), edges[1:-1], "left")
        yield Amounts(inside, (inside.number(options.weight),), (place, *options.by))
        yield from two_ways(inside, [ones(inside)], options.weight, options.by)


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    options = question.options
    weight = (options.weight,) if options.weight else ()
    return Cells(options.by, weight, (options.column, *weight))


def coordinate(question: Question[Options]) -> Coordination:
    options, edges = question.options, edges_of(question)
    total = yield Ask("counts")
    notes = ["bins are closed on the left, the last one on both sides; values outside the edges are not counted"]
    if question.privacy:
        notes.append("std_error: the privacy noise alone; post-processing: what noise makes negative is shown as 0")
    rows = _rows(question, total, edges)
    observed = int(np.maximum(total["count"], 0).sum())
    by = ("bin", *options.by)
    kind = Additive(total="total" if options.weight else "")
    noise = ("std_error",) if question.privacy else ()
    span = ("bin", options.column, "lower", "upper")
    basis = Basis(by, ("lower", "upper"), ("count",), own=noise, derived=("density",), span=span, kind=kind)
    return Result(
        "histogram",
        f"Histogram of {options.column}",
        {"cells": rows},
        {"observations": observed, "bins": len(edges) - 1, "unit": question.codebook.columns[options.column].unit},
        tuple(notes),
        by,
        basis={"cells": basis},
        observations="observations",
        public=("bins", "unit"),
    )


def _rows(question: Question[Options], total: Total, edges: m.Floats) -> list[Row]:
    weighted = question.options.weight is not None
    count = np.maximum(total["count"], 0)
    shown = np.maximum(total["total"], 0.0) if weighted else count
    noise = total.noise["total" if weighted else "count"]
    group = shown.sum(axis=0)
    width = np.diff(edges)
    rows: list[Row] = []
    for at, levels in m.level_rows(question.codebook, question.options.by):
        for b in range(len(width)):
            cell = (b, *at)
            row: dict[str, str | float | int | None] = {"bin": _label(edges, b), **levels}
            row |= {"lower": float(edges[b]), "upper": float(edges[b + 1]), "count": int(count[cell])}
            if weighted:
                row["total"] = float(shown[cell])
            row["density"] = float(shown[cell] / group[at] / width[b]) if group[at] > 0 else None
            if question.privacy:
                row["std_error"] = float(noise[cell])
            rows.append(row)
    return rows


def _label(edges: m.Floats, b: int) -> str:
    return f"[{edges[b]:.12g}, {edges[b + 1]:.12g}{']' if b == len(edges) - 2 else ')'}"
