"""Rules on how contributors weigh in sums: for any weight, any formula and any method, from `statfed.core.weighing`.

Formal guarantees. A *contributor* is a person, an enterprise, or a record where no column has such a role; where both
roles exist the rules hold for each. Let v be the vector that a contributor adds to the sums of one `Rows` (its records
added up), S the sum of v v', and h = v' S^+ v its leverage. For every combination a of the columns the contributor's
share of the sum of (a'v)^2 is at most h (Cauchy and Schwarz; attained at a = S^+ v), so a bound on leverages is a bound
for all combinations at once, also for those that the asker thinks of later:

1. *Effective number* (`counting`, under a minimum frequency m): h <= 1/m for every contributor. Then in every
   combination the shares s of the sum of (a'v)^2 have 1 / sum s^2 >= m, and (sum |a'v|)^2 / sum (a'v)^2 >= m, since
   sum |a'v| >= sum (a'v)^2 / max |a'v|. Kish's effective sample size is the case of one column. The indicator of a
   level is the smallest one: h = 1/n, so that this is the rule on frequencies wherever cells are built of columns.
   Where contributors have several records, the sum of the leverages of a contributor's records is bounded as well,
   which bounds its share of every quadratic sum.
2. *Dominance* ((n,k) and p%, values): let l be the largest eigenvalue of the n contributors' part of S in the metric of
   S, at most the sum of their leverages. In every combination the n largest have at most the share l of the squares,
   so the rule on squares is l <= k; and of the absolute values at most u / (u + sqrt(1 - l)) with u the sum of their
   sqrt(h), since the others' absolute values add up to at least the root of their squares: that share is held to k as
   well. Likewise for the p% rule, on squares and on absolute values.

Pairs with one of the `TOP` contributors of largest leverage are looked at exactly, others by the sum of leverages.

Amounts are held to the (n,k) and p% rule entry by entry and cell by cell, on absolute values.

What it is not: an argument against combinations of many figures. Enough exact answers tell everything (Dinur and
Nissim 2003); all answers are judged together in `statfed.client.guard.joint`. Columns of which a combination
is small at all records and null at none, for want of digits, are refused as undecided.

Sources: Hoaglin and Welsch 1978, The hat matrix in regression and ANOVA; Kish 1965, Survey Sampling, section 11.7;
Hundepool et al. 2012, Statistical Disclosure Control, section 4.2.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.disclosure import Rules
from statfed.core.table import Expr, Table
from statfed.core.weighing import Amounts, Cuts, Rows, Weighed, owners

FREQUENCY, DOMINANCE, P_PERCENT = "minimum frequency", "(n,k) dominance", "p% rule"
UNDECIDED = "nearly collinear columns"
TOP = 48  # contributors of which all pairs are looked at
HALF = 0.5  # of the sum of the two largest leverages, up to which it is near enough to what two can have together
DIGITS = 1e-11  # of an eigenvalue of the scaled cross-products, below which they do not tell it from 0
HELD = 2**27  # bytes of a stream that is kept in memory
STAGES = 4  # of orthogonalisation
NULL = 1e-12  # of a record's scaled values: a combination that is smaller at every record is 0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Leverages:
    """Leverages of the contributors in the sums of some columns; all zero where there are no records.

    largest: of one contributor. together: the largest share that `n` contributors together can have in any
    combination; two: the same of two. roots: sum of the n largest square roots. own: the largest sum over the records
    of one contributor. undecided: too few digits to tell.
    """

    largest: float = 0.0
    together: float = 0.0
    two: float = 0.0
    roots: float = 0.0
    own: float = 0.0
    undecided: bool = False


def failing(weighed: Weighed, rules: Rules) -> Iterator[tuple[str, bool]]:
    """Names of the rules that are looked at, and whether they fail, for each kind of contributor. Cuts are looked at
    together with earlier ones, in `statfed.client.guard.cuts`."""
    if isinstance(weighed, Cuts):
        return
    for owner in owners(weighed.table.codebook) or (None,):
        found = _amounts(weighed, rules, owner) if isinstance(weighed, Amounts) else _rows(weighed, rules, owner)
        yield from found


def _rows(rows: Rows, rules: Rules, owner: str | None) -> Iterator[tuple[str, bool]]:
    if not rows.columns:
        return
    found = leverages(rows, rules.dominance_n, owner) if not rows.by else in_cells(rows, rules.dominance_n, owner)
    yield UNDECIDED, found.undecided
    if rows.counting:
        if rules.minimum_frequency is not None:
            yield FREQUENCY, max(found.largest, found.own) > (1 + 1e-9) / rules.minimum_frequency
        return
    if rules.dominance_k is not None:
        k = rules.dominance_k / 100
        left = np.sqrt(max(0.0, 1 - found.together))
        yield DOMINANCE, found.together > k or found.roots * (1 - k) > k * left
    if rules.p_percent is not None:
        p, rest = rules.p_percent / 100, max(0.0, 1 - found.two)
        yield P_PERCENT, rest < p * found.largest or np.sqrt(rest) < p * np.sqrt(found.largest)


def leverages(rows: Rows, n: int, owner: str | None = None, size: int = 65_536) -> Leverages:
    """Leverages of the contributors of `rows`, in streams over the records.

    n: contributors that may work together. owner: column that tells whose a record is. size: records of a batch.
    Null values count as 0: a record that has no value adds nothing.
    """
    stream = _kept(_contributors(rows, owner, size))
    whitened = _whitening(stream)
    if whitened is None:
        return Leverages(undecided=True)
    if not whitened.size:
        return Leverages()
    top, rest = np.zeros((0, whitened.shape[1])), 0.0
    for block in stream():
        found = np.concatenate([top, block @ whitened])
        h = np.einsum("ij,ij->i", found, found)
        order = np.argsort(-h)
        top, rest = found[order[:TOP]], max(rest, float(h[order[TOP]]) if len(order) > TOP else 0.0)
    h = np.einsum("ij,ij->i", top, top)
    two = float(h[:2].sum())
    if two > HALF and len(h) > 1:
        two = min(two, max(2 * rest, _among(top), *(_pairs(top, block @ whitened) for block in stream())))
    one, some = float(h.max(initial=0.0)), float(h[:n].sum())
    return Leverages(
        largest=min(1.0, one),
        together=min(1.0, one if n == 1 else two if n == 2 else some),
        two=min(1.0, two),
        roots=float(np.sqrt(h[:n]).sum()),
        own=0.0 if owner is None else _own(rows, owner, size),
    )


Stream = Callable[[], Iterator[Floats]]


def _contributors(rows: Rows, owner: str | None, size: int) -> Stream:
    """What each contributor adds, in batches: its records added up where `owner` tells whose they are."""
    table, given = rows.table, [column.fill_null(0.0) for column in rows.columns]
    if owner is None:
        made = rows.compute or _same
        return lambda: (made(block) for block in table.batches(given, size))
    if rows.compute is not None:
        sums = np.zeros((0, 0))
        for who, found in _owned(rows, owner, size):
            sums = _grown(sums, int(who.max(initial=-1)) + 1, found.shape[1])
            np.add.at(sums, who, found)
        return lambda: iter([sums])
    named = {f"v{i}": column for i, column in enumerate(given)}
    each = table.expr.select(_owner=table.expr[owner], **named)
    grouped = each.group_by("_owner").aggregate(**{name: each[name].sum() for name in named})
    source = replace(table, expr=grouped)
    return lambda: source.batches([grouped[name] for name in named], size)


def _kept(stream: Stream) -> Stream:
    """The same stream, which is held in memory after its first time where that takes no more than `HELD` bytes.

    A block is given once the next one is there: who looks at the first alone has then seen whether it is the only one.
    """
    held: list[Floats] = []
    state = {"whole": False}

    def again() -> Iterator[Floats]:
        if state["whole"]:
            yield from held
            return
        held.clear()
        size, blocks = 0, stream()
        block = next(blocks, None)
        while block is not None:
            size += block.nbytes
            if size <= HELD:
                held.append(block)
            else:
                held.clear()
            following = next(blocks, None)
            state["whole"] = following is None and size <= HELD
            yield block
            block = following

    return again


def _owned(rows: Rows | Amounts, owner: str, size: int) -> Iterator[tuple[NDArray[np.int64], Floats]]:
    """Batches of records: numbers of their owners, and what each record adds. Those without an owner have one."""
    table, given = rows.table, rows.columns if isinstance(rows, Rows) else rows.amounts
    who = ibis.dense_rank().over(order_by=table.expr[owner])
    named = {f"v{i}": column.fill_null(0.0) for i, column in enumerate(given)}
    chosen = table.expr.select(_who=who, **named)
    source, made = replace(table, expr=chosen), rows.compute or _same
    for block in source.batches([chosen["_who"], *(chosen[name] for name in named)], size):
        yield block[:, 0].astype(np.int64), made(block[:, 1:])


def _same(block: Floats) -> Floats:
    return block


def _grown(sums: Floats, rows: int, columns: int) -> Floats:
    """`sums` with at least so many rows."""
    more = np.zeros((max(0, rows - len(sums)), columns))
    return np.concatenate([sums.reshape(-1, columns), more])


def in_cells(rows: Rows, n: int, owner: str | None = None) -> Leverages:
    """The largest figures over the cells of `rows.by`, of which each is looked at by itself. Few columns, any cells.

    What contributors have together is bounded by the sum of their leverages.
    """
    table, k = rows.table, len(rows.columns)
    keys = {f"_cell{i}": table.expr[by] if isinstance(by, str) else by for i, by in enumerate(rows.by)}
    named = {f"v{i}": column.fill_null(0.0) for i, column in enumerate(rows.columns)}
    whose = {} if owner is None else {"_owner": table.expr[owner]}
    each = table.expr.select(**keys, **whose, **named)
    if owner is not None:
        each = each.group_by([*keys, *whose]).aggregate(**{name: each[name].sum() for name in named})
    each = each.mutate(_code=ibis.dense_rank().over(order_by=[each[key] for key in keys]))
    source, columns = replace(table, expr=each), [each["_code"], *(each[name] for name in named)]
    sums = np.zeros((0, k, k))
    for block in source.batches(columns):
        codes, v = block[:, 0].astype(np.int64), block[:, 1:]
        more = int(codes.max(initial=-1)) + 1 - len(sums)
        sums = np.concatenate([sums, np.zeros((max(0, more), k, k))])
        np.add.at(sums, codes, v[:, :, None] * v[:, None, :])
    scale = np.sqrt(np.maximum(np.einsum("ijj->ij", sums), 0.0))
    over = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    inverse = np.linalg.pinv(sums * over[:, :, None] * over[:, None, :], rcond=DIGITS, hermitian=True)
    inverse = inverse * over[:, :, None] * over[:, None, :]
    top = np.zeros((len(sums), max(n, 2)))
    for block in source.batches(columns):
        codes, v = block[:, 0].astype(np.int64), block[:, 1:]
        h = np.einsum("ri,rij,rj->r", v, inverse[codes], v)
        order = np.lexsort((-h, codes))
        codes, h = codes[order], h[order]
        place = np.arange(len(codes)) - np.searchsorted(codes, codes)
        for i in range(top.shape[1]):
            at = place == i
            worst = top[codes[at]].argmin(axis=1)
            top[codes[at], worst] = np.maximum(top[codes[at], worst], h[at])
    top = np.clip(-np.sort(-top, axis=1), 0.0, 1.0)
    if not len(top):
        return Leverages()
    return Leverages(
        largest=float(top[:, 0].max()),
        together=float(min(1.0, top[:, :n].sum(axis=1).max())),
        two=float(min(1.0, top[:, :2].sum(axis=1).max())),
        roots=float(np.sqrt(top[:, :n]).sum(axis=1).max()),
    )


def _pairs(top: Floats, others: Floats) -> float:
    """The largest share that one of `top` has together with another one of `others`, in any combination."""
    h, g = (np.einsum("ij,ij->i", rows, rows) for rows in (top, others))
    inner = top @ others.T
    same = np.abs(inner - h[:, None]) + np.abs(g - h[:, None]) <= 1e-9 * h[:, None]  # itself, or one of `_among`
    return float(np.where(same, 0.0, _shares(h, g, inner)).max(initial=0.0))


def _among(top: Floats) -> float:
    """The same of two of `top`."""
    h = np.einsum("ij,ij->i", top, top)
    shares = _shares(h, h, top @ top.T)
    np.fill_diagonal(shares, 0.0)
    return float(shares.max(initial=0.0))


def _shares(h: Floats, g: Floats, inner: Floats) -> Floats:
    """Largest eigenvalue of [[h, inner], [inner, g]] for each pair."""
    shares: Floats = (h[:, None] + g) / 2 + np.sqrt(((h[:, None] - g) / 2) ** 2 + inner**2)
    return shares


def _whitening(stream: Stream) -> Floats | None:
    """(columns, rank): W with W' S W = 1 for the cross-products S; None where digits do not tell the rank.

    What cross-products cannot tell from 0 is taken less what it has in common with the rest, scaled and looked at
    again, so that columns keep their digits although they are nearly collinear (as block Gram-Schmidt with
    reorthogonalisation, Giraud, Langou and Rozloznik 2005).
    """
    k = next((block.shape[1] for block in stream()), 0)
    made, left = np.zeros((k, 0)), np.eye(k)
    for _ in range(STAGES):
        if made.shape[1]:
            for _ in range(2):
                left = left - made @ _products(stream, made, left)
            if _vanish(stream, left):
                return made
        scale = np.sqrt(np.diag(_squares(stream, left)))
        if not np.isfinite(scale).all():
            return None
        left, scale = left[:, scale > 0], scale[scale > 0]
        if not len(scale):
            return made
        values, turned = np.linalg.eigh(_squares(stream, left) / np.outer(scale, scale))
        kept = values > DIGITS * max(1.0, values[-1])
        turned = turned / scale[:, None]
        new = left @ (turned[:, kept] / np.sqrt(values[kept]))
        inner, back = np.linalg.eigh(_squares(stream, new))
        if inner[0] <= 0.25:
            return None
        made = np.concatenate([made, new @ (back / np.sqrt(inner))], axis=1)
        if kept.all():
            return made
        left = left @ turned[:, ~kept]
    return None


def _vanish(stream: Stream, directions: Floats) -> bool:
    """Are these combinations null at every record, as far as digits go?"""
    for block in stream():
        if (np.abs(block @ directions) > NULL * (np.abs(block) @ np.abs(directions))).any():
            return False
    return True


def _products(stream: Stream, one: Floats, other: Floats) -> Floats:
    """Sums over all contributors of the products of two sets of combinations."""
    found: Floats = np.zeros((one.shape[1], other.shape[1]))
    for block in stream():
        found = found + (block @ one).T @ (block @ other)
    return found


def _squares(stream: Stream, one: Floats) -> Floats:
    """Cross-products of combinations."""
    return _products(stream, one, one)


def _own(rows: Rows, owner: str, size: int) -> float:
    """The largest sum over one contributor's records of their leverages in the sums of squares over records."""
    stream = _kept(
        lambda: (np.column_stack([who.astype(np.float64), found]) for who, found in _owned(rows, owner, size))
    )
    whitened = _whitening(lambda: (block[:, 1:] for block in stream()))
    if whitened is None:
        return math.inf
    sums = np.zeros((0, 1))
    for block in stream():
        who, turned = block[:, 0].astype(np.int64), block[:, 1:] @ whitened
        sums = _grown(sums, int(who.max(initial=-1)) + 1, 1)
        np.add.at(sums[:, 0], who, np.einsum("ij,ij->i", turned, turned))
    return float(sums.max(initial=0.0))


