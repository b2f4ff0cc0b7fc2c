"""The differencing guard: no two exact releases of one dataset may tell, by subtraction, about a few records only.

What is known from a release is a sum over a population (the records that meet its conditions and are complete in its
columns) in each of its cells, hence over every union of cells. Of two releases those unions are compared that describe
the same thing: the populations as they are, and each cut down to the other's conditions on columns that it has cells
of; both in each cell of the columns that they have in common. What lies in one and not in the other is known after a
subtraction, and must be no record, or at least the minimum frequency.

Formal guarantees. `Releases.admit` returns only after (1) every distinct past population of the dataset was compared
with the new ones, also what other processes recorded in the meantime, and (2) the new ones are on disk: before the
answer leaves. A population asked for again on unchanged data is admitted and adds nothing. A refusal is the same text
whatever the data and the threshold are. There is no way past an error: after a damaged, missing or replaced file, a
column that the codebook reads otherwise than before, or a failing query, nothing leaves.

Not guarded. Combinations of three or more releases (A - B - C), bins of one column with different limits, and parts of
one population that changed while its total did not hold still. Deciding the first in general is intractable (Chin and
Ozsoyoglu 1982 on auditing sums); noise bounds all of them (Dinur and Nissim 2003). Old data are not kept: populations
are compared on the data of today, and one that was released from other data must have grown or shrunk by the minimum
frequency. Source: Hundepool et al. 2012, chapters 4 and 5 on linked tables and differencing.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from pathlib import Path
from types import TracebackType
from typing import Any

import ibis

from statfed.client.guard import chain, joint
from statfed.client.guard.chain import Chain, Entry
from statfed.client.guard.cuts import Edges, unsafe
from statfed.client.guard.keyed import Selection, compared
from statfed.client.guard.weights import FREQUENCY
from statfed.core.codebook import Codebook, Column
from statfed.core.conditions import Clause, Either, canonical, columns_of, read_clause
from statfed.core.disclosure import Rules
from statfed.core.errors import LedgerCorrupt, Refused
from statfed.core.linkkeys import KeyPart
from statfed.core.method import Cells, Model, Question, columns_read
from statfed.core.table import Expr, Table
from statfed.core.weighing import Cuts, owners

FILE = "releases.sqlite"
LINKED = "linked.sqlite"
"""Of linkages: figures over matches say nothing beside figures over all records."""
_EXACT = "exact releases", "no exact release leaves"
RULE = "not allowed by this holder's differencing rule"
_FEW = (
    f"{RULE}: with an earlier exact release, of these data or of data that were updated since, this one would tell "
    "about a few records only; want the same population as before, or a release with noise ([privacy])"
)
_JOINT = f"{RULE}: combined with all earlier exact answers this one would tell too much of one contributor"
_CHUNK = 32  # past populations compared in one query
TableOf = Callable[[Codebook, Sequence[str]], Table]


@dataclass(frozen=True)
class Population:
    """Whom a release is about and in which cells. Public; the order in which a query was written does not matter.

    where: conditions, sorted JSON; complete: columns without missing values, those of `by` included; by: columns of the
    cells; readings: of each of these columns what the codebook says of its form, as sorted (column, JSON) pairs.
    of: None, or the one column that is summed over this population, which then is compared only with populations in
    which that column may be summed too (see `populations`).
    """

    where: tuple[str, ...]
    complete: tuple[str, ...]
    by: tuple[str, ...]
    readings: tuple[tuple[str, str], ...]
    of: str | None = None

    @property
    def conditions(self) -> tuple[Clause, ...]:
        return tuple(map(read_clause, self.where))

    def comparable(self, other: "Population") -> bool:
        """Is there anything that both releases may sum?"""
        return (self.of is None or self.of in other.complete) and (other.of is None or other.of in self.complete)


def populations(question: Question[Any], discloses: Cells | Model) -> tuple[Population, ...]:
    """The populations of what one ask of a query discloses; the first is the one it states.

    A table that sums columns sums each over the records that have it (available cases): one more population for each.
    """
    by = discloses.by if isinstance(discloses, Cells) else ()
    stated = {*discloses.complete, *by}
    if isinstance(discloses, Model):
        return (_population(question, stated, by, None),)
    values = [name for name in columns_read(question) if name not in stated]
    return tuple(_population(question, stated | ({of} if of else set()), by, of) for of in (None, *values))


def _population(question: Question[Any], complete: set[str], by: Sequence[str], of: str | None) -> Population:
    where = sorted({canonical(clause) for clause in question.terms.where})
    names = sorted(complete | {*columns_of(question.terms.where)})
    readings = tuple((name, _reading(question.codebook.column(name))) for name in names)
    return Population(tuple(where), tuple(sorted(complete)), tuple(sorted(set(by))), readings, of)


def _reading(column: Column) -> str:
    sized = {"length"} if column.length else set()  # without which a text or an array is no column
    return _canonical(column.model_dump(mode="json", include={"type", "missing", "categories"} | sized))


def _form(reading: str) -> tuple[Any, ...]:
    """What of a column's form decides which records a population has: type, missing codes, and the widths of numeric
    codes, to which leading zeros are restored. Labels and further categories do not."""
    column = Column.model_validate_json(reading)
    widths = {len(code) for code in column.categories if code.isdigit()}
    return column.type, frozenset(map(str, column.missing)), frozenset(widths)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def joint_codebook(codebook: Codebook, past: Sequence[Population]) -> Codebook:
    """The codebook with the columns of past populations that it does not list.

    Raises Refused when it gives one of them another form: the old population could then not be found in the data.
    """
    columns: dict[str, Column] = {}
    for name, reading in dict.fromkeys(pair for population in past for pair in population.readings):
        known = codebook.columns.get(name) or columns.setdefault(name, Column.model_validate_json(reading))
        if _form(_reading(known)) != _form(reading):
            raise Refused(
                f"{RULE}: the codebook gives a column another type, other missing codes or codes of another width than "
                f"an earlier exact release had{f': {name}' if name in codebook.columns else ''}; want them as they were"
            )
    return codebook.model_copy(update={"columns": {**codebook.columns, **columns}})


def guard(
    table: Table, past: Sequence[Population], new: Sequence[Population], rules: Rules
) -> dict[Population, Population]:
    """Compare the populations of one new release with past ones. Returns the past ones that have the very records of a
    new one, each with that new one.

    table: all records of the holder, unconditioned, with every column that any population reads. Raises Refused when
    1 to minimum_frequency - 1 records lie in one and not in the other, in any cell compared, either way round. One scan
    per new population and 32 distinct past ones. Without a minimum frequency nothing is compared.
    """
    equal: dict[Population, Population] = {}
    minimum, few = rules.minimum_frequency, False
    if minimum is None:
        return equal
    for one in new:
        distinct = [old for old in dict.fromkeys(past) if old.comparable(one)]
        for start in range(0, len(distinct), _CHUNK):
            some = distinct[start : start + _CHUNK]
            for old, counts in zip(some, _differences(table, one, some), strict=True):
                few |= any(0 < count < minimum for count in counts)
                few |= not any(counts) and _shifted(one, old, table.codebook)
                if not any(counts):
                    equal[old] = one
    if few:
        raise Refused(_FEW)
    return equal


def _shifted(new: Population, old: Population, codebook: Codebook) -> bool:
    """Do the two differ in a condition on a number or a date? Then that they have the same records tells that nobody
    lies between, which would be found by shifting it until they have not: as much as that there are few."""
    apart = columns_of(map(read_clause, {*new.where} ^ {*old.where}))
    return any(not codebook.columns[name].levels for name in apart)


def _differences(table: Table, new: Population, past: Sequence[Population]) -> list[list[int]]:
    """For each of `past`, numbers of records in one population and not in the other, in every cell compared."""
    flags = {f"f{i}_{j}": flag for i, old in enumerate(past) for j, flag in enumerate(_one_sided(table, new, old))}
    cells = {f"cell_{i}": table[name] for i, name in enumerate(new.by)}
    flagged = table.expr.select(**cells, **flags)
    sums = {name: flagged.count(where=flagged[name]) for name in flags}
    grouped = flagged.group_by(list(cells)) if cells else flagged
    found = grouped.aggregate(**sums).to_pyarrow().to_pydict()
    counts: list[list[int]] = []
    for i, old in enumerate(past):
        common = [found[cell] for cell, name in zip(cells, new.by, strict=True) if name in old.by]
        rolled: dict[tuple[Any, ...], int] = {}
        for j in range(4):
            for row, count in enumerate(found[f"f{i}_{j}"]):
                key = (j, *(column[row] for column in common))
                rolled[key] = rolled.get(key, 0) + count
        counts.append(list(rolled.values()))
    return counts


def _one_sided(table: Table, new: Population, old: Population) -> Iterator[Expr]:
    """Records in one and not in the other, both ways: of the populations, and of each cut down to the other's
    conditions on columns that it has cells of, since a union of its cells is then known. Of alternatives those count
    that are on such columns: their cells lie within the other population, and the rest of it is known by subtraction.
    """
    mine, other = _members(table, new), _members(table, old)
    yield mine & ~other
    yield other & ~mine
    cut_mine = mine & _holds(table, _within(old.conditions, new.by))
    cut_other = other & _holds(table, _within(new.conditions, old.by))
    yield cut_mine & ~cut_other
    yield cut_other & ~cut_mine


def _within(where: Sequence[Clause], by: Sequence[str]) -> list[Clause]:
    """Clauses on the columns `by`, alternatives without those on other columns."""
    found: list[Clause] = []
    for clause in where:
        kept = tuple(one for one in clause.either if one.column in by)
        if kept:
            found.append(kept[0] if len(kept) == 1 else Either(any=kept))
    return found


def _members(table: Table, population: Population) -> Expr:
    complete = [table[name].notnull() for name in population.complete]
    return reduce(and_, complete, _holds(table, population.conditions))


def _holds(table: Table, conditions: Sequence[Clause]) -> Expr:
    """Do all conditions hold? False where a value is missing."""
    return reduce(and_, [table.holds(c).fill_null(False) for c in conditions], ibis.literal(True))


@dataclass(frozen=True)
class Release:
    """One exact release of one population, as recorded. total: its number of records, the holder's own secret."""

    run: str
    query: str
    analysis: str
    fingerprint: str
    population: Population
    total: int = field(repr=False)


