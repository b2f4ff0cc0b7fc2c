"""Survey weights, strata and PSUs in synthetic data: what is done with them, and figures by weight.

*Fit.* The weight (role `weight`) is synthesised as any number is, and wants bounds: so that it goes with the columns it
depends on, as far as a method keeps what two columns have together. It is no weight of the fit: counts are of records,
so that a bound on what one record adds holds whatever its weight is, and the synthetic records are like the *sample*.
To leave it out name the other columns (option `columns`). Strata are categories as others are. PSUs, replicate weights
and units are left out: which records lie together is lost, and a variance that takes clusters into account cannot be
had from synthetic records.

*Evaluation.* Where a codebook has a weight, margins and columns by themselves are compared twice: as records, the
weight being a column, and by weight, of each table its own, over the other columns. Coefficients are by weight on both
sides, where an analysis has `design`; strata and PSUs are in neither. What a figure is about says `weighted` or
`unweighted`. All other measures of utility are of records, and so are risks: who is attacked is a record. Synthetic
records without the weight are evaluated with a codebook without it: nothing is then by weight. Without pooling all is
of records.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Design
from statfed.core.errors import UsageError
from statfed.core.synthetic.coded import Coded, grid_of
from statfed.core.synthetic.measured import Measured

if TYPE_CHECKING:
    from statfed.core.synthetic.coded import Grid

_LEFT_OUT = ("psu", "replicate")
Floats = NDArray[np.float64]


def survey_notes(codebook: Codebook) -> tuple[str, ...]:
    """What people have to know of a codebook's design; nothing where it has none."""
    weight = codebook.role("weight")
    lost = [name for role in _LEFT_OUT for name in codebook.with_role(role)]
    strata = codebook.with_role("stratum")
    found = []
    if weight is not None:
        found.append(f"Weight {weight}: synthesised as a number is; records are like the sample, not the population.")
    if strata:
        found.append(f"Strata {', '.join(strata)}: synthesised as categories, and no design of the synthetic records.")
    if lost:
        found.append(f"Left out: {', '.join(lost)} (PSU or replicate weights): no variance for clusters can be had.")
    return tuple(found)


def unweighted(found: Sequence[Measured], codebook: Codebook) -> list[Measured]:
    """The same figures; where the codebook has a weight, those of utility that do not say so say that they are
    unweighted."""
    if codebook.role("weight") is None:
        return list(found)
    return [
        one if one.kind != "utility" or "weighted" in one.about else replace(one, about=_said(one.about, "unweighted"))
        for one in found
    ]


def _said(about: str, word: str) -> str:
    return f"{about}, {word}" if about else word


def by_weight(codebook: Codebook) -> Codebook:
    """The codebook of which `design` is the weight alone: both an original and a synthetic table have it."""
    gone = {name for role in _LEFT_OUT for name in codebook.with_role(role)}
    columns = {
        name: column.model_copy(update={"role": None}) if column.role == "stratum" else column
        for name, column in codebook.columns.items()
        if name not in gone
    }
    return codebook.model_copy(update={"columns": columns, "rules": (), "design": Design()})


def weighted_figures(
    original: Coded, synthetic: Coded, fresh: Coded | None, bins: int = 10, ways: Sequence[int] = (1, 2)
) -> list[Measured]:
    """Mean total variation distance of margins of one and of two columns, by the weight of each table itself; cells of
    numbers as `grid_of` has them. Nothing where the codebook has no weight.

    Raises UsageError where weights are missing, or add up to nothing.
    """
    weight = original.codebook.role("weight")
    names = tuple(name for name in original.names if name != weight)
    if weight is None or weight not in original.columns or not names:
        return []
    grid = grid_of(original, bins, names)
    there = _distribution(original, weight, grid)
    others = [_distribution(table, weight, grid) for table in (synthetic, fresh) if table is not None]
    found = []
    for count in ways:
        sets = [one for one in there if len(one) == count]
        if not sets:
            continue
        value, *rest = (float(np.mean([np.abs(there[s] - other[s]).sum() / 2 for s in sets])) for other in others)
        baseline = rest[0] if rest else None
        excess = None if baseline is None else value - baseline
        about = f"{count} column{'s' * (count > 1)} at a time, weighted"
        found.append(Measured("margins", "utility", value, baseline=baseline, excess=excess, n=len(sets), about=about))
    return found


def _distribution(table: Coded, weight: str, grid: "Grid") -> dict[tuple[int, ...], Floats]:
    """Shares by weight of the cells of every column and of every two."""
    weights = np.asarray(table.columns[weight], np.float64)
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
        raise UsageError(f"{weight}: got weights that are missing, below 0 or all 0; want some above 0")
    codes, sizes = grid.codes(table), grid.sizes
    found: dict[tuple[int, ...], Floats] = {}
    for a in range(len(sizes)):
        for b in range(a, len(sizes)):
            cells = codes[:, a] if a == b else codes[:, a] * sizes[b] + codes[:, b]
            length = sizes[a] if a == b else sizes[a] * sizes[b]
            key: tuple[int, ...] = (a,) if a == b else (a, b)
            found[key] = np.bincount(cells, weights=weights, minlength=length) / weights.sum()
    return found
