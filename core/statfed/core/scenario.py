"""What a reference scenario is: one module of `statfed.scenarios`, found by its place and put under common tests.

There are three kinds, told apart by what a module has:

- *statistics* (`compute`): a seeded world of tables, and the questions that are asked of them; with `MATCHED` a
  *linkage scenario*, whose holders have overlapping units that are matched first;
- *training* (`STUDY`): a study of a model, its codebook and a seeded population;
- *entry* (neither): a case of the inventory whose protocol is not built yet; it is described and compared with nothing.

The same scenario runs under every protection that applies, or every linkage where units are matched, at every release
level, with the same data and seeds.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from statfed.core.beside import beside, closed, read_as
from statfed.core.card import Card
from statfed.core.codebook import Codebook
from statfed.core.disclosure import OFF, HolderRules, Rules
from statfed.core.errors import UsageError
from statfed.core.progress import Progress
from statfed.core.records import Records, WindowCodebook
from statfed.core.result import Result
from statfed.core.section import Section
from statfed.core.study import Study

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = "statfed.scenarios"
Profile = Literal["quick", "full"]
Partitioning = Literal["horizontal", "vertical", "linkage"]


class Case(Section):
    """The facts of a case that decide which technique suits it: of a scenario, and of a user's own `case.toml`."""

    title: str = Field(default="", description="what the case is, in a few words")
    output: Literal["statistics", "model", "synthetic-data", "linkage"] = Field(
        default="statistics",
        description="what comes out: figures, a trained model, synthetic records, or matched units",
    )
    partitioning: Partitioning = Field(
        default="horizontal",
        description="horizontal: other units at each holder; vertical: other variables of the same units; linkage: "
        "overlapping units that have to be matched",
    )
    parties: int = Field(default=3, ge=1, description="organisations that hold data")
    coordinator: Literal["trusted", "honest-but-curious", "malicious"] = Field(
        default="honest-but-curious",
        description="the computing party at worst: may see inputs, follows the protocol, or does as it likes",
    )
    third_party: bool = Field(default=False, description="is there an independent party that all trust not to collude?")
    exact: bool = Field(default=False, description="have results to be exact, as official figures?")
    epsilon: float | None = Field(default=None, gt=0, description="largest total epsilon per unit, where one is set")
    sensitivity: Literal["low", "moderate", "high"] = Field(
        default="moderate", description="harm if one holder's locally computed values became known"
    )
    dominance: bool = Field(default=False, description="may one or two units dominate a figure?")
    recurrence: Literal["once", "yearly", "monthly", "continuous"] = Field(
        default="yearly", description="how often it is done; continuous is taken to be daily"
    )
    identifier: Literal["none", "common", "noisy"] = Field(
        default="none", description="is there a common identifier of units across holders, and is it exact?"
    )
    records: int = Field(default=10_000, ge=1, description="records per holder, order of magnitude")
    numbers: int = Field(default=100, ge=1, description="numbers in one sum: cells, coefficients, model parameters")
    bandwidth: float = Field(default=100.0, gt=0, description="Mbit/s of the slowest holder's line")
    latency: float = Field(default=30.0, ge=0, description="milliseconds to the coordinator and back")
    dropout: bool = Field(default=False, description="may a holder be away while the computation runs?")
    skills: Literal["basic", "intermediate", "advanced"] = Field(
        default="intermediate", description="what the weakest party can install, run and audit"
    )


@closed
@dataclass(frozen=True)
class About:
    """The public description of a scenario, which stands in the TOML file beside its module.

    roles: role to who plays it. protections: ids of statfed.strategies.protections that apply to the scenario as it
    stands, at some release level; of a linkage scenario those of statfed.strategies.linkages. gsbpm: sub-process of the
    Generic Statistical Business Process Model, version 5.1. card: organisational, business and legal questions of the
    case.
    """

    title: str
    purpose: str
    parties: str
    data: str
    partitioning: Partitioning
    protections: tuple[str, ...]
    source: str
    gsbpm: str
    roles: Mapping[str, str]
    case: Case
    card: Card


