"""`glm`: generalised linear models by Fisher scoring (IRLS) on protected sums: one ask per iteration.

Each ask carries coefficients; the holders' sums are the score, the Fisher information, the deviance and Pearson's
chi-square there, from which the next step follows, halved while the deviance would rise. It ends when a step is below
`tolerance` standard errors. Where the maximum likelihood estimate does not exist, a direction in which no record's fit
gets worse is looked for and named (separation; Albert and Anderson 1984). Values as statsmodels' GLM: standard errors
from the expected information; the scale of gamma and gaussian is Pearson's chi-square over residual degrees of freedom.

With `design` the fit has the codebook's weights, scaled to mean 1, and standard errors are design-based, as R's svyglm:
the linearised variance of the score's total over PSUs within strata between two inverses of the information (Binder
1983), or the variance over fits with each replicate weight. Degrees of freedom are those of the design, less the
parameters but one.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from typing import Literal

import ibis
import numpy as np
from pydantic import Field, model_validator

from statfed.core.errors import UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
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
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._design_totals import cells_of, spread_of, totals, totals_parts, totals_weigh
from statfed.strategies.analyses._design_units import streamed_totals, unit_columns, weight_of
from statfed.strategies.analyses._families import LINKS, RESPONSES, Family
from statfed.strategies.analyses._glm_search import HALVINGS, At, Search, course, first, maximised, replicated
from statfed.strategies.analyses._glm_sums import pushed_down, saturated_weighs, start_sums, streamed, sums_weigh
from statfed.strategies.analyses._glm_sums import replicated as replicated_sums
from statfed.strategies.analyses._glm_sums import scores as score_columns
from statfed.strategies.analyses._linearisation import psu_shape
from statfed.strategies.analyses._matrix import Design, make_design
from statfed.strategies.analyses._records import left_out, looked_at
from statfed.strategies.analyses._regression import (
    Vector,
    coefficient_basis,
    coefficient_rows,
    make_basis,
    read_start,
    start_parts,
    whitening,
)
from statfed.strategies.analyses._replication import (
    UNKNOWN,
    rank_cells,
    rank_parts,
    rank_sums,
    rank_weighs,
    replicate_degrees,
    replication,
)
from statfed.strategies.analyses._survey import limited, other_weight, survey_design
from statfed.strategies.analyses._weighing import of_design, spanned

TITLE = "Generalised linear models: logistic, probit, Poisson, gamma, negative binomial, gaussian"
GROUP = "Models"
PUSHES_DOWN = "all but probit, starting values, replicate weights and the separation check; embedded DuckDB streams"


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
    weight: str | None = Field(default=None, description="column of frequency weights: a record stands for so many")
    design: bool = Field(
        default=False, description="weights, strata, PSUs or replicates of the codebook; design-based standard errors"
    )
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
    other_weight(question, "frequencies", "design = true, for design-based standard errors")
    if options.design:
        survey = survey_design(question)
        if survey.replicates:
            replication(codebook)
        limited(len(design.names) ** 2 * max(1, len(survey.replicates), *psu_shape(survey, codebook)), "parameters")
    for key, name in (("offset", options.offset), ("exposure", options.exposure)):
        if name is not None:
            codebook.number(name, key)
    return _reads(question, design)


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    design, survey = _model(question), survey_design(question)
    if ask.name == "rank" and survey.replicates:
        return rank_parts(question, survey)
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
    if ask.name == "spread" and question.options.design:
        return totals_parts(survey, question.codebook, np.full((1, k), np.inf), Product())
    if ask.name == "replicates" and survey.replicates:
        r = len(survey.replicates)
        sums = {"information": Part((r, k, k), what=Product()), "score": Part((r, k), what=Product())}
        return sums | {"invalid": Part((r,), integer=True, bound=1, what=Counts())}
    raise UsageError(f"glm: unknown ask: got {ask.name!r}; want start, initial, step, separation, spread or replicates")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design, family, survey = _model(question), _family(question.options), survey_design(question)
    if ask.name == "rank":
        return rank_sums(survey.sample(table), survey)
    if ask.name == "spread":
        if not family.in_database:
            rows, columns, compute = _streamed_scores(table.complete(_complete(question, design)), question, ask)
            return streamed_totals(survey.sample(table), survey, rows, columns, compute)
        sample, scores = _scores(survey.sample(table), question, ask)
        return totals(sample, survey, [scores])
    complete = table.complete(_complete(question, design))
    y, f, offset = design.response_expression(complete), _weight(complete, question, ask), _offset(complete, question)
    if ask.name == "start":
        return {**start_sums(complete, question.options.exposure, design, family, y, f), **looked_at(table)}
    z = make_basis(design, question.codebook, ask).expressions(complete)
    if ask.name == "replicates":
        weights = [complete.number(name) for name in survey.replicates]
        record = y, real(float(ask.arrays["rescale"])), offset
        return replicated_sums(complete, z, record, weights, family, ask.arrays["coefficients"])
    if complete.embedded or not family.in_database or ask.name != "step":
        return streamed(complete, z, (y, f, offset), family, ask)
    return pushed_down(complete, z, (y, f, offset), family, ask.arrays["coefficients"])


def functions_used(question: Question[Options]) -> frozenset[str]:
    return _model(question).functions


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    return spanned(table, _model(question))


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    design, family, survey = _model(question), _family(question.options), survey_design(question)
    complete = table.complete(_complete(question, design))
    if ask.name == "rank":
        yield from rank_weighs(survey.sample(table), survey)
        return
    if ask.name == "spread" and not family.in_database:
        rows, columns, compute = _streamed_scores(complete, question, ask)
        yield Rows(rows, columns, compute=compute)
        yield Amounts(rows, columns, cells_of(survey), lambda x: np.concatenate([compute(x), compute(x) ** 2], axis=1))
        return
    if ask.name == "spread":
        scored, scores = _scores(complete, question, ask)
        weight = scored.number(survey.weight) if survey.weight else real(1.0)
        yield Rows(scored, tuple(x * weight for x in scores))
        yield from totals_weigh(scored, survey, scores)
        return
    y, f, offset = design.response_expression(complete), _weight(complete, question, ask), _offset(complete, question)
    if ask.name == "replicates":
        z = make_basis(design, question.codebook, ask).expressions(complete)
        for name, b in zip(survey.replicates, ask.arrays["coefficients"], strict=True):
            yield from sums_weigh(
                complete, z, (y, complete.number(name), offset), family, Ask("step", {"coefficients": b})
            )
        return
    if ask.name == "start":
        yield from of_design(complete, design, f if survey.weight else None)
        yield saturated_weighs(complete, family, y, f)
    if ask.name in ("initial", "step"):
        z = make_basis(design, question.codebook, ask).expressions(complete)
        yield from sums_weigh(complete, z, (y, f, offset), family, ask)


def follows(question: Question[Options], before: Sequence[Ask], ask: Ask) -> str:
    most = {"initial": 1, "step": 3 * question.options.max_iterations + HALVINGS}
    if question.options.design:
        most |= {"spread": 1, "replicates": question.options.max_iterations, "rank": 1}
    return course(before, ask, most) if ask.name != "rank" else "" if before[-1].name != "rank" else "got rank twice"


def discloses(question: Question[Options], ask: Ask) -> Model | Cells:
    design, survey = _model(question), survey_design(question)
    if ask.name == "rank":
        return rank_cells(survey)
    return Model(len(design.names), _complete(question, design), design.marked)


def coordinate(question: Question[Options]) -> Coordination:
    design, options = _model(question), question.options
    family = _family(options)
    start = yield Ask("start")
    n, means, present, notes = read_start(start, design)
    _check_start(start, design, family)
    arrays = {"mean": means, "present": present}
    basis = make_basis(design, question.codebook, Ask("step", arrays))
    p, weights = len(basis.free), float(start["weight"])
    if n <= p:
        raise UsageError(f"formula: got {n} complete records for {p} parameters; want more records than parameters")
    mean = float(start["response"]) / weights
    if options.design:
        arrays["rescale"], weights = np.array(n / weights), float(n)
    elif weights <= p:
        raise UsageError(
            f"weight: got frequencies of {weights:g} records together for {p} parameters; want more than parameters: "
            "numbers of records, or design = true for design weights, or analytic weights with ols"
        )
    search = Search(
        family,
        arrays,
        basis,
        weights,
        bool(options.offset or options.exposure),
        options.max_iterations,
        options.tolerance,
    )
    null, begin, basis, left = yield from first(search, mean)
    search, notes, p = replace(search, basis=basis), notes + left, len(basis.free)
    at, iterations = yield from maximised(search, begin, basis.free)
    scale = 1.0 if family.fixed_scale else float(at.total["pearson"]) / (weights - (1 if options.design else p))
    w = whitening(at.information(basis.free))
    inner, df, statistic = scale * (w @ w.T), None, "z"
    more: dict[str, Scalar] = {}
    if options.design:
        inner, df, more = yield from _by_design(question, search, at, w @ w.T)
        statistic = "t"
        notes += ("standard errors are design-based, t on the degrees of freedom of the design",)
        notes += () if df > 0 else (UNKNOWN,)
    elif options.weight:
        notes += (f"{options.weight}: frequencies, a record stands for so many; for design weights want design = true",)
    covariance = basis.matrix @ inner @ basis.matrix.T
    rows = coefficient_rows(basis.design.names, basis.matrix @ at.b[list(basis.free)], covariance, statistic, df)
    deviance = float(at.total["deviance"])
    saturated = float(start["saturated"])
    likelihood = None if options.design else family.log_likelihood(deviance, saturated, weights, scale)
    facts: dict[str, Scalar] = {
        "observations": n,
        "missing": left_out(start, n),
        "residual_df": df if df is not None else weights - p if options.weight else n - p,
        "deviance": deviance,
        "null_deviance": null,
        "log_likelihood": likelihood,
        "aic": None if likelihood is None else -2 * likelihood + 2 * p,
        "bic": None if likelihood is None else -2 * likelihood + float(np.log(weights)) * p,
        "pearson_chi2": float(at.total["pearson"]),
        "scale": scale,
        "iterations": iterations,
        "converged": True,
        **more,
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
        df=df,
        basis={"coefficients": coefficient_basis(statistic, "residual_df")},
        observations="observations",
        numbers=("missing",),
        public=("converged", *more),
    )


def _by_design(
    question: Question[Options], search: Search, at: At, inverse: Vector
) -> Generator[Ask, Total, tuple[Vector, float, dict[str, Scalar]]]:
    """Covariance of the basis's coefficients under the design, its degrees of freedom, and facts of the design.

    inverse: of the information. Raises UsageError where there are fewer degrees of freedom than parameters.
    """
    survey, free = survey_design(question), list(search.basis.free)
    if survey.replicates:
        fits = yield from replicated(search, at, free, len(survey.replicates))
        covariance = replication(question.codebook).covariance(fits)
        of_design = yield from replicate_degrees(question)
        facts: dict[str, Scalar] = {"replicates": len(survey.replicates)}
        if of_design == 0:
            return covariance, 0.0, facts
    else:
        found = yield search.ask("spread", at.b)
        spread = spread_of(question.codebook, survey, found)
        meat = spread.covariance(0, lambda t: t)[np.ix_(free, free)]
        covariance, of_design, facts = inverse @ meat @ inverse, float(spread.df or 0), dict[str, Scalar](spread.facts)
    df = of_design + 1 - len(free)
    if df <= 0:
        raise UsageError(f"design: got {of_design:g} degrees of freedom for {len(free)} parameters; want more PSUs")
    return covariance, df, facts


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
    return make_design(question.options.formula, question.codebook, response=response, marks=True)


def _reads(question: Question[Options], design: Design) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*design.columns, *_complete(question, design))))


def _complete(question: Question[Options], design: Design) -> tuple[str, ...]:
    """Columns without which a record is left out."""
    options = question.options
    more = (name for name in (options.offset, options.exposure) if name)
    return tuple(dict.fromkeys((*design.complete, *more, *survey_design(question).columns)))


def _weight(table: Table, question: Question[Options], ask: Ask) -> Expr:
    """A record's weight; of a design scaled to mean 1, except in the first ask, which finds the mean."""
    name = survey_design(question).weight
    weight = table.number(name) if name else real(1.0)
    return weight * real(float(ask.arrays["rescale"])) if "rescale" in ask.arrays else weight


