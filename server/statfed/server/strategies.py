"""Flower's own strategies, by the names of the study file."""

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi

from statfed.core.study import Strategy


def make_strategy(options: Strategy, holders: int) -> FedAvg:
    """The strategy, set to use every holder in every round.

    Weights are the holders' public sizes (`num-examples`). FedProx's proximal term is applied at the holders.
    """
    strategy = _strategy(options)
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
