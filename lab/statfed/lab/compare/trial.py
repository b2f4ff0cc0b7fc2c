"""What is compared, and what one trial of it gave: the rows of the store."""

import hashlib
import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from statfed.core import VERSION
from statfed.core.discovery import LINKAGES, origin
from statfed.core.protection import PACKAGE as PROTECTIONS
from statfed.core.protection import Disclosure
from statfed.core.scenario import PACKAGE as SCENARIOS
from statfed.core.scenario import Figure, Figures, Level, Profile, Reference, Success

Status = Literal["done", "not-applicable", "failed"]


@dataclass(frozen=True)
class Technique:
    """A protection, or a linkage in its place, with its options at a release level."""

    protection: str
    level: Level
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Short name for tables: `secure-aggregation, epsilon-1`."""
        options = "".join(f", {key} {value}" for key, value in sorted(self.options.items()))
        return f"{self.protection}{options}, {self.level.id}"


@dataclass(frozen=True)
class Cell:
    """One place in the comparison: a scenario of a size, a technique, a seed. seed draws world and noise."""

    scenario: str
    profile: Profile
    technique: Technique
    seed: int

    def key(self) -> str:
        """Names the cell in the store: same key, same question to the same version, of plugins too."""
        level = self.technique.level
        name = self.technique.protection
        brought = [origin(PROTECTIONS, name) or origin(LINKAGES, name), origin(SCENARIOS, self.scenario)]
        facts = [VERSION, self.scenario, self.profile, self.seed, self.technique.protection]
        facts += [dict(self.technique.options), level.id, level.privacy, level.study, level.disclosure.model_dump()]
        facts += brought if any(brought) else []
        facts += [level.rules] if level.rules != "none" else []
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Role:
    """What one party took. processor: seconds; bytes of arrays and packets that came and went; messages answered."""

    role: str
    party: str
    processor: float
    received: int
    sent: int
    messages: int


@dataclass
class Trial:
    """What one cell gave. Figures of accuracy are None where nothing came out.

    error: the scenario's success measure against the pooled reference; local: the same, mean over holders that compute
    alone; bias: median signed error relative to the pooled figure; coverage: share of 95 % intervals that hold the
    population's true value; suppressed: share of figures that were not released. epsilon: largest composed epsilon of
    any holder; None when a release is not differentially private. memory_mib: peak above what the process held
    before. measures: more figures, by name (leakage, dropout, violations, modelled time on lines).
    """

    cell: Cell
    status: Status
    reason: str = ""
    error: float | None = None
    tolerance: float | None = None
    reached: bool | None = None
    local: float | None = None
    bias: float | None = None
    coverage: float | None = None
    suppressed: float | None = None
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    disclosures: int = 0
    wall: float = 0.0
    processor: float = 0.0
    memory_mib: float | None = None
    stages: int = 0
    figures: Figures = field(default_factory=dict)
    reference: Reference = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)
    roles: tuple[Role, ...] = ()
    learns: tuple[Disclosure, ...] = ()

    @property
    def sent(self) -> int:
        """Bytes that holders sent."""
        return sum(role.sent for role in self.roles if role.role == "holder")

    def row(self) -> dict[str, Any]:
        """The trial's row of the table `trials`."""
        technique, level = self.cell.technique, self.cell.technique.level
        shown = {
            "key": self.cell.key(),
            "scenario": self.cell.scenario,
            "profile": self.cell.profile,
            "protection": technique.protection,
            "options": json.dumps(dict(technique.options), sort_keys=True),
            "level": level.id,
            "seed": self.cell.seed,
            "version": VERSION,
        }
        parts = ("cell", "figures", "reference", "measures", "roles", "learns")
        flat = {name: value for name, value in vars(self).items() if name not in parts}
        return shown | flat

    def details(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of the tables beside `trials`, each with the trial's key."""
        key = {"key": self.cell.key()}
        figures = [
            key | {"figure": name, "pooled": self.reference.get(name)} | asdict(figure)
            for name, figure in self.figures.items()
        ]
        return {
            "figures": figures,
            "measures": [key | {"name": name, "value": value} for name, value in sorted(self.measures.items())],
            "roles": [key | asdict(role) for role in self.roles],
            "learns": [key | asdict(row) for row in self.learns],
        }


def compared(trial: Trial, figures: Figures, reference: Reference, truth: Reference, success: Success) -> None:
    """Fill a trial's figures of accuracy in."""
    trial.figures, trial.reference = figures, reference
    trial.error, trial.tolerance = float(success.measure(figures, reference)), success.tolerance
    trial.reached = bool(trial.error <= success.tolerance)  # not a number is not reached
    shown = {name: figure.value for name, figure in figures.items() if figure.value is not None}
    trial.suppressed = 1.0 - len(shown) / len(figures) if figures else None
    signed = [(value - reference[name]) / abs(reference[name]) for name, value in shown.items() if reference.get(name)]
    trial.bias = statistics.median(signed) if signed else None
    trial.coverage = _coverage(figures, truth)


def _coverage(figures: Figures, truth: Reference) -> float | None:
    def holds(figure: Figure, value: float) -> bool:
        return figure.low is not None and figure.high is not None and figure.low <= value <= figure.high

    judged = [
        holds(figures[name], value)
        for name, value in truth.items()
        if name in figures and figures[name].low is not None
    ]
    return sum(judged) / len(judged) if judged else None
