"""Simulated parties: the world that a study is run in on one machine, and how its parties are opened.

Running a study (`statfed.federation.run`) needs the study's terms and something that opens a session with its parties;
a pilot's parties bring their own homes, and nothing of this module is used.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from statfed.client.data.drafting import draft
from statfed.client.data.identity import content, identity
from statfed.client.data.tables import connect
from statfed.client.data.uniting import check_stated, doubts, union
from statfed.core.codebook import Codebook, load_codebook
from statfed.core.discovery import is_linkage
from statfed.core.errors import UsageError
from statfed.core.linkage import Linking, restricted
from statfed.core.method import is_training
from statfed.core.progress import Progress
from statfed.core.protection import named_protection
from statfed.core.records import WindowCodebook
from statfed.core.scenario import Population, load_training
from statfed.core.study import Study
from statfed.core.terms import Terms
from statfed.federation.homes import homes_under, make_homes, placed
from statfed.federation.keyed import check_stored, doubts_of_keys
from statfed.federation.population import described, write_tables
from statfed.federation.preflight import before_drafting
from statfed.server.engine import Deployment, Engine, Session

R = TypeVar("R")
TABLES = "tables"
"""In a workspace: homes of holders of files."""
UNCOVERED = (
    "privacy: got a codebook that is drafted from the data: its bounds and categories tell of single records, and no "
    "epsilon covers that. Want one that is known without them: write a draft with `statfed codebook infer FILE... "
    "--out people.codebook.toml`, check every bound and category against what is publicly known, and pass it "
    "(--codebook FILE, the study's key codebook, or Federation(..., codebook=FILE))"
)


class Opener(Protocol):
    """Opens a session with the parties of a study, hands it to `drive`, and always cleans up."""

    def __call__(self, drive: Callable[[Session], R], progress: Progress) -> R: ...


@dataclass(frozen=True)
class World:
    """What a study is run on. population: of its reference scenario, if it names one, with the form of its records."""

    study: Study
    terms: Terms
    drafted: bool = False
    population: Population | None = None
    form: WindowCodebook | None = None
    warnings: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The data, in one line."""
        return self.population.origin if self.population else "tables of the holders"

    @property
    def synthetic(self) -> bool:
        """Are the data generated?"""
        return self.population.synthetic if self.population else False

    @property
    def title(self) -> str:
        """The study's title, or its scenario's; empty where neither has one."""
        named = load_training(self.study.scenario).ABOUT.title if self.study.scenario else ""
        return self.study.title or named


def world_of(
    study: Study, base: Path, codebook: Codebook | None, progress: Progress, *, drafted: bool = False
) -> World:
    """A study with its codebook, or with the population of its scenario.

    base: folder that relative paths start from; codebook: instead of the study's file; drafted: it was made from the
    data. Raises UsageError, also where a private study has no other codebook than a drafted one.
    """
    if study.scenario:
        return _populated(study, progress)
    drafted = drafted or (codebook is None and study.codebook is None)
    if drafted and study.privacy:
        raise UsageError(UNCOVERED)
    others = {name: load_codebook(base / path) for name, path in study.codebooks.items()}
    if codebook is None and study.codebook:
        codebook = load_codebook(base / study.codebook)
    if codebook is None:
        drafts = _drafts(study, progress)
        codebook = union(list(drafts.values()), tuple(drafts))
        check_stated(codebook, study.types, study.levels)
    keyed: tuple[str, ...] = ()
    if is_linkage(study.protection.name) and study.engine != "pilot":
        others = {name: restricted(codebook, _columns(source, base)) for name, source in study.holders.items()} | others
        keyed = _keyed(study, codebook, base, drafted=drafted)
    shared = _shared_data(study.holders, base) if study.engine != "pilot" else []
    if shared and study.privacy:
        raise UsageError(
            f"privacy: {shared[0]}; no epsilon of this study would be true. Want each data set once (or no privacy)"
        )
    warnings = (*shared, *(doubts(codebook, study.levels) if drafted else ()), *keyed)
    return World(study, study.terms(codebook, others), drafted, warnings=warnings)


def _keyed(study: Study, codebook: Codebook, base: Path, *, drafted: bool) -> tuple[str, ...]:
    """What there is to say of a linkage's key. Raises UsageError where holders store it in ways that match nothing."""
    _, options = named_protection(study.protection.name, study.protection.options)
    if not isinstance(options, Linking):
        return ()
    check_stored(options, codebook, study.holders, base)
    return doubts_of_keys(options, codebook) if drafted else ()


