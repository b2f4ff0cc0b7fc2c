"""`margins`: records drawn from published tables alone, fitted to each other by iterative proportional fitting.

What is asked are ordinary tables (analysis `table`) of columns with levels, each under the rules of a release, so that
what is learnt is what could be published as tables: no model of persons. Numbers and dates come as their classes, which
the codebook has to give as columns with levels, or not at all. A suppressed cell is not known: within its margins it
gets what independence gives it (the iteration starts there and moves by what is known).

The joint distribution of all columns is the one of maximum entropy among those with the told margins: log-linear, and
fitted on the cells of all columns together where they are few enough (Deming and Stephan 1940; Raab 2026 on synthetic
data from coarsened, checked tables). For more columns give margins that chain, and fewer columns.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.section import Section
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.core.synthetic.coded import described

TITLE = "Records from published tables, by iterative proportional fitting"
PRIVATE: Private = "never"
EXTRA = ""
MOST_CELLS = 5_000_000
"""Cells of all columns together."""
_ROUNDS, _CLOSE = 200, 1e-6


class Options(Section):
    """Options of margins."""

    columns: tuple[str, ...] = Field(default=(), description="columns with levels; none: all of the codebook's")
    margins: tuple[tuple[str, ...], ...] = Field(
        default=(), description="tables that are asked for, of up to 4 columns each; none: of every two columns"
    )


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """Ask for the tables, and keep them as they were told: null for a cell that was withheld."""
    if codebook.folded is not None:
        raise UsageError(
            "margins: got a codebook of folded records, in whose tables slots without a member are left out; want mst, "
            "aim or cart, which keep them"
        )
    chosen = options.columns or tuple(n for n in described(codebook) if codebook.columns[n].levels)
    for name in chosen:
        codebook.category(name, "margins")
    tables = options.margins or (tuple(combinations(chosen, 2)) if len(chosen) > 1 else (chosen,))
    names = tuple(dict.fromkeys(name for table in tables for name in table))
    shape = tuple(len(codebook.category(name).levels) for name in names)
    if not names or np.prod([float(size) for size in shape]) > MOST_CELLS:
        raise UsageError(f"margins: got {len(names)} columns of {shape}; want at most {MOST_CELLS:,} cells in all")
    found: list[dict[str, Any]] = []
    for table in tables:
        result = ask("table", share=1 / len(tables), rows=table)
        found.append({"columns": list(table), "counts": _told(result, table, codebook)})
    return {"columns": list(names), "tables": found}


def _told(result: Result, by: Sequence[str], codebook: Codebook) -> list[float | None]:
    places = [{level: i for i, level in enumerate(codebook.columns[name].levels)} for name in by]
    shape = tuple(len(one) for one in places)
    counts: list[float | None] = [None] * int(np.prod(shape))
    for row in result.tables["cells"]:
        cell = np.ravel_multi_index([place[str(row[name])] for place, name in zip(places, by, strict=True)], shape)
        value = row.get("count")
        counts[int(cell)] = None if value is None else max(float(value), 0.0)
    return counts


def fitted(model: Model, codebook: Codebook) -> NDArray[np.float64]:
    """Shares of the cells of all columns together, in the order of `columns`.

    Where tables say different totals, as noise or rounding makes them, each is scaled to their mean. Raises UsageError
    where the told cells contradict each other so that no distribution has them, or all are withheld.
    """
    names: list[str] = list(model["columns"])
    shape = tuple(len(codebook.category(name).levels) for name in names)
    joint = np.full(shape, 1.0 / np.prod(shape))
    told = [_Told.of(one, names, shape) for one in model["tables"]]
    known = [one for one in told if one.share is not None]
    if not known:
        raise UsageError("margins: got tables of which every cell was withheld; want coarser ones")
    off = np.inf
    for _ in range(_ROUNDS):
        off = max(one.adjust(joint) for one in known)
        if off < _CLOSE:
            break
    return np.asarray(joint / joint.sum(), np.float64)


class _Told:
    """One table as shares of all records, with what is not known left open."""

    def __init__(self, axes: tuple[int, ...], others: tuple[int, ...], share: NDArray[np.float64] | None) -> None:
        self.axes, self.others, self.share = axes, others, share

    @classmethod
    def of(cls, told: Mapping[str, Any], names: Sequence[str], shape: Sequence[int]) -> "_Told":
        axes = tuple(names.index(name) for name in told["columns"])
        counts = np.array([np.nan if value is None else value for value in told["counts"]], np.float64)
        counts = counts.reshape([shape[axis] for axis in axes])
        order = tuple(np.argsort(axes))
        counts = counts.transpose(order)
        others = tuple(axis for axis in range(len(shape)) if axis not in axes)
        total = np.nansum(counts)
        return cls(tuple(sorted(axes)), others, counts / total if total > 0 else None)

    def adjust(self, joint: NDArray[np.float64]) -> float:
        """Bring the joint's margin to what is told, cells that are not known among themselves as they were. Returns how
        far the largest cell was off."""
        margin = joint.sum(axis=self.others)
        share = self.share
        if share is None:
            return 0.0
        known = ~np.isnan(share)
        open_ = float(margin[~known].sum())
        wanted = np.where(known, np.nan_to_num(share) * (1 - open_), margin)
        factor = np.divide(wanted, margin, out=np.zeros_like(margin), where=margin > 0)
        joint *= np.expand_dims(factor, self.others)
        return float(np.abs(wanted - margin).max())


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Independent draws from the fitted cells."""
    joint = fitted(model, codebook)
    drawn = rng.choice(joint.size, count, p=joint.ravel())
    places = np.unravel_index(drawn, joint.shape)
    return {name: place.astype(np.int64) for name, place in zip(model["columns"], places, strict=True)}
