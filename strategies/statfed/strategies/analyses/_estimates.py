"""The holder's half of count, total, mean and ratio: three sums at most, in every domain.

`sums` gives the estimates. `squares` gives their linearised variance from PSU totals of Y - mu X and X, with mu the
overall ratio; where that was not near enough `centred` comes after it (see `_centred`). `replicates` gives the same
totals under each replicate weight instead. A private run makes one ask, `noisy`: numbers of records, or sums of amounts
as `_divided` has them.

Without weight and design the sample is simple random: standard errors are those of R's svydesign(ids = ~1), so that of
a mean is s / sqrt(n). Records that miss a value or a domain stay in the design with value 0. `where` selects the
records that the sample consists of; a domain of a sample goes into `by`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import ibis
import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Counts, Magnitude, Part, Question, What
from statfed.core.table import Expr, Table
from statfed.core.weighing import Amounts, Weighed
from statfed.strategies.analyses import _centred, _divided
from statfed.strategies.analyses._linearisation import psu_counts, psu_shape, psu_sums
from statfed.strategies.analyses._replication import replication
from statfed.strategies.analyses._survey import (
    SurveyDesign,
    categories,
    cells,
    largest,
    limited,
    ones,
    survey_design,
    times,
)
from statfed.strategies.analyses._weighing import two_ways

SHARE = 0.05  # of the privacy budget, for the size of a sample that only serves standard errors
_EXPANDED = 0.5  # the same, for the size of the sample where estimates are expanded by it
TOGETHER = 400  # sums of one statement; PostgreSQL allows 1,600 columns
PRODUCTS = {"yy": ("y", "y"), "yx": ("y", "x"), "xx": ("x", "x")}


@dataclass(frozen=True)
class Measure:
    """One estimate: the total of `numerator`, or its ratio to that of `denominator`; None stands for 1."""

    keys: Mapping[str, str]
    numerator: str | None
    denominator: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.numerator, self.denominator) if name)


@dataclass(frozen=True)
class Estimand:
    """What an analysis estimates. kind: total or ratio. key: the estimate also stands under this key of a row.

    measures: all of one form. per_unit: a total, divided by the known population.
    """

    kind: Literal["total", "ratio"]
    key: str
    measures: tuple[Measure, ...]
    per_unit: bool = False

    @property
    def counts(self) -> bool:
        """Is it a number of records?"""
        return self.measures[0].numerator is None

    def unit_x(self, design: SurveyDesign) -> bool:
        """Is X the number of records?"""
        return design.weight is None and self.measures[0].denominator is None

    def plain(self, design: SurveyDesign) -> bool:
        """Are X and Y both the number of records? Y - mu X and its products then follow from X."""
        return self.counts and self.unit_x(design)


def checked_columns(question: Question[Any], estimand: Estimand) -> tuple[str, ...]:
    """Columns that are read. Raises UsageError on options that do not fit the codebook or each other."""
    options, codebook = question.options, question.codebook
    for measure in estimand.measures:
        for name in measure.columns:
            codebook.number(name, "columns")
            if question.privacy and codebook.columns[name].bounds is None:
                raise UsageError(f"privacy: {name}: got no bounds; want low and high in the codebook")
    categories(codebook, options.by, "by")
    design = survey_design(question)
    if estimand.per_unit:
        if options.population is None or options.by:
            raise UsageError("estimator: got horvitz-thompson; want population with it, and no by")
    elif options.population is not None and not design.simple:
        raise UsageError("population: got it with strata, PSUs or replicates; want it for a simple random sample only")
    if design.replicates:
        replication(codebook)
    entries = len(estimand.measures) * cells(codebook, options.by) * int(np.prod(psu_shape(design, codebook)))
    limited(max(entries, entries * len(design.replicates)), "measures x strata x PSUs x domains")
    read = (*(name for measure in estimand.measures for name in measure.columns), *options.by, *design.columns)
    return tuple(dict.fromkeys(read)) or tuple(codebook.columns)[:1]  # records without columns cannot be counted


def noisy_forms(question: Question[Any], estimand: Estimand) -> tuple[_divided.Form, ...]:
    """How a private run has each measure's sums; none for numbers of records."""
    design, codebook = survey_design(question), question.codebook
    if estimand.plain(design):
        return ()
    weight = (codebook.columns[design.weight].bounds if design.weight else None) or (1.0, 1.0)
    if weight[0] < 0.0:
        raise UsageError(f"privacy: weight: got bounds {weight[0]:g} to {weight[1]:g}; want a weight of 0 or more")
    found = []
    for measure in estimand.measures:
        bounds = (codebook.columns[measure.numerator].bounds if measure.numerator else None) or (1.0, 1.0)
        if measure.denominator is not None:
            beside = codebook.columns[measure.denominator].bounds or (1.0, 1.0)
            found.append(_divided.of_ratio(bounds, beside, weight[1] or 1.0 if design.weight else None))
        elif estimand.kind == "total":
            found.append(_divided.of_total(*_divided.product(weight, bounds)))
        elif design.weight:
            found.append(_divided.of_weighted_mean(*bounds, weight[1] or 1.0))
        else:
            found.append(_divided.of_mean(*bounds))
    return tuple(found)


