"""What two parties of an ECDH linkage agree on, and what follows from it: who sends what to whom, in which order."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from statfed.core.errors import UsageError
from statfed.core.linkage import Reveal
from statfed.core.method import Part
from statfed.core.privacy.noise import Noise
from statfed.core.privacy.noise import plan as noise_plan
from statfed.core.protection import Agreement
from statfed.core.section import Section
from statfed.core.terms import Privacy
from statfed.strategies.linkages._channels import MEET, OFFER

MOST = 20_000_000
"""Items of a list at most; 10 million take 2 GB of memory and a quarter of an hour of a processor."""
FIRST, SECOND, OWN, TOTAL = "first", "second", "own", "total"
"""Stages: the matcher's list, the same blinded twice, the mirror's list, the sums."""
DOING = {FIRST: "first list", SECOND: "first list, blinded twice", OWN: "second list", TOTAL: "totals"}
"""What a stage is, for people."""
SIZE = "size"


class Column(Section):
    """A column that is summed over the matched: every value is in [low, high], in units of 10^-decimals."""

    low: float
    high: float
    decimals: int = Field(default=0, ge=-6, le=6, description="places that values have: more are refused")

    @model_validator(mode="after")
    def _checked(self) -> "Column":
        if not self.low <= self.high or max(map(abs, self.units)) >= 2**47:
            raise ValueError(f"low, high: got {self.low:g}, {self.high:g}; want low <= high, below 2^47 units each")
        if any(
            unit != bound * 10.0**self.decimals for unit, bound in zip(self.units, (self.low, self.high), strict=True)
        ):
            raise ValueError(f"low, high: got {self.low:g}, {self.high:g}; want bounds of {self.decimals} decimals")
        return self

    @property
    def units(self) -> tuple[int, int]:
        """The bounds, counted in units."""
        return round(self.low * 10.0**self.decimals), round(self.high * 10.0**self.decimals)

    @property
    def bound(self) -> float:
        """Most that one unit changes a total by."""
        return max(abs(self.low), abs(self.high))


class Options(Section):
    """Options of ecdh."""

    reveal: Reveal = Field(default="size", description="what comes out: size, totals over the matched, or pairs")
    to: str = Field(description="holder at which it comes out, exact; of totals the one whose columns are summed")
    columns: dict[str, Column] = Field(default_factory=dict, description="columns that are summed, with public bounds")
    minimum: int = Field(default=10, ge=0, description="a smaller size is not told, and no totals over so few")
    privacy: Privacy | None = Field(default=None, description="noise on size and totals before they are told")
    pad_to: dict[str, int] = Field(
        default_factory=dict, description="items of each holder's list, filled up; by default its public size"
    )
    ratio: float = Field(
        default=100.0,
        ge=1,
        json_schema_extra={"weaker": "above"},
        description="most items of one list for each of the other's",
    )
    chunk: int = Field(default=2**14, ge=1, le=2**18, description="items of one message")

    @model_validator(mode="after")
    def _checked(self) -> "Options":
        if (self.reveal == "totals") != bool(self.columns):
            raise ValueError(
                f"columns: got {len(self.columns)} to reveal {self.reveal}; want them for totals, and only so"
            )
        if SIZE in self.columns:
            raise ValueError(f"columns: got one named {SIZE}; want another name")
        if self.privacy is not None:
            if self.reveal == "pairs":
                raise ValueError("privacy: got noise for pairs, which say of every unit if it matched; want none")
            if self.privacy.noise != "local" or self.privacy.unit != "record":
                raise ValueError(
                    "privacy: got another placement or unit; want local noise and records: a key is a unit"
                )
        return self


@dataclass(frozen=True)
class Plan:
    """What follows from an agreement. matcher: who compares, and so counts; mirror: the other. slots: items of each
    list; noise: of what is told, None without privacy."""

    options: Options
    matcher: str
    mirror: str
    slots: Mapping[str, int]
    noise: Noise | None

    def role(self, name: str) -> Literal["matcher", "mirror"]:
        """Raises UsageError on a name that is neither."""
        if name not in self.slots:
            raise UsageError(f"ecdh: got party {name}; want {self.matcher} or {self.mirror}")
        return "matcher" if name == self.matcher else "mirror"

    def chunks(self, name: str) -> int:
        """In how many messages a holder's list travels."""
        return math.ceil(self.slots[name] / self.options.chunk)

    def rows(self, name: str, number: int) -> int:
        """Items of the message `number`, from 0, of a holder's list."""
        return min(self.options.chunk, self.slots[name] - number * self.options.chunk)

    def moves(self) -> tuple[tuple[str, str, str, int], ...]:
        """Lists that travel, in this order: stage, who gives, who takes, messages."""
        matcher, mirror = self.matcher, self.mirror
        return (
            (FIRST, matcher, mirror, self.chunks(matcher)),
            (SECOND, mirror, matcher, self.chunks(matcher)),
            (OWN, mirror, matcher, self.chunks(mirror)),
        )

    def standing(self, stage: str, messages: int) -> tuple[str, int, int]:
        """What a stage is in words, items that have travelled in so many messages of it, and items of the list."""
        items = 1 if stage == TOTAL else self.slots[self.mirror if stage == OWN else self.matcher]
        return f"{DOING[stage]}, items", min(messages * self.options.chunk, items), items

    def script(self) -> Iterator[tuple[str, int]]:
        """The stages that a party answers, each with its number, in this order."""
        yield OFFER, 0
        yield MEET, 0
        for stage, _, _, count in self.moves():
            yield from ((stage, number) for number in range(count))
        yield TOTAL, 0


