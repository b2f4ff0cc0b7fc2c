"""What training methods have in common: inputs, the rounds of the coordinator, and the scores of the finished model.

Scores are a protected sum over the units that holders keep apart (`holdout`), which no training sees. In a private
study they get EVALUATION of the budget, and the noise of training is calibrated beside theirs.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.discovery import load
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Coordination,
    Counts,
    Fixed,
    Magnitude,
    Part,
    Question,
    Scheduled,
    Total,
    once,
)
from statfed.core.privacy.accountant import Event
from statfed.core.privacy.noise import plan_share
from statfed.core.privacy.placement import shares
from statfed.core.protection import Requirements
from statfed.core.result import Basis, Result, Row
from statfed.core.rules import Choice, Finding, changed, others
from statfed.core.table import Size, Table
from statfed.strategies.learning.inputs import Inputs, inputs_of, records_of
from statfed.strategies.learning.options import ROBUST, SUMS, Strategy, TrainingOptions

if TYPE_CHECKING:
    from torch import nn

MODELS = "statfed.strategies.models"
FIT, EVALUATE = "fit", "evaluate"
EVALUATION = 0.05
"""Share of a private study's budget that scores on the units kept apart take."""
Vector = NDArray[np.float32]
Seen = Callable[[Total, Vector], Sequence[tuple[Vector, int]]]
"""Models and their weights, as a strategy may see them, from a total and the model that was sent."""


def columns(question: Question[TrainingOptions]) -> tuple[str, ...]:
    """Columns that training reads."""
    load(MODELS, question.options.model.name, "model")
    return inputs_of(question).columns


def build(question: Question[TrainingOptions], seed: int = 0) -> "nn.Module":
    """A fresh model; its initial weights follow from `seed` alone."""
    module = load(MODELS, question.options.model.name, "model")
    model: nn.Module = module.build(inputs_of(question).form, question.options.model.hidden, seed)
    return model


@once
def entries(question: Question[TrainingOptions]) -> int:
    """Number of parameters of the model."""
    return sum(p.numel() for p in build(question).parameters())


def loaded(question: Question[TrainingOptions], vector: NDArray[Any]) -> "nn.Module":
    """The model with these parameters. Raises Refused where they are not finite, UsageError on another number."""
    from statfed.strategies.learning.local import set_vector

    if not np.isfinite(vector).all():
        raise Refused("model: got values that are not finite; want finite numbers")
    model = build(question)
    set_vector(model, np.asarray(vector, np.float32))
    return model


@dataclass(frozen=True)
class Prepared:
    """Records in the form that a model takes. Private. inputs: (records, ...); apart: kept to score the model."""

    inputs: NDArray[np.float32]
    labels: NDArray[Any]
    units: NDArray[np.int64]
    apart: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return "Prepared(<private>)"

    def select(self, rows: NDArray[Any]) -> "Prepared":
        """The records at `rows` (indices or mask)."""
        return Prepared(self.inputs[rows], self.labels[rows], self.units[rows], self.apart[rows])


def prepared(table: Table, question: Question[TrainingOptions]) -> Prepared:
    """A holder's records through the model's fixed front end; kept while the data are the same."""
    options, inputs = question.options, inputs_of(question)
    key = (inputs, options.model.name, options.holdout)
    kept = table.kept if table.kept is not None else {}
    if key not in kept:
        records, apart = records_of(table, inputs, options.holdout)
        module = load(MODELS, options.model.name, "model")
        kept[key] = Prepared(module.prepare(records.windows, inputs.form), records.labels, records.persons, apart)
    found: Prepared = kept[key]
    return found


def fitted_on(size: Size, options: TrainingOptions) -> Size:
    """The public size of what is trained on: less the share that is kept apart."""
    left = 1.0 - options.holdout
    return Size(max(1, round(size.records * left)), max(1, round(size.persons * left)))


def budget(question: Question[TrainingOptions]) -> Fixed:
    """Rounds, and scores where units are kept apart for them."""
    rounds, scored = question.options.rounds, question.options.holdout > 0
    fit = Scheduled(FIT, rounds, 1.0 - EVALUATION if scored else 1.0)
    return Fixed((fit, Scheduled(EVALUATE, 1, EVALUATION)) if scored else (fit,))


def beside(question: Question[TrainingOptions]) -> tuple[Event, ...]:
    """The event of the scores, which training's noise is calibrated beside."""
    privacy = question.privacy
    if privacy is None or not question.options.holdout:
        return ()
    parts = evaluation_parts(question)
    return (plan_share(parts, privacy, EVALUATION, shares(question.terms)).event(),)


