"""Flower's own strategies, by the names of the study file."""

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi
from numpy.typing import NDArray

from statfed.core.study import Strategy

_MEMORY = ("m_t", "v_t", "momentum_vector")


def make_strategy(options: Strategy, holders: int) -> FedAvg:
    """The strategy, set to use every holder in every round.

    Weights are the holders' public sizes (`num-examples`). FedProx's proximal term is applied at the holders.
    """
    strategy = _strategy(options)
    strategy.arrayrecord_key = "model"
    strategy.min_train_nodes = strategy.min_available_nodes = holders
    return strategy


def _strategy(options: Strategy) -> FedAvg:
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
