"""The codebook of a table: what its columns mean, agreed before a study. Public; it travels with every query.

Every holder's data are checked against it before the first exchange, and everything that has to be the same at every
holder (the levels of a category, the bounds of a number, the role of a weight) is read from it and never from data.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from statfed.core.errors import UsageError
from statfed.core.section import Section, describe, read_toml

Type = Literal["number", "integer", "boolean", "category", "id"]
Role = Literal["weight", "stratum", "psu", "replicate", "unit", "enterprise", "record-key"]
_NUMERIC: frozenset[str] = frozenset({"number", "integer", "boolean"})


class Column(Section):
    """One column. `number`, `integer` and `boolean` can be computed with; `category` and `boolean` have levels."""

    type: Type
    label: str = ""
    unit: str = Field(default="", description="unit of measurement, for numbers")
    low: float | None = Field(default=None, description="smallest allowed value; public")
    high: float | None = Field(default=None, description="largest allowed value; public")
    categories: dict[str, str] = Field(default_factory=dict, description="code to label, in order; a list is allowed")
    parents: dict[str, str] = Field(default_factory=dict, description="code to code one level up, for hierarchies")
    missing: tuple[str | float, ...] = Field(default=(), description="values that mean missing, besides null")
    required: bool = Field(default=False, description="are missing values an error?")
    role: Role | None = None

    @field_validator("categories", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return {str(code): "" for code in value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _sound(self) -> "Column":
        if self.type == "category" and not self.categories:
            raise ValueError("categories: got none; want every code that may occur")
        if self.type != "category" and self.categories:
            raise ValueError(f"categories: got some for type {self.type}; want them for type category only")
        if (self.low is not None or self.high is not None) and self.type not in ("number", "integer"):
            raise ValueError(f"low, high: got bounds for type {self.type}; want them for number or integer only")
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"low, high: got {self.low} to {self.high}; want low at most high")
        astray = sorted(set(self.parents) - set(self.categories))
        if astray:
            raise ValueError(f"parents: got {', '.join(astray)}; want codes that are among the categories")
        return self

    @property
    def numeric(self) -> bool:
        return self.type in _NUMERIC

    @property
    def levels(self) -> tuple[str, ...]:
        """Codes in order; a boolean's are `false` and `true`."""
        return ("false", "true") if self.type == "boolean" else tuple(self.categories)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Public range of a number, if both ends are given; of a boolean 0 to 1."""
        if self.type == "boolean":
            return 0.0, 1.0
        return None if self.low is None or self.high is None else (self.low, self.high)


class Design(Section):
    """How the sample was drawn, as far as the columns' roles do not say it."""

    psu_spans_holders: bool = Field(
        default=False,
        description="may records of one PSU lie with several holders? Then the psu column has to list its categories",
    )
    lonely_psu: Literal["refuse", "certainty", "adjust"] = Field(
        default="refuse", description="a stratum with one PSU: refuse, count no variance, or centre at the grand mean"
    )
    replicate_method: Literal["jk1", "jkn", "brr", "fay", "bootstrap", "other"] | None = None
    replicate_scale: float | None = Field(default=None, gt=0, description="default follows from the method")
    replicate_rscales: tuple[float, ...] = Field(default=(), description="one per replicate; default all 1")
    fay_rho: float = Field(default=0.0, ge=0, lt=1, description="Fay's coefficient")


class Codebook(Section):
    """The columns of a table and the design of its sample. Columns that are not listed do not exist for a query."""

    title: str = ""
    columns: dict[str, Column] = Field(min_length=1)
    design: Design = Design()

    @model_validator(mode="after")
    def _roles(self) -> "Codebook":
        for role in ("weight", "psu", "unit", "enterprise", "record-key"):
            names = self.with_role(role)
            if len(names) > 1:
                raise ValueError(f"columns: got role {role} for {', '.join(names)}; want one column with it at most")
        for role in ("weight", "replicate", "record-key"):
            for name in self.with_role(role):
                if self.columns[name].type not in ("number", "integer"):
                    raise ValueError(f"columns.{name}: got role {role} for type {self.columns[name].type}; want number")
        for name in self.with_role("stratum"):
            if not self.columns[name].levels:
                raise ValueError(f"columns.{name}: got role stratum for type {self.columns[name].type}; want category")
        if self.design.psu_spans_holders and not all(self.columns[n].levels for n in self.with_role("psu")):
            raise ValueError("design.psu_spans_holders: got a psu column without categories; want type category")
        return self

    def with_role(self, role: str) -> tuple[str, ...]:
        """Names of the columns with a role, in order."""
        return tuple(name for name, column in self.columns.items() if column.role == role)

    def role(self, role: str) -> str | None:
        """The one column with a role, or None."""
        return next(iter(self.with_role(role)), None)

    def column(self, name: str, where: str = "column") -> Column:
        """Raises UsageError naming the columns there are."""
        if name not in self.columns:
            raise UsageError(f"{where}: got {name!r}; want one of {', '.join(self.columns)}")
        return self.columns[name]

    def number(self, name: str, where: str = "column") -> Column:
        """A column to compute with. Raises UsageError when it is not numeric."""
        column = self.column(name, where)
        if not column.numeric:
            raise UsageError(f"{where}: {name}: got type {column.type}; want number, integer or boolean")
        return column

    def category(self, name: str, where: str = "column") -> Column:
        """A column with levels. Raises UsageError when it has none."""
        column = self.column(name, where)
        if not column.levels:
            raise UsageError(f"{where}: {name}: got type {column.type}; want category or boolean")
        return column

    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_codebook(path: Path) -> Codebook:
    """Read and validate a `*.codebook.toml` file. Raises UsageError naming the key, what was got, what is wanted."""
    return make_codebook(read_toml(path, "codebook"), str(path))


def make_codebook(table: Mapping[str, Any], where: str = "codebook") -> Codebook:
    """Validate a codebook given as a mapping."""
    try:
        return Codebook.model_validate(table)
    except ValidationError as error:
        raise UsageError(describe(error, where, "only keys listed in docs/codebook.md")) from None
