"""Simulated holders: each a home folder with its policy, its identity and its ledger.

A pilot's holders make their own home folder; a simulation writes one per holder. The same data and privacy unit keep
their home between runs, so that budgets, disclosures and past releases accumulate as they would in life: whatever the
holder is called, through links, as a copy, after an update, and however text files are to be read
(`statfed.client.data.identity`). Two holders of one study have two homes, whatever they hold.
"""

import hashlib
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from statfed.client.data.identity import content, identity, stamp
from statfed.client.data.listing import listing
from statfed.client.data.reading import split
from statfed.client.data.tables import connect
from statfed.client.guard.files import write_private
from statfed.client.guard.policy import (
    Budget,
    Dataset,
    Disclosure,
    HolderName,
    Parties,
    Policy,
    load_policy,
    write_policy,
)
from statfed.client.guard.register import point
from statfed.client.guard.templates import Template, made
from statfed.core.codebook import Codebook
from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import UsageError
from statfed.core.section import describe
from statfed.core.study import Study
from statfed.core.terms import Terms
from statfed.federation import locks
from statfed.federation.lines import lines
from statfed.federation.parties import admit_third_parties, home_of, identities, third_parties

DATA = "data.keys"
"""In a home of a workspace: the privacy unit, and what identifies its data, a line each."""
IN_USE = "in-use.lock"
"""In a simulated home: held by the runs that use it."""
REGISTER = "register.sqlite"
"""What simulated holders take down of their ledgers, beside their homes: a simulation is a machine of its own."""


@dataclass(frozen=True)
class Placed:
    """Where the holders of a study live. names: of their homes; notes: on those whose data were asked as another's."""

    names: dict[str, str]
    notes: tuple[str, ...] = ()


def placed(study: Study, root: Path) -> Placed:
    """The homes of a study's holders under `root`: the one that accounts for the data and the unit already, or one that
    is called after holder, source and unit."""
    own = {}
    for name, source in study.holders.items():
        digest = hashlib.sha256(f"{name}\n{_place(source)}\n{study.unit}".encode()).hexdigest()[:12]
        own[name] = f"{name}-{digest}"
    known: dict[str, set[str]] = {}
    for path in sorted(root.glob(f"*/{DATA}")):
        unit, listed = _taken_down(path)
        if unit == study.unit:
            known[path.parent.name] = {*listed}
    names = {name: home for name, home in own.items() if home in known}
    notes = []
    for name, source in study.holders.items():
        if name in names:
            continue
        keys = _keys(source)
        free = (home for home, theirs in known.items() if keys & theirs and home not in names.values())
        names[name] = next(free, own[name])
        other = names[name].rpartition("-")[0]
        if other != name:
            notes.append(
                f"{name}: its data were asked before in this workspace, as those of {other}; one data set has one "
                "budget and one memory, and those go on"
            )
    return Placed({name: names[name] for name in study.holders}, tuple(notes))


def _place(source: str) -> str:
    """A source by where it is: without options, links followed."""
    return source if "://" in source else str(Path(split(source, Path())[0]).resolve())


def _keys(source: str) -> set[str]:
    """What identifies the data of a source."""
    try:
        return set(identity(source, Path(), content).keys)
    except (OSError, ValueError, RuntimeError):  # it cannot be opened either
        return set()


def _take_down(home: Path, unit: str, keys: set[str]) -> None:
    """Keep what identifies the data of a home, earlier states included."""
    path = home / DATA
    _, before = _taken_down(path) if path.exists() else ("", ())
    write_private(path, "\n".join([unit, *sorted(keys | {*before})]))


def _taken_down(path: Path) -> tuple[str, tuple[str, ...]]:
    """The unit and the keys that `_take_down` kept. Raises UsageError."""
    try:
        unit, *keys = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise UsageError(f"{path}: got a list of data that is damaged; want it as it was written") from None
    return unit, tuple(keys)


