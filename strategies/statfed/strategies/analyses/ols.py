"""`ols`: linear regression by ordinary or weighted least squares, from two to four protected sums.

`start` counts and averages; `products` gives the cross-products of centred columns; `refined` repeats them for
orthogonalised columns and residuals where the first were ill conditioned (CholeskyQR2, Yamamoto et al. 2015), so that
results agree with a pooled QR to many digits; `meat` or `scores` gives the middle of a sandwich covariance.
Values as statsmodels' OLS and WLS; robust HC0 and HC1 after White 1980 and MacKinnon and White 1985, with Student's t
on the residual degrees of freedom; design-based variance by Taylor linearisation after Binder 1983.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field
from scipy import linalg, stats

from statfed.core.errors import UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Coordination,
    Counts,
    Fixed,
    Magnitude,
    Model,
    Part,
    Product,
    Question,
    Total,
    fixed,
    once,
)
from statfed.core.result import Result, Scalar
from statfed.core.section import Section
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._linearisation import (
    check_lonely,
    degrees,
    factors,
    psu_counts,
    psu_shape,
    psu_sums,
    psus,
)
from statfed.strategies.analyses._matrix import Design, cross_products, make_design
from statfed.strategies.analyses._records import left_out, looked_at
from statfed.strategies.analyses._regression import (
    Basis,
    Vector,
    coefficient_basis,
    coefficient_rows,
    condition,
    finite,
    identified,
    make_basis,
    read_start,
    start_contribution,
    start_parts,
    whitening,
)
from statfed.strategies.analyses._survey import SurveyDesign, other_weight, survey_design, times, weight_column
from statfed.strategies.analyses._weighing import of_design, spanned

TITLE = "Linear regression (OLS, WLS) from an R-style formula"
GROUP = "Models"
PUSHES_DOWN = "all; embedded DuckDB streams"
ILL = 1e4  # condition of the scaled cross-products from which they are formed again, orthogonalised
SCORES = 40  # parameters of a design-based covariance: their products are columns of one statement
EXACT = 1e-4  # share of unexplained variation below which residuals are summed as such


class Options(Section):
    """Options of ols."""

    formula: str = Field(min_length=1, description="response ~ terms, for example 'income ~ age + C(region)'")
    weight: str | None = Field(default=None, description="column of analytic weights (WLS: variance sigma^2 / weight)")
    robust: Literal["none", "HC0", "HC1"] = Field(default="none", description="heteroscedasticity-consistent errors")
    design: bool = Field(default=False, description="weights, strata and PSUs from the codebook; linearised variances")


def columns(question: Question[Options]) -> tuple[str, ...]:
    options = question.options
    design = _model(question)
    if options.design and options.robust != "none":
        raise UsageError(f"robust: got {options.robust} with design; want one of them: design is robust by itself")
    if options.weight is not None:
        other_weight(question, "analytic weights", "design = true, for design-based standard errors")
        weight_column(question.codebook, options.weight)
    if options.design and survey_design(question).replicates:
        raise UsageError("design: got replicate weights; want glm with family gaussian, which takes them")
    if options.design and len(design.names) > SCORES:
        raise UsageError(f"design: got {len(design.names)} parameters; want at most {SCORES}")
    if question.privacy:
        from statfed.strategies.analyses import _adassp

        _adassp.parts(question, design)
    return _reads(question, design)


def budget(question: Question[Options]) -> Fixed:  # noqa: ARG001
    return fixed("adassp")


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    design = _model(question)
    if ask.name == "adassp":
        from statfed.strategies.analyses import _adassp

        return _adassp.parts(question, design)
    if ask.name == "start":
        return start_parts(design) | {"unusable": Part(integer=True, bound=1, what=Counts())}
    basis = make_basis(design, question.codebook, ask)
    bound, p, weight = _bound(basis, design, ask), len(basis.free), _heaviest(question)
    k = len(bound)
    if ask.name == "products":
        products = Part((k, k), bound=times(weight, np.outer(bound, bound)), what=Product())
        return {"products": products, "log_weight": Part(what=Magnitude())}
    if ask.name == "refined":
        wide = times(bound[:, None], np.abs(ask.arrays["transform"])).sum(axis=0)
        return {"products": Part((len(wide), len(wide)), bound=times(weight, np.outer(wide, wide)), what=Product())}
    if ask.name == "meat":
        return {"products": Part((p, p), what=Product())}
    if ask.name == "scores":
        survey = survey_design(question)
        shape = psu_shape(survey, question.codebook)
        outer = {} if survey.spans else {"outer": Part((*shape, p * (p + 1) // 2), what=Product())}
        units = Part(shape, integer=True, what=Counts(survey.strata, units=True))
        return {"psus": units, "scores": Part((*shape, p), what=Product())} | outer
    raise UsageError(f"ols: unknown ask: got {ask.name!r}; want start, products, refined, meat, scores or adassp")


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    design = _model(question)
    complete = table.complete(_complete(question, design))
    if ask.name == "adassp":
        from statfed.strategies.analyses import _adassp

        return _adassp.contribute(table, question, design)
    weight = _weight(complete, question)
    if ask.name == "start":
        found = start_contribution(complete, design)
        bad = 0 if weight is None else complete.aggregate(n=(weight > 0).ifelse(0, 1).sum())["n"]
        return {**found, **looked_at(table), "unusable": np.array(bad, np.int64)}
    basis = make_basis(design, question.codebook, ask)
    z = _columns(complete, basis, design, ask)
    if ask.name == "products":
        logs = 0 if weight is None else complete.aggregate(s=weight.ln().sum())["s"]
        return {"products": cross_products(complete, z, weight), "log_weight": np.array(logs, np.float64)}
    if ask.name == "refined":
        return {"products": cross_products(complete, z, weight, ask.arrays["transform"])}
    if ask.name == "scores":
        return _scores(table, question, basis, ask)
    residual = _residual(z, basis, ask) if weight is None else _residual(z, basis, ask) * weight
    return {"products": cross_products(complete, [z[i] for i in basis.free], residual * residual)}


def functions_used(question: Question[Options]) -> frozenset[str]:
    return _model(question).functions


def spans(table: Table, question: Question[Options]) -> Sequence[Expr]:
    return spanned(table, _model(question))


def weighs(table: Table, question: Question[Options], ask: Ask) -> Iterator[Weighed]:
    """Everything but the middle of a sandwich is in the span of what `start` is looked at for."""
    design = _model(question)
    complete = table.complete(_complete(question, design))
    weight = _weight(complete, question)
    if ask.name in ("start", "adassp"):
        yield from of_design(complete, design, weight)
    if ask.name in ("meat", "scores"):
        basis, survey = make_basis(design, question.codebook, ask), survey_design(question)
        z = _columns(complete, basis, design, ask)
        residual = _residual(z, basis, ask) if weight is None else _residual(z, basis, ask) * weight
        scores = tuple(z[i] * residual for i in basis.free)
        yield Rows(complete, scores)
        if ask.name == "scores":
            psu = (survey.psu,) if survey.psu and survey.spans else ()
            yield Amounts(complete, (*scores, *(x * x for x in scores)), (*survey.strata, *psu))
    if ask.name == "products" and weight is not None:
        yield Amounts(complete, (weight.ln(),))


def discloses(question: Question[Options], ask: Ask) -> Model:  # noqa: ARG001
    design = _model(question)
    return Model(len(design.names), _complete(question, design), design.marked)


def coordinate(question: Question[Options]) -> Coordination:
    design, options = _model(question), question.options
    if question.privacy:
        from statfed.strategies.analyses import _adassp

        return (yield from _adassp.coordinate(question, design))
    start = yield Ask("start")
    n, means, present, notes = read_start(start, design)
    if start["unusable"]:
        raise UsageError("weight: got records with a weight of 0 or less; want positive weights")
    if not design.constant:
        means[-1] = 0.0
    arrays = {"mean": means, "present": present}
    basis = make_basis(design, question.codebook, Ask("products", arrays))
    p = len(basis.free)
    if n <= p:
        raise UsageError(f"formula: got {n} complete records for {p} parameters; want more records than parameters")
    total = yield Ask("products", arrays)
    products = total["products"]
    whole = basis.free
    basis, left = identified(products[np.ix_(basis.free, basis.free)], basis)
    notes, p, kept = notes + left, len(basis.free), [whole.index(j) for j in basis.free]
    fit = _solve(products, basis)
    if fit.ill:
        transform = fit.transform(basis, len(products))
        fit = fit.refined((yield Ask("refined", arrays | {"transform": transform}))["products"])
    df, sigma2 = float(n - p), fit.rss / (n - p)
    covariance = sigma2 * fit.inverse
    if options.robust != "none":
        meat = (yield Ask("meat", arrays | {"coefficients": _spread(fit.b, kept, whole)}))["products"]
        meat = meat[np.ix_(kept, kept)]
        covariance = fit.inverse @ meat @ fit.inverse * (n / df if options.robust == "HC1" else 1.0)
    if options.design:
        survey = survey_design(question)
        scores = yield Ask("scores", arrays | {"coefficients": _spread(fit.b, kept, whole)})
        meat, of_design = _linearised(scores, survey, len(whole))
        meat = meat[np.ix_(kept, kept)]
        covariance, df = fit.inverse @ meat @ fit.inverse, of_design + 1 - p
        if df <= 0:
            raise UsageError(f"design: got {of_design:g} degrees of freedom for {p} parameters; want more PSUs")
    missing = left_out(start, n)
    facts: dict[str, Scalar] = {"observations": n, "missing": missing} | _facts(
        fit, products, basis, n, float(total["log_weight"]), options, covariance, df
    )
    beta = basis.matrix @ fit.b
    beta[list(basis.design.constant)] += means[-1]
    rows = coefficient_rows(basis.design.names, beta, basis.matrix @ covariance @ basis.matrix.T, "t", df)
    kind = "WLS" if options.weight or options.design else "OLS"
    table = {"coefficients": rows}
    return Result(
        "ols",
        f"{kind} regression: {design.formula}",
        table,
        facts,
        notes + _notes(options),
        df=df,
        basis={"coefficients": coefficient_basis("t", "residual_df")},
        observations="observations",
        numbers=("missing",),
    )


def _spread(b: Vector, kept: Sequence[int], whole: Sequence[int]) -> Vector:
    """Coefficients of all columns that holders have, 0 of those left out."""
    made = np.zeros(len(whole))
    made[list(kept)] = b
    return made


@dataclass(frozen=True)
class _Fit:
    """b: (p,) coefficients of the basis; inverse: (p, p), of the cross-products; rss: residual sum of squares.

    whitened: (p, p), W with W' products W = 1. ill: would orthogonalised columns give more digits?
    """

    b: Vector
    inverse: Vector
    rss: float
    whitened: Vector
    ill: bool

    def transform(self, basis: Basis, k: int) -> Vector:
        """(k, p + 1): takes [1, columns, response] to orthogonal columns and the residual."""
        made = np.zeros((k, len(self.b) + 1))
        made[np.ix_(basis.free, range(len(self.b)))] = self.whitened
        made[list(basis.free), -1] = -self.b
        made[-1, -1] = 1.0
        return made

    def refined(self, products: Vector) -> "_Fit":
        """The fit from cross-products of the transformed columns."""
        inner, cross = products[:-1, :-1], products[:-1, -1]
        inverse = linalg.inv(inner)
        step = inverse @ cross
        rss = max(0.0, float(products[-1, -1] - step @ cross))
        w = self.whitened
        return _Fit(self.b + w @ step, w @ inverse @ w.T, rss, w, False)


def _solve(products: Vector, basis: Basis) -> _Fit:
    free = list(basis.free)
    inner, cross = products[np.ix_(free, free)], products[free, -1]
    whitened = whitening(inner)
    b = whitened @ (whitened.T @ cross)
    rss = max(0.0, float(products[-1, -1] - b @ cross))
    ill = condition(inner) > ILL or rss < EXACT * products[-1, -1]
    return _Fit(b, whitened @ whitened.T, rss, whitened, ill)


def _facts(
    fit: _Fit,
    products: Vector,
    basis: Basis,
    n: int,
    log_weight: float,
    options: Options,
    covariance: Vector,
    df: float,
) -> dict[str, Scalar]:
    """As statsmodels' RegressionResults; a constant counts when the columns span it. covariance: of the basis's b.

    The F test of all columns but the constant is the same in the basis, which mixes the constant into them alone.
    """
    free, p = list(basis.free), len(basis.free)
    project = fit.whitened.T @ products[free, 0]
    constant = int(products[0, 0] - project @ project <= 1e-10 * products[0, 0])
    tss = float(products[-1, -1] - constant * products[0, -1] ** 2 / products[0, 0])
    residual_df, model_df = n - p, p - constant
    explained = tss - fit.rss
    r_squared = 1 - fit.rss / tss if tss > 0 else None
    f: float | None = None
    classical = options.robust == "none" and not options.design
    if model_df and fit.rss > 0 and classical:
        f = explained / model_df / (fit.rss / residual_df)
    elif model_df and fit.rss > 0 and len(basis.design.constant) == constant:
        slopes = [j for j in range(p) if j not in basis.design.constant]
        w = whitening(covariance[np.ix_(slopes, slopes)])
        f = float(np.sum((w.T @ fit.b[slopes]) ** 2)) / model_df
    facts: dict[str, Scalar] = {
        "observations": n,
        "residual_df": residual_df,
        "r_squared": r_squared,
        "adj_r_squared": None if r_squared is None else 1 - (n - constant) / residual_df * (1 - r_squared),
        "f_statistic": f,
        "f_p_value": None if f is None else float(stats.f.sf(f, model_df, df)),
        "sigma": float(np.sqrt(fit.rss / residual_df if not options.design else _dispersion(fit, products, free, n))),
    }
    if not options.design:
        log_likelihood = None
        if fit.rss > 0:
            log_likelihood = float(-n / 2 * (np.log(fit.rss) + 1 + np.log(2 * np.pi / n)) + log_weight / 2)
        facts |= {
            "log_likelihood": log_likelihood,
            "aic": None if log_likelihood is None else -2 * log_likelihood + 2 * p,
            "bic": None if log_likelihood is None else -2 * log_likelihood + float(np.log(n)) * p,
        }
    back = basis.matrix
    raw = np.linalg.solve(back.T, np.linalg.solve(back.T, products[np.ix_(free, free)]).T)
    largest = [np.sqrt(np.linalg.eigvalsh(x)[-1]) for x in (raw, back @ fit.inverse @ back.T)]
    return facts | {"condition_number": finite(float(np.prod(largest)))}


def _dispersion(fit: _Fit, products: Vector, free: list[int], n: int) -> float:
    """Variance of the residuals in the population, whatever unit weights have: the dispersion of R's svyglm."""
    weights = products[0, 0]
    mean = (products[0, -1] - products[0, free] @ fit.b) / weights
    return max(0.0, float(fit.rss / weights - mean**2)) * n / (n - 1)


