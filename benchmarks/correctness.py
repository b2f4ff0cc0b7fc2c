"""Every statistic beside a reference on public data: the largest relative error of its figures.

    python benchmarks/correctness.py > docs/correctness.md

Data ship with statsmodels and lifelines, or are the generated sample in tests/data, of which R's survey and lme4 gave
figures that are stored there with the scripts that made them. Each data set is dealt to three holders at random, one of
them small; primary sampling units lie with one holder where the design says so. Contributions are added up as they are:
protections add the rounding of fixed point, see docs/protections.md. What happens to files that are not as they should
be: docs/inputs.md.
"""

# ruff: noqa: E501  # a comparison a line

import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats as sps
import statsmodels.api as sm
import statsmodels.formula.api as smf
from lifelines import CoxPHFitter, KaplanMeierFitter, datasets
from lifelines.statistics import logrank_test

from statfed.core.codebook import Codebook

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.federate import codebook_of, federate, split
from tests.strategies.analyses.test_survey import DATA, SAMPLE, codebook, nested

SURVEY: dict[str, Any] = json.loads((DATA / "survey_reference.json").read_text())
DESIGN: dict[str, Any] = json.loads((DATA / "design_reference.json").read_text())
LIFETIMES: dict[str, Any] = json.loads((DATA / "lifetimes_reference.json").read_text())
R = "R survey 4.1"
SUM = SAMPLE["age"] + np.floor(SAMPLE["hours"])
FRAME = SAMPLE.assign(young=SAMPLE["age"] < 45, visits=SAMPLE["age"] % 7,
                      months=(SUM + 6 * SAMPLE["age"]).astype(int) % 24 + 1, ended=SUM.astype(int) % 3 > 0)  # fmt: skip
Figures = Sequence[Any]


@dataclass(frozen=True)
class Case:
    """One row of the page: got and wanted are figures in the same order."""

    analysis: str
    what: str
    data: str
    reference: str
    got: Figures
    wanted: Figures

    @property
    def error(self) -> float:
        """The largest relative error, of wanted figures that are not 0."""
        got, wanted = (np.array([np.nan if x is None else float(x) for x in side]) for side in (self.got, self.wanted))
        return float(np.max(np.abs(got - wanted)[wanted != 0] / np.abs(wanted[wanted != 0])))


def book_of(frame: pd.DataFrame, **more: Any) -> Codebook:
    """A codebook of a data set: integers, numbers and categories as they come."""
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        if pd.api.types.is_bool_dtype(column):
            columns[str(name)] = "boolean"
        elif pd.api.types.is_numeric_dtype(column):
            columns[str(name)] = ("number", float(column.min()) - 1, float(column.max()) + 1)
        else:
            columns[str(name)] = sorted(column.dropna().astype(str).unique())
    return codebook_of(columns | more)


def column(result: Any, name: str, table: str | None = None) -> list[float]:
    return [float(x) for x in result.to_pandas(table)[name]]


def coefficients(result: Any) -> list[float]:
    return column(result, "estimate") + column(result, "std_error")


