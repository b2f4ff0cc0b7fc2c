"""The model of a study, and a holder's records in the form that it takes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.discovery import load
from statfed.core.errors import Refused
from statfed.core.method import Question, once
from statfed.core.table import Table
from statfed.strategies.learning.inputs import inputs_of, records_of
from statfed.strategies.learning.options import TrainingOptions

if TYPE_CHECKING:
    from torch import nn

MODELS = "statfed.strategies.models"
Asked = Question[TrainingOptions]


def columns(question: Asked) -> tuple[str, ...]:
    """Columns that training reads. Raises UsageError where they do not fit the model."""
    module, inputs = load(MODELS, question.options.model.name, "model"), inputs_of(question)
    check = getattr(module, "check", None)
    if check:
        check(inputs.form)
    return inputs.columns


def build(question: Asked, seed: int = 0) -> "nn.Module":
    """A fresh model; its initial weights follow from `seed` alone."""
    module = load(MODELS, question.options.model.name, "model")
    model: nn.Module = module.build(inputs_of(question).form, question.options.model.hidden, seed)
    return model


@once
def entries(question: Asked) -> int:
    """Number of parameters of the model."""
    return sum(p.numel() for p in build(question).parameters())


def loaded(question: Asked, vector: NDArray[Any]) -> "nn.Module":
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

    @property
    def fitted(self) -> "Prepared":
        """The records that a model is trained on."""
        return self.select(~self.apart) if self.apart.any() else self

    @property
    def scored(self) -> "Prepared":
        """The records that are kept apart."""
        return self.select(self.apart)


def prepared(table: Table, question: Asked) -> Prepared:
    """A holder's records through the model's fixed front end; kept while the data are the same."""
    kept = table.kept if table.kept is not None else {}
    if prepared not in kept:
        inputs = inputs_of(question)
        records, apart = records_of(table, inputs, question.options.holdout)
        module = load(MODELS, question.options.model.name, "model")
        kept[prepared] = Prepared(module.prepare(records.windows, inputs.form), records.labels, records.persons, apart)
    found: Prepared = kept[prepared]
    return found
