"""Local training at a holder: plain SGD, or Opacus DP-SGD for the privacy unit `record` or `person`.

Formal guarantee (Abadi et al. 2016, theorem 1, with the accounting of `statfed.core.privacy.accountant`). One step
draws a Poisson sample of privacy units at a fixed public rate q, takes each unit's gradient (one record's, or the mean
of at most `max_records_per_unit` records of one person), scales it to L2 norm at most C, sums, adds Gaussian noise of
standard deviation sigma * C and divides by the public number q * n. Adding or removing one unit changes the sum
before noise by at most C in L2 norm, so the step is the Gaussian mechanism on a Poisson sample, event
`PoissonSampled(q, Gaussian(sigma))`. Everything after the noise (momentum, proximal term, weight decay, averaging)
is post-processing.

What the argument needs and this module enforces: q and the divisor follow from the *public* n, never from the
data; the noise and the sample come from `statfed.core.randomness`; a unit's gradient is a function of that unit's
records and the model to the last bit, whatever model the coordinator sends, and zero where it is not finite
(`statfed.strategies.learning.clipping` proves that the sum moves by at most C, and by how little more); an empty batch
is a step of pure noise.

What it does not cover: the noise of a step is drawn and added in float64, whose values are not all real numbers. Each
is the sum of several draws, which mitigates what their last bits tell (Holohan and Braghin 2021), and the sum is
rounded to float32. The method dp-fedsgd (`statfed.strategies.learning.gradients`) adds whole numbers to whole numbers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from statfed.core.errors import Refused, UsageError
from statfed.core.privacy.accountant import Event, Repeated, calibrate, dp_sgd
from statfed.core.randomness import Stream
from statfed.core.table import Size
from statfed.core.terms import Privacy
from statfed.strategies.learning.clipping import batch, clipped_total
from statfed.strategies.learning.losses import mean_loss
from statfed.strategies.learning.options import LocalOptions


@dataclass(frozen=True)
class Schedule:
    """A holder's part of a study, from public numbers alone.

    rate: Poisson rate of a unit per step; expected_batch: rate times public number of units, the divisor.
    noise_multiplier: sigma in units of the clipping norm, None without privacy.
    """

    rate: float
    steps_per_round: int
    expected_batch: float
    noise_multiplier: float | None

    @property
    def event(self) -> Repeated:
        """What one round's training is charged as. Raises ValueError without privacy."""
        if self.noise_multiplier is None:
            raise ValueError("training without noise has no privacy event")
        return dp_sgd(self.rate, self.noise_multiplier, self.steps_per_round)

    def noise_to_signal(self, rounds: int, parameters: int) -> float | None:
        """For one holder alone: norm of the run's noise over the largest norm that its clipped gradients can sum to.

        sigma C sqrt(T d) / (T q n C) with T steps and d parameters. Above 1 even perfectly aligned gradients drown.
        """
        if self.noise_multiplier is None:
            return None
        steps = rounds * self.steps_per_round
        return self.noise_multiplier * math.sqrt(parameters / steps) / self.expected_batch


def schedule(options: LocalOptions, privacy: Privacy | None, size: Size, beside: tuple[Event, ...] = ()) -> Schedule:
    """The schedule of a holder of this public size. beside: further events of the same study.

    The noise multiplier is the smallest with which all rounds of the study together stay within its epsilon.
    """
    records = size.records
    if privacy is None:
        steps = options.local_epochs * math.ceil(records / options.batch_size)
        return Schedule(min(1.0, options.batch_size / records), steps, options.batch_size, None)
    units = size.units(privacy.unit)
    if privacy.unit == "person" and size.persons < 2:
        raise Refused("privacy unit person: got a data set of one person; want at least two")
    rate = min(1.0, options.batch_size / units)
    steps = options.local_epochs * max(1, round(1.0 / rate))
    try:
        sigma = calibrate(rate, steps * options.rounds, privacy.epsilon, privacy.delta, beside=beside)
    except ValueError as error:
        raise UsageError(f"privacy.epsilon: {error}; want a larger epsilon or fewer rounds") from None
    return Schedule(rate, steps, rate * units, sigma)


class UnitOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus ships no types; p.summed_grad is its own
    """Opacus's optimizer over sums that are clipped per privacy unit, drawing noise from our own stream."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, sigma: float, norm: float, expected_batch: float, noise: Stream
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=sigma,
            max_grad_norm=norm,
            expected_batch_size=expected_batch,  # pyright: ignore[reportArgumentType]  # a divisor; opacus says int
            loss_reduction="mean",
        )
        self._noise = noise
        self._total: Tensor | None = None

    def take(self, total: Tensor) -> None:
        """Let the next step, and only that, use this clipped sum, (parameters,) float64, private, of sensitivity
        `max_grad_norm`."""
        self._total = total
        nothing = torch.empty(0)
        for p in self.params:
            p.grad_sample = nothing  # pyright: ignore[reportAttributeAccessIssue]  # opacus counts batches by it

    def clip_and_accumulate(self) -> None:
        """The sums of `take`. Raises ValueError where there are none."""
        total, self._total = self._total, None
        if total is None:
            raise ValueError("a step without clipped sums; want take() ahead of each")
        for p, part in zip(self.params, total.split([p.numel() for p in self.params]), strict=True):
            p.summed_grad = part.view_as(p)  # pyright: ignore[reportAttributeAccessIssue]

    def add_noise(self) -> None:
        """Add one draw of N(0, (sigma C)^2) to every coordinate of the clipped sum."""
        flat = torch.cat([p.summed_grad.flatten() for p in self.params])  # pyright: ignore[reportAttributeAccessIssue]
        noise = torch.from_numpy(self._noise.normal(len(flat)))
        noisy = noise.mul_(self.noise_multiplier * self.max_grad_norm).add_(flat).float()
        for p, part in zip(self.params, noisy.split([p.numel() for p in self.params]), strict=True):
            p.grad = part.view_as(p)


def fit(
    model: nn.Module,
    inputs: NDArray[np.float32],
    labels: NDArray[Any],
    persons: NDArray[np.int64],
    options: LocalOptions,
    privacy: Privacy | None,
    plan: Schedule,
    sampling: Stream,
    noise: Stream,
) -> None:
    """Train `model` in place for one round.

    inputs: (records, ...) prepared for the model; labels, persons: (records,). All private.
    sampling, noise: streams that no other round, holder or purpose uses.
    """
    torch.set_num_threads(1)  # the order of float additions, and so the result, must not depend on the machine
    x, y = torch.from_numpy(np.ascontiguousarray(inputs)), torch.from_numpy(np.ascontiguousarray(labels))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=options.learning_rate, momentum=options.momentum, weight_decay=options.weight_decay
    )
    start = [p.detach().clone() for p in model.parameters()]
    pull = options.strategy.proximal_mu if options.strategy.name == "fedprox" else 0.0

    def proximal() -> None:
        if pull:
            for p, origin in zip(model.parameters(), start, strict=True):
                if p.grad is not None:
                    p.grad.add_(p.detach() - origin, alpha=pull)

    model.train()
    if privacy is None:
        _plain_steps(model, optimizer, x, y, options, sampling, proximal)
    else:
        _private_steps(model, optimizer, inputs, labels, persons, (options, privacy, plan), sampling, noise, proximal)


def _plain_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    options: LocalOptions,
    sampling: Stream,
    proximal: Callable[[], None],
) -> None:
    for _ in range(options.local_epochs if len(y) else 0):
        for rows in torch.from_numpy(sampling.permutation(len(y))).split(options.batch_size):
            optimizer.zero_grad()
            mean_loss(model(x[rows]), y[rows]).backward()
            proximal()
            optimizer.step()


def _private_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: NDArray[np.float32],
    y: NDArray[Any],
    persons: NDArray[np.int64],
    planned: tuple[LocalOptions, Privacy, Schedule],
    sampling: Stream,
    noise: Stream,
    proximal: Callable[[], None],
) -> None:
    options, privacy, plan = planned
    if plan.noise_multiplier is None:
        raise ValueError("private training without a privacy plan")
    private = UnitOptimizer(
        optimizer,
        sigma=plan.noise_multiplier,
        norm=options.clipping_norm,
        expected_batch=plan.expected_batch,
        noise=noise,
    )
    private.attach_step_hook(lambda _: proximal())
    for _ in range(plan.steps_per_round):
        units = batch(persons, privacy, plan.rate, sampling)
        private.zero_grad(set_to_none=True)
        private.take(clipped_total(model, x, y, units, options.clipping_norm))
        private.step()
    for p in model.parameters():
        for name in ("grad_sample", "summed_grad"):
            if hasattr(p, name):
                delattr(p, name)


def get_vector(model: nn.Module) -> NDArray[np.float32]:
    """The model's trainable parameters, in order, as one vector of shape (parameters,)."""
    vector: NDArray[np.float32] = parameters_to_vector(model.parameters()).detach().numpy().copy()
    return vector


def set_vector(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Load what `get_vector` gives. Raises UsageError naming the lengths where they differ."""
    sizes = [p.numel() for p in model.parameters()]
    if vector.shape != (sum(sizes),):
        raise UsageError(f"model: got parameters of shape {vector.shape}; want ({sum(sizes)},)")
    with torch.no_grad():
        for p, part in zip(model.parameters(), np.split(vector, np.cumsum(sizes)[:-1]), strict=True):
            p.copy_(torch.from_numpy(part.astype(np.float32)).view_as(p))
