"""`marginals`: records in the cells of many margins at once, one protected sum; what models of synthetic data rest on.

A margin is a list of columns; its cells are the levels of columns that have some and public classes of numbers and
dates (`_classes`), with missing values as a cell where the codebook allows them. Every margin is a part of its own, to
one entry of which a record contributes 1: under privacy each gets its share of the budget.

Without privacy the margins are linked tables, which no rule on single tables can judge together: then the parts say of
nothing what they are, so that no holder whose rules are on answers, and no release that has rules is made.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Part, Question, fixed, once
from statfed.core.result import Basis, Result, Row
from statfed.core.section import Section
from statfed.core.table import Table
from statfed.strategies.analyses._classes import Axis, axis_of, cells_of, counts

TITLE = "Records in the cells of many margins at once, for models of synthetic data"
GROUP = "Distributions"
PUSHES_DOWN = "all but the count of cells; embedded DuckDB streams"
LINKED = True
MOST_MARGINS, MOST_CELLS = 2_000, 4_000_000
"""Margins of one question, and cells of all of them."""


class Options(Section):
    """Options of marginals."""

    margins: tuple[tuple[str, ...], ...] = Field(
        default=(), max_length=MOST_MARGINS, description="lists of columns; none: the margins of `columns`"
    )
    columns: tuple[str, ...] = Field(default=(), description="columns whose margins of `ways` are counted")
    ways: int = Field(default=2, ge=1, le=4, description="columns of each margin of `columns`")
    classes: int = Field(default=32, ge=1, le=1000, description="most classes that a number or date is counted in")
    edges: dict[str, tuple[float, ...]] = Field(default_factory=dict, description="edges of classes, by column")
    groups: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="by column, the group of each of its cells, which are merged in it"
    )
    coarse: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, description="as groups, but in margins of two columns or more alone"
    )
    weights: tuple[float, ...] = Field(
        default=(), description="share of the privacy budget of each margin, relative to the others; none: all alike"
    )


def margins_of(options: Options) -> tuple[tuple[str, ...], ...]:
    """The margins that are counted. Raises UsageError where they are none, too many, or name a column twice."""
    found = options.margins or tuple(combinations(options.columns, options.ways))
    if not found:
        raise UsageError(f"margins: got none; want margins, or at least {options.ways} columns")
    if len(found) > MOST_MARGINS or any(not 1 <= len(m) <= 4 or len(set(m)) < len(m) for m in found):
        raise UsageError(f"margins: got {len(found)} of them; want at most {MOST_MARGINS}, each of 1 to 4 columns")
    if options.weights and (len(options.weights) != len(found) or min(options.weights) <= 0):
        raise UsageError(f"weights: got {len(options.weights)}; want one above 0 for each of {len(found)} margins")
    return found


@once
def axes_of(question: Question[Options]) -> Mapping[str, Axis]:
    """The cells of every column that is counted."""
    options, codebook = question.options, question.codebook
    found = {}
    for name in dict.fromkeys(name for margin in margins_of(options) for name in margin):
        axis = axis_of(codebook, name, options.classes, options.edges.get(name, ()))
        found[name] = axis.merged(options.groups[name]) if name in options.groups else axis
    if astray := sorted({*options.edges, *options.groups, *options.coarse} - {*found}):
        raise UsageError(f"edges, groups, coarse: got {', '.join(astray)}; want columns of the margins")
    if both := sorted({*options.groups} & {*options.coarse}):
        raise UsageError(f"coarse: got {', '.join(both)}, which has groups; want one of both")
    return found


def axes_for(codebook: Codebook, names: Sequence[str], classes: int) -> dict[str, Axis]:
    """The cells that a question about these columns counts in, without groups."""
    return {name: axis_of(codebook, name, classes) for name in names}


@once
def counted(question: Question[Options]) -> tuple[Mapping[str, Axis], tuple[tuple[str, ...], ...]]:
    """Axes by a key of their own, and the margins by those keys: a column's that is coarse in margins of several
    columns is there twice."""
    axes, margins, coarse = dict(axes_of(question)), margins_of(question.options), question.options.coarse
    key = {}
    for name, groups in coarse.items():
        key[name] = f"{name} coarse"
        while key[name] in axes or key[name] in question.codebook.columns:
            key[name] += "'"
        axes[key[name]] = axes[name].merged(groups)
    keyed = tuple(tuple(key.get(name, name) for name in m) if len(m) > 1 else m for m in margins)
    cells = sum(int(np.prod(cells_of([axes[name] for name in margin]))) for margin in keyed)
    if cells > MOST_CELLS:
        raise UsageError(f"margins: got {cells:,} cells; want at most {MOST_CELLS:,} (fewer classes, or groups)")
    used = {name for margin in keyed for name in margin}
    return {name: axis for name, axis in axes.items() if name in used}, keyed


def columns(question: Question[Options]) -> tuple[str, ...]:
    counted(question)
    return tuple(axes_of(question))


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("counts")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    if ask.name != "counts":
        raise UsageError(f"marginals: unknown ask: got {ask.name!r}; want counts")
    axes, margins = counted(question)
    return margin_parts(axes, margins, question.options.weights, declared=question.privacy is not None)


def margin_parts(
    axes: Mapping[str, Axis], margins: Sequence[Sequence[str]], weights: Sequence[float] = (), *, declared: bool
) -> dict[str, Part]:
    """A part for each margin. declared: is it said what they are? Without it they leave no holder with rules."""
    return {
        f"margin_{i}": Part(
            cells_of([axes[name] for name in margin]),
            1.0,
            integer=True,
            single=True,
            share=weights[i] if weights else 1.0,
            what=Counts(tuple(axes[name].name for name in margin)) if declared else None,
        )
        for i, margin in enumerate(margins)
    }


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:  # noqa: ARG001
    found = counts(table, *counted(question))
    return {f"margin_{i}": array for i, array in enumerate(found)}


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    most = max(len(margin) for margin in margins_of(question.options))
    return Cells(tuple(name for name, axis in axes_of(question).items() if axis.levels), together=most)


def coordinate(question: Question[Options]) -> Coordination:
    total = yield Ask("counts")
    margins = margins_of(question.options)
    rows: list[Row] = []
    for i, margin in enumerate(margins):
        rows += margin_rows(margin, total[f"margin_{i}"], total.noise[f"margin_{i}"])
    facts = {} if question.privacy else {"records": int(total["margin_0"].sum())}
    found = measured("marginals", f"{len(margins)} margins", rows, private=question.privacy is not None)
    return found.with_(facts=facts)


def margin_rows(margin: Sequence[str], count: NDArray[Any], noise: NDArray[Any]) -> list[Row]:
    """A row for each cell of a margin: its columns, its place among their cells (row by row), count and noise."""
    name = " x ".join(margin)
    return [
        {"margin": name, "cell": place, "count": float(value), "std_error": float(error)}
        for place, (value, error) in enumerate(zip(np.ravel(count), np.ravel(noise), strict=True))
    ]


def measured(analysis: str, title: str, rows: list[Row], *, private: bool, notes: Sequence[str] = ()) -> Result:
    """The result of one that counts margins."""
    basis = {"cells": Basis(keys=("margin", "cell"), counts=("count",), own=("std_error",))} if private else {}
    said = "std_error: the privacy noise of a count; counts of different margins are not sums of each other"
    keys = {"cells": ("margin", "cell")}
    return Result(
        analysis, title, {"cells": rows}, keys=keys, notes=(*([said] if private else []), *notes), basis=basis
    )
