"""DP gradient descent on protected sums (`dp-fedsgd`): what one step is, from public facts that both ends have.

A round is one step. Every holder draws a Poisson sample of its units, adds their clipped gradients up, rounds the sum
to a public grid of whole numbers, adds discrete Gaussian noise and contributes the result to a sum over holders. The
coordinator multiplies that total by the grid unit and divides it by rate times the public number of all units: the same
noisy mean gradient as that of DP-SGD on the pooled data, from which it takes a step. Everything after the total
(momentum, adaptive steps, weight decay) is post-processing.

The grid is chosen such that every holder's draw comes from one and the same law, N_Z(0, SIGMA^2). With h draws that the
guarantee rests on, the sum has s = SIGMA sqrt(h), a unit may change it by at most D = s / noise_multiplier in L2 norm,
and the clipping norm is D - sqrt(d) grid units for d parameters, since rounding moves neighbouring sums apart by at
most 1 in each entry.

h is 1 for local noise. For shared noise it is fewest holders of a sum - colluders: a sum over fewer holders is never
formed, at most `colluders` of the draws in it are known to somebody, and what is drawn on top is post-processing. The
proof is written down in `statfed.strategies.learning.gradients`, which enforces the sensitivity.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from statfed.core.errors import UsageError
from statfed.core.fixed_point import HEADROOM, Layout, Slot
from statfed.core.method import Question
from statfed.core.privacy.accountant import DiscreteGaussians, Event, Repeated, calibrate, dp_fedsgd
from statfed.core.privacy.closeness import apart
from statfed.core.privacy.placement import shares
from statfed.strategies.learning.options import DescentOptions

SIGMA = 2.0**16
"""Of every holder's draw, in grid units."""
STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
"""What the coordinator may do with a noisy mean gradient: a plain step, momentum, adaptive steps."""
_FINEST = 2.0**30  # grid units of the sensitivity: float64 sums of a million units tell neighbours apart
_TAIL = 64.0  # in sigmas; a draw is beyond it with probability below exp(-2000)


@dataclass(frozen=True)
class Step:
    """One step of a study, the same at every holder.

    rate: Poisson rate of a unit; noise_multiplier: of the sum that the guarantee rests on; draws: how many holders'
    noise that is; entries: number of parameters.
    """

    rate: float
    noise_multiplier: float
    draws: int
    entries: int
    clipping_norm: float
    steps_per_round: int = 1

    @property
    def sensitivity(self) -> float:
        """Most that one unit may change the sum, in L2 norm and grid units."""
        return SIGMA * math.sqrt(self.draws) / self.noise_multiplier

    @property
    def unit(self) -> float:
        """Value of one grid unit. A gradient of the clipping norm keeps to the sensitivity, rounding included."""
        return self.clipping_norm / ((self.sensitivity - math.sqrt(self.entries)) * (1.0 - 1e-5))

    @property
    def event(self) -> Repeated:
        """What one step is charged as."""
        noise = DiscreteGaussians(
            noise_multiplier=self.noise_multiplier, sigma=SIGMA, entries=self.entries, draws=self.draws
        )
        return dp_fedsgd(self.rate, noise, 1)

    def noise_to_signal(self, rounds: int, units: int) -> float:
        """Norm of one holder's summed noise over the largest norm of its own summed clipped gradients.

        SIGMA sqrt(T d) / (T q n D) with T steps. Averaged as independent noise of all holders it is that of the total.
        """
        return SIGMA * math.sqrt(self.entries / rounds) / (self.rate * units * self.sensitivity)

    def std(self, holders: int) -> float:
        """Standard deviation of the noise in the sum over `holders`, of one entry, in units of the gradient."""
        return SIGMA * math.sqrt(holders) * self.unit

    def layout(self, sizes: Mapping[str, int]) -> Layout:
        """How the sums are encoded: exactly. Each holder has an equal share of the range (`for_holder(1 / holders)`).

        sizes: public number of records by holder. No holder with at most twice the largest of them can pass its share.
        """
        limit = len(sizes) * math.ceil(HEADROOM * max(sizes.values()) * self.sensitivity + _TAIL * SIGMA)
        layout = Layout({"gradient": Slot((self.entries,), float(limit), integer=True)}, len(sizes), even=True)
        if layout.bits == 192:
            raise UsageError(f"dp-fedsgd: got {sum(sizes.values())} records; their sum does not fit into 64 bits")
        return layout


def step(question: Question[DescentOptions], entries: int, beside: tuple[Event, ...] = ()) -> Step:
    """The step of a study with `entries` parameters: least noise with which all rounds stay within its epsilon.

    beside: further events of the same study. Raises UsageError when noise and protection do not go together.
    """
    options, privacy = question.options, question.privacy
    if privacy is None:
        raise UsageError("method: got dp-fedsgd without differential privacy; want a [privacy] section, or local-sgd")
    if privacy.noise == "central":
        raise UsageError("privacy.noise: got central; want local or shared: only holders add noise in training")
    draws = shares(question.terms)
    distance = apart(SIGMA, draws, entries)
    if not math.isfinite(distance[0]):
        raise UsageError(f"dp-fedsgd: got {entries} parameters; the proof of its noise does not cover as many")
    try:
        sigma = calibrate(options.sampling_rate, options.rounds, privacy.epsilon, privacy.delta, distance, beside)
    except ValueError as error:
        raise UsageError(f"privacy.epsilon: {error}; want a larger epsilon or fewer rounds") from None
    found = Step(options.sampling_rate, sigma, draws, entries, options.clipping_norm)
    if not 2.0 * math.sqrt(entries) <= found.sensitivity <= _FINEST:
        raise UsageError(
            f"dp-fedsgd: got noise multiplier {sigma:.4g} for {entries} parameters, which puts the sensitivity at "
            f"{found.sensitivity:.4g} grid units; want {2.0 * math.sqrt(entries):.4g} to {_FINEST:.4g}: a smaller "
            "model, or another epsilon"
        )
    return found
