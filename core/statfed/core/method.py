"""What a method is: two halves in one file, and nothing else to register. Statistics and training alike.

`coordinate` is a straight line of protected sums: `total = yield Ask("moments")`; what it returns is the `Result`.
`contribute` is the holder's half of one ask: arrays that are *additive over records*, so that their sum over holders
is what one holder with all records would have sent. `parts` says in public what those arrays look like, what they are,
and how much one record can change them; noise, fixed point, disclosure control and checks follow from it at both ends.

Laws, which tests put every method under: contributions add up over any split of the records; an empty holder
contributes zeros; no entry changes by more than its bound when one record is added; both ends compute the same parts;
nothing leaves that the holder's rules, read against what the parts say they are, should have stopped.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.codebook import Codebook
from statfed.core.conditions import columns_of
from statfed.core.discovery import load, modules
from statfed.core.errors import EngineError, UsageError
from statfed.core.names import one_of
from statfed.core.result import Result
from statfed.core.section import Section, describe
from statfed.core.table import Size, Table
from statfed.core.terms import Privacy, Terms

ANALYSES, TRAINING = "statfed.strategies.analyses", "statfed.strategies.training"
PACKAGES = (ANALYSES, TRAINING)
"""Where methods are found."""
Arrays = Mapping[str, NDArray[Any]]
O_co = TypeVar("O_co", bound=Section, covariant=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One request for a sum: its name and public parameters (float64, float32 or int64 arrays).

    share: of the study's privacy budget, what this ask spends, where the method's budget is `Adaptive`. state: public
    arrays from which `coordinate(question, state)` goes on at this ask; an interrupted run of a method that gives none
    begins anew.
    """

    name: str
    arrays: Arrays = field(default_factory=dict)
    share: float = 0.0
    state: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """Numbers of records, one cell an entry. by: columns of the cells, for people.

    units: they are numbers of sampling units or of enterprises, not of records. beside: part of numbers of records that
    this one is only told beside, to say how many were left out or miss a value: where those are too few, a holder with
    rules does not count them. sides: the last axis has the numbers on both sides of an edge: where those on one side
    are too few, a holder with rules counts them on the other.
    """

    by: tuple[str, ...] = ()
    units: bool = False
    beside: str = ""
    sides: bool = False


@dataclass(frozen=True)
class Magnitude:
    """Sums of values over records. counts: the part of the same ask that says how many records are behind each entry;
    empty where `discloses` of the ask does, by the cells it names."""

    counts: str = ""


@dataclass(frozen=True)
class Product:
    """Sums over the records of a model: cross products, scores, information, deviance."""


@dataclass(frozen=True)
class Update:
    """What came of training at a holder: a model, or a change of one. Additive over holders only, not over records."""


@dataclass(frozen=True)
class Public:
    """The same whatever the data are."""


What = Counts | Magnitude | Product | Update | Public


@dataclass(frozen=True)
class Part:
    """Public facts of one array of a contribution.

    bound: no single record contributes more than this, in absolute value, to an entry (one number, or one per entry in
    `shape`); infinite where the codebook gives no bounds, and then there is neither fixed point nor noise. integer:
    entries are whole numbers (int64), summed exactly. single: a record contributes to at most one entry of the array,
    as to the cells of a table. together: most that a record's contributions to all entries, each over its bound, come
    to in L1 and in L2 norm, where that is known; of sums that are no whole numbers. share: the part's share of the
    privacy budget (of rho for Gaussian noise, of epsilon for Laplace noise), relative to its siblings'. what: what the
    numbers are; a part that does not say it leaves no holder whose rules are switched on. single_precision: entries
    travel as float32.
    """

    shape: tuple[int, ...] = ()
    bound: float | NDArray[np.float64] = math.inf
    integer: bool = False
    single: bool = False
    together: tuple[float, float] | None = None
    share: float = 1.0
    what: What | None = None
    single_precision: bool = False


@dataclass(frozen=True)
class Cells:
    """The contribution is a table: one cell per combination of the levels of `by`, over records complete in `by` and
    `complete`. values: columns that are summed in it, none for counts; dominance rules look at each. together: where it
    is several tables, the most columns of `by` that one of them has; None: all, it is one table. It says how large a
    table is, and nothing else: rules look at all of `by`."""

    by: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()
    together: int | None = None


