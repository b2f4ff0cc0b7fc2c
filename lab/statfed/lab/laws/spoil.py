"""Dirty variants of any world of tables: one thing wrong, at one holder, in one record where that is possible.

What comes in from many organisations is never clean. A holder's data are checked against the codebook before anything
leaves, so each variant has to be refused with a message that names the column. `spoil` makes them from any statistics
scenario's world; the scenario's own columns decide which one is hit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.scenario import World

Kind = Literal["unlisted-category", "out-of-range", "missing-required", "wrong-type", "lacking-column"]
KINDS: tuple[Kind, ...] = get_args(Kind)
UNLISTED = "unlisted-by-the-codebook"
NOT_A_NUMBER = "about twelve"
_NEEDED = ("weight", "replicate", "stratum", "psu", "record-key")
"""Roles whose columns may not miss a value, required or not."""


def spoil(world: World, kind: Kind, seed: int, columns: Sequence[str] | None = None) -> tuple[World, str]:
    """A copy of `world` with one holder's table spoiled, and the name of the column that a refusal has to name.

    kind: `unlisted-category`, a code that the codebook does not list; `out-of-range`, a number above its bound, or
    below where there is none above; `missing-required`, no value where one is required; `wrong-type`, words in a column
    of numbers; `lacking-column`, a column that is not there at all. columns: those that may be hit, such as those that
    a question reads; default all. Holder, record and column follow from the seed; the given world stays as it is.
    Raises UsageError where no column can be spoiled so, and on an unknown kind.
    """
    column = spoilable(world.codebook, kind, columns)
    if not column:
        raise UsageError(f"{kind}: got no column of {_FITS[kind][1]}; want one, or another of {', '.join(KINDS)}")
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    filled = [name for name, frame in world.holders.items() if len(frame)]
    if not filled:
        raise UsageError("world: got no holder with a record; want one, to spoil it")
    holder, name = str(rng.choice(filled)), str(rng.choice(column))
    frame = world.holders[holder].copy()
    _SPOILERS[kind](frame, name, int(rng.integers(len(frame))), world.codebook.columns[name])
    holders = {other: frame if other == holder else table for other, table in world.holders.items()}
    return replace(world, holders=holders), name


def spoiled_holder(clean: World, spoiled: World) -> str:
    """The holder whose table is another one."""
    (found,) = (name for name, frame in spoiled.holders.items() if frame is not clean.holders[name])
    return found


def spoilable(codebook: Codebook, kind: Kind, columns: Sequence[str] | None = None) -> tuple[str, ...]:
    """Columns, of those given, that can be spoiled in this way. Raises UsageError on an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"kind: got {kind!r}; want one of {', '.join(KINDS)}")
    fits, chosen = _FITS[kind][0], codebook.columns if columns is None else columns
    return tuple(name for name, column in codebook.columns.items() if fits(column) and name in chosen)


_FITS: Mapping[Kind, tuple[Callable[[Column], bool], str]] = {
    "unlisted-category": (lambda column: column.type == "category", "type category"),
    "out-of-range": (lambda column: column.low is not None or column.high is not None, "numbers with a bound"),
    "missing-required": (lambda column: column.required or column.role in _NEEDED, "required values"),
    "wrong-type": (lambda column: column.numeric, "type number, integer or boolean"),
    "lacking-column": (lambda column: True, "any type"),  # noqa: ARG005
}


def _unlisted(frame: pd.DataFrame, name: str, row: int, column: Column) -> None:  # noqa: ARG001
    _set(frame, name, row, UNLISTED)


def _outside(frame: pd.DataFrame, name: str, row: int, column: Column) -> None:
    """Beyond a bound by as much as the bound's size, and by a whole number."""
    above = column.high is not None
    bound = float((column.high if above else column.low) or 0.0)
    away = float(np.ceil(abs(bound))) + 1.0
    value = bound + away if above else bound - away
    _set(frame, name, row, int(value) if column.type == "integer" and value == int(value) else value)


def _missing(frame: pd.DataFrame, name: str, row: int, column: Column) -> None:  # noqa: ARG001
    values = frame[name]
    if pd.api.types.is_integer_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
        frame[name] = values.astype("boolean" if pd.api.types.is_bool_dtype(values.dtype) else "Int64")
        frame.iloc[row, _place(frame, name)] = pd.NA
    else:
        frame.iloc[row, _place(frame, name)] = np.nan if pd.api.types.is_float_dtype(values.dtype) else None


def _wrong_type(frame: pd.DataFrame, name: str, row: int, column: Column) -> None:  # noqa: ARG001
    """The whole column becomes text, as it does in a file in which one record is text."""
    frame[name] = [None if pd.isna(value) else str(value) for value in frame[name]]
    frame.iloc[row, _place(frame, name)] = NOT_A_NUMBER


def _lacking(frame: pd.DataFrame, name: str, row: int, column: Column) -> None:  # noqa: ARG001
    frame.drop(columns=name, inplace=True)


def _set(frame: pd.DataFrame, name: str, row: int, value: Any) -> None:
    if isinstance(frame[name].dtype, pd.CategoricalDtype):
        frame[name] = frame[name].astype(object)
    if isinstance(value, float) and not pd.api.types.is_float_dtype(frame[name].dtype):
        frame[name] = frame[name].astype(float)
    frame.iloc[row, _place(frame, name)] = value


def _place(frame: pd.DataFrame, name: str) -> int:
    return list(frame.columns).index(name)


_SPOILERS: Mapping[Kind, Callable[[pd.DataFrame, str, int, Column], None]] = {
    "unlisted-category": _unlisted,
    "out-of-range": _outside,
    "missing-required": _missing,
    "wrong-type": _wrong_type,
    "lacking-column": _lacking,
}
