"""A holder's policy: what its organisation allows to be computed on one dataset. `policy.toml`, read here and nowhere
else; `statfed.client.guard.admission` holds studies against it.

What is written is taken as it stands: `true` is no number, a name that nothing here has is no name, and a threshold
that no office can have meant is refused. A policy that says less than was meant would be worse than none.

A *rehearsal* is a policy with `refusals.explain`: whoever asks is told why, data included, so one person has to own
all of them. Only there may any codebook be used, and refusals and exact figures go uncounted. Everywhere else a study
is answered under a codebook that the policy pins, and a refusal that depended on data tells nothing (see
`statfed.client.guard.refusals`).

The numbers of records and of persons under [dataset] are public by definition: step counts, weights and sampling rates
are derived from them.

One dataset has one privacy unit. Neither unit's guarantee implies the other's: removing one person removes many
records, and add-or-remove-one-record neighbours need not be add-or-remove-one-person neighbours, so charges in both
units cannot be composed in one budget (Dwork and Roth 2014, section 2.3, group privacy).
"""

import re
from collections.abc import Iterable, Sequence
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)

from statfed.client.guard.addresses import Direct
from statfed.client.guard.files import write_private
from statfed.core import toml
from statfed.core.conditions import check_syntax
from statfed.core.disclosure import Rules
from statfed.core.discovery import LINKAGES, modules
from statfed.core.errors import UsageError
from statfed.core.linkage import load_linkage
from statfed.core.linkkeys import check_part
from statfed.core.method import methods
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.protection import named_protection
from statfed.core.section import NAME, Section, Strict, Unit, describe, read_toml
from statfed.core.terms import Placement

ANY = "*"
DIGEST = re.compile("[0-9a-f]{64}")
FUNCTIONS = ("log", "log1p", "sqrt", "square", "standardise")
"""Functions that an exact formula may use unless a policy says otherwise: none of them can make a bump that one record
stands in alone."""


def known(names: Sequence[str], there: Iterable[str], what: str) -> tuple[str, ...]:
    """`names` as they are. Raises ValueError on one that nothing here has, naming what is nearest to it."""
    among = sorted(there)
    for name in names:
        if name not in among and name != ANY:
            near = get_close_matches(name, among, 1, 0.4)
            meant = f"{near[0]}?" if near else f"one of {', '.join(among)}"
            raise ValueError(f"unknown {what}: got {name!r}; want {meant}")
    return tuple(names)


def weaker(options: type[BaseModel]) -> tuple[str, ...]:
    """Options with which a protection or linkage protects less, by what it says of them."""
    marked = {key: field.json_schema_extra for key, field in options.model_fields.items()}
    return tuple(key for key, extra in marked.items() if isinstance(extra, dict) and extra.get("weaker"))


def _plausible(value: float | None, low: float, high: float, what: str) -> None:
    if value is not None and not low <= value <= high:
        raise ValueError(f"implausible: got {value:g}; want {low:g} to {high:g} {what}")


class HolderName(Section):
    """Whose policy it is."""

    name: str = Field(description="this holder's name in study files")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"got {value!r}; want lower-case letters, digits and hyphens, 40 at most")
        return value