@ibis.udf.agg.builtin(name="max")  # type: ignore[untyped-decorator]
def _maxima(x: float, n: int) -> dt.Array(dt.float64):  # type: ignore[valid-type]
    """DuckDB's max(x, n): the n largest in descending order, fewer where there are fewer."""


def _amounts(weighed: Amounts, rules: Rules, owner: str | None) -> Iterator[tuple[str, bool]]:
    """The dominance rules on each amount in each cell; an enterprise's or a person's records are added up first."""
    if (rules.dominance_k is None and rules.p_percent is None) or not weighed.amounts:
        return
    if weighed.compute is not None and not weighed.by and owner is None:
        yield from _judged(_streamed(weighed, max(rules.dominance_n, 2)), rules)
        return
    if weighed.compute is not None:
        weighed, owner = _computed(weighed, owner), None
    table, n = weighed.table, rules.dominance_n
    keys = {f"_cell{i}": table.expr[by] if isinstance(by, str) else by for i, by in enumerate(weighed.by)}
    cells: list[tuple[float, list[float]]] = []
    for start in range(0, len(weighed.amounts), 40):
        some = {f"_v{i}": amount for i, amount in enumerate(weighed.amounts[start : start + 40])}
        who = {} if owner is None else {"_owner": table.expr[owner]}
        each = table.expr.select(**keys, **who, **some)
        if owner is not None:
            known = each["_owner"].notnull()  # records without an owner are one contributor, none cancels another
            sums = each.group_by([*keys, "_owner"]).aggregate(
                **{v: ibis.ifelse(known.all(), each[v].sum().abs(), each[v].abs().sum()) for v in some}
            )
        else:
            sums = each.mutate(**{v: each[v].abs() for v in some})
        cells += _largest(sums, [*keys], [*some], max(n, 2), table.embedded)
    yield from _judged(cells, rules)