def _noisy(sample: Table, question: Question[Any], estimand: Estimand) -> Arrays:
    """The holder's arrays for `noisy`."""
    by, forms = question.options.by, noisy_forms(question, estimand)
    records = int(sample.aggregate(n=sample.expr.count())["n"])
    if not forms:
        count = sample.grid(by, n=ones(sample).count())["n"].reshape(1, -1).astype(np.int64)
        return {"count": count, **({"records": np.array(records, np.int64)} if by else {})}
    made = _terms(sample, question, estimand)
    asked = {f"_{i}_{n}_{j}": x.sum() for i, of in enumerate(made) for n, xs in of.items() for j, x in enumerate(xs)}
    asked |= {f"_{i}": next(iter(of.values()))[0].count() for i, of in enumerate(made)}
    grid = sample.grid(by, **asked)
    found: dict[str, NDArray[Any]] = {}
    for i, (form, of) in enumerate(zip(forms, made, strict=True)):
        sums = {n: [grid[f"_{i}_{n}_{j}"].astype(np.float64) for j in range(len(xs))] for n, xs in of.items()}
        found |= _divided.arrays(form, sums, records - int(grid[f"_{i}"].sum()), f"_{i}")
    return found


def _terms(sample: Table, question: Question[Any], estimand: Estimand) -> list[dict[str, list[Expr]]]:
    """What a record adds to the parts of `noisy`, by measure and piece."""
    design, found = survey_design(question), []
    weight = sample.number(design.weight) if design.weight else None
    for form, measure in zip(noisy_forms(question, estimand), estimand.measures, strict=True):
        amount = sample.number(measure.numerator) if measure.numerator else ones(sample)
        if estimand.kind == "total" and weight is not None:
            amount, of_mean = weight * amount, None
        else:
            of_mean = weight
        other = sample.number(measure.denominator) if measure.denominator else None
        found.append(_divided.expressions(form, amount, of_mean, other))
    return found


