"""Regressions of columns on each other: their formulas, what their answers become, and values drawn from them.

A column that is depended on is in a design by terms: a number by its value, levels by an indicator each but the first
that somebody has, a column with missing values by an indicator for them too, at which its value is 0. So no record is
left out for a value that it misses.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from statfed.core.codebook import Codebook, Column
from statfed.core.conditions import Condition
from statfed.core.errors import UsageError
from statfed.core.result import Result
from statfed.core.synthesis import Ask

Floats = NDArray[np.float64]
What = Literal["missing", "level", "value"]
_SIMPLE = re.compile(r"[A-Za-z_]\w*")
_PLAIN = re.compile(r"[\w .-]+")
_FLAT = 1e-20  # of a square of the mean: a variance that is rounding
_RIDGE = 1e-10  # of scaled information


@dataclass(frozen=True)
class Known:
    """What is told of one column. missing, known: numbers of records without and with a value; counts: by level, of
    those with levels; mean, std_dev: of others, 0 where nobody has a value."""

    missing: int
    known: int
    counts: Mapping[str, int]
    mean: float
    std_dev: float

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels that somebody has."""
        return tuple(level for level, count in self.counts.items() if count)

    @property
    def flat(self) -> bool:
        """Have all records that have a value the same one?"""
        if self.counts:
            return len(self.levels) < 2
        return not self.known or self.std_dev**2 <= _FLAT * self.mean**2


@dataclass(frozen=True)
class Term:
    """One column of a design. kind: what it is of a column; level: the code, of an indicator; text: as in a formula;
    name: as in the answer."""

    kind: Literal["intercept", "number", "log1p", "level", "missing"]
    column: str = ""
    level: str = ""
    text: str = ""
    name: str = "Intercept"

    def told(self) -> dict[str, str]:
        """For a model's file."""
        return {"kind": self.kind, "column": self.column, "level": self.level}


def quoted(name: str) -> str:
    """A column as formulas have it. Raises UsageError on a name that they cannot have."""
    if "`" in name:
        raise UsageError(f"columns: got {name}, with a backtick; want a name that a formula can have")
    return name if _SIMPLE.fullmatch(name) and not iskeyword(name) else f"`{name}`"


def indicator(name: str, level: str, column: Column) -> str:
    """Has a column a level, as formulas say it: by its place where its code has signs that they read."""
    return f"level({quoted(name)}, {repr(level) if _PLAIN.fullmatch(level) else column.levels.index(level)})"


def terms_of(name: str, known: Known, codebook: Codebook, logged: bool) -> tuple[Term, ...]:
    """The terms by which others depend on a column: none where it is the same at all records."""
    column, text = codebook.columns[name], quoted(name)
    gone = f"missing({text})"
    found = [Term("missing", name, text=gone, name=gone)] if known.missing and known.known else []
    if known.flat:
        return tuple(found)
    if column.levels and not known.missing:
        whole = f"C({text})"
        shown = {level: level.capitalize() if column.type == "boolean" else level for level in known.levels}
        return tuple(Term("level", name, level, whole, f"{whole}[T.{shown[level]}]") for level in known.levels[1:])
    if column.levels:
        each = [(level, indicator(name, level, column)) for level in known.levels[1:]]
        return (*found, *(Term("level", name, level, one, one) for level, one in each))
    value = f"log1p({text})" if logged else text
    value = f"known({value})" if known.missing or column.type == "date" else value
    called = name if value == text else value  # a formula names a column by itself without backticks
    return (*found, Term("log1p" if logged else "number", name, text=value, name=called))


@dataclass(frozen=True)
class Regression:
    """One regression, as it was told. what: whether `column` is missing, whether it has `level` where it has none of
    the levels before, or its value; terms, estimates, std_errors: of the linear predictor; sigma, residual_df: of a
    linear one, of a value or its log1p (`logged`)."""

    column: str
    what: What
    level: str
    logged: bool
    terms: tuple[Term, ...]
    estimates: tuple[float, ...]
    std_errors: tuple[float, ...]
    observations: int
    sigma: float
    residual_df: float

    def told(self) -> dict[str, Any]:
        """For a model's file."""
        found = {"column": self.column, "what": self.what, "level": self.level, "logged": self.logged}
        numbers = {"estimates": list(self.estimates), "std_errors": list(self.std_errors)}
        more = {"observations": self.observations, "sigma": self.sigma, "residual_df": self.residual_df}
        return found | {"terms": [term.told() for term in self.terms]} | numbers | more

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Regression":
        """One of a model's file."""
        terms = tuple(Term(one["kind"], one["column"], one["level"]) for one in told["terms"])
        estimates, errors = (tuple(float(x) for x in told[key]) for key in ("estimates", "std_errors"))
        if not len(terms) == len(estimates) == len(errors):
            raise UsageError(f"model: got {len(estimates)} estimates of {len(terms)} terms; want one for each")
        numbers = float(told["sigma"]), float(told["residual_df"])
        first = told["column"], told["what"], told["level"], bool(told["logged"])
        return cls(*first, terms, estimates, errors, int(told["observations"]), *numbers)


