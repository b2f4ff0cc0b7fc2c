"""`fcs`: each column drawn from a linear or logistic regression on others; parameters from their distribution.

Asked are ordinary questions: of each column alone `table` or `describe`, then regressions (`ols`, `glm`), each an
answer that could be published by itself, under the holders' policies and the rules of a release. Numbers and dates have
a linear regression, two levels a logistic one, more levels a chain of them: is it this level, given that it is none of
those before, in the order of the codebook? That is a likelihood of its own, not the multinomial one. Whether a value is
missing is drawn first, by a logit, and others depend on that too. Formulas then say `level`, `missing` and `known`,
which a holder's policy has to list among its functions where it lists any.

*Order.* `sequential`: each column on those before it. The product of these is one joint distribution, and every record
a draw from it. `sweeps`: each on all others, by Gibbs sampling from the columns' own distributions (fully conditional
specification). Its conditionals need not belong to any joint distribution, and it only nears the one that they may
have; it is made for values that are imputed where others were observed, of which there are none here. So the default
is the first.

*Parameters.* An answer has standard errors and no covariances: with these counts of two levels together could be had,
which no rule on tables has seen. Parameters are drawn as normal: what is predicted at the mean by the number of
observations, slopes with the correlations that they have in records that the model itself draws and, in the mean, the
standard errors that were told. That is right as far as the model is. Each call draws its own; where records break
rules of a codebook, those that replace them have parameters of a call of their own, so that the variance between files
is too small by a little.

*Bounds.* Residuals are normal. A value beyond a bound is mirrored at it, so that none piles up there, and whole numbers
and days are rounded; the mean is moved inwards by as much. For amounts that are skewed take `log1p`. Matching on
predicted means takes values of records, and is not there: no record is told.

No estimate, no model: separated logits, collinear columns and too few records are refused, with the regression that has
none. A column that is the same at all records is drawn so, and nothing depends on it. What is in no regression is lost:
interactions, bends, shapes other than normal.
Sources: Raghunathan, Reiter and Rubin 2003 (Journal of Official Statistics 19); Drechsler 2011, chapter 3; van Buuren
2007 on conditionals that are of no joint distribution.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import expit

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.result import check_places
from statfed.core.section import Section
from statfed.core.synthesis import Ask, Columns, Model, Private
from statfed.core.synthetic.coded import described
from statfed.strategies.synthesis._regressions import (
    Known,
    Regression,
    allowed,
    asked,
    design,
    drawn_parameters,
    known_of,
    terms_of,
    within,
)

TITLE = "Regressions of each column on others, with parameters from their distribution (FCS)"
PRIVATE: Private = "never"
EXTRA = ""
MOST_COLUMNS = 60
_LEAST, _MOST = 2_000, 20_000  # records of which correlations of parameters are

State = dict[str, NDArray[Any]]


class Options(Section):
    """Options of fcs."""

    columns: tuple[str, ...] = Field(default=(), description="columns in their order; none: as in the codebook")
    order: Literal["sequential", "sweeps"] = Field(
        default="sequential", description="each on those before it, or on all others by Gibbs sampling"
    )
    sweeps: int = Field(default=10, ge=1, le=1000, description="of Gibbs sampling")
    parameters: Literal["drawn", "fixed"] = Field(
        default="drawn", description="from their sampling distribution in every file, or the estimates"
    )
    log1p: tuple[str, ...] = Field(default=(), description="numbers above -1 whose log(1 + x) is in the regressions")
    predictors: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="by column, the columns that it depends on, instead of all it could"
    )


def fit(ask: Ask, codebook: Codebook, options: Options) -> Model:
    """What is told of each column, and its regressions."""
    names = options.columns or described(codebook)
    if not names or len(names) > MOST_COLUMNS or len({*names}) < len(names):
        raise UsageError(f"columns: got {len(names)}; want 1 to {MOST_COLUMNS}, each once")
    check_places(names)
    if strange := [name for name in names if codebook.column(name, "columns") and name not in described(codebook)]:
        raise UsageError(f"columns: got {', '.join(strange)}, which identifies or has no levels and no order")
    for name in options.log1p:
        column = codebook.number(name, "log1p")
        if name not in names or column.levels or column.low is None or column.low <= -1:
            raise UsageError(f"log1p: got {name}; want numbers that are modelled, with low above -1 in the codebook")
    depends = _depends(names, options)
    known = known_of(ask, codebook, names)
    if not any(known[names[0]].__dict__[key] for key in ("missing", "known")):
        raise UsageError("fcs: got no records; want some")
    terms = {name: terms_of(name, known[name], codebook, name in options.log1p) for name in names}
    found = []
    for name in names:
        on = [term for other in depends[name] for term in terms[other]]
        found += [one.told() for one in asked(ask, codebook, name, known, on, name in options.log1p)]
    return {
        "order": options.order,
        "sweeps": options.sweeps,
        "parameters": options.parameters,
        "columns": {name: _told(one) for name, one in known.items()},
        "regressions": found,
    }


def _depends(names: tuple[str, ...], options: Options) -> dict[str, tuple[str, ...]]:
    """The columns that each depends on."""
    if astray := sorted({*options.predictors} - {*names}):
        raise UsageError(f"predictors: got {', '.join(astray)}; want columns that are modelled")
    found = {}
    for place, name in enumerate(names):
        could = names[:place] if options.order == "sequential" else tuple(other for other in names if other != name)
        chosen = options.predictors.get(name, could)
        if strange := sorted({*chosen} - {*could}):
            want = "columns before it" if options.order == "sequential" else "other columns"
            raise UsageError(f"predictors: {name}: got {', '.join(strange)}; want {want}")
        found[name] = tuple(dict.fromkeys(chosen))
    return found


def _told(known: Known) -> dict[str, Any]:
    numbers = {"missing": known.missing, "known": known.known}
    return numbers | (
        {"counts": dict(known.counts)} if known.counts else {"mean": known.mean, "std_dev": known.std_dev}
    )


def _known(told: Mapping[str, Any]) -> Known:
    missing, known = int(told["missing"]), int(told["known"])
    return Known(missing, known, told.get("counts", {}), float(told.get("mean", 0)), float(told.get("std_dev", 0)))


def generate(model: Model, codebook: Codebook, count: int, rng: np.random.Generator) -> Columns:
    """Records of one draw of the parameters. Raises UsageError on a model that is none."""
    try:
        known = {name: _known(one) for name, one in model["columns"].items()}
        regressions = [Regression.read(one) for one in model["regressions"]]
        sweeps = int(model["sweeps"]) if model["order"] == "sweeps" else 0
        if any(name not in codebook.columns for name in known) or any(one.column not in known for one in regressions):
            raise UsageError("model: got columns that the codebook has not; want those it was fitted with")
        if model["parameters"] == "drawn":
            tried = min(max(count, _LEAST), _MOST)
            records = _records(known, regressions, codebook, tried, sweeps, rng)
            regressions = [_drawn(one, known, records, codebook, rng) for one in regressions]
        return _records(known, regressions, codebook, count, sweeps, rng)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"model: got one that cannot be read ({error}); want one of fcs") from None


def _drawn(
    regression: Regression, known: Mapping[str, Known], records: State, codebook: Codebook, rng: np.random.Generator
) -> Regression:
    """A regression with parameters of its own, by the records that it is of."""
    values, column = records[regression.column], codebook.columns[regression.column]
    of = np.ones(len(values), np.bool_)
    if regression.what == "value":
        of = ~np.isnan(values)
    elif regression.what == "level":
        rest = _rest(regression, known[regression.column], column.levels)
        of = np.isin(values, [column.levels.index(level) for level in rest])
    inside = {name: one[of] for name, one in records.items()}
    return drawn_parameters(regression, design(regression.terms, inside, codebook, int(of.sum())), rng)


def _rest(regression: Regression, known: Known, levels: tuple[str, ...]) -> tuple[str, ...]:
    """Levels that are still open at a link of a chain."""
    return levels if len(levels) == 2 else known.levels[known.levels.index(regression.level) :]


def _records(
    known: Mapping[str, Known],
    regressions: list[Regression],
    codebook: Codebook,
    count: int,
    sweeps: int,
    rng: np.random.Generator,
) -> State:
    found: State = {}
    if sweeps:
        found = {name: _alone(name, one, codebook, count, rng) for name, one in known.items()}
    for _ in range(sweeps or 1):
        for name, one in known.items():
            mine = [each for each in regressions if each.column == name]
            found[name] = _column(name, one, mine, found, codebook, count, rng)
    return found


def _alone(name: str, known: Known, codebook: Codebook, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Where Gibbs sampling starts: a column by itself."""
    column, gone = codebook.columns[name], rng.random(count) * (known.missing + known.known) < known.missing
    if column.levels:
        shares = np.array([known.counts[level] for level in column.levels], np.float64)
        if not shares.any():
            return np.full(count, -1, np.int64)
        return np.where(gone, -1, rng.choice(len(shares), count, p=shares / shares.sum())).astype(np.int64)
    values = within(known.mean + known.std_dev * rng.standard_normal(count), column.low, column.high)
    return np.where(gone, np.nan, allowed(values, column))


