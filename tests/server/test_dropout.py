"""Holders that drop out of training under secure aggregation, at every stage: in memory and as killed processes."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from numpy.typing import NDArray

from statfed.core.errors import Contradicted, EngineError
from statfed.core.progress import silent
from statfed.core.resolve import resolve_applicable
from statfed.core.statement import failure
from statfed.server.driver import Driven
from statfed.server.driver import drive as driven_by
from statfed.server.engine import Deployment, Session
from statfed.server.grid import inprocess, processes
from tests.conftest import toy_study, toy_terms

Homes = Callable[..., dict[str, Path]]
STAGES = ["ask", "keys", "share", "roster", "unmask"]
SURVIVE: dict[str, Any] = {"name": "secure-aggregation", "minimum_holders": 3}


def drive(homes: dict[str, Path], protection: dict[str, Any] = SURVIVE, run: str = "r", **options: Any) -> Driven:
    study = resolve_applicable(toy_terms(holders=4, rounds=3, protection=protection))
    return inprocess.run(
        Deployment(run, homes, Path("unused")),
        lambda session: driven_by(session, study, run, timeout=60, progress=silent),
        silent,
        **options,
    )


def model_of(done: Driven) -> NDArray[np.float32]:
    return np.asarray(done.result.arrays["model"], np.float32)


def silent_from(stage: str, number: int, *holders: str) -> Callable[[str, Message], str | None]:
    """A fault: `holders` are gone from `stage` of round `number` on."""
    gone: set[str] = set()

    def fault(holder: str, message: Message) -> str | None:
        said = json.loads(str(message.content.config_records["config"]["statement"]))
        at = said["stage"] or said["step"]
        if holder in holders and (at, said["round"]) == (stage, number):
            gone.add(holder)
        return f"{holder} was unplugged" if holder in gone else None

    return fault


@pytest.mark.parametrize(("stage", "number"), [(stage, 1) for stage in STAGES] + [("ask", 2), ("unmask", 2)])
def test_training_survives_a_holder_that_is_lost_at_any_stage(homes: Homes, stage: str, number: int) -> None:
    places = homes(toy_study(holders=4, protection=SURVIVE))
    done = drive(places, fault=silent_from(stage, number, "office-4"))
    assert len(done.sums) == 3
    assert np.isfinite(model_of(done)).all()
    assert set(done.closings) == {"office-1", "office-2", "office-3"}
    assert set(done.sums[-1].holder_seconds) == {"office-1", "office-2", "office-3"}


@pytest.mark.parametrize("stage", STAGES)
def test_a_holder_whose_log_contradicts_ends_the_run_that_could_do_without_it(homes: Homes, stage: str) -> None:
    places = homes(toy_study(holders=4, protection=SURVIVE))
    gone = silent_from(stage, 1, "office-4")

    def fault(holder: str, message: Message) -> str | None:
        return failure(Contradicted("audit: two histories")) if gone(holder, message) else None

    with pytest.raises(Contradicted, match="office-4: audit: two histories"):
        drive(places, fault=fault)


def test_below_the_threshold_the_run_ends_naming_who_is_missing(homes: Homes) -> None:
    places = homes(toy_study(holders=4, protection=SURVIVE))
    with pytest.raises(EngineError, match=r"(?s)no answer from office-3, office-4.*office-4: .*was unplugged"):
        drive(places, fault=silent_from("ask", 2, "office-3", "office-4"))


def test_where_every_holder_is_needed_the_first_that_is_lost_ends_the_run_with_its_own_words(homes: Homes) -> None:
    protection = {"name": "secure-aggregation", "minimum_holders": 4}
    places = homes(toy_study(holders=4, protection=protection))
    with pytest.raises(EngineError, match="office-4: office-4 was unplugged"):
        drive(places, protection=protection, fault=silent_from("ask", 2, "office-4"))


def test_training_under_secure_aggregation_is_training_in_clear(homes: Homes) -> None:
    clear = drive(homes(toy_study(holders=4)), protection={"name": "plain"})
    for run, minimum in (("three", 3), ("four", 4)):
        protection = {"name": "secure-aggregation", "minimum_holders": minimum}
        hidden = drive(homes(toy_study(holders=4, protection=protection)), protection, run)
        np.testing.assert_allclose(model_of(hidden), model_of(clear), atol=1e-5)


@pytest.mark.processes
def test_a_killed_holder_process_does_not_end_a_run_that_can_do_without_it(homes: Homes) -> None:
    places = homes(toy_study(holders=4, rounds=3, protection=SURVIVE))
    study = resolve_applicable(toy_terms(holders=4, rounds=3, protection=SURVIVE))
    deployment = Deployment("r", places, next(iter(places.values())).parent / "logs")

    def on_state(checkpoint: Any) -> None:
        if checkpoint.done == 1:
            os.kill(federation.processes.owned["office-4"].process.pid, signal.SIGKILL)

    def run(session: Session) -> Driven:
        return driven_by(session, study, "r", timeout=60, progress=silent, on_state=on_state)

    with processes.federation(deployment, silent) as federation:
        done = run(federation.session)
    assert len(done.sums) == 3
    assert set(done.sums[0].holder_seconds) == set(places)
    assert set(done.closings) == {"office-1", "office-2", "office-3"}
