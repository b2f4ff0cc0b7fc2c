"""Local training against plain PyTorch and against slow, obvious references."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from statfed.core.errors import Refused, UsageError
from statfed.core.privacy.accountant import epsilon
from statfed.core.randomness import Stream, stream
from statfed.core.table import Size
from statfed.core.terms import Privacy
from statfed.strategies.learning.exact import covers
from statfed.strategies.learning.local import Schedule, UnitOptimizer, fit, get_vector, schedule, set_vector
from statfed.strategies.learning.options import LocalOptions
from tests.conftest import toy_terms
from tests.strategies.training.driven import question_of

PRIVATE = {"epsilon": 5.0, "delta": 1e-4, "clipping_norm": 0.5}
Told = tuple[LocalOptions, Privacy | None]


def told(**changes: Any) -> Told:
    """Options and privacy of a toy study."""
    question = question_of(toy_terms(**changes))
    return question.options, question.privacy


def planned(terms: Told, records: int, persons: int) -> Schedule:
    return schedule(*terms, Size(records, persons))


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


class Silent(Stream):
    """A stream whose noise is zero and whose samples are real: shows what the noise is added to."""

    def __init__(self) -> None:
        super().__init__(bytes(16))

    def normal(self, count: int) -> NDArray[np.float64]:
        return np.zeros(count)


def trained(
    terms: Told, plan: Schedule, noise: Stream | None = None, net: nn.Module | None = None, **kw: Any
) -> NDArray[np.float32]:
    net = net or model()
    x, y, persons = kw.get("data") or data()
    fit(net, x, y, persons, *terms, plan, stream(1, "s"), noise or stream(1, "n"))
    return get_vector(net)


def test_training_without_privacy_equals_plain_pytorch_step_for_step() -> None:
    terms = told(training={"batch_size": 16, "learning_rate": 0.1, "momentum": 0.9, "local_epochs": 2})
    x, y, _ = data()
    reference = model()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9)
    order = stream(1, "s")
    for _ in range(2):
        for rows in torch.from_numpy(order.permutation(60)).split(16):
            optimizer.zero_grad()
            cross_entropy(reference(torch.from_numpy(x)[rows]), torch.from_numpy(y)[rows]).backward()
            optimizer.step()
    np.testing.assert_array_equal(trained(terms, planned(terms, 60, 6)), get_vector(reference))


def test_full_batch_average_over_unequal_holders_equals_the_pooled_step() -> None:
    terms = told(training={"batch_size": 1000, "learning_rate": 0.3})
    x, y, persons = data()
    parts = [slice(0, 10), slice(10, 25), slice(25, 60)]
    total = np.zeros_like(get_vector(model()))
    for part in parts:
        size = part.stop - part.start
        updated = trained(terms, planned(terms, size, 2), data=(x[part], y[part], persons[part]))
        total += updated * np.float32(size / 60)
    np.testing.assert_allclose(total, trained(terms, planned(terms, 60, 6)), atol=2e-7)


def test_fedprox_pulls_towards_the_round_start() -> None:
    far = told(training={"batch_size": 16, "learning_rate": 0.1, "local_epochs": 20})
    near = told(
        training={"batch_size": 16, "learning_rate": 0.1, "local_epochs": 20},
        strategy={"name": "fedprox", "proximal_mu": 5.0},
    )
    start = get_vector(model())

    def moved(vector: NDArray[np.float32]) -> float:
        return float(np.square(vector - start).sum())

    assert moved(trained(near, planned(near, 60, 6))) < 0.5 * moved(trained(far, planned(far, 60, 6)))


def slow_clipped_sum(
    net: nn.Module, x: NDArray[np.float32], y: NDArray[np.int64], groups: list[NDArray[np.int64]], norm: float
) -> torch.Tensor:
    """One unit at a time with autograd: the obvious reference."""
    total = torch.zeros(sum(p.numel() for p in net.parameters()))
    for rows in groups:
        twin = copy.deepcopy(net)
        cross_entropy(twin(torch.from_numpy(x[rows])), torch.from_numpy(y[rows])).backward()
        gradient = torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None])
        total += gradient * min(1.0, norm / float(gradient.norm()))
    return total


@pytest.mark.parametrize("unit", ["record", "person"])
def test_noiseless_private_step_equals_the_clipped_sum_taken_one_unit_at_a_time(unit: str) -> None:
    terms = told(privacy=PRIVATE | {"unit": unit}, training={"batch_size": 1000, "learning_rate": 1.0})
    x, y, persons = data()
    groups = (
        [np.array([i]) for i in range(60)] if unit == "record" else [np.flatnonzero(persons == p) for p in range(6)]
    )
    plan = Schedule(rate=1.0, steps_per_round=1, expected_batch=len(groups), noise_multiplier=1.0)
    ours = trained(terms, plan, Silent())
    step = slow_clipped_sum(model(), x, y, groups, 0.5) / len(groups)
    start = torch.cat([p.detach().flatten() for p in model().parameters()])
    np.testing.assert_allclose(ours, (start - step).numpy(), atol=2e-6)


@pytest.mark.parametrize("unit", ["record", "person"])
def test_one_unit_moves_the_sum_by_at_most_the_clipping_norm(unit: str) -> None:
    terms = told(privacy=PRIVATE | {"unit": unit}, training={"batch_size": 1000, "learning_rate": 1.0})
    x, y, persons = data()
    x = x * 1000  # every gradient is clipped, but those of records that the model is certain of and right about
    wrong = int(np.flatnonzero(model()(torch.from_numpy(x)).argmax(1).numpy() != y)[0])
    plan = Schedule(rate=1.0, steps_per_round=1, expected_batch=1.0, noise_multiplier=1.0)
    without = persons != 5 if unit == "person" else np.arange(60) != wrong
    a = trained(terms, plan, Silent(), data=(x, y, persons))
    b = trained(terms, plan, Silent(), data=(x[without], y[without], persons[without]))
    distance = float(np.linalg.norm(a - b))
    assert 0.0 < distance <= 0.5 * (1 + 1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_record_that_is_not_finite_contributes_nothing_and_does_not_reveal_itself(bad: float) -> None:
    terms = told(privacy=PRIVATE, training={"batch_size": 1000, "learning_rate": 1.0})
    x, y, persons = data()
    plan = Schedule(rate=1.0, steps_per_round=1, expected_batch=60.0, noise_multiplier=1.0)
    spoiled = x.copy()
    spoiled[7, 2] = bad
    others = np.arange(60) != 7
    ours = trained(terms, plan, Silent(), data=(spoiled, y, persons))
    want = trained(terms, plan, Silent(), data=(x[others], y[others], persons[others]))
    np.testing.assert_allclose(ours, want, atol=1e-6)


def test_an_empty_poisson_batch_is_a_step_of_pure_noise() -> None:
    terms = told(privacy=PRIVATE, training={"batch_size": 16, "learning_rate": 1.0})
    plan = Schedule(rate=1e-12, steps_per_round=1, expected_batch=1.0, noise_multiplier=2.0)
    moved = trained(terms, plan) - get_vector(model())
    np.testing.assert_allclose(moved, -stream(1, "n").normal(moved.size) * (2.0 * 0.5), atol=1e-6)


def test_noise_has_the_standard_deviation_that_the_event_is_charged_for() -> None:
    net = nn.Linear(300, 200)
    optimizer = UnitOptimizer(
        torch.optim.SGD(net.parameters(), lr=1.0), sigma=1.7, norm=0.5, expected_batch=1.0, noise=stream(4, "n")
    )
    for p in net.parameters():
        p.summed_grad = torch.zeros_like(p)  # type: ignore[attr-defined]
    optimizer.add_noise()
    drawn = np.concatenate([p.grad.numpy().ravel() for p in net.parameters() if p.grad is not None])
    assert drawn.std() == pytest.approx(1.7 * 0.5, rel=0.02)
    assert abs(drawn.mean()) < 0.02


def test_the_divisor_and_the_rate_follow_from_the_public_size_not_from_the_data() -> None:
    terms = told(privacy=PRIVATE, training={"batch_size": 20, "learning_rate": 1.0})
    plan = planned(terms, 100, 10)
    assert (plan.rate, plan.expected_batch, plan.steps_per_round) == (0.2, 20.0, 5)
    x, y, _ = data(60)
    same_plan = Schedule(1.0, 1, plan.expected_batch, 1.0)
    ours = trained(terms, same_plan, Silent())
    step = slow_clipped_sum(model(), x, y, [np.array([i]) for i in range(60)], 0.5) / 20.0
    start = torch.cat([p.detach().flatten() for p in model().parameters()])
    np.testing.assert_allclose(ours, (start - step).numpy(), atol=2e-6)


@pytest.mark.parametrize(("records", "persons", "unit"), [(100, 10, "record"), (1000, 50, "person"), (30, 3, "record")])
def test_noise_keeps_all_rounds_together_within_the_target(records: int, persons: int, unit: str) -> None:
    terms = told(rounds=7, privacy=PRIVATE | {"unit": unit}, training={"batch_size": 10})
    plan = planned(terms, records, persons)
    spent = epsilon([plan.event] * 7, 1e-4)
    assert 0.9 * 5.0 < spent <= 5.0


def test_person_unit_uses_at_most_the_agreed_records_of_one_person() -> None:
    terms = told(
        privacy=PRIVATE | {"unit": "person", "max_records_per_unit": 1, "clipping_norm": 1e6},
        training={"batch_size": 1000, "learning_rate": 1.0},
    )
    x, y, persons = data()
    plan = Schedule(1.0, 1, 6.0, 1.0)
    moved = trained(terms, plan, Silent()) - get_vector(model())
    last_bias = -moved[-3:] * 6.0  # sum over persons of softmax - onehot of exactly one record each
    sampling = stream(1, "s")
    rows = [np.flatnonzero(persons == p)[sampling.permutation(10)[:1]][0] for p in range(6)]
    with torch.no_grad():
        p = torch.softmax(model()(torch.from_numpy(x[rows])), 1).numpy()
    np.testing.assert_allclose(last_bias, (p - np.eye(3)[y[rows]]).sum(0), atol=1e-5)


def test_person_unit_over_one_person_is_refused() -> None:
    with pytest.raises(Refused, match="got a data set of one person; want at least two"):
        planned(told(privacy=PRIVATE | {"unit": "person"}), 100, 1)


def test_a_model_of_another_size_is_refused_with_both_sizes() -> None:
    with pytest.raises(UsageError, match=r"got parameters of shape \(4,\); want \(66,\)"):
        set_vector(model(), np.zeros(4, np.float32))


class Indices(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.abs().clamp(max=3).long()


class Skip(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = values + torch.tanh(self.inner(values))
        return added


OTHERS = {
    "layer normalisation": lambda: nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 3)),
    "embedding": lambda: nn.Sequential(Indices(), nn.Embedding(4, 2), nn.Flatten(), nn.Linear(10, 3)),
    "own module": lambda: nn.Sequential(Skip(), nn.Linear(5, 3)),
}


@pytest.mark.parametrize("unit", ["record", "person"])
@pytest.mark.parametrize("name", OTHERS)
def test_models_that_are_not_plain_stacks_are_clipped_rightly(name: str, unit: str) -> None:
    terms = told(privacy=PRIVATE | {"unit": unit}, training={"batch_size": 1000, "learning_rate": 1.0})
    x, y, persons = data()
    groups = (
        [np.array([i]) for i in range(60)] if unit == "record" else [np.flatnonzero(persons == p) for p in range(6)]
    )
    plan = Schedule(rate=1.0, steps_per_round=1, expected_batch=len(groups), noise_multiplier=1.0)
    torch.manual_seed(0)
    net = OTHERS[name]()
    assert not covers(net)
    start = torch.cat([p.detach().flatten() for p in net.parameters()])
    step = slow_clipped_sum(net, x, y, groups, 0.5) / len(groups)
    ours = trained(terms, plan, Silent(), net)
    np.testing.assert_allclose(ours, (start - step).numpy(), atol=2e-6)


def test_a_layer_that_mixes_records_is_refused() -> None:
    terms = told(privacy=PRIVATE)
    net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    with pytest.raises(ValueError, match="not a function of one unit's records"):
        trained(terms, planned(terms, 60, 6), net=net)


@pytest.mark.parametrize("unit", ["record", "person"])
def test_many_units_at_once_train_as_unit_by_unit(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = told(
        privacy=PRIVATE | {"unit": unit, "max_records_per_unit": 7},
        training={"batch_size": 20 if unit == "record" else 3, "learning_rate": 0.1, "momentum": 0.9},
        strategy={"name": "fedprox", "proximal_mu": 0.5},
    )
    plan = Schedule(rate=0.4, steps_per_round=12, expected_batch=20.0, noise_multiplier=1.0)
    x, y, persons = data()
    uneven = (x, y, np.sort(persons % 4 * (np.arange(60) % 3)))
    together = trained(terms, plan, data=uneven)
    monkeypatch.setattr("statfed.strategies.learning.clipping.covers", lambda _: False)
    np.testing.assert_allclose(together, trained(terms, plan, data=uneven), atol=1e-6)


@pytest.mark.parametrize("unit", ["record", "person"])
def test_the_same_streams_give_the_same_bits_whatever_the_number_of_threads(unit: str) -> None:
    terms = told(privacy=PRIVATE | {"unit": unit}, training={"batch_size": 16})
    plan = Schedule(rate=0.5, steps_per_round=5, expected_batch=30.0, noise_multiplier=1.0)
    runs = []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        runs.append(trained(terms, plan))
    np.testing.assert_array_equal(runs[0], runs[1])


def test_training_leaves_no_trace_of_a_record_on_the_model() -> None:
    terms = told(privacy=PRIVATE, training={"batch_size": 16})
    net = model()
    trained(terms, planned(terms, 60, 6), net=net)
    assert covers(net)
    assert not any(hasattr(p, name) for p in net.parameters() for name in ("grad_sample", "summed_grad"))


def test_clipped_sums_serve_one_step_and_no_second() -> None:
    net = nn.Linear(2, 2)
    optimizer = UnitOptimizer(
        torch.optim.SGD(net.parameters(), lr=1.0), sigma=1.0, norm=1.0, expected_batch=1.0, noise=Silent()
    )
    optimizer.take(torch.ones(6, dtype=torch.float64))
    optimizer.step()
    with pytest.raises(ValueError, match="without clipped sums"):
        optimizer.clip_and_accumulate()


def test_a_noise_value_is_half_the_sum_of_four_box_muller_draws_from_the_key_stream() -> None:
    count = 10_000
    u = stream(4, "n").uniform(4 * count)
    radius, angle = np.sqrt(-2.0 * np.log(u[: 2 * count])), 2.0 * np.pi * u[2 * count :]
    draws = np.stack([radius * np.cos(angle), radius * np.sin(angle)]).reshape(4, count)
    np.testing.assert_allclose(stream(4, "n").normal(count), draws.sum(0) / 2.0, rtol=0.0, atol=1e-14)
