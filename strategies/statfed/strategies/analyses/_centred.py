"""Variances of totals whose sampling units hardly differ beside their size: a second look about the units' own means.

Sums of squares about one centre (`_linearisation`) lose what differs where units are all much the same: weighted totals
of values near 10^8 that differ by 1, or numbers of units whose weights are constant in each stratum. Such a variance
shows itself by being small beside the squares that it is a difference of (`cancelled`). Then there is one ask more,
`centred`: for every stratum h and domain d the coordinator tells the ratio m = Y / X there and the mean c of X over
units, and gets, over the units with records there, sums of y = Y - m X and x = X - c and of their products, and how
many those units are. With units that have none (y = 0, x = -c) counted in, what is estimated per unit,
T = a Y + b X = a y + (b + a m) (x + c), varies as a y + (b + a m) x does, of which the mean is 0 but for rounding.
Source: Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.table import Expr, Table, real
from statfed.strategies.analyses._linearisation import Moments, factors
from statfed.strategies.analyses._moments import by_level, level_shape
from statfed.strategies.analyses._survey import SurveyDesign, cells

Floats = NDArray[np.float64]
ASK = "centred"
SMALL = 1e-5
"""A variance below this part of the squares that it comes from has lost a third of its digits, and more."""
MOST = 2_000
"""Strata times domains of a second look: each is a case of the holder's statement."""
PAIRS = {"yy": ("y", "y"), "yx": ("y", "x"), "xx": ("x", "x")}
_EPS = float(np.finfo(float).eps)


@dataclass(frozen=True)
class Centre:
    """m and c of the module, (measures, strata, domains) each."""

    ratio: Floats
    size: Floats

    @property
    def arrays(self) -> dict[str, Floats]:
        return {"ratio": self.ratio, "size": self.size}


def centre_of(n: Floats, found: Moments, mu: Floats) -> Centre:
    """From sums of Y - mu X and X over units. n: units per stratum; mu: (measures,)."""
    away = np.divide(found.y, found.x, out=np.zeros(found.x.shape), where=found.x != 0)
    n_h = np.maximum(n, 1.0)[None, :, None]
    return Centre(mu[:, None, None] + away, found.x / n_h)


def squares(n: Floats, m: Moments, a: Floats, b: Floats, lonely: str, *, exact_x: bool = False) -> Floats:
    """What the variance of a Y + b X is a difference of: (measures, domains), as a and b. exact_x: X is the number of
    records of a unit, whose part is a difference of whole numbers."""
    a, b = a[:, None, :], b[:, None, :]
    x_part = m.xx - m.x * m.x / np.maximum(n, 1.0)[None, :, None] if exact_x else m.xx
    each = a * a * m.yy + 2 * np.abs(a * b * m.yx) + b * b * np.abs(x_part)
    found: Floats = (factors(n, lonely)[None, :, None] * each).sum(axis=1)
    return found


def cancelled(n: Floats, m: Moments, a: Floats, b: Floats, squared: Floats, lonely: str, *, exact_x: bool) -> bool:
    """Has a variance, of those in `squared`, lost its digits?"""
    with np.errstate(invalid="ignore"):
        return bool((squared < SMALL * squares(n, m, a, b, lonely, exact_x=exact_x)).any())


def deviations(table: Table, keys: tuple[str, ...], values: Mapping[str, Expr], centre: Centre) -> list[Expr]:
    """y and x of the module by record, where each is its own unit."""
    k, shape = len(centre.ratio), level_shape(table.codebook, keys)
    ratio, size = (array.reshape(k, *shape) for array in (centre.ratio, centre.size))
    found: list[Expr] = []
    for i in range(k):
        m = by_level(table, keys, lambda at, i=i: real(ratio[(i, *at)]))  # type: ignore[misc]
        c = by_level(table, keys, lambda at, i=i: real(size[(i, *at)]))  # type: ignore[misc]
        found += [values[f"y{i}"] - m * values[f"x{i}"], values[f"x{i}"] - c]
    return found


def sums(
    sample: Table, design: SurveyDesign, by: tuple[str, ...], values: Mapping[str, Expr], centre: Centre
) -> dict[str, NDArray[Any]]:
    """`present`, `y`, `x`, `yy`, `yx` and `xx` at one holder, (measures, strata, domains) each.

    values: weighted numerators (`y0`, ...) and denominators (`x0`, ...) by record, null where a value is missing.
    """
    codebook, keys = sample.codebook, (*design.strata, *by)
    k, shape = len(centre.ratio), level_shape(sample.codebook, keys)
    ratio, size = (array.reshape(k, *shape) for array in (centre.ratio, centre.size))
    table = sample.complete(keys)
    each: dict[str, Expr] = {}
    for i in range(k):
        x = values[f"x{i}"]
        m = by_level(table, keys, lambda at, i=i: real(ratio[(i, *at)]))  # type: ignore[misc]
        each |= {f"_y{i}": values[f"y{i}"] - m * x, f"_x{i}": x}
    records = table.expr.mutate(**each)
    if design.psu is not None:
        grouped = records.group_by([records[name] for name in dict.fromkeys((*keys, design.psu))])
        records = grouped.aggregate(**{name: records[name].sum() for name in each})
    table = replace(table, expr=records)
    asked: dict[str, Expr] = {}
    for i in range(k):
        c = by_level(table, keys, lambda at, i=i: real(size[(i, *at)]))  # type: ignore[misc]
        unit = {"y": records[f"_y{i}"], "x": records[f"_x{i}"] - c}
        asked |= {f"_present{i}": unit["x"].count()} | {f"_{name}{i}": value.sum() for name, value in unit.items()}
        asked |= {f"_{name}{i}": (unit[p] * unit[q]).sum() for name, (p, q) in PAIRS.items()}
    found = table.grid(keys, **asked)
    axes = (design.cells(codebook), cells(codebook, by))
    return {
        name: np.stack([np.asarray(found[f"_{name}{i}"], kind).reshape(axes) for i in range(k)])
        for name, kind in {"present": np.int64, **dict.fromkeys(("y", "x", *PAIRS), np.float64)}.items()
    }


def variance(
    n: Floats, total: Mapping[str, NDArray[Any]], centre: Centre, a: Floats, b: Floats, mu: Floats, lonely: str
) -> Floats:
    """As that of `_linearisation`, for T = a (Y - mu X) + b X, from the total of `centred`; exactly 0 where T does not
    differ between units beyond rounding. (measures, domains)."""
    a, b, n_h = a[:, None, :], b[:, None, :], n[None, :, None]
    b = b + a * (centre.ratio - mu[:, None, None])
    absent = n_h - total["present"]
    y, x = total["y"], total["x"] - absent * centre.size
    xx = total["xx"] + absent * centre.size**2
    squares = a * a * total["yy"] + 2 * a * b * total["yx"] + b * b * xx
    squares = squares - np.where(n_h > 1, (a * y + b * x) ** 2 / np.maximum(n_h, 1), 0.0)
    rounding = 4 * _EPS * centre.size * (np.abs(a * centre.ratio) + np.abs(b))
    squares = np.where(squares <= n_h * rounding**2, 0.0, squares)
    alone = (a * y + b * (x + n_h * centre.size)) ** 2
    found: Floats = (factors(n, lonely)[None, :, None] * np.where(n_h > 1, squares, alone)).sum(axis=1)
    return found
