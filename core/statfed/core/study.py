"""A study: what is computed, with whom, under which protection and privacy. One TOML file, validated here.

`Study` holds all that a run in simulation needs. `Study.terms` is the part that holders are asked to agree to.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from statfed.core.codebook import Codebook, Type
from statfed.core.conditions import comparable, parse_where
from statfed.core.disclosure import OFF, HolderRules, Rules
from statfed.core.discovery import is_linkage
from statfed.core.errors import UsageError
from statfed.core.method import Ask, Fixed, Part, budget_of, functions_of, load_method, methods, read_question
from statfed.core.privacy.noise import epsilon_for
from statfed.core.privacy.placement import shares
from statfed.core.privacy.spending import own_noise
from statfed.core.protection import load_protection
from statfed.core.section import MOST_NESTED, NAME, Section, Unit, apply_override, deep, describe, read_toml
from statfed.core.terms import (
    COLLUDERS,
    MECHANISM,
    MOST_HOLDERS,
    NOISE,
    Mechanism,
    Placement,
    Privacy,
    Protection,
    Terms,
    with_colluders,
)

KEYS = "only keys listed in docs/study.md"


class Simulation(Section):
    """What the simulated holders' policies say. A pilot's holders write their own."""

    lifetime_epsilon: float = Field(default=20.0, gt=0, description="budget of each simulated holder's dataset")
    lifetime_delta: float = Field(default=1e-5, gt=0, lt=0.5, description="at most half a unit's share of it is used")
    minimum_records: int = Field(default=1, ge=1)
    allow_without_privacy: bool = Field(
        default=True, description="may exact statistics, or a model trained without noise, leave a holder?"
    )
    disclosure: Rules = Field(default=OFF, description="each holder's own rules, off unless this table is given")
    rules: HolderRules = Field(
        default="none",
        description="what the simulated holders allow: everything, explained (none), or what that template of statfed "
        "policy init does, pinned to the study's codebook",
    )


class Target(Section):
    """A privacy budget given by its effect: the smallest epsilon whose noise stays within a margin of error."""

    margin_of_error: float = Field(gt=0, description="half-width of the noise in the total over all holders, per entry")
    part: str | None = Field(default=None, description="which noisy sum is meant; see --dry-run. Default: the first")
    level: float = Field(default=0.95, gt=0, lt=1, description="probability that the noise stays within the margin")
    unit: Unit = "record"
    delta: float = Field(default=1e-6, ge=0, lt=0.5)
    mechanism: Mechanism = Field(default="automatic", description=MECHANISM)
    max_records_per_unit: int = Field(default=1, ge=1)
    noise: Placement = Field(default="local", description=NOISE)
    colluders: int = Field(default=0, ge=0, description=COLLUDERS)

    @model_validator(mode="before")
    @classmethod
    def _own_share(cls, given: Any) -> Any:
        return with_colluders(given)

    @model_validator(mode="after")
    def _fits(self) -> "Target":
        try:
            self.privacy(1.0)
        except ValidationError as error:
            raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        return self

    def privacy(self, epsilon: float) -> Privacy:
        """The privacy of a study at this epsilon."""
        return Privacy(epsilon=epsilon, **self.model_dump(exclude={"margin_of_error", "part", "level"}))


class Study(Section):
    """A validated study file: a method, asked of tables of holders or of the population of a reference scenario."""

    method: str = Field(description="a file of statfed.strategies.analyses or statfed.strategies.training")
    title: str = ""
    options: dict[str, Any] = Field(default_factory=dict, description="options of the method")
    holders: dict[str, str] = Field(
        min_length=1,
        max_length=MOST_HOLDERS,
        description="simulation: holder name to its data file or URL; for a scenario names alone, or how many",
    )
    scenario: str | None = Field(default=None, description="a training scenario, whose population the holders have")
    data: dict[str, Any] = Field(default_factory=dict, description="options of the scenario's population")
    codebook: str | None = Field(default=None, description="*.codebook.toml; drafted from the data when left out")
    codebooks: dict[str, str] = Field(
        default_factory=dict, description="holder name to *.codebook.toml, for tables with other columns"
    )
    types: dict[str, Type] = Field(
        default_factory=dict, description="column to type, where a draft would guess another; without a codebook"
    )
    levels: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="column to its categories, likewise; without a codebook"
    )
    roles: dict[str, str] = Field(default_factory=dict, description="holder name to role, where a method has roles")
    where: tuple[str, ...] = Field(default=(), description='records to look at, as "age >= 18"')
    engine: Literal["inprocess", "processes", "ray", "pilot"] = "inprocess"
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="simulation only: everything random follows from it"
    )
    timeout: float = Field(default=600.0, gt=0, description="seconds that one sum may take")
    start: str | None = Field(
        default=None, description="training: initial model, an earlier run by name or the path of a model.npz"
    )
    exact: bool = Field(default=False, description="the result has to be exact, an official figure: noise is refused")
    privacy: Privacy | Target | None = None
    protection: Protection = Protection()
    disclosure: Rules = Field(default=Rules(), description='rules of the release; "none" for no treatment')
    simulation: Simulation = Simulation()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, given: Any) -> Any:
        """Where the method has defaults of its own for [privacy], they stand in for those of statistics."""
        if not isinstance(given, Mapping) or not isinstance(given.get("privacy"), Mapping):
            return given
        name = given.get("method")
        own = getattr(load_method(name), "PRIVACY", {}) if isinstance(name, str) and name in methods() else {}
        return {**given, "privacy": {**own, **given["privacy"]}} if own else given

    @field_validator("holders", mode="before")
    @classmethod
    def _holders(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 1 <= value <= MOST_HOLDERS:
                raise ValueError(f"got {_short(value)}; want 1 to {MOST_HOLDERS:,}")
            return {f"office-{i + 1}": "" for i in range(value)}
        if isinstance(value, list | tuple):
            twice = sorted({str(name) for name in value if value.count(name) > 1})
            if twice:
                raise ValueError(f"duplicate name: got {', '.join(twice)} more than once; want each holder once")
            return dict.fromkeys(value, "")
        return value

    @field_validator("privacy", mode="before")
    @classmethod
    def _one_kind(cls, value: object) -> object:
        """Errors of the kind of section that was meant, instead of those of both."""
        if not isinstance(value, Mapping):
            return value
        meant: type[Section] = Target if "margin_of_error" in value else Privacy
        try:
            return meant.model_validate(dict(value))
        except ValidationError as error:
            lines = describe(error, "", KEYS, meant).splitlines()
            raise ValueError("\n".join(line.removeprefix(": ") for line in lines)) from None

    @field_validator("disclosure", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if value is None or isinstance(value, str):  # `--set disclosure=none` arrives as None
            named = {None: OFF, "none": OFF, "standard": Rules()}
            if value not in named:
                raise ValueError(f"got {value!r}; want none, standard or a table of rules")
            return named[value]
        return value

    @model_validator(mode="after")
    def _names(self) -> "Study":
        for name, source in self.holders.items():
            if not NAME.fullmatch(name):
                raise ValueError(f"holders: got {name!r}; want lower-case letters, digits and hyphens, 40 at most")
            if self.engine == "pilot" and source:
                raise ValueError(f"holders: got a source for {name}; want names alone: in a pilot data are theirs")
            if not source and self.scenario is None and self.engine != "pilot":
                raise ValueError(f"holders: got no source for {name}; want a file or URL, or a scenario")
        if self.engine == "pilot" and (self.scenario or self.seed is not None or not self.codebook):
            raise ValueError("pilot: got a scenario, a seed or no codebook; want a codebook that all holders know")
        if (self.types or self.levels) and (self.codebook or self.scenario):
            raise ValueError("types, levels: got them beside a codebook, which says both; want them in it")
        astray = sorted({*self.codebooks, *self.roles} - set(self.holders))
        if astray:
            raise ValueError(f"codebooks, roles: got some for {', '.join(astray)}; want holders of the study")
        return self

    @property
    def unit(self) -> Unit:
        """The privacy unit that the simulated holders keep their budgets in."""
        return self.privacy.unit if self.privacy else "record"

    def replace(self, **changes: Any) -> "Study":
        """A validated copy with some top-level fields replaced."""
        return Study.model_validate(self.model_dump() | changes)

    def terms(self, codebook: Codebook, codebooks: Mapping[str, Codebook] | None = None) -> Terms:
        """What holders agree to. Raises UsageError where no epsilon reaches the margin of error asked for, and where
        codebooks do not go together."""
        if not isinstance(self.privacy, Target):
            return self._terms(codebook, codebooks, self.privacy)
        target = self.privacy
        first = self._terms(codebook, codebooks, target.privacy(epsilon=1.0))
        parts, times = noisy_parts(first)
        part = target.part or next(iter(parts))
        epsilon = epsilon_for(
            parts,
            target.privacy(1.0),
            part,
            target.margin_of_error,
            len(self.holders),
            times,
            target.level,
            shares(first),
        )
        return self._terms(codebook, codebooks, target.privacy(epsilon))

    def _terms(self, codebook: Codebook, codebooks: Mapping[str, Codebook] | None, privacy: Privacy | None) -> Terms:
        keyed = self.method == "table" and self.disclosure.method == "cell-key" and privacy is None
        where = parse_where(self.where, codebook)
        if privacy is None and not self.disclosure.silent:
            comparable(where)
            if getattr(load_method(self.method), "LINKED", False):
                raise UsageError(
                    f"{self.method}: got rules of a release and no [privacy]; want no rules, or noise where it has a "
                    "private form: its exact figures are linked tables, which no rule on single tables can judge"
                )
        try:
            terms = Terms(
                method=self.method,
                options=self.options | ({"record_keys": True} if keyed else {}),
                codebook=codebook,
                codebooks=dict(codebooks or {}),
                where=where,
                holders=tuple(self.holders),
                roles=self.roles,
                seed=self.seed,
                privacy=privacy,
                protection=self.protection,
                exact=self.exact,
            )
        except ValidationError as error:
            raise UsageError(describe(error, "study", KEYS)) from None
        return terms.model_copy(update={"protection": agreed_functions(terms, self.disclosure)})


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read and validate a study file; paths in it are relative to it. overrides: `key.path=value` (TOML values, bare
    words are strings). Raises UsageError naming the key, what was got and what is allowed."""
    return make_study(read_toml(path, "study"), overrides, where=str(path))


