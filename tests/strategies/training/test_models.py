"""The models' contract: per-record fixed inputs, weights from a seed, layers that per-record gradients exist for."""

from itertools import combinations, pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from opacus.validators import ModuleValidator

from statfed.core.discovery import load, modules
from statfed.core.records import Channel, WindowCodebook
from statfed.scenarios._data import generator, uci_har
from statfed.scenarios.time_use import CODEBOOK
from statfed.strategies.models import dense, mlp

ONE = WindowCodebook(channels=(Channel(name="level", unit="V", low=-5, high=5),), samples=10, classes=("off", "on"))
SINGLE = WindowCodebook(
    channels=tuple(Channel(name=n, unit="", low=-5, high=3, scale=2) for n in "ab"), samples=1, classes=("off", "on")
)
CODEBOOKS = {"watch": CODEBOOK, "uci-har": uci_har.CODEBOOK, "one-channel": ONE}


@pytest.fixture(params=sorted(modules("statfed.strategies.models")))
def model(request: pytest.FixtureRequest) -> Any:
    return load("statfed.strategies.models", request.param, "model")


@pytest.fixture(params=sorted(CODEBOOKS))
def codebook(request: pytest.FixtureRequest) -> WindowCodebook:
    return CODEBOOKS[request.param]


def windows(codebook: WindowCodebook, count: int = 8) -> np.ndarray:
    shape = (count, len(codebook.channels), codebook.samples)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_prepared_inputs_of_a_record_do_not_depend_on_other_records(
    model: ModuleType, codebook: WindowCodebook
) -> None:
    values = windows(codebook)
    whole = model.prepare(values, codebook)
    assert whole.dtype == np.float32
    assert len(whole) == len(values)
    changed = values.copy()
    changed[1:] *= 4.0
    assert np.array_equal(model.prepare(changed, codebook)[0], whole[0])
    alone = np.concatenate([model.prepare(values[i : i + 1], codebook) for i in range(len(values))])
    np.testing.assert_allclose(alone, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", ["zero", "low", "high", "huge", "step"])
def test_prepared_inputs_are_finite_for_finite_windows(model: ModuleType, codebook: WindowCodebook, value: str) -> None:
    window = np.zeros((2, len(codebook.channels), codebook.samples), np.float32)
    bound = np.array([c.high for c in codebook.channels], np.float32)[:, None]
    if value == "step":
        window[:, :, codebook.samples // 2 :] = bound
    else:
        window += {"zero": 0 * bound, "low": -bound, "high": bound, "huge": bound * 0 + 3e38}[value]
    prepared = model.prepare(window, codebook)
    assert np.isfinite(prepared).all()
    assert np.isfinite(model.build(codebook, 8, 1)(torch.from_numpy(prepared)).detach().numpy()).all()


def test_inputs_are_of_order_one(model: ModuleType) -> None:
    prepared = model.prepare(generator.generate(40, 20, 1).windows, CODEBOOK)
    assert 0.1 < np.sqrt(np.mean(prepared**2)) < 3


def test_no_records_give_no_inputs(model: ModuleType, codebook: WindowCodebook) -> None:
    empty = model.prepare(windows(codebook)[:0], codebook)
    assert empty.shape == (0, *model.prepare(windows(codebook)[:1], codebook).shape[1:])


def test_weights_follow_from_the_seed_and_leave_the_process_state_alone(model: ModuleType) -> None:
    before = torch.random.get_rng_state()
    one, again, other = (model.build(CODEBOOK, 16, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_scores_have_one_column_a_class(model: ModuleType, codebook: WindowCodebook) -> None:
    prepared = torch.from_numpy(model.prepare(windows(codebook), codebook))
    assert model.build(codebook, 8, 1)(prepared).shape == (8, len(codebook.classes))


def test_a_model_of_a_number_has_one_output(model: ModuleType, codebook: WindowCodebook) -> None:
    number = codebook.model_copy(update={"classes": ()})
    prepared = torch.from_numpy(model.prepare(windows(codebook), number))
    for hidden in (1, 8):
        assert model.build(number, hidden, 1)(prepared).shape == (8, 1)


@pytest.mark.parametrize("name", ["mlp", "dense", "text"])
def test_hidden_1_is_a_linear_model(name: str) -> None:
    net = load("statfed.strategies.models", name, "model").build(CODEBOOK, 1, 1)
    assert [type(layer).__name__ for layer in net] == ["Linear"]


def test_on_single_values_the_perceptron_is_that_of_dense_to_the_bit() -> None:
    values = windows(SINGLE)
    np.testing.assert_array_equal(mlp.prepare(values, SINGLE), dense.prepare(values, SINGLE))
    one, other = (module.build(SINGLE, 6, 3).state_dict() for module in (mlp, dense))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_front_end_and_model_classify_raw_windows(model: ModuleType, codebook: WindowCodebook) -> None:
    front, head = model.front_end(codebook), model.build(codebook, 8, 1)
    assert list(front.parameters()) == []
    values = windows(codebook)
    whole = torch.nn.Sequential(front, head)(torch.from_numpy(values))
    torch.testing.assert_close(whole, head(torch.from_numpy(model.prepare(values, codebook))))


def test_only_layers_with_per_record_gradients(model: ModuleType) -> None:
    assert ModuleValidator.validate(model.build(CODEBOOK, 16, 1), strict=False) == []


def test_a_few_steps_learn_something(model: ModuleType) -> None:
    records = generator.generate(20, 20, 1)
    inputs, labels = torch.from_numpy(model.prepare(records.windows, CODEBOOK)), torch.from_numpy(records.labels)
    net = model.build(CODEBOOK, 16, 1)
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimiser.step()
    assert (net(inputs).argmax(1) == labels).float().mean() > 0.4


def test_model_of_many_persons_beats_a_model_of_two_on_unseen_ones() -> None:
    records = generator.generate(120, 30, 2)
    inputs, labels = torch.from_numpy(mlp.prepare(records.windows, CODEBOOK)), torch.from_numpy(records.labels)
    test = torch.from_numpy(records.persons >= 100)

    def accuracy(persons: int) -> float:
        rows = torch.from_numpy(records.persons < persons)
        net = mlp.build(CODEBOOK, 64, 1)
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(80):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
            optimiser.step()
        return float((net(inputs[test]).argmax(1) == labels[test]).float().mean())

    many, two = accuracy(100), accuracy(2)
    assert many > 0.85
    assert two < many - 0.15


# Front end of the perceptron


def test_six_channels_give_119_features() -> None:
    assert mlp.width(CODEBOOK) == 119


def test_axes_of_one_vector_are_found_by_name() -> None:
    assert mlp.vectors(CODEBOOK) == [[0, 1, 2], [3, 4, 5]]
    assert len(mlp.vectors(uci_har.CODEBOOK)) == 3
    assert mlp.vectors(ONE) == []


@pytest.mark.parametrize("samples", [2, 3, 10, 128, 500])
def test_bands_cover_every_frequency_once(samples: int) -> None:
    found = mlp.edges(samples)
    assert found == sorted(set(found))
    assert found[0] == 1
    assert found[-1] == samples // 2 + 1


def test_features_agree_with_a_slow_reference() -> None:
    values = generator.generate(2, 3, 1).windows
    scale = np.array([c.scale for c in CODEBOOK.channels])[:, None]
    bands = mlp.edges(128)
    for window, got in zip(values, mlp.prepare(values, CODEBOOK), strict=True):
        x = window.astype(float) / scale
        variance = x.var(1)
        centred = x - x.mean(1, keepdims=True)
        unit = centred / np.sqrt(variance + 0.01)[:, None]
        want = [3 * np.tanh(0.75 * x.mean(1)), 0.5 * np.log(variance + 0.01) + 1]
        want += [np.tanh(0.5 * (unit**4).mean(1) - 1), np.tanh(0.3 * x.min(1)), np.tanh(0.3 * x.max(1))]
        taper = np.sin(np.pi * np.arange(128) / 128) ** 2 * np.sqrt(8 / 3)
        power = np.abs(np.fft.rfft(centred * taper)) ** 2 / 128 * 2 / 128
        for start, stop in pairwise(bands):
            want.append(0.25 * np.log(power[:, start:stop].sum(1) + 1e-4) + 1)
        pairs = list(combinations(range(6), 2))
        want.append(np.array([2 * np.mean(unit[i] * unit[j]) for i, j in pairs]))
        spectrum = np.fft.rfft(unit)[:, 1:8] / np.sqrt(128)
        want.append(np.array([4 / 128 * np.sum((spectrum[i] * spectrum[j].conj()).imag) for i, j in pairs]))
        lengths = [np.linalg.norm(x[:3], axis=0), np.linalg.norm(x[3:], axis=0)]
        for length in lengths:
            want.append(np.array([np.log(length.mean() + 0.03) + 0.5, 0.5 * np.log(length.var() + 1e-4) + 1]))
        one, other = ((v - v.mean()) / np.sqrt(v.var() + 0.01) for v in lengths)
        want.append(np.array([2 * np.mean(one * other)]))
        np.testing.assert_allclose(got, np.concatenate(want), rtol=1e-3, atol=1e-4)
