"""From records to cells and back: the public cells of a codebook's columns, and values drawn within them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.synthetic.coded import described
from statfed.strategies.analyses._classes import Axis, alone, axis_of
from statfed.strategies.analyses._merging import projected

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def axes(codebook: Codebook, classes: int, names: Sequence[str] = ()) -> dict[str, Axis]:
    """The cells of columns, by default of all that have levels or an order. Raises UsageError for one without bounds,
    and where none is left."""
    chosen = tuple(names) or described(codebook)
    if not chosen:
        raise UsageError("codebook: got no columns with levels or bounds; want some to make records of")
    return {name: axis_of(codebook, name, classes) for name in chosen}


def drawn(axis: Axis, column: Column, cells: Ints, rng: np.random.Generator) -> NDArray[Any]:
    """Values for cells, (n,), as `Coded` has them: of a class evenly drawn between its edges, of whole numbers and days
    one of those in it; -1 or NaN for the cell of missing values. A class of one value alone gives that value."""
    gone = (cells == axis.cells - 1) if axis.missing else np.zeros(len(cells), np.bool_)
    if axis.levels:
        return np.where(gone, -1, cells).astype(np.int64)
    edges = np.array(axis.edges)
    place = np.where(gone, 0, cells)
    low, high = edges[place], edges[place + 1]
    values = np.where(alone(axis)[place], low, low + (high - low) * rng.random(len(cells)))
    if column.type in ("integer", "date"):
        values = np.floor(values)
    bounds = column.bounds or (-np.inf, np.inf)
    return np.where(gone, np.nan, np.clip(values, *bounds))


def unmerged(axis: Axis, groups: Ints, weights: Floats, rng: np.random.Generator) -> Ints:
    """A cell of each group, (n,), drawn by the cells' weights (cells,); evenly where their sum in it is not above 0.

    Weights below 0, as noise makes them, are projected away (`projected`): cut off at 0 they would leave the mass of
    the noise above it to many empty cells.
    """
    if axis.groups is None:
        return groups
    found = np.empty(len(groups), np.int64)
    of_cell = np.array(axis.groups)
    for group in np.unique(groups):
        cells = np.flatnonzero(of_cell == group)
        chance = projected(weights[cells], float(weights[cells].sum()))
        chance = chance / chance.sum() if chance.sum() > 0 else np.full(len(cells), 1 / len(cells))
        here = groups == group
        found[here] = rng.choice(cells, int(here.sum()), p=chance)
    return found


def counts_in(result: Result, margin: Sequence[str], shape: Sequence[int]) -> Floats:
    """The counts of one margin of a result of `marginals`, of this shape. Raises UsageError where some are missing: a
    count that was withheld is no 0."""
    name = " x ".join(margin)
    rows = [row for row in result.tables["cells"] if row["margin"] == name]
    values = [row["count"] for row in sorted(rows, key=lambda row: int(str(row["cell"])))]
    if len(values) != int(np.prod(shape)) or any(value is None for value in values):
        raise UsageError(f"{name}: got {len(values)} cells, some withheld; want {int(np.prod(shape))} that are told")
    return np.array(values, np.float64).reshape(shape)


def axis_json(axis: Axis) -> dict[str, Any]:
    """An axis for a model's file."""
    told: dict[str, Any] = {"edges": list(axis.edges)} if axis.edges else {"levels": list(axis.levels)}
    return told | {"missing": axis.missing} | ({} if axis.groups is None else {"groups": list(axis.groups)})


def axis_from(name: str, told: Mapping[str, Any]) -> Axis:
    """An axis of a model's file."""
    groups = told.get("groups")
    return Axis(
        name,
        tuple(told.get("levels", ())),
        tuple(float(edge) for edge in told.get("edges", ())),
        bool(told["missing"]),
        None if groups is None else tuple(int(group) for group in groups),
    )
