"""Clipped sums of per-unit gradients, exact, without per-record weight gradients where they can be avoided.

For plain stacks of linear, one-dimensional convolution and parameter-free layers (`covers`). Opacus's hooks remain
the reference and serve every other model.

A layer with weights acts on a record as a matrix product at each of its positions (a linear layer on a vector has
one, a convolution one per output sample): z_t = W a_t + b. With g_t the derivative of the record's loss in z_t, the
gradient in W is the sum of g_t a_t^T and the one in b the sum of g_t. One forward pass and one backward pass to the
layers' outputs give all a and g; autograd forms no weight gradient (book-keeping: Bu et al. 2022, 2023). Then:

- A unit with a single position (unit `record`, linear layer) has a gradient of rank one, whose norm is
  |g| sqrt(|a|^2 + 1), bias included (Goodfellow 2015, "Efficient per-example gradient computations"; "ghost
  clipping" of Li et al. 2022). The clipped sum is one matrix product, with the rows g scaled by the clip factors.
- Otherwise the unit's gradient is formed by one matrix product over all positions of all its records, in blocks of
  units that stay in the processor's cache; norm and clipped sum are taken of it.

Why exact: both are the norm over all layers of the very gradient that enters the sum. The identity has one term, so
nothing cancels in it, and in float64 no product of norms overflows or vanishes. The norm of many positions from
their Gram matrices, the sum over s, t of (g_s . g_t)(a_s . a_t), is deliberately not used: where the records of a
person nearly cancel, its rounding error has the size of the records' gradients, so a mean gradient above the
clipping norm could be measured as below it. Where a formed gradient rounds, its norm is that of the rounded one.

L2 sensitivity of a clipped sum to adding or removing one unit: the clipping norm, up to a relative 1e-5 of rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from operator import add
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

Product = nn.Linear | nn.Conv1d

BLOCK = 1 << 20
"""About how many float32 values a block of units may unfold to (4 MiB); a unit is never divided."""
_PER_RECORD = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Flatten, nn.AdaptiveAvgPool1d)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def clip_factors(norms: Tensor, clipping_norm: float) -> Tensor:
    """What each unit's gradient is multiplied by so that its L2 norm is at most `clipping_norm`.

    norms: (units,), private. Result: (units,) float32. A norm that is not finite, or so large that its factor falls
    below float32's normal range, where it would be coarse, gives exactly 0. The caller has to take such a unit's
    gradient out before it multiplies: 0 times infinity is not 0.
    """
    factors = (clipping_norm / (norms.float() + 1e-6)).clamp(max=1.0)
    return torch.where(factors >= torch.finfo(torch.float32).tiny, factors, 0.0)  # false for NaN


def covers(model: nn.Module) -> TypeGuard[nn.Sequential]:
    """Whether `clipped_sums` is right for `model`: decided by exact types and options, never by name.

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
        return layer.start_dim == 1
    return type(layer) in _PER_RECORD and not getattr(layer, "inplace", False)  # in place would overwrite a z


def clipped_sums(
    model: nn.Sequential,
    inputs: Tensor,
    losses: Callable[[Tensor], Tensor],
    sizes: Sequence[int],
    clipping_norm: float,
) -> list[Tensor]:
    """Sum over units of the mean gradient of the unit's records, each mean scaled to L2 norm at most `clipping_norm`.

    inputs: (records, ...), a unit's records adjacent; losses: from the model's output to (records,), each entry of
    its own record alone; sizes: records of each unit, at least 1 (fast where equal sizes are adjacent). All private.
    Result: one tensor for each of `model.parameters()`. A unit that is not finite somewhere contributes nothing.
    Raises ValueError where the shapes do not fit. Requires `covers(model)`.
    """
    if min(sizes) < 1 or sum(sizes) != len(inputs):
        raise ValueError(f"unexpected sizes of units: got {sum(sizes)} records in all; want {len(inputs)}")
    layers: list[Product] = []
    acted_on, outputs = [], []
    value = inputs
    for layer in model:
        before, value = value, layer(value)
        if len(value) != len(inputs) or (type(layer) is nn.Conv1d and value.dim() != 3):
            raise ValueError(f"{layer} mixes records: got shape {tuple(before.shape)}, gave {tuple(value.shape)}")
        if _is_product(layer):
            layers.append(layer)
            acted_on.append(before.detach())
            outputs.append(value)
    taps = list(zip(layers, acted_on, torch.autograd.grad(losses(value).sum(), outputs), strict=True))
    totals: list[Tensor] = []
    with torch.no_grad():
        for size, records in _blocks(taps, sizes):
            block = [(layer, a[records], g[records]) for layer, a, g in taps]
            gradients = [_gradients(*tap, size) for tap in block]
            norms = reduce(add, [each.squared_norms() for each in gradients]).sqrt() / size
            factors = clip_factors(norms, clipping_norm)
            if not bool(factors.all()):
                kept = factors.repeat_interleave(size) > 0
                gradients = [_gradients(layer, _only(kept, a), _only(kept, g), size) for layer, a, g in block]
            sums = [part for each in gradients for part in each.weighted_sums(factors / size)]
            totals = [total + part.view_as(total) for total, part in zip(totals, sums, strict=True)] if totals else sums
    return [total.view_as(p) for total, p in zip(totals, model.parameters(), strict=True)]


