"""Options that training methods share."""

from typing import Literal

from pydantic import Field, model_validator

from statfed.core.section import Section

Strategies = Literal[
    "fedavg",
    "fedprox",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
    "multikrum",
    "bulyan",
]
ROBUST: tuple[Strategies, ...] = ("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")
"""Strategies that look at single updates, so that a few wrong ones do no harm."""
SUMS: tuple[Strategies, ...] = ("fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad")
"""Strategies that need nothing but the average."""
PRIVACY = {"delta": 1e-5, "max_records_per_unit": 256}
"""Defaults of [privacy] in training."""


class Model(Section):
    """The model that is trained."""

    name: str = Field(default="mlp", description="a file of statfed.strategies.models")
    hidden: int = Field(default=64, ge=1, le=4096, description="width of the hidden layer (1: none) or channels (cnn)")


class Strategy(Section):
    """How the coordinator turns updates into the next model: Flower's own strategies."""

    name: Strategies = "fedavg"
    server_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="step of the server optimiser; default 1 for fedavgm, 0.1 for the adaptive three",
    )
    server_momentum: float = Field(default=0.9, ge=0, lt=1, description="fedavgm; beta_1 of fedadam and fedyogi")
    tau: float = Field(default=1e-3, gt=0, description="adaptivity floor of fedadam, fedyogi, fedadagrad")
    proximal_mu: float = Field(default=0.01, ge=0, description="weight of fedprox's proximal term")
    num_malicious: int = Field(
        default=1, ge=1, description="holders f that may send anything: krum and multikrum need 2f + 3, bulyan 4f + 3"
    )
    trim_fraction: float = Field(
        default=0.2, gt=0, lt=0.5, description="fedtrimmedavg: share of the holders cut off at each end, rounded down"
    )
    nodes_to_keep: int | None = Field(
        default=None, ge=1, description="multikrum: updates that are averaged, at most and by default n - f - 2"
    )


class TrainingOptions(Section):
    """What every training method has."""

    target: str = Field(default="", description="column that the model predicts: a category, a boolean or a number")
    features: tuple[str, ...] = Field(default=(), description="columns that it predicts from")
    model: Model = Model()
    rounds: int = Field(default=10, ge=1, le=10_000)
    learning_rate: float = Field(default=0.1, gt=0, le=100)
    weight_decay: float = Field(default=0.0, ge=0)
    clipping_norm: float = Field(default=1.0, gt=0, description="privacy: L2 bound on one unit's gradient")
    holdout: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="share of the units that every holder keeps apart, by a public rule, to score the model on",
    )
    strategy: Strategy = Strategy()

    @model_validator(mode="after")
    def _names(self) -> "TrainingOptions":
        if self.target and self.target in self.features:
            raise ValueError(f"features: got the target {self.target} among them; want it left out")
        twice = sorted({name for name in self.features if self.features.count(name) > 1})
        if twice:
            raise ValueError(f"features: got {', '.join(twice)} more than once; want each once")
        return self


class LocalOptions(TrainingOptions):
    """Options of local-sgd: each holder trains by itself for a round."""

    rounds: int = Field(default=20, ge=1, le=10_000)
    learning_rate: float = Field(default=0.3, gt=0, le=100)
    local_epochs: int = Field(default=1, ge=1, le=100, description="passes over the holder's data per round")
    batch_size: int = Field(
        default=64, ge=1, description="records per step; expected persons per step for the person unit"
    )
    momentum: float = Field(default=0.0, ge=0, lt=1)
    update_norm: float = Field(
        default=16.0,
        gt=0,
        le=1e6,
        description="L2 bound on one holder's update under protections that hide it; a longer one is scaled down",
    )


class DescentOptions(TrainingOptions):
    """Options of dp-fedsgd: a round is one step of gradient descent on the noisy sum of all holders' gradients."""

    rounds: int = Field(default=30, ge=1, le=10_000)
    learning_rate: float = Field(default=1.0, gt=0, le=100)
    sampling_rate: float = Field(
        default=1.0, gt=0, le=1, description="probability with which each unit is in a step; 1: all units"
    )
