"""A holder's half of one step of `dp-fedsgd`: noisy sum of clipped gradients in whole numbers.

Formal guarantee, for one privacy unit (a record, or all records of one person) of this holder, under add-or-remove-one
neighbours, of everything that is released over the steps of a study, against whoever sees the sums over holders (plain:
this holder's contributions) and knows at most `colluders` other holders' noise:

1. *Sampling.* The batch is a Poisson sample at the public rate q; whether a unit is in it depends on nothing else.
2. *Sensitivity.* The gradient of a unit is a function of that unit's records and the public model, by construction: a
   function of one unit is mapped over units (torch.func.vmap). It is scaled to L2 norm at most C, or dropped where it
   is not finite; the sum over units is rounded once to whole grid units. Rounding moves neighbouring sums apart by less
   than 1 more in each entry, so one unit changes the whole numbers by less than C/unit + sqrt(d) in L2 norm, and
   `Step.unit` leaves a hundred-thousandth of D (`Step.sensitivity`) above that for floating-point error: gradients and
   sums are float64, so that another order or another neighbour in a block moves the result of n units by some n 2^-53
   of D. That is what is assumed of the arithmetic, and it is not proved for every model.
3. *Noise.* The numbers that leave carry, beside the noise of colluders, the sum of h draws from N_Z(0, SIGMA^2) in each
   entry at least, D = SIGMA sqrt(h) / noise_multiplier: event `PoissonSampled(q, DiscreteGaussians(...))`. How that is
   accounted for stands in `statfed.core.privacy` and `statfed.core.closeness`: as the sampled Gaussian mechanism of the
   same multiplier, whose rounded output is as if drawn from the same law but for a factor exp(log_ratio), which is
   below 1e-6 a step for a million parameters, and is added.
4. *Under a protection that hides contributions* the coordinator sees totals modulo a ring that none can leave, and
   whoever colludes with it can subtract what it knows, its own draw included. Sums over fewer than the agreed holders
   are never formed. A holder's own view of the models counts as a colluder, since it knows its draw.

What other holders' units contribute, the public model and earlier totals are fixed in this argument or are functions of
what was released. The number of units divides nothing: the coordinator divides by the public q n of all holders,
whoever dropped out.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap  # pyright: ignore[reportPrivateImportUsage]
from torch.nn.functional import cross_entropy

from statfed.client.clipping import clip_factors
from statfed.core import discrete
from statfed.core.fedsgd import SIGMA, Step
from statfed.core.randomness import Stream
from statfed.core.study import Terms

BLOCK = 1 << 19
"""About how many gradient values a block of units may have (4 MiB)."""


def noisy_sum(
    model: nn.Module,
    inputs: NDArray[np.float32],
    labels: NDArray[np.int64],
    persons: NDArray[np.int64],
    terms: Terms,
    plan: Step,
    sampling: Stream,
    noise: Stream,
) -> NDArray[np.int64]:
    """This holder's contribution to one step, (parameters,) grid units.

    inputs: (records, ...) prepared for the model; labels, persons: (records,). All private; so is `clipped_sum`, which
    the result is with noise. sampling, noise: streams that no other step, holder or purpose uses.
    """
    total = clipped_sum(model, inputs, labels, batch(persons, terms, plan.rate, sampling), plan)
    return total + discrete.draw_gaussian(SIGMA, plan.entries, noise)


def batch(persons: NDArray[np.int64], terms: Terms, rate: float, sampling: Stream) -> list[NDArray[np.int64]]:
    """A Poisson sample of privacy units: the rows of each, at most `max_records_per_unit` of one person. Private."""
    privacy = terms.privacy
    if privacy is None:
        raise ValueError("a step without privacy")
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
    labels: NDArray[np.int64],
    units: Sequence[NDArray[np.int64]],
    plan: Step,
) -> NDArray[np.int64]:
    """Sum over units of the mean gradient of the unit's records, clipped and rounded to the grid, (parameters,).

    units: rows of each. A unit that is not finite somewhere contributes nothing. L2 sensitivity to one unit:
    `plan.sensitivity`. Raises ValueError on a model that is not a function of one unit's records.
    """
    torch.set_num_threads(1)  # the order of float additions must not depend on the machine
    parameters = {name: p.detach().double() for name, p in model.named_parameters()}
    if sum(p.numel() for p in parameters.values()) != plan.entries:
        raise ValueError(f"model: got other parameters than planned; want {plan.entries}")

    def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(functional_call(model, values, (x,)), y)

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))
    total = torch.zeros(plan.entries, dtype=torch.float64)
    model.train()
    for rows in _blocks(units, plan.entries):
        x, y = torch.from_numpy(inputs[rows]).double(), torch.from_numpy(labels[rows])
        try:
            found = gradients(parameters, x, y)
        except RuntimeError as error:
            raise ValueError(f"model: not a function of one unit's records ({type(error).__name__})") from None
        total += _clipped(torch.cat([found[name].flatten(1) for name in parameters], 1), plan.clipping_norm)
    whole: NDArray[np.int64] = (total / plan.unit).round_().to(torch.int64).numpy()
    return whole


def _clipped(flat: Tensor, norm: float) -> Tensor:
    """Sum of gradients, (units, parameters) float64, each scaled to L2 norm at most `norm` to within 10^-6 of it."""
    factors = clip_factors(torch.linalg.vector_norm(flat, dim=1), norm).double()
    kept = factors > 0
    return factors @ (flat if bool(kept.all()) else torch.where(kept[:, None], flat, 0.0))


def _blocks(units: Sequence[NDArray[np.int64]], parameters: int) -> Iterator[NDArray[np.int64]]:
    """Rows of units with equally many records, (units of a block, records)."""
    by_size: dict[int, list[NDArray[np.int64]]] = {}
    for rows in units:
        by_size.setdefault(len(rows), []).append(rows)
    for size, alike in sorted(by_size.items()):
        width = max(1, min(BLOCK // parameters, math.ceil(1024 / size)))
        for start in range(0, len(alike), width):
            yield np.stack(alike[start : start + width])