class Dataset(Strict):
    """The dataset that the policy is about. Its sizes are public."""

    id: str = Field(min_length=1, max_length=80, description="the dataset's name; its ledger is bound to it")
    path: str = Field(
        min_length=1, description="data file, relative to the holder's home folder; for analyses also a database URL"
    )
    records: int = Field(
        ge=1, description="PUBLIC number of records; sampling rate and divisor follow from it, not from the file"
    )
    persons: int = Field(ge=1, description="PUBLIC number of persons")
    codebooks: tuple[str, ...] = Field(
        default=(),
        description="SHA-256 digests of the codebooks that a study may use (statfed codebook pin): roles, hierarchies, "
        'missing codes and bounds are then this holder\'s; ["*"] or none for any, in a rehearsal only',
    )

    @field_validator("codebooks")
    @classmethod
    def _digests(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for digest in value:
            if not DIGEST.fullmatch(digest) and value != (ANY,):
                raise ValueError(f"got {digest!r}; want the 64 hexadecimal digits of statfed codebook show --json")
        return value

    @model_validator(mode="after")
    def _sizes(self) -> "Dataset":
        if self.persons > self.records:
            raise ValueError(f"dataset.persons: got {self.persons}; want at most the {self.records} records")
        return self


class Allow(Strict):
    """What may be asked of the dataset. What is not listed is refused."""

    methods: tuple[str, ...] = Field(
        default=(),
        description='analyses and training methods that may be asked for; ["*"] for all. Of training, dp-fedsgd alone '
        "keeps its guarantee whatever model the coordinator sends",
    )
    protections: tuple[str, ...] = Field(
        description='protections under which a contribution may leave; ["*"] for all, plain among them; NAME:OPTION '
        "besides for an option with which NAME protects less"
    )
    linkages: tuple[str, ...] = Field(
        default=(),
        description="ways in which units may be matched with others', as helper; besides NAME:pairs, where any holder "
        "may learn which of its own match, or NAME:pairs-to=HOLDER for that one; NAME:several, where several runs "
        "may match units with the same others, whose differences no rule looks at; NAME:OPTION for an option with "
        "which NAME protects less; none for no linkage",
    )
    keys: tuple[str, ...] = Field(
        default=(),
        description="parts of keys, those of a block included, by which units may be matched beside whole columns by "
        "the rule of codebook or type, as 'id:digits' or 'postcode[:2]': such a part may leave chosen units without a "
        'key; ["*"] for any',
    )
    direct: bool = Field(
        default=False,
        description="may packets of linkages go to and from other parties directly, at the addresses under [direct]?",
    )
    third_parties: tuple[str, ...] = Field(
        default=(),
        description="key holders and compute nodes that may be trusted with their part; a pinned key does not say so",
    )
    columns: tuple[str, ...] = Field(description='columns (or sensor channels) that may be used; ["*"] for all')
    filters: tuple[str, ...] = Field(
        default=(ANY,),
        description='what records may be selected by: columns, or whole conditions such as "age >= 18"; ["*"] for all '
        "columns, none for studies of all records only",
    )
    functions: tuple[str, ...] = Field(
        default=FUNCTIONS, description='functions that the formula of an exact study may use; ["*"] for all'
    )
    weights: tuple[str, ...] = Field(
        default=(),
        description="columns that may weigh records of an exact study beside those with role weight or replicate in a "
        'pinned codebook; ["*"] for all',
    )
    without_privacy: bool = Field(
        default=False, description="may exact statistics, or a model that was trained without noise, leave?"
    )
    noise: tuple[Placement, ...] = Field(
        default=("local", "shared"),
        description="who may add the noise of a private statistic; central trusts the coordinator with exact sums",
    )
    public_seed: bool = Field(
        default=False, description="simulation only: may noise follow from the study's public seed?"
    )
    strategies: tuple[str, ...] | None = Field(default=None, description="aggregation strategies; leave out for all")

    @field_validator("methods")
    @classmethod
    def _methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return known(value, methods(), "method")

    @field_validator("protections")
    @classmethod
    def _protections(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known([entry.partition(":")[0] for entry in value], modules(PROTECTIONS), "protection")
        for entry in value:
            name, sign, option = entry.partition(":")
            if sign:
                known((option,), type(named_protection(name, {})[1]).model_fields, f"option of {name}")
        return value

    @field_validator("linkages")
    @classmethod
    def _linkages(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            name, sign, right = entry.partition(":")
            if ANY in name:
                raise ValueError(
                    f"got {entry!r}; want each linkage by its name: {', '.join(sorted(modules(LINKAGES)))}"
                )
            known((name,), modules(LINKAGES), "linkage")
            if sign and name not in value:
                raise ValueError(f"got {entry!r} without {name}; want {name} beside it, which it is a right of")
            options = weaker(load_linkage(name).Options)
            to, equals, holder = right.partition("=")
            if sign and to == "pairs-to" and equals:
                if not NAME.fullmatch(holder):
                    raise ValueError(f"got {entry!r}; want {name}:pairs-to=HOLDER, with a holder's name")
            elif sign and right not in ("pairs", "several", *options):
                wanted = ", ".join(f"{name}:{one}" for one in ("pairs", "pairs-to=HOLDER", "several", *options))
                raise ValueError(f"got {entry!r}; want {name} alone, or one of {wanted}")
        return value

    @field_validator("keys")
    @classmethod
    def _keys(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for written in value:
            if written != ANY:
                try:
                    check_part(written)
                except UsageError as error:
                    raise ValueError(str(error)) from None
        return value

    @field_validator("columns", "filters", "weights")
    @classmethod
    def _whole(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if ANY in name and name != ANY:
                raise ValueError(f'got {name!r}; want whole names, or "*" alone: patterns are not read')
        return value

    @field_validator("filters")
    @classmethod
    def _conditions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if re.search(r"[<>=]|\b(in|between|is|not|and|or)\b", text):
                try:
                    check_syntax(text)
                except UsageError:
                    raise ValueError(f"got {text!r}; want a column, or a condition such as 'age >= 18'") from None
        return value


class Minimum(Strict):
    """Thresholds below which the holder takes no part. Secret: a refusal never tells the number."""

    records: int = Field(default=10, ge=1, description="SECRET fewest records")
    persons: int = Field(default=1, ge=1, description="SECRET fewest persons")
    holders: int = Field(default=1, ge=1, description="SECRET fewest holders that a sum of a study may be over")


class Parties(RootModel[dict[str, str]]):
    """Public keys of the other parties, as their organisations gave them: compare them outside this system. A
    protection that signs refuses parties that are not listed."""

    model_config = ConfigDict(frozen=True)
    root: dict[str, str] = {}

    @model_validator(mode="after")
    def _keys(self) -> "Parties":
        for name, key in self.root.items():
            if not re.fullmatch("[0-9a-f]{64}", key):
                raise ValueError(f"parties.{name}: got {key!r}; want a public key of 64 hexadecimal digits")
        keys = list(self.root.values())
        if twice := sorted(name for name, key in self.root.items() if keys.count(key) > 1):
            raise ValueError(f"parties: got one public key for {', '.join(twice)}; want a party each, and its own key")
        return self


class Budget(Strict):
    """The privacy that the dataset may ever lose, over all studies. The ledger enforces it."""

    unit: Unit = Field(description="who is protected: one record, or all records of one person")
    epsilon: float = Field(gt=0, le=1000, allow_inf_nan=False, description="over the dataset's whole life")
    delta: float = Field(gt=0, lt=0.5, description="over the dataset's whole life; below 1 / number of units")


class Disclosure(Strict, Rules):
    """Rules of disclosure control for what leaves this holder without noise. SECRET, and a refusal names none."""

    @field_validator("minimum_frequency")
    @classmethod
    def _frequency(cls, value: int | None) -> int | None:
        _plausible(value, 2, 100_000, "records behind a cell, a number of them")
        return value

    @field_validator("dominance_k", "p_percent", "joint_share")
    @classmethod
    def _per_cent(cls, value: float | None) -> float | None:
        _plausible(value, 1, 100, "per cent, 90 and not .9")
        return value

    @field_validator("parameters_per_record")
    @classmethod
    def _share(cls, value: float | None) -> float | None:
        _plausible(value, 1e-6, 1, "parameters per record")
        return value


class Standing(Strict):
    """A standing approval: proposals that it covers are approved as they arrive, without a person."""

    name: str = Field(pattern=f"^{NAME.pattern}$", description="its name, which decisions under it say")
    methods: tuple[str, ...] = Field(min_length=1, description="analyses that it covers")
    epsilon: float = Field(default=0.0, ge=0, le=1000, description="most that one study may cost; 0: none with noise")
    delta: float = Field(default=1e-6, ge=0, lt=0.5, description="largest delta of a study")
    total: float = Field(default=0.0, ge=0, le=1000, description="most that all runs under it may cost, added up")
    exact: bool = Field(
        default=False,
        description="does it cover studies whose exact sums leave too: without noise, or noise by the coordinator?",
    )
    runs: int = Field(default=1, ge=1, le=10_000, description="most runs of one study")
    rounds: int = Field(default=200, ge=1, le=1_000_000, description="most sums of one run")
    until: str = Field(description="last day on which it holds, as 2027-06-30")

    @field_validator("methods")
    @classmethod
    def _methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if ANY in value:
            raise ValueError('got "*"; want each method by name: nobody looks at what a standing approval covers')
        return known(value, methods(), "method")

    @field_validator("until")
    @classmethod
    def _day(cls, value: str) -> str:
        try:
            day = date.fromisoformat(value)
        except ValueError:
            raise ValueError(f"got {value!r}; want a day as 2027-06-30") from None
        if day == date.max:  # it ends with the next one
            raise ValueError(f"got {value}; want an earlier day")
        return day.isoformat()


class Approval(Strict):
    """Who approves studies of a pilot, all of which have to be approved. Without people listed, whoever can use this
    home's own key does."""

    needed: int = Field(
        default=1, ge=1, le=20, description="how many of the people have to approve a study; 2: four eyes"
    )
    people: dict[str, str] = Field(
        default_factory=dict, description="name to public key (statfed identity) of those who approve"
    )
    standing: tuple[Standing, ...] = Field(default=(), description="studies that are approved without a person")

    @model_validator(mode="after")
    def _enough(self) -> "Approval":
        Parties(self.people)
        if astray := [name for name in self.people if not NAME.fullmatch(name)]:  # files are called by them
            raise ValueError(f"approval.people: got {astray[0]!r}; want names of a-z, 0-9 and hyphens")
        if self.needed > max(1, len(self.people)):
            raise ValueError(f"approval.needed: got {self.needed}; want at most the {len(self.people)} people listed")
        names = [one.name for one in self.standing]
        if len(set(names)) != len(names):
            raise ValueError("approval.standing: got a name twice; want one for each")
        return self


class Refusals(Strict):
    """What a refusal that depended on data tells whoever asked."""

    explain: bool = Field(
        default=False,
        description="a rehearsal: is whoever asks told which rule, column or record it was? Only where one person owns "
        "all data; else refusals are one and the same text",
    )


class Limits(Strict):
    """Bounds on everything that a study may ask for; public, and held against it before any work is done."""

    categories: int = Field(default=5_000, ge=1, description="most categories of a column")
    columns: int = Field(default=1_000, ge=1, description="most columns of a codebook")
    holders: int = Field(default=1_000, ge=1, description="most holders of a study")
    cells: int = Field(default=1_000_000, ge=1, description="most cells of one table: the product of its levels")
    parameters: int = Field(default=2_000, ge=1, description="most parameters of a statistical model")
    entries: int = Field(default=5_000_000, ge=1, description="most numbers of one contribution")
    asks: int = Field(default=200, ge=1, description="most sums of one study")
    megabytes: int = Field(default=64, ge=1, le=4_096, description="most public parameters with one statement")
    seconds: float | None = Field(
        default=3_600.0,
        gt=0,
        le=604_800,
        description="most that one answer may take of an engine in this process; or off",
    )
    memory: int | None = Field(
        default=None, ge=64, description="megabytes of an engine in this process; off for the engine's own limit"
    )
    figures: int | None = Field(
        default=10_000,
        ge=1,
        description="most distinct exact figures that the dataset ever gives; off in a rehearsal only",
    )
    refusals: int | None = Field(
        default=10,
        ge=1,
        description="refusals that depended on data, after which nothing exact is answered; off in a rehearsal only",
    )
    linkages: int | None = Field(
        default=10,
        ge=1,
        description="linkages with others' units in a period: each can be probed with guesses; off in a rehearsal only",
    )
    ratio: float | None = Field(
        default=100.0,
        ge=1,
        le=1e6,
        description="most places of another holder's list in a linkage for each record of this dataset: each may be a "
        "guess; off in a rehearsal only",
    )
    days: float = Field(
        default=30.0, gt=0, le=36_500, description="period over which refusals and linkages are counted"
    )

    @field_validator("seconds", "memory", "figures", "refusals", "linkages", "ratio", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return None if value == "off" else value

    @field_serializer("seconds", "memory", "figures", "refusals", "linkages", "ratio", when_used="json")
    def _written(self, value: float | None) -> float | str:
        return "off" if value is None else value


class Policy(Section):
    """A validated policy file."""

    holder: HolderName
    dataset: Dataset
    allow: Allow
    minimum: Minimum = Minimum()
    disclosure: Disclosure = Disclosure()
    refusals: Refusals = Refusals()
    limits: Limits = Limits()
    approval: Approval = Approval()
    direct: Direct = Direct()
    parties: Parties = Parties()
    budget: Budget

    @property
    def rehearsal(self) -> bool:
        """Is whoever asks told why it is refused? Then one person owns all data."""
        return self.refusals.explain

    @property
    def units(self) -> int:
        """The public number of privacy units of the budget."""
        return self.dataset.records if self.budget.unit == "record" else self.dataset.persons

    @model_validator(mode="after")
    def _open(self) -> "Policy":
        if self.rehearsal:
            return self
        if ANY in self.dataset.codebooks:
            raise ValueError('dataset.codebooks: got "*"; want digests (statfed codebook pin), or refusals.explain')
        for key in ("figures", "refusals", "linkages", "ratio"):
            if getattr(self.limits, key) is None:
                raise ValueError(f'limits.{key}: got "off"; want a number, or refusals.explain: this is a rehearsal')
        return self

    @model_validator(mode="after")
    def _delta(self) -> "Policy":
        if self.budget.delta * self.units >= 1.0:
            raise ValueError(
                f"budget.delta: got {self.budget.delta:g}; want less than 1/{self.units}, one over the number of "
                f"{self.budget.unit}s: a larger one allows to publish a unit outright"
            )
        return self


def load_policy(path: Path) -> Policy:
    """Read and validate a policy file. Raises UsageError naming the key, what was got and what is wanted."""
    table = read_toml(path, "policy")
    allow = table.get("allow")
    if isinstance(allow, dict) and {"analyses", "scenarios"} & set(allow):
        raise UsageError(
            f"{path}: allow.analyses, allow.scenarios: got a policy of an earlier version; want allow.methods, a list "
            "of analyses and of training methods (where a scenario was allowed: local-sgd, dp-fedsgd)"
        )
    if isinstance(allow, dict) and "after_approval" in allow:
        raise UsageError(
            f"{path}: allow.after_approval: got a policy of an earlier version; want the line taken out: every "
            "study of a pilot has to be approved (statfed study approve), but for those under [approval] standing"
        )
    try:
        return Policy.model_validate(table)
    except ValidationError as error:
        known = ", ".join(f"{s}.{k}" for s, f in Policy.model_fields.items() for k in _section(f.annotation))
        raise UsageError(describe(error, str(path), f"one of {known}", Policy)) from None


def _section(annotation: Any) -> tuple[str, ...]:
    return tuple(annotation.model_fields)


def _written(value: Any) -> Any:
    """A value as TOML has it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_none=True)
    return [_written(one) for one in value] if isinstance(value, tuple) else value


def write_policy(policy: Policy, path: Path) -> None:
    """Write `policy` as commented TOML that `load_policy` reads back equal. Mode 0600: it holds secret thresholds."""
    lines = ["# What this holder allows to be computed on its dataset. Everything not allowed here is refused."]
    for name in Policy.model_fields:
        section: BaseModel = getattr(policy, name)
        doc = " ".join((type(section).__doc__ or "").split())
        lines += ["", f"# {doc}", toml.header(name)]
        if isinstance(section, Parties):
            lines += [toml.line(party, key) for party, key in sorted(section.root.items())]
            continue
        for key, field in type(section).model_fields.items():
            value = getattr(section, key)
            if value is None and field.default is not None:
                lines.append(toml.line(key, "off", field.description or ""))
            elif value is None:
                lines.append(f"# {key}: not set; {field.description}")
            else:
                lines.append(toml.line(key, _written(value), field.description or ""))
    write_private(path, "\n".join(lines) + "\n")
