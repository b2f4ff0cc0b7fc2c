"""What `mst` and `aim` ask of holders: margins of single columns, coarse ones of all pairs, and those of chosen pairs.

Formal guarantees. Every ask is one protected sum of counts with the noise that core adds for its share of the budget:
a margin is a part to one entry of which a record contributes 1. All else follows from sums that have their noise: which
cells are merged, which pairs are chosen, how the model is fitted. So structure is selected by post-processing, and
nobody, the coordinator included, sees an exact score; no exponential mechanism is used, which would need one. What is
paid for that is the share of the coarse counts. Groups and pairs come with an ask as public arrays, chosen on seeing
totals: the budget is `Adaptive`, and what a holder has charged is bounded by its filter whatever the arrays are.

Source: McKenna, Miklau and Sheldon 2021 (MST) and McKenna, Mullins, Sheldon and Miklau 2022 (AIM) for measuring chosen
margins and fitting a graphical model to them; there a trusted curator selects by the exponential mechanism, in CaPS
(arXiv 2402.08614) multi-party computation does.
"""

import hashlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from statfed.core.codebook import Codebook
from statfed.core.errors import UsageError
from statfed.core.method import Adaptive, Arrays, Ask, Cells, Counts, Part, Question, Total, once
from statfed.core.privacy.noise import settled
from statfed.core.result import Basis, Result, Row, Scalar
from statfed.core.section import Section
from statfed.core.synthetic.coded import described
from statfed.core.table import Table
from statfed.strategies.analyses._classes import Axis, axis_of
from statfed.strategies.analyses._dual import nearest
from statfed.strategies.analyses._graph import Junction, Measured, fitted, junction
from statfed.strategies.analyses._merging import coarser, merged_alike
from statfed.strategies.analyses._zeros import Side, Zeros, cuts_of, marks_of, sides_of, zeros_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pair = tuple[int, int]
"""Two columns by place, the first one before the second."""
SINGLE, COARSE, CHOSEN = "single", "coarse", "chosen"
"""Asks, and what the rows of a result are of."""
_MARGIN, _GROUP = ("level", "first", "second", "grouping", "cell"), ("column", "cell", "group", "coarse")
MOST_COLUMNS, MOST_CELLS = 60, 4_000_000
MOST_CLIQUE = 20_000
"""Cells of a clique in a model with rules: a rule that takes more is left to those who draw, who draw anew."""
_STEPS = 60
"""Of mirror descent, for a model by which pairs are looked at."""
_ROUNDS = 150
"""Of the search for a model without impossible cells."""
_DRAWN = 40_000
"""Records of such a model; drawn with a fixed seed, so that runs can be repeated."""
_LEAST = 2.0  # times the noise of a single column's cell: the least count of a group


class Options(Section):
    """Options of mst and of aim."""

    columns: tuple[str, ...] = Field(
        default=(), max_length=MOST_COLUMNS, description="columns with levels or bounds; none: all of the codebook's"
    )
    classes: int = Field(default=100, ge=1, le=1000, description="about how many classes numbers and dates have")
    coarse: int = Field(default=4, ge=2, le=8, description="groups of a column in the counts that pairs are chosen by")
    shares: tuple[float, float, float] = Field(
        default=(0.2, 0.2, 0.6), description="of the budget: single columns, all pairs coarsely, chosen pairs"
    )
    least: float = Field(
        default=10.0, ge=1, description="fewest records of a group of cells, in standard deviations of a pair's cell"
    )


@once
def axes_of(question: Question[Options]) -> tuple[Axis, ...]:
    """The cells of every column, before they are merged. Raises UsageError on options that do not fit."""
    options = question.options
    names = tuple(dict.fromkeys(options.columns)) or described(question.codebook)
    if not 1 <= len(names) <= MOST_COLUMNS:
        raise UsageError(f"columns: got {len(names)} with levels or bounds; want 1 to {MOST_COLUMNS}")
    if min(options.shares) <= 0 or not np.isclose(sum(options.shares), 1.0):
        raise UsageError(f"shares: got {', '.join(map(str, options.shares))}; want three above 0 that add up to 1")
    return _axes(question.codebook, names, options.classes)


