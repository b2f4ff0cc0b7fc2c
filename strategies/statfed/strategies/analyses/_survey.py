"""What design-based analyses share: their options, the sample design read from the codebook, and rows of estimates.

Quality flags are letter grades of the coefficient of variation, as national offices print beside survey estimates
(Statistics Canada and the Australian Bureau of Statistics use such grades; the cut points differ by survey, ours are
`QUALITY`). A grade says how much another sample might differ, so there is none where the sample does not tell: of an
error of 0, or fewer than `FEWEST` records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Question, once
from statfed.core.result import Scalar, check_places
from statfed.core.section import Section
from statfed.core.table import Expr, Table

QUALITY = (("A", 0.05), ("B", 0.10), ("C", 0.15), ("D", 0.25), ("E", 0.35), ("F", math.inf))
FEWEST = 2
"""Records whose spread an error can be known from; an estimate from fewer has no grade."""
LEVEL = 0.95
ESTIMATE = ("estimate", "std_error", "cv", "quality", "lower", "upper")
"""Columns of `estimate_row` beside the keys: figures of the records that an estimate is made from."""
IN_MODEL = (
    "a category of which the domain is the first level to interact with every term: the other coefficients are then "
    "those of the domain"
)
LARGEST = 4_000_000  # entries of one array that a holder is asked for


class Weighting(Section):
    """How records stand for a population."""

    weight: str | None = Field(default=None, description="column with the design weight, without the rest of a design")
    design: bool = Field(default=False, description="use the codebook's weight, strata, PSUs or replicate weights")


class Estimation(Weighting):
    """Options of estimates in domains."""

    by: tuple[str, ...] = Field(default=(), description="columns whose combinations of levels are the domains")
    population: float | None = Field(
        default=None, gt=0, description="known number of units: finite population correction and expansion"
    )


@dataclass(frozen=True)
class SurveyDesign:
    """The sample design of a query. weight None: every record counts 1. psu None: every record is its own PSU.

    declared: does the codebook describe it (otherwise it is simple random sampling)? spans: may a PSU have records
    with several holders? replicates: columns of replicate weights; the variance then comes from them alone.
    """

    weight: str | None = None
    strata: tuple[str, ...] = ()
    psu: str | None = None
    spans: bool = False
    replicates: tuple[str, ...] = ()
    declared: bool = False
    lonely: str = "refuse"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the design reads; a record that misses one of them is outside the sample."""
        own = (self.weight, *self.strata, self.psu, *self.replicates)
        return tuple(dict.fromkeys(name for name in own if name))

    @property
    def simple(self) -> bool:
        """Is every record its own PSU, without strata?"""
        return not (self.strata or self.psu or self.replicates)

    def cells(self, codebook: Codebook) -> int:
        """Number of combinations of the strata's levels."""
        return cells(codebook, self.strata)

    def sample(self, table: Table) -> Table:
        """The records that the design covers."""
        return table.complete(self.columns)


@once
def survey_design(question: Question[Any]) -> SurveyDesign:
    """The design that the options ask for. Raises UsageError where options and codebook do not give one."""
    codebook, given = question.codebook, getattr(question.options, "weight", None)
    if given is not None:
        weight_column(codebook, given)
    if not question.options.design:
        if question.privacy and given is not None and codebook.columns[given].bounds is None:
            raise UsageError(f"privacy: weight: got {given} without bounds; want low and high in the codebook")
        return SurveyDesign(weight=given)
    if question.privacy:
        raise UsageError("privacy: got design = true; want it off: design-based variances have no private form")
    if question.terms.where:
        given = type(question.options).model_fields
        ways = {"by": "the domain as by", "group": "the domain as group"}
        want = next((way for name, way in ways.items() if name in given), IN_MODEL)
        raise UsageError(f"design: got it with where, which takes records out of the design; want {want}")
    weight = codebook.role("weight")
    if given is not None and given != weight:
        raise UsageError(f"weight: got {given} with design; want the codebook's weight ({weight}) or none")
    strata, psu, replicates = codebook.with_role("stratum"), codebook.role("psu"), codebook.with_role("replicate")
    if not (weight or strata or psu or replicates):
        raise UsageError("design: got a codebook without roles; want weight, stratum, psu or replicate columns in it")
    if replicates:
        return SurveyDesign(weight=weight, replicates=replicates, declared=True)
    own, holders = codebook.design, len(question.terms.holders)
    if psu and own.psu_spans_holders is None and holders > 1:
        raise UsageError(
            f"design.psu_spans_holders: got none with the psu column {psu} and {holders} holders; want it in the "
            "codebook's [design]: true where some PSU has records with two holders, false where none has"
        )
    return SurveyDesign(weight, strata, psu, bool(psu and own.psu_spans_holders), (), True, own.lonely_psu)


