"""Results that the coordinator keeps back on seeing totals tell of data: whoever asks has few of them."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from statfed.core.errors import Refused
from statfed.core.progress import silent
from statfed.core.resolve import resolve
from statfed.server.driver import drive
from statfed.server.engine import Deployment
from statfed.server.grid import inprocess
from statfed.strategies.protections import plain
from tests.attacks.analyst import bisected
from tests.attacks.population import changed
from tests.office import MEANS, PRIVATE, Office, query
from tests.universe import CODEBOOK, people

WIDE = changed(CODEBOOK, income={"high": 1e29})
"""Sums of squares of incomes are rounded to some 8,000: too coarse for those above an age of about 75."""
LIMIT, STEPS = 1, 6
COUNTED = {
    "refusals": {"explain": False},
    "limits": {"figures": 1_000_000, "refusals": LIMIT},
    "dataset": {"codebooks": [WIDE.digest()]},
}
Make = Callable[..., Office]


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Totals state what the words of a protection round them to, and travel in plain: so it is quick."""
    monkeypatch.setattr(plain, "REQUIRES", replace(plain.REQUIRES, fixed_point=True))
    made: list[Office] = []

    def make(**changes: dict[str, Any]) -> Office:
        made.append(Office(tmp_path / "office", people(200, 2), **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _total(office: Office, age: float, run: str) -> str:
    """What an analyst is told of the incomes from an age on, if not the answer."""
    study = resolve(query(method="total", options={"columns": ["income"]}, codebook=WIDE, where=(f"age >= {age}",)))
    try:
        inprocess.run(
            Deployment(run, {"office": office.home}, Path("unused")),
            lambda session: drive(session, study, run, timeout=60, progress=silent),
            silent,
        )
    except Refused as error:
        return str(error)
    return ""


def _bisected(office: Office) -> tuple[float, list[str]]:
    """The age from which incomes are too alike to be told, by whether there is an answer; and all that was told."""
    told: list[str] = []

    def above(age: float) -> bool:
        told.append(_total(office, age, f"run-{len(told)}"))
        return not told[-1]

    return bisected(above, 16.0, 80.0, STEPS), told


def test_bisecting_by_results_that_are_too_coarse_ends_with_the_limit_of_refusals(office: Make) -> None:
    asked = office(**COUNTED)
    _, told = _bisected(asked)
    coarse = [place for place, text in enumerate(told) if "totals that plain rounds" in text]
    after = told[coarse[-1] + 1 :]
    assert len(coarse) == LIMIT == asked.refused
    assert after
    assert all("limits.refusals" in text for text in after)


def test_without_a_limit_it_finds_what_no_answer_says(office: Make) -> None:
    asked = office()
    found, told = _bisected(asked)
    assert sum(map(bool, told)) > LIMIT
    assert not any("limits.refusals" in text for text in told)
    assert not _total(asked, found - 1.0, "below")
    assert _total(asked, found + 1.0, "above")


def test_a_run_without_a_result_is_counted_once_and_only_where_exact_totals_left(office: Make) -> None:
    asked = office()
    exact, private = query(**MEANS), query(method="mean", options={"columns": ["income"]}, **PRIVATE)
    asked.say("release", exact, run="none", withheld=True)
    asked.say("admit", private, run="noisy")
    asked.say("ask", private, 1, "noisy", run="noisy")
    asked.say("release", private, run="noisy", withheld=True)
    assert asked.refused == 0
    asked.say("admit", exact, run="exact")
    asked.say("ask", exact, 1, "means", run="exact")
    for _ in range(2):
        asked.say("release", exact, run="exact", withheld=True)
    assert asked.refused == 1
    with asked.holder.ledger() as ledger:
        assert ledger.spending().refusals == 1
        assert np.isfinite(ledger.spending().filter_epsilon)
