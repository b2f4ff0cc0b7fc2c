"""`calibrate`: weights calibrated to known population margins by raking or regression, and totals and means with them.

The first sum is the weighted table of the margin columns, with each column's weighted sums in its cells: calibration
factors depend on the cell alone, so they and the estimates follow from it. The second is the squares of PSU totals of
weight x factor x residual, the residuals of the linearised values from their regression on the margins with design
weights: the variance of the generalised regression estimator, as R's calibrate. Records that miss a margin column are
left out of the calibration. Source: Deville and Särndal 1992, section 3; Lumley 2010, Complex Surveys, chapter 7.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ibis
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Coordination, Counts, Magnitude, Part, Question, What
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Weighed
from statfed.strategies.analyses._linearisation import (
    Moments,
    check_lonely,
    degrees,
    psu_counts,
    psu_shape,
    psu_sums,
    psus,
    variance,
)
from statfed.strategies.analyses._raking import (
    Calibration,
    check_sample,
    check_targets,
    dummies,
    margins_of,
    rake,
    regress,
)
from statfed.strategies.analyses._survey import (
    ESTIMATE,
    Weighting,
    categories,
    domains,
    estimate_row,
    largest,
    limited,
    ones,
    survey_design,
    times,
)
from statfed.strategies.analyses._weighing import two_ways

TITLE = "Calibration of weights to known margins (raking, GREG), with totals and means"
GROUP = "Estimates"
PUSHES_DOWN = "all"
Floats = NDArray[np.float64]


class Options(Weighting):
    """Options of calibrate."""

    margins: dict[str, dict[str, float]] = Field(
        min_length=1, description='population totals, {"sex": {"f": 510, "m": 490}, ...}; JSON'
    )
    method: Literal["raking", "linear", "greg"] = Field(default="raking", description="greg is another name of linear")
    columns: tuple[str, ...] = Field(default=(), description="numeric columns whose totals and means are wanted")

    @field_validator("margins", mode="before")
    @classmethod
    def _json(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return json.loads(value)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f'got text that is not JSON ({error}); want {{"sex": {{"f": 510, "m": 490}}}}'
                ) from None
        return value


def columns(question: Question[Options]) -> tuple[str, ...]:
    options, codebook = question.options, question.codebook
    names = tuple(options.margins)
    categories(codebook, names, "margins")
    for name, wanted in options.margins.items():
        levels = codebook.columns[name].levels
        if set(wanted) != set(levels):
            raise UsageError(f"margins.{name}: got {', '.join(wanted)}; want a total for each of {', '.join(levels)}")
        negative = [code for code, total in wanted.items() if total < 0]
        if negative:
            raise UsageError(f"margins.{name}: got negative totals for {', '.join(negative)}; want none")
    check_targets(names, _targets(question))
    for name in options.columns:
        codebook.number(name, "columns")
    design = survey_design(question)
    if design.replicates:
        raise UsageError("design: got replicate weights, each of which needs its own calibration; want strata and PSUs")
    limited(int(np.prod(_shape(question))), "cells of the margin columns")
    limited(2 * len(options.columns) * int(np.prod(psu_shape(design, codebook))), "estimates x strata x PSUs")
    return tuple(dict.fromkeys((*names, *options.columns, *design.columns)))


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    design, codebook, shape = survey_design(question), question.codebook, _shape(question)
    names, weight = question.options.columns, largest(codebook, design.weight)
    bounds = np.array([largest(codebook, name) for name in names])
    if ask.name == "cells":
        each = (len(names), *shape)
        wide = np.broadcast_to(times(weight, bounds).reshape(-1, *(1,) * len(shape)), each).copy()
        whole = Part(integer=True, bound=1, what=Counts(beside="count"))
        left_out = Part(integer=True, bound=1, what=Counts(beside="left_out"))
        counts = Counts(tuple(question.options.margins))
        weights: What = Magnitude("count") if design.weight else counts
        found = {
            "records": whole,
            "left_out": left_out,
            "count": Part(shape, integer=True, bound=1, single=True, what=counts),
            "weight": Part(shape, bound=weight, single=True, what=weights),
        }
        if names:
            found["known"] = Part(each, bound=weight, single=len(names) == 1, what=weights)
            found["sum"] = Part(each, bound=wide, single=len(names) == 1, what=Magnitude("count"))
        return found
    if ask.name != "squares":
        raise UsageError(f"calibrate: unknown ask: got {ask.name!r}; want cells or squares")
    axes = (2 * len(names), *psu_shape(design, codebook))
    given = ask.arrays
    factors = [np.abs(codes).max() for codes in _by_margin(question, given["codes"])]
    factor = float(np.prod(factors) if question.options.method == "raking" else 1 + np.sum(factors))
    fitted = sum(np.abs(codes).max(axis=0) for codes in _by_margin(question, given["beta"].T))
    residual = times(np.abs(given["scale"]), np.tile(bounds, 2) + np.abs(given["shift"])) + fitted
    bound = np.asarray(times(weight * factor, residual)).reshape(-1, *(1,) * (len(axes) - 1))
    units = Part(axes[1:], integer=True, bound=1, single=True, what=Counts(design.strata, units=True))
    found = {} if design.simple else {"psus": units}  # as many as `records` tells of
    found["y"] = Part(axes, bound=np.broadcast_to(bound, axes).copy(), what=Magnitude())
    if not design.spans:
        square = np.full(axes, np.inf) if design.psu else np.broadcast_to(bound * bound, axes).copy()
        found["yy"] = Part(axes, bound=square, what=Magnitude())
    return found


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design, names, margins = survey_design(question), question.options.columns, tuple(question.options.margins)
    sample = design.sample(table)
    known = sample.complete(margins)
    weight = known.number(design.weight) if design.weight else ones(known)
    if ask.name == "cells":
        counted = table.aggregate(all=ones(table).count())["all"]
        records = sample.aggregate(n=ones(sample).count())["n"]
        asked = {"_count": ones(known).count(), "_weight": weight.sum()}
        for i, name in enumerate(names):
            value = known.number(name)
            asked |= {f"_known{i}": weight.sum(where=value.notnull()), f"_sum{i}": (weight * value).sum()}
        found = known.grid(margins, **asked)
        of_columns = ("known", "sum") if names else ()
        return {
            "records": np.array(records),
            "left_out": np.array(counted - records),
            "count": found["_count"].astype(np.int64),
            "weight": found["_weight"].astype(np.float64),
            **{
                key: np.stack([found[f"_{key}{i}"] for i in range(len(names))]).astype(np.float64) for key in of_columns
            },
        }
    values = _linearised(known, question, weight, ask)
    sums = psu_sums(known, design, (), values, [(name, name) for name in values])
    axes = (2 * len(names), *psu_shape(design, question.codebook))
    arrays: dict[str, NDArray[Any]] = {} if design.simple else {"psus": psu_counts(sample, design)}
    arrays["y"] = np.array([sums[name] for name in values]).reshape(axes)
    if not design.spans:
        arrays["yy"] = np.array([sums[f"{name}*{name}"] for name in values]).reshape(axes)
    return arrays


def _linearised(known: Table, question: Question[Options], weight: Expr, ask: Ask) -> dict[str, Expr]:
    """What each record adds to the totals of linearised values, by place among totals and then means."""
    names = question.options.columns
    given = ask.arrays
    codes = _coded(known, question, given["codes"])
    factor = codes[0]
    for code in codes[1:]:
        factor = factor * code if question.options.method == "raking" else factor + code
    factor = factor if question.options.method == "raking" else 1 + factor
    values: dict[str, Expr] = {}
    for i, name in enumerate(names * 2):
        residual = ((known.number(name) - float(given["shift"][i])) * float(given["scale"][i])).fill_null(0.0)
        for fitted in _coded(known, question, given["beta"][i]):
            residual = residual - fitted
        values[str(i)] = weight * factor * residual
    return values


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    design, names, margins = survey_design(question), question.options.columns, tuple(question.options.margins)
    known = design.sample(table).complete(margins)
    weight = known.number(design.weight) if design.weight else ones(known)
    by = discloses(question, ask).by
    if ask.name == "cells":
        values = [known.number(name) for name in names]
        kept = [value.notnull().ifelse(weight, real(0.0)) for value in values]
        yield Amounts(known, (weight, *kept, *values, *(weight * value for value in values)), by)
        if design.weight:
            yield from two_ways(known, [ones(known), *values], design.weight, by)
        return
    linear = tuple(_linearised(known, question, weight, ask).values())
    yield Amounts(known.complete(by), (*linear, *(value * value for value in linear)), by)


def discloses(question: Question[Options], ask: Ask) -> Cells:
    options, design = question.options, survey_design(question)
    one = options.columns if len(options.columns) == 1 else ()
    psu = (design.psu,) if design.psu and design.spans else ()
    by = tuple(options.margins) if ask.name == "cells" else tuple(dict.fromkeys((*design.strata, *psu)))
    summed = dict.fromkeys((*options.columns, *((design.weight,) if design.weight else ())))
    return Cells(by, tuple(summed), (*one, *options.margins, *design.columns))


@dataclass(frozen=True)
class _Estimates:
    """Totals of the columns and then their means, (2 columns,), and what linearises them: scale (y - shift) - beta."""

    value: Floats
    scale: Floats
    shift: Floats
    beta: Floats


def coordinate(question: Question[Options]) -> Coordination:
    options, design = question.options, survey_design(question)
    first = yield Ask("cells")
    weight, names = first["weight"], tuple(options.margins)
    levels = [question.codebook.columns[name].levels for name in names]
    targets = _targets(question)
    check_sample(names, levels, weight, targets)
    found = (rake if options.method == "raking" else regress)(weight, targets)
    records, n = int(first["records"]), int(first["count"].sum())
    used = found.factor[weight > 0]
    facts: dict[str, Scalar] = {
        "observations": n,
        "missing": records - n,
        "left_out": int(first["left_out"]),
        "population": float(targets[0].sum()),
        "iterations": found.iterations,
        "discrepancy": found.discrepancy,
        "smallest_factor": float(used.min()),
        "largest_factor": float(used.max()),
    }
    notes: tuple[str, ...] = ()
    if (used < 0).any():
        notes = (f"{int((used < 0).sum())} cells have negative factors; raking has none",)
    tables = {"factors": _factors(question, found, weight, first["count"])}
    tables["margins"] = _margins(question, weight, weight * found.factor, targets)
    if not options.columns:
        return _result(tables, facts, notes, names, None)
    estimates = _estimates(found.factor, weight, first["known"], first["sum"])
    linear = {"scale": estimates.scale, "shift": estimates.shift, "beta": estimates.beta}
    second = yield Ask("squares", {"codes": np.concatenate(found.codes), **linear})
    units = np.array([float(records)]) if design.simple else psus(design, second["psus"])
    check_lonely(design, units)
    y = second["y"]
    sums, squares = (y.sum(axis=2), (y * y).sum(axis=2)) if design.spans else (y, second["yy"])
    none, one = np.zeros((*sums.shape, 1)), np.ones((len(sums), 1))
    moments = Moments(sums[..., None], none, squares[..., None], none, none)
    squared = variance(units, moments, one, 0 * one, design.lonely)[:, 0]
    df = degrees(units)
    rows: list[Row] = []
    for i, name in enumerate(options.columns * 2):
        what = "total" if i < len(options.columns) else "mean"
        value = float(estimates.value[i]) if np.isfinite(estimates.value[i]) else None
        error = float(squared[i]) if design.declared or records > 1 else None
        rows.append(estimate_row({"column": name, "statistic": what}, value, error, df=df))
    return _result({"estimates": rows} | tables, facts, notes, names, df)


def _result(
    tables: Mapping[str, list[Row]],
    facts: Mapping[str, Scalar],
    notes: tuple[str, ...],
    names: tuple[str, ...],
    df: float | None,
) -> Result:
    """What was sampled by margin is the sum of the cells' weights, so that it tells of a cell that is withheld."""
    basis = {
        "estimates": Basis(keys=("column", "statistic"), observations=True, own=ESTIMATE),
        "factors": Basis(names, counts=("count",), own=("weight", "factor", "total")),
        "margins": Basis(
            keys=("column", "code", "target"), observations=True, own=("calibrated",), derived=("sampled",)
        ),
    }
    return Result(
        "calibrate",
        "Calibration",
        tables,
        facts,
        notes,
        names,
        df,
        basis=basis,
        observations="observations",
        numbers=("missing", "left_out"),
        public=("population",),
    )


