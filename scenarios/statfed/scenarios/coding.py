"""Reference scenario `coding`: answers in words to occupation codes, across offices whose respondents use other words.

A survey asks for the main job; the office codes the answer to ISCO-08. One office has too few answers of rare groups,
and its respondents use some words only. Several offices train one classifier, and none hands its answers to another: an
answer and its code describe a person, and free text may name people and employers.

A classifier codes automatically what it is sure of, and leaves the rest to coders. So the figures are accuracy, whether
the right code is among the five that a coder is shown, the share of answers that can be coded automatically with at
most 4 % errors, and recall of the rare groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.progress import Progress
from statfed.core.randomness import stream
from statfed.core.records import Channel, Records, WindowCodebook
from statfed.core.scenario import EXACT, Level, Population, Profile, Success, private, read_about
from statfed.core.section import describe
from statfed.core.study import Study
from statfed.scenarios._data import occupations
from statfed.scenarios._measures import shortfall

RECORDS_LIMIT = 200_000
"""Answers of one study, at most: their features take 0.8 GB."""
SIZES = (1.6, 1.6, 0.6, 0.6, 0.6)
"""Answers of an office over the mean, in turn: large countries and small ones."""
CODABLE_ERROR = 0.04
"""Errors that an office accepts among answers that no coder looks at."""

ABOUT = read_about(__file__)

CODEBOOK = WindowCodebook(
    channels=(Channel(name="character", unit="Latin-1 code", low=0.0, high=255.0),),
    samples=occupations.SAMPLES,
    classes=occupations.CLASSES,
)

STUDY: Mapping[str, Any] = {
    "scenario": "coding",
    "title": "Occupation codes of answers in words",
    "method": "local-sgd",
    "holders": ["office-1", "office-2", "office-3", "office-4", "office-5"],
    "seed": 1,
    "data": {"records": 5000},
    "options": {
        "rounds": 20,
        "model": {"name": "text", "hidden": 1},
        "local_epochs": 1,
        "batch_size": 256,
        "learning_rate": 3.0,
        "clipping_norm": 2.0,
    },
    "privacy": {"unit": "record", "epsilon": 3.0, "delta": 1e-5},
}
SMALL_BATCHES = replace(EXACT, study={"options": {"batch_size": 64}})
"""Without noise more, smaller steps are better; with noise, fewer and larger ones."""
DESCENT: Mapping[str, Any] = {
    "method": "dp-fedsgd",
    "options": {
        "rounds": 30,
        "learning_rate": 1.0,
        "sampling_rate": 0.2,
        "strategy": {"name": "fedavgm", "server_momentum": 0.9},
    },
}
"""Gradient descent on protected sums: a round is one step, of a fifth of the answers, with momentum after the noise."""
LEVELS: Sequence[Level] = (
    SMALL_BATCHES,
    private(10.0),
    private(3.0),
    private(1.0),
    private(3.0, "shared", study=DESCENT),
)
SUCCESS = Success("accuracy lost against the tuned pooled model", shortfall("accuracy"), 0.03)
"""Two coders who code the same answers to unit groups disagree on far more than 3 %: on about a quarter (Elias 1997,
"Occupational classification (ISCO-88)", OECD). Above 3 points the loss is several standard errors of the comparison on
2,000 held-out answers, and costs coders' hours on as many answers again."""


