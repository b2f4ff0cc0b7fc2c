"""What a federated model is compared with: a tuned pooled model, each holder alone, and the majority class or mean; on
tables of the user's own also the plain generalised linear model of the same inputs.

These are computed by the simulator, which holds everybody's data; no pilot can have the pooled one. Nothing of them is
differentially private but what says so.
"""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from torch import nn

from statfed.core.discovery import load
from statfed.core.method import Question
from statfed.core.privacy.accountant import calibrate
from statfed.core.progress import Progress
from statfed.core.randomness import stream
from statfed.core.records import Records
from statfed.core.table import Size
from statfed.federation.trained import Candidate, ClassScore, NumberCandidate, NumberScores, Scores
from statfed.strategies.learning.inputs import inputs_of
from statfed.strategies.learning.local import Schedule, fit, schedule
from statfed.strategies.learning.losses import mean_loss
from statfed.strategies.learning.options import DescentOptions, LocalOptions, TrainingOptions
from statfed.strategies.learning.prepared import MODELS, Prepared, build

Asked = Question[TrainingOptions]


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a reference model (Adam with decoupled weight decay)."""

    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int = 64


GRID = tuple(
    Recipe(rate, decay, epochs) for rate, decay, epochs in itertools.product((1e-3, 3e-3, 1e-2), (1e-3, 1e-1), (10, 30))
)


RIDGE = 100.0  # C of the logistic regression
MOST_TUNED = 20_000
"""Records that recipes are tried on, of tables of the user's own."""
_UNDEFINED: Any = 0.0  # F1 of a class that is neither true nor predicted; scikit-learn's stub allows words only


def prepare(records: Records, question: Asked) -> Prepared:
    """Records through the model's fixed front end."""
    module = load(MODELS, question.options.model.name, "model")
    inputs = module.prepare(records.windows, inputs_of(question).form)
    return Prepared(inputs, records.labels, records.persons, np.zeros(len(records), np.bool_))


