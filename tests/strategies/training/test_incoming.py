"""Models that a coordinator sends: what a holder refuses ahead of its ledger and its data."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.method import Ask
from statfed.core.study import Study
from statfed.strategies.learning import rounds
from statfed.strategies.learning.incoming import LAYER, PARAMETER, check_model
from statfed.strategies.learning.local import get_vector
from statfed.strategies.learning.prepared import build
from tests.conftest import toy_study, toy_terms
from tests.office import Office, query
from tests.strategies.training.driven import driven, question_of
from tests.universe import people

QUESTION = question_of(toy_terms(model={"hidden": 6}))
HONEST: NDArray[np.float32] = get_vector(build(QUESTION, 1))


def spoiled(place: int | slice, value: float) -> NDArray[np.float32]:
    found = HONEST.copy()
    found[place] = value
    return found


CRAFTED: dict[str, tuple[NDArray[Any], str]] = {
    "a parameter that multiplies rounding": (spoiled(3, 1e17), "largest parameter of 1e.17"),
    "just above": (spoiled(-1, PARAMETER * 1.001), "want at most 1000"),
    "many large ones": (spoiled(slice(None), PARAMETER * 0.9), f"and {LAYER:g}"),
    "not finite": (spoiled(5, np.nan), "not finite"),
    "infinite": (spoiled(5, -np.inf), "not finite"),
    "another size": (HONEST[:-1], r"got parameters of shape \(\d+,\)"),
    "whole numbers": (HONEST.astype(np.int64), "floats"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_model_is_refused_where_an_honest_one_is_not(name: str) -> None:
    vector, message = CRAFTED[name]
    check_model(QUESTION, HONEST)
    check_model(QUESTION, HONEST * 50)
    with pytest.raises(Refused, match=message):
        check_model(QUESTION, vector)
    with pytest.raises(Refused, match=message):
        rounds.parts(QUESTION, Ask("fit", {"vector": vector}), {})


OPTIONS = {"target": "employed", "features": ["age", "income"], "model": {"name": "dense", "hidden": 4}, "rounds": 2}
STUDIES: dict[str, dict[str, Any]] = {
    "local-sgd": {"method": "local-sgd", "options": OPTIONS},
    "local-sgd, private": {"method": "local-sgd", "options": OPTIONS, "privacy": {"epsilon": 1.0, "delta": 1e-6}},
    "dp-fedsgd": {"method": "dp-fedsgd", "options": OPTIONS, "privacy": {"epsilon": 1.0, "delta": 1e-6}},
}


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    found = Office(tmp_path / "home", people(200))
    yield found
    found.close()


@pytest.mark.parametrize("name", STUDIES)
def test_a_holder_refuses_it_ahead_of_ledger_and_data(
    name: str, office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = query(**STUDIES[name])
    vector = get_vector(build(question_of(study), 1))
    office.say("admit", study)
    before = office.entries
    with monkeypatch.context() as patched:
        patched.setattr("statfed.client.contributions.Contributions.table", None)
        crafted = vector.copy()
        crafted[0] = 1e17
        office.refusal("ask", study, 1, "fit", {"vector": crafted})
        office.refusal("ask", study, 1, "fit", {"vector": vector[1:]})
    assert office.entries == before
    office.say("ask", study, 1, "fit", {"vector": vector})
    assert len(office.entries) == len(before) + 1


def homes_of(study: Study, homes: Any) -> dict[str, Path]:
    found: dict[str, Path] = homes(study)
    return found


def test_a_start_that_no_holder_would_take_is_said_at_once() -> None:
    start = {"model": spoiled(0, 1e6)}
    with pytest.raises(UsageError, match=r"start: model: layer 0.weight: got a largest parameter of 1e"):
        next(rounds.coordinate(QUESTION, start, rounds.averaged))


def test_a_run_that_leaves_the_bounds_ends_with_what_would_do(homes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    study = toy_study(rounds=3, training={"learning_rate": 0.1})
    monkeypatch.setattr(
        "statfed.strategies.learning.aggregation.aggregated", lambda _s, _n, start, _u: start * np.float32(1e6)
    )
    with pytest.raises(EngineError, match=r"round 1: the model diverged .*smaller learning_rate"):
        driven(study, homes_of(study, homes))
