"""From tables to what models are trained on: by public constants of the codebook alone.

A record becomes a row of `windows`, (channels, samples): an array column is a channel of its length; a text a channel
of Latin-1 codes, blanks at its end; a number, a date or a truth (0 or 1) one channel of one sample; a category one
channel for each level, 0 or 1. The features of a study are of one of these three kinds. Each record's numbers depend on
that record alone, so the sensitivity of everything computed from them to one record is what the clipping says. Records
that miss a feature or the target are left out.

Regression: the target is moved to the middle of its public bounds and divided by half their width.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from statfed.core.codebook import Codebook, Column
from statfed.core.errors import UsageError
from statfed.core.method import Question, once
from statfed.core.records import LATIN_1, Channel, Records, WindowCodebook
from statfed.core.table import Table
from statfed.strategies.learning.options import TrainingOptions

HIGHEST = 255.0  # Latin-1
_RESOLVED = 2.0**12  # times the range that bounds may be away from 0 in float32


@dataclass(frozen=True)
class Inputs:
    """What a model of a study sees. Public.

    form: channels, samples and, for a target with levels, classes; columns: as the codebook describes features and
    target; unit: column of the person's id, or none; required: has every record to have one? middle, half: of a
    number's bounds, which the target is scaled by.
    """

    form: WindowCodebook
    features: tuple[str, ...]
    target: str
    described: Mapping[str, Column]
    unit: str | None = None
    required: bool = False
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
    """The inputs of a study. Raises UsageError where target or features do not fit the codebook or each other.

    The unit is read where records of one are to stay together: kept apart, or protected as a person.
    """
    options, codebook, privacy = question.options, question.codebook, question.privacy
    required = privacy is not None and privacy.unit == "person"
    return make_inputs(codebook, options.features, options.target, required or options.holdout > 0, required)


def make_inputs(
    codebook: Codebook, features: Sequence[str], target: str, units: bool = False, required: bool = False
) -> Inputs:
    """Inputs from columns of a codebook. units: read the column of role unit, if there is one."""
    if not target:
        raise UsageError("target: got none; want a column: a category, a boolean or a number")
    if not features:
        raise UsageError("features: got none; want one column or more")
    unit = codebook.role("unit")
    for name in (*features, target):
        column = codebook.column(name, "target" if name == target else "features")
        if column.role in ("unit", "record-key"):
            raise UsageError(f"features, target: {name}: got role {column.role}; want columns that describe a record")
    described = {name: codebook.columns[name] for name in (*features, target)}
    samples = _samples({name: described[name] for name in features})
    channels = [channel for name in features for channel in _channels(name, described[name])]
    middle, half, classes = _target(target, described[target])
    form = WindowCodebook(channels=tuple(channels), samples=samples, classes=classes)
    return Inputs(form, tuple(features), target, described, unit if units or required else None, required, middle, half)


def _target(name: str, column: Column) -> tuple[float, float, tuple[str, ...]]:
    if column.levels:
        if len(column.levels) < 2:
            raise UsageError(f"target: {name}: got one level; want two or more")
        return 0.0, 1.0, column.levels
    if not column.numeric:
        raise UsageError(f"target: {name}: got type {column.type}; want category, boolean, number or integer")
    if column.bounds is None or column.bounds[0] == column.bounds[1]:
        got = "no bounds" if column.bounds is None else "equal bounds"
        raise UsageError(f"target: {name}: got {got}; want low below high in the codebook, which scale it")
    low, high = column.bounds
    return low / 2 + high / 2, high / 2 - low / 2, ()


def _samples(features: Mapping[str, Column]) -> int:
    """Samples of a window. Raises UsageError on columns that cannot stand beside each other."""
    kinds: dict[str, list[str]] = {}
    for name, column in features.items():
        single = column.type == "array" and column.length == 1
        kind = {"array": "arrays", "text": "texts"}.get("" if single else column.type, "single values")
        kinds.setdefault(kind, []).append(name)
    if len(kinds) > 1:
        got = " and ".join(f"{kind} ({', '.join(names)})" for kind, names in kinds.items())
        raise UsageError(f"features: got {got}; want one kind: single values, arrays of one length, or texts")
    lengths = {column.length or 1: name for name, column in features.items()}
    if len(lengths) > 1 and "arrays" in kinds:
        got = ", ".join(f"{name} ({length})" for length, name in sorted(lengths.items()))
        raise UsageError(f"features: got arrays of different lengths: {got}; want one length")
    return max(lengths)


def _channels(name: str, column: Column) -> list[Channel]:
    if column.type == "text":
        return [Channel(name=name, unit=LATIN_1, low=0.0, high=HIGHEST)]
    if column.type == "id":
        raise UsageError(f"features: {name}: got type id; want a column that describes a record")
    if column.type == "boolean":
        return [_indicator(name)]
    if column.type == "category":
        return [_indicator(f"{name}={level}") for level in column.levels]
    bounds = column.bounds
    if bounds is None:
        raise UsageError(f"features: {name}: got no bounds; want low and high in the codebook, which scale it")
    moved = _moved(column)
    low, high = bounds[0] - moved, bounds[1] - moved
    return [Channel(name=name, unit=column.unit, low=low, high=high, scale=column.scale or 1.0)]


def _indicator(name: str) -> Channel:
    """0 or 1, and still so after scaling: a record with many categories has as many ones, and zeros add nothing."""
    return Channel(name=name, unit="", low=-1.0, high=1.0)


def _moved(column: Column) -> float:
    """What is taken off a column in float64, so that float32 tells values apart: 0 unless bounds are far off."""
    low, high = column.bounds or (0.0, 0.0)
    return low / 2 + high / 2 if max(abs(low), abs(high)) > _RESOLVED * (high - low) > 0.0 else 0.0


def records_of(table: Table, inputs: Inputs, apart: float = 0.0) -> tuple[Records, NDArray[np.bool_]]:
    """A holder's complete records, in the order of its data, and which of them are kept apart to score the model.

    Private. labels: int64 class numbers, or float32 scaled targets. apart: share of the units; which they are is a
    public rule on a unit's id, so that a unit's records are on one side whatever other units there are. A record
    without one goes by its own numbers and by which of several equal records it is: then one record more or less is
    one more or less on one side, and the sides are alike. Raises UsageError on records without a unit where each has
    to have one.
    """
    found = table.complete((*inputs.features, inputs.target)).rows(inputs.columns)
    windows = windows_of(found, inputs)
    labels = labels_of(found.column(inputs.target), inputs)
    count = len(labels)
    ids: list[Any] = found.column(inputs.unit).to_pylist() if inputs.unit else [None] * count
    if inputs.required and None in ids:
        raise UsageError(f"{inputs.unit}: got records without a unit; want one in every record")
    if inputs.unit:
        names = [f"record {i}" if unit is None else f"unit {unit}" for i, unit in enumerate(ids)]
        _, persons = np.unique(np.asarray(names, str), return_inverse=True)
    else:
        persons = np.arange(count)
    records = Records(windows, labels, persons.reshape(-1).astype(np.int64))
    if apart <= 0.0:
        return records, np.zeros(count, np.bool_)
    seen: Counter[bytes] = Counter()

    def key(row: int, unit: Any) -> bytes:
        if unit is not None:
            return str(unit).encode()
        own: bytes = windows[row].tobytes() + labels[row].tobytes()
        seen[own] += 1
        return own + seen[own].to_bytes(8, "big")

    return records, _apart([key(i, unit) for i, unit in enumerate(ids)], apart)


def windows_of(found: Any, inputs: Inputs) -> NDArray[np.float32]:
    """The features of complete records in an Arrow table, (records, channels, samples)."""
    form, count = inputs.form, found.num_rows
    if not count:
        return np.empty((0, len(form.channels), form.samples), np.float32)
    parts = [_values(found.column(name), inputs.described[name], count, form.samples) for name in inputs.features]
    return np.ascontiguousarray(np.concatenate(parts, axis=1), np.float32)


def labels_of(column: Any, inputs: Inputs) -> NDArray[Any]:
    """Complete targets as class numbers, int64, or scaled to [-1, 1], float32."""
    if not inputs.regression:
        return _codes(column, inputs.described[inputs.target])
    numbers = np.asarray(column.to_numpy(), np.float64)
    return np.asarray(np.clip((numbers - inputs.middle) / inputs.half, -1.0, 1.0), np.float32)


def _apart(keys: Sequence[bytes], share: float) -> NDArray[np.bool_]:
    limit = int(share * 2**32)
    side: dict[bytes, bool] = {}
    for key in keys:
        if key not in side:
            digest = hashlib.blake2b(key, digest_size=4, person=b"statfed.holdout").digest()
            side[key] = int.from_bytes(digest, "big") < limit
    return np.fromiter((side[key] for key in keys), np.bool_, len(keys))


def _values(column: Any, described: Column, count: int, samples: int) -> NDArray[Any]:
    """A column as channels, (records, channels, samples)."""
    if described.type == "text":
        return text_codes(column.to_pylist(), samples)[:, None, :]
    if described.type == "category":
        out = np.zeros((count, len(described.levels), 1), np.float32)
        out[np.arange(count), _codes(column, described), 0] = 1.0
        return out
    if described.type == "array":
        values = np.asarray(column.combine_chunks().flatten().to_numpy(zero_copy_only=False))
    else:
        values = np.asarray(column.to_numpy())
    moved = _moved(described)
    values = values.astype(np.float64) - moved if moved else values
    return values.astype(np.float32, copy=False).reshape(count, 1, samples)


def _codes(column: Any, described: Column) -> NDArray[np.int64]:
    places = {level: i for i, level in enumerate(described.levels)}
    if described.type == "boolean":
        return np.asarray(column.to_numpy(), np.int64)
    return np.fromiter((places[code] for code in column.to_pylist()), np.int64, len(column))


def text_codes(texts: Sequence[str], length: int) -> NDArray[np.float32]:
    """Texts as Latin-1 codes, (texts, length), blanks at their ends; what Latin-1 does not have is a question mark."""
    out = np.full((len(texts), length), float(ord(" ")), np.float32)
    for row, text in enumerate(texts):
        codes = np.frombuffer(text.encode("latin-1", "replace")[:length], np.uint8)
        out[row, : len(codes)] = codes
    return out
