"""Flower's own strategies, by the names of the study file.

The robust ones want each holder's model: `fedmedian` and `fedtrimmedavg` (Yin et al. 2018) by coordinate, `krum` and
`multikrum` (Blanchard et al. 2017) by distance, `bulyan` (El Mhamdi et al. 2018) by both; Flower's Bulyan selects in
one pass where the paper selects one model at a time. All but the averages of multikrum ignore the holders' sizes.

Flower takes distances between models as |x|^2 + |y|^2 - 2 x y in float32: for models that differ little nothing but
rounding is left of them, and a model of 10^20 makes them infinite. Distances do not change when the same vector is
subtracted from all models, so the three get float64 differences from the coordinate-wise median, which no minority
can move far.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedYogi,
    Krum,
    MultiKrum,
)
from numpy.typing import NDArray

from statfed.strategies.learning.options import Strategy

_MEMORY = ("m_t", "v_t", "momentum_vector")


def make_strategy(options: Strategy, holders: int) -> FedAvg:
    """The strategy, set to use every holder in every round.

    Weights are the holders' public sizes (`num-examples`). FedProx's proximal term is applied at the holders.
    """
    strategy = _strategy(options, holders)
    strategy.arrayrecord_key = "model"
    strategy.min_train_nodes = strategy.min_available_nodes = holders
    return strategy


class _Centred(FedAvg):
    """Gives the next class the models as float64 differences from their coordinate-wise median."""

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        messages = list(replies)
        models = [{k: a.numpy() for k, a in _model(message).items()} for message in messages]
        centre = {key: np.median(np.stack([m[key] for m in models]).astype(np.float64), axis=0) for key in models[0]}
        for message, model in zip(messages, models, strict=True):
            record = _model(message)
            for key, array in model.items():
                record[key] = Array(np.asarray(array - centre[key]))
        arrays, metrics = super().aggregate_train(server_round, messages)
        if arrays is not None:
            arrays = ArrayRecord({k: Array(np.asarray(a.numpy() + centre[k])) for k, a in arrays.items()})
        return arrays, metrics


def _model(message: Message) -> ArrayRecord:
    return next(iter(message.content.array_records.values()))


class _Krum(_Centred, Krum):
    pass


class _MultiKrum(_Centred, MultiKrum):
    pass


class _Bulyan(_Centred, Bulyan):
    pass


def _strategy(options: Strategy, holders: int) -> FedAvg:
    malicious = options.num_malicious
    step, momentum, tau = options.server_learning_rate, options.server_momentum, options.tau
    match options.name:
        case "fedavg":
            return FedAvg()
        case "fedprox":
            return FedProx(proximal_mu=options.proximal_mu)
        case "fedavgm":
            return FedAvgM(server_learning_rate=step or 1.0, server_momentum=momentum)
        case "fedadam":
            return FedAdam(eta=step or 0.1, beta_1=momentum, tau=tau)
        case "fedyogi":
            return FedYogi(eta=step or 0.1, beta_1=momentum, tau=tau)
        case "fedadagrad":
            return FedAdagrad(eta=step or 0.1, tau=tau)
        case "fedmedian":
            return FedMedian()
        case "fedtrimmedavg":
            return FedTrimmedAvg(beta=options.trim_fraction)
        case "krum":
            return _Krum(num_malicious_nodes=malicious)
        case "multikrum":
            keep = options.nodes_to_keep or holders - malicious - 2
            return _MultiKrum(num_malicious_nodes=malicious, num_nodes_to_select=keep)
        case "bulyan":
            return _Bulyan(num_malicious_nodes=malicious)


def state_of(strategy: FedAvg) -> dict[str, NDArray[Any]]:
    """What the server optimiser remembers between rounds, as flat arrays: `name/key`."""
    found: dict[str, NDArray[Any]] = {}
    for name in _MEMORY:
        kept = getattr(strategy, name, None)
        items = kept.items() if isinstance(kept, dict) else enumerate(kept or ())
        found |= {f"{name}/{key}": array for key, array in items}
    return found


def restore(strategy: FedAvg, state: Mapping[str, NDArray[Any]]) -> None:
    """Give a strategy back what `state_of` took."""
    for name in _MEMORY:
        kept = {key.partition("/")[2]: array for key, array in state.items() if key.partition("/")[0] == name}
        if kept:
            as_list = name == "momentum_vector"
            setattr(strategy, name, [kept[str(i)] for i in range(len(kept))] if as_list else kept)
