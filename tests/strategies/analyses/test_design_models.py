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
CASES = [*ROLES, "spanning", *METHODS]


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
