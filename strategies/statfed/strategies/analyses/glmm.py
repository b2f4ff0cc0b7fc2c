"""`glmm`: a generalised linear mixed model, logistic or Poisson, with one random intercept over a public grouping.

Groups are the levels that the codebook lists for a column (countries, regions, hospitals); a group's records may lie
at one holder or at many. Each ask carries coefficients and group effects; the holders' sums are the score and Fisher
information there, as a whole and by group. The marginal likelihood, in which the effects are independent normal with
standard deviation sigma, is maximised in its Laplace approximation over coefficients and sigma alike, as lme4's glmer
does with nAGQ = 1; see `_glmm_fit`.

Where a group is one holder, as with a country's institute, the sums by group are that holder's own: a protection that
shows sums over holders only hides no more of it than its records. Groups that several holders share are hidden as in
any sum.

Standard errors of coefficients are those given sigma, from the penalised information; effects are shown as their modes
with the standard error of the difference between mode and effect, the coefficients' uncertainty included (Henderson
1975). sigma is a maximum likelihood estimate: over few groups it is biased downwards, by a factor of about
sqrt((G - 1) / G) for G groups, and its likelihood ratio is compared with an equal mixture of chi-square on 0 and 1
degrees of freedom (Self and Liang 1987). There is no differentially private form.
"""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import ibis
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import stats

from statfed.core.errors import UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Coordination,
    Counts,
    Magnitude,
    Model,
    Part,
    Product,
    Question,
    Total,
    once,
)
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.section import Section
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Weighed
from statfed.strategies.analyses import _glm_sums
from statfed.strategies.analyses._families import LINKS, RESPONSES, Family
from statfed.strategies.analyses._glm_search import At, Search, course, maximised
from statfed.strategies.analyses._glmm_fit import Mode, find_variance, start_variance
from statfed.strategies.analyses._glmm_sums import pushed_down, step_parts, streamed, sums_weigh
from statfed.strategies.analyses._matrix import Design, make_design
from statfed.strategies.analyses._records import left_out, looked_at
from statfed.strategies.analyses._regression import (
    Basis as Columns,
)
from statfed.strategies.analyses._regression import (
    coefficient_basis,
    coefficient_rows,
    identified,
    make_basis,
    read_start,
    start_parts,
    whitening,
)
from statfed.strategies.analyses._weighing import of_design, spanned

TITLE = "Mixed models with a random intercept: logistic and Poisson, Laplace approximation"
GROUP = "Models"
PUSHES_DOWN = "all but the separation check; embedded DuckDB streams"
COLUMNS = 200  # of the model: each is two sums by group in one statement
START_TOLERANCE = 1e-3  # standard errors: of the model without group effects, which is a start alone
_OWN = {"records", "estimate", "std_error", "lower", "upper"}


