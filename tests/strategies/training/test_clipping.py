"""Clipped sums against autograd on one unit at a time and against Opacus's per-record gradients."""

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opacus import GradSampleModule
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

from statfed.scenarios.time_use import CODEBOOK
from statfed.strategies.learning import clipping
from statfed.strategies.learning.clipping import clip_factors, clipped_total
from statfed.strategies.learning.exact import covers, loss_slopes, slopes_of
from statfed.strategies.learning.unrounded import exponential
from statfed.strategies.models import cnn, mlp

CLASSES = 3
Stack = tuple[nn.Sequential, tuple[int, ...]]
"""A model and the shape of one record."""


@st.composite
def vector_stacks(draw: st.DrawFn) -> Stack:
    torch.manual_seed(draw(st.integers(0, 99)))
    widths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b, bias=draw(st.booleans())), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES, bias=draw(st.booleans()))), (widths[0],)


@st.composite
def series_stacks(draw: st.DrawFn) -> Stack:
    torch.manual_seed(draw(st.integers(0, 99)))
    shape = (draw(st.integers(1, 3)), draw(st.integers(5, 16)))
    channels, length = shape
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 2))):
        padding, wide = draw(st.integers(0, 3)), draw(st.integers(1, 5))
        kernel, stride = draw(st.integers(1, min(5, length + 2 * padding))), draw(st.integers(1, 3))
        layers += [nn.Conv1d(channels, wide, kernel, stride, padding, bias=draw(st.booleans())), nn.ReLU()]
        channels, length = wide, (length + 2 * padding - kernel) // stride + 1
    if draw(st.booleans()):
        layers.append(nn.Linear(length, 4))  # at every channel: a linear layer with several positions
        length = 4
    if draw(st.booleans()):
        length = draw(st.integers(1, 2))
        layers.append(nn.AdaptiveAvgPool1d(length))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * length, CLASSES)), shape


units = st.one_of(
    st.integers(1, 12).map(lambda count: [1] * count), st.lists(st.integers(1, 5), min_size=1, max_size=6)
)


def data(shape: tuple[int, ...], count: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        scale * torch.randn(count, *shape, generator=generator),
        torch.randint(0, CLASSES, (count,), generator=generator),
    )


def losses(labels: Tensor) -> Callable[[Tensor], Tensor]:
    return partial(cross_entropy, target=labels, reduction="none")


def fast(model: nn.Sequential, x: Tensor, y: Tensor, sizes: list[int], norm: float) -> Tensor:
    return clipped_total(model, x.numpy(), y.numpy(), rows_of(sizes), norm)


def rows_of(sizes: list[int]) -> list[NDArray[np.int64]]:
    ends = np.cumsum([0, *sizes])
    return [np.arange(a, b) for a, b in pairwise(ends)]


def one_by_one(model: nn.Module, x: Tensor, y: Tensor, sizes: list[int]) -> Tensor:
    """Mean gradient of each unit, (units, parameters): autograd in float64 on that unit alone."""
    rows = []
    for x_unit, y_unit in zip(x.double().split(sizes), y.split(sizes), strict=True):
        twin = copy.deepcopy(model).double()
        cross_entropy(twin(x_unit), y_unit).backward()
        rows.append(torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None]))
    return torch.stack(rows)


def clipped(gradients: Tensor, norm: float) -> Tensor:
    factors = (norm / (gradients.norm(dim=1) + 1e-6)).clamp(max=1.0)
    total: Tensor = factors @ gradients
    return total


def hooks(model: nn.Sequential, x: Tensor, y: Tensor, sizes: list[int], norm: float) -> Tensor:
    twin = copy.deepcopy(model)
    wrapped = GradSampleModule(twin, loss_reduction="sum")
    losses(y)(wrapped(x)).sum().backward()
    samples = torch.cat([p.grad_sample.flatten(1) for p in twin.parameters()], 1).double()  # type: ignore[attr-defined]
    units = torch.stack([rows.mean(0) for rows in samples.split(sizes)])
    whole = units.isfinite().all(1)
    return clipped(units[whole], norm)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.one_of(vector_stacks(), series_stacks()), units, st.integers(0, 999), st.sampled_from([0.5, 1.0, 2.0]))
