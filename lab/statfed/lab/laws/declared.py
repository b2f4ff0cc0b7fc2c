"""Laws of what parts and results say of themselves: true, and enough for the rules to stop what they should stop.

Tables with planted cells (one or two records at a level, one contributor with nearly all of a sum, a lone category) are
asked about as the method's example is. What would leave a holder is compared with sums and counts that are worked out
from the table by themselves, so that a method that says less than it sends is found out: whatever its parts, tables and
columns are called. No proof: what is not planted is not looked at.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from statfed.client.guard.disclosure import check, undeclared, weighed
from statfed.core.codebook import Codebook
from statfed.core.disclosure import OFF, Rules
from statfed.core.errors import Refused, UsageError
from statfed.core.method import (
    Arrays,
    Ask,
    Cells,
    Counts,
    Fixed,
    Magnitude,
    Method,
    Model,
    Part,
    Public,
    Question,
    Total,
    budget_of,
    checked,
    columns_read,
    functions_of,
    summed,
)
from statfed.core.randomness import stream
from statfed.core.result import Additive, Basis, Coefficients, Result, Row
from statfed.core.table import Table
from statfed.core.terms import Privacy
from statfed.lab.laws.check import Broken, Law, holds
from statfed.lab.laws.frames import table_of
from statfed.server.disclosure.release import release

if TYPE_CHECKING:
    import pandas as pd

MINIMUM = 5
FREQUENT = OFF.model_copy(update={"minimum_frequency": MINIMUM})
DOMINANCE = OFF.model_copy(update={"dominance_n": 1, "dominance_k": 90.0, "p_percent": 10.0})
SHARE = 0.95  # of a sum that a planted contributor has
GROUPS = 3  # columns at most whose levels are crossed to count records


@dataclass(frozen=True)
class Subject:
    """A method under test. question: one that it answers without noise; frame: the records of all holders together."""

    method: Method
    question: Question[Any]
    frame: "pd.DataFrame" = field(repr=False)

    @property
    def codebook(self) -> Codebook:
        return self.question.codebook


@dataclass(frozen=True)
class Plant:
    """A table with a cell that rules are there to stop. cell: its records, (records,); column, level: what it is; level
    None: of all records. value: the column of which one of them has nearly everything; empty for a small cell."""

    frame: "pd.DataFrame" = field(repr=False)
    cell: NDArray[np.bool_] = field(repr=False)
    column: str = ""
    level: str | None = None
    value: str = ""

    @property
    def rules(self) -> Rules:
        return DOMINANCE if self.value else FREQUENT

    def __str__(self) -> str:
        where = f"{self.column} = {self.level}" if self.column else "all records"
        what = f"one record has {SHARE:.0%} of {self.value}" if self.value else f"{int(self.cell.sum())} records"
        return f"{what} at {where}"


def plants(subject: Subject) -> Iterator[Plant]:
    """Tables with planted cells, of every column that the question reads."""
    yield from _small(subject)
    yield from _dominated(subject)


def _small(subject: Subject) -> Iterator[Plant]:
    frame, codebook = subject.frame.reset_index(drop=True), subject.codebook
    read = [name for name in columns_read(subject.question) if name in frame]
    complete = frame[read].notna().all(axis=1).to_numpy()
    for name, column in codebook.columns.items():
        if name not in read or len(column.levels) < 2:
            continue
        codes = [value == "true" for value in column.levels] if column.type == "boolean" else list(column.levels)
        for size, alone in ((1, False), (2, False), (1, True)):
            kept = np.flatnonzero(complete & (frame[name] == codes[-1]).to_numpy())[:size]
            if len(kept) < size:
                continue
            planted, cell = frame.copy(), np.zeros(len(frame), np.bool_)
            cell[kept] = True
            others = ~cell if alone else (frame[name] == codes[-1]).to_numpy() & ~cell
            planted.loc[others, name] = codes[0]
            yield Plant(planted, cell, name, column.levels[-1])


def _dominated(subject: Subject) -> Iterator[Plant]:
    frame, codebook = subject.frame.reset_index(drop=True), subject.codebook
    read = [name for name in columns_read(subject.question) if name in frame]
    complete = frame[read].notna().all(axis=1).to_numpy()
    cells: list[tuple[str, str | None, NDArray[np.bool_]]] = [("", None, complete)]
    for name in read:
        for first in codebook.columns[name].levels[:1]:
            code: Any = first == "true" if codebook.columns[name].type == "boolean" else first
            cells.append((name, first, complete & (frame[name] == code).to_numpy()))
    rng = np.random.default_rng(1)
    for value in read:
        column = codebook.columns[value]
        if column.type != "number" or column.bounds is None or column.bounds[1] <= 0:
            continue
        low, high = column.bounds
        for of, level, cell in cells:
            if cell.sum() < 2:
                continue
            planted, places = frame.copy(), np.flatnonzero(cell)
            small = high * (1 - SHARE) / (2 * cell.sum()) * rng.uniform(0.5, 1, len(places))
            planted.loc[places, value] = np.clip(small, low, high)
            planted.loc[places[0], value] = high
            if high >= SHARE * planted.loc[places, value].abs().sum():
                yield Plant(planted, cell, of, level, value)


@dataclass(frozen=True)
class Asked:
    """One ask of a run with its parts."""

    question: Question[Any]
    ask: Ask
    parts: Mapping[str, Part]

    def contribution(self, subject: Subject, frame: "pd.DataFrame") -> dict[str, NDArray[Any]]:
        """What a holder of `frame` would send."""
        return self.sent(subject, table_of(frame, subject.codebook))

    def sent(self, subject: Subject, table: Table) -> dict[str, NDArray[Any]]:
        """What a holder of a table would send."""
        sent: Arrays = subject.method.contribute(table, self.question, self.ask)
        return checked(sent, self.parts, self.ask.name)


def run(subject: Subject, frame: "pd.DataFrame | None" = None) -> tuple[list[Asked], Result]:
    """The asks of one run over a table, and its result."""
    method, question = subject.method, subject.question
    made: list[Asked] = []
    coordination = method.coordinate(question)
    total: Total | None = None
    while True:
        try:
            ask = next(coordination) if total is None else coordination.send(total)
        except StopIteration as end:
            return made, end.value
        asked = Asked(question, ask, method.parts(question, ask))
        made.append(asked)
        sent = asked.contribution(subject, subject.frame if frame is None else frame)
        total = Total(summed({"all": sent}, asked.parts))


def private_asks(subject: Subject) -> list[Asked]:
    """The asks of a private run of a fixed budget; none where the question has no such form."""
    question = replace(
        subject.question,
        terms=subject.question.terms.model_copy(update={"privacy": Privacy(epsilon=1.0)}),
        kept={},
    )
    try:
        subject.method.columns(question)
        budget = budget_of(question)
    except UsageError:
        return []
    own = set(getattr(subject.method, "OWN_NOISE", ()))
    asks = [Ask(each.name) for each in budget.asks if each.name not in own] if isinstance(budget, Fixed) else []
    return [Asked(question, ask, subject.method.parts(question, ask)) for ask in asks]


def _asks(subject: Subject) -> list[Asked]:
    """All asks that are sums."""
    functions = functions_of(subject.question)
    return [each for each in run(subject)[0] if each.ask.name not in functions] + private_asks(subject)


def says_weights(method: Method, discloses: Cells | Model, private: bool) -> bool:
    """Does a method say how records weigh in products? One that does not is refused by rules unless noise is added:
    that is in order where it has a private form."""
    return weighed(method, discloses) or (private and not hasattr(method, "weighs"))


def _declared(subject: Subject) -> str:
    looked = []
    private = bool(private_asks(subject))
    for each in _asks(subject):
        discloses = subject.method.discloses(each.question, each.ask)
        astray = undeclared(each.parts, discloses, says_weights(subject.method, discloses, private))
        holds(
            not astray,
            f"{each.ask.name}: {', '.join(astray)}: not declared, or as what does not go with {discloses!r}; "
            "want `what` of every part",
        )
        looked += [f"{each.ask.name}.{name}" for name in each.parts]
    return f"{len(dict.fromkeys(looked))} parts"


def _public(subject: Subject) -> str:
    looked = 0
    for each in _asks(subject):
        names = [name for name, part in each.parts.items() if isinstance(part.what, Public)]
        if not names:
            continue
        one = each.contribution(subject, subject.frame)
        for frame in (subject.frame.iloc[:7], subject.frame.iloc[7:]):
            other = each.contribution(subject, frame)
            for name in names:
                holds(
                    np.array_equal(one[name], other[name]),
                    f"{each.ask.name}: {name}: declared public, and not the same on other records",
                )
                looked += 1
    return f"{looked} times"


def _true_counts(subject: Subject) -> str:
    looked = 0
    for each in _asks(subject):
        names = [name for name, part in each.parts.items() if isinstance(part.what, Counts)]
        whole = each.contribution(subject, subject.frame)
        lesser = [each.contribution(subject, subject.frame.drop(subject.frame.index[i])) for i in (0, 7, 23)]
        for name in names:
            where, counted = f"{each.ask.name}: {name}: declared a number of records", np.asarray(whole[name], float)
            holds((counted == np.rint(counted)).all(), f"{where}: got a fraction; want whole numbers")
            holds((counted >= 0).all(), f"{where}: got a negative one")
            for less in lesser:
                change = np.abs(counted - less[name]).max(initial=0.0)
                holds(change <= 1, f"{where}: one record changes it by {change:g}; want 1 at most")
            looked += 1
    return f"{looked} parts"


def group_counts(subject: Subject, frame: "pd.DataFrame") -> set[int]:
    """Numbers of records in every cell of every table of up to `GROUPS` of the columns that are read."""
    read = [name for name in columns_read(subject.question) if name in frame]
    levels = [name for name in read if subject.codebook.columns[name].levels]
    found = {len(frame), *(int(n) for n in frame[read].notna().sum())}
    for size in range(1, GROUPS + 1):
        for names in combinations(levels, size):
            grouped = frame.groupby(list(names), observed=True)
            found |= {int(n) for n in grouped.size()}
            found |= {int(n) for name in read if name not in names for n in grouped[name].count()}
    return found - {0}


def _no_hidden_counts(subject: Subject) -> str:
    looked, asks = 0, _asks(subject)
    for frame in (subject.frame, *(plant.frame for plant in _small(subject))):
        known = group_counts(subject, frame)
        for each in asks:
            sent = each.contribution(subject, frame)
            for name, part in each.parts.items():
                if not part.integer or isinstance(part.what, Counts | Public) or _unsaid(subject, part):
                    continue
                told = {abs(int(n)) for n in np.ravel(sent[name])} - {0}
                holds(
                    not told or not told <= known,
                    f"{each.ask.name}: {name}: declared {part.what!r}, and is a number of records; want Counts",
                )
                looked += 1
    return f"{looked} times"


def _unsaid(subject: Subject, part: Part) -> bool:
    """Does a method of linked tables say nothing of the part, so that no holder with rules sends it?"""
    return part.what is None and bool(getattr(subject.method, "LINKED", False))


def _magnitudes(subject: Subject) -> str:
    looked, asks = 0, _asks(subject)
    for frame in (subject.frame, *(plant.frame for plant in _small(subject))):
        for each in asks:
            sent = each.contribution(subject, frame)
            for name, part in each.parts.items():
                if not isinstance(part.what, Magnitude) or not part.what.counts:
                    continue
                where = f"{each.ask.name}: {name}: counted by {part.what.counts}"
                try:
                    counts = np.broadcast_to(sent[part.what.counts], np.shape(sent[name]))
                except ValueError:
                    raise Broken(f"{where}: got shape {np.shape(sent[part.what.counts])}; want one for each") from None
                behind = (counts > 0) | (sent[name] == 0)
                holds(behind.all(), f"{where}, which is 0 where the sum is not")
                looked += 1
    return f"{looked} times"


def _broken_down(subject: Subject) -> str:
    """A record is moved from one level of a column to another. Where sums move with it from one cell to another, the
    column is one of those that the cells are made of, and rules have to know it; of counts, which rules look at
    themselves, it is enough that the ask names it."""
    looked, frame = 0, subject.frame.reset_index(drop=True)
    read = [name for name in columns_read(subject.question) if name in frame and subject.codebook.columns[name].levels]
    complete = np.flatnonzero(frame[list(columns_read(subject.question))].notna().all(axis=1).to_numpy())[:3]
    for each in _asks(subject):
        discloses = subject.method.discloses(each.question, each.ask)
        if not isinstance(discloses, Cells):
            continue
        named = {name for part in each.parts.values() if isinstance(part.what, Counts) for name in part.what.by}
        strange = sorted((named & set(read)) - {*discloses.by, *discloses.complete})
        holds(not strange, f"{each.ask.name}: counts by {', '.join(strange)}, which {discloses!r} does not say")
        for column in read:
            if column in discloses.by:
                continue
            for place in complete:
                moved = _moved(subject, each, frame, column, int(place), column not in discloses.complete)
                holds(
                    not moved,
                    f"{each.ask.name}: {moved}: broken down by {column}, and discloses {discloses!r}; want it in by",
                )
                looked += 1
    return f"{looked} times a record was moved"


def _moved(subject: Subject, each: Asked, frame: "pd.DataFrame", column: str, place: int, counts: bool) -> str:
    """A part in which a record's figures move between cells as it changes its level of a column; empty if none.

    counts: also look at counts."""
    described, before = subject.codebook.columns[column], each.contribution(subject, frame)
    for level in described.levels:
        other = frame.copy()
        other.loc[place, column] = level == "true" if described.type == "boolean" else level
        after = each.contribution(subject, other)
        for name, part in each.parts.items():
            if not isinstance(part.what, Magnitude) and not (counts and isinstance(part.what, Counts)):
                continue
            change = np.ravel(np.asarray(after[name], np.float64) - before[name])
            slack = 1e-9 * (1.0 + np.abs(before[name]).max(initial=0.0))
            if change.max(initial=0.0) > slack and change.min(initial=0.0) < -slack and abs(change.sum()) <= slack:
                return name
    return ""


def told(subject: Subject, plant: Plant, sent: Arrays) -> str:
    """A part that holds a sum over the planted cell, weighted or not; empty where none does."""
    figures = []
    read = [name for name in columns_read(subject.question) if name in plant.frame]
    numbers = [name for name in read if subject.codebook.columns[name].type == "number" and plant.value in ("", name)]
    weights = [name for name in read if subject.codebook.columns[name].role == "weight"]
    cell = plant.frame[plant.cell]
    for name in numbers:
        figures.append(float(cell[name].sum()))
        figures += [float((cell[name] * cell[weight]).sum()) for weight in weights if weight != name]
    figures = [figure for figure in figures if figure != round(figure)]
    for name, array in sent.items():
        entries = np.ravel(np.asarray(array, np.float64))
        if any(np.isclose(entries, figure, rtol=1e-9, atol=0.0).any() for figure in figures):
            return name
    return ""


def _stopped(subject: Subject) -> str:
    stopped = 0
    asks = [each for each in _asks(subject) if each.question.privacy is None]
    for plant in plants(subject):
        table = table_of(plant.frame, subject.codebook)
        for each in asks:
            discloses = subject.method.discloses(each.question, each.ask)
            if not isinstance(discloses, Cells) and plant.value:  # rules on contributors are about cells
                continue
            sent = each.sent(subject, table)
            part = told(subject, plant, sent)
            if isinstance(discloses, Cells):
                within = plant.column in discloses.by and (not plant.value or plant.value in discloses.values)
            else:
                role = subject.codebook.columns[plant.column].role if plant.column else None
                within = role is None and plant.column in discloses.complete
            if not within and not part:
                continue
            try:
                check(table, each.question, each.ask, each.parts, sent, plant.rules, discloses)
            except Refused:
                stopped += 1
                continue
            raise Broken(
                f"{each.ask.name}: {part or 'a cell'}: {plant}: left a holder against its rules; got {discloses!r}; "
                "want all that the cells of what leaves are made of"
            )
    return f"{stopped} planted cells were stopped"


LEAVES: tuple[Law[Subject], ...] = (
    Law("declared", "Every part says what it is, and that goes with what the ask discloses", _declared),
    Law("public", "What is declared public is the same whatever the records are", _public),
    Law("counts", "What is declared a number of records is one", _true_counts),
    Law("hidden counts", "No number of records is declared something else", _no_hidden_counts),
    Law("magnitudes", "Sums have records behind them where their counts say so", _magnitudes),
    Law("broken down", "Cells are made of the columns that an ask discloses", _broken_down),
    Law("stopped", "A holder's rules stop planted small and dominated cells", _stopped),
)
"""Of what leaves a holder."""


def _results(subject: Subject) -> Iterator[tuple["pd.DataFrame", Result]]:
    """The example's result and those over tables with small cells, of which some have none."""
    yield subject.frame, run(subject)[1]
    for plant in _small(subject):
        try:
            yield plant.frame, run(subject, plant.frame)[1]
        except UsageError:
            continue