def _linearised(scores: Total, survey: SurveyDesign, p: int) -> tuple[Vector, float]:
    """Covariance (p, p) of the total of the scores over PSUs within strata, and its degrees of freedom."""
    n = psus(survey, scores["psus"])
    check_lonely(survey, n)
    sums = scores["scores"]
    upper = np.triu_indices(p)
    if survey.spans:
        second = np.einsum("hki,hkj->hij", sums, sums)
        sums = sums.sum(axis=1)
    else:
        second = np.zeros((len(n), p, p))
        second[:, upper[0], upper[1]] = second[:, upper[1], upper[0]] = scores["outer"]
    first = np.einsum("hi,hj->hij", sums, sums) / np.maximum(n, 1)[:, None, None]
    centred = second - np.where((n > 1)[:, None, None], first, 0.0)
    meat: Vector = np.einsum("h,hij->ij", factors(n, survey.lonely), centred)
    return meat, degrees(n)


def _scores(table: Table, question: Question[Options], basis: Basis, ask: Ask) -> Arrays:
    """PSUs per stratum, sums over PSUs of their score totals, and of the products of two of them."""
    survey, design = survey_design(question), _model(question)
    sample = survey.sample(table)
    z = _columns(sample, basis, design, ask)
    weight = _weight(sample, question)
    residual = _residual(z, basis, ask) if weight is None else _residual(z, basis, ask) * weight
    values = {f"u{j}": z[i] * residual for j, i in enumerate(basis.free)}
    for name in design.complete:
        values = {key: sample[name].notnull().ifelse(value, real(0.0)) for key, value in values.items()}
    pairs = [(f"u{i}", f"u{j}") for i, j in zip(*np.triu_indices(len(values)), strict=True)]
    found = psu_sums(sample, survey, (), values, pairs)
    made: dict[str, Vector] = {"scores": np.stack([found[name][..., 0] for name in values], axis=-1)}
    if not survey.spans:
        made["outer"] = np.stack([found[f"{a}*{b}"][..., 0] for a, b in pairs], axis=-1)
    return {"psus": psu_counts(sample, survey), **made}


