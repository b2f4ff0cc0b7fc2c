"""What a federated model is compared with: a tuned pooled model, each holder alone, and the majority class.

These are computed by the simulator, which holds everybody's data; no pilot can have the pooled one.
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
from statfed.core.records import Records, concatenate
from statfed.core.table import Size
from statfed.federation.trained import Candidate, ClassScore, Scores
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


_UNDEFINED: Any = 0.0  # F1 of a class that is neither true nor predicted; scikit-learn's stub allows words only


def prepare(records: Records, question: Asked) -> Prepared:
    """Records through the model's fixed front end."""
    module = load(MODELS, question.options.model.name, "model")
    inputs = module.prepare(records.windows, inputs_of(question).form)
    return Prepared(inputs, records.labels, records.persons, np.zeros(len(records), np.bool_))


def scores(model: nn.Module, data: Prepared, classes: Sequence[str]) -> Scores:
    """Accuracy, F1 and confusion of `model` on `data`."""
    model.eval()
    with torch.no_grad():
        taken = model(torch.from_numpy(data.inputs)).argmax(1).numpy()
    return score_labels(taken, data.labels, classes)


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
    """The recipe of GRID with the best mean macro-F1 over folds of held-out persons."""
    people = np.unique(data.units)
    people = people[stream(seed, "tuning").permutation(len(people))]
    parts = [part for part in np.array_split(people, max(2, folds)) if len(part)][:folds]
    if len(people) < 2:
        return GRID[0]
    best, highest = GRID[0], -1.0
    for number, recipe in enumerate(GRID):
        progress("tune the pooled reference", number, len(GRID))
        values = []
        for part in parts:
            inside = ~np.isin(data.units, part)
            model = train_alone(data.select(inside), question, recipe, seed)
            values.append(scores(model, data.select(~inside), inputs_of(question).form.classes).macro_f1)
        value = float(np.mean(values))
        if value > highest:
            best, highest = recipe, value
    progress("tune the pooled reference", len(GRID), len(GRID))
    return best


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
    holders: Mapping[str, Records], test: Prepared, question: Asked, seed: int, cache: Path, progress: Progress
) -> list[Candidate]:
    """All references on the same held-out persons."""
    classes = inputs_of(question).form.classes
    mine = {name: prepare(records, question) for name, records in holders.items()}
    pooled = prepare(concatenate(list(holders.values())), question)
    recipe = tuned(pooled, question, seed, cache, progress)
    steps = 2 + len(mine) * (2 if question.privacy else 1)
    done = itertools.count(1)
    note = f"Adam, learning rate {recipe.learning_rate:g}, decay {recipe.weight_decay:g}, {recipe.epochs} epochs"
    found = [
        Candidate(
            id="pooled",
            title="Pooled, tuned, no privacy",
            kind="pooled",
            scores=scores(train_alone(pooled, question, recipe, seed), test, classes),
            note=f"{note}; chosen on held-out persons of the pooled data",
        )
    ]
    progress("train references", next(done), steps)
    for name, data in mine.items():
        model = train_alone(data, question, recipe, seed)
        found.append(
            Candidate(
                id=f"local/{name}",
                title=f"{name} alone, no privacy",
                kind="local",
                scores=scores(model, test, classes),
                note="the pooled recipe on this holder's data",
            )
        )
        progress("train references", next(done), steps)
        if question.privacy:
            found.append(
                Candidate(
                    id=f"local-dp/{name}",
                    title=f"{name} alone, same privacy",
                    kind="local-dp",
                    scores=scores(local_private(data, question, name, seed), test, classes),
                    note=f"epsilon {question.privacy.epsilon:g} per {question.privacy.unit}, as in the federation",
                )
            )
            progress("train references", next(done), steps)
    most = int(np.bincount(pooled.labels, minlength=len(classes)).argmax())
    found.append(
        Candidate(
            id="majority",
            title=f"Always {classes[most]}",
            kind="majority",
            scores=score_labels(np.full(len(test.labels), most), test.labels, classes),
        )
    )
    progress("train references", steps, steps)
    return found
