"""What `fuzzy` makes of how many links and pairs records have: figures corrected for missed and false links.

Two keys, as in the pilot of Statistics Netherlands and Statistics Canada: one that misses next to no match, a longer
one within it. Here both are degrees of likeness: a record's *pairs* are those at or above `level`, its *links* those at
or above the threshold, both before records are paired off one to one. By default all records that share a block are
pairs, if a record has no more than `MOST_EACH` of them in the mean; else those from the lowest level on at which it has
no more than `EACH`: with more, those without a partner cannot be told from those with one. The linkage unit counts them
for each record of the first holder, in groups by the tag of its first block, and works out the rates
(`core.linkage_errors`); of the counts by record it tells nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.linkage_errors.coverage import population_size
from statfed.core.linkage_errors.estimate import Estimate
from statfed.core.linkage_errors.totals import (
    BlockedRates,
    CorrectedTotals,
    Correction,
    blocked_rates,
    corrected_totals,
)
from statfed.core.protection import Packet, whole_numbers
from statfed.core.result import Basis, Row
from statfed.strategies.linkages._comparing import Candidates
from statfed.strategies.linkages._fuzzy_sums import Plan, off, opened
from statfed.strategies.linkages._fuzzy_sums import told as told_cells
from statfed.strategies.linkages._fuzzy_told import COARSE, error, limits, spread, step, stepped
from statfed.strategies.linkages._fuzzy_told import counted as counted_in_steps
from statfed.strategies.linkages._quality import BINS

EACH, MOST_EACH = 1.5, 3.0
GROUPS = 50
RATES = ("recall", "r", "coverage", "precision", "false positive rate")
SIZES = ("population", "missing on the first list", "missing on the second list")
ESTIMATE = ("estimate", "std_error", "lower", "upper")
_LARGEST = 1 << 22
"""Entries of the table of records by pairs and links, at most."""
_BLURRED = 0.1
"""Share of a standard error that may be rounding of what is added up."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """How many pairs and links the records of both holders have. level: from which likeness pairs count, 0 for all of a
    block; pairs, links: (n,) by side; real: (n,) which records are no padding and have a key; group: (n,) of the first
    holder's. All private to the linkage unit."""

    level: float
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]]
    links: tuple[NDArray[np.int64], NDArray[np.int64]]
    real: tuple[NDArray[np.bool_], NDArray[np.bool_]]
    group: NDArray[np.int64]

    @property
    def units(self) -> tuple[int, int]:
        """Records of each side."""
        return int(self.real[0].sum()), int(self.real[1].sum())

    def weights(self, side: int) -> NDArray[np.uint64]:
        """Links and pairs of each record, (n, 2)."""
        return np.column_stack([self.links[side], self.pairs[side]]).astype(np.uint64)

    @property
    def most(self) -> tuple[int, int]:
        """The largest number of links, and of other pairs, that any record of either list has."""
        others = [pairs - links for pairs, links in zip(self.pairs, self.links, strict=True)]
        return tuple(max(int(side.max(initial=0)) for side in kind) for kind in (self.links, others))  # type: ignore[return-value]

    def told(self, links: Any, pairs: Any) -> tuple[Floats, Floats]:
        """Numbers of links and of pairs in steps of what one record has of them."""
        some, every = counted_in_steps(links, self.most[0]), counted_in_steps(pairs, sum(self.most))
        return some, np.maximum(some, every)

    def refuse_few(self, minimum: int) -> None:
        """Raises Refused where fewer than `minimum` different records of a list may be behind all links or pairs."""
        links = self.links[0].sum()
        if told_cells(np.array([links]), np.array([self.pairs[0].sum()]), minimum, self.most).all():
            return
        raise Refused(
            f"minimum: links or other pairs may be of fewer records than the agreed {minimum}, as single ones have "
            "many; want lists without repeated records, smaller blocks, or a higher level"
        )

    def rates(self) -> BlockedRates:
        """Error rates of links. Raises Refused where they do not follow."""
        real = self.real[0]
        group, j, k = self.group[real], self.pairs[0][real], self.links[0][real]
        shape = (GROUPS, int(j.max(initial=0)) + 1, int(k.max(initial=0)) + 1)
        if np.prod(shape) > _LARGEST:
            raise Refused("estimate: got records with too many pairs; want smaller blocks, or a higher level")
        counts = np.zeros(shape, np.int64)
        np.add.at(counts, (group, j, k), 1)
        try:
            return blocked_rates(counts, candidates=self.units[1], several_allowed=True)
        except UsageError:
            raise Refused(
                "estimate: error rates do not follow from how many pairs and links records have; want more records, "
                "blocks in which some pairs are false and most are not, or another level"
            ) from None


