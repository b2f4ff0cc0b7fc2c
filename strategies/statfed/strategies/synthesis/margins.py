"""`margins`: records drawn from published tables alone, fitted to each other by iterative proportional fitting.

What is asked are ordinary tables (analysis `table`) of columns with levels, each under the rules of a release, so that
what is learnt is what could be published as tables: no model of persons. Numbers and dates come as their classes, which
the codebook has to give as columns with levels, or not at all. A suppressed cell is not known: within its margins it
gets what independence gives it (the iteration starts there and moves by what is known).

The joint distribution of all columns is the one of maximum entropy among those with the told margins: log-linear, and
fitted on the cells of all columns together where they are few enough (Deming and Stephan 1940; Raab 2026 on synthetic
data from coarsened, checked tables). For more columns give margins that chain, and fewer columns.

*With noise* all margins are one question (`marginals`): a record is in one cell of each, and every margin gets the same
share of the budget, so that the privacy is that of the sums; all that follows is post-processing (Dwork and Roth 2014,
proposition 2.1). Noisy counts contradict each other and can be negative. They are brought to agree on the columns that
they share, by means in which each counts by its variance (Qardaji, Yang and Li 2014, section 4.3), and to be no
negative (projection onto a simplex), by turns. A cell that is 0 then may have records: it gets a hundredth of its
standard error, so that zeros of several margins leave no cell that others know of without a place. A missing value is
a cell as any other, and is drawn as often. A table without noise has none: its records are those that have values, and
so are those that are drawn; a column that nobody has a value of is refused.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.result import Result, check_places
from statfed.core.section import Section
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.core.synthetic.coded import described
from statfed.strategies.synthesis._axes import counts_in
from statfed.strategies.synthesis._latent import projected

TITLE = "Records from published tables, by iterative proportional fitting"
PRIVATE: Private = "possible"
EXTRA = ""
MOST_CELLS = 5_000_000
"""Cells of all columns together."""
_ROUNDS, _CLOSE = 200, 1e-6
_TURNS, _AGREED = 500, 1e-9  # of bringing noisy margins together, and a share of the records that is none
_FLOOR = 0.01  # of a standard error
Floats = NDArray[np.float64]


class Options(Section):
    """Options of margins."""

    columns: tuple[str, ...] = Field(default=(), description="columns with levels; none: all of the codebook's")
    margins: tuple[tuple[str, ...], ...] = Field(
        default=(), description="tables that are asked for, of up to 4 columns each; none: of every two columns"
    )


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """Ask for the tables, and keep them as they were told: null for a cell that was withheld."""
    names, tables = _asked(codebook, options)
    found: list[dict[str, Any]] = []
    for table in tables:
        result = ask("table", rows=table)
        counts = _told(result, table, codebook)
        if not any(count is None or count > 0 for count in counts):
            raise UsageError(
                f"margins: got no record with values of {' and '.join(table)}; want columns that have some together "
                "(option columns, or margins)"
            )
        found.append({"columns": list(table), "counts": counts})
    return {"columns": list(names), "missing": [], "tables": found}


def fit_private(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """Ask for all margins with noise at once, and keep tables that agree and have no negative count."""
    names, tables = _asked(codebook, options)
    result = ask("marginals", margins=tables)
    missing = [name for name in names if not codebook.columns[name].required]
    shape = _shape(codebook, names, missing)
    errors = {str(row["margin"]): float(row["std_error"] or 0.0) for row in result.tables["cells"]}
    cells = dict(zip(names, shape, strict=True))
    noisy = {table: counts_in(result, table, tuple(cells[name] for name in table)) for table in tables}
    found: list[dict[str, Any]] = []
    for table, counts in agreeing(noisy).items():
        known = np.maximum(counts, _FLOOR * errors[" x ".join(table)])
        found.append({"columns": list(table), "counts": [float(count) for count in known.ravel()]})
    return {"columns": list(names), "missing": missing, "tables": found}


def _shape(codebook: Codebook, names: Sequence[str], missing: Sequence[str]) -> tuple[int, ...]:
    """Cells of each column: its levels, and one for a missing value, the last, of those in `missing`."""
    return tuple(len(codebook.category(name).levels) + (name in missing) for name in names)


def _asked(codebook: Codebook, options: Options) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Columns, and the tables of them. Raises UsageError on columns without levels, and on too many cells."""
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
    check_places(names)
    shape = _shape(codebook, names, [name for name in names if not codebook.columns[name].required])
    if not names or np.prod([float(size) for size in shape]) > MOST_CELLS:
        raise UsageError(f"margins: got {len(names)} columns of {shape}; want at most {MOST_CELLS:,} cells in all")
    return names, tables