@dataclass(frozen=True)
class Model:
    """The contribution belongs to a model with this many parameters, over records complete in `complete`. marked: the
    further columns that it is about, whose missing values it has a place for."""

    parameters: int
    complete: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scheduled:
    """An ask of a fixed budget: its name, how often it is made, and its share of the budget, all times together."""

    name: str
    times: int = 1
    share: float = 1.0


@dataclass(frozen=True)
class Fixed:
    """A private run makes these asks in this order, whatever the totals are. Composed as tightly as the accountant
    can; shares add up to at most 1."""

    asks: tuple[Scheduled, ...]

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the asks, one for each time."""
        return tuple(ask.name for ask in self.asks for _ in range(ask.times))


@dataclass(frozen=True)
class Adaptive:
    """A private run chooses its asks, their parameters and their shares on seeing totals. most: asks at most.

    Shares are of rho for Gaussian noise, of epsilon for Laplace noise: what a filter may add up (see
    `statfed.core.privacy.spending`).
    """

    most: int = 1000


Budget = Fixed | Adaptive


def fixed(name: str, times: int = 1) -> Fixed:
    """The budget of a method whose private run makes one ask, so many times."""
    return Fixed((Scheduled(name, times),))


class Total(Mapping[str, NDArray[Any]]):
    """The sum over holders, by part.

    noise: standard deviation of the noise in each part, 0 without privacy. each: single contributions by holder, where
    the protection shows them; `looked` is set once they were read. sizes: public sizes of all holders of the run.
    resolution: what the encoding of each part may have taken from its entries or added to them, at most; 0 where
    contributions travel as they are.
    """

    looked = False

    def __init__(
        self,
        arrays: Arrays,
        noise: Mapping[str, NDArray[np.float64]] | None = None,
        each: Mapping[str, Arrays] | None = None,
        sizes: Mapping[str, Size] | None = None,
        holders: tuple[str, ...] = (),
        resolution: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        self._arrays = dict(arrays)
        self.noise = _like(arrays, noise)
        self.resolution = _like(arrays, resolution)
        self._each = dict(each or {})
        self.sizes = dict(sizes or {})
        self.holders = holders

    @property
    def each(self) -> dict[str, Arrays]:
        self.looked = self.looked or bool(self._each)
        return self._each

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def _like(arrays: Arrays, given: Mapping[str, NDArray[np.float64]] | None) -> dict[str, NDArray[np.float64]]:
    """What is given of arrays by name, 0 of the others."""
    return {name: (given or {}).get(name, np.zeros(np.shape(array))) for name, array in arrays.items()}


@dataclass(frozen=True, eq=False)
class Question(Generic[O_co]):
    """A study with its method's options read: what both halves get.

    codebook: of the table that is looked at; at the coordinator the study's. reveals: does the coordinator see each
    holder's contribution?
    """

    terms: Terms
    method: "Method"
    options: O_co
    codebook: Codebook
    reveals: bool = True
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def privacy(self) -> Privacy | None:
        return self.terms.privacy


def once(function: Callable[[Question[Any]], T]) -> Callable[[Question[Any]], T]:
    """A function of a question that is worked out once for each: a parsed formula, a design, the inputs of a model."""

    @wraps(function)
    def kept(question: Question[Any]) -> T:
        if function not in question.kept:
            question.kept[function] = function(question)
        found: T = question.kept[function]
        return found

    return kept


Coordination = Generator[Ask, Total, Result]


class Mechanism(Protocol):
    """The noise of an ask whose method adds it inside `contribute`.

    event: what one ask is charged as; the rest are public figures for people.
    """

    @property
    def event(self) -> Any: ...
    @property
    def steps(self) -> int: ...
    @property
    def rate(self) -> float: ...
    @property
    def noise_multiplier(self) -> float: ...
    @property
    def noise_to_signal(self) -> float | None: ...


class Method(Protocol):
    """The module contract of `statfed.strategies.analyses.*` and `statfed.strategies.training.*`.

    TITLE: one line for lists. GROUP: heading in help. Options: pydantic model; its descriptions are the CLI's help.
    PUSHES_DOWN: what runs inside the holder's database: "all", or "all but EXCEPTIONS"; then "; embedded DuckDB
    streams" where that engine is read in batches.

    May also define

    - `budget(question) -> Budget`: how a differentially private run spends its budget; a method without it is refused
      when privacy is asked for.
    - OWN_NOISE: names of asks whose noise `contribute` adds by itself, and `mechanism(question, ask, size) ->
      Mechanism`: that noise at a holder of this public size.
    - `layout(question, ask, sizes) -> Layout | None`: how sums are encoded, where bounds a record do not say it.
    - `functions(question) -> Mapping[str, str]`: the asks that are no sums, and the function of the protection that
      each is for: contributions to it are the function's arguments by holder, and need not add up over records.
    - LINKED = True: its exact sums are many linked tables of numbers of records, which rules on single tables cannot
      judge. Then the parts of an exact ask say of nothing what they are, and its result what nothing rests on, so that
      no holder with rules answers and no release that has rules is made.
    - WITHIN = True: its sums are over holders, of what each finds among its records together: they do not add up over
      records, and a part's bound times a holder's records is the most that the holder adds. It has no private form.
    - `deciding(question) -> str`: the function that could decide dominance rules on its pooled cells, if the study lets
      it; empty where none could.
    - `hindrances(question, requires) -> Iterator[Finding]`: what stands against a study beyond the general rules.
    - `tells(options) -> str`: what its exact sums tell the coordinator of single contributors beside the result.
    - WORDS, of training: one contribution, contributions, a round, and what is sent out, for *who learns what*.
    - UPDATES = True: its sums are of model updates, not of figures.
    - TOLERANT = True: its sums need not all be about the same holders, so that it goes on without some.
    - PRIVACY: defaults of a study's `[privacy]` table.
    - `weighs(table, question, ask) -> Iterable[Weighed]`: how single records weigh in what leaves with an ask, for the
      holder's rules (`statfed.core.weighing`). Products over the records of a model do not leave without it while a
      rule is on; sums in cells are then looked at by the columns that `discloses` names.
    - `spans(table, question) -> Sequence[Expr]`, of one that discloses a model: the columns that values are multiplied
      by in what leaves, for the rule on all exact figures together.
    - `functions_used(question) -> frozenset[str]`: what the formula of a study does to columns, for policies that list
      functions; see `statfed.strategies.analyses._formula`.
    - `follows(question, before, ask) -> str`: why an ask cannot come after those before it, empty where it can; see
      `statfed.core.course`. Without it a study makes each ask once.
    - `example() -> tuple[dict[str, Any], Codebook, pandas.DataFrame]`, of one from outside: options, and the codebook
      and records that `statfed plugin check` asks about.
    """

    TITLE: str
    GROUP: str
    PUSHES_DOWN: str
    Options: type[Section]

    def columns(self, question: Question[Any]) -> tuple[str, ...]:
        """Columns that the method reads, `where` aside. Raises UsageError on options that do not fit the codebook."""
        ...

    def coordinate(self, question: Question[Any]) -> Coordination:
        """The coordinator's half. One that can be resumed also takes `state`, that of the ask to go on with."""
        ...

    def parts(self, question: Question[Any], ask: Ask) -> Mapping[str, Part]:
        """Public facts of every array of a contribution to `ask`. Raises UsageError on an ask it does not know."""
        ...

    def contribute(self, table: Table, question: Question[Any], ask: Ask) -> Arrays:
        """The holder's half."""
        ...

    def discloses(self, question: Question[Any], ask: Ask) -> Cells | Model:
        """What kind of thing leaves a holder with this ask, for its disclosure control."""
        ...