def _estimates(factor: Floats, weight: Floats, known: Floats, sums: Floats) -> _Estimates:
    """Calibrated totals and means, and the regression of their linearised values on the margins' codes."""
    cells = (len(known), -1)
    size, total = (known * factor).reshape(cells).sum(axis=1), (sums * factor).reshape(cells).sum(axis=1)
    mean = np.divide(total, size, out=np.full(len(size), np.nan), where=size != 0)
    inverse = np.divide(1.0, size, out=np.zeros(len(size)), where=size != 0)
    scale = np.concatenate([np.ones(len(size)), inverse])
    shift = np.concatenate([np.zeros(len(size)), np.nan_to_num(mean)])
    linear = scale[:, None] * (
        np.tile(sums.reshape(cells), (2, 1)) - shift[:, None] * np.tile(known.reshape(cells), (2, 1))
    )
    root = np.sqrt(np.maximum(weight.reshape(-1), 0.0))
    target = np.divide(linear, root, out=np.zeros(linear.shape), where=root > 0)
    beta: NDArray[Any] = np.linalg.lstsq(root[:, None] * dummies(weight.shape), target.T, rcond=None)[0].T
    return _Estimates(np.concatenate([total, mean]), scale, shift, beta)


def _factors(question: Question[Options], found: Calibration, weight: Floats, count: NDArray[np.int64]) -> list[Row]:
    cells = domains(question.codebook, tuple(question.options.margins))
    flat = zip(cells, count.reshape(-1), weight.reshape(-1), found.factor.reshape(-1), strict=True)
    return [
        {
            **cell,
            "count": int(n),
            "weight": float(w),
            "factor": float(g) if n else None,
            "total": float(w * g),
        }
        for cell, n, w, g in flat
    ]


