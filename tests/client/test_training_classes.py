"""Training without privacy: a class that too few persons have, which a model would tell."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from statfed.core.errors import Refused
from statfed.core.method import Question, read_question
from statfed.strategies.learning.local import get_vector
from statfed.strategies.learning.prepared import build
from tests.office import Office, query
from tests.universe import people

OPTIONS = {"target": "region", "features": ["age", "hours"], "model": {"name": "dense", "hidden": 1}, "rounds": 1}
RULES = {"disclosure": {"minimum_frequency": 5}}


def of_persons(persons: int, seed: int) -> pd.DataFrame:
    """12 records of the last region, of so many persons; every other person has one record."""
    frame = people(200, seed)
    last = sorted(frame["region"].dropna().unique())[-1]
    others = frame[frame["region"] != last].copy()
    few = frame.dropna().iloc[:12].copy().assign(region=last)
    few["person"] = [f"few {i % persons}" for i in range(12)]
    others["person"] = [f"other {i}" for i in range(len(others))]
    return pd.concat([others, few], ignore_index=True)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Callable[..., Office]]:
    made: list[Office] = []

    def make(frame: pd.DataFrame, **changes: Any) -> Office:
        made.append(Office(tmp_path / f"home{len(made)}", frame, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def trained(office: Office) -> bool:
    """Does an update of one round leave?"""
    study = query(method="local-sgd", options=OPTIONS)
    question: Question[Any] = read_question(study)[1]
    vector = get_vector(build(question, 1))
    office.say("admit", study)
    try:
        office.say("ask", study, 1, "fit", {"vector": np.asarray(vector)})
    except Refused:
        return False
    return True


@pytest.mark.parametrize(("persons", "leaves"), [(1, False), (4, False), (6, True)])
def test_a_class_of_too_few_persons_is_refused_however_many_records_they_have(
    persons: int, leaves: bool, office: Callable[..., Office]
) -> None:
    assert trained(office(of_persons(persons, 1))), "without rules it leaves"
    assert trained(office(of_persons(persons, 2), **RULES)) == leaves
