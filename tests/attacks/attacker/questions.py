"""Questions that an attacker may put, what each says about the sensitive column before any answer, and how the answer
is read: vectors a from quasi-identifiers alone, then values b from the release.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from formulaic import model_matrix
from numpy.typing import NDArray

from statfed.core.codebook import Codebook
from statfed.core.result import Result, Row

Floats = NDArray[np.float64]
Equations = list[tuple[Floats, float]]
Condition = tuple[str, str, Any]


@dataclass(frozen=True)
class Aim:
    """What the attacker is after. frame: quasi-identifiers of everybody, holder's name in `_holder`; index: the
    target's place; column: the sensitive one; numeric, categories: quasi-identifiers; codebook: the holders'."""

    frame: pd.DataFrame
    index: int
    column: str
    numeric: tuple[str, ...]
    categories: tuple[str, ...]
    codebook: Codebook

    @property
    def binary(self) -> bool:
        return self.codebook.columns[self.column].type == "boolean"

    def value(self, name: str) -> Any:
        return self.frame[name].iloc[self.index]


@dataclass(frozen=True)
class Question:
    """One question. inside: whom it is about; span: (k, n), vectors of its figures; read: equations in an answer."""

    method: str
    options: dict[str, Any]
    where: tuple[str, ...]
    inside: NDArray[np.bool_]
    span: Floats
    read: Callable[[Result], Equations]


def mask(aim: Aim, conditions: Sequence[Condition]) -> NDArray[np.bool_]:
    """Whom conditions on quasi-identifiers hold for."""
    found = np.ones(len(aim.frame), np.bool_)
    for name, op, value in conditions:
        x = aim.frame[name].to_numpy()
        found &= {"==": x == value, "!=": x != value, "<=": x <= value, ">=": x >= value}[op]
    return found


def texts(conditions: Sequence[Condition]) -> tuple[str, ...]:
    return tuple(f"{name} {'=' if op == '==' else op} {value}" for name, op, value in conditions)


def filters(aim: Aim, rng: np.random.Generator, minimum: int, daring: float = 0.15) -> tuple[Condition, ...]:
    """Conditions drawn around the target. Most leave at least `minimum` records in and out at every holder: the
    threshold is assumed to be known, and refusals cost."""
    categories = [name for name in aim.categories if daring or not _alone(aim, name)]
    for _ in range(60):
        made: list[Condition] = []
        for name in rng.permutation([*categories, *aim.numeric])[: rng.integers(0, 4)]:
            value = aim.value(name)
            if name in aim.categories:
                made.append((name, "==" if rng.random() < 0.6 else "!=", value))
                continue
            kind, near = rng.integers(0, 4), int(rng.integers(0, 3))
            width = int(rng.integers(0, 12))
            made += {
                0: [(name, ">=", value + near)],
                1: [(name, "<=", value - near)],
                2: [(name, ">=", value - width), (name, "<=", value + width)],
                3: [(name, ">=", value + 1 - near)],
            }[int(kind)]
        sizes = [int(part.sum()) for part in _by_holder(aim, mask(aim, made))]
        if not made or rng.random() < daring or min(sizes) >= minimum:
            return tuple(made)
    return ()


def polite(aim: Aim, span: Floats, minimum: int) -> bool:
    """Would rules that know how records weigh find nothing here? At each holder no record has a leverage above
    1 / minimum in the span of what is asked: what an attacker assumes who knows the rules and the threshold."""
    for own in _by_holder(aim, np.ones(len(aim.frame), np.bool_)):
        a = span[:, own].T
        size = np.linalg.norm(a, axis=0)
        a = a[:, size > 0] / size[size > 0]
        if a.size:
            u, s, _ = np.linalg.svd(a, full_matrices=False)
            if (u[:, s > 1e-9 * s.max()] ** 2).sum(1).max() > 1 / minimum + 1e-9:
                return False
    return True


def apart(aim: Aim, inside: NDArray[np.bool_], past: Sequence[NDArray[np.bool_]], minimum: int) -> bool:
    """Does this population differ from each earlier one by nobody or by many, at each holder and either way round?"""
    holders = _by_holder(aim, np.ones(len(aim.frame), np.bool_))
    for other in past:
        for own in holders:
            sizes = int((inside & ~other & own).sum()), int((other & ~inside & own).sum())
            if any(0 < size < minimum for size in sizes):
                return False
    return True


def _alone(aim: Aim, name: str) -> bool:
    """Is the target nearly alone at its level?"""
    return bool((aim.frame[name] == aim.value(name)).sum() < 3)


def _by_holder(aim: Aim, inside: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    holder = aim.frame["_holder"].to_numpy()
    return [inside[holder == name] for name in dict.fromkeys(holder)]


def _cells(aim: Aim, inside: NDArray[np.bool_], by: Sequence[str]) -> tuple[list[dict[str, Any]], Floats]:
    """Levels of each cell and its indicator."""
    if not by:
        return [{}], inside[None].astype(np.float64)
    keys: list[dict[str, Any]] = aim.frame.loc[inside, list(by)].drop_duplicates().to_dict("records")  # type: ignore[assignment]
    rows = [inside & np.logical_and.reduce([(aim.frame[k] == v).to_numpy() for k, v in key.items()]) for key in keys]
    return keys, np.array(rows, np.float64).reshape(len(keys), len(aim.frame))


def _read_cells(keys: list[dict[str, Any]], span: Floats, figure: Callable[[Row], float | None], table: str = ""):  # type: ignore[no-untyped-def]
    def read(result: Result) -> Equations:
        rows = result.tables[table or next(iter(result.tables))]
        found: Equations = []
        for key, a in zip(keys, span, strict=True):
            for row in rows:
                if all(str(row.get(name)).lower() == str(value).lower() for name, value in key.items()):
                    value = figure(row)
                    if value is not None:
                        found.append((a, value))
                    break
        return found

    return read


def _product(first: str, second: str) -> Callable[[Row], float | None]:
    def figure(row: Row) -> float | None:
        a, b = row.get(first), row.get(second)
        return float(a) * float(b) if isinstance(a, int | float) and isinstance(b, int | float) else None

    return figure


def _plain(name: str) -> Callable[[Row], float | None]:
    def figure(row: Row) -> float | None:
        value = row.get(name)
        return float(value) if isinstance(value, int | float) else None

    return figure


def made(aim: Aim, method: str, rng: np.random.Generator, minimum: int) -> Question:
    """A question of this method, drawn at random."""
    conditions = filters(aim, rng, minimum)
    inside = mask(aim, conditions)
    by = tuple(str(name) for name in rng.permutation(aim.categories)[: rng.integers(0, 3)])
    drawn = _DRAWN[method](aim, inside, by, rng)
    options, span, read = drawn
    return Question(method, options, texts(conditions), inside, span, read)


def _means(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator, method: str) -> Any:
    keys, span = _cells(aim, inside, by)
    figure = {
        "total": _plain("estimate"),
        "mean": _product("mean", "count"),
        "variance": _product("mean", "count"),
        "describe": _product("mean", "count"),
    }[method]
    if method == "describe":
        keys, span = _cells(aim, inside, ())
        return {"columns": [aim.column]}, span, _read_cells([{"column": aim.column}], span, figure)
    return {"columns": [aim.column], "by": list(by)}, span, _read_cells(keys, span, figure)


def _ratio(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    name = str(rng.choice(aim.numeric))
    keys, span = _cells(aim, inside, by)
    known = span @ aim.frame[name].to_numpy(np.float64)
    sizes = {tuple(key.items()): total for key, total in zip(keys, known, strict=True)}

    def read(result: Result) -> Equations:
        rows = _read_cells(keys, span, _plain("estimate"))(result)
        totals = list(sizes.values())
        places = [next(i for i, a in enumerate(span) if a is row or np.array_equal(a, row)) for row, _ in rows]
        return [(row, value * totals[i]) for i, (row, value) in zip(places, rows, strict=True)]

    return {"numerator": aim.column, "denominator": name, "by": list(by)}, span, read


def _table(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    by = by or (str(rng.choice(aim.categories)),)
    keys, span = _cells(aim, inside, by)
    if aim.binary:
        keys = [key | {aim.column: "true"} for key in keys]
        return {"rows": [*by, aim.column]}, span, _read_cells(keys, span, _plain("count"), "cells")
    return {"rows": list(by), "value": aim.column}, span, _read_cells(keys, span, _plain("total"), "cells")


def _count(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    keys, span = _cells(aim, inside, by)
    keys = [key | {aim.column: "true"} for key in keys]
    return {"by": [*by, aim.column]}, span, _read_cells(keys, span, _plain("estimate"))


def _chisq(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    by = by[:1] or (str(rng.choice(aim.categories)),)
    keys, span = _cells(aim, inside, by)
    keys = [key | {aim.column: "true"} for key in keys]
    return {"columns": [*by, aim.column]}, span, _read_cells(keys, span, _plain("count"), "cells")


def _ttest(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    two = [name for name in aim.categories if aim.frame[name].nunique() == 2]
    name = str(rng.choice(two))
    keys, span = _cells(aim, inside, (name,))

    def read(result: Result) -> Equations:
        row = result.tables["tests"][0]
        groups = {row.get(f"group_{i}"): _product(f"mean_{i}", f"count_{i}")(row) for i in (1, 2)}
        return [(a, value) for key, a in zip(keys, span, strict=True) if (value := groups.get(key[name])) is not None]

    return {"columns": [aim.column], "by": name}, span, read


def _covariance(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    names = [str(name) for name in rng.permutation(aim.numeric)[: rng.integers(1, len(aim.numeric) + 1)]]
    x = aim.frame[names].to_numpy(np.float64).T * inside
    n = max(int(inside.sum()), 1)
    centred = np.where(inside, x - x.sum(1, keepdims=True) / n, 0.0)

    def read(result: Result) -> Equations:
        found: Equations = []
        for row in result.tables["pairs"]:
            pair = {row["name_1"], row["name_2"]}
            other = pair - {aim.column}
            value = row.get("covariance")
            if aim.column in pair and len(other) == 1 and isinstance(value, float):
                found.append((centred[names.index(str(other.pop()))], value * (n - 1)))
        return found

    return {"columns": [aim.column, *names]}, centred, read


def _pca(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator) -> Any:
    options, centred, _ = _covariance(aim, inside, by, rng)
    names, n = options["columns"], inside.sum()

    def read(result: Result) -> Equations:
        k = len(names)
        load, size = np.full((k, k), np.nan), np.full(k, np.nan)
        for row in result.tables["loadings"]:
            load[names.index(row["name"]), int(str(row["component"])) - 1] = row["loading"]
        for row in result.tables["components"]:
            size[int(str(row["component"])) - 1] = row["eigenvalue"]
        whole = load @ np.diag(size) @ load.T * (n - 1)
        return [(centred[i], float(whole[0, i + 1])) for i in range(len(centred)) if np.isfinite(whole[0, i + 1])]

    return options, centred, read


def formula(aim: Aim, rng: np.random.Generator) -> str:
    """Terms of a formula: columns, products and functions, among them such as are far from 0 at the target alone."""
    a, b = (str(name) for name in rng.choice(aim.numeric, 2, replace=len(aim.numeric) < 2))
    c, d = (str(name) for name in rng.choice(aim.categories, 2, replace=False))
    at, bt = aim.value(a), aim.value(b)
    pool = [
        a,
        b,
        f"C({c})",
        f"C({d})",
        f"C({c}):C({d})",
        f"{a}:C({c})",
        f"{a}:{b}",
        f"I({a}**2)",
        f"I(({a}-{at})**2)",
        f"I({a}**2):C({d})",
        f"log({a})",
        f"sqrt({b})",
        f"I(1/(1+1e6*(({a}-{at})**2+({b}-{bt})**2)))",
        f"I(1/(1+100*({a}-{at})**2)):C({c})",
        f"exp(0-({a}-{at})**2)",
        f"I(({a}-{at})**8)",
        f"I(({a}-{at})**2):I(({b}-{bt})**2)",
    ]
    size = int(rng.integers(1, 4))
    return " + ".join(dict.fromkeys(str(term) for term in rng.choice(pool, size, replace=False)))


_FUNCTIONS = {"log": np.log, "sqrt": np.sqrt, "exp": np.exp, "abs": np.abs}


def _design(aim: Aim, right: str) -> pd.DataFrame:
    from warnings import catch_warnings, simplefilter

    with catch_warnings(), np.errstate(all="ignore"):
        simplefilter("ignore")
        return pd.DataFrame(model_matrix(right, aim.frame, context=_FUNCTIONS))


def _model(aim: Aim, inside: NDArray[np.bool_], by: tuple[str, ...], rng: np.random.Generator, method: str) -> Any:
    right = formula(aim, rng)
    x = _design(aim, right)
    span = np.nan_to_num(x.to_numpy(np.float64).T, nan=0.0, posinf=0.0, neginf=0.0) * inside
    options: dict[str, Any] = {"formula": f"{aim.column} ~ {right}"}
    if method != "ols":
        options["family"] = "binomial" if aim.binary else "gaussian"

    def read(result: Result) -> Equations:
        b = {str(row["name"]): row["estimate"] for row in result.tables["coefficients"]}
        if not all(name in x.columns and isinstance(value, int | float) for name, value in b.items()):
            return []
        columns = x[list(b)].to_numpy(np.float64) * inside[:, None]
        eta = columns @ np.array(list(b.values()), np.float64)
        fitted = 1 / (1 + np.exp(-eta)) if aim.binary and method != "ols" else eta
        return [(a, float(a @ (fitted * inside))) for a in columns.T]

    return options, span, read


_DRAWN: dict[str, Callable[..., Any]] = {
    **{method: partial(_means, method=method) for method in ("total", "mean", "variance", "describe")},
    **{method: partial(_model, method=method) for method in ("ols", "glm")},
    "ratio": _ratio,
    "table": _table,
    "count": _count,
    "chisq": _chisq,
    "ttest": _ttest,
    "covariance": _covariance,
    "pca": _pca,
}
NUMERIC = ("total", "mean", "variance", "describe", "ratio", "table", "ttest", "covariance", "pca", "ols", "glm")
BINARY = ("count", "table", "chisq", "glm")
