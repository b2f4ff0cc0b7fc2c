"""Reference scenario `remote-analytics`: a university trains a model on one office's data, which stay at the office.

The case of the input-privacy pilot on private machine learning as a service: a researcher sends a model, the office
trains it on its own records, and the model leaves. There is one data holder, so there is no sum over holders that a
protection could hide: secure aggregation and multi-party computation are refused without differential privacy, and
with it they would hide nothing. What is left is what the model itself tells about the records, and what noise in the
training costs. The pilot trained on UCI Student Performance, with a membership attack; so does this.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sklearn.metrics import roc_auc_score

from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.progress import Progress
from statfed.core.randomness import stream
from statfed.core.records import Records, WindowCodebook
from statfed.core.scenario import EXACT, Level, Population, Profile, Success, private, read_about
from statfed.core.section import describe
from statfed.core.study import Study
from statfed.scenarios._data import student
from statfed.scenarios._measures import shortfall

RECORDS_LIMIT = 1_000_000
"""Generated records of one study, at most: about 0.2 GB."""
HELD_OUT = 1 / 3
"""Share of the user's own copy that results are measured on."""

ABOUT = read_about(__file__)

CODEBOOK = student.CODEBOOK
STUDY: Mapping[str, Any] = {
    "scenario": "remote-analytics",
    "title": "A university's model of one office's records",
    "method": "local-sgd",
    "holders": ["office"],
    "seed": 1,
    "data": {"source": "generated"},
    "options": {
        "rounds": 10,
        "model": {"name": "dense", "hidden": 64},
        "local_epochs": 2,
        "batch_size": 128,
        "learning_rate": 0.3,
        "clipping_norm": 1.0,
    },
    "privacy": {"unit": "record", "epsilon": 3.0, "delta": 1e-5},
}
FITTED = Level(
    "exact-fitted",
    "no noise, trained until the records are fitted",
    study={"options": {"rounds": 30, "local_epochs": 10, "batch_size": 32}},
)
"""What happens where nobody stops the training early, as in the pilot: the level that an attack should find most in."""
LEVELS: Sequence[Level] = (EXACT, FITTED, private(30.0), private(10.0), private(3.0), private(1.0), private(0.3))
SUCCESS = Success("accuracy lost against the tuned model without privacy", shortfall("accuracy"), 0.05)
"""Under a third of what the model is worth: without privacy it is right 17 points more often than who always says
"pass". The pilot's private model, at epsilon 30, was worth less than that (0.633 where 67 % passed)."""


class Options(BaseModel):
    """The table `[data]` of a remote-analytics study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["generated", "uci-student"] = "generated"
    path: str | None = Field(None, description="uci-student: the user's own copy of student-mat.csv or student-por.csv")
    records: int = Field(650, ge=20, le=RECORDS_LIMIT, description="generated: records of an office")
    test_records: int = Field(1000, ge=20, le=RECORDS_LIMIT, description="generated: held-out records")

    def unused(self) -> list[str]:
        """Keys that were given and have no effect on this source."""
        own = {"path": self.source == "uci-student"}
        own |= dict.fromkeys(("records", "test_records"), self.source == "generated")
        return sorted(key for key in self.model_fields_set if not own.get(key, True))


class _Table(BaseModel):
    """Stands above the options, so that an error names its key as the study file does."""

    data: Options

    @model_validator(mode="after")
    def _path(self) -> "_Table":
        if self.data.source == "uci-student" and not self.data.path:
            raise ValueError('data.path: missing; want student-mat.csv when data.source is "uci-student"')
        return self


def options(study: Study) -> Options:
    """The validated options of `study.data`. Raises UsageError naming each wrong `data.<key>`."""
    try:
        return _Table.model_validate({"data": study.data}).data
    except ValidationError as error:
        known = f"one of {', '.join(f'data.{key}' for key in Options.model_fields)}"
        raise UsageError(describe(error, "study", known, _Table)) from None


def study(profile: Profile, seed: int) -> Mapping[str, Any]:
    """The study that is compared: as many records as the pilot's data have, or ten times as many."""
    records = {"quick": 650, "full": 6500}[profile]
    return {**STUDY, "seed": seed, "data": {"source": "generated", "records": records}}


def codebook(study: Study) -> WindowCodebook:
    """What the records of this study look like: 45 features and one sample, from either source."""
    options(study)
    return CODEBOOK


def population(study: Study, progress: Progress) -> Population:
    """The office's records and held-out ones of the same population. A person has one record.

    Generated records may be of several offices, to see what changes then; an office's depend on the seed and its name
    alone. The user's own copy is one office's, and a third of it is held out, at random.

    Raises UsageError when the options are wrong and when the copy is not what it should be.
    """
    chosen = options(study)
    warnings = tuple(f"data.{key} has no effect with these data: ignored" for key in chosen.unused())
    progress("prepare records", 0, 1)
    found = _own(study, chosen, warnings) if chosen.source == "uci-student" else _generated(study, chosen, warnings)
    progress("prepare records", 1, 1)
    return found


def _own(study: Study, chosen: Options, warnings: tuple[str, ...]) -> Population:
    if len(study.holders) != 1:
        raise UsageError(f"study: holders: got {len(study.holders)}; want 1: uci-student data are one office's")
    records = _records(student.load(Path(str(chosen.path))), 0)
    order = stream(study.seed, "remote-analytics", "deal").permutation(len(records))
    cut = round(HELD_OUT * len(records))
    return Population(
        holders={next(iter(study.holders)): records.select(np.sort(order[cut:]))},
        test=records.select(np.sort(order[:cut])),
        synthetic=False,
        origin=f"real: UCI Student Performance (Cortez and Silva 2008), own copy; dealt with seed {study.seed}",
        warnings=warnings,
    )


def _generated(study: Study, chosen: Options, warnings: tuple[str, ...]) -> Population:
    total = len(study.holders) * chosen.records + chosen.test_records
    if total > RECORDS_LIMIT:
        raise UsageError(f"study: data.records: got {total:,} records in all; want at most {RECORDS_LIMIT:,}")

    def draw(count: int, first: int, *purpose: str) -> Records:
        seed = stream(study.seed, "remote-analytics", *purpose).seed()
        return _records(student.generate(count, np.random.default_rng(seed)), first)

    holders = {
        name: draw(chosen.records, index * chosen.records, "office", name) for index, name in enumerate(study.holders)
    }
    return Population(
        holders=holders,
        test=draw(chosen.test_records, total - chosen.test_records, "test"),
        synthetic=True,
        origin=f"synthetic: records of statfed {VERSION}, seed {study.seed}, {chosen.records} an office",
        warnings=warnings,
    )


def _records(table: pd.DataFrame, first: int) -> Records:
    windows, labels = student.windows(table)
    return Records(windows, labels, np.arange(first, first + len(labels)))


def measures(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """How well a model ranks and how well it knows what it knows. probabilities: (records, 2); labels: (records,).

    roc_auc: probability that a pupil who passed has the higher probability of a pass; 0.5 where all or none passed.
    brier: mean squared difference between the probability of a pass and whether it was one; always saying the base
    rate gives 0.22.
    """
    passes = probabilities[:, 1]
    both = 0 < labels.sum() < len(labels)
    return {
        "roc_auc": float(roc_auc_score(labels, passes)) if both else 0.5,
        "brier": float(np.mean((passes - labels) ** 2)),
    }