def _judged(cells: Iterable[tuple[float, Sequence[float]]], rules: Rules) -> Iterator[tuple[str, bool]]:
    """The two rules on totals of absolute contributions, each with the largest of them in descending order."""
    dominated, close = False, False
    for total, top in cells:
        if rules.dominance_k is not None:
            dominated |= 100 * sum(top[: rules.dominance_n]) > rules.dominance_k * total * (1 + 1e-12)
        if rules.p_percent is not None and len(top):
            close |= 100 * max(0.0, total - sum(top[:2])) < rules.p_percent * top[0]
    if rules.dominance_k is not None:
        yield DOMINANCE, dominated
    if rules.p_percent is not None:
        yield P_PERCENT, close


def _streamed(weighed: Amounts, n: int) -> list[tuple[float, list[float]]]:
    """Of computed amounts of records, in one cell: the total of each, and its n largest."""
    top, total = np.zeros((n, 0)), np.zeros(0)
    made = weighed.compute or _same
    for block in weighed.table.batches([amount.fill_null(0.0) for amount in weighed.amounts]):
        found = np.abs(made(block))
        if not total.size:
            top, total = np.zeros((n, found.shape[1])), np.zeros(found.shape[1])
        total = total + found.sum(axis=0)
        top = -np.sort(-np.concatenate([top, found]), axis=0)[:n]
    return [(float(total[j]), top[:, j].tolist()) for j in range(len(total))]


