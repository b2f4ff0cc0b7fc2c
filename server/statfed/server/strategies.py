"""Flower's own strategies, by the names of the study file."""

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi

from statfed.core.study import Strategy


def make_strategy(options: Strategy, holders: int) -> FedAvg:
    """The strategy, set to use every holder in every round.

    Weights are the holders' public sizes (`num-examples`). FedProx's proximal term is applied at the holders.
    """
    everyone = {
        "min_train_nodes": holders,
        "min_available_nodes": holders,
        "fraction_evaluate": 1.0,
        "min_evaluate_nodes": 1,
    }
    step = options.server_learning_rate
    match options.name:
        case "fedavg":
            return FedAvg(**everyone)
        case "fedprox":
            return FedProx(**everyone, proximal_mu=options.proximal_mu)
        case "fedavgm":
            return FedAvgM(**everyone, server_learning_rate=step or 1.0, server_momentum=options.server_momentum)
        case "fedadam":
            return FedAdam(**everyone, eta=step or 0.1, beta_1=options.server_momentum, tau=options.tau)
        case "fedyogi":
            return FedYogi(**everyone, eta=step or 0.1, beta_1=options.server_momentum, tau=options.tau)
        case "fedadagrad":
            return FedAdagrad(**everyone, eta=step or 0.1, tau=options.tau)
