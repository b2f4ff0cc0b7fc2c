"""`dp-fedsgd`: a round is one step of gradient descent on the noisy sum of all holders' clipped gradients.

`statfed.strategies.learning.step` says what one step is, `statfed.strategies.learning.gradients` proves it. Noise may
be each holder's own (local) or shared by the holders under a protection that shows sums only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from statfed.core.fixed_point import Layout
from statfed.core.method import Arrays, Ask, Coordination, Model, Part, Question, Total, Update, once
from statfed.core.privacy.accountant import Event
from statfed.core.protection import Requirements
from statfed.core.rules import Choice, Finding, changed, private_forms
from statfed.core.table import Size, Table
from statfed.strategies.learning import prepared, rounds, scores
from statfed.strategies.learning.inputs import inputs_of
from statfed.strategies.learning.options import PRIVACY as PRIVACY
from statfed.strategies.learning.options import DescentOptions, LocalOptions
from statfed.strategies.learning.rounds import FIT, Vector
from statfed.strategies.learning.step import STRATEGIES, Step, step

TITLE = "Gradient descent on the noisy sum of all holders' gradients, differentially private"
GROUP = "Training"
PUSHES_DOWN = "all but training, which reads records into memory"
Options = DescentOptions
TOLERANT = True
OWN_NOISE = (FIT,)
WORDS = ("sum of clipped gradients", "clipped gradients", "step", "the model")

columns = prepared.columns
budget = rounds.budget


@dataclass(frozen=True)
class Descent:
    """The noise of one step at one holder."""

    event: Event
    steps: int
    rate: float
    noise_multiplier: float
    noise_to_signal: float


@once
def _step(question: Question[DescentOptions]) -> Step:
    return step(question, prepared.entries(question), scores.beside(question))


def mechanism(question: Question[DescentOptions], ask: str, size: Size) -> Descent:  # noqa: ARG001
    """One step, the same at every holder."""
    found, privacy = _step(question), question.privacy
    units = rounds.fitted_on(size, question.options).units(privacy.unit if privacy else "record")
    ratio = found.noise_to_signal(question.options.rounds, units)
    return Descent(found.event, found.steps_per_round, found.rate, found.noise_multiplier, ratio)


def parts(question: Question[DescentOptions], ask: Ask) -> Mapping[str, Part]:
    return rounds.parts(question, ask, {"gradient": Part((prepared.entries(question),), integer=True, what=Update())})


def layout(question: Question[DescentOptions], ask: Ask, sizes: Mapping[str, int]) -> Layout | None:
    """Sums are encoded exactly; every holder has an equal share of the range."""
    return None if ask.name != FIT else _step(question).layout(sizes)


def contribute(table: Table, question: Question[DescentOptions], ask: Ask) -> Arrays:
    from statfed.strategies.learning.gradients import noisy_sum

    if ask.name != FIT:
        return scores.evaluated(table, question, ask)
    if table.random is None or question.privacy is None:
        raise ValueError("a step without random numbers or privacy")
    model = prepared.loaded(question, ask.arrays["vector"])
    own = prepared.prepared(table, question).fitted
    streams = table.random("sampling"), table.random("noise")
    plan = _step(question)
    return {"gradient": noisy_sum(model, own.inputs, own.labels, own.units, question.privacy, plan, *streams)}


def discloses(question: Question[DescentOptions], ask: Ask) -> Model:  # noqa: ARG001
    inputs = inputs_of(question)
    return Model(prepared.entries(question), (*inputs.features, inputs.target))


def coordinate(question: Question[DescentOptions], state: Arrays | None = None) -> Coordination:
    return rounds.coordinate(question, state or {}, lambda total, start: [_stepped(question, total, start)])


def _stepped(question: Question[DescentOptions], total: Total, start: Vector) -> tuple[Vector, int]:
    """The model after a plain step along the noisy mean gradient, which a strategy takes for its one update.

    The mean is over the public number of units of all holders, whoever dropped out.
    """
    options, plan, privacy = question.options, _step(question), question.privacy
    unit = privacy.unit if privacy else "record"
    fitted = [rounds.fitted_on(size, options).units(unit) for size in total.sizes.values()]
    mean = total["gradient"] * (plan.unit / (plan.rate * sum(fitted)))
    slope = mean + options.weight_decay * start
    return (start - options.learning_rate * slope).astype(np.float32), sum(s.records for s in total.sizes.values())


def hindrances(question: Question[DescentOptions], requires: Requirements) -> Iterator[Finding]:
    """As of every training; and privacy, which it is made of, and a strategy that takes steps."""
    yield from rounds.hindrances(question, requires)
    terms, strategy = question.terms, question.options.strategy
    options = {key: value for key, value in terms.options.items() if key in LocalOptions.model_fields}
    each = Choice("method local-sgd", terms.model_copy(update={"method": "local-sgd", "options": options}))
    if question.privacy is None:
        reason = "method: got dp-fedsgd without differential privacy"
        yield Finding("descent privacy", reason, lambda: [*private_forms(terms), each])
    if strategy.name not in STRATEGIES:
        given: dict[str, Any] = {**strategy.model_dump(exclude_defaults=True), "name": STRATEGIES[0]}
        found = [changed(terms, f"strategy {', '.join(STRATEGIES)}", strategy=given), each]
        yield Finding("descent strategy", f"strategy {strategy.name}: not for dp-fedsgd", lambda: found)