def joined(parts: Sequence[Prepared]) -> Prepared:
    """All records of `parts`, in order. Units of different parts are different ones where their numbers are."""
    fields = ("inputs", "labels", "units", "apart")
    return Prepared(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def outputs_of(model: nn.Module, data: Prepared) -> NDArray[np.float32]:
    """What a model gives for records, (records, outputs)."""
    model.eval()
    with torch.no_grad():
        found: NDArray[np.float32] = model(torch.from_numpy(data.inputs)).numpy()
    return found


def scores(model: nn.Module, data: Prepared, classes: Sequence[str]) -> Scores:
    """Accuracy, F1 and confusion of `model` on `data`."""
    return score_labels(outputs_of(model, data).argmax(1), data.labels, classes)


def score_numbers(scaled: NDArray[Any], true: NDArray[Any], half: float) -> NumberScores:
    """Errors of predictions on the scale of -1 to 1, which they are brought within, in the target's unit."""
    y = true.astype(np.float64)
    off = np.clip(scaled.astype(np.float64), -1.0, 1.0) - y
    spread = float(np.square(y - y.mean()).sum())
    return NumberScores(
        rmse=half * float(np.sqrt(np.square(off).mean())),
        mae=half * float(np.abs(off).mean()),
        r2=1.0 - float(np.square(off).sum()) / spread if spread > 0 else None,
    )


@dataclass(frozen=True)
class Way:
    """A way of getting a model, and what its model gives for the held-out records."""

    id: str
    title: str
    outputs: NDArray[Any]
    note: str = ""

    @property
    def kind(self) -> Any:
        return self.id.partition("/")[0]


def candidate(way: Way, test: Prepared, question: Asked) -> Candidate:
    """How well a way tells classes."""
    found = score_labels(way.outputs.argmax(1), test.labels, inputs_of(question).form.classes)
    return Candidate(id=way.id, title=way.title, kind=way.kind, scores=found, note=way.note)


def number_candidate(way: Way, test: Prepared, question: Asked) -> NumberCandidate:
    """How well a way predicts a number."""
    found = score_numbers(way.outputs[:, 0], test.labels, inputs_of(question).half)
    return NumberCandidate(id=way.id, title=way.title, kind=way.kind, scores=found, note=way.note)


def score_labels(taken: NDArray[np.int64], true: NDArray[np.int64], classes: Sequence[str]) -> Scores:
    """Scores of predicted labels; a class without true or predicted records has F1 0 (scikit-learn's convention)."""
    codes = list(range(len(classes)))
    figures = precision_recall_fscore_support(true, taken, labels=codes, zero_division=_UNDEFINED)
    precision, recall, f1, support = (np.asarray(figure) for figure in figures)
    present = sorted(set(true.tolist()))
    return Scores(
        accuracy=float((taken == true).mean()),
        macro_f1=float(f1_score(true, taken, labels=present, average="macro", zero_division=_UNDEFINED)),
        classes=[
            ClassScore(
                name=name,
                precision=float(precision[i]),
                recall=float(recall[i]),
                f1=float(f1[i]),
                support=int(support[i]),
            )
            for i, name in enumerate(classes)
        ],
        confusion=confusion_matrix(true, taken, labels=codes).tolist(),
    )


def train_alone(data: Prepared, question: Asked, recipe: Recipe, seed: int) -> nn.Module:
    """A model of the study trained on `data` without federation or privacy."""
    torch.set_num_threads(1)
    model = build(question, seed)
    x, y = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True
    )
    order = stream(seed, "reference", "order")
    model.train()
    for _ in range(recipe.epochs):
        for rows in torch.from_numpy(order.permutation(len(y))).split(recipe.batch_size):
            optimizer.zero_grad()
            mean_loss(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def tune(data: Prepared, question: Asked, seed: int, progress: Progress, folds: int = 2) -> Recipe:
    """The recipe of GRID with the best mean macro-F1, or least squared error, over folds of held-out persons."""
    people = np.unique(data.units)
    people = people[stream(seed, "tuning").permutation(len(people))]
    parts = [part for part in np.array_split(people, max(2, folds)) if len(part)][:folds]
    if len(people) < 2:
        return GRID[0]
    best, highest = GRID[0], -np.inf
    for number, recipe in enumerate(GRID):
        progress("tune the pooled reference", number, len(GRID))
        values = []
        for part in parts:
            inside = ~np.isin(data.units, part)
            model = train_alone(data.select(inside), question, recipe, seed)
            values.append(_merit(model, data.select(~inside), question))
        value = float(np.mean(values))
        if value > highest:
            best, highest = recipe, value
    progress("tune the pooled reference", len(GRID), len(GRID))
    return best


def _merit(model: nn.Module, data: Prepared, question: Asked) -> float:
    if inputs_of(question).regression:
        return -score_numbers(outputs_of(model, data)[:, 0], data.labels, 1.0).rmse
    return scores(model, data, inputs_of(question).form.classes).macro_f1


def tuned(data: Prepared, question: Asked, seed: int, cache: Path, progress: Progress) -> Recipe:
    """`tune`, remembered per data, model and seed: the search is the slow part of a comparison."""
    content = hashlib.sha256(
        json.dumps([question.options.model.model_dump(), seed, [asdict(r) for r in GRID]]).encode()
    )
    for array in (data.inputs, data.labels, data.units):
        content.update(np.ascontiguousarray(array).tobytes())
    path = cache / f"tuned-{content.hexdigest()[:32]}.json"
    try:
        return Recipe(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        recipe = tune(data, question, seed, progress)
        cache.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(recipe)))
        return recipe


def local_private(data: Prepared, question: Asked, holder: str, seed: int) -> nn.Module:
    """One holder alone with the same privacy, steps and learning rate as in the federation."""
    model = build(question, seed)
    options, plan = _alone(question, Size(len(data.labels), len(np.unique(data.units))))
    for number in range(1, question.options.rounds + 1):
        streams = [stream(question.terms.seed, holder, number, of) for of in ("local sampling", "local noise")]
        fit(model, data.inputs, data.labels, data.units, options, question.privacy, plan, streams[0], streams[1])
    return model