def _blocks(taps: Sequence[tuple[Product, Tensor, Tensor]], sizes: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Runs of units of one size whose formed gradients stay near BLOCK values: that size, and the run's records."""
    start = 0
    for size, group in groupby(sizes):
        end = start + size * len(list(group))
        values = sum(_unfolded(layer, g, size) for layer, _, g in taps)
        step = size * max(1, BLOCK // values) if values else end - start
        for first in range(start, end, step):
            yield size, slice(first, min(first + step, end))
        start = end


def _unfolded(layer: Product, g: Tensor, size: int) -> int:
    out = layer.weight.shape[0]
    positions = size * g.numel() // (g.shape[0] * out)
    return 0 if positions == 1 else layer.weight.numel() + positions * (layer.weight.numel() // out + out)


def _only(kept: Tensor, rows: Tensor) -> Tensor:
    return torch.where(kept.reshape(-1, *[1] * (rows.dim() - 1)), rows, 0.0)


def _gradients(layer: Product, a: Tensor, g: Tensor, size: int) -> "_RankOne | _Formed":
    """Gradients of a layer, summed over each unit's records, from inputs `a` and output slopes `g` of all records."""
    if type(layer) is nn.Conv1d:
        a = pad(a, 2 * [int(layer.padding[0])]).unfold(2, layer.kernel_size[0], layer.stride[0]).transpose(1, 2)
        g = g.transpose(1, 2)
    units = len(a) // size
    a = a.reshape(units, -1, layer.weight.numel() // layer.weight.shape[0])
    g = g.reshape(units, -1, layer.weight.shape[0])
    with_bias = layer.bias is not None
    if a.shape[1] == 1:
        return _RankOne(a[:, 0], g[:, 0], with_bias)
    return _Formed(torch.bmm(g.transpose(1, 2), a).flatten(1), g.sum(1) if with_bias else None)


@dataclass(frozen=True)
class _RankOne:
    """The gradients g a^T of units with one position each. a: (units, in), g: (units, out), private."""

    a: Tensor
    g: Tensor
    with_bias: bool

    def squared_norms(self) -> Tensor:
        a, g = (torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64).square_() for rows in (self.a, self.g))
        total: Tensor = g * (a + float(self.with_bias))
        return total

    def weighted_sums(self, weights: Tensor) -> list[Tensor]:
        g = self.g * weights[:, None]
        return [g.t() @ self.a, g.sum(0)] if self.with_bias else [g.t() @ self.a]


@dataclass(frozen=True)
class _Formed:
    """The gradients of units in full. weight: (units, out * in), bias: (units, out) or None, private."""

    weight: Tensor
    bias: Tensor | None

    def squared_norms(self) -> Tensor:
        parts = [part for part in (self.weight, self.bias) if part is not None]
        squares: list[Tensor] = [torch.linalg.vector_norm(part, dim=1).double().square() for part in parts]
        return reduce(add, squares)

    def weighted_sums(self, weights: Tensor) -> list[Tensor]:
        return [weights @ part for part in (self.weight, self.bias) if part is not None]