def make_homes(
    study: Study,
    terms: Terms,
    sources: Mapping[str, str],
    homes: Mapping[str, Path],
    root: Path,
    dataset: str = "",
    held: ExitStack | None = None,
) -> dict[str, Path]:
    """Complete the holders' homes and make those of third parties under `root`. Returns party name to folder.

    sources: holder to data file or URL, absolute. dataset: name of the data set in every ledger, that of the home by
    default. A register of their own lies under `root`, so that a workspace that is deleted is gone as a whole. held:
    until it is closed, no other run may change these homes. Raises UsageError when a source cannot be opened, and where
    another run uses a home under other rules or another budget.
    """
    others = third_parties(study.protection, study.holders, study.engine, root)
    pins = identities({**homes, **others})
    direct = lines(study.protection, pins)
    admit_third_parties(others, study.protection.name, pins, direct)
    for name, source in sources.items():
        point(homes[name], root / REGISTER)
        _take_down(homes[name], study.unit, _keys(source))
        records, persons = _sizes(source, terms.codebook_of(name))
        policy = policy_of(
            study,
            name,
            Dataset(
                id=dataset or homes[name].name,
                path=source,
                records=records,
                persons=persons,
                codebooks=() if study.simulation.rules == "none" else (terms.codebook_of(name).digest(),),
            ),
            Parties(pins),
            tuple(others),
        )
        if name in direct:
            allowed = {"allow": policy.allow.model_copy(update={"direct": True}), "direct": direct[name]}
            policy = policy.model_copy(update=allowed)
        path = homes[name] / "policy.toml"
        known = None
        if path.exists():
            with suppress(UsageError):  # one of an earlier version is written anew: it is the simulation's own
                known = load_policy(path)
        change = partial(write_policy, policy, path) if known != policy else None
        busy = (
            f"holder {name}: another run uses {homes[name]} under other rules or another budget; want its end, or "
            "--fresh"
        )
        using = locks.used(homes[name] / IN_USE, busy, change)
        if held is not None:
            held.enter_context(using)
        else:
            with using:
                pass
    return {**homes, **others}


def policy_of(study: Study, name: str, dataset: Dataset, parties: Parties, third_parties: tuple[str, ...]) -> Policy:
    """What a simulated holder allows: all that its study's section [simulation] does not close.

    Under rules standard or strict it is that template, pinned to the study's codebook. A public seed stays allowed,
    since it is a simulation; noise that the coordinator adds is, under none alone.
    """
    simulation = study.simulation
    template: Template = "rehearsal" if simulation.rules == "none" else simulation.rules
    units = dataset.records if study.unit == "record" else dataset.persons
    budget = Budget(
        unit=study.unit, epsilon=simulation.lifetime_epsilon, delta=min(simulation.lifetime_delta, 0.5 / units)
    )
    policy = made(
        template,
        holder=HolderName(name=name),
        dataset=dataset,
        budget=budget,
        parties=parties,
        third_parties=third_parties,
    )
    allow = {"public_seed": True, "without_privacy": policy.allow.without_privacy and simulation.allow_without_privacy}
    changes: dict[str, Any] = {"allow": policy.allow.model_copy(update=allow)}
    if template == "rehearsal" or simulation.disclosure != OFF:
        changes["disclosure"] = _rules(simulation.disclosure)
    records = max(policy.minimum.records, simulation.minimum_records)
    changes["minimum"] = policy.minimum.model_copy(update={"records": records})
    return policy.model_copy(update=changes)


def _rules(rules: Rules) -> Disclosure:
    try:
        return Disclosure.model_validate(rules.model_dump())
    except ValidationError as error:
        raise UsageError(describe(error, "simulation.disclosure", "a rule of disclosure control")) from None


def homes_under(root: Path, names: Mapping[str, str]) -> dict[str, Path]:
    """The folders of these homes, made where there are none."""
    return {name: home_of(root, folder) for name, folder in names.items()}


def _sizes(source: str, codebook: Codebook) -> tuple[int, int]:
    """Numbers of records and of persons, at least 1: the simulated holders declare them as public.

    A file is counted once while it does not change, a database at every run.
    """
    unit = codebook.role("unit")
    try:
        state = tuple(map(stamp, listing(split(source, Path())[0], Path(), "").files)) if "://" not in source else ()
    except (OSError, UsageError, ValueError, RuntimeError):  # opening it says why
        state = ()
    return _counted(source, unit, state) if state else _count(source, unit)


@lru_cache(maxsize=256)
def _counted(source: str, unit: str | None, state: tuple[str, ...]) -> tuple[int, int]:  # noqa: ARG001
    """`_count` of files in one state."""
    return _count(source, unit)


def _count(source: str, unit: str | None) -> tuple[int, int]:
    with connect(source, Path()) as opened:
        asked = {"records": opened.expr.count()}
        if unit is not None and unit in opened.expr.columns:
            asked["persons"] = opened.expr[unit].nunique()
        (found,) = opened.expr.aggregate(**asked).to_pyarrow().to_pylist()
        records = max(1, int(found["records"]))
        return records, max(1, min(records, int(found.get("persons", records))))
