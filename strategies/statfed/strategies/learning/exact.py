"""Per-unit gradients of a stack of layers, many units at once, each to the last bit as if its unit were alone.

For sequences of linear, one-dimensional convolution and parameter-free layers (`covers`). Matrix products are taken by
the linear algebra library, whose order of additions depends on the shape of the whole and on a row's place in it. Here
that makes no difference, because nothing is rounded in them:

1. *Products are exact.* Each row is first written as whole numbers of p bits times a power of two of its own, and each
   column of weights likewise. A product of K terms is then a sum of K whole numbers of at most 2^(2p), and
   2 p + log2 K <= 53, so that every partial sum, in whatever order, with or without fused operations, is a whole number
   of at most 2^53, which float64 holds (Ozaki et al. 2012, "Error-free transformations of matrix multiplication").
   The sums of squares of norms are taken likewise, 1,024 entries at a time.
2. *Everything else is elementwise*: one operation of IEEE 754 (+, -, *, /, square root, rounding to whole numbers,
   comparison) on the operands at one place, correctly rounded, in an order that is fixed. The exponential is made of
   those too; a library's own may differ in the last bit between the body and the tail of a vector.
3. So a row of any result is a function of that row and of the public weights, and the gradient of a unit one of the
   unit's records and of the model, to the last bit, whatever model it is and whoever else is there.

What it costs is precision: p is 26 less half of log2 K, so entries come to 2^-21 of the largest one in their row with
1,024 inputs. That is a rounding of the layer's input, the same for everybody, of the size of float32's.

A layer with weights acts on a record as a matrix product at each of its positions (a linear layer on a vector has one,
a convolution one per output sample): z_t = W a_t + b. With g_t the derivative of the record's loss in z_t, the gradient
in W is the sum over t of g_t a_t^T and that in b the sum of g_t. A unit with a single position has a gradient of rank
one, of squared norm |g|^2 (|a|^2 + 1), bias included (Goodfellow 2015, "Efficient per-example gradient computations").
Otherwise it is formed. Either way the norm is that of the very numbers that enter the sum, and in the sum of one term
nothing cancels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from statfed.strategies.learning.unrounded import Array, bits_of, exponential, product, squared, whole

Product = nn.Linear | nn.Conv1d

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def covers(model: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether `slopes_of` is right for `model`: decided by exact types and options, never by name.

    A subclass, a hook, an option not argued for, a parameter that is shared, frozen or not its layer's own: no.
    """
    if type(model) is not nn.Sequential:
        return False
    layers = list(model)
    if any(getattr(module, hooks) for module in (model, *layers) for hooks in _HOOKS):
        return False
    if not all(_is_product(layer) or _is_per_record(layer) for layer in layers):
        return False
    used = [p for layer in layers if _is_product(layer) for p in (layer.weight, layer.bias) if p is not None]
    return (
        len(used) > 0
        and [id(p) for p in used] == [id(p) for p in model.parameters()]
        and all(isinstance(p, nn.Parameter) and p.requires_grad and p.dtype == torch.float32 for p in used)
    )


def _is_product(layer: nn.Module) -> TypeGuard[Product]:
    if type(layer) is nn.Conv1d:
        plain = layer.groups == 1 and layer.dilation == (1,) and layer.padding_mode == "zeros"
        return plain and not isinstance(layer.padding, str)
    return type(layer) is nn.Linear


def _is_per_record(layer: nn.Module) -> bool:
    if type(layer) is nn.Flatten:
        return layer.start_dim == 1 and layer.end_dim == -1
    if type(layer) is nn.AdaptiveAvgPool1d:
        return isinstance(layer.output_size, int)
    return type(layer) is nn.ReLU and not layer.inplace


