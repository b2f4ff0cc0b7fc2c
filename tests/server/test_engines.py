"""The same study and seed give the bit-identical model in every engine, and every engine cleans up."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from statfed.client.guard.ledger import read_only
from statfed.core.errors import Refused, UsageError
from statfed.core.study import Study, make_study
from statfed.federation import Answer, Options, run_study
from statfed.federation.runs import read_status


def small(engine: str, **changes: object) -> Study:
    return make_study(
        {
            "scenario": "time-use",
            "holders": 2,
            "rounds": 2,
            "engine": engine,
            "seed": 1,
            "model": {"hidden": 8},
            "training": {"batch_size": 16},
            "privacy": {"epsilon": 4.0, "delta": 1e-4},
            "data": {"source": "generated", "persons": 4, "records_per_person": 12, "test_persons": 4},
        }
        | changes
    )


def result(engine: str, folder: Path, **changes: object) -> Answer:
    return run_study(small(engine, **changes), Options(workspace=folder / "ws", references=False))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Answer:
    return result("inprocess", tmp_path_factory.mktemp("inprocess"))


@pytest.mark.processes
def test_real_processes_give_the_same_model_spending_and_scores(reference: Answer, tmp_path: Path) -> None:
    real = result("processes", tmp_path)
    assert real.model_digest == reference.model_digest
    assert real.candidates[0].scores == reference.candidates[0].scores
    for ours, theirs in zip(real.spending, reference.spending, strict=True):
        ignored = {"ledger_head"}
        assert ours.model_dump(exclude=ignored) == theirs.model_dump(exclude=ignored)
    assert {"superlink", "office-1/runner", "office-2/supernode"} <= set(real.memory_mib)


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra statfed[ray]")
@pytest.mark.filterwarnings("ignore")
def test_ray_gives_the_same_model(reference: Answer, tmp_path: Path) -> None:
    assert result("ray", tmp_path).model_digest == reference.model_digest


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "ray" else find(name, *a))
    with pytest.raises(UsageError, match=r"pip install 'statfed\[ray\]'"):
        result("ray", tmp_path)


@pytest.mark.processes
@pytest.mark.whole  # the way of any refusal, which tests/federation/test_analyse_engines.py walks
def test_a_refusal_at_a_real_holder_reaches_the_user_in_full(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"office-1: .*\n.*without differential privacy is not allowed"):
        result("processes", tmp_path, privacy=None, simulation={"allow_without_privacy": False})


INTERRUPTED = """
import os, signal, sys, threading
from pathlib import Path
from statfed.cli.main import main
from statfed.federation import checkpoint

save = checkpoint.save

def pressed(folder, state, curve, of):  # Ctrl-C while holders work on the next sum, once
    save(folder, state, curve, of)
    if not state.done:
        return
    checkpoint.save = save
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

checkpoint.save = pressed
sys.argv = ["statfed", "run", "time-use", "--fresh", "--no-references", "--json", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize(
    "engine",
    [
        "inprocess",
        pytest.param("processes", marks=pytest.mark.processes),
        pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.whole]),
    ],
)
def test_ctrl_c_ends_every_engine_with_the_command_that_goes_on_and_nothing_set_aside(
    tmp_path: Path, engine: str
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    data = "data={source='generated', persons=5, records_per_person=8, test_persons=2}"
    words = ["--engine", engine, "--runs", str(tmp_path / "runs"), "--workspace", str(tmp_path / "ws")]
    words += ["--set", data, "--set", "holders=2", "--set", "options.rounds=50"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    out, err = process.communicate(timeout=240)  # a hang fails here
    assert process.returncode == 130, err
    (folder,) = (tmp_path / "runs").iterdir()
    error = json.loads(out)["error"]
    assert (error["kind"], error["exit_code"]) == ("Interrupted", 130)
    assert f"statfed run --resume {folder.name} --runs {tmp_path}/runs" in error["message"]
    assert read_status(folder)["state"] == "interrupted"
    ledgers = list(folder.glob("holders/*/ledger.sqlite"))
    assert len(ledgers) == 2
    for path in ledgers:
        with read_only(path) as ledger:
            spent = ledger.spending()
        assert 0 < spent.charged < 50
        assert spent.reserved == 0 or engine == "ray"  # whose busy workers may not hear of it; going on lets it go
