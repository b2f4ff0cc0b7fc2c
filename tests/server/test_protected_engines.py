"""The same protected study in memory and across real processes, third parties included: the same answer, to the bit."""

from pathlib import Path
from typing import Any

import pytest

from statfed.federation import Options, make_study, run_study
from tests.federate import split
from tests.universe import CODEBOOK, people

HOLDERS = 3


def study(folder: Path, protection: str, **more: Any) -> dict[str, Any]:
    for i, frame in enumerate(split(people(300, seed=2), HOLDERS, seed=3)):
        frame.to_parquet(folder / f"h{i}.parquet")
    return {
        "method": "mean",
        "options": {"columns": ["income", "age"], "by": ["sex"]},
        "holders": {f"h{i}": str(folder / f"h{i}.parquet") for i in range(HOLDERS)},
        "protection": {"name": protection},
        "disclosure": "none",
        "seed": 7,
    } | more


@pytest.mark.processes
@pytest.mark.parametrize(
    "protection",
    [
        pytest.param(
            "secure-aggregation", marks=pytest.mark.whole
        ),  # as in every pilot, tests/federation/test_pilot.py
        "homomorphic-encryption",
        pytest.param("multi-party", marks=pytest.mark.whole),
    ],
)
def test_a_protected_answer_is_the_same_across_processes(tmp_path: Path, protection: str) -> None:
    privacy = {"epsilon": 1.0, "noise": "shared", "colluders": 1}
    one, other = (
        run_study(
            make_study(study(tmp_path, protection, privacy=privacy, engine=engine)),
            Options(workspace=tmp_path / engine, codebook=CODEBOOK),
        )
        for engine in ("inprocess", "processes")
    )
    assert one.result.to_dict() == other.result.to_dict()
    assert {closing.holder for closing in other.spending} == {"h0", "h1", "h2"}
