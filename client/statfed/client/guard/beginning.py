"""How a party puts its data under a policy: the data are looked at, the policy is written, the codebook is pinned.

A home is about one data set for life, since its ledger is. `begin` writes the first policy of a home; `renew` puts a
newer state of the same data in place of the old one, under the same policy, the same ledger and the same budget. Other
data want another home. Where a home has a ledger and its policy was lost, the data set, the privacy unit and the budget
are those of the ledger: none of them changes because a file was written anew.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from statfed.client.data.listing import listing
from statfed.client.data.reading import joined, split
from statfed.client.data.sources import absolute, shown
from statfed.client.data.tables import connect, inspect
from statfed.client.guard.ledger import Ledger
from statfed.client.guard.policy import ANY, Budget, Dataset, HolderName, Policy, load_policy, write_policy
from statfed.client.guard.templates import Template, made
from statfed.client.pilot.joining import REQUEST, standing
from statfed.client.third_party import FILE as PARTY
from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.pilot.documents import read_document
from statfed.core.pilot.papers import read_request
from statfed.core.section import Unit, describe

POLICY, LEDGER = "policy.toml", "ledger.sqlite"
EPSILON: dict[Template, float] = {"strict": 1.0, "standard": 3.0, "rehearsal": 20.0}
"""Budget of a data set's whole life, where nobody says another one."""


@dataclass(frozen=True)
class Chosen:
    """What a holder says beside its data; None for the default. dataset: its name in the ledger; records, persons: to
    be declared as public instead of what is counted; third_parties: key holders and compute nodes that it trusts."""

    dataset: str | None = None
    records: int | None = None
    persons: int | None = None
    epsilon: float | None = None
    third_parties: tuple[str, ...] = ()


def begin(
    home: Path,
    template: Template,
    source: str,
    codebook: Codebook | None,
    name: str,
    chosen: Chosen = Chosen(),  # frozen
    *,
    copy: bool = False,
) -> Policy:
    """Write the first policy of a home, with `codebook` pinned. source: a file, folder or URL, as from here.

    copy: into the home, readable by its owner alone. Raises UsageError, and then nothing is written, where the home has
    a policy, the data do not fit the codebook, or the ledger of the home is about other data.
    """
    path = home / POLICY
    if path.exists():
        raise UsageError(
            f"{path}: exists; want a home without a policy, or statfed holder add-data --replace for a newer state of "
            "the same data"
        )
    if codebook is None and template != "rehearsal":
        raise UsageError(f"--codebook: got none for {template}; want the codebook that studies may use")
    records, persons = _sizes(source, codebook, chosen)
    unit: Unit = "person" if codebook and codebook.role("unit") else "record"
    budget = Budget(
        unit=unit,
        epsilon=chosen.epsilon or EPSILON[template],
        delta=min(1e-6, 0.1 / (persons if unit == "person" else records)),
    )
    dataset = chosen.dataset or name
    if (home / LEDGER).exists():
        dataset, budget = _kept(home / LEDGER, chosen, budget)
    try:
        holder = HolderName(name=name)
        placed = _copied(source, home, check=True) if copy else _placed(source, home)
        policy = made(
            template,
            holder=holder,
            dataset=Dataset(
                id=dataset,
                path=placed,
                records=records,
                persons=persons,
                codebooks=(codebook.digest(),) if codebook else (),
            ),
            budget=budget,
            third_parties=chosen.third_parties,
        )
    except ValidationError as error:
        raise UsageError(describe(error, "policy", "what docs/policy.md says", Policy)) from None
    except ValueError as error:
        raise UsageError(f"policy: {error}") from None
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    if copy:
        _copied(source, home)
    write_policy(policy, path)
    return policy


def renew(
    home: Path,
    source: str,
    codebook: Codebook,
    chosen: Chosen = Chosen(),  # frozen
    *,
    copy: bool = False,
) -> Policy:
    """Put a newer state of a home's data in place of the old one: path, sizes and the pinned codebook change, and
    nothing else does. Raises UsageError, and then nothing is written, where the home has no policy, the data do not fit
    the codebook, or that has another privacy unit than the budget."""
    path = home / POLICY
    before = load_policy(path)
    if chosen.epsilon is not None or chosen.third_parties or chosen.dataset not in (None, before.dataset.id):
        raise UsageError(f"--replace: got changes of the policy; want them made in {path}: it is kept as it is")
    unit: Unit = "person" if codebook.role("unit") else "record"
    if unit != before.budget.unit:
        raise UsageError(
            f"--codebook: got one of data per {unit}; want one per {before.budget.unit}, in which this home's budget "
            "is kept for ever, or another home for other data"
        )
    records, persons = _sizes(source, codebook, chosen)
    placed = _copied(source, home, check=True) if copy else _placed(source, home)
    digest, table = codebook.digest(), before.model_dump()
    pins = (*(one for one in before.dataset.codebooks if one not in (ANY, digest)), digest)
    table["dataset"] |= {"path": placed, "records": records, "persons": persons, "codebooks": pins}
    try:
        policy = Policy.model_validate(table)
    except ValidationError as error:
        raise UsageError(describe(error, str(path), "what docs/policy.md says", Policy)) from None
    if copy:
        _copied(source, home)
    write_policy(policy, path)
    return policy


