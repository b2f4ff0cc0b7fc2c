"""What training methods have in common: the rounds of the coordinator, and what stands against a study."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.method import Arrays, Ask, Coordination, Fixed, Part, Question, Scheduled, Total
from statfed.core.privacy.noise import settled
from statfed.core.protection import Requirements
from statfed.core.result import Result
from statfed.core.rules import Choice, Finding, changed, others
from statfed.core.table import Size
from statfed.strategies.learning import scores
from statfed.strategies.learning.incoming import check_model
from statfed.strategies.learning.inputs import inputs_of
from statfed.strategies.learning.options import ROBUST, SUMS, Strategy, TrainingOptions
from statfed.strategies.learning.prepared import build, entries
from statfed.strategies.learning.scores import EVALUATE, EVALUATION

FIT = "fit"
LOST = (
    "{lost} of {rounds} sums of training were interrupted after holders had paid for them, and are not in the model: "
    "an interruption never makes a study cost more than was agreed"
)
Vector = NDArray[np.float32]
Seen = Callable[[Total, Vector], Sequence[tuple[Vector, int]]]
"""Models and their weights, as a strategy may see them, from a total and the model that was sent."""


def fitted_on(size: Size, options: TrainingOptions) -> Size:
    """The public size of what is trained on: less the share that is kept apart."""
    left = 1.0 - options.holdout
    return Size(max(1, round(size.records * left)), max(1, round(size.persons * left)))


def budget(question: Question[TrainingOptions]) -> Fixed:
    """Rounds, and scores where units are kept apart for them."""
    rounds, scored = question.options.rounds, question.options.holdout > 0
    fit = Scheduled(FIT, rounds, 1.0 - EVALUATION if scored else 1.0)
    return Fixed((fit, Scheduled(EVALUATE, 1, EVALUATION)) if scored else (fit,))


def parts(question: Question[TrainingOptions], ask: Ask, of_fit: Mapping[str, Part]) -> Mapping[str, Part]:
    """The parts of an ask. Raises UsageError on one that the study does not make, Refused on a model that no holder
    computes with: holders ask for parts ahead of ledger and data."""
    if "vector" in ask.arrays:
        check_model(question, ask.arrays["vector"])
    if ask.name == FIT:
        return of_fit
    if not question.options.holdout:
        raise UsageError(f"ask: got {ask.name}; want {FIT}")
    return scores.parts(question, ask.name)


def coordinate(question: Question[TrainingOptions], state: Arrays, seen: Seen) -> Coordination:
    """The coordinator's half: from a first model, or the one in `state`, through the rounds to the scores.

    state: `model`, `round`, of these the rounds whose sums were `lost`, and the server optimiser's memory, of an
    interrupted run; or `model` alone to start from.
    """
    from statfed.strategies.learning.aggregation import aggregated, make_strategy, restore, state_of
    from statfed.strategies.learning.local import get_vector

    options, terms = question.options, question.terms
    vector: Vector = (
        np.asarray(state["model"], np.float32) if "model" in state else get_vector(build(question, terms.seed or 0))
    )
    try:
        check_model(question, vector)
    except Refused as error:
        raise UsageError(f"start: {error}") from None
    done, lost = (int(state[key]) if key in state else 0 for key in ("round", "lost"))
    strategy = make_strategy(options.strategy, len(terms.holders))
    restore(strategy, {key: array for key, array in state.items() if key not in ("model", "round", "lost")})

    def kept(number: int) -> dict[str, NDArray[Any]]:
        counts = {"round": np.array(number), "lost": np.array(lost)}
        return {"model": vector, **counts, **state_of(strategy)}

    for number in range(done + 1, options.rounds + 1):
        total = yield Ask(FIT, {"vector": vector}, state=kept(number - 1))
        vector = aggregated(strategy, number, vector, seen(total, vector)).astype(np.float32)
        try:
            check_model(question, vector)
        except Refused as error:
            raise EngineError(
                f"round {number}: the model diverged ({error}); want a smaller learning_rate or "
                "strategy.server_learning_rate"
            ) from None
    result = Result(
        terms.method,
        f"Model {options.model.name} for {inputs_of(question).target}",
        {"model": [{"parameters": entries(question), "rounds": options.rounds - lost}]},
        notes=(LOST.format(lost=lost, rounds=options.rounds),) if lost else (),
        arrays={"model": vector},
        basis={"model": scores.BASIS["model"]},
    )
    if not options.holdout:
        return result
    return (yield from scores.asked(question, result, vector, lambda: kept(options.rounds)))


def averaged(total: Total, start: Vector) -> list[tuple[Vector, int]]:
    """Each holder's model with its weight, or the one average of all, weighted by the sizes that were admitted.

    Raises EngineError where a contribution brought another weight.
    """
    sizes = {name: size.records for name, size in total.sizes.items()}
    if not total.each:
        weight, wanted = int(total["weight"]), sum(sizes[name] for name in total.holders)
        if weight != wanted:
            raise EngineError(f"got a total weight of {weight}; want the admitted {wanted}")
        return [((start + total["update"] / weight).astype(np.float32), weight)]
    found = []
    for name, arrays in total.each.items():
        vector, weight = arrays["vector"].astype(np.float32), int(arrays["weight"])
        if vector.shape != start.shape or not np.isfinite(vector).all():
            raise EngineError(f"{name}: got an update of shape {vector.shape}; want {len(start)} finite numbers")
        if weight != sizes[name]:
            raise EngineError(f"{name}: got a weight of {weight}; want the admitted {sizes[name]}")
        found.append((vector, weight))
    return found


def hindrances(question: Question[TrainingOptions], requires: Requirements) -> Iterator[Finding]:
    """What a robust strategy needs, and where the noise of training may be added."""
    terms, strategy, privacy = question.terms, question.options.strategy, question.privacy

    def renamed(text: str, **more: Any) -> Choice:
        return changed(terms, text, strategy={**strategy.model_dump(exclude_defaults=True), **more})

    if strategy.name in ROBUST and not requires.reveals_updates:

        def shown() -> Iterator[Choice]:
            yield from others(terms, lambda other: other.reveals_updates, ", which shows the coordinator each update")
            yield renamed(f"a strategy that needs the average only: {', '.join(SUMS)}", name=SUMS[0])

        reason = (
            f"strategy {strategy.name}: looks at each holder's update, which protection {terms.protection.name} hides"
        )
        yield Finding("single updates", reason, shown)
    yield from _enough_holders(question, renamed)
    if privacy is not None and settled(privacy) != "discrete-gaussian":
        gaussian = terms.model_copy(
            update={
                "privacy": privacy.model_copy(update={"mechanism": "discrete-gaussian", "delta": privacy.delta or 1e-5})
            }
        )
        reason = f"privacy.mechanism: got {settled(privacy)}, but noise of training is Gaussian"
        yield Finding("mechanism", reason, lambda: [Choice("privacy.mechanism discrete-gaussian", gaussian)])
    if privacy is not None and privacy.noise == "central":
        local = terms.model_copy(update={"privacy": privacy.model_copy(update={"noise": "local", "colluders": 0})})
        shared = terms.model_copy(update={"privacy": privacy.model_copy(update={"noise": "shared", "colluders": 1})})
        reason = "privacy.noise: got central, but in training only holders add noise"
        yield Finding("central", reason, lambda: [Choice("local noise", local), Choice("shared noise", shared)])


def holders_for(strategy: Strategy) -> int:
    """Fewest holders with which a strategy keeps what it promises; 1 for those that promise nothing."""
    match strategy.name:
        case "fedmedian":
            return 3
        case "fedtrimmedavg":
            return next(n for n in range(3, 10_001) if int(strategy.trim_fraction * n) >= 1)
        case "krum" | "multikrum":
            return 2 * strategy.num_malicious + 3
        case "bulyan":
            return 4 * strategy.num_malicious + 3
    return 1


def _enough_holders(question: Question[TrainingOptions], renamed: Callable[..., Choice]) -> Iterator[Finding]:
    """Holders that a robust strategy needs: Blanchard et al. 2017, El Mhamdi et al. 2018, and at least one to trim."""
    from statfed.core.rules import more_holders

    terms, strategy = question.terms, question.options.strategy
    total, fewest = len(terms.holders), holders_for(strategy)
    if strategy.name not in ROBUST:
        return
    if total < fewest:

        def choices() -> Iterator[Choice]:
            yield more_holders(terms, fewest)
            if strategy.num_malicious > 1:
                yield renamed("strategy.num_malicious 1", num_malicious=1)
            if strategy.name == "fedtrimmedavg" and total >= 3:
                fraction = float(f"{1.1 / total:.2g}")
                yield renamed(f"strategy.trim_fraction {fraction:.2g}", trim_fraction=fraction)
            yield from (renamed(f"strategy {other}", name=other) for other in ROBUST)

        says = {"fedmedian": "", "fedtrimmedavg": f" with trim_fraction {strategy.trim_fraction:g}"}
        suffix = says.get(strategy.name, f" with num_malicious {strategy.num_malicious}")
        yield Finding("enough holders", f"strategy {strategy.name}: got {total} holders, too few{suffix}", choices)
    most = total - strategy.num_malicious - 2
    if strategy.name == "multikrum" and strategy.nodes_to_keep and 0 < most < strategy.nodes_to_keep:
        reason = f"strategy.nodes_to_keep: got {strategy.nodes_to_keep} of {total} holders, num_malicious "
        fits = renamed(f"strategy.nodes_to_keep {most}", nodes_to_keep=most)
        yield Finding("nodes to keep", f"{reason}{strategy.num_malicious}", lambda: [fits])