def evaluation_parts(question: Question[TrainingOptions]) -> Mapping[str, Part]:
    """Confusion of true and predicted class; of a number, sums of errors on the scale of -1 to 1."""
    inputs = inputs_of(question)
    if not inputs.regression:
        classes = len(inputs.form.classes)
        counts = Counts((inputs.target, "predicted"))
        return {"confusion": Part((classes, classes), bound=1, integer=True, single=True, what=counts)}
    sums = {"squared": 4.0, "absolute": 2.0, "y": 1.0, "yy": 1.0}
    found = {"records": Part(bound=1, integer=True, single=True, what=Counts())}
    return found | {name: Part(bound=bound, what=Magnitude("records")) for name, bound in sums.items()}


def evaluated(table: Table, question: Question[TrainingOptions], ask: Ask) -> Arrays:
    """A holder's sums over the units it keeps apart."""
    import torch

    data, inputs = prepared(table, question), inputs_of(question)
    kept = data.select(data.apart)
    model = loaded(question, ask.arrays["vector"])
    model.eval()
    with torch.no_grad():
        outputs = model(torch.from_numpy(np.ascontiguousarray(kept.inputs))).double().numpy() if len(kept) else None
    if not inputs.regression:
        classes = len(inputs.form.classes)
        confusion = np.zeros((classes, classes), np.int64)
        if outputs is not None:
            np.add.at(confusion, (kept.labels, outputs.argmax(1)), 1)
        return {"confusion": confusion}
    y = kept.labels.astype(np.float64)
    off = np.clip(outputs[:, 0], -1.0, 1.0) - y if outputs is not None else y
    return {
        "records": np.array(len(y), np.int64),
        "squared": np.array(np.square(off).sum()),
        "absolute": np.array(np.abs(off).sum()),
        "y": np.array(y.sum()),
        "yy": np.array(np.square(y).sum()),
    }


def coordinate(question: Question[TrainingOptions], state: Arrays, seen: Seen) -> Coordination:
    """The coordinator's half: from a first model, or the one in `state`, through the rounds to the scores.

    state: `model`, `round` and the server optimiser's memory, of an interrupted run; or `model` alone to start from.
    """
    from statfed.strategies.learning.aggregation import aggregated, make_strategy, restore, state_of
    from statfed.strategies.learning.local import get_vector

    options, terms = question.options, question.terms
    vector: Vector = (
        np.asarray(state["model"], np.float32) if "model" in state else get_vector(build(question, terms.seed or 0))
    )
    if vector.shape != (entries(question),) or not np.isfinite(vector).all():
        raise UsageError(f"model: got parameters of shape {vector.shape}; want {entries(question)} finite numbers")
    done = int(state["round"]) if "round" in state else 0
    strategy = make_strategy(options.strategy, len(terms.holders))
    restore(strategy, {key: array for key, array in state.items() if key not in ("model", "round")})

    def kept(number: int) -> dict[str, NDArray[Any]]:
        return {"model": vector, "round": np.array(number), **state_of(strategy)}

    for number in range(done + 1, options.rounds + 1):
        total = yield Ask(FIT, {"vector": vector}, state=kept(number - 1))
        vector = aggregated(strategy, number, vector, seen(total, vector)).astype(np.float32)
        if not np.isfinite(vector).all():
            raise EngineError(
                f"round {number}: the model diverged (values are not finite); want a smaller learning_rate or "
                "strategy.server_learning_rate"
            )
    result = Result(
        terms.method,
        f"Model {options.model.name} for {inputs_of(question).target}",
        {"model": [{"parameters": entries(question), "rounds": options.rounds}]},
        arrays={"model": vector},
        basis=_BASIS,
        observations="observations",
    )
    if not options.holdout:
        return result
    try:
        total = yield Ask(EVALUATE, {"vector": vector}, state=kept(options.rounds))
    except Refused as error:
        return result.with_(notes=(f"no scores on units kept apart: {error}",))
    return _scored(question, result, total)


_BASIS = {
    "model": Basis(keys=("parameters", "rounds")),
    "scores": Basis(keys=("name",), counts=("count",), own=("accuracy", "std_error", "macro_f1", "rmse", "mae", "r2")),
    "classes": Basis(("class",), counts=("count",), own=("precision", "recall", "f1")),
    "confusion": Basis(("class", "predicted"), counts=("count",)),
}
"""What the scores of a model rest on."""