def package_of(name: str) -> str:
    """The package that a method is found in; that of analyses where there is none of this name."""
    return next((package for package in PACKAGES if name in modules(package)), ANALYSES)


def methods() -> dict[str, str]:
    """Every method by name, with the package that it is found in."""
    return {name: package for package in PACKAGES for name in modules(package)}


def load_method(name: str) -> Method:
    """The module of a method. Raises UsageError naming those there are."""
    known = methods()
    if name not in known:
        raise UsageError(f"unknown method: got {name!r}; want {one_of(sorted(known), name)}")
    method: Method = load(known[name], name, "method")
    return method


def is_training(name: str) -> bool:
    """Does the method train a model?"""
    return package_of(name) == TRAINING


def read_options(name: str, options: Mapping[str, Any]) -> tuple[Method, Section]:
    """A method and its options. Raises UsageError on unknown names, keys or values."""
    method = load_method(name)
    try:
        return method, method.Options.model_validate(dict(options))
    except ValidationError as error:
        known = ", ".join(method.Options.model_fields)
        raise UsageError(describe(error, name, f"one of {known}", method.Options)) from None


def read_question(terms: Terms, codebook: Codebook | None = None, reveals: bool = True) -> tuple[Method, Question[Any]]:
    """The method that a study names and its question; codebook: of the own table, by default the study's.

    Raises UsageError on unknown names, options or columns, and where a method without a private form is to be private.
    """
    method, options = read_options(terms.method, terms.options)
    question = Question(terms, method, options, codebook or terms.codebook, reveals)
    columns_read(question)
    if terms.privacy:
        budget_of(question)
    return method, question


