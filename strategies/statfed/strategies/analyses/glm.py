"""`glm`: generalised linear models by Fisher scoring (IRLS) on protected sums: one ask per iteration.

Each ask carries coefficients; the holders' sums are the score, the Fisher information, the deviance and Pearson's
chi-square there, from which the next step follows, halved while the deviance would rise. It ends when a step is below
`tolerance` standard errors. Where the maximum likelihood estimate does not exist, a direction in which no record's fit
gets worse is looked for and named (separation; Albert and Anderson 1984). Values as statsmodels' GLM: standard errors
from the expected information; the scale of gamma and gaussian is Pearson's chi-square over residual degrees of freedom.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import ibis
import numpy as np
from pydantic import Field, model_validator

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
from statfed.core.result import Result, Scalar
from statfed.core.section import Section
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Weighed
from statfed.strategies.analyses._families import LINKS, RESPONSES, Family
from statfed.strategies.analyses._glm_search import HALVINGS, Search, course, first, maximised
from statfed.strategies.analyses._glm_sums import pushed_down, saturated_weighs, start_sums, streamed, sums_weigh
from statfed.strategies.analyses._matrix import Design, make_design
from statfed.strategies.analyses._regression import (
    coefficient_basis,
    coefficient_rows,
    make_basis,
    read_start,
    start_parts,
    whitening,
)
from statfed.strategies.analyses._survey import weight_column
from statfed.strategies.analyses._weighing import of_design, spanned

TITLE = "Generalised linear models: logistic, probit, Poisson, gamma, negative binomial, gaussian"
GROUP = "Models"
PUSHES_DOWN = "all but probit, starting values and the separation check; embedded DuckDB streams"


class Options(Section):
    """Options of glm."""

    formula: str = Field(min_length=1, description="response ~ terms, for example 'employed ~ age + C(region)'")
    family: Literal["binomial", "poisson", "gamma", "negative-binomial", "gaussian"] = "binomial"
    link: Literal["logit", "probit", "log", "identity", "inverse"] | None = Field(
        default=None, description="default: logit, log, inverse, log and identity, in the order of the families"
    )
    alpha: float = Field(default=1.0, gt=0, le=1e6, description="negative-binomial: variance is mu + alpha mu^2")
    offset: str | None = Field(default=None, description="column that is added to the linear predictor")
    exposure: str | None = Field(default=None, description="column whose logarithm is added to it (log link)")
    weight: str | None = Field(default=None, description="column of frequency weights")
    max_iterations: int = Field(default=50, ge=1, le=1000)
    tolerance: float = Field(
        default=1e-9, gt=0, le=1e-2, description="ends when a step is below so many standard errors"
    )

    @model_validator(mode="after")
    def _fits(self) -> "Options":
        if self.link and self.link not in LINKS[self.family]:
            raise ValueError(f"link: got {self.link} for {self.family}; want one of {', '.join(LINKS[self.family])}")
        if self.exposure and (self.link or LINKS[self.family][0]) != "log":
            raise ValueError("exposure: got one without the log link; want link log, or offset")
        return self


def columns(question: Question[Options]) -> tuple[str, ...]:
    options, codebook = question.options, question.codebook
    design = _model(question)
    if options.weight is not None:
        weight_column(codebook, options.weight)
    for key, name in (("offset", options.offset), ("exposure", options.exposure)):
        if name is not None:
            codebook.number(name, key)
    return _reads(question, design)


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    design = _model(question)
    one, product = Part(integer=True, bound=1, what=Counts()), Part(what=Product())
    unsaid = Part(integer=True, bound=1)  # numbers of records in half spaces of the coordinator's
    if ask.name == "start":
        counts = {"bad_response": one, "bad_weight": one, "bad_exposure": one}
        sums = {"weight": Part(what=Magnitude("records")), "response": Part(what=Magnitude("records"))}
        return start_parts(design) | counts | sums | {"saturated": product}
    k = make_basis(design, question.codebook, ask).size
    if ask.name in ("initial", "step"):
        sums = {"information": Part((k, k), what=Product()), "score": Part((k,), what=Product())}
        return sums | {"deviance": product, "pearson": product, "invalid": one}
    if ask.name == "separation":
        return {"moved": unsaid, "against": unsaid}
    raise UsageError(f"glm: unknown ask: got {ask.name!r}; want start, initial, step or separation")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design, family = _model(question), _family(question.options)
    complete = table.complete(_reads(question, design))
    y, f, offset = design.response_expression(complete), _weight(complete, question), _offset(complete, question)
    if ask.name == "start":
        return start_sums(complete, question.options.exposure, design, family, y, f)
    z = make_basis(design, question.codebook, ask).expressions(complete)
    if complete.embedded or not family.in_database or ask.name != "step":
        return streamed(complete, z, (y, f, offset), family, ask)
    return pushed_down(complete, z, (y, f, offset), family, ask.arrays["coefficients"])


def functions_used(question: Question[Options]) -> frozenset[str]:
    return _model(question).functions


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    return spanned(table, _model(question))


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    design, family = _model(question), _family(question.options)
    complete = table.complete(_reads(question, design))
    y, f, offset = design.response_expression(complete), _weight(complete, question), _offset(complete, question)
    if ask.name == "start":
        yield from of_design(complete, design, f if question.options.weight else None)
        yield saturated_weighs(complete, family, y, f)
    if ask.name in ("initial", "step"):
        z = make_basis(design, question.codebook, ask).expressions(complete)
        yield from sums_weigh(complete, z, (y, f, offset), family, ask)


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:
    return course(before, ask, {"initial": 1, "step": 3 * question.options.max_iterations + HALVINGS})


def discloses(question: Question[Options], ask: Ask) -> Model:  # noqa: ARG001
    design = _model(question)
    return Model(len(design.names), _reads(question, design))


def coordinate(question: Question[Options]) -> Coordination:
    design, options = _model(question), question.options
    family = _family(options)
    start = yield Ask("start")
    n, means, present, notes = read_start(start, design)
    _check_start(start, design, family)
    arrays = {"mean": means, "present": present}
    basis = make_basis(design, question.codebook, Ask("step", arrays))
    p, weights = len(basis.free), float(start["weight"])
    if n <= p or weights <= p:
        raise UsageError(f"formula: got {n} complete records for {p} parameters; want more records than parameters")
    search = Search(
        family,
        arrays,
        basis,
        weights,
        bool(options.offset or options.exposure),
        options.max_iterations,
        options.tolerance,
    )
    null, begin = yield from first(search, float(start["response"]) / weights)
    at, iterations = yield from maximised(search, begin, basis.free)
    scale = 1.0 if family.fixed_scale else float(at.total["pearson"]) / (weights - p)
    w = whitening(at.information(basis.free))
    covariance = basis.matrix @ (scale * (w @ w.T)) @ basis.matrix.T
    rows = coefficient_rows(basis.design.names, basis.matrix @ at.b[list(basis.free)], covariance, "z", None)
    deviance = float(at.total["deviance"])
    likelihood = family.log_likelihood(deviance, float(start["saturated"]), weights, scale)
    facts: dict[str, Scalar] = {
        "observations": n,
        "residual_df": weights - p if options.weight else n - p,
        "deviance": deviance,
        "null_deviance": null,
        "log_likelihood": likelihood,
        "aic": None if likelihood is None else -2 * likelihood + 2 * p,
        "bic": None if likelihood is None else -2 * likelihood + float(np.log(weights)) * p,
        "pearson_chi2": float(at.total["pearson"]),
        "scale": scale,
        "iterations": iterations,
        "converged": True,
    }
    if design.response_levels:
        notes += (f"{design.response}: {design.response_levels[1]} counts as 1, {design.response_levels[0]} as 0",)
    title = f"GLM, {family.name} with {family.link} link: {design.formula}"
    return Result(
        "glm",
        title,
        {"coefficients": rows},
        facts,
        notes,
        basis={"coefficients": coefficient_basis("z", "residual_df")},
        observations="observations",
        public=("converged",),
    )


def _check_start(start: Total, design: Design, family: Family) -> None:
    if start["bad_response"]:
        raise UsageError(
            f"formula: got values of {design.response} that {family.name} has not; want {RESPONSES[family.name]}"
        )
    for key in ("weight", "exposure"):
        if start[f"bad_{key}"]:
            raise UsageError(f"{key}: got records with 0 or less; want positive values")


def _family(options: Options) -> Family:
    return Family(options.family, options.link or LINKS[options.family][0], options.alpha)


@once
def _model(question: Question[Options]) -> Design:
    response: Literal["binary", "number"] = "binary" if question.options.family == "binomial" else "number"
    return make_design(question.options.formula, question.codebook, response=response)


def _reads(question: Question[Options], design: Design) -> tuple[str, ...]:
    options = question.options
    more = (name for name in (options.offset, options.exposure, options.weight) if name)
    return tuple(dict.fromkeys((*design.columns, *more)))


def _weight(table: Table, question: Question[Options]) -> Expr:
    return table.number(question.options.weight) if question.options.weight else real(1.0)


def _offset(table: Table, question: Question[Options]) -> Expr:
    options = question.options
    offset = table.number(options.offset) if options.offset else real(0.0)
    if options.exposure is None:
        return offset
    exposure = table.number(options.exposure)
    positive: Expr = ibis.ifelse(exposure > 0, exposure, real(1.0))
    return offset + positive.ln()