def shown(result: Result, codebook: Codebook, rules: Rules = FREQUENT) -> Result | None:
    """The release of a result; None where it is refused."""
    try:
        return release(result, codebook, rules, source=stream(1, "laws"), seconds=2.0)
    except Refused:
        return None


def records_behind(row: Row, basis: Basis, codebook: Codebook, frame: "pd.DataFrame") -> int:
    """At most so many records of the pooled table are behind a row, by what says which row it is: the levels of its
    breakdown, and keys that are columns."""
    kept = np.ones(len(frame), np.bool_)
    for name in basis.by:
        column, value = codebook.columns.get(name), row.get(name)
        if column is not None and value in column.levels:
            code: Any = value == "true" if column.type == "boolean" else value
            kept &= (frame[name] == code).to_numpy()
    for name in basis.keys:
        if row.get(name) in frame:
            kept &= frame[row[name]].notna().to_numpy()
    return int(kept.sum())


def _rests(subject: Subject) -> str:
    rows = 0
    linked = getattr(subject.method, "LINKED", False) and subject.question.privacy is None
    for frame, result in _results(subject):
        if linked:
            holds(
                result.undeclared, "result: declared; want nothing said of LINKED tables, so that no rules release them"
            )
            continue
        holds(not result.undeclared, f"result: not declared: {', '.join(result.undeclared)}; want a Basis that does")
        public = shown(result, subject.codebook)
        for name, released in (public.tables if public else {}).items():
            basis = result.basis_of(name)
            if basis is None:
                continue
            for row in released:
                figures = [row.get(key) for key in basis.columns if key not in basis.places]
                if all(figure is None for figure in figures):
                    continue
                least = records_behind(row, basis, subject.codebook, frame)
                told_counts = [row.get(key) for key in (*basis.counts, *basis.numbers)]
                numbers = [n for n in told_counts if isinstance(n, int | float)]
                few = 0 < least < MINIMUM or any(0 < n < MINIMUM for n in numbers)
                holds(not few, f"result: {name}: released a row from fewer records than the minimum; want it withheld")
                rows += 1
    return f"{rows} released rows"


