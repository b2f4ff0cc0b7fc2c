"""The coordinator: drives a training study through an open session, round by round.

admit (all holders reserve, or none pays) -> rounds -> release. A round needs every holder: one that refuses, fails
or stays silent ends the run with its name, and every reservation is released.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from statfed.core.discovery import load
from statfed.core.errors import EngineError, UsageError
from statfed.core.progress import Progress
from statfed.core.protection import Update
from statfed.core.statement import Closing, Plan, Receipt
from statfed.core.study import Terms
from statfed.server.engine import Session
from statfed.server.exchange import SHORT, Exchange, facts_of
from statfed.server.strategies import make_strategy, restore, state_of

Vector = NDArray[np.float32]


@dataclass
class Round:
    """What one round took. Bytes count array contents, all holders together."""

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
    protection = load("statfed.strategies.protections", terms.protection.name, "protection")
    if len(terms.holders) < protection.REQUIRES.minimum_holders:
        raise UsageError(
            f"protection {terms.protection.name}: got {len(terms.holders)} holders; "
            f"want at least {protection.REQUIRES.minimum_holders}"
        )
    start = resume or Checkpoint(run, 0, initial, {})
    coordinator = Exchange(session, terms, run, progress, start.round)
    try:
        if resume:  # a coordinator that was killed could not free what it had reserved
            Exchange(session, terms, resume.run, progress, start.round).release(SHORT)
        plans = coordinator.admit(Plan)
        on_plan(plans)
        training = Training(start.vector, plans, list(start.rounds))
        if not resume:
            on_round(start)
        strategy = make_strategy(terms.strategy, len(terms.holders))
        restore(strategy, start.state)
        for number in range(start.round + 1, terms.rounds + 1):
            progress("training rounds", number - 1, terms.rounds)
            started = time.perf_counter()
            config = ConfigRecord({"statement": coordinator.statement("fit", number)})
            down = training.vector.nbytes * len(terms.holders)
            messages = list(strategy.configure_train(number, _record(training.vector), config, session.grid))
            replies = coordinator.exchange(messages, timeout, f"round {number}")
            updates, receipts = _updates(replies, number, len(training.vector))
            seen = protection.combine(updates)
            model, _ = strategy.aggregate_train(number, [_as_reply(messages[0], update) for update in seen])
            if model is None:
                raise EngineError(f"round {number}: strategy {terms.strategy.name} gave no model")
            training.vector = model["vector"].numpy().astype(np.float32)
            if not np.isfinite(training.vector).all():
                raise EngineError(
                    f"round {number}: the model diverged (values are not finite); want a smaller "
                    "training.learning_rate or strategy.server_learning_rate"
                )
            training.rounds.append(
                Round(
                    number,
                    time.perf_counter() - started,
                    down,
                    sum(update.vector.nbytes for update in updates.values()),
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


def _updates(
    replies: Mapping[str, Message], number: int, parameters: int
) -> tuple[dict[str, Update], dict[str, Receipt]]:
    """Checked updates and receipts of one round, by holder name."""
    updates, receipts = {}, {}
    for name, reply in replies.items():
        receipt = facts_of(reply, Receipt, name)
        if receipt.round != number:
            raise EngineError(f"{name}: got an update of round {receipt.round}; want round {number}")
        vector = reply.content.array_records["model"]["vector"].numpy()
        if vector.shape != (parameters,) or not np.isfinite(vector).all():
            raise EngineError(f"{name}: got an update of shape {vector.shape}; want {parameters} finite numbers")
        updates[name], receipts[name] = Update(vector, receipt.weight), receipt
    return updates, receipts


def _record(vector: Vector) -> ArrayRecord:
    return ArrayRecord({"vector": Array(np.asarray(vector))})


def _as_reply(message: Message, update: Update) -> Message:
    """An update in the form that Flower's strategies aggregate."""
    content = RecordDict(
        {
            "model": _record(update.vector),
            "metrics": MetricRecord({"num-examples": update.weight}),
        }
    )
    message.metadata.__dict__["_message_id"] = message.metadata.message_id or "local"
    return Message(content, reply_to=message)
