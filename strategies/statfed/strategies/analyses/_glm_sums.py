"""The holder's half of a generalised linear model: sums over records, in batches or in the database."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import ibis
import numpy as np
from numpy.typing import NDArray

from statfed.core.method import Arrays, Ask
from statfed.core.table import Expr, Table, real
from statfed.core.weighing import Amounts, Rows, Weighed
from statfed.strategies.analyses._families import Family, Weights
from statfed.strategies.analyses._matrix import ROWS, Design, cross_products, once
from statfed.strategies.analyses._regression import Vector, start_contribution

MOVED, STILL = 0.05, 0.005  # of a linear predictor: a record that moves along a direction, and one that does not
Record = tuple[Expr, Expr, Expr]  # response, frequency weight, offset


def start_sums(table: Table, exposure: str | None, design: Design, family: Family, y: Expr, f: Expr) -> Arrays:
    e = table.number(exposure) if exposure else real(1.0)
    records = table.expr.select(y=y, f=f, e=e)
    allowed, f = family.allowed(records["y"]), records["f"]
    usable = ibis.ifelse(allowed, records["y"], real(1.0))
    found = replace(table, expr=records).aggregate(
        bad_response=allowed.ifelse(0, 1).sum(),
        bad_weight=(f > 0).ifelse(0, 1).sum(),
        bad_exposure=(records["e"] > 0).ifelse(0, 1).sum(),
        weight=f.sum(),
        response=(f * usable).sum(),
        saturated=(f * family.saturated(usable)).sum(),
    )
    made: dict[str, NDArray[Any]] = {
        name: np.array(value, np.int64 if name.startswith("bad") else np.float64) for name, value in found.items()
    }
    return {**start_contribution(table, design), **made}


def streamed(table: Table, z: Sequence[Expr], record: Record, family: Family, ask: Ask) -> Arrays:
    """`initial`, `step` or `separation` from batches. record: response, frequency weight, offset."""
    k, b = len(z), ask.arrays["coefficients"]
    if ask.name == "separation":
        moved = against = 0
        for block in table.batches([*z, record[0]], ROWS):
            along, y = block[:, :k] @ b, block[:, k]
            moved += int((np.abs(along) > MOVED).sum())
            against += int((family.adverse(y, along) > STILL).sum())
        return {"moved": np.array(moved), "against": np.array(against)}
    information, score = np.zeros((k, k)), np.zeros(k)
    sums = np.zeros(2)
    invalid = 0
    for block in table.batches([*z, *record], ROWS):
        x, y, f, offset = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2]
        if ask.name == "initial":
            eta, weight = family.initial(y, float(b[0]))
            weight = weight * f
            information += x.T @ (x * weight[:, None])
            score += x.T @ (weight * (eta - offset))
            continue
        w = family.weights(y, x @ b + offset, f)
        information += x.T @ (x * w.information[:, None])
        score += x.T @ w.score
        sums += (w.deviance.sum(), w.pearson.sum())
        invalid += int((~w.valid).sum())
    return {
        "information": (information + information.T) / 2,
        "score": score,
        "deviance": sums[0],
        "pearson": sums[1],
        "invalid": np.array(invalid),
    }


def saturated_weighs(table: Table, family: Family, y: Expr, f: Expr) -> Weighed:
    """How records weigh in the part of the likelihood that the response alone decides."""

    def compute(block: Vector) -> Vector:
        usable = np.where(family.allowed(block[:, 0]), block[:, 0], 1.0)
        return np.asarray(block[:, 1] * family.saturated(usable))[:, None]

    return Amounts(table, (y, f), compute=compute)


def sums_weigh(table: Table, z: Sequence[Expr], record: Record, family: Family, ask: Ask) -> Iterator[Weighed]:
    """How records weigh in `initial` and `step`, at the coefficients of the ask: by their weight there."""
    k, b = len(z), ask.arrays["coefficients"]
    columns = (*z, *record)

    def at(block: Vector) -> tuple[Vector, Weights]:
        x, y, f, offset = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2]
        if ask.name == "step":
            return x, family.weights(y, x @ b + offset, f)
        eta, weight = family.initial(y, float(b[0]))
        none = np.zeros(len(y))
        return x, Weights(weight * f, weight * f * (eta - offset), none, none, none)

    def information(block: Vector) -> Vector:
        x, w = at(block)
        return np.asarray(x * np.sqrt(np.maximum(w.information, 0.0))[:, None])

    def score(block: Vector) -> Vector:
        x, w = at(block)
        return np.asarray(x * w.score[:, None])

    def fit(block: Vector) -> Vector:
        _, w = at(block)
        return np.stack([w.deviance, w.pearson], axis=1)

    yield Rows(table, columns, counting=True, compute=information)
    yield Rows(table, columns, compute=score)
    if ask.name == "step":
        yield Amounts(table, columns, compute=fit)


def scores(table: Table, z: Sequence[Expr], record: Record, family: Family, b: Vector) -> tuple[Table, list[Expr]]:
    """The table with what each record adds to the score, as columns; null where it has no value."""
    k = len(z)
    named = {f"_z{i}": column for i, column in enumerate(z)}
    base = once(table.expr.mutate(**named, _y=record[0], _f=record[1], _o=record[2]))
    eta = base["_o"]
    for i, coefficient in enumerate(b):
        eta = eta + base[f"_z{i}"] * real(float(coefficient))
    base = once(base.mutate(_eta=eta))
    mu, nu, slope, valid = family.mean(base["_eta"])
    base = once(base.mutate(_mu=mu, _nu=nu, _slope=slope, _valid=valid))
    w = family.weights_at(*(base[name] for name in ("_y", "_mu", "_nu", "_slope", "_f", "_valid")))
    base = once(base.mutate(_score=w.score))
    return replace(table, expr=base), [base[f"_z{i}"] * base["_score"] for i in range(k)]


def replicated(
    table: Table, z: Sequence[Expr], record: Record, weights: Sequence[Expr], family: Family, b: Vector
) -> Arrays:
    """Sums of `step` under each replicate weight, at its own coefficients b (replicates, k). record: f is a factor."""
    k, r = len(z), len(weights)
    information, score, invalid = np.zeros((r, k, k)), np.zeros((r, k)), np.zeros(r, np.int64)
    for block in table.batches([*z, *record, *weights], ROWS):
        x, y, f, offset = block[:, :k], block[:, k], block[:, k + 1], block[:, k + 2]
        for i in range(r):
            w = family.weights(y, x @ b[i] + offset, f * block[:, k + 3 + i])
            information[i] += x.T @ (x * w.information[:, None])
            score[i] += x.T @ w.score
            invalid[i] += int((~w.valid).sum())
    return {"information": (information + information.transpose(0, 2, 1)) / 2, "score": score, "invalid": invalid}


def pushed_down(table: Table, z: Sequence[Expr], record: Record, family: Family, b: Vector) -> Arrays:
    """`step` as SQL: the database computes each record's weights and adds up."""
    k = len(z)
    named = {f"z{i}": column for i, column in enumerate(z)}
    base = once(table.expr.select(**named, y=record[0], f=record[1], o=record[2]))
    eta = base["o"]
    for i, coefficient in enumerate(b):
        eta = eta + base[f"z{i}"] * real(float(coefficient))
    base = once(base.mutate(eta=eta))
    mu, nu, slope, valid = family.mean(base["eta"])
    base = once(base.mutate(mu=mu, nu=nu, slope=slope, valid=valid))
    base = base.mutate(f=ibis.ifelse(base["valid"], base["f"], real(0.0)))
    w = family.weights_at(*(base[name] for name in ("y", "mu", "nu", "slope", "f", "valid")))
    sums = base.select(*named, w=w.information, s=w.score, d=w.deviance, p=w.pearson, bad=w.valid.ifelse(0, 1))
    base = once(sums)
    source = replace(table, expr=base)
    information = cross_products(source, [base[name] for name in named], base["w"])
    asked = {f"score_{i}": (base[f"z{i}"] * base["s"]).sum() for i in range(k)}
    found = source.aggregate(**asked, deviance=base["d"].sum(), pearson=base["p"].sum(), invalid=base["bad"].sum())
    return {
        "information": information,
        "score": np.array([found[f"score_{i}"] for i in range(k)], np.float64),
        "deviance": np.array(found["deviance"], np.float64),
        "pearson": np.array(found["pearson"], np.float64),
        "invalid": np.array(found["invalid"], np.int64),
    }
