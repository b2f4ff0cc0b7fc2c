"""Reference scenario `time-use`: activity recognition from body sensors, across offices that each have own persons.

The case of the UNECE input-privacy pilot: statistical offices want one classifier that turns sensor records into
activity codes for time-use statistics, and no office may hand its persons' records to another.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from statfed.core import VERSION
from statfed.core.errors import UsageError
from statfed.core.progress import Progress
from statfed.core.randomness import stream
from statfed.core.records import Channel, Records, WindowCodebook
from statfed.core.scenario import EXACT, Level, Population, Profile, Success, private, read_about
from statfed.core.section import describe
from statfed.core.study import Study
from statfed.scenarios._data import generator, uci_har, watch
from statfed.scenarios._data.packages import Unreachable
from statfed.scenarios._measures import shortfall

RECORDS_LIMIT = 1_000_000
"""Generated windows of one study, at most: about 3 GB."""
WATCH_PERSONS = 10
WATCH_RECORDS_PER_PERSON = 360
_TEST_PERSONS = {"watch": 2, "generated": 40, "uci-har": 9}

ABOUT = read_about(__file__)

DESCENT: Mapping[str, Any] = {
    "method": "dp-fedsgd",
    "options": {"rounds": 40, "sampling_rate": 0.3, "learning_rate": 1.0},
}
"""Gradient descent on protected sums: more, cheaper steps, and a larger one than holders take by themselves."""
LEVELS: Sequence[Level] = (EXACT, private(10.0), private(3.0), private(1.0), private(3.0, "shared", study=DESCENT))
SUCCESS = Success("accuracy lost against the tuned pooled model", shortfall("accuracy"), 0.05)

CODEBOOK = WindowCodebook(
    channels=(
        *(
            Channel(
                name=f"acc_{axis}",
                unit="g",
                low=-generator.ACCELEROMETER_LIMIT,
                high=generator.ACCELEROMETER_LIMIT,
                scale=1.0,
            )
            for axis in "xyz"
        ),
        *(
            Channel(
                name=f"gyr_{axis}",
                unit="rad/s",
                low=-generator.GYROSCOPE_LIMIT,
                high=generator.GYROSCOPE_LIMIT,
                scale=3.0,
            )
            for axis in "xyz"
        ),
    ),
    samples=watch.SAMPLES,
    classes=watch.CLASSES,
)

STUDY: Mapping[str, Any] = {
    "scenario": "time-use",
    "title": "Activity recognition from body sensors",
    "method": "local-sgd",
    "holders": ["office-1", "office-2", "office-3", "office-4"],
    "seed": 1,
    "data": {"source": "watch", "split": "iid"},
    "options": {
        "rounds": 20,
        "model": {"name": "mlp", "hidden": 64},
        "local_epochs": 1,
        "batch_size": 64,
        "learning_rate": 0.3,
    },
    "privacy": {"unit": "record", "epsilon": 3.0, "delta": 1e-5},
}


class Options(BaseModel):
    """The table `[data]` of a time-use study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["watch", "generated", "uci-har"] = "watch"
    path: str | None = Field(None, description="uci-har: the unpacked folder of the user's own copy")
    split: Literal["iid", "label-skew"] = Field("iid", description="persons at random, or offices differ in classes")
    skew: float = Field(0.5, gt=0, le=1000, description="label-skew: Dirichlet concentration, small is more uneven")
    persons: int = Field(200, ge=1, le=100_000, description="generated: persons per office")
    records_per_person: int = Field(40, ge=1, le=10_000, description="generated: windows per person")
    test_persons: int | None = Field(
        None, ge=1, le=100_000, description="held-out persons; 2 (watch), 40 (generated), 9 (uci-har) by default"
    )

    def held_out(self) -> int:
        """Number of persons that results are measured on."""
        return self.test_persons or _TEST_PERSONS[self.source]

    def unused(self) -> list[str]:
        """Keys that were given and have no effect on this source or split."""
        own = {"path": self.source == "uci-har", "skew": self.split == "label-skew"}
        own |= dict.fromkeys(("persons", "records_per_person"), self.source == "generated")
        return sorted(key for key in self.model_fields_set if not own.get(key, True))


