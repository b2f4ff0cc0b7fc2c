"""The codebook of a table: what its columns mean, agreed before a study. Public; it travels with every query.

Every holder's data are checked against it before the first exchange, and everything that has to be the same at every
holder (the levels of a category, the bounds of a number, the role of a weight) is read from it and never from data.
"""

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from unicodedata import normalize

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from statfed.core import toml
from statfed.core.errors import UsageError
from statfed.core.keyrules import read_rule
from statfed.core.names import one_of
from statfed.core.section import Section, describe, read_toml, shown

Type = Literal["number", "integer", "boolean", "category", "id", "date", "text", "array"]
Role = Literal["weight", "stratum", "psu", "replicate", "unit", "enterprise", "record-key"]
_NUMERIC: frozenset[str] = frozenset({"number", "integer", "boolean"})
_BOUNDED: frozenset[str] = frozenset({"number", "integer", "date", "array"})
_SIZED: frozenset[str] = frozenset({"text", "array"})
_SCALED: frozenset[str] = frozenset({"number", "integer", "array"})
MOST_CATEGORIES, MOST_COLUMNS = 100_000, 20_000
"""Of a codebook: more is not read, at any end. A holder's policy says how many of them it works on."""
MOST_RULES, LONGEST_RULE = 100, 1_000
MOST_SLOTS = 100
_FEW = 20  # codes named in a message
_ISO = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = date(1970, 1, 1)

_END = {"anyOf": [{"type": "number"}, {"type": "string", "format": "date"}, {"type": "null"}]}
End = Annotated[float | None, WithJsonSchema(_END, mode="validation")]
_VALUES = {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "string", "format": "date"}]}}
Spikes = Annotated[tuple[float, ...], WithJsonSchema(_VALUES, mode="validation")]
MOST_SPIKES = 100
"""Values of one column that have a class of their own."""


def day_of(day: object) -> int:
    """Days since 1970-01-01 of a date or of its ISO form, YYYY-MM-DD. Raises ValueError on anything else."""
    try:
        if isinstance(day, date) and not isinstance(day, datetime):
            return (day - _EPOCH).days
        if isinstance(day, str) and _ISO.fullmatch(day):
            return (date.fromisoformat(day) - _EPOCH).days
    except ValueError:  # no such day
        pass
    raise ValueError(f"got {day!r}; want a date such as 2021-01-01")


def iso_of(days: float) -> str:
    """The ISO form of a day that is given as days since 1970-01-01."""
    return (_EPOCH + timedelta(days=int(days))).isoformat()