@dataclass(frozen=True)
class Slopes:
    """A layer's inputs and slopes at each position of each record. Private.

    a: (records, positions, inputs); g: (records, positions, outputs); bias: whether the layer has one.
    """

    a: Array
    g: Array
    bias: bool

    def __repr__(self) -> str:
        return "Slopes(<private>)"

    @property
    def entries(self) -> int:
        """Values of one record's gradient that are formed where it has several positions."""
        return int(self.a.shape[2] * self.g.shape[2])

    def of_units(self, size: int) -> "Gradients":
        """Gradients summed over each unit's records, `size` of which are adjacent."""
        units = len(self.a) // size
        a = self.a.reshape(units, -1, self.a.shape[2])
        g = self.g.reshape(units, -1, self.g.shape[2])
        if a.shape[1] == 1:
            return RankOne(*squared(a[:, 0]), *squared(g[:, 0]), self.bias)
        ones = np.ones((units, a.shape[1], 1)) if self.bias else np.zeros((units, a.shape[1], 0))
        bits = bits_of(a.shape[1])
        left, up = whole(np.moveaxis(g, 1, 2), (1, 2), bits)
        right, also = whole(a, (1, 2), bits)
        rest, ends = whole(ones, (1, 2), bits)
        weight = (left @ right) * up * also
        bias = (left @ rest) * up * ends
        return Formed(*squared(weight.reshape(units, -1)), *squared(bias.reshape(units, -1)), self.bias)


@dataclass(frozen=True)
class RankOne:
    """Gradients g a^T of units with one position, and squared norms of the factors. Private."""

    a: Array
    aa: Array
    g: Array
    gg: Array
    bias: bool

    def squared_norms(self) -> Array:
        """(units,)"""
        return self.gg * (self.aa + float(self.bias))

    def weighted_sums(self, weights: Array) -> list[Array]:
        """Sum of the gradients times (units,) weights: of the layer's weight and, where it has one, bias."""
        g = self.g * weights[:, None]
        return [g.T @ self.a, g.sum(0)] if self.bias else [g.T @ self.a]


@dataclass(frozen=True)
class Formed:
    """Gradients of units in full, (units, entries) of weight and of bias, and their squared norms. Private."""

    weight: Array
    ww: Array
    offset: Array
    oo: Array
    bias: bool

    def squared_norms(self) -> Array:
        """(units,)"""
        return self.ww + self.oo

    def weighted_sums(self, weights: Array) -> list[Array]:
        """As of `RankOne`."""
        return [weights @ self.weight, weights @ self.offset] if self.bias else [weights @ self.weight]


Gradients = RankOne | Formed


def slopes_of(model: nn.Sequential, inputs: NDArray[Any], labels: NDArray[Any]) -> tuple[list[Slopes], NDArray[Any]]:
    """The layers' inputs and slopes for records, and which of them are finite throughout, (records,). Private.

    inputs: (records, ...), at least one; labels: whole numbers of classes, or floats in regression. A record that is
    not finite somewhere has zeros. Raises ValueError where a layer does not act on records one by one. Requires
    `covers(model)`.
    """
    value, alive = inputs.astype(np.float64), np.ones(len(inputs), np.bool_)
    passed: list[tuple[nn.Module, Array, Array]] = []
    with np.errstate(all="ignore"):
        _drop(value, alive)
        for layer in model:
            acted = _positions(layer, value)
            passed.append((layer, value, acted))
            value = _forward(layer, value, acted)
            if len(value) != len(inputs):
                raise ValueError(f"{layer} mixes records: got {len(inputs)}, gave {len(value)}")
            _drop(value, alive)
        slope = loss_slopes(value, labels)
        found: list[Slopes] = []
        first = next(i for i, (layer, _, _) in enumerate(passed) if _is_product(layer))
        for i, (layer, before, acted) in reversed(list(enumerate(passed))):
            _drop(slope, alive)
            if _is_product(layer):
                g = np.moveaxis(slope, 1, 2) if type(layer) is nn.Conv1d else slope
                g = g.reshape(len(g), -1, layer.weight.shape[0])
                found.append(Slopes(acted, np.ascontiguousarray(g), layer.bias is not None))
            if i == first:
                break
            slope = _backward(layer, before, slope)
    found.reverse()
    for each in found:
        each.a[~alive] = 0.0
        each.g[~alive] = 0.0
    return found, alive


def loss_slopes(outputs: Array, labels: NDArray[Any]) -> Array:
    """Derivatives of `losses` in the model's outputs, (records, outputs), each record by itself to the last bit."""
    if outputs.ndim != 2 or (labels.dtype.kind == "f" and outputs.shape[1] != 1):
        raise ValueError(f"unexpected outputs: got shape {outputs.shape}; want one row a record")
    if labels.dtype.kind == "f":
        return np.asarray(outputs - labels.astype(np.float64)[:, None])
    powers = exponential(outputs - outputs.max(axis=1, keepdims=True))
    total = powers[:, 0].copy()
    for column in range(1, outputs.shape[1]):
        total += powers[:, column]
    found = powers / total[:, None]
    found[np.arange(len(found)), labels] -= 1.0
    return np.asarray(found)