def renamed(result: Result, codebook: Codebook, seed: int = 1) -> tuple[Result, Codebook]:
    """A result all of whose tables, columns and facts have other names, and the codebook with its columns renamed."""
    rng = np.random.default_rng(seed)
    names: dict[str, str] = {"": ""}

    def new(name: str) -> str:
        return names.setdefault(name, f"x{len(names)}{''.join(rng.choice(list('abcdefgh'), 6))}")

    def other(value: Any) -> Any:
        match value:
            case str():
                return new(value)
            case tuple():
                return tuple(map(other, value))
            case Basis() | Additive() | Coefficients():
                return replace(value, **{each.name: other(getattr(value, each.name)) for each in fields(value)})
            case _:
                return value

    tables = {new(name): [{new(k): v for k, v in row.items()} for row in rows] for name, rows in result.tables.items()}
    changed = result.with_(
        tables=tables,
        facts={new(name): value for name, value in result.facts.items()},
        by=other(result.by),
        basis={new(name): other(basis) for name, basis in result.basis.items()},
        observations=other(result.observations),
        numbers=other(result.numbers),
        public=other(result.public),
    )
    columns = {new(name): column for name, column in codebook.columns.items()}
    return changed, codebook.model_copy(update={"columns": columns})


def pattern(result: Result | None) -> list[Any] | None:
    """What of a release is shown and what is withheld, whatever it is called."""
    if result is None:
        return None
    rows = [[[value is None for value in row.values()] for row in rows] for rows in result.tables.values()]
    statuses = [[row.get(result.state_of(name)) for row in rows] for name, rows in result.tables.items()]
    return [rows, statuses, [value is None for value in result.facts.values()]]


