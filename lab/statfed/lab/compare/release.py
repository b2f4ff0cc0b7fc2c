"""What releases tell of one unit: attacks on the figures that come out, whatever protection formed them.

Membership and attribute inference are games (Yeom et al. 2018; Dwork et al. 2017): an attacker who knows everybody
else's records sees the figures of a world with its target, or of one without it (with another value of an attribute),
and says which. It knows how the target moves each figure, and weighs figures by their noise: the likelihood ratio for
Gaussian noise. The area under the curve is .5 where nothing can be told and 1 where the worlds are told apart always.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from statfed.core.conditions import Clause, Condition
from statfed.core.scenario import Figures, World

Tell = Callable[[World, int], Figures]
"""The figures that come out of a world; the number tells repetitions apart, whose noise differs."""


def exposed(world: World) -> tuple[str, int]:
    """The most exposed record: holder and row, of the holder with the fewest records. Farthest in bounded numbers, in
    standard deviations, and in the rarest categories."""
    holder = min(world.holders, key=lambda name: (len(world.holders[name]), name))
    frame, pooled = world.holders[holder], pd.concat(world.holders.values())
    score = np.zeros(len(frame))
    for name, column in world.codebook.columns.items():
        if name not in frame or column.role:
            continue
        if column.type in ("number", "integer"):
            values = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
            every = pd.to_numeric(pooled[name], errors="coerce").to_numpy(float)
            score += np.nan_to_num(np.abs(values - np.nanmean(every)) / (np.nanstd(every) or 1.0))
        elif column.levels:
            share = pooled[name].astype(str).value_counts(normalize=True)
            score -= np.log(frame[name].astype(str).map(share).to_numpy(float)) / 4
    return holder, int(np.argmax(score))


def without(world: World, holder: str, row: int) -> World:
    """The world without one record, or without all records of its unit where the codebook has a unit column."""
    frame = world.holders[holder]
    unit = world.codebook.role("unit")
    gone = frame.index == frame.index[row]
    if unit is not None and unit in frame:
        gone = (frame[unit] == frame[unit].iloc[row]).to_numpy()
    return _with(world, holder, frame[~gone].reset_index(drop=True))


def changed(world: World, holder: str, row: int) -> World | None:
    """The world in which the record has another code of the first category without a role; None where there is none."""
    frame = world.holders[holder].reset_index(drop=True)
    for name, column in world.codebook.columns.items():
        if column.type == "category" and not column.role and name in frame:
            own = str(frame.loc[row, name])
            other = next((code for code in reversed(column.levels) if code != own), None)
            if other is not None:
                twin = frame.copy()
                twin[name] = twin[name].astype(object)
                twin.loc[row, name] = other
                return _with(world, holder, twin)
    return None


def _with(world: World, holder: str, frame: pd.DataFrame) -> World:
    return replace(world, holders={**world.holders, holder: frame})


def told_apart(exact: tuple[Figures, Figures], one: Sequence[Figures], other: Sequence[Figures]) -> float:
    """AUC of the game. exact: figures of both worlds without noise, which the attacker works out; one, other: what came
    out of each world, repeatedly."""
    if _same(one) and _same(other):  # no noise: either the figures differ or they do not
        return 0.5 if alike(one[0], other[0]) else 1.0
    names = [n for n in exact[0] if all(f.get(n) and f[n].value is not None for f in (*exact, *one, *other))]
    if not names:
        return 0.5
    rows = [np.array([f[n].value for n in names], float) for f in (*exact, *one, *other)]
    moved = rows[0] - rows[1]
    shown = np.stack(rows[2:])
    first, second = shown[: len(one)], shown[len(one) :]
    spread = (first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / 2
    weight = np.divide(moved, spread, out=np.zeros_like(moved), where=spread > 0)
    return auc(first @ weight, second @ weight)


def auc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Probability that a member's score is the larger one, ties counting half."""
    larger = np.sign(inside[:, None] - outside[None, :])
    return float((larger.mean() + 1) / 2)


def alike(one: Figures, other: Figures) -> bool:
    """Are two sets of figures the same, but for the order in which an engine may add floats up?"""

    def close(a: float | None, b: float | None) -> bool:
        return a == b if a is None or b is None else math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12)

    return one.keys() == other.keys() and all(
        close(figure.value, other[name].value)
        and close(figure.low, other[name].low)
        and close(figure.high, other[name].high)
        for name, figure in one.items()
    )


def _same(figures: Sequence[Figures]) -> bool:
    return all(alike(one, figures[0]) for one in figures)


def game(tell: Tell, exact: Tell, world: World, other: World, runs: int) -> float:
    """Play with `runs` repetitions of each world, no two with the same noise; two are enough where none is random."""
    first = [tell(world, 2 * n) for n in range(2)]
    second = [tell(other, 2 * n + 1) for n in range(2)]
    if not (_same(first) and _same(second)):
        first += [tell(world, 2 * n) for n in range(2, runs)]
        second += [tell(other, 2 * n + 1) for n in range(2, runs)]
    return told_apart((exact(world, 0), exact(other, 0)), first, second)


def too_few(
    rows: Sequence[Mapping[str, object]], by: Sequence[str], frame: pd.DataFrame, where: Sequence[Clause], least: int
) -> int:
    """Released rows of a table that have from 1 to `least` - 1 records behind them.

    rows: of a result without noise; frame: all holders' records. A row counts as released where it shows any number.
    """
    kept = frame
    for clause in where:
        met = np.zeros(len(kept), bool)
        for one in clause.either:
            met |= _meets(kept[one.column], one).to_numpy(bool)
        kept = kept[met]
    counts = kept.groupby([kept[name].map(_code) for name in by]).size() if by else pd.Series({(): len(kept)})
    sizes = {key if isinstance(key, tuple) else (key,): int(n) for key, n in counts.items()}
    found = 0
    for row in rows:
        cell = tuple(_code(row.get(name)) for name in by)
        shown = any(isinstance(value, int | float) for name, value in row.items() if name not in by)
        found += shown and 0 < sizes.get(cell, 0) < least
    return found


def _code(value: object) -> str:
    return str(value).lower() if isinstance(value, bool | np.bool_) else str(value)


def _meets(column: "pd.Series[Any]", condition: Condition) -> "pd.Series[bool]":
    value = condition.value
    match condition.op:
        case "is null":
            return column.isna()
        case "is not null":
            return column.notna()
        case "in":
            listed: list[Any] = list(value) if isinstance(value, tuple) else [value]
            return (column.map(_code) if isinstance(listed[0], str) else pd.to_numeric(column)).isin(listed)
        case "==":
            return column.map(_code) == value if isinstance(value, str) else column == value
        case "!=":
            return column.map(_code) != value if isinstance(value, str) else column != value
    number = pd.to_numeric(column)
    return {"<": number < value, "<=": number <= value, ">": number > value, ">=": number >= value}[condition.op]