def _scores(table: Table, question: Question[Options], ask: Ask) -> tuple[Table, list[Expr]]:
    """The table with what each record adds to the score without its weight; 0 where it lacks a value of the model."""
    design = _model(question)
    y, offset = design.response_expression(table), _offset(table, question)
    z = make_basis(design, question.codebook, ask).expressions(table)
    rescale = real(float(ask.arrays["rescale"]))
    scored, made = score_columns(table, z, (y, rescale, offset), _family(question.options), ask.arrays["coefficients"])
    everybody: Expr = ibis.literal(True)
    known = reduce(and_, (scored[name].notnull() for name in _complete(question, design)), everybody)
    return scored, [known.ifelse(x, real(0.0)) for x in made]


def _streamed_scores(
    complete: Table, question: Question[Options], ask: Ask
) -> tuple[Table, tuple[Expr, ...], Callable[[Vector], Vector]]:
    """As `_scores` with the weight, of a family that no database computes: rows, columns, and what is made of these."""
    design, family, survey = _model(question), _family(question.options), survey_design(question)
    z = make_basis(design, question.codebook, ask).expressions(complete)
    f = weight_of(complete, survey) * real(float(ask.arrays["rescale"]))
    record = [*z, design.response_expression(complete), f, _offset(complete, question)]
    named = {f"_v{i}": x for i, x in enumerate(record)}
    expr = complete.expr.mutate(**named, **unit_columns(complete, survey))
    b, k = ask.arrays["coefficients"], len(z)

    def compute(block: Vector) -> Vector:
        x, y, f, offset = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2]
        return np.asarray(x * family.weights(y, x @ b + offset, f).score[:, None])

    return replace(complete, expr=expr), tuple(expr[name] for name in named), compute


def _offset(table: Table, question: Question[Options]) -> Expr:
    options = question.options
    offset = table.number(options.offset) if options.offset else real(0.0)
    if options.exposure is None:
        return offset
    exposure = table.number(options.exposure)
    positive: Expr = ibis.ifelse(exposure > 0, exposure, real(1.0))
    return offset + positive.ln()
