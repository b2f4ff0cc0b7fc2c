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
from torch.nn.functional import cross_entropy

from statfed.core.discovery import load
from statfed.core.progress import Progress
from statfed.core.randomness import stream
from statfed.core.records import Records, concatenate
from statfed.core.terms import Terms
from statfed.federation.trained import Candidate, ClassScore, Scores
from statfed.strategies.learning.local import fit, schedule


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


@dataclass(frozen=True)
class Prepared:
    """Records in the form that a model takes. inputs: (records, ...)."""

    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    persons: NDArray[np.int64]

    def select(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Prepared":
        return Prepared(self.inputs[rows], self.labels[rows], self.persons[rows])


def prepare(records: Records, terms: Terms) -> Prepared:
    """Records through the model's fixed front end."""
    module = load("statfed.strategies.models", terms.model.name, "model")
    return Prepared(module.prepare(records.windows, terms.codebook), records.labels, records.persons)


def build(terms: Terms, seed: int) -> nn.Module:
    """A fresh model of the study."""
    module = load("statfed.strategies.models", terms.model.name, "model")
    model: nn.Module = module.build(terms.codebook, terms.model.hidden, seed)
    return model


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


def train_alone(data: Prepared, terms: Terms, recipe: Recipe, seed: int) -> nn.Module:
    """A model of the study trained on `data` without federation or privacy."""
    torch.set_num_threads(1)
    model = build(terms, seed)
    x, y = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True
    )
    order = stream(seed, "reference", "order")
    model.train()
    for _ in range(recipe.epochs):
        for rows in torch.from_numpy(order.permutation(len(y))).split(recipe.batch_size):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model


def tune(data: Prepared, terms: Terms, seed: int, progress: Progress, folds: int = 2) -> Recipe:
    """The recipe of GRID with the best mean macro-F1 over folds of held-out persons."""
    people = np.unique(data.persons)
    people = people[stream(seed, "tuning").permutation(len(people))]
    parts = [part for part in np.array_split(people, max(2, folds)) if len(part)][:folds]
    if len(people) < 2:
        return GRID[0]
    best, highest = GRID[0], -1.0
    for number, recipe in enumerate(GRID):
        progress("tune the pooled reference", number, len(GRID))
        values = []
        for part in parts:
            inside = ~np.isin(data.persons, part)
            model = train_alone(data.select(inside), terms, recipe, seed)
            values.append(scores(model, data.select(~inside), terms.codebook.classes).macro_f1)
        value = float(np.mean(values))
        if value > highest:
            best, highest = recipe, value
    progress("tune the pooled reference", len(GRID), len(GRID))
    return best


def tuned(data: Prepared, terms: Terms, seed: int, cache: Path, progress: Progress) -> Recipe:
    """`tune`, remembered per data, model and seed: the search is the slow part of a comparison."""
    content = hashlib.sha256(json.dumps([terms.model.model_dump(), seed, [asdict(r) for r in GRID]]).encode())
    for array in (data.inputs, data.labels, data.persons):
        content.update(np.ascontiguousarray(array).tobytes())
    path = cache / f"tuned-{content.hexdigest()[:32]}.json"
    try:
        return Recipe(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        recipe = tune(data, terms, seed, progress)
        cache.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(recipe)))
        return recipe


def local_private(data: Prepared, terms: Terms, holder: str, seed: int) -> nn.Module:
    """One holder alone with the same privacy, steps and learning rate as in the federation."""
    model = build(terms, seed)
    plan = schedule(terms, len(data.labels), len(np.unique(data.persons)))
    for number in range(1, terms.rounds + 1):
        streams = [stream(terms.seed, holder, number, purpose) for purpose in ("local sampling", "local noise")]
        fit(model, data.inputs, data.labels, data.persons, terms, plan, streams[0], streams[1])
    return model


def references(
    holders: Mapping[str, Records], test: Prepared, terms: Terms, seed: int, cache: Path, progress: Progress
) -> list[Candidate]:
    """All references on the same held-out persons."""
    classes = terms.codebook.classes
    mine = {name: prepare(records, terms) for name, records in holders.items()}
    pooled = prepare(concatenate(list(holders.values())), terms)
    recipe = tuned(pooled, terms, seed, cache, progress)
    steps = 2 + len(mine) * (2 if terms.privacy else 1)
    done = itertools.count(1)
    note = f"Adam, learning rate {recipe.learning_rate:g}, decay {recipe.weight_decay:g}, {recipe.epochs} epochs"
    found = [
        Candidate(
            id="pooled",
            title="Pooled, tuned, no privacy",
            kind="pooled",
            scores=scores(train_alone(pooled, terms, recipe, seed), test, classes),
            note=f"{note}; chosen on held-out persons of the pooled data",
        )
    ]
    progress("train references", next(done), steps)
    for name, data in mine.items():
        model = train_alone(data, terms, recipe, seed)
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
        if terms.privacy:
            found.append(
                Candidate(
                    id=f"local-dp/{name}",
                    title=f"{name} alone, same privacy",
                    kind="local-dp",
                    scores=scores(local_private(data, terms, name, seed), test, classes),
                    note=f"epsilon {terms.privacy.epsilon:g} per {terms.privacy.unit}, as in the federation",
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