def test_sums_equal_hooks_and_one_unit_at_a_time_whether_all_some_or_no_units_are_clipped(
    stack: Stack, sizes: list[int], seed: int, share: float
) -> None:
    model, shape = stack
    assert covers(model)
    x, y = data(shape, sum(sizes), seed)
    gradients = one_by_one(model, x, y, sizes)
    norms = gradients.norm(dim=1)
    norm = float({0.5: norms.min(), 1.0: norms.median(), 2.0: norms.max()}[share] * share)
    ours = fast(model, x, y, sizes, norm)
    tolerance = 3e-6 * norm * len(sizes)
    torch.testing.assert_close(ours, clipped(gradients, norm), atol=tolerance, rtol=0.0)
    torch.testing.assert_close(ours, hooks(model, x, y, sizes, norm), atol=tolerance, rtol=0.0)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.one_of(vector_stacks(), series_stacks()),
    units,
    st.integers(0, 999),
    st.sampled_from([1e-3, 1.0, 1e3, 1e6]),
    st.sampled_from([1e-4, 0.1, 10.0]),
)
def test_a_unit_adds_at_most_the_clipping_norm_at_any_scale_of_inputs(
    stack: Stack, sizes: list[int], seed: int, scale: float, norm: float
) -> None:
    model, shape = stack
    x, y = data(shape, sum(sizes), seed, scale)
    alone = sizes[0]
    assert float(fast(model, x[:alone], y[:alone], [alone], norm).norm()) <= norm * (1 + 1e-5)
    if len(sizes) > 1:
        moved = fast(model, x, y, sizes, norm) - fast(model, x[alone:], y[alone:], sizes[1:], norm)
        assert float(moved.norm()) <= norm * (1 + 1e-5 + 3e-6 * len(sizes))


@pytest.mark.parametrize("seed", range(20))
def test_a_person_whose_records_nearly_cancel_is_clipped_by_the_norm_of_what_is_left(seed: int) -> None:
    """A squared Gram norm in float32 comes out between -3000 and 500 here; it is about 1."""
    model = nn.Sequential(nn.Linear(5, CLASSES))
    nn.init.zeros_(next(model.parameters()))
    x, y = data((5,), 2, seed)
    x[0] *= 1e5
    x[1] -= x[0]
    y[1] = y[0]
    kept = fast(model, x, y, [2], 0.01)
    assert 0.0099 <= float(kept.norm()) <= 0.01 * (1 + 1e-5)


@pytest.mark.parametrize("block", [1, 40, 1000])
def test_sums_do_not_depend_on_how_units_are_cut_into_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES))
    sizes = [3, 1, 1, 2, 2, 2, 2, 1]
    x, y = data((2, 8), sum(sizes), 1)
    whole = fast(model, x, y, sizes, 0.3)
    monkeypatch.setattr(clipping, "BLOCK", block)
    monkeypatch.setattr(clipping, "UNITS", 2)
    torch.testing.assert_close(fast(model, x, y, sizes, 0.3), whole, atol=1e-6, rtol=0.0)


STACKS: dict[str, Callable[[], Stack]] = {
    "vector": lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, CLASSES)), (4,)),
    "series": lambda: (
        nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, CLASSES)),
        (2, 9),
    ),
}


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 3e38], ids=str)
@pytest.mark.parametrize("sizes", [[1] * 6, [2, 2, 2]], ids=["record", "person"])
@pytest.mark.parametrize("stack", STACKS)
def test_a_unit_that_is_not_finite_or_overflows_inside_takes_nothing_else_with_it(
    stack: str, sizes: list[int], bad: float
) -> None:
    torch.manual_seed(0)
    model, shape = STACKS[stack]()
    with torch.no_grad():
        next(model.parameters()).mul_(100.0)  # 3e38 in, infinity out
    x, y = data(shape, 6, 1)
    x[3] = bad
    hit = 3 // sizes[0]
    others = torch.ones(6, dtype=torch.bool)
    others[hit * sizes[0] : (hit + 1) * sizes[0]] = False
    ours = fast(model, x, y, sizes, 0.5)
    assert float(ours.norm()) > 0.1
    without = fast(model, x[others], y[others], sizes[1:], 0.5)
    if bad == 3e38:  # infinite in float32, a gradient like any other here
        assert float((ours - without).norm()) <= 0.5 * (1 + 1e-6)
        return
    torch.testing.assert_close(ours, without, atol=1e-15, rtol=0.0)
    torch.testing.assert_close(ours, hooks(model, x, y, sizes, 0.5), atol=5e-6, rtol=0.0)


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [2, 2]], ids=["record", "person"])
def test_a_unit_that_is_not_finite_in_one_layer_adds_nothing_in_the_others_either(sizes: list[int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, CLASSES))
    nn.init.constant_(next(model.parameters()), -1.0)  # infinity in, a dead layer out: the next layer's part is finite
    x, y = data((2,), 4, 1)
    x[-1] = torch.inf
    finite = sum(sizes[:-1])
    want = fast(model, x[:finite], y[:finite], sizes[:-1], 0.5)
    torch.testing.assert_close(fast(model, x, y, sizes, 0.5), want, atol=1e-6, rtol=0.0)
    assert torch.isfinite(want).all()