def moments() -> Iterator[Case]:
    data: Any = sm.datasets.fair.load_pandas().data
    fair = data.assign(married=np.where(data["yrs_married"] > 9, "long", "short"))
    frames, book, where = split(fair, 3, 1), book_of(fair), "statsmodels fair"
    y, x = fair["affairs"], fair["age"]
    found = federate("describe", frames, book, columns=["affairs", "age"])
    wanted: list[Any] = [*(fair[c].mean() for c in ("affairs", "age")), *(fair[c].var() for c in ("affairs", "age"))]
    yield Case(
        "describe", "means, variances", where, "pandas", column(found, "mean") + column(found, "variance"), wanted
    )
    n, s2 = len(y), float(y.var())
    error = np.sqrt((((y - y.mean()) ** 4).mean() - (n - 3) / (n - 1) * s2**2) / n)
    found = federate("variance", frames, book, columns=["affairs"])
    yield Case(
        "variance", "variance and its error", where, "pandas, Cramer's formula", coefficients(found), [s2, error]
    )
    pairs = federate("covariance", frames, book, columns=["affairs", "age"])
    pearson = sps.pearsonr(y, x)
    row = pairs.tables["pairs"][1]
    limits = pearson.confidence_interval()
    yield Case("covariance", "covariance, correlation, limits, p", where, "scipy",
               [row[k] for k in ("covariance", "correlation", "lower", "upper", "p_value")],
               [float(y.cov(x)), pearson.statistic, limits.low, limits.high, pearson.pvalue])  # fmt: skip
    groups = [y[fair["married"] == level] for level in ("long", "short")]
    for pooled in (False, True):
        test = sps.ttest_ind(*groups, equal_var=pooled)
        row = federate("ttest", frames, book, columns=["affairs"], by="married", pooled=pooled).tables["tests"][0]
        yield Case("ttest", "pooled" if pooled else "Welch", where, "scipy",
                   [row["statistic"], row["p_value"], row["df"]], [test.statistic, test.pvalue, test.df])  # fmt: skip
    ranks = federate("quantile", frames, book, columns=["affairs"], tolerance=1e-10)
    wanted = [float(np.quantile(y, p, method="inverted_cdf")) for p in (0.25, 0.5, 0.75)]
    yield Case("quantile", "quartiles", where, "numpy, inverted_cdf", column(ranks, "estimate"), wanted)
    coded = fair.assign(rate=fair["rate_marriage"].astype(int).astype(str))
    table = pd.crosstab(coded["rate"], coded["married"])
    chi = sps.chi2_contingency(table, correction=False)
    row = federate("chisq", split(coded, 3, 1), book_of(coded), columns=["rate", "married"]).tables["tests"][0]
    yield Case("chisq", "independence", where, "scipy", [row["statistic"], row["p_value"]], [chi.statistic, chi.pvalue])
    facts = federate("table", split(coded, 3, 1), book_of(coded), rows=["rate"], columns=["married"]).facts
    got = [facts["chi_square"], facts["chi_square_p_value"]]
    yield Case("table", "Pearson's test", where, "scipy", got, [chi.statistic, chi.pvalue])
    bins = federate("histogram", frames, book, column="age", edges=[17.0, 22.0, 27.0, 32.0, 42.5])
    counts = np.histogram(x, [17.0, 22.0, 27.0, 32.0, 42.5])[0]
    yield Case("histogram", "counts", where, "numpy", column(bins, "count"), list(counts))
    parts = federate("pca", frames, book, columns=["age", "yrs_married", "children", "religious"], scale=True)
    values = np.linalg.eigvalsh(fair[["age", "yrs_married", "children", "religious"]].corr())[::-1]
    yield Case("pca", "eigenvalues", where, "numpy", column(parts, "eigenvalue"), list(values))


def regressions() -> Iterator[Case]:
    longley: Any = sm.datasets.longley.load_pandas().data
    formula = "TOTEMP ~ GNPDEFL + GNP + UNEMP + ARMED + POP + YEAR"
    fit = smf.ols(formula, longley).fit()
    found = federate("ols", split(longley, 3, 2), book_of(longley), formula=formula)
    yield Case("ols", "Longley's ill-conditioned data", "statsmodels longley", "statsmodels", coefficients(found),
               [*fit.params, *fit.bse])  # fmt: skip
    robust = federate("ols", split(longley, 3, 2), book_of(longley), formula="TOTEMP ~ GNP + UNEMP", robust="HC1")
    fit = smf.ols("TOTEMP ~ GNP + UNEMP", longley).fit(cov_type="HC1")
    yield Case("ols", "HC1", "statsmodels longley", "statsmodels", coefficients(robust), [*fit.params, *fit.bse])
    data: Any = sm.datasets.fair.load_pandas().data
    fair = data.assign(any=(data["affairs"] > 0).astype(float), visits=data["children"].round())
    families = {"binomial": ("any", sm.families.Binomial()), "poisson": ("visits", sm.families.Poisson())}
    for family, (response, kind) in families.items():
        formula = f"{response} ~ age + religious + educ"
        fit = smf.glm(formula, fair, family=kind).fit(tol=1e-14, maxiter=100)
        found = federate("glm", split(fair, 3, 3), book_of(fair), formula=formula, family=family)
        yield Case("glm", family, "statsmodels fair", "statsmodels", coefficients(found), [*fit.params, *fit.bse])
    rich = FRAME.assign(rich=(FRAME["income"] > 72).where(FRAME["income"].notna()).astype(float))
    book = with_more(codebook(spans=True), rich={"type": "number", "low": 0, "high": 1})
    mixed = federate("glmm", split(rich, 3, 4), book, formula="rich ~ hours", group="psu")
    wanted = DESIGN["glmer"]
    yield Case("glmm", "binomial, Laplace", "generated sample", "R lme4",
               [*column(mixed, "estimate", "coefficients"), mixed.facts["sigma"], mixed.facts["log_likelihood"]],
               [*wanted["estimate"], wanted["sigma"], wanted["log_likelihood"]])  # fmt: skip


