"""`table`: contingency tables of up to four category columns: counts, weighted counts or sums of a value, with margins.

One sum: counts exactly, totals, and what their variances need (see `_linearisation`): squares per stratum where records
are PSUs, products of PSU totals where PSUs are nested in holders, PSU totals where they span holders, or totals under
each replicate weight. For a value that cannot be negative also sums of squares of contributions: they bound the
largest contributors of a pooled cell (see `_crosstab`). They also tell the coordinator of a sum, before any release
rule, that the largest lies between sum of squares / sum and root of the sum of squares; for records those are the sums
that standard errors need anyway. Of 50 contributors from a lognormal law of sigma 2 that interval is three quarters of
the largest wide at the median; sums of eighth powers left a sixth, and hid more cells that are safe. Under a protection
that decides dominance rules there is a second ask instead, `contributors`: each holder's total and two largest
contributors in every row, of which one boolean a row is opened. Levels come from the codebook; one that nobody has is a
row of zeros.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Fixed, Magnitude, Part, Question, What, fixed
from statfed.core.privacy.cell_key import MODULUS
from statfed.core.table import Expr, Table
from statfed.core.weighing import Amounts, Weighed
from statfed.strategies.analyses import _crosstab, _divided
from statfed.strategies.analyses._contributors import contributors
from statfed.strategies.analyses._crosstab import POWER
from statfed.strategies.analyses._linearisation import psu_counts, psu_products, psu_shape, psu_sums
from statfed.strategies.analyses._margins import views
from statfed.strategies.analyses._replication import replication
from statfed.strategies.analyses._survey import (
    SurveyDesign,
    Weighting,
    categories,
    largest,
    limited,
    ones,
    survey_design,
    times,
)
from statfed.strategies.analyses._weighing import two_ways

TITLE = "Contingency tables, with margins, standard errors and tests of independence"
GROUP = "Estimates"
PUSHES_DOWN = "all"
MAGNIFIED = 2.0**64
MOST = 4


class Options(Weighting):
    """Options of table."""

    rows: tuple[str, ...] = Field(min_length=1, description="category columns down the side")
    columns: tuple[str, ...] = Field(default=(), description="category columns across; four in all at most")
    value: str | None = Field(default=None, description="numeric column to sum in the cells, instead of counting")
    largest_contributor: float | None = Field(
        default=None, gt=0, description="no enterprise's total of the value is larger: public, for dominance bounds"
    )
    nested_enterprises: bool = Field(
        default=False,
        description="no enterprise has records with two holders: dominance is then judged without a margin for it",
    )
    record_keys: bool = Field(default=False, description="also sum the record keys, for cell-key noise in the release")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options, codebook, design = question.options, question.codebook, survey_design(question)
    by = _by(options)
    categories(codebook, by, "rows, columns")
    if len(by) > MOST:
        raise UsageError(f"rows, columns: got {len(by)} columns; want {MOST} at most")
    value = (options.value,) if options.value else ()
    for name in value:
        codebook.number(name, "value")
        if question.privacy and codebook.columns[name].bounds is None:
            raise UsageError(f"privacy: {name}: got no bounds; want low and high in the codebook")
    if design.replicates:
        replication(codebook)
    if options.record_keys and codebook.role("record-key") is None:
        raise UsageError("record_keys: got no column of role record-key in the codebook; want one, uniform in [0, 1)")
    size = int(np.prod(_shape(question)))
    sizes = [size * int(np.prod(psu_shape(design, codebook))), size * len(design.replicates)]
    limited(max(sizes), "strata x PSUs x cells")
    if design.psu and not design.spans:
        limited(sizes[0] * size, "strata x pairs of cells")
    firm = (codebook.role("enterprise"),) if _bounded(question) else ()
    keys = (codebook.role("record-key"),) if options.record_keys else ()
    return tuple(dict.fromkeys(name for name in (*by, *value, *design.columns, *firm, *keys) if name))


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    design, codebook, shape = survey_design(question), question.codebook, _shape(question)
    by = _by(question.options)
    count = Part(shape, integer=True, bound=1, single=True, what=Counts(by))
    each: What = Magnitude("count") if _amounts(question) else Counts(by)
    bound = float(times(largest(codebook, design.weight), largest(codebook, question.options.value)))
    weighted = _weighted(question)
    square = bound * bound
    if ask.name == "noisy":
        return _divided.parts(form(question), math.prod(shape)) if weighted else {"count": count}
    if ask.name in functions(question):
        rows = sum(view.rows for view in views(codebook, _by(question.options)))
        largest_two = Part((2, rows), bound=bound, what=Magnitude())
        return {"total": Part((rows,), bound=bound, what=Magnitude()), "largest": largest_two}
    if ask.name != "cells":
        raise UsageError(f"table: unknown ask: got {ask.name!r}; want {', '.join(('cells', *functions(question)))}")
    whole = Part(integer=True, bound=1, what=Counts(beside="count"))
    left_out = Part(integer=True, bound=1, what=Counts(beside="left_out"))
    found = {"records": whole, "left_out": left_out, "count": count}
    if question.options.record_keys:
        found["key"] = Part(shape, integer=True, bound=MODULUS, single=True, what=Magnitude("count"))
    if design.replicates:
        heaviest = max(largest(codebook, name) for name in design.replicates)
        most = float(times(heaviest, largest(codebook, question.options.value)))
        found |= {"total": Part(shape, bound=bound, single=True, what=each)}
        found |= {"replicates": Part((len(design.replicates), *shape), bound=most, what=Magnitude("count"))}
    elif weighted:
        axes = psu_shape(design, codebook)
        found |= {"psus": Part(axes, integer=True, bound=1, single=True, what=Counts(design.strata, units=True))}
        found |= {"total": Part((*axes, *shape), bound=bound, single=True, what=each)}
        if design.psu is None:
            found |= {"squares": Part((*axes, *shape), bound=square, single=True, what=each)}
        elif not design.spans:
            found |= {"products": Part((*axes, *shape, *shape), what=Magnitude("count"))}
    if _bounding(question):
        for i, kept in enumerate(_kept(question)):  # without a bound: wide words, whose unit is known
            found[f"power{i}"] = Part(tuple(shape[axis] for axis in kept), bound=np.inf, single=True, what=Magnitude())
    return found


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design, by, shape = survey_design(question), _by(question.options), _shape(question)
    value = question.options.value
    sample = design.sample(table)
    known = sample.complete((value,)) if value else sample
    amount = known.number(value) if value else ones(known)
    weighted = known.number(design.weight) * amount if design.weight else amount
    if ask.name in functions(question):
        return contributors(known.filter(weighted > 0), by, weighted)
    count = known.grid(by, n=ones(known).count())["n"].astype(np.int64)
    if ask.name == "noisy":
        if not _weighted(question):
            return {"count": count}
        made = _divided.expressions(form(question), weighted)
        grid = known.grid(by, **{f"_{name}_{j}": x.sum() for name, xs in made.items() for j, x in enumerate(xs)})
        each = {name: [grid[f"_{name}_{j}"].astype(np.float64) for j in range(len(xs))] for name, xs in made.items()}
        others = int(sample.aggregate(n=ones(sample).count())["n"]) - int(count.sum())
        return _divided.arrays(form(question), each, others)
    counted = table.aggregate(all=ones(table).count())["all"]
    records = sample.aggregate(n=ones(sample).count())["n"]
    found: dict[str, NDArray[Any]] = {"records": np.array(records), "left_out": np.array(counted - records)}
    found["count"] = count
    if question.options.record_keys:
        key = known.number(str(question.codebook.role("record-key"))) * MODULUS
        found["key"] = known.grid(by, key=key.floor().cast("int64").sum())["key"].astype(np.int64)
    if design.replicates:
        sums = {"total": known.grid(by, total=weighted.sum())["total"]}
        for name in design.replicates:
            sums[name] = known.grid(by, total=(known.number(name) * amount).sum())["total"]
        found["total"] = sums["total"].astype(np.float64)
        found["replicates"] = np.stack([sums[name] for name in design.replicates]).astype(np.float64)
    elif _weighted(question):
        axes = psu_shape(design, question.codebook)
        squares = (("total", "total"),) if design.psu is None else ()
        linear = psu_sums(known, _linear(design), by, {"total": weighted}, squares)
        found |= {"psus": psu_counts(sample, design), "total": linear["total"].reshape(*axes, *shape)}
        if squares and not design.spans:
            found["squares"] = linear["total*total"].reshape(*axes, *shape)
        elif not design.spans:
            found["products"] = psu_products(known, design, by, weighted).reshape(*axes, *shape, *shape)
    if _bounding(question):
        found |= _powers(known.filter(weighted > 0), question, weighted)
    return found


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    options, design = question.options, survey_design(question)
    by = discloses(question, ask).by
    known = design.sample(table).complete((*((options.value,) if options.value else ()), *by))
    amount = known.number(options.value) if options.value else ones(known)
    weighted = known.number(design.weight) * amount if design.weight else amount
    amounts = [amount, weighted, weighted * weighted] if _weighted(question) else []
    if ask.name == "noisy" and _weighted(question):
        amounts += [x for xs in _divided.expressions(form(question), weighted).values() for x in xs]
    if design.weight and ask.name == "cells":
        amounts.append(known.number(design.weight))
        yield from two_ways(known, [amount], design.weight, by)
    if ask.name == "cells":
        amounts += [known.number(name) * amount for name in design.replicates]
    yield Amounts(known, tuple(amounts), by)


def discloses(question: Question[Options], ask: Ask) -> Cells:
    options, design = question.options, survey_design(question)
    value = (options.value,) if options.value else ()
    strata = design.strata if ask.name == "cells" else ()
    psu = (design.psu,) if design.psu and design.spans and ask.name == "cells" else ()
    by = tuple(dict.fromkeys((*strata, *psu, *_by(options))))
    return Cells(by, _summed(question) if ask.name == "cells" else _amounts(question), (*value, *design.columns))


def tells(options: Mapping[str, Any]) -> str:
    """What exact sums tell the coordinator of single contributors, for *who learns what*."""
    if not options.get("value"):
        return ""
    return (
        "sums of squares of contributions to each cell among them: the largest contributor of a cell lies between "
        "sum of squares / sum and root of the sum of squares"
    )


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("noisy")


def coordinate(question: Question[Options]) -> Coordination:
    by = _by(question.options)
    if question.privacy:
        total = yield Ask("noisy")
        if not _weighted(question):
            return _crosstab.noisy_result(question, by, total)
        shape = _shape(question)
        found = _divided.read(form(question), total, total.noise, math.prod(shape))
        return _crosstab.noisy_result(question, by, total, found, shape)
    total = yield Ask("cells")
    most = _largest(question) * _parted(question) if _bounding(question) else None
    unsafe = None
    for name in functions(question):
        unsafe = (yield Ask(name))["unsafe"]
    return _crosstab.result(question, by, total, _kept(question), most, _magnified(question), unsafe)


def functions(question: Question[Options]) -> Mapping[str, str]:
    function = deciding(question)
    agreed = question.terms.protection.options.get("functions", ())
    return {"contributors": function} if function and function in agreed else {}


def deciding(question: Question[Options]) -> str:
    if not _bounded(question):
        return ""
    apart = question.options.nested_enterprises or question.codebook.role("enterprise") is None
    return "dominance" if apart else "dominance-spanning"


def form(question: Question[Options]) -> _divided.Form:
    """How a private run has the sums of what a record adds to its cell."""
    codebook, design = question.codebook, survey_design(question)
    of = [codebook.columns[name].bounds for name in (question.options.value, design.weight) if name]
    low, high = 1.0, 1.0
    for bounds in of:
        low, high = _divided.product((low, high), bounds or (0.0, 0.0))
    return _divided.of_total(low, high)


def _by(options: Options) -> tuple[str, ...]:
    return (*options.rows, *options.columns)


def _amounts(question: Question[Options]) -> tuple[str, ...]:
    """Columns whose product is the amount that a record adds to its cell; none where that is 1."""
    names = (question.options.value, survey_design(question).weight)
    return tuple(dict.fromkeys(name for name in names if name))


def _summed(question: Question[Options]) -> tuple[str, ...]:
    """Columns that are summed in the cells, those of the record keys and replicate weights included."""
    key = question.codebook.role("record-key") if question.options.record_keys else None
    more = (*survey_design(question).replicates, *((key,) if key else ()))
    return tuple(dict.fromkeys((*_amounts(question), *more)))


def _shape(question: Question[Options]) -> tuple[int, ...]:
    return tuple(len(question.codebook.category(name).levels) for name in _by(question.options))


def _weighted(question: Question[Options]) -> bool:
    """Do totals differ from counts, or does the design have more than records?"""
    return bool(question.options.value or question.options.weight or question.options.design)


def _linear(design: SurveyDesign) -> SurveyDesign:
    """The design as far as sums of totals go, for which PSUs nested in holders do not matter."""
    return design if design.spans else replace(design, psu=None)


def _bounding(question: Question[Options]) -> bool:
    """Are contributions bounded from power sums? Not where the protection decides on them."""
    return _bounded(question) and not functions(question)


def _bounded(question: Question[Options]) -> bool:
    """Is there a value that cannot be negative, with a public largest contribution?"""
    value = question.options.value
    if value is None or question.privacy:
        return False
    bounds = [question.codebook.columns[n].bounds for n in (value, survey_design(question).weight) if n]
    return all(b is not None and b[0] >= 0 and b[1] > 0 for b in bounds)


def _largest(question: Question[Options]) -> float:
    """Public bound of one contribution, weighted."""
    options, codebook = question.options, question.codebook
    value = options.largest_contributor if codebook.role("enterprise") else None
    return (value or largest(codebook, options.value)) * largest(codebook, survey_design(question).weight)


def _parted(question: Question[Options]) -> float:
    """By how much bounds grow where an enterprise may be at several holders, and is a contributor at each.

    Its parts at h holders add up to at most sqrt(h) times the root of the sum of their squares.
    """
    nested = question.options.nested_enterprises or question.codebook.role("enterprise") is None
    return 1.0 if nested else len(question.terms.holders) ** (1 - 1 / POWER)


def _magnified(question: Question[Options]) -> float:
    """What sums of powers are multiplied by, so that those of small contributors are not lost in fixed point.

    A contribution of a stated largest one has a power of 1 at most, and MOST_RECORDS of them fit in wide words at
    MAGNIFIED. Where an enterprise may have any number of records its power has no bound, and is not magnified.
    """
    firm = question.codebook.role("enterprise")
    return 1.0 if firm is not None and question.options.largest_contributor is None else MAGNIFIED


def _kept(question: Question[Options]) -> list[tuple[int, ...]]:
    """Axes of the tables whose contributions are bounded: of the cells, and of every margin where an enterprise's
    contributions to several cells have to be added up before they are raised to a power."""
    axes = range(len(_by(question.options)))
    subsets = [kept for size in range(len(axes), -1, -1) for kept in combinations(axes, size)]
    return subsets if question.codebook.role("enterprise") else subsets[:1]


def _powers(table: Table, question: Question[Options], amount: Expr) -> dict[str, NDArray[np.float64]]:
    """Sums of (contribution / largest contribution)^2 over the contributors of each cell, times `_magnified`.

    A contributor is an enterprise where the codebook has that role, else a record. Raises UsageError when a declared
    largest contributor is exceeded.
    """
    by, most, firm = _by(question.options), _largest(question), question.codebook.role("enterprise")
    share = amount / most
    if firm is None:
        power = share**POWER
        return {"power0": table.grid(by, p=power.sum())["p"].astype(np.float64) * _magnified(question)}
    found = {}
    for i, kept in enumerate(_kept(question)):
        names = tuple(by[axis] for axis in kept)
        complete = table.complete(by).expr
        each = complete.group_by([complete[name] for name in dict.fromkeys((*names, firm))]).aggregate(
            _share=share.sum()
        )
        grouped = replace(table, expr=each)
        if question.options.largest_contributor and grouped.aggregate(top=each["_share"].max())["top"] > 1 + 1e-9:
            raise UsageError("largest_contributor: got an enterprise with more; want a larger public bound")
        power = grouped.grid(names, p=(each["_share"] ** POWER).sum())["p"].astype(np.float64)
        found[f"power{i}"] = power * _magnified(question)
    return found