def asked(
    ask: Ask, codebook: Codebook, name: str, known: Mapping[str, Known], terms: Sequence[Term], logged: bool
) -> Iterator[Regression]:
    """The regressions of one column on the terms of others: is it missing, which level or what value has it?

    Raises UsageError, saying which regression, where one has no estimate.
    """
    column, mine, text = codebook.columns[name], known[name], quoted(name)
    if mine.missing and mine.known:
        yield _fitted(ask, "glm", (name, "missing", "", False), f"missing({text})", terms)
    if mine.flat:
        return
    if not column.levels:
        response = f"log1p({text})" if logged else f"known({text})" if column.type == "date" else text
        where = [f"{Condition(column=name, op='is not null')}"] if column.type == "date" and mine.missing else []
        yield _fitted(ask, "ols", (name, "value", "", logged), response, terms, where)
        return
    if len(column.levels) == 2:
        yield _fitted(ask, "glm", (name, "level", column.levels[1], False), text, terms)
        return
    for place, level in enumerate(mine.levels[:-1]):
        where = [str(Condition(column=name, op="in", value=mine.levels[place:]))] if place or mine.missing else []
        yield _fitted(ask, "glm", (name, "level", level, False), indicator(name, level, column), terms, where)


def _fitted(
    ask: Ask,
    analysis: str,
    of: tuple[str, What, str, bool],
    response: str,
    terms: Sequence[Term],
    where: Sequence[str] = (),
) -> Regression:
    whole = (Term("intercept"), *terms)
    formula = f"{response} ~ {' + '.join(dict.fromkeys(term.text for term in terms)) or '1'}"
    said = f"fcs: {formula}{' where ' + where[0] if where else ''}"
    try:
        result = ask(analysis, where=where, formula=formula)
    except UsageError as error:
        raise UsageError(
            f"{said}: {error}\nwant fewer columns, or predictors that say what {of[0]} depends on"
        ) from None
    rows = {str(row["name"]): row for row in result.tables["coefficients"]}
    if {*rows} != {term.name for term in whole}:
        astray = sorted({*rows} ^ {term.name for term in whole})
        raise UsageError(f"{said}: got no records at {', '.join(astray)}; want predictors without it")
    numbers = [
        [told(rows[term.name].get(key), f"{said}: {term.name}") for term in whole] for key in ("estimate", "std_error")
    ]
    linear = analysis == "ols"
    sigma, df = (told(result.facts.get(key), said) if linear else 0.0 for key in ("sigma", "residual_df"))
    records = int(told(result.facts.get("observations"), said))
    return Regression(*of, whole, tuple(numbers[0]), tuple(numbers[1]), records, sigma, df)


def told(value: Any, what: str) -> float:
    """A number of an answer. Raises UsageError where it was withheld: that is no 0."""
    if value is None:
        raise UsageError(f"{what}: got a figure that was withheld; want one that is told")
    return float(value)


def known_of(ask: Ask, codebook: Codebook, names: Sequence[str]) -> dict[str, Known]:
    """What is told of columns one by one: by `table`, `describe` and, of dates, `ols`."""
    found: dict[str, Known] = {}
    numbers = tuple(name for name in names if codebook.columns[name].numeric and not codebook.columns[name].levels)
    rows = ask("describe", columns=numbers).tables["columns"] if numbers else []
    described = {str(row["column"]): row for row in rows}
    for name in names:
        column = codebook.columns[name]
        if column.levels:
            result = ask("table", rows=(name,))
            counts = dict.fromkeys(column.levels, 0)
            counts |= {str(row[name]): int(told(row["count"], name)) for row in result.tables["cells"]}
            missing = int(told(result.facts["missing"], f"{name}: missing values"))
            found[name] = Known(missing, sum(counts.values()), counts, 0.0, 0.0)
        elif column.type == "date":
            found[name] = _dates(ask, name, column)
        else:
            row = described[name]
            missing, known = (int(told(row[key], name)) for key in ("missing", "count"))
            mean, spread = (
                told(row[key], name) if known > least else 0.0 for key, least in (("mean", 0), ("std_dev", 1))
            )
            found[name] = Known(missing, known, {}, mean, spread)
    return found