def lifetimes() -> Iterator[Case]:
    rossi = datasets.load_rossi()
    frame = rossi.assign(arrest=rossi["arrest"] == 1, fin=rossi["fin"].map({0: "no", 1: "yes"}))
    book = book_of(frame, week={"type": "integer", "low": 1, "high": 52})
    times: dict[str, Any] = {"time": "week", "event": "arrest"}
    found = federate("survival", split(frame, 3, 5), book, group=["fin"], **times)
    curve = found.to_pandas("curve")
    curve = curve[curve["fin"] == "yes"]
    inside = rossi[rossi["fin"] == 1]
    fit = KaplanMeierFitter().fit(inside["week"], inside["arrest"])
    yield Case("survival", "Kaplan-Meier curve", "lifelines rossi", "lifelines", list(curve["survival"]),
               [float(fit.predict(t)) for t in curve["time"]])  # fmt: skip
    test = logrank_test(*(rossi.loc[rossi["fin"] == k, c] for c in ("week", "arrest") for k in (0, 1)))
    row = found.tables["tests"][0]
    yield Case("survival", "log-rank test", "lifelines rossi", "lifelines", [row["chi_square"], row["p_value"]],
               [test.test_statistic, test.p_value])  # fmt: skip
    cox = federate("cox", split(frame, 3, 5), book, covariates="age + prio", ties="efron", **times)
    model = CoxPHFitter().fit(rossi[["week", "arrest", "age", "prio"]], "week", "arrest",
                              fit_options={"precision": 1e-13})  # fmt: skip
    wanted = [*model.params_, *model.standard_errors_]
    yield Case("cox", "Efron's ties", "lifelines rossi", "lifelines", coefficients(cox), wanted)


def with_more(book: Codebook, **more: Any) -> Codebook:
    """A codebook of the generated sample, with the derived columns of `FRAME` and others."""
    described = book.model_dump(mode="json", exclude_defaults=True)
    described["columns"] |= {"young": {"type": "boolean"}, "visits": {"type": "integer", "low": 0, "high": 6}}
    described["columns"] |= {"months": {"type": "integer", "low": 1, "high": 24}, "ended": {"type": "boolean"}}
    described["columns"] |= more
    return Codebook.model_validate(described)


