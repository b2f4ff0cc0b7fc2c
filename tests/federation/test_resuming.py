"""Runs that are interrupted: one process works on a run, and no number of interruptions makes a study cost more."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flwr.app import Message

from statfed.client.guard.ledger import read_only
from statfed.core.errors import UsageError
from statfed.core.study import Study, make_study
from statfed.federation import Answer, Options, resume_study, run_study
from statfed.federation.runs import is_alive, read_status, working_in
from statfed.scenarios import time_use
from statfed.server.grid import inprocess
from tests.covering import each_value

ROUNDS = 4
PRIVATE = {"epsilon": 3.0, "delta": 1e-4}


class Killed(BaseException):
    """The coordinator is gone: nothing that comes after it runs."""


def study_of(**options: Any) -> Study:
    rounds = {"rounds": ROUNDS, "model": {"hidden": 4}, "batch_size": 16}
    data = {"source": "generated", "persons": 5, "records_per_person": 8, "test_persons": 2}
    return make_study(
        dict(time_use.STUDY) | {"holders": 2, "privacy": PRIVATE, "data": data, "options": rounds | options}
    )


class Faulty:
    """An engine in memory whose coordinator is killed at the message number `at`: before the holder has it, or after it
    answered. Nothing passes from then on."""

    def __init__(self, at: int, *, answered: bool) -> None:
        self.at, self.answered, self.seen = at, answered, 0

    def run(self, deployment: Any, drive: Any, progress: Any) -> Any:
        return inprocess.run(deployment, drive, progress, fault=self._before, tap=self._after)

    def _before(self, holder: str, message: Message) -> None:
        self.seen += 1
        if self.seen > self.at or (self.seen == self.at and not self.answered):
            raise Killed

    def _after(self, holder: str, message: Message, reply: Message) -> None:
        if self.seen >= self.at:
            raise Killed


def charges(folder: Path) -> list[tuple[int, int]]:
    """Sums charged, and sums set aside still, at each holder."""
    found = []
    for path in sorted(folder.glob("holders/*/ledger.sqlite")):
        with read_only(path) as ledger:
            spent = ledger.spending()
            found.append((spent.charged, spent.reserved))
    return found


def begun(root: Path, how: Callable[..., Answer], engine: Any, study: Study) -> Path | None:
    """The folder of a run whose process was killed; None where it ended before."""
    options = Options(root / "ws", root / "runs", fresh=True, references=False, engine=engine)
    with pytest.raises(Killed):
        how(study, options)
    (folder,) = (root / "runs").iterdir()
    return folder


def ended(folder: Path, root: Path, engine: Any = None) -> Answer | None:
    """The run's answer where it comes to an end."""
    options = Options(root / "ws", root / "runs", fresh=True, references=False, engine=engine)
    try:
        return resume_study(folder, options)
    except Killed:
        return None


