"""What an analysis is: two halves in one file of `statfed.strategies.analyses`, and nothing else to register.

`coordinate` is a straight line of protected sums: `total = yield Ask("moments")`; what it returns is the `Result`.
`contribute` is the holder's half of one ask: arrays that are *additive over records*, so that their sum over holders
is what one holder with all records would have sent. `parts` says in public what those arrays look like and how much
one record can change them; noise, fixed point and checks follow from it at both ends.

Laws, which tests put every analysis under: contributions add up over any split of the records; an empty holder
contributes zeros; no entry changes by more than its bound when one record is added; both ends compute the same parts.
"""

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.codebook import Codebook
from statfed.core.discovery import load
from statfed.core.errors import EngineError, UsageError
from statfed.core.query import Privacy, Query
from statfed.core.result import Result
from statfed.core.study import Section, describe
from statfed.core.table import Table

PACKAGE = "statfed.strategies.analyses"
Arrays = Mapping[str, NDArray[Any]]
O_co = TypeVar("O_co", bound=Section, covariant=True)


@dataclass(frozen=True)
class Ask:
    """One request for a sum: its name and public parameters (float64 or int64 arrays)."""

    name: str
    arrays: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """Public facts of one array of a contribution.

    bound: no single record contributes more than this, in absolute value, to an entry (one number, or one per entry
    in `shape`); infinite where the codebook gives no bounds, and then there is neither fixed point nor noise.
    integer: entries are whole numbers (int64), summed exactly. single: a record contributes to at most one entry of
    the array, as to the cells of a table. share: the part's share of the privacy budget (of rho for Gaussian noise, of
    epsilon for Laplace noise), relative to its siblings'.
    """

    shape: tuple[int, ...] = ()
    bound: float | NDArray[np.float64] = math.inf
    integer: bool = False
    single: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class Cells:
    """The contribution is a table: one cell per combination of the levels of `by`, over records complete in `by` and
    `complete`. values: columns that are summed in it, none for counts; dominance rules look at each."""

    by: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    complete: tuple[str, ...] = ()


@dataclass(frozen=True)
class Model:
    """The contribution belongs to a model with this many parameters, over records complete in `complete`."""

    parameters: int
    complete: tuple[str, ...] = ()


class Total(Mapping[str, NDArray[Any]]):
    """The sum over all holders, by part. noise: standard deviation of the noise in each part, 0 without privacy."""

    def __init__(self, arrays: Arrays, noise: Mapping[str, NDArray[np.float64]] | None = None) -> None:
        self._arrays = dict(arrays)
        self.noise: dict[str, NDArray[np.float64]] = {
            name: (noise or {}).get(name, np.zeros(array.shape)) for name, array in arrays.items()
        }

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


@dataclass(frozen=True)
class Question(Generic[O_co]):
    """A query with its analysis's options read: what both halves get."""

    query: Query
    options: O_co

    @property
    def codebook(self) -> Codebook:
        return self.query.codebook

    @property
    def privacy(self) -> Privacy | None:
        return self.query.privacy


Coordination = Generator[Ask, Total, Result]


class Analysis(Protocol):
    """The module contract of `statfed.strategies.analyses.*`.

    TITLE: one line for lists. GROUP: heading in help. Options: pydantic model; its descriptions are the CLI's help.
    PUSHES_DOWN: what runs inside the holder's database: "all", or "all but EXCEPTIONS"; then "; embedded DuckDB
    streams" where that engine is read in batches.
    May also define `private(question) -> tuple[str, int]`: the name of the one ask that a differentially private run
    makes and how many times; an analysis without it is refused when privacy is asked for. And
    `functions(question) -> Mapping[str, str]`: the asks that are no sums, and the function of the protection that each
    is for: contributions to it are the function's arguments by holder, and need not add up over records. And
    `deciding(question) -> str`: the function that could decide dominance rules on its pooled cells, if the study lets
    it; empty where none could. One from outside has `example() -> tuple[dict[str, Any], Codebook, pandas.DataFrame]`:
    options, and the codebook and records that `statfed plugin check` asks about.
    """

    TITLE: str
    GROUP: str
    PUSHES_DOWN: str
    Options: type[Section]

    def columns(self, question: Question[Any]) -> tuple[str, ...]:
        """Columns that the query reads, `where` aside. Raises UsageError on options that do not fit the codebook."""
        ...

    def coordinate(self, question: Question[Any]) -> Coordination:
        """The coordinator's half."""
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


def read_query(query: Query) -> tuple[Analysis, Question[Any]]:
    """The analysis that a query names and its question. Raises UsageError on unknown names, options or columns."""
    analysis: Analysis = load(PACKAGE, query.analysis, "analysis")
    try:
        options = analysis.Options.model_validate(query.options)
    except ValidationError as error:
        known = ", ".join(analysis.Options.model_fields)
        raise UsageError(describe(error, query.analysis, f"one of {known}")) from None
    question = Question(query, options)
    columns_read(question)
    if query.privacy:
        private_asks(analysis, question)
    return analysis, question


def columns_read(question: Question[Any]) -> tuple[str, ...]:
    """Every column that a query reads, its conditions' and the privacy unit's included."""
    analysis: Analysis = load(PACKAGE, question.query.analysis, "analysis")
    names = [*analysis.columns(question), *(condition.column for condition in question.query.where)]
    if question.privacy and question.privacy.unit == "person":
        unit = question.codebook.role("unit")
        if unit is None:
            raise UsageError("privacy.unit: got person; want a codebook with a column of role unit, the person's id")
        names.append(unit)
    return tuple(dict.fromkeys(names))


def private_asks(analysis: Analysis, question: Question[Any]) -> tuple[str, int]:
    """Name of the one ask of a private run, and how often it is made. Raises UsageError where there is none."""
    private: Callable[[Question[Any]], tuple[str, int]] | None = getattr(analysis, "private", None)
    if private is None:
        raise UsageError(f"privacy: {question.query.analysis} has no differentially private form; see statfed analyses")
    return private(question)


def functions_of(question: Question[Any]) -> Mapping[str, str]:
    """The asks of a query that are no sums, and the function that each is for. Both ends take it from here."""
    analysis: Analysis = load(PACKAGE, question.query.analysis, "analysis")
    functions: Callable[[Question[Any]], Mapping[str, str]] | None = getattr(analysis, "functions", None)
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
        arrays[name] = array.astype(np.int64 if part.integer else np.float64, copy=False)
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
