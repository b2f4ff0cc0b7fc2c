"""A graphical model of noisy counts, as a file and as a source of records: what `mst` and `aim` have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.synthesis import Ask, Columns, Model
from statfed.strategies.analyses._classes import Axis
from statfed.strategies.analyses._graph import Junction
from statfed.strategies.analyses._merging import projected
from statfed.strategies.analyses._structure import Options, model_of, told_of
from statfed.strategies.synthesis._axes import axes, axis_from, axis_json, drawn, unmerged

STEPS = 400
"""Of mirror descent."""
_DIGITS = 6


def fit(method: str, ask: Ask, codebook: Codebook, options: Options) -> Model:
    """One private study, and the model nearest to its counts. Raises UsageError, before it asks, where no column can be
    looked at."""
    axes(codebook, options.classes, options.columns)
    return model(ask(method, **options.model_dump(exclude_defaults=True)), codebook, options.classes)


def model(released: Result, codebook: Codebook, classes: int) -> Model:
    """What follows from a result of `mst` or `aim`: cells and groups of every column, weights of the cells in each
    group, and the cliques' margins, as shares of all records."""
    found, told = told_of(released, codebook, classes)
    tree, margins = model_of(told, STEPS)
    weights = []
    for values, groups in zip(told.single, told.groups, strict=True):
        own = np.zeros(len(values))
        for group in np.unique(groups):
            cells = groups == group
            own[cells] = projected(values[cells], float(values[cells].sum()))
        weights.append(_told(own))
    merged = [axis.merged(groups.tolist()) for axis, groups in zip(found, told.groups, strict=True)]
    return {
        "columns": {
            axis.name: {"axis": axis_json(axis), "weights": own} for axis, own in zip(merged, weights, strict=True)
        },
        "records": round(told.total),
        "pairs": [[found[a].name, found[b].name] for a, b in told.chosen],
        "cliques": [
            {"columns": [found[column].name for column in clique], "parent": up, "shares": _told(margin)}
            for clique, up, margin in zip(tree.cliques, tree.parents, margins, strict=True)
        ],
    }


def _told(values: NDArray[np.float64]) -> list[float]:
    return [float(f"{value:.{_DIGITS}g}") for value in np.ravel(values)]


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Groups along the tree, a cell in each by the weights, a value in each cell."""
    try:
        axes, weights, tree, margins = _read(model, codebook)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UsageError(
            f"model: got one that cannot be read ({type(error).__name__}); want one of mst or aim"
        ) from None
    groups = tree.drawn(margins, count, rng)
    found = {}
    for column, axis in enumerate(axes):
        cells = unmerged(axis, groups[:, column], weights[column], rng)
        found[axis.name] = drawn(axis, codebook.columns[axis.name], cells, rng)
    return found


def _read(
    model: Model, codebook: Codebook
) -> tuple[list[Axis], list[NDArray[np.float64]], Junction, list[NDArray[np.float64]]]:
    columns: Mapping[str, Mapping[str, Any]] = model["columns"]
    cliques: Sequence[Mapping[str, Any]] = model["cliques"]
    axes = [axis_from(name, told["axis"]) for name, told in columns.items()]
    names = list(columns)
    weights = [_shares(told["weights"], (axis.cells,)) for axis, told in zip(axes, columns.values(), strict=True)]
    sizes = tuple(axis.size for axis in axes)
    for axis in axes:
        codebook.column(axis.name)
    sets = tuple(tuple(names.index(name) for name in one["columns"]) for one in cliques)
    parents = tuple(int(one["parent"]) for one in cliques)
    ordered = all(list(one) == sorted({*one}) for one in sets) and parents[0] == -1
    if not ordered or any(not 0 <= up < place for place, up in enumerate(parents[1:], 1)):
        raise ValueError("cliques")
    if {column for one in sets for column in one} != {*range(len(axes))}:
        raise ValueError("columns")
    tree = Junction(sizes, sets, parents)
    for place, over in enumerate(tree.separators):
        earlier = {column for one in sets[:place] for column in one}
        if {*sets[place]} & earlier != {*over}:
            raise ValueError("separators")
    margins = [_shares(one["shares"], tree.shape(each)) for one, each in zip(cliques, sets, strict=True)]
    return axes, weights, tree, margins


def _shares(told: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    found = np.array(told, np.float64).reshape(shape)
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("shares")
    return found
