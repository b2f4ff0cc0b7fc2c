"""The holder's half of a mixed model: sums over records, as a whole and by group, in batches or in the database.

With linear predictor eta = x'b + u of the record's group, w the information weight d mu / d eta of a canonical link and
w' its derivative in eta, the sums are those of w x x', of the score, of the deviance, and by group those of w x, w' x
and the score. They are all that the Laplace approximation and its gradient need, and of length groups x columns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import ibis
import numpy as np

from statfed.core.method import Arrays, Counts, Part, Product
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._families import Family, Values, Weights
from statfed.strategies.analyses._matrix import ROWS, cross_products, once
from statfed.strategies.analyses._regression import Vector

Record = tuple[Expr, Expr]  # response, offset
DEEPEST = 1500.0  # of a binomial deviance: -2 log of the smallest probability that the family computes with
STEEPEST = 0.25  # of the logistic curve; its second derivative is at most 1 / sqrt(108) = 0.0962


def step_parts(family: Family, bound: Vector, groups: int) -> dict[str, Part]:
    """What `streamed` and `pushed_down` give. bound: (k,), largest absolute values of the k columns."""
    k = len(bound)
    known = family.name == "binomial"
    limit = bound if known else np.full(k, np.inf)
    first = np.broadcast_to(limit, (groups, k))
    with np.errstate(invalid="ignore"):
        products = np.nan_to_num(STEEPEST * np.outer(limit, limit), nan=np.inf, posinf=np.inf)
    return {
        "information": Part((k, k), bound=products, what=Product()),
        "score": Part((k,), bound=limit, what=Product()),
        "deviance": Part(bound=DEEPEST if known else np.inf, what=Product()),
        "invalid": Part(integer=True, bound=1, what=Counts()),
        "group_information": Part((groups, k), bound=STEEPEST * first, what=Product()),
        "group_third": Part((groups, k), bound=STEEPEST * first, what=Product()),
        "group_score": Part((groups,), bound=1.0 if known else np.inf, what=Product()),
    }


def streamed(
    table: Table, z: Sequence[Expr], record: Record, group: str, family: Family, b: Vector, u: Vector
) -> Arrays:
    """The sums at coefficients b of the columns z and effects u of the groups, from batches."""
    k, groups = len(z), len(u)
    information, score, deviance, invalid = np.zeros((k, k)), np.zeros(k), 0.0, 0
    first, third, own = np.zeros((groups, k)), np.zeros((groups, k)), np.zeros(groups)
    for block in table.batches([*z, *record, _by_group(table, group, range(groups))], ROWS):
        x, y, offset, place = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2].astype(np.int64)
        mu, nu, slope, valid = family.mean(x @ b + offset + u[place])
        w = family.weights_at(y, mu, nu, slope, valid.astype(np.float64), valid)
        bend = _bend(family, w.information, mu, nu)
        information += x.T @ (x * w.information[:, None])
        score += x.T @ w.score
        deviance += float(w.deviance.sum())
        invalid += int((~valid).sum())
        for i in range(k):
            first[:, i] += np.bincount(place, w.information * x[:, i], groups)
            third[:, i] += np.bincount(place, bend * x[:, i], groups)
        own += np.bincount(place, w.score, groups)
    return {
        "information": (information + information.T) / 2,
        "score": score,
        "deviance": np.array(deviance),
        "invalid": np.array(invalid),
        "group_information": first,
        "group_third": third,
        "group_score": own,
    }


def sums_weigh(
    table: Table, z: Sequence[Expr], record: Record, group: str, family: Family, b: Vector, u: Vector
) -> Iterator[Weighed]:
    """How records weigh in what `streamed` sends: over all, and group by group."""
    k = len(z)
    columns = (*z, *record, _by_group(table, group, range(len(u))))

    def at(block: Vector) -> tuple[Vector, Weights, Vector]:
        x, y, offset, place = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2].astype(np.int64)
        mu, nu, slope, valid = family.mean(x @ b + offset + u[place])
        w = family.weights_at(y, mu, nu, slope, valid.astype(np.float64), valid)
        return x, w, _bend(family, w.information, mu, nu)

    def information(block: Vector) -> Vector:
        x, w, _ = at(block)
        return np.asarray(x * np.sqrt(np.maximum(w.information, 0.0))[:, None])

    def score(block: Vector) -> Vector:
        x, w, _ = at(block)
        return np.asarray(x * w.score[:, None])

    def by_group(block: Vector) -> Vector:
        x, w, bend = at(block)
        sums = [w.deviance[:, None], x * w.information[:, None], x * bend[:, None], w.score[:, None]]
        return np.concatenate(sums, axis=1)

    yield Rows(table, columns, counting=True, compute=information)
    yield Rows(table, columns, compute=score)
    yield Amounts(table, columns, (group,), compute=by_group)


def pushed_down(
    table: Table, z: Sequence[Expr], record: Record, group: str, family: Family, b: Vector, u: Vector
) -> Arrays:
    """The same as SQL: the database computes each record's weights and adds up."""
    k = len(z)
    own = {name: f"{group}_{name}" for name in ("y", "eta", "mu", "nu", "slope", "valid", "f", "w", "s", "d", "t")}
    columns = {f"{group}_z{i}": column for i, column in enumerate(z)}
    eta = record[1] + _by_group(table, group, u)
    for coefficient, column in zip(b, z, strict=True):
        eta = eta + column * real(float(coefficient))
    base = once(table.expr.select(**{group: table[group]}, **columns, **{own["y"]: record[0], own["eta"]: eta}))
    at = family.mean(base[own["eta"]])
    base = once(base.mutate(**{own[name]: x for name, x in zip(("mu", "nu", "slope", "valid"), at, strict=True)}))
    base = base.mutate(**{own["f"]: ibis.ifelse(base[own["valid"]], real(1.0), real(0.0))})
    y, mu, nu, slope, f, valid = (base[own[name]] for name in ("y", "mu", "nu", "slope", "f", "valid"))
    w = family.weights_at(y, mu, nu, slope, f, valid)
    made = {"w": w.information, "s": w.score, "d": w.deviance, "t": _bend(family, w.information, mu, nu)}
    base = once(base.mutate(**{own[name]: value for name, value in made.items()}))
    source = replace(table, expr=base)
    named = [base[name] for name in columns]
    wanted = {f"score_{i}": (x * base[own["s"]]).sum() for i, x in enumerate(named)}
    found = source.aggregate(**wanted, deviance=base[own["d"]].sum(), invalid=base[own["valid"]].ifelse(0, 1).sum())
    by_group = {f"first_{i}": (x * base[own["w"]]).sum() for i, x in enumerate(named)}
    by_group |= {f"third_{i}": (x * base[own["t"]]).sum() for i, x in enumerate(named)}
    grids = source.grid((group,), **by_group, own=base[own["s"]].sum())
    return {
        "information": cross_products(source, named, base[own["w"]]),
        "score": np.array([found[f"score_{i}"] for i in range(k)], np.float64),
        "deviance": np.array(found["deviance"], np.float64),
        "invalid": np.array(found["invalid"], np.int64),
        "group_information": np.stack([grids[f"first_{i}"] for i in range(k)], axis=1).astype(np.float64),
        "group_third": np.stack([grids[f"third_{i}"] for i in range(k)], axis=1).astype(np.float64),
        "group_score": grids["own"].astype(np.float64),
    }


def _bend(family: Family, information: Values, mu: Values, nu: Values) -> Values:
    """Derivative of a canonical link's information weight in eta."""
    return information * (nu - mu) if family.name == "binomial" else information


def _by_group(table: Table, group: str, values: Sequence[float] | range | Vector) -> Expr:
    """The value of the group that a record is in."""
    levels = table.codebook.category(group).levels
    branches = [(code, real(float(value))) for code, value in zip(levels, values, strict=True)]
    return table[group].cast("string").cases(*branches)
