"""A weighted average of model arrays and metrics over holders, as one protected sum, with weights that stay secret.

Every holder contributes `weight`, weight times each array and weight times each metric; the coordinator divides the
total by the total weight. So neither a holder's weight (its number of examples) nor a metric of it is seen alone.
Both ends make the same agreement and the same layout from `Facts`, which travel with every message: nothing that a
holder's data decide is in them. The facts' digest stands for the study in the agreement, so that every signature and
key of a protection is bound to all of them.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from statfed.core import VERSION
from statfed.core.errors import EngineError, Refused, UsageError
from statfed.core.fixed_point import Layout, Slot
from statfed.core.method import Arrays
from statfed.core.protection import Agreement, agreement_over, check_minimum, named_protection
from statfed.core.section import NAME, Section, describe
from statfed.core.statement import understood

Kind = Literal["train", "evaluate"]
_SLACK = 1 + 2.0**-20  # rounding in weight * value and in a holder's share never refuses a value that is within limits


class Facts(Section):
    """What all parties of a sum agree on. All of it is public.

    parties: by name, the token that the party drew when it joined the run. It is fresh at every start of a party, so
    that no agreement of an earlier start can come back; third parties are among them. session: number of this
    agreement in the run. arrays: shapes by name. Limits are largest absolute values.
    """

    run: int = Field(ge=0)
    session: int = Field(ge=1)
    protection: str
    options: dict[str, Any] = Field(default={})
    holders: tuple[str, ...] = Field(min_length=1, description="sorted")
    parties: dict[str, str]
    minimum_holders: int = Field(ge=1, description="a sum over fewer is never formed")
    weight: str = Field(default="num-examples", description="metric that weighs a holder's reply: a whole number")
    most_examples: int = Field(ge=1, le=2**40, description="largest weight of one holder")
    limit: float = Field(gt=0, description="of an entry of an array")
    narrow: bool = Field(default=False, description="32-bit words where they do")
    arrays: dict[str, tuple[int, ...]] = Field(default={}, description="shape by name")
    train_metrics: dict[str, float] = Field(default={}, description="limit by name")
    evaluate_metrics: dict[str, float] = Field(default={}, description="limit by name")

    @model_validator(mode="after")
    def _check(self) -> "Facts":
        if list(self.holders) != sorted(set(self.holders)):
            raise ValueError("holders: got repeated or unsorted names; want each once, in order")
        if not set(self.holders) <= set(self.parties):
            raise ValueError("parties: got holders without a token; want one of each")
        if bad := sorted(name for name in self.parties if not NAME.fullmatch(name)):
            raise ValueError(f"parties: got {bad[0]!r}; want lower-case letters, digits and hyphens, 40 at most")
        for name, limit in (self.train_metrics | self.evaluate_metrics).items():
            if not limit > 0 or name == self.weight:
                raise ValueError(f"metrics: got {name} with limit {limit:g}; want a limit above 0, and no weight")
        return self

    def metrics(self, kind: Kind) -> Mapping[str, float]:
        """Limit by metric that a sum of this kind averages."""
        return self.train_metrics if kind == "train" else self.evaluate_metrics


class Said(Section):
    """What the coordinator says with one message. `hello` asks a party for its name and token; `admit` if it would
    take part; `stage` carries a stage of the protection; `contribute` asks for the contribution to sum `number`."""

    version: str = VERSION
    step: Literal["hello", "admit", "stage", "contribute"]
    kind: Kind = "train"
    stage: str = ""
    number: int = Field(default=0, ge=0)
    facts: Facts | None = None

    @classmethod
    def parse(cls, text: str) -> "Said":
        """Read one from the wire. Raises Refused on another version or anything not understood."""
        return understood(cls, text, VERSION, "party")


class Joined(Section):
    """A party's answer to `hello`. token: drawn when its process first heard of the run; session: its latest one."""

    name: str = Field(pattern=f"^{NAME.pattern}$")
    token: str = Field(max_length=80, pattern="^[ -~]*$")
    session: int = Field(default=0, ge=0, le=2**53)


def make_facts(**values: Any) -> Facts:
    """Validated facts. Raises UsageError naming what was got and what is wanted."""
    try:
        return Facts(**values)
    except ValidationError as error:
        raise UsageError(describe(error, "protected average", f"one of {', '.join(Facts.model_fields)}")) from None


