"""The coordinator: drives a training study through an open session, round by round.

admit (all holders reserve, or none pays) -> rounds -> release. A round needs every holder: one that refuses, fails
or stays silent ends the run with its name, and every reservation is released.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from numpy.typing import NDArray

from statfed.core.applicability import applicable
from statfed.core.errors import EngineError
from statfed.core.fixed_point import training_layout
from statfed.core.progress import Progress
from statfed.core.protection import Aggregate, agree, read_protection
from statfed.core.statement import Closing, Plan, Receipt
from statfed.core.terms import Terms
from statfed.server.engine import Session
from statfed.server.exchange import SHORT, Exchange
from statfed.strategies.learning import step as fedsgd
from statfed.strategies.learning.aggregation import aggregated, make_strategy, restore, state_of

Vector = NDArray[np.float32]


@dataclass
class Round:
    """What one round took. Bytes count arrays and the protection's packets, all parties together."""

    round: int
    seconds: float
    bytes_down: int
    bytes_up: int
    holder_seconds: dict[str, float]
    ledger_heads: dict[str, str]


@dataclass
class Training:
    """A finished training. vector: (parameters,), the final model."""

    vector: Vector
    plans: dict[str, Plan]
    rounds: list[Round] = field(default_factory=list)
    closings: dict[str, Closing] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A run after `round` rounds: enough to go on. run: its name; state: the server optimiser's memory."""

    run: str
    round: int
    vector: Vector
    state: Mapping[str, NDArray[Any]]
    rounds: Sequence[Round] = ()


OnPlan = Callable[[Mapping[str, Plan]], None]
OnRound = Callable[["Checkpoint"], None]


def train(
    session: Session,
    terms: Terms,
    run: str,
    initial: Vector,
    *,
    timeout: float,
    progress: Progress,
    on_plan: OnPlan = lambda _: None,
    on_round: OnRound = lambda _: None,
    resume: Checkpoint | None = None,
) -> Training:
    """Train a model with every holder of the session.

    on_plan is called with the holders' plans after all have admitted and before anything is spent; on_round after
    every round (0: the initial model). Either may raise to end the run. resume: go on after this checkpoint; the
    interrupted run's reservation is closed, and `run` has to be a new name.
    Raises Refused or UsageError when a holder does not admit the study, EngineError when one fails later.
    """
    applicable(terms)
    step = fedsgd.step(terms, len(initial)) if terms.training.method == "dp-fedsgd" else None
    protection, _ = read_protection(terms)
    start = resume or Checkpoint(run, 0, initial, {})
    names = {node: name for name, node in session.nodes.items()}
    coordinator = Exchange(session, terms, run, progress, start.round)
    try:
        if resume:  # a coordinator that was killed could not free what it had reserved
            Exchange(session, terms, resume.run, progress, start.round).release(SHORT)
        plans = coordinator.admit(Plan)
        if step:
            _same_noise(step, plans)
        on_plan(plans)
        training = Training(start.vector, plans, list(start.rounds))
        if not resume:
            on_round(start)
        coordinator.sizes = {name: plan.size for name, plan in plans.items()}
        combiner = protection.coordinator(agree(run, terms, coordinator.sizes))
        layout = (
            step.layout(coordinator.sizes)
            if step
            else training_layout(terms, len(initial), coordinator.sizes, protection.REQUIRES.reveals_updates)
        )
        strategy = make_strategy(terms.strategy, len(terms.holders))
        restore(strategy, start.state)
        for number in range(start.round + 1, terms.rounds + 1):
            progress("training rounds", number - 1, terms.rounds)
            started = time.perf_counter()
            config = ConfigRecord({"statement": coordinator.statement("fit", number)})
            messages = {
                names[message.metadata.dst_node_id]: message
                for message in strategy.configure_train(number, _record(training.vector), config, session.grid)
                if names[message.metadata.dst_node_id] in terms.holders
            }
            gone = sorted(set(terms.holders) - set(messages))
            if gone:
                raise EngineError(f"round {number}: {', '.join(gone)} not connected; want every holder")
            aggregate, receipts, traffic = coordinator.total(
                combiner.total(layout), partial(dict, messages), Receipt, number, f"round {number}", timeout
            )
            if step:
                seen = [_stepped(aggregate, training.vector, terms, step, plans)]
            else:
                seen = _updates(aggregate, training.vector, coordinator.sizes, number)
            training.vector = aggregated(strategy, number, seen).astype(np.float32)
            if not np.isfinite(training.vector).all():
                raise EngineError(
                    f"round {number}: the model diverged (values are not finite); want a smaller "
                    "training.learning_rate or strategy.server_learning_rate"
                )
            training.rounds.append(
                Round(
                    number,
                    time.perf_counter() - started,
                    traffic.down,
                    traffic.up,
                    {name: receipt.seconds for name, receipt in receipts.items()},
                    {name: receipt.ledger_head for name, receipt in receipts.items()},
                )
            )
            on_round(Checkpoint(run, number, training.vector, state_of(strategy), training.rounds))
            progress("training rounds", number, terms.rounds)
    except BaseException:
        with suppress(Exception):  # the first failure is the one to report; a reservation left over only over-counts
            coordinator.release(5.0)
        raise
    training.closings = coordinator.release(SHORT)
    return training


def _same_noise(step: fedsgd.Step, plans: Mapping[str, Plan]) -> None:
    """Raise EngineError where a holder's grid is another than this coordinator's: totals would mean nothing."""
    for name, plan in plans.items():
        if (plan.noise_multiplier, plan.sampling_rate) != (step.noise_multiplier, step.rate):
            raise EngineError(
                f"{name}: got noise multiplier {plan.noise_multiplier} at rate {plan.sampling_rate:g}; want "
                f"{step.noise_multiplier} at {step.rate:g}, the same at every holder"
            )


def _stepped(
    aggregate: Aggregate, start: Vector, terms: Terms, step: fedsgd.Step, plans: Mapping[str, Plan]
) -> tuple[Vector, int]:
    """The model after a plain step along the noisy mean gradient, which a strategy takes for its one update.

    The mean is over the public number of units of all holders, whoever dropped out.
    """
    mean = aggregate.total["gradient"] * (step.unit / (step.rate * sum(plan.units for plan in plans.values())))
    slope = mean + terms.training.weight_decay * start
    return (start - terms.training.learning_rate * slope).astype(np.float32), sum(plan.size for plan in plans.values())


def _updates(aggregate: Aggregate, start: Vector, sizes: Mapping[str, int], number: int) -> list[tuple[Vector, int]]:
    """Models and their weights as a strategy may see them: each holder's, or the one average of all.

    Weights are the sizes that were admitted. Raises EngineError where a contribution brought another one.
    """
    if not aggregate.each:
        weight, wanted = int(aggregate.total["weight"]), sum(sizes[name] for name in aggregate.holders)
        if weight != wanted:
            raise EngineError(f"round {number}: got a total weight of {weight}; want the admitted {wanted}")
        return [((start + aggregate.total["update"] / weight).astype(np.float32), weight)]
    found = []
    for name, arrays in aggregate.each.items():
        vector, weight = arrays["vector"].astype(np.float32), int(arrays["weight"])
        if vector.shape != start.shape or not np.isfinite(vector).all():
            raise EngineError(f"{name}: got an update of shape {vector.shape}; want {len(start)} finite numbers")
        if weight != sizes[name]:
            raise EngineError(f"{name}: got a weight of {weight}; want the admitted {sizes[name]}")
        found.append((vector, weight))
    return found


def _record(vector: Vector) -> ArrayRecord:
    return ArrayRecord({"vector": Array(np.asarray(vector))})