def _alone(question: Asked, size: Size) -> tuple[LocalOptions, Schedule]:
    """Options and schedule of one holder by itself; of dp-fedsgd as many steps on its own data."""
    options, privacy = question.options, question.privacy
    if isinstance(options, LocalOptions):
        return options, schedule(options, privacy, size)
    given = options.model_dump(include=set(LocalOptions.model_fields) & set(type(options).model_fields))
    rate = options.sampling_rate if isinstance(options, DescentOptions) else 1.0
    units = size.units(privacy.unit) if privacy else size.records
    sigma = calibrate(rate, options.rounds, privacy.epsilon, privacy.delta) if privacy else None
    return LocalOptions.model_validate(given), Schedule(rate, 1, rate * units, sigma)


def references(
    mine: Mapping[str, Prepared],
    test: Prepared,
    question: Asked,
    seed: int,
    cache: Path,
    progress: Progress,
    own: bool = False,
) -> list[Way]:
    """All references on the same held-out records. mine: what each holder trains on; own: tables of the user's own."""
    pooled = joined(list(mine.values()))
    if not len(pooled):
        return []
    recipe = tuned(_some(pooled, seed) if own else pooled, question, seed, cache, progress)
    steps = 2 + len(mine) * (2 if question.privacy else 1)
    done = itertools.count(1)
    note = f"Adam, learning rate {recipe.learning_rate:g}, decay {recipe.weight_decay:g}, {recipe.epochs} epochs"
    model = train_alone(pooled, question, recipe, seed)
    chosen = f"{note}; chosen on held-out persons of the pooled data"
    found = [Way("pooled", "Pooled, tuned, no privacy", outputs_of(model, test), chosen)]
    progress("train references", next(done), steps)
    for name, data in mine.items():
        if not len(data):
            continue
        model = train_alone(data, question, recipe, seed)
        alone = outputs_of(model, test)
        found.append(
            Way(f"local/{name}", f"{name} alone, no privacy", alone, "the pooled recipe on this holder's data")
        )
        progress("train references", next(done), steps)
        if question.privacy and len(np.unique(data.units)) > 1:
            alone = outputs_of(local_private(data, question, name, seed), test)
            cost = f"epsilon {question.privacy.epsilon:g} per {question.privacy.unit}, as in the federation"
            found.append(Way(f"local-dp/{name}", f"{name} alone, same privacy", alone, cost))
            progress("train references", next(done), steps)
    found += [*(_glm(pooled, test, question) if own else ()), _constant(pooled, test, question)]
    progress("train references", steps, steps)
    return found


def _some(data: Prepared, seed: int) -> Prepared:
    """At most MOST_TUNED records, whole units as far as they fit."""
    units = np.unique(data.units)
    units = units[stream(seed, "tuning", "some").permutation(len(units))]
    share = min(1.0, MOST_TUNED / len(data))
    return data if share == 1.0 else data.select(np.isin(data.units, units[: max(2, int(share * len(units)))]))


def _constant(pooled: Prepared, test: Prepared, question: Asked) -> Way:
    inputs = inputs_of(question)
    if inputs.regression:
        mean = float(pooled.labels.mean())
        shown = inputs.middle + inputs.half * mean
        return Way("mean", f"Always {shown:.4g}", np.full((len(test), 1), mean), "the mean of the pooled data")
    counts = np.bincount(pooled.labels, minlength=len(inputs.form.classes))
    return Way("majority", f"Always {inputs.form.classes[int(counts.argmax())]}", np.tile(counts, (len(test), 1)))


def _glm(pooled: Prepared, test: Prepared, question: Asked) -> list[Way]:
    """The plain generalised linear model of the same inputs; none where there is one class only."""
    from sklearn.linear_model import LinearRegression, LogisticRegression

    x, new = (part.inputs.reshape(len(part), -1).astype(np.float64) for part in (pooled, test))
    if inputs_of(question).regression:
        fitted = LinearRegression().fit(x, pooled.labels)
        return [Way("glm", "Pooled linear regression", fitted.predict(new)[:, None], "least squares")]
    there = np.unique(pooled.labels)
    if len(there) < 2:
        return []
    outputs = np.zeros((len(test), len(inputs_of(question).form.classes)))
    logistic = LogisticRegression(C=RIDGE, max_iter=2000).fit(x, pooled.labels)
    outputs[:, there] = logistic.predict_proba(new)
    note = f"maximum likelihood with a ridge of {1 / RIDGE:g}, without which separable classes have no estimate"
    return [Way("glm", "Pooled logistic regression", outputs, note)]