def agreeing(noisy: Mapping[tuple[str, ...], Floats]) -> dict[tuple[str, ...], Floats]:
    """Counts near noisy ones of equal variance, none negative, that say the same of columns that they share.

    noisy: by columns, an axis each. Raises UsageError where they say that there are no records.
    """
    shared = {frozenset[str]()}
    for table in noisy:
        shared |= {one & frozenset(table) for one in shared} | {frozenset(table) & frozenset(other) for other in noisy}
    grown = True
    while grown:
        more = {one & other for one in shared for other in shared}
        shared, grown = shared | more, not more <= shared
    found = {table: np.asarray(counts, np.float64) for table, counts in noisy.items()}
    for turn in range(_TURNS):
        for columns in sorted(shared, key=lambda one: (len(one), sorted(one))):
            _agree(found, sorted(columns))
        total = float(next(iter(found.values())).sum())
        if total < 1:
            raise UsageError(f"margins: got counts that add up to {total:.3g}; want records, or less noise")
        least = min(float(counts.min()) for counts in found.values())
        if least >= -_AGREED * total or turn == _TURNS - 1:
            break
        found = {table: projected(counts, total) for table, counts in found.items()}
    return {table: np.maximum(counts, 0.0) for table, counts in found.items()}


def _agree(found: dict[tuple[str, ...], Floats], columns: Sequence[str]) -> None:
    """Move tables that have all these columns so that they have the same counts of them: the mean of what they say,
    by the inverse of the number of cells that are summed, each of a table's cells by the same amount."""
    said: dict[tuple[str, ...], tuple[Floats, int]] = {}
    for table, counts in found.items():
        if {*columns} <= {*table}:
            others = tuple(axis for axis, name in enumerate(table) if name not in columns)
            kept = [name for name in table if name in columns]
            sums = counts.sum(axis=others).transpose([kept.index(name) for name in columns])
            said[table] = np.asarray(sums, np.float64), counts.size // max(sums.size, 1)
    if len(said) < 2:
        return
    mean = sum(sums / size for sums, size in said.values()) / sum(1 / size for _, size in said.values())
    for table, (sums, size) in said.items():
        kept = [name for name in table if name in columns]
        step = ((mean - sums) / size).transpose([list(columns).index(name) for name in kept])
        others = tuple(axis for axis, name in enumerate(table) if name not in columns)
        found[table] = found[table] + np.expand_dims(step, others)


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

    Each table is taken as shares of its own total. Where no distribution has all of them, as noise or rounding makes
    them, the last rounds move by the geometric mean of what they ask for, which settles between them. Raises UsageError
    where their zeros leave no cell, or all are withheld.
    """
    names: list[str] = list(model["columns"])
    shape = _shape(codebook, names, model.get("missing", ()))
    joint = np.full(shape, 1.0 / np.prod(shape))
    told = [_Told.of(one, names, shape) for one in model["tables"]]
    known = [one for one in told if one.share is not None]
    if not known:
        raise UsageError("margins: got tables of which every cell was withheld; want coarser ones")
    off = np.inf
    for _ in range(_ROUNDS):
        off = 0.0
        for one in known:
            factor, wrong = one.factor(joint)
            joint *= factor
            off = max(off, wrong)
        if off < _CLOSE:
            break
    for _ in range(_ROUNDS if off >= _CLOSE else 0):
        mean = np.ones_like(joint)
        for one in known:
            mean *= one.factor(joint)[0] ** (1 / len(known))
        joint *= mean / max(float((joint * mean).sum()), np.finfo(float).tiny)
    if not joint.sum() > 0:
        raise UsageError("margins: got tables whose zeros leave no cell; want tables that do not contradict each other")
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

    def factor(self, joint: Floats) -> tuple[Floats, float]:
        """What brings the joint's margin to what is told, cells that are not known among themselves as they were, and
        how far the largest cell was off."""
        margin, share = joint.sum(axis=self.others), self.share
        if share is None:
            return np.ones([1] * joint.ndim), 0.0
        known = ~np.isnan(share)
        open_ = float(margin[~known].sum())
        wanted = np.where(known, np.nan_to_num(share) * (1 - open_), margin)
        factor = np.divide(wanted, margin, out=np.zeros_like(margin), where=margin > 0)
        return np.expand_dims(factor, self.others), float(np.abs(wanted - margin).max())


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Independent draws from the fitted cells."""
    joint = fitted(model, codebook)
    drawn = rng.choice(joint.size, count, p=joint.ravel())
    places = np.unravel_index(drawn, joint.shape)
    found = {}
    for name, place in zip(model["columns"], places, strict=True):
        levels = len(codebook.category(name).levels)
        found[name] = np.where(place == levels, -1, place).astype(np.int64)
    return found