def parts(question: Question[Any], estimand: Estimand, ask: Ask) -> Mapping[str, Part]:
    """Public facts of the arrays of `ask`; see the module."""
    design, codebook = survey_design(question), question.codebook
    k, d = len(estimand.measures), cells(codebook, question.options.by)
    if ask.name == _centred.ASK:
        return _centred_parts(question, estimand, ask)
    mu = ask.arrays["centre"] if ask.name in ("squares", "replicates") else np.zeros(k)
    y, x = _limits(codebook, estimand, mu)
    wy, wx = times(largest(codebook, design.weight), y), times(largest(codebook, design.weight), x)
    counts, summed = Counts(question.options.by), Magnitude("count")
    count = Part((k, d), integer=True, bound=1, single=k == 1, what=counts)
    of_x: What = counts if estimand.unit_x(design) else summed
    if ask.name == "sums":
        whole = Part(integer=True, bound=1, what=Counts(beside="count"))
        left_out = Part(integer=True, bound=1, what=Counts(beside="left_out"))
        of_y: What = counts if estimand.plain(design) else summed
        sums = {"y": _part((k, d), wy, of_y), "x": _part((k, d), wx, of_x)}
        return {"records": whole, "left_out": left_out, "count": count} | sums
    if ask.name == "squares":
        shape = (k, *psu_shape(design, codebook), d)
        units = Part(shape[1:-1], integer=True, bound=1, single=True, what=Counts(design.strata, units=True))
        found = {} if design.simple else {"psus": units}  # as many as `records` tells of
        found["x"] = _part(shape, wx, Counts((*design.strata, *counts.by)) if of_x == counts else Magnitude())
        if estimand.plain(design):
            pairs = Part(shape, bound=np.inf, what=Magnitude())
            return found | ({"xx": pairs} if design.psu is not None and not design.spans else {})
        found["y"] = _part(shape, wy)
        if not design.spans:
            unlimited = design.psu is not None  # one record can change the square of its PSU's total by any amount
            products = {"yy": times(wy, wy), "yx": times(wy, wx), "xx": times(wx, wx)}
            found |= {n: _part(shape, np.full(k, np.inf) if unlimited else b) for n, b in products.items()}
        if estimand.kind == "ratio":
            found["spread"] = _part((k, d), times(wy, y))
        return found
    if ask.name == "replicates":
        shape = (k, len(design.replicates), d)
        heaviest = max(largest(codebook, name) for name in design.replicates)
        return {name: replace(_part(shape, times(heaviest, b)), single=False) for name, b in (("y", y), ("x", x))}
    if ask.name == "noisy":
        forms, d = noisy_forms(question, estimand), cells(codebook, question.options.by)
        if forms:
            return {n: p for i, form in enumerate(forms) for n, p in _divided.parts(form, d, f"_{i}").items()}
        if not question.options.by:  # the sample is what is counted, unless domains leave some out
            return {"count": count}
        share = _EXPANDED if question.options.population else SHARE
        return {"count": count, "records": Part(integer=True, bound=1, share=share, what=Counts())}
    raise UsageError(f"{question.terms.method}: unknown ask: got {ask.name!r}; want sums, squares or replicates")


def _centre_told(ask: Ask) -> _centred.Centre:
    return _centred.Centre(np.asarray(ask.arrays["ratio"], np.float64), np.asarray(ask.arrays["size"], np.float64))


def _centred_parts(question: Question[Any], estimand: Estimand, ask: Ask) -> Mapping[str, Part]:
    """Of `centred`: a unit of which one record is added takes its mean along."""
    design, codebook, told = survey_design(question), question.codebook, _centre_told(ask)
    shape = (len(estimand.measures), design.cells(codebook), cells(codebook, question.options.by))
    if told.ratio.shape != shape or told.size.shape != shape:
        raise UsageError(f"centred: got centres of shape {told.ratio.shape} and {told.size.shape}; want {shape}")
    weight = largest(codebook, design.weight)
    y, x = _limits(codebook, estimand, np.zeros(shape[0]))
    bounds = {"y": times(weight, y[:, None, None] + times(np.abs(told.ratio), x[:, None, None]))}
    bounds["x"] = times(weight, x[:, None, None]) + np.abs(told.size)
    products = {
        name: np.full(shape, np.inf) if design.psu is not None else times(bounds[p], bounds[q])
        for name, (p, q) in _centred.PAIRS.items()
    }
    counts = Counts((*design.strata, *question.options.by), units=design.psu is not None)
    single = shape[0] == 1
    return {"present": Part(shape, integer=True, bound=1, single=single, what=counts)} | {
        name: Part(shape, bound=np.broadcast_to(bound, shape).copy(), single=single, what=Magnitude("present"))
        for name, bound in (bounds | products).items()
    }


