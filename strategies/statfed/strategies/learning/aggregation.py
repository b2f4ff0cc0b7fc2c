"""Flower's own strategies, by the names of the study file.

The robust ones want each holder's model: `fedmedian` and `fedtrimmedavg` (Yin et al. 2018) by coordinate, `krum` and
`multikrum` (Blanchard et al. 2017) by distance, `bulyan` (El Mhamdi et al. 2018) by both; Flower's Bulyan selects in
one pass where the paper selects one model at a time. All but the averages of multikrum ignore the holders' sizes.

Flower takes distances between models as |x|^2 + |y|^2 - 2 x y in float32: for models that differ little nothing but
rounding is left of them, and a model of 10^20 makes them infinite. Distances do not change when the same vector is
subtracted from all models, so the three get float64 differences from the coordinate-wise median, which no minority
can move far.

Flower is imported when a strategy is made and not before: a holder that installs this room has no use for its servers.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError
from statfed.strategies.learning.options import Strategy

if TYPE_CHECKING:
    from flwr.serverapp.strategy import FedAvg

_MEMORY = ("m_t", "v_t", "momentum_vector")


def make_strategy(options: Strategy, holders: int) -> "FedAvg":
    """The strategy, set to use every holder in every round.

    Weights are the holders' public sizes (`num-examples`). FedProx's proximal term is applied at the holders.
    """
    strategy = _strategy(options, holders)
    strategy.arrayrecord_key = "model"
    strategy.min_train_nodes = strategy.min_available_nodes = holders
    return strategy


def aggregated(
    strategy: "FedAvg", number: int, start: NDArray[Any], updates: Sequence[tuple[NDArray[Any], int]]
) -> NDArray[Any]:
    """The next model, by Flower's own `aggregate_train`.

    number: of the round. start: the model that was sent out, which Flower would have kept in `configure_train`.
    updates: (parameters,) models with their weights, one of each holder or the average of all.
    It is called where Flower knows its task, as it does wherever a Grid is open. Raises EngineError when the strategy
    gives no model.
    """
    from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.serverapp.strategy import Bulyan, FedAdagrad, FedAdam, FedAvgM, FedYogi, Krum, MultiKrum

    if isinstance(strategy, FedAdagrad | FedAdam | FedYogi):
        strategy.current_arrays = {"vector": start}
    elif isinstance(strategy, FedAvgM) and strategy.current_arrays is None:
        strategy.current_arrays = ArrayRecord({"vector": Array(start)})
    models = [np.asarray(model) for model, _ in updates]
    centre = None
    if isinstance(strategy, Krum | MultiKrum | Bulyan):
        centre = np.median(np.stack(models).astype(np.float64), axis=0)
        models = [model - centre for model in models]
    replies = []
    for place, (model, (_, weight)) in enumerate(zip(models, updates, strict=True)):
        content = RecordDict({"model": ArrayRecord({"vector": Array(model)})})
        content["metrics"] = MetricRecord({"num-examples": weight})
        replies.append(Message(content, dst_node_id=place, message_type="train"))
    record, _ = strategy.aggregate_train(number, replies)
    if record is None:
        raise EngineError(f"round {number}: strategy {type(strategy).__name__.lower()} gave no model")
    found = record["vector"].numpy()
    return found if centre is None else np.asarray(found + centre)


def _strategy(options: Strategy, holders: int) -> "FedAvg":
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
            return Krum(num_malicious_nodes=malicious)
        case "multikrum":
            keep = options.nodes_to_keep or holders - malicious - 2
            return MultiKrum(num_malicious_nodes=malicious, num_nodes_to_select=keep)
        case "bulyan":
            return Bulyan(num_malicious_nodes=malicious)


def state_of(strategy: "FedAvg") -> dict[str, NDArray[Any]]:
    """What the server optimiser remembers between rounds, as flat arrays: `name/key`."""
    found: dict[str, NDArray[Any]] = {}
    for name in _MEMORY:
        kept = getattr(strategy, name, None)
        items = kept.items() if isinstance(kept, dict) else enumerate(kept or ())
        found |= {f"{name}/{key}": array for key, array in items}
    return found


def restore(strategy: "FedAvg", state: Mapping[str, NDArray[Any]]) -> None:
    """Give a strategy back what `state_of` took."""
    for name in _MEMORY:
        kept = {key.partition("/")[2]: array for key, array in state.items() if key.partition("/")[0] == name}
        if kept:
            as_list = name == "momentum_vector"
            setattr(strategy, name, [kept[str(i)] for i in range(len(kept))] if as_list else kept)
