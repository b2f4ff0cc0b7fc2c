"""The ledger's reservations of several asks, and of a budget that is spent in shares: charged once, never beyond."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from statfed.client.guard import chain
from statfed.client.guard.ledger import Ledger, Spending, read_only
from statfed.core.errors import LedgerCorrupt, Refused, UsageError
from statfed.core.privacy import accountant as privacy
from statfed.core.privacy import filters
from statfed.core.privacy.accountant import DiscreteLaplace, Event, Gaussian
from statfed.core.privacy.spending import Reservation
from tests.ledgers import CLAIM, CLEARER, DELTA, NOISY, opened

THIRD = Gaussian(noise_multiplier=30.0)
MIXED = Reservation(((NOISY, 3), (THIRD, 1), (CLEARER, 2)))
ASKS: list[Event] = [*[NOISY] * 3, THIRD, *[CLEARER] * 2]
HELD = privacy.renyi_epsilon([CLEARER], DELTA)
"""What the gate counts for a whole CLAIM."""


def reopened(path: Path, ledger: Ledger) -> Ledger:
    """The ledger, read anew from its file; what it says must not change by that."""
    before = ledger.spending("one")
    ledger.close()
    with read_only(path) as shown:
        assert shown.spending("one") == before
    found = opened(path)
    assert found.spending("one") == before
    return found


# ---- several asks


@settings(max_examples=20, deadline=None)
@given(st.permutations(ASKS), st.permutations(range(1, 7)))
def test_asks_are_charged_in_any_order_each_as_often_as_it_was_set_aside(
    tmp_path_factory: pytest.TempPathFactory, order: Sequence[Event], numbers: Sequence[int]
) -> None:
    path = tmp_path_factory.mktemp("asks") / "ledger.sqlite"
    ledger = opened(path)
    ledger.set_aside("one", "study", MIXED, "two kinds")
    whole = ledger.spending("one")
    assert (whole.reserved, whole.charged) == (6, 0)
    assert whole.filter_epsilon == privacy.renyi_epsilon(ASKS, DELTA)
    for count, (event, number) in enumerate(zip(order, numbers, strict=True), start=1):
        ledger.charge("one", "study", number, event)
        with pytest.raises(Refused, match=f"round {number} of run one was already charged"):
            ledger.charge("one", "study", number, event)
        ledger = reopened(path, ledger)
        spent = ledger.spending("one")
        assert (spent.charged, spent.reserved) == (count, 6 - count)
        assert spent.filter_epsilon == whole.filter_epsilon  # what is charged was counted before
        assert spent.study_epsilon == pytest.approx(privacy.epsilon(order[:count], DELTA), rel=1e-12)
    with pytest.raises(Refused, match="want one of the 6 reserved rounds"):
        ledger.charge("one", "study", 7, NOISY)
    ledger.verify()
    ledger.close()


def test_an_ask_more_often_than_set_aside_is_refused_although_rounds_are_left(path: Path) -> None:
    with opened(path) as ledger:
        ledger.set_aside("one", "study", MIXED)
        ledger.charge("one", "study", 1, THIRD)
        with pytest.raises(Refused, match=r"round 2 of run one: got event .*30.*; want the reserved .* or .*"):
            ledger.charge("one", "study", 2, THIRD)
        with pytest.raises(Refused, match="got event"):
            ledger.charge("one", "study", 2, Gaussian(noise_multiplier=41.0))  # less than was reserved, but not that
        with pytest.raises(Refused, match="got no outstanding reservation of this study"):
            ledger.charge("one", "other", 2, NOISY)
        ledger.charge("one", "study", 2, NOISY)
        ledger.release("one")
        with pytest.raises(Refused, match="got no outstanding reservation"):
            ledger.charge("one", "study", 3, NOISY)
        spent = ledger.spending("one")
        assert (spent.charged, spent.reserved) == (2, 0)
        assert spent.filter_epsilon == privacy.renyi_epsilon([THIRD, NOISY], DELTA)
        assert ledger.entries()[-1].facts == '{"freed":4}'


def test_asks_with_equal_noise_are_set_aside_as_often_as_all_of_them_are_made(path: Path) -> None:
    """Two asks of a method may have the same event: their counts add up, and neither hides the other."""
    with opened(path) as ledger:
        ledger.set_aside("one", "study", Reservation(((NOISY, 2), (THIRD, 1), (NOISY, 3))))
        spent = ledger.spending()
        assert spent.reserved == 6
        assert spent.filter_epsilon == privacy.renyi_epsilon([NOISY] * 5 + [THIRD], DELTA)
        for number in range(1, 6):
            ledger.charge("one", "study", number, NOISY)
        with pytest.raises(Refused, match="got event"):
            ledger.charge("one", "study", 6, NOISY)


def test_setting_aside_again_adds_nothing_and_other_terms_are_refused(path: Path) -> None:
    with opened(path) as ledger:
        for reservation, other in ((MIXED, CLAIM), (CLAIM, Reservation((), CLEARER, 11))):
            run = "adaptive" if reservation is CLAIM else "fixed"
            head = ledger.set_aside(run, "study", reservation)
            assert ledger.set_aside(run, "study", reservation) == head
            for changed in (other, Reservation(((CLEARER, 1),)), Reservation(((CLEARER, 10),))):
                with pytest.raises(Refused, match=f"run {run} already has a reservation"):
                    ledger.set_aside(run, "study", changed)
            with pytest.raises(Refused, match="already has a reservation"):
                ledger.set_aside(run, "another study", reservation)
            ledger.release(run)
            with pytest.raises(Refused, match="already has a reservation"):
                ledger.set_aside(run, "study", reservation)


@pytest.mark.parametrize("nothing", [Reservation(), Reservation((), CLEARER, 0)])
def test_setting_aside_nothing_is_wrong_usage(path: Path, nothing: Reservation) -> None:
    with opened(path) as ledger:
        with pytest.raises(UsageError, match="got 0 rounds; want a named run and at least one round"):
            ledger.set_aside("one", "study", nothing)
        with pytest.raises(UsageError, match="want a named run"):
            ledger.set_aside("", "study", MIXED)
        assert ledger.spending().entries == 1


# ---- a budget that is spent in shares


def test_the_whole_claim_counts_until_it_is_released_and_then_what_was_charged(path: Path) -> None:
    ledger = opened(path)
    ledger.set_aside("one", "study", CLAIM, "adaptive")
    spent = ledger.spending("one")
    assert (spent.filter_epsilon, spent.reserved, spent.single) == (HELD, 10, False)
    assert (spent.study_epsilon, spent.history_epsilon) == (0.0, 0.0)
    for number in (4, 1, 9):
        ledger.charge("one", "study", number, NOISY)
        ledger = reopened(path, ledger)
        assert ledger.spending("one").filter_epsilon == HELD
    during = ledger.spending("one")
    ledger.release("one")
    ledger = reopened(path, ledger)
    after = ledger.spending("one")
    assert after.filter_epsilon == privacy.renyi_epsilon([NOISY] * 3, DELTA) < HELD
    assert after.study_epsilon == during.study_epsilon == privacy.zcdp_epsilon(3 * privacy.rho(NOISY), DELTA)
    assert after.history_epsilon == after.filter_epsilon  # no tight composition for what was chosen on the way
    assert ledger.entries()[-1].facts == '{"freed":7}'
    ledger.verify()
    ledger.close()


def test_shares_beyond_what_is_left_are_refused_and_smaller_ones_still_taken(path: Path) -> None:
    with opened(path) as ledger:
        ledger.set_aside("one", "study", CLAIM)
        for number in range(1, 7):
            ledger.charge("one", "study", number, NOISY)
        before = ledger.spending()
        with pytest.raises(
            Refused, match=r"round 7 of run one: got 0\.25 of the study's budget; want at most the 0\.1"
        ):
            ledger.charge("one", "study", 7, THIRD)
        assert ledger.spending() == before
        ledger.charge("one", "study", 7, NOISY)
        with pytest.raises(Refused, match=r"got 0\.1406 of .*; want at most the 0\.0156"):
            ledger.charge("one", "study", 8, NOISY)
        ledger.charge("one", "study", 8, Gaussian(noise_multiplier=15.0 / 0.0156**0.5))
        ledger.verify()


def test_what_is_no_share_at_all_is_refused(path: Path) -> None:
    """Pure noise and sampled steps have no rho: they cannot be added up with shares."""
    with opened(path) as ledger:
        ledger.set_aside("one", "study", CLAIM)
        for event in (DiscreteLaplace(scale=1e4, sensitivity=1), privacy.dp_sgd(0.001, 50.0, 1)):
            with pytest.raises(Refused, match="got inf of the study's budget"):
                ledger.charge("one", "study", 1, event)
        for number, message in ((0, "got round 0; want one of the 10"), (11, "got round 11; want one of the 10")):
            with pytest.raises(Refused, match=message):
                ledger.charge("one", "study", number, NOISY)
        with pytest.raises(Refused, match="got no outstanding reservation of this study"):
            ledger.charge("one", "other", 1, NOISY)
        ledger.charge("one", "study", 1, NOISY)
        with pytest.raises(Refused, match="round 1 of run one was already charged"):
            ledger.charge("one", "study", 1, THIRD)
        ledger.release("one")
        with pytest.raises(Refused, match="got no outstanding reservation"):
            ledger.charge("one", "study", 2, NOISY)


def test_pure_shares_add_up_to_the_epsilon_of_their_claim(path: Path) -> None:
    claimed = privacy.claim("discrete-laplace", 0.5, 0.0)
    with opened(path) as ledger:
        ledger.set_aside("one", "study", Reservation((), claimed, 10))
        for number in (1, 2):
            ledger.charge("one", "study", number, DiscreteLaplace(scale=5.0, sensitivity=1))
        with pytest.raises(Refused, match=r"got 0\.2222 of the study's budget; want at most the 0\.2 "):
            ledger.charge("one", "study", 3, DiscreteLaplace(scale=9.0, sensitivity=1))
        ledger.charge("one", "study", 3, DiscreteLaplace(scale=10.0, sensitivity=1))
        assert ledger.spending("one", delta=0.0).study_epsilon == pytest.approx(0.5, rel=1e-12)
        assert ledger.spending("one", delta=1e-6).study_epsilon == pytest.approx(0.5, rel=1e-12)


def test_attempts_of_one_run_add_their_shares_up(path: Path) -> None:
    with opened(path, epsilon=3.0) as ledger:
        for run in ("a", "a~2", "b"):
            ledger.set_aside(run, "study", CLAIM)
            ledger.charge(run, "study", 1, NOISY)
            ledger.release(run)
        assert ledger.spending("a").study_epsilon == privacy.zcdp_epsilon(2 * privacy.rho(NOISY), DELTA)
        assert ledger.spending("b").study_epsilon == privacy.zcdp_epsilon(privacy.rho(NOISY), DELTA)


def test_attempts_side_by_side_are_charged_together_no_more_than_was_set_aside_once(path: Path) -> None:
    with opened(path, epsilon=20.0) as ledger:
        for run in ("a", "a~2", "b"):
            ledger.set_aside(run, "study", MIXED)
        ledger.charge("a", "study", 1, THIRD)
        with pytest.raises(Refused, match="once more than all attempts of this run may together"):
            ledger.charge("a~2", "study", 2, THIRD)
        ledger.charge("a~2", "study", 2, NOISY)
        ledger.charge("b", "study", 1, THIRD)
        ledger.verify()


def test_a_run_ends_once_for_its_study_in_all_attempts(path: Path) -> None:
    with opened(path) as ledger:
        head = ledger.head()
        assert ledger.release("a", "study", over=True) == head  # it was given nothing
        ledger.disclose("a", "study", 1, "", what="figures")
        assert (ledger.given("a~2", "study", 1), ledger.given("a", "study", 1)) == ({"a": "figures"}, {})
        assert not ledger.is_over("a", "study")
        assert ledger.release("a~2", "study", over=True) == ledger.release("a", "study", over=True)
        assert [ledger.is_over(run, "study") for run in ("a", "a~7", "b")] == [True, True, False]
        assert not ledger.is_over("a", "other")
    with read_only(path) as shown:
        assert shown.is_over("a", "study")
        assert [entry.kind for entry in shown.entries()] == ["open", "disclose", "release"]


def test_a_budget_of_shares_is_never_the_single_study_of_a_ledger(path: Path) -> None:
    """That rule composes privacy losses, which is for asks that were fixed beforehand."""
    sigma = next(s / 100 for s in range(300, 2000) if privacy.epsilon([Gaussian(noise_multiplier=s / 100)], DELTA) <= 1)
    event = Gaussian(noise_multiplier=sigma)
    assert not filters.fits([event], filters.Budget(1.0, DELTA))
    with opened(path) as ledger:
        with pytest.raises(Refused, match=r"privacy budget: asked epsilon .* want at most 100 % of epsilon 1 at"):
            ledger.set_aside("one", "study", Reservation((), event, 10))
        assert ledger.spending().entries == 1
        ledger.set_aside("two", "study", Reservation(((event, 1),)))
        assert ledger.spending().single
        with pytest.raises(Refused, match="single study"):
            ledger.set_aside("three", "study", CLAIM)


def test_another_study_waits_for_a_claim_to_be_released(path: Path) -> None:
    """A claim counts in full however little of it was taken, and no longer when it is given back."""
    with opened(path) as ledger:
        held = 0
        for held in range(50):
            try:
                ledger.set_aside(f"run-{held}", "study", CLAIM)
            except Refused as error:
                assert "privacy budget: asked epsilon" in str(error)  # noqa: PT017
                break
        assert 1 < held < 50
        ledger.charge("run-0", "study", 1, Gaussian(noise_multiplier=1e4))
        with pytest.raises(Refused, match="privacy budget: asked epsilon"):
            ledger.set_aside("last", "study", CLAIM)
        ledger.release("run-0")
        ledger.set_aside("last", "study", CLAIM)


def test_a_budget_that_is_lowered_during_a_run_covers_each_further_share(path: Path) -> None:
    with opened(path) as ledger:
        ledger.set_aside("one", "study", CLAIM)
        ledger.charge("one", "study", 1, NOISY)
    with opened(path, epsilon=0.1) as ledger, pytest.raises(Refused, match=r"changed privacy budget: got epsilon"):
        ledger.charge("one", "study", 2, NOISY)
    with opened(path) as ledger:
        ledger.charge("one", "study", 2, NOISY)


class Shares(RuleBasedStateMachine):
    """Any order of calls of an adaptive run and one of several asks, with reopening, against a plain model."""

    folder: Path
    count = 0

    @initialize()
    def start(self) -> None:
        type(self).count += 1
        self.path = self.folder / f"{self.count}.sqlite"
        self.ledger = opened(self.path, epsilon=1.5)
        self.left: Any = {}
        self.numbers: dict[str, set[int]] = {"shares": set(), "asks": set()}
        self.charged: list[Event] = []
        self.last: Spending | None = None

    @rule(run=st.sampled_from(["shares", "asks"]))
    def set_aside(self, run: str) -> None:
        try:
            self.ledger.set_aside(run, "study", CLAIM if run == "shares" else Reservation(((NOISY, 2), (THIRD, 2))))
        except Refused:
            return
        self.left.setdefault(run, 1.0 if run == "shares" else Counter({NOISY: 2, THIRD: 2}))

    @rule(run=st.sampled_from(["shares", "asks"]), number=st.integers(1, 11), event=st.sampled_from([NOISY, THIRD]))
    def charge(self, run: str, number: int, event: Gaussian) -> None:
        left: Any = self.left.get(run)
        taken = (15.0 / event.noise_multiplier) ** 2
        fits = left is not None and number not in self.numbers[run] and number <= (10 if run == "shares" else 4)
        fits = fits and bool(taken <= left + 1e-9 if run == "shares" else left[event])
        if not fits:
            with pytest.raises(Refused):
                self.ledger.charge(run, "study", number, event)
            return
        self.ledger.charge(run, "study", number, event)
        self.numbers[run].add(number)
        self.charged.append(event)
        if run == "shares":
            self.left[run] = left - taken
        else:
            self.left[run][event] -= 1

    @rule(run=st.sampled_from(["shares", "asks"]))
    def release(self, run: str) -> None:
        self.ledger.release(run)
        self.left.pop(run, None)

    @rule()
    def reopen(self) -> None:
        before = self.ledger.spending("shares")
        self.ledger.close()
        self.ledger = opened(self.path, epsilon=1.5)
        assert self.ledger.spending("shares") == before

    @invariant()
    def what_is_charged_is_within_what_the_gate_counts_and_that_within_the_budget(self) -> None:
        spent = self.ledger.spending("shares")
        assert spent.charged == len(self.charged)
        assert spent.filter_epsilon <= 1.5
        if self.charged:
            least = privacy.renyi_epsilon(self.charged, DELTA)
            assert spent.filter_epsilon >= least - 1e-12
        assert spent.history_epsilon is not None
        assert spent.history_epsilon <= spent.filter_epsilon + 1e-12

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.verify()
            self.ledger.close()


def test_any_interleaving_of_shares_and_asks_is_counted_once(tmp_path: Path) -> None:
    Shares.folder = tmp_path
    run_state_machine_as_test(
        Shares, settings=settings(max_examples=15, stateful_step_count=20, deadline=None, derandomize=True)
    )


# ---- edits


def _edited(statement: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        db = sqlite3.connect(path, isolation_level=None)
        triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type='trigger'").fetchall()
        for name, _ in triggers:
            db.execute(f"DROP TRIGGER {name}")
        assert db.execute(statement).rowcount == 1
        for _, sql in triggers:
            db.execute(sql)
        db.close()

    return edit


@pytest.mark.parametrize(
    ("edit", "entry"),
    [
        (_edited("UPDATE entries SET event = replace(event, '15.0', '9.0') WHERE seq = 2"), 2),  # a larger claim
        (_edited("UPDATE entries SET round = 1000 WHERE seq = 2"), 2),  # more asks
        (_edited("UPDATE entries SET facts = replace(facts, '\"adaptive\":true,', '') WHERE seq = 2"), 2),
        (_edited("UPDATE entries SET event = replace(event, '40.0', '400.0') WHERE seq = 3"), 3),  # a smaller share
        (_edited("UPDATE entries SET facts = replace(facts, ':3', ':9') WHERE seq = 5"), 5),  # more of an ask
    ],
)
def test_an_edited_claim_share_or_count_is_named(path: Path, edit: Callable[[Path], None], entry: int) -> None:
    with opened(path) as ledger:
        ledger.set_aside("one", "study", CLAIM)
        ledger.charge("one", "study", 1, NOISY)
        ledger.release("one")
        ledger.set_aside("two", "study", MIXED)
    edit(path)
    for open_it in (opened, read_only):
        with pytest.raises(LedgerCorrupt, match=f"entry {entry} was edited"):
            open_it(path)


@pytest.mark.parametrize(
    ("reservation", "forged"),
    [
        (CLAIM, [(1, CLEARER), (2, NOISY)]),  # more than the whole
        (CLAIM, [(11, NOISY)]),
        (CLAIM, [(1, DiscreteLaplace(scale=1e4, sensitivity=1))]),
        (MIXED, [(1, THIRD), (2, THIRD)]),
        (MIXED, [(1, NOISY), (1, NOISY)]),
    ],
)
def test_charges_that_no_reservation_covers_are_refused_however_well_they_are_chained(
    path: Path, reservation: Reservation, forged: list[tuple[int, Event]]
) -> None:
    with opened(path) as ledger:
        head = ledger.set_aside("one", "study", reservation)
    db = sqlite3.connect(path, isolation_level=None)
    for seq, (number, event) in enumerate(forged, start=3):
        entry = chain.sealed(seq, head, "charge", "one", "study", number, event=privacy.event_to_json(event))
        chain.insert(db, entry)
        head = entry.hash
    db.close()
    with pytest.raises(LedgerCorrupt, match=f"entry {len(forged) + 2} was not written by this program: charge"):
        opened(path)