def _column(
    name: str,
    known: Known,
    regressions: list[Regression],
    records: State,
    codebook: Codebook,
    count: int,
    rng: np.random.Generator,
) -> NDArray[Any]:
    """A column given others: is it missing, and if not, which level or what value is it?"""
    column = codebook.columns[name]
    predicted = {
        (one.what, one.level): design(one.terms, records, codebook, count) @ np.array(one.estimates)
        for one in regressions
    }
    gone = np.full(count, known.known == 0)
    if ("missing", "") in predicted:
        gone = rng.random(count) < expit(predicted["missing", ""])
    if column.levels:
        links = [one for one in regressions if one.what == "level"]
        last = column.levels[0] if len(column.levels) == 2 and links else known.levels[-1] if known.known else ""
        places = np.full(count, column.levels.index(last) if last else -1)
        opened = np.ones(count, np.bool_)
        for one in links:
            hit = opened & (rng.random(count) < expit(predicted["level", one.level]))
            places[hit] = column.levels.index(one.level)
            opened &= ~hit
        return np.where(gone, -1, places).astype(np.int64)
    values = np.full(count, known.mean)
    for one in regressions:
        if one.what == "value":
            values = predicted["value", ""] + one.sigma * rng.standard_normal(count)
            ends = (
                None if end is None else float(np.log1p(end)) if one.logged else end
                for end in (column.low, column.high)
            )
            values = within(values, *ends)
            values = np.expm1(values) if one.logged else values
    return np.where(gone, np.nan, allowed(values, column))
