"""What is published of a study tells no parameter of disclosure control, and rules that did not run are said where
people look."""

import json
import re
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from statfed.core.codebook import make_codebook
from statfed.core.disclosure import Rules
from statfed.core.errors import UsageError
from statfed.core.study import make_study
from statfed.federation import load_answer
from statfed.federation.answers import read_answer
from statfed.federation.run import Options, run_study

BOOK = {
    "columns": {
        "g": {"type": "category", "categories": ["a", "b", "c"]},
        "x": {"type": "number", "low": 0, "high": 500},
    }
}
SECRET = {"minimum_frequency": 13, "dominance_k": 83.25, "p_percent": 17.75, "parameters_per_record": 0.2875}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run under rules whose parameters are numbers that occur nowhere else."""
    rng = np.random.default_rng(1)
    for name, size in (("n", 90), ("s", 60)):
        frame = pd.DataFrame({"g": rng.choice(["a", "b", "c"], size), "x": rng.uniform(50, 100, size)})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    study = make_study(
        {
            "method": "mean",
            "options": {"columns": ["x"], "by": ["g"]},
            "holders": {"n": str(tmp_path / "n.csv"), "s": str(tmp_path / "s.csv")},
            "seed": 1,
            "disclosure": SECRET,
            "simulation": {"disclosure": {**SECRET, "residual_df": 29}},
        }
    )
    answer = run_study(study, Options(workspace=tmp_path / "w", runs=tmp_path / "runs", codebook=make_codebook(BOOK)))
    return tmp_path / "runs" / answer.run


def test_no_parameter_of_a_rule_is_in_what_is_published(run: Path) -> None:
    published = ["result.json", "report.html", *(path.name for path in run.glob("*.csv"))]
    published += [f"logs/{path.name}" for path in (run / "logs").glob("*")]
    for name in published:
        text = (run / name).read_text(encoding="utf-8")
        assert not re.search(r"83\.25|17\.75|0\.2875", text), name
    study = json.loads((run / "result.json").read_text())["study"]
    assert study["disclosure"] == {"method": "suppress"}
    assert "disclosure" not in study["simulation"]


def test_the_runs_own_folder_keeps_them_for_its_owner_alone(run: Path) -> None:
    for name in ("parameters.json", "study.toml"):
        assert stat.S_IMODE((run / name).stat().st_mode) == 0o600
    answer = load_answer(run)
    assert Rules.model_validate(answer.study["disclosure"]).p_percent == SECRET["p_percent"]
    assert answer.study_digest == answer.terms.digest()


def test_the_published_result_alone_is_read_and_an_altered_one_is_not(run: Path) -> None:
    document = json.loads((run / "result.json").read_text())
    assert json.loads(json.dumps(read_answer(document).to_dict())) == document
    document["terms"]["holders"] = ["n", "t"]
    with pytest.raises(UsageError, match="digest"):
        read_answer(document)


def test_rules_that_were_not_evaluated_are_on_the_page(run: Path) -> None:
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "not evaluated" in page
    assert "p% rule: the contributions behind the estimates are not known" in page