def _computed(weighed: Amounts, owner: str | None) -> Amounts:
    """The same with what was computed as a table of its own, a row for a contributor in a cell."""
    table = weighed.table
    named = {f"v{i}": amount.fill_null(0.0) for i, amount in enumerate(weighed.amounts)}
    keys = {f"_cell{i}": table.expr[by] if isinstance(by, str) else by for i, by in enumerate(weighed.by)}
    codes = {f"_code{i}": ibis.dense_rank().over(order_by=key) for i, key in enumerate(keys.values())}
    whose = {} if owner is None else {"_who": ibis.dense_rank().over(order_by=table.expr[owner])}
    chosen = table.expr.select(**codes, **whose, **named)
    source, first = replace(table, expr=chosen), len(codes) + len(whose)
    made = weighed.compute or _same
    frames = []
    for block in source.batches([chosen[name] for name in (*codes, *whose, *named)]):
        found = np.abs(made(block[:, first:]))
        frame = pd.DataFrame(found, columns=[f"a{i}" for i in range(found.shape[1])])
        for i, name in enumerate((*codes, *whose)):
            frame[name] = block[:, i]
        frames.append(frame)
    if not frames:
        return Amounts(table, ())
    whole = pd.concat(frames, ignore_index=True)
    amounts = [f"a{i}" for i in range(frames[0].shape[1] - first)]
    if whose:
        whole = whole.groupby([*codes, *whose], as_index=False)[amounts].sum()
    local = ibis.duckdb.connect().create_table("computed", whole)
    return Amounts(Table(local, table.codebook), tuple(local[name] for name in amounts), tuple(local[c] for c in codes))


