"""`cart`: each column in turn drawn from the leaves of a tree on those before it (as synthpop does).

Trees are grown by one question (analysis `cart`): exact, so that the model is as confidential as its leaves: counts of
no fewer records than the smallest leaf has, but of the records themselves. What is drawn is a *cell* of the column,
from the leaf of the cells that were drawn before, and a value anywhere in that cell: never the value of a record, other
than where a cell has one value only. That is no protection by itself: combinations of cells can be those of a person.

The order of the columns matters: those that others depend on first, those with many levels last. Sources: Reiter 2005
(Journal of Official Statistics 21); Nowok, Raab and Dibben 2016 (Journal of Statistical Software 74(11)).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.section import Section
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.strategies.analyses._trees import Floats, Ints, Split, Walker
from statfed.strategies.synthesis._axes import axes, axis_from, axis_json, drawn

TITLE = "Sequential trees: each column from the leaves of a tree on those before it"
PRIVATE: Private = "never"
EXTRA = ""


class Options(Section):
    """Options of cart."""

    columns: tuple[str, ...] = Field(default=(), description="columns in their order; none: as in the codebook")
    classes: int = Field(default=64, ge=2, le=1000, description="most classes of a number or date")
    smallest: int = Field(default=10, ge=1, le=1_000_000, description="fewest records of a leaf")
    depth: int = Field(default=15, ge=0, le=60, description="most splits between the root and a leaf")


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """Trees and leaves, from one question."""
    found = axes(codebook, options.classes, options.columns)
    result = ask("cart", columns=tuple(found), classes=options.classes, smallest=options.smallest, depth=options.depth)
    names = list(found)
    trees: dict[str, dict[str, Any]] = {name: {"splits": [], "leaves": {}} for name in names}
    for row in result.tables["splits"]:
        left = [int(cell) for cell in str(row["left"]).split()]
        by = names.index(str(row["by"]))
        trees[str(row["column"])]["splits"].append({"node": row["node"], "by": by, "left": left})
    for row in result.tables["leaves"]:
        if row["count"] is None:
            raise UsageError("cart: got leaves of which some are withheld; want counts that are told")
        leaves = trees[str(row["column"])]["leaves"].setdefault(str(row["node"]), [[], []])
        leaves[0].append(row["cell"])
        leaves[1].append(row["count"])
    if not trees[names[0]]["leaves"]:
        raise UsageError("cart: got no records; want some")
    return {"axes": {name: axis_json(axis) for name, axis in found.items()}, "trees": trees}


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Column by column, with one random number for the cell of each record, and one for the place in it."""
    read = {name: axis_from(name, one) for name, one in model["axes"].items()}
    sizes = [axis.cells for axis in read.values()]
    codes = np.zeros((count, len(read)), np.int64)
    found = {}
    for place, (name, axis) in enumerate(read.items()):
        told: Mapping[str, Any] = model["trees"][name]
        leaf = _walker(told, sizes).leaves(codes[:, :place])
        codes[:, place] = _cells(told["leaves"], leaf, rng.random(count))
        found[name] = drawn(axis, codebook.columns[name], codes[:, place], rng)
    return found


def _walker(told: Mapping[str, Any], sizes: list[int]) -> Walker:
    splits = []
    for one in told["splits"]:
        left = np.isin(np.arange(sizes[one["by"]]), one["left"])
        splits.append(Split(one["node"], one["by"], left))
    return Walker(tuple(splits))


def _cells(leaves: Mapping[str, Any], leaf: Ints, chance: Floats) -> Ints:
    """A cell for each record, by the counts of its leaf: the first whose share, with those of cells before it, is above
    the random number."""
    found = np.empty(len(leaf), np.int64)
    order = np.argsort(leaf, kind="stable")
    nodes, starts = np.unique(leaf[order], return_index=True)
    for node, here in zip(nodes, np.split(order, starts[1:]), strict=True):
        if str(node) not in leaves:
            raise UsageError(f"model: got no leaf {node}; want the counts of every leaf")
        cells, counts = leaves[str(node)]
        limits = np.cumsum(counts)
        place = np.searchsorted(limits, chance[here] * limits[-1], side="right")
        found[here] = np.array(cells)[np.minimum(place, len(cells) - 1)]
    return found
