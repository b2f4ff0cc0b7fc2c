"""A study that asks one question of tables: the file behind `statfed run study.toml` when it names an analysis."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from statfed.core.codebook import Codebook
from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import UsageError
from statfed.core.query import Privacy, Query, parse_condition
from statfed.core.study import NAME, Protection, Section, apply_override, describe, read_toml


class Simulation(Section):
    """What the simulated holders' policies say. A pilot's holders write their own."""

    lifetime_epsilon: float = Field(default=20.0, gt=0, description="budget of each simulated holder's dataset")
    lifetime_delta: float = Field(default=1e-5, gt=0, lt=0.5, description="at most half a unit's share of it is used")
    minimum_records: int = Field(default=1, ge=1)
    allow_without_privacy: bool = Field(default=True, description="may exact statistics leave a holder?")
    disclosure: Rules = Field(default=OFF, description="each holder's own rules for what leaves it in the clear")


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
    privacy: Privacy | None = None
    protection: Protection = Protection()
    disclosure: Rules = Field(default=Rules(), description='rules of the release; "none" for no treatment')
    simulation: Simulation = Simulation()

    @field_validator("disclosure", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return {"none": OFF, "standard": Rules()}.get(value, value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _names(self) -> "AnalysisStudy":
        for name in self.holders:
            if not NAME.fullmatch(name):
                raise ValueError(f"holders: got {name!r}; want lower-case letters, digits and hyphens, 40 at most")
        return self

    def query(self, codebook: Codebook) -> Query:
        """What holders agree to."""
        return Query(
            analysis=self.analysis,
            options=self.options,
            codebook=codebook,
            where=tuple(parse_condition(text, codebook) for text in self.where),
            holders=tuple(self.holders),
            seed=self.seed,
            privacy=self.privacy,
            protection=self.protection,
        )


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
