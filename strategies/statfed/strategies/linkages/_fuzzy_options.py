"""Options of `fuzzy`, and what follows from them at every party."""

import math
from typing import Any

from pydantic import Field, model_validator

from statfed.core.errors import UsageError
from statfed.core.linkage import Estimate
from statfed.core.protection import Agreement
from statfed.core.section import NAME, Section
from statfed.strategies.linkages._encodings import Attribute, Hardening
from statfed.strategies.linkages._fuzzy_sums import Plan, Value
from statfed.strategies.linkages._quality import BINS

ROWS = 100_000
"""Records of one message."""
MOST_CELLS = 1_000
"""Cells of corrected figures."""


class Options(Section):
    """Options of fuzzy. Parts of the key are named as `statfed.core.linkkeys` names them."""

    attributes: dict[str, Attribute] = Field(min_length=1, max_length=32, description="parts that are compared")
    block: tuple[str, ...] = Field(min_length=1, max_length=8, description="parts of which one has to be equal")
    salt: str = Field(default="", description="part, right in nearly all records, by which q-grams are salted")
    hardening: Hardening = Field(
        default="fold", json_schema_extra={"weaker": True}, description="of encodings against patterns of bits"
    )
    flip: float = Field(default=0.0, ge=0, le=0.25, description="probability that a bit is turned")
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="similarity of a link; default: lowest with the estimated `precision`"
    )
    precision: float = Field(default=0.99, ge=0.5, le=1, description="estimated precision that is wanted of links")
    least: float = Field(
        default=0.8, ge=0, le=1, description="where the 95 % interval of that precision may begin at the lowest"
    )
    floor: float = Field(default=0.5, ge=0.1, le=1, description="similarity below which pairs are forgotten")
    size: int | None = Field(
        default=None, ge=1, le=10**8, description="records that each holder pads to; default its public size"
    )
    most_in_block: int = Field(default=1_000, ge=1, description="records of one holder in a block; of more none is in")
    repeats: int = Field(
        default=2, ge=1, json_schema_extra={"weaker": "above"}, description="records of one holder with the same key"
    )
    most_compared: int = Field(default=10**10, ge=1, description="pairs that may be compared")
    most_kept: int = Field(default=10**8, ge=1, description="pairs that may be above the floor")
    minimum: int = Field(default=10, ge=3, description="minimum frequency of what is told")
    pairs_to: tuple[str, ...] = Field(
        default=(), max_length=2, description="holders that learn which records are linked"
    )
    estimate: Estimate = Field(default="none", description="what is corrected for missed and false links")
    level: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="corrected figures: similarity from which a pair may be a match, and next to no match is below; "
        "0 for all pairs of a block; default: what suits the number of pairs",
    )
    owner: str = Field(default="", description="corrected figures: holder that has the columns of cells and values")
    by: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="corrected figures: columns of the cells")
    values: dict[str, Value] = Field(
        default_factory=dict, max_length=20, description="corrected figures: columns that are summed"
    )
    weight: int = Field(
        default=20,
        ge=1,
        json_schema_extra={"weaker": "above"},
        description="corrected totals of values, exact sums: pairs that a record may have, so often it weighs in them",
    )
    helper: str = Field(default="linkage-unit", description="name of the linkage unit, none of the holders")

    @model_validator(mode="after")
    def _checked(self) -> "Options":
        if not NAME.fullmatch(self.helper):
            raise ValueError(f"helper: got {self.helper!r}; want lower-case letters, digits and hyphens, 40 at most")
        if len(set(self.block)) < len(self.block):
            raise ValueError("block: got a part twice; want each once")
        if self.threshold is not None and abs(self.threshold * BINS - round(self.threshold * BINS)) > 1e-6:
            raise ValueError(f"threshold: got {self.threshold:g}; want a multiple of {1 / BINS:g}")
        if self.threshold is not None and self.threshold < self.floor:
            raise ValueError(f"threshold: got {self.threshold:g}; want at least the floor {self.floor:g}")
        if bool(self.owner) != bool(self.by or self.values) or (self.owner and self.estimate == "none"):
            raise ValueError("owner, by, values: want them together, with an estimate")
        if self.level is not None and 0 < self.level < self.floor:
            raise ValueError(f"level: got {self.level:g}; want 0, or at least the floor {self.floor:g}")
        if self.level is not None and self.threshold is not None and self.level > self.threshold:
            raise ValueError(f"level: got {self.level:g}; want at most the threshold {self.threshold:g}")
        if self.cells > MOST_CELLS or not all(self.by.values()):
            raise ValueError(
                f"by: got {self.cells:,} cells, or a column without levels; want 1 to {MOST_CELLS:,} cells"
            )
        return self

    @property
    def cells(self) -> int:
        """Cells of corrected figures."""
        return math.prod(map(len, self.by.values()))

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the key that are needed."""
        return tuple(dict.fromkeys([*self.attributes, *self.block, *([self.salt] if self.salt else [])]))


def sizes(agreement: Agreement) -> dict[str, int]:
    """The number of records that each holder sends, padding included."""
    options: Any = agreement.options
    return {name: options.size or agreement.sizes[name] for name in agreement.holders}


def checked(agreement: Agreement) -> Options:
    """The options of an agreement. Raises UsageError where its parties are not those that they are for."""
    options: Any = agreement.options
    third = agreement.third_parties
    if len(agreement.holders) != 2 or third != (options.helper,) or options.helper in agreement.holders:
        raise UsageError(f"holders: got {', '.join(agreement.parties)}; want two holders and {options.helper}")
    if options.owner and options.owner not in agreement.holders:
        raise UsageError(f"owner: got {options.owner}; want a holder of the linkage")
    if astray := sorted(set(options.pairs_to) - set(agreement.holders)):
        raise UsageError(f"pairs_to: got {', '.join(astray)}; want holders of the linkage")
    found: Options = options
    return found


def messages(size: int) -> int:
    """In how many messages so many records go."""
    return -(-size // ROWS)


def plan_of(agreement: Agreement) -> Plan | None:
    """Of sums of columns over links; None where there are no columns."""
    options = checked(agreement)
    if not options.owner:
        return None
    dealer = next(name for name in agreement.holders if name != options.owner)
    return Plan(options.owner, dealer, sizes(agreement)[options.owner], options.cells, options.values)
