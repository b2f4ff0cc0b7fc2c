"""Scores of the finished model on the units that holders keep apart (`holdout`), which no training sees.

They are made of one protected sum. Formal guarantee of a private one: the model that is scored is a fixed vector to a
holder, whoever chose it. Each record's prediction is a function of that record and of the vector alone, to the last
bit, since it is computed by itself; a prediction that is not a number counts as 0. So a record adds 1 to one entry of
each table of counts, and at most the stated bound to each sum. Of a person at most `max_records_per_unit` records are
looked at (`statfed.client.data.tables.open_table`), which depend on the person's own records alone. Which units are
kept apart is a public rule on each unit alone (`statfed.strategies.learning.inputs.records_of`). The noise of
`statfed.core.privacy.noise` is calibrated from these bounds, to EVALUATION of the budget; training's is calibrated
beside its event.

Standard errors are those of a simple random sample of records, with the variance of the noise. Of the root mean squared
error it is by the fourth moment of the errors, in a private study, which has none, by that of a normal law.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import Refused, UsageError
from statfed.core.method import Arrays, Ask, Counts, Magnitude, Part, Question, Total
from statfed.core.privacy.accountant import Event
from statfed.core.privacy.noise import plan_share
from statfed.core.privacy.placement import shares
from statfed.core.result import Basis, Result, Row
from statfed.core.table import Table
from statfed.strategies.learning.inputs import Inputs, inputs_of
from statfed.strategies.learning.options import TrainingOptions
from statfed.strategies.learning.prepared import Prepared, loaded, prepared

EVALUATE, ANSWERS = "evaluate", "answers"
"""Asks: all scores; right and wrong answers alone, where holders' rules keep the finer counts back."""
EVALUATION = 0.1
"""Share of a private study's budget that scores on the units kept apart take."""
LARGEST = 1.0
"""Private regression: errors beyond half the target's range count as that, which the noise gets smaller by."""
_SHARES = {"squared": 3.0}  # of a private regression's budget for scores, against 1 for each other sum
BASIS = {
    "scores": Basis(keys=("name",), counts=("count",), own=("accuracy", "std_error", "macro_f1", "rmse", "mae", "r2")),
    "classes": Basis(("class",), counts=("count",), own=("precision", "recall", "f1")),
    "confusion": Basis(("class", "predicted"), counts=("count",)),
    "model": Basis(keys=("parameters", "rounds")),
}
"""What the tables of a training rest on."""
Asked = Question[TrainingOptions]
_Row = dict[str, Any]
_Table = NDArray[np.float64]


def beside(question: Asked) -> tuple[Event, ...]:
    """The event of the scores, which training's noise is calibrated beside."""
    privacy = question.privacy
    if privacy is None or not question.options.holdout:
        return ()
    return (plan_share(parts(question, EVALUATE), privacy, EVALUATION, shares(question.terms)).event(),)


def parts(question: Asked, ask: str) -> Mapping[str, Part]:
    """Wrong and right answers, and the confusion of true and predicted class; of a number, sums of errors on the scale
    of -1 to 1. Raises UsageError on an ask that is none of these."""
    inputs = inputs_of(question)
    if ask not in (EVALUATE, ANSWERS) or (ask == ANSWERS and inputs.regression):
        raise UsageError(f"ask: got {ask}; want {EVALUATE}")
    if not inputs.regression:
        classes = len(inputs.form.classes)
        answers = Part((2,), bound=1, integer=True, single=True, what=Counts((inputs.target,)))
        table = Part((classes, classes), bound=1, integer=True, single=True, what=Counts((inputs.target, "predicted")))
        return {"answers": answers} if ask == ANSWERS else {"answers": answers, "confusion": table}
    error = _largest(question)
    sums = {"squared": error**2, "absolute": error, "y": 1.0, "yy": 1.0}
    if question.privacy is None:
        sums["fourth"] = error**4
    found = {"records": Part(bound=1, integer=True, single=True, what=Counts())}
    return found | {
        name: Part(bound=bound, share=_SHARES.get(name, 1.0), what=Magnitude("records")) for name, bound in sums.items()
    }