def _nameless(subject: Subject) -> str:
    looked = 0
    for _, result in _results(subject):
        other, codebook = renamed(result, subject.codebook)
        same = pattern(shown(result, subject.codebook)) == pattern(shown(other, codebook))
        holds(same, "result: tables and columns of other names are treated otherwise; want names to decide nothing")
        looked += 1
    return f"{looked} results"


def _closed(subject: Subject) -> str:
    result, refused = run(subject)[1], 0
    for name, rows in result.tables.items():
        basis = result.basis.get(name)
        if basis is None or not rows:
            continue
        less: list[dict[str, Basis]] = [{key: b for key, b in result.basis.items() if key != name}]
        less += [{**result.basis, name: replace(basis, own=basis.own[1:])}] * bool(basis.own)
        for bases in less:
            lacking = shown(result.with_(basis=bases), subject.codebook) is None
            holds(lacking, f"result: {name}: released without its basis; want a refusal")
            refused += 1
    return f"{refused} refusals"


SHOWS: tuple[Law[Subject], ...] = (
    Law("rests", "A result says what its rows rest on, and none is released that rests on too few", _rests),
    Law("nameless", "What is withheld does not depend on what tables and columns are called", _nameless),
    Law("closed", "What does not say what it rests on is not released", _closed),
)
"""Of what a release shows."""
