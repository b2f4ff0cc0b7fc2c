"""The coordinator's half of `table`: cells, margins, their standard errors, and tests of independence.

Pearson's test for counts (mutual independence for three and four columns); Rao and Scott's corrections of it for
weighted two-way tables, first order as chi-square and second order as F, as R's svychisq.
Largest contributors: with S the sum of squares of contributions x_i >= 0 to a cell, the n largest sum to at most
sqrt(n S) (Cauchy and Schwarz). S is additive over holders. The bound needs an exact sum. A contributor with a part at
each of h holders is h contributions: its bound is sqrt(h) times as large, unless none is at two (`table`). Squares, and
not a higher power, since S is told to the coordinator, see `table`.
Source: Rao and Scott 1984, On chi-squared tests for multiway contingency tables, Annals of Statistics 12; Hundepool et
al. 2012, Statistical Disclosure Control, section 4.2. Where the protection decides the rules on pooled contributors
instead, rows carry its verdict.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.fixed_point import WIDE_UNIT
from statfed.core.method import Question, Total
from statfed.core.privacy.cell_key import cell_keys
from statfed.core.result import Additive, Basis, Result, Row, Scalar
from statfed.strategies.analyses import _divided
from statfed.strategies.analyses._independence import pearson, rao_scott
from statfed.strategies.analyses._linearisation import check_lonely, degrees, factors, psus
from statfed.strategies.analyses._margins import collapsed_axes, groups, views
from statfed.strategies.analyses._replication import UNKNOWN, Replication, replication
from statfed.strategies.analyses._survey import survey_design

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Verdicts = Mapping[tuple[tuple[int, ...], tuple[int, ...]], Flags]
"""By the collapsed and the grouped axes of a view: is a row unsafe?"""
TITLE = "Contingency table"
LARGEST_TEST = 1_000  # cells of a table whose covariance matrix is formed for a test
LETTERS = "abcd"
LOST = 1e-10
POWER = 2
"""Of contributions whose sums bound the largest."""


@dataclass(frozen=True)
class Linearised:
    """Second moments of PSU totals, for variances of sums of cells. total: (strata, *shape); n: PSUs per stratum.

    second: squares (strata, *shape) where a PSU lies in one cell only; products (strata, *shape, *shape); or, where
    PSUs span holders, their totals (strata, PSUs, *shape). amounts: of a value, not of numbers of units.
    """

    total: Floats
    second: Floats
    n: Floats
    lonely: str
    kind: str
    amounts: bool = False

    def variance(self, collapsed: tuple[int, ...]) -> Floats:
        """Variances of the margin that sums over the axes `collapsed`.

        Where less than `LOST` of the squares is left of their difference it has no digits: NaN of sums of values, 0 of
        numbers of units, whose weights then do not differ to a millionth of a percent.
        """
        shape = self.total.shape[1:]
        axes = tuple(1 + axis for axis in collapsed)
        total = self.total.sum(axis=axes)
        if self.kind == "squares":
            second = self.second.sum(axis=axes)
        elif self.kind == "totals":
            second = (self.second.sum(axis=tuple(2 + axis for axis in collapsed)) ** 2).sum(axis=1)
        else:
            first = LETTERS[: len(shape)]
            other = "".join(c.upper() if i in collapsed else c for i, c in enumerate(first))
            kept = "".join(c for i, c in enumerate(first) if i not in collapsed)
            second = np.einsum(f"h{first}{other}->h{kept}", self.second)
        found = self._centred(second, total * total)
        n = self.n.reshape(-1, *(1,) * (second.ndim - 1))
        lost = np.abs(found) < LOST * (factors(n, self.lonely) * second).sum(axis=0)
        exact = (np.rint(second) == second) & (np.abs(second) * n < 2.0**53) & (np.rint(total) == total)
        return np.where(lost & ~exact.all(axis=0), np.nan if self.amounts else 0.0, found)

    def grouped(self, maps: Mapping[int, Floats]) -> "Linearised":
        """The same of groups of levels; `maps`: axis to (groups, levels), 0 or 1."""
        total, axes = _grouped(self.total, maps, 1), self.total.ndim - 1
        second = _grouped(self.second, maps, 2 if self.kind == "totals" else 1)
        if self.kind == "products":
            second = _grouped(second, maps, 1 + axes)
        return replace(self, total=total, second=second)

    def covariance(self) -> Floats:
        """Covariance matrix of all cells."""
        size = math.prod(self.total.shape[1:])
        total = self.total.reshape(-1, size)
        if self.kind == "squares":
            second = np.einsum("hk,kl->hkl", self.second.reshape(-1, size), np.eye(size))
        elif self.kind == "totals":
            each = self.second.reshape(*self.second.shape[:2], size)
            second = np.einsum("hpk,hpl->hkl", each, each)
        else:
            second = self.second.reshape(-1, size, size)
        return self._centred(second, np.einsum("hk,hl->hkl", total, total))

    def of_shares(self, places: NDArray[np.int64]) -> Floats:
        """Covariance matrix of the shares of the cells at `places` of all cells, linearised."""
        totals = self.total.sum(axis=0).reshape(-1)[places]
        jacobian = (np.eye(totals.size) - np.outer(totals, np.ones(totals.size)) / totals.sum()) / totals.sum()
        shares: Floats = jacobian @ self.covariance()[np.ix_(places, places)] @ jacobian.T
        return shares

    def _centred(self, second: Floats, first: Floats) -> Floats:
        n = self.n.reshape(-1, *(1,) * (second.ndim - 1))
        weights = factors(n, self.lonely)
        centred: Floats = (weights * (second - np.where(n > 1, first / np.maximum(n, 1), 0.0))).sum(axis=0)
        return centred


@dataclass(frozen=True)
class Replicated:
    """Cells under each replicate weight, (replicates, *shape)."""

    each: Floats
    method: Replication

    def variance(self, collapsed: tuple[int, ...]) -> Floats:
        return self.method.variance(self.each.sum(axis=tuple(1 + axis for axis in collapsed)))

    def grouped(self, maps: Mapping[int, Floats]) -> "Replicated":
        """The same of groups of levels."""
        return replace(self, each=_grouped(self.each, maps, 1))

    def of_shares(self, places: NDArray[np.int64]) -> Floats:
        """Covariance matrix of the shares of the cells at `places` of all cells, from the shares of each replicate."""
        totals = self.each.reshape(len(self.each), -1)[:, places]
        return self.method.covariance(totals / totals.sum(axis=1, keepdims=True))


def result(
    question: Question[Any],
    by: tuple[str, ...],
    total: Total,
    kept: Sequence[tuple[int, ...]],
    most: float | None,
    magnified: float = 1.0,
    unsafe: Flags | None = None,
    replicate_df: float | None = None,
) -> Result:
    """From the pooled `cells`. kept: axes of the tables of powers; most: public bound of a contribution, if any,
    with the margin for parts at several holders;
    magnified: what powers were multiplied by; unsafe: verdicts on all rows in the order of `views`, if any;
    replicate_df: degrees of freedom of replicate weights, if there are some."""
    design, count = survey_design(question), total["count"]
    records, n = int(total["records"]), int(count.sum())
    facts: dict[str, Scalar] = {
        "observations": n,
        "missing": records - n,
        "left_out": int(total["left_out"]),
    }
    spread: Linearised | Replicated
    if design.replicates:
        cells = total["total"]
        spread = Replicated(total["replicates"], replication(question.codebook))
        df = float(replicate_df or 0.0)
    else:
        spread = _linearised(total, question)
        cells = spread.total.sum(axis=0)
        check_lonely(design, spread.n)
        df = degrees(spread.n)
    certain = design.declared or records > 1
    variances = {c: spread.variance(c) if certain else None for c in collapsed_axes(len(by))}
    powers = {
        axes: _powers(question, total, f"power{i}", count, axes, magnified) for i, axes in enumerate(kept) if most
    }
    verdicts = None if unsafe is None else _by_view(question, by, unsafe)
    tables = _tables(question, by, count, cells, variances, powers, most, total.get("key"), verdicts)
    whole = powers.get(tuple(range(len(by))))
    roots = None if whole is None or most is None else most * whole ** (1 / POWER)
    tables["margins"] += _subtotals(question, by, count, spread, cells, roots, total.get("key"), certain, verdicts)
    plain = not (question.options.weight or question.options.design)
    notes: tuple[str, ...] = ()
    tests: dict[str, Scalar] = dict.fromkeys(("chi_square", "chi_square_df", "chi_square_p_value", "cramers_v"))
    if question.options.value is None and plain:
        tests |= pearson(count)
    elif question.options.value is None and len(by) == 2 and count.size <= LARGEST_TEST:
        tests |= rao_scott(cells, spread.of_shares, n, df)
        notes = ("chi-square is Pearson's with Rao and Scott's first-order correction, F with the second-order one",)
        notes = notes if df else (*notes, UNKNOWN)
    elif question.options.value is None:
        notes = (f"no test of independence: want two columns and {LARGEST_TEST} cells at most, or no weights",)
    kind = Additive(
        "margins",
        total="total",
        bounds=("dominance_bound_1", "dominance_bound_2") if most else (),
        decided="dominance_decided" if unsafe is not None else "",
        record_key="cell_key" if "key" in total else "",
    )
    return _result(tables, facts | tests, notes, by, df, kind)


def _result(
    tables: Mapping[str, Sequence[Row]],
    facts: Mapping[str, Scalar],
    notes: tuple[str, ...],
    by: tuple[str, ...],
    df: float | None,
    kind: Additive,
) -> Result:
    return Result(
        "table",
        TITLE,
        tables,
        facts,
        notes,
        by,
        df,
        basis={"cells": Basis(by, counts=("count",), own=("std_error",), kind=kind)},
        observations="observations",
        numbers=("missing", "left_out"),
    )


def noisy_result(
    question: Question[Any],
    by: tuple[str, ...],
    total: Total,
    sums: _divided.Sums | None = None,
    shape: tuple[int, ...] = (),
) -> Result:
    """From the one noisy sum: counts, or `sums` of amounts in cells of this shape. Margins are sums of noisy cells,
    before negative ones are set to 0."""
    if sums is None:
        count: NDArray[np.int64] = total["count"]
        cells, noise = count.astype(np.float64), total.noise["count"]
        squares, unsure = cells, np.zeros(cells.shape)  # where counts vary as little as their noise, that is in it
    else:
        count = np.rint(sums.count).astype(np.int64).reshape(shape)
        cells, squares, noise = (array.reshape(shape) for array in (sums.total, sums.squares, sums.total_noise))
        unsure = sums.squares_noise(1.0, sums.form.low).reshape(shape)
    n = max(float(count.sum()), 1.0)
    variances: dict[tuple[int, ...], Floats | None] = {}
    for collapsed in collapsed_axes(len(by)):
        summed, second = cells.sum(axis=collapsed), squares.sum(axis=collapsed)
        sampling = np.maximum(second - summed * summed / n, 0.0) * (n / (n - 1) if n > 1 else 1.0)
        sampling = _divided.positive(sampling, np.sqrt((unsure**2).sum(axis=collapsed)))
        variances[collapsed] = sampling + (noise**2).sum(axis=collapsed)
    tables = _tables(question, by, count, cells, variances, {}, None)
    facts: dict[str, Scalar] = {"observations": max(0, int(count.sum()))}
    facts |= dict.fromkeys(("missing", "chi_square", "chi_square_df", "chi_square_p_value", "cramers_v"))
    shown, deviation = sum(float(row["total"] or 0.0) for row in tables["cells"]), float(np.sqrt((noise**2).sum()))
    notes = (
        "standard errors include the privacy noise; counts, and totals of what cannot be negative, are at least 0; "
        "margins are sums of the noisy cells before that, which are right on average",
        f"the cells as shown add up to {shown:,.6g}; before negative ones were set to 0 to {float(cells.sum()):,.6g}, "
        f"with noise of standard deviation {deviation:,.3g}: take totals from the margins",
        "no test of independence under privacy: its distribution with noise is another one",
    )
    return _result(tables, facts, notes, by, None, Additive("margins", total="total"))


def _linearised(total: Total, question: Question[Any]) -> Linearised:
    design, count = survey_design(question), total["count"]
    amounts = question.options.value is not None
    if "total" not in total:
        cells = count.astype(np.float64)[None]
        return Linearised(cells, cells, np.array([float(total["records"])]), design.lonely, "squares")
    n = psus(design, total["psus"])
    if design.spans:
        return Linearised(total["total"].sum(axis=1), total["total"], n, design.lonely, "totals", amounts)
    kind = "squares" if "squares" in total else "products"
    return Linearised(total["total"], total[kind], n, design.lonely, kind, amounts)


@dataclass(frozen=True)
class _Cells:
    """What rows are made of, on one set of axes. codes: per axis; root: bounds of the largest contributions; unsafe:
    what the protection decided."""

    codes: tuple[tuple[str, ...], ...]
    count: NDArray[np.int64]
    total: Floats
    variance: Floats | None
    root: Floats | None
    key: NDArray[np.int64] | None
    unsafe: Flags | None


def _by_view(question: Question[Any], by: tuple[str, ...], unsafe: Flags) -> Verdicts:
    """Verdicts on all rows, by view."""
    found, start = {}, 0
    for view in views(question.codebook, by):
        found[view.collapsed, view.grouped] = unsafe[start : start + view.rows].reshape(view.shape)
        start += view.rows
    return found


def _powers(
    question: Question[Any],
    total: Total,
    name: str,
    count: NDArray[np.int64],
    axes: tuple[int, ...],
    magnified: float,
) -> Floats:
    """Upper bounds of sums of powers: what fixed point may have rounded away at each holder is added again.

    Without it a contributor that is small beside the public bound has a power of 0, and would pass every rule.
    """
    others = tuple(axis for axis in range(count.ndim) if axis not in axes)
    lost = np.maximum(total.resolution[name], len(question.terms.holders) * WIDE_UNIT)
    return np.where(count.sum(axis=others) > 0, np.maximum(total[name], 0.0) + lost, 0.0) / magnified


def _tables(
    question: Question[Any],
    by: tuple[str, ...],
    count: NDArray[np.int64],
    cells: Floats,
    variances: Mapping[tuple[int, ...], Floats | None],
    powers: Mapping[tuple[int, ...], Floats],
    most: float | None,
    keys: NDArray[np.int64] | None = None,
    verdicts: Verdicts | None = None,
) -> dict[str, list[Row]]:
    """Cells and every margin."""
    tables: dict[str, list[Row]] = {"cells": [], "margins": []}
    levels = [question.codebook.category(name).levels for name in by]
    for collapsed, variance in variances.items():
        kept = tuple(axis for axis in range(len(by)) if axis not in collapsed)
        root = None
        if most is not None:
            power = powers[kept] if kept in powers else next(iter(powers.values())).sum(axis=collapsed)
            root = most * power ** (1 / POWER)
        here = _Cells(
            tuple(levels[axis] for axis in kept),
            count.sum(axis=collapsed),
            cells.sum(axis=collapsed),
            variance,
            root,
            None if keys is None else keys.sum(axis=collapsed),
            None if verdicts is None else verdicts[collapsed, ()],
        )
        tables["margins" if collapsed else "cells"] += _rows(question, by, kept, here)
    return tables


def _rows(question: Question[Any], by: tuple[str, ...], kept: tuple[int, ...], cells: _Cells) -> list[Row]:
    """One row per combination of codes, the last axis fastest; null under the columns that are summed over."""
    options, privacy = question.options, question.privacy
    whole = not (options.value or options.weight or options.design)
    bounds = question.codebook.columns[options.value].bounds if options.value else (0.0, math.inf)
    positive = bool(privacy and bounds and bounds[0] >= 0)
    rows: list[Row] = []
    for at, codes in zip(np.ndindex(cells.count.shape), product(*cells.codes), strict=True):
        domain = {by[axis]: code for axis, code in zip(kept, codes, strict=True)}
        amount = max(0.0, float(cells.total[at])) if positive else float(cells.total[at])
        row: dict[str, Scalar] = {name: domain.get(name) for name in by}
        row["count"] = max(0, int(cells.count[at]))
        row["total"] = row["count"] if whole else amount
        squared = math.nan if cells.variance is None else float(cells.variance[at])
        row["std_error"] = None if math.isnan(squared) else math.sqrt(max(0.0, squared))
        if cells.root is not None:
            row["dominance_bound_1"] = min(float(cells.root[at]), amount)
            row["dominance_bound_2"] = min(2 ** (1 - 1 / POWER) * float(cells.root[at]), amount)
        if cells.unsafe is not None:
            row["dominance_decided"] = bool(cells.unsafe[at])
        if cells.key is not None:
            row["cell_key"] = float(cell_keys(np.asarray(cells.key[at])))
        rows.append(row)
    return rows


def _subtotals(
    question: Question[Any],
    by: tuple[str, ...],
    count: NDArray[np.int64],
    spread: "Linearised | Replicated",
    cells: Floats,
    roots: Floats | None,
    keys: NDArray[np.int64] | None,
    certain: bool,
    verdicts: Verdicts | None,
) -> list[Row]:
    """Rows of the codes that the codebook's `parents` put above others, in every combination with levels and margins.

    Sums over the levels below; an enterprise's contributions to several of them are bounded by the sum of the bounds
    (Minkowski's inequality).
    """
    trees = {axis: groups(question.codebook, name)[1] for axis, name in enumerate(by)}
    rows: list[Row] = []
    for view in (view for view in views(question.codebook, by) if view.grouped):
        maps, collapsed = {axis: trees[axis] for axis in view.grouped}, view.collapsed
        here = _Cells(
            view.codes,
            np.rint(_grouped(count.astype(np.float64), maps, 0).sum(axis=collapsed)).astype(np.int64),
            _grouped(cells, maps, 0).sum(axis=collapsed),
            spread.grouped(maps).variance(collapsed) if certain else None,
            None if roots is None else _grouped(roots, maps, 0).sum(axis=collapsed),
            None if keys is None else _grouped_whole(keys, maps).sum(axis=collapsed),
            None if verdicts is None else verdicts[collapsed, view.grouped],
        )
        rows += _rows(question, by, tuple(axis for axis in range(len(by)) if axis not in collapsed), here)
    return rows


def _grouped(array: Floats, maps: Mapping[int, Floats], lead: int) -> Floats:
    """Sums over the members of each group along the axes of `maps`, which come after `lead` others."""
    for axis, inside in maps.items():
        array = np.moveaxis(np.tensordot(inside, array, axes=(1, lead + axis)), 0, lead + axis)
    return array


def _grouped_whole(array: NDArray[np.int64], maps: Mapping[int, Floats]) -> NDArray[np.int64]:
    for axis, inside in maps.items():
        array = np.moveaxis(np.tensordot(inside.astype(np.int64), array, axes=(1, axis)), 0, axis)
    return array