def test_factors_bound_the_norm_or_drop_the_unit() -> None:
    norms = torch.tensor([0.0, 0.1, 5.0, 1e38, torch.inf, torch.nan], dtype=torch.float64)
    factors = clip_factors(norms, 0.5)
    assert factors.dtype == torch.float32
    torch.testing.assert_close(factors, torch.tensor([1.0, 1.0, 0.1, 0.0, 0.0, 0.0]), rtol=1e-5, atol=0.0)
    large = torch.logspace(0, 37, 200)
    assert bool((clip_factors(large, 0.5) * large <= 0.5 * (1 + 1e-6)).all())


class Halved(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) / 2


class Tall(nn.Sequential):
    pass


def shared() -> nn.Module:
    one = nn.Linear(4, 4)
    return nn.Sequential(one, nn.ReLU(), one)


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    model[0].weight.requires_grad_(False)
    return model


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 3))
    model[0].register_forward_hook(lambda _module, _inputs, output: output - output.mean(0))
    return model


NOT_COVERED: dict[str, Callable[[], nn.Module]] = {
    "a single layer": lambda: nn.Linear(4, 3),
    "layer normalisation": lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3)),
    "batch normalisation": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)),
    "embedding": lambda: nn.Sequential(nn.Embedding(4, 4), nn.Flatten(), nn.Linear(4, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 3)),
    "subclass of a layer": lambda: nn.Sequential(Halved(4, 3)),
    "subclass of the stack": lambda: Tall(nn.Linear(4, 3)),
    "nested stack": lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 3))),
    "a layer twice": shared,
    "tied weights": tied,
    "frozen weights": frozen,
    "forward hook": hooked,
    "parametrized": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))),
    "in place": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 3)),
    "flattens records": lambda: nn.Sequential(nn.Flatten(0), nn.Linear(4, 3)),
    "groups": lambda: nn.Sequential(nn.Conv1d(4, 4, 3, groups=2)),
    "dilation": lambda: nn.Sequential(nn.Conv1d(4, 4, 3, dilation=2)),
    "padding by name": lambda: nn.Sequential(nn.Conv1d(4, 4, 3, padding="same")),
    "circular padding": lambda: nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")),
    "no parameters": lambda: nn.Sequential(nn.ReLU()),
    "tanh": lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)),
    "flattens a part": lambda: nn.Sequential(nn.Flatten(1, 2), nn.Linear(4, 3)),
    "float64": lambda: nn.Sequential(nn.Linear(4, 3)).double(),
}


@pytest.mark.parametrize("model", NOT_COVERED)
def test_models_that_the_argument_does_not_hold_for_are_computed_unit_by_unit(model: str) -> None:
    assert not covers(NOT_COVERED[model]())


def test_models_of_the_library_are_covered() -> None:
    assert covers(mlp.build(CODEBOOK, 8, 0))
    assert covers(cnn.build(CODEBOOK, 8, 0))


def test_a_convolution_that_takes_records_for_channels_is_refused() -> None:
    model = nn.Sequential(nn.Conv1d(3, 3, 3, padding=1), nn.Linear(6, CLASSES))
    x, y = data((6,), 3, 1)
    with pytest.raises(ValueError, match="mixes records"):
        fast(model, x, y, [1, 1, 1], 1.0)


def test_a_unit_without_records_is_refused() -> None:
    x, y = data((4,), 3, 1)
    with pytest.raises(ValueError, match="unit without records"):
        fast(STACKS["vector"]()[0], x, y, [3, 0], 1.0)


def test_the_comparison_with_the_reference_fails_when_the_factors_are_wrong() -> None:
    model, shape = STACKS["vector"]()
    x, y = data(shape, 6, 1)
    want = clipped(one_by_one(model, x, y, [1] * 6), 0.1)
    with patch.object(clipping, "clip_factors", lambda norms, norm: 1.001 * clip_factors(norms, norm)):
        ours = fast(model, x, y, [1] * 6, 0.1)
    assert float((ours - want).abs().max()) > 3e-6 * 0.1 * 6


