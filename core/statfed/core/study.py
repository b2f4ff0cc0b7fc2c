"""A study: what is computed, with whom, under which protection and privacy. One TOML file, validated here.

`Study` holds all that a run needs. `Study.terms()` is the part that holders are asked to agree to: it travels in
every statement, and its digest names the study in their ledgers.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from statfed.core.errors import UsageError
from statfed.core.records import WindowCodebook

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
Unit = Literal["record", "person"]
Strategies = Literal[
    "fedavg",
    "fedprox",
    "fedavgm",
    "fedadam",
    "fedyogi",
    "fedadagrad",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
    "multikrum",
    "bulyan",
]
ROBUST: tuple[Strategies, ...] = ("fedmedian", "fedtrimmedavg", "krum", "multikrum", "bulyan")
"""Strategies that look at single updates, so that a few wrong ones do no harm."""


class Section(BaseModel):
    """A table of the study file: immutable, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class Model(Section):
    """The model that is trained."""

    name: str = Field(default="mlp", description="a file of statfed.strategies.models")
    hidden: int = Field(default=64, ge=1, le=4096, description="width of the hidden layer (mlp) or channels (cnn)")


class Training(Section):
    """What a holder does in one round."""

    method: Literal["local-sgd", "dp-fedsgd"] = Field(
        default="local-sgd",
        description="local-sgd: each holder trains by itself for a round; dp-fedsgd: a round is one step of gradient "
        "descent on the noisy sum of all holders' clipped gradients",
    )
    sampling_rate: float = Field(
        default=1.0, gt=0, le=1, description="dp-fedsgd: probability with which each unit is in a step; 1: all units"
    )
    local_epochs: int = Field(default=1, ge=1, le=100, description="local-sgd: passes over the holder's data per round")
    batch_size: int = Field(
        default=64, ge=1, description="local-sgd: records per step; expected persons per step for the person unit"
    )
    learning_rate: float = Field(default=0.1, gt=0, le=100)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    update_norm: float = Field(
        default=16.0,
        gt=0,
        le=1e6,
        description="L2 bound on one holder's update under protections that hide it; a longer one is scaled down",
    )


class Strategy(Section):
    """How the coordinator turns updates into the next model: Flower's own strategies."""

    name: Strategies = "fedavg"
    server_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="step of the server optimiser; default 1 for fedavgm, 0.1 for the adaptive three",
    )
    server_momentum: float = Field(default=0.9, ge=0, lt=1, description="fedavgm; beta_1 of fedadam and fedyogi")
    tau: float = Field(default=1e-3, gt=0, description="adaptivity floor of fedadam, fedyogi, fedadagrad")
    proximal_mu: float = Field(default=0.01, ge=0, description="weight of fedprox's proximal term")
    num_malicious: int = Field(
        default=1, ge=1, description="holders f that may send anything: krum and multikrum need 2f + 3, bulyan 4f + 3"
    )
    trim_fraction: float = Field(
        default=0.2, gt=0, lt=0.5, description="fedtrimmedavg: share of the holders cut off at each end, rounded down"
    )
    nodes_to_keep: int | None = Field(
        default=None, ge=1, description="multikrum: updates that are averaged, at most and by default n - f - 2"
    )


class Privacy(Section):
    """Differential privacy of the training, per holder, composed over all rounds."""

    unit: Unit = Field(default="record", description="who is protected: one record, or all records of one person")
    neighbouring: Literal["add-remove"] = Field(default="add-remove", description="neighbouring relation")
    epsilon: float = Field(gt=0, le=1000, description="target over all rounds of this study")
    delta: float = Field(default=1e-5, gt=0, lt=0.5)
    clipping_norm: float = Field(default=1.0, gt=0, description="L2 bound on one unit's gradient")
    max_records_per_unit: int = Field(default=256, ge=1, description="records used of one person in one step")
    noise: Literal["local", "central", "shared"] = Field(
        default="local",
        description="who adds noise: local, each holder all of it; shared, each holder a part, for dp-fedsgd under a "
        "protection that shows sums only; central, nobody: not for training",
    )
    colluders: int = Field(
        default=0,
        ge=0,
        description="shared noise: holders that may pool what they know, the noise they added included; 1 by default "
        "there",
    )

    @model_validator(mode="before")
    @classmethod
    def _own_share(cls, given: Any) -> Any:
        """Every holder knows its own share of the noise, so one colluder is the least that shared noise should bear."""
        shared = isinstance(given, dict) and given.get("noise") == "shared"
        return {"colluders": 1} | given if shared else given

    @model_validator(mode="after")
    def _fits(self) -> "Privacy":
        if self.noise != "shared" and self.colluders:
            raise ValueError(f"colluders: got {self.colluders} for {self.noise} noise; want them for shared noise only")
        return self


class Protection(Section):
    """How the sum over holders is formed."""

    name: str = Field(default="plain", description="a file of statfed.strategies.protections")
    minimum_holders: int | None = Field(
        default=None,
        ge=1,
        description="fewest holders that a sum may be formed over, where the protection survives dropout; default: "
        "every holder for statistics, more than two thirds for training",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="that protection's options")