class _Table(BaseModel):
    """Stands above the options, so that an error names its key as the study file does."""

    data: Options

    @model_validator(mode="after")
    def _path(self) -> "_Table":
        if self.data.source == "uci-har" and not self.data.path:
            raise ValueError('data.path: missing; want the folder "UCI HAR Dataset" when data.source is "uci-har"')
        return self


def options(study: Study) -> Options:
    """The validated options of `study.data`. Raises UsageError naming each wrong `data.<key>`."""
    try:
        return _Table.model_validate({"data": study.data}).data
    except ValidationError as error:
        known = f"one of {', '.join(f'data.{key}' for key in Options.model_fields)}"
        raise UsageError(describe(error, "study", known, _Table)) from None


def study(profile: Profile, seed: int) -> Mapping[str, Any]:
    """The study that is compared: the watch data with fewer rounds, or all of them."""
    rounds = {"quick": 10, "full": 20}[profile]
    return {**STUDY, "seed": seed, "options": {**STUDY["options"], "rounds": rounds}}


def codebook(study: Study) -> WindowCodebook:
    """What the records of this study look like: six channels of a watch, or nine of UCI HAR's phone."""
    return uci_har.CODEBOOK if options(study).source == "uci-har" else CODEBOOK


def population(study: Study, progress: Progress) -> Population:
    """The offices' records and those of the held-out persons. Every person is in one place only.

    Persons are always dealt whole. Under `iid` each office gets persons at random, near equally many. Under
    `label-skew` each office draws class probabilities from a symmetric Dirichlet distribution; offices of real data
    then keep a class-skewed part of their persons' records, generated persons do the classes in that mix.
    The held-out persons are never skewed.

    Raises UsageError when the options are wrong, when there are not enough persons for the offices, and when a data
    set is not what it should be. Where no registry gives the watch data, generated records of the same size take
    their place, and `warnings` says so.
    """
    chosen = options(study)
    warnings = [f"data.{key} has no effect with these data: ignored" for key in chosen.unused()]
    if chosen.source == "generated":
        return _generated(study, chosen, progress, tuple(warnings))
    if chosen.source == "uci-har":
        _check_offices(study, chosen, uci_har.PERSONS)
        progress("load UCI HAR", 0, 1)
        records = uci_har.load(Path(str(chosen.path)))
        progress("load UCI HAR", 1, 1)
        return _dealt(study, chosen, records, "real: UCI HAR (Anguita et al. 2013), the user's own copy", warnings)
    _check_offices(study, chosen, WATCH_PERSONS)
    try:
        watch.fetch(progress)
    except Unreachable as error:
        records = generator.generate(WATCH_PERSONS, WATCH_RECORDS_PER_PERSON, study.seed or 0)
        warnings.append(f"SYNTHETIC data take the place of the real watch data, which could not be had: {error}")
        origin = f"synthetic: stand-in for the watch data, generator of statfed {VERSION}"
        return _dealt(study, chosen, records, origin, warnings, synthetic=True)
    origin = "real: smart-watch recordings of 10 persons (Burns et al. 2018, seglearn 1.2.5, BSD-3-Clause)"
    return _dealt(study, chosen, watch.load(), origin, warnings)


def _check_offices(study: Study, chosen: Options, persons: int) -> None:
    offices, left = len(study.holders), persons - chosen.held_out()
    if left < 2:
        raise UsageError(f"study: data.test_persons: got {chosen.held_out()}; want at most {persons - 2} of {persons}")
    if not 2 <= offices <= left:
        raise UsageError(
            f"study: holders: got {offices} offices; want 2 to {left}: {chosen.source} data have {persons} persons, "
            f"{chosen.held_out()} are held out, and an office needs at least one of its own"
        )