def _margins(question: Question[Options], before: Floats, after: Floats, targets: list[Floats]) -> list[Row]:
    rows: list[Row] = []
    for axis, name in enumerate(question.options.margins):
        codes = question.codebook.columns[name].levels
        sampled, reached = margins_of(before)[axis], margins_of(after)[axis]
        for code, have, now, want in zip(codes, sampled, reached, targets[axis], strict=True):
            shown: Row = {"column": name, "code": code, "sampled": float(have), "calibrated": float(now)}
            rows.append({**shown, "target": float(want)})
    return rows


def _shape(question: Question[Options]) -> tuple[int, ...]:
    return tuple(len(question.codebook.category(name).levels) for name in question.options.margins)


def _targets(question: Question[Options]) -> list[Floats]:
    return [
        np.array([wanted[code] for code in question.codebook.columns[name].levels])
        for name, wanted in question.options.margins.items()
    ]


def _by_margin(question: Question[Options], codes: Floats) -> list[Floats]:
    return np.split(codes, np.cumsum(_shape(question))[:-1])


def _coded(table: Table, question: Question[Options], codes: Floats) -> list[Expr]:
    """Per margin column, the number that belongs to a record's code."""
    found = []
    for name, numbers in zip(question.options.margins, _by_margin(question, codes), strict=True):
        code = table[name].cast("string")
        pairs = zip(table.codebook.columns[name].levels, numbers, strict=True)
        found.append(ones(table) * ibis.cases(*((code == level, float(number)) for level, number in pairs)))
    return found
