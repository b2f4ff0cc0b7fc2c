"""The reproduction page: what is recomputed is right, what is measured is read from the tables, the rest says so."""

import math

import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent, SelfComposedDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants.utils import get_noise_multiplier

from statfed.lab.compare.report import pilots
from statfed.lab.compare.report.pilots import CENSUS, CLAIMED, NOT_MEASURED, PILOTS, SAMPLE
from statfed.lab.compare.tables import Tables
from tests.comparison import tables


def shown(figure: str, found: Tables) -> str:
    (text,) = {p.shown(found) for p in PILOTS if p.figure == figure}
    return text


def epsilon(accountant: PLDAccountant | RdpAccountant, rate: float, sigma: float, steps: int, delta: float) -> float:
    event = SelfComposedDpEvent(PoissonSampledDpEvent(rate, GaussianDpEvent(sigma)), steps)
    return float(accountant.compose(event).get_epsilon(delta))


@pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha")
@pytest.mark.parametrize("claimed", CLAIMED)
def test_noise_multipliers_are_those_that_opacus_finds_for_one_fit(claimed: float) -> None:
    found = get_noise_multiplier(
        target_epsilon=claimed,
        target_delta=pilots.DELTA,
        sample_rate=1 / pilots.STEPS,
        epochs=pilots.EPOCHS,
        accountant="rdp",
    )
    assert found == pytest.approx(CLAIMED[claimed], rel=1e-3)


@pytest.mark.parametrize(("claimed", "published"), [(10.0, 24.1), (1.0, 2.9), (0.3, 0.99)])
def test_epsilon_over_ten_rounds_is_that_of_dp_accounting_and_near_the_correction(
    claimed: float, published: float
) -> None:
    steps = pilots.ROUNDS * pilots.EPOCHS * pilots.STEPS
    parameters = (1 / pilots.STEPS, CLAIMED[claimed], steps, pilots.DELTA)
    ours = pilots.composed(claimed, pilots.ROUNDS)
    assert ours == pytest.approx(epsilon(PLDAccountant(), *parameters), rel=2e-3)
    assert epsilon(RdpAccountant(), *parameters) == pytest.approx(published, rel=0.03)
    assert claimed * 2 < ours < published
    assert pilots.composed(claimed, 1) < claimed < ours < pilots.composed(claimed, 15)


def test_the_students_epsilon_is_that_of_the_pilot_by_its_accountant_and_more_as_it_ran() -> None:
    delta, rate = 1 / (1.1 * pilots.STUDENTS), pilots.STUDENT_BATCH / pilots.STUDENTS
    parameters = (rate, 10.0, pilots.STUDENT_STEPS, delta)
    orders = [1 + math.log(1 / delta) / 10 + i * (math.log(1 / delta) * 0.9) / 99 for i in range(100)]
    assert epsilon(RdpAccountant(orders), *parameters) == pytest.approx(1.083370, abs=1e-6)  # as the notebook prints
    assert pilots.student(10.0) < 1.08337
    assert pilots.student(1.0) < 29.92151 < pilots.student(0.5)


@pytest.mark.parametrize(("cells", "total", "naive"), [(CENSUS, 100_010, 79_817), (SAMPLE, 48_553, 39_224)])
def test_adjusted_totals_follow_from_the_published_counts(
    cells: tuple[tuple[float, float, float], ...], total: int, naive: int
) -> None:
    recall, ratio = pilots.rates(cells)
    again = [pilots.corrected(links, block, recall, ratio) for block, links, _ in cells]
    assert again == pytest.approx([cell[2] for cell in cells], abs=1e-4)
    assert round(sum(again)) == total
    assert sum(cell[1] for cell in cells) == naive
    assert 0.7 < recall < 0.9
    assert 0 <= ratio < 0.01


def test_the_formula_of_adjusted_totals_undoes_linkage_errors() -> None:
    true, pairs, recall, false, blocked = 1_000.0, 40_000.0, 0.8, 0.001, 0.04
    links, block = recall * true + false * pairs, true + blocked * pairs
    found = pilots.corrected(links, block, recall, false / blocked)
    assert found == pytest.approx(true)


def test_without_trials_nothing_is_said_to_be_measured() -> None:
    empty = {p.figure: p.shown(Tables()) for p in PILOTS}
    computed = {"epsilon of a window over 10 rounds", "the same over the notebooks' 15 rounds",
                "noise multiplier 1: epsilon", "the same with two 70 % samples",
                "corrected total of two censuses linked with typos, 100,000 records"}  # fmt: skip
    for figure, text in empty.items():
        if figure not in computed:
            assert NOT_MEASURED in text, figure
            assert not any(character.isdigit() for character in text.replace("epsilon 10", "").replace("epsilon 3", "")
                           .replace("epsilon 1", "")), figure  # fmt: skip


def test_measured_figures_are_those_of_the_tables() -> None:
    made = tables()
    exact = made.find("time-use", "exact")
    assert exact is not None
    assert exact.figure("accuracy", "pooled").mean == pytest.approx(0.88)  # type: ignore[union-attr]
    assert shown("centralised accuracy", made) == "88.0\u00a0% (3 seeds)"
    assert shown("FedAvg without DP, 8 clients, 15 rounds: accuracy", made) == "87.0\u00a0% (3 seeds)"
    assert shown("a client that trains alone: accuracy", made) == "78.0\u00a0% (3 seeds)"  # 88.0 less 10.0
    cost = shown("Paillier, all layers encrypted", made)
    assert cost == "homomorphic-encryption: 16.0× the bytes, 9.4× the processor time"
    assert shown("epsilon of a window over 10 rounds", made) == "21.22 / 2.60 / 0.90"
    private = shown("FedAvg with DP: accuracy at claimed epsilon 10 / 1 / 0.3", made)
    assert private.startswith("epsilon 10: 86.9\u00a0%")
    assert "epsilon 3: not measured" in private


def test_every_line_has_a_source_or_was_not_reported_and_a_reason() -> None:
    for pilot in PILOTS:
        assert pilot.why
        assert pilot.source or pilot.value == "not reported"