@once
def columns_read(question: Question[Any]) -> tuple[str, ...]:
    """Every column that a study reads, its conditions' and the privacy unit's included."""
    names = [*question.method.columns(question), *columns_of(question.terms.where)]
    if question.privacy and question.privacy.unit == "person":
        unit = question.codebook.role("unit")
        if unit is None:
            raise UsageError("privacy.unit: got person; want a codebook with a column of role unit, the person's id")
        names.append(unit)
    return tuple(dict.fromkeys(names))


@once
def budget_of(question: Question[Any]) -> Budget:
    """How a private run spends its budget. Raises UsageError where the method has no private form."""
    found: Callable[[Question[Any]], Budget] | None = getattr(question.method, "budget", None)
    if found is None:
        raise UsageError(f"privacy: {question.terms.method} has no differentially private form; see statfed analyses")
    return found(question)


@once
def functions_of(question: Question[Any]) -> Mapping[str, str]:
    """The asks of a study that are no sums, and the function that each is for. Both ends take it from here."""
    functions: Callable[[Question[Any]], Mapping[str, str]] | None = getattr(question.method, "functions", None)
    return {} if functions is None or question.privacy else functions(question)


def checked(contribution: Arrays, parts: Mapping[str, Part], where: str) -> dict[str, NDArray[Any]]:
    """A contribution that has the form its parts announce. Raises EngineError saying what was got and wanted."""
    if set(contribution) != set(parts):
        raise EngineError(f"{where}: got {', '.join(sorted(contribution))}; want {', '.join(sorted(parts))}")
    arrays = {}
    for name, part in parts.items():
        array = np.asarray(contribution[name])
        if array.shape != part.shape:
            raise EngineError(f"{where}: {name}: got shape {array.shape}; want {part.shape}")
        if part.integer and not np.issubdtype(array.dtype, np.integer):
            raise EngineError(f"{where}: {name}: got {array.dtype}; want whole numbers")
        if not np.isfinite(array).all():
            raise EngineError(f"{where}: {name}: got values that are not finite")
        kind = np.int64 if part.integer else np.float32 if part.single_precision else np.float64
        arrays[name] = array.astype(kind, copy=False)
    return arrays


def summed(contributions: Mapping[str, Arrays], parts: Mapping[str, Part]) -> dict[str, NDArray[Any]]:
    """The sum over holders, whatever their order: integers exactly, floats rounded once (Shewchuk 1997).

    Raises EngineError when an integer sum leaves the range of 64 bits.
    """
    names = sorted(contributions)
    totals: dict[str, NDArray[Any]] = {}
    for part_name, part in parts.items():
        arrays = [np.asarray(contributions[name][part_name]) for name in names]
        if part.integer:
            if sum(float(np.abs(a).max(initial=0)) for a in arrays) >= 2.0**63:
                raise EngineError(f"{part_name}: the sum does not fit into 64 bits")
            totals[part_name] = np.asarray(np.sum(arrays, axis=0, dtype=np.int64)).reshape(part.shape)
        else:
            flat = np.stack([a.reshape(-1) for a in arrays])
            totals[part_name] = np.array([math.fsum(column) for column in flat.T]).reshape(part.shape)
    return totals