def designs() -> Iterator[Case]:
    where = "generated sample"
    roles = ("weight", "stratum", "psu")
    replicates: dict[str, Any] = {"replicates": "bootstrap", "replicate_method": "bootstrap"}
    sets: dict[str, tuple[Codebook, Sequence[pd.DataFrame]]] = {
        "clustered": (with_more(codebook(*roles)), nested(FRAME)),
        "bootstrap": (with_more(codebook("weight", **replicates)), split(FRAME, 3, 5)),
    }
    asked: Mapping[str, tuple[str, dict[str, Any]]] = {
        "mean": ("mean", {"columns": ["income"]}),
        "total": ("total", {"columns": ["income"]}),
        "ratio": ("ratio", {"numerator": "income", "denominator": "hours"}),
        "count": ("count", {}),
    }
    for design, (book, frames) in sets.items():
        said = "strata and PSUs" if design == "clustered" else "bootstrap replicates"
        ask: dict[str, Any] = {"frames": frames, "codebook": book, "design": True}
        for name, (method, options) in asked.items():
            wanted = SURVEY[design][name]
            found = federate(method, **ask, **options)
            yield Case(
                method, f"{said}; error", where, R, coefficients(found), [wanted["estimate"], wanted["std_error"]]
            )
        reference = DESIGN[design]
        for family, formula in (("gaussian", "income ~ age + C(sex)"), ("binomial", "young ~ hours + C(sex)")):
            found = federate("glm", **ask, formula=formula, family=family)
            wanted = reference[family]
            yield Case(
                "glm", f"{family}, {said}", where, R, coefficients(found), wanted["estimate"] + wanted["std_error"]
            )
        row = federate("ttest", **ask, columns=["hours"], by="sex", groups=["m", "f"]).tables["tests"][0]
        keys: tuple[str, ...] = ("estimate", "statistic", "df", "p_value", "lower", "upper")
        yield Case("ttest", said, where, R, [row[k] for k in keys], [reference["two"][k] for k in keys])
        row = federate("variance", **ask, columns=["income"]).tables["estimates"][0]
        keys = ("estimate", "std_error")
        yield Case("variance", said, where, R, [row[k] for k in keys], [reference["variance"][k] for k in keys])
        pair = federate("covariance", **ask, columns=["income", "hours"]).tables["pairs"][1]
        yield Case("covariance", said, where, R, [pair["covariance"], pair["covariance_std_error"]],
                   [reference["covariance"][k][1] for k in keys])  # fmt: skip
        ranks = federate("quantile", **ask, columns=["age"], probabilities=[0.25, 0.5, 0.9])
        keys = ("estimate", "lower", "upper", "std_error")
        yield Case("quantile", said, where, R, [x for k in keys for x in column(ranks, k)],
                   [x for k in keys for x in reference["quantile"][k]])  # fmt: skip
        facts = federate("table", **ask, rows=["sex"], columns=["region"]).facts
        chi = reference["chi"]
        yield from design_lifetimes(ask, LIFETIMES[design], said, where)
        yield Case("table", f"Rao-Scott test, {said}", where, R, [facts["f_statistic"], facts["f_p_value"]],
                   [chi["f"], chi["f_p"]])  # fmt: skip


def design_lifetimes(ask: dict[str, Any], wanted: dict[str, Any], said: str, where: str) -> Iterator[Case]:
    times: dict[str, Any] = {"time": "months", "event": "ended"}
    found = federate("survival", **ask, **times, group=["sex"])
    curve = found.to_pandas("curve")
    curve = curve[(curve["sex"] == "f") & curve["std_error"].notna()]
    at, keys = curve["time"].to_numpy(int) - 1, ("survival", "std_error", "hazard", "hazard_std_error")
    yield Case("survival", f"curve, hazard, {said}; error", where, R, [x for k in keys for x in curve[k]],
               [wanted["f"][k][i] or 0.0 for k in keys for i in at])  # fmt: skip
    row, test = found.tables["tests"][0], ("chi_square", "p_value")
    yield Case("survival", f"log-rank test, {said}", where, R, [row[k] for k in test], [wanted["sex"][k] for k in test])
    if "replicates" not in found.facts:
        for ties in ("efron", "breslow"):
            cox = federate("cox", **ask, **times, covariates="age + C(sex)", ties=ties)
            yield Case("cox", f"{ties.capitalize()}'s ties, {said}", where, R, coefficients(cox),
                       [*wanted[ties]["estimate"], *wanted[ties]["std_error"]])  # fmt: skip


def page(cases: Sequence[Case]) -> str:
    """The page, in Markdown."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("statsmodels", "scipy", "lifelines", "pandas", "numpy"))
    rows = [f"| {c.analysis} | {c.what} | {c.data} | {c.reference} | {len(c.got)} | {c.error:.0e} |" for c in cases]
    doc = (__doc__ or "").split("\n\n")
    return "\n".join(
        [
            "# Correctness",
            "",
            "Every statistic beside a reference on public data. This page is written by "
            "`python benchmarks/correctness.py > docs/correctness.md`.",
            "",
            doc[-1].strip(),
            "",
            f"References: {packages}, R survey 4.1.1, R lme4 1.1; Python {platform.python_version()}. Figures are those "
            "named and, with *error*, estimates and their standard errors; the last column is the largest relative "
            "difference of any of them.",
            "",
            "| analysis | of what | data | reference | figures | largest relative error |",
            "| --- | --- | --- | --- | --- | --- |",
            *sorted(rows),
        ]
    )


if __name__ == "__main__":
    print(page([case for group in (moments, regressions, lifetimes, designs) for case in group()]))
