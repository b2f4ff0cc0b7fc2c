"""`glm`: generalised linear models by Fisher scoring (IRLS) on protected sums: one ask per iteration.

Each ask carries coefficients; the holders' sums are the score, the Fisher information, the deviance and Pearson's
chi-square there, from which the next step follows, halved while the deviance would rise. It ends when a step is below
`tolerance` standard errors. Where the maximum likelihood estimate does not exist, a direction in which no record's fit
gets worse is looked for and named (separation; Albert and Anderson 1984). Values as statsmodels' GLM: standard errors
from the expected information; the scale of gamma and gaussian is Pearson's chi-square over residual degrees of freedom.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import ibis
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import linalg

from statfed.core.analysis import Arrays, Ask, Coordination, Model, Part, Question, Total
from statfed.core.errors import UsageError
from statfed.core.result import Result, Scalar
from statfed.core.study import Section
from statfed.core.table import Expr, Table
from statfed.strategies.analyses._families import LINKS, RESPONSES, Family
from statfed.strategies.analyses._formula import double
from statfed.strategies.analyses._matrix import ROWS, Design, cross_products, make_design
from statfed.strategies.analyses._regression import (
    Basis,
    Vector,
    check_rank,
    coefficient_rows,
    make_basis,
    read_start,
    start_contribution,
    start_parts,
    whitening,
)
from statfed.strategies.analyses._survey import weight_column

TITLE = "Generalised linear models: logistic, probit, Poisson, gamma, negative binomial, gaussian"
GROUP = "Models"
PUSHES_DOWN = "remote databases add up score and information, except for probit; embedded streams"
PATIENCE = 8  # iterations from which separation is looked for
HALVINGS = 30
NOISE = 1e-26  # of the deviance: a gain below is rounding
MOVED, STILL = 0.05, 0.005  # of a linear predictor: a record that moves along a direction, and one that does not


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
    if ask.name == "start":
        one = Part(integer=True, bound=1)
        counts = {"bad_response": one, "bad_weight": one, "bad_exposure": one}
        return start_parts(design) | counts | {"weight": Part(), "response": Part(), "saturated": Part()}
    k = make_basis(design, question.codebook, ask).size
    if ask.name in ("initial", "step"):
        sums = {"information": Part((k, k)), "score": Part((k,)), "deviance": Part(), "pearson": Part()}
        return sums | {"invalid": Part(integer=True, bound=1)}
    if ask.name == "separation":
        return {"moved": Part(integer=True, bound=1), "against": Part(integer=True, bound=1)}
    raise UsageError(f"glm: unknown ask: got {ask.name!r}; want start, initial, step or separation")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design, family = _model(question), _family(question.options)
    complete = table.complete(_reads(question, design))
    y, f, offset = design.response_expression(complete), _weight(complete, question), _offset(complete, question)
    if ask.name == "start":
        return _start(complete, question, design, family, y, f)
    z = make_basis(design, question.codebook, ask).expressions(complete)
    if complete.embedded or not family.in_database or ask.name != "step":
        return _streamed(complete, z, (y, f, offset), family, ask)
    return _pushed_down(complete, z, (y, f, offset), family, ask.arrays["coefficients"])


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
    search = _Search(family, arrays, basis, weights, options)
    null, first = yield from _first(search, float(start["response"]) / weights)
    at, iterations = yield from _maximised(search, first, basis.free)
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
    return Result("glm", title, {"coefficients": rows}, facts, notes)


@dataclass(frozen=True)
class _Search:
    """What stays the same over iterations. weights: sum of the frequency weights."""

    family: Family
    arrays: Mapping[str, NDArray[Any]]
    basis: Basis
    weights: float
    options: Options

    def ask(self, name: str, b: Vector) -> Ask:
        return Ask(name, {**self.arrays, "coefficients": b})


@dataclass(frozen=True)
class _At:
    """The sums at coefficients b of [1, columns]."""

    b: Vector
    total: Total

    @property
    def deviance(self) -> float:
        """Infinite where a mean leaves the family's range."""
        return math.inf if self.total["invalid"] else float(self.total["deviance"])

    def information(self, free: Sequence[int]) -> Vector:
        inner: Vector = self.total["information"][np.ix_(free, free)]
        return inner

    def step(self, free: Sequence[int]) -> Vector:
        """The step of Fisher scoring in the coefficients `free`, 0 elsewhere."""
        w = whitening(self.information(free))
        step = np.zeros(len(self.b))
        step[list(free)] = w @ (w.T @ self.total["score"][list(free)])
        return step