def _populated(study: Study, progress: Progress) -> World:
    scenario = load_training(str(study.scenario))
    study = study if study.seed is not None else study.model_copy(update={"seed": 1})
    progress("prepare data", 0, 1)
    population, form = scenario.population(study, progress), scenario.codebook(study)
    table = described(form, scenario.ABOUT.title)
    named = {"features": list(table.features), "target": table.target}
    study = study.model_copy(update={"options": {**named, **study.options}})
    progress("prepare data", 1, 1)
    warnings = (*population.warnings, *_class_warnings(population, form.classes))
    return World(study, study.terms(table.codebook), False, population, form, warnings)


def _shared_data(holders: Mapping[str, str], base: Path) -> list[str]:
    """Notes on holders that have the same data: their records count twice, and so does what the records lose."""
    known: dict[str, str] = {}
    found = []
    for name, source in holders.items():
        try:
            keys = identity(source, base, content).keys
        except (OSError, ValueError, RuntimeError):  # it cannot be opened either
            continue
        if twin := next((known[key] for key in sorted(keys) if key in known), None):
            found.append(
                f"{twin} and {name} have the same data: every record counts twice in what is released, and loses "
                "privacy by both budgets together"
            )
        known |= dict.fromkeys(keys, name)
    return found


def _class_warnings(population: Population, classes: Sequence[str]) -> list[str]:
    found = []
    for name, records in population.holders.items():
        missing = sorted(set(range(len(classes))) - set(records.labels.tolist()))
        if missing:
            found.append(f"{name} holds no records of: {', '.join(classes[i] for i in missing)}")
    return found


def _columns(source: str, base: Path) -> tuple[str, ...]:
    """Names of the columns of a table."""
    with connect(source, base) as opened:
        return tuple(opened.expr.columns)


def _drafts(study: Study, progress: Progress) -> dict[str, Codebook]:
    """The holders' own drafts. In a simulation only: across organisations a draft never leaves."""
    drafts = {}
    for number, (name, source) in enumerate(study.holders.items()):
        progress("draft a codebook", number, len(study.holders))
        with _of(name):
            opened = connect(source, Path())
        with opened:
            if not number and not is_linkage(study.protection.name):
                before_drafting(study, name, tuple(opened.expr.columns))
            with _of(name):
                drafts[name] = draft(opened, study.types, study.levels)
    progress("draft a codebook", len(drafts), len(drafts))
    return drafts


@contextmanager
def _of(holder: str) -> Iterator[None]:
    """Errors of the block as that holder's."""
    try:
        yield
    except UsageError as failed:
        raise UsageError(f"{holder}: {failed}") from None


def dataset_key(study: Study, synthetic: bool) -> str:
    """Names a simulated data set and its privacy unit: scenario, unit and a digest of where the data come from.

    synthetic tells real data from a generated stand-in for them: they are two data sets, with two ledgers.
    """
    made_of = [study.scenario, study.data, list(study.holders), study.seed, study.unit, synthetic]
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True, default=str).encode()).hexdigest()[:8]
    return f"{study.scenario}-{study.unit}-{digest}"


def reused(world: World, root: Path) -> list[str]:
    """Notes on holders whose data were asked as another holder's of this workspace."""
    return list(placed(world.study, root / TABLES).notes) if world.population is None else []


def simulated(
    world: World, root: Path, engine: Engine, run: str, logs: Path, *, shared: bool, held: ExitStack
) -> Opener:
    """Homes of simulated parties under `root`, and what opens them. shared: may other studies have homes there too?
    held: until it is closed the homes stay as they are. Raises UsageError where they cannot be written."""
    try:
        homes = _homes(world, root, shared=shared, held=held)
    except OSError as error:
        raise UsageError(
            f"workspace: {error.filename or root} cannot be written: {error.strerror}; want a folder that can be "
            "(--workspace, STATFED_WORKSPACE)"
        ) from None
    return partial(engine.run, Deployment(run, homes, logs, is_training(world.terms.method)))


def _homes(world: World, root: Path, *, shared: bool, held: ExitStack) -> Mapping[str, Path]:
    study = world.study
    if world.population is None or world.form is None:
        place = root / TABLES if shared else root
        return make_homes(
            study, world.terms, study.holders, homes_under(place, placed(study, place).names), place, held=held
        )
    dataset = dataset_key(study, world.synthetic)
    place = root / "holders" / dataset if shared else root
    homes = homes_under(place, {name: name for name in world.population.holders})
    sources = write_tables(world.population.holders, world.form, homes)
    return make_homes(study, world.terms, sources, homes, place, dataset, held)