def _largest(sums: Expr, keys: list[str], names: list[str], n: int, embedded: bool) -> list[tuple[float, list[float]]]:
    """Per cell and amount: the total, and the n largest contributions in descending order."""
    asked: dict[str, Expr] = {f"{v}_total": sums[v].sum() for v in names}
    if embedded:
        asked |= {f"{v}_top": _maxima(sums[v], n) for v in names}
        grouped = sums.group_by(keys) if keys else sums
        found = grouped.aggregate(**asked).to_pyarrow().to_pylist()
        return [(row[f"{v}_total"] or 0.0, row[f"{v}_top"] or []) for row in found for v in names]
    ranks = {f"{v}_rank": ibis.row_number().over(group_by=keys, order_by=sums[v].fill_null(0.0).desc()) for v in names}
    ranked = sums.mutate(**ranks)
    asked = {f"{v}_total": ranked[v].sum() for v in names}
    asked |= {f"{v}_{i}": ranked[v].sum(where=ranked[f"{v}_rank"] == i) for v in names for i in range(n)}
    grouped = ranked.group_by(keys) if keys else ranked
    found = grouped.aggregate(**asked).to_pyarrow().to_pylist()
    return [(row[f"{v}_total"] or 0.0, [row[f"{v}_{i}"] or 0.0 for i in range(n)]) for row in found for v in names]
