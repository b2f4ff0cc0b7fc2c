"""What the ledger counts of answers that have no epsilon: exact figures, and refusals that depended on data."""

import datetime as dt
import json
import threading
from pathlib import Path

import pytest

from statfed.client.guard import chain
from statfed.client.guard.ledger import read_only
from statfed.core.errors import LedgerCorrupt, Refused, UsageError
from tests.ledgers import NOISY, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


class Clock(dt.datetime):
    """A clock that a test sets."""

    days = 0.0

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
        return dt.datetime(2030, 1, 1, tzinfo=tz) + dt.timedelta(days=cls.days)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(dt, "datetime", Clock)
    monkeypatch.setattr(Clock, "days", 0.0)
    return Clock


def test_the_same_question_about_the_same_data_is_counted_once_and_another_is_not(path: Path) -> None:
    with opened(path) as ledger:
        ledger.disclose("one", "study", 1, "mean", figures=6, what="mean of x, data of May")
        ledger.disclose("two", "study", 1, "mean", figures=6, what="mean of x, data of May")
        assert ledger.figures() == 6
        ledger.disclose("three", "study", 1, "mean", figures=6, what="mean of x, data of June")
        assert ledger.figures() == 12
        ledger.disclose("four", "study", 1, "mean", figures=9, what="mean of x, data of May")
        assert ledger.figures() == 15  # the most that was told under that name
        ledger.disclose("five", "study", 1, "mean", figures=2)
        ledger.disclose("six", "study", 1, "mean", figures=2)
        assert ledger.figures() == ledger.spending().figures == 19
        assert ledger.spending().disclosures == 6
    with read_only(path) as ledger:
        assert ledger.figures() == 19


def test_the_limit_of_figures_is_held_to_in_one_transaction_and_what_was_told_before_stays_free(path: Path) -> None:
    answers: list[str] = []

    def ask(number: int) -> None:
        with opened(path) as mine:
            try:
                mine.disclose(f"run-{number}", "study", 1, "", figures=3, what=f"question {number}", most=10)
                answers.append("told")
            except Refused as error:
                answers.append(f"refused: {error}")

    opened(path).close()
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.partition(":")[0] for answer in sorted(answers)] == ["refused"] * 5 + ["told"] * 3
    assert not any(sign.isdigit() for sign in "".join(answers))
    with opened(path) as ledger:
        assert ledger.figures() == 9
        known = next(iter(json.loads(e.facts)["what"] for e in ledger.entries() if e.kind == "disclose"))
        ledger.disclose("again", "study", 1, "", figures=3, what=known, most=9)
        with pytest.raises(Refused, match="exact figures"):
            ledger.disclose("more", "study", 1, "", figures=4, what=known, most=9)
        assert ledger.figures() == 9


def test_a_refusal_that_depended_on_data_ends_every_finite_epsilon(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 1, NOISY)
        ledger.charge("one", "study", 1, NOISY)
        assert ledger.spending().history_epsilon is not None
        head = ledger.refused("two", "study", "not allowed as asked")
        spent = ledger.spending()
        assert (spent.disclosures, spent.refusals, spent.history_epsilon, spent.head) == (1, 1, None, head)
        ledger.refused("two", "study", "not allowed as asked")
        assert ledger.refusals(1.0) == 2


def test_refusals_are_forgotten_after_their_days_and_not_before(path: Path, clock: type[Clock]) -> None:
    with opened(path) as ledger:
        ledger.refused("one", "study", "")
        clock.days = 5.0
        ledger.refused("two", "study", "")
        assert (ledger.refusals(4.0), ledger.refusals(6.0)) == (1, 2)
        clock.days = 20.0
        assert (ledger.refusals(4.0), ledger.refusals(16.0), ledger.refusals(21.0)) == (0, 1, 2)


def test_a_clock_that_goes_backwards_forgives_nothing(path: Path, clock: type[Clock]) -> None:
    with opened(path) as ledger:
        clock.days = 100.0
        ledger.refused("one", "study", "")
        clock.days = 0.0
        assert ledger.refusals(1.0) == 1  # an entry from the future is from now
        ledger.refused("two", "study", "")
        clock.days = 100.5
        assert ledger.refusals(1.0) == 2  # no entry is older than those before it
        clock.days = 102.0
        assert ledger.refusals(1.0) == 0


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan"), float("inf")])
def test_days_have_to_be_more_than_none(path: Path, days: float) -> None:
    with opened(path) as ledger, pytest.raises(UsageError, match="want more than 0"):
        ledger.refusals(days)


def test_a_negative_number_of_figures_is_refused_and_one_in_the_file_is_corruption(path: Path) -> None:
    with opened(path) as ledger, pytest.raises(UsageError, match="got -1 figures"):
        ledger.disclose("one", "study", 1, "", figures=-1)
    forged = chain.Chain(path, _Anything, writable=True)
    with forged.writing():
        forged.append("disclose", "one", "study", 1, facts={"figures": -5})
    forged.close()
    with pytest.raises(LedgerCorrupt, match="entry 2 was not written by this program"):
        read_only(path)


class _Anything:
    """A state that takes in every entry."""

    def apply(self, entry: chain.Entry) -> None:
        """Nothing to do."""
