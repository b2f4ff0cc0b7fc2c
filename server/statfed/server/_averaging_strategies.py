"""Which Flower strategies do with one weighted average what they do with all replies, and why others do not."""

from flwr.serverapp.strategy import (
    Bulyan,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedTrimmedAvg,
    FedXgbBagging,
    FedXgbCyclic,
    FedYogi,
    Krum,
    MultiKrum,
    QFedAvg,
    Strategy,
)

from statfed.core.errors import UsageError
from statfed.server._flwr import weighs_metrics

_AVERAGING = (FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedAdagrad)
_EACH = (Krum, MultiKrum, Bulyan, FedMedian, FedTrimmedAvg, QFedAvg, FedXgbBagging, FedXgbCyclic)


def check_strategy(strategy: Strategy, averages_only: bool = False) -> None:
    """Raises UsageError when a strategy needs more than the weighted average of replies, with what to do instead.

    Flower's FedAvg, FedProx, FedAvgM, FedAdam, FedYogi and FedAdagrad need no more, nor do subclasses that leave
    aggregation as it is. Others of your own have to be declared by `averages_only`; Flower's own others are refused.
    """
    name = type(strategy).__name__
    if isinstance(strategy, _EACH):
        raise UsageError(
            f"strategy {name}: it needs each node's update, and protected sums give their weighted average alone; "
            "want FedAvg, FedProx, FedAvgM, FedAdam, FedYogi or FedAdagrad, or the grid itself without protection"
        )
    if type(strategy).__name__.startswith("DifferentialPrivacy"):
        raise UsageError(
            f"strategy {name}: it clips each update or takes equal weights for granted; want noise added in the "
            "ClientApp, before the mod"
        )
    if averages_only:
        return
    for method in ("aggregate_train", "aggregate_evaluate"):
        if not any(getattr(type(strategy), method) is getattr(known, method) for known in _AVERAGING):
            raise UsageError(
                f"strategy {name}: its own {method} may need each node's reply; want one of Flower's averaging "
                "strategies, or averages_only=True where it uses replies by their weighted average alone"
            )
    for function in ("train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"):
        if not weighs_metrics(getattr(strategy, function)):
            raise UsageError(
                f"strategy {name}: its own {function} may need each node's metrics; want Flower's weighted average, or "
                "averages_only=True where it does no more than that"
            )