Cut = tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]
"""Of which records a column was cut: the column, conditions as sorted JSON, and the cell."""


@dataclass
class _State:
    """What the entries of the file say. `apply` refuses what this module could not have written."""

    dataset: str = ""
    releases: list[Release] = field(default_factory=list)
    recipes: dict[str, str] = field(default_factory=dict)
    cuts: dict[Cut, list[tuple[Edges, tuple[str, ...]]]] = field(default_factory=dict)
    selections: list[Selection] = field(default_factory=list)

    def apply(self, entry: Entry) -> None:
        facts = json.loads(entry.facts)
        if (entry.kind == "open") != (entry.seq == 1):
            raise ValueError("open comes first and once")
        if entry.kind == "open":
            if facts["format"] != chain.FORMAT:
                raise ValueError(f"format: got {facts['format']}; want {chain.FORMAT}")
            self.dataset = facts["dataset"]
            return
        if entry.kind == "sums":
            self.recipes[facts["recipe"]] = facts["fingerprint"]
            return
        if entry.kind == "units":
            self.selections.append(_selection(facts))
            return
        if entry.kind == "cut":
            made = (facts["column"], tuple(facts["where"]), tuple((a, b) for a, b in facts["cell"]))
            edges = tuple((float(edge), bool(closed)) for edge, closed in facts["edges"])
            self.cuts.setdefault(made, []).append((edges, tuple(facts["by"])))
            return
        if entry.kind != "exact" or not isinstance(facts["total"], int):
            raise ValueError(f"unknown kind {entry.kind!r}")
        readings = tuple((name, reading) for name, reading in facts["readings"])
        population = Population(
            tuple(facts["where"]), tuple(facts["complete"]), tuple(facts["by"]), readings, facts["of"]
        )
        _ = population.conditions
        self.releases.append(
            Release(entry.run, entry.study, facts["analysis"], facts["fingerprint"], population, facts["total"])
        )