def contribute(table: Table, question: Question[Any], estimand: Estimand, ask: Ask) -> Arrays:
    """The holder's arrays for `ask`."""
    design, by = survey_design(question), question.options.by
    sample = design.sample(table)
    k = len(estimand.measures)
    if ask.name == "sums":
        counted = table.aggregate(all=table.expr.count())["all"]
        records = sample.aggregate(n=sample.expr.count())["n"] if design.columns else counted
        whole: Arrays = {"records": np.array(records, np.int64), "left_out": np.array(counted - records, np.int64)}
        return {**whole, **_grids(sample, estimand, by, _values(sample, estimand, design.weight, np.zeros(k)))}
    if ask.name == "noisy":
        return _noisy(sample, question, estimand)
    if ask.name == _centred.ASK:
        values = _values(sample, estimand, design.weight, np.zeros(k))
        return _centred.sums(sample, design, by, values, _centre_told(ask))
    mu = ask.arrays["centre"]
    if ask.name == "replicates":
        return _replicated(sample, estimand, by, design.replicates, mu)
    values = _values(sample, estimand, design.weight, mu)
    pairs = [(f"{a}{i}", f"{b}{i}") for i in range(k) for a, b in PRODUCTS.values()]
    if estimand.plain(design):
        sums = psu_sums(sample, design, by, {"x0": values["x0"]}, [("x0", "x0")])
        found = (
            {"x": sums["x0"][None]} if design.simple else {"psus": psu_counts(sample, design), "x": sums["x0"][None]}
        )
        return found | ({} if design.psu is None or design.spans else {"xx": sums["x0*x0"][None]})
    sums = psu_sums(sample, design, by, values, pairs)
    arrays: dict[str, NDArray[Any]] = {} if design.simple else {"psus": psu_counts(sample, design)}
    arrays |= {name: np.stack([sums[f"{name}{i}"] for i in range(k)]) for name in ("y", "x")}
    if not design.spans:
        arrays |= {n: np.stack([sums[f"{a}{i}*{b}{i}"] for i in range(k)]) for n, (a, b) in PRODUCTS.items()}
    if estimand.kind == "ratio":
        plain = _values(sample, estimand, None, mu)
        squares = {f"s{i}": (values[f"y{i}"] * plain[f"y{i}"]).sum() for i in range(k)}
        arrays["spread"] = _stacked(sample.grid(by, **squares), "s", k).astype(np.float64)
    return arrays


def weighs(table: Table, question: Question[Any], estimand: Estimand, ask: Ask) -> Iterator[Weighed]:
    """How records weigh in `sums`, `squares` and `replicates`: each by itself, with its weight, in the cells asked for.

    Totals of PSUs are looked at by the records that they are made of.
    """
    design, k = survey_design(question), len(estimand.measures)
    by = discloses(question, estimand, ask).by
    sample = design.sample(table).complete(by)
    if ask.name == _centred.ASK:
        values = _values(sample, estimand, design.weight, np.zeros(k))
        amounts = [*_centred.deviations(sample, (*design.strata, *question.options.by), values, _centre_told(ask))]
        yield Amounts(sample, (*amounts, *(value * value for value in amounts)), by)
        return
    mu = np.asarray(ask.arrays.get("centre", np.zeros(k)), np.float64)
    if ask.name == "replicates":
        values = _values(sample, estimand, None, mu)
        amounts = [value * sample.number(name) for name in design.replicates for value in values.values()]
    else:
        values = _values(sample, estimand, design.weight, mu)
        amounts = list(values.values())
        if ask.name == "noisy" and noisy_forms(question, estimand):
            made = _terms(sample, question, estimand)
            amounts = [value for of in made for pieces in of.values() for value in pieces]
        elif ask.name in ("squares", "noisy"):
            amounts += [value * value for value in amounts]
        elif design.weight:
            amounts.append(sample.number(design.weight))
            yield from two_ways(sample, [*_values(sample, estimand, None, mu).values()], design.weight, by)
    yield Amounts(sample, tuple(amounts), by)


def discloses(question: Question[Any], estimand: Estimand, ask: Ask) -> Cells:
    """Cells of the domains; of strata (and PSUs, where they span holders) and domains for the squares.

    What is summed in them are the columns of the measures, and the weights, of which X is the sum.
    """
    design, by = survey_design(question), question.options.by
    if ask.name in ("squares", _centred.ASK):
        by = tuple(dict.fromkeys((*design.strata, *((design.psu,) if design.psu and design.spans else ()), *by)))
    weights = design.replicates if ask.name == "replicates" else (design.weight,) if design.weight else ()
    summed = dict.fromkeys((*(name for measure in estimand.measures for name in measure.columns), *weights))
    complete = estimand.measures[0].columns if len(estimand.measures) == 1 else ()
    return Cells(by, tuple(summed), (*design.columns, *complete))