def _axes(codebook: Codebook, names: Sequence[str], classes: int) -> tuple[Axis, ...]:
    cuts = cuts_of(codebook)
    return tuple(axis_of(codebook, name, classes, cuts=cuts.get(name, ())) for name in names)


@once
def _sides(question: Question[Options]) -> list[tuple[Side, ...]]:
    return sides_of(question.codebook, axes_of(question))


def columns(question: Question[Options]) -> tuple[str, ...]:
    return tuple(axis.name for axis in axes_of(question))


def budget(question: Question[Options]) -> Adaptive:  # noqa: ARG001
    return Adaptive(most=MOST_COLUMNS)


@dataclass(frozen=True)
class Asked:
    """What an ask counts: margins, and by column the group of each of its cells."""

    margins: tuple[tuple[int, ...], ...]
    groups: tuple[Ints, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(int(one.max()) + 1 for one in self.groups)

    def shape(self, margin: Sequence[int]) -> tuple[int, ...]:
        return tuple(self.sizes[column] for column in margin)


def asked(question: Question[Options], ask: Ask) -> Asked:
    """What an ask counts. Raises UsageError on one that is none, and on arrays that do not fit."""
    axes = axes_of(question)
    if ask.name == SINGLE:
        return Asked(tuple((i,) for i in range(len(axes))), tuple(np.arange(axis.cells) for axis in axes))
    if ask.name not in (COARSE, CHOSEN):
        raise UsageError(f"ask: got {ask.name!r}; want {SINGLE}, {COARSE} or {CHOSEN}")
    given = np.asarray(ask.arrays.get("groups", np.zeros(0, np.int64)))
    cells = [axis.cells for axis in axes]
    if given.dtype != np.int64 or given.shape != (sum(cells),):
        raise UsageError(
            f"groups: got {given.dtype} of shape {given.shape}; want a whole number for each of {sum(cells)}"
        )
    groups = tuple(np.split(given, np.cumsum(cells)[:-1]))
    for axis, one in zip(axes, groups, strict=True):
        axis.merged(one.tolist())
    pairs = np.asarray(ask.arrays.get("pairs", np.zeros(0, np.int64)))
    if pairs.dtype != np.int64 or pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise UsageError(f"pairs: got {pairs.dtype} of shape {pairs.shape}; want two whole numbers for each")
    margins = tuple((int(a), int(b)) for a, b in pairs)
    if len({*margins}) < len(margins) or any(not 0 <= a < b < len(axes) for a, b in margins):
        raise UsageError("pairs: got one twice, or of no two columns in their order; want different pairs of columns")
    found = Asked(margins, groups)
    if sum(int(np.prod(found.shape(margin))) for margin in margins) > MOST_CELLS:
        raise UsageError(f"pairs: got too many cells; want at most {MOST_CELLS:,}")
    return found


def parts(question: Question[Options], ask: Ask) -> Mapping[str, Part]:
    """A part for each margin. Without privacy it is not said what they are: they leave no holder with rules."""
    axes, found = axes_of(question), asked(question, ask)

    def what(margin: Sequence[int]) -> Counts | None:
        return Counts(tuple(axes[column].name for column in margin)) if question.privacy else None

    return {
        f"m{i}": Part(found.shape(margin), 1.0, integer=True, single=True, what=what(margin))
        for i, margin in enumerate(found.margins)
    }


def contribute(table: Table, question: Question[Options], ask: Ask) -> Arrays:
    """Counts of all margins, in one pass. A record that misses a value without a cell for it is in no margin of that
    column."""
    axes, found = axes_of(question), asked(question, ask)
    totals = [np.zeros(int(np.prod(found.shape(margin))), np.int64) for margin in found.margins]
    read = sorted({column for margin in found.margins for column in margin})
    for block in table.batches({f"a{column}": axes[column].expr(table) for column in read}):
        gone = np.isnan(block)
        cells = np.where(gone, 0, block).astype(np.int64)
        codes = {column: found.groups[column][cells[:, i]] for i, column in enumerate(read)}
        lost = {column: gone[:, i] for i, column in enumerate(read)}
        for total, margin in zip(totals, found.margins, strict=True):
            place, kept = np.zeros(len(block), np.int64), np.ones(len(block), np.bool_)
            for column, size in zip(margin, found.shape(margin), strict=True):
                place = place * size + codes[column]
                kept &= ~lost[column]
            total += np.bincount(place[kept], minlength=len(total))
    shaped = zip(totals, found.margins, strict=True)
    return {f"m{i}": total.reshape(found.shape(margin)) for i, (total, margin) in enumerate(shaped)}


def discloses(question: Question[Options], ask: Ask) -> Cells:  # noqa: ARG001
    return Cells(tuple(axis.name for axis in axes_of(question) if axis.levels), together=2)


@dataclass(frozen=True, eq=False)
class Told:
    """What the asks have told. single: counts of each column's cells; noise: their standard deviation. groups: by
    column the group of each cell, coarse: of each group the coarse one. pairs: coarse counts of all pairs, and the
    counts of those that were chosen. zeros: groups that the codebook's rules make impossible."""

    single: tuple[Floats, ...]
    noise: tuple[float, ...]
    groups: tuple[Ints, ...]
    coarse: tuple[Ints, ...]
    pairs: Mapping[Pair, tuple[Floats, float]] = field(default_factory=dict)
    chosen: Mapping[Pair, tuple[Floats, float]] = field(default_factory=dict)
    zeros: Zeros = field(default_factory=dict)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Groups of each column."""
        return tuple(int(groups.max()) + 1 for groups in self.groups)

    @property
    def grouped(self) -> list[Floats]:
        """Counts of each column's groups."""
        return [np.bincount(g, weights=v).astype(np.float64) for g, v in zip(self.groups, self.single, strict=True)]

    @property
    def total(self) -> float:
        """The number of records, from the columns' own sums, those of fewer cells weighing more; at least 1."""
        return max(1.0, float(np.average([v.sum() for v in self.single], weights=[1 / len(v) for v in self.single])))

    @property
    def varying(self) -> list[int]:
        """Columns with more than one group."""
        return [column for column, size in enumerate(self.sizes) if size > 1]

    @cached_property
    def ruled(self) -> list[Pair]:
        """Pairs of columns of which rules make groups impossible, as far as they leave every clique few cells."""
        pairs = [(pair[0], pair[1]) for pair in self.zeros if len(pair) == 2]
        if largest(junction(self.sizes, pairs)) <= MOST_CLIQUE:
            return pairs
        found: list[Pair] = []
        for pair in pairs:
            if largest(junction(self.sizes, [*found, pair])) <= MOST_CLIQUE:
                found.append(pair)
        return found

    def measured(self) -> list[Measured]:
        """Everything, for a model whose cells are the groups."""
        found = []
        for column, (groups, counts) in enumerate(zip(self.groups, self.grouped, strict=True)):
            noise = self.noise[column] * np.sqrt(np.bincount(groups))
            found.append(Measured((column,), counts, noise, {}))
        for pair, (counts, error) in self.chosen.items():
            found.append(Measured(pair, counts, np.full(counts.shape, error), {}))
        for pair, (counts, error) in self.pairs.items():
            found.append(Measured(pair, counts, np.full(counts.shape, error), {c: self.coarse[c] for c in pair}))
        return found

    def coarsely(self, pair: Pair, counts: Floats) -> Floats:
        """Counts of a pair's groups in the cells of its coarse groups."""
        exact = np.zeros(counts.shape)
        return Measured(pair, exact, exact, {c: self.coarse[c] for c in pair}).of(counts, pair)

    def dependent(self, pair: Pair, expected: Floats) -> float:
        """How far a pair's coarse counts are from expected ones, less what their noise alone would make: records, in L1
        norm; below 0 where it is less than that."""
        counts, noise = self.pairs[pair]
        return float(np.abs(counts - expected).sum()) - expected_noise(noise, counts.size)

    def independent(self, pair: Pair) -> Floats:
        """Coarse counts of a pair as they would be of independent columns."""
        one, two = (np.maximum(self.grouped[column], 0.0) for column in pair)
        whole = max(1.0, float(one.sum()) * float(two.sum()))
        return self.coarsely(pair, np.outer(one, two) * self.total / whole)


def expected_noise(noise: float, cells: int) -> float:
    """The L1 norm of Gaussian noise of so many cells."""
    return noise * cells * float(np.sqrt(2 / np.pi))


def merging(question: Question[Options], total: Total, chosen: int) -> Told:
    """Groups from the counts of single columns. chosen: pairs that will be counted."""
    options, axes = question.options, axes_of(question)
    single = tuple(np.asarray(total[f"m{i}"], np.float64) for i in range(len(axes)))
    noise = tuple(float(total.noise[f"m{i}"].max(initial=0.0)) for i in range(len(axes)))
    first, _, last = options.shares
    ratio = (max(chosen, 1) / last) / (len(axes) / first)  # of variances; with Laplace noise of standard deviations
    later = max(noise) * (ratio if _laplace(question) else np.sqrt(ratio))
    least = max(options.least * later, _LEAST * max(noise), 1.0)
    sides = _sides(question)
    marks = marks_of(sides, axes)
    each = zip(single, axes, marks, strict=True)
    groups = tuple(merged_alike(v, least, not axis.levels, mark) for v, axis, mark in each)
    counts = [np.bincount(g, weights=v).astype(np.float64) for g, v in zip(groups, single, strict=True)]
    alone = [axis.missing and int((mark == mark[-1]).sum()) == 1 for axis, mark in zip(axes, marks, strict=True)]
    coarse = tuple(
        _coarsened(v, options.coarse, not axis.levels, last) for v, axis, last in zip(counts, axes, alone, strict=True)
    )
    return Told(single, noise, groups, coarse, zeros=zeros_of(sides, groups))


def _coarsened(counts: Floats, most: int, ordered: bool, alone: bool) -> Ints:
    """Coarse groups. alone: the last group, of missing values that rules tell from others, is one by itself."""
    if not alone or len(counts) < 2:
        return coarser(counts, most, ordered)
    rest = coarser(counts[:-1], most, ordered)
    return np.append(rest, int(rest.max()) + 1)


def _laplace(question: Question[Options]) -> bool:
    return question.privacy is not None and settled(question.privacy) == "discrete-laplace"


def begun(question: Question[Options], chosen: int) -> Generator[Ask, Total, Told]:
    """Single columns, and all pairs coarsely, of as many columns as vary. chosen: pairs that will be counted later. Of
    one column alone the whole budget goes to it."""
    first, second, _ = question.options.shares
    total = yield Ask(SINGLE, share=first if len(axes_of(question)) > 1 else 1.0)
    told = merging(question, total, chosen)
    if len(told.varying) < 2:
        return told
    ask = coarse_ask(told, second)
    return replace(told, pairs=counted(ask, (yield ask)))


def coarse_ask(told: Told, share: float) -> Ask:
    """All pairs of columns that vary, in coarse groups."""
    groups = [coarse[fine] for fine, coarse in zip(told.groups, told.coarse, strict=True)]
    pairs = np.array(list(combinations(told.varying, 2)), np.int64)
    return Ask(COARSE, {"groups": np.concatenate(groups), "pairs": pairs}, share=share)


def chosen_ask(told: Told, pairs: Sequence[Pair], share: float) -> Ask:
    """Some pairs, in the groups of their columns."""
    return Ask(CHOSEN, {"groups": np.concatenate(told.groups), "pairs": np.array(pairs, np.int64)}, share=share)


def counted(ask: Ask, total: Total) -> dict[Pair, tuple[Floats, float]]:
    """Counts and noise of an ask's pairs."""
    found = {}
    for i, (a, b) in enumerate(ask.arrays["pairs"].tolist()):
        counts = np.asarray(total[f"m{i}"], np.float64)
        found[a, b] = counts, float(np.asarray(total.noise[f"m{i}"]).max(initial=0.0))
    return found


def spanning(told: Told) -> list[Pair]:
    """The pairs of a maximum spanning tree over the columns that vary, by how far they are from independence.

    With rules that make cells impossible: by how far from a model that knows them, and without pairs that would give a
    clique of it too many cells, so that it may be several trees.
    """
    without = modelled(told) if told.zeros else {pair: told.independent(pair) for pair in told.pairs}
    strength = {pair: told.dependent(pair, without[pair]) for pair in told.pairs}
    part = {column: column for column in told.varying}
    found: list[Pair] = []
    for pair in sorted(strength, key=lambda pair: (-strength[pair], pair)):
        one, other = part[pair[0]], part[pair[1]]
        few = not told.ruled or largest(tree_of(told, [*found, pair])) <= MOST_CLIQUE
        if one != other and few:
            part = {column: one if each == other else each for column, each in part.items()}
            found.append(pair)
    return found


def with_chosen(told: Told, more: Mapping[Pair, tuple[Floats, float]]) -> Told:
    return replace(told, chosen={**told.chosen, **more})


def tree_of(told: Told, more: Sequence[Pair] = ()) -> Junction:
    """A junction tree for the chosen pairs and some more, and for the pairs that are there for the sake of rules."""
    return junction(told.sizes, [*told.chosen, *more, *told.ruled])


def largest(tree: Junction) -> int:
    """Cells of the largest clique."""
    return max(int(np.prod(tree.shape(clique))) for clique in tree.cliques)


def model_of(told: Told, rounds: int) -> tuple[Junction, list[Floats]]:
    """The model that is nearest to all counts, among those without the impossible cells, and its cliques' margins.
    rounds: steps where nothing is impossible."""
    tree = tree_of(told)
    if told.zeros:
        return tree, nearest(tree, told.measured(), told.total, told.zeros, _ROUNDS)
    return tree, fitted(tree, told.measured(), told.total, rounds)[1]


def modelled(told: Told) -> Mapping[Pair, Floats]:
    """Coarse counts of the pairs that were not chosen yet, as the model has them."""
    tree, margins = model_of(told, _STEPS)
    records = tree.drawn(margins, _DRAWN, np.random.default_rng(0))
    found = {}
    for a, b in combinations(told.varying, 2):
        if (a, b) not in told.chosen:
            shape = (told.sizes[a], told.sizes[b])
            cells = np.ravel_multi_index((records[:, a], records[:, b]), shape)
            counts: Floats = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
            found[a, b] = told.coarsely((a, b), counts * (told.total / _DRAWN))
    return found


def result(question: Question[Options], told: Told, title: str) -> Result:
    """All counts, and the groups that they are of: what the model follows from."""
    axes, method = axes_of(question), question.terms.method
    rows: list[Row] = []
    for i, axis in enumerate(axes):
        rows += _rows(SINGLE, (axis.name, ""), "", told.single[i], told.noise[i])
    for level, pairs in ((COARSE, told.pairs), (CHOSEN, told.chosen)):
        for (a, b), (counts, noise) in pairs.items():
            groups = (told.groups[a], told.groups[b], told.coarse[a], told.coarse[b])
            rows += _rows(level, (axes[a].name, axes[b].name), _digest(groups), counts, noise)
    grouped: list[Row] = [
        {"column": axis.name, "cell": cell, "group": int(fine[cell]), "coarse": int(coarse[fine[cell]])}
        for axis, fine, coarse in zip(axes, told.groups, told.coarse, strict=True)
        for cell in range(axis.cells)
    ]
    basis = {
        "margins": Basis(keys=_MARGIN, counts=("count",), own=("std_error",)),
        "groups": Basis(keys=_GROUP),
    }
    facts: dict[str, Scalar] = {"pairs": len(told.chosen)}
    notes = (
        "std_error: the privacy noise of a count; counts of different margins are not sums of each other",
        "groups and pairs were chosen by counts that have their noise, and cost nothing more",
    )
    if question.privacy is None:  # linked tables, which no rule on single ones can judge together
        basis = {}
        facts |= {"records": int(told.single[0].sum())}
    tables = {"margins": rows, "groups": grouped}
    keys = {"margins": _MARGIN, "groups": _GROUP}
    return Result(method, title, tables, facts, notes, basis=basis, public=("pairs",), keys=keys)


def _rows(level: str, columns: tuple[str, str], grouping: str, counts: Floats, noise: float) -> list[Row]:
    first, second = columns
    place: dict[str, Scalar] = {"level": level, "first": first, "second": second, "grouping": grouping}
    return [
        place | {"cell": cell, "count": float(value), "std_error": noise} for cell, value in enumerate(np.ravel(counts))
    ]


def _digest(groups: Sequence[Ints]) -> str:
    return hashlib.sha256(b"".join(one.astype("<i8").tobytes() for one in groups)).hexdigest()[:12]


def _cell(row: Row) -> int:
    return int(row["cell"] or 0)


def told_of(released: Result, codebook: Codebook, classes: int) -> tuple[tuple[Axis, ...], Told]:
    """The axes, and what was told, from a released result. Raises UsageError where counts are withheld."""
    names = list(dict.fromkeys(str(row["column"]) for row in released.tables["groups"]))
    axes = _axes(codebook, names, classes)
    fine: dict[str, list[int]] = {name: [] for name in names}
    coarse: dict[str, dict[int, int]] = {name: {} for name in names}
    for row in sorted(released.tables["groups"], key=_cell):
        name, group = str(row["column"]), int(row["group"] or 0)
        fine[name].append(group)
        coarse[name][group] = int(row["coarse"] or 0)
    counts: dict[tuple[str, str, str], list[float]] = {}
    noise: dict[tuple[str, str, str], float] = {}
    for row in sorted(released.tables["margins"], key=_cell):
        key = (str(row["level"]), str(row["first"]), str(row["second"]))
        value = row["count"]
        if value is None:
            raise UsageError(f"{key[1]} x {key[2]}: got a count that was withheld; want all that were measured")
        counts.setdefault(key, []).append(float(value))
        noise[key] = float(row["std_error"] or 0.0)
    groups = tuple(np.array(fine[name], np.int64) for name in names)
    coarsened = tuple(np.array([coarse[name][g] for g in sorted(coarse[name])], np.int64) for name in names)
    single = tuple(np.array(counts[SINGLE, name, ""]) for name in names)
    pairs: dict[str, dict[Pair, tuple[Floats, float]]] = {COARSE: {}, CHOSEN: {}}
    for (level, first, second), values in counts.items():
        if level != SINGLE:
            a, b = names.index(first), names.index(second)
            of = coarsened if level == COARSE else groups
            shape = [int(of[column].max()) + 1 for column in (a, b)]
            pairs[level][a, b] = np.array(values).reshape(shape), noise[level, first, second]
    stated = tuple(noise[SINGLE, n, ""] for n in names)
    zeros = zeros_of(sides_of(codebook, axes), groups)
    return axes, Told(single, stated, groups, coarsened, pairs[COARSE], pairs[CHOSEN], zeros)