class Options(BaseModel):
    """The table `[data]` of a coding study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    records: int = Field(5000, ge=20, le=RECORDS_LIMIT, description="mean number of answers of an office")
    test_records: int = Field(2000, ge=20, le=RECORDS_LIMIT, description="held-out answers, of all offices alike")
    skew: float = Field(2.0, gt=0, le=1000, description="Dirichlet concentration of offices' mixes: small is uneven")
    miscoded: float = Field(occupations.MISCODED, ge=0, le=0.5, description="share of training answers miscoded")


class _Table(BaseModel):
    """Stands above the options, so that an error names its key as the study file does."""

    data: Options


def options(study: Study) -> Options:
    """The validated options of `study.data`. Raises UsageError naming each wrong `data.<key>`."""
    try:
        return _Table.model_validate({"data": study.data}).data
    except ValidationError as error:
        known = f"one of {', '.join(f'data.{key}' for key in Options.model_fields)}"
        raise UsageError(describe(error, "study", known, _Table)) from None


def study(profile: Profile, seed: int) -> Mapping[str, Any]:
    """The study that is compared: 1,000 answers of an office on average and fewer rounds, or 5,000."""
    records, rounds = {"quick": (1000, 10), "full": (5000, 20)}[profile]
    return {**STUDY, "seed": seed, "options": {**STUDY["options"], "rounds": rounds}, "data": {"records": records}}


def codebook(study: Study) -> WindowCodebook:
    """What the answers of this study look like: one text of 64 characters."""
    options(study)
    return CODEBOOK


def population(study: Study, progress: Progress) -> Population:
    """The offices' coded answers, and held-out answers with their true codes.

    Offices differ in size, in the mix of occupations (a Dirichlet distribution around the common one), in which of
    several words for a job their respondents use, and in typing. Coders miscode some training answers; held-out ones
    are in the common mix, as many of each office's respondents, and rightly coded. A person has one answer. An office's
    answers depend on the seed, its name and its place in the list (which gives its size), not on other offices.

    Raises UsageError when the options are wrong or together too large.
    """
    chosen, offices = options(study), len(study.holders)
    if not 2 <= offices <= 1000:
        raise UsageError(f"study: holders: got {offices} offices; want 2 to 1000")
    sizes = [max(10, round(chosen.records * SIZES[index % len(SIZES)])) for index in range(offices)]
    if sum(sizes) > RECORDS_LIMIT:
        raise UsageError(
            f"study: data.records: got {sum(sizes):,} answers of {offices} offices in all; want at most "
            f"{RECORDS_LIMIT:,}, that is {RECORDS_LIMIT // offices:,} an office"
        )
    holders, tests, first = {}, [], 0
    each = -(-chosen.test_records // offices)
    for index, (name, size) in enumerate(zip(study.holders, sizes, strict=True)):
        progress("generate answers", index, offices)
        random = np.random.default_rng(stream(study.seed, "coding", "office", name).seed())
        spoken = occupations.speech(random)
        mix = random.dirichlet(chosen.skew * len(occupations.SHARES) * occupations.SHARES)
        true = random.choice(len(mix), size, p=mix)
        given = occupations.coded(true, random, chosen.miscoded)
        holders[name] = _records(occupations.answers(true, spoken, random), given, first)
        held_out = np.random.default_rng(stream(study.seed, "coding", "test", name).seed())
        asked = held_out.choice(len(mix), each, p=occupations.SHARES)
        tests.append((occupations.answers(asked, spoken, held_out), asked))
        first += size
    progress("generate answers", offices, offices)
    words = [text for part, _ in tests for text in part][: chosen.test_records]
    return Population(
        holders=holders,
        test=_records(words, np.concatenate([asked for _, asked in tests])[: chosen.test_records], first),
        synthetic=True,
        origin=f"synthetic: answers of statfed {VERSION}, seed {study.seed}, {sum(sizes):,} of {offices} offices",
    )


def _records(texts: Sequence[str], labels: NDArray[np.int64], first: int) -> Records:
    return Records(occupations.codes(texts), labels.astype(np.int64), np.arange(first, first + len(labels)))


def measures(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, float]:
    """What a model is worth to coders. probabilities: (records, classes); labels: (records,).

    top_5: share of answers whose code is among the five most probable. codable: largest share that can be coded
    without a coder, the surest first, with at most CODABLE_ERROR errors. rare_recall: mean over the rare groups of
    the share of their answers that get their code; over those that occur, 0 where none does.
    """
    taken = probabilities.argmax(1)
    first = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    rare = [float((taken[labels == group] == group).mean()) for group in occupations.RARE if (labels == group).any()]
    return {
        "top_5": float((first == labels[:, None]).any(1).mean()),
        "codable": codable(probabilities.max(1), taken == labels),
        "rare_recall": float(np.mean(rare)) if rare else 0.0,
    }


def codable(sureness: NDArray[np.float64], right: NDArray[np.bool_], error: float = CODABLE_ERROR) -> float:
    """Largest share of records, the surest first, of which at most `error` are wrong; both (records,).

    Records that are equally sure stay together: a threshold cannot part them.
    """
    order = np.argsort(-sureness, kind="stable")
    wrong = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)
    parted = np.append(np.diff(sureness[order]) < 0, True)
    kept = np.flatnonzero((wrong <= error) & parted)
    return float(kept[-1] + 1) / len(order) if len(kept) else 0.0