def _largest(question: Asked) -> float:
    return LARGEST if question.privacy else 2.0


def evaluated(table: Table, question: Asked, ask: Ask) -> Arrays:
    """A holder's sums over the units it keeps apart."""
    data, inputs = prepared(table, question).scored, inputs_of(question)
    outputs = predicted(question, ask.arrays["vector"], data)
    if not inputs.regression:
        classes = len(inputs.form.classes)
        confusion = np.zeros((classes, classes), np.int64)
        np.add.at(confusion, (data.labels, outputs.argmax(1)), 1)
        right = int(np.trace(confusion))
        answers = np.array([len(data) - right, right])
        return {"answers": answers} if ask.name == ANSWERS else {"answers": answers, "confusion": confusion}
    y, largest = data.labels.astype(np.float64), _largest(question)
    off = np.clip(np.clip(outputs[:, 0], -1.0, 1.0) - y, -largest, largest)
    sums = {"squared": off**2, "absolute": np.abs(off), "y": y, "yy": y**2, "fourth": off**4}
    found = {name: np.array(sums[name].sum()) for name in parts(question, ask.name) if name != "records"}
    return {"records": np.array(len(y), np.int64), **found}


def predicted(question: Asked, vector: NDArray[Any], data: Prepared) -> _Table:
    """What a model gives for records, (records, outputs). In a private study each is computed by itself, so that
    nothing depends on which others there are; what is not finite is 0."""
    import torch

    torch.set_num_threads(1)
    model = loaded(question, vector).double().eval()
    x = torch.from_numpy(np.ascontiguousarray(data.inputs)).double()
    with torch.no_grad():
        if question.privacy and len(data):
            found = torch.cat([model(x[i : i + 1].clone()) for i in range(len(data))])
        else:
            found = model(x)
    return np.asarray(np.nan_to_num(found.numpy(), nan=0.0, posinf=0.0, neginf=0.0), np.float64)


def asked(
    question: Asked, result: Result, vector: NDArray[Any], state: Callable[[], Arrays]
) -> Generator[Ask, Total, Result]:
    """The coordinator's half: the result of training with the scores of its model, as far as holders give them."""
    refused = ""
    for name in (EVALUATE,) if question.privacy or inputs_of(question).regression else (EVALUATE, ANSWERS):
        try:
            total = yield Ask(name, {"vector": vector}, state=state())
        except Refused as error:
            refused = " ".join(str(error).split())
            continue
        found = _scored(question, result, total)
        return found.with_(notes=(*found.notes, f"scores without confusion: {refused}")) if refused else found
    return result.with_(notes=(*result.notes, f"no scores on units kept apart: {refused}"))


def _scored(question: Asked, result: Result, total: Total) -> Result:
    """Scores with their standard errors, the privacy noise included, and the majority or mean beside them."""
    inputs, names = inputs_of(question), inputs_of(question).form.classes
    tables: dict[str, Sequence[Row]] = {"scores": _regression(total, inputs) if inputs.regression else _classes(total)}
    if "confusion" in total:
        tables |= {"classes": _by_class(total, names), "confusion": _confusion(total, names)}
    facts = {**result.facts, "observations": tables["scores"][0]["count"]}
    return result.with_(tables={**tables, **result.tables}, facts=facts, basis=BASIS, observations="observations")


def _noise(total: Total, part: str) -> float:
    """Standard deviation of the noise of an entry; all of a part's have the same."""
    return float(np.max(total.noise[part], initial=0.0))


