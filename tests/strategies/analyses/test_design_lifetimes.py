"""Survival curves, log-rank tests and Cox regressions under a design against R (tests/data/lifetimes_reference.R)."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.client.guard.disclosure import undeclared, weighed
from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Cells, columns_read
from statfed.core.terms import Terms
from statfed.lab.laws.frames import holder_table
from statfed.lab.laws.walk import steps
from tests.federate import federate, split
from tests.strategies.analyses.test_design_models import close
from tests.strategies.analyses.test_survey import DATA, SAMPLE, codebook, nested

REFERENCE = json.loads((DATA / "lifetimes_reference.json").read_text())
FRAME = SAMPLE.assign(
    months=(SAMPLE["age"] * 7 + np.floor(SAMPLE["hours"])).astype(int) % 24 + 1,
    ended=(SAMPLE["age"] + np.floor(SAMPLE["hours"])).astype(int) % 3 > 0,
)
ROLES = {"clustered": ("weight", "stratum", "psu"), "strata": ("weight", "stratum"), "weighted": ("weight",)}
TIMES: dict[str, Any] = {"time": "months", "event": "ended", "design": True}
CASES = [*ROLES, "spanning", "bootstrap", "jk1", "fay"]


def asked(case: str) -> tuple[Codebook, list[pd.DataFrame], dict[str, Any]]:
    """Codebook, frames of three holders and figures of R of a design of the sample."""
    if case in ("bootstrap", "jk1", "fay"):
        more: dict[str, Any] = {"replicate_method": case, "fay_rho": 0.3 if case == "fay" else 0.0}
        book, frames = codebook("weight", replicates=case, **more), split(FRAME, 3, 5)
    elif case == "spanning":
        book, frames = codebook(*ROLES["clustered"], spans=True), split(FRAME, 3, 5)
    else:
        book, frames = codebook(*ROLES[case]), nested(FRAME)
    described = book.model_dump(mode="json", exclude_defaults=True)
    described["columns"] |= {"months": {"type": "integer", "low": 1, "high": 24}, "ended": {"type": "boolean"}}
    return Codebook.model_validate(described), frames, REFERENCE["clustered" if case == "spanning" else case]


def same_curve(shown: pd.DataFrame, wanted: dict[str, Any]) -> None:
    at = shown["time"].to_numpy(int) - 1
    columns = {key: np.array([np.nan if x is None else x for x in wanted[key]])[at] for key in wanted}
    alive = columns["survival"] > 0
    close(shown["survival"], columns["survival"])
    close(shown["std_error"][alive], columns["std_error"][alive], 1e-7)
    assert shown["std_error"][~alive].isna().all()
    close(shown["hazard"], np.nan_to_num(columns["hazard"]))
    close(shown["hazard_std_error"], np.nan_to_num(columns["hazard_std_error"]), 1e-7)
    half = 1.959963984540054 * columns["std_error"][alive] / columns["survival"][alive]
    close(shown["lower"][alive], columns["survival"][alive] * np.exp(-half), 1e-7)
    close(shown["upper"][alive], np.minimum(columns["survival"][alive] * np.exp(half), 1), 1e-7)


@pytest.mark.parametrize("case", CASES)
def test_design_based_curves_and_their_errors_equal_svykm(case: str) -> None:
    book, frames, reference = asked(case)
    result = federate("survival", frames, book, **TIMES)
    same_curve(result.to_pandas("curve"), reference["all"])
    assert (result.facts["observations"], result.facts["missing"], result.facts["left_out"]) == (400, 0, 0)
    grouped = federate("survival", frames, book, **TIMES, group=["sex"])
    curve = grouped.to_pandas("curve")
    for sex in ("f", "m"):
        same_curve(curve[curve["sex"] == sex].reset_index(drop=True), reference[sex])
    (row,) = grouped.tables["tests"]
    close([row["chi_square"], row["p_value"]], [reference["sex"][key] for key in ("chi_square", "p_value")], 1e-7)


@pytest.mark.parametrize("case", ["clustered", "bootstrap"])
def test_the_design_based_log_rank_test_of_three_groups_equals_svylogrank(case: str) -> None:
    book, frames, reference = asked(case)
    result = federate("survival", frames, book, **TIMES, group=["region"])
    (row,) = result.tables["tests"]
    close([row["chi_square"], row["p_value"]], [reference["region"][key] for key in ("chi_square", "p_value")], 1e-7)
    assert row["df"] == 2
    assert result.facts["missing"] == int(FRAME["region"].isna().sum())


def test_an_entry_counts_records_at_risk_after_it_and_missing_lifetimes_stay_in_the_design() -> None:
    book, _, _ = asked("clustered")
    described = book.model_dump(mode="json", exclude_defaults=True)
    described["columns"]["began"] = {"type": "integer", "low": 0, "high": 24}
    whole = FRAME.assign(began=(FRAME["age"] % 5).astype(float), months=FRAME["months"].astype(float))
    whole.loc[::9, "months"] = np.nan
    asks: dict[str, Any] = {"frames": nested(whole), "codebook": Codebook.model_validate(described)}
    shown = federate("survival", **asks, **TIMES, entry="began").to_pandas("curve")
    left = whole[whole["months"].notna() & (whole["began"] < whole["months"])]
    hazard, survival, z = 0.0, 1.0, pd.Series(0.0, whole.index)
    for i, t in enumerate(shown["time"]):
        risk = (left["began"] < t) & (t <= left["months"])
        died = risk & (left["months"] == t) & left["ended"]
        at_risk, h = (left["w"] * risk).sum(), (left["w"] * died).sum() / (left["w"] * risk).sum()
        hazard, survival = hazard + h, survival * (1 - h)
        z = z.add((died.astype(float) - h * risk) / at_risk * left["w"], fill_value=0)
        units = z.groupby([whole["stratum"], whole["psu"]]).sum().groupby("stratum")
        error = np.sqrt((units.count() * units.var()).sum())
        close(shown[["hazard", "survival", "hazard_std_error"]].iloc[i], [hazard, survival, error], 1e-9)


@pytest.mark.parametrize("case", ["clustered", "strata", "spanning", "bootstrap"])
def test_what_leaves_of_lifetimes_under_a_design_is_declared_and_adds_up(case: str) -> None:
    book, _, _ = asked(case)
    terms = Terms(method="survival", options=TIMES | {"group": ["sex"]}, codebook=book, holders=("h1", "h2"), seed=1)
    halves = nested(FRAME, 3)[:2]
    names = set()
    for step in steps(terms, {"h1": FRAME}):
        question, ask = step.study.question, step.ask
        said = step.study.method.discloses(question, ask)
        assert not undeclared(step.parts, said, weighed(step.study.method, said)), ask.name
        assert isinstance(said, Cells)
        assert {*said.by, *said.values, *said.complete} <= {*columns_read(question)}
        assert list(step.study.method.weighs(holder_table(FRAME, book), question, ask))  # type: ignore[attr-defined]
        sent = [step.sent(holder_table(half, book)) for half in halves]
        for key, whole in step.contributions["h1"].items():
            close(sum(each[key] for each in sent), whole, 1e-7)
        names.add(ask.name)
    assert names == {"exits", *(("replicates",) if case == "bootstrap" else ("curve", "test"))}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"group": ["sex"], "strata": ["region"]}, "design: got it with strata; want none"),
        ({"restricted_to": 12}, "design: got it with restricted_to; want none"),
    ],
)
def test_what_has_no_design_based_form_is_refused(options: dict[str, Any], said: str) -> None:
    book, frames, _ = asked("clustered")
    with pytest.raises(UsageError, match=said):
        federate("survival", frames, book, **TIMES, **options)


def test_a_group_that_nobody_of_a_replicate_is_in_has_no_error() -> None:
    book, frames, _ = asked("bootstrap")
    rare = [f.assign(sex=np.where(f["psu"] == "p01", "m", "f")) for f in frames]
    shown = federate("survival", rare, book, **TIMES, group=["sex"]).to_pandas("curve")
    assert shown[shown["sex"] == "m"]["std_error"].isna().all()
    assert shown[shown["sex"] == "f"]["std_error"].notna().any()


COX: dict[str, dict[str, Any]] = {
    "efron": {"covariates": "age + C(sex)"},
    "breslow": {"covariates": "age + C(sex)", "ties": "breslow"},
    "missing": {"covariates": "income", "strata": ["region"]},
}


@pytest.mark.parametrize("case", [*ROLES, "spanning"])
def test_design_based_cox_regressions_equal_svycoxph(case: str) -> None:
    book, frames, reference = asked(case)
    for name, options in COX.items():
        if name == "missing" and case != "clustered":
            continue
        result = federate("cox", frames, book, **TIMES, **options)
        shown, wanted = result.to_pandas("coefficients"), reference[name]
        close(shown["estimate"], np.atleast_1d(wanted["estimate"]), 1e-7)
        close(shown["std_error"], np.atleast_1d(wanted["std_error"]), 1e-6)
        assert [row["name"] for row in result.tables["tests"]] == ["Wald"]
        missing = int((FRAME["income"].isna() | FRAME["region"].isna()).sum()) if name == "missing" else 0
        assert (result.facts["observations"], result.facts["missing"]) == (400 - missing, missing)


def test_cox_under_replicate_weights_is_refused_with_a_way_out() -> None:
    book, frames, _ = asked("bootstrap")
    with pytest.raises(UsageError, match="got replicate weights; want a codebook with strata and PSUs"):
        federate("cox", frames, book, **TIMES, covariates="age")
