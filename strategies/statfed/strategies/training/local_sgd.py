"""`local-sgd`: each holder trains by itself for a round, and the models are averaged (McMahan et al. 2017, FedAvg).

Private training is Opacus DP-SGD at each holder: `statfed.strategies.learning.local` says what is proved of a round and
what is not. Without privacy a model update is a disclosure. Under a protection that hides updates each is bounded to
`update_norm`, after its noise.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from statfed.core.errors import Refused
from statfed.core.fixed_point import Layout, Slot
from statfed.core.method import (
    Arrays,
    Ask,
    Coordination,
    Model,
    Part,
    Public,
    Question,
    Update,
)
from statfed.core.privacy.accountant import Event
from statfed.core.protection import Requirements
from statfed.core.rules import Choice, Finding
from statfed.core.table import Size, Table
from statfed.strategies.learning import prepared, rounds, scores
from statfed.strategies.learning.inputs import inputs_of
from statfed.strategies.learning.options import PRIVACY as PRIVACY
from statfed.strategies.learning.options import LocalOptions
from statfed.strategies.learning.rounds import FIT, Vector

TITLE = "Federated averaging: each holder trains by itself for a round"
GROUP = "Training"
PUSHES_DOWN = "all but training, which reads records into memory"
Options = LocalOptions
TOLERANT = True
UPDATES = True
OWN_NOISE = (FIT,)
WORDS = ("model update", "weighted model updates", "round", "the averaged model")
_SMALLEST_SHARE = 2.0**-12  # of the records, with which 32-bit words still leave a holder 2^17 steps to its range

columns = prepared.columns
budget = rounds.budget


@dataclass(frozen=True)
class Local:
    """The noise of one round at one holder."""

    event: Event
    steps: int
    rate: float
    noise_multiplier: float
    noise_to_signal: float | None


def mechanism(question: Question[LocalOptions], ask: str, size: Size) -> Local:  # noqa: ARG001
    """One round of DP-SGD at a holder of this public size."""
    plan = _schedule(question, size)
    ratio = plan.noise_to_signal(question.options.rounds, prepared.entries(question))
    return Local(plan.event, plan.steps_per_round, plan.rate, plan.noise_multiplier or 0.0, ratio)


def _schedule(question: Question[LocalOptions], size: Size) -> Any:
    from statfed.strategies.learning.local import schedule

    fitted = rounds.fitted_on(size, question.options)
    return schedule(question.options, question.privacy, fitted, scores.beside(question))


def planned(question: Question[LocalOptions], size: Size) -> tuple[int, float]:
    """Steps of one round and sampling rate at a holder of this size, of training without privacy too."""
    plan = _schedule(question, size)
    return plan.steps_per_round, plan.rate


def parts(question: Question[LocalOptions], ask: Ask) -> Mapping[str, Part]:
    size = (prepared.entries(question),)
    weight = Part(bound=1, integer=True, what=Public())
    if question.reveals:
        update = {"vector": Part(size, what=Update(), single_precision=True)}
    else:
        update = {"update": Part(size, what=Update())}
    return rounds.parts(question, ask, {**update, "weight": weight})


def layout(question: Question[LocalOptions], ask: Ask, sizes: Mapping[str, int]) -> Layout | None:
    """Sums of size times update, each update of L2 norm at most `update_norm`, and of sizes.

    Words have 32 bits unless the smallest holder would lose too much to rounding.
    """
    if ask.name != FIT or question.reveals:
        return None
    records = float(sum(sizes.values()))
    update = Slot((prepared.entries(question),), records * question.options.update_norm, update=True)
    weight = Slot((), records, integer=True)
    narrow = min(sizes.values()) >= records * _SMALLEST_SHARE
    return Layout({"update": update, "weight": weight}, len(sizes), narrow=narrow)


def contribute(table: Table, question: Question[LocalOptions], ask: Ask) -> Arrays:
    from statfed.strategies.learning.local import fit, get_vector

    if ask.name != FIT:
        return scores.evaluated(table, question, ask)
    if table.random is None:
        raise ValueError("training without random numbers")
    start = np.asarray(ask.arrays["vector"], np.float32)
    model = prepared.loaded(question, start)
    own = prepared.prepared(table, question).fitted
    streams = table.random("sampling"), table.random("noise")
    plan = _schedule(question, table.size)
    fit(model, own.inputs, own.labels, own.units, question.options, question.privacy, plan, *streams)
    trained = get_vector(model)
    if not np.isfinite(trained).all():
        raise Refused("training diverged: the update is not finite; want a smaller learning rate")
    size = table.size.records
    if question.reveals:
        return {"vector": trained, "weight": np.array(size)}
    update = bounded(trained - start, question.options.update_norm)
    return {"update": update * np.float64(size), "weight": np.array(size)}


def bounded(update: Vector, norm: float) -> Vector:
    """An update, scaled down to L2 norm `norm` where it is longer. After noise it is post-processing."""
    length = float(np.linalg.norm(update.astype(np.float64)))
    return update if length <= norm else update * np.float32(norm / length * (1.0 - 1e-6))


def discloses(question: Question[LocalOptions], ask: Ask) -> Model:  # noqa: ARG001
    inputs = inputs_of(question)
    return Model(prepared.entries(question), (*inputs.features, inputs.target))


def coordinate(question: Question[LocalOptions], state: Arrays | None = None) -> Coordination:
    return rounds.coordinate(question, state or {}, rounds.averaged)


def hindrances(question: Question[LocalOptions], requires: Requirements) -> Iterator[Finding]:
    """As of every training; and shared noise, which protects no single holder's update."""
    yield from rounds.hindrances(question, requires)
    terms, privacy = question.terms, question.privacy
    if privacy is not None and privacy.noise == "shared":
        local = terms.model_copy(update={"privacy": privacy.model_copy(update={"noise": "local", "colluders": 0})})
        descent = terms.model_copy(update={"method": "dp-fedsgd", "options": _descent(terms.options)})
        reason = "privacy.noise: got shared for local-sgd, where every holder's update is protected by itself"
        found = [Choice("local noise", local), Choice("method dp-fedsgd", descent)]
        yield Finding("not shared", reason, lambda: found)


def _descent(options: Mapping[str, Any]) -> dict[str, Any]:
    from statfed.strategies.learning.options import DescentOptions

    return {key: value for key, value in options.items() if key in DescentOptions.model_fields}
