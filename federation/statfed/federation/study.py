"""A study that asks one question of tables: the file behind `statfed run study.toml` when it names an analysis."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from statfed.core.codebook import Codebook
from statfed.core.disclosure import OFF, Rules
from statfed.core.discovery import load
from statfed.core.errors import UsageError
from statfed.core.method import Ask, Part, functions_of, private_asks, read_question
from statfed.core.privacy.noise import epsilon_for
from statfed.core.privacy.placement import shares
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.protection import Requirements
from statfed.core.terms import COLLUDERS, NOISE, Placement, Privacy, Terms, parse_condition, with_colluders
from statfed.core.section import NAME, Section, Unit, apply_override, describe, read_toml
from statfed.core.terms import Protection


class Simulation(Section):
    """What the simulated holders' policies say. A pilot's holders write their own."""

    lifetime_epsilon: float = Field(default=20.0, gt=0, description="budget of each simulated holder's dataset")
    lifetime_delta: float = Field(default=1e-5, gt=0, lt=0.5, description="at most half a unit's share of it is used")
    minimum_records: int = Field(default=1, ge=1)
    allow_without_privacy: bool = Field(default=True, description="may exact statistics leave a holder?")
    disclosure: Rules = Field(default=OFF, description="each holder's own rules, off unless this table is given")


class Target(Section):
    """A privacy budget given by its effect: the smallest epsilon whose noise stays within a margin of error."""

    margin_of_error: float = Field(gt=0, description="half-width of the noise in the total over all holders, per entry")
    part: str | None = Field(default=None, description="which noisy sum is meant; see --dry-run. Default: the first")
    level: float = Field(default=0.95, gt=0, lt=1, description="probability that the noise stays within the margin")
    unit: Unit = "record"
    delta: float = Field(default=1e-6, ge=0, lt=0.5)
    mechanism: Literal["discrete-gaussian", "discrete-laplace"] = "discrete-gaussian"
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
        """The privacy of a query at this epsilon."""
        return Privacy(epsilon=epsilon, **self.model_dump(exclude={"margin_of_error", "part", "level"}))


class AnalysisStudy(Section):
    """A validated study of one analysis."""

    analysis: str = Field(description="a file of statfed.strategies.analyses")
    title: str = ""
    options: dict[str, Any] = Field(default_factory=dict, description="options of the analysis")
    holders: dict[str, str] = Field(min_length=1, description="simulation: holder name to its data file or URL")
    codebook: str | None = Field(default=None, description="*.codebook.toml; drafted from the data when left out")
    where: tuple[str, ...] = Field(default=(), description='records to look at, as "age >= 18"')
    engine: Literal["inprocess", "processes", "ray"] = "inprocess"
    seed: int | None = Field(default=None, ge=0, lt=2**63, description="simulation only: noise follows from it")
    timeout: float = Field(default=600.0, gt=0, description="seconds that one sum may take")
    exact: bool = Field(default=False, description="the result has to be exact, an official figure: noise is refused")
    privacy: Privacy | Target | None = None
    protection: Protection = Protection()
    disclosure: Rules = Field(default=Rules(), description='rules of the release; "none" for no treatment')
    simulation: Simulation = Simulation()

    @field_validator("privacy", mode="before")
    @classmethod
    def _one_kind(cls, value: object) -> object:
        """Errors of the kind of section that was meant, instead of those of both."""
        if not isinstance(value, Mapping):
            return value
        try:
            return (Target if "margin_of_error" in value else Privacy).model_validate(dict(value))
        except ValidationError as error:
            lines = describe(error, "", "only keys listed in docs/study.md").splitlines()
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
    def _names(self) -> "AnalysisStudy":
        for name in self.holders:
            if not NAME.fullmatch(name):
                raise ValueError(f"holders: got {name!r}; want lower-case letters, digits and hyphens, 40 at most")
        return self

    @property
    def unit(self) -> Unit:
        """The privacy unit that the simulated holders keep their budgets in."""
        return self.privacy.unit if self.privacy else "record"

    def query(self, codebook: Codebook) -> Terms:
        """What holders agree to. Raises UsageError where no epsilon reaches the margin of error asked for."""
        if not isinstance(self.privacy, Target):
            return self._query(codebook, self.privacy)
        target = self.privacy
        query = self._query(codebook, target.privacy(epsilon=1.0))
        parts, times = noisy_parts(query)
        part = target.part or next(iter(parts))
        epsilon = epsilon_for(
            parts,
            target.privacy(1.0),
            part,
            target.margin_of_error,
            len(self.holders),
            times,
            target.level,
            shares(query),
        )
        return self._query(codebook, target.privacy(epsilon))

    def _query(self, codebook: Codebook, privacy: Privacy | None) -> Terms:
        keyed = self.analysis == "table" and self.disclosure.method == "cell-key" and privacy is None
        query = Terms(
            method=self.analysis,
            options=self.options | ({"record_keys": True} if keyed else {}),
            codebook=codebook,
            where=tuple(parse_condition(text, codebook) for text in self.where),
            holders=tuple(self.holders),
            seed=self.seed,
            privacy=privacy,
            protection=self.protection,
            exact=self.exact,
        )
        return query.model_copy(update={"protection": agreed_functions(query, self.disclosure)})


def load_analysis_study(path: Path, overrides: Sequence[str] = ()) -> AnalysisStudy:
    """Read and validate a study file; paths in it are relative to it. Raises UsageError naming the key."""
    table = read_toml(path, "study")
    for override in overrides:
        apply_override(table, override)
    study = make_analysis_study(table, str(path))
    codebook = str(path.parent / study.codebook) if study.codebook else None
    return study.model_copy(update={"codebook": codebook})


def make_analysis_study(table: dict[str, Any], where: str = "study") -> AnalysisStudy:
    """Validate a study given as a mapping."""
    try:
        return AnalysisStudy.model_validate(table)
    except ValidationError as error:
        raise UsageError(describe(error, where, "only keys listed in docs/study.md")) from None


def agreed_functions(query: Terms, rules: Rules) -> Protection:
    """The query's protection with the functions that its analysis uses, unless the study lists its own.

    Where one of them decides dominance rules it gets the parameters of the release's rules, and holders agree to them
    with the query: so nobody can have the same cells decided for other parameters within a study.
    Raises UsageError where the study says other parameters than its rules do.
    """
    requires: Requirements = load(PROTECTIONS, query.protection.name, "protection").REQUIRES
    offered, given = requires.functions, dict(query.protection.options)
    if not offered or query.privacy:
        return query.protection
    analysis, question = read_question(query)
    deciding: Callable[[Any], str] | None = getattr(analysis, "deciding", None)
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
    return query.protection.model_copy(update={"options": given})


def noisy_parts(query: Terms) -> tuple[Mapping[str, Part], int]:
    """The parts of a private query's one ask, and how often it is made."""
    analysis, question = read_question(query)
    name, times = private_asks(analysis, question)
    return analysis.parts(question, Ask(name)), times