def make_study(table: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "study") -> Study:
    """Validate a study given as a mapping, after applying `key.path=value` overrides. Studies and overrides of format
    1 are read. Where an override names another method, options that only the study's own method has are left out.
    """
    merged = _copied(table, where)
    if overrides and old_keys(merged):  # which keys of format 1 a study has depends on the method in the end
        tried = _copied(merged, where)
        for override in overrides:
            apply_override(tried, override)
        merged = converted(merged, str(converted(tried).get("method", "")))
    merged = converted(merged)
    before = _copied(merged, where)
    for override in overrides:
        apply_override(merged, override)
        merged = converted(merged)
    merged = _copied(merged, where)
    if merged.get("method") != before.get("method"):
        merged["options"] = _fitting(str(merged.get("method")), merged.get("options", {}), before.get("options", {}))
    try:
        return Study.model_validate(merged)
    except ValidationError as error:
        raise UsageError(describe(error, where, KEYS, Study)) from None


def _copied(table: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A study as JSON has it. Raises UsageError where it is nested too deeply, or a number has too many digits."""
    if deep(dict(table)):
        raise UsageError(f"{where}: got tables or lists nested more than {MOST_NESTED} deep; want fewer")
    try:
        made: dict[str, Any] = json.loads(json.dumps(table, default=_plain))
    except ValueError:
        raise UsageError(f"{where}: got a number of more than 4,000 digits; want a smaller one") from None
    return made


def _fitting(method: str, options: Any, before: Any) -> Any:
    """Options without those that stand as they were and that `method` does not have."""
    if method not in methods() or not isinstance(options, Mapping) or not isinstance(before, Mapping):
        return options
    known = load_method(method).Options.model_fields
    return {key: value for key, value in options.items() if key in known or before.get(key, ...) != value}


def _short(number: int) -> str:
    """A number of any size: its digits are written out only where they are few."""
    return str(number) if abs(number) < 10**18 else "a number of more than 18 digits"


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


_OWN = {"local-sgd": ("sampling_rate",), "dp-fedsgd": ("local_epochs", "batch_size", "update_norm")}
"""Keys of the old table [training] that a method never used."""


_MOVED = ("rounds", "model", "training", "strategy")
_LEFT_OUT: dict[str, Any] = {"holders": [f"office-{i}" for i in range(1, 5)], "seed": 1}
_LEFT_OUT_OPTIONS = {"rounds": 10, "learning_rate": 0.1}
"""What a training study of format 1 meant by leaving these out."""


def old_keys(table: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys of format 1 in a study, each with what it is read as; none in one of the present format.

    In format 1 statistics and training had study files of their own.
    """
    found = ["analysis as method"] if "analysis" in table else []
    training = table.get("training")
    if isinstance(training, Mapping) and "method" in training:
        found.append("training.method as method")
    found += [f"{key} as options{'' if key == 'training' else f'.{key}'}" for key in _MOVED if key in table]
    privacy = table.get("privacy")
    if isinstance(privacy, Mapping) and "clipping_norm" in privacy:
        found.append("privacy.clipping_norm as options.clipping_norm")
    return tuple(found)


def converted(table: Mapping[str, Any], to: str = "") -> dict[str, Any]:
    """A study of format 1 in the present one: `analysis` is `method`, and what training has of its own are options.

    to: another method than the table's. Keys of the old table [training] that the method never used are left out.
    """
    found = dict(table)
    if "analysis" in found:
        found["method"] = found.pop("analysis")
    first = bool(found.get("scenario")) and "method" not in found
    if not old_keys(found) and not first:
        return found
    moved = {key: found.pop(key) for key in _MOVED if key in found}
    training = moved.pop("training", None) or {}
    if not isinstance(training, Mapping):
        raise UsageError(f"training: got {training!r}; want a table")
    training = dict(training)
    named = training.pop("method", None)
    method = found["method"] = to or named or found.get("method", "local-sgd")
    own = {key: value for key, value in training.items() if key not in _OWN.get(str(method), ())}
    options = _merged(found.get("options", {}), {**moved, **own})
    privacy = found.get("privacy")
    if isinstance(privacy, Mapping) and "clipping_norm" in privacy:
        found["privacy"] = {key: value for key, value in privacy.items() if key != "clipping_norm"}
        options["clipping_norm"] = privacy["clipping_norm"]
    if first:
        found, options = _LEFT_OUT | found, _LEFT_OUT_OPTIONS | options
    return found | {"options": options}


def _merged(below: Any, above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables one over the other, down to their values."""
    found = dict(below) if isinstance(below, Mapping) else {}
    for key, value in above.items():
        found[key] = _merged(found.get(key), value) if isinstance(value, Mapping) else value
    return found


def agreed_functions(terms: Terms, rules: Rules) -> Protection:
    """The study's protection with the functions that its method uses, unless the study lists its own.

    Where one of them decides dominance rules it gets the parameters of the release's rules, and holders agree to them
    with the study: so nobody can have the same cells decided for other parameters within a study.
    Raises UsageError where the study says other parameters than its rules do.
    """
    module = load_protection(terms.protection.name)
    offered, given = module.REQUIRES.functions, dict(terms.protection.options)
    if not offered or terms.privacy:
        return terms.protection
    method, question = read_question(terms)
    deciding: Callable[[Any], str] | None = getattr(method, "deciding", None)
    function = deciding(question) if deciding and (rules.dominance_k or rules.p_percent) else ""
    wanted = dict.fromkeys([*functions_of(question).values(), function])
    functions = given.get("functions", [name for name in wanted if name in offered])
    if function and function in functions:
        stated = {"n": rules.dominance_n, "k": rules.dominance_k, "p": rules.p_percent}
        for key, value in stated.items():
            if given.get(key, value) != value:
                raise UsageError(f"protection.options.{key}: got {given[key]}; want that of [disclosure], or none")
        given |= stated
    if functions:
        given["functions"] = list(functions)
    return terms.protection.model_copy(update={"options": given})


def noisy_parts(terms: Terms) -> tuple[Mapping[str, Part], int]:
    """The parts of the one ask of a private study, and how often it is made.

    Raises UsageError where there are several asks, or the method adds the noise: a margin of error is about one.
    """
    if is_linkage(terms.protection.name):
        raise UsageError("margin of error: the noise of a linkage is another one; want epsilon instead")
    method, question = read_question(terms)
    budget = budget_of(question)
    asks = budget.asks if isinstance(budget, Fixed) else ()
    if len(asks) != 1 or asks[0].name in own_noise(method):
        raise UsageError(f"margin of error: {terms.method} does not answer by one noisy sum; want epsilon instead")
    return method.parts(question, Ask(asks[0].name)), asks[0].times