def _limits(
    codebook: Codebook, estimand: Estimand, mu: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Largest absolute values of numerator - mu denominator, and of denominator, in one record: (measures,) each."""
    y, x = [], []
    for measure, m in zip(estimand.measures, mu, strict=True):
        x.append(largest(codebook, measure.denominator))
        bounds = codebook.columns[measure.numerator].bounds if measure.numerator else (1.0, 1.0)
        if bounds is None:
            y.append(np.inf)
        elif measure.denominator is None:
            y.append(max(abs(bounds[0] - m), abs(bounds[1] - m)))
        else:
            y.append(max(abs(bounds[0]), abs(bounds[1])) + float(times(abs(m), x[-1])))
    return np.array(y), np.array(x)


def _values(sample: Table, estimand: Estimand, weight: str | None, mu: NDArray[np.float64]) -> dict[str, Expr]:
    """Weighted numerator - mu denominator (`y0`, ...) and denominator (`x0`, ...), null where a value is missing."""
    values: dict[str, Expr] = {}
    for i, (measure, m) in enumerate(zip(estimand.measures, mu, strict=True)):
        x = sample.number(measure.denominator) if measure.denominator else ones(sample)
        if measure.numerator:
            y = sample.number(measure.numerator)
            x = y.notnull().ifelse(x, ibis.null("float64"))
            y = y - float(m) * x if m else y + 0 * x
        else:
            y = x - float(m) * x
        w = sample.number(weight) if weight else None
        values |= {f"y{i}": y if w is None else w * y, f"x{i}": x if w is None else w * x}
    return values


def _grids(
    sample: Table,
    estimand: Estimand,
    by: tuple[str, ...],
    values: dict[str, Expr],
) -> dict[str, NDArray[Any]]:
    """count, y and x over records: (measures, domains) each."""
    k = len(estimand.measures)
    asked: dict[str, Expr] = {}
    for i in range(k):
        asked |= {f"count{i}": values[f"y{i}"].count()}
        asked |= {f"y{i}": values[f"y{i}"].sum(), f"x{i}": values[f"x{i}"].sum()}
    found = sample.grid(by, **{f"_{name}": value for name, value in asked.items()})
    grids = {name: _stacked(found, f"_{name}", k).astype(np.float64) for name in ("y", "x")}
    return {"count": _stacked(found, "_count", k).astype(np.int64), **grids}


def _replicated(
    sample: Table, estimand: Estimand, by: tuple[str, ...], replicates: tuple[str, ...], mu: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """y and x under each replicate weight, (measures, replicates, domains), in statements of `TOGETHER` sums."""
    k = len(estimand.measures)
    values = _values(sample, estimand, None, mu)
    asked = {
        f"_{name}_{r}": (value * sample.number(weight)).sum()
        for r, weight in enumerate(replicates)
        for name, value in values.items()
    }
    names = list(asked)
    found: dict[str, NDArray[Any]] = {}
    for first in range(0, len(names), TOGETHER):
        found |= sample.grid(by, **{name: asked[name] for name in names[first : first + TOGETHER]})
    return {
        name: np.array(
            [[found[f"_{name}{i}_{r}"].reshape(-1) for r in range(len(replicates))] for i in range(k)], np.float64
        )
        for name in ("y", "x")
    }


def _stacked(found: Mapping[str, NDArray[Any]], name: str, k: int) -> NDArray[Any]:
    return np.stack([found[f"{name}{i}"].reshape(-1) for i in range(k)])


def _part(shape: tuple[int, ...], bound: NDArray[np.float64], what: What | None = None, share: float = 1.0) -> Part:
    """A part with one bound per measure, its first axis; of sums of values unless `what` says otherwise."""
    each = np.broadcast_to(bound.reshape(-1, *(1,) * (len(shape) - 1)), shape).copy()
    return Part(shape, bound=each, single=shape[0] == 1, share=share, what=what or Magnitude())