def _dealt(
    study: Study, chosen: Options, records: Records, origin: str, warnings: list[str], synthetic: bool = False
) -> Population:
    """The persons of one data set, dealt whole to the test set and the offices."""
    persons = np.unique(records.persons)
    order = persons[stream(study.seed, "time-use", "deal").permutation(len(persons))]
    test, rest = order[: chosen.held_out()], order[chosen.held_out() :]
    holders = {}
    for index, name in enumerate(study.holders):
        own = records.select(np.isin(records.persons, rest[index :: len(study.holders)]))
        holders[name] = _thinned(own, study, chosen, name) if chosen.split == "label-skew" else own
    return Population(
        holders=holders,
        test=records.select(np.isin(records.persons, test)),
        synthetic=synthetic,
        origin=f"{origin}; dealt by person with seed {study.seed}",
        warnings=tuple(warnings),
    )


def _mix(study: Study, chosen: Options, name: str, classes: int) -> NDArray[np.float64]:
    """Class probabilities of one office, (classes,)."""
    random = np.random.default_rng(stream(study.seed, "time-use", "mix", name).seed())
    return random.dirichlet(np.full(classes, chosen.skew)) + 1e-9


def _thinned(own: Records, study: Study, chosen: Options, name: str) -> Records:
    """A part of `own` in which classes are as frequent as in the office's mix, relative to `own`.

    Of each class a share is kept in proportion to the mix; of the office's most likely class, every record.
    """
    mix = _mix(study, chosen, name, int(own.labels.max()) + 1)
    share = mix / mix[np.unique(own.labels)].max()
    keep = stream(study.seed, "time-use", "thin", name).uniform(len(own)) < share[own.labels]
    return own.select(keep)


def _generated(study: Study, chosen: Options, progress: Progress, warnings: tuple[str, ...]) -> Population:
    """Offices of synthetic persons. One office's records depend on the seed and its name, not on other offices."""
    offices, each = len(study.holders), chosen.records_per_person
    total = (offices * chosen.persons + chosen.held_out()) * each
    if offices > 1000:
        raise UsageError(f"study: holders: got {offices} offices; want 1 to 1000")
    if total > RECORDS_LIMIT:
        most = max(0, RECORDS_LIMIT // each - chosen.held_out()) // offices
        raise UsageError(
            f"study: data.persons: got {total:,} records in all ({offices} offices x {chosen.persons} persons x {each} "
            f"records, and the held-out persons); want at most {RECORDS_LIMIT:,}, that is {most} persons an office"
        )
    holders = {}
    for index, name in enumerate(study.holders):
        progress("generate records", index, offices + 1)
        mix = None
        if chosen.split == "label-skew":
            tendency = _mix(study, chosen, name, len(CODEBOOK.classes)) * generator.MIX * len(CODEBOOK.classes)
            random = np.random.default_rng(stream(study.seed, "time-use", "persons", name).seed())
            mix = random.dirichlet(tendency, chosen.persons)
        seed = stream(study.seed, "time-use", "records", name).seed()
        holders[name] = _renumbered(generator.generate(chosen.persons, each, seed, mix), index * chosen.persons)
    progress("generate records", offices, offices + 1)
    test = generator.generate(chosen.held_out(), each, stream(study.seed, "time-use", "test").seed())
    progress("generate records", offices + 1, offices + 1)
    return Population(
        holders=holders,
        test=_renumbered(test, offices * chosen.persons),
        synthetic=True,
        origin=f"synthetic: generator of statfed {VERSION}, seed {study.seed}, {chosen.persons} persons an office",
        warnings=warnings,
    )


def _renumbered(records: Records, first: int) -> Records:
    return Records(records.windows, records.labels, records.persons + first)
