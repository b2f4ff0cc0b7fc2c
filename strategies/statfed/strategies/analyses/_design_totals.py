"""Totals of values under a sample design, and the covariance of what is computed from them.

An analysis names blocks of k values a record; T = sum of w v over the sample. One ask brings T together with what its
covariance needs, in the same way as the means of `_estimates`: linearised, that is numbers of PSUs, sums over PSUs of
their totals and of products of two of them by stratum (totals of PSUs where those span holders), or totals under each
replicate weight. The covariance of f(T) is then that of its linearisation G T, or of f of the replicates.
Source: Wolter 2007, Introduction to Variance Estimation, chapters 3 and 6.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.method import Arrays, Counts, Magnitude, Part, Product
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Weighed
from statfed.strategies.analyses._linearisation import check_lonely, degrees, factors, psu_counts, psu_shape, psu_sums
from statfed.strategies.analyses._linearisation import psus as counted_psus
from statfed.strategies.analyses._matrix import ROWS, once
from statfed.strategies.analyses._replication import Replication, replication
from statfed.strategies.analyses._survey import SurveyDesign, largest, times

Floats = NDArray[np.float64]
TOGETHER = 300  # sums of one statement
NONE = Replication(0.0, np.ones(1))
STEP = 1e-30  # of a derivative by a complex step, which has no cancellation (Squire and Trapp 1998)


def totals_parts(
    design: SurveyDesign, codebook: Codebook, bounds: Floats, what: Magnitude | Product
) -> dict[str, Part]:
    """Public facts of `totals`. bounds: (blocks, k), largest absolute values of one record without weights."""
    blocks, k = bounds.shape
    weighted = times(largest(codebook, design.weight), bounds)
    if design.replicates:
        count, heaviest = len(design.replicates), max(largest(codebook, name) for name in design.replicates)
        each = np.broadcast_to(times(heaviest, bounds), (count, blocks, k)).copy()
        return {"total": Part((blocks, k), bound=weighted, what=what), "replicates": Part(each.shape, each, what=what)}
    axes = psu_shape(design, codebook)
    shape = (*axes, blocks, k)
    units = Counts(design.strata, units=True)
    found = {
        "psus": Part(axes, integer=True, bound=1, single=True, what=units),
        "total": Part(shape, bound=np.broadcast_to(weighted, shape).copy(), what=what),
    }
    if not design.spans:
        one, other = np.triu_indices(k)
        pairs = np.full((blocks, len(one)), np.inf)  # of PSUs: a record changes a square by any amount
        if design.psu is None:
            pairs = times(weighted[:, one], weighted[:, other])
        wide = (*axes, *pairs.shape)
        found["products"] = Part(wide, bound=np.broadcast_to(pairs, wide).copy(), what=what)
    return found


def totals(sample: Table, design: SurveyDesign, blocks: Sequence[Sequence[Expr]]) -> Arrays:
    """What `totals_parts` announces. sample: the records that the design covers; null values add nothing."""
    k = len(blocks[0])
    flat = {f"v{i}_{j}": value.fill_null(0.0) for i, block in enumerate(blocks) for j, value in enumerate(block)}
    sample, flat = _once(sample, flat)
    if design.replicates:
        weights = [sample.number(design.weight) if design.weight else real(1.0)]
        weights += [sample.number(name) for name in design.replicates]
        sums = _replicated(sample, weights, list(flat.values()))
        shaped = sums.reshape(1 + len(design.replicates), len(blocks), k)
        return {"total": shaped[0], "replicates": shaped[1:]}
    if design.weight:
        flat = {name: value * sample.number(design.weight) for name, value in flat.items()}
    arrays: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {"psus": psu_counts(sample, design)}
    upper = list(zip(*(x.tolist() for x in np.triu_indices(k)), strict=True))
    pairs = [] if design.spans else [(f"v{i}_{a}", f"v{i}_{b}") for i in range(len(blocks)) for a, b in upper]
    found = psu_sums(sample, design, (), flat, pairs[:TOGETHER])
    for start in range(TOGETHER, len(pairs), TOGETHER):
        some = pairs[start : start + TOGETHER]
        found |= psu_sums(sample, design, (), {name: flat[name] for pair in some for name in pair}, some)
    axes = psu_shape(design, sample.codebook)
    arrays["total"] = np.stack([found[name][..., 0] for name in flat], axis=-1).reshape(*axes, len(blocks), k)
    if not design.spans:
        products = np.stack([found[f"{a}*{b}"][..., 0] for a, b in pairs], axis=-1)
        arrays["products"] = products.reshape(*axes, len(blocks), len(upper))
    return arrays


def totals_weigh(
    sample: Table, design: SurveyDesign, values: Sequence[Expr], by: Sequence[str] = ()
) -> Iterator[Weighed]:
    """How records weigh in `totals` in the cells of `by`, of values without weights: PSUs are looked at by the records
    that they are made of."""
    if design.replicates:
        names = dict.fromkeys((*design.replicates, *((design.weight,) if design.weight else ())))
        yield Amounts(sample, tuple(value * sample.number(name) for name in names for value in values), tuple(by))
        return
    weight = sample.number(design.weight) if design.weight else None
    amounts = [value if weight is None else value * weight for value in values]
    yield Amounts(sample, (*amounts, *(x * x for x in amounts)), (*cells_of(design), *by))


def cells_of(design: SurveyDesign) -> tuple[str, ...]:
    """Columns that break down what `totals` tells: strata, and PSUs where these span holders."""
    return () if design.replicates else (*design.strata, *((design.psu,) if design.psu and design.spans else ()))


@dataclass(frozen=True)
class Spread:
    """total: (blocks, k). covariance: (blocks, k, k), linearised; or each: (replicates, blocks, k) and their method.

    df: degrees of freedom, None where they are not known. facts: numbers of PSUs and strata, or of replicates.
    """

    total: Floats
    df: float | None
    facts: Mapping[str, int]
    linear: Floats | None
    each: Floats = field(default_factory=lambda: np.zeros(0))
    method: Replication = NONE

    def covariance(self, block: int, f: Callable[[Floats], Floats]) -> Floats:
        """Covariance (m, m) of f(T) of a block. f takes (k,) to (m,), by arithmetic alone; NaN where it is not known.

        An estimate that a replicate does not give (an empty domain) has no variance.
        """
        if self.linear is None:
            found: Floats = self.method.covariance(np.stack([f(t) for t in self.each[:, block]]))
            return found
        t, k = self.total[block], self.total.shape[1]
        slope = np.stack([np.imag(f(t + 1j * STEP * np.eye(k)[j])) / STEP for j in range(k)], axis=-1)
        spread: Floats = slope @ self.linear[block] @ slope.T
        return spread


def spread_of(
    codebook: Codebook, design: SurveyDesign, found: Mapping[str, NDArray[Any]], df: float | None = None
) -> Spread:
    """From the pooled `totals`. df: of replicate weights (see `_replication`). Raises UsageError on a lonely PSU."""
    if design.replicates:
        facts = {"replicates": len(design.replicates)}
        return Spread(found["total"], df, facts, None, found["replicates"], replication(codebook))
    n = counted_psus(design, found["psus"])
    check_lonely(design, n)
    sums = found["total"]
    k = sums.shape[-1]
    one, other = np.triu_indices(k)
    if design.spans:
        second = np.einsum("hpbi,hpbj->hbij", sums, sums)
        sums = sums.sum(axis=1)
    else:
        second = np.zeros((*sums.shape, k))
        second[..., one, other] = second[..., other, one] = found["products"]
    first = np.einsum("hbi,hbj->hbij", sums, sums) / np.maximum(n, 1)[:, None, None, None]
    centred = second - np.where((n > 1)[:, None, None, None], first, 0.0)
    linear: Floats = np.einsum("h,hbij->bij", factors(n, design.lonely), centred)
    if not design.declared and n.sum() < 2:
        linear = np.full(linear.shape, np.nan)
    facts = {"psus": int(n.sum()), "strata": int((n > 0).sum())} if design.declared else {}
    return Spread(sums.sum(axis=0), degrees(n), facts, linear)


def _once(sample: Table, values: Mapping[str, Expr]) -> tuple[Table, dict[str, Expr]]:
    """The sample with the values as columns, each computed once."""
    named = once(sample.expr.mutate(**{f"_{name}": value for name, value in values.items()}))
    return replace(sample, expr=named), {name: named[f"_{name}"] for name in values}


def _replicated(sample: Table, weights: Sequence[Expr], values: Sequence[Expr]) -> Floats:
    """Totals of each value under each weight: (weights, values)."""
    found = np.zeros((len(weights), len(values)))
    if sample.embedded:
        for block in sample.batches([*weights, *values], ROWS):
            found += block[:, : len(weights)].T @ block[:, len(weights) :]
        return found
    places = list(np.ndindex(found.shape))
    for start in range(0, len(places), TOGETHER):
        some = {f"_sum_{i}_{j}": (weights[i] * values[j]).sum() for i, j in places[start : start + TOGETHER]}
        sums = sample.aggregate(**some)
        for i, j in places[start : start + TOGETHER]:
            found[i, j] = float(sums[f"_sum_{i}_{j}"])
    return found
