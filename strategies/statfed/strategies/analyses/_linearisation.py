"""Variance of totals over primary sampling units, from power sums that are additive over holders.

A PSU total is T = a Y + b X, with Y and X weighted sums over the PSU's records and a, b public. Per stratum h with n_h
PSUs, V = sum_h n_h / (n_h - 1) (sum T^2 - (sum T)^2 / n_h): a PSU without records in a domain has T = 0 there but
counts in n_h, which is how domains are estimated without subsetting the design. PSUs nested in holders are squared in
the holder's database; PSUs that span holders are sent as totals over their listed categories and squared here.
Source: Wolter 2007, Introduction to Variance Estimation, chapter 6; Lumley 2004, Analysis of complex survey samples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.table import Expr, Table
from statfed.strategies.analyses._survey import SurveyDesign, cells, ones

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Pooled sums over PSUs of Y, X, Y^2, YX and X^2: arrays (measures, strata, domains)."""

    y: Floats
    x: Floats
    yy: Floats
    yx: Floats
    xx: Floats


def psu_shape(design: SurveyDesign, codebook: Codebook) -> tuple[int, ...]:
    """Shape of the array that `psu_counts` gives: (strata,), or (strata, PSUs) where PSUs span holders."""
    spanning = (cells(codebook, (design.psu,)),) if design.spans and design.psu else ()
    return (design.cells(codebook), *spanning)


def psu_counts(table: Table, design: SurveyDesign) -> NDArray[np.int64]:
    """PSUs per stratum at one holder; where PSUs span holders, records per stratum and PSU. table: the sample."""
    shape = psu_shape(design, table.codebook)
    if design.psu is None or design.spans:
        by = (*design.strata, *((design.psu,) if design.psu else ()))
        return table.grid(by, n=ones(table).count())["n"].astype(np.int64).reshape(shape)
    return table.grid(design.strata, n=table[design.psu].nunique())["n"].astype(np.int64).reshape(shape)


def psus(design: SurveyDesign, counted: NDArray[np.int64]) -> Floats:
    """Number of PSUs in each stratum from the pooled `psu_counts`."""
    return ((counted > 0).sum(axis=1) if design.spans else counted).astype(np.float64)


def psu_sums(
    table: Table,
    design: SurveyDesign,
    by: Sequence[str],
    values: Mapping[str, Expr],
    products: Sequence[tuple[str, str]],
) -> dict[str, Floats]:
    """Sums over a holder's PSUs of PSU totals and of products of two of them; null values count 0.

    Arrays by name of value, and by `first*second`: (strata, domains). Where PSUs span holders there are no products
    and arrays are (strata, PSUs, domains). table: the sample.
    """
    codebook = table.codebook
    axes = (*psu_shape(design, codebook), cells(codebook, by))
    keys = (*design.strata, *((design.psu,) if design.psu and design.spans else ()), *by)
    asked: dict[str, Expr]
    if design.spans:
        asked = {name: value.sum() for name, value in values.items()}
    elif design.psu is None:
        asked = {name: value.sum() for name, value in values.items()}
        asked |= {f"{a}*{b}": (values[a] * values[b]).sum() for a, b in products}
    else:
        names = {name: f"_total_{i}" for i, name in enumerate(values)}
        inner = table.complete(keys).expr
        grouped = inner.group_by([inner[name] for name in dict.fromkeys((*keys, design.psu))])
        totals = grouped.aggregate(**{names[name]: value.sum() for name, value in values.items()})
        table = replace(table, expr=totals)
        asked = {name: totals[short].sum() for name, short in names.items()}
        asked |= {f"{a}*{b}": (totals[names[a]] * totals[names[b]]).sum() for a, b in products}
    found = table.grid(keys, **{f"_sum_{i}": value for i, value in enumerate(asked.values())})
    return {name: found[f"_sum_{i}"].astype(np.float64).reshape(axes) for i, name in enumerate(asked)}


def moments(arrays: Mapping[str, NDArray[Any]], spans: bool) -> Moments:
    """From pooled parts y, x (and, unless PSUs span holders, yy, yx, xx)."""
    y, x = arrays["y"], arrays["x"]
    if not spans:
        return Moments(y, x, arrays["yy"], arrays["yx"], arrays["xx"])
    return Moments(y.sum(axis=2), x.sum(axis=2), (y * y).sum(axis=2), (y * x).sum(axis=2), (x * x).sum(axis=2))


