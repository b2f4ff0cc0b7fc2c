"""Training scenarios in a comparison: their population as tables, and references trained once for a world.

The references are those of a run: a tuned pooled model and each holder alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from torch import nn

from statfed.core.method import Question, load_method, read_question
from statfed.core.progress import silent
from statfed.core.records import concatenate
from statfed.core.scenario import EXACT, Figure, Figures, Profile
from statfed.core.study import Study, make_study
from statfed.core.terms import Terms
from statfed.federation import references
from statfed.federation.answers import Answer
from statfed.federation.population import Described, described, write_tables
from statfed.lab.compare.bench import Bench
from statfed.lab.compare.membership import best_slice, slices
from statfed.lab.compare.questions import Questions, under
from statfed.lab.compare.trial import Technique
from statfed.strategies.learning.local import set_vector
from statfed.strategies.learning.options import TrainingOptions
from statfed.strategies.learning.prepared import Prepared, build

_UNDEFINED: Any = 0.0  # F1 of a class that is neither true nor predicted
SHARED = "dp-fedsgd"
"""The method where holders share noise and the level names no other."""


def table_of(module: Any, profile: Profile, seed: int, technique: Technique) -> dict[str, Any]:
    """The scenario's study with what the technique's level says of it.

    Options of the scenario that another method of the level does not have are left out.
    """
    table, level = dict(module.study(profile, seed)), technique.level
    changes = dict(level.study)
    if (level.privacy or {}).get("noise") == "shared":
        changes = {"method": SHARED, **changes}
    if changes.get("method", table["method"]) != table["method"]:
        known = load_method(changes["method"]).Options.model_fields
        table["options"] = {name: value for name, value in table["options"].items() if name in known}
    for key, value in changes.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, Mapping) else value
    return table


def study_of(module: Any, profile: Profile, seed: int, technique: Technique) -> Study:
    """The scenario's study under a technique."""
    table = under(technique, table_of(module, profile, seed, technique))
    return make_study(table, where=f"{table['scenario']}, {technique.id}")


def terms_of(module: Any, study: Study) -> Terms:
    """What the holders of a scenario's population agree to."""
    found = described(module.codebook(study), module.ABOUT.title)
    return study.replace(options={**_named(found), **study.options}).terms(found.codebook)


def _named(found: Described) -> dict[str, Any]:
    """The options that name a population's columns."""
    return {"features": list(found.features), "target": found.target}


@dataclass(frozen=True)
class Judged:
    """Records that a model is judged by. members: those of the pooled holders, as the model sees them; test: held
    out. Private."""

    members: Prepared
    test: Prepared


def opened(module: Any, profile: Profile, seed: int, folder: Path, cache: Path) -> Bench:
    """Draw a population, write its tables to `folder`, and train what it is compared with.

    cache: folder for the pooled model's tuned recipe.
    """
    study = study_of(module, profile, seed, Technique("plain", EXACT))
    population, form = module.population(study, silent), module.codebook(study)
    found = described(form, module.ABOUT.title)
    homes = {name: folder / name for name in population.holders}
    for home in homes.values():
        home.mkdir(parents=True)
    sources = write_tables(population.holders, form, homes)
    question: Question[TrainingOptions]
    _, question = read_question(terms_of(module, study))
    pooled = references.prepare(concatenate(list(population.holders.values())), question)
    records = Judged(pooled, references.prepare(population.test, question))
    recipe = references.tuned(pooled, question, seed, cache, silent)

    def trained(data: Prepared) -> Figures:
        return figures_of(module, references.train_alone(data, question, recipe, seed), records.test)

    def compute(ask: Questions) -> Figures:
        table = table_of(module, profile, seed, ask.technique)
        kept = {key: value for key, value in table.items() if key not in ("scenario", "data")}
        answer = ask.put({**kept, "options": {**_named(found), **table["options"]}})
        return figures_of(module, _model(answer), records.test)

    reference = {name: figure.value for name, figure in trained(pooled).items() if figure.value is not None}
    return Bench(
        compute=compute,
        sources=sources,
        codebook=found.codebook,
        success=module.SUCCESS,
        reference=reference,
        alone={name: trained(references.prepare(mine, question)) for name, mine in population.holders.items()},
        beside=lambda _, answers: membership_of(_model(answers[-1]), records),
    )


def _model(answer: Answer) -> nn.Module:
    """The model that came out."""
    model = build(read_question(answer.terms)[1])
    set_vector(model, np.asarray(answer.result.arrays["model"], np.float32))
    return model


def probabilities(model: nn.Module, data: Prepared) -> NDArray[np.float64]:
    """The model's class probabilities, (records, classes)."""
    model.eval()
    with torch.no_grad():
        found: NDArray[np.float64] = model(torch.from_numpy(data.inputs)).softmax(1).double().numpy()
    return found


def figures_of(module: Any, model: nn.Module, test: Prepared) -> Figures:
    """Accuracy, macro-F1 over the classes that occur, and the scenario's own measures, on the held-out records."""
    given = probabilities(model, test)
    taken, true = given.argmax(1), test.labels
    present = np.unique(true).tolist()
    figures = {
        "accuracy": float((taken == true).mean()),
        "macro_f1": float(f1_score(true, taken, labels=present, average="macro", zero_division=_UNDEFINED)),
    }
    own = getattr(module, "measures", None)
    figures |= own(given, true) if own else {}
    return {name: Figure(value) for name, value in figures.items()}


def membership_of(model: nn.Module, records: Judged) -> dict[str, float]:
    """How well members are told from held-out records by the model's loss: on all, and on the worst slice."""
    sides = [(probabilities(model, data), data.labels) for data in (records.members, records.test)]
    found = slices(*sides[0], *sides[1])
    return {"leakage.membership_auc": found[0].auc, "leakage.membership_worst_slice_auc": best_slice(found).auc}
