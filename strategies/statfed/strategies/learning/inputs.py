"""From tables to what models are trained on: by public constants of the codebook alone.

A record becomes a row of `windows`, (channels, samples): an array column is a channel of its length; a text a channel
of Latin-1 codes, blanks at its end; a number, a date or a truth one channel of one sample; a category one channel for
each level, 0 or 1. Each record's numbers depend on that record alone, so the sensitivity of everything computed from
them to one record is what the clipping says. Records that miss a feature or the target are left out.

Regression: the target is moved to the middle of its public bounds and divided by half their width.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.method import Question, once
from statfed.core.records import Channel, Records, WindowCodebook
from statfed.core.table import Table
from statfed.strategies.learning.options import TrainingOptions

HIGHEST = 255.0  # Latin-1


@dataclass(frozen=True)
class Inputs:
    """What a model of a study sees. Public.

    form: channels, samples and, for a target with levels, classes; unit: column of the person's id, or none; middle,
    half: of a number's bounds, which the target is scaled by.
    """

    form: WindowCodebook
    features: tuple[str, ...]
    target: str
    unit: str | None = None
    middle: float = 0.0
    half: float = 1.0

    @property
    def regression(self) -> bool:
        """Is a number predicted?"""
        return not self.form.classes

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""
        return (*self.features, self.target, *((self.unit,) if self.unit else ()))


@once
def inputs_of(question: Question[TrainingOptions]) -> Inputs:
    """The inputs of a study. Raises UsageError where target or features do not fit the codebook or each other."""
    options, codebook = question.options, question.codebook
    return make_inputs(codebook, options.features, options.target)


def make_inputs(codebook: Codebook, features: Sequence[str], target: str) -> Inputs:
    """Inputs from columns of a codebook."""
    if not target:
        raise UsageError("target: got none; want a column: a category, a boolean or a number")
    if not features:
        raise UsageError("features: got none; want one column or more")
    channels: list[Channel] = []
    lengths: dict[int, str] = {}
    for name in features:
        column = codebook.column(name, "features")
        channels += _channels(name, column)
        lengths.setdefault(_samples(column), name)
    if len(lengths) > 1:
        kinds = ", ".join(f"{name} ({length})" for length, name in sorted(lengths.items()))
        raise UsageError(
            f"features: got columns of different lengths: {kinds}; want single values, or arrays or texts of one length"
        )
    column = codebook.column(target, "target")
    middle, half = 0.0, 1.0
    if column.levels:
        classes = column.levels
        if len(classes) < 2:
            raise UsageError(f"target: {target}: got one level; want two or more")
    else:
        codebook.number(target, "target")
        if column.bounds is None or column.bounds[0] == column.bounds[1]:
            raise UsageError(f"target: {target}: got no bounds; want low and high in the codebook, which scale it")
        classes, (low, high) = (), column.bounds
        middle, half = (low + high) / 2, (high - low) / 2
    form = WindowCodebook(channels=tuple(channels), samples=next(iter(lengths)), classes=classes)
    return Inputs(form, tuple(features), target, codebook.role("unit"), middle, half)


def _samples(column: Column) -> int:
    return column.length or 1 if column.type in ("array", "text") else 1


def _channels(name: str, column: Column) -> list[Channel]:
    if column.type == "text":
        return [Channel(name=name, unit="Latin-1 code", low=0.0, high=HIGHEST)]
    if column.type == "id":
        raise UsageError(f"features: {name}: got type id; want a column that says something of a record")
    if column.levels and column.type == "category":
        return [Channel(name=f"{name}={level}", unit="", low=0.0, high=1.0, scale=0.5) for level in column.levels]
    bounds = column.bounds
    if bounds is None:
        raise UsageError(f"features: {name}: got no bounds; want low and high in the codebook, which scale it")
    low, high = bounds
    scale = column.scale or 1.0
    return [Channel(name=name, unit=column.unit, low=low, high=high, scale=scale)]


def records_of(table: Table, inputs: Inputs, apart: float = 0.0) -> tuple[Records, NDArray[np.bool_]]:
    """A holder's complete records, in the order of its data, and which of them are kept apart to score the model.

    Private. labels: int64 class numbers, or float32 scaled targets. apart: share of the units; which they are is a
    public rule on a unit's id, or on a record's own numbers where there is none, so that a unit's records are on one
    side whatever other units there are.
    """
    codebook = table.codebook
    complete = table.complete((*inputs.features, inputs.target))
    found = complete.rows(inputs.columns)
    count = found.num_rows
    parts = [_values(found.column(name), codebook.column(name), count) for name in inputs.features]
    windows = np.concatenate(parts, axis=1) if count else _none(inputs)
    labels = _labels(found.column(inputs.target), codebook.column(inputs.target), inputs)
    windows = np.ascontiguousarray(windows, np.float32)
    if inputs.unit:
        ids = [str(unit) for unit in found.column(inputs.unit).to_pylist()]
        _, persons = np.unique(np.asarray(ids, str), return_inverse=True)
        records = Records(windows, labels, persons.reshape(-1).astype(np.int64))
        keys = [unit.encode() for unit in ids]
    else:
        records = Records(windows, labels, np.arange(count, dtype=np.int64))
        keys = [windows[i].tobytes() + labels[i].tobytes() for i in range(count)] if apart else []
    return records, _apart(keys, apart, count)


def _labels(column: Any, described: Column, inputs: Inputs) -> NDArray[Any]:
    if not inputs.regression:
        return _codes(column, described)
    numbers = np.asarray(column.to_numpy(), np.float64)
    return np.asarray((numbers - inputs.middle) / inputs.half, np.float32)


def _apart(keys: Sequence[bytes], share: float, count: int) -> NDArray[np.bool_]:
    if share <= 0.0:
        return np.zeros(count, np.bool_)
    limit = int(share * 2**32)
    side: dict[bytes, bool] = {}
    for key in keys:
        if key not in side:
            digest = hashlib.blake2b(key, digest_size=4, person=b"statfed.holdout").digest()
            side[key] = int.from_bytes(digest, "big") < limit
    return np.fromiter((side[key] for key in keys), np.bool_, count)


def _none(inputs: Inputs) -> NDArray[np.float32]:
    return np.empty((0, len(inputs.form.channels), inputs.form.samples), np.float32)


def _values(column: Any, described: Column, count: int) -> NDArray[np.float32]:
    """A column as channels, (records, channels, samples) float32."""
    if described.type == "array":
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        made: NDArray[np.float32] = flat.astype(np.float32, copy=False).reshape(count, 1, _samples(described))
        return made
    if described.type == "text":
        return text_codes(column.to_pylist(), _samples(described))[:, None, :]
    if described.type == "category":
        codes = _codes(column, described)
        out = np.zeros((count, len(described.levels), 1), np.float32)
        out[np.arange(count), codes, 0] = 1.0
        return out
    values: NDArray[np.float32] = column.to_numpy().astype(np.float32)[:, None, None]
    return values


def _codes(column: Any, described: Column) -> NDArray[np.int64]:
    places = {level: i for i, level in enumerate(described.levels)}
    if described.type == "boolean":
        return np.asarray(column.to_numpy(zero_copy_only=False), np.int64)
    return np.fromiter((places[code] for code in column.to_pylist()), np.int64, len(column))


def text_codes(texts: Sequence[str], length: int) -> NDArray[np.float32]:
    """Texts as Latin-1 codes, (texts, length), blanks at their ends; what Latin-1 does not have is a question mark."""
    out = np.full((len(texts), length), float(ord(" ")), np.float32)
    for row, text in enumerate(texts):
        codes = np.frombuffer(text.encode("latin-1", "replace")[:length], np.uint8)
        out[row, : len(codes)] = codes
    return out
