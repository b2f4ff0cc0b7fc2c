"""Clipped sums of per-unit gradients, in which no unit's part depends on which others there are.

A unit's gradient is a function of that unit's records and of the public model, by construction and to the last bit:
`statfed.strategies.learning.exact` computes many units at once without rounding in any product, for the stacks of
layers that it covers; every other model is computed unit by unit, in float64, on memory of its own and one thread.
In blocks of units with ordinary products the last bit depends on the places of the rows, and whoever chooses the model
can make it decide a gradient's direction: adding one of 1,000 records then moved the sum by 20 times the clipping norm.

Formal guarantee. Adding or removing one unit changes a clipped sum by at most

    C (1 + 10^-6) + 2 n (2048 + n / 1024) 2^-53 C

in L2 norm, for every finite model, with C the clipping norm and n the number of units in it. The first part is the
unit's own: scaled by a factor that float32 rounds, or dropped where it is not finite. The rest are the same numbers in
both sums; they are added in float64, 1,024 units and their last block at a time, which errs by less than half the
second part (Higham 2002, section 4.2). With five million units that is 8 * 10^-6 C. What is assumed of the machine is
IEEE 754, and for models that are not covered that the same operations on the same numbers in memory aligned alike give
the same result, as linear algebra libraries promise (Intel MKL, conditional numerical reproducibility).
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap  # pyright: ignore[reportPrivateImportUsage]

from statfed.core.randomness import Stream
from statfed.core.terms import Privacy
from statfed.strategies.learning.exact import covers, slopes_of
from statfed.strategies.learning.losses import losses, mean_loss

UNITS = 1024
"""Units whose gradients are added up, with their last block, before they are added to the rest."""
BLOCK = 1 << 20
"""About how many values the gradients of a block of units may unfold to; a unit is never divided."""

Rows = NDArray[np.int64]


def batch(persons: NDArray[np.int64], privacy: Privacy, rate: float, sampling: Stream) -> list[NDArray[np.int64]]:
    """A Poisson sample of privacy units: the rows of each, at most `max_records_per_unit` of one person. Private."""
    if privacy.unit == "record":
        return [row[None] for row in sampling.choose(len(persons), rate)]
    order = np.argsort(persons, kind="stable")
    starts = np.flatnonzero(np.diff(persons[order])) + 1
    owned = np.split(order, starts) if len(persons) else []
    most = privacy.max_records_per_unit
    chosen = [owned[i] for i in sampling.choose(len(owned), rate)]
    return [rows if len(rows) <= most else rows[sampling.permutation(len(rows))[:most]] for rows in chosen]


def clip_factors(norms: Tensor, clipping_norm: float) -> Tensor:
    """What each unit's gradient is multiplied by so that its L2 norm is at most `clipping_norm`.

    norms: (units,), private. Result: (units,) float32. A norm that is not finite, or so large that its factor falls
    below float32's normal range, where it would be coarse, gives exactly 0. The caller has to take such a unit's
    gradient out before it multiplies: 0 times infinity is not 0.
    """
    factors = (clipping_norm / (norms.float() + 1e-6)).clamp(max=1.0)
    return torch.where(factors >= torch.finfo(torch.float32).tiny, factors, 0.0)  # false for NaN


def clipped_total(
    model: nn.Module, inputs: NDArray[np.float32], labels: NDArray[Any], units: Sequence[Rows], clipping_norm: float
) -> Tensor:
    """Sum over units of the mean gradient of the unit's records, clipped, (parameters,) float64. Private.

    inputs: (records, ...) prepared for the model; labels: (records,); units: the rows of each, at least one; all
    private. A unit that is not finite somewhere contributes nothing. Raises ValueError on a model that is not a
    function of one unit's records, whatever the units are.
    """
    torch.set_num_threads(1)
    if any(len(rows) < 1 for rows in units):
        raise ValueError("unexpected sizes of units: got a unit without records; want one or more")
    if covers(model):
        blocks = _together(model, inputs, labels, units, clipping_norm)
    else:
        net = deepcopy(model).double().train()
        check_alone(net, inputs.shape[1:], labels)
        blocks = _alone(net, inputs, labels, units, clipping_norm)
    total = torch.zeros(sum(p.numel() for p in model.parameters()), dtype=torch.float64)
    part, counted = torch.zeros_like(total), 0
    for count, block in blocks:
        part, counted = part + block, counted + count
        if counted >= UNITS:
            total, part, counted = total + part, torch.zeros_like(total), 0
    return total + part


def _together(
    model: nn.Sequential, inputs: NDArray[np.float32], labels: NDArray[Any], units: Sequence[Rows], norm: float
) -> Iterator[tuple[int, Tensor]]:
    """Blocks of units of one size: how many, and their clipped sum."""
    by_size: dict[int, list[Rows]] = {}
    for rows in units:
        by_size.setdefault(len(rows), []).append(rows)
    for size, alike in sorted(by_size.items()):
        start, count = 0, 1
        while start < len(alike):
            rows = np.stack(alike[start : start + count])
            slopes, alive = slopes_of(model, inputs[rows.ravel()], labels[rows.ravel()])
            gradients = [each.of_units(size) for each in slopes]
            norms = np.sqrt(reduce(add, [each.squared_norms() for each in gradients])) / size
            factors = clip_factors(torch.from_numpy(norms), norm).double().numpy()
            factors = np.where(alive.reshape(-1, size).all(axis=1), factors, 0.0)
            sums = [part.ravel() for each in gradients for part in each.weighted_sums(factors / size)]
            yield len(rows), torch.from_numpy(np.concatenate(sums))
            start += count
            formed = sum(each.entries for each in slopes if size * each.a.shape[1] > 1)
            values = sum(each.a[0].size + each.g[0].size for each in slopes) * size + formed
            count = min(UNITS, max(1, BLOCK // values))


def _alone(
    net: nn.Module, inputs: NDArray[np.float32], labels: NDArray[Any], units: Sequence[Rows], norm: float
) -> Iterator[tuple[int, Tensor]]:
    for rows in units:
        x, y = torch.from_numpy(inputs[rows]).double(), torch.from_numpy(labels[rows])
        slopes = torch.autograd.grad(mean_loss(net(x), y), list(net.parameters()))
        yield 1, clipped(torch.cat([slope.flatten() for slope in slopes]), norm)


def clipped(flat: Tensor, norm: float) -> Tensor:
    """A gradient, (parameters,) float64, scaled to L2 norm at most `norm` to within 10^-6 of it."""
    factor = clip_factors(torch.linalg.vector_norm(flat), norm).double()
    return flat * factor if factor > 0 else torch.zeros_like(flat)


def check_alone(net: nn.Module, shape: tuple[int, ...], labels: NDArray[Any]) -> None:
    """Raise ValueError on a model that keeps or draws something between units. shape: of one record's inputs.

    Decided on zeros, so that a refusal tells nothing: a function of one unit can be mapped over units.
    """

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return losses(functional_call(net, values, (x,)), y).mean()

    parameters = {name: p.detach() for name, p in net.named_parameters()}
    x, y = (
        torch.zeros(1, 2, *shape, dtype=torch.float64),
        torch.zeros(1, 2, dtype=torch.int64 if labels.dtype.kind == "i" else torch.float64),
    )
    try:
        vmap(grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
    except RuntimeError as error:
        raise ValueError(f"model: not a function of one unit's records ({type(error).__name__})") from None