def factors(n: Floats, lonely: str) -> Floats:
    """n_h / (n_h - 1) for each stratum; 0 for strata without PSUs, or with one under `certainty`; else 1 for those."""
    return np.where(n > 1, n / np.maximum(n - 1, 1), np.where((n == 1) & (lonely == "adjust"), 1.0, 0.0))


def check_lonely(design: SurveyDesign, n: Floats) -> None:
    """Raises UsageError for strata with one PSU where the codebook's design refuses them."""
    alone = int((n == 1).sum())
    if design.declared and design.lonely == "refuse" and alone:
        strata = "stratum" if alone == 1 else "strata"
        raise UsageError(
            f"design: got {alone} {strata} with a single PSU; want two in each, or lonely_psu = "
            '"certainty" or "adjust" in the codebook\'s [design]'
        )


def variance(n: Floats, m: Moments, a: Floats, b: Floats, lonely: str) -> Floats:
    """Variance of the totals of a Y + b X: (measures, domains). n: PSUs per stratum; a, b: (measures, domains).

    lonely, for strata with one PSU: `certainty` counts nothing; `adjust` takes deviations from 0, the mean of
    linearised values over the whole sample, as R's survey.lonely.psu = "adjust" does.
    """
    a, b, n_h = a[:, None, :], b[:, None, :], n[None, :, None]
    several, least = n_h > 1, np.maximum(n_h, 1)  # divided at the end: whole numbers stay exact
    yy = m.yy - np.where(several, m.y * m.y / least, 0.0)
    yx = m.yx - np.where(several, m.y * m.x / least, 0.0)
    xx = m.xx - np.where(several, m.x * m.x / least, 0.0)
    squares = a * a * yy + 2 * a * b * yx + b * b * xx
    total: Floats = (factors(n, lonely)[None, :, None] * squares).sum(axis=1)
    return np.maximum(total, 0.0)


def spanning_variance(counted: NDArray[np.int64], y: Floats, x: Floats, a: Floats, b: Floats, lonely: str) -> Floats:
    """As `variance`, of PSUs whose totals are known: squares about their means. counted: records, (strata, PSUs);
    y, x: (measures, strata, PSUs, domains)."""
    there = (counted > 0)[None, :, :, None]
    n = there.sum(axis=2)
    each = np.where(there, a[:, None, None, :] * y + b[:, None, None, :] * x, 0.0)
    mean = np.where(n > 1, each.sum(axis=2) / np.maximum(n, 1), 0.0)
    squares = (np.where(there, each - mean[:, :, None, :], 0.0) ** 2).sum(axis=2)
    rounding = 4 * float(np.finfo(float).eps) * np.abs(mean)
    squares = np.where((n > 1) & (squares <= n * rounding**2), 0.0, squares)
    found: Floats = (factors(n.astype(np.float64), lonely) * squares).sum(axis=1)
    return found


def degrees(n: Floats) -> float:
    """PSUs less strata, as R's degf."""
    return float(n.sum() - (n > 0).sum())


def psu_products(table: Table, design: SurveyDesign, by: Sequence[str], value: Expr) -> Floats:
    """Sums over a holder's PSUs of products of the totals of two cells: (strata, cells, cells), for nested PSUs.

    table: records of the sample with a value. Unlisted categories are no cells; `grid` refuses them.
    """
    codebook = table.codebook
    records = table.complete((*design.strata, *by))
    keyed = records.expr.mutate(
        _stratum=place(records, design.strata), _cell=place(records, by), _psu=records[str(design.psu)], _value=value
    )
    totals = keyed.group_by("_stratum", "_psu", "_cell").aggregate(_total=keyed["_value"].sum())
    other = totals.rename({f"{name}_other": name for name in totals.columns})
    pairs = totals.join(other, [totals["_stratum"] == other["_stratum_other"], totals["_psu"] == other["_psu_other"]])
    found = (
        pairs.group_by("_stratum", "_cell", "_cell_other")
        .aggregate(product=(pairs["_total"] * pairs["_total_other"]).sum())
        .to_pyarrow()
    )
    n = cells(codebook, by)
    sums = np.zeros((design.cells(codebook), n, n))
    where = tuple(found.column(name).to_numpy() for name in ("_stratum", "_cell", "_cell_other"))
    sums[where] = found.column("product").to_numpy()
    return sums


def place(table: Table, by: Sequence[str]) -> Expr:
    """Number of a record's combination of levels, in the order of `grid`."""
    place: Expr = ones(table).cast("int64") - 1
    for name in by:
        levels = table.codebook.category(name).levels
        code = table[name].cast("string")
        place = place * len(levels) + ibis.cases(*((code == level, i) for i, level in enumerate(levels)))
    return place
