"""DP gradient descent on protected sums: against pooled gradient descent, its sensitivity, its noise, its refusals."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from statfed.core.errors import EngineError, UsageError
from statfed.core.privacy import discrete
from statfed.core.privacy.accountant import calibrate, dp_sgd, epsilon, event_from_json, event_to_json
from statfed.core.randomness import stream
from statfed.core.records import concatenate
from statfed.core.resolve import resolve_applicable
from statfed.core.study import Study
from statfed.core.terms import Privacy, Terms
from statfed.federation.references import prepare
from statfed.federation.run import Options, run_study
from statfed.server.driver import Driven
from statfed.strategies.learning import step as fedsgd
from statfed.strategies.learning.clipping import batch, clipped
from statfed.strategies.learning.gradients import clipped_sum, noisy_sum
from statfed.strategies.learning.local import Schedule, UnitOptimizer, fit, get_vector
from statfed.strategies.learning.options import LocalOptions
from statfed.strategies.learning.prepared import build
from statfed.strategies.learning.step import SIGMA, STRATEGIES, Step
from tests.conftest import CODEBOOK, TOY, toy_records, toy_study, toy_terms
from tests.covering import each_value
from tests.strategies.training.driven import driven, question_of, vector_of
from tests.strategies.training.test_training import Silent, slow_clipped_sum

Homes = Callable[..., dict[str, Path]]
PRIVATE = {"epsilon": 4.0, "delta": 1e-4, "clipping_norm": 0.5}
FEDSGD = {"method": "dp-fedsgd", "learning_rate": 0.5}


def terms_of(**changes: Any) -> Terms:
    return toy_terms(**{"privacy": PRIVATE, "training": FEDSGD} | changes)


def private(**changes: Any) -> Privacy:
    found = terms_of(privacy=PRIVATE | changes).privacy
    assert found is not None
    return found


def step_of(terms: Terms, entries: int) -> Step:
    return fedsgd.step(question_of(terms), entries)


def drive(study: Study, homes: dict[str, Path], run: str = "r1", **options: Any) -> Driven:
    return driven(study, homes, run, **options)


def model(inputs: int = 5, classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 7), nn.ReLU(), nn.Linear(7, classes))


def data(count: int = 60, inputs: int = 5) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    return (
        rng.normal(size=(count, inputs)).astype(np.float32),
        rng.integers(0, 3, count),
        np.repeat(np.arange(count // 10), 10),
    )


PLAN = Step(rate=1.0, noise_multiplier=2.0, draws=1, entries=66, clipping_norm=0.5)


@pytest.mark.parametrize("unit", ["record", "person"])
def test_the_whole_sum_is_the_clipped_sum_within_half_a_grid_unit(unit: str) -> None:
    x, y, persons = data()
    groups = (
        [np.array([i]) for i in range(60)] if unit == "record" else [np.flatnonzero(persons == p) for p in range(6)]
    )
    units = batch(persons, private(unit=unit), 1.0, stream(1, "s"))
    found = clipped_sum(model(), x, y, units, PLAN) * PLAN.unit
    slow = slow_clipped_sum(model(), x, y, groups, 0.5).numpy()
    np.testing.assert_allclose(found, slow, atol=PLAN.unit / 2 + 2e-6)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**31),
    st.sampled_from(["record", "person"]),
    st.sampled_from([1e-3, 1.0, 1e4]),
    st.floats(0.5, 3000.0),
    st.integers(1, 40),
)
def test_no_unit_moves_the_sum_by_more_than_the_sensitivity(
    seed: int, unit: str, scale: float, multiplier: float, draws: int
) -> None:
    rng = np.random.default_rng(seed)
    plan = Step(1.0, multiplier, draws, 66, 0.5)
    x = (rng.normal(size=(70, 5)) * scale * rng.lognormal(0, 2, (70, 1))).astype(np.float32)
    y, persons = rng.integers(0, 3, 70), rng.integers(0, 9, 70)
    units = batch(persons, private(unit=unit, max_records_per_unit=4), 1.0, stream(1, "s"))
    gone = int(rng.integers(len(units)))
    whole = clipped_sum(model(), x, y, units, plan)
    without = clipped_sum(model(), x, y, [rows for i, rows in enumerate(units) if i != gone], plan)
    moved = whole - without
    assert int(moved @ moved) <= plan.sensitivity**2


def test_neighbours_at_the_worst_place_of_the_grid_stay_within_the_sensitivity() -> None:
    """One unit of the full clipping norm, on top of a sum that rounding parts from it in every entry."""
    for multiplier in (1.0, 50.0, SIGMA / (2.0 * math.sqrt(66)) * 0.999):
        plan = Step(1.0, multiplier, 1, 66, 0.5)
        unit = torch.full((66,), 1e3, dtype=torch.float64)
        added = clipped(unit, 0.5)[0] / plan.unit
        base = math.floor(float(added)) + 1.5 - float(added) - 1e-9 if float(added) % 1 else 0.5
        apart = np.sqrt(66) * (np.round(base + float(added) + 2e-9) - np.round(base - 1e-9))
        assert float(added) * math.sqrt(66) < apart <= plan.sensitivity
        assert float(added) * math.sqrt(66) > 0.99 * (plan.sensitivity - math.sqrt(66))  # and no less than it may use


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_a_unit_that_is_not_finite_contributes_nothing(bad: float) -> None:
    x, y, _ = data()
    spoiled = x.copy()
    spoiled[7] = bad
    units = [np.array([i]) for i in range(60)]
    others = [rows for rows in units if rows[0] != 7]
    found = clipped_sum(model(), spoiled, y, units, PLAN)
    if bad == 1e38:
        assert np.isfinite(found * PLAN.unit).all()
    else:
        np.testing.assert_array_equal(found, clipped_sum(model(), x, y, others, PLAN))


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("each", [1, 5])
def test_a_unit_counts_the_same_wherever_and_beside_whomever_it_stands(name: str, each: int) -> None:
    question = question_of(terms_of(model={"name": name, "hidden": 6}))
    records = prepare(toy_records(23, 5, seed=2), question)
    net = build(question, 1)
    fine = Step(1.0, 1e-9, 1, sum(p.numel() for p in net.parameters()), 0.5)  # a grid that shows the 13th digit
    units = [np.arange(i, i + each) for i in range(0, 115, each)]
    one = [clipped_sum(net, records.inputs, records.labels, [rows], fine) for rows in units]
    for chosen in (range(len(units)), range(len(units) - 1, 0, -3)):
        together = clipped_sum(net, records.inputs, records.labels, [units[i] for i in chosen], fine)
        assert np.abs(together - sum(one[i] for i in chosen)).max() < 1e-11 * fine.sensitivity


def chaotic(inputs: int, hidden: int) -> nn.Module:
    """What a hostile coordinator may send: pairs of equal hidden units, whose differences, nothing but rounding, are
    multiplied until they decide the direction of the gradient."""
    torch.manual_seed(0)
    first, last = nn.Linear(inputs, hidden), nn.Linear(hidden, 2)
    rows, heads = torch.randn(hidden // 2, inputs), torch.randn(hidden // 2) * 1e17
    with torch.no_grad():
        first.weight.copy_(torch.cat([rows, rows]))
        last.weight.copy_(torch.outer(torch.tensor([1.0, -1.0]), torch.cat([heads, -heads])))
        first.bias.zero_()
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last)


@pytest.mark.parametrize("inputs", [50, 119])
@pytest.mark.parametrize("each", [1, 3])
def test_no_model_makes_rounding_move_the_sum_by_more_than_the_sensitivity(inputs: int, each: int) -> None:
    net = chaotic(inputs, 32)
    x = np.random.default_rng(1).normal(size=(300, inputs)).astype(np.float32)
    plan = Step(1.0, 2.0, 1, sum(p.numel() for p in net.parameters()), 0.5)
    units = [np.arange(i, i + each) for i in range(0, 300, each)]
    whole = clipped_sum(net, x, np.zeros(300, np.int64), units, plan)
    for gone in (0, 7, len(units) // 2, len(units) - 1):
        without = clipped_sum(net, x, np.zeros(300, np.int64), units[:gone] + units[gone + 1 :], plan)
        assert np.linalg.norm((whole - without).astype(float)) <= plan.sensitivity


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_inputs_are_prepared_record_by_record_to_the_last_bit(name: str) -> None:
    question = question_of(terms_of(model={"name": name}))
    records = toy_records(45, 25, seed=1)  # more than are prepared at once
    whole = prepare(records, question).inputs
    for gone in (0, 5, 1023, 1124):
        kept = np.delete(np.arange(1125), gone)
        np.testing.assert_array_equal(prepare(records.select(kept), question).inputs, whole[kept])


@pytest.mark.parametrize("mixing", [nn.BatchNorm1d(7), nn.Dropout(0.5)])
@pytest.mark.parametrize("count", [0, 60])
def test_a_model_that_mixes_records_beyond_one_unit_is_refused_whatever_the_sample(
    mixing: nn.Module, count: int
) -> None:
    net = nn.Sequential(nn.Linear(5, 7), mixing, nn.Linear(7, 3))
    x, y, _ = data()
    plan = Step(1.0, 2.0, 1, sum(p.numel() for p in net.parameters()), 0.5)
    with pytest.raises(ValueError, match="not a function of one unit's records"):
        clipped_sum(net, x, y, [np.array([i]) for i in range(count)], plan)


def test_an_empty_batch_is_noise_alone_of_the_agreed_law() -> None:
    net = nn.Linear(300, 200)
    plan = Step(1e-12, 2.0, 1, 60_200, 0.5)
    x, y = np.zeros((20, 300), np.float32), np.zeros(20, np.int64)
    found = noisy_sum(net, x, y, np.arange(20), private(), plan, stream(1, "s"), stream(1, "n"))
    assert found.std() == pytest.approx(SIGMA, rel=0.01)
    assert abs(found.mean()) < SIGMA * 0.02
    assert found.std() * plan.unit == pytest.approx(2.0 * 0.5, rel=0.01)  # noise multiplier times clipping norm


def test_person_units_are_sampled_whole_and_bounded() -> None:
    persons = np.random.default_rng(0).integers(0, 50, 1000)
    found = batch(persons, private(unit="person", max_records_per_unit=4), 0.4, stream(1, "s"))
    assert 8 < len(found) < 32
    assert all(len(rows) == 4 and len(np.unique(persons[rows])) == 1 for rows in found)
    assert len({int(persons[rows[0]]) for rows in found}) == len(found)


@pytest.mark.parametrize("rate", [1.0, 0.1])
@pytest.mark.parametrize("target", [0.3, 3.0])
def test_the_event_is_that_of_pooled_dp_sgd_to_a_thousandth(rate: float, target: float) -> None:
    terms = terms_of(rounds=50, privacy={"epsilon": target}, training=FEDSGD | {"sampling_rate": rate})
    plan = step_of(terms, 10_000)
    event = plan.event
    assert event_from_json(event_to_json(event)) == event
    spent = epsilon([event] * 50, 1e-5)
    pooled = epsilon([dp_sgd(rate, plan.noise_multiplier, 50)], 1e-5)
    assert pooled < spent <= target
    assert spent == pytest.approx(pooled, rel=1e-3)
    assert plan.noise_multiplier == pytest.approx(calibrate(rate, 50, target, 1e-5), rel=3e-3)


def test_noise_of_the_total_is_stated_as_it_is_drawn() -> None:
    plan = Step(0.5, 3.0, 4, 5000, 2.0)
    drawn = np.sum([discrete.draw_gaussian(SIGMA, 5000, stream(i)) for i in range(5)], 0)
    assert (drawn * plan.unit).std() == pytest.approx(plan.std(5), rel=0.03)
    assert plan.std(4) == pytest.approx(3.0 * 2.0, rel=2e-3)  # multiplier times clipping norm, and 0.16 % of rounding
    of_one = plan.noise_to_signal(10, 100)
    assert of_one * math.sqrt(5) / 5 == pytest.approx(  # five equal holders, as `noise_warnings` averages them
        plan.std(5) * math.sqrt(5000 * 10) / (10 * 0.5 * 500 * 2.0), rel=0.02
    )


def test_the_range_of_sums_holds_the_largest_contributions_and_refuses_one_beyond() -> None:
    plan = Step(1.0, 0.1, 4, 3, 1.0)
    sizes = {"a": 10, "b": 1000, "c": 200}
    layout = plan.layout(sizes)
    mine = layout.for_holder(1 / 3)
    largest = math.floor(1000 * plan.sensitivity + 12 * SIGMA)
    words = mine.encode({"gradient": np.array([largest, -largest, 0])})
    np.testing.assert_array_equal(layout.decode(3 * words)["gradient"], 3 * np.array([largest, -largest, 0]))
    with pytest.raises(Exception, match="outside the range"):
        mine.encode({"gradient": np.array([4 * largest, 0, 0])})


PARTS = {f"office-{i}": (i + 1, 15 * i) for i in (1, 2, 3)}


def noiseless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrete, "draw_gaussian", lambda _, count, __: np.zeros(count, np.int64))


@pytest.mark.parametrize("unit", ["record", "person"])
def test_without_noise_unequal_holders_take_the_pooled_steps_of_clipped_gradient_descent(
    homes: Homes, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noiseless(monkeypatch)
    study = toy_study(holders=3, rounds=4, training=FEDSGD, privacy=PRIVATE | {"unit": unit})
    parts = {name: toy_records(n, each, seed=n, first=10 * n) for name, (n, each) in PARTS.items()}
    federated = vector_of(drive(study, homes(study, parts)))
    question = question_of(study.terms(TOY.codebook))
    net, pooled = build(question, study.seed or 0), prepare(concatenate(list(parts.values())), question)
    units = len(pooled.labels) if unit == "record" else len(np.unique(pooled.units))
    plan = Schedule(rate=1.0, steps_per_round=4, expected_batch=float(units), noise_multiplier=1.0)
    options = LocalOptions(learning_rate=0.5, clipping_norm=0.5, batch_size=10_000)
    fit(net, pooled.inputs, pooled.labels, pooled.units, options, question.privacy, plan, stream(1), Silent())
    moved = np.abs(get_vector(net) - get_vector(build(question, study.seed or 0))).max()
    assert moved > 0.01
    np.testing.assert_allclose(federated, get_vector(net), atol=1e-4 * moved + 1e-5)


def test_without_noise_the_pooled_steps_are_those_of_opacus(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    noiseless(monkeypatch)
    study = toy_study(holders=3, rounds=3, training=FEDSGD, privacy=PRIVATE)
    parts = {name: toy_records(n, each, seed=n, first=10 * n) for name, (n, each) in PARTS.items()}
    federated = vector_of(drive(study, homes(study, parts)))
    question = question_of(study.terms(TOY.codebook))
    pooled = prepare(concatenate(list(parts.values())), question)
    net = GradSampleModule(build(question, study.seed or 0))
    optimizer = DPOptimizer(
        torch.optim.SGD(net.parameters(), lr=0.5),
        noise_multiplier=0.0,
        max_grad_norm=0.5,
        expected_batch_size=len(pooled.labels),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            optimizer.zero_grad()
            logits = net(torch.from_numpy(pooled.inputs))
            nn.functional.cross_entropy(logits, torch.from_numpy(pooled.labels)).backward()
            optimizer.step()
    np.testing.assert_allclose(federated, get_vector(net._module), atol=1e-5)


def momentum_reference(study: Study, parts: dict[str, Any]) -> NDArray[np.float32]:
    """Pooled full-batch clipped gradient descent with torch's own momentum and weight decay."""
    question = question_of(study.terms(TOY.codebook))
    net, pooled = build(question, study.seed or 0), prepare(concatenate(list(parts.values())), question)
    torch_sgd = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.8, weight_decay=0.01)
    optimizer = UnitOptimizer(torch_sgd, sigma=1.0, norm=0.5, expected_batch=len(pooled.labels), noise=Silent())
    groups = [np.array([i]) for i in range(len(pooled.labels))]
    for _ in range(question.options.rounds):
        flat = slow_clipped_sum(net, pooled.inputs, pooled.labels, groups, 0.5)
        optimizer.take(flat)
        optimizer.step()
        optimizer.zero_grad()
    return get_vector(net)