def _scored(question: Question[TrainingOptions], result: Result, total: Total) -> Result:
    """Scores with their standard errors, the privacy noise included, and the majority or mean beside them."""
    inputs = inputs_of(question)
    rows = _regression(total, inputs) if inputs.regression else _classification(total)
    tables: dict[str, Sequence[Row]] = {"scores": rows}
    if not inputs.regression:
        names = inputs.form.classes
        tables |= {"classes": _classes(total, names), "confusion": _confusion(total, names)}
    facts = {"observations": rows[0]["count"]}
    return result.with_(tables={**tables, **result.tables}, facts={**result.facts, **facts})


def _classification(total: Total) -> list[dict[str, Any]]:
    table, noise = np.maximum(total["confusion"], 0).astype(float), total.noise["confusion"]
    n = table.sum()
    if n <= 0:
        return [
            {"name": name, "count": 0, "accuracy": None, "std_error": None, "macro_f1": None}
            for name in ("model", "majority")
        ]
    classes = len(table)
    f1 = _f1(table)
    shown = f1[table.sum(1) > 0]
    accuracy = float(np.trace(table) / n)
    # The noise of right answers and of all answers: independent entries of equal standard deviation.
    spread = float(np.max(noise, initial=0.0))
    noisy = spread**2 * (classes * (1 - accuracy) ** 2 + (classes**2 - classes) * accuracy**2) / n**2
    support = table.sum(1)
    most = int(support.argmax())
    majority = np.zeros_like(table)
    majority[:, most] = support
    share = float(support[most] / n)
    noisy_majority = spread**2 * classes * ((1 - share) ** 2 + (classes - 1) * share**2) / n**2

    def row(name: str, value: float, extra: float, macro: float) -> dict[str, Any]:
        error = math.sqrt(max(0.0, value * (1 - value)) / n + extra)
        return {"name": name, "count": round(n), "accuracy": value, "std_error": error, "macro_f1": macro}

    base = _f1(majority)[support > 0]
    return [
        row("model", accuracy, noisy, float(shown.mean()) if len(shown) else 0.0),
        row("majority", share, noisy_majority, float(base.mean()) if len(base) else 0.0),
    ]


def _f1(table: NDArray[np.float64]) -> NDArray[np.float64]:
    right, given = np.diag(table), table.sum(0) + table.sum(1)
    return np.asarray(np.divide(2 * right, given, out=np.zeros(len(table)), where=given > 0))


def _classes(total: Total, names: Sequence[str]) -> list[dict[str, Any]]:
    table = np.maximum(total["confusion"], 0).astype(float)
    found = []
    for i, name in enumerate(names):
        support, taken, right = table[i].sum(), table[:, i].sum(), table[i, i]
        precision = float(right / taken) if taken > 0 else None
        recall = float(right / support) if support > 0 else None
        f1 = float(2 * right / (support + taken)) if support + taken > 0 else None
        found.append({"class": name, "count": round(support), "precision": precision, "recall": recall, "f1": f1})
    return found


def _confusion(total: Total, names: Sequence[str]) -> list[dict[str, Any]]:
    table = total["confusion"]
    return [
        {"class": true, "predicted": taken, "count": int(table[i, j])}
        for i, true in enumerate(names)
        for j, taken in enumerate(names)
    ]


def _regression(total: Total, inputs: Inputs) -> list[dict[str, Any]]:
    n = max(0.0, float(total["records"]))
    if n <= 1:
        names = ("model", "mean")
        return [{"name": name, "count": int(n), "rmse": None, "mae": None, "r2": None} for name in names]
    squared, absolute = max(0.0, float(total["squared"])), max(0.0, float(total["absolute"]))
    spread = max(0.0, float(total["yy"]) - float(total["y"]) ** 2 / n)
    unit = inputs.half
    r2 = 1.0 - squared / spread if spread > 0 else None
    return [
        {"name": "model", "count": int(n), "rmse": unit * math.sqrt(squared / n), "mae": unit * absolute / n, "r2": r2},
        {"name": "mean", "count": int(n), "rmse": unit * math.sqrt(spread / n), "mae": None, "r2": 0.0},
    ]


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
    if privacy is not None and privacy.mechanism != "discrete-gaussian":
        gaussian = terms.model_copy(
            update={
                "privacy": privacy.model_copy(update={"mechanism": "discrete-gaussian", "delta": privacy.delta or 1e-5})
            }
        )
        reason = f"privacy.mechanism: got {privacy.mechanism}, but noise of training is Gaussian"
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