def agreement_of(facts: Facts) -> Agreement:
    """The agreement of a session, the same at every party.

    Sizes are the public bound `most_examples`, alike for all. Raises UsageError when the protection does not apply.
    """
    module, options = named_protection(facts.protection, facts.options)
    count, name, requires = len(facts.holders), facts.protection, module.REQUIRES
    sizes = dict.fromkeys(facts.holders, facts.most_examples)
    study = hashlib.sha256(json.dumps(facts.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    run = f"flower/{facts.run}/{facts.session}"
    agreement = agreement_over(sizes, run, study, name, options, facts.minimum_holders)
    if sorted(facts.parties) != sorted(agreement.parties):
        wanted = ", ".join(agreement.parties)
        raise UsageError(f"parties: got {', '.join(sorted(facts.parties))}; want {wanted}, each once")
    if count < requires.minimum_holders:
        raise UsageError(
            f"protection {name}: got {count} holders, and each could subtract its own part from an exact total; "
            f"want at least {requires.minimum_holders}"
        )
    check_minimum(facts.minimum_holders, count, name, requires, "minimum_holders")
    return agreement


def layout_of(facts: Facts, kind: Kind) -> Layout:
    """The layout of totals: slots `weight`, `metric/NAME`, and in training `array/NAME`."""
    most = len(facts.holders) * facts.most_examples * _SLACK
    slots = {"weight": Slot((), most, integer=True)}
    slots |= {f"metric/{name}": Slot((), most * limit) for name, limit in facts.metrics(kind).items()}
    if kind == "train":
        slots |= {f"array/{name}": Slot(shape, most * facts.limit) for name, shape in facts.arrays.items()}
    return Layout(slots, len(facts.holders), narrow=facts.narrow)


def contribution(facts: Facts, kind: Kind, arrays: Arrays, metrics: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """A holder's contribution. arrays, metrics: private, the weight among the metrics.

    Raises Refused, in words that may travel, on other names or shapes than agreed, on values that are not finite and
    on those outside the limits.
    """
    limits = facts.metrics(kind)
    _same("metrics", set(metrics), {*limits, facts.weight})
    found = {name: _number(name, value) for name, value in metrics.items()}
    weight = found.pop(facts.weight)
    if not weight.is_integer() or not 0 <= weight <= facts.most_examples:
        raise Refused(f"{facts.weight}: got a weight that is no whole number from 0 to {facts.most_examples}")
    parts: dict[str, NDArray[Any]] = {"weight": np.asarray(int(weight), np.int64)}
    for name, value in found.items():
        _within(name, np.asarray(value), limits[name])
        parts[f"metric/{name}"] = np.asarray(weight * value)
    if kind == "evaluate":
        return parts
    _same("arrays", set(arrays), set(facts.arrays))
    for name, shape in facts.arrays.items():
        array = np.asarray(arrays[name])
        if array.shape != shape or array.dtype.kind not in "fiub":
            raise Refused(f"arrays: {name}: got another shape or type; want real numbers of shape {shape}")
        wide = array.astype(np.float64)
        _within(name, wide, facts.limit)
        parts[f"array/{name}"] = np.multiply(wide, weight, out=wide)
    return parts


def averages(facts: Facts, kind: Kind, total: Arrays) -> tuple[int, dict[str, NDArray[np.float64]], dict[str, float]]:
    """Total weight, average arrays and average metrics. Raises EngineError when no holder had an example."""
    weight = int(total["weight"])
    if weight <= 0:
        raise EngineError(f"{facts.weight}: got none from all holders together; want at least one")
    arrays = {name: np.asarray(total[f"array/{name}"]) / weight for name in facts.arrays} if kind == "train" else {}
    return weight, arrays, {name: float(total[f"metric/{name}"]) / weight for name in facts.metrics(kind)}


def _same(what: str, got: set[str], wanted: set[str]) -> None:
    if got != wanted:  # a name that was not agreed may come from the data: it is counted, and does not travel
        raise Refused(
            f"{what}: got {len(got - wanted)} that were not declared and {len(wanted & got)} that were; "
            f"want {', '.join(sorted(wanted)) or 'none'}, as the coordinator declared them"
        )


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refused(f"metrics: {name}: got {type(value).__name__}; want one number")
    return float(value)


def _within(name: str, values: NDArray[Any], limit: float) -> None:
    largest = float(np.abs(values).max(initial=0.0))
    if not math.isfinite(largest):
        raise Refused(f"{name}: got values that are not finite")
    if largest > limit:
        raise Refused(f"{name}: got a value outside the agreed limit of {limit:g} in absolute value")