def test_momentum_and_decay_after_noise_are_torchs_own(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    noiseless(monkeypatch)
    study = toy_study(
        holders=2,
        rounds=4,
        training=FEDSGD | {"weight_decay": 0.01},
        privacy=PRIVATE,
        strategy={"name": "fedavgm", "server_momentum": 0.8},
    )
    parts = {name: toy_records(2, 10, seed=i, first=10 * i) for i, name in enumerate(study.holders)}
    federated = vector_of(drive(study, homes(study, parts)))
    np.testing.assert_allclose(federated, momentum_reference(study, parts), atol=2e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_step_learns_with_noise_and_is_reproducible(homes: Homes, strategy: str) -> None:
    study = toy_study(
        rounds=15,
        strategy={"name": strategy, "server_momentum": 0.5},
        training=FEDSGD | {"sampling_rate": 0.5},
        privacy={"epsilon": 50.0, "delta": 1e-4},
        simulation={"lifetime_epsilon": 500.0},
    )
    places = homes(study)
    one, two = drive(study, places, "r1"), drive(study, places, "r2", wire=True)
    np.testing.assert_array_equal(vector_of(one), vector_of(two))
    question = question_of(study.terms(TOY.codebook))
    held_out = prepare(toy_records(3, 20, seed=9), question)
    net = build(question, study.seed or 0)
    from statfed.federation.references import scores
    from statfed.strategies.learning.local import set_vector

    set_vector(net, vector_of(one))
    assert scores(net, held_out, CODEBOOK.classes).accuracy > 0.55


def test_each_step_is_charged_and_plans_closings_and_receipts_agree(homes: Homes) -> None:
    study = toy_study(rounds=3, training=FEDSGD, privacy=PRIVATE)
    done = drive(study, homes(study))
    plan, closing = done.admissions["office-1"], done.closings["office-1"]
    want = step_of(study.terms(TOY.codebook), len(vector_of(done)))
    assert (plan.steps, plan.sampling_rate, plan.noise_multiplier) == (1, 1.0, want.noise_multiplier)
    assert plan.noise_to_signal == pytest.approx(want.noise_to_signal(3, plan.size))
    assert plan.epsilon is not None
    assert plan.epsilon == closing.study_epsilon == epsilon([want.event] * 3, 1e-4)
    assert plan.epsilon == pytest.approx(4.0, rel=0.02)
    assert plan.epsilon <= 4.0
    assert closing.disclosures == 0


def test_the_noise_in_a_run_is_that_of_every_holder(homes: Homes) -> None:
    study = toy_study(holders=4, rounds=1, training=FEDSGD, privacy=PRIVATE, model={"hidden": 64})
    noisy = drive(study, homes(study), "r1")
    with pytest.MonkeyPatch.context() as patch:
        noiseless(patch)
        clean = vector_of(drive(study, homes(study), "r2"))
    question = question_of(study.terms(TOY.codebook))
    plan = fedsgd.step(question, len(clean))
    units = sum(p.size for p in noisy.admissions.values())
    assert (vector_of(noisy) - clean).std() == pytest.approx(plan.std(4) * 0.5 / units, rel=0.03)


HIDDEN = {"name": "secure-aggregation"}


def test_under_secure_aggregation_the_steps_are_those_of_plain_to_the_bit(homes: Homes) -> None:
    base: dict[str, Any] = {"holders": 3, "rounds": 2, "training": FEDSGD, "privacy": PRIVATE}
    plain, hidden = toy_study(**base), toy_study(**base, protection=HIDDEN)
    open_ = vector_of(drive(plain, homes(plain), "r1"))
    np.testing.assert_array_equal(vector_of(drive(hidden, homes(hidden), "r2")), open_)


@pytest.mark.parametrize(("minimum", "colluders"), each_value([4, None], [0, 1]))
def test_shared_noise_leaves_what_the_fewest_honest_holders_add(
    homes: Homes, minimum: int | None, colluders: int
) -> None:
    study = toy_study(
        holders=4,
        rounds=1,
        training=FEDSGD,
        privacy=PRIVATE | {"noise": "shared", "colluders": colluders},
        protection=HIDDEN | {"minimum_holders": minimum},
        model={"hidden": 64},
    )
    noisy = drive(study, homes(study), "r1")
    with pytest.MonkeyPatch.context() as patch:
        noiseless(patch)
        clean = vector_of(drive(study, homes(study), "r2"))
    plan = step_of(study.terms(TOY.codebook), len(clean))
    honest = (minimum or 3) - colluders
    assert plan.draws == honest
    deviation = (vector_of(noisy) - clean).std() * sum(p.size for p in noisy.admissions.values()) / 0.5 / 0.5
    assert deviation == pytest.approx(plan.noise_multiplier * math.sqrt(4 / honest), rel=0.03)
    assert deviation / 2 * math.sqrt(honest) > plan.noise_multiplier * 0.97  # what is left to protect a unit
    closing, planned = noisy.closings["office-1"], noisy.admissions["office-1"]
    assert closing.study_epsilon == pytest.approx(planned.epsilon)


def test_a_dropped_holder_leaves_the_divisor_public_and_the_noise_enough(homes: Homes) -> None:
    study = toy_study(
        holders=4,
        rounds=2,
        training=FEDSGD,
        privacy=PRIVATE | {"noise": "shared"},
        protection=HIDDEN,
        model={"hidden": 64},
    )
    places = homes(study)

    def fault(holder: str, message: Message) -> str | None:
        text = str(message.content.config_records["config"]["statement"])
        return "dropped" if holder == "office-2" and '"ask":"fit"' in text and '"round":2' in text else None

    with pytest.MonkeyPatch.context() as patch:
        noiseless(patch)
        whole = vector_of(drive(study, places, "r1"))
        three = drive(study, places, "r2", fault=fault)
    lost = vector_of(three) - whole  # what office-2's gradients would have moved in the second step
    sizes = sum(p.size for p in three.admissions.values())
    assert 0.0 < np.linalg.norm(lost) <= 0.5 * 0.5 * three.admissions["office-2"].size / sizes * 1.001


@pytest.mark.parametrize(
    ("colluders", "message"),
    [(2, "with so many of 4 holders a coordinator that needs 3 .* want at most 1"), (9, "nobody would be left")],
)
def test_shared_noise_that_nobody_would_add_or_that_is_seen_through_is_refused(colluders: int, message: str) -> None:
    terms = terms_of(
        holders=4, privacy=PRIVATE | {"noise": "shared", "colluders": colluders}, protection={"name": HIDDEN["name"]}
    )
    with pytest.raises(UsageError, match=f"got {colluders}.*{message}"):
        step_of(terms, 1000)


def test_a_holder_with_another_grid_is_named(homes: Homes, monkeypatch: pytest.MonkeyPatch) -> None:
    from statfed.client.holder import Holder

    study = toy_study(training=FEDSGD, privacy=PRIVATE)
    admit = Holder._admit

    def other(self: Holder, *rest: Any) -> Any:
        found = admit(self, *rest)
        return found.model_copy(update={"noise_multiplier": 9.0}) if found.holder == "office-1" else found

    monkeypatch.setattr(Holder, "_admit", other)
    with pytest.raises(EngineError, match=r"office-1: noise multiplier 9.0 at rate 1.0; .* want the same"):
        drive(study, homes(study))


UNPLANNED: dict[str, dict[str, Any]] = {
    r"dp-fedsgd without differential privacy; want a \[privacy\] section": {"privacy": None},
    "privacy.noise: got central; want local or shared": {"privacy": PRIVATE | {"noise": "central"}},
    "privacy.noise: got shared under plain, which shows each holder's": {"privacy": PRIVATE | {"noise": "shared"}},
    "privacy.epsilon: no noise multiplier": {"privacy": PRIVATE | {"epsilon": 1e-9}},
    "momentum: unknown key; want one of": {"training": FEDSGD | {"momentum": 0.5}},
}


@pytest.mark.parametrize("message", list(UNPLANNED))
def test_no_step_is_planned_for_what_does_not_go_together(message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        step_of(terms_of(**UNPLANNED[message]), 1000)


OBSTACLES: dict[str, dict[str, Any]] = {
    "dp-fedsgd without differential privacy; .*or method local-sgd": {"privacy": None},
    "privacy.noise: got central, but in training only holders add": {"privacy": PRIVATE | {"noise": "central"}},
    "strategy fedprox: not for dp-fedsgd.*strategy fedavg, fedavgm": {"strategy": {"name": "fedprox"}},
    "strategy krum: not for dp-fedsgd": {"strategy": {"name": "krum"}},
}


@pytest.mark.parametrize("message", list(OBSTACLES))
def test_the_coordinator_refuses_with_the_reason_and_what_would_do(message: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){message}"):
        resolve_applicable(terms_of(**OBSTACLES[message]))


def test_a_model_too_large_for_the_grid_is_refused() -> None:
    terms = terms_of(privacy=PRIVATE | {"epsilon": 0.01})
    with pytest.raises(UsageError, match="parameters, which puts the sensitivity at"):
        step_of(terms, 10_000_000)
    with pytest.raises(UsageError, match="does not cover as many"):
        step_of(terms, 10**12)


@pytest.mark.parametrize("noise", ["shared", "central"])
def test_local_training_with_noise_elsewhere_is_refused_by_the_holder(homes: Homes, noise: str) -> None:
    study = toy_study(privacy=PRIVATE | {"noise": noise})
    with pytest.raises(UsageError, match=rf"got {noise}"):
        drive(study, homes(study))


def test_a_study_goes_on_from_an_earlier_model(tmp_path: Path) -> None:
    base: dict[str, Any] = {
        "rounds": 1,
        "privacy": PRIVATE,
        "training": FEDSGD | {"learning_rate": 1e-9},
        "data": {"source": "generated", "persons": 5, "records_per_person": 10, "test_persons": 4},
    }
    how = Options(tmp_path / "ws", tmp_path / "runs", fresh=True, references=False)
    first = run_study(scenario_study(**base, seed=5), how)
    kept = first.result.arrays["model"]
    for start in (first.run, str(tmp_path / "runs" / first.run / "model.npz")):
        then = run_study(scenario_study(**base, start=start), how)
        np.testing.assert_allclose(then.result.arrays["model"], kept, atol=1e-6)
    (tmp_path / "x.npz").write_bytes(b"PK not a zip")
    for wrong in ("no-such-run", str(tmp_path / "x.npz")):
        with pytest.raises(UsageError, match="start: got"):
            run_study(scenario_study(**base, start=wrong), how)
    with pytest.raises(UsageError, match="got parameters of shape"):
        run_study(scenario_study(**base, start=first.run, model={"hidden": 9}), how)


def scenario_study(**changes: Any) -> Study:
    """A toy study on the scenario's own columns."""
    study = toy_study(**changes)
    own = {key: value for key, value in study.options.items() if key not in ("features", "target")}
    return study.model_copy(update={"options": own})