def read_about(module: str) -> About:
    """The description in the TOML file beside a scenario's module. module: its `__file__`.

    Raises UsageError naming the file and the key, what was got and what is wanted.
    """
    return read_as(beside(module), About, "fields of About, Case and Question only")


@dataclass(frozen=True)
class Level:
    """How a release keeps single units hidden. privacy: fields of a `[privacy]` table, budget over the whole scenario;
    disclosure: rules of statistical disclosure control for every release of statistics; study: fields of a training
    study that go with it, over the scenario's own (shared noise trains with dp-fedsgd unless they say otherwise);
    rules: what the simulated holders allow, everything or what that template of a policy does."""

    id: str
    title: str
    privacy: Mapping[str, Any] | None = None
    disclosure: Rules = OFF
    study: Mapping[str, Any] = field(default_factory=dict)
    rules: HolderRules = "none"

    def under(self, rules: HolderRules) -> "Level":
        """The same release of holders whose policies follow a template; its id says so."""
        if rules == "none":
            return self
        return replace(self, id=f"{self.id}, {rules}", title=f"{self.title}; holders' rules: {rules}", rules=rules)


EXACT = Level("exact", "no noise, no suppression")


def private(
    epsilon: float,
    noise: Literal["local", "central", "shared"] = "local",
    *,
    study: Mapping[str, Any] | None = None,
    **more: Any,
) -> Level:
    """Differential privacy of this total epsilon per unit. more: further fields of the `[privacy]` table."""
    words = {"local": "each holder all", "central": "the coordinator", "shared": "the holders together"}
    suffix = "" if noise == "local" else f"-{noise}"
    return Level(
        f"epsilon-{epsilon:g}{suffix}",
        f"epsilon {epsilon:g}, noise from {words[noise]}",
        {"epsilon": epsilon, "noise": noise} | more,
        study=study or {},
    )


@dataclass(frozen=True)
class Figure:
    """One figure that comes out. value: None where it was suppressed; low, high: its 95 % interval, if it has one."""

    value: float | None
    low: float | None = None
    high: float | None = None


Figures = Mapping[str, Figure]
Reference = Mapping[str, float]


@dataclass(frozen=True)
class Success:
    """When a scenario's purpose is reached: `measure(figures, pooled)`, smaller is better, is at most `tolerance`.

    title: what the measure is, in words and units, for tables and plots.
    """

    title: str
    measure: Callable[[Figures, Reference], float]
    tolerance: float


@dataclass(frozen=True)
class World:
    """A drawn test world of tables.

    holders: what each holds, private. public: everything the analyst knows beside the codebook (names of areas,
    distances, population counts). truth: parameters of the population that samples were drawn from, by figure, where
    intervals can be checked against it; empty where the holders have the whole population.
    """

    holders: Mapping[str, "pd.DataFrame"]
    codebook: Codebook
    origin: str
    synthetic: bool = True
    public: Mapping[str, Any] = field(default_factory=dict)
    truth: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Matching:
    """How the units of a linkage scenario are matched; all of it is public.

    key, block, salt: as of `statfed.core.linkage.Linking`; block and salt are for linkages that compare the parts of a
    key, and left out under others. minimum_frequency: fewest matched units that a figure is about, where the release
    level does not ask for more. estimate: what is corrected for linkage errors, as of `Linking`, where a linkage that
    cannot is refused. options: by linkage, its own further options. guesses: of the world's public facts, the
    identifiers that an attacker would try, each of 8 characters or more; None where keys cannot be listed.
    """

    key: str
    block: str = ""
    salt: str = ""
    minimum_frequency: int = 1
    estimate: Literal["none", "total", "coverage"] = "none"
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    guesses: Callable[[Mapping[str, Any]], Iterable[str]] | None = None