# admission takes a message for each of two holders; then two for every sum, release last
@pytest.mark.parametrize(("at", "answered"), each_value([6, 7, 9, 11, 12], [False, True]))
def test_a_run_killed_at_any_message_costs_no_more_than_was_agreed(tmp_path: Path, at: int, answered: bool) -> None:
    folder = begun(tmp_path, run_study, Faulty(at, answered=answered), study_of(holdout=0.25))
    assert folder is not None
    answer = ended(folder, tmp_path)
    assert answer is not None
    assert all(one.study_epsilon is not None and one.study_epsilon <= PRIVATE["epsilon"] for one in answer.spending)
    assert all(charged <= ROUNDS + 1 and not reserved for charged, reserved in charges(folder))
    lost = ROUNDS + 1 - len([one for one in answer.sums if one.holder_seconds])
    assert lost <= 1
    assert len(answer.rounds) == ROUNDS + 1
    assert any("interrupted after holders had paid" in note for note in answer.result.notes) == (
        answer.result.tables["model"][0]["rounds"] != ROUNDS
    )


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.whole) for seed in (1, 2))])
def test_a_run_killed_again_and_again_costs_no_more_than_was_agreed(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    folder = begun(tmp_path, run_study, Faulty(5 + draw.randrange(4), answered=draw.random() < 0.5), study_of())
    assert folder is not None
    answer = None
    for _ in range(12):
        answer = ended(folder, tmp_path, Faulty(1 + draw.randrange(12), answered=draw.random() < 0.5))
        if answer:
            break
    answer = answer or ended(folder, tmp_path)
    assert answer is not None
    assert all(one.study_epsilon is not None and one.study_epsilon <= PRIVATE["epsilon"] for one in answer.spending)
    assert all(charged <= ROUNDS and not reserved for charged, reserved in charges(folder))


def test_a_run_without_privacy_goes_on_to_the_same_model_wherever_it_was_killed(tmp_path: Path) -> None:
    study = study_of().model_copy(update={"privacy": None})
    whole = run_study(study, Options(tmp_path / "ws", references=False))
    folder = begun(tmp_path, run_study, Faulty(6, answered=True), study)
    assert folder is not None
    answer = ended(folder, tmp_path)
    assert answer is not None
    assert (answer.model_digest, answer.result.notes) == (whole.model_digest, whole.result.notes)


def test_a_run_does_not_go_on_as_another_study_or_on_other_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    book = tmp_path / "book.toml"
    book.write_text(
        '[columns.y]\ntype = "number"\nlow = 0\nhigh = 9\n[columns.x]\ntype = "number"\nlow = 0\nhigh = 9\n'
    )
    sources = {}
    for name in ("a", "b"):
        sources[name] = str(tmp_path / f"{name}.parquet")
        pd.DataFrame({"x": rng.uniform(0, 9, 60), "y": rng.uniform(0, 9, 60)}).to_parquet(sources[name])
    options = {"features": ["x"], "target": "y", "rounds": ROUNDS, "model": {"hidden": 2}, "batch_size": 16}
    study = make_study({"method": "local-sgd", "holders": sources, "codebook": str(book), "options": options})
    folder = begun(tmp_path, run_study, Faulty(8, answered=True), study)
    assert folder is not None
    asked, data = folder / "study.toml", Path(sources["b"])
    before, stamp = (asked.read_text(encoding="utf-8"), data.read_bytes()), data.stat()
    asked.write_text(before[0].replace("batch_size = 16", "batch_size = 8"), encoding="utf-8")
    with pytest.raises(UsageError, match=r"study\.toml changed since it was interrupted"):
        ended(folder, tmp_path)
    asked.write_text(before[0], encoding="utf-8")
    pd.read_parquet(data).iloc[:50].to_parquet(data)
    with pytest.raises(UsageError, match="the data of b changed since it was interrupted"):
        ended(folder, tmp_path)
    data.write_bytes(before[1])
    os.utime(data, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as a backup puts it back
    assert ended(folder, tmp_path) is not None


def test_a_run_is_not_resumed_while_it_is_alive_and_is_after_its_process_was_killed(tmp_path: Path) -> None:
    source = f"""
import sys
from pathlib import Path
from statfed.federation import Options, run_study
from tests.federation.test_resuming import study_of

class Slow:
    def run(self, deployment, drive, progress):
        from statfed.server.grid import inprocess
        def tap(party, message, reply):
            if '"round":3' in str(message.content.config_records["config"]["statement"]):
                print("third", flush=True)
                sys.stdin.read()
        return inprocess.run(deployment, drive, progress, tap=tap)

root = Path({str(tmp_path)!r})
run_study(study_of(), Options(root / "ws", root / "runs", fresh=True, references=False, engine=Slow()))
"""
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "third\n"
        (folder,) = (tmp_path / "runs").iterdir()
        options = Options(tmp_path / "ws", tmp_path / "runs", references=False)
        before = charges(folder)
        with pytest.raises(UsageError, match="is running; want its end"):
            resume_study(folder, options)
        assert (read_status(folder)["state"], charges(folder), process.poll()) == ("running", before, None)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert read_status(folder)["state"] == "interrupted"
    answer = resume_study(folder, options)
    assert all(one.study_epsilon is not None and one.study_epsilon <= PRIVATE["epsilon"] for one in answer.spending)


def test_a_lock_is_its_holders_alone_and_goes_with_it(tmp_path: Path) -> None:
    assert not is_alive(tmp_path)
    with working_in(tmp_path):
        assert is_alive(tmp_path)
        with pytest.raises(UsageError, match="is running"), working_in(tmp_path):
            pass
    assert not is_alive(tmp_path)


def test_a_home_that_a_run_uses_is_not_changed_under_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"income": range(100)})
    frame.to_parquet(tmp_path / "a.parquet")
    asked = {"method": "mean", "options": {"columns": ["income"]}, "holders": {"a": str(tmp_path / "a.parquet")}}
    other = make_study(asked | {"simulation": {"lifetime_epsilon": 3.0}})
    options = Options(tmp_path / "ws")

    class Meanwhile:
        def run(self, deployment: Any, drive: Any, progress: Any) -> Any:
            same = run_study(make_study(asked), options)
            with pytest.raises(UsageError, match="under other rules or another budget"):
                run_study(other, options)
            return same, inprocess.run(deployment, drive, progress)

    class Inner:
        def run(self, deployment: Any, drive: Any, progress: Any) -> Any:
            return Meanwhile().run(deployment, drive, progress)[1]

    answer = run_study(make_study(asked), Options(tmp_path / "ws", engine=Inner()))
    assert answer.spending[0].budget_epsilon == run_study(make_study(asked), options).spending[0].budget_epsilon
    assert run_study(other, options).spending[0].budget_epsilon == 3.0


def test_a_workspace_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("income\n1\n2\n")
    (tmp_path / "ws").write_text("a file")
    asked = {"method": "mean", "options": {"columns": ["income"]}, "holders": {"a": str(tmp_path / "a.csv")}}
    with pytest.raises(UsageError, match=r"workspace: .*cannot be written"):
        run_study(make_study(asked), Options(tmp_path / "ws"))
    with pytest.raises(UsageError, match=r"runs: .*cannot be written"):
        run_study(make_study(asked), Options(tmp_path / "new", tmp_path / "ws"))
