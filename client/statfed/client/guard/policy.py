"""A holder's policy: what its organisation allows to be computed on one dataset. `policy.toml`, read here and nowhere
else.

Formal guarantees. `admit` is checked before data are read and before anything is charged; every rule is a conjunction,
so an admitted study satisfies all of them. A refusal lists each rule that failed; of the thresholds under [minimum],
which are the holder's secret, it names the rule and never the number. The numbers of records and of persons under
[dataset] are public by definition: step counts, weights and sampling rates are derived from them.

One dataset has one privacy unit. Neither unit's guarantee implies the other's: removing one person removes many
records, and add-or-remove-one-record neighbours need not be add-or-remove-one-person neighbours, so charges in both
units cannot be composed in one budget (Dwork and Roth 2014, section 2.3, group privacy).
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel, ValidationError, field_validator, model_validator

from statfed.core import toml
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused, UsageError
from statfed.core.protection import named_protection
from statfed.core.resolve import Resolved
from statfed.core.section import NAME, Section, Unit, describe, read_toml
from statfed.core.terms import Placement

_ANY = "*"


class HolderName(Section):
    """Whose policy it is."""

    name: str = Field(description="this holder's name in study files")

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.fullmatch(value):
            raise ValueError(f"got {value!r}; want lower-case letters, digits and hyphens, 40 at most")
        return value


class Dataset(Section):
    """The dataset that the policy is about. Its sizes are public."""

    id: str = Field(min_length=1, max_length=80, description="the dataset's name; its ledger is bound to it")
    path: str = Field(
        min_length=1, description="data file, relative to the holder's home folder; for analyses also a database URL"
    )
    records: int = Field(
        ge=1, description="PUBLIC number of records; sampling rate and divisor follow from it, not from the file"
    )
    persons: int = Field(ge=1, description="PUBLIC number of persons")

    @model_validator(mode="after")
    def _sizes(self) -> "Dataset":
        if self.persons > self.records:
            raise ValueError(f"dataset.persons: got {self.persons}; want at most the {self.records} records")
        return self


class Allow(Section):
    """What may be asked of the dataset. What is not listed is refused."""

    methods: tuple[str, ...] = Field(
        default=(),
        description='analyses and training methods that may be asked for; ["*"] for all. Of training, dp-fedsgd alone '
        "keeps its guarantee whatever model the coordinator sends",
    )
    after_approval: bool = Field(
        default=False, description="may a study be answered only once a person here has approved it, word for word?"
    )
    protections: tuple[str, ...] = Field(
        description='protections under which a contribution may leave; ["*"] for all, plain among them; NAME:OPTION '
        "besides for an option with which NAME protects less"
    )
    third_parties: tuple[str, ...] = Field(
        default=(),
        description="key holders and compute nodes that may be trusted with their part; a pinned key does not say so",
    )
    columns: tuple[str, ...] = Field(description='columns (or sensor channels) that may be used; ["*"] for all')
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


class Minimum(Section):
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


class Budget(Section):
    """The privacy that the dataset may ever lose, over all studies. The ledger enforces it."""

    unit: Unit = Field(description="who is protected: one record, or all records of one person")
    epsilon: float = Field(gt=0, le=1000, allow_inf_nan=False, description="over the dataset's whole life")
    delta: float = Field(gt=0, lt=0.5, description="over the dataset's whole life; below 1 / number of units")


class Disclosure(Rules):
    """Rules of disclosure control for what leaves this holder without noise. SECRET: a refusal names the rule only."""


class Policy(Section):
    """A validated policy file."""

    holder: HolderName
    dataset: Dataset
    allow: Allow
    minimum: Minimum = Minimum()
    disclosure: Disclosure = Disclosure()
    parties: Parties = Parties()
    budget: Budget

    @property
    def units(self) -> int:
        """The public number of privacy units of the budget."""
        return self.dataset.records if self.budget.unit == "record" else self.dataset.persons

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
    try:
        return Policy.model_validate(table)
    except ValidationError as error:
        known = ", ".join(f"{s}.{k}" for s, f in Policy.model_fields.items() for k in _section(f.annotation))
        raise UsageError(describe(error, str(path), f"one of {known}")) from None


def _section(annotation: Any) -> tuple[str, ...]:
    return tuple(annotation.model_fields)


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
                lines.append(toml.line(key, value, field.description or ""))
    path.touch(mode=0o600, exist_ok=True)
    os.chmod(path, 0o600)  # noqa: PTH101
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def admit(policy: Policy, study: Resolved) -> None:
    """Raise Refused, listing every rule of `policy` that a study does not satisfy; return silently when all are.

    study: public. Raises UsageError instead when the only fault is a delta that gives no protection (delta >= 1/n for
    the n units of this dataset): no policy could admit it. Reads no data and no ledger.
    """
    allow, terms = policy.allow, study.terms
    strategy = getattr(getattr(study.question.options, "strategy", None), "name", None)
    rules = [
        None if _ANY in allow.methods else _listed("method", terms.method, allow.methods),
        _listed("strategy", strategy, allow.strategies) if strategy and allow.strategies is not None else None,
        _columns(allow, study.columns),
        _listed("noise", terms.privacy.noise, allow.noise) if terms.privacy else None,
        None if _ANY in allow.protections else _listed("protection", terms.protection.name, allow.protections),
        *conceded(terms.protection.name, terms.protection.options, allow.protections, allow.third_parties),
        *_parties(policy, study),
    ]
    unusable = None
    if terms.privacy is None:
        if not allow.without_privacy:
            what = "training" if study.training else "a statistic"
            rules.append(f"{what} without differential privacy is not allowed; want a [privacy] section")
    elif terms.privacy.unit != policy.budget.unit:
        rules.append(
            f"this dataset's budget is kept per {policy.budget.unit}; got a study per {terms.privacy.unit}: "
            "one dataset has one privacy unit, since neither guarantee implies the other"
        )
    elif terms.privacy.delta * policy.units >= 1.0:
        unusable = (
            f"privacy.delta: got {terms.privacy.delta:g}; want less than 1/{policy.units}, "
            f"one over this dataset's {policy.budget.unit}s"
        )
    if terms.seed is not None and not allow.public_seed:
        rules.append(
            "seed: got a public seed, from which anyone could subtract the noise; this holder draws its noise from "
            "its operating system; want a study without seed"
        )
    rules += study.obstacles  # not left to the coordinator to look
    reasons = [rule for rule in rules if rule is not None]
    if reasons:
        raise Refused("\n".join(["not allowed by policy:", *(f"- {r}" for r in [*reasons, *filter(None, [unusable])])]))
    if unusable:
        raise UsageError(unusable)


def conceded(name: str, options: Mapping[str, Any], allowed: Sequence[str], third_parties: Sequence[str]) -> list[str]:
    """What a study asks for beyond the protection's name, and is not allowed: rules that fail, in public words.

    The study is the coordinator's: it could name a party of its own as key holder, or an option that leaves a part in
    clear. Nothing is asked of a policy that allows plain: it trusts the coordinator with every contribution.
    """
    if name not in allowed or "plain" in allowed or _ANY in allowed:
        return []
    module, read = named_protection(name, options)
    rules = []
    if strangers := sorted(set(module.third_parties(read)) - set(third_parties)):
        wanted = " or ".join(third_parties) or "none: the list is empty"
        rules.append(f"third parties: got {', '.join(strangers)}, not allowed; want {wanted}")
    for key, field in type(read).model_fields.items():
        marked = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("weaker")
        if marked and getattr(read, key) != field.default and f"{name}:{key}" not in allowed:
            rules.append(f"protection.options.{key}: got one with which {name} protects less; want it left out")
    return rules


def _columns(allow: Allow, names: Sequence[str]) -> str | None:
    closed = [] if _ANY in allow.columns else [name for name in names if name not in allow.columns]
    return f"columns: got {', '.join(closed)}, not allowed; want only {', '.join(allow.columns)}" if closed else None


def _parties(policy: Policy, study: Resolved) -> list[str]:
    minimum, rules, terms = policy.minimum, list[str](), study.terms
    if policy.holder.name not in terms.holders:
        rules.append(f"holder {policy.holder.name} is not among the study's holders; want a study that names it")
    if policy.dataset.records < minimum.records:
        rules.append("minimum number of records: this dataset has fewer records than its policy's minimum")
    if policy.dataset.persons < minimum.persons:
        rules.append("minimum number of persons: this dataset has fewer persons than its policy's minimum")
    try:
        fewest = study.minimum_holders
    except UsageError:
        fewest = minimum.holders  # among the study's obstacles
    if fewest < minimum.holders:
        rules.append("minimum number of holders: a sum of this study may be over fewer than this policy's minimum")
    return rules


def _listed(what: str, got: str, allowed: tuple[str, ...]) -> str | None:
    if got in allowed:
        return None
    return f"{what}: got {got}, not allowed; want {' or '.join(allowed) or 'none: the list is empty'}"
