"""A trained model as one file, and its predictions for new records.

The file is an .npz archive without pickles: `vector`, the parameters, and `card`, JSON with all that it takes to build
the model again and to read a table as its holders' were: name, width, target, features, the codebook's columns of
those; and what there is to know of it: study digest, privacy, scores, version. A run's `model.npz` is one.
"""

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.core import VERSION
from statfed.core.codebook import Codebook, make_codebook
from statfed.core.discovery import load
from statfed.core.errors import UsageError
from statfed.core.method import read_question
from statfed.core.outputs import Destinations
from statfed.federation.own import own_records
from statfed.federation.references import score_labels, score_numbers
from statfed.federation.trained import NumberScores, Scores
from statfed.strategies.learning.inputs import Inputs, labels_of, make_inputs, windows_of
from statfed.strategies.learning.options import TrainingOptions
from statfed.strategies.learning.prepared import MODELS

if TYPE_CHECKING:
    import pandas as pd

    from statfed.federation.answers import Answer

FORMAT = "statfed.model/1"
PREDICTION, PROBABILITY = "prediction", "probability_"
"""Columns of predictions: the class or number, and beside a class the probability of each."""


@dataclass(frozen=True)
class Saved:
    """A trained model. vector: (parameters,) float32; card: what the file says beside it. Public."""

    vector: NDArray[np.float32] = field(repr=False)
    card: Mapping[str, Any]
    inputs: Inputs = field(repr=False)

    @property
    def codebook(self) -> Codebook:
        """Target and features, as the study's codebook has them."""
        return make_codebook(self.card["codebook"])

    def predict(self, data: Any) -> "pd.DataFrame":
        """Predictions for the records of a DataFrame, an Arrow table or a file: one row for each, in their order.

        `prediction` is the class, or the number in the target's own unit, within its bounds; a class has its
        probabilities beside it. Null where a record misses a feature. Raises UsageError, naming the column, where a
        value is none of the codebook's: a category that is not listed, a number beyond the bounds.
        """
        return self._predicted(data, ())[0]

    def score(self, data: Any) -> Scores | NumberScores:
        """How well the model does on records that have the target too. Raises UsageError where none is complete."""
        frame, found = self._predicted(data, (self.inputs.target,))
        target = found.column(self.inputs.target)
        known = np.asarray(target.is_valid()) & frame[PREDICTION].notna().to_numpy()
        if not known.any():
            raise UsageError("data: got no record with all features and the target; want one or more")
        labels = labels_of(target.filter(known), self.inputs)
        if self.inputs.regression:
            predicted = frame[PREDICTION].to_numpy(np.float64)[known]
            return score_numbers((predicted - self.inputs.middle) / self.inputs.half, labels, self.inputs.half)
        classes = self.inputs.form.classes
        taken = frame[[PROBABILITY + name for name in classes]].to_numpy(np.float64)[known].argmax(1)
        return score_labels(taken, labels, classes)

    def outputs(self, windows: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the model gives for complete records, (records, outputs)."""
        import torch

        module, form = load(MODELS, self.card["model"], "model"), self.inputs.form
        model = _built(self.card["model"], self.card["hidden"], self.inputs, self.vector)
        with torch.no_grad():
            found = model.double()(torch.from_numpy(module.prepare(windows, form)).double())
        return np.asarray(found.numpy(), np.float64)

    def _predicted(self, data: Any, more: tuple[str, ...]) -> "tuple[pd.DataFrame, Any]":
        """Predictions, and the columns that they are made from, as Arrow."""
        import pandas as pd

        found = own_records(data, self.codebook, (*self.inputs.features, *more))
        complete = np.ones(found.num_rows, np.bool_)
        for name in self.inputs.features:
            complete &= np.asarray(found.column(name).is_valid())
        outputs = self.outputs(windows_of(found.filter(complete), self.inputs))
        index = data.index if isinstance(data, pd.DataFrame) else None

        def spread(values: NDArray[Any], kind: str) -> pd.Series:
            out = pd.Series(pd.NA if kind != "float64" else np.nan, index=range(found.num_rows), dtype=kind)
            out[complete] = values
            return out

        if self.inputs.regression:
            numbers = self.inputs.middle + self.inputs.half * np.clip(outputs[:, 0], -1.0, 1.0)
            made = {PREDICTION: spread(numbers, "float64")}
        else:
            classes = self.inputs.form.classes
            taken = np.asarray(classes, object)[outputs.argmax(1)]
            truth = self.inputs.described[self.inputs.target].type == "boolean"
            made = {PREDICTION: spread(taken == "true", "boolean") if truth else spread(taken, "string")}
            odds = np.exp(outputs - outputs.max(1, keepdims=True, initial=-np.inf))
            odds /= odds.sum(1, keepdims=True)
            made |= {PROBABILITY + name: spread(odds[:, i], "float64") for i, name in enumerate(classes)}
        frame = pd.DataFrame(made)
        return (frame if index is None else frame.set_index(index)), found


@dataclass(frozen=True)
class TrainedModel:
    """A training that is finished, with its model. answer: the whole run."""

    answer: "Answer"

    @cached_property
    def saved(self) -> Saved:
        """The model by itself."""
        return saved(self.answer)

    @property
    def scores(self) -> "pd.DataFrame":
        """Scores on the units that holders kept apart, with standard errors; no rows where there are none."""
        import pandas as pd

        rows: list[Any] = [dict(row) for row in self.answer.result.tables.get("scores", ())]
        return pd.DataFrame(rows)

    @property
    def comparison(self) -> "pd.DataFrame":
        """What the simulator compared the model with."""
        import pandas as pd

        rows: list[Any] = self.answer.trained.comparison
        return pd.DataFrame(rows)

    def predict(self, data: Any) -> "pd.DataFrame":
        """See `Saved.predict`."""
        return self.saved.predict(data)

    def score(self, data: Any) -> Scores | NumberScores:
        """See `Saved.score`."""
        return self.saved.score(data)

    def save(self, path: Path | str) -> Path:
        """See `save_model`."""
        return save_model(self.answer, path)


def saved(answer: "Answer") -> Saved:
    """The model of a finished training. Raises UsageError where there is none."""
    terms = answer.terms
    if "model" not in answer.result.arrays:
        raise UsageError(f"run {answer.run}: got an answer without a model in it; want a training, or its model.npz")
    options: TrainingOptions = read_question(terms)[1].options
    features, target = options.features, options.target
    codebook = {"columns": {name: terms.codebook.columns[name].model_dump(mode="json") for name in (*features, target)}}
    inputs = make_inputs(make_codebook(codebook), features, target)
    card = {
        "format": FORMAT,
        "version": VERSION,
        "model": options.model.name,
        "hidden": options.model.hidden,
        "target": target,
        "features": list(features),
        "codebook": codebook,
        "form": inputs.form.model_dump(mode="json"),
        "where": [str(condition) for condition in terms.where],
        "title": answer.title,
        "run": answer.run,
        "created": answer.created,
        "method": terms.method,
        "holders": list(terms.holders),
        "study_digest": answer.study_digest,
        "privacy": terms.privacy.model_dump(mode="json") if terms.privacy else None,
        "statement": statement(answer),
        "scores": [dict(row) for row in answer.result.tables.get("scores", ())],
    }
    return Saved(np.asarray(answer.result.arrays["model"], np.float32), card, inputs)


def statement(answer: "Answer") -> str:
    """What protects the records that a model was trained on, in a sentence."""
    privacy = answer.terms.privacy
    if privacy is None:
        return "trained without differential privacy: the model may tell of single records it was trained on"
    scores = " and its scores" if "scores" in answer.result.tables else ""
    return (
        f"the model{scores} together: epsilon {privacy.epsilon:g} at delta {privacy.delta:g} per {privacy.unit}, "
        f"{privacy.noise} noise"
    )


def save_model(answer: "Answer", path: Path | str, to: Destinations | None = None) -> Path:
    """Write the model of a finished training into one file. Raises UsageError where there is none.

    to: what may not be written over; a model that is there is replaced by default.
    """
    model, path = saved(answer), Path(path)
    with (to or Destinations(overwrite=True)).writing(path) as draft, draft.open("wb") as file:
        np.savez(file, vector=model.vector, card=np.frombuffer(json.dumps(model.card).encode(), np.uint8))
    return path


def copy_model(stored: Path, path: Path | str, to: Destinations) -> Path:
    """Write the model of a run's folder into a file of its own. Raises UsageError where there is none."""
    load_model(stored)
    with to.writing(path) as draft:
        shutil.copyfile(stored, draft)
    return Path(path)


def load_model(path: Path | str) -> Saved:
    """Read a saved model: its file, or the folder of its run. Raises UsageError where it is damaged or of another
    version."""
    path = Path(path)
    path = path / "model.npz" if path.is_dir() else path
    if not path.is_file():
        raise UsageError(f"{path}: no such file; want a saved model")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:  # numpy leaves a damaged one open
            vector, text = np.asarray(file["vector"], np.float32), bytes(file["card"])
        card = json.loads(text)
    except (KeyError, OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: not a saved model, or damaged ({type(error).__name__})") from None
    got = card.get("format") if isinstance(card, dict) else None
    if got != FORMAT:
        raise UsageError(f"{path}: got format {got or 'none'}; want {FORMAT}, of this version")
    try:
        inputs = make_inputs(make_codebook(card["codebook"]), card["features"], card["target"])
        same = inputs.form.model_dump(mode="json") == card["form"]
        if same:
            _built(card["model"], card["hidden"], inputs, vector)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise UsageError(f"{path}: damaged ({error})") from None
    if not same or not np.isfinite(vector).all():
        made = card.get("version")
        raise UsageError(f"{path}: made by version {made}, which reads columns in another way; want one of {VERSION}")
    return Saved(vector, card, inputs)


def _built(name: str, hidden: int, inputs: Inputs, vector: NDArray[np.float32]) -> Any:
    from statfed.strategies.learning.local import set_vector

    model = load(MODELS, name, "model").build(inputs.form, hidden, 0)
    set_vector(model, vector)
    return model.eval()