class Column(Section):
    """One column. `number`, `integer` and `boolean` can be computed with; `category` and `boolean` have levels.

    A `date` has bounds and an order; `low` and `high` are ISO dates in the file and days since 1970-01-01 here. An
    `array` has `length` numbers in every record, with the bounds of each; a `text` has at most `length` characters.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    type: Type
    label: str = ""
    unit: str = Field(default="", description="unit of measurement, for numbers")
    low: End = Field(default=None, description="smallest allowed value, of a date in ISO form; public")
    high: End = Field(default=None, description="largest allowed value, of a date in ISO form; public")
    length: int | None = Field(default=None, ge=1, description="entries of an array, most characters of a text; public")
    given_scale: float | None = Field(
        default=None, alias="scale", gt=0, description="public divisor that models use; default half the range"
    )
    categories: dict[str, str] = Field(
        default_factory=dict, max_length=MOST_CATEGORIES, description="code to label, in order; a list is allowed"
    )
    parents: dict[str, str] = Field(
        default_factory=dict, max_length=MOST_CATEGORIES, description="code to code one level up, for hierarchies"
    )
    missing: tuple[str | float, ...] = Field(
        default=(), max_length=1_000, description="values that mean missing, besides null"
    )
    required: bool = Field(default=False, description="are missing values an error?")
    role: Role | None = None
    spikes: Spikes = Field(
        default=(),
        max_length=MOST_SPIKES,
        exclude_if=lambda spikes: not spikes,  # codebooks without any have the digest of before there were spikes
        description="values that many records have, such as 40 hours: classes of the column have one for each; public",
    )
    key: str | None = Field(
        default=None,
        max_length=40,
        description="rule by which values become keys of linkages, such as luhn",
    )

    @field_validator("categories", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        codes = [str(code) for code in value] if isinstance(value, list | tuple | dict) else []
        composed = [normalize("NFC", code) for code in codes]
        if twice := sorted(code for code, times in Counter(composed).items() if times > 1):
            raise ValueError(f"got {', '.join(twice)} more than once; want each code once")
        if isinstance(value, dict):
            return dict(zip(composed, value.values(), strict=True))
        return dict.fromkeys(composed, "") if codes else value

    @field_validator("parents", mode="after")
    @classmethod
    def _composed(cls, value: dict[str, str]) -> dict[str, str]:
        return {normalize("NFC", code): normalize("NFC", up) for code, up in value.items()}

    @field_validator("key", mode="after")
    @classmethod
    def _ruled(cls, value: str | None) -> str | None:
        try:
            return None if value is None else str(read_rule(value))
        except UsageError as error:
            raise ValueError(str(error)) from None

    @field_validator("low", "high", mode="before")
    @classmethod
    def _days(cls, value: object, info: ValidationInfo) -> object:
        return value if value is None or info.data.get("type") != "date" else float(day_of(value))

    @field_validator("missing", mode="before")
    @classmethod
    def _dates(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("type") != "date" or not isinstance(value, list | tuple):
            return value
        return tuple(iso_of(day_of(code)) if isinstance(code, date) else code for code in value)

    @field_validator("spikes", mode="before")
    @classmethod
    def _days_of(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("type") != "date" or not isinstance(value, list | tuple):
            return value
        return tuple(float(day_of(day)) for day in value)

    @model_serializer(mode="wrap")
    def _dumped(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = dump(self)
        if self.key is None:  # so that codebooks without one have the digest that they had before there were any
            made.pop("key", None)
        if self.type == "date":
            made |= {end: iso_of(made[end]) for end in ("low", "high") if made.get(end) is not None}
            if self.spikes:
                made["spikes"] = [iso_of(day) for day in self.spikes]
        return made

    @model_validator(mode="after")
    def _sound(self) -> "Column":
        if self.type == "category" and not self.categories:
            raise ValueError("categories: got none; want every code that may occur")
        if self.type != "category" and self.categories:
            raise ValueError(f"categories: got some for type {self.type}; want them for type category only")
        if (self.low is not None or self.high is not None) and self.type not in _BOUNDED:
            raise ValueError(
                f"low, high: got bounds for type {self.type}; want them for number, integer, date or array only"
            )
        if self.low is not None and self.high is not None and not self.low <= self.high:
            low, high = (iso_of(end) if self.type == "date" else end for end in (self.low, self.high))
            raise ValueError(f"low, high: got {low} to {high}; want low at most high")
        if self.type in _SIZED and self.length is None:
            want = "the most characters" if self.type == "text" else "the number of entries"
            raise ValueError(f"length: got none for type {self.type}; want {want}")
        if self.type not in _SIZED and self.length is not None:
            raise ValueError(f"length: got {self.length} for type {self.type}; want it for text or array only")
        if self.given_scale is not None and self.type not in _SCALED:
            raise ValueError(f"scale: got one for type {self.type}; want it for number, integer or array only")
        if self.type == "array" and self.missing:
            raise ValueError("missing: got codes for type array; want null where an array is missing")
        if self.role is not None and self.type in _SIZED:
            raise ValueError(f"role: got {self.role} for type {self.type}; want a column of another type")
        if self.key is not None and self.type in ("array", "number"):
            raise ValueError(f"key: got one for type {self.type}; want it for columns that identify units")
        self._check_spikes()
        astray = sorted(set(self.parents) - set(self.categories))
        if astray:
            raise ValueError(f"parents: got {', '.join(astray)}; want codes that are among the categories")
        return self

    def _check_spikes(self) -> None:
        """Raises ValueError where there are values that no class can be made of."""
        if not self.spikes:
            return
        if self.type not in ("number", "integer", "date") or self.bounds is None:
            raise ValueError(
                f"spikes: got some for type {self.type}{'' if self.bounds else ' without low and high'}; want them for "
                "number, integer or date, between low and high"
            )
        low, high = self.bounds
        for value in self.spikes:
            whole = self.type == "number" or float(value).is_integer()
            if not (low <= value <= high and whole):
                raise ValueError(f"spikes: got {self.shown(value)}; want values of the column, between low and high")
        if len(set(self.spikes)) < len(self.spikes):
            raise ValueError("spikes: got a value twice; want each once")

    @property
    def numeric(self) -> bool:
        return self.type in _NUMERIC

    @property
    def levels(self) -> tuple[str, ...]:
        """Codes in order; a boolean's are `false` and `true`."""
        return ("false", "true") if self.type == "boolean" else tuple(self.categories)

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Public range of a number or of an array's entries, if both ends are given; of a boolean 0 to 1; of a date in
        days since 1970-01-01."""
        if self.type == "boolean":
            return 0.0, 1.0
        return None if self.low is None or self.high is None else (self.low, self.high)

    def shown(self, value: float) -> str:
        """A bound as people read it: of a date its ISO form."""
        return iso_of(value) if self.type == "date" else f"{value:g}"

    @property
    def scale(self) -> float | None:
        """Public divisor, above 0, that brings values to order 1: the given one, or half the range (1 if that is 0).

        None without bounds, and for types that have no range.
        """
        if self.given_scale is not None or self.low is None or self.high is None:
            return self.given_scale
        return (self.high / 2 - self.low / 2) or 1.0


class Design(Section):
    """How the sample was drawn, as far as the columns' roles do not say it."""

    psu_spans_holders: bool | None = Field(
        default=None,
        description="may records of one PSU lie with several holders? Then the psu column has to list its categories; "
        "a design with PSUs and several holders wants true or false",
    )
    lonely_psu: Literal["refuse", "certainty", "adjust"] = Field(
        default="refuse", description="a stratum with one PSU: refuse, count no variance, or centre at the grand mean"
    )
    replicate_method: Literal["jk1", "jkn", "brr", "fay", "bootstrap", "other"] | None = None
    replicate_scale: float | None = Field(default=None, gt=0, description="default follows from the method")
    replicate_rscales: tuple[float, ...] = Field(default=(), description="one per replicate; default all 1")
    replicate_df: float | None = Field(
        default=None, gt=0, description="degrees of freedom of the replicates; default: the rank of the weights less 1"
    )
    fay_rho: float = Field(default=0.0, ge=0, lt=1, description="Fay's coefficient")