def coarse(done: Counted, rates: BlockedRates) -> tuple[Correction, Floats]:
    """What rates are told as: what a correction needs of them, and a table (rates, 4), in steps of what one record of
    the other list moves them by: it has so many of the pairs that are their numerators."""
    n, candidates = done.units
    weight = float(max(sum(done.most), 1))
    exact = rates.correction
    over = {
        "recall": n * exact.coverage,
        "r": n * exact.false_pairs,
        "coverage": float(n),
        "precision": float(done.links[0].sum()),
        "false positive rate": float(n) * candidates,
    }
    rows, values = [], {}
    for each, name in zip(rates.estimates, RATES, strict=True):
        value, std_error, low, high = _limited(each)
        by = weight / max(over[name], 1e-9)
        values[name] = min(stepped(value, by), 1.0) if value <= 1 else stepped(value, by)
        rows.append([values[name], error(std_error), *limits(low, high, value, by)])
        rows[-1][3] = min(rows[-1][3], 1.0)
        if name != "r":  # a share; the correction takes what the records say
            rows[-1][0] = min(rows[-1][0], 1.0)
    per_record = weight / n
    made = Correction(
        exact.records,
        max(values["coverage"], step(per_record)) if values["coverage"] < 1 else 1.0,
        values["recall"],
        values["r"],
        max(stepped(exact.false_pairs, per_record), step(per_record)),
        spread(exact.realised),
        exact.notes,
    )
    return made, np.array(rows)


def counted(
    found: Candidates,
    threshold: float,
    level: float | None,
    real: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    tags: NDArray[np.uint64],
) -> Counted:
    """Pairs and links of every record. level: None for the one that suits; tags: first block of the first holder's."""
    records = max(int(real[0].sum()), 1)
    if level is None:
        level = 0.0 if found.offered.sum() <= MOST_EACH * records else _suiting(found, records, threshold)
    linked, near = found.above(threshold), found.above(level)
    sides = ((linked.left, near.left, found.offered), (linked.right, near.right, found.sought))
    links = tuple(np.bincount(linked_, minlength=len(every)) for linked_, _, every in sides)
    pairs = tuple(every if level == 0 else np.bincount(near_, minlength=len(every)) for _, near_, every in sides)
    group = ((tags >> np.uint64(1)) % np.uint64(GROUPS)).astype(np.int64)
    return Counted(level, (pairs[0], pairs[1]), (links[0], links[1]), real, group)


def _suiting(found: Candidates, records: int, threshold: float) -> float:
    """The lowest of levels 0, .02, .04 ... at which records have no more than `EACH` pairs in the mean."""
    room = int(EACH * records)
    if len(found.score) <= room:
        return min(_up(float(found.score.min())), threshold) if len(found.score) else threshold
    edge = np.partition(found.score, len(found.score) - room)[len(found.score) - room]
    return min(_up(float(edge)), threshold)


def _up(score: float) -> float:
    """The next of the levels that may be told."""
    return float(np.ceil(score * BINS / COARSE) * COARSE / BINS)


def of_unit(done: Counted, rates: BlockedRates, coverage: bool) -> dict[str, NDArray[Any]]:
    """What the linkage unit tells of all matches. Raises Refused as `Counted.rates`."""
    by, table = coarse(done, rates)
    links, pairs = (float(one) for one in done.told(done.links[0].sum(), done.pairs[0].sum()))
    total = _corrected(by, [links], [pairs]).total
    fits = rates.blocking.fit, rates.linkage.fit
    told: dict[str, NDArray[Any]] = {
        "rates": table,
        "matches": np.array([links, pairs, *_numbers(total)]),
        "misfit": np.array([fit.fails for fit in fits]),
        "level": np.array(done.level),
    }
    if coverage:
        try:
            size = population_size(*done.units, total, links=int(links))
        except UsageError:
            raise Refused("coverage: the lists have too few units in common, or more than the shorter has") from None
        told["population"] = np.array([_numbers(each) for each in size.estimates[:3]])
        told["units"] = np.array([*done.units, size.naive or np.nan])
    return told


