"""The same query gives the identical answer in every engine, and refusals reach the user from real processes."""

import json
from pathlib import Path
from typing import Any

import pytest

from statfed.core.errors import Refused
from statfed.federation import Answer, Options, make_study, run_study
from tests.federate import split
from tests.universe import CODEBOOK, people

FRAMES = split(people(300, 2), 2, seed=5)
GLM = {"method": "glm", "options": {"formula": "employed ~ age + C(region)", "family": "binomial"}}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    FRAMES[0].to_parquet(tmp_path / "a.parquet")
    FRAMES[1].to_csv(tmp_path / "b.csv", index=False)
    return tmp_path


def answer(files: Path, engine: str, **terms: Any) -> Answer:
    study = make_study(
        {"holders": {"office-1": "a.parquet", "office-2": "b.csv"}, "engine": engine, "seed": 7, "timeout": 60} | terms
    )
    return run_study(study, Options(workspace=files / engine, base=files, codebook=CODEBOOK))


def facts(found: Answer) -> dict[str, Any]:
    """What has to be the same in every engine: all but times, sizes of processes and names of runs."""
    shown = found.to_dict()
    for key in ("run", "created", "engine", "seconds", "phases", "memory_mib", "study", "study_digest", "terms"):
        shown.pop(key)
    for one in shown["sums"]:
        for key in ("seconds", "holder_seconds", "ledger_heads"):
            one.pop(key)
    for one in shown["spending"]:
        one.pop("ledger_head")
    assert json.dumps(shown, allow_nan=False)
    return shown


@pytest.mark.processes
def test_real_processes_give_the_identical_answer_and_spending_and_pass_refusals_on(files: Path) -> None:
    """Several sums with float and whole-number arrays and public parameters, there and back over TLS."""
    here, there = answer(files, "inprocess", **GLM), answer(files, "processes", **GLM)
    assert facts(there) == facts(here)
    assert there.study_digest == here.study_digest
    assert {"superlink", "office-1/runner", "office-2/supernode"} <= set(there.memory_mib)


@pytest.mark.processes
def test_a_refusal_of_a_real_holder_names_the_rule_and_not_its_threshold(files: Path) -> None:
    terms = {
        "method": "count",
        "options": {"by": ["region"]},
        "simulation": {"disclosure": {"minimum_frequency": 97}},
    }
    said = []
    for engine in ("inprocess", "processes"):
        with pytest.raises(Refused) as caught:
            answer(files, engine, **terms)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "office-1: not allowed by this holder's disclosure rules" in said[0]
    assert "minimum frequency: region" in said[0]
    assert "97" not in said[0]


def test_private_noise_and_cost_follow_from_the_seed_and_not_from_the_run(files: Path) -> None:
    terms = {"method": "mean", "options": {"columns": ["income"], "by": ["sex"]}, "privacy": {"epsilon": 1.0}}
    one = answer(files, "inprocess", **terms)
    study = make_study({"holders": {"office-1": "a.parquet", "office-2": "b.csv"}, "seed": 7} | terms)
    other = run_study(study, Options(base=files, codebook=CODEBOOK))
    assert facts(one) == facts(other)