class Simulation(Section):
    """What the simulated holders' policies say. A pilot's holders write their own."""

    lifetime_epsilon: float = Field(default=20.0, gt=0, description="budget of each simulated holder's dataset")
    lifetime_delta: float = Field(default=1e-5, gt=0, lt=0.5)
    minimum_records: int = Field(default=10, ge=1)
    allow_without_privacy: bool = Field(default=True, description="may a model trained without noise leave?")


class Study(Section):
    """A validated study file."""

    scenario: str = Field(description="a file of statfed.scenarios")
    title: str = ""
    holders: Annotated[tuple[str, ...], Field(min_length=1, max_length=10_000)] = (
        "office-1",
        "office-2",
        "office-3",
        "office-4",
    )
    rounds: int = Field(default=10, ge=1, le=10_000)
    engine: Literal["inprocess", "processes", "ray"] = "inprocess"
    seed: int = Field(default=1, ge=0, lt=2**63, description="simulation only: everything random follows from it")
    timeout: float = Field(default=600.0, gt=0, description="seconds that one round may take")
    start: str | None = Field(
        default=None, description="initial model: an earlier run, by name, or the path of a model.npz; default: by seed"
    )
    data: dict[str, Any] = Field(default_factory=dict, description="options of the scenario's data")
    model: Model = Model()
    training: Training = Training()
    strategy: Strategy = Strategy()
    privacy: Privacy | None = None
    protection: Protection = Protection()
    simulation: Simulation = Simulation()

    @field_validator("holders", mode="before")
    @classmethod
    def _holders(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return tuple(f"office-{i + 1}" for i in range(value))
        return value

    @model_validator(mode="after")
    def _names(self) -> "Study":
        twice = sorted({n for n in self.holders if self.holders.count(n) > 1})
        if twice:
            raise ValueError(f"holders: duplicate name: got {', '.join(twice)} more than once; want each holder once")
        for name in self.holders:
            if not NAME.fullmatch(name):
                raise ValueError(f"holders: got {name!r}; want lower-case letters, digits and hyphens, 40 at most")
        return self

    def terms(self, codebook: WindowCodebook) -> "Terms":
        """What holders agree to. Data options stay out: each holder has its own data."""
        mine = {name: getattr(self, name) for name in Terms.model_fields if name != "codebook"}
        return Terms(codebook=codebook, **mine)

    def canonical(self) -> str:
        """One JSON text per study, key order fixed."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def replace(self, **changes: Any) -> "Study":
        """A validated copy with some top-level fields replaced."""
        return Study.model_validate(self.model_dump() | changes)


class Terms(Section):
    """The part of a study that a holder rebuilds its computation from and agrees to."""

    scenario: str
    codebook: WindowCodebook
    holders: tuple[str, ...]
    rounds: int = Field(ge=1)
    seed: int | None = Field(description="None in a pilot: the holder then draws from its operating system")
    model: Model
    training: Training
    strategy: Strategy
    privacy: Privacy | None
    protection: Protection

    def digest(self) -> str:
        """SHA-256 of the canonical JSON: the study's name in every ledger."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_study(source: Path, overrides: Sequence[str] = ()) -> Study:
    """Read and validate a study file; `overrides` are `key.path=value` (TOML values, bare words are strings).

    Raises UsageError naming the key, what was got and what is allowed.
    """
    return make_study(read_toml(source, "study"), overrides, where=str(source))


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table in a TOML file. Raises UsageError when there is none or it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{what} file not found: {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path}: not a readable TOML file: {error}") from None


def make_study(table: Mapping[str, Any], overrides: Sequence[str] = (), where: str = "study") -> Study:
    """Validate a study given as a mapping, after applying `key.path=value` overrides."""
    merged: dict[str, Any] = json.loads(json.dumps(table, default=str))
    for override in overrides:
        apply_override(merged, override)
    try:
        return Study.model_validate(merged)
    except ValidationError as error:
        raise UsageError(describe(error, where, "only keys listed in docs/study.md")) from None


def describe(error: ValidationError, where: str, known: str) -> str:
    """A validation error as lines of `where: key: got ...; want ...`. known: what is wanted instead of unknown keys."""
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        subject = f"{where}: {key}" if key else where
        got = item.get("input")
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):  # of a model, of a dataclass
            lines.append(f"{subject}: unknown key; want {known}")
        elif item["type"] == "missing":
            lines.append(f"{subject}: missing; want a value")
        elif item["type"] == "value_error":
            lines.append(f"{subject}: {item['msg'].removeprefix('Value error, ')}")
        else:
            want = item["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            lines.append(f"{subject}: got {got!r}; want {want}")
    return "\n".join(lines)


def apply_override(table: dict[str, Any], override: str) -> None:
    """Set one `key.path=value` in `table`."""
    path, sign, text = override.partition("=")
    keys = path.strip().split(".")
    if not sign or not all(keys):
        raise UsageError(f"--set: got {override!r}; want key=value")
    try:
        value: Any = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = {"none": None, "None": None}.get(text.strip(), text.strip())
    here = table
    for key in keys[:-1]:
        below = here.get(key)
        if below is None:
            below = here[key] = {}
        if not isinstance(below, dict):
            raise UsageError(f"--set: {path}: {key} is a value, not a table")
        here = below
    here[keys[-1]] = value
