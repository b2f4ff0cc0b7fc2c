"""`copula`: a Gaussian copula from counts alone: one question, with a private form.

Asked are all margins of one column on public classes, and of every two on coarser public groups of those. From the
first come the columns' own distributions; from each of the others the correlation of two standard normals of which the
columns are classes: polychoric, by maximum likelihood given the thresholds (Olsson 1979, two steps). The matrix of them
is replaced by the nearest correlation matrix (Higham 2002), and records are drawn as classes of normals with it.

*Order.* Numbers and dates have theirs. Levels have that of the codebook where an option says so; else that of their
scores on the first factor of a multiple correspondence analysis of the same tables (the Burt matrix; Greenacre 2007,
chapter 18) in which columns that have an order keep it, by normal scores: along it columns are associated most.
The cell of missing values stands at the end of an order to which its score is nearer, and among levels where its score
puts it.

*Noise.* Counts are projected onto those that are not negative and have the total that the margins of one column say
together. A third of the budget goes to the margins of one column, the rest to those of two.

All dependence is of pairs, and monotone in those orders: interactions and bends are lost. Values are drawn evenly
within classes (`_axes.drawn`), of which some are one value alone (`_classes`).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import ndtr

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.section import Section
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.strategies.analyses._classes import Axis, alone, axis_of
from statfed.strategies.synthesis._axes import axes, axis_from, axis_json, counts_in, drawn
from statfed.strategies.synthesis._latent import first_factor, nearest_correlation, polychoric, projected

TITLE = "A Gaussian copula: margins and correlations of latent normals, from counts"
PRIVATE: Private = "possible"
EXTRA = ""
MOST_COLUMNS = 60
_ONE_WAY = 1 / 3  # share of the budget
Floats = NDArray[np.float64]


class Options(Section):
    """Options of copula."""

    columns: tuple[str, ...] = Field(default=(), description="columns; none: all that have levels or bounds")
    classes: int = Field(default=64, ge=2, le=1000, description="most classes of a number or date")
    groups: int = Field(default=8, ge=2, le=100, description="most groups of those classes in tables of two columns")
    ordered: tuple[str, ...] = Field(default=(), description="columns whose levels are in order in the codebook")


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """Distributions, orders and correlations, all from one question."""
    fine = axes(codebook, options.classes, options.columns)
    names = tuple(fine)
    if len(names) > MOST_COLUMNS:
        raise UsageError(f"copula: got {len(names)} columns; want at most {MOST_COLUMNS}")
    if astray := sorted(set(options.ordered) - {name for name in names if fine[name].levels}):
        raise UsageError(f"copula: ordered: got {', '.join(astray)}; want columns that have levels and are modelled")
    groups = {name: _groups(axis, codebook, options.groups) for name, axis in fine.items()}
    coarse = {name: found for name, found in groups.items() if max(found) + 1 < len(found)}
    pairs = tuple(combinations(names, 2))
    alone = _ONE_WAY / len(names) if pairs else 1.0
    together = [(1 - _ONE_WAY) / len(pairs)] * len(pairs)
    margins = (*((name,) for name in names), *pairs)
    result = ask(
        "marginals", margins=margins, classes=options.classes, coarse=coarse, weights=(*[alone] * len(names), *together)
    )
    told = {name: counts_in(result, (name,), (fine[name].cells,)) for name in names}
    total = _total(list(told.values()))
    shares = {name: projected(counts, total) / total for name, counts in told.items()}
    merged: dict[str, Floats] = {name: _merged(shares[name], groups[name]) for name in names}
    shape = {name: len(one) for name, one in merged.items()}
    tables = {
        pair: projected(counts_in(result, pair, (shape[pair[0]], shape[pair[1]])), total) / total for pair in pairs
    }
    in_order = {name: axis.missing for name, axis in fine.items() if not axis.levels or name in options.ordered}
    scores = first_factor(merged, tables, in_order)
    order = {name: _order(fine[name], groups[name], scores[name], name in options.ordered) for name in names}
    correlations = np.eye(len(names))
    for a, b in combinations(range(len(names)), 2):
        first, second = names[a], names[b]
        table = tables[first, second][
            np.ix_(_along(order[first], groups[first]), _along(order[second], groups[second]))
        ]
        rho = polychoric(
            table,
            merged[first][_along(order[first], groups[first])],
            merged[second][_along(order[second], groups[second])],
        )
        correlations[a, b] = correlations[b, a] = rho
    return {
        "axes": {name: axis_json(axis) for name, axis in fine.items()},
        "shares": {name: share.tolist() for name, share in shares.items()},
        "order": {name: [int(cell) for cell in one] for name, one in order.items()},
        "correlations": nearest_correlation(correlations).tolist(),
    }


def _total(counts: Sequence[Floats]) -> float:
    """The number of records: the mean of what the margins say, each of which has noise of its cells."""
    weight = np.array([1 / len(one) for one in counts])
    total = float((weight * [one.sum() for one in counts]).sum() / weight.sum())
    if total < 1:
        raise UsageError(f"copula: got counts that add up to {total:.3g}; want records, or less noise")
    return total


def _groups(axis: Axis, codebook: Codebook, most: int) -> tuple[int, ...]:
    """Public groups of the cells of a column: of classes those whose middles are in one of `most` coarser classes."""
    if axis.levels:
        return tuple(range(axis.cells))
    lows, highs = np.array(axis.edges[:-1]), np.array(axis.edges[1:])
    middles = np.where(alone(axis), lows, (lows + highs) / 2)
    place = np.searchsorted(axis_of(codebook, axis.name, most).edges[1:-1], middles, side="right")
    _, groups = np.unique(place, return_inverse=True)
    found = [int(group) for group in groups]
    return (*found, *([found[-1] + 1] if axis.missing else []))


def _merged(shares: Floats, groups: Sequence[int]) -> Floats:
    """Shares of the groups."""
    return np.asarray(np.bincount(groups, weights=shares), np.float64)


def _order(axis: Axis, groups: Sequence[int], scores: Floats, ordered: bool) -> NDArray[np.int64]:
    """The cells of a column as they stand along its latent normal."""
    if axis.levels and not ordered:
        return np.argsort(scores, kind="stable")
    known = np.arange(axis.cells - axis.missing)
    if not axis.missing:
        return known
    along = scores[np.array(groups)[known]]
    slope = float(((known - known.mean()) * (along - along.mean())).sum())
    last = slope * (scores[groups[-1]] - along.mean()) >= 0
    return np.array([*known, axis.cells - 1] if last else [axis.cells - 1, *known])


def _along(order: NDArray[np.int64], groups: Sequence[int]) -> list[int]:
    """Groups in the order of their cells."""
    return list(dict.fromkeys(groups[int(cell)] for cell in order))


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Records as classes of correlated normals. Raises UsageError on a model that is none."""
    told: Mapping[str, Any] = model["axes"]
    correlations = np.array(model["correlations"], np.float64)
    if correlations.shape != (len(told), len(told)):
        raise UsageError(f"model: got correlations of shape {correlations.shape}; want one row for each column")
    places, vectors = np.linalg.eigh(correlations)
    root = vectors * np.sqrt(np.maximum(places, 0.0))
    normals = rng.standard_normal((count, len(told))) @ root.T
    found = {}
    for place, (name, one) in enumerate(told.items()):
        axis, order = axis_from(name, one), np.array(model["order"][name])
        shares = np.array(model["shares"][name], np.float64)[order]
        limits = np.cumsum(shares / shares.sum())
        limits[np.flatnonzero(shares > 0)[-1] :] = 1.0  # rounding draws no cell that has no share
        cells = order[np.searchsorted(limits, ndtr(normals[:, place]), side="left")]
        found[name] = drawn(axis, codebook.columns[name], cells, rng)
    return found