class Releases:
    """The exact releases of one dataset: an append-only, hash-chained SQLite file of mode 0600 beside the ledger.

    path: `releases.sqlite` in the holder's home, of linkages `linked.sqlite`; dataset: bound for ever, another is
    Refused. It keeps queries' public conditions and columns and the totals of populations, no data values. See
    `statfed.client.guard.chain` for what the file guarantees: crashes, races of processes, edits and deletion. Raises
    LedgerCorrupt whenever it does not verify.
    """

    def __init__(self, path: Path, *, dataset: str) -> None:
        self._name = path.name
        with self._named():
            if not path.exists():
                chain.create(path, {"format": chain.FORMAT, "dataset": dataset})
            self._chain = Chain(path, _State, writable=True)
        try:
            with self._named(), self._chain.reading() as state:
                if state.dataset != dataset:
                    raise Refused(f"releases of dataset {state.dataset}; want dataset {dataset}")
        except BaseException:
            self.close()
            raise

    def past(self) -> tuple[Release, ...]:
        """All releases, in order."""
        with self._named(), self._chain.reading() as state:
            return tuple(state.releases)

    def admit(
        self,
        run: str,
        study: str,
        question: Question[Any],
        discloses: Cells | Model,
        fingerprint: str,
        table_of: TableOf,
        rules: Rules,
    ) -> None:
        """Guard one exact release and record it; call it last, before the answer leaves. Raises Refused.

        study: its digest; fingerprint: of the data as they are; table_of: all the holder's records, unconditioned,
        with the columns asked for, read by the codebook given. Returns at once, recording nothing, when these
        populations were released from these data before. Data are read outside the lock; what others recorded meanwhile
        is compared before recording. A holder without a minimum frequency has nothing to compare with: releases are
        only recorded.
        """
        new = populations(question, discloses)
        compared = 0
        totals: dict[Population, int] | None = None
        while True:
            past = self.past()
            known = {release.population for release in past if release.fingerprint == fingerprint}
            if known.issuperset(new):
                return
            others = past[compared:] if rules.minimum_frequency is not None else ()
            codebook = joint_codebook(question.codebook, [*new, *(release.population for release in others)])
            names = dict.fromkeys(name for one in (*new, *(r.population for r in others)) for name, _ in one.readings)
            table = table_of(codebook, tuple(names))
            if totals is None:
                totals = _totals(table, new)
            equal = guard(table, [release.population for release in others], new, rules)
            earlier = [r for r in others if r.population in equal and r.fingerprint != fingerprint]
            moved = [abs(totals[equal[release.population]] - release.total) for release in earlier]
            if rules.minimum_frequency is not None and any(by < rules.minimum_frequency for by in moved):
                raise Refused(_FEW)
            compared = len(past)
            with self._named(), self._chain.writing() as state:
                if len(state.releases) > compared:
                    continue
                for one in new:
                    if one not in known:
                        facts = _facts(question.terms.method, fingerprint, one, totals[one])
                        self._chain.append("exact", run, study, facts=facts)
                return

    def units(
        self,
        run: str,
        study: str,
        question: Question[Any],
        about: Cells,
        key: Sequence[KeyPart],
        parted: bool,
        others: Sequence[str],
        fingerprint: str,
        table_of: TableOf,
        rules: Rules,
    ) -> None:
        """Compare the units that a linkage is about with those of earlier ones with any of the same others, whatever
        key they had, and record it (`statfed.client.guard.keyed`). As `admit`. Raises Refused.

        about: complete in the columns of the key too, as far as these are looked at at all; parted: is each part of
        the key compared by itself?
        """
        one, keys = populations(question, about)[0], {name for part in key for name in part.columns}
        complete, parts = tuple(name for name in one.complete if name not in keys), tuple(part.name for part in key)
        new = Selection(one.where, complete, one.by, one.readings, parts, parted, frozenset(others), fingerprint)
        looked = 0
        while True:
            with self._named(), self._chain.reading() as state:
                past = list(state.selections)
            if new in past:
                return
            judged = rules.minimum_frequency is not None
            old = [each for each in past[looked:] if judged and each.others & new.others]
            asked = [*old, new]
            stated = [Population(each.where, each.complete, each.by, each.readings) for each in asked]
            codebook = joint_codebook(question.codebook, stated)
            names = dict.fromkeys(name for each in stated for name, _ in each.readings)
            table = table_of(codebook, tuple(names))
            totals, apart = compared(table, [_members(table, each) for each in stated], asked)
            for each, between in zip(old, apart, strict=True):
                moved = min(abs(was - now) for was, now in zip(each.totals, totals, strict=True))
                shifted = (
                    not between.counts and each.fingerprint != fingerprint and moved < (rules.minimum_frequency or 0)
                )
                if shifted or between.few(rules.minimum_frequency or 0):
                    raise Refused(_FEW)
            looked = len(past)
            with self._named(), self._chain.writing() as state:
                if len(state.selections) > looked:
                    continue
                self._chain.append("units", run, study, facts=_told(new, totals))
                return

    def together(
        self,
        run: str,
        study: str,
        question: Question[Any],
        discloses: Cells | Model,
        fingerprint: str,
        table_of: TableOf,
        rules: Rules,
    ) -> None:
        """Judge an exact answer together with all earlier ones (`statfed.client.guard.joint`), and record it.

        As `admit`. Raises Refused. Coefficients of earlier answers are those over the data of today.
        """
        if rules.joint_share is None:
            return
        new = joint.recipe(question, discloses)
        while True:
            with self._named(), self._chain.reading() as state:
                past = dict(state.recipes)
            if past.get(new) == fingerprint:
                return
            asked = [(question, discloses, new)]
            asked += [(*joint.read_recipe(text, question.codebook), text) for text in past if text != new]
            names = dict.fromkeys(
                name for one, _, text in asked for name in (*columns_read(one), *joint.names_of(text))
            )
            table = table_of(question.codebook, (*names, *owners(question.codebook)))
            own = {name for block in joint.blocks(table, question, discloses, new) for name in block.of}
            found = [block for one, of, text in asked for block in joint.blocks(table, one, of, text)]
            if joint.few(table, found, own, rules):
                raise Refused(_JOINT)
            if rules.dominance_k is not None or rules.p_percent is not None:
                share = joint.determined(table, found, own, values=True)
                alone = rules.p_percent is not None and 1 - share < rules.p_percent / 100 * share
                if alone or (rules.dominance_k is not None and 100 * share > rules.dominance_k):
                    raise Refused(_JOINT)
            with self._named(), self._chain.writing() as state:
                if state.recipes != past:
                    continue
                self._chain.append("sums", run, study, facts={"recipe": new, "fingerprint": fingerprint})
                return

    def cut(self, run: str, study: str, question: Question[Any], cuts: Sequence[Cuts], least: int) -> None:
        """Judge cuts of columns together with all earlier ones, and record them. Raises Refused.

        least: fewest records between two edges. What others recorded meanwhile is compared before recording.
        """
        where = tuple(sorted({canonical(clause) for clause in question.terms.where}))
        named = [(one, (one.column, where, tuple(sorted(one.cell)))) for one in cuts]
        compared: dict[Cut, int] = {}
        while True:
            with self._named(), self._chain.reading() as state:
                past = {made: tuple(state.cuts.get(made, ())) for _, made in named}
            for one, made in named:
                if (tuple(sorted(one.edges)), one.by) in past[made]:
                    continue
                if unsafe(one, past[made], least):
                    raise Refused(f"{FREQUENCY}: {one.column}: too few records between two edges")
            compared = {made: len(found) for made, found in past.items()}
            with self._named(), self._chain.writing() as state:
                if any(len(state.cuts.get(made, ())) > n for made, n in compared.items()):
                    continue
                for one, made in named:
                    edges = tuple(sorted(one.edges))
                    if (edges, one.by) not in past[made]:
                        facts: dict[str, Any] = {
                            "column": one.column,
                            "where": list(where),
                            "cell": [list(c) for c in made[2]],
                        }
                        facts |= {"edges": [[edge, closed] for edge, closed in edges], "by": list(one.by)}
                        self._chain.append("cut", run, study, facts=facts)
                return

    def verify(self) -> str:
        """Recompute the whole file and return the hash of its last entry. Raises LedgerCorrupt naming what is wrong."""
        with self._named():
            return self._chain.verify()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say which file is meant, and that it stops exact releases, or linkages, only."""
        try:
            yield
        except LedgerCorrupt as error:
            what, stopped = ("linkages", "units are not linked") if self._name == LINKED else _EXACT
            raise LedgerCorrupt(
                f"{self._name}, the record of past {what}: {error}; {stopped} until it is restored"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._chain.close()

    def __enter__(self) -> "Releases":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _told(one: Selection, totals: tuple[int, int]) -> Mapping[str, Any]:
    return {
        "where": list(one.where),
        "complete": list(one.complete),
        "by": list(one.by),
        "readings": [list(pair) for pair in one.readings],
        "parts": list(one.parts),
        "parted": one.parted,
        "others": sorted(one.others),
        "fingerprint": one.fingerprint,
        "totals": list(totals),
    }


def _selection(facts: Mapping[str, Any]) -> Selection:
    some, every = facts["totals"]
    if type(some) is not int or type(every) is not int or type(facts["parted"]) is not bool:
        raise ValueError("units: got totals or a form that are none")
    readings = tuple((name, reading) for name, reading in facts["readings"])
    found = Selection(
        tuple(facts["where"]),
        tuple(facts["complete"]),
        tuple(facts["by"]),
        readings,
        tuple(facts["parts"]),
        facts["parted"],
        frozenset(facts["others"]),
        facts["fingerprint"],
        (some, every),
    )
    _ = [read_clause(clause) for clause in found.where]
    return found


def _totals(table: Table, new: Sequence[Population]) -> dict[Population, int]:
    counted = table.aggregate(**{f"p{i}": table.expr.count(where=_members(table, one)) for i, one in enumerate(new)})
    return {one: int(counted[f"p{i}"]) for i, one in enumerate(new)}


def _facts(analysis: str, fingerprint: str, population: Population, total: int) -> Mapping[str, Any]:
    return {
        "analysis": analysis,
        "fingerprint": fingerprint,
        "where": list(population.where),
        "complete": list(population.complete),
        "by": list(population.by),
        "readings": [list(pair) for pair in population.readings],
        "of": population.of,
        "total": total,
    }
