"""All exact answers together: whether any combination of them tells too much of one contributor.

Every sum that leaves is a combination of the values of a column with coefficients that the asker knows: 1 in a cell and
0 outside, a weight, a column of a design. What can be computed of a column's values from all answers together is the
row space of those coefficients; numbers of records are the values 1. A contributor's share of the square of any vector
in it is at most its leverage h there, and is that for one; a value is determined exactly if and only if h = 1 (Chin and
Ozsoyoglu 1982 on auditing sums). So before an exact study is answered, its coefficients are put beside those of all
studies that were answered before, and it is refused where a contributor would have too large an h.

Formal guarantees. After every answer, in every linear combination of all exact sums that ever left over these data,
with coefficients a over contributors: (1) of sums over populations and cells, and with columns, that meet it in one
question by themselves, no contributor has more than 1/m of sum a^2, m the minimum frequency; cells of records do, those
of enterprises, say, of which one has many records or is in several cells, need not. So the effective number of
contributors (Kish 1965) is at least m, as in one cell: none is over fewer than m, of whom sums and sums of squares
would tell the values. (2) Of all sums, those with weights and skewed columns included, none has the share `joint_share`
or more: up to 1/2 no combination is over one or two contributors. That covers differences of any number of tables,
filters, weights and regressions. Leverages add up to the rank of all coefficients, so the rank of (1) is at most the
number of contributors over m: a limit on exact figures that follows from the data alone.

Why those have the weaker limit: a weight and 1 are two coefficients, and in small cells the one of largest weight has
much of their difference, whatever is asked. Columns of covariances are values, with the rules on values; designs of
regressions meet (1) by a rule of their own (`statfed.client.guard.weights`). Whom they are over is in (1) all the same.

*Dominance.* The same is asked of the coefficients times the values: the leverage of a contributor there is its largest
share of the squares of what contributors add to any combination of sums. So no difference of totals is one
contributor's, although many are in it, as a value that is 0 for nearly all would make it. It is held to the (n,k) rule
with n = 1 and the p% rule. This part does look at values: that it refuses is a bit about them, which is counted.

The first decision looks at the coefficients, that is at columns which make cells, conditions and designs, and at no
value that is only summed: with respect to these it could be simulated by the asker, so that a refusal tells nothing of
them (Kenthapadi, Mishra and Nissim 2005).

Weights with that role in the codebook are coefficients here, known to whoever asks, and no values.

The columns that blocks are made of are held in memory, records times blocks of them; vectors in batches.

Not covered: products of two different columns of a model's design, which are sums over those alone who are in the cells
of both. They are held to minimum frequency and dominance in those cells, each study by itself (`_weighing.crossed`),
and are not put beside other answers. And coefficients that follow from totals (the weights of an iterative fit, edges
of a quantile's bisection), which have rules of their own; combinations that are not linear; data that changed in
between; more than `MOST` vectors, beyond which nothing exact is answered.

Sources: Chin and Ozsoyoglu 1982, Auditing and inference control in statistical databases; Dobkin, Jones and Lipton
1979, Secure databases: protection against user influence.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from statfed.core.codebook import Codebook
from statfed.core.conditions import canonical, columns_of, read_clause
from statfed.core.disclosure import Rules
from statfed.core.errors import Refused, StatfedError
from statfed.core.method import Cells, Model, Question, columns_read, read_question
from statfed.core.table import Expr, Table, real
from statfed.core.terms import Terms
from statfed.core.weighing import WEIGHTS, owners

MOST = 3_000  # vectors that are looked at together
BATCH = 8_192  # records whose vectors are held at a time
NULL = 1e-12  # of the largest eigenvalue of scaled cross-products: a combination that vanishes
SMALL = 1e-9  # of a record's scaled coefficients: a combination that vanishes is smaller at every record
ROUNDING = 1e-9  # of a limit
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Block:
    """Coefficients of one part of a study. key: the same for the same coefficients. of: columns whose values they
    multiply; empty for numbers of records.

    code: numbers the cells from 1, 0 for records in none; each cell is a vector. Without a code the `columns` are
    vectors, 0 outside. weight: multiplies them.
    """

    key: str
    code: Expr | None = None
    weight: Expr | None = None
    columns: tuple[Expr, ...] = ()
    of: tuple[str, ...] = ("",)


def blocks(table: Table, question: Question[Any], one: Cells | Model, made: str) -> Iterator[Block]:
    """The coefficients of what an ask discloses. table: all records, unconditioned, with every column that is read.
    made: their recipe.
    """
    inside = [table.holds(condition).fill_null(False) for condition in question.terms.where]
    weights = [None, *json.loads(made)["weights"]]
    known = {name for name, column in question.codebook.columns.items() if column.role in WEIGHTS}
    complete = {*one.complete, *(one.by if isinstance(one, Cells) else ())}
    if isinstance(one, Model):
        member = _all([*inside, *(table[name].notnull() for name in sorted(complete))])
        spans: Callable[..., Sequence[Expr]] | None = getattr(question.method, "spans", None)
        columns = tuple(spans(table, question)) if spans else ()
        about = sorted({*complete, *one.marked} - known)
        for weight in weights:
            factor = table.number(weight) if weight else None
            chosen = tuple(ibis.ifelse(member, x, real(0.0)).fill_null(real(0.0)) for x in columns)
            yield Block(f"{made} {weight}", None, factor, chosen, ("", *about))
        if columns:  # whom they are over is known, whatever the columns are
            yield Block(f"{made} of whom", _code(table, (), member), of=("", *about))
        return
    for value in (None, *(name for name in one.values if name not in known)):
        full: list[str] = sorted({*complete, *([value] if value else [])})
        member = _all([*inside, *(table[name].notnull() for name in full)])
        for weight in weights:
            key = _canonical([sorted(one.by), full, json.loads(made)["where"], weight])
            if value or not weight:  # a weighted number of records is a sum of weights
                factor = table.number(weight) if weight else None
                yield Block(key, _code(table, one.by, member), factor, of=(value or "",))


def _all(conditions: Sequence[Expr]) -> Expr:
    return reduce(and_, conditions, ibis.literal(True))


def _code(table: Table, by: Sequence[str], member: Expr) -> Expr:
    place: Expr = ibis.dense_rank().over(order_by=[table[name] for name in by]) + 1 if by else ibis.literal(1)
    return ibis.ifelse(member, place, 0).cast("float64")


def determined(
    table: Table,
    found: Sequence[Block],
    of: Collection[str] | None = None,
    *,
    values: bool = False,
    whose: Sequence[str | None] = (),
) -> float:
    """The largest leverage of a contributor in all coefficients together of the values of one column, or of numbers of
    records; infinite beyond `MOST` vectors.

    of: the columns to look at, "" for numbers of records; all by default. values: of the coefficients times the values
    themselves, numbers of records left aside: the largest share of the squares of what contributors add to any sum.
    The worst over persons and enterprises, where columns tell whose a record is; or over `whose` alone.
    """
    spaces: dict[tuple[str, ...], tuple[str, list[Block]]] = {}
    for name in sorted({name for block in found for name in block.of} if of is None else of):
        own = {block.key: block for block in found if name in block.of}
        value = name if values and name in table.codebook.columns and table.codebook.columns[name].numeric else ""
        if value or not values:
            spaces.setdefault((value, *sorted(own)), (value, list(own.values())))
    whose = whose or owners(table.codebook) or (None,)
    each = (_determined(table, own, owner, value) for value, own in spaces.values() if own for owner in whose)
    return max(each, default=0.0)


def few(table: Table, found: Sequence[Block], of: Collection[str], rules: Rules) -> bool:
    """Does some combination rest on too few contributors, or too much on one of them? See the guarantees above."""
    if rules.joint_share is None:
        return False
    least = rules.minimum_frequency
    if least is not None:
        plain, most = {block.key: block for block in found if block.weight is None}.values(), (1 + ROUNDING) / least
        for owner in owners(table.codebook) or (None,):
            spread = [b for b in plain if determined(table, [b], of, whose=[owner]) <= most]
            if determined(table, spread, of, whose=[owner]) > most:
                return True
    return 100 * determined(table, found, of) >= rules.joint_share * (1 - ROUNDING)


def _determined(table: Table, found: Sequence[Block], owner: str | None, value: str) -> float:
    named: dict[str, Expr] = {"value": table.number(value).fill_null(real(0.0)) if value else real(1.0)}
    for i, block in enumerate(found):
        if block.code is not None:
            named[f"code{i}"] = block.code
        if block.weight is not None:
            named[f"weight{i}"] = block.weight.fill_null(0.0)
        named |= {f"column{i}_{j}": column for j, column in enumerate(block.columns)}
    whose = {} if owner is None else {"owner": ibis.dense_rank().over(order_by=table.expr[owner]).cast("float64")}
    chosen = table.expr.select(**whose, **named)
    data = np.concatenate([*_batches(table, chosen, [*whose, *named])] or [np.zeros((0, len(whose) + len(named)))])
    starts, ends = np.zeros(0, np.int64), list[int]()
    if owner is not None and len(data):
        data = data[np.argsort(data[:, 0], kind="stable")]
        starts = np.flatnonzero(np.r_[True, np.diff(data[:, 0]) > 0])
        ends = [*starts[1:].tolist(), len(data)]
    at = {name: i + len(whose) for i, name in enumerate(named)}
    cells = {i: int(data[:, at[f"code{i}"]].max(initial=0)) for i, block in enumerate(found) if block.code is not None}
    width = sum(cells.values()) + sum(len(block.columns) for block in found)
    if width > MOST:
        return np.inf

    def vectors() -> Iterator[Floats]:
        if owner is None:
            for start in range(0, len(data), BATCH):
                yield _expanded(data[start : start + BATCH], found, at, cells, width)
            return
        first = 0
        while first < len(starts):
            last = first + 1
            while last < len(starts) and ends[last] - starts[first] <= BATCH:
                last += 1
            some = _expanded(data[starts[first] : ends[last - 1]], found, at, cells, width)
            yield np.add.reduceat(some, starts[first:last] - starts[first], axis=0)
            first = last

    return _largest(vectors, width)


def _batches(table: Table, chosen: Expr, names: Sequence[str]) -> Iterator[Floats]:
    yield from replace(table, expr=chosen).batches([chosen[name] for name in names])


def _expanded(data: Floats, found: Sequence[Block], at: dict[str, int], cells: dict[int, int], width: int) -> Floats:
    """(records, width): the vectors of all blocks at some records."""
    made, place, rows = np.zeros((len(data), width)), 0, np.arange(len(data))
    times = data[:, at["value"]][:, None]
    for i, block in enumerate(found):
        weight = data[:, at[f"weight{i}"]] if block.weight is not None else np.ones(len(data))
        if block.code is not None:
            code = data[:, at[f"code{i}"]].astype(np.int64)
            inside = code > 0
            made[rows[inside], place + code[inside] - 1] = weight[inside]
            place += cells[i]
        for j in range(len(block.columns)):
            made[:, place] = data[:, at[f"column{i}_{j}"]] * weight
            place += 1
    return made * times


def _largest(vectors: Callable[[], Iterator[Floats]], width: int) -> float:
    sums = np.zeros((width, width))
    for block in vectors():
        sums += block.T @ block
    scale = np.sqrt(np.diag(sums))
    used = scale > 0
    if not np.isfinite(scale).all():
        return np.inf
    if not used.any():
        return 0.0
    values, turned = np.linalg.eigh(sums[np.ix_(used, used)] / np.outer(scale[used], scale[used]))
    kept = values > NULL * max(1.0, values[-1])
    whitened = turned[:, kept] / np.sqrt(values[kept]) / scale[used, None]
    worst, null = 0.0, turned[:, ~kept] / scale[used, None]
    for block in vectors():
        if (np.abs(block[:, used] @ null) > SMALL * np.abs(block[:, used] / scale[used]).sum(1, keepdims=True)).any():
            return np.inf  # not null, and too small for cross-products to tell
        worst = max(worst, float(((block[:, used] @ whitened) ** 2).sum(axis=1).max(initial=0.0)))
    return worst


def recipe(question: Question[Any], one: Cells | Model) -> str:
    """What the coefficients of an ask follow from, beside the codebook: canonical JSON of public facts."""
    where = sorted((json.loads(canonical(clause)) for clause in question.terms.where), key=_canonical)
    named = getattr(question.options, "weight", None)  # one that the policy allows need not have the role
    weights = sorted(
        name for name in columns_read(question) if name == named or question.codebook.columns[name].role in WEIGHTS
    )
    told: dict[str, Any] = {"where": where, "weights": weights}
    if isinstance(one, Cells):
        return _canonical(told | {"by": one.by, "values": one.values, "complete": one.complete})
    terms = question.terms
    return _canonical(
        told
        | {"method": terms.method, "options": terms.options, "parameters": one.parameters, "complete": one.complete}
        | ({"marked": one.marked} if one.marked else {})
    )


def read_recipe(text: str, codebook: Codebook) -> tuple[Question[Any], Cells | Model]:
    """The question of a recipe and what it disclosed, under a codebook. Raises Refused where it is not understood."""
    told = json.loads(text)
    where = tuple(map(read_clause, told["where"]))
    count = {"method": "count", "options": {}}
    if "by" in told:
        one: Cells | Model = Cells(tuple(told["by"]), tuple(told["values"]), tuple(told["complete"]))
    else:
        one = Model(told["parameters"], tuple(told["complete"]), tuple(told.get("marked", ())))
        count = {"method": told["method"], "options": told["options"]}
    try:
        terms = Terms.model_validate(count | {"codebook": codebook, "where": where, "holders": ["here"], "seed": None})
        return read_question(terms)[1], one
    except (StatfedError, ValidationError):
        raise Refused("an earlier exact study is not understood any more; nothing exact leaves") from None


def names_of(text: str) -> tuple[str, ...]:
    """Columns that a recipe of cells reads."""
    told = json.loads(text)
    read = (*told.get("by", ()), *told.get("values", ()), *told["complete"], *told["weights"])
    return tuple(dict.fromkeys((*read, *columns_of(map(read_clause, told["where"])))))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
