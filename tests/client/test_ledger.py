"""The privacy ledger: the gate, replays, what is on record."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from statfed.client.guard.ledger import read_only
from statfed.core.errors import Refused, UsageError
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import DiscreteLaplace, Event, Gaussian
from statfed.core.privacy.filters import Budget
from statfed.core.privacy.spending import Reservation
from tests.ledgers import CLEARER, DELTA, NOISY, filled, opened

# --- the gate


BUDGET = Budget(1.0, DELTA)


def test_the_gate_counts_a_share_of_the_budget_and_says_what_more_it_admits(path: Path) -> None:
    """Not an epsilon with the whole cost of the conversion in it, which made a first small study look like a third of
    the budget."""
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY)
        spent = ledger.spending("one")
        assert spent.order == filters.order_of(1.0, DELTA)
        assert spent.share == filters.share([NOISY] * 3, BUDGET)
        assert spent.filter_epsilon == privacy.renyi_epsilon([NOISY] * 3, DELTA)
        assert spent.filter_epsilon < 1.12 * privacy.epsilon([NOISY] * 3, DELTA)
        assert spent.left == filters.largest([NOISY] * 3, BUDGET)
        assert (spent.charged, spent.reserved, spent.single, spent.study_epsilon) == (0, 3, False, 0.0)
        ledger.charge("one", "study", 2, NOISY)
        ledger.release("one")
        ledger.reserve("two", "study", 1, CLEARER)
        after = ledger.spending("one")
        assert after.order == spent.order
        assert after.share == filters.share([NOISY, CLEARER], BUDGET)
        assert after.study_epsilon == after.history_epsilon == privacy.epsilon([NOISY], DELTA)
        assert ledger.spending("one", delta=1e-7).study_epsilon == privacy.epsilon([NOISY], 1e-7)


def test_as_many_more_are_admitted_as_the_ledger_says(path: Path) -> None:
    like = Reservation(((CLEARER, 2), (NOISY, 1)))
    with opened(path) as ledger:
        ledger.reserve("first", "study", 3, NOISY)
        said = ledger.more_like(like)
        assert said == filters.more_like([NOISY] * 3, privacy.composed([CLEARER, CLEARER, NOISY]), BUDGET) > 1
        for number in range(said):
            assert ledger.more_like(like) == said - number
            ledger.set_aside(f"run-{number}", "study", like)
        assert ledger.more_like(like) == 0
        with pytest.raises(Refused, match="privacy budget"):
            ledger.set_aside("one too many", "study", like)


def test_pure_studies_may_add_up_to_the_whole_budget_and_then_nothing_more_is_admitted(path: Path) -> None:
    """Their epsilons are a filter of their own, with no part of delta; beside Gaussian noise it says nothing."""
    quarter = DiscreteLaplace(scale=4.0, sensitivity=1)
    with opened(path) as ledger:
        for number in range(4):
            ledger.reserve(f"run-{number}", "study", 1, quarter)
        assert ledger.spending().share == 1.0
        assert filters.share([quarter] * 4, BUDGET) == 1.0 < filters.share([quarter] * 5, BUDGET)
        for event in (quarter, Gaussian(noise_multiplier=1e3)):
            with pytest.raises(Refused, match=r"lifetime budget would be taken; want at most 100 %"):
                ledger.reserve("more", "study", 1, event)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from([NOISY, CLEARER])), min_size=1, max_size=5))
def test_refused_exactly_when_the_filter_passes_the_budget(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[int, Gaussian]]
) -> None:
    taken: list[Event] = []
    with opened(tmp_path_factory.mktemp("gate") / "ledger.sqlite") as ledger:
        for index, (rounds, event) in enumerate(asked):
            new = [*taken, *[event] * rounds]
            before = ledger.spending()
            fits = filters.fits(new, BUDGET) and not before.single
            single = not taken and not before.single and not fits and privacy.epsilon(new, DELTA) <= 1.0
            if fits or single:
                ledger.reserve(f"run-{index}", "study", rounds, event)
                taken = new
            else:
                with pytest.raises(Refused, match=r"privacy budget: asked epsilon .* spent .*left"):
                    ledger.reserve(f"run-{index}", "study", rounds, event)
                assert ledger.spending() == before
            assert ledger.spending().single == (single or before.single)


@pytest.fixture(scope="module")
def exact() -> Event:
    """Five rounds of it cost epsilon 1 by the PLD, and more by any filter."""
    return privacy.dp_sgd(0.05, privacy.calibrate(0.05, 50, 1.0, DELTA), 10)


def test_a_study_of_the_whole_budget_is_admitted_as_the_only_one(path: Path, exact: Event) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 5, exact)
        spent = ledger.spending()
        assert spent.single
        assert spent.order is None
        assert 0.99 < spent.filter_epsilon <= 1.0
        assert spent.left == 0.0
        with pytest.raises(Refused, match=r"asked epsilon 0\.0\d+ more.*budget of epsilon 1 at.*spent 0,.*left 0"):
            ledger.reserve("two", "study", 1, NOISY)
        ledger.charge("one", "study", 1, exact)
        ledger.release("one")
        assert ledger.spending().left == 0.0
        with pytest.raises(Refused, match="single study"):
            ledger.reserve("two", "study", 1, NOISY)
    with opened(path, epsilon=50.0) as ledger, pytest.raises(Refused, match="single study"):
        ledger.reserve("two", "study", 1, NOISY)


def test_a_single_study_released_without_a_charge_leaves_the_ledger_as_new(path: Path, exact: Event) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 5, exact)
        ledger.release("one")
        assert ledger.spending().left == 1.0
        ledger.reserve("two", "study", 1, NOISY)
        assert ledger.spending().order == filters.order_of(1.0, DELTA)
        ledger.release("two")
        ledger.reserve("three", "study", 5, exact)
        assert ledger.spending().single
        ledger.verify()


def test_no_study_becomes_single_beside_another(path: Path, exact: Event) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 1, NOISY)
        with pytest.raises(Refused, match=r"want at most 100 % of epsilon 1 at delta 1e-05"):
            ledger.reserve("two", "study", 5, exact)


# --- reserve, charge, disclose, release


def test_a_charge_needs_a_matching_outstanding_reservation(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 3, NOISY)
        refused: list[tuple[tuple[str, str, int, Event], str]] = [
            (("two", "study", 1, NOISY), "got no outstanding reservation"),
            (("one", "other", 1, NOISY), "got no outstanding reservation"),
            (("one", "study", 0, NOISY), "got round 0; want one of the 3"),
            (("one", "study", 4, NOISY), "got round 4; want one of the 3"),
            (("one", "study", 1, CLEARER), "got event .*15.*; want the reserved .*40"),
        ]
        for call, message in refused:
            with pytest.raises(Refused, match=message):
                ledger.charge(*call)
        ledger.charge("one", "study", 3, NOISY)
        with pytest.raises(Refused, match="round 3 of run one was already charged; want a new round"):
            ledger.charge("one", "study", 3, NOISY)
        ledger.release("one")
        with pytest.raises(Refused, match="round 3 of run one was already charged; want a new round"):
            ledger.charge("one", "study", 3, NOISY)
        with pytest.raises(Refused, match="got no outstanding reservation"):
            ledger.charge("one", "study", 1, NOISY)
        assert ledger.spending().entries == 4


def test_retries_add_nothing(path: Path) -> None:
    with opened(path) as ledger:
        head = ledger.reserve("one", "study", 3, NOISY)
        assert ledger.reserve("one", "study", 3, NOISY) == head
        with pytest.raises(Refused, match="run one already has a reservation"):
            ledger.reserve("one", "study", 4, NOISY)
        assert ledger.release("unknown") == head
        assert (released := ledger.release("one")) == ledger.release("one") == ledger.head() != head
        with pytest.raises(Refused, match="run one already has a reservation"):
            ledger.reserve("one", "study", 3, NOISY)
        assert ledger.verify(head) == released


def test_each_round_is_disclosed_once(path: Path) -> None:
    with opened(path) as ledger:
        ledger.disclose("one", "study", 1, "model without noise")
        with pytest.raises(Refused, match="round 1 of run one was already disclosed; want a new round"):
            ledger.disclose("one", "study", 1, "again")
        ledger.disclose("one", "study", 2, "model without noise")
        assert ledger.spending().disclosures == 2
        assert ledger.spending().filter_epsilon == 0.0


@pytest.mark.parametrize("bad", [{"run": "\ud800"}, {"round": -1}, {"round": 2**63}, {"note": "\udfff"}])
def test_what_cannot_be_stored_is_wrong_usage_and_leaves_nothing(path: Path, bad: dict[str, Any]) -> None:
    with opened(path) as ledger:
        call: dict[str, Any] = {"run": "one", "study": "s", "round": 1, "note": ""} | bad
        with pytest.raises(UsageError, match="ledger: got round"):
            ledger.disclose(**call)
        assert ledger.spending().entries == 1
        ledger.disclose("one", "s", 1, "")


class Interleavings(RuleBasedStateMachine):
    """Any order of calls of three runs, with reopening, against a plain model of what is spent."""

    folder: Path
    count = 0

    @initialize()
    def start(self) -> None:
        type(self).count += 1
        self.path = self.folder / f"{self.count}.sqlite"
        self.ledger = opened(self.path)
        self.held: dict[str, tuple[int, Gaussian]] = {}
        self.charged: dict[str, set[int]] = {}
        self.spent = 0.0

    @rule(run=st.sampled_from("abc"), rounds=st.integers(1, 12), event=st.sampled_from([NOISY, CLEARER]))
    def reserve(self, run: str, rounds: int, event: Gaussian) -> None:
        try:
            self.ledger.reserve(run, "study", rounds, event)
        except Refused:
            return
        self.held[run] = (rounds, event)
        self.charged.setdefault(run, set())

    @rule(run=st.sampled_from("abc"), round=st.integers(1, 4))
    def charge(self, run: str, round: int) -> None:
        rounds, event = self.held.get(run, (0, NOISY))
        if round <= rounds and round not in self.charged[run]:
            self.ledger.charge(run, "study", round, event)
            self.charged[run].add(round)
        else:
            with pytest.raises(Refused):
                self.ledger.charge(run, "study", round, event)

    @rule(run=st.sampled_from("abc"))
    def release(self, run: str) -> None:
        self.ledger.release(run)
        self.held.pop(run, None)

    @rule()
    def reopen(self) -> None:
        self.ledger.close()
        self.ledger = opened(self.path)

    @invariant()
    def spending_is_that_of_the_model_within_the_budget_and_never_falls(self) -> None:
        spent = self.ledger.spending()
        assert spent.charged == sum(map(len, self.charged.values()))
        assert spent.reserved == sum(rounds - len(self.charged[run]) for run, (rounds, _) in self.held.items())
        assert spent.history_epsilon is not None
        assert spent.history_epsilon >= self.spent - 1e-9
        assert spent.history_epsilon <= spent.filter_epsilon * 1.001 <= 1.001
        assert spent.share <= 1.0
        self.spent = spent.history_epsilon

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.verify()
            self.ledger.close()


def test_any_interleaving_of_runs_is_counted_once(tmp_path: Path) -> None:
    Interleavings.folder = tmp_path
    run_state_machine_as_test(
        Interleavings, settings=settings(max_examples=12, stateful_step_count=15, deadline=None, derandomize=True)
    )


# --- opening


def test_the_file_is_private_and_is_for_one_dataset_and_unit(path: Path) -> None:
    filled(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {other.name for other in path.parent.iterdir()} == {path.name, "ledger.opened"}
    with pytest.raises(Refused, match="ledger of dataset toy per person; want dataset other per person"):
        opened(path, dataset="other")
    with pytest.raises(Refused, match="ledger of dataset toy per person; want dataset toy per record"):
        opened(path, unit="record")
    with pytest.raises(UsageError, match="ledger not found"):
        opened(path.with_name("none"), create=False)
    with pytest.raises(UsageError, match="budget: got epsilon inf"):
        opened(path, epsilon=float("inf"))


def test_a_changed_budget_is_on_record_and_governs(path: Path) -> None:
    with opened(path) as ledger:
        ledger.reserve("one", "study", 8, NOISY)
        ledger.charge("one", "study", 1, NOISY)
    opened(path).close()
    with opened(path, epsilon=0.1) as ledger:
        last = ledger.entries()[-1]
        assert (last.kind, last.facts, last.note) == (
            "budget",
            '{"delta":1e-05,"epsilon":0.1}',
            "was epsilon 1 at delta 1e-05",
        )
        assert last.seq == 4
        with pytest.raises(Refused, match=r"changed privacy budget: got epsilon .* want at most epsilon 0.1"):
            ledger.charge("one", "study", 2, NOISY)
    with opened(path, epsilon=2.0) as ledger:
        ledger.charge("one", "study", 2, NOISY)
        assert ledger.spending().budget == 2.0


def test_read_only_shows_all_and_writes_nothing(path: Path) -> None:
    head = filled(path)
    before = path.read_bytes()
    with read_only(path) as ledger:
        assert (ledger.dataset, ledger.unit, ledger.verify(head)) == ("toy", "person", head)
        kinds = [entry.kind for entry in ledger.entries()]
        assert kinds == ["open", "reserve", "charge", "charge", "disclose", "release", "reserve"]
        assert ledger.spending().budget == 1.0
        with pytest.raises(UsageError, match="cannot be written"):
            ledger.disclose("x", "y", 1, "z")
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="ledger not found"):
        read_only(path.with_name("none"))
