"""Lifetimes under a sample design: weighted exits, and totals over PSUs of what each record adds to linear figures.

A linear figure up to grid time t adds up, over the records, weight times z(t) = event jump(exit) [exit <= t] - the sum
of fall(j) over the grid times j <= t at which the record is at risk; `jump` and `fall` are public, one pair a figure
and group. The linearised cumulative hazard, the linearised logarithm of the product-limit estimate and the scores of a
log-rank test are such figures, so that one statement of the database, sums of weights by PSU and interval, gives their
totals and products by stratum; the rest is arithmetic at the holder. With replicate weights the weighted exits under
each of them are all that is needed.
Source: Williams 1995, Biometrics 51 (linearised product-limit); Lin 2000, Biometrika 87 (scores under a design).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Magnitude, Part
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Weighed, owners
from statfed.strategies.analyses._design_totals import totals_parts
from statfed.strategies.analyses._design_units import Units, levels_of, weight_of
from statfed.strategies.analyses._lifetimes import Lifetimes, follow, listed, make_grid, tally
from statfed.strategies.analyses._linearisation import psu_counts, psu_shape
from statfed.strategies.analyses._survey import SurveyDesign, cells, largest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
COLUMNS = 64  # figures at a time


def units_of(design: SurveyDesign, codebook: Codebook, found: dict[str, Any], first: int) -> Units:
    """From rows listed by columns of which those from number `first` on are the design's. See `levels_of`."""
    place, names = np.zeros(len(found["value_0"]), np.int64), levels_of(design)
    for i, name in enumerate(names):
        place = place * len(codebook.category(name).levels) + found[f"level_{first + i}"]
    unit = None
    if design.psu and not design.spans:  # a PSU's records in two strata are two units
        labels = np.unique(found["unit"].astype(str), return_inverse=True)[1].astype(np.int64)
        unit = np.unique(np.stack([place, labels]), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return Units(place, int(np.prod(psu_shape(design, codebook))), unit)


def weighted_parts(codebook: Codebook, design: SurveyDesign, counts: dict[str, Part]) -> dict[str, Part]:
    """Public facts of `weighted_exits`. counts: parts with the numbers of records, `exits` and `entered`."""
    if design.weight is None:
        return {}
    bound = largest(codebook, design.weight)
    return {
        f"weight_{name}": Part(part.shape, bound, single=True, what=Magnitude(name)) for name, part in counts.items()
    }


def weighted_exits(complete: Table, options: Lifetimes, by: Sequence[str], names: Sequence[str]) -> dict[str, Floats]:
    """Sums of each of the weights by interval of exit and kind, and by first interval at risk: (weights, ...)."""
    book, size = complete.codebook, len(make_grid(complete.codebook, options))
    weights = {f"w{i}": complete.number(name) for i, name in enumerate(names)}
    rows = follow(complete, options, by, **weights)
    sums = [rows[name].sum() for name in weights]
    found = {"exits": tally(rows, book, by, {"exit": size, "event": 2}, sums)}
    if options.entry is not None:
        found["entered"] = tally(rows, book, by, {"enter": size}, sums)
    return {name: np.moveaxis(array, -1, 0).astype(np.float64) for name, array in found.items()}


def replicate_parts(codebook: Codebook, design: SurveyDesign, counts: dict[str, Part]) -> dict[str, Part]:
    """Public facts of `weighted_exits` under each replicate weight."""
    bounds = np.array([largest(codebook, name) for name in design.replicates])
    found = {}
    for name, part in counts.items():
        shape = (len(bounds), *part.shape)
        each = np.broadcast_to(bounds.reshape(-1, *(1,) * len(part.shape)), shape).copy()
        found[name] = Part(shape, each, what=Magnitude())
    return found


def linear_parts(codebook: Codebook, design: SurveyDesign, ask: Ask, shape: tuple[int, int]) -> dict[str, Part]:
    """Public facts of `linear_sums`. shape: (groups, T)."""
    jump, fall = _figures(ask, shape)
    reach = np.maximum.accumulate(np.abs(jump), axis=-1) + np.cumsum(np.abs(fall), axis=-1)
    if ask.name == "curve":
        return totals_parts(design, codebook, reach.reshape(-1, 1), Magnitude())
    return totals_parts(design, codebook, reach[..., -1].max(axis=1)[None], Magnitude())


def linear_sums(
    sample: Table, complete: Table, design: SurveyDesign, options: Lifetimes, by: Sequence[str], ask: Ask
) -> Arrays:
    """What `linear_parts` announces: of `curve` each figure, group and time by itself, of `test` the figures together
    at the end. sample: the records that the design covers; complete: those of them with a lifetime."""
    codebook = sample.codebook
    groups, size = cells(codebook, by), len(make_grid(codebook, options))
    jump, fall = _figures(ask, (groups, size))
    own, nested = levels_of(design), design.psu is not None and not design.spans
    unit = {"unit": complete[str(design.psu)]} if nested else {}
    rows = follow(complete, options, (*by, *own), weight=weight_of(complete, design), **unit)
    keys = {"exit": size, "event": 2} | ({"enter": size} if options.entry else {})
    sums = [rows["weight"].sum(), (rows["weight"] * rows["weight"]).sum()]
    found = listed(rows, codebook, (*by, *own), keys, sums, tuple(unit))
    units = units_of(design, codebook, found, len(by))
    group = np.zeros(len(found["exit"]), np.int64)
    for i, name in enumerate(by):
        group = group * len(codebook.category(name).levels) + found[f"level_{i}"]
    enter = found.get("enter", np.zeros(len(group), np.int64))
    weight, square = (found[f"value_{i}"].astype(np.float64) for i in range(2))
    counted = {"psus": psu_counts(sample, design)}
    if ask.name == "test":
        z = _at(jump[:, group], fall[:, group], found["exit"], found["event"], enter, np.array([size - 1]))[..., 0].T
        total, products = units.sums(weight, square, z, tuple(np.triu_indices(len(jump))))  # type: ignore[arg-type]
        total, products = total[:, None], products[:, None]
    else:
        total = np.zeros((units.places, len(jump), groups, size))
        products = np.zeros(total.shape)
        for g in range(groups):
            inside = group == g
            some = Units(units.place[inside], units.places, None if units.unit is None else units.unit[inside])
            exit_, event, since = (x[inside] for x in (found["exit"], found["event"], enter))
            for first in range(0, size, COLUMNS):
                columns = np.arange(first, min(first + COLUMNS, size))
                each = np.arange(len(columns))
                for f in range(len(jump)):
                    z = _at(jump[f, g], fall[f, g], exit_, event, since, columns)
                    at = (slice(None), f, g, columns)
                    total[at], products[at] = some.sums(weight[inside], square[inside], z, (each, each))
        total, products = total.reshape(units.places, -1, 1), products.reshape(units.places, -1, 1)
    axes = psu_shape(design, codebook)
    arrays: dict[str, NDArray[Any]] = {**counted, "total": total.reshape(*axes, *total.shape[1:])}
    return arrays if design.spans else {**arrays, "products": products.reshape(*axes, *products.shape[1:])}


def linear_weigh(
    complete: Table, design: SurveyDesign, options: Lifetimes, by: Sequence[str], ask: Ask
) -> Iterator[Weighed]:
    """How records weigh in `linear_sums`, group by group: PSUs are looked at by the records they are made of."""
    codebook = complete.codebook
    groups, size = cells(codebook, by), len(make_grid(codebook, options))
    jump, fall = _figures(ask, (groups, size))
    own = levels_of(design)
    followed = owned(complete, options, (*by, *own), w=weight_of(complete, design))
    at = np.arange(size) if ask.name == "curve" else np.array([size - 1])
    shape = [len(codebook.category(name).levels) for name in by]
    for g, codes in enumerate(np.ndindex(*shape)):
        labels = [codebook.category(name).levels[code] for name, code in zip(by, codes, strict=True)]
        rows = followed.expr
        inside = [rows[f"level_{i}"] == label for i, label in enumerate(labels)]
        table = Table(rows.filter(inside) if inside else rows, codebook, complete.embedded)
        expr = table.expr
        enter = expr["enter"] if options.entry else real(0.0)

        def amounts(block: Floats, g: int = g) -> Floats:
            exit_, event, since = (block[:, i].astype(np.int64) for i in range(1, 4))
            z = [block[:, :1] * _at(jump[f, g], fall[f, g], exit_, event, since, at) for f in range(len(jump))]
            return np.concatenate([*z, *(x * x for x in z)], axis=1)

        strata = tuple(expr[f"level_{len(by) + i}"] for i in range(len(own)))
        yield Amounts(table, (expr["w"], expr["exit"], expr["event"], enter), strata, compute=amounts)


def exits_weigh(complete: Table, options: Lifetimes, by: Sequence[str], names: Sequence[str]) -> Iterator[Weighed]:
    """How records weigh in `weighted_exits`."""
    weights = {f"w{i}": complete.number(name) for i, name in enumerate(names)}
    table = owned(complete, options, by, **weights)
    rows = table.expr
    levels = tuple(rows[f"level_{i}"] for i in range(len(by)))
    amounts = tuple(rows[name] for name in weights)
    yield Amounts(table, amounts, (*levels, rows["exit"], rows["event"]))
    if options.entry is not None:
        yield Amounts(table, amounts, (*levels, rows["enter"]))


def owned(complete: Table, options: Lifetimes, by: Sequence[str], **values: Expr) -> Table:
    """Followed records with the columns that tell whose they are."""
    owner = {name: complete.expr[name] for name in owners(complete.codebook)}
    rows = follow(complete, options, by, **{f"whose{i}": x for i, x in enumerate(owner.values())}, **values)
    rows = rows.rename({name: f"whose{i}" for i, name in enumerate(owner)})
    return Table(rows, complete.codebook, complete.embedded)


def _figures(ask: Ask, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """The ask's jump and fall: (figures, groups, T) each. Raises UsageError when they are not that."""
    jump, fall = (np.asarray(ask.arrays.get(name, np.zeros(0)), np.float64) for name in ("jump", "fall"))
    if jump.shape != fall.shape or jump.shape[1:] != shape or not np.isfinite([jump, fall]).all():
        raise UsageError(
            f"{ask.name}: got jump {jump.shape}, fall {fall.shape}; want (figures, {shape[0]}, {shape[1]})"
        )
    if ask.name == "test" and len(jump) != shape[0]:
        raise UsageError(f"test: got {len(jump)} figures; want {shape[0]}")
    return jump, fall


def _at(jump: Floats, fall: Floats, exit_: Ints, event: Ints, enter: Ints, columns: Ints) -> Floats:
    """z at the grid times `columns`: (..., rows, columns). jump, fall: (T,) of one group, or (figures, rows, T)."""
    gone = np.concatenate([np.zeros((*fall.shape[:-1], 1)), np.cumsum(fall, axis=-1)], axis=-1)
    upto = np.minimum(exit_[:, None], columns) + 1
    since = np.minimum(enter[:, None], columns + 1)
    died = np.where(exit_[:, None] <= columns, event[:, None], 0)
    if jump.ndim == 1:
        found: Floats = died * jump[exit_][:, None] - (gone[upto] - gone[since])
        return found
    rows = np.arange(len(exit_))[:, None]
    return np.asarray(died * jump[:, rows, exit_[:, None]] - (gone[:, rows, upto] - gone[:, rows, since]), np.float64)


def sampled(weights: Floats, counts: Ints) -> tuple[Floats, Floats]:
    """Weighted numbers at risk made 0 where nobody is, and hazards d / Y, 1 where all that are at risk had the event.

    weights: (2, ..., T), at risk and with an event; counts: the same of records.
    """
    risk = np.where(counts[0] > 0, np.maximum(weights[0], 0.0), 0.0)
    hazard = np.divide(weights[1], risk, out=np.zeros(risk.shape), where=risk > 0)
    everybody = (counts[0] > 0) & (counts[0] == counts[1]) & (risk > 0)
    return risk, np.where(everybody, 1.0, np.clip(hazard, 0.0, 1.0))


def curve_figures(risk: Floats, hazard: Floats) -> tuple[Floats, Floats]:
    """jump and fall of the cumulative hazard and of minus the logarithm of the product-limit estimate.

    risk, hazard: (groups, T). From a hazard of 1 on the second is not defined: its figures there are 0.
    """
    inverse = np.divide(1.0, risk, out=np.zeros(risk.shape), where=risk > 0)
    left = np.divide(inverse, 1 - hazard, out=np.zeros(risk.shape), where=hazard < 1)
    jump = np.stack([inverse, left])
    return jump, jump * hazard


def score_figures(risk: Floats, events: Floats, deaths: Ints) -> tuple[Floats, Floats]:
    """jump and fall of the scores of a log-rank test, of each group: (groups, groups, T), ties as Efron's.

    risk, events: weighted, (groups, T); deaths: records with an event, all groups together, (T,).
    """
    groups, size = risk.shape
    at_risk, died = risk.sum(0), events.sum(0)
    hazard, mean = np.zeros(size), np.zeros(risk.shape)
    for t in np.flatnonzero((deaths > 0) & (died > 0)):
        share = np.arange(deaths[t]) / deaths[t]
        left = max(at_risk[t], died[t]) - share * died[t]
        hazard[t] = (died[t] / deaths[t] / left).sum()
        mean[:, t] = ((risk[:, t, None] - share * events[:, t, None]) / left).mean(axis=1)
    jump = np.where(hazard > 0, np.eye(groups)[:, :, None] - mean[:, None], 0.0)
    return jump, jump * hazard
