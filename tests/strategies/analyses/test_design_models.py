"""Design-based regressions, tests and quantiles against R's survey (tests/data/design_reference.R)."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from statfed.client.guard.disclosure import undeclared, weighed
from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Cells, columns_read
from statfed.core.terms import Terms
from statfed.lab.laws.frames import holder_table
from statfed.lab.laws.walk import steps
from tests.federate import federate, split
from tests.strategies.analyses.test_survey import DATA, SAMPLE, codebook, nested

REFERENCE = json.loads((DATA / "design_reference.json").read_text())
FRAME = SAMPLE.assign(young=SAMPLE["age"] < 45, visits=SAMPLE["age"] % 7)
ROLES = {"clustered": ("weight", "stratum", "psu"), "strata": ("weight", "stratum"), "weighted": ("weight",)}
METHODS = ("jkn", "bootstrap", "jk1", "brr", "fay")


def asked(case: str) -> tuple[Codebook, list[pd.DataFrame], dict[str, Any]]:
    """Codebook, frames of three holders and figures of R of a design of the sample."""
    if case in METHODS:
        scales = REFERENCE["jkn_rscales"] if case == "jkn" else []
        more: dict[str, Any] = {"replicate_method": case, "replicate_rscales": scales}
        more["fay_rho"] = 0.3 if case == "fay" else 0.0
        book, frames = codebook("weight", replicates=case, **more), split(FRAME, 3, 5)
    elif case == "spanning":
        book, frames = codebook(*ROLES["clustered"], spans=True), split(FRAME, 3, 5)
    else:
        book, frames = codebook(*ROLES[case]), nested(FRAME)
    described = book.model_dump(mode="json", exclude_defaults=True)
    described["columns"] |= {"young": {"type": "boolean"}, "visits": {"type": "integer", "low": 0, "high": 6}}
    return Codebook.model_validate(described), frames, REFERENCE["clustered" if case == "spanning" else case]


def close(got: Any, wanted: Any, rtol: float = 1e-8) -> None:
    np.testing.assert_allclose(np.asarray(got, float), np.asarray(wanted, float), rtol=rtol, atol=1e-10)


FORMULAS = {
    "gaussian": "income ~ age + C(sex)",
    "binomial": "young ~ hours + C(sex)",
    "poisson": "visits ~ hours + C(sex)",
}
MODELS = [("clustered", family) for family in FORMULAS] + [("strata", "binomial"), ("weighted", "binomial")]
MODELS += [
    ("spanning", "gaussian"),
    ("jk1", "binomial"),
    ("fay", "poisson"),
    ("bootstrap", "gaussian"),
    ("jkn", "binomial"),
]


@pytest.mark.parametrize("unit", [1, 100])
@pytest.mark.parametrize(("formula", "intercept"), [(FORMULAS["gaussian"], True), ("income ~ 0 + age", False)])
def test_sigma_of_a_design_is_that_of_svyglm_whatever_unit_the_weights_have(
    unit: float, formula: str, intercept: bool
) -> None:
    """Complete records of svydesign(~psu, strata = ~stratum, weights = ~w, nest = TRUE);
    sqrt(summary(svyglm(formula, design))$dispersion)"""
    book, frames, _ = asked("clustered")
    frames = [frame.dropna(subset=["income", "age"]).assign(w=unit * frame["w"]) for frame in frames]
    result = federate("ols", frames, book, formula=formula, design=True)
    assert result.facts["sigma"] == pytest.approx(13.1426958817234 if intercept else 22.0573397967223, rel=1e-12)
    if intercept:
        model = federate("glm", frames, book, formula=formula, family="gaussian", design=True)
        assert model.facts["scale"] == pytest.approx(13.1426958817234**2, rel=1e-9)


@pytest.mark.parametrize(("case", "family"), MODELS)
def test_design_based_glm_equals_svyglm(case: str, family: str) -> None:
    book, frames, reference = asked(case)
    wanted = reference[family]
    result = federate("glm", frames, book, formula=FORMULAS[family], family=family, design=True)
    shown = result.to_pandas()
    close(shown["estimate"], wanted["estimate"])
    close(shown["std_error"], wanted["std_error"], 1e-6)
    if family != "gaussian":  # of weights with mean 1 over complete records; in R over all
        close(result.facts["deviance"], wanted["deviance"])
    if case != "jkn":  # R takes the rank of weights rounded to three digits, which have more than PSUs less strata
        assert result.df == wanted["df"]
        close(shown["p_value"], wanted["p_value"], 1e-5)


PROBIT = {
    "clustered": [0.35128104006680239, 0.00899112662542988, 0.11327368667627903],
    "spanning": [0.35128104006680239, 0.00899112662542988, 0.11327368667627903],
    "strata": [0.33194297538694950, 0.00942141520945688, 0.15487609996865398],
}


@pytest.mark.parametrize("case", PROBIT)
def test_design_based_probit_equals_svyglm(case: str) -> None:
    """R: svyglm(young ~ hours + sex, clustered, family = quasibinomial(link = "probit"))."""
    book, frames, _ = asked(case)
    shown = federate("glm", frames, book, formula=FORMULAS["binomial"], link="probit", design=True).to_pandas()
    close(shown["estimate"], [0.17135743715607438, -0.00934557139923477, 0.15554065150814711])
    close(shown["std_error"], PROBIT[case], 1e-6)


def test_a_model_in_a_domain_is_refused_with_a_way_that_equals_svyglm_of_the_subset() -> None:
    """R: svyglm(young ~ hours, subset(clustered, sex == "f"), family = quasibinomial())."""
    book, frames, _ = asked("clustered")
    asks: dict[str, Any] = {"frames": frames, "codebook": book, "design": True}
    with pytest.raises(UsageError, match=r"got it with where.*a category of which the domain is the first level"):
        federate("glm", **asks, formula="young ~ hours", where=["sex = 'f'"])
    shown = federate("glm", **asks, formula="young ~ C(sex)*hours").to_pandas().set_index("name")
    close(shown.loc[["Intercept", "hours"], "estimate"], [0.2181585487067977, -0.0132447277555963])
    close(shown.loc[["Intercept", "hours"], "std_error"], [0.538279089165911, 0.014825593784184])


def test_a_design_weight_is_no_frequency() -> None:
    book, frames, _ = asked("clustered")
    with pytest.raises(UsageError, match="weight: got w, which the codebook gives the role weight, as frequencies"):
        federate("glm", frames, book, formula="young ~ hours", weight="w")


def test_frequencies_that_add_up_to_less_than_the_parameters_are_refused_as_such() -> None:
    frames = split(FRAME.assign(w=0.24 / int(FRAME["income"].notna().sum())), 3)
    with pytest.raises(UsageError, match=r"got frequencies of 0\.24 records together for 2 parameters"):
        federate("glm", frames, codebook(), formula="income ~ age", family="gaussian", weight="w")


TESTS: dict[str, dict[str, Any]] = {
    "two": {"columns": ["hours"], "by": "sex", "groups": ["m", "f"]},
    "two_missing": {"columns": ["income"], "by": "sex", "groups": ["m", "f"]},
    "one": {"columns": ["hours"], "mu": 34},
    "paired": {"columns": ["hours", "age"], "paired": True},
}


@pytest.mark.parametrize("case", [*ROLES, "spanning", "jk1", "bootstrap"])
def test_design_based_t_tests_equal_svyttest(case: str) -> None:
    book, frames, reference = asked(case)
    for name in TESTS if case in ("clustered", "jk1") else ("two_missing",):
        row = federate("ttest", frames, book, design=True, **TESTS[name]).tables["tests"][0]
        wanted = reference[name]
        close(float(row["estimate"] or 0) - (34 if name == "one" else 0), wanted["estimate"])
        close(row["statistic"], wanted["statistic"])
        if case not in (
            "jkn",
            "strata",
            "weighted",
        ):  # R leaves records that lack a value out of the degrees of freedom
            close([row[key] for key in ("df", "p_value")], [wanted[key] for key in ("df", "p_value")], 1e-7)
            shift = 34 if name == "one" else 0
            limits = [float(row[key] or 0) - shift for key in ("lower", "upper")]
            close(limits, [wanted["lower"], wanted["upper"]])


@pytest.mark.parametrize("case", [*ROLES, "spanning", "jk1", "fay"])
def test_design_based_variances_and_covariances_equal_svyvar(case: str) -> None:
    book, frames, reference = asked(case)
    row = federate("variance", frames, book, columns=["income"], design=True).tables["estimates"][0]
    close([row["estimate"], row["std_error"]], [reference["variance"][key] for key in ("estimate", "std_error")])
    mean = federate("mean", frames, book, columns=["income"], design=True).tables["estimates"][0]
    close([row["mean"], row["mean_std_error"]], [mean["estimate"], mean["std_error"]])
    pairs = federate("covariance", frames, book, columns=["income", "hours"], design=True).tables["pairs"]
    wanted = reference["covariance"]
    close([row["covariance"] for row in pairs], np.array(wanted["estimate"])[[0, 1, 3]])
    close([row["covariance_std_error"] for row in pairs], np.array(wanted["std_error"])[[0, 1, 3]])


def test_variances_in_domains_keep_the_psus_outside_of_them() -> None:
    book, frames, _ = asked("clustered")
    rows = federate("variance", frames, book, columns=["hours"], by=["sex"], design=True).tables["estimates"]
    means = federate("mean", frames, book, columns=["hours"], by=["sex"], design=True).tables["estimates"]
    close([row["mean_std_error"] for row in rows], [row["std_error"] for row in means])


@pytest.mark.parametrize("case", ["clustered", "strata", "spanning", "jk1", "bootstrap"])
def test_design_based_quantiles_equal_svyquantile(case: str) -> None:
    book, frames, reference = asked(case)
    wanted = reference["quantile"]
    result = federate("quantile", frames, book, columns=["age"], probabilities=[0.25, 0.5, 0.9], design=True)
    shown = result.to_pandas()
    for key in ("estimate", "lower", "upper", "std_error"):
        close(shown[key], wanted[key])


def test_the_limits_of_a_quantile_in_a_group_have_the_design_of_the_whole_sample() -> None:
    book, frames, _ = asked("clustered")
    asks: dict[str, Any] = {"columns": ["hours"], "probabilities": [0.5], "by": "sex", "design": True}
    grouped = federate("quantile", frames, book, **asks).to_pandas()
    inside = FRAME["sex"] == "f"
    ordered = FRAME[inside].sort_values("hours")
    reached = ordered["w"].cumsum() / ordered["w"].sum()
    close(grouped["estimate"][0], ordered["hours"][reached >= 0.5].iloc[0], 1e-5)
    share = federate("mean", [f.assign(young=f["hours"] <= float(grouped["bracket_upper"][0])) for f in frames], book,
                     columns=["young"], by=["sex"], design=True)  # fmt: skip
    error, df = float(share.tables["estimates"][0]["std_error"] or 0), float(share.df or 0)
    half = stats.t.ppf(0.975, df) * error
    for key, p in (("lower", 0.5 - half), ("upper", 0.5 + half)):
        close(grouped[key][0], ordered["hours"][reached >= p].iloc[0], 1e-2)


def test_psus_that_are_not_said_to_lie_with_one_holder_are_refused() -> None:
    described = asked("clustered")[0].model_dump(mode="json", exclude_defaults=True)
    described["design"].pop("psu_spans_holders", None)
    book = Codebook.model_validate(described)
    with pytest.raises(UsageError, match="psu_spans_holders: got none with the psu column psu and 3 holders"):
        federate("mean", nested(FRAME), book, columns=["income"], design=True)
    assert federate("mean", [FRAME], book, columns=["income"], design=True).df == REFERENCE["clustered"]["degf"]


@pytest.mark.parametrize("case", ["jk1", "bootstrap", "brr"])
def test_tests_of_independence_have_the_covariance_of_the_replicates_of_proportions(case: str) -> None:
    book, frames, reference = asked(case)
    facts = federate("table", frames, book, rows=["sex"], columns=["region"], design=True).facts
    wanted = reference["chi"]
    close([facts["f_statistic"], facts["f_p_value"], facts["chi_square_p_value"]],
          [wanted["f"], wanted["f_p"], wanted["chi_p"]])  # fmt: skip
    close([facts["f_df"], facts["f_residual_df"]], wanted["f_df"])


@pytest.mark.parametrize(
    ("case", "df"), [("jk1", None), ("bootstrap", None), ("brr", None), ("fay", None), ("jkn", 26)]
)
def test_degrees_of_freedom_of_replicates_are_the_rank_less_one(case: str, df: int | None) -> None:
    book, frames, reference = asked(case)
    result = federate("mean", frames, book, columns=["hours"], design=True)
    assert result.df == (df or reference["degf"])  # of jkn: PSUs less strata; R's rank is of weights of three digits
    row = result.tables["estimates"][0]
    half = stats.t.ppf(0.975, float(result.df or 0)) * float(row["std_error"] or 0)
    close(row["upper"], float(row["estimate"] or 0) + half)


def test_degrees_of_freedom_that_the_codebook_gives_are_taken() -> None:
    book, frames, _ = asked("bootstrap")
    described = book.model_dump(mode="json", exclude_defaults=True)
    described["design"]["replicate_df"] = 9
    assert federate("mean", frames, Codebook.model_validate(described), columns=["hours"], design=True).df == 9


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mean", {"columns": ["hours"]}),
        ("table", {"rows": ["sex"], "columns": ["region"]}),
        ("ttest", {"columns": ["hours"], "by": "sex"}),
        ("covariance", {"columns": ["hours", "age"]}),
        ("quantile", {"columns": ["age"], "probabilities": [0.5]}),
        ("glm", {"formula": "young ~ hours"}),
    ],
)
def test_what_leaves_with_replicate_weights_is_declared_and_weighed(method: str, options: dict[str, Any]) -> None:
    book, _, _ = asked("bootstrap")
    terms = Terms(method=method, options=options | {"design": True}, codebook=book, holders=("h1", "h2"), seed=1)
    names = set()
    halves = [FRAME.iloc[::2].reset_index(drop=True), FRAME.iloc[1::2].reset_index(drop=True)]
    for step in steps(terms, {"h1": FRAME}):
        question, ask = step.study.question, step.ask
        said = step.study.method.discloses(question, ask)
        assert not undeclared(step.parts, said, weighed(step.study.method, said)), ask.name
        if isinstance(said, Cells):
            assert {*said.by, *said.values, *said.complete} <= {*columns_read(question)}
        if ask.name in ("spread", "replicates", "rank"):
            names.add(ask.name)
            assert list(step.study.method.weighs(holder_table(FRAME, book), question, ask))  # type: ignore[attr-defined]
            sent = [step.sent(holder_table(half, book)) for half in halves]
            for key, whole in step.contributions["h1"].items():
                close(sum(each[key] for each in sent), whole, 1e-7)
    assert "rank" in names