def of_cells(
    done: Counted, rates: BlockedRates, links: Floats, pairs: Floats, shown: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """What it tells of cells that are shown, in steps: links, pairs, and the corrected number, (cells, 6); NaN of
    others. With what the coordinator corrects totals by. Raises Refused as `Counted.rates`."""
    told = np.full((len(links), 6), np.nan)
    by, _ = coarse(done, rates)
    links, pairs = done.told(links, pairs)
    if shown.any():
        found = _corrected(by, links[shown], pairs[shown]).cells
        told[shown] = [[a, b, *_numbers(c)] for a, b, c in zip(links[shown], pairs[shown], found, strict=True)]
    return {"cells": told, "correction": by.numbers()}


def _corrected(by: Correction, links: Any, pairs: Any) -> CorrectedTotals:
    try:
        return corrected_totals(by, links, pairs, links_squared=links, blocked_squared=pairs)  # each counts as one
    except UsageError:
        raise Refused(
            "estimate: links tell hardly more than pairs do; want a higher threshold (--set threshold=0.8), or a "
            "key that tells more"
        ) from None


def _numbers(estimate: Estimate) -> tuple[float, float, float, float]:
    return (estimate.value, np.nan if estimate.at_limit else estimate.std_error, *estimate.interval())


def _limited(estimate: Estimate) -> tuple[float, float, float, float]:
    """With limits that are no more than 1: no rate is, though an estimate may be. Of a rate nearer to 1 than its
    standard error the lower limit is as of one so far from 1, since a logit says nothing there."""
    value, error, low, high = _numbers(estimate)
    if not estimate.at_limit and 0 < 1 - error < value and estimate.scale != "log":
        farther = Estimate(estimate.name, max(1 - error, 0.5), error, "logit")
        return (value, error, farther.interval()[0], 1.0)
    return (value, error, min(low, 1.0), min(high, 1.0))


@dataclass(frozen=True)
class Told:
    """What the coordinator is told, read. levels: by column of the cells; order: number of each cell."""

    figures: Mapping[str, NDArray[Any]]
    levels: Mapping[str, Sequence[str]]
    plan: Plan | None
    order: NDArray[np.int64]

    @classmethod
    def read(
        cls,
        packet: Packet,
        levels: Mapping[str, Sequence[str]],
        plan: Plan | None,
        order: NDArray[np.int64],
        values: NDArray[np.uint64],
        coverage: bool,
    ) -> "Told":
        """What the linkage unit tells, with the owner's shares of values. Raises UsageError on what it is not."""
        shapes: dict[str, tuple[int, ...]] = {"rates": (len(RATES), 4), "matches": (6,), "misfit": (2,), "level": ()}
        if coverage:
            shapes |= {"population": (len(SIZES), 4), "units": (3,)}
        if plan is not None:
            among = 2 * len(plan.values)
            shapes |= {"cells": (plan.cells, 6), "correction": (9,)}
            shapes |= {"sums": (2, among, plan.cells), "all": (2, among)}
        figures = {name: shaped(packet, name, shape) for name, shape in shapes.items()}
        if plan is not None:
            shown = np.isfinite(figures["cells"][:, 0])
            none = np.zeros((2, 1, plan.cells), np.uint64)
            sums = np.where(shown, figures["sums"].astype(np.uint64) + values, np.uint64(0))
            every = (figures["all"].astype(np.uint64) + values.sum(2, dtype=np.uint64))[:, :, None]
            figures["sums"] = np.concatenate([none, sums], axis=1)
            figures["all"] = np.concatenate([none[:, :, :1], every], axis=1)
        return cls(figures, levels, plan, order)

    def tables(self) -> tuple[dict[str, list[Row]], dict[str, Basis]]:
        """Corrected figures as tables, the first of them numbers of matches, and what their rows rest on."""
        own = ("naive", *ESTIMATE)
        tables: dict[str, list[Row]] = {"corrected": self._counts()}
        basis = {"corrected": Basis(by=tuple(self.levels), counts=("links",), own=ESTIMATE)}
        if self.plan is not None and self.plan.values:
            tables["totals"] = self._totals()
            basis["totals"] = Basis(by=tuple(self.levels), keys=("column",), counts=("links",), own=own)
        if "population" in self.figures:
            first, second, naive = self.figures["units"]
            sizes = [_row(name, self.figures["population"][i]) for i, name in enumerate(SIZES)]
            sizes[0] = {**sizes[0], "naive": float(naive)}
            listed: list[Row] = [
                {"name": f"units on the {which} list", "estimate": float(count)}
                for which, count in (("first", first), ("second", second))
            ]
            tables["coverage"] = [*sizes, *listed]
            basis["coverage"] = Basis(keys=("name",), observations=True, own=own)
        tables["rates"] = [_row(name, self.figures["rates"][i]) for i, name in enumerate(RATES)]
        basis["rates"] = Basis(keys=("name",), observations=True, own=ESTIMATE)
        return tables, basis

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know of them."""
        level = float(self.figures["level"])
        near = f"at least {level:g} alike" if level else "in one block"
        found = [
            f"corrected for links that are missed or false; pairs are records {near}, links those from the threshold "
            "on, before they are paired off one to one; naive figures are over these links",
            "a match that no block brings together, or that is less alike, is in no corrected figure",
        ]
        for what, fails in zip(("pairs", "links"), self.figures["misfit"], strict=True):
            if fails:
                found.append(f"the model does not fit the numbers of {what} of a record: do not use corrected figures")
        return tuple(found)

    def _cells(self) -> list[tuple[Row, int]]:
        """Every cell with its number."""
        if not self.levels:
            return []
        labels = product(*self.levels.values())
        return [(dict(zip(self.levels, at, strict=True)), int(n)) for at, n in zip(labels, self.order, strict=True)]

    def _counts(self) -> list[Row]:
        links, _, *estimate = self.figures["matches"]
        rows: list[Row] = [{**dict.fromkeys(self.levels), "links": int(links), **_estimate(estimate)}]
        for label, number in self._cells():
            one = self.figures["cells"][number]
            rows.append({**label, "links": _whole(one[0]), **_estimate(one[2:])})
        return rows

    def _totals(self) -> list[Row]:
        """Totals of values over told cells and over all."""
        plan, figures, rows = self.plan, self.figures, list[Row]()
        if plan is None:
            return rows
        cells = figures["cells"]
        shown = np.isfinite(cells[:, 0])
        left = max(float(figures["matches"][1] - np.nansum(cells[:, 1])), 0.0)  # pairs of cells that are not told
        by = Correction.of(figures["correction"])
        _, sums = opened(plan, figures["sums"])
        _, alls = opened(_one(plan), figures["all"])
        for name, value in plan.values.items():
            # (links or pairs, total or squares, told cells and what is left)
            parts = np.concatenate([sums[name][:, :, shown], alls[name] - sums[name].sum(2, keepdims=True)], axis=2)
            blur = off(value, np.append(cells[shown, 1], left))
            found = corrected_totals(
                by, parts[0, 0], parts[1, 0], links_squared=parts[0, 1], blocked_squared=np.maximum(parts[1, 1], 0.0)
            )
            for each, wide in zip(
                (*found.cells, found.total), (*blur[0], float(np.hypot.reduce(blur[0]))), strict=True
            ):
                if wide > _BLURRED * each.std_error > 0:
                    raise UsageError(
                        f"{name}: its values are too small beside its bounds to be told from the rounding of what is "
                        "added up; want narrower bounds"
                    )
            whole = {"links": int(figures["matches"][0]), "naive": float(sum(found.naive))}
            rows.append({"column": name, **dict.fromkeys(self.levels), **whole, **_estimate(_numbers(found.total))})
            places = np.cumsum(shown) - 1
            for label, number in self._cells():
                one = {**label, "links": _whole(cells[number, 0]), "naive": None, **dict.fromkeys(ESTIMATE)}
                if shown[number]:
                    at = places[number]
                    one |= {"naive": float(found.naive[at]), **_estimate(_numbers(found.cells[at]))}
                rows.append({"column": name, **one})
        return rows


def shaped(packet: Packet, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of a packet. Raises UsageError where it has another shape."""
    found = whole_numbers(packet, name)
    if found.shape != shape:
        raise UsageError(f"{name}: got shape {found.shape}; want {shape}")
    return found


def _one(plan: Plan) -> Plan:
    """The plan of sums over all cells."""
    return Plan(plan.owner, plan.dealer, plan.size, 1, plan.values)


def _row(name: str, numbers: NDArray[Any]) -> Row:
    return {"name": name, **_estimate(numbers)}


def _estimate(numbers: Any) -> dict[str, float | None]:
    """An estimate, its standard error and limits, null where there is none."""
    return {what: float(one) if np.isfinite(one) else None for what, one in zip(ESTIMATE, numbers, strict=True)}


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None
