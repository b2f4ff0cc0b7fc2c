"""The design-based form of analyses of moments: three asks at most, the same for each of them.

`means` gives weighted means of the numbers in the cells of `by`; `spread`, about these as `centre`, weighted totals of
what the analysis makes of the deviations, with what their covariance needs (`_design_totals`); `rank` the degrees of
freedom of replicate weights (`_replication`). Records without a value, or outside the cells, stay in the design and
add nothing, which is how domains are estimated.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.errors import UsageError
from statfed.core.method import Arrays, Ask, Cells, Counts, Magnitude, Part, Question, Total
from statfed.core.result import Scalar
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Weighed
from statfed.strategies.analyses import _moments as m
from statfed.strategies.analyses._design_totals import (
    Spread,
    cells_of,
    spread_of,
    totals,
    totals_parts,
    totals_weigh,
)
from statfed.strategies.analyses._linearisation import psu_shape
from statfed.strategies.analyses._records import most_used
from statfed.strategies.analyses._replication import (
    rank_cells,
    rank_parts,
    rank_sums,
    rank_weighs,
    replicate_degrees,
    replication,
)
from statfed.strategies.analyses._survey import largest, limited, survey_design, times
from statfed.strategies.analyses._weighing import two_ways

Floats = NDArray[np.float64]
Block = Sequence[Expr]


@dataclass(frozen=True)
class DesignForm:
    """What an analysis computes from.

    numbers: of a table; bounds: of each; columns: those that they are made of; complete: columns without which a record
    counts for no number; by: columns of cells. blocks: of the deviations of the numbers from their centres, null where
    missing, and of indicators of the cells, what `spread` adds up (see `_design_totals`); reach: their bounds, from
    those of the deviations.
    """

    numbers: Callable[[Table], list[Expr]]
    bounds: Sequence[m.Bounds]
    columns: tuple[str, ...]
    by: tuple[str, ...]
    blocks: Callable[[list[list[Expr]], list[Expr]], Sequence[Block]]
    reach: Callable[[Floats], Floats]
    complete: tuple[str, ...] = ()

    def check(self, question: Question[Any]) -> None:
        """Raises UsageError where the codebook's design does not do, or there is too much of it."""
        design = survey_design(question)
        if design.replicates:
            replication(question.codebook)
        shape = (len(self.bounds), *m.level_shape(question.codebook, self.by))
        blocks, k = self.reach(np.ones(shape)).shape
        each = len(design.replicates) if design.replicates else int(np.prod(psu_shape(design, question.codebook))) * k
        limited(blocks * k * each, "strata x PSUs x cells")

    def parts(self, question: Question[Any], ask: Ask) -> Mapping[str, Part]:
        design, codebook = survey_design(question), question.codebook
        shape = (len(self.bounds), *m.level_shape(codebook, self.by))
        if ask.name == "means":
            counts, summed = Counts(self.by), Magnitude("count")
            heaviest = largest(codebook, design.weight)
            wide = np.array([m.largest(b) for b in self.bounds]).reshape(-1, *(1,) * len(self.by)) * np.ones(shape)
            return {
                "records": Part(integer=True, bound=1, what=Counts(beside="count")),
                "left_out": Part(integer=True, bound=1, what=Counts(beside="left_out")),
                "count": Part(shape, 1.0, integer=True, single=shape[0] == 1, what=counts),
                "weight": Part(shape, heaviest, single=shape[0] == 1, what=summed if design.weight else counts),
                "sum": Part(shape, times(heaviest, wide), single=shape[0] == 1, what=summed),
            }
        if ask.name == "spread":
            reach = self.reach(m.reach(self.bounds, ask.arrays["centre"]))
            return totals_parts(design, codebook, reach, Magnitude())
        if ask.name == "rank" and design.replicates:
            return rank_parts(question, design)
        raise UsageError(f"{question.terms.method}: unknown ask: got {ask.name!r}; want means, spread or rank")

    def contribute(self, table: Table, question: Question[Any], ask: Ask) -> Arrays:
        design = survey_design(question)
        sample = design.sample(table)
        if ask.name == "rank":
            return rank_sums(sample, design)
        if ask.name == "spread":
            return totals(sample, design, self._made(sample, ask))
        numbers = self._known(sample)
        weight = sample.number(design.weight) if design.weight else real(1.0)
        asked: dict[str, Expr] = {}
        for i, x in enumerate(numbers):
            w = x.notnull().ifelse(weight, real(0.0))
            asked |= {f"count{i}": x.count(), f"weight{i}": w.sum(), f"sum{i}": (x * weight).sum()}
        found = sample.grid(self.by, **asked)
        stacked = {n: np.stack([found[f"{n}{i}"] for i in range(len(numbers))]) for n in ("count", "weight", "sum")}
        counted = table.aggregate(all=table.expr.count())["all"]
        records = sample.aggregate(n=sample.expr.count())["n"]
        whole: Arrays = {"records": np.array(records, np.int64), "left_out": np.array(counted - records, np.int64)}
        return {**whole, **{n: a.astype(np.int64 if n == "count" else np.float64) for n, a in stacked.items()}}

    def weighs(self, table: Table, question: Question[Any], ask: Ask) -> Iterator[Weighed]:
        design = survey_design(question)
        sample = design.sample(table)
        if ask.name == "rank":
            yield from rank_weighs(sample, design)
            return
        inside = sample.complete(self.by)
        numbers = self._known(inside)
        if ask.name == "spread":
            values = [value for block in self._made(inside, ask) for value in block]
            yield from totals_weigh(inside, design, values, self.by)
            return
        yield Amounts(inside, tuple(numbers), self.by)
        if design.weight:
            weight = inside.number(design.weight)
            yield Amounts(inside, (weight, *(x * weight for x in numbers)), self.by)
            there = [x.notnull().ifelse(real(1.0), real(0.0)) for x in numbers]
            yield from two_ways(inside, [*there, *numbers], design.weight, self.by)

    def discloses(self, question: Question[Any], ask: Ask) -> Cells:
        design = survey_design(question)
        if ask.name == "rank":
            return rank_cells(design)
        weights = (*((design.weight,) if design.weight else ()), *(design.replicates if ask.name == "spread" else ()))
        by = (*(cells_of(design) if ask.name == "spread" else ()), *self.by)
        return Cells(tuple(dict.fromkeys(by)), (*self.columns, *weights), (*design.columns, *self.complete))

    def reads(self, question: Question[Any]) -> tuple[str, ...]:
        """Columns that are read."""
        return tuple(dict.fromkeys((*self.columns, *self.by, *survey_design(question).columns)))

    def coordinate(self, question: Question[Any]) -> Generator[Ask, Total, tuple["Means", Spread]]:
        """Both asks, and the degrees of freedom. Raises UsageError on a lonely PSU, and on weights below 0."""
        first = yield Ask("means")
        if (first["weight"] < 0).any():
            raise UsageError("weight: got negative totals; want weights that are not negative")
        some = np.where(first["weight"] > 0, first["weight"], 1.0)
        centre = np.where(first["weight"] > 0, first["sum"] / some, 0.0)
        second = yield Ask("spread", {"centre": centre})
        design = survey_design(question)
        df = (yield from replicate_degrees(question)) if design.replicates else None
        means = Means(int(first["records"]), int(first["left_out"]), first["count"], centre)
        return means, spread_of(question.codebook, design, second, df)

    def _known(self, table: Table) -> list[Expr]:
        """The numbers, null in records that lack a column which all need."""
        numbers = self.numbers(table)
        for name in self.complete:
            numbers = [table[name].notnull().ifelse(x, real(0.0).nullif(real(0.0))) for x in numbers]
        return numbers

    def _made(self, sample: Table, ask: Ask) -> Sequence[Block]:
        centre = ask.arrays["centre"]
        rows = m.level_rows(sample.codebook, self.by)
        inside: list[Expr] = []
        for _, labels in rows:
            one = real(1.0)
            for name, code in labels.items():
                one = (sample[name].cast("string") == code).ifelse(one, real(0.0))
            inside.append(one)
        numbers = self._known(sample)
        deviations = [[x - real(float(centre[(i, *at)])) for at, _ in rows] for i, x in enumerate(numbers)]
        return self.blocks(deviations, inside)


@dataclass(frozen=True)
class Means:
    """records: of the sample; left_out: those that lack a variable of the design. count, mean: (numbers, *levels)."""

    records: int
    left_out: int
    count: NDArray[np.int64]
    mean: Floats

    @property
    def facts(self) -> dict[str, Scalar]:
        """Records that are used for the number that has most, those without a value, and those left out."""
        used = most_used(self.count)
        return {"observations": used, "missing": self.records - used, "left_out": self.left_out}
