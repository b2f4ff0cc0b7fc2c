"""What holders agree to: the part of a study that they rebuild their computation from, as it travels. Public."""

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from statfed.core.codebook import Codebook, Column
from statfed.core.conditions import MOST_CONDITIONS, Clause, checked
from statfed.core.conditions import Condition as Condition
from statfed.core.conditions import parse_condition as parse_condition
from statfed.core.discovery import LINKAGES, modules
from statfed.core.errors import UsageError
from statfed.core.section import Section, Unit

Placement = Literal["local", "central", "shared"]
NOISE = (
    "who adds noise to a sum: local, each holder all of it; central, a coordinator that is trusted with what the "
    "protection shows it; shared, each holder a part, under a protection that shows sums only"
)
Mechanism = Literal["automatic", "discrete-gaussian", "discrete-laplace"]
MECHANISM = "kind of noise; automatic: the one with the smaller expected error, of which Laplace noise has delta 0"
COLLUDERS = "shared noise: holders that may pool what they know, the noise they added included; 1 by default there"
MOST_HOLDERS = 10_000
"""Of a study: more is not read, at any end."""
_IN_ORDER = ("stratum", "replicate")
"""Roles of several columns: strata and replicates are numbered in the codebook's order."""


def _form(column: Column) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What of a column has to be the same at every holder: all but its words and how its missing values are written."""
    return column.model_dump(exclude={"label", "missing", "required", "categories"}), tuple(column.categories)


class Privacy(Section):
    """Differential privacy of a release, budget over all asks of the query; see `statfed.core.privacy.placement` for
    `noise`, and `statfed.core.privacy.noise` for `mechanism`.

    colluders is 1 for shared noise that says nothing else: every holder knows its own share.
    """

    unit: Unit = Field(default="record", description="who is protected: one record, or all records of one person")
    neighbouring: Literal["add-remove"] = Field(default="add-remove", description="neighbouring relation")
    epsilon: float = Field(gt=0, le=1000)
    delta: float = Field(default=1e-6, ge=0, lt=0.5, description="0 for Laplace noise alone")
    mechanism: Mechanism = Field(default="automatic", description=MECHANISM)
    max_records_per_unit: int = Field(default=1, ge=1, description="records used of one person")
    noise: Placement = Field(default="local", description=NOISE)
    colluders: int = Field(default=0, ge=0, description=COLLUDERS)

    @model_validator(mode="before")
    @classmethod
    def _own_share(cls, given: Any) -> Any:
        return with_colluders(given)

    @model_validator(mode="after")
    def _fits(self) -> "Privacy":
        if self.delta == 0 and self.mechanism == "discrete-gaussian":
            raise ValueError("delta: got 0 for discrete-gaussian; want a positive one, or discrete-laplace")
        if self.noise != "shared" and self.colluders:
            raise ValueError(f"colluders: got {self.colluders} for {self.noise} noise; want them for shared noise only")
        return self


def with_colluders(given: Any) -> Any:
    """The fields of a privacy section with the default of `colluders` that suits its `noise`."""
    if isinstance(given, dict) and given.get("noise") == "shared":
        return {"colluders": 1} | given
    return given


class Protection(Section):
    """How the sum over holders is formed."""

    name: str = Field(default="plain", description="a file of statfed.strategies.protections")
    minimum_holders: int | None = Field(
        default=None,
        ge=1,
        description="fewest holders that a sum may be formed over, where the protection survives dropout; default: "
        "every holder for statistics (exact ones want no fewer outside a rehearsal), more than two thirds for training",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="that protection's options")


class Terms(Section):
    """What holders agree to and rebuild the computation from.

    codebooks: of holders whose tables have other columns than `codebook`, which is everybody else's; a column of one
    name has one form in all of them, since noise and encodings follow from it at every end, and those of one role one
    order, which is that of cells. roles: of parties that a method tells apart, by name.
    """

    method: str = Field(description="a file of statfed.strategies.analyses or .training")
    options: dict[str, Any] = Field(default_factory=dict, description="that method's options")
    codebook: Codebook
    codebooks: dict[str, Codebook] = Field(default_factory=dict, max_length=MOST_HOLDERS)
    where: tuple[Clause, ...] = Field(default=(), max_length=MOST_CONDITIONS)
    holders: tuple[str, ...] = Field(min_length=1, max_length=MOST_HOLDERS)
    roles: dict[str, str] = Field(default_factory=dict)
    seed: int | None = Field(description="None in a pilot: the holder then draws from its operating system")
    privacy: Privacy | None = None
    protection: Protection = Protection()
    exact: bool = Field(default=False, description="the result has to be exact: an official figure")

    @model_validator(mode="after")
    def _fits(self) -> "Terms":
        astray = sorted({*self.codebooks, *self.roles} - set(self.holders))
        if astray:
            raise ValueError(f"codebooks, roles: got some for {', '.join(astray)}; want holders of the study")
        known = dict(self.codebook.columns)
        for holder, codebook in self.codebooks.items():
            for name, column in codebook.columns.items():
                if _form(known.setdefault(name, column)) != _form(column):
                    raise ValueError(
                        f"codebooks: {holder}: {name}: got another form than in another codebook; want one"
                    )
            for role in _IN_ORDER:
                here, there = (book.with_role(role) for book in (codebook, self.codebook))
                if [name for name in here if name in there] != [name for name in there if name in here]:
                    raise ValueError(f"codebooks: {holder}: got columns with role {role} in another order; want one")
        if sum(len(clause.either) for clause in self.where) > MOST_CONDITIONS:
            raise ValueError(f"where: got more than {MOST_CONDITIONS:,} comparisons; want fewer")
        linked = self.protection.name in modules(LINKAGES)  # then each column is of one holder
        for clause in self.where:
            try:
                for codebook in (self.codebook, *self.codebooks.values()):
                    if codebook is self.codebook or not linked or set(clause.columns) <= set(codebook.columns):
                        checked(clause, codebook)
            except UsageError as error:
                raise ValueError(str(error)) from None
        return self

    def digest(self) -> str:
        """SHA-256 of the JSON: the study's name in every ledger.

        Codebooks and the value of each option are in their order, since that of categories, or of the columns of
        margins, is that of cells: whoever is told them in another one is asked another study. All else are names with
        values, whose order means nothing.
        """
        table = self.model_dump(mode="json")
        table["options"] = {name: json.dumps(value) for name, value in table["options"].items()}
        table["codebook"] = json.dumps(table["codebook"])
        table["codebooks"] = {holder: json.dumps(book) for holder, book in table["codebooks"].items()}
        text = json.dumps(table, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def codebook_of(self, holder: str) -> Codebook:
        """The codebook of one holder's table."""
        return self.codebooks.get(holder, self.codebook)
