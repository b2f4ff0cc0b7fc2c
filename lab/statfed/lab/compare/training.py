"""One trial of a training scenario: a model, trained by simulated holders under one technique.

The references are those of a run: a tuned pooled model and each holder alone, trained once for a world.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import f1_score
from statfed.federation.assemble import learns
from statfed.federation.training_homes import make_homes
from statfed.server.app import Training, train
from torch import nn

from statfed.core.applicability import obstacles
from statfed.core.discovery import load
from statfed.core.progress import silent
from statfed.core.protection import Disclosure
from statfed.core.records import concatenate
from statfed.core.scenario import EXACT, Figure, Figures, Population, Profile, Reference
from statfed.core.study import Study, make_study
from statfed.core.terms import Terms
from statfed.federation import references as _references
from statfed.federation.references import Prepared
from statfed.lab.compare.membership import best_slice, slices
from statfed.lab.compare.statistics import BUDGET, roles
from statfed.lab.compare.trial import Cell, Technique, Trial, compared
from statfed.server.engine import Deployment, Engine, Session
from statfed.strategies.learning.local import get_vector, schedule, set_vector

_UNDEFINED: Any = 0.0  # F1 of a class that is neither true nor predicted


@dataclass(frozen=True)
class Trained:
    """What is common to all techniques of one world. members: what the pooled holders' records look like to the model;
    alone: figures of each holder's own model."""

    population: Population
    members: Prepared
    test: Prepared
    pooled: Reference
    alone: Mapping[str, Figures]


def study_of(module: Any, profile: Profile, seed: int, technique: Technique) -> Study:
    """The scenario's study under a technique."""
    table: dict[str, Any] = dict(module.study(profile, seed))
    level = technique.level
    if level.privacy is None:
        table["privacy"] = None
    else:
        table["privacy"] = {**(table.get("privacy") or {}), **level.privacy}
        if level.privacy.get("noise") == "shared":
            table["training"] = {**table.get("training", {}), "method": "dp-fedsgd"}
    for key, value in level.study.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, Mapping) else value
    table["protection"] = {"name": technique.protection, "options": dict(technique.options)}
    delta = (table["privacy"] or {}).get("delta", 1e-5)
    table["simulation"] = {"lifetime_epsilon": BUDGET, "lifetime_delta": delta}
    return make_study(table, where=f"{table.get('scenario')}, {technique.id}")


def references(module: Any, profile: Profile, seed: int, cache: Path) -> Trained:
    """Draw a world and train what it is compared with. cache: folder for the pooled model's tuned recipe."""
    study = study_of(module, profile, seed, Technique("plain", EXACT))
    population = module.population(study, silent)
    terms = study.terms(module.codebook(study))
    test = _references.prepare(population.test, terms)
    mine = {name: _references.prepare(records, terms) for name, records in population.holders.items()}
    members = _references.prepare(concatenate(list(population.holders.values())), terms)
    recipe = _references.tuned(members, terms, seed, cache, silent)
    pooled = figures_of(module, _references.train_alone(members, terms, recipe, seed), test)
    alone = {
        name: figures_of(module, _references.train_alone(data, terms, recipe, seed), test)
        for name, data in mine.items()
    }
    reference = {name: figure.value for name, figure in pooled.items() if figure.value is not None}
    return Trained(population, members, test, reference, alone)


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


def membership_of(model: nn.Module, world: Trained) -> dict[str, float]:
    """How well members are told from held-out records by the model's loss: on all, and on the worst slice."""
    sides = [(probabilities(model, data), data.labels) for data in (world.members, world.test)]
    found = slices(*sides[0], *sides[1])
    return {"leakage.membership_auc": found[0].auc, "leakage.membership_worst_slice_auc": best_slice(found).auc}


def run_training(
    module: Any, world: Trained, cell: Cell, engine: Engine | None = None
) -> tuple[Trial, nn.Module | None]:
    """One cell of a training scenario, and the model that came out. Raises what the run raises."""
    study = study_of(module, cell.profile, cell.seed, cell.technique)
    terms = study.terms(module.codebook(study))
    found = obstacles(terms)
    if found:
        return Trial(cell, "not-applicable", "\n".join(map(str, found))), None
    trial, model = Trial(cell, "done"), _references.build(terms, study.seed)
    started, spent = time.perf_counter(), time.process_time()
    training, session = _train(study, terms, world.population, get_vector(model), engine)
    trial.wall, trial.processor = time.perf_counter() - started, time.process_time() - spent
    set_vector(model, training.vector)
    compared(trial, figures_of(module, model, world.test), world.pooled, {}, module.SUCCESS)
    trial.measures |= membership_of(model, world)
    closings = list(training.closings.values())
    trial.disclosures = max(closing.disclosures for closing in closings)
    composed = [closing.history_epsilon for closing in closings]
    if None not in composed:
        trial.epsilon = max(e for e in composed if e is not None)
        trial.delta = max(closing.delta or 0.0 for closing in closings)
        trial.unit = closings[0].unit
    trial.roles = roles(session.meters, set(terms.holders), trial.processor)
    trial.stages = max((role.messages for role in trial.roles if role.role == "holder"), default=0)
    trial.learns = tuple(Disclosure(row.role, row.learns, row.protected_by) for row in learns(terms))
    return trial, model


def _train(
    study: Study, terms: Terms, population: Population, initial: NDArray[np.float32], engine: Engine | None
) -> tuple[Training, Session]:
    def drive(session: Session) -> tuple[Training, Session]:
        run = f"compare-{study.scenario}"
        return train(session, terms, run, initial, timeout=study.timeout, progress=silent), session

    chosen: Engine = engine or load("statfed.server.grid", study.engine, "engine")
    with tempfile.TemporaryDirectory(prefix="statfed-trial-") as folder:
        homes = make_homes(study, population.holders, Path(folder), study.scenario)
        return chosen.run(Deployment("compare", homes, Path(folder) / "logs"), drive, silent)


def warm(module: Any, world: Trained, cell: Cell) -> None:
    """Calibrate the noise of a technique once in this process, at no one's cost."""
    study = study_of(module, cell.profile, cell.seed, cell.technique)
    terms = study.terms(module.codebook(study))
    if terms.privacy is not None:
        for records in world.population.holders.values():
            schedule(terms, len(records), len(np.unique(records.persons)))
