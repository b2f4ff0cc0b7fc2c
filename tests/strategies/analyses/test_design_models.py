"""Design-based regressions, tests and quantiles against R's survey (tests/data/design_reference.R)."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from tests.federate import codebook_of, federate, split
from tests.strategies.analyses.test_survey import DATA, SAMPLE, codebook, nested

REFERENCE = json.loads((DATA / "design_reference.json").read_text())
FRAME = SAMPLE.assign(young=SAMPLE["age"] < 45, visits=SAMPLE["age"] % 7)
ROLES = {"clustered": ("weight", "stratum", "psu"), "strata": ("weight", "stratum"), "weighted": ("weight",)}
METHODS = ("jkn", "bootstrap", "jk1", "brr", "fay")


def asked(case: str) -> tuple[Codebook, list[pd.DataFrame], dict[str, Any]]:
    """Codebook, frames of three holders and figures of R of a design of the sample."""
    if case in METHODS:
        scales = REFERENCE["jkn_rscales"] if case == "jkn" else []
        more = {"replicate_method": case, "replicate_rscales": scales, "fay_rho": 0.3 if case == "fay" else 0.0}
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
MODELS += [("spanning", "gaussian"), ("jk1", "binomial"), ("fay", "poisson"), ("bootstrap", "gaussian"), ("jkn", "binomial")]


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


def test_a_design_weight_is_no_frequency() -> None:
    book, frames, _ = asked("clustered")
    with pytest.raises(UsageError, match="weight: got w, which the codebook gives the role weight, as frequencies"):
        federate("glm", frames, book, formula="young ~ hours", weight="w")


def test_frequencies_that_add_up_to_less_than_the_parameters_are_refused_as_such() -> None:
    frames = split(FRAME.assign(w=0.24 / int(FRAME["income"].notna().sum())), 3)
    with pytest.raises(UsageError, match=r"got frequencies of 0\.24 records together for 2 parameters"):
        federate("glm", frames, codebook(), formula="income ~ age", family="gaussian", weight="w")


TESTS = {
    "two": {"columns": ["hours"], "by": "sex", "levels": ["m", "f"]},
    "two_missing": {"columns": ["income"], "by": "sex", "levels": ["m", "f"]},
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
        if case not in ("jkn", "strata", "weighted"):  # R leaves records that lack a value out of the degrees of freedom
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