def _drop(values: Array, alive: NDArray[np.bool_]) -> None:
    """Take out records that are not finite: their values are zero from here on."""
    if np.isfinite(values.sum()):  # a value that is not finite stays so in any sum
        return
    alive &= np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    values[~alive] = 0.0


def _positions(layer: nn.Module, value: Array) -> Array:
    """What a layer with weights acts on, (records, positions, inputs); of others nothing that is used."""
    if type(layer) is nn.Conv1d:
        if value.ndim != 3:
            raise ValueError(f"{layer} mixes records: got shape {value.shape}; want (records, channels, samples)")
        wide, kernel = int(layer.padding[0]), layer.kernel_size[0]
        padded = np.pad(value, ((0, 0), (0, 0), (wide, wide)))
        seen = np.lib.stride_tricks.sliding_window_view(padded, kernel, 2)[:, :, :: layer.stride[0]]
        moved = np.moveaxis(seen, 1, 2)
        return np.array(moved.reshape(*moved.shape[:2], -1))
    if type(layer) is nn.Linear:
        if value.ndim < 2:
            raise ValueError(f"{layer} mixes records: got shape {value.shape}; want (records, ..., inputs)")
        return np.array(value.reshape(len(value), -1, value.shape[-1]))
    return value


def _matrix(layer: Product) -> Array:
    weight: Array = layer.weight.detach().double().numpy()
    return weight.reshape(len(weight), -1)


def _forward(layer: nn.Module, value: Array, acted: Array) -> Array:
    if _is_product(layer):
        z = product(acted, _matrix(layer).T)
        if layer.bias is not None:
            z = z + layer.bias.detach().double().numpy()
        if type(layer) is nn.Conv1d:
            return np.ascontiguousarray(np.moveaxis(z, 1, 2))
        return z.reshape(*value.shape[:-1], -1)
    if type(layer) is nn.AdaptiveAvgPool1d:
        out = np.zeros((*value.shape[:-1], _length(layer)))
        for place, (start, end) in enumerate(_windows(value.shape[-1], _length(layer))):
            for sample in range(start, end):
                out[..., place] += value[..., sample]
            out[..., place] /= end - start
        return out
    if type(layer) is nn.Flatten:
        return value.reshape(len(value), -1)
    return np.maximum(value, 0.0)


def _backward(layer: nn.Module, before: Array, slope: Array) -> Array:
    """The slopes in what a layer acted on, from those in what it gave."""
    if type(layer) is nn.Linear:
        return product(slope.reshape(len(slope), -1, slope.shape[-1]), _matrix(layer)).reshape(before.shape)
    if type(layer) is nn.Conv1d:
        return _folded(layer, before, product(np.moveaxis(slope, 1, 2), _matrix(layer)))
    if type(layer) is nn.AdaptiveAvgPool1d:
        out = np.zeros_like(before)
        for place, (start, end) in enumerate(_windows(before.shape[-1], _length(layer))):
            out[..., start:end] += slope[..., place, None] / (end - start)
        return out
    if type(layer) is nn.Flatten:
        return slope.reshape(before.shape)
    return np.where(before > 0.0, slope, 0.0)


def _folded(layer: nn.Conv1d, before: Array, slopes: Array) -> Array:
    """Slopes at each position of a convolution's kernel, added up where they are of one sample."""
    wide, kernel, stride = int(layer.padding[0]), layer.kernel_size[0], layer.stride[0]
    parts = slopes.reshape(*slopes.shape[:2], before.shape[1], kernel)
    out = np.zeros((*before.shape[:2], before.shape[2] + 2 * wide))
    for place in range(kernel):
        out[:, :, place : place + stride * parts.shape[1] : stride] += np.moveaxis(parts[..., place], 1, 2)
    return out[:, :, wide : wide + before.shape[2]]


def _length(layer: nn.AdaptiveAvgPool1d) -> int:
    return int(layer.output_size)  # type: ignore[arg-type]  # `covers` wants one number


def _windows(samples: int, out: int) -> Sequence[tuple[int, int]]:
    return [(i * samples // out, -(-(i + 1) * samples // out)) for i in range(out)]
