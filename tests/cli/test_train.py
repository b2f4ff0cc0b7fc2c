"""`statfed train` and `statfed predict`, as users type them."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from typer.testing import CliRunner

from statfed.cli.main import app
from statfed.client.data.drafting import draft, to_toml
from statfed.client.data.tables import connect
from statfed.core.discovery import modules
from statfed.core.method import TRAINING, load_method
from statfed.federation.schema import answer_schema
from statfed.strategies.learning.options import TrainingOptions

HOLDERS = "--holder a=a.parquet --holder b=b.csv --holder c=c.parquet"
SHORT = f"--target employed --features age,income,sex {HOLDERS} --rounds 2 --hidden 4 --seed 3"
Call = Callable[[str], Result]


def records(count: int, seed: int) -> pd.DataFrame:
    """Persons whose income tells whether they are employed."""
    rng = np.random.default_rng(seed)
    income = np.clip(rng.normal(30, 8, count), 0, 80).round(1)
    employed = rng.random(count) < 1 / (1 + np.exp(-(income - 30) / 2))
    age, sex = rng.integers(18, 80, count), rng.choice(["f", "m"], count)
    return pd.DataFrame({"age": age, "income": income, "sex": sex, "employed": np.where(employed, "yes", "no")})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    records(300, 1).to_parquet(folder / "a.parquet")
    records(200, 2).to_csv(folder / "b.csv", index=False)
    records(250, 3).to_parquet(folder / "c.parquet")
    records(40, 4).drop(columns="employed").to_parquet(folder / "new.parquet")
    with connect(str(folder / "a.parquet"), folder) as source:
        (folder / "people.codebook.toml").write_text(to_toml(draft(source)))
    return folder


@pytest.fixture
def call(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run `statfed` in the folder of the files, with a workspace of the test's own."""
    monkeypatch.chdir(files)
    monkeypatch.setenv("COLUMNS", "240")
    monkeypatch.setenv("STATFED_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("STATFED_RUNS", str(tmp_path / "runs"))

    def run(words: str) -> Result:
        result = CliRunner().invoke(app, shlex.split(words))
        assert "internal error" not in result.stderr, result.stderr
        return result

    return run


def document(result: Result) -> Any:
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_model_is_trained_scored_kept_saved_and_predicts(call: Call, tmp_path: Path) -> None:
    model = tmp_path / "employed.statfed"
    trained = call(f"train mlp {SHORT} --rounds 20 --learning-rate 0.3 --save {model} --json")
    answer = document(trained)
    jsonschema.validate(answer, answer_schema())
    assert answer["study"]["options"] == {
        "target": "employed",
        "features": ["age", "income", "sex"],
        "model": {"name": "mlp", "hidden": 4},
        "rounds": "20",
        "learning_rate": "0.3",
        "holdout": 0.2,
    }
    mine, majority = answer["scores"]
    assert mine["accuracy"] > majority["accuracy"] + 0.1
    assert 100 < mine["count"] < 200  # a fifth of the records
    assert document(call("runs show last --json")) == answer
    assert f"statfed predict {model} DATA" in trained.stderr
    said = document(call(f"predict {model} new.parquet -o {tmp_path}/out.parquet --json"))
    assert said["records"] == 40
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert list(found.columns) == said["columns"]
    assert set(found["prediction"]) == {"no", "yes"}
    assert call(f"predict {model} new.parquet -o {tmp_path}/out.csv").exit_code == 0
    assert len(pd.read_csv(tmp_path / "out.csv")) == 40


def test_private_steps_under_secure_aggregation_say_what_they_cost(call: Call) -> None:
    words = f"train mlp {SHORT} --method dp-fedsgd --privacy shared:epsilon=3,delta=1e-5 --protect secure-aggregation"
    drafted = call(words)
    assert drafted.exit_code == 2
    assert "no epsilon covers that" in drafted.stderr
    words += " --codebook people.codebook.toml"
    plan = document(call(f"{words} --dry-run --json"))
    assert [a["epsilon"] for a in plan["admissions"]] == pytest.approx([3.0] * 3, rel=0.02)
    assert all(a["noise_multiplier"] > 0 and a["steps"] == 1 for a in plan["admissions"])
    shown = call(f"{words} --option strategy.name=fedavgm --option strategy.server_momentum=0.5")
    assert shown.exit_code == 0, shown.stderr
    assert "Epsilon, composed per holder" in shown.stdout
    assert "protection secure-aggregation" in shown.stdout
    answer = document(call("runs show last --json"))
    assert answer["study"]["options"]["strategy"] == {"name": "fedavgm", "server_momentum": 0.5}
    assert all(s["study_epsilon"] <= 3.0 for s in answer["spending"])


def test_a_number_is_predicted_and_compared_on_request(call: Call) -> None:
    words = SHORT.replace("employed", "income").replace("age,income", "age,employed")
    shown = call(f"train mlp {words} --references")
    assert shown.exit_code == 0, shown.stderr
    assert re.search(r"Compared on \d+ held-out records", shown.stdout)
    assert "RMSE" in shown.stdout
    assert "Pooled" in shown.stdout


def test_help_lists_the_models_and_every_option_of_the_methods(call: Call) -> None:
    assert all(re.search(rf"\b{name}\b", call("train --help").stdout) for name in modules("statfed.strategies.models"))
    shown = call("train mlp --help").stdout
    for name in modules(TRAINING):
        for key in load_method(name).Options.model_fields:
            assert key == "model" or f"--{key.replace('_', '-')}" in shown, key
    assert "model" in TrainingOptions.model_fields


MISTAKES: dict[str, tuple[str, str]] = {
    "model": (f"train resnet {SHORT}", "No such command 'resnet'"),
    "no target": (f"train mlp --features age {HOLDERS}", "Missing option '--target'"),
    "no such column": (f"train mlp --target employd --features age {HOLDERS}", "employd"),
    "option of another method": (
        f"train mlp {SHORT} --method dp-fedsgd --privacy epsilon=1 --batch-size 8",
        "--batch-size: not an option of dp-fedsgd",
    ),
    "no key": (f"train mlp {SHORT} --option momentum", "--option: got 'momentum'; want key=value"),
    "strategy": (f"train mlp {SHORT} --strategy krumm", "strategy.name: got 'krumm'; want 'fedavg'"),
    "without privacy": (f"train mlp {SHORT} --method dp-fedsgd", "got dp-fedsgd without differential privacy"),
    "no model": ("predict none.statfed new.parquet -o out.parquet", "none.statfed: no such file"),
    "ending": ("predict none.statfed new.parquet -o out.txt", "--out: got out.txt; want a file ending in .parquet"),
}


@pytest.mark.parametrize("case", list(MISTAKES))
def test_mistakes_are_explained_and_exit_with_2(call: Call, case: str) -> None:
    words, text = MISTAKES[case]
    result = call(f"{words} --fresh" if words.startswith("train") else words)
    assert result.exit_code == 2, result.stderr
    assert text in " ".join(result.stderr.split())