class Options(Section):
    """Options of glmm."""

    formula: str = Field(min_length=1, description="response ~ terms without the group, for example 'employed ~ age'")
    group: str = Field(description="category column whose levels have random intercepts")
    family: Literal["binomial", "poisson"] = Field(default="binomial", description="with logit and log link")
    offset: str | None = Field(default=None, description="column that is added to the linear predictor")
    exposure: str | None = Field(default=None, description="Poisson: column whose logarithm is added to it")
    design: bool = Field(default=False, description="refused: a sample design is for glm")
    max_iterations: int = Field(default=50, ge=1, le=1000, description="steps at one sigma, and values of sigma")
    tolerance: float = Field(
        default=1e-8, gt=0, le=1e-2, description="ends when steps are below so many standard errors"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.exposure and self.family != "poisson":
            raise ValueError(f"exposure: got one with family {self.family}; want poisson, or offset")
        return self


def columns(question: Question[Options]) -> tuple[str, ...]:
    options, codebook = question.options, question.codebook
    if options.design:
        raise UsageError(
            "design: got it with glmm; want glm with design = true, and the group as PSU or in the formula: a design "
            "weight alone does not say how groups and records in them were drawn, which a random intercept has to know"
        )
    design = _model(question)
    codebook.category(options.group, "group")
    if options.group in design.columns:
        raise UsageError(f"group: got {options.group}, which the formula has too; want it in one of them")
    if options.group in _OWN:
        raise UsageError(f"group: got {options.group}; want a column not named like one of the result's own")
    if len(design.names) > COLUMNS:
        raise UsageError(f"formula: got {len(design.names)} columns; want {COLUMNS} at most")
    for key, name in (("offset", options.offset), ("exposure", options.exposure)):
        if name is not None:
            codebook.number(name, key)
    return _reads(question, design)


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    design, family = _model(question), _family(question.options)
    one = Part(integer=True, bound=1, what=Counts())
    unsaid = Part(integer=True, bound=1)  # numbers of records in half spaces of the coordinator's
    if ask.name == "start":
        binomial = family.name == "binomial"
        saturated = Part(bound=1.0 if binomial else math.inf, what=Product())
        sums = {"response": Part(bound=_largest(design), what=Magnitude("records")), "saturated": saturated}
        count = Part((_groups(question),), 1, integer=True, single=True, what=Counts((question.options.group,)))
        counts = {"bad_response": one, "bad_exposure": one}
        return start_parts(design) | counts | sums | {"count": count}
    if ask.name == "step":
        return step_parts(family, make_basis(design, question.codebook, ask).bound, _groups(question))
    if ask.name == "separation":
        return {"moved": unsaid, "against": unsaid}
    raise UsageError(f"glmm: unknown ask: got {ask.name!r}; want start, step or separation")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design, family, group = _model(question), _family(question.options), question.options.group
    complete = table.complete(_reads(question, design))
    y, offset = design.response_expression(complete), _offset(complete, question)
    if ask.name == "start":
        sums = _glm_sums.start_sums(complete, question.options.exposure, design, family, y, real(1.0))
        found = {name: sums[name] for name in parts(question, ask) if name in sums}
        return {**found, **looked_at(table), "count": complete.grid((group,), n=ibis._.count())["n"]}
    z = make_basis(design, question.codebook, ask).expressions(complete)
    if ask.name == "separation":
        return _glm_sums.streamed(complete, z, (y, real(1.0), offset), family, ask)
    at = ask.arrays["coefficients"], ask.arrays["effects"]
    return (streamed if complete.embedded else pushed_down)(complete, z, (y, offset), group, family, *at)


def functions_used(question: Question[Options]) -> frozenset[str]:
    return _model(question).functions


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    design, group = _model(question), question.options.group
    levels = [table[group].cast("string") == code for code in question.codebook.category(group).levels]
    return [*spanned(table, design), *(there.ifelse(1.0, 0.0) for there in levels)]


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    design, family, group = _model(question), _family(question.options), question.options.group
    complete = table.complete(_reads(question, design))
    y, offset = design.response_expression(complete), _offset(complete, question)
    if ask.name == "start":
        yield from of_design(complete, design)
        yield _glm_sums.saturated_weighs(complete, family, y, real(1.0))
    if ask.name == "step":
        z = make_basis(design, question.codebook, ask).expressions(complete)
        at = ask.arrays["coefficients"], ask.arrays["effects"]
        yield from sums_weigh(complete, z, (y, offset), group, family, *at)


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:
    return course(before, ask, {"step": 40 * question.options.max_iterations})


def discloses(question: Question[Options], ask: Ask) -> Model:  # noqa: ARG001
    design = _model(question)
    return Model(len(design.names) + _groups(question), _reads(question, design))


def coordinate(question: Question[Options]) -> Coordination:
    design, options = _model(question), question.options
    family = _family(options)
    start = yield Ask("start")
    n, means, present, notes = read_start(start, design)
    _check_start(start, question, design)
    arrays = {"mean": means, "present": present, "effects": np.zeros(_groups(question))}
    basis = make_basis(design, question.codebook, Ask("step", arrays))
    p = len(basis.free)
    if n <= p + 1:
        raise UsageError(f"formula: got {n} complete records for {p + 1} parameters; want more records than parameters")
    search = Search(family, arrays, basis, float(n), False, options.max_iterations, options.tolerance)
    fixed, basis, left = yield from _without_groups(
        replace(search, tolerance=START_TOLERANCE), float(start["response"]) / n
    )
    search, notes, p = replace(search, basis=basis), notes + left, len(basis.free)
    null = -float(fixed.total["deviance"]) / 2
    found, variance = None, start_variance(fixed)
    if variance is not None:
        mode = fixed.at(variance)
        begin = yield from mode.after(search, *mode.solve(*mode.gradient()))
        found = yield from find_variance(search, mode if begin.total["invalid"] else begin, [])
    if found is None or found.log_likelihood <= null:
        at, _ = yield from maximised(search, At(fixed.b, fixed.total), basis.free)
        found = None
        b, likelihood = at.b, -float(at.total["deviance"]) / 2
        w = whitening(at.information(basis.free))
    else:
        b, likelihood, w = found.b, found.log_likelihood, found.whitened()
    covariance = basis.matrix @ w @ w.T @ basis.matrix.T
    tables: dict[str, list[Row]] = {
        "coefficients": coefficient_rows(basis.design.names, basis.matrix @ b[list(basis.free)], covariance, "z", None),
        "groups": _effects(question, start["count"], found),
    }
    ratio = max(2 * (likelihood - null), 0.0) if found else 0.0
    likelihood += float(start["saturated"])
    facts: dict[str, Scalar] = {
        "observations": n,
        "missing": left_out(start, n),
        "groups": int((start["count"] > 0).sum()),
        "residual_df": n - p - 1,
        "sigma": math.sqrt(found.variance) if found else 0.0,
        "log_sigma_std_error": found.spread if found else None,
        "log_likelihood": likelihood,
        "aic": -2 * likelihood + 2 * (p + 1),
        "bic": -2 * likelihood + float(np.log(n)) * (p + 1),
        "likelihood_ratio": ratio,
        "likelihood_ratio_p_value": float(stats.chi2.sf(ratio, 1)) / 2 if ratio > 0 else 1.0,
    }
    title = f"Mixed model, {family.name} with {family.link} link: {design.formula}, random intercept of {options.group}"
    by = (options.group,)
    return Result(
        "glmm",
        title,
        tables,
        facts,
        notes + _notes(question, design, start, found),
        by,
        basis={
            "coefficients": coefficient_basis("z", "residual_df"),
            "groups": Basis(by, counts=("records",), own=("estimate", "std_error")),
        },
        observations="observations",
        numbers=("missing",),
    )


def _check_start(start: Total, question: Question[Options], design: Design) -> None:
    family, group = question.options.family, question.options.group
    if start["bad_response"]:
        raise UsageError(f"formula: got values of {design.response} that {family} has not; want {RESPONSES[family]}")
    if start["bad_exposure"]:
        raise UsageError("exposure: got records with 0 or less; want positive values")
    if (start["count"] > 0).sum() < 2:
        raise UsageError(
            f"group: got records at one level of {group}; want two or more, or glm: one group has no spread"
        )


def _without_groups(search: Search, mean: float) -> Generator[Ask, Total, tuple[Mode, Columns, tuple[str, ...]]]:
    """The generalised linear model: a start, and what sigma = 0 means; the basis of the columns that are identified,
    and notes on others."""
    basis, groups = search.basis, len(search.arrays["effects"])
    b = np.zeros(basis.size)
    b[[basis.free[j] for j in basis.design.constant]] = search.family.predictor(mean)
    first = At(b, (yield search.ask("step", b)))
    basis, left = identified(first.information(basis.free), basis)
    at, _ = yield from maximised(replace(search, basis=basis), first, basis.free)
    return Mode(at.b, np.zeros(groups), at.total, basis.free, 1.0), basis, left


def _effects(question: Question[Options], counts: NDArray[np.int64], found: Mode | None) -> list[Row]:
    """A row for each group with records."""
    name = question.options.group
    none = np.zeros(len(counts))
    modes, errors = (found.u, found.errors()) if found else (none, none)
    return [
        {name: code, "records": int(count), "estimate": float(mode), "std_error": float(error)}
        for code, count, mode, error in zip(question.codebook.category(name).levels, counts, modes, errors, strict=True)
        if count > 0
    ]


def _notes(question: Question[Options], design: Design, start: Total, found: Mode | None) -> tuple[str, ...]:
    group = question.options.group
    levels = question.codebook.category(group).levels
    absent = [code for code, count in zip(levels, start["count"], strict=True) if not count]
    notes = ["Standard errors of coefficients are those given sigma."]
    if found is None:
        notes.append("sigma is estimated as 0: groups differ no more than their records let expect.")
    if absent:
        notes.append(f"{group}: no records at {', '.join(absent)}; left out")
    if design.response_levels:
        notes.append(f"{design.response}: {design.response_levels[1]} counts as 1, {design.response_levels[0]} as 0")
    return tuple(notes)


def _family(options: Options) -> Family:
    return Family(options.family, LINKS[options.family][0])


def _groups(question: Question[Options]) -> int:
    return len(question.codebook.category(question.options.group, "group").levels)


@once
def _model(question: Question[Options]) -> Design:
    response: Literal["binary", "number"] = "binary" if question.options.family == "binomial" else "number"
    return make_design(question.options.formula, question.codebook, response=response)


def _reads(question: Question[Options], design: Design) -> tuple[str, ...]:
    options = question.options
    more = (name for name in (options.group, options.offset, options.exposure) if name)
    return tuple(dict.fromkeys((*design.columns, *more)))


def _largest(design: Design) -> float:
    return max(abs(end) for end in design.response_bounds)


def _offset(table: Table, question: Question[Options]) -> Expr:
    options = question.options
    offset = table.number(options.offset) if options.offset else real(0.0)
    if options.exposure is None:
        return offset
    exposure = table.number(options.exposure)
    positive: Expr = ibis.ifelse(exposure > 0, exposure, real(1.0))
    return offset + positive.ln()