class Ask(Protocol):
    """Asks one analysis of all holders, under the protection and at the level that is being compared."""

    @property
    def level(self) -> Level:
        """How everything that is asked is released: the terms of the release, which are public before it."""
        ...

    def __call__(self, analysis: str, *, share: float = 1.0, where: str | Sequence[str] = (), **options: Any) -> Result:
        """share: part of the level's privacy budget that this question takes, in the inverse variance of its noise; all
        shares together are at most 1, and compose to the level's epsilon."""
        ...

    def gives(self, analysis: str) -> bool:
        """Can the technique work this analysis out? Every protection can; a linkage those that it says, and `count`,
        which is the number of matched units. What it cannot is a figure that is not released."""
        ...


class Statistics(Protocol):
    """The module contract of a statistics scenario.

    LEVELS: release levels to compare, EXACT first where the case allows exact figures. `world` draws the holders'
    tables; the same profile and seed give the same world. `compute` is all that the parties and the analyst do: it
    sees released results and public facts, never `World.holders`. `pooled` computes the same figures by an independent
    library from all holders' records together: the reference that no pilot has.

    A linkage scenario also has `MATCHED: Matching`. Its techniques are the linkages. A holder's table has the columns
    of the key and its own, the world's codebook those of all. `ask("count")` is the number of matched units; any other
    analysis is over the matched, of columns of one holder each. Noise of a level is the linkage's own, and a minimum
    frequency of its rules holds for the matched. `pooled` computes from the plain join. No holder finds anything alone.
    """

    ABOUT: About
    LEVELS: Sequence[Level]
    SUCCESS: Success

    def world(self, profile: Profile, seed: int) -> World: ...

    def compute(self, ask: Ask, public: Mapping[str, Any]) -> Figures: ...

    def pooled(self, world: World) -> Reference: ...


@dataclass(frozen=True)
class Population:
    """The simulated world of a training scenario: who holds what, and the held-out records that results are measured
    on."""

    holders: Mapping[str, Records]
    test: Records
    synthetic: bool
    origin: str  # one line for every output: which data, which version or seed
    warnings: tuple[str, ...] = ()


class Training(Protocol):
    """The module contract of a training scenario.

    `STUDY` is the default study as a mapping; options of `[data]` are validated here. `CODEBOOK` is that of the
    default study, `codebook(study)` that of the data which the study asks for. Both functions raise UsageError naming
    the key when `study.data` is not valid. `study(profile, seed)` is the study that is compared. A module may have
    `measures(probabilities, labels)`: more figures of a model on the held-out records, beside accuracy and macro_f1;
    probabilities: (records, classes), labels: (records,).
    """

    ABOUT: About
    STUDY: Mapping[str, Any]
    CODEBOOK: WindowCodebook
    LEVELS: Sequence[Level]
    SUCCESS: Success

    def study(self, profile: Profile, seed: int) -> Mapping[str, Any]: ...

    def codebook(self, study: Study) -> WindowCodebook: ...

    def population(self, study: Study, progress: Progress) -> Population: ...


def matching_of(module: object) -> Matching | None:
    """How a scenario's units are matched; None where they are not."""
    return getattr(module, "MATCHED", None)


Kind = Literal["statistics", "training", "entry"]


def kind_of(module: object) -> Kind:
    """Which contract a scenario's module follows."""
    return "statistics" if hasattr(module, "compute") else "training" if hasattr(module, "STUDY") else "entry"


def load_training(name: str) -> Any:
    """The module of a training scenario. Raises UsageError for others, saying what they are run with."""
    from statfed.core.discovery import load

    module = load(PACKAGE, name, "scenario")
    kind = kind_of(module)
    if kind == "training":
        return module
    command = f"statfed compare {name}" if kind == "statistics" else f"statfed scenarios show {name}"
    what = "asks questions of tables and trains no model" if kind == "statistics" else "is an entry of the inventory"
    raise UsageError(f"scenario: got {name}, which {what}; want `{command}`")