def _first(search: _Search, mean: float) -> Generator[Ask, Total, tuple[float, _At]]:
    """Deviance of the model with a constant alone, and where to start: there, if the design holds the constant."""
    basis, options = search.basis, search.options
    free, constant = basis.free, [basis.free[j] for j in basis.design.constant]
    b = np.zeros(basis.size)
    b[0] = search.family.predictor(mean)
    moved = bool(options.offset or options.exposure)
    initial = None
    if moved or not constant:
        initial = _At(np.zeros(basis.size), (yield search.ask("initial", np.array([mean]))))
    if initial is not None and moved:
        b = initial.step((0,))
    at = _At(b, (yield search.ask("step", b)))
    if moved:
        at, _ = yield from _maximised(search, at, (0,))
    null = float(at.total["deviance"])
    if initial is None or constant:
        b = np.zeros(basis.size)
        b[constant] = at.b[0]
        at = _At(b, at.total)
        check_rank(at.information(free), basis)
        return null, at
    check_rank(initial.information(free), basis)
    b = initial.step(free)
    return null, _At(b, (yield search.ask("step", b)))


def _maximised(search: _Search, at: _At, free: Sequence[int]) -> Generator[Ask, Total, tuple[_At, int]]:
    """Fisher scoring in the coefficients `free` from `at`; and how many steps it took.

    Raises UsageError on a start outside the family's range, on separation, and without convergence.
    """
    family, options = search.family, search.options
    if not math.isfinite(at.deviance):
        raise UsageError(
            f"glm: got a start outside the range of {family.name} with the {family.link} link; want another"
        )
    spread = np.sqrt(np.maximum(np.diag(at.total["information"]), 0))
    trace: list[str] = []
    step = np.zeros(len(at.b))
    for iteration in range(options.max_iterations + 1):
        try:
            step = at.step(free)
        except linalg.LinAlgError:
            if family.separable and (yield from _separated(search, step)):
                raise _separation(search, step, spread) from None
            raise _unfinished("the information matrix became singular", trace) from None
        gain = float(step @ at.total["score"])
        scale = 1.0 if family.fixed_scale else float(at.total["pearson"]) / (search.weights - len(free))
        trace.append(f"{iteration}: deviance {at.deviance:.9g}, step {math.sqrt(max(gain, 0) / (scale or 1.0)):.3g}")
        if gain <= options.tolerance**2 * scale + NOISE * abs(at.deviance):
            return at, iteration
        if iteration >= PATIENCE and family.separable and (yield from _separated(search, step)):
            raise _separation(search, step, spread)
        if iteration == options.max_iterations:
            break
        new = None
        for halving in range(HALVINGS):
            b = at.b + step * 0.5**halving
            tried = _At(b, (yield search.ask("step", b)))
            if tried.deviance <= at.deviance + 1e-10 * (abs(at.deviance) + 0.1):
                new = tried
                break
        if new is None:
            if gain <= 1e-12 * scale:
                return at, iteration
            raise _unfinished(f"{HALVINGS} halvings of a step did not lower the deviance", trace)
        at = new
    raise _unfinished(f"{options.max_iterations} iterations were not enough", trace)


def _separated(search: _Search, step: Vector) -> Generator[Ask, Total, bool]:
    """Does the step make no record's fit worse, and move some? Then the likelihood rises along it for ever."""
    total = yield search.ask("separation", step)
    return bool(total["moved"] > 0 and total["against"] == 0)


def _separation(search: _Search, step: Vector, spread: Vector) -> UsageError:
    weight = np.abs(step) * spread
    by_column = dict(zip(search.basis.design.names, weight[list(search.basis.free)], strict=True))
    involved = [name for name, size in by_column.items() if size > 0.1 * weight.max()]
    return UsageError(
        f"formula: separation: some responses are predicted exactly along {', '.join(involved)}, so these coefficients "
        "grow without limit and have no maximum likelihood estimate; want them left out or their levels merged"
    )


def _unfinished(why: str, trace: Sequence[str]) -> UsageError:
    return UsageError(
        f"glm: no convergence: {why}; want another model, start or max_iterations\niteration: deviance, step in "
        "standard errors\n" + "\n".join(trace[-12:])
    )


def _check_start(start: Total, design: Design, family: Family) -> None:
    if start["bad_response"]:
        raise UsageError(
            f"formula: got values of {design.response} that {family.name} has not; want {RESPONSES[family.name]}"
        )
    for key in ("weight", "exposure"):
        if start[f"bad_{key}"]:
            raise UsageError(f"{key}: got records with 0 or less; want positive values")