def plan_of(agreement: Agreement) -> Plan:
    """The plan of an agreement. Raises UsageError on anything but two holders with lists that can be linked."""
    options = agreement.options
    if not isinstance(options, Options):
        raise UsageError("ecdh: got options of something else; want its own")
    holders = agreement.holders
    if len(holders) != 2 or agreement.third_parties:
        raise UsageError(f"ecdh: got {len(agreement.parties)} parties; want two holders and nobody else")
    for key, names in (("to", {options.to}), ("pad_to", set(options.pad_to))):
        if not names <= set(holders):
            raise UsageError(f"{key}: got {', '.join(sorted(names))}; want of {', '.join(holders)}")
    slots = {name: options.pad_to.get(name, agreement.sizes[name]) for name in holders}
    if options.privacy and (short := sorted(name for name in holders if slots[name] < agreement.sizes[name])):
        raise UsageError(
            f"pad_to: got less than the public size of {', '.join(short)} with [privacy]; want at least that: a list "
            "that units do not fit into would tell of them"
        )
    least, most = min(slots.values()), max(slots.values())
    if least < max(1, options.minimum) or most > MOST:
        raise UsageError(
            f"pad_to: got lists of {least} and {most} items; want {max(1, options.minimum)} (minimum) to {MOST} each"
        )
    if most > options.ratio * least:
        raise UsageError(f"ratio: got lists of {least} and {most} items; want at most {options.ratio:g} for each")
    other = next(name for name in holders if name != options.to)
    matcher, mirror = (other, options.to) if options.reveal == "totals" else (options.to, other)
    return Plan(options, matcher, mirror, slots, noise_of(options))


def noise_of(options: Options) -> Noise | None:
    """The noise of what is told; None without privacy. Every holder is charged its event, for every attempt.

    One unit at either holder, with its one key, changes the size by at most 1 and a total by at most the column's
    bound: keys of a list are each there once, so that a unit matches at most one other.
    """
    if options.privacy is None:
        return None
    parts = {name: Part(bound=column.bound) for name, column in options.columns.items()}
    return noise_plan({SIZE: Part(bound=1.0, integer=True), **parts}, options.privacy)