def name_of(home: Path, given: str | None) -> str:
    """The party's name: that of its pilot, of its request or of its policy, else the one that is given.

    Raises UsageError where there is none, two of them differ, or the party holds no data.
    """
    request = read_request(read_document(home / REQUEST), str(home / REQUEST)) if (home / REQUEST).exists() else None
    if (home / PARTY).exists() or (request and request.role == "third-party"):
        raise UsageError(
            f"{home}: got the home of a third party, which holds no data; want a home of its own for these: "
            "statfed pilot request --name NAME --home DIR"
        )
    own = standing(home)
    known = own.pilot.party if own else request.name if request else None
    if known is None and (home / POLICY).exists():
        known = load_policy(home / POLICY).holder.name
    if known is None and given is None:
        raise UsageError(f"{home}: got no pilot.toml and no pilot.request; want --name, or statfed pilot request first")
    if known and given and known != given:
        raise UsageError(f"--name: got {given}; want {known}, this home's name")
    return known or given or ""


def _kept(path: Path, chosen: Chosen, budget: Budget) -> tuple[str, Budget]:
    """The data set and the budget of a ledger that is there. Raises UsageError where they cannot be these data's."""
    with Ledger.read_only(path) as ledger:
        spent = ledger.spending()
        if ledger.unit != budget.unit or chosen.dataset not in (None, ledger.dataset):
            raise UsageError(
                f"{path}: got a ledger of {ledger.dataset} per {ledger.unit}; want the same data set and unit, or "
                "another home for other data"
            )
        known = Budget(unit=budget.unit, epsilon=chosen.epsilon or spent.budget, delta=spent.delta)
        return ledger.dataset, known


def _sizes(source: str, codebook: Codebook | None, chosen: Chosen) -> tuple[int, int]:
    """Numbers of records and persons, at least 1. Raises UsageError where the data do not fit the codebook."""
    with connect(source, Path.cwd()) as opened:
        if codebook and (found := inspect(opened, codebook, tuple(codebook.columns)).mismatches):
            raise UsageError("data do not fit the codebook (statfed codebook check):\n  " + "\n  ".join(found))
        counted = max(1, int(opened.expr.count().to_pyarrow().as_py()))
        unit, people = codebook.role("unit") if codebook else None, counted
        if unit is not None and unit in opened.expr.columns:
            people = max(1, int(opened.expr[unit].nunique().to_pyarrow().as_py()))
    records = chosen.records or counted
    return records, min(chosen.persons or people, records)


def _placed(source: str, home: Path) -> str:
    """A data source as a policy names it: relative to the home where the file lies in it, else absolute."""
    whole = absolute(source, Path.cwd())
    if "://" in whole:
        return whole
    path, options = split(whole, Path.cwd())
    inside = Path(path)
    if inside.is_relative_to(home.resolve()):
        return joined(str(inside.relative_to(home.resolve())), options)
    return whole


def _copied(source: str, home: Path, *, check: bool = False) -> str:
    """Copy a file or folder into the home, under its own name; check: only say under what name it would lie there.

    Raises UsageError where it is neither, lies in the home already, or its name is taken.
    """
    if "://" in source:
        raise UsageError(f"--copy: got {shown(source)}; want a file or a folder, or a reference to the database")
    path, options = split(source, Path.cwd())
    whole = Path(path).expanduser().resolve()
    if not whole.exists():
        raise UsageError(f"--copy: got {shown(source)}; want one file, or one folder")
    target = home / whole.name
    if whole.is_relative_to(home.resolve()) or target.exists():
        raise UsageError(f"--copy: {target} is there; want another name, or the data in the home without --copy")
    if not check:
        found = listing(str(whole), Path(), shown(source))
        pairs = [(file, target / file.relative_to(whole) if whole.is_dir() else target) for file in found.files]
        _copy(pairs)
    return joined(whole.name, options)


def _copy(pairs: Sequence[tuple[Path, Path]]) -> None:
    for file, to in pairs:
        to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with file.open("rb") as given, os.fdopen(descriptor, "wb") as taken:
            shutil.copyfileobj(given, taken)
            taken.flush()
            os.fsync(descriptor)
