"""A holder's half of one step of `dp-fedsgd`: noisy sum of clipped gradients in whole numbers.

Formal guarantee, for one privacy unit (a record, or all records of one person) of this holder, under add-or-remove-one
neighbours, of everything that is released over the steps of a study, against whoever sees the sums over holders (plain:
this holder's contributions) and knows at most `colluders` other holders' noise:

1. *Sampling.* The batch is a Poisson sample at the public rate q; whether a unit is in it depends on nothing else.
2. *Sensitivity.* The gradient of a unit is a function of that unit's records and the public model, by construction and
   to the last bit, scaled to L2 norm at most C, to a relative 10^-6, or dropped where it is not finite; the sum over
   units is taken in float64 (`statfed.strategies.learning.clipping` proves both) and rounded once to whole grid units.
   Rounding moves neighbouring sums apart by at most 1 more in each entry, so one unit changes the whole numbers by at
   most C/unit + sqrt(d) in L2 norm, and `Step.unit` leaves a hundred-thousandth of D (`Step.sensitivity`) for clipping
   and for the additions, which is enough up to five million sampled units. What is assumed is what stands there, and
   that inputs were prepared record by record.
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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from statfed.core.privacy import discrete
from statfed.core.randomness import Stream
from statfed.core.terms import Privacy
from statfed.strategies.learning.clipping import batch, clipped_total
from statfed.strategies.learning.step import SIGMA, Step


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
    if sum(p.numel() for p in model.parameters()) != plan.entries:
        raise ValueError(f"model: got other parameters than planned; want {plan.entries}")
    total = clipped_total(model, inputs, labels, units, plan.clipping_norm)
    whole: NDArray[np.int64] = (total / plan.unit).round_().to(torch.int64).numpy()
    return whole