def unit_by_unit(model: nn.Sequential, x: Tensor, y: Tensor, sizes: list[int]) -> list[list[bytes]]:
    """The bits of each unit's gradient, computed alone."""
    found = []
    for rows in rows_of(sizes):
        slopes, alive = slopes_of(model, x.numpy()[rows], y.numpy()[rows])
        found.append([alive.tobytes(), *bits_of(slopes, len(rows))[0]])
    return found


def bits_of(slopes: list[Any], size: int) -> list[list[bytes]]:
    units = len(slopes[0].a) // size
    kept = [vars(each.of_units(size)) for each in slopes]
    return [[each[name][i].tobytes() for each in kept for name in each if name != "bias"] for i in range(units)]


def hostile(model: nn.Sequential, seed: int) -> nn.Sequential:
    """Pairs of equal rows whose differences, nothing but rounding, a coordinator multiplies; and wild scales."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            half = len(p) // 2
            p.copy_(
                torch.randn(p.shape, generator=generator)
                * 10.0 ** torch.randint(-3, 12, p.shape[:1], generator=generator).reshape(-1, *[1] * (p.dim() - 1))
            )
            if half and p.dim() > 1:
                p[half : 2 * half] = p[:half]
    return model


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.one_of(vector_stacks(), series_stacks()), st.integers(1, 3), st.integers(2, 40), st.integers(0, 999))
def test_a_units_gradient_has_the_same_bits_whoever_else_is_there_and_wherever_it_stands(
    stack: Stack, size: int, units: int, seed: int
) -> None:
    model, shape = stack
    hostile(model, seed)
    x, y = data(shape, units * size, seed)
    alone = unit_by_unit(model, x, y, [size] * units)
    order = np.random.default_rng(seed).permutation(units)[: max(1, units - seed % 3)]
    rows = np.concatenate([np.arange(size) + size * unit for unit in order])
    slopes, alive = slopes_of(model, x.numpy()[rows], y.numpy()[rows])
    for place, unit in enumerate(order):
        own = alive[place * size : (place + 1) * size].tobytes()
        assert [own, *bits_of(slopes, size)[place]] == alone[unit]


def crafted(inputs: int) -> nn.Sequential:
    """Pairs of equal hidden units, whose differences, nothing but rounding, decide the direction of the gradient."""
    torch.manual_seed(0)
    first, last = nn.Linear(inputs, 30), nn.Linear(30, 2)
    rows, heads = torch.randn(15, inputs), torch.randn(15) * 1e17
    with torch.no_grad():
        first.weight.copy_(torch.cat([rows, rows]))
        last.weight.copy_(torch.outer(torch.tensor([1.0, -1.0]), torch.cat([heads, -heads])))
        first.bias.zero_()
        last.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last)


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("inputs", [50, 119])
def test_no_crafted_model_makes_one_unit_move_the_sum_by_more_than_the_clipping_norm(inputs: int, each: int) -> None:
    """In ordinary blocks of float32 this model moves the sum of 1,000 records by 16 times the norm."""
    model, labels = crafted(inputs), np.zeros(999, np.int64)
    x = np.random.default_rng(1).normal(size=(999, inputs)).astype(np.float32)
    units = rows_of([each] * (999 // each))
    whole = clipped_total(model, x, labels, units, 0.5)
    moved = []
    for gone in (0, 1, 7, len(units) // 2, len(units) - 1):
        without = clipped_total(model, x, labels, units[:gone] + units[gone + 1 :], 0.5)
        moved.append(float((whole - without).norm()))
    assert 0.49 < max(moved) <= 0.5 * (1 + 1e-6)


def test_exponentials_and_slopes_are_those_of_the_library_to_rounding() -> None:
    x = np.concatenate([-np.logspace(-12, 2.8, 4000), [0.0]])
    np.testing.assert_allclose(exponential(x), np.exp(x), rtol=4e-16)
    outputs = torch.randn(50, 4, dtype=torch.float64) * 5
    labels = torch.randint(0, 4, (50,))
    outputs.requires_grad_()
    (want,) = torch.autograd.grad(cross_entropy(outputs, labels, reduction="sum"), outputs)
    np.testing.assert_allclose(loss_slopes(outputs.detach().numpy(), labels.numpy()), want.numpy(), atol=1e-15)
    with pytest.raises(ValueError, match="want one row a record"):
        loss_slopes(np.zeros((3, 2)), np.zeros(3, np.float32))