def _classes(total: Total) -> list[_Row]:
    wrong, right = (float(value) for value in total["answers"])
    n, spread = wrong + right, _noise(total, "answers")

    def row(name: str, value: float | None, noise: float, macro: float | None) -> _Row:
        if n <= 0 or value is None:
            return {"name": name, "count": max(0, round(n)), "accuracy": None, "std_error": None, "macro_f1": None}
        share = min(1.0, max(0.0, value))
        error = math.sqrt((share * (1 - share) + noise / n) / n)
        return {"name": name, "count": round(n), "accuracy": share, "std_error": error, "macro_f1": macro}

    def of(share: float) -> float:
        """Variance of the noise in n times a share that is as good as known."""
        return spread**2 * ((1 - share) ** 2 + share**2)

    accuracy = right / n if n > 0 else 0.0
    if "confusion" not in total:
        return [row("model", accuracy, of(accuracy), None)]
    table = np.asarray(total["confusion"], np.float64)
    support = table.sum(1)
    most = int(support.argmax())
    share = float(support[most] / n) if n > 0 else 0.0
    noisy = len(table) * _noise(total, "confusion") ** 2 + 2 * (share * spread) ** 2
    always = np.zeros_like(table)
    always[:, most] = support
    return [row("model", accuracy, of(accuracy), _macro(table)), row("majority", share, noisy, _macro(always))]


def _macro(table: _Table) -> float | None:
    """Mean F1 over the classes that records have; of noisy counts each is brought within 0 and 1."""
    right, given = np.diag(table), table.sum(0) + table.sum(1)
    f1 = np.divide(2 * right, given, out=np.zeros(len(table)), where=given > 0).clip(0.0, 1.0)
    there = table.sum(1) > 0
    return float(f1[there].mean()) if there.any() else None


def _by_class(total: Total, names: Sequence[str]) -> list[_Row]:
    table = np.asarray(total["confusion"], np.float64)

    def ratio(part: float, whole: float) -> float | None:
        return min(1.0, max(0.0, float(part / whole))) if whole > 0 else None

    return [
        {
            "class": name,
            "count": max(0, round(table[i].sum())),
            "precision": ratio(table[i, i], table[:, i].sum()),
            "recall": ratio(table[i, i], table[i].sum()),
            "f1": ratio(2 * table[i, i], table[i].sum() + table[:, i].sum()),
        }
        for i, name in enumerate(names)
    ]


def _confusion(total: Total, names: Sequence[str]) -> list[_Row]:
    table = total["confusion"]
    return [
        {"class": true, "predicted": taken, "count": int(table[i, j])}
        for i, true in enumerate(names)
        for j, taken in enumerate(names)
    ]


def _regression(total: Total, inputs: Inputs) -> list[_Row]:
    """Errors of the model and of the mean, in the target's own unit; none where the noise is larger than they are.

    r2 is 1 - squared errors / squared deviations from the mean of these records.
    """
    n, unit = float(total["records"]), inputs.half

    def row(name: str, squared: float, absolute: float | None, noise: float, spread: float, fourth: float) -> _Row:
        if n <= 1:
            return {"name": name, "count": max(0, round(n)), "rmse": None, "std_error": None, "mae": None, "r2": None}
        mse = squared / n
        variance = (max(0.0, fourth - mse**2) + (noise**2 + (mse * _noise(total, "records")) ** 2) / n) / n
        error = math.sqrt(variance) / (2 * math.sqrt(mse)) if mse > 0 else 0.0
        drowned = mse < 0 or (mse == 0 and noise > 0)  # in noise
        return {
            "name": name,
            "count": round(n),
            "rmse": None if drowned else unit * math.sqrt(mse),
            "std_error": None if drowned else unit * error,
            "mae": None if absolute is None else unit * max(0.0, absolute) / n,
            "r2": 1.0 - squared / spread if spread > 0 else None,
        }

    squared, y, yy = (float(total[name]) for name in ("squared", "y", "yy"))
    mean = y / n if n > 0 else 0.0
    deviations = yy - n * mean**2
    normal = 3 * (squared / n) ** 2 if n > 0 else 0.0
    fourth = float(total["fourth"]) / n if "fourth" in total and n > 0 else normal
    noise = math.hypot(_noise(total, "yy"), 2 * mean * _noise(total, "y"))
    return [
        row("model", squared, float(total["absolute"]), _noise(total, "squared"), deviations, fourth),
        row("mean", deviations, None, noise, deviations, 3 * (deviations / n) ** 2 if n > 0 else 0.0),
    ]