def _dates(ask: Ask, name: str, column: Column) -> Known:
    text = quoted(name)
    missing = 0
    if not column.required:
        share = ask("ols", formula=f"missing({text}) ~ 1")
        records = int(told(share.facts["observations"], name))
        missing = round(_intercept(share, name) * records)
        if missing == records:
            return Known(missing, 0, {}, 0.0, 0.0)
    result = ask("ols", where=[str(Condition(column=name, op="is not null"))], formula=f"known({text}) ~ 1")
    known = int(told(result.facts["observations"], name))
    return Known(missing, known, {}, _intercept(result, name), told(result.facts["sigma"], name))


def _intercept(result: Result, name: str) -> float:
    return told(result.tables["coefficients"][0]["estimate"], name)


def design(terms: Sequence[Term], columns: Mapping[str, NDArray[Any]], codebook: Codebook, count: int) -> Floats:
    """The terms of records as `Coded` has them, (count, terms)."""
    found = np.ones((count, len(terms)))
    for place, term in enumerate(terms):
        if term.kind == "intercept":
            continue
        values, levels = columns[term.column], codebook.columns[term.column].levels
        if term.kind == "missing":
            found[:, place] = values < 0 if levels else np.isnan(values)
        elif term.kind == "level":
            found[:, place] = values == levels.index(term.level)
        else:
            known = np.nan_to_num(values)
            found[:, place] = np.log1p(known) if term.kind == "log1p" else known
    return found


def drawn_parameters(regression: Regression, x: Floats, rng: np.random.Generator) -> Regression:
    """A regression with parameters drawn from their sampling distribution. x: (n, terms), records it could be of.

    Normal around the estimates. What is predicted at the records' mean (weighted as their information is) has the
    error that so many observations give it, and is independent of the slopes, to first order. These have the covariance
    of x, times one number by which their standard errors are in the geometric mean those that were told. Each told
    error with the correlations of x would not do: at the mean an intercept and slopes with large errors cancel, and a
    hundredth of one of them would move every record. A linear one's variance is drawn first, as the told one times its
    degrees of freedom over a chi-square with so many.
    """
    b, errors = np.array(regression.estimates), np.array(regression.std_errors)
    sigma, stretch = regression.sigma, 1.0
    if regression.what == "value" and sigma > 0:
        stretch = float(np.sqrt(regression.residual_df / rng.chisquare(regression.residual_df)))
        sigma *= stretch
    chance = expit(x @ b)
    weight = np.ones(len(x)) if regression.what == "value" else chance * (1 - chance)
    first = [term.kind for term in regression.terms].index("intercept")
    slopes = np.arange(len(b)) != first
    mean = x[:, slopes].T @ weight / weight.sum()
    centred = x[:, slopes] - mean
    size = np.sqrt(np.einsum("ij,ij,i->j", centred, centred, weight))
    size = np.where(size > 0, size, 1.0)
    scaled = (centred / size).T @ (centred / size * weight[:, None])
    np.fill_diagonal(scaled, 1.0 + _RIDGE)
    inverse = np.linalg.inv(scaled)
    places, vectors = np.linalg.eigh(inverse)
    own, told = np.sqrt(np.diag(inverse)) / size, errors[slopes]
    some = (told > 0) & (own > 0)
    ratio = float(np.exp(np.mean(np.log(told[some] / own[some])))) if some.any() else 0.0
    moved = ratio * (vectors @ (np.sqrt(np.maximum(places, 0.0)) * rng.standard_normal(len(places)))) / size
    unit = regression.sigma if regression.what == "value" else 1.0
    middle = unit * np.sqrt(len(x) / weight.sum() / regression.observations) * rng.standard_normal()
    found = b.copy()
    found[slopes] += stretch * moved
    found[first] += stretch * (middle - mean @ moved)
    return Regression(
        regression.column,
        regression.what,
        regression.level,
        regression.logged,
        regression.terms,
        tuple(float(value) for value in found),
        regression.std_errors,
        regression.observations,
        sigma,
        regression.residual_df,
    )


def within(values: Floats, low: float | None, high: float | None) -> Floats:
    """Values mirrored at the ends that there are, as often as it takes."""
    if low is not None and high is not None:
        if low == high:
            return np.full_like(values, low)
        width = high - low
        place = np.mod(values - low, 2 * width)
        return np.asarray(low + np.minimum(place, 2 * width - place), np.float64)
    if low is not None:
        return np.asarray(low + np.abs(values - low), np.float64)
    return values if high is None else np.asarray(high - np.abs(high - values), np.float64)


def allowed(values: Floats, column: Column) -> Floats:
    """Values as the column can have them: whole ones of whole numbers and days, within its bounds, NaN as it is."""
    if column.type in ("integer", "date"):
        values = np.round(values)
    low = None if column.low is None else float(column.low if column.type == "number" else np.ceil(column.low))
    high = None if column.high is None else float(column.high if column.type == "number" else np.floor(column.high))
    return np.asarray(np.clip(values, low, high) if low is not None or high is not None else values, np.float64)