class Folded(Section):
    """Records that are units with their members (`statfed synth fold`): the k-th member's `age` is the column `age_k`.

    Columns that are neither the size nor of members are the unit's own.
    """

    size: str = Field(description="column with the number of members, 1 or more")
    most: int = Field(ge=1, le=MOST_SLOTS, description="slots: members that a record has columns for")
    columns: tuple[str, ...] = Field(min_length=1, description="columns of members, without the number of a slot")
    more: bool = Field(default=False, description="does a size of one more than the slots stand for all larger ones?")

    @property
    def slots(self) -> dict[str, tuple[str, int]]:
        """By column of a member: the same column of the first member, and the number of the slot, from 1 on."""
        return {slot(name, k): (slot(name, 1), k) for name in self.columns for k in range(1, self.most + 1)}


def slot(name: str, k: int) -> str:
    """The column of the k-th member, from 1 on, in folded records."""
    return f"{name}_{k}"


class Codebook(Section):
    """The columns of a table and the design of its sample. Columns that are not listed do not exist for a query."""

    title: str = ""
    columns: dict[str, Column] = Field(min_length=1, max_length=MOST_COLUMNS)
    rules: tuple[Annotated[str, Field(max_length=LONGEST_RULE)], ...] = Field(
        default=(),
        max_length=MOST_RULES,
        exclude_if=lambda rules: not rules,  # codebooks without any have the digest of before there were rules
        description="conditions that every record fulfils, such as 'age >= 16 or employed = false'; synthetic ones do",
    )
    design: Design = Design()
    folded: Folded | None = Field(
        default=None,
        exclude_if=lambda folded: folded is None,  # as for rules
        description="how members are in the columns of records that are units with their members",
    )

    @model_validator(mode="after")
    def _slotted(self) -> "Codebook":
        folded = self.folded
        if folded is None:
            return self
        size = self.columns.get(folded.size)
        ends = (1.0, float(folded.most + folded.more))
        if size is None or size.type != "integer" or not size.required or size.bounds != ends:
            raise ValueError(
                f"folded.size: got {shown(folded.size)}; want a required column of whole numbers from 1 to {ends[1]:g}"
            )
        for name in folded.columns:
            slots = [self.columns.get(slot(name, k)) for k in range(1, folded.most + 1)]
            alike = [one and one.model_copy(update={"required": False, "label": ""}) for one in slots]
            if alike[0] is None or alike.count(alike[0]) < len(alike):
                raise ValueError(f"folded.columns: got {shown(name)}; want columns {name}_1, ... that are alike")
            if any(one and one.required for one in slots[1:]):
                raise ValueError(f"folded.columns: got {shown(name)} required beyond slot 1; want it to be optional")
        return self

    @model_validator(mode="after")
    def _ruled(self) -> "Codebook":
        if self.rules:
            from statfed.core.conditions import parse_where  # whose language is about codebooks

            for place, rule in enumerate(self.rules):
                try:
                    parse_where((rule,), self)
                except UsageError as error:
                    text = str(error).removeprefix("--where: ").removeprefix("where: ")
                    raise ValueError(f"rules.{place}: {text}") from None
        return self

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
            raise UsageError(f"{where}: got {shown(name)}; want {one_of(self.columns, name)}")
        return self.columns[name]

    def number(self, name: str, where: str = "column") -> Column:
        """A column to compute with. Raises UsageError when it is not numeric."""
        column = self.column(name, where)
        if column.type == "date":
            raise UsageError(
                f"{where}: {name}: got type date; want number, integer or boolean, such as a column with the days from "
                "a fixed date: dates themselves serve conditions, and as time and start of survival and cox"
            )
        if not column.numeric:
            raise UsageError(
                f"{where}: {name}: got type {column.type}; want number, integer or boolean: in the codebook under "
                f'{toml.header("columns", name)} type = "number", or without one '
                f"--type {shlex.quote(f'{name}=number')}; statfed codebook check then names the records that are none"
            )
        return column

    def category(self, name: str, where: str = "column") -> Column:
        """A column with levels. Raises UsageError when it has none."""
        column = self.column(name, where)
        if not column.levels:
            raise UsageError(
                f"{where}: {name}: got type {column.type}; want category or boolean: in the codebook under "
                f'{toml.header("columns", name)} type = "category" and categories = {_codes_within(column)} instead of '
                f"low and high, or without one --type {shlex.quote(f'{name}=category')}"
            )
        return column

    def digest(self) -> str:
        """SHA-256 of the JSON in its order: that of categories is that of cells, so that another one is another
        codebook."""
        text = json.dumps(self.model_dump(mode="json"), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _codes_within(column: Column) -> str:
    """The whole numbers between a column's bounds as a list of codes, if they are few."""
    low, high = (column.low, column.high) if column.type == "integer" else (None, None)
    if low is None or high is None or high - low > _FEW:
        return '["1", "2", ...]'
    return toml.literal([str(code) for code in range(int(low), int(high) + 1)])


def load_codebook(path: Path) -> Codebook:
    """Read and validate a `*.codebook.toml` file. Raises UsageError naming the key, what was got, what is wanted."""
    return make_codebook(read_toml(path, "codebook"), str(path))


def make_codebook(table: Mapping[str, Any], where: str = "codebook") -> Codebook:
    """Validate a codebook given as a mapping."""
    try:
        return Codebook.model_validate(table)
    except ValidationError as error:
        raise UsageError(describe(error, where, "only keys listed in docs/codebook.md", Codebook)) from None