def _columns(table: Table, basis: Basis, design: Design, ask: Ask) -> list[Expr]:
    """[1, columns of the basis, response less its mean]."""
    return [*basis.expressions(table), design.response_expression(table) - real(float(ask.arrays["mean"][-1]))]


def _residual(z: list[Expr], basis: Basis, ask: Ask) -> Expr:
    residual = z[-1]
    for i, b in zip(basis.free, ask.arrays["coefficients"], strict=True):
        residual = residual - z[i] * real(float(b))
    return residual


def _bound(basis: Basis, design: Design, ask: Ask) -> Vector:
    mean = float(ask.arrays["mean"][-1])
    low, high = design.response_bounds
    return np.append(basis.bound, max(abs(low - mean), abs(high - mean)))


def _heaviest(question: Question[Options]) -> float:
    name = survey_design(question).weight
    column = question.codebook.columns[name] if name else None
    return 1.0 if column is None else float("inf") if column.high is None else column.high


def _weight(table: Table, question: Question[Options]) -> Expr | None:
    name = survey_design(question).weight
    return None if name is None else table.number(name)


@once
def _model(question: Question[Options]) -> Design:
    return make_design(question.options.formula, question.codebook, marks=question.privacy is None)


def _reads(question: Question[Options], design: Design) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*design.columns, *survey_design(question).columns)))


def _complete(question: Question[Options], design: Design) -> tuple[str, ...]:
    """Columns without which a record is left out."""
    return tuple(dict.fromkeys((*design.complete, *survey_design(question).columns)))


def _notes(options: Options) -> tuple[str, ...]:
    if options.robust != "none":
        return (f"standard errors: {options.robust}, with Student's t",)
    return ("standard errors: Taylor linearisation over PSUs within strata",) if options.design else ()
