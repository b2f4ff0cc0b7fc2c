"""A holder's half of one step of `dp-fedsgd`: noisy sum of clipped gradients in whole numbers.

Formal guarantee, for one privacy unit (a record, or all records of one person) of this holder, under add-or-remove-one
neighbours, of everything that is released over the steps of a study, against whoever sees the sums over holders (plain:
this holder's contributions) and knows at most `colluders` other holders' noise:

1. *Sampling.* The batch is a Poisson sample at the public rate q; whether a unit is in it depends on nothing else.
2. *Sensitivity.* The gradient of a unit is a function of that unit's records and the public model, by construction and
   to the last bit: every unit is computed by itself, in float64, on memory of its own and one thread. (In a block of
   units the last bit depends on the places of the rows, and whoever chooses the model can make it decide a gradient's
   direction: adding one of 300 records then moves the sum by 7 times D, see the tests.) It is scaled to L2 norm at
   most C, to a relative 10^-6, or dropped where it is not finite; the sum over units is rounded once to whole grid
   units. Rounding moves neighbouring sums apart by at most 1 more in each entry, so one unit changes the whole numbers
   by at most C/unit + sqrt(d) in L2 norm, and `Step.unit` leaves a hundred-thousandth of D (`Step.sensitivity`) for
   clipping and for the additions: those of n sampled units, 1,024 at a time, err by less than n (1024 + n / 1024)
   2^-53 C in a sum (Higham 2002, section 4.2), which for two neighbours is enough up to five million sampled units.
   What is assumed is that the same operations on the same numbers in memory aligned alike give the same result, as
   the linear algebra libraries promise (Intel MKL, conditional numerical reproducibility), and that inputs were
   prepared record by record.
3. *Noise.* The numbers that leave carry, beside the noise of colluders, the sum of h draws from N_Z(0, SIGMA^2) in each
   entry at least, D = SIGMA sqrt(h) / noise_multiplier: event `PoissonSampled(q, DiscreteGaussians(...))`. How that is
   accounted for stands in `statfed.core.privacy.accountant` and `statfed.core.privacy.closeness`: as the sampled
   Gaussian mechanism of the same multiplier, whose rounded output is as if drawn from the same law but for a factor
   exp(log_ratio), which is below 1e-6 a step for a million parameters, and is added.
4. *Under a protection that hides contributions* the coordinator sees totals modulo a ring that none can leave, and
   whoever colludes with it can subtract what it knows, its own draw included. Sums over fewer than the agreed holders
   are never formed. A holder's own view of the models counts as a colluder, since it knows its draw.

What other holders' units contribute, the public model and earlier totals are fixed in this argument or are functions of
what was released. The number of units divides nothing: the coordinator divides by the public q n of all holders,
whoever dropped out.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap  # pyright: ignore[reportPrivateImportUsage]

from statfed.core.privacy import discrete
from statfed.core.randomness import Stream
from statfed.core.terms import Privacy
from statfed.strategies.learning.clipping import clip_factors
from statfed.strategies.learning.losses import losses, mean_loss
from statfed.strategies.learning.step import SIGMA, Step

BLOCK = 1024
"""Units whose gradients are added up before they are added to the rest."""


def noisy_sum(
    model: nn.Module,
    inputs: NDArray[np.float32],
    labels: NDArray[Any],
    persons: NDArray[np.int64],
    privacy: Privacy,
    plan: Step,
    sampling: Stream,
    noise: Stream,
) -> NDArray[np.int64]:
    """This holder's contribution to one step, (parameters,) grid units.

    inputs: (records, ...) prepared for the model; labels, persons: (records,). All private; so is `clipped_sum`, which
    the result is with noise. sampling, noise: streams that no other step, holder or purpose uses.
    """
    total = clipped_sum(model, inputs, labels, batch(persons, privacy, plan.rate, sampling), plan)
    return total + discrete.draw_gaussian(SIGMA, plan.entries, noise)


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


def clipped_sum(
    model: nn.Module,
    inputs: NDArray[np.float32],
    labels: NDArray[Any],
    units: Sequence[NDArray[np.int64]],
    plan: Step,
) -> NDArray[np.int64]:
    """Sum over units of the mean gradient of the unit's records, clipped and rounded to the grid, (parameters,).

    units: rows of each. A unit that is not finite somewhere contributes nothing. L2 sensitivity to one unit:
    `plan.sensitivity`. Raises ValueError on a model that is not a function of one unit's records.
    """
    torch.set_num_threads(1)  # the order of float additions must not depend on the machine
    net = deepcopy(model).double().train()
    if sum(p.numel() for p in net.parameters()) != plan.entries:
        raise ValueError(f"model: got other parameters than planned; want {plan.entries}")
    _check(net, inputs.shape[1:], labels)
    total = torch.zeros(plan.entries, dtype=torch.float64)
    for start in range(0, len(units), BLOCK):
        block = torch.zeros_like(total)
        for rows in units[start : start + BLOCK]:
            x, y = torch.from_numpy(inputs[rows]).double(), torch.from_numpy(labels[rows])
            slopes = torch.autograd.grad(mean_loss(net(x), y), list(net.parameters()))
            block += _clipped(torch.cat([slope.flatten() for slope in slopes]), plan.clipping_norm)
        total += block
    whole: NDArray[np.int64] = (total / plan.unit).round_().to(torch.int64).numpy()
    return whole


def _check(net: nn.Module, shape: tuple[int, ...], labels: NDArray[Any]) -> None:
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


def _clipped(flat: Tensor, norm: float) -> Tensor:
    """A gradient, (parameters,) float64, scaled to L2 norm at most `norm` to within 10^-6 of it."""
    factor = clip_factors(torch.linalg.vector_norm(flat), norm).double()
    return flat * factor if factor > 0 else torch.zeros_like(flat)