def _start(table: Table, question: Question[Options], design: Design, family: Family, y: Expr, f: Expr) -> Arrays:
    exposure = question.options.exposure
    allowed = family.allowed(y)
    usable = ibis.ifelse(allowed, y, double(1.0))
    inside = allowed & (f > 0)
    found = table.aggregate(
        bad_response=allowed.ifelse(0, 1).sum(),
        bad_weight=(f > 0).ifelse(0, 1).sum(),
        bad_exposure=((table.number(exposure) > 0) if exposure else (f == f)).ifelse(0, 1).sum(),
        weight=f.sum(),
        response=(f * usable).sum(),
        saturated=ibis.ifelse(inside, f * family.saturated(usable), double(0.0)).sum(),
    )
    made: dict[str, NDArray[Any]] = {
        name: np.array(value, np.int64 if name.startswith("bad") else np.float64) for name, value in found.items()
    }
    return {**start_contribution(table, design), **made}


def _streamed(table: Table, z: Sequence[Expr], record: tuple[Expr, Expr, Expr], family: Family, ask: Ask) -> Arrays:
    """`initial`, `step` or `separation` from batches. record: response, frequency weight, offset."""
    k, b = len(z), ask.arrays["coefficients"]
    if ask.name == "separation":
        moved = against = 0
        for block in table.batches([*z, record[0]], ROWS):
            along, y = block[:, :k] @ b, block[:, k]
            moved += int((np.abs(along) > MOVED).sum())
            against += int((family.adverse(y, along) > STILL).sum())
        return {"moved": np.array(moved), "against": np.array(against)}
    information, score = np.zeros((k, k)), np.zeros(k)
    sums = np.zeros(2)
    invalid = 0
    for block in table.batches([*z, *record], ROWS):
        x, y, f, offset = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2]
        if ask.name == "initial":
            eta, weight = family.initial(y, float(b[0]))
            weight = weight * f
            information += x.T @ (x * weight[:, None])
            score += x.T @ (weight * (eta - offset))
            continue
        w = family.weights(y, x @ b + offset, f)
        information += x.T @ (x * w.information[:, None])
        score += x.T @ w.score
        sums += (w.deviance.sum(), w.pearson.sum())
        invalid += int((~w.valid).sum())
    return {
        "information": (information + information.T) / 2,
        "score": score,
        "deviance": sums[0],
        "pearson": sums[1],
        "invalid": np.array(invalid),
    }


def _pushed_down(table: Table, z: Sequence[Expr], record: tuple[Expr, Expr, Expr], family: Family, b: Vector) -> Arrays:
    """`step` as SQL: the database computes each record's weights and adds up."""
    k = len(z)
    named = {f"z{i}": column for i, column in enumerate(z)}
    base = table.expr.select(**named, y=record[0], f=record[1], o=record[2])
    eta = base["o"]
    for i, coefficient in enumerate(b):
        eta = eta + base[f"z{i}"] * double(float(coefficient))
    base = base.mutate(eta=eta)
    w = family.weights(base["y"], base["eta"], base["f"])
    base = base.select(*named, w=w.information, s=w.score, d=w.deviance, p=w.pearson, bad=w.valid.ifelse(0, 1))
    source = replace(table, expr=base)
    information = cross_products(source, [base[name] for name in named], base["w"])
    asked = {f"score_{i}": (base[f"z{i}"] * base["s"]).sum() for i in range(k)}
    found = source.aggregate(**asked, deviance=base["d"].sum(), pearson=base["p"].sum(), invalid=base["bad"].sum())
    return {
        "information": information,
        "score": np.array([found[f"score_{i}"] for i in range(k)], np.float64),
        "deviance": np.array(found["deviance"], np.float64),
        "pearson": np.array(found["pearson"], np.float64),
        "invalid": np.array(found["invalid"], np.int64),
    }


def _family(options: Options) -> Family:
    return Family(options.family, options.link or LINKS[options.family][0], options.alpha)


def _model(question: Question[Options]) -> Design:
    response: Literal["binary", "number"] = "binary" if question.options.family == "binomial" else "number"
    return make_design(question.options.formula, question.codebook, response=response)


def _reads(question: Question[Options], design: Design) -> tuple[str, ...]:
    options = question.options
    more = (name for name in (options.offset, options.exposure, options.weight) if name)
    return tuple(dict.fromkeys((*design.columns, *more)))


def _weight(table: Table, question: Question[Options]) -> Expr:
    return table.number(question.options.weight) if question.options.weight else double(1.0)


def _offset(table: Table, question: Question[Options]) -> Expr:
    options = question.options
    offset = table.number(options.offset) if options.offset else double(0.0)
    if options.exposure is None:
        return offset
    exposure = table.number(options.exposure)
    return offset + ibis.ifelse(exposure > 0, exposure, double(1.0)).ln()