def weight_column(codebook: Codebook, name: str) -> None:
    """Raises UsageError unless `name` is a number or an integer."""
    column = codebook.column(name, "weight")
    if column.type not in ("number", "integer"):
        raise UsageError(f"weight: {name}: got type {column.type}; want number or integer")


def other_weight(question: Question[Any], kind: str, way_out: str) -> None:
    """A weight that a method takes as something else than a design weight. kind: as what; way_out: what to ask instead.

    Raises UsageError where the codebook gives it the role of a design weight or of a replicate weight.
    """
    name = question.options.weight
    if name is None or getattr(question.options, "design", False):
        return
    weight_column(question.codebook, name)
    role = question.codebook.columns[name].role
    if role in ("weight", "replicate"):
        raise UsageError(
            f"weight: got {name}, which the codebook gives the role {role}, as {kind}; want {way_out}, or a column "
            "without that role"
        )


def categories(codebook: Codebook, names: Sequence[str], where: str) -> None:
    """Raises UsageError unless all `names` are different columns with levels."""
    for name in names:
        codebook.category(name, where)
    check_places(names)
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise UsageError(f"{where}: got {', '.join(twice)} more than once; want each column once")


def ones(table: Table) -> Expr:
    """1 in every record, as a column of float64: it follows the records into filters and groups, as a literal does not.

    Engines read literals with a point as exact decimals, and products of those overflow; times this they are floats.
    """
    return table.expr[table.expr.columns[0]].isnull().ifelse(1, 1).cast("float64")


def limited(entries: int, what: str) -> None:
    """Raises UsageError when a holder would have to send an array of more than `LARGEST` entries."""
    if entries > LARGEST:
        raise UsageError(f"{what}: got {entries:,} combinations; want {LARGEST:,} at most")


def cells(codebook: Codebook, names: Sequence[str]) -> int:
    """Number of combinations of the levels of `names`; 1 for none."""
    return math.prod(len(codebook.category(name).levels) for name in names)


def domains(codebook: Codebook, by: Sequence[str]) -> list[dict[str, str]]:
    """Every combination of the levels of `by`, last column fastest."""
    levels = [codebook.category(name).levels for name in by]
    return [dict(zip(by, combination, strict=True)) for combination in product(*levels)]


def largest(codebook: Codebook, name: str | None) -> float:
    """Largest absolute value that the codebook allows; infinite without bounds, 1 for no column."""
    bounds = (1.0, 1.0) if name is None else codebook.columns[name].bounds
    return math.inf if bounds is None else max(abs(bounds[0]), abs(bounds[1]))


def times(a: float | NDArray[np.float64], b: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of bounds, with 0 times infinity 0."""
    first, second = np.broadcast_arrays(np.asarray(a, np.float64), np.asarray(b, np.float64))
    product: NDArray[np.float64] = np.multiply(
        first, second, out=np.zeros(first.shape), where=(first != 0) & (second != 0)
    )
    return product


def estimate_row(
    keys: Mapping[str, Scalar],
    estimate: float | None,
    variance: float | None,
    *,
    df: float | None = None,
    allowed: tuple[float, float] = (-math.inf, math.inf),
    records: int | None = None,
) -> dict[str, Scalar]:
    """A row: `keys`, then estimate, std_error, cv, quality, lower and upper (95 %, t on `df` or normal).

    Unknown things are None. records: behind the estimate, where they are counted. allowed: the estimate and its limits
    are brought into this interval.
    """
    std_error = math.sqrt(max(0.0, variance)) if estimate is not None and variance is not None else None
    lower = upper = cv = None
    alone = records is not None and records < FEWEST
    if estimate is not None and std_error is not None:
        cv = std_error / abs(estimate) if estimate else None
        if df is None or df > 0:
            tail = (1 + LEVEL) / 2
            half = float(stats.norm.ppf(tail) if df is None else stats.t.ppf(tail, df)) * std_error
            lower, upper = clamped(estimate - half, allowed), clamped(estimate + half, allowed)
    return {
        **keys,
        "estimate": None if estimate is None else clamped(estimate, allowed),
        "std_error": std_error,
        "cv": cv,
        "quality": next(grade for grade, limit in QUALITY if cv <= limit) if cv and not alone else None,
        "lower": lower,
        "upper": upper,
    }


def clamped(value: float, allowed: tuple[float, float]) -> float:
    """`value`, or the end of the interval `allowed` that is nearest to it."""
    return min(max(value, allowed[0]), allowed[1])
